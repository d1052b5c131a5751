/* Pooling along the steps of a sequence: over all of them, and in windows. */
#include "window.h"

#include <math.h>

/* ---- Over all steps ------------------------------------------------------------------------------------- */

static sap_status parse_global(sap_layer *layer, const json_t *config, sap_error *err) {
    const char *format = json_string_value(json_object_get(config, "data_format"));
    if (format && strcmp(format, "channels_last") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: data_format \"%.100s\"", layer->where, format);
    layer->use_bias = sap_config_flag(config, "keepdims", false);
    return SAP_OK;
}

static sap_status build_global(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                               sap_error *err) {
    (void)count;
    (void)first;
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    bool keeps = layer->use_bias;
    *out = keeps ? (sap_shape){2, {1, inputs->dims[1]}} : (sap_shape){1, {inputs->dims[1]}};
    return SAP_OK;
}

#define EACH_STEP(call, b)                                                                                             \
    sap_block b = sap_block_first((call)->pass, (call)->x_steps[0]);                                                   \
    b.step < b.end;                                                                                                    \
    sap_block_next((call)->x_steps[0], &b)

/* 1 for the columns whose step counts, 0 for the others. */
static void find_counting(const sap_call *call, const sap_block *b, float *counting) {
    const int32_t *length = call->x_steps[0]->length;
    const uint8_t *mask = call->x_mask ? call->x_mask[0] : NULL;
    for (int t = 0; t < b->width; t++)
        counting[t] = b->step < length[t] && (!mask || mask[b->start + t]) ? 1 : 0;
}

/* 1 / the number of steps that count, of each column; 0 where none does: such a mean is 0. */
static void find_shares(const sap_call *call, float *share) {
    float counting[SAP_TILE];
    memset(share, 0, SAP_TILE * sizeof *share);
    for (EACH_STEP(call, b)) {
        find_counting(call, &b, counting);
        for (int t = 0; t < b.width; t++)
            share[t] += counting[t];
    }
    for (int t = 0; t < SAP_TILE; t++)
        share[t] = share[t] > 0 ? 1 / share[t] : 0;
}

static void average_forward(const sap_call *call) {
    int64_t values = call->x_shape[0]->dims[1];
    int width = call->pass->width;
    float counting[SAP_TILE], share[SAP_TILE], *restrict y = call->y;
    memset(y, 0, (size_t)(values * width) * sizeof *y);
    for (EACH_STEP(call, b)) {
        const float *restrict x = call->x[0] + b.start * values;
        find_counting(call, &b, counting);
        for (int64_t f = 0; f < values; f++)
            for (int t = 0; t < b.width; t++)
                y[f * width + t] += x[f * b.width + t] * counting[t];
    }
    find_shares(call, share);
    for (int64_t f = 0; f < values; f++)
        for (int t = 0; t < width; t++)
            y[f * width + t] *= share[t];
}

static void average_backward(const sap_call *call) {
    int64_t values = call->x_shape[0]->dims[1];
    int width = call->pass->width;
    float counting[SAP_TILE], share[SAP_TILE];
    find_shares(call, share);
    for (EACH_STEP(call, b)) {
        const float *restrict dy = call->dy;
        float *restrict dx = call->dx[0] + b.start * values;
        find_counting(call, &b, counting);
        for (int64_t f = 0; f < values; f++) {
            for (int t = 0; t < b.width; t++) {
                float d = dy[f * width + t] * share[t] * counting[t];
                dx[f * b.width + t] = call->add[0] ? dx[f * b.width + t] + d : d;
            }
        }
    }
}

const sap_layer_class sap_class_global_average_pooling_1d = {
    .name = "GlobalAveragePooling1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_NEVER,
    .mask = SAP_MASK_STOP,
    .parse = parse_global,
    .build = build_global,
    .forward = average_forward,
    .backward = average_backward,
};

/* Keras looks at masked steps too. */
static void max_forward(const sap_call *call) {
    int64_t values = call->x_shape[0]->dims[1];
    int width = call->pass->width;
    const int32_t *length = call->x_steps[0]->length;
    float *y = call->y;
    for (int64_t i = 0; i < values * width; i++)
        y[i] = length[i % width] > 0 ? -INFINITY : 0;
    for (EACH_STEP(call, b)) {
        const float *x = call->x[0] + b.start * values;
        for (int64_t f = 0; f < values; f++)
            for (int t = 0; t < b.width; t++)
                if (b.step < length[t] && !(x[f * b.width + t] <= y[f * width + t])) /* lets NaN through */
                    y[f * width + t] = x[f * b.width + t];
    }
}

static void max_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode,
                      sap_needs *out) {
    (void)layer;
    (void)x;
    if (mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE)
        out->work = sap_shape_values(y) * SAP_TILE;
}

/* Steps that are equally large share the gradient, as in TensorFlow. */
static void max_backward(const sap_call *call) {
    int64_t values = call->x_shape[0]->dims[1];
    int width = call->pass->width;
    const int32_t *length = call->x_steps[0]->length;
    const float *y = call->y;
    float *ties = call->work;
    memset(ties, 0, (size_t)(values * width) * sizeof *ties);
    for (EACH_STEP(call, b)) {
        const float *x = call->x[0] + b.start * values;
        for (int64_t f = 0; f < values; f++)
            for (int t = 0; t < b.width; t++)
                ties[f * width + t] += b.step < length[t] && x[f * b.width + t] == y[f * width + t] ? 1 : 0;
    }
    for (EACH_STEP(call, b)) {
        const float *x = call->x[0] + b.start * values;
        float *dx = call->dx[0] + b.start * values;
        for (int64_t f = 0; f < values; f++) {
            for (int t = 0; t < b.width; t++) {
                bool largest = b.step < length[t] && x[f * b.width + t] == y[f * width + t];
                float d = largest ? call->dy[f * width + t] / ties[f * width + t] : 0;
                dx[f * b.width + t] = call->add[0] ? dx[f * b.width + t] + d : d;
            }
        }
    }
}

const sap_layer_class sap_class_global_max_pooling_1d = {
    .name = "GlobalMaxPooling1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_global,
    .build = build_global,
    .needs = max_needs,
    .forward = max_forward,
    .backward = max_backward,
};

/* ---- In windows ----------------------------------------------------------------------------------------- */

static sap_status parse_windows(sap_layer *layer, const json_t *config, sap_error *err) {
    sap_window *window = sap_arena_array(layer->arena, 1, sizeof *window);
    if (!window)
        return sap_error_memory(err, layer->where);
    layer->settings = window;
    return sap_window_parse(layer, config, "pool_size", 0, window, err);
}

static sap_status build_windows(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    (void)count;
    (void)first;
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    *out = *inputs;
    return sap_window_count(layer, layer->settings, inputs->dims[0], &out->dims[0], err);
}

/* Input steps [*from, *end) of output step t. */
static void find_window(const sap_call *call, int64_t t, int64_t *from, int64_t *end) {
    const sap_window *w = call->layer->settings;
    int64_t steps = call->x_shape[0]->dims[0];
    *from = t * w->stride - sap_window_before(w, steps, call->shape->dims[0]);
    *end = *from + w->size < steps ? *from + w->size : steps;
    *from = *from > 0 ? *from : 0;
}

/* Zeros the gradient if it is not added to. */
static void start_gradient(const sap_call *call) {
    if (!call->add[0])
        memset(call->dx[0], 0, (size_t)(sap_shape_values(call->x_shape[0]) * call->pass->width) * sizeof(float));
}

/* The mean of the steps that are there. */
static void average_windows_forward(const sap_call *call) {
    int64_t numbers = call->shape->dims[1] * call->pass->width;
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        int64_t from, end;
        find_window(call, t, &from, &end);
        float *y = call->y + t * numbers, share = 1 / (float)(end - from);
        memset(y, 0, (size_t)numbers * sizeof *y);
        for (int64_t step = from; step < end; step++)
            call->pass->kernels->add(numbers, call->x[0] + step * numbers, y);
        for (int64_t i = 0; i < numbers; i++)
            y[i] *= share;
    }
}

static void average_windows_backward(const sap_call *call) {
    int64_t numbers = call->shape->dims[1] * call->pass->width;
    start_gradient(call);
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        int64_t from, end;
        find_window(call, t, &from, &end);
        float *dy = call->dy + t * numbers, share = 1 / (float)(end - from);
        for (int64_t i = 0; i < numbers; i++)
            dy[i] *= share;
        for (int64_t step = from; step < end; step++)
            call->pass->kernels->add(numbers, dy, call->dx[0] + step * numbers);
    }
}

const sap_layer_class sap_class_average_pooling_1d = {
    .name = "AveragePooling1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_windows,
    .build = build_windows,
    .forward = average_windows_forward,
    .backward = average_windows_backward,
};

static void max_windows_forward(const sap_call *call) {
    int64_t numbers = call->shape->dims[1] * call->pass->width;
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        int64_t from, end;
        find_window(call, t, &from, &end);
        float *y = call->y + t * numbers;
        memcpy(y, call->x[0] + from * numbers, (size_t)numbers * sizeof *y);
        for (int64_t step = from + 1; step < end; step++) {
            const float *x = call->x[0] + step * numbers;
            for (int64_t i = 0; i < numbers; i++)
                y[i] = x[i] <= y[i] ? y[i] : x[i]; /* lets NaN through */
        }
    }
}

/* The first of equally large steps gets the gradient, as in TensorFlow. */
static void max_windows_backward(const sap_call *call) {
    int64_t numbers = call->shape->dims[1] * call->pass->width;
    start_gradient(call);
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        int64_t from, end;
        find_window(call, t, &from, &end);
        const float *y = call->y + t * numbers;
        float *dy = call->dy + t * numbers;
        for (int64_t step = from; step < end; step++) {
            const float *x = call->x[0] + step * numbers;
            float *dx = call->dx[0] + step * numbers;
            for (int64_t i = 0; i < numbers; i++) {
                dx[i] += x[i] == y[i] ? dy[i] : 0;
                dy[i] = x[i] == y[i] ? 0 : dy[i];
            }
        }
    }
}

const sap_layer_class sap_class_max_pooling_1d = {
    .name = "MaxPooling1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_windows,
    .build = build_windows,
    .forward = max_windows_forward,
    .backward = max_windows_backward,
};
