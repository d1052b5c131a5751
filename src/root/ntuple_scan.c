/* Scans of an RNTuple: entries become columns level by level, since the items of a collection are known only when its index
 * is decoded; on each level all pages of all columns at once. docs/format/rntuple.md, § Reading. */
#include "ntuple.h"

#include <stdlib.h>

/* Fetched for the batch before, for this one, and for the next. */
enum { MOST_AHEAD = 3 };

typedef struct scan {
    sap_ntuple *ntuple;
    sap_run run;
    sap_arena arena;
    sap_scan_node *tops; /* (count), one a branch */
    size_t count;
    size_t node_count;    /* of all branches */
    sap_scratch *scratch; /* (slots), one a thread */
    int slots;
    uint64_t batch; /* number of the batch in the making */
    sap_ahead ahead[MOST_AHEAD];
} scan;

/* One batch in the making. */
typedef struct making {
    scan *scan;
    struct sap_storage *storage;
    size_t first_cluster, part_count;
    sap_scan_node **nodes, **next; /* of this level and of the one below */
    size_t node_count, next_count;
    sap_page_piece *pieces;
    size_t count, capacity;
    uint64_t bytes; /* taken so far */
    sap_slab slab;  /* memory of this level */
    sap_ahead late; /* pages of this level that nothing had fetched */
} making;

/* ---- Opening and closing ------------------------------------------------------------------------------------------- */

/* last: by column, the node that used its index last. */
static bool init_node(scan *s, const sap_node *node, const sap_scan_node *domain, const char *where,
                      sap_scan_node **last, sap_scan_node *out) {
    *out = (sap_scan_node){.node = node, .domain = domain, .where = where};
    s->node_count++;
    const sap_scan_node *inside = node->kind == SAP_NODE_RECORD ? domain : out;
    if (node->series && node->series->type == SAP_TYPE_NONE && node->kind != SAP_NODE_UNION) {
        sap_scan_node *other = last[node->series->first_column];
        if (other && other->domain == domain && other->node->series->deferred == node->series->deferred)
            out->same = other;
        else
            last[node->series->first_column] = out;
        if (out->same)
            inside = out->same;
    }
    out->children = sap_arena_array(&s->arena, node->child_count + 1, sizeof *out->children);
    for (size_t i = 0; out->children && i < node->child_count; i++) {
        if (!init_node(s, &node->children[i], inside, where, last, &out->children[i]))
            return false;
        out->children[i].bytes = node->kind == SAP_NODE_STRING || node->kind == SAP_NODE_STREAMED;
    }
    return out->children != NULL;
}

static void release_node(sap_scan_node *node) {
    free(node->parts);
    sap_space_release(&node->held[0].memory);
    sap_space_release(&node->held[1].memory);
    for (size_t i = 0; node->children && i < node->node->child_count; i++)
        release_node(&node->children[i]);
}

sap_status sap_ntuple_scan_open(sap_tree *tree, const size_t *branches, size_t count, const sap_run *run, void **out,
                                sap_error *err) {
    sap_ntuple *n = (sap_ntuple *)tree;
    scan *s = calloc(1, sizeof *s);
    sap_scan_node **last = calloc(n->schema.column_count + 1, sizeof(sap_scan_node *));
    bool fine = s && last;
    if (fine) {
        s->ntuple = n;
        s->run = run ? *run : (sap_run){0};
        s->slots = sap_run_threads(run);
        s->scratch = calloc((size_t)s->slots, sizeof *s->scratch);
        s->tops = sap_arena_array(&s->arena, count + 1, sizeof *s->tops);
        fine = s->scratch && s->tops;
    }
    for (size_t i = 0; fine && i < count; i++) {
        const sap_ntuple_branch *b = (const sap_ntuple_branch *)tree->branches[branches[i]];
        const char *where = sap_arena_format(&s->arena, "%s/%s", tree->where, b->public.name);
        s->count = i + 1;
        fine = where && init_node(s, &b->node, NULL, where, last, &s->tops[i]);
    }
    free(last);
    if (!fine) {
        sap_ntuple_scan_close(s);
        return sap_error_memory(err, tree->where);
    }
    *out = s;
    return SAP_OK;
}

void sap_ntuple_scan_close(void *context) {
    scan *s = context;
    if (!s)
        return;
    for (int i = 0; i < MOST_AHEAD; i++)
        sap_ahead_release(&s->ahead[i]);
    for (size_t i = 0; i < s->count; i++)
        if (s->tops[i].node)
            release_node(&s->tops[i]);
    for (int i = 0; s->scratch && i < s->slots; i++)
        sap_scratch_release(&s->scratch[i]);
    free(s->scratch);
    sap_arena_release(&s->arena);
    free(s);
}

/* ---- Clusters --------------------------------------------------------------------------------------------------------- */

size_t sap_cluster_of(const sap_ntuple *n, uint64_t entry) {
    size_t low = 0, high = n->cluster_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (n->clusters[middle].first_entry + n->clusters[middle].entries > entry)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int64_t sap_ntuple_scan_boundary(void *context, int64_t begin, int64_t end) {
    const sap_ntuple *n = ((scan *)context)->ntuple;
    size_t k = sap_cluster_of(n, (uint64_t)end);
    int64_t best = k < n->cluster_count ? (int64_t)n->clusters[k].first_entry : end;
    return best > begin + (end - begin) / 2 ? best : end;
}

/* ---- Fetching ahead ---------------------------------------------------------------------------------------------------- */

sap_status sap_ntuple_scan_prefetch(void *context, int64_t begin, int64_t end, sap_error *err) {
    scan *s = context;
    sap_ahead *place = NULL;
    const sap_ahead *before = NULL;
    for (int i = 0; i < MOST_AHEAD; i++) {
        const sap_ahead *a = &s->ahead[i];
        if (a->fetch && a->begin == begin && a->end == end)
            return SAP_OK;
        if (a->fetch && a->end == begin)
            before = a;
    }
    for (int i = 0; i < MOST_AHEAD; i++) {
        sap_ahead *a = &s->ahead[i];
        if (a->fetch && before && a->end < before->begin) /* two batches before the one that is read next */
            sap_ahead_release(a);
        if (!a->fetch)
            place = a;
    }
    return place ? sap_ahead_start(place, s->ntuple, s->tops, s->count, begin, end, before, err) : SAP_OK;
}

/* Bytes that were fetched for this batch or the one before; what is missing comes in one more fetch. */
static sap_status find_fetched(making *m, sap_error *err) {
    scan *s = m->scan;
    const sap_page **missing = calloc(m->count + 1, sizeof(sap_page *));
    size_t count = 0;
    sap_status status = missing ? SAP_OK : sap_error_memory(err, s->ntuple->tree.where);
    for (size_t i = 0; i < m->count && status == SAP_OK; i++) {
        sap_page_piece *p = &m->pieces[i];
        if (!p->page || (p->held && p->held->page == p->page))
            continue;
        for (int j = 0; j < MOST_AHEAD && !p->fetched; j++)
            p->fetched = sap_ahead_find(&s->ahead[j], p->page);
        if (!p->fetched && sap_page_is_whole(s->ntuple, p->page))
            missing[count++] = p->page;
    }
    sap_ahead_release(&m->late);
    if (status != SAP_OK || count == 0) {
        free(missing);
        return status;
    }
    SAP_TRY(sap_ahead_fetch(&m->late, s->ntuple, missing, count, err));
    SAP_TRY(sap_ahead_wait(&m->late, &s->run, err));
    for (size_t i = 0; i < m->count; i++)
        if (m->pieces[i].page && !m->pieces[i].fetched)
            m->pieces[i].fetched = sap_ahead_find(&m->late, m->pieces[i].page);
    return SAP_OK;
}

/* Waits for what this batch was promised, and forgets what is behind it. */
static sap_status await(making *m, int64_t begin, sap_error *err) {
    scan *s = m->scan;
    for (int i = 0; i < MOST_AHEAD; i++) {
        sap_ahead *a = &s->ahead[i];
        if (a->fetch && a->begin <= begin && begin < a->end)
            SAP_TRY(sap_ahead_wait(a, &s->run, err));
        else if (a->fetch && (a->end < begin || !a->arrived) && a->begin < begin)
            sap_ahead_release(a);
    }
    return SAP_OK;
}

/* ---- Planning ------------------------------------------------------------------------------------------------------------ */

static const sap_pages *run_of(const making *m, const sap_scan_node *node, size_t part) {
    return &node->node->series->runs[m->first_cluster + part];
}

static sap_held_page *hold(const scan *s, sap_scan_node *node, const sap_page *page) {
    sap_held_page *free_one = NULL;
    for (int i = 0; i < 2; i++) {
        if (node->held[i].page == page) {
            node->held[i].batch = s->batch;
            return &node->held[i];
        }
        if (node->held[i].batch != s->batch)
            free_one = &node->held[i];
    }
    if (free_one) {
        free_one->page = NULL;
        free_one->batch = s->batch;
    }
    return free_one;
}

static sap_status add_piece(making *m, sap_page_piece piece, sap_error *err) {
    if (!sap_grow((void **)&m->pieces, &m->capacity, m->count, sizeof *m->pieces))
        return sap_error_memory(err, piece.node->where);
    if (piece.page && (piece.begin > 0 || piece.end < piece.page->elements))
        piece.held = hold(m->scan, piece.node, piece.page);
    m->pieces[m->count++] = piece;
    return SAP_OK;
}

static size_t page_of(const sap_pages *run, uint64_t element) {
    size_t low = 0, high = run->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (run->pages[middle].first <= element)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Values [from, to) of one cluster, the first of which goes to `at`. */
static sap_status plan_values(making *m, sap_scan_node *node, size_t part, uint64_t from, uint64_t to, int64_t at,
                              sap_error *err) {
    const sap_pages *run = run_of(m, node, part);
    uint64_t total = node->parts[part].total, zeros = 0;
    if (node->node->series->deferred && total != SAP_TOTAL_UNKNOWN && total > run->elements)
        zeros = total - run->elements;
    if (to > zeros + run->elements)
        return sap_error_set(err, SAP_EFORMAT, "%s: cluster %zu holds %llu values of a column, %llu are needed",
                             node->where, m->first_cluster + part, (unsigned long long)run->elements,
                             (unsigned long long)to);
    sap_page_piece piece = {.node = node, .column = run->column, .part = part, .at = at};
    if (from < zeros && from < to) {
        piece.end = (to < zeros ? to : zeros) - from;
        SAP_TRY(add_piece(m, piece, err));
        piece.at += (int64_t)piece.end;
        from += piece.end;
    }
    from -= from < to ? zeros : 0;
    to -= zeros;
    for (size_t i = from < to ? page_of(run, from) : 0; from < to && to <= run->elements; i++) {
        const sap_page *page = &run->pages[i];
        uint64_t end = page->first + page->elements;
        if (end <= from)
            continue;
        piece.page = page;
        piece.begin = from - page->first;
        piece.end = (end < to ? end : to) - page->first;
        SAP_TRY(add_piece(m, piece, err));
        piece.at += (int64_t)(piece.end - piece.begin);
        from = page->first + piece.end;
    }
    return SAP_OK;
}

static sap_status plan_node(making *m, sap_scan_node *node, sap_error *err) {
    bool index = node->node->series->type == SAP_TYPE_NONE && node->node->kind != SAP_NODE_UNION;
    node->piece = m->count;
    for (size_t k = 0; k < m->part_count; k++) {
        const sap_part *part = &node->parts[k];
        if (part->from == part->to)
            continue;
        bool before = index && part->from > 0; /* where the items of the first entry begin */
        SAP_TRY(plan_values(m, node, k, part->from - before, part->to, part->at + (index && !before), err));
    }
    node->piece_count = m->count - node->piece;
    return SAP_OK;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------------------ */

static void take_memory(making *m, sap_scan_node *node) {
    const sap_series *series = node->node->series;
    size_t n = (size_t)node->length;
    bool is_union = node->node->kind == SAP_NODE_UNION, number = series->type != SAP_TYPE_NONE;
    sap_column *c = node->column;
    node->values = is_union ? sap_slab_take(&m->slab, n) : number ? sap_slab_take(&m->slab, n * series->size) : NULL;
    node->offsets = number ? NULL : sap_slab_take(&m->slab, (n + !is_union) * sizeof *node->offsets);
    if (is_union || node->node->kind == SAP_NODE_STRING || node->node->kind == SAP_NODE_LIST)
        c->offsets = node->offsets;
    if (node->values && c)
        c->values = node->values;
}

static sap_status check_step(void *context, size_t index, int slot, sap_error *err) {
    const making *m = context;
    return sap_page_piece_check(m->scan->ntuple, &m->pieces[index], &m->scan->scratch[slot], err);
}

/* The file's size says how much can be believed before a page of it is read. */
static sap_status take_slab(making *m, sap_error *err) {
    enum { BELIEVED = 32 << 20, LIKELY_TIMES = 64, MOST_TIMES = 1040 };
    const sap_ntuple *n = m->scan->ntuple;
    for (size_t i = 0; i < m->node_count; i++)
        if (!m->nodes[i]->same)
            take_memory(m, m->nodes[i]);
    m->bytes += m->slab.size;
    bool doubtful = m->bytes > BELIEVED && m->bytes / LIKELY_TIMES > n->tree.file->size;
    if (doubtful && m->bytes / MOST_TIMES > n->tree.file->size)
        return sap_error_set(err, SAP_EMEMORY,
                             "%s: a batch of %llu bytes from a file of %llu; it is damaged, or needs smaller batches",
                             n->tree.where, (unsigned long long)m->bytes, (unsigned long long)n->tree.file->size);
    if (doubtful)
        SAP_TRY(sap_loop(&m->scan->run, m->count, check_step, m, err));
    if (!sap_slab_open(&m->slab, m->storage))
        return sap_error_memory(err, n->tree.where);
    for (size_t i = 0; i < m->node_count; i++)
        if (!m->nodes[i]->same)
            take_memory(m, m->nodes[i]);
    return SAP_OK;
}

/* ---- Levels ------------------------------------------------------------------------------------------------------------------- */

static void attach(sap_scan_node *node, sap_column *column) {
    node->column = column;
    sap_node_kind kind = node->node->kind;
    for (size_t i = 0; i < node->node->child_count; i++)
        attach(&node->children[i], kind == SAP_NODE_STREAMED                              ? NULL
                                   : kind == SAP_NODE_OPTIONAL || kind == SAP_NODE_STRING ? column
                                                                                          : &column->children[i]);
}

static sap_status multiply_parts(sap_scan_node *node, uint64_t times, size_t part_count, sap_error *err) {
    sap_scan_node *child = &node->children[0];
    if (!sap_parts_reserve(child, part_count))
        return sap_error_memory(err, node->where);
    bool fine = true;
    for (size_t k = 0; k < part_count; k++) {
        const sap_part *from = &node->parts[k];
        sap_part *to = &child->parts[k];
        fine = fine && !__builtin_mul_overflow(from->from, times, &to->from) &&
               !__builtin_mul_overflow(from->to, times, &to->to) &&
               !__builtin_mul_overflow(from->at, (int64_t)times, &to->at);
        to->total = SAP_TOTAL_UNKNOWN;
        if (from->total != SAP_TOTAL_UNKNOWN)
            fine = fine && !__builtin_mul_overflow(from->total, times, &to->total);
    }
    fine =
        fine && !__builtin_mul_overflow(node->length, (int64_t)times, &child->length) && child->length < INT64_MAX / 64;
    return fine ? SAP_OK
                : sap_error_set(err, SAP_EMEMORY, "%s: arrays of %llu items make too many", node->where,
                                (unsigned long long)times);
}

/* Puts a node, whose parts are known, on the next level; what has no pages of its own gives way to its children. */
static sap_status enter(making *m, sap_scan_node *node, sap_error *err) {
    if (!node->bytes && node->node->kind != SAP_NODE_OPTIONAL)
        node->column->length = node->length;
    if (node->node->kind == SAP_NODE_ARRAY) {
        SAP_TRY(multiply_parts(node, node->node->repeats, m->part_count, err));
        return enter(m, &node->children[0], err);
    }
    for (size_t i = 0; node->node->kind == SAP_NODE_RECORD && i < node->node->child_count; i++) {
        sap_scan_node *child = &node->children[i];
        if (!sap_parts_reserve(child, m->part_count))
            return sap_error_memory(err, node->where);
        memcpy(child->parts, node->parts, m->part_count * sizeof *child->parts);
        child->length = node->length;
        SAP_TRY(enter(m, child, err));
    }
    if (node->node->series)
        m->next[m->next_count++] = node;
    return SAP_OK;
}

static sap_status borrow(making *m, sap_scan_node *node, sap_error *err) {
    sap_scan_node *child = node->node->child_count ? &node->children[0] : NULL;
    node->offsets = node->same->offsets;
    if (node->node->kind == SAP_NODE_STRING || node->node->kind == SAP_NODE_LIST)
        node->column->offsets = node->offsets;
    if (!child)
        return SAP_OK;
    if (!sap_parts_reserve(child, m->part_count))
        return sap_error_memory(err, node->where);
    for (size_t k = 0; k < m->part_count; k++) {
        const sap_part *items = &node->same->items[k];
        child->parts[k] = *items;
        child->length = items->at + (int64_t)(items->to - items->from);
    }
    return SAP_OK;
}

static sap_status decode_step(void *context, size_t index, int slot, sap_error *err) {
    making *m = context;
    return sap_page_piece_decode(m->scan->ntuple, &m->pieces[index], &m->scan->scratch[slot], err);
}

static sap_status shift_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    (void)err;
    const making *m = context;
    const sap_page_piece *p = &m->pieces[index];
    if (p->shift == 0) /* and what is no index has no offsets */
        return SAP_OK;
    int32_t *offsets = p->node->offsets + p->at;
    size_t n = (size_t)(p->end - p->begin);
    for (size_t i = 0; i < n; i++)
        offsets[i] += p->shift;
    return SAP_OK;
}

static sap_status read_level(making *m, sap_error *err) {
    m->count = 0;
    m->slab = (sap_slab){0};
    for (size_t i = 0; i < m->node_count; i++)
        if (!m->nodes[i]->same)
            SAP_TRY(plan_node(m, m->nodes[i], err));
    if (sap_source_is_remote(m->scan->ntuple->tree.file->source))
        SAP_TRY(find_fetched(m, err));
    SAP_TRY(take_slab(m, err));
    SAP_TRY(sap_loop(&m->scan->run, m->count, decode_step, m, err));
    bool indices = false;
    for (size_t i = 0; i < m->node_count; i++) {
        sap_scan_node *node = m->nodes[i];
        if (node->same) {
            SAP_TRY(borrow(m, node, err));
        } else if (node->node->kind == SAP_NODE_UNION) {
            SAP_TRY(sap_union_finish(node, m->part_count, err));
        } else if (node->offsets) {
            SAP_TRY(sap_index_finish(node, m->pieces, m->part_count, err));
            indices = true;
        }
    }
    if (indices)
        SAP_TRY(sap_loop(&m->scan->run, m->count, shift_step, m, err));
    for (size_t i = 0; i < m->node_count; i++)
        for (size_t j = 0; j < m->nodes[i]->node->child_count; j++)
            SAP_TRY(enter(m, &m->nodes[i]->children[j], err));
    return SAP_OK;
}

/* ---- Batches ---------------------------------------------------------------------------------------------------------------------- */

static sap_status start(making *m, int64_t begin, int64_t end, sap_column *columns, sap_error *err) {
    scan *s = m->scan;
    const sap_ntuple *n = s->ntuple;
    m->first_cluster = sap_cluster_of(n, (uint64_t)begin);
    m->part_count = sap_cluster_of(n, (uint64_t)end - 1) + 1 - m->first_cluster;
    for (size_t i = 0; i < s->count; i++) {
        sap_scan_node *top = &s->tops[i];
        SAP_TRY(sap_column_init(m->storage, &top->node->field, &columns[i], err));
        attach(top, &columns[i]);
        if (!sap_parts_reserve(top, m->part_count))
            return sap_error_memory(err, n->tree.where);
        for (size_t k = 0; k < m->part_count; k++) {
            const sap_cluster *c = &n->clusters[m->first_cluster + k];
            uint64_t from = c->first_entry < (uint64_t)begin ? (uint64_t)begin - c->first_entry : 0;
            uint64_t to = (uint64_t)end - c->first_entry < c->entries ? (uint64_t)end - c->first_entry : c->entries;
            top->parts[k] = (sap_part){from, to, c->entries, (int64_t)(c->first_entry + from) - begin};
        }
        top->length = end - begin;
        SAP_TRY(enter(m, top, err));
    }
    return SAP_OK;
}

static sap_status finish_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    making *m = context;
    return sap_scan_node_finish(&m->scan->tops[index], m->storage, err);
}

sap_status sap_ntuple_scan_read(void *context, int64_t begin, int64_t end, struct sap_storage *storage,
                                sap_column *columns, sap_error *err) {
    scan *s = context;
    making m = {.scan = s, .storage = storage};
    s->batch++;
    m.nodes = calloc(s->node_count + 1, sizeof(sap_scan_node *));
    m.next = calloc(s->node_count + 1, sizeof(sap_scan_node *));
    sap_status status = m.nodes && m.next ? await(&m, begin, err) : sap_error_memory(err, s->ntuple->tree.where);
    if (status == SAP_OK)
        status = start(&m, begin, end, columns, err);
    while (status == SAP_OK && m.next_count > 0) {
        sap_scan_node **nodes = m.next;
        m.next = m.nodes;
        m.nodes = nodes;
        m.node_count = m.next_count;
        m.next_count = 0;
        status = read_level(&m, err);
    }
    if (status == SAP_OK)
        status = sap_loop(&s->run, s->count, finish_step, &m, err);
    sap_ahead_release(&m.late);
    free(m.nodes);
    free(m.next);
    free(m.pieces);
    return status;
}
