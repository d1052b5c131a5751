/* Sources: ranges, bounds, URLs, patterns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "access/access_internal.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/sapwood-source-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    static const char *const names[] = {"run2.root", "run10.root", "run1.root", "a[1].root"};
    if (!mkdtemp(folder) || chdir(folder) != 0)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        FILE *f = fopen(names[i], "wb");
        if (!f || fwrite("0123456789", 1, 10, f) != 10 || fclose(f) != 0)
            return -1;
    }
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    return sap_folder_remove(folder, NULL) == SAP_OK ? 0 : -1;
}

static void test_ranges(void **state) {
    (void)state;
    sap_source *source;
    sap_error error = {0};
    char a[4] = {0}, b[3] = {0};
    assert_int_equal(sap_source_open("run1.root", NULL, &source, &error), SAP_OK);
    assert_int_equal(sap_source_size(source), 10);
    assert_string_equal(sap_source_name(source), "run1.root");
    sap_range ranges[] = {{7, 3, a}, {0, 2, b}, {10, 0, NULL}};
    assert_int_equal(sap_source_read(source, ranges, 3, NULL, &error), SAP_OK);
    assert_string_equal(a, "789");
    assert_string_equal(b, "01");
    sap_source_close(source);
}

static void test_bounds(void **state) {
    (void)state;
    sap_source *source;
    sap_error error = {0};
    char a[16];
    assert_int_equal(sap_source_open("run1.root", NULL, &source, &error), SAP_OK);
    const sap_range wrong[] = {{8, 3, a}, {11, 0, a}, {UINT64_MAX, 1, a}, {1, SIZE_MAX, a}};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(sap_source_read(source, &wrong[i], 1, NULL, &error), SAP_EFORMAT);
    assert_non_null(strstr(error.message, "run1.root @0x1"));
    /* cut short behind its back: an error, not a signal */
    assert_int_equal(truncate("run1.root", 4), 0);
    assert_int_equal(sap_source_read(source, &(sap_range){2, 8, a}, 1, NULL, &error), SAP_EIO);
    sap_source_close(source);
    sap_source_close(NULL);
}

/* Mapped or not, the same bytes; and never more than the file still has. */
static void test_mapping(void **state) {
    (void)state;
    sap_source *source;
    sap_error error = {0};
    for (int mapped = 0; mapped < 2; mapped++) {
        setenv("SAPWOOD_MMAP", mapped ? "yes" : "no", 1);
        assert_int_equal(sap_source_open("run10.root", NULL, &source, &error), SAP_OK);
        assert_false(sap_source_is_remote(source));
        const uint8_t *bytes = sap_source_map(source, 4, 6);
        if (mapped && bytes) /* the folder may be on a file system that is not mapped */
            assert_memory_equal(bytes, "456789", 6);
        if (!mapped)
            assert_null(bytes);
        assert_null(sap_source_map(source, 4, 7));
        assert_null(sap_source_map(source, UINT64_MAX, 2));
        sap_fetch *fetch;
        const sap_range ranges[] = {{7, 3, NULL}, {0, 2, NULL}, {1, 8, NULL}, {10, 0, NULL}};
        assert_int_equal(sap_fetch_start(source, ranges, 4, &fetch, &error), SAP_OK);
        assert_null(mapped ? NULL : sap_fetch_data(fetch, 0));
        assert_int_equal(sap_fetch_wait(fetch, NULL, &error), SAP_OK);
        assert_memory_equal(sap_fetch_data(fetch, 0), "789", 3);
        assert_memory_equal(sap_fetch_data(fetch, 1), "01", 2);
        assert_memory_equal(sap_fetch_data(fetch, 2), "12345678", 8);
        assert_non_null(sap_fetch_data(fetch, 3));
        sap_fetch_close(fetch);
        assert_int_equal(truncate("run10.root", 5), 0);
        assert_null(sap_source_map(source, 4, 6));
        assert_int_equal(sap_fetch_start(source, ranges, 1, &fetch, &error), SAP_OK);
        assert_int_equal(sap_fetch_wait(fetch, NULL, &error), SAP_EIO);
        sap_fetch_close(fetch);
        sap_source_close(source);
        FILE *f = fopen("run10.root", "wb");
        assert_true(f && fwrite("0123456789", 1, 10, f) == 10 && fclose(f) == 0);
    }
    unsetenv("SAPWOOD_MMAP");
}

static void test_urls(void **state) {
    (void)state;
    sap_source *source;
    sap_error error = {0};
    char url[200];
    (void)snprintf(url, sizeof url, "file://%s/run2.root", folder);
    assert_int_equal(sap_source_open(url, NULL, &source, &error), SAP_OK);
    sap_source_close(source);
    assert_int_equal(sap_source_open("file:run2.root", NULL, &source, &error), SAP_OK);
    sap_source_close(source);
    assert_int_equal(sap_source_open("file://elsewhere/run2.root", NULL, &source, &error), SAP_EARGUMENT);
    assert_int_equal(sap_source_open("gopher://host/x.root", NULL, &source, &error), SAP_EUNSUPPORTED);
    assert_int_equal(sap_source_open(folder, NULL, &source, &error), SAP_EARGUMENT);
    assert_int_not_equal(sap_source_open("none.root", NULL, &source, &error), SAP_OK);
    assert_non_null(strstr(error.message, "none.root"));
}

static void test_patterns(void **state) {
    (void)state;
    char **names;
    size_t count;
    sap_error error = {0};
    assert_int_equal(sap_source_glob("run*.root", NULL, &names, &count, &error), SAP_OK);
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "run1.root");
    assert_string_equal(names[1], "run2.root");
    assert_string_equal(names[2], "run10.root");
    free(names);
    assert_int_equal(sap_source_glob("run{10,2}.root", NULL, &names, &count, &error), SAP_OK);
    assert_int_equal(count, 2);
    free(names);
    assert_int_equal(sap_source_glob("a[1].root", NULL, &names, &count, &error), SAP_OK); /* the name itself */
    assert_int_equal(count, 1);
    free(names);
    assert_int_equal(sap_source_glob("root://host//x.root", NULL, &names, &count, &error), SAP_OK);
    assert_string_equal(names[0], "root://host//x.root");
    free(names);
    assert_int_equal(sap_source_glob("nothing*.root", NULL, &names, &count, &error), SAP_ENOTFOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranges), cmocka_unit_test(test_urls),
                                       cmocka_unit_test(test_patterns), cmocka_unit_test(test_mapping),
                                       cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
