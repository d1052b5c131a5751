/* Taking some entries of a batch: those that a condition kept. */
#include "column_internal.h"

#include <stdlib.h>

/* Entries [begin, end) of a column; ranges rise and none is empty. */
typedef struct range {
    int64_t begin, end;
} range;

typedef struct ranges {
    range *items;
    size_t count, capacity;
    int64_t total;
} ranges;

static bool add_range(ranges *r, int64_t begin, int64_t end) {
    if (begin == end)
        return true;
    r->total += end - begin;
    if (r->count && r->items[r->count - 1].end == begin) {
        r->items[r->count - 1].end = end;
        return true;
    }
    if (!sap_grow((void **)&r->items, &r->capacity, r->count, sizeof *r->items))
        return false;
    r->items[r->count++] = (range){begin, end};
    return true;
}

/* Values of `size` bytes; NULL: out of memory. */
static void *take_values(const void *values, size_t size, const ranges *kept, struct sap_storage *storage) {
    char *out = sap_storage_alloc(storage, (size_t)kept->total * size), *at = out;
    for (size_t i = 0; out && i < kept->count; i++) {
        size_t bytes = (size_t)(kept->items[i].end - kept->items[i].begin) * size;
        memcpy(at, (const char *)values + (size_t)kept->items[i].begin * size, bytes);
        at += bytes;
    }
    return out;
}

/* New offsets, and the ranges of items that they stand for. */
static bool take_offsets(const int32_t *offsets, const ranges *kept, struct sap_storage *storage, sap_column *out,
                         ranges *items) {
    int32_t *taken = sap_storage_alloc(storage, (size_t)(kept->total + 1) * sizeof *taken);
    if (!taken)
        return false;
    int64_t row = 0;
    int32_t at = taken[0] = 0;
    for (size_t i = 0; i < kept->count; i++) {
        range r = kept->items[i];
        for (int64_t j = r.begin; j < r.end; j++)
            taken[++row] = at + (offsets[j + 1] - offsets[r.begin]);
        at = taken[row];
        if (!add_range(items, offsets[r.begin], offsets[r.end]))
            return false;
    }
    out->offsets = taken;
    return true;
}

static bool take_column(const sap_column *column, const ranges *kept, struct sap_storage *storage, sap_column *out);

static bool take_children(const sap_column *column, const ranges *kept, struct sap_storage *storage, sap_column *out) {
    bool well = true;
    for (int32_t i = 0; i < column->count && well; i++)
        well = take_column(&column->children[i], kept, storage, &out->children[i]);
    return well;
}

/* The alternatives of a union stay whole: its offsets point into them. */
static bool take_union(const sap_column *column, const ranges *kept, struct sap_storage *storage, sap_column *out) {
    out->values = take_values(column->values, 1, kept, storage);
    out->offsets = take_values(column->offsets, sizeof *column->offsets, kept, storage);
    bool well = out->values && out->offsets;
    for (int32_t i = 0; i < column->count && well; i++) {
        ranges all = {0};
        well = add_range(&all, 0, column->children[i].length) &&
               take_column(&column->children[i], &all, storage, &out->children[i]);
        free(all.items);
    }
    return well;
}

static bool take_column(const sap_column *column, const ranges *kept, struct sap_storage *storage, sap_column *out) {
    *out = (sap_column){.type = column->type, .size = column->size, .count = column->count, .length = kept->total};
    out->name = sap_storage_text(storage, column->name);
    out->children = sap_storage_alloc(storage, (size_t)column->count * sizeof *out->children);
    if (!out->name || !out->children)
        return false;
    if (column->valid && !(out->valid = take_values(column->valid, 1, kept, storage)))
        return false;
    ranges items = {0};
    bool well = true;
    switch (column->type) {
    case SAP_TYPE_NONE:
        break;
    case SAP_UNION:
        return take_union(column, kept, storage, out);
    case SAP_RECORD:
        return take_children(column, kept, storage, out);
    case SAP_STRING:
        well = take_offsets(column->offsets, kept, storage, out, &items) &&
               (out->values = take_values(column->values, 1, &items, storage));
        break;
    case SAP_LIST:
        well = take_offsets(column->offsets, kept, storage, out, &items) && take_children(column, &items, storage, out);
        break;
    case SAP_FIXED_LIST:
        for (size_t i = 0; i < kept->count && well; i++)
            well = add_range(&items, kept->items[i].begin * column->size, kept->items[i].end * column->size);
        well = well && take_children(column, &items, storage, out);
        break;
    default:
        out->values = take_values(column->values, sap_type_size(column->type), kept, storage);
        well = out->values != NULL;
        break;
    }
    free(items.items);
    return well;
}

sap_status sap_batch_take(const sap_batch *batch, int32_t columns, const uint8_t *keep, sap_batch *out,
                          sap_error *err) {
    ranges kept = {0};
    bool well = true;
    SAP_TRY(sap_batch_init(out, columns, err));
    for (int64_t i = 0; i < batch->length && well; i++)
        if (keep[i])
            well = add_range(&kept, i, i + 1);
    for (int32_t i = 0; i < columns && well; i++)
        well = take_column(&batch->columns[i], &kept, out->storage, &out->columns[i]);
    out->length = kept.total;
    out->first_entry = batch->first_entry;
    free(kept.items);
    if (well)
        return SAP_OK;
    sap_batch_release(out);
    return sap_error_memory(err, "batch");
}
