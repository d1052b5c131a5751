/* TFRecord files: checksums, what is written is read, and damage of every kind ends in an error. */
#include "dataset_cases.h"

static void checksums(void **state) {
    (void)state;
    assert_int_equal(sap_crc32c(0, "123456789", 9), 0xE3069283u); /* the check value of CRC-32C */
    uint8_t data[100];
    for (int i = 0; i < 100; i++)
        data[i] = (uint8_t)(i * 37);
    for (size_t n = 0; n <= 100; n++)
        assert_int_equal(sap_crc32c(0, data, n), sap_crc32c_plain(0, data, n));
    assert_int_equal(sap_crc32c(sap_crc32c(0, data, 33), data + 33, 67), sap_crc32c(0, data, 100));
}

static sap_arena arena;

static sap_field *event_fields(void) {
    sap_feature features[2];
    case_features(false, features);
    return sap_event_fields(features, 2, &arena);
}

/* Six columns of an input's events as stored. */
static void stored_batch(const sap_field *fields, sap_batch *out) {
    case_batch(5, 0, 1000, out);
    sap_batch all;
    assert_ok(sap_batch_init(&all, 6, err));
    all.length = out->length;
    size_t n = (size_t)out->length;
    int32_t *label = sap_storage_alloc(all.storage, n * sizeof *label);
    int32_t *offsets = sap_storage_alloc(all.storage, (n + 1) * sizeof *offsets);
    for (size_t i = 0; i < n; i++)
        label[i] = i % 2 ? -1 : 2000000000;
    for (size_t i = 0; i <= n; i++)
        offsets[i] = (int32_t)(i / 3); /* texts of length 0 and 1 */
    char *text = sap_storage_alloc(all.storage, n);
    memset(text, 'x', n);
    for (int i = 0; i < 6; i++) {
        assert_ok(sap_column_init(all.storage, &fields[i], &all.columns[i], err));
        all.columns[i].length = all.length;
    }
    all.columns[0] = out->columns[0];
    all.columns[1] = out->columns[1];
    all.columns[2].values = label;
    all.columns[3].offsets = all.columns[4].offsets = offsets;
    all.columns[3].values = all.columns[4].values = text;
    all.columns[5].values = out->columns[2].values;
    sap_batch joined;
    assert_ok(sap_batch_join(&all, 1, &joined, err));
    sap_batch_release(&all);
    sap_batch_release(out);
    *out = joined;
}

static void expect_same(const sap_column *a, const sap_column *b) {
    assert_int_equal(a->length, b->length);
    size_t n = (size_t)a->length;
    if (a->offsets) {
        assert_memory_equal(a->offsets, b->offsets, (n + 1) * sizeof *a->offsets);
        if (a->type == SAP_STRING)
            assert_memory_equal(a->values, b->values, (size_t)a->offsets[n]);
    }
    if (sap_type_size(a->type))
        assert_memory_equal(a->values, b->values, n * sap_type_size(a->type));
    for (int32_t i = 0; i < a->count; i++)
        expect_same(&a->children[i], &b->children[i]);
}

static sap_status read_file(const char *path, const sap_field *fields, int32_t count, sap_batch *out, sap_error *err) {
    sap_tfrecord_reader *reader;
    SAP_TRY(sap_tfrecord_open(path, fields, count, &reader, err));
    sap_batch batches[64];
    size_t n = 0;
    sap_status status;
    do
        status = sap_tfrecord_next(reader, &batches[n], err);
    while (status == SAP_OK && batches[n].length > 0 && ++n < 64);
    if (status == SAP_OK && n > 0)
        status = sap_batch_join(batches, n, out, err);
    for (size_t i = 0; i < n; i++)
        sap_batch_release(&batches[i]);
    sap_tfrecord_close(reader);
    return status;
}

static void write_file(const char *path, const sap_batch *batch) {
    sap_tfrecord_writer *writer;
    assert_ok(sap_tfrecord_create(path, &writer, err));
    assert_ok(sap_tfrecord_write(writer, batch, err));
    assert_ok(sap_tfrecord_finish(writer, err));
    sap_tfrecord_writer_close(writer);
}

static void round_trip(void **state) {
    (void)state;
    char *folder = case_folder(), *path = case_path(folder, "a.tfrecord");
    const sap_field *fields = event_fields();
    sap_batch batch, back = {0};
    stored_batch(fields, &batch);
    write_file(path, &batch);
    assert_ok(read_file(path, fields, 6, &back, err));
    for (int i = 0; i < 6; i++)
        expect_same(&batch.columns[i], &back.columns[i]);
    sap_batch_release(&back);

    sap_field other[2] = {fields[0], fields[5]};
    other[0].name = "hlff";
    assert_error(SAP_ENOTFOUND, "record 0: has no feature \"hlff\"", read_file(path, other, 2, &back, err));
    other[0] = fields[0];
    other[0].size = 4;
    assert_error(SAP_ETYPE, "\"hlf\" has 3 values, expected 4", read_file(path, other, 2, &back, err));
    other[0] = fields[5];
    other[0].name = "hlf";
    assert_error(SAP_ETYPE, "\"hlf\" is of kind 2, expected 3", read_file(path, other, 1, &back, err));
    assert_error(SAP_EIO, folder, read_file(folder, fields, 6, &back, err));
    sap_batch_release(&batch);
    case_remove(folder);
    free(path);
}

static void store(const char *path, const void *data, size_t length) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void set_crcs(uint8_t *record, size_t message) {
    uint32_t head = sap_crc32c_masked(record, 8), body = sap_crc32c_masked(record + 12, message);
    memcpy(record + 8, &head, 4);
    memcpy(record + 12 + message, &body, 4);
}

/* Two records cut short at every length, and with every byte changed: with the checksums as they were, and with right ones. */
static void damage(void **state) {
    (void)state;
    char *folder = case_folder(), *path = case_path(folder, "a.tfrecord"), *data;
    const sap_field *fields = event_fields();
    sap_batch batch, view, back;
    size_t length;
    stored_batch(fields, &batch);
    assert_ok(sap_batch_view(&batch, 0, 2, &view, err));
    write_file(path, &view);
    sap_batch_release(&view);
    assert_ok(sap_file_load(path, 1 << 20, &data, &length, err));
    size_t message = (uint8_t)data[0] | (size_t)(uint8_t)data[1] << 8, whole = message + 16;
    for (size_t n = 1; n < length; n++) {
        store(path, data, n);
        if (n == whole) { /* one record is a file too */
            assert_ok(read_file(path, fields, 6, &back, err));
            sap_batch_release(&back);
            continue;
        }
        assert_error(SAP_EFORMAT, "", read_file(path, fields, 6, &back, err));
    }
    int refused = 0;
    for (size_t n = 0; n < whole; n++) {
        for (int bit = 0; bit < 8; bit += 3) {
            data[n] = (char)(data[n] ^ 1 << bit);
            store(path, data, length);
            assert_error(SAP_EFORMAT, "", read_file(path, fields, 6, &back, err));
            if (n >= 12 &&
                n < whole - 4) { /* a file that was written so: values may differ, structure must be checked */
                uint8_t *copy = malloc(whole);
                memcpy(copy, data, whole);
                set_crcs(copy, message);
                store(path, copy, whole);
                free(copy);
                back = (sap_batch){0};
                refused += read_file(path, fields, 6, &back, NULL) != SAP_OK;
                sap_batch_release(&back);
            }
            data[n] = (char)(data[n] ^ 1 << bit);
        }
    }
    assert_in_range(refused, 100, (int)message * 3 - 100);
    free(data);
    sap_batch_release(&batch);
    case_remove(folder);
    free(path);
    sap_arena_release(&arena);
}

/* A number that the column cannot hold is an error, not another number. */
static void numbers_that_do_not_fit(void **state) {
    (void)state;
    static const sap_field wide = {.name = "label", .type = SAP_INT64}, narrow = {.name = "label", .type = SAP_INT32};
    const int64_t numbers[] = {INT32_MAX, INT32_MIN, -1, INT64_C(1) << 31, INT64_C(1) << 32, INT64_MIN};
    char *folder = case_folder(), *path = case_path(folder, "numbers");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sap_batch batch, read = {0};
        sap_part_writer *writer;
        sap_part_reader *reader;
        assert_ok(sap_batch_init(&batch, 1, err));
        assert_ok(sap_column_init(batch.storage, &wide, &batch.columns[0], err));
        batch.length = batch.columns[0].length = 1;
        batch.columns[0].values = &numbers[i];
        assert_ok(sap_part_create(path, SAP_DATASET_TFRECORD, &wide, 1, &writer, err));
        assert_ok(sap_part_write(writer, &batch, err));
        assert_ok(sap_part_finish(writer, NULL, err));
        sap_part_writer_close(writer);
        assert_ok(sap_part_open(path, SAP_DATASET_TFRECORD, &narrow, 1, 0, &reader, err));
        if (i < 3) {
            assert_ok(sap_part_next(reader, &read, err));
            assert_int_equal(((const int32_t *)read.columns[0].values)[0], numbers[i]);
        } else {
            assert_error(SAP_EDATA, "record 0: feature \"label\" holds a number that is no 32-bit integer",
                         sap_part_next(reader, &read, err));
        }
        sap_batch_release(&read);
        sap_part_close(reader);
    }
    free(path);
    case_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(checksums), cmocka_unit_test(round_trip),
                                       cmocka_unit_test(damage), cmocka_unit_test(numbers_that_do_not_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
