#include "fake_comm.h"

#include <stdlib.h>

/* An operation; there are two, in turns, since some ranks may begin the next one before others have seen the end of this. */
typedef struct exchange {
    int arrived, left;
    bool broadcast, differs;
    sap_comm_type type;
    int32_t count;
    void *data[FAKE_RANKS];
    char *result;
} exchange;

struct fake_world {
    int size;
    pthread_mutex_t lock;
    exchange exchanges[2];
    sap_comm_beat beats[FAKE_RANKS]; /* to each rank */
    bool fresh[FAKE_RANKS], cut[FAKE_RANKS], hung[FAKE_RANKS];
    double timeout;
    void (*work)(fake_job *job);
};

typedef struct fake_state {
    fake_world *world;
    int rank, number; /* of operations begun */
    bool under_way;
} fake_state;

static _Thread_local fake_job *own_job; /* while it is opened */

static sap_status open_fake(void **state, int *rank, int *size, sap_error *err) {
    fake_state *s = calloc(1, sizeof *s);
    if (!s)
        return sap_error_memory(err, "fake");
    *s = (fake_state){own_job->world, own_job->rank, 0, false};
    *state = s;
    *rank = s->rank;
    *size = s->world->size;
    return SAP_OK;
}

static void close_fake(void *state, bool failed) {
    (void)failed;
    free(state);
}

static size_t bytes_of(const exchange *e) {
    return (size_t)e->count * (e->broadcast ? 1 : e->type == SAP_COMM_FLOAT ? 4 : 8);
}

/* In the order of the ranks. */
static void add_up(exchange *e, int size) {
    e->result = malloc(bytes_of(e) + 1);
    memcpy(e->result, e->data[0], bytes_of(e));
    for (int r = 1; r < size && !e->broadcast; r++) {
        for (int32_t i = 0; i < e->count; i++) {
            if (e->type == SAP_COMM_FLOAT)
                ((float *)(void *)e->result)[i] += ((float *)e->data[r])[i];
            else if (e->type == SAP_COMM_DOUBLE)
                ((double *)(void *)e->result)[i] += ((double *)e->data[r])[i];
            else
                ((int64_t *)(void *)e->result)[i] += ((int64_t *)e->data[r])[i];
        }
    }
}

static sap_status begin(fake_state *s, bool broadcast, sap_comm_type type, void *data, int32_t count, sap_error *err) {
    fake_world *w = s->world;
    pthread_mutex_lock(&w->lock);
    exchange *e = &w->exchanges[s->number++ % 2];
    s->under_way = true;
    if (!w->cut[s->rank] && !w->hung[s->rank]) {
        if (e->arrived == 0)
            *e = (exchange){.broadcast = broadcast, .type = type, .count = count};
        e->differs = e->differs || e->broadcast != broadcast || e->type != type || e->count != count;
        e->data[s->rank] = data;
        if (++e->arrived == w->size && !e->differs)
            add_up(e, w->size);
    }
    bool differs = e->differs;
    pthread_mutex_unlock(&w->lock);
    return differs ? sap_error_set(err, SAP_EARGUMENT, "the ranks are in different operations") : SAP_OK;
}

static sap_status start_sum(void *state, sap_comm_type type, void *data, int32_t count, sap_error *err) {
    return begin(state, false, type, data, count, err);
}

static sap_status start_broadcast(void *state, void *data, int32_t bytes, sap_error *err) {
    return begin(state, true, SAP_COMM_FLOAT, data, bytes, err);
}

static sap_status test(void *state, bool *done, sap_error *err) {
    fake_state *s = state;
    fake_world *w = s->world;
    pthread_mutex_lock(&w->lock);
    exchange *e = &w->exchanges[(s->number - 1) % 2];
    bool differs = e->differs;
    *done = e->arrived == w->size && !w->cut[s->rank] && !w->hung[s->rank];
    if (*done && !differs) {
        memcpy(e->data[s->rank], e->result, bytes_of(e));
        if (++e->left == w->size) {
            free(e->result);
            *e = (exchange){0};
        }
    }
    pthread_mutex_unlock(&w->lock);
    return differs ? sap_error_set(err, SAP_EARGUMENT, "the ranks are in different operations") : SAP_OK;
}

static void send_beat(void *state, const sap_comm_beat *beat) {
    fake_state *s = state;
    fake_world *w = s->world;
    int to = (s->rank + 1) % w->size;
    pthread_mutex_lock(&w->lock);
    if (!w->cut[s->rank]) {
        w->beats[to] = *beat;
        w->fresh[to] = true;
    }
    pthread_mutex_unlock(&w->lock);
}

static bool receive_beat(void *state, sap_comm_beat *beat) {
    fake_state *s = state;
    fake_world *w = s->world;
    pthread_mutex_lock(&w->lock);
    bool fresh = w->fresh[s->rank];
    *beat = w->beats[s->rank];
    w->fresh[s->rank] = false;
    pthread_mutex_unlock(&w->lock);
    return fresh;
}

static int64_t no_time(void) { /* the threads have their processor time in common */
    return 0;
}

static const sap_comm_table table = {
    .name = "fake",
    .open = open_fake,
    .close = close_fake,
    .start_sum = start_sum,
    .start_broadcast = start_broadcast,
    .test = test,
    .send_beat = send_beat,
    .receive_beat = receive_beat,
    .processor_time = no_time,
};

static void *run_rank(void *context) {
    fake_job *job = context;
    own_job = job;
    job->status = sap_comm_make(&table, job->world->timeout, &job->comm, &job->error);
    if (job->status == SAP_OK) {
        job->world->work(job);
        sap_comm_close(job->comm, job->status != SAP_OK);
    }
    return NULL;
}

void fake_run(int size, double timeout, void (*work)(fake_job *job), void *context, fake_job *jobs) {
    fake_world world = {.size = size, .timeout = timeout, .work = work};
    pthread_t threads[FAKE_RANKS];
    pthread_mutex_init(&world.lock, NULL);
    for (int r = 0; r < size; r++) {
        jobs[r] = (fake_job){.world = &world, .rank = r, .context = context};
        if (pthread_create(&threads[r], NULL, run_rank, &jobs[r]) != 0)
            abort();
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
    for (int i = 0; i < 2; i++)
        free(world.exchanges[i].result);
    pthread_mutex_destroy(&world.lock);
}

static void lose(fake_job *job, bool *what) {
    pthread_mutex_lock(&job->world->lock);
    *what = true;
    pthread_mutex_unlock(&job->world->lock);
}

void fake_cut(fake_job *job) {
    lose(job, &job->world->cut[job->rank]);
}

void fake_hang(fake_job *job) {
    lose(job, &job->world->hung[job->rank]);
}
