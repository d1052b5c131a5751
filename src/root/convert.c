/* Stored numbers to values, in loops that the compiler turns into vector code. docs/format/ttree.md, § Numbers. */
#include "root_internal.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VECTOR_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define VECTOR_CLONES
#endif

VECTOR_CLONES static void swap2(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, in + 2 * i, 2);
        v = __builtin_bswap16(v);
        memcpy(out + 2 * i, &v, 2);
    }
}

VECTOR_CLONES static void swap4(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, in + 4 * i, 4);
        v = __builtin_bswap32(v);
        memcpy(out + 4 * i, &v, 4);
    }
}

VECTOR_CLONES static void swap8(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, in + 8 * i, 8);
        v = __builtin_bswap64(v);
        memcpy(out + 8 * i, &v, 8);
    }
}

/* befores, starts: the same places, one apart: as one table, what is loaded once for both keeps the loop from becoming vector
 * code. */
VECTOR_CLONES static uint32_t items_before(const uint8_t *befores, const uint8_t *starts, size_t n, int shift,
                                           uint32_t base, uint8_t *restrict out) {
    uint32_t origin = sap_be32(befores), wrong = 0, mask = (1u << shift) - 1u;
    for (size_t i = 0; i < n; i++) {
        uint32_t before, start;
        memcpy(&before, befores + 4 * i, 4);
        memcpy(&start, starts + 4 * i, 4);
        start = __builtin_bswap32(start);
        uint32_t bytes = start - origin, items = base + (bytes >> shift);
        wrong |= ((start - __builtin_bswap32(before)) | bytes) & 0x80000000u; /* sinks, or wraps around */
        wrong |= bytes & mask;
        memcpy(out + 4 * i, &items, 4);
    }
    return wrong;
}

bool sap_offsets_convert(const uint8_t *starts, int64_t n, int shift, int32_t base, int32_t *out) {
    return n <= 0 || items_before(starts, starts + 4, (size_t)n, shift, (uint32_t)base, (uint8_t *)out) == 0;
}

/* As above: befores and values are one table, one apart. */
VECTOR_CLONES static uint64_t narrow(const uint8_t *befores, const uint8_t *values, size_t n, uint64_t first,
                                     uint8_t *restrict out) {
    uint64_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t before, value;
        memcpy(&before, befores + 8 * i, 8);
        memcpy(&value, values + 8 * i, 8);
        uint32_t kept = (uint32_t)(value - first);
        wrong |= (value - before) | value; /* the top bit: it sinks */
        memcpy(out + 4 * i, &kept, 4);
    }
    return wrong >> 63;
}

bool sap_indices_convert(const uint8_t *values, size_t n, int32_t *out) {
    if (n == 0)
        return true;
    uint64_t first = sap_le64(values);
    out[0] = 0;
    return !(first >> 63) && narrow(values, values + 8, n - 1, first, (uint8_t *)(out + 1)) == 0;
}

static void to_bools(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++)
        out[i] = in[i] != 0;
}

static void floats_to_doubles(const uint8_t *in, size_t n, double *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = sap_be32(in + 4 * i);
        float v;
        memcpy(&v, &bits, 4);
        out[i] = (double)v;
    }
}

/* Exponent in a byte; sign and mantissa in two. */
static float short_float(const uint8_t *in, int bits) {
    uint32_t mantissa = sap_be16(in + 1), sign = mantissa & (UINT32_C(1) << (bits + 1));
    uint32_t v = (uint32_t)in[0] << 23 | (mantissa & ((UINT32_C(1) << (bits + 1)) - 1)) << (23 - bits);
    float f;
    memcpy(&f, &v, 4);
    return sign ? -f : f;
}

void sap_number_convert(const sap_number *number, const uint8_t *data, size_t n, void *out) {
    double *doubles = out;
    float *floats = out;
    switch (number->conversion) {
    case SAP_CONVERT_COPY:
        memcpy(out, data, n);
        break;
    case SAP_CONVERT_BOOL:
        to_bools(data, n, out);
        break;
    case SAP_CONVERT_SWAP2:
        swap2(data, n, out);
        break;
    case SAP_CONVERT_SWAP4:
        swap4(data, n, out);
        break;
    case SAP_CONVERT_SWAP8:
        swap8(data, n, out);
        break;
    case SAP_CONVERT_FLOAT_TO_DOUBLE:
        floats_to_doubles(data, n, doubles);
        break;
    case SAP_CONVERT_SCALED_TO_DOUBLE:
        for (size_t i = 0; i < n; i++)
            doubles[i] = (double)sap_be32(data + 4 * i) / number->factor + number->minimum;
        break;
    case SAP_CONVERT_SCALED_TO_FLOAT:
        for (size_t i = 0; i < n; i++)
            floats[i] = (float)((double)sap_be32(data + 4 * i) / number->factor + number->minimum);
        break;
    case SAP_CONVERT_SHORT_TO_DOUBLE:
        for (size_t i = 0; i < n; i++)
            doubles[i] = (double)short_float(data + 3 * i, number->bits);
        break;
    case SAP_CONVERT_SHORT_TO_FLOAT:
        for (size_t i = 0; i < n; i++)
            floats[i] = short_float(data + 3 * i, number->bits);
        break;
    }
}
