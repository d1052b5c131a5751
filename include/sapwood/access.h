/* Bytes by offset from wherever they are. Today local files; a transport is one table of functions. */
#ifndef SAPWOOD_ACCESS_H
#define SAPWOOD_ACCESS_H

#include <sapwood/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sap_source sap_source;

/* A path, or a URL of a scheme that this build knows ("file:"). */
SAP_API SAP_MUST_CHECK sap_status sap_source_open(const char *url, sap_source **out, sap_error *err);
SAP_API void sap_source_close(sap_source *source);

SAP_API uint64_t sap_source_size(const sap_source *source);
/* The name it was opened with, for messages. Borrowed until the source is closed. */
SAP_API const char *sap_source_name(const sap_source *source);

typedef struct sap_range {
    uint64_t offset;
    size_t length;
    void *data; /* where the bytes go; owned by the caller */
} sap_range;

/* Reads every range whole or fails. May be called from several threads at once. */
SAP_API SAP_MUST_CHECK sap_status sap_source_read(sap_source *source, const sap_range *ranges, size_t count,
                                                  sap_error *err);

/* Bytes that stay valid until the source is closed, without a copy, when the transport has them mapped; else NULL.
 * Reading mapped bytes of a file that another process cuts short raises SIGBUS, so only sources that were asked for
 * mapping give them. */
SAP_API const uint8_t *sap_source_map(sap_source *source, uint64_t offset, size_t length);

/* Expands shell patterns (`*`, `?`, `[…]`, `{a,b}`) in a local path; other URLs are returned as they are. `*out` is a table of
 * `*count` names in natural sorted order, freed as one block with free(). No match is SAP_ENOTFOUND. */
SAP_API SAP_MUST_CHECK sap_status sap_source_glob(const char *pattern, char ***out, size_t *count, sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
