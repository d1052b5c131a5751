/* Convolution and pooling in windows. A convolution is a product with the windows as rows, which are not copied out of the input. No two
 * threads add to the same number: a step's gradient is gathered from the windows that see it. */
#include "cuda_window.h"

#include "cuda_product.h"

namespace {

struct split_number {
    int64_t whole;
    int32_t rest;
};

/* number / by; in 32 bits where that is enough, which is several times as fast. */
__device__ inline split_number split(int64_t number, int32_t by) {
    if (number <= INT32_MAX)
        return {(uint32_t)number / (uint32_t)by, (int32_t)((uint32_t)number % (uint32_t)by)};
    return {number / by, (int32_t)(number % by)};
}

/* ---- Convolution -------------------------------------------------------------------------------------------- */

/* Number k of window `place`, counted over all rows. */
__device__ inline float window_value(const convolution &p, int64_t place, int64_t k) {
    split_number at = split(place, p.at.outputs), of = split(k, p.at.width);
    int64_t step = (int64_t)at.rest * p.at.stride - p.at.before + of.whole * p.at.dilation;
    return step >= 0 && step < p.at.steps ? p.x[(at.whole * p.at.steps + step) * p.at.width + of.rest] : 0;
}

struct forward_product : convolution {
    static const bool a_along = true, b_along = false;
    __device__ int64_t rows() const {
        return (int64_t)*at.rows * at.outputs;
    }
    __device__ int64_t columns() const {
        return units;
    }
    __device__ int64_t depth() const {
        return (int64_t)at.size * at.width;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return window_value(*this, row, k);
    }
    __device__ float b(int64_t k, int64_t column) const {
        return kernel[k * units + column];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        z[row * units + column] = (bias ? bias[column] : 0) + sum;
    }
};

/* With a bias one row more than the kernel has, of ones. */
struct weights_product : convolution {
    static const bool a_along = false, b_along = false;
    __device__ int64_t rows() const {
        return (int64_t)at.size * at.width + (gb ? 1 : 0);
    }
    __device__ int64_t columns() const {
        return units;
    }
    __device__ int64_t depth() const {
        return (int64_t)*at.rows * at.outputs;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return row == (int64_t)at.size * at.width ? 1 : window_value(*this, k, row);
    }
    __device__ float b(int64_t k, int64_t column) const {
        return dz[k * units + column];
    }
    __device__ void put(int64_t part, int64_t row, int64_t column, float sum) const {
        work[(part * rows() + row) * units + column] = sum;
    }
};

/* A row is an input step; along the depth are the outputs of the windows in which it has place k. */
struct input_product : convolution {
    static const bool a_along = true, b_along = true;
    __device__ int64_t rows() const {
        return (int64_t)*at.rows * at.steps;
    }
    __device__ int64_t columns() const {
        return at.width;
    }
    __device__ int64_t depth() const {
        return (int64_t)at.size * units;
    }
    __device__ float a(int64_t row, int64_t k) const {
        split_number place = split(row, at.steps), of = split(k, units);
        int64_t start = place.rest + at.before - of.whole * at.dilation; /* stride times the output step */
        if (start < 0)
            return 0;
        split_number step = split(start, at.stride);
        bool there = step.rest == 0 && step.whole < at.outputs;
        return there ? dz[(place.whole * at.outputs + step.whole) * units + of.rest] : 0;
    }
    __device__ float b(int64_t k, int64_t column) const {
        split_number of = split(k, units);
        return kernel[(of.whole * at.width + column) * units + of.rest];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        float *to = dx + row * at.width + column;
        *to = add ? *to + sum : sum;
    }
};

/* ---- Pooling ------------------------------------------------------------------------------------------------ */

/* Steps [from, end) of a window. */
__device__ inline void find_window(const windows &w, int64_t t, int64_t *from, int64_t *end) {
    *from = t * w.stride - w.before;
    *end = min(*from + w.size, (int64_t)w.steps);
    *from = max(*from, (int64_t)0);
}

__global__ void pool_windows(const __grid_constant__ window_pooling p) {
    FOR_EACH (i, (int64_t)*p.at.rows * p.at.outputs * p.at.width) {
        int64_t from, end, row = i / p.at.width / p.at.outputs;
        find_window(p.at, i / p.at.width % p.at.outputs, &from, &end);
        const float *x = p.x + row * p.at.steps * p.at.width + i % p.at.width;
        float value = p.largest ? x[from * p.at.width] : 0;
        for (int64_t s = from; s < end; s++) {
            float next = x[s * p.at.width];
            value = !p.largest ? value + next : next <= value ? value : next;
        }
        p.y[i] = p.largest ? value : value / (float)(end - from);
    }
}

/* What step s gets of its window's gradient. The first of equally large steps gets all of it, as in TensorFlow. */
__device__ inline float pooled_share(const window_pooling &p, const float *x, float y, int64_t from, int64_t end,
                                     int64_t s) {
    if (!p.largest)
        return 1 / (float)(end - from);
    if (x[s * p.at.width] != y)
        return 0;
    for (int64_t before = from; before < s; before++)
        if (x[before * p.at.width] == y)
            return 0;
    return 1;
}

__global__ void pool_windows_back(const __grid_constant__ window_pooling p) {
    FOR_EACH (i, (int64_t)*p.at.rows * p.at.steps * p.at.width) {
        int64_t s = i / p.at.width % p.at.steps, row = i / p.at.width / p.at.steps, feature = i % p.at.width;
        const float *x = p.x + row * p.at.steps * p.at.width + feature;
        int64_t late = s + p.at.before - p.at.size + 1; /* the first window begins here or behind */
        int64_t t = late > 0 ? (late + p.at.stride - 1) / p.at.stride : 0;
        float sum = 0;
        for (; t < p.at.outputs && t * p.at.stride - p.at.before <= s; t++) {
            int64_t from, end, at = (row * p.at.outputs + t) * p.at.width + feature;
            find_window(p.at, t, &from, &end);
            sum += p.dy[at] * pooled_share(p, x, p.y[at], from, end, s);
        }
        p.dx[i] = p.add ? p.dx[i] + sum : sum;
    }
}

} // namespace

void launch_convolution(cudaStream_t stream, const convolution &p) {
    launch_product(stream, forward_product{p}, p.rows_most * p.at.outputs, p.units, 1);
}

void launch_convolution_weights(cudaStream_t stream, const convolution &p) {
    int64_t depth = (int64_t)p.at.size * p.at.width;
    unsigned parts = sum_parts(p.rows_most * p.at.outputs);
    launch_product(stream, weights_product{p}, depth + 1, p.units, parts);
    launch_product_parts(stream, p.work, parts, depth, p.units, p.units, p.gw, p.gb);
}

void launch_convolution_input(cudaStream_t stream, const convolution &p) {
    launch_product(stream, input_product{p}, p.rows_most * p.at.steps, p.at.width, 1);
}

int64_t convolution_work(int64_t rows_most, int64_t outputs, int64_t depth, int64_t units) {
    return sum_parts(rows_most * outputs) * (depth + 1) * units;
}

void launch_window_pooling(cudaStream_t stream, const window_pooling &p) {
    int64_t most = p.rows_most * p.at.outputs * p.at.width;
    SAP_LAUNCH(pool_windows, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_window_pooling_gradient(cudaStream_t stream, const window_pooling &p) {
    int64_t most = p.rows_most * p.at.steps * p.at.width;
    SAP_LAUNCH(pool_windows_back, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}
