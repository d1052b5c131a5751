/* Threads that leave signals to the program, and waits by a clock that only goes forward. */
#include "base_internal.h"

#include <signal.h>

void sap_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void sap_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, double seconds) {
    int64_t at = sap_nanoseconds() + (int64_t)(seconds * 1e9);
    const struct timespec until = {(time_t)(at / 1000000000), (long)(at % 1000000000)};
    (void)pthread_cond_timedwait(condition, lock, &until);
}

bool sap_thread_start(pthread_t *thread, void *(*work)(void *context), void *context) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(thread, NULL, work, context) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}
