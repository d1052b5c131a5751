/* What is checked before a recipe runs: its definition, and the columns that it reads. */
#include "recipe_internal.h"

#include <ctype.h>

/* ---- Definition --------------------------------------------------------------------------------------------- */

enum { MOST_ITEMS = 10000, LONGEST_NAME = 200 };

/* Names become columns of files and keys of dataset.json. */
static bool is_name(const char *name) {
    return name && *name && strnlen(name, LONGEST_NAME + 1) <= LONGEST_NAME;
}

static bool is_word(const char *name) {
    if (!is_name(name))
        return false;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_' && *c != '-' && *c != '.')
            return false;
    return true;
}

static sap_status complain(sap_error *err, const char *source, const char *what) {
    return sap_error_set(err, SAP_EARGUMENT, "%s: %s", source, what);
}

static sap_status validate_inputs(const sap_recipe *recipe, const char *source, sap_error *err) {
    if (!recipe->inputs || recipe->input_count == 0 || recipe->input_count > MOST_ITEMS)
        return complain(err, source, "the recipe reads no columns (inputs, input_count)");
    for (size_t i = 0; i < recipe->input_count; i++) {
        const sap_recipe_input *input = &recipe->inputs[i];
        if (!is_name(input->name))
            return sap_error_set(err, SAP_EARGUMENT, "%s: input %zu has no name", source, i);
        if (sap_type_size(input->type) == 0)
            return sap_error_set(err, SAP_EARGUMENT, "%s: input \"%s\" is of type %s, expected a number type", source,
                                 input->name, sap_type_name(input->type));
        for (size_t j = 0; j < i; j++)
            if (strcmp(recipe->inputs[j].name, input->name) == 0)
                return sap_error_set(err, SAP_EARGUMENT, "%s: input \"%s\" is named twice", source, input->name);
    }
    return SAP_OK;
}

static sap_status validate_feature(const sap_feature *f, const char *source, sap_error *err) {
    if (f->width < 1 || f->width > MOST_ITEMS)
        return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" has width %d, expected 1 to %d", source, f->name,
                             f->width, MOST_ITEMS);
    if (!f->value_names)
        return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" has no value_names", source, f->name);
    for (int32_t i = 0; i < f->width; i++)
        if (!is_name(f->value_names[i]))
            return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" has no name for value %d of %d", source,
                                 f->name, i, f->width);
    if (f->pad_rows < 0 || (!f->sequence && f->pad_rows > 0))
        return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" has pad_rows %d%s", source, f->name, f->pad_rows,
                             f->sequence ? "" : ", but is no sequence");
    if (f->scaling < SAP_SCALING_NONE || f->scaling > SAP_SCALING_STANDARD_EVENT)
        return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" has no known scaling", source, f->name);
    if (f->scaling == SAP_SCALING_STANDARD_EVENT && f->pad_rows == 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" is scaled event by event, but has no pad_rows",
                             source, f->name);
    if (f->order == SAP_ORDER_NONE)
        return SAP_OK;
    if (f->order != SAP_ORDER_FALLING_DELTA_R || !f->sequence || f->eta_index < 0 || f->eta_index >= f->width ||
        f->phi_index < 0 || f->phi_index >= f->width)
        return sap_error_set(
            err, SAP_EARGUMENT,
            "%s: feature \"%s\" cannot be ordered: eta_index and phi_index must be columns of a sequence", source,
            f->name);
    return SAP_OK;
}

static sap_status validate_features(const sap_recipe *recipe, const char *source, sap_error *err) {
    if (!recipe->features || recipe->feature_count == 0 || recipe->feature_count > MOST_ITEMS)
        return complain(err, source, "the recipe writes no features (features, feature_count)");
    static const char *const taken[] = {"entry", "label", "sample", "file"};
    for (size_t i = 0; i < recipe->feature_count; i++) {
        const sap_feature *feature = &recipe->features[i];
        if (!is_word(feature->name))
            return sap_error_set(err, SAP_EARGUMENT, "%s: feature %zu needs a name of letters, digits, _, - and .",
                                 source, i);
        for (size_t j = 0; j < sizeof taken / sizeof *taken; j++)
            if (strcmp(taken[j], feature->name) == 0)
                return sap_error_set(err, SAP_EARGUMENT,
                                     "%s: no feature can be named \"%s\": datasets have that column", source,
                                     feature->name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(recipe->features[j].name, feature->name) == 0)
                return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" is named twice", source, feature->name);
        SAP_TRY(validate_feature(feature, source, err));
    }
    return SAP_OK;
}

sap_status sap_recipe_validate(const sap_recipe *recipe, const char *source, sap_error *err) {
    if (!recipe)
        return complain(err, source, "sap_recipe_define returns NULL");
    if (recipe->abi != SAP_RECIPE_ABI)
        return sap_error_set(err, SAP_EARGUMENT, "%s: the recipe's abi is %u, this Sapwood has SAP_RECIPE_ABI %u",
                             source, recipe->abi, SAP_RECIPE_ABI);
    if (!is_word(recipe->name))
        return complain(err, source, "the recipe needs a name of letters, digits, _, - and .");
    if (!is_name(recipe->version))
        return complain(err, source, "the recipe needs a version");
    if (!recipe->events)
        return complain(err, source, "the recipe has no function `events`");
    if (recipe->cut_count > MOST_ITEMS || (recipe->cut_count > 0 && !recipe->cuts))
        return complain(err, source, "the recipe's cuts are missing (cuts, cut_count)");
    for (size_t i = 0; i < recipe->cut_count; i++)
        if (!recipe->cuts[i] || !*recipe->cuts[i])
            return sap_error_set(err, SAP_EARGUMENT, "%s: cut %zu has no words", source, i);
    SAP_TRY(validate_inputs(recipe, source, err));
    return validate_features(recipe, source, err);
}

/* ---- Columns -------------------------------------------------------------------------------------------------- */

static const char *field_name_at(const void *context, size_t index) {
    return ((const sap_field *)context)[index].name;
}

static bool is_wanted(const sap_recipe_input *input, const sap_field *field) {
    if (!input->jagged)
        return field->type == input->type;
    return field->type == SAP_LIST && field->count == 1 && field->children[0].type == input->type;
}

static const sap_field *find_field(const sap_field *fields, int32_t count, const char *name) {
    for (int32_t i = 0; i < count; i++)
        if (fields[i].name && strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

/* Says what is wrong with one input: `field` is what there is by its name, or NULL. */
static void add_complaint(sap_text *wrong, const sap_recipe_input *input, const sap_field *field,
                          const sap_field *fields, int32_t count) {
    sap_text_add(wrong, "%s", wrong->length ? "; " : "");
    if (!field) {
        char nearest[300];
        sap_text_nearest(input->name, (size_t)count, field_name_at, fields, nearest, sizeof nearest);
        sap_text_add(wrong, "no column \"%s\"", input->name);
        if (nearest[0])
            sap_text_add(wrong, " (%s)", nearest + strlen("; "));
        return;
    }
    char has[200], wants[200];
    sap_field item, wanted = sap_recipe_field(input, &item);
    (void)sap_field_text(field, has, sizeof has);
    (void)sap_field_text(&wanted, wants, sizeof wants);
    sap_text_add(wrong, "column \"%s\" is %s, expected %s", input->name, has, wants);
}

enum { MOST_COMPLAINTS = 6 }; /* in one message */

sap_status sap_recipe_check(const sap_recipe *recipe, const sap_field *fields, int32_t count, const char *where,
                            sap_error *err) {
    sap_text wrong = {0};
    size_t complaints = 0;
    bool missing = false;
    for (size_t i = 0; i < recipe->input_count; i++) {
        const sap_recipe_input *input = &recipe->inputs[i];
        const sap_field *field = find_field(fields, count, input->name);
        if (field && is_wanted(input, field))
            continue;
        missing = missing || !field;
        if (complaints++ < MOST_COMPLAINTS)
            add_complaint(&wrong, input, field, fields, count);
    }
    if (complaints > MOST_COMPLAINTS)
        sap_text_add(&wrong, "; and %zu more", complaints - MOST_COMPLAINTS);
    sap_status status = SAP_OK;
    if (wrong.failed)
        status = sap_error_memory(err, where);
    else if (complaints > 0)
        status = sap_error_set(err, missing ? SAP_ENOTFOUND : SAP_ETYPE, "%s: recipe \"%s\": %s", where, recipe->name,
                               wrong.data);
    sap_text_release(&wrong);
    return status;
}
