/* CRC-32C (Castagnoli), with the processor's instruction where it has one, and the masked form that TFRecord files carry. */
#include "base_internal.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

static uint32_t crc_table[256];

__attribute__((constructor)) static void fill_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82F63B78) : crc >> 1;
        crc_table[i] = crc;
    }
}

uint32_t sap_crc32c_plain(uint32_t crc, const void *data, size_t length) {
    const uint8_t *p = data;
    crc = ~crc;
    for (size_t i = 0; i < length; i++)
        crc = crc >> 8 ^ crc_table[(crc ^ p[i]) & 255];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse(uint32_t crc, const uint8_t *p, size_t length) {
    uint64_t state = ~crc;
    for (; length >= 8; p += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        state = _mm_crc32_u64(state, word);
    }
    uint32_t tail = (uint32_t)state;
    for (; length > 0; p++, length--)
        tail = _mm_crc32_u8(tail, *p);
    return ~tail;
}
#endif

uint32_t sap_crc32c(uint32_t crc, const void *data, size_t length) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse(crc, data, length);
#endif
    return sap_crc32c_plain(crc, data, length);
}

uint32_t sap_crc32c_masked(const void *data, size_t length) {
    uint32_t crc = sap_crc32c(0, data, length);
    return (crc >> 15 | crc << 17) + UINT32_C(0xA282EAD8);
}
