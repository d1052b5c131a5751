/* Every form of the kernels against the plain one, for odd sizes. */
#include "nn_test.h"

#include <math.h>

static uint64_t counter;

static float uniform(float low, float high) {
    return low + (high - low) * (float)sap_unit(sap_mix(17, counter++));
}

static float *numbers(int64_t count, float low, float high) {
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        p[i] = uniform(low, high);
    return p;
}

static float *copy_of(const float *x, int64_t count) {
    float *p = numbers(count, 0, 0);
    memcpy(p, x, (size_t)count * sizeof *p);
    return p;
}

static void assert_near(const char *form, const char *what, const float *a, const float *b, int64_t count,
                        double tolerance) {
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * (1 + fabs((double)b[i]))))
            fail_msg("%s, %s: number %lld is %.9g, plain %.9g", form, what, (long long)i, (double)a[i], (double)b[i]);
}

/* The widths that a tile can have. */
#define FOR_EACH_WIDTH(T) for (int T = SAP_COLUMNS; T <= SAP_TILE; T += SAP_COLUMNS)

/* The forms besides the plain one. */
#define FOR_EACH_FORM(k)                                                                                               \
    for (size_t form_ = 1; sap_kernels_at(form_); form_++)                                                             \
        for (const sap_kernels *k = sap_kernels_at(form_), *plain = sap_kernels_at(0); k; k = NULL)

static void test_forms(void **state) {
    (void)state;
    assert_non_null(sap_kernels_at(1));
    assert_string_equal(sap_kernels_at(0)->name, "plain");
    assert_ptr_not_equal(sap_kernels_best(), sap_kernels_at(0));
}

static void check_product(const sap_kernels *k, const sap_kernels *plain, int T, int64_t rows, int64_t depth,
                          int kind) {
    float *w = numbers(rows * depth, -1, 1), *x = numbers(depth * T, -1, 1), *bias = numbers(rows, -1, 1);
    float *y = numbers(rows * T, -1, 1), *wanted = copy_of(y, rows * T);
    bool transposed = kind & 1, add = kind & 2;
    sap_product p = {.rows = rows,
                     .depth = depth,
                     .w = w,
                     .row_step = transposed ? depth : 1,
                     .depth_step = transposed ? 1 : rows,
                     .width = T,
                     .x = x,
                     .y = y,
                     .bias = add || kind & 8 ? NULL : bias,
                     .add = add,
                     .relu = kind & 4};
    k->product(&p);
    p.y = wanted;
    plain->product(&p);
    assert_near(k->name, "product", y, wanted, rows * T, 3e-6);
    free(w);
    free(x);
    free(bias);
    free(y);
    free(wanted);
}

static void test_product(void **state) {
    (void)state;
    static const int64_t depths[] = {1, 2, 14, 50, 67};
    FOR_EACH_FORM(k)
    FOR_EACH_WIDTH(T)
    for (int64_t rows = 1; rows <= 20; rows++)
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
            for (int kind = 0; kind < 16; kind++)
                check_product(k, plain, T, rows, depths[d], kind);
}

static void test_product_keeps_nan(void **state) {
    (void)state;
    enum { T = SAP_TILE };
    float w[1] = {1}, *x = numbers(T, -1, 1), *y = numbers(T, 0, 0);
    x[3] = NAN;
    for (size_t i = 0; sap_kernels_at(i); i++) {
        sap_kernels_at(i)->product(&(sap_product){
            .rows = 1, .depth = 1, .w = w, .row_step = 1, .depth_step = 1, .width = T, .x = x, .y = y, .relu = true});
        assert_true(isnan(y[3]));
        assert_true(y[4] >= 0);
    }
    free(x);
    free(y);
}

static void test_outer(void **state) {
    (void)state;
    FOR_EACH_FORM(k)
    FOR_EACH_WIDTH(T)
    for (int64_t in = 1; in <= 14; in++) {
        for (int64_t out = 1; out <= 11; out++) {
            float *x = numbers(in * T, -1, 1), *d = numbers(out * T, -1, 1), *g = numbers(in * out, -1, 1);
            float *wanted = copy_of(g, in * out), *sums = numbers(out, -1, 1), *wanted_sums = copy_of(sums, out);
            k->outer(in, out, T, x, d, g, sums);
            plain->outer(in, out, T, x, d, wanted, wanted_sums);
            assert_near(k->name, "outer", g, wanted, in * out, 3e-6);
            assert_near(k->name, "sums of outer", sums, wanted_sums, out, 3e-6);
            k->outer(in, out, T, x, d, g, NULL);
            plain->outer(in, out, T, x, d, wanted, NULL);
            assert_near(k->name, "outer without sums", g, wanted, in * out, 6e-6);
            free(x);
            free(d);
            free(g);
            free(wanted);
            free(sums);
            free(wanted_sums);
        }
    }
}

static void test_load(void **state) {
    (void)state;
    FOR_EACH_FORM(k)
    FOR_EACH_WIDTH(T)
    for (int64_t values = 1; values <= 19; values++) {
        for (int missing = 0; missing < 5; missing++) {
            float *x = numbers(values * T, -1, 1), *a = numbers(values * T, -1, 1), *b = copy_of(a, values * T);
            const float *rows[SAP_TILE];
            for (int t = 0; t < T; t++) /* in any order, some not there */
                rows[t] = missing && t % (missing + 1) == 0 ? NULL : x + (T - 1 - t) * values;
            k->load(rows, values, T, a);
            plain->load(rows, values, T, b);
            assert_memory_equal(a, b, (size_t)(values * T) * sizeof *a);
            assert_true(a[1] == x[(T - 2) * values] && (a[0] == 0) == (missing > 0));
            free(x);
            free(a);
            free(b);
        }
    }
}

static void test_activations(void **state) {
    (void)state;
    enum { N = 8 * SAP_TILE };
    FOR_EACH_FORM(k)
    for (int kind = SAP_LINEAR; kind < SAP_LOG_SOFTMAX; kind++) {
        sap_activation activation = {(sap_activation_kind)kind, 0.3F, 0.1F, 2.5F};
        for (int wide = 0; wide < 2; wide++) {
            float *z = wide ? numbers(N, -30, 30) : numbers(N, -1, 1), *a = numbers(N, 0, 0), *b = numbers(N, 0, 0);
            float *d = numbers(N, -1, 1), *wanted = copy_of(d, N);
            z[5] = 0;
            k->activate(&activation, z, a, N);
            plain->activate(&activation, z, b, N);
            assert_near(k->name, "activate", a, b, N, 5e-7);
            k->activate_gradient(&activation, z, b, d, N);
            plain->activate_gradient(&activation, z, b, wanted, N);
            assert_near(k->name, "activate_gradient", d, wanted, N, 1e-6);
            free(z);
            free(a);
            free(b);
            free(d);
            free(wanted);
        }
    }
}

/* The plain derivatives are those of the plain functions. */
static void test_derivatives(void **state) {
    (void)state;
    const sap_kernels *plain = sap_kernels_at(0);
    for (int kind = SAP_LINEAR; kind < SAP_LOG_SOFTMAX; kind++) {
        sap_activation activation = {(sap_activation_kind)kind, 0.3F, 0.1F, 2.5F};
        for (int i = 0; i < 200; i++) {
            float h = 4e-3F, x = -4 + 8 * (float)i / 199, a[3], z[3] = {x - h, x, x + h}, d = 1;
            plain->activate(&activation, z, a, 3);
            plain->activate_gradient(&activation, &z[1], &a[1], &d, 1);
            double slope = ((double)a[2] - (double)a[0]) / ((double)z[2] - (double)z[0]);
            bool edge = fabsf(x) < 0.01F || fabsf(x - 0.1F) < 0.01F || fabsf(x - 2.5F) < 0.01F ||
                        fabsf(fabsf(x) - 3) < 0.01F || fabsf(fabsf(x) - 1) < 0.01F || fabsf(fabsf(x) - 0.5F) < 0.01F;
            if (!edge && fabs(slope - (double)d) > 1e-3 * (1 + fabs(slope)))
                fail_msg("activation %d at %g: derivative %g, slope %g", kind, (double)x, (double)d, slope);
        }
    }
}

static void test_exponential_far_out(void **state) {
    (void)state;
    enum { T = SAP_TILE };
    float z[T] = {-1000, -200, -87, 88, 200, NAN, -INFINITY, INFINITY}, a[T];
    sap_activation activation = {SAP_EXPONENTIAL, 0, 0, 0};
    for (size_t i = 0; sap_kernels_at(i); i++) {
        sap_kernels_at(i)->activate(&activation, z, a, T);
        assert_true(a[0] < 1e-37F && a[1] < 1e-37F && a[6] < 1e-37F);
        assert_true(fabsf(a[2] / expf(-87) - 1) < 1e-5F && fabsf(a[3] / expf(88) - 1) < 1e-5F);
        assert_true(isinf(a[4]) && isinf(a[7]) && isnan(a[5]));
    }
}

static void test_softmax(void **state) {
    (void)state;
    FOR_EACH_FORM(k)
    FOR_EACH_WIDTH(T)
    for (int64_t rows = 1; rows <= 7; rows++) {
        float *z = numbers(rows * T, -20, 20), *a = numbers(rows * T, 0, 0), *b = numbers(rows * T, 0, 0);
        float *d = numbers(rows * T, -1, 1), *wanted = copy_of(d, rows * T);
        k->softmax(rows, T, z, a);
        plain->softmax(rows, T, z, b);
        assert_near(k->name, "softmax", a, b, rows * T, 3e-7);
        k->softmax_gradient(rows, T, b, d);
        plain->softmax_gradient(rows, T, b, wanted);
        assert_near(k->name, "softmax_gradient", d, wanted, rows * T, 1e-6);
        k->softmax(rows, T, z, z); /* in place */
        assert_memory_equal(z, a, (size_t)(rows * T) * sizeof *z);
        free(z);
        free(a);
        free(b);
        free(d);
        free(wanted);
    }
}

static void test_dropout(void **state) {
    (void)state;
    enum { T = SAP_TILE, V = 300 };
    uint32_t a[T], b[T];
    for (int t = 0; t < T; t++) {
        uint64_t key = sap_mix(8, (uint64_t)t);
        a[t] = (uint32_t)key;
        b[t] = (uint32_t)(key >> 32);
    }
    sap_dropout dropout = {V, T, 0, (uint32_t)(0.3 * 0x1p32), (float)(1 / 0.7), a, b};
    float *x = numbers(V * T, 1, 2), *y = numbers(V * T, 0, 0), *wanted = numbers(V * T, 0, 0);
    sap_kernels_at(0)->dropout(&dropout, x, wanted, false);
    int64_t dropped = 0, same_neighbour = 0;
    for (int64_t i = 0; i < V * T; i++) {
        dropped += wanted[i] == 0;
        same_neighbour += i % T && (wanted[i] == 0) == (wanted[i - 1] == 0);
    }
    /* 19,200 numbers: four standard deviations are 254 and 274 */
    assert_in_range(dropped, (uint64_t)(0.3 * V * T) - 254, (uint64_t)(0.3 * V * T) + 254);
    assert_in_range(same_neighbour, (uint64_t)(0.58 * V * (T - 1)) - 274, (uint64_t)(0.58 * V * (T - 1)) + 274);
    FOR_EACH_FORM(k) {
        k->dropout(&dropout, x, y, false);
        assert_memory_equal(y, wanted, (size_t)(V * T) * sizeof *y);
        k->dropout(&dropout, x, y, true);
        for (int64_t i = 0; i < V * T; i++)
            assert_true(fabsf(y[i] - 2 * wanted[i]) < 1e-5F);
        for (int width = SAP_COLUMNS; width < T; width += SAP_COLUMNS) { /* of the same events and values: the same */
            sap_dropout part = {V - 100, width, 100, dropout.threshold, dropout.scale, a, b};
            float ones[(V - 100) * T];
            for (int64_t i = 0; i < (V - 100) * width; i++)
                ones[i] = 1;
            k->dropout(&part, ones, y, false);
            for (int64_t i = 0; i < (V - 100) * width; i++)
                assert_true((y[i] == 0) == (wanted[(i / width + 100) * T + i % width] == 0));
        }
        (void)plain;
    }
    free(x);
    free(y);
    free(wanted);
}

static void test_add(void **state) {
    (void)state;
    FOR_EACH_FORM(k)
    for (int64_t n = 1; n < 40; n += 3) {
        float *g = numbers(n, -1, 1), *w = numbers(n, -1, 1), *w2 = copy_of(w, n);
        k->add(n, g, w);
        plain->add(n, g, w2);
        assert_memory_equal(w, w2, (size_t)n * sizeof *w);
        free(g);
        free(w);
        free(w2);
    }
}

static void test_affine(void **state) {
    (void)state;
    float *x = numbers(9 * SAP_TILE, -1, 1), *scale = numbers(9, -1, 1), *shift = numbers(9, -1, 1);
    FOR_EACH_FORM(k)
    FOR_EACH_WIDTH(T)
    for (int kind = 0; kind < 4; kind++) {
        float *y = numbers(9 * T, -1, 1), *wanted = copy_of(y, 9 * T);
        k->affine(9, T, scale, kind & 1 ? shift : NULL, x, y, kind & 2);
        plain->affine(9, T, scale, kind & 1 ? shift : NULL, x, wanted, kind & 2);
        assert_near(k->name, "affine", y, wanted, 9 * T, 1e-6);
        free(y);
        free(wanted);
    }
    free(x);
    free(scale);
    free(shift);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),       cmocka_unit_test(test_product),
        cmocka_unit_test(test_outer),       cmocka_unit_test(test_product_keeps_nan),
        cmocka_unit_test(test_load),        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_derivatives), cmocka_unit_test(test_exponential_far_out),
        cmocka_unit_test(test_softmax),     cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_add),         cmocka_unit_test(test_affine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
