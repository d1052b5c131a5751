/* What a transport is: one table of functions behind `sap_source`. Remote ones are plug-ins (libsapwood-xrootd.so,
 * libsapwood-http.so) that export such a table; they need nothing of libsapwood but what is declared here. */
#ifndef SAP_ACCESS_INTERNAL_H
#define SAP_ACCESS_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/access.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Times and limits, read from the environment when a source is opened (settings.c has the one table of names, defaults and
 * meanings; docs/access.md is checked against it). */
typedef struct sap_access_settings {
    double connect_seconds;  /* to open a source */
    double stall_seconds;    /* without an answer to a request: it is given up and sent again */
    double deadline_seconds; /* of one fetch or read, retries and all */
    int retries;             /* of one request */
    size_t request_bytes;    /* merged requests grow up to this */
    size_t gap_bytes;        /* ranges no further apart are merged */
    int in_flight;           /* requests at once */
    const char *cache;       /* folder of the cache, or NULL */
} sap_access_settings;

/* A request that a transport carries out by itself, answering once with `done`, from any thread (also from inside
 * `submit`). The request, its ranges and their memory live until then, whoever still waits for them. */
typedef struct sap_request {
    const sap_range *ranges; /* rising, within the transport's limits, inside the source's size */
    size_t count;
    /* message: what went wrong, borrowed for the call; SAP_EIO may be tried again, other failures may not */
    void (*done)(struct sap_request *request, sap_status status, const char *message);
} sap_request;

/* What one request may ask for. */
typedef struct sap_request_limits {
    size_t ranges;      /* 1: no vector reads */
    size_t range_bytes; /* of one range */
    size_t bytes;       /* of all */
} sap_request_limits;

typedef struct sap_transport {
    /* Blocks no longer than connect_seconds. *size: of the file. *version: something that changes when the file does (a
     * time of change, an ETag), malloc'ed, for the cache; may be set to NULL. */
    sap_status (*open)(const char *url, const sap_access_settings *settings, void **state, uint64_t *size,
                       char **version, sap_error *err);
    /* Never blocks. Requests still under way are answered all the same, sooner or later. */
    void (*close)(void *state);

    /* Local transports read here and now: every range whole. Called from several threads at once. NULL: remote. */
    sap_status (*read)(void *state, const char *name, const sap_range *ranges, size_t count, sap_error *err);
    /* Bytes in place, or NULL. May itself be NULL. */
    const uint8_t *(*map)(void *state, uint64_t offset, size_t length);

    /* Remote transports: sends a request, without waiting. Called from several threads at once. */
    void (*submit)(void *state, sap_request *request);
    void (*limits)(void *state, sap_request_limits *out);
    /* A connection that does not answer is dropped; the next request makes a new one. Never blocks. */
    void (*reset)(void *state);

    /* Names in a folder (no path, folders end in '/'): one malloc'ed block of terminated texts, an empty one behind the last.
     * NULL: folders cannot be listed. */
    sap_status (*list)(const char *url, const sap_access_settings *settings, char **names, sap_error *err);
} sap_transport;

extern const sap_transport sap_transport_local;

#ifdef __cplusplus
}
#endif
#endif
