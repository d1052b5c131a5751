/* Batches: their storage, views of a range of entries, and joining. */
#include "column_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

/* A block of memory in a storage: its data follows, unless `adopted` is one that was. */
typedef struct block {
    struct block *next;
    void *adopted;
    size_t capacity; /* of a large block, 0: from malloc */
} block;

struct sap_storage {
    _Atomic(block *) first;
};

enum { ALIGNMENT = 64 };

static void push(struct sap_storage *storage, block *b) {
    b->next = atomic_load_explicit(&storage->first, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&storage->first, &b->next, b, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

void *sap_storage_alloc(struct sap_storage *storage, size_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t total = ((bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1)) + ALIGNMENT;
    size_t capacity = 0;
    block *b = total < SAP_BLOCK_LEAST ? aligned_alloc(ALIGNMENT, total) : sap_block_take(total, &capacity);
    if (!b)
        return NULL;
    b->adopted = NULL;
    b->capacity = capacity;
    push(storage, b);
    return (char *)b + ALIGNMENT;
}

void *sap_slab_take(sap_slab *slab, size_t bytes) {
    uint8_t *p = slab->data ? slab->data + slab->used : NULL;
    *(slab->data ? &slab->used : &slab->size) += (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    return p;
}

bool sap_slab_open(sap_slab *slab, struct sap_storage *storage) {
    slab->data = sap_storage_alloc(storage, slab->size);
    return slab->data != NULL;
}

bool sap_storage_adopt(struct sap_storage *storage, void *data) {
    block *b = aligned_alloc(ALIGNMENT, ALIGNMENT);
    if (!b)
        return false;
    b->adopted = data;
    b->capacity = 0;
    push(storage, b);
    return true;
}

char *sap_storage_text(struct sap_storage *storage, const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy = sap_storage_alloc(storage, bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

sap_status sap_batch_init(sap_batch *batch, int32_t count, sap_error *err) {
    *batch = (sap_batch){.count = count};
    batch->storage = calloc(1, sizeof *batch->storage);
    size_t bytes = (size_t)count * sizeof *batch->columns;
    batch->columns = batch->storage ? sap_storage_alloc(batch->storage, bytes) : NULL;
    if (!batch->columns) {
        sap_batch_release(batch);
        return sap_error_memory(err, "batch");
    }
    memset(batch->columns, 0, bytes);
    return SAP_OK;
}

void sap_batch_release(sap_batch *batch) {
    if (batch->storage) {
        block *b = atomic_load_explicit(&batch->storage->first, memory_order_acquire);
        while (b) {
            block *next = b->next;
            free(b->adopted);
            if (b->capacity)
                sap_block_give(b, b->capacity);
            else
                free(b);
            b = next;
        }
        free(batch->storage);
    }
    *batch = (sap_batch){0};
}

void sap_storage_absorb(struct sap_storage *storage, sap_batch *batch) {
    block *b = atomic_load_explicit(&batch->storage->first, memory_order_acquire);
    while (b) {
        block *next = b->next;
        push(storage, b);
        b = next;
    }
    free(batch->storage);
    *batch = (sap_batch){0};
}

const sap_column *sap_batch_find(const sap_batch *batch, const char *name) {
    for (int32_t i = 0; i < batch->count; i++)
        if (strcmp(batch->columns[i].name, name) == 0)
            return &batch->columns[i];
    return NULL;
}

sap_status sap_column_init(struct sap_storage *storage, const sap_field *field, sap_column *out, sap_error *err) {
    *out = (sap_column){.type = field->type, .size = field->size, .count = field->count};
    out->name = sap_storage_text(storage, field->name ? field->name : "");
    if (field->count > 0)
        out->children = sap_storage_alloc(storage, (size_t)field->count * sizeof *out->children);
    if (!out->name || (field->count > 0 && !out->children))
        return sap_error_memory(err, "column");
    for (int32_t i = 0; i < field->count; i++)
        SAP_TRY(sap_column_init(storage, &field->children[i], &out->children[i], err));
    return SAP_OK;
}

/* ---- Views --------------------------------------------------------------------------------------------- */

/* Entries [begin, begin + length) of `column`. Only records and fixed lists, whose children run in step with them, need
 * children of their own. */
sap_status sap_column_view(const sap_column *column, int64_t begin, int64_t length, struct sap_storage *storage,
                           sap_column *out, sap_error *err) {
    *out = *column;
    out->length = length;
    if (column->valid)
        out->valid = column->valid + begin;
    if (column->offsets)
        out->offsets = column->offsets + begin;
    if (column->type != SAP_STRING && column->values) {
        size_t size = column->type == SAP_UNION ? 1 : sap_type_size(column->type);
        out->values = (const char *)column->values + (size_t)begin * size;
    }
    if (column->type == SAP_RECORD || column->type == SAP_FIXED_LIST) {
        int64_t step = column->type == SAP_FIXED_LIST ? column->size : 1;
        out->children = sap_storage_alloc(storage, (size_t)column->count * sizeof *out->children);
        if (!out->children)
            return sap_error_memory(err, "view of a batch");
        for (int32_t i = 0; i < column->count; i++)
            SAP_TRY(
                sap_column_view(&column->children[i], begin * step, length * step, storage, &out->children[i], err));
    }
    return SAP_OK;
}

sap_status sap_batch_view(const sap_batch *batch, int64_t begin, int64_t end, sap_batch *out, sap_error *err) {
    if (begin < 0 || end < begin || end > batch->length)
        return sap_error_set(err, SAP_EARGUMENT, "view of entries [%lld, %lld) of a batch of %lld", (long long)begin,
                             (long long)end, (long long)batch->length);
    SAP_TRY(sap_batch_init(out, batch->count, err));
    out->length = end - begin;
    out->first_entry = batch->first_entry + begin;
    for (int32_t i = 0; i < batch->count; i++) {
        sap_status status =
            sap_column_view(&batch->columns[i], begin, end - begin, out->storage, &out->columns[i], err);
        if (status != SAP_OK) {
            sap_batch_release(out);
            return status;
        }
    }
    return SAP_OK;
}

/* ---- Joining ------------------------------------------------------------------------------------------- */

enum { FEW_PARTS = 16 };

static sap_status join_columns(const sap_column *const *parts, size_t count, struct sap_storage *storage,
                               sap_column *out, sap_error *err);

static sap_status join_offsets(const sap_column *const *parts, size_t count, struct sap_storage *storage,
                               sap_column *out, sap_error *err) {
    int64_t items = 0;
    for (size_t i = 0; i < count; i++)
        if (parts[i]->length > 0)
            items += parts[i]->offsets[parts[i]->length] - parts[i]->offsets[0];
    if (items > INT32_MAX)
        return sap_error_set(err, SAP_EMEMORY, "column \"%s\": %lld items in one batch, at most %d fit", out->name,
                             (long long)items, INT32_MAX);
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(out->length + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(err, out->name);
    int32_t at = 0;
    int64_t row = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t *from = parts[i]->offsets;
        for (int64_t j = 0; j < parts[i]->length; j++)
            offsets[++row] = at + (from[j + 1] - from[0]);
        at = offsets[row];
    }
    out->offsets = offsets;
    return SAP_OK;
}

/* Copies `bytes[i]` bytes from each `from[i]`; a zero-length column may have no buffer. */
static void *join_bytes(const void *const *from, const size_t *bytes, size_t count, struct sap_storage *storage) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += bytes[i];
    char *data = sap_storage_alloc(storage, total);
    if (!data)
        return NULL;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i])
            memcpy(data + at, from[i], bytes[i]);
        at += bytes[i];
    }
    return data;
}

static sap_status join_values(const sap_column *const *parts, size_t count, struct sap_storage *storage,
                              sap_column *out, const void **from, size_t *bytes, sap_error *err) {
    size_t size = sap_type_size(out->type);
    for (size_t i = 0; i < count; i++) {
        const sap_column *part = parts[i];
        from[i] = part->values;
        bytes[i] = (size_t)part->length * size;
        if (out->type == SAP_STRING) {
            bytes[i] = part->length ? (size_t)(part->offsets[part->length] - part->offsets[0]) : 0;
            from[i] = bytes[i] ? (const char *)part->values + part->offsets[0] : NULL;
        }
    }
    out->values = join_bytes(from, bytes, count, storage);
    return out->values ? SAP_OK : sap_error_memory(err, out->name);
}

static sap_status join_valid(const sap_column *const *parts, size_t count, struct sap_storage *storage, sap_column *out,
                             sap_error *err) {
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any = any || parts[i]->valid;
    if (!any)
        return SAP_OK;
    uint8_t *valid = sap_storage_alloc(storage, (size_t)out->length);
    if (!valid)
        return sap_error_memory(err, out->name);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = (size_t)parts[i]->length;
        if (parts[i]->valid)
            memcpy(valid + at, parts[i]->valid, n);
        else
            memset(valid + at, 1, n);
        at += n;
    }
    out->valid = valid;
    return SAP_OK;
}

/* Children of all parts, cut to what the parts use of them. */
static sap_status join_children(const sap_column *const *parts, size_t count, struct sap_storage *storage,
                                sap_column *out, sap_error *err) {
    sap_status status = SAP_OK;
    sap_column *cut = calloc(count + 1, sizeof *cut);
    const sap_column **pointers = calloc(count + 1, sizeof(const sap_column *));
    out->children = sap_storage_alloc(storage, (size_t)out->count * sizeof *out->children);
    if (!cut || !pointers || !out->children) {
        status = sap_error_memory(err, out->name);
        goto done;
    }
    for (int32_t c = 0; c < out->count && status == SAP_OK; c++) {
        for (size_t i = 0; i < count && status == SAP_OK; i++) {
            const sap_column *part = parts[i];
            int64_t begin = 0, length = part->children[c].length;
            if (out->type == SAP_LIST) {
                begin = part->length ? part->offsets[0] : 0;
                length = part->length ? part->offsets[part->length] - begin : 0;
            } else if (out->type == SAP_FIXED_LIST) {
                length = part->length * part->size;
            }
            status = sap_column_view(&part->children[c], begin, length, storage, &cut[i], err);
            pointers[i] = &cut[i];
        }
        if (status == SAP_OK)
            status = join_columns(pointers, count, storage, &out->children[c], err);
    }
done:
    free(cut);
    free(pointers);
    return status;
}

static sap_status join_columns(const sap_column *const *parts, size_t count, struct sap_storage *storage,
                               sap_column *out, sap_error *err) {
    const sap_column *first = parts[0];
    *out = (sap_column){.type = first->type, .size = first->size, .count = first->count};
    out->name = sap_storage_text(storage, first->name);
    if (!out->name)
        return sap_error_memory(err, "column");
    for (size_t i = 0; i < count; i++) {
        if (parts[i]->type != first->type || parts[i]->size != first->size || parts[i]->count != first->count)
            return sap_error_set(err, SAP_ETYPE, "column \"%s\" changes its type from %s to %s", out->name,
                                 sap_type_name(first->type), sap_type_name(parts[i]->type));
        out->length += parts[i]->length;
    }
    if (first->type == SAP_UNION)
        return sap_error_set(err, SAP_EUNSUPPORTED, "column \"%s\": joining batches of unions", out->name);
    SAP_TRY(join_valid(parts, count, storage, out, err));
    if (first->type == SAP_LIST || first->type == SAP_STRING)
        SAP_TRY(join_offsets(parts, count, storage, out, err));
    if (first->count > 0)
        return join_children(parts, count, storage, out, err);
    const void *few_from[FEW_PARTS];
    size_t few_bytes[FEW_PARTS];
    const void **from = count <= FEW_PARTS ? few_from : calloc(count, sizeof(const void *));
    size_t *bytes = count <= FEW_PARTS ? few_bytes : calloc(count, sizeof *bytes);
    sap_status status =
        from && bytes ? join_values(parts, count, storage, out, from, bytes, err) : sap_error_memory(err, out->name);
    if (count > FEW_PARTS) {
        free(from);
        free(bytes);
    }
    return status;
}

sap_status sap_batch_join(const sap_batch *batches, size_t count, sap_batch *out, sap_error *err) {
    if (count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "no batches to join");
    int32_t columns = batches[0].count;
    SAP_TRY(sap_batch_init(out, columns, err));
    sap_status status = SAP_OK;
    const sap_column **parts = calloc(count, sizeof(const sap_column *));
    if (!parts) {
        status = sap_error_memory(err, "batch");
        goto done;
    }
    out->first_entry = batches[0].first_entry;
    for (size_t i = 0; i < count; i++) {
        out->length += batches[i].length;
        if (batches[i].count != columns) {
            status =
                sap_error_set(err, SAP_EARGUMENT, "joining batches of %d and %d columns", columns, batches[i].count);
            goto done;
        }
    }
    for (int32_t c = 0; c < columns && status == SAP_OK; c++) {
        for (size_t i = 0; i < count; i++)
            parts[i] = &batches[i].columns[c];
        status = join_columns(parts, count, out->storage, &out->columns[c], err);
    }
done:
    free(parts);
    if (status != SAP_OK)
        sap_batch_release(out);
    return status;
}
