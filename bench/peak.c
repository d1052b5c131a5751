/* Measures the float32 peak of a core. */
#include "peak.h"

#include <stdint.h>
#include <time.h>

double cpu_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { ROUNDS = 4000000, TRIES = 5 };

/* Keeps the compiler from seeing that a round could be merged with the next. */
#if defined(__x86_64__)
#define KEEP(value) __asm__("" : "+x"(value))
#else
#define KEEP(value) __asm__("" : "+w"(value))
#endif

/* CHAINS sums in registers hide the latency of a multiply-add: 4 cycles, 2 a cycle; twice that to be safe. */
#define CHAINS 12
#define PEAK(name, floats, ...)                                                                                        \
    __VA_ARGS__ static double name(void) {                                                                             \
        typedef float vec __attribute__((vector_size((floats)*4)));                                                    \
        vec sum[CHAINS], factor = {0}, term = {0};                                                                     \
        volatile float one = 1, small = 1e-9F;                                                                         \
        factor += one;                                                                                                 \
        term += small;                                                                                                 \
        _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) sum[i] = term * (float)i;                            \
        double start = cpu_seconds();                                                                                  \
        for (int64_t round = 0; round < ROUNDS; round++) {                                                             \
            _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) {                                                \
                sum[i] = sum[i] * factor + term;                                                                       \
                KEEP(sum[i]);                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        double seconds = cpu_seconds() - start;                                                                        \
        _Pragma("GCC unroll 16") for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];                                    \
        volatile float used = sum[0][0];                                                                               \
        (void)used;                                                                                                    \
        return 2.0 * (floats)*CHAINS * ROUNDS / seconds * 1e-9;                                                        \
    }

#if defined(__x86_64__)
PEAK(peak_512, 16, __attribute__((target("avx512f"))))
PEAK(peak_256, 8, __attribute__((target("avx2,fma"))))
PEAK(peak_128, 4, )
#else
PEAK(peak_128, 4, )
#endif

double measure_peak(void) {
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
#if defined(__x86_64__)
        double rate = __builtin_cpu_supports("avx512f")                                 ? peak_512()
                      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? peak_256()
                                                                                        : peak_128();
#else
        double rate = peak_128();
#endif
        best = rate > best ? rate : best;
    }
    return best;
}
