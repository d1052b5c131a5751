/* Readers: which columns, of the tree and of its friends, and their batches of entries; several files one after another. */
#include "root_internal.h"

#include <stdlib.h>

/* Of a batch, when the caller does not say: small enough to stay in the caches until it is used, large enough for each thread
 * and each column to have something to do. */
enum { BATCH_BYTES_A_THREAD = 4 << 20, BATCH_BYTES_A_COLUMN = 128 << 10, MOST_BATCH_BYTES = 32 << 20 };

/* The columns that come from one tree: the one that is read, or a friend. */
typedef struct part {
    const sap_tree *tree;
    size_t *branches; /* (count) */
    size_t count, capacity;
    void *scan;
} part;

/* A column of the batches. */
typedef struct shown {
    size_t part, index; /* which of the part's */
    const char *name;   /* "alias.name" of a friend's column that was asked for so; NULL: the branch's */
} shown;

struct sap_reader {
    sap_chain *chain; /* several files; then of the rest only `failed` is used */
    sap_tree *tree;
    sap_run run;
    sap_arena arena;
    part *parts;
    size_t part_count, part_capacity;
    shown *columns;
    size_t column_count, column_capacity;
    sap_field *fields;
    int64_t at, end, batch_entries;
    int64_t entries;    /* that its columns have */
    bool whole_baskets; /* batches may end where baskets do */
    bool failed;
};

/* ---- Choosing columns --------------------------------------------------------------------------------------------- */

static bool has_pattern(const char *name) {
    return strpbrk(name, "*?") != NULL;
}

/* Whether a branch is among the columns by patterns; exact names are checked beforehand. */
static bool is_chosen(const sap_branch *b, const sap_reader_options *o) {
    bool any_positive = false, chosen = false;
    for (size_t i = 0; i < o->count; i++) {
        const char *pattern = o->columns[i];
        bool out = pattern[0] == '!';
        any_positive = any_positive || !out;
        if (out ? sap_text_matches(pattern + 1, b->name) : false)
            return false;
        if (!out && (sap_text_matches(pattern, b->name) || sap_text_matches(pattern, b->path)))
            chosen = true;
    }
    return chosen || !any_positive;
}

static part *part_of(sap_reader *r, const sap_tree *tree) {
    for (size_t i = 0; i < r->part_count; i++)
        if (r->parts[i].tree == tree)
            return &r->parts[i];
    if (!sap_grow((void **)&r->parts, &r->part_capacity, r->part_count, sizeof *r->parts))
        return NULL;
    r->parts[r->part_count] = (part){.tree = tree};
    return &r->parts[r->part_count++];
}

/* asked: how it was named, if not by a pattern. */
static sap_status add_column(sap_reader *r, const sap_tree *owner, size_t index, const char *asked, sap_error *err) {
    const sap_branch *b = owner->branches[index];
    bool alias = asked && owner != r->tree && strcmp(asked, b->name) != 0 && strcmp(asked, b->path) != 0;
    const char *name = alias ? sap_arena_text(&r->arena, asked, strlen(asked)) : NULL;
    part *p = part_of(r, owner);
    if (!p || (alias && !name))
        return sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < p->count; i++)
        if (p->branches[i] == index)
            return SAP_OK;
    if (!b->field)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s/%s: cannot be read as a column: %s", owner->where, b->name,
                             b->reason ? b->reason : "unknown");
    if (!sap_grow((void **)&p->branches, &p->capacity, p->count, sizeof *p->branches) ||
        !sap_grow((void **)&r->columns, &r->column_capacity, r->column_count, sizeof *r->columns))
        return sap_error_memory(err, r->tree->where);
    r->columns[r->column_count++] = (shown){(size_t)(p - r->parts), p->count, name};
    p->branches[p->count++] = index;
    return SAP_OK;
}

/* Columns in the order in which they were named; those of a pattern in the tree's order. */
static sap_status choose_columns(sap_reader *r, const sap_reader_options *o, sap_error *err) {
    size_t n = sap_tree_branch_count(r->tree);
    bool all = true; /* nothing but what is left out was named */
    for (size_t i = 0; i < o->count; i++) {
        const char *name = o->columns[i];
        const sap_tree *owner;
        size_t index, matched = 0;
        sap_error ignored;
        if (name[0] == '!')
            continue;
        all = false;
        if (sap_tree_locate(r->tree, name, &owner, &index, has_pattern(name) ? &ignored : err) == SAP_OK) {
            SAP_TRY(add_column(r, owner, index, name, err));
            continue;
        }
        if (!has_pattern(name))
            return err ? err->status : SAP_ENOTFOUND;
        for (size_t j = 0; j < n; j++) {
            const sap_branch *plain = r->tree->branches[j];
            if (!sap_text_matches(name, plain->name) && !sap_text_matches(name, plain->path))
                continue;
            matched++;
            if (is_chosen(plain, o) && sap_tree_branch(r->tree, j)->field)
                SAP_TRY(add_column(r, r->tree, j, NULL, err));
        }
        if (matched == 0)
            return sap_error_set(err, SAP_ENOTFOUND, "%s: no branch matches \"%s\"", r->tree->where, name);
    }
    for (size_t j = 0; all && j < n; j++)
        if (is_chosen(r->tree->branches[j], o) && sap_tree_branch(r->tree, j)->field)
            SAP_TRY(add_column(r, r->tree, j, NULL, err));
    return SAP_OK;
}

/* Columns that all have the same number of entries, though not the tree's, can be read; a friend may have more. */
static sap_status choose_range(sap_reader *r, int64_t begin, int64_t end, sap_error *err) {
    int64_t entries = r->tree->entries;
    const char *first = NULL;
    for (size_t i = 0; i < r->column_count; i++) {
        const part *p = &r->parts[r->columns[i].part];
        const sap_branch *b = p->tree->branches[p->branches[r->columns[i].index]];
        int64_t own = p->tree->kind->entries ? p->tree->kind->entries(b) : p->tree->entries;
        if (p->tree != r->tree) {
            if (own < r->tree->entries)
                return sap_error_set(err, SAP_EDATA, "%s/%s: a friend with %lld entries of a tree with %lld",
                                     p->tree->where, b->name, (long long)own, (long long)r->tree->entries);
            continue;
        }
        if (first && own != entries)
            return sap_error_set(err, SAP_EFORMAT, "%s/%s: has %lld entries, %s has %lld", r->tree->where, b->name,
                                 (long long)own, first, (long long)entries);
        first = b->name;
        entries = own;
    }
    r->entries = entries;
    r->end = end ? end : entries;
    if (begin > r->end || r->end > entries)
        return sap_error_set(err, SAP_EARGUMENT, "%s: entries [%lld, %lld) of %lld", r->tree->where, (long long)begin,
                             (long long)r->end, (long long)entries);
    return SAP_OK;
}

static size_t standard_bytes(const sap_tree *tree, const sap_run *run, size_t columns) {
    size_t most = MOST_BATCH_BYTES, threads = (size_t)sap_run_threads(run);
    if (sap_source_is_remote(tree->file->source) || threads > most / BATCH_BYTES_A_THREAD ||
        columns > most / BATCH_BYTES_A_COLUMN)
        return most; /* from afar, few large requests are best */
    size_t for_threads = threads * BATCH_BYTES_A_THREAD, for_columns = columns * BATCH_BYTES_A_COLUMN;
    return for_threads > for_columns ? for_threads : for_columns;
}

int64_t sap_reader_batch_entries(const sap_tree *tree, const sap_run *run, size_t columns, double entry_bytes,
                                 size_t batch_bytes) {
    double bytes = (double)(batch_bytes ? batch_bytes : standard_bytes(tree, run, columns));
    double n = bytes / (entry_bytes > 1 ? entry_bytes : 1);
    return n < 1 ? 1 : n > 1e8 ? 100000000 : (int64_t)n;
}

static int64_t standard_entries(const sap_reader *r, size_t batch_bytes) {
    double bytes = 0, entries = r->tree->entries > 0 ? (double)r->tree->entries : 1;
    for (size_t i = 0; i < r->part_count; i++)
        for (size_t j = 0; j < r->parts[i].count; j++)
            bytes += (double)r->parts[i].tree->branches[r->parts[i].branches[j]]->bytes / entries;
    return sap_reader_batch_entries(r->tree, &r->run, r->column_count, bytes, batch_bytes);
}

static sap_status open_scans(sap_reader *r, sap_error *err) {
    r->fields = sap_arena_array(&r->arena, r->column_count + 1, sizeof *r->fields);
    if (!r->fields)
        return sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < r->column_count; i++) {
        const part *p = &r->parts[r->columns[i].part];
        r->fields[i] = *p->tree->branches[p->branches[r->columns[i].index]]->field;
        if (r->columns[i].name)
            r->fields[i].name = r->columns[i].name;
    }
    for (size_t i = 0; i < r->part_count; i++) {
        part *p = &r->parts[i];
        if (p->count > 0)
            SAP_TRY(p->tree->kind->scan_open((sap_tree *)(uintptr_t)p->tree, p->branches, p->count, &r->run, &p->scan,
                                             err));
    }
    return SAP_OK;
}

sap_status sap_reader_open(sap_tree *tree, const sap_reader_options *options, const sap_run *run, sap_reader **out,
                           sap_error *err) {
    sap_reader_options o = options ? *options : (sap_reader_options){0};
    sap_error own = {0};
    if (!o.columns)
        o.count = 0;
    if (o.begin < 0 || o.end < 0 || (o.end && o.end < o.begin) || o.batch_entries < 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: entries [%lld, %lld) of %lld, %lld a batch", tree->where,
                             (long long)o.begin, (long long)o.end, (long long)tree->entries,
                             (long long)o.batch_entries);
    sap_reader *r = calloc(1, sizeof *r);
    if (!r)
        return sap_error_memory(err, tree->where);
    r->tree = tree;
    r->run = run ? *run : (sap_run){0};
    r->at = o.begin;
    sap_status status = choose_columns(r, &o, err ? err : &own);
    if (status == SAP_OK)
        status = choose_range(r, o.begin, o.end, err);
    if (status == SAP_OK)
        status = open_scans(r, err);
    if (status != SAP_OK) {
        sap_reader_close(r);
        return status;
    }
    r->whole_baskets = o.batch_entries == 0;
    r->batch_entries = o.batch_entries ? o.batch_entries : standard_entries(r, o.batch_bytes);
    *out = r;
    return SAP_OK;
}

sap_status sap_reader_open_files(const char *const *urls, size_t count, const char *path,
                                 const sap_reader_options *options, const sap_run *run, sap_reader **out,
                                 sap_error *err) {
    sap_reader *r = calloc(1, sizeof *r);
    if (!r)
        return sap_error_memory(err, "list of files");
    sap_status status = sap_chain_open(urls, count, path, options, run, &r->chain, err);
    if (status != SAP_OK) {
        free(r);
        return status;
    }
    *out = r;
    return SAP_OK;
}

const char *sap_reader_file(const sap_reader *r, int64_t *first) {
    if (r->chain)
        return sap_chain_file(r->chain, first);
    *first = 0;
    return r->tree->file->name;
}

void sap_reader_close(sap_reader *r) {
    if (!r)
        return;
    if (r->chain)
        sap_chain_close(r->chain);
    for (size_t i = 0; i < r->part_count; i++) {
        if (r->parts[i].scan)
            r->parts[i].tree->kind->scan_close(r->parts[i].scan);
        free(r->parts[i].branches);
    }
    free(r->parts);
    free(r->columns);
    sap_arena_release(&r->arena);
    free(r);
}

const sap_field *sap_reader_fields(const sap_reader *r, int32_t *count) {
    if (r->chain)
        return sap_chain_fields(r->chain, count);
    *count = (int32_t)r->column_count;
    return r->fields;
}

/* ---- Batches ------------------------------------------------------------------------------------------------------- */

/* Where a batch that begins with this entry ends. */
static int64_t choose_end(const sap_reader *r, int64_t begin) {
    int64_t end = r->end - begin > r->batch_entries ? begin + r->batch_entries : r->end;
    const part *p = r->part_count ? &r->parts[0] : NULL;
    if (!r->whole_baskets || end == r->end || !p || !p->scan)
        return end;
    return p->tree->kind->scan_boundary(p->scan, begin, end);
}

/* Remote bytes of this batch, and of the next one while this one is decoded and used. */
static sap_status fetch_ahead(sap_reader *r, int64_t begin, int64_t end, sap_error *err) {
    for (size_t i = 0; i < r->part_count; i++) {
        const part *p = &r->parts[i];
        if (!p->scan || !sap_source_is_remote(p->tree->file->source))
            continue;
        SAP_TRY(p->tree->kind->scan_prefetch(p->scan, begin, end, err));
        if (end < r->end)
            SAP_TRY(p->tree->kind->scan_prefetch(p->scan, end, choose_end(r, end), err));
    }
    return SAP_OK;
}

static sap_status read_parts(sap_reader *r, int64_t begin, int64_t end, sap_batch *out, sap_column *columns,
                             sap_error *err) {
    size_t first = 0;
    for (size_t i = 0; i < r->part_count; i++) {
        const part *p = &r->parts[i];
        if (p->scan)
            SAP_TRY(p->tree->kind->scan_read(p->scan, begin, end, out->storage, columns + first, err));
        for (size_t j = 0; j < r->column_count; j++) {
            if (r->columns[j].part != i)
                continue;
            out->columns[j] = columns[first + r->columns[j].index];
            if (r->columns[j].name && !(out->columns[j].name = sap_storage_text(out->storage, r->columns[j].name)))
                return sap_error_memory(err, r->tree->where);
        }
        first += p->count;
    }
    return SAP_OK;
}

sap_status sap_reader_next(sap_reader *r, sap_batch *out, sap_error *err) {
    int64_t first;
    if (r->failed || out->storage)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %s", sap_reader_file(r, &first),
                             r->failed ? "reading goes on after an error" : "the batch to be filled is not empty");
    if (r->chain) {
        sap_status status = sap_chain_next(r->chain, out, err);
        r->failed = status != SAP_OK;
        return status;
    }
    int64_t begin = r->at, end = choose_end(r, begin);
    if (end == begin) {
        *out = (sap_batch){0};
        return SAP_OK;
    }
    SAP_TRY(sap_run_check(&r->run, err));
    SAP_TRY(sap_batch_init(out, (int32_t)r->column_count, err));
    out->length = end - begin;
    out->first_entry = begin;
    sap_column *columns = calloc(r->column_count + 1, sizeof *columns);
    sap_status status = columns ? fetch_ahead(r, begin, end, err) : sap_error_memory(err, r->tree->where);
    if (status == SAP_OK)
        status = read_parts(r, begin, end, out, columns, err);
    free(columns);
    if (status != SAP_OK) {
        sap_batch_release(out);
        r->failed = true;
        return status;
    }
    r->at = end;
    return SAP_OK;
}

sap_status sap_reader_seek(sap_reader *r, int64_t begin, int64_t end, sap_error *err) {
    int64_t first;
    if (r->chain)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: one of several files is read to its end",
                             sap_reader_file(r, &first));
    if (begin < 0 || end < begin || end > r->entries)
        return sap_error_set(err, SAP_EARGUMENT, "%s: entries [%lld, %lld) of %lld", r->tree->where, (long long)begin,
                             (long long)end, (long long)r->entries);
    r->at = begin;
    r->end = end;
    return SAP_OK;
}

/* ---- As an Arrow stream ----------------------------------------------------------------------------------------------------------- */

static sap_status next_batch(void *context, sap_batch *out, sap_error *err) {
    return sap_reader_next(context, out, err);
}

static void close_batches(void *context) {
    sap_reader_close(context);
}

sap_status sap_reader_export(sap_reader *reader, struct ArrowArrayStream *out, sap_error *err) {
    int32_t count;
    const sap_field *fields = sap_reader_fields(reader, &count);
    return sap_batches_export(&(sap_batches){reader, fields, count, next_batch, close_batches}, out, err);
}
