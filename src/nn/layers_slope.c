/* PReLU: a learnt slope below 0, of each value or shared along some axes. */
#include "nn_internal.h"

static sap_status parse_prelu(sap_layer *layer, const json_t *config, sap_error *err) {
    uint32_t *shared = sap_arena_array(layer->arena, 1, sizeof *shared); /* bit d: dimension d is shared */
    if (!shared)
        return sap_error_memory(err, layer->where);
    layer->settings = shared;
    const json_t *axes = json_object_get(config, "shared_axes");
    for (size_t i = 0; i < json_array_size(axes); i++) {
        int64_t axis = json_integer_value(json_array_get(axes, i));
        if (axis < 1 || axis > SAP_RANK)
            return sap_error_set(err, SAP_EFORMAT, "%s: \"shared_axes\" makes no sense", layer->where);
        *shared |= 1U << (axis - 1);
    }
    return sap_initializer_parse(json_object_get(config, "alpha_initializer"), "zeros", layer->where,
                                 &layer->initializers[0], err);
}

static sap_status build_prelu(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                              sap_error *err) {
    uint32_t shared = *(const uint32_t *)layer->settings;
    sap_shape alpha = *inputs;
    for (int32_t d = 0; d < alpha.rank; d++)
        if (shared >> d & 1)
            alpha.dims[d] = 1;
    if (alpha.rank > 1 && alpha.dims[0] != 1)
        layer->padding = SAP_PADDING_ALWAYS; /* each step has slopes of its own */
    if (alpha.rank > 1 && alpha.dims[0] < 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: slopes for a sequence of unknown length", layer->where);
    if (first)
        sap_layer_add_weight(layer, "alpha", &alpha, &layer->initializers[0], true);
    else if (alpha.rank != layer->weights[0].shape.rank ||
             memcmp(alpha.dims, layer->weights[0].shape.dims, (size_t)alpha.rank * sizeof *alpha.dims) != 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different shapes", layer->where);
    return sap_build_same(layer, inputs, count, first, out, err);
}

/* The number of the slope of value v of a step. */
static int64_t slope_at(const sap_call *call, int64_t step, int64_t v) {
    const sap_shape *x = call->shape, *alpha = &call->layer->weights[0].shape;
    int32_t inner = x->rank > 1 ? 1 : 0;
    int64_t place = 0, stride = 1;
    for (int32_t d = x->rank - 1; d >= inner; d--) {
        place += alpha->dims[d] == 1 ? 0 : v % x->dims[d] * stride;
        stride *= alpha->dims[d];
        v /= x->dims[d];
    }
    return inner && alpha->dims[0] != 1 ? place + step * stride : place;
}

static void prelu_forward(const sap_call *call) {
    const float *slopes = call->pass->values + call->layer->weights[0].offset;
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        for (int64_t v = 0; v < values; v++) {
            const float *x = call->x[0] + b.start * values + v * b.width;
            float *y = call->y + b.start * values + v * b.width, slope = slopes[slope_at(call, b.step, v)];
            for (int t = 0; t < b.width; t++)
                y[t] = x[t] < 0 ? slope * x[t] : x[t];
        }
    }
}

static void prelu_backward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const float *slopes = call->pass->values + layer->weights[0].offset;
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        for (int64_t v = 0; v < values; v++) {
            int64_t at = b.start * values + v * b.width, number = slope_at(call, b.step, v);
            const float *x = call->x[0] + at, *dy = call->dy + at;
            float sum = 0, slope = slopes[number];
            for (int t = 0; t < b.width; t++)
                sum += x[t] < 0 ? x[t] * dy[t] : 0;
            if (layer->trainable)
                call->pass->gradients[layer->weights[0].offset + number] += sum;
            float *dx = call->dx[0] ? call->dx[0] + at : NULL;
            for (int t = 0; dx && t < b.width; t++) /* at 0 it is 0, as TensorFlow has it */
                dx[t] = (call->add[0] ? dx[t] : 0) + (x[t] > 0 ? dy[t] : x[t] < 0 ? slope * dy[t] : 0);
        }
    }
}

const sap_layer_class sap_class_prelu = {
    .name = "PReLU",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_prelu,
    .build = build_prelu,
    .forward = prelu_forward,
    .backward = prelu_backward,
};
