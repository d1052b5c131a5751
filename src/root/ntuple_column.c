/* RNTuple's column types and the decoding of a page of each. docs/format/rntuple.md, § Column types. */
#include "ntuple.h"

/* ---- Types ----------------------------------------------------------------------------------------------------- */

static const sap_column_type types[] = {
    [0x00] = {"Bit", SAP_ENCODING_BITS, 1, 1, SAP_BOOL, 1},
    [0x01] = {"Byte", SAP_ENCODING_PLAIN, 8, 8, SAP_UINT8, 1},
    [0x02] = {"Char", SAP_ENCODING_PLAIN, 8, 8, SAP_UINT8, 1},
    [0x03] = {"Int8", SAP_ENCODING_PLAIN, 8, 8, SAP_INT8, 1},
    [0x04] = {"UInt8", SAP_ENCODING_PLAIN, 8, 8, SAP_UINT8, 1},
    [0x05] = {"Int16", SAP_ENCODING_PLAIN, 16, 16, SAP_INT16, 2},
    [0x06] = {"UInt16", SAP_ENCODING_PLAIN, 16, 16, SAP_UINT16, 2},
    [0x07] = {"Int32", SAP_ENCODING_PLAIN, 32, 32, SAP_INT32, 4},
    [0x08] = {"UInt32", SAP_ENCODING_PLAIN, 32, 32, SAP_UINT32, 4},
    [0x09] = {"Int64", SAP_ENCODING_PLAIN, 64, 64, SAP_INT64, 8},
    [0x0A] = {"UInt64", SAP_ENCODING_PLAIN, 64, 64, SAP_UINT64, 8},
    [0x0B] = {"Real16", SAP_ENCODING_PLAIN, 16, 16, SAP_FLOAT16, 2},
    [0x0C] = {"Real32", SAP_ENCODING_PLAIN, 32, 32, SAP_FLOAT32, 4},
    [0x0D] = {"Real64", SAP_ENCODING_PLAIN, 64, 64, SAP_FLOAT64, 8},
    [0x0E] = {"Index32", SAP_ENCODING_INDEX, 32, 32, SAP_TYPE_NONE, 8},
    [0x0F] = {"Index64", SAP_ENCODING_INDEX, 64, 64, SAP_TYPE_NONE, 8},
    [0x10] = {"Switch", SAP_ENCODING_SWITCH, 96, 96, SAP_TYPE_NONE, 12},
    [0x11] = {"SplitInt16", SAP_ENCODING_ZIGZAG, 16, 16, SAP_INT16, 2},
    [0x12] = {"SplitUInt16", SAP_ENCODING_SPLIT, 16, 16, SAP_UINT16, 2},
    [0x13] = {"SplitInt32", SAP_ENCODING_ZIGZAG, 32, 32, SAP_INT32, 4},
    [0x14] = {"SplitUInt32", SAP_ENCODING_SPLIT, 32, 32, SAP_UINT32, 4},
    [0x15] = {"SplitInt64", SAP_ENCODING_ZIGZAG, 64, 64, SAP_INT64, 8},
    [0x16] = {"SplitUInt64", SAP_ENCODING_SPLIT, 64, 64, SAP_UINT64, 8},
    [0x17] = {"SplitReal16", SAP_ENCODING_SPLIT, 16, 16, SAP_FLOAT16, 2},
    [0x18] = {"SplitReal32", SAP_ENCODING_SPLIT, 32, 32, SAP_FLOAT32, 4},
    [0x19] = {"SplitReal64", SAP_ENCODING_SPLIT, 64, 64, SAP_FLOAT64, 8},
    [0x1A] = {"SplitIndex32", SAP_ENCODING_DELTA, 32, 32, SAP_TYPE_NONE, 8},
    [0x1B] = {"SplitIndex64", SAP_ENCODING_DELTA, 64, 64, SAP_TYPE_NONE, 8},
    [0x1C] = {"Real32Trunc", SAP_ENCODING_TRUNCATED, 10, 31, SAP_FLOAT32, 4},
    [0x1D] = {"Real32Quant", SAP_ENCODING_QUANTIZED, 1, 32, SAP_FLOAT32, 4},
};

const sap_column_type *sap_column_type_get(uint16_t type) {
    return type < sizeof types / sizeof *types ? &types[type] : NULL;
}

/* ---- Split: all first bytes, then all second bytes, … --------------------------------------------------------------- */

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t shorts8 __attribute__((vector_size(16)));
typedef uint32_t ints4 __attribute__((vector_size(16)));
typedef uint64_t longs2 __attribute__((vector_size(16)));

enum { LANES = 16 };

static inline bytes16 load(const uint8_t *p) {
    bytes16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* One by one: copied as a whole, an array of vectors goes by way of the stack. */
static inline void store(bytes16 v, uint8_t *p) {
    memcpy(p, &v, sizeof v);
}

/* The low and the high halves of a and b, lane by lane. */
static inline shorts8 low8(bytes16 a, bytes16 b) {
    return (shorts8)__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

static inline shorts8 high8(bytes16 a, bytes16 b) {
    return (shorts8)__builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

static inline ints4 low16(shorts8 a, shorts8 b) {
    return (ints4)__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline ints4 high16(shorts8 a, shorts8 b) {
    return (ints4)__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

static inline longs2 low32(ints4 a, ints4 b) {
    return (longs2)__builtin_shufflevector(a, b, 0, 4, 1, 5);
}

static inline longs2 high32(ints4 a, ints4 b) {
    return (longs2)__builtin_shufflevector(a, b, 2, 6, 3, 7);
}

/* § Zigzag: 0, 1, 2, 3, 4 stand for 0, −1, 1, −2, 2. */
#define ZIGZAG(x) (((x) >> 1) ^ (0 - ((x)&1)))

/* n numbers, `apart` bytes lying between a byte of one and its next. */
static inline __attribute__((always_inline)) void unsplit2(const uint8_t *page, size_t apart, size_t n, bool zigzag,
                                                           uint8_t *out) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        bytes16 a = load(page + i), b = load(page + apart + i);
        shorts8 v[2] = {low8(a, b), high8(a, b)};
        for (size_t k = 0; k < 2; k++)
            store((bytes16)(zigzag ? ZIGZAG(v[k]) : v[k]), out + 2 * i + 16 * k);
    }
    for (; i < n; i++) {
        uint16_t v = (uint16_t)(page[i] | page[apart + i] << 8);
        if (zigzag)
            v = (uint16_t)ZIGZAG(v);
        memcpy(out + 2 * i, &v, sizeof v);
    }
}

/* Sixteen numbers of four bytes each. */
static inline __attribute__((always_inline)) void join4(const uint8_t *page, size_t apart, ints4 out[4]) {
    bytes16 a = load(page), b = load(page + apart), c = load(page + 2 * apart), d = load(page + 3 * apart);
    shorts8 ab = low8(a, b), cd = low8(c, d), ab2 = high8(a, b), cd2 = high8(c, d);
    out[0] = low16(ab, cd);
    out[1] = high16(ab, cd);
    out[2] = low16(ab2, cd2);
    out[3] = high16(ab2, cd2);
}

/* One number of `size` bytes. */
static inline uint64_t join(const uint8_t *page, size_t apart, size_t size) {
    uint64_t v = 0;
    for (size_t k = 0; k < size; k++)
        v |= (uint64_t)page[k * apart] << (8 * k);
    return v;
}

static inline __attribute__((always_inline)) void unsplit4(const uint8_t *page, size_t apart, size_t n, bool zigzag,
                                                           uint8_t *out) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        ints4 v[4];
        join4(page + i, apart, v);
        for (size_t k = 0; k < 4; k++)
            store((bytes16)(zigzag ? ZIGZAG(v[k]) : v[k]), out + 4 * i + 16 * k);
    }
    for (; i < n; i++) {
        uint32_t v = (uint32_t)join(page + i, apart, sizeof v);
        if (zigzag)
            v = ZIGZAG(v);
        memcpy(out + 4 * i, &v, sizeof v);
    }
}

static inline __attribute__((always_inline)) void unsplit8(const uint8_t *page, size_t apart, size_t n, bool zigzag,
                                                           uint8_t *out) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        ints4 half[2][4];
        join4(page + i, apart, half[0]);
        join4(page + 4 * apart + i, apart, half[1]);
        for (size_t k = 0; k < 4; k++) {
            longs2 v[2] = {low32(half[0][k], half[1][k]), high32(half[0][k], half[1][k])};
            for (size_t j = 0; j < 2; j++)
                store((bytes16)(zigzag ? ZIGZAG(v[j]) : v[j]), out + 8 * i + 32 * k + 16 * j);
        }
    }
    for (; i < n; i++) {
        uint64_t v = join(page + i, apart, sizeof v);
        if (zigzag)
            v = ZIGZAG(v);
        memcpy(out + 8 * i, &v, sizeof v);
    }
}

static void unsplit(const uint8_t *page, size_t apart, size_t n, size_t size, uint8_t *out) {
    if (size == 2)
        unsplit2(page, apart, n, false, out);
    else if (size == 4)
        unsplit4(page, apart, n, false, out);
    else
        unsplit8(page, apart, n, false, out);
}

static void unzigzag(const uint8_t *page, size_t apart, size_t n, size_t size, uint8_t *out) {
    if (size == 2)
        unsplit2(page, apart, n, true, out);
    else if (size == 4)
        unsplit4(page, apart, n, true, out);
    else
        unsplit8(page, apart, n, true, out);
}

/* ---- Indices ------------------------------------------------------------------------------------------------------- */

/* § Delta: each but the first is the difference to the one before. */
static void undelta(const uint8_t *page, size_t apart, size_t n, size_t bits, uint64_t *out) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += join(page + i, apart, bits / 8);
        out[i] = bits == 64 ? sum : (uint32_t)sum;
    }
}

/* To each lane, those before it are added. */
static inline ints4 running_sum(ints4 v) {
    const ints4 none = {0};
    v += __builtin_shufflevector(none, v, 0, 4, 5, 6);
    return v + __builtin_shufflevector(none, v, 0, 1, 4, 5);
}

bool sap_deltas_sum(const uint8_t *page, size_t n, size_t bits, uint64_t *first, int32_t *out) {
    const size_t size = bits / 8, half = 4;
    *first = join(page, n, size);
    out[0] = 0;
    ints4 sums = {0}, low = {0}; /* low: of all differences and sums, whose top bit must not be set */
    bytes16 high = {0};          /* the upper halves of the differences */
    size_t i = 1;
    for (; i + LANES <= n; i += LANES) {
        ints4 v[4];
        join4(page + i, n, v);
        for (size_t k = half; k < size; k++)
            high |= load(page + k * n + i);
        for (size_t k = 0; k < 4; k++) {
            low |= v[k];
            v[k] = running_sum(v[k]) + sums;
            low |= v[k];
            sums = __builtin_shufflevector(v[k], v[k], 3, 3, 3, 3);
            store((bytes16)v[k], (uint8_t *)(out + i + 4 * k));
        }
    }
    longs2 highs = (longs2)high;
    uint64_t sum = sums[0], wrong = highs[0] | highs[1] | (low[0] | low[1] | low[2] | low[3]) >> 31;
    for (; i < n; i++) {
        uint64_t difference = join(page + i, n, size);
        sum += difference;
        wrong |= (difference | sum) >> 31;
        out[i] = (int32_t)(uint32_t)sum;
    }
    return wrong == 0 && (*first | (*first + sum)) >> (bits == 64 ? 63 : 32) == 0;
}

static void plain_index(const uint8_t *page, size_t n, size_t bits, uint64_t *out) {
    if (bits == 64) {
        memcpy(out, page, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = sap_le32(page + 4 * i);
}

/* ---- Packed bits ------------------------------------------------------------------------------------------------------ */

static void unpack_bits(const uint8_t *page, size_t begin, size_t n, uint8_t *out) {
    const uint64_t ones = UINT64_C(0x0101010101010101), each = UINT64_C(0x8040201008040201);
    size_t i = 0;
    page += begin / 8;
    for (begin %= 8; begin && begin < 8 && n > 0; n--) /* up to a whole byte */
        *out++ = *page >> begin++ & 1;
    page += begin == 8;
    for (; i + 8 <= n; i += 8) { /* byte k keeps bit k alone, which then becomes 0 or 1 */
        uint64_t v = (page[i / 8] * ones) & each;
        v = (v + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7 & ones;
        memcpy(out + i, &v, sizeof v);
    }
    for (; i < n; i++)
        out[i] = page[i / 8] >> (i % 8) & 1;
}

/* Number i of those that stand in `bits` bits each, one after another, the lowest bit first. */
static inline uint32_t packed(const uint8_t *page, size_t bytes, size_t i, unsigned bits) {
    size_t at = i * bits;
    uint64_t v = 0;
    if (at / 8 + sizeof v <= bytes)
        v = sap_le64(page + at / 8);
    else
        memcpy(&v, page + at / 8, bytes - at / 8);
    return (uint32_t)(v >> (at % 8) & ((UINT64_C(1) << bits) - 1));
}

static void untruncate(const uint8_t *page, size_t begin, size_t n, unsigned bits, uint8_t *out) {
    size_t bytes = ((begin + n) * bits + 7) / 8;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = packed(page, bytes, begin + i, bits) << (32 - bits);
        memcpy(out + 4 * i, &v, sizeof v);
    }
}

/* § Real32Quant, in ROOT's own order of operations */
static void unquantize(const sap_ntuple_column *c, const uint8_t *page, size_t begin, size_t n, uint8_t *out) {
    size_t bytes = ((begin + n) * c->bits + 7) / 8;
    double scale = (c->maximum - c->minimum) / (double)((UINT64_C(1) << c->bits) - 1);
    for (size_t i = 0; i < n; i++) {
        float v = (float)((double)packed(page, bytes, begin + i, c->bits) * scale + c->minimum);
        memcpy(out + 4 * i, &v, sizeof v);
    }
}

/* ---- Pages ---------------------------------------------------------------------------------------------------------------- */

void sap_page_decode(const sap_ntuple_column *column, const uint8_t *page, size_t elements, size_t begin, size_t n,
                     void *out) {
    const sap_column_type *type = &types[column->type];
    switch (type->encoding) {
    case SAP_ENCODING_UNKNOWN:
        break;
    case SAP_ENCODING_BITS:
        unpack_bits(page, begin, n, out);
        break;
    case SAP_ENCODING_PLAIN:
    case SAP_ENCODING_SWITCH:
        memcpy(out, page + begin * type->size, n * type->size);
        break;
    case SAP_ENCODING_SPLIT:
        unsplit(page + begin, elements, n, type->size, out);
        break;
    case SAP_ENCODING_ZIGZAG:
        unzigzag(page + begin, elements, n, type->size, out);
        break;
    case SAP_ENCODING_INDEX:
        plain_index(page + begin * (column->bits / 8), n, column->bits, out);
        break;
    case SAP_ENCODING_DELTA:
        undelta(page, elements, n, column->bits, out);
        break;
    case SAP_ENCODING_TRUNCATED:
        untruncate(page, begin, n, column->bits, out);
        break;
    case SAP_ENCODING_QUANTIZED:
        unquantize(column, page, begin, n, out);
        break;
    }
}

/* IEEE binary16 to binary32, exactly. */
static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff, v;
    if (exponent == 0) { /* a multiple of 2^−24 */
        float f = (float)fraction * 0x1p-24f;
        memcpy(&v, &f, sizeof v);
        v |= sign;
    } else {
        v = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    }
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}

void sap_floats_widen(sap_type from, const void *values, size_t n, sap_type to, void *out) {
    for (size_t i = 0; i < n; i++) {
        float f;
        if (from == SAP_FLOAT16)
            f = half_to_float(sap_le16((const uint8_t *)values + 2 * i));
        else
            memcpy(&f, (const uint8_t *)values + 4 * i, sizeof f);
        if (to == SAP_FLOAT32)
            memcpy((uint8_t *)out + 4 * i, &f, sizeof f);
        else
            memcpy((uint8_t *)out + 8 * i, &(double){f}, sizeof(double));
    }
}
