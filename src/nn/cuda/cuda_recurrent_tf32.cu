/* GRU and LSTM of any size with products in tf32 on tensor cores: as cuda_recurrent.cu, but that a block takes 8 rows, which are the columns of
 * its products, and a warp 16 sums of each of them at a time. Gates, states and sums are float32.
 */
#include "cuda_gates.h"

namespace {

enum { ROWS = 8, SUMS = 16, WARPS = SAP_THREADS / 32 };

/* The least number from n on that is `rest` more than a multiple of the banks. */
__device__ __host__ inline int32_t padded(int32_t n, int32_t rest) {
    return (n - rest + 31) / 32 * 32 + rest;
}

__device__ __host__ inline int32_t columns_of(const recurrent &p) {
    return (p.lstm ? 4 : 3) * p.units;
}

/* Rows of the recurrent kernel stand so far apart in shared memory that the numbers of a fragment are at different banks: the lanes' numbers t
 * go down the rows on the way forward (U is taken transposed), along them on the way back. */
enum { REST_FORWARD = 8, REST_BACKWARD = 4 };

size_t kernel_bytes(const recurrent &p, int32_t rest) {
    return (size_t)p.units * (size_t)padded(columns_of(p), rest) * sizeof(float);
}

size_t forward_bytes(const recurrent &p) {
    return (size_t)ROWS * (size_t)(padded(p.units, 4) + p.units + columns_of(p)) * sizeof(float);
}

size_t backward_bytes(const recurrent &p) {
    return (size_t)ROWS * 3 * (size_t)p.units * sizeof(float);
}

#if SAP_TENSOR_CORES

/* The recurrent kernel, in shared memory (at `space`) or where it is. */
struct state_kernel {
    const float *u;
    int32_t pitch;
    __device__ float at(int unit, int column) const {
        return u[unit * pitch + column];
    }
};

__device__ state_kernel load_kernel(const recurrent &p, float *space, bool in_shared, int32_t rest) {
    int32_t columns = columns_of(p), pitch = padded(columns, rest);
    if (!in_shared)
        return {p.recurrent_kernel, columns};
    for (int i = (int)threadIdx.x; i < p.units * columns; i += SAP_THREADS)
        space[i / columns * pitch + i % columns] = p.recurrent_kernel[i];
    return {space, pitch};
}

/* The rows of a block. */
struct chain_rows {
    int64_t first;
    int count;
    int32_t longest;
};

__device__ chain_rows rows_of(const recurrent &p) {
    chain_rows rows = {(int64_t)blockIdx.x * ROWS, 0, 0};
    rows.count = (int)max((int64_t)0, min((int64_t)ROWS, *p.at.rows - rows.first));
    for (int r = 0; r < rows.count; r++)
        rows.longest = max(rows.longest, row_steps(p.at, rows.first + r));
    return rows;
}

/* Where step t of a row stands; -1: it has no such step. */
__device__ inline int64_t position(const recurrent &p, const chain_rows &rows, int r, int32_t t) {
    int64_t row = rows.first + r;
    int32_t steps = r < rows.count ? row_steps(p.at, row) : 0;
    return t >= steps ? -1 : first_step(p.at, row) + (p.backwards ? steps - 1 - t : t);
}

/* sum += a product of 16 rows, a(row, k), and 8 columns, of which b(k) is the lane's own: number lane / 4. Both are 0 from `depth` on. */
template <class A, class B> __device__ inline void add_product(float *sum, int depth, A a, B b) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    for (int k = t; k - t < depth; k += 8) {
        const uint32_t left[4] = {to_tf32(a(g, k)), to_tf32(a(g + 8, k)), to_tf32(a(g, k + 4)),
                                  to_tf32(a(g + 8, k + 4))};
        multiply_tf32(sum, left, to_tf32(b(k)), to_tf32(b(k + 4)));
    }
}

/* Calls store(row, column, sum) for the lane's part of a product. */
template <class F> __device__ inline void store_product(const float *sum, F store) {
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    UNROLL
    for (int e = 0; e < 4; e++)
        store(g + 8 * (e / 2), 2 * t + e % 2, sum[e]);
}

#endif

__global__ void __launch_bounds__(SAP_THREADS)
    forward(const __grid_constant__ recurrent p, const __grid_constant__ recurrent_kept kept, bool in_shared) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    int n = p.units, columns = columns_of(p), gates = columns / n, pitch = padded(n, 4);
    float *h = (float *)raw, *c = h + ROWS * pitch,
          *sums = c + ROWS * n; /* (ROWS, pitch), (ROWS, n), (ROWS, columns) */
    const state_kernel u = load_kernel(p, sums + ROWS * columns, in_shared, REST_FORWARD);
    const chain_rows rows = rows_of(p);
    const float *own = h + (int)threadIdx.x % 32 / 4 * pitch, *bias = p.lstm || !p.bias ? nullptr : p.bias + columns;
    for (int i = (int)threadIdx.x; i < ROWS * (pitch + n); i += SAP_THREADS)
        h[i] = 0; /* and c */
    __syncthreads();
    for (int32_t t = 0; t < rows.longest; t++) {
        for (int first = (int)threadIdx.x / 32 * SUMS; first < columns; first += WARPS * SUMS) {
            float sum[4] = {};
            add_product(
                sum, n, [&](int i, int k) { return first + i < columns && k < n ? u.at(k, first + i) : 0.0F; },
                [&](int k) { return k < n ? own[k] : 0.0F; });
            store_product(sum, [&](int i, int r, float x) {
                if (first + i < columns)
                    sums[r * columns + first + i] = x;
            });
        }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < rows.count * n; i += SAP_THREADS) {
            int r = i / n, j = i % n;
            int64_t at = position(p, rows, r, t);
            float gate[4], *state = &h[r * pitch + j];
            if (at < 0)
                continue;
            for (int q = 0; q < gates; q++)
                gate[q] = sums[r * columns + q * n + j] + (bias ? bias[q * n + j] : 0);
            *state = p.lstm ? lstm_gates(p, kept, at, j, gate, *state, &c[i]) : gru_gates(p, kept, at, j, gate, *state);
            if (p.y)
                p.y[at * n + j] = *state;
        }
        __syncthreads();
    }
    for (int i = (int)threadIdx.x; p.last && i < rows.count * n; i += SAP_THREADS)
        p.last[rows.first * n + i] = h[i / n * pitch + i % n];
#endif
}

__global__ void __launch_bounds__(SAP_THREADS)
    backward(const __grid_constant__ recurrent p, const __grid_constant__ recurrent_kept kept, bool in_shared) {
#if SAP_TENSOR_CORES
    SAP_SHARED(raw);
    int n = p.units, columns = columns_of(p);
    float *dh = (float *)raw, *around = dh + ROWS * n, *dc = around + ROWS * n; /* (ROWS, n) */
    const state_kernel u = load_kernel(p, dc + ROWS * n, in_shared, REST_BACKWARD);
    const chain_rows rows = rows_of(p);
    for (int i = (int)threadIdx.x; i < ROWS * n; i += SAP_THREADS) {
        dh[i] = p.d_last && i < rows.count * n ? p.d_last[rows.first * n + i] : 0;
        dc[i] = 0;
    }
    __syncthreads();
    for (int32_t t = rows.longest - 1; t >= 0; t--) {
        for (int i = (int)threadIdx.x; i < rows.count * n; i += SAP_THREADS) {
            int j = i % n;
            int64_t at = position(p, rows, i / n, t);
            around[i] = dh[i];
            if (at < 0)
                continue;
            float d = dh[i] + (p.dy ? p.dy[at * n + j] : 0);
            if (p.lstm)
                lstm_back(p, kept, at, j, d, &dc[i]);
            around[i] = p.lstm ? 0 : gru_back(p, kept, at, j, d);
        }
        __syncthreads(); /* and the gates' gradients are seen by the whole block */
        int64_t at = position(p, rows, (int)threadIdx.x % 32 / 4, t);
        const float *own = at < 0 ? nullptr : kept.d_recurrent + at * columns;
        for (int first = (int)threadIdx.x / 32 * SUMS; first < n; first += WARPS * SUMS) {
            float sum[4] = {};
            add_product(
                sum, columns, [&](int i, int k) { return first + i < n && k < columns ? u.at(first + i, k) : 0.0F; },
                [&](int k) { return own && k < columns ? own[k] : 0.0F; });
            store_product(sum, [&](int i, int r, float x) {
                if (first + i < n && r < rows.count)
                    dh[r * n + first + i] = around[r * n + first + i] + x;
            });
        }
        __syncthreads();
    }
#endif
}

} // namespace

void launch_recurrent_tf32(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                           size_t shared_most) {
    if (forward_bytes(p) > shared_most) {
        launch_recurrent(stream, p, kept, most_rows, shared_most);
        return;
    }
    launch_chain(forward, stream, p, kept, most_rows, ROWS, forward_bytes(p), kernel_bytes(p, REST_FORWARD),
                 shared_most);
}

void launch_recurrent_tf32_gradient(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept,
                                    int64_t most_rows, size_t shared_most) {
    if (backward_bytes(p) > shared_most) {
        launch_recurrent_gradient(stream, p, kept, most_rows, shared_most);
        return;
    }
    launch_chain(backward, stream, p, kept, most_rows, ROWS, backward_bytes(p), kernel_bytes(p, REST_BACKWARD),
                 shared_most);
}
