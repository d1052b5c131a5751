/* The order of sequences and their dense form, by hand-made cases. */
#include "dataset_cases.h"

static sap_feature paper_feature(void) {
    sap_feature features[2];
    case_features(true, features);
    return features[1];
}

/* Rows of (id, eta, phi, 0). */
static void set(float *row, float id, float eta, float phi) {
    row[0] = id;
    row[1] = eta;
    row[2] = phi;
    row[3] = 0;
}

static void expect_ids(const float *rows, int64_t count, const float *ids) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i * CASE_ROW] != ids[i])
            fail_msg("row %d is %g, expected %g", (int)i, (double)rows[i * CASE_ROW], (double)ids[i]);
}

static void order_folds_phi_and_is_stable(void **state) {
    (void)state;
    sap_feature feature = paper_feature();
    float rows[6 * CASE_ROW];
    set(rows, 1, 0, 3.1f);       /* the lepton */
    set(rows + 4, 2, 0, -3.1f);  /* 0.083 away across the cut */
    set(rows + 8, 3, 1, 3.1f);   /* 1 away */
    set(rows + 12, 4, -1, 3.1f); /* 1 away too, after it in the file */
    set(rows + 16, 5, 0, 0);     /* 3.1 away */
    set(rows + 20, 6, 0, 3.1f);  /* in the lepton's very place: stays behind it */
    sap_sort_space space = {0};
    assert_true(sap_sequence_sort(&feature, rows, 6, &space));
    expect_ids(rows, 6, (const float[]){5, 3, 4, 2, 1, 6});
    free(space.data);
    feature.order = SAP_ORDER_NONE;
    float pair[2 * CASE_ROW];
    set(pair, 1, 0, 0);
    set(pair + 4, 2, 3, 0);
    assert_true(sap_sequence_sort(&feature, pair, 2, &space));
    expect_ids(pair, 2, (const float[]){1, 2});
}

/* Many rows against a plain insertion sort. */
static void order_of_many(void **state) {
    (void)state;
    enum { N = 401 };
    sap_feature feature = paper_feature();
    static float rows[N * CASE_ROW];
    double distance[N];
    float ids[N];
    for (int i = 0; i < N; i++) { /* few different places, so that there are ties */
        set(rows + i * CASE_ROW, (float)i, roundf(3 * case_number(1, i, 0)), roundf(3 * case_number(1, i, 1)));
        double deta = (double)(rows[i * CASE_ROW + 1] - rows[1]),
               dphi = fabs((double)(rows[i * CASE_ROW + 2] - rows[2]));
        dphi = dphi > M_PI ? 2 * M_PI - dphi : dphi;
        distance[i] = sqrt(deta * deta + dphi * dphi);
    }
    for (int i = 0; i < N; i++) {
        double d = distance[i];
        float id = (float)i;
        int at = i;
        for (; at > 0 && distance[at - 1] < d; at--) {
            distance[at] = distance[at - 1];
            ids[at] = ids[at - 1];
        }
        distance[at] = d;
        ids[at] = id;
    }
    sap_sort_space space = {0};
    assert_true(sap_sequence_sort(&feature, rows, N, &space));
    expect_ids(rows, N, ids);
    free(space.data);
}

static void padding_takes_its_place(void **state) {
    (void)state;
    sap_feature feature = paper_feature();
    feature.scaling = SAP_SCALING_NONE;
    feature.pad_rows = 6;
    float rows[4 * CASE_ROW], dense[6 * CASE_ROW];
    set(rows, 1, 2, 0);     /* sqrt(2) from the lepton; a zero row is 1 away */
    set(rows + 4, 2, 0, 0); /* 1 away like the zero rows: stays before them */
    set(rows + 8, 3, 1, .5f);
    set(rows + 12, 4, 1, 0); /* the lepton */
    rows[1] = 2.5f;
    sap_dense(&feature, NULL, rows, 4, dense);
    expect_ids(dense, 6, (const float[]){1, 2, 0, 0, 3, 4});
    feature.pad_before_order = false;
    sap_dense(&feature, NULL, rows, 4, dense);
    expect_ids(dense, 6, (const float[]){1, 2, 3, 4, 0, 0});
    feature.pad_rows = 2;
    sap_dense(&feature, NULL, rows, 4, dense);
    expect_ids(dense, 2, (const float[]){1, 2});
    sap_dense(&feature, NULL, NULL, 0, dense);
    expect_ids(dense, 2, (const float[]){0, 0});
}

static void scaling_of_rows(void **state) {
    (void)state;
    sap_feature feature = paper_feature();
    feature.pad_rows = 4;
    feature.pad_before_order = false;
    float rows[2 * CASE_ROW] = {8, 1, 2, 7, 4, 3, 2, 7}, dense[4 * CASE_ROW];
    sap_dense(&feature, NULL, rows, 2,
              dense); /* by itself, over four rows: mean 3, deviation sqrt(11) for the first value */
    assert_near(dense[0], 5 / sqrt(11), 1e-6);
    assert_near(dense[4], 1 / sqrt(11), 1e-6);
    assert_near(dense[8], -3 / sqrt(11), 1e-6);
    assert_near(dense[12], -3 / sqrt(11), 1e-6);
    float equal[4 * CASE_ROW];
    for (int i = 0; i < 4; i++)
        set(equal + i * CASE_ROW, 0.1f, 1, 1);
    sap_dense(&feature, NULL, equal, 4, dense); /* deviation 0 counts as 1, rounding or not */
    for (int i = 0; i < 4 * CASE_ROW; i++)
        assert_near(dense[i], 0, 1e-6);

    double shift[CASE_ROW] = {1, 1, 1, 1}, factor[CASE_ROW] = {2, 2, 2, .5};
    sap_constants constants = {CASE_ROW, shift, factor};
    feature.scaling = SAP_SCALING_STANDARD;
    sap_dense(&feature, &constants, rows, 2, dense);
    const float expected[4 * CASE_ROW] = {14, 0, 2, 3, 6, 4, 2, 3};
    assert_memory_equal(dense, expected, sizeof expected); /* padding stays zero */
}

static void constants_of_columns(void **state) {
    (void)state;
    enum { W = 3 };
    sap_arena arena = {0};
    sap_moments a, b, all;
    double shift[W], factor[W];
    sap_constants constants = {W, shift, factor};
    assert_ok(sap_moments_init(&a, W, &arena, err));
    assert_ok(sap_moments_init(&b, W, &arena, err));
    assert_ok(sap_moments_init(&all, W, &arena, err));
    /* a value far from zero, an ordinary one, a constant one */
    const float rows[4 * W] = {1e6f, 1, 3e30f, 1e6f + 1, 2, 3e30f, 1e6f + 2, -3, 3e30f, 1e6f + 3, 5, 3e30f};
    sap_moments_fill(&a, W, (const float *const[]){rows}, (const int64_t[]){3}, 1);
    sap_moments_fill(&b, W, (const float *const[]){rows + 9}, (const int64_t[]){1}, 1);
    sap_moments_fill(&all, W, (const float *const[]){rows, rows + 3}, (const int64_t[]){1, 3}, 2);
    sap_moments_merge(&a, &b, W);
    assert_int_equal(a.rows, 4);
    for (int j = 0; j < 2; j++) {
        assert_near(a.mean[j], all.mean[j], 1e-9);
        assert_near(a.m2[j], all.m2[j], 1e-9);
    }
    sap_constants_fit(SAP_SCALING_STANDARD, &all, &constants);
    assert_near(shift[0], 1e6 + 1.5, 1e-9);
    assert_near(factor[0], 1 / sqrt(1.25), 1e-9);
    assert_near(shift[1], 1.25, 1e-12);
    assert_near(((double)rows[2] - shift[2]) * factor[2], 0, 1e-12);
    sap_constants_fit(SAP_SCALING_MINMAX, &all, &constants);
    assert_near((-3 - shift[1]) * factor[1], 0, 1e-12);
    assert_near((5 - shift[1]) * factor[1], 1, 1e-12);
    assert_near(((double)rows[2] - shift[2]) * factor[2], 0.5, 1e-12);
    sap_arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(order_folds_phi_and_is_stable), cmocka_unit_test(order_of_many),
                                       cmocka_unit_test(padding_takes_its_place), cmocka_unit_test(scaling_of_rows),
                                       cmocka_unit_test(constants_of_columns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
