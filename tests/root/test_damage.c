/* Damaged files: whatever is cut off or flipped, reading everything ends in values or in an error that names the file. Meant
 * to be run under sanitizers too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_folder.h"
#include "root/root_internal.h"

#include <sys/stat.h>

static const char *const files[] = {
    "corpus/scikit-hep-testdata/uproot-small-flat-tree.root",
    "corpus/go-hep_hep/groot/testdata/small-flat-tree.root",
    "corpus/JuliaHEP_UnROOT.jl/test/samples/tree_with_vector_string.root",
    "corpus/go-hep_hep/groot/testdata/tlv-split00.root",
    "corpus/go-hep_hep/groot/testdata/tlv-split99.root",
    "corpus/scikit-hep-testdata/uproot-small-evnt-tree-nosplit.root",
    "corpus/scikit-hep-testdata/issue367b.root",
    "corpus/root-project_roottest/root/tree/selectorreader/trees/TreeVectorClass0.root",
};
enum { FILES = sizeof files / sizeof *files, CUTS = 4096, PLACES = 300 };

static char scratch_path[] = "/tmp/sapwood-damage-XXXXXX";

static void check_error(const sap_error *error) {
    assert_int_not_equal(error->status, SAP_OK);
    if (!strstr(error->message, "sapwood-damage"))
        fail_msg("this message names no file: %s", error->message);
}

static void read_column(sap_tree *tree, const sap_branch *branch) {
    sap_reader *reader;
    sap_error error = {0};
    if (sap_reader_open(tree, &(sap_reader_options){.columns = &branch->name, .count = 1, .batch_entries = 1 << 20},
                        NULL, &reader, &error) != SAP_OK) {
        check_error(&error);
        return;
    }
    for (;;) {
        sap_batch batch = {0};
        if (sap_reader_next(reader, &batch, &error) != SAP_OK) {
            check_error(&error);
            break;
        }
        if (batch.length == 0)
            break;
        sap_batch_release(&batch);
    }
    sap_reader_close(reader);
}

/* Returns whether the file could at least be opened. */
static bool read_all(void) {
    sap_file *file;
    sap_error error = {0};
    if (sap_file_open(scratch_path, NULL, &file, &error) != SAP_OK) {
        check_error(&error);
        return false;
    }
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        sap_tree *tree;
        char name[300];
        if (!sap_key_is_tree(file, key))
            continue;
        (void)snprintf(name, sizeof name, "%s;%d", key->path, key->cycle);
        if (sap_tree_open(file, name, &tree, &error) != SAP_OK) {
            check_error(&error);
            continue;
        }
        for (size_t j = 0; j < sap_tree_branch_count(tree); j++) {
            const sap_branch *branch = sap_tree_branch(tree, j);
            if (branch->field)
                read_column(tree, branch);
        }
        sap_tree_close(tree);
    }
    sap_file_close(file);
    return true;
}

static void store(const uint8_t *data, size_t length) {
    FILE *f = fopen(scratch_path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static uint8_t *load(const char *path, size_t *length) {
    struct stat info;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &info), 0);
    *length = (size_t)info.st_size;
    uint8_t *data = malloc(*length);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *length, f), *length);
    assert_int_equal(fclose(f), 0);
    return data;
}

/* The header of a small file says where the file ends; a cut is told at once unless that is put right too. */
static void cut(const uint8_t *data, size_t length, size_t at, uint8_t *copy) {
    (void)length;
    memcpy(copy, data, at);
    store(copy, at);
    assert_false(read_all());
    if (at >= 20) {
        for (int i = 0; i < 4; i++)
            copy[12 + i] = (uint8_t)(at >> (24 - 8 * i));
        store(copy, at);
        (void)read_all();
    }
}

static void damage(size_t which) {
    char path[1000];
    if (!data_path(files[which], path, sizeof path))
        skip();
    size_t length;
    uint8_t *data = load(path, &length), *copy = malloc(length);
    assert_non_null(copy);
    store(data, length);
    assert_true(read_all());
    for (size_t at = 0; at < CUTS && at < length; at += which == 0 ? 1 : 17)
        cut(data, length, at, copy);
    for (uint64_t i = 0; i < PLACES; i++) {
        cut(data, length, (size_t)(sap_mix(which, i) % length), copy);
        memcpy(copy, data, length);
        for (uint64_t flips = 0; flips <= i % 3; flips++) {
            uint64_t bit = sap_mix(1000 + which, 3 * i + flips) % (8 * length);
            copy[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        store(copy, length);
        (void)read_all();
    }
    free(copy);
    free(data);
}

static void test_flat(void **state) {
    (void)state;
    damage(0);
    damage(1);
}

static void test_strings(void **state) {
    (void)state;
    damage(2);
}

static void test_objects(void **state) {
    (void)state;
    for (size_t i = 3; i < FILES; i++)
        damage(i);
}

int main(void) {
    int descriptor = mkstemp(scratch_path);
    if (descriptor < 0)
        return 1;
    close(descriptor);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flat), cmocka_unit_test(test_strings),
                                       cmocka_unit_test(test_objects)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(scratch_path);
    return failed;
}
