/* Metrics against brute force. */
#include "nn_test.h"

#include <math.h>

static sap_error error;
enum { ROWS = 700, CLASSES = 3 };

/* Scores of few different values when `steps` is small, so that there are ties. */
static void make(float *scores, int32_t *label, int64_t rows, int steps) {
    for (int64_t r = 0; r < rows; r++) {
        label[r] = (int32_t)(sap_mix(1, (uint64_t)r) % CLASSES);
        float sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            double u = sap_unit(sap_mix(2, (uint64_t)(r * CLASSES + c))) + (label[r] == c ? 0.3 : 0);
            scores[r * CLASSES + c] = steps ? (float)(floor(u * steps) + 1) : (float)u + 0.01F;
            sum += scores[r * CLASSES + c];
        }
        for (int c = 0; c < CLASSES && !steps; c++)
            scores[r * CLASSES + c] /= sum;
    }
}

static double brute_auc(const float *scores, const int32_t *label, int64_t rows, int c) {
    double good = 0, pairs = 0;
    for (int64_t a = 0; a < rows; a++) {
        for (int64_t b = 0; b < rows; b++) {
            if (label[a] != c || label[b] == c)
                continue;
            float x = scores[a * CLASSES + c], y = scores[b * CLASSES + c];
            good += x > y ? 1 : x == y ? 0.5 : 0;
            pairs++;
        }
    }
    return good / pairs;
}

static void check_roc(const sap_evaluation *e, const float *scores, const int32_t *label, int c) {
    const sap_roc_point *roc = e->roc[c];
    assert_in_range(e->roc_count[c], 2, 1000);
    assert_true(roc[0].true_positive_rate == 0 && roc[0].false_positive_rate == 0);
    assert_true(roc[e->roc_count[c] - 1].true_positive_rate == 1 && roc[e->roc_count[c] - 1].false_positive_rate == 1);
    for (int64_t i = 0; i < e->roc_count[c]; i++) { /* each point is exact */
        double true_positive = 0, false_positive = 0, positives = 0;
        for (int64_t r = 0; r < e->rows; r++) {
            bool taken = (double)scores[r * CLASSES + c] >= roc[i].threshold;
            positives += label[r] == c;
            true_positive += taken && label[r] == c;
            false_positive += taken && label[r] != c;
        }
        assert_true(fabs(roc[i].true_positive_rate - true_positive / positives) < 1e-12);
        assert_true(fabs(roc[i].false_positive_rate - false_positive / ((double)e->rows - positives)) < 1e-12);
        assert_true(i == 0 || roc[i].threshold < roc[i - 1].threshold);
    }
}

static void check(int steps) {
    float scores[ROWS * CLASSES];
    int32_t label[ROWS];
    make(scores, label, ROWS, steps);
    sap_evaluation e;
    assert_ok(sap_evaluation_init(scores, label, ROWS, CLASSES, &e, &error));
    int64_t confusion[CLASSES * CLASSES] = {0}, correct = 0;
    double loss = 0;
    for (int r = 0; r < ROWS; r++) {
        const float *s = scores + r * CLASSES;
        int best = s[1] > s[0] ? 1 : 0;
        best = s[2] > s[best] ? 2 : best;
        confusion[label[r] * CLASSES + best]++;
        correct += best == label[r];
        loss -= log((double)s[label[r]] / ((double)s[0] + (double)s[1] + (double)s[2])) / ROWS;
    }
    assert_memory_equal(e.confusion, confusion, sizeof confusion);
    assert_true(fabs(e.accuracy - (double)correct / ROWS) < 1e-12);
    assert_true(fabs(e.loss - loss) < 1e-9);
    for (int c = 0; c < CLASSES; c++) {
        assert_true(fabs(e.auc[c] - brute_auc(scores, label, ROWS, c)) < 1e-12);
        check_roc(&e, scores, label, c);
    }
    sap_evaluation_release(&e);
    sap_evaluation_release(&e);
}

static void test_scores(void **state) {
    (void)state;
    check(0);
}

static void test_ties(void **state) {
    (void)state;
    check(4);
    check(1);
}

static void test_thinning(void **state) {
    (void)state;
    enum { MANY = 60000 };
    float *scores = calloc((size_t)MANY * CLASSES, sizeof *scores);
    int32_t *label = calloc(MANY, sizeof *label);
    make(scores, label, MANY, 0);
    sap_evaluation e;
    assert_ok(sap_evaluation_init(scores, label, MANY, CLASSES, &e, &error));
    for (int c = 0; c < CLASSES; c++) {
        assert_in_range(e.roc_count[c], 800, 1000);
        double area = 0; /* under the thinned curve */
        for (int64_t i = 1; i < e.roc_count[c]; i++)
            area += (e.roc[c][i].false_positive_rate - e.roc[c][i - 1].false_positive_rate) *
                    (e.roc[c][i].true_positive_rate + e.roc[c][i - 1].true_positive_rate) / 2;
        assert_true(fabs(area - e.auc[c]) < 1e-5);
    }
    sap_evaluation_release(&e);
    free(scores);
    free(label);
}

static void test_missing_class(void **state) {
    (void)state;
    const float scores[] = {0.5F, 0.3F, 0.2F, 0.1F, 0.7F, 0.2F};
    const int32_t label[] = {0, 1};
    sap_evaluation e;
    assert_ok(sap_evaluation_init(scores, label, 2, 3, &e, &error));
    assert_true(e.auc[0] == 1 && e.auc[1] == 1 && isnan(e.auc[2]));
    sap_evaluation_release(&e);
}

static void test_refused(void **state) {
    (void)state;
    float scores[] = {0.5F, 0.5F, 0.5F, 0.5F};
    int32_t label[] = {0, 2};
    sap_evaluation e;
    assert_int_equal(sap_evaluation_init(scores, label, 2, 2, &e, &error), SAP_EDATA);
    assert_contains(error.message, "row 1 has the label 2");
    label[1] = 1;
    scores[3] = NAN;
    assert_int_equal(sap_evaluation_init(scores, label, 2, 2, &e, &error), SAP_EDATA);
    assert_contains(error.message, "class 1 in row 1 is NaN");
    assert_int_equal(sap_evaluation_init(scores, label, 0, 2, &e, &error), SAP_EDATA);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),        cmocka_unit_test(test_ties),    cmocka_unit_test(test_thinning),
        cmocka_unit_test(test_missing_class), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
