/* Bytes by offset from wherever they are: local files, XRootD (root://, roots://), HTTP and S3 (http://, https://, s3://);
 * and files and folders made, listed, renamed and removed, here and over XRootD.
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
/* The base name in a path or URL, without what follows a '?', as it stands in events' identities: `*length` characters. */
SAP_API const char *sap_url_name(const char *url, size_t *length);

/* ---- Files and folders: local ones and root:// -------------------------------------------------------------------- */

/* Other URLs are SAP_EUNSUPPORTED; what is not there is SAP_ENOTFOUND; what is denied, exists already or is no folder is
 * SAP_EARGUMENT. A server that does not answer is asked again until SAPWOOD_CONNECT_SECONDS have passed. run: as for opening. */

typedef struct sap_file_info {
    const char *name; /* without its folder; NULL from sap_store_stat */
    uint64_t size;    /* bytes */
    int64_t modified; /* seconds since 1970 */
    bool is_folder;
} sap_file_info;

SAP_API SAP_MUST_CHECK sap_status sap_store_stat(const char *url, const sap_run *run, sap_file_info *out,
                                                 sap_error *err);
/* What is in a folder, in natural order of the names: one block, freed with free(). */
SAP_API SAP_MUST_CHECK sap_status sap_store_list(const char *url, const sap_run *run, sap_file_info **out,
                                                 size_t *count, sap_error *err);
/* A file or a folder gets another name on the same server, in a folder that is there. replace: a file of that name goes; else
 * nothing may be there. */
SAP_API SAP_MUST_CHECK sap_status sap_store_rename(const char *from, const char *to, bool replace, const sap_run *run,
                                                   sap_error *err);
/* A file or an empty folder; recursive: a folder with all that is in it. */
SAP_API SAP_MUST_CHECK sap_status sap_store_remove(const char *url, bool recursive, const sap_run *run, sap_error *err);
/* A folder, and those on the way to it. One that is there already is fine. */
SAP_API SAP_MUST_CHECK sap_status sap_store_make_folder(const char *url, const sap_run *run, sap_error *err);

/* A file that is being written from its beginning to its end. It is written aside, beside its name and hidden by a point, unless
 * SAPWOOD_WRITE_ASIDE is "no"; folders on the way are made. For one thread at a time. */
typedef struct sap_sink sap_sink;

SAP_API SAP_MUST_CHECK sap_status sap_sink_open(const char *url, const sap_run *run, sap_sink **out, sap_error *err);
/* Takes a copy of the bytes and sends them meanwhile; waits when many are under way. Once it has failed, it fails. */
SAP_API SAP_MUST_CHECK sap_status sap_sink_write(sap_sink *sink, const void *data, size_t length, const sap_run *run,
                                                 sap_error *err);
/* Waits until all is there and on disk, checks the length and gives the file its name, in the place of one that has it. */
SAP_API SAP_MUST_CHECK sap_status sap_sink_commit(sap_sink *sink, const sap_run *run, sap_error *err);
/* Never blocks. What was not committed is removed. NULL is fine. */
SAP_API void sap_sink_close(sap_sink *sink);

#ifdef __cplusplus
}
#endif
#endif
