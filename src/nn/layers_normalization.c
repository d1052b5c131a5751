/* BatchNormalization, with its moving statistics. */
#include "nn_internal.h"

#include <math.h>

static sap_status parse_batch_normalization(sap_layer *layer, const json_t *config, sap_error *err) {
    static const char *const keys[] = {"gamma_initializer", "beta_initializer", "moving_mean_initializer",
                                       "moving_variance_initializer"};
    static const char *const standards[] = {"ones", "zeros", "zeros", "ones"};
    const json_t *axis = json_object_get(config, "axis");
    if (json_is_array(axis) && json_array_size(axis) == 1)
        axis = json_array_get(axis, 0); /* Keras 2 */
    layer->axis = json_is_integer(axis) ? json_integer_value(axis) : -1;
    layer->epsilon = sap_config_number(config, "epsilon", 1e-3);
    layer->scale = sap_config_flag(config, "scale", true);
    layer->center = sap_config_flag(config, "center", true);
    if (sap_config_flag(config, "renorm", false))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with \"renorm\"", layer->where);
    for (int i = 0; i < 4; i++)
        SAP_TRY(sap_initializer_parse(json_object_get(config, keys[i]), standards[i], layer->where,
                                      &layer->initializers[i], err));
    return SAP_OK;
}

static sap_status build_batch_normalization(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                            sap_shape *out, sap_error *err) {
    sap_shape width = {1, {sap_shape_last(inputs)}};
    if (first) {
        if (layer->scale)
            sap_layer_add_weight(layer, "gamma", &width, &layer->initializers[0], true);
        if (layer->center)
            sap_layer_add_weight(layer, "beta", &width, &layer->initializers[1], true);
        sap_layer_add_weight(layer, "moving_mean", &width, &layer->initializers[2], false);
        sap_layer_add_weight(layer, "moving_variance", &width, &layer->initializers[3], false);
    } else if (layer->weights[0].shape.dims[0] != width.dims[0]) {
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different widths", layer->where);
    }
    return sap_build_last_axis(layer, inputs, count, first, out, err);
}

static void batch_normalization_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y,
                                      sap_mode mode, sap_needs *out) {
    (void)layer;
    (void)x;
    (void)mode;
    out->kept = 2 * sap_shape_last(y);
}

/* y (= or +=) x · scale + shift, along the last axis. */
static void scale_and_shift(const sap_call *call, const float *scale, const float *shift, const float *x, float *y,
                            bool add) {
    int64_t values = sap_shape_step_values(call->shape), last = sap_shape_last(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b))
        for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += last * b.width)
            call->pass->kernels->affine(last, b.width, scale, shift, x + at, y + at, add);
}

/* Keeps scale and shift. */
static void batch_normalization_forward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const sap_layer_weight *weight = layer->weights;
    int64_t width = sap_shape_last(call->shape);
    const float *gamma = layer->scale ? call->pass->values + weight++->offset : NULL;
    const float *beta = layer->center ? call->pass->values + weight++->offset : NULL;
    const float *mean = call->pass->values + weight[0].offset, *variance = call->pass->values + weight[1].offset;
    float *scale = call->kept, *shift = call->kept + width;
    for (int64_t i = 0; i < width; i++) {
        scale[i] = (gamma ? gamma[i] : 1) / sqrtf(variance[i] + (float)layer->epsilon);
        shift[i] = (beta ? beta[i] : 0) - mean[i] * scale[i];
    }
    scale_and_shift(call, scale, shift, call->x[0], call->y, false);
}

static void batch_normalization_backward(const sap_call *call) { /* of a frozen layer: only training through it */
    if (call->dx[0])
        scale_and_shift(call, call->kept, NULL, call->dy, call->dx[0], call->add[0]);
}

const sap_layer_class sap_class_batch_normalization = {
    .name = "BatchNormalization",
    .inputs_least = 1,
    .inputs_most = 1,
    .whole_batch = true,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_batch_normalization,
    .build = build_batch_normalization,
    .needs = batch_normalization_needs,
    .forward = batch_normalization_forward,
    .backward = batch_normalization_backward,
};
