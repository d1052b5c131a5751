/* What fork() needs beside the handlers of a client library such as XrdCl. Those stop its threads before a fork and start
 * them again after it, in both processes; but they don't wait for the end of the thread that polls. It may hold the lock of
 * the resolver just then, which the child would find locked for ever. So a fork waits for threads of a certain name: the
 * library's, which have it from the thread that starts them, and those that a plug-in opens files on. */
#include "base_internal.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { NAME_BYTES = 16, MOST_LOOKS = 1000 };
static const long LOOK_NANOSECONDS = 200000;

static _Thread_local char own_name[NAME_BYTES];

static bool is_stopping(const char *thread) {
    char path[64], name[NAME_BYTES + 1] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", thread);
    FILE *f = fopen(path, "re");
    bool found = f && fgets(name, sizeof name, f) && strncmp(name, SAP_PLUGIN_THREAD, strlen(SAP_PLUGIN_THREAD)) == 0;
    if (f)
        (void)fclose(f);
    return found;
}

static bool any_is_stopping(void) {
    bool any = false;
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *entry; threads && !any && (entry = readdir(threads));)
        any = entry->d_name[0] != '.' && is_stopping(entry->d_name);
    if (threads)
        (void)closedir(threads);
    return any;
}

static void wait_for_threads(void) {
    for (int i = 0; i < MOST_LOOKS && any_is_stopping(); i++)
        (void)nanosleep(&(struct timespec){0, LOOK_NANOSECONDS}, NULL);
}

static void take_name(void) {
    (void)prctl(PR_GET_NAME, own_name);
    (void)prctl(PR_SET_NAME, SAP_PLUGIN_THREAD);
}

static void restore_name(void) {
    (void)prctl(PR_SET_NAME, own_name);
}

static void enclose_before(void) {
    (void)pthread_atfork(wait_for_threads, take_name, take_name);
}

static void enclose_after(void) {
    (void)pthread_atfork(NULL, restore_name, restore_name);
}

/* Handlers run before a fork in reverse order of registration, and after it in order. */
void sap_fork_enclose(bool loaded) {
    static pthread_once_t before = PTHREAD_ONCE_INIT, after = PTHREAD_ONCE_INIT;
    if (loaded)
        pthread_once(&after, enclose_after);
    else
        pthread_once(&before, enclose_before);
}
