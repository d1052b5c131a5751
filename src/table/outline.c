/* A tree as a table: branches of one split object or collection as one column, and types that SQL has. */
#include "table_internal.h"

typedef struct maker {
    sap_tree *tree;
    sap_arena *arena;
    sap_error *err;
} maker;

/* ---- Types ----------------------------------------------------------------------------------------------- */

enum { UINT64_DIGITS = 20 };

static bool convert_type(sap_arena *arena, const sap_field *in, const char *name, sap_field *out);

static bool convert_children(sap_arena *arena, const sap_field *in, sap_field *out) {
    sap_field *children = sap_arena_array(arena, (size_t)in->count + 1, sizeof *children);
    out->children = children;
    out->count = in->count;
    for (int32_t i = 0; i < in->count; i++) {
        const char *name = in->children[i].name;
        if (in->type == SAP_LIST || in->type == SAP_FIXED_LIST)
            name = "item";
        else if (!name || !*name)
            name = sap_arena_format(arena, "%d", i);
        else
            name = sap_arena_text(arena, name, strlen(name));
        if (!children || !name || !convert_type(arena, &in->children[i], name, &children[i]))
            return false;
        if (in->type == SAP_UNION)
            children[i].nullable = true;
    }
    return children != NULL;
}

/* The type of SQL that holds all values of `in`; false: out of memory. */
static bool convert_type(sap_arena *arena, const sap_field *in, const char *name, sap_field *out) {
    *out = (sap_field){.name = name, .type = in->type, .nullable = in->nullable || in->type == SAP_TYPE_NONE};
    switch (in->type) {
    case SAP_UINT8:
        out->type = SAP_INT16;
        return true;
    case SAP_UINT16:
        out->type = SAP_INT32;
        return true;
    case SAP_UINT32:
        out->type = SAP_INT64;
        return true;
    case SAP_UINT64:
        out->type = SAP_DECIMAL;
        out->size = UINT64_DIGITS;
        return true;
    case SAP_FLOAT16:
        out->type = SAP_FLOAT32;
        return true;
    case SAP_FIXED_LIST:
        out->type = SAP_LIST;
        return convert_children(arena, in, out);
    case SAP_UNION:
        out->type = SAP_RECORD;
        return convert_children(arena, in, out);
    case SAP_LIST:
    case SAP_RECORD:
        return convert_children(arena, in, out);
    default:
        return true;
    }
}

/* ---- Groups ------------------------------------------------------------------------------------------------ */

/* Behind the last branch below branch `i`. */
static size_t end_of(const sap_tree *tree, size_t i) {
    int depth = sap_tree_branch(tree, i)->depth;
    size_t end = i + 1, count = sap_tree_branch_count(tree);
    while (end < count && sap_tree_branch(tree, end)->depth > depth)
        end++;
    return end;
}

/* Whether branches below `i` can stand as fields of one column; what cannot be read is no matter. In a collection all are lists. */
static bool is_group(const sap_tree *tree, size_t i, size_t end, bool collection) {
    size_t readable = 0;
    for (size_t j = i + 1; j < end; j++) {
        const sap_branch *b = sap_tree_branch(tree, j);
        if (!b->field)
            continue;
        if (collection && b->field->type != SAP_LIST)
            return false;
        readable++;
    }
    return readable > 0;
}

/* A name without what the branch above says already, and without dimensions: "Jet.Edges[4]" below "Jet." is "Edges". */
static const char *short_name(sap_arena *arena, const char *name, const char *above) {
    size_t prefix = above ? strlen(above) : 0, length = strlen(name);
    if (prefix && above[prefix - 1] == '.')
        prefix--;
    if (prefix && length > prefix + 1 && strncmp(name, above, prefix) == 0 && name[prefix] == '.') {
        name += prefix + 1;
        length -= prefix + 1;
    }
    while (length > 0 && name[length - 1] == ']') {
        size_t open = length - 1;
        while (open > 0 && name[open] != '[')
            open--;
        if (open == 0)
            break;
        length = open;
    }
    while (length > 1 && name[length - 1] == '.')
        length--;
    return sap_arena_text(arena, name, length);
}

/* What a branch is called by itself. */
static const char *own_name(const sap_branch *b, const sap_branch *above) {
    size_t prefix = above ? strlen(above->path) : 0;
    return prefix && strncmp(b->path, above->path, prefix) == 0 && b->path[prefix] == '/' ? b->path + prefix + 1
                                                                                          : b->path;
}

/* A field's name must be its own. */
static const char *unique_name(sap_arena *arena, const sap_outline *siblings, int32_t count, const char *name) {
    const char *unique = name;
    for (int n = 2, i = 0; unique && i < count;) {
        if (strcmp(siblings[i++].field.name, unique) == 0) {
            unique = sap_arena_format(arena, "%s#%d", name, n++);
            i = 0;
        }
    }
    return unique;
}

/* The group that branches stand in. */
typedef struct group {
    const sap_branch *branch; /* NULL: none */
    const char *name;         /* its own */
    bool items;               /* it is a collection, or in one */
} group;

static sap_status add_branches(maker *s, size_t begin, size_t end, const group *above, sap_outline *parent);

/* The field of a record: its children's. */
static bool seal(sap_arena *arena, sap_outline *outline, const char *name) {
    sap_field *fields = sap_arena_array(arena, (size_t)outline->count + 1, sizeof *fields);
    sap_field record = {.name = name, .type = SAP_RECORD, .count = outline->count, .children = fields};
    for (int32_t i = 0; fields && i < outline->count; i++) {
        fields[i] = outline->children[i].field;
        outline->stored_bytes += outline->children[i].stored_bytes;
    }
    outline->field = record;
    if (outline->kind != SAP_OUTLINE_COLLECTION || !fields)
        return fields != NULL;
    sap_field *item = sap_arena_alloc(arena, sizeof *item);
    if (!item)
        return false;
    *item = record;
    item->name = "item";
    outline->field = (sap_field){.name = name, .type = SAP_LIST, .count = 1, .children = item};
    return true;
}

static sap_status add_group(maker *s, size_t i, size_t end, const group *inside, const char *name, bool collection,
                            sap_outline *out) {
    *out = (sap_outline){.kind = collection ? SAP_OUTLINE_COLLECTION : SAP_OUTLINE_RECORD,
                         .branch = collection ? inside->branch : NULL,
                         .children = sap_arena_array(s->arena, end - i, sizeof *out)};
    if (!out->children)
        return sap_error_memory(s->err, "table");
    SAP_TRY(add_branches(s, i + 1, end, inside, out));
    return seal(s->arena, out, name) ? SAP_OK : sap_error_memory(s->err, "table");
}

static sap_status add_branch(maker *s, size_t i, size_t end, const group *above, sap_outline *parent) {
    const sap_branch *b = sap_tree_branch(s->tree, i);
    bool collection = !above->items && b->field && b->field->type == SAP_INT32, items = above->items || collection;
    bool grouped = end > i + 1 && (!b->field || items) && is_group(s->tree, i, end, items);
    if (!grouped && !b->field)
        return add_branches(s, i + 1, end, above, parent);
    const char *own = own_name(b, above->branch), *name = short_name(s->arena, own, above->name);
    name = name ? unique_name(s->arena, parent->children, parent->count, name) : NULL;
    if (!name)
        return sap_error_memory(s->err, "table");
    sap_outline *out = &parent->children[parent->count];
    if (grouped) {
        SAP_TRY(add_group(s, i, end, &(group){b, own, items}, name, collection, out));
        parent->count++;
        return SAP_OK;
    }
    *out = (sap_outline){.kind = SAP_OUTLINE_COLUMN,
                         .branch = b,
                         .stored = above->items ? &b->field->children[0] : b->field,
                         .stored_bytes = b->stored_bytes};
    parent->count++;
    if (!convert_type(s->arena, out->stored, name, &out->field))
        return sap_error_memory(s->err, "table");
    return add_branches(s, i + 1, end, above, parent);
}

static sap_status add_branches(maker *s, size_t begin, size_t end, const group *above, sap_outline *parent) {
    for (size_t i = begin; i < end;) {
        size_t next = end_of(s->tree, i);
        SAP_TRY(add_branch(s, i, next < end ? next : end, above, parent));
        i = next;
    }
    return SAP_OK;
}

static bool add_identity(sap_arena *arena, sap_outline *parent) {
    static const sap_outline columns[] = {
        {.kind = SAP_OUTLINE_FILE, .field = {.name = "file", .type = SAP_STRING}},
        {.kind = SAP_OUTLINE_ENTRY, .field = {.name = "entry", .type = SAP_INT64}},
    };
    bool well = true;
    for (size_t i = 0; i < sizeof columns / sizeof *columns && well; i++) {
        sap_outline *out = &parent->children[parent->count];
        *out = columns[i];
        out->field.name = unique_name(arena, parent->children, parent->count, out->field.name);
        well = out->field.name != NULL;
        parent->count += well;
    }
    return well;
}

sap_status sap_outline_make(sap_tree *tree, bool identity, sap_arena *arena, sap_outline *out, sap_error *err) {
    maker s = {tree, arena, err};
    size_t count = sap_tree_branch_count(tree);
    *out = (sap_outline){.kind = SAP_OUTLINE_RECORD, .children = sap_arena_array(arena, count + 2, sizeof *out)};
    if (!out->children)
        return sap_error_memory(err, "table");
    SAP_TRY(add_branches(&s, 0, count, &(group){0}, out));
    if (identity && !add_identity(arena, out))
        return sap_error_memory(err, "table");
    return seal(arena, out, "") ? SAP_OK : sap_error_memory(err, "table");
}

/* ---- Looking ------------------------------------------------------------------------------------------------- */

const sap_outline *sap_outline_child(const sap_outline *outline, const char *name) {
    for (int32_t i = 0; i < outline->count; i++)
        if (strcmp(outline->children[i].field.name, name) == 0)
            return &outline->children[i];
    return NULL;
}

const sap_outline *sap_outline_find(const sap_outline *outline, const char *path) {
    for (int32_t i = 0; i < outline->count; i++) { /* names may hold points themselves */
        const sap_outline *child = &outline->children[i];
        size_t length = strlen(child->field.name);
        if (strncmp(path, child->field.name, length) != 0)
            continue;
        const sap_outline *found = path[length] == '\0'  ? child
                                   : path[length] == '.' ? sap_outline_find(child, path + length + 1)
                                                         : NULL;
        if (found)
            return found;
    }
    return NULL;
}
