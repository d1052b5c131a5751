/* Patterns, natural order, nearest names, base names. */
#include "base/base_internal.h"
#include "test_support.h"

static void patterns(void **state) {
    (void)state;
    assert_true(sap_text_matches("Jet.*", "Jet.PT"));
    assert_true(sap_text_matches("*", ""));
    assert_true(sap_text_matches("*PT", "Jet.PT"));
    assert_true(sap_text_matches("J?t.*T", "Jet.PT"));
    assert_true(sap_text_matches("a*b*c", "axxbyybzzc"));
    assert_false(sap_text_matches("Jet.*", "FatJet.PT"));
    assert_false(sap_text_matches("a*b*c", "axxcyyb"));
    assert_false(sap_text_matches("", "x"));
    assert_false(sap_text_matches("Jet", "Jet.PT"));
}

static void natural_order(void **state) {
    (void)state;
    assert_int_equal(sap_text_natural("run2.root", "run10.root"), -1);
    assert_int_equal(sap_text_natural("run010", "run10"), 0);
    assert_int_equal(sap_text_natural("b", "a10"), 1);
    assert_int_equal(sap_text_natural("a", "a1"), -1);
    assert_int_equal(sap_text_natural("x", "x"), 0);
}

static const char *const candidates[] = {"Jet.PT", "Jet.Eta", "Muon.PT", "Electron.PT", "Jet.Phi", "MissingET.MET"};

static const char *candidate(const void *context, size_t index) {
    (void)context;
    return candidates[index];
}

static void nearest_names(void **state) {
    (void)state;
    char out[200];
    sap_text_nearest("jet.pt", 6, candidate, NULL, out, sizeof out);
    assert_non_null(strstr(out, "; nearest: Jet.PT"));
    sap_text_nearest("MET", 6, candidate, NULL, out, sizeof out);
    assert_non_null(strstr(out, "MissingET.MET"));
    sap_text_nearest("x", 0, candidate, NULL, out, sizeof out);
    assert_string_equal(out, "");
    char tiny[12];
    sap_text_nearest("Jet.PT", 6, candidate, NULL, tiny, sizeof tiny);
    assert_true(strlen(tiny) < sizeof tiny);
}

static void base_names(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"/data/a.root", "a.root"},
        {"a.root", "a.root"},
        {"root://host//store/b.root?x=/y", "b.root"},
        {"odd?name.root", "odd?name.root"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        const char *name = sap_text_base_name(cases[i][0], &length);
        assert_int_equal(length, strlen(cases[i][1]));
        assert_memory_equal(name, cases[i][1], length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns),
        cmocka_unit_test(natural_order),
        cmocka_unit_test(nearest_names),
        cmocka_unit_test(base_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
