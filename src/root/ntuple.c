/* RNTuple as a table: its anchor, header, footer and page lists, and the branches that its top-level fields are.
 * docs/format/rntuple.md. */
#include "ntuple.h"

#include <stdlib.h>

enum { ANCHOR_FRAME = 6, ANCHOR_FIELDS = 64, EPOCH = 1, CLUSTER_LEAST = 8 + 16, SHARDED = 1 };

/* ---- Anchor ----------------------------------------------------------------------------------------------------- */

typedef struct anchor {
    sap_locator header, footer;
    uint64_t header_length, footer_length, max_key_bytes;
} anchor;

static sap_status parse_anchor(const sap_tree *tree, const uint8_t *object, size_t length, uint64_t place, anchor *out,
                               sap_error *err) {
    enum { CHECKSUM = 8, COUNT_BYTES = 4 };
    sap_cursor c = sap_cursor_init(object, length, place);
    uint32_t count = sap_cursor_u32(&c) & ~(uint32_t)SAP_BYTE_COUNT_BIT;
    sap_cursor_skip(&c, 2);
    uint16_t epoch = sap_cursor_u16(&c);
    sap_cursor_skip(&c, 6);
    out->header.offset = sap_cursor_u64(&c);
    out->header.bytes = sap_cursor_u64(&c);
    out->header_length = sap_cursor_u64(&c);
    out->footer.offset = sap_cursor_u64(&c);
    out->footer.bytes = sap_cursor_u64(&c);
    out->footer_length = sap_cursor_u64(&c);
    out->max_key_bytes = sap_cursor_u64(&c);
    SAP_TRY(sap_cursor_check(&c, tree->where, "RNTuple anchor", err));
    if (epoch != EPOCH)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an RNTuple of format epoch %u; this version reads epoch 1",
                             tree->where, epoch);
    uint64_t end = (uint64_t)COUNT_BYTES + count; /* later versions may have more fields before the checksum */
    if (end < ANCHOR_FRAME + ANCHOR_FIELDS || end + CHECKSUM > length)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the RNTuple anchor has %u of %zu bytes", tree->where,
                             (unsigned long long)place, count, length);
    if (sap_hash(object + ANCHOR_FRAME, end - ANCHOR_FRAME, 0) != sap_be64(object + end))
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the checksum of the RNTuple anchor differs: it is damaged",
                             tree->where, (unsigned long long)place);
    return SAP_OK;
}

static sap_status read_anchor(const sap_tree *tree, const sap_key *key, anchor *out, sap_error *err) {
    if (strcmp(key->class_name, "ROOT::RNTuple") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an RNTuple from before version 1 of its format", tree->where);
    sap_record record;
    uint8_t *object;
    SAP_TRY(sap_record_load(tree->file, key->offset, key->stored_bytes, tree->where, &record, &object, err));
    sap_status status = parse_anchor(tree, object, record.object_bytes, key->offset + record.header_bytes, out, err);
    free(object);
    return status;
}

/* ---- Page lists --------------------------------------------------------------------------------------------------- */

static sap_status parse_summaries(sap_ntuple *n, sap_cursor *c, uint32_t envelope, size_t expected, sap_error *err) {
    const char *where = n->tree.where;
    size_t count;
    sap_cursor list = sap_ntuple_list(c, CLUSTER_LEAST, &count);
    SAP_TRY(sap_cursor_check(&list, where, "list of clusters", err));
    if (count != expected)
        return sap_error_set(err, SAP_EFORMAT, "%s: a page list of %zu clusters, the footer says %zu", where, count,
                             expected);
    for (size_t i = 0; i < count; i++) {
        sap_cursor record = sap_ntuple_record(&list);
        sap_cluster cluster = {.first_entry = sap_cursor_le64(&record), .envelope = envelope};
        uint64_t word = sap_cursor_le64(&record);
        cluster.entries = word & (UINT64_MAX >> 8);
        SAP_TRY(sap_cursor_check(&record, where, "cluster summary", err));
        if (word >> 56 & SHARDED)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: sharded clusters are not known to this version", where);
        if (!sap_grow((void **)&n->clusters, &n->cluster_capacity, n->cluster_count, sizeof *n->clusters))
            return sap_error_memory(err, where);
        n->clusters[n->cluster_count++] = cluster;
    }
    return SAP_OK;
}

/* Notes where the pages of each column are listed; they are parsed when a branch is looked at. */
static sap_status index_frames(sap_ntuple *n, sap_cursor *c, size_t first, sap_error *err) {
    enum { FRAME_LEAST = 12, COLUMN_LEAST = FRAME_LEAST + 8 };
    const char *where = n->tree.where;
    size_t count;
    sap_cursor clusters = sap_ntuple_list(c, FRAME_LEAST, &count);
    SAP_TRY(sap_cursor_check(&clusters, where, "list of page locations", err));
    if (count != n->cluster_count - first)
        return sap_error_set(err, SAP_EFORMAT, "%s: page locations of %zu clusters, there are %zu", where, count,
                             n->cluster_count - first);
    for (size_t i = first; i < n->cluster_count; i++) {
        sap_cluster *cluster = &n->clusters[i];
        sap_cursor columns = sap_ntuple_list(&clusters, COLUMN_LEAST, &cluster->frame_count);
        cluster->frames = sap_arena_array(&n->tree.arena, cluster->frame_count, sizeof *cluster->frames);
        if (cluster->frame_count && !cluster->frames)
            return sap_error_memory(err, where);
        for (size_t j = 0; j < cluster->frame_count; j++) {
            size_t items;
            cluster->frames[j] = columns.data + columns.position;
            (void)sap_ntuple_list(&columns, 0, &items);
        }
        SAP_TRY(sap_cursor_check(&columns, where, "page locations of a cluster", err));
    }
    return SAP_OK;
}

static sap_status read_page_list(sap_ntuple *n, sap_cursor *group, uint64_t place, sap_error *err) {
    const char *where = n->tree.where;
    sap_cursor_skip(group, 16); /* entries: the clusters tell them */
    uint32_t clusters = sap_cursor_le32(group);
    uint64_t length = sap_cursor_le64(group);
    sap_locator at = sap_locator_parse(group);
    SAP_TRY(sap_cursor_check(group, where, "cluster group", err));
    if (!sap_grow((void **)&n->page_lists, &n->page_list_capacity, n->page_list_count, sizeof *n->page_lists))
        return sap_error_memory(err, where);
    sap_envelope *e = &n->page_lists[n->page_list_count];
    n->page_list_bytes += length; /* of all: one that is named again and again is no page list */
    if (n->page_list_bytes / SAP_LIKELY_RATIO > n->tree.file->size)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: page lists of %llu bytes in a file of %llu", where,
                             (unsigned long long)place, (unsigned long long)n->page_list_bytes,
                             (unsigned long long)n->tree.file->size);
    SAP_TRY(sap_envelope_load(n->tree.file, n->max_key_bytes, SAP_ENVELOPE_PAGE_LIST, at, length, where, e, err));
    n->page_list_count++;
    sap_cursor c = sap_envelope_cursor(e);
    size_t first = n->cluster_count;
    if (sap_cursor_le64(&c) != n->header_checksum)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: this page list belongs to another header", where,
                             (unsigned long long)at.offset);
    SAP_TRY(parse_summaries(n, &c, (uint32_t)n->page_list_count - 1, clusters, err));
    return index_frames(n, &c, first, err);
}

/* ---- Clusters ------------------------------------------------------------------------------------------------------- */

static int by_first_entry(const void *a, const void *b) {
    const sap_cluster *x = a, *y = b;
    if (x->first_entry != y->first_entry)
        return x->first_entry < y->first_entry ? -1 : 1;
    return (x->entries > y->entries) - (x->entries < y->entries);
}

/* Entries without a stored value, as late columns have them, cost no bytes: the file's size says how many can be believed, bits
 * that a codec made thousands of times smaller among them. */
static sap_status order_clusters(sap_ntuple *n, sap_error *err) {
    enum { BELIEVED = 1 << 20, MOST_TIMES = 1 << 18 }; /* a page of 2^23 bits takes some 80 bytes at least */
    if (n->cluster_count > 1)
        qsort(n->clusters, n->cluster_count, sizeof *n->clusters, by_first_entry);
    uint64_t entries = 0;
    for (size_t i = 0; i < n->cluster_count; i++) {
        const sap_cluster *c = &n->clusters[i];
        if (c->first_entry != entries || c->entries > INT64_MAX - entries)
            return sap_error_set(err, SAP_EFORMAT, "%s: cluster %zu holds %llu entries from %llu on, %llu expected",
                                 n->tree.where, i, (unsigned long long)c->entries, (unsigned long long)c->first_entry,
                                 (unsigned long long)entries);
        entries += c->entries;
        if (entries / MOST_TIMES > n->tree.file->size + BELIEVED / MOST_TIMES)
            return sap_error_set(err, SAP_EFORMAT, "%s: cluster %zu brings %llu entries, in a file of %llu bytes",
                                 n->tree.where, i, (unsigned long long)c->entries,
                                 (unsigned long long)n->tree.file->size);
    }
    n->tree.entries = (int64_t)entries;
    return SAP_OK;
}

static void list_clusters(sap_tree *tree) {
    const sap_ntuple *n = (const sap_ntuple *)tree;
    tree->clusters = calloc(n->cluster_count + 1, sizeof *tree->clusters);
    for (size_t i = 0; tree->clusters && i < n->cluster_count; i++)
        if (n->clusters[i].entries > 0)
            tree->clusters[tree->cluster_count++] = (int64_t)n->clusters[i].first_entry;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------------- */

static sap_status parse_header(sap_ntuple *n, const sap_envelope *e, sap_error *err) {
    sap_cursor c = sap_envelope_cursor(e);
    SAP_TRY(sap_features_check(&c, n->tree.where, err));
    for (int i = 0; i < 3; i++) /* name, description, writer */
        (void)sap_ntuple_text(&c, NULL);
    return sap_schema_parse(&n->schema, &c, &n->tree.arena, n->tree.where, err);
}

static sap_status parse_footer(sap_ntuple *n, const sap_envelope *e, sap_error *err) {
    enum { GROUP_LEAST = 8 + 20 + 8 + 12 };
    const char *where = n->tree.where;
    sap_cursor c = sap_envelope_cursor(e);
    SAP_TRY(sap_features_check(&c, where, err));
    if (sap_cursor_le64(&c) != n->header_checksum)
        return sap_error_set(err, SAP_EFORMAT, "%s: header and footer do not belong together", where);
    sap_cursor extension = sap_ntuple_record(&c);
    SAP_TRY(sap_cursor_check(&c, where, "footer", err));
    if (sap_cursor_left(&extension) > 0)
        SAP_TRY(sap_schema_parse(&n->schema, &extension, &n->tree.arena, where, err));
    size_t count;
    sap_cursor groups = sap_ntuple_list(&c, GROUP_LEAST, &count);
    SAP_TRY(sap_cursor_check(&c, where, "list of cluster groups", err));
    for (size_t i = 0; i < count; i++) {
        sap_cursor group = sap_ntuple_record(&groups);
        SAP_TRY(sap_cursor_check(&groups, where, "cluster group", err));
        SAP_TRY(read_page_list(n, &group, groups.base + groups.position, err));
    }
    return order_clusters(n, err);
}

static sap_status load(sap_ntuple *n, const anchor *a, bool footer, sap_error *err) {
    sap_envelope e = {0};
    SAP_TRY(sap_envelope_load(n->tree.file, n->max_key_bytes, footer ? SAP_ENVELOPE_FOOTER : SAP_ENVELOPE_HEADER,
                              footer ? a->footer : a->header, footer ? a->footer_length : a->header_length,
                              n->tree.where, &e, err));
    if (!footer)
        n->header_checksum = e.checksum;
    sap_status status = footer ? parse_footer(n, &e, err) : parse_header(n, &e, err);
    free(e.data);
    return status;
}

static sap_status add_branches(sap_ntuple *n, sap_error *err) {
    sap_tree *tree = &n->tree;
    for (uint32_t id = 0; id < n->schema.field_count; id++) {
        const sap_ntuple_field *f = &n->schema.fields[id];
        if (f->parent != id)
            continue;
        sap_ntuple_branch *b = sap_arena_alloc(&tree->arena, sizeof *b);
        if (!b || !sap_grow((void **)&tree->branches, &tree->branch_capacity, tree->branch_count, sizeof(sap_branch *)))
            return sap_error_memory(err, tree->where);
        b->id = id;
        b->public.name = b->public.path = f->name;
        b->public.type_name = f->type_name;
        tree->branches[tree->branch_count++] = &b->public;
    }
    return sap_tree_name_branches(tree, err);
}

sap_status sap_ntuple_open(sap_file *file, const sap_key *key, sap_tree **out, sap_error *err) {
    sap_ntuple *n = calloc(1, sizeof *n);
    if (!n)
        return sap_error_memory(err, file->name);
    sap_status status = sap_tree_init(&n->tree, &sap_ntuple_kind, file, key->path, err);
    n->described = (sap_file){.source = file->source,
                              .name = file->name,
                              .size = file->size,
                              .info_offset = file->info_offset,
                              .info_bytes = file->info_bytes};
    pthread_mutex_init(&n->described.lock, NULL);
    anchor a = {0};
    if (status == SAP_OK)
        status = read_anchor(&n->tree, key, &a, err);
    n->max_key_bytes = a.max_key_bytes;
    if (status == SAP_OK)
        status = load(n, &a, false, err);
    if (status == SAP_OK)
        status = load(n, &a, true, err);
    if (status == SAP_OK)
        status = add_branches(n, err);
    if (status != SAP_OK) {
        sap_tree_close(&n->tree);
        return status;
    }
    *out = &n->tree;
    return SAP_OK;
}

static void close_ntuple(sap_tree *tree) {
    sap_ntuple *n = (sap_ntuple *)tree;
    for (size_t i = 0; i < n->page_list_count; i++)
        free(n->page_lists[i].data);
    free(n->page_lists);
    free(n->clusters);
    sap_schema_release(&n->schema);
    sap_arena_release(&n->described.class_arena);
    free(n->described.classes);
    free(n->described.class_table);
    pthread_mutex_destroy(&n->described.lock);
}

/* ---- Branches ----------------------------------------------------------------------------------------------------------- */

/* Adds up the pages of a node and all below it. */
static void sum_pages(const sap_ntuple *n, const sap_node *node, sap_branch *out) {
    for (size_t i = 0; node->series && i < n->cluster_count; i++) {
        const sap_pages *run = &node->series->runs[i];
        out->baskets += (int64_t)run->count;
        for (size_t j = 0; j < run->count; j++) {
            out->stored_bytes += run->pages[j].at.bytes;
            out->bytes += sap_page_bytes(run->column, run->pages[j].elements);
        }
    }
    for (size_t i = 0; i < node->child_count; i++)
        sum_pages(n, &node->children[i], out);
}

/* An untyped collection or record shows the type of its column. */
static sap_status name_type(sap_ntuple *n, sap_ntuple_branch *b, sap_error *err) {
    char text[2000];
    (void)sap_field_text(&b->node.field, text, sizeof text);
    b->public.type_name = sap_arena_text(&n->tree.arena, text, strlen(text));
    return b->public.type_name ? SAP_OK : sap_error_memory(err, n->tree.where);
}

static sap_status compile_branch(sap_tree *tree, size_t index, sap_error *err) {
    sap_ntuple *n = (sap_ntuple *)tree;
    sap_ntuple_branch *b = (sap_ntuple_branch *)tree->branches[index];
    if (b->compiled)
        return SAP_OK;
    sap_error problem = {0};
    sap_status status = sap_node_make(n, b->id, &b->node, &b->public.reason, &problem);
    if (status != SAP_OK && status != SAP_EMEMORY) /* damage: this column cannot be read */
        b->public.reason = sap_arena_text(&tree->arena, problem.message, strlen(problem.message));
    if (status == SAP_EMEMORY || (status != SAP_OK && !b->public.reason))
        return sap_error_memory(err, tree->where);
    b->compiled = true;
    if (b->public.reason)
        return SAP_OK;
    sum_pages(n, &b->node, &b->public);
    if (!*b->public.type_name)
        SAP_TRY(name_type(n, b, err));
    b->public.field = &b->node.field;
    return SAP_OK;
}

static const sap_page *first_page(const sap_ntuple *n, const sap_node *node, const sap_pages **run) {
    for (size_t i = 0; node->series && i < n->cluster_count; i++) {
        *run = &node->series->runs[i];
        if ((*run)->count > 0)
            return &(*run)->pages[0];
    }
    for (size_t i = 0; i < node->child_count; i++) {
        const sap_page *page = first_page(n, &node->children[i], run);
        if (page)
            return page;
    }
    return NULL;
}

static const char *first_codec(sap_tree *tree, size_t index) {
    const sap_ntuple_branch *b = (const sap_ntuple_branch *)sap_tree_branch(tree, index);
    const sap_pages *run;
    const sap_page *page = b->public.field ? first_page((sap_ntuple *)tree, &b->node, &run) : NULL;
    if (!page)
        return NULL;
    uint8_t head[16];
    bool packed = page->at.bytes < sap_page_bytes(run->column, page->elements);
    sap_range range = {page->at.offset, page->at.bytes < sizeof head ? page->at.bytes : sizeof head, head};
    if (packed && sap_source_read(tree->file->source, &range, 1, NULL, NULL) != SAP_OK)
        return NULL;
    return sap_codec_name(head, packed ? range.length : 0);
}

const sap_tree_kind sap_ntuple_kind = {
    .close = close_ntuple,
    .compile = compile_branch,
    .clusters = list_clusters,
    .codec = first_codec,
    .scan_open = sap_ntuple_scan_open,
    .scan_close = sap_ntuple_scan_close,
    .scan_boundary = sap_ntuple_scan_boundary,
    .scan_prefetch = sap_ntuple_scan_prefetch,
    .scan_read = sap_ntuple_scan_read,
};
