/* What is left to do when the pages of a column are decoded: offsets and the ranges of the items below, counts, optional
 * values, serialised objects. docs/format/rntuple.md, § Types. */
#include "ntuple.h"

#include <stdlib.h>

bool sap_parts_reserve(sap_scan_node *node, size_t part_count) {
    if (part_count > node->part_capacity) {
        free(node->parts);
        node->parts = calloc(2 * part_count, sizeof *node->parts);
        node->items = node->parts + part_count;
        node->part_capacity = node->parts ? part_count : 0;
    }
    return node->parts != NULL;
}

static sap_status too_many(const sap_scan_node *node, sap_error *err) {
    return sap_error_set(err, SAP_EMEMORY, "%s: more than 2^31 items in one batch; ask for smaller batches",
                         node->where);
}

/* ---- Collections -------------------------------------------------------------------------------------------------- */

sap_status sap_index_finish(sap_scan_node *node, sap_page_piece *pieces, size_t part_count, sap_error *err) {
    sap_scan_node *child = node->node->child_count ? &node->children[0] : NULL;
    uint64_t items = 0;
    size_t i = node->piece, end = node->piece + node->piece_count;
    if (child && !sap_parts_reserve(child, part_count))
        return sap_error_memory(err, node->where);
    for (size_t k = 0; k < part_count; k++) {
        /* the items of the first entry begin where those of the one before end */
        uint64_t base = node->parts[k].from > 0 && i < end && pieces[i].part == k ? pieces[i].first : 0, last = base;
        for (; i < end && pieces[i].part == k; i++) {
            sap_page_piece *p = &pieces[i];
            if (p->first < last)
                return sap_error_set(err, SAP_EFORMAT, "%s: the index of cluster part %zu falls from %llu to %llu",
                                     node->where, k, (unsigned long long)last, (unsigned long long)p->first);
            if (items + (p->last - base) > INT32_MAX)
                return too_many(node, err);
            p->shift = (int32_t)(items + (p->first - base));
            last = p->last;
        }
        node->items[k] = (sap_part){.from = base, .to = last, .total = SAP_TOTAL_UNKNOWN, .at = (int64_t)items};
        if (child)
            child->parts[k] = node->items[k];
        items += last - base;
    }
    node->offsets[0] = 0;
    if (child)
        child->length = (int64_t)items;
    return SAP_OK;
}

/* ---- Unions ---------------------------------------------------------------------------------------------------------- */

/* Items of an alternative stand in the order of the entries. */
sap_status sap_union_finish(sap_scan_node *node, size_t part_count, sap_error *err) {
    enum { MOST = 126 };
    const int8_t *tags = node->values;
    int64_t items[MOST] = {0};
    size_t count = node->node->child_count;
    for (size_t t = 0; t < count; t++)
        if (!sap_parts_reserve(&node->children[t], part_count))
            return sap_error_memory(err, node->where);
    for (size_t k = 0; k < part_count; k++) {
        const sap_part *part = &node->parts[k];
        uint64_t first[MOST], next[MOST];
        bool seen[MOST] = {0};
        for (int64_t row = part->at; row < part->at + (int64_t)(part->to - part->from); row++) {
            int t = tags[row];
            uint64_t index = (uint32_t)node->offsets[row];
            if (!seen[t] || t == 0) {
                first[t] = seen[t] ? first[t] : index;
                next[t] = t == 0 && seen[t] ? next[t] : index;
                index = next[t];
                seen[t] = true;
            }
            if (index != next[t] || (k > 0 && t > 0 && first[t] > 0))
                return sap_error_set(err, SAP_EFORMAT, "%s: item %llu of alternative %d stands where %llu is expected",
                                     node->where, (unsigned long long)index, t,
                                     (unsigned long long)(index != next[t] ? next[t] : 0));
            node->offsets[row] = (int32_t)(items[t] + (int64_t)(next[t]++ - first[t]));
        }
        for (size_t t = 0; t < count; t++) {
            sap_part *out = &node->children[t].parts[k];
            *out = (sap_part){.total = SAP_TOTAL_UNKNOWN, .at = items[t]};
            if (seen[t]) {
                out->from = first[t];
                out->to = next[t];
                items[t] += (int64_t)(next[t] - first[t]);
            }
        }
    }
    for (size_t t = 0; t < count; t++)
        node->children[t].length = items[t];
    return SAP_OK;
}

/* ---- Optional values --------------------------------------------------------------------------------------------------- */

static void spread_values(const uint8_t *from, size_t size, const int32_t *map, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i++) {
        if (map[i] < 0)
            memset(out + (size_t)i * size, 0, size);
        else
            memcpy(out + (size_t)i * size, from + (size_t)map[i] * size, size);
    }
}

static sap_status spread(sap_column *c, const int32_t *map, int64_t n, struct sap_storage *storage, sap_error *err);

static sap_status spread_offsets(sap_column *c, const int32_t *map, int64_t n, struct sap_storage *storage,
                                 sap_error *err) {
    int32_t *out = sap_storage_alloc(storage, (size_t)(n + 1) * sizeof *out);
    if (!out)
        return sap_error_memory(err, c->name);
    out[0] = c->length ? c->offsets[0] : 0;
    for (int64_t i = 0; i < n; i++)
        out[i + 1] = map[i] < 0 ? out[i] : c->offsets[map[i] + 1];
    c->offsets = out;
    return SAP_OK;
}

/* A place without a value becomes an item of the alternative that is nothing. */
static sap_status spread_union(sap_column *c, const int32_t *map, int64_t n, struct sap_storage *storage,
                               sap_error *err) {
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(n + 1) * sizeof *offsets);
    int8_t *tags = sap_storage_alloc(storage, (size_t)n + 1);
    if (!offsets || !tags)
        return sap_error_memory(err, c->name);
    int32_t none = 0;
    for (int64_t i = 0; i < n; i++) {
        tags[i] = map[i] < 0 ? 0 : ((const int8_t *)c->values)[map[i]];
        offsets[i] = tags[i] == 0 ? none++ : c->offsets[map[i]];
    }
    c->children[0].length = none;
    c->offsets = offsets;
    c->values = tags;
    c->length = n;
    return SAP_OK;
}

static sap_status spread_fixed(sap_column *c, const int32_t *map, int64_t n, struct sap_storage *storage,
                               sap_error *err) {
    if (c->children[0].length > INT32_MAX || n * c->size > INT32_MAX)
        return sap_error_set(err, SAP_EMEMORY, "%s: more than 2^31 items in one batch; ask for smaller batches",
                             c->name);
    int32_t *inner = malloc(((size_t)n * (size_t)c->size + 1) * sizeof *inner);
    if (!inner)
        return sap_error_memory(err, c->name);
    for (int64_t i = 0; i < n; i++)
        for (int32_t j = 0; j < c->size; j++)
            inner[i * c->size + j] = map[i] < 0 ? -1 : map[i] * c->size + j;
    sap_status status = spread(&c->children[0], inner, n * c->size, storage, err);
    free(inner);
    return status;
}

/* Entry i of n gets item map[i] of the column, or nothing when that is negative. */
static sap_status spread(sap_column *c, const int32_t *map, int64_t n, struct sap_storage *storage, sap_error *err) {
    size_t size = sap_type_size(c->type);
    if (c->type == SAP_UNION)
        return spread_union(c, map, n, storage, err);
    if (c->valid) {
        uint8_t *valid = sap_storage_alloc(storage, (size_t)n + 1);
        if (!valid)
            return sap_error_memory(err, c->name);
        spread_values(c->valid, 1, map, n, valid);
        c->valid = valid;
    }
    if (size) {
        uint8_t *values = sap_storage_alloc(storage, (size_t)n * size + 1);
        if (!values)
            return sap_error_memory(err, c->name);
        spread_values(c->values, size, map, n, values);
        c->values = values;
    }
    if (c->type == SAP_STRING || c->type == SAP_LIST)
        SAP_TRY(spread_offsets(c, map, n, storage, err));
    if (c->type == SAP_FIXED_LIST)
        SAP_TRY(spread_fixed(c, map, n, storage, err));
    for (int32_t i = 0; c->type == SAP_RECORD && i < c->count; i++)
        SAP_TRY(spread(&c->children[i], map, n, storage, err));
    c->length = n;
    return SAP_OK;
}

static sap_status finish_optional(sap_scan_node *node, struct sap_storage *storage, sap_error *err) {
    int64_t n = node->length;
    sap_column *c = node->column;
    if (node->children[0].length == n && !c->valid) { /* then each has one, or several in one place */
        for (int64_t i = 0; i < n; i++)
            if (node->offsets[i + 1] - node->offsets[i] != 1)
                n = -1;
        if (n >= 0)
            return SAP_OK;
        n = node->length;
    }
    int32_t *map = malloc(((size_t)n + 1) * sizeof *map);
    sap_status status = map ? SAP_OK : sap_error_memory(err, node->where);
    for (int64_t i = 0; status == SAP_OK && i < n; i++) {
        int32_t items = node->offsets[i + 1] - node->offsets[i];
        map[i] = items ? node->offsets[i] : -1;
        if (items > 1)
            status = sap_error_set(err, SAP_EFORMAT, "%s: an optional value with %d values", node->where, items);
    }
    bool nullable = c->type != SAP_UNION;
    uint8_t *valid = status == SAP_OK && nullable ? sap_storage_alloc(storage, (size_t)n + 1) : NULL;
    if (status == SAP_OK && nullable && !valid)
        status = sap_error_memory(err, node->where);
    for (int64_t i = 0; status == SAP_OK && valid && i < n; i++)
        valid[i] = map[i] >= 0 && (!c->valid || c->valid[map[i]]);
    if (valid)
        c->valid = NULL; /* it is in the new one */
    if (status == SAP_OK)
        status = spread(c, map, n, storage, err);
    if (valid)
        c->valid = valid;
    free(map);
    return status;
}

/* ---- Counts --------------------------------------------------------------------------------------------------------------- */

static sap_status finish_count(sap_scan_node *node, struct sap_storage *storage, sap_error *err) {
    int64_t *values = sap_storage_alloc(storage, (size_t)(node->length + 1) * sizeof *values);
    if (!values)
        return sap_error_memory(err, node->where);
    for (int64_t i = 0; i < node->length; i++)
        values[i] = node->offsets[i + 1] - node->offsets[i];
    node->column->values = values;
    return SAP_OK;
}

/* ---- Serialised objects ------------------------------------------------------------------------------------------------- */

static sap_status bad_object(const sap_scan_node *node, const sap_interpreter *in, int64_t row, sap_error *err) {
    if (in->out_of_memory)
        return sap_error_memory(err, node->where);
    if (in->problem[0])
        return sap_error_set(err, SAP_EFORMAT, "%s: object %lld of the batch: %s", node->where, (long long)row,
                             in->problem);
    return sap_error_set(err, SAP_EFORMAT, "%s: object %lld of the batch needs %zu bytes at byte %zu, %zu are left",
                         node->where, (long long)row, in->c.wanted, in->c.failed_at, in->c.length - in->c.failed_at);
}

static sap_status finish_streamed(sap_scan_node *node, struct sap_storage *storage, sap_error *err) {
    const sap_program *program = node->node->program;
    sap_builder *builders = calloc((size_t)program->slots + 1, sizeof *builders);
    if (!builders)
        return sap_error_memory(err, node->where);
    const uint8_t *bytes = node->children[0].values;
    sap_interpreter in = {.program = program, .builders = builders};
    sap_status status = SAP_OK;
    for (int64_t i = 0; i < node->length && status == SAP_OK; i++) {
        in.c = sap_cursor_init(bytes + node->offsets[i], (size_t)(node->offsets[i + 1] - node->offsets[i]), 0);
        if (!sap_interpret(&in))
            status = bad_object(node, &in, i, err);
    }
    if (status == SAP_OK)
        status = sap_builders_join(program, &builders, 1, storage, node->column, err);
    sap_builders_release(builders, program->slots);
    return status;
}

sap_status sap_scan_node_finish(sap_scan_node *node, struct sap_storage *storage, sap_error *err) {
    for (size_t i = 0; i < node->node->child_count; i++)
        SAP_TRY(sap_scan_node_finish(&node->children[i], storage, err));
    if (node->node->kind == SAP_NODE_OPTIONAL)
        return finish_optional(node, storage, err);
    if (node->node->kind == SAP_NODE_STREAMED)
        return finish_streamed(node, storage, err);
    if (node->node->kind == SAP_NODE_COUNT)
        return finish_count(node, storage, err);
    return SAP_OK;
}
