/* Checkpoints of a training: a `.keras` file of the model with its optimizer, and in it "sapwood.json" with what
 * the training was asked to do and what its epochs gave. */
#ifndef SAP_CHECKPOINT_H
#define SAP_CHECKPOINT_H

#include "nn_internal.h"

/* What must be the same for a training to go on. */
typedef struct sap_checkpoint_key {
    const sap_train_options *options;
    const sap_optimizer *optimizer; /* defaults filled in */
    int64_t rows, validation_rows;
    uint64_t initial; /* hash of the weights before training */
} sap_checkpoint_key;

SAP_MUST_CHECK sap_status sap_checkpoint_write(const sap_model *model, const sap_checkpoint_key *key,
                                               const sap_epoch *history, int64_t count, sap_error *err);
/* Takes weights, optimizer state (already initialised in the model) and history from the checkpoint, if there is
 * one; `*count` is 0 else. A checkpoint of another training is SAP_EARGUMENT. */
SAP_MUST_CHECK sap_status sap_checkpoint_read(sap_model *model, const sap_checkpoint_key *key, sap_epoch *history,
                                              int64_t *count, sap_error *err);

#endif
