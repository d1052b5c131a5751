/* Running a recipe over a batch: slices of events on the pool, their results put together in entry order.
 *
 * Slices are run in rounds. A slice collects what its events give in a piece of its own; after a round the pieces are
 * copied behind what there is already, and are used again, so that a piece stays in the cache. Neither the cut into
 * slices nor the order of the result depends on the number of threads.
 */
#include "../column/column_internal.h"
#include "recipe_internal.h"

#include <stdlib.h>

enum { SLICE_EVENTS = 32, PIECES_A_THREAD = 4 };

/* float32 values that grow. */
typedef struct values {
    float *data;
    size_t count, capacity;
} values;

/* What one slice gave. */
typedef struct piece {
    values *features;   /* (feature_count) */
    int64_t *rows_end;  /* (feature_count, SLICE_EVENTS) values up to and with each kept event */
    int64_t *dropped;   /* (cut_count) */
    sap_column *inputs; /* (input_count) */
    int32_t kept;
    int64_t entries[SLICE_EVENTS];
} piece;

/* Where a slice's calls arrive. */
typedef struct sink {
    const sap_recipe *recipe;
    const char *where;
    piece *piece;
    int64_t first_entry, count;
    int64_t last_kept;
    uint64_t seen;   /* bit an event */
    char wrong[200]; /* the first misuse by the recipe, "" */
} sink;

typedef struct job {
    const sap_recipe *recipe;
    const sap_batch *batch;
    const char *where;
    const sap_column **inputs; /* (input_count) of the batch */
    piece *pieces;
    size_t piece_count;
    size_t first_slice; /* of this round */
    /* The result so far. */
    int64_t kept;
    int64_t *entries;
    size_t entry_capacity;
    values *features;  /* (feature_count) */
    int32_t **offsets; /* (feature_count) (kept + 1) for sequences, else NULL */
    size_t *offset_capacity;
    int64_t *dropped; /* (cut_count) */
} job;

/* ---- What a recipe calls ---------------------------------------------------------------------------------- */

/* Room for `count` items in a malloc'ed array that doubles. */
static bool reserve(void **array, size_t *capacity, size_t count, size_t item_size) {
    if (count <= *capacity)
        return true;
    size_t larger = *capacity ? *capacity : 256;
    while (larger < count)
        larger *= 2;
    void *data = realloc(*array, larger * item_size);
    if (!data)
        return false;
    *array = data;
    *capacity = larger;
    return true;
}

static bool reserve_values(values *v, size_t count) {
    void *data = v->data;
    bool good = reserve(&data, &v->capacity, count, sizeof *v->data);
    v->data = data;
    return good;
}

/* Notes that the recipe dealt with an event. */
static bool take_event(sink *s, int64_t event, const char *verb) {
    if (s->wrong[0])
        return false;
    if (event < 0 || event >= s->count)
        (void)snprintf(s->wrong, sizeof s->wrong, "it %s event %lld of a call with %lld", verb, (long long)event,
                       (long long)s->count);
    else if (s->seen >> event & 1)
        (void)snprintf(s->wrong, sizeof s->wrong, "it %s entry %lld after it was kept or dropped before", verb,
                       (long long)(s->first_entry + event));
    else
        s->seen |= UINT64_C(1) << event;
    return !s->wrong[0];
}

static sap_status misused(const sink *s, sap_error *err) {
    return sap_error_set(err, SAP_EARGUMENT, "%s: recipe \"%s\" is wrong: %s", s->where, s->recipe->name, s->wrong);
}

static void drop(void *context, int64_t event, int32_t cut) {
    sink *s = context;
    if (!take_event(s, event, "dropped"))
        return;
    if (cut < 0 || (size_t)cut >= s->recipe->cut_count)
        (void)snprintf(s->wrong, sizeof s->wrong, "it dropped entry %lld at cut %d of %zu",
                       (long long)(s->first_entry + event), cut, s->recipe->cut_count);
    else
        s->piece->dropped[cut]++;
}

static sap_status keep(void *context, int64_t event, const sap_recipe_value *given, sap_error *err) {
    sink *s = context;
    piece *p = s->piece;
    if (!take_event(s, event, "kept"))
        return misused(s, err);
    if (event < s->last_kept) {
        (void)snprintf(s->wrong, sizeof s->wrong, "it kept entry %lld after a later one",
                       (long long)(s->first_entry + event));
        return misused(s, err);
    }
    for (size_t f = 0; f < s->recipe->feature_count; f++) {
        const sap_feature *feature = &s->recipe->features[f];
        int64_t count = given[f].count;
        if (count < 0 || (feature->sequence ? count % feature->width != 0 : count != feature->width) ||
            (count > 0 && !given[f].data)) {
            (void)snprintf(s->wrong, sizeof s->wrong,
                           "it gave feature \"%.50s\" of entry %lld %lld values, expected %s%d", feature->name,
                           (long long)(s->first_entry + event), (long long)count,
                           feature->sequence ? "a multiple of " : "", feature->width);
            return misused(s, err);
        }
        values *to = &p->features[f];
        if ((size_t)count > SIZE_MAX / 16 || !reserve_values(to, to->count + (size_t)count))
            return sap_error_memory(err, s->where);
        if (count > 0)
            memcpy(to->data + to->count, given[f].data, (size_t)count * sizeof *to->data);
        to->count += (size_t)count;
        p->rows_end[f * SLICE_EVENTS + (size_t)p->kept] = (int64_t)to->count;
    }
    p->entries[p->kept++] = s->first_entry + event;
    s->last_kept = event;
    return SAP_OK;
}

static sap_status fail(void *context, int64_t event, sap_error *err, const char *what) {
    const sink *s = context;
    return sap_error_set(err, SAP_EFORMAT, "%s: entry %lld: %s", s->where, (long long)(s->first_entry + event), what);
}

/* ---- Slices ------------------------------------------------------------------------------------------------- */

/* Entries from `begin` on of an input: lists share their items. */
static sap_column input_from(const sap_column *column, int64_t begin, int64_t count) {
    sap_column view = *column;
    view.length = count;
    if (view.type == SAP_LIST)
        view.offsets += begin;
    else
        view.values = (const char *)view.values + (size_t)begin * sap_type_size(view.type);
    return view;
}

static sap_status run_slice(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    const job *j = context;
    piece *p = &j->pieces[index];
    int64_t begin = (int64_t)(j->first_slice + index) * SLICE_EVENTS;
    int64_t count = j->batch->length - begin < SLICE_EVENTS ? j->batch->length - begin : SLICE_EVENTS;
    p->kept = 0;
    for (size_t f = 0; f < j->recipe->feature_count; f++)
        p->features[f].count = 0;
    for (size_t i = 0; i < j->recipe->input_count; i++)
        p->inputs[i] = input_from(j->inputs[i], begin, count);
    sink s = {.recipe = j->recipe,
              .where = j->where,
              .piece = p,
              .first_entry = j->batch->first_entry + begin,
              .count = count,
              .last_kept = -1};
    const sap_recipe_call call = {.count = count,
                                  .first_entry = s.first_entry,
                                  .columns = p->inputs,
                                  .settings = j->recipe->settings,
                                  .sink = &s,
                                  .drop = drop,
                                  .keep = keep,
                                  .fail = fail};
    sap_error error = {0};
    sap_status status = j->recipe->events(&call, &error);
    if (status != SAP_OK && !s.wrong[0]) {
        if (!error.message[0])
            return sap_error_set(err, status, "%s: recipe \"%s\" failed (%s) without saying why", j->where,
                                 j->recipe->name, sap_status_name(status));
        return sap_error_set(err, status, "%s", error.message);
    }
    for (int64_t event = 0; event < count && !s.wrong[0]; event++)
        if (!(s.seen >> event & 1))
            (void)snprintf(s.wrong, sizeof s.wrong, "it neither kept nor dropped entry %lld",
                           (long long)(s.first_entry + event));
    return s.wrong[0] ? misused(&s, err) : SAP_OK;
}

/* ---- Putting together ----------------------------------------------------------------------------------------- */

static bool reserve_offsets(job *j, size_t feature, size_t count) {
    void *offsets = j->offsets[feature];
    bool good = reserve(&offsets, &j->offset_capacity[feature], count, sizeof(int32_t));
    j->offsets[feature] = offsets;
    return good;
}

/* Appends one feature of a piece. */
static sap_status append_feature(job *j, size_t f, const piece *p, sap_error *err) {
    values *to = &j->features[f];
    const values *from = &p->features[f];
    const sap_feature *feature = &j->recipe->features[f];
    if (to->count + from->count > INT32_MAX)
        return sap_error_set(
            err, SAP_EMEMORY,
            "%s: %lld events give more than %d values of feature \"%s\"; run the recipe on fewer at once", j->where,
            (long long)j->batch->length, INT32_MAX, feature->name);
    if (!reserve_values(to, to->count + from->count) ||
        (feature->sequence && !reserve_offsets(j, f, (size_t)(j->kept + p->kept + 1))))
        return sap_error_memory(err, j->where);
    if (feature->sequence) {
        int32_t *offsets = j->offsets[f] + j->kept;
        int32_t base = (int32_t)to->count;
        offsets[0] = base;
        for (int32_t i = 0; i < p->kept; i++)
            offsets[i + 1] = base + (int32_t)p->rows_end[f * SLICE_EVENTS + (size_t)i];
    }
    if (from->count > 0)
        memcpy(to->data + to->count, from->data, from->count * sizeof *to->data);
    to->count += from->count;
    return SAP_OK;
}

static sap_status append_piece(job *j, piece *p, sap_error *err) {
    for (size_t f = 0; f < j->recipe->feature_count; f++)
        SAP_TRY(append_feature(j, f, p, err));
    size_t kept = (size_t)p->kept;
    void *entries = j->entries;
    bool good = reserve(&entries, &j->entry_capacity, (size_t)j->kept + kept, sizeof *j->entries);
    j->entries = entries;
    if (!good)
        return sap_error_memory(err, j->where);
    if (kept > 0)
        memcpy(j->entries + j->kept, p->entries, kept * sizeof *j->entries);
    j->kept += p->kept;
    for (size_t c = 0; c < j->recipe->cut_count; c++) {
        j->dropped[c] += p->dropped[c];
        p->dropped[c] = 0;
    }
    return SAP_OK;
}

static sap_status run_rounds(job *j, const sap_run *run, sap_error *err) {
    size_t slices = (size_t)((j->batch->length + SLICE_EVENTS - 1) / SLICE_EVENTS);
    for (; j->first_slice < slices; j->first_slice += j->piece_count) {
        size_t left = slices - j->first_slice;
        size_t count = left < j->piece_count ? left : j->piece_count;
        SAP_TRY(sap_loop(run, count, run_slice, j, err));
        for (size_t i = 0; i < count; i++)
            SAP_TRY(append_piece(j, &j->pieces[i], err));
    }
    return SAP_OK;
}

/* Gives a malloc'ed array (or NULL, for an empty one) to the batch; NULL when memory runs out: then the caller has it still. */
static const void *give(sap_batch *out, void *array) {
    if (!array)
        return sap_storage_alloc(out->storage, 1);
    return sap_storage_adopt(out->storage, array) ? array : NULL;
}

static sap_status fill_feature(job *j, size_t f, sap_batch *out, sap_error *err) {
    const sap_feature *feature = &j->recipe->features[f];
    sap_column *column = &out->columns[f];
    sap_field item = {.name = "item", .type = SAP_FLOAT32};
    sap_field field = {.name = feature->name,
                       .type = feature->sequence ? SAP_LIST : SAP_FIXED_LIST,
                       .size = feature->sequence ? 0 : feature->width,
                       .count = 1,
                       .children = &item};
    SAP_TRY(sap_column_init(out->storage, &field, column, err));
    column->length = j->kept;
    column->children[0].length = (int64_t)j->features[f].count;
    column->children[0].values = give(out, j->features[f].data);
    if (!column->children[0].values)
        return sap_error_memory(err, j->where);
    j->features[f].data = NULL;
    if (!feature->sequence)
        return SAP_OK;
    if (!reserve_offsets(j, f, 1))
        return sap_error_memory(err, j->where);
    if (j->kept == 0)
        j->offsets[f][0] = 0;
    column->offsets = give(out, j->offsets[f]);
    if (!column->offsets)
        return sap_error_memory(err, j->where);
    j->offsets[f] = NULL;
    return SAP_OK;
}

static sap_status fill_batch(job *j, sap_batch *out, sap_error *err) {
    size_t features = j->recipe->feature_count;
    SAP_TRY(sap_batch_init(out, (int32_t)features + 1, err));
    out->length = j->kept;
    out->first_entry = j->batch->first_entry;
    for (size_t f = 0; f < features; f++)
        SAP_TRY(fill_feature(j, f, out, err));
    sap_column *entry = &out->columns[features];
    SAP_TRY(sap_column_init(out->storage, &(sap_field){.name = "entry", .type = SAP_INT64}, entry, err));
    entry->length = j->kept;
    entry->values = give(out, j->entries);
    if (!entry->values)
        return sap_error_memory(err, j->where);
    j->entries = NULL;
    return SAP_OK;
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

/* Looks up and checks the inputs in the batch. */
static sap_status find_inputs(job *j, sap_error *err) {
    const sap_recipe *recipe = j->recipe;
    for (size_t i = 0; i < recipe->input_count; i++) {
        const sap_column *column = sap_batch_find(j->batch, recipe->inputs[i].name);
        sap_field item, has = {0}, has_item = {0};
        sap_field wanted = sap_recipe_field(&recipe->inputs[i], &item);
        if (!column)
            return sap_error_set(err, SAP_ENOTFOUND, "%s: recipe \"%s\": no column \"%s\"", j->where, recipe->name,
                                 wanted.name);
        has.type = column->type;
        if (column->count == 1) {
            has_item.type = column->children[0].type;
            has.count = 1;
            has.children = &has_item;
        }
        if (!sap_field_same(&has, &wanted))
            return sap_error_set(err, SAP_ETYPE, "%s: recipe \"%s\": column \"%s\" is %s, expected %s%s", j->where,
                                 recipe->name, wanted.name, sap_type_name(column->type),
                                 recipe->inputs[i].jagged ? "a list of " : "", sap_type_name(recipe->inputs[i].type));
        for (int64_t e = 0; column->valid && e < column->length; e++)
            if (!column->valid[e])
                return sap_error_set(err, SAP_EDATA, "%s: recipe \"%s\": column \"%s\" is null in entry %lld", j->where,
                                     recipe->name, wanted.name, (long long)(j->batch->first_entry + e));
        j->inputs[i] = column;
    }
    return SAP_OK;
}

static void release_job(job *j) {
    for (size_t i = 0; j->pieces && i < j->piece_count; i++) {
        piece *p = &j->pieces[i];
        for (size_t f = 0; p->features && f < j->recipe->feature_count; f++)
            free(p->features[f].data);
        free(p->features);
        free(p->rows_end);
        free(p->dropped);
        free(p->inputs);
    }
    for (size_t f = 0; f < j->recipe->feature_count; f++) {
        if (j->features)
            free(j->features[f].data);
        if (j->offsets)
            free(j->offsets[f]);
    }
    free(j->pieces);
    free(j->inputs);
    free(j->features);
    free(j->offsets);
    free(j->offset_capacity);
    free(j->dropped);
    free(j->entries);
}

static sap_status init_job(job *j, const sap_run *run, sap_error *err) {
    const sap_recipe *recipe = j->recipe;
    size_t features = recipe->feature_count;
    size_t threads = (size_t)sap_run_threads(run);
    j->piece_count = threads > 1 ? threads * PIECES_A_THREAD : 1;
    j->inputs = calloc(recipe->input_count, sizeof *j->inputs);
    j->pieces = calloc(j->piece_count, sizeof *j->pieces);
    j->features = calloc(features, sizeof *j->features);
    j->offsets = calloc(features, sizeof *j->offsets);
    j->offset_capacity = calloc(features, sizeof *j->offset_capacity);
    j->dropped = calloc(recipe->cut_count + 1, sizeof *j->dropped);
    bool good = j->inputs && j->pieces && j->features && j->offsets && j->offset_capacity && j->dropped;
    for (size_t i = 0; good && i < j->piece_count; i++) {
        piece *p = &j->pieces[i];
        p->features = calloc(features, sizeof *p->features);
        p->rows_end = calloc(features * SLICE_EVENTS, sizeof *p->rows_end);
        p->dropped = calloc(recipe->cut_count + 1, sizeof *p->dropped);
        p->inputs = calloc(recipe->input_count, sizeof *p->inputs);
        good = p->features && p->rows_end && p->dropped && p->inputs;
    }
    return good ? SAP_OK : sap_error_memory(err, j->where);
}

sap_status sap_recipe_run(const sap_recipe *recipe, const sap_batch *batch, const char *where, const sap_run *run,
                          sap_batch *out, int64_t *dropped, sap_error *err) {
    job j = {.recipe = recipe, .batch = batch, .where = where};
    sap_status status = init_job(&j, run, err);
    if (status == SAP_OK)
        status = find_inputs(&j, err);
    if (status == SAP_OK)
        status = run_rounds(&j, run, err);
    if (status == SAP_OK)
        status = fill_batch(&j, out, err);
    if (status == SAP_OK)
        for (size_t c = 0; c < recipe->cut_count; c++)
            dropped[c] += j.dropped[c];
    else
        sap_batch_release(out);
    release_job(&j);
    return status;
}
