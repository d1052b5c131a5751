/* The history of a training and what is written from it: CSV and TensorBoard's event files. */
#ifndef SAP_HISTORY_H
#define SAP_HISTORY_H

#include "nn_internal.h"

/* Names of what the outputs' losses give, in Keras' order. */
SAP_MUST_CHECK sap_status sap_history_init(const sap_model *model, const sap_loss *losses, bool auc, bool validation,
                                           sap_history *out, sap_error *err);
/* Number of a name; -1: none. */
int32_t sap_history_find(const sap_history *history, const char *name);
/* Adds an epoch in which nothing is measured yet. */
SAP_MUST_CHECK sap_status sap_history_grow(sap_history *history, sap_error *err);
/* Of the last epoch; names that the history lacks are left out. */
void sap_history_set(sap_history *history, const char *name, double value);
/* "NAME_accuracy" of an output, "val_…" of the validation set; just "accuracy" where the model has one output. */
void sap_history_name(const sap_model *model, bool validation, int32_t output, const char *what, char *out,
                      size_t capacity);

/* All epochs as Keras' CSVLogger has them. */
SAP_MUST_CHECK sap_status sap_history_csv(const sap_history *history, const char *path, sap_error *err);
/* Event files in `folder`/train and `folder`/validation: written anew with all epochs, or the last one appended. */
SAP_MUST_CHECK sap_status sap_history_events(const sap_history *history, const char *folder, bool append,
                                             sap_error *err);

#endif
