/* A GRU layer as persistent kernels on tensor cores: bf16 products with float32 sums, for up to 64 units.
 *
 * Rows stand in tiles of 8, and a tile has as many steps as its longest row; so rows better come sorted by length. In a tile a step is a
 * matrix of bf16, feature-major (features, 8), its features padded with zeros to a multiple of 8.
 */
#ifndef SAP_CUDA_GRU_H
#define SAP_CUDA_GRU_H

#include "cuda_recurrent.h"

enum { SAP_GRU_TILE = 8, SAP_GRU_UNITS = 64, SAP_GRU_WIDTH = 32 };

struct gru_call {
    int32_t width, units;
    bool backwards;
    sequences at;                                  /* of the batch */
    const float *kernel, *recurrent_kernel, *bias; /* as in `recurrent`; bias NULL: none */
    /* Where the rows of the batch come from. */
    const void *x;
    bool half;              /* x is bf16, else float32 */
    const int64_t *offsets; /* of the rows that the device keeps; NULL: x is the batch's own */
    const int32_t *order;
    /* Tiles */
    int32_t *tile_first; /* (tiles + 1) sum of the steps of the tiles before */
    uint16_t *tiles;     /* the input: step s of tile i at (tile_first[i] + s) · input rows · 8 */
    uint16_t *states;    /* before each step, and at the end: at (tile_first[i] + i + s) · unit rows · 8 */
    float *last;         /* (rows, units) */
    const float *d_last; /* backward */
    float *parts;        /* (blocks, gru_parameters): gradients of each block */
};

/* Rows of a step in memory. */
static inline __device__ __host__ int32_t padded_rows(int32_t n) {
    return (n + 7) / 8 * 8;
}

/* kernel, recurrent kernel, bias (2, 3 units) */
static inline __device__ __host__ int64_t gru_parameters(int32_t width, int32_t units) {
    return (int64_t)(width + units + 2) * 3 * units;
}

/* Shared memory that a block takes at most. */
size_t gru_shared_bytes();
/* Tiles and their input; most_steps: of a row. */
void launch_gru_tiles(cudaStream_t stream, const gru_call &p, int64_t most_rows, int64_t most_steps);
/* store: keep the states for the gradient. */
cudaError_t launch_gru_forward(cudaStream_t stream, const gru_call &p, bool store, int64_t most_rows,
                               int multiprocessors);
cudaError_t launch_gru_backward(cudaStream_t stream, const gru_call &p, int64_t most_rows, int multiprocessors);
/* gradients += the sum of parts over the blocks; NULL: not wanted. */
void launch_gru_sum(cudaStream_t stream, const gru_call &p, int64_t most_rows, int multiprocessors, float *kernel,
                    float *recurrent_kernel, float *bias);

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

/* Fragments of both kernels and the bias of the 16 units of a warp. */
template <int KX> struct gru_weights {
    uint32_t x[3][KX][4], h[3][4][4];
    float bias[4][2]; /* z, r, a (input), a (recurrent); units g and g + 8 */
};

template <int KX>
__device__ static inline void load_gru_weights(gru_weights<KX> &w, const gru_call &p, const lane_place &l) {
    int units = p.units, gates = 3 * units, first = 16 * l.warp;
    UNROLL
    for (int q = 0; q < 3; q++) {
        UNROLL
        for (int k = 0; k < KX; k++)
            fill_left(w.x[q][k], l, [&](int u, int i) {
                return first + u < units && 16 * k + i < p.width
                           ? p.kernel[(16 * k + i) * gates + q * units + first + u]
                           : 0.0F;
            });
        UNROLL
        for (int k = 0; k < 4; k++)
            fill_left(w.h[q][k], l, [&](int u, int i) {
                return first + u < units && 16 * k + i < units
                           ? p.recurrent_kernel[(16 * k + i) * gates + q * units + first + u]
                           : 0.0F;
            });
    }
    UNROLL
    for (int half = 0; half < 2; half++) {
        int u = first + l.g + 8 * half;
        const float *b = p.bias && u < units ? p.bias + u : nullptr;
        w.bias[0][half] = b ? b[0] + b[gates] : 0;
        w.bias[1][half] = b ? b[units] + b[gates + units] : 0;
        w.bias[2][half] = b ? b[2 * units] : 0;
        w.bias[3][half] = b ? b[gates + 2 * units] : 0;
    }
}

/* Right factors of a step's input or state: `rows` rows of 16 bytes from `at` on, zeros behind them. K: steps of 16 rows, even or 1. */
template <int K>
__device__ static inline void load_right(uint32_t *b, const char *at, int rows, const char *zeros, int lane) {
    UNROLL
    for (int k = 0; k < K; k += 2) {
        int row = 16 * k + lane;
        load_matrices<true>(b + 2 * k, row < rows ? at + row * 16 : zeros);
    }
}

#endif
