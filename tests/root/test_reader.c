/* The reader: the same values whatever the batches and threads, ranges of entries, choosing columns, Arrow streams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_folder.h"
#include "root/root_internal.h"

typedef struct opened {
    sap_file *file;
    sap_tree *tree;
} opened;

static bool open_tree(const char *name, const char *tree, opened *out) {
    char path[1000];
    sap_error error = {0};
    if (!data_path(name, path, sizeof path))
        return false;
    if (sap_file_open(path, NULL, &out->file, &error) != SAP_OK)
        fail_msg("%s", error.message);
    if (sap_tree_open(out->file, tree, &out->tree, &error) != SAP_OK)
        fail_msg("%s", error.message);
    return true;
}

static void close_tree(opened *o) {
    sap_tree_close(o->tree);
    sap_file_close(o->file);
}

/* A hash of the values of a column, wherever its batches begin. */
static uint64_t hash_column(uint64_t seed, const sap_column *c, int64_t begin, int64_t end) {
    int64_t from = begin, to = end, step = c->type == SAP_FIXED_LIST ? c->size : 1;
    if (c->type == SAP_LIST || c->type == SAP_STRING) {
        from = c->offsets[begin];
        to = c->offsets[end];
        assert_true(to >= from);
        for (int64_t i = begin; i < end; i++) {
            assert_true(c->offsets[i + 1] >= c->offsets[i]);
            seed = sap_mix(seed, (uint64_t)(c->offsets[i + 1] - c->offsets[i]));
        }
    }
    size_t size = c->type == SAP_STRING ? 1 : sap_type_size(c->type);
    for (int64_t i = from; size && i < to; i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *)c->values + (size_t)i * size, size);
        seed = sap_mix(seed, value);
    }
    for (int32_t i = 0; i < c->count; i++) {
        if (c->type == SAP_LIST || c->type == SAP_FIXED_LIST || c->type == SAP_RECORD)
            assert_true(c->children[i].length >= to * step);
        seed = hash_column(seed, &c->children[i], from * step, to * step);
    }
    return seed;
}

/* Hashes of each column entry by entry, so that they do not depend on batches. */
static void read_hashes(sap_tree *tree, sap_reader_options options, const sap_run *run, uint64_t *hashes,
                        int32_t *columns, int64_t *entries) {
    sap_reader *reader;
    sap_error error = {0};
    if (sap_reader_open(tree, &options, run, &reader, &error) != SAP_OK)
        fail_msg("%s", error.message);
    (void)sap_reader_fields(reader, columns);
    memset(hashes, 0, (size_t)*columns * sizeof *hashes);
    int64_t next = options.begin;
    for (;;) {
        sap_batch batch = {0};
        if (sap_reader_next(reader, &batch, &error) != SAP_OK)
            fail_msg("%s", error.message);
        if (batch.length == 0)
            break;
        assert_int_equal(batch.first_entry, next);
        assert_int_equal(batch.count, *columns);
        if (options.batch_entries)
            assert_true(batch.length <= options.batch_entries);
        next += batch.length;
        for (int32_t i = 0; i < batch.count; i++) {
            assert_int_equal(batch.columns[i].length, batch.length);
            for (int64_t e = 0; e < batch.length; e++)
                hashes[i] = hash_column(hashes[i], &batch.columns[i], e, e + 1);
        }
        sap_batch_release(&batch);
    }
    *entries = next - options.begin;
    sap_reader_close(reader);
}

enum { MOST_COLUMNS = 400 };

static void compare_batches(const char *name, const char *tree_name, const int64_t *sizes, size_t count) {
    opened o;
    if (!open_tree(name, tree_name, &o))
        skip();
    static uint64_t expected[MOST_COLUMNS], got[MOST_COLUMNS];
    int32_t columns, again;
    int64_t entries, same;
    read_hashes(o.tree, (sap_reader_options){0}, NULL, expected, &columns, &entries);
    assert_int_equal(entries, sap_tree_entries(o.tree));
    assert_true(columns > 0 && columns <= MOST_COLUMNS);
    sap_pool *pool;
    assert_int_equal(sap_pool_open(3, &pool, NULL), SAP_OK);
    for (size_t i = 0; i < count; i++) {
        read_hashes(o.tree, (sap_reader_options){.batch_entries = sizes[i]}, &(sap_run){.pool = i % 2 ? pool : NULL},
                    got, &again, &same);
        assert_int_equal(again, columns);
        assert_int_equal(same, entries);
        assert_memory_equal(got, expected, (size_t)columns * sizeof *got);
    }
    read_hashes(o.tree, (sap_reader_options){.batch_bytes = 10000}, &(sap_run){.pool = pool}, got, &again, &same);
    assert_memory_equal(got, expected, (size_t)columns * sizeof *got);
    sap_pool_close(pool);
    close_tree(&o);
}

static void test_batches_jagged(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 7, 100, 1000, 2421, 5000};
    compare_batches("corpus/scikit-hep-testdata/uproot-HZZ.root", "events", sizes, 6);
}

static void test_batches_objects(void **state) {
    (void)state;
    const int64_t sizes[] = {13, 500, 1200};
    compare_batches("corpus/scikit-hep-testdata/uproot-HZZ-objects.root", "events", sizes, 3);
}

static void test_batches_delphes(void **state) {
    (void)state;
    const int64_t sizes[] = {3, 50, 17};
    compare_batches("delphes-sample/ttbar.root", "Delphes", sizes, 3);
}

/* Entries [begin, end) give what the same entries give in the whole. */
static void test_ranges(void **state) {
    (void)state;
    opened o;
    if (!open_tree("corpus/scikit-hep-testdata/uproot-HZZ.root", "events", &o))
        skip();
    sap_reader *reader;
    sap_batch whole = {0}, part = {0};
    sap_error error = {0};
    const char *names[] = {"Muon_Px", "NMuon"};
    sap_reader_options options = {.columns = names, .count = 2};
    assert_int_equal(sap_reader_open(o.tree, &options, NULL, &reader, &error), SAP_OK);
    assert_int_equal(sap_reader_next(reader, &whole, &error), SAP_OK);
    assert_int_equal(sap_reader_next(reader, &whole, &error), SAP_EARGUMENT); /* it is not empty */
    sap_reader_close(reader);
    assert_string_equal(whole.columns[0].name, "Muon_Px");
    static const int64_t ranges[][2] = {{0, 1}, {5, 5}, {700, 1803}, {2420, 2421}};
    for (size_t i = 0; i < 4; i++) {
        options.begin = ranges[i][0];
        options.end = ranges[i][1];
        assert_int_equal(sap_reader_open(o.tree, &options, NULL, &reader, &error), SAP_OK);
        assert_int_equal(sap_reader_next(reader, &part, &error), SAP_OK);
        assert_int_equal(part.length, ranges[i][1] - ranges[i][0]);
        for (int64_t e = 0; e < part.length; e++)
            for (int32_t c = 0; c < 2; c++)
                assert_int_equal(hash_column(0, &part.columns[c], e, e + 1),
                                 hash_column(0, &whole.columns[c], ranges[i][0] + e, ranges[i][0] + e + 1));
        sap_batch_release(&part);
        sap_reader_close(reader);
    }
    sap_batch_release(&whole);
    options.end = 2422;
    assert_int_equal(sap_reader_open(o.tree, &options, NULL, &reader, &error), SAP_EARGUMENT);
    options.end = -1;
    assert_int_equal(sap_reader_open(o.tree, &options, NULL, &reader, &error), SAP_EARGUMENT);
    close_tree(&o);
}

static int32_t count_columns(sap_tree *tree, const char *const *names, size_t count) {
    sap_reader *reader;
    sap_error error = {0};
    int32_t columns;
    sap_status status =
        sap_reader_open(tree, &(sap_reader_options){.columns = names, .count = count}, NULL, &reader, &error);
    if (status != SAP_OK)
        return -(int32_t)status;
    (void)sap_reader_fields(reader, &columns);
    sap_reader_close(reader);
    return columns;
}

static void test_choosing(void **state) {
    (void)state;
    opened o;
    if (!open_tree("corpus/scikit-hep-testdata/uproot-HZZ.root", "events", &o))
        skip();
    assert_int_equal(count_columns(o.tree, (const char *[]){"Muon_P?"}, 1), 3);
    assert_int_equal(count_columns(o.tree, (const char *[]){"Muon_*", "!*_Iso", "!*Charge"}, 3), 4);
    assert_int_equal(count_columns(o.tree, (const char *[]){"NMuon", "NMuon", "Muon_E"}, 3), 2);
    assert_int_equal(count_columns(o.tree, (const char *[]){"!Muon_*"}, 1), 51 - 6);
    assert_int_equal(count_columns(o.tree, (const char *[]){"Moun_E"}, 1), -SAP_ENOTFOUND);
    assert_int_equal(count_columns(o.tree, (const char *[]){"Moun_*"}, 1), -SAP_ENOTFOUND);
    close_tree(&o);
}

static void test_stream(void **state) {
    (void)state;
    opened o;
    if (!open_tree("corpus/scikit-hep-testdata/uproot-HZZ.root", "events", &o))
        skip();
    sap_reader *reader;
    sap_error error = {0};
    struct ArrowArrayStream stream;
    struct ArrowSchema schema;
    struct ArrowArray array;
    int64_t entries = 0;
    assert_int_equal(sap_reader_open(o.tree, &(sap_reader_options){.batch_entries = 1000}, NULL, &reader, &error),
                     SAP_OK);
    assert_int_equal(sap_reader_export(reader, &stream, &error), SAP_OK);
    assert_int_equal(stream.get_schema(&stream, &schema), 0);
    assert_int_equal(schema.n_children, 51);
    schema.release(&schema);
    for (;;) {
        assert_int_equal(stream.get_next(&stream, &array), 0);
        if (!array.release)
            break;
        entries += array.length;
        array.release(&array);
    }
    assert_int_equal(entries, 2421);
    assert_null(stream.get_last_error(&stream));
    stream.release(&stream);
    close_tree(&o);
}

static void test_cancelled(void **state) {
    (void)state;
    opened o;
    if (!open_tree("corpus/scikit-hep-testdata/uproot-HZZ.root", "events", &o))
        skip();
    int cancel = 0;
    sap_reader *reader;
    sap_batch batch = {0};
    assert_int_equal(sap_reader_open(o.tree, NULL, &(sap_run){.cancel = &cancel}, &reader, NULL), SAP_OK);
    cancel = 1;
    assert_int_equal(sap_reader_next(reader, &batch, NULL), SAP_ECANCELLED);
    assert_null(batch.storage);
    sap_reader_close(reader);
    close_tree(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_batches_jagged),  cmocka_unit_test(test_batches_objects),
                                       cmocka_unit_test(test_batches_delphes), cmocka_unit_test(test_ranges),
                                       cmocka_unit_test(test_choosing),        cmocka_unit_test(test_stream),
                                       cmocka_unit_test(test_cancelled)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
