/* Models: opening, weights, what they look like from outside. */
#include "keras_file.h"
#include "legacy.h"
#include "training_config.h"

#include <stdlib.h>

/* ---- Weights -------------------------------------------------------------------------------------------- */

static int64_t weight_values(const sap_layer_weight *weight) {
    return sap_shape_values(&weight->shape);
}

/* Gives every weight its place in the flat array: trainable ones first, each kind in Keras' order. */
static sap_status place_weights(sap_model *model, sap_error *err) {
    int64_t counts[2] = {0, 0};
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t l = 0; l < model->layer_count; l++) {
            sap_layer *layer = model->layers[l];
            for (int32_t w = 0; w < layer->weight_count; w++) {
                sap_layer_weight *weight = &layer->weights[w];
                if (weight->trainable != (pass == 0))
                    continue;
                if (weight_values(weight) > SAP_PARAMETERS_MOST - counts[0] - counts[1])
                    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model has more than %lld parameters",
                                         layer->where, (long long)SAP_PARAMETERS_MOST);
                weight->offset = counts[0] + counts[1];
                counts[pass] += weight_values(weight);
                model->weight_count++;
            }
        }
    }
    model->trainable_count = counts[0];
    model->value_count = counts[0] + counts[1];
    return SAP_OK;
}

sap_status sap_model_allocate(sap_model *model, sap_error *err) {
    SAP_TRY(place_weights(model, err));
    size_t bytes = ((size_t)model->value_count * sizeof(float) + 127) / 64 * 64;
    model->values = aligned_alloc(64, bytes);
    model->weights = sap_arena_array(&model->arena, (size_t)model->weight_count + 1, sizeof *model->weights);
    model->weight_of = sap_arena_array(&model->arena, (size_t)model->weight_count + 1, sizeof(sap_layer_weight *));
    if (!model->values || !model->weights || !model->weight_of)
        return sap_error_memory(err, model->name);
    memset(model->values, 0, bytes);
    int32_t count = 0;
    for (int32_t l = 0; l < model->layer_count; l++) {
        sap_layer *layer = model->layers[l];
        for (int32_t w = 0; w < layer->weight_count; w++) {
            const sap_layer_weight *weight = &layer->weights[w];
            model->weight_of[count] = weight;
            model->weights[count] = (sap_weight){
                .path = sap_arena_format(&model->arena, "%s/%s", layer->name, weight->name),
                .rank = weight->shape.rank,
                .shape = weight->shape.dims,
                .data = model->values + weight->offset,
                .trainable = weight->trainable,
            };
            if (!model->weights[count++].path)
                return sap_error_memory(err, model->name);
        }
    }
    return SAP_OK;
}

sap_status sap_model_reset(sap_model *model, uint64_t seed, sap_error *err) {
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_weight *weight = &model->weights[i];
        sap_status status = sap_initializer_run(&model->weight_of[i]->initializer, weight->rank, weight->shape,
                                                sap_mix(seed, (uint64_t)i), weight->data, err);
        if (status != SAP_OK)
            return sap_error_prefix(err, "%s: %s", model->name, weight->path);
        const sap_layer_weight *declared = model->weight_of[i];
        for (int64_t k = declared->ones_from; k < declared->ones_from + declared->ones; k++)
            weight->data[k] = 1;
    }
    sap_optimizer_release(&model->optimizer);
    return SAP_OK;
}

/* ---- Opening -------------------------------------------------------------------------------------------- */

static sap_tensor_info *describe_nodes(sap_model *model, const int32_t *nodes, const char *const *names,
                                       int32_t count) {
    sap_tensor_info *info = sap_arena_array(&model->arena, (size_t)count, sizeof *info);
    for (int32_t i = 0; info && i < count; i++) {
        const sap_node *node = &model->nodes[nodes[i]];
        info[i] = (sap_tensor_info){names ? names[i] : node->layer->name, node->shape.rank, node->shape.dims,
                                    node->layer->activation.kind == SAP_SIGMOID};
    }
    return info;
}

static sap_status describe_ends(sap_model *model, sap_error *err) {
    model->input_info = describe_nodes(model, model->inputs, NULL, model->input_count);
    model->output_info = describe_nodes(model, model->outputs, model->output_names, model->output_count);
    return model->input_info && model->output_info ? SAP_OK : sap_error_memory(err, model->name);
}

static sap_status summarize(sap_model *model, sap_error *err) {
    sap_text text = {0};
    sap_text_add(&text, "%s\n", model->title);
    for (int32_t l = 0; l < model->layer_count; l++) {
        const sap_layer *layer = model->layers[l];
        const sap_node *node = NULL;
        for (int32_t i = 0; !node && i < model->node_count; i++)
            node = model->nodes[i].layer == layer ? &model->nodes[i] : NULL;
        int64_t parameters = 0;
        for (int32_t w = 0; w < layer->weight_count; w++)
            parameters += weight_values(&layer->weights[w]);
        char shape[200] = "-";
        if (node)
            sap_shape_text(&node->shape, true, shape, sizeof shape);
        sap_text_add(&text, "%-24s %-20s %-20s %10lld\n", layer->name, layer->class_of->name, shape,
                     (long long)parameters);
    }
    sap_text_add(&text, "%lld parameters, %lld of them trainable\n", (long long)model->value_count,
                 (long long)model->trainable_count);
    model->summary = text.data;
    return text.failed ? sap_error_memory(err, model->name) : SAP_OK;
}

static sap_status open_keras(sap_model *model, const char *path, sap_error *err) {
    sap_keras_file file;
    SAP_TRY(sap_model_unpack(path, &model->arena, &file, err));
    model->config = file.config;
    model->config_length = file.config_length;
    model->metadata = file.metadata;
    SAP_TRY(sap_legacy_convert(model, &file, err));
    SAP_TRY(sap_graph_parse(model, err));
    SAP_TRY(sap_sequence_find(model, err));
    SAP_TRY(sap_model_check(model, &file, err));
    SAP_TRY(sap_model_allocate(model, err));
    SAP_TRY(sap_model_fill(model, &file, err));
    return sap_training_config_read(model, &file, err);
}

static sap_status open_json(sap_model *model, const char *path, uint64_t seed, sap_error *err) {
    char *text = NULL;
    size_t length = 0;
    SAP_TRY(sap_file_load(path, SAP_CONFIG_BYTES, &text, &length, err));
    model->config = sap_arena_text(&model->arena, text, length);
    model->config_length = length;
    free(text);
    if (!model->config)
        return sap_error_memory(err, path);
    SAP_TRY(sap_legacy_convert(model, NULL, err));
    SAP_TRY(sap_graph_parse(model, err));
    SAP_TRY(sap_sequence_find(model, err));
    SAP_TRY(sap_model_allocate(model, err));
    SAP_TRY(sap_training_config_read(model, NULL, err));
    return sap_model_reset(model, seed, err);
}

/* Which kind of file it is, by its first bytes. */
static sap_status look_at(const char *path, char first[8], sap_error *err) {
    FILE *file = fopen(path, "rbe");
    if (!file)
        return sap_error_errno(err, path);
    memset(first, 0, 8);
    size_t got = fread(first, 1, 8, file);
    bool failed = ferror(file) != 0;
    sap_status status = failed ? sap_error_errno(err, path) : SAP_OK;
    (void)fclose(file);
    if (status == SAP_OK && got == 0)
        status = sap_error_set(err, SAP_EFORMAT, "%s: the file is empty", path);
    return status;
}

sap_status sap_model_open(const char *path, uint64_t seed, sap_model **out, sap_error *err) {
    char first[8];
    SAP_TRY(look_at(path, first, err));
    sap_model *model = calloc(1, sizeof *model);
    if (!model)
        return sap_error_memory(err, path);
    sap_status status = SAP_OK;
    size_t length;
    const char *base = sap_text_base_name(path, &length);
    model->name = sap_arena_text(&model->arena, base, length);
    if (!model->name)
        status = sap_error_memory(err, path);
    else if (memcmp(first, "PK", 2) == 0 || memcmp(first, "\x89HDF", 4) == 0)
        status = open_keras(model, path, err);
    else
        status = open_json(model, path, seed, err);
    if (status == SAP_OK)
        status = describe_ends(model, err);
    if (status == SAP_OK)
        status = summarize(model, err);
    if (status != SAP_OK) {
        sap_model_close(model);
        return status;
    }
    *out = model;
    return SAP_OK;
}

void sap_model_close(sap_model *model) {
    if (!model)
        return;
    sap_optimizer_release(&model->optimizer);
    free(model->values);
    free(model->summary);
    sap_arena_release(&model->arena);
    free(model);
}

/* ---- Looking -------------------------------------------------------------------------------------------- */

size_t sap_model_input_count(const sap_model *model) {
    return (size_t)model->input_count;
}

const sap_tensor_info *sap_model_input(const sap_model *model, size_t index) {
    return index < (size_t)model->input_count ? &model->input_info[index] : NULL;
}

size_t sap_model_output_count(const sap_model *model) {
    return (size_t)model->output_count;
}

const sap_tensor_info *sap_model_output(const sap_model *model, size_t index) {
    return index < (size_t)model->output_count ? &model->output_info[index] : NULL;
}

int64_t sap_model_parameter_count(const sap_model *model) {
    return model->value_count;
}

const char *sap_model_summary(const sap_model *model) {
    return model->summary;
}

size_t sap_model_weight_count(const sap_model *model) {
    return (size_t)model->weight_count;
}

const sap_weight *sap_model_weight(sap_model *model, size_t index) {
    return index < (size_t)model->weight_count ? &model->weights[index] : NULL;
}
