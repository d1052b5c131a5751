/* Stages that Python does: report, and train by TensorFlow. They run as `python -m sapwood._NAME`, with the interpreter recorded at
 * build. */
#include "console.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Puts our own Python package on the path of the child, for a command that runs from its build folder. */
static void set_python_path(void) {
    const char *before = getenv("PYTHONPATH");
    if (access(SAPWOOD_PYTHON_FOLDER "/sapwood/_report.py", R_OK) != 0)
        return;
    char path[8192];
    (void)snprintf(path, sizeof path, "%s%s%s", SAPWOOD_PYTHON_FOLDER, before ? ":" : "", before ? before : "");
    (void)setenv("PYTHONPATH", path, 1);
}

/* Starts the program; -1: errno says why not. */
static pid_t start(const char *const *argv) {
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &signals, &before);
    pid_t child = fork();
    if (child == 0) { /* our handlers would only note the signal, and what is noted is gone with execvp */
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        set_python_path();
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        (void)fprintf(stderr, "sapwood: %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return child;
}

/* Until the child has ended. Returns whether we were interrupted; the child is told. */
static bool wait_for(pid_t child, int *state) {
    const struct timespec a_while = {.tv_nsec = 10000000};
    bool told = false;
    while (child > 0 && waitpid(child, state, WNOHANG) == 0) {
        if (console_interrupted() && !told) {
            told = true;
            (void)kill(child, SIGTERM); /* Python can lose the KeyboardInterrupt of a Ctrl-C */
        }
        (void)nanosleep(&a_while, NULL);
    }
    return told;
}

sap_status python_run(void *context, const char *stage, const char *const *arguments, size_t count, sap_error *err) {
    (void)context;
    const char *python = getenv("SAPWOOD_PYTHON");
    if (!python || !*python)
        python = SAPWOOD_PYTHON[0] ? SAPWOOD_PYTHON : "python3";
    char module[64];
    (void)snprintf(module, sizeof module, "sapwood._%s", strcmp(stage, "train") == 0 ? "tensorflow" : stage);
    const char **argv = calloc(count + 4, sizeof(const char *));
    if (!argv)
        return sap_error_set(err, SAP_EMEMORY, "%s: out of memory", stage);
    argv[0] = python;
    argv[1] = "-m";
    argv[2] = module;
    for (size_t i = 0; i < count; i++)
        argv[3 + i] = arguments[i];
    (void)fflush(stdout);
    pid_t child = start(argv);
    free(argv);
    int state = 0;
    bool interrupted = wait_for(child, &state);
    if (child < 0)
        return sap_error_set(err, SAP_EIO, "%s: %s", python, strerror(errno));
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0)
        return SAP_OK;
    if (interrupted || WIFSIGNALED(state) || WEXITSTATUS(state) == EXIT_INTERRUPTED)
        return sap_error_set(err, SAP_ECANCELLED, "%s: interrupted", stage);
    return sap_error_set(err, WEXITSTATUS(state) == EXIT_USAGE ? SAP_EARGUMENT : SAP_EIO,
                         "%s: `%s -m %s` failed with exit status %d", stage, python, module, WEXITSTATUS(state));
}
