/* Optimizers and schedules against their formulas in double precision; vector forms against the plain one. */
#include "nn_test.h"

#include <math.h>

static sap_error error;
enum { N = 37, STEPS = 50 };

static double gradient(int step, int i) {
    return 2 * sap_unit(sap_mix(6, (uint64_t)(step * N + i))) - 0.7;
}

/* Two weight arrays, of which the second does not decay. */
static const sap_stretch stretches[2] = {{0, 20, true}, {20, N - 20, false}};

typedef struct reference {
    double w[N], m[N], v[N], largest[N], average[N];
} reference;

/* Clips as Keras does; g: (N). */
static void clip(const sap_optimizer *s, double *g) {
    double squares[2] = {0, 0};
    for (int i = 0; i < N; i++)
        squares[i >= 20] += g[i] * g[i];
    for (int i = 0; i < N; i++) {
        double own = sqrt(squares[i >= 20]), all = sqrt(squares[0] + squares[1]);
        if (s->clipnorm > 0)
            g[i] *= s->clipnorm / fmax(own, s->clipnorm);
        if (s->global_clipnorm > 0)
            g[i] *= s->global_clipnorm / fmax(all, s->global_clipnorm);
        if (s->clipvalue > 0)
            g[i] = fmax(-s->clipvalue, fmin(s->clipvalue, g[i]));
    }
}

static void step_adam(const sap_optimizer *s, int step, double rate, reference *r, int i, double g) {
    r->m[i] = s->beta_1 * r->m[i] + (1 - s->beta_1) * g;
    r->v[i] = s->beta_2 * r->v[i] + (1 - s->beta_2) * g * g;
    r->largest[i] = fmax(r->largest[i], r->v[i]);
    double v = s->amsgrad ? r->largest[i] : r->v[i];
    /* Keras' betas are float32 */
    double left_1 = 1 - pow((double)(float)s->beta_1, step), left_2 = 1 - pow((double)(float)s->beta_2, step);
    if (s->kind != SAP_OPTIMIZER_RADAM) {
        r->w[i] -= rate * sqrt(left_2) / left_1 * r->m[i] / (sqrt(v) + s->epsilon);
        return;
    }
    /* Liu et al., algorithm 2; TensorFlow Addons' threshold is 5 */
    double most = 2 / (1 - s->beta_2) - 1, length = most - 2.0 * step * pow(s->beta_2, step) / left_2;
    double corrected = r->m[i] / left_1;
    if (length >= 5) {
        double factor = sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length));
        r->w[i] -= rate * factor * corrected / (sqrt(r->v[i] / left_2) + s->epsilon);
    } else {
        r->w[i] -= rate * corrected;
    }
}

static void step_sgd(const sap_optimizer *s, double rate, reference *r, int i, double g) {
    r->m[i] = s->momentum * r->m[i] - rate * g;
    r->w[i] += s->nesterov ? s->momentum * r->m[i] - rate * g : r->m[i];
}

static void step_reference(const sap_optimizer *s, int step, reference *r, double *g) {
    double rate = sap_schedule_rate(&s->schedule, s->learning_rate, step - 1);
    clip(s, g);
    for (int i = 0; i < N; i++) {
        if (i < 20)
            r->w[i] -= r->w[i] * s->weight_decay * rate;
        if (s->kind == SAP_OPTIMIZER_SGD)
            step_sgd(s, rate, r, i, g[i]);
        else
            step_adam(s, step, rate, r, i, g[i]);
        double momentum = step == 1 ? 0 : s->ema_momentum;
        r->average[i] = momentum * r->average[i] + (1 - momentum) * r->w[i];
        if (s->ema_overwrite_frequency && step % s->ema_overwrite_frequency == 0)
            r->w[i] = r->average[i];
    }
}

/* STEPS steps of every form of the kernels against the formulas. */
static void check(const sap_optimizer *wanted) {
    for (size_t form = 0; sap_kernels_at(form); form++) {
        sap_optimizer settings;
        sap_optimizer_state state = {0};
        assert_ok(sap_optimizer_check(wanted, &settings, &error));
        assert_ok(sap_optimizer_init(&state, &settings, N, stretches, 2, &error));
        float values[N], g[N];
        reference r = {0};
        for (int i = 0; i < N; i++)
            r.w[i] = values[i] = (float)i / N;
        for (int step = 1; step <= STEPS; step++) {
            double exact[N];
            for (int i = 0; i < N; i++)
                exact[i] = g[i] = (float)gradient(step, i);
            step_reference(&settings, step, &r, exact);
            assert_ok(sap_optimizer_step(&state, sap_kernels_at(form), NULL, g, values, &error));
        }
        assert_int_equal(state.iteration, STEPS);
        if (settings.ema_momentum != 0)
            memcpy(r.w, r.average, sizeof r.w);
        sap_optimizer_finish(&state, values);
        for (int i = 0; i < N; i++)
            assert_true(fabs(r.w[i] - (double)values[i]) < 1e-5 * (1 + fabs(r.w[i])));
        sap_optimizer_release(&state);
        sap_optimizer_release(&state);
    }
}

static void test_adam(void **state) {
    (void)state;
    check(&(sap_optimizer){0});
    check(&(sap_optimizer){.learning_rate = 0.05, .beta_1 = 0.8, .beta_2 = 0.95, .epsilon = 0.1});
    check(&(sap_optimizer){.learning_rate = 0.05, .amsgrad = true, .beta_2 = 0.9});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_ADAMW, .learning_rate = 0.05});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_ADAMW, .learning_rate = 0.05, .weight_decay = 0.3});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_RADAM, .learning_rate = 0.05});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_RADAM, .learning_rate = 0.05, .beta_2 = 0.9, .weight_decay = 0.1});
}

static void test_sgd(void **state) {
    (void)state;
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.1, .momentum = 0.9});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.1, .weight_decay = 0.2});
}

static void test_clipping(void **state) {
    (void)state;
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .clipnorm = 1.5});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .clipvalue = 0.3, .momentum = 0.5});
    check(&(sap_optimizer){.learning_rate = 0.05, .global_clipnorm = 2});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .clipnorm = 1e6}); /* changes nothing */
}

static void test_average(void **state) {
    (void)state;
    check(&(sap_optimizer){.learning_rate = 0.05, .ema_momentum = 0.9});
    check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .ema_momentum = 0.9, .ema_overwrite_frequency = 7});
}

/* So many parameters that threads share them: the same bits. */
static void test_threads(void **state) {
    (void)state;
    enum { MANY = 300000 };
    float *values[2], *g = calloc(MANY, sizeof *g);
    for (int i = 0; i < MANY; i++)
        g[i] = (float)gradient(1, i);
    sap_optimizer settings;
    assert_ok(sap_optimizer_check(&(sap_optimizer){.global_clipnorm = 1, .weight_decay = 0.1}, &settings, &error));
    for (int threads = 1; threads <= 2; threads++) {
        const sap_stretch parts[2] = {{0, 100001, true}, {100001, MANY - 100001, false}};
        sap_optimizer_state optimizer = {0};
        sap_run run = {0};
        assert_ok(sap_pool_open(threads, &run.pool, &error));
        assert_ok(sap_optimizer_init(&optimizer, &settings, MANY, parts, 2, &error));
        float *w = values[threads - 1] = calloc(MANY, sizeof *w);
        for (int step = 0; step < 3; step++)
            assert_ok(sap_optimizer_step(&optimizer, sap_kernels_best(), &run, g, w, &error));
        sap_optimizer_release(&optimizer);
        sap_pool_close(run.pool);
    }
    assert_true(values[0][MANY - 1] != 0);
    assert_memory_equal(values[0], values[1], MANY * sizeof *g);
    free(values[0]);
    free(values[1]);
    free(g);
}

static void assert_rate(const sap_schedule *schedule, double rate, int64_t n, double wanted) {
    sap_optimizer settings;
    sap_optimizer_state optimizer = {.iteration = n};
    assert_ok(sap_optimizer_check(&(sap_optimizer){.learning_rate = rate, .schedule = *schedule}, &settings, &error));
    optimizer.settings = settings;
    optimizer.learning_rate = rate;
    assert_true(fabs(sap_optimizer_rate(&optimizer) - wanted) < 1e-12);
}

static void test_schedules(void **state) {
    (void)state;
    static const double boundaries[] = {10, 20}, values[] = {1, 0.5, 0.1};
    sap_schedule s = {.kind = SAP_SCHEDULE_EXPONENTIAL, .decay_steps = 10, .decay_rate = 0.5};
    assert_rate(&s, 1, 0, 1);
    assert_rate(&s, 1, 15, pow(0.5, 1.5));
    s.staircase = true;
    assert_rate(&s, 1, 19, 0.5);
    s = (sap_schedule){.kind = SAP_SCHEDULE_INVERSE_TIME, .decay_steps = 10, .decay_rate = 2};
    assert_rate(&s, 1, 15, 1 / (1 + 2 * 1.5));
    s.staircase = true;
    assert_rate(&s, 1, 15, 1.0 / 3);
    s = (sap_schedule){.kind = SAP_SCHEDULE_POLYNOMIAL, .decay_steps = 10};
    assert_rate(&s, 1, 5, (1 - 1e-4) * 0.5 + 1e-4);
    assert_rate(&s, 1, 50, 1e-4);
    s = (sap_schedule){
        .kind = SAP_SCHEDULE_POLYNOMIAL, .decay_steps = 10, .end_learning_rate = 0.2, .power = 2, .cycle = true};
    assert_rate(&s, 1, 0, 1);
    assert_rate(&s, 1, 15, 0.8 * 0.25 * 0.25 + 0.2);
    s = (sap_schedule){.kind = SAP_SCHEDULE_COSINE, .decay_steps = 10, .alpha = 0.1};
    assert_rate(&s, 1, 5, 0.55);
    assert_rate(&s, 1, 99, 0.1);
    s.warmup_steps = 4;
    s.warmup_from = 0.2;
    assert_rate(&s, 1, 0, 0.2);
    assert_rate(&s, 1, 3, 0.8);
    assert_rate(&s, 1, 4, 1);
    assert_rate(&s, 1, 9, 0.55);
    s = (sap_schedule){.kind = SAP_SCHEDULE_PIECEWISE, .boundaries = boundaries, .values = values, .boundary_count = 2};
    assert_rate(&s, 7, 10, 1);
    assert_rate(&s, 7, 11, 0.5);
    assert_rate(&s, 7, 21, 0.1);
    s = (sap_schedule){.warmup_steps = 10};
    assert_rate(&s, 1, 1, 0.1);
    assert_rate(&s, 1, 10, 1);
}

/* Where Keras 3.15 has the variables of an optimizer. */
static void test_places(void **state) {
    (void)state;
    sap_optimizer settings;
    sap_optimizer_state s = {0};
    assert_ok(sap_optimizer_check(&(sap_optimizer){.amsgrad = true, .ema_momentum = 0.9}, &settings, &error));
    assert_ok(sap_optimizer_init(&s, &settings, N, NULL, 0, &error));
    assert_int_equal(sap_optimizer_place(&s, 5, 2, SAP_SLOT_AVERAGE), 2 + 2);
    assert_int_equal(sap_optimizer_place(&s, 5, 2, SAP_SLOT_VELOCITY), 2 + 5 + 2 * 2 + 1);
    assert_int_equal(sap_optimizer_place(&s, 5, 2, SAP_SLOT_LARGEST), 2 + 5 + 10 + 2);
    sap_optimizer_release(&s);
    settings = (sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .momentum = 0.9, .schedule.warmup_steps = 3};
    assert_ok(sap_optimizer_init(&s, &settings, N, NULL, 0, &error));
    assert_int_equal(sap_optimizer_place(&s, 5, 2, SAP_SLOT_MOMENTUM), 1 + 2);
    sap_optimizer_release(&s);
}

static void test_defaults(void **state) {
    (void)state;
    sap_optimizer s;
    sap_optimizer_kind kind;
    assert_ok(sap_optimizer_check(&(sap_optimizer){0}, &s, &error));
    assert_true(s.learning_rate == 1e-3 && s.beta_1 == 0.9 && s.beta_2 == 0.999 && s.epsilon == 1e-7);
    assert_ok(sap_optimizer_check(&(sap_optimizer){.kind = SAP_OPTIMIZER_SGD}, &s, &error));
    assert_true(s.learning_rate == 1e-2 && s.momentum == 0 && s.weight_decay == 0);
    assert_ok(sap_optimizer_check(&(sap_optimizer){.kind = SAP_OPTIMIZER_ADAMW}, &s, &error));
    assert_true(s.learning_rate == 1e-3 && s.weight_decay == 0.004);
    static const char *const names[] = {"Adam", "SGD", "AdamW", "RAdam"};
    for (int i = 0; i < 4; i++) {
        assert_ok(sap_optimizer_find(names[i], &kind, &error));
        assert_int_equal(kind, i);
    }
    assert_int_equal(sap_optimizer_find("ad", &kind, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "there is no optimizer \"ad\"; there are adam, adamw, radam and sgd");
}

static void test_refused(void **state) {
    (void)state;
    static const double falling[] = {20, 10}, values[] = {1, 2, 3};
    static const sap_optimizer wrong[] = {
        {.learning_rate = -1},
        {.learning_rate = NAN},
        {.beta_2 = 1},
        {.momentum = 2},
        {.momentum = 0.9}, /* Adam has none */
        {.kind = SAP_OPTIMIZER_SGD, .amsgrad = true},
        {.kind = (sap_optimizer_kind)9},
        {.weight_decay = -1},
        {.clipnorm = 1, .clipvalue = 1},
        {.global_clipnorm = NAN},
        {.ema_momentum = 2},
        {.schedule = {.kind = SAP_SCHEDULE_COSINE}},
        {.schedule = {.kind = SAP_SCHEDULE_EXPONENTIAL, .decay_steps = 10, .decay_rate = -1}},
        {.schedule = {.kind = SAP_SCHEDULE_PIECEWISE, .boundaries = falling, .values = values, .boundary_count = 2}},
        {.schedule = {.kind = SAP_SCHEDULE_PIECEWISE}},
        {.schedule = {.kind = (sap_schedule_kind)9}},
        {.schedule = {.warmup_steps = -1}},
    };
    sap_optimizer s;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(sap_optimizer_check(&wrong[i], &s, &error), SAP_EARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),    cmocka_unit_test(test_sgd),      cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_average), cmocka_unit_test(test_threads),  cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_places),  cmocka_unit_test(test_defaults), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
