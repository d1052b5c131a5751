/* What is wanted of a table, found in a tree: the branches to be read, and columns made of theirs. */
#include "table_internal.h"

#include <stdlib.h>

/* ---- Finding --------------------------------------------------------------------------------------------- */

typedef struct finder {
    bool lenient;
    const char *where;
    sap_arena *arena;
    sap_fit_columns *columns;
    sap_error *err;
} finder;

static sap_status add_column(finder *f, const sap_branch *branch, int32_t *out) {
    sap_fit_columns *c = f->columns;
    for (size_t i = 0; i < c->count; i++)
        if (c->branches[i] == branch) {
            *out = (int32_t)i;
            return SAP_OK;
        }
    if (!sap_grow((void **)&c->branches, &c->capacity, c->count, sizeof(const sap_branch *)))
        return sap_error_memory(f->err, f->where);
    *out = (int32_t)c->count;
    c->branches[c->count++] = branch;
    return SAP_OK;
}

static sap_status wrong_type(const finder *f, const sap_field *wanted, const sap_field *is, const char *below) {
    char here[200], there[200];
    (void)sap_field_text(is, here, sizeof here);
    (void)sap_field_text(wanted, there, sizeof there);
    return sap_error_set(f->err, SAP_ETYPE, "%s: column \"%s\" is %s, wanted is %s%s%s", f->where, wanted->name, here,
                         there, *below ? ": they differ in " : "", below);
}

/* Values of one branch, or of its items. */
static sap_status find_values(finder *f, const sap_outline *outline, bool items, sap_fit *out) {
    sap_text path = {0};
    bool fits = sap_field_fits(&outline->field, out->wanted, f->lenient, &path);
    /* a schema of the user's may want unsigned integers as bigint, if they are not too large */
    bool checked = outline->stored->type == SAP_UINT64 && out->wanted->type == SAP_INT64;
    sap_status status = SAP_OK;
    if (!fits && !checked)
        status = wrong_type(f, out->wanted, &outline->field, path.data ? path.data : "");
    sap_text_release(&path);
    out->kind = SAP_FIT_VALUES;
    out->item = items;
    return status == SAP_OK ? add_column(f, outline->branch, &out->column) : status;
}

static sap_status find(finder *f, const sap_outline *outline, const sap_field *wanted, bool items, sap_fit *out);

static sap_status find_fields(finder *f, const sap_outline *outline, const sap_field *record, bool items,
                              sap_fit *out) {
    out->children = sap_arena_array(f->arena, (size_t)record->count + 1, sizeof *out->children);
    if (!out->children)
        return sap_error_memory(f->err, f->where);
    for (int32_t i = 0; i < record->count; i++) {
        const sap_outline *child = sap_outline_child(outline, record->children[i].name);
        SAP_TRY(find(f, child, &record->children[i], items, &out->children[i]));
        out->count++;
    }
    return SAP_OK;
}

/* The first column of lists below a collection; NULL: there is none. */
static const sap_fit *first_list(const sap_fit *fit) {
    if (fit->kind == SAP_FIT_VALUES)
        return fit->item ? fit : NULL;
    for (int32_t i = 0; i < fit->count; i++) {
        const sap_fit *found = first_list(&fit->children[i]);
        if (found)
            return found;
    }
    return NULL;
}

static sap_status find(finder *f, const sap_outline *outline, const sap_field *wanted, bool items, sap_fit *out) {
    *out = (sap_fit){.wanted = wanted, .outline = outline, .kind = SAP_FIT_NULL, .column = -1};
    if (!outline && f->lenient)
        return SAP_OK;
    if (!outline)
        return sap_error_set(f->err, SAP_ENOTFOUND,
                             "%s: no column \"%s\", which others have; with a merged schema it is null", f->where,
                             wanted->name);
    switch (outline->kind) {
    case SAP_OUTLINE_COLUMN:
        return find_values(f, outline, items, out);
    case SAP_OUTLINE_RECORD:
        if (wanted->type != SAP_RECORD)
            return wrong_type(f, wanted, &outline->field, "");
        out->kind = SAP_FIT_RECORD;
        return find_fields(f, outline, wanted, items, out);
    case SAP_OUTLINE_FILE:
    case SAP_OUTLINE_ENTRY:
        out->kind = outline->kind == SAP_OUTLINE_FILE ? SAP_FIT_FILE : SAP_FIT_ENTRY;
        return wanted->type == outline->field.type ? SAP_OK : wrong_type(f, wanted, &outline->field, "");
    default:
        if (wanted->type != SAP_LIST || wanted->children[0].type != SAP_RECORD)
            return wrong_type(f, wanted, &outline->field, "");
        out->kind = SAP_FIT_COLLECTION;
        SAP_TRY(find_fields(f, outline, &wanted->children[0], true, out));
        return first_list(out) ? SAP_OK : add_column(f, outline->branch, &out->column);
    }
}

sap_status sap_fit_make(const sap_outline *outline, const sap_field *wanted, bool lenient, const char *where,
                        sap_arena *arena, sap_fit *out, sap_fit_columns *columns, sap_error *err) {
    finder f = {lenient, where, arena, columns, err};
    return find(&f, outline, wanted, false, out);
}

/* ---- Making ------------------------------------------------------------------------------------------------ */

typedef struct maker {
    const sap_fit_input *input;
    const char *where;
    struct sap_storage *storage;
    sap_error *err;
} maker;

static sap_status make(const maker *m, const sap_fit *fit, int64_t length, const int32_t *offsets, int64_t entries,
                       sap_column *out);

static sap_status make_fields(const maker *m, const sap_fit *fit, const sap_field *record, int64_t length,
                              const int32_t *offsets, int64_t entries, sap_column *out) {
    SAP_TRY(sap_column_init(m->storage, record, out, m->err));
    out->length = length;
    for (int32_t i = 0; i < fit->count; i++)
        SAP_TRY(make(m, &fit->children[i], length, offsets, entries, &out->children[i]));
    return SAP_OK;
}

/* Offsets that begin at 0. */
static sap_status rebase(const maker *m, const int32_t *offsets, int64_t length, const int32_t **out) {
    static const int32_t none[1];
    if (!offsets || length == 0) {
        *out = none;
        return SAP_OK;
    }
    *out = offsets;
    if (offsets[0] == 0)
        return SAP_OK;
    int32_t *moved = sap_storage_alloc(m->storage, (size_t)(length + 1) * sizeof *moved);
    if (!moved)
        return sap_error_memory(m->err, m->where);
    for (int64_t i = 0; i <= length; i++)
        moved[i] = offsets[i] - offsets[0];
    *out = moved;
    return SAP_OK;
}

/* Of a collection of which nothing is wanted that the file has: from how many items there are. */
static sap_status count_offsets(const maker *m, const sap_column *counts, const int32_t **out) {
    int32_t *offsets = sap_storage_alloc(m->storage, (size_t)(counts->length + 1) * sizeof *offsets);
    int64_t at = 0;
    if (!offsets)
        return sap_error_memory(m->err, m->where);
    offsets[0] = 0;
    for (int64_t i = 0; i < counts->length; i++) {
        int32_t n = ((const int32_t *)counts->values)[i];
        at += n;
        if (n < 0 || at > INT32_MAX)
            return sap_error_set(m->err, SAP_EFORMAT, "%s: column \"%s\" counts %d items in entry %lld of a batch",
                                 m->where, counts->name, n, (long long)i);
        offsets[i + 1] = (int32_t)at;
    }
    *out = offsets;
    return SAP_OK;
}

/* Items of a column of lists, which must be as long as those of the collection. */
static sap_status items_of(const maker *m, const sap_column *lists, const int32_t *offsets, int64_t entries,
                           sap_column *out) {
    int32_t first = entries ? lists->offsets[0] : 0;
    for (int64_t i = 0; lists->offsets != offsets && i < entries; i++)
        if (lists->offsets[i + 1] - first != offsets[i + 1])
            return sap_error_set(
                m->err, SAP_EFORMAT,
                "%s: \"%s\" has %d items in entry %lld of a batch, another column of the collection %d", m->where,
                lists->name, lists->offsets[i + 1] - lists->offsets[i], (long long)i, offsets[i + 1] - offsets[i]);
    return sap_column_view(&lists->children[0], first, entries ? offsets[entries] : 0, m->storage, out, m->err);
}

static sap_status make_values(const maker *m, const sap_fit *fit, const int32_t *offsets, int64_t entries,
                              sap_column *out) {
    const sap_column *column = m->input->columns[fit->column];
    if (!fit->item)
        return sap_values_fit(column, fit->wanted, m->where, m->storage, out, m->err);
    sap_column items;
    SAP_TRY(items_of(m, column, offsets, entries, &items));
    return sap_values_fit(&items, fit->wanted, m->where, m->storage, out, m->err);
}

static sap_status make_entries(const maker *m, const sap_fit *fit, sap_column *out) {
    size_t bytes = (size_t)m->input->length * sizeof *m->input->entries;
    int64_t *numbers = sap_storage_alloc(m->storage, bytes);
    if (!numbers)
        return sap_error_memory(m->err, m->where);
    memcpy(numbers, m->input->entries, bytes);
    SAP_TRY(sap_column_init(m->storage, fit->wanted, out, m->err));
    out->length = m->input->length;
    out->values = numbers;
    return SAP_OK;
}

static sap_status make_collection(const maker *m, const sap_fit *fit, int64_t length, sap_column *out) {
    SAP_TRY(sap_column_init(m->storage, fit->wanted, out, m->err));
    out->length = length;
    const sap_fit *first = first_list(fit);
    if (first)
        SAP_TRY(rebase(m, m->input->columns[first->column]->offsets, length, &out->offsets));
    else
        SAP_TRY(count_offsets(m, m->input->columns[fit->column], &out->offsets));
    return make_fields(m, fit, &fit->wanted->children[0], length ? out->offsets[length] : 0, out->offsets, length,
                       &out->children[0]);
}

/* offsets: (entries + 1) of the collection around it, from 0; NULL: none is. */
static sap_status make(const maker *m, const sap_fit *fit, int64_t length, const int32_t *offsets, int64_t entries,
                       sap_column *out) {
    switch (fit->kind) {
    case SAP_FIT_NULL:
        return sap_values_null(fit->wanted, length, m->storage, out, m->err);
    case SAP_FIT_VALUES:
        return make_values(m, fit, offsets, entries, out);
    case SAP_FIT_RECORD:
        return make_fields(m, fit, fit->wanted, length, offsets, entries, out);
    case SAP_FIT_FILE:
        return sap_values_repeat(fit->wanted, m->input->file, m->input->file_length, length, m->storage, out, m->err);
    case SAP_FIT_ENTRY:
        return make_entries(m, fit, out);
    default:
        return make_collection(m, fit, length, out);
    }
}

sap_status sap_fit_run(const sap_fit *fit, const sap_fit_input *input, const char *where, struct sap_storage *storage,
                       sap_column *out, sap_error *err) {
    maker m = {input, where, storage, err};
    return make(&m, fit, input->length, NULL, input->length, out);
}
