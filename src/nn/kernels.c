/* Which forms of the kernels this processor can run. */
#include "kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const sap_kernels sap_kernels_plain, sap_kernels_128;
#if defined(__x86_64__)
extern const sap_kernels sap_kernels_avx2, sap_kernels_avx512;
#endif

const sap_kernels *sap_kernels_at(size_t index) {
    if (index == 0)
        return &sap_kernels_plain;
    if (index == 1)
        return &sap_kernels_128;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (index == 2 && avx2)
        return &sap_kernels_avx2;
    if (index == 3 && avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return &sap_kernels_avx512;
#endif
    return NULL;
}

const sap_kernels *sap_kernels_best(void) {
    const sap_kernels *best = sap_kernels_at(0);
    for (size_t i = 1; sap_kernels_at(i); i++)
        best = sap_kernels_at(i);
    return best;
}

sap_kernels sap_kernels_with_tiles(const sap_kernels *base, const sap_kernels *tiles) {
    sap_kernels joined = *base;
    joined.name = tiles->name;
    joined.product = tiles->product;
    joined.outer = tiles->outer;
    joined.recurrent = tiles->recurrent;
    return joined;
}

#if defined(__x86_64__) && defined(__linux__)

extern const sap_kernels sap_kernels_amx;

/* Whether the system saves the tiles of a process that asked for them (Linux 5.16, asm/prctl.h). It is asked once. */
static bool may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILE_STATES = 3 << 17 };
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & TILE_STATES) == TILE_STATES && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static sap_kernels amx;

static void join_amx(void) {
    amx = sap_kernels_with_tiles(sap_kernels_at(3), &sap_kernels_amx);
}

const sap_kernels *sap_kernels_bf16(void) {
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (sap_kernels_at(3) == NULL || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return NULL;
    if (!(d & AMX_BF16) || !(d & AMX_TILE) || !may_use_tiles())
        return NULL;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    return pthread_once(&once, join_amx) == 0 ? &amx : NULL;
}

#else

const sap_kernels *sap_kernels_bf16(void) {
    return NULL;
}

#endif
