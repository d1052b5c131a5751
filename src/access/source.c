/* Sources: which transport reads a URL, the bounds of what is read, and the connection of this process. */
#include "access_internal.h"

#include <ctype.h>
#include <stdlib.h>

/* What a process has of a remote file. A child of that process makes its own and leaves this one alone: its locks may be
 * held for ever, and its connections are the parent's. */
typedef struct connection {
    sap_channel *channel;
    sap_blocks *blocks;
} connection;

struct sap_source {
    const sap_transport *transport;
    char *name;
    const char *rest; /* of the name: what the transport takes */
    uint64_t size;
    sap_access_settings settings;
    void *state;            /* of a local file */
    connection *connection; /* of a remote one; atomic */
    char *version;          /* of a remote one, or NULL */
    sap_cache *cache;       /* or NULL */
};

/* ---- URLs -------------------------------------------------------------------------------------------------------- */

size_t sap_scheme_length(const char *url) {
    size_t n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 1 && url[n] == ':' && (strncmp(url + n, "://", 3) == 0 || strncmp(url, "file:", 5) == 0) ? n : 0;
}

const char *sap_url_query(const char *url) {
    for (const char *mark = strchr(url, '?'); mark; mark = strchr(mark + 1, '?')) {
        const char *end = mark + 1;
        while (isalnum((unsigned char)*end) || *end == '_' || *end == '.' || *end == '-')
            end++;
        if (*end == '=' && end > mark + 1)
            return mark;
    }
    return url + strlen(url);
}

/* file:path, file:///path, file://localhost/path */
static sap_status find_path(const char *url, const char **path, sap_error *err) {
    *path = url + 5;
    if (strncmp(*path, "//", 2) != 0)
        return SAP_OK;
    const char *host = *path + 2;
    *path = strchr(host, '/');
    size_t length = *path ? (size_t)(*path - host) : 0;
    if (!*path || (length != 0 && !(length == 9 && memcmp(host, "localhost", 9) == 0)))
        return sap_error_set(err, SAP_EARGUMENT, "%s: not a local file", url);
    return SAP_OK;
}

sap_status sap_transport_find(const char *url, const sap_transport **out, const char **rest, sap_error *err) {
    static const struct {
        const char *scheme, *plugin;
    } remote[] = {{"root", "xrootd"}, {"roots", "xrootd"}, {"xroot", "xrootd"}, {"xroots", "xrootd"}, {"http", "http"},
                  {"https", "http"},  {"dav", "http"},     {"davs", "http"},    {"s3", "http"}};
    size_t n = sap_scheme_length(url);
    *rest = url;
    *out = &sap_transport_local;
    if (n == 0)
        return SAP_OK;
    if (n == 4 && memcmp(url, "file", 4) == 0)
        return find_path(url, rest, err);
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++) {
        if (strlen(remote[i].scheme) != n || memcmp(url, remote[i].scheme, n) != 0)
            continue;
        const void *table;
        if (sap_plugin_find(remote[i].plugin, &table, err) != SAP_OK)
            return sap_error_prefix(err, "%s", url);
        *out = table;
        return SAP_OK;
    }
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: no way to read \"%.*s:\" is known", url, (int)n, url);
}

/* ---- Opening ------------------------------------------------------------------------------------------------------ */

static void close_connection(connection *c) {
    if (!c)
        return;
    sap_channel_close(c->channel);
    sap_blocks_close(c->blocks);
    free(c);
}

static sap_status open_connection(const sap_source *source, const sap_run *run, connection **out, uint64_t *size,
                                  char **version, sap_error *err) {
    connection *c = calloc(1, sizeof *c);
    if (c)
        c->blocks = sap_blocks_open();
    sap_status status = c && c->blocks ? sap_channel_open(source->transport, source->name, source->rest,
                                                          &source->settings, run, &c->channel, size, version, err)
                                       : sap_error_memory(err, source->name);
    if (status != SAP_OK)
        close_connection(c);
    else
        *out = c;
    return status;
}

static sap_status open_source(sap_source *source, const sap_run *run, sap_error *err) {
    SAP_TRY(sap_settings_init(&source->settings, err));
    if (source->transport->read)
        return source->transport->open(source->rest, &source->settings, run, &source->state, &source->size,
                                       &source->version, err);
    SAP_TRY(open_connection(source, run, &source->connection, &source->size, &source->version, err));
    return source->settings.cache
               ? sap_cache_open(&source->settings, source->name, source->size, source->version, &source->cache, err)
               : SAP_OK;
}

sap_status sap_source_open_on(const sap_transport *transport, const char *name, const char *rest, const sap_run *run,
                              sap_source **out, sap_error *err) {
    sap_source *source = calloc(1, sizeof *source);
    if (source)
        source->name = strdup(name);
    if (!source || !source->name) {
        free(source);
        return sap_error_memory(err, name);
    }
    source->transport = transport;
    source->rest = source->name + (rest - name);
    sap_status status = open_source(source, run, err);
    if (status != SAP_OK)
        sap_source_close(source);
    else
        *out = source;
    return status;
}

sap_status sap_source_open(const char *url, const sap_run *run, sap_source **out, sap_error *err) {
    const sap_transport *transport;
    const char *rest;
    SAP_TRY(sap_transport_find(url, &transport, &rest, err));
    return sap_source_open_on(transport, url, rest, run, out, err);
}

void sap_source_close(sap_source *source) {
    if (!source)
        return;
    if (source->state)
        source->transport->close(source->state);
    close_connection(source->connection);
    sap_cache_close(source->cache);
    sap_settings_release(&source->settings);
    free(source->version);
    free(source->name);
    free(source);
}

static sap_status open_again(sap_source *source, const sap_run *run, connection *old, connection **out,
                             sap_error *err) {
    uint64_t size;
    char *version = NULL;
    connection *fresh;
    SAP_TRY(open_connection(source, run, &fresh, &size, &version, err));
    bool same = size == source->size && (!version || !source->version || strcmp(version, source->version) == 0);
    free(version);
    if (!same) {
        close_connection(fresh);
        return sap_error_set(err, SAP_EFORMAT, "%s: the file has changed since it was opened", source->name);
    }
    if (__atomic_compare_exchange_n(&source->connection, &old, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        *out = fresh;
    } else { /* another thread of the child was faster */
        close_connection(fresh);
        *out = old;
    }
    return SAP_OK;
}

static sap_status find_connection(sap_source *source, const sap_run *run, connection **out, sap_error *err) {
    connection *c = __atomic_load_n(&source->connection, __ATOMIC_ACQUIRE);
    if (c && !sap_channel_is_ours(c->channel))
        return open_again(source, run, c, out, err);
    *out = c;
    return SAP_OK;
}

/* ---- What a source knows -------------------------------------------------------------------------------------------- */

uint64_t sap_source_size(const sap_source *source) {
    return source->size;
}

const char *sap_source_name(const sap_source *source) {
    return source->name;
}

bool sap_source_is_remote(const sap_source *source) {
    return !source->transport->read;
}

const sap_access_settings *sap_source_settings(const sap_source *source) {
    return &source->settings;
}

sap_cache *sap_source_cache(const sap_source *source) {
    return source->cache;
}

void sap_source_stats_get(const sap_source *source, sap_source_stats *out) {
    connection *c = __atomic_load_n(&source->connection, __ATOMIC_ACQUIRE);
    *out = (sap_source_stats){0};
    if (c && sap_channel_is_ours(c->channel))
        sap_channel_stats(c->channel, out);
}

sap_status sap_source_channel(sap_source *source, const sap_run *run, sap_channel **out, sap_error *err) {
    connection *c = NULL;
    SAP_TRY(find_connection(source, run, &c, err));
    *out = c ? c->channel : NULL;
    return SAP_OK;
}

/* ---- Reading -------------------------------------------------------------------------------------------------------- */

static bool inside(const sap_source *source, uint64_t offset, size_t length) {
    return offset <= source->size && length <= source->size - offset;
}

sap_status sap_source_check(const sap_source *source, const sap_range *ranges, size_t count, sap_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (!inside(source, ranges[i].offset, ranges[i].length))
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: needs %zu bytes, the file ends at 0x%llx", source->name,
                                 (unsigned long long)ranges[i].offset, ranges[i].length,
                                 (unsigned long long)source->size);
    }
    return SAP_OK;
}

sap_status sap_source_read_local(sap_source *source, const sap_range *ranges, size_t count, sap_error *err) {
    return source->transport->read(source->state, source->name, ranges, count, err);
}

sap_status sap_source_read(sap_source *source, const sap_range *ranges, size_t count, const sap_run *run,
                           sap_error *err) {
    connection *c = NULL;
    SAP_TRY(sap_source_check(source, ranges, count, err));
    if (!sap_source_is_remote(source))
        return sap_source_read_local(source, ranges, count, err);
    SAP_TRY(find_connection(source, run, &c, err));
    return sap_blocks_read(c->blocks, source, ranges, count, run, err);
}

const uint8_t *sap_source_map(sap_source *source, uint64_t offset, size_t length) {
    if (!source->transport->map || !inside(source, offset, length))
        return NULL;
    return source->transport->map(source->state, offset, length);
}

const char *sap_url_name(const char *url, size_t *length) {
    return sap_text_base_name(url, length);
}
