/* Several files as one table, read one after another; the next one is opened while one is read. */
#include "root_internal.h"

#include <stdlib.h>

/* A file with its tree and reader. */
typedef struct link {
    sap_file *file;
    sap_tree *tree;
    sap_reader *reader;
} link;

struct sap_chain {
    sap_run run;
    sap_arena arena;
    const char **urls;
    size_t count, capacity, at; /* at: of the current link */
    const char *path;           /* of the tree, or NULL */
    sap_reader_options options; /* columns: after the first file, the exact names of what it gave */
    sap_field *fields;
    int32_t field_count;
    int64_t first; /* entries of the files before the current one */
    link current, next;
    sap_task *task; /* opens `next` */
};

static void close_link(link *l) {
    sap_reader_close(l->reader);
    sap_tree_close(l->tree);
    sap_file_close(l->file);
    *l = (link){0};
}

static sap_status open_link(sap_chain *c, size_t index, link *out, sap_error *err) {
    SAP_TRY(sap_file_open(c->urls[index], &c->run, &out->file, err));
    return sap_tree_open(out->file, c->path, &out->tree, err);
}

static sap_status open_next(void *context, sap_error *err) {
    sap_chain *c = context;
    return open_link(c, c->at + 1, &c->next, err);
}

/* Opens the reader of the current file for its part of [begin, end); none when it has none. */
static sap_status open_reader(sap_chain *c, sap_error *err) {
    int64_t entries = sap_tree_entries(c->current.tree), begin = c->options.begin - c->first,
            end = c->options.end ? c->options.end - c->first : entries;
    sap_reader_options o = c->options;
    o.begin = begin > 0 ? begin : 0;
    o.end = end < entries ? end : entries;
    if (c->fields && o.begin >= o.end)
        return SAP_OK;
    if (o.begin >= o.end) { /* the first file's columns are wanted all the same */
        o.begin = entries;
        o.end = 0;
    }
    return sap_reader_open(c->current.tree, &o, &c->run, &c->current.reader, err);
}

static sap_status check_fields(const sap_chain *c, sap_error *err) {
    int32_t count;
    const sap_field *fields = sap_reader_fields(c->current.reader, &count);
    for (int32_t i = 0; i < count && i < c->field_count; i++)
        if (!sap_field_same(&fields[i], &c->fields[i])) {
            char here[200], there[200];
            (void)sap_field_text(&fields[i], here, sizeof here);
            (void)sap_field_text(&c->fields[i], there, sizeof there);
            return sap_error_set(err, SAP_ETYPE, "%s: column %s is %s, in %s it is %s", c->urls[c->at], fields[i].name,
                                 here, c->urls[0], there);
        }
    return SAP_OK;
}

static bool copy_field(sap_arena *arena, const sap_field *field, sap_field *out) {
    *out = *field;
    out->name = sap_arena_text(arena, field->name ? field->name : "", field->name ? strlen(field->name) : 0);
    sap_field *children = field->count ? sap_arena_array(arena, (size_t)field->count, sizeof *children) : NULL;
    out->children = children;
    for (int32_t i = 0; i < field->count; i++)
        if (!children || !copy_field(arena, &field->children[i], &children[i]))
            return false;
    return out->name != NULL;
}

/* What the first file gives is what all must give. */
static sap_status keep_fields(sap_chain *c, sap_error *err) {
    const sap_field *fields = sap_reader_fields(c->current.reader, &c->field_count);
    size_t n = (size_t)c->field_count;
    const char **names = sap_arena_array(&c->arena, n + 1, sizeof *names);
    c->fields = sap_arena_array(&c->arena, n + 1, sizeof *c->fields);
    for (size_t i = 0; names && c->fields && i < n; i++) {
        if (!copy_field(&c->arena, &fields[i], &c->fields[i]))
            return sap_error_memory(err, c->urls[0]);
        names[i] = c->fields[i].name;
    }
    if (!names || !c->fields)
        return sap_error_memory(err, c->urls[0]);
    c->options.columns = names;
    c->options.count = n;
    return SAP_OK;
}

/* Goes to the next file, which was opened ahead unless it is the first. */
static sap_status enter(sap_chain *c, sap_error *err) {
    sap_status status = c->task ? sap_task_wait(c->task, err) : open_link(c, 0, &c->next, err);
    c->at += c->task ? 1 : 0; /* not before: what opens the file looks at it */
    c->task = NULL;
    c->current = c->next;
    c->next = (link){0};
    SAP_TRY(status);
    sap_file_report_note(c->current.file, &c->run);
    bool first = !c->fields;
    SAP_TRY(open_reader(c, err));
    if (c->current.reader)
        SAP_TRY(first ? keep_fields(c, err) : check_fields(c, err));
    int64_t behind = c->first + sap_tree_entries(c->current.tree);
    if (c->at + 1 < c->count && (!c->options.end || behind < c->options.end))
        return sap_task_start(&c->run, open_next, c, &c->task, err);
    return SAP_OK;
}

static sap_status copy_options(sap_chain *c, const sap_reader_options *options, const char *path, sap_error *err) {
    c->options = options ? *options : (sap_reader_options){0};
    c->path = path ? sap_arena_text(&c->arena, path, strlen(path)) : NULL;
    if (c->options.begin < 0 || c->options.end < 0 || (c->options.end && c->options.end < c->options.begin))
        return sap_error_set(err, SAP_EARGUMENT, "entries [%lld, %lld)", (long long)c->options.begin,
                             (long long)c->options.end);
    return path && !c->path ? sap_error_memory(err, path) : SAP_OK;
}

static sap_status list_files(sap_chain *c, const char *const *urls, size_t count, sap_error *err) {
    for (size_t i = 0; i < count; i++) {
        char **names;
        size_t n;
        SAP_TRY(sap_source_glob(urls[i], &c->run, &names, &n, err));
        bool room = true;
        for (size_t j = 0; j < n && room; j++) {
            room = sap_grow((void **)&c->urls, &c->capacity, c->count, sizeof *c->urls);
            const char *copy = room ? sap_arena_text(&c->arena, names[j], strlen(names[j])) : NULL;
            room = copy != NULL;
            if (room)
                c->urls[c->count++] = copy;
        }
        free(names);
        if (!room)
            return sap_error_memory(err, urls[i]);
    }
    return c->count ? SAP_OK : sap_error_set(err, SAP_EARGUMENT, "no files to read");
}

sap_status sap_chain_open(const char *const *urls, size_t count, const char *path, const sap_reader_options *options,
                          const sap_run *run, sap_chain **out, sap_error *err) {
    sap_chain *c = calloc(1, sizeof *c);
    if (!c)
        return sap_error_memory(err, "list of files");
    c->run = run ? *run : (sap_run){0};
    sap_status status = copy_options(c, options, path, err);
    if (status == SAP_OK)
        status = list_files(c, urls, count, err);
    if (status == SAP_OK)
        status = enter(c, err);
    if (status != SAP_OK) {
        sap_chain_close(c);
        return status;
    }
    *out = c;
    return SAP_OK;
}

void sap_chain_close(sap_chain *c) {
    (void)sap_task_wait(c->task, NULL);
    close_link(&c->current);
    close_link(&c->next);
    free(c->urls);
    sap_arena_release(&c->arena);
    free(c);
}

const sap_field *sap_chain_fields(const sap_chain *c, int32_t *count) {
    *count = c->field_count;
    return c->fields;
}

const char *sap_chain_file(const sap_chain *c, int64_t *first) {
    *first = c->first;
    return c->urls[c->at];
}

sap_status sap_chain_next(sap_chain *c, sap_batch *out, sap_error *err) {
    for (;;) {
        if (c->current.reader)
            SAP_TRY(sap_reader_next(c->current.reader, out, err));
        if (out->length > 0) {
            out->first_entry += c->first;
            return SAP_OK;
        }
        if (!c->task) {
            int64_t entries = c->first + sap_tree_entries(c->current.tree);
            if (c->at + 1 == c->count && (c->options.begin > entries || c->options.end > entries))
                return sap_error_set(err, SAP_EARGUMENT, "entries [%lld, %lld) of %lld in %zu files",
                                     (long long)c->options.begin, (long long)c->options.end, (long long)entries,
                                     c->count);
            return SAP_OK;
        }
        c->first += sap_tree_entries(c->current.tree);
        close_link(&c->current);
        SAP_TRY(enter(c, err));
    }
}
