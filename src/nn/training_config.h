/* compile_config of a model's config.json: optimizer, losses, metrics. */
#ifndef SAP_TRAINING_CONFIG_H
#define SAP_TRAINING_CONFIG_H

#include "keras_file.h"
#include "nn_internal.h"

/* Reads model->config into model->training, and takes the optimizer's state from the file (NULL: JSON alone), if both are known
 * and fit. Weights are allocated. */
SAP_MUST_CHECK sap_status sap_training_config_read(sap_model *model, const sap_keras_file *file, sap_error *err);

/* Puts what a training is done with into model->config, unless the same stands there: a model that is written then loads
 * compiled in Keras, and goes on. losses: (output_count); both are checked ones. */
SAP_MUST_CHECK sap_status sap_training_config_set(sap_model *model, const sap_optimizer *optimizer,
                                                  const sap_loss *losses, sap_error *err);

#endif
