/* The plain form of layer and batch normalisation: the formulas, column by column. */
#include "normalization.h"

#include <math.h>

typedef struct moments {
    float mean, factor; /* 1 / sqrt(variance + epsilon) */
} moments;

static moments moments_of(const sap_normalization *n, int t) {
    float sum = 0, squares = 0;
    for (int64_t r = 0; r < n->rows; r++)
        sum += n->x[r * n->width + t];
    float mean = sum / (float)n->rows;
    for (int64_t r = 0; r < n->rows; r++)
        squares += (n->x[r * n->width + t] - mean) * (n->x[r * n->width + t] - mean);
    return (moments){mean, 1 / sqrtf(squares / (float)n->rows + n->epsilon)};
}

static void forward(const sap_normalization *n) {
    for (int t = 0; t < n->width; t++) {
        moments m = moments_of(n, t);
        for (int64_t r = 0; r < n->rows; r++) {
            float z = (n->x[r * n->width + t] - m.mean) * m.factor;
            n->y[r * n->width + t] = z * (n->gamma ? n->gamma[r] : 1) + (n->beta ? n->beta[r] : 0);
        }
    }
}

/* dx = factor (dz - mean of dz - z · mean of z dz) */
static void backward(const sap_normalization *n) {
    for (int t = 0; t < n->width; t++) {
        moments m = moments_of(n, t);
        float sum = 0, product = 0;
        for (int64_t r = 0; r < n->rows; r++) {
            int64_t at = r * n->width + t;
            float z = (n->x[at] - m.mean) * m.factor, dz = n->dy[at] * (n->gamma ? n->gamma[r] : 1);
            sum += dz;
            product += z * dz;
            n->dgamma[r * SAP_COLUMNS + t % SAP_COLUMNS] += z * n->dy[at];
            n->dbeta[r * SAP_COLUMNS + t % SAP_COLUMNS] += n->dy[at];
        }
        for (int64_t r = 0; n->dx && r < n->rows; r++) {
            int64_t at = r * n->width + t;
            float z = (n->x[at] - m.mean) * m.factor, dz = n->dy[at] * (n->gamma ? n->gamma[r] : 1);
            float d = m.factor * (dz - sum / (float)n->rows - z * product / (float)n->rows);
            n->dx[at] = n->add ? n->dx[at] + d : d;
        }
    }
}

static void sums(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        for (int t = 0; t < p->width; t++) {
            float x = p->x[r * p->width + t], d = p->mean ? (x - p->mean[r]) * (x - p->mean[r]) : x;
            p->sums[r] += (double)(p->counts[t] * d);
        }
    }
}

static void products(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        for (int t = 0; t < p->width; t++) {
            float d = p->dy[r * p->width + t];
            p->sums[r] += (double)d;
            p->products[r] += (double)(d * (p->x[r * p->width + t] - p->mean[r]));
        }
    }
}

static void recenter(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        for (int t = 0; t < p->width; t++) {
            int64_t at = r * p->width + t;
            float d = p->scale[r] * p->dy[at] - p->counts[t] * (p->shift[r] + p->slope[r] * (p->x[at] - p->mean[r]));
            p->dx[at] = p->add ? p->dx[at] + d : d;
        }
    }
}

extern const sap_normalization_kernels sap_normalization_plain;
const sap_normalization_kernels sap_normalization_plain = {
    .forward = forward,
    .backward = backward,
    .sums = sums,
    .products = products,
    .recenter = recenter,
};
