/* Times the recurrent kernels alone, on one tile, beside the peak of a core measured in the same run.
 *
 *     recurrent_kernels [CELL [INPUTS [UNITS [STEPS [WIDTH [ROUNDS]]]]]]
 *
 * CELL: gru, lstm or simple. Prints for each form of the kernels, best round by CPU time: milliseconds of forward and
 * backward, GFLOP/s (products only, 2 a multiplication), the share of the peak, and rows a second.
 */
#include "nn/recurrent.h"
#include "peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *numbers(int64_t count, float size) {
    static uint32_t state = 1;
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    if (!p)
        exit(1);
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        p[i] = size * ((float)(state >> 8) * 0x1p-23F - 1);
    }
    return p;
}

static int64_t argument(int argc, char **argv, int i, int64_t standard) {
    return i < argc ? strtoll(argv[i], NULL, 10) : standard;
}

typedef struct times {
    double forward, backward; /* seconds of CPU */
} times;

static times measure(const sap_recurrent_kernels *k, const sap_recurrent *r, int64_t rounds) {
    times best = {1e9, 1e9};
    for (int64_t i = 0; i < rounds; i++) {
        double start = cpu_seconds();
        k->forward(r);
        double middle = cpu_seconds();
        k->backward(r);
        double end = cpu_seconds();
        best.forward = middle - start < best.forward ? middle - start : best.forward;
        best.backward = end - middle < best.backward ? end - middle : best.backward;
    }
    return best;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "gru";
    sap_cell cell = strcmp(name, "lstm") == 0     ? SAP_CELL_LSTM
                    : strcmp(name, "simple") == 0 ? SAP_CELL_SIMPLE
                                                  : SAP_CELL_GRU;
    int64_t inputs = argument(argc, argv, 2, 19), units = argument(argc, argv, 3, 50),
            count = argument(argc, argv, 4, 801);
    int64_t width = argument(argc, argv, 5, 64), rounds = argument(argc, argv, 6, 3), gates = sap_cell_gates(cell);
    sap_steps steps = {.count = (int32_t)count, .part_count = 1, .parts = {{0, (int32_t)count, (int32_t)width, 0}}};
    for (int64_t c = 0; c < width; c++)
        steps.length[c] = (int32_t)count;
    sap_recurrent r = {
        .cell = cell,
        .inputs = inputs,
        .units = units,
        .activation = {.kind = SAP_TANH},
        .recurrent_activation = {.kind = SAP_SIGMOID},
        .kernel = numbers(inputs * gates * units, 0.2F),
        .recurrent_kernel = numbers(units * gates * units, 0.2F),
        .bias = numbers(2 * gates * units, 0.1F),
        .steps = &steps,
        .x = numbers(count * inputs * width, 1),
        .last = numbers(units * width, 0),
        .d_last = numbers(units * width, 1e-3F),
        .last_width = (int)width,
        .d_kernel = numbers(inputs * gates * units, 0),
        .d_recurrent_kernel = numbers(units * gates * units, 0),
        .d_bias = numbers(2 * gates * units, 0),
    };
    r.kept = numbers(sap_recurrent_kept(&r, count), 0);
    r.work = numbers(sap_recurrent_work(&r, true), 0);
    double forward = 2.0 * (double)(gates * units * (inputs + units)) * (double)(width * count);
    double backward = forward + 2.0 * (double)(gates * units * units) * (double)(width * count);
    double peak = measure_peak();
    printf("peak of a core: %.1f GFLOP/s\n", peak);
    for (size_t i = 1; sap_kernels_at(i); i++) {
        const sap_kernels *k = sap_kernels_at(i);
        times t = measure(k->recurrent, &r, rounds);
        double both = t.forward + t.backward, rate = (forward + backward) / both * 1e-9;
        printf("%s %s %lld -> %lld, %lld steps of %lld rows: forward %.2f ms (%.1f GFLOP/s), backward %.2f ms (%.1f), "
               "together %.1f GFLOP/s = %.0f %% of peak, %.0f rows/s\n",
               k->name, name, (long long)inputs, (long long)units, (long long)count, (long long)width, 1e3 * t.forward,
               forward / t.forward * 1e-9, 1e3 * t.backward, backward / t.backward * 1e-9, rate, 100 * rate / peak,
               (double)width / both);
    }
    return 0;
}
