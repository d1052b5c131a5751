/* Losses: vector forms against the plain one, gradients against finite differences in double, targets, weights and masks. */
#include "nn_test.h"

#include <math.h>

static sap_error error;
static uint64_t counter;

enum { VALUES = 5, MOST = VALUES * SAP_TILE };

static float number(float low, float high) {
    return low + (high - low) * (float)sap_unit(sap_mix(17, counter++));
}

typedef void (*kernel)(const sap_loss_tile *);
typedef struct form {
    const char *name;
    size_t offset;
    bool crossentropy;
} form;
static const form forms[] = {
    {"categorical", offsetof(sap_loss_kernels, categorical), true},
    {"sparse", offsetof(sap_loss_kernels, sparse), true},
    {"binary", offsetof(sap_loss_kernels, binary), true},
    {"squared", offsetof(sap_loss_kernels, squared), false},
    {"absolute", offsetof(sap_loss_kernels, absolute), false},
    {"huber", offsetof(sap_loss_kernels, huber), false},
};

static kernel kernel_at(const sap_kernels *k, const form *f) {
    kernel found;
    memcpy(&found, (const char *)k->losses + f->offset, sizeof found);
    return found;
}

/* One step of outputs and targets; y holds logits or probabilities. */
typedef struct numbers {
    float y[MOST], target[MOST], dy[MOST], factor[SAP_TILE], loss[SAP_TILE];
    sap_loss_tile tile;
} numbers;

static void fill(numbers *n, const form *f, int64_t values, int width, bool logits) {
    *n = (numbers){0};
    n->tile = (sap_loss_tile){.values = values,
                              .width = width,
                              .from_logits = logits,
                              .y = n->y,
                              .target = n->target,
                              .keep = 0.8F,
                              .share = 0.2F / (float)values,
                              .delta = 0.7F,
                              .factor = n->factor,
                              .dy = n->dy,
                              .loss = n->loss};
    for (int t = 0; t < width; t++) {
        n->factor[t] = t % 7 == 3 ? 0 : number(0.01F, 0.1F);
        int64_t own = (int64_t)number(0, (float)values);
        for (int64_t v = 0; v < values; v++) {
            n->y[v * width + t] = f->crossentropy && !logits ? number(0.02F, 0.98F) : number(-6, 6);
            n->target[v * width + t] = f->crossentropy ? (v == own ? 1.0F : 0.0F) : number(-2, 2);
        }
    }
    if (f->crossentropy && !logits) { /* clipped */
        n->y[0] = 1e-12F;
        n->y[1] = 1.5F;
    }
}

static void test_forms(void **state) {
    (void)state;
    for (size_t i = 1; sap_kernels_at(i); i++) {
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            for (int width = 16; width <= SAP_TILE; width += 16) {
                for (int64_t values = 1; values <= VALUES; values++) {
                    numbers a, b;
                    bool logits = forms[f].crossentropy && (values + width / 16) % 2;
                    fill(&a, &forms[f], values, width, logits);
                    memcpy(&b, &a, sizeof a);
                    b.tile.y = b.y, b.tile.target = b.target, b.tile.dy = b.dy;
                    b.tile.factor = b.factor, b.tile.loss = b.loss;
                    kernel_at(sap_kernels_at(i), &forms[f])(&a.tile);
                    kernel_at(sap_kernels_at(0), &forms[f])(&b.tile);
                    for (int t = 0; t < width; t++)
                        assert_true(fabsf(a.loss[t] - b.loss[t]) <= 2e-6F * (1 + fabsf(b.loss[t])));
                    for (int64_t v = 0; v < values * width; v++)
                        assert_true(fabsf(a.dy[v] - b.dy[v]) <= 2e-6F * (0.1F + fabsf(b.dy[v])));
                    float loss[SAP_TILE];
                    memcpy(loss, a.loss, sizeof loss);
                    a.tile.dy = NULL;
                    kernel_at(sap_kernels_at(i), &forms[f])(&a.tile);
                    assert_memory_equal(loss, a.loss, (size_t)width * sizeof *loss);
                }
            }
        }
    }
}

/* The loss of one column in double precision, from its definition. */
static double loss_of(const form *f, const sap_loss_tile *tile, const double *y, int t) {
    double sum = 0, loss = 0, values = (double)tile->values;
    bool softmax = f->offset != offsetof(sap_loss_kernels, binary);
    for (int64_t v = 0; v < tile->values; v++)
        sum += tile->from_logits ? exp(y[v]) : y[v];
    for (int64_t v = 0; v < tile->values; v++) {
        double target = (double)tile->target[v * tile->width + t], e = fabs(y[v] - target), d = (double)tile->delta;
        double goal = (double)tile->keep * target + (double)tile->share;
        if (f->crossentropy && softmax)
            loss -= goal * log((tile->from_logits ? exp(y[v]) : y[v]) / sum);
        else if (f->crossentropy) {
            double p = tile->from_logits ? 1 / (1 + exp(-y[v])) : y[v];
            loss -= (goal * log(p) + (1 - goal) * log(1 - p)) / values;
        } else if (f->offset == offsetof(sap_loss_kernels, squared))
            loss += e * e / values;
        else if (f->offset == offsetof(sap_loss_kernels, absolute))
            loss += e / values;
        else
            loss += (e <= d ? e * e / 2 : d * (e - d / 2)) / values;
    }
    return loss;
}

static void test_gradients(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        for (int logits = 0; logits <= (int)forms[f].crossentropy; logits++) {
            numbers n;
            fill(&n, &forms[f], VALUES, SAP_COLUMNS, logits);
            kernel_at(sap_kernels_at(0), &forms[f])(&n.tile);
            for (int t = 2; t < SAP_COLUMNS; t++) { /* behind those that are clipped */
                double y[VALUES];
                for (int v = 0; v < VALUES; v++)
                    y[v] = (double)n.y[v * SAP_COLUMNS + t];
                assert_true(fabs(loss_of(&forms[f], &n.tile, y, t) - (double)n.loss[t]) < 1e-5);
                for (int v = 0; v < VALUES; v++) {
                    double up, down, at = y[v], step = 1e-5;
                    y[v] = at + step;
                    up = loss_of(&forms[f], &n.tile, y, t);
                    y[v] = at - step;
                    down = loss_of(&forms[f], &n.tile, y, t);
                    y[v] = at;
                    double wanted = (up - down) / (2 * step) * (double)n.factor[t];
                    assert_true(fabs(wanted - (double)n.dy[v * SAP_COLUMNS + t]) < 1e-5 * (0.1 + fabs(wanted)));
                }
            }
        }
    }
}

/* Clipped outputs get no gradient, and a loss that is finite. */
static void test_clipping(void **state) {
    (void)state;
    for (size_t i = 0; sap_kernels_at(i); i++) {
        for (size_t f = 0; f < 3; f++) {
            numbers n;
            fill(&n, &forms[f], 2, SAP_COLUMNS, false);
            n.y[0] = 1e-12F, n.y[SAP_COLUMNS] = 0.9F;
            n.target[0] = 1, n.target[SAP_COLUMNS] = 0;
            n.tile.keep = 1, n.tile.share = 0;
            kernel_at(sap_kernels_at(i), &forms[f])(&n.tile);
            assert_true(n.dy[0] == 0);
            assert_true(n.loss[0] > 7 && n.loss[0] < 17);
        }
    }
}

/* ---- Whole outputs -------------------------------------------------------------------------------------------- */

typedef struct output {
    float y[MOST * 3], dy[MOST * 3], target[MOST * 3], weight[SAP_TILE];
    sap_loss loss;
    sap_loss_call call;
} output;

static void open_output(output *o, const sap_loss *loss, int64_t values, int64_t steps, int rows) {
    *o = (output){0};
    assert_ok(sap_loss_check(loss, &o->loss, &error));
    o->call = (sap_loss_call){.kernels = sap_kernels_best(),
                              .loss = &o->loss,
                              .values = values,
                              .steps = steps,
                              .width = SAP_COLUMNS,
                              .rows = rows,
                              .y = o->y,
                              .dy = o->dy,
                              .target = o->target,
                              .weight = o->weight,
                              .scale = 1.0 / rows};
    for (int64_t i = 0; i < values * steps * SAP_COLUMNS; i++)
        o->y[i] = number(0.1F, 0.9F);
}

static const int64_t in_order[SAP_TILE] = {0, 1, 2, 3, 4, 5, 6, 7};

/* Class numbers are as good as ones and zeros; weights of rows and classes multiply. */
static void test_targets(void **state) {
    (void)state;
    enum { ROWS = 4 };
    static const int32_t label[ROWS] = {2, 0, 1, 2};
    static const float classes[ROWS] = {2, 0, 1, 2};
    static const float ones[ROWS * 3] = {0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1}, weight[ROWS] = {1, 2, 0, 0.5F};
    static const double of_class[3] = {1, 10, 100};
    static const float *const both[2] = {classes, ones};
    static const int64_t one = 1, three = 3;
    sap_loss loss = {.class_weight = of_class, .class_count = 3, .weight = 2};
    output a, b;
    open_output(&a, &loss, 3, 1, ROWS);
    sap_examples examples = {.rows = ROWS, .label = label, .weight = weight};
    assert_ok(sap_loss_load(&a.call, &examples, 0, in_order, &error));
    sap_loss_run(&a.call);
    assert_true(a.weight[0] == 100 && a.weight[1] == 2 && a.weight[2] == 0 && a.weight[3] == 50 && a.weight[4] == 0);
    assert_int_equal(a.call.sums.count, ROWS);
    for (int kind = 0; kind < 2; kind++) {
        b = a;
        b.call.loss = &b.loss, b.call.y = b.y, b.call.dy = b.dy, b.call.target = b.target, b.call.weight = b.weight;
        examples = (sap_examples){
            .rows = ROWS, .targets = 1, .y = both + kind, .weight = weight, .target_values = kind ? &three : &one};
        assert_ok(sap_loss_examples(&b.loss, &examples, 0, 3, 1, "out", &error));
        assert_ok(sap_loss_load(&b.call, &examples, 0, in_order, &error));
        sap_loss_run(&b.call);
        assert_memory_equal(a.dy, b.dy, sizeof a.dy);
        assert_true(a.call.sums.loss == b.call.sums.loss && a.call.sums.correct == b.call.sums.correct);
    }
    for (int v = 0; v < 3; v++) /* 2: the output's own weight */
        assert_true(a.dy[v * SAP_COLUMNS + 2] == 0 && a.dy[v * SAP_COLUMNS + 4] == 0);
    b.loss.class_count = 2;
    assert_int_equal(sap_loss_load(&b.call, &examples, 0, in_order, &error), SAP_EARGUMENT);
    assert_contains(error.message, "class 2 has no class weight");
}

static void test_bad_targets(void **state) {
    (void)state;
    static const int32_t label[2] = {1, 7}, unknown[2] = {-1, 0};
    static const float halves[4] = {0.5F, 1, 1, 1};
    static const float *const y[1] = {halves};
    static const int64_t four = 4, one = 1;
    output o;
    open_output(&o, &(sap_loss){0}, 3, 1, 2);
    sap_examples examples = {.rows = 2, .label = label};
    assert_int_equal(sap_loss_load(&o.call, &examples, 0, in_order, &error), SAP_EDATA);
    assert_contains(error.message, "row 1 of the batch has the label 7");
    examples.label = unknown;
    assert_int_equal(sap_loss_load(&o.call, &examples, 0, in_order, &error), SAP_EDATA);
    examples = (sap_examples){.rows = 2, .targets = 1, .y = y, .target_values = &one};
    assert_int_equal(sap_loss_load(&o.call, &examples, 0, in_order, &error), SAP_EDATA);
    assert_contains(error.message, "label 0.5");
    examples.target_values = &four;
    assert_int_equal(sap_loss_examples(&o.loss, &examples, 0, 3, 1, "out", &error), SAP_ETYPE);
    assert_contains(error.message, "takes 3 targets a row, the examples have 4");
    assert_int_equal(sap_loss_examples(&o.loss, &examples, 1, 3, 1, "out", &error), SAP_EDATA);
    assert_int_equal(sap_loss_examples(&o.loss, &(sap_examples){.rows = 2}, 0, 3, 1, "out", &error), SAP_EDATA);
}

/* Masked steps neither count nor get a gradient. */
static void test_masks(void **state) {
    (void)state;
    enum { ROWS = 3, STEPS = 3 };
    static const float targets[ROWS * STEPS * 2];
    static const float *const y[1] = {targets};
    static const int64_t values = STEPS * 2;
    uint8_t mask[STEPS * SAP_COLUMNS] = {1, 1, 1, [SAP_COLUMNS] = 1, 0, 1, [2 * SAP_COLUMNS] = 0, 0, 1};
    output o;
    open_output(&o, &(sap_loss){.kind = SAP_LOSS_MEAN_SQUARED_ERROR}, 2, STEPS, ROWS);
    sap_examples examples = {.rows = ROWS, .targets = 1, .y = y, .target_values = &values};
    o.call.mask = mask;
    o.call.scale = 1;
    assert_ok(sap_loss_examples(&o.loss, &examples, 0, 2, STEPS, "out", &error));
    assert_ok(sap_loss_load(&o.call, &examples, 0, in_order, &error));
    sap_loss_run(&o.call);
    assert_int_equal(o.call.sums.count, 6);
    double wanted = 0;
    for (int s = 0; s < STEPS; s++) {
        for (int t = 0; t < SAP_COLUMNS; t++) {
            for (int v = 0; v < 2; v++) {
                int at = (s * 2 + v) * SAP_COLUMNS + t;
                bool counts = t < ROWS && mask[s * SAP_COLUMNS + t];
                wanted += counts ? (double)(o.y[at] * o.y[at]) / 2 : 0;
                assert_true(o.dy[at] == (counts ? o.y[at] : 0));
            }
        }
    }
    assert_true(fabs(o.call.sums.loss - wanted) < 1e-5);
}

static void test_accuracy(void **state) {
    (void)state;
    static const float targets[4] = {1, 0, 1, 1};
    static const float *const y[1] = {targets};
    static const int64_t one = 1;
    static const struct {
        sap_activation_kind logits;
        float y[4];
        int64_t correct;
    } cases[] = {
        {SAP_LINEAR, {0.6F, 0.4F, 0.5F, 0.9F}, 3}, /* 0.5 is not above 0.5 */
        {SAP_SIGMOID, {0.1F, -3, -0.1F, 2}, 3},
        {SAP_SOFTMAX, {0.1F, -3, -0.1F, 2}, 3}, /* all of them are 1 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        output o;
        open_output(&o, &(sap_loss){.kind = SAP_LOSS_BINARY_CROSSENTROPY}, 1, 1, 4);
        memcpy(o.y, cases[i].y, sizeof cases[i].y);
        o.call.logits = cases[i].logits;
        sap_examples examples = {.rows = 4, .targets = 1, .y = y, .target_values = &one};
        assert_ok(sap_loss_load(&o.call, &examples, 0, in_order, &error));
        sap_loss_run(&o.call);
        assert_int_equal(o.call.sums.correct, cases[i].correct);
    }
    float tie[3 * SAP_COLUMNS];
    int32_t best[SAP_COLUMNS];
    for (int i = 0; i < 3 * SAP_COLUMNS; i++)
        tie[i] = i < SAP_COLUMNS ? 0 : 1;
    for (size_t i = 0; sap_kernels_at(i); i++) {
        sap_kernels_at(i)->losses->largest(3, SAP_COLUMNS, tie, best);
        assert_int_equal(best[5], 1); /* the first of equal ones */
    }
}

static void test_names(void **state) {
    (void)state;
    sap_loss_kind kind;
    static const char *const names[][4] = {
        {"categorical_crossentropy", "CategoricalCrossentropy", "cce"},
        {"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy", "scce"},
        {"binary_crossentropy", "BinaryCrossentropy", "bce"},
        {"mean_squared_error", "MeanSquaredError", "mse", "MSE"},
        {"mean_absolute_error", "MeanAbsoluteError", "mae"},
        {"huber", "Huber", "huber_loss"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (size_t j = 0; j < 4 && names[i][j]; j++) {
            assert_ok(sap_loss_find(names[i][j], &kind, &error));
            assert_int_equal(kind, i);
        }
        assert_string_equal(sap_loss_name((sap_loss_kind)i), names[i][0]);
    }
    assert_int_equal(sap_loss_find("hinge", &kind, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "there is no loss \"hinge\"; there are categorical_crossentropy");
}

static void test_refused(void **state) {
    (void)state;
    static const double negative = -1;
    static const sap_loss wrong[] = {
        {.kind = (sap_loss_kind)99},
        {.label_smoothing = -0.1},
        {.label_smoothing = NAN},
        {.kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY, .label_smoothing = 0.1},
        {.kind = SAP_LOSS_MEAN_SQUARED_ERROR, .from_logits = true},
        {.kind = SAP_LOSS_HUBER, .delta = -1},
        {.weight = INFINITY},
        {.class_weight = &negative, .class_count = 1},
    };
    sap_loss out;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(sap_loss_check(&wrong[i], &out, &error), SAP_EARGUMENT);
    assert_ok(sap_loss_check(&(sap_loss){0}, &out, &error));
    assert_true(out.weight == 1 && out.delta == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),    cmocka_unit_test(test_gradients),   cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_targets),  cmocka_unit_test(test_bad_targets), cmocka_unit_test(test_masks),
        cmocka_unit_test(test_accuracy), cmocka_unit_test(test_names),       cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
