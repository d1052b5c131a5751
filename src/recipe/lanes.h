/* Vectors of doubles by the compiler's vector extensions: one source for every kind of processor.
 *
 * Functions that take or give vectors are always inlined, so that no call depends on how vectors are passed.
 */
#ifndef SAP_LANES_H
#define SAP_LANES_H

#include <stdint.h>
#include <string.h>

/* Clones of a function, one of them picked when the program is loaded; not under the thread sanitizer, which is not up
 * yet by then. ISO C mode contracts nothing to fused multiply-adds, so all give the same bits. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) &&                       \
    !defined(__SANITIZE_THREAD__)
#define SAP_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define SAP_CLONES
#endif

#define SAP_INLINE static inline __attribute__((always_inline))

enum { SAP_LANES = 4 };

typedef double sap_lanes __attribute__((vector_size(SAP_LANES * sizeof(double))));
typedef int64_t sap_mask __attribute__((vector_size(SAP_LANES * sizeof(int64_t)))); /* a lane is 0 or -1, or raw bits */

SAP_INLINE sap_lanes sap_lanes_all(double value) {
    return (sap_lanes){value, value, value, value};
}

SAP_INLINE sap_lanes sap_lanes_abs(sap_lanes x) {
    return (sap_lanes)((sap_mask)x & INT64_MAX);
}

/* x where the mask is set, else 0. */
SAP_INLINE sap_lanes sap_lanes_where(sap_mask mask, sap_lanes x) {
    return (sap_lanes)((sap_mask)x & mask);
}

SAP_INLINE int sap_mask_any(sap_mask mask) {
    return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
}

#endif
