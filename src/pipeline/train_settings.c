/* The options of `train` as loss, optimizer, schedule and callbacks. */
#include "train_settings.h"
#include "../base/numbers.h"

#include <math.h>
#include <stdlib.h>

enum { BOUNDARIES_MOST = 1000 };

static bool given(const sap_stage *stage, const char *name) {
    return sap_stage_text(stage, name) != NULL;
}

static void take_real(const sap_stage *stage, const char *name, double *to) {
    if (given(stage, name))
        *to = sap_stage_real(stage, name);
}

/* ---- Loss ----------------------------------------------------------------------------------------------------- */

/* "LABEL=X" of each class; those that are not named weigh 1. */
static sap_status read_class_weights(const sap_stage *stage, const sap_dataset *dataset, sap_train_settings *out,
                                     sap_error *err) {
    size_t classes = sap_dataset_label_count(dataset);
    double *weights = NULL;
    for (size_t i = 0; i < stage->count; i++) {
        if (strcmp(stage->settings[i].option->name, "class-weight") != 0)
            continue;
        const char *value = stage->settings[i].value, *equals = strchr(value, '=');
        if (!weights) {
            weights = sap_arena_array(&out->arena, classes, sizeof *weights);
            if (!weights)
                return sap_error_memory(err, "class weights");
            for (size_t k = 0; k < classes; k++)
                weights[k] = 1;
        }
        size_t length = equals ? (size_t)(equals - value) : 0, found = classes;
        for (size_t k = 0; k < classes; k++) {
            const char *label = sap_dataset_label(dataset, k);
            if (strlen(label) == length && strncmp(label, value, length) == 0)
                found = k;
        }
        char *end = NULL;
        double weight = equals ? sap_real_parse(equals + 1, &end) : 0;
        if (found == classes || end == equals + 1 || *end || !(weight >= 0 && weight < 1e30))
            return sap_error_set(err, SAP_EARGUMENT,
                                 "train: --class-weight should be LABEL=X with a label of the dataset and a number >= "
                                 "0, but is \"%s\"",
                                 value);
        weights[found] = weight;
    }
    out->loss.class_weight = weights;
    out->loss.class_count = weights ? (int32_t)classes : 0;
    return SAP_OK;
}

static sap_status read_loss(const sap_stage *stage, const sap_model *model, const sap_dataset *dataset,
                            sap_train_settings *out, sap_error *err) {
    bool binary = sap_model_is_binary(model, dataset), compiled = sap_model_training_config(model) != NULL;
    if (binary && !compiled)
        out->loss.kind = SAP_LOSS_BINARY_CROSSENTROPY;
    if (given(stage, "loss")) {
        out->loss = (sap_loss){0};
        SAP_TRY(sap_loss_find(sap_stage_text(stage, "loss"), &out->loss.kind, err));
    }
    if (binary && (out->loss.kind == SAP_LOSS_CATEGORICAL_CROSSENTROPY ||
                   out->loss.kind == SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY))
        return sap_error_set(err, SAP_EARGUMENT,
                             "train: a single output has nothing to share a categorical cross-entropy with: give "
                             "--loss binary_crossentropy");
    take_real(stage, "label-smoothing", &out->loss.label_smoothing);
    out->options.losses = &out->loss;
    return read_class_weights(stage, dataset, out, err);
}

/* ---- Optimizer ------------------------------------------------------------------------------------------------ */

/* "STEP:RATE,…": from each step on its rate, and --learning-rate before the first. */
static sap_status read_boundaries(const sap_stage *stage, double first, sap_schedule *schedule, sap_arena *arena,
                                  sap_error *err) {
    const char *at = sap_stage_text(stage, "boundaries");
    double *boundaries = sap_arena_array(arena, BOUNDARIES_MOST, sizeof *boundaries);
    double *values = sap_arena_array(arena, BOUNDARIES_MOST + 1, sizeof *values);
    if (!boundaries || !values)
        return sap_error_memory(err, "boundaries");
    values[0] = first;
    while (at && *at && schedule->boundary_count < BOUNDARIES_MOST) {
        char *end;
        boundaries[schedule->boundary_count++] = sap_real_parse(at, &end);
        bool right = end != at && *end == ':';
        at = end + right;
        values[schedule->boundary_count] = right ? sap_real_parse(at, &end) : 0;
        if (!right || end == at || (*end && *end != ','))
            return sap_error_set(err, SAP_EARGUMENT,
                                 "train: --boundaries should be STEP:RATE,STEP:RATE,…, but is \"%s\"",
                                 sap_stage_text(stage, "boundaries"));
        at = end + (*end == ',');
    }
    schedule->boundaries = boundaries;
    schedule->values = values;
    return SAP_OK;
}

/* --warmup counts in epochs of so many rows. */
static sap_status read_warmup(const sap_stage *stage, int64_t rows, sap_schedule *s, sap_error *err) {
    take_real(stage, "warmup-steps", &s->warmup_steps);
    if (!given(stage, "warmup"))
        return SAP_OK;
    double epochs = sap_stage_real(stage, "warmup");
    if (given(stage, "warmup-steps") || !(epochs >= 0 && epochs < 1e6))
        return sap_error_set(err, SAP_EARGUMENT,
                             "train: --warmup should be a number of epochs, and stand without --warmup-steps");
    uint64_t batch = sap_stage_count(stage, "batch"), steps = ((uint64_t)rows + batch - 1) / batch;
    uint64_t fewer = sap_stage_count(stage, "steps-per-epoch");
    s->warmup_steps = round(epochs * (double)(fewer > 0 && fewer < steps ? fewer : steps));
    return SAP_OK;
}

/* The learning rate, and those of a schedule, grow with the batch. */
static sap_status scale_rates(const sap_stage *stage, sap_optimizer *o, sap_arena *arena, sap_error *err) {
    static const double standard[] = {[SAP_OPTIMIZER_ADAM] = 0.001,
                                      [SAP_OPTIMIZER_SGD] = 0.01,
                                      [SAP_OPTIMIZER_ADAMW] = 0.001,
                                      [SAP_OPTIMIZER_RADAM] = 0.001};
    double base = o->learning_rate > 0 ? o->learning_rate : standard[o->kind];
    double factor = (double)sap_stage_count(stage, "batch") / (double)sap_stage_count(stage, "lr-batch");
    if (strcmp(sap_stage_text(stage, "lr-scaling"), "linear") != 0)
        return SAP_OK;
    o->learning_rate = base * factor;
    if (o->schedule.warmup_steps > 0 && factor > 1)
        o->schedule.warmup_from = base;
    if (o->schedule.kind != SAP_SCHEDULE_PIECEWISE)
        return SAP_OK;
    int32_t count = o->schedule.boundary_count + 1;
    double *values = sap_arena_array(arena, (size_t)count, sizeof *values);
    if (!values)
        return sap_error_memory(err, "learning rates");
    for (int32_t i = 0; i < count; i++)
        values[i] = o->schedule.values[i] * factor;
    o->schedule.values = values;
    return SAP_OK;
}

static sap_status read_schedule(const sap_stage *stage, int64_t rows, sap_train_settings *out, sap_error *err) {
    static const char *const names[] = {"constant", "exponential", "inverse-time", "polynomial", "cosine", "piecewise"};
    sap_optimizer *o = &out->options.optimizer;
    sap_schedule *s = &o->schedule;
    const char *name = sap_stage_text(stage, "schedule");
    for (int i = 0; name && i <= SAP_SCHEDULE_PIECEWISE; i++)
        if (strcmp(names[i], name) == 0)
            *s = (sap_schedule){.kind = (sap_schedule_kind)i};
    take_real(stage, "decay-steps", &s->decay_steps);
    take_real(stage, "decay-rate", &s->decay_rate);
    take_real(stage, "end-learning-rate", &s->end_learning_rate);
    take_real(stage, "power", &s->power);
    take_real(stage, "alpha", &s->alpha);
    SAP_TRY(read_warmup(stage, rows, s, err));
    s->staircase = s->staircase || sap_stage_switch(stage, "staircase");
    if (s->kind != SAP_SCHEDULE_PIECEWISE || !given(stage, "schedule"))
        return SAP_OK;
    if (!given(stage, "learning-rate") || !given(stage, "boundaries"))
        return sap_error_set(err, SAP_EARGUMENT, "train: --schedule piecewise needs --learning-rate and --boundaries");
    return read_boundaries(stage, o->learning_rate, s, &out->arena, err);
}

static sap_status read_optimizer(const sap_stage *stage, int64_t rows, sap_train_settings *out, sap_error *err) {
    sap_optimizer *o = &out->options.optimizer;
    if (given(stage, "optimizer")) {
        *o = (sap_optimizer){0};
        SAP_TRY(sap_optimizer_find(sap_stage_text(stage, "optimizer"), &o->kind, err));
    }
    take_real(stage, "learning-rate", &o->learning_rate);
    take_real(stage, "momentum", &o->momentum);
    take_real(stage, "beta-1", &o->beta_1);
    take_real(stage, "beta-2", &o->beta_2);
    take_real(stage, "epsilon", &o->epsilon);
    take_real(stage, "weight-decay", &o->weight_decay);
    take_real(stage, "ema", &o->ema_momentum);
    take_real(stage, "clip-norm", &o->clipnorm);
    take_real(stage, "clip-value", &o->clipvalue);
    take_real(stage, "global-clip-norm", &o->global_clipnorm);
    o->nesterov = o->nesterov || sap_stage_switch(stage, "nesterov");
    o->amsgrad = o->amsgrad || sap_stage_switch(stage, "amsgrad");
    SAP_TRY(read_schedule(stage, rows, out, err));
    return scale_rates(stage, o, &out->arena, err);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------------ */

static void read_callbacks(const sap_stage *stage, sap_train_settings *out) {
    sap_callback *next = out->callbacks;
    const char *monitor = sap_stage_text(stage, "monitor");
    double delta = sap_stage_real(stage, "min-delta");
    if (given(stage, "reduce-lr"))
        *next++ = (sap_callback){
            .kind = SAP_CALLBACK_REDUCE_ON_PLATEAU,
            .monitor = monitor,
            .min_delta = delta,
            .patience = (int64_t)sap_stage_count(stage, "reduce-lr"),
            .factor = sap_stage_real(stage, "reduce-lr-factor"),
            .min_learning_rate = sap_stage_real(stage, "min-learning-rate"),
        };
    if (given(stage, "model-checkpoint"))
        *next++ = (sap_callback){
            .kind = SAP_CALLBACK_MODEL_CHECKPOINT,
            .monitor = monitor,
            .path = sap_stage_text(stage, "model-checkpoint"),
            .save_best_only = sap_stage_switch(stage, "save-best-only"),
        };
    if (given(stage, "csv"))
        *next++ = (sap_callback){.kind = SAP_CALLBACK_CSV, .path = sap_stage_text(stage, "csv")};
    if (given(stage, "tensorboard"))
        *next++ = (sap_callback){.kind = SAP_CALLBACK_TENSORBOARD, .path = sap_stage_text(stage, "tensorboard")};
    if (given(stage, "early-stopping"))
        *next++ = (sap_callback){
            .kind = SAP_CALLBACK_EARLY_STOPPING,
            .monitor = monitor,
            .min_delta = delta,
            .patience = (int64_t)sap_stage_count(stage, "early-stopping"),
            .restore_best_weights = sap_stage_switch(stage, "restore-best"),
        };
    out->options.callbacks = out->callbacks;
    out->options.callback_count = (size_t)(next - out->callbacks);
}

/* ---- All of them ---------------------------------------------------------------------------------------------- */

sap_status sap_train_settings_check(const sap_stage *stage, sap_error *err) {
    uint64_t epochs = sap_stage_count(stage, "epochs"), batch = sap_stage_count(stage, "batch");
    if (epochs < 1 || epochs > 1000000 || batch < 1 || batch > 1u << 24)
        return sap_error_set(err, SAP_EARGUMENT, "train: --epochs should be 1 to 1000000 and --batch 1 to %u",
                             1u << 24);
    if (sap_stage_count(stage, "workers") != 1)
        return sap_error_set(
            err, SAP_EARGUMENT,
            "train: --workers goes with --engine tensorflow; `mpirun -n N sapwood train` trains with N "
            "processes here");
    if (given(stage, "learning-rate") && !(sap_stage_real(stage, "learning-rate") > 0))
        return sap_error_set(err, SAP_EARGUMENT, "train: --learning-rate should be above 0");
    if (sap_stage_count(stage, "lr-batch") < 1)
        return sap_error_set(err, SAP_EARGUMENT, "train: --lr-batch should be at least 1");
    if (given(stage, "timeout") && !(sap_stage_real(stage, "timeout") > 0))
        return sap_error_set(err, SAP_EARGUMENT, "train: --timeout should be above 0");
    return SAP_OK;
}

sap_status sap_train_settings_init(const sap_stage *stage, const sap_model *model, const sap_dataset *dataset,
                                   sap_train_settings *out, sap_error *err) {
    *out = (sap_train_settings){0};
    out->options = (sap_train_options){
        .epochs = (int64_t)sap_stage_count(stage, "epochs"),
        .batch = (int64_t)sap_stage_count(stage, "batch"),
        .steps_per_epoch = (int64_t)(sap_stage_count(stage, "steps-per-epoch") & INT32_MAX),
        .seed = sap_stage_count(stage, "seed"),
        .in_order = !sap_stage_switch(stage, "shuffle"),
        .validation_freq = (int64_t)(sap_stage_count(stage, "validation-every") & INT32_MAX),
        .auc = sap_stage_switch(stage, "auc"),
        .deterministic = sap_stage_switch(stage, "deterministic"),
        .checkpoint_seconds = sap_stage_real(stage, "checkpoint-every"),
        .device = sap_stage_device(stage),
        .float32 = sap_stage_switch(stage, "float32"),
        .tf32 = sap_stage_switch(stage, "tf32"),
        .bf16 = sap_stage_switch(stage, "bf16"),
    };
    const sap_training_config *compiled = sap_model_training_config(model);
    if (compiled && !compiled->unknown) {
        out->options.optimizer = compiled->optimizer;
        out->loss = compiled->losses[0];
    } else if (compiled && !(given(stage, "loss") && given(stage, "optimizer"))) {
        return sap_error_set(err, SAP_EUNSUPPORTED, "train: %s; give --loss and --optimizer to train with others",
                             compiled->unknown);
    }
    out->options.keep_optimizer = !sap_stage_switch(stage, "fresh");
    SAP_TRY(read_loss(stage, model, dataset, out, err));
    SAP_TRY(read_optimizer(stage, sap_dataset_rows(dataset, sap_data_split(dataset, "train")), out, err));
    read_callbacks(stage, out);
    return SAP_OK;
}

void sap_train_settings_release(sap_train_settings *settings) {
    sap_arena_release(&settings->arena);
    *settings = (sap_train_settings){0};
}
