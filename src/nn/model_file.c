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

/* Where weight w of a layer stands in model.weights.h5: numbers count inside each group. */
static void weight_path(const sap_layer *layer, int32_t w, char *path, size_t capacity) {
    const char *group = layer->weights[w].group;
    int32_t number = 0;
    for (int32_t i = 0; i < w; i++) {
        const char *other = layer->weights[i].group;
        number += group && other ? strcmp(group, other) == 0 : group == other;
    }
    (void)snprintf(path, capacity, "%s%s%s/vars/%d", layer->group, group ? "/" : "", group ? group : "", number);
}

/* The same in a whole HDF5 file, which lists the weights of each layer: trainable ones, then the others. */
static void listed_path(const sap_model *model, const sap_keras_file *file, const sap_layer *layer, int32_t w,
                        char *path, size_t capacity) {
    char group[400];
    size_t before = 0;
    (void)snprintf(group, sizeof group, "model_weights/%s", layer->owner);
    for (int32_t l = 0; l < model->layer_count; l++) {
        const sap_layer *other = model->layers[l];
        if (strcmp(other->owner, layer->owner) != 0)
            continue;
        for (int32_t i = 0; i < other->weight_count; i++) {
            bool earlier = other->key < layer->key || (other == layer && i < w);
            before +=
                layer->weights[w].trainable == other->weights[i].trainable ? earlier : other->weights[i].trainable;
        }
    }
    const sap_keras_names *list = sap_keras_file_list(file, group);
    (void)snprintf(path, capacity, "%s/%s", group, list && before < list->count ? list->names[before] : "?");
}

/* The array of a weight; path: where it stands, for messages. */
static const sap_keras_array *find_array(const sap_model *model, const sap_keras_file *file, const sap_layer *layer,
                                         int32_t w, char *path, size_t capacity) {
    if (file->whole)
        listed_path(model, file, layer, w, path, capacity);
    else
        weight_path(layer, w, path, capacity);
    const sap_keras_array *array = sap_keras_file_find(file, path);
    return array && array->values ? array : NULL;
}

static bool has_shape(const sap_keras_array *array, int32_t rank, const int64_t *shape) {
    return array->rank == rank && memcmp(array->shape, shape, (size_t)rank * sizeof *shape) == 0;
}

static sap_status check_weight(const sap_model *model, const sap_keras_file *file, const sap_layer *layer, int32_t w,
                               sap_error *err) {
    const sap_shape *shape = &layer->weights[w].shape;
    const char *name = layer->weights[w].name;
    char path[1200];
    const sap_keras_array *array = find_array(model, file, layer, w, path, sizeof path);
    if (!array)
        return sap_error_set(err, SAP_EFORMAT, "%s: the file has no \"%s\" (its %s)", layer->where, path, name);
    if (has_shape(array, shape->rank, shape->dims))
        return SAP_OK;
    char found[200], wanted[200];
    sap_shape stored = {.rank = array->rank};
    memcpy(stored.dims, array->shape, sizeof stored.dims);
    sap_shape_text(&stored, false, found, sizeof found);
    sap_shape_text(shape, false, wanted, sizeof wanted);
    return sap_error_set(err, SAP_ETYPE, "%s: its %s (%s) has the shape %s, %s was expected", layer->where, name, path,
                         found, wanted);
}

sap_status sap_model_check(const sap_model *model, const sap_keras_file *file, sap_error *err) {
    for (int32_t l = 0; l < model->layer_count; l++)
        for (int32_t w = 0; w < model->layers[l]->weight_count; w++)
            SAP_TRY(check_weight(model, file, model->layers[l], w, err));
    return SAP_OK;
}

static size_t weight_bytes(const sap_weight *weight) {
    size_t count = 1;
    for (int32_t i = 0; i < weight->rank; i++)
        count *= (size_t)weight->shape[i];
    return count * sizeof(float);
}

sap_status sap_model_fill(sap_model *model, const sap_keras_file *file, sap_error *err) {
    int32_t at = 0;
    SAP_TRY(sap_model_check(model, file, err));
    for (int32_t l = 0; l < model->layer_count; l++) {
        for (int32_t w = 0; w < model->layers[l]->weight_count; w++, at++) {
            char path[1200];
            const sap_keras_array *array = find_array(model, file, model->layers[l], w, path, sizeof path);
            memcpy(model->weights[at].data, array->values, weight_bytes(&model->weights[at]));
        }
    }
    return SAP_OK;
}

/* Copies an array of an optimizer's slot, if it has the shape of the weight. */
static sap_status take(const sap_model *model, const sap_keras_file *file, const char *path, const sap_weight *weight,
                       float *values, sap_error *err) {
    const sap_keras_array *array = sap_keras_file_find(file, path);
    if (!array || !array->values || !has_shape(array, weight->rank, weight->shape))
        return sap_error_set(err, SAP_EFORMAT, "%s: has no \"%s\" of the shape of %s", model->name, path, weight->path);
    memcpy(values, array->values, weight_bytes(weight));
    return SAP_OK;
}

static int32_t count_trainable(const sap_model *model) {
    int32_t count = 0;
    for (int32_t i = 0; i < model->weight_count; i++)
        count += model->weights[i].trainable;
    return count;
}

sap_status sap_model_fill_optimizer(const sap_model *model, const sap_keras_file *file, sap_optimizer_state *state,
                                    sap_error *err) {
    const sap_keras_array *iteration = sap_keras_file_find(file, "optimizer/vars/0");
    if (!iteration || iteration->values || iteration->integer < 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: has no iteration of an optimizer", model->name);
    state->iteration = iteration->integer;
    int32_t trainable = 0, count = count_trainable(model);
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_weight *weight = &model->weights[i];
        if (!weight->trainable)
            continue;
        for (int32_t slot = 0; slot < SAP_SLOTS; slot++) {
            if (!state->slots[slot])
                continue;
            char path[100];
            (void)snprintf(path, sizeof path, "optimizer/vars/%d", sap_optimizer_place(state, count, trainable, slot));
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
        if (!layer->group)
            continue;
        const char *slash = strrchr(layer->name, '/');
        put_group(w, sap_arena_format(&w->arena, "%s/vars", layer->group), slash ? slash + 1 : layer->name);
        for (int32_t i = 0; i < layer->weight_count; i++, at++) {
            char path[1200];
            weight_path(layer, i, path, sizeof path);
            put_weight(w, sap_arena_text(&w->arena, path, strlen(path)), &model->weights[at], model->weights[at].data);
        }
    }
}

static void put_optimizer(writer *w, float *learning_rate) {
    const sap_model *model = w->model;
    const sap_optimizer_state *state = &model->optimizer;
    if (state->iteration == 0)
        return;
    *learning_rate = (float)state->learning_rate;
    put_group(w, "optimizer/vars", sap_optimizer_name(state->settings.kind));
    put_array(w, "optimizer/vars/0")->integer = state->iteration;
    if (!sap_optimizer_scheduled(state))
        put_array(w, "optimizer/vars/1")->values = learning_rate;
    int32_t trainable = 0, count = count_trainable(model);
    for (int32_t i = 0; i < model->weight_count; i++) {
        if (!model->weights[i].trainable)
            continue;
        for (int32_t slot = 0; slot < SAP_SLOTS; slot++)
            if (state->slots[slot])
                put_weight(w,
                           sap_arena_format(&w->arena, "optimizer/vars/%d",
                                            sap_optimizer_place(state, count, trainable, slot)),
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
    w.file.arrays = sap_arena_array(&w.arena, (size_t)model->weight_count * (1 + SAP_SLOTS) + 2, sizeof *w.file.arrays);
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
