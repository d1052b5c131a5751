/* Keras' config.json into layers and nodes.
 *
 * Reads what Keras 3 writes (Sequential and Functional, tensors as "__keras_tensor__" objects, data types as
 * policies) and the model JSON of Keras 2 (nodes as lists, data types as strings).
 */
#include "nn_internal.h"

#include <ctype.h>
#include <stdlib.h>

/* A use of a layer as the file has it. */
typedef struct raw_node {
    int32_t layer, use;
    int32_t input_count;
    int32_t (*inputs)[2]; /* (input_count) layer, use */
    int32_t node;         /* where it came to stand in the model's nodes; -1: not yet */
} raw_node;

typedef struct parser {
    sap_model *model;
    const json_t **entries; /* (layer_count) layers of the file */
    const char *where;      /* "file: config.json" */
    raw_node *raw;          /* by layer, then by use */
    size_t raw_count, raw_capacity;
    size_t *first_raw; /* (layer_count + 1) of each layer */
} parser;

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

void sap_shape_text(const sap_shape *shape, bool batch, char *text, size_t capacity) {
    size_t used = (size_t)snprintf(text, capacity, batch ? "(None" : "(");
    for (int32_t i = 0; i < shape->rank && used < capacity; i++)
        used +=
            (size_t)snprintf(text + used, capacity - used, "%s%lld", batch || i ? ", " : "", (long long)shape->dims[i]);
    if (used < capacity)
        (void)snprintf(text + used, capacity - used, ")");
}

/* ---- Layers --------------------------------------------------------------------------------------------- */

static sap_status check_dtype(const sap_layer *layer, const json_t *config, sap_error *err) {
    const json_t *dtype = json_object_get(config, "dtype");
    if (json_is_object(dtype))
        dtype = json_object_get(json_object_get(dtype, "config"), "name");
    const char *name = json_string_value(dtype);
    if (name && strcmp(name, "float32") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: data type \"%.50s\", only float32 is supported", layer->where,
                             name);
    return SAP_OK;
}

/* Notes settings that change training in ways this version does not know; predictions are right without them. */
static sap_status check_training(sap_model *model, const sap_layer *layer, json_t *config, sap_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value) {
        size_t length = strlen(key);
        bool ends = (length > 12 && strcmp(key + length - 12, "_regularizer") == 0) ||
                    (length > 11 && strcmp(key + length - 11, "_constraint") == 0);
        if (ends && !json_is_null(value) && !model->untrainable)
            model->untrainable = sap_arena_format(&model->arena, "%s: a \"%s\"", layer->where, key);
        if ((strcmp(key, "quantization_config") == 0 || strcmp(key, "lora_rank") == 0) && !json_is_null(value))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"%s\"", layer->where, key);
    }
    if (layer->class_of->whole_batch && layer->trainable && !model->untrainable)
        model->untrainable = sap_arena_format(
            &model->arena, "%s: training with statistics of the batch (\"trainable\": false would keep them fixed)",
            layer->where);
    return SAP_OK;
}

/* "layers/dense_1": the class in snake case, and how many of the class came before. */
static const char *group_name(sap_model *model, const char *class_name) {
    char snake[200];
    sap_snake_case(class_name, snake, sizeof snake);
    int32_t before = 0;
    for (int32_t i = 0; i < model->layer_count; i++)
        before += strcmp(model->layers[i]->class_of->name, class_name) == 0;
    return before ? sap_arena_format(&model->arena, "layers/%s_%d", snake, before)
                  : sap_arena_format(&model->arena, "layers/%s", snake);
}

static int32_t find_layer(const sap_model *model, const char *name) {
    for (int32_t i = 0; i < model->layer_count; i++)
        if (strcmp(model->layers[i]->name, name) == 0)
            return i;
    return -1;
}

static sap_status parse_layer(parser *p, const json_t *entry, sap_error *err) {
    sap_model *model = p->model;
    const char *class_name = json_string_value(json_object_get(entry, "class_name"));
    json_t *config = json_object_get(entry, "config");
    const char *name = json_string_value(json_object_get(config, "name"));
    if (!name)
        name = json_string_value(json_object_get(entry, "name"));
    if (!class_name || !name || !json_is_object(config))
        return sap_error_set(err, SAP_EFORMAT, "%s: layer %d needs \"class_name\", \"config\" and a name", p->where,
                             model->layer_count);
    const sap_layer_class *class_of = sap_layer_class_find(class_name);
    if (!class_of) {
        char names[300];
        sap_layer_class_names(names, sizeof names);
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: layer \"%.100s\" is of the class %.100s, which is not supported (%s are)",
                             model->name, name, class_name, names);
    }
    if (find_layer(model, name) >= 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: two layers are called \"%.100s\"", p->where, name);
    sap_layer *layer = sap_arena_alloc(&model->arena, sizeof *layer);
    if (!layer)
        return sap_error_memory(err, p->where);
    const json_t *trainable = json_object_get(config, "trainable");
    *layer = (sap_layer){
        .class_of = class_of,
        .name = sap_arena_text(&model->arena, name, strlen(name)),
        .where = sap_arena_format(&model->arena, "%s: layer \"%.100s\" (%s)", model->name, name, class_name),
        .group = group_name(model, class_name),
        .key = (uint32_t)model->layer_count,
        .trainable = !json_is_false(trainable),
        .padding = class_of->padding,
        .arena = &model->arena,
    };
    if (!layer->name || !layer->where || !layer->group)
        return sap_error_memory(err, p->where);
    SAP_TRY(check_dtype(layer, config, err));
    if (class_of->parse)
        SAP_TRY(class_of->parse(layer, config, err));
    SAP_TRY(check_training(model, layer, config, err));
    p->entries[model->layer_count] = entry;
    model->layers[model->layer_count++] = layer;
    return SAP_OK;
}

/* ---- Nodes, as the file has them ------------------------------------------------------------------------ */

static sap_status add_raw(parser *p, int32_t layer, int32_t use, sap_error *err) {
    void *array = p->raw;
    if (p->raw_count >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: more than %d uses of layers", p->where, SAP_LAYERS_MOST);
    if (!sap_grow(&array, &p->raw_capacity, p->raw_count, sizeof *p->raw))
        return sap_error_memory(err, p->where);
    p->raw = array;
    p->raw[p->raw_count++] = (raw_node){.layer = layer, .use = use, .node = -1};
    return SAP_OK;
}

/* Adds an input, named by layer, use and tensor number, to the last raw node. */
static sap_status add_input(parser *p, const json_t *name, const json_t *use, const json_t *tensor, sap_error *err) {
    raw_node *raw = &p->raw[p->raw_count - 1];
    const char *own = p->model->layers[raw->layer]->name;
    if (!json_is_string(name) || !json_is_integer(use) || !json_is_integer(tensor))
        return sap_error_set(err, SAP_EFORMAT, "%s: an input of layer \"%s\" is not [name, node, tensor]", p->where,
                             own);
    int32_t from = find_layer(p->model, json_string_value(name));
    json_int_t number = json_integer_value(use);
    if (from < 0 || number < 0 || number >= SAP_LAYERS_MOST || json_integer_value(tensor) != 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: layer \"%s\" reads \"%.100s\" [%lld, %lld], which there is not",
                             p->where, own, json_string_value(name), (long long)number,
                             (long long)json_integer_value(tensor));
    if (raw->input_count >= SAP_LAYERS_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: layer \"%s\" has too many inputs", p->where, own);
    int32_t(*grown)[2] = realloc(raw->inputs, ((size_t)raw->input_count + 1) * sizeof *grown);
    if (!grown)
        return sap_error_memory(err, p->where);
    raw->inputs = grown;
    raw->inputs[raw->input_count][0] = from;
    raw->inputs[raw->input_count++][1] = (int32_t)number;
    return SAP_OK;
}

static bool is_tensor(const json_t *value) {
    const char *class_name = json_string_value(json_object_get(value, "class_name"));
    return class_name && strcmp(class_name, "__keras_tensor__") == 0;
}

static bool holds_tensor(const json_t *value) { /* nesting is bounded by the JSON reader */
    const char *key;
    json_t *item;
    size_t i;
    if (is_tensor(value))
        return true;
    json_array_foreach(value, i, item) {
        if (holds_tensor(item))
            return true;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        if (holds_tensor(item))
            return true;
    }
    return false;
}

/* Keras 3: tensors anywhere in the lists of positional arguments. */
static sap_status read_arguments(parser *p, const json_t *value, sap_error *err) {
    if (is_tensor(value)) {
        const json_t *history = json_object_get(json_object_get(value, "config"), "keras_history");
        return add_input(p, json_array_get(history, 0), json_array_get(history, 1), json_array_get(history, 2), err);
    }
    json_t *item;
    size_t i;
    json_array_foreach(value, i, item) {
        SAP_TRY(read_arguments(p, item, err));
    }
    return SAP_OK;
}

static sap_status read_node(parser *p, const json_t *node, sap_error *err) {
    const sap_layer *layer = p->model->layers[p->raw[p->raw_count - 1].layer];
    json_t *item;
    size_t i;
    if (json_is_object(node)) {
        if (holds_tensor(json_object_get(node, "kwargs")))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: takes a tensor as a named argument (such as a mask)",
                                 layer->where);
        return read_arguments(p, json_object_get(node, "args"), err);
    }
    if (!json_is_array(node))
        return sap_error_set(err, SAP_EFORMAT, "%s: an inbound node is neither an object nor a list", layer->where);
    json_array_foreach(node, i, item) { /* Keras 2: [name, node, tensor, {arguments}] */
        SAP_TRY(add_input(p, json_array_get(item, 0), json_array_get(item, 1), json_array_get(item, 2), err));
    }
    return SAP_OK;
}

static sap_status read_nodes(parser *p, sap_error *err) {
    for (int32_t l = 0; l < p->model->layer_count; l++) {
        const json_t *nodes = json_object_get(p->entries[l], "inbound_nodes");
        if (strcmp(p->model->layers[l]->class_of->name, "InputLayer") == 0) {
            SAP_TRY(add_raw(p, l, 0, err));
            continue;
        }
        json_t *node;
        size_t use;
        json_array_foreach(nodes, use, node) {
            SAP_TRY(add_raw(p, l, (int32_t)use, err));
            SAP_TRY(read_node(p, node, err));
        }
    }
    return SAP_OK;
}

/* Sequential: each layer reads the one before. An input layer is put in front where the file has none. */
static sap_status chain_nodes(parser *p, sap_error *err) {
    for (int32_t l = 0; l < p->model->layer_count; l++) {
        SAP_TRY(add_raw(p, l, 0, err));
        if (l == 0)
            continue;
        raw_node *raw = &p->raw[p->raw_count - 1];
        raw->inputs = malloc(sizeof *raw->inputs);
        if (!raw->inputs)
            return sap_error_memory(err, p->where);
        raw->inputs[0][0] = l - 1;
        raw->inputs[0][1] = 0;
        raw->input_count = 1;
    }
    return SAP_OK;
}

/* ---- Nodes of the model --------------------------------------------------------------------------------- */

static raw_node *find_raw(const parser *p, int32_t layer, int64_t use) {
    size_t first = p->first_raw[layer], end = p->first_raw[layer + 1];
    return use >= 0 && (uint64_t)use < end - first ? &p->raw[first + (size_t)use] : NULL;
}

static sap_status index_raw(parser *p, sap_error *err) {
    p->first_raw = sap_arena_array(&p->model->arena, (size_t)p->model->layer_count + 1, sizeof *p->first_raw);
    if (!p->first_raw)
        return sap_error_memory(err, p->where);
    for (size_t i = 0; i < p->raw_count; i++)
        p->first_raw[p->raw[i].layer + 1] = i + 1;
    for (int32_t l = 0; l < p->model->layer_count; l++) /* layers that are not used */
        if (p->first_raw[l + 1] < p->first_raw[l])
            p->first_raw[l + 1] = p->first_raw[l];
    return SAP_OK;
}

static sap_status check_size(const sap_layer *layer, const sap_shape *shape, sap_error *err) {
    int64_t values = 1;
    for (int32_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] < 1 || shape->dims[i] > SAP_TENSOR_MOST / values)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: its output is empty or has more than %lld values",
                                 layer->where, (long long)SAP_TENSOR_MOST);
        values *= shape->dims[i];
    }
    return SAP_OK;
}

/* Makes the node of `raw`, whose inputs all stand in the model already. */
static sap_status place_node(parser *p, raw_node *raw, sap_error *err) {
    sap_model *model = p->model;
    sap_layer *layer = model->layers[raw->layer];
    const sap_layer_class *class_of = layer->class_of;
    if (raw->input_count < class_of->inputs_least || raw->input_count > class_of->inputs_most)
        return sap_error_set(err, SAP_EFORMAT, "%s: has %d inputs", layer->where, raw->input_count);
    sap_node *node = &model->nodes[model->node_count];
    int32_t *inputs = sap_arena_array(&model->arena, (size_t)raw->input_count + 1, sizeof *inputs);
    sap_shape *shapes = sap_arena_array(&model->arena, (size_t)raw->input_count + 1, sizeof *shapes);
    if (!inputs || !shapes)
        return sap_error_memory(err, p->where);
    bool first = true;
    for (int32_t i = 0; i < model->node_count; i++)
        first = first && model->nodes[i].layer != layer;
    bool differentiate = false;
    for (int32_t i = 0; i < raw->input_count; i++) {
        inputs[i] = find_raw(p, raw->inputs[i][0], raw->inputs[i][1])->node;
        shapes[i] = model->nodes[inputs[i]].shape;
        differentiate = differentiate || model->nodes[inputs[i]].differentiate;
    }
    *node = (sap_node){.layer = layer, .use = raw->use, .input_count = raw->input_count, .inputs = inputs};
    SAP_TRY((class_of->build ? class_of->build : sap_build_same)(layer, shapes, raw->input_count, first, &node->shape,
                                                                 err));
    SAP_TRY(check_size(layer, &node->shape, err));
    for (int32_t i = 0; i < layer->weight_count; i++)
        differentiate = differentiate || layer->weights[i].trainable;
    node->differentiate = differentiate;
    node->tensor = class_of->view ? model->nodes[inputs[0]].tensor : model->tensor_count++;
    if (!class_of->view)
        model->tensor_values[node->tensor] = sap_shape_values(&node->shape);
    raw->node = model->node_count++;
    return SAP_OK;
}

/* Places nodes in topological order: round after round, those whose inputs are there. */
static sap_status place_nodes(parser *p, sap_error *err) {
    sap_model *model = p->model;
    model->nodes = sap_arena_array(&model->arena, p->raw_count, sizeof *model->nodes);
    model->tensor_values = sap_arena_array(&model->arena, p->raw_count, sizeof *model->tensor_values);
    if (!model->nodes || !model->tensor_values)
        return sap_error_memory(err, p->where);
    while ((size_t)model->node_count < p->raw_count) {
        int32_t before = model->node_count;
        for (size_t r = 0; r < p->raw_count; r++) {
            raw_node *raw = &p->raw[r];
            bool ready = raw->node < 0;
            for (int32_t i = 0; ready && i < raw->input_count; i++) {
                const raw_node *input = find_raw(p, raw->inputs[i][0], raw->inputs[i][1]);
                if (!input)
                    return sap_error_set(
                        err, SAP_EFORMAT, "%s: layer \"%s\" reads use %d of layer \"%s\", which there is not", p->where,
                        model->layers[raw->layer]->name, raw->inputs[i][1], model->layers[raw->inputs[i][0]]->name);
                ready = input->node >= 0;
            }
            if (ready)
                SAP_TRY(place_node(p, raw, err));
        }
        if (model->node_count == before)
            return sap_error_set(err, SAP_EFORMAT, "%s: the layers read each other in a circle", p->where);
    }
    return SAP_OK;
}

/* input_layers and output_layers: [name, 0, 0], a list of those, or an object of those. Appends nodes to `out`. */
static sap_status read_ends(parser *p, const json_t *value, int32_t *out, int32_t *count, sap_error *err) {
    if (json_is_string(json_array_get(value, 0))) {
        int32_t layer = find_layer(p->model, json_string_value(json_array_get(value, 0)));
        const json_t *use = json_array_get(value, 1);
        const raw_node *raw = layer >= 0 && json_is_integer(use) ? find_raw(p, layer, json_integer_value(use)) : NULL;
        if (!raw || *count >= SAP_LAYERS_MOST)
            return sap_error_set(err, SAP_EFORMAT, "%s: the model begins or ends at \"%.100s\", which there is not",
                                 p->where, json_string_value(json_array_get(value, 0)));
        out[(*count)++] = raw->node;
        return SAP_OK;
    }
    const char *key;
    json_t *item;
    size_t i;
    json_array_foreach(value, i, item) {
        SAP_TRY(read_ends(p, item, out, count, err));
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        SAP_TRY(read_ends(p, item, out, count, err));
    }
    return SAP_OK;
}

static sap_status find_ends(parser *p, const json_t *config, bool functional, sap_error *err) {
    sap_model *model = p->model;
    model->inputs = sap_arena_array(&model->arena, SAP_LAYERS_MOST, sizeof *model->inputs);
    model->outputs = sap_arena_array(&model->arena, SAP_LAYERS_MOST, sizeof *model->outputs);
    if (!model->inputs || !model->outputs)
        return sap_error_memory(err, p->where);
    if (functional) {
        SAP_TRY(read_ends(p, json_object_get(config, "input_layers"), model->inputs, &model->input_count, err));
        SAP_TRY(read_ends(p, json_object_get(config, "output_layers"), model->outputs, &model->output_count, err));
    } else {
        model->inputs[model->input_count++] = 0;
        model->outputs[model->output_count++] = model->node_count - 1;
    }
    if (model->input_count < 1 || model->output_count < 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: the model has no input or no output", p->where);
    for (int32_t i = 0; i < model->input_count; i++) {
        const sap_node *node = &model->nodes[model->inputs[i]];
        if (strcmp(node->layer->class_of->name, "InputLayer") != 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model's input is not an InputLayer",
                                 node->layer->where);
        for (int32_t j = 0; j < i; j++)
            if (model->inputs[j] == model->inputs[i])
                return sap_error_set(err, SAP_EFORMAT, "%s: the model lists its input \"%s\" twice", p->where,
                                     node->layer->name);
    }
    int32_t input_layers = 0;
    for (int32_t i = 0; i < model->node_count; i++)
        input_layers += strcmp(model->nodes[i].layer->class_of->name, "InputLayer") == 0;
    if (input_layers != model->input_count)
        return sap_error_set(err, SAP_EFORMAT, "%s: %d layers are inputs, but the model lists %d", p->where,
                             input_layers, model->input_count);
    return SAP_OK;
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

/* A Sequential model without an InputLayer says its input's shape elsewhere. Adds that layer; *made owns its JSON. */
static sap_status add_input_layer(parser *p, const json_t *root, const json_t *config, const json_t *first,
                                  json_t **made, sap_error *err) {
    const json_t *shape = json_object_get(config, "build_input_shape");
    if (!json_is_array(shape))
        shape = json_object_get(json_object_get(root, "build_config"), "input_shape");
    if (!json_is_array(shape))
        shape = json_object_get(json_object_get(first, "config"), "batch_input_shape");
    if (!json_is_array(shape))
        return sap_error_set(err, SAP_EFORMAT, "%s: the model was saved before the shape of its input was known",
                             p->where);
    *made =
        json_pack("{s:s, s:{s:s, s:O}}", "class_name", "InputLayer", "config", "name", "input", "batch_shape", shape);
    if (!*made)
        return sap_error_memory(err, p->where);
    return parse_layer(p, *made, err);
}

static sap_status parse_model(parser *p, const json_t *root, json_t **made, sap_error *err) {
    sap_model *model = p->model;
    const char *class_name = json_string_value(json_object_get(root, "class_name"));
    const json_t *config = json_object_get(root, "config");
    const json_t *layers = json_is_array(config) ? config : json_object_get(config, "layers");
    bool sequential = class_name && strcmp(class_name, "Sequential") == 0;
    bool functional = class_name && (strcmp(class_name, "Functional") == 0 || strcmp(class_name, "Model") == 0);
    if (!class_name || !config)
        return sap_error_set(err, SAP_EFORMAT, "%s: not a Keras model: needs \"class_name\" and \"config\"", p->where);
    if (!sequential && !functional)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: the model is of the class \"%.100s\"; Sequential and Functional are supported",
                             p->where, class_name);
    size_t count = json_array_size(layers);
    if (count < 1 || count > SAP_LAYERS_MOST - 1)
        return sap_error_set(err, SAP_EFORMAT, "%s: the model has %zu layers", p->where, count);
    const char *title = json_string_value(json_object_get(config, "name"));
    model->title = sap_arena_format(&model->arena, "%s", title ? title : "model");
    model->layers = sap_arena_array(&model->arena, count + 1, sizeof(sap_layer *));
    p->entries = sap_arena_array(&model->arena, count + 1, sizeof *p->entries);
    if (!model->title || !model->layers || !p->entries)
        return sap_error_memory(err, p->where);
    if (sequential) {
        const json_t *first = json_array_get(layers, 0);
        const char *first_class = json_string_value(json_object_get(first, "class_name"));
        if (!first_class || strcmp(first_class, "InputLayer") != 0)
            SAP_TRY(add_input_layer(p, root, config, first, made, err));
    }
    for (size_t i = 0; i < count; i++)
        SAP_TRY(parse_layer(p, json_array_get(layers, i), err));
    SAP_TRY(sequential ? chain_nodes(p, err) : read_nodes(p, err));
    SAP_TRY(index_raw(p, err));
    SAP_TRY(place_nodes(p, err));
    return find_ends(p, config, functional, err);
}

sap_status sap_graph_parse(sap_model *model, sap_error *err) {
    parser p = {.model = model, .where = sap_arena_format(&model->arena, "%s: config.json", model->name)};
    if (!p.where)
        return sap_error_memory(err, model->name);
    json_error_t place;
    json_t *made = NULL, *root = json_loadb(model->config, model->config_length, 0, &place);
    if (!root)
        return sap_error_set(err, SAP_EFORMAT, "%s: line %d, column %d: %s", p.where, place.line, place.column,
                             place.text);
    sap_status status = parse_model(&p, root, &made, err);
    for (size_t i = 0; i < p.raw_count; i++)
        free(p.raw[i].inputs);
    free(p.raw);
    json_decref(made);
    json_decref(root);
    return status;
}
