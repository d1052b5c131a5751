/* Callbacks: what they refuse, where models are written, and files that are decided by the history alone. Their decisions are
 * compared with Keras' in test_training_parity.py. */
#include "nn/callbacks.h"
#include "nn_test.h"

#include <math.h>

static sap_error error;
static const sap_loss loss;
static sap_model *model;
static sap_history history;

static int set_up(void **state) {
    (void)state;
    history = (sap_history){0};
    assert_ok(open_text(DROPOUT_NET, 1, &model, &error));
    return sap_history_init(model, &loss, true, true, &history, &error);
}

static int tear_down(void **state) {
    (void)state;
    sap_history_release(&history);
    sap_model_close(model);
    return 0;
}

static void add_epoch(sap_callbacks *callbacks, int64_t epoch, double value) {
    assert_ok(sap_history_grow(&history, &error));
    sap_history_set(&history, "val_loss", value);
    sap_history_set(&history, "val_auc", 1 - value);
    history.seconds[epoch] = 1;
    history.ended[epoch] = (double)(10 + epoch);
    assert_ok(sap_callbacks_epoch_end(callbacks, epoch, &error));
}

static void test_history(void **state) {
    (void)state;
    static const char *const names[] = {"accuracy", "auc",      "loss",         "val_accuracy",
                                        "val_auc",  "val_loss", "learning_rate"};
    assert_int_equal(history.count, 7);
    for (int i = 0; i < 7; i++)
        assert_string_equal(history.names[i], names[i]);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        sap_callback callback;
        const char *message;
    } wrong[] = {
        {{.monitor = "val_los"}, "nothing is called \"val_los\"; measured are accuracy, auc, loss"},
        {{.monitor = "learning_rate"}, "say whether less or more"},
        {{.patience = -1}, "patience -1"},
        {{.kind = SAP_CALLBACK_REDUCE_ON_PLATEAU, .factor = 1}, "a factor of 1"},
        {{.kind = SAP_CALLBACK_MODEL_CHECKPOINT}, "it needs a path"},
        {{.kind = SAP_CALLBACK_CSV, .path = ""}, "it needs a path"},
        {{.kind = SAP_CALLBACK_LEARNING_RATE}, "it needs a function"},
        {{.kind = (sap_callback_kind)77}, "no such callback"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sap_callbacks callbacks;
        assert_int_equal(sap_callbacks_init(&callbacks, model, &wrong[i].callback, 1, &history, &error), SAP_EARGUMENT);
        assert_contains(error.message, wrong[i].message);
        sap_callbacks_release(&callbacks);
    }
}

static void test_schedules_own_the_rate(void **state) {
    (void)state;
    sap_callbacks callbacks;
    const sap_callback reduce = {.kind = SAP_CALLBACK_REDUCE_ON_PLATEAU};
    assert_ok(sap_callbacks_init(&callbacks, model, &reduce, 1, &history, &error));
    model->optimizer.settings.schedule.warmup_steps = 3;
    assert_int_equal(sap_callbacks_begin(&callbacks, &error), SAP_EARGUMENT);
    assert_contains(error.message, "the optimizer has a schedule");
    sap_callbacks_release(&callbacks);
}

static void test_models_are_written(void **state) {
    (void)state;
    static const double values[] = {0.5, 0.7, 0.25};
    char all[300], best[300], name[100], found[300];
    (void)snprintf(all, sizeof all, "%s", scratch("all-{epoch:03d}-{val_auc:.2f}.keras"));
    (void)snprintf(best, sizeof best, "%s", scratch("best.keras"));
    const sap_callback list[] = {
        {.kind = SAP_CALLBACK_MODEL_CHECKPOINT, .path = all},
        {.kind = SAP_CALLBACK_MODEL_CHECKPOINT, .path = best, .save_best_only = true, .monitor = "val_auc"},
    };
    sap_callbacks callbacks;
    assert_ok(sap_callbacks_init(&callbacks, model, list, 2, &history, &error));
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        (void)unlink(best);
        add_epoch(&callbacks, epoch, values[epoch]);
        assert_true(sap_path_exists(best) == (epoch != 1));
        (void)snprintf(name, sizeof name, "all-%03d-%.2f.keras", (int)epoch + 1, 1 - values[epoch]);
        (void)snprintf(found, sizeof found, "%s", scratch(name));
        assert_true(sap_path_exists(found));
    }
    sap_model *again = NULL;
    assert_ok(sap_model_open(found, 0, &again, &error));
    assert_memory_equal(again->values, model->values, (size_t)model->value_count * sizeof(float));
    sap_model_close(again);
    sap_callbacks_release(&callbacks);
}

static void test_bad_paths(void **state) {
    (void)state;
    static const char *const wrong[] = {"a{nothing}", "a{epoch:x}", "a{epoch:99999d}", "a{val_loss:d}",
                                        "a{val_loss:.99f}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sap_callbacks callbacks;
        const sap_callback save = {.kind = SAP_CALLBACK_MODEL_CHECKPOINT, .path = wrong[i]};
        assert_ok(sap_callbacks_init(&callbacks, model, &save, 1, &history, &error));
        assert_ok(sap_history_grow(&history, &error));
        assert_int_equal(sap_callbacks_epoch_end(&callbacks, 0, &error), SAP_EARGUMENT);
        assert_contains(error.message, wrong[i]);
        sap_callbacks_release(&callbacks);
    }
}

/* A training that goes on writes the files as if it had not been interrupted. */
static void test_files_after_an_interruption(void **state) {
    (void)state;
    char csv[300], folder[300], path[400], *whole[2], *again[2];
    size_t length[2], length_again[2];
    (void)snprintf(csv, sizeof csv, "%s", scratch("log.csv"));
    (void)snprintf(folder, sizeof folder, "%s", scratch("events"));
    (void)snprintf(path, sizeof path, "%s/validation/events.out.tfevents.sapwood", folder);
    const sap_callback list[] = {{.kind = SAP_CALLBACK_CSV, .path = csv},
                                 {.kind = SAP_CALLBACK_TENSORBOARD, .path = folder}};
    sap_callbacks callbacks;
    assert_ok(sap_callbacks_init(&callbacks, model, list, 2, &history, &error));
    assert_ok(sap_callbacks_begin(&callbacks, &error));
    for (int64_t epoch = 0; epoch < 3; epoch++)
        add_epoch(&callbacks, epoch, 0.5);
    assert_ok(sap_file_load(csv, 1 << 20, &whole[0], &length[0], &error));
    assert_ok(sap_file_load(path, 1 << 20, &whole[1], &length[1], &error));
    assert_contains(whole[0], "epoch,accuracy,auc,learning_rate,loss,val_accuracy,val_auc,val_loss\r\n0,NA,NA,NA");
    history.epochs = 1; /* what a checkpoint had */
    assert_ok(sap_callbacks_begin(&callbacks, &error));
    add_epoch(&callbacks, 1, 0.5);
    add_epoch(&callbacks, 2, 0.5);
    assert_ok(sap_file_load(csv, 1 << 20, &again[0], &length_again[0], &error));
    assert_ok(sap_file_load(path, 1 << 20, &again[1], &length_again[1], &error));
    for (int i = 0; i < 2; i++) {
        assert_true(length[i] == length_again[i] && memcmp(whole[i], again[i], length[i]) == 0);
        free(whole[i]);
        free(again[i]);
    }
    sap_callbacks_release(&callbacks);
}

static int remove_files(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_history, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_schedules_own_the_rate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_models_are_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_after_an_interruption, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, remove_files);
}
