/* Files and folders by name: one function each for local paths and for servers, which are asked again when they do not answer.
 * A request whose answer was lost may have been carried out: what it was to bring about is what counts then. */
#include "access_internal.h"

#include <stdlib.h>

/* One request about names, and what it takes and gives. */
typedef struct errand {
    const sap_transport *transport;
    sap_access_settings settings;
    const sap_run *run;
    const char *url; /* what the transport takes */
    const char *to;
    bool replace, is_folder;
    sap_file_info *info;
    sap_list_step step;
    void *context;
} errand;

static sap_status begin(errand *e, const char *url, const sap_run *run, sap_error *err) {
    *e = (errand){.run = run};
    SAP_TRY(sap_transport_find(url, &e->transport, &e->url, err));
    if (!e->transport->stat)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: files there can only be read; they are listed and written here and on root://", url);
    return sap_settings_init(&e->settings, err);
}

/* What a local file system refuses it refuses again. */
static sap_status carry_out(errand *e, sap_retry_step step, int *tries, sap_error *err) {
    if (!e->transport->append)
        return sap_retry(&e->settings, e->run, step, e, tries, err);
    *tries = 1;
    SAP_TRY(sap_run_check(e->run, err));
    return step(e, &e->settings, err);
}

/* Releases what begin() took. */
static sap_status end(errand *e, sap_status status) {
    sap_settings_release(&e->settings);
    return status;
}

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

static sap_status stat_once(void *context, const sap_access_settings *left, sap_error *err) {
    const errand *e = context;
    return e->transport->stat(e->url, left, e->run, e->info, err);
}

static sap_status find_info(errand *e, const char *url, sap_file_info *out, sap_error *err) {
    errand look = *e;
    look.url = url;
    look.info = out;
    *out = (sap_file_info){0};
    return carry_out(&look, stat_once, &(int){0}, err);
}

sap_status sap_store_stat(const char *url, const sap_run *run, sap_file_info *out, sap_error *err) {
    errand e;
    SAP_TRY(begin(&e, url, run, err));
    return end(&e, find_info(&e, e.url, out, err));
}

typedef struct listing {
    sap_file_info *files;
    size_t count, capacity;
    sap_text names; /* one behind the other, each with its zero; `name` is an offset until the end */
} listing;

static sap_status add_file(void *context, const sap_file_info *info, sap_error *err) {
    listing *l = context;
    const size_t at = l->names.length;
    sap_text_put(&l->names, info->name, strlen(info->name) + 1);
    if (l->names.failed || !sap_grow((void **)&l->files, &l->capacity, l->count, sizeof *l->files))
        return sap_error_memory(err, "list of files");
    l->files[l->count] = *info;
    l->files[l->count++].name = (const char *)(uintptr_t)at;
    return SAP_OK;
}

static sap_status list_once(void *context, const sap_access_settings *left, sap_error *err) {
    const errand *e = context;
    listing *l = e->context;
    l->count = l->names.length = 0; /* of a try before */
    return e->transport->list(e->url, left, e->run, add_file, l, err);
}

static int natural_order(const void *a, const void *b) {
    return sap_text_natural(((const sap_file_info *)a)->name, ((const sap_file_info *)b)->name);
}

static sap_status pack(const listing *l, sap_file_info **out, size_t *count, sap_error *err) {
    const size_t bytes = l->count * sizeof **out;
    sap_file_info *block = malloc(bytes + l->names.length + 1);
    if (!block)
        return sap_error_memory(err, "list of files");
    char *text = (char *)(block + l->count);
    if (l->count) {
        memcpy(block, l->files, bytes);
        memcpy(text, l->names.data, l->names.length);
    }
    for (size_t i = 0; i < l->count; i++)
        block[i].name = text + (uintptr_t)block[i].name;
    qsort(block, l->count, sizeof *block, natural_order);
    *out = block;
    *count = l->count;
    return SAP_OK;
}

static sap_status list_folder(errand *e, const char *url, sap_file_info **out, size_t *count, sap_error *err) {
    errand look = *e;
    listing l = {0};
    look.url = url;
    look.context = &l;
    sap_status status = carry_out(&look, list_once, &(int){0}, err);
    if (status == SAP_OK)
        status = pack(&l, out, count, err);
    sap_text_release(&l.names);
    free(l.files);
    return status;
}

sap_status sap_store_list(const char *url, const sap_run *run, sap_file_info **out, size_t *count, sap_error *err) {
    errand e;
    SAP_TRY(begin(&e, url, run, err));
    return end(&e, list_folder(&e, e.url, out, count, err));
}

/* ---- Making and renaming ------------------------------------------------------------------------------------------ */

static sap_status make_once(void *context, const sap_access_settings *left, sap_error *err) {
    const errand *e = context;
    return e->transport->make_folder(e->url, left, e->run, err);
}

sap_status sap_store_make_folder(const char *url, const sap_run *run, sap_error *err) {
    errand e;
    sap_file_info there;
    SAP_TRY(begin(&e, url, run, err));
    sap_status status = carry_out(&e, make_once, &(int){0}, err);
    if (status == SAP_EARGUMENT && find_info(&e, e.url, &there, NULL) == SAP_OK && there.is_folder)
        status = SAP_OK;
    return end(&e, status);
}

static sap_status rename_once(void *context, const sap_access_settings *left, sap_error *err) {
    const errand *e = context;
    return e->transport->rename(e->url, e->to, e->replace, left, e->run, err);
}

static sap_status remove_once(void *context, const sap_access_settings *left, sap_error *err) {
    const errand *e = context;
    return e->transport->remove(e->url, e->is_folder, left, e->run, err);
}

static sap_status remove_one(const errand *e, const char *url, bool is_folder, sap_error *err) {
    errand work = *e;
    int tries = 0;
    work.url = url;
    work.is_folder = is_folder;
    sap_status status = carry_out(&work, remove_once, &tries, err);
    return status == SAP_ENOTFOUND && tries > 1 ? SAP_OK : status;
}

/* Where the path begins, behind the scheme and the server; the URL's end if it has none. */
static size_t server_length(const char *url) {
    const char *host = sap_scheme_length(url) ? strstr(url, "://") : NULL;
    return host ? 3 + (size_t)(host - url) + strcspn(host + 3, "/?") : 0;
}

static sap_status rename_file(errand *e, sap_error *err) {
    sap_error error = {0};
    sap_file_info there;
    int tries = 0;
    if (!e->replace && !e->transport->append && find_info(e, e->to, &there, NULL) == SAP_OK) /* servers do replace */
        return sap_error_set(err, SAP_EARGUMENT, "%s: is there already", e->to);
    sap_status status = carry_out(e, rename_once, &tries, &error);
    if (status == SAP_EARGUMENT && e->replace && find_info(e, e->to, &there, NULL) == SAP_OK && !there.is_folder) {
        status = remove_one(e, e->to, false, &error);
        if (status == SAP_OK || status == SAP_ENOTFOUND)
            status = carry_out(e, rename_once, &tries, &error);
    }
    if (status == SAP_ENOTFOUND && tries > 1 && find_info(e, e->to, &there, NULL) == SAP_OK)
        status = SAP_OK;
    return status == SAP_OK ? SAP_OK : sap_error_set(err, status, "%s", error.message);
}

sap_status sap_store_rename(const char *from, const char *to, bool replace, const sap_run *run, sap_error *err) {
    errand e;
    const sap_transport *other;
    const char *rest;
    size_t length = server_length(from);
    SAP_TRY(sap_transport_find(to, &other, &rest, err));
    SAP_TRY(begin(&e, from, run, err));
    e.to = rest;
    e.replace = replace;
    if (other != e.transport ||
        (!e.transport->append && (length != server_length(to) || strncmp(from, to, length) != 0)))
        return end(
            &e, sap_error_set(err, SAP_EARGUMENT, "%s: cannot be renamed to %s, which is on another server", from, to));
    return end(&e, rename_file(&e, err));
}

/* ---- Removing ------------------------------------------------------------------------------------------------------- */

static sap_status join(char **out, const char *folder, const char *name, sap_error *err) {
    const char *query = sap_url_query(folder);
    size_t length = (size_t)(query - folder);
    sap_text text = {0};
    sap_text_put(&text, folder, length);
    sap_text_add(&text, "%s%s%s", length && folder[length - 1] == '/' ? "" : "/", name, query);
    if (text.failed) {
        sap_text_release(&text);
        return sap_error_memory(err, folder);
    }
    *out = text.data;
    return SAP_OK;
}

static sap_status remove_tree(errand *e, const char *folder, sap_error *err) {
    sap_file_info *files = NULL;
    size_t count = 0;
    sap_status status = list_folder(e, folder, &files, &count, err);
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        char *url = NULL;
        status = join(&url, folder, files[i].name, err);
        if (status == SAP_OK)
            status = files[i].is_folder ? remove_tree(e, url, err) : remove_one(e, url, false, err);
        if (status == SAP_ENOTFOUND) /* somebody else was faster */
            status = SAP_OK;
        free(url);
    }
    free(files);
    return status == SAP_OK ? remove_one(e, folder, true, err) : status;
}

sap_status sap_store_remove(const char *url, bool recursive, const sap_run *run, sap_error *err) {
    errand e;
    sap_file_info info;
    SAP_TRY(begin(&e, url, run, err));
    sap_status status = find_info(&e, e.url, &info, err);
    if (status == SAP_OK && info.is_folder && recursive)
        status = e.transport->remove_tree ? e.transport->remove_tree(e.url, err) : remove_tree(&e, e.url, err);
    else if (status == SAP_OK)
        status = remove_one(&e, e.url, info.is_folder, err);
    return end(&e, status);
}
