/* Builders to columns: the pieces that several baskets gave, put together. */
#include "root_internal.h"

typedef struct joiner {
    sap_builder *const *pieces;
    size_t count;
    struct sap_storage *storage;
    sap_error *err;
} joiner;

static sap_status join_values(const joiner *j, int slot, sap_column *out) {
    size_t total = 0, at = 0;
    for (size_t i = 0; i < j->count; i++)
        total += j->pieces[i][slot].values.length;
    uint8_t *data = sap_storage_alloc(j->storage, total);
    if (!data)
        return sap_error_memory(j->err, out->name);
    for (size_t i = 0; i < j->count; i++) {
        const sap_buffer *from = &j->pieces[i][slot].values;
        if (from->length)
            memcpy(data + at, from->data, from->length);
        at += from->length;
    }
    out->values = data;
    return SAP_OK;
}

static sap_status join_ends(const joiner *j, int slot, sap_column *out) {
    int32_t *offsets = sap_storage_alloc(j->storage, ((size_t)out->length + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(j->err, out->name);
    int64_t base = 0;
    size_t row = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < j->count; i++) {
        const sap_builder *piece = &j->pieces[i][slot];
        int32_t end = 0;
        for (int64_t e = 0; e < piece->items; e++) {
            memcpy(&end, piece->ends.data + 4 * (size_t)e, 4);
            offsets[++row] = (int32_t)(base + end);
        }
        base += end;
        if (base > INT32_MAX)
            return sap_error_set(j->err, SAP_EMEMORY,
                                 "column \"%s\": more than 2^31 items in one batch; ask for smaller batches",
                                 out->name);
    }
    out->offsets = offsets;
    return SAP_OK;
}

static int64_t count_items(const joiner *j, int slot) {
    int64_t items = 0;
    for (size_t i = 0; i < j->count; i++)
        items += j->pieces[i][slot].items;
    return items;
}

/* Descends through the fixed lists of the step's dimensions, setting lengths; returns the column inside. */
static sap_column *inside_dims(const sap_step_node *step, sap_column *column, int64_t items) {
    for (int i = 0; i < step->dim_count; i++) {
        column->length = items;
        items *= step->dims[i];
        column = &column->children[0];
    }
    column->length = items;
    return column;
}

static sap_status fill(const joiner *j, const sap_step_node *step, sap_column *out);

static sap_status fill_fields(const joiner *j, const sap_step_node *record, sap_column *columns, int32_t *at) {
    for (int i = 0; i < record->child_count; i++) {
        const sap_step_node *child = &record->children[i];
        if (child->hidden)
            continue;
        SAP_TRY(child->base ? fill_fields(j, child, columns, at) : fill(j, child, &columns[(*at)++]));
    }
    return SAP_OK;
}

/* What is pointed to, with a byte for each pointer that says whether it was null. */
static sap_status fill_pointers(const joiner *j, const sap_step_node *step, int64_t items, sap_column *out) {
    sap_column valid = {.name = out->name};
    SAP_TRY(join_values(j, step->slot, &valid));
    out->length = items;
    if (step->child_count)
        SAP_TRY(fill(j, &step->children[0], out));
    if (memchr(valid.values, 0, (size_t)items))
        out->valid = valid.values;
    return SAP_OK;
}

static sap_status fill(const joiner *j, const sap_step_node *step, sap_column *out) {
    int64_t items = count_items(j, step->slot);
    int32_t at = 0;
    switch (step->op) {
    case SAP_OP_NUMBER:
    case SAP_OP_FBITS:
    case SAP_OP_REF:
        return join_values(j, step->slot, inside_dims(step, out, items));
    case SAP_OP_STRING:
    case SAP_OP_CSTRING:
        out->length = items;
        SAP_TRY(join_values(j, step->slot, out));
        return join_ends(j, step->slot, out);
    case SAP_OP_ARRAY:
        return fill(j, &step->children[0], inside_dims(step, out, items));
    case SAP_OP_POINTER:
        return fill_pointers(j, step, items, out);
    case SAP_OP_RECORD:
        out->length = items;
        return fill_fields(j, step, out->children, &at);
    default:
        out = inside_dims(step, out, items / step->count);
        out->length = items;
        SAP_TRY(join_ends(j, step->slot, out));
        return fill(j, &step->children[0], &out->children[0]);
    }
}

sap_status sap_builders_join(const sap_program *program, sap_builder *const *pieces, size_t count,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    joiner j = {pieces, count, storage, err};
    return fill(&j, &program->root, out);
}
