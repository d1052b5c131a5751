/* The training loop: epochs, steps, validation, and checkpoints in between. */
#include "checkpoint.h"
#include "cuda/cuda_run.h"
#include "ranks.h"
#include "training_config.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum {
    VALIDATION_ROWS = 4096, /* a batch of validation */
    GPU_ROWS = 1 << 18      /* rows between two looks at what the GPU does */
};
#define REPORT_SECONDS 0.1 /* between reports of progress */

typedef struct trainer {
    sap_training training;
    sap_feed *train, *validation;
    const sap_run *run;
    sap_run patient; /* of programs: with other ranks, cancelling waits for the end of the step */
    sap_comm *comm;
    sap_share share;
    uint8_t *shards;                /* (batch) of the rows of a batch, where the order of sums is fixed */
    bool shares_validation;         /* each rank measures its own rows */
    sap_program *program, *measure; /* measure: for validation, or NULL */
    sap_cuda *cuda;                 /* NULL: the CPU trains */
    bool held[2];                   /* whether the GPU holds all rows for training, for validation */
    float *gradients;
    bool plain;                            /* no weight has a penalty or constraint */
    float *outputs[SAP_OUTPUTS];           /* of a batch, for AUC; NULL without */
    int64_t values[SAP_OUTPUTS];           /* numbers a row */
    sap_activation_kind last[SAP_OUTPUTS]; /* the activation that those lack */
    int64_t capacity;                      /* rows that `outputs` have room for */
    double reported, stored, begun;        /* when: progress, checkpoint, this call's part of the epoch */
    double together, shared;               /* seconds spent with other ranks: before the epoch, and in its steps */
} trainer;

static double wall_clock(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Rows that an epoch has. */
static int64_t epoch_rows(const trainer *t) {
    const sap_train_options *o = t->training.options;
    int64_t rows = sap_feed_rows(t->train);
    bool fewer = o->steps_per_epoch > 0 && o->steps_per_epoch < (rows + o->batch - 1) / o->batch;
    return fewer ? o->steps_per_epoch * o->batch : rows;
}

static void report(trainer *t, int64_t rows, const char *message) {
    double time = sap_seconds();
    if (!message && time - t->reported < REPORT_SECONDS)
        return;
    t->reported = time;
    const sap_train_options *o = t->training.options;
    int64_t total = epoch_rows(t), before = t->training.position.epoch - o->initial_epoch;
    sap_run_report(t->run, "train", "samples", (uint64_t)(before * total + rows),
                   (uint64_t)((o->epochs - o->initial_epoch) * total), message);
}

/* ---- What a batch gave ---------------------------------------------------------------------------------- */

/* Mean loss of an output over the batch; of a rank's share of it, what that adds to the mean. */
static double output_loss(const sap_batch_result *result, int32_t output) {
    int64_t places = result->places[output];
    return places > 0 ? result->outputs[output].loss / (double)places : 0;
}

static double batch_loss(const trainer *t, const sap_batch_result *result, double penalty) {
    double loss = penalty + result->activity;
    for (int32_t o = 0; o < t->training.model->output_count; o++)
        loss += t->training.losses[o].weight * output_loss(result, o);
    return loss;
}

/* Whether what a step gave is of all ranks already; else each rank keeps its own share of it until the end of the epoch. */
static bool is_summed(const trainer *t) {
    return t->share.groups > 0 || sap_comm_size(t->comm) == 1;
}

/* Whether this rank counts what a batch has once, however many ranks share it. */
static bool counts_batches(const trainer *t) {
    return is_summed(t) || sap_comm_rank(t->comm) == 0;
}

/* rows: of the whole batch; counted: its rows are this rank's to count. */
static void add_result(const trainer *t, const sap_batch_result *result, double loss, int64_t rows, bool counted,
                       sap_tally *tally) {
    tally->loss += loss * (double)rows;
    tally->rows += counted ? (double)rows : 0;
    for (int32_t o = 0; o < t->training.model->output_count; o++) {
        tally->output[o] += output_loss(result, o) * (double)rows;
        tally->correct[o] += result->outputs[o].correct;
        tally->count[o] += result->outputs[o].count;
    }
}

sap_status sap_scores_reserve(sap_scores *scores, int64_t more, sap_error *err) {
    if (scores->count + more <= scores->capacity)
        return SAP_OK;
    int64_t capacity = scores->count + more > 2 * scores->capacity ? scores->count + more : 2 * scores->capacity;
    float *score = realloc(scores->score, (size_t)capacity * sizeof *score);
    if (score)
        scores->score = score;
    uint8_t *positive = score ? realloc(scores->positive, (size_t)capacity) : NULL;
    if (!positive)
        return sap_error_memory(err, "scores of an epoch for the AUC");
    scores->positive = positive;
    scores->capacity = capacity;
    return SAP_OK;
}

/* What the last activation would have made of a row. */
static void finish_row(sap_activation_kind last, int64_t values, float *row) {
    float max = row[0], sum = 0;
    for (int64_t v = 1; v < values; v++)
        max = row[v] > max ? row[v] : max;
    for (int64_t v = 0; v < values && last != SAP_LINEAR; v++) {
        row[v] = last == SAP_SOFTMAX ? expf(row[v] - max) : 1 / (1 + expf(-row[v]));
        sum += row[v];
    }
    for (int64_t v = 0; v < values && last == SAP_SOFTMAX; v++)
        row[v] /= sum;
}

/* Keeps every value of an output and whether its target is one, as Keras' AUC sees them. */
static sap_status add_scores(const trainer *t, const sap_examples *examples, int32_t output, sap_scores *scores,
                             sap_error *err) {
    int64_t values = t->values[output];
    const float *targets = examples->targets ? examples->y[output] : NULL;
    bool numbers = !targets || examples->target_values[output] != values;
    SAP_TRY(sap_scores_reserve(scores, examples->rows * values, err));
    for (int64_t r = 0; r < examples->rows; r++) {
        float *row = t->outputs[output] + r * values;
        finish_row(t->last[output], values, row);
        for (int64_t v = 0; v < values; v++) {
            bool positive;
            if (!numbers)
                positive = targets[r * values + v] >= 0.5F;
            else if (values == 1)
                positive = targets ? targets[r] >= 0.5F : examples->label[r] > 0;
            else
                positive = (targets ? (int64_t)targets[r] : examples->label[r]) == v;
            scores->score[scores->count] = row[v];
            scores->positive[scores->count++] = positive;
        }
    }
    return SAP_OK;
}

static sap_status reserve_outputs(trainer *t, int64_t rows, sap_error *err) {
    for (int32_t o = 0; rows > t->capacity && o < t->training.model->output_count; o++) {
        free(t->outputs[o]);
        t->outputs[o] = malloc((size_t)(rows * t->values[o]) * sizeof(float) + 1);
        if (!t->outputs[o])
            return sap_error_memory(err, t->training.model->name);
    }
    t->capacity = rows > t->capacity ? rows : t->capacity;
    return SAP_OK;
}

static sap_status run_batch(trainer *t, sap_program *program, const sap_examples *examples, uint64_t key,
                            float *gradients, sap_scores *scores, sap_batch_result *result, sap_error *err) {
    bool auc = t->training.options->auc;
    if (auc)
        SAP_TRY(reserve_outputs(t, examples->rows, err));
    SAP_TRY(sap_program_run(program, examples, key, gradients, auc ? t->outputs : NULL, result, err));
    for (int32_t o = 0; auc && o < t->training.model->output_count; o++)
        if (t->training.losses[o].kind != SAP_LOSS_NONE)
            SAP_TRY(add_scores(t, examples, o, &scores[o], err));
    return SAP_OK;
}

/* Every rank gets the figures of the history's last epoch that rank 0 has. */
static sap_status spread_results(trainer *t, sap_error *err) {
    const sap_history *h = t->training.history;
    double *last = h->values + (h->epochs - 1) * h->count;
    return sap_comm_broadcast(t->comm, last, (size_t)h->count * sizeof *last, err);
}

static void release_scores(sap_scores *scores) {
    for (int32_t o = 0; o < SAP_OUTPUTS; o++) {
        free(scores[o].score);
        free(scores[o].positive);
        scores[o] = (sap_scores){0};
    }
}

/* The scores of all ranks, at rank 0. out: (SAP_OUTPUTS), zeroed. */
static sap_status gather_scores(trainer *t, const sap_scores *own, sap_scores *out, sap_error *err) {
    for (int32_t o = 0; t->training.options->auc && o < t->training.model->output_count; o++)
        if (t->training.losses[o].kind != SAP_LOSS_NONE)
            SAP_TRY(sap_ranks_gather_scores(t->comm, &own[o], &out[o], err));
    return SAP_OK;
}

static sap_status store_results(trainer *t, bool validation, const sap_tally *tally, sap_scores *scores,
                                sap_error *err) {
    const sap_model *model = t->training.model;
    sap_history *history = t->training.history;
    char name[300];
    sap_history_name(model, validation, -1, "loss", name, sizeof name);
    sap_history_set(history, name, tally->loss / tally->rows);
    for (int32_t o = 0; o < model->output_count; o++) {
        sap_history_name(model, validation, o, "loss", name, sizeof name);
        if (model->output_count > 1)
            sap_history_set(history, name, tally->output[o] / tally->rows);
        sap_history_name(model, validation, o, "accuracy", name, sizeof name);
        if (tally->count[o] > 0)
            sap_history_set(history, name, (double)tally->correct[o] / (double)tally->count[o]);
        if (scores[o].count == 0)
            continue;
        double auc;
        SAP_TRY(sap_auc_find(scores[o].score, scores[o].positive, scores[o].count, &auc, err));
        sap_history_name(model, validation, o, "auc", name, sizeof name);
        sap_history_set(history, name, auc);
        scores[o].count = 0;
    }
    return SAP_OK;
}

/* Likewise, where each rank has a share of the tally, if `summed` is false, and of the scores. */
static sap_status store_shares(trainer *t, bool validation, bool summed, sap_tally *tally, sap_scores *scores,
                               sap_error *err) {
    if (sap_comm_size(t->comm) == 1)
        return store_results(t, validation, tally, scores, err);
    sap_scores all[SAP_OUTPUTS] = {0};
    if (!summed)
        SAP_TRY(sap_ranks_sum_tally(t->comm, tally, err));
    sap_status status = gather_scores(t, scores, all, err);
    if (status == SAP_OK)
        status = store_results(t, validation, tally, all, err);
    release_scores(all);
    for (int32_t o = 0; o < SAP_OUTPUTS; o++)
        scores[o].count = 0;
    return status == SAP_OK ? spread_results(t, err) : status;
}

/* ---- An epoch ------------------------------------------------------------------------------------------- */

/* What happened to all ranks alike is said by one of them. */
static sap_status all_fail(const trainer *t, sap_status status, sap_error *err) {
    return sap_comm_agree(t->comm, status, err);
}

/* A step may have spoilt weights that no loss was computed from. */
static sap_status check_weights(const trainer *t, sap_error *err) {
    const sap_model *model = t->training.model;
    for (int64_t i = 0; i < model->trainable_count; i++)
        if (!isfinite(model->values[i]))
            return all_fail(
                t,
                sap_error_set(err, SAP_EDATA, "a weight is not a finite number in epoch %lld, after step %lld",
                              (long long)t->training.position.epoch + 1, (long long)t->training.position.step),
                err);
    return SAP_OK;
}

static sap_status store_checkpoint(trainer *t, sap_error *err) {
    if (!t->training.options->checkpoint)
        return SAP_OK;
    SAP_TRY(check_weights(t, err));
    double time = sap_seconds();
    t->training.position.seconds += time - t->begun;
    t->begun = t->stored = time;
    if (sap_comm_size(t->comm) == 1)
        return sap_checkpoint_write(&t->training, err);
    sap_training all = t->training; /* with the sums and scores of all ranks */
    memset(all.position.scores, 0, sizeof all.position.scores);
    if (!is_summed(t))
        SAP_TRY(sap_ranks_sum_tally(t->comm, &all.position.tally, err));
    sap_status status = gather_scores(t, t->training.position.scores, all.position.scores, err);
    if (status == SAP_OK && sap_comm_rank(t->comm) == 0)
        status = sap_checkpoint_write(&all, err);
    release_scores(all.position.scores);
    return sap_comm_agree(t->comm, status, err);
}

static bool seconds_are_over(const trainer *t) {
    double seconds = t->training.options->checkpoint_seconds;
    return seconds > 0 && sap_seconds() - t->stored >= seconds;
}

/* In mid-epoch, when it is time. */
static sap_status store_if_due(trainer *t, bool due, sap_error *err) {
    const sap_train_options *o = t->training.options;
    bool steps = o->checkpoint_steps > 0 && t->training.position.step % o->checkpoint_steps == 0;
    return steps || due ? store_checkpoint(t, err) : SAP_OK;
}

/* What goes along with the gradients, so that all ranks decide the same. */
enum { FLAG_LOSS, FLAG_CANCEL, FLAG_STORE };

/* Gradients, and what the batch gave, of all ranks together; this rank's share of the loss becomes that of all in flags. */
static sap_status sum_step(trainer *t, double share, float *flags, sap_batch_result *result, sap_error *err) {
    flags[FLAG_LOSS] = (float)share;
    flags[FLAG_CANCEL] = sap_run_check(t->run, NULL) != SAP_OK;
    flags[FLAG_STORE] = sap_comm_rank(t->comm) == 0 && seconds_are_over(t);
    return sap_program_sum(t->program, t->gradients, flags, result, err);
}

/* *due: a checkpoint is to be written. SAP_ECANCELLED: this was the last step. */
static sap_status train_step(trainer *t, const sap_examples *examples, uint64_t key, bool *due, sap_error *err) {
    sap_training *training = &t->training;
    sap_model *model = training->model;
    sap_batch_result result;
    float flags[SAP_FLAGS] = {0};
    if (t->shards)
        sap_feed_last_shards(t->train, t->shards);
    SAP_TRY(run_batch(t, t->program, examples, key, t->gradients, training->position.scores, &result, err));
    if (t->share.comm || t->shards)
        SAP_TRY(sum_step(t, batch_loss(t, &result, 0), flags, &result, err));
    double penalty = t->plain ? 0 : sap_penalty_add(model, t->gradients), loss = batch_loss(t, &result, penalty);
    if (!is_summed(t)) {
        loss -= counts_batches(t) ? 0 : penalty;
        flags[FLAG_LOSS] += (float)penalty;
    } else {
        flags[FLAG_LOSS] = (float)loss;
    }
    if (!isfinite(flags[FLAG_LOSS]))
        return all_fail(t,
                        sap_error_set(err, SAP_EDATA,
                                      "the loss is not a finite number in epoch %lld, step %lld: a smaller learning "
                                      "rate may help, or the features hold NaN",
                                      (long long)training->position.epoch + 1, (long long)training->position.step + 1),
                        err);
    SAP_TRY(sap_optimizer_step(&model->optimizer, sap_kernels_best(), &t->patient, t->gradients, model->values, err));
    if (!t->plain)
        SAP_TRY(sap_constraint_apply(model, err));
    add_result(t, &result, loss, examples->batch_rows, counts_batches(t), &training->position.tally);
    training->position.step++;
    sap_comm_note(t->comm, training->position.epoch + 1, training->position.step);
    *due = t->share.comm ? flags[FLAG_STORE] > 0 : seconds_are_over(t);
    return flags[FLAG_CANCEL] > 0 ? sap_error_set(err, SAP_ECANCELLED, "interrupted") : SAP_OK;
}

/* ---- On a GPU ------------------------------------------------------------------------------------------- */

/* sums: of each output */
static void add_sums(const trainer *t, const sap_loss_sums *sums, sap_tally *tally) {
    const sap_model *model = t->training.model;
    double rows = 0;
    for (int32_t o = 0; o < model->output_count; o++) {
        const sap_shape *shape = &model->nodes[model->outputs[o]].shape;
        double places = (double)(sap_shape_values(shape) / sap_shape_last(shape)), loss = sums[o].loss / places;
        tally->loss += t->training.losses[o].weight * loss;
        tally->output[o] += loss;
        tally->correct[o] += sums[o].correct;
        tally->count[o] += sums[o].count;
        rows = sums[o].count > 0 ? (double)sums[o].count / places : rows; /* none of an output without a loss */
    }
    tally->rows += rows;
}

static sap_status open_gpu(trainer *t, sap_error *err) {
    sap_training *training = &t->training;
    const sap_train_options *o = training->options;
    sap_model *model = training->model;
    if (o->auc)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: AUC in each epoch, on the GPU", model->name);
    sap_cuda_precision precision = o->float32 ? SAP_CUDA_FLOAT32 : o->tf32 ? SAP_CUDA_TF32 : SAP_CUDA_BF16;
    SAP_TRY(sap_cuda_open(model, training->losses, &model->optimizer, o->batch, precision, &t->share, &t->cuda, err));
    if (sap_cuda_sums(t->cuda)[0])
        report(t, 0, sap_cuda_sums(t->cuda));
    SAP_TRY(sap_cuda_keep(t->cuda, 0, t->train, &t->held[0], err));
    return t->validation ? sap_cuda_keep(t->cuda, 1, t->validation, &t->held[1], err) : SAP_OK;
}

/* Steps of the epoch up to number `end`, and what they gave; *done: how many, 0 at the end of the epoch. */
static sap_status run_gpu_steps(trainer *t, uint64_t key, int64_t end, int64_t *done, sap_loss_sums *sums,
                                sap_error *err) {
    sap_position *at = &t->training.position;
    sap_optimizer_state *state = &t->training.model->optimizer;
    int64_t batch = t->training.options->batch, first = at->step * batch, rows = sap_feed_rows(t->train) - first;
    rows = rows < (end - at->step) * batch ? rows : (end - at->step) * batch;
    *done = rows > 0 ? (rows + batch - 1) / batch : 0;
    if (*done == 0)
        return SAP_OK;
    if (t->held[0] && (t->share.comm || t->share.groups))
        return sap_cuda_shared_run(t->cuda, t->train, first, rows, batch, key, state, sums, err);
    if (t->held[0])
        return sap_cuda_steps_run(t->cuda, 0, sap_feed_order(t->train), first, rows, batch, key, state, sums, err);
    for (int64_t row = 0; row < rows; row += batch) {
        sap_examples examples;
        SAP_TRY(sap_feed_next(t->train, batch, &examples, err));
        if (t->shards)
            sap_feed_last_shards(t->train, t->shards);
        SAP_TRY(sap_cuda_step(t->cuda, &examples, key, state, err));
    }
    return sap_cuda_finish(t->cuda, false, sums, err);
}

/* What all ranks do alike: SAP_ECANCELLED: stop, as one of them was told to; *due: write a checkpoint. */
static sap_status decide(trainer *t, bool *due, sap_error *err) {
    sap_status status = sap_run_check(t->run, err);
    *due = seconds_are_over(t);
    if (!t->share.comm)
        return status;
    int64_t flags[] = {status != SAP_OK, sap_comm_rank(t->comm) == 0 && *due};
    SAP_TRY(sap_comm_sum(t->comm, SAP_COMM_INT64, flags, 2, err));
    *due = flags[1] > 0;
    return flags[0] > 0 ? sap_error_set(err, SAP_ECANCELLED, "interrupted") : SAP_OK;
}

/* The number of the step after which the host looks at what the GPU does. */
static int64_t next_stop(const trainer *t) {
    const sap_train_options *o = t->training.options;
    int64_t step = t->training.position.step, due = o->checkpoint_steps;
    int64_t end = step + (o->batch < GPU_ROWS ? GPU_ROWS / o->batch : 1);
    if (due > 0 && end > (step / due + 1) * due)
        end = (step / due + 1) * due;
    return o->steps_per_epoch > 0 && end > o->steps_per_epoch ? o->steps_per_epoch : end;
}

/* From the position on; checkpoints in between. */
static sap_status train_gpu_epoch(trainer *t, uint64_t key, sap_error *err) {
    sap_training *training = &t->training;
    sap_position *at = &training->position;
    const sap_train_options *o = training->options;
    SAP_TRY(sap_cuda_put(t->cuda, training->model, &training->model->optimizer, err)); /* call-backs may change them */
    while (o->steps_per_epoch == 0 || at->step < o->steps_per_epoch) {
        sap_loss_sums sums[SAP_OUTPUTS] = {0};
        int64_t done = 0;
        bool due;
        sap_status status = decide(t, &due, err);
        if (status == SAP_ECANCELLED && at->step > 0) /* between two steps: the work so far is kept */
            SAP_TRY(store_checkpoint(t, err));
        if (status == SAP_OK)
            status = run_gpu_steps(t, key, next_stop(t), &done, sums, err);
        if (status == SAP_EDATA)
            status = sap_error_prefix(err, "epoch %lld, from step %lld on", (long long)at->epoch + 1,
                                      (long long)at->step + 1);
        SAP_TRY(all_fail(t, status, err));
        if (done == 0)
            return SAP_OK;
        add_sums(t, sums, &at->tally);
        at->step += done;
        sap_comm_note(t->comm, at->epoch + 1, at->step);
        SAP_TRY(sap_cuda_get(t->cuda, training->model, &training->model->optimizer, err));
        SAP_TRY(store_if_due(t, due || (!t->share.comm && seconds_are_over(t)), err));
        int64_t rows = at->step * o->batch, all = epoch_rows(t);
        report(t, rows < all ? rows : all, NULL);
    }
    return SAP_OK;
}

/* Rows [first, first + rows) of the validation set that this rank has. */
static sap_status measure_on_gpu(trainer *t, int64_t first, int64_t rows, sap_tally *tally, sap_error *err) {
    sap_loss_sums sums[SAP_OUTPUTS] = {0};
    int64_t batch = t->training.options->batch;
    if (t->held[1] && rows > 0)
        SAP_TRY(sap_cuda_steps_run(t->cuda, 1, NULL, first, rows, batch, 0, NULL, sums, err));
    for (int64_t row = 0; !t->held[1] && row < rows; row += batch) {
        sap_examples examples;
        SAP_TRY(sap_feed_next(t->validation, batch < rows - row ? batch : rows - row, &examples, err));
        SAP_TRY(sap_cuda_step(t->cuda, &examples, 0, NULL, err));
    }
    if (!t->held[1] && rows > 0)
        SAP_TRY(sap_cuda_finish(t->cuda, true, sums, err));
    add_sums(t, sums, tally);
    sap_comm_note(t->comm, t->training.position.epoch + 1, t->training.position.step);
    return SAP_OK;
}

/* ---- An epoch, and what comes after it -------------------------------------------------------------------- */

static sap_status train_epoch(trainer *t, sap_error *err) {
    sap_training *training = &t->training;
    sap_position *at = &training->position;
    const sap_train_options *o = training->options;
    int64_t epoch = at->epoch + 1; /* from 1, as random numbers are keyed */
    uint64_t key = sap_mix(o->seed, (uint64_t)epoch);
    SAP_TRY(sap_feed_epoch(t->train, o->seed, o->in_order ? SAP_EPOCH_STORED : epoch, err));
    if (at->step > 0)
        sap_feed_skip(t->train, at->step * o->batch);
    if (t->cuda)
        SAP_TRY(train_gpu_epoch(t, key, err));
    while (!t->cuda && (o->steps_per_epoch == 0 || at->step < o->steps_per_epoch)) {
        sap_examples examples;
        bool due = false;
        sap_status status = t->share.comm ? SAP_OK : sap_run_check(t->run, err);
        if (status == SAP_OK)
            status = sap_feed_next(t->train, o->batch, &examples, err);
        if (status == SAP_OK && examples.batch_rows == 0)
            break;
        if (status == SAP_OK)
            status = train_step(t, &examples, key, &due, err);
        if (status == SAP_OK)
            status = store_if_due(t, due, err);
        if (status == SAP_ECANCELLED && at->step > 0) /* between two steps: the work so far is kept */
            SAP_TRY(store_checkpoint(t, err));
        if (status == SAP_ECANCELLED)
            status = all_fail(t, status, err);
        SAP_TRY(status);
        int64_t done = at->step * o->batch, all = epoch_rows(t);
        report(t, done < all ? done : all, NULL);
    }
    if (sap_feed_rows(t->train) == 0)
        return sap_error_set(err, SAP_EDATA, "the training set has no rows");
    return check_weights(t, err);
}

/* Measures the next rows of the validation set, from number `first` on. */
static sap_status measure_rows(trainer *t, int64_t first, int64_t rows, double penalty, sap_tally *tally,
                               sap_scores *scores, sap_error *err) {
    if (t->cuda)
        return measure_on_gpu(t, first, rows, tally, err);
    while (rows > 0) {
        sap_examples examples;
        sap_batch_result result;
        SAP_TRY(sap_run_check(&t->patient, err));
        SAP_TRY(sap_feed_next(t->validation, rows < VALIDATION_ROWS ? rows : VALIDATION_ROWS, &examples, err));
        SAP_TRY(run_batch(t, t->measure, &examples, 0, NULL, scores, &result, err));
        add_result(t, &result, batch_loss(t, &result, penalty), examples.rows, true, tally);
        sap_comm_note(t->comm, t->training.position.epoch + 1, t->training.position.step);
        rows -= examples.rows;
    }
    return SAP_OK;
}

/* Where the order of sums is fixed: each shard by itself, and then the shards in order. */
static sap_status measure_shards(trainer *t, double penalty, sap_tally *tally, sap_scores *scores, sap_error *err) {
    const int64_t *begin;
    int32_t shards = sap_feed_shards(t->validation, &begin);
    sap_tally all[SAP_DATASET_SHARDS] = {0};
    for (int32_t s = 0; s < shards; s++)
        SAP_TRY(measure_rows(t, begin[s], begin[s + 1] - begin[s], penalty, &all[s], scores, err));
    for (int32_t s = 0; s < shards; s++) {
        if (t->shares_validation)
            SAP_TRY(sap_ranks_sum_tally(t->comm, &all[s], err)); /* exactly: all ranks but one give zeros */
        sap_tally_add(tally, &all[s]);
    }
    return SAP_OK;
}

static sap_status measure(trainer *t, sap_tally *tally, sap_scores *scores, sap_error *err) {
    double penalty = t->plain ? 0 : sap_penalty_add(t->training.model, NULL);
    if (t->cuda)
        SAP_TRY(sap_cuda_put(t->cuda, t->training.model, &t->training.model->optimizer, err));
    SAP_TRY(sap_feed_epoch(t->validation, t->training.options->seed, SAP_EPOCH_OWN, err));
    if (t->shards)
        return measure_shards(t, penalty, tally, scores, err);
    SAP_TRY(measure_rows(t, 0, sap_feed_own_rows(t->validation), penalty, tally, scores, err));
    return t->shares_validation ? sap_ranks_sum_tally(t->comm, tally, err) : SAP_OK;
}

static sap_status validate(trainer *t, sap_error *err) {
    sap_tally tally = {0};
    sap_scores scores[SAP_OUTPUTS] = {0};
    sap_status status = measure(t, &tally, scores, err);
    if (status == SAP_OK && tally.rows == 0)
        status = sap_error_set(err, SAP_EDATA, "the validation set has no rows");
    if (status == SAP_OK && !isfinite(tally.loss))
        status = sap_error_set(err, SAP_EDATA, "the validation loss is not a finite number in epoch %lld",
                               (long long)t->training.position.epoch + 1);
    if (status == SAP_OK && t->shares_validation)
        status = store_shares(t, true, true, &tally, scores, err);
    else if (status == SAP_OK)
        status = store_results(t, true, &tally, scores, err);
    release_scores(scores);
    return status;
}

static void announce(trainer *t) {
    const sap_history *h = t->training.history;
    sap_text text = {0};
    int64_t epoch = h->epochs - 1;
    sap_text_add(&text, "epoch %lld/%lld:", (long long)t->training.position.epoch,
                 (long long)t->training.options->epochs);
    for (int32_t i = 0; i < h->count; i++) {
        double value = h->values[epoch * h->count + i];
        if (!isnan(value) && strcmp(h->names[i], "learning_rate") != 0)
            sap_text_add(&text, "%s %s %.4f", i ? "," : "", h->names[i], value);
    }
    sap_text_add(&text, ", %.3g s, %.4g samples/s", h->seconds[epoch], (double)epoch_rows(t) / h->seconds[epoch]);
    if (sap_comm_size(t->comm) > 1)
        sap_text_add(&text, ", %.1f %% of it in sums over %d ranks", 100 * t->shared / h->seconds[epoch],
                     sap_comm_size(t->comm));
    if (t->training.callbacks.note[0])
        sap_text_add(&text, "; %s", t->training.callbacks.note);
    report(t, 0, text.data);
    sap_text_release(&text);
    if (t->training.options->on_epoch && sap_comm_rank(t->comm) == 0)
        t->training.options->on_epoch(t->training.options->context, h);
}

/* Everything that comes after the last step of an epoch; the position moves on only with the checkpoint behind it. */
static sap_status end_epoch(trainer *t, sap_error *err) {
    sap_training *training = &t->training;
    sap_position *at = &training->position;
    sap_history *history = training->history;
    const sap_train_options *o = training->options;
    int64_t frequency = o->validation_freq > 0 ? o->validation_freq : 1;
    SAP_TRY(sap_history_grow(history, err));
    SAP_TRY(store_shares(t, false, is_summed(t), &at->tally, at->scores, err));
    if (t->validation && (at->epoch + 1) % frequency == 0)
        SAP_TRY(validate(t, err));
    sap_history_set(history, "learning_rate", sap_optimizer_rate(&training->model->optimizer));
    history->seconds[history->epochs - 1] = at->seconds + sap_seconds() - t->begun;
    history->ended[history->epochs - 1] = wall_clock();
    SAP_TRY(sap_ranks_align(t->comm, training->model, err));
    sap_status status = sap_callbacks_epoch_end(&training->callbacks, at->epoch, err);
    if (status != SAP_OK || sap_comm_size(t->comm) > 1)
        SAP_TRY(sap_comm_agree(t->comm, status, err)); /* files are written by rank 0 alone */
    at->epoch++;
    at->step = 0;
    at->tally = (sap_tally){0};
    SAP_TRY(store_checkpoint(t, err));
    announce(t);
    return SAP_OK;
}

static sap_status run_epochs(trainer *t, sap_error *err) {
    sap_training *training = &t->training;
    sap_position *at = &training->position;
    while (at->epoch < training->options->epochs && !training->callbacks.stop) {
        if (at->step == 0) {
            at->seconds = 0;
            SAP_TRY(sap_callbacks_epoch_begin(&training->callbacks, at->epoch, err));
            SAP_TRY(sap_comm_broadcast(t->comm, &training->model->optimizer.learning_rate, sizeof(double), err));
        }
        t->begun = sap_seconds();
        t->together = sap_comm_seconds(t->comm);
        SAP_TRY(train_epoch(t, err));
        t->shared = sap_comm_seconds(t->comm) - t->together;
        sap_status status = end_epoch(t, err);
        if (status != SAP_OK && training->history->epochs > at->epoch - training->options->initial_epoch)
            training->history->epochs--; /* it is not whole */
        SAP_TRY(status);
    }
    SAP_TRY(sap_callbacks_finish(&training->callbacks, err));
    sap_optimizer_finish(&training->model->optimizer, training->model->values);
    return SAP_OK;
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

static sap_status check_options(const sap_model *model, const sap_train_options *o, sap_error *err) {
    if (o->epochs < 1 || o->epochs > INT32_MAX || o->initial_epoch < 0 || o->initial_epoch >= o->epochs)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %lld epochs, from %lld on", model->name, (long long)o->epochs,
                             (long long)o->initial_epoch);
    if (o->batch < 1 || o->batch > INT32_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a batch of %lld rows", model->name, (long long)o->batch);
    if (o->steps_per_epoch < 0 || o->validation_freq < 0 || o->checkpoint_steps < 0 || !(o->checkpoint_seconds >= 0))
        return sap_error_set(err, SAP_EARGUMENT,
                             "%s: %lld steps an epoch, validation every %lld epochs, checkpoints every %lld steps and "
                             "%g seconds",
                             model->name, (long long)o->steps_per_epoch, (long long)o->validation_freq,
                             (long long)o->checkpoint_steps, o->checkpoint_seconds);
    if (o->tf32 && (o->float32 || o->device != SAP_DEVICE_CUDA))
        return sap_error_set(err, o->float32 ? SAP_EARGUMENT : SAP_EUNSUPPORTED, "%s: training in tf32 %s", model->name,
                             o->float32 ? "and float32 at once" : "needs a GPU");
    if (model->output_count > SAP_OUTPUTS)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model has %d outputs; at most %d can be trained",
                             model->name, model->output_count, SAP_OUTPUTS);
    return SAP_OK;
}

static sap_status check_losses(trainer *t, sap_error *err) {
    const sap_model *model = t->training.model;
    const sap_train_options *options = t->training.options;
    for (int32_t o = 0; o < model->output_count; o++) {
        const sap_node *node = &model->nodes[model->outputs[o]];
        sap_loss *loss = &t->training.losses[o];
        SAP_TRY(sap_loss_check(options->losses ? &options->losses[o] : &(sap_loss){0}, loss, err));
        if (!options->auc || loss->kind == SAP_LOSS_NONE)
            continue;
        if (node->shape.rank > 1)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: AUC is for outputs without time steps",
                                 node->layer->where);
        t->values[o] = sap_shape_values(&node->shape);
    }
    return SAP_OK;
}

/* The optimizer's state: that of the model where it is to go on, else anew. */
static sap_status open_optimizer(sap_model *model, const sap_train_options *options, sap_error *err) {
    sap_optimizer settings;
    SAP_TRY(sap_optimizer_check(&options->optimizer, &settings, err));
    sap_stretch *stretches = calloc((size_t)model->weight_count + 1, sizeof *stretches);
    if (!stretches)
        return sap_error_memory(err, model->name);
    int32_t count = 0;
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_layer_weight *weight = model->weight_of[i];
        if (!model->weights[i].trainable)
            continue;
        bool decays = true;
        for (size_t k = 0; k < settings.decay_except_count; k++)
            decays = decays && !strstr(weight->name, settings.decay_except[k]);
        stretches[count++] = (sap_stretch){weight->offset, sap_shape_values(&weight->shape), decays};
    }
    sap_optimizer_state before = model->optimizer;
    sap_status status = sap_optimizer_init(&model->optimizer, &settings, model->trainable_count, stretches, count, err);
    free(stretches);
    if (status != SAP_OK) {
        model->optimizer = before;
        return status;
    }
    bool same = options->keep_optimizer && before.iteration > 0 && before.settings.kind == settings.kind;
    for (int i = 0; i < SAP_SLOTS; i++)
        same = same && (before.slots[i] != NULL) == (model->optimizer.slots[i] != NULL);
    for (int i = 0; same && i < SAP_SLOTS; i++)
        if (before.slots[i])
            memcpy(model->optimizer.slots[i], before.slots[i], (size_t)model->trainable_count * sizeof(float));
    if (same)
        model->optimizer.iteration = before.iteration;
    sap_optimizer_release(&before);
    return SAP_OK;
}

sap_status sap_train_shards(const sap_train_options *options, int32_t *from, int32_t *to, sap_error *err) {
    int32_t groups = options->deterministic ? sap_share_groups(options->batch) : SAP_DATASET_SHARDS;
    int rank = sap_comm_rank(options->comm), size = sap_comm_size(options->comm);
    if (size > groups && options->deterministic)
        return sap_error_set(err, SAP_EARGUMENT,
                             "%d ranks: sums in a fixed order, of batches of %lld rows, are shared by at most %d", size,
                             (long long)options->batch, (int)groups);
    if (size > groups)
        return sap_error_set(err, SAP_EARGUMENT, "%d ranks: a training set has %d shards, at least one for each rank",
                             size, (int)groups);
    sap_share_own(groups, rank, size, from, to);
    *from *= SAP_DATASET_SHARDS / groups;
    *to *= SAP_DATASET_SHARDS / groups;
    return SAP_OK;
}

/* How batches are shared with other ranks; a feed of one shard has no groups. */
static sap_status open_share(trainer *t, sap_error *err) {
    const sap_train_options *options = t->training.options;
    t->share.comm = sap_comm_size(t->comm) > 1 ? t->comm : NULL;
    if (options->deterministic && sap_feed_shards(t->train, NULL) == SAP_DATASET_SHARDS) {
        t->share.groups = sap_share_groups(options->batch);
        sap_share_own(t->share.groups, sap_comm_rank(t->comm), sap_comm_size(t->comm), &t->share.group_from,
                      &t->share.group_to);
        t->shards = malloc((size_t)options->batch);
        if (!t->shards)
            return sap_error_memory(err, t->training.model->name);
        t->share.shards = t->shards;
    }
    sap_program_share(t->program, &t->share);
    return SAP_OK;
}

static sap_status open_trainer(trainer *t, sap_error *err) {
    sap_training *training = &t->training;
    sap_model *model = training->model;
    const sap_train_options *options = training->options;
    SAP_TRY(check_losses(t, err));
    const sap_kernels *kernels = options->bf16 ? sap_kernels_bf16() : NULL; /* NULL: the best of float32 */
    if (options->bf16 && (!kernels || options->device != SAP_DEVICE_CPU))
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: training in bf16 needs a CPU with AMX, and a system that lets it be used",
                             model->name);
    SAP_TRY(sap_program_open(model, SAP_TRAIN, training->losses, kernels, &t->patient, &t->program, err));
    SAP_TRY(open_share(t, err));
    for (int32_t o = 0; o < model->output_count; o++)
        t->last[o] = sap_program_logits(t->program, o);
    if (t->validation) {
        sap_loss losses[SAP_OUTPUTS];
        memcpy(losses, training->losses, sizeof losses);
        for (int32_t o = 0; o < model->output_count; o++)
            losses[o].class_weight = NULL; /* those are for training alone */
        SAP_TRY(sap_program_open(model, SAP_MEASURE, losses, NULL, &t->patient, &t->measure, err));
    }
    t->gradients = aligned_alloc(64, ((size_t)(model->trainable_count + SAP_FLAGS) * sizeof(float) + 127) / 64 * 64);
    if (!t->gradients)
        return sap_error_memory(err, model->name);
    SAP_TRY(open_optimizer(model, options, err));
    SAP_TRY(sap_training_config_set(model, &model->optimizer.settings, training->losses, err));
    SAP_TRY(sap_history_init(model, training->losses, options->auc, t->validation != NULL, training->history, err));
    training->history->first = options->initial_epoch;
    SAP_TRY(sap_callbacks_init(&training->callbacks, model, options->callbacks, options->callback_count,
                               training->history, err));
    training->callbacks.writes = sap_comm_rank(t->comm) == 0;
    training->position.epoch = options->initial_epoch;
    SAP_TRY(sap_ranks_check(training, t->train, t->validation, &t->shares_validation, err));
    bool found = false;
    if (options->checkpoint)
        SAP_TRY(sap_checkpoint_read(training, &found, err));
    if (options->device == SAP_DEVICE_CUDA)
        SAP_TRY(open_gpu(t, err));
    t->stored = sap_seconds();
    return sap_callbacks_begin(&training->callbacks, err);
}

sap_status sap_train(sap_model *model, const sap_train_options *options, sap_feed *train, sap_feed *validation,
                     const sap_run *run, sap_history *history, sap_error *err) {
    SAP_TRY(check_options(model, options, err));
    trainer *t = calloc(1, sizeof *t);
    if (!t)
        return sap_error_memory(err, model->name);
    *t = (trainer){.train = train,
                   .validation = validation,
                   .run = run,
                   .comm = options->comm,
                   .plain = sap_model_is_plain(model)};
    if (run)
        t->patient = *run;
    if (sap_comm_size(t->comm) > 1)
        t->patient.cancel = NULL;
    t->training = (sap_training){
        .model = model,
        .options = options,
        .rows = sap_feed_rows(train),
        .validation_rows = validation ? sap_feed_rows(validation) : 0,
        .initial = sap_hash(model->values, (size_t)model->value_count * sizeof(float), 0),
        .history = history,
    };
    sap_status status = open_trainer(t, err);
    if (status == SAP_OK)
        status = run_epochs(t, err);
    for (int32_t o = 0; o < SAP_OUTPUTS; o++)
        free(t->outputs[o]);
    release_scores(t->training.position.scores);
    sap_callbacks_release(&t->training.callbacks);
    free(t->gradients);
    free(t->shards);
    sap_cuda_close(t->cuda);
    sap_program_close(t->measure);
    sap_program_close(t->program);
    free(t);
    return status;
}
