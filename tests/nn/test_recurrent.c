/* Recurrent kernels: the plain form against formulas in double and their finite differences, and every other form
 * against the plain one, on ragged tiles. */
#include "nn/recurrent.h"
#include "nn_test.h"

#include <math.h>

extern const sap_kernels sap_kernels_amx_emulated;

static uint64_t counter;

static float uniform(float low, float high) {
    return low + (high - low) * (float)sap_unit(sap_mix(23, counter++));
}

static float *numbers(int64_t count, float low, float high) {
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        p[i] = uniform(low, high);
    return p;
}

static float *filled(int64_t count, float value) {
    float *p = numbers(count, 0, 0);
    for (int64_t i = 0; i < count; i++)
        p[i] = value;
    return p;
}

static sap_steps steps_of(const int32_t *length, int rows) {
    sap_steps steps = {0};
    memcpy(steps.length, length, (size_t)rows * sizeof *length);
    sap_steps_set(&steps, (rows + SAP_COLUMNS - 1) / SAP_COLUMNS * SAP_COLUMNS);
    return steps;
}

/* A call with all it needs. What kernels must write or may not look at is NaN. */
typedef struct problem {
    sap_recurrent r;
    sap_steps steps;
    int64_t columns, weights, recurrent_weights, biases;
    double tolerance, slope_tolerance; /* of the states, and of gradients */
    bool tiles;                        /* compared in bf16 too */
} problem;

enum { WITH_Y = 1, REVERSE = 2, WITH_LAST = 4, X_MASKS = 8, H_MASKS = 16, NO_BIAS = 32, ADD = 64 };

static float *mask_of(int64_t count) {
    float *p = numbers(count, 0, 1);
    for (int64_t i = 0; i < count; i++)
        p[i] = p[i] < 0.3F ? 0 : 1 / 0.7F;
    return p;
}

static void zero_behind(const problem *p, int64_t values, float *y) {
    for (int32_t t = 0; t < p->steps.count; t++) {
        sap_step_place place = sap_steps_place(&p->steps, t);
        for (int c = 0; c < place.width; c++)
            for (int64_t v = 0; v < values && t >= p->steps.length[c]; v++)
                y[place.start * values + v * place.width + c] = 0;
    }
}

static problem make_problem(sap_cell cell, int64_t inputs, int64_t units, const int32_t *length, int rows, int kind) {
    problem p = {.steps = steps_of(length, rows), .tolerance = 3e-6, .slope_tolerance = 1e-5};
    int gates = sap_cell_gates(cell);
    p.columns = sap_steps_columns(&p.steps);
    p.weights = inputs * gates * units;
    p.recurrent_weights = units * gates * units;
    p.biases = gates * units * (cell == SAP_CELL_GRU ? 2 : 1);
    sap_recurrent r = {
        .cell = cell,
        .reverse = kind & REVERSE,
        .inputs = inputs,
        .units = units,
        .activation = {.kind = SAP_TANH},
        .recurrent_activation = {.kind = SAP_SIGMOID},
        .kernel = numbers(p.weights, -0.6F, 0.6F),
        .recurrent_kernel =
            numbers(p.recurrent_weights, -1.5F / (float)sqrt((double)units), 1.5F / (float)sqrt((double)units)),
        .bias = kind & NO_BIAS ? NULL : numbers(p.biases, -0.5F, 0.5F),
        .x = numbers(p.columns * inputs, -1, 1),
        .add = kind & ADD,
        .dx = numbers(p.columns * inputs, -1, 1),
        .d_kernel = numbers(p.weights, -1, 1),
        .d_recurrent_kernel = numbers(p.recurrent_weights, -1, 1),
        .d_bias = kind & NO_BIAS ? NULL : numbers(p.biases, -1, 1),
        .last_width = SAP_TILE,
    };
    if (kind & X_MASKS) {
        r.x_masks = kind & H_MASKS ? gates : 1;
        r.x_mask = mask_of(r.x_masks * inputs * SAP_TILE);
    }
    if (kind & H_MASKS) {
        r.h_masks = gates;
        r.h_mask = mask_of(r.h_masks * units * SAP_TILE);
    }
    if (kind & WITH_Y) { /* the middle of a tensor of three times as many values */
        r.y_values = 3 * units;
        r.y_first = units;
        r.y = filled(p.columns * r.y_values, NAN);
        float *dy = numbers(p.columns * r.y_values, -1, 1);
        zero_behind(&p, r.y_values, dy);
        r.dy = dy;
    }
    if (kind & WITH_LAST || !(kind & WITH_Y)) {
        r.last = filled(units * SAP_TILE, NAN);
        r.d_last = numbers(units * SAP_TILE, -1, 1);
    }
    p.r = r;
    return p;
}

/* Memory as large as is said to be enough, and worthless. */
static void give_memory(problem *p) {
    p->r.steps = &p->steps;
    free(p->r.kept);
    free(p->r.work);
    p->r.kept = filled(sap_recurrent_kept(&p->r, p->steps.count), NAN);
    p->r.work = filled(sap_recurrent_work(&p->r, true), NAN);
}

static void free_problem(problem *p) {
    const void *all[] = {p->r.kernel,
                         p->r.recurrent_kernel,
                         p->r.bias,
                         p->r.x,
                         p->r.x_mask,
                         p->r.h_mask,
                         p->r.y,
                         p->r.dy,
                         p->r.last,
                         p->r.d_last,
                         p->r.kept,
                         p->r.work,
                         p->r.dx,
                         p->r.d_kernel,
                         p->r.d_recurrent_kernel,
                         p->r.d_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free((void *)(uintptr_t)all[i]);
}

/* ---- The formulas in double ----------------------------------------------------------------------------- */

enum { MOST = 8 }; /* units and inputs */

/* The weights and inputs of a problem, row by row. */
typedef struct exact {
    const problem *p;
    double *kernel, *recurrent_kernel, *bias, *x; /* x: (columns, inputs) as the tile has it */
} exact;

static double *doubles(const float *x, int64_t count) {
    double *d = malloc((size_t)(count + 1) * sizeof *d);
    assert_non_null(d);
    for (int64_t i = 0; i < count; i++)
        d[i] = x ? (double)x[i] : 0;
    return d;
}

static double exact_value(const sap_activation *f, double x) {
    switch (f->kind) {
    case SAP_SIGMOID:
        return 1 / (1 + exp(-x));
    case SAP_TANH:
        return tanh(x);
    case SAP_SOFTSIGN:
        return x / (1 + fabs(x));
    case SAP_SILU:
        return x / (1 + exp(-x));
    default:
        fail_msg("no such activation here");
        return 0;
    }
}

static void exact_activation(const sap_activation *f, int64_t units, double *z) {
    double sum = 0;
    for (int64_t u = 0; u < units; u++)
        sum += f->kind == SAP_SOFTMAX ? exp(z[u]) : 0;
    for (int64_t u = 0; u < units; u++)
        z[u] = f->kind == SAP_SOFTMAX ? exp(z[u]) / sum : exact_value(f, z[u]);
}

/* Wg x + bg of a row at a step, and Ug h (+ cg). */
static void exact_sums(const exact *e, int gate, int row, int32_t t, const double *h, double *from_x, double *from_h) {
    const sap_recurrent *r = &e->p->r;
    sap_step_place p = sap_steps_place(&e->p->steps, t);
    int64_t all = sap_cell_gates(r->cell) * r->units;
    for (int64_t u = 0; u < r->units; u++) {
        int64_t column = gate * r->units + u;
        from_x[u] = r->bias ? e->bias[column] : 0;
        from_h[u] = r->bias && r->cell == SAP_CELL_GRU ? e->bias[all + column] : 0;
        for (int64_t k = 0; k < r->inputs; k++) {
            double mask = r->x_masks ? (double)r->x_mask[(gate % r->x_masks * r->inputs + k) * SAP_TILE + row] : 1;
            from_x[u] += e->kernel[k * all + column] * e->x[p.start * r->inputs + k * p.width + row] * mask;
        }
        for (int64_t k = 0; k < r->units; k++) {
            double mask = r->h_masks ? (double)r->h_mask[(gate % r->h_masks * r->units + k) * SAP_TILE + row] : 1;
            from_h[u] += e->recurrent_kernel[k * all + column] * h[k] * mask;
        }
    }
}

static void exact_step(const exact *e, int row, int32_t t, double *h, double *c) {
    const sap_recurrent *r = &e->p->r;
    double g[4][MOST], from_h[4][MOST];
    for (int gate = 0; gate < sap_cell_gates(r->cell); gate++) {
        bool late = gate == 2 && (r->cell == SAP_CELL_GRU || r->cell == SAP_CELL_GRU_BEFORE);
        exact_sums(e, gate, row, t, h, g[gate], from_h[gate]);
        for (int64_t u = 0; u < r->units && !late; u++)
            g[gate][u] += from_h[gate][u];
        bool own = r->cell == SAP_CELL_SIMPLE || (r->cell == SAP_CELL_LSTM && gate == 2);
        if (!late)
            exact_activation(own ? &r->activation : &r->recurrent_activation, r->units, g[gate]);
    }
    if (r->cell == SAP_CELL_SIMPLE) {
        memcpy(h, g[0], sizeof g[0]);
    } else if (r->cell == SAP_CELL_LSTM) {
        double squashed[MOST];
        for (int64_t u = 0; u < r->units; u++)
            squashed[u] = c[u] = g[1][u] * c[u] + g[0][u] * g[2][u];
        exact_activation(&r->activation, r->units, squashed);
        for (int64_t u = 0; u < r->units; u++)
            h[u] = g[3][u] * squashed[u];
    } else {
        double reset[MOST], unused[MOST];
        for (int64_t u = 0; u < r->units; u++)
            reset[u] = g[1][u] * h[u];
        if (r->cell == SAP_CELL_GRU_BEFORE)
            exact_sums(e, 2, row, t, reset, unused, from_h[2]);
        for (int64_t u = 0; u < r->units; u++)
            g[2][u] += r->cell == SAP_CELL_GRU ? g[1][u] * from_h[2][u] : from_h[2][u];
        exact_activation(&r->activation, r->units, g[2]);
        for (int64_t u = 0; u < r->units; u++)
            h[u] = g[0][u] * h[u] + (1 - g[0][u]) * g[2][u];
    }
}

static void assert_close(double a, double b, double tolerance, const char *what) {
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%s: %.9g, not %.9g", what, a, b);
}

/* Σ y dy + Σ last d_last, of which the kernels give the gradient; with `check`, y and last are compared. */
static double exact_loss(const exact *e, bool check) {
    const sap_recurrent *r = &e->p->r;
    double loss = 0;
    for (int row = 0; row < SAP_TILE; row++) {
        double h[MOST] = {0}, c[MOST] = {0};
        int32_t length = e->p->steps.length[row];
        for (int32_t i = 0; i < length; i++) {
            int32_t t = r->reverse ? length - 1 - i : i;
            exact_step(e, row, t, h, c);
            sap_step_place p = sap_steps_place(&e->p->steps, t);
            for (int64_t u = 0; r->y && u < r->units; u++) {
                int64_t at = p.start * r->y_values + (r->y_first + u) * p.width + row;
                loss += h[u] * (double)r->dy[at];
                if (check)
                    assert_close((double)r->y[at], h[u], 3e-6, "y");
            }
        }
        for (int64_t u = 0; r->last && u < r->units; u++) {
            loss += h[u] * (double)r->d_last[u * SAP_TILE + row];
            if (check)
                assert_close((double)r->last[u * SAP_TILE + row], h[u], 3e-6, "last");
        }
    }
    return loss;
}

/* Some of the gradients against finite differences; before: what was in the array that was added to. */
static void check_slopes(exact *e, double *parameter, const float *gradient, const float *before, int64_t count,
                         const char *what) {
    for (int64_t i = 0; i < count; i += 1 + count / 12) {
        double old = parameter[i], step = 1e-5;
        parameter[i] = old + step;
        double up = exact_loss(e, false);
        parameter[i] = old - step;
        double slope = (up - exact_loss(e, false)) / (2 * step);
        parameter[i] = old;
        assert_close((double)gradient[i] - (before ? (double)before[i] : 0), slope, 3e-5 * (1 + fabs(slope)), what);
    }
}

static float *copy_of(const float *x, int64_t count) {
    float *p = numbers(count, 0, 0);
    if (x)
        memcpy(p, x, (size_t)count * sizeof *p);
    return p;
}

static void check_exact(problem *p) {
    give_memory(p);
    exact e = {p, doubles(p->r.kernel, p->weights), doubles(p->r.recurrent_kernel, p->recurrent_weights),
               doubles(p->r.bias, p->biases), doubles(p->r.x, p->columns * p->r.inputs)};
    float *dx = copy_of(p->r.dx, p->columns * p->r.inputs), *dw = copy_of(p->r.d_kernel, p->weights);
    float *du = copy_of(p->r.d_recurrent_kernel, p->recurrent_weights), *db = copy_of(p->r.d_bias, p->biases);
    const sap_recurrent_kernels *plain = sap_kernels_at(0)->recurrent;
    plain->forward(&p->r);
    exact_loss(&e, true);
    plain->backward(&p->r);
    check_slopes(&e, e.kernel, p->r.d_kernel, dw, p->weights, "gradient of the kernel");
    check_slopes(&e, e.recurrent_kernel, p->r.d_recurrent_kernel, du, p->recurrent_weights,
                 "gradient of the recurrent kernel");
    if (p->r.bias)
        check_slopes(&e, e.bias, p->r.d_bias, db, p->biases, "gradient of the bias");
    check_slopes(&e, e.x, p->r.dx, p->r.add ? dx : NULL, p->columns * p->r.inputs, "gradient of x");
    free(e.kernel);
    free(e.recurrent_kernel);
    free(e.bias);
    free(e.x);
    free(dx);
    free(dw);
    free(du);
    free(db);
    free_problem(p);
}

static const int32_t few[20] = {5, 4, 4, 1, 0, 3, 2, 5, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 1, 0};

static void test_plain_is_exact(void **state) {
    (void)state;
    static const int kinds[] = {WITH_Y, REVERSE, WITH_Y | WITH_LAST | X_MASKS | ADD,
                                WITH_LAST | REVERSE | X_MASKS | H_MASKS, H_MASKS | NO_BIAS};
    for (int cell = SAP_CELL_SIMPLE; cell <= SAP_CELL_LSTM; cell++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            problem p = make_problem((sap_cell)cell, 3, 5, few, 20, kinds[k]);
            check_exact(&p);
        }
        static const sap_activation_kind others[][2] = {
            {SAP_SOFTSIGN, SAP_SIGMOID}, {SAP_SILU, SAP_SILU}, {SAP_SOFTMAX, SAP_SOFTMAX}, {SAP_TANH, SAP_SILU}};
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
            problem p = make_problem((sap_cell)cell, 2, 4, few, 20, WITH_Y | WITH_LAST);
            p.r.activation.kind = others[k][0];
            p.r.recurrent_activation.kind = others[k][1];
            check_exact(&p);
        }
    }
}

/* ---- Every form against the plain one ------------------------------------------------------------------- */

/* The same problem with results of its own. */
static problem twin_of(const problem *p) {
    problem q = *p;
    q.r.steps = &p->steps;
    q.r.y = p->r.y ? filled(p->columns * p->r.y_values, NAN) : NULL;
    q.r.last = p->r.last ? filled(p->r.units * SAP_TILE, NAN) : NULL;
    q.r.dx = copy_of(p->r.dx, p->columns * p->r.inputs);
    q.r.d_kernel = copy_of(p->r.d_kernel, p->weights);
    q.r.d_recurrent_kernel = copy_of(p->r.d_recurrent_kernel, p->recurrent_weights);
    q.r.d_bias = p->r.d_bias ? copy_of(p->r.d_bias, p->biases) : NULL;
    q.r.kept = q.r.work = NULL;
    return q;
}

static void free_twin(problem *q) {
    free(q->r.y);
    free(q->r.last);
    free(q->r.dx);
    free(q->r.d_kernel);
    free(q->r.d_recurrent_kernel);
    free(q->r.d_bias);
    free(q->r.kept);
    free(q->r.work);
}

/* Relative to the largest: gradients are sums of many terms. */
static void assert_near(const char *form, const char *what, const float *a, const float *b, int64_t count,
                        double tolerance) {
    double largest = 1;
    for (int64_t i = 0; i < count; i++)
        largest = fabs((double)b[i]) > largest ? fabs((double)b[i]) : largest;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * largest))
            fail_msg("%s, %s: number %lld is %.9g, plain %.9g", form, what, (long long)i, (double)a[i], (double)b[i]);
}

/* Both finite behind the length of a row, and equal before. */
static void assert_states_near(const char *form, const problem *a, const problem *b) {
    for (int32_t t = 0; t < a->steps.count; t++) {
        sap_step_place p = sap_steps_place(&a->steps, t);
        for (int64_t u = 0; u < a->r.units; u++) {
            for (int c = 0; c < p.width; c++) {
                int64_t at = p.start * a->r.y_values + (a->r.y_first + u) * p.width + c;
                if (t < a->steps.length[c])
                    assert_near(form, "y", &a->r.y[at], &b->r.y[at], 1, a->tolerance);
                else
                    assert_true(isfinite(a->r.y[at]) && isfinite(b->r.y[at]));
            }
        }
    }
}

static void assert_results_near(const char *form, const problem *a, const problem *b) {
    if (a->r.y)
        assert_states_near(form, a, b);
    if (a->r.last)
        assert_near(form, "last", a->r.last, b->r.last, a->r.units * SAP_TILE, a->tolerance);
    assert_near(form, "dx", a->r.dx, b->r.dx, a->columns * a->r.inputs, a->slope_tolerance);
    assert_near(form, "kernel", a->r.d_kernel, b->r.d_kernel, a->weights, a->slope_tolerance);
    assert_near(form, "recurrent kernel", a->r.d_recurrent_kernel, b->r.d_recurrent_kernel, a->recurrent_weights,
                a->slope_tolerance);
    if (a->r.d_bias)
        assert_near(form, "bias", a->r.d_bias, b->r.d_bias, a->biases, a->slope_tolerance);
}

/* Forward alone gives the same bits as forward that keeps what backward needs. */
static void check_forward_alone(const sap_kernels *k, const problem *p) {
    problem q = twin_of(p);
    q.r.work = filled(sap_recurrent_work(&q.r, false), NAN);
    k->recurrent->forward(&q.r);
    if (q.r.y)
        for (int64_t i = 0; i < q.columns * q.r.y_values; i++)
            assert_true(q.r.y[i] == p->r.y[i] || isnan(p->r.y[i]));
    if (q.r.last)
        assert_memory_equal(q.r.last, p->r.last, (size_t)(q.r.units * SAP_TILE) * sizeof(float));
    free_twin(&q);
}

static void check_form(const sap_kernels *k, const problem *p, const problem *wanted) {
    problem q = twin_of(p);
    give_memory(&q);
    k->recurrent->forward(&q.r);
    free(q.r.work);
    q.r.work = filled(sap_recurrent_work(&q.r, true), NAN);
    k->recurrent->backward(&q.r);
    assert_results_near(k->name, &q, wanted);
    check_forward_alone(k, &q);
    free_twin(&q);
}

/* bf16 has 8 bits: 0.4 % of each factor, of which sums of many make less. */
static void check_tiles(problem p, const problem *wanted) {
    p.tolerance = 0.04;
    p.slope_tolerance = 0.03;
    check_form(&sap_kernels_amx_emulated, &p, wanted);
    if (sap_kernels_bf16())
        check_form(sap_kernels_bf16(), &p, wanted);
}

static void check_forms(problem *p) {
    problem wanted = twin_of(p);
    give_memory(&wanted);
    const sap_recurrent_kernels *plain = sap_kernels_at(0)->recurrent;
    plain->forward(&wanted.r);
    plain->backward(&wanted.r);
    for (size_t i = 1; sap_kernels_at(i); i++)
        check_form(sap_kernels_at(i), p, &wanted);
    if (p->tiles)
        check_tiles(*p, &wanted);
    free_twin(&wanted);
    free_problem(p);
}

static void test_sizes(void **state) {
    (void)state;
    static const int64_t inputs[] = {1, 7, 19}, units[] = {1, 2, 3, 5, 6, 7, 8, 11, 13, 50};
    int32_t length[SAP_TILE];
    for (int c = 0; c < SAP_TILE; c++)
        length[c] = 1 + (SAP_TILE - 1 - c) / 13;
    for (int cell = SAP_CELL_SIMPLE; cell <= SAP_CELL_LSTM; cell++)
        for (size_t i = 0; i < 3; i++)
            for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
                problem p = make_problem((sap_cell)cell, inputs[i], units[u], length, SAP_TILE, i == 1 ? WITH_Y : 0);
                p.tiles = units[u] == 50 || units[u] == inputs[i];
                check_forms(&p);
            }
}

static void test_kinds(void **state) {
    (void)state;
    int32_t length[SAP_TILE];
    for (int c = 0; c < SAP_TILE; c++)
        length[c] = (63 - c) / 6;
    for (int cell = SAP_CELL_SIMPLE; cell <= SAP_CELL_LSTM; cell++) {
        for (int kind = 0; kind < 2 * ADD; kind++) {
            problem p = make_problem((sap_cell)cell, 4, 9, length, 49 + kind % 16, kind);
            p.tiles = kind % 3 == 0;
            check_forms(&p);
        }
    }
}

static void test_activations(void **state) {
    (void)state;
    for (int cell = SAP_CELL_SIMPLE; cell <= SAP_CELL_LSTM; cell++) {
        for (int kind = SAP_LINEAR; kind <= SAP_SOFTMAX; kind++) {
            if (kind == SAP_EXPONENTIAL)
                continue; /* grows beyond all numbers */
            for (int recurrent = 0; recurrent < 2; recurrent++) {
                problem p = make_problem((sap_cell)cell, 3, 7, few, 20, WITH_Y | WITH_LAST | (recurrent ? REVERSE : 0));
                sap_activation activation = {(sap_activation_kind)kind, 0.3F, 0.1F, 2.5F};
                p.tolerance = 1e-5; /* some grow from step to step, and rounding with them */
                if (recurrent)
                    p.r.recurrent_activation = activation;
                else
                    p.r.activation = activation;
                check_forms(&p);
            }
        }
    }
}

/* Lengths: none, equal, sorted, in any order, with gaps; every number of rows; long enough for several chunks. */
static void test_lengths(void **state) {
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        for (int rows = 1; rows <= SAP_TILE; rows += 9) {
            int32_t length[SAP_TILE];
            for (int c = 0; c < rows; c++)
                length[c] = kind == 0   ? 0
                            : kind == 1 ? 9
                            : kind == 2 ? 1 + (rows - 1 - c) * 40 / rows
                            : kind == 3 ? (int32_t)(sap_mix(4, counter++) % 45)
                            : kind == 4 ? (c % 16 == 3 ? 70 : 0)
                                        : (c == 0 ? 100 : 1);
            for (int cell = SAP_CELL_GRU; cell <= SAP_CELL_LSTM; cell += SAP_CELL_LSTM - SAP_CELL_GRU) {
                problem p = make_problem((sap_cell)cell, 3, 6, length, rows,
                                         rows % 2 ? WITH_Y | WITH_LAST : WITH_LAST | REVERSE);
                p.tiles = rows == 19 || rows == 37;
                check_forms(&p);
            }
        }
    }
}

/* What is not wanted is not touched: no gradient of x, none of the weights. */
static void test_parts_of_backward(void **state) {
    (void)state;
    for (size_t i = 0; sap_kernels_at(i); i++) {
        const sap_recurrent_kernels *k = sap_kernels_at(i)->recurrent;
        problem p = make_problem(SAP_CELL_GRU, 3, 7, few, 20, WITH_Y | WITH_LAST), a = twin_of(&p), b = twin_of(&p);
        give_memory(&p);
        give_memory(&a);
        give_memory(&b);
        float *dx = a.r.dx, *dw = b.r.d_kernel;
        a.r.dx = NULL;
        b.r.d_kernel = NULL;
        k->forward(&p.r);
        k->forward(&a.r);
        k->forward(&b.r);
        k->backward(&p.r);
        k->backward(&a.r);
        k->backward(&b.r);
        assert_memory_equal(p.r.d_kernel, a.r.d_kernel, (size_t)p.weights * sizeof(float));
        assert_memory_equal(p.r.dx, b.r.dx, (size_t)(p.columns * p.r.inputs) * sizeof(float));
        a.r.dx = dx;
        b.r.d_kernel = dw;
        free_twin(&a);
        free_twin(&b);
        free_problem(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_is_exact), cmocka_unit_test(test_sizes),   cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_activations),    cmocka_unit_test(test_lengths), cmocka_unit_test(test_parts_of_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
