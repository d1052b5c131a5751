/* Finding a recipe: built in by name, or a C file by path; then the variant that was asked for. */
#include "recipe_internal.h"

static const sap_recipe *(*const built_in[])(void) = {sap_topology_recipe};
enum { BUILT_IN = sizeof built_in / sizeof *built_in };

static const char *built_in_name(const void *context, size_t index) {
    (void)context;
    return built_in[index]()->name;
}

static bool is_path(const char *name) {
    size_t length = strlen(name);
    return strchr(name, '/') || (length > 2 && strcmp(name + length - 2, ".c") == 0);
}

static bool is_object(const char *name) {
    size_t length = strlen(name);
    return length > 3 && strcmp(name + length - 3, ".so") == 0;
}

static sap_status not_found(const char *name, sap_error *err) {
    sap_text known = {0};
    for (size_t i = 0; i < BUILT_IN; i++)
        sap_text_add(&known, "%s%s", i ? ", " : "", built_in_name(NULL, i));
    sap_status status = sap_error_set(err, SAP_ENOTFOUND, "no recipe \"%s\": there is %s, or give a C file by its path",
                                      name, known.data ? known.data : "topology");
    sap_text_release(&known);
    return status;
}

static sap_status find_variant(const sap_recipe *recipe, const char *source, const char *convention,
                               const sap_recipe **out, sap_error *err) {
    if (!recipe->variant) {
        if (convention)
            return sap_error_set(err, SAP_EARGUMENT,
                                 "%s: recipe \"%s\" has no conventions, so \"%s\" is not one of them", source,
                                 recipe->name, convention);
        *out = recipe;
        return SAP_OK;
    }
    const sap_recipe *variant = recipe->variant(convention);
    if (!variant) {
        sap_text known = {0};
        for (size_t i = 0; recipe->conventions && recipe->conventions[i]; i++)
            sap_text_add(&known, "%s%s", i ? ", " : "; there are: ", recipe->conventions[i]);
        sap_status status =
            sap_error_set(err, SAP_ENOTFOUND, "%s: recipe \"%s\" has no convention \"%s\"%s", source, recipe->name,
                          convention ? convention : "(default)", known.data ? known.data : "");
        sap_text_release(&known);
        return status;
    }
    SAP_TRY(sap_recipe_validate(variant, source, err));
    *out = variant;
    return SAP_OK;
}

sap_status sap_recipe_find(const char *name_or_path, const char *convention, const sap_recipe **out, sap_error *err) {
    const sap_recipe *recipe = NULL;
    for (size_t i = 0; i < BUILT_IN && !recipe; i++)
        if (strcmp(built_in_name(NULL, i), name_or_path) == 0)
            recipe = built_in[i]();
    if (!recipe) {
        if (!is_path(name_or_path))
            return not_found(name_or_path, err);
        SAP_TRY(is_object(name_or_path) ? sap_recipe_load(name_or_path, &recipe, err)
                                        : sap_recipe_compile(name_or_path, &recipe, err));
        SAP_TRY(sap_recipe_validate(recipe, name_or_path, err));
    }
    return find_variant(recipe, name_or_path, convention, out, err);
}
