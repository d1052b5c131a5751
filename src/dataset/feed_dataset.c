/* Feeds of stored events: read part by part, scaled, and kept in memory or in a scratch file. */
#include "feed_internal.h"

#include <pthread.h>
#include <stdlib.h>

static const int64_t block_bytes = 16 << 20; /* of a shard's block of rows, in their dense form */

typedef struct loading {
    const sap_dataset *dataset;
    const char *split;
    const sap_feed_options *options;
    sap_feed *feed;
    sap_feed_room rows;
    const sap_field *fields; /* the inputs' features, the weight's, then label, sample, file, entry */
    int32_t field_count, feature_count;
    size_t count;           /* of parts */
    const sap_part **parts; /* (count) */
    int64_t *first;         /* (count) row; below 0: the part begins with rows of other shards */
    uint64_t *bytes;        /* (count) of the features in memory */
    pthread_mutex_t lock;   /* of the feed's blocks, and of what follows */
    int64_t end;            /* of the scratch file */
} loading;

/* ---- What is read ------------------------------------------------------------------------------------------------ */

/* The columns that a feed reads. */
static sap_status set_fields(loading *l, const size_t *index, sap_error *err) {
    const sap_info *info = &l->dataset->info;
    sap_arena *arena = &l->feed->arena;
    int32_t inputs = l->feed->input_count;
    sap_feature *features = sap_arena_array(arena, (size_t)inputs + 1, sizeof *features);
    if (!features)
        return sap_error_memory(err, l->dataset->folder);
    for (int32_t i = 0; i < inputs; i++)
        features[i] = info->features[index[i]];
    l->feature_count = inputs;
    if (l->options->weight) {
        size_t weight;
        SAP_TRY(sap_info_find(info, l->options->weight, l->dataset->folder, &weight, err));
        if (info->features[weight].sequence || info->features[weight].width != 1)
            return sap_error_set(err, SAP_ETYPE, "%s: feature \"%s\" cannot weigh events: it is more than one number",
                                 l->dataset->folder, l->options->weight);
        features[l->feature_count++] = info->features[weight];
    }
    l->fields = sap_event_fields(features, (size_t)l->feature_count, arena);
    l->field_count = l->feature_count + SAP_EVENT_COLUMNS;
    return l->fields ? SAP_OK : sap_error_memory(err, l->dataset->folder);
}

/* Where shards begin among all rows. */
static sap_status find_shards(loading *l, sap_error *err) {
    sap_feed *feed = l->feed;
    int64_t rows = 0;
    int32_t shard = 0;
    for (size_t i = 0; i < l->count; i++) {
        SAP_TRY(sap_dataset_find_part(l->dataset, l->split, i, &l->parts[i], err));
        if (l->parts[i]->shard >= 0 && l->parts[i]->shard < shard)
            return sap_error_set(err, SAP_EFORMAT, "%s/%s: its part files are not listed by shard", l->dataset->folder,
                                 SAP_DATASET_JSON);
        while (shard < l->parts[i]->shard && shard < feed->shard_count)
            feed->all_begin[++shard] = rows;
        rows += l->parts[i]->rows;
    }
    while (shard < feed->shard_count)
        feed->all_begin[++shard] = rows;
    for (int64_t s = 0; l->parts[0]->shard < 0 && s < feed->shard_count; s++)
        feed->all_begin[s] = s * rows / feed->shard_count;
    return SAP_OK;
}

/* Takes the feed's own shards, and of the parts those that have rows of them. */
static sap_status take_shards(loading *l, sap_error *err) {
    sap_feed *feed = l->feed;
    const sap_feed_options *o = l->options;
    if (o->shard_from < 0 || o->shard_to < o->shard_from || o->shard_to > feed->shard_count)
        return sap_error_set(err, SAP_EARGUMENT, "%s: shards %d to %d of \"%s\", which has %d", l->dataset->folder,
                             (int)o->shard_from, (int)o->shard_to - 1, l->split, (int)feed->shard_count);
    if (o->shard_to > 0) {
        feed->shard_from = o->shard_from;
        feed->shard_to = o->shard_to;
    }
    int64_t from = feed->all_begin[feed->shard_from], to = feed->all_begin[feed->shard_to], row = 0;
    feed->own_first = from;
    feed->rows = to - from;
    for (int32_t s = 0; s <= feed->shard_count; s++) {
        int64_t begin = feed->all_begin[s];
        feed->shard_begin[s] = (begin < from ? from : begin < to ? begin : to) - from;
    }
    size_t own = 0;
    for (size_t i = 0; i < l->count; i++) {
        int64_t end = row + l->parts[i]->rows;
        if (row < to && end > from) {
            l->parts[own] = l->parts[i];
            l->first[own++] = row - from;
        }
        row = end;
    }
    l->count = own;
    return SAP_OK;
}

static sap_status measure_part(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    const loading *l = context;
    sap_part_reader *reader;
    SAP_TRY(sap_dataset_open_part(l->dataset, l->parts[index], l->fields, l->feature_count, &reader, err));
    l->bytes[index] = sap_part_bytes(reader);
    sap_part_close(reader);
    return SAP_OK;
}

/* Decides what goes into the scratch file: sequences and wide features when all together are too much for memory, and
 * narrow ones only where they alone are. */
static sap_status choose_storage(loading *l, sap_error *err) {
    enum { NARROW = 64 };
    sap_feed *feed = l->feed;
    uint64_t limit, all = 0, narrow = 0;
    SAP_TRY(sap_feed_limit(l->options->memory, &limit, err));
    SAP_TRY(sap_loop(&feed->run, l->count, measure_part, l, err));
    for (size_t i = 0; i < l->count; i++)
        all += l->bytes[i];
    if (all <= limit)
        return SAP_OK;
    for (int32_t i = 0; i < feed->input_count; i++)
        if (feed->inputs[i].width == 0 && feed->inputs[i].values <= NARROW)
            narrow += (uint64_t)(feed->rows * feed->inputs[i].values) * sizeof(float);
    SAP_TRY(sap_scratch_open(l->options->scratch, &feed->scratch, err));
    feed->advised = sap_arena_array(&feed->arena, (size_t)feed->shard_count, sizeof *feed->advised);
    if (!feed->advised)
        return sap_error_memory(err, l->dataset->folder);
    for (int32_t i = 0; i < feed->input_count; i++) {
        sap_feed_input *input = &feed->inputs[i];
        if (narrow <= limit && input->width == 0 && input->values <= NARROW)
            continue;
        input->stored = true;
        if (input->padded) { /* it is kept in its dense form */
            input->width = 0;
            input->dense = false;
        }
        input->at = l->end;
        if (input->width == 0)
            l->end += feed->rows * input->values * (int64_t)sizeof(float);
    }
    return SAP_OK;
}

/* ---- Loading ------------------------------------------------------------------------------------------------------- */

static sap_status load_identity(const loading *l, const sap_batch *batch, int64_t from, int64_t count, int64_t row,
                                const char *file, sap_error *err) {
    const sap_column *rest = batch->columns + l->feature_count;
    const int32_t *label = rest[0].values;
    const int64_t *entry = rest[3].values;
    char names[2][1024];
    for (int64_t i = from; i < from + count; i++) {
        if (label[i] < 0 || (size_t)label[i] >= l->dataset->info.label_count)
            return sap_error_set(err, SAP_EFORMAT, "%s: label %d in row %lld; there are %zu labels", file,
                                 (int)label[i], (long long)(row + i - from), l->dataset->info.label_count);
        for (int k = 0; k < 2; k++) {
            const sap_column *text = &rest[1 + k];
            (void)snprintf(names[k], sizeof names[k], "%.*s", (int)(text->offsets[i + 1] - text->offsets[i]),
                           (const char *)text->values + text->offsets[i]);
        }
        l->rows.label[row + i - from] = label[i];
        l->rows.identity[row + i - from] = sap_identity(names[0], names[1], entry[i]);
    }
    if (l->rows.weight)
        memcpy(l->rows.weight + row, (const float *)batch->columns[l->feed->input_count].children[0].values + from,
               (size_t)count * sizeof *l->rows.weight);
    return SAP_OK;
}

/* Values ready to be handed out, scaled: into the scratch file, at a place that is theirs alone. */
static sap_status store_plain(loading *l, const sap_feed_input *input, const sap_column *column, int64_t from,
                              int64_t count, int64_t row, sap_error *err) {
    const sap_feature *feature = input->feature;
    const float *values = column->children[0].values;
    const int32_t *offsets = feature->sequence ? column->offsets + from : NULL;
    size_t bytes = (size_t)(count * input->values) * sizeof(float);
    float *out = malloc(bytes + 1);
    if (!out)
        return sap_error_memory(err, l->feed->where);
    if (!feature->sequence)
        sap_feed_scale(input, values + from * input->values, count, out);
    for (int64_t i = 0; i < count && feature->sequence; i++)
        sap_dense(feature, input->constants, values + offsets[i], (offsets[i + 1] - offsets[i]) / feature->width,
                  out + i * input->values);
    int64_t at = input->at + row * input->values * (int64_t)sizeof *out;
    sap_status status = sap_scratch_write(l->feed->scratch, at, out, bytes, l->feed->where, err);
    free(out);
    return status;
}

/* Where so many bytes go in the scratch file. */
static int64_t take_scratch(loading *l, size_t bytes) {
    pthread_mutex_lock(&l->lock);
    int64_t at = l->end;
    l->end += (int64_t)bytes;
    pthread_mutex_unlock(&l->lock);
    return at;
}

/* Gives the feed what is used of a block. */
static bool keep_block(loading *l, float **block, size_t bytes) {
    float *kept = realloc(*block, bytes ? bytes : 1);
    *block = kept ? kept : *block;
    pthread_mutex_lock(&l->lock);
    sap_feed *feed = l->feed;
    bool room = sap_grow((void **)&feed->blocks, &feed->block_capacity, feed->block_count, sizeof *feed->blocks);
    if (room)
        feed->blocks[feed->block_count++] = *block;
    pthread_mutex_unlock(&l->lock);
    return room;
}

static sap_status load_sequences(loading *l, const sap_feed_input *input, const sap_column *column, int64_t from,
                                 int64_t count, sap_sequence *sequences, const char *file, sap_error *err) {
    const int32_t *offsets = column->offsets + from;
    sap_feed_events events = {.input = input,
                              .values = column->children[0].values,
                              .offsets = offsets,
                              .count = count,
                              .sort = !sap_dataset_is_ordered(l->dataset),
                              .trim = l->dataset->info.layout == SAP_LAYOUT_FILES,
                              .where = file};
    float *block = malloc((size_t)(offsets[count] - offsets[0]) * sizeof *block + 1);
    int64_t used = 0;
    sap_status status =
        block ? sap_feed_pack(&events, block, sequences, &used, err) : sap_error_memory(err, l->feed->where);
    size_t bytes = (size_t)used * sizeof *block;
    if (status != SAP_OK) {
        free(block);
        return status;
    }
    if (input->stored) {
        int64_t at = take_scratch(l, bytes);
        status = sap_scratch_write(l->feed->scratch, at, block, bytes, l->feed->where, err);
        free(block);
        for (int64_t i = 0; i < count; i++) {
            sequences[i].at = at;
            at += sequences[i].rows * input->width * (int64_t)sizeof *block;
        }
        return status;
    }
    if (!keep_block(l, &block, bytes)) {
        free(block);
        return sap_error_memory(err, l->feed->where);
    }
    for (int64_t i = 0; i < count; i++) {
        sequences[i].data = block;
        block += sequences[i].rows * input->width;
    }
    return SAP_OK;
}

/* Copies one batch into rows from `row` on; those before row 0, and behind the last, are of other shards. */
static sap_status load_batch(loading *l, const sap_batch *batch, int64_t row, const char *file, sap_error *err) {
    int64_t from = row < 0 ? -row : 0, end = l->feed->rows - row;
    int64_t count = (end < batch->length ? end : batch->length) - from;
    if (count <= 0)
        return SAP_OK;
    row += from;
    for (int32_t i = 0; i < l->feed->input_count; i++) {
        const sap_feed_input *input = &l->feed->inputs[i];
        const sap_column *column = &batch->columns[i];
        if (input->width > 0)
            SAP_TRY(load_sequences(l, input, column, from, count, l->rows.sequences[i] + row, file, err));
        else if (input->stored)
            SAP_TRY(store_plain(l, input, column, from, count, row, err));
        else
            sap_feed_scale(input, (const float *)column->children[0].values + from * input->values, count,
                           l->rows.x[i] + row * input->values);
    }
    return load_identity(l, batch, from, count, row, file, err);
}

static sap_status load_part(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    loading *l = context;
    const sap_part *part = l->parts[index];
    sap_part_reader *reader;
    int64_t rows = 0;
    SAP_TRY(sap_dataset_open_part(l->dataset, part, l->fields, l->field_count, &reader, err));
    sap_status status = SAP_OK;
    while (status == SAP_OK) {
        sap_batch batch = {0};
        status = sap_run_check(&l->feed->run, err);
        if (status == SAP_OK)
            status = sap_part_next(reader, &batch, err);
        int64_t length = batch.length;
        if (status == SAP_OK && length > 0 && rows + length <= part->rows)
            status = load_batch(l, &batch, l->first[index] + rows, part->path, err);
        sap_batch_release(&batch);
        rows += length;
        if (length == 0 || rows > part->rows)
            break;
    }
    sap_part_close(reader);
    if (status == SAP_OK && rows != part->rows)
        return sap_error_set(err, SAP_EFORMAT, "%s: has %s events than the %lld that %s says", part->path,
                             rows > part->rows ? "more" : "fewer", (long long)part->rows, SAP_DATASET_JSON);
    return status;
}

/* The largest power of two of rows whose dense forms take no more than a block. */
static int64_t rows_of_block(const sap_feed *feed) {
    int64_t bytes = 0, rows = 1;
    for (int32_t i = 0; i < feed->input_count; i++)
        bytes += feed->inputs[i].values * (int64_t)sizeof(float);
    while (2 * rows * bytes <= block_bytes)
        rows *= 2;
    return rows;
}

static sap_status load_all(loading *l, sap_error *err) {
    sap_feed *feed = l->feed;
    sap_arena *arena = &feed->arena;
    l->count = sap_dataset_part_count(l->dataset, l->split);
    size_t *index = sap_arena_array(arena, (size_t)feed->input_count, sizeof *index);
    l->parts = sap_arena_array(arena, l->count, sizeof *l->parts);
    l->first = sap_arena_array(arena, l->count, sizeof *l->first);
    l->bytes = sap_arena_array(arena, l->count, sizeof *l->bytes);
    feed->all_begin = sap_arena_array(arena, (size_t)feed->shard_count + 1, sizeof *feed->all_begin);
    if (!index || !feed->all_begin || !l->parts || !l->first || !l->bytes)
        return sap_error_memory(err, l->dataset->folder);
    SAP_TRY(sap_feed_set_inputs(feed, l->dataset, l->options->inputs, index, err));
    SAP_TRY(set_fields(l, index, err));
    SAP_TRY(find_shards(l, err));
    SAP_TRY(take_shards(l, err));
    if (feed->shard_count > 1)
        feed->block_rows = rows_of_block(feed);
    SAP_TRY(choose_storage(l, err));
    SAP_TRY(sap_feed_make_room(feed, l->options->weight != NULL, &l->rows, err));
    return sap_loop(&feed->run, l->count, load_part, l, err);
}

sap_status sap_feed_open_dataset(const sap_dataset *dataset, const char *split, const sap_feed_options *options,
                                 const sap_run *run, sap_feed **out, sap_error *err) {
    const sap_part *first;
    size_t count = options->input_count;
    if (count < 1 || count > dataset->info.feature_count)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %zu inputs, where the dataset has %zu features", dataset->folder,
                             count, dataset->info.feature_count);
    int64_t rows = sap_dataset_rows(dataset, split);
    if (rows == 0)
        return sap_error_set(err, SAP_EDATA, "%s: the part \"%s\" has no events", dataset->folder, split);
    SAP_TRY(sap_dataset_find_part(dataset, split, 0, &first, err)); /* says what is wrong with the split or layout */
    loading l = {.dataset = dataset, .split = split, .options = options, .lock = PTHREAD_MUTEX_INITIALIZER};
    int32_t shards = dataset->info.layout == SAP_LAYOUT_RAW ? 1 : SAP_DATASET_SHARDS;
    SAP_TRY(sap_feed_init(rows, (int32_t)count, 0, shards, run, &l.feed, err));
    sap_status status = load_all(&l, err);
    if (status == SAP_OK)
        *out = l.feed;
    else
        sap_feed_close(l.feed);
    pthread_mutex_destroy(&l.lock);
    return status;
}
