/* Arrow arrays that others made, such as Parquet's reader, copied into the columns that this module works on. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <stdlib.h>

/* One array to convert, and what for. */
typedef struct incoming {
    const struct ArrowSchema *schema;
    const struct ArrowArray *array;
    const char *where, *name;
    struct sap_storage *storage;
} incoming;

static sap_status wrong_type(const incoming *in, const sap_field *wanted, sap_error *err) {
    char text[200];
    (void)sap_field_text(wanted, text, sizeof text);
    return sap_error_set(err, SAP_ETYPE, "%s: column \"%s\" has the Arrow format \"%s\", expected %s", in->where,
                         in->name, in->schema->format, text);
}

static bool has_nulls(const struct ArrowArray *array, int64_t begin, int64_t length) {
    if (array->null_count == 0 || array->n_buffers < 1 || !array->buffers[0])
        return false;
    const uint8_t *bits = array->buffers[0];
    for (int64_t i = begin; i < begin + length; i++)
        if (!(bits[i / 8] >> (i % 8) & 1))
            return true;
    return false;
}

/* Value `i` of an array of integers or bools; false: it is none, or does not fit 64 bits with a sign. */
static bool get_integer(const char *format, const void *values, int64_t i, int64_t *out) {
    switch (format[1] ? '\0' : format[0]) {
    case 'b':
        *out = ((const uint8_t *)values)[i / 8] >> (i % 8) & 1;
        return true;
    case 'c':
        *out = ((const int8_t *)values)[i];
        return true;
    case 'C':
        *out = ((const uint8_t *)values)[i];
        return true;
    case 's':
        *out = ((const int16_t *)values)[i];
        return true;
    case 'S':
        *out = ((const uint16_t *)values)[i];
        return true;
    case 'i':
        *out = ((const int32_t *)values)[i];
        return true;
    case 'I':
        *out = ((const uint32_t *)values)[i];
        return true;
    case 'l':
        *out = ((const int64_t *)values)[i];
        return true;
    case 'L':
        *out = (int64_t)((const uint64_t *)values)[i];
        return *out >= 0;
    default:
        return false;
    }
}

static bool put_integer(sap_type type, void *values, int64_t i, int64_t x) {
    switch (type) {
    case SAP_BOOL:
        ((uint8_t *)values)[i] = (uint8_t)x;
        return x == 0 || x == 1;
    case SAP_INT8:
        ((int8_t *)values)[i] = (int8_t)x;
        return x == (int8_t)x;
    case SAP_UINT8:
        ((uint8_t *)values)[i] = (uint8_t)x;
        return x == (uint8_t)x;
    case SAP_INT16:
        ((int16_t *)values)[i] = (int16_t)x;
        return x == (int16_t)x;
    case SAP_UINT16:
        ((uint16_t *)values)[i] = (uint16_t)x;
        return x == (uint16_t)x;
    case SAP_INT32:
        ((int32_t *)values)[i] = (int32_t)x;
        return x == (int32_t)x;
    case SAP_UINT32:
        ((uint32_t *)values)[i] = (uint32_t)x;
        return x == (uint32_t)x;
    case SAP_INT64:
        ((int64_t *)values)[i] = x;
        return true;
    case SAP_UINT64:
        ((uint64_t *)values)[i] = (uint64_t)x;
        return x >= 0;
    default:
        return false;
    }
}

static bool is_integer(const char *format, sap_type type) {
    return strchr("bcCsSiIlL", format[0]) && !format[1] && type >= SAP_BOOL && type <= SAP_UINT64;
}

/* Not every tool has every width of integers, Spark for one has no unsigned ones. */
static sap_status copy_integers(const incoming *in, const void *from, int64_t begin, int64_t length, sap_type type,
                                void *to, sap_error *err) {
    for (int64_t i = 0; i < length; i++) {
        int64_t x = 0;
        if (!get_integer(in->schema->format, from, begin + i, &x) || !put_integer(type, to, i, x))
            return sap_error_set(err, SAP_ETYPE, "%s: column \"%s\": value %lld is no %s", in->where, in->name,
                                 (long long)x, sap_type_name(type));
    }
    return SAP_OK;
}

/* Values [begin, begin + length) of a primitive array, widened to `type` where nothing is lost. */
static sap_status copy_values(const incoming *in, int64_t begin, int64_t length, const sap_field *wanted,
                              sap_column *out, sap_error *err) {
    const char *format = in->schema->format;
    size_t size = sap_type_size(wanted->type);
    const void *from = in->array->n_buffers > 1 ? in->array->buffers[1] : NULL;
    begin += in->array->offset;
    if (has_nulls(in->array, begin, length))
        return sap_error_set(err, SAP_EDATA, "%s: column \"%s\" has nulls", in->where, in->name);
    if (in->schema->dictionary)
        return wrong_type(in, wanted, err);
    if (!from && length > 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: column \"%s\" has no values", in->where, in->name);
    void *to = sap_storage_alloc(in->storage, (size_t)length * size);
    if (!to)
        return sap_error_memory(err, in->name);
    bool same = (wanted->type == SAP_FLOAT32 && strcmp(format, "f") == 0) ||
                (wanted->type == SAP_FLOAT64 && strcmp(format, "g") == 0) ||
                (wanted->type == SAP_INT32 && strcmp(format, "i") == 0) ||
                (wanted->type == SAP_INT64 && strcmp(format, "l") == 0);
    if (same) {
        if (length > 0)
            memcpy(to, (const char *)from + (size_t)begin * size, (size_t)length * size);
    } else if (wanted->type == SAP_FLOAT32 && strcmp(format, "g") == 0) { /* some tools write doubles only */
        for (int64_t i = 0; i < length; i++)
            ((float *)to)[i] = (float)((const double *)from)[begin + i];
    } else if (is_integer(format, wanted->type)) {
        SAP_TRY(copy_integers(in, from, begin, length, wanted->type, to, err));
    } else {
        return wrong_type(in, wanted, err);
    }
    out->values = to;
    out->length = length;
    return SAP_OK;
}

/* Offsets of a list or string array from 0, and where its items begin in the child or the bytes. */
static sap_status copy_offsets(const incoming *in, bool large, int64_t *first, sap_column *out, sap_error *err) {
    int64_t length = in->array->length, at = in->array->offset;
    int32_t *offsets = sap_storage_alloc(in->storage, (size_t)(length + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(err, in->name);
    if (has_nulls(in->array, at, length))
        return sap_error_set(err, SAP_EDATA, "%s: column \"%s\" has nulls", in->where, in->name);
    const int32_t *narrow = in->array->buffers[1];
    const int64_t *wide = in->array->buffers[1];
    offsets[0] = 0;
    *first = length == 0 ? 0 : large ? wide[at] : narrow[at];
    for (int64_t i = 1; i <= length && length > 0; i++) {
        int64_t end = (large ? wide[at + i] : narrow[at + i]) - *first;
        if (end < offsets[i - 1] || end > INT32_MAX)
            return sap_error_set(err, SAP_EFORMAT, "%s: column \"%s\", row %lld: items [%d, %lld) cannot be", in->where,
                                 in->name, (long long)(i - 1), (int)offsets[i - 1], (long long)end);
        offsets[i] = (int32_t)end;
    }
    out->offsets = offsets;
    out->length = length;
    return SAP_OK;
}

static sap_status copy_string(const incoming *in, const sap_field *wanted, sap_column *out, sap_error *err) {
    bool large = strcmp(in->schema->format, "U") == 0;
    if ((!large && strcmp(in->schema->format, "u") != 0) || in->schema->dictionary)
        return wrong_type(in, wanted, err);
    int64_t first;
    SAP_TRY(copy_offsets(in, large, &first, out, err));
    size_t bytes = (size_t)out->offsets[out->length];
    char *data = sap_storage_alloc(in->storage, bytes);
    if (!data)
        return sap_error_memory(err, in->name);
    if (bytes)
        memcpy(data, (const char *)in->array->buffers[2] + first, bytes);
    out->values = data;
    return SAP_OK;
}

static bool is_list_of_numbers(const struct ArrowSchema *schema) {
    bool list = strcmp(schema->format, "+l") == 0 || strcmp(schema->format, "+L") == 0;
    return list && schema->n_children == 1 && strchr("fg", schema->children[0]->format[0]) != NULL;
}

/* A list of any kind, to a list or to a fixed list whose rows all have its length. */
static sap_status copy_list(const incoming *in, const sap_field *wanted, sap_column *out, sap_error *err) {
    const char *format = in->schema->format;
    int64_t first = 0, length = in->array->length, items = 0;
    bool large = strcmp(format, "+L") == 0;
    if (wanted->type == SAP_LIST && wanted->children[0].type == SAP_FLOAT32 && !is_list_of_numbers(in->schema))
        return sap_arrow_numbers(in->schema, in->array, in->where, in->storage, out, err);
    if (in->schema->n_children != 1 || in->array->n_children != 1)
        return wrong_type(in, wanted, err);
    if (strncmp(format, "+w:", 3) == 0) {
        int64_t size = strtol(format + 3, NULL, 10);
        if (wanted->type != SAP_FIXED_LIST || size != wanted->size)
            return wrong_type(in, wanted, err);
        if (has_nulls(in->array, in->array->offset, length))
            return sap_error_set(err, SAP_EDATA, "%s: column \"%s\" has nulls", in->where, in->name);
        first = in->array->offset * size;
        items = length * size;
    } else if (large || strcmp(format, "+l") == 0) {
        SAP_TRY(copy_offsets(in, large, &first, out, err));
        items = out->offsets[length];
        if (wanted->type == SAP_FIXED_LIST) {
            for (int64_t i = 0; i < length; i++)
                if (out->offsets[i + 1] - out->offsets[i] != wanted->size)
                    return sap_error_set(err, SAP_ETYPE, "%s: column \"%s\", row %lld: %d values, expected %d",
                                         in->where, in->name, (long long)i,
                                         (int)(out->offsets[i + 1] - out->offsets[i]), (int)wanted->size);
            out->offsets = NULL;
        }
    } else {
        return wrong_type(in, wanted, err);
    }
    out->length = length;
    incoming child = *in;
    child.schema = in->schema->children[0];
    child.array = in->array->children[0];
    return copy_values(&child, first, items, &wanted->children[0], &out->children[0], err);
}

static sap_status import_column(const incoming *in, const sap_field *wanted, sap_column *out, sap_error *err) {
    SAP_TRY(sap_column_init(in->storage, wanted, out, err));
    if (wanted->type == SAP_STRING)
        return copy_string(in, wanted, out, err);
    if (wanted->type == SAP_LIST || wanted->type == SAP_FIXED_LIST)
        return copy_list(in, wanted, out, err);
    return copy_values(in, 0, in->array->length, wanted, out, err);
}

sap_status sap_arrow_import(const struct ArrowSchema *schema, const struct ArrowArray *array, const char *where,
                            const sap_field *fields, int32_t count, sap_batch *out, sap_error *err) {
    SAP_TRY(sap_batch_init(out, count, err));
    out->length = array->length;
    sap_status status = SAP_OK;
    for (int32_t i = 0; i < count && status == SAP_OK; i++) {
        int64_t at = 0;
        while (at < schema->n_children && strcmp(schema->children[at]->name, fields[i].name) != 0)
            at++;
        if (at == schema->n_children) {
            status = sap_error_set(err, SAP_ENOTFOUND, "%s: has no column \"%s\"", where, fields[i].name);
            break;
        }
        incoming in = {schema->children[at], array->children[at], where, fields[i].name, out->storage};
        status = import_column(&in, &fields[i], &out->columns[i], err);
    }
    if (status != SAP_OK)
        sap_batch_release(out);
    return status;
}
