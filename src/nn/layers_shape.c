/* Layers that give the same numbers another shape: Flatten, Reshape. */
#include "nn_internal.h"

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
    return sap_config_shape(layer, json_object_get(config, "target_shape"), 0, &layer->target, err);
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
