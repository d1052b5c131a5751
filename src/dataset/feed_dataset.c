/* Feeds of stored events, held in memory, and of features that were just computed. */
#include "feed_internal.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

sap_status sap_feed_memory(const char *folder, const char *split, uint64_t needed, uint64_t available, sap_error *err) {
    if (available == UINT64_MAX || needed < available / 10 * 9)
        return SAP_OK;
    return sap_error_set(
        err, SAP_EMEMORY,
        "%s: the part \"%s\" takes about %.1f GB in memory, and %.1f GB are free: give fewer events, or a "
        "machine with more memory",
        folder, split, (double)needed / 1e9, (double)available / 1e9);
}

/* ---- Inputs ------------------------------------------------------------------------------------------------------- */

/* Sets what every feed of features needs; out: index of each input's feature. */
static sap_status set_inputs(sap_feed *feed, const sap_dataset *dataset, const char *const *inputs, size_t *index,
                             sap_error *err) {
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
        feed->inputs[i].values = sap_feature_values(feature);
        feed->inputs[i].feature = feature;
        feed->inputs[i].constants = constants;
    }
    return SAP_OK;
}

/* Room for the rows of all inputs, labels and identities. */
typedef struct room {
    float **x;                /* (inputs) of plain features */
    sap_sequence **sequences; /* (inputs) of sequences */
    int32_t *label;
    uint64_t *identity;
} room;

static sap_status make_rows(sap_feed *feed, room *out, sap_error *err) {
    size_t rows = (size_t)feed->rows, inputs = (size_t)feed->input_count;
    out->x = sap_arena_array(&feed->arena, inputs, sizeof *out->x);
    out->sequences = sap_arena_array(&feed->arena, inputs, sizeof *out->sequences);
    out->label = sap_feed_alloc(feed, rows, sizeof *out->label);
    out->identity = sap_feed_alloc(feed, rows, sizeof *out->identity);
    if (!out->x || !out->sequences || !out->label || !out->identity)
        return sap_error_memory(err, "feed");
    for (size_t i = 0; i < inputs; i++) {
        sap_feed_input *input = &feed->inputs[i];
        void *block = sap_feed_alloc(
            feed, rows, input->feature->sequence ? sizeof(sap_sequence) : (size_t)input->values * sizeof(float));
        if (!block)
            return sap_error_memory(err, "feed");
        if (input->feature->sequence)
            input->sequences = out->sequences[i] = block;
        else
            input->x = out->x[i] = block;
    }
    feed->label = out->label;
    feed->identity = out->identity;
    return SAP_OK;
}

/* Scales rows of a plain feature; data: (count, width). */
static void scale_rows(const sap_feed_input *input, const float *data, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++)
        sap_dense(input->feature, input->constants, data + i * input->values, 1, out + i * input->values);
}

/* Sequences out of a list column, whose values `data` outlive the feed; sorts them there when asked to. */
static sap_status point_at_rows(const sap_feed_input *input, float *data, const int32_t *offsets, int64_t count,
                                bool sort, sap_sequence *out, const char *where, sap_error *err) {
    int32_t width = input->feature->width;
    sap_sort_space space = {0};
    bool sorted = true;
    for (int64_t i = 0; i < count && sorted; i++) {
        int32_t values = offsets[i + 1] - offsets[i];
        if (values % width != 0) {
            free(space.data);
            return sap_error_set(err, SAP_EFORMAT, "%s: \"%s\" has %d values in one event, not a multiple of %d", where,
                                 input->feature->name, (int)values, (int)width);
        }
        float *rows = data + offsets[i];
        out[i] = (sap_sequence){rows, values / width};
        if (sort)
            sorted = sap_sequence_sort(input->feature, rows, values / width, &space);
    }
    free(space.data);
    return sorted ? SAP_OK : sap_error_memory(err, where);
}

/* ---- Of a dataset ---------------------------------------------------------------------------------------------------- */

typedef struct loading {
    const sap_dataset *dataset;
    const char *split;
    sap_feed *feed;
    room rows;
    const sap_field *fields; /* the inputs' features, then label, sample, file, entry */
    int32_t field_count;
    sap_part_reader **readers; /* (parts) */
    const sap_part **parts;
    int64_t *first;       /* (parts) row */
    pthread_mutex_t lock; /* of the feed's blocks */
} loading;

static sap_status load_identity(const loading *l, const sap_batch *batch, int64_t row, const char *file,
                                sap_error *err) {
    const sap_column *rest = batch->columns + l->feed->input_count;
    const int32_t *label = rest[0].values;
    const int64_t *entry = rest[3].values;
    char names[2][1024];
    for (int64_t i = 0; i < batch->length; i++) {
        if (label[i] < 0 || (size_t)label[i] >= l->dataset->info.label_count)
            return sap_error_set(err, SAP_EFORMAT, "%s/%s: label %d in row %lld; there are %zu labels",
                                 l->dataset->folder, file, (int)label[i], (long long)(row + i),
                                 l->dataset->info.label_count);
        for (int k = 0; k < 2; k++) {
            const sap_column *text = &rest[1 + k];
            (void)snprintf(names[k], sizeof names[k], "%.*s", (int)(text->offsets[i + 1] - text->offsets[i]),
                           (const char *)text->values + text->offsets[i]);
        }
        l->rows.label[row + i] = label[i];
        l->rows.identity[row + i] = sap_identity(names[0], names[1], entry[i]);
    }
    return SAP_OK;
}

/* Copies one batch into rows from `row` on. */
static sap_status load_batch(loading *l, const sap_batch *batch, int64_t row, const char *file, sap_error *err) {
    for (int32_t i = 0; i < l->feed->input_count; i++) {
        const sap_feed_input *input = &l->feed->inputs[i];
        const sap_column *column = &batch->columns[i];
        const float *values = column->children[0].values;
        if (!input->feature->sequence) {
            scale_rows(input, values, batch->length, l->rows.x[i] + row * input->values);
            continue;
        }
        size_t count = (size_t)column->offsets[batch->length];
        pthread_mutex_lock(&l->lock);
        float *block = sap_feed_alloc(l->feed, count, sizeof *block);
        pthread_mutex_unlock(&l->lock);
        if (!block)
            return sap_error_memory(err, file);
        if (count)
            memcpy(block, values, count * sizeof *block);
        SAP_TRY(point_at_rows(input, block, column->offsets, batch->length, !sap_dataset_is_ordered(l->dataset),
                              l->rows.sequences[i] + row, file, err));
    }
    return load_identity(l, batch, row, file, err);
}

static sap_status load_part(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    loading *l = context;
    const sap_part *part = l->parts[index];
    int64_t rows = 0;
    sap_status status = SAP_OK;
    while (status == SAP_OK) {
        sap_batch batch = {0};
        status = sap_part_next(l->readers[index], &batch, err);
        int64_t length = batch.length;
        if (status == SAP_OK && length > 0 && rows + length <= part->rows)
            status = load_batch(l, &batch, l->first[index] + rows, part->file, err);
        sap_batch_release(&batch);
        rows += length;
        if (length == 0 || rows > part->rows)
            break;
    }
    if (status == SAP_OK && rows != part->rows)
        return sap_error_set(err, SAP_EFORMAT, "%s/%s: has %s events than the %lld that %s says", l->dataset->folder,
                             part->file, rows > part->rows ? "more" : "fewer", (long long)part->rows, SAP_DATASET_JSON);
    return status;
}

/* Opens all part files, which says how much memory they take, and where their rows go. */
static sap_status open_parts(loading *l, size_t count, sap_error *err) {
    sap_feed *feed = l->feed;
    uint64_t bytes = 0;
    int64_t rows = 0;
    int32_t shard = 0;
    for (size_t i = 0; i < count; i++) {
        SAP_TRY(sap_dataset_find_part(l->dataset, l->split, i, &l->parts[i], err));
        SAP_TRY(sap_dataset_open_part(l->dataset, l->parts[i], l->fields, l->field_count, &l->readers[i], err));
        bytes += sap_part_bytes(l->readers[i]);
        l->first[i] = rows;
        if (l->parts[i]->shard < shard)
            return sap_error_set(err, SAP_EFORMAT, "%s/%s: its part files are not listed by shard", l->dataset->folder,
                                 SAP_DATASET_JSON);
        while (shard < l->parts[i]->shard && shard < feed->shard_count)
            feed->shard_begin[++shard] = rows;
        rows += l->parts[i]->rows;
    }
    while (shard < feed->shard_count)
        feed->shard_begin[++shard] = rows;
    return sap_feed_memory(l->dataset->folder, l->split, bytes, sap_memory_available(), err);
}

/* The columns that a feed reads. */
static sap_field *fields_of(sap_feed *feed, const sap_dataset *dataset, const size_t *index) {
    sap_feature *features = sap_arena_array(&feed->arena, (size_t)feed->input_count, sizeof *features);
    for (int32_t i = 0; features && i < feed->input_count; i++)
        features[i] = dataset->info.features[index[i]];
    return features ? sap_event_fields(features, (size_t)feed->input_count, &feed->arena) : NULL;
}

static sap_status load_all(loading *l, const char *const *inputs, size_t *index, sap_error *err) {
    sap_feed *feed = l->feed;
    size_t count = sap_dataset_part_count(l->dataset, l->split);
    SAP_TRY(set_inputs(feed, l->dataset, inputs, index, err));
    l->fields = fields_of(feed, l->dataset, index);
    l->field_count = feed->input_count + SAP_EVENT_COLUMNS;
    l->readers = sap_arena_array(&feed->arena, count, sizeof *l->readers);
    l->parts = sap_arena_array(&feed->arena, count, sizeof *l->parts);
    l->first = sap_arena_array(&feed->arena, count, sizeof *l->first);
    if (!l->fields || !l->readers || !l->parts || !l->first)
        return sap_error_memory(err, l->dataset->folder);
    sap_status status = open_parts(l, count, err);
    if (status == SAP_OK)
        status = make_rows(feed, &l->rows, err);
    if (status == SAP_OK)
        status = sap_loop(&feed->run, count, load_part, l, err);
    for (size_t i = 0; i < count; i++)
        sap_part_close(l->readers[i]);
    return status;
}

sap_status sap_feed_open_dataset(const sap_dataset *dataset, const char *split, const char *const *inputs, size_t count,
                                 const sap_run *run, sap_feed **out, sap_error *err) {
    const sap_part *first;
    if (count < 1 || count > dataset->info.feature_count)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %zu inputs, where the dataset has %zu features", dataset->folder,
                             count, dataset->info.feature_count);
    int64_t rows = sap_dataset_rows(dataset, split);
    if (rows == 0)
        return sap_error_set(err, SAP_EDATA, "%s: the part \"%s\" has no events", dataset->folder, split);
    SAP_TRY(sap_dataset_find_part(dataset, split, 0, &first, err)); /* says what is wrong with the split or layout */
    loading l = {.dataset = dataset, .split = split, .lock = PTHREAD_MUTEX_INITIALIZER};
    size_t *index = calloc(count, sizeof *index);
    if (!index)
        return sap_error_memory(err, dataset->folder);
    int32_t shards = dataset->info.layout == SAP_LAYOUT_RAW ? 1 : SAP_DATASET_SHARDS;
    sap_status status = sap_feed_init(rows, (int32_t)count, shards, run, &l.feed, err);
    if (status == SAP_OK)
        status = load_all(&l, inputs, index, err);
    if (status == SAP_OK)
        *out = l.feed;
    else
        sap_feed_close(l.feed);
    pthread_mutex_destroy(&l.lock);
    free(index);
    return status;
}

/* ---- Of a batch ----------------------------------------------------------------------------------------------------------- */

typedef struct batch_work {
    sap_feed *feed;
    const sap_batch *batch;
    const sap_column **columns; /* (inputs) */
    float **copies;             /* (inputs) of sequences that are sorted here, else NULL */
    room rows;
    bool ordered;
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
        if (!input->feature->sequence) {
            scale_rows(input, values + begin * input->values, count, w->rows.x[i] + begin * input->values);
            continue;
        }
        const int32_t *offsets = column->offsets + begin;
        float *data = (float *)(uintptr_t)values; /* written to only when it is a copy */
        if (w->copies[i]) {
            data = w->copies[i] - column->offsets[0];
            if (offsets[count] > offsets[0])
                memcpy(data + offsets[0], values + offsets[0], (size_t)(offsets[count] - offsets[0]) * sizeof *data);
        }
        SAP_TRY(point_at_rows(input, data, offsets, count, w->copies[i] != NULL, w->rows.sequences[i] + begin, "events",
                              err));
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
        if (!feature->sequence || feature->order == SAP_ORDER_NONE || w->ordered || w->feed->rows == 0)
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
    SAP_TRY(set_inputs(feed, dataset, inputs, index, err));
    SAP_TRY(find_columns(w, err));
    SAP_TRY(make_rows(feed, &w->rows, err));
    set_identities(w);
    return sap_loop(&feed->run, (size_t)((feed->rows + ROWS_A_STEP - 1) / ROWS_A_STEP), batch_step, w, err);
}

sap_status sap_feed_open_batch(const sap_dataset *dataset, const sap_batch *batch, bool ordered,
                               const char *const *inputs, size_t count, const sap_run *run, sap_feed **out,
                               sap_error *err) {
    if (count < 1 || count > INT32_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "a feed needs at least one input");
    batch_work w = {.batch = batch, .ordered = ordered};
    SAP_TRY(sap_feed_init(batch->length, (int32_t)count, 1, run, &w.feed, err));
    sap_status status = open_batch(&w, dataset, inputs, err);
    if (status == SAP_OK)
        *out = w.feed;
    else
        sap_feed_close(w.feed);
    return status;
}
