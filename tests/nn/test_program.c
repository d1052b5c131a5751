/* Programs on sequences: ragged and dense forms give the same, whatever the order of rows, padding and threads. */
#include "nn_test.h"

#include <math.h>

static sap_error error;

enum { STEPS = 9, WIDTH = 3, UNITS = 5, CLASSES = 3 };

#define LAYER(class, settings, inputs)                                                                                 \
    "{\"class_name\": \"" class "\", \"config\": {" settings "}, \"inbound_nodes\": [[" inputs "]]}"
#define FROM(name) "[\"" name "\", 0, 0, {}]"
#define NAMED(name) "\"name\": \"" name "\""
#define SEQUENCE(name, time)                                                                                           \
    "{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"" name "\", \"batch_shape\": [null, " time              \
    ", 3]}, \"inbound_nodes\": []}"
#define UNIT(name, units, activation, from)                                                                            \
    LAYER("Dense",                                                                                                     \
          NAMED(name) ", \"units\": " units ", \"activation\": \"" activation                                          \
                      "\", \"bias_initializer\": {\"class_name\": \"RandomNormal\", \"config\": {\"stddev\": 0.5}}",   \
          FROM(from))
#define MASKING(name, value, from) LAYER("Masking", NAMED(name) ", \"mask_value\": " value, FROM(from))
#define POOLING(name, from) LAYER("GlobalAveragePooling1D", NAMED(name), FROM(from))
#define FUNCTIONAL(layers, inputs, outputs)                                                                            \
    "{\"class_name\": \"Functional\", \"config\": {\"name\": \"net\", \"layers\": [" layers                            \
    "], \"input_layers\": [" inputs "], \"output_layers\": [" outputs "]}}"
#define END(name) "[\"" name "\", 0, 0]"

/* (time, 3), masked – 5 a step – mean over the steps that count – 3 */
#define MASKED(time, value)                                                                                            \
    SEQUENCE("x", time)                                                                                                \
    ", " MASKING("m", value, "x") ", " UNIT("d", "5", "tanh", "m") ", " POOLING("p", "d") ", " UNIT("c", "3",          \
                                                                                                    "softmax", "p")
#define RAGGED FUNCTIONAL(MASKED("9", "0"), END("x"), END("c"))
/* The same, but padding shows in a second output. */
#define DENSE_FORM FUNCTIONAL(MASKED("9", "0"), END("x"), END("c") ", " END("d"))

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 1, &model, &error));
    return model;
}

/* ---- Rows ----------------------------------------------------------------------------------------------- */

/* Rows of sequences, ragged and padded. */
typedef struct rows {
    sap_examples ragged, dense;
    float *steps, *padded;
    int64_t *offsets;
    int32_t *label;
    uint64_t *identity;
    const float *x, *y;
    const int64_t *offset;
    int64_t ragged_values, dense_values;
} rows;

static int64_t length_of(int64_t row) { /* zero, one, and all are among them */
    return (int64_t)(sap_mix(31, (uint64_t)row) % (STEPS + 1));
}

/* Padding is `fill`; a step in the middle of some rows is too. */
static void make_rows(rows *r, int64_t count, float fill) {
    *r = (rows){.steps = calloc((size_t)(count * STEPS * WIDTH), sizeof(float)),
                .padded = calloc((size_t)(count * STEPS * WIDTH), sizeof(float)),
                .offsets = calloc((size_t)count + 1, sizeof(int64_t)),
                .label = calloc((size_t)count, sizeof(int32_t)),
                .identity = calloc((size_t)count, sizeof(uint64_t)),
                .ragged_values = WIDTH,
                .dense_values = STEPS * WIDTH};
    for (int64_t i = 0; i < count * STEPS * WIDTH; i++)
        r->padded[i] = fill;
    for (int64_t i = 0; i < count; i++) {
        r->offsets[i + 1] = r->offsets[i] + length_of(i);
        r->label[i] = (int32_t)(sap_mix(7, (uint64_t)i) % CLASSES);
        r->identity[i] = sap_mix(9, (uint64_t)i);
        for (int64_t t = 0; t < length_of(i); t++)
            for (int64_t f = 0; f < WIDTH; f++) {
                float value = (float)(2 * sap_unit(sap_mix(3, (uint64_t)((i * STEPS + t) * WIDTH + f))) - 1);
                if (i % 5 == 2 && t == 1)
                    value = fill;
                r->padded[(i * STEPS + t) * WIDTH + f] = r->steps[(r->offsets[i] + t) * WIDTH + f] = value;
            }
    }
    r->x = r->steps;
    r->y = r->padded;
    r->offset = r->offsets;
    r->ragged = (sap_examples){.rows = count,
                               .inputs = 1,
                               .x = &r->x,
                               .values = &r->ragged_values,
                               .offsets = &r->offset,
                               .label = r->label,
                               .identity = r->identity};
    r->dense = r->ragged;
    r->dense.x = &r->y;
    r->dense.values = &r->dense_values;
    r->dense.offsets = NULL;
}

static void free_rows(rows *r) {
    free(r->steps);
    free(r->padded);
    free(r->offsets);
    free(r->label);
    free(r->identity);
}

static const float *weight(sap_model *model, const char *path) {
    for (size_t i = 0; i < sap_model_weight_count(model); i++)
        if (strcmp(sap_model_weight(model, i)->path, path) == 0)
            return sap_model_weight(model, i)->data;
    fail_msg("no weight %s", path);
    return NULL;
}

/* MASKED's formula on one row; y: (UNITS) mean over the steps that count. */
static void expect(sap_model *model, const float *x, int64_t steps, float masked, double *scores) {
    const float *w = weight(model, "d/kernel"), *b = weight(model, "d/bias");
    const float *v = weight(model, "c/kernel"), *c = weight(model, "c/bias");
    double mean[UNITS] = {0}, sum = 0;
    int64_t counted = 0;
    for (int64_t t = 0; t < steps; t++, x += WIDTH) {
        if (x[0] == masked && x[1] == masked && x[2] == masked)
            continue;
        counted++;
        for (int u = 0; u < UNITS; u++) {
            double z = (double)b[u];
            for (int f = 0; f < WIDTH; f++)
                z += (double)x[f] * (double)w[f * UNITS + u];
            mean[u] += tanh(z);
        }
    }
    for (int k = 0; k < CLASSES; k++) {
        scores[k] = (double)c[k];
        for (int u = 0; counted && u < UNITS; u++)
            scores[k] += mean[u] / (double)counted * (double)v[u * CLASSES + k];
        sum += exp(scores[k]);
    }
    for (int k = 0; k < CLASSES; k++)
        scores[k] = exp(scores[k]) / sum;
}

static void assert_expected(sap_model *model, const sap_examples *padded, float masked, const float *scores) {
    for (int64_t i = 0; i < padded->rows; i++) {
        double wanted[CLASSES];
        expect(model, padded->x[0] + i * STEPS * WIDTH, STEPS, masked, wanted);
        for (int k = 0; k < CLASSES; k++)
            if (!(fabs((double)scores[i * CLASSES + k] - wanted[k]) < 2e-6))
                fail_msg("row %lld: score %g, expected %g", (long long)i, (double)scores[i * CLASSES + k], wanted[k]);
    }
}

/* ---- Domains -------------------------------------------------------------------------------------------- */

static void test_domains(void **state) {
    (void)state;
#define TWO SEQUENCE("x", "9") ", " SEQUENCE("y", "9") ", "
#define SUM(a, b, name) LAYER("Add", NAMED(name), FROM(a) ", " FROM(b))
    static const struct {
        const char *json;
        int domains, ragged;
    } cases[] = {
        {RAGGED, 1, 1},
        {DENSE_FORM, 1, 0},
        {FUNCTIONAL(MASKED("null", "0"), END("x"), END("c")), 1, 1},
        /* nothing is masked: padding is data, or rows of an unknown length have none */
        {FUNCTIONAL(SEQUENCE("x", "9") ", " POOLING("p", "x"), END("x"), END("p")), 1, 0},
        {FUNCTIONAL(SEQUENCE("x", "null") ", " POOLING("p", "x"), END("x"), END("p")), 1, 1},
        /* another use without the mask, of another mask, after Flatten */
        {FUNCTIONAL(MASKED("9", "0") ", " POOLING("q", "x"), END("x"), END("c") ", " END("q")), 1, 0},
        {FUNCTIONAL(MASKED("9", "0") ", " MASKING("n", "1", "x") ", " POOLING("q", "n"), END("x"),
                    END("c") ", " END("q")),
         1, 0},
        {FUNCTIONAL(MASKED("9", "0") ", " LAYER("Flatten", NAMED("f"), FROM("m")), END("x"), END("c") ", " END("f")), 1,
         0},
        /* two sums of one sequence; two sequences, each for itself; their sum */
        {FUNCTIONAL(MASKED("9", "0") ", " SUM("m", "m", "s") ", " POOLING("q", "s"), END("x"), END("c") ", " END("q")),
         1, 1},
        {FUNCTIONAL(TWO MASKING("m", "0", "x") ", " POOLING("p", "m") ", " MASKING("n", "0", "y") ", " POOLING(
                        "q", "n") ", " SUM("p", "q", "s"),
                    END("x") ", " END("y"), END("s")),
         2, 2},
        {FUNCTIONAL(
             TWO MASKING("m", "0", "x") ", " MASKING("n", "0", "y") ", " SUM("m", "n", "s") ", " POOLING("p", "s"),
             END("x") ", " END("y"), END("p")),
         1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_model *model = open_net(cases[i].json);
        int ragged = 0;
        for (int32_t d = 0; d < model->domain_count; d++)
            ragged += model->domains[d].ragged;
        if (model->domain_count != cases[i].domains || ragged != cases[i].ragged)
            fail_msg("case %zu: %d domains, %d of them ragged", i, (int)model->domain_count, ragged);
        sap_model_close(model);
    }
}

/* ---- Predictions ---------------------------------------------------------------------------------------- */

enum { ROWS = 203 };

static void test_forms(void **state) {
    (void)state;
    static const float masks[] = {0, 1.25F};
    for (int m = 0; m < 2; m++) {
        sap_model *model = open_net(m ? FUNCTIONAL(MASKED("9", "1.25"), END("x"), END("c")) : RAGGED);
        sap_model *dense = open_net(m ? FUNCTIONAL(MASKED("9", "1.25"), END("x"), END("c") ", " END("d")) : DENSE_FORM);
        rows r;
        make_rows(&r, ROWS, masks[m]);
        float *one = calloc(ROWS * CLASSES, sizeof *one), *two = calloc(ROWS * CLASSES, sizeof *two);
        float *steps = calloc((size_t)ROWS * STEPS * UNITS, sizeof *steps);
        assert_ok(sap_model_predict(model, &r.ragged, NULL, &one, &error));
        assert_expected(model, &r.dense, masks[m], one);
        assert_ok(sap_model_predict(model, &r.dense, NULL, &two, &error));
        assert_memory_equal(one, two, ROWS * CLASSES * sizeof *one);
        assert_ok(sap_model_predict(dense, &r.dense, NULL, (float *[]){two, steps}, &error));
        assert_expected(model, &r.dense, masks[m], two);
        memset(two, 0, ROWS * CLASSES * sizeof *two);
        assert_ok(sap_model_predict(dense, &r.ragged, NULL, (float *[]){two, NULL}, &error));
        assert_expected(model, &r.dense, masks[m], two);
        /* Masking gives zeros at masked steps, so that the layer behind it gives its bias */
        const float *bias = weight(model, "d/bias");
        for (int64_t i = 0; i < ROWS; i++)
            for (int64_t t = length_of(i); t < STEPS; t++)
                for (int u = 0; u < UNITS; u++)
                    assert_true(fabsf(steps[(i * STEPS + t) * UNITS + u] - tanhf(bias[u])) < 1e-6F);
        free(one);
        free(two);
        free(steps);
        free_rows(&r);
        sap_model_close(model);
        sap_model_close(dense);
    }
}

/* Rows one by one, and all at once in any order. */
static void test_order(void **state) {
    (void)state;
    sap_model *model = open_net(RAGGED);
    rows r;
    make_rows(&r, ROWS, 0);
    float *all = calloc(ROWS * CLASSES, sizeof *all), one[CLASSES];
    assert_ok(sap_model_predict(model, &r.ragged, NULL, &all, &error));
    for (int64_t i = 0; i < ROWS; i += 3) {
        const float *x = r.padded + i * STEPS * WIDTH;
        sap_examples row = {.rows = 1, .inputs = 1, .x = &x, .values = &r.dense_values};
        assert_ok(sap_model_predict(model, &row, NULL, &(float *){one}, &error));
        assert_memory_equal(one, all + i * CLASSES, sizeof one);
    }
    free(all);
    free_rows(&r);
    sap_model_close(model);
}

static void test_unknown_length(void **state) {
    (void)state;
    sap_model *fixed = open_net(RAGGED), *model = open_net(FUNCTIONAL(MASKED("null", "0"), END("x"), END("c")));
    sap_model *steps = open_net(FUNCTIONAL(SEQUENCE("x", "null") ", " UNIT("d", "5", "tanh", "x"), END("x"), END("d")));
    rows r;
    make_rows(&r, ROWS, 0);
    float *one = calloc(ROWS * CLASSES, sizeof *one), *two = calloc(ROWS * CLASSES, sizeof *two);
    float *long_one = calloc((size_t)ROWS * STEPS * UNITS, sizeof *long_one),
          *long_two = calloc(ROWS * STEPS * UNITS, 4);
    assert_int_equal(sap_model_output(steps, 0)->shape[0], -1);
    assert_ok(sap_model_predict(fixed, &r.dense, NULL, &one, &error));
    assert_ok(sap_model_predict(model, &r.ragged, NULL, &two, &error));
    assert_memory_equal(one, two, ROWS * CLASSES * sizeof *one);
    assert_ok(sap_model_predict(model, &r.dense, NULL, &two, &error));
    assert_memory_equal(one, two, ROWS * CLASSES * sizeof *one);
    /* as many steps as the longest row has; rows that end before are padded with zeros */
    assert_ok(sap_model_predict(steps, &r.ragged, NULL, &long_one, &error));
    assert_ok(sap_model_predict(steps, &r.dense, NULL, &long_two, &error));
    assert_memory_equal(long_one, long_two, (size_t)ROWS * STEPS * UNITS * sizeof *long_one);
    int64_t half = 2 * WIDTH; /* shorter and longer examples through the same model */
    sap_examples few = {.rows = ROWS, .inputs = 1, .x = &r.x, .values = &half};
    few.rows = 10;
    assert_ok(sap_model_predict(model, &few, NULL, &two, &error));
    for (int64_t i = 0; i < few.rows; i++) {
        double wanted[CLASSES];
        expect(fixed, r.steps + i * half, 2, 0, wanted);
        for (int k = 0; k < CLASSES; k++)
            assert_true(fabs((double)two[i * CLASSES + k] - wanted[k]) < 2e-6);
    }
    half = 2 * WIDTH + 1;
    assert_int_equal(sap_model_predict(model, &few, NULL, &two, &error), SAP_ETYPE);
    assert_contains(error.message, "input \"x\" takes steps of 3 values, the examples have 7 a row");
    free(one);
    free(two);
    free(long_one);
    free(long_two);
    free_rows(&r);
    sap_model_close(fixed);
    sap_model_close(model);
    sap_model_close(steps);
}

/* Rows longer than the model's time dimension are cut. */
static void test_long_rows(void **state) {
    (void)state;
    sap_model *model = open_net(RAGGED), *dense = open_net(DENSE_FORM);
    enum { LONG = 2 * STEPS };
    float x[LONG * WIDTH], one[CLASSES], two[CLASSES];
    for (int i = 0; i < LONG * WIDTH; i++)
        x[i] = (float)sap_unit(sap_mix(4, (uint64_t)i));
    memset(x + 2 * WIDTH, 0, WIDTH * sizeof *x); /* cut before masked steps are dropped, as if padded first */
    const float *at = x;
    const int64_t values = WIDTH, all = STEPS * WIDTH, offsets[2] = {0, LONG}, *offset = offsets;
    sap_examples ragged = {.rows = 1, .inputs = 1, .x = &at, .values = &values, .offsets = &offset};
    sap_examples cut = {.rows = 1, .inputs = 1, .x = &at, .values = &all};
    assert_ok(sap_model_predict(model, &cut, NULL, &(float *){one}, &error));
    assert_ok(sap_model_predict(model, &ragged, NULL, &(float *){two}, &error));
    assert_memory_equal(one, two, sizeof one);
    assert_ok(sap_model_predict(dense, &ragged, NULL, (float *[]){two, NULL}, &error));
    for (int k = 0; k < CLASSES; k++)
        assert_true(fabsf(one[k] - two[k]) < 1e-6F);
    sap_model_close(model);
    sap_model_close(dense);
}

/* Two sequences of an event with lengths of their own. */
static void test_two_sequences(void **state) {
    (void)state;
    sap_model *model = open_net(FUNCTIONAL(
        SEQUENCE("x", "9") ", " SEQUENCE("y", "9") ", " MASKING("m", "0", "x") ", " POOLING("p", "m") ", " MASKING(
            "n", "0", "y") ", " POOLING("q", "n") ", " LAYER("Concatenate", NAMED("s") ", \"axis\": -1",
                                                             FROM("p") ", " FROM("q")),
        END("x") ", " END("y"), END("s")));
    rows r;
    make_rows(&r, ROWS, 0);
    /* the second sequence of a row is the first one of another */
    float *reversed = calloc((size_t)ROWS * STEPS * WIDTH, sizeof *reversed),
          *scores = calloc(ROWS * 6, sizeof *scores);
    for (int64_t i = 0; i < ROWS; i++)
        memcpy(reversed + i * STEPS * WIDTH, r.padded + (ROWS - 1 - i) * STEPS * WIDTH, STEPS * WIDTH * sizeof(float));
    const float *x[2] = {r.steps, reversed};
    const int64_t values[2] = {WIDTH, STEPS * WIDTH}, *offsets[2] = {r.offsets, NULL};
    sap_examples both = {.rows = ROWS, .inputs = 2, .x = x, .values = values, .offsets = offsets};
    assert_ok(sap_model_predict(model, &both, NULL, &scores, &error));
    for (int64_t i = 0; i < ROWS; i++) {
        double mean[2 * WIDTH] = {0};
        for (int half = 0; half < 2; half++) {
            const float *row = r.padded + (half ? ROWS - 1 - i : i) * STEPS * WIDTH;
            int counted = 0;
            for (int t = 0; t < STEPS; t++)
                counted += row[t * WIDTH] != 0;
            for (int t = 0; t < STEPS * WIDTH; t++)
                mean[half * WIDTH + t % WIDTH] += counted ? (double)row[t] / counted : 0;
        }
        for (int v = 0; v < 2 * WIDTH; v++)
            assert_true(fabs((double)scores[i * 6 + v] - mean[v]) < 1e-6);
    }
    free(reversed);
    free(scores);
    free_rows(&r);
    sap_model_close(model);
}

static void test_bad_examples(void **state) {
    (void)state;
    sap_model *model = open_net(RAGGED), *flat = open_net(DROPOUT_NET);
    rows r;
    make_rows(&r, 10, 0);
    float scores[10 * CLASSES], *to = scores;
    r.ragged_values = WIDTH + 1;
    assert_int_equal(sap_model_predict(model, &r.ragged, NULL, &to, &error), SAP_ETYPE);
    assert_contains(error.message, "input \"x\" takes 3 values a step, the examples have 4");
    r.dense_values = 5;
    assert_int_equal(sap_model_predict(model, &r.dense, NULL, &to, &error), SAP_ETYPE);
    assert_contains(error.message, "input \"x\" takes 27 values a row, the examples have 5");
    r.ragged_values = WIDTH;
    r.offsets[5] = r.offsets[4] - 1;
    assert_int_equal(sap_model_predict(model, &r.ragged, NULL, &to, &error), SAP_EDATA);
    assert_contains(error.message, "row 4 of the examples ends before it begins");
    assert_int_equal(sap_model_predict(flat, &r.ragged, NULL, &to, &error), SAP_ETYPE);
    assert_contains(error.message, "is no sequence");
    free_rows(&r);
    sap_model_close(model);
    sap_model_close(flat);
}

/* ---- Gradients ------------------------------------------------------------------------------------------ */

static double gradient(const sap_model *model, const sap_examples *examples, int threads, float *gradients) {
    double loss = 0;
    sap_pool *pool = NULL;
    assert_ok(sap_pool_open(threads, &pool, &error));
    assert_ok(sap_model_gradient(model, examples, &(sap_loss){0}, &(sap_run){.pool = pool}, &loss, gradients, &error));
    sap_pool_close(pool);
    return loss;
}

/* The mean cross-entropy of MASKED, in double. */
static double loss_of(sap_model *model, const rows *r) {
    double loss = 0;
    for (int64_t i = 0; i < r->dense.rows; i++) {
        double scores[CLASSES];
        expect(model, r->padded + i * STEPS * WIDTH, STEPS, 0, scores);
        loss -= log(scores[r->label[i]]);
    }
    return loss / (double)r->dense.rows;
}

static void test_gradient(void **state) {
    (void)state;
    sap_model *model = open_net(RAGGED);
    rows r;
    make_rows(&r, ROWS, 0);
    size_t count = (size_t)model->trainable_count;
    float *one = calloc(count, sizeof *one), *two = calloc(count, sizeof *two);
    double loss = gradient(model, &r.ragged, 1, one);
    assert_true(fabs(loss - loss_of(model, &r)) < 1e-6);
    for (size_t i = 0; i < count; i++) {
        float kept = model->values[i];
        model->values[i] = kept + 1e-2F;
        double up = loss_of(model, &r), high = (double)model->values[i];
        model->values[i] = kept - 1e-2F;
        double down = loss_of(model, &r), low = (double)model->values[i];
        model->values[i] = kept;
        if (!(fabs((up - down) / (high - low) - (double)one[i]) < 2e-5))
            fail_msg("parameter %zu: gradient %g, difference %g", i, (double)one[i], (up - down) / (high - low));
    }
    assert_true(gradient(model, &r.dense, 1, two) == loss);
    assert_memory_equal(one, two, count * sizeof *one);
    free(one);
    free(two);
    free_rows(&r);
    sap_model_close(model);
}

/* Enough rows for threads to be used, with dropout; also another program that was used for shorter rows before. */
static void test_threads(void **state) {
    (void)state;
    sap_model *model = open_net(FUNCTIONAL(
        SEQUENCE("x", "9") ", " MASKING("m", "0", "x") ", " LAYER(
            "Dropout", NAMED("o") ", \"rate\": 0.3",
            FROM("m")) ", " UNIT("d", "40", "tanh",
                                 "o") ", " UNIT("e", "40", "gelu",
                                                "d") ", " POOLING("p", "e") ", " UNIT("c", "3", "softmax", "p"),
        END("x"), END("c")));
    enum { MANY = 1500 };
    rows r;
    make_rows(&r, MANY, 0);
    size_t count = (size_t)model->trainable_count;
    float *one = calloc(count, sizeof *one), *more = calloc(count, sizeof *more);
    sap_batch_result result, first;
    static const int threads[] = {1, 2, 3, 7};
    static const int64_t sizes[] = {100, MANY}; /* half tiles, whole tiles */
    for (int s = 0; s < 2; s++) {
        for (int t = 0; t < 4; t++) {
            sap_pool *pool = NULL;
            sap_program *program = NULL;
            assert_ok(sap_pool_open(threads[t], &pool, &error));
            assert_ok(
                sap_program_open(model, SAP_TRAIN, &(sap_loss){0}, NULL, &(sap_run){.pool = pool}, &program, &error));
            sap_examples few = r.ragged;
            few.rows = 3 + t;
            assert_ok(sap_program_run(program, &few, 6, more, NULL, &result, &error));
            sap_examples batch = t % 2 ? r.dense : r.ragged;
            batch.rows = sizes[s];
            assert_ok(sap_program_run(program, &batch, 5, t ? more : one, NULL, t ? &result : &first, &error));
            assert_true(t == 0 || result.outputs[0].loss == first.outputs[0].loss);
            if (t)
                assert_memory_equal(one, more, count * sizeof *one);
            sap_program_close(program);
            sap_pool_close(pool);
        }
    }
    free(one);
    free(more);
    free_rows(&r);
    sap_model_close(model);
}

/* Dropout draws the same numbers for an event whatever stands beside it in the tile. */
static void test_dropout(void **state) {
    (void)state;
    sap_model *model = open_net(FUNCTIONAL(SEQUENCE("x", "9") ", " LAYER("Dropout", NAMED("o") ", \"rate\": 0.4",
                                                                         FROM("x")) ", " UNIT("d", "1", "linear", "o"),
                                           END("x"), END("d")));
    rows r;
    make_rows(&r, 70, 0);
    size_t count = (size_t)model->trainable_count;
    float *all = calloc(70 * STEPS, sizeof *all), *one = calloc(STEPS, sizeof *one), *g = calloc(count, sizeof *g);
    float *target = calloc(70 * STEPS, sizeof *target);
    const float *y = target;
    const int64_t width = STEPS;
    sap_loss squares = {.kind = SAP_LOSS_MEAN_SQUARED_ERROR};
    sap_program *program = NULL;
    sap_batch_result result;
    r.dense.label = NULL;
    r.dense.targets = 1;
    r.dense.y = &y;
    r.dense.target_values = &width;
    assert_ok(sap_program_open(model, SAP_TRAIN, &squares, NULL, NULL, &program, &error));
    assert_ok(sap_program_run(program, &r.dense, 5, g, &all, &result, &error));
    int64_t different = 0;
    for (int64_t i = 0; i < 70; i += 9) {
        sap_examples row = r.dense;
        const float *x = r.padded + i * STEPS * WIDTH;
        row.rows = 1;
        row.x = &x;
        row.identity = r.identity + i;
        assert_ok(sap_program_run(program, &row, 5, g, &one, &result, &error));
        assert_memory_equal(one, all + i * STEPS, STEPS * sizeof *one);
        assert_ok(sap_program_run(program, &row, 6, g, &one, &result, &error));
        different += memcmp(one, all + i * STEPS, STEPS * sizeof *one) != 0;
    }
    assert_true(different > 4);
    sap_program_close(program);
    free(all);
    free(one);
    free(g);
    free(target);
    free_rows(&r);
    sap_model_close(model);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains),        cmocka_unit_test(test_forms),     cmocka_unit_test(test_order),
        cmocka_unit_test(test_unknown_length), cmocka_unit_test(test_long_rows), cmocka_unit_test(test_two_sequences),
        cmocka_unit_test(test_bad_examples),   cmocka_unit_test(test_gradient),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
