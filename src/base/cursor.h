/* A bounded cursor over bytes: the one place that turns file bytes into numbers.
 *
 * A failure sticks: after a read past the end every getter returns zero and `failed` is true, so a reader checks
 * once a record. Positions in messages are `base + position`, the offset in the file (or in the uncompressed record).
 */
#ifndef SAP_CURSOR_H
#define SAP_CURSOR_H

#include "base_internal.h"

typedef struct sap_cursor {
    const uint8_t *data;
    size_t length;
    size_t position;
    uint64_t base; /* where data[0] is, for messages */
    bool failed;
    size_t wanted;    /* bytes asked for at the first failure */
    size_t failed_at; /* position of it */
} sap_cursor;

static inline sap_cursor sap_cursor_init(const void *data, size_t length, uint64_t base) {
    return (sap_cursor){.data = (const uint8_t *)data, .length = length, .base = base};
}

static inline size_t sap_cursor_left(const sap_cursor *c) {
    return c->failed ? 0 : c->length - c->position;
}

static inline void sap_cursor_fail(sap_cursor *c, size_t wanted) {
    if (!c->failed) {
        c->failed = true;
        c->wanted = wanted;
        c->failed_at = c->position;
    }
}

/* Borrowed bytes, NULL when there are not so many. */
static inline const uint8_t *sap_cursor_take(sap_cursor *c, size_t bytes) {
    if (c->failed || bytes > c->length - c->position) {
        sap_cursor_fail(c, bytes);
        return NULL;
    }
    const uint8_t *p = c->data + c->position;
    c->position += bytes;
    return p;
}

static inline void sap_cursor_skip(sap_cursor *c, size_t bytes) {
    (void)sap_cursor_take(c, bytes);
}

static inline void sap_cursor_seek(sap_cursor *c, size_t position) {
    if (position > c->length)
        sap_cursor_fail(c, position - c->length);
    else if (!c->failed)
        c->position = position;
}

/* A child over the next n bytes, which this cursor passes over. Too few: both fail. */
static inline sap_cursor sap_cursor_sub(sap_cursor *c, size_t n) {
    uint64_t base = c->base + c->position;
    const uint8_t *p = sap_cursor_take(c, n);
    sap_cursor child = sap_cursor_init(p, p ? n : 0, base);
    child.failed = c->failed;
    return child;
}

/* `n` itself when that many items of at least min_size bytes can be left, else 0 and the cursor fails. */
static inline size_t sap_cursor_count(sap_cursor *c, uint64_t n, size_t min_size) {
    if (c->failed)
        return 0;
    if (n > (c->length - c->position) / (min_size ? min_size : 1)) {
        sap_cursor_fail(c, n > SIZE_MAX / (min_size ? min_size : 1) ? SIZE_MAX : (size_t)n * (min_size ? min_size : 1));
        return 0;
    }
    return (size_t)n;
}

/* clang-format off */
static inline uint16_t sap_be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t sap_be32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t sap_be64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline uint16_t sap_le16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t sap_le32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t sap_le64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

static inline uint8_t  sap_cursor_u8(sap_cursor *c)   { const uint8_t *p = sap_cursor_take(c, 1); return p ? *p : 0; }
static inline uint16_t sap_cursor_u16(sap_cursor *c)  { const uint8_t *p = sap_cursor_take(c, 2); return p ? sap_be16(p) : 0; }
static inline uint32_t sap_cursor_u32(sap_cursor *c)  { const uint8_t *p = sap_cursor_take(c, 4); return p ? sap_be32(p) : 0; }
static inline uint64_t sap_cursor_u64(sap_cursor *c)  { const uint8_t *p = sap_cursor_take(c, 8); return p ? sap_be64(p) : 0; }
static inline int8_t   sap_cursor_i8(sap_cursor *c)   { return (int8_t)sap_cursor_u8(c); }
static inline int16_t  sap_cursor_i16(sap_cursor *c)  { return (int16_t)sap_cursor_u16(c); }
static inline int32_t  sap_cursor_i32(sap_cursor *c)  { return (int32_t)sap_cursor_u32(c); }
static inline int64_t  sap_cursor_i64(sap_cursor *c)  { return (int64_t)sap_cursor_u64(c); }
static inline float    sap_cursor_f32(sap_cursor *c)  { uint32_t u = sap_cursor_u32(c); float f; memcpy(&f, &u, 4); return f; }
static inline double   sap_cursor_f64(sap_cursor *c)  { uint64_t u = sap_cursor_u64(c); double f; memcpy(&f, &u, 8); return f; }
static inline uint16_t sap_cursor_le16(sap_cursor *c) { const uint8_t *p = sap_cursor_take(c, 2); return p ? sap_le16(p) : 0; }
static inline uint32_t sap_cursor_le32(sap_cursor *c) { const uint8_t *p = sap_cursor_take(c, 4); return p ? sap_le32(p) : 0; }
static inline uint64_t sap_cursor_le64(sap_cursor *c) { const uint8_t *p = sap_cursor_take(c, 8); return p ? sap_le64(p) : 0; }
static inline double   sap_cursor_lef64(sap_cursor *c) { uint64_t u = sap_cursor_le64(c); double f; memcpy(&f, &u, 8); return f; }
/* clang-format on */

/* SAP_OK, or SAP_EFORMAT with `where @0x…: what needs N bytes, M left`. */
SAP_MUST_CHECK static inline sap_status sap_cursor_check(const sap_cursor *c, const char *where, const char *what,
                                                         sap_error *err) {
    if (!c->failed)
        return SAP_OK;
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s needs %zu bytes, %zu left", where,
                         (unsigned long long)(c->base + c->failed_at), what, c->wanted, c->length - c->failed_at);
}

#endif
