/* Bytes by offset from wherever they are: local files, XRootD (root://, roots://), HTTP and S3 (http://, https://, s3://).
 * A transport is one table of functions; what it does not do by itself (merging of ranges, deadlines, retries, the cache)
 * is done here, once. Limits and times are environment variables, listed in docs/access.md. */
#ifndef SAPWOOD_ACCESS_H
#define SAPWOOD_ACCESS_H

#include <sapwood/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sap_source sap_source;

/* A path, or a URL of a scheme that this build knows. run: for its cancel flag, may be NULL. */
SAP_API SAP_MUST_CHECK sap_status sap_source_open(const char *url, const sap_run *run, sap_source **out,
                                                  sap_error *err);
SAP_API void sap_source_close(sap_source *source);

SAP_API uint64_t sap_source_size(const sap_source *source);
/* The name it was opened with, for messages. Borrowed until the source is closed. */
SAP_API const char *sap_source_name(const sap_source *source);

typedef struct sap_range {
    uint64_t offset;
    size_t length;
    void *data; /* where the bytes go; owned by the caller */
} sap_range;

/* Reads every range whole or fails. May be called from several threads at once. run: as for opening. */
SAP_API SAP_MUST_CHECK sap_status sap_source_read(sap_source *source, const sap_range *ranges, size_t count,
                                                  const sap_run *run, sap_error *err);

/* Bytes that stay valid until the source is closed, without a copy, when they are mapped: a file on a local file system,
 * unless SAPWOOD_MMAP is "no". Else NULL, as when the file has been cut short since; cut short while they are used, it
 * raises SIGBUS. */
SAP_API const uint8_t *sap_source_map(sap_source *source, uint64_t offset, size_t length);

/* Whether reading it means waiting: then what is needed should be fetched ahead. */
SAP_API bool sap_source_is_remote(const sap_source *source);

/* What a source has cost so far. */
typedef struct sap_source_stats {
    uint64_t requests; /* sent, retries among them */
    uint64_t ranges;   /* asked for by the caller */
    uint64_t bytes;    /* received */
    uint64_t retries;
    uint64_t cached_bytes; /* taken from SAPWOOD_CACHE instead */
} sap_source_stats;
SAP_API void sap_source_stats_get(const sap_source *source, sap_source_stats *out);

/* ---- Bytes on their way ------------------------------------------------------------------------------------ */

/* Ranges that are read while the caller does something else: merged into few requests, many in flight at once. */
typedef struct sap_fetch sap_fetch;

/* Plans and sends; does not wait. ranges: in any order, `data` is not looked at (the fetch owns the memory). The source
 * must live longer. */
SAP_API SAP_MUST_CHECK sap_status sap_fetch_start(sap_source *source, const sap_range *ranges, size_t count,
                                                  sap_fetch **out, sap_error *err);
/* Waits until all is there, retrying what fails; SAP_EIO when the deadline has passed, SAP_ECANCELLED when the run was
 * cancelled (run may be NULL). */
SAP_API SAP_MUST_CHECK sap_status sap_fetch_wait(sap_fetch *fetch, const sap_run *run, sap_error *err);
/* The bytes of range `index` as given to sap_fetch_start, after sap_fetch_wait succeeded. Borrowed until the fetch is
 * closed. */
SAP_API const uint8_t *sap_fetch_data(const sap_fetch *fetch, size_t index);
/* Never blocks: requests still under way are abandoned, their memory freed when they end. NULL is fine. */
SAP_API void sap_fetch_close(sap_fetch *fetch);

/* ---- Names -------------------------------------------------------------------------------------------------- */

/* Expands shell patterns (`*`, `?`, `[…]`, `{a,b}`) in a local path or a root:// URL, whose server lists the folder; other URLs
 * are returned as they are. run: as for opening. `*out` is a table of `*count` names in natural sorted order, freed as one block
 * with free(). No match is SAP_ENOTFOUND. */
SAP_API SAP_MUST_CHECK sap_status sap_source_glob(const char *pattern, const sap_run *run, char ***out, size_t *count,
                                                  sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
