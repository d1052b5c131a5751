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
    static const char *const names[] = {"out", "resume", "checkpoint-every", "timeout", NULL};
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

/* ---- The whole -------------------------------------------------------------------------------------------------- */

/* A training under way, on one of the ranks that share it. */
typedef struct work {
    const sap_stage *stage;
    const char *path, *out;
    sap_run run; /* of this rank */
    sap_comm *comm;
    sap_model *model;
    sap_dataset *dataset;
    sap_feed *train, *validation;
    const char **inputs;
    sap_train_settings settings;
    sap_history history;
    json_t *described;
    int lock;
    char partial[PATH_BYTES], checkpoint[PATH_BYTES];
} work;

/* Only rank 0 reports progress; and what ranks do together is cancelled between two steps. */
static sap_status open_ranks(work *w, const sap_run *run, sap_error *err) {
    sap_comm_options options = {.timeout = sap_stage_real(w->stage, "timeout")};
    SAP_TRY(sap_comm_open(&options, &w->comm, err));
    w->run = run ? *run : (sap_run){0};
    if (sap_comm_rank(w->comm) > 0)
        w->run.progress = NULL;
    return SAP_OK;
}

static sap_status open_feeds(work *w, sap_error *err) {
    size_t count = sap_model_input_count(w->model);
    sap_run run = w->run;
    sap_feed_options feed = {.input_count = count, .weight = sap_stage_text(w->stage, "weight")};
    w->inputs = calloc(count + 1, sizeof(const char *));
    if (!w->inputs)
        return sap_error_memory(err, w->path);
    feed.inputs = w->inputs;
    if (sap_comm_size(w->comm) > 1)
        run.cancel = NULL;
    SAP_TRY(sap_model_features(w->model, w->dataset, w->path, w->inputs, err));
    if (sap_comm_size(w->comm) > 1)
        SAP_TRY(sap_train_shards(&w->settings.options, &feed.shard_from, &feed.shard_to, err));
    SAP_TRY(sap_feed_open_dataset(w->dataset, sap_data_split(w->dataset, "train"), &feed, &run, &w->train, err));
    feed.weight = NULL; /* validation tells how good every event is */
    if (!sap_stage_switch(w->stage, "validation") || sap_dataset_rows(w->dataset, "test") <= 0)
        return SAP_OK;
    return sap_feed_open_dataset(w->dataset, "test", &feed, &run, &w->validation, err);
}

static sap_status open_work(work *w, sap_error *err) {
    const sap_stage *stage = w->stage;
    SAP_TRY(sap_model_open(w->path, sap_stage_count(stage, "seed"), &w->model, err));
    SAP_TRY(sap_data_open(stage, w->model, &w->dataset, err));
    if (sap_stage_switch(stage, "fresh"))
        SAP_TRY(sap_model_reset(w->model, sap_stage_count(stage, "seed"), err));
    SAP_TRY(check_output(w->model, w->dataset, w->path, err));
    SAP_TRY(sap_train_settings_init(stage, w->model, w->dataset, &w->settings, err));
    w->settings.options.comm = w->comm;
    w->settings.options.checkpoint = w->checkpoint;
    SAP_TRY(open_feeds(w, err));
    return sap_comm_rank(w->comm) == 0 ? begin(stage, w->dataset, w->out, w->partial, &w->lock, err) : SAP_OK;
}

static sap_status store_work(work *w, sap_error *err) {
    SAP_TRY(store(w->partial, w->model, w->dataset, &w->history, &w->described, err));
    return finish(w->partial, w->out, err);
}

static sap_status run_work(work *w, sap_error *err) {
    SAP_TRY(sap_comm_agree(w->comm, open_work(w, err), err));
    SAP_TRY(sap_train(w->model, &w->settings.options, w->train, w->validation, &w->run, &w->history, err));
    return sap_comm_agree(w->comm, sap_comm_rank(w->comm) == 0 ? store_work(w, err) : SAP_OK, err);
}

static void release_work(work *w) {
    json_decref(w->described);
    sap_feed_close(w->train);
    sap_feed_close(w->validation);
    sap_model_close(w->model);
    sap_dataset_close(w->dataset);
    sap_history_release(&w->history);
    sap_train_settings_release(&w->settings);
    free(w->inputs);
    if (w->lock >= 0)
        close(w->lock);
}

/* The result is rank 0's. */
sap_status sap_train_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err) {
    work w = {.stage = stage, .path = sap_stage_text(stage, "model"), .out = sap_stage_text(stage, "out"), .lock = -1};
    SAP_TRY(sap_train_settings_check(stage, err));
    (void)snprintf(w.partial, sizeof w.partial, "%s.partial", w.out);
    SAP_TRY(sap_path_join(w.partial, CHECKPOINT, w.checkpoint, err));
    SAP_TRY(open_ranks(&w, run, err));
    sap_status status = run_work(&w, err);
    if (status != SAP_OK && sap_comm_size(w.comm) > 1 && err && strncmp(err->message, "rank ", 5) != 0)
        (void)sap_error_prefix(err, "%s", sap_comm_rank_name(w.comm, sap_comm_rank(w.comm)));
    if (status == SAP_OK && sap_comm_rank(w.comm) == 0)
        *result = json_pack("{s:s, s:I, s:I, s:O}", "out", w.out, "parameters",
                            (json_int_t)sap_model_parameter_count(w.model), "events",
                            (json_int_t)sap_feed_rows(w.train), "history", w.described);
    release_work(&w);
    sap_comm_close(w.comm, status != SAP_OK);
    return status;
}
