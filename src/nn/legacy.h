/* Model JSON of Keras 1 and 2 turned into what Keras 3 writes. */
#ifndef SAP_NN_LEGACY_H
#define SAP_NN_LEGACY_H

#include "keras_file.h"
#include "nn_internal.h"

/* Rewrites model->config if Keras 3 did not write it (its objects name the module of their class): nested models and wrapped layers,
 * the optimizer and losses too. file: what it comes from, NULL for JSON alone. A setting that Keras 3 has no word for is
 * SAP_EUNSUPPORTED. */
SAP_MUST_CHECK sap_status sap_legacy_convert(sap_model *model, const sap_keras_file *file, sap_error *err);

#endif
