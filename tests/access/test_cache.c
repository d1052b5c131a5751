/* The cache: a second reading asks the server nothing, damage is noticed, another version is another file, and it stays small. */
#include "fake_transport.h"
#include "test_support.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[4000];

static int set_up(void **state) {
    (void)state;
    static char name[] = "/tmp/sapwood-cache-XXXXXX";
    (void)strcpy(name, "/tmp/sapwood-cache-XXXXXX");
    if (!mkdtemp(name))
        return -1;
    (void)snprintf(folder, sizeof folder, "%s/deep/cache", name);
    setenv("SAPWOOD_CACHE", folder, 1);
    unsetenv("SAPWOOD_CACHE_BYTES");
    fake_start(3000000);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fake_stop();
    folder[strlen(folder) - strlen("/deep/cache")] = '\0';
    return FAKE_GET(opened) == FAKE_GET(closed) && sap_folder_remove(folder, NULL) == SAP_OK ? 0 : -1;
}

/* Reads four ranges and checks them; the requests that it took. */
static long long read_once(const char *name, uint64_t *cached_bytes) {
    sap_source *source = NULL;
    sap_fetch *fetch;
    long long before = FAKE_GET(submitted);
    const sap_range ranges[] = {{10, 100, NULL}, {130000, 5000, NULL}, {1000000, 700000, NULL}, {2999999, 1, NULL}};
    assert_ok(sap_source_open_on(&fake_transport, name, name, NULL, &source, err));
    assert_ok(sap_fetch_start(source, ranges, 4, &fetch, err));
    assert_ok(sap_fetch_wait(fetch, NULL, err));
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *data = sap_fetch_data(fetch, i);
        for (size_t j = 0; j < ranges[i].length; j++)
            assert_int_equal(data[j], fake_byte(ranges[i].offset + j));
    }
    sap_source_stats stats;
    sap_source_stats_get(source, &stats);
    if (cached_bytes)
        *cached_bytes = stats.cached_bytes;
    sap_fetch_close(fetch);
    sap_source_close(source);
    return FAKE_GET(submitted) - before;
}

/* Calls visit for the path of every file below; how many there are. */
static size_t walk(const char *path, void (*visit)(const char *path), uint64_t *bytes) {
    size_t count = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char child[5000];
        struct stat info;
        (void)snprintf(child, sizeof child, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' || lstat(child, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode)) {
            count += walk(child, visit, bytes);
            continue;
        }
        count++;
        if (bytes)
            *bytes += (uint64_t)info.st_size;
        if (visit)
            visit(child);
    }
    if (d)
        closedir(d);
    return count;
}

static void test_second_reading(void **state) {
    (void)state;
    uint64_t cached;
    assert_true(read_once("fake://a", &cached) > 0);
    assert_int_equal(cached, 0);
    assert_int_equal(walk(folder, NULL, NULL), 9); /* blocks of 128 KiB: 0, 1, 7 to 12, and 22; nothing left aside */
    assert_int_equal(read_once("fake://a", &cached), 0);
    assert_true(cached > 705101);
    assert_true(read_once("fake://b", NULL) > 0); /* another file */
    FAKE_SET(version, "2");
    assert_true(read_once("fake://a", NULL) > 0); /* written anew */
    FAKE_SET(version, NULL);
    assert_true(read_once("fake://a", NULL) > 0); /* not kept: nobody could tell when it changes */
    assert_true(read_once("fake://a", NULL) > 0);
}

static void flip_a_bit(const char *path) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    assert_int_equal(fputc(byte ^ 4, f), byte ^ 4);
    assert_int_equal(fclose(f), 0);
}

static void cut_short(const char *path) {
    assert_int_equal(truncate(path, 20), 0);
}

static char first_path[5000];
static void swap_blocks(const char *path) { /* sound, but of another place */
    if (!*first_path)
        (void)snprintf(first_path, sizeof first_path, "%s", path);
    else
        assert_int_equal(unlink(path) == 0 && link(first_path, path) == 0, 1);
}

static void test_damage(void **state) {
    (void)state;
    static void (*const damages[])(const char *) = {flip_a_bit, cut_short, swap_blocks};
    long long fresh = read_once("fake://a", NULL);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        walk(folder, damages[i], NULL);
        assert_true(read_once("fake://a", NULL) > 0); /* right, though the cache is not */
        assert_int_equal(read_once("fake://a", NULL), 0);
    }
    assert_true(fresh > 0);
}

static void test_limit(void **state) {
    (void)state;
    setenv("SAPWOOD_CACHE_BYTES", "3 MB", 1);
    uint64_t bytes = 0;
    for (int i = 0; i < 10; i++) {
        char name[20];
        (void)snprintf(name, sizeof name, "fake://%d", i);
        assert_true(read_once(name, NULL) > 0);
        bytes = 0;
        walk(folder, NULL, &bytes);
        assert_true(bytes < 3000000 / 16 * 17 + 200000);
    }
    assert_true(bytes > 2000000);
    assert_int_equal(read_once("fake://9", NULL), 0); /* the newest are there, the oldest have gone */
    assert_true(read_once("fake://0", NULL) > 0);
}

static void test_unusable_folder(void **state) {
    (void)state;
    sap_source *source;
    setenv("SAPWOOD_CACHE", "/dev/null/cache", 1);
    assert_error(SAP_EIO, "SAPWOOD_CACHE",
                 sap_source_open_on(&fake_transport, "fake://a", "fake://a", NULL, &source, err));
    setenv("SAPWOOD_CACHE", folder, 1);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {WITH_SERVER(test_second_reading), WITH_SERVER(test_damage),
                                       WITH_SERVER(test_limit), WITH_SERVER(test_unusable_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
