/* The server of fake_transport.h: a list of requests and one thread that answers them when their time has come. */
#include "fake_transport.h"

#include <stdlib.h>
#include <time.h>

fake_server fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct item {
    sap_request *request;
    double due;
    bool doomed; /* asked before a reset */
    struct item *next;
} item;

static item *items;
static bool stopping;
static pthread_t thread;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Called with the lock, which it gives up while it answers. */
static void answer(sap_request *request, bool doomed) {
    sap_status status = doomed ? SAP_EIO : SAP_OK;
    if (!doomed && fake.fail > 0) {
        fake.fail--;
        status = fake.failure;
    }
    fake.under_way--;
    fake.answered++;
    pthread_mutex_unlock(&fake.lock);
    for (size_t i = 0; status == SAP_OK && i < request->count; i++) {
        for (size_t j = 0; j < request->ranges[i].length; j++)
            ((uint8_t *)request->ranges[i].data)[j] = fake_byte(request->ranges[i].offset + j);
    }
    request->done(request, status, status == SAP_OK ? NULL : doomed ? "connection lost" : "the server is out of sorts");
    pthread_mutex_lock(&fake.lock);
}

static void *serve(void *nothing) {
    (void)nothing;
    pthread_mutex_lock(&fake.lock);
    while (!stopping || items) {
        item **at = &items;
        while (*at && !((*at)->doomed && !fake.deaf) && !stopping && (fake.frozen || (*at)->due > now()))
            at = &(*at)->next;
        item *i = *at;
        if (i) {
            *at = i->next;
            answer(i->request, i->doomed || stopping);
            free(i);
            continue;
        }
        pthread_mutex_unlock(&fake.lock);
        (void)nanosleep(&(struct timespec){0, 200000}, NULL);
        pthread_mutex_lock(&fake.lock);
    }
    pthread_mutex_unlock(&fake.lock);
    return NULL;
}

void fake_start(uint64_t size) {
    fake = (fake_server){.lock = PTHREAD_MUTEX_INITIALIZER,
                         .size = size,
                         .version = "1",
                         .limits = {.ranges = 16, .range_bytes = 1 << 16, .bytes = 1 << 20},
                         .failure = SAP_EIO};
    stopping = false;
    if (pthread_create(&thread, NULL, serve, NULL) != 0)
        abort();
}

void fake_stop(void) {
    pthread_mutex_lock(&fake.lock);
    stopping = true;
    pthread_mutex_unlock(&fake.lock);
    if (pthread_join(thread, NULL) != 0)
        abort();
}

static sap_status open_fake(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                            uint64_t *size, char **version, sap_error *err) {
    (void)settings;
    (void)run;
    pthread_mutex_lock(&fake.lock);
    bool refused = fake.refuse > 0;
    fake.refuse -= refused;
    fake.opened += !refused;
    *size = fake.size;
    *version = fake.version ? strdup(fake.version) : NULL;
    pthread_mutex_unlock(&fake.lock);
    if (refused) {
        free(*version);
        return sap_error_set(err, SAP_EIO, "%s: connection refused", url);
    }
    *state = malloc(1); /* so that a use after the closing is seen by the address sanitizer */
    *(char *)*state = 1;
    return SAP_OK;
}

static void close_fake(void *state) {
    free(state);
    pthread_mutex_lock(&fake.lock);
    fake.closed++;
    pthread_mutex_unlock(&fake.lock);
}

static void submit_fake(void *state, sap_request *request) {
    long long bytes = 0;
    for (size_t i = 0; i < request->count; i++)
        bytes += (long long)request->ranges[i].length;
    pthread_mutex_lock(&fake.lock);
    if (*(char *)state != 1)
        abort();
    fake.submitted++;
    fake.under_way++;
    fake.most_under_way = fake.under_way > fake.most_under_way ? fake.under_way : fake.most_under_way;
    fake.largest_bytes = bytes > fake.largest_bytes ? bytes : fake.largest_bytes;
    fake.largest_count =
        (long long)request->count > fake.largest_count ? (long long)request->count : fake.largest_count;
    if (fake.at_once) {
        answer(request, false);
    } else {
        item *i = malloc(sizeof *i);
        if (!i)
            abort();
        *i = (item){request, now() + fake.delay_seconds, false, items};
        items = i;
    }
    pthread_mutex_unlock(&fake.lock);
}

static void limits_fake(void *state, sap_request_limits *out) {
    (void)state;
    pthread_mutex_lock(&fake.lock);
    *out = fake.limits;
    pthread_mutex_unlock(&fake.lock);
}

static void reset_fake(void *state) {
    (void)state;
    pthread_mutex_lock(&fake.lock);
    fake.resets++;
    for (item *i = items; i; i = i->next)
        i->doomed = true;
    pthread_mutex_unlock(&fake.lock);
}

const sap_transport fake_transport = {
    .open = open_fake, .close = close_fake, .submit = submit_fake, .limits = limits_fake, .reset = reset_fake};
