/* From fields of an RNTuple to columns: which series of values a field needs and what they mean; the pages of each series.
 * docs/format/rntuple.md, § Types. */
#include "ntuple.h"

#include <stdlib.h>

enum { DEEPEST = 64, PAGE_LEAST = 4 + 12 };

typedef struct maker {
    sap_ntuple *ntuple;
    const char **reason;
    int depth;
    sap_error *err;
} maker;

static sap_status make(maker *m, uint32_t id, sap_node *out);

/* The field cannot be read; that is no error. */
static sap_status refuse(maker *m, const char *format, const char *text) {
    *m->reason = sap_arena_format(&m->ntuple->tree.arena, format, text);
    return *m->reason ? SAP_OK : sap_error_memory(m->err, m->ntuple->tree.where);
}

static const sap_ntuple_field *field_at(const maker *m, uint32_t id) {
    return &m->ntuple->schema.fields[id];
}

static bool starts(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- Pages of a series -------------------------------------------------------------------------------------------- */

static sap_status bad_pages(const sap_ntuple *n, const sap_cursor *c, const char *what, sap_error *err) {
    return sap_error_set(err, SAP_EFORMAT, "%s: page list @0x%llx: %s", n->tree.where, (unsigned long long)c->base,
                         what);
}

/* § Page list: pages of one column in one cluster; none, and no column, when it is suppressed there. */
static sap_status parse_pages(sap_ntuple *n, const sap_cluster *cluster, uint32_t column, sap_pages *out,
                              sap_error *err) {
    const sap_envelope *e = &n->page_lists[cluster->envelope];
    *out = (sap_pages){0};
    if (column >= cluster->frame_count) /* the cluster was written before there was such a column */
        return SAP_OK;
    size_t at = (size_t)(cluster->frames[column] - e->data), count;
    sap_cursor whole = sap_cursor_init(cluster->frames[column], e->length - at, at);
    sap_cursor c = sap_ntuple_list(&whole, PAGE_LEAST, &count);
    sap_page *pages = count ? sap_arena_array(&n->tree.arena, count, sizeof *pages) : NULL;
    if (count && !pages)
        return sap_error_memory(err, n->tree.where);
    const sap_ntuple_column *described = &n->schema.columns[column];
    uint64_t elements = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t stored = (int32_t)sap_cursor_le32(&c);
        sap_page *page = &pages[i];
        page->checked = stored < 0;
        page->elements = stored < 0 ? 0 - (uint32_t)stored : (uint32_t)stored;
        page->first = elements;
        page->at = sap_locator_parse(&c);
        elements += page->elements;
        if (page->at.bytes > sap_page_bytes(described, page->elements))
            return bad_pages(n, &c, "a page is stored in more bytes than it has", err);
    }
    bool suppressed = (int64_t)sap_cursor_le64(&c) < 0;
    SAP_TRY(sap_cursor_check(&c, n->tree.where, "page locations of a column", err));
    if (!suppressed)
        *out = (sap_pages){described, pages, count, elements};
    return SAP_OK;
}

/* The pages of a series, stored in one of these columns in each cluster. */
static sap_status load_series(sap_ntuple *n, const uint32_t *columns, size_t count, sap_series *out, sap_error *err) {
    *out = (sap_series){.first_column = columns[0], .deferred = n->schema.columns[columns[0]].deferred};
    for (size_t i = 0; i < count; i++) {
        const sap_column_type *type = sap_column_type_get(n->schema.columns[columns[i]].type);
        if (type->size >= out->size) {
            out->size = type->size;
            out->type = type->type;
        }
    }
    out->runs = sap_arena_array(&n->tree.arena, n->cluster_count + 1, sizeof *out->runs);
    if (!out->runs)
        return sap_error_memory(err, n->tree.where);
    for (size_t k = 0; k < n->cluster_count; k++)
        for (size_t i = 0; i < count && !out->runs[k].column; i++)
            SAP_TRY(parse_pages(n, &n->clusters[k], columns[i], &out->runs[k], err));
    return SAP_OK;
}

/* ---- Columns of a field --------------------------------------------------------------------------------------------- */

enum { MOST_POSITIONS = 2 };

/* A field's columns: `positions` of them, each in one or more representations. */
typedef struct columns {
    uint32_t *ids[MOST_POSITIONS];
    size_t counts[MOST_POSITIONS];
    size_t positions;
} columns;

static const sap_column_type *type_at(const maker *m, const columns *c, size_t position, size_t i) {
    return sap_column_type_get(m->ntuple->schema.columns[c->ids[position][i]].type);
}

static sap_status find_columns(maker *m, const sap_ntuple_field *f, columns *out) {
    const sap_ntuple_schema *s = &m->ntuple->schema;
    size_t total = 0;
    *out = (columns){0};
    for (uint32_t l = f->first_link; l != SAP_NOWHERE; l = s->links[l].next)
        total++;
    for (size_t p = 0; p < MOST_POSITIONS; p++) {
        out->ids[p] = sap_arena_array(&m->ntuple->tree.arena, total + 1, sizeof(uint32_t));
        if (!out->ids[p])
            return sap_error_memory(m->err, m->ntuple->tree.where);
    }
    size_t position = 0;
    uint16_t representation = 0;
    for (uint32_t l = f->first_link; l != SAP_NOWHERE; l = s->links[l].next) {
        const sap_ntuple_column *column = &s->columns[s->links[l].column];
        if (column->representation != representation)
            position = 0;
        representation = column->representation;
        if (!sap_column_type_get(column->type))
            return refuse(m, "its column is of a type that this version does not know%s", "");
        if (position >= MOST_POSITIONS)
            return refuse(m, "field %s has more columns than this version knows", f->name);
        out->ids[position][out->counts[position]++] = s->links[l].column;
        position++;
        if (position > out->positions)
            out->positions = position;
    }
    return SAP_OK;
}

static bool all_are(const maker *m, const columns *c, size_t position, bool (*is)(const sap_column_type *type)) {
    bool all = c->counts[position] > 0;
    for (size_t i = 0; i < c->counts[position]; i++)
        all = all && is(type_at(m, c, position, i));
    return all;
}

static bool is_index(const sap_column_type *type) {
    return type->encoding == SAP_ENCODING_INDEX || type->encoding == SAP_ENCODING_DELTA;
}

static bool is_switch(const sap_column_type *type) {
    return type->encoding == SAP_ENCODING_SWITCH;
}

static bool is_number(const sap_column_type *type) {
    return type->type != SAP_TYPE_NONE;
}

static bool is_byte(const sap_column_type *type) {
    return type->encoding == SAP_ENCODING_PLAIN && type->size == 1;
}

static sap_status give_series(maker *m, const columns *c, size_t position, sap_node *out) {
    out->series = sap_arena_alloc(&m->ntuple->tree.arena, sizeof *out->series);
    if (!out->series)
        return sap_error_memory(m->err, m->ntuple->tree.where);
    return load_series(m->ntuple, c->ids[position], c->counts[position], out->series, m->err);
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------------ */

static sap_status give_children(maker *m, sap_node *out, size_t count) {
    out->children = sap_arena_array(&m->ntuple->tree.arena, count + 1, sizeof *out->children);
    out->child_count = count;
    return out->children ? SAP_OK : sap_error_memory(m->err, m->ntuple->tree.where);
}

/* The type of a node with the types of its children inside. */
static sap_status give_field(maker *m, sap_node *out, sap_type type, int32_t size) {
    sap_field *inner = sap_arena_array(&m->ntuple->tree.arena, out->child_count + 1, sizeof *inner);
    if (!inner)
        return sap_error_memory(m->err, m->ntuple->tree.where);
    for (size_t i = 0; i < out->child_count; i++)
        inner[i] = out->children[i].field;
    out->field.type = type;
    out->field.size = size;
    out->field.count = (int32_t)out->child_count;
    out->field.children = inner;
    return SAP_OK;
}

/* Representations differ in how wide their numbers are; only floating-point ones may. */
static sap_status make_number(maker *m, const columns *c, sap_node *out) {
    out->kind = SAP_NODE_NUMBER;
    SAP_TRY(give_series(m, c, 0, out));
    out->field.type = out->series->type;
    for (size_t i = 0; i < c->counts[0]; i++) {
        sap_type type = type_at(m, c, 0, i)->type;
        if (type != out->series->type && (type < SAP_FLOAT16 || type > SAP_FLOAT64 || out->series->type < SAP_FLOAT16))
            return refuse(m, "its representations are of different types%s", "");
    }
    return SAP_OK;
}

static sap_status make_array(maker *m, const sap_ntuple_field *f, const columns *c, sap_node *out) {
    if (f->repeats > INT32_MAX)
        return refuse(m, "the array %s is too large", f->name);
    out->kind = SAP_NODE_ARRAY;
    out->repeats = f->repeats;
    SAP_TRY(give_children(m, out, 1));
    if (c->positions > 0) /* a bitset */
        SAP_TRY(make_number(m, c, &out->children[0]));
    else
        SAP_TRY(make(m, f->first_child, &out->children[0]));
    return *m->reason ? SAP_OK : give_field(m, out, SAP_FIXED_LIST, (int32_t)f->repeats);
}

static sap_status make_leaf(maker *m, const sap_ntuple_field *f, const columns *c, sap_node *out) {
    bool number = c->positions == 1 && all_are(m, c, 0, is_number);
    bool alone = f->first_child != SAP_NOWHERE && f->first_child == f->last_child;
    if (f->repetitive && (number || (c->positions == 0 && alone)))
        return make_array(m, f, c, out);
    if (c->positions == 0 && alone) { /* atomic, enum: what they hold */
        SAP_TRY(make(m, f->first_child, out));
        out->field.name = f->name;
        return SAP_OK;
    }
    if (number)
        return make_number(m, c, out);
    if (c->positions == 1 && all_are(m, c, 0, is_index) && starts(f->type_name, "ROOT::RNTupleCardinality<")) {
        out->kind = SAP_NODE_COUNT;
        out->field.type = SAP_INT64;
        return give_series(m, c, 0, out);
    }
    if (c->positions == 2 && all_are(m, c, 0, is_index) && all_are(m, c, 1, is_byte)) {
        out->kind = SAP_NODE_STRING;
        out->field.type = SAP_STRING;
        SAP_TRY(give_series(m, c, 0, out));
        SAP_TRY(give_children(m, out, 1));
        out->children[0] = (sap_node){.kind = SAP_NODE_NUMBER, .field = {.name = "", .type = SAP_UINT8}};
        return give_series(m, c, 1, &out->children[0]);
    }
    return refuse(m, "the columns of field %s do not make a value", f->name);
}

static sap_status make_collection(maker *m, const sap_ntuple_field *f, const columns *c, sap_node *out) {
    if (c->positions != 1 || !all_are(m, c, 0, is_index) || f->first_child == SAP_NOWHERE ||
        f->first_child != f->last_child)
        return refuse(m, "the collection %s has no item or no index", f->name);
    bool optional = starts(f->type_name, "std::optional<") || starts(f->type_name, "std::unique_ptr<");
    out->kind = optional ? SAP_NODE_OPTIONAL : SAP_NODE_LIST;
    SAP_TRY(give_series(m, c, 0, out));
    SAP_TRY(give_children(m, out, 1));
    SAP_TRY(make(m, f->first_child, &out->children[0]));
    if (*m->reason)
        return SAP_OK;
    if (!optional)
        return give_field(m, out, SAP_LIST, 0);
    const char *name = out->field.name;
    out->field = out->children[0].field;
    out->field.name = name;
    out->field.nullable = out->field.type != SAP_UNION; /* unions have an alternative for nothing */
    return SAP_OK;
}

static sap_status make_variant(maker *m, const sap_ntuple_field *f, const columns *c, sap_node *out) {
    enum { MOST_ALTERNATIVES = 125 };
    size_t count = 0;
    for (uint32_t id = f->first_child; id != SAP_NOWHERE; id = field_at(m, id)->next_sibling)
        count++;
    if (c->positions != 1 || !all_are(m, c, 0, is_switch) || count > MOST_ALTERNATIVES)
        return refuse(m, "the variant %s has too many alternatives, or no switch", f->name);
    out->kind = SAP_NODE_UNION;
    SAP_TRY(give_series(m, c, 0, out));
    SAP_TRY(give_children(m, out, count + 1));
    out->children[0] =
        (sap_node){.kind = SAP_NODE_RECORD, .field = {.name = "", .nullable = true}}; /* tag 0: nothing */
    size_t i = 1;
    for (uint32_t id = f->first_child; id != SAP_NOWHERE && !*m->reason; id = field_at(m, id)->next_sibling)
        SAP_TRY(make(m, id, &out->children[i++]));
    return *m->reason ? SAP_OK : give_field(m, out, SAP_UNION, 0);
}

/* ---- Serialised objects --------------------------------------------------------------------------------------------- */

/* Classes are described by the RNTuple itself, or else by the file. */
static sap_status read_classes(maker *m) {
    sap_ntuple *n = m->ntuple;
    if (n->described_read)
        return SAP_OK;
    SAP_TRY(sap_classes_read(&n->described, m->err));
    for (const sap_ntuple_infos *i = n->schema.infos; i; i = i->next)
        SAP_TRY(sap_classes_add(&n->described, i->data, i->length, n->tree.where, m->err));
    n->described_read = true;
    return SAP_OK;
}

static sap_status make_streamed(maker *m, const sap_ntuple_field *f, const columns *c, sap_node *out) {
    sap_arena *arena = &m->ntuple->tree.arena;
    if (c->positions != 2 || !all_are(m, c, 0, is_index) || !all_are(m, c, 1, is_byte))
        return refuse(m, "the columns of field %s hold no serialised objects", f->name);
    SAP_TRY(read_classes(m));
    sap_compiler k = {.file = &m->ntuple->described, .arena = arena};
    sap_program *p = sap_arena_alloc(arena, sizeof *p);
    bool fine = p && sap_compile_object(&k, f->type_name, (int)f->type_version, f->checksum, &p->root) &&
                sap_compile_field(&k, &p->root, &p->field);
    if (!p || k.out_of_memory)
        return sap_error_memory(m->err, m->ntuple->tree.where);
    if (!fine)
        return refuse(m, "%s", k.reason);
    p->shape = SAP_SHAPE_TREE;
    p->slots = k.slots;
    p->bare = p->root;
    p->bare.framed = false;
    out->kind = SAP_NODE_STREAMED;
    out->program = p;
    out->field = p->field;
    out->field.name = f->name;
    SAP_TRY(give_series(m, c, 0, out));
    SAP_TRY(give_children(m, out, 1));
    out->children[0] = (sap_node){.kind = SAP_NODE_NUMBER, .field = {.name = "", .type = SAP_UINT8}};
    return give_series(m, c, 1, &out->children[0]);
}

/* ---- Records and their base classes ------------------------------------------------------------------------------------- */

/* A member of a record, its own or of a base class. */
typedef struct member {
    uint32_t id;
    const char *base; /* the direct base class that it comes from, or NULL */
} member;

typedef struct members {
    member *items, *bases; /* bases: still to be looked into */
    size_t count, capacity, base_count, base_capacity;
} members;

static bool push(member **array, size_t *capacity, size_t *count, member value) {
    if (!sap_grow((void **)array, capacity, *count, sizeof **array))
        return false;
    (*array)[(*count)++] = value;
    return true;
}

/* Own members first, then those of the base classes, the last base first (§ Base classes). */
static bool find_members(const maker *m, uint32_t record, members *out) {
    bool fine = push(&out->bases, &out->base_capacity, &out->base_count, (member){record, NULL});
    while (fine && out->base_count > 0) {
        member from = out->bases[--out->base_count];
        uint32_t id = field_at(m, from.id)->first_child;
        for (; fine && id != SAP_NOWHERE; id = field_at(m, id)->next_sibling) {
            const sap_ntuple_field *f = field_at(m, id);
            bool base = f->name[0] == ':' && f->role == SAP_ROLE_RECORD;
            member found = {id, from.base ? from.base : base ? f->type_name : NULL};
            fine = base ? push(&out->bases, &out->base_capacity, &out->base_count, found)
                        : push(&out->items, &out->capacity, &out->count, found);
        }
    }
    return fine;
}

/* A name that two members have is told apart by the base class: "Child::x". */
static const char *member_name(const maker *m, const members *list, size_t i) {
    const char *name = field_at(m, list->items[i].id)->name;
    for (size_t j = 0; j < list->count && list->items[i].base; j++)
        if (j != i && strcmp(field_at(m, list->items[j].id)->name, name) == 0)
            return sap_arena_format(&m->ntuple->tree.arena, "%s::%s", list->items[i].base, name);
    return name;
}

static sap_status make_record(maker *m, uint32_t record, sap_node *out) {
    members list = {0};
    out->kind = SAP_NODE_RECORD;
    sap_status status = find_members(m, record, &list) ? give_children(m, out, list.count)
                                                       : sap_error_memory(m->err, m->ntuple->tree.where);
    for (size_t i = 0; i < list.count && status == SAP_OK && !*m->reason; i++) {
        status = make(m, list.items[i].id, &out->children[i]);
        out->children[i].field.name = member_name(m, &list, i);
        if (!out->children[i].field.name)
            status = sap_error_memory(m->err, m->ntuple->tree.where);
    }
    free(list.items);
    free(list.bases);
    return status == SAP_OK && !*m->reason ? give_field(m, out, SAP_RECORD, 0) : status;
}

static sap_status make(maker *m, uint32_t id, sap_node *out) {
    const sap_ntuple_field *f = field_at(m, id);
    columns c;
    *out = (sap_node){.field = {.name = f->name}};
    if (++m->depth > DEEPEST)
        return refuse(m, "its fields are nested too deep%s", "");
    SAP_TRY(find_columns(m, f, &c));
    sap_status status = SAP_OK;
    if (*m->reason)
        return SAP_OK;
    switch (f->role) {
    case SAP_ROLE_LEAF:
        status = make_leaf(m, f, &c, out);
        break;
    case SAP_ROLE_COLLECTION:
        status = make_collection(m, f, &c, out);
        break;
    case SAP_ROLE_RECORD:
        status = make_record(m, id, out);
        break;
    case SAP_ROLE_VARIANT:
        status = make_variant(m, f, &c, out);
        break;
    case SAP_ROLE_STREAMER:
        status = make_streamed(m, f, &c, out);
        break;
    default:
        status = refuse(m, "field %s has a structure that this version does not know", f->name);
        break;
    }
    m->depth--;
    return status;
}

sap_status sap_node_make(sap_ntuple *ntuple, uint32_t field, sap_node *out, const char **reason, sap_error *err) {
    maker m = {.ntuple = ntuple, .reason = reason, .err = err};
    *reason = NULL;
    return make(&m, field, out);
}
