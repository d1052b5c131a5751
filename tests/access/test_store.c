/* Files and folders by name, and writing, on the local file system. */
#include "test_support.h"

#include <sapwood/access.h>

#include <sys/stat.h>
#include <unistd.h>

static char folder[200];

static int set_up(void **state) {
    (void)state;
    return new_folder(folder, sizeof folder) ? 0 : -1;
}

/* A path in the folder; overwritten by the fourth call after it. */
static const char *at(const char *name) {
    static char paths[4][300];
    static int turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *url, const char *text) {
    sap_sink *sink;
    assert_ok(sap_sink_open(url, NULL, &sink, err));
    assert_ok(sap_sink_write(sink, text, strlen(text), NULL, err));
    assert_ok(sap_sink_commit(sink, NULL, err));
    sap_sink_close(sink);
}

static void check_text(const char *path, const char *text) {
    char found[100] = "";
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(found, 1, sizeof found - 1, file);
    (void)fclose(file);
    assert_int_equal(length, strlen(text));
    assert_string_equal(found, text);
}

static void test_file_is_there_when_it_is_whole(void **state) {
    (void)state;
    sap_sink *sink;
    sap_file_info *files;
    size_t count;
    put(at("x/y/z.txt"), "old");
    assert_ok(sap_sink_open(at("x/y/z.txt"), NULL, &sink, err));
    assert_ok(sap_sink_write(sink, "new ", 4, NULL, err));
    assert_ok(sap_sink_write(sink, "text", 4, NULL, err));
    check_text(at("x/y/z.txt"), "old");
    assert_ok(sap_sink_commit(sink, NULL, err));
    assert_error(SAP_EARGUMENT, "written and closed", sap_sink_write(sink, "", 1, NULL, err));
    sap_sink_close(sink);
    check_text(at("x/y/z.txt"), "new text");
    assert_ok(sap_sink_open(at("x/y/z.txt"), NULL, &sink, err));
    assert_ok(sap_sink_write(sink, "lost", 4, NULL, err));
    sap_sink_close(sink);
    check_text(at("x/y/z.txt"), "new text");
    assert_ok(sap_store_list(at("x/y"), NULL, &files, &count, err));
    assert_int_equal(count, 1); /* nothing written aside is left */
    free(files);
    sap_sink_close(NULL);
}

static void test_without_writing_aside(void **state) {
    (void)state;
    setenv("SAPWOOD_WRITE_ASIDE", "no", 1);
    put(at("direct"), "text");
    sap_sink *sink;
    assert_ok(sap_sink_open(at("half"), NULL, &sink, err));
    sap_sink_close(sink);
    unsetenv("SAPWOOD_WRITE_ASIDE");
    check_text(at("direct"), "text");
    assert_error(SAP_ENOTFOUND, "half", sap_store_stat(at("half"), NULL, &(sap_file_info){0}, err));
}

static void test_list_and_stat(void **state) {
    (void)state;
    char url[300];
    put(at("f10"), "0123456789");
    put(at("f9"), "");
    assert_ok(sap_store_make_folder(at("sub/deep"), NULL, err));
    assert_ok(sap_store_make_folder(at("sub"), NULL, err));
    assert_int_equal(symlink("nowhere", at("dangling")), 0);
    sap_file_info *files, info;
    size_t count;
    (void)snprintf(url, sizeof url, "file://%s", folder);
    assert_ok(sap_store_list(url, NULL, &files, &count, err));
    assert_int_equal(count, 3);
    assert_string_equal(files[0].name, "f9"); /* numbers count as numbers */
    assert_string_equal(files[1].name, "f10");
    assert_string_equal(files[2].name, "sub");
    assert_int_equal(files[1].size, 10);
    assert_true(files[2].is_folder && !files[1].is_folder);
    free(files);
    assert_ok(sap_store_list(at("sub/deep"), NULL, &files, &count, err));
    assert_int_equal(count, 0);
    free(files);
    assert_ok(sap_store_stat(at("f10"), NULL, &info, err));
    assert_true(info.size == 10 && !info.is_folder && info.modified > 1600000000);
    assert_error(SAP_ENOTFOUND, "nothing", sap_store_list(at("nothing"), NULL, &files, &count, err));
    assert_error(SAP_EARGUMENT, "f9", sap_store_list(at("f9"), NULL, &files, &count, err));
    if (strstr(sap_version_parts(), "http\tyes"))
        assert_error(SAP_EUNSUPPORTED, "can only be read", sap_store_stat("https://host/x", NULL, &info, err));
}

static void test_rename(void **state) {
    (void)state;
    put(at("a"), "a");
    put(at("b"), "b");
    assert_error(SAP_EARGUMENT, "/b: ", sap_store_rename(at("a"), at("b"), false, NULL, err));
    check_text(at("b"), "b");
    assert_ok(sap_store_rename(at("a"), at("b"), true, NULL, err));
    check_text(at("b"), "a");
    assert_error(SAP_ENOTFOUND, "/a: ", sap_store_rename(at("a"), at("c"), false, NULL, err));
    assert_ok(sap_store_make_folder(at("folder/below"), NULL, err));
    assert_ok(sap_store_rename(at("folder"), at("other"), false, NULL, err));
    assert_error(SAP_EARGUMENT, "/other: ", sap_store_rename(at("b"), at("other"), true, NULL, err));
    assert_ok(sap_store_stat(at("other/below"), NULL, &(sap_file_info){0}, err));
    assert_error(SAP_EARGUMENT, "another server", sap_store_rename(at("b"), "root://host//b", true, NULL, err));
}

static void test_remove(void **state) {
    (void)state;
    put(at("tree/one/file"), "text");
    put(at("kept/file"), "text");
    assert_int_equal(symlink("../kept", at("tree/link")), 0);
    assert_error(SAP_EARGUMENT, "tree", sap_store_remove(at("tree"), false, NULL, err));
    assert_ok(sap_store_remove(at("tree"), true, NULL, err));
    check_text(at("kept/file"), "text"); /* links are not followed */
    assert_error(SAP_ENOTFOUND, "tree", sap_store_remove(at("tree"), true, NULL, err));
    assert_ok(sap_store_remove(at("kept/file"), true, NULL, err));
    assert_ok(sap_store_remove(at("kept"), false, NULL, err));
}

static void test_what_cannot_be_written(void **state) {
    (void)state;
    sap_sink *sink;
    put(at("file"), "text");
    if (strstr(sap_version_parts(), "http\tyes"))
        assert_error(SAP_EUNSUPPORTED, "https://host/x", sap_sink_open("https://host/x", NULL, &sink, err));
    assert_error(SAP_EIO, "file", sap_sink_open(at("file/below"), NULL, &sink, err));
    assert_ok(sap_store_make_folder(at("folder"), NULL, err));
    assert_ok(sap_sink_open(at("folder"), NULL, &sink, err));
    assert_error(SAP_EARGUMENT, "folder", sap_sink_commit(sink, NULL, err));
    assert_error(SAP_EARGUMENT, "folder", sap_sink_commit(sink, NULL, err)); /* and stays so */
    sap_sink_close(sink);
    volatile int cancel = 1;
    assert_error(SAP_ECANCELLED, "", sap_store_remove(at("file"), false, &(sap_run){.cancel = &cancel}, err));
    check_text(at("file"), "text");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_file_is_there_when_it_is_whole, set_up),
        cmocka_unit_test_setup(test_without_writing_aside, set_up),
        cmocka_unit_test_setup(test_list_and_stat, set_up),
        cmocka_unit_test_setup(test_rename, set_up),
        cmocka_unit_test_setup(test_remove, set_up),
        cmocka_unit_test_setup(test_what_cannot_be_written, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
