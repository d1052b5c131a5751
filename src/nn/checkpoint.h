/* Checkpoints of a training: everything that it needs to go on to the same last bit, in one file.
 *
 * "SAPCKPT1", length of the JSON (u64), JSON, the arrays that the JSON lists, one behind the other, and the CRC-32C of all that
 * (u32); in the machine's own byte order, since the same bits come only from the same kind of machine anyway.
 */
#ifndef SAP_CHECKPOINT_H
#define SAP_CHECKPOINT_H

#include "callbacks.h"

/* Sums of the epoch that is under way. */
typedef struct sap_tally {
    double loss, rows;          /* Σ of the batches' losses times their rows */
    double output[SAP_OUTPUTS]; /* likewise, of each output */
    int64_t correct[SAP_OUTPUTS], count[SAP_OUTPUTS];
} sap_tally;

static inline void sap_tally_add(sap_tally *to, const sap_tally *more) {
    to->loss += more->loss;
    to->rows += more->rows;
    for (int32_t o = 0; o < SAP_OUTPUTS; o++) {
        to->output[o] += more->output[o];
        to->correct[o] += more->correct[o];
        to->count[o] += more->count[o];
    }
}

/* Scores of an output in the epoch that is under way, for its AUC. */
typedef struct sap_scores {
    float *score;
    uint8_t *positive;
    int64_t count, capacity;
} sap_scores;

/* Where a training stands. */
typedef struct sap_position {
    int64_t epoch;  /* whole epochs done, those before initial_epoch included */
    int64_t step;   /* steps done of the next one; 0: it has not begun */
    double seconds; /* spent in it */
    sap_tally tally;
    sap_scores scores[SAP_OUTPUTS];
} sap_position;

/* What a training is, and all that changes in it. */
typedef struct sap_training {
    sap_model *model;
    const sap_train_options *options;
    sap_loss losses[SAP_OUTPUTS]; /* defaults filled in */
    int64_t rows, validation_rows;
    uint64_t initial; /* hash of the weights before */
    sap_history *history;
    sap_callbacks callbacks;
    sap_position position;
} sap_training;

/* By rank 0, which has the sums and scores of all ranks. */
SAP_MUST_CHECK sap_status sap_checkpoint_write(const sap_training *training, sap_error *err);
/* Takes everything from the checkpoint, if there is one; rank 0 reads it, and of the others none has the epoch's sums and scores. A
 * checkpoint of another training is SAP_EARGUMENT. */
SAP_MUST_CHECK sap_status sap_checkpoint_read(sap_training *training, bool *found, sap_error *err);

/* Of everything that decides what comes out of a training. */
uint64_t sap_training_hash(const sap_training *training);

/* Room for `more` scores. */
SAP_MUST_CHECK sap_status sap_scores_reserve(sap_scores *scores, int64_t more, sap_error *err);

#endif
