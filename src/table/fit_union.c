/* One alternative of a union as a column of its own: values put where they belong, nulls between them. */
#include "table_internal.h"

#include <stdlib.h>

/* Which value of a column goes where; -1: none. */
typedef struct places {
    int64_t *index; /* (count) */
    int64_t count;
} places;

static sap_status place_column(const sap_column *from, const places *p, struct sap_storage *storage, sap_column *out,
                               sap_error *err);

static bool place_valid(const sap_column *from, const places *p, struct sap_storage *storage, sap_column *out) {
    uint8_t *valid = sap_storage_alloc(storage, (size_t)p->count);
    for (int64_t i = 0; valid && i < p->count; i++)
        valid[i] = p->index[i] >= 0 && (!from->valid || from->valid[p->index[i]]);
    out->valid = valid;
    return valid != NULL;
}

static bool place_numbers(const sap_column *from, const places *p, struct sap_storage *storage, sap_column *out) {
    size_t size = sap_type_size(from->type);
    char *values = sap_storage_alloc(storage, (size_t)p->count * size);
    for (int64_t i = 0; values && i < p->count; i++) {
        if (p->index[i] < 0)
            memset(values + (size_t)i * size, 0, size);
        else
            memcpy(values + (size_t)i * size, (const char *)from->values + (size_t)p->index[i] * size, size);
    }
    out->values = values;
    return values != NULL;
}

static int64_t length_of(const sap_column *from, int64_t i) {
    return i < 0 ? 0 : from->type == SAP_FIXED_LIST ? from->size : from->offsets[i + 1] - from->offsets[i];
}

static int64_t begin_of(const sap_column *from, int64_t i) {
    return from->type == SAP_FIXED_LIST ? i * from->size : from->offsets[i];
}

/* Offsets, and the number of items. */
static bool place_offsets(const sap_column *from, const places *p, struct sap_storage *storage, sap_column *out,
                          int64_t *items) {
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(p->count + 1) * sizeof *offsets);
    *items = 0;
    for (int64_t i = 0; offsets && i < p->count; i++) {
        offsets[i] = (int32_t)*items;
        *items += length_of(from, p->index[i]);
    }
    if (offsets)
        offsets[p->count] = (int32_t)*items;
    out->offsets = offsets;
    return offsets != NULL && *items <= INT32_MAX;
}

static sap_status place_items(const sap_column *from, const places *p, int64_t items, struct sap_storage *storage,
                              sap_column *out, sap_error *err) {
    if (from->type == SAP_STRING) {
        char *bytes = sap_storage_alloc(storage, (size_t)items), *at = bytes;
        for (int64_t i = 0; bytes && i < p->count; i++) {
            size_t length = (size_t)length_of(from, p->index[i]);
            if (length)
                memcpy(at, (const char *)from->values + begin_of(from, p->index[i]), length);
            at += length;
        }
        out->values = bytes;
        return bytes ? SAP_OK : sap_error_memory(err, from->name);
    }
    places below = {malloc((size_t)(items + 1) * sizeof *below.index), 0};
    if (!below.index)
        return sap_error_memory(err, from->name);
    for (int64_t i = 0; i < p->count; i++)
        for (int64_t j = 0; j < length_of(from, p->index[i]); j++)
            below.index[below.count++] = begin_of(from, p->index[i]) + j;
    sap_status status = place_column(&from->children[0], &below, storage, &out->children[0], err);
    free(below.index);
    return status;
}

static sap_status place_column(const sap_column *from, const places *p, struct sap_storage *storage, sap_column *out,
                               sap_error *err) {
    *out = (sap_column){.name = from->name, .type = from->type, .count = from->count, .length = p->count};
    out->children = sap_storage_alloc(storage, (size_t)from->count * sizeof *out->children);
    int64_t items;
    if (from->type == SAP_TYPE_NONE)
        return SAP_OK;
    if (from->type == SAP_UNION)
        return sap_error_set(err, SAP_EUNSUPPORTED, "column \"%s\": a union in a union", from->name);
    if (!out->children || !place_valid(from, p, storage, out))
        return sap_error_memory(err, from->name);
    switch (from->type) {
    case SAP_FIXED_LIST: /* of variable length from here on: nulls have no items */
        out->type = SAP_LIST;
        /* fall through */
    case SAP_LIST:
    case SAP_STRING:
        if (!place_offsets(from, p, storage, out, &items))
            return sap_error_memory(err, from->name);
        return place_items(from, p, items, storage, out, err);
    case SAP_RECORD:
        for (int32_t i = 0; i < from->count; i++)
            SAP_TRY(place_column(&from->children[i], p, storage, &out->children[i], err));
        return SAP_OK;
    default:
        return place_numbers(from, p, storage, out) ? SAP_OK : sap_error_memory(err, from->name);
    }
}

sap_status sap_union_spread(const sap_column *from, int32_t tag, struct sap_storage *storage, sap_column *out,
                            sap_error *err) {
    const int8_t *tags = from->values;
    places p = {malloc((size_t)(from->length + 1) * sizeof *p.index), from->length};
    if (!p.index)
        return sap_error_memory(err, from->name);
    for (int64_t i = 0; i < from->length; i++)
        p.index[i] = tags[i] == tag ? from->offsets[i] : -1;
    sap_status status = place_column(&from->children[tag], &p, storage, out, err);
    free(p.index);
    return status;
}
