/* What the options of `train` ask of sap_train. */
#ifndef SAP_TRAIN_SETTINGS_H
#define SAP_TRAIN_SETTINGS_H

#include "pipeline_internal.h"

/* Options, and what they point at. Zeroed is empty. */
typedef struct sap_train_settings {
    sap_train_options options;
    sap_loss loss;
    sap_callback callbacks[8];
    sap_arena arena;
} sap_train_settings;

/* What can be told without model and data. */
SAP_MUST_CHECK sap_status sap_train_settings_check(const sap_stage *stage, sap_error *err);
/* Checked options. The model's compile_config gives the defaults of loss and optimizer. */
SAP_MUST_CHECK sap_status sap_train_settings_init(const sap_stage *stage, const sap_model *model,
                                                  const sap_dataset *dataset, sap_train_settings *out, sap_error *err);
void sap_train_settings_release(sap_train_settings *settings);

#endif
