/* The GRU's tiles and its forward kernel: a block of four warps takes 8 to 32 rows through all their steps.
 *
 * Units are the rows of the products (16 a warp, for each gate), the batch's rows their columns. Weights stay in registers; the state goes
 * through shared memory once a step, in bf16 for the products, and stays in float32 in registers beside it.
 */
#include "cuda_gru.h"

namespace {

enum { THREADS = 128, SCAN = 1024, CHUNK = 8, AHEAD = 3, TILE_STEPS = 16 };

/* ---- Tiles -------------------------------------------------------------------------------------------------- */

__device__ inline int32_t tile_steps(const sequences &s, int64_t tile) {
    int32_t most = 0;
    for (int64_t r = tile * SAP_GRU_TILE; r < (tile + 1) * SAP_GRU_TILE && r < *s.rows; r++)
        most = max(most, row_steps(s, r));
    return most;
}

/* One block: a scan over the tiles' steps. */
__global__ void __launch_bounds__(SCAN) find_tiles(sequences s, int64_t tiles, int32_t *first) {
    SAP_SHARED(raw);
    int32_t *sums = (int32_t *)raw;
    int thread = (int)threadIdx.x;
    int64_t begin = tiles * thread / SCAN, end = tiles * (thread + 1) / SCAN;
    int32_t sum = 0;
    for (int64_t i = begin; i < end; i++)
        sum += tile_steps(s, i);
    sums[thread] = sum;
    __syncthreads();
    for (int step = 1; step < SCAN; step *= 2) {
        int32_t before = thread >= step ? sums[thread - step] : 0;
        __syncthreads();
        sums[thread] += before;
        __syncthreads();
    }
    int32_t at = sums[thread] - sum;
    for (int64_t i = begin; i < end; i++) {
        first[i] = at;
        at += tile_steps(s, i);
    }
    if (thread == SCAN - 1)
        first[tiles] = sums[thread];
}

__device__ inline float input_at(const gru_call &p, int64_t i) {
    return p.half ? low_bf16(((const uint16_t *)p.x)[i]) : ((const float *)p.x)[i];
}

/* Block (x, y): steps from x · TILE_STEPS on of tile y. */
__global__ void __launch_bounds__(SAP_THREADS) fill_tiles(const __grid_constant__ gru_call p) {
    int64_t tile = blockIdx.y;
    int32_t begin = p.tile_first[tile], steps = p.tile_first[tile + 1] - begin;
    int32_t first = (int32_t)blockIdx.x * TILE_STEPS, count = min((int32_t)TILE_STEPS, steps - first);
    int rows = padded_rows(p.width);
    /* neighbouring threads: neighbouring rows of the batch, so that a step is written in whole lines */
    for (int e = (int)threadIdx.x; e < count * rows * SAP_GRU_TILE; e += SAP_THREADS) {
        int column = e % SAP_GRU_TILE, f = e / SAP_GRU_TILE % rows, t = first + e / (SAP_GRU_TILE * rows);
        int64_t r = tile * SAP_GRU_TILE + column;
        float value = 0;
        if (f < p.width && r < *p.at.rows && t < row_steps(p.at, r)) {
            int64_t row = p.offsets ? p.offsets[p.order[r]] : first_step(p.at, r);
            value = input_at(p, (row + (p.backwards ? row_steps(p.at, r) - 1 - t : t)) * p.width + f);
        }
        p.tiles[(int64_t)(begin + first) * rows * SAP_GRU_TILE + e] = (uint16_t)to_bf16(value);
    }
}

/* ---- Forward ------------------------------------------------------------------------------------------------ */

/* Shared memory: chunks of steps of the input, the state twice, a row of zeros. */
template <int NT> struct forward_space {
    char x[AHEAD][NT][CHUNK][SAP_GRU_WIDTH * 16];
    char h[2][NT][SAP_GRU_UNITS * 16];
    char zeros[16];
};

/* Starts copying the input of steps [first, first + CHUNK) of the block's tiles. */
template <int NT>
__device__ inline void fetch_chunk(const gru_call &p, forward_space<NT> &s, int64_t tile, int chunk,
                                   const int32_t *steps) {
    int rows = padded_rows(p.width), slot = chunk % AHEAD;
    UNROLL
    for (int n = 0; n < NT; n++) {
        int count = min((int32_t)CHUNK, steps[n] - chunk * CHUNK) * rows;
        if (count <= 0)
            continue;
        const char *from = (const char *)(p.tiles + (int64_t)(p.tile_first[tile + n] + chunk * CHUNK) * rows * 8);
        for (int e = (int)threadIdx.x; e < count; e += THREADS)
            copy_async<16>(&s.x[slot][n][e / rows][e % rows * 16], from + e * 16);
    }
    copy_commit();
}

/* Adds the products with the input of a step to its gates: z, r and the input's part of a. */
template <int NT, int KX>
__device__ inline void add_input(float (&sum)[NT][3][4], const gru_weights<KX> &w, const gru_call &p,
                                 const forward_space<NT> &s, int32_t step, const lane_place &l) {
    UNROLL
    for (int n = 0; n < NT; n++) {
        uint32_t b[4];
        load_right<KX>(b, s.x[step / CHUNK % AHEAD][n][step % CHUNK], padded_rows(p.width), s.zeros, l.lane);
        UNROLL
        for (int q = 0; q < 3; q++) {
            UNROLL
            for (int e = 0; e < 4; e++)
                sum[n][q][e] = w.bias[q][e / 2];
            UNROLL
            for (int k = 0; k < KX; k++)
                multiply_bf16(sum[n][q], w.x[q][k], b[2 * k], b[2 * k + 1]);
        }
    }
}

/* The thread's numbers of a state as bf16: units 16 warp + g and + 8, columns 2t and 2t + 1. */
[[maybe_unused]] __device__ inline void store_state(char *at, const float *h, const lane_place &l, int rows) {
    int row = 16 * l.warp + l.g;
    if (row < rows)
        *(uint32_t *)(at + row * 16 + l.t * 4) = pack_bf16(h[0], h[1]);
    if (row + 8 < rows)
        *(uint32_t *)(at + (row + 8) * 16 + l.t * 4) = pack_bf16(h[2], h[3]);
}

template <int NT, int KX>
__global__ void __launch_bounds__(THREADS) forward(const __grid_constant__ gru_call p, bool store) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    forward_space<NT> &s = *(forward_space<NT> *)raw;
    const lane_place l = {(int)threadIdx.x / 32, (int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4,
                          (int)threadIdx.x % 4};
    gru_weights<KX> w;
    load_gru_weights(w, p, l);
    for (int i = (int)threadIdx.x; i < (int)(sizeof s / 4); i += THREADS)
        ((uint32_t *)raw)[i] = 0;
    __syncthreads();
    int64_t tile = (int64_t)blockIdx.x * NT, rows = *p.at.rows, tiles = (rows + SAP_GRU_TILE - 1) / SAP_GRU_TILE;
    int32_t steps[NT], longest = 0, length[NT][2];
    float h[NT][4] = {};
    UNROLL
    for (int n = 0; n < NT; n++) {
        steps[n] = tile + n < tiles ? p.tile_first[tile + n + 1] - p.tile_first[tile + n] : 0;
        longest = max(longest, steps[n]);
        for (int c = 0; c < 2; c++) {
            int64_t r = (tile + n) * SAP_GRU_TILE + 2 * l.t + c;
            length[n][c] = r < rows ? row_steps(p.at, r) : 0;
        }
    }
    int unit_rows = padded_rows(p.units);
    auto keep = [&](int32_t slot) { /* the state before step `slot` */
                                    UNROLL
                                    for (int n = 0; n < NT; n++)
                                        if (store && tile + n < tiles && slot <= steps[n])
                                            store_state((char *)(p.states +
                                                                 ((int64_t)p.tile_first[tile + n] + tile + n + slot) *
                                                                     unit_rows * 8),
                                                        h[n], l, unit_rows);
    };
    keep(0);
    for (int c = 0; c < AHEAD - 1; c++)
        fetch_chunk<NT>(p, s, tile, c, steps);
    copy_wait<AHEAD - 2>();
    __syncthreads();
    float input[NT][3][4];
    add_input<NT, KX>(input, w, p, s, 0, l);
    for (int32_t t = 0; t < longest; t++) {
        if (t % CHUNK == 0) /* the slot of the chunk before last step's is free: all are past it */
            fetch_chunk<NT>(p, s, tile, t / CHUNK + AHEAD - 1, steps);
        float sum[NT][4][4];
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                for (int q = 0; q < 3; q++)
                    sum[n][q][e] = input[n][q][e];
                sum[n][3][e] = w.bias[3][e / 2];
            }
            uint32_t b[8];
            load_right<4>(b, s.h[t & 1][n], SAP_GRU_UNITS, s.zeros, l.lane);
            UNROLL
            for (int k = 0; k < 4; k++) {
                multiply_bf16(sum[n][1], w.h[1][k], b[2 * k], b[2 * k + 1]);
                multiply_bf16(sum[n][3], w.h[2][k], b[2 * k], b[2 * k + 1]);
                multiply_bf16(sum[n][0], w.h[0][k], b[2 * k], b[2 * k + 1]);
            }
        }
        if ((t + 1) % CHUNK == 0) { /* the next step's chunk */
            copy_wait<AHEAD - 2>();
            __syncthreads();
        }
        if (t + 1 < longest)
            add_input<NT, KX>(input, w, p, s, t + 1, l);
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                float r = fast_sigmoid(sum[n][1][e]), z = fast_sigmoid(sum[n][0][e]);
                float a = fast_tanh(fmaf(r, sum[n][3][e], sum[n][2][e]));
                h[n][e] = t < length[n][e & 1] ? fmaf(z, h[n][e] - a, a) : h[n][e];
            }
            store_state(s.h[(t & 1) ^ 1][n], h[n], l, SAP_GRU_UNITS);
        }
        keep(t + 1);
        __syncthreads();
    }
    copy_wait<0>();
    UNROLL
    for (int n = 0; n < NT; n++) {
        UNROLL
        for (int e = 0; e < 4; e++) {
            int u = 16 * l.warp + l.g + 8 * (e / 2);
            int64_t r = (tile + n) * SAP_GRU_TILE + 2 * l.t + (e & 1);
            if (u < p.units && r < rows)
                p.last[r * p.units + u] = h[n][e];
        }
    }
#endif
}

template <int NT, int KX> cudaError_t start(cudaStream_t stream, const gru_call &p, bool store, int64_t tiles) {
    cudaError_t error = cudaFuncSetAttribute(forward<NT, KX>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)sizeof(forward_space<NT>));
    if (error == cudaSuccess)
        SAP_LAUNCH((forward<NT, KX>), dim3((unsigned)((tiles + NT - 1) / NT)), dim3(THREADS), sizeof(forward_space<NT>),
                   stream, p, store);
    return error;
}

} // namespace

void launch_gru_tiles(cudaStream_t stream, const gru_call &p, int64_t most_rows, int64_t most_steps) {
    int64_t tiles = (most_rows + SAP_GRU_TILE - 1) / SAP_GRU_TILE;
    SAP_LAUNCH(find_tiles, dim3(1), dim3(SCAN), SCAN * sizeof(int32_t), stream, p.at, tiles, p.tile_first);
    SAP_LAUNCH(fill_tiles, dim3((unsigned)(most_steps / TILE_STEPS + 1), (unsigned)tiles), dim3(SAP_THREADS), 0, stream,
               p);
}

cudaError_t launch_gru_forward(cudaStream_t stream, const gru_call &p, bool store, int64_t most_rows,
                               int multiprocessors) {
    int64_t tiles = (most_rows + SAP_GRU_TILE - 1) / SAP_GRU_TILE;
    bool wide = p.width > 16;
    if (tiles <= multiprocessors)
        return wide ? start<1, 2>(stream, p, store, tiles) : start<1, 1>(stream, p, store, tiles);
    if (tiles <= 4 * multiprocessors)
        return wide ? start<2, 2>(stream, p, store, tiles) : start<2, 1>(stream, p, store, tiles);
    return wide ? start<4, 2>(stream, p, store, tiles) : start<4, 1>(stream, p, store, tiles);
}
