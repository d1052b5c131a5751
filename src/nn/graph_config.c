/* Keras' config.json into graphs of items: what is written there, before anything is connected.
 *
 * Reads what Keras 3 writes: Sequential and Functional, tensors as "__keras_tensor__" objects, operations beside layers.
 */
#include "graph.h"

#include <ctype.h>
#include <stdlib.h>

typedef struct reader {
    sap_model *model;
    const char *where; /* "file: config.json" */
    const sap_scope *scope;
    sap_graph *graph;
} reader;

void sap_snake_case(const char *name, char *out, size_t capacity) {
    size_t used = 0;
    for (size_t i = 0; name[i] && used + 2 < capacity; i++) {
        unsigned char c = (unsigned char)name[i];
        /* an underscore before a capital that begins a word: it follows a small letter or stands before one */
        bool begins =
            i > 0 && isupper(c) && (islower((unsigned char)name[i - 1]) || islower((unsigned char)name[i + 1]));
        if (begins)
            out[used++] = '_';
        out[used++] = (char)tolower(c);
    }
    out[used] = '\0';
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is_model(const char *class_name) {
    return strcmp(class_name, "Sequential") == 0 || strcmp(class_name, "Functional") == 0 ||
           strcmp(class_name, "Model") == 0;
}

/* ---- Layers --------------------------------------------------------------------------------------------- */

static sap_status check_config(const sap_layer *layer, const json_t *config, sap_error *err) {
    const json_t *dtype = json_object_get(config, "dtype");
    if (json_is_object(dtype))
        dtype = json_object_get(json_object_get(dtype, "config"), "name");
    const char *name = json_string_value(dtype);
    if (name && strcmp(name, "float32") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: data type \"%.50s\", only float32 is supported", layer->where,
                             name);
    static const char *const unknown[] = {"quantization_config", "lora_rank"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(config, unknown[i]);
        if (value && !json_is_null(value))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"%s\"", layer->where, unknown[i]);
    }
    return SAP_OK;
}

/* Inside TimeDistributed a layer sees all steps at once: right for those that take each step for itself. */
static sap_status check_each_step(const reader *r, const sap_layer_class *class_of, const char *name, sap_error *err) {
    if (r->scope->each_step && (class_of->padding != SAP_PADDING_STEPWISE || class_of->inputs_most != 1 ||
                                class_of->mask == SAP_MASK_MAKE || strcmp(class_of->name, "PReLU") == 0))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: layer \"%s%.100s\": a %s inside TimeDistributed",
                             r->model->name, r->scope->place, name, class_of->name);
    return SAP_OK;
}

/* The layer of an item. */
static sap_status make_layer(reader *r, sap_item *item, const char *class_name, const char *name, const char *group,
                             const json_t *config, sap_error *err) {
    sap_model *model = r->model;
    const sap_layer_class *class_of = sap_layer_class_find(class_name);
    if (!class_of) {
        char names[1000];
        sap_layer_class_names(names, sizeof names);
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: layer \"%s%.100s\" is of the class %.100s, which is not supported (%s are)",
                             model->name, r->scope->place, name, class_name, names);
    }
    SAP_TRY(check_each_step(r, class_of, name, err));
    sap_layer *layer = sap_arena_alloc(&model->arena, sizeof *layer);
    if (!layer)
        return sap_error_memory(err, r->where);
    *layer = (sap_layer){
        .class_of = class_of,
        .name = sap_arena_format(&model->arena, "%s%s", r->scope->place, name),
        .where = sap_arena_format(&model->arena, "%s: layer \"%s%.100s\" (%s)", model->name, r->scope->place, name,
                                  class_name),
        .group = group,
        .owner = r->scope->owner ? r->scope->owner : item->name,
        .key = (uint32_t)model->layer_count,
        .trainable = r->scope->trainable && !json_is_false(json_object_get(config, "trainable")),
        .padding = class_of->padding,
        .arena = &model->arena,
    };
    if (!layer->name || !layer->where)
        return sap_error_memory(err, r->where);
    if (model->layer_count >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: more than %d layers", r->where, SAP_LAYERS_MOST);
    SAP_TRY(check_config(layer, config, err));
    if (class_of->parse)
        SAP_TRY(class_of->parse(layer, config, err));
    model->layers[model->layer_count++] = layer;
    item->layer = layer;
    item->config = config;
    return SAP_OK;
}

/* ---- Items ---------------------------------------------------------------------------------------------- */

/* "layers/dense_1" behind that of the scope: the class in snake case, and how many of the class came before. */
static const char *group_name(const reader *r, const char *class_name) {
    char snake[200];
    sap_snake_case(strcmp(class_name, "Model") == 0 ? "Functional" : class_name, snake, sizeof snake);
    int32_t before = 0;
    for (int32_t i = 0; i < r->graph->count; i++)
        before += strcmp(text_of(r->graph->items[i].entry, "class_name"), class_name) == 0 &&
                  !strstr(text_of(r->graph->items[i].entry, "module"), ".ops");
    const char *above = r->scope->group, *slash = above[0] ? "/" : "";
    return before ? sap_arena_format(&r->model->arena, "%s%slayers/%s_%d", above, slash, snake, before)
                  : sap_arena_format(&r->model->arena, "%s%slayers/%s", above, slash, snake);
}

/* Functions of keras.ops on tensors. Those on masks are kinds of items, the rest are layers of the same name, or
 * activations. */
static const struct {
    const char *class_name;
    sap_item_kind kind;
    const char *activation;
} operations[] = {
    {"NotEqual", SAP_ITEM_NOT_EQUAL, NULL}, {"Any", SAP_ITEM_ANY, NULL},
    {"LogicalOr", SAP_ITEM_SAME, NULL},     {"LogicalAnd", SAP_ITEM_SAME, NULL},
    {"Add", SAP_ITEM_LAYER, NULL},          {"Subtract", SAP_ITEM_LAYER, NULL},
    {"Multiply", SAP_ITEM_LAYER, NULL},     {"Maximum", SAP_ITEM_LAYER, NULL},
    {"Minimum", SAP_ITEM_LAYER, NULL},      {"Relu", SAP_ITEM_LAYER, "relu"},
    {"Sigmoid", SAP_ITEM_LAYER, "sigmoid"}, {"Tanh", SAP_ITEM_LAYER, "tanh"},
    {"Silu", SAP_ITEM_LAYER, "silu"},
};

static sap_status read_operation(reader *r, sap_item *item, const char *class_name, const json_t *config,
                                 sap_error *err) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].class_name, class_name) != 0)
            continue;
        item->kind = operations[i].kind;
        if (item->kind != SAP_ITEM_LAYER)
            return SAP_OK;
        const char *activation = operations[i].activation;
        SAP_TRY(make_layer(r, item, activation ? "Activation" : class_name, item->name, NULL, config, err));
        if (!activation)
            return SAP_OK;
        json_t *name = json_string(activation);
        sap_status status = sap_activation_parse(name, item->layer->where, &item->layer->activation, err);
        json_decref(name);
        return status;
    }
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"%s%.100s\" is the operation %.100s, which is not supported",
                         r->model->name, r->scope->place, item->name, class_name);
}

static sap_status read_inner(reader *r, sap_item *item, const json_t *entry, const char *name, const char *group,
                             sap_error *err);

/* TimeDistributed(inner): the inner layer on all steps. Its weights stand in "layer" of the wrapper's group. */
static sap_status read_wrapped(reader *r, sap_item *item, const json_t *config, const char *name, const char *group,
                               sap_error *err) {
    const json_t *inner = json_object_get(config, "layer");
    if (!json_is_object(json_object_get(inner, "config")))
        return sap_error_set(err, SAP_EFORMAT, "%s: layer \"%s%.100s\" (TimeDistributed) wraps no layer",
                             r->model->name, r->scope->place, name);
    const char *inner_name = text_of(json_object_get(inner, "config"), "name");
    name = sap_arena_format(&r->model->arena, "%s/%s", name, inner_name);
    group = sap_arena_format(&r->model->arena, "%s/layer", group);
    if (!name || !group)
        return sap_error_memory(err, r->where);
    sap_scope scope = *r->scope;
    scope.owner = scope.owner ? scope.owner : item->name;
    scope.trainable = scope.trainable && !json_is_false(json_object_get(config, "trainable"));
    scope.each_step = true;
    reader inside = {r->model, r->where, &scope, r->graph};
    return read_inner(&inside, item, inner, name, group, err);
}

/* A layer or a nested model, called `name` here. */
static sap_status read_inner(reader *r, sap_item *item, const json_t *entry, const char *name, const char *group,
                             sap_error *err) {
    const char *class_name = text_of(entry, "class_name");
    const json_t *config = json_object_get(entry, "config");
    item->kind = SAP_ITEM_LAYER;
    if (strcmp(class_name, "TimeDistributed") == 0)
        return read_wrapped(r, item, config, name, group, err);
    if (!is_model(class_name))
        return make_layer(r, item, class_name, name, group, config, err);
    item->kind = SAP_ITEM_MODEL;
    item->first_end = strcmp(class_name, "Sequential") != 0;
    sap_scope scope = *r->scope;
    scope.place = sap_arena_format(&r->model->arena, "%s%s/", r->scope->place, name);
    scope.group = group;
    scope.owner = scope.owner ? scope.owner : item->name;
    scope.trainable = scope.trainable && !json_is_false(json_object_get(config, "trainable"));
    if (!scope.place)
        return sap_error_memory(err, r->where);
    SAP_TRY(sap_graph_read(r->model, entry, r->where, &scope, &item->inner, err));
    item->output_count = item->inner->output_count;
    return SAP_OK;
}

/* Attention looks for "use_causal_mask" among its settings; in the file it is an argument of each call. */
static sap_status set_causal(const reader *r, const json_t *entry, json_t *config, const char *name, sap_error *err) {
    const json_t *nodes = json_object_get(entry, "inbound_nodes"), *node;
    size_t i, causal = 0;
    json_array_foreach(nodes, i, node) {
        causal += json_is_true(json_object_get(json_object_get(node, "kwargs"), "use_causal_mask"));
    }
    if (causal && causal != json_array_size(nodes))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: layer \"%s%.100s\" is used with and without a causal mask",
                             r->model->name, r->scope->place, name);
    return !causal || json_object_set_new(config, "use_causal_mask", json_true()) == 0
               ? SAP_OK
               : sap_error_memory(err, r->where);
}

static int32_t find_item(const sap_graph *graph, const char *name) {
    for (int32_t i = 0; i < graph->count; i++)
        if (strcmp(graph->items[i].name, name) == 0)
            return i;
    return -1;
}

static sap_status read_item(reader *r, const json_t *entry, sap_error *err) {
    const char *class_name = text_of(entry, "class_name"), *name = text_of(entry, "name");
    json_t *config = json_object_get(entry, "config");
    if (!name[0])
        name = text_of(config, "name");
    if (!class_name[0] || !name[0] || !json_is_object(config))
        return sap_error_set(err, SAP_EFORMAT, "%s: layer %d needs \"class_name\", \"config\" and a name", r->where,
                             r->graph->count);
    if (find_item(r->graph, name) >= 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: two layers are called \"%s%.100s\"", r->where, r->scope->place,
                             name);
    sap_item *item = &r->graph->items[r->graph->count];
    *item = (sap_item){.name = sap_arena_text(&r->model->arena, name, strlen(name)),
                       .entry = entry,
                       .config = config,
                       .output_count = 1};
    const char *group = group_name(r, class_name);
    if (!item->name || !group)
        return sap_error_memory(err, r->where);
    if (strstr(text_of(entry, "module"), ".ops")) {
        SAP_TRY(read_operation(r, item, class_name, config, err));
    } else if (strcmp(class_name, "InputLayer") == 0) {
        item->kind = SAP_ITEM_INPUT;
        if (!r->scope->place[0]) /* that of a nested model only hands on what the model is called with */
            SAP_TRY(make_layer(r, item, class_name, name, group, config, err));
    } else {
        if (strcmp(class_name, "MultiHeadAttention") == 0)
            SAP_TRY(set_causal(r, entry, config, name, err));
        SAP_TRY(read_inner(r, item, entry, item->name, group, err));
    }
    r->graph->count++;
    return SAP_OK;
}

/* ---- Uses ----------------------------------------------------------------------------------------------- */

static bool is_tensor(const json_t *value) {
    return strcmp(text_of(value, "class_name"), "__keras_tensor__") == 0;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of an object in alphabetical order, in which Keras takes the members of dictionaries. NULL: no memory. */
static const char **sorted_keys(sap_model *model, const json_t *object) {
    const char **keys = sap_arena_array(&model->arena, json_object_size(object) + 1, sizeof *keys), *key;
    const json_t *value;
    size_t count = 0;
    if (!keys)
        return NULL;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        keys[count++] = key;
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    return keys;
}

/* item, use and tensor number, [name, node, tensor], as a place of the graph. reader_name: for messages. end: of the
 * model. */
static sap_status read_place(reader *r, const json_t *name, const json_t *use, const json_t *number,
                             const char *reader_name, bool end, sap_place *out, sap_error *err) {
    if (!json_is_string(name) || !json_is_integer(use) || !json_is_integer(number))
        return sap_error_set(err, SAP_EFORMAT, "%s: an input of \"%s%s\" is not [name, node, tensor]", r->where,
                             r->scope->place, reader_name);
    int32_t item = find_item(r->graph, json_string_value(name));
    json_int_t at = json_integer_value(use), which = json_integer_value(number);
    if (item >= 0 && end)
        at -= r->graph->items[item].first_end;
    if (item < 0 || at < 0 || at >= SAP_LAYERS_MOST || which < 0 || which >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EFORMAT, "%s: \"%s%s\" reads \"%.100s\" [%lld, %lld], which there is not",
                             r->where, r->scope->place, reader_name, json_string_value(name),
                             (long long)json_integer_value(use), (long long)which);
    *out = (sap_place){item, (int32_t)at, (int32_t)which};
    return SAP_OK;
}

static sap_status add_argument(reader *r, const sap_item *item, sap_use *use, const sap_argument *argument,
                               int32_t *capacity, sap_error *err) {
    if (use->argument_count >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"%s%s\" has too many inputs", r->where, r->scope->place,
                             item->name);
    if (use->argument_count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 4;
        sap_argument *grown = sap_arena_array(&r->model->arena, (size_t)*capacity, sizeof *grown);
        if (!grown)
            return sap_error_memory(err, r->where);
        if (use->argument_count)
            memcpy(grown, use->arguments, (size_t)use->argument_count * sizeof *grown);
        use->arguments = grown;
    }
    use->arguments[use->argument_count++] = *argument;
    return SAP_OK;
}

/* Tensors and numbers anywhere in the lists and dictionaries of arguments; `name`: of a named argument. Nesting is
 * bounded by the JSON reader. */
static sap_status read_argument(reader *r, const sap_item *item, sap_use *use, const char *name, const json_t *value,
                                int32_t *capacity, sap_error *err) {
    sap_argument argument = {.name = name, .tensor = is_tensor(value)};
    if (argument.tensor) {
        const json_t *history = json_object_get(json_object_get(value, "config"), "keras_history");
        SAP_TRY(read_place(r, json_array_get(history, 0), json_array_get(history, 1), json_array_get(history, 2),
                           item->name, false, &argument.from, err));
        return add_argument(r, item, use, &argument, capacity, err);
    }
    if (json_is_number(value) || json_is_true(value)) {
        argument.number = json_is_number(value) ? json_number_value(value) : 1;
        return add_argument(r, item, use, &argument, capacity, err);
    }
    if (json_is_object(value)) {
        const char **keys = sorted_keys(r->model, value);
        if (!keys)
            return sap_error_memory(err, r->where);
        for (size_t i = 0; i < json_object_size(value); i++)
            SAP_TRY(read_argument(r, item, use, name, json_object_get(value, keys[i]), capacity, err));
    }
    const json_t *part;
    size_t i;
    json_array_foreach(value, i, part) {
        SAP_TRY(read_argument(r, item, use, name, part, capacity, err));
    }
    return SAP_OK;
}

static sap_status read_use(reader *r, const sap_item *item, const json_t *node, sap_use *out, sap_error *err) {
    const char *key;
    json_t *value;
    int32_t capacity = 0;
    if (!json_is_object(node))
        return sap_error_set(err, SAP_EFORMAT, "%s: an inbound node of \"%s%s\" is not an object", r->where,
                             r->scope->place, item->name);
    SAP_TRY(read_argument(r, item, out, NULL, json_object_get(node, "args"), &capacity, err));
    json_object_foreach(json_object_get(node, "kwargs"), key, value) {
        /* how the layer was called when the model was made, not how to use it; set_causal() has taken the other */
        if (strcmp(key, "training") != 0 && strcmp(key, "use_causal_mask") != 0)
            SAP_TRY(read_argument(r, item, out, key, value, &capacity, err));
    }
    return SAP_OK;
}

/* Reads the uses of all items, or, in a Sequential model, lets each read the one before. */
static sap_status read_uses(reader *r, bool sequential, sap_error *err) {
    sap_graph *graph = r->graph;
    int64_t values = 0;
    for (int32_t i = 0; i < graph->count; i++) {
        sap_item *item = &graph->items[i];
        const json_t *nodes = json_object_get(item->entry, "inbound_nodes");
        bool once = sequential || item->kind == SAP_ITEM_INPUT;
        size_t count = once ? 1 : json_array_size(nodes);
        item->first_value = (int32_t)values;
        values += (int64_t)count * item->output_count;
        if (count > SAP_LAYERS_MOST || values > SAP_LAYERS_MOST)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: more than %d uses of layers", r->where, SAP_LAYERS_MOST);
        item->use_count = (int32_t)count;
        item->uses = sap_arena_array(&r->model->arena, count + 1, sizeof *item->uses);
        sap_argument *before = sap_arena_alloc(&r->model->arena, sizeof *before);
        if (!item->uses || !before)
            return sap_error_memory(err, r->where);
        if (sequential && i > 0) {
            *before = (sap_argument){.tensor = true, .from = {i - 1, 0, 0}};
            item->uses[0] = (sap_use){before, 1};
        }
        for (size_t use = 0; !once && use < count; use++)
            SAP_TRY(read_use(r, item, json_array_get(nodes, use), &item->uses[use], err));
    }
    graph->value_count = (int32_t)values;
    return SAP_OK;
}

/* ---- Ends ----------------------------------------------------------------------------------------------- */

/* input_layers and output_layers: [name, 0, 0], a list of those, or an object of those. */
static sap_status read_ends(reader *r, const json_t *value, sap_place *out, int32_t *count, sap_error *err) {
    if (json_is_string(json_array_get(value, 0))) {
        return read_place(r, json_array_get(value, 0), json_array_get(value, 1), json_array_get(value, 2), "the model",
                          true, &out[(*count)++], err);
    }
    if (json_is_object(value)) {
        const char **keys = sorted_keys(r->model, value);
        if (!keys)
            return sap_error_memory(err, r->where);
        for (size_t i = 0; i < json_object_size(value); i++)
            SAP_TRY(read_ends(r, json_object_get(value, keys[i]), out, count, err));
    }
    const json_t *item;
    size_t i;
    json_array_foreach(value, i, item) {
        SAP_TRY(read_ends(r, item, out, count, err));
    }
    return SAP_OK;
}

static size_t count_ends(const json_t *value) {
    const char *key;
    const json_t *item;
    size_t i, count = json_is_string(json_array_get(value, 0));
    json_array_foreach(value, i, item) {
        count += count_ends(item);
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        count += count_ends(item);
    }
    return count;
}

static sap_status check_ends(const reader *r, sap_error *err) {
    const sap_graph *graph = r->graph;
    int32_t inputs = 0;
    if (graph->input_count < 1 || graph->output_count < 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: the model has no input or no output", r->where);
    for (int32_t i = 0; i < graph->count; i++)
        inputs += graph->items[i].kind == SAP_ITEM_INPUT;
    for (int32_t i = 0; i < graph->input_count; i++) {
        const sap_item *item = &graph->items[graph->inputs[i].item];
        if (item->kind != SAP_ITEM_INPUT)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model's input \"%s%s\" is not an InputLayer", r->where,
                                 r->scope->place, item->name);
        for (int32_t j = 0; j < i; j++)
            if (graph->inputs[j].item == graph->inputs[i].item)
                return sap_error_set(err, SAP_EFORMAT, "%s: the model lists its input \"%s%s\" twice", r->where,
                                     r->scope->place, item->name);
    }
    if (inputs != graph->input_count)
        return sap_error_set(err, SAP_EFORMAT, "%s: %d layers are inputs, but the model lists %d", r->where, inputs,
                             graph->input_count);
    for (int32_t i = 0; i < graph->output_count; i++) {
        const sap_place *at = &graph->outputs[i];
        const sap_item *item = &graph->items[at->item];
        if (at->use >= item->use_count || at->number >= item->output_count)
            return sap_error_set(err, SAP_EFORMAT,
                                 "%s: the model ends at use %d, output %d of \"%s%s\", which there is not", r->where,
                                 at->use, at->number, r->scope->place, item->name);
    }
    return SAP_OK;
}

static sap_status find_ends(reader *r, const json_t *config, bool sequential, sap_error *err) {
    sap_graph *graph = r->graph;
    const sap_item *last = &graph->items[graph->count - 1];
    const json_t *begin = json_object_get(config, "input_layers"), *end = json_object_get(config, "output_layers");
    size_t inputs = sequential ? 1 : count_ends(begin),
           outputs = sequential ? (size_t)last->output_count : count_ends(end);
    if (inputs > SAP_LAYERS_MOST || outputs > SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model has too many inputs or outputs", r->where);
    graph->inputs = sap_arena_array(&r->model->arena, inputs + 1, sizeof *graph->inputs);
    graph->outputs = sap_arena_array(&r->model->arena, outputs + 1, sizeof *graph->outputs);
    if (!graph->inputs || !graph->outputs)
        return sap_error_memory(err, r->where);
    if (sequential) {
        graph->inputs[graph->input_count++] = (sap_place){0};
        for (int32_t i = 0; i < last->output_count; i++)
            graph->outputs[graph->output_count++] = (sap_place){graph->count - 1, 0, i};
    } else {
        SAP_TRY(read_ends(r, begin, graph->inputs, &graph->input_count, err));
        SAP_TRY(read_ends(r, end, graph->outputs, &graph->output_count, err));
    }
    return check_ends(r, err);
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

/* A Sequential model without an InputLayer says its input's shape elsewhere: adds that layer. */
static sap_status add_input_layer(reader *r, const json_t *root, const json_t *config, sap_error *err) {
    const json_t *shape = json_object_get(config, "build_input_shape");
    if (!json_is_array(shape))
        shape = json_object_get(json_object_get(root, "build_config"), "input_shape");
    if (!json_is_array(shape) && !r->scope->place[0])
        return sap_error_set(err, SAP_EFORMAT, "%s: the model was saved before the shape of its input was known",
                             r->where);
    json_t *made =
        json_pack("{s:s, s:{s:s, s:O?}}", "class_name", "InputLayer", "config", "name", "input", "batch_shape", shape);
    if (!made || json_array_append_new(r->scope->made, made) != 0)
        return sap_error_memory(err, r->where);
    return read_item(r, made, err);
}

sap_status sap_graph_read(sap_model *model, const json_t *root, const char *where, const sap_scope *scope,
                          sap_graph **out, sap_error *err) {
    const char *class_name = text_of(root, "class_name");
    const json_t *config = json_object_get(root, "config"), *layers = json_object_get(config, "layers");
    if (!class_name[0] || !json_is_object(config))
        return sap_error_set(err, SAP_EFORMAT, "%s: not a Keras model: needs \"class_name\" and \"config\"", where);
    if (!is_model(class_name))
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: the model is of the class \"%.100s\"; Sequential and Functional are supported", where,
                             class_name);
    size_t count = json_array_size(layers);
    if (count < 1 || count > SAP_LAYERS_MOST - 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: the model has %zu layers", where, count);
    sap_graph *graph = sap_arena_alloc(&model->arena, sizeof *graph);
    if (!graph)
        return sap_error_memory(err, where);
    *graph = (sap_graph){.place = scope->place};
    graph->items = sap_arena_array(&model->arena, count + 1, sizeof *graph->items);
    if (!graph->items)
        return sap_error_memory(err, where);
    reader r = {model, where, scope, graph};
    bool sequential = strcmp(class_name, "Sequential") == 0;
    if (sequential && strcmp(text_of(json_array_get(layers, 0), "class_name"), "InputLayer") != 0)
        SAP_TRY(add_input_layer(&r, root, config, err));
    for (size_t i = 0; i < count; i++)
        SAP_TRY(read_item(&r, json_array_get(layers, i), err));
    SAP_TRY(read_uses(&r, sequential, err));
    *out = graph;
    return find_ends(&r, config, sequential, err);
}
