/* Layer normalisation: each column of a tile is shifted and scaled to mean 0 and variance 1, then as is learnt.
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

struct sap_normalization_kernels {
    void (*forward)(const sap_normalization *normalization);
    void (*backward)(const sap_normalization *normalization);
};

#endif
