/* The plain form of the optimizers: the reference that the vector forms are tested against. */
#include "optimizer.h"

#include <math.h>

static float clipped(const sap_update *u, float g) {
    g *= u->scale;
    return g > u->limit ? u->limit : g < -u->limit ? -u->limit : g;
}

static void adam(const sap_update *u, int64_t n, const float *gradient, float *m, float *v, float *largest, float *w) {
    for (int64_t i = 0; i < n; i++) {
        float g = clipped(u, gradient[i]);
        m[i] += (g - m[i]) * u->one_minus_beta_1;
        v[i] += (g * g - v[i]) * u->one_minus_beta_2;
        float square = v[i];
        if (largest)
            square = largest[i] = largest[i] > v[i] ? largest[i] : v[i];
        w[i] -= w[i] * u->decay;
        w[i] -= m[i] * u->rate / (u->root * sqrtf(square) + u->epsilon);
    }
}

static void descend(const sap_update *u, int64_t n, const float *gradient, float *m, float *w) {
    for (int64_t i = 0; i < n; i++) {
        float step = clipped(u, gradient[i]) * u->rate;
        w[i] -= w[i] * u->decay;
        if (!m) {
            w[i] -= step;
            continue;
        }
        m[i] = m[i] * u->momentum - step;
        w[i] += u->nesterov ? m[i] * u->momentum - step : m[i];
    }
}

static void average(float momentum, int64_t n, const float *w, float *to) {
    for (int64_t i = 0; i < n; i++)
        to[i] = momentum * to[i] + (1 - momentum) * w[i];
}

static double squares(int64_t n, const float *g) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)g[i] * (double)g[i];
    return sum;
}

extern const sap_optimizer_kernels sap_optimizer_kernels_plain;
const sap_optimizer_kernels sap_optimizer_kernels_plain = {
    .adam = adam,
    .descend = descend,
    .average = average,
    .squares = squares,
};
