/* Baskets: the header inside fKeylen, reading and decompressing one. docs/format/ttree.md, § Basket. */
#include "root_internal.h"

#include <stdlib.h>

enum { GENERATED_FLAG = 80, GENERATE_OFFSETS = 1 };

bool sap_buffer_reserve(sap_buffer *buffer, size_t capacity) {
    if (capacity <= buffer->capacity)
        return true;
    size_t larger = buffer->capacity + buffer->capacity / 2;
    if (larger < capacity)
        larger = capacity;
    uint8_t *grown = realloc(buffer->data, larger);
    if (!grown)
        return false;
    buffer->data = grown;
    buffer->capacity = larger;
    return true;
}

void sap_scratch_release(sap_scratch *scratch) {
    sap_codec_release(&scratch->codec);
    sap_space_release(&scratch->stored);
    sap_space_release(&scratch->object);
    sap_space_release(&scratch->gathered);
    *scratch = (sap_scratch){0};
}

sap_status sap_basket_parse(const uint8_t *bytes, size_t length, const sap_basket *basket, const char *where,
                            sap_basket_header *out, sap_error *err) {
    sap_cursor c = sap_cursor_init(bytes, length, basket->offset);
    sap_record record;
    sap_record_parse(&c, NULL, &record);
    sap_cursor_skip(&c, 6); /* version, buffer size */
    int32_t entry_bytes = sap_cursor_i32(&c);
    uint8_t io_bits = entry_bytes < 0 ? sap_cursor_u8(&c) : 0;
    int32_t entries = sap_cursor_i32(&c), last = sap_cursor_i32(&c);
    uint8_t flag = sap_cursor_u8(&c);
    if (c.failed && length == SAP_BASKET_HEADER_MOST && length < basket->bytes)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the basket's header is longer than %d bytes", where,
                             (unsigned long long)basket->offset, SAP_BASKET_HEADER_MOST);
    SAP_TRY(sap_cursor_check(&c, where, "basket header", err));
    *out = (sap_basket_header){.stored_bytes = record.bytes,
                               .object_bytes = record.object_bytes,
                               .header_bytes = record.header_bytes,
                               .entries = entries,
                               .entry_bytes = entry_bytes < 0 ? -(int64_t)entry_bytes : entry_bytes,
                               .generated = flag >= GENERATED_FLAG,
                               .sizes = (io_bits & GENERATE_OFFSETS) != 0};
    int64_t data_bytes = (int64_t)last - record.header_bytes;
    if (record.bytes > basket->bytes || record.header_bytes > record.bytes || entries < 0 || data_bytes < 0 ||
        data_bytes > record.object_bytes || record.header_bytes < c.position)
        return sap_error_set(err, SAP_EFORMAT,
                             "%s @0x%llx: the basket's header makes no sense: %u bytes (%u expected), header of %u, %d "
                             "entries in %lld of %u bytes",
                             where, (unsigned long long)basket->offset, record.bytes, basket->bytes,
                             record.header_bytes, entries, (long long)data_bytes, record.object_bytes);
    out->data_bytes = (uint32_t)data_bytes;
    return SAP_OK;
}

/* § Basket: with kGenerateOffsetMap, entries whose sizes no counter tells have 0 and then sizes for offsets. */
static void sum_sizes(uint8_t *offsets, int32_t entries, uint32_t header_bytes) {
    uint32_t sum = header_bytes;
    for (int32_t i = 0; i < entries; i++) {
        sum += i ? sap_be32(offsets + 4 * (size_t)i) : 0;
        uint32_t stored = __builtin_bswap32(sum);
        memcpy(offsets + 4 * (size_t)i, &stored, 4);
    }
}

/* § Basket: behind the entries stand a count and the offsets, the last of which is junk. */
static sap_status find_offsets(const uint8_t *object, const sap_basket_header *header, const char *where,
                               uint64_t place, sap_basket_data *out, sap_error *err) {
    uint32_t left = header->object_bytes - header->data_bytes;
    if (left == 0 || header->entries == 0)
        return SAP_OK;
    sap_cursor c = sap_cursor_init(object + header->data_bytes, left, header->data_bytes);
    size_t n = sap_cursor_count(&c, sap_cursor_u32(&c), 4);
    out->offsets = sap_cursor_take(&c, n * 4);
    if (c.failed || n < (size_t)header->entries)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: basket of %d entries has %zu offsets in %u bytes", where,
                             (unsigned long long)place, header->entries, n, left);
    if (header->sizes) /* then it stands in scratch memory */
        sum_sizes((uint8_t *)(uintptr_t)out->offsets, header->entries, header->header_bytes);
    return SAP_OK;
}

sap_status sap_basket_bytes(const sap_file *file, const sap_basket *basket, const char *where, const uint8_t *stored,
                            sap_scratch *scratch, const uint8_t **out, sap_error *err) {
    if (basket->offset > file->size || basket->bytes > file->size - basket->offset)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: basket needs %u bytes, the file ends at 0x%llx", where,
                             (unsigned long long)basket->offset, basket->bytes, (unsigned long long)file->size);
    *out = stored ? stored : sap_source_map(file->source, basket->offset, basket->bytes);
    if (*out)
        return SAP_OK;
    if (!sap_space_reserve(&scratch->stored, basket->bytes))
        return sap_error_memory(err, where);
    *out = scratch->stored.data;
    sap_range range = {basket->offset, basket->bytes, scratch->stored.data};
    return sap_source_read(file->source, &range, 1, NULL, err);
}

static sap_status copy_object(sap_scratch *scratch, const uint8_t *payload, size_t bytes, const char *where,
                              sap_error *err) {
    if (!sap_space_reserve(&scratch->object, bytes))
        return sap_error_memory(err, where);
    memcpy(scratch->object.data, payload, bytes);
    return SAP_OK;
}

sap_status sap_basket_load(const sap_file *file, const sap_branch_node *branch, size_t index, const char *where,
                           const uint8_t *stored, bool keep, sap_scratch *scratch, sap_basket_data *out,
                           sap_error *err) {
    const sap_basket *basket = &branch->baskets[index];
    *out = (sap_basket_data){0};
    if (basket->embedded) {
        const sap_embedded *e = basket->embedded;
        *out = (sap_basket_data){e->entries, e->data, e->data_bytes, e->offsets, e->header_bytes, e->generated};
        return SAP_OK;
    }
    const uint8_t *bytes = NULL;
    SAP_TRY(sap_basket_bytes(file, basket, where, stored, scratch, &bytes, err));
    sap_basket_header header;
    SAP_TRY(sap_basket_parse(bytes, basket->bytes, basket, where, &header, err));
    const uint8_t *payload = bytes + header.header_bytes, *object = payload;
    size_t length = header.stored_bytes - header.header_bytes;
    bool sized = header.sizes && header.object_bytes > header.data_bytes;
    if (header.object_bytes > length) {
        uint64_t place = basket->offset + header.header_bytes;
        SAP_TRY(sap_codec_check(payload, length, header.object_bytes, where, place, err));
        if (!sap_space_reserve(&scratch->object, header.object_bytes))
            return sap_error_memory(err, where);
        SAP_TRY(sap_file_unpack(file, &scratch->codec, payload, length, scratch->object.data, header.object_bytes,
                                where, place, err));
        object = scratch->object.data;
    } else {
        sap_file_count(file, length, header.object_bytes);
        if (sized || (keep && stored)) {
            SAP_TRY(copy_object(scratch, payload, header.object_bytes, where, err));
            object = scratch->object.data;
        }
    }
    out->entries = header.entries;
    out->data = object;
    out->bytes = header.data_bytes;
    out->header_bytes = header.header_bytes;
    out->generated = header.generated;
    return find_offsets(object, &header, where, basket->offset, out, err);
}
