/* Settings and sizes of sliding windows. */
#include "window.h"

/* A number, or a list of one. */
static sap_status read_one(const sap_layer *layer, const json_t *config, const char *key, int64_t standard,
                           int64_t *out, sap_error *err) {
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    *out = standard;
    if ((!value || json_is_null(value)) && standard > 0)
        return SAP_OK;
    *out = json_is_integer(value) ? json_integer_value(value) : 0;
    if (*out < 1 || *out > SAP_TENSOR_MOST)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a positive \"%s\"", layer->where, key);
    return SAP_OK;
}

sap_status sap_window_parse(const sap_layer *layer, const json_t *config, const char *size_key, int64_t stride,
                            sap_window *out, sap_error *err) {
    static const char *const names[] = {"valid", "same", "causal"};
    SAP_TRY(read_one(layer, config, size_key, 0, &out->size, err));
    SAP_TRY(read_one(layer, config, "strides", stride ? stride : out->size, &out->stride, err));
    SAP_TRY(read_one(layer, config, "dilation_rate", 1, &out->dilation, err));
    const char *padding = json_string_value(json_object_get(config, "padding"));
    int found = 0;
    while (padding && found < 3 && strcmp(padding, names[found]) != 0)
        found++;
    if (found == 3)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: padding \"%.100s\"", layer->where, padding);
    out->padding = (sap_window_padding)found;
    const char *format = json_string_value(json_object_get(config, "data_format"));
    if (format && strcmp(format, "channels_last") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: data_format \"%.100s\"", layer->where, format);
    return SAP_OK;
}

sap_status sap_window_count(const sap_layer *layer, const sap_window *w, int64_t steps, int64_t *out, sap_error *err) {
    if (steps < 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: on a sequence of unknown length", layer->where);
    int64_t span = (w->size - 1) * w->dilation + 1;
    *out = w->padding == SAP_WINDOW_VALID ? (steps - span) / w->stride + 1 : (steps + w->stride - 1) / w->stride;
    if (w->padding == SAP_WINDOW_VALID && steps < span)
        return sap_error_set(err, SAP_EFORMAT, "%s: its window of %lld steps does not fit into %lld", layer->where,
                             (long long)span, (long long)steps);
    return SAP_OK;
}
