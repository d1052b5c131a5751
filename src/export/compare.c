/* Comparison of two tables, column by column: whole ranges by their bytes first, entry by entry only where those differ. */
#include "export_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { STANDARD_LIMIT = 3 };

/* ---- Values ------------------------------------------------------------------------------------------------ */

static int64_t items_of(const sap_column *c, int64_t i, int64_t *first) {
    *first = c->type == SAP_FIXED_LIST ? i * c->size : c->offsets[i];
    return c->type == SAP_FIXED_LIST ? c->size : c->offsets[i + 1] - c->offsets[i];
}

/* Whether n entries are the same to the last bit; false also where a closer look is needed. */
static bool same_range(const sap_column *a, int64_t i, const sap_column *b, int64_t j, int64_t n) {
    if (n == 0)
        return true;
    if ((a->valid && memchr(a->valid + i, 0, (size_t)n)) || (b->valid && memchr(b->valid + j, 0, (size_t)n)))
        return false;
    size_t size = sap_type_size(a->type);
    switch (a->type) {
    case SAP_TYPE_NONE:
        return true;
    case SAP_UNION:
        return false;
    case SAP_LIST:
    case SAP_STRING: {
        int32_t first_a = a->offsets[i], first_b = b->offsets[j], items = a->offsets[i + n] - first_a;
        for (int64_t k = 1; k <= n; k++)
            if (a->offsets[i + k] - first_a != b->offsets[j + k] - first_b)
                return false;
        if (a->type == SAP_LIST)
            return same_range(&a->children[0], first_a, &b->children[0], first_b, items);
        return items == 0 ||
               memcmp((const char *)a->values + first_a, (const char *)b->values + first_b, (size_t)items) == 0;
    }
    case SAP_FIXED_LIST:
        return same_range(&a->children[0], i * a->size, &b->children[0], j * b->size, n * a->size);
    case SAP_RECORD:
        for (int32_t k = 0; k < a->count; k++)
            if (!same_range(&a->children[k], i, &b->children[k], j, n))
                return false;
        return true;
    default:
        return memcmp((const char *)a->values + (size_t)i * size, (const char *)b->values + (size_t)j * size,
                      (size_t)n * size) == 0;
    }
}

static double real_value(const sap_column *c, int64_t i) {
    return c->type == SAP_FLOAT64   ? ((const double *)c->values)[i]
           : c->type == SAP_FLOAT32 ? (double)((const float *)c->values)[i]
                                    : sap_half_value(((const uint16_t *)c->values)[i]);
}

static bool is_real(sap_type type) {
    return type == SAP_FLOAT16 || type == SAP_FLOAT32 || type == SAP_FLOAT64;
}

static bool close_enough(double x, double y, double tolerance) {
    return x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= tolerance * fmax(fabs(x), fabs(y));
}

/* A value as people read it. */
static void put_value(sap_text *out, const sap_column *c, int64_t i) {
    if (c->valid && !c->valid[i]) {
        sap_text_add(out, "null");
    } else if (c->type == SAP_STRING) {
        int32_t length = c->offsets[i + 1] - c->offsets[i];
        sap_text_add(out, "\"%.*s\"", length > 60 ? 60 : length, (const char *)c->values + c->offsets[i]);
    } else if (is_real(c->type)) {
        double value = real_value(c, i);
        uint64_t bits = 0;
        memcpy(&bits, (const char *)c->values + (size_t)i * sap_type_size(c->type), sap_type_size(c->type));
        sap_text_add(out, "%.*g", c->type == SAP_FLOAT64 ? 17 : 9, value);
        if (isnan(value))
            sap_text_add(out, " (0x%" PRIx64 ")", bits);
    } else if (sap_type_size(c->type)) {
        sap_text_add(out, c->type == SAP_UINT64 ? "%" PRIu64 : "%" PRId64, sap_integer_value(c, i));
    } else {
        sap_text_add(out, "a %s", sap_type_name(c->type));
    }
}

static bool tell(sap_text *out, const sap_column *a, int64_t i, const sap_column *b, int64_t j) {
    if (out) {
        sap_text_add(out, ": ");
        put_value(out, a, i);
        sap_text_add(out, ", ");
        put_value(out, b, j);
    }
    return true;
}

/* Whether an entry differs; then `out`, if not NULL, says where and how. */
static bool differs(const sap_column *a, int64_t i, const sap_column *b, int64_t j, double tolerance, sap_text *out) {
    bool null_a = a->valid && !a->valid[i], null_b = b->valid && !b->valid[j];
    if (null_a || null_b)
        return null_a != null_b && tell(out, a, i, b, j);
    if (same_range(a, i, b, j, 1))
        return false;
    int64_t first_a, first_b, items;
    size_t length = out ? out->length : 0;
    switch (a->type) {
    case SAP_UNION: {
        int tag = ((const int8_t *)a->values)[i], other = ((const int8_t *)b->values)[j];
        if (tag == other)
            return differs(&a->children[tag], a->offsets[i], &b->children[other], b->offsets[j], tolerance, out);
        if (out)
            sap_text_add(out, ": alternative %d, %d", tag, other);
        return true;
    }
    case SAP_RECORD:
        for (int32_t k = 0; k < a->count; k++) {
            if (out)
                sap_text_add(out, ".%s", a->children[k].name);
            if (differs(&a->children[k], i, &b->children[k], j, tolerance, out))
                return true;
            if (out)
                out->length = length;
        }
        return false;
    case SAP_LIST:
    case SAP_FIXED_LIST:
        items = items_of(a, i, &first_a);
        if (items != items_of(b, j, &first_b)) {
            if (out)
                sap_text_add(out, ": %" PRId64 " items, %" PRId64, items, items_of(b, j, &first_b));
            return true;
        }
        for (int64_t k = 0; k < items; k++) {
            if (out)
                sap_text_add(out, "[%" PRId64 "]", k);
            if (differs(&a->children[0], first_a + k, &b->children[0], first_b + k, tolerance, out))
                return true;
            if (out)
                out->length = length;
        }
        return false;
    default:
        if (tolerance > 0 && is_real(a->type) && close_enough(real_value(a, i), real_value(b, j), tolerance))
            return false;
        return tell(out, a, i, b, j);
    }
}

/* ---- Columns -------------------------------------------------------------------------------------------------- */

typedef struct seen {
    int64_t entry;
    char *text;
} seen;

/* A column that both tables have. */
typedef struct pair {
    const char *name;
    int32_t a, b; /* in the batches */
    int64_t different;
    seen *seen; /* the first few */
    size_t count, capacity;
} pair;

typedef struct side {
    sap_selection *selection;
    sap_batch batch;
    int64_t at; /* entries of the batch that are done */
} side;

typedef struct comparison {
    side a, b;
    pair *pairs;
    size_t pair_count;
    int64_t length; /* entries to compare at a time */
    double tolerance;
    size_t limit;
    int64_t done;
} comparison;

static sap_status compare_column(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    comparison *c = context;
    pair *p = &c->pairs[index];
    const sap_column *a = &c->a.batch.columns[p->a], *b = &c->b.batch.columns[p->b];
    if (same_range(a, c->a.at, b, c->b.at, c->length))
        return SAP_OK;
    for (int64_t i = 0; i < c->length; i++) {
        if (!differs(a, c->a.at + i, b, c->b.at + i, c->tolerance, NULL))
            continue;
        if (p->different++ >= (int64_t)c->limit)
            continue;
        sap_text text = {0};
        (void)differs(a, c->a.at + i, b, c->b.at + i, c->tolerance, &text);
        if (text.failed || !sap_grow((void **)&p->seen, &p->capacity, p->count, sizeof *p->seen)) {
            sap_text_release(&text);
            return sap_error_memory(err, p->name);
        }
        p->seen[p->count++] = (seen){c->done + i, text.data};
    }
    return SAP_OK;
}

/* Makes sure that some entries of the side's batch are left, unless it has ended. */
static sap_status fill(side *s, sap_error *err) {
    if (s->at < s->batch.length)
        return SAP_OK;
    sap_batch_release(&s->batch);
    s->at = 0;
    return sap_selection_next(s->selection, &s->batch, err);
}

static sap_status compare_entries(comparison *c, const sap_run *run, int64_t *rest_a, int64_t *rest_b, sap_error *err) {
    for (;;) {
        SAP_TRY(sap_run_check(run, err));
        SAP_TRY(fill(&c->a, err));
        SAP_TRY(fill(&c->b, err));
        int64_t left_a = c->a.batch.length - c->a.at, left_b = c->b.batch.length - c->b.at;
        c->length = left_a < left_b ? left_a : left_b;
        if (c->length == 0)
            break;
        SAP_TRY(sap_loop(run, c->pair_count, compare_column, c, err));
        c->a.at += c->length;
        c->b.at += c->length;
        c->done += c->length;
        sap_run_report(run, "compare", "entries", (uint64_t)c->done, 0, NULL);
    }
    /* one of them may go on */
    for (side *s = &c->a; s; s = s == &c->a ? &c->b : NULL) {
        int64_t *rest = s == &c->a ? rest_a : rest_b;
        while (s->batch.length > 0) {
            SAP_TRY(sap_run_check(run, err));
            *rest += s->batch.length - s->at;
            s->at = s->batch.length;
            SAP_TRY(fill(s, err));
        }
    }
    return SAP_OK;
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

static const sap_field *find_field(const sap_field *fields, int32_t count, const char *name, int32_t *index) {
    for (*index = 0; *index < count; ++*index)
        if (strcmp(fields[*index].name, name) == 0)
            return &fields[*index];
    return NULL;
}

static void report(const sap_compare_options *o, sap_compare_result *result, const char *column, int64_t entry,
                   const char *place, const char *text) {
    result->same = false;
    if (o->report)
        o->report(o->context, &(sap_difference){column, entry, place, text});
}

/* Columns that are in one table only, or have another type there, are reported; the rest become pairs. */
static sap_status match(comparison *c, const sap_compare_options *o, sap_compare_result *result, sap_error *err) {
    int32_t count_a, count_b, other;
    const sap_field *a = sap_selection_fields(c->a.selection, &count_a);
    const sap_field *b = sap_selection_fields(c->b.selection, &count_b);
    c->pairs = calloc((size_t)count_a + 1, sizeof *c->pairs);
    if (!c->pairs)
        return sap_error_memory(err, "comparison");
    for (int32_t i = 0; i < count_a; i++) {
        const sap_field *found = find_field(b, count_b, a[i].name, &other);
        if (found && sap_field_same(&a[i], found)) {
            c->pairs[c->pair_count++] = (pair){.name = a[i].name, .a = i, .b = other};
            continue;
        }
        char text[500] = "only in the first", here[200], there[200];
        if (found) {
            (void)sap_field_text(&a[i], here, sizeof here);
            (void)sap_field_text(found, there, sizeof there);
            (void)snprintf(text, sizeof text, "%s%s, %s%s", here, a[i].nullable ? " or null" : "", there,
                           found->nullable ? " or null" : "");
        }
        result->different_columns++;
        report(o, result, a[i].name, -1, "", text);
    }
    for (int32_t i = 0; i < count_b; i++) {
        if (find_field(a, count_a, b[i].name, &other))
            continue;
        result->different_columns++;
        report(o, result, b[i].name, -1, "", "only in the second");
    }
    return SAP_OK;
}

/* Opens a side again with the columns of the pairs alone. */
static sap_status narrow(comparison *c, side *s, const sap_selection_options *options, const sap_run *run,
                         sap_error *err) {
    int32_t count;
    (void)sap_selection_fields(s->selection, &count);
    if ((size_t)count == c->pair_count)
        return SAP_OK;
    sap_selection_options some = *options;
    const char **names = calloc(c->pair_count + 1, sizeof(const char *));
    if (!names)
        return sap_error_memory(err, "comparison");
    for (size_t i = 0; i < c->pair_count; i++)
        names[i] = c->pairs[i].name;
    some.columns = names;
    some.column_count = c->pair_count;
    sap_selection *again = NULL;
    sap_status status = sap_selection_open(&some, run, &again, err);
    if (status == SAP_OK) {
        sap_selection_close(s->selection);
        s->selection = again;
    }
    free(names);
    return status;
}

/* The selections were opened again: where in their batches the columns are now. */
static void locate(comparison *c) {
    int32_t count_a, count_b;
    const sap_field *a = sap_selection_fields(c->a.selection, &count_a);
    const sap_field *b = sap_selection_fields(c->b.selection, &count_b);
    for (size_t i = 0; i < c->pair_count; i++) {
        (void)find_field(a, count_a, c->pairs[i].name, &c->pairs[i].a);
        (void)find_field(b, count_b, c->pairs[i].name, &c->pairs[i].b);
    }
}

static sap_status keep_names(comparison *c, sap_arena *arena, sap_error *err) {
    for (size_t i = 0; i < c->pair_count; i++) {
        c->pairs[i].name = sap_arena_text(arena, c->pairs[i].name, strlen(c->pairs[i].name));
        if (!c->pairs[i].name)
            return sap_error_memory(err, "comparison");
    }
    return SAP_OK;
}

static void finish(comparison *c, const sap_compare_options *o, int64_t rest_a, int64_t rest_b,
                   sap_compare_result *result) {
    result->entries = c->done;
    result->columns = (int32_t)c->pair_count;
    for (size_t i = 0; i < c->pair_count; i++) {
        pair *p = &c->pairs[i];
        result->different_entries += p->different;
        result->different_columns += p->different > 0;
        for (size_t k = 0; k < p->count; k++) {
            char *values = strstr(p->seen[k].text, ": "); /* as differs() writes them, behind the place */
            *values = '\0';
            report(o, result, p->name, p->seen[k].entry, p->seen[k].text, values + 2);
        }
    }
    if (rest_a != rest_b) {
        char text[100];
        (void)snprintf(text, sizeof text, "%" PRId64 " entries, %" PRId64, c->done + rest_a, c->done + rest_b);
        report(o, result, NULL, -1, "", text);
    }
}

static sap_status compare(comparison *c, const sap_selection_options *a, const sap_selection_options *b,
                          const sap_compare_options *o, const sap_run *run, sap_arena *arena,
                          sap_compare_result *result, sap_error *err) {
    int64_t rest_a = 0, rest_b = 0;
    SAP_TRY(sap_selection_open(a, run, &c->a.selection, err));
    SAP_TRY(sap_selection_open(b, run, &c->b.selection, err));
    SAP_TRY(match(c, o, result, err));
    SAP_TRY(keep_names(c, arena, err));
    if (c->pair_count == 0) {
        report(o, result, NULL, -1, "", "no column in common");
        return SAP_OK;
    }
    SAP_TRY(narrow(c, &c->a, a, run, err));
    SAP_TRY(narrow(c, &c->b, b, run, err));
    locate(c);
    SAP_TRY(compare_entries(c, run, &rest_a, &rest_b, err));
    finish(c, o, rest_a, rest_b, result);
    return SAP_OK;
}

sap_status sap_compare_run(const sap_selection_options *a, const sap_selection_options *b,
                           const sap_compare_options *options, const sap_run *run, sap_compare_result *out,
                           sap_error *err) {
    sap_compare_options o = options ? *options : (sap_compare_options){0};
    if (!(o.tolerance >= 0) || o.limit < 0)
        return sap_error_set(err, SAP_EARGUMENT, "a tolerance of %g and %d differences a column", o.tolerance, o.limit);
    comparison c = {.tolerance = o.tolerance, .limit = o.limit ? (size_t)o.limit : STANDARD_LIMIT};
    sap_compare_result result = {.same = true};
    sap_arena arena = {0};
    sap_status status = compare(&c, a, b, &o, run, &arena, &result, err);
    for (size_t i = 0; i < c.pair_count; i++) {
        for (size_t k = 0; k < c.pairs[i].count; k++)
            free(c.pairs[i].seen[k].text);
        free(c.pairs[i].seen);
    }
    free(c.pairs);
    sap_batch_release(&c.a.batch);
    sap_batch_release(&c.b.batch);
    sap_selection_close(c.a.selection);
    sap_selection_close(c.b.selection);
    sap_arena_release(&arena);
    if (status == SAP_OK)
        *out = result;
    return status;
}
