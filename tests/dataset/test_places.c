/* Events that others hold: they find the places, and the constants, that they have in a dataset. */
#include "dataset_folders.h"

enum { ENTRIES = 400 };

static const sap_dataset_input inputs[2] = {{"qcd", "one.root"}, {"ttbar", "two.root"}};
static sap_dataset *dataset;
static char *folder;

static int set_up(void **state) {
    (void)state;
    sap_feature features[2];
    case_features(false, features);
    sap_dataset_plan plan = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer;
    folder = case_folder();
    char *out = case_path(folder, "data");
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    for (size_t i = 0; i < 2; i++)
        assert_ok(case_write(writer, i, 11 * (i + 1), ENTRIES, err));
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_ok(sap_dataset_open(out, &dataset, err));
    free(out);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sap_dataset_close(dataset);
    case_remove(folder);
    return 0;
}

/* Offsets of a text column as 64-bit numbers. */
static int64_t *wide_offsets(const sap_column *column, int64_t rows) {
    int64_t *wide = calloc((size_t)rows + 1, sizeof *wide);
    assert_non_null(wide);
    for (int64_t i = 0; i <= rows; i++)
        wide[i] = column->offsets[i];
    return wide;
}

static void stored_events_are_where_they_belong(void **state) {
    (void)state;
    static const char *const splits[2] = {"train", "test"};
    for (int s = 0; s < 2; s++) {
        for (size_t p = 0; p < sap_dataset_part_count(dataset, splits[s]); p++) {
            const sap_part *part;
            sap_batch batch = {0};
            assert_ok(sap_dataset_find_part(dataset, splits[s], p, &part, err));
            assert_ok(sap_dataset_read_part(dataset, splits[s], p, NULL, &batch, err));
            const sap_column *sample = sap_batch_find(&batch, "sample"), *file = sap_batch_find(&batch, "file");
            int64_t *sample_offsets = wide_offsets(sample, batch.length),
                    *file_offsets = wide_offsets(file, batch.length);
            uint64_t *order = calloc((size_t)batch.length, sizeof *order);
            bool *test = calloc((size_t)batch.length, sizeof *test);
            sap_event_names names = {.count = batch.length,
                                     .sample_offsets = sample_offsets,
                                     .samples = sample->values,
                                     .file_offsets = file_offsets,
                                     .files = file->values,
                                     .entry = sap_batch_find(&batch, "entry")->values};
            assert_ok(sap_event_places(&names, 7, 0.25, order, test, err));
            for (int64_t i = 0; i < batch.length; i++) {
                assert_int_equal(test[i], s);
                assert_int_equal(order[i] >> 58, part->shard);
                assert_true(i == 0 || order[i] > order[i - 1]);
            }
            free(sample_offsets);
            free(file_offsets);
            free(order);
            free(test);
            sap_batch_release(&batch);
        }
    }
}

static void paths_count_by_their_base_names(void **state) {
    (void)state;
    static const char files[] = "one.rootroot://host//data/one.root?token=1";
    static const int64_t file_offsets[3] = {0, 8, sizeof files - 1}, sample_offsets[3] = {0, 3, 6}, entry[2] = {5, 5};
    sap_event_names names = {2, sample_offsets, file_offsets, "qcdqcd", files, entry};
    uint64_t order[2];
    bool test[2];
    assert_ok(sap_event_places(&names, 1, 0.5, order, test, err));
    assert_true(order[0] == order[1]);
    char longer[6000];
    memset(longer, 'x', sizeof longer);
    names = (sap_event_names){1, sample_offsets, (const int64_t[2]){0, 6000}, "qcd", longer, entry};
    assert_error(SAP_EDATA, "file has 6000 bytes", sap_event_places(&names, 1, 0.5, order, test, err));
}

/* A plain feature's rows, shard by shard, give the constants that dataset.json has, to the last bit. */
static void constants_are_those_of_the_dataset(void **state) {
    (void)state;
    size_t parts = sap_dataset_part_count(dataset, "train");
    int64_t *rows = calloc(parts, sizeof *rows);
    double *moments = calloc(parts * 4 * CASE_WIDTH, sizeof *moments), shift[CASE_WIDTH], factor[CASE_WIDTH];
    for (size_t p = 0; p < parts; p++) {
        sap_batch batch = {0};
        assert_ok(sap_dataset_read_part(dataset, "train", p, NULL, &batch, err));
        rows[p] = batch.length;
        assert_ok(sap_event_moments(sap_batch_find(&batch, "hlf")->children[0].values, rows[p], CASE_WIDTH,
                                    moments + p * 4 * CASE_WIDTH, err));
        sap_batch_release(&batch);
    }
    assert_ok(sap_event_constants(SAP_SCALING_MINMAX, rows, moments, parts, CASE_WIDTH, shift, factor, err));
    assert_memory_equal(shift, dataset->info.constants[0].shift, sizeof shift);
    assert_memory_equal(factor, dataset->info.constants[0].factor, sizeof factor);
    assert_error(SAP_EARGUMENT, "of 0 values", sap_event_moments(NULL, 1, 0, moments, err));
    assert_error(SAP_EARGUMENT, "of 0 values",
                 sap_event_constants(SAP_SCALING_MINMAX, rows, moments, parts, 0, shift, factor, err));
    free(rows);
    free(moments);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_events_are_where_they_belong),
        cmocka_unit_test(paths_count_by_their_base_names),
        cmocka_unit_test(constants_are_those_of_the_dataset),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
