/* Tables of many files: what each holds, looked at in parallel, and the schema that they have together. */
#include "table_survey.h"

#include <stdlib.h>
#include <sys/stat.h>

/* ---- Names -------------------------------------------------------------------------------------------------- */

/* A folder stands for the ROOT files in it. NULL: out of memory. */
static char *pattern_of(const char *url) {
    struct stat status;
    sap_text text = {0};
    const char *path = strncmp(url, "file://", 7) == 0 ? url + 7 : strncmp(url, "file:", 5) == 0 ? url + 5 : url;
    size_t length = strlen(path);
    bool folder = length > 0 && path[length - 1] == '/';
    if (!strstr(path, "://") && stat(path, &status) == 0)
        folder = S_ISDIR(status.st_mode);
    sap_text_add(&text, "%s%s", path, !folder ? "" : path[length - 1] == '/' ? "*.root" : "/*.root");
    return text.failed ? NULL : text.data;
}

static sap_status add_files(sap_table *t, const char *url, const sap_run *run, sap_error *err) {
    char *pattern = pattern_of(url), **names = NULL;
    size_t count = 0;
    sap_status status = pattern ? sap_source_glob(pattern, run, &names, &count, err) : sap_error_memory(err, url);
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        const char *name = sap_arena_text(&t->arena, names[i], strlen(names[i]));
        if (!name || !sap_grow((void **)&t->files, &t->file_capacity, t->file_count, sizeof *t->files))
            status = sap_error_memory(err, url);
        else
            t->files[t->file_count++] = (sap_surveyed){.shown.url = name};
    }
    free(names);
    free(pattern);
    return status;
}

/* ---- One file ------------------------------------------------------------------------------------------------- */

static bool same_schema(const sap_field *a, const sap_field *b) {
    bool same = a->type == b->type && a->size == b->size && a->count == b->count && a->nullable == b->nullable;
    for (int32_t i = 0; same && i < a->count; i++)
        same = strcmp(a->children[i].name, b->children[i].name) == 0 && same_schema(&a->children[i], &b->children[i]);
    return same;
}

/* Its schema, unless it is the first file's. */
static sap_status note_schema(sap_table *t, sap_surveyed *f, sap_tree *tree, sap_error *err) {
    sap_arena scratch = {0};
    bool first = !t->reference;
    sap_outline *outline = sap_arena_alloc(&f->arena, sizeof *outline);
    sap_status status = outline ? sap_outline_make(tree, t->identity, first ? &f->arena : &scratch, outline, err)
                                : sap_error_memory(err, f->shown.url);
    if (status == SAP_OK && first) {
        t->reference = f;
        f->outline = outline;
        f->schema = &outline->field;
    } else if (status == SAP_OK && !same_schema(&outline->field, t->reference->schema)) {
        sap_field *schema = sap_arena_alloc(&f->arena, sizeof *schema);
        f->schema = schema;
        if (!schema || !sap_field_copy(&f->arena, &outline->field, schema))
            status = sap_error_memory(err, f->shown.url);
    }
    sap_arena_release(&scratch);
    return status;
}

static sap_status note_clusters(sap_surveyed *f, const sap_tree *tree, sap_error *err) {
    size_t count;
    const int64_t *clusters = sap_tree_clusters(tree, &count);
    int64_t *copy = sap_arena_array(&f->arena, count + 1, sizeof *copy);
    if (!copy || !clusters)
        return sap_error_memory(err, f->shown.url);
    memcpy(copy, clusters, count * sizeof *copy);
    f->shown.clusters = copy;
    f->shown.cluster_count = count;
    return SAP_OK;
}

static sap_status look_at(sap_table *t, sap_surveyed *f, const sap_run *run, sap_error *err) {
    sap_file *file;
    sap_tree *tree = NULL;
    SAP_TRY(sap_file_open(f->shown.url, run, &file, err));
    sap_status status = sap_tree_open(file, t->tree, &tree, err);
    if (status == SAP_OK) {
        f->shown.bytes = sap_file_size(file);
        f->shown.entries = sap_tree_entries(tree);
        status = note_clusters(f, tree, err);
    }
    if (status == SAP_OK)
        status = note_schema(t, f, tree, err);
    sap_tree_close(tree);
    sap_file_close(file);
    return status;
}

/* Whether it is the file that is bad, not what was asked for. */
static bool is_bad(sap_status status) {
    return status == SAP_EFORMAT || status == SAP_EIO || status == SAP_ENOTFOUND || status == SAP_EUNSUPPORTED ||
           status == SAP_EDATA;
}

static sap_status survey(sap_table *t, sap_surveyed *f, const sap_run *run, sap_error *err) {
    sap_error own = {0};
    sap_status status = look_at(t, f, run, &own);
    if (status == SAP_OK)
        return SAP_OK;
    if (!t->skip_bad || !is_bad(status))
        return sap_error_set(err, status, "%s", own.message);
    sap_arena_release(&f->arena);
    *f = (sap_surveyed){.shown.url = f->shown.url};
    f->shown.problem = sap_arena_text(&f->arena, own.message, strlen(own.message));
    return f->shown.problem ? SAP_OK : sap_error_memory(err, f->shown.url);
}

/* ---- All files ------------------------------------------------------------------------------------------------- */

typedef struct surveying {
    sap_table *table;
    const sap_run *run;
    size_t first;
} surveying;

static sap_status survey_step(void *context, size_t index, int slot, sap_error *err) {
    const surveying *s = context;
    (void)slot;
    sap_run own = {.cancel = s->run ? s->run->cancel : NULL}; /* many files at once, each by one thread */
    return survey(s->table, &s->table->files[s->first + index], &own, err);
}

static sap_status merge_schemas(sap_table *t, sap_error *err) {
    for (size_t i = 0; i < t->file_count; i++) {
        const sap_surveyed *f = &t->files[i];
        if (!f->schema || f == t->reference)
            continue;
        sap_text path = {0};
        bool out_of_memory = false;
        bool merged = sap_field_merge(&t->arena, &t->schema, f->schema, &path, &out_of_memory);
        sap_status status = SAP_OK;
        if (!merged && !out_of_memory)
            status = sap_error_set(err, SAP_ETYPE,
                                   "%s: column \"%s\" has a type that no type holds together with that of %s",
                                   f->shown.url, path.data ? path.data : "", t->reference->shown.url);
        else if (out_of_memory)
            status = sap_error_memory(err, f->shown.url);
        sap_text_release(&path);
        SAP_TRY(status);
    }
    return SAP_OK;
}

/* The first file that opens tells what there is; the others are compared with it. */
static sap_status survey_files(sap_table *t, bool all, const sap_run *run, sap_error *err) {
    size_t first = 0;
    for (; first < t->file_count && !t->reference; first++) {
        SAP_TRY(sap_run_check(run, err));
        SAP_TRY(survey(t, &t->files[first], run, err));
    }
    if (!t->reference && !t->given)
        return sap_error_set(err, SAP_EDATA, "none of %zu files can be read; the first: %s", t->file_count,
                             t->files[0].shown.problem);
    surveying s = {t, run, first};
    if (all && first < t->file_count)
        SAP_TRY(sap_loop(run, t->file_count - first, survey_step, &s, err));
    if (t->given)
        return SAP_OK;
    if (!sap_field_copy(&t->arena, t->reference->schema, &t->schema))
        return sap_error_memory(err, t->reference->shown.url);
    return all && t->merge ? merge_schemas(t, err) : SAP_OK;
}

static sap_status open_table(sap_table *t, const char *const *urls, size_t count, const sap_table_options *options,
                             bool all, const sap_run *run, sap_error *err) {
    sap_table_options o = options ? *options : (sap_table_options){0};
    t->merge = o.merge;
    t->skip_bad = o.skip_bad;
    t->identity = o.identity;
    t->given = o.schema != NULL;
    t->tree = o.tree ? sap_arena_text(&t->arena, o.tree, strlen(o.tree)) : NULL;
    if (o.tree && !t->tree)
        return sap_error_memory(err, o.tree);
    if (o.schema)
        SAP_TRY(sap_schema_import(o.schema, &t->arena, &t->schema, err));
    for (size_t i = 0; i < count; i++)
        SAP_TRY(add_files(t, urls[i], run, err));
    if (t->file_count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "no files to read");
    return survey_files(t, all, run, err);
}

static sap_status make_table(const char *const *urls, size_t count, const sap_table_options *options, bool all,
                             const sap_run *run, sap_table **out, sap_error *err) {
    sap_table *t = calloc(1, sizeof *t);
    if (!t)
        return sap_error_memory(err, "table");
    sap_status status = open_table(t, urls, count, options, all, run, err);
    if (status == SAP_OK)
        *out = t;
    else
        sap_table_close(t);
    return status;
}

sap_status sap_table_open(const char *const *urls, size_t count, const sap_table_options *options, const sap_run *run,
                          sap_table **out, sap_error *err) {
    return make_table(urls, count, options, true, run, out, err);
}

/* Of the schema what is named, and the entries' identity. */
static sap_status choose_columns(sap_table *t, const sap_table_options *o, sap_error *err) {
    const sap_outline *outline = t->reference ? t->reference->outline : NULL;
    const char *where = t->reference ? t->reference->shown.url : "the schema given", **paths;
    size_t count = o->column_count;
    sap_field whole = t->schema;
    paths = sap_arena_array(&t->arena, count + 2, sizeof(const char *));
    if (!paths)
        return sap_error_memory(err, where);
    memcpy(paths, o->columns, count * sizeof(const char *));
    for (int32_t i = 0; outline && i < outline->count; i++)
        if (outline->children[i].kind == SAP_OUTLINE_FILE || outline->children[i].kind == SAP_OUTLINE_ENTRY)
            paths[count++] = outline->children[i].field.name;
    return sap_schema_choose(&t->arena, &whole, paths, count, where, &t->schema, err);
}

sap_status sap_table_schema_read(const char *const *urls, size_t count, const sap_table_options *options,
                                 const sap_run *run, struct ArrowSchema *out, sap_error *err) {
    sap_table *t = NULL;
    SAP_TRY(make_table(urls, count, options, options && options->merge, run, &t, err));
    sap_status status = SAP_OK;
    if (options && options->column_count)
        status = choose_columns(t, options, err);
    if (status == SAP_OK)
        status = sap_schema_export(t->schema.children, t->schema.count, out, err);
    sap_table_close(t);
    return status;
}

void sap_table_close(sap_table *t) {
    if (!t)
        return;
    for (size_t i = 0; i < t->file_count; i++)
        sap_arena_release(&t->files[i].arena);
    free(t->files);
    sap_arena_release(&t->arena);
    free(t);
}

size_t sap_table_file_count(const sap_table *t) {
    return t->file_count;
}

const sap_table_file *sap_table_file_get(const sap_table *t, size_t index) {
    return index < t->file_count ? &t->files[index].shown : NULL;
}

const sap_field *sap_table_fields(const sap_table *t, int32_t *count) {
    *count = t->schema.count;
    return t->schema.children;
}
