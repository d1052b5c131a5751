/* The cursor: numbers in both byte orders, bounds, children, and failures that stick. */
#include "base/cursor.h"
#include "test_support.h"

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 0x40, 0x49, 0x0f, 0xdb};

static void numbers(void **state) {
    (void)state;
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_int_equal(sap_cursor_u8(&c), 1);
    assert_int_equal(sap_cursor_u16(&c), 0x0203);
    sap_cursor_seek(&c, 0);
    assert_int_equal(sap_cursor_u32(&c), 0x01020304);
    assert_int_equal(sap_cursor_le32(&c), 0x08070605);
    assert_float_equal(sap_cursor_f32(&c), 3.14159274F, 1e-7F);
    assert_false(c.failed);
    sap_cursor_seek(&c, 0);
    assert_true(sap_cursor_u64(&c) == UINT64_C(0x0102030405060708));
    sap_cursor_seek(&c, 0);
    assert_true(sap_cursor_le64(&c) == UINT64_C(0x0807060504030201));
    assert_int_equal(sap_cursor_left(&c), 4);
}

static void a_failure_sticks(void **state) {
    (void)state;
    sap_cursor c = sap_cursor_init(bytes, 5, 0x1000);
    assert_int_equal(sap_cursor_u32(&c), 0x01020304);
    assert_int_equal(sap_cursor_u16(&c), 0);
    assert_int_equal(sap_cursor_u8(&c), 0); /* a byte is left, but the record is bad */
    assert_int_equal(sap_cursor_left(&c), 0);
    assert_error(SAP_EFORMAT, "f.root:x @0x1004: header needs 2 bytes, 1 left",
                 sap_cursor_check(&c, "f.root:x", "header", err));
}

static void children_are_bounded(void **state) {
    (void)state;
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 100);
    sap_cursor child = sap_cursor_sub(&c, 3);
    assert_int_equal(child.base, 100);
    assert_int_equal(sap_cursor_u32(&child), 0);
    assert_true(child.failed);
    assert_false(c.failed);
    assert_int_equal(sap_cursor_u8(&c), 4);
    child = sap_cursor_sub(&c, 100);
    assert_true(child.failed && c.failed);
}

static void counts_are_bounded(void **state) {
    (void)state;
    sap_cursor c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_int_equal(sap_cursor_count(&c, 3, 4), 3);
    assert_int_equal(sap_cursor_count(&c, 4, 4), 0);
    assert_true(c.failed);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    assert_int_equal(sap_cursor_count(&c, UINT64_MAX, 8), 0);
    assert_true(c.failed);
    c = sap_cursor_init(bytes, sizeof bytes, 0);
    sap_cursor_seek(&c, 13);
    assert_true(c.failed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(a_failure_sticks),
        cmocka_unit_test(children_are_bounded),
        cmocka_unit_test(counts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
