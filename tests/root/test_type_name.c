/* C++ type names: arguments, prefixes, fundamental types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "root/root_internal.h"

static void expect(const char *type, const char *base, int count, const char *first, const char *second) {
    sap_span b, arguments[3];
    assert_int_equal(sap_type_split(type, &b, arguments, 3), count);
    assert_int_equal(b.length, strlen(base));
    assert_memory_equal(b.text, base, b.length);
    if (count > 0)
        assert_memory_equal(arguments[0].text, first, strlen(first));
    if (count > 0)
        assert_int_equal(arguments[0].length, strlen(first));
    if (count > 1)
        assert_int_equal(arguments[1].length, strlen(second));
    if (count > 1)
        assert_memory_equal(arguments[1].text, second, strlen(second));
}

static void test_split(void **state) {
    (void)state;
    expect("float", "float", 0, NULL, NULL);
    expect("  const std::string ", "string", 0, NULL, NULL);
    expect("vector<float>", "vector", 1, "float", NULL);
    expect("std::vector<std::vector<int> >", "vector", 1, "vector<int>", NULL);
    expect("map<string,vector<pair<int,float> > >", "map", 2, "string", "vector<pair<int,float> >");
    expect("vector<", "vector<", 0, NULL, NULL);
    expect("", "", 0, NULL, NULL);
    expect(">", ">", 0, NULL, NULL);
    expect("a>b<c", "a>b<c", 0, NULL, NULL);
}

static void test_kinds(void **state) {
    (void)state;
    assert_int_equal(sap_kind_of_type("float"), SAP_KIND_FLOAT);
    assert_int_equal(sap_kind_of_type("unsigned long long"), SAP_KIND_ULONG64);
    assert_int_equal(sap_kind_of_type("Double32_t"), SAP_KIND_DOUBLE32);
    assert_int_equal(sap_kind_of_type("TString"), -1);
    assert_int_equal(sap_kind_size(SAP_KIND_LONG), 8);
    assert_int_equal(sap_kind_size(SAP_KIND_DOUBLE32), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_split), cmocka_unit_test(test_kinds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
