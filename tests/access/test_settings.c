/* Settings: standard values, what the environment changes, what it may not say, and that the documentation tells them. */
#include "test_support.h"

#include "access/access_internal.h"

#include <unistd.h>

static void test_standard(void **state) {
    (void)state;
    for (size_t i = 0; sap_settings_at(i); i++)
        unsetenv(sap_settings_at(i)->name);
    sap_access_settings s;
    assert_ok(sap_settings_init(&s, err));
    assert_true(s.connect_seconds == 30 && s.stall_seconds == 15 && s.deadline_seconds == 120);
    assert_int_equal(s.request_bytes, 8000000);
    assert_int_equal(s.gap_bytes, 64000);
    assert_int_equal(s.in_flight, 8);
    assert_true(s.map);
    assert_null(s.cache);
    sap_settings_release(&s);
}

static void test_environment(void **state) {
    (void)state;
    setenv("SAPWOOD_STALL_SECONDS", "0.5", 1);
    setenv("SAPWOOD_REQUEST_BYTES", "1.5MB", 1);
    setenv("SAPWOOD_GAP_BYTES", "0", 1);
    setenv("SAPWOOD_MMAP", "no", 1);
    setenv("SAPWOOD_CACHE", "/somewhere", 1);
    setenv("SAPWOOD_IN_FLIGHT", "", 1); /* empty is not set */
    sap_access_settings s;
    assert_ok(sap_settings_init(&s, err));
    assert_true(s.stall_seconds == 0.5);
    assert_int_equal(s.request_bytes, 1500000);
    assert_int_equal(s.gap_bytes, 0);
    assert_int_equal(s.in_flight, 8);
    assert_false(s.map);
    assert_string_equal(s.cache, "/somewhere");
    sap_settings_release(&s);
    sap_settings_release(&s);
}

static void test_nonsense(void **state) {
    (void)state;
    static const char *const wrong[][2] = {{"SAPWOOD_STALL_SECONDS", "soon"},    {"SAPWOOD_STALL_SECONDS", "0"},
                                           {"SAPWOOD_STALL_SECONDS", "nan"},     {"SAPWOOD_STALL_SECONDS", "5 MB"},
                                           {"SAPWOOD_REQUEST_BYTES", "8 Miles"}, {"SAPWOOD_REQUEST_BYTES", "-1"},
                                           {"SAPWOOD_IN_FLIGHT", "0"},           {"SAPWOOD_MMAP", "perhaps"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv(wrong[i][0], wrong[i][1], 1);
        sap_access_settings s;
        assert_error(SAP_EARGUMENT, wrong[i][0], sap_settings_init(&s, err));
        unsetenv(wrong[i][0]);
    }
}

/* docs/access.md has a line `| `NAME` | standard | meaning |` for each, and no others. */
static void test_documentation(void **state) {
    (void)state;
    const char *source = getenv("SAPWOOD_SOURCE");
    if (!source)
        skip();
    char path[4096], *text;
    (void)snprintf(path, sizeof path, "%s/docs/access.md", source);
    assert_ok(sap_file_load(path, 1 << 20, &text, NULL, err));
    size_t listed = 0;
    for (const char *at = text; (at = strstr(at, "\n| `SAPWOOD_")); at++)
        listed++;
    size_t i = 0;
    for (const sap_setting *s; (s = sap_settings_at(i)); i++) {
        char line[400];
        (void)snprintf(line, sizeof line, "\n| `%s` | %s | %s | %s |\n", s->name, *s->standard ? s->standard : "–",
                       s->unit, s->meaning);
        if (!strstr(text, line))
            fail_msg("docs/access.md lacks this line:%s", line);
    }
    assert_int_equal(listed, i);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_standard), cmocka_unit_test(test_environment),
                                       cmocka_unit_test(test_nonsense), cmocka_unit_test(test_documentation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
