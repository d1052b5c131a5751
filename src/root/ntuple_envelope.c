/* RNTuple's envelopes: payloads in one or more records, checksums, frames, locators. docs/format/rntuple.md, § Envelope. */
#include "ntuple.h"

#include <stdlib.h>

enum { PREAMBLE = 8, CHECKSUM = 8, LARGE_LOCATOR = 1, LARGEST_ENVELOPE = 1 << 30 };

/* ---- Payloads ------------------------------------------------------------------------------------------------ */

static sap_status read_range(const sap_file *file, sap_locator at, uint8_t *out, const char *where, sap_error *err) {
    if (at.offset > file->size || at.bytes > file->size - at.offset)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %llu bytes are needed, the file ends at 0x%llx", where,
                             (unsigned long long)at.offset, (unsigned long long)at.bytes,
                             (unsigned long long)file->size);
    sap_range range = {at.offset, (size_t)at.bytes, out};
    return sap_source_read(file->source, &range, 1, file->opening, err);
}

/* § Payload: the first record ends with the offsets of the others. */
static sap_status read_parts(const sap_file *file, uint64_t most, sap_locator at, uint8_t *out, const char *where,
                             sap_error *err) {
    enum { OFFSET = 8 };
    uint64_t parts = at.bytes / most + (at.bytes % most > 0), room = parts * most - at.bytes;
    if ((parts - 1) * OFFSET > room)
        parts++;
    uint64_t offsets_bytes = (parts - 1) * OFFSET;
    if (offsets_bytes > most)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %llu bytes in records of at most %llu", where,
                             (unsigned long long)at.offset, (unsigned long long)at.bytes, (unsigned long long)most);
    uint8_t *offsets = malloc(offsets_bytes);
    if (!offsets)
        return sap_error_memory(err, where);
    uint64_t done = most - offsets_bytes;
    sap_status status = read_range(file, (sap_locator){at.offset, done}, out, where, err);
    if (status == SAP_OK)
        status = read_range(file, (sap_locator){at.offset + done, offsets_bytes}, offsets, where, err);
    sap_cursor c = sap_cursor_init(offsets, offsets_bytes, at.offset + done);
    while (status == SAP_OK && done < at.bytes) {
        uint64_t bytes = at.bytes - done < most ? at.bytes - done : most;
        status = read_range(file, (sap_locator){sap_cursor_le64(&c), bytes}, out + done, where, err);
        done += bytes;
    }
    free(offsets);
    return status;
}

sap_status sap_payload_read(const sap_file *file, uint64_t max_key_bytes, sap_locator at, uint8_t *out,
                            const char *where, sap_error *err) {
    if (max_key_bytes && at.bytes > max_key_bytes)
        return read_parts(file, max_key_bytes, at, out, where, err);
    return read_range(file, at, out, where, err);
}

/* ---- Envelopes ------------------------------------------------------------------------------------------------- */

static const char *kind_name(sap_envelope_kind kind) {
    static const char *const names[] = {"envelope", "header", "footer", "page list"};
    return names[kind];
}

static sap_status unpack(const uint8_t *stored, sap_locator at, sap_envelope *e, const char *where, sap_error *err) {
    if (at.bytes == e->length) {
        memcpy(e->data, stored, e->length);
        return SAP_OK;
    }
    sap_codec codec = {0};
    sap_status status = sap_codec_run(&codec, stored, (size_t)at.bytes, e->data, e->length, where, at.offset, err);
    sap_codec_release(&codec);
    return status;
}

static sap_status check(sap_envelope *e, sap_envelope_kind kind, uint64_t offset, const char *where, sap_error *err) {
    uint64_t preamble = sap_le64(e->data);
    if ((preamble & 0xffff) != (uint64_t)kind || preamble >> 16 != e->length)
        return sap_error_set(err, SAP_EFORMAT,
                             "%s @0x%llx: expected the %s envelope of %zu bytes, found kind %u of %llu bytes", where,
                             (unsigned long long)offset, kind_name(kind), e->length, (unsigned)(preamble & 0xffff),
                             (unsigned long long)(preamble >> 16));
    e->checksum = sap_le64(e->data + e->length - CHECKSUM);
    if (sap_hash(e->data, e->length - CHECKSUM, 0) != e->checksum)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the checksum of the %s differs: it is damaged", where,
                             (unsigned long long)offset, kind_name(kind));
    return SAP_OK;
}

sap_status sap_envelope_load(const sap_file *file, uint64_t max_key_bytes, sap_envelope_kind kind, sap_locator at,
                             uint64_t length, const char *where, sap_envelope *out, sap_error *err) {
    if (at.bytes > file->size || length < at.bytes || length < PREAMBLE + CHECKSUM || length > LARGEST_ENVELOPE)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s of %llu bytes, stored as %llu", where,
                             (unsigned long long)at.offset, kind_name(kind), (unsigned long long)length,
                             (unsigned long long)at.bytes);
    uint8_t *stored = malloc((size_t)at.bytes + 1);
    if (!stored)
        return sap_error_memory(err, where);
    sap_envelope e = {.length = (size_t)length};
    sap_status status = sap_payload_read(file, max_key_bytes, at, stored, where, err);
    if (status == SAP_OK && at.bytes < length)
        status = sap_codec_check(stored, (size_t)at.bytes, (size_t)length, where, at.offset, err);
    if (status == SAP_OK) {
        e.data = malloc(e.length);
        status = e.data ? unpack(stored, at, &e, where, err) : sap_error_memory(err, where);
    }
    if (status == SAP_OK)
        status = check(&e, kind, at.offset, where, err);
    free(stored);
    if (status != SAP_OK) {
        free(e.data);
        return status;
    }
    *out = e;
    return SAP_OK;
}

sap_cursor sap_envelope_cursor(const sap_envelope *e) {
    return sap_cursor_init(e->data + PREAMBLE, e->length - PREAMBLE - CHECKSUM, PREAMBLE);
}

/* ---- What envelopes are made of --------------------------------------------------------------------------------- */

/* The frame's size, without the sign that tells lists, covers itself. */
static sap_cursor frame(sap_cursor *c, bool list) {
    enum { SIZE = 8 };
    int64_t size = (int64_t)sap_cursor_le64(c);
    uint64_t bytes = size < 0 ? 0 - (uint64_t)size : (uint64_t)size;
    if ((size < 0) != list || bytes < SIZE || bytes > SIZE_MAX)
        sap_cursor_fail(c, SIZE_MAX);
    return sap_cursor_sub(c, (size_t)bytes - SIZE);
}

sap_cursor sap_ntuple_record(sap_cursor *c) {
    return frame(c, false);
}

sap_cursor sap_ntuple_list(sap_cursor *c, size_t item_least, size_t *count) {
    sap_cursor inside = frame(c, true);
    uint32_t n = sap_cursor_le32(&inside);
    *count = sap_cursor_count(&inside, n, item_least);
    if (inside.failed)
        sap_cursor_fail(c, (size_t)n * item_least);
    return inside;
}

sap_locator sap_locator_parse(sap_cursor *c) {
    int32_t size = (int32_t)sap_cursor_le32(c);
    sap_locator at = {.bytes = (uint32_t)size};
    if (size >= 0) {
        at.offset = sap_cursor_le64(c);
        return at;
    }
    enum { HEAD = 4 };
    uint32_t head = 0 - (uint32_t)size, own = head & 0xffff, kind = head >> 24;
    if (own < HEAD || kind != LARGE_LOCATOR)
        sap_cursor_fail(c, SIZE_MAX);
    sap_cursor inside = sap_cursor_sub(c, own - HEAD);
    at.bytes = sap_cursor_le64(&inside);
    at.offset = sap_cursor_le64(&inside);
    if (inside.failed)
        sap_cursor_fail(c, 16);
    return at;
}

const char *sap_ntuple_text(sap_cursor *c, sap_arena *arena) {
    size_t length = sap_cursor_count(c, sap_cursor_le32(c), 1);
    const uint8_t *p = sap_cursor_take(c, length);
    const char *text = p && arena ? sap_arena_text(arena, (const char *)p, length) : NULL;
    return text ? text : "";
}

sap_status sap_features_check(sap_cursor *c, const char *where, sap_error *err) {
    for (int first = 0;; first += 63) {
        uint64_t flags = sap_cursor_le64(c);
        uint64_t known = flags & (UINT64_C(1) << 63); /* says only that more follow */
        if (flags != known)
            return sap_error_set(err, SAP_EUNSUPPORTED,
                                 "%s: the RNTuple uses feature %d of its format, which this version does not know",
                                 where, first + __builtin_ctzll(flags));
        if (!known || c->failed)
            return sap_cursor_check(c, where, "feature flags", err);
    }
}
