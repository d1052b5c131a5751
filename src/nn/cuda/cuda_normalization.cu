/* Layer normalisation, and pooling over the steps of rows. */
#include "cuda_attention.h"

/* ---- Layer normalisation -------------------------------------------------------------------------------------- */

namespace {

const int64_t PART = 512, PARTS_MOST = 256; /* rows that a part of a sum has at least; parts */

/* Over the lanes of a warp, the same in all of them. */
__device__ inline float sum_lanes(float x) {
    for (int mask = 16; mask > 0; mask /= 2)
        x += __shfl_xor_sync(0xffffffff, x, mask);
    return x;
}

/* A warp a row; all its lanes go on as long as one does. */
#define FOR_EACH_ROW(r, n)                                                                                             \
    for (int64_t r = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; r < (n);                                   \
         r += (int64_t)gridDim.x * blockDim.x / 32)

__global__ void normalize(normalization p) {
    int lane = (int)threadIdx.x % 32;
    FOR_EACH_ROW(r, extent_of(p.n)) {
        const float *x = p.x + r * p.width;
        float sum = 0, squares = 0;
        for (int64_t c = lane; c < p.width; c += 32)
            sum += x[c];
        float mean = sum_lanes(sum) / (float)p.width;
        for (int64_t c = lane; c < p.width; c += 32)
            squares += (x[c] - mean) * (x[c] - mean);
        float scale = 1 / sqrtf(sum_lanes(squares) / (float)p.width + p.epsilon);
        for (int64_t c = lane; c < p.width; c += 32)
            p.y[r * p.width + c] = (x[c] - mean) * scale * (p.gamma ? p.gamma[c] : 1) + (p.beta ? p.beta[c] : 0);
        if (lane == 0) {
            p.statistic[2 * r] = mean;
            p.statistic[2 * r + 1] = scale;
        }
    }
}

__global__ void normalize_back(normalization p) {
    int lane = (int)threadIdx.x % 32;
    FOR_EACH_ROW(r, extent_of(p.n)) {
        const float *x = p.x + r * p.width, *dy = p.dy + r * p.width;
        float mean = p.statistic[2 * r], scale = p.statistic[2 * r + 1], sum = 0, product = 0;
        for (int64_t c = lane; c < p.width; c += 32) {
            float d = dy[c] * (p.gamma ? p.gamma[c] : 1);
            sum += d;
            product += d * (x[c] - mean) * scale;
        }
        sum = sum_lanes(sum) / (float)p.width;
        product = sum_lanes(product) / (float)p.width;
        for (int64_t c = lane; c < p.width; c += 32) {
            float d = dy[c] * (p.gamma ? p.gamma[c] : 1);
            float *to = p.dx + r * p.width + c;
            d = scale * (d - sum - (x[c] - mean) * scale * product);
            *to = p.add ? *to + d : d;
        }
    }
}

/* A block sums some rows: work (parts, 2, width). */
__global__ void sum_weights(normalization p) {
    int64_t n = extent_of(p.n), first = n * blockIdx.x / gridDim.x, end = n * (blockIdx.x + 1) / gridDim.x;
    float *work = p.work + blockIdx.x * 2 * p.width;
    for (int64_t c = threadIdx.x; c < p.width; c += blockDim.x) {
        float gamma = 0, beta = 0;
        for (int64_t r = first; r < end; r++) {
            float d = p.dy[r * p.width + c];
            gamma += d * (p.x[r * p.width + c] - p.statistic[2 * r]) * p.statistic[2 * r + 1];
            beta += d;
        }
        work[c] = gamma;
        work[p.width + c] = beta;
    }
}

__global__ void add_weights(normalization p, int parts) {
    FOR_EACH (c, p.width) {
        float gamma = 0, beta = 0;
        for (int part = 0; part < parts; part++) {
            gamma += p.work[part * 2 * p.width + c];
            beta += p.work[part * 2 * p.width + p.width + c];
        }
        if (p.dgamma)
            p.dgamma[c] += gamma;
        if (p.dbeta)
            p.dbeta[c] += beta;
    }
}

unsigned parts_for(int64_t most) {
    int64_t parts = (most + PART - 1) / PART;
    return (unsigned)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}

} // namespace

int64_t normalization_work(int64_t most, int64_t width) {
    return parts_for(most) * 2 * width;
}

void launch_normalization(cudaStream_t stream, const normalization &p) {
    SAP_LAUNCH(normalize, dim3(blocks_for(p.most, SAP_THREADS / 32)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_normalization_gradient(cudaStream_t stream, const normalization &p) {
    if (p.dgamma || p.dbeta) {
        SAP_LAUNCH(sum_weights, dim3(parts_for(p.most)), dim3(SAP_THREADS), 0, stream, p);
        SAP_LAUNCH(add_weights, dim3(blocks_for(p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p,
                   (int)parts_for(p.most));
    }
    if (p.dx)
        SAP_LAUNCH(normalize_back, dim3(blocks_for(p.most, SAP_THREADS / 32)), dim3(SAP_THREADS), 0, stream, p);
}

/* ---- Pooling -------------------------------------------------------------------------------------------------- */

namespace {

/* Steps whose mean is taken; the largest is taken of all, as in Keras. */
__device__ inline bool takes(const pooling &p, int64_t step) {
    return p.largest || !p.counts || p.counts[step] != 0;
}

__global__ void pool(pooling p) {
    FOR_EACH (i, *p.at.rows * p.width) {
        int64_t row = i / p.width, steps = row_steps(p.at, row), first = first_step(p.at, row), taken = 0;
        const float *x = p.x + first * p.width + i % p.width;
        float value = p.largest && steps > 0 ? x[0] : 0;
        for (int64_t t = 0; t < steps; t++) {
            float next = x[t * p.width];
            if (!takes(p, first + t))
                continue;
            taken++;
            value = !p.largest ? value + next : next <= value ? value : next; /* lets NaN through */
        }
        p.y[i] = p.largest || taken == 0 ? value : value / (float)taken;
    }
}

/* Steps that are equally large share the gradient, as in TensorFlow. */
__global__ void pool_back(pooling p) {
    FOR_EACH (i, *p.at.rows * p.width) {
        int64_t row = i / p.width, steps = row_steps(p.at, row), first = first_step(p.at, row), sharing = 0;
        auto shares = [&](int64_t step) {
            return takes(p, step) && (!p.largest || p.x[step * p.width + i % p.width] == p.y[i]);
        };
        for (int64_t t = 0; t < steps; t++)
            sharing += shares(first + t);
        for (int64_t t = 0; t < steps; t++) {
            int64_t at = (first + t) * p.width + i % p.width;
            float d = shares(first + t) ? p.dy[i] / (float)sharing : 0;
            p.dx[at] = p.add ? p.dx[at] + d : d;
        }
    }
}

} // namespace

void launch_pooling(cudaStream_t stream, const pooling &p, int64_t rows_most) {
    SAP_LAUNCH(pool, dim3(blocks_for(rows_most * p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_pooling_gradient(cudaStream_t stream, const pooling &p, int64_t rows_most) {
    SAP_LAUNCH(pool_back, dim3(blocks_for(rows_most * p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}
