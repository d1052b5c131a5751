/* Hashing, by xxHash. */
#include "base_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t sap_hash(const void *data, size_t length, uint64_t seed) {
#ifdef SAP_HASH_AVX2
    enum { LONG = 256 }; /* what is shorter takes other ways */
    if (length > LONG && __builtin_cpu_supports("avx2"))
        return sap_hash_avx2(data, length, seed);
#endif
    return XXH3_64bits_withSeed(data, length, seed);
}
