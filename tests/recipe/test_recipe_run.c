/* Running recipes: what comes out, and recipes that break the rules. */
#include "column/column_internal.h"

#include <sapwood/recipe.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { EVENTS = 100 };

/* Event e of the input has the number e, and a list of e % 4 items, each e. */
static int64_t numbers[EVENTS];
static int32_t offsets[EVENTS + 1];
static float items[4 * EVENTS];

static sap_column list_item = {.name = "item", .type = SAP_FLOAT32, .values = items};
static sap_column columns[] = {
    {.name = "list", .type = SAP_LIST, .length = EVENTS, .offsets = offsets, .count = 1, .children = &list_item},
    {.name = "number", .type = SAP_INT64, .length = EVENTS, .values = numbers},
};
static const sap_batch input = {.length = EVENTS, .first_entry = 1000, .count = 2, .columns = columns};

static int make_input(void **state) {
    (void)state;
    for (int32_t e = 0; e < EVENTS; e++) {
        numbers[e] = e;
        offsets[e + 1] = offsets[e] + e % 4;
        for (int32_t i = offsets[e]; i < offsets[e + 1]; i++)
            items[i] = (float)e;
    }
    list_item.length = offsets[EVENTS];
    return 0;
}

enum behaviour {
    GOOD,
    KEEP_TWICE,
    DROP_AFTER_KEEP,
    FORGET,
    BACKWARDS,
    BEYOND,
    BAD_CUT,
    SHORT_VALUE,
    RAGGED_VALUE,
    NEGATIVE_VALUE,
    FAIL,
    SILENT_FAILURE
};

static int64_t number_of(const sap_recipe_call *call, int64_t event) {
    return ((const int64_t *)call->columns[1].values)[event];
}

static sap_status keep_event(const sap_recipe_call *call, int64_t event, sap_error *err) {
    int32_t count;
    const float *list = sap_recipe_floats(&call->columns[0], event, &count);
    const float pair[] = {(float)number_of(call, event), (float)count};
    float rows[8];
    for (int32_t i = 0; i < 2 * count; i++)
        rows[i] = list[i / 2] + (float)i;
    const sap_recipe_value values[] = {{pair, 2}, {count ? rows : NULL, 2 * (int64_t)count}};
    return call->keep(call->sink, event, values, err);
}

/* Misbehaves in the event of number 50. */
static sap_status misbehave(const sap_recipe_call *call, int64_t event, sap_error *err) {
    const float pair[3] = {0};
    const sap_recipe_value good[] = {{pair, 2}, {pair, 2}};
    const sap_recipe_value bad[3][2] = {{{pair, 3}, {pair, 2}}, {{pair, 2}, {pair, 3}}, {{pair, 2}, {pair, -2}}};
    switch (*(const enum behaviour *)call->settings) {
    case KEEP_TWICE:
        SAP_TRY(call->keep(call->sink, event, good, err));
        return call->keep(call->sink, event, good, err);
    case DROP_AFTER_KEEP:
        SAP_TRY(call->keep(call->sink, event, good, err));
        call->drop(call->sink, event, 0);
        return SAP_OK;
    case FORGET:
        return SAP_OK;
    case BACKWARDS:
        SAP_TRY(call->keep(call->sink, event + 1, good, err));
        return call->keep(call->sink, event, good, err);
    case BEYOND:
        call->drop(call->sink, call->count, 0);
        return SAP_OK;
    case BAD_CUT:
        call->drop(call->sink, event, 2);
        return SAP_OK;
    case SHORT_VALUE:
        return call->keep(call->sink, event, bad[0], err);
    case RAGGED_VALUE:
        return call->keep(call->sink, event, bad[1], err);
    case NEGATIVE_VALUE:
        return call->keep(call->sink, event, bad[2], err);
    case FAIL:
        return (call->fail)(call->sink, event, err, "the list is too long");
    case SILENT_FAILURE:
        return SAP_EDATA;
    default:
        return keep_event(call, event, err);
    }
}

static sap_status events(const sap_recipe_call *call, sap_error *err) {
    for (int64_t event = 0; event < call->count; event++) {
        int64_t number = number_of(call, event);
        assert_true(call->first_entry + event == 1000 + number);
        if (number == 50)
            SAP_TRY(misbehave(call, event, err));
        else if (number % 3 == 0)
            call->drop(call->sink, event, number % 2 == 1);
        else
            SAP_TRY(keep_event(call, event, err));
    }
    return SAP_OK;
}

static const sap_recipe_input inputs[] = {{"list", SAP_FLOAT32, true}, {"number", SAP_INT64, false}};
static const char *const names[] = {"a", "b"};
static const sap_feature features[] = {{.name = "pair", .value_names = names, .width = 2},
                                       {.name = "rows", .value_names = names, .width = 2, .sequence = true}};
static const char *const cuts[] = {"not even", "not odd"};

static sap_recipe toy(const enum behaviour *behaviour) {
    return (sap_recipe){.abi = SAP_RECIPE_ABI,
                        .name = "toy",
                        .version = "1",
                        .inputs = inputs,
                        .input_count = 2,
                        .features = features,
                        .feature_count = 2,
                        .cuts = cuts,
                        .cut_count = 2,
                        .settings = behaviour,
                        .events = events};
}

static void gives_features_in_order(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 5};
    for (int t = 0; t < 3; t++) {
        enum behaviour good = GOOD;
        sap_recipe recipe = toy(&good);
        sap_batch out = {0};
        sap_run run = {0};
        int64_t dropped[2] = {10, 20};
        assert_int_equal(sap_pool_open(threads[t], &run.pool, NULL), SAP_OK);
        assert_int_equal(sap_recipe_run(&recipe, &input, "f:t", &run, &out, dropped, NULL), SAP_OK);
        assert_int_equal(dropped[0], 10 + 17);
        assert_int_equal(dropped[1], 20 + 17);
        assert_int_equal(out.length, 66);
        assert_int_equal(out.first_entry, 1000);
        assert_int_equal(out.count, 3);
        const sap_column *pair = sap_batch_find(&out, "pair"), *rows = sap_batch_find(&out, "rows");
        const sap_column *entry = sap_batch_find(&out, "entry");
        assert_int_equal(pair->type, SAP_FIXED_LIST);
        assert_int_equal(pair->size, 2);
        assert_int_equal(rows->type, SAP_LIST);
        assert_int_equal(rows->children[0].type, SAP_FLOAT32);
        assert_int_equal(rows->children[0].length, rows->offsets[66]);
        int64_t row = 0;
        for (int64_t e = 0; e < EVENTS; e++) {
            if (e % 3 == 0)
                continue;
            const float *two = (const float *)pair->children[0].values + 2 * row;
            assert_true(two[0] == (float)e && two[1] == (float)(e % 4));
            assert_true(((const int64_t *)entry->values)[row] == 1000 + e);
            assert_int_equal(rows->offsets[row + 1] - rows->offsets[row], 2 * (e % 4));
            for (int32_t i = 0; i < 2 * (e % 4); i++)
                assert_true(((const float *)rows->children[0].values)[rows->offsets[row] + i] == (float)(e + i));
            row++;
        }
        sap_batch_release(&out);
        sap_pool_close(run.pool);
    }
}

static void names_what_a_recipe_does_wrong(void **state) {
    (void)state;
    static const struct {
        enum behaviour behaviour;
        sap_status status;
        const char *message;
    } cases[] = {
        {KEEP_TWICE, SAP_EARGUMENT, "recipe \"toy\" is wrong: it kept entry 1050 after it was kept or dropped before"},
        {DROP_AFTER_KEEP, SAP_EARGUMENT, "it dropped entry 1050 after it was kept or dropped before"},
        {FORGET, SAP_EARGUMENT, "it neither kept nor dropped entry 1050"},
        {BACKWARDS, SAP_EARGUMENT, "it kept entry 1050 after a later one"},
        {BEYOND, SAP_EARGUMENT, "it dropped event 32 of a call with 32"},
        {BAD_CUT, SAP_EARGUMENT, "it dropped entry 1050 at cut 2 of 2"},
        {SHORT_VALUE, SAP_EARGUMENT, "it gave feature \"pair\" of entry 1050 3 values, expected 2"},
        {RAGGED_VALUE, SAP_EARGUMENT, "it gave feature \"rows\" of entry 1050 3 values, expected a multiple of 2"},
        {NEGATIVE_VALUE, SAP_EARGUMENT, "it gave feature \"rows\" of entry 1050 -2 values, expected a multiple of 2"},
        {FAIL, SAP_EFORMAT, "f:t: entry 1050: the list is too long"},
        {SILENT_FAILURE, SAP_EDATA, "f:t: recipe \"toy\" failed (unusable data) without saying why"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_recipe recipe = toy(&cases[i].behaviour);
        sap_batch out = {0};
        sap_error error = {0};
        int64_t dropped[2] = {0};
        assert_int_equal(sap_recipe_run(&recipe, &input, "f:t", NULL, &out, dropped, &error), cases[i].status);
        if (!strstr(error.message, cases[i].message))
            fail_msg("\"%s\" does not have \"%s\"", error.message, cases[i].message);
        assert_true(strncmp(error.message, "f:t: ", 5) == 0);
        assert_null(out.columns);
        assert_int_equal(dropped[0] + dropped[1], 0);
    }
}

static void empty_batches_and_nothing_kept(void **state) {
    (void)state;
    enum behaviour good = GOOD;
    sap_recipe recipe = toy(&good);
    for (int64_t length = 0; length < 2; length++) { /* event 0 is dropped */
        sap_batch view, out = {0};
        int64_t dropped[2] = {0};
        assert_int_equal(sap_batch_view(&input, 0, length, &view, NULL), SAP_OK);
        assert_int_equal(sap_recipe_run(&recipe, &view, "f:t", NULL, &out, dropped, NULL), SAP_OK);
        assert_int_equal(out.length, 0);
        assert_int_equal(out.count, 3);
        assert_int_equal(sap_batch_find(&out, "rows")->offsets[0], 0);
        assert_int_equal(dropped[0], length);
        sap_batch_release(&out);
        sap_batch_release(&view);
    }
}

static void batches_must_have_the_inputs(void **state) {
    (void)state;
    enum behaviour good = GOOD;
    sap_recipe recipe = toy(&good);
    sap_column others[2] = {columns[0], columns[1]};
    sap_batch batch = input, out = {0};
    sap_error error = {0};
    int64_t dropped[2];
    batch.columns = others;
    others[1].name = "numbers";
    assert_int_equal(sap_recipe_run(&recipe, &batch, "f:t", NULL, &out, dropped, &error), SAP_ENOTFOUND);
    assert_string_equal(error.message, "f:t: recipe \"toy\": no column \"number\"");
    others[1].name = "number";
    others[1].type = SAP_FLOAT64;
    assert_int_equal(sap_recipe_run(&recipe, &batch, "f:t", NULL, &out, dropped, &error), SAP_ETYPE);
    assert_string_equal(error.message, "f:t: recipe \"toy\": column \"number\" is float64, expected int64");
    others[1] = columns[1];
    uint8_t valid[EVENTS] = {1, 1, 0};
    others[1].valid = valid;
    assert_int_equal(sap_recipe_run(&recipe, &batch, "f:t", NULL, &out, dropped, &error), SAP_EDATA);
    assert_string_equal(error.message, "f:t: recipe \"toy\": column \"number\" is null in entry 1002");
    memset(valid, 1, sizeof valid);
    assert_int_equal(sap_recipe_run(&recipe, &batch, "f:t", NULL, &out, dropped, &error), SAP_OK);
    sap_batch_release(&out);
}

static void can_be_cancelled(void **state) {
    (void)state;
    enum behaviour good = GOOD;
    sap_recipe recipe = toy(&good);
    sap_batch out = {0};
    int64_t dropped[2] = {0};
    int cancel = 1;
    sap_run run = {.cancel = &cancel};
    assert_int_equal(sap_recipe_run(&recipe, &input, "f:t", &run, &out, dropped, NULL), SAP_ECANCELLED);
    assert_null(out.columns);
}

/* Every event gives a million values. */
static sap_status large(const sap_recipe_call *call, sap_error *err) {
    static float block[1 << 20];
    for (int64_t event = 0; event < call->count; event++) {
        const sap_recipe_value values[] = {{block, 2}, {block, (int64_t)1 << 20}};
        SAP_TRY(call->keep(call->sink, event, values, err));
    }
    return SAP_OK;
}

static void grows_for_large_sequences(void **state) {
    (void)state;
    sap_recipe recipe = toy(NULL);
    recipe.events = large;
    sap_batch view, out = {0};
    int64_t dropped[2] = {0};
    assert_int_equal(sap_batch_view(&input, 0, 40, &view, NULL), SAP_OK);
    assert_int_equal(sap_recipe_run(&recipe, &view, "f:t", NULL, &out, dropped, NULL), SAP_OK);
    assert_int_equal(sap_batch_find(&out, "rows")->offsets[40], 40 << 20);
    sap_batch_release(&out);
    sap_batch_release(&view);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_features_in_order),
        cmocka_unit_test(names_what_a_recipe_does_wrong),
        cmocka_unit_test(empty_batches_and_nothing_kept),
        cmocka_unit_test(batches_must_have_the_inputs),
        cmocka_unit_test(can_be_cancelled),
        cmocka_unit_test(grows_for_large_sequences),
    };
    return cmocka_run_group_tests(tests, make_input, NULL);
}
