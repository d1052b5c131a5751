/* Products of weights packed into panels, and sums of outer products, as the recurrent kernels take them: in float32.
 * panels_tiles.h is the same with tiles of bf16. */
#include "recurrent.h"

/* ---- Sums of products ----------------------------------------------------------------------------------- */

typedef float panel_weight, panel_operand; /* what products are made of: here as it is */

/* How many units the next panel has. */
INLINE int64_t panel_of(int64_t left, int64_t *parts) {
    return part_of(left, parts, ROWS);
}

/* Depth of a product as it is stored, floats of packed weights, floats of `count` operands, scratch of outer_sums. */
INLINE int64_t panel_depth(int64_t depth) {
    return depth;
}
INLINE int64_t panel_floats(int64_t rows, int gates, int64_t depth) {
    return rows * gates * depth;
}
INLINE int64_t operand_floats(int count, int64_t depth) {
    (void)count;
    (void)depth;
    return 0;
}
INLINE int64_t outer_floats(void) {
    return 0;
}

/* Gate `gate` of the panel of `count` rows that begins at row `first`; the next gates stand behind it. */
INLINE const panel_weight *panel_at(const panel_weight *panels, int64_t first, int64_t count, int gates, int gate,
                                    int64_t depth) {
    return panels + (first * gates + gate * count) * depth;
}

/* `count` matrices (depth, width) one after another as operands; number i of them. */
INLINE const panel_operand *operands_of(int count, int64_t depth, int64_t width, const float *x, float *space) {
    (void)count;
    (void)depth;
    (void)width;
    (void)space;
    return x;
}
INLINE const panel_operand *operand_at(const panel_operand *operands, int i, int64_t depth, int64_t width) {
    return operands + i * depth * width;
}

INLINE void panels_begin(void) {
}
INLINE void panels_end(void) {
}

/* Packs `gates` matrices (rows, depth), matrix g beginning at w + g · gate_step: in panels of at most ROWS rows, within
 * a panel gate by gate, within a gate (depth, rows of the panel). */
static void pack_panels(int64_t rows, int gates, int64_t depth, const float *w, int64_t gate_step, int64_t row_step,
                        int64_t depth_step, panel_weight *out) {
    int64_t parts = 0;
    for (int64_t first = 0; first < rows;) {
        int64_t count = part_of(rows - first, &parts, ROWS);
        for (int g = 0; g < gates; g++)
            for (int64_t k = 0; k < depth; k++)
                for (int64_t r = 0; r < count; r++)
                    *out++ = w[g * gate_step + (first + r) * row_step + k * depth_step];
        first += count;
    }
}

typedef struct sum_term {
    int64_t depth;
    const panel_weight *w;  /* a panel: (depth, rows) */
    const panel_operand *x; /* (depth, width) */
} sum_term;

INLINE void sum_columns(const int rows, const int columns, const sum_term *terms, const float *bias, bool add,
                        int64_t width, float *out) {
    vec sum[ROWS][COLUMNS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < columns; c++) {
            sum[r][c] = (vec){0};
            if (bias)
                sum[r][c] += bias[r];
            if (add)
                sum[r][c] = load_vec(out + r * width + c * W);
        }
    }
    for (int i = 0; i < 2; i++) {
        const float *w = terms[i].w, *x = terms[i].x;
        for (int64_t k = terms[i].depth; k > 0; k--) {
            vec xs[COLUMNS];
            UNROLL
            for (int c = 0; c < columns; c++)
                xs[c] = load_vec(x + c * W);
            UNROLL
            for (int r = 0; r < rows; r++) {
                float weight = w[r];
                UNROLL
                for (int c = 0; c < columns; c++)
                    sum[r][c] += xs[c] * weight;
            }
            x += width;
            w += rows;
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
    for (int c = 0; c < columns; c++)
        store_vec(out + r * width + c * W, sum[r][c]);
}

INLINE void sum_rows(const int rows, sum_term a, sum_term b, const float *bias, bool add, int64_t width, float *out) {
    sum_term terms[2] = {a, b};
    int64_t t = 0;
    for (; t + COLUMNS * W <= width; t += COLUMNS * W) {
        sum_columns(rows, COLUMNS, terms, bias, add, width, out + t);
        terms[0].x += COLUMNS * W;
        terms[1].x += COLUMNS * W;
    }
#if SAP_WIDTH == 16
    for (; t < width; t += W) {
        sum_columns(rows, 1, terms, bias, add, width, out + t);
        terms[0].x += W;
        terms[1].x += W;
    }
#endif
}

/* out (rows, width) = start + a.w a.x + b.w b.x, where the start is out itself if `add`, the bias if there is one, or
 * 0. At most ROWS rows. */
static void sum_panel(int64_t rows, sum_term a, sum_term b, const float *bias, bool add, int64_t width, float *out) {
    switch (rows) {
    case 1:
        sum_rows(1, a, b, bias, add, width, out);
        break;
    case 2:
        sum_rows(2, a, b, bias, add, width, out);
        break;
    case 3:
        sum_rows(3, a, b, bias, add, width, out);
        break;
    case 4:
        sum_rows(4, a, b, bias, add, width, out);
        break;
    case 5:
        sum_rows(5, a, b, bias, add, width, out);
        break;
    default:
        sum_rows(6, a, b, bias, add, width, out);
    }
}

/* ---- Sums of outer products -------------------------------------------------------------------------------- */

/* ---- Gradients of weights ------------------------------------------------------------------------------- */

/* gw[i][o] += Σ over steps and columns of x[i] d[o]; the rows of x and d are `width` apart, their steps x_step and
 * d_step, the rows of gw g_step. */
typedef struct outer_sum {
    int32_t steps;
    int64_t width;
    int64_t in, out;
    const float *x, *d;
    int64_t x_step, d_step, g_step;
    float *g;
} outer_sum;

INLINE void outer_sum_block(const int rows, const int outs, const outer_sum *p, const float *x, const float *d,
                            float *g) {
    vec sum[OUTER_ROWS][4];
    int64_t width = p->width;
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
    for (int o = 0; o < outs; o++)
        sum[i][o] = (vec){0};
    for (int32_t s = 0; s < p->steps; s++) {
        for (int64_t t = 0; t < width; t += W) {
            vec xs[OUTER_ROWS];
            UNROLL
            for (int i = 0; i < rows; i++)
                xs[i] = load_vec(x + i * width + t);
            UNROLL
            for (int o = 0; o < outs; o++) {
                vec ds = load_vec(d + o * width + t);
                UNROLL
                for (int i = 0; i < rows; i++)
                    sum[i][o] += xs[i] * ds;
            }
        }
        x += p->x_step;
        d += p->d_step;
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int o = outs; o < 4; o++)
            sum[i][o] = (vec){0};
        vec4 four = sums_of(sum[i][0], sum[i][1], sum[i][2], sum[i][3]), old = {0};
        memcpy(&old, g + i * p->g_step, (size_t)outs * sizeof(float));
        old += four;
        memcpy(g + i * p->g_step, &old, (size_t)outs * sizeof(float));
    }
}

INLINE void outer_sum_rows(const int rows, const outer_sum *p, int64_t i, int64_t o, int64_t end) {
    const float *x = p->x + i * p->width, *d = p->d + o * p->width;
    float *g = p->g + i * p->g_step + o;
    for (; o + 4 <= end; o += 4) {
        outer_sum_block(rows, 4, p, x, d, g);
        d += 4 * p->width;
        g += 4;
    }
    switch (end - o) {
    case 1:
        outer_sum_block(rows, 1, p, x, d, g);
        break;
    case 2:
        outer_sum_block(rows, 2, p, x, d, g);
        break;
    case 3:
        outer_sum_block(rows, 3, p, x, d, g);
        break;
    default:
        break;
    }
}

enum { OUTER_GROUP = 8 }; /* rows of d that stay in the first-level cache */

static void outer_sums(const outer_sum *p, float *space) {
    (void)space;
    for (int64_t o = 0; o < p->out; o += OUTER_GROUP) {
        int64_t end = o + OUTER_GROUP < p->out ? o + OUTER_GROUP : p->out, parts = 0;
        for (int64_t i = 0; i < p->in;) {
            int64_t rows = part_of(p->in - i, &parts, OUTER_ROWS);
            switch (rows) {
            case 1:
                outer_sum_rows(1, p, i, o, end);
                break;
            case 2:
                outer_sum_rows(2, p, i, o, end);
                break;
#if SAP_WIDTH == 16
            case 3:
                outer_sum_rows(3, p, i, o, end);
                break;
            case 4:
                outer_sum_rows(4, p, i, o, end);
                break;
            case 5:
                outer_sum_rows(5, p, i, o, end);
                break;
#endif
            default:
                outer_sum_rows(OUTER_ROWS, p, i, o, end);
            }
            i += rows;
        }
    }
}
