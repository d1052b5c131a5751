/* Definitions that make no sense, and columns that are not there or of another type. */
#include "recipe/recipe_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static sap_status events(const sap_recipe_call *call, sap_error *err) {
    (void)call;
    (void)err;
    return SAP_OK;
}

/* A good definition whose parts can be spoilt one by one. */
typedef struct parts {
    sap_recipe_input inputs[2];
    const char *names[2];
    sap_feature features[2];
    const char *cuts[1];
    sap_recipe recipe;
} parts;

static void make_good(parts *p) {
    *p = (parts){
        .inputs = {{"x", SAP_FLOAT32, true}, {"y", SAP_INT32, false}}, .names = {"a", "b"}, .cuts = {"some cut"}};
    p->features[0] = (sap_feature){.name = "one", .value_names = p->names, .width = 2};
    p->features[1] = (sap_feature){.name = "two",
                                   .value_names = p->names,
                                   .width = 2,
                                   .sequence = true,
                                   .order = SAP_ORDER_FALLING_DELTA_R,
                                   .phi_index = 1,
                                   .pad_rows = 5};
    p->recipe = (sap_recipe){.abi = SAP_RECIPE_ABI,
                             .name = "r",
                             .version = "1",
                             .inputs = p->inputs,
                             .input_count = 2,
                             .features = p->features,
                             .feature_count = 2,
                             .cuts = p->cuts,
                             .cut_count = 1,
                             .events = events};
}

/* The good one passes; after `change` it fails with a message that has `words`. */
#define SPOILT(change, words)                                                                                          \
    do {                                                                                                               \
        parts p;                                                                                                       \
        sap_error error = {0};                                                                                         \
        make_good(&p);                                                                                                 \
        assert_int_equal(sap_recipe_validate(&p.recipe, "r.c", &error), SAP_OK);                                       \
        change;                                                                                                        \
        assert_int_equal(sap_recipe_validate(&p.recipe, "r.c", &error), SAP_EARGUMENT);                                \
        if (strncmp(error.message, "r.c: ", 5) != 0 || !strstr(error.message, words))                                  \
            fail_msg("\"%s\" does not have \"%s\"", error.message, words);                                             \
    } while (0)

static void definitions(void **state) {
    (void)state;
    SPOILT(p.recipe.abi = 7, "the recipe's abi is 7, this Sapwood has SAP_RECIPE_ABI 1");
    SPOILT(p.recipe.name = NULL, "needs a name");
    SPOILT(p.recipe.name = "two words", "needs a name");
    SPOILT(p.recipe.version = "", "needs a version");
    SPOILT(p.recipe.events = NULL, "no function `events`");
    SPOILT(p.recipe.input_count = 0, "reads no columns");
    SPOILT(p.recipe.inputs = NULL, "reads no columns");
    SPOILT(p.inputs[1].name = NULL, "input 1 has no name");
    SPOILT(p.inputs[1].name = "x", "input \"x\" is named twice");
    SPOILT(p.inputs[0].type = SAP_LIST, "input \"x\" is of type list, expected a number type");
    SPOILT(p.recipe.feature_count = 0, "writes no features");
    SPOILT(p.features[0].name = "", "feature 0 needs a name");
    SPOILT(p.features[0].name = "a/b", "feature 0 needs a name");
    SPOILT(p.features[1].name = "one", "feature \"one\" is named twice");
    SPOILT(p.features[0].name = "entry", "no feature can be named \"entry\"");
    SPOILT(p.features[0].width = 0, "feature \"one\" has width 0");
    SPOILT(p.features[0].value_names = NULL, "feature \"one\" has no value_names");
    SPOILT(p.names[1] = NULL, "feature \"one\" has no name for value 1 of 2");
    SPOILT(p.features[0].pad_rows = 3, "but is no sequence");
    SPOILT(p.features[1].scaling = (sap_scaling)9, "no known scaling");
    SPOILT((p.features[1].scaling = SAP_SCALING_STANDARD_EVENT, p.features[1].pad_rows = 0), "has no pad_rows");
    SPOILT(p.features[1].phi_index = 2, "cannot be ordered");
    SPOILT(p.features[1].sequence = false, "feature \"two\"");
    SPOILT(p.recipe.cuts = NULL, "cuts are missing");
    SPOILT(p.cuts[0] = "", "cut 0 has no words");
    sap_error error = {0};
    assert_int_equal(sap_recipe_validate(NULL, "r.c", &error), SAP_EARGUMENT);
    assert_string_equal(error.message, "r.c: sap_recipe_define returns NULL");
}

static void built_in_recipes_are_good(void **state) {
    (void)state;
    sap_error error = {0};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(sap_recipe_validate(sap_topology_recipe()->variant(i ? "paper" : NULL), "built in", &error),
                         SAP_OK);
}

static const sap_field float32 = {.name = "item", .type = SAP_FLOAT32};

static void columns(void **state) {
    (void)state;
    parts p;
    sap_error error = {0};
    make_good(&p);
    sap_field fields[] = {{.name = "y", .type = SAP_INT32, .nullable = true},
                          {.name = "x", .type = SAP_LIST, .count = 1, .children = &float32},
                          {.name = "xx", .type = SAP_FLOAT32}};
    assert_int_equal(sap_recipe_check(&p.recipe, fields, 3, "f.root:Events", &error), SAP_OK);
    fields[0] = (sap_field){.name = "y", .type = SAP_INT64};
    assert_int_equal(sap_recipe_check(&p.recipe, fields, 3, "f.root:Events", &error), SAP_ETYPE);
    assert_string_equal(error.message, "f.root:Events: recipe \"r\": column \"y\" is int64, expected int32");
    fields[1].type = SAP_FIXED_LIST;
    fields[1].size = 3;
    assert_int_equal(sap_recipe_check(&p.recipe, fields, 3, "f.root:Events", &error), SAP_ETYPE);
    assert_non_null(strstr(error.message, "column \"x\" is "));
    assert_non_null(strstr(error.message, ", expected list<float32>; column \"y\" is int64"));
    assert_int_equal(sap_recipe_check(&p.recipe, fields + 2, 1, "f.root:Events", &error), SAP_ENOTFOUND);
    assert_non_null(strstr(error.message, "f.root:Events: recipe \"r\": no column \"x\" (nearest: xx)"));
    assert_non_null(strstr(error.message, "no column \"y\""));
    assert_int_equal(sap_recipe_check(&p.recipe, NULL, 0, "f.root:Events", &error), SAP_ENOTFOUND);
}

/* A tree of something else: every one of the 26 columns is missing; the message names the first few. */
static void nothing_there(void **state) {
    (void)state;
    sap_error error = {0};
    const sap_field fields[] = {{.name = "Track.PT", .type = SAP_LIST, .count = 1, .children = &float32}};
    assert_int_equal(sap_recipe_check(sap_topology_recipe(), fields, 1, "f.root:t", &error), SAP_ENOTFOUND);
    assert_non_null(strstr(error.message, "no column \"EFlowTrack.PT\" (nearest: Track.PT)"));
    assert_non_null(strstr(error.message, "; and 20 more"));
    assert_true(strlen(error.message) < 600);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definitions),
        cmocka_unit_test(built_in_recipes_are_good),
        cmocka_unit_test(columns),
        cmocka_unit_test(nothing_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
