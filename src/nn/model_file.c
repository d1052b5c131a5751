/* Models to and from the contents of `.keras` files. */
#include "keras_file.h"
#include "nn_internal.h"

#include <stdlib.h>

#define FILE_MOST ((size_t)16 << 30) /* SAP_PARAMETERS_MOST with an optimizer take 12 GiB */

static sap_status find_plugin(const sap_keras_plugin **out, sap_error *err) {
    const void *table = NULL;
    SAP_TRY(sap_plugin_find("keras", &table, err));
    *out = table;
    return SAP_OK;
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

sap_status sap_model_unpack(const char *path, sap_arena *arena, sap_keras_file *out, sap_error *err) {
    const sap_keras_plugin *plugin = NULL;
    char *bytes = NULL;
    size_t length = 0;
    SAP_TRY(find_plugin(&plugin, err));
    SAP_TRY(sap_file_load(path, FILE_MOST, &bytes, &length, err));
    sap_status status = plugin->unpack(path, bytes, length, arena, out, err);
    free(bytes);
    return status;
}

/* Copies an array of the file, if it has the shape of the weight. */
static sap_status take(const sap_model *model, const sap_keras_file *file, const char *path, const sap_weight *weight,
                       float *values, sap_error *err) {
    const sap_keras_array *array = sap_keras_file_find(file, path);
    bool same = array && array->values && array->rank == weight->rank &&
                memcmp(array->shape, weight->shape, (size_t)weight->rank * sizeof *weight->shape) == 0;
    if (!same)
        return sap_error_set(err, SAP_EFORMAT, "%s: has no \"%s\" of the shape of %s", model->name, path, weight->path);
    size_t count = 1;
    for (int32_t i = 0; i < weight->rank; i++)
        count *= (size_t)weight->shape[i];
    memcpy(values, array->values, count * sizeof *values);
    return SAP_OK;
}

sap_status sap_model_fill(sap_model *model, const sap_keras_file *file, sap_error *err) {
    int32_t at = 0;
    for (int32_t l = 0; l < model->layer_count; l++) {
        for (int32_t w = 0; w < model->layers[l]->weight_count; w++, at++) {
            char path[400];
            (void)snprintf(path, sizeof path, "%s/vars/%d", model->layers[l]->group, w);
            SAP_TRY(take(model, file, path, &model->weights[at], model->weights[at].data, err));
        }
    }
    return SAP_OK;
}

/* Number in optimizer/vars of slot `slot` of trainable weight number `weight`: behind iteration and learning rate. */
static int32_t slot_number(const sap_optimizer_state *state, int32_t weight, int32_t slot) {
    return 2 + weight * state->slot_count + slot;
}

sap_status sap_model_fill_optimizer(const sap_model *model, const sap_keras_file *file, sap_optimizer_state *state,
                                    sap_error *err) {
    const sap_keras_array *iteration = sap_keras_file_find(file, "optimizer/vars/0");
    if (!iteration || iteration->values || iteration->integer < 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: has no iteration of an optimizer", model->name);
    state->iteration = iteration->integer;
    int32_t trainable = 0;
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_weight *weight = &model->weights[i];
        if (!weight->trainable)
            continue;
        for (int32_t slot = 0; slot < state->slot_count; slot++) {
            char path[100];
            (void)snprintf(path, sizeof path, "optimizer/vars/%d", slot_number(state, trainable, slot));
            SAP_TRY(take(model, file, path, weight, state->slots[slot] + model->weight_of[i]->offset, err));
        }
        trainable++;
    }
    return SAP_OK;
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

typedef struct writer {
    const sap_model *model;
    sap_arena arena;
    sap_keras_file file;
    bool failed; /* out of memory */
} writer;

static void put_group(writer *w, const char *path, const char *name) {
    w->failed = w->failed || !path;
    w->file.groups[w->file.group_count++] = (sap_keras_group){path, name};
}

static sap_keras_array *put_array(writer *w, const char *path) {
    sap_keras_array *array = &w->file.arrays[w->file.array_count++];
    w->failed = w->failed || !path;
    *array = (sap_keras_array){.path = path};
    return array;
}

static void put_weight(writer *w, const char *path, const sap_weight *weight, float *values) {
    sap_keras_array *array = put_array(w, path);
    array->rank = weight->rank;
    memcpy(array->shape, weight->shape, (size_t)weight->rank * sizeof *weight->shape);
    array->values = values;
}

static void put_layers(writer *w) {
    const sap_model *model = w->model;
    int32_t at = 0;
    put_group(w, "vars", model->title);
    for (int32_t l = 0; l < model->layer_count; l++) {
        const sap_layer *layer = model->layers[l];
        put_group(w, sap_arena_format(&w->arena, "%s/vars", layer->group), layer->name);
        for (int32_t i = 0; i < layer->weight_count; i++, at++)
            put_weight(w, sap_arena_format(&w->arena, "%s/vars/%d", layer->group, i), &model->weights[at],
                       model->weights[at].data);
    }
}

static void put_optimizer(writer *w, float *learning_rate) {
    const sap_model *model = w->model;
    const sap_optimizer_state *state = &model->optimizer;
    if (state->iteration == 0)
        return;
    *learning_rate = (float)state->settings.learning_rate;
    put_group(w, "optimizer/vars", state->settings.kind == SAP_OPTIMIZER_ADAM ? "adam" : "sgd");
    put_array(w, "optimizer/vars/0")->integer = state->iteration;
    put_array(w, "optimizer/vars/1")->values = learning_rate;
    int32_t trainable = 0;
    for (int32_t i = 0; i < model->weight_count; i++) {
        if (!model->weights[i].trainable)
            continue;
        for (int32_t slot = 0; slot < state->slot_count; slot++)
            put_weight(w, sap_arena_format(&w->arena, "optimizer/vars/%d", slot_number(state, trainable, slot)),
                       &model->weights[i], state->slots[slot] + model->weight_of[i]->offset);
        trainable++;
    }
}

sap_status sap_model_store(const sap_model *model, const char *path, const char *extra, sap_error *err) {
    const sap_keras_plugin *plugin = NULL;
    SAP_TRY(find_plugin(&plugin, err));
    writer w = {.model = model};
    float learning_rate = 0;
    void *bytes = NULL;
    size_t length = 0;
    sap_status status = SAP_OK;
    w.file.groups = sap_arena_array(&w.arena, (size_t)model->layer_count + 2, sizeof *w.file.groups);
    w.file.arrays = sap_arena_array(&w.arena, (size_t)model->weight_count * 3 + 2, sizeof *w.file.arrays);
    if (w.file.groups && w.file.arrays) {
        put_layers(&w);
        put_optimizer(&w, &learning_rate);
    }
    if (!w.file.groups || !w.file.arrays || w.failed) {
        status = sap_error_memory(err, path);
        goto done;
    }
    w.file.config = model->config;
    w.file.config_length = model->config_length;
    /* of a model that came as JSON: the format that is written here is Keras 3's */
    w.file.metadata =
        model->metadata ? model->metadata : "{\"keras_version\": \"3.0.0\", \"date_saved\": \"1980-01-01@00:00:00\"}";
    w.file.extra = extra;
    status = plugin->pack(path, &w.file, &bytes, &length, err);
    if (status == SAP_OK)
        status = sap_file_store(path, bytes, length, err);
done:
    free(bytes);
    sap_arena_release(&w.arena);
    return status;
}

sap_status sap_model_write(const sap_model *model, const char *path, sap_error *err) {
    return sap_model_store(model, path, NULL, err);
}
