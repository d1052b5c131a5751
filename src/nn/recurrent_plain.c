/* The plain form of the recurrent kernels, row by row and step by step: the reference for the vector forms. */
#include "recurrent.h"

#include <string.h>

extern const sap_kernels sap_kernels_plain;

/* One row of a tile at one step; vectors over the units. */
typedef struct row_step {
    const sap_recurrent *r;
    int row;
    sap_step_place p;
    sap_recurrent_layout at;
    float *value[5], *input[5]; /* as in `kept` */
    float *h, *c, *next_h, *next_c;
} row_step;

/* ---- Numbers of the tile -------------------------------------------------------------------------------- */

static float x_of(const row_step *s, int gate, int64_t k) {
    const sap_recurrent *r = s->r;
    float x = r->x[s->p.start * r->inputs + k * s->p.width + s->row];
    return r->x_masks ? x * r->x_mask[(gate % r->x_masks * r->inputs + k) * SAP_TILE + s->row] : x;
}

static float h_mask_of(const row_step *s, int gate, int64_t k) {
    const sap_recurrent *r = s->r;
    return r->h_masks ? r->h_mask[(gate % r->h_masks * r->units + k) * SAP_TILE + s->row] : 1;
}

/* Copies a vector of the row to or from `kept`, where array k of `arrays` begins at `at`. */
static void keep(const row_step *s, int64_t at, int arrays, int k, float *vector, bool store) {
    const sap_recurrent *r = s->r;
    float *kept = r->kept + at + (s->p.start * arrays + (int64_t)k * s->p.width) * r->units + s->row;
    for (int64_t u = 0; u < r->units; u++) {
        if (store)
            kept[u * s->p.width] = vector[u];
        else
            vector[u] = kept[u * s->p.width];
    }
}

static void keep_all(const row_step *s, bool store) {
    int values = sap_cell_values(s->r->cell);
    for (int k = 0; k < values; k++) {
        keep(s, s->at.gates, values, k, s->value[k], store);
        if (s->at.inputs >= 0)
            keep(s, s->at.inputs, values, k, s->input[k], store);
    }
    keep(s, s->at.h, 1, 0, s->h, store);
    if (s->at.c >= 0)
        keep(s, s->at.c, 1, 0, s->c, store);
}

static row_step begin_row(const sap_recurrent *r, int row) {
    row_step s = {.r = r, .row = row, .at = sap_recurrent_lay_out(r, sap_steps_columns(r->steps))};
    float *free = r->work;
    for (int k = 0; k < 5; k++) {
        s.value[k] = free;
        s.input[k] = free + r->units;
        free += 2 * r->units;
    }
    s.h = free;
    s.c = free + r->units;
    s.next_h = free + 2 * r->units;
    s.next_c = free + 3 * r->units;
    return s;
}

/* ---- The cell ------------------------------------------------------------------------------------------- */

/* Wg x + bg */
static float from_x(const row_step *s, int gate, int64_t u) {
    const sap_recurrent *r = s->r;
    int64_t all = sap_cell_gates(r->cell) * r->units, column = gate * r->units + u;
    float sum = r->bias ? r->bias[column] : 0;
    for (int64_t k = 0; k < r->inputs; k++)
        sum += r->kernel[k * all + column] * x_of(s, gate, k);
    return sum;
}

/* Ug h, and of GRU + cg */
static float from_h(const row_step *s, int gate, int64_t u, const float *h) {
    const sap_recurrent *r = s->r;
    int64_t all = sap_cell_gates(r->cell) * r->units, column = gate * r->units + u;
    float sum = r->bias && r->cell == SAP_CELL_GRU ? r->bias[all + column] : 0;
    for (int64_t k = 0; k < r->units; k++)
        sum += r->recurrent_kernel[k * all + column] * h[k] * h_mask_of(s, gate, k);
    return sum;
}

static void activate_plain(const row_step *s, const sap_activation *f, int k) {
    memcpy(s->input[k], s->value[k], (size_t)s->r->units * sizeof(float));
    if (f->kind == SAP_SOFTMAX)
        sap_kernels_plain.softmax(s->r->units, 1, s->input[k], s->value[k]);
    else
        sap_kernels_plain.activate(f, s->input[k], s->value[k], s->r->units);
}

/* d = d · da/dz of value k */
static void differentiate_plain(const row_step *s, const sap_activation *f, int k, float *d) {
    if (f->kind == SAP_SOFTMAX)
        sap_kernels_plain.softmax_gradient(s->r->units, 1, s->value[k], d);
    else
        sap_kernels_plain.activate_gradient(f, s->input[k], s->value[k], d, s->r->units);
}

static void step_simple(const row_step *s) {
    for (int64_t u = 0; u < s->r->units; u++)
        s->value[0][u] = from_x(s, 0, u) + from_h(s, 0, u, s->h);
    activate_plain(s, &s->r->activation, 0);
    memcpy(s->next_h, s->value[0], (size_t)s->r->units * sizeof(float));
}

static void step_gru(const row_step *s) {
    const sap_recurrent *r = s->r;
    float *z = s->value[0], *reset = s->value[1], *a = s->value[2], *v = s->value[3];
    for (int64_t u = 0; u < r->units; u++) {
        z[u] = from_x(s, 0, u) + from_h(s, 0, u, s->h);
        reset[u] = from_x(s, 1, u) + from_h(s, 1, u, s->h);
    }
    activate_plain(s, &r->recurrent_activation, 0);
    activate_plain(s, &r->recurrent_activation, 1);
    for (int64_t u = 0; u < r->units; u++)
        v[u] = r->cell == SAP_CELL_GRU ? from_h(s, 2, u, s->h) : reset[u] * s->h[u];
    for (int64_t u = 0; u < r->units; u++)
        a[u] = from_x(s, 2, u) + (r->cell == SAP_CELL_GRU ? reset[u] * v[u] : from_h(s, 2, u, v));
    activate_plain(s, &r->activation, 2);
    for (int64_t u = 0; u < r->units; u++)
        s->next_h[u] = z[u] * s->h[u] + (1 - z[u]) * a[u];
}

static void step_lstm(const row_step *s) {
    const sap_recurrent *r = s->r;
    float *const *v = s->value;
    for (int g = 0; g < 4; g++) {
        for (int64_t u = 0; u < r->units; u++)
            v[g][u] = from_x(s, g, u) + from_h(s, g, u, s->h);
        activate_plain(s, g == 2 ? &r->activation : &r->recurrent_activation, g);
    }
    for (int64_t u = 0; u < r->units; u++)
        v[4][u] = s->next_c[u] = v[1][u] * s->c[u] + v[0][u] * v[2][u];
    activate_plain(s, &r->activation, 4);
    for (int64_t u = 0; u < r->units; u++)
        s->next_h[u] = v[3][u] * v[4][u];
}

/* ---- Forward -------------------------------------------------------------------------------------------- */

static void store_y(const row_step *s, const float *h) {
    const sap_recurrent *r = s->r;
    for (int64_t u = 0; r->y && u < r->units; u++)
        r->y[s->p.start * r->y_values + (r->y_first + u) * s->p.width + s->row] = h ? h[u] : 0;
}

static void forward_row(const sap_recurrent *r, int row) {
    row_step s = begin_row(r, row);
    int32_t length = r->steps->length[row];
    memset(s.h, 0, (size_t)r->units * sizeof(float));
    memset(s.c, 0, (size_t)r->units * sizeof(float));
    for (int32_t i = 0; i < length; i++) {
        s.p = sap_steps_place(r->steps, r->reverse ? length - 1 - i : i);
        if (r->cell == SAP_CELL_SIMPLE)
            step_simple(&s);
        else if (r->cell == SAP_CELL_LSTM)
            step_lstm(&s);
        else
            step_gru(&s);
        if (r->kept)
            keep_all(&s, true);
        store_y(&s, s.next_h);
        memcpy(s.h, s.next_h, (size_t)r->units * sizeof(float));
        memcpy(s.c, s.next_c, (size_t)r->units * sizeof(float));
    }
    for (int64_t u = 0; r->last && row < r->last_width && u < r->units; u++)
        r->last[u * r->last_width + row] = s.h[u];
    for (int32_t t = length; t < r->steps->count; t++) {
        s.p = sap_steps_place(r->steps, t);
        if (row < s.p.width)
            store_y(&s, NULL);
    }
}

static void forward(const sap_recurrent *r) {
    for (int row = 0; row < SAP_TILE; row++)
        forward_row(r, row);
}

/* ---- Backward ------------------------------------------------------------------------------------------- */

/* The sums of gate g had the gradient d: what that makes of the gradients of weights, of x, and of h, which stood at
 * the right of Ug; dh is added to. dc: the gradient of Ug h + cg, which in a GRU may differ from d. */
static void gate_gradients(const row_step *s, int g, const float *d, const float *dc, const float *h, float *dh) {
    const sap_recurrent *r = s->r;
    int64_t all = sap_cell_gates(r->cell) * r->units;
    for (int64_t u = 0; u < r->units; u++) {
        int64_t column = g * r->units + u;
        for (int64_t k = 0; k < r->inputs; k++) {
            if (r->d_kernel)
                r->d_kernel[k * all + column] += d[u] * x_of(s, g, k);
            if (r->dx) {
                float mask = r->x_masks ? r->x_mask[(g % r->x_masks * r->inputs + k) * SAP_TILE + s->row] : 1;
                r->dx[s->p.start * r->inputs + k * s->p.width + s->row] += d[u] * r->kernel[k * all + column] * mask;
            }
        }
        for (int64_t k = 0; k < r->units; k++) {
            if (r->d_kernel)
                r->d_recurrent_kernel[k * all + column] += dc[u] * h[k] * h_mask_of(s, g, k);
            dh[k] += dc[u] * r->recurrent_kernel[k * all + column] * h_mask_of(s, g, k);
        }
        if (r->d_kernel && r->d_bias) {
            r->d_bias[column] += d[u];
            if (r->cell == SAP_CELL_GRU)
                r->d_bias[all + column] += dc[u];
        }
    }
}

/* Each turns dh (and dc) after a step into that before it; d: 5 vectors to work with. */

static void back_simple(const row_step *s, float *dh, float *const *d) {
    memcpy(d[0], dh, (size_t)s->r->units * sizeof(float));
    memset(dh, 0, (size_t)s->r->units * sizeof(float));
    differentiate_plain(s, &s->r->activation, 0, d[0]);
    gate_gradients(s, 0, d[0], d[0], s->h, dh);
}

static void back_gru(const row_step *s, float *dh, float *const *d) {
    const sap_recurrent *r = s->r;
    const float *z = s->value[0], *reset = s->value[1], *a = s->value[2], *v = s->value[3];
    float *dz = d[0], *dr = d[1], *da = d[2], *dv = d[3];
    for (int64_t u = 0; u < r->units; u++) {
        dz[u] = dh[u] * (s->h[u] - a[u]);
        da[u] = dh[u] * (1 - z[u]);
        dh[u] *= z[u];
    }
    differentiate_plain(s, &r->activation, 2, da);
    if (r->cell == SAP_CELL_GRU) {
        for (int64_t u = 0; u < r->units; u++) {
            dr[u] = da[u] * v[u];
            dv[u] = da[u] * reset[u];
        }
        gate_gradients(s, 2, da, dv, s->h, dh);
    } else {
        memset(dv, 0, (size_t)r->units * sizeof(float));
        gate_gradients(s, 2, da, da, v, dv);
        for (int64_t u = 0; u < r->units; u++) {
            dr[u] = dv[u] * s->h[u];
            dh[u] += dv[u] * reset[u];
        }
    }
    differentiate_plain(s, &r->recurrent_activation, 0, dz);
    differentiate_plain(s, &r->recurrent_activation, 1, dr);
    gate_gradients(s, 0, dz, dz, s->h, dh);
    gate_gradients(s, 1, dr, dr, s->h, dh);
}

static void back_lstm(const row_step *s, float *dh, float *dc, float *const *d) {
    const sap_recurrent *r = s->r;
    float *const *v = s->value;
    for (int64_t u = 0; u < r->units; u++) {
        d[3][u] = dh[u] * v[4][u];
        d[4][u] = dh[u] * v[3][u];
    }
    differentiate_plain(s, &r->activation, 4, d[4]);
    for (int64_t u = 0; u < r->units; u++) {
        dc[u] += d[4][u];
        d[0][u] = dc[u] * v[2][u];
        d[1][u] = dc[u] * s->c[u];
        d[2][u] = dc[u] * v[0][u];
        dc[u] *= v[1][u];
        dh[u] = 0;
    }
    for (int g = 0; g < 4; g++) {
        differentiate_plain(s, g == 2 ? &r->activation : &r->recurrent_activation, g, d[g]);
        gate_gradients(s, g, d[g], d[g], s->h, dh);
    }
}

static void backward_row(const sap_recurrent *r, int row) {
    row_step s = begin_row(r, row);
    int32_t length = r->steps->length[row];
    float *dh = s.next_h, *dc = s.next_c, *d[5];
    for (int k = 0; k < 5; k++)
        d[k] = s.next_c + (k + 1) * r->units;
    for (int64_t u = 0; u < r->units; u++) {
        dh[u] = r->d_last && row < r->last_width ? r->d_last[u * r->last_width + row] : 0;
        dc[u] = 0;
    }
    for (int32_t i = length - 1; i >= 0; i--) {
        s.p = sap_steps_place(r->steps, r->reverse ? length - 1 - i : i);
        keep_all(&s, false);
        for (int64_t u = 0; r->dy && u < r->units; u++)
            dh[u] += r->dy[s.p.start * r->y_values + (r->y_first + u) * s.p.width + row];
        if (r->cell == SAP_CELL_SIMPLE)
            back_simple(&s, dh, d);
        else if (r->cell == SAP_CELL_LSTM)
            back_lstm(&s, dh, dc, d);
        else
            back_gru(&s, dh, d);
    }
}

static void backward(const sap_recurrent *r) {
    if (r->dx && !r->add)
        memset(r->dx, 0, (size_t)(sap_steps_columns(r->steps) * r->inputs) * sizeof(float));
    for (int row = 0; row < SAP_TILE; row++)
        backward_row(r, row);
}

const sap_recurrent_kernels sap_recurrent_plain = {.forward = forward, .backward = backward};
