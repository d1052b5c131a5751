/* Schemas: from Arrow, merged, compared. */
#include "test_support.h"

#include "table/table_internal.h"

static const sap_field floats = {.name = "item", .type = SAP_FLOAT32};
static const sap_field ab[] = {{.name = "a", .type = SAP_INT16}, {.name = "b", .type = SAP_STRING}};
static const sap_field bc[] = {{.name = "b", .type = SAP_STRING},
                               {.name = "c", .type = SAP_LIST, .count = 1, .children = &floats}};

static bool merge(sap_arena *arena, sap_field *into, const sap_field *other, char *where, size_t capacity) {
    sap_text path = {0};
    bool out_of_memory = false, well = sap_field_merge(arena, into, other, &path, &out_of_memory);
    assert_false(out_of_memory);
    (void)snprintf(where, capacity, "%s", path.data ? path.data : "");
    sap_text_release(&path);
    return well;
}

static void test_numbers_merge_into_the_smallest_type_that_holds_both(void **state) {
    (void)state;
    static const struct {
        sap_type a, b, both; /* SAP_TYPE_NONE: there is none */
    } cases[] = {{SAP_INT8, SAP_INT64, SAP_INT64},        {SAP_INT32, SAP_INT16, SAP_INT32},
                 {SAP_FLOAT32, SAP_FLOAT64, SAP_FLOAT64}, {SAP_INT16, SAP_FLOAT32, SAP_FLOAT32},
                 {SAP_INT32, SAP_FLOAT32, SAP_FLOAT64},   {SAP_FLOAT32, SAP_INT32, SAP_FLOAT64},
                 {SAP_INT64, SAP_FLOAT64, SAP_TYPE_NONE}, {SAP_INT64, SAP_DECIMAL, SAP_DECIMAL},
                 {SAP_STRING, SAP_INT32, SAP_TYPE_NONE},  {SAP_BOOL, SAP_INT8, SAP_TYPE_NONE},
                 {SAP_DECIMAL, SAP_DECIMAL, SAP_DECIMAL}, {SAP_STRING, SAP_STRING, SAP_STRING}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_arena arena = {0};
        sap_field a = {.name = "x", .type = cases[i].a, .size = cases[i].a == SAP_DECIMAL ? 20 : 0},
                  b = {.name = "x", .type = cases[i].b, .size = cases[i].b == SAP_DECIMAL ? 20 : 0};
        char where[100];
        bool well = merge(&arena, &a, &b, where, sizeof where);
        assert_int_equal(well, cases[i].both != SAP_TYPE_NONE);
        if (well)
            assert_int_equal(a.type, cases[i].both);
        sap_arena_release(&arena);
    }
}

static void test_records_merge_field_by_field(void **state) {
    (void)state;
    sap_arena arena = {0};
    char where[100], text[200];
    sap_field into = {.name = "", .type = SAP_RECORD, .count = 2, .children = ab};
    const sap_field other = {.name = "", .type = SAP_RECORD, .count = 2, .children = bc};
    assert_true(merge(&arena, &into, &other, where, sizeof where));
    (void)sap_field_text(&into, text, sizeof text);
    assert_string_equal(text, "record{a: int16?, b: string, c: list<float32>?}");
    sap_text path = {0};
    assert_true(sap_field_fits(&other, &into, true, &path));
    assert_false(sap_field_fits(&other, &into, false, &path));
    assert_string_equal(path.data, "a");
    sap_text_release(&path);
    sap_arena_release(&arena);
}

static void test_what_does_not_merge_is_named(void **state) {
    (void)state;
    sap_arena arena = {0};
    const sap_field text = {.name = "a", .type = SAP_STRING};
    const sap_field below[] = {{.name = "event", .type = SAP_RECORD, .count = 1, .children = &text}},
                    here[] = {{.name = "event", .type = SAP_RECORD, .count = 2, .children = ab}};
    sap_field into = {.name = "", .type = SAP_RECORD, .count = 1, .children = here};
    const sap_field other = {.name = "", .type = SAP_RECORD, .count = 1, .children = below};
    char where[100];
    assert_false(merge(&arena, &into, &other, where, sizeof where));
    assert_string_equal(where, "event.a");
    sap_arena_release(&arena);
}

static void test_arrow_and_back(void **state) {
    (void)state;
    const sap_field decimal = {.name = "d", .type = SAP_DECIMAL, .size = 20, .nullable = true};
    const sap_field all[] = {ab[0], ab[1], bc[1], decimal};
    struct ArrowSchema schema;
    sap_arena arena = {0};
    sap_field back;
    char text[200];
    assert_ok(sap_schema_export(all, 4, &schema, err));
    assert_string_equal(schema.children[3]->format, "d:20,0");
    assert_ok(sap_schema_import(&schema, &arena, &back, err));
    (void)sap_field_text(&back, text, sizeof text);
    assert_string_equal(text, "record{a: int16, b: string, c: list<float32>, d: decimal?}");
    schema.release(&schema);
    const sap_field odd = {.name = "x", .type = SAP_UINT64};
    assert_ok(sap_schema_export(&odd, 1, &schema, err));
    assert_error(SAP_EUNSUPPORTED, "column \"x\": the Arrow type \"L\"",
                 sap_schema_import(&schema, &arena, &back, err));
    schema.release(&schema);
    sap_arena_release(&arena);
}

static void test_columns_are_chosen_by_their_paths(void **state) {
    (void)state;
    static const sap_field item = {.name = "item", .type = SAP_RECORD, .count = 2, .children = bc};
    static const sap_field dotted = {.name = "c.d", .type = SAP_INT16};
    const sap_field all[] = {{.name = "Jet", .type = SAP_LIST, .count = 1, .children = &item},
                             {.name = "event", .type = SAP_RECORD, .count = 2, .children = ab},
                             {.name = "c", .type = SAP_RECORD, .count = 2, .children = ab},
                             dotted};
    const sap_field schema = {.name = "", .type = SAP_RECORD, .count = 4, .children = all};
    const char *const some[] = {"event.a", "c.d", "Jet.c", "event.a"}, *const none[] = {"Jet.b", "event.bb"};
    sap_arena arena = {0};
    sap_field out;
    char text[200];
    assert_ok(sap_schema_choose(&arena, &schema, some, 4, "here", &out, err));
    (void)sap_field_text(&out, text, sizeof text);
    assert_string_equal(text, "record{Jet: list<record{c: list<float32>}>, event: record{a: int16}, c.d: int16}");
    assert_error(SAP_ENOTFOUND, "here: no column \"event.bb\"; nearest: b",
                 sap_schema_choose(&arena, &schema, none, 2, "here", &out, err));
    sap_arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_merge_into_the_smallest_type_that_holds_both),
        cmocka_unit_test(test_records_merge_field_by_field),
        cmocka_unit_test(test_what_does_not_merge_is_named),
        cmocka_unit_test(test_arrow_and_back),
        cmocka_unit_test(test_columns_are_chosen_by_their_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
