/* An operation in hand, for those who launch it (cuda_operations.cu, cuda_operations_recurrent.cu). */
#ifndef SAP_CUDA_OPERATION_H
#define SAP_CUDA_OPERATION_H

#include "cuda_recurrent.h"
#include "cuda_state.h"

static inline float *value_at(const sap_cuda_engine *e, int64_t place) {
    return place < 0 ? nullptr : e->values.as<float>() + place;
}

/* NULL where the weight is not trained. */
static inline float *gradient_at(const sap_cuda_engine *e, int64_t place) {
    return place < 0 || place >= e->plan->trainable_count ? nullptr : e->gradients.as<float>() + place;
}

static inline float *y_of(const sap_cuda_engine *e, int32_t tensor) {
    return e->y[(size_t)tensor].as<float>();
}

/* NULL where it is not wanted. */
static inline float *dy_of(const sap_cuda_engine *e, int32_t tensor) {
    return e->plan->tensors[tensor].differentiate ? e->dy[(size_t)tensor].as<float>() : nullptr;
}

static inline bool takes_tf32(const sap_cuda_engine *e) {
    return e->plan->precision == SAP_CUDA_TF32;
}

static inline int64_t values_of(const sap_cuda_engine *e, int32_t tensor) {
    return e->plan->tensors[tensor].values;
}

/* One operation in hand. */
struct call {
    sap_cuda_engine *e;
    operation *o;
    const sap_cuda_op *op;
    run_mode mode;
    cudaStream_t stream;
    const float *x;
    float *dx, *y, *dy;
    int64_t numbers, places; /* of the output: a position; of width `units` a position */
    int64_t most;            /* positions */
};

/* Which steps of an input count; NULL: all. */
static inline const float *counts_of(const call &c, int32_t input) {
    return c.op->masks && c.op->masks[input] >= 0 ? y_of(c.e, c.op->masks[input]) : nullptr;
}

/* The steps of a tensor; steps: of a regular sequence. */
static inline sequences steps_at(const sap_cuda_engine *e, int32_t tensor, int64_t steps) {
    int32_t sequence = e->plan->tensors[tensor].sequence;
    return {e->space.counts, sequence < 0 ? nullptr : e->space.offsets[sequence], (int32_t)steps};
}

/* Most steps of a tensor in a batch; steps: of a regular sequence, 0: ragged. */
static inline int64_t step_places_most(const sap_cuda_engine *e, int32_t tensor, int64_t steps) {
    return positions_most(e, tensor) * (steps > 0 ? steps : 1);
}

/* ---- GRU and LSTM (cuda_operations_recurrent.cu) ---- */

bool is_recurrent(sap_cuda_kind kind);
void recurrent_forward(const call &c);
void recurrent_backward(const call &c);
sap_status reserve_recurrent(sap_cuda_engine *e, operation *o, sap_error *err);

#endif
