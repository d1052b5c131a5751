/* Reading files of others: their columns become those of stored events. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <math.h>
#include <stdlib.h>

struct sap_foreign {
    const sap_info *info;
    const sap_part *part;
    const sap_field *fields; /* (count) that are asked for */
    int32_t count;
    sap_field *columns; /* (column_count) that are read for them */
    int32_t column_count;
    int32_t *from; /* (count) which of the columns a field comes from, -1: none */
    int64_t row;   /* in the file */
};

void sap_foreign_close(sap_foreign *foreign) {
    if (!foreign)
        return;
    free(foreign->columns);
    free(foreign->from);
    free(foreign);
}

/* The column of the file for a field; NULL: made without one. */
static const char *column_of(const sap_info *info, const char *field) {
    for (size_t i = 0; i < info->feature_count; i++)
        if (strcmp(info->features[i].name, field) == 0)
            return info->columns[i];
    return strcmp(field, "label") == 0 || strcmp(field, "sample") == 0 ? info->label_column : NULL;
}

sap_status sap_foreign_open(const sap_info *info, const sap_part *part, const sap_field *fields, int32_t count,
                            sap_foreign **out, sap_error *err) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT32};
    sap_foreign *f = calloc(1, sizeof *f);
    if (f) {
        *f = (sap_foreign){.info = info, .part = part, .fields = fields, .count = count};
        f->columns = calloc((size_t)count + 1, sizeof *f->columns);
        f->from = calloc((size_t)count + 1, sizeof *f->from);
    }
    if (!f || !f->columns || !f->from) {
        sap_foreign_close(f);
        return sap_error_memory(err, part->path);
    }
    for (int32_t i = 0; i < count; i++) {
        const char *name = column_of(info, fields[i].name);
        int32_t at = 0;
        while (name && at < f->column_count && strcmp(f->columns[at].name, name) != 0)
            at++;
        f->from[i] = name ? at : -1;
        if (name && at == f->column_count)
            f->columns[f->column_count++] = (sap_field){.name = name, .type = SAP_LIST, .count = 1, .children = &item};
    }
    *out = f;
    return SAP_OK;
}

const sap_field *sap_foreign_columns(const sap_foreign *foreign, int32_t *count) {
    *count = foreign->column_count;
    return foreign->columns;
}

/* ---- Fields of a batch -------------------------------------------------------------------------------------------- */

static sap_status wrong(const sap_foreign *f, int64_t row, const char *column, const char *what, sap_error *err) {
    return sap_error_set(err, SAP_EDATA, "%s: row %lld: column \"%s\" %s", f->part->path, (long long)(f->row + row),
                         column, what);
}

static sap_status take_feature(const sap_foreign *f, const sap_column *from, const sap_field *field, sap_column *out,
                               sap_error *err) {
    const sap_feature *feature = f->info->features;
    while (strcmp(feature->name, field->name) != 0)
        feature++;
    int64_t most = feature->sequence ? (int64_t)feature->pad_rows * feature->width : feature->width;
    for (int64_t i = 0; i < from->length; i++) {
        int32_t values = from->offsets[i + 1] - from->offsets[i];
        if (feature->sequence ? values % feature->width != 0 || values > most : values != most) {
            char what[100];
            (void)snprintf(what, sizeof what, "has %d numbers, expected %s%lld", (int)values,
                           feature->sequence ? "whole rows, at most " : "", (long long)most);
            return wrong(f, i, from->name, what, err);
        }
    }
    out->children[0].values = from->children[0].values;
    out->children[0].length = from->children[0].length;
    out->offsets = feature->sequence ? from->offsets : NULL;
    return SAP_OK;
}

/* Class numbers of rows that are one-hot or hold the number, in `class_of` (rows). */
static sap_status take_classes(const sap_foreign *f, const sap_column *from, int32_t *class_of, sap_error *err) {
    const float *values = from->children[0].values;
    for (int64_t i = 0; i < from->length; i++) {
        int64_t ones = 0, zeros = 0, count = from->offsets[i + 1] - from->offsets[i];
        float number = count == 1 ? values[from->offsets[i]] : -1;
        if (number >= 0 && number < (float)f->info->label_count && floorf(number) >= number &&
            f->info->label_count > 1) {
            class_of[i] = (int32_t)number;
            continue;
        }
        for (int64_t k = 0; k < count; k++) {
            float value = values[from->offsets[i] + k];
            bool one = fabsf(value - 1) <= 0;
            ones += one;
            zeros += fabsf(value) <= 0;
            class_of[i] = one ? (int32_t)k : class_of[i];
        }
        if (count != (int64_t)f->info->label_count || ones != 1 || zeros != count - 1)
            return wrong(f, i, from->name, "is no one-hot label, nor the number of a class", err);
    }
    return SAP_OK;
}

/* Texts of the rows: the names of their classes, or for class_of NULL the file's. */
static sap_status take_texts(const sap_foreign *f, const int32_t *class_of, int64_t rows, struct sap_storage *storage,
                             sap_column *out, sap_error *err) {
    const char *slash = strrchr(f->part->path, '/'), *file = slash ? slash + 1 : f->part->path;
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(rows + 1) * sizeof *offsets);
    size_t bytes = 0;
    for (int64_t i = 0; offsets && i < rows; i++) {
        offsets[i] = (int32_t)bytes;
        bytes += strlen(class_of ? f->info->labels[class_of[i]] : file);
    }
    char *text = offsets ? sap_storage_alloc(storage, bytes) : NULL;
    if (!text)
        return sap_error_memory(err, f->part->path);
    offsets[rows] = (int32_t)bytes;
    for (int64_t i = 0; i < rows; i++)
        memcpy(text + offsets[i], class_of ? f->info->labels[class_of[i]] : file,
               (size_t)(offsets[i + 1] - offsets[i]));
    out->offsets = offsets;
    out->values = text;
    return SAP_OK;
}

static sap_status take_field(const sap_foreign *f, const sap_batch *batch, const sap_field *field,
                             const sap_column *from, sap_column *out, sap_error *err) {
    struct sap_storage *storage = batch->storage;
    int64_t rows = batch->length;
    out->length = rows;
    if (field->type == SAP_LIST || field->type == SAP_FIXED_LIST)
        return take_feature(f, from, field, out, err);
    if (field->type == SAP_STRING && !from)
        return take_texts(f, NULL, rows, storage, out, err);
    size_t size = field->type == SAP_INT64 ? sizeof(int64_t) : sizeof(int32_t);
    void *values = sap_storage_alloc(storage, (size_t)rows * size);
    if (!values)
        return sap_error_memory(err, f->part->path);
    out->values = values;
    if (field->type == SAP_INT64) { /* the entry */
        for (int64_t i = 0; i < rows; i++)
            ((int64_t *)values)[i] = f->row + i;
        return SAP_OK;
    }
    SAP_TRY(take_classes(f, from, values, err));
    return field->type == SAP_STRING ? take_texts(f, values, rows, storage, out, err) : SAP_OK;
}

sap_status sap_foreign_turn(sap_foreign *f, sap_batch *batch, sap_error *err) {
    sap_column *columns = sap_storage_alloc(batch->storage, (size_t)f->count * sizeof *columns);
    sap_status status = columns ? SAP_OK : sap_error_memory(err, f->part->path);
    for (int32_t i = 0; i < f->count && status == SAP_OK; i++) {
        status = sap_column_init(batch->storage, &f->fields[i], &columns[i], err);
        if (status == SAP_OK)
            status = take_field(f, batch, &f->fields[i], f->from[i] < 0 ? NULL : &batch->columns[f->from[i]],
                                &columns[i], err);
    }
    f->row += batch->length;
    if (status == SAP_OK) {
        batch->columns = columns;
        batch->count = f->count;
    } else {
        sap_batch_release(batch);
    }
    return status;
}
