/* LayerNormalization, along the last axis. */
#include "nn_internal.h"
#include "normalization.h"

static sap_status parse_layer_normalization(sap_layer *layer, const json_t *config, sap_error *err) {
    const json_t *axis = json_object_get(config, "axis");
    if (json_is_array(axis) && json_array_size(axis) == 1)
        axis = json_array_get(axis, 0);
    if (axis && !json_is_integer(axis))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: along several axes", layer->where);
    layer->axis = axis ? json_integer_value(axis) : -1;
    layer->epsilon = sap_config_number(config, "epsilon", 1e-3);
    layer->scale = sap_config_flag(config, "scale", true);
    layer->center = sap_config_flag(config, "center", true);
    if (sap_config_flag(config, "rms_scaling", false))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with \"rms_scaling\"", layer->where);
    SAP_TRY(sap_initializer_parse(json_object_get(config, "gamma_initializer"), "ones", layer->where,
                                  &layer->initializers[0], err));
    return sap_initializer_parse(json_object_get(config, "beta_initializer"), "zeros", layer->where,
                                 &layer->initializers[1], err);
}

static sap_status build_layer_normalization(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                            sap_shape *out, sap_error *err) {
    if (inputs->rank < 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input has no dimension", layer->where);
    sap_shape width = {1, {sap_shape_last(inputs)}};
    if (first && layer->scale)
        sap_layer_add_weight(layer, "gamma", &width, &layer->initializers[0], true);
    if (first && layer->center)
        sap_layer_add_weight(layer, "beta", &width, &layer->initializers[1], true);
    if (layer->weight_count > 0 && layer->weights[0].shape.dims[0] != width.dims[0])
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different widths", layer->where);
    return sap_build_last_axis(layer, inputs, count, first, out, err);
}

static void layer_normalization_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y,
                                      sap_mode mode, sap_needs *out) {
    (void)layer;
    (void)x;
    if (mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE)
        out->work = 2 * sap_shape_last(y) * SAP_COLUMNS;
}

static sap_normalization normalization_of(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const float *values = call->pass->values;
    return (sap_normalization){
        .rows = sap_shape_last(call->shape),
        .epsilon = (float)layer->epsilon,
        .gamma = layer->scale ? values + layer->weights[0].offset : NULL,
        .beta = layer->center ? values + layer->weights[layer->scale].offset : NULL,
    };
}

static void layer_normalization_forward(const sap_call *call) {
    sap_normalization n = normalization_of(call);
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        n.width = b.width;
        for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += n.rows * b.width) {
            n.x = call->x[0] + at;
            n.y = call->y + at;
            call->pass->kernels->normalization->forward(&n);
        }
    }
}

/* gradient[r] += Σ_c sums[r][c] */
static void add_sums(const float *sums, int64_t rows, float *gradient) {
    for (int64_t r = 0; r < rows; r++) {
        float sum = 0;
        for (int c = 0; c < SAP_COLUMNS; c++)
            sum += sums[r * SAP_COLUMNS + c];
        gradient[r] += sum;
    }
}

static void layer_normalization_backward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    sap_normalization n = normalization_of(call);
    int64_t values = sap_shape_step_values(call->shape);
    n.dgamma = call->work;
    n.dbeta = call->work + n.rows * SAP_COLUMNS;
    n.add = call->add[0];
    memset(call->work, 0, (size_t)(2 * n.rows * SAP_COLUMNS) * sizeof *call->work);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        n.width = b.width;
        for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += n.rows * b.width) {
            n.x = call->x[0] + at;
            n.dy = call->dy + at;
            n.dx = call->dx[0] ? call->dx[0] + at : NULL;
            call->pass->kernels->normalization->backward(&n);
        }
    }
    if (layer->trainable && layer->scale)
        add_sums(n.dgamma, n.rows, call->pass->gradients + layer->weights[0].offset);
    if (layer->trainable && layer->center)
        add_sums(n.dbeta, n.rows, call->pass->gradients + layer->weights[layer->scale].offset);
}

const sap_layer_class sap_class_layer_normalization = {
    .name = "LayerNormalization",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_layer_normalization,
    .build = build_layer_normalization,
    .needs = layer_normalization_needs,
    .forward = layer_normalization_forward,
    .backward = layer_normalization_backward,
};
