/* The GPU's engine and kernels against the CPU's: on emulated threads always, and on a GPU where one is. */
#include "nn_test.h"

#include "nn/cuda/cuda_plan.h"

#include <math.h>

static sap_error error;

/* The engine that is tested: cuda_emulation's, or the plug-in's. */
extern const sap_cuda_table sap_plugin_cuda;
extern long emulated_graph_launches(void);

#define DROPOUT(name, rate) "{\"class_name\": \"Dropout\", \"config\": {\"name\": \"" name "\", \"rate\": " rate "}}"
#define CALL(class, name, config, inputs)                                                                              \
    "{\"class_name\": \"" class "\", \"config\": {\"name\": \"" name "\"" config "}, \"inbound_nodes\": [[" inputs "]" \
                                "]"                                                                                    \
                                "}"
#define FROM(name) "[\"" name "\", 0, 0, {}]"
#define FUNCTIONAL(layers, input, output)                                                                              \
    "{\"class_name\": \"Functional\", \"config\": {\"name\": \"net\", \"layers\": [" layers                            \
    "], \"input_layers\": [[\"" input "\", 0, 0]], \"output_layers\": [[\"" output "\", 0, 0]]}}"

/* Rows as the engine takes them, and what they point to. */
typedef struct engine_rows {
    sap_cuda_rows rows;
    const float *x[1], *target[1], *weight[1];
    float label[300];
} engine_rows;

typedef struct fixture {
    sap_model *model;
    random_examples random;
    sap_optimizer_state state;
    sap_arena arena;
    sap_cuda_plan plan;
    sap_cuda_engine *engine;
} fixture;

static const sap_cuda_rows *take_rows(engine_rows *to, const sap_examples *e, int64_t first, int64_t rows) {
    static const int64_t one[] = {1};
    assert_true(rows <= (int64_t)(sizeof to->label / sizeof *to->label));
    for (int64_t r = 0; r < rows; r++)
        to->label[r] = (float)e->label[first + r];
    to->x[0] = e->x[0] + first * e->values[0];
    to->target[0] = to->label;
    to->weight[0] = e->weight ? e->weight + first : NULL;
    to->rows = (sap_cuda_rows){.rows = rows,
                               .x = to->x,
                               .target = to->target,
                               .target_values = one,
                               .weight = e->weight ? to->weight : NULL,
                               .identity = e->identity ? e->identity + first : NULL};
    return &to->rows;
}

static void open_fixture(fixture *f, const char *json, const sap_optimizer *optimizer, int64_t rows, int64_t width,
                         int64_t batch, sap_cuda_precision precision) {
    *f = (fixture){0};
    assert_ok(open_text(json, 3, &f->model, &error));
    make_examples(&f->random, rows, width);
    sap_optimizer full;
    assert_ok(sap_optimizer_check(optimizer, &full, &error));
    assert_ok(sap_optimizer_init(&f->state, &full, f->model->trainable_count, NULL, 0, &error));
    assert_ok(sap_cuda_plan_make(f->model, NULL, &f->state, precision, &f->arena, &f->plan, &error));
    assert_ok(sap_plugin_cuda.open(&f->plan, batch, NULL, &f->engine, &error));
    assert_ok(sap_plugin_cuda.put(f->engine, f->model->values, NULL, &error));
}

static void close_fixture(fixture *f) {
    sap_plugin_cuda.close(f->engine);
    sap_arena_release(&f->arena);
    sap_optimizer_release(&f->state);
    sap_model_close(f->model);
    free_examples(&f->random);
}

static void assert_near(const float *a, const float *b, int64_t n, double relative) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]) && isfinite(b[i]));
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    if (!(sqrt(difference) <= relative * sqrt(norm)))
        fail_msg("differs by %g of its norm %g", sqrt(difference / norm), sqrt(norm));
}

/* ---- Predictions and gradients ------------------------------------------------------------------------------ */

static void check_precise(const char *json, int64_t rows, int64_t width, sap_cuda_precision precision,
                          double tolerance) {
    static const sap_optimizer sgd = {.kind = SAP_OPTIMIZER_SGD};
    fixture f;
    open_fixture(&f, json, &sgd, rows, width, rows, precision);
    int64_t outputs = f.plan.outputs[0].values, count = f.model->trainable_count;
    float *expected = calloc((size_t)(rows * outputs + count), sizeof(float));
    float *found = calloc((size_t)(rows * outputs + count), sizeof(float));
    double loss;
    engine_rows all;
    sap_cuda_result result;
    assert_ok(sap_model_predict(f.model, &f.random.examples, NULL, (float *const[]){expected}, &error));
    assert_ok(sap_model_gradient(f.model, &f.random.examples, NULL, NULL, &loss, expected + rows * outputs, &error));
    assert_ok(sap_plugin_cuda.predict(f.engine, take_rows(&all, &f.random.examples, 0, rows), &found, &error));
    assert_ok(sap_plugin_cuda.gradient(f.engine, &all.rows, found + rows * outputs, &result, &error));
    assert_near(found, expected, rows * outputs, 0.1 * tolerance);
    assert_near(found + rows * outputs, expected + rows * outputs, count, tolerance);
    assert_true(fabs(result.loss / (double)rows - loss) < tolerance * loss);
    free(expected);
    free(found);
    close_fixture(&f);
}

static void check_model(const char *json, int64_t rows, int64_t width) {
    check_precise(json, rows, width, SAP_CUDA_FLOAT32, 1e-5);
}

static void test_dense(void **state) {
    (void)state;
    check_model(SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "50", "relu") ", " DENSE("b", "70", "tanh") ", " DENSE(
                    "c", "3", "softmax")),
                77, 14);
    check_model(SEQUENTIAL(INPUT("x", "5") ", " DENSE("a", "130", "gelu") ", " DENSE("b", "4", "silu") ", " DENSE(
                    "c", "3", "softmax")),
                300, 5);
}

static void test_graph(void **state) {
    (void)state;
    check_model(
        FUNCTIONAL(
            INPUT("x", "6") ", " CALL("Dense", "a", ", \"units\": 8, \"activation\": \"elu\"", FROM("x")) ", " CALL(
                "Dense", "b", ", \"units\": 8, \"activation\": \"softplus\"",
                FROM("x")) ", " CALL("Add", "s", "",
                                     FROM("a") ", " FROM(
                                         "b")) ", " CALL("Concatenate", "k", ", \"axis\": -1",
                                                         FROM("s") ", " FROM("a") ", " FROM(
                                                             "x")) ", " CALL("Activation", "act",
                                                                             ", \"activation\": \"sigmoid\"",
                                                                             FROM("k")) ", " CALL("Dense", "out",
                                                                                                  ", \"units\": 3, "
                                                                                                  "\"activation\": "
                                                                                                  "\"softmax\"",
                                                                                                  FROM("act")),
            "x", "out"),
        33, 6);
}

/* ---- Products in tf32 ---------------------------------------------------------------------------------------- */

static double round_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000) & 0xffffe000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* Both factors are rounded to 10 bits, and their products summed as they are: tiles that are full and that are not. */
static void test_tf32(void **state) {
    (void)state;
    enum { SAMPLES = 77, WIDTH = 21, UNITS = 70 };
    static const sap_optimizer sgd = {.kind = SAP_OPTIMIZER_SGD};
    static float found[SAMPLES * UNITS], expected[SAMPLES * UNITS], plain[SAMPLES * UNITS];
    engine_rows all;
    float *output = found;
    fixture f;
    open_fixture(&f, SEQUENTIAL(INPUT("x", "21") ", " DENSE("a", "70", "linear")), &sgd, SAMPLES, WIDTH, SAMPLES,
                 SAP_CUDA_TF32);
    assert_ok(sap_plugin_cuda.predict(f.engine, take_rows(&all, &f.random.examples, 0, SAMPLES), &output, &error));
    for (int i = 0; i < SAMPLES * UNITS; i++) {
        double sum = 0, unrounded = 0;
        for (int k = 0; k < WIDTH; k++) {
            float left = f.random.x[i / UNITS * WIDTH + k], right = f.model->values[k * UNITS + i % UNITS];
            sum += round_tf32(left) * round_tf32(right);
            unrounded += (double)left * right;
        }
        expected[i] = (float)sum;
        plain[i] = (float)unrounded;
    }
    assert_near(found, expected, SAMPLES * UNITS, 1e-6);
    assert_near(found, plain, SAMPLES * UNITS, 1e-3);
    close_fixture(&f);
    check_precise(SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "50", "relu") ", " DENSE("b", "70", "tanh") ", " DENSE(
                      "c", "3", "softmax")),
                  300, 14, SAP_CUDA_TF32, 2e-3);
}

/* ---- Training ----------------------------------------------------------------------------------------------- */

enum { ROWS = 150, BATCH = 40, STEPS = 4, KEY = 77 };

/* The CPU's own steps with dropout, on rows order[0 … rows). */
static void train_on_cpu(fixture *f, const sap_optimizer *optimizer, const int32_t *order, int64_t rows, int64_t batch,
                         uint64_t key, sap_loss_sums *sum) {
    const sap_examples *e = &f->random.examples;
    int64_t width = e->values[0];
    sap_program *program = NULL;
    sap_optimizer full;
    sap_optimizer_state state = {0};
    assert_ok(sap_optimizer_check(optimizer, &full, &error));
    assert_ok(sap_optimizer_init(&state, &full, f->model->trainable_count, NULL, 0, &error));
    assert_ok(sap_program_open(f->model, SAP_TRAIN, NULL, NULL, NULL, &program, &error));
    float *gradients = aligned_alloc(64, (size_t)(f->model->trainable_count + 16) / 16 * 64);
    random_examples picked;
    float weight[BATCH];
    make_examples(&picked, batch, width);
    if (e->weight)
        picked.examples.weight = weight;
    *sum = (sap_loss_sums){0};
    for (int64_t first = 0; first < rows; first += batch) {
        picked.examples.rows = rows - first < batch ? rows - first : batch;
        for (int64_t r = 0; r < picked.examples.rows; r++) {
            int64_t from = order[first + r];
            memcpy(picked.x + r * width, f->random.x + from * width, (size_t)width * sizeof(float));
            picked.label[r] = f->random.label[from];
            picked.identity[r] = f->random.identity[from];
            weight[r] = e->weight ? e->weight[from] : 1;
        }
        sap_batch_result result;
        assert_ok(sap_program_run(program, &picked.examples, key, gradients, NULL, &result, &error));
        assert_ok(sap_optimizer_step(&state, sap_kernels_best(), NULL, gradients, f->model->values, &error));
        sap_loss_add(sum, &result.outputs[0]);
    }
    free(gradients);
    free_examples(&picked);
    sap_optimizer_release(&state);
    sap_program_close(program);
}

/* Adam's rates have its correction in them. */
static void fill_updates(const sap_optimizer *s, sap_cuda_update *updates, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        double step = (double)(i + 1), adam = sqrt(1 - pow(0.999, step)) / (1 - pow(0.9, step));
        updates[i] = (sap_cuda_update){.rate = (float)(s->learning_rate * (s->kind == SAP_OPTIMIZER_ADAM ? adam : 1)),
                                       .root = 1,
                                       .epsilon = 1e-7F};
    }
}

/* Steps on rows that the device keeps, or on batches from the host, end at the CPU's weights. */
static void check_training(const char *json, const sap_optimizer *optimizer, bool kept, bool weighted) {
    fixture f;
    float weight[ROWS];
    open_fixture(&f, json, optimizer, ROWS, 14, BATCH, SAP_CUDA_FLOAT32);
    for (int i = 0; i < ROWS; i++)
        weight[i] = 0.7F * (float)(i % 4); /* some do not count */
    if (weighted)
        f.random.examples.weight = weight;
    int32_t order[ROWS];
    sap_cuda_update updates[STEPS];
    for (int32_t i = 0; i < ROWS; i++)
        order[i] = kept ? (i * 7 + 3) % ROWS : i;
    fill_updates(optimizer, updates, STEPS);
    int64_t count = f.model->value_count;
    float *found = calloc((size_t)count, sizeof(float)), *slots[SAP_SLOTS],
          *zeros = calloc((size_t)count, sizeof(float));
    for (int i = 0; i < SAP_SLOTS; i++)
        slots[i] = zeros;
    assert_ok(sap_plugin_cuda.put(f.engine, f.model->values, slots, &error));
    engine_rows some;
    sap_cuda_result result, again;
    if (kept) {
        assert_ok(sap_plugin_cuda.reserve(f.engine, 0, ROWS, (int64_t[]){0}, &error));
        for (int64_t first = 0; first < ROWS; first += 100) {
            const sap_cuda_rows *rows = take_rows(&some, &f.random.examples, first, first ? ROWS - first : 100);
            assert_ok(sap_plugin_cuda.keep(f.engine, 0, rows, &error));
        }
        sap_cuda_steps steps = {order, ROWS, BATCH, NULL, KEY, updates};
        assert_ok(sap_plugin_cuda.run(f.engine, 0, &steps, &result, &error));
    } else {
        for (int64_t first = 0; first < ROWS; first += BATCH) {
            int64_t count_here = ROWS - first < BATCH ? ROWS - first : BATCH;
            const sap_cuda_rows *rows = take_rows(&some, &f.random.examples, first, count_here);
            assert_ok(sap_plugin_cuda.feed(f.engine, rows, KEY, &updates[first / BATCH], &error));
        }
        assert_ok(sap_plugin_cuda.finish(f.engine, &result, &error));
    }
    assert_ok(sap_plugin_cuda.get(f.engine, found, NULL, &error));
    sap_loss_sums sum;
    train_on_cpu(&f, optimizer, order, ROWS, BATCH, KEY, &sum);
    assert_near(found, f.model->values, count, 1e-5);
    assert_true(fabs(result.loss - sum.loss) < 1e-4 * sum.loss && result.bad_step == 0);
    assert_int_equal(result.correct, sum.correct);
    assert_ok(sap_plugin_cuda.finish(f.engine, &again, &error));
    assert_true(again.loss == 0 && again.correct == 0); /* sums start anew */
    free(found);
    free(zeros);
    close_fixture(&f);
}

static const sap_optimizer adam = {.kind = SAP_OPTIMIZER_ADAM, .learning_rate = 0.01};
static const sap_optimizer momentum = {
    .kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.05, .momentum = 0.9, .nesterov = true};
static const sap_optimizer clipped = {
    .kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.5, .momentum = 0.9, .global_clipnorm = 0.1};

/* A stack of dense layers with dropout: one launch for all steps. */
static void test_stack_training(void **state) {
    (void)state;
    check_training(DROPOUT_NET, &adam, true, false);
    check_training(DROPOUT_NET, &momentum, true, false);
    check_training(DROPOUT_NET, &momentum, true, true);
    assert_int_equal(emulated_graph_launches(), 0);
}

/* An activation that the stack does not take: a launch an operation. */
#define GENERAL_NET                                                                                                    \
    SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "20", "gelu") ", " DROPOUT("d", "0.25") ", " DENSE("b", "3", "softmax"))
/* So many weights that their norm is taken in parts. */
#define WIDE_NET SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "700", "gelu") ", " DENSE("b", "3", "softmax"))

static void test_general_training(void **state) {
    (void)state;
    check_training(GENERAL_NET, &adam, true, false);
    assert_int_equal(emulated_graph_launches(), STEPS - 1); /* all but the first step, the smaller one too */
    check_training(GENERAL_NET, &momentum, false, false);
    check_training(DROPOUT_NET, &adam, false, false);
    assert_int_equal(emulated_graph_launches(), 3 * (STEPS - 1));
    check_training(DROPOUT_NET, &clipped, true, false); /* the stack of dense layers knows no norms */
    assert_int_equal(emulated_graph_launches(), 4 * (STEPS - 1));
    check_training(WIDE_NET, &clipped, true, false);
    check_training(GENERAL_NET, &momentum, true, true);
    check_training(GENERAL_NET, &momentum, false, true);
}

static void test_measure(void **state) {
    (void)state;
    fixture f;
    open_fixture(&f, DROPOUT_NET, &adam, ROWS, 14, BATCH, SAP_CUDA_FLOAT32);
    engine_rows all;
    int32_t order[ROWS];
    for (int32_t i = 0; i < ROWS; i++)
        order[i] = i;
    sap_cuda_result result;
    double loss;
    float *gradients = calloc((size_t)f.model->trainable_count, sizeof(float));
    assert_ok(sap_plugin_cuda.reserve(f.engine, 1, ROWS, (int64_t[]){0}, &error));
    assert_ok(sap_plugin_cuda.keep(f.engine, 1, take_rows(&all, &f.random.examples, 0, ROWS), &error));
    assert_ok(sap_plugin_cuda.run(f.engine, 1, &(sap_cuda_steps){order, ROWS, BATCH, NULL, 0, NULL}, &result, &error));
    assert_ok(sap_model_gradient(f.model, &f.random.examples, NULL, NULL, &loss, gradients, &error));
    assert_true(fabs(result.loss / ROWS - loss) < 1e-5 * loss);
    free(gradients);
    close_fixture(&f);
}

/* The first step whose loss is no number is named. */
static void test_bad_step(void **state) {
    (void)state;
    static const char *const nets[] = {DROPOUT_NET, GENERAL_NET};
    for (size_t n = 0; n < 2; n++) {
        fixture f;
        open_fixture(&f, nets[n], &adam, ROWS, 14, BATCH, SAP_CUDA_FLOAT32);
        f.random.x[(2 * BATCH + 5) * 14] = (float)NAN;
        sap_cuda_update updates[STEPS];
        fill_updates(&adam, updates, STEPS);
        float *zeros = calloc((size_t)f.model->value_count, sizeof(float)), *slots[SAP_SLOTS] = {zeros, zeros};
        int32_t order[ROWS];
        for (int32_t i = 0; i < ROWS; i++)
            order[i] = i;
        engine_rows all;
        sap_cuda_result result;
        assert_ok(sap_plugin_cuda.put(f.engine, f.model->values, slots, &error));
        assert_ok(sap_plugin_cuda.reserve(f.engine, 0, ROWS, (int64_t[]){0}, &error));
        assert_ok(sap_plugin_cuda.keep(f.engine, 0, take_rows(&all, &f.random.examples, 0, ROWS), &error));
        assert_ok(
            sap_plugin_cuda.run(f.engine, 0, &(sap_cuda_steps){order, ROWS, BATCH, NULL, 1, updates}, &result, &error));
        assert_int_equal(result.bad_step, 3);
        free(zeros);
        close_fixture(&f);
    }
}

/* The plug-in itself: it opens wherever it was built, and says what GPUs there are. */
static void test_plugin(void **state) {
    (void)state;
    const void *table = NULL;
    char text[2000] = "";
    if (sap_plugin_find("cuda", &table, &error) != SAP_OK) {
        assert_contains(error.message, "libsapwood-cuda.so");
        skip();
    }
    sap_status status = ((const sap_cuda_table *)table)->describe(text, sizeof text, &error);
    if (status != SAP_OK) {
        assert_int_equal(status, SAP_EPLUGIN);
        assert_contains(error.message, "no GPU is to be had");
        print_message("no GPU here: %s\n", error.message);
        skip();
    }
    assert_contains(text, "multiprocessors");
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),          cmocka_unit_test(test_graph),
        cmocka_unit_test(test_stack_training), cmocka_unit_test(test_general_training),
        cmocka_unit_test(test_tf32),           cmocka_unit_test(test_measure),
        cmocka_unit_test(test_bad_step),       cmocka_unit_test(test_plugin),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
