/* Attention with vectors; included by kernels_vector.h behind its products.
 *
 * The lanes of a vector are neighbouring queries, so that the softmax needs no sums across a vector, and a head of any
 * number of values fills the vectors. A tile of queries meets the keys tile by tile: scores, weights, and what the
 * weights add are passes over at most 64 × 64 numbers in the nearest cache. The forward pass carries the largest score
 * and the sum of the weights along (as "flash" attention does); the backward pass computes the weights again. Scores
 * are in base 2: the factor log2 e is multiplied into the queries.
 */
#include "attention.h"

typedef uint32_t bits_vec __attribute__((vector_size(SAP_WIDTH * 4)));

static const float log2_e = 1.44269504F, ln_2 = 0.693147181F;
static const float out_of_sight = -1e30F; /* a score whose weight is 0 */

/* 2^x for x up to 126: 2^n 2^r with |r| <= 1/2. 0 below -126; NaN stays NaN. */
INLINE vec exp2_vec(vec x) {
    vec shifted = x + 12582912.0F; /* 1.5 · 2^23: the low bits now hold n */
    vec r = x - (shifted - 12582912.0F);
    vec p = (vec){0} + 1.32764725e-3F;
    p = p * r + 9.67554096e-3F;
    p = p * r + 5.55071309e-2F;
    p = p * r + 0.240221202F;
    p = p * r + 0.693146944F;
    p = p * r + 1.00000012F;
    bits_vec bits = (bits_vec)p + ((bits_vec)shifted << 23);
    return (vec)(bits & ~(bits_vec)(x < -126.0F));
}

INLINE vec larger(vec a, vec b) {
    bits_vec mask = (bits_vec)(a > b);
    return (vec)((mask & (bits_vec)a) | (~mask & (bits_vec)b));
}

/* Tokens [first, first + count), at most 64, and the columns that they take. */
typedef struct token_tile {
    int64_t first, count;
    int width;
} token_tile;

INLINE token_tile tile_at(int64_t tokens, int64_t first) {
    int64_t count = tokens - first < SAP_TILE ? tokens - first : SAP_TILE;
    return (token_tile){first, count, (int)sap_tokens_room(count)};
}

/* Where the values of one head stand in a tile. */
INLINE int64_t head_at(const token_tile *tile, int64_t head, int64_t heads, int64_t dim) {
    return tile->first * heads * dim + head * dim * tile->width;
}

/* y (= or +=) w x with rows and depth as w stands in its tile: (depth, rows) or, `across`, (rows, depth). */
INLINE void multiply(int64_t rows, int64_t depth, const float *w, int w_width, bool across, const float *x, int width,
                     float *y, bool add) {
    product(&(sap_product){.rows = rows,
                           .depth = depth,
                           .w = w,
                           .row_step = across ? w_width : 1,
                           .depth_step = across ? 1 : w_width,
                           .width = width,
                           .x = x,
                           .y = y,
                           .add = add});
}

/* ---- One head of one tile of queries -------------------------------------------------------------------- */

typedef struct attending {
    const sap_attention *of;
    int64_t head;
    token_tile queries;
    float *q;      /* (key_dim, width) scaled */
    float *s, *g;  /* (keys of a tile, width) scores and weights; gradients of weights and scores */
    float *turned; /* (width, keys of a tile) */
    float top[SAP_TILE] __attribute__((aligned(64))); /* the largest score so far; backward: statistic */
    float sum[SAP_TILE] __attribute__((aligned(64))); /* of the weights so far; backward: Σ_j weight dweight */
} attending;

INLINE void start(attending *p, const sap_attention *a, int64_t head, int64_t first) {
    p->of = a;
    p->head = head;
    p->queries = tile_at(a->queries, first);
    p->q = a->work;
    p->s = p->q + a->key_dim * SAP_TILE;
    p->g = p->s + SAP_TILE * SAP_TILE;
    p->turned = p->g + SAP_TILE * SAP_TILE;
    const float *q = a->q + head_at(&p->queries, head, a->heads, a->key_dim);
    float factor = a->scale * log2_e;
    for (int64_t i = 0; i < a->key_dim * p->queries.width; i += W)
        store_vec(p->q + i, load_vec(q + i) * factor);
}

/* The next keys that these queries look at; false behind the last. */
INLINE bool next_keys(const attending *p, token_tile *keys) {
    const sap_attention *a = p->of;
    int64_t first = keys->first + keys->count, seen = a->keys;
    if (a->limit)
        seen = a->limit[p->queries.first + p->queries.count - 1];
    if (first >= seen)
        return false;
    *keys = tile_at(a->keys, first);
    keys->count = seen - first < keys->count ? seen - first : keys->count;
    return true;
}

INLINE void find_scores(const attending *p, const token_tile *keys) {
    const sap_attention *a = p->of;
    int width = p->queries.width;
    multiply(keys->count, a->key_dim, a->k + head_at(keys, p->head, a->heads, a->key_dim), keys->width, false, p->q,
             width, p->s, false);
    if (a->repeat != 1 && keys->first + keys->count == a->keys) {
        float *last = p->s + (keys->count - 1) * width, more = log2f(a->repeat);
        for (int t = 0; t < width; t++)
            last[t] += more;
    }
    if (a->limit && a->limit[p->queries.first] < keys->first + keys->count)
        for (int64_t t = 0; t < p->queries.count; t++)
            for (int64_t j = a->limit[p->queries.first + t] - keys->first; j < keys->count; j++)
                if (j >= 0)
                    p->s[j * width + t] = out_of_sight;
}

/* 0 or `kept`, by the number of each weight. */
INLINE vec dropped(const sap_attention *a, bits_vec value) {
    bits_vec x = value * UINT32_C(0x9E3779B9) + a->key_a; /* sap_dropout_bits */
    x ^= x >> 16;
    x *= UINT32_C(0x7FEB352D);
    x ^= x >> 15;
    x += a->key_b;
    x *= UINT32_C(0x846CA68B);
    x ^= x >> 16;
    return (vec)((bits_vec)(x >= a->threshold) & (bits_vec)((vec){0} + a->kept));
}

/* Numbers of the weights of one key with the queries in the lanes from t on. */
INLINE bits_vec values_at(const attending *p, int t, int64_t key) {
    bits_vec values;
    UNROLL
    for (int i = 0; i < W; i++)
        values[i] = sap_attention_value(p->of, p->head, p->queries.first + t + i, key);
    return values;
}

/* ---- Forward -------------------------------------------------------------------------------------------- */

/* Scores become weights but for a factor of each query, and y is brought to the factor that now holds. */
INLINE void weigh(const bool drop, attending *p, const token_tile *keys, float *y) {
    int width = p->queries.width;
    for (int t = 0; t < width; t += W) {
        float *s = p->s + t;
        vec old = load_vec(p->top + t), top = old;
        for (int64_t j = 0; j < keys->count; j++)
            top = larger(load_vec(s + j * width), top);
        vec factor = exp2_vec(old - top), sum = load_vec(p->sum + t) * factor;
        bits_vec value = values_at(p, t, keys->first);
        for (int64_t j = 0; j < keys->count; j++) {
            vec weight = exp2_vec(load_vec(s + j * width) - top);
            sum += weight;
            store_vec(s + j * width, drop ? weight * dropped(p->of, value + (uint32_t)j) : weight);
        }
        store_vec(p->top + t, top);
        store_vec(p->sum + t, sum);
        for (int64_t e = 0; keys->first > 0 && e < p->of->value_dim; e++)
            store_vec(y + e * width + t, load_vec(y + e * width + t) * factor);
    }
}

static void attend(const sap_attention *a, int64_t head, int64_t first) {
    attending p;
    start(&p, a, head, first);
    int width = p.queries.width;
    for (int t = 0; t < width; t++) {
        p.top[t] = out_of_sight;
        p.sum[t] = 0;
    }
    float *y = a->y + head_at(&p.queries, head, a->heads, a->value_dim);
    for (token_tile keys = {0}; next_keys(&p, &keys);) {
        find_scores(&p, &keys);
        if (a->drop)
            weigh(true, &p, &keys, y);
        else
            weigh(false, &p, &keys, y);
        multiply(a->value_dim, keys.count, a->v + head_at(&keys, head, a->heads, a->value_dim), keys.width, true, p.s,
                 width, y, keys.first > 0);
    }
    float *statistic = a->statistic + head * sap_tokens_room(a->queries) + first;
    for (int t = 0; t < width; t++) {
        statistic[t] = p.top[t] + log_of(p.sum[t]) * log2_e; /* the weights are 2^(score - statistic) */
        p.sum[t] = 1 / p.sum[t];
    }
    for (int64_t e = 0; e < a->value_dim; e++)
        for (int t = 0; t < width; t += W)
            store_vec(y + e * width + t, load_vec(y + e * width + t) * load_vec(p.sum + t));
}

static void attention_forward(const sap_attention *a) {
    for (int64_t head = 0; head < a->heads; head++)
        for (int64_t first = 0; first < a->queries; first += SAP_TILE)
            attend(a, head, first);
}

/* ---- Backward ------------------------------------------------------------------------------------------- */

/* Scores become weights, and gradients of the weights those of the scores: weight · (dweight - Σ_j weight dweight). */
INLINE void weigh_backward(const bool drop, attending *p, const token_tile *keys) {
    int width = p->queries.width;
    for (int t = 0; t < width; t += W) {
        float *s = p->s + t, *g = p->g + t;
        vec statistic = load_vec(p->top + t), mean = load_vec(p->sum + t);
        bits_vec value = values_at(p, t, keys->first);
        for (int64_t j = 0; j < keys->count; j++) {
            vec weight = exp2_vec(load_vec(s + j * width) - statistic), dweight = load_vec(g + j * width);
            vec used = weight;
            if (drop) {
                vec factor = dropped(p->of, value + (uint32_t)j);
                used *= factor;
                dweight *= factor;
            }
            store_vec(s + j * width, used);
            store_vec(g + j * width, weight * (dweight - mean) * ln_2);
        }
    }
}

/* p->turned = xᵀ, with zeros for the keys that are not looked at. */
INLINE void turn(const attending *p, const float *x, const token_tile *keys) {
    const float *rows[SAP_TILE];
    for (int j = 0; j < keys->width; j++)
        rows[j] = j < keys->count ? x + j * p->queries.width : NULL;
    load(rows, p->queries.width, keys->width, p->turned);
}

static void attend_backward(const sap_attention *a, int64_t head, int64_t first) {
    attending p;
    start(&p, a, head, first);
    int width = p.queries.width;
    int64_t y_at = head_at(&p.queries, head, a->heads, a->value_dim);
    const float *y = a->y + y_at, *dy = a->dy + y_at;
    float *dq = a->dq + head_at(&p.queries, head, a->heads, a->key_dim);
    for (int t = 0; t < width; t++) {
        p.top[t] = a->statistic[head * sap_tokens_room(a->queries) + first + t];
        p.sum[t] = 0;
    }
    for (int64_t e = 0; e < a->value_dim; e++)
        for (int t = 0; t < width; t++)
            p.sum[t] += y[e * width + t] * dy[e * width + t];
    for (token_tile keys = {0}; next_keys(&p, &keys);) {
        int64_t k_at = head_at(&keys, head, a->heads, a->key_dim), v_at = head_at(&keys, head, a->heads, a->value_dim);
        find_scores(&p, &keys);
        multiply(keys.count, a->value_dim, a->v + v_at, keys.width, false, dy, width, p.g, false);
        if (a->drop)
            weigh_backward(true, &p, &keys);
        else
            weigh_backward(false, &p, &keys);
        turn(&p, p.s, &keys);
        multiply(a->value_dim, p.queries.count, dy, width, true, p.turned, keys.width, a->dv + v_at, true);
        turn(&p, p.g, &keys);
        multiply(a->key_dim, p.queries.count, p.q, width, true, p.turned, keys.width, a->dk + k_at, true);
        multiply(a->key_dim, keys.count, a->k + k_at, keys.width, true, p.g, width, dq, keys.first > 0);
    }
    float factor = a->scale * log2_e;
    for (int64_t i = 0; i < a->key_dim * width; i += W)
        store_vec(dq + i, load_vec(dq + i) * factor);
}

static void attention_backward(const sap_attention *a) {
    size_t room = (size_t)(sap_tokens_room(a->keys) * a->heads) * sizeof(float);
    memset(a->dk, 0, room * (size_t)a->key_dim);
    memset(a->dv, 0, room * (size_t)a->value_dim);
    for (int64_t head = 0; head < a->heads; head++)
        for (int64_t first = 0; first < a->queries; first += SAP_TILE)
            attend_backward(a, head, first);
}

static const sap_attention_kernels attention_kernels = {.forward = attention_forward, .backward = attention_backward};
