/* The contents of a Keras model file, and the table of functions of the plug-in that packs and unpacks them.
 *
 * A `.keras` file is a zip of config.json, metadata.json and model.weights.h5 (HDF5); the file of Keras 1 and 2 is HDF5
 * as a whole, and only read. The plug-in turns bytes into this and back; it reads and writes no files.
 */
#ifndef SAP_KERAS_FILE_H
#define SAP_KERAS_FILE_H

#include "../base/base_internal.h"

enum { SAP_KERAS_RANK = 8 };

/* A data set of HDF5. */
typedef struct sap_keras_array {
    const char *path; /* "layers/dense/vars/0"; of Keras 2: "model_weights/dense/dense/kernel:0" */
    int32_t rank;
    int64_t shape[SAP_KERAS_RANK];
    float *values;   /* NULL for an integer */
    int64_t integer; /* a scalar int64 */
} sap_keras_array;

/* A group "…/vars" and its attribute "name"; Keras makes one for each layer, also for those without weights. */
typedef struct sap_keras_group {
    const char *path;
    const char *name;
} sap_keras_group;

/* What a group of a whole HDF5 file says of the arrays below it, in order: the attribute weight_names. */
typedef struct sap_keras_names {
    const char *path; /* of the group: "model_weights/dense", "optimizer_weights" */
    const char **names;
    size_t count;
} sap_keras_names;

typedef struct sap_keras_file {
    const char *config, *metadata;
    size_t config_length;
    bool whole;           /* read from a whole HDF5 file: `training` and `lists` are there, metadata is NULL */
    const char *training; /* the attribute training_config, or NULL */
    const char *version;  /* of the Keras that wrote it, or NULL */
    sap_keras_names *lists;
    size_t list_count;
    const char *extra; /* text of the member "sapwood.json", or NULL */
    sap_keras_array *arrays;
    size_t array_count;
    sap_keras_group *groups; /* written, not read */
    size_t group_count;
} sap_keras_file;

typedef struct sap_keras_plugin {
    /* name: of the file, for messages. Everything in `out` belongs to the arena. */
    sap_status (*unpack)(const char *name, const void *bytes, size_t length, sap_arena *arena, sap_keras_file *out,
                         sap_error *err);
    /* *bytes is freed by the caller with free(). */
    sap_status (*pack)(const char *name, const sap_keras_file *file, void **bytes, size_t *length, sap_error *err);
} sap_keras_plugin;

/* The list of the group of that path, or NULL. */
static inline const sap_keras_names *sap_keras_file_list(const sap_keras_file *file, const char *path) {
    for (size_t i = 0; i < file->list_count; i++)
        if (strcmp(file->lists[i].path, path) == 0)
            return &file->lists[i];
    return NULL;
}

/* The array of that path, or NULL. */
static inline const sap_keras_array *sap_keras_file_find(const sap_keras_file *file, const char *path) {
    for (size_t i = 0; i < file->array_count; i++)
        if (strcmp(file->arrays[i].path, path) == 0)
            return &file->arrays[i];
    return NULL;
}

#endif
