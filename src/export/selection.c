/* Selections: columns of one tree or of many files, and the entries that a condition keeps. */
#include "export_internal.h"

#include <sapwood/access.h>
#include <stdlib.h>

struct sap_selection {
    sap_arena arena;
    const char **urls;
    size_t url_count, url_capacity;
    const char *path; /* of the tree in each file, or NULL */
    sap_reader_options wanted;
    sap_condition *where;

    sap_file *file;
    sap_tree *tree; /* of `file`, or one that the caller keeps open */
    sap_reader *reader;
    int32_t shown; /* columns; those that only the condition needs stand behind */
    int64_t read, kept;
    bool failed;
};

/* ---- Inputs ------------------------------------------------------------------------------------------------ */

static sap_status add_input(sap_selection *s, const char *input, sap_error *err) {
    size_t length, count = 0;
    const char *path;
    char **urls = NULL;
    sap_input_parse(input, &length, &path);
    const char *pattern = sap_arena_text(&s->arena, input, length);
    if (path)
        path = sap_arena_text(&s->arena, path, strlen(path));
    bool same = path && s->path ? strcmp(path, s->path) == 0 : path == s->path;
    if (s->url_count > 0 && !same)
        return sap_error_set(err, SAP_EARGUMENT, "%s: of the file before, another tree was asked for", input);
    s->path = path;
    SAP_TRY(pattern ? sap_source_glob(pattern, NULL, &urls, &count, err) : sap_error_memory(err, input));
    sap_status status = SAP_OK;
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        const char *url = sap_arena_text(&s->arena, urls[i], strlen(urls[i]));
        if (!url || !sap_grow((void **)&s->urls, &s->url_capacity, s->url_count, sizeof *s->urls))
            status = sap_error_memory(err, input);
        else
            s->urls[s->url_count++] = url;
    }
    free(urls);
    return status;
}

static void close_file(sap_selection *s) {
    if (!s->file)
        return;
    sap_tree_close(s->tree);
    sap_file_close(s->file);
    s->tree = NULL;
    s->file = NULL;
}

/* ---- Columns ------------------------------------------------------------------------------------------------- */

/* The names asked for, and behind them those that the condition needs. */
static sap_status copy_names(sap_selection *s, const sap_selection_options *o, sap_error *err) {
    size_t extra = s->where ? s->where->name_count : 0, n = o->columns ? o->column_count : 0;
    bool all = extra > 0;
    for (size_t i = 0; i < n; i++)
        all = all && o->columns[i][0] == '!';
    const char **names = sap_arena_array(&s->arena, n + extra + 1, sizeof *names);
    if (!names)
        return sap_error_memory(err, "selection");
    size_t count = 0;
    if (all) /* names alone would leave out the rest */
        names[count++] = "*";
    for (size_t i = 0; i < n + extra; i++) {
        const char *name = i < n ? o->columns[i] : s->where->names[i - n];
        names[count] = sap_arena_text(&s->arena, name, strlen(name));
        if (!names[count++])
            return sap_error_memory(err, "selection");
    }
    s->wanted.columns = names;
    s->wanted.count = count;
    return SAP_OK;
}

/* How many columns a reader gives without the names of the condition: those are shown. */
static sap_status count_shown(sap_selection *s, sap_error *err) {
    sap_reader *reader;
    sap_reader_options asked = {.columns = s->wanted.columns, .count = s->wanted.count - s->where->name_count};
    SAP_TRY(sap_reader_open(s->tree, &asked, NULL, &reader, err));
    (void)sap_reader_fields(reader, &s->shown);
    sap_reader_close(reader);
    return SAP_OK;
}

/* The condition's names as columns of the batches. A name may be written as a path, so the tree is asked. */
static sap_status bind(sap_selection *s, sap_error *err) {
    size_t *columns = sap_arena_array(&s->arena, s->where->name_count + 1, sizeof *columns);
    int32_t count;
    const sap_field *fields = sap_reader_fields(s->reader, &count);
    if (!columns)
        return sap_error_memory(err, "selection");
    for (size_t i = 0; i < s->where->name_count; i++) {
        sap_reader *one;
        int32_t found;
        SAP_TRY(sap_reader_open(s->tree, &(sap_reader_options){.columns = &s->where->names[i], .count = 1}, NULL, &one,
                                err));
        const sap_field *field = sap_reader_fields(one, &found);
        while (found && strcmp(fields[columns[i]].name, field->name) != 0)
            columns[i]++;
        sap_reader_close(one);
        if (!found) /* a pattern of unreadable ones */
            return sap_error_set(err, SAP_ENOTFOUND, "condition: \"%s\" is no column", s->where->names[i]);
    }
    return sap_condition_bind(s->where, fields, columns, err);
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

/* The tree that tells what columns there are: for many files the first one's, and only if there is a condition. */
static sap_status open_tree(sap_selection *s, const sap_run *run, sap_error *err) {
    if (s->tree || (s->url_count > 1 && !s->where))
        return SAP_OK;
    SAP_TRY(sap_file_open(s->urls[0], run, &s->file, err));
    if (s->url_count == 1) /* a chain of files says it itself */
        sap_file_report_note(s->file, run);
    return sap_tree_open(s->file, s->path, &s->tree, err);
}

static sap_status open_selection(sap_selection *s, const sap_selection_options *o, const sap_run *run, sap_error *err) {
    s->wanted = (sap_reader_options){
        .begin = o->begin, .end = o->end, .batch_entries = o->batch_entries, .batch_bytes = o->batch_bytes};
    s->tree = o->tree;
    if (o->where)
        SAP_TRY(sap_condition_parse(o->where, &s->where, err));
    SAP_TRY(copy_names(s, o, err));
    for (size_t i = 0; !s->tree && i < o->input_count; i++)
        SAP_TRY(add_input(s, o->inputs[i], err));
    if (!s->tree && s->url_count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "no input");
    SAP_TRY(open_tree(s, run, err));
    if (s->url_count > 1)
        SAP_TRY(sap_reader_open_files(s->urls, s->url_count, s->path, &s->wanted, run, &s->reader, err));
    else
        SAP_TRY(sap_reader_open(s->tree, &s->wanted, run, &s->reader, err));
    (void)sap_reader_fields(s->reader, &s->shown);
    if (s->where) {
        SAP_TRY(count_shown(s, err));
        SAP_TRY(bind(s, err));
    }
    if (s->url_count > 1)
        close_file(s);
    return SAP_OK;
}

sap_status sap_selection_open(const sap_selection_options *options, const sap_run *run, sap_selection **out,
                              sap_error *err) {
    sap_selection *s = calloc(1, sizeof *s);
    if (!s)
        return sap_error_memory(err, "selection");
    sap_status status = open_selection(s, options, run, err);
    if (status == SAP_OK)
        *out = s;
    else
        sap_selection_close(s);
    return status;
}

void sap_selection_close(sap_selection *s) {
    if (!s)
        return;
    sap_reader_close(s->reader);
    close_file(s);
    sap_condition_close(s->where);
    free(s->urls);
    sap_arena_release(&s->arena);
    free(s);
}

const sap_field *sap_selection_fields(const sap_selection *s, int32_t *count) {
    const sap_field *fields = sap_reader_fields(s->reader, count);
    *count = s->shown;
    return fields;
}

void sap_selection_counts(const sap_selection *s, int64_t *read, int64_t *kept) {
    *read = s->read;
    *kept = s->kept;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* Leaves in the batch what the condition keeps, and the columns that are shown. */
static sap_status filter(const sap_selection *s, sap_batch *batch, sap_error *err) {
    if (!s->where || batch->length == 0)
        return SAP_OK;
    uint8_t *keep = malloc((size_t)batch->length);
    if (!keep)
        return sap_error_memory(err, "selection");
    sap_condition_run(s->where, batch, keep);
    sap_status status = SAP_OK;
    if (memchr(keep, 0, (size_t)batch->length)) {
        sap_batch some = {0};
        status = sap_batch_take(batch, s->shown, keep, &some, err);
        sap_batch_release(batch);
        *batch = some;
    } else {
        batch->count = s->shown;
    }
    free(keep);
    return status;
}

sap_status sap_selection_next(sap_selection *s, sap_batch *out, sap_error *err) {
    if (s->failed)
        return sap_error_set(err, SAP_EARGUMENT, "the selection failed before");
    sap_status status;
    bool last;
    do {
        sap_batch_release(out);
        status = sap_reader_next(s->reader, out, err);
        last = status != SAP_OK || out->length == 0;
        s->read += out->length;
        if (!last)
            status = filter(s, out, err);
    } while (status == SAP_OK && !last && out->length == 0);
    s->kept += out->length;
    s->failed = status != SAP_OK;
    return status;
}

/* ---- As an Arrow stream ------------------------------------------------------------------------------------------- */

static sap_status next_batch(void *context, sap_batch *out, sap_error *err) {
    return sap_selection_next(context, out, err);
}

static void close_batches(void *context) {
    sap_selection_close(context);
}

sap_status sap_selection_export(sap_selection *selection, struct ArrowArrayStream *out, sap_error *err) {
    int32_t count;
    const sap_field *fields = sap_selection_fields(selection, &count);
    sap_batches batches = {selection, fields, count, next_batch, close_batches};
    return sap_batches_export(&batches, out, err);
}
