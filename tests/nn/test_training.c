/* Training: it learns, gives the same bits on any number of threads, goes on from checkpoints, and stops when it
 * must. */
#include "nn_test.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static sap_error error;
enum { ROWS = 3001, CHECK_ROWS = 501, EPOCHS = 4 };

static random_examples train_rows, check_rows;

typedef struct outcome {
    float *values;
    int64_t count;
    sap_history history;
    int64_t epochs;
    sap_status status;
} outcome;

static void drop_outcome(outcome *o) {
    free(o->values);
    sap_history_release(&o->history);
    *o = (outcome){0};
}

/* Trains a network from seed 1. */
static outcome train_net(const char *net, int threads, const sap_train_options *options, const sap_run *base) {
    outcome o = {0};
    sap_model *model = NULL;
    sap_feed *feed = NULL, *check = NULL;
    sap_pool *pool = NULL;
    assert_ok(open_text(net, 1, &model, &error));
    if (threads > 0)
        assert_ok(sap_pool_open(threads, &pool, &error));
    sap_run run = base ? *base : (sap_run){0};
    run.pool = pool;
    assert_ok(sap_feed_open_arrays(&train_rows.examples, &run, &feed, &error));
    assert_ok(sap_feed_open_arrays(&check_rows.examples, &run, &check, &error));
    o.status = sap_train(model, options, feed, check, &run, &o.history, &error);
    o.epochs = o.history.epochs;
    o.count = model->value_count;
    o.values = calloc((size_t)o.count, sizeof *o.values);
    memcpy(o.values, model->values, (size_t)o.count * sizeof *o.values);
    sap_feed_close(feed);
    sap_feed_close(check);
    sap_pool_close(pool);
    sap_model_close(model);
    return o;
}

static outcome train(int threads, const sap_train_options *options, const sap_run *base) {
    return train_net(DROPOUT_NET, threads, options, base);
}

static double value_of(const outcome *o, int64_t epoch, const char *name) {
    double value = sap_history_value(&o->history, epoch, name);
    assert_true(!isnan(value));
    return value;
}

static void assert_same(const outcome *a, const outcome *b) {
    assert_int_equal(a->epochs, b->epochs);
    assert_int_equal(a->history.count, b->history.count);
    assert_memory_equal(a->values, b->values, (size_t)a->count * sizeof *a->values);
    assert_memory_equal(a->history.values, b->history.values,
                        (size_t)(a->epochs * a->history.count) * sizeof *a->history.values);
}

static void test_learns(void **state) {
    (void)state;
    sap_train_options options = {.epochs = EPOCHS, .batch = 64, .seed = 3};
    options.optimizer.learning_rate = 0.01;
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    assert_int_equal(o.epochs, EPOCHS);
    assert_true(value_of(&o, 3, "loss") < 0.6 * value_of(&o, 0, "loss"));
    assert_true(value_of(&o, 3, "val_accuracy") > 0.9 && o.history.seconds[3] > 0);
    assert_true(isnan(sap_history_value(&o.history, 3, "auc")) && isnan(sap_history_value(&o.history, 4, "loss")));
    static const char *const names[] = {"accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"};
    assert_int_equal(o.history.count, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(o.history.names[i], names[i]);
    drop_outcome(&o);
}

/* 2,500 rows a batch are enough for threads to be used. */
static void test_threads(void **state) {
    (void)state;
    static const int64_t batches[] = {100, 2500};
    for (int b = 0; b < 2; b++) {
        sap_train_options options = {.epochs = 2, .batch = batches[b], .seed = 3};
        outcome one = train(1, &options, NULL);
        assert_int_equal(one.status, SAP_OK);
        static const int threads[] = {2, 3, 7, 16};
        for (int t = 0; t < 4; t++) {
            outcome more = train(threads[t], &options, NULL);
            assert_same(&one, &more);
            drop_outcome(&more);
        }
        options.seed = 4;
        outcome other = train(1, &options, NULL);
        assert_memory_not_equal(one.values, other.values, (size_t)one.count * sizeof *one.values);
        drop_outcome(&other);
        drop_outcome(&one);
    }
}

static void check_resume(sap_optimizer optimizer) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("checkpoint.keras"));
    (void)unlink(path);
    sap_train_options options = {.epochs = EPOCHS, .batch = 100, .seed = 3, .optimizer = optimizer};
    outcome whole = train(1, &options, NULL);
    options.checkpoint = path;
    options.epochs = 2;
    outcome half = train(1, &options, NULL);
    assert_int_equal(half.epochs, 2);
    options.epochs = EPOCHS;
    outcome resumed = train(2, &options, NULL);
    assert_int_equal(resumed.status, SAP_OK);
    assert_same(&whole, &resumed);
    outcome again = train(1, &options, NULL); /* nothing is left to do */
    assert_same(&whole, &again);
    drop_outcome(&whole);
    drop_outcome(&half);
    drop_outcome(&resumed);
    drop_outcome(&again);
}

static void test_resume(void **state) {
    (void)state;
    check_resume((sap_optimizer){0});
    check_resume((sap_optimizer){.kind = SAP_OPTIMIZER_SGD});
    check_resume((sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .momentum = 0.9, .nesterov = true});
    check_resume((sap_optimizer){.amsgrad = true, .ema_momentum = 0.9, .global_clipnorm = 0.5});
    check_resume((sap_optimizer){.kind = SAP_OPTIMIZER_RADAM,
                                 .schedule = {.kind = SAP_SCHEDULE_COSINE, .decay_steps = 60, .warmup_steps = 10}});
}

/* Everything that a training can carry from step to step. */
static const sap_callback all_callbacks[] = {
    {.kind = SAP_CALLBACK_REDUCE_ON_PLATEAU, .monitor = "loss", .patience = 1, .min_delta = 0.2, .cooldown = 1},
    {.kind = SAP_CALLBACK_EARLY_STOPPING, .monitor = "val_accuracy", .patience = 9, .restore_best_weights = true},
};

static sap_train_options full_options(const char *checkpoint) {
    return (sap_train_options){
        .epochs = EPOCHS,
        .batch = 64,
        .seed = 3,
        .auc = true,
        .optimizer = {.learning_rate = 0.003, .clipnorm = 1},
        .callbacks = all_callbacks,
        .callback_count = 2,
        .checkpoint = checkpoint,
        .checkpoint_steps = 7,
    };
}

/* Asks to stop once so many samples were seen. */
typedef struct stopper {
    uint64_t at;
    volatile int cancel;
} stopper;

static void stop_at(void *context, const sap_progress *progress) {
    stopper *s = context;
    if (progress->done >= s->at)
        s->cancel = 1;
}

/* Cancelled in mid-epoch, again and again, and taken up each time. */
static void test_resume_in_mid_epoch(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("cancelled"));
    sap_train_options options = full_options(NULL);
    outcome whole = train(1, &options, NULL);
    assert_int_equal(whole.status, SAP_OK);
    assert_true(value_of(&whole, EPOCHS - 1, "learning_rate") < 0.003 && value_of(&whole, 0, "auc") > 0.5);
    options.checkpoint = path;
    options.checkpoint_steps = 0;
    int cancelled = 0;
    for (int part = 0; part < 30; part++) {
        stopper s = {.at = (uint64_t)(450 + part * 700)};
        sap_run run = {.progress = stop_at, .context = &s, .cancel = &s.cancel};
        outcome o = train(1 + part % 2, &options, &run);
        cancelled += o.status == SAP_ECANCELLED;
        if (o.status == SAP_OK) {
            assert_same(&whole, &o);
            drop_outcome(&o);
            break;
        }
        assert_int_equal(o.status, SAP_ECANCELLED);
        drop_outcome(&o);
        assert_true(part < 29);
    }
    assert_true(cancelled > 0);
    drop_outcome(&whole);
}

/* Killed at a random moment, taken up, killed again. */
static void test_kill(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("killed"));
    sap_train_options options = full_options(NULL);
    outcome whole = train(0, &options, NULL);
    options = full_options(path);
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    double seconds = 0;
    for (int64_t e = 0; e < EPOCHS; e++)
        seconds += whole.history.seconds[e];
    for (int part = 0; part < 3; part++) {
        double wait = seconds * 0.6 * sap_unit(sap_mix((uint64_t)now.tv_nsec, (uint64_t)part));
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            outcome o = train(0, &options, NULL);
            _exit(o.status == SAP_OK ? 0 : 1);
        }
        struct timespec pause = {(time_t)wait, (long)(1e9 * (wait - floor(wait)))};
        (void)nanosleep(&pause, NULL);
        (void)kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    outcome resumed = train(0, &options, NULL);
    assert_int_equal(resumed.status, SAP_OK);
    assert_same(&whole, &resumed);
    drop_outcome(&whole);
    drop_outcome(&resumed);
}

/* A disk that is full leaves the last checkpoint as it was. */
static void test_full_disk(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("full"));
    sap_train_options options = full_options(NULL);
    options.auc = false;
    outcome whole = train(0, &options, NULL);
    options.checkpoint = path;
    options.epochs = 2;
    outcome half = train(0, &options, NULL);
    char *before = NULL, *after = NULL;
    size_t length = 0, length_after = 0;
    assert_ok(sap_file_load(path, 1 << 30, &before, &length, &error));
    options.epochs = EPOCHS;
    struct rlimit was, limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    limit = (struct rlimit){length / 2, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    outcome failed = train(0, &options, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(failed.status, SAP_EIO);
    assert_contains(error.message, "full");
    assert_ok(sap_file_load(path, 1 << 30, &after, &length_after, &error));
    assert_true(length == length_after && memcmp(before, after, length) == 0);
    outcome resumed = train(0, &options, NULL);
    assert_same(&whole, &resumed);
    free(before);
    free(after);
    drop_outcome(&whole);
    drop_outcome(&half);
    drop_outcome(&failed);
    drop_outcome(&resumed);
}

/* No byte of a checkpoint can be changed or missing without being noticed. */
static void test_damaged_checkpoint(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("damaged"));
    sap_train_options options = full_options(path);
    options.epochs = 1;
    outcome o = train(0, &options, NULL);
    drop_outcome(&o);
    char *bytes = NULL;
    size_t length = 0;
    assert_ok(sap_file_load(path, 1 << 30, &bytes, &length, &error));
    for (int i = 0; i < 60; i++) {
        size_t at = (size_t)(sap_unit(sap_mix(8, (uint64_t)i)) * (double)length);
        if (i < 20)
            at = (size_t)i;
        bytes[at] = (char)(bytes[at] ^ 0x41);
        assert_ok(sap_file_store(path, bytes, length, &error));
        o = train(0, &options, NULL);
        assert_int_equal(o.status, SAP_EFORMAT);
        drop_outcome(&o);
        bytes[at] = (char)(bytes[at] ^ 0x41);
        assert_ok(sap_file_store(path, bytes, at, &error));
        o = train(0, &options, NULL);
        assert_int_equal(o.status, SAP_EFORMAT);
        assert_contains(error.message, "damaged");
        drop_outcome(&o);
    }
    free(bytes);
}

static void test_other_checkpoint(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("other.keras"));
    sap_train_options options = {.epochs = 2, .batch = 100, .seed = 3, .checkpoint = path};
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    drop_outcome(&o);
    options.batch = 50;
    o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EARGUMENT);
    assert_contains(error.message, "other.keras");
    assert_contains(error.message, "\"batch\" differs");
    drop_outcome(&o);
    options.batch = 100;
    options.epochs = 1;
    o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EARGUMENT);
    drop_outcome(&o);
    assert_ok(sap_file_store(path, "rubbish that is long enough", 27, &error));
    o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EFORMAT);
    drop_outcome(&o);
}

static void test_nan(void **state) {
    (void)state;
    float kept = train_rows.x[14 * 700 + 3];
    train_rows.x[14 * 700 + 3] = NAN;
    sap_train_options options = {.epochs = 1, .batch = 100, .seed = 3};
    outcome o = train(1, &options, NULL);
    train_rows.x[14 * 700 + 3] = kept;
    assert_int_equal(o.status, SAP_EDATA);
    assert_contains(error.message, "epoch 1, step ");
    assert_int_equal(o.epochs, 0);
    drop_outcome(&o);
}

static void test_overflow_keeps_checkpoint(void **state) {
    (void)state;
    char path[256];
    (void)snprintf(path, sizeof path, "%s", scratch("overflow.keras"));
    sap_train_options options = {.epochs = EPOCHS, .batch = 100, .seed = 3, .checkpoint = path};
    options.optimizer = (sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 1e38};
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EDATA);
    assert_int_equal(o.epochs, 0);
    assert_false(sap_path_exists(path)); /* no checkpoint of spoilt weights */
    drop_outcome(&o);
}

typedef struct watcher {
    volatile int cancel;
    uint64_t last, total;
    int messages, epochs;
} watcher;

static void watch(void *context, const sap_progress *progress) {
    watcher *w = context;
    assert_string_equal(progress->stage, "train");
    assert_string_equal(progress->unit, "samples");
    assert_true(progress->done >= w->last && progress->done <= progress->total);
    w->last = progress->done;
    w->total = progress->total;
    w->messages += progress->message != NULL;
}

static void stop_after_two(void *context, const sap_history *history) {
    watcher *w = context;
    w->epochs++;
    w->cancel = history->epochs == 2;
}

static void test_cancel(void **state) {
    (void)state;
    watcher w = {0};
    sap_train_options options = {.epochs = EPOCHS, .batch = 100, .seed = 3, .on_epoch = stop_after_two, .context = &w};
    sap_run run = {.progress = watch, .context = &w, .cancel = &w.cancel};
    outcome o = train(1, &options, &run);
    assert_int_equal(o.status, SAP_ECANCELLED);
    assert_int_equal(o.epochs, 2);
    assert_true(w.epochs == 2 && w.messages == 2 && w.last == 2 * ROWS && w.total == EPOCHS * ROWS);
    drop_outcome(&o);
}

/* Steps, order, first epoch and validation now and then. */
static void test_epochs(void **state) {
    (void)state;
    sap_train_options options = {.epochs = 4,
                                 .batch = 100,
                                 .seed = 3,
                                 .steps_per_epoch = 5,
                                 .initial_epoch = 1,
                                 .validation_freq = 2,
                                 .in_order = true};
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    assert_int_equal(o.epochs, 3);
    assert_int_equal(o.history.first, 1);
    assert_true(!isnan(sap_history_value(&o.history, 0, "val_loss")));
    assert_true(isnan(sap_history_value(&o.history, 1, "val_loss")));
    assert_true(!isnan(sap_history_value(&o.history, 2, "val_loss")));
    /* the same 500 rows in the same order each time: seed and epoch matter through dropout alone */
    options.epochs = 2;
    options.seed = 4;
    outcome other = train(1, &options, NULL);
    assert_true(fabs(value_of(&o, 0, "loss") - value_of(&other, 0, "loss")) < 0.1);
    drop_outcome(&o);
    drop_outcome(&other);
}

#define PENALTY_NET                                                                                                    \
    SEQUENTIAL(INPUT("x", "14") ", {\"class_name\": \"Dense\", \"config\": {\"name\": \"a\", \"units\": 3, "           \
                                "\"activation\": \"softmax\", \"kernel_regularizer\": {\"class_name\": \"L1L2\", "     \
                                "\"config\": {\"l1\": 0.02, \"l2\": 0.03}}, \"kernel_constraint\": {\"class_name\": "  \
                                "\"MaxNorm\", \"config\": {\"max_value\": 0.9, \"axis\": 0}}}}")

/* Penalties are part of the loss and its gradient; constraints hold after each step. */
static void test_penalties(void **state) {
    (void)state;
    sap_model *model = NULL;
    assert_ok(open_text(PENALTY_NET, 1, &model, &error));
    assert_false(sap_model_is_plain(model));
    float *g = calloc((size_t)model->value_count, sizeof *g);
    double penalty = sap_penalty_add(model, g), wanted = 0;
    for (int i = 0; i < 42; i++) {
        double w = (double)model->values[i];
        wanted += 0.02 * fabs(w) + 0.03 * w * w;
        assert_true(fabs((double)g[i] - (0.02 * (w > 0 ? 1 : -1) + 0.06 * w)) < 1e-7);
    }
    assert_true(fabs(penalty - wanted) < 1e-12 && g[42] == 0);
    free(g);
    sap_model_close(model);
    sap_train_options options = {.epochs = 2, .batch = 50, .seed = 3, .optimizer.learning_rate = 0.1};
    outcome o = train_net(PENALTY_NET, 1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    double longest = 0;
    for (int c = 0; c < 3; c++) {
        double norm = 0;
        for (int i = 0; i < 14; i++)
            norm += (double)o.values[i * 3 + c] * (double)o.values[i * 3 + c];
        longest = fmax(longest, sqrt(norm));
    }
    assert_true(longest <= 0.9 + 1e-6 && longest > 0.85);
    drop_outcome(&o);
}

/* With a weight of 0 a class is not learnt; validation does not weigh. */
static void test_class_weights(void **state) {
    (void)state;
    static const double weights[] = {1, 0, 1};
    sap_loss loss = {.class_weight = weights, .class_count = 3};
    sap_train_options options = {.epochs = 2, .batch = 50, .seed = 3, .losses = &loss};
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    assert_true(value_of(&o, 1, "val_accuracy") < 0.72 && value_of(&o, 1, "val_loss") > 1.2 * value_of(&o, 1, "loss"));
    drop_outcome(&o);
}

/* Losses of several outputs add up with their weights; an output without one is not trained, and does not matter. */
static void test_several_outputs(void **state) {
    (void)state;
    float *kind = calloc(ROWS, sizeof *kind), *sum = calloc(ROWS, sizeof *sum);
    for (int i = 0; i < ROWS; i++) {
        kind[i] = (float)train_rows.label[i];
        sum[i] = train_rows.x[14 * i] + 2 * train_rows.x[14 * i + 5];
    }
    sap_examples plain = train_rows.examples;
    train_rows.examples.targets = 2;
    train_rows.examples.y = (const float *const[]){kind, sum};
    train_rows.examples.target_values = (const int64_t[]){1, 1};
    check_rows.examples.targets = 2;
    check_rows.examples.y = train_rows.examples.y; /* its rows are the first of those */
    check_rows.examples.target_values = train_rows.examples.target_values;
    sap_loss losses[] = {{.kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY, .weight = 0.5},
                         {.kind = SAP_LOSS_MEAN_SQUARED_ERROR, .weight = 2}};
    sap_train_options options = {
        .epochs = 5, .batch = 50, .seed = 3, .losses = losses, .optimizer.learning_rate = 0.01};
    outcome o = train_net(TWO_ENDS("a"), 1, &options, NULL), more = train_net(TWO_ENDS("a"), 3, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    assert_same(&o, &more);
    for (int64_t e = 0; e < 5; e++)
        assert_true(fabs(value_of(&o, e, "loss") - 0.5 * value_of(&o, e, "kind_loss") -
                         2 * value_of(&o, e, "sum_loss")) < 1e-9);
    assert_true(value_of(&o, 4, "kind_accuracy") > 0.9 && value_of(&o, 4, "sum_loss") < 0.05);
    assert_true(value_of(&o, 4, "val_sum_loss") < 0.05);
    drop_outcome(&more);
    losses[1].kind = SAP_LOSS_NONE;
    more = train_net(TWO_ENDS("a"), 1, &options, NULL);
    assert_int_equal(more.status, SAP_OK);
    assert_true(value_of(&more, 4, "kind_accuracy") > 0.9);
    assert_true(fabs(value_of(&more, 4, "loss") - 0.5 * value_of(&more, 4, "kind_loss")) < 1e-9);
    drop_outcome(&more);
    drop_outcome(&o);
    train_rows.examples = plain;
    check_rows.examples.targets = 0;
    free(kind);
    free(sum);
}

/* Goes on from the state that the model has, as one training would. */
static void test_keep_optimizer(void **state) {
    (void)state;
    sap_model *model = NULL;
    sap_feed *feed = NULL;
    sap_history history = {0};
    sap_train_options options = {.epochs = 4, .batch = 100, .seed = 3};
    outcome whole = train(0, &options, NULL);
    assert_ok(open_text(DROPOUT_NET, 1, &model, &error));
    assert_ok(sap_feed_open_arrays(&train_rows.examples, NULL, &feed, &error));
    options.epochs = 2;
    assert_ok(sap_train(model, &options, feed, NULL, NULL, &history, &error));
    options.epochs = 4;
    options.initial_epoch = 2;
    options.keep_optimizer = true;
    assert_ok(sap_train(model, &options, feed, NULL, NULL, &history, &error));
    assert_memory_equal(model->values, whole.values, (size_t)whole.count * sizeof *whole.values);
    sap_history_release(&history);
    sap_feed_close(feed);
    sap_model_close(model);
    drop_outcome(&whole);
}

static void test_refused(void **state) {
    (void)state;
    sap_train_options options = {.epochs = 0, .batch = 100};
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EARGUMENT);
    drop_outcome(&o);
    options = (sap_train_options){.epochs = 1, .batch = 0};
    o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EARGUMENT);
    drop_outcome(&o);
    options = (sap_train_options){.epochs = 1, .batch = 10, .optimizer.learning_rate = -1};
    o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_EARGUMENT);
    drop_outcome(&o);
}

static int set_up(void **state) {
    (void)state;
    make_examples(&train_rows, ROWS, 14);
    make_examples(&check_rows, CHECK_ROWS, 14);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free_examples(&train_rows);
    free_examples(&check_rows);
    remove_scratch();
    return 0;
}

/* An argument is the name of the only test to be run. */
int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_other_checkpoint),
        cmocka_unit_test(test_overflow_keeps_checkpoint),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_resume_in_mid_epoch),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_damaged_checkpoint),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_class_weights),
        cmocka_unit_test(test_several_outputs),
        cmocka_unit_test(test_keep_optimizer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
