/* Values made to fit the types of a table: numbers, unions, nulls. */
#include "test_support.h"

#include "table/table_internal.h"

static sap_batch batch;

static int open_batch(void **state) {
    (void)state;
    sap_error error;
    return sap_batch_init(&batch, 0, &error) == SAP_OK ? 0 : -1;
}

static int close_batch(void **state) {
    (void)state;
    sap_batch_release(&batch);
    return 0;
}

static sap_column fitted(const sap_column *from, const sap_field *wanted) {
    sap_column out = {0};
    assert_ok(sap_values_fit(from, wanted, "file:tree", batch.storage, &out, err));
    assert_int_equal(out.length, from->length);
    return out;
}

static void test_unsigned_numbers_keep_their_values(void **state) {
    (void)state;
    const uint32_t small[] = {0, UINT32_MAX};
    const sap_column from = {.name = "x", .type = SAP_UINT32, .length = 2, .values = small};
    const sap_field wanted = {.name = "x", .type = SAP_INT64};
    assert_int_equal(((const int64_t *)fitted(&from, &wanted).values)[1], UINT32_MAX);
    const uint64_t large[] = {7, UINT64_MAX};
    const sap_column wide = {.name = "x", .type = SAP_UINT64, .length = 2, .values = large};
    const sap_field decimal = {.name = "x", .type = SAP_DECIMAL, .size = 20};
    const uint64_t *words = fitted(&wide, &decimal).values;
    assert_int_equal(words[0], 7);
    assert_int_equal(words[1], 0);
    assert_true(words[2] == UINT64_MAX && words[3] == 0);
    sap_column out;
    assert_error(SAP_EDATA, "file:tree: \"x\" is wanted as int64, which 18446744073709551615 does not fit",
                 sap_values_fit(&wide, &wanted, "file:tree", batch.storage, &out, err));
}

static void test_signed_numbers_in_decimals(void **state) {
    (void)state;
    const int64_t values[] = {-1};
    const sap_column from = {.name = "x", .type = SAP_INT64, .length = 1, .values = values};
    const sap_field decimal = {.name = "x", .type = SAP_DECIMAL, .size = 20};
    const int64_t *words = fitted(&from, &decimal).values;
    assert_true(words[0] == -1 && words[1] == -1);
}

static void test_same_bytes_are_shared(void **state) {
    (void)state;
    const float values[] = {1, 2, 3};
    const int32_t offsets[] = {0, 1, 3};
    sap_column items = {.name = "item", .type = SAP_FLOAT32, .length = 3, .values = values};
    const sap_column list = {
        .name = "x", .type = SAP_LIST, .length = 2, .offsets = offsets, .count = 1, .children = &items};
    const sap_field item = {.name = "item", .type = SAP_FLOAT32};
    const sap_field wanted = {.name = "x", .type = SAP_LIST, .count = 1, .children = &item};
    const sap_column out = fitted(&list, &wanted);
    assert_ptr_equal(out.offsets, offsets);
    assert_ptr_equal(out.children[0].values, values);
}

static void test_fixed_lists_get_offsets(void **state) {
    (void)state;
    const float values[] = {1, 2, 3, 4, 5, 6};
    sap_column items = {.name = "item", .type = SAP_FLOAT32, .length = 6, .values = values};
    const sap_column fixed = {
        .name = "x", .type = SAP_FIXED_LIST, .size = 3, .length = 2, .count = 1, .children = &items};
    const sap_field item = {.name = "item", .type = SAP_FLOAT64};
    const sap_field wanted = {.name = "x", .type = SAP_LIST, .count = 1, .children = &item};
    const sap_column out = fitted(&fixed, &wanted);
    const int32_t expected[] = {0, 3, 6};
    assert_memory_equal(out.offsets, expected, sizeof expected);
    assert_true(((const double *)out.children[0].values)[5] == 6);
}

static void test_unions_become_records_of_nulls_and_one_value(void **state) {
    (void)state;
    const int8_t tags[] = {0, 1, 0, 1};
    const int32_t places[] = {0, 0, 1, 1}, offsets[] = {0, 2, 3};
    const int32_t numbers[] = {10, 20};
    sap_column alternatives[] = {
        {.name = "", .type = SAP_INT32, .length = 2, .values = numbers},
        {.name = "", .type = SAP_STRING, .length = 2, .offsets = offsets, .values = "abc"},
    };
    const sap_column from = {.name = "u",
                             .type = SAP_UNION,
                             .length = 4,
                             .offsets = places,
                             .values = tags,
                             .count = 2,
                             .children = alternatives};
    const sap_field fields[] = {{.name = "0", .type = SAP_INT32, .nullable = true},
                                {.name = "1", .type = SAP_STRING, .nullable = true}};
    const sap_field wanted = {.name = "u", .type = SAP_RECORD, .count = 2, .children = fields};
    const sap_column out = fitted(&from, &wanted);
    const uint8_t first[] = {1, 0, 1, 0}, second[] = {0, 1, 0, 1};
    assert_memory_equal(out.children[0].valid, first, 4);
    assert_memory_equal(out.children[1].valid, second, 4);
    assert_int_equal(((const int32_t *)out.children[0].values)[2], 20);
    const int32_t expected[] = {0, 0, 2, 2, 3};
    assert_memory_equal(out.children[1].offsets, expected, sizeof expected);
    assert_memory_equal(out.children[1].values, "abc", 3);
}

static void test_nulls_of_any_type(void **state) {
    (void)state;
    const sap_field fields[] = {{.name = "a", .type = SAP_STRING}, {.name = "b", .type = SAP_INT64}};
    const sap_field item = {.name = "item", .type = SAP_RECORD, .count = 2, .children = fields};
    const sap_field wanted = {.name = "x", .type = SAP_LIST, .count = 1, .children = &item};
    sap_column out;
    assert_ok(sap_values_null(&wanted, 3, batch.storage, &out, err));
    assert_int_equal(out.length, 3);
    assert_int_equal(out.valid[0] + out.valid[1] + out.valid[2] + out.offsets[3], 0);
    assert_int_equal(out.children[0].length, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unsigned_numbers_keep_their_values, open_batch, close_batch),
        cmocka_unit_test_setup_teardown(test_signed_numbers_in_decimals, open_batch, close_batch),
        cmocka_unit_test_setup_teardown(test_same_bytes_are_shared, open_batch, close_batch),
        cmocka_unit_test_setup_teardown(test_fixed_lists_get_offsets, open_batch, close_batch),
        cmocka_unit_test_setup_teardown(test_unions_become_records_of_nulls_and_one_value, open_batch, close_batch),
        cmocka_unit_test_setup_teardown(test_nulls_of_any_type, open_batch, close_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
