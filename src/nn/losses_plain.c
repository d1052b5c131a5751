/* The plain form of the losses: the reference that the vector forms are tested against. */
#include "losses.h"

#include <math.h>

static const float least = 1e-7F, most = 1 - 1e-7F; /* Keras' epsilon */

static float clip(float p) {
    return p < least ? least : p > most ? most : p;
}

static bool inside(float p) {
    return p >= least && p <= most;
}

static float goal(const sap_loss_tile *s, int64_t at) {
    return s->keep * s->target[at] + s->share;
}

static void put(const sap_loss_tile *s, int64_t at, int column, float gradient) {
    if (s->dy)
        s->dy[at] = s->factor[column] == 0 ? 0 : s->factor[column] * gradient;
}

static void categorical_logits(const sap_loss_tile *s, int t) {
    int64_t width = s->width;
    float max = -INFINITY, sum = 0;
    for (int64_t r = 0; r < s->values; r++)
        max = s->y[r * width + t] > max || isnan(s->y[r * width + t]) ? s->y[r * width + t] : max;
    for (int64_t r = 0; r < s->values; r++)
        sum += expf(s->y[r * width + t] - max);
    s->loss[t] = 0;
    for (int64_t r = 0; r < s->values; r++) {
        int64_t at = r * width + t;
        float z = s->y[at], goal_here = goal(s, at);
        s->loss[t] += goal_here * (logf(sum) + (max - z));
        put(s, at, t, expf(z - max) / sum - goal_here);
    }
}

static void categorical_probabilities(const sap_loss_tile *s, int t) {
    int64_t width = s->width;
    float sum = 0, through = 0; /* through: what comes back from the sum under the fraction */
    for (int64_t r = 0; r < s->values; r++)
        sum += s->y[r * width + t];
    s->loss[t] = 0;
    for (int64_t r = 0; r < s->values; r++) {
        int64_t at = r * width + t;
        float p = s->y[at] / sum;
        s->loss[t] -= goal(s, at) * logf(clip(p));
        through += inside(p) ? goal(s, at) : 0;
    }
    for (int64_t r = 0; r < s->values; r++) {
        int64_t at = r * width + t;
        put(s, at, t, through / sum - (inside(s->y[at] / sum) ? goal(s, at) / s->y[at] : 0));
    }
}

static void categorical(const sap_loss_tile *s) {
    for (int t = 0; t < s->width; t++)
        (s->from_logits ? categorical_logits : categorical_probabilities)(s, t);
}

static void sparse(const sap_loss_tile *s) {
    if (s->from_logits) {
        categorical(s);
        return;
    }
    int64_t width = s->width;
    for (int t = 0; t < width; t++) {
        float sum = 0;
        for (int64_t r = 0; r < s->values; r++)
            sum += clip(s->y[r * width + t]);
        s->loss[t] = 0;
        for (int64_t r = 0; r < s->values; r++) {
            int64_t at = r * width + t;
            float p = clip(s->y[at]);
            s->loss[t] += goal(s, at) * (logf(sum) - logf(p));
            put(s, at, t, inside(s->y[at]) ? 1 / sum - goal(s, at) / p : 0);
        }
    }
}

static void binary(const sap_loss_tile *s) {
    float share = 1 / (float)s->values;
    for (int t = 0; t < s->width; t++) {
        s->loss[t] = 0;
        for (int64_t r = 0; r < s->values; r++) {
            int64_t at = r * s->width + t;
            float y = s->y[at], g = goal(s, at), p = clip(y);
            if (s->from_logits) {
                s->loss[t] += share * ((y > 0 ? y : 0) - y * g + log1pf(expf(-fabsf(y))));
                put(s, at, t, share * (1 / (1 + expf(-y)) - g));
            } else {
                s->loss[t] -= share * (g * logf(p) + (1 - g) * logf(1 - p));
                put(s, at, t, inside(y) ? share * ((1 - g) / (1 - p) - g / p) : 0);
            }
        }
    }
}

/* The losses that are a mean over the values of a function of e = y - t. */
static void of_difference(const sap_loss_tile *s, float value(float, float), float slope(float, float)) {
    float share = 1 / (float)s->values;
    for (int t = 0; t < s->width; t++) {
        s->loss[t] = 0;
        for (int64_t r = 0; r < s->values; r++) {
            int64_t at = r * s->width + t;
            float e = s->y[at] - s->target[at];
            s->loss[t] += share * value(e, s->delta);
            put(s, at, t, share * slope(e, s->delta));
        }
    }
}

static float square(float e, float delta) {
    (void)delta;
    return e * e;
}
static float square_slope(float e, float delta) {
    (void)delta;
    return 2 * e;
}
static float size(float e, float delta) {
    (void)delta;
    return fabsf(e);
}
static float sign(float e, float delta) {
    (void)delta;
    return e > 0 ? 1.0F : e < 0 ? -1.0F : e; /* NaN stays */
}
static float huber_value(float e, float delta) {
    return fabsf(e) <= delta ? 0.5F * e * e : delta * fabsf(e) - 0.5F * delta * delta;
}
static float huber_slope(float e, float delta) {
    return e > delta ? delta : e < -delta ? -delta : e;
}

static void squared(const sap_loss_tile *s) {
    of_difference(s, square, square_slope);
}
static void absolute(const sap_loss_tile *s) {
    of_difference(s, size, sign);
}
static void huber(const sap_loss_tile *s) {
    of_difference(s, huber_value, huber_slope);
}

static void largest(int64_t values, int width, const float *y, int32_t *best) {
    for (int t = 0; t < width; t++) {
        best[t] = 0;
        for (int64_t r = 1; r < values; r++)
            if (y[r * width + t] > y[best[t] * width + t])
                best[t] = (int32_t)r;
    }
}

extern const sap_loss_kernels sap_loss_kernels_plain;
const sap_loss_kernels sap_loss_kernels_plain = {
    .categorical = categorical,
    .sparse = sparse,
    .binary = binary,
    .squared = squared,
    .absolute = absolute,
    .huber = huber,
    .largest = largest,
};
