/* prepare: ROOT files through a recipe into a dataset. */
#include "../recipe/recipe_internal.h"
#include "pipeline_internal.h"

#include <sapwood/access.h>
#include <sapwood/root.h>
#include <stdlib.h>

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

/* Reads the tree to its end. Two hand-overs take turns: one is written while the other is filled. */
static sap_status read_tree(const sap_features_of *job, sap_reader *reader, const char *where, int64_t entries,
                            int64_t *read, int64_t *dropped, sap_error *err) {
    hand_over turns[2] = {{job, {0}}, {job, {0}}};
    sap_task *writing = NULL;
    sap_status status = SAP_OK;
    int64_t done = 0;
    for (int turn = 0; status == SAP_OK; turn = !turn) {
        sap_batch batch = {0};
        status = sap_reader_next(reader, &batch, err);
        if (status == SAP_OK && batch.length == 0)
            break;
        if (status == SAP_OK)
            status = sap_recipe_run(job->recipe, &batch, where, job->run, &turns[turn].features, dropped, err);
        done += batch.length;
        sap_batch_release(&batch);
        sap_task *before = writing;
        writing = NULL;
        if (status == SAP_OK)
            status = sap_task_wait(before, err);
        else
            (void)sap_task_wait(before, NULL);
        if (status == SAP_OK)
            status = sap_task_start(job->run, write_features, &turns[turn], &writing, err);
        if (status == SAP_OK && job->advance)
            job->advance(job->context, done, entries);
    }
    sap_status last = sap_task_wait(writing, status == SAP_OK ? err : NULL);
    for (int turn = 0; turn < 2; turn++)
        sap_batch_release(&turns[turn].features);
    *read += done;
    return status == SAP_OK ? last : status;
}

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

sap_status sap_features_read(const sap_features_of *job, const char *url, int64_t *read, int64_t *dropped,
                             sap_error *err) {
    sap_file *file = NULL;
    sap_tree *tree = NULL;
    sap_reader *reader = NULL;
    sap_text where = {0};
    const sap_recipe *recipe = job->recipe;
    const char **columns = calloc(recipe->input_count + 1, sizeof(const char *));
    sap_status status = columns ? SAP_OK : sap_error_memory(err, url);
    if (status == SAP_OK)
        status = sap_file_open(url, job->run, &file, err);
    if (status == SAP_OK) {
        sap_file_report_note(file, job->run);
        status = sap_tree_open(file, job->tree ? job->tree : recipe->tree, &tree, err);
    }
    if (status != SAP_OK)
        goto done;
    sap_text_add(&where, "%s:%s", url, sap_tree_path(tree));
    if (where.failed) {
        status = sap_error_memory(err, url);
        goto done;
    }
    if (sap_tree_entries(tree) == 0) {
        status = sap_error_set(err, SAP_EDATA, "%s: the tree is empty: it has no entries to select from", where.data);
        goto done;
    }
    status = check_columns(recipe, tree, where.data, err);
    if (status != SAP_OK)
        goto done;
    for (size_t i = 0; i < recipe->input_count; i++)
        columns[i] = recipe->inputs[i].name;
    sap_reader_options options = {.columns = columns, .count = recipe->input_count, .batch_bytes = (size_t)8 << 20};
    status = sap_reader_open(tree, &options, job->run, &reader, err);
    if (status == SAP_OK)
        status = read_tree(job, reader, where.data, sap_tree_entries(tree), read, dropped, err);
done:
    sap_reader_close(reader);
    sap_tree_close(tree);
    sap_file_close(file);
    sap_text_release(&where);
    free(columns);
    return status;
}

/* ---- The stage --------------------------------------------------------------------------------------------- */

typedef struct preparation {
    sap_dataset_writer *writer;
    size_t index; /* of the input that is read */
    const sap_run *run;
    uint64_t *bytes; /* (inputs) sizes, for the progress bar */
    uint64_t before, total;
} preparation;

static sap_status write_batch(void *context, sap_batch *features, sap_error *err) {
    preparation *p = context;
    return sap_dataset_write(p->writer, p->index, features, err);
}

static void advance(void *context, int64_t done, int64_t entries) {
    preparation *p = context;
    double share = entries > 0 ? (double)done / (double)entries : 1;
    sap_run_report(p->run, "read", "bytes", p->before + (uint64_t)(share * (double)p->bytes[p->index]), p->total, NULL);
}

/* A file's size now: also says early that one is missing. */
static sap_status input_sizes(const sap_inputs *inputs, preparation *p, sap_error *err) {
    for (size_t i = 0; i < inputs->count; i++) {
        sap_source *source;
        SAP_TRY(sap_source_open(inputs->items[i].url, p->run, &source, err));
        p->bytes[i] = sap_source_size(source);
        p->total += p->bytes[i];
        sap_source_close(source);
    }
    return SAP_OK;
}

static sap_status read_inputs(const sap_inputs *inputs, sap_features_of *job, preparation *p, sap_error *err) {
    int64_t *dropped = calloc(job->recipe->cut_count + 1, sizeof *dropped);
    if (!dropped)
        return sap_error_memory(err, "prepare");
    sap_status status = SAP_OK;
    for (size_t i = 0; i < inputs->count && status == SAP_OK; i++) {
        p->index = i;
        if (!sap_dataset_has_input(p->writer, i)) {
            int64_t read = 0;
            memset(dropped, 0, job->recipe->cut_count * sizeof *dropped);
            status = sap_features_read(job, inputs->items[i].url, &read, dropped, err);
            if (status == SAP_OK)
                status = sap_dataset_end_input(p->writer, i, read, dropped, err);
        }
        p->before += p->bytes[i];
        sap_run_report(p->run, "read", "bytes", p->before, p->total, NULL);
    }
    free(dropped);
    return status;
}

static sap_status plan_of(const sap_stage *stage, const sap_recipe *recipe, const sap_inputs *inputs,
                          sap_dataset_plan *plan, sap_error *err) {
    *plan = (sap_dataset_plan){
        .inputs = inputs->items,
        .input_count = inputs->count,
        .features = recipe->features,
        .feature_count = recipe->feature_count,
        .cuts = recipe->cuts,
        .cut_count = recipe->cut_count,
        .recipe = recipe->name,
        .recipe_version = recipe->version,
        .convention = recipe->convention,
        .format = strcmp(sap_stage_text(stage, "format"), "tfrecord") == 0 ? SAP_DATASET_TFRECORD : SAP_DATASET_PARQUET,
        .layout = SAP_LAYOUT_SAPWOOD,
        .seed = sap_stage_count(stage, "seed"),
        .test_fraction = sap_stage_real(stage, "test-fraction"),
        .balance = sap_stage_switch(stage, "balance"),
    };
    bool published = strcmp(sap_stage_text(stage, "layout"), "published") == 0, raw = sap_stage_switch(stage, "raw");
    if (published && raw)
        return sap_error_set(err, SAP_EARGUMENT,
                             "prepare: --raw has no layout of its own to choose: leave --layout out");
    if (plan->test_fraction >= 1)
        return sap_error_set(err, SAP_EARGUMENT, "prepare: --test-fraction should be below 1, but is %g",
                             plan->test_fraction);
    if (published)
        plan->layout = SAP_LAYOUT_PUBLISHED;
    if (raw)
        plan->layout = SAP_LAYOUT_RAW;
    return SAP_OK;
}

/* A user's recipe is what its file says now: "1 (0123456789abcdef)", so that a run is not taken up again with another one. */
static sap_status name_version(const char *path, const sap_recipe *recipe, char *out, size_t capacity,
                               sap_dataset_plan *plan, sap_error *err) {
    uint64_t hash;
    SAP_TRY(sap_recipe_source_hash(path, &hash, err));
    (void)snprintf(out, capacity, "%s (%016llx)", recipe->version, (unsigned long long)hash);
    plan->recipe_version = out;
    return SAP_OK;
}

/* {"out": folder, "dataset": what dataset.json says} */
static sap_status describe(const char *folder, json_t **result, sap_error *err) {
    char path[PATH_BYTES];
    json_t *dataset = NULL;
    SAP_TRY(sap_path_join(folder, "dataset.json", path, err));
    SAP_TRY(sap_json_load(path, &dataset, err));
    *result = json_pack("{s:s, s:o}", "out", folder, "dataset", dataset);
    return *result ? SAP_OK : sap_error_memory(err, folder);
}

sap_status sap_prepare_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err) {
    const char *folder = sap_stage_text(stage, "out");
    preparation p = {.run = run};
    sap_inputs inputs = {0};
    const sap_recipe *recipe;
    sap_dataset_plan plan;
    char version[300];
    sap_status status =
        sap_recipe_find(sap_stage_text(stage, "recipe"), sap_stage_text(stage, "convention"), &recipe, err);
    if (status == SAP_OK)
        status = sap_inputs_init(stage, &inputs, err);
    if (status != SAP_OK)
        goto done;
    p.bytes = calloc(inputs.count, sizeof *p.bytes);
    if (!p.bytes) {
        status = sap_error_memory(err, "prepare");
        goto done;
    }
    status = input_sizes(&inputs, &p, err);
    if (status == SAP_OK)
        status = plan_of(stage, recipe, &inputs, &plan, err);
    if (status == SAP_OK && strcmp(sap_stage_text(stage, "recipe"), recipe->name) != 0) /* not a built-in one */
        status = name_version(sap_stage_text(stage, "recipe"), recipe, version, sizeof version, &plan, err);
    if (status == SAP_OK)
        status = sap_dataset_create(folder, &plan, &p.writer, err);
    if (status != SAP_OK)
        goto done;
    sap_features_of job = {.recipe = recipe,
                           .tree = sap_stage_text(stage, "tree"),
                           .run = run,
                           .write = write_batch,
                           .advance = advance,
                           .context = &p};
    status = read_inputs(&inputs, &job, &p, err);
    if (status == SAP_OK)
        status = sap_dataset_finish(p.writer, run, err);
    if (status == SAP_OK)
        status = describe(folder, result, err);
done:
    sap_dataset_writer_close(p.writer);
    free(p.bytes);
    sap_inputs_release(&inputs);
    return status;
}
