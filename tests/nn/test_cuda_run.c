/* Models on an emulated GPU, through the plug-in and its name, against the CPU: sequences, feeds, training, what it refuses. */
#include "nn_test.h"

#include "nn/cuda/cuda_run.h"

#include <math.h>

static sap_error error;

enum { ROWS = 30, WIDTH = 4, STEPS = 6, BATCH = 12 };

#define SEQUENCE_INPUT                                                                                                 \
    "{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"x\", \"batch_shape\": [null, 6, 4]}, "                  \
    "\"inbound_nodes\": []}"
#define LAYER(class, config) "{\"class_name\": \"" class "\", \"config\": {" config "}}"
#define MASKING LAYER("Masking", "\"name\": \"m\", \"mask_value\": 0.0")
#define RECURRENT(class) LAYER(class, "\"name\": \"r\", \"units\": 7")

/* Rows of STEPS steps, of which some at the end, and the first or second of some, are zeros; some have none left. */
static float *make_sequences(random_examples *r) {
    make_examples(r, ROWS, STEPS * WIDTH);
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t t = row % (STEPS + 1); t < STEPS; t++)
            memset(r->x + (row * STEPS + t) * WIDTH, 0, WIDTH * sizeof(float));
    for (int64_t row = 2; row < ROWS; row += 2)
        memset(r->x + (row * STEPS + row / 2 % 2) * WIDTH, 0, WIDTH * sizeof(float));
    return r->x;
}

static void assert_near(const float *a, const float *b, int64_t n, double relative) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]));
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    if (!(norm > 0 && sqrt(difference) <= relative * sqrt(norm)))
        fail_msg("differs by %g of its norm %g", sqrt(difference / norm), sqrt(norm));
}

static void check_model(const char *json, sap_cuda_precision precision, double tolerance) {
    sap_model *model = NULL;
    sap_cuda *cuda = NULL;
    random_examples r;
    make_sequences(&r);
    assert_ok(open_text(json, 3, &model, &error));
    float *expected = calloc((size_t)(ROWS * 3 + model->trainable_count), sizeof *expected);
    float *found = calloc((size_t)(ROWS * 3 + model->trainable_count), sizeof *found);
    double loss;
    sap_loss_sums sums;
    assert_ok(sap_model_predict(model, &r.examples, NULL, (float *const[]){expected}, &error));
    assert_ok(sap_model_gradient(model, &r.examples, NULL, NULL, &loss, expected + ROWS * 3, &error));
    assert_ok(sap_cuda_open(model, NULL, NULL, ROWS, precision, NULL, &cuda, &error));
    assert_ok(sap_cuda_predict(cuda, &r.examples, &found, &error));
    assert_ok(sap_cuda_gradient(cuda, &r.examples, found + ROWS * 3, &sums, &error));
    assert_near(found, expected, ROWS * 3, tolerance);
    sap_predictor *predictor = NULL;
    memset(found, 0, ROWS * 3 * sizeof *found);
    assert_ok(sap_predictor_open(model, SAP_DEVICE_CUDA, NULL, &predictor, &error));
    assert_ok(sap_predictor_run(predictor, &r.examples, &found, &error));
    sap_predictor_close(predictor);
    assert_near(found, expected, ROWS * 3, 1e-5);
    assert_near(found + ROWS * 3, expected + ROWS * 3, model->trainable_count, tolerance);
    assert_true(sums.count == ROWS && fabs(sap_loss_mean(&sums) - loss) <= tolerance * loss);
    sap_cuda_close(cuda);
    sap_model_close(model);
    free(expected);
    free(found);
    free_examples(&r);
}

static void test_sequences(void **state) {
    (void)state;
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " RECURRENT("GRU") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_FLOAT32, 1e-5);
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " RECURRENT("LSTM") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_FLOAT32, 1e-5);
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " RECURRENT("GRU") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_BF16, 0.01);
    check_model(
        SEQUENTIAL(SEQUENCE_INPUT ", " DENSE("e", "5", "tanh") ", " RECURRENT("GRU") ", " DENSE("d", "3", "softmax")),
        SAP_CUDA_FLOAT32, 1e-5); /* regular, and the gradient goes on below */
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " LAYER("Flatten", "\"name\": \"f\"") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_FLOAT32, 1e-5);
}

#define BOTH_WAYS(cell, rest)                                                                                          \
    LAYER("Bidirectional", "\"name\": \"b\", \"layer\": {\"class_name\": \"" cell                                      \
                           "\", \"config\": {\"name\": \"r\", \"units\": 3, \"return_sequences\": " rest)

static void test_bidirectional(void **state) {
    (void)state;
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " BOTH_WAYS(
                    "LSTM", "false}}, \"merge_mode\": \"concat\"") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_FLOAT32, 1e-5);
    check_model(SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " BOTH_WAYS(
                    "GRU", "false}}, \"merge_mode\": \"concat\"") ", " DENSE("d", "3", "softmax")),
                SAP_CUDA_BF16, 0.01); /* both on tensor cores */
    check_model(
        SEQUENTIAL(SEQUENCE_INPUT
                   ", " DENSE("e", "4", "tanh") ", " BOTH_WAYS("GRU", "true}}, \"merge_mode\": \"ave\"") ", " LAYER(
                       "Flatten", "\"name\": \"f\"") ", " DENSE("d", "3", "softmax")),
        SAP_CUDA_FLOAT32, 1e-5);
}

#define KERAS_TENSOR(name)                                                                                             \
    "{\"class_name\": \"__keras_tensor__\", \"config\": {\"keras_history\": [\"" name "\", 0, 0]}}"
#define CALLED(class, name, settings, inputs)                                                                          \
    "{\"class_name\": \"" class "\", \"name\": \"" name "\", \"config\": {\"name\": \"" name "\"" settings             \
                                "}, \"inbound_nodes\": [{\"args\": [" inputs "], \"kwargs\": {}}]}"
#define NETWORK(layers)                                                                                                \
    "{\"class_name\": \"Functional\", \"config\": {\"name\": \"net\", \"layers\": [{\"class_name\": \"InputLayer\", "  \
    "\"name\": \"x\", \"config\": {\"name\": \"x\", \"batch_shape\": [null, 6, 4]}, \"inbound_nodes\": []}, " layers   \
    "], \"input_layers\": [[\"x\", 0, 0]], \"output_layers\": [[\"out\", 0, 0]]}}"
#define OUT(from) CALLED("Dense", "out", ", \"units\": 3, \"activation\": \"softmax\"", KERAS_TENSOR(from))
#define MASKED CALLED("Masking", "m", ", \"mask_value\": 0.0", KERAS_TENSOR("x"))
#define NORMALIZED(from) CALLED("LayerNormalization", "n", ", \"epsilon\": 0.01", KERAS_TENSOR(from))

/* Attention, normalisation and pooling, of ragged and of regular sequences. */
static void test_attention(void **state) {
    (void)state;
    check_model(
        NETWORK(CALLED("MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3",
                       KERAS_TENSOR("x") ", " KERAS_TENSOR(
                           "x")) ", " NORMALIZED("a") ", " CALLED("Flatten", "f", "", KERAS_TENSOR("n")) ", " OUT("f")),
        SAP_CUDA_FLOAT32, 1e-5);
    check_model(
        NETWORK(
            MASKED ", " CALLED("Dense", "d", ", \"units\": 5, \"activation\": \"tanh\"", KERAS_TENSOR("m")) ", " CALLED(
                "MultiHeadAttention", "a", ", \"num_heads\": 3, \"key_dim\": 9, \"value_dim\": 2, \"use_bias\": false",
                KERAS_TENSOR("d") ", " KERAS_TENSOR(
                    "d")) ", " CALLED("Add", "s", "",
                                      "[" KERAS_TENSOR("a") ", " KERAS_TENSOR(
                                          "d") "]") ", " NORMALIZED("s") ", " CALLED("GlobalAverag"
                                                                                     "ePooling1D",
                                                                                     "p", "",
                                                                                     KERAS_TENSOR("n")) ", " OUT("p")),
        SAP_CUDA_FLOAT32, 1e-5);
    check_model(NETWORK(CALLED("Dense", "d", ", \"units\": 5, \"activation\": \"relu\"", KERAS_TENSOR("x")) ", " CALLED(
                    "GlobalMaxPooling1D", "p", "", KERAS_TENSOR("d")) ", " OUT("p")),
                SAP_CUDA_FLOAT32, 1e-5);
}

#define BATCH_NORMALIZED(title) LAYER("BatchNormalization", "\"name\": \"" title "\", \"momentum\": 0.7")

/* Two epochs from kept rows, and from batches on the way, end at the CPU's weights. */
static void check_training(const char *json, bool keep) {
    sap_model *cpu = NULL, *gpu = NULL;
    sap_feed *feed = NULL;
    sap_cuda *cuda = NULL;
    sap_program *program = NULL;
    random_examples r;
    sap_optimizer settings = {.kind = SAP_OPTIMIZER_ADAMW, .learning_rate = 0.01}, full;
    sap_optimizer_state a = {0}, b = {0};
    bool kept = false;
    make_sequences(&r);
    assert_ok(open_text(json, 3, &cpu, &error));
    assert_ok(open_text(json, 3, &gpu, &error));
    assert_ok(sap_optimizer_check(&settings, &full, &error));
    assert_ok(sap_optimizer_init(&a, &full, cpu->trainable_count, NULL, 0, &error));
    assert_ok(sap_optimizer_init(&b, &full, gpu->trainable_count, NULL, 0, &error));
    assert_ok(sap_feed_open_arrays(&r.examples, NULL, &feed, &error));
    assert_ok(sap_cuda_open(gpu, NULL, &b, BATCH, SAP_CUDA_FLOAT32, NULL, &cuda, &error));
    if (keep) {
        assert_ok(sap_cuda_keep(cuda, 0, feed, &kept, &error));
        assert_true(kept);
    }
    assert_ok(sap_program_open(cpu, SAP_TRAIN, NULL, NULL, NULL, &program, &error));
    float *gradients = aligned_alloc(64, (size_t)(cpu->trainable_count + 16) / 16 * 64);
    for (uint64_t epoch = 1; epoch <= 2; epoch++) {
        sap_loss_sums sums = {0}, expected = {0};
        assert_ok(sap_feed_epoch(feed, 9, (int64_t)epoch, &error));
        if (keep)
            assert_ok(sap_cuda_steps_run(cuda, 0, sap_feed_order(feed), 0, ROWS, BATCH, epoch, &b, &sums, &error));
        for (;;) {
            sap_examples e;
            sap_batch_result result;
            assert_ok(sap_feed_next(feed, BATCH, &e, &error));
            if (e.rows == 0)
                break;
            assert_ok(sap_program_run(program, &e, epoch, gradients, NULL, &result, &error));
            assert_ok(sap_optimizer_step(&a, sap_kernels_best(), NULL, gradients, cpu->values, &error));
            sap_loss_add(&expected, &result.outputs[0]);
            if (!keep)
                assert_ok(sap_cuda_step(cuda, &e, epoch, &b, &error));
        }
        if (!keep)
            assert_ok(sap_cuda_finish(cuda, false, &sums, &error));
        assert_true(sums.count == ROWS && sums.correct == expected.correct);
        assert_true(fabs(sums.loss - expected.loss) <= 1e-4 * expected.loss);
    }
    assert_ok(sap_cuda_get(cuda, gpu, &b, &error));
    assert_near(gpu->values, cpu->values, cpu->value_count, 1e-4);
    assert_near(b.slots[0], a.slots[0], cpu->trainable_count, 1e-3);
    assert_int_equal(a.iteration, b.iteration);
    free(gradients);
    sap_program_close(program);
    sap_cuda_close(cuda);
    sap_feed_close(feed);
    sap_optimizer_release(&a);
    sap_optimizer_release(&b);
    sap_model_close(cpu);
    sap_model_close(gpu);
    free_examples(&r);
}

static void test_training(void **state) {
    (void)state;
    static const char recurrent[] = SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " RECURRENT("GRU") ", " LAYER(
        "Dropout", "\"name\": \"o\", \"rate\": 0.2") ", " DENSE("d", "3", "softmax"));
    static const char attention[] = NETWORK(MASKED ", " CALLED(
        "MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3, \"dropout\": 0.3",
        KERAS_TENSOR("m") ", " KERAS_TENSOR("m")) ", " NORMALIZED("a") ", " CALLED("GlobalAveragePooling1D", "p", "",
                                                                                   KERAS_TENSOR("n")) ", " OUT("p"));
    static const char normalized[] = SEQUENTIAL(
        SEQUENCE_INPUT ", " MASKING ", " BATCH_NORMALIZED("i") ", " DENSE("h", "5", "tanh") ", " BATCH_NORMALIZED(
            "j") ", " RECURRENT("GRU") ", " BATCH_NORMALIZED("k") ", " DENSE("d", "3", "softmax"));
    check_training(normalized, true);
    check_training(normalized, false);
    check_training(recurrent, true);
    check_training(recurrent, false);
    check_training(attention, true);
}

#define CONV(name, settings) LAYER("Conv1D", "\"name\": \"" name "\", " settings)
#define POOL(class, name, settings) LAYER(class "Pooling1D", "\"name\": \"" name "\", " settings)
#define FLAT_END ", " LAYER("Flatten", "\"name\": \"f\"") ", " DENSE("d", "3", "softmax")
#define HIDDEN(units) ", " DENSE("e", units, "tanh") ", "

#define OVER(class, name, from, settings) CALLED(class, name, settings, KERAS_TENSOR(from))
#define UNITS ", \"units\": 5, \"activation\": \"tanh\""
#define THREE(a, b, c) "[" KERAS_TENSOR(a) ", " KERAS_TENSOR(b) ", " KERAS_TENSOR(c) "]"

/* Gradients that meet in "d". */
#define MEETING                                                                                                        \
    OVER("Conv1D", "c", "d", ", \"filters\": 5, \"kernel_size\": 3, \"padding\": \"same\"")                            \
    ", " OVER("MaxPooling1D", "p", "d", ", \"pool_size\": 3, \"strides\": 1, \"padding\": \"same\"") ", " CALLED(      \
        "Add", "s", "", THREE("c", "p", "d"))
#define POOLS                                                                                                          \
    OVER("GlobalAveragePooling1D", "p", "d", "")                                                                       \
    ", " OVER("GlobalMaxPooling1D", "q", "d", "") ", " OVER("GRU", "r", "d", UNITS) ", " CALLED(                       \
        "Concatenate", "k", ", \"axis\": -1", THREE("p", "q", "r"))

static void test_windows(void **state) {
    (void)state;
    static const char *const nets[] = {
        SEQUENTIAL(SEQUENCE_INPUT ", " CONV("c", "\"filters\": 5, \"kernel_size\": 3, \"activation\": \"relu\"")
                       FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") CONV("c", "\"filters\": 4, \"kernel_size\": [4], \"strides\": 2, "
                                                        "\"padding\": \"same\", \"activation\": \"gelu\"") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") CONV("c", "\"filters\": 4, \"kernel_size\": 3, \"padding\": \"causal\", "
                                                        "\"dilation_rate\": 2, \"use_bias\": false") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5")
                       CONV("c", "\"filters\": 6, \"kernel_size\": 9, \"padding\": \"same\"") ", " CONV(
                           "g", "\"filters\": 3, \"kernel_size\": 2, \"strides\": 3, \"activation\": "
                                "\"softmax\"") FLAT_END), /* windows that see more than there is */
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("20") CONV("c", "\"filters\": 70, \"kernel_size\": 5, \"padding\": \"same\"")
                       FLAT_END), /* tiles */
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") POOL("Max", "p",
                                                   "\"pool_size\": 2, \"strides\": 1, "
                                                   "\"padding\": \"same\"") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") POOL("Max", "p", "\"pool_size\": [3]") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") POOL("Average", "p",
                                                   "\"pool_size\": 4, \"strides\": 3, "
                                                   "\"padding\": \"same\"") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") POOL("Average", "p", "\"pool_size\": 3, \"strides\": 1") FLAT_END),
        NETWORK(OVER("Dense", "d", "x", UNITS) ", " MEETING ", " OVER("Flatten", "f", "s", "") ", " OUT("f")),
    };
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check_model(nets[i], SAP_CUDA_FLOAT32, 1e-5);
    static const char trained[] = SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " CONV(
        "c",
        "\"filters\": 6, \"kernel_size\": 3, \"padding\": \"same\", \"activation\": "
        "\"relu\"") ", " LAYER("Dropout",
                               "\"name\": \"o\", \"rate\": 0.2") ", " POOL("Max", "p",
                                                                           "\"pool_size\": 2") ", " CONV("g",
                                                                                                         "\"filters\": "
                                                                                                         "4, "
                                                                                                         "\"kernel_"
                                                                                                         "size\": 2, "
                                                                                                         "\"activation"
                                                                                                         "\": \"tanh\"")
                                                 FLAT_END);
    check_training(trained, true);
    check_training(trained, false);
}

#define CELL(class, settings) LAYER(class, "\"name\": \"r\", \"units\": 7, " settings)
#define DENSE_END ", " DENSE("d", "3", "softmax")

/* The same random numbers as the CPU's. */
static void test_cell_dropout(void **state) {
    (void)state;
    static const char *const nets[] = {
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " CELL("GRU", "\"dropout\": 0.3") DENSE_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " CELL("LSTM", "\"recurrent_dropout\": 0.4") DENSE_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") CELL("GRU", "\"dropout\": 0.3, \"recurrent_dropout\": 0.2") DENSE_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5")
                       CELL("LSTM", "\"dropout\": 0.2, \"recurrent_dropout\": 0.3, \"use_bias\": false") DENSE_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " BOTH_WAYS(
            "LSTM", "true, \"dropout\": 0.3, \"recurrent_dropout\": "
                    "0.3}}, \"merge_mode\": \"mul\"") ", " CELL("GRU", "\"dropout\": 0.5") DENSE_END),
    };
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        check_model(nets[i], SAP_CUDA_FLOAT32, 1e-5);
        check_training(nets[i], true);
    }
    check_training(nets[2], false);
}

#define MASKING_OF(value) LAYER("Masking", "\"name\": \"m\", \"mask_value\": " value)

#define TWO_MASKS(merge, settings)                                                                                     \
    NETWORK(MASKED ", " CALLED("Masking", "n", ", \"mask_value\": 5.0", KERAS_TENSOR("x")) ", " CALLED(                \
        merge, "s", settings,                                                                                          \
        "[" KERAS_TENSOR("m") ", " KERAS_TENSOR(                                                                       \
            "n") "]") ", " CALLED("GRU", "r", ", \"units\": 4, \"return_sequences\": true",                            \
                                  KERAS_TENSOR("s")) ", " CALLED("Flatten", "f", "", KERAS_TENSOR("r")) ", " OUT("f"))

/* Masked steps that are there, since something looks at them. */
static void test_masks(void **state) {
    (void)state;
    static const char *const nets[] = {
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") MASKING_OF("0.0") ", " CELL("GRU", "\"return_sequences\": true")
                       FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " CELL("GRU", "\"return_sequences\": true") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING ", " CELL(
            "LSTM", "\"return_sequences\": true, \"zero_output_for_mask\": true") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING HIDDEN("5")
                       CELL("LSTM", "\"return_sequences\": true, \"go_backwards\": true") FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT HIDDEN("5") CELL("GRU", "\"return_sequences\": true, \"go_backwards\": true")
                       FLAT_END),
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING HIDDEN("5") BOTH_WAYS("GRU", "true}}, \"merge_mode\": \"concat\"")
                       FLAT_END),
        NETWORK(MASKED ", " OVER("Dense", "d", "m", UNITS) ", " POOLS ", " OUT("k")),
        NETWORK(MASKED
                ", " CALLED("MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3, \"use_causal_mask\": true",
                            KERAS_TENSOR("x") ", " KERAS_TENSOR("m")) ", " OVER("Flatten", "f", "a", "") ", " OUT("f")),
        NETWORK(MASKED ", " CALLED(
            "MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3",
            KERAS_TENSOR("m") ", " KERAS_TENSOR("m")) ", " CALLED("Flatten", "f", "", KERAS_TENSOR("a")) ", " OUT("f")),
        NETWORK(CALLED("Dense", "d", ", \"units\": 5, \"activation\": \"tanh\"", KERAS_TENSOR("x")) ", " CALLED(
            "MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3, \"use_causal_mask\": true",
            KERAS_TENSOR("d") ", " KERAS_TENSOR("d")) ", " CALLED("Flatten", "f", "", KERAS_TENSOR("a")) ", " OUT("f")),
        NETWORK(MASKED
                ", " CALLED("Dense", "d", ", \"units\": 5, \"activation\": \"tanh\"", KERAS_TENSOR("m")) ", " CALLED(
                    "MultiHeadAttention", "a",
                    ", \"num_heads\": 2, \"key_dim\": 3, \"value_dim\": 4, \"use_causal_mask\": true",
                    KERAS_TENSOR("d") ", " KERAS_TENSOR("d")) ", " CALLED("Flatten", "f", "",
                                                                          KERAS_TENSOR("a")) ", " OUT("f")),
    };
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        check_model(nets[i], SAP_CUDA_FLOAT32, 1e-5);
        check_model(nets[i], SAP_CUDA_TF32, 2e-3);
    }
    check_model(TWO_MASKS("Add", ""), SAP_CUDA_FLOAT32, 1e-5); /* a step counts that counts in one */
    static const char normalized[] = SEQUENTIAL(SEQUENCE_INPUT ", " MASKING HIDDEN("5") BATCH_NORMALIZED("j") ", " CELL(
        "GRU", "\"return_sequences\": true, \"dropout\": 0.3, \"recurrent_dropout\": 0.2") FLAT_END);
    static const char other_queries[] = NETWORK(MASKED ", " CALLED(
        "MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3, \"dropout\": 0.3, \"use_causal_mask\": true",
        KERAS_TENSOR("x") ", " KERAS_TENSOR("m")) ", " OVER("Flatten", "f", "a", "") ", " OUT("f"));
    static const char attention[] = NETWORK(MASKED ", " CALLED(
        "MultiHeadAttention", "a", ", \"num_heads\": 2, \"key_dim\": 3, \"dropout\": 0.3, \"use_causal_mask\": true",
        KERAS_TENSOR("m") ", " KERAS_TENSOR("m")) ", " CALLED("Flatten", "f", "", KERAS_TENSOR("a")) ", " OUT("f"));
    check_training(normalized, true);
    check_training(normalized, false);
    check_training(attention, true);
    check_training(other_queries, true);
}

/* Rows that end early go on with the value that masks them. */
static void test_short_rows(void **state) {
    (void)state;
    sap_model *model = NULL;
    sap_cuda *cuda = NULL;
    random_examples r;
    int64_t offsets[ROWS + 1] = {0};
    const int64_t *of_input[] = {offsets};
    make_sequences(&r);
    for (int64_t row = 0; row < ROWS; row++)
        offsets[row + 1] = offsets[row] + row % (STEPS + 1);
    r.values[0] = WIDTH;
    r.examples.offsets = of_input;
    assert_ok(open_text(
        SEQUENTIAL(SEQUENCE_INPUT ", " MASKING_OF("0.5") ", " CELL("GRU", "\"return_sequences\": true") FLAT_END), 3,
        &model, &error));
    float expected[ROWS * 3], found[ROWS * 3];
    assert_ok(sap_model_predict(model, &r.examples, NULL, (float *const[]){expected}, &error));
    assert_ok(sap_cuda_open(model, NULL, NULL, ROWS, SAP_CUDA_FLOAT32, NULL, &cuda, &error));
    assert_ok(sap_cuda_predict(cuda, &r.examples, (float *const[]){found}, &error));
    assert_near(found, expected, ROWS * 3, 1e-5);
    sap_cuda_close(cuda);
    sap_model_close(model);
    free_examples(&r);
}

static void test_activations(void **state) {
    (void)state;
    static const char *const names[] = {"linear",    "relu",        "relu6",       "leaky_relu",   "elu",
                                        "selu",      "sigmoid",     "softplus",    "hard_sigmoid", "softsign",
                                        "silu",      "exponential", "gelu",        "hard_silu",    "mish",
                                        "softmax",   "log_sigmoid", "squareplus",  "sparse_plus",  "sparse_sigmoid",
                                        "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink",  "log_softmax"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char json[2000];
        (void)snprintf(
            json, sizeof json,
            SEQUENTIAL(SEQUENCE_INPUT ", " DENSE("e", "9", "linear") ", " LAYER(
                "Activation", "\"name\": \"v\", \"activation\": \"%s\"") ", " DENSE("h", "6", "%s") FLAT_END),
            names[i], names[i]);
        check_model(json, SAP_CUDA_FLOAT32, 1e-5);
    }
}

/* Loss, share of right answers and gradients of one batch. */
static void check_weighted_loss(const char *json, const sap_loss *loss, const float *weight, int32_t classes) {
    sap_model *model = NULL;
    sap_cuda *cuda = NULL;
    sap_program *program = NULL;
    random_examples r;
    make_examples(&r, ROWS, 14);
    for (int64_t row = 0; row < ROWS; row++)
        r.label[row] = (int32_t)(row % classes);
    r.examples.weight = weight;
    assert_ok(open_text(json, 5, &model, &error));
    float *expected = aligned_alloc(64, (size_t)(model->trainable_count + 16) / 16 * 64);
    float *found = calloc((size_t)model->trainable_count, sizeof *found);
    sap_batch_result result;
    sap_loss_sums sums;
    assert_ok(sap_program_open(model, SAP_DIFFERENTIATE, loss, NULL, NULL, &program, &error));
    assert_ok(sap_program_run(program, &r.examples, 0, expected, NULL, &result, &error));
    assert_ok(sap_cuda_open(model, loss, NULL, ROWS, SAP_CUDA_FLOAT32, NULL, &cuda, &error));
    assert_ok(sap_cuda_gradient(cuda, &r.examples, found, &sums, &error));
    assert_near(found, expected, model->trainable_count, 1e-5);
    assert_true(sums.count == ROWS && sums.correct == result.outputs[0].correct);
    assert_true(fabs(sums.loss - result.outputs[0].loss) <= 1e-5 * result.outputs[0].loss);
    sap_program_close(program);
    sap_cuda_close(cuda);
    sap_model_close(model);
    free(expected);
    free(found);
    free_examples(&r);
}

/* The same with weights of events and classes. */
static void check_loss(const char *json, const sap_loss *loss, int32_t classes) {
    static const double of_class[] = {0.5, 2, 0, 3};
    sap_loss weighted = *loss;
    float weight[ROWS];
    for (int row = 0; row < ROWS; row++)
        weight[row] = 0.4F * (float)(row % 5);
    weighted.class_weight = of_class;
    weighted.class_count = 4;
    check_weighted_loss(json, loss, NULL, classes);
    check_weighted_loss(json, loss, weight, classes);
    check_weighted_loss(json, &weighted, NULL, classes);
    check_weighted_loss(json, &weighted, weight, classes);
}

#define ENDING(units, activation)                                                                                      \
    SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "6", "tanh") ", " DENSE("b", units, activation))

static void test_losses(void **state) {
    (void)state;
    static const sap_loss smooth = {.kind = SAP_LOSS_CATEGORICAL_CROSSENTROPY, .label_smoothing = 0.1};
    static const sap_loss raw = {.kind = SAP_LOSS_CATEGORICAL_CROSSENTROPY, .from_logits = true};
    static const sap_loss sparse = {.kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY};
    static const sap_loss binary = {.kind = SAP_LOSS_BINARY_CROSSENTROPY, .label_smoothing = 0.2};
    static const sap_loss squared = {.kind = SAP_LOSS_MEAN_SQUARED_ERROR};
    static const sap_loss absolute = {.kind = SAP_LOSS_MEAN_ABSOLUTE_ERROR};
    static const sap_loss huber = {.kind = SAP_LOSS_HUBER, .delta = 0.4};
    check_loss(ENDING("3", "softmax"), &smooth, 3);
    check_loss(ENDING("3", "linear"), &raw, 3);
    check_loss(ENDING("3", "softplus"), &smooth, 3); /* of what no activation is left to it */
    check_loss(ENDING("3", "softplus"), &sparse, 3);
    check_loss(ENDING("1", "sigmoid"), &binary, 2);
    check_loss(ENDING("3", "sigmoid"), &binary, 3);
    check_loss(ENDING("1", "softplus"), &binary, 2);
    check_loss(ENDING("1", "sigmoid"), &squared, 2);
    check_loss(ENDING("1", "linear"), &absolute, 4);
    check_loss(ENDING("3", "softmax"), &huber, 3);
}

enum { TRAIN_ROWS = 100, CHECK_ROWS = 33 };

/* What examples have besides random inputs and labels. Zeroed: 14 inputs, and nothing. */
typedef struct beside {
    int64_t width;
    const float *weight; /* (TRAIN_ROWS) */
    int32_t targets;
    const float *y[2]; /* (TRAIN_ROWS, values) */
    int64_t values[2];
} beside;

static sap_feed *open_feed(random_examples *r, int64_t rows, const beside *b) {
    sap_feed *feed = NULL;
    make_examples(r, rows, b->width ? b->width : 14);
    r->examples.weight = b->weight;
    r->examples.targets = b->targets;
    r->examples.y = b->y;
    r->examples.target_values = b->values;
    assert_ok(sap_feed_open_arrays(&r->examples, NULL, &feed, &error));
    return feed;
}

static void assert_same_history(const sap_history *cpu, const sap_history *gpu) {
    assert_true(cpu->epochs == 3 && gpu->epochs == 3 && cpu->count == gpu->count);
    for (int64_t i = 0; i < 3 * (int64_t)cpu->count; i++) {
        double a = cpu->values[i], b = gpu->values[i];
        if (!(isnan(a) && isnan(b)) && !(fabs(a - b) <= 1e-4 * (1 + a)))
            fail_msg("%s of epoch %d: %g on the CPU, %g on the GPU", cpu->names[i % cpu->count], (int)(i / cpu->count),
                     a, b);
    }
}

/* sap_train on the GPU and on the CPU: the same history and weights. options: but for the device, and how long. */
static void check_loop(const char *json, sap_train_options options, beside b) {
    static int runs;
    sap_model *models[2] = {NULL, NULL};
    sap_history histories[2] = {{0}, {0}};
    for (int gpu = 0; gpu < 2; gpu++) {
        random_examples train, validation;
        char name[30];
        sap_feed *feed = open_feed(&train, TRAIN_ROWS, &b), *other = open_feed(&validation, CHECK_ROWS, &b);
        assert_ok(open_text(json, 3, &models[gpu], &error));
        (void)snprintf(name, sizeof name, "checkpoint%d", runs++);
        options.epochs = 3;
        options.batch = 16;
        options.seed = 4;
        options.steps_per_epoch = 5;
        options.device = gpu ? SAP_DEVICE_CUDA : SAP_DEVICE_CPU;
        options.checkpoint = scratch(name);
        options.checkpoint_steps = 2;
        assert_ok(sap_train(models[gpu], &options, feed, other, NULL, &histories[gpu], &error));
        sap_feed_close(feed);
        sap_feed_close(other);
        free_examples(&train);
        free_examples(&validation);
    }
    assert_near(models[1]->values, models[0]->values, models[0]->value_count, 1e-4);
    assert_same_history(&histories[0], &histories[1]);
    for (int i = 0; i < 2; i++) {
        sap_history_release(&histories[i]);
        sap_model_close(models[i]);
    }
}

static void test_loop(void **state) {
    (void)state;
    static const char general[] =
        SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "20", "gelu") ", " DENSE("b", "3", "softmax"));
    sap_loss loss = {.class_weight = (const double[]){1, 0, 2.5}, .class_count = 3};
    float weight[TRAIN_ROWS];
    for (int i = 0; i < TRAIN_ROWS; i++)
        weight[i] = 0.4F * (float)(i % 5);
    static const char *const bias = "bias";
    static const sap_optimizer optimizers[] = {
        {.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.5, .clipnorm = 0.05},
        {.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.5, .momentum = 0.9, .global_clipnorm = 0.1},
        {.kind = SAP_OPTIMIZER_ADAM, .learning_rate = 0.01, .amsgrad = true, .ema_momentum = 0.9},
        {.kind = SAP_OPTIMIZER_ADAMW,
         .learning_rate = 0.02,
         .weight_decay = 0.5,
         .decay_except = &bias,
         .decay_except_count = 1,
         .ema_momentum = 0.8,
         .ema_overwrite_frequency = 3},
    };
    check_loop(DROPOUT_NET, (sap_train_options){0}, (beside){0});
    check_loop(DROPOUT_NET, (sap_train_options){.losses = &loss}, (beside){0});
    check_loop(DROPOUT_NET, (sap_train_options){.losses = &loss}, (beside){.weight = weight});
    check_loop(general, (sap_train_options){.losses = &loss}, (beside){.weight = weight});
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; i++) {
        check_loop(DROPOUT_NET, (sap_train_options){.optimizer = optimizers[i]}, (beside){0});
        check_loop(general, (sap_train_options){.optimizer = optimizers[i]}, (beside){0});
    }
}

/* Outputs with losses and weights of their own, and arrays of targets. */
static void test_outputs(void **state) {
    (void)state;
    float kind[TRAIN_ROWS], sum[TRAIN_ROWS], soft[TRAIN_ROWS * 3], steps[TRAIN_ROWS * STEPS * 3],
        classes[TRAIN_ROWS * STEPS];
    float weight[TRAIN_ROWS];
    for (int r = 0; r < TRAIN_ROWS; r++) {
        kind[r] = (float)(r * 7 % 3);
        sum[r] = 0.1F * (float)(r % 9);
        weight[r] = 0.4F * (float)(r % 5);
        for (int v = 0; v < 3; v++)
            soft[3 * r + v] = v == r % 3 ? 0.7F : 0.15F;
    }
    for (int i = 0; i < TRAIN_ROWS * STEPS; i++)
        classes[i] = (float)(i * 5 % 3);
    for (int i = 0; i < TRAIN_ROWS * STEPS * 3; i++)
        steps[i] = 0.1F * (float)(i % 11);
    sap_loss losses[] = {{.kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY, .weight = 0.5},
                         {.kind = SAP_LOSS_MEAN_SQUARED_ERROR, .weight = 2}};
    sap_train_options options = {.losses = losses, .optimizer.learning_rate = 0.01};
    beside both = {.targets = 2, .y = {kind, sum}, .values = {1, 1}};
    check_loop(TWO_ENDS("a"), options, both);
    check_loop(TWO_ENDS("kind"), options, both); /* a softmax that another layer looks at is not left to its loss */
    losses[0].class_weight = (const double[]){1, 0, 2.5};
    losses[0].class_count = 3;
    check_loop(TWO_ENDS("a"), options, both);
    both.weight = weight;
    check_loop(TWO_ENDS("a"), options, both);
    losses[1].kind = SAP_LOSS_NONE;
    both.targets = 1;
    check_loop(TWO_ENDS("a"), options, both);
    losses[0] = (sap_loss){.kind = SAP_LOSS_CATEGORICAL_CROSSENTROPY, .weight = 3};
    check_loop(DROPOUT_NET, options, (beside){.weight = weight}); /* one launch */
    check_loop(DROPOUT_NET, options, (beside){.weight = weight, .targets = 1, .y = {kind}, .values = {1}});
    check_loop(DROPOUT_NET, options, (beside){.weight = weight, .targets = 1, .y = {soft}, .values = {3}});
    static const char sequence[] =
        SEQUENTIAL(SEQUENCE_INPUT ", " DENSE("e", "5", "tanh") ", " DENSE("d", "3", "softmax"));
    check_loop(sequence, options,
               (beside){.width = STEPS * WIDTH, .weight = weight, .targets = 1, .y = {steps}, .values = {STEPS * 3}});
    losses[0].kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY;
    check_loop(sequence, options,
               (beside){.width = STEPS * WIDTH, .weight = weight, .targets = 1, .y = {classes}, .values = {STEPS}});
}

/* Predictions of all outputs, in several batches. */
static void test_output_predictions(void **state) {
    (void)state;
    enum { MANY = 600 };
    sap_model *model = NULL;
    sap_predictor *predictor = NULL;
    random_examples r;
    float *found[] = {calloc(MANY * 3, sizeof(float)), calloc(MANY, sizeof(float))};
    float *expected[] = {calloc(MANY * 3, sizeof(float)), calloc(MANY, sizeof(float))};
    make_examples(&r, MANY, 14);
    assert_ok(open_text(TWO_ENDS("kind"), 1, &model, &error));
    assert_ok(sap_model_predict(model, &r.examples, NULL, expected, &error));
    assert_ok(sap_predictor_open(model, SAP_DEVICE_CUDA, NULL, &predictor, &error));
    assert_ok(sap_predictor_run(predictor, &r.examples, found, &error));
    assert_near(found[0], expected[0], MANY * 3, 1e-5);
    assert_near(found[1], expected[1], MANY, 1e-5);
    sap_predictor_close(predictor);
    sap_model_close(model);
    free_examples(&r);
    for (int o = 0; o < 2; o++) {
        free(found[o]);
        free(expected[o]);
    }
}

/* What the GPU cannot do is named, before anything is done. */
static void test_refusals(void **state) {
    (void)state;
    sap_model *model = NULL;
    sap_cuda *cuda = NULL;
    static const struct {
        const char *json, *why;
    } refused[] = {
        {SEQUENTIAL(SEQUENCE_INPUT ", " CELL("GRU", "\"activation\": \"softmax\"") DENSE_END), "these activations"},
        {TWO_MASKS("Multiply", ""), "masked sequences"},
        {TWO_MASKS("Concatenate", ", \"axis\": 1"), "one after the other"},
        {SEQUENTIAL(SEQUENCE_INPUT ", " CELL("SimpleRNN", "\"use_bias\": true") DENSE_END), "SimpleRNN"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        sap_model_close(model);
        assert_ok(open_text(refused[i].json, 1, &model, &error));
        assert_int_equal(sap_cuda_open(model, NULL, NULL, 8, SAP_CUDA_FLOAT32, NULL, &cuda, &error), SAP_EUNSUPPORTED);
        assert_contains(error.message, refused[i].why);
    }
    sap_model_close(model);
}

static void test_precision_options(void **state) {
    (void)state;
    sap_model *model = NULL;
    sap_feed *feed = NULL;
    sap_history history = {0};
    random_examples r;
    make_examples(&r, ROWS, 14);
    assert_ok(open_text(DROPOUT_NET, 1, &model, &error));
    assert_ok(sap_feed_open_arrays(&r.examples, NULL, &feed, &error));
    sap_train_options options = {.epochs = 1, .batch = ROWS, .tf32 = true};
    assert_int_equal(sap_train(model, &options, feed, NULL, NULL, &history, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "tf32 needs a GPU");
    options.device = SAP_DEVICE_CUDA;
    assert_ok(sap_train(model, &options, feed, NULL, NULL, &history, &error));
    options.float32 = true;
    assert_int_equal(sap_train(model, &options, feed, NULL, NULL, &history, &error), SAP_EARGUMENT);
    assert_contains(error.message, "tf32 and float32 at once");
    sap_history_release(&history);
    sap_feed_close(feed);
    sap_model_close(model);
    free_examples(&r);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_bidirectional),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_cell_dropout),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_short_rows),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_output_predictions),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_precision_options),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
