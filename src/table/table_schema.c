/* Schemas of tables: from Arrow's C structure, compared, and merged. */
#include "table_internal.h"

#include <stdlib.h>

/* ---- Copies ------------------------------------------------------------------------------------------------ */

bool sap_field_copy(sap_arena *arena, const sap_field *field, sap_field *out) {
    *out = *field;
    out->name = sap_arena_text(arena, field->name ? field->name : "", field->name ? strlen(field->name) : 0);
    sap_field *children = field->count ? sap_arena_array(arena, (size_t)field->count, sizeof *children) : NULL;
    out->children = children;
    for (int32_t i = 0; i < field->count; i++)
        if (!children || !sap_field_copy(arena, &field->children[i], &children[i]))
            return false;
    return out->name != NULL;
}

/* ---- From Arrow ---------------------------------------------------------------------------------------------- */

enum { DEEPEST = 60 };

static bool type_of_format(const char *format, sap_field *out) {
    static const struct {
        const char *format;
        sap_type type;
    } known[] = {{"n", SAP_TYPE_NONE}, {"b", SAP_BOOL},  {"c", SAP_INT8},    {"s", SAP_INT16},
                 {"i", SAP_INT32},     {"l", SAP_INT64}, {"f", SAP_FLOAT32}, {"g", SAP_FLOAT64},
                 {"u", SAP_STRING},    {"+l", SAP_LIST}, {"+s", SAP_RECORD}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(format, known[i].format) == 0) {
            out->type = known[i].type;
            return true;
        }
    int end = 0;
    out->type = SAP_DECIMAL;
    bool whole = sscanf(format, "d:%d,0%n", &out->size, &end) == 1 && end > 0;
    return whole && (format[end] == '\0' || strcmp(format + end, ",128") == 0) && out->size > 0 && out->size <= 38;
}

static sap_status import_field(const struct ArrowSchema *schema, sap_arena *arena, int depth, sap_field *out,
                               sap_error *err) {
    const char *name = schema->name ? schema->name : "";
    *out = (sap_field){.nullable = (schema->flags & ARROW_FLAG_NULLABLE) != 0, .count = (int32_t)schema->n_children};
    if (depth > DEEPEST || !type_of_format(schema->format, out) || schema->dictionary ||
        (out->type == SAP_LIST && out->count != 1))
        return sap_error_set(err, SAP_EUNSUPPORTED, "column \"%s\": the Arrow type \"%s\" is none of a table", name,
                             schema->format);
    out->name = sap_arena_text(arena, name, strlen(name));
    sap_field *children = sap_arena_array(arena, (size_t)out->count + 1, sizeof *children);
    out->children = children;
    if (!out->name || !children)
        return sap_error_memory(err, "schema");
    for (int32_t i = 0; i < out->count; i++)
        SAP_TRY(import_field(schema->children[i], arena, depth + 1, &children[i], err));
    return SAP_OK;
}

sap_status sap_schema_import(const struct ArrowSchema *schema, sap_arena *arena, sap_field *out, sap_error *err) {
    SAP_TRY(import_field(schema, arena, 0, out, err));
    if (out->type != SAP_RECORD)
        return sap_error_set(err, SAP_EARGUMENT, "the schema of a table is a struct, not \"%s\"", schema->format);
    return SAP_OK;
}

/* ---- Numbers ------------------------------------------------------------------------------------------------- */

/* Bits of integers that a type holds, without the sign; 0: not a number. */
static int integer_bits(const sap_field *field) {
    switch (field->type) {
    case SAP_INT8:
        return 7;
    case SAP_INT16:
        return 15;
    case SAP_FLOAT32:
        return 24;
    case SAP_INT32:
        return 31;
    case SAP_FLOAT64:
        return 53;
    case SAP_INT64:
        return 63;
    case SAP_DECIMAL:
        return 64; /* as large as numbers of files are */
    default:
        return 0;
    }
}

static bool is_real(const sap_field *field) {
    return field->type == SAP_FLOAT32 || field->type == SAP_FLOAT64;
}

/* Whether each number of type `from` is one of type `to`. */
static bool number_fits(const sap_field *from, const sap_field *to) {
    int bits = integer_bits(from);
    if (!bits || bits > integer_bits(to))
        return false;
    return is_real(to) || !is_real(from);
}

/* The smallest type of numbers that holds both; false: none does. */
static bool merge_numbers(sap_field *into, const sap_field *other) {
    static const sap_type real[] = {SAP_FLOAT32, SAP_FLOAT64};
    if (number_fits(other, into))
        return true;
    if (number_fits(into, other)) {
        into->type = other->type;
        into->size = other->size;
        return true;
    }
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        sap_field wider = {.type = real[i]};
        if (number_fits(into, &wider) && number_fits(other, &wider)) {
            into->type = real[i];
            into->size = 0;
            return true;
        }
    }
    return false;
}

/* ---- Comparison ------------------------------------------------------------------------------------------------ */

const sap_field *sap_field_child(const sap_field *field, const char *name) {
    for (int32_t i = 0; i < field->count; i++)
        if (strcmp(field->children[i].name, name) == 0)
            return &field->children[i];
    return NULL;
}

/* The child that stands for child `i` of `to`; fields of one schema mostly have the places that those of the other have. */
static const sap_field *counterpart(const sap_field *from, const sap_field *to, int32_t i) {
    if (from->type == SAP_LIST)
        return &from->children[0];
    if (i < from->count && strcmp(from->children[i].name, to->children[i].name) == 0)
        return &from->children[i];
    return sap_field_child(from, to->children[i].name);
}

static void prefix_path(sap_text *path, const char *name) {
    sap_text whole = {0};
    sap_text_add(&whole, "%s%s%s", name, path->length ? "." : "", path->length ? path->data : "");
    sap_text_release(path);
    *path = whole;
}

bool sap_field_fits(const sap_field *from, const sap_field *to, bool lenient, sap_text *path) {
    bool nested = to->type == SAP_LIST || to->type == SAP_RECORD;
    if (from->type == SAP_TYPE_NONE && (lenient || to->nullable))
        return true;
    if (!nested)
        return from->type == to->type ? from->type != SAP_DECIMAL || from->size <= to->size : number_fits(from, to);
    if (from->type != to->type)
        return false;
    for (int32_t i = 0; i < to->count; i++) {
        const sap_field *child = counterpart(from, to, i);
        if (child ? !sap_field_fits(child, &to->children[i], lenient, path) : !lenient) {
            if (to->type == SAP_RECORD)
                prefix_path(path, to->children[i].name);
            return false;
        }
    }
    return true;
}

/* ---- Merging ------------------------------------------------------------------------------------------------------ */

/* Children of both; one that only one of them has may be null. */
static bool merge_records(sap_arena *arena, sap_field *into, const sap_field *other, sap_text *path,
                          bool *out_of_memory) {
    size_t most = (size_t)into->count + (size_t)other->count;
    sap_field *children = sap_arena_array(arena, most + 1, sizeof *children);
    int32_t count = into->count;
    *out_of_memory = !children;
    for (int32_t i = 0; i < into->count && !*out_of_memory; i++) {
        children[i] = into->children[i];
        const sap_field *theirs = counterpart(other, into, i);
        if (!theirs)
            children[i].nullable = true;
        else if (!sap_field_merge(arena, &children[i], theirs, path, out_of_memory)) {
            prefix_path(path, children[i].name);
            return false;
        }
    }
    for (int32_t i = 0; i < other->count && !*out_of_memory; i++) {
        if (counterpart(into, other, i))
            continue;
        *out_of_memory = !sap_field_copy(arena, &other->children[i], &children[count]);
        children[count++].nullable = true;
    }
    into->children = children;
    into->count = count;
    return !*out_of_memory;
}

bool sap_field_merge(sap_arena *arena, sap_field *into, const sap_field *other, sap_text *path, bool *out_of_memory) {
    const char *name = into->name;
    into->nullable = into->nullable || other->nullable;
    if (other->type == SAP_TYPE_NONE || into->type == SAP_TYPE_NONE) {
        if (into->type == SAP_TYPE_NONE)
            *out_of_memory = !sap_field_copy(arena, other, into);
        into->name = name;
        into->nullable = true;
        return !*out_of_memory;
    }
    if (into->type == SAP_LIST && other->type == SAP_LIST) {
        sap_field *item = sap_arena_alloc(arena, sizeof *item);
        *out_of_memory = !item;
        if (!item)
            return false;
        *item = into->children[0];
        into->children = item;
        return sap_field_merge(arena, item, &other->children[0], path, out_of_memory);
    }
    if (into->type == SAP_RECORD && other->type == SAP_RECORD)
        return merge_records(arena, into, other, path, out_of_memory);
    return (into->type == other->type && into->type != SAP_DECIMAL) || merge_numbers(into, other);
}
