/* The plain form of attention: the formulas, one pair of tokens after the other. */
#include "attention.h"

#include <math.h>

/* Value f (of F) of token i. */
static int64_t at(int64_t tokens, int64_t values, int64_t f, int64_t i) {
    int64_t first = i - i % SAP_TILE, left = sap_tokens_room(tokens - first);
    return first * values + f * (left < SAP_TILE ? left : SAP_TILE) + i % SAP_TILE;
}

/* Σ_f x[first + f] of token i · z[first + f] of token j. */
static float dot(int64_t dim, int64_t head, int64_t heads, const float *x, int64_t x_tokens, int64_t i, const float *z,
                 int64_t z_tokens, int64_t j) {
    float sum = 0;
    for (int64_t f = head * dim; f < (head + 1) * dim; f++)
        sum += x[at(x_tokens, heads * dim, f, i)] * z[at(z_tokens, heads * dim, f, j)];
    return sum;
}

static int64_t keys_of(const sap_attention *a, int64_t i) {
    return a->limit ? a->limit[i] : a->keys;
}

/* A key that stands for n equal ones has their weights together: e^(s + ln n) = n e^s. */
static float score(const sap_attention *a, int64_t head, int64_t i, int64_t j) {
    float s = a->scale * dot(a->key_dim, head, a->heads, a->q, a->queries, i, a->k, a->keys, j);
    return j == a->keys - 1 ? s + logf(a->repeat) : s;
}

static float factor(const sap_attention *a, int64_t head, int64_t i, int64_t j) {
    if (!a->drop)
        return 1;
    return sap_dropout_bits(a->key_a, a->key_b, sap_attention_value(a, head, i, j)) >= a->threshold ? a->kept : 0;
}

static void attend(const sap_attention *a, int64_t head, int64_t i) {
    float max = score(a, head, i, 0), sum = 0;
    for (int64_t j = 1; j < keys_of(a, i); j++)
        max = fmaxf(max, score(a, head, i, j));
    for (int64_t j = 0; j < keys_of(a, i); j++)
        sum += expf(score(a, head, i, j) - max);
    float statistic = max + logf(sum); /* the weights are e^(score - statistic) */
    a->statistic[head * sap_tokens_room(a->queries) + i] = statistic;
    int64_t values = a->heads * a->value_dim;
    for (int64_t f = head * a->value_dim; f < (head + 1) * a->value_dim; f++)
        a->y[at(a->queries, values, f, i)] = 0;
    for (int64_t j = 0; j < keys_of(a, i); j++) {
        float weight = expf(score(a, head, i, j) - statistic) * factor(a, head, i, j);
        for (int64_t f = head * a->value_dim; f < (head + 1) * a->value_dim; f++)
            a->y[at(a->queries, values, f, i)] += weight * a->v[at(a->keys, values, f, j)];
    }
}

static void forward(const sap_attention *a) {
    for (int64_t head = 0; head < a->heads; head++)
        for (int64_t i = 0; i < a->queries; i++)
            attend(a, head, i);
}

/* dscore = weight · (dweight - Σ_j weight dweight), and Σ_j weight dweight = y · dy */
static void attend_backward(const sap_attention *a, int64_t head, int64_t i) {
    int64_t values = a->heads * a->value_dim, keys = a->heads * a->key_dim;
    float statistic = a->statistic[head * sap_tokens_room(a->queries) + i];
    float mean = dot(a->value_dim, head, a->heads, a->y, a->queries, i, a->dy, a->queries, i);
    for (int64_t j = 0; j < keys_of(a, i); j++) {
        float weight = expf(score(a, head, i, j) - statistic), kept = factor(a, head, i, j);
        float dweight = kept * dot(a->value_dim, head, a->heads, a->dy, a->queries, i, a->v, a->keys, j);
        float dscore = weight * (dweight - mean) * a->scale;
        for (int64_t f = head * a->value_dim; f < (head + 1) * a->value_dim; f++)
            a->dv[at(a->keys, values, f, j)] += weight * kept * a->dy[at(a->queries, values, f, i)];
        for (int64_t f = head * a->key_dim; f < (head + 1) * a->key_dim; f++) {
            a->dq[at(a->queries, keys, f, i)] += dscore * a->k[at(a->keys, keys, f, j)];
            a->dk[at(a->keys, keys, f, j)] += dscore * a->q[at(a->queries, keys, f, i)];
        }
    }
}

static void zero(int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++)
        x[i] = 0;
}

static void backward(const sap_attention *a) {
    zero(sap_tokens_room(a->queries) * a->heads * a->key_dim, a->dq);
    zero(sap_tokens_room(a->keys) * a->heads * a->key_dim, a->dk);
    zero(sap_tokens_room(a->keys) * a->heads * a->value_dim, a->dv);
    for (int64_t head = 0; head < a->heads; head++)
        for (int64_t i = 0; i < a->queries; i++)
            attend_backward(a, head, i);
}

extern const sap_attention_kernels sap_attention_plain;
const sap_attention_kernels sap_attention_plain = {.forward = forward, .backward = backward};
