/* The kernels of attention: the plain form against the formula in double precision and against finite differences,
 * the other forms against the plain one; keys that stand for several. */
#include "nn/attention.h"
#include "nn_test.h"

#include <math.h>

typedef struct sizes {
    int64_t heads, key_dim, value_dim, queries, keys;
} sizes;

static const sizes tried[] = {{1, 1, 1, 1, 1},    {2, 3, 5, 7, 9},      {3, 19, 19, 16, 16}, {1, 8, 4, 65, 17},
                              {2, 5, 3, 17, 130}, {1, 19, 19, 100, 67}, {8, 4, 4, 48, 64}};
enum { TRIED = sizeof tried / sizeof *tried };

static uint64_t counter;

static float uniform(float low, float high) {
    return low + (high - low) * (float)sap_unit(sap_mix(41, counter++));
}

static float *numbers(int64_t count, float low, float high) {
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        p[i] = uniform(low, high);
    return p;
}

static int64_t at(int64_t tokens, int64_t values, int64_t f, int64_t i) {
    int64_t first = i / SAP_TILE * SAP_TILE, left = sap_tokens_room(tokens - first);
    return first * values + f * (left < SAP_TILE ? left : SAP_TILE) + i % SAP_TILE;
}

static sap_attention make(const sizes *s, int64_t spread) {
    int64_t queries = sap_tokens_room(s->queries), keys = sap_tokens_room(s->keys);
    float wide = spread ? (float)spread : 1;
    sap_attention a = {
        .heads = s->heads,
        .key_dim = s->key_dim,
        .value_dim = s->value_dim,
        .queries = s->queries,
        .keys = s->keys,
        .scale = 1 / sqrtf((float)s->key_dim),
        .repeat = 1,
        .q = numbers(queries * s->heads * s->key_dim, -wide, wide),
        .k = numbers(keys * s->heads * s->key_dim, -wide, wide),
        .v = numbers(keys * s->heads * s->value_dim, -1, 1),
        .y = numbers(queries * s->heads * s->value_dim, 0, 0),
        .statistic = numbers(queries * s->heads, 0, 0),
        .dq = numbers(queries * s->heads * s->key_dim, 0, 0),
        .dk = numbers(keys * s->heads * s->key_dim, 0, 0),
        .dv = numbers(keys * s->heads * s->value_dim, 0, 0),
        .work = numbers(sap_attention_work(s->key_dim), 0, 0),
    };
    float *dy = numbers(queries * s->heads * s->value_dim, -1, 1);
    for (int64_t f = 0; f < s->heads * s->value_dim; f++)
        for (int64_t i = s->queries; i < queries; i++)
            dy[at(s->queries, s->heads * s->value_dim, f, i)] = 0;
    a.dy = dy;
    return a;
}

static void discard(sap_attention *a) {
    const float *all[] = {a->q, a->k, a->v, a->y, a->statistic, a->dy, a->dq, a->dk, a->dv, a->work};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free((void *)(uintptr_t)all[i]);
}

static void run(const sap_kernels *kernels, sap_attention *a) {
    kernels->attention->forward(a);
    kernels->attention->backward(a);
}

static void assert_tokens(const char *form, const char *what, const float *a, const float *b, int64_t tokens,
                          int64_t values, double tolerance) {
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t f = 0; f < values; f++) {
            double x = (double)a[at(tokens, values, f, i)], y = (double)b[at(tokens, values, f, i)];
            if (!(fabs(x - y) <= tolerance * (1 + fabs(y))))
                fail_msg("%s, %s: value %lld of token %lld is %.9g, not %.9g", form, what, (long long)f, (long long)i,
                         x, y);
        }
}

/* Runs `a` with the form into arrays of its own and compares. */
static void compare(const sap_kernels *kernels, const sap_attention *a, double tolerance) {
    int64_t queries = sap_tokens_room(a->queries), keys = sap_tokens_room(a->keys);
    sap_attention b = *a;
    b.y = numbers(queries * a->heads * a->value_dim, 5, 6);
    b.statistic = numbers(queries * a->heads, 5, 6);
    b.dq = numbers(queries * a->heads * a->key_dim, 5, 6);
    b.dk = numbers(keys * a->heads * a->key_dim, 5, 6);
    b.dv = numbers(keys * a->heads * a->value_dim, 5, 6);
    run(kernels, &b);
    assert_tokens(kernels->name, "y", b.y, a->y, a->queries, a->heads * a->value_dim, tolerance);
    assert_tokens(kernels->name, "dq", b.dq, a->dq, a->queries, a->heads * a->key_dim, tolerance);
    assert_tokens(kernels->name, "dk", b.dk, a->dk, a->keys, a->heads * a->key_dim, tolerance);
    assert_tokens(kernels->name, "dv", b.dv, a->dv, a->keys, a->heads * a->value_dim, tolerance);
    free(b.y);
    free(b.statistic);
    free(b.dq);
    free(b.dk);
    free(b.dv);
}

/* ---- The plain form ------------------------------------------------------------------------------------- */

static bool is_kept(const sap_attention *a, int64_t head, int64_t i, int64_t j) {
    uint32_t number = (uint32_t)((head * a->queries + i) * a->keys + j);
    return sap_dropout_bits(a->key_a, a->key_b, number) >= a->threshold;
}

/* Σ y dy, in double precision, with q, k or v number `moved` (at `place`) larger by h. */
static double loss(const sap_attention *a, const float *moved, int64_t place, double h) {
    double total = 0;
    int64_t d = a->key_dim, e = a->value_dim;
#define VALUE(x, tokens, values, f, i)                                                                                 \
    ((double)(x)[at(tokens, values, f, i)] + ((x) == moved && at(tokens, values, f, i) == place ? h : 0))
    for (int64_t head = 0; head < a->heads; head++) {
        for (int64_t i = 0; i < a->queries; i++) {
            int64_t keys = a->limit ? a->limit[i] : a->keys;
            double sum = 0, part = 0;
            for (int64_t j = 0; j < keys; j++) {
                double score = 0, gain = 0;
                for (int64_t f = head * d; f < (head + 1) * d; f++)
                    score += VALUE(a->q, a->queries, a->heads * d, f, i) * VALUE(a->k, a->keys, a->heads * d, f, j);
                for (int64_t f = head * e; f < (head + 1) * e; f++)
                    gain +=
                        VALUE(a->v, a->keys, a->heads * e, f, j) * (double)a->dy[at(a->queries, a->heads * e, f, i)];
                double weight = exp(score * (double)a->scale) * (j == a->keys - 1 ? (double)a->repeat : 1);
                sum += weight;
                part += weight * gain * (!a->drop ? 1 : is_kept(a, head, i, j) ? (double)a->kept : 0);
            }
            total += part / sum;
        }
    }
#undef VALUE
    return total;
}

static void assert_slopes(const sap_attention *a, const float *x, const float *dx, int64_t tokens, int64_t values) {
    for (int64_t f = 0; f < values; f++) {
        int64_t place = at(tokens, values, f, (f * 5 + 3) % tokens);
        double h = 1e-5, slope = (loss(a, x, place, h) - loss(a, x, place, -h)) / (2 * h);
        if (!(fabs(slope - (double)dx[place]) <= 2e-5 * (1 + fabs(slope))))
            fail_msg("gradient %.9g, slope %.9g", (double)dx[place], slope);
    }
}

static void check_plain(sap_attention *a) {
    run(sap_kernels_at(0), a);
    double found = 0;
    for (int64_t i = 0; i < a->queries; i++)
        for (int64_t f = 0; f < a->heads * a->value_dim; f++)
            found += (double)a->y[at(a->queries, a->heads * a->value_dim, f, i)] *
                     (double)a->dy[at(a->queries, a->heads * a->value_dim, f, i)];
    double wanted = loss(a, NULL, 0, 0);
    assert_true(fabs(found - wanted) <= 2e-5 * (1 + fabs(wanted)));
    assert_slopes(a, a->q, a->dq, a->queries, a->heads * a->key_dim);
    assert_slopes(a, a->k, a->dk, a->keys, a->heads * a->key_dim);
    assert_slopes(a, a->v, a->dv, a->keys, a->heads * a->value_dim);
}

/* Settings besides the sizes: 0 none, 1 a limit, 2 dropout, 3 both, 4 a last key that stands for 12. */
static int32_t *set_case(sap_attention *a, int setting) {
    int32_t *limit = NULL;
    if (setting & 1) {
        limit = calloc((size_t)a->queries, sizeof *limit);
        assert_non_null(limit);
        for (int64_t i = 0; i < a->queries; i++)
            limit[i] = (int32_t)(i + 1 + i / 3 < a->keys ? i + 1 + i / 3 : a->keys);
    }
    a->limit = limit;
    a->drop = setting & 2;
    a->threshold = 0x50000000;
    a->kept = 1 / (1 - (float)0x50000000 / 4294967296.0F);
    a->key_a = 12345;
    a->key_b = 678910;
    a->repeat = setting == 4 ? 12 : 1;
    return limit;
}

static void test_plain_is_the_formula(void **state) {
    (void)state;
    for (int setting = 0; setting < 5; setting++) {
        for (int n = 0; n < 4; n++) {
            sap_attention a = make(&tried[n], 0);
            int32_t *limit = set_case(&a, setting);
            check_plain(&a);
            free(limit);
            discard(&a);
        }
    }
}

/* ---- The other forms ------------------------------------------------------------------------------------ */

static void test_forms(void **state) {
    (void)state;
    for (int setting = 0; setting < 5; setting++) {
        for (int n = 0; n < TRIED; n++) {
            sap_attention a = make(&tried[n], 0);
            int32_t *limit = set_case(&a, setting);
            run(sap_kernels_at(0), &a);
            for (size_t form = 1; sap_kernels_at(form); form++)
                compare(sap_kernels_at(form), &a, 5e-6);
            free(limit);
            discard(&a);
        }
    }
}

/* Scores of some hundreds: no overflow, and weights of exactly 0 do no harm. */
static void test_large_scores(void **state) {
    (void)state;
    sap_attention a = make(&tried[5], 12);
    run(sap_kernels_at(0), &a);
    for (int64_t i = 0; i < a.queries * a.value_dim; i++)
        assert_true(isfinite(a.y[i]));
    for (size_t form = 1; sap_kernels_at(form); form++)
        compare(sap_kernels_at(form), &a, 2e-3); /* rounding of scores of 700 */
    discard(&a);
}

static void test_nan_is_kept(void **state) {
    (void)state;
    for (size_t form = 0; sap_kernels_at(form); form++) {
        sap_attention a = make(&tried[2], 0);
        ((float *)(uintptr_t)a.k)[at(a.keys, a.heads * a.key_dim, 0, 3)] = NAN;
        sap_kernels_at(form)->attention->forward(&a);
        assert_true(isnan(a.y[0]));
        assert_true(!isnan(a.y[at(a.queries, a.heads * a.value_dim, a.value_dim, 0)])); /* another head */
        discard(&a);
    }
}

/* One key with repeat 5 is what five equal keys are, and their gradients together are its own. */
static void test_repeated_keys(void **state) {
    (void)state;
    enum { REPEAT = 5 };
    for (size_t form = 0; sap_kernels_at(form); form++) {
        sizes many = {2, 6, 4, 21, 70}, few = many;
        few.keys -= REPEAT - 1;
        sap_attention a = make(&many, 0), b = make(&few, 0);
        b.repeat = REPEAT;
        int64_t widths[] = {many.heads * many.key_dim, many.heads * many.value_dim};
        for (int64_t i = 0; i < many.keys; i++) {
            int64_t from = i < few.keys ? i : few.keys - 1;
            for (int64_t f = 0; f < widths[0]; f++)
                ((float *)(uintptr_t)a.k)[at(many.keys, widths[0], f, i)] = b.k[at(few.keys, widths[0], f, from)];
            for (int64_t f = 0; f < widths[1]; f++)
                ((float *)(uintptr_t)a.v)[at(many.keys, widths[1], f, i)] = b.v[at(few.keys, widths[1], f, from)];
        }
        memcpy((void *)(uintptr_t)a.q, b.q, (size_t)(32 * widths[0]) * sizeof(float));
        memcpy((void *)(uintptr_t)a.dy, b.dy, (size_t)(32 * widths[1]) * sizeof(float));
        run(sap_kernels_at(form), &a);
        run(sap_kernels_at(form), &b);
        assert_tokens("repeated", "y", b.y, a.y, many.queries, widths[1], 2e-6);
        assert_tokens("repeated", "dq", b.dq, a.dq, many.queries, widths[0], 2e-6);
        for (int64_t f = 0; f < widths[0]; f++) {
            double all = 0, one = (double)b.dk[at(few.keys, widths[0], f, few.keys - 1)];
            for (int64_t i = few.keys - 1; i < many.keys; i++)
                all += (double)a.dk[at(many.keys, widths[0], f, i)];
            assert_true(fabs(all - one) <= 3e-6 * (1 + fabs(one)));
        }
        discard(&a);
        discard(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_is_the_formula), cmocka_unit_test(test_forms),
        cmocka_unit_test(test_large_scores),         cmocka_unit_test(test_nan_is_kept),
        cmocka_unit_test(test_repeated_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
