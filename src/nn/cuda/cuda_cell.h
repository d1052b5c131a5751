/* A GRU or LSTM layer as persistent kernels on tensor cores: bf16 products with float32 sums, for up to 64 units.
 *
 * Rows stand in tiles of 8, and a tile has as many steps as its longest row; so rows better come sorted by length. In a tile a step is a
 * matrix of bf16, feature-major (features, 8), its features padded with zeros to a multiple of 8. The kernels are templates over the cell,
 * which says what its gates are and how they make the next state.
 */
#ifndef SAP_CUDA_CELL_H
#define SAP_CUDA_CELL_H

#include "cuda_recurrent.h"

enum { SAP_CELL_TILE = 8, SAP_CELL_UNITS = 64, SAP_CELL_WIDTH = 32 };

struct cell_call {
    bool lstm, backwards;
    int32_t width, units;
    sequences at;                                  /* of the batch */
    const float *kernel, *recurrent_kernel, *bias; /* as in `recurrent`; bias NULL: none */
    const float *x; /* (positions, width); NULL: input `input` of the rows that the device keeps */
    const step_now *now;
    int32_t input;
    /* Tiles */
    int32_t *tile_first; /* (tiles + 1) sum of the steps of the tiles before */
    uint16_t *tiles;     /* the input: step s of tile i at (tile_first[i] + s) · input rows · 8 */
    uint16_t *states;    /* before each step, and at the end: at (tile_first[i] + i + s) · cell_state_rows · 8 */
    float *last;         /* (rows, units) */
    const float *d_last; /* backward */
    float *parts;        /* (blocks, cell_parameters): gradients of each block */
};

/* What the device has of what a launch takes. */
struct device_limits {
    int multiprocessors;
    size_t shared; /* bytes of a block */
};

/* Rows of a step in memory. */
static inline __device__ __host__ int32_t padded_rows(int32_t n) {
    return (n + 7) / 8 * 8;
}

/* Rows of a state in memory: h, and c of LSTM behind it. */
static inline __device__ __host__ int32_t cell_state_rows(const cell_call &p) {
    return padded_rows(p.units) * (p.lstm ? 2 : 1);
}

/* kernel, recurrent kernel, bias: (4 units), of GRU (2, 3 units) */
static inline __device__ __host__ int64_t cell_parameters(const cell_call &p) {
    return (int64_t)(p.width + p.units + (p.lstm ? 1 : 2)) * (p.lstm ? 4 : 3) * p.units;
}

/* Shared memory that a block takes at least. */
size_t cell_shared_bytes(bool lstm);
/* Tiles and their input; most_steps: of a row. */
void launch_cell_tiles(cudaStream_t stream, const cell_call &p, int64_t most_rows, int64_t most_steps);
/* store: keep the states for the gradient. */
cudaError_t launch_cell_forward(cudaStream_t stream, const cell_call &p, bool store, int64_t most_rows,
                                const device_limits &limits);
cudaError_t launch_cell_backward(cudaStream_t stream, const cell_call &p, int64_t most_rows,
                                 const device_limits &limits);
/* gradients += the sum of parts over the blocks; bias NULL: not wanted. */
void launch_cell_sum(cudaStream_t stream, const cell_call &p, int64_t most_rows, const device_limits &limits,
                     float *kernel, float *recurrent_kernel, float *bias);

/* ---- Cells -------------------------------------------------------------------------------------------------- */

/* Sums of a step: z, r, a's part of the input, a's recurrent part. */
struct gru_cell {
    enum {
        GATES = 3,
        CARRY = false,
        TILES_MOST = 4
    }; /* gates of a kernel; whether c is carried on beside h; tiles of a block */
    /* The sum to which gate q's product with the state goes. */
    __device__ static constexpr int state_sum(int q) {
        return q == 2 ? 3 : q;
    }
    /* What the sums of a unit start with. */
    __device__ static void biases(const float *b, int units, float *out) {
        out[0] = b[0] + b[3 * units];
        out[1] = b[units] + b[4 * units];
        out[2] = b[2 * units];
        out[3] = b[5 * units];
    }
    __device__ static float step(float z, float r, float input, float state, float h, float *) {
        float a = fast_tanh(fmaf(fast_sigmoid(r), state, input));
        return fmaf(fast_sigmoid(z), h - a, a);
    }
};

/* Sums of a step: i, f, a, o. */
struct lstm_cell {
    enum { GATES = 4, CARRY = true, TILES_MOST = 2 };
    __device__ static constexpr int state_sum(int q) {
        return q;
    }
    __device__ static void biases(const float *b, int units, float *out) {
        for (int q = 0; q < GATES; q++)
            out[q] = b[q * units];
    }
    __device__ static float step(float i, float f, float a, float o, float, float *c) {
        *c = fmaf(fast_sigmoid(f), *c, fast_sigmoid(i) * fast_tanh(a));
        return fast_sigmoid(o) * fast_tanh(*c);
    }
};

/* ---- What the kernels share --------------------------------------------------------------------------------- */

/* Lanes and warps as the fragments see them. */
struct lane_place {
    int warp, lane, g, t;
};

/* Weights of gates as left factors: 16 units of a warp by 16 inputs a step. */
template <class F> __device__ static inline void fill_left(uint32_t *a, const lane_place &l, F value) {
    a[0] = pack_bf16(value(l.g, 2 * l.t), value(l.g, 2 * l.t + 1));
    a[1] = pack_bf16(value(l.g + 8, 2 * l.t), value(l.g + 8, 2 * l.t + 1));
    a[2] = pack_bf16(value(l.g, 2 * l.t + 8), value(l.g, 2 * l.t + 9));
    a[3] = pack_bf16(value(l.g + 8, 2 * l.t + 8), value(l.g + 8, 2 * l.t + 9));
}

/* Of input feature, or unit, i and unit u of gate q; zero where there is none. */
__device__ static inline float kernel_at(const cell_call &p, int gates, int i, int q, int u) {
    return u < p.units && i < p.width ? p.kernel[i * gates * p.units + q * p.units + u] : 0.0F;
}

__device__ static inline float recurrent_kernel_at(const cell_call &p, int gates, int i, int q, int u) {
    return u < p.units && i < p.units ? p.recurrent_kernel[i * gates * p.units + q * p.units + u] : 0.0F;
}

/* Of the thread's units, g and g + 8 of the warp's. */
template <class Cell>
__device__ static inline void load_biases(float (*bias)[2], const cell_call &p, const lane_place &l) {
    UNROLL
    for (int half = 0; half < 2; half++) {
        int u = 16 * l.warp + l.g + 8 * half;
        float own[4] = {};
        if (p.bias && u < p.units)
            Cell::biases(p.bias + u, p.units, own);
        UNROLL
        for (int q = 0; q < 4; q++)
            bias[q][half] = own[q];
    }
}

/* Fragments of both kernels and the bias of the 16 units of a warp. */
template <class Cell, int KX> struct cell_weights {
    uint32_t x[Cell::GATES][KX][4], h[Cell::GATES][4][4];
    float bias[4][2];
};

template <class Cell, int KX>
__device__ static inline void load_weights(cell_weights<Cell, KX> &w, const cell_call &p, const lane_place &l) {
    int first = 16 * l.warp;
    UNROLL
    for (int q = 0; q < Cell::GATES; q++) {
        UNROLL
        for (int k = 0; k < KX; k++)
            fill_left(w.x[q][k], l, [&](int u, int i) { return kernel_at(p, Cell::GATES, 16 * k + i, q, first + u); });
        UNROLL
        for (int k = 0; k < 4; k++)
            fill_left(w.h[q][k], l,
                      [&](int u, int i) { return recurrent_kernel_at(p, Cell::GATES, 16 * k + i, q, first + u); });
    }
    load_biases<Cell>(w.bias, p, l);
}

/* Right factors of a step's input or state: `rows` rows of 16 bytes from `at` on, zeros behind them. K: steps of 16 rows; b: 4 words a pair of them. */
template <int K>
__device__ static inline void load_right(uint32_t *b, const char *at, int rows, const char *zeros, int lane) {
    UNROLL
    for (int k = 0; k < K; k += 2) {
        int row = 16 * k + lane;
        load_matrices<true>(b + 2 * k, row < rows ? at + row * 16 : zeros);
    }
}

#endif
