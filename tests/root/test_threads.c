/* Eight threads read one open file, all its columns at once: the values are those that one thread reads. For the thread
 * sanitizer above all. */
#include "test_support.h"

#include "root/root_internal.h"

#include <pthread.h>

enum { THREADS = 8, ROUNDS = 3 };

static uint64_t hash_column(uint64_t seed, const sap_column *c, int64_t length) {
    if (c->type == SAP_LIST || c->type == SAP_STRING)
        seed = sap_hash(c->offsets, (size_t)(length + 1) * sizeof *c->offsets, seed);
    size_t size = sap_type_size(c->type);
    if (size && c->values)
        seed = sap_hash(c->values, (size_t)length * size, seed);
    for (int32_t i = 0; i < c->count; i++)
        seed = hash_column(seed, &c->children[i], c->children[i].length);
    return seed;
}

/* Of all columns that can be read, one after another. */
static uint64_t read_tree(sap_tree *tree, const sap_run *run) {
    uint64_t seed = 0;
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *branch = sap_tree_branch(tree, i);
        sap_reader *reader;
        sap_error error = {0};
        if (!branch->field)
            continue;
        sap_reader_options options = {.columns = &branch->name, .count = 1, .batch_entries = 3};
        if (sap_reader_open(tree, &options, run, &reader, &error) != SAP_OK)
            return 0;
        for (;;) {
            sap_batch batch = {0};
            if (sap_reader_next(reader, &batch, &error) != SAP_OK)
                seed = 0;
            if (error.status != SAP_OK || batch.length == 0)
                break;
            seed = hash_column(seed, &batch.columns[0], batch.length);
            sap_batch_release(&batch);
        }
        sap_reader_close(reader);
    }
    return seed;
}

typedef struct task {
    sap_file *file;
    sap_tree *tree; /* NULL: the thread opens one of its own */
    const char *name;
    sap_pool *pool;
    uint64_t hash;
} task;

static void *work(void *context) {
    task *t = context;
    sap_tree *tree = t->tree;
    if (!tree && sap_tree_open(t->file, t->name, &tree, NULL) != SAP_OK)
        return NULL;
    t->hash = read_tree(tree, &(sap_run){.pool = t->pool});
    if (!t->tree)
        sap_tree_close(tree);
    return NULL;
}

static void read_by_many(const char *file_name, const char *name) {
    char path[1000];
    sap_file *file;
    sap_tree *alone;
    const char *source = getenv("SAPWOOD_SOURCE");
    (void)snprintf(path, sizeof path, "%s/tests/fuzz/corpus/columns/%s", source ? source : ".", file_name);
    assert_ok(sap_file_open(path, NULL, &file, err));
    assert_ok(sap_tree_open(file, name, &alone, err));
    uint64_t expected = read_tree(alone, NULL);
    assert_int_not_equal(expected, 0);
    sap_tree_close(alone);
    sap_file_close(file);
    sap_pool *pool;
    assert_ok(sap_pool_open(3, &pool, err));
    for (int round = 0; round < ROUNDS; round++) { /* opened anew: what is read on first use is met by all at once */
        task tasks[THREADS];
        pthread_t threads[THREADS];
        sap_tree *shared;
        assert_ok(sap_file_open(path, NULL, &file, err));
        assert_ok(sap_tree_open(file, name, &shared, err));
        for (int i = 0; i < THREADS; i++) {
            tasks[i] = (task){file, i % 2 ? shared : NULL, name, i % 3 ? NULL : pool, 0};
            assert_int_equal(pthread_create(&threads[i], NULL, work, &tasks[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(tasks[i].hash, expected);
        sap_tree_close(shared);
        sap_file_close(file);
    }
    sap_pool_close(pool);
}

static void test_trees(void **state) {
    (void)state;
    static const char *const files[] = {"flat.root",  "sizes.root",  "collections.root", "split.root", "whole.root",
                                        "track.root", "vector.root", "clones.root",      "lz4.root",   "zstd.root"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        read_by_many(files[i], "t");
}

static void test_ntuples(void **state) {
    (void)state;
    read_by_many("ntuple.root", "n");
    read_by_many("ntuple_late.root", "n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_trees), cmocka_unit_test(test_ntuples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
