/* Frames, texts, pointers and their references. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "root/root_internal.h"

static void test_frames(void **state) {
    (void)state;
    const uint8_t counted[] = {0x40, 0, 0, 4, 0, 3, 7, 7, 9};
    sap_cursor c = sap_cursor_init(counted, sizeof counted, 0);
    sap_frame frame = sap_frame_read(&c);
    assert_int_equal(frame.version, 3);
    assert_int_equal(frame.end, 8);
    assert_false(frame.memberwise);
    sap_frame_leave(&c, &frame);
    assert_int_equal(sap_cursor_u8(&c), 9);

    const uint8_t bare[] = {0, 2, 5};
    c = sap_cursor_init(bare, sizeof bare, 0);
    frame = sap_frame_read(&c);
    assert_true(c.failed); /* three bytes are too few to tell a frame from a version */

    const uint8_t memberwise[] = {0x40, 0, 0, 2, 0x40, 9};
    c = sap_cursor_init(memberwise, sizeof memberwise, 0);
    frame = sap_frame_read(&c);
    assert_true(frame.memberwise);
    assert_int_equal(frame.version, 9);

    const uint8_t foreign[] = {0x40, 0, 0, 6, 0, 0, 1, 2, 3, 4};
    c = sap_cursor_init(foreign, sizeof foreign, 0);
    assert_int_equal(sap_frame_read(&c).checksum, 0x01020304);

    const uint8_t outside[] = {0x40, 0, 1, 0, 0, 3};
    c = sap_cursor_init(outside, sizeof outside, 0);
    (void)sap_frame_read(&c);
    assert_true(c.failed);
}

static bool read_byte(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "Byte") != 0)
        return false;
    uint8_t *byte = sap_arena_alloc(s->arena, 1);
    *byte = sap_cursor_u8(&s->c);
    *object = byte;
    return true;
}

static void test_pointers(void **state) {
    (void)state;
    /* a new class with its object at key position 100; a reference to the class; one to the first object; null; another class */
    const uint8_t data[] = {0x40, 0, 0, 10,  0xff, 0xff, 0xff, 0xff, 'B', 'y', 't', 'e', 0, 42, /**/
                            0x40, 0, 0, 5,   0x80, 0,    0,    106,  43,                        /**/
                            0,    0, 0, 102,                                                    /**/
                            0,    0, 0, 0,                                                      /**/
                            0x40, 0, 0, 9,   0xff, 0xff, 0xff, 0xff, 'A', 0,   1,   2,   3};
    sap_arena arena = {0};
    sap_stream s = {.c = sap_cursor_init(data, sizeof data, 0), .arena = &arena, .origin = 100, .where = "x"};
    const char *name;
    uint8_t *first = sap_stream_object(&s, read_byte, &name);
    assert_non_null(first);
    assert_int_equal(*first, 42);
    uint8_t *second = sap_stream_object(&s, read_byte, &name);
    assert_int_equal(*second, 43);
    assert_string_equal(name, "Byte");
    assert_ptr_equal(sap_stream_object(&s, read_byte, &name), first);
    assert_null(sap_stream_object(&s, read_byte, &name));
    assert_null(sap_stream_object(&s, read_byte, &name));
    assert_string_equal(name, "A");
    assert_false(s.c.failed);
    assert_int_equal(sap_cursor_left(&s.c), 0);
    sap_stream_release(&s);
    sap_arena_release(&arena);
}

static void test_wrong_pointers(void **state) {
    (void)state;
    const uint8_t no_class[] = {0x40, 0, 0, 5, 0x80, 0, 0, 77, 1};
    const uint8_t no_end[] = {0x40, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 'A', 'B', 'C', 'D'};
    const uint8_t too_long[] = {0x40, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 'A', 0, 1, 2};
    const struct {
        const uint8_t *data;
        size_t length;
    } cases[] = {{no_class, sizeof no_class}, {no_end, sizeof no_end}, {too_long, sizeof too_long}};
    for (size_t i = 0; i < 3; i++) {
        sap_arena arena = {0};
        sap_error error = {0};
        sap_stream s = {
            .c = sap_cursor_init(cases[i].data, cases[i].length, 0), .arena = &arena, .where = "file:object"};
        const char *name;
        assert_null(sap_stream_object(&s, read_byte, &name));
        assert_int_equal(sap_stream_check(&s, "thing", &error), SAP_EFORMAT);
        assert_non_null(strstr(error.message, "file:object @0x"));
        sap_stream_release(&s);
        sap_arena_release(&arena);
    }
}

static void test_list_count(void **state) {
    (void)state;
    /* a list that says a thousand million items in a few bytes */
    const uint8_t data[] = {0x40, 0, 0,    25,   0,    3, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                            0,    0, 0x3b, 0x9a, 0xca, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    sap_arena arena = {0};
    sap_stream s = {.c = sap_cursor_init(data, sizeof data, 0), .arena = &arena, .where = "x"};
    sap_objects list;
    sap_stream_objarray(&s, read_byte, &list);
    assert_true(s.c.failed);
    assert_int_equal(list.count, 0);
    sap_stream_release(&s);
    sap_arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_frames), cmocka_unit_test(test_pointers),
                                       cmocka_unit_test(test_wrong_pointers), cmocka_unit_test(test_list_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
