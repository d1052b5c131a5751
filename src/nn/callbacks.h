/* Callbacks of a training: what is done after its epochs, as Keras 3.15 does it. */
#ifndef SAP_CALLBACKS_H
#define SAP_CALLBACKS_H

#include "history.h"

/* A callback and what it remembers. */
typedef struct sap_callback_state {
    sap_callback settings; /* defaults filled in */
    int sign;              /* 1: more is better, -1: less */
    int64_t wait, cooldown;
    bool has_best;
    double best;
    int64_t best_epoch;
    float *best_weights; /* (value_count) or NULL */
} sap_callback_state;

/* What callbacks look at and change. */
typedef struct sap_callbacks {
    sap_model *model;
    sap_optimizer_state *optimizer;
    const sap_history *history;
    sap_callback_state *items;
    size_t count;
    bool writes;    /* those that write files are called */
    bool stop;      /* no more epochs */
    char note[200]; /* what a callback did that is worth a line; empty: nothing */
} sap_callbacks;

/* Checks them against what the history has. The model's optimizer state need not be there yet. */
SAP_MUST_CHECK sap_status sap_callbacks_init(sap_callbacks *callbacks, sap_model *model, const sap_callback *settings,
                                             size_t count, const sap_history *history, sap_error *err);
void sap_callbacks_release(sap_callbacks *callbacks);
/* After history, and for a training that goes on the callbacks' own state, are there. */
SAP_MUST_CHECK sap_status sap_callbacks_begin(sap_callbacks *callbacks, sap_error *err);
/* epoch: from 0, those of earlier trainings included. */
SAP_MUST_CHECK sap_status sap_callbacks_epoch_begin(sap_callbacks *callbacks, int64_t epoch, sap_error *err);
/* The history's last epoch is this one. */
SAP_MUST_CHECK sap_status sap_callbacks_epoch_end(sap_callbacks *callbacks, int64_t epoch, sap_error *err);
SAP_MUST_CHECK sap_status sap_callbacks_finish(sap_callbacks *callbacks, sap_error *err);
/* "early stopping", … */
const char *sap_callback_name(sap_callback_kind kind);

#endif
