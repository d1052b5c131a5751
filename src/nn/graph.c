/* Graphs as files have them into the nodes of a model: nested models are called in place, masks become arguments. */
#include "graph.h"
#include "regularizer.h"

#include <stdlib.h>

/* What an output of a use is. */
typedef enum value_kind {
    VALUE_UNKNOWN = 0, /* not there yet */
    VALUE_TENSOR,      /* of node `at` */
    VALUE_DIFFERS,     /* whether numbers of node `at` differ from `number` */
    VALUE_MASK         /* mask `at` of the model */
} value_kind;

typedef struct value {
    value_kind kind;
    int32_t at;
    float number;
} value;

typedef struct builder {
    sap_model *model;
    const char *where; /* "file: config.json" */
    int32_t node_capacity, mask_capacity, calls;
} builder;

/* One call of a graph. */
typedef struct call {
    const sap_graph *graph;
    const value *inputs;
    value *values; /* (value_count) */
} call;

void sap_shape_text(const sap_shape *shape, bool batch, char *text, size_t capacity) {
    size_t used = (size_t)snprintf(text, capacity, batch ? "(None" : "(");
    for (int32_t i = 0; i < shape->rank && used < capacity; i++) {
        const char *comma = batch || i ? ", " : "";
        used += shape->dims[i] < 0
                    ? (size_t)snprintf(text + used, capacity - used, "%sNone", comma)
                    : (size_t)snprintf(text + used, capacity - used, "%s%lld", comma, (long long)shape->dims[i]);
    }
    if (used < capacity)
        (void)snprintf(text + used, capacity - used, ")");
}

/* ---- Nodes ---------------------------------------------------------------------------------------------- */

static sap_status check_size(const sap_layer *layer, const sap_shape *shape, sap_error *err) {
    int64_t values = 1;
    for (int32_t i = 0; i < shape->rank; i++) {
        if (i == 0 && shape->rank > 1 && shape->dims[i] == -1) /* time of any length */
            continue;
        if (shape->dims[i] < 1 || shape->dims[i] > SAP_TENSOR_MOST / values)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: its output is empty or has more than %lld values",
                                 layer->where, (long long)SAP_TENSOR_MOST);
        values *= shape->dims[i];
    }
    return SAP_OK;
}

static sap_status grow_nodes(builder *b, sap_error *err) {
    sap_model *model = b->model;
    if (model->node_count < b->node_capacity)
        return SAP_OK;
    if (b->node_capacity >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: more than %d uses of layers", b->where, SAP_LAYERS_MOST);
    int32_t capacity = b->node_capacity ? 2 * b->node_capacity : 32;
    sap_node *nodes = sap_arena_array(&model->arena, (size_t)capacity, sizeof *nodes);
    int64_t *values = sap_arena_array(&model->arena, (size_t)capacity, sizeof *values);
    if (!nodes || !values)
        return sap_error_memory(err, b->where);
    if (model->node_count) {
        memcpy(nodes, model->nodes, (size_t)model->node_count * sizeof *nodes);
        memcpy(values, model->tensor_values, (size_t)model->node_count * sizeof *values);
    }
    model->nodes = nodes;
    model->tensor_values = values;
    b->node_capacity = capacity;
    return SAP_OK;
}

/* A node of `item` with these inputs; on the first use the layer's weights are made. */
static sap_status place_node(builder *b, const sap_item *item, int32_t *inputs, int32_t *masks, int32_t count,
                             value *out, sap_error *err) {
    sap_model *model = b->model;
    sap_layer *layer = item->layer;
    const sap_layer_class *class_of = layer->class_of;
    if (count < class_of->inputs_least || count > class_of->inputs_most)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: is called with %d tensors", layer->where, count);
    SAP_TRY(grow_nodes(b, err));
    sap_shape *shapes = sap_arena_array(&model->arena, (size_t)count + 1, sizeof *shapes);
    if (!shapes)
        return sap_error_memory(err, b->where);
    sap_node *node = &model->nodes[model->node_count];
    *node = (sap_node){.layer = layer, .input_count = count, .inputs = inputs, .masks = masks};
    for (int32_t i = 0; i < model->node_count; i++)
        node->use += model->nodes[i].layer == layer;
    for (int32_t i = 0; i < count; i++) {
        shapes[i] = model->nodes[inputs[i]].shape;
        node->differentiate = node->differentiate || model->nodes[inputs[i]].differentiate;
    }
    bool first = node->use == 0;
    SAP_TRY((class_of->build ? class_of->build : sap_build_same)(layer, shapes, count, first, &node->shape, err));
    SAP_TRY(check_size(layer, &node->shape, err));
    if (first)
        SAP_TRY(sap_penalties_read(model, layer, item->config, err));
    for (int32_t i = 0; i < layer->weight_count; i++)
        node->differentiate = node->differentiate || layer->weights[i].trainable;
    node->tensor = class_of->view ? model->nodes[inputs[0]].tensor : model->tensor_count++;
    if (!class_of->view)
        model->tensor_values[node->tensor] = sap_shape_values(&node->shape);
    *out = (value){.kind = VALUE_TENSOR, .at = model->node_count++};
    return SAP_OK;
}

/* ---- Masks ---------------------------------------------------------------------------------------------- */

static sap_status add_mask(builder *b, const value *differs, value *out, sap_error *err) {
    sap_model *model = b->model;
    *out = (value){.kind = VALUE_MASK};
    for (out->at = 0; out->at < model->mask_count; out->at++) {
        const sap_mask *mask = &model->masks[out->at];
        if (mask->node == differs->at && mask->value == differs->number)
            return SAP_OK;
    }
    if (model->mask_count == b->mask_capacity) {
        b->mask_capacity = b->mask_capacity ? 2 * b->mask_capacity : 4;
        sap_mask *grown = sap_arena_array(&model->arena, (size_t)b->mask_capacity, sizeof *grown);
        if (!grown)
            return sap_error_memory(err, b->where);
        if (model->mask_count)
            memcpy(grown, model->masks, (size_t)model->mask_count * sizeof *grown);
        model->masks = grown;
    }
    model->masks[model->mask_count++] = (sap_mask){.node = differs->at, .value = differs->number};
    return SAP_OK;
}

static sap_status mask_unsupported(const builder *b, const call *c, const sap_item *item, const char *what,
                                   sap_error *err) {
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"%s%s\" (%s): %s", b->model->name, c->graph->place, item->name,
                         json_string_value(json_object_get(item->entry, "class_name")), what);
}

/* NotEqual(tensor, number), Any over the last axis of that, and the mask of two equal ones. */
static sap_status call_mask(builder *b, const call *c, const sap_item *item, const sap_use *use, const value *given,
                            value *out, sap_error *err) {
    const sap_argument *argument = use->arguments;
    int32_t count = use->argument_count;
    if (item->kind == SAP_ITEM_NOT_EQUAL) {
        int32_t tensor = count == 2 && argument[0].tensor ? 0 : 1;
        if (count != 2 || given[tensor].kind != VALUE_TENSOR || argument[1 - tensor].tensor)
            return mask_unsupported(b, c, item, "compares other things than a tensor with a number", err);
        *out = (value){VALUE_DIFFERS, given[tensor].at, (float)argument[1 - tensor].number};
        return SAP_OK;
    }
    if (item->kind == SAP_ITEM_ANY) {
        const json_t *axis = json_object_get(item->config, "axis");
        if (json_is_array(axis) && json_array_size(axis) == 1)
            axis = json_array_get(axis, 0);
        if (count != 1 || given[0].kind != VALUE_DIFFERS)
            return mask_unsupported(b, c, item, "is not taken of a NotEqual", err);
        int32_t rank = b->model->nodes[given[0].at].shape.rank;
        bool last = json_is_integer(axis) && (json_integer_value(axis) == -1 || json_integer_value(axis) == rank);
        if (!last || rank != 2 || json_is_true(json_object_get(item->config, "keepdims")))
            return mask_unsupported(b, c, item, "only along the last axis of sequences, without keepdims", err);
        return add_mask(b, &given[0], out, err);
    }
    bool same = count == 2 && given[0].kind == VALUE_MASK && given[1].kind == VALUE_MASK && given[0].at == given[1].at;
    if (!same)
        return mask_unsupported(b, c, item, "joins different masks", err);
    *out = given[0];
    return SAP_OK;
}

/* ---- Calls ---------------------------------------------------------------------------------------------- */

/* Which input of a layer the argument of that name is, or the mask of which; -1: another one. */
static int32_t argument_place(const char *name, bool *mask) {
    static const char *const names[][4] = {{"inputs", "query", "sequence", "sequences"}, {"value"}, {"key"}};
    static const char *const masks[][2] = {{"mask", "query_mask"}, {"value_mask"}, {"key_mask"}};
    for (int32_t i = 0; i < 3; i++) {
        *mask = false;
        for (int j = 0; j < 4 && names[i][j]; j++)
            if (strcmp(names[i][j], name) == 0)
                return i;
        *mask = true;
        for (int j = 0; j < 2 && masks[i][j]; j++)
            if (strcmp(masks[i][j], name) == 0)
                return i;
    }
    return -1;
}

static sap_status call_layer(builder *b, const call *c, const sap_item *item, const sap_use *use, const value *given,
                             value *out, sap_error *err) {
    const char *where = item->layer->where;
    int32_t most = use->argument_count > 3 ? use->argument_count : 3, count = 0, masked = 0;
    int32_t *inputs = sap_arena_array(&b->model->arena, (size_t)most, sizeof *inputs);
    int32_t *masks = sap_arena_array(&b->model->arena, (size_t)most, sizeof *masks);
    if (!inputs || !masks)
        return sap_error_memory(err, b->where);
    for (int32_t i = 0; i < most; i++)
        inputs[i] = masks[i] = -1;
    for (int32_t i = 0; i < use->argument_count; i++) {
        const sap_argument *argument = &use->arguments[i];
        bool mask = false;
        int32_t place = argument->name ? argument_place(argument->name, &mask) : count;
        if (place < 0 || !argument->tensor)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: is called with %s%s%s", where,
                                 argument->tensor ? "a tensor" : "a number", argument->name ? " as " : "",
                                 argument->name ? argument->name : "");
        if (given[i].kind != (mask ? VALUE_MASK : VALUE_TENSOR))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: is called with \"%s%s\", which is %s mask", where,
                                 c->graph->place, c->graph->items[argument->from.item].name, mask ? "no" : "a");
        (mask ? masks : inputs)[place] = given[i].at;
        masked += mask;
        count = !mask && place >= count ? place + 1 : count;
    }
    for (int32_t i = 0; i < count; i++)
        if (inputs[i] < 0)
            return sap_error_set(err, SAP_EFORMAT, "%s: its input %d is missing", where, i);
    return place_node(b, item, inputs, masked ? masks : NULL, count, out, err);
}

static sap_status call_graph(builder *b, const sap_graph *graph, const value *inputs, value *outputs, sap_error *err);

/* Calls item with the values of its arguments; out: (output_count). */
static sap_status call_item(builder *b, const call *c, const sap_item *item, const sap_use *use, const value *given,
                            value *out, sap_error *err) {
    if (item->kind == SAP_ITEM_LAYER)
        return call_layer(b, c, item, use, given, out, err);
    if (item->kind != SAP_ITEM_MODEL)
        return call_mask(b, c, item, use, given, out, err);
    int32_t count = 0;
    for (int32_t i = 0; i < use->argument_count; i++) {
        const sap_argument *argument = &use->arguments[i];
        if (argument->name && strcmp(argument->name, "mask") == 0)
            continue; /* what its input carries */
        if (argument->name || given[i].kind != VALUE_TENSOR)
            return sap_error_set(err, SAP_EUNSUPPORTED,
                                 "%s: the model \"%s%s\" is called with other things than tensors", b->model->name,
                                 c->graph->place, item->name);
        count++;
    }
    if (count != item->inner->input_count)
        return sap_error_set(err, SAP_EFORMAT, "%s: the model \"%s%s\" takes %d inputs and is called with %d",
                             b->model->name, c->graph->place, item->name, item->inner->input_count, count);
    return call_graph(b, item->inner, given, out, err);
}

static sap_status call_input(builder *b, const call *c, int32_t item, value *out, sap_error *err) {
    const sap_graph *graph = c->graph;
    if (!c->inputs)
        return place_node(b, &graph->items[item], NULL, NULL, 0, out, err);
    for (int32_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i].item == item)
            *out = c->inputs[i];
    return SAP_OK;
}

/* Calls one use, if its arguments are there; *done then. given: room for those. */
static sap_status try_use(builder *b, const call *c, int32_t at, int32_t number, value *given, bool *done,
                          sap_error *err) {
    const sap_graph *graph = c->graph;
    const sap_item *item = &graph->items[at];
    const sap_use *use = &item->uses[number];
    value *out = c->values + item->first_value + number * item->output_count;
    *done = false;
    if (out->kind != VALUE_UNKNOWN)
        return SAP_OK;
    for (int32_t i = 0; i < use->argument_count; i++) {
        const sap_argument *argument = &use->arguments[i];
        given[i] = (value){0};
        if (!argument->tensor)
            continue;
        const sap_item *source = &graph->items[argument->from.item];
        if (argument->from.use >= source->use_count || argument->from.number >= source->output_count)
            return sap_error_set(err, SAP_EFORMAT,
                                 "%s: \"%s%s\" reads output %d of use %d of \"%s\", which there is not", b->where,
                                 graph->place, item->name, argument->from.number, argument->from.use, source->name);
        given[i] = c->values[source->first_value + argument->from.use * source->output_count + argument->from.number];
        if (given[i].kind == VALUE_UNKNOWN)
            return SAP_OK;
    }
    *done = true;
    return item->kind == SAP_ITEM_INPUT ? call_input(b, c, at, out, err) : call_item(b, c, item, use, given, out, err);
}

/* Round after round, those uses whose arguments are there. */
static sap_status call_uses(builder *b, const call *c, value *given, sap_error *err) {
    int32_t left = 0;
    for (int32_t i = 0; i < c->graph->count; i++)
        left += c->graph->items[i].use_count;
    while (left > 0) {
        int32_t before = left;
        for (int32_t i = 0; i < c->graph->count; i++) {
            for (int32_t use = 0; use < c->graph->items[i].use_count; use++) {
                bool done;
                SAP_TRY(try_use(b, c, i, use, given, &done, err));
                left -= done;
            }
        }
        if (left == before)
            return sap_error_set(err, SAP_EFORMAT, "%s: the layers read each other in a circle", b->where);
    }
    return SAP_OK;
}

/* inputs: NULL for the whole model, whose inputs become nodes. outputs: (output_count). */
static sap_status call_graph(builder *b, const sap_graph *graph, const value *inputs, value *outputs, sap_error *err) {
    int32_t most = 1;
    for (int32_t i = 0; i < graph->count; i++)
        for (int32_t use = 0; use < graph->items[i].use_count; use++)
            if (graph->items[i].uses[use].argument_count > most)
                most = graph->items[i].uses[use].argument_count;
    if (++b->calls > SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: more than %d uses of nested models", b->where,
                             SAP_LAYERS_MOST);
    call c = {graph, inputs, calloc((size_t)graph->value_count + 1, sizeof *c.values)};
    value *given = calloc((size_t)most, sizeof *given);
    sap_status status = c.values && given ? call_uses(b, &c, given, err) : sap_error_memory(err, b->where);
    for (int32_t i = 0; status == SAP_OK && i < graph->output_count; i++) {
        const sap_place *at = &graph->outputs[i];
        const sap_item *item = &graph->items[at->item];
        outputs[i] = c.values[item->first_value + at->use * item->output_count + at->number];
    }
    free(given);
    free(c.values);
    return status;
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

static sap_status find_ends(builder *b, const sap_graph *graph, const value *outputs, sap_error *err) {
    sap_model *model = b->model;
    model->inputs = sap_arena_array(&model->arena, (size_t)graph->input_count, sizeof *model->inputs);
    model->outputs = sap_arena_array(&model->arena, (size_t)graph->output_count, sizeof *model->outputs);
    model->output_names = sap_arena_array(&model->arena, (size_t)graph->output_count, sizeof *model->output_names);
    if (!model->inputs || !model->outputs || !model->output_names)
        return sap_error_memory(err, b->where);
    for (int32_t i = 0; i < graph->input_count; i++)
        for (int32_t n = 0; n < model->node_count; n++)
            if (model->nodes[n].layer == graph->items[graph->inputs[i].item].layer)
                model->inputs[model->input_count++] = n;
    for (int32_t i = 0; i < graph->output_count; i++) {
        const sap_item *item = &graph->items[graph->outputs[i].item];
        if (outputs[i].kind != VALUE_TENSOR)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model's output \"%s\" is a mask", b->where,
                                 item->name);
        model->output_names[i] = item->name;
        model->outputs[model->output_count++] = outputs[i].at;
    }
    return SAP_OK;
}

static sap_status build_graph(sap_model *model, const json_t *root, json_t *made, const char *where, sap_error *err) {
    builder b = {.model = model, .where = where};
    const json_t *config = json_object_get(root, "config");
    const char *title = json_string_value(json_object_get(config, "name"));
    model->title = sap_arena_format(&model->arena, "%s", title ? title : "model");
    model->layers = sap_arena_array(&model->arena, SAP_LAYERS_MOST, sizeof(sap_layer *));
    if (!made || !model->title || !model->layers)
        return sap_error_memory(err, where);
    sap_scope scope = {
        .place = "", .group = "", .trainable = !json_is_false(json_object_get(config, "trainable")), .made = made};
    sap_graph *graph = NULL;
    SAP_TRY(sap_graph_read(model, root, where, &scope, &graph, err));
    value *outputs = sap_arena_array(&model->arena, (size_t)graph->output_count, sizeof *outputs);
    if (!outputs)
        return sap_error_memory(err, where);
    SAP_TRY(call_graph(&b, graph, NULL, outputs, err));
    return find_ends(&b, graph, outputs, err);
}

sap_status sap_graph_parse(sap_model *model, sap_error *err) {
    const char *where = sap_arena_format(&model->arena, "%s: config.json", model->name);
    if (!where)
        return sap_error_memory(err, model->name);
    json_error_t place;
    json_t *made = json_array(), *root = json_loadb(model->config, model->config_length, 0, &place);
    sap_status status = root ? build_graph(model, root, made, where, err)
                             : sap_error_set(err, SAP_EFORMAT, "%s: line %d, column %d: %s", where, place.line,
                                             place.column, place.text);
    json_decref(made);
    json_decref(root);
    return status;
}
