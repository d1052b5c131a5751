/* Shell patterns in paths and URLs: local ones by glob(3), others by listing the folders of the server. */
#include "access_internal.h"

#include <fnmatch.h>
#include <glob.h>
#include <stdlib.h>

typedef struct name_list {
    char **names;
    size_t count, capacity;
} name_list;

static void release_names(name_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
}

/* Takes the text, which may be NULL for want of memory. */
static sap_status add_name(name_list *list, char *name, sap_error *err) {
    if (!name || !sap_grow((void **)&list->names, &list->capacity, list->count, sizeof *list->names)) {
        free(name);
        return sap_error_memory(err, "list of files");
    }
    list->names[list->count++] = name;
    return SAP_OK;
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

/* ---- On a server ------------------------------------------------------------------------------------------------ */

static sap_status join(char **out, const char *const *parts, size_t count, sap_error *err) {
    sap_text text = {0};
    for (size_t i = 0; i < count; i++)
        sap_text_add(&text, "%s", parts[i]);
    if (text.failed || !text.data) {
        sap_text_release(&text);
        return sap_error_memory(err, "name of a file");
    }
    *out = text.data;
    return SAP_OK;
}

/* "…{a,b}…" as "…a…" and "…b…"; braces without a comma stand for themselves. Takes the pattern. */
static sap_status expand_braces(char *pattern, size_t from, name_list *out, sap_error *err) {
    char *open = strchr(pattern + from, '{');
    if (!open)
        return add_name(out, pattern, err);
    size_t depth = 0, commas = 0;
    char *end = open;
    for (; *end; end++) {
        depth += *end == '{';
        depth -= *end == '}';
        commas += *end == ',' && depth == 1;
        if (depth == 0)
            break;
    }
    if (!*end || commas == 0)
        return expand_braces(pattern, (size_t)(open - pattern) + 1, out, err);
    sap_status status = SAP_OK;
    for (char *part = open + 1, *stop = part; status == SAP_OK && part <= end; part = ++stop) {
        for (depth = 0; stop < end && (depth > 0 || *stop != ','); stop++)
            depth = depth + (*stop == '{') - (*stop == '}');
        sap_text text = {0};
        sap_text_add(&text, "%.*s%.*s%s", (int)(open - pattern), pattern, (int)(stop - part), part, end + 1);
        status =
            text.failed ? sap_error_memory(err, pattern) : expand_braces(text.data, (size_t)(open - pattern), out, err);
        if (text.failed)
            sap_text_release(&text);
    }
    free(pattern);
    return status;
}

typedef struct walk {
    const sap_transport *transport;
    const sap_run *run;
    sap_access_settings settings;
    const char *query; /* "?name=value…" behind every URL, or "" */
    name_list *found;
} walk;

static bool has_wildcard(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (strchr("*?[", text[i]))
            return true;
    }
    return false;
}

static sap_status match_folder(const walk *w, const char *folder, const char *pattern, sap_error *err);

/* Where one component of a pattern is looked for, and what comes behind it. */
typedef struct level {
    const walk *walk;
    const char *folder, *component, *rest;
} level;

static sap_status match_name(void *context, const sap_file_info *info, sap_error *err) {
    const level *l = context;
    if (fnmatch(l->component, info->name, FNM_PERIOD) != 0 || (*l->rest && !info->is_folder))
        return SAP_OK;
    char *url = NULL;
    SAP_TRY(join(&url, (const char *const[]){l->folder, info->name, *l->rest ? "/" : l->walk->query}, 3, err));
    if (!*l->rest)
        return add_name(l->walk->found, url, err);
    sap_status status = match_folder(l->walk, url, l->rest, err);
    free(url);
    return status;
}

/* folder: URL that ends in a slash; pattern: what is behind it. A folder that is not there holds nothing. */
static sap_status match_folder(const walk *w, const char *folder, const char *pattern, sap_error *err) {
    size_t length = strcspn(pattern, "/");
    const char *rest = pattern + length + strspn(pattern + length, "/");
    char *url = NULL;
    char *component = strndup(pattern, length);
    if (!component)
        return sap_error_memory(err, folder);
    sap_status status;
    if (*rest && !has_wildcard(component, length)) { /* its parent need not be listed */
        status = join(&url, (const char *const[]){folder, component, "/"}, 3, err);
        if (status == SAP_OK)
            status = match_folder(w, url, rest, err);
    } else {
        status = join(&url, (const char *const[]){folder, w->query}, 2, err);
        if (status == SAP_OK)
            status =
                w->transport->list(url, &w->settings, w->run, match_name, &(level){w, folder, component, rest}, err);
        if (status == SAP_ENOTFOUND)
            status = SAP_OK;
    }
    free(url);
    free(component);
    return status;
}

static sap_status match_url(walk *w, char *url, sap_error *err) {
    const char *query = sap_url_query(url);
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    if (!path || path >= query || !has_wildcard(path, (size_t)(query - path))) {
        char *copy = strdup(url);
        return add_name(w->found, copy, err);
    }
    path += strspn(path, "/");
    char *folder = strndup(url, (size_t)(path - url)), *pattern = strndup(path, (size_t)(query - path));
    w->query = query;
    sap_status status = folder && pattern ? match_folder(w, folder, pattern, err) : sap_error_memory(err, url);
    free(folder);
    free(pattern);
    return status;
}

static sap_status glob_remote(const char *pattern, const sap_transport *transport, const sap_run *run, name_list *found,
                              sap_error *err) {
    walk w = {.transport = transport, .run = run, .found = found};
    SAP_TRY(sap_settings_init(&w.settings, err));
    name_list patterns = {0};
    char *copy = strdup(pattern);
    sap_status status = copy ? expand_braces(copy, 0, &patterns, err) : sap_error_memory(err, pattern);
    for (size_t i = 0; i < patterns.count && status == SAP_OK; i++)
        status = match_url(&w, patterns.names[i], err);
    release_names(&patterns);
    sap_settings_release(&w.settings);
    if (status == SAP_OK && found->count == 0)
        status = sap_error_set(err, SAP_ENOTFOUND, "%s: no such file", pattern);
    return status;
}

/* ---- Here -------------------------------------------------------------------------------------------------------- */

static sap_status glob_local(const char *pattern, char ***out, size_t *count, sap_error *err) {
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

sap_status sap_source_glob(const char *pattern, const sap_run *run, char ***out, size_t *count, sap_error *err) {
    char *itself = (char *)(uintptr_t)pattern;
    const bool is_url = sap_scheme_length(pattern) > 0;
    if (!is_url && !sap_path_exists(pattern)) /* a real name may hold a bracket */
        return glob_local(pattern, out, count, err);
    if (!is_url || !strpbrk(pattern, "*?[{"))
        return pack_names(&itself, 1, out, count, err);
    const sap_transport *transport;
    const char *rest;
    SAP_TRY(sap_transport_find(pattern, &transport, &rest, err));
    if (!transport->list)
        return pack_names(&itself, 1, out, count, err);
    name_list found = {0};
    sap_status status = glob_remote(pattern, transport, run, &found, err);
    if (status == SAP_OK)
        status = pack_names(found.names, found.count, out, count, err);
    release_names(&found);
    return status;
}
