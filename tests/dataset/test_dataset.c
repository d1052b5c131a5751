/* Reading datasets: dataset.json and what can be wrong with it, parts, and feeds of stored events. */
#include "dataset_folders.h"

enum { INPUTS = 3, ENTRIES = 500 };

static const sap_dataset_input inputs[INPUTS] = {{"qcd", "one.root"}, {"ttbar", "two.root"}, {"qcd", "three.root"}};
static const uint64_t keys[INPUTS] = {11, 22, 33};
static const char *const names[2] = {"particles", "hlf"};
static const sap_feed_options both = {.inputs = names, .input_count = 2};

static const sap_dataset_format formats[3] = {SAP_DATASET_TFRECORD, SAP_DATASET_PARQUET, SAP_DATASET_ARROW};
static bool with_parquet;
static char *folder;

static char *make(const char *name, bool paper, sap_dataset_layout layout, sap_dataset_format format) {
    sap_feature features[2];
    case_features(paper, features);
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

static void expect_event(const sap_batch *batch, int64_t row, bool ordered) {
    const sap_column *hlf = sap_batch_find(batch, "hlf"), *particles = sap_batch_find(batch, "particles"),
                     *file = sap_batch_find(batch, "file"), *sample = sap_batch_find(batch, "sample");
    int64_t entry = ((const int64_t *)sap_batch_find(batch, "entry")->values)[row];
    int32_t label = ((const int32_t *)sap_batch_find(batch, "label")->values)[row];
    size_t input = 0;
    while (strncmp((const char *)file->values + file->offsets[row], inputs[input].url, strlen(inputs[input].url)) != 0)
        assert_true(++input < INPUTS);
    assert_int_equal(label, input == 1);
    assert_memory_equal((const char *)sample->values + sample->offsets[row], label ? "ttbar" : "qcd", label ? 5 : 3);
    assert_int_equal(entry % 2, 0);
    assert_true(((const float *)hlf->children[0].values)[row * CASE_WIDTH] == 10 * case_number(keys[input], entry, 0));
    int64_t rows = case_rows(keys[input], entry);
    assert_int_equal(particles->offsets[row + 1] - particles->offsets[row], rows * CASE_ROW);
    const float *first = (const float *)particles->children[0].values + particles->offsets[row];
    const float *lepton = ordered ? first + (rows - 1) * CASE_ROW : first;
    assert_true(lepton[0] == 3 * case_number(keys[input], entry, 100));
}

static void parts_hold_the_events(void **state) {
    (void)state;
    for (int k = 0; k < (with_parquet ? 6 : 2); k++) {
        bool raw = k % 2;
        char *out = make("parts", false, raw ? SAP_LAYOUT_RAW : SAP_LAYOUT_SAPWOOD, formats[k / 2]);
        sap_dataset *dataset;
        assert_ok(sap_dataset_open(out, &dataset, err));
        assert_string_equal(sap_dataset_folder(dataset), out);
        assert_int_equal(sap_dataset_feature_count(dataset), 2);
        assert_string_equal(sap_dataset_feature(dataset, 1)->value_names[2], "phi");
        assert_null(sap_dataset_feature(dataset, 2));
        assert_int_equal(sap_dataset_label_count(dataset), 2);
        assert_string_equal(sap_dataset_label(dataset, 1), "ttbar");
        assert_int_equal(sap_dataset_is_ordered(dataset), !raw);
        const char *const splits[3] = {"train", "test", "all"};
        int64_t total = 0, qcd = 0;
        for (int s = 0; s < 3; s++) {
            int64_t rows = sap_dataset_rows(dataset, splits[s]), seen = 0;
            assert_int_equal(rows < 0, raw != (s == 2));
            for (size_t p = 0; p < sap_dataset_part_count(dataset, splits[s]); p++) {
                sap_batch batch = {0};
                assert_ok(sap_dataset_read_part(dataset, splits[s], p, NULL, &batch, err));
                for (int64_t i = 0; i < batch.length; i++) {
                    expect_event(&batch, i, !raw);
                    qcd += ((const int32_t *)sap_batch_find(&batch, "label")->values)[i] == 0;
                }
                seen += batch.length;
                sap_batch_release(&batch);
            }
            assert_int_equal(seen, rows < 0 ? 0 : rows);
            total += seen;
        }
        if (raw) {
            assert_int_equal(total, INPUTS * ENTRIES / 2);
        } else { /* every ttbar event, and about half of those of qcd: 250 +- 5 sigma */
            assert_int_equal(total - qcd, ENTRIES / 2);
            assert_in_range(qcd, 194, 306);
            assert_in_range(sap_dataset_rows(dataset, "test"), 76, 174);
        }
        sap_batch batch;
        assert_error(SAP_ENOTFOUND, "has no part \"best\"",
                     sap_dataset_read_part(dataset, "best", 0, NULL, &batch, err));
        assert_error(SAP_EARGUMENT, "fewer part files",
                     sap_dataset_read_part(dataset, raw ? "all" : "test", 999, NULL, &batch, err));
        sap_dataset_close(dataset);
        assert_ok(sap_folder_remove(out, err));
        free(out);
    }
}

/* A feed of the dataset gives what feeds of its parts give, and a shuffled one the same rows in another order. */
static void feeds_of_datasets(void **state) {
    (void)state;
    for (int k = 0; k < (with_parquet ? 6 : 2); k++) {
        char *out = make("fed", k % 2, SAP_LAYOUT_SAPWOOD, formats[k / 2]);
        sap_dataset *dataset;
        sap_pool *pool;
        sap_feed *feed, *of_part;
        sap_examples all, some;
        assert_ok(sap_pool_open(3, &pool, err));
        sap_run run = {.pool = pool};
        assert_ok(sap_dataset_open(out, &dataset, err));
        assert_ok(sap_feed_open_dataset(dataset, "train", &both, &run, &feed, err));
        assert_int_equal(sap_feed_rows(feed), sap_dataset_rows(dataset, "train"));
        assert_ok(sap_feed_dense(feed, err));
        assert_ok(sap_feed_epoch(feed, 0, -1, err));
        assert_ok(sap_feed_next(feed, INT64_MAX, &all, err));
        assert_int_equal(all.rows, sap_feed_rows(feed));
        assert_int_equal(all.values[0], CASE_PAD * CASE_ROW);
        assert_int_equal(all.values[1], CASE_WIDTH);
        int64_t at = 0;
        double low = 1, high = 0;
        for (size_t p = 0; p < sap_dataset_part_count(dataset, "train"); p++) {
            sap_batch batch = {0};
            assert_ok(sap_dataset_read_part(dataset, "train", p, NULL, &batch, err));
            assert_ok(sap_feed_open_batch(dataset, &batch, true, names, 2, NULL, &of_part, err));
            assert_ok(sap_feed_dense(of_part, err));
            assert_ok(sap_feed_next(of_part, INT64_MAX, &some, err));
            assert_int_equal(some.rows, batch.length);
            for (int i = 0; i < 2; i++)
                assert_memory_equal(some.x[i], all.x[i] + at * all.values[i],
                                    (size_t)(some.rows * all.values[i]) * sizeof(float));
            assert_memory_equal(some.label, all.label + at, (size_t)some.rows * sizeof *all.label);
            assert_memory_equal(some.identity, all.identity + at, (size_t)some.rows * sizeof *all.identity);
            for (int64_t i = 0; i < some.rows; i++) {
                low = fmin(low, (double)some.x[1][i * CASE_WIDTH]);
                high = fmax(high, (double)some.x[1][i * CASE_WIDTH]);
                assert_near((double)some.x[1][i * CASE_WIDTH + 2], 0.5, 0); /* the constant column */
            }
            at += some.rows;
            sap_feed_close(of_part);
            sap_batch_release(&batch);
        }
        assert_int_equal(at, all.rows);
        if (k % 2 == 0) { /* constants of the training part */
            assert_near(low, 0, 0);
            assert_near(high, 1, 0);
        }
        uint64_t *stored = malloc((size_t)at * sizeof *stored), sum = 0;
        float *first = malloc((size_t)at * sizeof *first);
        memcpy(stored, all.identity, (size_t)at * sizeof *stored);
        for (int64_t i = 0; i < at; i++)
            first[i] = all.x[1][i * CASE_WIDTH];
        assert_ok(sap_feed_epoch(feed, 5, 2, err));
        assert_ok(sap_feed_next(feed, INT64_MAX, &all, err));
        int64_t moved = 0;
        for (int64_t i = 0; i < at; i++) {
            int64_t row = 0;
            while (stored[row] != all.identity[i])
                assert_true(++row < at);
            assert_true(first[row] == all.x[1][i * CASE_WIDTH]);
            moved += row != i;
            sum += all.identity[i] - stored[i];
        }
        assert_int_equal(sum, 0);
        assert_true(moved > at / 2);
        free(stored);
        free(first);
        sap_feed_close(feed);
        assert_error(
            SAP_ENOTFOUND, "has no feature \"hlff\"; nearest: hlf",
            sap_feed_open_dataset(dataset, "train",
                                  &(sap_feed_options){.inputs = (const char *const[]){"hlff"}, .input_count = 1}, NULL,
                                  &feed, err));
        assert_error(SAP_ENOTFOUND, "it has \"train\" and \"test\"",
                     sap_feed_open_dataset(dataset, "all", &both, NULL, &feed, err));
        sap_dataset_close(dataset);
        sap_pool_close(pool);
        assert_ok(sap_folder_remove(out, err));
        free(out);
    }
}

/* Events straight from a recipe are ordered on the way, and equal the stored ones. */
static void feeds_of_computed_events(void **state) {
    (void)state;
    char *out = make("computed", true, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset *dataset;
    sap_feed *feed, *stored;
    sap_examples a, b;
    sap_batch batch;
    assert_ok(sap_dataset_open(out, &dataset, err));
    assert_ok(sap_feed_open_dataset(dataset, "train", &both, NULL, &stored, err));
    assert_ok(sap_feed_next(stored, INT64_MAX, &a, err));
    case_batch(keys[1], 0, ENTRIES, &batch);
    assert_ok(sap_feed_open_batch(dataset, &batch, false, names, 2, NULL, &feed, err));
    assert_ok(sap_feed_next(feed, INT64_MAX, &b, err));
    assert_int_equal(b.rows, ENTRIES / 2);
    int64_t found = 0;
    for (int64_t i = 0; i < b.rows; i++) {
        assert_int_equal(b.label[i], -1);
        assert_int_equal(b.identity[i], 2 * i);
        for (int64_t j = 0; j < a.rows; j++) {
            if (a.identity[j] != sap_identity("ttbar", "two.root", 2 * i))
                continue;
            for (int k = 0; k < 2; k++)
                assert_memory_equal(a.x[k] + j * a.values[k], b.x[k] + i * b.values[k],
                                    (size_t)a.values[k] * sizeof(float));
            found++;
        }
    }
    assert_in_range(found, ENTRIES / 4, ENTRIES / 2);
    sap_feed_close(feed);
    sap_feed_close(stored);
    assert_error(
        SAP_ETYPE, "no column \"particles\"",
        (batch.columns[1].name = "x", sap_feed_open_batch(dataset, &batch, false, names, 2, NULL, &feed, err)));
    sap_batch_release(&batch);
    sap_dataset_close(dataset);
    free(out);

    out = make("raw", false, SAP_LAYOUT_RAW, SAP_DATASET_TFRECORD);
    assert_ok(sap_dataset_open(out, &dataset, err));
    assert_error(SAP_EDATA, "a raw dataset has none; prepare it without --raw",
                 sap_feed_open_dataset(dataset, "all", &both, NULL, &feed, err));
    sap_dataset_close(dataset);
    free(out);
    out = make("published", false, SAP_LAYOUT_PUBLISHED, SAP_DATASET_TFRECORD);
    assert_ok(sap_dataset_open(out, &dataset, err));
    assert_true(sap_dataset_rows(dataset, "train") > 0);
    assert_error(SAP_EUNSUPPORTED, "has the published layout",
                 sap_feed_open_dataset(dataset, "train", &both, NULL, &feed, err));
    sap_dataset_close(dataset);
    free(out);
}

static void rewrite(const char *path, const json_t *json) {
    char *text = json_dumps(json, JSON_INDENT(1));
    assert_ok(sap_file_store(path, text, strlen(text), err));
    free(text);
}

/* Takes every key that is not optional away in turn, and puts a wrong type in its place. */
static void spoil_keys(const char *out, const char *path, json_t *root, json_t *object, const char *const *optional) {
    const char *keys_of[64], *key;
    size_t count = 0;
    json_t *value;
    json_object_foreach(object, key, value) {
        bool needed = true;
        for (int i = 0; optional[i]; i++)
            needed = needed && strcmp(optional[i], key) != 0;
        if (needed)
            keys_of[count++] = strdup(key);
    }
    assert_true(count > 1);
    for (size_t i = 0; i < count; i++) {
        sap_dataset *dataset;
        json_t *old = json_incref(json_object_get(object, keys_of[i]));
        json_object_set_new(object, keys_of[i], json_real(0.5));
        rewrite(path, root);
        if (strcmp(keys_of[i], "constants") != 0) /* anything but an object means that there are none */
            assert_error(SAP_EFORMAT, keys_of[i], sap_dataset_open(out, &dataset, err));
        json_object_del(object, keys_of[i]);
        rewrite(path, root);
        assert_error(SAP_EFORMAT, keys_of[i], sap_dataset_open(out, &dataset, err));
        json_object_set_new(object, keys_of[i], old);
        free((char *)(uintptr_t)keys_of[i]);
    }
}

static void bad_descriptions(void **state) {
    (void)state;
    char *out = make("described", false, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD),
         *path = case_path(out, SAP_DATASET_JSON), *text;
    size_t length;
    sap_dataset *dataset;
    assert_ok(sap_file_load(path, 1 << 20, &text, &length, err));
    for (size_t n = 0; n < length - 1; n += n < 300 ? 1 : 97) { /* cut short */
        assert_ok(sap_file_store(path, text, n, err));
        assert_error(SAP_EFORMAT, "dataset.json: line", sap_dataset_open(out, &dataset, err));
    }
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    const char *const optional[] = {"sapwood_version", "recipe",  "recipe_version", "convention", "seed",
                                    "test_fraction",   "balance", "selection",      "inputs",     NULL};
    const char *const none[] = {"rows", NULL};
    spoil_keys(out, path, json, json, optional);
    json_t *feature = json_array_get(json_object_get(json, "features"), 1);
    spoil_keys(out, path, json, feature, none + 1);
    spoil_keys(out, path, json, json_object_get(feature, "constants"), none);
    spoil_keys(out, path, json, json_array_get(json_object_get(json, "parts"), 3), none + 1);

    json_t *plain = json_array_get(json_object_get(json, "features"), 0);
    json_object_set_new(plain, "pad_rows", json_integer(1));
    rewrite(path, json);
    assert_error(SAP_EFORMAT, "no sequence", sap_dataset_open(out, &dataset, err));
    json_object_set_new(plain, "pad_rows", json_integer(0));
    json_t *rows_of = json_array_get(json_object_get(json, "parts"), 0),
           *rows = json_incref(json_object_get(rows_of, "rows"));
    json_object_set_new(rows_of, "rows", json_integer(INT64_MAX / 4096)); /* with the other parts more than can be */
    rewrite(path, json);
    assert_error(SAP_EFORMAT, "\"rows\" should be", sap_dataset_open(out, &dataset, err));
    json_object_set_new(rows_of, "rows", rows);

    json_object_set_new(json, "format_version", json_integer(2));
    rewrite(path, json);
    assert_error(SAP_EUNSUPPORTED, "format version 2; this version of Sapwood reads version 1",
                 sap_dataset_open(out, &dataset, err));
    json_object_set_new(json, "format_version", json_integer(1));
    json_t *part = json_array_get(json_object_get(json, "parts"), 0);
    json_object_set_new(part, "file", json_string("../../secret"));
    rewrite(path, json);
    assert_error(SAP_EFORMAT, "inside the dataset's folder", sap_dataset_open(out, &dataset, err));
    assert_ok(sap_file_store(path, "[]", 2, err));
    assert_error(SAP_EFORMAT, "holds no object", sap_dataset_open(out, &dataset, err));
    assert_error(SAP_ENOTFOUND, "is not a dataset", sap_dataset_open("/nowhere", &dataset, err));
    json_decref(json);
    free(text);
    free(path);
    free(out);
}

/* Part files that are gone, other than described, or damaged. */
static void bad_parts(void **state) {
    (void)state;
    for (int k = 0; k < (with_parquet ? 2 : 1); k++) {
        char *out =
            make(k ? "bad1" : "bad0", false, SAP_LAYOUT_SAPWOOD, k ? SAP_DATASET_PARQUET : SAP_DATASET_TFRECORD);
        char *path = case_path(out, k ? "train/part-00000.parquet" : "train/part-00000.tfrecord"), *data, *damaged;
        sap_dataset *dataset;
        sap_feed *feed;
        sap_batch batch;
        size_t length;
        assert_ok(sap_dataset_open(out, &dataset, err));
        assert_ok(sap_file_load(path, 1 << 30, &data, &length, err));
        damaged = malloc(length + 1);
        memcpy(damaged, data, length);
        for (size_t n = 0; n < 400; n++) { /* never a crash; a changed byte need not be noticed by Parquet */
            size_t at = (size_t)(sap_mix(1, n) % length);
            damaged[at] = (char)(damaged[at] ^ 1 << n % 8);
            assert_ok(sap_file_store(path, damaged, length, err));
            batch = (sap_batch){0};
            sap_error error = {0};
            sap_status status = sap_dataset_read_part(dataset, "train", 0, NULL, &batch, &error);
            if (k == 0)
                assert_int_equal(status, SAP_EFORMAT);
            sap_batch_release(&batch);
            damaged[at] = data[at];
        }
        assert_ok(sap_file_store(path, data, length - 1, err));
        assert_error(SAP_EFORMAT, "dataset.json says",
                     sap_feed_open_dataset(dataset, "train", &both, NULL, &feed, err));
        assert_int_equal(unlink(path), 0);
        assert_error(SAP_ENOTFOUND, "train/part-00000",
                     sap_feed_open_dataset(dataset, "train", &both, NULL, &feed, err));
        assert_error(SAP_ENOTFOUND, "train/part-00000", sap_dataset_read_part(dataset, "train", 0, NULL, &batch, err));
        sap_dataset_close(dataset);
        free(data);
        free(damaged);
        free(path);
        free(out);
    }
}

/* A large part goes on in further files. */
static void parts_in_pieces(void **state) {
    (void)state;
    sap_arena arena = {0};
    sap_feature features[2];
    case_features(false, features);
    const sap_field *fields = sap_event_fields(features, 2, &arena);
    sap_pieces pieces = {.stem = case_path(folder, "part-00007"),
                         .format = SAP_DATASET_TFRECORD,
                         .ending = ".tfrecord",
                         .fields = fields,
                         .field_count = 2,
                         .limit = 20000};
    for (int i = 0; i < 5; i++) {
        sap_batch batch;
        case_batch(1, i * 100, i * 100 + 100, &batch);
        assert_ok(sap_pieces_write(&pieces, &batch, err));
    }
    assert_ok(sap_pieces_finish(&pieces, err));
    assert_true(pieces.count > 1);
    int64_t rows = 0;
    for (size_t i = 0; i < pieces.count; i++) {
        char *path = sap_piece_path(pieces.stem, pieces.ending, i);
        sap_part_reader *reader;
        sap_batch batch;
        assert_ok(sap_part_open(path, SAP_DATASET_TFRECORD, fields, 2, 0, &reader, err));
        assert_ok(sap_part_next(reader, &batch, err));
        assert_int_equal(batch.length, pieces.items[i].rows);
        rows += batch.length;
        sap_batch_release(&batch);
        sap_part_close(reader);
        free(path);
    }
    assert_int_equal(rows, 250);
    sap_pieces_release(&pieces);
    sap_arena_release(&arena);
}

/* A class whose few events all go to the test part cannot be learnt: said when the set is made. */
static void classes_without_training_events(void **state) {
    (void)state;
    sap_feature features[2];
    case_features(false, features);
    sap_dataset_plan plan = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    plan.balance = false;
    plan.test_fraction = 0.9;
    sap_dataset_writer *writer;
    char *out = case_path(folder, "tiny");
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    assert_ok(case_write(writer, 0, keys[0], ENTRIES, err));
    assert_ok(case_write(writer, 1, keys[1], 4, err));
    assert_error(SAP_EDATA, "none of the 2 selected events of sample \"ttbar\" is left for the training part",
                 sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_false(sap_path_exists(out));
    free(out);
}

static int set_up(void **state) {
    (void)state;
    with_parquet = case_has_parquet();
    folder = case_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    case_remove(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_hold_the_events),
                                       cmocka_unit_test(feeds_of_datasets),
                                       cmocka_unit_test(feeds_of_computed_events),
                                       cmocka_unit_test(bad_descriptions),
                                       cmocka_unit_test(bad_parts),
                                       cmocka_unit_test(parts_in_pieces),
                                       cmocka_unit_test(classes_without_training_events)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
