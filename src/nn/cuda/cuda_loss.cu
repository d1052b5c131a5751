/* The loss of a batch, its sums on the device, and the step of the optimizer. */
#include "cuda_kernels.h"

namespace {

/* Cross-entropy of each row, as sap_kernels.crossentropy. */
__global__ void crossentropy(const int32_t *rows, loss_call p) {
    float scale = 1.0F / (float)p.now->batch_rows;
    FOR_EACH (r, *rows) {
        const float *y = p.y + r * p.classes;
        float *dy = p.dy ? p.dy + r * p.classes : nullptr;
        int32_t label = p.label[r];
        float most = y[0], sum = 0, own = y[label];
        int best = 0;
        for (int c = 1; c < p.classes; c++) {
            if (y[c] > most) {
                most = y[c];
                best = c;
            }
        }
        for (int c = 0; c < p.classes; c++)
            sum += p.logits ? expf(y[c] - most) : y[c];
        p.row_correct[r] = best == label;
        if (p.logits) {
            p.row_loss[r] = logf(sum) + (most - own);
            for (int c = 0; dy && c < p.classes; c++)
                dy[c] = scale * (expf(y[c] - most) / sum - (c == label ? 1.0F : 0.0F));
            continue;
        }
        float share = own / sum;
        bool inside = share >= 1e-7F && share <= 1 - 1e-7F; /* NaN is outside, and stays NaN */
        p.row_loss[r] = -logf(share < 1e-7F ? 1e-7F : share > 1 - 1e-7F ? 1 - 1e-7F : share);
        for (int c = 0; dy && c < p.classes; c++)
            dy[c] = inside ? scale * (1 / sum - (c == label ? 1 / own : 0)) : 0;
    }
}

/* One block. */
__global__ void __launch_bounds__(SAP_THREADS) add_rows(const int32_t *rows, loss_call p) {
    SAP_SHARED(raw);
    double *loss = (double *)raw;                       /* [SAP_THREADS] */
    int64_t *correct = (int64_t *)(loss + SAP_THREADS); /* [SAP_THREADS] */
    int thread = (int)threadIdx.x;
    loss[thread] = 0;
    correct[thread] = 0;
    for (int32_t r = thread; r < *rows; r += SAP_THREADS) {
        loss[thread] += p.row_loss[r];
        correct[thread] += p.row_correct[r];
    }
    for (int half = SAP_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) {
            loss[thread] += loss[thread + half];
            correct[thread] += correct[thread + half];
        }
    }
    if (thread == 0) {
        totals *t = p.now->sums;
        t->rows += *rows;
        t->loss += loss[0];
        t->correct += correct[0];
        if (!isfinite(loss[0]) && t->bad_step == 0)
            t->bad_step = p.now->step;
    }
}

__global__ void optimize(optimizer_call p) {
    FOR_EACH (i, p.count) {
        float m = p.slots[0] ? p.slots[0][i] : 0, v = p.slots[1] ? p.slots[1][i] : 0;
        optimizer_step(p.settings, *p.update, p.gradients[i], &m, &v, &p.values[i]);
        if (p.slots[0])
            p.slots[0][i] = m;
        if (p.slots[1])
            p.slots[1][i] = v;
    }
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

void launch_loss(cudaStream_t stream, const int32_t *rows, int64_t most, const loss_call &p) {
    SAP_LAUNCH(crossentropy, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, rows, p);
    SAP_LAUNCH(add_rows, dim3(1), dim3(SAP_THREADS), SAP_THREADS * (sizeof(double) + sizeof(int64_t)), stream, rows, p);
}

void launch_optimizer(cudaStream_t stream, const optimizer_call &p) {
    SAP_LAUNCH(optimize, dim3(blocks_for(p.count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
}

void launch_add_groups(cudaStream_t stream, int64_t count, int groups, const float *gradients, float *sum) {
    SAP_LAUNCH(add_groups, dim3(blocks_for(count, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, count, groups, gradients,
               sum);
}
