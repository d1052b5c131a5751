/* GRU and LSTM in float32, any size: a block takes a few rows through all their steps. Products that do not wait for the step
 * before (x W, and all gradients of weights and inputs) are taken for all positions at once elsewhere.
 */
#include "cuda_gates.h"

namespace {

enum { ROWS = 4 }; /* of a block */

/* Shared memory: states of the rows, twice, and the recurrent kernel where it fits. */
struct chain_space {
    float *h, *next, *c; /* (ROWS, units) */
    const float *u;      /* the recurrent kernel, in shared or global memory */
};

size_t chain_bytes(int32_t units) {
    return (size_t)ROWS * 3 * (size_t)units * sizeof(float);
}

size_t kernel_bytes(const recurrent &p) {
    return (size_t)p.units * recurrent_gates(p.lstm) * p.units * sizeof(float);
}

__device__ chain_space place(const recurrent &p, char *raw, bool in_shared) {
    chain_space s;
    int32_t states = ROWS * p.units;
    s.h = (float *)raw;
    s.next = s.h + states;
    s.c = s.next + states;
    s.u = p.recurrent_kernel;
    if (in_shared) {
        float *u = s.c + states;
        for (int i = (int)threadIdx.x; i < p.units * (p.lstm ? 4 : 3) * p.units; i += SAP_THREADS)
            u[i] = p.recurrent_kernel[i];
        s.u = u;
    }
    for (int i = (int)threadIdx.x; i < states; i += SAP_THREADS)
        s.h[i] = s.next[i] = s.c[i] = 0;
    __syncthreads();
    return s;
}

/* Σ_k h[k] u[k][column] */
__device__ inline float product(const float *h, const float *u, int32_t units, int32_t columns, int32_t column) {
    float sum = 0;
    for (int k = 0; k < units; k++)
        sum += h[k] * u[k * columns + column];
    return sum;
}

/* The state of unit j after a step, and what the step keeps. */
__device__ float gru_step(const recurrent &p, const recurrent_kept &kept, const float *u, int64_t at, int j,
                          const float *h) {
    int n = p.units;
    float sums[3];
    for (int q = 0; q < 3; q++)
        sums[q] = product(h, u, n, 3 * n, q * n + j) + (p.bias ? p.bias[(3 + q) * n + j] : 0);
    return gru_gates(p, kept, at, j, sums, h[j]);
}

__device__ float lstm_step(const recurrent &p, const recurrent_kept &kept, const float *u, int64_t at, int j,
                           const float *h, float *c) {
    int n = p.units;
    float sums[4];
    for (int q = 0; q < 4; q++)
        sums[q] = product(h, u, n, 4 * n, q * n + j);
    return lstm_gates(p, kept, at, j, sums, h[j], &c[j]);
}

__global__ void __launch_bounds__(SAP_THREADS)
    forward(const __grid_constant__ recurrent p, const __grid_constant__ recurrent_kept kept, bool in_shared) {
    SAP_SHARED(raw);
    chain_space s = place(p, raw, in_shared);
    int n = p.units;
    int64_t first = (int64_t)blockIdx.x * ROWS;
    int rows = (int)max((int64_t)0, min((int64_t)ROWS, *p.at.rows - first));
    int32_t longest = 0;
    for (int r = 0; r < rows; r++)
        longest = max(longest, row_steps(p.at, first + r));
    for (int32_t t = 0; t < longest; t++) {
        for (int i = (int)threadIdx.x; i < rows * n; i += SAP_THREADS) {
            int r = i / n, j = i % n;
            int32_t steps = row_steps(p.at, first + r);
            float state = s.h[i];
            if (t < steps) {
                int64_t at = first_step(p.at, first + r) + (p.backwards ? steps - 1 - t : t);
                state = p.lstm ? lstm_step(p, kept, s.u, at, j, s.h + r * n, s.c + r * n)
                               : gru_step(p, kept, s.u, at, j, s.h + r * n);
                if (p.y)
                    p.y[at * n + j] = state;
            }
            s.next[i] = state;
        }
        __syncthreads();
        float *swap = s.h;
        s.h = s.next;
        s.next = swap;
    }
    for (int i = (int)threadIdx.x; p.last && i < rows * n; i += SAP_THREADS)
        p.last[first * n + i] = s.h[i];
}

__global__ void __launch_bounds__(SAP_THREADS)
    backward(const __grid_constant__ recurrent p, const __grid_constant__ recurrent_kept kept, bool in_shared) {
    SAP_SHARED(raw);
    chain_space s = place(p, raw, in_shared);
    int n = p.units, gates = p.lstm ? 4 : 3;
    int64_t first = (int64_t)blockIdx.x * ROWS;
    int rows = (int)max((int64_t)0, min((int64_t)ROWS, *p.at.rows - first));
    int32_t longest = 0;
    for (int r = 0; r < rows; r++)
        longest = max(longest, row_steps(p.at, first + r));
    for (int i = (int)threadIdx.x; p.d_last && i < rows * n; i += SAP_THREADS)
        s.h[i] = p.d_last[first * n + i];
    __syncthreads();
    for (int32_t t = longest - 1; t >= 0; t--) {
        for (int i = (int)threadIdx.x; i < rows * n; i += SAP_THREADS) {
            int r = i / n, j = i % n;
            int32_t steps = row_steps(p.at, first + r);
            s.next[i] = s.h[i];
            if (t >= steps)
                continue;
            int64_t at = first_step(p.at, first + r) + (p.backwards ? steps - 1 - t : t);
            float dh = s.h[i] + (p.dy ? p.dy[at * n + j] : 0);
            if (p.lstm)
                lstm_back(p, kept, at, j, dh, &s.c[i]);
            s.next[i] = p.lstm ? 0 : gru_back(p, kept, at, j, dh);
        }
        __syncthreads(); /* and the gates' gradients are seen by the whole block */
        for (int i = (int)threadIdx.x; i < rows * n; i += SAP_THREADS) {
            int r = i / n, j = i % n;
            int32_t steps = row_steps(p.at, first + r);
            float sum = s.next[i];
            int64_t at = first_step(p.at, first + r) + (p.backwards ? steps - 1 - t : t);
            for (int g = 0; t < steps && g < gates * n; g++)
                sum += kept.d_recurrent[at * gates * n + g] * s.u[j * gates * n + g];
            s.h[i] = sum;
        }
        __syncthreads();
    }
}

template <class F>
void launch_chain(F kernel, cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                  size_t shared_most) {
    size_t shared = chain_bytes(p.units), with_kernel = shared + kernel_bytes(p);
    bool in_shared = with_kernel <= shared_most;
    shared = in_shared ? with_kernel : shared;
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    SAP_LAUNCH(kernel, dim3((unsigned)((most_rows + ROWS - 1) / ROWS)), dim3(SAP_THREADS), shared, stream, p, kept,
               in_shared);
}

} // namespace

void launch_recurrent(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                      size_t shared_most) {
    launch_chain(forward, stream, p, kept, most_rows, shared_most);
}

void launch_recurrent_gradient(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                               size_t shared_most) {
    launch_chain(backward, stream, p, kept, most_rows, shared_most);
}
