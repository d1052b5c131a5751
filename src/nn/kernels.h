/* Kernels on tiles: the arithmetic of layers, losses and optimizers, in a plain form and in vector forms.
 *
 * A tile holds up to SAP_TILE rows (events) of a tensor, feature-major, in `width` columns: value v of row t stands at
 * [v * width + t], aligned to 64 bytes. The width is 16, 32, 48 or 64. Kernels work on all columns; the unused ones are
 * zero on input, and their gradients are made zero where the loss is taken, so that they add nothing anywhere.
 *
 * The plain form (kernels_plain.c) reads like the formulas and is the reference. The vector forms are one source
 * (kernels_vector.h), compiled for several instruction sets. Every form gives the same bits whatever the number of
 * threads; forms differ from each other by rounding.
 */
#ifndef SAP_KERNELS_H
#define SAP_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SAP_TILE = 64,                      /* most columns of a tile */
    SAP_COLUMNS = 16,                   /* a width is a multiple of it */
    SAP_PARTS = SAP_TILE / SAP_COLUMNS, /* how many widths there are */
};

/* Steps of a tile that have the same number of columns. */
typedef struct sap_part {
    int32_t first, count; /* steps [first, first + count) */
    int32_t width;        /* columns: a multiple of SAP_COLUMNS */
    int64_t start;        /* sum of the widths of all steps before */
} sap_part;

/* Where the steps of a tile's sequences stand: value f (of F a step) of row r at step t of part p is
 * x[(p.start + (t - p.first) * p.width) * F + f * p.width + r]. Widths do not grow with time, so that there are at most
 * SAP_PARTS parts. A row takes part in step t if t < length[row]; columns of a step behind that hold finite numbers, and
 * their gradients are zero. A tensor that is not ragged has one part, and all steps in each row. */
typedef struct sap_steps {
    int32_t count; /* steps of the longest row; may be 0 */
    int32_t part_count;
    sap_part parts[SAP_PARTS];
    int32_t length[SAP_TILE]; /* steps of each row; 0 for unused columns */
} sap_steps;

/* Columns of all steps together: a tensor has so many times the values of a step. */
static inline int64_t sap_steps_columns(const sap_steps *steps) {
    if (steps->part_count == 0)
        return 0;
    const sap_part *last = &steps->parts[steps->part_count - 1];
    return last->start + (int64_t)last->count * last->width;
}

/* Fills in everything else from `length`, for a tile of `width` columns: at step t there are as many columns as the last
 * row with more than t steps asks for. */
void sap_steps_set(sap_steps *steps, int width);

/* Where a step stands. */
typedef struct sap_step_place {
    int64_t start; /* sum of the widths of the steps before */
    int width;
    int32_t first, end; /* the steps of its part */
} sap_step_place;

sap_step_place sap_steps_place(const sap_steps *steps, int32_t t);

typedef enum sap_activation_kind {
    SAP_LINEAR = 0,
    SAP_RELU,
    SAP_RELU_GENERAL, /* slope · (x - threshold) below the threshold, x above it, at most limit */
    SAP_ELU,          /* alpha · (e^x - 1) below 0 */
    SAP_SELU,
    SAP_SIGMOID,
    SAP_HARD_SIGMOID, /* x / 6 + 1/2, between 0 and 1 */
    SAP_TANH,
    SAP_SOFTPLUS,
    SAP_SOFTSIGN,
    SAP_EXPONENTIAL,
    SAP_SILU,
    SAP_GELU,      /* x Φ(x) */
    SAP_GELU_TANH, /* its approximation with tanh */
    SAP_HARD_SILU, /* x hard_sigmoid(x) */
    SAP_MISH,      /* x tanh(ln(1 + e^x)) */
    SAP_LOG_SIGMOID,
    SAP_SQUAREPLUS,     /* (x + sqrt(x² + 4)) / 2 */
    SAP_SPARSE_PLUS,    /* 0 below -1, (x + 1)² / 4 below 1, then x */
    SAP_SPARSE_SIGMOID, /* (x + 1) / 2, between 0 and 1 */
    SAP_HARD_TANH,      /* x, between -1 and 1 */
    SAP_TANH_SHRINK,    /* x - tanh x */
    SAP_SOFT_SHRINK,    /* x moved by 1/2 towards 0, which it does not pass */
    SAP_HARD_SHRINK,    /* x, or 0 within 1/2 of it */
    SAP_LOG_SOFTMAX,    /* along the last axis, as softmax */
    SAP_SOFTMAX         /* along the last axis; these two have kernels of their own */
} sap_activation_kind;

typedef struct sap_activation {
    sap_activation_kind kind;
    float alpha;     /* ELU; slope of SAP_RELU_GENERAL */
    float threshold; /* SAP_RELU_GENERAL */
    float limit;     /* SAP_RELU_GENERAL; infinity: none */
} sap_activation;

/* Whether the derivative is computed from the input (z) rather than from the output (a). */
static inline bool sap_activation_needs_input(sap_activation_kind kind) {
    return kind == SAP_RELU_GENERAL || (kind >= SAP_SILU && kind < SAP_LOG_SOFTMAX);
}

/* y[r][t] = start + Σ_k w[r * row_step + k * depth_step] x[k][t]; start is bias[r], or y[r][t] when `add`, or 0. */
typedef struct sap_product {
    int64_t rows, depth;
    const float *w;
    int64_t row_step, depth_step;
    int width;
    const float *x;    /* (depth, width) */
    float *y;          /* (rows, width) */
    const float *bias; /* (rows) or NULL */
    bool add;          /* then bias is NULL */
    bool relu;         /* y = max(y, 0) at the end */
} sap_product;

typedef struct sap_dropout {
    int64_t values;
    int width;
    uint32_t first;                /* number of the first value among those of the event, for its random number */
    uint32_t threshold;            /* a value is dropped when its random number is below: rate · 2^32 */
    float scale;                   /* of the others: 1 / (1 - rate) */
    const uint32_t *key_a, *key_b; /* (width) two words of each event's key */
} sap_dropout;

/* What random numbers of dropped values are below: rate · 2^32, as near as 32 bits come. */
static inline uint32_t sap_dropout_threshold(double rate) {
    double threshold = rate * 0x1p32;
    return threshold < 4294967295.0 ? (uint32_t)threshold : UINT32_MAX;
}

/* The random number of value v of an event: the same in every form. */
static inline uint32_t sap_dropout_bits(uint32_t a, uint32_t b, uint32_t v) {
    uint32_t x = v * UINT32_C(0x9E3779B9) + a;
    x ^= x >> 16;
    x *= UINT32_C(0x7FEB352D);
    x ^= x >> 15;
    x += b;
    x *= UINT32_C(0x846CA68B);
    return x ^ x >> 16;
}

typedef struct sap_loss_kernels sap_loss_kernels;
typedef struct sap_optimizer_kernels sap_optimizer_kernels;
typedef struct sap_recurrent_kernels sap_recurrent_kernels;
typedef struct sap_attention_kernels sap_attention_kernels;
typedef struct sap_normalization_kernels sap_normalization_kernels;

typedef struct sap_kernels {
    const char *name;
    const sap_loss_kernels *losses;
    const sap_optimizer_kernels *optimizers;
    const sap_recurrent_kernels *recurrent;
    const sap_attention_kernels *attention;
    const sap_normalization_kernels *normalization;
    void (*product)(const sap_product *product);
    /* gw[i][o] += Σ_t x[i][t] d[o][t] and gb[o] += Σ_t d[o][t]; gw: (in, out), gb: (out) or NULL */
    void (*outer)(int64_t in, int64_t out, int width, const float *x, const float *d, float *gw, float *gb);
    /* tile[v][t] = rows[t][v]; rows: (width) pointers to `values` numbers each, NULL for zeros */
    void (*load)(const float *const *rows, int64_t values, int width, float *tile);
    /* n numbers, n a multiple of SAP_COLUMNS; not for SAP_SOFTMAX. z and a may be the same. */
    void (*activate)(const sap_activation *activation, const float *z, float *a, int64_t n);
    /* d = d · da/dz; z is looked at only when sap_activation_needs_input */
    void (*activate_gradient)(const sap_activation *activation, const float *z, const float *a, float *d, int64_t n);
    /* along `rows` of one tile; z and a may be the same */
    void (*softmax)(int64_t rows, int width, const float *z, float *a);
    void (*softmax_gradient)(int64_t rows, int width, const float *a, float *d);
    /* y (= or +=) x, kept and scaled or dropped */
    void (*dropout)(const sap_dropout *dropout, const float *x, float *y, bool add);
    /* y += x */
    void (*add)(int64_t n, const float *x, float *y);
    /* y (= or +=) x · scale[r] + shift[r] along the rows of a tile; shift may be NULL */
    void (*affine)(int64_t rows, int width, const float *scale, const float *shift, const float *x, float *y, bool add);
} sap_kernels;

/* The fastest form that this processor can run. */
const sap_kernels *sap_kernels_best(void);
/* The fastest form whose products take bf16 and sum in float32; NULL: the processor has no AMX, or the system does not let us use it. */
const sap_kernels *sap_kernels_bf16(void);
/* The products of `tiles`, all else of `base`. */
sap_kernels sap_kernels_with_tiles(const sap_kernels *base, const sap_kernels *tiles);
/* Forms that this processor can run, the plain one first; NULL after the last. */
const sap_kernels *sap_kernels_at(size_t index);

#endif
