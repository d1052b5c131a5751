/* The loss of a batch, and its sums on the device. */
#include "cuda_kernels.h"

namespace {

/* A place of a row in hand: its outputs, and where their gradients go, NULL: not wanted. */
struct loss_place {
    const sap_cuda_loss &loss;
    int64_t values;
    const float *y;
    float *dy;
    const float *target; /* (values), or a class number */
    bool class_number;
    float scale; /* of the gradients, with the weights in it */

    __device__ float target_of(int64_t v) const {
        return !class_number ? target[v] : (float)v == *target ? 1.0F : 0.0F;
    }
    __device__ float goal(int64_t v) const {
        return loss.keep * target_of(v) + loss.share;
    }
    __device__ void put(int64_t v, float gradient) const {
        if (dy)
            dy[v] = scale == 0 ? 0 : scale * gradient;
    }
};

const float LEAST = 1e-7F, MOST = 1 - 1e-7F; /* Keras' epsilon */

__device__ inline float clip(float p) {
    return p < LEAST ? LEAST : p > MOST ? MOST : p; /* NaN stays */
}

__device__ inline bool inside(float p) {
    return p >= LEAST && p <= MOST;
}

__device__ float categorical_logits(const loss_place &at) {
    int64_t values = at.values;
    float most = at.y[0], sum = 0, loss = 0;
    for (int64_t v = 1; v < values; v++)
        most = at.y[v] > most ? at.y[v] : most;
    for (int64_t v = 0; v < values; v++)
        sum += expf(at.y[v] - most);
    for (int64_t v = 0; v < values; v++) {
        float goal = at.goal(v);
        loss += goal * (logf(sum) + (most - at.y[v]));
        at.put(v, expf(at.y[v] - most) / sum - goal);
    }
    return loss;
}

__device__ float categorical(const loss_place &at) {
    int64_t values = at.values;
    float sum = 0, through = 0, loss = 0; /* through: what comes back from the sum under the fraction */
    for (int64_t v = 0; v < values; v++)
        sum += at.y[v];
    for (int64_t v = 0; v < values; v++) {
        float p = at.y[v] / sum;
        loss -= at.goal(v) * logf(clip(p));
        through += inside(p) ? at.goal(v) : 0;
    }
    for (int64_t v = 0; v < values; v++)
        at.put(v, through / sum - (inside(at.y[v] / sum) ? at.goal(v) / at.y[v] : 0));
    return loss;
}

__device__ float sparse(const loss_place &at) {
    float sum = 0, loss = 0;
    for (int64_t v = 0; v < at.values; v++)
        sum += clip(at.y[v]);
    for (int64_t v = 0; v < at.values; v++) {
        float p = clip(at.y[v]);
        loss += at.goal(v) * (logf(sum) - logf(p));
        at.put(v, inside(at.y[v]) ? 1 / sum - at.goal(v) / p : 0);
    }
    return loss;
}

__device__ float binary(const loss_place &at) {
    float share = 1 / (float)at.values, loss = 0;
    for (int64_t v = 0; v < at.values; v++) {
        float y = at.y[v], g = at.goal(v), p = clip(y);
        if (at.loss.from_logits) {
            loss += share * ((y > 0 ? y : 0) - y * g + log1pf(expf(-fabsf(y))));
            at.put(v, share * (1 / (1 + expf(-y)) - g));
        } else {
            loss -= share * (g * logf(p) + (1 - g) * logf(1 - p));
            at.put(v, inside(y) ? share * ((1 - g) / (1 - p) - g / p) : 0);
        }
    }
    return loss;
}

/* The mean of a function of the difference. */
__device__ float of_difference(const loss_place &at) {
    float share = 1 / (float)at.values, delta = at.loss.delta, loss = 0;
    for (int64_t v = 0; v < at.values; v++) {
        float e = at.y[v] - at.goal(v), size = fabsf(e), value = size, slope = e > 0 ? 1.0F : e < 0 ? -1.0F : e;
        if (at.loss.kind == SAP_LOSS_MEAN_SQUARED_ERROR) {
            value = e * e;
            slope = 2 * e;
        } else if (at.loss.kind == SAP_LOSS_HUBER) {
            value = size <= delta ? 0.5F * e * e : delta * size - 0.5F * delta * delta;
            slope = e > delta ? delta : e < -delta ? -delta : e;
        }
        loss += share * value;
        at.put(v, share * slope);
    }
    return loss;
}

__device__ float loss_of(const loss_place &at) {
    switch (at.loss.kind) {
    case SAP_LOSS_CATEGORICAL_CROSSENTROPY:
        return at.loss.from_logits ? categorical_logits(at) : categorical(at);
    case SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY:
        return at.loss.from_logits ? categorical_logits(at) : sparse(at);
    case SAP_LOSS_BINARY_CROSSENTROPY:
        return binary(at);
    default:
        return of_difference(at);
    }
}

/* Keras' "accuracy": binary for one value, else whether output and target are largest at the same place. */
__device__ bool is_correct(const loss_place &at) {
    int64_t best = 0, wanted = 0;
    if (at.values == 1)
        return (at.y[0] > at.loss.threshold ? 1.0F : 0.0F) == at.target_of(0);
    for (int64_t v = 1; v < at.values; v++) {
        best = at.y[v] > at.y[best] ? v : best;
        wanted = at.target_of(v) > at.target_of(wanted) ? v : wanted;
    }
    return best == wanted;
}

__global__ void place_losses(const int32_t *rows, const __grid_constant__ loss_call p) {
    int64_t values = p.output.values, places = p.output.places;
    const row_set &set = p.now->set;
    const float *target = set.target[p.number], *weights = set.weight[p.number];
    int64_t target_values = set.target_values[p.number];
    bool sparse_loss = p.output.loss.kind == SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY;
    bool class_number = sparse_loss || (values > 1 && target_values == places);
    double scale = p.output.loss.weight / (double)(p.now->batch_rows * places);
    FOR_EACH (i, *rows * places) {
        int64_t from = p.now->order[i / places];
        float weight = weights ? weights[from] : 1;
        loss_place at = {p.output.loss,
                         values,
                         p.y + i * values,
                         p.dy ? p.dy + i * values : nullptr,
                         target + from * target_values + i % places * (class_number ? 1 : values),
                         class_number,
                         (float)(weight * scale)};
        p.place_loss[i] = weight * loss_of(at);
        p.place_correct[i] = is_correct(at);
    }
}

/* One block. */
__global__ void __launch_bounds__(SAP_THREADS) add_places(const int32_t *rows, loss_call p) {
    SAP_SHARED(raw);
    double loss = 0;
    int64_t correct = 0, places = *rows * p.output.places;
    for (int64_t i = threadIdx.x; i < places; i += SAP_THREADS) {
        loss += p.place_loss[i];
        correct += p.place_correct[i];
    }
    loss = block_sum((double *)raw, loss);
    correct = block_sum((int64_t *)raw + SAP_THREADS, correct);
    if (threadIdx.x == 0) {
        totals *t = p.now->sums + p.number;
        t->places += places;
        t->loss += loss;
        t->correct += correct;
        if (!isfinite(loss) && t->bad_step == 0)
            t->bad_step = p.now->step;
    }
}

} // namespace

void launch_loss(cudaStream_t stream, const int32_t *rows, int64_t most, const loss_call &p) {
    SAP_LAUNCH(place_losses, dim3(blocks_for(most * p.output.places, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, rows,
               p);
    SAP_LAUNCH(add_places, dim3(1), dim3(SAP_THREADS), SAP_THREADS * (sizeof(double) + sizeof(int64_t)), stream, rows,
               p);
}
