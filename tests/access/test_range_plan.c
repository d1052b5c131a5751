/* Plans of requests: what is merged, cut and gathered; any ranges are covered, and nothing far from them. */
#include "test_support.h"

#include "access/access_internal.h"

static const sap_plan_limits plain = {.size = 1000000,
                                      .align = 1,
                                      .gap = 100,
                                      .piece_bytes = 10000,
                                      .request = {.ranges = 4, .range_bytes = 5000, .bytes = 10000}};

static void check(const sap_range *ranges, size_t count, const sap_plan_limits *limits, size_t pieces,
                  size_t requests) {
    sap_plan plan;
    assert_ok(sap_plan_init(&plan, ranges, count, limits, err));
    assert_int_equal(plan.piece_count, pieces);
    assert_int_equal(plan.request_count, requests);
    sap_plan_release(&plan);
}

static void test_merging(void **state) {
    (void)state;
    check(NULL, 0, &plain, 0, 0);
    check((sap_range[]){{5, 0, NULL}}, 1, &plain, 0, 0);
    check((sap_range[]){{500, 10, NULL}, {0, 400, NULL}}, 2, &plain, 1, 1); /* any order; a gap of 100 */
    check((sap_range[]){{501, 10, NULL}, {0, 400, NULL}}, 2, &plain, 2, 1); /* 101: two pieces of one request */
    check((sap_range[]){{0, 400, NULL}, {100, 50, NULL}, {399, 2, NULL}}, 3, &plain, 1, 1);
    check((sap_range[]){{0, 25000, NULL}}, 1, &plain, 3, 3);
    check((sap_range[]){{0, 6000, NULL}, {6000, 6000, NULL}}, 2, &plain, 2, 2); /* cut between, not inside */
    check((sap_range[]){{0, 9000, NULL}, {8000, 4000, NULL}}, 2, &plain, 2, 2); /* overlapping: each byte once */
    sap_range far[10];
    for (size_t i = 0; i < 10; i++)
        far[i] = (sap_range){i * 10000, 1000, NULL};
    check(far, 10, &plain, 10, 3); /* four to a request */
    sap_plan_limits single = plain;
    single.request.ranges = 1;
    check(far, 10, &single, 10, 10);
}

static void test_alignment(void **state) {
    (void)state;
    sap_plan_limits limits = plain;
    limits.align = 4096;
    limits.piece_bytes = 8192;
    limits.size = 10000;
    sap_plan plan;
    const sap_range ranges[] = {{1, 1, NULL}, {9999, 1, NULL}};
    assert_ok(sap_plan_init(&plan, ranges, 2, &limits, err));
    assert_int_equal(plan.piece_count, 2);
    assert_int_equal(plan.pieces[0].offset, 0);
    assert_int_equal(plan.pieces[0].length, 4096);
    assert_int_equal(plan.pieces[1].offset, 8192);
    assert_int_equal(plan.pieces[1].length, 10000 - 8192);
    sap_plan_release(&plan);
}

/* Whatever is asked for: pieces rise and are apart, hold every range, and nothing further than the gap from one. */
static void test_any_ranges(void **state) {
    (void)state;
    for (uint64_t round = 0; round < 500; round++) {
        static char wanted[20000], there[20000];
        memset(wanted, 0, sizeof wanted);
        memset(there, 0, sizeof there);
        sap_range ranges[20];
        size_t count = sap_mix(round, 0) % 20;
        for (size_t i = 0; i < count; i++) {
            uint64_t offset = sap_mix(round, 2 * i + 1) % sizeof wanted;
            size_t length = sap_mix(round, 2 * i + 2) % (i % 4 ? 100 : 3000);
            length = length < sizeof wanted - offset ? length : sizeof wanted - offset;
            ranges[i] = (sap_range){offset, length, NULL};
            memset(wanted + offset, 1, length);
        }
        sap_plan_limits limits = {.size = sizeof wanted,
                                  .align = 1,
                                  .gap = sap_mix(round, 99) % 200,
                                  .piece_bytes = 1000,
                                  .request = {.ranges = 1 + round % 5, .range_bytes = 500, .bytes = 1000}};
        sap_plan plan;
        assert_ok(sap_plan_init(&plan, ranges, count, &limits, err));
        uint64_t end = 0;
        size_t in_requests = 0;
        for (size_t i = 0; i < plan.piece_count; i++) {
            assert_true(plan.pieces[i].offset >= end && plan.pieces[i].length > 0 && plan.pieces[i].length <= 1000);
            end = plan.pieces[i].offset + plan.pieces[i].length;
            memset(there + plan.pieces[i].offset, 1, plan.pieces[i].length);
        }
        for (size_t i = 0; i < plan.request_count; i++) {
            assert_int_equal(plan.requests[i].first, in_requests);
            assert_true(plan.requests[i].count >= 1 && plan.requests[i].count <= limits.request.ranges);
            assert_true(plan.requests[i].bytes <= 1000);
            in_requests += plan.requests[i].count;
        }
        assert_int_equal(in_requests, plan.piece_count);
        size_t unwanted = 0;
        for (size_t i = 0; i < sizeof wanted; i++) {
            assert_true(there[i] || !wanted[i]);
            unwanted = there[i] && !wanted[i] ? unwanted + 1 : 0;
            assert_true(unwanted <= limits.gap);
        }
        sap_plan_release(&plan);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_merging), cmocka_unit_test(test_alignment),
                                       cmocka_unit_test(test_any_ranges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
