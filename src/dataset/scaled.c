/* Features as a network sees them, as columns: scaled, sequences in training order. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <stdlib.h>

/* Fields of the features called `names` (count), as they are stored. */
static sap_status find_fields(const sap_dataset *dataset, const char *const *names, size_t count, sap_arena *arena,
                              sap_field **out, sap_error *err) {
    const sap_info *info = &dataset->info;
    const sap_field *all = sap_event_fields(info->features, info->feature_count, arena);
    *out = sap_arena_array(arena, count + 1, sizeof **out);
    if (!all || !*out)
        return sap_error_memory(err, dataset->folder);
    for (size_t i = 0; i < count; i++) {
        size_t index;
        SAP_TRY(sap_info_find(info, names[i], dataset->folder, &index, err));
        (*out)[i] = all[index];
    }
    return SAP_OK;
}

sap_status sap_features_import(const sap_dataset *dataset, const struct ArrowSchema *schema,
                               const struct ArrowArray *array, const char *const *names, size_t count, sap_batch *out,
                               sap_error *err) {
    sap_arena arena = {0};
    sap_field *fields;
    sap_status status = find_fields(dataset, names, count, &arena, &fields, err);
    if (status == SAP_OK)
        status = sap_arrow_import(schema, array, "features", fields, (int32_t)count, out, err);
    for (int32_t i = 0; i < out->count && status == SAP_OK; i++)
        out->columns[i].name = names[i]; /* the arena's will be gone */
    sap_arena_release(&arena);
    return status;
}

/* Input `index` of the examples as a column of lists. */
static sap_status fill_column(const sap_examples *examples, size_t index, struct sap_storage *storage,
                              sap_column *column, sap_error *err) {
    const int64_t *steps = examples->offsets ? examples->offsets[index] : NULL;
    int64_t rows = examples->rows, each = examples->values[index], total = (steps ? steps[rows] : rows) * each;
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(rows + 1) * sizeof *offsets);
    float *values = sap_storage_alloc(storage, (size_t)total * sizeof *values);
    if (!offsets || !values)
        return sap_error_memory(err, column->name);
    if (total > INT32_MAX)
        return sap_error_set(err, SAP_EUNSUPPORTED, "feature \"%s\": more than 2^31 values in a batch", column->name);
    for (int64_t i = 0; i <= rows; i++)
        offsets[i] = (int32_t)((steps ? steps[i] : i) * each);
    if (total > 0)
        memcpy(values, examples->x[index], (size_t)total * sizeof *values);
    column->offsets = offsets;
    column->length = rows;
    column->children[0].values = values;
    column->children[0].length = total;
    return SAP_OK;
}

sap_status sap_dataset_scale(const sap_dataset *dataset, const struct ArrowSchema *schema,
                             const struct ArrowArray *array, bool ordered, const char *const *names, size_t count,
                             const sap_run *run, sap_batch *out, sap_error *err) {
    const sap_field number = {.name = "item", .type = SAP_FLOAT32};
    sap_batch batch = {0};
    sap_feed *feed = NULL;
    sap_examples examples = {0};
    SAP_TRY(sap_features_import(dataset, schema, array, names, count, &batch, err));
    sap_status status = sap_feed_open_batch(dataset, &batch, ordered, names, count, run, &feed, err);
    if (status == SAP_OK)
        status = sap_feed_epoch(feed, 0, -1, err);
    if (status == SAP_OK && batch.length > 0)
        status = sap_feed_next(feed, batch.length, &examples, err);
    if (status == SAP_OK)
        status = sap_batch_init(out, (int32_t)count, err);
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        const sap_field field = {.name = names[i], .type = SAP_LIST, .count = 1, .children = &number};
        status = sap_column_init(out->storage, &field, &out->columns[i], err);
        if (status == SAP_OK && batch.length > 0)
            status = fill_column(&examples, i, out->storage, &out->columns[i], err);
    }
    out->length = batch.length;
    if (status != SAP_OK)
        sap_batch_release(out);
    sap_feed_close(feed);
    sap_batch_release(&batch);
    return status;
}
