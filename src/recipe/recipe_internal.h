/* What the parts of the recipe module share: the built-in recipes, and the compiling of users' ones. */
#ifndef SAP_RECIPE_INTERNAL_H
#define SAP_RECIPE_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/recipe.h>

/* The built-in "topology" recipe in its default convention. */
const sap_recipe *sap_topology_recipe(void);

/* Compiles the C file, unless that was done before, and opens the shared object for the life of the process. */
SAP_MUST_CHECK sap_status sap_recipe_compile(const char *path, const sap_recipe **out, sap_error *err);

/* Opens a shared object that sap_recipe_build made. */
SAP_MUST_CHECK sap_status sap_recipe_load(const char *object, const sap_recipe **out, sap_error *err);

/* Hash of the text of a recipe's C file and of what it includes with quotes, wherever they are. */
SAP_MUST_CHECK sap_status sap_recipe_source_hash(const char *path, uint64_t *out, sap_error *err);

/* Whether the definition makes sense. source: whose it is, for the message. */
SAP_MUST_CHECK sap_status sap_recipe_validate(const sap_recipe *recipe, const char *source, sap_error *err);

/* The type that an input must have; `item` is the storage of a jagged one's items. */
static inline sap_field sap_recipe_field(const sap_recipe_input *input, sap_field *item) {
    *item = (sap_field){.name = "item", .type = input->type};
    if (!input->jagged)
        return (sap_field){.name = input->name, .type = input->type};
    return (sap_field){.name = input->name, .type = SAP_LIST, .count = 1, .children = item};
}

#endif
