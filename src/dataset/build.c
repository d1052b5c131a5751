/* Finishing a dataset: thinning, split, constants and part files, in passes over the buckets of the spool. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <pthread.h>
#include <stdlib.h>

static const size_t batch_bytes = 4u << 20; /* of rows that are written at once, about */

/* ---- What every class keeps --------------------------------------------------------------------------------- */

static sap_status no_events(const sap_dataset_writer *w, const char *sample, sap_error *err) {
    sap_text counts = {0};
    int64_t left = 0;
    for (size_t i = 0; i < w->plan.input_count; i++)
        if (!sample || strcmp(w->inputs[i].sample, sample) == 0)
            left += w->inputs[i].read;
    sap_text_add(&counts, "%lld read", (long long)left);
    for (size_t c = 0; c < w->plan.cut_count; c++) {
        for (size_t i = 0; i < w->plan.input_count; i++)
            if (!sample || strcmp(w->inputs[i].sample, sample) == 0)
                left -= w->inputs[i].dropped[c];
        sap_text_add(&counts, ", %lld after \"%s\"", (long long)left, w->plan.cuts[c]);
    }
    sap_status status =
        sample ? sap_error_set(err, SAP_EDATA, "sample \"%s\" has no selected events: %s", sample,
                               counts.data ? counts.data : "")
               : sap_error_set(err, SAP_EDATA, "no event was selected: %s", counts.data ? counts.data : "");
    sap_text_release(&counts);
    return status;
}

/* A row stays when its hash is below n_min / n_class of all hashes. */
static sap_status choose_thinning(sap_build *build, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    int64_t *selected = sap_arena_array(&build->arena, w->label_count, sizeof *selected), least = INT64_MAX, all = 0;
    build->keep = sap_arena_array(&build->arena, w->label_count, sizeof *build->keep);
    if (!selected || !build->keep)
        return sap_error_memory(err, w->partial);
    for (size_t i = 0; i < w->plan.input_count; i++)
        selected[w->inputs[i].label] += w->inputs[i].selected;
    for (size_t k = 0; k < w->label_count; k++) {
        all += selected[k];
        least = selected[k] < least ? selected[k] : least;
    }
    if (all == 0)
        return no_events(w, NULL, err);
    for (size_t k = 0; k < w->label_count; k++) {
        if (selected[k] == 0 && w->plan.layout != SAP_LAYOUT_RAW)
            return no_events(w, w->labels[k], err);
        bool every = !w->plan.balance || selected[k] == least;
        build->keep[k] =
            every ? UINT64_MAX : (uint64_t)(((unsigned __int128)(uint64_t)least << 64) / (uint64_t)selected[k]) - 1;
    }
    return SAP_OK;
}

/* ---- A pass --------------------------------------------------------------------------------------------------------- */

typedef struct pass {
    sap_build *build;
    bool fit, write;
    pthread_mutex_t lock; /* of what follows, and for progress, which one thread at a time reports */
    pthread_cond_t freed;
    uint64_t done;
    uint64_t loaded; /* bytes of buckets in memory */
    uint64_t memory; /* that they may take together */
} pass;

/* Waits until the bucket fits beside those of the other threads; one by itself may always try. */
static void wait_for_room(pass *p, uint64_t bytes) {
    pthread_mutex_lock(&p->lock);
    while (p->loaded > 0 && p->loaded + bytes > p->memory)
        pthread_cond_wait(&p->freed, &p->lock);
    p->loaded += bytes;
    pthread_mutex_unlock(&p->lock);
}

static void give_room(pass *p, uint64_t bytes) {
    pthread_mutex_lock(&p->lock);
    p->loaded -= bytes;
    p->done++;
    sap_run_report(p->build->run, p->write ? "write" : "fit", "shards", p->done, SAP_BUCKETS, NULL);
    pthread_cond_broadcast(&p->freed);
    pthread_mutex_unlock(&p->lock);
}

/* Moves the rows that stay to the front, in order; returns how many. The others follow. */
static sap_status thin(const sap_build *build, sap_bucket *bucket, size_t *kept, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    sap_row **rows = malloc((bucket->count + 1) * sizeof *rows);
    if (!rows)
        return sap_error_memory(err, "a shard");
    size_t front = 0, back = bucket->count;
    for (size_t i = 0; i < bucket->count; i++) {
        int32_t label = w->inputs[bucket->rows[i]->input].label;
        if (sap_mix(w->thin_key, bucket->rows[i]->identity) <= build->keep[label])
            rows[front++] = bucket->rows[i];
        else
            rows[--back] = bucket->rows[i];
    }
    free(bucket->rows);
    bucket->rows = rows;
    *kept = front;
    return SAP_OK;
}

static sap_status fit(sap_build *build, const sap_bucket *bucket, size_t kept, int32_t index, sap_error *err) {
    const sap_dataset_plan *plan = &build->writer->plan;
    const float **data = malloc((bucket->count + 1) * sizeof *data);
    int64_t *rows = malloc((bucket->count + 1) * sizeof *rows);
    sap_status status = data && rows ? SAP_OK : sap_error_memory(err, "a shard");
    for (size_t f = 0; f < plan->feature_count && status == SAP_OK; f++) {
        const sap_feature *feature = &plan->features[f];
        size_t count = feature->fit_before_split ? bucket->count : index < SAP_DATASET_SHARDS ? kept : 0;
        if (!sap_feature_needs_constants(feature))
            continue;
        for (size_t i = 0; i < count; i++)
            data[i] = sap_row_feature(plan, bucket->rows[i], f, &rows[i]);
        sap_moments_fill(&build->moments[(size_t)index * plan->feature_count + f], feature->width, data, rows, count);
    }
    free(data);
    free(rows);
    return status;
}

static sap_status order_sequences(const sap_dataset_plan *plan, sap_row *const *rows, size_t count, sap_error *err) {
    sap_sort_space space = {0};
    bool sorted = true;
    for (size_t i = 0; i < count && sorted; i++) {
        for (size_t f = 0; f < plan->feature_count && sorted; f++) {
            int64_t length;
            float *data = sap_row_feature(plan, rows[i], f, &length);
            sorted = sap_sequence_sort(&plan->features[f], data, length, &space);
        }
    }
    free(space.data);
    return sorted ? SAP_OK : sap_error_memory(err, "a sequence");
}

static sap_status write_output(const sap_build *build, sap_output *output, sap_row *const *rows, size_t count,
                               int32_t index, sap_error *err) {
    if (count == 0)
        return SAP_OK;
    sap_pieces *pieces = &output->pieces[index];
    int32_t shard = index % SAP_DATASET_SHARDS;
    *pieces = (sap_pieces){.stem = sap_writer_path(build->writer, "%s/%s/%s%05d", build->place,
                                                   output->folders[index / SAP_DATASET_SHARDS], output->part, shard),
                           .format = build->writer->plan.format,
                           .ending = output->ending,
                           .fields = output->fields,
                           .field_count = output->field_count};
    if (!pieces->stem)
        return sap_error_memory(err, build->writer->partial);
    for (size_t begin = 0, end; begin < count; begin = end) {
        size_t bytes = 0;
        for (end = begin; end < count && (end == begin || bytes < batch_bytes); end++)
            bytes += rows[end]->bytes > output->row_bytes ? rows[end]->bytes : output->row_bytes;
        sap_batch batch = {0};
        SAP_TRY(sap_run_check(build->run, err));
        SAP_TRY(output->fill(build, output, rows + begin, end - begin, &batch, err));
        SAP_TRY(sap_pieces_write(pieces, &batch, err));
    }
    return sap_pieces_finish(pieces, err);
}

sap_status sap_build_bucket(sap_build *build, sap_bucket *bucket, int32_t index, bool fit_now, bool write_now,
                            sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    size_t kept = 0;
    SAP_TRY(thin(build, bucket, &kept, err));
    if (fit_now) {
        int64_t *counts = build->kept + (size_t)index * w->label_count;
        for (size_t i = 0; i < kept; i++)
            counts[w->inputs[bucket->rows[i]->input].label]++;
        SAP_TRY(fit(build, bucket, kept, index, err));
    }
    if (write_now)
        SAP_TRY(order_sequences(&w->plan, bucket->rows, kept, err));
    for (size_t o = 0; o < build->output_count && write_now; o++)
        SAP_TRY(write_output(build, &build->outputs[o], bucket->rows, kept, index, err));
    return SAP_OK;
}

static sap_status pass_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    pass *p = context;
    uint64_t bytes = sap_bucket_bytes(p->build->writer, (int32_t)index);
    sap_bucket bucket;
    wait_for_room(p, bytes);
    sap_status status = sap_bucket_load(p->build->writer, (int32_t)index, &bucket, err);
    if (status == SAP_OK) {
        status = sap_build_bucket(p->build, &bucket, (int32_t)index, p->fit, p->write, err);
        sap_bucket_release(&bucket);
    }
    give_room(p, bytes);
    return status;
}

static sap_status run_pass(sap_build *build, bool fit_now, bool write_now, sap_error *err) {
    pass p = {.build = build,
              .fit = fit_now,
              .write = write_now,
              .lock = PTHREAD_MUTEX_INITIALIZER,
              .freed = PTHREAD_COND_INITIALIZER,
              .memory = build->writer->memory ? build->writer->memory : sap_memory_available() / 2};
    sap_status status = sap_loop(build->run, SAP_BUCKETS, pass_step, &p, err);
    pthread_mutex_destroy(&p.lock);
    pthread_cond_destroy(&p.freed);
    return status;
}

/* ---- Constants -------------------------------------------------------------------------------------------------------- */

static sap_status make_moments(sap_build *build, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    size_t features = w->plan.feature_count;
    build->kept = sap_arena_array(&build->arena, SAP_BUCKETS * w->label_count, sizeof *build->kept);
    build->moments = sap_arena_array(&build->arena, SAP_BUCKETS * features, sizeof *build->moments);
    build->constants = sap_arena_array(&build->arena, features, sizeof *build->constants);
    if (!build->kept || !build->moments || !build->constants)
        return sap_error_memory(err, "scaling constants");
    for (size_t f = 0; f < features; f++) {
        int32_t width = w->plan.features[f].width;
        if (!sap_feature_needs_constants(&w->plan.features[f]))
            continue;
        sap_constants *c = &build->constants[f];
        c->width = width;
        c->shift = sap_arena_array(&build->arena, (size_t)width, sizeof(double));
        c->factor = sap_arena_array(&build->arena, (size_t)width, sizeof(double));
        if (!c->shift || !c->factor)
            return sap_error_memory(err, "scaling constants");
        for (size_t b = 0; b < SAP_BUCKETS; b++)
            SAP_TRY(sap_moments_init(&build->moments[b * features + f], width, &build->arena, err));
    }
    return SAP_OK;
}

/* Thinning and splitting by chance may take the few events of a class altogether. */
static sap_status check_classes(const sap_build *build, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    for (size_t k = 0; k < w->label_count; k++) {
        int64_t selected = 0, left = 0;
        for (size_t i = 0; i < w->plan.input_count; i++)
            selected += w->inputs[i].label == (int32_t)k ? w->inputs[i].selected : 0;
        for (size_t b = 0; b < SAP_DATASET_SHARDS; b++)
            left += build->kept[b * w->label_count + k];
        if (left == 0)
            return sap_error_set(err, SAP_EDATA,
                                 "none of the %lld selected events of sample \"%s\" is left for the training part "
                                 "after balancing and splitting: give more events, a smaller test fraction than %g, or "
                                 "another seed",
                                 (long long)selected, w->labels[k], w->plan.test_fraction);
    }
    return SAP_OK;
}

/* Bucket after bucket, so that the sums do not hang on who came first. */
sap_status sap_build_fit(sap_build *build, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    size_t features = w->plan.feature_count;
    SAP_TRY(check_classes(build, err));
    for (size_t f = 0; f < features; f++) {
        if (build->constants[f].width == 0)
            continue;
        for (size_t b = 1; b < SAP_BUCKETS; b++)
            sap_moments_merge(&build->moments[f], &build->moments[b * features + f], build->constants[f].width);
        sap_constants_fit(w->plan.features[f].scaling, &build->moments[f], &build->constants[f]);
    }
    return SAP_OK;
}

/* ---- Stored events as columns ------------------------------------------------------------------------------------------- */

static sap_status fill_feature(const sap_dataset_plan *plan, size_t index, sap_row *const *rows, size_t count,
                               struct sap_storage *storage, sap_column *out, sap_error *err) {
    const sap_feature *feature = &plan->features[index];
    int64_t length, total = 0;
    int32_t *offsets = sap_storage_alloc(storage, (count + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(err, feature->name);
    for (size_t i = 0; i < count; i++) {
        (void)sap_row_feature(plan, rows[i], index, &length);
        offsets[i] = (int32_t)total;
        total += length * feature->width;
        if (total > INT32_MAX)
            return sap_error_set(err, SAP_EUNSUPPORTED, "feature \"%s\": %lld values in one event", feature->name,
                                 (long long)(length * feature->width));
    }
    offsets[count] = (int32_t)total;
    float *values = sap_storage_alloc(storage, (size_t)total * sizeof *values);
    if (!values)
        return sap_error_memory(err, feature->name);
    for (size_t i = 0; i < count; i++) {
        const float *data = sap_row_feature(plan, rows[i], index, &length);
        memcpy(values + offsets[i], data, (size_t)(length * feature->width) * sizeof *values);
    }
    if (feature->sequence)
        out->offsets = offsets;
    out->children[0].values = values;
    out->children[0].length = total;
    return SAP_OK;
}

/* Text column `which` of the rows' inputs: 0 sample, 1 file. */
static sap_status fill_text(const sap_dataset_writer *w, int which, sap_row *const *rows, size_t count,
                            struct sap_storage *storage, sap_column *out, sap_error *err) {
    int32_t *offsets = sap_storage_alloc(storage, (count + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(err, out->name);
    size_t at = 0;
    for (int pass_number = 0; pass_number < 2; pass_number++) { /* sizes, then bytes */
        char *bytes = NULL;
        if (pass_number == 1) {
            bytes = sap_storage_alloc(storage, at);
            if (!bytes)
                return sap_error_memory(err, out->name);
            out->values = bytes;
        }
        at = 0;
        for (size_t i = 0; i < count; i++) {
            const sap_spooled *input = &w->inputs[rows[i]->input];
            const char *text = which == 0 ? input->sample : input->file;
            size_t length = strlen(text);
            if (bytes)
                memcpy(bytes + at, text, length);
            offsets[i] = (int32_t)at;
            at += length;
        }
    }
    offsets[count] = (int32_t)at;
    out->offsets = offsets;
    return SAP_OK;
}

static sap_status fill_events(const sap_build *build, const sap_output *output, sap_row *const *rows, size_t count,
                              sap_batch *out, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    size_t features = w->plan.feature_count;
    SAP_TRY(sap_batch_init(out, output->field_count, err));
    out->length = (int64_t)count;
    sap_status status = SAP_OK;
    for (int32_t i = 0; i < output->field_count && status == SAP_OK; i++) {
        status = sap_column_init(out->storage, &output->fields[i], &out->columns[i], err);
        out->columns[i].length = (int64_t)count;
    }
    for (size_t f = 0; f < features && status == SAP_OK; f++)
        status = fill_feature(&w->plan, f, rows, count, out->storage, &out->columns[f], err);
    sap_column *rest = out->columns + features;
    for (int which = 0; which < 2 && status == SAP_OK; which++)
        status = fill_text(w, which, rows, count, out->storage, &rest[1 + which], err);
    int32_t *label = status == SAP_OK ? sap_storage_alloc(out->storage, count * sizeof *label) : NULL;
    int64_t *entry = status == SAP_OK ? sap_storage_alloc(out->storage, count * sizeof *entry) : NULL;
    if (status == SAP_OK && (!label || !entry))
        status = sap_error_memory(err, "a batch of events");
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        label[i] = w->inputs[rows[i]->input].label;
        entry[i] = rows[i]->entry;
    }
    if (status != SAP_OK) {
        sap_batch_release(out);
        return status;
    }
    rest[0].values = label;
    rest[3].values = entry;
    return SAP_OK;
}

sap_status sap_events_outputs(sap_build *build, sap_error *err) {
    build->outputs = sap_arena_alloc(&build->arena, sizeof *build->outputs);
    if (!build->outputs)
        return sap_error_memory(err, "dataset");
    build->output_count = 1;
    build->outputs[0] = (sap_output){.folders = {"train", "test"},
                                     .part = "part-",
                                     .ending = sap_part_ending(build->writer->plan.format),
                                     .fields = build->writer->fields,
                                     .field_count = (int32_t)build->writer->plan.feature_count + SAP_EVENT_COLUMNS,
                                     .fill = fill_events};
    return SAP_OK;
}

/* ---- Finishing ------------------------------------------------------------------------------------------------------------ */

/* What an interrupted call wrote there is made again from the spool. */
sap_status sap_build_clear(const sap_build *build, sap_error *err) {
    char *path = sap_writer_path(build->writer, "%s", build->place);
    sap_status status = path ? sap_folder_remove(path, err) : sap_error_memory(err, build->writer->partial);
    free(path);
    for (size_t i = 0; i < 2 * build->output_count && status == SAP_OK; i++) {
        path = sap_writer_path(build->writer, "%s/%s", build->place, build->outputs[i / 2].folders[i % 2]);
        status = path ? sap_folder_make(path, err) : sap_error_memory(err, build->writer->partial);
        free(path);
    }
    return status;
}

sap_status sap_build_init(sap_build *build, sap_error *err) {
    sap_dataset_layout layout = build->writer->plan.layout;
    SAP_TRY(choose_thinning(build, err));
    if (layout == SAP_LAYOUT_RAW)
        return SAP_OK;
    SAP_TRY(layout == SAP_LAYOUT_PUBLISHED ? sap_published_outputs(build, err) : sap_events_outputs(build, err));
    return make_moments(build, err);
}

void sap_build_release(sap_build *build) {
    for (size_t o = 0; o < build->output_count; o++)
        for (size_t b = 0; b < SAP_BUCKETS; b++)
            sap_pieces_release(&build->outputs[o].pieces[b]);
    sap_arena_release(&build->arena);
}

static sap_status build_parts(sap_build *build, sap_error *err) {
    bool published = build->writer->plan.layout == SAP_LAYOUT_PUBLISHED;
    SAP_TRY(sap_build_clear(build, err));
    SAP_TRY(run_pass(build, true, !published, err));
    SAP_TRY(sap_build_fit(build, err));
    return published ? run_pass(build, false, true, err)
                     : SAP_OK; /* it stores scaled values, so it needs constants first */
}

sap_status sap_build_publish(const sap_build *build, sap_error *err) {
    const sap_dataset_writer *w = build->writer;
    char *json = sap_writer_path(w, "whole/" SAP_DATASET_JSON), *whole = sap_writer_path(w, "whole");
    sap_status status = json && whole ? sap_dataset_describe(build, json, err) : sap_error_memory(err, w->partial);
    if (status == SAP_OK && sap_path_exists(w->folder))
        status = sap_error_set(err, SAP_EARGUMENT, "%s exists already; choose another folder or delete it", w->folder);
    if (status == SAP_OK)
        status = sap_folder_sync(whole, err); /* before the name says that it is whole */
    if (status == SAP_OK && rename(whole, w->folder) != 0)
        status = sap_error_errno(err, w->folder);
    if (status == SAP_OK) {
        sap_status removed = sap_folder_remove(w->partial, NULL);
        (void)removed; /* the dataset is whole whatever became of this */
    }
    free(json);
    free(whole);
    return status;
}

sap_status sap_dataset_finish(sap_dataset_writer *w, const sap_run *run, sap_error *err) {
    for (size_t i = 0; i < w->plan.input_count; i++)
        if (!w->inputs[i].whole)
            return sap_error_set(err, SAP_EARGUMENT, "%s: input %zu (%s) is not whole yet", w->partial, i,
                                 w->inputs[i].url);
    sap_build build = {.writer = w, .run = run, .place = "whole"};
    sap_status status = sap_build_init(&build, err);
    if (status == SAP_OK && w->plan.layout != SAP_LAYOUT_RAW)
        status = build_parts(&build, err);
    if (status == SAP_OK)
        status = sap_build_publish(&build, err);
    sap_build_release(&build);
    return status;
}
