/* Which forms of the kernels this processor can run. */
#include "kernels.h"

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
