/* RNTuple's schema: fields, columns and the links between them, from the header and the footer. docs/format/rntuple.md,
 * § Schema. */
#include "ntuple.h"

#include <stdlib.h>

enum {
    FIELD_LEAST = 8 + 16 + 4 * 4, /* a frame's size, the numbers, four texts */
    COLUMN_LEAST = 8 + 12,
    ALIAS_LEAST = 8 + 8,
    INFO_LEAST = 8 + 8 + 4,
    FLAG_REPETITIVE = 1,
    FLAG_PROJECTED = 2,
    FLAG_CHECKSUM = 4,
    FLAG_DEFERRED = 1,
    FLAG_RANGE = 2,
    CONTENT_STREAMER_INFO = 0
};

typedef struct parser {
    sap_ntuple_schema *schema;
    sap_arena *arena;
    const char *where;
} parser;

/* ---- Fields --------------------------------------------------------------------------------------------------- */

static sap_status add_field(parser *p, sap_cursor *list, sap_error *err) {
    sap_ntuple_schema *s = p->schema;
    sap_cursor c = sap_ntuple_record(list);
    sap_ntuple_field f = {.first_child = SAP_NOWHERE,
                          .last_child = SAP_NOWHERE,
                          .next_sibling = SAP_NOWHERE,
                          .first_link = SAP_NOWHERE,
                          .last_link = SAP_NOWHERE};
    sap_cursor_skip(&c, 4); /* field version */
    f.type_version = sap_cursor_le32(&c);
    f.parent = sap_cursor_le32(&c);
    f.role = sap_cursor_le16(&c);
    uint16_t flags = sap_cursor_le16(&c);
    f.name = sap_ntuple_text(&c, p->arena);
    f.type_name = sap_ntuple_text(&c, p->arena);
    (void)sap_ntuple_text(&c, NULL); /* alias */
    (void)sap_ntuple_text(&c, NULL); /* description */
    f.repetitive = flags & FLAG_REPETITIVE;
    f.projected = flags & FLAG_PROJECTED;
    if (f.repetitive)
        f.repeats = sap_cursor_le64(&c);
    if (f.projected)
        sap_cursor_skip(&c, 4);
    if (flags & FLAG_CHECKSUM)
        f.checksum = sap_cursor_le32(&c);
    SAP_TRY(sap_cursor_check(&c, p->where, "field description", err));
    uint32_t id = (uint32_t)s->field_count;
    if (f.parent > id)
        return sap_error_set(err, SAP_EFORMAT, "%s: field %u \"%.100s\" stands before its parent %u", p->where, id,
                             f.name, f.parent);
    if (!sap_grow((void **)&s->fields, &s->field_capacity, s->field_count, sizeof *s->fields))
        return sap_error_memory(err, p->where);
    s->fields[s->field_count++] = f;
    if (f.parent == id)
        return SAP_OK;
    sap_ntuple_field *parent = &s->fields[f.parent];
    if (parent->first_child == SAP_NOWHERE)
        parent->first_child = id;
    else
        s->fields[parent->last_child].next_sibling = id;
    parent->last_child = id;
    return SAP_OK;
}

/* ---- Columns -------------------------------------------------------------------------------------------------- */

static sap_status add_link(parser *p, uint32_t field, uint32_t column, sap_error *err) {
    sap_ntuple_schema *s = p->schema;
    if (field >= s->field_count || column >= s->column_count)
        return sap_error_set(err, SAP_EFORMAT, "%s: column %u of %zu belongs to field %u of %zu", p->where, column,
                             s->column_count, field, s->field_count);
    if (!sap_grow((void **)&s->links, &s->link_capacity, s->link_count, sizeof *s->links))
        return sap_error_memory(err, p->where);
    uint32_t id = (uint32_t)s->link_count++;
    s->links[id] = (sap_ntuple_link){column, SAP_NOWHERE};
    sap_ntuple_field *f = &s->fields[field];
    if (f->first_link == SAP_NOWHERE)
        f->first_link = id;
    else
        s->links[f->last_link].next = id;
    f->last_link = id;
    return SAP_OK;
}

static sap_status add_column(parser *p, sap_cursor *list, sap_error *err) {
    sap_ntuple_schema *s = p->schema;
    sap_cursor c = sap_ntuple_record(list);
    sap_ntuple_column column = {.type = sap_cursor_le16(&c)};
    column.bits = sap_cursor_le16(&c);
    uint32_t field = sap_cursor_le32(&c);
    uint16_t flags = sap_cursor_le16(&c);
    column.representation = sap_cursor_le16(&c);
    column.deferred = flags & FLAG_DEFERRED;
    if (column.deferred)
        sap_cursor_skip(&c, 8); /* first element: told by the page lists too */
    if (flags & FLAG_RANGE) {
        column.minimum = sap_cursor_lef64(&c);
        column.maximum = sap_cursor_lef64(&c);
    }
    SAP_TRY(sap_cursor_check(&c, p->where, "column description", err));
    const sap_column_type *type = sap_column_type_get(column.type);
    if (type && (column.bits < type->least_bits || column.bits > type->most_bits))
        return sap_error_set(err, SAP_EFORMAT, "%s: column %zu of type %s has %u bits", p->where, s->column_count,
                             type->name, column.bits);
    if (!sap_grow((void **)&s->columns, &s->column_capacity, s->column_count, sizeof *s->columns))
        return sap_error_memory(err, p->where);
    s->columns[s->column_count++] = column;
    return add_link(p, field, (uint32_t)s->column_count - 1, err);
}

static sap_status add_alias(parser *p, sap_cursor *list, sap_error *err) {
    sap_cursor c = sap_ntuple_record(list);
    uint32_t column = sap_cursor_le32(&c), field = sap_cursor_le32(&c);
    SAP_TRY(sap_cursor_check(&c, p->where, "alias column", err));
    return add_link(p, field, column, err);
}

static sap_status add_info(parser *p, sap_cursor *list, sap_error *err) {
    sap_cursor c = sap_ntuple_record(list);
    uint32_t content = sap_cursor_le32(&c);
    sap_cursor_skip(&c, 4);
    (void)sap_ntuple_text(&c, NULL);
    size_t length = sap_cursor_count(&c, sap_cursor_le32(&c), 1);
    const uint8_t *data = sap_cursor_take(&c, length);
    SAP_TRY(sap_cursor_check(&c, p->where, "type information", err));
    if (content != CONTENT_STREAMER_INFO)
        return SAP_OK;
    sap_ntuple_infos *infos = sap_arena_alloc(p->arena, sizeof *infos);
    uint8_t *copy = sap_arena_alloc(p->arena, length + 1);
    if (!infos || !copy)
        return sap_error_memory(err, p->where);
    memcpy(copy, data, length);
    *infos = (sap_ntuple_infos){copy, length, p->schema->infos};
    p->schema->infos = infos;
    return SAP_OK;
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

sap_status sap_schema_parse(sap_ntuple_schema *schema, sap_cursor *c, sap_arena *arena, const char *where,
                            sap_error *err) {
    static const struct {
        size_t least;
        sap_status (*add)(parser *p, sap_cursor *list, sap_error *err);
    } lists[] = {
        {FIELD_LEAST, add_field}, {COLUMN_LEAST, add_column}, {ALIAS_LEAST, add_alias}, {INFO_LEAST, add_info}};
    parser p = {schema, arena, where};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        size_t count;
        sap_cursor list = sap_ntuple_list(c, lists[i].least, &count);
        SAP_TRY(sap_cursor_check(c, where, "schema description", err));
        for (size_t j = 0; j < count; j++)
            SAP_TRY(lists[i].add(&p, &list, err));
    }
    return SAP_OK;
}

void sap_schema_release(sap_ntuple_schema *schema) {
    free(schema->fields);
    free(schema->columns);
    free(schema->links);
    *schema = (sap_ntuple_schema){0};
}
