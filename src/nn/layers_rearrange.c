/* Layers that put the numbers of an event elsewhere: Permute, RepeatVector, Cropping1D, ZeroPadding1D. */
#include "nn_internal.h"

/* Tensors here are not ragged: value v stands at [v * width], all steps together. For each value of the output, the value
 * of the input that it is, or -1 for a zero. */
typedef struct rearrangement {
    int32_t order[SAP_RANK]; /* Permute: input dimension of each of the output */
    int32_t rank;
    int64_t repeats;       /* RepeatVector */
    int64_t before, after; /* steps: Cropping1D leaves them out, ZeroPadding1D adds them */
} rearrangement;

static sap_status make_settings(sap_layer *layer, rearrangement **out, sap_error *err) {
    *out = layer->settings = sap_arena_array(layer->arena, 1, sizeof **out);
    return *out ? SAP_OK : sap_error_memory(err, layer->where);
}

static sap_status check_steps(const sap_layer *layer, const sap_shape *x, sap_error *err) {
    return x->rank > 1 && x->dims[0] < 0
               ? sap_error_set(err, SAP_EUNSUPPORTED, "%s: on a sequence of unknown length", layer->where)
               : SAP_OK;
}

static void move(const sap_call *call, int64_t (*source)(const sap_call *call, int64_t value), bool backward) {
    int width = call->pass->width;
    if (backward && !call->dx[0])
        return;
    if (backward && !call->add[0])
        memset(call->dx[0], 0, (size_t)(sap_shape_values(call->x_shape[0]) * width) * sizeof(float));
    for (int64_t v = 0; v < sap_shape_values(call->shape); v++) {
        int64_t from = source(call, v);
        if (backward && from >= 0)
            call->pass->kernels->add(width, call->dy + v * width, call->dx[0] + from * width);
        else if (!backward && from >= 0)
            memcpy(call->y + v * width, call->x[0] + from * width, (size_t)width * sizeof(float));
        else if (!backward)
            memset(call->y + v * width, 0, (size_t)width * sizeof(float));
    }
}

#define REARRANGEMENT(symbol, keras, parse_, build_, source)                                                           \
    static void source##_forward(const sap_call *call) {                                                               \
        move(call, source, false);                                                                                     \
    }                                                                                                                  \
    static void source##_backward(const sap_call *call) {                                                              \
        move(call, source, true);                                                                                      \
    }                                                                                                                  \
    const sap_layer_class symbol = {                                                                                   \
        .name = keras,                                                                                                 \
        .inputs_least = 1,                                                                                             \
        .inputs_most = 1,                                                                                              \
        .padding = SAP_PADDING_ALWAYS,                                                                                 \
        .mask = SAP_MASK_STOP,                                                                                         \
        .parse = parse_,                                                                                               \
        .build = build_,                                                                                               \
        .forward = source##_forward,                                                                                   \
        .backward = source##_backward,                                                                                 \
    }

/* ---- Permute -------------------------------------------------------------------------------------------- */

static sap_status parse_permute(sap_layer *layer, const json_t *config, sap_error *err) {
    rearrangement *r;
    SAP_TRY(make_settings(layer, &r, err));
    const json_t *dims = json_object_get(config, "dims");
    uint32_t seen = 0;
    r->rank = (int32_t)json_array_size(dims);
    for (int32_t i = 0; i < r->rank && r->rank <= SAP_RANK; i++) {
        int64_t dim = json_integer_value(json_array_get(dims, (size_t)i));
        r->order[i] = dim >= 1 && dim <= r->rank ? (int32_t)dim - 1 : 0;
        seen |= 1U << r->order[i];
    }
    if (r->rank < 1 || r->rank > SAP_RANK || seen != (1U << r->rank) - 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: \"dims\" is no order of dimensions", layer->where);
    return SAP_OK;
}

static sap_status build_permute(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                sap_error *err) {
    const rearrangement *r = layer->settings;
    (void)count;
    (void)first;
    SAP_TRY(check_steps(layer, inputs, err));
    if (inputs->rank != r->rank)
        return sap_error_set(err, SAP_EFORMAT, "%s: orders %d dimensions, its input has %d", layer->where, r->rank,
                             inputs->rank);
    out->rank = r->rank;
    for (int32_t i = 0; i < r->rank; i++)
        out->dims[i] = inputs->dims[r->order[i]];
    return SAP_OK;
}

static int64_t permuted(const sap_call *call, int64_t value) {
    const rearrangement *r = call->layer->settings;
    int64_t stride[SAP_RANK], from = 0;
    for (int32_t d = r->rank - 1; d >= 0; d--)
        stride[d] = d == r->rank - 1 ? 1 : stride[d + 1] * call->x_shape[0]->dims[d + 1];
    for (int32_t d = r->rank - 1; d >= 0; d--) {
        from += value % call->shape->dims[d] * stride[r->order[d]];
        value /= call->shape->dims[d];
    }
    return from;
}

REARRANGEMENT(sap_class_permute, "Permute", parse_permute, build_permute, permuted);

/* ---- RepeatVector --------------------------------------------------------------------------------------- */

static sap_status parse_repeat(sap_layer *layer, const json_t *config, sap_error *err) {
    rearrangement *r;
    SAP_TRY(make_settings(layer, &r, err));
    return sap_config_integer(layer, config, "n", 1, SAP_TENSOR_MOST, &r->repeats, err);
}

static sap_status build_repeat(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                               sap_error *err) {
    (void)count;
    (void)first;
    if (inputs->rank != 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is no vector", layer->where);
    *out = (sap_shape){2, {((const rearrangement *)layer->settings)->repeats, inputs->dims[0]}};
    return SAP_OK;
}

static int64_t repeated(const sap_call *call, int64_t value) {
    return value % call->x_shape[0]->dims[0];
}

REARRANGEMENT(sap_class_repeat_vector, "RepeatVector", parse_repeat, build_repeat, repeated);

/* ---- Cropping1D, ZeroPadding1D -------------------------------------------------------------------------- */

/* One number for both ends, or two. */
static sap_status parse_ends(sap_layer *layer, const json_t *config, sap_error *err) {
    rearrangement *r;
    SAP_TRY(make_settings(layer, &r, err));
    const char *key = strcmp(layer->class_of->name, "Cropping1D") == 0 ? "cropping" : "padding";
    const json_t *ends = json_object_get(config, key);
    const json_t *format = json_object_get(config, "data_format");
    bool two = json_is_array(ends) && json_array_size(ends) == 2;
    const json_t *before = two ? json_array_get(ends, 0) : ends, *after = two ? json_array_get(ends, 1) : ends;
    if (!json_is_integer(before) || !json_is_integer(after) || json_integer_value(before) < 0 ||
        json_integer_value(after) < 0 || json_integer_value(before) > SAP_TENSOR_MOST ||
        json_integer_value(after) > SAP_TENSOR_MOST)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs \"%s\", a number of steps or two", layer->where, key);
    if (json_is_string(format) && strcmp(json_string_value(format), "channels_last") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: data_format \"%.100s\"", layer->where,
                             json_string_value(format));
    int64_t sign = strcmp(key, "cropping") == 0 ? -1 : 1;
    r->before = sign * json_integer_value(before);
    r->after = sign * json_integer_value(after);
    return SAP_OK;
}

static sap_status build_ends(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                             sap_error *err) {
    const rearrangement *r = layer->settings;
    (void)count;
    (void)first;
    SAP_TRY(check_steps(layer, inputs, err));
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    *out = (sap_shape){2, {inputs->dims[0] + r->before + r->after, inputs->dims[1]}};
    if (out->dims[0] < 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: crops all %lld steps", layer->where, (long long)inputs->dims[0]);
    return SAP_OK;
}

static int64_t shifted(const sap_call *call, int64_t value) {
    const rearrangement *r = call->layer->settings;
    int64_t from = value - r->before * call->shape->dims[1];
    return from >= 0 && from < sap_shape_values(call->x_shape[0]) ? from : -1;
}

REARRANGEMENT(sap_class_cropping_1d, "Cropping1D", parse_ends, build_ends, shifted);

const sap_layer_class sap_class_zero_padding_1d = {
    .name = "ZeroPadding1D",
    .inputs_least = 1,
    .inputs_most = 1,
    .padding = SAP_PADDING_ALWAYS,
    .mask = SAP_MASK_STOP,
    .parse = parse_ends,
    .build = build_ends,
    .forward = shifted_forward,
    .backward = shifted_backward,
};

/* ---- What others are told ------------------------------------------------------------------------------- */

int64_t sap_rearranged_from(const sap_layer *layer, const sap_shape *x, const sap_shape *y, int64_t value) {
    static const struct {
        const sap_layer_class *class_of;
        int64_t (*source)(const sap_call *call, int64_t value);
    } sources[] = {{&sap_class_permute, permuted},
                   {&sap_class_repeat_vector, repeated},
                   {&sap_class_cropping_1d, shifted},
                   {&sap_class_zero_padding_1d, shifted}};
    const sap_call call = {.layer = layer, .x_shape = &x, .shape = y};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (sources[i].class_of == layer->class_of)
            return sources[i].source(&call, value);
    return -1;
}
