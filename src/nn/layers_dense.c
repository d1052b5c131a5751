/* InputLayer, Dense, activations and Dropout: layers that take every event and every step for itself. */
#include "nn_internal.h"

#include <math.h>

/* ---- InputLayer ----------------------------------------------------------------------------------------- */

static sap_status parse_input(sap_layer *layer, const json_t *config, sap_error *err) {
    const json_t *list = json_object_get(config, "batch_shape");
    if (!list)
        list = json_object_get(config, "batch_input_shape"); /* Keras 2 */
    if (!list)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs \"batch_shape\"", layer->where);
    SAP_TRY(sap_config_shape(layer, list, 1, &layer->target, err));
    for (int32_t i = 0; i < layer->target.rank; i++) {
        bool time = i == 0 && layer->target.rank > 1; /* may be unknown: -1 */
        if (layer->target.dims[i] < 1 && !(time && layer->target.dims[i] == -1))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an input of variable size", layer->where);
    }
    return SAP_OK;
}

static sap_status build_input(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                              sap_error *err) {
    (void)inputs;
    (void)count;
    (void)first;
    (void)err;
    *out = layer->target;
    return SAP_OK;
}

const sap_layer_class sap_class_input = {
    .name = "InputLayer",
    .inputs_least = 0,
    .inputs_most = 0,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_input,
    .build = build_input,
};

/* ---- Dense ---------------------------------------------------------------------------------------------- */

static sap_status parse_dense(sap_layer *layer, const json_t *config, sap_error *err) {
    SAP_TRY(sap_config_integer(layer, config, "units", 1, SAP_TENSOR_MOST, &layer->units, err));
    layer->use_bias = sap_config_flag(config, "use_bias", true);
    SAP_TRY(sap_activation_parse(json_object_get(config, "activation"), layer->where, &layer->activation, err));
    SAP_TRY(sap_initializer_parse(json_object_get(config, "kernel_initializer"), "glorot_uniform", layer->where,
                                  &layer->initializers[0], err));
    return sap_initializer_parse(json_object_get(config, "bias_initializer"), "zeros", layer->where,
                                 &layer->initializers[1], err);
}

static sap_status build_dense(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                              sap_error *err) {
    (void)count;
    if (inputs->rank < 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input has no dimension", layer->where);
    int64_t in = sap_shape_last(inputs);
    if (first) {
        sap_shape kernel = {2, {in, layer->units}}, bias = {1, {layer->units}};
        sap_layer_add_weight(layer, "kernel", &kernel, &layer->initializers[0], true);
        if (layer->use_bias)
            sap_layer_add_weight(layer, "bias", &bias, &layer->initializers[1], true);
    } else if (layer->weights[0].shape.dims[0] != in) {
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of width %lld and %lld", layer->where,
                             (long long)layer->weights[0].shape.dims[0], (long long)in);
    }
    *out = *inputs;
    out->dims[out->rank - 1] = layer->units;
    return SAP_OK;
}

static void dense_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode,
                        sap_needs *out) {
    (void)x;
    if (mode != SAP_PREDICT && sap_activation_needs_input(layer->activation.kind))
        out->kept = sap_shape_values(y) * SAP_TILE;
}

static void dense_forward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = sap_shape_last(call->x_shape[0]), out = layer->units;
    int64_t places = sap_shape_step_values(call->shape) / out; /* a Dense layer works on the last dimension */
    float *z = call->kept ? call->kept : call->y;
    for (sap_block b = sap_block_first(pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b))
        for (int64_t i = 0; i < places; i++)
            pass->kernels->product(&(sap_product){
                .rows = out,
                .depth = in,
                .w = pass->values + layer->weights[0].offset,
                .row_step = 1,
                .depth_step = out,
                .width = b.width,
                .x = call->x[0] + (b.start * places + i * b.width) * in,
                .y = z + (b.start * places + i * b.width) * out,
                .bias = layer->use_bias ? pass->values + layer->weights[1].offset : NULL,
                .relu = layer->activation.kind == SAP_RELU,
            });
    if (layer->activation.kind != SAP_RELU)
        sap_activate(call, z, call->y);
}

/* One place of one step; at: columns of all places before. */
static void dense_place_backward(const sap_call *call, int width, int64_t at) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = sap_shape_last(call->x_shape[0]), out = layer->units;
    const float *d = call->dy + at * out;
    if (layer->trainable)
        pass->kernels->outer(in, out, width, call->x[0] + at * in, d, pass->gradients + layer->weights[0].offset,
                             layer->use_bias ? pass->gradients + layer->weights[1].offset : NULL);
    if (call->dx[0])
        pass->kernels->product(&(sap_product){
            .rows = in,
            .depth = out,
            .w = pass->values + layer->weights[0].offset,
            .row_step = out,
            .depth_step = 1,
            .width = width,
            .x = d,
            .y = call->dx[0] + at * in,
            .add = call->add[0],
        });
}

static void dense_backward(const sap_call *call) {
    int64_t places = sap_shape_step_values(call->shape) / call->layer->units;
    sap_activate_backward(call, call->kept);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b))
        for (int64_t i = 0; i < places; i++)
            dense_place_backward(call, b.width, b.start * places + i * b.width);
}

const sap_layer_class sap_class_dense = {
    .name = "Dense",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_dense,
    .build = build_dense,
    .needs = dense_needs,
    .forward = dense_forward,
    .backward = dense_backward,
};

/* ---- Activation, ReLU, LeakyReLU, ELU, Softmax ---------------------------------------------------------- */

static sap_status parse_activation(sap_layer *layer, const json_t *config, sap_error *err) {
    return sap_activation_parse(json_object_get(config, "activation"), layer->where, &layer->activation, err);
}

static sap_status parse_relu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    layer->activation = (sap_activation){
        .kind = SAP_RELU_GENERAL,
        .alpha = (float)sap_config_number(config, "negative_slope", 0),
        .threshold = (float)sap_config_number(config, "threshold", 0),
        .limit = (float)sap_config_number(config, "max_value", (double)INFINITY),
    };
    return SAP_OK;
}

static sap_status parse_leaky_relu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    double slope =
        sap_config_number(config, "negative_slope", sap_config_number(config, "alpha", 0.3)); /* Keras 2: alpha */
    layer->activation = (sap_activation){.kind = SAP_RELU_GENERAL, .alpha = (float)slope, .limit = (float)INFINITY};
    return SAP_OK;
}

static sap_status parse_elu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    layer->activation = (sap_activation){.kind = SAP_ELU, .alpha = (float)sap_config_number(config, "alpha", 1)};
    return SAP_OK;
}

static sap_status parse_softmax(sap_layer *layer, const json_t *config, sap_error *err) {
    layer->activation = (sap_activation){.kind = SAP_SOFTMAX};
    const json_t *axis = json_object_get(config, "axis");
    if (axis && json_is_array(axis) && json_array_size(axis) == 1)
        axis = json_array_get(axis, 0);
    layer->axis = json_is_integer(axis) ? json_integer_value(axis) : -1;
    if (axis && !json_is_integer(axis))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: along several axes", layer->where);
    return SAP_OK;
}

static void activation_forward(const sap_call *call) {
    sap_activate(call, call->x[0], call->y);
}

static void activation_backward(const sap_call *call) {
    sap_activate_backward(call, call->x[0]);
    if (call->dx[0])
        sap_pass_on(call, call->add[0], call->dy, call->dx[0],
                    sap_shape_step_values(call->shape) * sap_call_columns(call));
}

const sap_layer_class sap_class_activation = {
    .name = "Activation",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_activation,
    .forward = activation_forward,
    .backward = activation_backward,
};

const sap_layer_class sap_class_relu = {
    .name = "ReLU",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_relu,
    .forward = activation_forward,
    .backward = activation_backward,
};

const sap_layer_class sap_class_leaky_relu = {
    .name = "LeakyReLU",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_leaky_relu,
    .forward = activation_forward,
    .backward = activation_backward,
};

const sap_layer_class sap_class_elu = {
    .name = "ELU",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_elu,
    .forward = activation_forward,
    .backward = activation_backward,
};

const sap_layer_class sap_class_softmax = {
    .name = "Softmax",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_softmax,
    .build = sap_build_last_axis,
    .forward = activation_forward,
    .backward = activation_backward,
};

/* ---- Dropout -------------------------------------------------------------------------------------------- */

static sap_status parse_dropout(sap_layer *layer, const json_t *config, sap_error *err) {
    layer->rate = sap_config_number(config, "rate", -1);
    if (!(layer->rate >= 0 && layer->rate <= 1))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a \"rate\" between 0 and 1", layer->where);
    const json_t *noise = json_object_get(config, "noise_shape");
    if (noise && !json_is_null(noise))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a \"noise_shape\"", layer->where);
    return SAP_OK;
}

/* y (= or +=) x with dropout, or without; the random numbers depend on seed, epoch, event, layer and place alone. */
static void drop(const sap_call *call, const float *x, float *y, bool add) {
    const sap_pass *pass = call->pass;
    double rate = call->layer->rate;
    int64_t values = sap_shape_step_values(call->shape);
    if (!pass->training || rate == 0) {
        sap_pass_on(call, add, x, y, values * sap_call_columns(call));
        return;
    }
    uint32_t key_a[SAP_TILE], key_b[SAP_TILE];
    for (int t = 0; t < SAP_TILE; t++) {
        uint64_t key = sap_mix(pass->event_keys[t], call->key);
        key_a[t] = (uint32_t)key;
        key_b[t] = (uint32_t)(key >> 32);
    }
    sap_dropout dropout = {
        .values = values,
        .threshold = sap_dropout_threshold(rate),
        .scale = rate < 1 ? (float)(1 / (1 - rate)) : 0, /* everything dropped: nothing to scale */
        .key_a = key_a,
        .key_b = key_b,
    };
    for (sap_block b = sap_block_first(pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        dropout.width = b.width;
        dropout.first = (uint32_t)(b.step * values);
        pass->kernels->dropout(&dropout, x + b.start * values, y + b.start * values, add);
    }
}

static void dropout_forward(const sap_call *call) {
    drop(call, call->x[0], call->y, false);
}

static void dropout_backward(const sap_call *call) {
    if (call->dx[0])
        drop(call, call->dy, call->dx[0], call->add[0]);
}

const sap_layer_class sap_class_dropout = {
    .name = "Dropout",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_dropout,
    .forward = dropout_forward,
    .backward = dropout_backward,
};
