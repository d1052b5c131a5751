/* train: a network and a dataset into a run folder: the trained model, its history, and what it needs to be used. */
#include "train_settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#define CHECKPOINT "checkpoint" /* in the folder while it is OUT.partial */

static sap_status check_output(const sap_model *model, const sap_dataset *dataset, const char *where, sap_error *err) {
    const sap_tensor_info *output = sap_model_output(model, 0);
    size_t classes = sap_dataset_label_count(dataset);
    if (sap_model_output_count(model) > 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the network has %zu outputs; one, of classes, can be trained",
                             where, sap_model_output_count(model));
    if ((output->rank != 1 || output->shape[0] != (int64_t)classes) && !sap_model_is_binary(model, dataset))
        return sap_error_set(err, SAP_ETYPE,
                             "%s: the network's output \"%s\" has %lld numbers, the dataset has %zu classes (two may "
                             "share a single sigmoid)",
                             where, output->name, (long long)(output->rank ? output->shape[output->rank - 1] : 0),
                             classes);
    return SAP_OK;
}

/* Options that may be others when an interrupted run is taken up again. */
static bool is_free(const char *name) {
    static const char *const names[] = {"out", "resume", "checkpoint-every", NULL};
    bool found = false;
    for (size_t i = 0; names[i]; i++)
        found = found || strcmp(names[i], name) == 0;
    return found;
}

/* Everything that decides the result, to compare when an interrupted run is taken up again. */
static json_t *describe_options(const sap_stage *stage) {
    json_t *options = json_object();
    for (size_t i = 0; i < stage->kind->option_count; i++) {
        const sap_option *option = &stage->kind->options[i];
        const char *value = sap_stage_text(stage, option->name);
        if (!value || is_free(option->name))
            continue;
        if (!option->repeats) {
            json_object_set_new(options, option->name, json_string(value));
            continue;
        }
        json_t *values = json_array();
        for (size_t k = 0; k < stage->count; k++)
            if (stage->settings[k].option == option)
                json_array_append_new(values, json_string(stage->settings[k].value));
        json_object_set_new(options, option->name, values);
    }
    return options;
}

/* One training at a time works in a folder: the lock is on the folder itself, and ends with the process. Where the file
 * system has no locks there is none. */
static sap_status lock_folder(const char *folder, int *lock, sap_error *err) {
    *lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0)
        return sap_error_errno(err, folder);
    if (flock(*lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return sap_error_set(err, SAP_EARGUMENT, "%s: another training is at work there", folder);
    return SAP_OK;
}

/* A hash as text, so that a changed input is noticed. */
static void add_hash(json_t *into, const char *key, const char *bytes, size_t length) {
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)sap_hash(bytes, length, 0));
    json_object_set_new(into, key, json_string(text));
}

static sap_status file_hash(const char *path, json_t *into, const char *key, sap_error *err) {
    char *bytes;
    size_t length;
    SAP_TRY(sap_file_load(path, (size_t)1 << 32, &bytes, &length, err));
    add_hash(into, key, bytes, length);
    free(bytes);
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
static sap_status begin(const sap_stage *stage, const sap_dataset *dataset, const char *out, const char *partial,
                        int *lock, sap_error *err) {
    char path[PATH_BYTES];
    if (sap_path_exists(out))
        return sap_error_set(err, SAP_EARGUMENT, "%s exists already: choose another --out, or remove it", out);
    if (sap_stage_switch(stage, "resume") && !sap_path_exists(partial))
        return sap_error_set(err, SAP_ENOTFOUND, "%s: there is no interrupted training to go on with", partial);
    SAP_TRY(sap_folder_make(partial, err));
    SAP_TRY(lock_folder(partial, lock, err));
    json_t *options = describe_options(stage), *before = NULL;
    const char *text = sap_dataset_json(dataset);
    add_hash(options, "data-hash", text, strlen(text));
    sap_status status = file_hash(sap_stage_text(stage, "model"), options, "model-hash", err);
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
        status = sap_json_store(options, path, err);
    }
done:
    json_decref(options);
    json_decref(before);
    return status;
}

/* "val_" is written out. What was not measured is null; without a validation set, all of it. */
static json_t *describe_epoch(const sap_history *history, int64_t epoch) {
    json_t *object = json_pack("{s:I}", "epoch", (json_int_t)(history->first + epoch + 1));
    for (int32_t i = 0; i < history->count; i++) {
        char name[300];
        bool validation = strncmp(history->names[i], "val_", 4) == 0;
        (void)snprintf(name, sizeof name, "%s%s", validation ? "validation_" : "", history->names[i] + 4 * validation);
        json_object_set_new(object, name, sap_json_number(history->values[epoch * history->count + i]));
        (void)snprintf(name, sizeof name, "validation_%s", history->names[i]);
        if (!validation && strcmp(history->names[i], "learning_rate") != 0 && !json_object_get(object, name))
            json_object_set_new(object, name, json_null());
    }
    json_object_set_new(object, "seconds", sap_json_number(history->seconds[epoch]));
    return object;
}

/* Writes what the run folder holds besides the checkpoint. */
static sap_status store(const char *partial, const sap_model *model, const sap_dataset *dataset,
                        const sap_history *history, json_t **epochs, sap_error *err) {
    char path[PATH_BYTES];
    *epochs = json_array();
    for (int64_t i = 0; i < history->epochs; i++)
        json_array_append_new(*epochs, describe_epoch(history, i));
    SAP_TRY(sap_path_join(partial, SAP_RUN_HISTORY, path, err));
    SAP_TRY(sap_json_store(*epochs, path, err));
    SAP_TRY(sap_path_join(partial, SAP_RUN_SCALER, path, err));
    const char *text = sap_dataset_json(dataset);
    SAP_TRY(sap_file_store(path, text, strlen(text), err));
    SAP_TRY(sap_path_join(partial, SAP_RUN_MODEL, path, err));
    return sap_model_write(model, path, err);
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
    const char *path = sap_stage_text(stage, "model"), *out = sap_stage_text(stage, "out");
    SAP_TRY(sap_train_settings_check(stage, err));
    sap_dataset *dataset = NULL;
    sap_model *model = NULL;
    sap_feed *train = NULL, *validation = NULL;
    const char **inputs = NULL;
    sap_train_settings settings = {0};
    sap_history history = {0};
    json_t *described = NULL;
    int lock = -1;
    char partial[PATH_BYTES], checkpoint[PATH_BYTES];
    (void)snprintf(partial, sizeof partial, "%s.partial", out);
    SAP_TRY(sap_path_join(partial, CHECKPOINT, checkpoint, err));
    sap_status status = sap_model_open(path, sap_stage_count(stage, "seed"), &model, err);
    if (status == SAP_OK)
        status = sap_data_open(stage, model, &dataset, err);
    if (status == SAP_OK && sap_stage_switch(stage, "fresh"))
        status = sap_model_reset(model, sap_stage_count(stage, "seed"), err);
    if (status == SAP_OK)
        status = check_output(model, dataset, path, err);
    if (status == SAP_OK)
        status = sap_train_settings_init(stage, model, dataset, &settings, err);
    if (status != SAP_OK)
        goto done;
    size_t input_count = sap_model_input_count(model);
    inputs = calloc(input_count + 1, sizeof(const char *));
    sap_feed_options feed = {.inputs = inputs, .input_count = input_count, .weight = sap_stage_text(stage, "weight")};
    status = inputs ? sap_model_features(model, dataset, path, inputs, err) : sap_error_memory(err, path);
    if (status == SAP_OK)
        status = sap_feed_open_dataset(dataset, sap_data_split(dataset, "train"), &feed, run, &train, err);
    feed.weight = NULL; /* validation tells how good every event is */
    if (status == SAP_OK && sap_stage_switch(stage, "validation") && sap_dataset_rows(dataset, "test") > 0)
        status = sap_feed_open_dataset(dataset, "test", &feed, run, &validation, err);
    if (status == SAP_OK)
        status = begin(stage, dataset, out, partial, &lock, err);
    settings.options.checkpoint = checkpoint;
    if (status == SAP_OK)
        status = sap_train(model, &settings.options, train, validation, run, &history, err);
    if (status == SAP_OK)
        status = store(partial, model, dataset, &history, &described, err);
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
    sap_history_release(&history);
    sap_train_settings_release(&settings);
    free(inputs);
    if (lock >= 0)
        close(lock);
    return status;
}
