/* HDF5 files in memory with the HDF5 library: the weights inside `.keras` files.
 *
 * Sizes that a file claims are checked against what it holds before memory is taken.
 */
#include "keras_hdf5.h"

#include <hdf5.h>
#include <stdlib.h>

enum { DEPTH_MOST = 24, ARRAYS_MOST = 65536, PATH_MOST = 1024 };

/* Without this HDF5 prints its errors to stderr. */
static void silence_hdf5(void) {
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* ---- Arrays --------------------------------------------------------------------------------------------- */

typedef struct reader {
    const char *name; /* "file.keras:model.weights.h5" */
    sap_arena *arena;
    sap_keras_file *out;
    size_t capacity;
    size_t bytes_left; /* values that the file can hold */
    size_t objects;
    sap_status status;
    sap_error *err;
} reader;

typedef struct place {
    reader *reader;
    const char *path; /* of the group, with a slash behind unless empty */
    int depth;
} place;

static sap_status add_array(reader *r, const sap_keras_array *array) {
    void *arrays = r->out->arrays;
    if (r->out->array_count == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 32;
        arrays = sap_arena_array(r->arena, capacity, sizeof *r->out->arrays);
        if (!arrays)
            return sap_error_memory(r->err, r->name);
        if (r->out->array_count)
            memcpy(arrays, r->out->arrays, r->out->array_count * sizeof *r->out->arrays);
        r->capacity = capacity;
    }
    r->out->arrays = arrays;
    r->out->arrays[r->out->array_count++] = *array;
    return SAP_OK;
}

static sap_status read_values(reader *r, hid_t data, hid_t type, hid_t space, const char *path, sap_keras_array *out) {
    hsize_t dims[H5S_MAX_RANK];
    int rank = H5Sget_simple_extent_ndims(space);
    H5T_class_t kind = H5Tget_class(type);
    if (rank < 0 || rank > SAP_KERAS_RANK || H5Sget_simple_extent_dims(space, dims, NULL) != rank ||
        H5Sget_simple_extent_type(space) == H5S_NULL)
        return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: needs at most %d dimensions", r->name, path, SAP_KERAS_RANK);
    size_t count = 1, size = H5Tget_size(type);
    out->rank = rank;
    for (int i = 0; i < rank; i++) {
        if (dims[i] > INT32_MAX || __builtin_mul_overflow(count, (size_t)dims[i], &count))
            return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: a dimension of %llu", r->name, path,
                                 (unsigned long long)dims[i]);
        out->shape[i] = (int64_t)dims[i];
    }
    if (size < 1 || count > r->bytes_left / size || H5Dget_storage_size(data) < count * size)
        return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: claims %zu values of %zu bytes, which the file does not hold",
                             r->name, path, count, size);
    r->bytes_left -= count * size;
    if (kind == H5T_INTEGER && rank == 0)
        return H5Dread(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &out->integer) < 0
                   ? sap_error_set(r->err, SAP_EFORMAT, "%s:%s: HDF5 cannot read it", r->name, path)
                   : SAP_OK;
    if (kind != H5T_FLOAT)
        return SAP_OK; /* not a weight: left out, and missed only if a layer needs it */
    out->values = sap_arena_array(r->arena, count + 1, sizeof(float));
    if (!out->values)
        return sap_error_memory(r->err, r->name);
    if (H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out->values) < 0)
        return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: HDF5 cannot read it", r->name, path);
    return SAP_OK;
}

static sap_status read_array(reader *r, hid_t group, const char *name, const char *path) {
    sap_status status = SAP_OK;
    sap_keras_array array = {.path = sap_arena_text(r->arena, path, strlen(path))};
    hid_t data = H5Dopen2(group, name, H5P_DEFAULT);
    hid_t type = data < 0 ? -1 : H5Dget_type(data), space = data < 0 ? -1 : H5Dget_space(data);
    hid_t plan = data < 0 ? -1 : H5Dget_create_plist(data);
    if (!array.path)
        status = sap_error_memory(r->err, r->name);
    else if (data < 0 || type < 0 || space < 0 || plan < 0)
        status = sap_error_set(r->err, SAP_EFORMAT, "%s:%s: HDF5 cannot open it", r->name, path);
    else if (H5Pget_external_count(plan) != 0 || H5Pget_layout(plan) == H5D_VIRTUAL)
        status = sap_error_set(r->err, SAP_EUNSUPPORTED, "%s:%s: its values stand in another file", r->name, path);
    else
        status = read_values(r, data, type, space, path, &array);
    if (plan >= 0)
        H5Pclose(plan);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (data >= 0)
        H5Dclose(data);
    return status == SAP_OK ? add_array(r, &array) : status;
}

/* ---- Groups --------------------------------------------------------------------------------------------- */

static herr_t visit(hid_t group, const char *name, const H5L_info_t *link, void *context) {
    const place *at = context;
    reader *r = at->reader;
    char path[PATH_MOST];
    int length = snprintf(path, sizeof path, "%s%s", at->path, name);
    H5O_info_t info;
    if (link->type != H5L_TYPE_HARD) /* soft and external links lead elsewhere; Keras makes none */
        return 0;
    if (length < 0 || length + 2 > (int)sizeof path || at->depth >= DEPTH_MOST || ++r->objects > ARRAYS_MOST)
        r->status = sap_error_set(r->err, SAP_EFORMAT, "%s: too many or too deeply nested objects", r->name);
    else if (H5Oget_info_by_name(group, name, &info, H5P_DEFAULT) < 0)
        r->status = sap_error_set(r->err, SAP_EFORMAT, "%s:%s: HDF5 cannot open it", r->name, path);
    else if (info.type == H5O_TYPE_DATASET)
        r->status = read_array(r, group, name, path);
    else if (info.type == H5O_TYPE_GROUP) {
        (void)snprintf(path + length, sizeof path - (size_t)length, "/");
        place inner = {r, path, at->depth + 1};
        hid_t child = H5Gopen2(group, name, H5P_DEFAULT);
        if ((child < 0 || H5Literate(child, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit, &inner) < 0) &&
            r->status == SAP_OK)
            r->status = sap_error_set(r->err, SAP_EFORMAT, "%s:%s: HDF5 cannot open it", r->name, path);
        if (child >= 0)
            H5Gclose(child);
    }
    return r->status == SAP_OK ? 0 : -1;
}

/* With the library: forms that classic files do not have. */
static sap_status read_with_library(reader *r, char *data) {
    silence_hdf5();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (access >= 0 && H5Pset_fapl_core(access, 1 << 16, 0) >= 0 && H5Pset_file_image(access, data, r->bytes_left) >= 0)
        file = H5Fopen("weights", H5F_ACC_RDONLY, access);
    if (access >= 0)
        H5Pclose(access);
    if (file < 0)
        return sap_error_set(r->err, SAP_EFORMAT, "%s: is not an HDF5 file, or damaged", r->name);
    place root = {r, "", 0};
    if (H5Literate(file, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit, &root) < 0 && r->status == SAP_OK)
        r->status = sap_error_set(r->err, SAP_EFORMAT, "%s: HDF5 cannot list it", r->name);
    H5Fclose(file);
    return r->status;
}

sap_status sap_hdf5_read_weights(const char *name, char *data, size_t length, sap_arena *arena, sap_keras_file *out,
                                 sap_error *err) {
    name = sap_arena_format(arena, "%s:model.weights.h5", name);
    if (!name)
        return sap_error_memory(err, "model.weights.h5");
    if (sap_hdf5_is_classic(data, length))
        return sap_hdf5_read_classic(name, data, length, arena, out, err);
    reader r = {.name = name, .arena = arena, .out = out, .bytes_left = length, .err = err};
    return read_with_library(&r, data);
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

/* Makes the group of that path and those above it, where they are missing. */
static bool ensure_groups(hid_t file, const char *path) {
    char part[1024];
    for (size_t i = 1; i < sizeof part; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        (void)snprintf(part, sizeof part, "%.*s", (int)i, path);
        hid_t group = H5Lexists(file, part, H5P_DEFAULT) > 0
                          ? H5Gopen2(file, part, H5P_DEFAULT)
                          : H5Gcreate2(file, part, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group < 0)
            return false;
        H5Gclose(group);
        if (path[i] == '\0')
            return true;
    }
    return false;
}

static bool write_group(hid_t file, const sap_keras_group *group) {
    if (!ensure_groups(file, group->path))
        return false;
    hid_t at = H5Gopen2(file, group->path, H5P_DEFAULT), space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    bool good = at >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    hid_t attribute = good ? H5Acreate2(at, "name", type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    good = attribute >= 0 && H5Awrite(attribute, type, &group->name) >= 0;
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
    H5Gclose(at);
    return good;
}

static bool write_array(hid_t file, const sap_keras_array *array) {
    hsize_t dims[SAP_KERAS_RANK];
    for (int32_t i = 0; i < array->rank; i++)
        dims[i] = (hsize_t)array->shape[i];
    char group[1024];
    const char *slash = strrchr(array->path, '/');
    (void)snprintf(group, sizeof group, "%.*s", slash ? (int)(slash - array->path) : 0, array->path);
    if (!slash || !ensure_groups(file, group))
        return false;
    hid_t space = array->rank ? H5Screate_simple(array->rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t stored = array->values ? H5T_IEEE_F32LE : H5T_STD_I64LE;
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    bool good = space >= 0 && H5Pset_obj_track_times(plan, false) >= 0; /* equal models give equal bytes */
    hid_t data = good ? H5Dcreate2(file, array->path, stored, space, H5P_DEFAULT, plan, H5P_DEFAULT) : -1;
    good = data >= 0 &&
           (array->values ? H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, array->values) >= 0
                          : H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &array->integer) >= 0);
    if (data >= 0)
        H5Dclose(data);
    H5Pclose(plan);
    H5Sclose(space);
    return good;
}

/* The weights as an HDF5 file in memory. */
sap_status sap_hdf5_write_weights(const char *name, const sap_keras_file *file, void **image, size_t *length,
                                  sap_error *err) {
    sap_status status = SAP_OK;
    silence_hdf5();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), out = -1;
    if (access >= 0 && H5Pset_fapl_core(access, 1 << 16, 0) >= 0)
        out = H5Fcreate("weights", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    bool good = out >= 0;
    for (size_t i = 0; good && i < file->group_count; i++)
        good = write_group(out, &file->groups[i]);
    for (size_t i = 0; good && i < file->array_count; i++)
        good = write_array(out, &file->arrays[i]);
    ssize_t size = good && H5Fflush(out, H5F_SCOPE_GLOBAL) >= 0 ? H5Fget_file_image(out, NULL, 0) : -1;
    if (size <= 0) {
        status = sap_error_set(err, SAP_EIO, "%s: HDF5 cannot make the weights", name);
    } else if (!(*image = malloc((size_t)size))) {
        status = sap_error_memory(err, name);
    } else {
        *length = (size_t)size;
        if (H5Fget_file_image(out, *image, *length) != size)
            status = sap_error_set(err, SAP_EIO, "%s: HDF5 cannot make the weights", name);
    }
    if (out >= 0)
        H5Fclose(out);
    if (access >= 0)
        H5Pclose(access);
    return status;
}
