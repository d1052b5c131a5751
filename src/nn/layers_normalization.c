/* BatchNormalization, with its moving statistics. */
#include "nn_internal.h"
#include "normalization.h"

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
    layer->momentum = sap_config_number(config, "momentum", 0.99);
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

/* The weights of a layer, and its sums: their places in call->sums, C of each but the first. */
typedef struct parts {
    const sap_layer_weight *gamma, *beta; /* NULL: there is none */
    const sap_layer_weight *mean, *variance;
    int64_t width; /* C */
} parts;

enum { COUNT, SUMS = 1 }; /* then C squares, C sums of dy, C products of dy and x - mean */

/* Steps that count; with none all sums are 0, and so are mean and variance, as Keras has it. */
static double count_of(const double *sums) {
    return sums[COUNT] > 0 ? sums[COUNT] : 1;
}

static parts parts_of(const sap_layer *layer) {
    const sap_layer_weight *weight = layer->weights;
    parts p = {0};
    p.gamma = layer->scale ? weight++ : NULL;
    p.beta = layer->center ? weight++ : NULL;
    p.mean = weight++;
    p.variance = weight;
    p.width = p.mean->shape.dims[0];
    return p;
}

static void batch_normalization_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y,
                                      sap_mode mode, sap_needs *out) {
    (void)layer;
    (void)x;
    if (mode != SAP_PREDICT)
        out->work = 7 * sap_shape_last(y) + 16; /* three of float, two of double */
    out->kept = 4 * sap_shape_last(y);
}

/* mean and inverse: (C) the statistics that y is made with, inverse the inverse of the deviation. */
static void find_statistics(const sap_call *call, float *mean, float *inverse) {
    parts p = parts_of(call->layer);
    const float *moving_mean = call->pass->values + p.mean->offset;
    const float *moving_variance = call->pass->values + p.variance->offset;
    double epsilon = call->layer->epsilon, count = call->sums ? count_of(call->sums) : 1;
    for (int64_t i = 0; i < p.width; i++) {
        double variance = call->sums ? call->sums[SUMS + p.width + i] / count : (double)moving_variance[i];
        mean[i] = call->sums ? (float)(call->sums[SUMS + i] / count) : moving_mean[i];
        inverse[i] = (float)(1 / sqrt(variance + epsilon));
    }
}

/* Keeps mean, inverse deviation, scale and shift. */
static void batch_normalization_forward(const sap_call *call) {
    parts p = parts_of(call->layer);
    const float *gamma = p.gamma ? call->pass->values + p.gamma->offset : NULL;
    const float *beta = p.beta ? call->pass->values + p.beta->offset : NULL;
    float *mean = call->kept, *inverse = mean + p.width, *scale = inverse + p.width, *shift = scale + p.width;
    find_statistics(call, mean, inverse);
    for (int64_t i = 0; i < p.width; i++) {
        scale[i] = (gamma ? gamma[i] : 1) * inverse[i];
        shift[i] = (beta ? beta[i] : 0) - mean[i] * scale[i];
    }
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b))
        for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += p.width * b.width)
            call->pass->kernels->affine(p.width, b.width, scale, shift, call->x[0] + at, call->y + at, false);
}

/* 1 for the columns of a block whose rows take part and are not masked, and how many there are. */
static int find_counts(const sap_call *call, const sap_block *b, float *counts) {
    int sum = 0;
    for (int t = 0; t < b->width; t++) {
        bool part = call->y_steps ? b->step < call->y_steps->length[t] : t < call->pass->rows;
        part = part && !(call->x_mask[0] && !call->x_mask[0][b->start + t]);
        counts[t] = part ? 1 : 0;
        sum += part;
    }
    return sum;
}

typedef void (*kernel)(const sap_batch_normalization *part);

/* Calls the kernel on every place of every step. Returns how many there are in the columns that count. */
static double each_place(const sap_call *call, kernel run, sap_batch_normalization part) {
    int64_t values = sap_shape_step_values(call->shape);
    float counts[SAP_TILE];
    double count = 0;
    part.counts = counts;
    part.rows = sap_shape_last(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        count += find_counts(call, &b, counts);
        part.width = b.width;
        for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += part.rows * b.width) {
            part.x = call->x[0] + at;
            part.dy = call->dy ? call->dy + at : NULL;
            part.dx = call->dx[0] ? call->dx[0] + at : NULL;
            run(&part);
        }
    }
    return count * (double)(values / part.rows);
}

static int64_t batch_sums_count(const sap_layer *layer, const sap_shape *x) {
    (void)layer;
    return 1 + 4 * sap_shape_last(x);
}

/* Count and sums; squares of the deviations from the mean; sums of dy and of its products with the deviations. */
static void add_batch_sums(const sap_call *call, int round, double *own) {
    const sap_normalization_kernels *kernels = call->pass->kernels->normalization;
    int64_t width = sap_shape_last(call->shape);
    float *mean = call->kept;
    if (round == 0) {
        own[COUNT] = each_place(call, kernels->sums, (sap_batch_normalization){.sums = own + SUMS});
    } else if (round == 1) {
        for (int64_t i = 0; i < width; i++)
            mean[i] = (float)(call->sums[SUMS + i] / count_of(call->sums));
        (void)each_place(call, kernels->sums, (sap_batch_normalization){.mean = mean, .sums = own + SUMS + width});
    } else {
        (void)each_place(call, kernels->products,
                         (sap_batch_normalization){
                             .mean = mean, .sums = own + SUMS + 2 * width, .products = own + SUMS + 3 * width});
    }
}

/* As Keras does, with the variance of the batch itself rather than an estimate of that behind it. */
static void learn_moving_statistics(const sap_layer *layer, const double *sums, float *values) {
    parts p = parts_of(layer);
    float *mean = values + p.mean->offset, *variance = values + p.variance->offset;
    double m = layer->momentum, count = count_of(sums);
    for (int64_t i = 0; i < p.width; i++) {
        mean[i] = (float)((double)mean[i] * m + sums[SUMS + i] / count * (1 - m));
        variance[i] = (float)((double)variance[i] * m + sums[SUMS + p.width + i] / count * (1 - m));
    }
}

/* With fixed statistics dx = scale dy; with those of the batch, mean and variance depend on every x. */
static void batch_normalization_backward(const sap_call *call) {
    parts p = parts_of(call->layer);
    const float *mean = call->kept, *inverse = mean + p.width, *scale = inverse + p.width;
    double *sums = (double *)(void *)call->work, *products = sums + p.width;
    float *shift = (float *)(products + p.width), *slope = shift + p.width;
    const sap_normalization_kernels *kernels = call->pass->kernels->normalization;
    if (call->own) {
        memcpy(sums, call->own + SUMS + 2 * p.width, (size_t)(2 * p.width) * sizeof *sums);
    } else {
        memset(sums, 0, (size_t)(2 * p.width) * sizeof *sums);
        (void)each_place(call, kernels->products,
                         (sap_batch_normalization){.mean = mean, .sums = sums, .products = products});
    }
    for (int64_t i = 0; call->layer->trainable && i < p.width; i++) {
        if (p.gamma)
            call->pass->gradients[p.gamma->offset + i] += (float)(products[i] * (double)inverse[i]);
        if (p.beta)
            call->pass->gradients[p.beta->offset + i] += (float)sums[i];
    }
    if (!call->dx[0])
        return;
    for (int64_t i = 0; i < p.width; i++) {
        double count = call->sums ? count_of(call->sums) : 1, square = (double)inverse[i] * (double)inverse[i];
        shift[i] = call->sums ? (float)((double)scale[i] * call->sums[SUMS + 2 * p.width + i] / count) : 0;
        slope[i] = call->sums ? (float)((double)scale[i] * square * call->sums[SUMS + 3 * p.width + i] / count) : 0;
    }
    (void)each_place(
        call, kernels->recenter,
        (sap_batch_normalization){.mean = mean, .scale = scale, .shift = shift, .slope = slope, .add = call->add[0]});
}

static const sap_whole_batch batch_statistics = {
    .count = batch_sums_count,
    .rounds = 3,
    .add = add_batch_sums,
    .learn = learn_moving_statistics,
};

const sap_layer_class sap_class_batch_normalization = {
    .name = "BatchNormalization",
    .inputs_least = 1,
    .inputs_most = 1,
    .whole = &batch_statistics,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_batch_normalization,
    .build = build_batch_normalization,
    .needs = batch_normalization_needs,
    .forward = batch_normalization_forward,
    .backward = batch_normalization_backward,
};
