/* The GRU's gradient: blocks of twelve warps in three roles, each a step behind the other, take slices of the batch back in time.
 *
 * `Recompute` gets the gates of a step again from the input and the state before it, as coefficients by which the gradient of the state
 * after the step has to be multiplied. `Chain` walks that gradient back: times the coefficients it gives the gradients of the gates,
 * and those times the recurrent kernel, with what passed the update gate, the gradient of the state before. `Weights` gathers
 * the products of gates' gradients with states and inputs in registers, over all steps and slices of a block; the
 * blocks' sums are added afterwards, in their order.
 */
#include "cuda_gru.h"

namespace {

enum {
    ROLE = 128, /* threads of a role */
    THREADS = 3 * ROLE,
    SLOTS = 8, /* steps of input and state in shared memory */
    AHEAD = 4, /* steps that are on their way */
    GATE_ROWS =
        256, /* gradients of a step: z, r and a's recurrent part, `units` rows each, then a's part of the input */
    ALL = 1,
    ONE = 2 /* barriers: of the block, of `Chain` */
};

/* What `Recompute` leaves for `Chain`: of the thread with the same fragment. */
struct coefficients {
    float z[4];
    uint32_t gate[4][2]; /* bf16 pairs: z, r, a recurrent, a input */
};

template <int NT> struct backward_space {
    char x[SLOTS][NT][SAP_GRU_WIDTH * 16];
    char h[SLOTS][NT][SAP_GRU_UNITS * 16];
    coefficients of[2][NT][ROLE];
    char gates[2][NT][GATE_ROWS * 16];
    char zeros[16];
};

/* A slice of the batch: NT tiles. */
template <int NT> struct slice_place {
    int64_t tile, rows;
    int32_t steps[NT], longest;
};

template <int NT> __device__ inline slice_place<NT> place_slice(const gru_call &p, int64_t slice) {
    slice_place<NT> at = {slice * NT, *p.at.rows, {}, 0};
    int64_t tiles = (at.rows + SAP_GRU_TILE - 1) / SAP_GRU_TILE;
    UNROLL
    for (int n = 0; n < NT; n++) {
        at.steps[n] = at.tile + n < tiles ? p.tile_first[at.tile + n + 1] - p.tile_first[at.tile + n] : 0;
        at.longest = max(at.longest, at.steps[n]);
    }
    return at;
}

/* ---- Recompute ---------------------------------------------------------------------------------------------- */

/* Starts copying input and state of the i-th step from the end. */
template <int NT>
__device__ inline void fetch(const gru_call &p, backward_space<NT> &s, const slice_place<NT> &at, int32_t i,
                             int thread) {
    int32_t t = at.longest - 1 - i;
    int x_rows = padded_rows(p.width), h_rows = padded_rows(p.units), slot = i % SLOTS;
    UNROLL
    for (int n = 0; n < NT; n++) {
        if (t < 0 || t >= at.steps[n])
            continue;
        int64_t first = p.tile_first[at.tile + n];
        const char *x = (const char *)(p.tiles + (first + t) * x_rows * 8);
        const char *h = (const char *)(p.states + (first + at.tile + n + t) * h_rows * 8);
        for (int e = thread; e < x_rows + h_rows; e += ROLE) {
            if (e < x_rows)
                copy_async<16>(&s.x[slot][n][e * 16], x + e * 16);
            else
                copy_async<16>(&s.h[slot][n][(e - x_rows) * 16], h + (e - x_rows) * 16);
        }
    }
    copy_commit();
}

/* The coefficients of one tile's step; live: which of the thread's two columns take part in it. */
template <int KX>
__device__ inline void recompute_tile(const gru_weights<KX> &w, const gru_call &p, const char *x, const char *h,
                                      const char *zeros, const bool *live, const lane_place &l, coefficients *out) {
    uint32_t bx[4], bh[8];
    load_right<KX>(bx, x, padded_rows(p.width), zeros, l.lane);
    load_right<4>(bh, h, padded_rows(p.units), zeros, l.lane);
    float sum[4][4];
    UNROLL
    for (int q = 0; q < 4; q++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            sum[q][e] = w.bias[q][e / 2];
    }
    UNROLL
    for (int q = 0; q < 3; q++) {
        UNROLL
        for (int k = 0; k < KX; k++)
            multiply_bf16(sum[q], w.x[q][k], bx[2 * k], bx[2 * k + 1]);
        UNROLL
        for (int k = 0; k < 4; k++)
            multiply_bf16(sum[q == 2 ? 3 : q], w.h[q][k], bh[2 * k], bh[2 * k + 1]);
    }
    int row = 16 * l.warp + l.g;
    uint32_t low = *(const uint32_t *)(h + row * 16 + l.t * 4);
    uint32_t high = *(const uint32_t *)(h + (row + 8) * 16 + l.t * 4);
    float before[4] = {low_bf16(low), high_bf16(low), low_bf16(high), high_bf16(high)}, c[4][4];
    UNROLL
    for (int e = 0; e < 4; e++) {
        float r = fast_sigmoid(sum[1][e]), z = fast_sigmoid(sum[0][e]);
        float a = fast_tanh(fmaf(r, sum[3][e], sum[2][e]));
        bool on = live[e & 1];
        float da = on ? (1 - z) * (1 - a * a) : 0;
        out->z[e] = on ? z : 1;
        c[0][e] = on ? (before[e] - a) * z * (1 - z) : 0;
        c[1][e] = da * sum[3][e] * r * (1 - r);
        c[2][e] = da * r;
        c[3][e] = da;
    }
    UNROLL
    for (int q = 0; q < 4; q++) {
        out->gate[q][0] = pack_bf16(c[q][0], c[q][1]);
        out->gate[q][1] = pack_bf16(c[q][2], c[q][3]);
    }
}

template <int NT, int KX>
__device__ void recompute(const gru_call &p, backward_space<NT> &s, int64_t slices, const lane_place &l) {
    gru_weights<KX> w;
    load_gru_weights(w, p, l);
    int thread = 32 * l.warp + l.lane;
    for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
        slice_place<NT> at = place_slice<NT>(p, slice);
        int32_t length[NT][2];
        UNROLL
        for (int n = 0; n < NT; n++) {
            for (int c = 0; c < 2; c++) {
                int64_t r = (at.tile + n) * SAP_GRU_TILE + 2 * l.t + c;
                length[n][c] = r < at.rows ? row_steps(p.at, r) : 0;
            }
        }
        for (int i = 0; i < AHEAD; i++)
            fetch<NT>(p, s, at, i, thread);
        copy_wait<AHEAD - 1>();
        wait_for(ALL, THREADS);
        for (int32_t i = 0; i < at.longest + 2; i++) {
            int32_t t = at.longest - 1 - i;
            UNROLL
            for (int n = 0; n < NT; n++) {
                bool live[2] = {t < length[n][0], t < length[n][1]};
                if (t >= 0)
                    recompute_tile<KX>(w, p, s.x[i % SLOTS][n], s.h[i % SLOTS][n], s.zeros, live, l,
                                       &s.of[i & 1][n][thread]);
            }
            fetch<NT>(p, s, at, i + AHEAD, thread);
            copy_wait<AHEAD - 1>();
            wait_for(ALL, THREADS);
        }
        copy_wait<0>();
    }
}

/* ---- Chain -------------------------------------------------------------------------------------------------- */

/* Gradients of a step's gates: to shared memory, and added to those of the biases. */
[[maybe_unused]] __device__ inline void spread(const coefficients &c, float *d, char *gates, int units,
                                               float (*bias)[2], const lane_place &l) {
    int row = 16 * l.warp + l.g;
    UNROLL
    for (int q = 0; q < 4; q++) {
        float low[2] = {d[0] * low_bf16(c.gate[q][0]), d[1] * high_bf16(c.gate[q][0])};
        float high[2] = {d[2] * low_bf16(c.gate[q][1]), d[3] * high_bf16(c.gate[q][1])};
        char *at = gates + (q * units + row) * 16 + l.t * 4;
        if (row < units)
            *(uint32_t *)at = pack_bf16(low[0], low[1]);
        if (row + 8 < units)
            *(uint32_t *)(at + 8 * 16) = pack_bf16(high[0], high[1]);
        bias[q][0] += low[0] + low[1];
        bias[q][1] += high[0] + high[1];
    }
    UNROLL
    for (int e = 0; e < 4; e++)
        d[e] *= c.z[e];
}

/* The biases' gradients of the block, whose columns stand in four lanes. */
[[maybe_unused]] __device__ inline void store_biases(const gru_call &p, float (*bias)[2], float *parts,
                                                     const lane_place &l) {
    float *out = parts + (int64_t)(p.width + p.units) * 3 * p.units;
    UNROLL
    for (int q = 0; q < 4; q++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            float sum = bias[q][half];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            int u = 16 * l.warp + l.g + 8 * half, gates = 3 * p.units;
            if (l.t != 0 || u >= p.units)
                continue;
            if (q < 2) /* both biases get the same */
                out[q * p.units + u] = out[gates + q * p.units + u] = sum;
            else
                out[(q == 2 ? gates : 0) + 2 * p.units + u] = sum;
        }
    }
}

template <int NT, int KG>
__device__ void chain(const gru_call &p, backward_space<NT> &s, int64_t slices, float *parts, const lane_place &l) {
    int units = p.units, gates = 3 * units;
    uint32_t u[KG][4]; /* the recurrent kernel: units by gates */
    UNROLL
    for (int k = 0; k < KG; k++)
        fill_left(u[k], l, [&](int row, int g) {
            return 16 * l.warp + row < units && 16 * k + g < gates
                       ? p.recurrent_kernel[(16 * l.warp + row) * gates + 16 * k + g]
                       : 0.0F;
        });
    int thread = 32 * l.warp + l.lane;
    float bias[4][2] = {};
    for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
        slice_place<NT> at = place_slice<NT>(p, slice);
        float d[NT][4];
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                int row = 16 * l.warp + l.g + 8 * (e / 2);
                int64_t r = (at.tile + n) * SAP_GRU_TILE + 2 * l.t + (e & 1);
                d[n][e] = row < units && r < at.rows ? p.d_last[r * units + row] : 0;
            }
        }
        wait_for(ALL, THREADS);
        wait_for(ALL, THREADS); /* the first step's coefficients */
        for (int32_t i = 1; i < at.longest + 2; i++) {
            if (i <= at.longest) {
                UNROLL
                for (int n = 0; n < NT; n++)
                    spread(s.of[(i - 1) & 1][n][thread], d[n], s.gates[i & 1][n], units, bias, l);
                wait_for(ONE, ROLE);
                UNROLL
                for (int n = 0; n < NT; n++) {
                    float other[4] = {};
                    UNROLL
                    for (int k = 0; k < KG; k += 2) {
                        uint32_t b[4];
                        load_matrices<true>(b, s.gates[i & 1][n] + (16 * k + l.lane) * 16);
                        multiply_bf16(d[n], u[k], b[0], b[1]);
                        multiply_bf16(other, u[k + 1], b[2], b[3]);
                    }
                    UNROLL
                    for (int e = 0; e < 4; e++)
                        d[n][e] += other[e];
                }
            }
            wait_for(ALL, THREADS);
        }
    }
    store_biases(p, bias, parts, l);
}

/* ---- Weights ------------------------------------------------------------------------------------------------ */

/* Adds a step of two tiles (or one, and zeros): gates' gradients times states and inputs. */
template <int JH, int JX>
__device__ inline void gather_tiles(float (*sum)[JH + JX][4], const gru_call &p, const char *gates, const char *h,
                                    const char *x, int gates_step, int h_step, int x_step, const char *zeros,
                                    const lane_place &l) {
    int units = p.units, h_rows = padded_rows(units), x_rows = padded_rows(p.width);
    /* lanes 0-7, 8-15: units 0-7, 8-15 of the first tile; 16-31: of the second */
    int left = 16 * l.warp + l.lane % 16;
    bool second = l.lane >= 16;
    auto load_left = [&](uint32_t *a, int q) {
        load_matrices<false>(a, second && !gates_step ? zeros : gates + second * gates_step + (q * units + left) * 16);
    };
    uint32_t a[3][4];
    UNROLL
    for (int q = 0; q < 3; q++)
        load_left(a[q], q);
    UNROLL
    for (int j = 0; j < JH + JX; j += 2) {
        /* lanes 0-7, 8-15: rows 8j of the first and second tile; 16-31: rows 8 (j + 1) */
        uint32_t b[4];
        int block = j + (l.lane >= 16), row = 8 * (block < JH ? block : block - JH) + l.lane % 8;
        bool other = l.lane / 8 % 2, state = block < JH;
        const char *at = state ? h + other * h_step : x + other * x_step;
        bool there = block < JH + JX && row < (state ? h_rows : x_rows) && !(other && !h_step);
        load_matrices<false>(b, there ? at + row * 16 : zeros);
        UNROLL
        for (int k = 0; k < 2; k++) {
            if (j + k >= JH + JX)
                continue;
            if (j + k == JH) /* from here on the input, which meets another gradient of a */
                load_left(a[2], 3);
            UNROLL
            for (int q = 0; q < 3; q++)
                multiply_bf16(sum[q][j + k], a[q], b[2 * k], b[2 * k + 1]);
        }
    }
}

template <int NT, int JH, int JX>
__device__ void weights(const gru_call &p, backward_space<NT> &s, int64_t slices, float *parts, const lane_place &l) {
    float sum[3][JH + JX][4] = {};
    constexpr int PAIR = NT > 1;
    for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
        slice_place<NT> at = place_slice<NT>(p, slice);
        wait_for(ALL, THREADS);
        wait_for(ALL, THREADS);
        for (int32_t i = 1; i < at.longest + 2; i++) {
            int slot = (i - 2) & (SLOTS - 1);
            if (i >= 2) {
                UNROLL
                for (int n = 0; n < NT; n += 2)
                    gather_tiles<JH, JX>(sum, p, s.gates[(i - 1) & 1][n], s.h[slot][n], s.x[slot][n],
                                         PAIR * (int)sizeof s.gates[0][0], PAIR * (int)sizeof s.h[0][0],
                                         PAIR * (int)sizeof s.x[0][0], s.zeros, l);
            }
            wait_for(ALL, THREADS);
        }
    }
    int units = p.units, gates = 3 * units;
    float *recurrent = parts + (int64_t)p.width * gates;
    UNROLL
    for (int q = 0; q < 3; q++) {
        UNROLL
        for (int j = 0; j < JH + JX; j++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                int u = 16 * l.warp + l.g + 8 * (e / 2), row = 8 * (j < JH ? j : j - JH) + 2 * l.t + (e & 1);
                if (u < units && row < (j < JH ? units : p.width))
                    (j < JH ? recurrent : parts)[row * gates + q * units + u] = sum[q][j][e];
            }
        }
    }
}

/* ---- The kernel --------------------------------------------------------------------------------------------- */

template <int NT, int KX, int KG, int JH, int JX>
__global__ void __launch_bounds__(THREADS, 1) backward(const __grid_constant__ gru_call p, int64_t slices) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    backward_space<NT> &s = *(backward_space<NT> *)raw;
    for (int i = (int)threadIdx.x; i < (int)(sizeof s / 4); i += THREADS)
        ((uint32_t *)raw)[i] = 0;
    __syncthreads();
    int role = (int)threadIdx.x / ROLE, thread = (int)threadIdx.x % ROLE;
    const lane_place l = {thread / 32, thread % 32, thread % 32 / 4, thread % 4};
    float *parts = p.parts + blockIdx.x * gru_parameters(p.width, p.units);
    if (role == 0)
        chain<NT, KG>(p, s, slices, parts, l);
    else if (role == 1)
        recompute<NT, KX>(p, s, slices, l);
    else
        weights<NT, JH, JX>(p, s, slices, parts, l);
#endif
}

__global__ void add_blocks(const float *parts, int blocks, int64_t count, int64_t kernels, int64_t recurrents,
                           float *kernel, float *recurrent, float *bias) {
    FOR_EACH (i, count) {
        float sum = 0;
        for (int b = 0; b < blocks; b++)
            sum += parts[b * count + i];
        if (i < kernels)
            kernel[i] += sum;
        else if (i < kernels + recurrents)
            recurrent[i - kernels] += sum;
        else if (bias)
            bias[i - kernels - recurrents] += sum;
    }
}

/* Tiles of a slice and blocks, for so many rows. */
struct shape {
    int tiles;
    int64_t slices;
    unsigned blocks;
};

shape shape_for(int64_t most_rows, int multiprocessors) {
    int64_t tiles = (most_rows + SAP_GRU_TILE - 1) / SAP_GRU_TILE;
    int each = tiles <= multiprocessors ? 1 : tiles <= 2 * multiprocessors ? 2 : 4;
    int64_t slices = (tiles + each - 1) / each;
    return {each, slices, (unsigned)(slices < multiprocessors ? slices : multiprocessors)};
}

template <int NT, int KX, int KG, int JH, int JX>
cudaError_t start(cudaStream_t stream, const gru_call &p, const shape &f) {
    size_t shared = sizeof(backward_space<NT>);
    cudaError_t error =
        cudaFuncSetAttribute(backward<NT, KX, KG, JH, JX>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error == cudaSuccess)
        SAP_LAUNCH((backward<NT, KX, KG, JH, JX>), dim3(f.blocks), dim3(THREADS), shared, stream, p, f.slices);
    return error;
}

template <int NT> cudaError_t start_sized(cudaStream_t stream, const gru_call &p, const shape &f) {
    if (p.units <= 53 && p.width <= 24) /* 160 gate rows, 56 + 24 rows of factors: all sums in registers */
        return start<NT, 2, 10, 7, 3>(stream, p, f);
    return start<NT, 2, 12, 8, 4>(stream, p, f);
}

} // namespace

size_t gru_shared_bytes() {
    return sizeof(backward_space<4>);
}

cudaError_t launch_gru_backward(cudaStream_t stream, const gru_call &p, int64_t most_rows, int multiprocessors) {
    shape f = shape_for(most_rows, multiprocessors);
    return f.tiles == 1   ? start_sized<1>(stream, p, f)
           : f.tiles == 2 ? start_sized<2>(stream, p, f)
                          : start_sized<4>(stream, p, f);
}

void launch_gru_sum(cudaStream_t stream, const gru_call &p, int64_t most_rows, int multiprocessors, float *kernel,
                    float *recurrent_kernel, float *bias) {
    shape f = shape_for(most_rows, multiprocessors);
    int64_t count = gru_parameters(p.width, p.units);
    SAP_LAUNCH(add_blocks, dim3(blocks_for(count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p.parts, (int)f.blocks,
               count, (int64_t)p.width * 3 * p.units, (int64_t)p.units * 3 * p.units, kernel, recurrent_kernel, bias);
}
