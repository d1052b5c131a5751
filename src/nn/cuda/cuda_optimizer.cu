/* Gradients on their way to the weights: sums over groups, norms, and the step of the optimizer. */
#include "cuda_kernels.h"

namespace {

const int64_t PART = 4096, PARTS_MOST = 64; /* numbers that a part of a sum of squares has at least; parts */

__global__ void optimize(const __grid_constant__ optimizer_call p) {
    FOR_EACH (i, p.count)
        p.values[i] = optimizer_step(p.of, *p.update, i, p.gradients[i], p.values[i]);
}

/* Block (x, y): part x of stretch y. */
__global__ void __launch_bounds__(SAP_THREADS) add_squares(const __grid_constant__ optimizer_call p) {
    SAP_SHARED(raw);
    const sap_cuda_stretch stretch = p.of.stretches[blockIdx.y];
    const float *g = p.gradients + stretch.first;
    int64_t first = stretch.count * blockIdx.x / gridDim.x, end = stretch.count * (blockIdx.x + 1) / gridDim.x;
    double sum = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += SAP_THREADS)
        sum += (double)g[i] * (double)g[i];
    sum = block_sum((double *)raw, sum);
    if (threadIdx.x == 0)
        p.of.squares[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

__device__ inline float scale_of(const optimizer &o, double squares) {
    double limit = o.settings.norm;
    return (float)(limit / fmax(sqrt(squares), limit));
}

/* One block: what the gradient of each stretch is multiplied by. */
__global__ void __launch_bounds__(SAP_THREADS) find_scales(const __grid_constant__ optimizer o) {
    for (int32_t i = (int32_t)threadIdx.x; i < o.stretch_count; i += SAP_THREADS) {
        double sum = 0;
        for (int32_t part = 0; part < o.parts; part++)
            sum += o.squares[i * o.parts + part];
        o.squares[i * o.parts] = sum;
        o.scales[i] = scale_of(o, sum);
    }
    __syncthreads();
    double all = 0;
    for (int32_t i = 0; o.settings.global && i < o.stretch_count; i++)
        all += o.squares[i * o.parts];
    for (int32_t i = (int32_t)threadIdx.x; o.settings.global && i < o.stretch_count; i += SAP_THREADS)
        o.scales[i] = scale_of(o, all);
}

__global__ void add_groups(int64_t count, int groups, const float *gradients, float *sum) {
    FOR_EACH (i, count) {
        float sums[SAP_CUDA_GROUPS];
        for (int g = 0; g < groups; g++)
            sums[g] = gradients[g * count + i];
        for (int step = 1; step < groups; step *= 2)
            for (int g = 0; g < groups; g += 2 * step)
                sums[g] += sums[g + step];
        sum[i] = sums[0] + 0.0F; /* -0 becomes 0, as it may have on its way between ranks */
    }
}

} // namespace

int32_t square_parts(int64_t most) {
    int64_t parts = most / PART;
    return (int32_t)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}

void launch_optimizer(cudaStream_t stream, const optimizer_call &p) {
    if (p.of.scales) {
        dim3 parts((unsigned)p.of.parts, (unsigned)p.of.stretch_count);
        SAP_LAUNCH(add_squares, parts, dim3(SAP_THREADS), SAP_THREADS * sizeof(double), stream, p);
        SAP_LAUNCH(find_scales, dim3(1), dim3(SAP_THREADS), 0, stream, p.of);
    }
    SAP_LAUNCH(optimize, dim3(blocks_for(p.count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_add_groups(cudaStream_t stream, int64_t count, int groups, const float *gradients, float *sum) {
    SAP_LAUNCH(add_groups, dim3(blocks_for(count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, count, groups, gradients,
               sum);
}
