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
    sap_examples examples = {.rows = ROWS,
                             .inputs = 2,
                             .x = (const float *const[]){x, y},
                             .values = values,
                             .label = label,
                             .identity = identity};
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&examples, NULL, &feed, err));
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
    sap_examples examples = {.rows = ROWS, .inputs = 1, .x = (const float *const[]){x}, .values = &values};
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&examples, NULL, &feed, err));
    uint64_t orders[4][ROWS];
    const uint64_t seeds[4] = {1, 1, 2, 1};
    const int64_t epochs[4] = {0, 1, 0, -1};
    for (int k = 0; k < 4; k++) {
        sap_examples batch;
        assert_ok(sap_feed_epoch(feed, seeds[k], epochs[k], err));
        assert_ok(sap_feed_next(feed, ROWS, &batch, err));
        memcpy(orders[k], batch.identity, sizeof orders[k]);
        assert_null(batch.label);
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
    sap_examples none = {.inputs = 1, .x = (const float *const[]){NULL}, .values = &values}, batch;
    sap_feed *feed;
    assert_ok(sap_feed_open_arrays(&none, NULL, &feed, err));
    assert_ok(sap_feed_epoch(feed, 1, 1, err));
    assert_ok(sap_feed_next(feed, 10, &batch, err));
    assert_int_equal(batch.rows, 0);
    sap_feed_close(feed);
    none.inputs = 0;
    assert_error(SAP_EARGUMENT, "0 inputs", sap_feed_open_arrays(&none, NULL, &feed, err));
}

/* Rows of 0 to 6 steps of two numbers, a plain input, two targets and weights; all of them tell their row. */
typedef struct ragged_rows {
    float steps[ROWS * 6 * 2], plain[ROWS * 3], class_of[ROWS], value[ROWS * 2], weight[ROWS];
    int64_t offsets[ROWS + 1];
} ragged_rows;

static void fill_ragged(ragged_rows *r) {
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t count = (int64_t)(sap_mix(5, (uint64_t)i) % 7);
        r->offsets[i + 1] = r->offsets[i] + count;
        for (int64_t k = 0; k < 2 * count; k++)
            r->steps[2 * r->offsets[i] + k] = (float)(100 * i + k);
        for (int64_t k = 0; k < 3; k++)
            r->plain[3 * i + k] = (float)(10 * i + k);
        r->class_of[i] = (float)(i % 4);
        r->value[2 * i] = (float)i;
        r->value[2 * i + 1] = -(float)i;
        r->weight[i] = 0.5F * (float)i;
    }
}

static void expect_ragged(const ragged_rows *r, const sap_examples *batch, int64_t *rows_of) {
    assert_int_equal(batch->inputs, 2);
    assert_int_equal(batch->targets, 2);
    assert_null(batch->label);
    assert_null(batch->offsets[1]);
    assert_int_equal(batch->values[0], 2);
    assert_int_equal(batch->offsets[0][0], 0);
    for (int64_t i = 0; i < batch->rows; i++) {
        int64_t row = (int64_t)batch->identity[i], count = r->offsets[row + 1] - r->offsets[row];
        assert_int_equal(batch->offsets[0][i + 1] - batch->offsets[0][i], count);
        assert_memory_equal(batch->x[0] + 2 * batch->offsets[0][i], r->steps + 2 * r->offsets[row],
                            2 * (size_t)count * sizeof(float));
        assert_memory_equal(batch->x[1] + 3 * i, r->plain + 3 * row, 3 * sizeof(float));
        assert_memory_equal(batch->y[0] + i, r->class_of + row, sizeof(float));
        assert_memory_equal(batch->y[1] + 2 * i, r->value + 2 * row, 2 * sizeof(float));
        assert_memory_equal(batch->weight + i, r->weight + row, sizeof(float));
        rows_of[i] = row;
    }
}

/* Ragged inputs, targets and weights, gathered ahead or not; batches of any size, in turns; rows left out. */
static void ragged_arrays(void **state) {
    (void)state;
    ragged_rows *r = calloc(1, sizeof *r);
    fill_ragged(r);
    sap_pool *pool;
    assert_ok(sap_pool_open(3, &pool, err));
    const sap_examples examples = {.rows = ROWS,
                                   .inputs = 2,
                                   .x = (const float *const[]){r->steps, r->plain},
                                   .values = (const int64_t[]){2, 3},
                                   .offsets = (const int64_t *const[]){r->offsets, NULL},
                                   .targets = 2,
                                   .y = (const float *const[]){r->class_of, r->value},
                                   .target_values = (const int64_t[]){1, 2},
                                   .weight = r->weight};
    for (int k = 0; k < 4; k++) {
        sap_feed *feed;
        assert_ok(sap_feed_open_arrays(&examples, &(sap_run){.pool = k % 2 ? pool : NULL}, &feed, err));
        assert_ok(sap_feed_epoch(feed, 8, k / 2 ? -1 : 1, err));
        int64_t order[ROWS], at = 0, got[ROWS];
        for (int64_t i = 0; i < ROWS; i++)
            order[i] = sap_feed_order(feed) ? sap_feed_order(feed)[i] : i;
        assert_int_equal(sap_feed_order(feed) == NULL, k / 2);
        for (int turn = 0;; turn++) {
            sap_examples batch;
            assert_ok(sap_feed_next(feed, turn < 7 ? 32 : turn < 9 ? 50 : turn < 12 ? 7 : 16, &batch, err));
            if (batch.rows == 0)
                break;
            expect_ragged(r, &batch, got);
            assert_memory_equal(got, order + at, (size_t)batch.rows * sizeof *got);
            at += batch.rows;
            if (turn == 3 || turn == 15) {
                sap_feed_skip(feed, 33 + turn);
                at += 33 + turn;
            }
        }
        assert_int_equal(at, ROWS);
        sap_feed_skip(feed, 5);
        assert_error(SAP_EARGUMENT, "input 0 is ragged and has no dense form", sap_feed_dense(feed, err));
        sap_feed_close(feed);
    }
    sap_feed *feed;
    r->offsets[10] = r->offsets[11] + 1;
    assert_error(SAP_EARGUMENT, "offsets of input 0", sap_feed_open_arrays(&examples, NULL, &feed, err));
    sap_pool_close(pool);
    free(r);
}

/* A cancelled feed says so, and goes on where it was. */
static void cancelled(void **state) {
    (void)state;
    float *x = calloc(ROWS * 5, sizeof *x);
    volatile int cancel = 0;
    sap_pool *pool;
    sap_feed *feed;
    sap_examples batch;
    int64_t values = 5, seen = 0;
    for (int64_t i = 0; i < ROWS * 5; i++)
        x[i] = (float)i;
    assert_ok(sap_pool_open(2, &pool, err));
    assert_ok(sap_feed_open_arrays(
        &(sap_examples){.rows = ROWS, .inputs = 1, .x = (const float *const[]){x}, .values = &values},
        &(sap_run){.pool = pool, .cancel = &cancel}, &feed, err));
    assert_ok(sap_feed_epoch(feed, 1, 1, err));
    cancel = 1;
    assert_error(SAP_ECANCELLED, "interrupted", sap_feed_next(feed, 300, &batch, err));
    cancel = 0;
    do {
        assert_ok(sap_feed_next(feed, 300, &batch, err));
        for (int64_t i = 0; i < batch.rows; i++)
            assert_memory_equal(batch.x[0] + 5 * i, x + 5 * sap_feed_order(feed)[seen + i], 5 * sizeof *x);
        seen += batch.rows;
    } while (batch.rows > 0);
    assert_int_equal(seen, ROWS);
    sap_feed_close(feed);
    sap_pool_close(pool);
    free(x);
}

/* Blocks of a shard come one after another, each whole, all rows once; the order hangs on nothing but the key. */
static void blocks_stay_together(void **state) {
    (void)state;
    enum { SHARDS = 3, BLOCK = 64 };
    sap_feed *feed;
    assert_ok(sap_feed_init(ROWS, 1, 0, SHARDS, NULL, &feed, err));
    const int64_t begin[SHARDS + 1] = {0, 10, 500, ROWS};
    memcpy(feed->shard_begin, begin, sizeof begin);
    feed->block_rows = BLOCK;
    feed->order = malloc(ROWS * sizeof *feed->order);
    int64_t blocks_moved = 0;
    for (uint64_t key = 1; key < 4; key++) {
        assert_ok(sap_feed_shuffle(feed, key, err));
        bool seen[ROWS] = {0};
        int64_t block[SHARDS] = {-1, -1, -1}, left[SHARDS] = {0}, last = -1;
        for (int64_t i = 0; i < ROWS; i++) {
            int64_t row = feed->order[i], shard = row < begin[1] ? 0 : row < begin[2] ? 1 : 2;
            assert_false(seen[row]);
            seen[row] = true;
            int64_t b = (row - begin[shard]) / BLOCK, size = begin[shard + 1] - begin[shard] - b * BLOCK;
            if (left[shard] == 0) {
                if (shard == 2)
                    blocks_moved += b != last + 1;
                last = shard == 2 ? b : last;
                block[shard] = b;
                left[shard] = size < BLOCK ? size : BLOCK;
            }
            assert_int_equal(b, block[shard]);
            left[shard]--;
        }
    }
    assert_true(blocks_moved > 10);
    sap_feed_close(feed);
}

/* A feed of some rows hands out those, once each, in every order; a ragged input with pad_rows in its dense form. */
static void chosen_rows(void **state) {
    (void)state;
    enum { EVENTS = 60, WIDTH = 2, PAD = 5 };
    float steps[EVENTS * PAD * WIDTH];
    int64_t offsets[EVENTS + 1] = {0}, chosen[EVENTS / 3], values[1] = {WIDTH}, pad_rows[1] = {PAD};
    uint64_t identity[EVENTS];
    for (int64_t i = 0; i < EVENTS; i++) {
        offsets[i + 1] = offsets[i] + i % (PAD + 1);
        for (int64_t k = offsets[i] * WIDTH; k < offsets[i + 1] * WIDTH; k++)
            steps[k] = (float)(100 * i + k - offsets[i] * WIDTH + 1);
        identity[i] = (uint64_t)i;
        chosen[i / 3] = i - i % 3 + 1; /* every third, from 1 */
    }
    sap_examples examples = {.rows = EVENTS,
                             .inputs = 1,
                             .x = (const float *const[]){steps},
                             .values = values,
                             .offsets = (const int64_t *const[]){offsets},
                             .pad_rows = pad_rows,
                             .identity = identity};
    sap_feed *feed;
    assert_ok(sap_feed_open_rows(&examples, chosen, EVENTS / 3, NULL, &feed, err));
    assert_int_equal(sap_feed_rows(feed), EVENTS / 3);
    for (int round = 0; round < 4; round++) { /* in order and shuffled, ragged and dense */
        bool shuffled = round % 2, dense = round >= 2, seen[EVENTS] = {0};
        if (round == 2)
            assert_ok(sap_feed_dense(feed, err));
        assert_ok(sap_feed_epoch(feed, 5, shuffled ? 0 : SAP_EPOCH_OWN, err));
        int64_t at = 0, moved = 0;
        sap_examples batch;
        for (;; at += batch.rows) {
            assert_ok(sap_feed_next(feed, 7, &batch, err));
            if (batch.rows == 0)
                break;
            for (int64_t i = 0; i < batch.rows; i++) {
                int64_t row = (int64_t)batch.identity[i], count = offsets[row + 1] - offsets[row];
                assert_int_equal(row % 3, 1);
                assert_false(seen[row]);
                seen[row] = true;
                moved += row != chosen[at + i];
                assert_int_equal(
                    row, chosen[shuffled ? sap_feed_order(feed)[at + i] : at + i]); /* numbers of its own rows */
                const float *x = dense ? batch.x[0] + i * PAD * WIDTH : batch.x[0] + batch.offsets[0][i] * WIDTH;
                assert_memory_equal(x, steps + offsets[row] * WIDTH, (size_t)(count * WIDTH) * sizeof *x);
                for (int64_t k = count * WIDTH; dense && k < PAD * WIDTH; k++)
                    assert_true(x[k] == 0);
            }
        }
        assert_int_equal(at, EVENTS / 3);
        assert_int_equal(moved > 0, shuffled);
    }
    sap_feed_close(feed);
    chosen[3] = EVENTS;
    assert_error(SAP_EARGUMENT, "not among", sap_feed_open_rows(&examples, chosen, EVENTS / 3, NULL, &feed, err));
    pad_rows[0] = PAD - 1;
    assert_error(SAP_EARGUMENT, "row 5 of input 0 has 5 steps, more than 4",
                 sap_feed_open_arrays(&examples, NULL, &feed, err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_once),         cmocka_unit_test(orders_differ_by_seed_and_epoch),
        cmocka_unit_test(permutations_are_fair), cmocka_unit_test(empty_feeds),
        cmocka_unit_test(ragged_arrays),         cmocka_unit_test(cancelled),
        cmocka_unit_test(blocks_stay_together),  cmocka_unit_test(chosen_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
