/* Tests one layer alone: what it does to a tile, against its formula in double precision, row by row, and against
 * finite differences of that formula. Tiles are regular or ragged, with masks or without; columns that do not count
 * hold numbers that must make no difference. */
#ifndef LAYER_TEST_H
#define LAYER_TEST_H

#include "nn_test.h"

#include <math.h>

enum { USE_INPUTS = 3, USE_ROWS = 21, USE_NUMBERS = 4096 };

typedef struct layer_use layer_use;

/* One row of the output, (steps, values), from rows of the inputs, (steps, values) each, and the weights. */
typedef void (*layer_formula)(const layer_use *use, int row, const double *const *x, const double *w, double *y);

struct layer_use {
    sap_arena arena;
    sap_layer layer;
    sap_pass pass;
    sap_call call;
    layer_formula formula;
    sap_shape shape[USE_INPUTS], y_shape; /* as long as the longest row */
    sap_steps steps[USE_INPUTS], y_steps;
    uint8_t *mask[USE_INPUTS];
    float *x[USE_INPUTS], *dx[USE_INPUTS], *values, *gradients;
    int64_t value_count;
    bool unwanted; /* the gradient of the first input is not asked for */
    /* what the call points to */
    const float *x_[USE_INPUTS];
    float *dx_[USE_INPUTS];
    bool add_[USE_INPUTS];
    const sap_shape *shape_[USE_INPUTS];
    const sap_steps *steps_[USE_INPUTS];
    const uint8_t *mask_[USE_INPUTS];
};

static uint64_t use_counter;

static inline float use_number(void) {
    return (float)(2 * sap_unit(sap_mix(77, use_counter++)) - 1);
}

static inline float *use_numbers(int64_t count) {
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        p[i] = use_number();
    return p;
}

/* Steps for rows of given lengths; NULL: all `count`. */
static inline void use_make_steps(sap_steps *s, int64_t count, const int32_t *length) {
    *s = (sap_steps){0};
    for (int r = 0; r < USE_ROWS; r++) {
        s->length[r] = length ? length[r] : (int32_t)count;
        s->count = s->length[r] > s->count ? s->length[r] : s->count;
    }
    int64_t start = 0;
    for (int32_t t = 0; t < s->count; t++) {
        int highest = 0;
        for (int r = 0; r < USE_ROWS; r++)
            highest = s->length[r] > t ? r : highest;
        int32_t width = length ? (highest + SAP_COLUMNS) / SAP_COLUMNS * SAP_COLUMNS : 32;
        if (s->part_count == 0 || s->parts[s->part_count - 1].width != width)
            s->parts[s->part_count++] = (sap_part){t, 0, width, start};
        s->parts[s->part_count - 1].count++;
        start += width;
    }
}

static inline int64_t use_columns(const sap_shape *shape, const sap_steps *steps) {
    return shape->rank > 1 ? sap_steps_columns(steps) : 32;
}

/* Where value v of step t of a row stands; *there: whether the row has it. */
static inline int64_t use_at(const sap_shape *shape, const sap_steps *steps, int row, int64_t t, int64_t v) {
    if (shape->rank < 2)
        return v * 32 + row;
    int p = 0;
    while (p + 1 < steps->part_count && steps->parts[p + 1].first <= t)
        p++;
    const sap_part *part = &steps->parts[p];
    return (part->start + (t - part->first) * part->width) * sap_shape_step_values(shape) + v * part->width + row;
}

static inline int64_t use_length(const sap_shape *shape, const sap_steps *steps, int row) {
    return shape->rank > 1 ? steps->length[row] : 1;
}

/* length: (inputs) of rows, NULL or NULL entries: all steps. */
static inline layer_use *use_open(const char *name, const char *config, int32_t inputs, const sap_shape *shapes,
                                  const int32_t *const *length, layer_formula formula) {
    sap_error error;
    layer_use *u = calloc(1, sizeof *u);
    assert_non_null(u);
    const sap_layer_class *class_of = sap_layer_class_find(name);
    assert_non_null(class_of);
    u->layer = (sap_layer){.class_of = class_of, .name = name, .where = name, .trainable = true, .key = 3};
    u->layer.padding = class_of->padding;
    u->layer.arena = &u->arena;
    json_t *json = json_loads(config, 0, NULL);
    assert_non_null(json);
    if (class_of->parse)
        assert_ok(class_of->parse(&u->layer, json, &error));
    json_decref(json);
    for (int32_t i = 0; i < inputs; i++) {
        u->shape[i] = shapes[i];
        use_make_steps(&u->steps[i], shapes[i].dims[0], length ? length[i] : NULL);
    }
    u->y_shape = shapes[0];
    if (class_of->build)
        assert_ok(class_of->build(&u->layer, shapes, inputs, true, &u->y_shape, &error));
    bool same = u->y_shape.rank > 1 && length && length[0] && u->y_shape.dims[0] == shapes[0].dims[0];
    use_make_steps(&u->y_steps, u->y_shape.dims[0], same ? length[0] : NULL);
    for (int32_t w = 0; w < u->layer.weight_count; w++) {
        u->layer.weights[w].offset = u->value_count;
        u->value_count += sap_shape_values(&u->layer.weights[w].shape);
    }
    u->values = use_numbers(u->value_count + 1);
    u->gradients = use_numbers(u->value_count + 1);
    u->formula = formula;
    u->call = (sap_call){.layer = &u->layer, .pass = &u->pass, .input_count = inputs, .x = u->x_, .dx = u->dx_};
    u->call.add = u->add_;
    u->call.x_shape = u->shape_;
    u->call.shape = &u->y_shape;
    u->call.x_steps = u->steps_;
    u->call.y_steps = u->y_shape.rank > 1 ? &u->y_steps : NULL;
    u->call.x_mask = u->mask_;
    for (int32_t i = 0; i < inputs; i++) {
        u->x_[i] = u->x[i] = use_numbers(sap_shape_step_values(&shapes[i]) * use_columns(&shapes[i], &u->steps[i]));
        u->shape_[i] = &u->shape[i];
        u->steps_[i] = shapes[i].rank > 1 ? &u->steps[i] : NULL;
    }
    return u;
}

static inline void use_close(layer_use *u) {
    for (int i = 0; i < USE_INPUTS; i++) {
        free(u->x[i]);
        free(u->mask[i]);
    }
    free(u->values);
    free(u->gradients);
    sap_arena_release(&u->arena);
    free(u);
}

/* Masks some steps of an input; at least the first of each row counts where `some`. */
static inline void use_mask(layer_use *u, int32_t input, bool some) {
    int64_t columns = sap_steps_columns(&u->steps[input]);
    u->mask[input] = malloc((size_t)columns);
    for (int64_t c = 0; c < columns; c++)
        u->mask[input][c] = (some && c < 32) || sap_mix(5, use_counter++) % 3 > 0;
    u->mask_[input] = u->mask[input];
}

static inline bool use_counts(const layer_use *u, int32_t input, int row, int64_t t) {
    const sap_shape scalar = {2, {u->shape[input].dims[0], 1}};
    return !u->mask[input] || u->mask[input][use_at(&scalar, &u->steps[input], row, t, 0)];
}

/* ---- The formula ---------------------------------------------------------------------------------------- */

/* Rows of the inputs in double precision; number `place` of input `moved` (or of the weights: -1) is larger by h. */
static inline double use_loss(const layer_use *u, const float *dy, int row, int moved, int64_t place, double h,
                              double *y) {
    static double rows[USE_INPUTS][USE_NUMBERS], weights[USE_NUMBERS];
    const double *x[USE_INPUTS];
    for (int32_t i = 0; i < u->call.input_count; i++) {
        int64_t values = sap_shape_step_values(&u->shape[i]);
        for (int64_t n = 0; n < use_length(&u->shape[i], &u->steps[i], row) * values; n++)
            rows[i][n] = (double)u->x[i][use_at(&u->shape[i], &u->steps[i], row, n / values, n % values)] +
                         (moved == i && n == place ? h : 0);
        x[i] = rows[i];
    }
    for (int64_t n = 0; n < u->value_count; n++)
        weights[n] = (double)u->values[n] + (moved == -1 && n == place ? h : 0);
    u->formula(u, row, x, weights, y);
    int64_t values = sap_shape_step_values(&u->y_shape);
    double loss = 0;
    for (int64_t n = 0; dy && n < use_length(&u->y_shape, &u->y_steps, row) * values; n++)
        loss += y[n] * (double)dy[use_at(&u->y_shape, &u->y_steps, row, n / values, n % values)];
    return loss;
}

static inline double use_slope(const layer_use *u, const float *dy, int row, int moved, int64_t place) {
    static double y[USE_NUMBERS];
    double h = 1e-5;
    return (use_loss(u, dy, row, moved, place, h, y) - use_loss(u, dy, row, moved, place, -h, y)) / (2 * h);
}

/* ---- The check ------------------------------------------------------------------------------------------ */

static inline void use_near(const layer_use *u, const char *what, int row, int64_t n, double found, double wanted,
                            double tolerance) {
    if (!(fabs(found - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%s with %s: %s of row %d, number %lld is %.9g, not %.9g", u->layer.class_of->name,
                 u->pass.kernels->name, what, row, (long long)n, found, wanted);
}

static inline void use_compare(const layer_use *u, const float *y, const float *dy, float *const *base) {
    static double wanted[USE_NUMBERS];
    int64_t values = sap_shape_step_values(&u->y_shape);
    for (int row = 0; row < USE_ROWS; row++) {
        (void)use_loss(u, NULL, row, -2, 0, 0, wanted);
        for (int64_t n = 0; n < use_length(&u->y_shape, &u->y_steps, row) * values; n++)
            use_near(u, "output", row, n, (double)y[use_at(&u->y_shape, &u->y_steps, row, n / values, n % values)],
                     wanted[n], 4e-6);
        for (int32_t i = 0; i < u->call.input_count; i++) {
            int64_t in = sap_shape_step_values(&u->shape[i]), count = use_length(&u->shape[i], &u->steps[i], row) * in;
            for (int64_t n = row % 3; u->dx_[i] && n<count; n += count> 40 ? 7 : 1) {
                int64_t at = use_at(&u->shape[i], &u->steps[i], row, n / in, n % in);
                use_near(u, "gradient", row, n, (double)u->dx[i][at] - (u->add_[i] ? (double)base[i][at] : 0),
                         use_slope(u, dy, row, i, n), 3e-5);
            }
        }
    }
    for (int64_t n = 0; n<u->value_count; n += u->value_count> 40 ? 3 : 1) {
        double slope = 0;
        for (int row = 0; row < USE_ROWS; row++)
            slope += use_slope(u, dy, row, -1, n);
        use_near(u, "weights' gradient", -1, n, (double)u->gradients[n], slope, 1e-4);
    }
}

/* Gradients that nothing may reach. */
static inline void use_check_rest(const layer_use *u) {
    for (int32_t i = 0; i < u->call.input_count; i++) {
        int64_t values = sap_shape_step_values(&u->shape[i]);
        for (int64_t t = 0; u->dx_[i] && !u->add_[i] && t < (u->shape[i].rank > 1 ? u->steps[i].count : 1); t++) {
            int p = 0, width = 32;
            while (u->shape[i].rank > 1 && p + 1 < u->steps[i].part_count && u->steps[i].parts[p + 1].first <= t)
                p++;
            width = u->shape[i].rank > 1 ? u->steps[i].parts[p].width : width;
            for (int r = 0; r < width; r++)
                if (r >= USE_ROWS || t >= use_length(&u->shape[i], &u->steps[i], r))
                    for (int64_t v = 0; v < values; v++)
                        assert_true(u->dx[i][use_at(&u->shape[i], &u->steps[i], r, t, v)] == 0);
        }
    }
}

static inline void use_run(layer_use *u, const sap_kernels *kernels, bool add) {
    sap_needs needs = {0};
    if (u->layer.class_of->needs)
        u->layer.class_of->needs(&u->layer, u->shape_, &u->y_shape, SAP_DIFFERENTIATE, &needs);
    u->pass = (sap_pass){.kernels = kernels, .values = u->values, .gradients = u->gradients};
    u->pass.rows = USE_ROWS;
    u->pass.width = 32;
    int64_t numbers = sap_shape_step_values(&u->y_shape) * use_columns(&u->y_shape, &u->y_steps);
    float *y = use_numbers(numbers), *dy = use_numbers(numbers), *upstream = use_numbers(numbers), *base[USE_INPUTS];
    int64_t values = sap_shape_step_values(&u->y_shape);
    memset(dy, 0, (size_t)numbers * sizeof *dy);
    for (int row = 0; row < USE_ROWS; row++)
        for (int64_t n = 0; n < use_length(&u->y_shape, &u->y_steps, row) * values; n++)
            dy[use_at(&u->y_shape, &u->y_steps, row, n / values, n % values)] = use_number();
    memcpy(upstream, dy, (size_t)numbers * sizeof *dy);
    memset(u->gradients, 0, (size_t)u->value_count * sizeof *u->gradients);
    for (int32_t i = 0; i < u->call.input_count; i++) {
        int64_t count = sap_shape_step_values(&u->shape[i]) * use_columns(&u->shape[i], &u->steps[i]);
        u->dx[i] = use_numbers(count);
        u->dx_[i] = u->unwanted && i == 0 ? NULL : u->dx[i];
        base[i] = use_numbers(count);
        memcpy(base[i], u->dx[i], (size_t)count * sizeof **base);
        u->add_[i] = add;
    }
    u->call.y = y;
    u->call.dy = upstream;
    u->call.kept = needs.kept ? use_numbers(needs.kept) : NULL;
    u->call.work = use_numbers(needs.work);
    u->layer.class_of->forward(&u->call);
    u->layer.class_of->backward(&u->call);
    use_compare(u, y, dy, base);
    use_check_rest(u);
    for (int32_t i = 0; i < u->call.input_count; i++) {
        free(u->dx[i]);
        free(base[i]);
    }
    free(u->call.kept);
    free(u->call.work);
    free(upstream);
    free(dy);
    free(y);
}

/* All of it, with the plain and the best form, and closes. */
static inline void use_check(layer_use *u) {
    use_run(u, sap_kernels_at(0), false);
    use_run(u, sap_kernels_best(), true);
    use_run(u, sap_kernels_best(), false);
    use_close(u);
}

#endif
