/* The loss of a batch, and its sums on the device. */
#include "cuda_kernels.h"

namespace {

/* A row in hand: its outputs, and where their gradients go, NULL: not wanted. */
struct loss_row {
    const loss_call &p;
    const float *y;
    float *dy;
    int32_t label;
    float scale; /* of the gradients, with the weight in it */
    bool one;    /* the label is the target of one value, not a class */

    __device__ float goal(int64_t c) const {
        float target = one ? (float)label : c == label ? 1.0F : 0.0F;
        return p.loss.keep * target + p.loss.share;
    }
    __device__ void put(int64_t c, float gradient) const {
        if (dy)
            dy[c] = scale == 0 ? 0 : scale * gradient;
    }
};

const float LEAST = 1e-7F, MOST = 1 - 1e-7F; /* Keras' epsilon */

__device__ inline float clip(float p) {
    return p < LEAST ? LEAST : p > MOST ? MOST : p; /* NaN stays */
}

__device__ inline bool inside(float p) {
    return p >= LEAST && p <= MOST;
}

__device__ float categorical_logits(const loss_row &row) {
    int64_t classes = row.p.classes;
    float most = row.y[0], sum = 0, loss = 0;
    for (int64_t c = 1; c < classes; c++)
        most = row.y[c] > most ? row.y[c] : most;
    for (int64_t c = 0; c < classes; c++)
        sum += expf(row.y[c] - most);
    for (int64_t c = 0; c < classes; c++) {
        float goal = row.goal(c);
        loss += goal * (logf(sum) + (most - row.y[c]));
        row.put(c, expf(row.y[c] - most) / sum - goal);
    }
    return loss;
}

__device__ float categorical(const loss_row &row) {
    int64_t classes = row.p.classes;
    float sum = 0, through = 0, loss = 0; /* through: what comes back from the sum under the fraction */
    for (int64_t c = 0; c < classes; c++)
        sum += row.y[c];
    for (int64_t c = 0; c < classes; c++) {
        float p = row.y[c] / sum;
        loss -= row.goal(c) * logf(clip(p));
        through += inside(p) ? row.goal(c) : 0;
    }
    for (int64_t c = 0; c < classes; c++)
        row.put(c, through / sum - (inside(row.y[c] / sum) ? row.goal(c) / row.y[c] : 0));
    return loss;
}

__device__ float sparse(const loss_row &row) {
    float sum = 0, loss = 0;
    for (int64_t c = 0; c < row.p.classes; c++)
        sum += clip(row.y[c]);
    for (int64_t c = 0; c < row.p.classes; c++) {
        float p = clip(row.y[c]);
        loss += row.goal(c) * (logf(sum) - logf(p));
        row.put(c, inside(row.y[c]) ? 1 / sum - row.goal(c) / p : 0);
    }
    return loss;
}

__device__ float binary(const loss_row &row) {
    float share = 1 / (float)row.p.classes, loss = 0;
    for (int64_t c = 0; c < row.p.classes; c++) {
        float y = row.y[c], g = row.goal(c), p = clip(y);
        if (row.p.loss.from_logits) {
            loss += share * ((y > 0 ? y : 0) - y * g + log1pf(expf(-fabsf(y))));
            row.put(c, share * (1 / (1 + expf(-y)) - g));
        } else {
            loss -= share * (g * logf(p) + (1 - g) * logf(1 - p));
            row.put(c, inside(y) ? share * ((1 - g) / (1 - p) - g / p) : 0);
        }
    }
    return loss;
}

/* The mean of a function of the difference. */
__device__ float of_difference(const loss_row &row) {
    float share = 1 / (float)row.p.classes, delta = row.p.loss.delta, loss = 0;
    for (int64_t c = 0; c < row.p.classes; c++) {
        float e = row.y[c] - row.goal(c), size = fabsf(e), value = size, slope = e > 0 ? 1.0F : e < 0 ? -1.0F : e;
        if (row.p.loss.kind == SAP_LOSS_MEAN_SQUARED_ERROR) {
            value = e * e;
            slope = 2 * e;
        } else if (row.p.loss.kind == SAP_LOSS_HUBER) {
            value = size <= delta ? 0.5F * e * e : delta * size - 0.5F * delta * delta;
            slope = e > delta ? delta : e < -delta ? -delta : e;
        }
        loss += share * value;
        row.put(c, share * slope);
    }
    return loss;
}

__device__ float loss_of(const loss_row &row) {
    switch (row.p.loss.kind) {
    case SAP_LOSS_CATEGORICAL_CROSSENTROPY:
        return row.p.loss.from_logits ? categorical_logits(row) : categorical(row);
    case SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY:
        return row.p.loss.from_logits ? categorical_logits(row) : sparse(row);
    case SAP_LOSS_BINARY_CROSSENTROPY:
        return binary(row);
    default:
        return of_difference(row);
    }
}

/* Keras' "accuracy": binary for one value, else whether the largest value is the label's. */
__device__ bool is_correct(const loss_row &row) {
    int64_t best = 0;
    for (int64_t c = 1; c < row.p.classes; c++)
        best = row.y[c] > row.y[best] ? c : best;
    if (row.p.classes == 1)
        return (row.y[0] > row.p.loss.threshold ? 1.0F : 0.0F) == (row.one ? (float)row.label : 1.0F);
    return best == row.label;
}

__global__ void row_losses(const int32_t *rows, const __grid_constant__ loss_call p) {
    bool one = p.classes == 1 && p.loss.kind != SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY;
    const row_set &set = p.now->set;
    FOR_EACH (r, *rows) {
        int32_t from = p.now->order[r];
        float weight = set.weight ? set.weight[from] : 1;
        loss_row row = {p,
                        p.y + r * p.classes,
                        p.dy ? p.dy + r * p.classes : nullptr,
                        set.label[from],
                        weight / (float)p.now->batch_rows,
                        one};
        p.row_loss[r] = weight * loss_of(row);
        p.row_correct[r] = is_correct(row);
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

} // namespace

void launch_loss(cudaStream_t stream, const int32_t *rows, int64_t most, const loss_call &p) {
    SAP_LAUNCH(row_losses, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, rows, p);
    SAP_LAUNCH(add_rows, dim3(1), dim3(SAP_THREADS), SAP_THREADS * (sizeof(double) + sizeof(int64_t)), stream, rows, p);
}
