/* Rows of numbers in whatever form others store them, as lists of float32: single numbers, lists of any kind, lists in
 * lists, and Spark's vectors, which are structs (type, size, indices, values), dense and sparse mixed. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <stdlib.h>

/* Where each row's items are in an array: [at[i], at[i + 1]), counted without the array's own offset. */
typedef struct level {
    const struct ArrowSchema *schema;
    const struct ArrowArray *array;
    int64_t *at; /* (rows + 1) */
    int64_t rows;
    const char *where, *name;
} level;

static sap_status wrong(const level *l, const char *what, sap_error *err) {
    return sap_error_set(err, SAP_ETYPE, "%s: column \"%s\": %s (Arrow format \"%s\")", l->where, l->name, what,
                         l->schema->format);
}

static bool is_null(const struct ArrowArray *array, int64_t i) {
    i += array->offset;
    return array->null_count != 0 && array->n_buffers > 0 && array->buffers[0] &&
           !(((const uint8_t *)array->buffers[0])[i / 8] >> (i % 8) & 1);
}

/* A null list would break the chain of items, and a null number is none. */
static sap_status check_nulls(const level *l, sap_error *err) {
    for (int64_t i = l->at[0]; l->array->null_count != 0 && i < l->at[l->rows]; i++)
        if (is_null(l->array, i))
            return sap_error_set(err, SAP_EDATA, "%s: column \"%s\" has nulls", l->where, l->name);
    return SAP_OK;
}

/* Number i of a primitive array; false: it holds no numbers. */
static bool number_at(const struct ArrowSchema *schema, const struct ArrowArray *array, int64_t i, double *out) {
    const void *values = array->n_buffers > 1 ? array->buffers[1] : NULL;
    if (!values || schema->format[0] == '\0' || schema->format[1] != '\0' || schema->dictionary)
        return false;
    i += array->offset;
    switch (schema->format[0]) {
    case 'f':
        *out = (double)((const float *)values)[i];
        return true;
    case 'g':
        *out = ((const double *)values)[i];
        return true;
    case 'c':
        *out = ((const int8_t *)values)[i];
        return true;
    case 's':
        *out = ((const int16_t *)values)[i];
        return true;
    case 'i':
        *out = ((const int32_t *)values)[i];
        return true;
    case 'l':
        *out = (double)((const int64_t *)values)[i];
        return true;
    default:
        return false;
    }
}

/* ---- Lists --------------------------------------------------------------------------------------------------- */

/* From lists to their items. */
static sap_status descend(level *l, sap_error *err) {
    const char *format = l->schema->format;
    int64_t size = strncmp(format, "+w:", 3) == 0 ? strtol(format + 3, NULL, 10) : 0, own = l->array->offset;
    if (l->schema->n_children != 1 || l->array->n_children != 1)
        return wrong(l, "is no list of numbers", err);
    SAP_TRY(check_nulls(l, err));
    const int32_t *narrow = l->array->n_buffers > 1 ? l->array->buffers[1] : NULL;
    const int64_t *wide = l->array->n_buffers > 1 ? l->array->buffers[1] : NULL;
    bool large = strcmp(format, "+L") == 0;
    if (size < 1 && !narrow && l->at[l->rows] > l->at[0])
        return wrong(l, "has no offsets", err);
    for (int64_t i = 0; i <= l->rows; i++) {
        int64_t k = l->at[i] + own;
        l->at[i] = size > 0 ? k * size : !narrow ? 0 : large ? wide[k] : narrow[k];
        if (l->at[i] < 0 || (i > 0 && l->at[i] < l->at[i - 1]) ||
            l->at[i] > l->array->children[0]->length) /* the file's own numbers */
            return sap_error_set(err, SAP_EFORMAT, "%s: column \"%s\", row %lld: its lists do not follow each other",
                                 l->where, l->name, (long long)i);
    }
    l->schema = l->schema->children[0];
    l->array = l->array->children[0];
    return SAP_OK;
}

static sap_status make_column(const level *l, int64_t values, struct sap_storage *storage, float **data,
                              int32_t **offsets, sap_column *out, sap_error *err) {
    if (values > INT32_MAX)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: column \"%s\": %lld values in %lld rows", l->where, l->name,
                             (long long)values, (long long)l->rows);
    *data = sap_storage_alloc(storage, (size_t)values * sizeof **data);
    *offsets = sap_storage_alloc(storage, (size_t)(l->rows + 1) * sizeof **offsets);
    if (!*data || !*offsets)
        return sap_error_memory(err, l->name);
    out->length = l->rows;
    out->offsets = *offsets;
    out->children[0].values = *data;
    out->children[0].length = values;
    return SAP_OK;
}

static sap_status copy_numbers(const level *l, struct sap_storage *storage, sap_column *out, sap_error *err) {
    int64_t first = l->at[0], count = l->at[l->rows] - first;
    float *data = NULL;
    int32_t *offsets = NULL;
    double number;
    SAP_TRY(check_nulls(l, err));
    if (count > 0 && !number_at(l->schema, l->array, first, &number))
        return wrong(l, "holds no numbers", err);
    SAP_TRY(make_column(l, count, storage, &data, &offsets, out, err));
    for (int64_t i = 0; i <= l->rows; i++)
        offsets[i] = (int32_t)(l->at[i] - first);
    char format = l->schema->format[0];
    const void *values = count > 0 ? l->array->buffers[1] : NULL;
    int64_t begin = first + l->array->offset;
    if (format == 'f' && count > 0) {
        memcpy(data, (const float *)values + begin, (size_t)count * sizeof *data);
    } else if (format == 'g') {
        for (int64_t i = 0; i < count; i++)
            data[i] = (float)((const double *)values)[begin + i];
    } else {
        for (int64_t i = 0; i < count && number_at(l->schema, l->array, first + i, &number); i++)
            data[i] = (float)number;
    }
    return SAP_OK;
}

/* ---- Spark's vectors --------------------------------------------------------------------------------------------- */

/* The fields of the struct, by name. */
typedef struct vectors {
    level type, size, indices, values; /* `at` of indices and values: the lists of each row */
} vectors;

static sap_status find_child(const level *l, const char *name, level *out, sap_error *err) {
    for (int64_t i = 0; i < l->schema->n_children && i < l->array->n_children; i++) {
        if (l->schema->children[i]->name && strcmp(l->schema->children[i]->name, name) == 0) {
            *out = (level){l->schema->children[i], l->array->children[i], NULL, l->rows, l->where, l->name};
            return SAP_OK;
        }
    }
    return wrong(l, "is a struct, but no vector of Spark's (type, size, indices, values)", err);
}

/* Row i of the list: its numbers in the list's child. */
static bool list_at(const level *l, int64_t i, int64_t *begin, int64_t *end) {
    const int32_t *narrow = l->array->n_buffers > 1 ? l->array->buffers[1] : NULL;
    if (strcmp(l->schema->format, "+l") != 0 || l->schema->n_children != 1 || l->array->n_children != 1 || !narrow)
        return false;
    bool none = is_null(l->array, i);
    i += l->array->offset;
    *begin = none ? 0 : narrow[i];
    *end = none ? 0 : narrow[i + 1];
    return *begin >= 0 && *end >= *begin && *end <= l->array->children[0]->length;
}

/* Writes row i; out NULL: only counts its numbers. */
static sap_status take_vector(const vectors *v, int64_t i, float *out, int64_t *count, sap_error *err) {
    int64_t first, last, place, stop;
    double type, number;
    bool read = number_at(v->type.schema, v->type.array, i, &type) && list_at(&v->values, i, &first, &last);
    if (!read)
        return wrong(&v->type, "is no vector of Spark's", err);
    const struct ArrowSchema *schema = v->values.schema->children[0];
    const struct ArrowArray *values = v->values.array->children[0];
    bool dense = type > 0;
    *count = last - first;
    if (!dense) {
        read = number_at(v->size.schema, v->size.array, i, &number) && !is_null(v->size.array, i) &&
               list_at(&v->indices, i, &place, &stop) && stop - place == last - first && number >= 0 &&
               number <= SAP_SEQUENCE_MAX_ROWS;
        if (!read)
            return sap_error_set(err, SAP_EFORMAT, "%s: column \"%s\": a sparse vector whose sizes do not agree",
                                 v->type.where, v->type.name);
        *count = (int64_t)number;
    }
    if (!out)
        return SAP_OK;
    memset(out, 0, (size_t)*count * sizeof *out);
    for (int64_t k = 0; k < last - first; k++) {
        double at = (double)k;
        if (!dense)
            read = number_at(v->indices.schema->children[0], v->indices.array->children[0], place + k, &at) &&
                   at >= 0 && at < (double)*count;
        if (!read || is_null(values, first + k) || !number_at(schema, values, first + k, &number))
            return sap_error_set(err, SAP_EFORMAT, "%s: column \"%s\": a vector with nulls or a wrong index",
                                 v->type.where, v->type.name);
        out[(int64_t)at] = (float)number;
    }
    return SAP_OK;
}

static sap_status copy_vectors(const level *l, struct sap_storage *storage, sap_column *out, sap_error *err) {
    vectors v;
    SAP_TRY(check_nulls(l, err));
    SAP_TRY(find_child(l, "type", &v.type, err));
    SAP_TRY(find_child(l, "size", &v.size, err));
    SAP_TRY(find_child(l, "indices", &v.indices, err));
    SAP_TRY(find_child(l, "values", &v.values, err));
    int64_t total = 0, count;
    for (int64_t i = 0; i < l->rows; i++) {
        SAP_TRY(take_vector(&v, l->array->offset + i, NULL, &count, err));
        total += count;
        if (total > INT32_MAX)
            break;
    }
    float *data = NULL;
    int32_t *offsets = NULL;
    SAP_TRY(make_column(l, total, storage, &data, &offsets, out, err));
    offsets[0] = 0;
    for (int64_t i = 0; i < l->rows; i++) {
        SAP_TRY(take_vector(&v, l->array->offset + i, data + offsets[i], &count, err));
        offsets[i + 1] = offsets[i] + (int32_t)count;
    }
    return SAP_OK;
}

/* ---- Any of them ---------------------------------------------------------------------------------------------------- */

sap_status sap_arrow_numbers(const struct ArrowSchema *schema, const struct ArrowArray *array, const char *where,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    level l = {schema, array, malloc((size_t)(array->length + 1) * sizeof *l.at), array->length, where, schema->name};
    if (!l.at)
        return sap_error_memory(err, where);
    for (int64_t i = 0; i <= l.rows; i++)
        l.at[i] = i;
    sap_status status = SAP_OK;
    if (strcmp(schema->format, "+s") == 0) {
        status = copy_vectors(&l, storage, out, err);
    } else {
        while (status == SAP_OK && l.schema->format[0] == '+')
            status = descend(&l, err);
        if (status == SAP_OK)
            status = copy_numbers(&l, storage, out, err);
    }
    free(l.at);
    return status;
}

bool sap_arrow_has_numbers(const struct ArrowSchema *schema) {
    if (schema->dictionary)
        return false;
    if (strcmp(schema->format, "+s") == 0) {
        static const char *const fields[] = {"type", "size", "indices", "values"};
        bool vector = schema->n_children == 4;
        for (int i = 0; i < 4 && vector; i++)
            vector = strcmp(schema->children[i]->name, fields[i]) == 0;
        return vector;
    }
    if (schema->format[0] == '+')
        return schema->n_children == 1 && schema->format[1] != 's' && sap_arrow_has_numbers(schema->children[0]);
    return schema->format[1] == '\0' && strchr("fgcsil", schema->format[0]) != NULL;
}
