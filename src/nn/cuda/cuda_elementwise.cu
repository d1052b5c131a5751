/* Batches gathered from the rows that the device holds, and layers that go number by number. */
#include "../activation_formulas.h"
#include "cuda_kernels.h"

/* ---- Batches ------------------------------------------------------------------------------------------------ */

namespace {

enum { SCAN_THREADS = 1024 };

/* One block. Offsets by a scan: each thread sums a run of rows, then the runs before it are added. */
__global__ void __launch_bounds__(SCAN_THREADS) begin(const __grid_constant__ step_now now, int32_t rows,
                                                      int32_t inputs, uint64_t key, batch_space batch, step_now *kept) {
    SAP_SHARED(raw);
    int32_t *sums = (int32_t *)raw; /* [SCAN_THREADS] */
    int thread = (int)threadIdx.x, each = (rows + SCAN_THREADS - 1) / SCAN_THREADS;
    int first = min(thread * each, rows), end = min(first + each, rows);
    const row_set &set = now.set;
    const int32_t *order = now.order;
    if (thread == 0)
        *kept = now;
    for (int r = first; r < end; r++) {
        int32_t from = order[r];
        batch.key[r] = mix(key, set.identity ? set.identity[from] : (uint64_t)from);
    }
    if (thread == 0)
        batch.counts[0] = rows;
    for (int i = 0; i < inputs; i++) {
        const int64_t *offsets = set.offsets[i];
        if (!offsets) {
            if (thread == 0)
                batch.counts[1 + i] = rows;
            continue;
        }
        int32_t sum = 0;
        for (int r = first; r < end; r++)
            sum += (int32_t)(offsets[order[r] + 1] - offsets[order[r]]);
        sums[thread] = sum;
        __syncthreads();
        for (int step = 1; step < SCAN_THREADS; step *= 2) {
            int32_t before = thread >= step ? sums[thread - step] : 0;
            __syncthreads();
            sums[thread] += before;
            __syncthreads();
        }
        int32_t at = sums[thread] - sum;
        for (int r = first; r < end; r++) {
            batch.offsets[i][r] = at;
            at += (int32_t)(offsets[order[r] + 1] - offsets[order[r]]);
        }
        if (thread == SCAN_THREADS - 1) {
            batch.offsets[i][rows] = sums[thread];
            batch.counts[1 + i] = sums[thread];
        }
        __syncthreads();
    }
}

__device__ inline float number(float x) {
    return x;
}

__device__ inline float number(uint16_t x) {
    return low_bf16(x);
}

/* A warp a row. */
template <class T>
__global__ void gather(const step_now *now, int input, const int32_t *rows, int64_t values,
                       const int32_t *batch_offsets, float *y) {
    const T *x = (const T *)now->set.x[input];
    const int64_t *offsets = now->set.offsets[input];
    const int32_t *order = now->order;
    int lane = (int)threadIdx.x % 32;
    for (int64_t r = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; r < *rows;
         r += (int64_t)gridDim.x * blockDim.x / 32) {
        int64_t from = offsets ? offsets[order[r]] : order[r];
        int64_t to = batch_offsets ? batch_offsets[r] : r;
        int64_t n = values * (batch_offsets ? batch_offsets[r + 1] - to : 1);
        for (int64_t i = lane; i < n; i += 32)
            y[to * values + i] = number(x[from * values + i]);
    }
}

__global__ void halve(int64_t n, const float *x, uint16_t *y) {
    FOR_EACH (i, n)
        y[i] = (uint16_t)to_bf16(x[i]);
}

} // namespace

void launch_begin(cudaStream_t stream, const step_now &now, int32_t rows, int32_t inputs, uint64_t key,
                  const batch_space &batch, step_now *kept) {
    SAP_LAUNCH(begin, dim3(1), dim3(SCAN_THREADS), SCAN_THREADS * sizeof(int32_t), stream, now, rows, inputs, key,
               batch, kept);
}

void launch_gather(cudaStream_t stream, const step_now *now, const batch_space &batch, int64_t most_rows, int input,
                   bool half, int64_t values, float *y) {
    dim3 blocks(blocks_for(most_rows, SAP_THREADS / 32)), threads(SAP_THREADS);
    if (half)
        SAP_LAUNCH(gather<uint16_t>, blocks, threads, 0, stream, now, input, batch.counts, values, batch.offsets[input],
                   y);
    else
        SAP_LAUNCH(gather<float>, blocks, threads, 0, stream, now, input, batch.counts, values, batch.offsets[input],
                   y);
}

void launch_halve(cudaStream_t stream, int64_t n, const float *x, uint16_t *y) {
    SAP_LAUNCH(halve, dim3(blocks_for(n, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, x, y);
}

/* ---- Activations -------------------------------------------------------------------------------------------- */

namespace {

__global__ void activate(extent n, sap_activation f, const float *z, float *a) {
    FOR_EACH (i, extent_of(n))
        a[i] = sap_activation_value(f, z[i]);
}

__global__ void activate_gradient(extent n, sap_activation f, const float *z, const float *a, float *d) {
    FOR_EACH (i, extent_of(n))
        d[i] *= sap_activation_slope(f, z[i], a[i]);
}

__global__ void softmax(extent n, int64_t width, bool log, const float *z, float *a) {
    FOR_EACH (r, extent_of(n)) {
        const float *from = z + r * width;
        float *to = a + r * width;
        float most = from[0], sum = 0;
        for (int64_t c = 1; c < width; c++)
            most = from[c] > most ? from[c] : most;
        for (int64_t c = 0; c < width; c++)
            sum += expf(from[c] - most);
        for (int64_t c = 0; c < width; c++)
            to[c] = log ? from[c] - most - logf(sum) : expf(from[c] - most) / sum;
    }
}

__global__ void softmax_gradient(extent n, int64_t width, bool log, const float *a, float *d) {
    FOR_EACH (r, extent_of(n)) {
        float dot = 0;
        for (int64_t c = 0; c < width; c++)
            dot += log ? d[r * width + c] : a[r * width + c] * d[r * width + c];
        for (int64_t c = 0; c < width; c++) {
            float *to = d + r * width + c, value = a[r * width + c];
            *to = log ? *to - expf(value) * dot : value * (*to - dot);
        }
    }
}

} // namespace

void launch_activation(cudaStream_t stream, extent n, int64_t most, const sap_activation &activation, const float *z,
                       float *a) {
    SAP_LAUNCH(activate, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, activation, z, a);
}

void launch_activation_gradient(cudaStream_t stream, extent n, int64_t most, const sap_activation &activation,
                                const float *z, const float *a, float *d) {
    SAP_LAUNCH(activate_gradient, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, activation, z,
               a, d);
}

void launch_softmax(cudaStream_t stream, extent n, int64_t most, int64_t width, bool log, const float *z, float *a) {
    SAP_LAUNCH(softmax, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, width, log, z, a);
}

void launch_softmax_gradient(cudaStream_t stream, extent n, int64_t most, int64_t width, bool log, const float *a,
                             float *d) {
    SAP_LAUNCH(softmax_gradient, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, width, log, a,
               d);
}

/* ---- Dropout, copies, merges -------------------------------------------------------------------------------- */

namespace {

/* A warp a row. */
__global__ void drop(extent rows, dropout p, const float *x, bool add, float *y) {
    int lane = (int)threadIdx.x % 32;
    int64_t n = extent_of(rows);
    for (int64_t r = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; r < n;
         r += (int64_t)gridDim.x * blockDim.x / 32) {
        uint64_t key = mix(p.keys[r], p.key);
        int64_t first = p.offsets ? p.offsets[r] : r, count = p.offsets ? p.offsets[r + 1] - first : 1;
        for (int64_t v = lane; v < count * p.values; v += 32) {
            int64_t at = first * p.values + v;
            float value = dropout_bits(key, (uint32_t)v) >= p.threshold ? x[at] * p.scale : 0;
            y[at] = add ? y[at] + value : value;
        }
    }
}

__global__ void copy(extent n, const float *x, bool add, float *y) {
    FOR_EACH (i, extent_of(n))
        y[i] = add ? y[i] + x[i] : x[i];
}

/* x (n, part, inner) and the same part of y (n, axis, inner) */
__device__ inline int64_t place_in(const slice &s, int64_t i) {
    int64_t run = s.part * s.inner;
    return i / run * (s.axis * s.inner) + s.at * s.inner + i % run;
}

__global__ void slice_in(extent n, slice s, const float *x, float *y) {
    FOR_EACH (i, extent_of(n) * s.part * s.inner)
        y[place_in(s, i)] = x[i];
}

__global__ void slice_out(extent n, slice s, const float *y, bool add, float *x) {
    FOR_EACH (i, extent_of(n) * s.part * s.inner)
        x[i] = add ? x[i] + y[place_in(s, i)] : y[place_in(s, i)];
}

__global__ void merge(extent n, sap_cuda_kind kind, int count, bool last, const float *x, float *y) {
    FOR_EACH (i, extent_of(n)) {
        float a = y[i], b = x[i];
        switch (kind) {
        case SAP_CUDA_SUBTRACT:
            a -= b;
            break;
        case SAP_CUDA_MULTIPLY:
            a *= b;
            break;
        case SAP_CUDA_MAXIMUM:
            a = b > a ? b : a;
            break;
        case SAP_CUDA_MINIMUM:
            a = b < a ? b : a;
            break;
        case SAP_CUDA_AVERAGE:
            a = last ? (a + b) / (float)count : a + b;
            break;
        default:
            a += b;
        }
        y[i] = a;
    }
}

/* What the output changes by when input `index` does. Of equal ones, maximum and minimum give it to the first pair's winner as
 * a chain of two-input ones does in TensorFlow: the later input wins only when it is strictly beyond. */
__device__ inline float merge_share(sap_cuda_kind kind, int count, int index, const merge_inputs &inputs, int64_t i,
                                    float y) {
    if (kind == SAP_CUDA_SUBTRACT)
        return index ? -1.0F : 1.0F;
    if (kind == SAP_CUDA_AVERAGE)
        return 1.0F / (float)count;
    if (kind == SAP_CUDA_MULTIPLY) {
        float share = 1;
        for (int k = 0; k < count; k++)
            share *= k == index ? 1 : inputs.x[k][i];
        return share;
    }
    if (kind == SAP_CUDA_MAXIMUM || kind == SAP_CUDA_MINIMUM) {
        for (int k = 0; k < index; k++)
            if (inputs.x[k][i] == y)
                return 0;
        return inputs.x[index][i] == y ? 1 : 0;
    }
    return 1;
}

__global__ void merge_gradient(extent n, sap_cuda_kind kind, int count, int index, merge_inputs inputs, const float *y,
                               const float *dy, bool add, float *dx) {
    FOR_EACH (i, extent_of(n)) {
        float d = dy[i] * merge_share(kind, count, index, inputs, i, y[i]);
        dx[i] = add ? dx[i] + d : d;
    }
}

} // namespace

void launch_dropout(cudaStream_t stream, extent rows, int64_t most, const dropout &p, const float *x, bool add,
                    float *y) {
    SAP_LAUNCH(drop, dim3(blocks_for(most, SAP_THREADS / 32)), dim3(SAP_THREADS), 0, stream, rows, p, x, add, y);
}

void launch_copy(cudaStream_t stream, extent n, int64_t most, const float *x, bool add, float *y) {
    SAP_LAUNCH(copy, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, x, add, y);
}

void launch_slice_in(cudaStream_t stream, extent n, int64_t most, const slice &s, const float *x, float *y) {
    SAP_LAUNCH(slice_in, dim3(blocks_for(most * s.part * s.inner, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, s, x,
               y);
}

void launch_slice_out(cudaStream_t stream, extent n, int64_t most, const slice &s, const float *y, bool add, float *x) {
    SAP_LAUNCH(slice_out, dim3(blocks_for(most * s.part * s.inner, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, s, y,
               add, x);
}

void launch_merge(cudaStream_t stream, extent n, int64_t most, sap_cuda_kind kind, int count, bool last, const float *x,
                  float *y) {
    SAP_LAUNCH(merge, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, kind, count, last, x, y);
}

void launch_merge_gradient(cudaStream_t stream, extent n, int64_t most, sap_cuda_kind kind, int count, int index,
                           const merge_inputs &inputs, const float *y, const float *dy, bool add, float *dx) {
    SAP_LAUNCH(merge_gradient, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, kind, count, index,
               inputs, y, dy, add, dx);
}

/* ---- Masks -------------------------------------------------------------------------------------------------- */

namespace {

__global__ void find_mask(extent n, int64_t width, float value, const float *x, float *counts) {
    FOR_EACH (s, extent_of(n)) {
        bool any = false;
        for (int64_t c = 0; c < width; c++)
            any = any || x[s * width + c] != value;
        counts[s] = any ? 1 : 0;
    }
}

__global__ void hide(extent n, int64_t width, const float *counts, const float *x, bool add, float *y) {
    FOR_EACH (i, extent_of(n) * width) {
        float value = counts[i / width] != 0 ? x[i] : 0;
        y[i] = add ? y[i] + value : value;
    }
}

} // namespace

void launch_find_mask(cudaStream_t stream, extent n, int64_t most, int64_t width, float value, const float *x,
                      float *counts) {
    SAP_LAUNCH(find_mask, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, width, value, x,
               counts);
}

void launch_hide(cudaStream_t stream, extent n, int64_t most, int64_t width, const float *counts, const float *x,
                 bool add, float *y) {
    SAP_LAUNCH(hide, dim3(blocks_for(most * width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, n, width, counts, x,
               add, y);
}
