/* Losses on tiles: what a loss asks of an output, and its arithmetic in plain and vector forms.
 *
 * A column of a tile is a row (an event), or one step of a row where the output is a sequence. Targets always stand as
 * numbers, (values, width) like the output itself: class numbers become ones and zeros when they are loaded.
 */
#ifndef SAP_LOSSES_H
#define SAP_LOSSES_H

#include "../base/base_internal.h"
#include "kernels.h"
#include <sapwood/nn.h>

/* One step of an output. */
typedef struct sap_loss_tile {
    int64_t values;
    int width;
    bool from_logits;    /* cross-entropies: y is what a softmax or sigmoid would take */
    const float *y;      /* (values, width) */
    const float *target; /* (values, width) */
    float keep, share;   /* what is aimed at is keep · target + share: label smoothing; 1 and 0 without */
    float delta;         /* Huber */
    const float *factor; /* (width) gradients are multiplied by it; 0: the column does not count */
    float *dy;           /* (values, width) gets the gradient; NULL: not wanted */
    float *loss;         /* (width) gets the loss of every column, without the factor */
} sap_loss_tile;

struct sap_loss_kernels {
    /* -Σ t log p; p = softmax(y), or y / Σ y clipped to [1e-7, 1 - 1e-7] */
    void (*categorical)(const sap_loss_tile *tile);
    /* The same with y clipped before it is normalised, as Keras does for class numbers. */
    void (*sparse)(const sap_loss_tile *tile);
    /* mean of -t log p - (1 - t) log(1 - p); p = sigmoid(y), or y clipped */
    void (*binary)(const sap_loss_tile *tile);
    void (*squared)(const sap_loss_tile *tile);  /* mean of (y - t)² */
    void (*absolute)(const sap_loss_tile *tile); /* mean of |y - t| */
    void (*huber)(const sap_loss_tile *tile);    /* mean of e²/2 for e = |y - t| <= delta, delta (e - delta/2) above */
    /* The value that is largest in each column, the first of equal ones. */
    void (*largest)(int64_t values, int width, const float *y, int32_t *best);
};

/* What a loss gave on some rows. */
typedef struct sap_loss_sums {
    double loss;     /* Σ weight · loss */
    int64_t count;   /* rows; steps of sequences that are not masked */
    int64_t correct; /* of them, as Keras' "accuracy" counts */
} sap_loss_sums;

static inline void sap_loss_add(sap_loss_sums *to, const sap_loss_sums *more) {
    to->loss += more->loss;
    to->count += more->count;
    to->correct += more->correct;
}
/* Mean loss; 0 of no rows, as Keras has it. */
static inline double sap_loss_mean(const sap_loss_sums *sums) {
    return sums->count ? sums->loss / (double)sums->count : 0;
}

/* One output on one tile. */
typedef struct sap_loss_call {
    const sap_kernels *kernels;
    const sap_loss *loss;
    int64_t values;             /* numbers a step: the output's last dimension */
    int64_t steps;              /* the product of its other dimensions; 1 for none */
    int width, rows;            /* columns, and those in use */
    sap_activation_kind logits; /* SAP_SOFTMAX, SAP_SIGMOID: that last activation was left out of y; else SAP_LINEAR */
    const float *y;             /* (steps, values, width) */
    float *dy;                  /* likewise; NULL: not wanted */
    const uint8_t *mask;        /* (steps, width): 1 counts; NULL: all do */
    float *target, *weight;     /* (steps, values, width), (width): as sap_loss_load fills them */
    double scale;               /* gradients are multiplied by it: 1 / rows (or unmasked steps) of the batch */
    sap_loss_sums sums;         /* out */
} sap_loss_call;

/* Checks a loss and fills in defaults. */
SAP_MUST_CHECK sap_status sap_loss_check(const sap_loss *loss, sap_loss *out, sap_error *err);
/* "categorical_crossentropy", … */
const char *sap_loss_name(sap_loss_kind kind);
/* Whether it is taken from what a last softmax or sigmoid was given: Keras on TensorFlow does so for cross-entropies,
 * whichever of the two it is. */
bool sap_loss_takes_logits(sap_loss_kind kind);
/* Whether examples have what output `output` needs. */
SAP_MUST_CHECK sap_status sap_loss_examples(const sap_loss *loss, const sap_examples *examples, int32_t output,
                                            int64_t values, int64_t steps, const char *where, sap_error *err);
/* Fills targets and weights of the tile's rows, which are rows row[0 … call->rows) of the examples. */
SAP_MUST_CHECK sap_status sap_loss_load(const sap_loss_call *call, const sap_examples *examples, int32_t output,
                                        const int64_t *row, sap_error *err);
/* The loss, its gradient (times the loss's own weight), and the sums. Columns that are not in use, and masked steps, get a
 * gradient of zero. */
void sap_loss_run(sap_loss_call *call);

#endif
