/* GRU and LSTM on emulated GPU threads against their formulas in double, gradients against finite differences. */
#include "nn_test.h"

#include "nn/cuda/cuda_engine.h"

#include <math.h>

static sap_error error;

extern const sap_cuda_table sap_plugin_cuda;

enum { CLASSES = 3, ROWS_MOST = 110 };

/* A network: sequences, one recurrent layer, a dense layer with softmax. */
typedef struct net {
    bool lstm, backwards, whole; /* whole: all steps go to the dense layer, which needs regular sequences */
    int32_t width, units, steps; /* steps: of regular sequences; 0: ragged */
    int64_t rows;
    int64_t offsets[ROWS_MOST + 1];
    float *x;
    int32_t label[ROWS_MOST];
    float target[ROWS_MOST];  /* the same */
    int64_t places[5], count; /* kernel, recurrent kernel, bias, dense kernel, dense bias */
    float *values;
} net;

static double draw(uint64_t *state) {
    *state = sap_mix(*state, 1);
    return 2 * sap_unit(*state) - 1;
}

static float round_bf16(double value) {
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* lengths: (rows) of ragged sequences. Inputs are bf16 numbers, so that they are the same in both precisions. */
static void make_net(net *n, const int32_t *lengths, uint64_t seed) {
    int64_t gates = (n->lstm ? 4 : 3) * (int64_t)n->units,
            sizes[5] = {n->width * gates, n->units * gates, n->lstm ? gates : 2 * gates,
                        n->units * (n->whole ? n->steps : 1) * CLASSES, CLASSES};
    for (int64_t r = 0; r < n->rows; r++)
        n->offsets[r + 1] = n->offsets[r] + (n->steps ? n->steps : lengths[r]);
    n->count = 0;
    for (int i = 0; i < 5; i++) {
        n->places[i] = n->count;
        n->count += sizes[i];
    }
    n->x = calloc((size_t)(n->offsets[n->rows] * n->width) + 1, sizeof *n->x);
    n->values = calloc((size_t)n->count, sizeof *n->values);
    for (int64_t i = 0; i < n->offsets[n->rows] * n->width; i++)
        n->x[i] = round_bf16(draw(&seed));
    for (int64_t i = 0; i < n->count; i++)
        n->values[i] = (float)(draw(&seed) * (i < n->places[2] ? 1.0 / sqrt(n->units) : 0.5));
    for (int64_t r = 0; r < n->rows; r++)
        n->target[r] = (float)(n->label[r] = (int32_t)(sap_mix(seed, (uint64_t)r) % CLASSES));
}

/* ---- The formulas in double --------------------------------------------------------------------------------- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* What the gates get from the input and the state: sums[0 … gates) and, of GRU, the recurrent part of the last gate. */
static void step(const net *n, const double *w, const float *x, double *h, double *c) {
    int u = n->units, gates = (n->lstm ? 4 : 3) * u;
    double in[4 * 128], re[4 * 128];
    const double *kernel = w + n->places[0], *recurrent = w + n->places[1], *bias = w + n->places[2];
    for (int g = 0; g < gates; g++) {
        in[g] = bias[g];
        re[g] = n->lstm ? 0 : bias[gates + g];
        for (int i = 0; i < n->width; i++)
            in[g] += x[i] * kernel[i * gates + g];
        for (int j = 0; j < u; j++)
            re[g] += h[j] * recurrent[j * gates + g];
    }
    for (int j = 0; j < u; j++) {
        if (n->lstm) {
            c[j] = sigmoid(in[u + j] + re[u + j]) * c[j] + sigmoid(in[j] + re[j]) * tanh(in[2 * u + j] + re[2 * u + j]);
            h[j] = sigmoid(in[3 * u + j] + re[3 * u + j]) * tanh(c[j]);
        } else {
            double z = sigmoid(in[j] + re[j]), r = sigmoid(in[u + j] + re[u + j]);
            h[j] = z * h[j] + (1 - z) * tanh(in[2 * u + j] + r * re[2 * u + j]);
        }
    }
}

static double row_loss(const net *n, const double *w, int64_t row, double *probabilities) {
    double h[128] = {0}, c[128] = {0}, logits[CLASSES], sum = 0;
    for (int k = 0; k < CLASSES; k++)
        logits[k] = w[n->places[4] + k];
    int64_t steps = n->offsets[row + 1] - n->offsets[row];
    for (int64_t s = 0; s < steps; s++) {
        int64_t t = n->backwards ? steps - 1 - s : s;
        step(n, w, n->x + (n->offsets[row] + t) * n->width, h, c);
        for (int j = 0; n->whole && j < n->units; j++) /* flattened */
            for (int k = 0; k < CLASSES; k++)
                logits[k] += h[j] * w[n->places[3] + (t * n->units + j) * CLASSES + k];
    }
    for (int j = 0; !n->whole && j < n->units; j++)
        for (int k = 0; k < CLASSES; k++)
            logits[k] += h[j] * w[n->places[3] + j * CLASSES + k];
    for (int k = 0; k < CLASSES; k++)
        sum += exp(logits[k]);
    for (int k = 0; probabilities && k < CLASSES; k++)
        probabilities[k] = exp(logits[k]) / sum;
    return log(sum) - logits[n->label[row]];
}

static double mean_loss(const net *n, const double *w) {
    double sum = 0;
    for (int64_t r = 0; r < n->rows; r++)
        sum += row_loss(n, w, r, NULL);
    return sum / (double)n->rows;
}

/* ---- The engine --------------------------------------------------------------------------------------------- */

static double distance(const float *a, const double *b, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]));
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference / norm);
}

/* Every `stride`-th parameter by finite differences. */
static void check_gradients(const net *n, const float *gradients, int64_t stride, double tolerance) {
    double *w = calloc((size_t)n->count, sizeof *w), difference = 0, norm = 0;
    for (int64_t i = 0; i < n->count; i++)
        w[i] = n->values[i];
    for (int part = 0; part < 5; part++) {
        int64_t end = part < 4 ? n->places[part + 1] : n->count;
        difference = norm = 0;
        for (int64_t i = n->places[part]; i < end; i += stride) {
            double old = w[i], h = 1e-4;
            w[i] = old + h;
            double up = mean_loss(n, w);
            w[i] = old - h;
            double d = (up - mean_loss(n, w)) / (2 * h);
            w[i] = old;
            assert_true(isfinite(gradients[i]));
            difference += (gradients[i] - d) * (gradients[i] - d);
            norm += d * d;
        }
        if (!(sqrt(difference) <= tolerance * sqrt(norm)))
            fail_msg("gradient of weight %d differs by %g of its norm %g", part, sqrt(difference / norm), sqrt(norm));
    }
    free(w);
}

static void check_net(net *n, const int32_t *lengths, sap_cuda_precision precision, double tolerance, int64_t stride) {
    make_net(n, lengths, 5);
    int64_t steps = n->steps ? n->steps : 1, values = n->whole ? steps * n->units : n->units;
    sap_cuda_tensor tensors[] = {
        {n->steps * n->width, n->steps ? -1 : 0, false}, {values, -1, true}, {CLASSES, -1, true}};
    if (!n->steps)
        tensors[0].values = n->width;
    int32_t in[] = {0}, out[] = {1};
    sap_cuda_op ops[] = {
        {.kind = n->lstm ? SAP_CUDA_LSTM : SAP_CUDA_GRU,
         .where = "recurrent",
         .input_count = 1,
         .inputs = in,
         .output = 1,
         .width = n->width,
         .units = n->units,
         .weights = {n->places[0], n->places[1], n->places[2], -1},
         .trainable = true,
         .activation = {.kind = SAP_TANH},
         .recurrent_activation = {.kind = SAP_SIGMOID},
         .steps = n->steps,
         .whole = n->whole,
         .backwards = n->backwards,
         .reset_after = true},
        {.kind = SAP_CUDA_DENSE,
         .where = "dense",
         .input_count = 1,
         .inputs = out,
         .output = 2,
         .width = values,
         .units = CLASSES,
         .weights = {n->places[3], n->places[4], -1, -1},
         .trainable = true,
         .activation = {.kind = SAP_SOFTMAX},
         .logits = true},
    };
    sap_cuda_output output = {2, CLASSES, 1, {.from_logits = true, .keep = 1, .weight = 1}};
    sap_cuda_input input = {0, tensors[0].values, n->steps == 0};
    sap_cuda_plan plan = {.name = "net",
                          .tensor_count = 3,
                          .op_count = 2,
                          .input_count = 1,
                          .output_count = 1,
                          .tensors = tensors,
                          .ops = ops,
                          .inputs = &input,
                          .outputs = &output,
                          .value_count = n->count,
                          .trainable_count = n->count,
                          .precision = precision};
    sap_cuda_engine *engine = NULL;
    assert_ok(sap_plugin_cuda.open(&plan, n->rows, NULL, &engine, &error));
    assert_ok(sap_plugin_cuda.put(engine, n->values, NULL, &error));
    const float *x[] = {n->x};
    const int64_t *offsets[] = {n->steps ? NULL : n->offsets};
    const float *target[] = {n->target};
    const int64_t target_values[] = {1};
    sap_cuda_rows rows = {
        .rows = n->rows, .x = x, .offsets = offsets, .target = target, .target_values = target_values};
    float *found = calloc((size_t)(n->rows * CLASSES + n->count), sizeof *found);
    double *w = calloc((size_t)n->count, sizeof *w), *expected = calloc((size_t)n->rows * CLASSES, sizeof *expected);
    for (int64_t i = 0; i < n->count; i++)
        w[i] = n->values[i];
    double loss = 0;
    for (int64_t r = 0; r < n->rows; r++)
        loss += row_loss(n, w, r, expected + r * CLASSES);
    sap_cuda_result result;
    assert_ok(sap_plugin_cuda.predict(engine, &rows, &found, &error));
    double far = distance(found, expected, n->rows * CLASSES);
    if (!(far <= tolerance))
        fail_msg("outputs differ by %g of their norm", far);
    for (int again = 0; again < 2; again++) { /* what the first left must not show in the second */
        assert_ok(sap_plugin_cuda.gradient(engine, &rows, found, &result, &error));
        assert_true(fabs(result.loss - loss) <= tolerance * loss);
        check_gradients(n, found, stride, 2 * tolerance);
    }
    sap_plugin_cuda.close(engine);
    free(found);
    free(w);
    free(expected);
    free(n->x);
    free(n->values);
}

static const int32_t LENGTHS[] = {9, 7, 7, 5, 3, 0, 1};

static void test_general(void **state) {
    (void)state;
    for (int lstm = 0; lstm < 2; lstm++) {
        net ragged = {.lstm = lstm, .width = 3, .units = 5, .rows = 7};
        check_net(&ragged, LENGTHS, SAP_CUDA_FLOAT32, 2e-5, 1);
        net backwards = {.lstm = lstm, .backwards = true, .width = 3, .units = 5, .rows = 7};
        check_net(&backwards, LENGTHS, SAP_CUDA_FLOAT32, 2e-5, 1);
        net regular = {.lstm = lstm, .whole = true, .width = 4, .units = 6, .steps = 5, .rows = 5};
        check_net(&regular, NULL, SAP_CUDA_FLOAT32, 2e-5, 1);
    }
}

/* On tensor cores: bf16 weights, inputs and states. Slices of one tile, of two, of four (the emulated device has three
 * multiprocessors), several to a block; with rows of no steps, and behind the last. */
static void check_tensor_cores(bool lstm) {
    int32_t many[ROWS_MOST];
    for (int32_t r = 0; r < ROWS_MOST; r++)
        many[r] = (int32_t)(sap_mix(3, (uint64_t)r) % (r < 20 ? 11 : 4));
    net small = {.lstm = lstm, .width = 3, .units = 5, .rows = 7};
    check_net(&small, LENGTHS, SAP_CUDA_BF16, 0.01, 1);
    static const int32_t long_ones[] = {30, 27, 9}; /* around the rings of steps in shared memory */
    net round = {.lstm = lstm, .width = 3, .units = 5, .rows = 3};
    check_net(&round, long_ones, SAP_CUDA_BF16, 0.01, 1);
    net published = {.lstm = lstm, .width = 19, .units = 50, .rows = 20};
    check_net(&published, many, SAP_CUDA_BF16, 0.01, 97);
    net two = {.lstm = lstm, .backwards = true, .width = 16, .units = 17, .rows = 40};
    check_net(&two, many, SAP_CUDA_BF16, 0.01, 41);
    net four = {.lstm = lstm, .width = 8, .units = 12, .rows = 110};
    check_net(&four, many, SAP_CUDA_BF16, 0.01, 29);
    net largest = {.lstm = lstm, .width = 32, .units = 64, .rows = 12};
    check_net(&largest, many, SAP_CUDA_BF16, 0.01, 191);
}

static void test_gru_on_tensor_cores(void **state) {
    (void)state;
    check_tensor_cores(false);
}

static void test_lstm_on_tensor_cores(void **state) {
    (void)state;
    check_tensor_cores(true);
}

/* Products in tf32: sums that are no whole tiles, several tiles a warp, and a kernel too large for shared memory. */
static void test_tf32(void **state) {
    (void)state;
    for (int lstm = 0; lstm < 2; lstm++) {
        net ragged = {.lstm = lstm, .width = 3, .units = 5, .rows = 7};
        check_net(&ragged, LENGTHS, SAP_CUDA_TF32, 1e-3, 1);
        net backwards = {.lstm = lstm, .backwards = true, .width = 9, .units = 50, .rows = 7};
        check_net(&backwards, LENGTHS, SAP_CUDA_TF32, 1e-3, 97);
        net regular = {.lstm = lstm, .whole = true, .width = 4, .units = 6, .steps = 5, .rows = 19};
        check_net(&regular, NULL, SAP_CUDA_TF32, 1e-3, 1);
    }
    net large = {.lstm = true, .width = 4, .units = 128, .rows = 3};
    check_net(&large, LENGTHS, SAP_CUDA_TF32, 1e-3, 3001);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_general),
        cmocka_unit_test(test_gru_on_tensor_cores),
        cmocka_unit_test(test_lstm_on_tensor_cores),
        cmocka_unit_test(test_tf32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
