/* The gradient of recurrent layers: blocks of warps in roles, each a step behind the other, take slices of the batch back in time.
 *
 * `Recompute` gets the gates of a step again from the input and the state before it, as coefficients by which the gradient of the state
 * after the step has to be multiplied. `Chain` walks that gradient back: times the coefficients it gives the gradients of the gates,
 * and those times the recurrent kernel, with what passed the gates, the gradient of the state before. `Weights` gathers
 * the products of gates' gradients with states and inputs in registers, over all steps and slices of a block; the
 * blocks' sums are added afterwards, in their order. A role has four warps; LSTM, whose sums are more, has two of the last.
 */
#include "cuda_cell.h"

namespace {

enum {
    ROLE = 128, /* threads of a role */
    SLOTS = 8,  /* steps of input and state in shared memory */
    AHEAD = 4,  /* steps that are on their way */
    GATE_ROWS = 4 * SAP_CELL_UNITS,
    ALL = 1,
    ONE = 2 /* barriers: of the block, of `Chain` */
};

/* Layers whose sums fit the registers best: 160 rows of a GRU's gates, 80 rows of input and state. */
constexpr int SMALL_UNITS = 53, SMALL_WIDTH = 24;

/* What `Recompute` leaves for `Chain`: of the thread with the same fragment. */
template <class Cell> struct coefficients {
    float pass[4];
    uint32_t factor[Cell::FACTORS][2]; /* bf16 pairs */
};

[[maybe_unused]] __device__ inline float number_of(const uint32_t *pairs, int e) {
    return e & 1 ? high_bf16(pairs[e / 2]) : low_bf16(pairs[e / 2]);
}

[[maybe_unused]] __device__ inline void start_sums(float (*sum)[4], const float (*bias)[2]) {
    UNROLL
    for (int q = 0; q < 4; q++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            sum[q][e] = bias[q][e / 2];
    }
}

/* ---- Cells -------------------------------------------------------------------------------------------------- */

/* Gates' gradients of a step, `units` rows each: z, r and a's recurrent part, then a's part of the input. */
struct gru_gradient : gru_cell {
    enum { FACTORS = 4, GATHERERS = 1, GATHERED = 3 }; /* roles that gather weights, gates of each */
    template <bool SMALL> struct weights {
        cell_weights<gru_cell, 2> w;
        __device__ void load(const cell_call &p, const lane_place &l) {
            load_weights(w, p, l);
        }
        /* The sums of a tile's step, whose input and state stand behind each other. */
        __device__ void sums(float (*sum)[4], const cell_call &p, const char *step, const char *zeros, int lane) const {
            int x_rows = padded_rows(p.width);
            uint32_t bx[4], bh[8];
            load_right<2>(bx, step, x_rows, zeros, lane);
            load_right<4>(bh, step + x_rows * 16, padded_rows(p.units), zeros, lane);
            start_sums(sum, w.bias);
            UNROLL
            for (int q = 0; q < GATES; q++) {
                UNROLL
                for (int k = 0; k < 2; k++)
                    multiply_bf16(sum[q], w.x[q][k], bx[2 * k], bx[2 * k + 1]);
                UNROLL
                for (int k = 0; k < 4; k++)
                    multiply_bf16(sum[state_sum(q)], w.h[q][k], bh[2 * k], bh[2 * k + 1]);
            }
        }
    };
    /* From the sums and the state before: what passes around the gates, and the gates' factors. */
    __device__ static float differentiate(float z, float r, float input, float state, float h, float, float *factor) {
        r = fast_sigmoid(r);
        z = fast_sigmoid(z);
        float a = fast_tanh(fmaf(r, state, input)), da = (1 - z) * (1 - a * a);
        factor[0] = (h - a) * z * (1 - z);
        factor[1] = da * state * r * (1 - r);
        factor[2] = da * r;
        factor[3] = da;
        return z;
    }
    /* From the gradient d of the state after a step those of its gates; d becomes what passes to the state before. */
    __device__ static void spread(const coefficients<gru_gradient> &c, int e, bool, float *d, float *, float *gate) {
        UNROLL
        for (int q = 0; q < 4; q++)
            gate[q] = *d * number_of(c.factor[q], e);
        *d *= c.pass[e];
    }
    /* Where the bias of unit u has the sum of gate gradient q. */
    __device__ static void store_bias(float *out, int units, int q, int u, float sum) {
        if (q < 2) /* both biases get the same */
            out[q * units + u] = out[(3 + q) * units + u] = sum;
        else
            out[(q == 2 ? 5 : 2) * units + u] = sum;
    }
};

/* Gates' gradients of a step: i, f, a, o. */
struct lstm_gradient : lstm_cell {
    enum { FACTORS = 5, GATHERERS = 2, GATHERED = 2 };
    /* Input and state are one factor of the products, which saves the registers of 16 rows. */
    template <bool SMALL> struct weights {
        enum { K = SMALL ? 5 : 6 };
        uint32_t v[GATES][K][4];
        float bias[4][2];
        __device__ void load(const cell_call &p, const lane_place &l) {
            int x_rows = padded_rows(p.width);
            UNROLL
            for (int q = 0; q < GATES; q++) {
                UNROLL
                for (int k = 0; k < K; k++)
                    fill_left(v[q][k], l, [&](int u, int i) {
                        int row = 16 * k + i;
                        return row < x_rows ? kernel_at(p, GATES, row, q, 16 * l.warp + u)
                                            : recurrent_kernel_at(p, GATES, row - x_rows, q, 16 * l.warp + u);
                    });
            }
            load_biases<lstm_cell>(bias, p, l);
        }
        __device__ void sums(float (*sum)[4], const cell_call &p, const char *step, const char *zeros, int lane) const {
            int rows = padded_rows(p.width) + padded_rows(p.units);
            start_sums(sum, bias);
            UNROLL
            for (int k = 0; k < K; k += 2) {
                uint32_t b[4];
                int row = 16 * k + lane;
                load_matrices<true>(b, row < rows ? step + row * 16 : zeros);
                UNROLL
                for (int q = 0; q < GATES; q++) {
                    multiply_bf16(sum[q], v[q][k], b[0], b[1]);
                    if (k + 1 < K)
                        multiply_bf16(sum[q], v[q][(k + 1) % K], b[2], b[3]);
                }
            }
        }
    };
    /* The factors of i, f, a are for the gradient of c, that of o for h's; the last takes h's to c. */
    __device__ static float differentiate(float i, float f, float a, float o, float, float c, float *factor) {
        i = fast_sigmoid(i);
        f = fast_sigmoid(f);
        a = fast_tanh(a);
        o = fast_sigmoid(o);
        float t = fast_tanh(fmaf(f, c, i * a));
        factor[0] = a * i * (1 - i);
        factor[1] = c * f * (1 - f);
        factor[2] = i * (1 - a * a);
        factor[3] = t * o * (1 - o);
        factor[4] = o * (1 - t * t);
        return f;
    }
    __device__ static void spread(const coefficients<lstm_gradient> &c, int e, bool live, float *d, float *carry,
                                  float *gate) {
        *carry = fmaf(*d, number_of(c.factor[4], e), *carry);
        UNROLL
        for (int q = 0; q < 4; q++)
            gate[q] = (q < 3 ? *carry : *d) * number_of(c.factor[q], e);
        *carry *= c.pass[e];
        *d = live ? 0 : *d;
    }
    __device__ static void store_bias(float *out, int units, int q, int u, float sum) {
        out[q * units + u] = sum;
    }
};

/* ---- Slices ------------------------------------------------------------------------------------------------- */

template <class Cell> constexpr int THREADS = (2 + Cell::GATHERERS) * ROLE;

template <class Cell, int NT> struct backward_space {
    char steps[SLOTS][NT][(SAP_CELL_WIDTH + (1 + Cell::CARRY) * SAP_CELL_UNITS) * 16]; /* input, h, c */
    coefficients<Cell> of[2][NT][ROLE];
    char gates[2][NT][GATE_ROWS * 16];
    char zeros[16];
};

/* A slice of the batch: NT tiles, and the lengths of the thread's two columns in each of them. */
template <int NT> struct slice_place {
    int64_t tile, rows;
    int32_t steps[NT], length[NT][2], longest;
};

template <int NT>
__device__ inline slice_place<NT> place_slice(const cell_call &p, int64_t slice, const lane_place &l) {
    slice_place<NT> at = {slice * NT, *p.at.rows, {}, {}, 0};
    int64_t tiles = (at.rows + SAP_CELL_TILE - 1) / SAP_CELL_TILE;
    UNROLL
    for (int n = 0; n < NT; n++) {
        at.steps[n] = at.tile + n < tiles ? p.tile_first[at.tile + n + 1] - p.tile_first[at.tile + n] : 0;
        at.longest = max(at.longest, at.steps[n]);
        for (int c = 0; c < 2; c++) {
            int64_t r = (at.tile + n) * SAP_CELL_TILE + 2 * l.t + c;
            at.length[n][c] = r < at.rows ? row_steps(p.at, r) : 0;
        }
    }
    return at;
}

/* ---- Recompute ---------------------------------------------------------------------------------------------- */

/* Starts copying input and state of the i-th step from the end. */
template <class Cell, int NT>
__device__ inline void fetch(const cell_call &p, backward_space<Cell, NT> &s, const slice_place<NT> &at, int32_t i,
                             int thread) {
    int32_t t = at.longest - 1 - i;
    int x_rows = padded_rows(p.width), state_rows = cell_state_rows(p), slot = i % SLOTS;
    UNROLL
    for (int n = 0; n < NT; n++) {
        if (t < 0 || t >= at.steps[n])
            continue;
        int64_t first = p.tile_first[at.tile + n];
        const char *x = (const char *)(p.tiles + (first + t) * x_rows * 8);
        const char *state = (const char *)(p.states + (first + at.tile + n + t) * state_rows * 8);
        for (int e = thread; e < x_rows + state_rows; e += ROLE)
            copy_async<16>(&s.steps[slot][n][e * 16], e < x_rows ? x + e * 16 : state + (e - x_rows) * 16);
    }
    copy_commit();
}

/* The thread's numbers of a state, as store_state wrote them. */
[[maybe_unused]] __device__ inline void read_state(const char *at, float *out, const lane_place &l) {
    int row = 16 * l.warp + l.g;
    const uint32_t pairs[2] = {*(const uint32_t *)(at + row * 16 + l.t * 4),
                               *(const uint32_t *)(at + (row + 8) * 16 + l.t * 4)};
    UNROLL
    for (int e = 0; e < 4; e++)
        out[e] = number_of(pairs, e);
}

/* The coefficients of one tile's step; live: which of the thread's two columns take part in it. */
template <class Cell, class Weights>
__device__ inline void recompute_tile(const Weights &w, const cell_call &p, const char *step, const char *zeros,
                                      const bool *live, const lane_place &l, coefficients<Cell> *out) {
    float sum[4][4], h[4], c[4] = {}, factor[4][Cell::FACTORS];
    const char *state = step + padded_rows(p.width) * 16;
    w.sums(sum, p, step, zeros, l.lane);
    read_state(state, h, l);
    if (Cell::CARRY)
        read_state(state + padded_rows(p.units) * 16, c, l);
    UNROLL
    for (int e = 0; e < 4; e++) {
        float pass = Cell::differentiate(sum[0][e], sum[1][e], sum[2][e], sum[3][e], h[e], c[e], factor[e]);
        out->pass[e] = live[e & 1] ? pass : 1;
    }
    UNROLL
    for (int q = 0; q < Cell::FACTORS; q++) {
        UNROLL
        for (int half = 0; half < 2; half++)
            out->factor[q][half] = pack_bf16(live[0] ? factor[2 * half][q] : 0, live[1] ? factor[2 * half + 1][q] : 0);
    }
}

template <class Cell, int NT, bool SMALL>
__device__ void recompute(const cell_call &p, backward_space<Cell, NT> &s, int64_t slices, const lane_place &l) {
    typename Cell::template weights<SMALL> w;
    w.load(p, l);
    int thread = 32 * l.warp + l.lane;
    for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
        slice_place<NT> at = place_slice<NT>(p, slice, l);
        for (int i = 0; i < AHEAD; i++)
            fetch(p, s, at, i, thread);
        copy_wait<AHEAD - 1>();
        wait_for(ALL, THREADS<Cell>);
        for (int32_t i = 0; i < at.longest + 2; i++) {
            int32_t t = at.longest - 1 - i;
            UNROLL
            for (int n = 0; n < NT; n++) {
                bool live[2] = {t < at.length[n][0], t < at.length[n][1]};
                if (t >= 0)
                    recompute_tile(w, p, s.steps[i % SLOTS][n], s.zeros, live, l, &s.of[i & 1][n][thread]);
            }
            fetch(p, s, at, i + AHEAD, thread);
            copy_wait<AHEAD - 1>();
            wait_for(ALL, THREADS<Cell>);
        }
        copy_wait<0>();
    }
}

/* ---- Chain -------------------------------------------------------------------------------------------------- */

/* Gradients of a step's gates: to shared memory, and added to those of the biases. */
template <class Cell>
__device__ inline void spread(const coefficients<Cell> &c, const bool *live, float *d, float *carry, char *gates,
                              int units, float (*bias)[2], const lane_place &l) {
    int row = 16 * l.warp + l.g;
    float gate[4][4];
    UNROLL
    for (int e = 0; e < 4; e++)
        Cell::spread(c, e, live[e & 1], &d[e], &carry[e], gate[e]);
    UNROLL
    for (int q = 0; q < 4; q++) {
        char *at = gates + (q * units + row) * 16 + l.t * 4;
        if (row < units)
            *(uint32_t *)at = pack_bf16(gate[0][q], gate[1][q]);
        if (row + 8 < units)
            *(uint32_t *)(at + 8 * 16) = pack_bf16(gate[2][q], gate[3][q]);
        bias[q][0] += gate[0][q] + gate[1][q];
        bias[q][1] += gate[2][q] + gate[3][q];
    }
}

/* The biases' gradients of the block, whose columns stand in four lanes. */
template <class Cell>
__device__ inline void store_biases(const cell_call &p, float (*bias)[2], float *parts, const lane_place &l) {
    float *out = parts + (int64_t)(p.width + p.units) * Cell::GATES * p.units;
    UNROLL
    for (int q = 0; q < 4; q++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            float sum = bias[q][half];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            int u = 16 * l.warp + l.g + 8 * half;
            if (l.t == 0 && u < p.units)
                Cell::store_bias(out, p.units, q, u, sum);
        }
    }
}

/* d += the recurrent kernel (16 units of the warp by gates) times the gates' gradients (gates, 8). */
template <int KG> __device__ inline void go_back(const uint32_t (*u)[4], const char *gates, float *d, int lane) {
    float other[4] = {};
    UNROLL
    for (int k = 0; k < KG; k += 2) {
        uint32_t b[4];
        load_matrices<true>(b, gates + (16 * k + lane) * 16);
        multiply_bf16(d, u[k], b[0], b[1]);
        multiply_bf16(other, u[k + 1], b[2], b[3]);
    }
    UNROLL
    for (int e = 0; e < 4; e++)
        d[e] += other[e];
}

template <class Cell, int NT, bool SMALL>
__device__ void chain(const cell_call &p, backward_space<Cell, NT> &s, int64_t slices, float *parts,
                      const lane_place &l) {
    constexpr int KG = (Cell::GATES * (SMALL ? SMALL_UNITS : SAP_CELL_UNITS) + 31) / 32 * 2;
    int units = p.units, gates = Cell::GATES * units;
    uint32_t u[KG][4];
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
        slice_place<NT> at = place_slice<NT>(p, slice, l);
        float d[NT][4], carry[NT][4] = {};
        UNROLL
        for (int n = 0; n < NT; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                int row = 16 * l.warp + l.g + 8 * (e / 2);
                int64_t r = (at.tile + n) * SAP_CELL_TILE + 2 * l.t + (e & 1);
                d[n][e] = row < units && r < at.rows ? p.d_last[r * units + row] : 0;
            }
        }
        wait_for(ALL, THREADS<Cell>);
        wait_for(ALL, THREADS<Cell>); /* the first step's coefficients */
        for (int32_t i = 1; i < at.longest + 2; i++) {
            if (i <= at.longest) {
                int32_t t = at.longest - i;
                UNROLL
                for (int n = 0; n < NT; n++) {
                    bool live[2] = {t < at.length[n][0], t < at.length[n][1]};
                    spread(s.of[(i - 1) & 1][n][thread], live, d[n], carry[n], s.gates[i & 1][n], units, bias, l);
                }
                wait_for(ONE, ROLE);
                UNROLL
                for (int n = 0; n < NT; n++)
                    go_back<KG>(u, s.gates[i & 1][n], d[n], l.lane);
            }
            wait_for(ALL, THREADS<Cell>);
        }
    }
    store_biases<Cell>(p, bias, parts, l);
}

/* ---- Weights ------------------------------------------------------------------------------------------------ */

/* A step of one tile, or of two. */
struct gathered_step {
    const char *gates, *h, *x, *zeros;
    int gates_apart, steps_apart; /* bytes from one tile to the other; 0: one tile */
};

/* Adds a step: gradients of gates from `first_gate` on times states and inputs. */
template <class Cell, int JH, int JX>
__device__ inline void gather_step(float (*sum)[JH + JX][4], const cell_call &p, const gathered_step &s, int first_gate,
                                   const lane_place &l) {
    int units = p.units, h_rows = padded_rows(units), x_rows = padded_rows(p.width);
    /* lanes 0-7, 8-15: units 0-7, 8-15 of the first tile; 16-31: of the second */
    int left = 16 * l.warp + l.lane % 16;
    bool second = l.lane >= 16;
    auto load_left = [&](uint32_t *a, int q) {
        const char *at = s.gates + second * s.gates_apart + (q * units + left) * 16;
        load_matrices<false>(a, second && !s.gates_apart ? s.zeros : at);
    };
    uint32_t a[Cell::GATHERED][4];
    UNROLL
    for (int q = 0; q < Cell::GATHERED; q++)
        load_left(a[q], first_gate + q);
    UNROLL
    for (int j = 0; j < JH + JX; j += 2) {
        /* lanes 0-7, 8-15: rows 8j of the first and second tile; 16-31: rows 8 (j + 1) */
        uint32_t b[4];
        int block = j + (l.lane >= 16), row = 8 * (block < JH ? block : block - JH) + l.lane % 8;
        bool other = l.lane / 8 % 2, state = block < JH;
        const char *at = (state ? s.h : s.x) + other * s.steps_apart;
        bool there = block < JH + JX && row < (state ? h_rows : x_rows) && !(other && !s.steps_apart);
        load_matrices<false>(b, there ? at + row * 16 : s.zeros);
        UNROLL
        for (int k = 0; k < 2; k++) {
            if (j + k >= JH + JX)
                continue;
            if (j + k == JH && Cell::state_sum(2) == 3) /* from here on the input, which meets another gradient of a */
                load_left(a[2 % Cell::GATHERED], 3);
            UNROLL
            for (int q = 0; q < Cell::GATHERED; q++)
                multiply_bf16(sum[q][j + k], a[q], b[2 * k], b[2 * k + 1]);
        }
    }
}

template <class Cell, int NT, bool SMALL>
__device__ void gather(const cell_call &p, backward_space<Cell, NT> &s, int64_t slices, float *parts, int first_gate,
                       const lane_place &l) {
    constexpr int JH = SMALL ? (SMALL_UNITS + 7) / 8 : SAP_CELL_UNITS / 8,
                  JX = (SMALL ? SMALL_WIDTH : SAP_CELL_WIDTH) / 8;
    float sum[Cell::GATHERED][JH + JX][4] = {};
    constexpr int PAIR = NT > 1;
    for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
        slice_place<NT> at = place_slice<NT>(p, slice, l);
        wait_for(ALL, THREADS<Cell>);
        wait_for(ALL, THREADS<Cell>);
        for (int32_t i = 1; i < at.longest + 2; i++) {
            int slot = (i - 2) & (SLOTS - 1);
            if (i >= 2) {
                UNROLL
                for (int n = 0; n < NT; n += 2) {
                    const char *x = s.steps[slot][n];
                    gathered_step step = {s.gates[(i - 1) & 1][n],          x + padded_rows(p.width) * 16,   x, s.zeros,
                                          PAIR * (int)sizeof s.gates[0][0], PAIR * (int)sizeof s.steps[0][0]};
                    gather_step<Cell, JH, JX>(sum, p, step, first_gate, l);
                }
            }
            wait_for(ALL, THREADS<Cell>);
        }
    }
    int units = p.units, gates = Cell::GATES * units;
    float *recurrent = parts + (int64_t)p.width * gates;
    UNROLL
    for (int q = 0; q < Cell::GATHERED; q++) {
        UNROLL
        for (int j = 0; j < JH + JX; j++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                int u = 16 * l.warp + l.g + 8 * (e / 2), row = 8 * (j < JH ? j : j - JH) + 2 * l.t + (e & 1);
                if (u < units && row < (j < JH ? units : p.width))
                    (j < JH ? recurrent : parts)[row * gates + (first_gate + q) * units + u] = sum[q][j][e];
            }
        }
    }
}

/* ---- The kernel --------------------------------------------------------------------------------------------- */

template <class Cell, int NT, bool SMALL>
__global__ void __launch_bounds__(THREADS<Cell>, 1) backward(const __grid_constant__ cell_call p, int64_t slices) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    backward_space<Cell, NT> &s = *(backward_space<Cell, NT> *)raw;
    for (int i = (int)threadIdx.x; i < (int)(sizeof s / 4); i += THREADS<Cell>)
        ((uint32_t *)raw)[i] = 0;
    __syncthreads();
    int role = (int)threadIdx.x / ROLE, thread = (int)threadIdx.x % ROLE;
    const lane_place l = {thread / 32, thread % 32, thread % 32 / 4, thread % 4};
    float *parts = p.parts + blockIdx.x * cell_parameters(p);
    if (role == 0)
        chain<Cell, NT, SMALL>(p, s, slices, parts, l);
    else if (role == 1)
        recompute<Cell, NT, SMALL>(p, s, slices, l);
    else
        gather<Cell, NT, SMALL>(p, s, slices, parts, (role - 2) * Cell::GATHERED, l);
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

template <class Cell> size_t space_of(int tiles) {
    return tiles == 1   ? sizeof(backward_space<Cell, 1>)
           : tiles == 2 ? sizeof(backward_space<Cell, 2>)
                        : sizeof(backward_space<Cell, 4>);
}

template <class Cell> shape shape_for(int64_t most_rows, const device_limits &limits) {
    int64_t tiles = (most_rows + SAP_CELL_TILE - 1) / SAP_CELL_TILE, processors = limits.multiprocessors;
    int each = tiles <= processors ? 1 : tiles <= 2 * processors ? 2 : 4;
    while (space_of<Cell>(each) > limits.shared && each > 1)
        each /= 2;
    int64_t slices = (tiles + each - 1) / each;
    return {each, slices, (unsigned)(slices < processors ? slices : processors)};
}

template <class Cell, int NT, bool SMALL> cudaError_t start(cudaStream_t stream, const cell_call &p, const shape &f) {
    size_t shared = sizeof(backward_space<Cell, NT>);
    cudaError_t error =
        cudaFuncSetAttribute(backward<Cell, NT, SMALL>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error == cudaSuccess)
        SAP_LAUNCH((backward<Cell, NT, SMALL>), dim3(f.blocks), dim3(THREADS<Cell>), shared, stream, p, f.slices);
    return error;
}

template <class Cell, int NT> cudaError_t start_sized(cudaStream_t stream, const cell_call &p, const shape &f) {
    return p.units <= SMALL_UNITS && p.width <= SMALL_WIDTH ? start<Cell, NT, true>(stream, p, f)
                                                            : start<Cell, NT, false>(stream, p, f);
}

template <class Cell>
cudaError_t start_any(cudaStream_t stream, const cell_call &p, int64_t most_rows, const device_limits &limits) {
    shape f = shape_for<Cell>(most_rows, limits);
    return f.tiles == 1   ? start_sized<Cell, 1>(stream, p, f)
           : f.tiles == 2 ? start_sized<Cell, 2>(stream, p, f)
                          : start_sized<Cell, 4>(stream, p, f);
}

} // namespace

size_t cell_shared_bytes(bool lstm) {
    return lstm ? space_of<lstm_gradient>(1) : space_of<gru_gradient>(1);
}

cudaError_t launch_cell_backward(cudaStream_t stream, const cell_call &p, int64_t most_rows,
                                 const device_limits &limits) {
    return p.lstm ? start_any<lstm_gradient>(stream, p, most_rows, limits)
                  : start_any<gru_gradient>(stream, p, most_rows, limits);
}

void launch_cell_sum(cudaStream_t stream, const cell_call &p, int64_t most_rows, const device_limits &limits,
                     float *kernel, float *recurrent_kernel, float *bias) {
    shape f = p.lstm ? shape_for<lstm_gradient>(most_rows, limits) : shape_for<gru_gradient>(most_rows, limits);
    int64_t count = cell_parameters(p), gates = (p.lstm ? 4 : 3) * (int64_t)p.units;
    SAP_LAUNCH(add_blocks, dim3(blocks_for(count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p.parts, (int)f.blocks,
               count, p.width * gates, p.units * gates, kernel, recurrent_kernel, bias);
}
