/* Adam and SGD with Keras 3's formulas and defaults, on flat arrays. */
#include "nn_internal.h"

#include <math.h>
#include <stdlib.h>

sap_status sap_optimizer_check(const sap_optimizer *settings, sap_optimizer *out, sap_error *err) {
    bool adam = settings->kind == SAP_OPTIMIZER_ADAM;
    if (!adam && settings->kind != SAP_OPTIMIZER_SGD)
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: no such kind: %d", (int)settings->kind);
    *out = *settings;
    if (out->learning_rate == 0)
        out->learning_rate = adam ? 1e-3 : 1e-2;
    if (adam && out->beta_1 == 0)
        out->beta_1 = 0.9;
    if (adam && out->beta_2 == 0)
        out->beta_2 = 0.999;
    if (adam && out->epsilon == 0)
        out->epsilon = 1e-7;
    if (!(out->learning_rate > 0 && out->learning_rate < INFINITY))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: a learning rate of %g", out->learning_rate);
    if (!(out->beta_1 >= 0 && out->beta_1 < 1 && out->beta_2 >= 0 && out->beta_2 < 1 && out->epsilon >= 0))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: beta_1 %g, beta_2 %g, epsilon %g", out->beta_1,
                             out->beta_2, out->epsilon);
    if (!(out->momentum >= 0 && out->momentum <= 1))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: a momentum of %g", out->momentum);
    return SAP_OK;
}

sap_status sap_optimizer_init(sap_optimizer_state *state, const sap_optimizer *settings, int64_t count,
                              sap_error *err) {
    state->settings = *settings;
    state->iteration = 0;
    state->slot_count = settings->kind == SAP_OPTIMIZER_ADAM ? 2 : settings->momentum != 0 ? 1 : 0;
    size_t bytes = ((size_t)count * sizeof(float) + 127) / 64 * 64;
    for (int32_t i = 0; i < state->slot_count; i++) {
        state->slots[i] = aligned_alloc(64, bytes);
        if (!state->slots[i]) {
            sap_optimizer_release(state);
            return sap_error_memory(err, "optimizer");
        }
        memset(state->slots[i], 0, bytes);
    }
    return SAP_OK;
}

void sap_optimizer_release(sap_optimizer_state *state) {
    free(state->slots[0]);
    free(state->slots[1]);
    *state = (sap_optimizer_state){0};
}

void sap_optimizer_step(sap_optimizer_state *state, const sap_kernels *kernels, int64_t count, const float *gradients,
                        float *values) {
    const sap_optimizer *s = &state->settings;
    double step = (double)++state->iteration;
    if (s->kind == SAP_OPTIMIZER_ADAM) {
        sap_adam adam = {
            .alpha = (float)(s->learning_rate * sqrt(1 - pow(s->beta_2, step)) / (1 - pow(s->beta_1, step))),
            .one_minus_beta_1 = (float)(1 - s->beta_1),
            .one_minus_beta_2 = (float)(1 - s->beta_2),
            .epsilon = (float)s->epsilon,
        };
        kernels->adam(&adam, count, gradients, state->slots[0], state->slots[1], values);
    } else if (state->slot_count > 0) {
        kernels->momentum((float)s->learning_rate, (float)s->momentum, s->nesterov, count, gradients, state->slots[0],
                          values);
    } else {
        kernels->descend((float)s->learning_rate, count, gradients, values);
    }
}
