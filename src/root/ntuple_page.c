/* Pages of an RNTuple: reading, checking and decompressing one, and putting its values where a batch wants them.
 * docs/format/rntuple.md, § Page. */
#include "ntuple.h"

enum { CHECKSUM = 8 };

/* Each index counts from the start of its cluster; 32 bits of it are kept, as offsets from the piece's first. */
static sap_status place_indices(sap_page_piece *p, const uint64_t *values, size_t n, sap_error *err) {
    int32_t *out = p->node->offsets + p->at;
    uint64_t first = values[0], previous = first;
    bool rising = true;
    for (size_t i = 0; i < n; i++) {
        rising = rising && values[i] >= previous;
        previous = values[i];
        out[i] = (int32_t)(uint32_t)(previous - first);
    }
    p->first = first;
    p->last = previous;
    if (!rising || previous - first > INT32_MAX)
        return sap_error_set(err, rising ? SAP_EMEMORY : SAP_EFORMAT, "%s @0x%llx: %s", p->node->where,
                             (unsigned long long)p->page->at.offset,
                             rising ? "more than 2^31 items in one batch; ask for smaller batches"
                                    : "an index is less than the one before");
    return SAP_OK;
}

/* § Switch: the index among the items of an alternative, and which alternative. */
static sap_status place_switches(sap_page_piece *p, const uint8_t *values, size_t n, sap_error *err) {
    enum { SWITCH = 12 };
    int8_t *tags = (int8_t *)p->node->values + p->at;
    for (size_t i = 0; i < n; i++) {
        uint64_t index = sap_le64(values + SWITCH * i);
        uint32_t tag = sap_le32(values + SWITCH * i + 8);
        if (tag >= p->node->node->child_count || index > UINT32_MAX)
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: item %llu of alternative %u of %zu", p->node->where,
                                 (unsigned long long)p->page->at.offset, (unsigned long long)index, tag,
                                 p->node->node->child_count - 1);
        tags[i] = (int8_t)tag;
        p->node->offsets[p->at + (int64_t)i] = (int32_t)(uint32_t)index;
    }
    return SAP_OK;
}

/* n decoded values of the page into the batch. */
static sap_status place(sap_page_piece *p, const uint8_t *values, size_t n, sap_error *err) {
    const sap_series *series = p->node->node->series;
    const sap_column_type *type = sap_column_type_get(p->column->type);
    if (p->node->node->kind == SAP_NODE_UNION)
        return place_switches(p, values, n, err);
    if (series->type == SAP_TYPE_NONE)
        return place_indices(p, (const uint64_t *)(const void *)values, n, err);
    uint8_t *out = (uint8_t *)p->node->values + (size_t)p->at * series->size;
    if (type->type == series->type)
        memcpy(out, values, n * series->size);
    else
        sap_floats_widen(type->type, values, n, series->type, out);
    return SAP_OK;
}

static void place_zeros(sap_page_piece *p) {
    size_t n = (size_t)(p->end - p->begin);
    bool is_union = p->node->node->kind == SAP_NODE_UNION;
    uint8_t size = is_union ? 1 : p->node->node->series->size;
    if (p->node->offsets)
        memset(p->node->offsets + p->at, 0, n * sizeof *p->node->offsets);
    if (p->node->values)
        memset((uint8_t *)p->node->values + (size_t)p->at * size, 0, n * size);
}

/* The page as stored, with its checksum if it has one. */
static sap_status stored_bytes(const sap_ntuple *n, const sap_page_piece *p, sap_scratch *scratch, const uint8_t **out,
                               sap_error *err) {
    const sap_page *page = p->page;
    sap_locator all = {page->at.offset, page->at.bytes + (page->checked ? CHECKSUM : 0)};
    bool split = n->max_key_bytes && all.bytes > n->max_key_bytes;
    *out = p->fetched;
    if (!*out && !split)
        *out = sap_source_map(n->tree.file->source, all.offset, (size_t)all.bytes);
    if (!*out) {
        if (all.bytes > n->tree.file->size)
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: a page of %llu bytes in a file of %llu", p->node->where,
                                 (unsigned long long)all.offset, (unsigned long long)all.bytes,
                                 (unsigned long long)n->tree.file->size);
        if (!sap_space_reserve(&scratch->stored, (size_t)all.bytes))
            return sap_error_memory(err, p->node->where);
        SAP_TRY(sap_payload_read(n->tree.file, n->max_key_bytes, all, scratch->stored.data, p->node->where, err));
        *out = scratch->stored.data;
    }
    if (page->checked && sap_hash(*out, (size_t)page->at.bytes, 0) != sap_le64(*out + page->at.bytes))
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the checksum of the page differs: it is damaged",
                             p->node->where, (unsigned long long)all.offset);
    return SAP_OK;
}

/* All values of the page, decoded into `out`. */
static sap_status decode_page(const sap_ntuple *n, const sap_page_piece *p, sap_scratch *scratch, void *out,
                              sap_error *err) {
    const sap_page *page = p->page;
    const uint8_t *stored;
    size_t bytes = (size_t)sap_page_bytes(p->column, page->elements), length = (size_t)page->at.bytes;
    SAP_TRY(stored_bytes(n, p, scratch, &stored, err));
    if (length < bytes) {
        bool direct = sap_column_type_get(p->column->type)->encoding == SAP_ENCODING_PLAIN;
        SAP_TRY(sap_codec_check(stored, length, bytes, p->node->where, page->at.offset, err));
        if (!direct && !sap_space_reserve(&scratch->object, bytes))
            return sap_error_memory(err, p->node->where);
        uint8_t *object = direct ? out : scratch->object.data;
        SAP_TRY(sap_codec_run(&scratch->codec, stored, length, object, bytes, p->node->where, page->at.offset, err));
        if (direct)
            return SAP_OK;
        stored = object;
    }
    sap_page_decode(p->column, stored, page->elements, out);
    return SAP_OK;
}

sap_status sap_page_piece_decode(const sap_ntuple *ntuple, sap_page_piece *p, sap_scratch *scratch, sap_error *err) {
    if (!p->page) {
        place_zeros(p);
        return SAP_OK;
    }
    const sap_series *series = p->node->node->series;
    const sap_column_type *type = sap_column_type_get(p->column->type);
    bool whole = p->begin == 0 && p->end == p->page->elements;
    if (whole && !p->held && type->type != SAP_TYPE_NONE && type->type == series->type)
        return decode_page(ntuple, p, scratch, (uint8_t *)p->node->values + (size_t)p->at * series->size, err);
    sap_space *values = p->held ? &p->held->values : &scratch->gathered;
    if (!p->held || p->held->page != p->page) {
        if (p->held)
            p->held->page = NULL;
        if (!sap_space_reserve(values, (size_t)p->page->elements * type->size))
            return sap_error_memory(err, p->node->where);
        SAP_TRY(decode_page(ntuple, p, scratch, values->data, err));
        if (p->held)
            p->held->page = p->page;
    }
    return place(p, values->data + (size_t)p->begin * type->size, (size_t)(p->end - p->begin), err);
}
