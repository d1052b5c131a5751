/* Training: it learns, gives the same bits on any number of threads, goes on from checkpoints, and stops when it
 * must. */
#include "nn_test.h"

#include <math.h>

static sap_error error;
enum { ROWS = 3001, CHECK_ROWS = 501, EPOCHS = 4 };

static random_examples train_rows, check_rows;

typedef struct outcome {
    float *values;
    int64_t count;
    sap_epoch history[EPOCHS];
    int64_t epochs;
    sap_status status;
} outcome;

static void drop_outcome(outcome *o) {
    free(o->values);
    *o = (outcome){0};
}

/* Trains DROPOUT_NET from seed 1. */
static outcome train(int threads, const sap_train_options *options, const sap_run *base) {
    outcome o = {0};
    sap_model *model = NULL;
    sap_feed *feed = NULL, *check = NULL;
    sap_pool *pool = NULL;
    assert_ok(open_text(DROPOUT_NET, 1, &model, &error));
    assert_ok(sap_feed_open_arrays(&train_rows.examples, NULL, &feed, &error));
    assert_ok(sap_feed_open_arrays(&check_rows.examples, NULL, &check, &error));
    assert_ok(sap_pool_open(threads, &pool, &error));
    sap_run run = base ? *base : (sap_run){0};
    run.pool = pool;
    o.status = sap_train(model, options, feed, check, &run, o.history, &o.epochs, &error);
    o.count = model->value_count;
    o.values = calloc((size_t)o.count, sizeof *o.values);
    memcpy(o.values, model->values, (size_t)o.count * sizeof *o.values);
    sap_pool_close(pool);
    sap_feed_close(feed);
    sap_feed_close(check);
    sap_model_close(model);
    return o;
}

static void assert_same(const outcome *a, const outcome *b) {
    assert_int_equal(a->epochs, b->epochs);
    assert_memory_equal(a->values, b->values, (size_t)a->count * sizeof *a->values);
    for (int64_t i = 0; i < a->epochs; i++) {
        const sap_epoch *x = &a->history[i], *y = &b->history[i];
        assert_true(x->epoch == y->epoch && x->loss == y->loss && x->accuracy == y->accuracy &&
                    x->validation_loss == y->validation_loss && x->validation_accuracy == y->validation_accuracy);
    }
}

static void test_learns(void **state) {
    (void)state;
    sap_train_options options = {.epochs = EPOCHS, .batch = 64, .seed = 3};
    options.optimizer.learning_rate = 0.01;
    outcome o = train(1, &options, NULL);
    assert_int_equal(o.status, SAP_OK);
    assert_int_equal(o.epochs, EPOCHS);
    assert_true(o.history[3].epoch == 4 && o.history[3].loss < 0.6 * o.history[0].loss);
    assert_true(o.history[3].validation_accuracy > 0.9 && o.history[3].seconds > 0);
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
    sap_model *model = NULL; /* a checkpoint is a model */
    assert_ok(sap_model_open(path, 0, &model, &error));
    assert_memory_equal(model->values, whole.values, (size_t)whole.count * sizeof *whole.values);
    sap_model_close(model);
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
    assert_ok(sap_file_store(path, "PK rubbish", 10, &error));
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

static void stop_after_two(void *context, const sap_epoch *epoch) {
    watcher *w = context;
    w->epochs++;
    w->cancel = epoch->epoch == 2;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),           cmocka_unit_test(test_threads),
        cmocka_unit_test(test_resume),           cmocka_unit_test(test_nan),
        cmocka_unit_test(test_other_checkpoint), cmocka_unit_test(test_overflow_keeps_checkpoint),
        cmocka_unit_test(test_cancel),           cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
