/* The training loop: epochs, steps, validation, checkpoints. */
#include "checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { VALIDATION_ROWS = 4096 }; /* a batch of validation */
#define REPORT_SECONDS 0.1       /* between reports of progress */

typedef struct trainer {
    sap_model *model;
    const sap_train_options *options;
    sap_feed *train, *validation;
    const sap_run *run;
    sap_program *program, *measure; /* measure: for validation, or NULL */
    float *gradients;
    double reported; /* when */
} trainer;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void report(trainer *t, int64_t epoch, int64_t rows) {
    double time = now();
    if (time - t->reported < REPORT_SECONDS)
        return;
    t->reported = time;
    int64_t total = sap_feed_rows(t->train);
    sap_run_report(t->run, "train", "samples", (uint64_t)((epoch - 1) * total + rows),
                   (uint64_t)(t->options->epochs * total), NULL);
}

static sap_status train_epoch(trainer *t, sap_epoch *epoch, sap_error *err) {
    const sap_kernels *kernels = sap_kernels_best();
    sap_examples examples;
    sap_batch_result sum = {0};
    int64_t rows = 0;
    uint64_t key = sap_mix(t->options->seed, (uint64_t)epoch->epoch);
    SAP_TRY(sap_feed_epoch(t->train, t->options->seed, epoch->epoch, err));
    for (int64_t step = 1;; step++) {
        SAP_TRY(sap_run_check(t->run, err));
        SAP_TRY(sap_feed_next(t->train, t->options->batch, &examples, err));
        if (examples.rows == 0)
            break;
        sap_batch_result result;
        SAP_TRY(sap_program_run(t->program, &examples, key, t->gradients, NULL, &result, err));
        if (!isfinite(result.loss))
            return sap_error_set(err, SAP_EDATA,
                                 "the loss is not a finite number in epoch %lld, step %lld: a smaller learning rate "
                                 "may help, or the features hold NaN",
                                 (long long)epoch->epoch, (long long)step);
        sap_optimizer_step(&t->model->optimizer, kernels, t->model->trainable_count, t->gradients, t->model->values);
        sum.loss += result.loss;
        sum.correct += result.correct;
        rows += examples.rows;
        report(t, epoch->epoch, rows);
    }
    if (rows == 0)
        return sap_error_set(err, SAP_EDATA, "the training set has no rows");
    epoch->loss = sum.loss / (double)rows;
    epoch->accuracy = (double)sum.correct / (double)rows;
    return SAP_OK;
}

static sap_status validate(trainer *t, sap_epoch *epoch, sap_error *err) {
    epoch->validation_loss = epoch->validation_accuracy = (double)NAN;
    if (!t->validation)
        return SAP_OK;
    sap_examples examples;
    sap_batch_result sum = {0};
    int64_t rows = 0;
    SAP_TRY(sap_feed_epoch(t->validation, t->options->seed, -1, err));
    for (;;) {
        SAP_TRY(sap_run_check(t->run, err));
        SAP_TRY(sap_feed_next(t->validation, VALIDATION_ROWS, &examples, err));
        if (examples.rows == 0)
            break;
        sap_batch_result result;
        SAP_TRY(sap_program_run(t->measure, &examples, 0, NULL, NULL, &result, err));
        sum.loss += result.loss;
        sum.correct += result.correct;
        rows += examples.rows;
    }
    if (rows == 0)
        return sap_error_set(err, SAP_EDATA, "the validation set has no rows");
    if (!isfinite(sum.loss))
        return sap_error_set(err, SAP_EDATA, "the validation loss is not a finite number in epoch %lld",
                             (long long)epoch->epoch);
    epoch->validation_loss = sum.loss / (double)rows;
    epoch->validation_accuracy = (double)sum.correct / (double)rows;
    return SAP_OK;
}

/* The last step of an epoch may have spoilt weights that no loss was computed from. */
static sap_status check_weights(const trainer *t, const sap_epoch *epoch, sap_error *err) {
    for (int64_t i = 0; i < t->model->trainable_count; i++)
        if (!isfinite(t->model->values[i]))
            return sap_error_set(err, SAP_EDATA, "a weight is not a finite number after epoch %lld",
                                 (long long)epoch->epoch);
    return SAP_OK;
}

static void announce(trainer *t, const sap_epoch *epoch) {
    char message[200];
    int64_t rows = sap_feed_rows(t->train);
    int length = snprintf(message, sizeof message, "epoch %lld/%lld: loss %.4f, accuracy %.4f", (long long)epoch->epoch,
                          (long long)t->options->epochs, epoch->loss, epoch->accuracy);
    if (t->validation && length > 0 && (size_t)length < sizeof message)
        (void)snprintf(message + length, sizeof message - (size_t)length, ", validation loss %.4f, accuracy %.4f",
                       epoch->validation_loss, epoch->validation_accuracy);
    sap_run_report(t->run, "train", "samples", (uint64_t)(epoch->epoch * rows), (uint64_t)(t->options->epochs * rows),
                   message);
    if (t->options->on_epoch)
        t->options->on_epoch(t->options->context, epoch);
}

static sap_status run_epochs(trainer *t, const sap_checkpoint_key *key, sap_epoch *history, int64_t *count,
                             sap_error *err) {
    while (*count < t->options->epochs) {
        sap_epoch *epoch = &history[*count];
        *epoch = (sap_epoch){.epoch = *count + 1};
        double begin = now();
        SAP_TRY(train_epoch(t, epoch, err));
        SAP_TRY(check_weights(t, epoch, err));
        SAP_TRY(validate(t, epoch, err));
        epoch->seconds = now() - begin;
        ++*count;
        if (t->options->checkpoint)
            SAP_TRY(sap_checkpoint_write(t->model, key, history, *count, err));
        announce(t, epoch);
    }
    return SAP_OK;
}

static sap_status check_options(const sap_model *model, const sap_train_options *options, sap_error *err) {
    if (options->epochs < 1 || options->epochs > INT32_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %lld epochs", model->name, (long long)options->epochs);
    if (options->batch < 1 || options->batch > INT32_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a batch of %lld rows", model->name, (long long)options->batch);
    if (options->loss != SAP_LOSS_CATEGORICAL_CROSSENTROPY)
        return sap_error_set(err, SAP_EARGUMENT, "%s: no such loss: %d", model->name, (int)options->loss);
    return SAP_OK;
}

sap_status sap_train(sap_model *model, const sap_train_options *options, sap_feed *train, sap_feed *validation,
                     const sap_run *run, sap_epoch *history, int64_t *history_count, sap_error *err) {
    *history_count = 0;
    SAP_TRY(check_options(model, options, err));
    SAP_TRY(sap_feed_dense(train, err));
    if (validation)
        SAP_TRY(sap_feed_dense(validation, err));
    sap_optimizer optimizer;
    SAP_TRY(sap_optimizer_check(&options->optimizer, &optimizer, err));
    trainer t = {.model = model, .options = options, .train = train, .validation = validation, .run = run};
    sap_checkpoint_key key = {
        .options = options,
        .optimizer = &optimizer,
        .rows = sap_feed_rows(train),
        .validation_rows = validation ? sap_feed_rows(validation) : 0,
        .initial = sap_hash(model->values, (size_t)model->value_count * sizeof(float), 0),
    };
    sap_status status = sap_program_open(model, SAP_TRAIN, NULL, run, &t.program, err);
    if (status == SAP_OK && validation)
        status = sap_program_open(model, SAP_MEASURE, NULL, run, &t.measure, err);
    if (status != SAP_OK)
        goto done;
    t.gradients = aligned_alloc(64, ((size_t)model->trainable_count * sizeof(float) + 127) / 64 * 64);
    if (!t.gradients) {
        status = sap_error_memory(err, model->name);
        goto done;
    }
    sap_optimizer_release(&model->optimizer);
    status = sap_optimizer_init(&model->optimizer, &optimizer, model->trainable_count, err);
    if (status == SAP_OK && options->checkpoint)
        status = sap_checkpoint_read(model, &key, history, history_count, err);
    if (status == SAP_OK)
        status = run_epochs(&t, &key, history, history_count, err);
done:
    free(t.gradients);
    sap_program_close(t.measure);
    sap_program_close(t.program);
    return status;
}
