/* Conditions: what they keep, and what is refused with which words. */
#include "export/export_internal.h"
#include "test_support.h"

#include <math.h>

static const sap_field number = {.name = "item", .type = SAP_FLOAT32};
static const sap_field inside = {.name = "x", .type = SAP_INT32};
static const sap_field fields[] = {{.name = "n", .type = SAP_INT32},
                                   {.name = "big", .type = SAP_UINT64},
                                   {.name = "x.y", .type = SAP_FLOAT64},
                                   {.name = "flag", .type = SAP_BOOL},
                                   {.name = "text", .type = SAP_STRING},
                                   {.name = "list", .type = SAP_LIST, .count = 1, .children = &number},
                                   {.name = "maybe", .type = SAP_INT16, .nullable = true},
                                   {.name = "record", .type = SAP_RECORD, .count = 1, .children = &inside},
                                   {.name = "half", .type = SAP_FLOAT16}};
enum { COLUMNS = sizeof fields / sizeof *fields, ROWS = 4 };

static const int32_t n[] = {-1, 0, 1, 2};
static const uint64_t big[] = {0, UINT64_C(1) << 63, UINT64_MAX, 5};
static const double y[] = {0.1, -2.5, NAN, 1e300};
static const uint8_t flag[] = {1, 0, 1, 0}, valid[] = {1, 0, 1, 0};
static const char text[] = "aabb,c";
static const int32_t text_offsets[] = {0, 1, 3, 3, 6}, list_offsets[] = {0, 0, 1, 3, 3};
static const float items[] = {10, 20, 30};
static const int16_t maybe[] = {7, 7, 8, 8};
static const uint16_t half[] = {0x3c00, 0xc000, 0x7c00, 0x0001}; /* 1, -2, inf, 2^-24 */
static sap_column list_items = {.name = "item", .type = SAP_FLOAT32, .length = 3, .values = items};
static sap_column columns[COLUMNS] = {
    {.name = "n", .type = SAP_INT32, .length = ROWS, .values = n},
    {.name = "big", .type = SAP_UINT64, .length = ROWS, .values = big},
    {.name = "x.y", .type = SAP_FLOAT64, .length = ROWS, .values = y},
    {.name = "flag", .type = SAP_BOOL, .length = ROWS, .values = flag},
    {.name = "text", .type = SAP_STRING, .length = ROWS, .values = text, .offsets = text_offsets},
    {.name = "list", .type = SAP_LIST, .length = ROWS, .offsets = list_offsets, .count = 1, .children = &list_items},
    {.name = "maybe", .type = SAP_INT16, .length = ROWS, .values = maybe, .valid = valid},
    {.name = "record", .type = SAP_RECORD, .length = ROWS},
    {.name = "half", .type = SAP_FLOAT16, .length = ROWS, .values = half},
};
static const sap_batch batch = {.length = ROWS, .count = COLUMNS, .columns = columns};

static sap_status open_condition(const char *condition, sap_condition **out, sap_error *err) {
    size_t at[COLUMNS] = {0};
    SAP_TRY(sap_condition_parse(condition, out, err));
    for (size_t i = 0; i < (*out)->name_count; i++) {
        while (at[i] < COLUMNS && strcmp(fields[at[i]].name, (*out)->names[i]) != 0)
            at[i]++;
        assert_true(at[i] < COLUMNS);
    }
    return sap_condition_bind(*out, fields, at, err);
}

/* kept: "0101" for the entries. */
static void check(const char *condition, const char *kept) {
    sap_condition *c = NULL;
    uint8_t keep[ROWS];
    char got[ROWS + 1] = "";
    assert_ok(open_condition(condition, &c, err));
    sap_condition_run(c, &batch, keep);
    for (int i = 0; i < ROWS; i++)
        got[i] = keep[i] ? '1' : '0';
    if (strcmp(got, kept) != 0)
        fail_msg("%s keeps %s, not %s", condition, got, kept);
    sap_condition_close(c);
}

static void refuse(sap_status status, const char *words, const char *condition) {
    sap_condition *c = NULL;
    assert_error(status, words, open_condition(condition, &c, err));
    sap_condition_close(c);
}

static void test_comparisons(void **state) {
    (void)state;
    check("n >= 1", "0011");
    check("n > 1", "0001");
    check("n<1", "1100");
    check("n <= -1", "1000");
    check("n == 0", "0100");
    check("n != 0", "1011");
    check("0 < n", "0011");
    check("n == 1.0", "0010");
    check("x.y == 0.1", "1000"); /* as a double, not longer */
    check("x.y < 1e301", "1101");
    check("x.y != x.y", "0010"); /* NaN */
    check("half > 0.5", "1010");
    check("half < -1.5 || half == 5.9604644775390625e-08", "0101");
}

static void test_integers_are_exact(void **state) {
    (void)state;
    check("big == 9223372036854775807", "0000");
    check("big > 9223372036854775807", "0110");
    check("big > n", "1111");
    check("n < big", "1111");
    check("big >= -1", "1111");
    check("big == 5", "0001");
    check("n > -9223372036854775807", "1111");
}

static void test_logic_and_precedence(void **state) {
    (void)state;
    check("flag", "1010");
    check("!flag", "0101");
    check("n", "1011");
    check("flag == true && n != 1", "1000");
    check("n == 0 || n == 1 && flag", "0110");
    check("(n == 0 || n == 1) && !flag", "0100");
    check("1 + 2 * 3 == 7", "1111");
    check("10 - 3 - 2 == 5", "1111");
    check("-n > 0", "1000");
    check("abs(n) == 1", "1010");
    check("n % 2 == 0", "0101");
    check("n / 2 == 0.5", "0010"); /* not whole-number division */
    check("n*2>=n+2", "0001");
    check("!!flag", "1010");
}

static void test_texts(void **state) {
    (void)state;
    check("text == 'a'", "1000");
    check("text == \"ab\"", "0100");
    check("text == ''", "0010");
    check("text > 'a'", "0101");
    check("text != 'b,c'", "1110");
    check("count(text) == 3", "0001");
}

static void test_lists_and_nulls(void **state) {
    (void)state;
    check("count(list) >= 1", "0110");
    check("list[0] >= 10", "0110");
    check("list[1] == 30", "0010");
    check("list[-1] == 30", "0010");
    check("list[-2] == 20", "0010");
    check("list[7] < 1 || list[7] >= 1", "0000"); /* not there */
    check("maybe == 7", "1000");
    check("maybe != 7", "0010");
    check("!(maybe == 7)", "0111");
    check("maybe + 1 > 0", "1010");
    check("`x.y` > 0 && `list`[0] > 0 || n == -1", "1000");
}

static void test_blocks(void **state) {
    (void)state;
    enum { MANY = 3 * SAP_CONDITION_BLOCK + 5 };
    static int32_t numbers[MANY];
    static uint8_t keep[MANY];
    for (int i = 0; i < MANY; i++)
        numbers[i] = i;
    sap_column column = {.name = "n", .type = SAP_INT32, .length = MANY, .values = numbers};
    const sap_batch large = {.length = MANY, .count = 1, .columns = &column};
    sap_condition *c = NULL;
    assert_ok(open_condition("n % 7 == 3", &c, err));
    sap_condition_run(c, &large, keep);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(keep[i], i % 7 == 3);
    sap_condition_close(c);
}

static void test_refused(void **state) {
    (void)state;
    refuse(SAP_ETYPE, "list[0] is its first item", "list > 3");
    refuse(SAP_ETYPE, "not one value", "record == 1");
    refuse(SAP_ETYPE, "no items to count", "count(n) > 1");
    refuse(SAP_ETYPE, "no items to compare", "n[0] > 1");
    refuse(SAP_ETYPE, "with a text only", "text > 1");
    refuse(SAP_ETYPE, "with a text only", "text && n");
    refuse(SAP_ETYPE, "neither true nor false", "text");
    refuse(SAP_EARGUMENT, "at character 5: a column, a number", "n > ");
    refuse(SAP_EARGUMENT, "an operator is expected", "n = 1");
    refuse(SAP_EARGUMENT, "\")\" is expected", "(n > 1");
    refuse(SAP_EARGUMENT, "followed by a letter", "n > 1x");
    refuse(SAP_EARGUMENT, "quote that does not end", "text == 'a");
    refuse(SAP_EARGUMENT, "the functions are", "sqrt(n) > 1");
    refuse(SAP_EARGUMENT, "an index is expected", "list[n] > 1");
    refuse(SAP_EARGUMENT, "a column, a number", "");
    char deep[2001];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    refuse(SAP_EARGUMENT, "nested too deep", deep);
    for (int i = 0; i < 2000; i++)
        deep[i] = i % 2 ? '+' : '1';
    refuse(SAP_EARGUMENT, "too long", deep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comparisons),
        cmocka_unit_test(test_integers_are_exact),
        cmocka_unit_test(test_logic_and_precedence),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_lists_and_nulls),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
