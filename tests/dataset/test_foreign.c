/* Files without dataset.json: what the layout "published" writes, read by its columns, feeds as the dataset itself does. */
#include "dataset_folders.h"

#include "dataset/feed_internal.h"
#include <sys/stat.h>

enum { INPUTS = 2, ENTRIES = 900, BATCH = 64 };

static const sap_dataset_input inputs[INPUTS] = {{"qcd", "one.root"}, {"ttbar", "two.root"}};
static const uint64_t keys[INPUTS] = {11, 22};
static const char *const names[2] = {"particles", "hlf"};
static const sap_feed_options both = {.inputs = names, .input_count = 2};
static const sap_files_input wanted[2] = {{.name = "particles", .rows = CASE_PAD, .width = CASE_ROW},
                                          {.name = "hlf", .width = CASE_WIDTH}};
static const sap_files_options standard = {.inputs = wanted, .input_count = 2};

static bool with_parquet;
static char *folder;

static char *make(const char *name, sap_dataset_layout layout, sap_dataset_format format) {
    sap_feature features[2];
    case_features(false, features);
    sap_dataset_plan plan = case_plan(inputs, INPUTS, features, layout, format);
    sap_dataset_writer *writer;
    char *out = case_path(folder, name);
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    for (size_t i = 0; i < INPUTS; i++)
        assert_ok(case_write(writer, i, keys[i], ENTRIES, err));
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    return out;
}

static void expect_same(sap_feed *a, sap_feed *b, int64_t epoch) {
    sap_examples x, y;
    assert_int_equal(sap_feed_rows(a), sap_feed_rows(b));
    assert_ok(sap_feed_epoch(a, 5, epoch, err));
    assert_ok(sap_feed_epoch(b, 5, epoch, err));
    do {
        assert_ok(sap_feed_next(a, BATCH, &x, err));
        assert_ok(sap_feed_next(b, BATCH, &y, err));
        assert_int_equal(x.rows, y.rows);
        if (x.rows == 0)
            break;
        assert_memory_equal(x.label, y.label, (size_t)x.rows * sizeof *x.label);
        assert_memory_equal(x.x[1], y.x[1], (size_t)x.rows * CASE_WIDTH * sizeof(float));
        assert_memory_equal(x.offsets[0], y.offsets[0], (size_t)(x.rows + 1) * sizeof(int64_t));
        assert_memory_equal(x.x[0], y.x[0], (size_t)x.offsets[0][x.rows] * CASE_ROW * sizeof(float));
    } while (x.rows > 0);
}

/* Published files, found by size, give the rows of the dataset that they were made beside, in its order, in both parts. */
static void published_files_feed_the_same(void **state) {
    (void)state;
    for (int k = 0; k < (with_parquet ? 2 : 1); k++) {
        sap_dataset_format format = k ? SAP_DATASET_PARQUET : SAP_DATASET_TFRECORD;
        char *own = make(k ? "own1" : "own0", SAP_LAYOUT_SAPWOOD, format),
             *published = make(k ? "published1" : "published0", SAP_LAYOUT_PUBLISHED, format),
             *json = case_path(published, SAP_DATASET_JSON);
        sap_dataset *a, *b;
        sap_feed *feeds[2], *narrow;
        assert_ok(sap_dataset_open(own, &a, err));
        for (int with_json = 1; with_json >= 0; with_json--) {
            if (!with_json)
                assert_int_equal(unlink(json), 0);
            assert_ok(sap_dataset_open_files(published, &standard, &b, err));
            assert_int_equal(sap_dataset_label_count(b), 2);
            assert_string_equal(sap_dataset_label(b, 1), with_json ? "ttbar" : "1");
            assert_int_equal(sap_dataset_rows(b, "all"), -1);
            for (int split = 0; split < 2; split++) {
                const char *name = split ? "test" : "train";
                assert_ok(sap_feed_open_dataset(a, name, &both, NULL, &feeds[0], err));
                assert_ok(sap_feed_open_dataset(b, name, &both, NULL, &feeds[1], err));
                for (int64_t epoch = -1; epoch < 2; epoch++)
                    expect_same(feeds[0], feeds[1], epoch);
                sap_feed_close(feeds[0]);
                sap_feed_close(feeds[1]);
            }
            sap_dataset_close(b);
        }
        /* the HLF table alone is enough for the plain input */
        sap_files_options plain = {.inputs = wanted + 1, .input_count = 1};
        assert_ok(sap_dataset_open_files(published, &plain, &b, err));
        assert_non_null(strstr(sap_dataset_json(b), "trainUndersampled_HLF_features"));
        assert_null(strstr(sap_dataset_json(b), "Inclusive"));
        assert_ok(sap_feed_open_dataset(b, "test", &(sap_feed_options){.inputs = names + 1, .input_count = 1}, NULL,
                                        &narrow, err));
        assert_int_equal(sap_feed_rows(narrow), sap_dataset_rows(a, "test"));
        sap_feed_close(narrow);
        sap_dataset_close(b);
        sap_dataset_close(a);
        free(own);
        free(published);
        free(json);
    }
}

/* A folder of part files and a pattern are the part "all"; another one is the part "test". */
static void folders_and_patterns(void **state) {
    (void)state;
    char *published = make("patterns", SAP_LAYOUT_PUBLISHED, SAP_DATASET_TFRECORD), *paths[3], *test;
    paths[0] = case_path(published, "trainUndersampled_InclusiveClassifier.tfrecord");
    paths[1] = case_path(published, "trainUndersampled_Inc*.tfrecord");
    paths[2] = case_path(published, "trainUndersampled_Inc*/part-r-*");
    test = case_path(published, "testUndersampled_InclusiveClassifier.tfrecord/part-r-00001");
    sap_dataset *dataset;
    sap_feed *feed;
    int64_t rows = 0;
    for (int i = 0; i < 3; i++) {
        sap_files_options options = standard;
        options.validation = i ? test : NULL;
        options.labels = (const char *const[]){"a", "b"};
        options.label_count = 2;
        assert_ok(sap_dataset_open_files(paths[i], &options, &dataset, err));
        assert_string_equal(sap_dataset_label(dataset, 0), "a");
        assert_int_equal(sap_dataset_rows(dataset, "train"), -1);
        rows = i ? rows : sap_dataset_rows(dataset, "all");
        assert_true(rows > 500);
        assert_int_equal(sap_dataset_rows(dataset, "all"), rows);
        assert_int_equal(sap_dataset_rows(dataset, "test") > 0, i > 0);
        assert_ok(sap_feed_open_dataset(dataset, "all", &both, NULL, &feed, err));
        sap_feed_close(feed);
        sap_batch batch = {0};
        assert_ok(sap_dataset_read_part(dataset, "all", 0, NULL, &batch, err));
        const sap_column *file = sap_batch_find(&batch, "file");
        assert_int_equal(((const int64_t *)sap_batch_find(&batch, "entry")->values)[batch.length - 1],
                         batch.length - 1);
        assert_memory_equal((const char *)file->values + file->offsets[1], "part-r-0000", 11);
        sap_batch_release(&batch);
        sap_dataset_close(dataset);
        free(paths[i]);
    }
    /* one file has equal parts as shards */
    assert_ok(sap_dataset_open_files(test, &standard, &dataset, err));
    assert_ok(sap_feed_open_dataset(dataset, "all", &both, NULL, &feed, err));
    for (int64_t s = 0; s <= SAP_DATASET_SHARDS; s++)
        assert_int_equal(feed->shard_begin[s], s * sap_feed_rows(feed) / SAP_DATASET_SHARDS);
    sap_feed_close(feed);
    sap_dataset_close(dataset);
    free(test);
    free(published);
}

static void what_is_wrong_is_said(void **state) {
    (void)state;
    char *published = make("wrong", SAP_LAYOUT_PUBLISHED, SAP_DATASET_TFRECORD), *path;
    sap_dataset *dataset;
    sap_files_input given[2] = {wanted[0], wanted[1]};
    sap_files_options options = {.inputs = given, .input_count = 2};
    given[1].width = 5;
    assert_error(SAP_ENOTFOUND,
                 "which column is the network's input \"hlf\" of 5 numbers? There are HLF_input of 3, encoded_label of "
                 "2, GRU_input of 48: say so by --inputs hlf=COLUMN",
                 sap_dataset_open_files(published, &options, &dataset, err));
    given[1].column = "HLF_input";
    assert_error(SAP_ETYPE, "column \"HLF_input\" has 3 numbers in its first row, the network's input \"hlf\" takes 5",
                 sap_dataset_open_files(published, &options, &dataset, err));
    given[1] = wanted[1];
    given[1].column = "HLF_inputs";
    assert_error(SAP_ENOTFOUND, "has no column \"HLF_inputs\" of numbers; nearest: HLF_input",
                 sap_dataset_open_files(published, &options, &dataset, err));
    given[1].column = NULL;
    options.label = "label";
    assert_error(SAP_ENOTFOUND, "has no column \"label\" for labels",
                 sap_dataset_open_files(published, &options, &dataset, err));
    options.label = NULL;
    options.weight = given[1].column = "HLF_input";
    assert_error(SAP_ETYPE, "cannot weigh events: it has 3 numbers",
                 sap_dataset_open_files(published, &options, &dataset, err));
    options.weight = given[1].column = NULL;
    options.labels = names;
    options.label_count = 1;
    assert_error(SAP_ETYPE, "is of 2 classes, not 1", sap_dataset_open_files(published, &options, &dataset, err));
    assert_error(SAP_ENOTFOUND, "/nowhere/*: there is no such file",
                 sap_dataset_open_files("/nowhere/*", &standard, &dataset, err));
    path = case_path(folder, "empty");
    assert_ok(sap_folder_make(path, err));
    assert_error(SAP_EDATA, "is no dataset (it has no dataset.json)",
                 sap_dataset_open_files(path, &standard, &dataset, err));
    free(path);
    path = case_path(published, "trainUndersampled_InclusiveClassifier.tfrecord/part-r-00003");
    char *bytes, *label_path;
    size_t length;
    assert_ok(sap_file_load(path, 1 << 30, &bytes, &length, err));
    for (size_t n = 0; n < length; n += n < 100 ? 1 : 331) { /* cut short: never a crash, never taken for whole */
        assert_ok(sap_file_store(path, bytes, n, err));
        sap_feed *feed;
        if (sap_dataset_open_files(path, &standard, &dataset, NULL) == SAP_OK) {
            if (sap_feed_open_dataset(dataset, "all", &both, NULL, &feed, NULL) == SAP_OK) {
                assert_true(sap_feed_rows(feed) > 0); /* cut between two records */
                sap_feed_close(feed);
            }
            sap_dataset_close(dataset);
        }
    }
    free(bytes);
    free(path);
    /* labels that are not one-hot: another column taken for them */
    label_path = case_path(published, "trainUndersampled_HLF_features.tfrecord");
    sap_files_options other = {.inputs =
                                   (const sap_files_input[]){{.name = "x", .column = "encoded_label", .width = 2}},
                               .input_count = 1,
                               .label = "HLF_input"};
    sap_feed *feed;
    assert_ok(sap_dataset_open_files(label_path, &other, &dataset, err));
    assert_error(SAP_EDATA, "row 0: column \"HLF_input\" is no one-hot label",
                 sap_feed_open_dataset(dataset, "all",
                                       &(sap_feed_options){.inputs = (const char *const[]){"x"}, .input_count = 1},
                                       NULL, &feed, err));
    sap_dataset_close(dataset);
    free(label_path);
    free(published);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_files_feed_the_same),
                                       cmocka_unit_test(folders_and_patterns), cmocka_unit_test(what_is_wrong_is_said)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
