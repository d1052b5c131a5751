/* How fast attention is: GFLOP/s of CPU time of the kernels, forward and backward, best of several runs.
 *
 *     attention [TOKENS HEADS KEY_DIM REPEATS]
 *
 * Counted are the products alone: 2 in the forward pass, 5 in the backward one. */
#include "nn/attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static float *numbers(int64_t count) {
    float *p = aligned_alloc(64, (size_t)(count + 15) / 16 * 16 * sizeof *p);
    if (!p)
        abort();
    for (int64_t i = 0; i < count; i++)
        p[i] = (float)(i * 7919 % 1009) / 500 - 1;
    return p;
}

/* Independent multiply-adds of vectors in registers: what the processor could do. */
static double peak(const sap_kernels *kernels) {
    enum { ROWS = 60, DEPTH = 64 };
    float *w = numbers(ROWS * DEPTH), *x = numbers((int64_t)DEPTH * SAP_TILE), *y = numbers((int64_t)ROWS * SAP_TILE);
    double best = 0;
    for (int run = 0; run < 20; run++) {
        double start = now();
        for (int i = 0; i < 200; i++)
            kernels->product(&(sap_product){.rows = ROWS,
                                            .depth = DEPTH,
                                            .w = w,
                                            .row_step = DEPTH,
                                            .depth_step = 1,
                                            .width = SAP_TILE,
                                            .x = x,
                                            .y = y});
        best = fmax(best, 200 * 2e-9 * ROWS * DEPTH * SAP_TILE / (now() - start));
    }
    free(w);
    free(x);
    free(y);
    return best;
}

int main(int count, char **arguments) {
    int64_t tokens = count > 1 ? atoll(arguments[1]) : 801, heads = count > 2 ? atoll(arguments[2]) : 8;
    int64_t dim = count > 3 ? atoll(arguments[3]) : 19, repeats = count > 4 ? atoll(arguments[4]) : 7;
    int64_t values = sap_tokens_room(tokens) * heads * dim;
    sap_attention a = {.heads = heads,
                       .key_dim = dim,
                       .value_dim = dim,
                       .queries = tokens,
                       .keys = tokens,
                       .scale = 1 / sqrtf((float)dim),
                       .repeat = 1,
                       .q = numbers(values),
                       .k = numbers(values),
                       .v = numbers(values),
                       .y = numbers(values),
                       .dy = numbers(values),
                       .dq = numbers(values),
                       .dk = numbers(values),
                       .dv = numbers(values),
                       .statistic = numbers(sap_tokens_room(tokens) * heads),
                       .work = numbers(sap_attention_work(dim))};
    double product = 2.0 * (double)(tokens * tokens * heads * dim);
    for (size_t form = 1; sap_kernels_at(form); form++) {
        const sap_kernels *kernels = sap_kernels_at(form);
        double forward = 1e9, backward = 1e9;
        for (int64_t i = 0; i < repeats; i++) {
            double start = now();
            kernels->attention->forward(&a);
            double middle = now();
            kernels->attention->backward(&a);
            forward = fmin(forward, middle - start);
            backward = fmin(backward, now() - middle);
        }
        (void)printf("%-8s product %5.1f GFLOP/s; attention of %lld tokens, %lld heads of %lld: forward %5.1f GFLOP/s "
                     "(%.2f ms), backward %5.1f (%.2f ms)\n",
                     kernels->name, peak(kernels), (long long)tokens, (long long)heads, (long long)dim,
                     2e-9 * product / forward, 1e3 * forward, 5e-9 * product / backward, 1e3 * backward);
    }
    return 0;
}
