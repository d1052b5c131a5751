/* Reading a part of a table: the columns of a condition first, and the others where it holds. */
#include "table_internal.h"

#include <sapwood/export.h>
#include <stdlib.h>

enum { MOST_ROWS = 1 << 20 }; /* of a batch: of no column, or of those of a condition */

struct sap_table_reader {
    sap_arena arena;
    sap_run run;
    sap_file *file;
    sap_tree *tree;
    const char *where;
    sap_field wanted;
    sap_outline outline;
    sap_fit fit;
    sap_fit_columns columns;
    const sap_column **found; /* (columns.count) those of the batch in the making */
    sap_condition *condition; /* NULL: every entry is wanted */
    sap_reader *tested;       /* the condition's columns; NULL: it has none */
    sap_reader *rest;         /* the wanted ones that it has not; NULL: there are none */
    int32_t *place;           /* (columns.count) among those of `tested`; below 0: -1 less that among those of `rest` */
    int64_t at, end;          /* without a column to read: entries that are left */
    int64_t read, kept;
    bool numbered; /* the entries' numbers are wanted */
};

/* ---- Opening --------------------------------------------------------------------------------------------- */

/* The branch that the condition means: by its own name, or by its path in the table. */
static sap_status find_named(const sap_table_reader *r, const char *name, const sap_branch **out, sap_error *err) {
    const sap_outline *found = sap_outline_find(&r->outline, name);
    if (found && found->kind == SAP_OUTLINE_COLUMN) {
        *out = found->branch;
        return SAP_OK;
    }
    return sap_tree_find(r->tree, name, out, err);
}

/* Whether the file has all columns of a condition. */
static sap_status check_names(const sap_table_reader *r, const sap_condition *c, sap_error *err) {
    const sap_branch *branch;
    for (size_t i = 0; i < c->name_count; i++)
        SAP_TRY(find_named(r, c->names[i], &branch, err));
    return SAP_OK;
}

/* The conditions joined: `where`, and those hints that this file can answer. */
static sap_status join_conditions(sap_table_reader *r, const sap_table_reader_options *o, sap_error *err) {
    sap_text text = {0};
    sap_condition *one = NULL;
    sap_status status = SAP_OK;
    if (o->where) {
        status = sap_condition_parse(o->where, &one, err);
        if (status == SAP_OK)
            status = check_names(r, one, err);
        sap_condition_close(one);
        sap_text_add(&text, "(%s)", o->where);
    }
    for (size_t i = 0; i < o->hint_count && status == SAP_OK; i++) {
        sap_error ignored;
        status = sap_condition_parse(o->hints[i], &one, err);
        if (status == SAP_OK && check_names(r, one, &ignored) == SAP_OK)
            sap_text_add(&text, "%s(%s)", text.length ? " && " : "", o->hints[i]);
        if (status == SAP_OK)
            sap_condition_close(one);
    }
    if (status == SAP_OK && text.failed)
        status = sap_error_memory(err, r->where);
    if (status == SAP_OK && text.length)
        status = sap_condition_parse(text.data, &r->condition, err);
    sap_text_release(&text);
    return status;
}

static double bytes_an_entry(const sap_table_reader *r, const sap_branch *branch) {
    int64_t entries = sap_tree_entries(r->tree);
    return entries > 0 ? (double)branch->bytes / (double)entries : 0;
}

/* Entries of a batch when columns are read by two readers: as many as one for all of them would take. */
static int64_t batch_entries(const sap_table_reader *r, const sap_branch *const *tested, size_t count,
                             size_t batch_bytes) {
    double bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += bytes_an_entry(r, tested[i]);
    for (size_t i = 0; i < r->columns.count; i++)
        bytes += bytes_an_entry(r, r->columns.branches[i]);
    int64_t entries = sap_reader_batch_entries(r->tree, &r->run, count + r->columns.count, bytes, batch_bytes);
    return entries < MOST_ROWS ? entries : MOST_ROWS;
}

static sap_status open_reader(const sap_table_reader *r, const char **names, size_t count, sap_reader_options o,
                              sap_reader **out, sap_error *err) {
    if (count == 0)
        return SAP_OK;
    o.columns = names;
    o.count = count;
    return sap_reader_open(r->tree, &o, &r->run, out, err);
}

/* Opens the reader of the condition's columns, and tells the condition where in its batches they stand. */
static sap_status open_tested(sap_table_reader *r, const sap_table_reader_options *o, const char **names,
                              const sap_branch **branches, size_t *count, sap_error *err) {
    sap_condition *c = r->condition;
    size_t *columns = sap_arena_array(&r->arena, c->name_count + 1, sizeof *columns);
    if (!columns)
        return sap_error_memory(err, r->where);
    for (size_t i = 0; i < c->name_count; i++) {
        const sap_branch *branch;
        size_t at = 0;
        SAP_TRY(find_named(r, c->names[i], &branch, err));
        while (at < *count && branches[at] != branch)
            at++;
        branches[at] = branch;
        names[at] = branch->name;
        *count += at == *count;
        columns[i] = at;
    }
    sap_reader_options asked = {.begin = o->begin, .end = o->end};
    asked.batch_entries = batch_entries(r, branches, *count, o->batch_bytes);
    SAP_TRY(open_reader(r, names, *count, asked, &r->tested, err));
    int32_t fields;
    return r->tested ? sap_condition_bind(c, sap_reader_fields(r->tested, &fields), columns, err)
                     : sap_condition_bind(c, NULL, columns, err);
}

static sap_status open_readers(sap_table_reader *r, const sap_table_reader_options *o, sap_error *err) {
    size_t most = r->columns.count + (r->condition ? r->condition->name_count : 0) + 1, tested = 0, rest = 0;
    const char **names = sap_arena_array(&r->arena, most, sizeof(const char *));
    const sap_branch **branches = sap_arena_array(&r->arena, most, sizeof(const sap_branch *));
    r->found = sap_arena_array(&r->arena, most, sizeof(const sap_column *));
    r->place = sap_arena_array(&r->arena, most, sizeof *r->place);
    if (!names || !branches || !r->found || !r->place)
        return sap_error_memory(err, r->where);
    if (r->condition)
        SAP_TRY(open_tested(r, o, names, branches, &tested, err));
    for (size_t i = 0; i < r->columns.count; i++) {
        const sap_branch *branch = r->columns.branches[i];
        size_t at = 0;
        while (at < tested && branches[at] != branch)
            at++;
        r->place[i] = at < tested ? (int32_t)at : -1 - (int32_t)rest;
        if (at == tested)
            names[rest++] = branch->name;
    }
    sap_reader_options asked = {.begin = o->begin, .end = o->end, .batch_bytes = o->batch_bytes};
    if (r->tested)
        asked.batch_entries = INT32_MAX; /* it reads what the other one found */
    return open_reader(r, names, rest, asked, &r->rest, err);
}

static sap_status open_all(sap_table_reader *r, const sap_table_reader_options *o, sap_error *err) {
    SAP_TRY(sap_schema_import(o->wanted, &r->arena, &r->wanted, err));
    SAP_TRY(sap_file_open(o->url, &r->run, &r->file, err));
    sap_file_report_note(r->file, &r->run);
    SAP_TRY(sap_tree_open(r->file, o->tree, &r->tree, err));
    r->where = sap_arena_format(&r->arena, "%s:%s", sap_file_name(r->file), sap_tree_path(r->tree));
    if (!r->where)
        return sap_error_memory(err, o->url);
    int64_t entries = sap_tree_entries(r->tree);
    r->at = o->begin;
    r->end = o->end ? o->end : entries;
    if (o->begin < 0 || r->end < o->begin || r->end > entries)
        return sap_error_set(err, SAP_EDATA,
                             "%s: entries [%lld, %lld) of %lld: the file is not the one that was planned with",
                             r->where, (long long)o->begin, (long long)r->end, (long long)entries);
    SAP_TRY(sap_outline_make(r->tree, o->identity, &r->arena, &r->outline, err));
    SAP_TRY(sap_fit_make(&r->outline, &r->wanted, o->lenient, r->where, &r->arena, &r->fit, &r->columns, err));
    for (int32_t i = 0; i < r->fit.count; i++)
        r->numbered = r->numbered || r->fit.children[i].kind == SAP_FIT_ENTRY;
    SAP_TRY(join_conditions(r, o, err));
    return r->at < r->end ? open_readers(r, o, err) : SAP_OK;
}

sap_status sap_table_reader_open(const sap_table_reader_options *options, const sap_run *run, sap_table_reader **out,
                                 sap_error *err) {
    sap_table_reader *r = calloc(1, sizeof *r);
    if (!r)
        return sap_error_memory(err, options->url);
    r->run = run ? *run : (sap_run){0};
    sap_status status = open_all(r, options, err);
    if (status == SAP_OK)
        *out = r;
    else
        sap_table_reader_close(r);
    return status;
}

void sap_table_reader_close(sap_table_reader *r) {
    if (!r)
        return;
    sap_reader_close(r->tested);
    sap_reader_close(r->rest);
    sap_condition_close(r->condition);
    free(r->columns.branches);
    sap_tree_close(r->tree);
    sap_file_close(r->file);
    sap_arena_release(&r->arena);
    free(r);
}

/* ---- Reading ------------------------------------------------------------------------------------------------ */

/* What was read of some entries: by both readers, of the same ones. */
typedef struct pieces {
    sap_batch tested, rest;
    int64_t length;
    int64_t *entries; /* (length) their numbers, if they are wanted */
} pieces;

/* Notes the numbers of the entries from `first` on that are kept; keep NULL: all. */
static sap_status note_entries(const sap_table_reader *r, pieces *p, int64_t first, const uint8_t *keep,
                               sap_error *err) {
    if (!r->numbered || p->length == 0)
        return SAP_OK;
    p->entries = malloc((size_t)p->length * sizeof *p->entries);
    if (!p->entries)
        return sap_error_memory(err, r->where);
    for (int64_t i = 0, n = 0; n < p->length; i++)
        if (!keep || keep[i])
            p->entries[n++] = first + i;
    return SAP_OK;
}

/* Keeps of the batch's entries [begin, end) those that `keep` (of entry `begin` on) says; NULL: all. */
static sap_status narrow(sap_batch *batch, int64_t begin, int64_t end, const uint8_t *keep, sap_error *err) {
    if (!batch->storage || (!keep && begin == 0 && end == batch->length))
        return SAP_OK;
    sap_batch some = {0}, taken = {0};
    sap_status status = sap_batch_view(batch, begin, end, &some, err);
    if (status == SAP_OK && keep)
        status = sap_batch_take(&some, some.count, keep, &taken, err);
    if (status == SAP_OK && keep) {
        sap_batch_release(batch);
        sap_batch_release(&some);
        *batch = taken;
    } else if (status == SAP_OK) {
        sap_storage_absorb(some.storage, batch);
        *batch = some;
    }
    return status;
}

/* Reads on until some entries are kept; length 0: there are none left. */
static sap_status read_kept(sap_table_reader *r, pieces *p, uint8_t **mask, sap_error *err) {
    int64_t first = 0, behind = 0, kept = 0;
    do {
        sap_batch_release(&p->tested);
        SAP_TRY(sap_reader_next(r->tested, &p->tested, err));
        int64_t n = p->tested.length;
        uint8_t *keep = realloc(*mask, (size_t)n + 1);
        if (!keep)
            return sap_error_memory(err, r->where);
        *mask = keep;
        sap_condition_run(r->condition, &p->tested, keep);
        for (int64_t i = kept = 0; i < n; i++) {
            if (!keep[i])
                continue;
            first = kept ? first : i;
            behind = i + 1;
            kept++;
        }
        r->read += n;
    } while (kept == 0 && p->tested.length > 0);
    p->length = kept;
    if (kept == 0)
        return SAP_OK;
    if (r->rest) {
        int64_t entry = p->tested.first_entry + first, stop = p->tested.first_entry + behind;
        SAP_TRY(sap_reader_seek(r->rest, entry, stop, err));
        SAP_TRY(sap_reader_next(r->rest, &p->rest, err));
    }
    const uint8_t *keep = kept < behind - first ? *mask + first : NULL;
    SAP_TRY(note_entries(r, p, p->tested.first_entry + first, keep, err));
    SAP_TRY(narrow(&p->tested, first, behind, keep, err));
    return narrow(&p->rest, 0, p->rest.length, keep, err);
}

/* Entries of which no column is read. A condition without columns holds for all or for none. */
static void count_rows(sap_table_reader *r, pieces *p) {
    int64_t left = r->end - r->at;
    sap_batch one = {.length = 1};
    uint8_t keep = 1;
    if (r->condition)
        sap_condition_run(r->condition, &one, &keep);
    p->length = left < MOST_ROWS ? left : MOST_ROWS;
    if (!keep)
        p->length = 0;
    r->at += p->length;
    r->read += p->length;
}

static sap_status read_pieces(sap_table_reader *r, pieces *p, sap_error *err) {
    if (r->tested) {
        uint8_t *mask = NULL;
        sap_status status = read_kept(r, p, &mask, err);
        free(mask);
        return status;
    }
    if (!r->rest) {
        int64_t first = r->at;
        count_rows(r, p);
        return note_entries(r, p, first, NULL, err);
    }
    SAP_TRY(sap_reader_next(r->rest, &p->rest, err));
    p->length = p->rest.length;
    r->read += p->length;
    return note_entries(r, p, p->rest.first_entry, NULL, err);
}

/* The wanted columns as a batch that owns what was read. */
static sap_status shape(sap_table_reader *r, pieces *p, sap_batch *out, sap_error *err) {
    sap_column top;
    SAP_TRY(sap_batch_init(out, 0, err));
    for (size_t i = 0; i < r->columns.count; i++) {
        int32_t place = r->place[i];
        r->found[i] = place < 0 ? &p->rest.columns[-1 - place] : &p->tested.columns[place];
    }
    sap_fit_input input = {.columns = r->found, .length = p->length, .entries = p->entries};
    input.file = sap_url_name(sap_file_name(r->file), &input.file_length);
    sap_status status = sap_fit_run(&r->fit, &input, r->where, out->storage, &top, err);
    if (status != SAP_OK) {
        sap_batch_release(out);
        return status;
    }
    out->length = p->length;
    out->count = top.count;
    out->columns = top.children;
    if (p->tested.storage)
        sap_storage_absorb(out->storage, &p->tested);
    if (p->rest.storage)
        sap_storage_absorb(out->storage, &p->rest);
    return SAP_OK;
}

sap_status sap_table_reader_next(sap_table_reader *r, struct ArrowArray *out, sap_error *err) {
    pieces p = {0};
    sap_batch batch = {0};
    out->release = NULL;
    if (r->at >= r->end)
        return SAP_OK;
    sap_status status = sap_run_check(&r->run, err);
    if (status == SAP_OK)
        status = read_pieces(r, &p, err);
    r->kept += p.length;
    if (status == SAP_OK && p.length > 0)
        status = shape(r, &p, &batch, err);
    if (status == SAP_OK && p.length > 0)
        status = sap_batch_export(&batch, out, err);
    if (status != SAP_OK || p.length == 0)
        r->at = r->end; /* there is no more */
    free(p.entries);
    sap_batch_release(&p.tested);
    sap_batch_release(&p.rest);
    sap_batch_release(&batch);
    return status;
}

void sap_table_reader_stats_get(const sap_table_reader *r, sap_table_reader_stats *out) {
    sap_file_stats file;
    sap_source_stats source;
    sap_file_stats_get(r->file, &file);
    sap_source_stats_get(sap_file_source(r->file), &source);
    *out = (sap_table_reader_stats){.read = r->read,
                                    .kept = r->kept,
                                    .stored_bytes = file.stored_bytes,
                                    .bytes = file.bytes,
                                    .received_bytes = source.bytes,
                                    .baskets = file.baskets,
                                    .unpack_seconds = file.unpack_seconds};
}
