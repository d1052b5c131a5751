/* Requests to one remote file: how many are under way, which are sent again, when waiting ends.
 *
 * No thread of its own: requests are sent by whoever starts a flight, answers one or waits. A request owns its memory until
 * it is answered, so that one that was given up may still be answered later without harm. After a stall one request at a
 * time is sent, and each answer allows one more: a slow line is not buried under requests that stall each other. */
#include "access_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Bytes under way at less than this rate are not yet a stall. */
static const double SLOWEST_BYTES_PER_SECOND = 4e6;
static const double LONGEST_SLEEP_SECONDS = 0.1;

typedef struct attempt {
    sap_request request; /* first: the transport gives its address back */
    sap_channel *channel;
    sap_flight *flight; /* NULL: nobody waits for it any more */
    size_t job;
    size_t bytes;
    sap_space memory;
    struct attempt *previous, *next; /* those under way that are waited for */
    sap_range ranges[];
} attempt;

/* One request of the plan. */
typedef struct job {
    enum { READY, SENT, DONE } state;
    int tries;
    double not_before;
    sap_space memory; /* of what has come */
} job;

struct sap_flight {
    sap_channel *channel;
    sap_plan *plan;
    job *jobs;
    size_t left;     /* not done */
    size_t ready;    /* to be sent, now or after a pause; the flight is in the channel's queue while there are any */
    size_t from;     /* none before this one is ready */
    double answered; /* when a request of it last succeeded */
    bool failed;     /* for good */
    sap_error error; /* the last one */
    uint64_t error_offset;
    int tries;                   /* most of one request */
    sap_flight *previous, *next; /* flights of the channel with requests to send */
};

struct sap_channel {
    const sap_transport *transport;
    void *state;
    char *name;
    double stall_seconds, deadline_seconds;
    int in_flight;
    pid_t pid;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int references;    /* the owner's and one for each attempt */
    bool writes, kept; /* a file is made; it stays */
    bool closed;
    bool sending; /* some thread sends; others leave it to that one */
    attempt *under_way;
    int under_way_count;
    size_t under_way_bytes;
    int window;   /* requests that may be under way */
    int64_t life; /* nanoseconds: when something last came; atomic */
    sap_flight *first, *last;
    sap_source_stats stats;
};

static void mark_life(sap_channel *c) {
    __atomic_store_n(&c->life, sap_nanoseconds(), __ATOMIC_RELAXED);
}

/* ---- Opening ------------------------------------------------------------------------------------------------- */

typedef struct opening {
    sap_channel *channel;
    const char *rest;
    const sap_run *run;
    uint64_t *size;
    char **version;
} opening;

static sap_status open_once(void *context, const sap_access_settings *left, sap_error *err) {
    opening *o = context;
    sap_channel *c = o->channel;
    if (c->writes)
        return c->transport->create(o->rest, left, o->run, &c->state, err);
    char *found = NULL;
    sap_status status = c->transport->open(o->rest, left, o->run, &c->state, o->size, &found, err);
    if (status == SAP_OK)
        *o->version = found;
    return status;
}

static void destroy(sap_channel *c) {
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->name);
    free(c);
}

static sap_status open_channel(const sap_transport *transport, bool writes, const char *name, opening *o,
                               const sap_access_settings *settings, sap_channel **out, sap_error *err) {
    sap_channel *c = calloc(1, sizeof *c);
    if (!c)
        return sap_error_memory(err, name);
    c->transport = transport;
    c->writes = writes;
    c->stall_seconds = settings->stall_seconds;
    c->deadline_seconds = settings->deadline_seconds;
    c->in_flight = settings->in_flight;
    c->window = (c->in_flight + 1) / 2;
    c->pid = getpid();
    c->references = 1;
    pthread_mutex_init(&c->lock, NULL);
    sap_condition_init(&c->changed);
    c->name = strdup(name);
    o->channel = c;
    sap_status status = c->name ? sap_retry(settings, o->run, open_once, o, NULL, err) : sap_error_memory(err, name);
    if (status != SAP_OK)
        destroy(c);
    else
        *out = c;
    return status;
}

sap_status sap_channel_open(const sap_transport *transport, const char *name, const char *rest,
                            const sap_access_settings *settings, const sap_run *run, sap_channel **out, uint64_t *size,
                            char **version, sap_error *err) {
    return open_channel(transport, false, name, &(opening){.rest = rest, .run = run, .size = size, .version = version},
                        settings, out, err);
}

sap_status sap_channel_create(const sap_transport *transport, const char *name, const char *rest,
                              const sap_access_settings *settings, const sap_run *run, sap_channel **out,
                              sap_error *err) {
    return open_channel(transport, true, name, &(opening){.rest = rest, .run = run}, settings, out, err);
}

/* Called with the lock, which it gives up. */
static void release(sap_channel *c) {
    bool last = --c->references == 0;
    pthread_mutex_unlock(&c->lock);
    if (last)
        destroy(c);
}

/* ---- Attempts ------------------------------------------------------------------------------------------------ */

/* All of these are called with the lock. */

static void queue(sap_flight *f) {
    sap_channel *c = f->channel;
    f->previous = c->last;
    f->next = NULL;
    *(c->last ? &c->last->next : &c->first) = f;
    c->last = f;
}

static void unqueue(sap_flight *f) {
    sap_channel *c = f->channel;
    *(f->previous ? &f->previous->next : &c->first) = f->next;
    *(f->next ? &f->next->previous : &c->last) = f->previous;
    f->previous = f->next = NULL;
}

static void queue_first(sap_flight *f) {
    sap_channel *c = f->channel;
    f->previous = NULL;
    f->next = c->first;
    *(c->first ? &c->first->previous : &c->last) = f;
    c->first = f;
}

static void put_on(attempt *a) {
    sap_channel *c = a->channel;
    if (!c->under_way)
        mark_life(c);
    a->next = c->under_way;
    if (a->next)
        a->next->previous = a;
    c->under_way = a;
    c->under_way_count++;
    c->under_way_bytes += a->bytes;
    c->references++;
    c->stats.requests++;
}

static void take_off(attempt *a) {
    sap_channel *c = a->channel;
    *(a->previous ? &a->previous->next : &c->under_way) = a->next;
    if (a->next)
        a->next->previous = a->previous;
    c->under_way_count--;
    c->under_way_bytes -= a->bytes;
    a->previous = a->next = NULL;
    a->flight = NULL;
}

/* For good: nothing of it is sent any more. */
static void fail(sap_flight *f, sap_status status, uint64_t offset, const char *reason) {
    if (f->ready > 0)
        unqueue(f);
    f->ready = 0;
    f->failed = true;
    f->error_offset = offset;
    (void)sap_error_set(&f->error, status, "%s", reason);
}

static void try_again(attempt *a, const char *reason) {
    sap_flight *f = a->flight;
    job *j = &f->jobs[a->job];
    if (f->failed)
        return;
    a->channel->stats.retries++;
    j->tries++;
    j->state = READY;
    j->not_before = sap_seconds() + sap_retry_pause(j->tries, j);
    if (f->ready++ == 0)
        queue(f);
    f->from = a->job < f->from ? a->job : f->from;
    f->tries = j->tries > f->tries ? j->tries : f->tries;
    f->error_offset = a->ranges[0].offset;
    (void)sap_error_set(&f->error, SAP_EIO, "%s", reason);
}

static void keep(attempt *a) {
    sap_flight *f = a->flight;
    const sap_plan_request *request = &f->plan->requests[a->job];
    f->jobs[a->job].state = DONE;
    f->left--;
    f->answered = sap_seconds();
    if (a->channel->writes)
        return;
    for (size_t i = 0; i < request->count; i++)
        f->plan->pieces[request->first + i].data = a->ranges[i].data;
    f->jobs[a->job].memory = a->memory;
    a->memory = (sap_space){0};
}

static void settle(attempt *a, sap_status status, const char *message) {
    sap_channel *c = a->channel;
    const char *reason = message ? message : "the request failed";
    mark_life(c);
    if (status == SAP_EIO) {
        try_again(a, reason);
    } else if (status != SAP_OK) {
        fail(a->flight, status, a->ranges[0].offset, reason);
    } else {
        keep(a);
        c->stats.bytes += a->bytes;
        c->window += c->window < c->in_flight;
    }
    take_off(a);
}

static void send_ready(sap_channel *c);

static void on_done(sap_request *request, sap_status status, const char *message) {
    attempt *a = (attempt *)request;
    sap_channel *c = a->channel;
    pthread_mutex_lock(&c->lock);
    c->stats.requests += (uint64_t)request->sent - 1; /* one was counted when it was sent */
    if (a->flight) {
        settle(a, status, message);
        pthread_cond_broadcast(&c->changed);
        send_ready(c);
    }
    release(c);
    sap_space_release(&a->memory);
    free(a);
}

static void on_progress(sap_request *request) {
    mark_life(((attempt *)request)->channel);
}

static attempt *make_attempt(sap_flight *f, size_t index) {
    const sap_plan_request *request = &f->plan->requests[index];
    attempt *a = calloc(1, sizeof *a + request->count * sizeof *a->ranges);
    if (!a || !sap_space_reserve(&a->memory, request->bytes)) {
        free(a);
        return NULL;
    }
    a->request = (sap_request){a->ranges, request->count, 1, on_progress, on_done};
    a->channel = f->channel;
    a->flight = f;
    a->job = index;
    a->bytes = request->bytes;
    uint8_t *data = a->memory.data;
    for (size_t i = 0; i < request->count; i++) {
        const sap_range *piece = &f->plan->pieces[request->first + i];
        a->ranges[i] = (sap_range){piece->offset, piece->length, data};
        if (f->channel->writes)
            memcpy(data, piece->data, piece->length);
        data += piece->length;
    }
    return a;
}

/* The first request that may be sent now. */
static sap_flight *find_ready(const sap_channel *c, size_t *index) {
    double time = sap_seconds();
    for (sap_flight *f = c->first; f; f = f->next) {
        while (f->jobs[f->from].state != READY) /* one is ready, or the flight were not in the queue */
            f->from++;
        for (*index = f->from; *index < f->plan->request_count; ++*index) {
            if (f->jobs[*index].state == READY && f->jobs[*index].not_before <= time)
                return f;
        }
    }
    return NULL;
}

/* Gives the lock up while it sends. */
static void send_ready(sap_channel *c) {
    if (c->sending)
        return;
    c->sending = true;
    size_t index;
    sap_flight *f;
    while (!c->closed && c->under_way_count < c->window && (f = find_ready(c, &index))) {
        attempt *a = make_attempt(f, index);
        if (!a) {
            fail(f, SAP_EMEMORY, f->plan->pieces[f->plan->requests[index].first].offset, "out of memory");
            continue;
        }
        f->jobs[index].state = SENT;
        if (--f->ready == 0)
            unqueue(f);
        put_on(a);
        pthread_mutex_unlock(&c->lock);
        c->transport->submit(c->state, &a->request); /* `a` may be gone after this, and the flight */
        pthread_mutex_lock(&c->lock);
    }
    c->sending = false;
    pthread_cond_broadcast(&c->changed);
}

static void drop_stalled(sap_channel *c) {
    double quiet = (double)(sap_nanoseconds() - __atomic_load_n(&c->life, __ATOMIC_RELAXED)) * 1e-9;
    if (!c->under_way || quiet < c->stall_seconds + (double)c->under_way_bytes / SLOWEST_BYTES_PER_SECOND)
        return;
    char reason[100];
    (void)snprintf(reason, sizeof reason, "no answer for %.1f s", quiet);
    while (c->under_way) {
        attempt *a = c->under_way;
        try_again(a, reason);
        take_off(a);
    }
    c->window = 1;
    pthread_mutex_unlock(&c->lock);
    c->transport->reset(c->state);
    pthread_mutex_lock(&c->lock);
}

/* ---- Channels ------------------------------------------------------------------------------------------------- */

bool sap_channel_is_ours(const sap_channel *c) {
    return c->pid == getpid();
}

void sap_channel_close(sap_channel *c) {
    if (!c ||
        !sap_channel_is_ours(c)) /* of the parent: its lock may be held for ever, its connections are the parent's */
        return;
    pthread_mutex_lock(&c->lock);
    c->closed = true;
    while (c->under_way)
        take_off(c->under_way);
    while (c->sending) /* sending never blocks */
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    (c->writes && !c->kept ? c->transport->discard : c->transport->close)(c->state);
    pthread_mutex_lock(&c->lock);
    release(c);
}

typedef struct finishing {
    sap_channel *channel;
    const sap_run *run;
} finishing;

static sap_status finish_once(void *context, const sap_access_settings *left, sap_error *err) {
    const finishing *f = context;
    return f->channel->transport->finish(f->channel->state, f->channel->name, left, f->run, err);
}

sap_status sap_channel_finish(sap_channel *c, const sap_access_settings *settings, const sap_run *run, sap_error *err) {
    return sap_retry(settings, run, finish_once, &(finishing){c, run}, NULL, err);
}

void sap_channel_keep(sap_channel *c) {
    c->kept = true;
}

void sap_channel_limits(sap_channel *c, sap_request_limits *out) {
    c->transport->limits(c->state, out);
}

void sap_channel_stats(sap_channel *c, sap_source_stats *out) {
    pthread_mutex_lock(&c->lock);
    *out = c->stats;
    pthread_mutex_unlock(&c->lock);
}

void sap_channel_count(sap_channel *c, uint64_t ranges, uint64_t cached_bytes) {
    pthread_mutex_lock(&c->lock);
    c->stats.ranges += ranges;
    c->stats.cached_bytes += cached_bytes;
    pthread_mutex_unlock(&c->lock);
}

/* ---- Flights --------------------------------------------------------------------------------------------------- */

sap_status sap_flight_start(sap_channel *c, sap_plan *plan, sap_flight **out, sap_error *err) {
    sap_flight *f = calloc(1, sizeof *f);
    if (f)
        f->jobs = calloc(plan->request_count ? plan->request_count : 1, sizeof *f->jobs);
    if (!f || !f->jobs) {
        free(f);
        return sap_error_memory(err, c->name);
    }
    f->channel = c;
    f->plan = plan;
    f->left = f->ready = plan->request_count;
    pthread_mutex_lock(&c->lock);
    if (f->ready > 0)
        queue(f);
    send_ready(c);
    pthread_mutex_unlock(&c->lock);
    *out = f;
    return SAP_OK;
}

/* Called with the lock, which it gives up meanwhile. */
static void wait_a_little(sap_channel *c) {
    sap_condition_wait(&c->changed, &c->lock, LONGEST_SLEEP_SECONDS);
}

sap_status sap_flight_wait(sap_flight *f, const sap_run *run, sap_error *err) {
    sap_channel *c = f->channel;
    sap_status status = SAP_OK;
    double begin = sap_seconds();
    pthread_mutex_lock(&c->lock);
    if (f->ready > 0) { /* what is waited for goes first */
        unqueue(f);
        queue_first(f);
    }
    while (f->left > 0 && status == SAP_OK) {
        double since = f->answered > begin ? f->answered : begin;
        drop_stalled(c);
        send_ready(c);
        if (f->left == 0)
            break;
        status = f->failed ? sap_error_set(err, f->error.status, "%s @0x%llx: %s", c->name,
                                           (unsigned long long)f->error_offset, f->error.message)
                           : sap_run_check(run, err);
        if (status == SAP_OK && sap_seconds() - since >= c->deadline_seconds)
            status =
                sap_error_set(err, SAP_EIO, "%s @0x%llx: %s; tried %d times, given up after %.1f s", c->name,
                              (unsigned long long)f->error_offset, *f->error.message ? f->error.message : "no answer",
                              f->tries + 1, sap_seconds() - begin);
        if (status == SAP_OK)
            wait_a_little(c);
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

static void abandon(sap_flight *f) {
    sap_channel *c = f->channel;
    pthread_mutex_lock(&c->lock);
    for (attempt *a = c->under_way, *next; a; a = next) {
        next = a->next;
        if (a->flight == f)
            take_off(a);
    }
    if (f->ready > 0)
        unqueue(f);
    send_ready(c); /* of others: the window has become free */
    pthread_mutex_unlock(&c->lock);
}

void sap_flight_close(sap_flight *f) {
    if (!f)
        return;
    if (sap_channel_is_ours(f->channel))
        abandon(f);
    for (size_t i = 0; i < f->plan->request_count; i++)
        sap_space_release(&f->jobs[i].memory);
    free(f->jobs);
    free(f);
}
