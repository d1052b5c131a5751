/* The watchdog: a thread of each rank that sends signs of life to the next rank and expects them of the rank before.
 *
 * In a ring every rank is watched by one other, whatever part of the network is cut. A rank is lost when nothing is heard of it,
 * or when it does not get on although it waits for nobody: its process has used no processor time and finished nothing.
 */
#include "comm_internal.h"

#include <time.h>

enum { BEATS = 20 }; /* in the time after which a rank is lost */

/* What is known of the rank before. */
typedef struct watch {
    double heard, moved; /* when */
    int64_t work;
    bool waiting;
} watch;

static double period_of(const sap_comm *comm) {
    double period = comm->timeout / BEATS;
    return period < 1 ? period : 1;
}

/* Tenths of a second of processor time, so that a long computation counts as getting on. */
static int64_t processor_time(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 10 + t.tv_nsec / 100000000;
}

static void look(sap_comm *comm, watch *w, double now) {
    sap_comm_beat beat;
    while (comm->table->receive_beat(comm->state, &beat)) {
        if (beat.work != w->work || beat.waiting)
            w->moved = now;
        *w = (watch){.heard = now, .moved = w->moved, .work = beat.work, .waiting = beat.waiting != 0};
        comm->last_received = comm->last_received || beat.last;
    }
}

static void judge(sap_comm *comm, const watch *w, double now) {
    int before = (comm->rank + comm->size - 1) % comm->size;
    double silence = now - w->heard;
    bool silent = silence > comm->timeout;
    bool still = silence < comm->timeout / 4 && !w->waiting && now - w->moved > comm->timeout;
    if (comm->last_received || !(silent || still) || atomic_load(&comm->lost))
        return;
    (void)snprintf(comm->failure, sizeof comm->failure, "%s is lost: %s for %g seconds",
                   comm->names[before][0] ? comm->names[before] : "another rank",
                   silent ? "nothing was heard of it" : "it has made no progress", comm->timeout);
    atomic_store(&comm->lost, true);
}

static void *watch_over(void *context) {
    sap_comm *comm = context;
    double period = period_of(comm), before = sap_seconds();
    int64_t (*used)(void) = comm->table->processor_time ? comm->table->processor_time : processor_time;
    watch w = {.heard = before, .moved = before};
    pthread_mutex_lock(&comm->lock);
    while (!comm->closing) {
        double now = sap_seconds();
        if (now - before > period + comm->timeout / 2) /* this process itself was stopped for a while */
            w.heard = w.moved = now;
        before = now;
        sap_comm_beat beat = {.work = atomic_load(&comm->work) + used(), .waiting = atomic_load(&comm->waiting)};
        comm->table->send_beat(comm->state, &beat);
        look(comm, &w, now);
        judge(comm, &w, now);
        sap_comm_device_watch(comm);
        sap_condition_wait(&comm->wake, &comm->lock, period);
    }
    pthread_mutex_unlock(&comm->lock);
    return NULL;
}

sap_status sap_watchdog_start(sap_comm *comm, sap_error *err) {
    sap_condition_init(&comm->wake);
    comm->has_thread = sap_thread_start(&comm->thread, watch_over, comm);
    return comm->has_thread ? SAP_OK : sap_error_memory(err, "watchdog thread");
}

void sap_watchdog_stop(sap_comm *comm, bool healthy) {
    pthread_mutex_lock(&comm->lock);
    comm->closing = true;
    pthread_cond_signal(&comm->wake);
    pthread_mutex_unlock(&comm->lock);
    pthread_join(comm->thread, NULL);
    pthread_cond_destroy(&comm->wake);
    comm->has_thread = false;
    double begun = sap_seconds();
    sap_comm_beat beat = {.last = 1};
    if (healthy)
        comm->table->send_beat(comm->state, &beat);
    while (healthy && !comm->last_received && sap_seconds() - begun < comm->timeout) {
        watch w = {0};
        look(comm, &w, begun);
        if (!comm->last_received)
            (void)nanosleep(&(struct timespec){0, 200000}, NULL);
    }
}
