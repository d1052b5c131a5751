/* Writing checkpoints of a training, and going on from one. */
#include "checkpoint.h"

#include "keras_file.h"

#include <math.h>
#include <stdlib.h>

/* JSON has no NaN: null stands for it. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static double number_value(const json_t *value) {
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static json_t *hexadecimal(uint64_t value) { /* JSON's integers are signed */
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return json_string(text);
}

/* Everything that decides the result but the number of epochs, which may grow. */
static json_t *describe_key(const sap_checkpoint_key *key) {
    const sap_optimizer *o = key->optimizer;
    return json_pack("{s:I, s:o, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:b, s:I, s:I, s:o}", "batch",
                     (json_int_t)key->options->batch, "seed", hexadecimal(key->options->seed), "loss",
                     (int)key->options->loss, "optimizer", (int)o->kind, "learning_rate", o->learning_rate, "beta_1",
                     o->beta_1, "beta_2", o->beta_2, "epsilon", o->epsilon, "momentum", o->momentum, "nesterov",
                     (int)o->nesterov, "rows", (json_int_t)key->rows, "validation_rows",
                     (json_int_t)key->validation_rows, "initial_weights", hexadecimal(key->initial));
}

sap_status sap_checkpoint_write(const sap_model *model, const sap_checkpoint_key *key, const sap_epoch *history,
                                int64_t count, sap_error *err) {
    const char *path = key->options->checkpoint;
    json_t *epochs = json_array();
    for (int64_t i = 0; i < count; i++) {
        const sap_epoch *e = &history[i];
        json_array_append_new(epochs, json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "epoch", (json_int_t)e->epoch, "loss",
                                                number(e->loss), "accuracy", number(e->accuracy), "validation_loss",
                                                number(e->validation_loss), "validation_accuracy",
                                                number(e->validation_accuracy), "seconds", number(e->seconds)));
    }
    json_t *root =
        json_pack("{s:s, s:o, s:o}", "sapwood", sap_version(), "training", describe_key(key), "history", epochs);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    sap_status status = text ? sap_model_store(model, path, text, err) : sap_error_memory(err, path);
    free(text);
    json_decref(root);
    return status;
}

static sap_status check_key(const char *path, const json_t *training, const sap_checkpoint_key *key, sap_error *err) {
    json_t *wanted = describe_key(key), *value;
    const char *name;
    sap_status status = wanted ? SAP_OK : sap_error_memory(err, path);
    json_object_foreach(wanted, name, value) {
        if (status == SAP_OK && !json_equal(value, json_object_get(training, name)))
            status = sap_error_set(err, SAP_EARGUMENT,
                                   "%s: is the checkpoint of another training (\"%s\" differs): give the same "
                                   "arguments, or remove it to start over",
                                   path, name);
    }
    json_decref(wanted);
    return status;
}

static sap_status read_history(const char *path, const json_t *epochs, int64_t most, sap_epoch *history, int64_t *count,
                               sap_error *err) {
    size_t found = json_array_size(epochs);
    if (found < 1 || found > (uint64_t)most)
        return sap_error_set(err, found ? SAP_EARGUMENT : SAP_EFORMAT,
                             "%s: the checkpoint has %zu epochs, %lld were asked for", path, found, (long long)most);
    for (size_t i = 0; i < found; i++) {
        const json_t *e = json_array_get(epochs, i);
        history[i] = (sap_epoch){
            .epoch = (int64_t)i + 1,
            .loss = number_value(json_object_get(e, "loss")),
            .accuracy = number_value(json_object_get(e, "accuracy")),
            .validation_loss = number_value(json_object_get(e, "validation_loss")),
            .validation_accuracy = number_value(json_object_get(e, "validation_accuracy")),
            .seconds = number_value(json_object_get(e, "seconds")),
        };
    }
    *count = (int64_t)found;
    return SAP_OK;
}

sap_status sap_checkpoint_read(sap_model *model, const sap_checkpoint_key *key, sap_epoch *history, int64_t *count,
                               sap_error *err) {
    const char *path = key->options->checkpoint;
    *count = 0;
    if (!sap_path_exists(path))
        return SAP_OK;
    sap_arena arena = {0};
    sap_keras_file file = {0};
    json_t *root = NULL;
    sap_status status = sap_model_unpack(path, &arena, &file, err);
    if (status != SAP_OK)
        goto done;
    root = file.extra ? json_loads(file.extra, 0, NULL) : NULL;
    if (!root) {
        status =
            sap_error_set(err, SAP_EFORMAT, "%s: is not a checkpoint: it has no \"sapwood.json\" of a training", path);
        goto done;
    }
    if (file.config_length != model->config_length || memcmp(file.config, model->config, file.config_length) != 0) {
        status = sap_error_set(err, SAP_EARGUMENT, "%s: is the checkpoint of another network", path);
        goto done;
    }
    status = check_key(path, json_object_get(root, "training"), key, err);
    if (status == SAP_OK)
        status = read_history(path, json_object_get(root, "history"), key->options->epochs, history, count, err);
    if (status != SAP_OK)
        goto done;
    status = sap_model_fill(model, &file, err);
    if (status == SAP_OK)
        status = sap_model_fill_optimizer(model, &file, &model->optimizer, err);
    if (status != SAP_OK)
        status = sap_error_prefix(err, "%s", path);
done:
    json_decref(root);
    sap_arena_release(&arena);
    return status;
}
