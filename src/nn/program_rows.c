/* The rows of a batch: where the steps of each begin, how many there are, and the order in which they are taken. */
#include "program.h"

#include <stdlib.h>

enum {
    SCAN_ROWS = 16,          /* rows a step of a loop */
    FEW_ROWS = 16 * SAP_TILE /* below it sequences are taken in half tiles: threads share the long ones better */
};

void sap_rows_release(sap_rows *rows) {
    free(rows->data);
    free(rows->length);
    free(rows->packed);
    *rows = (sap_rows){0};
}

/* ---- Checks --------------------------------------------------------------------------------------------- */

static sap_status check_input(const sap_model *model, const sap_examples *e, int32_t i, sap_error *err) {
    const sap_shape *shape = &model->nodes[model->inputs[i]].shape;
    const char *name = model->input_info[i].name;
    int64_t step = sap_shape_step_values(shape), values = e->values[i];
    bool ragged = e->offsets && e->offsets[i], time = shape->rank > 1;
    if (ragged && !time)
        return sap_error_set(err, SAP_ETYPE, "%s: input \"%s\" is no sequence, the examples have one", model->name,
                             name);
    if (ragged && values != step)
        return sap_error_set(err, SAP_ETYPE, "%s: input \"%s\" takes %lld values a step, the examples have %lld",
                             model->name, name, (long long)step, (long long)values);
    if (!ragged && time && shape->dims[0] < 0 && values % step != 0)
        return sap_error_set(err, SAP_ETYPE,
                             "%s: input \"%s\" takes steps of %lld values, the examples have %lld a row", model->name,
                             name, (long long)step, (long long)values);
    if (!ragged && !(time && shape->dims[0] < 0) && values != sap_shape_values(shape))
        return sap_error_set(err, SAP_ETYPE, "%s: input \"%s\" takes %lld values a row, the examples have %lld",
                             model->name, name, (long long)sap_shape_values(shape), (long long)values);
    for (int64_t r = 0; ragged && r < e->rows; r++)
        if (e->offsets[i][r + 1] < e->offsets[i][r] || e->offsets[i][r + 1] - e->offsets[i][r] > INT32_MAX)
            return sap_error_set(err, SAP_EDATA, "%s: input \"%s\": row %lld of the examples ends before it begins",
                                 model->name, name, (long long)r);
    return SAP_OK;
}

sap_status sap_examples_check(const sap_model *model, const sap_examples *examples, sap_error *err) {
    if (examples->rows < 0 || examples->inputs != model->input_count)
        return sap_error_set(err, SAP_ETYPE, "%s: the model has %d inputs, the examples %d", model->name,
                             model->input_count, examples->inputs);
    for (int32_t i = 0; i < model->input_count; i++)
        SAP_TRY(check_input(model, examples, i, err));
    return SAP_OK;
}

/* ---- Steps of each row ---------------------------------------------------------------------------------- */

static bool make_room(sap_rows *rows, int64_t count) {
    if (count <= rows->capacity)
        return true;
    float *packed = rows->packed;
    int64_t packed_capacity = rows->packed_capacity;
    rows->packed = NULL;
    sap_rows_release(rows);
    rows->data = malloc((size_t)count * sizeof(float *));
    rows->length = malloc((size_t)count * sizeof *rows->length);
    rows->packed = packed;
    rows->packed_capacity = packed_capacity;
    rows->capacity = rows->data && rows->length ? count : 0;
    return rows->capacity > 0;
}

/* One input and its rows. */
typedef struct scan {
    sap_program *p;
    int32_t input;
    const sap_domain *domain;
    int64_t values; /* a step */
} scan;

/* Sets a row to what the examples have of it, at most the steps of the model; masked ones are still there. */
static void set_row(const scan *s, int64_t row) {
    const sap_examples *e = s->p->examples;
    const int64_t *offsets = e->offsets ? e->offsets[s->input] : NULL;
    sap_rows *rows = &s->p->rows[s->input];
    int64_t begin = offsets ? offsets[row] * s->values : row * e->values[s->input];
    int64_t length = offsets ? offsets[row + 1] - offsets[row] : e->values[s->input] / s->values;
    if (s->domain->length >= 0 && length > s->domain->length)
        length = s->domain->length;
    rows->data[row] = e->x[s->input] + begin;
    rows->length[row] = (int32_t)length;
}

static bool counts(const float *step, int64_t values, float masked) {
    for (int64_t v = 0; v < values; v++)
        if (step[v] != masked)
            return true;
    return false;
}

/* Drops masked steps at both ends of a row; a row with others in between becomes -1 - its length. */
static sap_status scan_rows(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    (void)err;
    const scan *s = context;
    sap_rows *rows = &s->p->rows[s->input];
    int64_t end = ((int64_t)index + 1) * SCAN_ROWS;
    end = end < s->p->examples->rows ? end : s->p->examples->rows;
    for (int64_t row = (int64_t)index * SCAN_ROWS; row < end; row++) {
        set_row(s, row);
        if (s->domain->dropped < 0)
            continue;
        float masked = s->p->model->masks[s->domain->dropped].value;
        const float *x = rows->data[row];
        int64_t length = rows->length[row], first = 0, kept = 0;
        while (length > 0 && !counts(x + (length - 1) * s->values, s->values, masked))
            length--;
        while (first < length && !counts(x + first * s->values, s->values, masked))
            first++;
        for (int64_t t = first; t < length; t++)
            kept += counts(x + t * s->values, s->values, masked);
        rows->data[row] = x + first * s->values;
        rows->length[row] = (int32_t)(kept == length - first ? kept : -1 - (length - first));
    }
    return SAP_OK;
}

/* Copies the rows with masked steps in between, without those. */
static sap_status pack_rows(const scan *s, sap_error *err) {
    sap_rows *rows = &s->p->rows[s->input];
    int64_t needed = 0;
    for (int64_t row = 0; row < s->p->examples->rows; row++)
        needed += rows->length[row] < 0 ? (-1 - (int64_t)rows->length[row]) * s->values : 0;
    if (needed > rows->packed_capacity) {
        free(rows->packed);
        rows->packed = malloc((size_t)needed * sizeof(float));
        rows->packed_capacity = rows->packed ? needed : 0;
        if (!rows->packed)
            return sap_error_memory(err, s->p->model->name);
    }
    float *to = rows->packed;
    for (int64_t row = 0; row < s->p->examples->rows; row++) {
        if (rows->length[row] >= 0)
            continue;
        float masked = s->p->model->masks[s->domain->dropped].value;
        const float *x = rows->data[row];
        int64_t length = -1 - (int64_t)rows->length[row], kept = 0;
        rows->data[row] = to;
        for (int64_t t = 0; t < length; t++, x += s->values) {
            if (!counts(x, s->values, masked))
                continue;
            memcpy(to, x, (size_t)s->values * sizeof *to);
            to += s->values;
            kept++;
        }
        rows->length[row] = (int32_t)kept;
    }
    return SAP_OK;
}

static sap_status find_rows(sap_program *p, int32_t input, sap_error *err) {
    const sap_node *node = &p->model->nodes[p->model->inputs[input]];
    scan s = {p, input, &p->model->domains[node->domain], sap_shape_step_values(&node->shape)};
    int64_t rows = p->examples->rows;
    if (rows == 0)
        return SAP_OK;
    if (!make_room(&p->rows[input], rows))
        return sap_error_memory(err, p->model->name);
    sap_run run = p->run;
    if (rows <= SCAN_ROWS || s.domain->dropped < 0)
        run.pool = NULL;
    SAP_TRY(sap_loop(&run, (size_t)((rows + SCAN_ROWS - 1) / SCAN_ROWS), scan_rows, &s, err));
    SAP_TRY(pack_rows(&s, err));
    for (int64_t row = 0; row < rows; row++)
        if (p->rows[input].length[row] > p->longest[node->domain])
            p->longest[node->domain] = p->rows[input].length[row];
    return SAP_OK;
}

/* ---- Order and tiles ------------------------------------------------------------------------------------ */

typedef struct place {
    int64_t group, steps, row;
} place;

static int longest_first(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->steps != y->steps)
        return x->steps < y->steps ? 1 : -1;
    return x->row < y->row ? -1 : 1;
}

static int32_t group_of(const sap_program *p, int64_t row) {
    return p->share.shards[row] * p->share.groups / SAP_DATASET_SHARDS - p->share.group_from;
}

static sap_status sort_rows(sap_program *p, sap_error *err) {
    int64_t count = p->examples->rows;
    place *places = malloc(((size_t)count + 1) * sizeof *places);
    if (places && count > p->order_capacity) {
        free(p->order);
        p->order = malloc((size_t)count * sizeof *p->order);
        p->order_capacity = p->order ? count : 0;
    }
    if (!places || count > p->order_capacity) {
        free(places);
        return sap_error_memory(err, p->model->name);
    }
    for (int64_t row = 0; row < count; row++)
        places[row] = (place){.group = p->share.groups ? group_of(p, row) : 0, .row = row};
    for (int32_t d = 0; d < p->model->domain_count; d++)
        for (int64_t row = 0; p->model->domains[d].ragged && row < count; row++)
            places[row].steps += p->rows[p->model->domains[d].input].length[row];
    qsort(places, (size_t)count, sizeof *places, longest_first);
    for (int64_t i = 0; i < count; i++)
        p->order[i] = places[i].row;
    free(places);
    return SAP_OK;
}

/* Tiles of each group by itself; a slice is a group. */
static sap_status cut_groups(sap_program *p, sap_error *err) {
    int64_t rows = p->examples->rows, at = 0, most = p->tile_count + SAP_SLICES;
    if (most + 1 > p->tile_capacity) {
        free(p->tile_first);
        p->tile_first = malloc((size_t)(most + 1) * sizeof *p->tile_first);
        p->tile_capacity = p->tile_first ? most + 1 : 0;
        if (!p->tile_first)
            return sap_error_memory(err, p->model->name);
    }
    p->slice_count = p->share.group_to - p->share.group_from;
    p->tile_count = 0;
    for (int32_t group = 0; group < p->slice_count; group++) {
        p->slice_tiles[group] = p->tile_count;
        int64_t end = at;
        while (end < rows && group_of(p, p->order[end]) == group)
            end++;
        for (; at < end; at += p->tile)
            p->tile_first[p->tile_count++] = at;
        at = end;
    }
    p->slice_tiles[p->slice_count] = p->tile_count;
    p->tile_first[p->tile_count] = rows;
    return SAP_OK;
}

sap_status sap_program_take(sap_program *p, sap_error *err) {
    const sap_model *model = p->model;
    for (int32_t d = 0; d < model->domain_count; d++)
        p->longest[d] = model->domains[d].ragged || model->domains[d].length < 0 ? 0 : model->domains[d].length;
    for (int32_t i = 0; i < model->input_count; i++)
        if (model->nodes[model->inputs[i]].domain >= 0)
            SAP_TRY(find_rows(p, i, err));
    SAP_TRY(sap_share_longest(p, err));
    if (p->ragged || p->share.groups)
        SAP_TRY(sort_rows(p, err));
    p->tile = p->model->domain_count && sap_program_batch(p) < FEW_ROWS ? SAP_TILE / 2 : SAP_TILE;
    p->tile_count = (p->examples->rows + p->tile - 1) / p->tile;
    return p->share.groups ? cut_groups(p, err) : SAP_OK;
}
