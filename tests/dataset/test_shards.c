/* Datasets written by many processes: the same bytes as by one, however inputs are cut and whoever packs them. */
#include "dataset_folders.h"

enum { INPUTS = 3, ENTRIES = 400, PACKERS = 4 };

static const sap_dataset_input inputs[INPUTS] = {{"qcd", "one.root"}, {"ttbar", "two.root"}, {"qcd", "three.root"}};
static const uint64_t keys[INPUTS] = {11, 22, 33};
static char *folder;

static sap_dataset_writer *create(const char *out, sap_dataset_layout layout, sap_dataset_format format) {
    sap_feature features[2];
    sap_dataset_writer *writer;
    case_features(layout == SAP_LAYOUT_PUBLISHED, features);
    sap_dataset_plan plan = case_plan(inputs, INPUTS, features, layout, format);
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    return writer;
}

static void write_at_once(const char *out, sap_dataset_layout layout, sap_dataset_format format) {
    sap_dataset_writer *writer = create(out, layout, format);
    for (size_t i = 0; i < INPUTS; i++)
        assert_ok(case_write(writer, i, keys[i], ENTRIES, err));
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
}

/* Pieces of bytes by bucket, as a shuffle would bring them. */
typedef struct piece {
    int32_t bucket;
    size_t bytes;
    char *data;
} piece;
static piece *pieces;
static size_t piece_count, piece_capacity;

static void collect(sap_dataset_packer *packer, bool last) {
    for (;;) {
        piece p;
        const void *data;
        assert_ok(sap_dataset_packer_next(packer, last, &p.bucket, &data, &p.bytes, err));
        if (p.bytes == 0)
            return;
        p.data = malloc(p.bytes);
        assert_non_null(p.data);
        memcpy(p.data, data, p.bytes);
        assert_true(sap_grow((void **)&pieces, &piece_capacity, piece_count, sizeof p));
        pieces[piece_count++] = p;
    }
}

/* Packer k has each fourth hundred of entries of every input, from the last input to the first. */
static void pack(const char *plan, int64_t k) {
    sap_dataset_packer *packer;
    assert_ok(sap_dataset_packer_open(plan, &packer, err));
    for (size_t i = INPUTS; i-- > 0;) {
        sap_batch batch;
        int64_t share = ENTRIES / PACKERS, dropped[2] = {share / 2, 0};
        case_batch(keys[i], k * share, (k + 1) * share, &batch);
        assert_ok(sap_dataset_pack(packer, i, &batch, err));
        assert_ok(sap_dataset_pack_counts(packer, i, share, dropped, err));
        sap_batch_release(&batch);
        collect(packer, false);
    }
    sap_batch none = {0};
    assert_error(SAP_EARGUMENT, "no number 3", sap_dataset_pack(packer, INPUTS, &none, err));
    collect(packer, true);
    sap_dataset_packer_close(packer);
}

static char *shard(const char *out, const char *plan, int32_t bucket, const char *constants) {
    sap_dataset_shard *s;
    char *report;
    assert_ok(sap_dataset_shard_open(out, plan, bucket, &s, err));
    for (size_t i = piece_count; i-- > 0;)
        if (pieces[i].bucket == bucket)
            assert_ok(sap_dataset_shard_add(s, pieces[i].data, pieces[i].bytes, err));
    assert_ok(sap_dataset_shard_write(s, constants, NULL, &report, err));
    sap_dataset_shard_close(s);
    return report;
}

static void run_shards(const char *out, const char *plan, const char *constants, char **reports) {
    for (int32_t b = 0; b < SAP_DATASET_BUCKETS; b++) {
        free(reports[b]);
        reports[b] = shard(out, plan, SAP_DATASET_BUCKETS - 1 - b, constants);
    }
    free(shard(out, plan, 5, constants)); /* an attempt that was started twice */
}

static void write_by_many(const char *out, sap_dataset_layout layout, sap_dataset_format format) {
    sap_dataset_writer *writer = create(out, layout, format);
    char *reports[SAP_DATASET_BUCKETS] = {0}, *description;
    assert_ok(sap_dataset_begin_shards(writer, err));
    const char *plan = sap_dataset_plan_json(writer);
    for (int64_t k = 0; k < PACKERS; k++)
        pack(plan, k);
    run_shards(out, plan, NULL, reports);
    if (layout == SAP_LAYOUT_PUBLISHED) {
        assert_ok(sap_dataset_fit_shards(writer, (const char *const *)reports, SAP_DATASET_BUCKETS, &description, err));
        run_shards(out, plan, description, reports);
        free(description);
    }
    assert_error(SAP_EFORMAT, "each of 128", sap_dataset_finish_shards(writer, (const char *const *)reports, 7, err));
    assert_ok(sap_dataset_finish_shards(writer, (const char *const *)reports, SAP_DATASET_BUCKETS, err));
    sap_dataset_writer_close(writer);
    for (size_t b = 0; b < SAP_DATASET_BUCKETS; b++)
        free(reports[b]);
    for (size_t i = 0; i < piece_count; i++)
        free(pieces[i].data);
    piece_count = 0;
}

static void bytes_are_those_of_one_process(void **state) {
    (void)state;
    static const sap_dataset_layout layouts[] = {SAP_LAYOUT_SAPWOOD, SAP_LAYOUT_PUBLISHED};
    for (int k = 0; k < (case_has_parquet() ? 4 : 2); k++) {
        char *one = case_path(folder, "one"), *many = case_path(folder, "many");
        sap_dataset_format format = k < 2 ? SAP_DATASET_TFRECORD : SAP_DATASET_PARQUET;
        write_at_once(one, layouts[k % 2], format);
        write_by_many(many, layouts[k % 2], format);
        expect_same_folders(one, many, NULL);
        case_remove(one);
        case_remove(many);
    }
}

/* Bytes that were changed on their way, or do not belong there, are errors. */
static void wrong_pieces_are_refused(void **state) {
    (void)state;
    char *out = case_path(folder, "wrong");
    sap_dataset_writer *writer = create(out, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    const char *plan = sap_dataset_plan_json(writer);
    pack(plan, 0);
    sap_dataset_shard *s;
    assert_ok(sap_dataset_shard_open(out, plan, pieces[0].bucket, &s, err));
    assert_error(SAP_EFORMAT, "only 15 bytes", sap_dataset_shard_add(s, pieces[0].data, 15, err));
    assert_error(SAP_EFORMAT, "changed", sap_dataset_shard_add(s, pieces[0].data, pieces[0].bytes - 1, err));
    for (size_t i = 0; i < pieces[0].bytes; i += 7) {
        pieces[0].data[i] ^= 0x10;
        assert_error(SAP_EFORMAT, "changed", sap_dataset_shard_add(s, pieces[0].data, pieces[0].bytes, err));
        pieces[0].data[i] ^= 0x10;
    }
    for (size_t i = 0; i < piece_count; i++) {
        if (pieces[i].bucket != pieces[0].bucket)
            assert_error(SAP_EFORMAT, "not of bucket", sap_dataset_shard_add(s, pieces[i].data, pieces[i].bytes, err));
        free(pieces[i].data);
    }
    piece_count = 0;
    sap_dataset_shard_close(s);
    sap_dataset_packer *packer;
    assert_error(SAP_EFORMAT, "plan", sap_dataset_packer_open("{\"features\": []}", &packer, err));
    assert_error(SAP_EFORMAT, "plan", sap_dataset_packer_open("{", &packer, err));
    sap_dataset_writer_close(writer);
    free(out);
}

static int make_folder(void **state) {
    (void)state;
    folder = case_folder();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    case_remove(folder);
    free(pieces);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_one_process),
        cmocka_unit_test(wrong_pieces_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
