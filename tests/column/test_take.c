/* Taking entries of a batch: every kind of column, against the same entries taken one by one as views and joined. */
#include "column/column_internal.h"
#include "test_support.h"

static const sap_field item = {.name = "item", .type = SAP_INT16};
static const sap_field inner_list = {.name = "item", .type = SAP_LIST, .count = 1, .children = &item};
static const sap_field pair_of_lists = {
    .name = "item", .type = SAP_FIXED_LIST, .size = 2, .count = 1, .children = &inner_list};
static const sap_field inside[] = {{.name = "s", .type = SAP_STRING},
                                   {.name = "x", .type = SAP_FLOAT64, .nullable = true}};
static const sap_field fields[] = {{.name = "deep", .type = SAP_LIST, .count = 1, .children = &pair_of_lists},
                                   {.name = "record", .type = SAP_RECORD, .count = 2, .children = inside}};
enum { ROWS = 50 };

static void *room(sap_batch *batch, size_t bytes) {
    void *out = sap_storage_alloc(batch->storage, bytes);
    assert_non_null(out);
    return out;
}

/* Offsets of `rows` lists with lengths 0, 1, …, modulo - 1, 0, …; returns the number of items. */
static int64_t lists(sap_batch *batch, sap_column *c, int64_t rows, int modulo) {
    int32_t *offsets = room(batch, (size_t)(rows + 1) * sizeof *offsets);
    offsets[0] = 0;
    for (int64_t i = 0; i < rows; i++)
        offsets[i + 1] = offsets[i] + (int32_t)(i % modulo);
    c->offsets = offsets;
    c->length = rows;
    return offsets[rows];
}

static void make(sap_batch *out) {
    assert_ok(sap_batch_init(out, 2, err));
    for (int i = 0; i < 2; i++)
        assert_ok(sap_column_init(out->storage, &fields[i], &out->columns[i], err));
    out->length = ROWS;
    sap_column *deep = &out->columns[0], *pairs = &deep->children[0], *inner = &pairs->children[0];
    pairs->length = lists(out, deep, ROWS, 4);
    int64_t values = lists(out, inner, pairs->length * 2, 3);
    int16_t *numbers = room(out, (size_t)values * sizeof *numbers);
    for (int64_t i = 0; i < values; i++)
        numbers[i] = (int16_t)i;
    inner->children[0].values = numbers;
    inner->children[0].length = values;
    sap_column *record = &out->columns[1];
    record->length = record->children[1].length = ROWS;
    char *bytes = room(out, 256);
    for (int i = 0; i < 256; i++)
        bytes[i] = (char)('a' + i % 26);
    record->children[0].values = bytes;
    assert_true(lists(out, &record->children[0], ROWS, 5) < 256);
    double *reals = room(out, ROWS * sizeof *reals);
    uint8_t *valid = room(out, ROWS);
    for (int i = 0; i < ROWS; i++) {
        reals[i] = i * 0.5;
        valid[i] = i % 3 != 0;
    }
    record->children[1].values = reals;
    record->children[1].valid = valid;
}

static void check_same(const sap_column *a, const sap_column *b) {
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->length, b->length);
    assert_string_equal(a->name, b->name);
    int64_t items = a->length;
    if (a->offsets) {
        assert_memory_equal(a->offsets, b->offsets, (size_t)(a->length + 1) * sizeof *a->offsets);
        items = a->offsets[a->length];
    }
    for (int64_t i = 0; a->valid && i < a->length; i++)
        assert_int_equal(a->valid[i], b->valid[i]);
    size_t size = a->type == SAP_STRING ? 1 : sap_type_size(a->type);
    if (size && items)
        assert_memory_equal(a->values, b->values, (size_t)items * size);
    for (int32_t i = 0; i < a->count; i++)
        check_same(&a->children[i], &b->children[i]);
}

static void check_taken(const sap_batch *batch, const uint8_t *keep) {
    sap_batch views[ROWS], joined = {0}, taken = {0};
    size_t count = 0;
    for (int64_t i = 0; i < ROWS; i++)
        if (keep[i])
            assert_ok(sap_batch_view(batch, i, i + 1, &views[count++], err));
    assert_ok(sap_batch_take(batch, 2, keep, &taken, err));
    assert_int_equal(taken.length, count);
    if (count) {
        assert_ok(sap_batch_join(views, count, &joined, err));
        for (int i = 0; i < 2; i++)
            check_same(&joined.columns[i], &taken.columns[i]);
    }
    for (size_t i = 0; i < count; i++)
        sap_batch_release(&views[i]);
    sap_batch_release(&joined);
    sap_batch_release(&taken);
}

static void test_take(void **state) {
    (void)state;
    sap_batch batch = {0};
    make(&batch);
    uint8_t keep[ROWS];
    for (uint64_t seed = 0; seed < 100; seed++) { /* none, few, most, all of them */
        for (uint64_t i = 0; i < ROWS; i++)
            keep[i] = sap_mix(seed, i) % 11 < seed % 12;
        check_taken(&batch, keep);
    }
    sap_batch_release(&batch);
}

static void test_columns_behind_are_left_out(void **state) {
    (void)state;
    sap_batch batch = {0}, taken = {0};
    make(&batch);
    uint8_t keep[ROWS] = {[7] = 1};
    assert_ok(sap_batch_take(&batch, 1, keep, &taken, err));
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.length, 1);
    sap_batch_release(&batch);
    sap_batch_release(&taken);
}

/* Tags 0 1 0 1 …: integers and texts. */
static void test_union(void **state) {
    (void)state;
    static const sap_field alternatives[] = {{.name = "0", .type = SAP_INT32}, {.name = "1", .type = SAP_FLOAT64}};
    static const sap_field field = {.name = "u", .type = SAP_UNION, .count = 2, .children = alternatives};
    sap_batch batch = {0}, taken = {0};
    assert_ok(sap_batch_init(&batch, 1, err));
    assert_ok(sap_column_init(batch.storage, &field, &batch.columns[0], err));
    sap_column *c = &batch.columns[0];
    static const int8_t tags[] = {0, 1, 0, 1};
    static const int32_t offsets[] = {0, 0, 1, 1}, integers[] = {10, 20};
    static const double reals[] = {1.5, 2.5};
    c->values = tags;
    c->offsets = offsets;
    c->length = batch.length = 4;
    c->children[0].values = integers;
    c->children[1].values = reals;
    c->children[0].length = c->children[1].length = 2;
    assert_ok(sap_batch_take(&batch, 1, (const uint8_t[]){0, 0, 1, 1}, &taken, err));
    const sap_column *t = &taken.columns[0];
    assert_int_equal(t->length, 2);
    assert_int_equal(((const int8_t *)t->values)[1], 1);
    assert_int_equal(((const int32_t *)t->children[0].values)[t->offsets[0]], 20);
    assert_true(((const double *)t->children[1].values)[t->offsets[1]] == 2.5);
    sap_batch_release(&batch);
    sap_batch_release(&taken);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_take), cmocka_unit_test(test_columns_behind_are_left_out),
                                       cmocka_unit_test(test_union)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
