/* Layers that give the same numbers another shape or a mask: Flatten, Reshape, Masking. */
#include "nn_internal.h"

static sap_status check_length(const sap_layer *layer, const sap_shape *x, sap_error *err) {
    return x->rank && x->dims[0] < 0
               ? sap_error_set(err, SAP_EUNSUPPORTED, "%s: its input is a sequence of unknown length", layer->where)
               : SAP_OK;
}

static sap_status build_flatten(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    (void)count;
    (void)first;
    SAP_TRY(check_length(layer, inputs, err));
    *out = (sap_shape){1, {sap_shape_values(inputs)}};
    return SAP_OK;
}

static sap_status parse_reshape(sap_layer *layer, const json_t *config, sap_error *err) {
    return sap_config_shape(layer, json_object_get(config, "target_shape"), 0, &layer->target, err);
}

static sap_status build_reshape(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    (void)count;
    (void)first;
    SAP_TRY(check_length(layer, inputs, err));
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

const sap_layer_class sap_class_flatten = {
    .name = "Flatten",
    .inputs_least = 1,
    .inputs_most = 1,
    .view = true,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .build = build_flatten,
};

const sap_layer_class sap_class_reshape = {
    .name = "Reshape",
    .inputs_least = 1,
    .inputs_most = 1,
    .view = true,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_reshape,
    .build = build_reshape,
};

/* ---- Masking -------------------------------------------------------------------------------------------- */

float sap_masking_value(const sap_layer *layer) {
    return *(const float *)layer->settings;
}

static sap_status parse_masking(sap_layer *layer, const json_t *config, sap_error *err) {
    float *value = sap_arena_array(layer->arena, 1, sizeof *value);
    if (!value)
        return sap_error_memory(err, layer->where);
    const json_t *given = json_object_get(config, "mask_value");
    if (given && !json_is_number(given))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: a \"mask_value\" that is not a number", layer->where);
    *value = (float)sap_config_number(config, "mask_value", 0);
    layer->settings = value;
    return SAP_OK;
}

static sap_status build_masking(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: its input is not (time, values)", layer->where);
    return sap_build_same(layer, inputs, count, first, out, err);
}

/* y (= or +=) x where the mask counts, 0 elsewhere. */
static void take_masked(const sap_call *call, const float *x, float *y, bool add) {
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        const uint8_t *mask = call->y_mask + b.start;
        for (int64_t v = 0, at = b.start * values; v < values; v++, at += b.width)
            for (int t = 0; t < b.width; t++)
                y[at + t] = (add ? y[at + t] : 0) + (mask[t] ? x[at + t] : 0);
    }
}

static void masking_forward(const sap_call *call) {
    take_masked(call, call->x[0], call->y, false);
}

static void masking_backward(const sap_call *call) {
    if (call->dx[0])
        take_masked(call, call->dy, call->dx[0], call->add[0]);
}

const sap_layer_class sap_class_masking = {
    .name = "Masking",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_MAKE,
    .parse = parse_masking,
    .build = build_masking,
    .forward = masking_forward,
    .backward = masking_backward,
};
