/* Attention between the steps of each row, normalisation of layers and batches, and pooling over steps, on the device. */
#ifndef SAP_CUDA_ATTENTION_H
#define SAP_CUDA_ATTENTION_H

#include "cuda_recurrent.h"

/* Formulas as in attention.h; (positions, heads · dim) row-major. A row without keys gives 0. A query that does not count, or meets no key that
 * does, gives the mean of all values of the row, or 0. */
struct attention {
    int32_t heads, key_dim, value_dim;
    sequences queries, keys;
    const float *query_counts, *key_counts; /* (positions) 0: does not count; NULL: all do */
    bool causal;                            /* a query meets no key behind it */
    bool means_all;                         /* what a query without a key gets; else 0 */
    int64_t longest;                        /* most queries and keys of a row */
    float scale;
    bool drop;
    uint32_t threshold, key;
    float kept;
    const uint64_t *row_keys;
    /* With dropout, where some tokens do not count: the number of each (positions) among those of its row that meet some, by which random numbers
     * are drawn, and how many those are, (rows, 2): queries, keys; else NULL. */
    int32_t *query_number, *key_number, *meeting;
    const float *q, *k, *v;
    float *y, *statistic; /* statistic: (positions of queries, heads); infinity: the query meets no key */
    const float *dy;
    float *products;     /* (positions of queries, heads): y · dy, scratch of the backward pass */
    float *dq, *dk, *dv; /* NULL: not wanted */
    bool add[3];         /* to dq, dk, dv */
};
void launch_attention(cudaStream_t stream, const attention &p, int64_t rows_most);
void launch_attention_gradient(cudaStream_t stream, const attention &p, int64_t rows_most);

/* Along rows of `width` numbers: y = (x - mean) / sqrt(variance + epsilon) · gamma + beta; gamma, beta may be NULL. */
struct normalization {
    extent n; /* rows */
    int64_t most, width;
    float epsilon;
    const float *gamma, *beta, *x;
    float *y, *statistic; /* (rows, 2): mean and 1 / deviation */
    const float *dy;
    float *dx; /* NULL: not wanted */
    bool add;
    float *work, *dgamma, *dbeta; /* normalization_work floats; added to; NULL: not wanted */
};
void launch_normalization(cudaStream_t stream, const normalization &p);
void launch_normalization_gradient(cudaStream_t stream, const normalization &p);
int64_t normalization_work(int64_t most, int64_t width);

/* Of each of `width` features over all positions: y = (x - mean) / sqrt(variance + epsilon) · gamma + beta; gamma, beta may be NULL. */
struct batch_normalization {
    extent n;            /* positions */
    const float *counts; /* (steps of all rows) 0: their positions take no part in sums; NULL: all do */
    int64_t places;      /* positions a step */
    int64_t most, width;
    bool own; /* mean and variance of the batch, from which the moving ones learn; else the moving ones */
    double epsilon, momentum;
    const float *gamma, *beta, *x;
    float *moving_mean, *moving_variance;
    float *y, *statistic; /* (2, width): mean and 1 / deviation */
    const float *dy;
    float *dx; /* NULL: not wanted */
    bool add;
    double *work;          /* batch_normalization_work numbers */
    float *dgamma, *dbeta; /* added to; NULL: not wanted */
};
void launch_batch_normalization(cudaStream_t stream, const batch_normalization &p);
void launch_batch_normalization_gradient(cudaStream_t stream, const batch_normalization &p);
int64_t batch_normalization_work(int64_t most, int64_t width);

/* y (rows, width): the mean of the steps (positions, width) of each row that count, or the largest of all; 0 where there is none. */
struct pooling {
    sequences at;
    const float *counts; /* (positions) 0: does not count; NULL: all do */
    int64_t width;
    bool largest;
    const float *x;
    float *y;
    const float *dy;
    float *dx;
    bool add;
};
void launch_pooling(cudaStream_t stream, const pooling &p, int64_t rows_most);
void launch_pooling_gradient(cudaStream_t stream, const pooling &p, int64_t rows_most);

#endif
