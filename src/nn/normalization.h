/* Layer normalisation: each column of a tile is shifted and scaled to mean 0 and variance 1, then as is learnt; and the
 * sums along the columns that batch normalisation takes its mean and variance from.
 *
 *     z = (x - mean) / sqrt(variance + epsilon),  y[r] = gamma[r] z[r] + beta[r]
 */
#ifndef SAP_NORMALIZATION_H
#define SAP_NORMALIZATION_H

#include "kernels.h"

typedef struct sap_normalization {
    int64_t rows; /* over which mean and variance are taken */
    int width;
    float epsilon;
    const float *gamma, *beta; /* (rows); NULL: 1 and 0 */
    const float *x;            /* (rows, width) */
    float *y;                  /* of the forward pass */
    const float *dy;           /* of the backward pass */
    float *dx;                 /* written or added to; NULL: not wanted */
    bool add;
    float *dgamma, *dbeta; /* (rows, SAP_COLUMNS) added to: sums over columns 0, 16, …, over 1, 17, … and so on */
} sap_normalization;

/* A part of a batch in batch normalisation. */
typedef struct sap_batch_normalization {
    int64_t rows;
    int width;
    const float *counts; /* (width) 1: the column counts, 0: it does not */
    const float *x;      /* (rows, width) */
    const float *mean;   /* (rows) */
    const float *dy;
    double *sums;     /* (rows) added to */
    double *products; /* (rows) likewise */
    /* dx[r][t] (= or +=) scale[r] dy[r][t] - counts[t] (shift[r] + slope[r] (x[r][t] - mean[r])) */
    const float *scale, *shift, *slope;
    float *dx;
    bool add;
} sap_batch_normalization;

struct sap_normalization_kernels {
    void (*forward)(const sap_normalization *normalization);
    void (*backward)(const sap_normalization *normalization);
    /* sums[r] += Σ x[r][t] over the columns that count; with `mean`: Σ (x[r][t] - mean[r])² */
    void (*sums)(const sap_batch_normalization *part);
    /* sums[r] += Σ dy[r][t], products[r] += Σ dy[r][t] (x[r][t] - mean[r]) over all columns */
    void (*products)(const sap_batch_normalization *part);
    void (*recenter)(const sap_batch_normalization *part);
};

#endif
