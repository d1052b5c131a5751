/* Batches: types as text, views, joining, of nested columns. */
#include "column/column_internal.h"
#include "test_support.h"

static const sap_field float_item = {.name = "item", .type = SAP_FLOAT32};
static const sap_field list_item = {.name = "item", .type = SAP_LIST, .count = 1, .children = &float_item};
static const sap_field record_fields[] = {{.name = "x", .type = SAP_INT32}, {.name = "s", .type = SAP_STRING}};
static const sap_field fields[] = {
    {.name = "n", .type = SAP_INT64},
    {.name = "jagged", .type = SAP_LIST, .count = 1, .children = &float_item},
    {.name = "twice", .type = SAP_LIST, .count = 1, .children = &list_item},
    {.name = "fixed", .type = SAP_FIXED_LIST, .size = 2, .count = 1, .children = &float_item},
    {.name = "record", .type = SAP_RECORD, .count = 2, .children = record_fields},
    {.name = "flag", .type = SAP_BOOL, .nullable = true},
};
enum { FIELDS = sizeof fields / sizeof *fields, ROWS = 7 };

#define ALLOC(batch, type, count) ((type *)sap_storage_alloc((batch)->storage, (size_t)(count) * sizeof(type)))

/* Row r (from `first`): n = r; jagged = r % 3 items; twice = r % 2 lists of 2; fixed = (r, -r); record {2r, "r…"}; flag null
 * when r % 4 == 0. */
static void make(int64_t first, int64_t rows, sap_batch *out) {
    assert_ok(sap_batch_init(out, FIELDS, err));
    out->length = rows;
    out->first_entry = first;
    for (int i = 0; i < FIELDS; i++) {
        assert_ok(sap_column_init(out->storage, &fields[i], &out->columns[i], err));
        out->columns[i].length = rows;
    }
    int64_t *n = ALLOC(out, int64_t, rows);
    int32_t *jagged = ALLOC(out, int32_t, rows + 1), *twice = ALLOC(out, int32_t, rows + 1),
            *inner = ALLOC(out, int32_t, rows + 1), *x = ALLOC(out, int32_t, rows), *s = ALLOC(out, int32_t, rows + 1);
    float *items = ALLOC(out, float, rows * 3), *deep = ALLOC(out, float, rows * 3),
          *pair = ALLOC(out, float, rows * 2);
    char *text = ALLOC(out, char, rows * 20);
    uint8_t *flag = ALLOC(out, uint8_t, rows), *valid = ALLOC(out, uint8_t, rows);
    jagged[0] = twice[0] = inner[0] = s[0] = 0;
    int32_t lists = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t r = first + i;
        n[i] = r;
        jagged[i + 1] = jagged[i] + (int32_t)(r % 3);
        for (int32_t k = jagged[i]; k < jagged[i + 1]; k++)
            items[k] = (float)(r * 10 + k - jagged[i]);
        twice[i + 1] = twice[i] + (int32_t)(r % 2);
        if (r % 2) {
            inner[lists + 1] = inner[lists] + 2;
            deep[inner[lists]] = (float)r;
            deep[inner[lists] + 1] = (float)-r;
            lists++;
        }
        pair[2 * i] = (float)r;
        pair[2 * i + 1] = (float)-r;
        x[i] = (int32_t)(2 * r);
        s[i + 1] = s[i] + snprintf(text + s[i], 20, "r%lld", (long long)r);
        flag[i] = r % 2 == 0;
        valid[i] = r % 4 != 0;
    }
    sap_column *c = out->columns;
    c[0].values = n;
    c[1].offsets = jagged;
    c[1].children[0].values = items;
    c[1].children[0].length = jagged[rows];
    c[2].offsets = twice;
    c[2].children[0].length = lists;
    c[2].children[0].offsets = inner;
    c[2].children[0].children[0].values = deep;
    c[2].children[0].children[0].length = inner[lists];
    c[3].children[0].values = pair;
    c[3].children[0].length = rows * 2;
    c[4].children[0].values = x;
    c[4].children[0].length = rows;
    c[4].children[1].offsets = s;
    c[4].children[1].values = text;
    c[4].children[1].length = rows;
    c[5].values = flag;
    c[5].valid = valid;
}

/* Whether every row is what `make` would have given. */
static void check(const sap_batch *batch, const int64_t *rows) {
    const sap_column *c = batch->columns;
    for (int64_t i = 0; i < batch->length; i++) {
        int64_t r = rows[i];
        assert_int_equal(((const int64_t *)c[0].values)[i], r);
        assert_int_equal(c[1].offsets[i + 1] - c[1].offsets[i], r % 3);
        for (int32_t k = 0; k < r % 3; k++)
            assert_true(((const float *)c[1].children[0].values)[c[1].offsets[i] + k] == (float)(r * 10 + k));
        assert_int_equal(c[2].offsets[i + 1] - c[2].offsets[i], r % 2);
        if (r % 2) {
            const sap_column *list = &c[2].children[0];
            int32_t at = list->offsets[c[2].offsets[i]];
            assert_int_equal(list->offsets[c[2].offsets[i] + 1] - at, 2);
            assert_true(((const float *)list->children[0].values)[at] == (float)r);
            assert_true(((const float *)list->children[0].values)[at + 1] == (float)-r);
        }
        assert_true(((const float *)c[3].children[0].values)[2 * i + 1] == (float)-r);
        assert_int_equal(((const int32_t *)c[4].children[0].values)[i], 2 * r);
        char expected[24];
        int length = snprintf(expected, sizeof expected, "r%lld", (long long)r);
        const sap_column *s = &c[4].children[1];
        assert_int_equal(s->offsets[i + 1] - s->offsets[i], length);
        assert_memory_equal((const char *)s->values + s->offsets[i], expected, (size_t)length);
        assert_int_equal(c[5].valid[i], r % 4 != 0);
        assert_int_equal(((const uint8_t *)c[5].values)[i], r % 2 == 0);
    }
}

static void types_as_text(void **state) {
    (void)state;
    char text[100];
    static const char *const expected[] = {
        "int64", "list<float32>", "list<list<float32>>", "fixed<float32, 2>", "record{x: int32, s: string}", "bool?"};
    for (int i = 0; i < FIELDS; i++) {
        assert_int_equal(sap_field_text(&fields[i], text, sizeof text), strlen(expected[i]));
        assert_string_equal(text, expected[i]);
    }
    char tiny[5];
    assert_int_equal(sap_field_text(&fields[1], tiny, sizeof tiny), 13);
    assert_string_equal(tiny, "list");
    assert_true(sap_field_same(&fields[2], &fields[2]));
    assert_false(sap_field_same(&fields[1], &fields[2]));
    assert_int_equal(sap_type_size(SAP_FLOAT64), 8);
    assert_string_equal(sap_type_name((sap_type)99), "unknown");
}

static void views_share_and_views_nest(void **state) {
    (void)state;
    sap_batch batch, view, inner;
    make(0, ROWS, &batch);
    int64_t rows[ROWS] = {2, 3, 4, 5, 6};
    assert_ok(sap_batch_view(&batch, 2, 7, &view, err));
    assert_int_equal(view.first_entry, 2);
    check(&view, rows);
    assert_ptr_equal(view.columns[1].children, batch.columns[1].children);
    assert_ok(sap_batch_view(&view, 1, 3, &inner, err));
    check(&inner, rows + 1);
    sap_batch_release(&inner);
    assert_ok(sap_batch_view(&view, 3, 3, &inner, err));
    assert_int_equal(inner.length, 0);
    sap_batch_release(&inner);
    assert_error(SAP_EARGUMENT, "view of entries [1, 9) of a batch of 7", sap_batch_view(&batch, 1, 9, &inner, err));
    sap_batch_release(&view);
    sap_batch_release(&batch);
    sap_batch_release(&batch);
}

static void batches_and_views_join(void **state) {
    (void)state;
    sap_batch batches[4], out;
    make(0, ROWS, &batches[0]);
    make(100, 0, &batches[1]);
    make(20, 3, &batches[2]);
    assert_ok(sap_batch_view(&batches[0], 3, 6, &batches[3], err));
    assert_ok(sap_batch_join(batches, 4, &out, err));
    int64_t rows[] = {0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 3, 4, 5};
    assert_int_equal(out.length, 13);
    check(&out, rows);
    assert_int_equal(out.columns[1].offsets[0], 0);
    assert_string_equal(sap_batch_find(&out, "record")->name, "record");
    assert_null(sap_batch_find(&out, "nothing"));
    sap_batch_release(&out);
    batches[2].columns[1].type = SAP_STRING;
    assert_error(SAP_ETYPE, "\"jagged\"", sap_batch_join(batches, 4, &out, err));
    for (int i = 0; i < 4; i++)
        sap_batch_release(&batches[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_as_text),
        cmocka_unit_test(views_share_and_views_nest),
        cmocka_unit_test(batches_and_views_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
