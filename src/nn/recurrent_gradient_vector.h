/* The vector form of the recurrent kernels, backward; recurrent_vector.h includes it.
 *
 * The gradients of the sums are kept for a chunk of steps, which adds to the gradients of the weights in one go, in
 * registers.
 */

/* ---- Gradients of weights -------------------------------------------------------------------------------- */

/* out[k] += Σ over steps and columns of d[k]. */
static void row_sums(int32_t steps, int64_t width, int64_t rows, const float *d, int64_t d_step, float *out) {
    for (int64_t k = 0; k < rows; k += 4) {
        int64_t count = rows - k < 4 ? rows - k : 4;
        vec sum[4] = {{0}};
        for (int64_t i = 0; i < count; i++)
            for (int32_t s = 0; s < steps; s++)
                for (int64_t t = 0; t < width; t += W)
                    sum[i] += load_vec(d + s * d_step + (k + i) * width + t);
        vec4 four = sums_of(sum[0], sum[1], sum[2], sum[3]);
        for (int64_t i = 0; i < count; i++)
            out[k + i] += four[i];
    }
}

/* ---- Backward ------------------------------------------------------------------------------------------- */

typedef struct backward_run {
    recurrent_run s;
    bool fused;
    const panel_weight *x_panels, *h_panels; /* of the transposed weights */
    float *sums;                             /* (sums, units) of the gradients of the sums: of the biases */
    float *d;                                /* (steps of a chunk, sums, units) gradients of the sums */
    float *x_masked, *h_masked;              /* (steps of a chunk, masks, …) */
    float *d_space, *outer_space;            /* of operands */
    float *dh, *dc;                          /* gradients of the state after the step in hand */
    float *product;                          /* (inputs or units) what a mask is to be applied to */
    int width;                               /* of dh and dc */
} backward_run;

INLINE void gru_gradients(int64_t n, const float *restrict z, const float *restrict r, const float *restrict a,
                          const float *restrict u, const float *restrict h, float *restrict dh, float *restrict dz,
                          float *restrict dr, float *restrict da, float *restrict du) {
    for (int64_t i = 0; i < n; i++) {
        float value = dh[i] * (1 - z[i]) * (1 - a[i] * a[i]);
        dz[i] = dh[i] * (h[i] - a[i]) * (z[i] * (1 - z[i]));
        dr[i] = value * u[i] * (r[i] * (1 - r[i]));
        da[i] = value;
        du[i] = value * r[i];
        dh[i] *= z[i];
    }
}

INLINE void lstm_gradients(int64_t n, const float *restrict i, const float *restrict f, const float *restrict a,
                           const float *restrict o, const float *restrict tanh_c, const float *restrict c,
                           const float *restrict dh, float *restrict dc, float *restrict di, float *restrict df,
                           float *restrict da, float *restrict d_o) {
    for (int64_t k = 0; k < n; k++) {
        float state = dc[k] + dh[k] * o[k] * (1 - tanh_c[k] * tanh_c[k]);
        d_o[k] = dh[k] * tanh_c[k] * (o[k] * (1 - o[k]));
        di[k] = state * a[k] * (i[k] * (1 - i[k]));
        df[k] = state * c[k] * (f[k] * (1 - f[k]));
        da[k] = state * i[k] * (1 - a[k] * a[k]);
        dc[k] = state * f[k];
    }
}

static void apply_gradient(const sap_activation *f, const cell_block *b, int k, float *d) {
    if (f->kind == SAP_SOFTMAX)
        softmax_gradient(b->units, (int)b->width, b->value[k], d);
    else
        activate_gradient(f, b->input[k], b->value[k], d, b->units * b->width);
}

/* y (rows, width) (= or +=) Σ over `gates` gates from `gate` on of their transposed weights times d. */
static void sum_back(const panel_weight *panels, int64_t rows, const recurrent_run *s, int gate, int gates,
                     const panel_operand *d, int64_t width, bool add, float *y) {
    for (int64_t first = 0, parts = 0, count = 0; first < rows; first += count) {
        count = panel_of(rows - first, &parts);
        sum_term term = {gates * panel_depth(s->units), panel_at(panels, first, count, s->gates, gate, s->units), d};
        sum_panel(count, term, (sum_term){0}, NULL, add, width, y + first * width);
    }
}

/* The same, each gate through its mask. */
static void sum_back_masked(const backward_run *q, const panel_weight *panels, int64_t rows, int gate, int gates,
                            const panel_operand *d, int64_t width, int masks, const float *mask, bool add, float *y) {
    if (!masks) {
        sum_back(panels, rows, &q->s, gate, gates, d, width, add, y);
        return;
    }
    if (!add)
        memset(y, 0, (size_t)(rows * width) * sizeof *y);
    for (int g = gate; g < gate + gates; g++) {
        const float *m = mask + g % masks * rows * SAP_TILE;
        sum_back(panels, rows, &q->s, g, 1, operand_at(d, g - gate, q->s.units, width), width, false, q->product);
        for (int64_t v = 0; v < rows; v++)
            for (int64_t c = 0; c < width; c++)
                y[v * width + c] += q->product[v * width + c] * m[v * SAP_TILE + c];
    }
}

static void general_gru_gradients(const backward_run *q, const cell_block *b, float *const *d) {
    const sap_recurrent *r = q->s.r;
    const sap_activation *f = &r->activation, *s = &r->recurrent_activation;
    int64_t n = b->units * b->width;
    float *const *v = b->value, *dh = q->dh;
    for (int64_t i = 0; i < n; i++) {
        d[0][i] = dh[i] * (b->h[i] - v[2][i]);
        d[2][i] = dh[i] * (1 - v[0][i]);
        dh[i] *= v[0][i];
    }
    apply_gradient(s, b, 0, d[0]);
    apply_gradient(f, b, 2, d[2]);
    if (r->cell == SAP_CELL_GRU) {
        for (int64_t i = 0; i < n; i++) {
            d[1][i] = d[2][i] * v[3][i];
            d[3][i] = d[2][i] * v[1][i];
        }
    } else { /* u = r ∘ h, both masked */
        const panel_operand *own = operands_of(1, b->units, b->width, d[2], q->d_space);
        sum_back_masked(q, q->h_panels, b->units, 2, 1, own, b->width, r->h_masks, r->h_mask, false, d[1]);
        for (int64_t i = 0; i < n; i++) {
            dh[i] += d[1][i] * v[1][i];
            d[1][i] *= b->h[i];
        }
    }
    apply_gradient(s, b, 1, d[1]);
}

static void general_lstm_gradients(const backward_run *q, const cell_block *b, float *const *d) {
    const sap_recurrent *r = q->s.r;
    const sap_activation *f = &r->activation, *s = &r->recurrent_activation;
    int64_t n = b->units * b->width;
    float *const *v = b->value, *dh = q->dh, *dc = q->dc;
    for (int64_t i = 0; i < n; i++) {
        d[3][i] = dh[i] * v[4][i];
        dh[i] *= v[3][i];
    }
    apply_gradient(s, b, 3, d[3]);
    apply_gradient(f, b, 4, dh);
    for (int64_t i = 0; i < n; i++) {
        dc[i] += dh[i];
        d[0][i] = dc[i] * v[2][i];
        d[1][i] = dc[i] * b->c[i];
        d[2][i] = dc[i] * v[0][i];
        dc[i] *= v[1][i];
    }
    apply_gradient(s, b, 0, d[0]);
    apply_gradient(s, b, 1, d[1]);
    apply_gradient(f, b, 2, d[2]);
}

/* From dh (and dc) after a step to the gradients of its sums; leaves in dh and dc what reaches the state before it
 * other than through U. */
static void cell_gradients(const backward_run *q, const cell_block *b, float *const *d) {
    const sap_recurrent *r = q->s.r;
    int64_t n = b->units * b->width;
    float *const *v = b->value;
    switch (r->cell) {
    case SAP_CELL_SIMPLE:
        memcpy(d[0], q->dh, (size_t)n * sizeof(float));
        apply_gradient(&r->activation, b, 0, d[0]);
        memset(q->dh, 0, (size_t)n * sizeof(float));
        break;
    case SAP_CELL_GRU:
        if (q->fused)
            gru_gradients(n, v[0], v[1], v[2], v[3], b->h, q->dh, d[0], d[1], d[2], d[3]);
        else
            general_gru_gradients(q, b, d);
        break;
    case SAP_CELL_GRU_BEFORE:
        general_gru_gradients(q, b, d);
        break;
    case SAP_CELL_LSTM:
        if (q->fused)
            lstm_gradients(n, v[0], v[1], v[2], v[3], v[4], b->c, q->dh, q->dc, d[0], d[1], d[2], d[3]);
        else
            general_lstm_gradients(q, b, d);
        memset(q->dh, 0, (size_t)n * sizeof(float));
    }
}

/* The gradient of the state after step t, from what came back from the steps behind it and from outside. */
static void take_in(backward_run *q, sap_step_place p, int32_t t) {
    const recurrent_run *s = &q->s;
    const sap_recurrent *r = s->r;
    int64_t n = s->units * p.width;
    if (q->width != p.width) {
        float *const both[2] = {q->dh, q->dc};
        for (int i = 0; i < 2; i++) {
            sap_columns_copy(s->units, q->width, both[i], p.width, q->product);
            memcpy(both[i], q->product, (size_t)n * sizeof(float));
        }
        q->width = p.width;
    }
    if (r->dy)
        add_to(n, r->dy + p.start * r->y_values + r->y_first * p.width, q->dh);
    keep_ended(s, t, p.width, NULL, q->dh);
    if (r->cell == SAP_CELL_LSTM)
        keep_ended(s, t, p.width, NULL, q->dc);
    for (int c = 0; r->d_last && c < p.width; c++)
        if (ends_with(r, c, t))
            for (int64_t u = 0; u < s->units; u++)
                q->dh[u * p.width + c] += r->d_last[u * r->last_width + c];
}

/* The sum that holds the product of h and gate g of U. */
INLINE int sum_of_h(sap_cell cell, int g) {
    return cell == SAP_CELL_GRU && g == 2 ? 3 : g;
}

static void backward_step(backward_run *q, sap_step_place p, int32_t t, float *gradients) {
    const recurrent_run *s = &q->s;
    const sap_recurrent *r = s->r;
    int64_t step = s->units * p.width, at = p.start * s->units;
    cell_block b = {.units = s->units, .width = p.width, .h = r->kept + s->at.h + at};
    for (int k = 0; k < s->values; k++) {
        b.value[k] = r->kept + s->at.gates + at * s->values + k * step;
        b.input[k] = s->at.inputs >= 0 ? r->kept + s->at.inputs + at * s->values + k * step : b.value[k];
    }
    if (s->at.c >= 0)
        b.c = r->kept + s->at.c + at;
    float *d[SAP_GATES];
    for (int k = 0; k < SAP_GATES; k++)
        d[k] = gradients + k * step;
    take_in(q, p, t);
    cell_gradients(q, &b, d);
    int whole = r->cell == SAP_CELL_GRU || r->cell == SAP_CELL_GRU_BEFORE ? 2 : s->gates;
    const panel_operand *all = operands_of(s->sums, s->units, p.width, d[0], q->d_space);
    sum_back_masked(q, q->h_panels, s->units, 0, whole, all, p.width, r->h_masks, r->h_mask, true, q->dh);
    if (r->cell == SAP_CELL_GRU)
        sum_back_masked(q, q->h_panels, s->units, 2, 1, operand_at(all, 3, s->units, p.width), p.width, r->h_masks,
                        r->h_mask, true, q->dh);
    if (r->dx)
        sum_back_masked(q, q->x_panels, s->inputs, 0, s->gates, all, p.width, r->x_masks, r->x_mask, r->add,
                        r->dx + p.start * s->inputs);
}

/* Adds to the gradients of the weights what `count` steps give whose first is at p: steps of one width. */
static void weight_gradients(const backward_run *q, sap_step_place p, int32_t count) {
    const recurrent_run *s = &q->s;
    const sap_recurrent *r = s->r;
    int64_t units = s->units, width = p.width, all = s->gates * units, d_step = s->sums * units * width;
    const float *x = r->x + p.start * s->inputs, *h = r->kept + s->at.h + p.start * units;
    int64_t x_step = s->inputs * width, h_step = units * width, x_masked = x_step * r->x_masks,
            h_masked = h_step * r->h_masks;
    for (int32_t i = 0; i < count && r->x_masks; i++)
        apply_masks(r->x_masks, s->inputs, r->x_mask, width, x + i * x_step, q->x_masked + i * x_masked);
    for (int32_t i = 0; i < count && r->h_masks; i++)
        apply_masks(r->h_masks, units, r->h_mask, width, h + i * h_step, q->h_masked + i * h_masked);
    outer_sum sum = {.steps = count, .width = width, .d_step = d_step, .g_step = all};
    for (int g = 0, gates = 0; g < s->gates; g += gates) {
        gates = r->x_masks > 1 ? 1 : s->gates;
        sum.in = s->inputs;
        sum.out = gates * units;
        sum.x = r->x_masks ? q->x_masked + g % r->x_masks * x_step : x;
        sum.x_step = r->x_masks ? x_masked : x_step;
        sum.d = q->d + g * units * width;
        sum.g = r->d_kernel + g * units;
        outer_sums(&sum, q->outer_space);
    }
    bool gru = r->cell == SAP_CELL_GRU || r->cell == SAP_CELL_GRU_BEFORE;
    for (int g = 0, gates = 0; g < s->gates; g += gates) {
        gates = r->h_masks > 1 ? 1 : gru ? (g == 0 ? 2 : 1) : s->gates;
        sum.in = units;
        sum.out = gates * units;
        sum.x = r->h_masks ? q->h_masked + g % r->h_masks * h_step : h;
        sum.x_step = r->h_masks ? h_masked : h_step;
        if (r->cell == SAP_CELL_GRU_BEFORE && g == 2) {
            sum.x = r->kept + s->at.gates + (p.start * s->values + 3 * width) * units;
            sum.x_step = s->values * units * width;
        }
        sum.d = q->d + sum_of_h(r->cell, g) * units * width;
        sum.g = r->d_recurrent_kernel + g * units;
        outer_sums(&sum, q->outer_space);
    }
    if (r->d_bias)
        row_sums(count, width, s->sums * units, q->d, d_step, q->sums);
}

static backward_run begin_backward(const sap_recurrent *r) {
    backward_run q = {.s = begin_run(r)};
    recurrent_run *s = &q.s;
    int64_t units = s->units, gates = s->gates, state = units * SAP_TILE;
    q.fused = r->activation.kind == SAP_TANH && r->recurrent_activation.kind == SAP_SIGMOID;
    panel_weight *x_panels = (panel_weight *)(void *)take(s, panel_floats(s->inputs, s->gates, units));
    panel_weight *h_panels = (panel_weight *)(void *)take(s, panel_floats(units, s->gates, units));
    if (r->dx)
        pack_panels(s->inputs, s->gates, units, r->kernel, units, gates * units, 1, x_panels);
    pack_panels(units, s->gates, units, r->recurrent_kernel, units, gates * units, 1, h_panels);
    q.x_panels = x_panels;
    q.h_panels = h_panels;
    q.sums = take(s, s->sums * units);
    memset(q.sums, 0, (size_t)(s->sums * units) * sizeof(float));
    q.d = take(s, s->sums * units * SAP_CHUNK_COLUMNS);
    q.x_masked = take(s, r->x_masks * s->inputs * SAP_CHUNK_COLUMNS);
    q.h_masked = take(s, r->h_masks * units * SAP_CHUNK_COLUMNS);
    q.d_space = take(s, operand_floats(s->sums, units));
    q.outer_space = take(s, outer_floats());
    q.dh = take(s, state);
    q.dc = take(s, state);
    q.product = take(s, (units > s->inputs ? units : s->inputs) * SAP_TILE);
    q.width = SAP_TILE;
    memset(q.dh, 0, (size_t)state * sizeof(float));
    memset(q.dc, 0, (size_t)state * sizeof(float));
    return q;
}

static void recurrent_backward(const sap_recurrent *r) {
    backward_run q = begin_backward(r);
    const recurrent_run *s = &q.s;
    panels_begin();
    for (int32_t done = 0, count = 0; done < r->steps->count; done += count) {
        /* a chunk: steps of one width, [low, low + count) */
        int32_t t = r->reverse ? done : r->steps->count - 1 - done;
        sap_step_place p = sap_steps_place(r->steps, t);
        int32_t left = r->reverse ? p.end - t : t + 1 - p.first, most = SAP_CHUNK_COLUMNS / p.width;
        count = left < most ? left : most;
        int32_t low = r->reverse ? t : t + 1 - count;
        for (int32_t i = 0; i < count; i++) {
            int32_t step = r->reverse ? low + i : low + count - 1 - i;
            backward_step(&q, sap_steps_place(r->steps, step), step, q.d + (step - low) * s->sums * s->units * p.width);
        }
        if (r->d_kernel)
            weight_gradients(&q, sap_steps_place(r->steps, low), count);
    }
    for (int k = 0; r->d_kernel && r->d_bias && k < s->sums; k++) {
        int gx = gate_of_x[r->cell][k], gh = r->cell == SAP_CELL_GRU ? gate_of_h[r->cell][k] : -1;
        for (int64_t u = 0; u < s->units; u++) {
            if (gx >= 0)
                r->d_bias[gx * s->units + u] += q.sums[k * s->units + u];
            if (gh >= 0)
                r->d_bias[(s->gates + gh) * s->units + u] += q.sums[k * s->units + u];
        }
    }
    panels_end();
}

static const sap_recurrent_kernels recurrent_kernels = {.forward = recurrent_forward, .backward = recurrent_backward};
