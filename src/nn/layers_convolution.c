/* Conv1D. The steps that a window looks at stand together in a tile (without dilation), so that a window is one product. */
#include "window.h"

typedef struct convolution_settings {
    sap_window window;
    int64_t filters;
} convolution_settings;

static sap_status parse_convolution(sap_layer *layer, const json_t *config, sap_error *err) {
    convolution_settings *s = sap_arena_array(layer->arena, 1, sizeof *s);
    if (!s)
        return sap_error_memory(err, layer->where);
    layer->settings = s;
    SAP_TRY(sap_config_integer(layer, config, "filters", 1, SAP_TENSOR_MOST, &s->filters, err));
    SAP_TRY(sap_window_parse(layer, config, "kernel_size", 1, &s->window, err));
    if (sap_config_number(config, "groups", 1) != 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: in several groups", layer->where);
    layer->use_bias = sap_config_flag(config, "use_bias", true);
    SAP_TRY(sap_activation_parse(json_object_get(config, "activation"), layer->where, &layer->activation, err));
    SAP_TRY(sap_initializer_parse(json_object_get(config, "kernel_initializer"), "glorot_uniform", layer->where,
                                  &layer->initializers[0], err));
    return sap_initializer_parse(json_object_get(config, "bias_initializer"), "zeros", layer->where,
                                 &layer->initializers[1], err);
}

static sap_status build_convolution(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                    sap_shape *out, sap_error *err) {
    (void)count;
    const convolution_settings *s = layer->settings;
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    int64_t in = inputs->dims[1], steps;
    SAP_TRY(sap_window_count(layer, &s->window, inputs->dims[0], &steps, err));
    if (s->window.size > SAP_PARAMETERS_MOST / in / s->filters)
        return sap_error_set(err, SAP_EFORMAT, "%s: too many parameters", layer->where);
    if (first) {
        sap_layer_add_weight(layer, "kernel", &(sap_shape){3, {s->window.size, in, s->filters}},
                             &layer->initializers[0], true);
        if (layer->use_bias)
            sap_layer_add_weight(layer, "bias", &(sap_shape){1, {s->filters}}, &layer->initializers[1], true);
    } else if (layer->weights[0].shape.dims[1] != in) {
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different widths", layer->where);
    }
    *out = (sap_shape){2, {steps, s->filters}};
    return SAP_OK;
}

static void convolution_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode,
                              sap_needs *out) {
    (void)x;
    (void)mode;
    if (sap_activation_needs_input(layer->activation.kind))
        out->kept = sap_shape_values(y) * SAP_TILE;
}

/* Neighbouring steps of a window that are there: `count` from `step` on, at the kernel's place `place`. */
typedef struct run {
    int64_t step, place, count;
} run;

/* The next run of the window of output step t; the first behind {0}. */
static bool next_run(const sap_call *call, int64_t t, run *r) {
    const convolution_settings *s = call->layer->settings;
    const sap_window *w = &s->window;
    int64_t steps = call->x_shape[0]->dims[0];
    int64_t first = t * w->stride - sap_window_before(w, steps, call->shape->dims[0]);
    int64_t k = r->place + r->count, end = w->size;
    while (k < end && first + k * w->dilation < 0)
        k++;
    while (end > k && first + (end - 1) * w->dilation >= steps)
        end--;
    if (k == end)
        return false;
    *r = (run){first + k * w->dilation, k, w->dilation == 1 ? end - k : 1};
    return true;
}

static void multiply(const sap_call *call, int64_t t, const run *r, bool add, float *z) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = call->x_shape[0]->dims[1], out = call->shape->dims[1];
    pass->kernels->product(&(sap_product){
        .rows = out,
        .depth = r->count * in,
        .w = pass->values + layer->weights[0].offset + r->place * in * out,
        .row_step = 1,
        .depth_step = out,
        .width = pass->width,
        .x = call->x[0] + r->step * in * pass->width,
        .y = z + t * out * pass->width,
        .bias = layer->use_bias && !add ? pass->values + layer->weights[1].offset : NULL,
        .add = add,
    });
}

static void convolution_forward(const sap_call *call) {
    float *z = call->kept ? call->kept : call->y;
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        run r = {0};
        bool more = next_run(call, t, &r); /* a window may see nothing: then there is the bias alone */
        multiply(call, t, &r, false, z);
        while (more && next_run(call, t, &r))
            multiply(call, t, &r, true, z);
    }
    sap_activate(call, z, call->y);
}

static void multiply_backward(const sap_call *call, int64_t t, const run *r, bool bias) {
    const sap_layer *layer = call->layer;
    const sap_pass *pass = call->pass;
    int64_t in = call->x_shape[0]->dims[1], out = call->shape->dims[1], depth = r->count * in;
    int64_t x = r->step * in * pass->width, w = layer->weights[0].offset + r->place * in * out;
    const float *d = call->dy + t * out * pass->width;
    if (layer->trainable)
        pass->kernels->outer(depth, out, pass->width, call->x[0] + x, d, pass->gradients + w,
                             bias && layer->use_bias ? pass->gradients + layer->weights[1].offset : NULL);
    if (call->dx[0] && depth > 0)
        pass->kernels->product(&(sap_product){
            .rows = depth,
            .depth = out,
            .w = pass->values + w,
            .row_step = out,
            .depth_step = 1,
            .width = pass->width,
            .x = d,
            .y = call->dx[0] + x,
            .add = true,
        });
}

static void convolution_backward(const sap_call *call) {
    sap_activate_backward(call, call->kept);
    if (call->dx[0] && !call->add[0])
        memset(call->dx[0], 0, (size_t)(sap_shape_values(call->x_shape[0]) * call->pass->width) * sizeof(float));
    for (int64_t t = 0; t < call->shape->dims[0]; t++) {
        run r = {0};
        bool more = next_run(call, t, &r);
        multiply_backward(call, t, &r, true);
        while (more && next_run(call, t, &r))
            multiply_backward(call, t, &r, false);
    }
}

const sap_layer_class sap_class_conv1d = {
    .name = "Conv1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_convolution,
    .build = build_convolution,
    .needs = convolution_needs,
    .forward = convolution_forward,
    .backward = convolution_backward,
};
