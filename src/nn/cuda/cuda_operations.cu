/* What each kind of operation launches, forward and backward. */
#include "cuda_attention.h"
#include "cuda_operation.h"
#include "cuda_window.h"

namespace {

/* All numbers of the output. */
extent all(const call &c) {
    return positions(c.e, c.op->output, c.numbers);
}

/* Positions of the last dimension. */
extent rows_of(const call &c) {
    return positions(c.e, c.op->output, c.places);
}

/* ---- Activations ---- */

bool along_rows(const sap_activation &f) {
    return f.kind == SAP_SOFTMAX || f.kind == SAP_LOG_SOFTMAX;
}

void activate(const call &c, const float *z) {
    const sap_activation &f = c.op->activation;
    if (f.kind == SAP_LINEAR || (c.op->logits && c.mode != RUN_PREDICT)) {
        if (z != c.y)
            launch_copy(c.stream, all(c), c.most * c.numbers, z, false, c.y);
    } else if (along_rows(f)) {
        launch_softmax(c.stream, rows_of(c), c.most * c.places, c.op->units, f.kind == SAP_LOG_SOFTMAX, z, c.y);
    } else {
        launch_activation(c.stream, all(c), c.most * c.numbers, f, z, c.y);
    }
}

void activate_backward(const call &c, const float *z) {
    const sap_activation &f = c.op->activation;
    if (f.kind == SAP_LINEAR || c.op->logits)
        return;
    if (along_rows(f))
        launch_softmax_gradient(c.stream, rows_of(c), c.most * c.places, c.op->units, f.kind == SAP_LOG_SOFTMAX, c.y,
                                c.dy);
    else
        launch_activation_gradient(c.stream, all(c), c.most * c.numbers, f, z ? z : c.y, c.y, c.dy);
}

void activation_forward(const call &c) {
    activate(c, c.x);
}

void activation_backward(const call &c) {
    activate_backward(c, c.x);
    if (c.dx)
        launch_copy(c.stream, all(c), c.most * c.numbers, c.dy, c.o->add[0], c.dx);
}

/* ---- Dense ---- */

bool keeps_z(const sap_cuda_op *op) {
    return (op->kind == SAP_CUDA_DENSE || op->kind == SAP_CUDA_CONVOLUTION) &&
           sap_activation_needs_input(op->activation.kind);
}

void dense_forward(const call &c) {
    float *z = keeps_z(c.op) ? c.o->z.as<float>() : c.y;
    launch_dense(c.stream, rows_of(c), c.most * c.places, c.op->width, c.op->units, c.x,
                 value_at(c.e, c.op->weights[0]), value_at(c.e, c.op->weights[1]), z, takes_tf32(c.e));
    activate(c, z);
}

void dense_backward(const call &c) {
    activate_backward(c, keeps_z(c.op) ? c.o->z.as<float>() : nullptr);
    if (c.op->trainable)
        launch_dense_weights(c.stream, rows_of(c), c.most * c.places, c.op->width, c.op->units, c.x, c.dy,
                             c.o->work.as<float>(), gradient_at(c.e, c.op->weights[0]),
                             gradient_at(c.e, c.op->weights[1]), takes_tf32(c.e));
    if (c.dx)
        launch_dense_input(c.stream, rows_of(c), c.most * c.places, c.op->width, c.op->units, c.dy,
                           value_at(c.e, c.op->weights[0]), c.o->add[0], c.dx, takes_tf32(c.e));
}

/* ---- Windows ---- */

windows windows_of(const call &c) {
    const sap_cuda_window &w = c.op->window;
    return {c.e->space.counts, (int32_t)c.op->steps, (int32_t)w.outputs, (int32_t)c.op->width,
            (int32_t)w.size,   (int32_t)w.stride,    w.dilation,         w.before};
}

convolution convolution_of(const call &c) {
    convolution p = {};
    p.at = windows_of(c);
    p.rows_most = c.most;
    p.units = (int32_t)c.op->units;
    p.kernel = value_at(c.e, c.op->weights[0]);
    p.bias = value_at(c.e, c.op->weights[1]);
    p.x = c.x;
    p.z = keeps_z(c.op) ? c.o->z.as<float>() : c.y;
    p.dz = c.dy;
    p.work = c.o->work.as<float>();
    p.gw = gradient_at(c.e, c.op->weights[0]);
    p.gb = gradient_at(c.e, c.op->weights[1]);
    p.dx = c.dx;
    p.add = c.o->add[0];
    return p;
}

void convolution_forward(const call &c) {
    convolution p = convolution_of(c);
    launch_convolution(c.stream, p);
    activate(c, p.z);
}

void convolution_backward(const call &c) {
    convolution p = convolution_of(c);
    activate_backward(c, p.z);
    if (c.op->trainable)
        launch_convolution_weights(c.stream, p);
    if (c.dx)
        launch_convolution_input(c.stream, p);
}

window_pooling window_pooling_of(const call &c) {
    return {windows_of(c), c.most, c.op->kind == SAP_CUDA_WINDOW_MAXIMUM, c.x, c.y, c.dy, c.dx, c.o->add[0]};
}

void window_pooling_forward(const call &c) {
    launch_window_pooling(c.stream, window_pooling_of(c));
}

void window_pooling_backward(const call &c) {
    if (c.dx)
        launch_window_pooling_gradient(c.stream, window_pooling_of(c));
}

/* ---- Masks ---- */

void mask_forward(const call &c) {
    launch_find_mask(c.stream, all(c), c.most * c.numbers, c.op->width, c.op->mask_value, c.x, c.y);
}

void masking(const call &c, const float *x, bool add, float *y) {
    launch_hide(c.stream, positions(c.e, c.op->output, c.op->steps), c.most * c.op->steps, c.numbers / c.op->steps,
                counts_of(c, 0), x, add, y);
}

void masking_forward(const call &c) {
    masking(c, c.x, false, c.y);
}

void masking_backward(const call &c) {
    if (c.dx)
        masking(c, c.dy, c.o->add[0], c.dx);
}

/* ---- Dropout ---- */

void drop(const call &c, const float *x, bool add, float *y) {
    if (c.mode != RUN_TRAIN || c.op->rate == 0) {
        launch_copy(c.stream, all(c), c.most * c.numbers, x, add, y);
        return;
    }
    int32_t sequence = c.e->plan->tensors[c.op->output].sequence;
    dropout p = {
        c.op->key,
        sap_dropout_threshold(c.op->rate),
        c.op->rate < 1 ? (float)(1 / (1 - c.op->rate)) : 0,
        c.numbers,
        c.e->space.key,
        sequence < 0 ? nullptr : c.e->space.offsets[sequence],
    };
    launch_dropout(c.stream, extent{c.e->space.counts, 1}, c.e->batch, p, x, add, y);
}

void dropout_forward(const call &c) {
    drop(c, c.x, false, c.y);
}

void dropout_backward(const call &c) {
    if (c.dx)
        drop(c, c.dy, c.o->add[0], c.dx);
}

/* ---- Concatenate and the merges ---- */

int64_t axis_of(const sap_cuda_op *op) {
    int64_t axis = 0;
    for (int32_t i = 0; i < op->input_count; i++)
        axis += op->part[i];
    return axis;
}

void concatenate(const call &c, bool forward) {
    int64_t axis = axis_of(c.op), outer = c.numbers / (axis * c.op->width), at = 0;
    for (int32_t i = 0; i < c.op->input_count; i++) {
        slice s = {axis, c.op->part[i], at, c.op->width};
        extent n = positions(c.e, c.op->output, outer);
        if (forward)
            launch_slice_in(c.stream, n, c.most * outer, s, y_of(c.e, c.op->inputs[i]), c.y);
        else if (float *dx = dy_of(c.e, c.op->inputs[i]))
            launch_slice_out(c.stream, n, c.most * outer, s, c.dy, c.o->add[(size_t)i], dx);
        at += c.op->part[i];
    }
}

void concatenate_forward(const call &c) {
    concatenate(c, true);
}

void concatenate_backward(const call &c) {
    concatenate(c, false);
}

void merge_forward(const call &c) {
    launch_copy(c.stream, all(c), c.most * c.numbers, c.x, false, c.y);
    for (int32_t i = 1; i < c.op->input_count; i++)
        launch_merge(c.stream, all(c), c.most * c.numbers, c.op->kind, c.op->input_count, i == c.op->input_count - 1,
                     y_of(c.e, c.op->inputs[i]), c.y);
}

void merge_backward(const call &c) {
    merge_inputs inputs = {};
    for (int32_t i = 0; i < c.op->input_count; i++)
        inputs.x[i] = y_of(c.e, c.op->inputs[i]);
    for (int32_t i = 0; i < c.op->input_count; i++)
        if (float *dx = dy_of(c.e, c.op->inputs[i]))
            launch_merge_gradient(c.stream, all(c), c.most * c.numbers, c.op->kind, c.op->input_count, i, inputs, c.y,
                                  c.dy, c.o->add[(size_t)i], dx);
}

/* ---- Normalisation, pooling, attention ---- */

normalization normalization_of(const call &c) {
    normalization p = {};
    p.n = rows_of(c);
    p.most = c.most * c.places;
    p.width = c.op->units;
    p.epsilon = (float)c.op->epsilon;
    p.gamma = value_at(c.e, c.op->weights[0]);
    p.beta = value_at(c.e, c.op->weights[1]);
    p.x = c.x;
    p.y = c.y;
    p.statistic = c.o->z.as<float>();
    p.dy = c.dy;
    p.dx = c.dx;
    p.add = c.o->add[0];
    p.work = c.o->work.as<float>();
    p.dgamma = c.op->trainable ? gradient_at(c.e, c.op->weights[0]) : nullptr;
    p.dbeta = c.op->trainable ? gradient_at(c.e, c.op->weights[1]) : nullptr;
    return p;
}

void normalization_forward(const call &c) {
    launch_normalization(c.stream, normalization_of(c));
}

void normalization_backward(const call &c) {
    launch_normalization_gradient(c.stream, normalization_of(c));
}

batch_normalization batch_normalization_of(const call &c) {
    batch_normalization p = {};
    p.n = rows_of(c);
    p.counts = counts_of(c, 0);
    p.places = c.op->steps > 0 ? c.places / c.op->steps : c.places;
    p.most = c.most * c.places;
    p.width = c.op->units;
    p.own = c.mode == RUN_TRAIN && c.op->trainable;
    p.epsilon = c.op->epsilon;
    p.momentum = c.op->momentum;
    p.gamma = value_at(c.e, c.op->weights[0]);
    p.beta = value_at(c.e, c.op->weights[1]);
    p.moving_mean = value_at(c.e, c.op->weights[2]);
    p.moving_variance = value_at(c.e, c.op->weights[3]);
    p.x = c.x;
    p.y = c.y;
    p.statistic = c.o->z.as<float>();
    p.dy = c.dy;
    p.dx = c.dx;
    p.add = c.o->add[0];
    p.work = c.o->work.as<double>();
    p.dgamma = c.op->trainable ? gradient_at(c.e, c.op->weights[0]) : nullptr;
    p.dbeta = c.op->trainable ? gradient_at(c.e, c.op->weights[1]) : nullptr;
    return p;
}

void batch_normalization_forward(const call &c) {
    launch_batch_normalization(c.stream, batch_normalization_of(c));
}

void batch_normalization_backward(const call &c) {
    launch_batch_normalization_gradient(c.stream, batch_normalization_of(c));
}

pooling pooling_of(const call &c) {
    return {steps_at(c.e, c.op->inputs[0], c.op->steps),
            counts_of(c, 0),
            c.op->units,
            c.op->kind == SAP_CUDA_POOL_MAXIMUM,
            c.x,
            c.y,
            c.dy,
            c.dx,
            c.o->add[0]};
}

void pooling_forward(const call &c) {
    launch_pooling(c.stream, pooling_of(c), c.e->batch);
}

void pooling_backward(const call &c) {
    if (c.dx)
        launch_pooling_gradient(c.stream, pooling_of(c), c.e->batch);
}

int64_t longest_of(const sap_cuda_engine *e, int32_t tensor, int64_t steps) {
    int32_t sequence = e->plan->tensors[tensor].sequence;
    return sequence < 0 ? steps : e->longest[(size_t)sequence];
}

attention attention_of(const call &c) {
    const sap_cuda_op *op = c.op;
    attention p = {};
    p.heads = (int32_t)op->heads;
    p.key_dim = (int32_t)(op->width / op->heads);
    p.value_dim = (int32_t)(op->units / op->heads);
    p.queries = steps_at(c.e, op->inputs[0], op->steps);
    p.keys = steps_at(c.e, op->inputs[1], op->key_steps);
    p.query_counts = counts_of(c, 0);
    p.key_counts = counts_of(c, 1);
    p.causal = op->causal;
    p.means_all = op->means_all;
    p.longest = std::max(longest_of(c.e, op->inputs[0], op->steps), longest_of(c.e, op->inputs[1], op->key_steps));
    p.scale = (float)(1 / sqrt((double)p.key_dim));
    p.drop = c.mode == RUN_TRAIN && op->rate > 0;
    p.threshold = sap_dropout_threshold(op->rate);
    p.key = op->key;
    p.kept = op->rate < 1 ? (float)(1 / (1 - op->rate)) : 0;
    p.row_keys = c.e->space.key;
    if (p.drop && op->masks) {
        int64_t queries = step_places_most(c.e, op->inputs[0], op->steps);
        p.query_number = (int32_t *)(c.o->z.as<float>() + queries * op->heads);
        p.key_number = p.query_number + queries;
        p.meeting = p.key_number + step_places_most(c.e, op->inputs[1], op->key_steps);
    }
    p.q = c.x;
    p.k = y_of(c.e, op->inputs[1]);
    p.v = y_of(c.e, op->inputs[2]);
    p.y = c.y;
    p.statistic = c.o->z.as<float>();
    p.products = c.o->work.as<float>();
    p.dy = c.dy;
    p.dq = c.dx;
    p.dk = dy_of(c.e, op->inputs[1]);
    p.dv = dy_of(c.e, op->inputs[2]);
    for (size_t i = 0; i < 3; i++)
        p.add[i] = c.o->add[i];
    return p;
}

void attention_forward(const call &c) {
    launch_attention(c.stream, attention_of(c), c.e->batch);
}

void attention_backward(const call &c) {
    launch_attention_gradient(c.stream, attention_of(c), c.e->batch);
}

/* ---- By kind ---- */

struct kind_functions {
    void (*forward)(const call &);
    void (*backward)(const call &); /* NULL: its output has no gradient */
};

const kind_functions *functions_of(sap_cuda_kind kind) {
    static const kind_functions dense = {dense_forward, dense_backward};
    static const kind_functions activation = {activation_forward, activation_backward};
    static const kind_functions dropouts = {dropout_forward, dropout_backward};
    static const kind_functions concatenation = {concatenate_forward, concatenate_backward};
    static const kind_functions merge = {merge_forward, merge_backward};
    static const kind_functions recurrence = {recurrent_forward, recurrent_backward};
    static const kind_functions normalizations = {normalization_forward, normalization_backward};
    static const kind_functions batches = {batch_normalization_forward, batch_normalization_backward};
    static const kind_functions pools = {pooling_forward, pooling_backward};
    static const kind_functions attentions = {attention_forward, attention_backward};
    static const kind_functions convolutions = {convolution_forward, convolution_backward};
    static const kind_functions window_pools = {window_pooling_forward, window_pooling_backward};
    static const kind_functions masks = {mask_forward, nullptr};
    static const kind_functions maskings = {masking_forward, masking_backward};
    switch (kind) {
    case SAP_CUDA_GRU:
    case SAP_CUDA_LSTM:
        return &recurrence;
    case SAP_CUDA_LAYER_NORMALIZATION:
        return &normalizations;
    case SAP_CUDA_BATCH_NORMALIZATION:
        return &batches;
    case SAP_CUDA_POOL_AVERAGE:
    case SAP_CUDA_POOL_MAXIMUM:
        return &pools;
    case SAP_CUDA_ATTENTION:
        return &attentions;
    case SAP_CUDA_CONVOLUTION:
        return &convolutions;
    case SAP_CUDA_WINDOW_AVERAGE:
    case SAP_CUDA_WINDOW_MAXIMUM:
        return &window_pools;
    case SAP_CUDA_MASK:
        return &masks;
    case SAP_CUDA_MASKING:
        return &maskings;
    case SAP_CUDA_DENSE:
        return &dense;
    case SAP_CUDA_ACTIVATION:
        return &activation;
    case SAP_CUDA_DROPOUT:
        return &dropouts;
    case SAP_CUDA_CONCATENATE:
        return &concatenation;
    case SAP_CUDA_ADD:
    case SAP_CUDA_SUBTRACT:
    case SAP_CUDA_MULTIPLY:
    case SAP_CUDA_AVERAGE:
    case SAP_CUDA_MAXIMUM:
    case SAP_CUDA_MINIMUM:
        return &merge;
    default:
        return nullptr;
    }
}

call call_of(sap_cuda_engine *e, operation *o, run_mode mode) {
    const sap_cuda_op *op = o->op;
    int64_t numbers = values_of(e, op->output);
    return {e,
            o,
            op,
            mode,
            e->stream,
            y_of(e, op->inputs[0]),
            dy_of(e, op->inputs[0]),
            y_of(e, op->output),
            dy_of(e, op->output),
            numbers,
            op->units > 0 ? numbers / op->units : numbers,
            positions_launched(e, op->output)};
}

} // namespace

extent positions(const sap_cuda_engine *e, int32_t tensor, int64_t factor) {
    return {e->space.counts + 1 + e->plan->tensors[tensor].sequence, factor};
}

int64_t positions_most(const sap_cuda_engine *e, int32_t tensor) {
    int32_t sequence = e->plan->tensors[tensor].sequence;
    return sequence < 0 ? e->batch : e->step_capacity[(size_t)sequence];
}

int64_t positions_launched(const sap_cuda_engine *e, int32_t tensor) {
    int32_t sequence = e->plan->tensors[tensor].sequence;
    return sequence < 0 || e->share.groups == 1 ? positions_most(e, tensor) : e->steps[(size_t)sequence];
}

sap_status reserve_operation(sap_cuda_engine *e, operation *o, sap_error *err) {
    const sap_cuda_op *op = o->op;
    if (!functions_of(op->kind))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: not on the GPU in this version", op->where);
    if (is_recurrent(op->kind))
        return reserve_recurrent(e, o, err);
    int64_t most = positions_most(e, op->output), values = values_of(e, op->output);
    if (op->kind == SAP_CUDA_ATTENTION) {
        int64_t queries = step_places_most(e, op->inputs[0], op->steps), heads = queries * op->heads;
        int64_t keys = step_places_most(e, op->inputs[1], op->key_steps);
        int64_t numbers = op->masks ? queries + keys + 2 * e->batch : 0;
        SAP_TRY(o->z.reserve((size_t)(heads + numbers) * sizeof(float), err));
        return o->work.reserve((size_t)heads * sizeof(float), err);
    }
    if (op->kind == SAP_CUDA_LAYER_NORMALIZATION) {
        SAP_TRY(o->z.reserve((size_t)(2 * most * values / op->units) * sizeof(float), err));
        return o->work.reserve((size_t)normalization_work(most * values / op->units, op->units) * sizeof(float), err);
    }
    if (op->kind == SAP_CUDA_BATCH_NORMALIZATION) {
        int64_t numbers = batch_normalization_work(most * values / op->units, op->units);
        SAP_TRY(o->z.reserve((size_t)(2 * op->units) * sizeof(float), err));
        return o->work.reserve((size_t)numbers * sizeof(double), err);
    }
    if (keeps_z(op))
        SAP_TRY(o->z.reserve((size_t)(most * values) * sizeof(float), err));
    if (op->kind == SAP_CUDA_CONVOLUTION && op->trainable) {
        int64_t floats = convolution_work(most, op->window.outputs, op->window.size * op->width, op->units);
        SAP_TRY(o->work.reserve((size_t)floats * sizeof(float), err));
    }
    if (op->kind == SAP_CUDA_DENSE && op->trainable)
        SAP_TRY(
            o->work.reserve((size_t)dense_work(most * values / op->units, op->width, op->units) * sizeof(float), err));
    return SAP_OK;
}

sap_status forward_operation(sap_cuda_engine *e, operation *o, run_mode mode, sap_error *err) {
    functions_of(o->op->kind)->forward(call_of(e, o, mode));
    CUDA_TRY(cudaGetLastError(), o->op->where);
    return SAP_OK;
}

sap_status backward_operation(sap_cuda_engine *e, operation *o, run_mode mode, sap_error *err) {
    functions_of(o->op->kind)->backward(call_of(e, o, mode));
    CUDA_TRY(cudaGetLastError(), o->op->where);
    return SAP_OK;
}
