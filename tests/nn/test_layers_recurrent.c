/* Recurrent layers: settings that are refused, weights as they begin, and dropout, which no file of Keras can show. */
#include "nn_test.h"

#include <math.h>

static sap_error error;

enum { STEPS = 6, ROWS = 300 };

#define SEQUENCE(values)                                                                                               \
    "{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"x\", \"batch_shape\": [null, 6, " values "]}}"
#define CELL(class, settings) "{\"class_name\": \"" class "\", \"config\": {\"name\": \"r\", " settings "}}"
#define AROUND(settings, inner)                                                                                        \
    "{\"class_name\": \"Bidirectional\", \"config\": {\"name\": \"b\", " settings "\"layer\": " inner "}}"

static void assert_refused(const char *json, const char *why) {
    sap_model *model = NULL;
    error = (sap_error){0};
    assert_int_not_equal(open_text(json, 1, &model, &error), SAP_OK);
    assert_contains(error.message, why);
}

static void test_refused(void **state) {
    (void)state;
#define REFUSED(cell, why) assert_refused(SEQUENTIAL(SEQUENCE("2") ", " cell), why)
    REFUSED(CELL("GRU", "\"units\": 3, \"return_state\": true"), "layer \"r\" (GRU): with \"return_state\"");
    REFUSED(CELL("LSTM", "\"units\": 3, \"stateful\": true"), "layer \"r\" (LSTM): with \"stateful\"");
    REFUSED(CELL("GRU", "\"units\": 0"), "\"units\" is 0");
    REFUSED(CELL("GRU", "\"units\": 3, \"dropout\": 1.5"), "\"dropout\" is not between 0 and 1");
    REFUSED(CELL("GRU", "\"units\": 3, \"activation\": \"log_softmax\""), "with the activation log_softmax");
    REFUSED(AROUND("\"merge_mode\": null, ", CELL("GRU", "\"units\": 3")), "\"merge_mode\" other than concat");
    REFUSED(AROUND("", DENSE("d", "3", "relu")), "around a Dense");
    REFUSED(AROUND("", CELL("GRU", "\"units\": 3, \"go_backwards\": true")), "whose first layer goes backwards");
    REFUSED(AROUND("\"backward_layer\": " CELL("GRU", "\"units\": 4, \"go_backwards\": true") ", ",
                   CELL("GRU", "\"units\": 3")),
            "different \"units\"");
    assert_refused(SEQUENTIAL(INPUT("x", "4") ", " CELL("GRU", "\"units\": 3")), "its input is not (time, values)");
}

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 1, &model, &error));
    return model;
}

/* The forget gate's biases begin as 1, all others as their initializer says. */
static void test_forget_bias(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(SEQUENCE("2") ", " CELL("LSTM", "\"units\": 3")));
    assert_int_equal(model->weight_count, 3);
    assert_contains(model->weights[2].path, "bias");
    for (int i = 0; i < 12; i++)
        assert_true(model->weights[2].data[i] == (i >= 3 && i < 6 ? 1 : 0));
    sap_model_close(model);
    model = open_net(SEQUENTIAL(SEQUENCE("2") ", " CELL("LSTM", "\"units\": 3, \"unit_forget_bias\": false")));
    for (int i = 0; i < 12; i++)
        assert_true(model->weights[2].data[i] == 0);
    sap_model_close(model);
}

/* What a model of one output number gives in training for sequences of ones. */
static void train_outputs(const sap_model *model, uint64_t key, float *outputs) {
    float *x = malloc(ROWS * STEPS * sizeof *x);
    int32_t *label = calloc(ROWS, sizeof *label);
    float *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    for (int i = 0; i < ROWS * STEPS; i++)
        x[i] = 1;
    const float *inputs[] = {x};
    const int64_t values[] = {STEPS};
    sap_examples examples = {.rows = ROWS, .inputs = 1, .x = inputs, .values = values, .label = label};
    sap_program *program = NULL;
    sap_batch_result result;
    assert_ok(sap_program_open(model, SAP_TRAIN, NULL, NULL, NULL, &program, &error));
    assert_ok(sap_program_run(program, &examples, key, gradients, &outputs, &result, &error));
    sap_program_close(program);
    free(gradients);
    free(label);
    free(x);
}

/* Each row has one of two values, `dropped` in a share of `rate`; another epoch drops others. */
static void check_two_values(const char *json, float kept, float dropped, double rate) {
    sap_model *model = open_net(json);
    model->weights[0].data[0] = 1;
    model->weights[1].data[0] = 1;
    float outputs[ROWS], later[ROWS];
    train_outputs(model, 5, outputs);
    train_outputs(model, 6, later);
    int count = 0, changed = 0;
    for (int i = 0; i < ROWS; i++) {
        if (fabsf(outputs[i] - kept) > 1e-3F * kept && outputs[i] != dropped)
            fail_msg("row %d gives %g, neither %g nor %g", i, (double)outputs[i], (double)kept, (double)dropped);
        count += outputs[i] == dropped;
        changed += outputs[i] != later[i];
    }
    double spread = 4 * sqrt(rate * (1 - rate) * ROWS); /* four standard deviations */
    assert_true(fabs(count - rate * ROWS) < spread);
    assert_true(fabs(changed - 2 * rate * (1 - rate) * ROWS) < 2 * spread);
    sap_model_close(model);
}

/* With h' = x + h, masks that are constant in time leave sums of six equal terms or powers; a new mask at each step
 * would give other numbers. */
static void test_dropout_is_constant_in_time(void **state) {
    (void)state;
#define SUM "\"units\": 1, \"use_bias\": false, \"activation\": \"linear\", "
    check_two_values(SEQUENTIAL(SEQUENCE("1") ", " CELL("SimpleRNN", SUM "\"dropout\": 0.25")), 6 / 0.75F, 0, 0.25);
    /* 1 + m + … + m^5, m = 2 or 0 */
    check_two_values(SEQUENTIAL(SEQUENCE("1") ", " CELL("SimpleRNN", SUM "\"recurrent_dropout\": 0.5")), 63, 1, 0.5);
}

/* The mean loss of a training step with the same dropout each time. */
static double loss_of(sap_program *program, const sap_examples *examples, float *gradients) {
    sap_batch_result result;
    assert_ok(sap_program_run(program, examples, 77, gradients, NULL, &result, &error));
    return sap_loss_mean(&result.outputs[0]);
}

/* Gradients in training are those of the loss in training: dropout is the same forward and backward. */
static void check_gradients(const char *json) {
    sap_model *model = open_net(json);
    float *x = malloc(ROWS * STEPS * 2 * sizeof *x), *other = calloc((size_t)model->trainable_count, sizeof *other);
    int32_t *label = malloc(ROWS * sizeof *label);
    for (int i = 0; i < ROWS * STEPS * 2; i++)
        x[i] = (float)(2 * sap_unit(sap_mix(8, (uint64_t)i)) - 1);
    for (int i = 0; i < ROWS; i++)
        label[i] = (int32_t)(sap_mix(9, (uint64_t)i) % 3);
    float *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    const float *inputs[] = {x};
    const int64_t values[] = {STEPS * 2};
    sap_examples examples = {.rows = ROWS, .inputs = 1, .x = inputs, .values = values, .label = label};
    sap_program *program = NULL;
    assert_ok(sap_program_open(model, SAP_TRAIN, NULL, NULL, NULL, &program, &error));
    (void)loss_of(program, &examples, gradients);
    for (int64_t i = 0; i < model->trainable_count; i += 1 + model->trainable_count / 40) {
        float old = model->values[i], step = 2e-2F;
        model->values[i] = old + step;
        double up = loss_of(program, &examples, other);
        model->values[i] = old - step;
        double slope = (up - loss_of(program, &examples, other)) / (2 * (double)step);
        model->values[i] = old;
        if (fabs(slope - (double)gradients[i]) > 1e-4 + 2e-3 * fabs(slope))
            fail_msg("parameter %lld: gradient %g, slope %g", (long long)i, (double)gradients[i], slope);
    }
    sap_program_close(program);
    sap_model_close(model);
    free(x);
    free(other);
    free(label);
    free(gradients);
}

static void test_dropout_gradients(void **state) {
    (void)state;
#define NET(class, settings) SEQUENTIAL(SEQUENCE("2") ", " CELL(class, settings) ", " DENSE("c", "3", "softmax"))
    check_gradients(NET("GRU", "\"units\": 5, \"dropout\": 0.3"));
    check_gradients(NET("GRU", "\"units\": 5, \"dropout\": 0.3, \"recurrent_dropout\": 0.4"));
    check_gradients(NET("GRU", "\"units\": 5, \"recurrent_dropout\": 0.4, \"reset_after\": false"));
    check_gradients(NET("LSTM", "\"units\": 4, \"dropout\": 0.3, \"recurrent_dropout\": 0.4"));
    check_gradients(SEQUENTIAL(SEQUENCE("2") ", " AROUND(
        "\"merge_mode\": \"mul\", ", CELL("LSTM", "\"units\": 4, \"dropout\": 0.3, "
                                                  "\"recurrent_dropout\": 0.4")) ", " DENSE("c", "3", "softmax")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_forget_bias),
        cmocka_unit_test(test_dropout_is_constant_in_time),
        cmocka_unit_test(test_dropout_gradients),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_scratch();
    return failed;
}
