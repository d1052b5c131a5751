/* The classes of layers: their settings, shapes, weights, forward and backward passes on a tile. */
#include "nn_internal.h"

#include <math.h>

enum { T = SAP_TILE };

/* ---- Settings ------------------------------------------------------------------------------------------- */

static sap_status read_integer(const sap_layer *layer, const json_t *config, const char *key, int64_t least,
                               int64_t most, int64_t *out, sap_error *err) {
    const json_t *value = json_object_get(config, key);
    if (!json_is_integer(value))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs an integer \"%s\"", layer->where, key);
    *out = json_integer_value(value);
    if (*out < least || *out > most)
        return sap_error_set(err, SAP_EFORMAT, "%s: \"%s\" is %lld, not between %lld and %lld", layer->where, key,
                             (long long)*out, (long long)least, (long long)most);
    return SAP_OK;
}

static double read_number(const json_t *config, const char *key, double standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_number(value) ? json_number_value(value) : standard;
}

static bool read_flag(const json_t *config, const char *key, bool standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : standard;
}

/* A list of dimensions; null and -1 become -1. skip: dimensions to leave out at the front. */
static sap_status read_shape(const sap_layer *layer, const json_t *list, size_t skip, sap_shape *out, sap_error *err) {
    if (!json_is_array(list) || json_array_size(list) < skip || json_array_size(list) - skip > SAP_RANK)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a shape of at most %d dimensions", layer->where, SAP_RANK);
    out->rank = (int32_t)(json_array_size(list) - skip);
    for (int32_t i = 0; i < out->rank; i++) {
        const json_t *item = json_array_get(list, (size_t)i + skip);
        out->dims[i] = json_is_integer(item) ? json_integer_value(item) : -1;
        if (out->dims[i] < -1 || out->dims[i] > SAP_TENSOR_MOST || (!json_is_integer(item) && !json_is_null(item)))
            return sap_error_set(err, SAP_EFORMAT, "%s: dimension %d of its shape makes no sense", layer->where, i);
    }
    return SAP_OK;
}

static sap_status parse_none(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)layer;
    (void)config;
    (void)err;
    return SAP_OK;
}

static sap_status build_same(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                             sap_error *err) {
    (void)layer;
    (void)count;
    (void)first;
    (void)err;
    *out = inputs[0];
    return SAP_OK;
}

/* ---- What several classes do ---------------------------------------------------------------------------- */

/* target (= or +=) source, n numbers. */
static void pass_on(const sap_call *call, bool add, const float *source, float *target, int64_t n) {
    if (add)
        call->pass->kernels->add(n, source, target);
    else
        memcpy(target, source, (size_t)n * sizeof *target);
}

static int64_t last_dim(const sap_shape *shape) {
    return shape->rank ? shape->dims[shape->rank - 1] : 1;
}

/* The activation of a layer from z to y, which may be the same. */
static void activate(const sap_call *call, const float *z, float *y) {
    const sap_kernels *kernels = call->pass->kernels;
    const sap_activation *activation = &call->layer->activation;
    int64_t values = sap_shape_values(call->shape), width = last_dim(call->shape);
    if (activation->kind == SAP_LINEAR || call->logits) {
        if (z != y)
            memcpy(y, z, (size_t)(values * T) * sizeof *y);
    } else if (activation->kind == SAP_SOFTMAX) {
        for (int64_t first = 0; first < values; first += width)
            kernels->softmax(width, z + first * T, y + first * T);
    } else {
        kernels->activate(activation, z, y, values * T);
    }
}

/* Turns dy from the gradient of y into that of z. */
static void activate_backward(const sap_call *call, const float *z) {
    const sap_kernels *kernels = call->pass->kernels;
    const sap_activation *activation = &call->layer->activation;
    int64_t values = sap_shape_values(call->shape), width = last_dim(call->shape);
    if (activation->kind == SAP_LINEAR || call->logits)
        return;
    if (activation->kind == SAP_SOFTMAX)
        for (int64_t first = 0; first < values; first += width)
            kernels->softmax_gradient(width, call->y + first * T, call->dy + first * T);
    else
        kernels->activate_gradient(activation, z, call->y, call->dy, values * T);
}

/* ---- InputLayer ----------------------------------------------------------------------------------------- */

static sap_status parse_input(sap_layer *layer, const json_t *config, sap_error *err) {
    const json_t *list = json_object_get(config, "batch_shape");
    if (!list)
        list = json_object_get(config, "batch_input_shape"); /* Keras 2 */
    if (!list)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs \"batch_shape\"", layer->where);
    SAP_TRY(read_shape(layer, list, 1, &layer->target, err));
    for (int32_t i = 0; i < layer->target.rank; i++)
        if (layer->target.dims[i] < 1)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an input of variable size", layer->where);
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

/* ---- Dense ---------------------------------------------------------------------------------------------- */

static sap_status parse_dense(sap_layer *layer, const json_t *config, sap_error *err) {
    SAP_TRY(read_integer(layer, config, "units", 1, SAP_TENSOR_MOST, &layer->units, err));
    layer->use_bias = read_flag(config, "use_bias", true);
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
    int64_t in = last_dim(inputs);
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

static void dense_forward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = last_dim(call->x_shape[0]), out = layer->units;
    int64_t places = sap_shape_values(call->shape) / out; /* a Dense layer works on the last dimension */
    float *z = call->z ? call->z : call->y;
    for (int64_t i = 0; i < places; i++)
        pass->kernels->product(&(sap_product){
            .rows = out,
            .depth = in,
            .w = pass->values + layer->weights[0].offset,
            .row_step = 1,
            .depth_step = out,
            .x = call->x[0] + i * in * T,
            .y = z + i * out * T,
            .bias = layer->use_bias ? pass->values + layer->weights[1].offset : NULL,
            .relu = layer->activation.kind == SAP_RELU,
        });
    if (layer->activation.kind != SAP_RELU)
        activate(call, z, call->y);
}

static void dense_backward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = last_dim(call->x_shape[0]), out = layer->units;
    int64_t places = sap_shape_values(call->shape) / out;
    activate_backward(call, call->z);
    for (int64_t i = 0; i < places; i++) {
        const float *d = call->dy + i * out * T;
        if (layer->trainable)
            pass->kernels->outer(in, out, call->x[0] + i * in * T, d, pass->gradients + layer->weights[0].offset,
                                 layer->use_bias ? pass->gradients + layer->weights[1].offset : NULL);
        if (call->dx[0])
            pass->kernels->product(&(sap_product){
                .rows = in,
                .depth = out,
                .w = pass->values + layer->weights[0].offset,
                .row_step = out,
                .depth_step = 1,
                .x = d,
                .y = call->dx[0] + i * in * T,
                .add = call->add[0],
            });
    }
}

/* ---- Activation, ReLU, LeakyReLU, ELU, Softmax ---------------------------------------------------------- */

static sap_status parse_activation(sap_layer *layer, const json_t *config, sap_error *err) {
    return sap_activation_parse(json_object_get(config, "activation"), layer->where, &layer->activation, err);
}

static sap_status parse_relu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    layer->activation = (sap_activation){
        .kind = SAP_RELU_GENERAL,
        .alpha = (float)read_number(config, "negative_slope", 0),
        .threshold = (float)read_number(config, "threshold", 0),
        .limit = (float)read_number(config, "max_value", (double)INFINITY),
    };
    return SAP_OK;
}

static sap_status parse_leaky_relu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    double slope = read_number(config, "negative_slope", read_number(config, "alpha", 0.3)); /* Keras 2: alpha */
    layer->activation = (sap_activation){.kind = SAP_RELU_GENERAL, .alpha = (float)slope, .limit = (float)INFINITY};
    return SAP_OK;
}

static sap_status parse_elu(sap_layer *layer, const json_t *config, sap_error *err) {
    (void)err;
    layer->activation = (sap_activation){.kind = SAP_ELU, .alpha = (float)read_number(config, "alpha", 1)};
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

/* For classes that work along the last axis. */
static sap_status build_last_axis(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                  sap_error *err) {
    if (layer->axis != -1 && layer->axis != inputs->rank)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: along axis %lld, which is not the last", layer->where,
                             (long long)layer->axis);
    return build_same(layer, inputs, count, first, out, err);
}

static void activation_forward(const sap_call *call) {
    activate(call, call->x[0], call->y);
}

static void activation_backward(const sap_call *call) {
    activate_backward(call, call->x[0]);
    if (call->dx[0])
        pass_on(call, call->add[0], call->dy, call->dx[0], sap_shape_values(call->shape) * T);
}

/* ---- Dropout -------------------------------------------------------------------------------------------- */

static sap_status parse_dropout(sap_layer *layer, const json_t *config, sap_error *err) {
    layer->rate = read_number(config, "rate", -1);
    if (!(layer->rate >= 0 && layer->rate <= 1))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a \"rate\" between 0 and 1", layer->where);
    const json_t *noise = json_object_get(config, "noise_shape");
    if (noise && !json_is_null(noise))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a \"noise_shape\"", layer->where);
    return SAP_OK;
}

/* y (= or +=) x with dropout, or without; the random numbers depend on seed, epoch, event, layer and value alone. */
static void drop(const sap_call *call, const float *x, float *y, bool add) {
    const sap_pass *pass = call->pass;
    double rate = call->layer->rate;
    int64_t values = sap_shape_values(call->shape);
    if (!pass->training || rate == 0) {
        pass_on(call, add, x, y, values * T);
        return;
    }
    uint32_t key_a[T], key_b[T];
    for (int t = 0; t < T; t++) {
        uint64_t key = sap_mix(pass->event_keys[t], call->key);
        key_a[t] = (uint32_t)key;
        key_b[t] = (uint32_t)(key >> 32);
    }
    double threshold = rate * 0x1p32;
    sap_dropout dropout = {
        .values = values,
        .threshold = threshold < 4294967295.0 ? (uint32_t)threshold : UINT32_MAX,
        .scale = rate < 1 ? (float)(1 / (1 - rate)) : 0, /* everything dropped: nothing to scale */
        .key_a = key_a,
        .key_b = key_b,
    };
    pass->kernels->dropout(&dropout, x, y, add);
}

static void dropout_forward(const sap_call *call) {
    drop(call, call->x[0], call->y, false);
}

static void dropout_backward(const sap_call *call) {
    if (call->dx[0])
        drop(call, call->dy, call->dx[0], call->add[0]);
}

/* ---- Concatenate, Add ----------------------------------------------------------------------------------- */

static sap_status parse_concatenate(sap_layer *layer, const json_t *config, sap_error *err) {
    if (!json_object_get(config, "axis")) {
        layer->axis = -1;
        return SAP_OK;
    }
    return read_integer(layer, config, "axis", -SAP_RANK - 1, SAP_RANK, &layer->axis, err);
}

/* The axis among the dimensions behind the batch; -1: makes no sense. */
static int32_t axis_of(const sap_layer *layer, int32_t rank) {
    int64_t axis = layer->axis < 0 ? layer->axis + rank : layer->axis - 1;
    return axis >= 0 && axis < rank ? (int32_t)axis : -1;
}

static sap_status build_concatenate(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                    sap_shape *out, sap_error *err) {
    (void)first;
    *out = inputs[0];
    int32_t axis = axis_of(layer, out->rank);
    if (axis < 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: axis %lld of inputs with %d dimensions", layer->where,
                             (long long)layer->axis, out->rank + 1);
    for (int32_t i = 1; i < count; i++) {
        sap_shape same = inputs[i];
        if (same.rank == out->rank)
            same.dims[axis] = inputs[0].dims[axis];
        if (same.rank != out->rank || memcmp(same.dims, inputs[0].dims, (size_t)same.rank * sizeof *same.dims) != 0)
            return sap_error_set(err, SAP_EFORMAT, "%s: its inputs differ in more than axis %lld", layer->where,
                                 (long long)layer->axis);
        out->dims[axis] += inputs[i].dims[axis];
    }
    return SAP_OK;
}

/* Calls copy for each run of values that stand together in input i and in the output. */
static void concatenate(const sap_call *call, bool backward) {
    int32_t axis = axis_of(call->layer, call->shape->rank);
    int64_t outer = 1, place = 0, whole = 1;
    for (int32_t i = 0; i < call->shape->rank; i++) {
        outer *= i < axis ? call->shape->dims[i] : 1;
        whole *= i < axis ? 1 : call->shape->dims[i];
    }
    for (int32_t i = 0; i < call->input_count; i++) {
        int64_t run = sap_shape_values(call->x_shape[i]) / outer;
        for (int64_t o = 0; o < outer; o++) {
            int64_t at = (o * whole + place) * T;
            if (!backward)
                memcpy(call->y + at, call->x[i] + o * run * T, (size_t)(run * T) * sizeof(float));
            else if (call->dx[i])
                pass_on(call, call->add[i], call->dy + at, call->dx[i] + o * run * T, run * T);
        }
        place += run;
    }
}

static void concatenate_forward(const sap_call *call) {
    concatenate(call, false);
}

static void concatenate_backward(const sap_call *call) {
    concatenate(call, true);
}

static sap_status build_add(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                            sap_error *err) {
    for (int32_t i = 1; i < count; i++)
        if (inputs[i].rank != inputs[0].rank ||
            memcmp(inputs[i].dims, inputs[0].dims, (size_t)inputs[0].rank * sizeof *inputs[0].dims) != 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs of different shapes", layer->where);
    return build_same(layer, inputs, count, first, out, err);
}

static void add_forward(const sap_call *call) {
    for (int32_t i = 0; i < call->input_count; i++)
        pass_on(call, i > 0, call->x[i], call->y, sap_shape_values(call->shape) * T);
}

static void add_backward(const sap_call *call) {
    for (int32_t i = 0; i < call->input_count; i++)
        if (call->dx[i])
            pass_on(call, call->add[i], call->dy, call->dx[i], sap_shape_values(call->shape) * T);
}

/* ---- Flatten, Reshape: the same numbers in another shape ------------------------------------------------ */

static sap_status build_flatten(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    (void)layer;
    (void)count;
    (void)first;
    (void)err;
    *out = (sap_shape){1, {sap_shape_values(inputs)}};
    return SAP_OK;
}

static sap_status parse_reshape(sap_layer *layer, const json_t *config, sap_error *err) {
    return read_shape(layer, json_object_get(config, "target_shape"), 0, &layer->target, err);
}

static sap_status build_reshape(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    (void)count;
    (void)first;
    *out = layer->target;
    int64_t values = sap_shape_values(inputs), known = 1;
    int32_t open = -1, opens = 0;
    for (int32_t i = 0; i < out->rank; i++) {
        if (out->dims[i] < 0) {
            open = i;
            opens++;
        } else if (known > 0 && out->dims[i] <= SAP_TENSOR_MOST / known) {
            known *= out->dims[i];
        } else {
            known = 0;
        }
    }
    if (open >= 0 && known > 0 && values % known == 0)
        out->dims[open] = values / known;
    if (opens > 1 || known == 0 || (open < 0 ? known != values : values % known != 0))
        return sap_error_set(err, SAP_EFORMAT, "%s: %lld values do not fit its target shape", layer->where,
                             (long long)values);
    return SAP_OK;
}

/* ---- BatchNormalization, with its moving statistics ----------------------------------------------------- */

static sap_status parse_batch_normalization(sap_layer *layer, const json_t *config, sap_error *err) {
    static const char *const keys[] = {"gamma_initializer", "beta_initializer", "moving_mean_initializer",
                                       "moving_variance_initializer"};
    static const char *const standards[] = {"ones", "zeros", "zeros", "ones"};
    const json_t *axis = json_object_get(config, "axis");
    if (json_is_array(axis) && json_array_size(axis) == 1)
        axis = json_array_get(axis, 0); /* Keras 2 */
    layer->axis = json_is_integer(axis) ? json_integer_value(axis) : -1;
    layer->epsilon = read_number(config, "epsilon", 1e-3);
    layer->scale = read_flag(config, "scale", true);
    layer->center = read_flag(config, "center", true);
    if (read_flag(config, "renorm", false))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with \"renorm\"", layer->where);
    for (int i = 0; i < 4; i++)
        SAP_TRY(sap_initializer_parse(json_object_get(config, keys[i]), standards[i], layer->where,
                                      &layer->initializers[i], err));
    return SAP_OK;
}

static sap_status build_batch_normalization(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                            sap_shape *out, sap_error *err) {
    sap_shape width = {1, {last_dim(inputs)}};
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
    return build_last_axis(layer, inputs, count, first, out, err);
}

/* z begins with scale and shift, `width` each. */
static void batch_normalization_forward(const sap_call *call) {
    const sap_layer *layer = call->layer;
    const sap_layer_weight *weight = layer->weights;
    int64_t width = last_dim(call->shape), values = sap_shape_values(call->shape);
    const float *gamma = layer->scale ? call->pass->values + weight++->offset : NULL;
    const float *beta = layer->center ? call->pass->values + weight++->offset : NULL;
    const float *mean = call->pass->values + weight[0].offset, *variance = call->pass->values + weight[1].offset;
    float *scale = call->z, *shift = call->z + width;
    for (int64_t i = 0; i < width; i++) {
        scale[i] = (gamma ? gamma[i] : 1) / sqrtf(variance[i] + (float)layer->epsilon);
        shift[i] = (beta ? beta[i] : 0) - mean[i] * scale[i];
    }
    for (int64_t first = 0; first < values; first += width)
        call->pass->kernels->affine(width, scale, shift, call->x[0] + first * T, call->y + first * T, false);
}

static void batch_normalization_backward(const sap_call *call) { /* of a frozen layer: only training through it */
    int64_t width = last_dim(call->shape), values = sap_shape_values(call->shape);
    for (int64_t first = 0; call->dx[0] && first < values; first += width)
        call->pass->kernels->affine(width, call->z, NULL, call->dy + first * T, call->dx[0] + first * T, call->add[0]);
}

/* ---- The table ------------------------------------------------------------------------------------------ */

static void nothing(const sap_call *call) {
    (void)call;
}

static const sap_layer_class classes[] = {
    {"InputLayer", 0, 0, false, false, parse_input, build_input, nothing, nothing},
    {"Dense", 1, 1, false, false, parse_dense, build_dense, dense_forward, dense_backward},
    {"Activation", 1, 1, false, false, parse_activation, build_same, activation_forward, activation_backward},
    {"ReLU", 1, 1, false, false, parse_relu, build_same, activation_forward, activation_backward},
    {"LeakyReLU", 1, 1, false, false, parse_leaky_relu, build_same, activation_forward, activation_backward},
    {"ELU", 1, 1, false, false, parse_elu, build_same, activation_forward, activation_backward},
    {"Softmax", 1, 1, false, false, parse_softmax, build_last_axis, activation_forward, activation_backward},
    {"Dropout", 1, 1, false, false, parse_dropout, build_same, dropout_forward, dropout_backward},
    {"Concatenate", 1, SAP_LAYERS_MOST, false, false, parse_concatenate, build_concatenate, concatenate_forward,
     concatenate_backward},
    {"Add", 1, SAP_LAYERS_MOST, false, false, parse_none, build_add, add_forward, add_backward},
    {"Flatten", 1, 1, true, false, parse_none, build_flatten, nothing, nothing},
    {"Reshape", 1, 1, true, false, parse_reshape, build_reshape, nothing, nothing},
    {"BatchNormalization", 1, 1, false, true, parse_batch_normalization, build_batch_normalization,
     batch_normalization_forward, batch_normalization_backward},
};
enum { CLASS_COUNT = sizeof classes / sizeof *classes };

const sap_layer_class *sap_layer_class_find(const char *name) {
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i].name, name) == 0)
            return &classes[i];
    return NULL;
}

void sap_layer_class_names(char *text, size_t capacity) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < CLASS_COUNT && used < capacity; i++)
        used += (size_t)snprintf(text + used, capacity - used, "%s%s", i ? ", " : "", classes[i].name);
}

void sap_layer_add_weight(sap_layer *layer, const char *name, const sap_shape *shape,
                          const sap_initializer *initializer, bool trainable) {
    layer->weights[layer->weight_count++] = (sap_layer_weight){
        .name = name,
        .shape = *shape,
        .initializer = *initializer,
        .trainable = trainable && layer->trainable,
    };
}
