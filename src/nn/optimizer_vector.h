/* The vector form of the optimizers, included by kernels_vector.h: one pass over the parameters. */
#include "optimizer.h"

INLINE float clipped(const sap_update *u, float g) {
    g *= u->scale;
    g = g > u->limit ? u->limit : g;
    return g < -u->limit ? -u->limit : g;
}

/* largest: that of a step with `has_largest`, which is known when this is compiled. */
INLINE void adam_pass(const bool has_largest, const sap_update *update, int64_t n, const float *restrict gradient,
                      float *restrict m, float *restrict v, float *restrict largest, float *restrict w) {
    const sap_update u = *update;
    for (int64_t i = 0; i < n; i++) {
        float g = clipped(&u, gradient[i]);
        m[i] += (g - m[i]) * u.one_minus_beta_1;
        float square = v[i] + (g * g - v[i]) * u.one_minus_beta_2;
        v[i] = square;
        if (has_largest)
            square = largest[i] = largest[i] > square ? largest[i] : square;
        w[i] = w[i] - w[i] * u.decay - m[i] * u.rate / (u.root * sqrtf(square) + u.epsilon);
    }
}

static void adam_step(const sap_update *u, int64_t n, const float *g, float *m, float *v, float *largest, float *w) {
    if (largest)
        adam_pass(true, u, n, g, m, v, largest, w);
    else
        adam_pass(false, u, n, g, m, v, NULL, w);
}

INLINE void momentum_pass(const bool nesterov, const sap_update *update, int64_t n, const float *restrict gradient,
                          float *restrict m, float *restrict w) {
    const sap_update u = *update;
    for (int64_t i = 0; i < n; i++) {
        float step = clipped(&u, gradient[i]) * u.rate, next = m[i] * u.momentum - step;
        m[i] = next;
        w[i] = w[i] - w[i] * u.decay + (nesterov ? next * u.momentum - step : next);
    }
}

INLINE void descend_pass(const sap_update *update, int64_t n, const float *restrict gradient, float *restrict w) {
    const sap_update u = *update;
    for (int64_t i = 0; i < n; i++)
        w[i] = w[i] - w[i] * u.decay - clipped(&u, gradient[i]) * u.rate;
}

static void descend_step(const sap_update *u, int64_t n, const float *g, float *m, float *w) {
    if (!m)
        descend_pass(u, n, g, w);
    else if (u->nesterov)
        momentum_pass(true, u, n, g, m, w);
    else
        momentum_pass(false, u, n, g, m, w);
}

static void average_step(float momentum, int64_t n, const float *restrict w, float *restrict to) {
    float rest = 1 - momentum;
    for (int64_t i = 0; i < n; i++)
        to[i] = momentum * to[i] + rest * w[i];
}

static double squares_of(int64_t n, const float *g) {
    enum { LANES = 16 };
    double sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            sums[k] += (double)g[i + k] * (double)g[i + k];
    for (; i < n; i++)
        sum += (double)g[i] * (double)g[i];
    for (int k = 0; k < LANES; k++)
        sum += sums[k];
    return sum;
}

static const sap_optimizer_kernels optimizer_kernels = {
    .adam = adam_step,
    .descend = descend_step,
    .average = average_step,
    .squares = squares_of,
};
