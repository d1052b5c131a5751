/* A remote file that is not there: a transport whose answers come from a thread of its own, as slow, wrong or dead as a test
 * wants. The byte at offset x is fake_byte(x). */
#ifndef FAKE_TRANSPORT_H
#define FAKE_TRANSPORT_H

#include "access/access_internal.h"

#include <pthread.h>

static inline uint8_t fake_byte(uint64_t offset) {
    return (uint8_t)(sap_mix(7, offset / 8) >> (offset % 8 * 8));
}

typedef struct fake_server {
    pthread_mutex_t lock; /* of all of this */
    uint64_t size;
    const char *version;
    sap_request_limits limits;
    double delay_seconds; /* before an answer */
    bool at_once;         /* answers come from inside submit */
    bool frozen;          /* no answers; a reset answers with failures what was asked before it, unless `deaf` */
    bool deaf;
    int fail; /* so many requests fail with `failure` before one succeeds */
    sap_status failure;
    int refuse; /* so many openings fail */
    /* what happened */
    long long opened, closed, submitted, answered, resets, under_way, most_under_way, largest_count, largest_bytes;
} fake_server;

/* One at a time; the transport opens it by any URL. */
extern fake_server fake;
extern const sap_transport fake_transport;

/* With standard settings and nothing under way. */
void fake_start(uint64_t size);
/* Waits until all that is closed and under way has been answered, and ends the server's thread. */
void fake_stop(void);
/* Sets a field while requests are under way. */
#define FAKE_SET(field, value)                                                                                         \
    do {                                                                                                               \
        pthread_mutex_lock(&fake.lock);                                                                                \
        fake.field = value;                                                                                            \
        pthread_mutex_unlock(&fake.lock);                                                                              \
    } while (0)
#define FAKE_GET(field) fake_get(&fake.field) /* of those that say what happened */
static inline long long fake_get(const long long *field) {
    pthread_mutex_lock(&fake.lock);
    long long value = *field;
    pthread_mutex_unlock(&fake.lock);
    return value;
}

#endif
