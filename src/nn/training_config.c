/* compile_config, as Keras 3 writes it: an optimizer with its schedule, a loss for each output, metrics; and the state of the
 * optimizer in the file. */
#include "training_config.h"

#include <math.h>
#include <stdlib.h>

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The name of "adam", {"class_name": "Adam", "config": …} or {"class_name": "function", "config": "mse"}, and the settings. */
static const char *name_of(const json_t *value, const json_t **settings) {
    *settings = json_object_get(value, "config");
    if (json_is_string(value))
        return json_string_value(value);
    return json_is_string(*settings) ? json_string_value(*settings) : text_of(value, "class_name");
}

/* ---- Optimizers ----------------------------------------------------------------------------------------- */

static const struct {
    const char *class_name;
    sap_schedule_kind kind;
} schedules[] = {
    {"ExponentialDecay", SAP_SCHEDULE_EXPONENTIAL},     {"InverseTimeDecay", SAP_SCHEDULE_INVERSE_TIME},
    {"PolynomialDecay", SAP_SCHEDULE_POLYNOMIAL},       {"CosineDecay", SAP_SCHEDULE_COSINE},
    {"PiecewiseConstantDecay", SAP_SCHEDULE_PIECEWISE},
};

static const double *read_list(sap_arena *arena, const json_t *list, size_t *count) {
    *count = json_array_size(list);
    double *values = sap_arena_array(arena, *count + 1, sizeof *values);
    for (size_t i = 0; values && i < *count; i++)
        values[i] = json_number_value(json_array_get(list, i));
    return values;
}

static sap_status read_schedule(sap_model *model, const json_t *value, sap_optimizer *out, sap_error *err) {
    const json_t *s;
    const char *name = name_of(value, &s);
    sap_schedule *schedule = &out->schedule;
    size_t kind = 0, count = sizeof schedules / sizeof *schedules, boundaries, values;
    while (kind < count && strcmp(schedules[kind].class_name, name) != 0)
        kind++;
    if (kind == count)
        return sap_error_set(err, SAP_EUNSUPPORTED, "the learning rate follows a %.100s", name);
    *schedule = (sap_schedule){
        .kind = schedules[kind].kind,
        .decay_steps = sap_config_number(s, "decay_steps", 0),
        .decay_rate = sap_config_number(s, "decay_rate", 0),
        .staircase = sap_config_flag(s, "staircase", false),
        .end_learning_rate = sap_config_number(s, "end_learning_rate", 0),
        .power = sap_config_number(s, "power", 0),
        .cycle = sap_config_flag(s, "cycle", false),
        .alpha = sap_config_number(s, "alpha", 0),
        .warmup_steps = sap_config_number(s, "warmup_steps", 0),
    };
    out->learning_rate = sap_config_number(s, "initial_learning_rate", 0);
    if (schedule->warmup_steps > 0) {
        schedule->warmup_from = out->learning_rate;
        out->learning_rate = sap_config_number(s, "warmup_target", 0);
    }
    if (schedule->kind == SAP_SCHEDULE_PIECEWISE) {
        schedule->boundaries = read_list(&model->arena, json_object_get(s, "boundaries"), &boundaries);
        schedule->values = read_list(&model->arena, json_object_get(s, "values"), &values);
        if (!schedule->boundaries || !schedule->values)
            return sap_error_memory(err, model->name);
        if (values != boundaries + 1 || boundaries > INT32_MAX)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%zu learning rates for %zu boundaries", values, boundaries);
        schedule->boundary_count = (int32_t)boundaries;
        out->learning_rate = schedule->values[0];
    }
    return SAP_OK;
}

static sap_status read_optimizer(sap_model *model, const json_t *value, sap_optimizer *out, sap_error *err) {
    const json_t *s;
    const char *name = name_of(value, &s);
    *out = (sap_optimizer){0};
    SAP_TRY(sap_optimizer_find(name, &out->kind, err));
    out->learning_rate = sap_config_number(s, "learning_rate", 0);
    if (json_is_object(json_object_get(s, "learning_rate")))
        SAP_TRY(read_schedule(model, json_object_get(s, "learning_rate"), out, err));
    out->beta_1 = sap_config_number(s, "beta_1", 0);
    out->beta_2 = sap_config_number(s, "beta_2", 0);
    out->epsilon = sap_config_number(s, "epsilon", 0);
    out->amsgrad = sap_config_flag(s, "amsgrad", false);
    out->momentum = sap_config_number(s, "momentum", 0);
    out->nesterov = sap_config_flag(s, "nesterov", false);
    out->weight_decay = sap_config_number(s, "weight_decay", 0);
    out->clipnorm = sap_config_number(s, "clipnorm", 0);
    out->clipvalue = sap_config_number(s, "clipvalue", 0);
    out->global_clipnorm = sap_config_number(s, "global_clipnorm", 0);
    if (sap_config_flag(s, "use_ema", false)) {
        out->ema_momentum = sap_config_number(s, "ema_momentum", 0.99);
        out->ema_overwrite_frequency = (int64_t)sap_config_number(s, "ema_overwrite_frequency", 0);
    }
    static const char *const unknown[] = {"loss_scale_factor", "gradient_accumulation_steps"};
    for (size_t i = 0; i < 2; i++)
        if (json_is_number(json_object_get(s, unknown[i])))
            return sap_error_set(err, SAP_EUNSUPPORTED, "the optimizer has \"%s\"", unknown[i]);
    sap_optimizer given = *out;
    return sap_optimizer_check(&given, out, err);
}

/* ---- Losses --------------------------------------------------------------------------------------------- */

static sap_status read_loss(const json_t *value, sap_loss *out, sap_error *err) {
    const json_t *s;
    const char *name = name_of(value, &s);
    *out = (sap_loss){.kind = SAP_LOSS_NONE};
    if (!value || json_is_null(value))
        return SAP_OK;
    SAP_TRY(sap_loss_find(name, &out->kind, err));
    const char *reduction = text_of(s, "reduction");
    if (reduction[0] && strcmp(reduction, "sum_over_batch_size") != 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "the loss %.50s has the reduction %.50s", name, reduction);
    out->from_logits = sap_config_flag(s, "from_logits", false);
    out->label_smoothing = sap_config_number(s, "label_smoothing", 0);
    out->delta = sap_config_number(s, "delta", 0);
    sap_loss given = *out;
    return out->kind == SAP_LOSS_NONE ? SAP_OK : sap_loss_check(&given, out, err);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What `value` (one for all, a list, or a dictionary by the names of outputs) says of output o; ends: the model's
 * output_layers, by whose keys they may be named. */
static const json_t *of_output(const sap_model *model, const json_t *value, const json_t *ends, int32_t o) {
    bool one = json_is_object(value) && json_object_get(value, "class_name");
    if (json_is_array(value))
        return json_array_get(value, (size_t)o);
    if (!json_is_object(value) || one)
        return value;
    const json_t *found = json_object_get(value, model->output_names[o]);
    size_t count = json_object_size(ends), i = 0;
    if (found || count != (size_t)model->output_count)
        return found;
    const char **keys = calloc(count, sizeof *keys), *key;
    const json_t *end;
    json_object_foreach((json_t *)(uintptr_t)ends, key, end) {
        if (keys)
            keys[i++] = key;
    }
    if (keys) {
        qsort(keys, count, sizeof *keys, compare_keys);
        found = json_object_get(value, keys[o]);
    }
    free(keys);
    return found;
}

static sap_status read_losses(sap_model *model, const json_t *root, const json_t *compiled, sap_loss *losses,
                              sap_error *err) {
    const json_t *ends = json_object_get(json_object_get(root, "config"), "output_layers");
    const json_t *loss = json_object_get(compiled, "loss"), *weights = json_object_get(compiled, "loss_weights");
    for (int32_t o = 0; o < model->output_count; o++) {
        SAP_TRY(read_loss(of_output(model, loss, ends, o), &losses[o], err));
        const json_t *weight = of_output(model, weights, ends, o);
        losses[o].weight = json_is_number(weight) ? json_number_value(weight) : 1;
        if (losses[o].weight == 0)
            losses[o].kind = SAP_LOSS_NONE;
    }
    return SAP_OK;
}

/* ---- State ---------------------------------------------------------------------------------------------- */

/* Keras 2 lists first all momenta, then all velocities, without the learning rate; Keras 3 (and the last of Keras 2) both of a
 * weight together. Copies the listed arrays to the paths that Keras 3 gives them. */
static sap_status list_optimizer(const sap_model *model, const sap_keras_file *file, const sap_optimizer_state *state,
                                 sap_arena *arena, sap_keras_file *out, sap_error *err) {
    const sap_keras_names *list = sap_keras_file_list(file, "optimizer_weights");
    size_t count = list ? list->count : 0, weights = 0, slots = 0, at = 0;
    *out = (sap_keras_file){.arrays = sap_arena_array(arena, count + 1, sizeof *out->arrays)};
    if (!out->arrays)
        return sap_error_memory(err, model->name);
    for (int32_t i = 0; i < model->weight_count; i++)
        weights += model->weights[i].trainable;
    for (int slot = 0; slot < SAP_SLOTS; slot++)
        slots += state->slots[slot] != NULL;
    for (size_t i = 0; i < count; i++) {
        char path[1200];
        (void)snprintf(path, sizeof path, "optimizer_weights/%s", list->names[i]);
        const sap_keras_array *array = sap_keras_file_find(file, path);
        bool rate = i == 1 && array && array->rank == 0 && array->values;
        bool apart = count >= 2 && !strstr(list->names[1], "learning_rate") && !strstr(list->names[0], "iteration");
        if (!array || (i > 0 && array->rank == 0 && !rate)) /* Keras 2 without amsgrad: a 0 for each weight */
            continue;
        size_t place = i == 0 ? 0 : rate ? 1 : at;
        if (i > 0 && !rate) { /* number `at` of the slots */
            place = apart && slots == 2 && weights ? at % weights * 2 + at / weights : at;
            place += 2;
            at++;
        }
        sap_keras_array *copy = &out->arrays[out->array_count++];
        *copy = *array;
        copy->path = sap_arena_format(arena, "optimizer/vars/%zu", place);
        if (!copy->path)
            return sap_error_memory(err, model->name);
    }
    return SAP_OK;
}

/* Room for the optimizer's state, with the weights that decay. */
static sap_status open_state(const sap_model *model, const sap_optimizer *settings, sap_optimizer_state *state,
                             sap_error *err) {
    return sap_optimizer_init(state, settings, model->trainable_count, NULL, 0, err);
}

/* A state that does not fit (other weights were trainable then) is left out, as Keras does. */
static sap_status read_state(sap_model *model, const sap_keras_file *file, sap_error *err) {
    sap_arena arena = {0};
    sap_keras_file listed;
    sap_optimizer_state state = {0};
    sap_error own = {0};
    sap_status status = open_state(model, &model->training->optimizer, &state, err);
    if (status == SAP_OK && file->whole) {
        status = list_optimizer(model, file, &state, &arena, &listed, err);
        file = &listed;
    }
    if (status == SAP_OK && sap_model_fill_optimizer(model, file, &state, &own) == SAP_OK) {
        const sap_keras_array *rate = sap_keras_file_find(file, "optimizer/vars/1");
        if (!sap_optimizer_scheduled(&state) && rate && rate->rank == 0 && rate->values && rate->values[0] > 0)
            state.learning_rate = (double)rate->values[0];
        model->optimizer = state;
    } else {
        sap_optimizer_release(&state);
    }
    sap_arena_release(&arena);
    return status;
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

static sap_status read_compiled(sap_model *model, const json_t *root, sap_training_config **out, sap_error *err) {
    const json_t *compiled = json_object_get(root, "compile_config");
    *out = NULL;
    if (json_object_size(compiled) == 0 || json_is_null(json_object_get(compiled, "optimizer")))
        return SAP_OK;
    sap_training_config *made = sap_arena_alloc(&model->arena, sizeof *made);
    sap_loss *losses = sap_arena_array(&model->arena, (size_t)model->output_count, sizeof *losses);
    if (!made || !losses)
        return sap_error_memory(err, model->name);
    sap_error own = {0};
    *made = (sap_training_config){.losses = losses};
    sap_status status = read_optimizer(model, json_object_get(compiled, "optimizer"), &made->optimizer, &own);
    if (status == SAP_OK)
        status = read_losses(model, root, compiled, losses, &own);
    if (status == SAP_EMEMORY)
        return sap_error_memory(err, model->name);
    if (status != SAP_OK)
        made->unknown = sap_arena_format(&model->arena, "%s: compile_config: %s", model->name, own.message);
    *out = made;
    return status == SAP_OK || made->unknown ? SAP_OK : sap_error_memory(err, model->name);
}

sap_status sap_training_config_read(sap_model *model, const sap_keras_file *file, sap_error *err) {
    json_t *root = json_loadb(model->config, model->config_length, 0, NULL);
    sap_status status = read_compiled(model, root, &model->training, err);
    json_decref(root);
    if (status == SAP_OK && model->training && !model->training->unknown && file)
        status = read_state(model, file, err);
    return status;
}

const sap_training_config *sap_model_training_config(const sap_model *model) {
    return model->training;
}

/* ---- Writing -------------------------------------------------------------------------------------------- */

static bool same_schedule(const sap_schedule *a, const sap_schedule *b) {
    size_t boundaries = (size_t)a->boundary_count;
    return a->kind == b->kind && a->decay_steps == b->decay_steps && a->decay_rate == b->decay_rate &&
           a->staircase == b->staircase && a->end_learning_rate == b->end_learning_rate && a->power == b->power &&
           a->cycle == b->cycle && a->alpha == b->alpha && a->warmup_steps == b->warmup_steps &&
           a->warmup_from == b->warmup_from && a->boundary_count == b->boundary_count &&
           (boundaries == 0 || (memcmp(a->boundaries, b->boundaries, boundaries * sizeof *a->boundaries) == 0 &&
                                memcmp(a->values, b->values, (boundaries + 1) * sizeof *a->values) == 0));
}

static bool same_optimizer(const sap_optimizer *a, const sap_optimizer *b) {
    return a->kind == b->kind && (float)a->learning_rate == (float)b->learning_rate && a->beta_1 == b->beta_1 &&
           a->beta_2 == b->beta_2 && a->epsilon == b->epsilon && a->amsgrad == b->amsgrad &&
           a->momentum == b->momentum && a->nesterov == b->nesterov && a->weight_decay == b->weight_decay &&
           a->clipnorm == b->clipnorm && a->clipvalue == b->clipvalue && a->global_clipnorm == b->global_clipnorm &&
           a->ema_momentum == b->ema_momentum && a->ema_overwrite_frequency == b->ema_overwrite_frequency &&
           same_schedule(&a->schedule, &b->schedule);
}

static bool same_loss(const sap_loss *a, const sap_loss *b) {
    return a->kind == b->kind && a->from_logits == b->from_logits && a->label_smoothing == b->label_smoothing &&
           a->delta == b->delta && (a->weight != 0 ? a->weight : 1) == (b->weight != 0 ? b->weight : 1);
}

static json_t *write_list(const double *values, int32_t count) {
    json_t *list = json_array();
    for (int32_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_real(values[i]));
    return list;
}

/* The learning rate, or its schedule. */
static json_t *write_rate(const sap_optimizer *o) {
    const sap_schedule *s = &o->schedule;
    bool warm = s->warmup_steps > 0;
    json_t *settings = NULL;
    const char *name = "";
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
        if (schedules[i].kind == s->kind)
            name = schedules[i].class_name;
    switch (s->kind) {
    case SAP_SCHEDULE_CONSTANT:
        return json_real(o->learning_rate);
    case SAP_SCHEDULE_EXPONENTIAL:
    case SAP_SCHEDULE_INVERSE_TIME:
        settings = json_pack("{s:f, s:f, s:f, s:b}", "initial_learning_rate", o->learning_rate, "decay_steps",
                             s->decay_steps, "decay_rate", s->decay_rate, "staircase", (int)s->staircase);
        break;
    case SAP_SCHEDULE_POLYNOMIAL:
        settings = json_pack("{s:f, s:f, s:f, s:f, s:b}", "initial_learning_rate", o->learning_rate, "decay_steps",
                             s->decay_steps, "end_learning_rate", s->end_learning_rate, "power", s->power, "cycle",
                             (int)s->cycle);
        break;
    case SAP_SCHEDULE_COSINE:
        settings =
            json_pack("{s:f, s:f, s:f, s:o, s:f}", "initial_learning_rate", warm ? s->warmup_from : o->learning_rate,
                      "decay_steps", s->decay_steps, "alpha", s->alpha, "warmup_target",
                      warm ? json_real(o->learning_rate) : json_null(), "warmup_steps", s->warmup_steps);
        break;
    case SAP_SCHEDULE_PIECEWISE:
        settings = json_pack("{s:o, s:o}", "boundaries", write_list(s->boundaries, s->boundary_count), "values",
                             write_list(s->values, s->boundary_count + 1));
        break;
    }
    return json_pack("{s:s, s:s, s:o, s:n}", "module", "keras.optimizers.schedules", "class_name", name, "config",
                     settings, "registered_name");
}

static void put_number(json_t *object, const char *key, double value) {
    (void)json_object_set_new(object, key, value != 0 ? json_real(value) : json_null());
}

static json_t *write_optimizer(const sap_optimizer *o) {
    static const char *const names[][2] = {{"Adam", "adam"}, {"SGD", "SGD"}, {"AdamW", "adamw"}};
    json_t *s = json_pack("{s:s, s:o}", "name", names[o->kind][1], "learning_rate", write_rate(o));
    put_number(s, "weight_decay", o->weight_decay);
    put_number(s, "clipnorm", o->clipnorm);
    put_number(s, "global_clipnorm", o->global_clipnorm);
    put_number(s, "clipvalue", o->clipvalue);
    (void)json_object_set_new(s, "use_ema", json_boolean(o->ema_momentum > 0));
    (void)json_object_set_new(s, "ema_momentum", json_real(o->ema_momentum > 0 ? o->ema_momentum : 0.99));
    (void)json_object_set_new(s, "ema_overwrite_frequency",
                              o->ema_overwrite_frequency ? json_integer(o->ema_overwrite_frequency) : json_null());
    if (o->kind == SAP_OPTIMIZER_SGD) {
        (void)json_object_set_new(s, "momentum", json_real(o->momentum));
        (void)json_object_set_new(s, "nesterov", json_boolean(o->nesterov));
    } else {
        (void)json_object_set_new(s, "beta_1", json_real(o->beta_1));
        (void)json_object_set_new(s, "beta_2", json_real(o->beta_2));
        (void)json_object_set_new(s, "epsilon", json_real(o->epsilon));
        (void)json_object_set_new(s, "amsgrad", json_boolean(o->amsgrad));
    }
    return json_pack("{s:s, s:s, s:o, s:n}", "module", "keras.optimizers", "class_name", names[o->kind][0], "config", s,
                     "registered_name");
}

static json_t *write_loss(const sap_loss *loss) {
    static const char *const classes[] = {"CategoricalCrossentropy", "SparseCategoricalCrossentropy",
                                          "BinaryCrossentropy",      "MeanSquaredError",
                                          "MeanAbsoluteError",       "Huber"};
    if (loss->kind == SAP_LOSS_NONE)
        return json_null();
    json_t *s = json_pack("{s:s, s:s}", "name", sap_loss_name(loss->kind), "reduction", "sum_over_batch_size");
    if (loss->kind <= SAP_LOSS_BINARY_CROSSENTROPY)
        (void)json_object_set_new(s, "from_logits", json_boolean(loss->from_logits));
    if (loss->kind == SAP_LOSS_CATEGORICAL_CROSSENTROPY || loss->kind == SAP_LOSS_BINARY_CROSSENTROPY)
        (void)json_object_set_new(s, "label_smoothing", json_real(loss->label_smoothing));
    if (loss->kind == SAP_LOSS_HUBER)
        (void)json_object_set_new(s, "delta", json_real(loss->delta != 0 ? loss->delta : 1));
    return json_pack("{s:s, s:s, s:o, s:n}", "module", "keras.losses", "class_name", classes[loss->kind], "config", s,
                     "registered_name");
}

/* A compile_config; Keras takes lists by output, and no list where there is but one. */
static json_t *write_compiled(const sap_model *model, const sap_optimizer *optimizer, const sap_loss *losses) {
    json_t *loss = json_array(), *weights = json_array();
    bool one = model->output_count == 1, weighted = false, classes = false;
    for (int32_t o = 0; o < model->output_count; o++) {
        double weight = losses[o].weight != 0 ? losses[o].weight : 1;
        (void)json_array_append_new(loss, write_loss(&losses[o]));
        (void)json_array_append_new(weights, json_real(weight));
        weighted = weighted || weight != 1;
        classes = classes || losses[o].kind <= SAP_LOSS_BINARY_CROSSENTROPY;
    }
    json_t *made = json_pack("{s:o, s:O, s:O?, s:o, s:n, s:b, s:i, s:b}", "optimizer", write_optimizer(optimizer),
                             "loss", one ? json_array_get(loss, 0) : loss, "loss_weights", weighted ? weights : NULL,
                             "metrics", one && classes ? json_pack("[s]", "accuracy") : json_null(), "weighted_metrics",
                             "run_eagerly", 0, "steps_per_execution", 1, "jit_compile", 0);
    json_decref(loss);
    json_decref(weights);
    return made;
}

static sap_status replace(sap_model *model, json_t *root, json_t *compiled, sap_error *err) {
    bool set = compiled && json_object_set(root, "compile_config", compiled) == 0;
    char *text = set ? json_dumps(root, JSON_REAL_PRECISION(17)) : NULL;
    model->config_length = text ? strlen(text) : 0;
    model->config = text ? sap_arena_text(&model->arena, text, model->config_length) : "";
    free(text);
    return model->config_length ? SAP_OK : sap_error_memory(err, model->name);
}

sap_status sap_training_config_set(sap_model *model, const sap_optimizer *optimizer, const sap_loss *losses,
                                   sap_error *err) {
    const sap_training_config *now = model->training;
    bool known = optimizer->kind != SAP_OPTIMIZER_RADAM; /* which Keras does not have */
    bool same = now && !now->unknown && same_optimizer(&now->optimizer, optimizer);
    for (int32_t o = 0; same && o < model->output_count; o++)
        same = same_loss(&now->losses[o], &losses[o]);
    if (same)
        return SAP_OK;
    json_t *root = json_loadb(model->config, model->config_length, 0, NULL);
    json_t *compiled = known ? write_compiled(model, optimizer, losses) : json_null();
    sap_status status = root ? replace(model, root, compiled, err) : sap_error_memory(err, model->name);
    if (status == SAP_OK)
        status = read_compiled(model, root, &model->training, err);
    json_decref(compiled);
    json_decref(root);
    return status;
}
