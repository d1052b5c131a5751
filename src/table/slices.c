/* Cutting a table into parts for those who read it at the same time. */
#include "table_survey.h"

#include <stdlib.h>

/* Opening a file costs about as much as reading so many bytes. */
enum { PART_BYTES = 128 << 20, OPENING_BYTES = 1 << 20 };

/* Stored bytes, in the first file, of what is wanted. */
static double wanted_bytes(const sap_outline *outline, const sap_field *wanted) {
    if (outline->kind == SAP_OUTLINE_COLUMN)
        return (double)outline->stored_bytes;
    const sap_field *record = wanted->type == SAP_LIST ? &wanted->children[0] : wanted;
    double bytes = 0;
    for (int32_t i = 0; i < record->count; i++) {
        const sap_outline *child = sap_outline_child(outline, record->children[i].name);
        bytes += child ? wanted_bytes(child, &record->children[i]) : 0;
    }
    return bytes;
}

/* What part of a file's bytes is wanted, as in the first file. */
static double wanted_share(const sap_table *t, const sap_field *wanted) {
    const sap_surveyed *first = t->reference;
    return first && first->shown.bytes ? wanted_bytes(first->outline, wanted) / (double)first->shown.bytes : 0;
}

static sap_status check_file(const sap_table *t, const sap_surveyed *f, const sap_field *wanted, sap_error *err) {
    sap_text path = {0};
    sap_status status = SAP_OK;
    if (f->schema && !t->given && !t->merge && !sap_field_fits(f->schema, wanted, false, &path))
        status =
            sap_error_set(err, SAP_ETYPE,
                          "%s: the column \"%s\" of %s is missing there, or has a type that does not fit; merging the "
                          "schemas may help",
                          f->shown.url, path.data ? path.data : "", t->reference->shown.url);
    sap_text_release(&path);
    return status;
}

typedef struct cutter {
    double most, used; /* bytes of a part */
    sap_table_slice *slices;
    size_t count, capacity, part;
} cutter;

static sap_status add_slice(cutter *c, size_t file, int64_t begin, int64_t end, double bytes, bool opens,
                            sap_error *err) {
    if (c->count && c->used + bytes > c->most) {
        c->part++;
        c->used = 0;
    }
    c->used += bytes + (opens ? OPENING_BYTES : 0);
    sap_table_slice *last = c->count ? &c->slices[c->count - 1] : NULL;
    if (last && last->file == file && last->part == c->part && last->end == begin) {
        last->end = end;
        return SAP_OK;
    }
    if (!sap_grow((void **)&c->slices, &c->capacity, c->count, sizeof *c->slices))
        return sap_error_memory(err, "parts of a table");
    c->slices[c->count++] = (sap_table_slice){file, begin, end, c->part};
    return SAP_OK;
}

static sap_status cut_file(cutter *c, const sap_table_file *f, size_t index, double share, sap_error *err) {
    double bytes = f->entries > 0 ? share * (double)f->bytes / (double)f->entries : 0; /* an entry */
    for (size_t i = 0; i < f->cluster_count || i == 0; i++) {
        int64_t begin = i ? f->clusters[i] : 0, end = i + 1 < f->cluster_count ? f->clusters[i + 1] : f->entries;
        if (begin < end)
            SAP_TRY(add_slice(c, index, begin, end, bytes * (double)(end - begin), i == 0, err));
    }
    return SAP_OK;
}

static sap_status cut(const sap_table *t, const sap_field *wanted, uint64_t part_bytes, size_t least, cutter *c,
                      sap_error *err) {
    double share = wanted_share(t, wanted), total = 0;
    for (size_t i = 0; i < t->file_count; i++) {
        const sap_surveyed *f = &t->files[i];
        if (f->shown.problem)
            continue;
        SAP_TRY(check_file(t, f, wanted, err));
        total += share * (double)f->shown.bytes + OPENING_BYTES;
    }
    c->most = part_bytes ? (double)part_bytes : PART_BYTES;
    if (least > 1 && total / (double)least < c->most)
        c->most = total / (double)least;
    for (size_t i = 0; i < t->file_count; i++)
        if (!t->files[i].shown.problem)
            SAP_TRY(cut_file(c, &t->files[i].shown, i, share, err));
    return SAP_OK;
}

sap_status sap_table_plan(const sap_table *table, const struct ArrowSchema *wanted, uint64_t part_bytes, size_t least,
                          sap_table_slice **out, size_t *count, sap_error *err) {
    sap_arena arena = {0};
    sap_field field;
    cutter c = {0};
    sap_status status = sap_schema_import(wanted, &arena, &field, err);
    if (status == SAP_OK)
        status = cut(table, &field, part_bytes, least, &c, err);
    sap_arena_release(&arena);
    if (status != SAP_OK) {
        free(c.slices);
        return status;
    }
    *out = c.slices;
    *count = c.count;
    return SAP_OK;
}
