/* Files: whole or not at all, also when the disk (here: a limit on the size of files) is full. */
#include "base/base_internal.h"
#include "test_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[200], path[300];

static int setup(void **state) {
    (void)state;
    (void)snprintf(path, sizeof path, "%s/file", new_folder(folder, sizeof folder));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return sap_folder_remove(folder, NULL) == SAP_OK ? 0 : 1;
}

static void store_and_load(void **state) {
    (void)state;
    static const char text[] = "one\0two";
    assert_ok(sap_file_store(path, text, sizeof text, err));
    assert_ok(sap_file_store(path, text, sizeof text, err)); /* again, over the first */
    char *read;
    size_t length;
    assert_ok(sap_file_load(path, 100, &read, &length, err));
    assert_int_equal(length, sizeof text);
    assert_memory_equal(read, text, sizeof text);
    free(read);
    assert_error(SAP_EFORMAT, "larger than 3 bytes", sap_file_load(path, 3, &read, &length, err));
    assert_ok(sap_file_store(path, "", 0, err));
    assert_ok(sap_file_load(path, 100, &read, &length, err));
    assert_int_equal(length, 0);
    assert_string_equal(read, "");
    free(read);
}

static void large_files_load_whole(void **state) {
    (void)state;
    enum { LENGTH = 300000 };
    char *text = malloc(LENGTH), *read;
    size_t length;
    for (int i = 0; i < LENGTH; i++)
        text[i] = (char)(i * 7);
    assert_ok(sap_file_store(path, text, LENGTH, err));
    assert_ok(sap_file_load(path, LENGTH, &read, &length, err));
    assert_int_equal(length, LENGTH);
    assert_memory_equal(read, text, LENGTH);
    free(read);
    free(text);
}

static void missing_files_are_named(void **state) {
    (void)state;
    char *read;
    assert_error(SAP_ENOTFOUND, "/no/such: No such file", sap_file_load("/no/such", 10, &read, NULL, err));
    assert_error(SAP_EARGUMENT, "is a folder", sap_file_load(folder, 10, &read, NULL, err));
    assert_error(SAP_ENOTFOUND, "/no/such/file", sap_file_store("/no/such/file", "x", 1, err));
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    assert_ok(sap_file_store(path, "old", 3, err));
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){.rlim_cur = 1000, .rlim_max = before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    static char large[5000];
    sap_error error = {0};
    sap_status status = sap_file_store(path, large, sizeof large, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, SAP_EIO);
    assert_non_null(strstr(error.message, "file.partial: File too large"));
    char *read;
    assert_ok(sap_file_load(path, 100, &read, NULL, err));
    assert_string_equal(read, "old");
    free(read);
    char aside[310];
    (void)snprintf(aside, sizeof aside, "%s.partial", path);
    assert_false(sap_path_exists(aside));
}

static void folders(void **state) {
    (void)state;
    char deep[400], file[420];
    (void)snprintf(deep, sizeof deep, "%s/a/b/c", folder);
    assert_ok(sap_folder_make(deep, err));
    assert_ok(sap_folder_make(deep, err));
    (void)snprintf(file, sizeof file, "%s/f", deep);
    assert_ok(sap_file_store(file, "x", 1, err));
    (void)snprintf(deep, sizeof deep, "%s/a/b/c/f/d", folder);
    assert_int_equal(sap_folder_make(deep, NULL), SAP_EIO); /* a file is in the way */
    (void)snprintf(deep, sizeof deep, "%s/a", folder);
    assert_ok(sap_folder_remove(deep, err));
    assert_false(sap_path_exists(deep));
    assert_ok(sap_folder_remove(deep, err));
}

static void whole_reads_and_writes(void **state) {
    (void)state;
    char file[400], got[8] = "";
    (void)snprintf(file, sizeof file, "%s/bytes", folder);
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_true(sap_descriptor_write(fd, "012345", 6) && sap_descriptor_write(fd, "6789", 4));
    assert_int_equal(sap_descriptor_read(fd, got, 4, 3), 4);
    assert_memory_equal(got, "3456", 4);
    errno = EPERM;
    assert_int_equal(sap_descriptor_read(fd, got, 8, 7), 3); /* the end is no error */
    assert_int_equal(errno, 0);
    close(fd);
    assert_int_equal(sap_descriptor_read(fd, got, 1, 0), 0);
    assert_int_equal(errno, EBADF);
    assert_false(sap_descriptor_write(fd, got, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_and_load),
        cmocka_unit_test(large_files_load_whole),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(folders),
        cmocka_unit_test(whole_reads_and_writes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
