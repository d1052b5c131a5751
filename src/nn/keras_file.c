/* The plug-in "keras": `.keras` files with libzip and HDF5, in memory.
 *
 * Sizes that a file claims are checked against what it holds before memory is taken. The zip's checksums stand
 * between damaged bytes and the HDF5 library.
 */
#include "keras_hdf5.h"

#include <pthread.h>
#include <stdlib.h>
#include <zip.h>

/* A member may unpack to this many times the size of the whole file, and to so many bytes in any case; what is parsed
 * as JSON takes many times its size. */
enum { MOST_RATIO = 1100 };
#define MEMBER_MOST (UINT64_C(16) << 30)

/* Debian's HDF5 is not safe for threads: one at a time. */
static pthread_mutex_t hdf5_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- The zip -------------------------------------------------------------------------------------------- */

static sap_status zip_failed(const char *name, const char *member, zip_error_t *error, sap_error *err) {
    return sap_error_set(err, zip_error_code_zip(error) == ZIP_ER_MEMORY ? SAP_EMEMORY : SAP_EFORMAT, "%s%s%s: %s",
                         name, member ? ":" : "", member ? member : "", zip_error_strerror(error));
}

/* A member as terminated text; missing: SAP_EFORMAT, or NULL when `optional`. */
static sap_status read_member(zip_t *zip, const char *name, const char *member, uint64_t most, size_t packed,
                              bool optional, sap_arena *arena, char **out, size_t *length, sap_error *err) {
    zip_stat_t info;
    zip_stat_init(&info);
    *out = NULL;
    *length = 0;
    if (zip_stat(zip, member, 0, &info) != 0) {
        if (optional && zip_error_code_zip(zip_get_error(zip)) == ZIP_ER_NOENT)
            return SAP_OK;
        return zip_failed(name, member, zip_get_error(zip), err);
    }
    if (!(info.valid & ZIP_STAT_SIZE) || info.size > most || info.size / MOST_RATIO > packed)
        return sap_error_set(err, SAP_EFORMAT, "%s:%s: claims %llu bytes in a file of %zu", name, member,
                             (unsigned long long)info.size, packed);
    char *data = sap_arena_alloc(arena, (size_t)info.size + 1);
    if (!data)
        return sap_error_memory(err, name);
    zip_file_t *file = zip_fopen(zip, member, 0);
    if (!file)
        return zip_failed(name, member, zip_get_error(zip), err);
    zip_int64_t got = zip_fread(file, data, info.size);
    char after;
    sap_status status = SAP_OK;
    /* reading on to the end checks the checksum */
    if (got < 0 || (zip_uint64_t)got != info.size || zip_fread(file, &after, 1) != 0) {
        zip_error_t *error = zip_file_get_error(file);
        status = zip_error_code_zip(error) != ZIP_ER_OK
                     ? zip_failed(name, member, error, err)
                     : sap_error_set(err, SAP_EFORMAT, "%s:%s: %lld bytes, %llu were expected", name, member,
                                     (long long)got, (unsigned long long)info.size);
    }
    (void)zip_fclose(file);
    *out = data;
    *length = (size_t)info.size;
    return status;
}

static sap_status unpack_zip(const char *name, const void *bytes, size_t length, sap_arena *arena, sap_keras_file *out,
                             sap_error *err) {
    zip_error_t error;
    zip_error_init(&error);
    *out = (sap_keras_file){0};
    zip_source_t *source = zip_source_buffer_create(bytes, length, 0, &error);
    zip_t *zip = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : NULL;
    if (!zip) {
        sap_status status = zip_failed(name, NULL, &error, err);
        if (source)
            zip_source_free(source);
        zip_error_fini(&error);
        return status;
    }
    zip_error_fini(&error);
    char *config = NULL, *metadata = NULL, *extra = NULL, *weights = NULL;
    size_t metadata_length, extra_length, weights_length = 0;
    sap_status status = read_member(zip, name, "config.json", SAP_KERAS_CONFIG_MOST, length, false, arena, &config,
                                    &out->config_length, err);
    if (status == SAP_OK)
        status = read_member(zip, name, "metadata.json", SAP_KERAS_CONFIG_MOST, length, true, arena, &metadata,
                             &metadata_length, err);
    if (status == SAP_OK)
        status = read_member(zip, name, "sapwood.json", MEMBER_MOST, length, true, arena, &extra, &extra_length, err);
    if (status == SAP_OK)
        status = read_member(zip, name, "model.weights.h5", MEMBER_MOST, length, false, arena, &weights,
                             &weights_length, err);
    if (status == SAP_OK) {
        pthread_mutex_lock(&hdf5_lock);
        status = sap_hdf5_read_weights(name, weights, weights_length, arena, out, err);
        pthread_mutex_unlock(&hdf5_lock);
    }
    zip_discard(zip);
    out->config = config;
    out->metadata = metadata;
    out->extra = extra;
    return status;
}

static sap_status unpack(const char *name, const void *bytes, size_t length, sap_arena *arena, sap_keras_file *out,
                         sap_error *err) {
    bool hdf5 = length >= 8 && memcmp(bytes, "\x89HDF\r\n\x1a\n", 8) == 0;
    return (hdf5 ? sap_hdf5_read_model : unpack_zip)(name, bytes, length, arena, out, err);
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

static bool add_member(zip_t *zip, const char *member, const void *data, size_t length) {
    zip_source_t *source = zip_source_buffer(zip, data, length, 0);
    zip_int64_t index = source ? zip_file_add(zip, member, source, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0 && source)
        zip_source_free(source);
    return index >= 0 && zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0) == 0 &&
           zip_file_set_dostime(zip, (zip_uint64_t)index, 0, 0x21, 0) == 0; /* 1980-01-01: equal models, equal bytes */
}

static sap_status read_back(const char *name, zip_source_t *source, void **bytes, size_t *length, sap_error *err) {
    zip_stat_t info;
    zip_stat_init(&info);
    if (zip_source_open(source) != 0 || zip_source_stat(source, &info) != 0)
        return zip_failed(name, NULL, zip_source_error(source), err);
    sap_status status = SAP_OK;
    *length = (size_t)info.size;
    *bytes = malloc(*length ? *length : 1);
    if (!*bytes)
        status = sap_error_memory(err, name);
    else if (zip_source_read(source, *bytes, *length) != (zip_int64_t)*length)
        status = zip_failed(name, NULL, zip_source_error(source), err);
    (void)zip_source_close(source);
    return status;
}

static sap_status pack(const char *name, const sap_keras_file *file, void **bytes, size_t *length, sap_error *err) {
    void *weights = NULL;
    size_t weights_length = 0;
    pthread_mutex_lock(&hdf5_lock);
    sap_status status = sap_hdf5_write_weights(name, file, &weights, &weights_length, err);
    pthread_mutex_unlock(&hdf5_lock);
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = status == SAP_OK ? zip_source_buffer_create(NULL, 0, 0, &error) : NULL;
    zip_t *zip = source ? zip_open_from_source(source, ZIP_TRUNCATE, &error) : NULL;
    if (status == SAP_OK && !zip)
        status = zip_failed(name, NULL, &error, err);
    zip_error_fini(&error);
    if (zip) {
        zip_source_keep(source);
        bool good = add_member(zip, "metadata.json", file->metadata, strlen(file->metadata)) &&
                    add_member(zip, "config.json", file->config, file->config_length) &&
                    add_member(zip, "model.weights.h5", weights, weights_length) &&
                    (!file->extra || add_member(zip, "sapwood.json", file->extra, strlen(file->extra)));
        if (!good || zip_close(zip) != 0) {
            status = zip_failed(name, NULL, zip_get_error(zip), err);
            zip_discard(zip);
        }
    }
    *bytes = NULL;
    if (status == SAP_OK)
        status = read_back(name, source, bytes, length, err);
    if (status != SAP_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    if (source)
        zip_source_free(source);
    free(weights);
    return status;
}

SAP_API extern const sap_keras_plugin sap_plugin_keras;
const sap_keras_plugin sap_plugin_keras = {unpack, pack};
