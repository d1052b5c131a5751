/* prepare: ROOT files through a recipe into a dataset. */
#include "pipeline_internal.h"

#include <sapwood/access.h>
#include <stdlib.h>

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
    sap_dataset_plan plan = {0};
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
    if (status == SAP_OK)
        status = sap_recipe_version(sap_stage_text(stage, "recipe"), recipe, version, sizeof version, err);
    plan.recipe_version = version;
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
