/* Layers that make one tensor of several: Concatenate, Add. */
#include "nn_internal.h"

static sap_status parse_concatenate(sap_layer *layer, const json_t *config, sap_error *err) {
    if (!json_object_get(config, "axis")) {
        layer->axis = -1;
        return SAP_OK;
    }
    return sap_config_integer(layer, config, "axis", -SAP_RANK - 1, SAP_RANK, &layer->axis, err);
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
    if (axis == 0 && out->rank > 1)
        layer->padding = SAP_PADDING_ALWAYS; /* one sequence after the other */
    for (int32_t i = 0; axis == 0 && out->rank > 1 && i < count; i++)
        if (inputs[i].rank > 0 && inputs[i].dims[0] < 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: puts sequences of unknown length after one another",
                                 layer->where);
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

/* Copies runs of numbers that stand together, from input i to the output or back. */
static void copy_run(const sap_call *call, bool backward, int32_t i, int64_t from, int64_t to, int64_t count) {
    if (!backward)
        memcpy(call->y + to, call->x[i] + from, (size_t)count * sizeof(float));
    else if (call->dx[i])
        sap_pass_on(call, call->add[i], call->dy + to, call->dx[i] + from, count);
}

/* One sequence after the other; none is ragged. */
static void concatenate_steps(const sap_call *call, bool backward) {
    int64_t values = sap_shape_step_values(call->shape), place = 0;
    for (int32_t i = 0; i < call->input_count; i++) {
        int64_t columns = sap_steps_columns(call->x_steps[i]);
        copy_run(call, backward, i, 0, place * values, columns * values);
        if (call->y_mask && call->x_mask[i])
            memcpy(call->y_mask + place, call->x_mask[i], (size_t)columns);
        else if (call->y_mask)
            memset(call->y_mask + place, 1, (size_t)columns);
        place += columns;
    }
}

/* Along an axis within the steps, or the only one. */
static void concatenate_within(const sap_call *call, bool backward, int32_t axis) {
    int64_t outer = 1, whole = sap_shape_step_values(call->shape), place = 0;
    for (int32_t d = call->shape->rank > 1; d < axis; d++)
        outer *= call->shape->dims[d];
    for (int32_t i = 0; i < call->input_count; i++) {
        int64_t values = sap_shape_step_values(call->x_shape[i]), run = values / outer;
        for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end;
             sap_block_next(call->y_steps, &b))
            for (int64_t o = 0; o < outer; o++)
                copy_run(call, backward, i, b.start * values + o * run * b.width,
                         b.start * whole + (o * whole / outer + place) * b.width, run * b.width);
        place += run;
    }
}

static void concatenate(const sap_call *call, bool backward) {
    int32_t axis = axis_of(call->layer, call->shape->rank);
    if (axis == 0 && call->shape->rank > 1)
        concatenate_steps(call, backward);
    else
        concatenate_within(call, backward, axis);
}

static void concatenate_forward(const sap_call *call) {
    concatenate(call, false);
}

static void concatenate_backward(const sap_call *call) {
    concatenate(call, true);
}

const sap_layer_class sap_class_concatenate = {
    .name = "Concatenate",
    .inputs_least = 1,
    .inputs_most = SAP_LAYERS_MOST,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .parse = parse_concatenate,
    .build = build_concatenate,
    .forward = concatenate_forward,
    .backward = concatenate_backward,
};

static sap_status build_add(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                            sap_error *err) {
    for (int32_t i = 1; i < count; i++)
        if (inputs[i].rank != inputs[0].rank ||
            memcmp(inputs[i].dims, inputs[0].dims, (size_t)inputs[0].rank * sizeof *inputs[0].dims) != 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs of different shapes", layer->where);
    return sap_build_same(layer, inputs, count, first, out, err);
}

static void add_forward(const sap_call *call) {
    for (int32_t i = 0; i < call->input_count; i++)
        sap_pass_on(call, i > 0, call->x[i], call->y, sap_shape_step_values(call->shape) * sap_call_columns(call));
}

static void add_backward(const sap_call *call) {
    for (int32_t i = 0; i < call->input_count; i++)
        if (call->dx[i])
            sap_pass_on(call, call->add[i], call->dy, call->dx[i],
                        sap_shape_step_values(call->shape) * sap_call_columns(call));
}

const sap_layer_class sap_class_add = {
    .name = "Add",
    .inputs_least = 1,
    .inputs_most = SAP_LAYERS_MOST,
    .padding = SAP_PADDING_STEPWISE,
    .mask = SAP_MASK_PASS,
    .build = build_add,
    .forward = add_forward,
    .backward = add_backward,
};
