/* Batch normalisation: sums over all positions of a batch, in double and in a fixed order, then what they do to every number. */
#include "cuda_attention.h"

namespace {

const int64_t PART = 512, PARTS_MOST = 256; /* positions that a part of a sum has at least; parts */
enum { COLUMNS = 32, LANES = SAP_THREADS / COLUMNS };

/* Whether a position takes part in sums. */
__device__ inline bool counts(const batch_normalization &p, int64_t position) {
    return !p.counts || p.counts[position / p.places] != 0;
}

/* work: how many positions take part, where some do not; then (1 + parts, 2, width) sums, in all and of each part. */
__device__ inline double *sums_of(const batch_normalization &p) {
    return p.work + 1;
}

/* At least 1: without any position all sums are 0, and so are mean and variance, as Keras has it. */
__device__ inline double count_of(const batch_normalization &p) {
    double count = p.counts ? p.work[0] : (double)extent_of(p.n);
    return count > 0 ? count : 1;
}

/* One block. */
__global__ void __launch_bounds__(SAP_THREADS) count_positions(batch_normalization p) {
    SAP_SHARED(raw);
    double sum = 0;
    int64_t steps = extent_of(p.n) / p.places;
    for (int64_t s = threadIdx.x; s < steps; s += SAP_THREADS)
        sum += p.counts[s] != 0;
    sum = block_sum((double *)raw, sum); /* whole numbers: exact */
    if (threadIdx.x == 0)
        p.work[0] = sum * (double)p.places;
}

unsigned parts_for(int64_t most) {
    int64_t parts = (most + PART - 1) / PART;
    return (unsigned)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}

/* What is summed: numbers; squares of their distance from the mean; gradients, and their products with that distance. */
enum sums { SUM_NUMBERS, SUM_SQUARES, SUM_GRADIENTS };

/* Block (x, y): part x of the positions, 32 columns from 32 y on. */
template <sums WHAT> __global__ void __launch_bounds__(SAP_THREADS) add_part(batch_normalization p) {
    SAP_SHARED(raw);
    double *shared = (double *)raw; /* (2, SAP_THREADS) */
    int thread = (int)threadIdx.x, lane = thread / COLUMNS;
    int64_t c = (int64_t)blockIdx.y * COLUMNS + thread % COLUMNS;
    int64_t n = extent_of(p.n), first = n * blockIdx.x / gridDim.x, end = n * (blockIdx.x + 1) / gridDim.x;
    double a = 0, b = 0;
    for (int64_t r = first + lane; c < p.width && r < end; r += LANES) {
        float x = p.x[r * p.width + c], away = WHAT == SUM_NUMBERS ? 0 : x - p.statistic[c];
        float share = WHAT == SUM_GRADIENTS || counts(p, r) ? 1 : 0;
        float d = WHAT == SUM_GRADIENTS ? p.dy[r * p.width + c] : 0;
        a += share * (WHAT == SUM_NUMBERS ? x : WHAT == SUM_SQUARES ? away * away : d);
        b += d * away;
    }
    shared[thread] = a;
    shared[SAP_THREADS + thread] = b;
    __syncthreads();
    if (lane > 0 || c >= p.width)
        return;
    for (int other = 1; other < LANES; other++) {
        a += shared[other * COLUMNS + thread];
        b += shared[SAP_THREADS + other * COLUMNS + thread];
    }
    double *work = sums_of(p) + (1 + (int64_t)blockIdx.x) * 2 * p.width;
    work[c] = a;
    work[p.width + c] = b;
}

__device__ inline float moved(float average, double value, double momentum) {
    return (float)(average * momentum + value * (1 - momentum));
}

/* Adds the parts. */
template <sums WHAT> __global__ void add_parts(batch_normalization p, int parts) {
    double count = count_of(p);
    FOR_EACH (c, p.width) {
        double a = 0, b = 0;
        for (int part = 1; part <= parts; part++) {
            a += sums_of(p)[part * 2 * p.width + c];
            b += sums_of(p)[part * 2 * p.width + p.width + c];
        }
        if (WHAT == SUM_NUMBERS) {
            p.statistic[c] = (float)(a / count);
            p.moving_mean[c] = moved(p.moving_mean[c], a / count, p.momentum);
        } else if (WHAT == SUM_SQUARES) {
            p.statistic[p.width + c] = (float)(1 / sqrt(a / count + p.epsilon));
            p.moving_variance[c] = moved(p.moving_variance[c], a / count, p.momentum);
        } else {
            sums_of(p)[c] = a;
            sums_of(p)[p.width + c] = b;
            if (p.dgamma)
                p.dgamma[c] += (float)(b * p.statistic[p.width + c]);
            if (p.dbeta)
                p.dbeta[c] += (float)a;
        }
    }
}

__global__ void take_moving(batch_normalization p) {
    FOR_EACH (c, p.width) {
        p.statistic[c] = p.moving_mean[c];
        p.statistic[p.width + c] = (float)(1 / sqrt(p.moving_variance[c] + p.epsilon));
    }
}

__global__ void normalize_batch(batch_normalization p) {
    FOR_EACH (i, extent_of(p.n) * p.width) {
        int64_t c = i % p.width;
        float scale = (p.gamma ? p.gamma[c] : 1) * p.statistic[p.width + c];
        p.y[i] = (p.x[i] - p.statistic[c]) * scale + (p.beta ? p.beta[c] : 0);
    }
}

/* With fixed statistics dx = scale dy; with those of the batch, mean and variance depend on every x. */
__global__ void normalize_batch_back(batch_normalization p) {
    double count = count_of(p);
    FOR_EACH (i, extent_of(p.n) * p.width) {
        int64_t c = i % p.width;
        float inverse = p.statistic[p.width + c], d = p.dy[i];
        if (p.own && counts(p, i / p.width)) {
            float slope = inverse * inverse * (float)(sums_of(p)[p.width + c] / count);
            d -= (float)(sums_of(p)[c] / count) + (p.x[i] - p.statistic[c]) * slope;
        }
        d *= (p.gamma ? p.gamma[c] : 1) * inverse;
        p.dx[i] = p.add ? p.dx[i] + d : d;
    }
}

void launch_count(cudaStream_t stream, const batch_normalization &p) {
    if (p.own && p.counts)
        SAP_LAUNCH(count_positions, dim3(1), dim3(SAP_THREADS), SAP_THREADS * sizeof(double), stream, p);
}

template <sums WHAT> void launch_sums(cudaStream_t stream, const batch_normalization &p) {
    unsigned parts = parts_for(p.most);
    SAP_LAUNCH(add_part<WHAT>, dim3(parts, (unsigned)((p.width + COLUMNS - 1) / COLUMNS)), dim3(SAP_THREADS),
               2 * SAP_THREADS * sizeof(double), stream, p);
    SAP_LAUNCH(add_parts<WHAT>, dim3(blocks_for(p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p, (int)parts);
}

} // namespace

int64_t batch_normalization_work(int64_t most, int64_t width) {
    return 1 + (1 + (int64_t)parts_for(most)) * 2 * width;
}

void launch_batch_normalization(cudaStream_t stream, const batch_normalization &p) {
    if (p.own) {
        launch_count(stream, p);
        launch_sums<SUM_NUMBERS>(stream, p);
        launch_sums<SUM_SQUARES>(stream, p);
    } else {
        SAP_LAUNCH(take_moving, dim3(blocks_for(p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
    }
    SAP_LAUNCH(normalize_batch, dim3(blocks_for(p.most * p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_batch_normalization_gradient(cudaStream_t stream, const batch_normalization &p) {
    launch_count(stream, p);
    if (p.dgamma || p.dbeta || (p.own && p.dx))
        launch_sums<SUM_GRADIENTS>(stream, p);
    if (p.dx)
        SAP_LAUNCH(normalize_batch_back, dim3(blocks_for(p.most * p.width, SAP_THREADS)), dim3(SAP_THREADS), 0, stream,
                   p);
}
