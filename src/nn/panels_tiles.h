/* The same as panels_vector.h with tiles of bf16 (tiles.h): weights and operands are rounded to bf16, sums are float32.
 *
 * Weights are packed in panels of 16 rows, gate by gate, in tiles of 16 rows by 32 of the depth. An operand has two values of the depth
 * side by side in each of its numbers: (pairs, width). What is missing is zero.
 */
#include "recurrent.h"
#include "tiles.h"

typedef uint16_t panel_weight;
typedef uint32_t panel_operand;
typedef uint32_t pairs_of __attribute__((vector_size(64)));

INLINE int64_t whole_tiles(int64_t count, int64_t tile) {
    return (count + tile - 1) / tile * tile;
}

INLINE int64_t panel_of(int64_t left, int64_t *parts) {
    (void)parts;
    return left < TILE_ROWS ? left : TILE_ROWS;
}
INLINE int64_t panel_depth(int64_t depth) {
    return whole_tiles(depth, TILE_DEPTH);
}
INLINE int64_t panel_floats(int64_t rows, int gates, int64_t depth) {
    return whole_tiles(rows, TILE_ROWS) * gates * panel_depth(depth) / 2;
}
INLINE int64_t operand_floats(int count, int64_t depth) {
    return count * panel_depth(depth) / 2 * SAP_TILE;
}

INLINE const panel_weight *panel_at(const panel_weight *panels, int64_t first, int64_t count, int gates, int gate,
                                    int64_t depth) {
    (void)count;
    return panels + (first * gates + gate * TILE_ROWS) * panel_depth(depth);
}
INLINE const panel_operand *operand_at(const panel_operand *operands, int i, int64_t depth, int64_t width) {
    return operands + i * panel_depth(depth) / 2 * width;
}

INLINE void panels_begin(void) {
    tiles_begin();
}
INLINE void panels_end(void) {
    tiles_end();
}

/* ---- Rounding to bf16 ------------------------------------------------------------------------------------- */

/* To the nearest, ties to even, in the upper half; NaN stays NaN, what is too large becomes infinity. */
INLINE uint32_t rounded(float value) {
    uint32_t bits = (uint32_t)to_bits(value), up = bits + 0x7FFF + (bits >> 16 & 1);
    return value == value ? up : bits | 0x400000;
}

INLINE uint32_t pair_of(float even, float odd) {
    return rounded(even) >> 16 | (rounded(odd) & 0xFFFF0000U);
}

static const panel_operand *operands_of(int count, int64_t depth, int64_t width, const float *x, float *space) {
    panel_operand *out = (panel_operand *)(void *)space, *to = out;
    for (int i = 0; i < count; i++, x += depth * width) {
        int64_t k = 0;
        for (; k + 1 < depth; k += 2, to += width)
            for (int64_t t = 0; t < width; t++)
                to[t] = pair_of(x[k * width + t], x[(k + 1) * width + t]);
        for (; k < panel_depth(depth); k += 2, to += width)
            for (int64_t t = 0; t < width; t++)
                to[t] = k < depth ? pair_of(x[k * width + t], 0) : 0;
    }
    return out;
}

/* One tile of weights: rows [first, …) of `rows`, depth [from, …) of `depth`. */
static void pack_tile(int64_t rows, int64_t depth, const float *w, int64_t first, int64_t from, int64_t row_step,
                      int64_t depth_step, panel_weight *out) {
    for (int64_t r = first; r < first + TILE_ROWS; r++)
        for (int64_t k = from; k < from + TILE_DEPTH; k++)
            *out++ = r < rows && k < depth ? (uint16_t)(rounded(w[r * row_step + k * depth_step]) >> 16) : 0;
}

static void pack_panels(int64_t rows, int gates, int64_t depth, const float *w, int64_t gate_step, int64_t row_step,
                        int64_t depth_step, panel_weight *out) {
    for (int64_t first = 0; first < rows; first += TILE_ROWS)
        for (int g = 0; g < gates; g++)
            for (int64_t from = 0; from < depth; from += TILE_DEPTH, out += TILE_ROWS * TILE_DEPTH)
                pack_tile(rows, depth, w + g * gate_step, first, from, row_step, depth_step, out);
}

/* ---- Sums of products ------------------------------------------------------------------------------------- */

typedef struct sum_term {
    int64_t depth; /* as panel_depth gives it */
    const panel_weight *w;
    const panel_operand *x;
} sum_term;

/* Tiles 0 to 3, each 16 columns: += 16 rows of weights times operands, whose tiles stand `next` numbers apart and have rows
 * `stride` numbers apart. */
INLINE void dot_tiles(const int columns, int64_t depth, const panel_weight *w, const panel_operand *x, int64_t stride,
                      int64_t next, int64_t step) {
    for (int64_t k = 0; k < depth; k += TILE_DEPTH, w += TILE_ROWS * TILE_DEPTH, x += step) {
        tile_load(4, w, 2 * TILE_DEPTH);
        tile_load(5, x, stride * 4);
        tile_dot(0, 4, 5);
        if (columns > 1) {
            tile_load(6, x + next, stride * 4);
            tile_dot(1, 4, 6);
        }
        if (columns > 2) {
            tile_load(7, x + 2 * next, stride * 4);
            tile_dot(2, 4, 7);
        }
        if (columns > 3) {
            tile_load(5, x + 3 * next, stride * 4);
            tile_dot(3, 4, 5);
        }
    }
}

INLINE void zero_tiles(void) {
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}

/* Tiles 0 to 3 side by side: (16, 64). */
INLINE void store_tiles(const int columns, float *out) {
    tile_store(0, out, SAP_TILE * 4);
    if (columns > 1)
        tile_store(1, out + 16, SAP_TILE * 4);
    if (columns > 2)
        tile_store(2, out + 32, SAP_TILE * 4);
    if (columns > 3)
        tile_store(3, out + 48, SAP_TILE * 4);
}

INLINE void sum_width(const int width, int64_t rows, const sum_term *a, const sum_term *b, const float *bias, bool add,
                      float *out) {
    _Alignas(64) float sum[TILE_ROWS * SAP_TILE];
    const int columns = width / SAP_COLUMNS;
    zero_tiles();
    dot_tiles(columns, a->depth, a->w, a->x, width, SAP_COLUMNS, TILE_PAIRS * width);
    dot_tiles(columns, b->depth, b->w, b->x, width, SAP_COLUMNS, TILE_PAIRS * width);
    store_tiles(columns, sum);
    for (int64_t r = 0; r < rows; r++) {
        float offset = bias ? bias[r] : 0;
        for (int t = 0; t < width; t++)
            out[r * width + t] = (add ? out[r * width + t] : offset) + sum[r * SAP_TILE + t];
    }
}

static void sum_panel(int64_t rows, sum_term a, sum_term b, const float *bias, bool add, int64_t width, float *out) {
    BY_WIDTH(sum_width, width, rows, &a, &b, bias, add, out);
}

/* ---- Sums of outer products -------------------------------------------------------------------------------- */

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

enum { OUTER_TILES = 4, OUTER_COLUMNS = 2 * SAP_CHUNK_COLUMNS /* a step of 16 columns takes as much as one of 32 */ };

INLINE int64_t outer_floats(void) {
    return (OUTER_TILES + 1) * TILE_ROWS * OUTER_COLUMNS / 2;
}

/* Rows [first, first + 16) of a matrix (rows, width) at columns [t, t + 32), two numbers side by side. */
static void row_pairs(const float *x, int64_t rows, int64_t first, int64_t width, int64_t t, pairs_of out[TILE_ROWS]) {
    for (int64_t r = 0; r < TILE_ROWS; r++) {
        const float *from = x + (first + r) * width + t;
        int pairs = first + r >= rows ? 0 : width - t < TILE_DEPTH ? (int)(width - t) / 2 : TILE_PAIRS;
        uint32_t *to = (uint32_t *)&out[r];
        out[r] = (pairs_of){0};
        for (int k = 0; k < pairs; k++)
            to[k] = pair_of(from[2 * k], from[2 * k + 1]);
    }
}

#if defined(__clang__) /* shuffles by a vector are gcc's */
static void transpose(pairs_of m[TILE_ROWS]) {
    uint32_t from[TILE_ROWS][TILE_PAIRS], *to = (uint32_t *)m;
    memcpy(from, m, sizeof from);
    for (int r = 0; r < TILE_ROWS; r++)
        for (int c = 0; c < TILE_PAIRS; c++)
            to[r * TILE_PAIRS + c] = from[c][r];
}
#else
/* Blocks of 1, 2, 4 and 8 are exchanged across the diagonal. */
INLINE void transpose(pairs_of m[TILE_ROWS]) {
    UNROLL
    for (int size = 1; size < TILE_ROWS; size *= 2) {
        pairs_of low, high;
        UNROLL
        for (int l = 0; l < TILE_ROWS; l++) {
            low[l] = (uint32_t)(l & size ? 16 + (l ^ size) : l);
            high[l] = (uint32_t)(l & size ? 16 + l : l ^ size);
        }
        UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
            if (r & size)
                continue;
            pairs_of a = m[r], b = m[r | size];
            m[r] = __builtin_shuffle(a, b, low);
            m[r | size] = __builtin_shuffle(a, b, high);
        }
    }
}
#endif

/* Rows [first, first + 16) as tiles: of weights, or transposed as operands. Returns how many numbers of the depth there are. */
static int64_t row_tiles(const float *x, int64_t rows, int64_t first, const outer_sum *p, int64_t x_step,
                         bool transposed, float *space) {
    pairs_of *to = (pairs_of *)(void *)space;
    for (int32_t s = 0; s < p->steps; s++, x += x_step) {
        for (int64_t t = 0; t < p->width; t += TILE_DEPTH, to += TILE_ROWS) {
            row_pairs(x, rows, first, p->width, t, to);
            if (transposed)
                transpose(to);
        }
    }
    return (to - (pairs_of *)(void *)space) * TILE_PAIRS * 2 / TILE_ROWS;
}

INLINE void outer_tile(const int columns, const outer_sum *p, int64_t i, int64_t o, int64_t depth, const float *x,
                       const float *d) {
    _Alignas(64) float sum[TILE_ROWS * SAP_TILE];
    const panel_operand *operands = (const panel_operand *)(const void *)d;
    zero_tiles();
    dot_tiles(columns, depth, (const panel_weight *)(const void *)x, operands, TILE_PAIRS,
              TILE_ROWS * OUTER_COLUMNS / 2, TILE_PAIRS * TILE_PAIRS);
    store_tiles(columns, sum);
    int64_t outs = p->out - o < columns * 16 ? p->out - o : columns * 16;
    for (int64_t r = i; r < i + TILE_ROWS && r < p->in; r++)
        for (int64_t c = 0; c < outs; c++)
            p->g[r * p->g_step + o + c] += sum[(r - i) * SAP_TILE + c];
}

/* space: outer_floats(). */
static void outer_sums(const outer_sum *p, float *space) {
    int64_t part = TILE_ROWS * OUTER_COLUMNS / 2, depth = 0;
    float *d = space, *x = space + OUTER_TILES * part;
    for (int64_t o = 0; o < p->out; o += OUTER_TILES * TILE_ROWS) {
        int columns = 0;
        for (; columns < OUTER_TILES && o + columns * TILE_ROWS < p->out; columns++)
            depth = row_tiles(p->d, p->out, o + columns * TILE_ROWS, p, p->d_step, true, d + columns * part);
        for (int64_t i = 0; i < p->in; i += TILE_ROWS) {
            (void)row_tiles(p->x, p->in, i, p, p->x_step, false, x);
            switch (columns) {
            case 1:
                outer_tile(1, p, i, o, depth, x, d);
                break;
            case 2:
                outer_tile(2, p, i, o, depth, x, d);
                break;
            case 3:
                outer_tile(3, p, i, o, depth, x, d);
                break;
            default:
                outer_tile(4, p, i, o, depth, x, d);
            }
        }
    }
}

/* ---- Dense layers ------------------------------------------------------------------------------------------ */

enum { PRODUCT_DEPTH = 512 }; /* of operands that are ready at once */

/* Adds what rows [first, first + 16) make of `depth` operands from `from` on. */
INLINE void product_part(const int width, const sap_product *p, int64_t first, int64_t from, int64_t depth,
                         const panel_operand *x) {
    _Alignas(64) panel_weight w[TILE_ROWS * PRODUCT_DEPTH];
    const float *weights = p->w + from * p->depth_step;
    for (int64_t k = 0; k < depth; k += TILE_DEPTH)
        pack_tile(p->rows, depth, weights, first, k, p->row_step, p->depth_step, w + k * TILE_ROWS);
    sum_term a = {panel_depth(depth), w, x}, none = {0};
    int64_t rows = p->rows - first < TILE_ROWS ? p->rows - first : TILE_ROWS;
    bool start = from == 0 && !p->add;
    float *y = p->y + first * width;
    sum_width(width, rows, &a, &none, start && p->bias ? p->bias + first : NULL, !start, y);
    for (int64_t k = 0; p->relu && from + depth == p->depth && k < rows * width; k++)
        y[k] = y[k] < 0 ? 0 : y[k];
}

static void tile_product(const sap_product *p) {
    _Alignas(64) float space[PRODUCT_DEPTH / 2 * SAP_TILE];
    panels_begin();
    for (int64_t from = 0; from < p->depth || from == 0; from += PRODUCT_DEPTH) {
        int64_t depth = p->depth - from < PRODUCT_DEPTH ? p->depth - from : PRODUCT_DEPTH;
        const panel_operand *x = operands_of(1, depth, p->width, p->x + from * p->width, space);
        for (int64_t first = 0; first < p->rows; first += TILE_ROWS)
            BY_WIDTH(product_part, p->width, p, first, from, depth, x);
    }
    panels_end();
}

static void tile_outer(int64_t in, int64_t out, int width, const float *x, const float *d, float *gw, float *gb) {
    _Alignas(64) float space[(OUTER_TILES + 1) * TILE_ROWS * OUTER_COLUMNS / 2];
    outer_sum sum = {.steps = 1, .width = width, .in = in, .out = out, .x = x, .d = d, .g_step = out, .g = gw};
    panels_begin();
    outer_sums(&sum, space);
    panels_end();
    for (int64_t o = 0; gb && o < out; o++) {
        float all = 0;
        for (int t = 0; t < width; t++)
            all += d[o * width + t];
        gb[o] += all;
    }
}
