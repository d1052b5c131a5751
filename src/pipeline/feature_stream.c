/* Features of ROOT files: a tree's columns through a recipe, batch by batch or handed on while the next batch is made. */
#include "../dataset/dataset_internal.h"
#include "../recipe/recipe_internal.h"
#include "pipeline_internal.h"

#include <sapwood/root.h>
#include <stdlib.h>

struct sap_features {
    const sap_recipe *recipe;
    sap_run run;
    sap_file *file;
    sap_tree *tree;
    sap_reader *reader; /* NULL: the piece has no entries */
    sap_text where;     /* "FILE:TREE" */
    int64_t read, *dropped;
};

/* ---- Opening -------------------------------------------------------------------------------------------------- */

/* The recipe's inputs must be in the tree with their types, before anything is read. */
static sap_status check_columns(const sap_recipe *recipe, const sap_tree *tree, const char *where, sap_error *err) {
    size_t count = sap_tree_branch_count(tree);
    sap_field *fields = calloc(count ? count : 1, sizeof *fields);
    if (!fields)
        return sap_error_memory(err, where);
    int32_t readable = 0;
    for (size_t i = 0; i < count; i++) {
        const sap_branch *branch = sap_tree_branch(tree, i);
        if (branch->field) {
            fields[readable] = *branch->field;
            fields[readable++].name = branch->name;
        }
    }
    sap_status status = sap_recipe_check(recipe, fields, readable, where, err);
    free(fields);
    return status;
}

/* Entries [begin, end) of the piece: whole clusters. */
static sap_status find_piece(const sap_tree *tree, const sap_features_options *options, int64_t *begin, int64_t *end,
                             sap_error *err) {
    size_t count = 0;
    int64_t pieces = options->pieces, entries = sap_tree_entries(tree);
    *begin = 0;
    *end = entries;
    if (pieces <= 1)
        return SAP_OK;
    if (options->piece < 0 || options->piece >= pieces)
        return sap_error_set(err, SAP_EARGUMENT, "%s: piece %lld of %lld", options->url, (long long)options->piece,
                             (long long)pieces);
    const int64_t *clusters = sap_tree_clusters(tree, &count);
    if (!clusters)
        return sap_error_memory(err, options->url);
    size_t first = (size_t)((unsigned __int128)count * (uint64_t)options->piece / (uint64_t)pieces);
    size_t last = (size_t)((unsigned __int128)count * (uint64_t)(options->piece + 1) / (uint64_t)pieces);
    *begin = first < count ? clusters[first] : entries;
    *end = last < count ? clusters[last] : entries;
    return SAP_OK;
}

static sap_status open_reader(sap_features *f, const sap_features_options *options, sap_error *err) {
    const sap_recipe *recipe = f->recipe;
    sap_reader_options reading = {.count = recipe->input_count, .batch_bytes = (size_t)8 << 20};
    SAP_TRY(find_piece(f->tree, options, &reading.begin, &reading.end, err));
    if (reading.begin >= reading.end)
        return SAP_OK;
    const char **columns = calloc(recipe->input_count + 1, sizeof(const char *));
    if (!columns)
        return sap_error_memory(err, options->url);
    for (size_t i = 0; i < recipe->input_count; i++)
        columns[i] = recipe->inputs[i].name;
    reading.columns = columns;
    sap_status status = sap_reader_open(f->tree, &reading, &f->run, &f->reader, err);
    free(columns);
    return status;
}

static sap_status open_features(sap_features *f, const sap_features_options *options, sap_error *err) {
    f->dropped = calloc(f->recipe->cut_count + 1, sizeof *f->dropped);
    if (!f->dropped)
        return sap_error_memory(err, options->url);
    SAP_TRY(sap_file_open(options->url, &f->run, &f->file, err));
    sap_file_report_note(f->file, &f->run);
    SAP_TRY(sap_tree_open(f->file, options->tree ? options->tree : f->recipe->tree, &f->tree, err));
    sap_text_add(&f->where, "%s:%s", options->url, sap_tree_path(f->tree));
    if (f->where.failed)
        return sap_error_memory(err, options->url);
    if (sap_tree_entries(f->tree) == 0)
        return sap_error_set(err, SAP_EDATA, "%s: the tree is empty: it has no entries to select from", f->where.data);
    SAP_TRY(check_columns(f->recipe, f->tree, f->where.data, err));
    return open_reader(f, options, err);
}

sap_status sap_features_open(const sap_features_options *options, const sap_run *run, sap_features **out,
                             sap_error *err) {
    sap_features *features = calloc(1, sizeof *features);
    if (!features)
        return sap_error_memory(err, options->url);
    features->recipe = options->recipe;
    features->run = run ? *run : (sap_run){0};
    sap_status status = open_features(features, options, err);
    if (status == SAP_OK)
        *out = features;
    else
        sap_features_close(features);
    return status;
}

void sap_features_close(sap_features *features) {
    if (!features)
        return;
    sap_reader_close(features->reader);
    sap_tree_close(features->tree);
    sap_file_close(features->file);
    sap_text_release(&features->where);
    free(features->dropped);
    free(features);
}

/* ---- Batches ---------------------------------------------------------------------------------------------------- */

/* One batch of entries through the recipe; *entries 0: the tree's end. */
static sap_status compute_batch(sap_features *f, sap_batch *out, int64_t *entries, sap_error *err) {
    sap_batch batch = {0};
    *entries = 0;
    if (!f->reader)
        return SAP_OK;
    SAP_TRY(sap_reader_next(f->reader, &batch, err));
    *entries = batch.length;
    sap_status status =
        batch.length > 0 ? sap_recipe_run(f->recipe, &batch, f->where.data, &f->run, out, f->dropped, err) : SAP_OK;
    sap_batch_release(&batch);
    f->read += *entries;
    return status;
}

sap_status sap_features_next(sap_features *features, sap_batch *out, sap_error *err) {
    int64_t entries;
    do {
        sap_batch_release(out);
        SAP_TRY(compute_batch(features, out, &entries, err));
    } while (entries > 0 && out->length == 0);
    return SAP_OK;
}

int64_t sap_features_read_entries(const sap_features *features, const int64_t **dropped) {
    *dropped = features->dropped;
    return features->read;
}

/* ---- A whole file, handed on ------------------------------------------------------------------------------------- */

/* A batch on its way to `write`, which runs beside the reading and computing of the next one. */
typedef struct hand_over {
    const sap_features_of *job;
    sap_batch features;
} hand_over;

static sap_status write_features(void *context, sap_error *err) {
    hand_over *next = context;
    sap_status status = next->job->write(next->job->context, &next->features, err);
    sap_batch_release(&next->features);
    return status;
}

/* Reads to the end. Two hand-overs take turns: one is written while the other is filled. */
static sap_status hand_on(const sap_features_of *job, sap_features *features, sap_error *err) {
    hand_over turns[2] = {{job, {0}}, {job, {0}}};
    sap_task *writing = NULL;
    sap_status status = SAP_OK;
    for (int turn = 0; status == SAP_OK; turn = !turn) {
        int64_t entries;
        status = compute_batch(features, &turns[turn].features, &entries, err);
        if (status == SAP_OK && entries == 0)
            break;
        sap_task *before = writing;
        writing = NULL;
        if (status == SAP_OK)
            status = sap_task_wait(before, err);
        else
            (void)sap_task_wait(before, NULL);
        if (status == SAP_OK)
            status = sap_task_start(job->run, write_features, &turns[turn], &writing, err);
        if (status == SAP_OK && job->advance)
            job->advance(job->context, features->read, sap_tree_entries(features->tree));
    }
    sap_status last = sap_task_wait(writing, status == SAP_OK ? err : NULL);
    for (int turn = 0; turn < 2; turn++)
        sap_batch_release(&turns[turn].features);
    return status == SAP_OK ? last : status;
}

sap_status sap_features_read(const sap_features_of *job, const char *url, int64_t *read, int64_t *dropped,
                             sap_error *err) {
    const sap_features_options options = {.recipe = job->recipe, .url = url, .tree = job->tree};
    sap_features *features;
    SAP_TRY(sap_features_open(&options, job->run, &features, err));
    sap_status status = hand_on(job, features, err);
    *read += features->read;
    for (size_t i = 0; i < job->recipe->cut_count; i++)
        dropped[i] += features->dropped[i];
    sap_features_close(features);
    return status;
}

/* ---- Events from elsewhere ------------------------------------------------------------------------------------------ */

sap_status sap_features_compute(const sap_recipe *recipe, const struct ArrowSchema *schema,
                                const struct ArrowArray *array, const char *where, const sap_run *run, sap_batch *out,
                                int64_t *dropped, sap_error *err) {
    sap_field *fields = calloc(2 * recipe->input_count + 1, sizeof *fields);
    if (!fields)
        return sap_error_memory(err, where);
    for (size_t i = 0; i < recipe->input_count; i++)
        fields[i] = sap_recipe_field(&recipe->inputs[i], &fields[recipe->input_count + i]);
    sap_batch batch = {0};
    sap_status status = sap_arrow_import(schema, array, where, fields, (int32_t)recipe->input_count, &batch, err);
    if (status == SAP_OK)
        status = sap_recipe_run(recipe, &batch, where, run, out, dropped, err);
    sap_batch_release(&batch);
    free(fields);
    return status;
}

/* A user's recipe is what its file says now, so that a run is not taken up again with another one. */
sap_status sap_recipe_version(const char *name_or_path, const sap_recipe *recipe, char *out, size_t capacity,
                              sap_error *err) {
    uint64_t hash;
    if (strcmp(name_or_path, recipe->name) == 0) { /* a built-in one */
        (void)snprintf(out, capacity, "%s", recipe->version);
        return SAP_OK;
    }
    SAP_TRY(sap_recipe_source_hash(name_or_path, &hash, err));
    (void)snprintf(out, capacity, "%s (%016llx)", recipe->version, (unsigned long long)hash);
    return SAP_OK;
}

sap_status sap_recipe_json(const char *name_or_path, const sap_recipe *recipe, char **out, sap_error *err) {
    char version[300];
    SAP_TRY(sap_recipe_version(name_or_path, recipe, version, sizeof version, err));
    json_t *inputs = json_array(), *features = json_array(), *cuts = json_array();
    for (size_t i = 0; i < recipe->input_count; i++)
        json_array_append_new(inputs, json_pack("{s:s, s:s, s:b}", "name", recipe->inputs[i].name, "type",
                                                sap_type_name(recipe->inputs[i].type), "jagged",
                                                (int)recipe->inputs[i].jagged));
    for (size_t i = 0; i < recipe->feature_count; i++)
        json_array_append_new(features, sap_feature_json(&recipe->features[i]));
    for (size_t i = 0; i < recipe->cut_count; i++)
        json_array_append_new(cuts, json_string(recipe->cuts[i]));
    json_t *json = json_pack("{s:s, s:s, s:s?, s:s?, s:o, s:o, s:o}", "recipe", recipe->name, "recipe_version", version,
                             "convention", recipe->convention, "tree", recipe->tree, "inputs", inputs, "features",
                             features, "cuts", cuts);
    *out = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return *out ? SAP_OK : sap_error_memory(err, recipe->name);
}
