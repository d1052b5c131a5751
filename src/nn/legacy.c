/* Model JSON of Keras 1 and 2 turned into what Keras 3 writes: names of classes and settings, nodes, initialisers.
 *
 * Sources: the converters of Keras 2 itself (legacy/interfaces.py, saving.py) and what Keras 3 takes in
 * deserialize_keras_object.
 */
#include "legacy.h"

#include <stdlib.h>

/* Classes by another name. */
static const struct {
    const char *old, *now;
} classes[] = {
    {"Convolution1D", "Conv1D"},
    {"MaxPool1D", "MaxPooling1D"},
    {"AvgPool1D", "AveragePooling1D"},
    {"GlobalMaxPool1D", "GlobalMaxPooling1D"},
    {"Model", "Functional"},
    {"GlobalAvgPool1D", "GlobalAveragePooling1D"},
    {"BatchNormalizationV1", "BatchNormalization"},
    {"BatchNormalizationV2", "BatchNormalization"},
    {"GRUV2", "GRU"},
    {"LSTMV2", "LSTM"},
};

/* Settings by another name; of any class where class_name is NULL. */
static const struct {
    const char *class_name, *old, *now;
} renamed[] = {
    {NULL, "output_dim", "units"},
    {NULL, "init", "kernel_initializer"},
    {NULL, "inner_init", "recurrent_initializer"},
    {NULL, "inner_activation", "recurrent_activation"},
    {NULL, "bias", "use_bias"},
    {NULL, "W_regularizer", "kernel_regularizer"},
    {NULL, "U_regularizer", "recurrent_regularizer"},
    {NULL, "b_regularizer", "bias_regularizer"},
    {NULL, "W_constraint", "kernel_constraint"},
    {NULL, "b_constraint", "bias_constraint"},
    {NULL, "dropout_W", "dropout"},
    {NULL, "dropout_U", "recurrent_dropout"},
    {"Dropout", "p", "rate"},
    {"SpatialDropout1D", "p", "rate"},
    {"GaussianNoise", "sigma", "stddev"},
    {"LeakyReLU", "alpha", "negative_slope"},
    {"InputLayer", "batch_input_shape", "batch_shape"},
    {"Conv1D", "nb_filter", "filters"},
    {"Conv1D", "filter_length", "kernel_size"},
    {"Conv1D", "subsample_length", "strides"},
    {"Conv1D", "border_mode", "padding"},
    {"MaxPooling1D", "pool_length", "pool_size"},
    {"AveragePooling1D", "pool_length", "pool_size"},
    {"MaxPooling1D", "stride", "strides"},
    {"AveragePooling1D", "stride", "strides"},
    {"BatchNormalization", "beta_init", "beta_initializer"},
    {"BatchNormalization", "gamma_init", "gamma_initializer"},
};

/* Settings that Keras 3 does not take. `idle`: the value that asks for nothing, as JSON; any other is unsupported.
 * NULL: the value does not change results. */
static const struct {
    const char *class_name, *key, *idle;
} dropped[] = {
    {NULL, "implementation", NULL},
    {NULL, "consume_less", NULL},
    {NULL, "time_major", "false"},
    {NULL, "input_dim", NULL},
    {NULL, "input_length", NULL},
    {NULL, "batch_input_shape", NULL},
    {NULL, "input_dtype", NULL},
    {"BatchNormalization", "mode", "0"},
    {"BatchNormalization", "fused", NULL},
    {"BatchNormalization", "virtual_batch_size", "null"},
    {"BatchNormalization", "adjustment", "null"},
    {"BatchNormalization", "renorm", "false"},
    {"BatchNormalization", "renorm_clipping", NULL},
    {"BatchNormalization", "renorm_momentum", NULL},
    {"MultiHeadAttention", "query_shape", NULL},
    {"MultiHeadAttention", "key_shape", NULL},
    {"MultiHeadAttention", "value_shape", NULL},
    {"InputLayer", "ragged", "false"},
    {"TimeDistributed", "input_dtype", NULL},
};

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool of_class(const char *asked, const char *class_name) {
    return !asked || strcmp(asked, class_name) == 0;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), wanted = strlen(end);
    return length >= wanted && strcmp(text + length - wanted, end) == 0;
}

static void rename_key(json_t *object, const char *old, const char *now) {
    json_t *value = json_object_get(object, old);
    if (!value)
        return;
    if (!json_object_get(object, now))
        (void)json_object_set(object, now, value);
    (void)json_object_del(object, old);
}

static void set_module(json_t *object, const char *module) {
    (void)json_object_set_new(object, "module", json_string(module));
    (void)json_object_set_new(object, "registered_name", json_null());
}

typedef struct upgrade {
    const char *where;
    bool old;             /* Keras 1 or 2 wrote it, not a hand or Keras 3 in the old format */
    const json_t *layers; /* of the model that is worked on */
    bool nested;          /* it stands in another one */
    const char *wrapper;  /* name of the layer that the one in hand stands in; NULL: none */
    int part, parts;      /* the part of the wrapper's weights that belong to it */
    const sap_keras_file *file;
    sap_error *err;
} upgrade;

/* ---- Settings of layers --------------------------------------------------------------------------------- */

/* An initialiser, regulariser or constraint: {"class_name", "config"}, or Keras 1's flat {"name", settings …}. */
static void upgrade_part(json_t *config, const char *key, json_t *value) {
    bool initializer = ends_with(key, "_initializer"), regularizer = ends_with(key, "_regularizer");
    if (!json_is_object(value))
        return;
    if (!json_object_get(value, "class_name") && json_is_string(json_object_get(value, "name"))) {
        json_t *settings = json_deep_copy(value);
        (void)json_object_del(settings, "name");
        const char *name = regularizer ? "L1L2" : text_of(value, "name");
        value = json_pack("{s:s, s:o}", "class_name", name, "config", settings);
        if (!value || json_object_set_new(config, key, value) != 0)
            return;
    }
    json_t *settings = json_object_get(value, "config");
    (void)json_object_del(settings, "dtype");
    if (strcmp(text_of(settings, "distribution"), "normal") == 0)
        (void)json_object_set_new(settings, "distribution", json_string("truncated_normal"));
    rename_key(settings, "m", "max_value"); /* MaxNorm of Keras 1 */
    set_module(value, initializer ? "keras.initializers" : regularizer ? "keras.regularizers" : "keras.constraints");
}

static void upgrade_parts(json_t *config) {
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(config, next, key, value) {
        if (ends_with(key, "_initializer") || ends_with(key, "_regularizer") || ends_with(key, "_constraint"))
            upgrade_part(config, key, value);
    }
    if (json_is_object(json_object_get(config, "dtype"))) { /* a policy of Keras 2 */
        json_t *name = json_object_get(json_object_get(json_object_get(config, "dtype"), "config"), "name");
        (void)json_object_set(config, "dtype", name ? name : json_null());
    }
}

static sap_status drop_settings(json_t *config, const char *class_name, const upgrade *u) {
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++) {
        const char *key = dropped[i].key;
        json_t *value = json_object_get(config, key);
        if (!value || !of_class(dropped[i].class_name, class_name))
            continue;
        if (dropped[i].idle) {
            json_t *idle = json_loads(dropped[i].idle, JSON_DECODE_ANY, NULL);
            bool same = json_equal(idle, value);
            json_decref(idle);
            if (!same)
                return sap_error_set(u->err, SAP_EUNSUPPORTED,
                                     "%s: layer \"%.100s\" (%s): \"%s\", which Keras 3 does not have", u->where,
                                     text_of(config, "name"), class_name, key);
        }
        (void)json_object_del(config, key);
    }
    return SAP_OK;
}

/* Keras 1's Merge was one class for what are several now. */
static sap_status upgrade_merge(json_t *entry, json_t *config, const upgrade *u) {
    static const char *const modes[][2] = {
        {"concat", "Concatenate"}, {"sum", "Add"}, {"mul", "Multiply"}, {"ave", "Average"}, {"max", "Maximum"}};
    const char *mode = text_of(config, "mode");
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i][0], mode) != 0)
            continue;
        json_t *axis = json_incref(json_object_get(config, "concat_axis")), *name = json_object_get(config, "name");
        json_t *fresh = json_pack("{s:O?}", "name", name);
        if (i == 0 && json_is_integer(axis))
            (void)json_object_set(fresh, "axis", axis);
        json_decref(axis);
        (void)json_object_set_new(entry, "class_name", json_string(modes[i][1]));
        (void)json_object_set_new(entry, "config", fresh);
        return SAP_OK;
    }
    return sap_error_set(u->err, SAP_EUNSUPPORTED, "%s: layer \"%.100s\" (Merge) with mode \"%.50s\"", u->where,
                         text_of(config, "name"), mode);
}

/* ---- hard_sigmoid ----------------------------------------------------------------------------------------- */

/* Gates of a recurrent layer, one after another in the columns of its weights. */
typedef struct gates {
    const char *class_name;
    int64_t count;
    uint32_t recurrent, own; /* bit i: gate i is the recurrent activation's, or the activation's alone */
} gates;

static const gates gate_table[] = {
    {"Dense", 1, 0, 1}, {"Conv1D", 1, 0, 1}, {"SimpleRNN", 1, 0, 1}, {"GRU", 3, 3, 4}, {"LSTM", 4, 11, 0}};

/* Multiplies the columns of some gates. */
static void multiply_gates(const sap_keras_array *array, int64_t count, uint32_t which, float factor) {
    int64_t columns = array->rank ? array->shape[array->rank - 1] : 0, values = 1;
    for (int32_t i = 0; i < array->rank; i++)
        values *= array->shape[i];
    for (int64_t k = 0; array->values && columns >= count && k < values; k++)
        if (which >> (k % columns * count / columns) & 1)
            array->values[k] *= factor;
}

/* hard_sigmoid was 0.2 x + 0.5 and is x / 6 + 0.5: what it is taken of is multiplied by 1.2 instead, by its weights. */
static sap_status upgrade_hard_sigmoid(const json_t *config, const char *class_name, const upgrade *u) {
    bool own = strcmp(text_of(config, "activation"), "hard_sigmoid") == 0;
    bool recurrent = strcmp(text_of(config, "recurrent_activation"), "hard_sigmoid") == 0;
    if (!own && !recurrent)
        return SAP_OK;
    uint32_t which = 0;
    int64_t count = 0;
    for (size_t i = 0; i < sizeof gate_table / sizeof *gate_table; i++) {
        const gates *g = &gate_table[i];
        if (strcmp(g->class_name, class_name) == 0 && !u->nested && (!own || g->own)) {
            which = (own ? g->own : 0) | (recurrent ? g->recurrent : 0);
            count = g->count;
        }
    }
    if (!which)
        return sap_error_set(
            u->err, SAP_EUNSUPPORTED,
            "%s: layer \"%.100s\" (%s): \"hard_sigmoid\" of Keras 2 is 0.2 x + 0.5, that of Keras 3 is "
            "x / 6 + 0.5, and no weights can make up for it here",
            u->where, text_of(config, "name"), class_name);
    char group[400];
    (void)snprintf(group, sizeof group, "model_weights/%s", u->wrapper ? u->wrapper : text_of(config, "name"));
    const sap_keras_names *names = u->file ? sap_keras_file_list(u->file, group) : NULL;
    for (size_t i = 0; names && i < names->count; i++) {
        char path[1200];
        (void)snprintf(path, sizeof path, "%s/%s", group, names->names[i]);
        const sap_keras_array *array = sap_keras_file_find(u->file, path);
        if (array && (u->parts < 2 || (int)(i * (size_t)u->parts / names->count) == u->part))
            multiply_gates(array, count, which, 1.2F); /* (x / 5) = 1.2 x / 6 */
    }
    return SAP_OK;
}

/* What a setting meant in Keras 2 without being written, or means otherwise in Keras 3. */
static sap_status upgrade_meaning(json_t *config, const char *class_name, const upgrade *u) {
    json_t *axis = json_object_get(config, "axis");
    if (json_is_array(axis) && json_array_size(axis) == 1)
        (void)json_object_set(config, "axis", json_array_get(axis, 0));
    if (!u->old)
        return SAP_OK;
    if (strcmp(class_name, "GRU") == 0 && !json_object_get(config, "reset_after"))
        (void)json_object_set_new(config, "reset_after", json_false());
    if (json_is_null(json_object_get(config, "strides")) && ends_with(class_name, "Conv1D"))
        (void)json_object_set_new(config, "strides", json_integer(1));
    return upgrade_hard_sigmoid(config, class_name, u);
}

/* ---- Nodes ---------------------------------------------------------------------------------------------- */

static bool is_model(const json_t *entry) {
    static const char *const names[] = {"Sequential", "Functional", "Model"};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(text_of(entry, "class_name"), names[i]) == 0)
            return true;
    return false;
}

/* The number that Keras 3 gives a use: nested models had one of their own before the first. */
static json_t *use_of(const json_t *value, const upgrade *u) {
    const char *name = json_string_value(json_array_get(value, 0));
    const json_t *layer;
    size_t i;
    json_array_foreach(u->layers, i, layer) {
        if (strcmp(text_of(layer, "name"), name) == 0 && is_model(layer))
            return json_integer(json_integer_value(json_array_get(value, 1)) - 1);
    }
    return json_incref(json_array_get(value, 1));
}

/* [name, node, tensor] as a tensor. */
static json_t *tensor_of(const json_t *value, const upgrade *u) {
    return json_pack("{s:s, s:{s:[n], s:s, s:[O,o,O]}}", "class_name", "__keras_tensor__", "config", "shape", "dtype",
                     "float32", "keras_history", json_array_get(value, 0), use_of(value, u), json_array_get(value, 2));
}

static bool names_tensor(const json_t *value) {
    return json_is_array(value) && json_array_size(value) >= 3 && json_is_string(json_array_get(value, 0)) &&
           json_is_integer(json_array_get(value, 1)) && json_is_integer(json_array_get(value, 2));
}

/* A node [[name, node, tensor, {arguments}], …] as {"args", "kwargs"}; NULL: it is none. */
static json_t *upgrade_node(const json_t *node, const upgrade *u) {
    json_t *tensors = json_array(), *named = json_object();
    const json_t *item, *value;
    size_t i;
    const char *key;
    if (names_tensor(node)) { /* some versions leave the outer list away */
        json_t *list = json_pack("[O]", node), *made = list ? upgrade_node(list, u) : NULL;
        json_decref(list);
        json_decref(tensors);
        json_decref(named);
        return made;
    }
    json_array_foreach(node, i, item) {
        if (!names_tensor(item)) {
            json_decref(tensors);
            json_decref(named);
            return NULL;
        }
        (void)json_array_append_new(tensors, tensor_of(item, u));
        json_t *arguments = json_array_get(item, 3);
        json_object_foreach(arguments, key, value) {
            json_t *made = names_tensor(value) ? tensor_of(value, u) : json_deep_copy(value);
            (void)json_object_set_new(named, key, made);
        }
    }
    return json_array_size(tensors) == 1 ? json_pack("{s:o, s:o}", "args", tensors, "kwargs", named)
                                         : json_pack("{s:[o], s:o}", "args", tensors, "kwargs", named);
}

static sap_status upgrade_nodes(json_t *entry, const upgrade *u) {
    json_t *nodes = json_object_get(entry, "inbound_nodes"), *node;
    size_t i;
    json_array_foreach(nodes, i, node) {
        if (json_is_object(node))
            continue;
        json_t *made = json_is_array(node) ? upgrade_node(node, u) : NULL;
        if (!made)
            return sap_error_set(u->err, SAP_EFORMAT, "%s: layer \"%.100s\": an input is not [name, node, tensor]",
                                 u->where, text_of(entry, "name"));
        (void)json_array_set_new(nodes, i, made);
    }
    return SAP_OK;
}

/* ---- Layers and models ---------------------------------------------------------------------------------- */

static sap_status upgrade_entry(json_t *entry, const upgrade *u);

/* Sequential, whose config was a list of layers once. The first layer may say the shape of its input. */
static sap_status upgrade_sequential(json_t *entry, const upgrade *u) {
    json_t *config = json_object_get(entry, "config");
    if (json_is_array(config)) {
        const char *name = text_of(entry, "name");
        config = json_pack("{s:s, s:O}", "name", name[0] ? name : "sequential", "layers", config);
        (void)json_object_set_new(entry, "config", config);
    }
    json_t *layers = json_object_get(config, "layers"), *first = json_array_get(layers, 0);
    json_t *shape = json_object_get(json_object_get(first, "config"), "batch_input_shape");
    if (shape && strcmp(text_of(first, "class_name"), "InputLayer") != 0) {
        json_t *input = json_pack("{s:s, s:{s:s+, s:O, s:s}}", "class_name", "InputLayer", "config", "name",
                                  text_of(json_object_get(first, "config"), "name"), "_input", "batch_shape", shape,
                                  "dtype", "float32");
        if (!input || json_array_insert_new(layers, 0, input) != 0)
            return sap_error_memory(u->err, u->where);
    }
    set_module(entry, "keras");
    return SAP_OK;
}

/* Where a model ends, Keras 3 still counts a functional model's own use, but no longer a sequential one's. */
static void upgrade_ends(json_t *ends, const upgrade *u) {
    json_t *layer, *end;
    size_t i;
    if (!names_tensor(ends)) {
        json_array_foreach(ends, i, end) {
            upgrade_ends(end, u);
        }
        return;
    }
    json_array_foreach(u->layers, i, layer) {
        bool same = strcmp(text_of(layer, "name"), json_string_value(json_array_get(ends, 0))) == 0;
        if (same && strcmp(text_of(layer, "class_name"), "Sequential") == 0)
            (void)json_array_set_new(ends, 1, json_integer(json_integer_value(json_array_get(ends, 1)) - 1));
    }
}

static sap_status upgrade_model(json_t *entry, bool sequential, const upgrade *u) {
    if (sequential) {
        SAP_TRY(upgrade_sequential(entry, u));
    } else {
        set_module(entry, "keras.src.models.functional");
        (void)json_object_set_new(entry, "registered_name", json_string("Functional"));
    }
    json_t *config = json_object_get(entry, "config"), *layer;
    size_t i;
    upgrade inside = *u;
    inside.nested = u->layers != NULL;
    inside.layers = json_object_get(config, "layers");
    json_array_foreach(inside.layers, i, layer) {
        if (!json_is_object(layer))
            return sap_error_set(u->err, SAP_EFORMAT, "%s: layer %zu is not an object", u->where, i);
        SAP_TRY(upgrade_entry(layer, &inside));
    }
    if (u->old)
        upgrade_ends(json_object_get(config, "output_layers"), &inside);
    return SAP_OK;
}

/* Whether it is a function of keras.ops, which Keras 3 tells from a layer by its module alone: it is called with two
 * tensors, where a layer gets a list of them. */
static bool is_operation(const json_t *entry) {
    static const char *const never[] = {"NotEqual", "Any", "LogicalOr", "LogicalAnd"};
    static const char *const both[] = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"};
    const char *class_name = text_of(entry, "class_name");
    const json_t *arguments = json_object_get(json_array_get(json_object_get(entry, "inbound_nodes"), 0), "args");
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strcmp(class_name, never[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof both / sizeof *both; i++)
        if (strcmp(class_name, both[i]) == 0)
            return json_array_size(arguments) == 2;
    return false;
}

static sap_status upgrade_layer(json_t *entry, const upgrade *u) {
    json_t *config = json_object_get(entry, "config");
    if (strcmp(text_of(entry, "class_name"), "Merge") == 0) {
        SAP_TRY(upgrade_merge(entry, config, u));
        config = json_object_get(entry, "config");
    }
    const char *class_name = text_of(entry, "class_name");
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if (of_class(renamed[i].class_name, class_name))
            rename_key(config, renamed[i].old, renamed[i].now);
    SAP_TRY(drop_settings(config, class_name, u));
    SAP_TRY(upgrade_meaning(config, class_name, u));
    upgrade_parts(config);
    static const char *const inner[] = {"layer", "backward_layer"};
    upgrade inside = *u;
    inside.wrapper = text_of(config, "name");
    inside.parts = json_is_object(json_object_get(config, inner[1])) ? 2 : 1; /* else both directions are the first's */
    for (inside.part = 0; inside.part < 2; inside.part++)
        if (json_is_object(json_object_get(config, inner[inside.part])))
            SAP_TRY(upgrade_entry(json_object_get(config, inner[inside.part]), &inside));
    set_module(entry, "keras.layers");
    if (is_operation(entry)) {
        set_module(entry, "keras.src.ops.numpy");
        (void)json_object_set(entry, "registered_name", json_object_get(entry, "class_name"));
    }
    return SAP_OK;
}

static sap_status upgrade_entry(json_t *entry, const upgrade *u) {
    if (json_object_get(entry, "module"))
        return SAP_OK;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(text_of(entry, "class_name"), classes[i].old) == 0)
            (void)json_object_set_new(entry, "class_name", json_string(classes[i].now));
    json_t *config = json_object_get(entry, "config");
    const char *class_name = text_of(entry, "class_name");
    bool sequential = strcmp(class_name, "Sequential") == 0, functional = strcmp(class_name, "Functional") == 0;
    if (!json_is_object(config) && !(sequential && json_is_array(config)))
        return sap_error_set(u->err, SAP_EFORMAT, "%s: layer \"%.100s\" has no \"config\"", u->where,
                             text_of(entry, "name"));
    /* both have it: Keras 3 names a functional model's layers by the entry */
    if (!json_object_get(entry, "name") && json_object_get(config, "name"))
        (void)json_object_set(entry, "name", json_object_get(config, "name"));
    if (json_is_object(config) && !json_object_get(config, "name") && json_object_get(entry, "name"))
        (void)json_object_set(config, "name", json_object_get(entry, "name"));
    SAP_TRY(upgrade_nodes(entry, u));
    return sequential || functional ? upgrade_model(entry, sequential, u) : upgrade_layer(entry, u);
}

/* ---- Training ------------------------------------------------------------------------------------------- */

/* A loss or a list or dictionary of those. */
static void upgrade_loss(json_t *loss) {
    const char *key;
    json_t *item;
    size_t i;
    if (json_is_string(json_object_get(loss, "class_name"))) {
        json_t *settings = json_object_get(loss, "config");
        if (strcmp(text_of(settings, "reduction"), "auto") == 0)
            (void)json_object_set_new(settings, "reduction", json_string("sum_over_batch_size"));
        (void)json_object_del(settings, "fn");
        set_module(loss, "keras.losses");
        return;
    }
    json_array_foreach(loss, i, item) {
        upgrade_loss(item);
    }
    json_object_foreach(loss, key, item) {
        upgrade_loss(item);
    }
}

static bool only_text(const json_t *value) {
    const char *key;
    const json_t *item;
    size_t i;
    json_array_foreach(value, i, item) {
        if (!only_text(item))
            return false;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        if (!only_text(item))
            return false;
    }
    return json_is_array(value) || json_is_object(value) || json_is_string(value);
}

/* The compile_config that the training_config of a whole HDF5 file stands for; NULL: it is of no use. */
static json_t *compile_config(const char *training) {
    json_t *root = json_loads(training, 0, NULL), *optimizer = json_object_get(root, "optimizer_config");
    json_t *settings = json_object_get(optimizer, "config"), *metrics = json_object_get(root, "metrics"), *made = NULL;
    if (json_is_object(settings)) {
        static const char *const gone[] = {"decay", "is_legacy_optimizer", "jit_compile"};
        rename_key(settings, "lr", "learning_rate");
        for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) /* Keras 3 leaves a decay out likewise */
            (void)json_object_del(settings, gone[i]);
        if (json_is_null(json_object_get(settings, "epsilon")))
            (void)json_object_del(settings, "epsilon");
        set_module(optimizer, "keras.optimizers");
        upgrade_loss(json_object_get(root, "loss"));
        made = json_pack("{s:O, s:O?, s:O?, s:O?, s:n, s:b, s:i, s:b}", "optimizer", optimizer, "loss",
                         json_object_get(root, "loss"), "loss_weights", json_object_get(root, "loss_weights"),
                         "metrics", only_text(metrics) ? metrics : NULL, "weighted_metrics", "run_eagerly", 0,
                         "steps_per_execution", 1, "jit_compile", 0);
    }
    json_decref(root);
    return made;
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

static sap_status convert(sap_model *model, json_t *root, const sap_keras_file *file, const upgrade *u) {
    SAP_TRY(upgrade_entry(root, u));
    (void)json_object_del(root, "keras_version");
    (void)json_object_del(root, "backend");
    json_t *compiled = file && file->training ? compile_config(file->training) : NULL;
    if (compiled)
        (void)json_object_set_new(root, "compile_config", compiled);
    char *text = json_dumps(root, JSON_REAL_PRECISION(17));
    model->config_length = text ? strlen(text) : 0;
    model->config = text ? sap_arena_text(&model->arena, text, model->config_length) : NULL;
    free(text);
    return model->config ? SAP_OK : sap_error_memory(u->err, model->name);
}

sap_status sap_legacy_convert(sap_model *model, const sap_keras_file *file, sap_error *err) {
    json_t *root = json_loadb(model->config, model->config_length, 0, NULL);
    sap_status status = SAP_OK;
    if (json_is_object(root) && !json_object_get(root, "module")) {
        upgrade u = {.where = model->name, .file = file, .err = err};
        const char *version = file && file->version ? file->version : text_of(root, "keras_version");
        u.old = version[0] == '1' || version[0] == '2' || (file && file->whole && !file->version);
        status = convert(model, root, file, &u);
    }
    json_decref(root);
    return status;
}
