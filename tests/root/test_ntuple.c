/* RNTuple's envelopes: frames, locators, feature flags, payloads in several records; and every byte of a small file that must
 * not change unnoticed. */
#include "data_folder.h"
#include "memory_file.h"
#include "root/ntuple.h"
#include "test_support.h"

/* ---- What envelopes are made of -------------------------------------------------------------------------------------- */

static void put64(uint8_t *at, uint64_t value) {
    memcpy(at, &value, sizeof value);
}

static void put32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

static void test_frames(void **state) {
    (void)state;
    uint8_t bytes[32] = {0};
    put64(bytes, 12);
    put32(bytes + 8, 7);
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 0);
    sap_cursor record = sap_ntuple_record(&c);
    assert_int_equal(sap_cursor_le32(&record), 7);
    assert_int_equal(sap_cursor_left(&record), 0);
    assert_int_equal(c.position, 12);

    size_t count;
    put64(bytes, (uint64_t)-20);
    put32(bytes + 8, 2);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    sap_cursor list = sap_ntuple_list(&c, 4, &count);
    assert_int_equal(count, 2);
    assert_int_equal(sap_cursor_left(&list), 8);
    assert_int_equal(c.position, 20);

    c = sap_cursor_init(bytes, sizeof bytes, 0); /* more items than the frame can hold */
    (void)sap_ntuple_list(&c, 5, &count);
    assert_true(c.failed);
    c = sap_cursor_init(bytes, sizeof bytes, 0); /* a list, no record */
    (void)sap_ntuple_record(&c);
    assert_true(c.failed);
    static const int64_t sizes[] = {33, 7, 0, -7, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        put64(bytes, (uint64_t)sizes[i]);
        c = sap_cursor_init(bytes, sizeof bytes, 0);
        if (sizes[i] < 0)
            (void)sap_ntuple_list(&c, 1, &count);
        else
            (void)sap_ntuple_record(&c);
        assert_true(c.failed);
    }
}

static void test_locators(void **state) {
    (void)state;
    uint8_t bytes[24] = {0};
    put32(bytes, 1000);
    put64(bytes + 4, 5);
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 0);
    sap_locator at = sap_locator_parse(&c);
    assert_true(at.bytes == 1000 && at.offset == 5 && c.position == 12 && !c.failed);

    put32(bytes, 0 - (uint32_t)(1 << 24 | 20)); /* a large one */
    put64(bytes + 4, UINT64_C(1) << 40);
    put64(bytes + 12, UINT64_C(3) << 40);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    at = sap_locator_parse(&c);
    assert_true(at.bytes == UINT64_C(1) << 40 && at.offset == UINT64_C(3) << 40 && c.position == 20 && !c.failed);

    static const uint32_t heads[] = {1 << 24 | 19, 2 << 24 | 20, 20, 1 << 24 | 25, 1 << 24, 0x7fffffff, 0x80000000};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        put32(bytes, 0 - heads[i]);
        c = sap_cursor_init(bytes, sizeof bytes, 0);
        (void)sap_locator_parse(&c);
        assert_true(c.failed);
    }
}

static void test_features(void **state) {
    (void)state;
    uint8_t bytes[16] = {0};
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_ok(sap_features_check(&c, "here", err));
    assert_int_equal(c.position, 8);
    put64(bytes, 4);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_error(SAP_EUNSUPPORTED, "feature 2", sap_features_check(&c, "here", err));
    put64(bytes, UINT64_C(1) << 63);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_ok(sap_features_check(&c, "here", err));
    assert_int_equal(c.position, 16);
    put64(bytes + 8, 1);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_error(SAP_EUNSUPPORTED, "feature 63", sap_features_check(&c, "here", err));
    put64(bytes + 8, UINT64_C(1) << 63);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_error(SAP_EFORMAT, "feature flags", sap_features_check(&c, "here", err));
}

/* ---- Payloads in several records --------------------------------------------------------------------------------------- */

/* Lays out `length` bytes as a writer does: the offsets of the other records at the end of the first. */
static size_t lay_out(const uint8_t *payload, size_t length, size_t most, uint8_t *out) {
    enum { GAP = 5 }; /* headers of records */
    size_t records = (length + most - 1) / most;
    if ((records - 1) * 8 > records * most - length)
        records++;
    size_t at = most - (records - 1) * 8, done = at;
    memcpy(out, payload, at);
    size_t place = most + GAP;
    for (size_t i = 1; i < records; i++) {
        size_t bytes = length - done < most ? length - done : most;
        put64(out + at, place);
        at += 8;
        memcpy(out + place, payload + done, bytes);
        done += bytes;
        place += bytes + GAP;
    }
    assert_int_equal(done, length);
    return place;
}

static void test_parts(void **state) {
    (void)state;
    enum { LONGEST = 300, CAPACITY = 4000 };
    uint8_t payload[LONGEST], stored[CAPACITY], back[LONGEST];
    for (size_t i = 0; i < LONGEST; i++)
        payload[i] = (uint8_t)sap_mix(3, i);
    memory_file file = {0};
    for (size_t most = 64; most < 90; most += 5)
        for (size_t length = most + 1; length <= LONGEST; length += 3) {
            size_t size = lay_out(payload, length, most, stored);
            const char *path = memory_file_store(&file, stored, size);
            sap_file opened = {.size = size, .name = path};
            assert_ok(sap_source_open(path, NULL, &opened.source, err));
            memset(back, 0, sizeof back);
            assert_ok(sap_payload_read(&opened, most, (sap_locator){0, length}, back, "here", err));
            assert_memory_equal(back, payload, length);
            put64(stored + most - 8, size); /* a record behind the end */
            (void)memory_file_store(&file, stored, size);
            assert_error(SAP_EFORMAT, "here",
                         sap_payload_read(&opened, most, (sap_locator){0, length}, back, "here", err));
            assert_error(SAP_EFORMAT, "records of at most 3",
                         sap_payload_read(&opened, 3, (sap_locator){0, length}, back, "here", err));
            sap_source_close(opened.source);
        }
    (void)close(file.descriptor);
}

/* ---- Checksums ------------------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const sap_column *c) {
    uint64_t hash = 0;
    size_t n = (size_t)c->length;
    if (c->offsets)
        hash = sap_hash(c->offsets, (n + 1) * sizeof *c->offsets, hash);
    size_t bytes = c->type == SAP_STRING ? (size_t)c->offsets[n] : n * sap_type_size(c->type);
    return bytes ? sap_hash(c->values, bytes, hash) : hash;
}

/* Of all columns of the only table; false: an error, or no table. */
static bool hash_file(const char *path, uint64_t *hash) {
    sap_file *file;
    sap_tree *tree = NULL;
    sap_reader *reader = NULL;
    sap_batch batch = {0};
    if (sap_file_open(path, NULL, &file, NULL) != SAP_OK)
        return false;
    bool fine = sap_tree_open(file, NULL, &tree, NULL) == SAP_OK;
    fine = fine && sap_reader_open(tree, NULL, NULL, &reader, NULL) == SAP_OK;
    fine = fine && sap_reader_next(reader, &batch, NULL) == SAP_OK;
    *hash = 0;
    for (int32_t i = 0; fine && i < batch.count; i++)
        *hash = sap_mix(*hash, hash_of(&batch.columns[i]));
    sap_batch_release(&batch);
    sap_reader_close(reader);
    sap_tree_close(tree);
    sap_file_close(file);
    return fine;
}

/* Whatever bit of the file changes, no other values are read. */
static void test_checksums(void **state) {
    (void)state;
    char path[1000];
    uint8_t bytes[4096];
    if (!data_path("corpus/scikit-hep-testdata/rntviewer-testfile-uncomp-single-rntuple-v1-0-0-0.root", path,
                   sizeof path))
        skip();
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t size = fread(bytes, 1, sizeof bytes, f);
    assert_int_equal(fclose(f), 0);
    memory_file file = {0};
    uint64_t right, hash;
    assert_true(hash_file(memory_file_store(&file, bytes, size), &right));
    size_t noticed = 0;
    for (size_t i = 0; i < 8 * size; i += 3) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        if (hash_file(memory_file_store(&file, bytes, size), &hash))
            assert_true(hash == right);
        else
            noticed++;
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    assert_true(noticed > size); /* of 8 / 3 of them */
    (void)close(file.descriptor);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_frames), cmocka_unit_test(test_locators),
                                       cmocka_unit_test(test_features), cmocka_unit_test(test_parts),
                                       cmocka_unit_test(test_checksums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
