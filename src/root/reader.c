/* The reader: which columns, which baskets of them a batch needs, and their decoding in parallel. */
#include "root_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { STANDARD_BATCH_BYTES = 32 << 20 };

/* A basket of which a later batch needs the rest. */
typedef struct held {
    bool full;
    size_t basket;
    sap_scratch memory; /* what `data` points into */
    sap_basket_data data;
} held;

typedef struct reader_column {
    sap_branch_node *branch;
    const sap_program *program;
    const char *where;
    size_t next; /* first basket that the next batch may need */
    held held[2];
    size_t counts; /* index of the hidden column that counts its items, SIZE_MAX: none */
} reader_column;

struct sap_reader {
    sap_tree *tree;
    sap_run run;
    sap_arena arena;
    reader_column *columns;
    size_t column_count; /* with the hidden ones, which stand behind */
    int32_t shown;
    sap_field *fields;
    int64_t at, end, batch_entries;
    bool whole_baskets; /* batches may end where baskets do */
    bool failed;
    sap_scratch *scratch; /* one a thread */
    int slots;
};

/* One batch in the making. */
typedef struct making {
    sap_reader *reader;
    int64_t begin, end;
    sap_batch *batch;
    sap_piece *pieces;
    size_t count, capacity;
    size_t *first;    /* (column_count + 1) first piece of each column */
    int64_t **counts; /* (column_count) of hidden columns: values from `counts_begin` on */
    int64_t *counts_begin;
    uint8_t *slab; /* memory of all columns of the fast shapes */
    size_t slab_used, slab_size;
} making;

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

static sap_status add_column(sap_reader *r, size_t *capacity, const sap_branch *b, sap_error *err) {
    sap_branch_node *branch = sap_branch_inside(b);
    for (size_t i = 0; i < r->column_count; i++)
        if (r->columns[i].branch == branch)
            return SAP_OK;
    if (!b->field)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s/%s: cannot be read as a column: %s", r->tree->where, b->name,
                             b->reason ? b->reason : "unknown");
    if (!sap_grow((void **)&r->columns, capacity, r->column_count, sizeof *r->columns))
        return sap_error_memory(err, r->tree->where);
    reader_column *column = &r->columns[r->column_count];
    *column = (reader_column){.branch = branch, .program = branch->program, .counts = SIZE_MAX};
    column->where = sap_arena_format(&r->arena, "%s/%s", r->tree->where, b->name);
    if (!column->where)
        return sap_error_memory(err, r->tree->where);
    r->column_count++;
    return SAP_OK;
}

/* Columns in the order in which they were named; those of a pattern in the tree's order. */
static sap_status choose_columns(sap_reader *r, const sap_reader_options *o, size_t *capacity, sap_error *err) {
    size_t n = sap_tree_branch_count(r->tree);
    for (size_t i = 0; i < o->count; i++) {
        const char *name = o->columns[i];
        const sap_branch *b;
        sap_error ignored;
        bool exact = name[0] != '!' && sap_tree_find(r->tree, name, &b, &ignored) == SAP_OK;
        if (exact) {
            SAP_TRY(add_column(r, capacity, b, err));
            continue;
        }
        if (name[0] == '!')
            continue;
        if (!has_pattern(name))
            return sap_tree_find(r->tree, name, &b, err);
        size_t matched = 0;
        for (size_t j = 0; j < n; j++) {
            const sap_branch *plain = &r->tree->branches[j]->public;
            if (!sap_text_matches(name, plain->name) && !sap_text_matches(name, plain->path))
                continue;
            matched++;
            b = sap_tree_branch(r->tree, j);
            if (b->field && is_chosen(b, o))
                SAP_TRY(add_column(r, capacity, b, err));
        }
        if (matched == 0)
            return sap_error_set(err, SAP_ENOTFOUND, "%s: no branch matches \"%s\"", r->tree->where, name);
    }
    bool all = true;
    for (size_t i = 0; i < o->count; i++)
        all = all && o->columns[i][0] == '!';
    for (size_t j = 0; all && j < n; j++) {
        const sap_branch *b = sap_tree_branch(r->tree, j);
        if (b->field && is_chosen(b, o))
            SAP_TRY(add_column(r, capacity, b, err));
    }
    return SAP_OK;
}

/* Baskets without offsets need the column that counts their items. */
static sap_status add_counters(sap_reader *r, size_t *capacity, sap_error *err) {
    size_t shown = r->column_count;
    for (size_t i = 0; i < shown; i++) {
        sap_branch_node *counter = r->columns[i].program->counts;
        if (!(r->columns[i].branch->io_bits & 1) || !counter || !counter->public.name) /* one outside the tree */
            continue;
        const sap_branch *b;
        SAP_TRY(sap_tree_find(r->tree, counter->public.name, &b, err));
        if (!b->field || counter->program->shape != SAP_SHAPE_FLAT || counter->program->root.count != 1)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the column %s, which counts its items, is no integer",
                                 r->columns[i].where, b->name);
        size_t j = shown;
        while (j < r->column_count && r->columns[j].branch != counter)
            j++;
        if (j == r->column_count) {
            if (!sap_grow((void **)&r->columns, capacity, r->column_count, sizeof *r->columns))
                return sap_error_memory(err, r->tree->where);
            r->columns[r->column_count++] = (reader_column){
                .branch = counter, .program = counter->program, .where = r->columns[i].where, .counts = SIZE_MAX};
        }
        r->columns[i].counts = j;
    }
    return SAP_OK;
}

/* Columns that all have the same number of entries, though not the tree's, can be read. */
static sap_status choose_range(sap_reader *r, int64_t begin, int64_t end, sap_error *err) {
    int64_t entries = r->column_count ? r->columns[0].branch->entries : r->tree->entries;
    for (size_t i = 0; i < r->column_count; i++) {
        int64_t own = r->columns[i].branch->entries;
        if (own != entries)
            return sap_error_set(err, SAP_EFORMAT, "%s: has %lld entries, %s has %lld", r->columns[i].where,
                                 (long long)own, r->columns[0].where, (long long)entries);
    }
    r->end = end ? end : entries;
    if (begin > r->end || r->end > entries)
        return sap_error_set(err, SAP_EARGUMENT, "%s: entries [%lld, %lld) of %lld", r->tree->where, (long long)begin,
                             (long long)r->end, (long long)entries);
    return SAP_OK;
}

static int64_t standard_entries(const sap_reader *r, size_t batch_bytes) {
    double bytes = 0, entries = r->tree->entries > 0 ? (double)r->tree->entries : 1;
    for (size_t i = 0; i < r->column_count; i++)
        bytes += (double)r->columns[i].branch->public.bytes / entries;
    double n = (double)(batch_bytes ? batch_bytes : STANDARD_BATCH_BYTES) / (bytes > 1 ? bytes : 1);
    return n < 1 ? 1 : n > 1e8 ? 100000000 : (int64_t)n;
}

sap_status sap_reader_open(sap_tree *tree, const sap_reader_options *options, const sap_run *run, sap_reader **out,
                           sap_error *err) {
    sap_reader_options o = options ? *options : (sap_reader_options){0};
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
    r->slots = sap_run_threads(run);
    r->scratch = calloc((size_t)r->slots, sizeof *r->scratch);
    size_t capacity = 0;
    sap_status status = r->scratch ? choose_columns(r, &o, &capacity, err) : sap_error_memory(err, tree->where);
    r->shown = (int32_t)r->column_count;
    if (status == SAP_OK)
        status = choose_range(r, o.begin, o.end, err);
    if (status == SAP_OK)
        status = add_counters(r, &capacity, err);
    r->fields = status == SAP_OK ? sap_arena_array(&r->arena, (size_t)r->shown + 1, sizeof *r->fields) : NULL;
    if (status == SAP_OK && !r->fields)
        status = sap_error_memory(err, tree->where);
    if (status != SAP_OK) {
        sap_reader_close(r);
        return status;
    }
    for (int32_t i = 0; i < r->shown; i++)
        r->fields[i] = r->columns[i].program->field;
    r->whole_baskets = o.batch_entries == 0;
    r->batch_entries = o.batch_entries ? o.batch_entries : standard_entries(r, o.batch_bytes);
    *out = r;
    return SAP_OK;
}

void sap_reader_close(sap_reader *r) {
    if (!r)
        return;
    for (size_t i = 0; i < r->column_count; i++)
        for (int j = 0; j < 2; j++)
            sap_scratch_release(&r->columns[i].held[j].memory);
    for (int i = 0; r->scratch && i < r->slots; i++)
        sap_scratch_release(&r->scratch[i]);
    free(r->scratch);
    free(r->columns);
    sap_arena_release(&r->arena);
    free(r);
}

const sap_field *sap_reader_fields(const sap_reader *r, int32_t *count) {
    *count = r->shown;
    return r->fields;
}

/* ---- Planning ------------------------------------------------------------------------------------------------------ */

static int64_t basket_end(const sap_branch_node *b, size_t i) {
    return i + 1 < b->basket_count ? b->baskets[i + 1].first_entry : b->entries;
}

/* Ends the batch where a basket of the largest column ends, when that is not far. */
static int64_t choose_end(const sap_reader *r) {
    int64_t end = r->end - r->at > r->batch_entries ? r->at + r->batch_entries : r->end;
    const sap_branch_node *largest = NULL;
    if (!r->whole_baskets || end == r->end)
        return end;
    for (size_t i = 0; i < r->column_count; i++)
        if (!largest || r->columns[i].branch->public.bytes > largest->public.bytes)
            largest = r->columns[i].branch;
    int64_t best = 0;
    for (size_t i = 0; largest && i < largest->basket_count && largest->baskets[i].first_entry <= end; i++)
        best = largest->baskets[i].first_entry;
    return best > r->at + (end - r->at) / 2 ? best : end;
}

/* The pieces of one column for entries [begin, end). row0: row of the first. */
static sap_status plan_column(making *m, size_t index, int64_t begin, int64_t end, sap_error *err) {
    sap_reader *r = m->reader;
    reader_column *c = &r->columns[index];
    const sap_branch_node *b = c->branch;
    int64_t at = begin;
    size_t i = c->next;
    while (i > 0 && (i >= b->basket_count || b->baskets[i].first_entry > begin))
        i--;
    while (i < b->basket_count && basket_end(b, i) <= begin)
        i++;
    c->next = i;
    for (; at < end && i < b->basket_count; i++) {
        int64_t first = b->baskets[i].first_entry, last = basket_end(b, i);
        if (first > at)
            break;
        if (last - first > INT32_MAX)
            return sap_error_set(err, SAP_EFORMAT, "%s: basket %zu is said to hold %lld entries", c->where, i,
                                 (long long)(last - first));
        int64_t stop = last < end ? last : end;
        if (stop <= at)
            continue;
        if (!sap_grow((void **)&m->pieces, &m->capacity, m->count, sizeof *m->pieces))
            return sap_error_memory(err, c->where);
        m->pieces[m->count++] = (sap_piece){.column = index,
                                            .basket = i,
                                            .begin = (int32_t)(at - first),
                                            .end = (int32_t)(stop - first),
                                            .row = at - begin};
        at = stop;
    }
    if (at < end)
        return sap_error_set(err, SAP_EFORMAT, "%s: no basket holds entry %lld of %lld", c->where, (long long)at,
                             (long long)b->entries);
    return SAP_OK;
}

/* ---- Baskets and their pieces ----------------------------------------------------------------------------------------- */

static held *find_held(reader_column *c, size_t basket) {
    for (int i = 0; i < 2; i++)
        if (c->held[i].full && c->held[i].basket == basket)
            return &c->held[i];
    return NULL;
}

/* Loads a basket and keeps it in the column. Each column's baskets are held by one thread at a time. */
static sap_status hold(const sap_reader *r, reader_column *c, size_t basket, held **out, sap_error *err) {
    held *h = find_held(c, basket);
    if (!h) {
        h = &c->held[!c->held[0].full || (c->held[1].full && c->held[0].basket < c->held[1].basket) ? 0 : 1];
        h->full = false;
        SAP_TRY(sap_basket_load(r->tree->file, c->branch, basket, c->where, &h->memory, &h->data, err));
        h->basket = basket;
        h->full = true;
    }
    *out = h;
    return SAP_OK;
}

static sap_status check_entries(const reader_column *c, const sap_piece *p, int32_t entries, sap_error *err) {
    if (entries >= p->end)
        return SAP_OK;
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: basket %zu holds %d entries, the tree says at least %d",
                         c->where, (unsigned long long)c->branch->baskets[p->basket].offset, p->basket, entries,
                         p->end);
}

static sap_decoding decoding_of(const making *m, const sap_piece *p, const sap_basket_data *data) {
    const reader_column *c = &m->reader->columns[p->column];
    const sap_basket *basket = &c->branch->baskets[p->basket];
    sap_decoding d = {.program = c->program,
                      .basket = data,
                      .where = c->where,
                      .place = basket->offset,
                      .first_entry = basket->first_entry};
    if (c->counts != SIZE_MAX && m->counts && m->counts[c->counts])
        d.counts = m->counts[c->counts] + (basket->first_entry - m->counts_begin[c->counts]);
    return d;
}

/* Number of items of a whole basket, from its header alone. */
static sap_status count_by_header(const making *m, sap_piece *p, bool *counted, sap_error *err) {
    const reader_column *c = &m->reader->columns[p->column];
    const sap_basket *basket = &c->branch->baskets[p->basket];
    uint8_t bytes[SAP_BASKET_HEADER_MOST];
    size_t length = basket->bytes < 256 ? basket->bytes : 256;
    sap_basket_header header;
    for (;;) {
        sap_range range = {basket->offset, length, bytes};
        SAP_TRY(sap_source_read(m->reader->tree->file->source, &range, 1, err));
        if (length >= 16 && sap_be16(bytes + 14) > length && length < sizeof bytes && length < basket->bytes) {
            length = basket->bytes < sizeof bytes ? basket->bytes : sizeof bytes;
            continue;
        }
        SAP_TRY(sap_basket_parse(bytes, length, basket, c->where, &header, err));
        break;
    }
    SAP_TRY(check_entries(c, p, header.entries, err));
    if (c->counts == SIZE_MAX && (uint32_t)header.entries > header.object_bytes) /* each has an offset or bytes */
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: basket of %d entries in %u bytes", c->where,
                             (unsigned long long)basket->offset, header.entries, header.object_bytes);
    *counted = p->begin == 0 && p->end == header.entries;
    if (!*counted)
        return SAP_OK;
    sap_basket_data whole = {.entries = header.entries, .bytes = header.data_bytes};
    sap_decoding d = decoding_of(m, p, &whole);
    int64_t left = (int64_t)header.data_bytes - (int64_t)header.entries * d.program->header;
    if (left < 0 || left % d.program->item != 0 || header.object_bytes / 65536 > header.stored_bytes)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %u bytes of data do not hold a whole number of items of %u",
                             c->where, (unsigned long long)basket->offset, header.data_bytes, d.program->item);
    p->items = left / d.program->item;
    return SAP_OK;
}

/* Entries of one size: whether the tree promises more of them than the stored bytes are likely to hold. */
static bool is_doubtful(const making *m, const sap_piece *p) {
    enum { LIKELY = 1024 };
    const reader_column *c = &m->reader->columns[p->column];
    const sap_basket *basket = &c->branch->baskets[p->basket];
    uint64_t size = m->reader->tree->file->size,
             stored = basket->embedded ? basket->embedded->data_bytes : basket->bytes;
    return (c->program->shape == SAP_SHAPE_FLAT || c->program->shape == SAP_SHAPE_LEAVES) &&
           ((uint64_t)p->end * c->program->item / LIKELY > stored || stored > size);
}

/* Loads what only partly belongs to this batch, so that the next batch finds it. § Entries: how many items each jagged piece
 * gives must be known before memory for the batch is taken. One thread a column. */
static sap_status count_step(void *context, size_t index, int slot, sap_error *err) {
    making *m = context;
    const sap_reader *r = m->reader;
    for (size_t i = m->first[index]; i < m->first[index + 1]; i++) {
        sap_piece *p = &m->pieces[i];
        reader_column *c = &m->reader->columns[p->column];
        const sap_basket *basket = &c->branch->baskets[p->basket];
        int64_t span = basket_end(c->branch, p->basket) - basket->first_entry;
        bool partial = p->begin > 0 || p->end < span, jagged = c->program->shape == SAP_SHAPE_JAGGED, counted = false;
        if (!partial && jagged && !basket->embedded)
            SAP_TRY(count_by_header(m, p, &counted, err));
        bool doubtful = is_doubtful(m, p);
        if (counted || (!partial && !jagged && !doubtful))
            continue;
        sap_basket_data data;
        if (basket->embedded) {
            SAP_TRY(sap_basket_load(r->tree->file, c->branch, p->basket, c->where, &r->scratch[slot], &data, err));
        } else {
            held *h;
            SAP_TRY(hold(r, c, p->basket, &h, err));
            data = h->data;
        }
        SAP_TRY(check_entries(c, p, data.entries, err));
        if (doubtful && (uint64_t)p->end * c->program->item > data.bytes)
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %d entries of %u bytes in a basket of %zu", c->where,
                                 (unsigned long long)basket->offset, p->end, c->program->item, data.bytes);
        sap_decoding d = decoding_of(m, p, &data);
        if (jagged)
            SAP_TRY(sap_piece_count(&d, p, err));
    }
    return SAP_OK;
}

static sap_status decode_step(void *context, size_t index, int slot, sap_error *err) {
    making *m = context;
    sap_reader *r = m->reader;
    sap_piece *p = &m->pieces[index];
    reader_column *c = &r->columns[p->column];
    sap_basket_data data;
    const held *h = find_held(c, p->basket);
    if (h)
        data = h->data;
    else
        SAP_TRY(sap_basket_load(r->tree->file, c->branch, p->basket, c->where, &r->scratch[slot], &data, err));
    SAP_TRY(check_entries(c, p, data.entries, err));
    sap_decoding d = decoding_of(m, p, &data);
    return sap_piece_decode(&d, p, &m->batch->columns[p->column], &r->scratch[slot], err);
}

/* ---- Memory of a batch ------------------------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes) {
    enum { ALIGNMENT = 64 };
    return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

/* One block for all columns, in huge pages where the system has them: page by page, the first touch of so much memory costs
 * as much as decompressing into it. */
static sap_status take_slab(making *m, sap_error *err) {
    enum { HUGE_PAGE = 2 << 20 };
    bool large = m->slab_size >= HUGE_PAGE;
    size_t size = large ? (m->slab_size + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1) : rounded(m->slab_size + 1);
    m->slab = aligned_alloc(large ? HUGE_PAGE : 64, size);
    if (large && m->slab)
        (void)madvise(m->slab, size, MADV_HUGEPAGE);
    if (!m->slab || !sap_storage_adopt(m->batch->storage, m->slab)) {
        free(m->slab);
        return sap_error_memory(err, m->reader->tree->where);
    }
    return SAP_OK;
}

/* Before the slab is there its size is counted, and NULL returned. */
static void *take(making *m, size_t bytes) {
    uint8_t *p = m->slab ? m->slab + m->slab_used : NULL;
    if (m->slab)
        m->slab_used += rounded(bytes);
    else
        m->slab_size += rounded(bytes);
    return p;
}

static void take_numbers(making *m, const sap_step_node *step, int64_t items, sap_column *column) {
    for (int i = 0; i < step->dim_count; i++) {
        column->length = items;
        items *= step->dims[i];
        column = &column->children[0];
    }
    column->length = items;
    column->values = take(m, (size_t)items * step->number.size);
}

static sap_status take_jagged(making *m, size_t index, const sap_program *program, sap_column *column, sap_error *err) {
    int64_t items = 0;
    for (size_t i = m->first[index]; i < m->first[index + 1]; i++) {
        m->pieces[i].item_at = items;
        items += m->pieces[i].items;
        if (items > INT32_MAX)
            return sap_error_set(err, SAP_EMEMORY, "%s: more than 2^31 items in one batch; ask for smaller batches",
                                 m->reader->columns[index].where);
    }
    int32_t *offsets = take(m, ((size_t)column->length + 1) * sizeof *offsets);
    if (offsets)
        offsets[0] = 0;
    column->offsets = offsets;
    take_numbers(m, &program->root.children[0], items, &column->children[0]);
    return SAP_OK;
}

static sap_status take_memory(making *m, size_t index, sap_error *err) {
    const sap_program *program = m->reader->columns[index].program;
    sap_column *column = &m->batch->columns[index];
    column->length = m->end - m->begin;
    if (program->shape == SAP_SHAPE_FLAT)
        take_numbers(m, &program->root, column->length, column);
    else if (program->shape == SAP_SHAPE_JAGGED)
        return take_jagged(m, index, program, column, err);
    for (int i = 0; program->shape == SAP_SHAPE_LEAVES && i < program->root.child_count; i++)
        take_numbers(m, &program->root.children[i], column->length, &column->children[i]);
    return SAP_OK;
}

static sap_status join_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    making *m = context;
    const sap_reader *r = m->reader;
    if (r->columns[index].program->shape != SAP_SHAPE_TREE)
        return SAP_OK;
    size_t count = m->first[index + 1] - m->first[index];
    sap_builder **pieces = calloc(count ? count : 1, sizeof *pieces);
    if (!pieces)
        return sap_error_memory(err, r->columns[index].where);
    for (size_t i = 0; i < count; i++)
        pieces[i] = m->pieces[m->first[index] + i].builders;
    sap_status status =
        sap_builders_join(r->columns[index].program, pieces, count, m->batch->storage, &m->batch->columns[index], err);
    free(pieces);
    return status;
}

/* ---- Hidden counters ------------------------------------------------------------------------------------------------------ */

static int64_t count_value(sap_type type, const uint8_t *p) {
    switch (type) {
    case SAP_INT8:
        return (int8_t)*p;
    case SAP_UINT8:
    case SAP_BOOL:
        return *p;
    case SAP_INT16:
        return (int16_t)(p[0] << 8 | p[1]);
    case SAP_UINT16:
        return sap_be16(p);
    case SAP_INT32:
        return (int32_t)sap_be32(p);
    case SAP_UINT32:
        return sap_be32(p);
    default:
        return (int64_t)sap_be64(p);
    }
}

/* Reads the counts of hidden column `index` for all entries of the baskets that need them. */
static sap_status read_counts(making *m, size_t index, sap_error *err) {
    sap_reader *r = m->reader;
    reader_column *c = &r->columns[index];
    int64_t begin = INT64_MAX, end = 0;
    for (size_t i = 0; i < m->count; i++) {
        const sap_piece *p = &m->pieces[i];
        const sap_branch_node *b = r->columns[p->column].branch;
        if (r->columns[p->column].counts != index)
            continue;
        int64_t first = b->baskets[p->basket].first_entry, last = basket_end(b, p->basket);
        begin = first < begin ? first : begin;
        end = last > end ? last : end;
    }
    if (begin >= end)
        return SAP_OK;
    int64_t *values = malloc((size_t)(end - begin) * sizeof *values);
    if (!values)
        return sap_error_memory(err, c->where);
    m->counts[index] = values;
    m->counts_begin[index] = begin;
    size_t from = m->count;
    SAP_TRY(plan_column(m, index, begin, end, err));
    sap_status status = SAP_OK;
    for (size_t i = from; i < m->count && status == SAP_OK; i++) {
        const sap_piece *p = &m->pieces[i];
        sap_basket_data data;
        status = sap_basket_load(r->tree->file, c->branch, p->basket, c->where, &r->scratch[0], &data, err);
        if (status == SAP_OK)
            status = check_entries(c, p, data.entries, err);
        size_t size = c->program->root.number.stored;
        if (status == SAP_OK && (size_t)p->end * size > data.bytes)
            status = sap_error_set(err, SAP_EFORMAT, "%s: basket %zu of its counter is too short", c->where, p->basket);
        for (int32_t j = p->begin; status == SAP_OK && j < p->end; j++) {
            int64_t n = count_value(c->program->root.number.type, data.data + (size_t)j * size);
            values[p->row + j - p->begin] = n;
            if (n < 0 || n > INT32_MAX)
                status = sap_error_set(err, SAP_EFORMAT, "%s: its counter says %lld items in entry %lld", c->where,
                                       (long long)n, (long long)(begin + p->row + j - p->begin));
        }
    }
    m->count = from;
    return status;
}

/* ---- Batches ----------------------------------------------------------------------------------------------------------------- */

static sap_status make_batch(making *m, sap_error *err) {
    sap_reader *r = m->reader;
    const sap_run *run = &r->run;
    for (size_t i = 0; i < (size_t)r->shown; i++) {
        m->first[i] = m->count;
        SAP_TRY(plan_column(m, i, m->begin, m->end, err));
    }
    m->first[r->shown] = m->count;
    for (size_t i = (size_t)r->shown; i < r->column_count; i++)
        SAP_TRY(read_counts(m, i, err));
    SAP_TRY(sap_loop(run, (size_t)r->shown, count_step, m, err));
    for (size_t i = 0; i < (size_t)r->shown; i++) {
        SAP_TRY(sap_column_init(m->batch->storage, &r->fields[i], &m->batch->columns[i], err));
        SAP_TRY(take_memory(m, i, err)); /* how much */
    }
    SAP_TRY(take_slab(m, err));
    for (size_t i = 0; i < (size_t)r->shown; i++)
        SAP_TRY(take_memory(m, i, err));
    SAP_TRY(sap_loop(run, m->count, decode_step, m, err));
    return sap_loop(run, (size_t)r->shown, join_step, m, err);
}

sap_status sap_reader_next(sap_reader *r, sap_batch *out, sap_error *err) {
    if (r->failed)
        return sap_error_set(err, SAP_EARGUMENT, "%s: reading goes on after an error", r->tree->where);
    if (out->storage)
        return sap_error_set(err, SAP_EARGUMENT, "%s: the batch to be filled is not empty", r->tree->where);
    making m = {.reader = r, .begin = r->at, .end = choose_end(r), .batch = out};
    if (m.end == m.begin) {
        *out = (sap_batch){0};
        return SAP_OK;
    }
    SAP_TRY(sap_run_check(&r->run, err));
    SAP_TRY(sap_batch_init(out, r->shown, err));
    out->length = m.end - m.begin;
    out->first_entry = m.begin;
    m.first = calloc(r->column_count + 1, sizeof *m.first);
    m.counts = calloc(r->column_count + 1, sizeof *m.counts);
    m.counts_begin = calloc(r->column_count + 1, sizeof *m.counts_begin);
    sap_status status =
        m.first && m.counts && m.counts_begin ? make_batch(&m, err) : sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < m.count; i++)
        sap_builders_release(m.pieces[i].builders, r->columns[m.pieces[i].column].program->slots);
    for (size_t i = 0; m.counts && i < r->column_count; i++)
        free(m.counts[i]);
    free(m.counts);
    free(m.counts_begin);
    free(m.first);
    free(m.pieces);
    if (status != SAP_OK) {
        sap_batch_release(out);
        r->failed = true;
        return status;
    }
    r->at = m.end;
    return SAP_OK;
}

/* ---- As an Arrow stream ----------------------------------------------------------------------------------------------------------- */

typedef struct stream_state {
    sap_reader *reader;
    sap_error error;
} stream_state;

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    stream_state *state = stream->private_data;
    return sap_schema_export(state->reader->fields, state->reader->shown, out, &state->error) == SAP_OK ? 0 : 5;
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    enum { NOT_READABLE = 5 }; /* EIO */
    stream_state *state = stream->private_data;
    sap_batch batch = {0};
    memset(out, 0, sizeof *out);
    if (sap_reader_next(state->reader, &batch, &state->error) != SAP_OK)
        return NOT_READABLE;
    if (batch.length == 0)
        return 0;
    sap_status status = sap_batch_export(&batch, out, &state->error);
    sap_batch_release(&batch);
    return status == SAP_OK ? 0 : NOT_READABLE;
}

static const char *stream_error(struct ArrowArrayStream *stream) {
    const stream_state *state = stream->private_data;
    return state->error.message[0] ? state->error.message : NULL;
}

static void stream_release(struct ArrowArrayStream *stream) {
    stream_state *state = stream->private_data;
    sap_reader_close(state->reader);
    free(state);
    stream->release = NULL;
}

sap_status sap_reader_export(sap_reader *reader, struct ArrowArrayStream *out, sap_error *err) {
    stream_state *state = calloc(1, sizeof *state);
    if (!state)
        return sap_error_memory(err, reader->tree->where);
    state->reader = reader;
    *out = (struct ArrowArrayStream){stream_schema, stream_next, stream_error, stream_release, state};
    return SAP_OK;
}
