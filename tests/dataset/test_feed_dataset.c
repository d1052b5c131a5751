/* Feeds of stored events: ragged and dense, in memory and streamed from a scratch file. */
#include "dataset_folders.h"

#include "dataset/feed_internal.h"

#include <stdlib.h>

enum { INPUTS = 3, ENTRIES = 700, BATCH = 50 };

static const sap_dataset_input inputs[INPUTS] = {{"qcd", "one.root"}, {"ttbar", "two.root"}, {"qcd", "three.root"}};
static const uint64_t keys[INPUTS] = {11, 22, 33};
static const char *const names[2] = {"particles", "hlf"};

static bool with_parquet;
static char *folder;

static sap_dataset *make(const char *name, bool paper, sap_dataset_format format) {
    sap_feature features[2];
    case_features(paper, features);
    features[1].pad_rows = paper ? CASE_PAD : CASE_PAD - 3; /* the longest are cut */
    sap_dataset_plan plan = case_plan(inputs, INPUTS, features, SAP_LAYOUT_SAPWOOD, format);
    sap_dataset_writer *writer;
    sap_dataset *dataset;
    char *out = case_path(folder, name);
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    for (size_t i = 0; i < INPUTS; i++)
        assert_ok(case_write(writer, i, keys[i], ENTRIES, err));
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_ok(sap_dataset_open(out, &dataset, err));
    free(out);
    return dataset;
}

/* A batch's particles are the dense ones without the zero rows behind them. */
static void expect_same_particles(const sap_examples *ragged, const sap_examples *dense) {
    int64_t pad = dense->values[0] / CASE_ROW;
    assert_int_equal(ragged->values[0], CASE_ROW);
    assert_int_equal(ragged->offsets[0][0], 0);
    assert_null(dense->offsets);
    for (int64_t i = 0; i < ragged->rows; i++) {
        int64_t count = ragged->offsets[0][i + 1] - ragged->offsets[0][i];
        const float *row = dense->x[0] + i * dense->values[0];
        assert_in_range(count, 1, pad);
        assert_memory_equal(ragged->x[0] + ragged->offsets[0][i] * CASE_ROW, row,
                            (size_t)(count * CASE_ROW) * sizeof *row);
        for (int64_t k = count * CASE_ROW; k < dense->values[0]; k++)
            assert_true(fabsf(row[k]) <= 0);
    }
}

static void expect_same_rows(const sap_examples *a, const sap_examples *b) {
    assert_int_equal(a->rows, b->rows);
    assert_memory_equal(a->x[1], b->x[1], (size_t)(a->rows * a->values[1]) * sizeof(float));
    assert_memory_equal(a->label, b->label, (size_t)a->rows * sizeof *a->label);
    assert_memory_equal(a->identity, b->identity, (size_t)a->rows * sizeof *a->identity);
}

static sap_feed *open_feed(const sap_dataset *dataset, uint64_t memory, sap_pool *pool, bool dense, int64_t epoch) {
    sap_feed *feed;
    sap_feed_options options = {.inputs = names, .input_count = 2, .memory = memory, .scratch = folder};
    assert_ok(sap_feed_open_dataset(dataset, "train", &options, &(sap_run){.pool = pool}, &feed, err));
    if (dense)
        assert_ok(sap_feed_dense(feed, err));
    assert_ok(sap_feed_epoch(feed, 3, epoch, err));
    return feed;
}

/* The same rows in the same order, ragged or dense, from memory or streamed, gathered ahead or not; and skipping. */
static void every_road_gives_the_same(void **state) {
    (void)state;
    sap_pool *pool;
    assert_ok(sap_pool_open(3, &pool, err));
    for (int k = 0; k < (with_parquet ? 2 : 1); k++) {
        sap_dataset *dataset = make(k ? "roads1" : "roads0", false, k ? SAP_DATASET_PARQUET : SAP_DATASET_TFRECORD);
        for (int64_t epoch = -1; epoch < 2; epoch++) {
            sap_feed *feeds[4] = {open_feed(dataset, 0, NULL, false, epoch), open_feed(dataset, 0, pool, true, epoch),
                                  open_feed(dataset, 1, pool, false, epoch), open_feed(dataset, 1, NULL, true, epoch)};
            int64_t seen = 0, rows = sap_feed_rows(feeds[0]), cut = 0;
            for (int turn = 0;; turn++) {
                sap_examples batches[4];
                for (int f = 0; f < 4; f++)
                    assert_ok(sap_feed_next(feeds[f], BATCH, &batches[f], err));
                if (batches[0].rows == 0)
                    break;
                for (int f = 1; f < 4; f++)
                    expect_same_rows(&batches[0], &batches[f]);
                expect_same_particles(&batches[0], &batches[1]);
                expect_same_particles(&batches[0], &batches[3]);
                expect_same_particles(&batches[2], &batches[1]);
                for (int64_t i = 0; i < batches[0].rows; i++)
                    cut += batches[0].offsets[0][i + 1] - batches[0].offsets[0][i] == CASE_PAD - 3;
                seen += batches[0].rows;
                if (turn == 2)
                    for (int f = 0; f < 4; f++)
                        sap_feed_skip(feeds[f], BATCH + 3);
            }
            assert_int_equal(seen, rows - BATCH - 3);
            assert_true(cut > 10);
            for (int f = 0; f < 4; f++)
                sap_feed_close(feeds[f]);
        }
        sap_dataset_close(dataset);
    }
    sap_pool_close(pool);
}

/* Sequences whose padding is no zero rows at the end are dense on every road. */
static void padded_sequences_stay_dense(void **state) {
    (void)state;
    sap_dataset *dataset = make("padded", true, SAP_DATASET_TFRECORD);
    sap_feed *feeds[2] = {open_feed(dataset, 0, NULL, false, 4), open_feed(dataset, 1, NULL, false, 4)};
    sap_examples a, b;
    do {
        assert_ok(sap_feed_next(feeds[0], BATCH, &a, err));
        assert_ok(sap_feed_next(feeds[1], BATCH, &b, err));
        expect_same_rows(&a, &b);
        assert_null(a.offsets);
        assert_null(b.offsets);
        assert_int_equal(a.values[0], CASE_PAD * CASE_ROW);
        assert_memory_equal(a.x[0], b.x[0], (size_t)(a.rows * a.values[0]) * sizeof(float));
    } while (a.rows > 0);
    sap_feed_close(feeds[0]);
    sap_feed_close(feeds[1]);
    sap_dataset_close(dataset);
}

/* Whether row i of one is row k of the other. */
static bool same_row(const sap_examples *a, int64_t i, const sap_examples *b, int64_t k) {
    const int64_t *x = a->offsets[0] + i, *y = b->offsets[0] + k;
    return a->identity[i] == b->identity[k] && a->label[i] == b->label[k] && x[1] - x[0] == y[1] - y[0] &&
           memcmp(a->x[0] + x[0] * CASE_ROW, b->x[0] + y[0] * CASE_ROW,
                  (size_t)((x[1] - x[0]) * CASE_ROW) * sizeof(float)) == 0 &&
           memcmp(a->x[1] + i * a->values[1], b->x[1] + k * b->values[1], (size_t)a->values[1] * sizeof(float)) == 0;
}

/* Feeds of some shards hand out, batch by batch, what the feed of all does, each its own rows in the same order. */
static void shares_make_up_the_whole(void **state) {
    (void)state;
    enum { SHARES = 3 };
    static const int32_t cuts[SHARES + 1] = {0, 20, 63, SAP_DATASET_SHARDS};
    sap_pool *pool;
    assert_ok(sap_pool_open(2, &pool, err));
    sap_dataset *dataset = make("shares", false, SAP_DATASET_TFRECORD);
    for (int64_t epoch = SAP_EPOCH_STORED; epoch < 2; epoch++) {
        if (epoch == SAP_EPOCH_OWN)
            continue;
        sap_feed *whole = open_feed(dataset, 0, NULL, false, epoch), *shares[SHARES];
        int64_t held = 0;
        for (int s = 0; s < SHARES; s++) {
            sap_feed_options options = {.inputs = names,
                                        .input_count = 2,
                                        .memory = (uint64_t)(s == 1),
                                        .scratch = folder,
                                        .shard_from = cuts[s],
                                        .shard_to = cuts[s + 1]};
            assert_ok(sap_feed_open_dataset(dataset, "train", &options, &(sap_run){.pool = pool}, &shares[s], err));
            assert_int_equal(sap_feed_rows(shares[s]), sap_feed_rows(whole));
            held += sap_feed_own_rows(shares[s]);
            assert_ok(sap_feed_epoch(shares[s], 3, epoch, err));
        }
        assert_int_equal(held, sap_feed_own_rows(whole));
        for (int turn = 0;; turn++) {
            sap_examples all, part[SHARES];
            uint8_t shards[BATCH], of_part[BATCH];
            int64_t next[SHARES] = {0};
            assert_ok(sap_feed_next(whole, BATCH, &all, err));
            assert_int_equal(all.batch_rows, all.rows);
            sap_feed_last_shards(whole, shards);
            for (int s = 0; s < SHARES; s++) {
                assert_ok(sap_feed_next(shares[s], BATCH, &part[s], err));
                assert_int_equal(part[s].batch_rows, all.rows);
            }
            for (int64_t i = 0; i < all.rows; i++) {
                int s = shards[i] < cuts[1] ? 0 : shards[i] < cuts[2] ? 1 : 2;
                sap_feed_last_shards(shares[s], of_part);
                assert_true(next[s] < part[s].rows && same_row(&all, i, &part[s], next[s]));
                assert_int_equal(of_part[next[s]++], shards[i]);
            }
            for (int s = 0; s < SHARES; s++)
                assert_int_equal(next[s], part[s].rows);
            if (all.rows == 0)
                break;
            if (turn == 1)
                for (int s = 0; s <= SHARES; s++)
                    sap_feed_skip(s < SHARES ? shares[s] : whole, 2 * BATCH);
        }
        for (int s = 0; s < SHARES; s++)
            sap_feed_close(shares[s]);
        sap_feed_close(whole);
    }
    sap_dataset_close(dataset);
    sap_pool_close(pool);
}

static void limits_and_places(void **state) {
    (void)state;
    sap_dataset *dataset = make("limits", false, SAP_DATASET_TFRECORD);
    sap_feed *feed;
    sap_feed_options options = {.inputs = names, .input_count = 2, .memory = 1, .scratch = "/nowhere/at/all"};
    assert_error(SAP_EIO, "/nowhere/at/all: No such file or directory: no scratch file",
                 sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    options.memory = UINT64_MAX; /* nothing to be kept there */
    assert_ok(sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    assert_int_equal(feed->scratch, -1);
    sap_feed_close(feed);
    options = (sap_feed_options){.inputs = names, .input_count = 2};
    const char *const sizes[] = {"1", "1k", "2G", "0x", "-1", "1GB", "99999999999T"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        (void)setenv("SAPWOOD_FEED_MEMORY", sizes[i], 1);
        if (i > 2) {
            assert_error(SAP_EARGUMENT, sizes[i], sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
            continue;
        }
        assert_ok(sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
        assert_int_equal(feed->scratch >= 0, i < 2);
        sap_feed_close(feed);
    }
    (void)unsetenv("SAPWOOD_FEED_MEMORY");
    sap_dataset_close(dataset);
}

/* A feature of one number weighs events, as it was computed. */
static void weights(void **state) {
    (void)state;
    sap_feature features[2];
    case_features(false, features);
    features[0] = (sap_feature){.name = "hlf", .value_names = case_names, .width = 1, .scaling = SAP_SCALING_MINMAX};
    sap_dataset_plan plan = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer;
    sap_dataset *dataset;
    sap_feed *feed;
    sap_examples all;
    char *out = case_path(folder, "weights");
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    for (size_t i = 0; i < 2; i++) {
        sap_batch batch;
        int64_t dropped[2] = {ENTRIES / 2, 0};
        case_batch(keys[i], 0, ENTRIES, &batch);
        float *hlf = (float *)(uintptr_t)batch.columns[0].children[0].values;
        for (int64_t r = 0; r < batch.length; r++)
            hlf[r] = (float)(2 + ((const int64_t *)batch.columns[2].values)[r]);
        batch.columns[0].size = 1;
        assert_ok(sap_dataset_write(writer, i, &batch, err));
        assert_ok(sap_dataset_end_input(writer, i, ENTRIES, dropped, err));
        sap_batch_release(&batch);
    }
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_ok(sap_dataset_open(out, &dataset, err));
    sap_feed_options options = {.inputs = names, .input_count = 1, .weight = "hlf"};
    assert_ok(sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    assert_ok(sap_feed_epoch(feed, 1, 1, err));
    assert_ok(sap_feed_next(feed, INT64_MAX, &all, err));
    for (int64_t i = 0; i < all.rows; i++) {
        int64_t entry = (int64_t)all.weight[i] - 2;
        assert_true(all.identity[i] == sap_identity(inputs[all.label[i]].sample, inputs[all.label[i]].url, entry));
    }
    sap_feed_close(feed);
    options.weight = "particles";
    assert_error(SAP_ETYPE, "\"particles\" cannot weigh events",
                 sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    options.weight = "hl";
    assert_error(SAP_ENOTFOUND, "nearest: hlf", sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    sap_dataset_close(dataset);
    free(out);
}

/* A part file that cannot be read is named; as many parts as one likes need no more open files than threads. */
static void unreadable_parts(void **state) {
    (void)state;
    sap_dataset *dataset = make("gone", false, SAP_DATASET_TFRECORD);
    sap_feed *feed;
    sap_feed_options options = {.inputs = names, .input_count = 2, .memory = 1, .scratch = folder};
    char *path = case_path(folder, "gone/train/part-00007.tfrecord");
    assert_int_equal(unlink(path), 0);
    assert_error(SAP_ENOTFOUND, "gone/train/part-00007.tfrecord",
                 sap_feed_open_dataset(dataset, "train", &options, NULL, &feed, err));
    free(path);
    sap_dataset_close(dataset);
}

static int set_up(void **state) {
    (void)state;
    folder = case_folder();
    with_parquet = case_has_parquet();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    case_remove(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_road_gives_the_same),
                                       cmocka_unit_test(shares_make_up_the_whole),
                                       cmocka_unit_test(padded_sequences_stay_dense),
                                       cmocka_unit_test(limits_and_places),
                                       cmocka_unit_test(weights),
                                       cmocka_unit_test(unreadable_parts)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
