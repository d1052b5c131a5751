/* Scans of a TTree: which baskets a batch needs, fetching them ahead, and decoding them in parallel. */
#include "root_internal.h"

#include <stdlib.h>

/* A basket of which a later batch needs the rest. */
typedef struct held {
    bool full;
    size_t basket;
    sap_space stored, object; /* what `data` points into */
    sap_basket_data data;
} held;

typedef struct scan_column {
    sap_branch_node *branch;
    const sap_program *program;
    const char *where;
    size_t next; /* first basket that the next batch may need */
    held held[2];
    size_t counts; /* index of the hidden column that counts its items, SIZE_MAX: none */
} scan_column;

/* Baskets of one batch on their way from a remote file. */
typedef struct ahead {
    int64_t begin, end; /* entries; begin == end: unused */
    sap_fetch *fetch;
    const sap_basket **baskets; /* (count) rising by place in the file */
    size_t count;
} ahead;

enum { MOST_AHEAD = 2 };

typedef struct scan {
    sap_tree *tree;
    sap_run run;
    sap_arena arena;
    scan_column *columns;
    size_t column_count; /* with the hidden ones, which stand behind */
    size_t shown;
    size_t *order; /* (shown) columns, the largest first: what takes long should not begin last */
    const sap_branch_node *largest;
    ahead ahead[MOST_AHEAD];
    sap_scratch *scratch; /* one a thread */
    int slots;
} scan;

/* One batch in the making. */
typedef struct making {
    scan *scan;
    const ahead *ahead; /* its baskets, when they were fetched; else NULL */
    int64_t begin, end;
    struct sap_storage *storage;
    sap_column *out; /* (shown) */
    sap_piece *pieces;
    size_t count, capacity;
    size_t *first;    /* (column_count + 1) first piece of each column */
    size_t *order;    /* (count) pieces, the longest first; NULL: as they are */
    int64_t **counts; /* (column_count) of hidden columns: values from `counts_begin` on */
    int64_t *counts_begin;
    sap_slab slab;   /* memory of all columns of the fast shapes */
    bool distrusted; /* what baskets' headers promise is not believed: they are loaded to see */
} making;

/* ---- Opening ---------------------------------------------------------------------------------------------------------- */

static sap_status add_column(scan *r, sap_branch_node *branch, sap_error *err) {
    scan_column *column = &r->columns[r->column_count];
    *column = (scan_column){.branch = branch, .program = branch->program, .counts = SIZE_MAX};
    column->where = sap_arena_format(&r->arena, "%s/%s", r->tree->where, branch->public.name);
    if (!column->where)
        return sap_error_memory(err, r->tree->where);
    r->column_count++;
    return SAP_OK;
}

/* Baskets without offsets need the column that counts their items. */
static sap_status add_counters(scan *r, sap_error *err) {
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
            r->columns[r->column_count++] = (scan_column){
                .branch = counter, .program = counter->program, .where = r->columns[i].where, .counts = SIZE_MAX};
        }
        r->columns[i].counts = j;
    }
    return SAP_OK;
}

static int by_size(const void *a, const void *b, void *context) {
    const scan *r = context;
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    uint64_t x = r->columns[i].branch->public.bytes, y = r->columns[j].branch->public.bytes;
    return x != y ? (x < y) - (x > y) : (i > j) - (i < j);
}

static void sort_columns(scan *r) {
    for (size_t i = 0; i < r->shown; i++)
        r->order[i] = i;
    qsort_r(r->order, r->shown, sizeof *r->order, by_size, r);
}

sap_status sap_ttree_scan_open(sap_tree *tree, const size_t *branches, size_t count, const sap_run *run, void **out,
                               sap_error *err) {
    scan *r = calloc(1, sizeof *r);
    if (!r)
        return sap_error_memory(err, tree->where);
    r->tree = tree;
    r->run = run ? *run : (sap_run){0};
    r->slots = sap_run_threads(run);
    r->scratch = calloc((size_t)r->slots, sizeof *r->scratch);
    r->columns = calloc(2 * count + 1, sizeof *r->columns); /* each may have a counter */
    r->order = calloc(count + 1, sizeof *r->order);
    sap_status status = r->scratch && r->columns && r->order ? SAP_OK : sap_error_memory(err, tree->where);
    for (size_t i = 0; i < count && status == SAP_OK; i++)
        status = add_column(r, sap_branch_inside(tree->branches[branches[i]]), err);
    r->shown = r->column_count;
    if (status == SAP_OK)
        status = add_counters(r, err);
    if (status != SAP_OK) {
        sap_ttree_scan_close(r);
        return status;
    }
    sort_columns(r);
    r->largest = count ? r->columns[r->order[0]].branch : NULL;
    *out = r;
    return SAP_OK;
}

static void drop(held *h) {
    sap_space_release(&h->stored);
    sap_space_release(&h->object);
    h->full = false;
}

static void forget(ahead *a) {
    sap_fetch_close(a->fetch);
    free(a->baskets);
    *a = (ahead){0};
}

void sap_ttree_scan_close(void *context) {
    scan *r = context;
    for (int i = 0; i < MOST_AHEAD; i++)
        forget(&r->ahead[i]);
    for (size_t i = 0; i < r->column_count; i++)
        for (int j = 0; j < 2; j++)
            drop(&r->columns[i].held[j]);
    for (int i = 0; r->scratch && i < r->slots; i++)
        sap_scratch_release(&r->scratch[i]);
    free(r->scratch);
    free(r->columns);
    free(r->order);
    sap_arena_release(&r->arena);
    free(r);
}

/* ---- Planning ------------------------------------------------------------------------------------------------------ */

static int64_t basket_end(const sap_branch_node *b, size_t i) {
    return i + 1 < b->basket_count ? b->baskets[i + 1].first_entry : b->entries;
}

/* Where a basket of the largest column ends, when that is not far. */
int64_t sap_ttree_scan_boundary(void *context, int64_t begin, int64_t end) {
    const scan *r = context;
    if (!r->largest || r->largest->basket_count == 0)
        return end;
    int64_t best = r->largest->baskets[sap_basket_of(r->largest, end)].first_entry;
    return best <= end && best > begin + (end - begin) / 2 ? best : end;
}

/* The pieces of one column for entries [begin, end). row0: row of the first. */
static sap_status plan_column(making *m, size_t index, int64_t begin, int64_t end, sap_error *err) {
    scan *r = m->scan;
    scan_column *c = &r->columns[index];
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

/* The entries for which counts of hidden column `index` are needed: those of the baskets that have no offsets. */
static void counted_range(const making *m, size_t index, int64_t *begin, int64_t *end) {
    const scan *r = m->scan;
    *begin = INT64_MAX;
    *end = 0;
    for (size_t i = 0; i < m->count; i++) {
        const sap_piece *p = &m->pieces[i];
        const sap_branch_node *b = r->columns[p->column].branch;
        if (r->columns[p->column].counts != index)
            continue;
        int64_t first = b->baskets[p->basket].first_entry, last = basket_end(b, p->basket);
        *begin = first < *begin ? first : *begin;
        *end = last > *end ? last : *end;
    }
}

/* ---- Fetching ahead -------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    uint64_t x = (*(const sap_basket *const *)a)->offset, y = (*(const sap_basket *const *)b)->offset;
    return (x > y) - (x < y);
}

static const uint8_t *fetched(const ahead *a, const sap_basket *basket) {
    size_t low = 0, high = a ? a->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (a->baskets[middle]->offset == basket->offset)
            return a->baskets[middle]->bytes >= basket->bytes ? sap_fetch_data(a->fetch, middle) : NULL;
        if (a->baskets[middle]->offset < basket->offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Whether the batch before, which is fetched or decoded already, leaves the basket to this one. */
static bool is_handed_on(const scan *r, const scan_column *c, size_t basket, int64_t begin) {
    const sap_basket *b = &c->branch->baskets[basket];
    for (int i = 0; i < 2; i++)
        if (c->held[i].full && c->held[i].basket == basket)
            return true;
    if (b->first_entry >= begin)
        return false;
    for (int i = 0; i < MOST_AHEAD; i++)
        if (r->ahead[i].fetch && r->ahead[i].end == begin)
            return true;
    return false;
}

/* The distinct baskets of all pieces that have to come from the file, by their place in it. */
static sap_status list_ahead(const making *m, ahead *a, sap_error *err) {
    const scan *r = m->scan;
    a->baskets = calloc(m->count + 1, sizeof(sap_basket *));
    if (!a->baskets)
        return sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < m->count; i++) {
        const scan_column *c = &r->columns[m->pieces[i].column];
        const sap_basket *basket = &c->branch->baskets[m->pieces[i].basket];
        uint64_t size = r->tree->file->size;
        bool inside = basket->offset <= size && basket->bytes <= size - basket->offset;
        if (!basket->embedded && inside && !is_handed_on(r, c, m->pieces[i].basket, m->begin))
            a->baskets[a->count++] = basket;
    }
    qsort(a->baskets, a->count, sizeof(sap_basket *), by_place);
    size_t kept = 0;
    for (size_t i = 0; i < a->count; i++)
        if (kept == 0 || a->baskets[kept - 1]->offset != a->baskets[i]->offset)
            a->baskets[kept++] = a->baskets[i];
    a->count = kept;
    return SAP_OK;
}

static sap_status start_fetch(const making *m, ahead *a, sap_error *err) {
    const scan *r = m->scan;
    SAP_TRY(list_ahead(m, a, err));
    sap_range *ranges = calloc(a->count + 1, sizeof *ranges);
    if (!ranges)
        return sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < a->count; i++)
        ranges[i] = (sap_range){.offset = a->baskets[i]->offset, .length = a->baskets[i]->bytes};
    sap_status status = a->count ? sap_fetch_start(r->tree->file->source, ranges, a->count, &a->fetch, err) : SAP_OK;
    free(ranges);
    return status;
}

sap_status sap_ttree_scan_prefetch(void *context, int64_t begin, int64_t end, sap_error *err) {
    scan *r = context;
    ahead *a = NULL;
    for (int i = 0; i < MOST_AHEAD; i++) {
        if (r->ahead[i].begin == begin && r->ahead[i].end == end)
            return SAP_OK;
        if (r->ahead[i].begin == r->ahead[i].end)
            a = &r->ahead[i];
    }
    if (!a)
        return SAP_OK;
    making m = {.scan = r, .begin = begin, .end = end};
    sap_status status = SAP_OK;
    for (size_t i = 0; i < r->column_count && status == SAP_OK; i++) {
        size_t kept = r->columns[i].next;
        int64_t from = begin, to = end;
        if (i >= r->shown)
            counted_range(&m, i, &from, &to);
        if (from < to)
            status = plan_column(&m, i, from, to, err);
        r->columns[i].next = kept;
    }
    if (status == SAP_OK)
        status = start_fetch(&m, a, err);
    free(m.pieces);
    if (status == SAP_OK) {
        a->begin = begin;
        a->end = end;
    } else {
        forget(a);
    }
    return status;
}

/* ---- Baskets and their pieces ----------------------------------------------------------------------------------------- */

static held *find_held(scan_column *c, size_t basket) {
    for (int i = 0; i < 2; i++)
        if (c->held[i].full && c->held[i].basket == basket)
            return &c->held[i];
    return NULL;
}

static void exchange(sap_space *a, sap_space *b) {
    sap_space kept = *a;
    *a = *b;
    *b = kept;
}

/* Loads a basket and keeps it, with the scratch memory that it lies in, in the column. Each column's baskets are held by one
 * thread at a time. */
static sap_status hold(const making *m, scan_column *c, size_t basket, int slot, held **out, sap_error *err) {
    const scan *r = m->scan;
    const uint8_t *stored = fetched(m->ahead, &c->branch->baskets[basket]);
    sap_scratch *scratch = &r->scratch[slot];
    held *h = find_held(c, basket);
    if (!h) {
        h = &c->held[c->held[0].full ? 1 : 0];
        h->full = false;
        SAP_TRY(sap_basket_load(r->tree->file, c->branch, basket, c->where, stored, true, scratch, &h->data, err));
        exchange(&h->stored, &scratch->stored);
        exchange(&h->object, &scratch->object);
        h->basket = basket;
        h->full = true;
    }
    *out = h;
    return SAP_OK;
}

/* Baskets that end with the batch are not needed again. */
static void drop_finished(scan *r, int64_t end) {
    for (size_t i = 0; i < r->column_count; i++)
        for (int j = 0; j < 2; j++) {
            held *h = &r->columns[i].held[j];
            if (h->full && basket_end(r->columns[i].branch, h->basket) <= end)
                drop(h);
        }
}

static sap_status check_entries(const scan_column *c, const sap_piece *p, int32_t entries, sap_error *err) {
    if (entries >= p->end)
        return SAP_OK;
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: basket %zu holds %d entries, the tree says at least %d",
                         c->where, (unsigned long long)c->branch->baskets[p->basket].offset, p->basket, entries,
                         p->end);
}

static sap_decoding decoding_of(const making *m, const sap_piece *p, const sap_basket_data *data) {
    const scan_column *c = &m->scan->columns[p->column];
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

/* Reads as much of the basket as its header takes, most often 256 bytes. */
static sap_status read_header(sap_source *source, const sap_basket *basket, uint8_t memory[SAP_BASKET_HEADER_MOST],
                              size_t *length, sap_error *err) {
    enum { LIKELY = 256 };
    size_t most = basket->bytes < SAP_BASKET_HEADER_MOST ? basket->bytes : SAP_BASKET_HEADER_MOST;
    *length = most < LIKELY ? most : LIKELY;
    SAP_TRY(sap_source_read(source, &(sap_range){basket->offset, *length, memory}, 1, NULL, err));
    if (*length < 16 || sap_be16(memory + 14) <= *length || *length == most)
        return SAP_OK;
    *length = most;
    return sap_source_read(source, &(sap_range){basket->offset, most, memory}, 1, NULL, err);
}

/* Number of items of a whole basket, from its header alone. */
static sap_status count_by_header(const making *m, sap_piece *p, bool *counted, sap_error *err) {
    const scan_column *c = &m->scan->columns[p->column];
    const sap_basket *basket = &c->branch->baskets[p->basket];
    uint8_t memory[SAP_BASKET_HEADER_MOST];
    sap_basket_header header;
    const uint8_t *bytes = fetched(m->ahead, basket);
    if (!bytes)
        bytes = sap_source_map(m->scan->tree->file->source, basket->offset, basket->bytes);
    size_t length = bytes ? basket->bytes : 0;
    if (!bytes)
        SAP_TRY(read_header(m->scan->tree->file->source, basket, memory, &length, err));
    SAP_TRY(sap_basket_parse(bytes ? bytes : memory, length, basket, c->where, &header, err));
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
    const scan_column *c = &m->scan->columns[p->column];
    const sap_basket *basket = &c->branch->baskets[p->basket];
    uint64_t size = m->scan->tree->file->size, stored = basket->embedded ? basket->embedded->data_bytes : basket->bytes;
    return (c->program->shape == SAP_SHAPE_FLAT || c->program->shape == SAP_SHAPE_LEAVES) &&
           ((uint64_t)p->end * c->program->item / LIKELY > stored || stored > size);
}

/* Loads what only partly belongs to this batch, so that the next batch finds it. § Entries: how many items each jagged piece
 * gives must be known before memory for the batch is taken. One thread a column. */
static sap_status count_step(void *context, size_t index, int slot, sap_error *err) {
    making *m = context;
    const scan *r = m->scan;
    size_t column = r->order[index];
    for (size_t i = m->first[column]; i < m->first[column + 1]; i++) {
        sap_piece *p = &m->pieces[i];
        scan_column *c = &m->scan->columns[p->column];
        const sap_basket *basket = &c->branch->baskets[p->basket];
        int64_t span = basket_end(c->branch, p->basket) - basket->first_entry;
        bool partial = p->begin > 0 || p->end < span, jagged = c->program->shape == SAP_SHAPE_JAGGED, counted = false;
        if (!partial && jagged && !basket->embedded && !m->distrusted)
            SAP_TRY(count_by_header(m, p, &counted, err));
        bool doubtful = m->distrusted || is_doubtful(m, p);
        if (counted || (!partial && !jagged && !doubtful))
            continue;
        sap_basket_data data;
        if (basket->embedded) {
            SAP_TRY(sap_basket_load(r->tree->file, c->branch, p->basket, c->where,
                                    fetched(m->ahead, &c->branch->baskets[p->basket]), false, &r->scratch[slot], &data,
                                    err));
        } else {
            held *h;
            SAP_TRY(hold(m, c, p->basket, slot, &h, err));
            data = h->data;
        }
        SAP_TRY(check_entries(c, p, data.entries, err));
        if (doubtful && !jagged && (uint64_t)p->end * c->program->item > data.bytes)
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %d entries of %u bytes in a basket of %zu", c->where,
                                 (unsigned long long)basket->offset, p->end, c->program->item, data.bytes);
        sap_decoding d = decoding_of(m, p, &data);
        if (jagged)
            SAP_TRY(sap_piece_count(&d, p, err));
    }
    return SAP_OK;
}

/* The column that a piece needs beside it: the counts of its arrays; and where a split collection's items have no bytes at
 * all, as some writers left them, the numbers of items that should have some. */
static const sap_branch_node *column_beside(const sap_program *program, const sap_basket_data *data) {
    if (program->outside)
        return program->outside;
    bool bare = program->shape == SAP_SHAPE_TREE && program->root.op == SAP_OP_REST && data->bytes == 0;
    return bare && program->counts && program->counts->public.path ? program->counts : NULL;
}

static sap_status decode_beside(const making *m, const sap_branch_node *beside, sap_decoding *d, sap_piece *p,
                                sap_scratch *scratch, sap_error *err) {
    sap_tree *tree = m->scan->tree;
    const char *name = beside->public.name;
    sap_reader_options options = {.columns = &name, .count = 1};
    options.begin = d->first_entry + p->begin;
    options.end = d->first_entry + p->end;
    options.batch_entries = options.end - options.begin;
    sap_reader *reader;
    sap_batch counts = {0};
    SAP_TRY(sap_reader_open(tree, &options, NULL, &reader, err));
    sap_status status = sap_reader_next(reader, &counts, err);
    if (status == SAP_OK) {
        const sap_column *numbers = &counts.columns[0];
        sap_type type = numbers->type == SAP_LIST ? numbers->children[0].type : numbers->type;
        if (counts.length != options.batch_entries || type < SAP_INT8 || type > SAP_UINT64)
            status = sap_error_set(err, SAP_EFORMAT, "%s: the column %s, which counts its items, is no integer",
                                   d->where, name);
        d->outside = numbers;
    }
    if (status == SAP_OK)
        status = sap_piece_decode(d, p, &m->out[p->column], scratch, err);
    sap_batch_release(&counts);
    sap_reader_close(reader);
    return status;
}

static sap_status decode_step(void *context, size_t index, int slot, sap_error *err) {
    making *m = context;
    scan *r = m->scan;
    sap_piece *p = &m->pieces[m->order ? m->order[index] : index];
    scan_column *c = &r->columns[p->column];
    sap_basket_data data;
    const held *h = find_held(c, p->basket);
    if (h)
        data = h->data;
    else
        SAP_TRY(sap_basket_load(r->tree->file, c->branch, p->basket, c->where,
                                fetched(m->ahead, &c->branch->baskets[p->basket]), false, &r->scratch[slot], &data,
                                err));
    SAP_TRY(check_entries(c, p, data.entries, err));
    sap_decoding d = decoding_of(m, p, &data);
    const sap_branch_node *beside = column_beside(c->program, &data);
    return beside ? decode_beside(m, beside, &d, p, &r->scratch[slot], err)
                  : sap_piece_decode(&d, p, &m->out[p->column], &r->scratch[slot], err);
}

/* ---- Memory of a batch ------------------------------------------------------------------------------------------------- */

static void take_numbers(making *m, const sap_step_node *step, int64_t items, sap_column *column) {
    for (int i = 0; i < step->dim_count; i++) {
        column->length = items;
        items *= step->dims[i];
        column = &column->children[0];
    }
    column->length = items;
    column->values = sap_slab_take(&m->slab, (size_t)items * step->number.size);
}

static sap_status take_jagged(making *m, size_t index, const sap_program *program, sap_column *column, sap_error *err) {
    int64_t items = 0;
    for (size_t i = m->first[index]; i < m->first[index + 1]; i++) {
        m->pieces[i].item_at = items;
        items += m->pieces[i].items;
        if (items > INT32_MAX)
            return sap_error_set(err, SAP_EMEMORY, "%s: more than 2^31 items in one batch; ask for smaller batches",
                                 m->scan->columns[index].where);
    }
    int32_t *offsets = sap_slab_take(&m->slab, ((size_t)column->length + 1) * sizeof *offsets);
    if (offsets)
        offsets[0] = 0;
    column->offsets = offsets;
    take_numbers(m, &program->root.children[0], items, &column->children[0]);
    return SAP_OK;
}

static sap_status take_memory(making *m, size_t index, sap_error *err) {
    const sap_program *program = m->scan->columns[index].program;
    sap_column *column = &m->out[index];
    column->length = m->end - m->begin;
    if (program->shape == SAP_SHAPE_FLAT)
        take_numbers(m, &program->root, column->length, column);
    else if (program->shape == SAP_SHAPE_JAGGED)
        return take_jagged(m, index, program, column, err);
    for (int i = 0; program->shape == SAP_SHAPE_LEAVES && i < program->root.child_count; i++)
        take_numbers(m, &program->root.children[i], column->length, &column->children[i]);
    return SAP_OK;
}

/* Memory of more than 32 MB is taken only for what is really there: when it is much beside the stored bytes, all baskets are
 * loaded beforehand. More than deflate can make of so few bytes is no table but a decompression bomb. */
static sap_status check_memory(making *m, sap_error *err) {
    enum { BELIEVED = 32 << 20, LIKELY_TIMES = 64, MOST_TIMES = 1040 };
    const scan *r = m->scan;
    uint64_t stored = 0, size = r->tree->file->size;
    for (size_t i = 0; i < m->count; i++) {
        const sap_basket *basket = &r->columns[m->pieces[i].column].branch->baskets[m->pieces[i].basket];
        stored += basket->embedded ? basket->embedded->data_bytes : basket->bytes;
    }
    if (stored > size) /* the same bytes again and again */
        stored = size;
    if (m->slab.size <= BELIEVED || m->slab.size / LIKELY_TIMES <= stored)
        return SAP_OK;
    if (m->slab.size / MOST_TIMES > stored)
        return sap_error_set(
            err, SAP_EFORMAT,
            "%s: %llu stored bytes promise %zu for entries %lld to %lld: more than %d times as many; if "
            "that is so, ask for smaller batches",
            r->tree->where, (unsigned long long)stored, m->slab.size, (long long)m->begin, (long long)m->end,
            MOST_TIMES);
    m->distrusted = true;
    SAP_TRY(sap_loop(&r->run, r->shown, count_step, m, err));
    m->slab.size = 0;
    for (size_t i = 0; i < r->shown; i++)
        SAP_TRY(take_memory(m, i, err));
    return SAP_OK;
}

static sap_status join_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    making *m = context;
    const scan *r = m->scan;
    if (r->columns[index].program->shape != SAP_SHAPE_TREE)
        return SAP_OK;
    size_t count = m->first[index + 1] - m->first[index];
    sap_builder **pieces = calloc(count ? count : 1, sizeof *pieces);
    if (!pieces)
        return sap_error_memory(err, r->columns[index].where);
    for (size_t i = 0; i < count; i++)
        pieces[i] = m->pieces[m->first[index] + i].builders;
    sap_status status = sap_builders_join(r->columns[index].program, pieces, count, m->storage, &m->out[index], err);
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
    scan *r = m->scan;
    scan_column *c = &r->columns[index];
    int64_t begin, end;
    counted_range(m, index, &begin, &end);
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
        status = sap_basket_load(r->tree->file, c->branch, p->basket, c->where,
                                 fetched(m->ahead, &c->branch->baskets[p->basket]), false, &r->scratch[0], &data, err);
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

/* What is held is decompressed already. */
static uint32_t work_of(const making *m, size_t piece) {
    const sap_piece *p = &m->pieces[piece];
    scan_column *c = &m->scan->columns[p->column];
    return find_held(c, p->basket) ? 0 : c->branch->baskets[p->basket].bytes;
}

static int by_work(const void *a, const void *b, void *context) {
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    uint32_t x = work_of(context, i), y = work_of(context, j);
    return x != y ? (x < y) - (x > y) : (i > j) - (i < j);
}

/* Several threads come to an end at about the same time when the long pieces come first. */
static sap_status sort_pieces(making *m, sap_error *err) {
    if (m->scan->slots == 1)
        return SAP_OK;
    m->order = calloc(m->count + 1, sizeof *m->order);
    if (!m->order)
        return sap_error_memory(err, m->scan->tree->where);
    for (size_t i = 0; i < m->count; i++)
        m->order[i] = i;
    qsort_r(m->order, m->count, sizeof *m->order, by_work, m);
    return SAP_OK;
}

static sap_status make_batch(making *m, sap_error *err) {
    scan *r = m->scan;
    const sap_run *run = &r->run;
    for (size_t i = 0; i < r->shown; i++) {
        m->first[i] = m->count;
        SAP_TRY(plan_column(m, i, m->begin, m->end, err));
    }
    m->first[r->shown] = m->count;
    for (size_t i = r->shown; i < r->column_count; i++)
        SAP_TRY(read_counts(m, i, err));
    SAP_TRY(sap_loop(run, r->shown, count_step, m, err));
    for (size_t i = 0; i < r->shown; i++) {
        SAP_TRY(sap_column_init(m->storage, &r->columns[i].program->field, &m->out[i], err));
        SAP_TRY(take_memory(m, i, err)); /* how much */
    }
    SAP_TRY(check_memory(m, err));
    if (!sap_slab_open(&m->slab, m->storage))
        return sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < r->shown; i++)
        SAP_TRY(take_memory(m, i, err));
    SAP_TRY(sort_pieces(m, err));
    SAP_TRY(sap_loop(run, m->count, decode_step, m, err));
    return sap_loop(run, r->shown, join_step, m, err);
}

sap_status sap_ttree_scan_read(void *context, int64_t begin, int64_t end, struct sap_storage *storage,
                               sap_column *columns, sap_error *err) {
    scan *r = context;
    making m = {.scan = r, .begin = begin, .end = end, .storage = storage, .out = columns};
    ahead *a = NULL;
    for (int i = 0; i < MOST_AHEAD; i++)
        if (r->ahead[i].end > r->ahead[i].begin && r->ahead[i].begin == begin && r->ahead[i].end == end)
            a = &r->ahead[i];
    sap_status status = a && a->fetch ? sap_fetch_wait(a->fetch, &r->run, err) : SAP_OK;
    m.ahead = a;
    m.first = calloc(r->column_count + 1, sizeof *m.first);
    m.counts = calloc(r->column_count + 1, sizeof *m.counts);
    m.counts_begin = calloc(r->column_count + 1, sizeof *m.counts_begin);
    if (status == SAP_OK)
        status = m.first && m.counts && m.counts_begin ? make_batch(&m, err) : sap_error_memory(err, r->tree->where);
    for (size_t i = 0; i < m.count; i++)
        sap_builders_release(m.pieces[i].builders, r->columns[m.pieces[i].column].program->slots);
    for (size_t i = 0; m.counts && i < r->column_count; i++)
        free(m.counts[i]);
    free(m.counts);
    free(m.counts_begin);
    free(m.first);
    free(m.order);
    free(m.pieces);
    if (a)
        forget(a);
    drop_finished(r, end);
    return status;
}
