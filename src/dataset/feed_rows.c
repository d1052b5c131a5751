/* Features on their way into a feed: scaled, in training order, cut; and feeds of events that were just computed. */
#include "feed_internal.h"

#include <math.h>
#include <stdlib.h>

sap_status sap_feed_set_inputs(sap_feed *feed, const sap_dataset *dataset, const char *const *inputs, size_t *index,
                               sap_error *err) {
    feed->where = dataset->folder;
    for (int32_t i = 0; i < feed->input_count; i++) {
        SAP_TRY(sap_info_find(&dataset->info, inputs[i], dataset->folder, &index[i], err));
        const sap_feature *feature = &dataset->info.features[index[i]];
        const sap_constants *constants = &dataset->info.constants[index[i]];
        if (feature->sequence && feature->pad_rows == 0)
            return sap_error_set(
                err, SAP_EUNSUPPORTED,
                "%s: feature \"%s\" is a sequence without a number of rows to pad it to, so it cannot be a "
                "network's input",
                dataset->folder, feature->name);
        if (sap_feature_needs_constants(feature) && constants->width == 0)
            return sap_error_set(err, SAP_EDATA, "%s: has no scaling constants for feature \"%s\"%s", dataset->folder,
                                 feature->name,
                                 dataset->info.layout == SAP_LAYOUT_RAW
                                     ? ": a raw dataset has none; prepare it without --raw to train on it"
                                     : "");
        bool padded = sap_feature_is_padded(feature);
        feed->inputs[i] = (sap_feed_input){.values = sap_feature_values(feature),
                                           .width = feature->sequence ? feature->width : 0,
                                           .padded = padded,
                                           .dense = padded,
                                           .feature = feature,
                                           .constants = constants};
    }
    return SAP_OK;
}

sap_status sap_feed_make_room(sap_feed *feed, bool weights, sap_feed_room *out, sap_error *err) {
    size_t rows = (size_t)feed->rows, inputs = (size_t)feed->input_count;
    out->x = sap_arena_array(&feed->arena, inputs, sizeof *out->x);
    out->sequences = sap_arena_array(&feed->arena, inputs, sizeof *out->sequences);
    out->label = sap_feed_alloc(feed, rows, sizeof *out->label);
    out->identity = sap_feed_alloc(feed, rows, sizeof *out->identity);
    out->weight = weights ? sap_feed_alloc(feed, rows, sizeof *out->weight) : NULL;
    if (!out->x || !out->sequences || !out->label || !out->identity || (weights && !out->weight))
        return sap_error_memory(err, feed->where);
    for (size_t i = 0; i < inputs; i++) {
        sap_feed_input *input = &feed->inputs[i];
        if (input->width == 0 && input->stored)
            continue;
        size_t bytes = input->width > 0 ? sizeof(sap_sequence) : (size_t)input->values * sizeof(float);
        void *block = sap_feed_alloc(feed, rows, bytes);
        if (!block)
            return sap_error_memory(err, feed->where);
        if (input->width > 0)
            input->sequences = out->sequences[i] = block;
        else
            input->x = out->x[i] = block;
    }
    feed->label = out->label;
    feed->identity = out->identity;
    feed->weight = out->weight;
    return SAP_OK;
}

void sap_feed_scale(const sap_feed_input *input, const float *values, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++)
        sap_dense(input->feature, input->constants, values + i * input->feature->width, 1,
                  out + i * input->feature->width);
}

/* Rows without the zero rows at their end. */
static int64_t rows_without_padding(const float *rows, int64_t count, int32_t width) {
    int64_t values = count * width;
    while (values > 0 && fabsf(rows[values - 1]) <= 0) /* NaN is no padding */
        values--;
    return (values + width - 1) / width;
}

sap_status sap_feed_pack(const sap_feed_events *events, float *out, sap_sequence *sequences, int64_t *used,
                         sap_error *err) {
    const sap_feed_input *input = events->input;
    int32_t width = input->feature->width;
    sap_sort_space space = {0};
    sap_status status = SAP_OK;
    *used = 0;
    for (int64_t i = 0; i < events->count && status == SAP_OK; i++) {
        int32_t values = events->offsets[i + 1] - events->offsets[i];
        const float *rows = events->values + events->offsets[i];
        int64_t count = values / width;
        float *to = out + *used;
        if (values % width != 0) {
            status = sap_error_set(err, SAP_EFORMAT, "%s: \"%s\" has %d values in one event, not a multiple of %d",
                                   events->where, input->feature->name, (int)values, (int)width);
            break;
        }
        if (events->trim)
            count = rows_without_padding(rows, count, width);
        if ((events->sort && input->feature->order != SAP_ORDER_NONE) || input->padded) {
            if (count > 0)
                memcpy(to, rows, (size_t)(count * width) * sizeof *to);
            rows = to;
            if (events->sort && !sap_sequence_sort(input->feature, to, count, &space))
                status = sap_error_memory(err, events->where);
        }
        if (!input->padded)
            count = sap_ragged(input->feature, input->constants, rows, count, to);
        sequences[i].rows = count;
        *used += count * width;
    }
    free(space.data);
    return status;
}

/* ---- Of a batch ----------------------------------------------------------------------------------------------------------- */

typedef struct batch_work {
    sap_feed *feed;
    const sap_batch *batch;
    const sap_column **columns; /* (inputs) */
    float **copies;             /* (inputs) of sequences: room for all their values */
    sap_feed_room rows;
    bool ordered, trim;
} batch_work;

enum { ROWS_A_STEP = 64 };

static sap_status batch_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    const batch_work *w = context;
    int64_t begin = (int64_t)index * ROWS_A_STEP;
    int64_t count = w->feed->rows - begin < ROWS_A_STEP ? w->feed->rows - begin : ROWS_A_STEP;
    for (int32_t i = 0; i < w->feed->input_count; i++) {
        const sap_feed_input *input = &w->feed->inputs[i];
        const sap_column *column = w->columns[i];
        const float *values = column->children[0].values;
        if (input->width == 0) {
            sap_feed_scale(input, values + begin * input->values, count, w->rows.x[i] + begin * input->values);
            continue;
        }
        sap_feed_events events = {.input = input,
                                  .values = values,
                                  .offsets = column->offsets + begin,
                                  .count = count,
                                  .sort = !w->ordered,
                                  .trim = w->trim,
                                  .where = "events"};
        float *to = w->copies[i] + (column->offsets[begin] - column->offsets[0]);
        sap_sequence *sequences = w->rows.sequences[i] + begin;
        int64_t used;
        SAP_TRY(sap_feed_pack(&events, to, sequences, &used, err));
        for (int64_t k = 0; k < count; k++) {
            sequences[k].data = to;
            to += sequences[k].rows * input->width;
        }
    }
    return SAP_OK;
}

static sap_status find_columns(batch_work *w, sap_error *err) {
    for (int32_t i = 0; i < w->feed->input_count; i++) {
        const sap_feature *feature = w->feed->inputs[i].feature;
        const sap_column *column = sap_batch_find(w->batch, feature->name);
        sap_type type = feature->sequence ? SAP_LIST : SAP_FIXED_LIST;
        if (!column || column->type != type || column->children[0].type != SAP_FLOAT32 ||
            (!feature->sequence && column->size != feature->width))
            return sap_error_set(err, SAP_ETYPE, "the events have no column \"%s\" of %s of %d float32 values",
                                 feature->name, feature->sequence ? "rows" : "lists", (int)feature->width);
        w->columns[i] = column;
        if (!feature->sequence || w->feed->rows == 0)
            continue;
        size_t values = (size_t)(column->offsets[w->feed->rows] - column->offsets[0]);
        w->copies[i] = sap_feed_alloc(w->feed, values, sizeof(float));
        if (!w->copies[i])
            return sap_error_memory(err, "feed");
    }
    return SAP_OK;
}

/* Labels and identities, where the batch has the columns for them; else -1 and the entry or row number. */
static void set_identities(const batch_work *w) {
    const sap_column *label = sap_batch_find(w->batch, "label"), *entry = sap_batch_find(w->batch, "entry");
    const sap_column *text[2] = {sap_batch_find(w->batch, "sample"), sap_batch_find(w->batch, "file")};
    bool named = entry && text[0] && text[1] && text[0]->type == SAP_STRING && text[1]->type == SAP_STRING;
    for (int64_t i = 0; i < w->feed->rows; i++) {
        int64_t number = entry && entry->type == SAP_INT64 ? ((const int64_t *)entry->values)[i] : i;
        char names[2][1024];
        for (int k = 0; named && k < 2; k++)
            (void)snprintf(names[k], sizeof names[k], "%.*s", (int)(text[k]->offsets[i + 1] - text[k]->offsets[i]),
                           (const char *)text[k]->values + text[k]->offsets[i]);
        w->rows.identity[i] = named ? sap_identity(names[0], names[1], number) : (uint64_t)number;
        w->rows.label[i] = label && label->type == SAP_INT32 ? ((const int32_t *)label->values)[i] : -1;
    }
}

static sap_status open_batch(batch_work *w, const sap_dataset *dataset, const char *const *inputs, sap_error *err) {
    sap_feed *feed = w->feed;
    size_t count = (size_t)feed->input_count;
    size_t *index = sap_arena_array(&feed->arena, count, sizeof *index);
    w->columns = sap_arena_array(&feed->arena, count, sizeof *w->columns);
    w->copies = sap_arena_array(&feed->arena, count, sizeof *w->copies);
    if (!index || !w->columns || !w->copies)
        return sap_error_memory(err, "feed");
    SAP_TRY(sap_feed_set_inputs(feed, dataset, inputs, index, err));
    SAP_TRY(find_columns(w, err));
    SAP_TRY(sap_feed_make_room(feed, false, &w->rows, err));
    set_identities(w);
    return sap_loop(&feed->run, (size_t)((feed->rows + ROWS_A_STEP - 1) / ROWS_A_STEP), batch_step, w, err);
}

sap_status sap_feed_open_batch(const sap_dataset *dataset, const sap_batch *batch, bool ordered,
                               const char *const *inputs, size_t count, const sap_run *run, sap_feed **out,
                               sap_error *err) {
    if (count < 1 || count > INT32_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "a feed needs at least one input");
    batch_work w = {.batch = batch, .ordered = ordered, .trim = dataset->info.layout == SAP_LAYOUT_FILES};
    SAP_TRY(sap_feed_init(batch->length, (int32_t)count, 0, 1, run, &w.feed, err));
    sap_status status = open_batch(&w, dataset, inputs, err);
    if (status == SAP_OK)
        *out = w.feed;
    else
        sap_feed_close(w.feed);
    return status;
}
