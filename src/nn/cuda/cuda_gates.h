/* A step of a GRU or LSTM in float32, once its sums are known, and its gradients: what the general forms share. */
#ifndef SAP_CUDA_GATES_H
#define SAP_CUDA_GATES_H

#include "../activation_formulas.h"
#include "cuda_recurrent.h"

/* Launches the steps of `rows` rows a block, with the recurrent kernel in shared memory where it fits beside the states. */
template <class F>
static inline void launch_chain(F kernel, cudaStream_t stream, const recurrent &p, const recurrent_kept &kept,
                                int64_t most_rows, int rows, size_t states, size_t recurrent_kernel,
                                size_t shared_most) {
    bool in_shared = states + recurrent_kernel <= shared_most;
    size_t shared = in_shared ? states + recurrent_kernel : states;
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    SAP_LAUNCH(kernel, dim3((unsigned)((most_rows + rows - 1) / rows)), dim3(SAP_THREADS), shared, stream, p, kept,
               in_shared);
}

/* The state of unit j after the step at a position, and what the step keeps. sums: what each gate gets from the state, with its bias. */
__device__ static inline float gru_gates(const recurrent &p, const recurrent_kept &kept, int64_t at, int j,
                                         const float *sums, float h) {
    int n = p.units;
    const float *x = kept.projected + at * 3 * n;
    float z = sap_activation_value(p.recurrent_activation, x[j] + sums[0]);
    float r = sap_activation_value(p.recurrent_activation, x[n + j] + sums[1]);
    float a = sap_activation_value(p.activation, x[2 * n + j] + r * sums[2]);
    float *v = kept.values + at * 4 * n + j;
    v[0] = z;
    v[n] = r;
    v[2 * n] = a;
    v[3 * n] = sums[2];
    kept.h[at * n + j] = h;
    return z * h + (1 - z) * a;
}

/* The same; the biases are in x W already. c: the unit's */
__device__ static inline float lstm_gates(const recurrent &p, const recurrent_kept &kept, int64_t at, int j,
                                          const float *sums, float h, float *c) {
    int n = p.units;
    const float *x = kept.projected + at * 4 * n;
    float g[4];
    for (int q = 0; q < 4; q++)
        g[q] = sap_activation_value(q == 2 ? p.activation : p.recurrent_activation, x[q * n + j] + sums[q]);
    float *v = kept.values + at * 5 * n + j;
    kept.h[at * n + j] = h;
    kept.c[at * n + j] = *c;
    *c = g[1] * *c + g[0] * g[2];
    float t = sap_activation_value(p.activation, *c);
    for (int q = 0; q < 4; q++)
        v[q * n] = g[q];
    v[4 * n] = t;
    return g[3] * t;
}

/* Gradients of a step's gates from that of the state after it; gives the part of the state before that goes around U. */
__device__ static inline float gru_back(const recurrent &p, const recurrent_kept &kept, int64_t at, int j, float dh) {
    int n = p.units;
    const float *v = kept.values + at * 4 * n + j;
    float z = v[0], r = v[n], a = v[2 * n], m = v[3 * n], h = kept.h[at * n + j];
    float da = dh * (1 - z) * sap_activation_slope(p.activation, 0, a);
    float dz = dh * (h - a) * sap_activation_slope(p.recurrent_activation, 0, z);
    float dr = da * m * sap_activation_slope(p.recurrent_activation, 0, r);
    float *dx = kept.d_input + at * 3 * n + j, *du = kept.d_recurrent + at * 3 * n + j;
    dx[0] = du[0] = dz;
    dx[n] = du[n] = dr;
    dx[2 * n] = da;
    du[2 * n] = da * r;
    return dh * z;
}

__device__ static inline void lstm_back(const recurrent &p, const recurrent_kept &kept, int64_t at, int j, float dh,
                                        float *dc) {
    int n = p.units;
    const float *v = kept.values + at * 5 * n + j;
    float i = v[0], f = v[n], a = v[2 * n], o = v[3 * n], t = v[4 * n];
    float d = *dc + dh * o * sap_activation_slope(p.activation, 0, t);
    float *dx = kept.d_input + at * 4 * n + j;
    dx[0] = d * a * sap_activation_slope(p.recurrent_activation, 0, i);
    dx[n] = d * kept.c[at * n + j] * sap_activation_slope(p.recurrent_activation, 0, f);
    dx[2 * n] = d * i * sap_activation_slope(p.activation, 0, a);
    dx[3 * n] = dh * t * sap_activation_slope(p.recurrent_activation, 0, o);
    *dc = d * f;
}

#endif
