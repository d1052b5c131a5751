/* What a transport is: one table of functions behind `sap_source`. Remote ones are plug-ins (libsapwood-xrootd.so,
 * libsapwood-http.so) that export such a table; they need nothing of libsapwood but what is declared here. */
#ifndef SAP_ACCESS_INTERNAL_H
#define SAP_ACCESS_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/access.h>

#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Times and limits, read from the environment when a source is opened (settings.c has the one table of names, defaults and
 * meanings; docs/access.md is checked against it). */
typedef struct sap_access_settings {
    double connect_seconds;  /* to open a source */
    double stall_seconds;    /* without a byte: what is under way is given up and sent again */
    double deadline_seconds; /* of a wait, without any request answered */
    uint64_t request_bytes;  /* merged requests grow up to this */
    uint64_t gap_bytes;      /* ranges no further apart are merged */
    int in_flight;           /* requests of a source at once */
    bool map;                /* local files are mapped, where the file system is a local one */
    bool write_aside;        /* a file has another name until it is whole */
    char *cache;             /* folder of the cache, or NULL; malloc'ed */
    uint64_t cache_bytes;    /* the cache grows up to this */
} sap_access_settings;

/* One line of the table of settings. */
typedef struct sap_setting {
    const char *name;     /* SAPWOOD_… */
    const char *standard; /* its value when it is not set */
    const char *unit;
    const char *meaning;
    double least, most; /* 0, 0: a text */
} sap_setting;
const sap_setting *sap_settings_at(size_t index); /* NULL behind the last */
SAP_MUST_CHECK sap_status sap_settings_init(sap_access_settings *out, sap_error *err);
void sap_settings_release(sap_access_settings *settings);

/* A request that a transport carries out by itself, answering once with `done`, from any thread (also from inside
 * `submit`). The request, its ranges and their memory live until then, whoever still waits for them. */
typedef struct sap_request {
    const sap_range
        *ranges; /* rising, not overlapping, within the transport's limits, inside the source's size, none empty */
    size_t count;
    unsigned sent; /* 1; set before `done` when it took another number of requests to the server */
    /* May be called when bytes of it have come, so that slow is told from dead; cheap. From any thread. */
    void (*progress)(struct sap_request *request);
    /* message: what went wrong, borrowed for the call; SAP_EIO may be tried again, other failures may not */
    void (*done)(struct sap_request *request, sap_status status, const char *message);
} sap_request;

/* One file of a folder's; the name is borrowed for the call. */
typedef sap_status (*sap_list_step)(void *context, const sap_file_info *info, sap_error *err);

/* What one request may ask for. */
typedef struct sap_request_limits {
    size_t ranges;      /* 1: no vector reads */
    size_t range_bytes; /* of one range among several */
    size_t bytes;       /* of all of them, and of one alone */
} sap_request_limits;

typedef struct sap_transport {
    /* Blocks no longer than connect_seconds, and looks at run->cancel (run may be NULL) every 100 ms. *size: of the file.
     * *version: something that changes when the file does (a time of change, an ETag), malloc'ed, or NULL. SAP_EIO: it is
     * tried again until connect_seconds have passed. */
    sap_status (*open)(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                       uint64_t *size, char **version, sap_error *err);
    /* Never blocks. Requests still under way are answered all the same, sooner or later. Not called in a child for what
     * its parent opened. */
    void (*close)(void *state);

    /* Local transports read here and now: every range whole. Called from several threads at once. NULL: remote. */
    sap_status (*read)(void *state, const char *name, const sap_range *ranges, size_t count, sap_error *err);
    /* Bytes in place, or NULL. May itself be NULL. */
    const uint8_t *(*map)(void *state, uint64_t offset, size_t length);

    /* Remote transports: sends a request, without waiting. Called from several threads at once. */
    void (*submit)(void *state, sap_request *request);
    /* Asked before each fetch. */
    void (*limits)(void *state, sap_request_limits *out);
    /* A connection that does not answer is dropped; the next request makes a new one (as it does after a failure; a file that
     * has changed meanwhile is SAP_EFORMAT). Requests under way are answered all
     * the same, sooner or later. Never blocks. */
    void (*reset)(void *state);

    /* ---- Names. These block as open does, their SAP_EIO is tried again, and each may be NULL: cannot be done there. ---- */

    /* Everything in a folder, in any order. */
    sap_status (*list)(const char *url, const sap_access_settings *settings, const sap_run *run, sap_list_step step,
                       void *context, sap_error *err);
    sap_status (*stat)(const char *url, const sap_access_settings *settings, const sap_run *run, sap_file_info *out,
                       sap_error *err);
    /* replace: may replace a file. SAP_EARGUMENT, when something is there that is not replaced. Remote transports may look or not. */
    sap_status (*rename)(const char *from, const char *to, bool replace, const sap_access_settings *settings,
                         const sap_run *run, sap_error *err);
    /* A file, or an empty folder. */
    sap_status (*remove)(const char *url, bool is_folder, const sap_access_settings *settings, const sap_run *run,
                         sap_error *err);
    /* A folder with all in it. NULL: list and remove do it. */
    sap_status (*remove_tree)(const char *url, sap_error *err);
    /* With those on the way; one that exists is fine. */
    sap_status (*make_folder)(const char *url, const sap_access_settings *settings, const sap_run *run, sap_error *err);

    /* ---- Writing. All NULL: cannot be done there. ---- */

    /* Makes a file, with the folders on the way, over one of that name. Then `submit` writes: requests of one range, whose bytes
     * are read; and `reset` does what it does, but the file is not compared. Blocks as open does. */
    sap_status (*create)(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                         sap_error *err);
    /* Local transports: the next bytes, here and now. */
    sap_status (*append)(void *state, const char *name, const void *data, size_t length, sap_error *err);
    /* Waits until what was written is on disk and the server has closed the file without complaint; nothing is written after it.
     * Blocks as open does; SAP_EIO may be tried again. */
    sap_status (*finish)(void *state, const char *name, const sap_access_settings *settings, const sap_run *run,
                         sap_error *err);
    /* In the place of close: the file is removed too. Never blocks where the transport is a remote one. */
    void (*discard)(void *state);
} sap_transport;

extern const sap_transport sap_transport_local;

/* Length of "scheme" in "scheme:…", 0 for a path. A single letter is no scheme. */
size_t sap_scheme_length(const char *url);
/* Where the query of a URL begins, or its end: at a question mark before "name=", since that is also a wildcard. */
const char *sap_url_query(const char *url);
/* The transport of a URL or path, opening its plug-in; *rest: what that transport's functions take as url. */
SAP_MUST_CHECK sap_status sap_transport_find(const char *url, const sap_transport **out, const char **rest,
                                             sap_error *err);
/* sap_source_open with the transport given. */
SAP_MUST_CHECK sap_status sap_source_open_on(const sap_transport *transport, const char *name, const char *rest,
                                             const sap_run *run, sap_source **out, sap_error *err);

/* ---- Trying again (retry.c) ------------------------------------------------------------------------------------ */

/* The pause before another try: 0.1 s, doubled with each up to 5 s, and spread so that many do not come back at once. */
double sap_retry_pause(int tries, const void *salt);
/* One try; left: the settings with the seconds that are left. */
typedef sap_status (*sap_retry_step)(void *context, const sap_access_settings *left, sap_error *err);
/* Until it succeeds, fails with anything but SAP_EIO, or connect_seconds have passed. *tries: how many it took, may be NULL. */
SAP_MUST_CHECK sap_status sap_retry(const sap_access_settings *settings, const sap_run *run, sap_retry_step step,
                                    void *context, int *tries, sap_error *err);

/* ---- Plans (range_plan.c) ----------------------------------------------------------------------------------- */

typedef struct sap_plan_limits {
    uint64_t size;        /* of the source */
    uint64_t align;       /* pieces begin and end at its multiples, or at the end of the source */
    uint64_t gap;         /* ranges no further apart become one piece */
    uint64_t piece_bytes; /* longest piece, a multiple of align */
    sap_request_limits request;
} sap_plan_limits;

typedef struct sap_plan_request {
    size_t first, count; /* pieces */
    size_t bytes;
} sap_plan_request;

/* What is read so that all ranges are there: pieces, rising and apart, and which of them make a request. */
typedef struct sap_plan {
    sap_range *pieces;
    size_t piece_count;
    sap_plan_request *requests;
    size_t request_count;
} sap_plan;
SAP_MUST_CHECK sap_status sap_plan_init(sap_plan *plan, const sap_range *ranges, size_t count,
                                        const sap_plan_limits *limits, sap_error *err);
void sap_plan_release(sap_plan *plan);

/* ---- Channels (channel.c) ------------------------------------------------------------------------------------ */

/* An open remote file of this process and the requests under way to it; shared by the source, its fetches and its requests. */
typedef struct sap_channel sap_channel;

/* Requests of one fetch, tried until they succeed. */
typedef struct sap_flight sap_flight;

SAP_MUST_CHECK sap_status sap_channel_open(const sap_transport *transport, const char *name, const char *rest,
                                           const sap_access_settings *settings, const sap_run *run, sap_channel **out,
                                           uint64_t *size, char **version, sap_error *err);
/* The same for a file that is made: flights write the bytes of their plan's pieces, one piece a request. */
SAP_MUST_CHECK sap_status sap_channel_create(const sap_transport *transport, const char *name, const char *rest,
                                             const sap_access_settings *settings, const sap_run *run, sap_channel **out,
                                             sap_error *err);
/* When all flights have landed: what they wrote is on disk. */
SAP_MUST_CHECK sap_status sap_channel_finish(sap_channel *channel, const sap_access_settings *settings,
                                             const sap_run *run, sap_error *err);
/* Closing does not remove it any more. */
void sap_channel_keep(sap_channel *channel);
/* Abandons what is under way and closes the transport's state; in a child of the process that opened it does nothing. */
void sap_channel_close(sap_channel *channel);
bool sap_channel_is_ours(const sap_channel *channel); /* opened by this process, not by its parent */
void sap_channel_limits(sap_channel *channel, sap_request_limits *out);
void sap_channel_stats(sap_channel *channel, sap_source_stats *out);
void sap_channel_count(sap_channel *channel, uint64_t ranges, uint64_t cached_bytes);

/* Sends what the window allows; does not wait. The plan is borrowed until the flight is closed; its pieces get their data as
 * the requests succeed, memory of the flight. */
SAP_MUST_CHECK sap_status sap_flight_start(sap_channel *channel, sap_plan *plan, sap_flight **out, sap_error *err);
SAP_MUST_CHECK sap_status sap_flight_wait(sap_flight *flight, const sap_run *run, sap_error *err);
void sap_flight_close(sap_flight *flight);

/* ---- The cache (cache.c) -------------------------------------------------------------------------------------- */

enum { SAP_CACHE_BLOCK = 1 << 17 };

/* Blocks of one remote file, of one version, in a folder on disk. */
typedef struct sap_cache sap_cache;
SAP_MUST_CHECK sap_status sap_cache_open(const sap_access_settings *settings, const char *name, uint64_t size,
                                         const char *version, sap_cache **out, sap_error *err);
void sap_cache_close(sap_cache *cache);
/* Whether the block of that index was there, whole and sound; length: of the block. */
bool sap_cache_read(const sap_cache *cache, uint64_t index, void *data, size_t length);
/* A block that cannot be kept is no failure. */
void sap_cache_write(sap_cache *cache, uint64_t index, const void *data, size_t length);

/* ---- Small reads (blocks.c) ------------------------------------------------------------------------------------ */

/* Blocks of a remote file in memory. */
typedef struct sap_blocks sap_blocks;
sap_blocks *sap_blocks_open(void); /* NULL: no memory */
void sap_blocks_close(sap_blocks *blocks);
/* Ranges inside the source, from the blocks or else fetched. */
SAP_MUST_CHECK sap_status sap_blocks_read(sap_blocks *blocks, sap_source *source, const sap_range *ranges, size_t count,
                                          const sap_run *run, sap_error *err);

/* ---- What a source gives its fetches (source.c) ---------------------------------------------------------------- */

/* NULL for local sources. In a child of the process that opened the source, the first call opens it again. */
SAP_MUST_CHECK sap_status sap_source_channel(sap_source *source, const sap_run *run, sap_channel **out, sap_error *err);
const sap_access_settings *sap_source_settings(const sap_source *source);
sap_cache *sap_source_cache(const sap_source *source); /* or NULL */
/* SAP_EFORMAT when a range is not inside. */
SAP_MUST_CHECK sap_status sap_source_check(const sap_source *source, const sap_range *ranges, size_t count,
                                           sap_error *err);
/* Ranges of a local source, read now. */
SAP_MUST_CHECK sap_status sap_source_read_local(sap_source *source, const sap_range *ranges, size_t count,
                                                sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
