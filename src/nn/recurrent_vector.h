/* The vector form of the recurrent kernels: one source, compiled once for each instruction set after kernels_vector.h.
 *
 * Weights are packed once a call into panels of a few rows (units), in the order in which products read them. A step
 * goes through the units panel by panel: the sums of all gates of those units, and at once, while they are in the
 * first-level cache, the activations and the new state. The way back is recurrent_gradient_vector.h.
 */
#include "recurrent.h"
#ifdef SAP_TILES
#include "panels_tiles.h"
#else
#include "panels_vector.h"
#endif

/* ---- Work memory ---------------------------------------------------------------------------------------- */

typedef struct recurrent_run {
    const sap_recurrent *r;
    int64_t inputs, units;
    int gates, values;    /* of the cell */
    int sums;             /* arrays of sums that a step makes from x and h; also gradients of them */
    int least[SAP_PARTS]; /* of the lengths in each SAP_COLUMNS columns */
    sap_recurrent_layout at;
    float *free;
} recurrent_run;

static float *take(recurrent_run *s, int64_t count) {
    float *p = s->free;
    s->free += (count + 15) / 16 * 16;
    return p;
}

/* The gate of W (or U) whose product goes to each sum, -1: none. GRU has the two parts of `a` apart. */
static const signed char gate_of_x[][SAP_GATES] = {[SAP_CELL_SIMPLE] = {0},
                                                   [SAP_CELL_GRU] = {0, 1, 2, -1},
                                                   [SAP_CELL_GRU_BEFORE] = {0, 1, 2},
                                                   [SAP_CELL_LSTM] = {0, 1, 2, 3}};
static const signed char gate_of_h[][SAP_GATES] = {[SAP_CELL_SIMPLE] = {0},
                                                   [SAP_CELL_GRU] = {0, 1, -1, 2},
                                                   [SAP_CELL_GRU_BEFORE] = {0, 1, -1},
                                                   [SAP_CELL_LSTM] = {0, 1, 2, 3}};

static recurrent_run begin_run(const sap_recurrent *r) {
    recurrent_run s = {.r = r,
                       .inputs = r->inputs,
                       .units = r->units,
                       .gates = sap_cell_gates(r->cell),
                       .values = sap_cell_values(r->cell),
                       .at = sap_recurrent_lay_out(r, sap_steps_columns(r->steps)),
                       .free = r->work};
    s.sums = r->cell == SAP_CELL_GRU ? 4 : s.gates;
    for (int g = 0; g < SAP_PARTS; g++) {
        s.least[g] = INT32_MAX;
        for (int c = 0; c < SAP_COLUMNS; c++) {
            int32_t length = r->steps->length[g * SAP_COLUMNS + c];
            s.least[g] = length < s.least[g] ? length : s.least[g];
        }
    }
    return s;
}

/* ---- Masks, lengths ------------------------------------------------------------------------------------- */

/* out (masks, values, width) = x (values, width) ∘ mask (masks, values, SAP_TILE) */
static void apply_masks(int masks, int64_t values, const float *mask, int64_t width, const float *x, float *out) {
    for (int m = 0; m < masks; m++)
        for (int64_t v = 0; v < values; v++, mask += SAP_TILE, out += width)
            for (int64_t c = 0; c < width; c++)
                out[c] = x[v * width + c] * mask[c];
}

/* Rows that have no step t keep what they had: next = last there. last NULL: 0. */
static void keep_ended(const recurrent_run *s, int32_t t, int64_t width, const float *last, float *next) {
    const int32_t *length = s->r->steps->length;
    for (int64_t first = 0; first < width; first += SAP_COLUMNS) {
        if (t < s->least[first / SAP_COLUMNS])
            continue;
        for (int64_t u = 0; u < s->units; u++) {
            float *to = next + u * width + first;
            for (int c = 0; c < SAP_COLUMNS; c++) {
                float kept = last ? last[u * width + first + c] : 0;
                to[c] = t < length[first + c] ? to[c] : kept;
            }
        }
    }
}

/* Whether row c ends with step t. */
INLINE bool ends_with(const sap_recurrent *r, int c, int32_t t) {
    return r->reverse ? t == 0 && r->steps->length[c] > 0 : r->steps->length[c] == t + 1;
}

/* ---- Gates ---------------------------------------------------------------------------------------------- */

INLINE void gru_gates(int64_t n, float *restrict z, float *restrict r, float *restrict a, const float *restrict u,
                      const float *restrict h, float *restrict next) {
    for (int64_t i = 0; i < n; i++) {
        float reset = sigmoid_of(r[i]), update = sigmoid_of(z[i]), value = tanh_of(a[i] + reset * u[i]);
        r[i] = reset;
        z[i] = update;
        a[i] = value;
        next[i] = value + update * (h[i] - value);
    }
}

INLINE void lstm_gates(int64_t n, float *restrict input, float *restrict forget, float *restrict a,
                       float *restrict output, float *restrict tanh_c, const float *restrict c, float *restrict next_c,
                       float *restrict next) {
    for (int64_t k = 0; k < n; k++) {
        float i = sigmoid_of(input[k]), f = sigmoid_of(forget[k]), value = tanh_of(a[k]), o = sigmoid_of(output[k]);
        float state = f * c[k] + i * value, squashed = tanh_of(state);
        input[k] = i;
        forget[k] = f;
        a[k] = value;
        output[k] = o;
        tanh_c[k] = squashed;
        next_c[k] = state;
        next[k] = o * squashed;
    }
}

/* The values of a step that a block of units works on; inputs NULL: what the activations take is not kept. */
typedef struct cell_block {
    int64_t units, width;
    float *value[5], *input[5];
    float *h, *c; /* the state before the step */
    float *next_h, *next_c;
} cell_block;

static void apply(const sap_activation *f, const cell_block *b, int k) {
    float *value = b->value[k];
    if (b->input[k])
        memcpy(b->input[k], value, (size_t)(b->units * b->width) * sizeof *value);
    if (f->kind == SAP_SOFTMAX)
        softmax(b->units, (int)b->width, value, value);
    else
        activate(f, value, value, b->units * b->width);
}

static void general_gates(const sap_recurrent *r, const cell_block *b) {
    const sap_activation *f = &r->activation, *s = &r->recurrent_activation;
    int64_t n = b->units * b->width;
    float *const *v = b->value;
    switch (r->cell) {
    case SAP_CELL_SIMPLE:
        apply(f, b, 0);
        memcpy(b->next_h, v[0], (size_t)n * sizeof(float));
        break;
    case SAP_CELL_GRU:
        apply(s, b, 0);
        apply(s, b, 1);
        for (int64_t i = 0; i < n; i++)
            v[2][i] += v[1][i] * v[3][i];
        /* fall through */
    case SAP_CELL_GRU_BEFORE:
        apply(f, b, 2);
        for (int64_t i = 0; i < n; i++)
            b->next_h[i] = v[2][i] + v[0][i] * (b->h[i] - v[2][i]);
        break;
    case SAP_CELL_LSTM:
        apply(s, b, 0);
        apply(s, b, 1);
        apply(f, b, 2);
        apply(s, b, 3);
        for (int64_t i = 0; i < n; i++)
            v[4][i] = b->next_c[i] = v[1][i] * b->c[i] + v[0][i] * v[2][i];
        apply(f, b, 4);
        for (int64_t i = 0; i < n; i++)
            b->next_h[i] = v[3][i] * v[4][i];
    }
}

/* ---- Forward -------------------------------------------------------------------------------------------- */

typedef struct forward_run {
    recurrent_run s;
    bool fused; /* the usual activations; gates are made panel by panel */
    bool whole; /* gates need the sums of all units */
    const panel_weight *x_panels, *h_panels;
    float *bias; /* (sums, units) */
    float *x_masked, *h_masked;
    float *x_space, *h_space; /* of operands */
    float *gates, *inputs;    /* those of the step in hand, where nothing is kept */
    float *h[2], *c[2];       /* likewise */
    float *spill_h, *spill_c; /* the new state, where the next step has another width */
} forward_run;

/* The sums of `count` units from `first` on. */
static void sum_gates(const forward_run *f, const cell_block *b, const panel_operand *x, const panel_operand *h,
                      int64_t first, int64_t count) {
    const recurrent_run *s = &f->s;
    const sap_recurrent *r = s->r;
    for (int k = 0; k < s->sums; k++) {
        int gx = gate_of_x[r->cell][k], gh = gate_of_h[r->cell][k];
        sum_term from_x = {0}, from_h = {0};
        if (gx >= 0)
            from_x = (sum_term){panel_depth(s->inputs), panel_at(f->x_panels, first, count, s->gates, gx, s->inputs),
                                operand_at(x, r->x_masks ? gx % r->x_masks : 0, s->inputs, b->width)};
        if (gh >= 0)
            from_h = (sum_term){panel_depth(s->units), panel_at(f->h_panels, first, count, s->gates, gh, s->units),
                                operand_at(h, r->h_masks ? gh % r->h_masks : 0, s->units, b->width)};
        sum_panel(count, from_x, from_h, f->bias + k * s->units + first, false, b->width,
                  b->value[k] + first * b->width);
    }
}

/* `count` units of a block from `first` on. */
static cell_block cut_block(const cell_block *b, int64_t first, int64_t count) {
    cell_block part = *b;
    int64_t at = first * b->width;
    part.units = count;
    for (int k = 0; k < 5; k++) {
        part.value[k] = b->value[k] ? b->value[k] + at : NULL;
        part.input[k] = b->input[k] ? b->input[k] + at : NULL;
    }
    part.h += at;
    part.next_h += at;
    part.c = b->c ? b->c + at : NULL;
    part.next_c = b->c ? b->next_c + at : NULL;
    return part;
}

/* GRU_BEFORE: z and r are ready before u can be multiplied. */
static void reset_before(const forward_run *f, const cell_block *b) {
    const recurrent_run *s = &f->s;
    const sap_recurrent *r = s->r;
    const float *h = r->h_masks ? f->h_masked + 2 % r->h_masks * s->units * b->width : b->h;
    apply(&r->recurrent_activation, b, 0);
    apply(&r->recurrent_activation, b, 1);
    for (int64_t i = 0; i < s->units * b->width; i++)
        b->value[3][i] = b->value[1][i] * h[i];
    const panel_operand *u = operands_of(1, s->units, b->width, b->value[3], f->h_space);
    for (int64_t first = 0, parts = 0, count = 0; first < s->units; first += count) {
        count = panel_of(s->units - first, &parts);
        sum_term from_u = {panel_depth(s->units), panel_at(f->h_panels, first, count, 3, 2, s->units), u};
        sum_panel(count, from_u, (sum_term){0}, NULL, true, b->width, b->value[2] + first * b->width);
    }
}

static void forward_step(const forward_run *f, const cell_block *b, const float *x) {
    const recurrent_run *s = &f->s;
    const sap_recurrent *r = s->r;
    if (r->x_masks)
        apply_masks(r->x_masks, s->inputs, r->x_mask, b->width, x, f->x_masked);
    if (r->h_masks)
        apply_masks(r->h_masks, s->units, r->h_mask, b->width, b->h, f->h_masked);
    const panel_operand *from_x =
        operands_of(r->x_masks ? r->x_masks : 1, s->inputs, b->width, r->x_masks ? f->x_masked : x, f->x_space);
    const panel_operand *from_h =
        operands_of(r->h_masks ? r->h_masks : 1, s->units, b->width, r->h_masks ? f->h_masked : b->h, f->h_space);
    for (int64_t first = 0, parts = 0, count = 0; first < s->units; first += count) {
        count = panel_of(s->units - first, &parts);
        sum_gates(f, b, from_x, from_h, first, count);
        if (f->whole)
            continue;
        cell_block part = cut_block(b, first, count);
        float *const *v = part.value;
        if (f->fused && r->cell == SAP_CELL_GRU)
            gru_gates(count * b->width, v[0], v[1], v[2], v[3], part.h, part.next_h);
        else if (f->fused && r->cell == SAP_CELL_LSTM)
            lstm_gates(count * b->width, v[0], v[1], v[2], v[3], v[4], part.c, part.next_c, part.next_h);
        else
            general_gates(r, &part);
    }
    if (!f->whole)
        return;
    if (r->cell == SAP_CELL_GRU_BEFORE)
        reset_before(f, b);
    general_gates(r, b);
}

/* Where the values of the step at `p` stand, and the state before it; the new state goes to the next step's place, or,
 * where that has another width, aside. */
static cell_block place_block(const forward_run *f, int32_t i, sap_step_place p, bool same, sap_step_place next) {
    const recurrent_run *s = &f->s;
    const sap_recurrent *r = s->r;
    int64_t step = s->units * p.width, at = p.start * s->units;
    cell_block b = {.units = s->units, .width = p.width};
    for (int k = 0; k < s->values; k++) {
        b.value[k] = (r->kept ? r->kept + s->at.gates + at * s->values : f->gates) + k * step;
        b.input[k] = r->kept && s->at.inputs >= 0 ? r->kept + s->at.inputs + at * s->values + k * step : NULL;
    }
    b.h = r->kept ? r->kept + s->at.h + at : f->h[i % 2];
    b.next_h = !same ? f->spill_h : r->kept ? r->kept + s->at.h + next.start * s->units : f->h[(i + 1) % 2];
    if (r->cell == SAP_CELL_LSTM) {
        b.c = r->kept ? r->kept + s->at.c + at : f->c[i % 2];
        b.next_c = !same ? f->spill_c : r->kept ? r->kept + s->at.c + next.start * s->units : f->c[(i + 1) % 2];
    }
    return b;
}

/* The new state of a step, to where it is wanted. */
static void hand_out(const recurrent_run *s, const cell_block *b, sap_step_place p, int32_t t) {
    const sap_recurrent *r = s->r;
    if (r->y)
        memcpy(r->y + p.start * r->y_values + r->y_first * p.width, b->next_h,
               (size_t)(s->units * p.width) * sizeof(float));
    for (int c = 0; r->last && c < p.width; c++)
        if (ends_with(r, c, t))
            for (int64_t u = 0; u < s->units; u++)
                r->last[u * r->last_width + c] = b->next_h[u * p.width + c];
}

static forward_run begin_forward(const sap_recurrent *r) {
    forward_run f = {.s = begin_run(r)};
    recurrent_run *s = &f.s;
    int64_t units = s->units, gates = s->gates, state = units * SAP_TILE;
    f.fused = r->activation.kind == SAP_TANH && r->recurrent_activation.kind == SAP_SIGMOID;
    f.whole = r->cell == SAP_CELL_GRU_BEFORE || r->activation.kind == SAP_SOFTMAX ||
              r->recurrent_activation.kind == SAP_SOFTMAX;
    panel_weight *x_panels = (panel_weight *)(void *)take(s, panel_floats(units, s->gates, s->inputs));
    panel_weight *h_panels = (panel_weight *)(void *)take(s, panel_floats(units, s->gates, units));
    pack_panels(units, s->gates, s->inputs, r->kernel, units, 1, gates * units, x_panels);
    pack_panels(units, s->gates, units, r->recurrent_kernel, units, 1, gates * units, h_panels);
    f.x_panels = x_panels;
    f.h_panels = h_panels;
    f.bias = take(s, s->sums * units);
    for (int k = 0; k < s->sums; k++) {
        int gx = gate_of_x[r->cell][k], gh = r->cell == SAP_CELL_GRU ? gate_of_h[r->cell][k] : -1;
        for (int64_t u = 0; u < units; u++)
            f.bias[k * units + u] =
                r->bias ? (gx >= 0 ? r->bias[gx * units + u] : 0) + (gh >= 0 ? r->bias[(gates + gh) * units + u] : 0)
                        : 0;
    }
    f.x_masked = take(s, r->x_masks * s->inputs * SAP_TILE);
    f.h_masked = take(s, r->h_masks * state);
    f.x_space = take(s, operand_floats(r->x_masks ? r->x_masks : 1, s->inputs));
    f.h_space = take(s, operand_floats(r->h_masks ? r->h_masks : 1, units));
    f.gates = take(s, s->values * state);
    for (int i = 0; i < 2; i++) {
        f.h[i] = take(s, state);
        f.c[i] = take(s, state);
    }
    f.spill_h = take(s, state);
    f.spill_c = take(s, state);
    return f;
}

static void recurrent_forward(const sap_recurrent *r) {
    forward_run f = begin_forward(r);
    const recurrent_run *s = &f.s;
    int32_t count = r->steps->count;
    panels_begin();
    if (r->last)
        memset(r->last, 0, (size_t)(s->units * r->last_width) * sizeof(float));
    for (int32_t i = 0; i < count; i++) {
        int32_t t = r->reverse ? count - 1 - i : i;
        bool more = i + 1 < count;
        sap_step_place p = sap_steps_place(r->steps, t), next = p;
        if (more)
            next = sap_steps_place(r->steps, r->reverse ? t - 1 : t + 1);
        bool same = more && next.width == p.width;
        cell_block b = place_block(&f, i, p, same, next);
        if (i == 0)
            memset(b.h, 0, (size_t)(s->units * p.width) * sizeof(float));
        if (i == 0 && b.c)
            memset(b.c, 0, (size_t)(s->units * p.width) * sizeof(float));
        forward_step(&f, &b, r->x + p.start * s->inputs);
        keep_ended(s, t, p.width, b.h, b.next_h);
        if (b.c)
            keep_ended(s, t, p.width, b.c, b.next_c);
        hand_out(s, &b, p, t);
        if (more && !same) {
            cell_block to = place_block(&f, i + 1, next, true, next);
            sap_columns_copy(s->units, p.width, b.next_h, next.width, to.h);
            if (b.c)
                sap_columns_copy(s->units, p.width, b.next_c, next.width, to.c);
        }
    }
    panels_end();
}

#include "recurrent_gradient_vector.h"
