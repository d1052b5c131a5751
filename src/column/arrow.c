/* Arrow's C Data interface: schemas and batches handed out. */
#include "column_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

/* ---- Schemas ------------------------------------------------------------------------------------------- */

static const char *const primitive_formats[] = {
    [SAP_BOOL] = "b",   [SAP_INT8] = "c",    [SAP_UINT8] = "C",   [SAP_INT16] = "s",
    [SAP_UINT16] = "S", [SAP_INT32] = "i",   [SAP_UINT32] = "I",  [SAP_INT64] = "l",
    [SAP_UINT64] = "L", [SAP_FLOAT16] = "e", [SAP_FLOAT32] = "f", [SAP_FLOAT64] = "g",
    [SAP_STRING] = "u", [SAP_LIST] = "+l",   [SAP_RECORD] = "+s", [SAP_TYPE_NONE] = "n",
};

static void release_schema(struct ArrowSchema *schema) {
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i] && schema->children[i]->release)
            schema->children[i]->release(schema->children[i]);
        free(schema->children[i]);
    }
    free(schema->children);
    free((char *)(uintptr_t)schema->name);
    free((char *)(uintptr_t)schema->format);
    schema->release = NULL;
}

static char *format_of(const sap_field *field) {
    sap_text text = {0};
    if (field->type == SAP_FIXED_LIST) {
        sap_text_add(&text, "+w:%d", field->size);
    } else if (field->type == SAP_DECIMAL) {
        sap_text_add(&text, "d:%d,0", field->size);
    } else if (field->type == SAP_UNION) {
        sap_text_add(&text, "+ud:");
        for (int32_t i = 0; i < field->count; i++)
            sap_text_add(&text, "%s%d", i ? "," : "", i);
    } else {
        sap_text_add(&text, "%s", primitive_formats[field->type]);
    }
    return text.data;
}

static sap_status export_field(const sap_field *field, const char *name, struct ArrowSchema *out, sap_error *err) {
    *out = (struct ArrowSchema){.release = release_schema, .flags = field->nullable ? ARROW_FLAG_NULLABLE : 0};
    out->format = format_of(field);
    out->name = strdup(name);
    out->children = calloc((size_t)field->count + 1, sizeof *out->children);
    sap_status status = out->format && out->name && out->children ? SAP_OK : sap_error_memory(err, "Arrow schema");
    for (int32_t i = 0; i < field->count && status == SAP_OK; i++) {
        const sap_field *child = &field->children[i];
        bool list = field->type == SAP_LIST || field->type == SAP_FIXED_LIST;
        out->children[i] = calloc(1, sizeof **out->children);
        if (!out->children[i]) {
            status = sap_error_memory(err, "Arrow schema");
            break;
        }
        out->n_children = i + 1;
        status = export_field(child, list ? "item" : child->name ? child->name : "", out->children[i], err);
    }
    if (status != SAP_OK && out->release)
        out->release(out);
    return status;
}

sap_status sap_schema_export(const sap_field *fields, int32_t count, struct ArrowSchema *out, sap_error *err) {
    return export_field(&(sap_field){.type = SAP_RECORD, .count = count, .children = fields}, "", out, err);
}

/* ---- Arrays ---------------------------------------------------------------------------------------------- */

/* What the arrays of one batch share. A consumer may move a child array out of its parent and keep it longer, so each
 * array holds a reference. */
typedef struct owner {
    sap_batch batch;
    sap_arena arena;
    atomic_size_t references;
} owner;

static void drop_reference(owner *own) {
    if (atomic_fetch_sub(&own->references, 1) != 1)
        return;
    sap_batch_release(&own->batch);
    sap_arena_release(&own->arena);
    free(own);
}

static void release_array(struct ArrowArray *array) {
    owner *own = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release)
            array->children[i]->release(array->children[i]);
    array->release = NULL;
    drop_reference(own);
}

/* One bit a value, from one byte a value; NULL: out of memory. */
static uint8_t *pack_bits(sap_arena *arena, const uint8_t *bytes, int64_t length, int64_t *zeros) {
    uint8_t *bits = sap_arena_alloc(arena, (size_t)(length + 7) / 8 + 1);
    int64_t ones = 0;
    for (int64_t i = 0; bits && i < length; i++) {
        bits[i / 8] = (uint8_t)(bits[i / 8] | (bytes[i] != 0) << (i % 8));
        ones += bytes[i] != 0;
    }
    *zeros = length - ones;
    return bits;
}

/* Arrow wants a buffer where a column of length 0 may have none. */
static const int64_t no_bytes[8];

static sap_status export_column(const sap_column *column, owner *own, struct ArrowArray *out, sap_error *err) {
    sap_arena *arena = &own->arena;
    *out = (struct ArrowArray){.length = column->length, .release = release_array, .private_data = own};
    atomic_fetch_add(&own->references, 1);
    out->buffers = sap_arena_array(arena, 3, sizeof *out->buffers);
    out->children = sap_arena_array(arena, (size_t)column->count + 1, sizeof *out->children);
    if (!out->buffers || !out->children)
        return sap_error_memory(err, column->name);
    int64_t n = 0;
    if (column->type == SAP_TYPE_NONE)
        out->null_count = column->length;
    if (column->type != SAP_UNION && column->type != SAP_TYPE_NONE) { /* they have no validity of their own */
        if (column->valid) {
            out->buffers[0] = pack_bits(arena, column->valid, column->length, &out->null_count);
            if (!out->buffers[0])
                return sap_error_memory(err, column->name);
        }
        n = 1;
    }
    const void *values = column->values ? column->values : no_bytes;
    const void *offsets = column->offsets ? (const void *)column->offsets : no_bytes;
    int64_t zeros;
    switch (column->type) {
    case SAP_BOOL:
        out->buffers[n++] = pack_bits(arena, values, column->length, &zeros);
        if (!out->buffers[n - 1])
            return sap_error_memory(err, column->name);
        break;
    case SAP_STRING:
        out->buffers[n++] = offsets;
        out->buffers[n++] = values;
        break;
    case SAP_LIST:
        out->buffers[n++] = offsets;
        break;
    case SAP_UNION:
        out->buffers[n++] = values; /* tags */
        out->buffers[n++] = offsets;
        break;
    case SAP_RECORD:
    case SAP_FIXED_LIST:
    case SAP_TYPE_NONE:
        break;
    default:
        out->buffers[n++] = values;
        break;
    }
    out->n_buffers = n;
    for (int32_t i = 0; i < column->count; i++) {
        out->children[i] = sap_arena_alloc(arena, sizeof **out->children);
        if (!out->children[i])
            return sap_error_memory(err, column->name);
        SAP_TRY(export_column(&column->children[i], own, out->children[i], err));
    }
    out->n_children = column->count;
    return SAP_OK;
}

sap_status sap_batch_export(sap_batch *batch, struct ArrowArray *out, sap_error *err) {
    owner *own = calloc(1, sizeof *own);
    if (!own)
        return sap_error_memory(err, "Arrow array");
    sap_column top = {.name = "batch",
                      .type = SAP_RECORD,
                      .length = batch->length,
                      .count = batch->count,
                      .children = batch->columns};
    sap_status status = export_column(&top, own, out, err);
    if (status != SAP_OK) {
        sap_arena_release(&own->arena);
        free(own);
        out->release = NULL;
        return status;
    }
    own->batch = *batch;
    *batch = (sap_batch){0};
    return SAP_OK;
}
