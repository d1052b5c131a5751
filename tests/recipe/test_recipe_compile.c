/* Users' recipes: compiling, keeping, loading; and what the compiler and the loader say. */
#include "base/base_internal.h"
#include "column/column_internal.h"
#include "recipe/recipe_internal.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/sapwood-recipe-XXXXXX";

/* A path in the test's folder; good for the next 15 calls. */
static const char *in_folder(const char *name) {
    static char paths[16][256];
    static unsigned turn;
    char *path = paths[turn++ % 16];
    (void)snprintf(path, sizeof *paths, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const char *text) {
    const char *path = in_folder(name);
    assert_int_equal(sap_file_store(path, text, strlen(text), NULL), SAP_OK);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    return setenv("SAPWOOD_CACHE", in_folder("cache"), 1) || unsetenv("CC");
}

static int remove_folder(void **state) {
    (void)state;
    return sap_folder_remove(folder, NULL) == SAP_OK ? 0 : -1;
}

/* Shared objects in the cache; -1 when something else is in there. */
static int kept_objects(void) {
    DIR *cache = opendir(in_folder("cache/recipes"));
    int count = 0;
    struct dirent *entry;
    while (cache && (entry = readdir(cache))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (entry->d_name[0] == '.')
            continue;
        count = dot && strcmp(dot, ".so") == 0 ? count + 1 : -1000;
    }
    if (cache)
        (void)closedir(cache);
    return count;
}

/* A recipe of few words, with places for what the tests change. */
static const char *small_recipe(const char *abi, const char *name, const char *head) {
    static char text[2000];
    (void)snprintf(text, sizeof text,
                   "%s\n#include <sapwood/recipe.h>\n"
                   "static const sap_recipe_input inputs[] = {{\"x\", SAP_FLOAT32, false}};\n"
                   "static const char *const names[] = {\"x\"};\n"
                   "static const sap_feature features[] = {{.name = \"x\", .value_names = names, .width = 1}};\n"
                   "static sap_status events(const sap_recipe_call *call, sap_error *err) {\n"
                   "    for (int64_t i = 0; i < call->count; i++) {\n"
                   "        const sap_recipe_value value = {(const float *)call->columns[0].values + i, 1};\n"
                   "        sap_status status = call->keep(call->sink, i, &value, err);\n"
                   "        if (status) return status;\n"
                   "    }\n"
                   "    return SAP_OK;\n"
                   "}\n"
                   "const sap_recipe *sap_recipe_define(void) {\n"
                   "    static const sap_recipe recipe = {.abi = %s, .name = %s, .version = \"1\", .inputs = inputs,\n"
                   "        .input_count = 1, .features = features, .feature_count = 1, .events = events};\n"
                   "    return &recipe;\n"
                   "}\n",
                   head, abi, name);
    return text;
}

/* ---- The example -------------------------------------------------------------------------------------------- */

enum { EVENTS = 5 };
static const int32_t muons[EVENTS + 1] = {0, 2, 3, 5, 8, 8};
static float pt[] = {45, 45, 30, 20, 25, 10, 40, 30}, eta[] = {0, 0, 1, 1, 1, 2, 0.5f, -0.5f};
static float phi[] = {0, 3.14159265f, 1, 1, 2, 0, 1, 2}, mass[] = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0, 0, 0};
static int32_t charge[] = {1, -1, 1, 1, 1, -1, -1, 1};

static void runs_the_example(void **state) {
    (void)state;
    sap_error error = {0};
    const sap_recipe *recipe = NULL, *again = NULL;
    const char *source = getenv("SAPWOOD_SOURCE");
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/examples/recipes/dimuon.c", source ? source : ".");
    if (sap_recipe_find(path, NULL, &recipe, &error) != SAP_OK)
        fail_msg("%s", error.message);
    assert_string_equal(recipe->name, "dimuon");
    int kept = kept_objects();
    assert_int_equal(sap_recipe_find(path, NULL, &again, &error), SAP_OK);
    assert_ptr_equal(again, recipe);
    assert_int_equal(kept_objects(), kept);

    sap_column items[] = {{.type = SAP_FLOAT32, .length = 8, .values = pt},
                          {.type = SAP_FLOAT32, .length = 8, .values = eta},
                          {.type = SAP_FLOAT32, .length = 8, .values = phi},
                          {.type = SAP_FLOAT32, .length = 8, .values = mass},
                          {.type = SAP_INT32, .length = 8, .values = charge}};
    static const char *const names[] = {"Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass", "Muon_charge"};
    sap_column columns[5];
    for (int i = 0; i < 5; i++)
        columns[i] = (sap_column){
            .name = names[i], .type = SAP_LIST, .length = EVENTS, .offsets = muons, .count = 1, .children = &items[i]};
    sap_batch batch = {.length = EVENTS, .count = 5, .columns = columns}, out = {0};
    int64_t dropped[2] = {0};
    assert_int_equal(sap_recipe_run(recipe, &batch, "f:t", NULL, &out, dropped, &error), SAP_OK);
    assert_int_equal(dropped[0], 2);
    assert_int_equal(dropped[1], 1);
    assert_int_equal(out.length, 2);
    const float *values = sap_batch_find(&out, "dimuon")->children[0].values;
    assert_float_equal(values[0], 90, 1e-3); /* back to back */
    assert_float_equal(values[1], 0, 1e-3);
    double mass2 = 2 * 40 * 30 * (cosh(1) - cos(1)); /* the two hardest of three */
    assert_float_equal(values[5], (float)sqrt(mass2), 1e-3);
    assert_float_equal(values[8], 40, 0);
    assert_float_equal(values[9], 30, 0);
    sap_batch_release(&out);
    assert_int_equal(sap_recipe_find(path, "paper", &again, &error), SAP_EARGUMENT);
    assert_non_null(strstr(error.message, "has no conventions"));
}

/* ---- Keeping --------------------------------------------------------------------------------------------------- */

static void keeps_by_content(void **state) {
    (void)state;
    const sap_recipe *first, *second;
    sap_error error = {0};
    const char *path = write_file("kept.c", small_recipe("SAP_RECIPE_ABI", "\"one\"", ""));
    int before = kept_objects();
    assert_int_equal(sap_recipe_find(path, NULL, &first, &error), SAP_OK);
    assert_string_equal(first->name, "one");
    assert_int_equal(kept_objects(), before + 1);
    assert_int_equal(sap_recipe_find(path, NULL, &second, &error), SAP_OK);
    assert_ptr_equal(first, second);
    assert_int_equal(kept_objects(), before + 1);
    (void)write_file("kept.c", small_recipe("SAP_RECIPE_ABI", "\"two\"", ""));
    assert_int_equal(sap_recipe_find(path, NULL, &second, &error), SAP_OK);
    assert_string_equal(second->name, "two");
    assert_string_equal(first->name, "one");
    assert_int_equal(kept_objects(), before + 2);
}

static void notices_changed_includes(void **state) {
    (void)state;
    const sap_recipe *recipe;
    sap_error error = {0};
    (void)write_file("name.h", "#define NAME \"before\"\n");
    const char *path = write_file("including.c", small_recipe("SAP_RECIPE_ABI", "NAME", "  #  include \"name.h\""));
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), SAP_OK);
    assert_string_equal(recipe->name, "before");
    (void)write_file("name.h", "#define NAME \"after\"\n");
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), SAP_OK);
    assert_string_equal(recipe->name, "after");
    /* files that include each other again and again are looked at once each */
    (void)write_file("name.h", "#ifndef NAME\n#define NAME \"guarded\"\n#include \"name.h\"\n#include \"name.h\"\n"
                               "#include \"including.c\"\n#include \"name.h\"\n#include \"name.h\"\n#endif\n");
    uint64_t hash, again;
    assert_int_equal(sap_recipe_source_hash(path, &hash, &error), SAP_OK);
    (void)write_file("name.h", "#define NAME \"other\"\n");
    assert_int_equal(sap_recipe_source_hash(path, &again, &error), SAP_OK);
    assert_true(hash != again);
}

/* What is kept does not load: it is made again. */
static void mends_spoilt_objects(void **state) {
    (void)state;
    const sap_recipe *recipe;
    sap_error error = {0};
    char spoilt[300] = "";
    const char *path = write_file("mended.c", small_recipe("SAP_RECIPE_ABI", "\"mended\"", ""));
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), SAP_OK);
    /* the same name in another cache, as one that is loaded is not looked at again */
    DIR *cache = opendir(in_folder("cache/recipes"));
    for (struct dirent *entry = readdir(cache); entry; entry = readdir(cache))
        if (strncmp(entry->d_name, "mended-", 7) == 0)
            (void)snprintf(spoilt, sizeof spoilt, "other/recipes/%s", entry->d_name);
    (void)closedir(cache);
    assert_true(spoilt[0]);
    assert_int_equal(sap_folder_make(in_folder("other/recipes"), NULL), SAP_OK);
    (void)write_file(spoilt, "no shared object");
    assert_int_equal(setenv("SAPWOOD_CACHE", in_folder("other"), 1), 0);
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), SAP_OK);
    assert_string_equal(recipe->name, "mended");
    assert_int_equal(setenv("SAPWOOD_CACHE", in_folder("cache"), 1), 0);
}

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* Finding fails with `status` and a message that has `words`. */
static void fails(const char *path, sap_status status, const char *words) {
    const sap_recipe *recipe = NULL;
    sap_error error = {0};
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), status);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" does not have \"%s\"", error.message, words);
    assert_null(recipe);
}

static void tells_compiler_messages(void **state) {
    (void)state;
    int before = kept_objects();
    const char *path = write_file("broken.c", "#include <sapwood/recipe.h>\nint x = ;\n");
    fails(path, SAP_EARGUMENT, "broken.c: does not compile: ");
    fails(path, SAP_EARGUMENT, "broken.c:2:9: error: expected expression before");
    assert_int_equal(kept_objects(), before); /* nothing half made */
    fails(write_file("empty.c", "int x;\n"), SAP_EARGUMENT, "does not define sap_recipe_define()");
    fails(write_file("undefined.c", "#include <sapwood/recipe.h>\nvoid nowhere(void);\n"
                                    "const sap_recipe *sap_recipe_define(void) { nowhere(); return 0; }\n"),
          SAP_EARGUMENT, "undefined.c: does not load: ");
}

static void checks_definitions(void **state) {
    (void)state;
    fails(write_file("old.c", small_recipe("7", "\"r\"", "")), SAP_EARGUMENT,
          "old.c: the recipe's abi is 7, this Sapwood has SAP_RECIPE_ABI 1");
    fails(write_file("nameless.c", small_recipe("SAP_RECIPE_ABI", "0", "")), SAP_EARGUMENT,
          "nameless.c: the recipe needs a name");
    fails(
        write_file("null.c", "#include <sapwood/recipe.h>\nconst sap_recipe *sap_recipe_define(void) { return 0; }\n"),
        SAP_EARGUMENT, "null.c: sap_recipe_define returns NULL");
}

static void names_what_is_missing(void **state) {
    (void)state;
    fails("/nowhere/at/all.c", SAP_ENOTFOUND, "/nowhere/at/all.c: No such file or directory");
    fails("toplogy", SAP_ENOTFOUND, "no recipe \"toplogy\": there is topology, or give a C file by its path");
    const char *path = write_file("good.c", small_recipe("SAP_RECIPE_ABI", "\"good\"", ""));
    assert_int_equal(setenv("CC", "no-such-compiler -x", 1), 0);
    fails(path, SAP_EARGUMENT, "good.c: the C compiler \"no-such-compiler\" does not start: No such file");
    assert_int_equal(setenv("CC", " ", 1), 0);
    fails(path, SAP_EARGUMENT, "CC is set to blanks");
    assert_int_equal(setenv("CC", "false", 1), 0);
    fails(path, SAP_EARGUMENT, "the compiler made nothing and said nothing");
    assert_int_equal(unsetenv("CC"), 0);
    assert_int_equal(setenv("SAPWOOD_INCLUDE", "/nowhere", 1), 0);
    fails(path, SAP_ENOTFOUND, "/nowhere/sapwood/recipe.h: no such file (SAPWOOD_INCLUDE");
    assert_int_equal(unsetenv("SAPWOOD_INCLUDE"), 0);
    assert_int_equal(setenv("SAPWOOD_CACHE", "/proc/nowhere", 1), 0);
    fails(path, SAP_ENOTFOUND, "folder for compiled recipes (SAPWOOD_CACHE): /proc/nowhere");
    assert_int_equal(setenv("SAPWOOD_CACHE", in_folder("cache"), 1), 0);
}

static void takes_compilers_with_arguments(void **state) {
    (void)state;
    const sap_recipe *recipe;
    sap_error error = {0};
    const char *path = write_file("defined.c", small_recipe("SAP_RECIPE_ABI", "NAME", ""));
    assert_int_equal(setenv("CC", "cc  -DNAME=\"given\"", 1), 0);
    assert_int_equal(sap_recipe_find(path, NULL, &recipe, &error), SAP_OK);
    assert_string_equal(recipe->name, "given");
    assert_int_equal(unsetenv("CC"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_the_example),         cmocka_unit_test(keeps_by_content),
        cmocka_unit_test(notices_changed_includes), cmocka_unit_test(mends_spoilt_objects),
        cmocka_unit_test(tells_compiler_messages),  cmocka_unit_test(checks_definitions),
        cmocka_unit_test(names_what_is_missing),    cmocka_unit_test(takes_compilers_with_arguments),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
