/* The hash of hash.c, for processors with AVX2: this file alone is compiled for them. */
#include "base_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t sap_hash_avx2(const void *data, size_t length, uint64_t seed) {
    return XXH3_64bits_withSeed(data, length, seed);
}
