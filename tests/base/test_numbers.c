/* Numbers as text and back, where the program has set a locale with a decimal comma. */
#include "base/numbers.h"
#include "test_support.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/sapwood-locale-XXXXXX";

/* A German locale: the machine's, or made for this test where the sources of locales are installed. */
static bool set_comma(void) {
    char command[200];
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        return true;
    if (!mkdtemp(folder) || setenv("LOCPATH", folder, 1) != 0)
        return false;
    (void)snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    return system(command) == 0 && setlocale(LC_NUMERIC, "de_DE.UTF-8");
}

static void check_numbers(void) {
    char *end, text[SAP_REAL_TEXT];
    assert_true(sap_real_parse("1.5e3 GeV", &end) == 1500);
    assert_string_equal(end, " GeV");
    assert_true(sap_real_parse("2,5", &end) == 2);
    assert_string_equal(end, ",5");
    sap_real_print(text, 0.1, 17);
    assert_string_equal(text, "0.10000000000000001");
    sap_real_shortest(text, 0.1, false);
    assert_string_equal(text, "0.1");
    sap_real_shortest(text, (double)0.1F, true);
    assert_string_equal(text, "0.1");
    sap_real_shortest(text, 1.0 / 3, false);
    assert_true(sap_real_parse(text, NULL) == 1.0 / 3);
    assert_true(isnan(sap_real_parse("nan", NULL)));
}

static void numbers_have_a_point(void **state) {
    (void)state;
    check_numbers();
}

static void numbers_have_a_point_in_every_locale(void **state) {
    (void)state;
    if (!set_comma()) {
        print_message("no locale with a decimal comma is installed, and none can be made\n");
        skip();
    }
    char text[20];
    (void)snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5"); /* it is in force */
    check_numbers();
    (void)snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5"); /* and still is */
}

static int remove_locale(void **state) {
    char command[200];
    (void)state;
    (void)setlocale(LC_NUMERIC, "C");
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return strchr(folder, 'X') ? 0 : system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_have_a_point),
        cmocka_unit_test(numbers_have_a_point_in_every_locale),
    };
    return cmocka_run_group_tests(tests, NULL, remove_locale);
}
