/* Fetches against a server that is slow, forgetful, frozen or dead: what arrives is right, waiting ends, nothing is lost. */
#include "fake_transport.h"
#include "test_support.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int set_up(void **state) {
    (void)state;
    setenv("SAPWOOD_CONNECT_SECONDS", "2", 1);
    setenv("SAPWOOD_STALL_SECONDS", "0.3", 1);
    setenv("SAPWOOD_DEADLINE_SECONDS", "10", 1);
    setenv("SAPWOOD_REQUEST_BYTES", "200 kB", 1);
    setenv("SAPWOOD_GAP_BYTES", "1000", 1);
    setenv("SAPWOOD_IN_FLIGHT", "4", 1);
    unsetenv("SAPWOOD_CACHE");
    fake_start(10000000);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fake_stop();
    return FAKE_GET(opened) == FAKE_GET(closed) && FAKE_GET(under_way) == 0 ? 0 : -1;
}

static sap_source *open_fake(void) {
    sap_source *source = NULL;
    assert_ok(sap_source_open_on(&fake_transport, "fake://file", "fake://file", NULL, &source, err));
    return source;
}

static void check_bytes(const uint8_t *data, uint64_t offset, size_t length) {
    assert_non_null(data);
    for (size_t i = 0; i < length; i++) {
        if (data[i] != fake_byte(offset + i))
            fail_msg("byte %zu of the range at %llu is wrong", i, (unsigned long long)offset);
    }
}

static void make_ranges(sap_range *ranges, size_t count, uint64_t seed, size_t longest) {
    for (size_t i = 0; i < count; i++) {
        ranges[i].length = sap_mix(seed, 2 * i) % longest;
        ranges[i].offset = sap_mix(seed, 2 * i + 1) % (10000000 - longest);
        ranges[i].data = NULL;
    }
}

static void fetch_and_check(sap_source *source, const sap_range *ranges, size_t count) {
    sap_fetch *fetch;
    assert_ok(sap_fetch_start(source, ranges, count, &fetch, err));
    assert_ok(sap_fetch_wait(fetch, NULL, err));
    for (size_t i = 0; i < count; i++)
        check_bytes(sap_fetch_data(fetch, i), ranges[i].offset, ranges[i].length);
    assert_null(sap_fetch_data(fetch, count));
    sap_fetch_close(fetch);
}

static void test_many_ranges(void **state) {
    (void)state;
    sap_source *source = open_fake();
    assert_true(sap_source_is_remote(source));
    sap_range ranges[300];
    make_ranges(ranges, 300, 1, 5000);
    ranges[7] = (sap_range){1234567, 1500000, NULL}; /* longer than a request */
    ranges[8] = (sap_range){9999999, 1, NULL};
    ranges[9] = (sap_range){10000000, 0, NULL};
    fetch_and_check(source, ranges, 300);
    assert_true(FAKE_GET(submitted) < 60);
    assert_true(FAKE_GET(largest_count) <= 16 && FAKE_GET(largest_count) > 4);
    assert_true(FAKE_GET(largest_bytes) <= 200000);
    assert_true(FAKE_GET(most_under_way) <= 4);
    sap_source_stats stats;
    sap_source_stats_get(source, &stats);
    assert_int_equal(stats.ranges, 300);
    assert_int_equal(stats.requests, FAKE_GET(submitted));
    assert_int_equal(stats.retries, 0);
    assert_error(SAP_EFORMAT, "fake://file @0x989680",
                 sap_fetch_start(source, &(sap_range){10000000, 1, NULL}, 1, &(sap_fetch *){NULL}, err));
    sap_source_close(source);
}

static void test_answers_inside_submit(void **state) {
    (void)state;
    FAKE_SET(at_once, true);
    FAKE_SET(limits.ranges, 1);
    sap_source *source = open_fake();
    static sap_range ranges[20000]; /* one request each: a recursion would end the stack */
    for (size_t i = 0; i < 5000; i++)
        ranges[i] = (sap_range){i * 2000, 10, NULL};
    fetch_and_check(source, ranges, 5000);
    assert_int_equal(FAKE_GET(submitted), 5000);
    sap_source_close(source);
}

static void test_failures_are_retried(void **state) {
    (void)state;
    FAKE_SET(fail, 5);
    sap_source *source = open_fake();
    sap_range ranges[50];
    make_ranges(ranges, 50, 2, 100000);
    fetch_and_check(source, ranges, 50);
    sap_source_stats stats;
    sap_source_stats_get(source, &stats);
    assert_int_equal(stats.retries, 5);
    sap_source_close(source);
}

static void test_some_failures_are_final(void **state) {
    (void)state;
    FAKE_SET(fail, 1);
    FAKE_SET(failure, SAP_ENOTFOUND);
    sap_source *source = open_fake();
    sap_fetch *fetch;
    const sap_range ranges[] = {{0x1000, 10, NULL}};
    assert_ok(sap_fetch_start(source, ranges, 1, &fetch, err));
    assert_error(SAP_ENOTFOUND, "fake://file @0x1000: the server is out of sorts", sap_fetch_wait(fetch, NULL, err));
    assert_error(SAP_ENOTFOUND, "out of sorts", sap_fetch_wait(fetch, NULL, err)); /* and stays so */
    assert_null(sap_fetch_data(fetch, 0));
    sap_fetch_close(fetch);
    fetch_and_check(source, ranges, 1); /* the next may do better */
    sap_source_close(source);
}

static void test_deadline(void **state) {
    (void)state;
    setenv("SAPWOOD_DEADLINE_SECONDS", "1", 1);
    FAKE_SET(fail, 1000000);
    sap_source *source = open_fake();
    sap_fetch *fetch;
    assert_ok(sap_fetch_start(source, &(sap_range){0x2000, 10, NULL}, 1, &fetch, err));
    double begin = now();
    assert_error(SAP_EIO, "fake://file @0x2000: the server is out of sorts; tried", sap_fetch_wait(fetch, NULL, err));
    assert_true(now() - begin > 0.9 && now() - begin < 6);
    sap_fetch_close(fetch);
    sap_source_close(source);
}

static void test_frozen(void **state) {
    (void)state;
    setenv("SAPWOOD_DEADLINE_SECONDS", "1", 1);
    sap_source *source = open_fake();
    for (int deaf = 0; deaf < 2; deaf++) { /* deaf: what was asked is not even answered after the reset */
        FAKE_SET(deaf, deaf != 0);
        FAKE_SET(frozen, true);
        sap_fetch *fetch;
        sap_range ranges[50];
        make_ranges(ranges, 50, 3, 100000);
        assert_ok(sap_fetch_start(source, ranges, 50, &fetch, err));
        double begin = now();
        assert_error(SAP_EIO, "no answer for 0.", sap_fetch_wait(fetch, NULL, err));
        assert_true(now() - begin > 0.9 && now() - begin < 6);
        assert_true(FAKE_GET(resets) >= 1);
        begin = now();
        sap_fetch_close(fetch);
        assert_true(now() - begin < 2);
        FAKE_SET(frozen, false);
        fetch_and_check(source, ranges, 50);
    }
    FAKE_SET(frozen, true);
    sap_fetch *fetch;
    assert_ok(sap_fetch_start(source, &(sap_range){0, 10, NULL}, 1, &fetch, err));
    sap_fetch_close(fetch);
    double begin = now();
    sap_source_close(source);
    assert_true(now() - begin < 2);
}

/* Thawed in time: nobody notices. What was given up is answered later, into memory that nobody reads any more. */
static void *thaw(void *nothing) {
    (void)nothing;
    (void)nanosleep(&(struct timespec){1, 0}, NULL);
    FAKE_SET(frozen, false);
    return NULL;
}

static void test_thawed(void **state) {
    (void)state;
    FAKE_SET(frozen, true);
    FAKE_SET(deaf, true);
    sap_source *source = open_fake();
    sap_range ranges[50];
    make_ranges(ranges, 50, 4, 100000);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, thaw, NULL), 0);
    fetch_and_check(source, ranges, 50);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(FAKE_GET(resets) >= 1);
    sap_source_close(source);
}

static void *set_cancel(void *flag) {
    (void)nanosleep(&(struct timespec){0, 200000000}, NULL);
    __atomic_store_n((int *)flag, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void test_cancelling(void **state) {
    (void)state;
    FAKE_SET(frozen, true);
    setenv("SAPWOOD_DEADLINE_SECONDS", "60", 1);
    sap_source *source = open_fake();
    sap_fetch *fetch;
    int flag = 0;
    sap_run run = {.cancel = &flag};
    pthread_t thread;
    assert_ok(sap_fetch_start(source, &(sap_range){0, 10, NULL}, 1, &fetch, err));
    assert_int_equal(pthread_create(&thread, NULL, set_cancel, &flag), 0);
    double begin = now();
    assert_error(SAP_ECANCELLED, "", sap_fetch_wait(fetch, &run, err));
    assert_true(now() - begin < 5);
    assert_int_equal(pthread_join(thread, NULL), 0);
    sap_fetch_close(fetch);
    sap_source_close(source);
}

static void test_opening(void **state) {
    (void)state;
    FAKE_SET(refuse, 2);
    sap_source *source = open_fake(); /* tried again */
    sap_source_close(source);
    setenv("SAPWOOD_CONNECT_SECONDS", "0.5", 1);
    FAKE_SET(refuse, 1000);
    double begin = now();
    assert_error(SAP_EIO, "fake://file: connection refused; tried",
                 sap_source_open_on(&fake_transport, "fake://file", "fake://file", NULL, &source, err));
    assert_true(now() - begin < 5);
    int cancelled = 1;
    assert_error(SAP_ECANCELLED, "",
                 sap_source_open_on(&fake_transport, "fake://file", "fake://file", &(sap_run){.cancel = &cancelled},
                                    &source, err));
}

/* Opening a ROOT file: header, directory, keys, streamer info and tree are some small reads. */
static void test_small_reads(void **state) {
    (void)state;
    setenv("SAPWOOD_REQUEST_BYTES", "8 MB", 1);
    sap_source *source = open_fake();
    static uint8_t data[3000000];
    static const struct {
        uint64_t offset;
        size_t length;
    } reads[] = {{0, 100}, {120, 64}, {9990000, 10000}, {9900000, 50000}, {70, 65000}, {9999999, 1}, {9800000, 190000}};
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
        assert_ok(sap_source_read(source, &(sap_range){reads[i].offset, reads[i].length, data}, 1, NULL, err));
        check_bytes(data, reads[i].offset, reads[i].length);
    }
    long long opening = FAKE_GET(submitted);
    assert_true(opening <= 3);           /* within the server's limits of 65,536 bytes a range */
    for (uint64_t i = 0; i < 300; i++) { /* any lengths anywhere, more than memory keeps */
        size_t length = sap_mix(5, 2 * i) % (i % 10 ? 40000 : 2000000);
        uint64_t offset = sap_mix(5, 2 * i + 1) % (10000000 - length + 1);
        sap_range ranges[] = {{offset, length, data}, {10000000 - 100, 100, data + 2500000}};
        assert_ok(sap_source_read(source, ranges, 2, NULL, err));
        check_bytes(data, offset, length);
        check_bytes(data + 2500000, 10000000 - 100, 100);
    }
    sap_source_close(source);
}

static void test_overlapping(void **state) {
    (void)state;
    sap_source *source = open_fake();
    static sap_range ranges[100];
    for (size_t i = 0; i < 100; i++)
        ranges[i] = (sap_range){i, 5000000, NULL}; /* 500 MB of a file of 10 MB */
    sap_fetch *fetch;
    assert_ok(sap_fetch_start(source, ranges, 100, &fetch, err));
    assert_error(SAP_EFORMAT, "overlap", sap_fetch_wait(fetch, NULL, err));
    sap_fetch_close(fetch);
    sap_source_close(source);
}

static void *read_much(void *argument) {
    sap_source *source = argument;
    for (uint64_t round = 0; round < 20; round++) {
        sap_range ranges[40];
        make_ranges(ranges, 40, 100 + round, 20000);
        sap_fetch *ahead = NULL, *fetch = NULL;
        sap_error error = {0};
        if (sap_fetch_start(source, ranges, 20, &fetch, &error) != SAP_OK ||
            sap_fetch_start(source, ranges + 20, 20, &ahead, &error) != SAP_OK ||
            sap_fetch_wait(fetch, NULL, &error) != SAP_OK)
            return "failed";
        for (size_t i = 0; i < 20; i++) {
            const uint8_t *data = sap_fetch_data(fetch, i);
            for (size_t j = 0; j < ranges[i].length; j++) {
                if (data[j] != fake_byte(ranges[i].offset + j))
                    return "wrong";
            }
        }
        sap_fetch_close(fetch);
        sap_fetch_close(ahead); /* often before it was answered */
        uint8_t small[100];
        if (sap_source_read(source, &(sap_range){round * 300000, 100, small}, 1, NULL, &error) != SAP_OK ||
            small[99] != fake_byte(round * 300000 + 99))
            return "wrong small read";
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    setenv("SAPWOOD_STALL_SECONDS", "10", 1); /* a busy machine is no dead server */
    setenv("SAPWOOD_DEADLINE_SECONDS", "60", 1);
    FAKE_SET(delay_seconds, 0.001);
    FAKE_SET(fail, 10);
    sap_source *source = open_fake();
    pthread_t threads[8];
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_much, source), 0);
    for (size_t i = 0; i < 8; i++) {
        void *problem;
        assert_int_equal(pthread_join(threads[i], &problem), 0);
        if (problem)
            fail_msg("%s", (const char *)problem);
    }
    sap_source_close(source);
}

static int in_child(sap_source *source, sap_fetch *fetch, const sap_range *range) {
    uint8_t data[100];
    sap_error error = {0};
    FAKE_SET(at_once, true); /* the server's thread is the parent's */
    if (sap_source_read(source, &(sap_range){500, 100, data}, 1, NULL, &error) != SAP_OK || data[0] != fake_byte(500))
        return 1;
    if (sap_fetch_wait(fetch, NULL, &error) != SAP_OK || sap_fetch_data(fetch, 0)[9] != fake_byte(range->offset + 9))
        return 2;
    if (FAKE_GET(opened) != 2)
        return 3;
    sap_fetch_close(fetch);
    sap_source_close(source);
    return FAKE_GET(closed) == 1 ? 0 : 4;
}

static void test_fork(void **state) {
    (void)state;
    sap_source *source = open_fake();
    sap_fetch *fetch;
    uint8_t data[100];
    const sap_range range = {5000000, 10, NULL};
    assert_ok(sap_source_read(source, &(sap_range){0, 100, data}, 1, NULL, err));
    FAKE_SET(frozen, true);
    assert_ok(sap_fetch_start(source, &range, 1, &fetch, err));
    pthread_mutex_lock(&fake.lock); /* nobody else holds it while the process doubles */
    pid_t child = fork();
    pthread_mutex_unlock(&fake.lock);
    assert_true(child >= 0);
    if (child == 0)
        _exit(in_child(source, fetch, &range));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    FAKE_SET(frozen, false);
    assert_ok(sap_fetch_wait(fetch, NULL, err)); /* the parent's is as it was */
    check_bytes(sap_fetch_data(fetch, 0), range.offset, range.length);
    sap_fetch_close(fetch);
    sap_source_close(source);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {WITH_SERVER(test_many_ranges),
                                       WITH_SERVER(test_answers_inside_submit),
                                       WITH_SERVER(test_failures_are_retried),
                                       WITH_SERVER(test_some_failures_are_final),
                                       WITH_SERVER(test_deadline),
                                       WITH_SERVER(test_frozen),
                                       WITH_SERVER(test_thawed),
                                       WITH_SERVER(test_cancelling),
                                       WITH_SERVER(test_opening),
                                       WITH_SERVER(test_small_reads),
                                       WITH_SERVER(test_overlapping),
                                       WITH_SERVER(test_threads),
                                       WITH_SERVER(test_fork)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
