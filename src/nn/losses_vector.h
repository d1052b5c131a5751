/* The vector form of the losses: loops over whole columns, included by kernels_vector.h behind its elementary functions. */
#include "losses.h"

#define LOSS_LEAST 1e-7F
#define LOSS_MOST (1 - 1e-7F)

INLINE float clip_of(float p) {
    p = p < LOSS_LEAST ? LOSS_LEAST : p;
    return p > LOSS_MOST ? LOSS_MOST : p;
}

INLINE float inside_of(float p) { /* 1 where the clip changes nothing */
    return p >= LOSS_LEAST && p <= LOSS_MOST ? 1.0F : 0.0F;
}

/* Runs `body`, which has the loss of value y and target t in column c, over all values, with the gradient last. */
#define EACH_COLUMN for (int c = 0; c < n; c++)
#define ROW(pointer) ((pointer) + r * n)

INLINE void categorical_logits(const int n, const sap_loss_tile *s) {
    const float *restrict factor = s->factor;
    float *restrict loss = s->loss, max[SAP_TILE], sum[SAP_TILE] = {0}, log_sum[SAP_TILE];
    float keep = s->keep, share = s->share;
    EACH_COLUMN max[c] = s->y[c];
    for (int64_t r = 1; r < s->values; r++) {
        const float *restrict y = ROW(s->y);
        EACH_COLUMN max[c] = y[c] > max[c] ? y[c] : max[c];
    }
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y);
        float e[SAP_TILE];
        EACH_COLUMN {
            e[c] = exp_of(y[c] - max[c]);
            sum[c] += e[c];
        }
        if (s->dy)
            memcpy(ROW(s->dy), e, (size_t)n * sizeof *e);
    }
    EACH_COLUMN {
        log_sum[c] = log_of(sum[c]) + max[c];
        sum[c] = factor[c] / sum[c];
        loss[c] = 0;
    }
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        EACH_COLUMN loss[c] += (keep * target[c] + share) * (log_sum[c] - y[c]);
        if (!s->dy)
            continue;
        float *restrict dy = ROW(s->dy);
        EACH_COLUMN dy[c] = dy[c] * sum[c] - (keep * target[c] + share) * factor[c];
    }
}

INLINE void categorical_probabilities(const int n, const sap_loss_tile *s) {
    const float *restrict factor = s->factor;
    float *restrict loss = s->loss, sum[SAP_TILE] = {0}, through[SAP_TILE] = {0};
    float keep = s->keep, share = s->share;
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y);
        EACH_COLUMN sum[c] += y[c];
    }
    EACH_COLUMN loss[c] = 0;
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        EACH_COLUMN {
            float p = y[c] / sum[c], goal = keep * target[c] + share;
            loss[c] -= goal * log_of(clip_of(p));
            through[c] += goal * inside_of(p);
        }
    }
    EACH_COLUMN through[c] /= sum[c];
    for (int64_t r = 0; s->dy && r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        float *restrict dy = ROW(s->dy);
        EACH_COLUMN {
            float goal = keep * target[c] + share;
            float own = inside_of(y[c] / sum[c]) > 0 ? goal / y[c] : 0;
            dy[c] = factor[c] == 0 ? 0 : factor[c] * (through[c] - own);
        }
    }
}

INLINE void sparse_probabilities(const int n, const sap_loss_tile *s) {
    const float *restrict factor = s->factor;
    float *restrict loss = s->loss, sum[SAP_TILE] = {0}, log_sum[SAP_TILE];
    float keep = s->keep, share = s->share;
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y);
        EACH_COLUMN sum[c] += clip_of(y[c]);
    }
    EACH_COLUMN {
        log_sum[c] = log_of(sum[c]);
        loss[c] = 0;
    }
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        EACH_COLUMN loss[c] += (keep * target[c] + share) * (log_sum[c] - log_of(clip_of(y[c])));
        if (!s->dy)
            continue;
        float *restrict dy = ROW(s->dy);
        EACH_COLUMN {
            float goal = keep * target[c] + share;
            dy[c] = factor[c] * inside_of(y[c]) * (1 / sum[c] - goal / clip_of(y[c]));
        }
    }
}

/* log(1 + e) for 0 <= e <= 1, good where e is small too. */
INLINE float log1p_of(float e) {
    float u = 1 + e, d = u - 1;
    return d > 0 ? log_of(u) * (e / (d > 0 ? d : 1)) : e;
}

INLINE void binary_logits(const int n, const sap_loss_tile *s) {
    const float *restrict factor = s->factor;
    float *restrict loss = s->loss;
    float keep = s->keep, share = s->share, part = 1 / (float)s->values;
    EACH_COLUMN loss[c] = 0;
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        EACH_COLUMN {
            float goal = keep * target[c] + share, e = exp_of(y[c] > 0 ? -y[c] : y[c]);
            loss[c] += part * ((y[c] < 0 ? 0 : y[c]) - y[c] * goal + log1p_of(e));
        }
        if (!s->dy)
            continue;
        float *restrict dy = ROW(s->dy);
        EACH_COLUMN dy[c] = factor[c] * part * (sigmoid_of(y[c]) - (keep * target[c] + share));
    }
}

INLINE void binary_probabilities(const int n, const sap_loss_tile *s) {
    const float *restrict factor = s->factor;
    float *restrict loss = s->loss;
    float keep = s->keep, share = s->share, part = 1 / (float)s->values;
    EACH_COLUMN loss[c] = 0;
    for (int64_t r = 0; r < s->values; r++) {
        const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);
        EACH_COLUMN {
            float goal = keep * target[c] + share, p = clip_of(y[c]);
            loss[c] -= part * (goal * log_of(p) + (1 - goal) * log_of(1 - p));
        }
        if (!s->dy)
            continue;
        float *restrict dy = ROW(s->dy);
        EACH_COLUMN {
            float goal = keep * target[c] + share, p = clip_of(y[c]);
            dy[c] = factor[c] * part * inside_of(y[c]) * ((1 - goal) / (1 - p) - goal / p);
        }
    }
}

/* A mean over the values of a function of e = y - target. */
#define OF_DIFFERENCE(value, slope)                                                                                    \
    do {                                                                                                               \
        const float *restrict factor = s->factor;                                                                      \
        float *restrict loss = s->loss, part = 1 / (float)s->values, delta = s->delta;                                 \
        (void)delta;                                                                                                   \
        EACH_COLUMN loss[c] = 0;                                                                                       \
        for (int64_t r = 0; r < s->values; r++) {                                                                      \
            const float *restrict y = ROW(s->y), *restrict target = ROW(s->target);                                    \
            EACH_COLUMN {                                                                                              \
                float e = y[c] - target[c];                                                                            \
                loss[c] += part * (value);                                                                             \
            }                                                                                                          \
            if (!s->dy)                                                                                                \
                continue;                                                                                              \
            float *restrict dy = ROW(s->dy);                                                                           \
            EACH_COLUMN {                                                                                              \
                float e = y[c] - target[c];                                                                            \
                dy[c] = factor[c] * part * (slope);                                                                    \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

INLINE float size_of(float e) {
    return e < 0 ? -e : e;
}

INLINE void squared_error(const int n, const sap_loss_tile *s) {
    OF_DIFFERENCE(e * e, 2 * e);
}

INLINE void absolute_error(const int n, const sap_loss_tile *s) {
    OF_DIFFERENCE(size_of(e), e > 0 ? 1.0F : e < 0 ? -1.0F : e);
}

INLINE void huber_error(const int n, const sap_loss_tile *s) {
    OF_DIFFERENCE(size_of(e) <= delta ? 0.5F * e * e : delta * size_of(e) - 0.5F * delta * delta, e > delta    ? delta
                                                                                                  : e < -delta ? -delta
                                                                                                               : e);
}

INLINE void largest_value(const int n, int64_t values, const float *all, int32_t *restrict best) {
    float max[SAP_TILE];
    EACH_COLUMN {
        max[c] = all[c];
        best[c] = 0;
    }
    for (int64_t r = 1; r < values; r++) {
        const float *restrict y = ROW(all);
        EACH_COLUMN {
            best[c] = y[c] > max[c] ? (int32_t)r : best[c];
            max[c] = y[c] > max[c] ? y[c] : max[c];
        }
    }
}

/* Full tiles have code of their own. */
#define FOR_WIDTHS(function)                                                                                           \
    do {                                                                                                               \
        if (s->width == SAP_TILE)                                                                                      \
            function(SAP_TILE, s);                                                                                     \
        else                                                                                                           \
            function(s->width, s);                                                                                     \
    } while (0)

static void loss_categorical(const sap_loss_tile *s) {
    if (s->from_logits)
        FOR_WIDTHS(categorical_logits);
    else
        FOR_WIDTHS(categorical_probabilities);
}

static void loss_sparse(const sap_loss_tile *s) {
    if (s->from_logits)
        FOR_WIDTHS(categorical_logits);
    else
        FOR_WIDTHS(sparse_probabilities);
}

static void loss_binary(const sap_loss_tile *s) {
    if (s->from_logits)
        FOR_WIDTHS(binary_logits);
    else
        FOR_WIDTHS(binary_probabilities);
}

static void loss_squared(const sap_loss_tile *s) {
    FOR_WIDTHS(squared_error);
}

static void loss_absolute(const sap_loss_tile *s) {
    FOR_WIDTHS(absolute_error);
}

static void loss_huber(const sap_loss_tile *s) {
    FOR_WIDTHS(huber_error);
}

static void loss_largest(int64_t values, int width, const float *y, int32_t *best) {
    if (width == SAP_TILE)
        largest_value(SAP_TILE, values, y, best);
    else
        largest_value(width, values, y, best);
}

static const sap_loss_kernels loss_kernels = {
    .categorical = loss_categorical,
    .sparse = loss_sparse,
    .binary = loss_binary,
    .squared = loss_squared,
    .absolute = loss_absolute,
    .huber = loss_huber,
    .largest = loss_largest,
};
