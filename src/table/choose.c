/* A schema of the columns and fields alone that somebody names. */
#include "table_internal.h"

typedef struct chooser {
    sap_arena *arena;
    const char *const *paths;
    size_t count;
    bool *found; /* (count) */
    bool out_of_memory;
} chooser;

typedef enum wish { NOTHING, SOME, ALL } wish; /* of a field */

static wish wish_for(chooser *c, const char *path) {
    size_t length = strlen(path);
    wish out = NOTHING;
    for (size_t i = 0; i < c->count; i++) {
        if (strncmp(c->paths[i], path, length) != 0)
            continue;
        if (c->paths[i][length] == '\0') {
            c->found[i] = true;
            out = ALL;
        } else if (c->paths[i][length] == '.' && out == NOTHING) {
            out = SOME;
        }
    }
    return out;
}

static bool choose(chooser *c, const sap_field *record, const char *above, sap_field *out);

/* The wanted part of a field; false: nothing. */
static bool choose_field(chooser *c, const sap_field *field, const char *above, sap_field *out) {
    const char *path = sap_arena_format(c->arena, "%s%s%s", above, *above ? "." : "", field->name);
    if (!path) {
        c->out_of_memory = true;
        return false;
    }
    wish wanted = wish_for(c, path);
    *out = *field;
    if (wanted == SOME && field->type == SAP_RECORD)
        return choose(c, field, path, out);
    if (wanted == SOME && field->type == SAP_LIST && field->children[0].type == SAP_RECORD) {
        sap_field *item = sap_arena_alloc(c->arena, sizeof *item);
        c->out_of_memory = c->out_of_memory || !item;
        out->children = item;
        return item && choose(c, &field->children[0], path, item);
    }
    return wanted == ALL;
}

static bool choose(chooser *c, const sap_field *record, const char *above, sap_field *out) {
    sap_field *children = sap_arena_array(c->arena, (size_t)record->count + 1, sizeof *children);
    *out = *record;
    out->count = 0;
    out->children = children;
    c->out_of_memory = c->out_of_memory || !children;
    for (int32_t i = 0; i < record->count && !c->out_of_memory; i++)
        out->count += choose_field(c, &record->children[i], above, &children[out->count]);
    return out->count > 0;
}

static const char *name_at(const void *context, size_t index) {
    return ((const sap_field *)context)->children[index].name;
}

/* The record that a path which leads nowhere has come to, and what is left of it. */
static const sap_field *follow(const sap_field *record, const char **path) {
    for (int32_t i = 0; i < record->count; i++) {
        const sap_field *child = &record->children[i];
        const sap_field *inside = child->type == SAP_LIST ? &child->children[0] : child;
        size_t length = strlen(child->name);
        if (inside->type == SAP_RECORD && strncmp(*path, child->name, length) == 0 && (*path)[length] == '.') {
            *path += length + 1;
            return follow(inside, path);
        }
    }
    return record;
}

sap_status sap_schema_choose(sap_arena *arena, const sap_field *schema, const char *const *paths, size_t count,
                             const char *where, sap_field *out, sap_error *err) {
    chooser c = {.arena = arena, .paths = paths, .count = count, .found = sap_arena_array(arena, count + 1, 1)};
    if (c.found)
        (void)choose(&c, schema, "", out);
    if (!c.found || c.out_of_memory)
        return sap_error_memory(err, where);
    for (size_t i = 0; i < count; i++) {
        if (c.found[i])
            continue;
        char nearest[300];
        const char *rest = paths[i];
        const sap_field *record = follow(schema, &rest);
        sap_text_nearest(rest, (size_t)record->count, name_at, record, nearest, sizeof nearest);
        return sap_error_set(err, SAP_ENOTFOUND, "%s: no column \"%s\"%s", where, paths[i], nearest);
    }
    return SAP_OK;
}
