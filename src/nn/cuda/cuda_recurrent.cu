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

/* Σ_k h[k] mask[k] u[k][column]; mask NULL: all 1 */
__device__ inline float product(const float *h, const float *mask, const float *u, int32_t units, int32_t columns,
                                int32_t column) {
    float sum = 0;
    for (int k = 0; k < units; k++)
        sum += (mask ? h[k] * mask[k] : h[k]) * u[k * columns + column];
    return sum;
}

__device__ inline const float *mask_of(const recurrent &p, int64_t row, int gate) {
    return p.h_masks ? p.h_masks + row * p.mask_row + gate * p.units : nullptr;
}

__device__ inline bool counts(const recurrent &p, int64_t at) {
    return !p.counts || p.counts[at] != 0;
}

/* Positions of the input and the output of step t of a row, in the order in which they are taken. */
__device__ inline int64_t taken_at(const recurrent &p, int64_t row, int32_t t) {
    return first_step(p.at, row) + (p.backwards ? row_steps(p.at, row) - 1 - t : t);
}

__device__ inline int64_t shown_at(const recurrent &p, int64_t row, int32_t t) {
    return p.flipped ? first_step(p.at, row) + t : taken_at(p, row, t);
}

/* A step of a row. */
struct chain_step {
    int64_t row, at; /* position */
};

/* The state of unit j after a step, and what the step keeps. */
__device__ float gru_step(const recurrent &p, const recurrent_kept &kept, const float *u, const chain_step &s, int j,
                          const float *h) {
    int n = p.units;
    float sums[3];
    for (int q = 0; q < 3; q++)
        sums[q] = product(h, mask_of(p, s.row, q), u, n, 3 * n, q * n + j) + (p.bias ? p.bias[(3 + q) * n + j] : 0);
    return gru_gates(p, kept, s.at, j, sums, h[j]);
}

__device__ float lstm_step(const recurrent &p, const recurrent_kept &kept, const float *u, const chain_step &s, int j,
                           const float *h, float *c) {
    int n = p.units;
    float sums[4];
    for (int q = 0; q < 4; q++)
        sums[q] = product(h, mask_of(p, s.row, q), u, n, 4 * n, q * n + j);
    return lstm_gates(p, kept, s.at, j, sums, h[j], &c[j]);
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
                chain_step step = {first + r, taken_at(p, first + r, t)};
                bool there = counts(p, step.at);
                if (!there)
                    kept.h[step.at * n + j] = 0; /* it meets a gradient of 0 */
                else if (p.lstm)
                    state = lstm_step(p, kept, s.u, step, j, s.h + r * n, s.c + r * n);
                else
                    state = gru_step(p, kept, s.u, step, j, s.h + r * n);
                if (p.y)
                    p.y[shown_at(p, step.row, t) * n + j] = there || !p.zero_masked ? state : 0;
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

/* Gradients of the gates of a step that is left out. */
__device__ void no_back(const recurrent_kept &kept, int64_t at, int j, int units, int gates) {
    for (int q = 0; q < gates; q++) {
        int64_t place = (at * gates + q) * units + j;
        kept.d_input[place] = kept.d_recurrent[place] = 0;
    }
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
            int64_t at = taken_at(p, first + r, t);
            bool there = counts(p, at);
            float dh = s.h[i];
            if (p.dy && (there || !p.zero_masked))
                dh += p.dy[shown_at(p, first + r, t) * n + j];
            s.next[i] = dh;
            if (!there) {
                no_back(kept, at, j, n, gates);
            } else if (p.lstm) {
                lstm_back(p, kept, at, j, dh, &s.c[i]);
                s.next[i] = 0;
            } else {
                s.next[i] = gru_back(p, kept, at, j, dh);
            }
        }
        __syncthreads(); /* and the gates' gradients are seen by the whole block */
        for (int i = (int)threadIdx.x; i < rows * n; i += SAP_THREADS) {
            int r = i / n, j = i % n;
            int32_t steps = row_steps(p.at, first + r);
            float sum = s.next[i];
            int64_t at = taken_at(p, first + r, t);
            for (int q = 0; t < steps && q < gates; q++) {
                const float *mask = mask_of(p, first + r, q);
                float part = 0;
                for (int g = q * n; g < (q + 1) * n; g++)
                    part += kept.d_recurrent[at * gates * n + g] * s.u[j * gates * n + g];
                sum += mask ? mask[j] * part : part;
            }
            s.h[i] = sum;
        }
        __syncthreads();
    }
}

} // namespace

void launch_recurrent(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                      size_t shared_most) {
    launch_chain(forward, stream, p, kept, most_rows, ROWS, chain_bytes(p.units), kernel_bytes(p), shared_most);
}

void launch_recurrent_gradient(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                               size_t shared_most) {
    launch_chain(backward, stream, p, kept, most_rows, ROWS, chain_bytes(p.units), kernel_bytes(p), shared_most);
}
