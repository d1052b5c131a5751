/* Layer and batch normalisation with vectors of columns; included by kernels_vector.h. */
#include "normalization.h"

/* Of the columns in one vector: mean and 1 / sqrt(variance + epsilon). */
INLINE void moments_of(const sap_normalization *n, const float *x, vec *mean, vec *factor) {
    vec sum = {0}, squares = {0};
    float inverse = 1 / (float)n->rows;
    for (int64_t r = 0; r < n->rows; r++)
        sum += load_vec(x + r * n->width);
    *mean = sum * inverse;
    for (int64_t r = 0; r < n->rows; r++) {
        vec d = load_vec(x + r * n->width) - *mean;
        squares += d * d;
    }
    squares = squares * inverse + n->epsilon;
    for (int i = 0; i < W; i++)
        (*factor)[i] = 1 / sqrtf(squares[i]);
}

static void normalize(const sap_normalization *n) {
    for (int t = 0; t < n->width; t += W) {
        const float *x = n->x + t;
        float *y = n->y + t;
        vec mean, factor;
        moments_of(n, x, &mean, &factor);
        for (int64_t r = 0; r < n->rows; r++) {
            vec z = (load_vec(x + r * n->width) - mean) * factor;
            store_vec(y + r * n->width, z * (n->gamma ? n->gamma[r] : 1) + (n->beta ? n->beta[r] : 0));
        }
    }
}

static void normalize_backward(const sap_normalization *n) {
    float inverse = 1 / (float)n->rows;
    for (int t = 0; t < n->width; t += W) {
        const float *x = n->x + t, *dy = n->dy + t;
        float *dgamma = n->dgamma + t % SAP_COLUMNS, *dbeta = n->dbeta + t % SAP_COLUMNS;
        vec mean, factor, sum = {0}, product = {0};
        moments_of(n, x, &mean, &factor);
        for (int64_t r = 0; r < n->rows; r++) {
            vec z = (load_vec(x + r * n->width) - mean) * factor, d = load_vec(dy + r * n->width);
            vec dz = d * (n->gamma ? n->gamma[r] : 1);
            sum += dz;
            product += z * dz;
            store_vec(dgamma + r * SAP_COLUMNS, load_vec(dgamma + r * SAP_COLUMNS) + z * d);
            store_vec(dbeta + r * SAP_COLUMNS, load_vec(dbeta + r * SAP_COLUMNS) + d);
        }
        if (!n->dx)
            continue;
        sum *= inverse;
        product *= inverse;
        for (int64_t r = 0; r < n->rows; r++) {
            vec z = (load_vec(x + r * n->width) - mean) * factor;
            vec dz = load_vec(dy + r * n->width) * (n->gamma ? n->gamma[r] : 1);
            vec d = factor * (dz - sum - z * product);
            float *dx = n->dx + r * n->width + t;
            store_vec(dx, n->add ? load_vec(dx) + d : d);
        }
    }
}

INLINE double sum_of_vec(vec v) {
    double sum = 0;
    for (int i = 0; i < W; i++)
        sum += (double)v[i];
    return sum;
}

static void batch_sums(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        const float *x = p->x + r * p->width;
        vec sum = {0};
        for (int t = 0; t < p->width; t += W) {
            vec d = load_vec(x + t) - (p->mean ? p->mean[r] : 0), counts;
            memcpy(&counts, p->counts + t, sizeof counts);
            sum += counts * (p->mean ? d * d : d);
        }
        p->sums[r] += sum_of_vec(sum);
    }
}

static void batch_products(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        const float *x = p->x + r * p->width, *dy = p->dy + r * p->width;
        vec sum = {0}, product = {0};
        for (int t = 0; t < p->width; t += W) {
            vec d = load_vec(dy + t);
            sum += d;
            product += d * (load_vec(x + t) - p->mean[r]);
        }
        p->sums[r] += sum_of_vec(sum);
        p->products[r] += sum_of_vec(product);
    }
}

static void batch_recenter(const sap_batch_normalization *p) {
    for (int64_t r = 0; r < p->rows; r++) {
        const float *x = p->x + r * p->width, *dy = p->dy + r * p->width;
        float *dx = p->dx + r * p->width;
        for (int t = 0; t < p->width; t += W) {
            vec counts;
            memcpy(&counts, p->counts + t, sizeof counts);
            vec d =
                load_vec(dy + t) * p->scale[r] - counts * ((load_vec(x + t) - p->mean[r]) * p->slope[r] + p->shift[r]);
            store_vec(dx + t, p->add ? load_vec(dx + t) + d : d);
        }
    }
}

static const sap_normalization_kernels normalization_kernels = {
    .forward = normalize,
    .backward = normalize_backward,
    .sums = batch_sums,
    .products = batch_products,
    .recenter = batch_recenter,
};
