/* Files that are none, keys, cycles, sub-directories, and finding trees and branches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_folder.h"
#include "root/root_internal.h"

static void write_file(const char *path, const char *data, size_t length) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static void test_no_root_files(void **state) {
    (void)state;
    static const struct {
        const char *data;
        size_t length;
        const char *message;
    } cases[] = {
        {"", 0, "not a ROOT file"},
        {"roo", 3, "not a ROOT file"},
        {"PAR1....................................................................", 60, "not a ROOT file"},
        {"root\0\0\0\0", 8, "needs"},
        {"root\0\0\xf7\xb0\0\0\0\x64\x7f\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0", 45,
         "cut short"}};
    char path[] = "/tmp/sapwood-file-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_file *file = NULL;
        sap_error error = {0};
        write_file(path, cases[i].data, cases[i].length);
        assert_int_equal(sap_file_open(path, NULL, &file, &error), SAP_EFORMAT);
        assert_non_null(strstr(error.message, path));
        assert_non_null(strstr(error.message, cases[i].message));
    }
    (void)unlink(path);
    sap_file *file = NULL;
    assert_int_not_equal(sap_file_open(path, NULL, &file, NULL), SAP_OK);
    int cancelled = 1;
    assert_int_equal(sap_file_open(path, &(sap_run){.cancel = &cancelled}, &file, NULL), SAP_ECANCELLED);
}

static void test_directories(void **state) {
    (void)state;
    char path[1000];
    if (!data_path("corpus/scikit-hep-testdata/uproot-nesteddirs.root", path, sizeof path))
        skip();
    sap_file *file;
    sap_tree *tree;
    sap_error error = {0};
    assert_int_equal(sap_file_open(path, NULL, &file, &error), SAP_OK);
    bool found = false;
    for (size_t i = 0; i < sap_file_key_count(file); i++)
        found = found || strcmp(sap_file_key(file, i)->path, "one/two/tree") == 0;
    assert_true(found);
    assert_null(sap_file_key(file, sap_file_key_count(file)));
    assert_int_equal(sap_tree_open(file, "one/two/tree", &tree, &error), SAP_OK);
    assert_string_equal(sap_tree_path(tree), "one/two/tree");
    assert_int_equal(sap_tree_entries(tree), 100);
    const sap_branch *branch;
    assert_int_equal(sap_tree_find(tree, "SliceInt32", &branch, &error), SAP_OK);
    assert_int_equal(branch->field->type, SAP_LIST);
    assert_int_equal(branch->field->children[0].type, SAP_INT32);
    assert_int_equal(sap_tree_find(tree, "SliceInt23", &branch, &error), SAP_ENOTFOUND);
    assert_non_null(strstr(error.message, "nearest: SliceInt32"));
    sap_tree_close(tree);
    assert_int_equal(sap_tree_open(file, "one/two/treee", &tree, &error), SAP_ENOTFOUND);
    assert_non_null(strstr(error.message, "one/two/tree"));
    assert_int_equal(sap_tree_open(file, "one/two/tree;7", &tree, &error), SAP_ENOTFOUND);
    assert_int_equal(sap_tree_open(file, "one", &tree, &error), SAP_ETYPE);
    assert_int_equal(sap_tree_open(file, NULL, &tree, &error), SAP_EARGUMENT); /* there are several */
    assert_non_null(strstr(error.message, "one/tree"));
    sap_file_close(file);
}

static void test_ntuple(void **state) {
    (void)state;
    char path[1000];
    if (!data_path("delphes/variants/ttbar_rntuple.root", path, sizeof path))
        skip();
    sap_file *file;
    sap_tree *tree;
    sap_error error = {0};
    assert_int_equal(sap_file_open(path, NULL, &file, &error), SAP_OK);
    assert_int_equal(sap_tree_open(file, NULL, &tree, &error), SAP_OK);
    assert_int_equal(sap_tree_entries(tree), 200);
    sap_tree_close(tree);
    sap_file_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_root_files), cmocka_unit_test(test_directories),
                                       cmocka_unit_test(test_ntuple)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
