/* Regularisers and constraints of weights, as layers' configs have them. */
#ifndef SAP_NN_REGULARIZER_H
#define SAP_NN_REGULARIZER_H

#include "nn_internal.h"

/* config: "l2", or {"class_name": "L1L2", …}; NULL or null: none. The loss then has l1 Σ|w| + l2 Σw² besides. */
SAP_MUST_CHECK sap_status sap_regularizer_parse(const json_t *config, const char *where, double *l1, double *l2,
                                                sap_error *err);
/* The same for constraints, which hold after each step. rank: of the weight. */
SAP_MUST_CHECK sap_status sap_constraint_parse(const json_t *config, int32_t rank, const char *where,
                                               sap_constraint *out, sap_error *err);

/* Sets those of all weights of a layer ("kernel_regularizer" belongs to the weights called "kernel"). One that this version
 * cannot train with makes the model untrainable; predictions are right without it. */
SAP_MUST_CHECK sap_status sap_penalties_read(sap_model *model, sap_layer *layer, const json_t *config, sap_error *err);

#endif
