/* Optimizers on flat arrays: settings, state, one step; and their arithmetic in plain and vector forms. */
#ifndef SAP_OPTIMIZER_H
#define SAP_OPTIMIZER_H

#include "../base/base_internal.h"
#include "kernels.h"
#include <sapwood/nn.h>

/* What one step does to a number: g = clip(gradient · scale, ±limit), w -= w · decay, then the update. */
typedef struct sap_update {
    float scale, limit, decay;
    float rate;                               /* SGD: learning rate; Adam: · sqrt(1 - beta_2^n) / (1 - beta_1^n) */
    float one_minus_beta_1, one_minus_beta_2; /* Adam */
    float root, epsilon; /* Adam: w -= rate · m / (root · sqrt(v) + epsilon); root is 1 but for RAdam */
    float momentum;      /* SGD */
    bool nesterov;
} sap_update;

typedef struct sap_optimizer_kernels sap_optimizer_kernels;
struct sap_optimizer_kernels {
    /* m += (g - m)(1 - beta_1); v += (g² - v)(1 - beta_2); with `largest`, v is max(largest, v) from here on, kept there */
    void (*adam)(const sap_update *update, int64_t n, const float *g, float *m, float *v, float *largest, float *w);
    /* m = momentum · m - rate · g; w += nesterov ? momentum · m - rate · g : m; m NULL: w -= rate · g */
    void (*descend)(const sap_update *update, int64_t n, const float *g, float *m, float *w);
    /* average = momentum · average + (1 - momentum) · w */
    void (*average)(float momentum, int64_t n, const float *w, float *average);
    /* Σ g² */
    double (*squares)(int64_t n, const float *g);
};

enum { SAP_SLOT_MOMENTUM, SAP_SLOT_VELOCITY, SAP_SLOT_LARGEST, SAP_SLOT_AVERAGE, SAP_SLOTS };

/* A weight array among the trainable parameters. */
typedef struct sap_stretch {
    int64_t first, count;
    bool decays;
} sap_stretch;

/* Flat arrays over the trainable parameters, and what changes from step to step. Zeroed is empty. */
typedef struct sap_optimizer_state {
    sap_optimizer settings;  /* defaults filled in */
    int64_t iteration;       /* steps done */
    double learning_rate;    /* where there is no schedule: call-backs change it. A float32, as in Keras */
    int64_t count;           /* parameters */
    float *slots[SAP_SLOTS]; /* NULL: the optimizer has no such slot */
    sap_stretch *stretches;
    int32_t stretch_count;
} sap_optimizer_state;

/* Fills in defaults and checks. */
SAP_MUST_CHECK sap_status sap_optimizer_check(const sap_optimizer *settings, sap_optimizer *out, sap_error *err);
/* "adam", … */
const char *sap_optimizer_name(sap_optimizer_kind kind);
/* The rate of the step that comes after n. */
double sap_schedule_rate(const sap_schedule *schedule, double learning_rate, int64_t n);
/* state is zeroed before; settings are checked ones. stretches: (stretch_count) one for each trainable weight array, in the
 * order of the parameters, copied; NULL: one of all `count` parameters. */
SAP_MUST_CHECK sap_status sap_optimizer_init(sap_optimizer_state *state, const sap_optimizer *settings, int64_t count,
                                             const sap_stretch *stretches, int32_t stretch_count, sap_error *err);
void sap_optimizer_release(sap_optimizer_state *state);
/* Whether the learning rate follows a schedule, and is not to be set. */
bool sap_optimizer_scheduled(const sap_optimizer_state *state);
/* The learning rate of the next step. */
double sap_optimizer_rate(const sap_optimizer_state *state);
/* What the next step does to a number; scale is not known yet. */
sap_update sap_optimizer_update(const sap_optimizer_state *state);
/* One step: `values` changes by `gradients`. The result does not depend on the threads. */
SAP_MUST_CHECK sap_status sap_optimizer_step(sap_optimizer_state *state, const sap_kernels *kernels, const sap_run *run,
                                             const float *gradients, float *values, sap_error *err);
/* At the end: the weights become their average, if one is kept. */
void sap_optimizer_finish(const sap_optimizer_state *state, float *values);

/* Where Keras keeps things in optimizer/vars: 0 is the iteration, 1 the learning rate (not with a schedule); the place of a
 * slot of trainable weight array number `weight` of `weights`. */
int32_t sap_optimizer_place(const sap_optimizer_state *state, int32_t weights, int32_t weight, int32_t slot);

#endif
