/* "FILE:TREE": which colon it is. */
#include "test_support.h"

#include <sapwood/export.h>
#include <unistd.h>

static void check(const char *input, const char *url, const char *tree) {
    size_t length;
    const char *found;
    sap_input_parse(input, &length, &found);
    if (length != strlen(url) || strncmp(input, url, length) != 0 || (found == NULL) != (tree == NULL) ||
        (tree && strcmp(found, tree) != 0))
        fail_msg("%s: \"%.*s\" and %s", input, (int)length, input, found ? found : "none");
}

static void test_colons(void **state) {
    (void)state;
    check("a.root", "a.root", NULL);
    check("a.root:Events", "a.root", "Events");
    check("data/*.root:dir/Events", "data/*.root", "dir/Events");
    check("a.root:Events;2", "a.root", "Events;2");
    check("a.root:odd:name", "a.root", "odd:name");
    check("12:30/a.root:t", "12:30/a.root", "t");
    check("12:30/a", "12", "30/a"); /* no ending and no such file: the last colon */
    check("a.root:", "a.root:", NULL);
    check("", "", NULL);
}

static void test_urls(void **state) {
    (void)state;
    check("root://host:1094//store/a.root", "root://host:1094//store/a.root", NULL);
    check("root://host:1094//store/a.root:Events", "root://host:1094//store/a.root", "Events");
    check("root://host//store/*.root:Events", "root://host//store/*.root", "Events");
    check("https://user@host:8443/a.root?x=1:Events", "https://user@host:8443/a.root?x=1", "Events");
    check("https://host:8443", "https://host:8443", NULL);
}

static void test_an_existing_file_is_a_file(void **state) {
    (void)state;
    char folder[200], path[300];
    assert_non_null(new_folder(folder, sizeof folder));
    (void)snprintf(path, sizeof path, "%s/run:7", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    check(path, path, NULL);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strlen(path) - 2), path);
    check(path, folder, "7");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_colons), cmocka_unit_test(test_urls),
                                       cmocka_unit_test(test_an_existing_file_is_a_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
