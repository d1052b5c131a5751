/* Moments and ranges of the initialisers, and their reading. */
#include "nn_test.h"

#include <math.h>

static sap_error error;

static void draw(const char *json, int32_t rank, const int64_t *shape, uint64_t key, float *values) {
    sap_initializer initializer;
    json_t *config = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(config);
    assert_ok(sap_initializer_parse(config, "zeros", "test", &initializer, &error));
    assert_ok(sap_initializer_run(&initializer, rank, shape, key, values, &error));
    json_decref(config);
}

typedef struct moments {
    double mean, deviation, least, most;
} moments;

static moments moments_of(const float *values, size_t count) {
    moments m = {.least = INFINITY, .most = -INFINITY};
    double square = 0;
    for (size_t i = 0; i < count; i++) {
        m.mean += (double)values[i] / (double)count;
        square += (double)values[i] * (double)values[i] / (double)count;
        m.least = fmin(m.least, (double)values[i]);
        m.most = fmax(m.most, (double)values[i]);
    }
    m.deviation = sqrt(square - m.mean * m.mean);
    return m;
}

enum { IN = 300, OUT = 100, COUNT = IN * OUT };
static const int64_t shape[2] = {IN, OUT};

static void test_moments(void **state) {
    (void)state;
    static const struct {
        const char *json;
        double mean, deviation, limit; /* of |x - mean|; 0: none */
    } cases[] = {
        {"\"zeros\"", 0, 0, 0},
        {"\"ones\"", 1, 0, 0},
        {"{\"class_name\": \"Constant\", \"config\": {\"value\": 2.5}}", 2.5, 0, 0},
        {"{\"class_name\": \"RandomNormal\", \"config\": {\"mean\": 1.0, \"stddev\": 0.2, \"seed\": null}}", 1, 0.2, 0},
        {"{\"class_name\": \"RandomUniform\", \"config\": {\"minval\": -1, \"maxval\": 3}}", 1, 4 / 3.4641016, 2},
        {"{\"class_name\": \"TruncatedNormal\", \"config\": {\"mean\": -1, \"stddev\": 0.5}}", -1, 0.5 * 0.87962566, 1},
        {"\"glorot_uniform\"", 0, 0.07071068, 0.12247449},
        {"\"glorot_normal\"", 0, 0.07071068, 2 * 0.07071068 / 0.87962566},
        {"{\"class_name\": \"HeNormal\", \"config\": {\"seed\": null}}", 0, 0.08164966, 2 * 0.08164966 / 0.87962566},
        {"\"he_uniform\"", 0, 0.08164966, 0.14142136},
        {"\"lecun_normal\"", 0, 0.05773503, 2 * 0.05773503 / 0.87962566},
        {"\"lecun_uniform\"", 0, 0.05773503, 0.1},
        {"{\"class_name\": \"VarianceScaling\", \"config\": {\"scale\": 3.0, \"mode\": \"fan_out\", \"distribution\": "
         "\"untruncated_normal\"}}",
         0, 0.17320508, 0},
    };
    float *values = calloc(COUNT, sizeof *values);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        draw(cases[i].json, 2, shape, 40 + i, values);
        moments m = moments_of(values, COUNT);
        double deviation = cases[i].deviation;
        /* four standard errors */
        if (fabs(m.mean - cases[i].mean) > 4 * deviation / sqrt(COUNT) + 1e-6 ||
            fabs(m.deviation - deviation) > 4 * deviation / sqrt(2.0 * COUNT) + 1e-6)
            fail_msg("%s: mean %g, deviation %g", cases[i].json, m.mean, m.deviation);
        double limit = cases[i].limit * (1 + 1e-6);
        if (limit > 0)
            assert_true(cases[i].mean - m.least <= limit && m.most - cases[i].mean <= limit);
        if (limit > 0) /* and it is reached nearly */
            assert_true(m.most - cases[i].mean > 0.9 * limit);
    }
    free(values);
}

static void check_orthogonal(int64_t rows, int64_t columns) {
    const int64_t dims[2] = {rows, columns};
    float *q = calloc((size_t)(rows * columns), sizeof *q);
    draw("{\"class_name\": \"Orthogonal\", \"config\": {\"gain\": 2.0}}", 2, dims, 3, q);
    int64_t count = rows < columns ? rows : columns, length = rows < columns ? columns : rows;
    for (int64_t a = 0; a < count; a++) {
        for (int64_t b = 0; b <= a; b++) {
            double dot = 0;
            for (int64_t k = 0; k < length; k++)
                dot += rows < columns ? (double)q[a * columns + k] * (double)q[b * columns + k]
                                      : (double)q[k * columns + a] * (double)q[k * columns + b];
            assert_true(fabs(dot - (a == b ? 4 : 0)) < 1e-5);
        }
    }
    free(q);
}

static void test_orthogonal(void **state) {
    (void)state;
    check_orthogonal(20, 20);
    check_orthogonal(31, 7);
    check_orthogonal(7, 31);
    check_orthogonal(1, 1);
}

static void test_identity(void **state) {
    (void)state;
    const int64_t dims[2] = {3, 4};
    float values[12];
    draw("{\"class_name\": \"Identity\", \"config\": {\"gain\": 0.5}}", 2, dims, 3, values);
    for (int i = 0; i < 12; i++)
        assert_true(values[i] == (i / 4 == i % 4 ? 0.5F : 0));
}

static void test_keys(void **state) {
    (void)state;
    float a[COUNT], b[COUNT];
    draw("\"glorot_uniform\"", 2, shape, 1, a);
    draw("\"glorot_uniform\"", 2, shape, 1, b);
    assert_memory_equal(a, b, sizeof a);
    draw("\"glorot_uniform\"", 2, shape, 2, b);
    assert_true(a[0] != b[0] && a[1] != b[1]);
}

static void test_unknown(void **state) {
    (void)state;
    sap_initializer initializer;
    json_t *config = json_loads("{\"class_name\": \"GlorotUnifrom\"}", 0, NULL);
    assert_int_equal(sap_initializer_parse(config, "zeros", "file: layer \"d\"", &initializer, &error),
                     SAP_EUNSUPPORTED);
    assert_contains(error.message, "file: layer \"d\": initializer \"GlorotUnifrom\"");
    assert_contains(error.message, "GlorotUniform");
    json_decref(config);
    config = json_loads("{\"class_name\": \"VarianceScaling\", \"config\": {\"mode\": \"fan_up\"}}", 0, NULL);
    assert_int_equal(sap_initializer_parse(config, "zeros", "x", &initializer, &error), SAP_EUNSUPPORTED);
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments), cmocka_unit_test(test_orthogonal), cmocka_unit_test(test_identity),
        cmocka_unit_test(test_keys),    cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
