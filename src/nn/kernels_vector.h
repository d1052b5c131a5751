/* The vector form of every kernel: one source, compiled once for each instruction set.
 *
 * A file that includes it defines SAP_WIDTH (floats a vector: 4, 8 or 16), SAP_FORM (the name of its table) and
 * SAP_FORM_NAME. The two products are written with the compiler's vector types, because their speed hangs on what
 * stays in registers; everything else is loops over whole tiles that the compiler turns into vector code.
 */
#include "kernels.h"

#include <math.h>
#include <string.h>

enum { W = SAP_WIDTH };

typedef float vec __attribute__((vector_size(SAP_WIDTH * 4)));
typedef float vec4 __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Calls f with the width as a constant, so that its loops over columns are straight vector code. */
#define BY_WIDTH(f, width, ...)                                                                                        \
    do {                                                                                                               \
        switch (width) {                                                                                               \
        case 64:                                                                                                       \
            f(64, __VA_ARGS__);                                                                                        \
            break;                                                                                                     \
        case 48:                                                                                                       \
            f(48, __VA_ARGS__);                                                                                        \
            break;                                                                                                     \
        case 32:                                                                                                       \
            f(32, __VA_ARGS__);                                                                                        \
            break;                                                                                                     \
        default:                                                                                                       \
            f(16, __VA_ARGS__);                                                                                        \
        }                                                                                                              \
    } while (0)

INLINE vec load_vec(const float *p) { /* aligned */
    return *(const vec *)p;
}

INLINE void store_vec(float *p, vec value) {
    *(vec *)p = value;
}

/* ---- y = w x -------------------------------------------------------------------------------------------- */

/* ROWS × COLUMNS vectors of sums stay in registers: 12 of 16, or 24 of 32. */
enum { ROWS = 6, COLUMNS = SAP_WIDTH == 16 ? 4 : 2 };

/* Cuts `count` into the fewest parts of at most `most`, as equal as they can be; gives the first of `left` parts. */
INLINE int64_t part_of(int64_t count, int64_t *left, int64_t most) {
    if (*left == 0)
        *left = (count + most - 1) / most;
    int64_t part = (count + *left - 1) / *left;
    --*left;
    return part;
}

#ifndef SAP_TILES /* these have products of their own */
INLINE void product_block(const int T, const int columns, const int rows, const sap_product *p, int64_t first, int t) {
    const float *w = p->w + first * p->row_step, *x = p->x + t;
    float *y = p->y + first * T + t;
    int64_t row_step = p->row_step, depth_step = p->depth_step, depth = p->depth;
    vec sum[ROWS][COLUMNS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < columns; c++) {
            sum[r][c] = (vec){0};
            if (p->bias)
                sum[r][c] += p->bias[first + r];
            if (p->add)
                sum[r][c] = load_vec(y + r * T + c * W);
        }
    }
    for (int64_t k = 0; k < depth; k++) {
        vec xs[COLUMNS];
        UNROLL
        for (int c = 0; c < columns; c++)
            xs[c] = load_vec(x + c * W);
        UNROLL
        for (int r = 0; r < rows; r++) {
            float weight = w[r * row_step];
            UNROLL
            for (int c = 0; c < columns; c++)
                sum[r][c] += xs[c] * weight;
        }
        x += T;
        w += depth_step;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < columns; c++) {
            vec value = sum[r][c];
            if (p->relu) /* lets NaN through */
                value = (vec)((__typeof__(value < value))value & ~(value < 0));
            store_vec(y + r * T + c * W, value);
        }
    }
}

INLINE void product_width(const int T, const sap_product *p) {
    const int columns = T / W < COLUMNS ? T / W : COLUMNS;
    for (int t = 0; t < T; t += columns * W) {
        int64_t parts = 0;
        for (int64_t first = 0; first < p->rows;) {
            int64_t rows = part_of(p->rows - first, &parts, ROWS);
            switch (rows) {
            case 1:
                product_block(T, columns, 1, p, first, t);
                break;
            case 2:
                product_block(T, columns, 2, p, first, t);
                break;
            case 3:
                product_block(T, columns, 3, p, first, t);
                break;
            case 4:
                product_block(T, columns, 4, p, first, t);
                break;
            case 5:
                product_block(T, columns, 5, p, first, t);
                break;
            default:
                product_block(T, columns, 6, p, first, t);
            }
            first += rows;
        }
    }
}

static void product(const sap_product *p) {
    BY_WIDTH(product_width, p->width, p);
}

#endif

/* ---- gw += x dᵀ ----------------------------------------------------------------------------------------- */

/* Interleaves the lower (upper) halves of each 128-bit lane, and the first (last) two of each. */
#if SAP_WIDTH == 4
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define FIRST(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define LAST(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#elif SAP_WIDTH == 8
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define FIRST(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define LAST(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define FIRST(a, b) __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define LAST(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#endif

/* The sums of the elements of each of four vectors. */
INLINE vec4 sums_of(vec a, vec b, vec c, vec d) {
    vec ab = LOW(a, b) + HIGH(a, b), cd = LOW(c, d) + HIGH(c, d);
    vec all = FIRST(ab, cd) + LAST(ab, cd);
#if SAP_WIDTH == 16
    typedef float vec8 __attribute__((vector_size(32)));
    vec8 half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif SAP_WIDTH == 8
    return __builtin_shufflevector(all, all, 0, 1, 2, 3) + __builtin_shufflevector(all, all, 4, 5, 6, 7);
#else
    return all;
#endif
}

#ifndef SAP_TILES
/* rows × 4 vectors of partial sums in registers; `outs` of the 4 are there. With `ones` the last row of x is all
 * ones and its products go to gb: the gradient of the bias. */
enum { OUTER_ROWS = SAP_WIDTH == 16 ? 6 : 3 };

INLINE void outer_block(const int T, const int rows, const bool ones, const int outs, int64_t out, const float *x,
                        const float *d, float *gw, float *gb) {
    vec sum[OUTER_ROWS][4];
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
    for (int o = 0; o < 4; o++)
        sum[i][o] = (vec){0};
    for (int t = 0; t < T; t += W) {
        vec xs[OUTER_ROWS];
        UNROLL
        for (int i = 0; i < rows; i++)
            xs[i] = ones && i == rows - 1 ? (vec){0} + 1.0F : load_vec(x + i * T + t);
        UNROLL
        for (int o = 0; o < outs; o++) {
            vec ds = load_vec(d + o * T + t);
            UNROLL
            for (int i = 0; i < rows; i++)
                sum[i][o] += xs[i] * ds;
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        float *to = ones && i == rows - 1 ? gb : gw + i * out;
        vec4 four = sums_of(sum[i][0], sum[i][1], sum[i][2], sum[i][3]), old = {0};
        memcpy(&old, to, (size_t)outs * sizeof(float));
        old += four;
        memcpy(to, &old, (size_t)outs * sizeof(float));
    }
}

INLINE void outer_rows(const int T, const int rows, const bool ones, int64_t out, const float *x, const float *d,
                       float *gw, float *gb) {
    int64_t o = 0;
    for (; o + 4 <= out; o += 4)
        outer_block(T, rows, ones, 4, out, x, d + o * T, gw + o, ones ? gb + o : NULL);
    switch (out - o) {
    case 1:
        outer_block(T, rows, ones, 1, out, x, d + o * T, gw + o, ones ? gb + o : NULL);
        break;
    case 2:
        outer_block(T, rows, ones, 2, out, x, d + o * T, gw + o, ones ? gb + o : NULL);
        break;
    case 3:
        outer_block(T, rows, ones, 3, out, x, d + o * T, gw + o, ones ? gb + o : NULL);
        break;
    default:
        break;
    }
}

/* The last rows, of which there may be none, and the row of ones. */
INLINE void outer_tail(const int T, const bool ones, int64_t rows, int64_t out, const float *x, const float *d,
                       float *gw, float *gb) {
    switch (rows + ones) {
    case 1:
        outer_rows(T, 1, ones, out, x, d, gw, gb);
        break;
    case 2:
        outer_rows(T, 2, ones, out, x, d, gw, gb);
        break;
    case 3:
        outer_rows(T, 3, ones, out, x, d, gw, gb);
        break;
#if SAP_WIDTH == 16
    case 4:
        outer_rows(T, 4, ones, out, x, d, gw, gb);
        break;
    case 5:
        outer_rows(T, 5, ones, out, x, d, gw, gb);
        break;
    case 6:
        outer_rows(T, 6, ones, out, x, d, gw, gb);
        break;
#endif
    default:
        break;
    }
}

INLINE void outer_width(const int T, int64_t in, int64_t out, const float *x, const float *d, float *gw, float *gb) {
    int64_t i = 0;
    for (; i + OUTER_ROWS <= in; i += OUTER_ROWS)
        outer_rows(T, OUTER_ROWS, false, out, x + i * T, d, gw + i * out, NULL);
    if (gb)
        outer_tail(T, true, in - i, out, x + i * T, d, gw + i * out, gb);
    else
        outer_tail(T, false, in - i, out, x + i * T, d, gw + i * out, NULL);
}

static void outer(int64_t in, int64_t out, int width, const float *x, const float *d, float *gw, float *gb) {
    BY_WIDTH(outer_width, width, in, out, x, d, gw, gb);
}

#endif

/* ---- Elementary functions, good to about one unit in the last place ------------------------------------- */

INLINE float from_bits(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE int32_t to_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float power_of_two(int32_t n) { /* -126 to 127; unsigned, since n may be anything where x is NaN */
    return from_bits((int32_t)(((uint32_t)n + 127) << 23));
}

/* e^x = 2^n e^r with |r| <= ln 2 / 2. Above 88.8 it gives infinity, below -100 nearly 0; NaN stays NaN. */
INLINE float exp_of(float x) {
    x = x > 89.0F ? 89.0F : x;
    x = x < -100.0F ? -100.0F : x;
    float shifted = x * 1.44269504F + 12582912.0F; /* 1.5 · 2^23: the low bits now hold n */
    float n = shifted - 12582912.0F;
    float r = x - n * 0.693359375F + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    /* 2^n in two factors, since n may be 128 or below the least exponent */
    int32_t exponent = (int32_t)((uint32_t)to_bits(shifted) - UINT32_C(0x4B400000)), half = exponent >> 1;
    return p * power_of_two(half) * power_of_two(exponent - half);
}

/* ln x for normal x > 0. */
INLINE float log_of(float x) {
    int32_t bits = to_bits(x);
    int32_t exponent =
        (int32_t)((uint32_t)bits - UINT32_C(0x3F3504F3)) >> 23; /* x / 2^exponent in [sqrt(1/2), sqrt(2)) */
    float m = from_bits((int32_t)((uint32_t)bits - ((uint32_t)exponent << 23))) - 1.0F, n = (float)exponent;
    float p = 7.0376836292e-2F;
    p = p * m - 1.1514610310e-1F;
    p = p * m + 1.1676998740e-1F;
    p = p * m - 1.2420140846e-1F;
    p = p * m + 1.4249322787e-1F;
    p = p * m - 1.6668057665e-1F;
    p = p * m + 2.0000714765e-1F;
    p = p * m - 2.4999993993e-1F;
    p = p * m + 3.3333331174e-1F;
    float square = m * m, y = p * m * square - n * 2.12194440e-4F - 0.5F * square;
    return m + y + n * 0.693359375F;
}

/* No cancellation on either side; below -87 it gives e^-87, which is nearly 0. */
INLINE float sigmoid_of(float x) {
    x = x < -87.0F ? -87.0F : x;
    x = x > 87.0F ? 87.0F : x;
    float shifted = 12582912.0F - x * 1.44269504F; /* as in exp_of, but 2^n needs one factor */
    float n = shifted - 12582912.0F;
    float r = n * 2.12194440e-4F - n * 0.693359375F - x;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    return 1.0F / (1.0F + p * power_of_two((int32_t)((uint32_t)to_bits(shifted) - UINT32_C(0x4B400000))));
}

/* x P(x²) / Q(x²), the best such fit of its degrees to tanh x / x for |x| <= 9.02, beyond which tanh x is 1. */
INLINE float tanh_of(float x) {
    float y = x > 9.02F ? 9.02F : x;
    y = y < -9.02F ? -9.02F : y;
    float square = y * y;
    float p = 1.81627778e-11F;
    p = p * square - 1.27439583e-8F;
    p = p * square + 9.25517885e-6F;
    p = p * square + 2.91941705e-3F;
    p = p * square + 1.29179768e-1F;
    p = p * square + 9.99999940e-1F;
    float q = 2.27914483e-4F;
    q = q * square + 2.37576609e-2F;
    q = q * square + 4.62512597e-1F;
    q = q * square + 1.0F;
    float value = y * p / q;
    value = value > 1.0F ? 1.0F : value;
    return value < -1.0F ? -1.0F : value;
}

/* e^x - 1 for x <= 0. */
INLINE float expm1_of(float x) {
    float p = 1.9875691500e-4F;
    p = p * x + 1.3981999507e-3F;
    p = p * x + 8.3334519073e-3F;
    p = p * x + 4.1665795894e-2F;
    p = p * x + 1.6666665459e-1F;
    p = p * x + 5.0000001201e-1F;
    float small = p * x * x + x, large = exp_of(x) - 1.0F;
    return x > -0.35F ? small : large;
}

/* ---- Activations ---------------------------------------------------------------------------------------- */

static const float selu_scale = 1.05070098735548049F, selu_alpha = 1.67326324235437728F;
static const float gelu_root = 0.797884560802865F, gelu_cube = 0.044715F; /* sqrt(2/π) */

INLINE float phi(float x) {
    return 0.5F * erfcf(-x * 0.707106781186547524F);
}

INLINE float squareplus_of(float x) { /* (x + root) / 2 without cancellation */
    float root = sqrtf(x * x + 4);
    return x < 0 ? 2 / (root - x) : (root + x) * 0.5F;
}

/* tanh(ln(1 + e^x)) = (e² + 2e) / (e² + 2e + 2) */
INLINE float mish_tanh(float x) {
    float e = exp_of(x > 20 ? 20 : x), n = e * (e + 2);
    return n / (n + 2);
}

#define EACH(expression)                                                                                               \
    do {                                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float x = z[i];                                                                                            \
            a[i] = (expression);                                                                                       \
        }                                                                                                              \
        return;                                                                                                        \
    } while (0)

static void activate(const sap_activation *activation, const float *z, float *a, int64_t n) {
    float alpha = activation->alpha, threshold = activation->threshold, limit = activation->limit;
    switch (activation->kind) {
    case SAP_RELU:
        EACH(x < 0 ? 0 : x);
    case SAP_RELU_GENERAL:
        EACH(x < threshold ? alpha * (x - threshold) : x > limit ? limit : x);
    case SAP_ELU:
        EACH(x < 0 ? alpha * expm1_of(x) : x);
    case SAP_SELU:
        EACH(selu_scale * (x < 0 ? selu_alpha * expm1_of(x) : x));
    case SAP_SIGMOID:
        EACH(sigmoid_of(x));
    case SAP_HARD_SIGMOID:
        EACH(x < -3 ? 0 : x > 3 ? 1 : x * (1.0F / 6) + 0.5F);
    case SAP_TANH:
        EACH(tanh_of(x));
    case SAP_SOFTPLUS:
        EACH((x > 0 ? x : 0) + log1pf(exp_of(x < 0 ? x : -x)));
    case SAP_SOFTSIGN:
        EACH(x / (1 + (x < 0 ? -x : x)));
    case SAP_EXPONENTIAL:
        EACH(exp_of(x));
    case SAP_SILU:
        EACH(x * sigmoid_of(x));
    case SAP_GELU:
        EACH(x * phi(x));
    case SAP_GELU_TANH:
        EACH(x * sigmoid_of(2 * gelu_root * (x + gelu_cube * x * x * x))); /* 1 + tanh u = 2 sigmoid 2u */
    case SAP_HARD_SILU:
        EACH(x < -3 ? 0 : x > 3 ? x : x * (x * (1.0F / 6) + 0.5F));
    case SAP_MISH:
        EACH(x * mish_tanh(x));
    case SAP_LOG_SIGMOID:
        EACH((x < 0 ? x : 0) - log1pf(exp_of(x < 0 ? x : -x)));
    case SAP_SQUAREPLUS:
        EACH(squareplus_of(x));
    case SAP_SPARSE_PLUS:
        EACH(x <= -1 ? 0 : x < 1 ? (x + 1) * (x + 1) * 0.25F : x);
    case SAP_SPARSE_SIGMOID:
        EACH(x <= -1 ? 0 : x >= 1 ? 1 : (x + 1) * 0.5F);
    case SAP_HARD_TANH:
        EACH(x < -1 ? -1 : x > 1 ? 1 : x);
    case SAP_TANH_SHRINK:
        EACH(x - tanh_of(x));
    case SAP_SOFT_SHRINK:
        EACH(x > 0.5F ? x - 0.5F : x < -0.5F ? x + 0.5F : 0);
    case SAP_HARD_SHRINK:
        EACH(x <= 0.5F ? (x >= -0.5F ? 0 : x) : x);
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        EACH(x);
    }
}

#undef EACH
#define EACH(expression)                                                                                               \
    do {                                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float y = a[i];                                                                                            \
            d[i] *= (expression);                                                                                      \
        }                                                                                                              \
        return;                                                                                                        \
    } while (0)
#define EACH_FROM_INPUT(expression)                                                                                    \
    do {                                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float x = z[i];                                                                                            \
            d[i] *= (expression);                                                                                      \
        }                                                                                                              \
        return;                                                                                                        \
    } while (0)

INLINE float silu_slope(float x) {
    float s = sigmoid_of(x);
    return s * (1 + x * (1 - s));
}

INLINE float mish_slope(float x) {
    float h = mish_tanh(x);
    return h + x * (1 - h * h) * sigmoid_of(x);
}

INLINE float gelu_tanh_slope(float x) {
    float s = sigmoid_of(2 * gelu_root * (x + gelu_cube * x * x * x));
    return s + 2 * x * s * (1 - s) * gelu_root * (1 + 3 * gelu_cube * x * x);
}

static void activate_gradient(const sap_activation *activation, const float *restrict z, const float *restrict a,
                              float *restrict d, int64_t n) {
    float alpha = activation->alpha, threshold = activation->threshold, limit = activation->limit;
    switch (activation->kind) {
    case SAP_RELU:
        EACH(y > 0 ? 1 : 0);
    case SAP_RELU_GENERAL:
        EACH_FROM_INPUT(x > limit ? 0 : x > threshold ? 1 : alpha);
    case SAP_ELU:
        EACH(y < 0 ? y + alpha : 1);
    case SAP_SELU:
        EACH(y < 0 ? y + selu_scale * selu_alpha : selu_scale);
    case SAP_SIGMOID:
        EACH(y * (1 - y));
    case SAP_HARD_SIGMOID:
        EACH(y > 0 ? (y < 1 ? 1.0F / 6 : 0) : 0);
    case SAP_TANH:
        EACH(1 - y * y);
    case SAP_SOFTPLUS:
        EACH(-expm1_of(-y));
    case SAP_SOFTSIGN:
        EACH((1 - (y < 0 ? -y : y)) * (1 - (y < 0 ? -y : y)));
    case SAP_EXPONENTIAL:
        EACH(y);
    case SAP_SILU:
        EACH_FROM_INPUT(silu_slope(x));
    case SAP_GELU:
        EACH_FROM_INPUT(phi(x) + x * 0.398942280401433F * exp_of(-0.5F * x * x));
    case SAP_GELU_TANH:
        EACH_FROM_INPUT(gelu_tanh_slope(x));
    case SAP_HARD_SILU:
        EACH_FROM_INPUT(x < -3 ? 0 : x > 3 ? 1 : x * (1.0F / 3) + 0.5F);
    case SAP_MISH:
        EACH_FROM_INPUT(mish_slope(x));
    case SAP_LOG_SIGMOID:
        EACH_FROM_INPUT(sigmoid_of(-x));
    case SAP_SQUAREPLUS:
        EACH_FROM_INPUT(squareplus_of(x) / sqrtf(x * x + 4));
    case SAP_SPARSE_PLUS:
        EACH_FROM_INPUT(x <= -1 ? 0 : x < 1 ? (x + 1) * 0.5F : 1);
    case SAP_SPARSE_SIGMOID:
        EACH_FROM_INPUT(x > -1 ? (x < 1 ? 0.5F : 0) : 0);
    case SAP_HARD_TANH:
        EACH_FROM_INPUT(x < -1 ? 0 : x > 1 ? 0 : 1);
    case SAP_TANH_SHRINK:
        EACH_FROM_INPUT(tanh_of(x) * tanh_of(x));
    case SAP_SOFT_SHRINK:
    case SAP_HARD_SHRINK:
        EACH_FROM_INPUT(x <= 0.5F ? (x >= -0.5F ? 0 : 1) : 1);
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        return;
    }
}

/* ---- Softmax and loss ----------------------------------------------------------------------------------- */

INLINE void column_max(const int T, int64_t rows, const float *z, float *restrict max) {
    for (int t = 0; t < T; t++)
        max[t] = z[t];
    for (int64_t r = 1; r < rows; r++)
        for (int t = 0; t < T; t++)
            max[t] = z[r * T + t] > max[t] ? z[r * T + t] : max[t];
}

INLINE void softmax_width(const int T, int64_t rows, const float *z, float *a) {
    float max[SAP_TILE], sum[SAP_TILE] = {0};
    column_max(T, rows, z, max);
    for (int64_t r = 0; r < rows; r++) {
        float e[SAP_TILE];
        for (int t = 0; t < T; t++)
            e[t] = exp_of(z[r * T + t] - max[t]);
        for (int t = 0; t < T; t++)
            sum[t] += e[t];
        memcpy(a + r * T, e, (size_t)T * sizeof *e);
    }
    for (int t = 0; t < T; t++)
        sum[t] = 1 / sum[t];
    for (int64_t r = 0; r < rows; r++)
        for (int t = 0; t < T; t++)
            a[r * T + t] *= sum[t];
}

static void softmax(int64_t rows, int width, const float *z, float *a) {
    BY_WIDTH(softmax_width, width, rows, z, a);
}

INLINE void softmax_gradient_width(const int T, int64_t rows, const float *restrict a, float *restrict d) {
    float dot[SAP_TILE] = {0};
    for (int64_t r = 0; r < rows; r++)
        for (int t = 0; t < T; t++)
            dot[t] += a[r * T + t] * d[r * T + t];
    for (int64_t r = 0; r < rows; r++)
        for (int t = 0; t < T; t++)
            d[r * T + t] = a[r * T + t] * (d[r * T + t] - dot[t]);
}

static void softmax_gradient(int64_t rows, int width, const float *a, float *d) {
    BY_WIDTH(softmax_gradient_width, width, rows, a, d);
}

/* ---- The rest ------------------------------------------------------------------------------------------- */

#if SAP_WIDTH >= 8
typedef float vec8 __attribute__((vector_size(32)));
typedef float loose8 __attribute__((vector_size(32), aligned(4)));

/* Eight values of eight rows. */
INLINE void load_block(const int T, const float *const *rows, int64_t v, float *tile) {
    vec8 r[8], s[8];
    UNROLL
    for (int i = 0; i < 8; i++)
        r[i] = rows[i] ? *(const loose8 *)(rows[i] + v) : (vec8){0};
    UNROLL
    for (int i = 0; i < 8; i += 4) {
        vec8 a = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        vec8 b = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        vec8 c = __builtin_shufflevector(r[i + 2], r[i + 3], 0, 8, 1, 9, 4, 12, 5, 13);
        vec8 d = __builtin_shufflevector(r[i + 2], r[i + 3], 2, 10, 3, 11, 6, 14, 7, 15);
        s[i] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
        s[i + 1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
        s[i + 2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
        s[i + 3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        *(vec8 *)(tile + i * T) = __builtin_shufflevector(s[i], s[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(vec8 *)(tile + (i + 4) * T) = __builtin_shufflevector(s[i], s[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
#endif

INLINE void load_width(const int T, const float *const *rows, int64_t values, float *restrict tile) {
    int64_t v = 0;
#if SAP_WIDTH >= 8
    for (; v + 8 <= values; v += 8)
        for (int t = 0; t < T; t += 8)
            load_block(T, rows + t, v, tile + v * T + t);
#endif
    for (; v < values; v++)
        for (int t = 0; t < T; t++)
            tile[v * T + t] = rows[t] ? rows[t][v] : 0;
}

static void load(const float *const *rows, int64_t values, int width, float *tile) {
    BY_WIDTH(load_width, width, rows, values, tile);
}

INLINE void dropout_width(const int T, const sap_dropout *p, const float *restrict x, float *restrict y, bool add) {
    const uint32_t *restrict a = p->key_a, *restrict b = p->key_b;
    uint32_t threshold = p->threshold, first = p->first;
    float scale = p->scale;
    for (int64_t v = 0; v < p->values; v++) {
        float kept[SAP_TILE];
        for (int t = 0; t < T; t++)
            kept[t] = sap_dropout_bits(a[t], b[t], first + (uint32_t)v) >= threshold ? x[v * T + t] * scale : 0;
        for (int t = 0; t < T; t++)
            y[v * T + t] = add ? y[v * T + t] + kept[t] : kept[t];
    }
}

static void dropout(const sap_dropout *p, const float *x, float *y, bool add) {
    BY_WIDTH(dropout_width, p->width, p, x, y, add);
}

static void add_to(int64_t n, const float *restrict x, float *restrict y) {
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

INLINE void affine_width(const int T, int64_t rows, const float *scale, const float *shift, const float *restrict x,
                         float *restrict y, bool add) {
    for (int64_t r = 0; r < rows; r++) {
        float factor = scale[r], offset = shift ? shift[r] : 0;
        if (add)
            for (int t = 0; t < T; t++)
                y[r * T + t] += x[r * T + t] * factor + offset;
        else
            for (int t = 0; t < T; t++)
                y[r * T + t] = x[r * T + t] * factor + offset;
    }
}

static void affine(int64_t rows, int width, const float *scale, const float *shift, const float *x, float *y,
                   bool add) {
    BY_WIDTH(affine_width, width, rows, scale, shift, x, y, add);
}

#ifndef SAP_TILES
#include "attention_vector.h"
#include "losses_vector.h"
#include "normalization_vector.h"
#include "optimizer_vector.h"
#endif
#include "recurrent_vector.h"

extern const sap_kernels SAP_FORM;
const sap_kernels SAP_FORM = {
    .name = SAP_FORM_NAME,
#ifdef SAP_TILES /* kernels.c takes everything that is not here from avx512 */
    .product = tile_product,
    .outer = tile_outer,
#else
    .losses = &loss_kernels,
    .optimizers = &optimizer_kernels,
    .attention = &attention_kernels,
    .normalization = &normalization_kernels,
    .product = product,
    .outer = outer,
#endif
    .recurrent = &recurrent_kernels,
    .load = load,
    .activate = activate,
    .activate_gradient = activate_gradient,
    .softmax = softmax,
    .softmax_gradient = softmax_gradient,
    .dropout = dropout,
    .add = add_to,
    .affine = affine,
};
