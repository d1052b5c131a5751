/* Plug-ins: unknown ones, and one of another build, which is passed over. */
#include "base/base_internal.h"
#include "test_support.h"

#include <stdlib.h>

static void an_unknown_plug_in_is_an_error(void **state) {
    (void)state;
    const void *table = NULL;
    assert_error(SAP_EPLUGIN, "no plug-in is called \"telepathy\"", sap_plugin_find("telepathy", &table, err));
    assert_null(table);
}

/* The first that is found does not fit; the build's own, behind it, does, where there is one. */
static void a_stale_plug_in_is_passed_over(void **state) {
    (void)state;
    const void *table = NULL;
    sap_error error = {0};
    assert_int_equal(setenv("SAPWOOD_PLUGINS", STALE_FOLDER, 1), 0);
    sap_status status = sap_plugin_find("http", &table, &error);
    if (status == SAP_OK) {
        assert_memory_not_equal(table, "stale", 5);
        return;
    }
    assert_int_equal(status, SAP_EPLUGIN);
    assert_non_null(
        strstr(error.message, "libsapwood-http.so is of another build of Sapwood: its interface is 0123456789ab"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_plug_in_is_an_error),
        cmocka_unit_test(a_stale_plug_in_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
