/* The tiles of recurrent layers and their forward kernel: a block of four warps takes 8 to 32 rows through all their steps.
 *
 * Units are the rows of the products (16 a warp, for each gate), the batch's rows their columns. Weights stay in registers; the state goes
 * through shared memory once a step, in bf16 for the products, and stays in float32 in registers beside it.
 */
#include "cuda_cell.h"

namespace {

enum { THREADS = 128, SCAN = 1024, CHUNK = 8, AHEAD = 3, TILE_STEPS = 16 };

/* ---- Tiles -------------------------------------------------------------------------------------------------- */

__device__ inline int32_t tile_steps(const sequences &s, int64_t tile) {
    int32_t most = 0;
    for (int64_t r = tile * SAP_CELL_TILE; r < (tile + 1) * SAP_CELL_TILE && r < *s.rows; r++)
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

/* Where the rows of a batch come from. */
struct input_source {
    const void *x;
    bool half;              /* x is bf16, else float32 */
    const int64_t *offsets; /* of the rows that the device keeps; NULL: x is the batch's own */
    const int32_t *order;
};

__device__ inline input_source source_of(const cell_call &p) {
    if (p.x)
        return {p.x, false, nullptr, nullptr};
    const row_set &set = p.now->set;
    return {set.x[p.input], set.half[p.input], set.offsets[p.input], p.now->order};
}

__device__ inline float input_at(const input_source &from, int64_t i) {
    return from.half ? low_bf16(((const uint16_t *)from.x)[i]) : ((const float *)from.x)[i];
}

/* Block (x, y): steps from x · TILE_STEPS on of tile y. */
__global__ void __launch_bounds__(SAP_THREADS) fill_tiles(const __grid_constant__ cell_call p) {
    const input_source from = source_of(p);
    int64_t tile = blockIdx.y;
    int32_t begin = p.tile_first[tile], steps = p.tile_first[tile + 1] - begin;
    int32_t first = (int32_t)blockIdx.x * TILE_STEPS, count = min((int32_t)TILE_STEPS, steps - first);
    int rows = padded_rows(p.width);
    /* neighbouring threads: neighbouring rows of the batch, so that a step is written in whole lines */
    for (int e = (int)threadIdx.x; e < count * rows * SAP_CELL_TILE; e += SAP_THREADS) {
        int column = e % SAP_CELL_TILE, f = e / SAP_CELL_TILE % rows, t = first + e / (SAP_CELL_TILE * rows);
        int64_t r = tile * SAP_CELL_TILE + column;
        float value = 0;
        if (f < p.width && r < *p.at.rows && t < row_steps(p.at, r)) {
            int64_t row = from.offsets ? from.offsets[from.order[r]] : first_step(p.at, r);
            value = input_at(from, (row + (p.backwards ? row_steps(p.at, r) - 1 - t : t)) * p.width + f);
        }
        p.tiles[(int64_t)(begin + first) * rows * SAP_CELL_TILE + e] = (uint16_t)to_bf16(value);
    }
}

/* ---- Forward ------------------------------------------------------------------------------------------------ */

/* Shared memory: chunks of steps of the input, the state twice, a row of zeros. */
template <int NT> struct forward_space {
    char x[AHEAD][NT][CHUNK][SAP_CELL_WIDTH * 16];
    char h[2][NT][SAP_CELL_UNITS * 16];
    char zeros[16];
};

/* Starts copying the input of steps [first, first + CHUNK) of the block's tiles. */
template <int NT>
__device__ inline void fetch_chunk(const cell_call &p, forward_space<NT> &s, int64_t tile, int chunk,
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

/* What the sums of a step get from biases and input. */
template <class Cell, int NT, int KX>
__device__ inline void add_input(float (&sum)[NT][Cell::GATES][4], const cell_weights<Cell, KX> &w, const cell_call &p,
                                 const forward_space<NT> &s, int32_t step, const lane_place &l) {
    UNROLL
    for (int n = 0; n < NT; n++) {
        uint32_t b[4];
        load_right<KX>(b, s.x[step / CHUNK % AHEAD][n][step % CHUNK], padded_rows(p.width), s.zeros, l.lane);
        UNROLL
        for (int q = 0; q < Cell::GATES; q++) {
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

/* The tiles of a block, and the states of the thread's two columns in each of them. */
template <int NT> struct forward_rows {
    int64_t tile, rows, tiles;
    int32_t steps[NT], length[NT][2], longest;
    float h[NT][4], c[NT][4];
};

template <int NT> __device__ inline forward_rows<NT> place_rows(const cell_call &p, const lane_place &l) {
    forward_rows<NT> at = {
        (int64_t)blockIdx.x * NT, *p.at.rows, (*p.at.rows + SAP_CELL_TILE - 1) / SAP_CELL_TILE, {}, {}, 0, {}, {}};
    UNROLL
    for (int n = 0; n < NT; n++) {
        at.steps[n] = at.tile + n < at.tiles ? p.tile_first[at.tile + n + 1] - p.tile_first[at.tile + n] : 0;
        at.longest = max(at.longest, at.steps[n]);
        for (int c = 0; c < 2; c++) {
            int64_t r = (at.tile + n) * SAP_CELL_TILE + 2 * l.t + c;
            at.length[n][c] = r < at.rows ? row_steps(p.at, r) : 0;
        }
    }
    return at;
}

/* Keeps the states before step `slot`, where the tile has it. */
template <class Cell, int NT>
__device__ inline void keep_states(const cell_call &p, const forward_rows<NT> &at, int32_t slot, const lane_place &l) {
    int unit_rows = padded_rows(p.units);
    UNROLL
    for (int n = 0; n < NT; n++) {
        if (at.tile + n >= at.tiles || slot > at.steps[n])
            continue;
        int64_t place = (int64_t)p.tile_first[at.tile + n] + at.tile + n + slot;
        char *to = (char *)(p.states + place * cell_state_rows(p) * 8);
        store_state(to, at.h[n], l, unit_rows);
        if (Cell::CARRY)
            store_state(to + unit_rows * 16, at.c[n], l, unit_rows);
    }
}

template <class Cell, int NT, int KX>
__global__ void __launch_bounds__(THREADS) forward(const __grid_constant__ cell_call p, bool store) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    forward_space<NT> &s = *(forward_space<NT> *)raw;
    const lane_place l = {(int)threadIdx.x / 32, (int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4,
                          (int)threadIdx.x % 4};
    cell_weights<Cell, KX> w;
    load_weights(w, p, l);
    for (int i = (int)threadIdx.x; i < (int)(sizeof s / 4); i += THREADS)
        ((uint32_t *)raw)[i] = 0;
    __syncthreads();
    forward_rows<NT> at = place_rows<NT>(p, l);
    if (store)
        keep_states<Cell>(p, at, 0, l);
    for (int c = 0; c < AHEAD - 1; c++)
        fetch_chunk<NT>(p, s, at.tile, c, at.steps);
    copy_wait<AHEAD - 2>();
    __syncthreads();
    float input[NT][Cell::GATES][4];
    add_input<Cell, NT, KX>(input, w, p, s, 0, l);
    for (int32_t t = 0; t < at.longest; t++) {
        if (t % CHUNK == 0) /* the slot of the chunk before last step's is free: all are past it */
            fetch_chunk<NT>(p, s, at.tile, t / CHUNK + AHEAD - 1, at.steps);
        float sum[NT][4][4];
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                for (int q = 0; q < 4; q++)
                    sum[n][q][e] = q < Cell::GATES ? input[n][q % Cell::GATES][e] : w.bias[q][e / 2];
            }
            uint32_t b[8];
            load_right<4>(b, s.h[t & 1][n], SAP_CELL_UNITS, s.zeros, l.lane);
            UNROLL
            for (int k = 0; k < 4; k++) {
                UNROLL
                for (int i = 1; i <= Cell::GATES; i++) { /* the first gate is needed last */
                    int q = i % Cell::GATES;
                    multiply_bf16(sum[n][Cell::state_sum(q)], w.h[q][k], b[2 * k], b[2 * k + 1]);
                }
            }
        }
        if ((t + 1) % CHUNK == 0) { /* the next step's chunk */
            copy_wait<AHEAD - 2>();
            __syncthreads();
        }
        if (t + 1 < at.longest)
            add_input<Cell, NT, KX>(input, w, p, s, t + 1, l);
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                float h = Cell::step(sum[n][0][e], sum[n][1][e], sum[n][2][e], sum[n][3][e], at.h[n][e], &at.c[n][e]);
                at.h[n][e] = t < at.length[n][e & 1] ? h : at.h[n][e];
            }
            store_state(s.h[(t & 1) ^ 1][n], at.h[n], l, SAP_CELL_UNITS);
        }
        if (store)
            keep_states<Cell>(p, at, t + 1, l);
        __syncthreads();
    }
    copy_wait<0>();
    UNROLL
    for (int n = 0; n < NT; n++) {
        UNROLL
        for (int e = 0; e < 4; e++) {
            int u = 16 * l.warp + l.g + 8 * (e / 2);
            int64_t r = (at.tile + n) * SAP_CELL_TILE + 2 * l.t + (e & 1);
            if (u < p.units && r < at.rows)
                p.last[r * p.units + u] = at.h[n][e];
        }
    }
#endif
}

template <class Cell, int NT, int KX>
cudaError_t start(cudaStream_t stream, const cell_call &p, bool store, int64_t tiles) {
    cudaError_t error = cudaFuncSetAttribute(forward<Cell, NT, KX>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)sizeof(forward_space<NT>));
    if (error == cudaSuccess)
        SAP_LAUNCH((forward<Cell, NT, KX>), dim3((unsigned)((tiles + NT - 1) / NT)), dim3(THREADS),
                   sizeof(forward_space<NT>), stream, p, store);
    return error;
}

template <class Cell, int KX>
cudaError_t start_sized(cudaStream_t stream, const cell_call &p, bool store, int64_t tiles, int multiprocessors) {
    if (tiles <= multiprocessors)
        return start<Cell, 1, KX>(stream, p, store, tiles);
    if (tiles <= 4 * (int64_t)multiprocessors)
        return start<Cell, 2, KX>(stream, p, store, tiles);
    return start<Cell, Cell::TILES_MOST, KX>(stream, p, store, tiles);
}

} // namespace

void launch_cell_tiles(cudaStream_t stream, const cell_call &p, int64_t most_rows, int64_t most_steps) {
    int64_t tiles = (most_rows + SAP_CELL_TILE - 1) / SAP_CELL_TILE;
    SAP_LAUNCH(find_tiles, dim3(1), dim3(SCAN), SCAN * sizeof(int32_t), stream, p.at, tiles, p.tile_first);
    SAP_LAUNCH(fill_tiles, dim3((unsigned)(most_steps / TILE_STEPS + 1), (unsigned)tiles), dim3(SAP_THREADS), 0, stream,
               p);
}

cudaError_t launch_cell_forward(cudaStream_t stream, const cell_call &p, bool store, int64_t most_rows,
                                const device_limits &limits) {
    int64_t tiles = (most_rows + SAP_CELL_TILE - 1) / SAP_CELL_TILE;
    int processors = limits.multiprocessors;
    if (p.lstm)
        return p.width > 16 ? start_sized<lstm_cell, 2>(stream, p, store, tiles, processors)
                            : start_sized<lstm_cell, 1>(stream, p, store, tiles, processors);
    return p.width > 16 ? start_sized<gru_cell, 2>(stream, p, store, tiles, processors)
                        : start_sized<gru_cell, 1>(stream, p, store, tiles, processors);
}
