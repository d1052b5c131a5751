/* BatchNormalization in training, against its formulas in double: statistics of the batch, of the steps that count. */
#include "nn_test.h"

#include "nn/normalization.h"

#include <math.h>

static sap_error error;

#define NORMALIZATION(name, settings)                                                                                  \
    "{\"class_name\": \"BatchNormalization\", \"config\": {\"name\": \"" name "\", \"momentum\": 0.75, "               \
    "\"gamma_initializer\": {\"class_name\": \"RandomUniform\", \"config\": {\"minval\": 0.5, \"maxval\": 2}}, "       \
    "\"beta_initializer\": {\"class_name\": \"RandomNormal\", \"config\": {\"stddev\": 0.5}}" settings "}}"
#define LAYER(class, settings) "{\"class_name\": \"" class "\", \"config\": {" settings "}}"

enum { ROWS = 150, IN = 5, HIDDEN = 6, SECOND = 4, CLASSES = 3, STEPS = 7 };

/* 5 – 6 – normalised, tanh – 4 – shifted alone – 3 */
#define PLAIN                                                                                                          \
    SEQUENTIAL(INPUT("x", "5") ", " DENSE("a", "6", "linear") ", " NORMALIZATION("m", "") ", " LAYER(                  \
        "Activation",                                                                                                  \
        "\"name\": \"t\", \"activation\": \"tanh\"") ", " DENSE("b", "4",                                              \
                                                                "linear") ", " NORMALIZATION("n",                      \
                                                                                             ", \"scale\": "           \
                                                                                             "false") ", " DENSE("c",  \
                                                                                                                 "3",  \
                                                                                                                 "sof" \
                                                                                                                 "tma" \
                                                                                                                 "x"))
/* (7, 5), masked, normalised – 6 a step, normalised, tanh – mean – 3 */
#define SEQUENCE                                                                                                       \
    SEQUENTIAL(INPUT("x", "7, 5") ", " LAYER("Masking", "\"name\": \"k\"") ", " NORMALIZATION("m", "") ", " DENSE(     \
        "a", "6",                                                                                                      \
        "linear") ", " NORMALIZATION("n",                                                                              \
                                     ", \"epsilon\": 0.01") ", " LAYER("Activation",                                   \
                                                                       "\"name\": \"t\", \"activation\": "             \
                                                                       "\"tanh\"") ", " LAYER("GlobalAverage"          \
                                                                                              "Pooling1D",             \
                                                                                              "\"name\": "             \
                                                                                              "\"p\"") ","             \
                                                                                                       " " DENSE(      \
                                                                                                           "c", "3",   \
                                                                                                           "softmax"))

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 3, &model, &error));
    return model;
}

static const float *weight(sap_model *model, const char *path) {
    for (size_t i = 0; i < sap_model_weight_count(model); i++)
        if (strcmp(sap_model_weight(model, i)->path, path) == 0)
            return sap_model_weight(model, i)->data;
    return NULL;
}

/* ---- The formulas --------------------------------------------------------------------------------------- */

static float part(sap_model *model, const char *layer, const char *name, int64_t i, float standard) {
    char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", layer, name);
    const float *values = weight(model, path);
    return values ? values[i] : standard;
}

static void dense(sap_model *model, const char *name, int64_t rows, int64_t in, int64_t out, const double *x,
                  double *y) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            y[r * out + o] = (double)part(model, name, "bias", o, 0);
            for (int64_t i = 0; i < in; i++)
                y[r * out + o] += x[r * in + i] * (double)part(model, name, "kernel", i * out + o, 0);
        }
}

/* In place; counts: (rows) which are taken into account. With `moving` those statistics, else those of the batch,
 * which go to mean and variance. */
static void normalize(sap_model *model, const char *name, int64_t rows, int64_t width, const bool *counts, bool moving,
                      double epsilon, double *x, double *mean, double *variance) {
    for (int64_t i = 0; i < width; i++) {
        double count = 0;
        mean[i] = variance[i] = 0;
        for (int64_t r = 0; r < rows; r++) {
            count += counts[r];
            mean[i] += counts[r] ? x[r * width + i] : 0;
        }
        mean[i] /= count;
        for (int64_t r = 0; r < rows; r++)
            variance[i] += counts[r] ? (x[r * width + i] - mean[i]) * (x[r * width + i] - mean[i]) : 0;
        variance[i] /= count;
        if (moving) {
            mean[i] = (double)part(model, name, "moving_mean", i, 0);
            variance[i] = (double)part(model, name, "moving_variance", i, 0);
        }
        for (int64_t r = 0; r < rows; r++)
            x[r * width + i] =
                (x[r * width + i] - mean[i]) / sqrt(variance[i] + epsilon) * (double)part(model, name, "gamma", i, 1) +
                (double)part(model, name, "beta", i, 0);
    }
}

typedef struct statistics {
    double mean[HIDDEN], variance[HIDDEN];
} statistics;

/* Mean cross-entropy of the rows; the statistics of the two layers. */
static double ending(sap_model *model, int64_t rows, int64_t in, const double *x, const int32_t *label) {
    double z[ROWS * CLASSES], loss = 0;
    dense(model, "c", rows, in, CLASSES, x, z);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int k = 0; k < CLASSES; k++)
            sum += exp(z[r * CLASSES + k]);
        loss += log(sum) - z[r * CLASSES + label[r]];
    }
    return loss / (double)rows;
}

static double plain_loss(sap_model *model, const sap_examples *e, bool moving, statistics s[2]) {
    static double x[ROWS * IN], a[ROWS * HIDDEN], b[ROWS * SECOND];
    bool counts[ROWS];
    for (int64_t r = 0; r < e->rows; r++)
        counts[r] = true;
    for (int64_t i = 0; i < e->rows * IN; i++)
        x[i] = (double)e->x[0][i];
    dense(model, "a", e->rows, IN, HIDDEN, x, a);
    normalize(model, "m", e->rows, HIDDEN, counts, moving, 1e-3, a, s[0].mean, s[0].variance);
    for (int64_t i = 0; i < e->rows * HIDDEN; i++)
        a[i] = tanh(a[i]);
    dense(model, "b", e->rows, HIDDEN, SECOND, a, b);
    normalize(model, "n", e->rows, SECOND, counts, moving, 1e-3, b, s[1].mean, s[1].variance);
    return ending(model, e->rows, SECOND, b, e->label);
}

static double sequence_loss(sap_model *model, const sap_examples *e, bool moving, statistics s[2]) {
    static double x[ROWS * STEPS * IN], a[ROWS * STEPS * HIDDEN], p[ROWS * HIDDEN];
    static bool counts[ROWS * STEPS];
    for (int64_t r = 0; r < e->rows * STEPS; r++) {
        counts[r] = false;
        for (int64_t i = 0; i < IN; i++) {
            x[r * IN + i] = (double)e->x[0][r * IN + i];
            counts[r] = counts[r] || e->x[0][r * IN + i] != 0;
        }
    }
    normalize(model, "m", e->rows * STEPS, IN, counts, moving, 1e-3, x, s[0].mean, s[0].variance);
    dense(model, "a", e->rows * STEPS, IN, HIDDEN, x, a);
    normalize(model, "n", e->rows * STEPS, HIDDEN, counts, moving, 1e-2, a, s[1].mean, s[1].variance);
    for (int64_t r = 0; r < e->rows; r++)
        for (int64_t i = 0; i < HIDDEN; i++) {
            double sum = 0, count = 0;
            for (int64_t t = r * STEPS; t < (r + 1) * STEPS; t++) {
                sum += counts[t] ? tanh(a[t * HIDDEN + i]) : 0;
                count += counts[t];
            }
            p[r * HIDDEN + i] = count > 0 ? sum / count : 0;
        }
    return ending(model, e->rows, HIDDEN, p, e->label);
}

typedef double (*loss_form)(sap_model *model, const sap_examples *e, bool moving, statistics s[2]);

/* ---- Comparisons ---------------------------------------------------------------------------------------- */

/* Examples of `width` numbers a row; with steps, some are zero. */
static void make(random_examples *r, bool steps) {
    make_examples(r, ROWS, steps ? STEPS * IN : IN);
    for (int64_t i = 0; i < ROWS * STEPS && steps; i++) {
        bool masked = i % STEPS >= (int64_t)(sap_mix(8, (uint64_t)(i / STEPS)) % (STEPS + 1)) || i % 19 == 0;
        for (int64_t f = 0; f < IN && masked; f++)
            r->x[i * IN + f] = 0;
    }
}

static double run(sap_model *model, sap_mode mode, const sap_examples *e, int threads, float *gradients) {
    sap_pool *pool = NULL;
    sap_program *program = NULL;
    sap_batch_result result;
    assert_ok(sap_pool_open(threads, &pool, &error));
    assert_ok(sap_program_open(model, mode, NULL, NULL, &(sap_run){.pool = pool}, &program, &error));
    sap_examples few = *e;
    few.rows = 2; /* other sizes before */
    float *values = malloc((size_t)model->value_count * sizeof *values);
    memcpy(values, model->values, (size_t)model->value_count * sizeof *values);
    assert_ok(sap_program_run(program, &few, 1, gradients, NULL, &result, &error));
    memcpy(model->values, values, (size_t)model->value_count * sizeof *values);
    assert_ok(sap_program_run(program, e, 1, gradients, NULL, &result, &error));
    free(values);
    sap_program_close(program);
    sap_pool_close(pool);
    return sap_loss_mean(&result.outputs[0]);
}

static void check_moved(sap_model *model, const char *layer, int64_t width, const statistics *s, const float *before) {
    for (int64_t i = 0; i < width; i++) {
        double mean = 0.25 * s->mean[i] + 0.75 * (double)before[i];
        double variance = 0.25 * s->variance[i] + 0.75 * (double)before[width + i];
        assert_true(fabs((double)part(model, layer, "moving_mean", i, 0) - mean) < 1e-6);
        assert_true(fabs((double)part(model, layer, "moving_variance", i, 0) - variance) < 1e-5);
    }
}

static void check_gradient(sap_model *model, const sap_examples *e, loss_form form, bool moving,
                           const float *gradients) {
    statistics s[2];
    for (int64_t i = 0; i < model->trainable_count; i++) {
        float kept = model->values[i];
        model->values[i] = kept + 2e-3F;
        double up = form(model, e, moving, s), high = (double)model->values[i];
        model->values[i] = kept - 2e-3F;
        double down = form(model, e, moving, s), low = (double)model->values[i];
        model->values[i] = kept;
        if (!(fabs((up - down) / (high - low) - (double)gradients[i]) < 1e-5))
            fail_msg("parameter %lld: gradient %g, difference %g", (long long)i, (double)gradients[i],
                     (up - down) / (high - low));
    }
}

static void check(const char *json, bool steps, loss_form form, int64_t width) {
    sap_model *model = open_net(json);
    random_examples r;
    make(&r, steps);
    statistics s[2];
    size_t count = (size_t)model->trainable_count;
    float *gradients = calloc(count, sizeof *gradients), *more = calloc(count, sizeof *more);
    float before[2 * HIDDEN];
    for (int64_t i = 0; i < width; i++) {
        before[i] = part(model, "m", "moving_mean", i, 0);
        before[width + i] = part(model, "m", "moving_variance", i, 0);
    }
    double wanted = form(model, &r.examples, false, s);
    assert_true(fabs(run(model, SAP_TRAIN, &r.examples, 1, gradients) - wanted) < 1e-6);
    check_moved(model, "m", width, &s[0], before);
    check_gradient(model, &r.examples, form, false, gradients);
    for (int threads = 2; threads < 5; threads++) {
        (void)run(model, SAP_TRAIN, &r.examples, threads, more);
        assert_memory_equal(gradients, more, count * sizeof *more);
    }
    /* with the moving statistics, which are others by now */
    wanted = form(model, &r.examples, true, s);
    assert_true(fabs(run(model, SAP_DIFFERENTIATE, &r.examples, 1, gradients) - wanted) < 1e-6);
    check_gradient(model, &r.examples, form, true, gradients);
    free(gradients);
    free(more);
    free_examples(&r);
    sap_model_close(model);
}

static void test_plain(void **state) {
    (void)state;
    check(PLAIN, false, plain_loss, HIDDEN);
}

static void test_sequence(void **state) {
    (void)state;
    check(SEQUENCE, true, sequence_loss, IN);
}

/* A layer that is not trainable keeps its statistics, and what is before it is trained through them. */
static void test_frozen(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(INPUT("x", "5") ", " DENSE("a", "6", "linear") ", " NORMALIZATION(
        "m", ", \"trainable\": false") ", " DENSE("c", "3", "softmax")));
    random_examples r;
    make(&r, false);
    float *one = calloc((size_t)model->trainable_count, 4), *two = calloc((size_t)model->trainable_count, 4);
    float *values = malloc((size_t)model->value_count * sizeof *values);
    memcpy(values, model->values, (size_t)model->value_count * sizeof *values);
    assert_true(run(model, SAP_TRAIN, &r.examples, 1, one) == run(model, SAP_DIFFERENTIATE, &r.examples, 1, two));
    assert_memory_equal(one, two, (size_t)model->trainable_count * sizeof *one);
    assert_memory_equal(values, model->values, (size_t)model->value_count * sizeof *values);
    free(values);
    free(one);
    free(two);
    free_examples(&r);
    sap_model_close(model);
}

/* Masked steps of an output that is a sequence take no part in its loss: the mean is over those that count. */
static void test_masked_loss(void **state) {
    (void)state;
    sap_model *model = open_net(
        SEQUENTIAL(INPUT("x", "7, 5") ", " LAYER("Masking", "\"name\": \"k\"") ", " DENSE("a", "2", "linear")));
    random_examples r;
    make(&r, true);
    float *target = calloc(ROWS * STEPS * 2, sizeof *target), gradients[2 * IN + 2];
    const float *y = target;
    const int64_t width = STEPS * 2;
    double wanted = 0, count = 0, slope[2 * IN + 2] = {0};
    for (int64_t t = 0; t < ROWS * STEPS; t++) {
        const float *x = r.x + t * IN;
        bool counts = false;
        for (int i = 0; i < IN; i++)
            counts = counts || x[i] != 0;
        count += counts;
        for (int o = 0; o < 2 && counts; o++) {
            double z = -(double)(target[t * 2 + o] = (float)sap_unit(sap_mix(6, (uint64_t)(t * 2 + o))));
            for (int i = 0; i < IN; i++)
                z += (double)x[i] * (double)part(model, "a", "kernel", i * 2 + o, 0);
            wanted += z * z / 2; /* the mean of two */
            for (int i = 0; i < IN; i++)
                slope[i * 2 + o] += z * (double)x[i];
            slope[2 * IN + o] += z;
        }
    }
    r.examples.label = NULL;
    r.examples.targets = 1;
    r.examples.y = &y;
    r.examples.target_values = &width;
    sap_program *program = NULL;
    sap_batch_result result;
    assert_ok(sap_program_open(model, SAP_TRAIN, &(sap_loss){.kind = SAP_LOSS_MEAN_SQUARED_ERROR}, NULL, NULL, &program,
                               &error));
    assert_ok(sap_program_run(program, &r.examples, 1, gradients, NULL, &result, &error));
    assert_int_equal(result.outputs[0].count, (int64_t)count);
    assert_true(fabs(sap_loss_mean(&result.outputs[0]) - wanted / count) < 1e-6);
    for (int i = 0; i < 2 * IN + 2; i++)
        assert_true(fabs((double)gradients[i] - slope[i] / count) < 1e-6);
    sap_program_close(program);
    free(target);
    free_examples(&r);
    sap_model_close(model);
}

/* Every form of the kernels against the plain one. */
static void test_kernels(void **state) {
    (void)state;
    enum { R = 5 };
    const sap_normalization_kernels *plain = sap_kernels_at(0)->normalization;
    float *x = aligned_alloc(64, R * SAP_TILE * 4), *dy = aligned_alloc(64, R * SAP_TILE * 4);
    float *dx = aligned_alloc(64, R * SAP_TILE * 4), *other = aligned_alloc(64, R * SAP_TILE * 4);
    float counts[SAP_TILE], few[4][R];
    for (int i = 0; i < R * SAP_TILE; i++) {
        x[i] = (float)sap_unit(sap_mix(1, (uint64_t)i));
        dy[i] = (float)sap_unit(sap_mix(2, (uint64_t)i)) - 0.5F;
        counts[i % SAP_TILE] = i % 3 != 0;
        few[i % 4][i % R] = (float)sap_unit(sap_mix(3, (uint64_t)i));
    }
    for (size_t form = 1; sap_kernels_at(form); form++) {
        const sap_normalization_kernels *k = sap_kernels_at(form)->normalization;
        for (int width = SAP_COLUMNS; width <= SAP_TILE; width += SAP_COLUMNS) {
            double a[4][R] = {{0}}, b[4][R] = {{0}};
            sap_batch_normalization p = {.rows = R,
                                         .width = width,
                                         .counts = counts,
                                         .x = x,
                                         .dy = dy,
                                         .scale = few[1],
                                         .shift = few[2],
                                         .slope = few[3]};
            for (int with_mean = 0; with_mean < 2; with_mean++) {
                p.mean = with_mean ? few[0] : NULL;
                p.sums = a[with_mean];
                k->sums(&p);
                p.sums = b[with_mean];
                plain->sums(&p);
            }
            p.sums = a[2];
            p.products = a[3];
            k->products(&p);
            p.sums = b[2];
            p.products = b[3];
            plain->products(&p);
            for (int i = 0; i < 4 * R; i++)
                assert_true(fabs(a[i / R][i % R] - b[i / R][i % R]) < 1e-5);
            for (int add = 0; add < 2; add++) {
                memcpy(dx, x, R * SAP_TILE * 4);
                memcpy(other, x, R * SAP_TILE * 4);
                p.add = add;
                p.dx = dx;
                k->recenter(&p);
                p.dx = other;
                plain->recenter(&p);
                for (int i = 0; i < R * width; i++)
                    assert_true(fabsf(dx[i] - other[i]) < 1e-6F);
            }
        }
    }
    free(x);
    free(dy);
    free(dx);
    free(other);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_sequence), cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_masked_loss), cmocka_unit_test(test_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
