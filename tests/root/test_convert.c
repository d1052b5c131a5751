/* Conversions against one-by-one references, at every length and alignment near the width of a vector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "root/root_internal.h"

enum { MOST = 100 };

static sap_number number_of(int kind, const char *title) {
    sap_compiler k = {0};
    sap_number number;
    assert_true(sap_compile_number(&k, kind, title, &number));
    return number;
}

static void test_swaps(void **state) {
    (void)state;
    static const int kinds[] = {SAP_KIND_CHAR, SAP_KIND_SHORT, SAP_KIND_FLOAT, SAP_KIND_DOUBLE};
    uint8_t in[8 * MOST + 8], out[8 * MOST];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)sap_mix(1, i);
    for (size_t k = 0; k < 4; k++) {
        sap_number number = number_of(kinds[k], NULL);
        for (size_t n = 0; n <= MOST; n++) {
            const uint8_t *from = in + n % 8;
            sap_number_convert(&number, from, n, out);
            for (size_t i = 0; i < n * number.size; i++)
                assert_int_equal(out[i], from[i / number.size * number.size + number.size - 1 - i % number.size]);
        }
    }
}

static void test_bools(void **state) {
    (void)state;
    const uint8_t in[] = {0, 1, 2, 255, 0};
    uint8_t out[5];
    sap_number number = number_of(SAP_KIND_BOOL, NULL);
    sap_number_convert(&number, in, 5, out);
    const uint8_t expected[] = {0, 1, 1, 1, 0};
    assert_memory_equal(out, expected, 5);
}

/* Values that ROOT 6.40 gives for these bytes. */
static void test_ranges(void **state) {
    (void)state;
    double d[2];
    float f[4];
    const uint8_t plain[] = {0x3f, 0xc0, 0, 0}, scaled[] = {0, 0, 0x80, 0, 0xff, 0xff, 0xff, 0xff};
    sap_number number = number_of(SAP_KIND_DOUBLE32, "no range");
    sap_number_convert(&number, plain, 1, d);
    assert_true(d[0] == 1.5);
    number = number_of(SAP_KIND_DOUBLE32, "[-1, 1, 16] half");
    sap_number_convert(&number, scaled, 1, d);
    assert_true(d[0] == 0.0);
    number = number_of(SAP_KIND_DOUBLE32, "x[3] [0, twopi]"); /* 32 bits: the factor is made of 0xffffffff */
    sap_number_convert(&number, scaled, 2, d);
    assert_true(d[1] == 4294967295.0 / (4294967295.0 / (2 * 3.14159265358979323846)));
    number = number_of(SAP_KIND_DOUBLE32, "[-pi/2, pi/4, 10]");
    assert_true(number.minimum == -3.14159265358979323846 / 2);
    const uint8_t halves[] = {0, 0, 0, 127, 0, 0, 128, 0, 0, 128, 8, 0};
    number = number_of(SAP_KIND_FLOAT16, "D16/f");
    sap_number_convert(&number, halves, 4, f);
    assert_true(f[0] == 0 && f[1] == 1 && f[2] == 2 && f[3] == 3);
    number = number_of(SAP_KIND_FLOAT16, "D16/f[0,0,16]"); /* 15 bits and more are ignored without a range */
    assert_int_equal(number.bits, 12);
    number = number_of(SAP_KIND_FLOAT16, "D16/f[0,0,8]");
    assert_int_equal(number.bits, 8);
    const uint8_t negative[] = {128, 0x20 | 0x08, 0};
    number = number_of(SAP_KIND_FLOAT16, "");
    sap_number_convert(&number, negative, 1, f);
    assert_true(f[0] == -3);
}

/* Offsets that go round past 2^32 and end where they should: one entry would reach far outside the column. */
static void test_round_offsets(void **state) {
    (void)state;
    enum { KEY = 100, ENTRIES = 4 };
    const uint8_t data[8] = {0}, offsets[] = {0,    0,    0,    KEY,     /**/
                                              0x80, 0,    0,    KEY - 1, /**/
                                              0xff, 0xff, 0xff, 0xff,    /**/
                                              0,    0,    0,    KEY + 4};
    sap_step_node item = {.op = SAP_OP_NUMBER, .count = 1, .number = number_of(SAP_KIND_CHAR, "")};
    sap_program program = {.shape = SAP_SHAPE_JAGGED, .item = 1, .root = {.children = &item, .child_count = 1}};
    sap_basket_data basket = {
        .entries = ENTRIES, .data = data, .bytes = sizeof data, .offsets = offsets, .header_bytes = KEY};
    sap_decoding decoding = {.program = &program, .basket = &basket, .where = "here"};
    sap_piece piece = {.end = ENTRIES};
    int8_t values[8];
    int32_t starts[ENTRIES + 1] = {0};
    sap_column inner = {.type = SAP_INT8, .length = 8, .values = values};
    sap_column column = {.type = SAP_LIST, .length = ENTRIES, .offsets = starts, .count = 1, .children = &inner};
    sap_scratch scratch = {0};
    sap_error error = {0};
    assert_int_equal(sap_piece_count(&decoding, &piece, &error), SAP_OK);
    assert_int_equal(sap_piece_decode(&decoding, &piece, &column, &scratch, &error), SAP_EFORMAT);
}

static void put_be32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void test_offsets_of_items(void **state) {
    (void)state;
    uint8_t places[4 * MOST + 8];
    int32_t expected[MOST], out[MOST];
    for (int n = 0; n <= MOST; n++)
        for (int shift = 0; shift < 4; shift++) {
            uint8_t *at = places + n % 4; /* of any alignment */
            uint32_t items = 0, first = 100 + (uint32_t)n;
            put_be32(at, first);
            for (int i = 0; i < n; i++) {
                items += (uint32_t)(sap_mix(2, (uint64_t)i) % 5);
                put_be32(at + 4 * i + 4, first + (items << shift));
                expected[i] = 7 + (int32_t)items;
            }
            assert_true(sap_offsets_convert(at, n, shift, 7, out));
            assert_memory_equal(out, expected, (size_t)n * sizeof *out);
        }
}

static void test_wrong_offsets_are_refused(void **state) {
    (void)state;
    uint8_t places[4 * MOST + 4];
    int32_t out[MOST];
    for (int n = 1; n <= MOST; n += 9)
        for (int wrong = 0; wrong < n; wrong++) {
            static const uint32_t damage[] = {0, 99, 102, 0x7fffffff, 0xffffffff};
            for (size_t k = 0; k < sizeof damage / sizeof *damage; k++) {
                for (int i = 0; i <= n; i++)
                    put_be32(places + 4 * i, 100 + 4 * (uint32_t)i);
                put_be32(places + 4 * wrong + 4, damage[k]);
                assert_false(sap_offsets_convert(places, n, 2, 0, out));
            }
        }
}

static void put_le64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void test_indices(void **state) {
    (void)state;
    uint8_t stored[8 * MOST + 8];
    int32_t out[MOST], expected[MOST];
    for (int n = 1; n <= MOST; n++) {
        uint8_t *at = stored + n % 8; /* of any alignment */
        uint64_t first = UINT64_C(5000000000), index = first;
        for (int i = 0; i < n; i++) {
            index += i ? sap_mix(3, (uint64_t)i) % 4 : 0;
            put_le64(at + 8 * i, index);
            expected[i] = (int32_t)(index - first);
        }
        assert_true(sap_indices_convert(at, (size_t)n, out));
        assert_memory_equal(out, expected, (size_t)n * sizeof *out);
        for (int wrong = 0; wrong < n; wrong++) { /* sinks, or is no index at all */
            uint64_t right = sap_le64(at + 8 * wrong);
            put_le64(at + 8 * wrong, UINT64_C(1) << 63 | right);
            assert_false(sap_indices_convert(at, (size_t)n, out));
            put_le64(at + 8 * wrong, first - 1);
            assert_int_equal(sap_indices_convert(at, (size_t)n, out), wrong == 0);
            put_le64(at + 8 * wrong, right);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_swaps),
                                       cmocka_unit_test(test_bools),
                                       cmocka_unit_test(test_ranges),
                                       cmocka_unit_test(test_round_offsets),
                                       cmocka_unit_test(test_offsets_of_items),
                                       cmocka_unit_test(test_wrong_offsets_are_refused),
                                       cmocka_unit_test(test_indices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
