/* Layers that disturb what passes in training, and pass it on otherwise: GaussianNoise, GaussianDropout, AlphaDropout,
 * SpatialDropout1D. The random numbers depend on seed, epoch, event, layer and place alone. */
#include "nn_internal.h"

#include <math.h>

typedef enum noise { GAUSSIAN_NOISE, GAUSSIAN_DROPOUT, ALPHA_DROPOUT, SPATIAL_DROPOUT } noise;

static noise noise_of(const sap_layer *layer) {
    static const char *const names[] = {"GaussianNoise", "GaussianDropout", "AlphaDropout", "SpatialDropout1D"};
    int found = 0;
    while (strcmp(names[found], layer->class_of->name) != 0)
        found++;
    return (noise)found;
}

static sap_status parse_noise(sap_layer *layer, const json_t *config, sap_error *err) {
    const char *key = noise_of(layer) == GAUSSIAN_NOISE ? "stddev" : "rate";
    layer->rate = sap_config_number(config, key, -1);
    if (!(layer->rate >= 0 && layer->rate <= 1))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a \"%s\" between 0 and 1", layer->where, key);
    if (noise_of(layer) == GAUSSIAN_DROPOUT && layer->rate == 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: a \"rate\" of 1 makes infinite noise", layer->where);
    const json_t *shape = json_object_get(config, "noise_shape");
    if (shape && !json_is_null(shape))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a \"noise_shape\"", layer->where);
    return SAP_OK;
}

static sap_status build_noise(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                              sap_error *err) {
    if (noise_of(layer) == SPATIAL_DROPOUT && inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    return sap_build_same(layer, inputs, count, first, out, err);
}

/* A normally distributed number, from two uniform ones (Box and Muller). */
static float normal(uint32_t a, uint32_t b, uint32_t value) {
    uint32_t u = sap_dropout_bits(a, b, value), v = sap_dropout_bits(b, ~a, value);
    return sqrtf(-2 * logf(((float)(u >> 8) + 0.5F) * 0x1p-24F)) * cosf(6.28318531F * 0x1p-32F * (float)v);
}

/* What becomes of a number: y = scale x + shift. */
static void disturb(const sap_layer *layer, noise kind, uint32_t a, uint32_t b, uint32_t value, float *scale,
                    float *shift) {
    float rate = (float)layer->rate;
    bool kept = (double)sap_dropout_bits(a, b, value) >= layer->rate * 0x1p32;
    *scale = 1;
    *shift = 0;
    switch (kind) {
    case GAUSSIAN_NOISE:
        *shift = rate * normal(a, b, value);
        break;
    case GAUSSIAN_DROPOUT:
        *scale = 1 + sqrtf(rate / (1 - rate)) * normal(a, b, value);
        break;
    case ALPHA_DROPOUT: { /* dropped numbers become what selu gives far out; mean and variance stay */
        float out = -1.67326324F * 1.05070099F, factor = 1 / sqrtf((1 - rate) * (1 + rate * out * out));
        *scale = rate < 1 && kept ? factor : 0;
        *shift = rate < 1 ? factor * ((kept ? 0 : out) - out * rate) : 0;
        break;
    }
    case SPATIAL_DROPOUT:
        *scale = kept ? 1 / (1 - rate) : 0;
        break;
    }
}

/* y (= or +=) x, disturbed in training; a gradient passes without the shift. */
static void pass_disturbed(const sap_call *call, const float *x, float *y, bool add, bool gradient) {
    const sap_layer *layer = call->layer;
    noise kind = noise_of(layer);
    int64_t values = sap_shape_step_values(call->shape);
    if (!call->pass->training || layer->rate == 0) {
        sap_pass_on(call, add, x, y, values * sap_call_columns(call));
        return;
    }
    uint64_t keys[SAP_TILE];
    for (int t = 0; t < SAP_TILE; t++)
        keys[t] = sap_mix(call->pass->event_keys[t], call->key);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        for (int64_t v = 0, at = b.start * values; v < values; v++, at += b.width) {
            uint32_t value = (uint32_t)(kind == SPATIAL_DROPOUT ? v : b.step * values + v); /* of all steps the same */
            for (int t = 0; t < b.width; t++) {
                float scale, shift;
                disturb(layer, kind, (uint32_t)keys[t], (uint32_t)(keys[t] >> 32), value, &scale, &shift);
                y[at + t] = (add ? y[at + t] : 0) + x[at + t] * scale + (gradient ? 0 : shift);
            }
        }
    }
}

static void noise_forward(const sap_call *call) {
    pass_disturbed(call, call->x[0], call->y, false, false);
}

static void noise_backward(const sap_call *call) {
    if (call->dx[0])
        pass_disturbed(call, call->dy, call->dx[0], call->add[0], true);
}

#define NOISE(symbol, keras)                                                                                           \
    const sap_layer_class symbol = {                                                                                   \
        .name = keras,                                                                                                 \
        .inputs_least = 1,                                                                                             \
        .inputs_most = 1,                                                                                              \
        .padding = SAP_PADDING_STEPWISE,                                                                               \
        .mask = SAP_MASK_PASS,                                                                                         \
        .parse = parse_noise,                                                                                          \
        .build = build_noise,                                                                                          \
        .forward = noise_forward,                                                                                      \
        .backward = noise_backward,                                                                                    \
    }

NOISE(sap_class_gaussian_noise, "GaussianNoise");
NOISE(sap_class_gaussian_dropout, "GaussianDropout");
NOISE(sap_class_alpha_dropout, "AlphaDropout");
NOISE(sap_class_spatial_dropout_1d, "SpatialDropout1D");
