/* Scaled dot-product attention of one event, forward and backward, without a matrix of all pairs in memory.
 *
 * Tokens stand in tiles whose columns are tokens: value f (of F) of token i is
 * x[(i - i % SAP_TILE) * F + f * width + i % SAP_TILE], where `width` is SAP_TILE, and in the last tile what is left,
 * rounded up to a multiple of SAP_COLUMNS. Of n tokens F values take sap_tokens_room(n) * F floats. The columns behind the last
 * token hold finite numbers; those of dy hold zeros.
 *
 *     score[i][j]  = scale · q[i] · k[j]              for the keys j that query i looks at
 *     weight[i][j] = e^score[i][j] / Σ_j e^score[i][j]
 *     y[i]         = Σ_j drop(weight[i][j]) v[j]
 */
#ifndef SAP_ATTENTION_H
#define SAP_ATTENTION_H

#include "kernels.h"

typedef struct sap_attention {
    int64_t heads, key_dim, value_dim; /* values of a head are neighbours: head h has [h * dim, (h + 1) * dim) */
    int64_t queries, keys;             /* both at least 1 */
    float scale;
    float repeat; /* the last key stands for so many equal ones, at least 1 */
    const int32_t
        *limit; /* (queries) query i looks at the first limit[i] keys, at least 1; not decreasing; NULL: all */
    bool drop;  /* weights are dropped or scaled by `kept`; not with repeat != 1 */
    uint32_t threshold, key_a, key_b; /* as in sap_dropout */
    float kept;                       /* 1 / (1 - rate) */
    const float *q, *k, *v;           /* (heads · key_dim), (heads · key_dim), (heads · value_dim) values a token */
    float *y;                         /* (heads · value_dim); the forward pass writes it, the backward pass reads it */
    float *statistic;                 /* (heads, sap_tokens_room(queries)) from the forward to the backward pass */
    const float *dy;                  /* of the backward pass alone */
    float *dq, *dk, *dv;              /* written; columns behind the last token get finite numbers */
    float *work;                      /* sap_attention_work(key_dim) floats, aligned to 64 bytes */
} sap_attention;

struct sap_attention_kernels {
    void (*forward)(const sap_attention *attention);
    void (*backward)(const sap_attention *attention);
};

/* Columns that `tokens` tokens take. */
static inline int64_t sap_tokens_room(int64_t tokens) {
    return (tokens + SAP_COLUMNS - 1) / SAP_COLUMNS * SAP_COLUMNS;
}

static inline int64_t sap_attention_work(int64_t key_dim) {
    return (key_dim + 3 * SAP_TILE) * SAP_TILE;
}

/* The number of the random value of a weight. */
static inline uint32_t sap_attention_value(const sap_attention *a, int64_t head, int64_t query, int64_t key) {
    return (uint32_t)((head * a->queries + query) * a->keys + key);
}

#endif
