/* Pages of an RNTuple: reading, checking and decompressing one, and putting its values where a batch wants them.
 * docs/format/rntuple.md, § Page. */
#include "ntuple.h"

enum { CHECKSUM = 8 };

/* Each index counts from the start of its cluster; 32 bits of it are kept, as offsets from the piece's first. */
static sap_status place_indices(sap_page_piece *p, const uint8_t *values, size_t n, sap_error *err) {
    bool rising = sap_indices_convert(values, n, p->node->offsets + p->at);
    p->first = sap_le64(values);
    p->last = sap_le64(values + sizeof(uint64_t) * (n - 1));
    if (!rising || p->last - p->first > INT32_MAX)
        return sap_error_set(err, rising ? SAP_EMEMORY : SAP_EFORMAT, "%s @0x%llx: %s", p->node->where,
                             (unsigned long long)p->page->at.offset,
                             rising ? "more than 2^31 items in one batch; ask for smaller batches"
                                    : "an index is less than the one before");
    return SAP_OK;
}

/* As above, from a page whose offsets are known; a whole page's are in their place already. */
static void place_offsets(sap_page_piece *p, const sap_held_page *held) {
    const int32_t *from = held->offsets + p->begin;
    int32_t *to = p->node->offsets + p->at, before = *from;
    size_t n = (size_t)(p->end - p->begin);
    p->first = held->first + (uint32_t)before;
    p->last = held->first + (uint32_t)from[n - 1];
    for (size_t i = 0; from != to && i < n; i++)
        to[i] = from[i] - before;
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

static void place_zeros(sap_page_piece *p) {
    size_t n = (size_t)(p->end - p->begin);
    bool is_union = p->node->node->kind == SAP_NODE_UNION;
    uint8_t size = is_union ? 1 : p->node->node->series->size;
    if (p->node->offsets)
        memset(p->node->offsets + p->at, 0, n * sizeof *p->node->offsets);
    if (p->node->values)
        memset((uint8_t *)p->node->values + (size_t)p->at * size, 0, n * size);
}

/* The page as stored, with its checksum if it has one. mapped: whether it stays where it is as long as the file is open. */
static sap_status stored_bytes(const sap_ntuple *n, const sap_page_piece *p, sap_scratch *scratch, const uint8_t **out,
                               bool *mapped, sap_error *err) {
    const sap_page *page = p->page;
    sap_locator all = {page->at.offset, page->at.bytes + (page->checked ? CHECKSUM : 0)};
    bool split = n->max_key_bytes && all.bytes > n->max_key_bytes;
    *out = p->fetched;
    if (!*out && !split)
        *out = sap_source_map(n->tree.file->source, all.offset, (size_t)all.bytes);
    *mapped = *out && !p->fetched;
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
    scratch->codec.verified = page->checked;
    return SAP_OK;
}

/* The page's bytes uncompressed: in `memory`, or where they are stored. lasting: as long as the memory. direct: where the
 * values go when those bytes are all of them, or NULL. */
static sap_status page_bytes(const sap_ntuple *n, const sap_page_piece *p, sap_scratch *scratch, sap_space *memory,
                             bool lasting, uint8_t *direct, const uint8_t **out, sap_error *err) {
    const sap_page *page = p->page;
    const uint8_t *stored = NULL;
    bool mapped;
    size_t bytes = (size_t)sap_page_bytes(p->column, page->elements), length = (size_t)page->at.bytes;
    SAP_TRY(stored_bytes(n, p, scratch, &stored, &mapped, err));
    *out = stored;
    if (length >= bytes)
        sap_file_count(n->tree.file, length, bytes);
    if (length >= bytes && (mapped || !lasting))
        return SAP_OK;
    if (length < bytes)
        SAP_TRY(sap_codec_check(stored, length, bytes, p->node->where, page->at.offset, err));
    if (!direct && !sap_space_reserve(memory, bytes))
        return sap_error_memory(err, p->node->where);
    uint8_t *object = direct ? direct : memory->data;
    *out = object;
    if (length < bytes)
        return sap_file_unpack(n->tree.file, &scratch->codec, stored, length, object, bytes, p->node->where,
                               page->at.offset, err);
    memcpy(object, stored, bytes);
    return SAP_OK;
}

/* Of differences, each batch needs those from the page's first on: so it is their sums that are held. */
static sap_status load_indices(const sap_ntuple *n, const sap_page_piece *p, sap_scratch *scratch, sap_held_page *held,
                               sap_error *err) {
    const size_t elements = (size_t)p->page->elements, bits = p->column->bits;
    bool delta = sap_column_type_get(p->column->type)->encoding == SAP_ENCODING_DELTA, ready = !delta && bits == 64;
    bool whole = !p->held && p->end - p->begin == elements;
    sap_space *memory = p->held ? &held->memory : &scratch->gathered;
    const uint8_t *bytes;
    SAP_TRY(page_bytes(n, p, scratch, ready ? memory : &scratch->object, ready && p->held, NULL, &bytes, err));
    held->bytes = bytes;
    held->offsets = NULL;
    if (ready)
        return SAP_OK;
    if (delta) {
        if (!whole && !sap_space_reserve(memory, elements * sizeof *held->offsets))
            return sap_error_memory(err, p->node->where);
        int32_t *offsets = whole ? p->node->offsets + p->at : (int32_t *)memory->data;
        if (sap_deltas_sum(bytes, elements, bits, &held->first, offsets)) {
            held->offsets = offsets;
            return SAP_OK;
        }
    }
    if (!sap_space_reserve(memory, elements * sizeof(uint64_t)))
        return sap_error_memory(err, p->node->where);
    sap_page_decode(p->column, bytes, elements, 0, elements, memory->data);
    held->bytes = memory->data;
    return SAP_OK;
}

static sap_status decode_indices(const sap_ntuple *n, sap_page_piece *p, sap_scratch *scratch, sap_error *err) {
    sap_held_page once = {0}, *held = p->held ? p->held : &once;
    if (held->page != p->page) {
        held->page = NULL;
        SAP_TRY(load_indices(n, p, scratch, held, err));
        held->page = p->page;
    }
    if (held->offsets) {
        place_offsets(p, held);
        return SAP_OK;
    }
    return place_indices(p, held->bytes + p->begin * sizeof(uint64_t), (size_t)(p->end - p->begin), err);
}

static sap_status decode_values(const sap_ntuple *n, sap_page_piece *p, sap_scratch *scratch, sap_error *err) {
    const sap_series *series = p->node->node->series;
    const sap_column_type *type = sap_column_type_get(p->column->type);
    const sap_page *page = p->page;
    size_t count = (size_t)(p->end - p->begin);
    bool whole = count == page->elements, placed = type->type == series->type && type->type != SAP_TYPE_NONE;
    uint8_t *out = placed ? (uint8_t *)p->node->values + (size_t)p->at * series->size : NULL;
    const uint8_t *bytes = p->held && p->held->page == page ? p->held->bytes : NULL;
    if (!bytes) {
        bool direct = whole && placed && !p->held && type->encoding == SAP_ENCODING_PLAIN;
        if (p->held)
            p->held->page = NULL;
        SAP_TRY(page_bytes(n, p, scratch, p->held ? &p->held->memory : &scratch->object, p->held != NULL,
                           direct ? out : NULL, &bytes, err));
        if (bytes == out)
            return SAP_OK;
        if (p->held) {
            p->held->page = page;
            p->held->bytes = bytes;
        }
    }
    if (!placed && !sap_space_reserve(&scratch->gathered, count * type->size))
        return sap_error_memory(err, p->node->where);
    uint8_t *values = placed ? out : scratch->gathered.data;
    sap_page_decode(p->column, bytes, page->elements, (size_t)p->begin, count, values);
    if (p->node->node->kind == SAP_NODE_UNION)
        return place_switches(p, values, count, err);
    if (!placed)
        sap_floats_widen(type->type, values, count, series->type,
                         (uint8_t *)p->node->values + (size_t)p->at * series->size);
    return SAP_OK;
}

sap_status sap_page_piece_check(const sap_ntuple *ntuple, const sap_page_piece *p, sap_scratch *scratch,
                                sap_error *err) {
    const uint8_t *bytes;
    return p->page ? page_bytes(ntuple, p, scratch, &scratch->object, false, NULL, &bytes, err) : SAP_OK;
}

sap_status sap_page_piece_decode(const sap_ntuple *ntuple, sap_page_piece *p, sap_scratch *scratch, sap_error *err) {
    if (!p->page) {
        place_zeros(p);
        return SAP_OK;
    }
    bool index = p->node->node->series->type == SAP_TYPE_NONE && p->node->node->kind != SAP_NODE_UNION;
    return index ? decode_indices(ntuple, p, scratch, err) : decode_values(ntuple, p, scratch, err);
}
