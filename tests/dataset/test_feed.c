/* Feeds over arrays and over features just computed. */
#include "dataset_cases.h"

#include "dataset/feed_internal.h"

enum { ROWS = 1000 };

static void fill(float *x, int64_t values, int32_t *label, uint64_t *identity) {
    for (int64_t i = 0; i < ROWS; i++) {
        for (int64_t j = 0; j < values; j++)
            x[i * values + j] = (float)(i * values + j);
        label[i] = (int32_t)(i % 3);
        identity[i] = (uint64_t)i * 17;
    }
}

/* Every row comes once, whole, with its own label and identity, whatever the batch size. */
static void each_row_once(void **state) {
    (void)state;
    float *x = calloc(ROWS * 5, sizeof *x), *y = calloc(ROWS * 2, sizeof *y);
    int32_t label[ROWS];
    uint64_t identity[ROWS];
    fill(x, 5, label, identity);
    fill(y, 2, label, identity);
    const int64_t values[2] = {5, 2};
    sap_examples examples = {ROWS, 2, (const float *const[]){x, y}, values, label, identity};
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&examples, &feed, err));
    assert_int_equal(sap_feed_rows(feed), ROWS);
    int64_t sizes[3] = {1, 128, 5000};
    int64_t first_order[ROWS];
    for (int round = 0; round < 3; round++) {
        bool seen[ROWS] = {0};
        int64_t at = 0, moved = 0;
        assert_ok(sap_feed_epoch(feed, 3, 4, err));
        for (;;) {
            sap_examples batch;
            assert_ok(sap_feed_next(feed, sizes[round], &batch, err));
            if (batch.rows == 0)
                break;
            for (int64_t i = 0; i < batch.rows; i++, at++) {
                int64_t row = (int64_t)batch.identity[i] / 17;
                assert_in_range(row, 0, ROWS - 1);
                assert_false(seen[row]);
                seen[row] = true;
                moved += row != at;
                assert_int_equal(batch.label[i], label[row]);
                assert_memory_equal(batch.x[0] + i * 5, x + row * 5, 5 * sizeof *x);
                assert_memory_equal(batch.x[1] + i * 2, y + row * 2, 2 * sizeof *y);
                if (round == 0)
                    first_order[at] = row;
                assert_int_equal(first_order[at], row);
            }
        }
        assert_int_equal(at, ROWS);
        assert_true(moved > ROWS * 9 / 10);
    }
    sap_feed_close(feed);
    free(x);
    free(y);
}

static void orders_differ_by_seed_and_epoch(void **state) {
    (void)state;
    float x[ROWS];
    for (int i = 0; i < ROWS; i++)
        x[i] = (float)i;
    const int64_t values = 1;
    sap_examples examples = {ROWS, 1, (const float *const[]){x}, &values, NULL, NULL};
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&examples, &feed, err));
    uint64_t orders[4][ROWS];
    const uint64_t seeds[4] = {1, 1, 2, 1};
    const int64_t epochs[4] = {0, 1, 0, -1};
    for (int k = 0; k < 4; k++) {
        sap_examples batch;
        assert_ok(sap_feed_epoch(feed, seeds[k], epochs[k], err));
        assert_ok(sap_feed_next(feed, ROWS, &batch, err));
        memcpy(orders[k], batch.identity, sizeof orders[k]);
        assert_int_equal(batch.label[0], -1);
    }
    for (uint64_t i = 0; i < ROWS; i++)
        assert_int_equal(orders[3][i], i);
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < a; b++)
            assert_memory_not_equal(orders[a], orders[b], sizeof orders[a]);
    assert_error(SAP_EARGUMENT, "0 rows", sap_feed_next(feed, 0, &examples, err));
    sap_feed_close(feed);
}

/* All permutations of four rows are about equally likely. */
static void permutations_are_fair(void **state) {
    (void)state;
    int counts[256] = {0}, kinds = 0;
    for (uint64_t key = 0; key < 24000; key++) {
        int64_t order[4];
        sap_permutation(order, 4, key * 1000003);
        counts[order[0] << 6 | order[1] << 4 | order[2] << 2 | order[3]]++;
    }
    for (int i = 0; i < 256; i++) {
        kinds += counts[i] > 0;
        if (counts[i])
            assert_in_range(counts[i], 850, 1150); /* 1000 +- 5 sigma */
    }
    assert_int_equal(kinds, 24);
}

static void empty_feeds(void **state) {
    (void)state;
    const int64_t values = 1;
    sap_examples none = {0, 1, (const float *const[]){NULL}, &values, NULL, NULL}, batch;
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&none, &feed, err));
    assert_ok(sap_feed_epoch(feed, 1, 1, err));
    assert_ok(sap_feed_next(feed, 10, &batch, err));
    assert_int_equal(batch.rows, 0);
    sap_feed_close(feed);
    none.inputs = 0;
    assert_error(SAP_EARGUMENT, "0 inputs", sap_feed_open_arrays(&none, &feed, err));
}

static void memory_is_checked(void **state) {
    (void)state;
    assert_ok(sap_feed_memory("d", "train", 1000, UINT64_MAX, err));
    assert_ok(sap_feed_memory("d", "train", 1000, 2000, err));
    assert_error(SAP_EMEMORY, "d: the part \"train\" takes about 9.0 GB in memory, and 4.0 GB are free",
                 sap_feed_memory("d", "train", UINT64_C(9000000000), UINT64_C(4000000000), err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_once), cmocka_unit_test(orders_differ_by_seed_and_epoch),
        cmocka_unit_test(permutations_are_fair), cmocka_unit_test(empty_feeds), cmocka_unit_test(memory_is_checked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
