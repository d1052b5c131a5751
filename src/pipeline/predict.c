/* predict: scores of a trained network for the events of a dataset or of ROOT files, as a Parquet table. */
#include "pipeline_internal.h"

#include <sapwood/access.h>
#include <stdlib.h>

/* ---- Scoring, for evaluate too ------------------------------------------------------------------------------ */

enum { ROWS_AT_ONCE = 4096 };

bool sap_model_is_binary(const sap_model *model, const sap_dataset *dataset) {
    const sap_tensor_info *output = sap_model_output(model, 0);
    return sap_dataset_label_count(dataset) == 2 && output->rank == 1 && output->shape[0] == 1 && output->sigmoid;
}

sap_device sap_stage_device(const sap_stage *stage) {
    return strcmp(sap_stage_text(stage, "device"), "cuda") == 0 ? SAP_DEVICE_CUDA : SAP_DEVICE_CPU;
}

sap_status sap_scoring_init(const char *folder, sap_device device, const sap_run *run, sap_scoring *out,
                            sap_error *err) {
    char path[PATH_BYTES];
    *out = (sap_scoring){0};
    SAP_TRY(sap_path_join(folder, SAP_RUN_MODEL, path, err));
    sap_status status = sap_model_open(path, 0, &out->model, err);
    if (status == SAP_OK)
        status = sap_dataset_open(folder, &out->dataset, err);
    out->scaling = out->dataset;
    if (status != SAP_OK)
        goto done;
    const sap_tensor_info *output = sap_model_output(out->model, 0);
    out->classes = (int64_t)sap_dataset_label_count(out->dataset);
    out->binary = sap_model_is_binary(out->model, out->dataset);
    if (sap_model_output_count(out->model) > 1 || output->rank != 1 ||
        (output->shape[0] != out->classes && !out->binary)) {
        status = sap_error_set(err, SAP_ETYPE, "%s: the network's output has %lld numbers, %s names %lld classes", path,
                               (long long)(output->rank ? output->shape[output->rank - 1] : 0), SAP_RUN_SCALER,
                               (long long)out->classes);
        goto done;
    }
    out->inputs = calloc(sap_model_input_count(out->model) + 1, sizeof(const char *));
    status = out->inputs ? sap_model_features(out->model, out->dataset, path, out->inputs, err)
                         : sap_error_memory(err, path);
    if (status == SAP_OK)
        status = sap_predictor_open(out->model, device, run, &out->predictor, err);
done:
    if (status != SAP_OK)
        sap_scoring_release(out);
    return status;
}

void sap_scoring_release(sap_scoring *scoring) {
    sap_predictor_close(scoring->predictor);
    sap_model_close(scoring->model);
    sap_dataset_close(scoring->dataset);
    free(scoring->inputs);
    *scoring = (sap_scoring){0};
}

/* From the probability of the second class to the scores of both, in place. */
static void score_both(float *scores, int64_t rows) {
    for (int64_t i = rows - 1; i >= 0; i--) {
        float second = scores[i];
        scores[2 * i] = 1 - second;
        scores[2 * i + 1] = second;
    }
}

sap_status sap_scoring_run(const sap_scoring *scoring, const sap_batch *batch, bool ordered, const sap_run *run,
                           float *scores, sap_error *err) {
    sap_feed *feed = NULL;
    SAP_TRY(sap_feed_open_batch(scoring->scaling, batch, ordered, scoring->inputs,
                                sap_model_input_count(scoring->model), run, &feed, err));
    sap_status status = sap_feed_epoch(feed, 0, -1, err);
    sap_examples examples = {0};
    while (status == SAP_OK) {
        status = sap_run_check(run, err);
        if (status == SAP_OK)
            status = sap_feed_next(feed, ROWS_AT_ONCE, &examples, err);
        if (status != SAP_OK || examples.rows == 0)
            break;
        status = sap_predictor_run(scoring->predictor, &examples, &scores, err);
        if (status == SAP_OK && scoring->binary)
            score_both(scores, examples.rows);
        scores += examples.rows * scoring->classes;
    }
    sap_feed_close(feed);
    return status;
}

/* ---- The table of scores -------------------------------------------------------------------------------------- */

typedef struct prediction {
    const sap_run *run;
    sap_scoring scoring;
    sap_table_writer *table;
    sap_field *fields; /* sample, file, entry, then one score a class */
    sap_arena arena;
    const char *sample, *file; /* of the ROOT file that is read; file: base name */
    int64_t rows;
} prediction;

enum { BEFORE_SCORES = 3 };

static sap_status open_table(prediction *p, const char *path, sap_error *err) {
    size_t classes = (size_t)p->scoring.classes;
    p->fields = sap_arena_array(&p->arena, classes + BEFORE_SCORES, sizeof *p->fields);
    if (!p->fields)
        return sap_error_memory(err, path);
    p->fields[0] = (sap_field){.name = "sample", .type = SAP_STRING};
    p->fields[1] = (sap_field){.name = "file", .type = SAP_STRING};
    p->fields[2] = (sap_field){.name = "entry", .type = SAP_INT64};
    for (size_t k = 0; k < classes; k++) {
        const char *name = sap_arena_format(&p->arena, "score_%s", sap_dataset_label(p->scoring.dataset, k));
        if (!name)
            return sap_error_memory(err, path);
        p->fields[BEFORE_SCORES + k] = (sap_field){.name = name, .type = SAP_FLOAT32};
    }
    return sap_table_create(path, p->fields, (int32_t)classes + BEFORE_SCORES, &p->table, err);
}

/* A column of one text `length` times. */
static bool fill_text(struct sap_storage *storage, const char *text, int64_t length, sap_column *out) {
    size_t bytes = strlen(text);
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(length + 1) * sizeof *offsets);
    char *data = sap_storage_alloc(storage, (size_t)length * bytes);
    if (!offsets || !data)
        return false;
    for (int64_t i = 0; i <= length; i++)
        offsets[i] = (int32_t)((size_t)i * bytes);
    for (int64_t i = 0; i < length; i++)
        memcpy(data + (size_t)i * bytes, text, bytes);
    out->offsets = offsets;
    out->values = data;
    return true;
}

/* One row an event of `features`: who it is, from its own columns or from the file that is read, and its scores. */
static sap_status write_scores(prediction *p, const sap_batch *features, bool ordered, sap_error *err) {
    int64_t rows = features->length, classes = p->scoring.classes;
    if (rows == 0)
        return SAP_OK;
    sap_batch out = {0};
    const sap_column *sample = sap_batch_find(features, "sample"), *file = sap_batch_find(features, "file"),
                     *entry = sap_batch_find(features, "entry");
    float *scores = calloc((size_t)(rows * classes), sizeof *scores);
    sap_status status =
        scores ? sap_batch_init(&out, (int32_t)classes + BEFORE_SCORES, err) : sap_error_memory(err, "scores");
    if (status == SAP_OK)
        status = sap_scoring_run(&p->scoring, features, ordered, p->run, scores, err);
    for (int32_t i = 0; i < out.count && status == SAP_OK; i++) {
        status = sap_column_init(out.storage, &p->fields[i], &out.columns[i], err);
        out.columns[i].length = rows;
    }
    if (status != SAP_OK)
        goto done;
    out.length = rows;
    bool room = true;
    const sap_column *texts[2] = {sample, file};
    const char *same[2] = {p->sample, p->file};
    for (int i = 0; i < 2; i++) {
        if (same[i]) {
            room = room && fill_text(out.storage, same[i], rows, &out.columns[i]);
        } else if (texts[i] && texts[i]->type == SAP_STRING) {
            out.columns[i].offsets = texts[i]->offsets; /* the batch outlives the writing below */
            out.columns[i].values = texts[i]->values;
        }
    }
    if (entry && entry->type == SAP_INT64)
        out.columns[2].values = entry->values;
    for (int64_t k = 0; k < classes && room; k++) {
        float *score = sap_storage_alloc(out.storage, (size_t)rows * sizeof *score);
        room = score != NULL;
        for (int64_t i = 0; i < rows && room; i++)
            score[i] = scores[i * classes + k];
        out.columns[BEFORE_SCORES + k].values = score;
    }
    if (!room)
        status = sap_error_memory(err, "scores");
    else if (!out.columns[0].values || !out.columns[1].values || !out.columns[2].values)
        status = sap_error_set(err, SAP_EFORMAT, "predict: events without the columns sample, file and entry");
    else
        status = sap_table_write(p->table, &out, err);
    p->rows += rows;
done:
    sap_batch_release(&out);
    free(scores);
    return status;
}

static sap_status predict_dataset(prediction *p, const sap_stage *stage, sap_error *err) {
    const char *folder = sap_stage_text(stage, "data"), *split;
    sap_dataset *dataset;
    SAP_TRY(sap_scoring_data(&p->scoring, stage, &dataset, err));
    split = sap_data_split(dataset, sap_stage_text(stage, "split"));
    int64_t total = sap_dataset_rows(dataset, split);
    sap_status status = SAP_OK;
    if (total < 1)
        status = sap_error_set(err, SAP_EDATA, "%s: has no events in its part \"%s\"", folder, split);
    for (size_t part = 0; status == SAP_OK && part < sap_dataset_part_count(dataset, split); part++) {
        sap_batch batch = {0};
        status = sap_dataset_read_part(dataset, split, part, p->run, &batch, err);
        if (status == SAP_OK)
            status = write_scores(p, &batch, sap_dataset_is_ordered(dataset), err);
        sap_batch_release(&batch);
        sap_run_report(p->run, "predict", "events", (uint64_t)p->rows, (uint64_t)total, NULL);
    }
    sap_dataset_close(dataset);
    return status;
}

static sap_status write_features(void *context, sap_batch *features, sap_error *err) {
    return write_scores(context, features, false, err);
}

/* Features must be what the network was trained on. */
static sap_status find_recipe(const sap_stage *stage, const prediction *p, const sap_recipe **out, sap_error *err) {
    json_error_t where;
    json_t *json = json_loads(sap_dataset_json(p->scoring.dataset), 0, &where);
    const char *name = json_string_value(json_object_get(json, "recipe"));
    const char *convention = json_string_value(json_object_get(json, "convention"));
    const char *given = sap_stage_text(stage, "recipe");
    sap_status status = given || name ? sap_recipe_find(given ? given : name, convention, out, err)
                                      : sap_error_set(err, SAP_EFORMAT, "%s: names no recipe", SAP_RUN_SCALER);
    if (status == SAP_OK && name && strcmp((*out)->name, name) != 0)
        status = sap_error_set(err, SAP_EARGUMENT,
                               "predict: the run was trained on features of the recipe \"%s\", not of \"%s\"", name,
                               (*out)->name);
    else if (status != SAP_OK && !given)
        (void)sap_error_prefix(err, "predict: the run's recipe (give its file with --recipe)");
    json_decref(json);
    return status;
}

static sap_status predict_samples(const sap_stage *stage, prediction *p, sap_error *err) {
    const sap_recipe *recipe;
    sap_inputs inputs = {0};
    SAP_TRY(find_recipe(stage, p, &recipe, err));
    SAP_TRY(sap_inputs_init(stage, &inputs, err));
    sap_features_of job = {
        .recipe = recipe, .tree = sap_stage_text(stage, "tree"), .run = p->run, .write = write_features, .context = p};
    int64_t read = 0, *dropped = calloc(recipe->cut_count + 1, sizeof *dropped);
    sap_status status = dropped ? SAP_OK : sap_error_memory(err, "predict");
    for (size_t i = 0; i < inputs.count && status == SAP_OK; i++) {
        size_t length;
        const char *base = sap_text_base_name(inputs.items[i].url, &length);
        p->sample = inputs.items[i].sample;
        p->file = sap_arena_text(&p->arena, base, length);
        status = p->file ? sap_features_read(&job, inputs.items[i].url, &read, dropped, err)
                         : sap_error_memory(err, "predict");
        sap_run_report(p->run, "predict", "files", i + 1, inputs.count, NULL);
    }
    if (status == SAP_OK && p->rows == 0)
        status = sap_error_set(err, SAP_EDATA, "predict: none of the %lld events passed the selection of \"%s\"",
                               (long long)read, recipe->name);
    free(dropped);
    sap_inputs_release(&inputs);
    return status;
}

sap_status sap_predict_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err) {
    const char *data = sap_stage_text(stage, "data"), *out = sap_stage_text(stage, "out");
    if (!data == !sap_stage_text(stage, "sample"))
        return sap_error_set(err, SAP_EARGUMENT, "predict needs either --data DIR or --sample NAME=FILE");
    prediction p = {.run = run};
    sap_status status = sap_scoring_init(sap_stage_text(stage, "run"), sap_stage_device(stage), run, &p.scoring, err);
    if (status == SAP_OK)
        status = open_table(&p, out, err);
    if (status == SAP_OK)
        status = data ? predict_dataset(&p, stage, err) : predict_samples(stage, &p, err);
    if (status == SAP_OK)
        status = sap_table_finish(p.table, err);
    if (status == SAP_OK)
        *result = json_pack("{s:s, s:I}", "out", out, "events", (json_int_t)p.rows);
    sap_table_writer_close(p.table);
    sap_scoring_release(&p.scoring);
    sap_arena_release(&p.arena);
    return status;
}
