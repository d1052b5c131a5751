/* Several files as one table, and friends: the same values as from the trees one by one. */
#include "root/root_internal.h"
#include "test_support.h"

#include <unistd.h>

static const char *const files[] = {"qcd.root", "ttbar.root", "wjets.root"};
static const char *const columns[] = {"Jet.PT", "MissingET.MET"};
enum { FILES = 3, MOST_ENTRIES = 4096 };

static void check(sap_status status, const sap_error *error) {
    if (status != SAP_OK)
        fail_msg("%s", error->message);
}

/* The jets of each entry, as one number each: a mix of their momenta. */
static int64_t read_all(sap_reader *reader, uint64_t *values, int64_t begin) {
    sap_error error = {0};
    int64_t n = begin;
    for (;;) {
        sap_batch batch = {0};
        check(sap_reader_next(reader, &batch, &error), &error);
        if (batch.length == 0)
            return n;
        assert_int_equal(batch.first_entry, n);
        int64_t first;
        assert_non_null(sap_reader_file(reader, &first));
        assert_true(first <= n);
        const sap_column *c = &batch.columns[0];
        for (int64_t i = 0; i < batch.length; i++, n++) {
            assert_true(n < MOST_ENTRIES);
            values[n] = 1;
            for (int32_t j = c->offsets[i]; j < c->offsets[i + 1]; j++) {
                uint32_t bits;
                memcpy(&bits, (const float *)c->children[0].values + j, sizeof bits);
                values[n] = sap_mix(values[n], bits);
            }
        }
        sap_batch_release(&batch);
    }
}

/* All entries of the files one by one. */
static int64_t read_singly(uint64_t *values, int64_t ends[FILES]) {
    int64_t n = 0;
    for (int i = 0; i < FILES; i++) {
        sap_error error = {0};
        sap_file *file;
        sap_tree *tree;
        sap_reader *reader;
        check(sap_file_open(files[i], NULL, &file, &error), &error);
        check(sap_tree_open(file, "Delphes", &tree, &error), &error);
        check(sap_reader_open(tree, &(sap_reader_options){.columns = columns, .count = 2}, NULL, &reader, &error),
              &error);
        n += read_all(reader, values + n, 0);
        ends[i] = n;
        sap_reader_close(reader);
        sap_tree_close(tree);
        sap_file_close(file);
    }
    return n;
}

static void test_files_as_one(void **state) {
    (void)state;
    static uint64_t wanted[MOST_ENTRIES], got[MOST_ENTRIES];
    int64_t ends[FILES], n = read_singly(wanted, ends);
    sap_pool *pool;
    sap_error error = {0};
    check(sap_pool_open(3, &pool, &error), &error);
    sap_run run = {.pool = pool};
    const int64_t ranges[][2] = {
        {0, 0}, {ends[0] - 5, ends[0] + 5}, {ends[0], ends[1]}, {ends[1] + 1, n}, {10, ends[2] - 1}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        for (int threads = 0; threads < 2; threads++) {
            sap_reader *reader;
            sap_reader_options o = {
                .columns = columns, .count = 2, .begin = ranges[i][0], .end = ranges[i][1], .batch_entries = 300};
            memset(got, 0, sizeof got);
            check(sap_reader_open_files(files, FILES, NULL, &o, threads ? &run : NULL, &reader, &error), &error);
            int32_t count;
            const sap_field *fields = sap_reader_fields(reader, &count);
            assert_int_equal(count, 2);
            assert_string_equal(fields[1].name, "MissingET.MET");
            int64_t end = ranges[i][1] ? ranges[i][1] : n;
            assert_int_equal(read_all(reader, got, ranges[i][0]), end);
            assert_memory_equal(got + ranges[i][0], wanted + ranges[i][0], (size_t)(end - ranges[i][0]) * sizeof *got);
            sap_reader_close(reader);
        }
    }
    sap_pool_close(pool);
}

static void test_patterns_and_mistakes(void **state) {
    (void)state;
    sap_error error = {0};
    sap_reader *reader;
    const char *pattern = "*.root", *missing[] = {files[0], "absent.root"};
    sap_reader_options o = {.columns = columns, .count = 2};
    static uint64_t values[MOST_ENTRIES];
    int64_t ends[FILES], n = read_singly(values, ends);
    check(sap_reader_open_files(&pattern, 1, "Delphes", &o, NULL, &reader, &error), &error);
    assert_int_equal(read_all(reader, values, 0), n); /* in the order of their names, which is that of `files` */
    sap_reader_close(reader);

    check(sap_reader_open_files(missing, 1, NULL, &o, NULL, &reader, &error), &error);
    sap_reader_close(reader);
    o.end = n + 1;
    check(sap_reader_open_files(files, FILES, NULL, &o, NULL, &reader, &error), &error);
    sap_status status;
    do {
        sap_batch batch = {0};
        status = sap_reader_next(reader, &batch, &error);
        if (status == SAP_OK)
            assert_true(batch.length > 0);
        sap_batch_release(&batch);
    } while (status == SAP_OK);
    assert_int_equal(status, SAP_EARGUMENT);
    assert_non_null(strstr(error.message, "3 files"));
    sap_reader_close(reader);
    assert_int_equal(sap_reader_open_files(missing + 1, 1, NULL, NULL, NULL, &reader, &error), SAP_ENOTFOUND);
    assert_int_equal(sap_reader_open_files(missing, 0, NULL, NULL, NULL, &reader, &error), SAP_EARGUMENT);
}

static void test_friend(void **state) {
    (void)state;
    sap_error error = {0};
    sap_file *file[2];
    sap_tree *tree[2];
    sap_reader *reader;
    static uint64_t wanted[MOST_ENTRIES], got[MOST_ENTRIES];
    int64_t ends[FILES];
    (void)read_singly(wanted, ends);
    for (int i = 0; i < 2; i++) {
        check(sap_file_open(files[i], NULL, &file[i], &error), &error);
        check(sap_tree_open(file[i], "Delphes", &tree[i], &error), &error);
    }
    const char *names[] = {"top.Jet.PT", "Jet.PT"};
    check(sap_tree_add_friend(tree[0], tree[1], "top", &error), &error); /* 800 entries beside 710 */
    check(sap_reader_open(tree[0], &(sap_reader_options){.columns = names, .count = 2}, NULL, &reader, &error), &error);
    int64_t n = read_all(reader, got, 0);
    assert_int_equal(n, ends[0]);
    assert_memory_equal(got, wanted + ends[0], (size_t)n * sizeof *got);
    sap_reader_close(reader);
    assert_int_equal(sap_reader_open(tree[0],
                                     &(sap_reader_options){.columns = (const char *[]){"top.Nothing"}, .count = 1},
                                     NULL, &reader, &error),
                     SAP_ENOTFOUND);
    check(sap_tree_add_friend(tree[1], tree[0], NULL, &error), &error); /* 710 beside 800: too short */
    names[0] = "Delphes.Jet.PT";
    assert_int_equal(
        sap_reader_open(tree[1], &(sap_reader_options){.columns = names, .count = 1}, NULL, &reader, &error),
        SAP_EDATA);
    for (int i = 0; i < 2; i++) {
        sap_tree_close(tree[i]);
        sap_file_close(file[i]);
    }
}

static void test_clusters(void **state) {
    (void)state;
    sap_error error = {0};
    sap_file *file;
    sap_tree *tree;
    check(sap_file_open(files[0], NULL, &file, &error), &error);
    check(sap_tree_open(file, "Delphes", &tree, &error), &error);
    size_t count;
    const int64_t *starts = sap_tree_clusters(tree, &count);
    assert_true(count >= 1);
    assert_int_equal(starts[0], 0);
    for (size_t i = 1; i < count; i++)
        assert_true(starts[i] > starts[i - 1] && starts[i] < sap_tree_entries(tree));
    sap_tree_close(tree);
    sap_file_close(file);
}

int main(void) {
    char sample[1000];
    const char *source = getenv("SAPWOOD_SOURCE");
    (void)snprintf(sample, sizeof sample, "%s/examples/topology/data", source ? source : ".");
    if (chdir(sample) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_as_one),
        cmocka_unit_test(test_patterns_and_mistakes),
        cmocka_unit_test(test_friend),
        cmocka_unit_test(test_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
