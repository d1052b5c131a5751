/* Arrow's C Data interface: schemas, arrays, and who frees what. */
#include "column/column_internal.h"
#include "test_support.h"

static const sap_field item = {.name = "whatever", .type = SAP_FLOAT32};
static const sap_field alternatives[] = {{.name = "a", .type = SAP_INT8}, {.name = "b", .type = SAP_UINT64}};
static const sap_field fields[] = {
    {.name = "flag", .type = SAP_BOOL, .nullable = true},
    {.name = "jagged", .type = SAP_LIST, .count = 1, .children = &item},
    {.name = "fixed", .type = SAP_FIXED_LIST, .size = 3, .count = 1, .children = &item},
    {.name = "either", .type = SAP_UNION, .count = 2, .children = alternatives},
    {.name = "word", .type = SAP_STRING},
};

static void schemas(void **state) {
    (void)state;
    struct ArrowSchema schema;
    assert_ok(sap_schema_export(fields, 5, &schema, err));
    assert_string_equal(schema.format, "+s");
    assert_int_equal(schema.n_children, 5);
    static const char *const formats[] = {"b", "+l", "+w:3", "+ud:0,1", "u"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(schema.children[i]->format, formats[i]);
        assert_string_equal(schema.children[i]->name, fields[i].name);
        assert_int_equal(schema.children[i]->flags, i == 0 ? ARROW_FLAG_NULLABLE : 0);
    }
    assert_string_equal(schema.children[1]->children[0]->name, "item");
    assert_string_equal(schema.children[3]->children[1]->format, "L");
    schema.release(&schema);
    assert_null(schema.release);
}

static void make(sap_batch *batch) {
    assert_ok(sap_batch_init(batch, 2, err));
    batch->length = 10;
    for (int i = 0; i < 2; i++) {
        assert_ok(sap_column_init(batch->storage, &fields[i], &batch->columns[i], err));
        batch->columns[i].length = 10;
    }
    uint8_t *flag = sap_storage_alloc(batch->storage, 10), *valid = sap_storage_alloc(batch->storage, 10);
    int32_t *offsets = sap_storage_alloc(batch->storage, 11 * sizeof *offsets);
    float *values = sap_storage_alloc(batch->storage, 10 * sizeof *values);
    for (int i = 0; i < 10; i++) {
        flag[i] = i % 3 == 0;
        valid[i] = i != 4;
        offsets[i] = i;
        values[i] = (float)i;
    }
    offsets[10] = 10;
    batch->columns[0].values = flag;
    batch->columns[0].valid = valid;
    batch->columns[1].offsets = offsets;
    batch->columns[1].children[0].values = values;
    batch->columns[1].children[0].length = 10;
}

static void arrays(void **state) {
    (void)state;
    sap_batch batch;
    make(&batch);
    const void *values = batch.columns[1].children[0].values;
    struct ArrowArray array;
    assert_ok(sap_batch_export(&batch, &array, err));
    assert_int_equal(batch.count, 0); /* moved */
    assert_int_equal(array.n_children, 2);
    const uint8_t *valid = array.children[0]->buffers[0], *bits = array.children[0]->buffers[1];
    assert_int_equal(array.children[0]->null_count, 1);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(bits[i / 8] >> (i % 8) & 1, i % 3 == 0);
        assert_int_equal(valid[i / 8] >> (i % 8) & 1, i != 4);
    }
    assert_ptr_equal(array.children[1]->children[0]->buffers[1], values);
    assert_null(array.children[1]->buffers[0]);
    array.release(&array);
    assert_null(array.release);
}

/* The specification lets a consumer move a child out and release the parent first. */
static void a_child_may_outlive_its_parent(void **state) {
    (void)state;
    sap_batch batch;
    make(&batch);
    struct ArrowArray array, child;
    assert_ok(sap_batch_export(&batch, &array, err));
    child = *array.children[1];
    array.children[1]->release = NULL;
    array.release(&array);
    assert_true(((const float *)child.children[0]->buffers[1])[9] == 9.0F);
    child.release(&child);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas),
        cmocka_unit_test(arrays),
        cmocka_unit_test(a_child_may_outlive_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
