/* The plain form of every kernel: the reference that the vector forms are tested against. */
#include "kernels.h"
#include "recurrent.h"

#include <math.h>

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

static const float selu_scale = 1.05070098735548049F, selu_alpha = 1.67326324235437728F;

static float phi(float x) { /* the normal distribution function */
    return 0.5F * erfcf(-x * 0.707106781186547524F);
}

static const float gelu_root = 0.797884560802865F, gelu_cube = 0.044715F; /* sqrt(2/π) */

static float squareplus(float x) { /* (x + root) / 2 without cancellation */
    float root = sqrtf(x * x + 4);
    return x < 0 ? 2 / (root - x) : (root + x) / 2;
}

static float value(const sap_activation *f, float x) {
    switch (f->kind) {
    case SAP_RELU:
        return x < 0 ? 0 : x;
    case SAP_RELU_GENERAL:
        return x < f->threshold ? f->alpha * (x - f->threshold) : x > f->limit ? f->limit : x;
    case SAP_ELU:
        return x < 0 ? f->alpha * expm1f(x) : x;
    case SAP_SELU:
        return selu_scale * (x < 0 ? selu_alpha * expm1f(x) : x);
    case SAP_SIGMOID:
        return 1 / (1 + expf(-x));
    case SAP_HARD_SIGMOID:
        return x < -3 ? 0 : x > 3 ? 1 : x / 6 + 0.5F;
    case SAP_TANH:
        return tanhf(x);
    case SAP_SOFTPLUS:
        return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
    case SAP_SOFTSIGN:
        return x / (1 + fabsf(x));
    case SAP_EXPONENTIAL:
        return expf(x);
    case SAP_SILU:
        return x / (1 + expf(-x));
    case SAP_GELU:
        return x * phi(x);
    case SAP_GELU_TANH:
        return 0.5F * x * (1 + tanhf(gelu_root * (x + gelu_cube * x * x * x)));
    case SAP_HARD_SILU:
        return x < -3 ? 0 : x > 3 ? x : x * (x / 6 + 0.5F);
    case SAP_MISH:
        return x * tanhf(x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x)));
    case SAP_LOG_SIGMOID:
        return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x));
    case SAP_SQUAREPLUS:
        return squareplus(x);
    case SAP_SPARSE_PLUS:
        return x <= -1 ? 0 : x < 1 ? (x + 1) * (x + 1) / 4 : x;
    case SAP_SPARSE_SIGMOID:
        return x <= -1 ? 0 : x >= 1 ? 1 : (x + 1) / 2;
    case SAP_HARD_TANH:
        return x < -1 ? -1 : x > 1 ? 1 : x;
    case SAP_TANH_SHRINK:
        return x - tanhf(x);
    case SAP_SOFT_SHRINK:
        return x > 0.5F ? x - 0.5F : x < -0.5F ? x + 0.5F : 0;
    case SAP_HARD_SHRINK:
        return x <= 0.5F && x >= -0.5F ? 0 : x;
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        break;
    }
    return x;
}

/* da/dz from z, or from a where that is enough. */
static float derivative(const sap_activation *f, float z, float a) {
    switch (f->kind) {
    case SAP_RELU:
        return a > 0 ? 1 : 0;
    case SAP_RELU_GENERAL:
        return z > f->limit ? 0 : z > f->threshold ? 1 : f->alpha;
    case SAP_ELU:
        return a < 0 ? a + f->alpha : 1;
    case SAP_SELU:
        return a < 0 ? a + selu_scale * selu_alpha : selu_scale;
    case SAP_SIGMOID:
        return a * (1 - a);
    case SAP_HARD_SIGMOID:
        return a > 0 && a < 1 ? 1.0F / 6 : 0;
    case SAP_TANH:
        return 1 - a * a;
    case SAP_SOFTPLUS:
        return -expm1f(-a);
    case SAP_SOFTSIGN:
        return (1 - fabsf(a)) * (1 - fabsf(a));
    case SAP_EXPONENTIAL:
        return a;
    case SAP_SILU: {
        float s = 1 / (1 + expf(-z));
        return s * (1 + z * (1 - s));
    }
    case SAP_GELU:
        return phi(z) + z * 0.398942280401433F * expf(-0.5F * z * z);
    case SAP_GELU_TANH: {
        float h = tanhf(gelu_root * (z + gelu_cube * z * z * z));
        return 0.5F * (1 + h) + 0.5F * z * (1 - h * h) * gelu_root * (1 + 3 * gelu_cube * z * z);
    }
    case SAP_HARD_SILU:
        return z < -3 ? 0 : z > 3 ? 1 : z / 3 + 0.5F;
    case SAP_MISH: {
        float h = tanhf(z > 0 ? z + log1pf(expf(-z)) : log1pf(expf(z)));
        return h + z * (1 - h * h) / (1 + expf(-z));
    }
    case SAP_LOG_SIGMOID:
        return 1 / (1 + expf(z));
    case SAP_SQUAREPLUS:
        return squareplus(z) / sqrtf(z * z + 4);
    case SAP_SPARSE_PLUS:
        return z <= -1 ? 0 : z < 1 ? (z + 1) / 2 : 1;
    case SAP_SPARSE_SIGMOID:
        return z > -1 && z < 1 ? 0.5F : 0;
    case SAP_HARD_TANH:
        return z < -1 || z > 1 ? 0 : 1;
    case SAP_TANH_SHRINK:
        return tanhf(z) * tanhf(z);
    case SAP_SOFT_SHRINK:
    case SAP_HARD_SHRINK:
        return z <= 0.5F && z >= -0.5F ? 0 : 1;
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        break;
    }
    return 1;
}

static void activate(const sap_activation *activation, const float *z, float *a, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        a[i] = value(activation, z[i]);
}

static void activate_gradient(const sap_activation *activation, const float *z, const float *a, float *d, int64_t n) {
    bool from_input = sap_activation_needs_input(activation->kind);
    for (int64_t i = 0; i < n; i++)
        d[i] *= derivative(activation, from_input ? z[i] : 0, a[i]);
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
