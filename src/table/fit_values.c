/* Values as a type of SQL that holds them: without a copy where the bytes are the same. */
#include "table_internal.h"

/* ---- Nulls ------------------------------------------------------------------------------------------------ */

static void *zeros(struct sap_storage *storage, size_t bytes) {
    void *out = sap_storage_alloc(storage, bytes);
    if (out)
        memset(out, 0, bytes);
    return out;
}

sap_status sap_values_null(const sap_field *wanted, int64_t length, struct sap_storage *storage, sap_column *out,
                           sap_error *err) {
    SAP_TRY(sap_column_init(storage, wanted, out, err));
    out->length = length;
    if (wanted->type == SAP_TYPE_NONE)
        return SAP_OK;
    size_t size = sap_type_size(wanted->type);
    bool offsets = wanted->type == SAP_LIST || wanted->type == SAP_STRING;
    if (!(out->valid = zeros(storage, (size_t)length)) ||
        (size && !(out->values = zeros(storage, (size_t)length * size))) ||
        (offsets && !(out->offsets = zeros(storage, (size_t)(length + 1) * sizeof *out->offsets))))
        return sap_error_memory(err, wanted->name);
    for (int32_t i = 0; i < wanted->count; i++)
        SAP_TRY(sap_values_null(&wanted->children[i], wanted->type == SAP_LIST ? 0 : length, storage, &out->children[i],
                                err));
    return SAP_OK;
}

sap_status sap_values_repeat(const sap_field *wanted, const char *text, size_t bytes, int64_t length,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    if (length > 0 && bytes > (size_t)(INT32_MAX / length))
        return sap_error_set(err, SAP_EUNSUPPORTED, "a name of %zu bytes is too long for a column", bytes);
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(length + 1) * sizeof *offsets);
    char *texts = sap_storage_alloc(storage, (size_t)length * bytes + 1);
    if (!offsets || !texts)
        return sap_error_memory(err, wanted->name);
    offsets[0] = 0;
    for (int64_t i = 0; i < length; i++) {
        memcpy(texts + offsets[i], text, bytes);
        offsets[i + 1] = offsets[i] + (int32_t)bytes;
    }
    SAP_TRY(sap_column_init(storage, wanted, out, err));
    out->length = length;
    out->offsets = offsets;
    out->values = texts;
    return SAP_OK;
}

/* ---- Numbers -------------------------------------------------------------------------------------------------- */

/* A decimal of Arrow is two words, the lower first. */
typedef struct decimal {
    uint64_t low;
    int64_t high;
} decimal;

static double real_of(const sap_column *from, int64_t i) {
    switch (from->type) {
    case SAP_FLOAT16:
        return sap_half_value(((const uint16_t *)from->values)[i]);
    case SAP_FLOAT32:
        return (double)((const float *)from->values)[i];
    case SAP_FLOAT64:
        return ((const double *)from->values)[i];
    case SAP_UINT64:
        return (double)((const uint64_t *)from->values)[i];
    default:
        return (double)sap_integer_value(from, i);
    }
}

static decimal decimal_of(const sap_column *from, int64_t i) {
    int64_t value = sap_integer_value(from, i);
    return (decimal){(uint64_t)value, from->type != SAP_UINT64 && value < 0 ? -1 : 0};
}

static void convert(const sap_column *from, sap_type type, void *out) {
    int64_t n = from->length;
    switch (type) {
    case SAP_INT16:
        for (int64_t i = 0; i < n; i++)
            ((int16_t *)out)[i] = (int16_t)sap_integer_value(from, i);
        break;
    case SAP_INT32:
        for (int64_t i = 0; i < n; i++)
            ((int32_t *)out)[i] = (int32_t)sap_integer_value(from, i);
        break;
    case SAP_INT64:
        if (from->type == SAP_UINT32) /* what unique ids and flags are */
            for (int64_t i = 0; i < n; i++)
                ((int64_t *)out)[i] = ((const uint32_t *)from->values)[i];
        else
            for (int64_t i = 0; i < n; i++)
                ((int64_t *)out)[i] = sap_integer_value(from, i);
        break;
    case SAP_FLOAT32:
        for (int64_t i = 0; i < n; i++)
            ((float *)out)[i] = (float)real_of(from, i);
        break;
    case SAP_FLOAT64:
        for (int64_t i = 0; i < n; i++)
            ((double *)out)[i] = real_of(from, i);
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            ((decimal *)out)[i] = decimal_of(from, i);
        break;
    }
}

/* The only conversion that may lose something: a schema of the user's says bigint of what may be larger. */
static sap_status check_range(const sap_column *from, const sap_field *wanted, const char *where, sap_error *err) {
    for (int64_t i = 0; i < from->length; i++)
        if (((const uint64_t *)from->values)[i] > INT64_MAX && (!from->valid || from->valid[i]))
            return sap_error_set(err, SAP_EDATA, "%s: \"%s\" is wanted as int64, which %llu does not fit", where,
                                 wanted->name, (unsigned long long)((const uint64_t *)from->values)[i]);
    return SAP_OK;
}

static sap_status fit_number(const sap_column *from, const sap_field *wanted, const char *where,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    size_t size = sap_type_size(wanted->type);
    if (from->type == SAP_UINT64 && wanted->type == SAP_INT64) {
        SAP_TRY(check_range(from, wanted, where, err));
        out->values = from->values;
        return SAP_OK;
    }
    void *values = sap_storage_alloc(storage, (size_t)from->length * size);
    if (!values)
        return sap_error_memory(err, wanted->name);
    convert(from, wanted->type, values);
    out->values = values;
    return SAP_OK;
}

/* ---- Nested ------------------------------------------------------------------------------------------------------ */

static sap_status fit_fixed(const sap_column *from, sap_column *out, struct sap_storage *storage, sap_error *err) {
    if (from->length * from->size > INT32_MAX)
        return sap_error_set(err, SAP_EMEMORY, "column \"%s\": %lld items in one batch, at most %d fit", out->name,
                             (long long)from->length * from->size, INT32_MAX);
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(from->length + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(err, out->name);
    for (int64_t i = 0; i <= from->length; i++)
        offsets[i] = (int32_t)(i * from->size);
    out->offsets = offsets;
    return SAP_OK;
}

static sap_status fit_union(const sap_column *from, const sap_field *wanted, const char *where,
                            struct sap_storage *storage, sap_column *out, sap_error *err) {
    for (int32_t i = 0; i < wanted->count; i++) {
        int32_t tag = 0;
        while (tag < from->count && strcmp(wanted->children[i].name, from->children[tag].name) != 0)
            tag++;
        if (tag == from->count) /* alternatives without names of their own are called by their numbers */
            (void)sscanf(wanted->children[i].name, "%d", &tag);
        if (tag < 0 || tag >= from->count) {
            SAP_TRY(sap_values_null(&wanted->children[i], from->length, storage, &out->children[i], err));
            continue;
        }
        sap_column spaced = {0};
        SAP_TRY(sap_union_spread(from, tag, storage, &spaced, err));
        SAP_TRY(sap_values_fit(&spaced, &wanted->children[i], where, storage, &out->children[i], err));
    }
    return SAP_OK;
}

static sap_status fit_record(const sap_column *from, const sap_field *wanted, const char *where,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    for (int32_t i = 0; i < wanted->count; i++) {
        const sap_column *child = NULL;
        for (int32_t j = 0; j < from->count && !child; j++)
            if (strcmp(from->children[j].name, wanted->children[i].name) == 0)
                child = &from->children[j];
        if (!child && i < from->count) { /* without a name: by its number */
            int number = -1;
            (void)sscanf(wanted->children[i].name, "%d", &number);
            child = number >= 0 && number < from->count ? &from->children[number] : NULL;
        }
        SAP_TRY(child ? sap_values_fit(child, &wanted->children[i], where, storage, &out->children[i], err)
                      : sap_values_null(&wanted->children[i], from->length, storage, &out->children[i], err));
    }
    return SAP_OK;
}

sap_status sap_values_fit(const sap_column *from, const sap_field *wanted, const char *where,
                          struct sap_storage *storage, sap_column *out, sap_error *err) {
    if (from->type == SAP_TYPE_NONE && wanted->type != SAP_TYPE_NONE)
        return sap_values_null(wanted, from->length, storage, out, err);
    SAP_TRY(sap_column_init(storage, wanted, out, err));
    out->length = from->length;
    out->valid = from->valid;
    switch (wanted->type) {
    case SAP_LIST:
        if (from->type == SAP_FIXED_LIST)
            SAP_TRY(fit_fixed(from, out, storage, err));
        else
            out->offsets = from->offsets;
        return sap_values_fit(&from->children[0], &wanted->children[0], where, storage, &out->children[0], err);
    case SAP_RECORD:
        return from->type == SAP_UNION ? fit_union(from, wanted, where, storage, out, err)
                                       : fit_record(from, wanted, where, storage, out, err);
    default:
        out->values = from->values;
        out->offsets = from->offsets;
        return from->type == wanted->type || wanted->type == SAP_TYPE_NONE
                   ? SAP_OK
                   : fit_number(from, wanted, where, storage, out, err);
    }
}
