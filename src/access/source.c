/* Sources: which transport reads a URL, the bounds of what is read, and shell patterns. */
#include "access_internal.h"

#include <glob.h>
#include <stdlib.h>

struct sap_source {
    const sap_transport *transport;
    void *state;
    uint64_t size;
    char *name;
};

/* Length of "scheme" in "scheme:…", 0 for a path. A single letter is no scheme. */
static size_t scheme_length(const char *url) {
    size_t n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 1 && url[n] == ':' && (strncmp(url + n, "://", 3) == 0 || strncmp(url, "file:", 5) == 0) ? n : 0;
}

static sap_status find_transport(const char *url, const sap_transport **out, const char **path, sap_error *err) {
    size_t n = scheme_length(url);
    *path = url;
    if (n == 4 && memcmp(url, "file", 4) == 0) {
        *path = url + 5;
        if (strncmp(*path, "//", 2) == 0) { /* file://host/path: only an empty host or "localhost" is this machine */
            const char *host = *path + 2;
            *path = strchr(host, '/');
            size_t length = *path ? (size_t)(*path - host) : 0;
            if (!*path || (length != 0 && !(length == 9 && memcmp(host, "localhost", 9) == 0)))
                return sap_error_set(err, SAP_EARGUMENT, "%s: not a local file", url);
        }
    } else if (n > 0) {
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: this build reads local files only, not \"%.*s:\"", url, (int)n,
                             url);
    }
    *out = &sap_transport_local;
    return SAP_OK;
}

sap_status sap_source_open(const char *url, sap_source **out, sap_error *err) {
    const sap_transport *transport;
    const char *path;
    SAP_TRY(find_transport(url, &transport, &path, err));
    sap_source *source = calloc(1, sizeof *source);
    if (source)
        source->name = strdup(url);
    if (!source || !source->name) {
        free(source);
        return sap_error_memory(err, url);
    }
    source->transport = transport;
    sap_access_settings settings = {0};
    char *version = NULL;
    sap_status status = transport->open(path, &settings, &source->state, &source->size, &version, err);
    free(version);
    if (status != SAP_OK) {
        free(source->name);
        free(source);
        return status;
    }
    *out = source;
    return SAP_OK;
}

void sap_source_close(sap_source *source) {
    if (!source)
        return;
    source->transport->close(source->state);
    free(source->name);
    free(source);
}

uint64_t sap_source_size(const sap_source *source) {
    return source->size;
}

const char *sap_source_name(const sap_source *source) {
    return source->name;
}

static bool inside(const sap_source *source, uint64_t offset, size_t length) {
    return offset <= source->size && length <= source->size - offset;
}

sap_status sap_source_read(sap_source *source, const sap_range *ranges, size_t count, sap_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (!inside(source, ranges[i].offset, ranges[i].length))
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: needs %zu bytes, the file ends at 0x%llx", source->name,
                                 (unsigned long long)ranges[i].offset, ranges[i].length,
                                 (unsigned long long)source->size);
    }
    return source->transport->read(source->state, source->name, ranges, count, err);
}

const uint8_t *sap_source_map(sap_source *source, uint64_t offset, size_t length) {
    if (!source->transport->map || !inside(source, offset, length))
        return NULL;
    return source->transport->map(source->state, offset, length);
}

static int natural_order(const void *a, const void *b) {
    return sap_text_natural(*(const char *const *)a, *(const char *const *)b);
}

/* One block: the table, then the texts. */
static sap_status pack_names(char *const *names, size_t n, char ***out, size_t *count, sap_error *err) {
    size_t bytes = n * sizeof(char *);
    for (size_t i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char **table = malloc(bytes ? bytes : 1);
    if (!table)
        return sap_error_memory(err, "list of files");
    char *text = (char *)(table + n);
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(names[i]) + 1;
        memcpy(text, names[i], length);
        table[i] = text;
        text += length;
    }
    qsort(table, n, sizeof *table, natural_order);
    *out = table;
    *count = n;
    return SAP_OK;
}

sap_status sap_source_glob(const char *pattern, char ***out, size_t *count, sap_error *err) {
    char *itself = (char *)(uintptr_t)pattern;
    if (scheme_length(pattern) > 0 || sap_path_exists(pattern)) /* a real name may hold a bracket */
        return pack_names(&itself, 1, out, count, err);
    glob_t found;
    int result = glob(pattern, GLOB_BRACE | GLOB_TILDE | GLOB_NOSORT, NULL, &found);
    if (result == GLOB_NOSPACE)
        return sap_error_memory(err, pattern);
    sap_status status = result == 0 && found.gl_pathc > 0
                            ? pack_names(found.gl_pathv, found.gl_pathc, out, count, err)
                            : sap_error_set(err, SAP_ENOTFOUND, "%s: no such file", pattern);
    if (result == 0)
        globfree(&found);
    return status;
}

bool sap_source_is_remote(const sap_source *source) {
    return source->transport->submit != NULL;
}

void sap_source_stats_get(const sap_source *source, sap_source_stats *out) {
    (void)source;
    *out = (sap_source_stats){0};
}
