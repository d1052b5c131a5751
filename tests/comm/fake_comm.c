#include "fake_comm.h"

#include <stdlib.h>
#include <time.h>

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
    exchange exchanges[2], on_devices[2];
    int given_up;                    /* device communicators */
    sap_comm_beat beats[FAKE_RANKS]; /* to each rank */
    bool fresh[FAKE_RANKS], cut[FAKE_RANKS], hung[FAKE_RANKS];
    double timeout;
    void (*work)(fake_job *job);
};

typedef struct fake_state {
    fake_world *world;
    exchange *exchanges;
    int rank, number; /* of operations begun */
    bool under_way;
} fake_state;

char fake_nowhere[1];

static _Thread_local fake_job *own_job; /* while it is opened */

static sap_status open_fake(void **state, int *rank, int *size, sap_error *err) {
    fake_state *s = calloc(1, sizeof *s);
    if (!s)
        return sap_error_memory(err, "fake");
    *s = (fake_state){own_job->world, own_job->world->exchanges, own_job->rank, 0, false};
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
    exchange *e = &s->exchanges[s->number++ % 2];
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
    exchange *e = &s->exchanges[(s->number - 1) % 2];
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

/* ---- On emulated devices, whose streams do everything at once --------------------------------------------------- */

static sap_status make_id(void *id, sap_error *err) {
    (void)err;
    memset(id, 7, SAP_COMM_ID);
    return SAP_OK;
}

static sap_status open_device(void **state, const void *id, int rank, int size, sap_error *err) {
    char expected[SAP_COMM_ID];
    (void)make_id(expected, err);
    if (memcmp(id, expected, sizeof expected) != 0 || size != own_job->world->size || rank != own_job->rank)
        return sap_error_set(err, SAP_EARGUMENT, "the ranks do not find each other");
    SAP_TRY(open_fake(state, &rank, &size, err));
    ((fake_state *)*state)->exchanges = own_job->world->on_devices;
    return SAP_OK;
}

static sap_status test_device(void *state, bool *done, sap_error *err) {
    (void)state;
    (void)err;
    *done = true;
    return SAP_OK;
}

static sap_status start_device_sum(void *state, float *data, int64_t count, void *stream, sap_error *err) {
    bool done = stream == fake_nowhere;
    SAP_TRY(begin(state, false, SAP_COMM_FLOAT, data, (int32_t)count, err));
    for (double begun = sap_seconds(); !done;) {
        SAP_TRY(test(state, &done, err));
        if (sap_seconds() - begun > 60)
            return sap_error_set(err, SAP_EIO, "the device waits for ever");
        (void)nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    return SAP_OK;
}

static void close_device(void *state, bool failed) {
    fake_world *w = ((fake_state *)state)->world;
    pthread_mutex_lock(&w->lock);
    w->given_up += failed;
    pthread_mutex_unlock(&w->lock);
    close_fake(state, failed);
}

static const sap_comm_device_table device_table = {
    .name = "fake",
    .make_id = make_id,
    .open = open_device,
    .test = test_device,
    .start_sum = start_device_sum,
    .close = close_device,
};

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
    .device = &device_table,
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
    for (int i = 0; i < 2; i++) {
        free(world.exchanges[i].result);
        free(world.on_devices[i].result);
    }
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

int fake_given_up(fake_job *job) {
    pthread_mutex_lock(&job->world->lock);
    int count = job->world->given_up;
    pthread_mutex_unlock(&job->world->lock);
    return count;
}
