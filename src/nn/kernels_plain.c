/* The plain form of every kernel: the reference that the vector forms are tested against. */
#include "activation_formulas.h"
#include "recurrent.h"

static void product(const sap_product *p) {
    int T = p->width;
    for (int64_t r = 0; r < p->rows; r++) {
        for (int t = 0; t < T; t++) {
            float sum = p->add ? p->y[r * T + t] : p->bias ? p->bias[r] : 0;
            for (int64_t k = 0; k < p->depth; k++)
                sum += p->w[r * p->row_step + k * p->depth_step] * p->x[k * T + t];
            p->y[r * T + t] = p->relu && sum < 0 ? 0 : sum;
        }
    }
}

static float dot(int T, const float *x, const float *d) {
    float sum = 0;
    for (int t = 0; t < T; t++)
        sum += (x ? x[t] : 1) * d[t];
    return sum;
}

static void outer(int64_t in, int64_t out, int T, const float *x, const float *d, float *gw, float *gb) {
    for (int64_t o = 0; o < out; o++) {
        for (int64_t i = 0; i < in; i++)
            gw[i * out + o] += dot(T, x + i * T, d + o * T);
        if (gb)
            gb[o] += dot(T, NULL, d + o * T);
    }
}

static void load(const float *const *rows, int64_t values, int T, float *tile) {
    for (int64_t v = 0; v < values; v++)
        for (int t = 0; t < T; t++)
            tile[v * T + t] = rows[t] ? rows[t][v] : 0;
}

static void activate(const sap_activation *activation, const float *z, float *a, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        a[i] = sap_activation_value(*activation, z[i]);
}

static void activate_gradient(const sap_activation *activation, const float *z, const float *a, float *d, int64_t n) {
    bool from_input = sap_activation_needs_input(activation->kind);
    for (int64_t i = 0; i < n; i++)
        d[i] *= sap_activation_slope(*activation, from_input ? z[i] : 0, a[i]);
}

static float column_max(int64_t rows, int T, const float *z, int t) {
    float max = z[t];
    for (int64_t r = 1; r < rows; r++)
        max = z[r * T + t] > max ? z[r * T + t] : max;
    return max;
}

static void softmax(int64_t rows, int T, const float *z, float *a) {
    for (int t = 0; t < T; t++) {
        float max = column_max(rows, T, z, t), sum = 0;
        for (int64_t r = 0; r < rows; r++)
            sum += a[r * T + t] = expf(z[r * T + t] - max);
        for (int64_t r = 0; r < rows; r++)
            a[r * T + t] /= sum;
    }
}

static void softmax_gradient(int64_t rows, int T, const float *a, float *d) {
    for (int t = 0; t < T; t++) {
        float dot = 0;
        for (int64_t r = 0; r < rows; r++)
            dot += a[r * T + t] * d[r * T + t];
        for (int64_t r = 0; r < rows; r++)
            d[r * T + t] = a[r * T + t] * (d[r * T + t] - dot);
    }
}

static void dropout(const sap_dropout *p, const float *x, float *y, bool add) {
    int T = p->width;
    for (int64_t v = 0; v < p->values; v++) {
        for (int t = 0; t < T; t++) {
            bool kept = sap_dropout_bits(p->key_a[t], p->key_b[t], p->first + (uint32_t)v) >= p->threshold;
            float value = kept ? x[v * T + t] * p->scale : 0;
            y[v * T + t] = add ? y[v * T + t] + value : value;
        }
    }
}

static void add_to(int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void affine(int64_t rows, int T, const float *scale, const float *shift, const float *x, float *y, bool add) {
    for (int64_t r = 0; r < rows; r++) {
        for (int t = 0; t < T; t++) {
            float value = x[r * T + t] * scale[r] + (shift ? shift[r] : 0);
            y[r * T + t] = add ? y[r * T + t] + value : value;
        }
    }
}

extern const sap_loss_kernels sap_loss_kernels_plain;
extern const sap_optimizer_kernels sap_optimizer_kernels_plain;
extern const sap_attention_kernels sap_attention_plain;
extern const sap_normalization_kernels sap_normalization_plain;
extern const sap_kernels sap_kernels_plain;
const sap_kernels sap_kernels_plain = {
    .name = "plain",
    .losses = &sap_loss_kernels_plain,
    .optimizers = &sap_optimizer_kernels_plain,
    .attention = &sap_attention_plain,
    .normalization = &sap_normalization_plain,
    .recurrent = &sap_recurrent_plain,
    .product = product,
    .outer = outer,
    .load = load,
    .activate = activate,
    .activate_gradient = activate_gradient,
    .softmax = softmax,
    .softmax_gradient = softmax_gradient,
    .dropout = dropout,
    .add = add_to,
    .affine = affine,
};
