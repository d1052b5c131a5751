/* Writing checkpoints of a training, and going on from one. */
#include "checkpoint.h"

#include <math.h>
#include <stdlib.h>

static const char magic[8] = {'S', 'A', 'P', 'C', 'K', 'P', 'T', '1'};
enum { HEAD_BYTES = 16, TAIL_BYTES = 4, ARRAYS_MOST = 128 };
#define CHECKPOINT_MOST ((size_t)64 << 30)

/* ---- What the training was asked to do ------------------------------------------------------------------ */

/* JSON has no NaN: null stands for it. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static double number_value(const json_t *value) {
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static int64_t integer_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static json_t *hexadecimal(uint64_t value) { /* JSON's integers are signed */
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return json_string(text);
}

static json_t *numbers(const double *values, int64_t count) {
    json_t *array = json_array();
    for (int64_t i = 0; values && i < count; i++)
        json_array_append_new(array, number(values[i]));
    return array;
}

static json_t *describe_schedule(const sap_schedule *s) {
    int32_t boundaries = s->kind == SAP_SCHEDULE_PIECEWISE ? s->boundary_count : -1;
    return json_pack("{s:i, s:f, s:f, s:b, s:f, s:f, s:b, s:f, s:o, s:o, s:f, s:f}", "kind", (int)s->kind,
                     "decay_steps", s->decay_steps, "decay_rate", s->decay_rate, "staircase", (int)s->staircase,
                     "end_learning_rate", s->end_learning_rate, "power", s->power, "cycle", (int)s->cycle, "alpha",
                     s->alpha, "boundaries", numbers(s->boundaries, boundaries), "values",
                     numbers(s->values, boundaries + 1), "warmup_steps", s->warmup_steps, "warmup_from",
                     s->warmup_from);
}

static json_t *describe_optimizer(const sap_optimizer *o) {
    json_t *except = json_array();
    for (size_t i = 0; i < o->decay_except_count; i++)
        json_array_append_new(except, json_string(o->decay_except[i]));
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:b, s:f, s:b, s:f, s:o, s:f, s:f, s:f, s:f, s:I, s:o}", "kind",
                     (int)o->kind, "learning_rate", o->learning_rate, "beta_1", o->beta_1, "beta_2", o->beta_2,
                     "epsilon", o->epsilon, "amsgrad", (int)o->amsgrad, "momentum", o->momentum, "nesterov",
                     (int)o->nesterov, "weight_decay", o->weight_decay, "decay_except", except, "clipnorm", o->clipnorm,
                     "clipvalue", o->clipvalue, "global_clipnorm", o->global_clipnorm, "ema_momentum", o->ema_momentum,
                     "ema_overwrite_frequency", (json_int_t)o->ema_overwrite_frequency, "schedule",
                     describe_schedule(&o->schedule));
}

static json_t *describe_losses(const sap_training *t) {
    json_t *losses = json_array();
    for (int32_t o = 0; o < t->model->output_count; o++) {
        const sap_loss *loss = &t->losses[o];
        json_array_append_new(losses, json_pack("{s:s, s:b, s:f, s:f, s:f, s:o}", "kind", sap_loss_name(loss->kind),
                                                "from_logits", (int)loss->from_logits, "label_smoothing",
                                                loss->label_smoothing, "delta", loss->delta, "weight", loss->weight,
                                                "class_weight", numbers(loss->class_weight, loss->class_count)));
    }
    return losses;
}

/* Paths are left out: where files go does not change what comes out. */
static json_t *describe_callbacks(const sap_callbacks *callbacks) {
    json_t *list = json_array();
    for (size_t i = 0; i < callbacks->count; i++) {
        const sap_callback *s = &callbacks->items[i].settings;
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:f, s:I, s:b, s:f, s:b, s:I, s:f, s:I, s:f, s:b}",
                                              "kind", sap_callback_name(s->kind), "monitor", s->monitor, "mode",
                                              (int)s->mode, "min_delta", s->min_delta, "patience",
                                              (json_int_t)s->patience, "has_baseline", (int)s->has_baseline, "baseline",
                                              s->baseline, "restore_best_weights", (int)s->restore_best_weights,
                                              "start_from_epoch", (json_int_t)s->start_from_epoch, "factor", s->factor,
                                              "cooldown", (json_int_t)s->cooldown, "min_learning_rate",
                                              s->min_learning_rate, "save_best_only", (int)s->save_best_only));
    }
    return list;
}

/* Everything that decides the result but the number of epochs, which may grow. */
static json_t *describe_training(const sap_training *t) {
    const sap_train_options *o = t->options;
    return json_pack("{s:o, s:I, s:I, s:I, s:o, s:b, s:b, s:I, s:o, s:b, s:o, s:o, s:I, s:I, s:o}", "network",
                     hexadecimal(sap_hash(t->model->config, t->model->config_length, 0)), "initial_epoch",
                     (json_int_t)o->initial_epoch, "batch", (json_int_t)o->batch, "steps_per_epoch",
                     (json_int_t)o->steps_per_epoch, "seed", hexadecimal(o->seed), "in_order", (int)o->in_order,
                     "deterministic", (int)o->deterministic, "validation_freq", (json_int_t)o->validation_freq,
                     "losses", describe_losses(t), "auc", (int)o->auc, "optimizer",
                     describe_optimizer(&t->model->optimizer.settings), "callbacks", describe_callbacks(&t->callbacks),
                     "rows", (json_int_t)t->rows, "validation_rows", (json_int_t)t->validation_rows, "initial_weights",
                     hexadecimal(t->initial));
}

uint64_t sap_training_hash(const sap_training *t) {
    json_t *described = describe_training(t);
    char *text = described ? json_dumps(described, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    uint64_t hash = text ? sap_hash(text, strlen(text), 0) : 0;
    free(text);
    json_decref(described);
    return hash;
}

static sap_status check_training(const sap_training *t, const json_t *stored, sap_error *err) {
    json_t *wanted = describe_training(t), *value;
    const char *name;
    sap_status status = wanted ? SAP_OK : sap_error_memory(err, t->options->checkpoint);
    json_object_foreach(wanted, name, value) {
        if (status == SAP_OK && !json_equal(value, json_object_get(stored, name)))
            status = sap_error_set(err, SAP_EARGUMENT,
                                   "%s: is the checkpoint of another training (\"%s\" differs): give the same "
                                   "arguments, or remove it to start over",
                                   t->options->checkpoint, name);
    }
    json_decref(wanted);
    return status;
}

/* ---- The arrays ----------------------------------------------------------------------------------------- */

typedef struct part {
    char name[32];
    void *data;
    size_t bytes;
} part;

/* The arrays whose sizes the training itself decides. Those of callbacks are made where they are missing, if `make`. */
static size_t list_fixed(sap_training *t, bool make, part parts[], bool *failed) {
    sap_model *model = t->model;
    size_t count = 0;
    parts[count++] = (part){"weights", model->values, (size_t)model->value_count * sizeof(float)};
    parts[count++] = (part){"tally", &t->position.tally, sizeof t->position.tally};
    for (int i = 0; i < SAP_SLOTS; i++) {
        if (!model->optimizer.slots[i])
            continue;
        parts[count] = (part){"", model->optimizer.slots[i], (size_t)model->optimizer.count * sizeof(float)};
        (void)snprintf(parts[count++].name, sizeof parts->name, "slot %d", i);
    }
    for (size_t i = 0; i < t->callbacks.count; i++) {
        sap_callback_state *own = &t->callbacks.items[i];
        bool wanted = make && own->settings.restore_best_weights;
        if (wanted && !own->best_weights)
            own->best_weights = malloc(parts[0].bytes + 1);
        *failed = *failed || (wanted && !own->best_weights);
        if (!own->best_weights)
            continue;
        parts[count] = (part){"", own->best_weights, parts[0].bytes};
        (void)snprintf(parts[count++].name, sizeof parts->name, "best %zu", i);
    }
    return count;
}

static size_t list_scores(sap_training *t, part parts[]) {
    size_t count = 0;
    for (int32_t o = 0; o < t->model->output_count; o++) {
        sap_scores *s = &t->position.scores[o];
        if (s->count == 0)
            continue;
        parts[count] = (part){"", s->score, (size_t)s->count * sizeof *s->score};
        (void)snprintf(parts[count++].name, sizeof parts->name, "score %d", o);
        parts[count] = (part){"", s->positive, (size_t)s->count};
        (void)snprintf(parts[count++].name, sizeof parts->name, "positive %d", o);
    }
    return count;
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

static json_t *describe_history(const sap_history *h) {
    json_t *names = json_array();
    for (int32_t i = 0; i < h->count; i++)
        json_array_append_new(names, json_string(h->names[i]));
    return json_pack("{s:o, s:I, s:o, s:o, s:o}", "names", names, "epochs", (json_int_t)h->epochs, "values",
                     numbers(h->values, h->epochs * h->count), "seconds", numbers(h->seconds, h->epochs), "ended",
                     numbers(h->ended, h->epochs));
}

static json_t *describe_states(const sap_callbacks *callbacks) {
    json_t *list = json_array();
    for (size_t i = 0; i < callbacks->count; i++) {
        const sap_callback_state *own = &callbacks->items[i];
        json_array_append_new(list, json_pack("{s:I, s:I, s:b, s:o, s:I}", "wait", (json_int_t)own->wait, "cooldown",
                                              (json_int_t)own->cooldown, "has_best", (int)own->has_best, "best",
                                              number(own->best), "best_epoch", (json_int_t)own->best_epoch));
    }
    return list;
}

static char *describe(const sap_training *t, const part *parts, size_t count) {
    json_t *arrays = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(arrays, json_pack("[s, I]", parts[i].name, (json_int_t)parts[i].bytes));
    const sap_position *at = &t->position;
    json_t *root = json_pack("{s:s, s:o, s:{s:I, s:I, s:f}, s:{s:I, s:f}, s:o, s:b, s:o, s:o}", "sapwood",
                             sap_version(), "training", describe_training(t), "position", "epoch",
                             (json_int_t)at->epoch, "step", (json_int_t)at->step, "seconds", at->seconds, "optimizer",
                             "iteration", (json_int_t)t->model->optimizer.iteration, "learning_rate",
                             t->model->optimizer.learning_rate, "callbacks", describe_states(&t->callbacks), "stop",
                             (int)t->callbacks.stop, "history", describe_history(t->history), "arrays", arrays);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return text;
}

sap_status sap_checkpoint_write(const sap_training *training, sap_error *err) {
    const char *path = training->options->checkpoint;
    sap_training *t = (sap_training *)(uintptr_t)training; /* the parts point into it, and are only read here */
    bool failed = false;
    part *parts = calloc(ARRAYS_MOST, sizeof *parts);
    size_t count = parts ? list_fixed(t, false, parts, &failed) : 0;
    count += parts ? list_scores(t, parts + count) : 0;
    char *json = parts ? describe(t, parts, count) : NULL, *bytes = NULL;
    uint64_t json_length = json ? strlen(json) : 0;
    size_t length = HEAD_BYTES + (size_t)json_length + TAIL_BYTES, at = 0;
    for (size_t i = 0; i < count; i++)
        length += parts[i].bytes;
    sap_status status = SAP_OK;
    if (!json || !(bytes = malloc(length))) {
        status = sap_error_memory(err, path);
        goto done;
    }
    memcpy(bytes, magic, sizeof magic);
    memcpy(bytes + sizeof magic, &json_length, sizeof json_length);
    memcpy(bytes + HEAD_BYTES, json, json_length);
    at = HEAD_BYTES + json_length;
    for (size_t i = 0; i < count; i++) {
        memcpy(bytes + at, parts[i].data, parts[i].bytes);
        at += parts[i].bytes;
    }
    uint32_t crc = sap_crc32c(0, bytes, at);
    memcpy(bytes + at, &crc, sizeof crc);
    status = sap_file_store(path, bytes, length, err);
done:
    free(bytes);
    free(json);
    free(parts);
    return status;
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

static sap_status broken(const char *path, const char *what, sap_error *err) {
    return sap_error_set(err, SAP_EFORMAT, "%s: is not a whole checkpoint: %s", path, what);
}

/* Checks the frame of the file and gives its JSON and where the arrays are. */
static sap_status open_frame(const char *path, const char *bytes, size_t length, json_t **root, const char **arrays,
                             size_t *arrays_length, sap_error *err) {
    uint64_t json_length;
    uint32_t crc;
    if (length < HEAD_BYTES + TAIL_BYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return broken(path, "it does not begin like one", err);
    memcpy(&json_length, bytes + sizeof magic, sizeof json_length);
    memcpy(&crc, bytes + length - TAIL_BYTES, sizeof crc);
    if (json_length > length - HEAD_BYTES - TAIL_BYTES)
        return broken(path, "its description is cut", err);
    if (crc != sap_crc32c(0, bytes, length - TAIL_BYTES))
        return broken(path, "its checksum differs", err);
    *root = json_loadb(bytes + HEAD_BYTES, (size_t)json_length, 0, NULL);
    if (!*root)
        return broken(path, "its description is no JSON", err);
    *arrays = bytes + HEAD_BYTES + json_length;
    *arrays_length = length - HEAD_BYTES - TAIL_BYTES - (size_t)json_length;
    return SAP_OK;
}

static void read_numbers(const json_t *array, double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        values[i] = number_value(json_array_get(array, (size_t)i));
}

static sap_status read_history(const char *path, const json_t *stored, sap_history *h, sap_error *err) {
    const json_t *names = json_object_get(stored, "names"), *values = json_object_get(stored, "values");
    int64_t epochs = integer_of(stored, "epochs");
    if (json_array_size(names) != (size_t)h->count || epochs < 0 ||
        json_array_size(values) != (size_t)epochs * (size_t)h->count ||
        json_array_size(json_object_get(stored, "seconds")) != (size_t)epochs)
        return broken(path, "its history has other names", err);
    for (int64_t e = 0; e < epochs; e++)
        SAP_TRY(sap_history_grow(h, err));
    read_numbers(values, h->values, epochs * h->count);
    read_numbers(json_object_get(stored, "seconds"), h->seconds, epochs);
    read_numbers(json_object_get(stored, "ended"), h->ended, epochs);
    return SAP_OK;
}

static void read_states(const json_t *list, sap_callbacks *callbacks) {
    for (size_t i = 0; i < callbacks->count; i++) {
        const json_t *stored = json_array_get(list, i);
        sap_callback_state *own = &callbacks->items[i];
        own->wait = integer_of(stored, "wait");
        own->cooldown = integer_of(stored, "cooldown");
        own->has_best = json_is_true(json_object_get(stored, "has_best"));
        own->best = number_value(json_object_get(stored, "best"));
        own->best_epoch = integer_of(stored, "best_epoch");
    }
}

/* Where an array of the file is to go. */
static part *find_part(part *parts, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(parts[i].name, name) == 0)
            return &parts[i];
    return NULL;
}

/* Scores are as many as the file has. */
static sap_status make_scores(sap_training *t, const char *name, size_t bytes, part *out, sap_error *err) {
    int output = -1;
    bool score = sscanf(name, "score %d", &output) == 1;
    if ((!score && sscanf(name, "positive %d", &output) != 1) || output < 0 || output >= t->model->output_count)
        return broken(t->options->checkpoint, "it has an array that this training has not", err);
    sap_scores *s = &t->position.scores[output];
    int64_t count = (int64_t)(score ? bytes / sizeof *s->score : bytes);
    if (score)
        SAP_TRY(sap_scores_reserve(s, count, err));
    if (count > s->capacity)
        return broken(t->options->checkpoint, "its scores do not fit together", err);
    s->count = count;
    *out = (part){"", score ? (void *)s->score : (void *)s->positive,
                  (size_t)count * (score ? sizeof *s->score : sizeof *s->positive)};
    return SAP_OK;
}

static sap_status read_arrays(sap_training *t, const json_t *list, const char *bytes, size_t length, sap_error *err) {
    const char *path = t->options->checkpoint;
    bool failed = false;
    part *parts = calloc(ARRAYS_MOST, sizeof *parts);
    if (!parts)
        return sap_error_memory(err, path);
    size_t count = list_fixed(t, true, parts, &failed), at = 0, i;
    uint64_t filled = 0;
    const json_t *entry;
    sap_status status = failed ? sap_error_memory(err, path) : SAP_OK;
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_array_get(entry, 0));
        json_int_t size = json_integer_value(json_array_get(entry, 1));
        if (status != SAP_OK)
            break;
        if (!name || size < 0 || (uint64_t)size > length - at) {
            status = broken(path, "an array is cut", err);
            break;
        }
        part *to = find_part(parts, count, name), scores;
        if (to && (size_t)(to - parts) < 64)
            filled |= UINT64_C(1) << (to - parts);
        if (!to) {
            status = make_scores(t, name, (size_t)size, &scores, err);
            to = &scores;
        }
        if (status == SAP_OK && to->bytes != (size_t)size)
            status = broken(path, "an array has another size", err);
        if (status == SAP_OK && size > 0)
            memcpy(to->data, bytes + at, (size_t)size);
        at += (size_t)size;
    }
    for (size_t k = 0; status == SAP_OK && k < count; k++) {
        int callback = -1;
        if (filled >> k & 1)
            continue;
        if (sscanf(parts[k].name, "best %d", &callback) != 1) {
            status = broken(path, "an array is not there", err);
            break;
        }
        free(t->callbacks.items[callback].best_weights);
        t->callbacks.items[callback].best_weights = NULL;
    }
    free(parts);
    return status;
}

/* Rank 0 reads the file, if there is one, and hands it to the others. *bytes NULL: there is none. */
static sap_status load(const char *path, sap_comm *comm, char **bytes, size_t *length, sap_error *err) {
    sap_status status = SAP_OK;
    *bytes = NULL;
    *length = 0;
    if (sap_comm_rank(comm) == 0 && sap_path_exists(path))
        status = sap_file_load(path, CHECKPOINT_MOST, bytes, length, err);
    if (status == SAP_OK || sap_comm_size(comm) > 1)
        status = sap_comm_agree(comm, status, err);
    if (status == SAP_OK)
        status = sap_comm_broadcast(comm, length, sizeof *length, err);
    if (status == SAP_OK && sap_comm_rank(comm) > 0 && *length > 0 && !(*bytes = malloc(*length)))
        status = sap_error_memory(err, path);
    return status == SAP_OK && *length > 0 ? sap_comm_broadcast(comm, *bytes, *length, err) : status;
}

/* The sums of the epoch under way are rank 0's to go on with. */
static void leave_to_first(sap_training *t) {
    if (sap_comm_rank(t->options->comm) == 0)
        return;
    t->position.tally = (sap_tally){0};
    for (int32_t o = 0; o < SAP_OUTPUTS; o++)
        t->position.scores[o].count = 0;
}

sap_status sap_checkpoint_read(sap_training *t, bool *found, sap_error *err) {
    const char *path = t->options->checkpoint;
    char *bytes = NULL;
    const char *arrays = NULL;
    size_t length = 0, arrays_length = 0;
    json_t *root = NULL;
    sap_status status = load(path, t->options->comm, &bytes, &length, err);
    *found = status == SAP_OK && bytes;
    if (!*found) {
        free(bytes);
        return status;
    }
    status = open_frame(path, bytes, length, &root, &arrays, &arrays_length, err);
    if (status == SAP_OK)
        status = check_training(t, json_object_get(root, "training"), err);
    const json_t *at = json_object_get(root, "position"), *optimizer = json_object_get(root, "optimizer");
    t->position.epoch = integer_of(at, "epoch");
    t->position.step = integer_of(at, "step");
    t->position.seconds = number_value(json_object_get(at, "seconds"));
    if (status == SAP_OK && t->position.epoch > t->options->epochs)
        status = sap_error_set(err, SAP_EARGUMENT, "%s: the checkpoint has %lld epochs, %lld were asked for", path,
                               (long long)t->position.epoch, (long long)t->options->epochs);
    if (status == SAP_OK && (t->position.epoch < t->options->initial_epoch || t->position.step < 0))
        status = broken(path, "its epochs make no sense", err);
    if (status == SAP_OK)
        status = read_history(path, json_object_get(root, "history"), t->history, err);
    if (status == SAP_OK)
        status = read_arrays(t, json_object_get(root, "arrays"), arrays, arrays_length, err);
    if (status == SAP_OK) {
        read_states(json_object_get(root, "callbacks"), &t->callbacks);
        t->callbacks.stop = json_is_true(json_object_get(root, "stop"));
        t->model->optimizer.iteration = integer_of(optimizer, "iteration");
        t->model->optimizer.learning_rate = number_value(json_object_get(optimizer, "learning_rate"));
        leave_to_first(t);
    }
    json_decref(root);
    free(bytes);
    return status;
}
