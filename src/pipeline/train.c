/* train: a network and a dataset into a run folder: the trained model, its history, and what it needs to be used. */
#include "pipeline_internal.h"

#include <errno.h>
#include <stdlib.h>

#define CHECKPOINT "checkpoint.keras" /* in the folder while it is OUT.partial */

static sap_status check_output(const sap_model *model, const sap_dataset *dataset, const char *where, sap_error *err) {
    const sap_tensor_info *output = sap_model_output(model, 0);
    size_t classes = sap_dataset_label_count(dataset);
    if (sap_model_output_count(model) > 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the network has %zu outputs; one, of classes, can be trained",
                             where, sap_model_output_count(model));
    if (output->rank != 1 || output->shape[0] != (int64_t)classes)
        return sap_error_set(err, SAP_ETYPE,
                             "%s: the network's output \"%s\" has %lld numbers, the dataset has %zu classes", where,
                             output->name, (long long)(output->rank ? output->shape[output->rank - 1] : 0), classes);
    return SAP_OK;
}

/* Everything that decides the result, to compare when an interrupted run is taken up again. */
static json_t *describe_options(const sap_stage *stage) {
    json_t *options = json_object();
    for (size_t i = 0; i < stage->kind->option_count; i++) {
        const char *name = stage->kind->options[i].name, *value = sap_stage_text(stage, name);
        if (value && strcmp(name, "out") != 0)
            json_object_set_new(options, name, json_string(value));
    }
    return options;
}

/* Hash of a file's bytes as text, so that a changed input is noticed. */
static sap_status file_hash(const char *path, json_t *into, const char *key, sap_error *err) {
    char *bytes;
    size_t length;
    SAP_TRY(sap_file_load(path, (size_t)1 << 32, &bytes, &length, err));
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)sap_hash(bytes, length, 0));
    free(bytes);
    json_object_set_new(into, key, json_string(text));
    return SAP_OK;
}

/* The first key of `a` whose value is another in `b`, or not there; NULL: none. Borrowed from `a`. */
static const char *find_difference(const json_t *a, const json_t *b) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)a, key, value) {
        if (!json_equal(value, json_object_get(b, key)))
            return key;
    }
    return NULL;
}

/* Makes OUT.partial, or finds it as an interrupted run with the same options left it. */
static sap_status begin(const sap_stage *stage, const char *out, const char *partial, sap_error *err) {
    char path[PATH_BYTES];
    if (sap_path_exists(out))
        return sap_error_set(err, SAP_EARGUMENT, "%s exists already: choose another --out, or remove it", out);
    json_t *options = describe_options(stage), *before = NULL;
    sap_status status = sap_path_join(sap_stage_text(stage, "data"), SAP_RUN_SCALER, path, err);
    if (status == SAP_OK)
        status = file_hash(path, options, "data-hash", err);
    if (status == SAP_OK)
        status = file_hash(sap_stage_text(stage, "model"), options, "model-hash", err);
    if (status == SAP_OK)
        status = sap_path_join(partial, SAP_RUN_OPTIONS, path, err);
    if (status != SAP_OK)
        goto done;
    if (sap_path_exists(path)) {
        status = sap_json_load(path, &before, err);
        const char *key = status == SAP_OK ? find_difference(options, before) : NULL;
        if (status == SAP_OK && !key)
            key = find_difference(before, options); /* an option that is not given any more */
        if (key)
            status = sap_error_set(
                err, SAP_EARGUMENT,
                "%s holds an interrupted run with other options (%s differs): give the same ones to take it "
                "up again, or remove that folder to start over",
                partial, key);
    } else {
        status = sap_folder_make(partial, err);
        if (status == SAP_OK)
            status = sap_json_store(options, path, err);
    }
done:
    json_decref(options);
    json_decref(before);
    return status;
}

static json_t *describe_epoch(const sap_epoch *epoch) {
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "epoch", (json_int_t)epoch->epoch, "loss",
                     sap_json_number(epoch->loss), "accuracy", sap_json_number(epoch->accuracy), "validation_loss",
                     sap_json_number(epoch->validation_loss), "validation_accuracy",
                     sap_json_number(epoch->validation_accuracy), "seconds", sap_json_number(epoch->seconds));
}

/* Writes what the run folder holds besides the checkpoint. */
static sap_status store(const char *partial, const sap_model *model, const sap_dataset *dataset,
                        const sap_epoch *history, int64_t count, json_t **epochs, sap_error *err) {
    char path[PATH_BYTES];
    *epochs = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(*epochs, describe_epoch(&history[i]));
    SAP_TRY(sap_path_join(partial, SAP_RUN_HISTORY, path, err));
    SAP_TRY(sap_json_store(*epochs, path, err));
    SAP_TRY(sap_path_join(partial, SAP_RUN_SCALER, path, err));
    const char *text = sap_dataset_json(dataset);
    SAP_TRY(sap_file_store(path, text, strlen(text), err));
    SAP_TRY(sap_path_join(partial, SAP_RUN_MODEL, path, err));
    return sap_model_write(model, path, err);
}

static sap_status train_model(const sap_stage *stage, const char *partial, sap_model *model, sap_feed *train,
                              sap_feed *validation, const sap_run *run, sap_epoch *history, int64_t *count,
                              sap_error *err) {
    char checkpoint[PATH_BYTES];
    SAP_TRY(sap_path_join(partial, CHECKPOINT, checkpoint, err));
    bool sgd = strcmp(sap_stage_text(stage, "optimizer"), "sgd") == 0;
    sap_train_options options = {
        .epochs = (int64_t)sap_stage_count(stage, "epochs"),
        .batch = (int64_t)sap_stage_count(stage, "batch"),
        .seed = sap_stage_count(stage, "seed"),
        .optimizer = {.kind = sgd ? SAP_OPTIMIZER_SGD : SAP_OPTIMIZER_ADAM,
                      .learning_rate = sap_stage_real(stage, "learning-rate"),
                      .momentum = sgd ? sap_stage_real(stage, "momentum") : 0},
        .checkpoint = checkpoint,
    };
    return sap_train(model, &options, train, validation, run, history, count, err);
}

/* The run folder takes its name. The checkpoint goes at the very end: whatever failed before, nothing is trained again. */
static sap_status finish(const char *partial, const char *out, sap_error *err) {
    char checkpoint[PATH_BYTES];
    SAP_TRY(sap_path_join(partial, CHECKPOINT, checkpoint, err));
    if (remove(checkpoint) != 0 && errno != ENOENT)
        return sap_error_errno(err, checkpoint);
    return rename(partial, out) == 0 ? SAP_OK : sap_error_errno(err, out);
}

sap_status sap_train_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err) {
    const char *data = sap_stage_text(stage, "data"), *path = sap_stage_text(stage, "model"),
               *out = sap_stage_text(stage, "out");
    uint64_t epochs = sap_stage_count(stage, "epochs"), batch = sap_stage_count(stage, "batch");
    if (epochs < 1 || epochs > 1000000 || batch < 1 || batch > 1u << 24)
        return sap_error_set(err, SAP_EARGUMENT, "train: --epochs should be 1 to 1000000 and --batch 1 to %u",
                             1u << 24);
    if (sap_stage_text(stage, "learning-rate") && !(sap_stage_real(stage, "learning-rate") > 0))
        return sap_error_set(err, SAP_EARGUMENT, "train: --learning-rate should be above 0");
    sap_dataset *dataset = NULL;
    sap_model *model = NULL;
    sap_feed *train = NULL, *validation = NULL;
    const char **inputs = NULL;
    sap_epoch *history = calloc(epochs, sizeof *history);
    int64_t count = 0;
    json_t *described = NULL;
    char partial[PATH_BYTES];
    (void)snprintf(partial, sizeof partial, "%s.partial", out);
    sap_status status = history ? sap_dataset_open(data, &dataset, err) : sap_error_memory(err, "history");
    if (status == SAP_OK)
        status = sap_model_open(path, sap_stage_count(stage, "seed"), &model, err);
    if (status == SAP_OK && sap_stage_switch(stage, "fresh"))
        status = sap_model_reset(model, sap_stage_count(stage, "seed"), err);
    if (status == SAP_OK)
        status = check_output(model, dataset, path, err);
    if (status != SAP_OK)
        goto done;
    size_t input_count = sap_model_input_count(model);
    inputs = calloc(input_count + 1, sizeof(const char *));
    sap_feed_options feed = {.inputs = inputs, .input_count = input_count};
    status = inputs ? sap_model_features(model, dataset, path, inputs, err) : sap_error_memory(err, path);
    if (status == SAP_OK)
        status = sap_feed_open_dataset(dataset, "train", &feed, run, &train, err);
    if (status == SAP_OK && sap_stage_switch(stage, "validation") && sap_dataset_rows(dataset, "test") > 0)
        status = sap_feed_open_dataset(dataset, "test", &feed, run, &validation, err);
    if (status == SAP_OK)
        status = begin(stage, out, partial, err);
    if (status == SAP_OK)
        status = train_model(stage, partial, model, train, validation, run, history, &count, err);
    if (status == SAP_OK)
        status = store(partial, model, dataset, history, count, &described, err);
    if (status == SAP_OK)
        status = finish(partial, out, err);
    if (status == SAP_OK)
        *result =
            json_pack("{s:s, s:I, s:I, s:O}", "out", out, "parameters", (json_int_t)sap_model_parameter_count(model),
                      "events", (json_int_t)sap_feed_rows(train), "history", described);
done:
    json_decref(described);
    sap_feed_close(train);
    sap_feed_close(validation);
    sap_model_close(model);
    sap_dataset_close(dataset);
    free(inputs);
    free(history);
    return status;
}
