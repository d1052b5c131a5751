/* The witness: a small process beside each rank that tells of its sudden end.
 *
 * A killed process cannot say anything, and MPICH's launcher kills all the others at once, so that nobody else can either; what it
 * prints may even name the wrong process. The witness waits for the end of a pipe, which closes with the rank, and is in
 * a session of its own, so that it outlives it. Of several ranks that end together it is the first that matters: a witness
 * speaks only if the other ranks of its host still run.
 */
#include "comm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NEIGHBOURS = 1024, PATH = 32 };

/* What both processes see. */
typedef struct shared {
    atomic_bool ready, over;
    atomic_int_fast64_t epoch, step;
    char name[SAP_COMM_NAME];
    int count;
    pid_t rank, pids[NEIGHBOURS];
} shared;

struct sap_witness {
    shared *shared;
    int pipe; /* the rank's end */
    pid_t process;
};

/* ---- In the witness: nothing that is not safe after a fork from a program with threads -------------------------- */

typedef struct line {
    char text[300];
    size_t length;
} line;

static void put(line *l, const char *text) {
    size_t length = strlen(text);
    if (l->length + length <= sizeof l->text) {
        memcpy(l->text + l->length, text, length);
        l->length += length;
    }
}

static void put_number(line *l, int64_t number) {
    char digits[24], *at = digits + sizeof digits - 1;
    *at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    put(l, at);
}

/* Whether a process still runs: one that has ended, but whose parent has not looked yet, does not. */
static bool runs(pid_t process) {
    line path = {0};
    char text[512];
    put(&path, "/proc/");
    put_number(&path, process);
    put(&path, "/stat");
    path.text[path.length] = '\0';
    int file = open(path.text, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0)
        (void)close(file);
    text[length > 0 ? length : 0] = '\0';
    const char *state = strrchr(text, ')'); /* "123 (name) R …" */
    return state && state[1] && !strchr("ZXx", state[2]);
}

static void speak(const shared *s) {
    line l = {0};
    put(&l, "sapwood: ");
    put(&l, s->name);
    put(&l, " (process ");
    put_number(&l, s->rank);
    put(&l, ") ended without a word");
    if (atomic_load(&s->epoch) > 0) {
        put(&l, " in epoch ");
        put_number(&l, atomic_load(&s->epoch));
        put(&l, ", after step ");
        put_number(&l, atomic_load(&s->step));
    }
    put(&l, ": it was killed, or crashed\n");
    ssize_t ignored = write(STDERR_FILENO, l.text, l.length);
    (void)ignored;
}

_Noreturn static void attend(const shared *s, int pipe) {
    char byte;
    ssize_t got;
    (void)setsid();
    (void)dup2(pipe, 3); /* all other files of the rank are to close with it */
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 4u, ~0u, 0u) != 0)
#endif
        for (int file = 4; file < 4096; file++)
            (void)close(file);
    (void)close(STDIN_FILENO);
    (void)close(STDOUT_FILENO);
    do
        got = read(3, &byte, 1);
    while (got > 0 || (got < 0 && errno == EINTR));
    bool first = atomic_load(&s->ready) && !atomic_load(&s->over);
    for (int i = 0; first && i < s->count; i++)
        first = runs(s->pids[i]);
    if (first)
        speak(s);
    _exit(0);
}

/* ---- In the rank -------------------------------------------------------------------------------------------------- */

sap_witness *sap_witness_start(void) {
    int ends[2];
    sap_witness *witness = calloc(1, sizeof *witness);
    void *memory = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!witness || memory == MAP_FAILED || pipe2(ends, O_CLOEXEC) != 0) {
        if (memory != MAP_FAILED)
            (void)munmap(memory, sizeof(shared));
        free(witness);
        return NULL;
    }
    witness->shared = memory;
    witness->shared->rank = getpid();
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* in the witness they stay blocked */
    witness->process = _Fork(); /* without the handlers of fork(), which make locks and threads anew */
    if (witness->process == 0)
        attend(witness->shared, ends[0]);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)close(ends[0]);
    witness->pipe = ends[1];
    if (witness->process > 0)
        return witness;
    (void)close(ends[1]);
    (void)munmap(memory, sizeof(shared));
    free(witness);
    return NULL;
}

void sap_witness_tell(sap_witness *witness, const char *name, const pid_t *pids, int count) {
    shared *s = witness->shared;
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    s->count = count < NEIGHBOURS ? count : NEIGHBOURS;
    memcpy(s->pids, pids, (size_t)s->count * sizeof *pids);
    atomic_store(&s->ready, true);
}

void sap_witness_note(sap_witness *witness, int64_t epoch, int64_t step) {
    atomic_store(&witness->shared->epoch, epoch);
    atomic_store(&witness->shared->step, step);
}

void sap_witness_stop(sap_witness *witness) {
    if (!witness)
        return;
    atomic_store(&witness->shared->over, true);
    (void)close(witness->pipe);
    while (waitpid(witness->process, NULL, 0) < 0 && errno == EINTR)
        continue;
    (void)munmap(witness->shared, sizeof(shared));
    free(witness);
}
