/* Optimizers against their formulas in double precision. */
#include "nn_test.h"

#include <math.h>

static sap_error error;
enum { N = 37, STEPS = 50 };

static double gradient(int step, int i) {
    return 2 * sap_unit(sap_mix(6, (uint64_t)(step * N + i))) - 0.7;
}

/* Runs STEPS steps and compares with `expected`, which does one step in double. */
static void check(const sap_optimizer *wanted,
                  void (*expected)(const sap_optimizer *, int step, double *, double *, double *, double)) {
    sap_optimizer settings;
    sap_optimizer_state state = {0};
    assert_ok(sap_optimizer_check(wanted, &settings, &error));
    assert_ok(sap_optimizer_init(&state, &settings, N, &error));
    float values[N], g[N];
    double w[N], m[N] = {0}, v[N] = {0};
    for (int i = 0; i < N; i++)
        w[i] = values[i] = (float)i / N;
    for (int step = 1; step <= STEPS; step++) {
        for (int i = 0; i < N; i++) {
            g[i] = (float)gradient(step, i);
            expected(&settings, step, &w[i], &m[i], &v[i], (double)g[i]);
        }
        sap_optimizer_step(&state, sap_kernels_best(), N, g, values);
    }
    assert_int_equal(state.iteration, STEPS);
    for (int i = 0; i < N; i++)
        assert_true(fabs(w[i] - (double)values[i]) < 5e-6 * (1 + fabs(w[i])));
    sap_optimizer_release(&state);
    sap_optimizer_release(&state);
}

static void adam(const sap_optimizer *s, int step, double *w, double *m, double *v, double g) {
    *m = s->beta_1 * *m + (1 - s->beta_1) * g;
    *v = s->beta_2 * *v + (1 - s->beta_2) * g * g;
    double alpha = s->learning_rate * sqrt(1 - pow(s->beta_2, step)) / (1 - pow(s->beta_1, step));
    *w -= alpha * *m / (sqrt(*v) + s->epsilon);
}

static void sgd(const sap_optimizer *s, int step, double *w, double *m, double *v, double g) {
    (void)step;
    (void)v;
    *m = s->momentum * *m - s->learning_rate * g;
    *w += s->nesterov ? s->momentum * *m - s->learning_rate * g : *m;
}

static void test_adam(void **state) {
    (void)state;
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_ADAM}, adam);
    check(
        &(sap_optimizer){
            .kind = SAP_OPTIMIZER_ADAM, .learning_rate = 0.05, .beta_1 = 0.8, .beta_2 = 0.95, .epsilon = 0.1},
        adam);
}

static void test_sgd(void **state) {
    (void)state;
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD}, sgd);
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.1, .momentum = 0.9}, sgd);
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.1, .momentum = 0.9, .nesterov = true}, sgd);
}

static void test_defaults(void **state) {
    (void)state;
    sap_optimizer s;
    assert_ok(sap_optimizer_check(&(sap_optimizer){0}, &s, &error));
    assert_true(s.learning_rate == 1e-3 && s.beta_1 == 0.9 && s.beta_2 == 0.999 && s.epsilon == 1e-7);
    assert_ok(sap_optimizer_check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD}, &s, &error));
    assert_true(s.learning_rate == 1e-2 && s.momentum == 0);
}

static void test_refused(void **state) {
    (void)state;
    sap_optimizer s;
    assert_int_equal(sap_optimizer_check(&(sap_optimizer){.learning_rate = -1}, &s, &error), SAP_EARGUMENT);
    assert_int_equal(sap_optimizer_check(&(sap_optimizer){.learning_rate = NAN}, &s, &error), SAP_EARGUMENT);
    assert_int_equal(sap_optimizer_check(&(sap_optimizer){.beta_2 = 1}, &s, &error), SAP_EARGUMENT);
    assert_int_equal(sap_optimizer_check(&(sap_optimizer){.momentum = 2}, &s, &error), SAP_EARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
