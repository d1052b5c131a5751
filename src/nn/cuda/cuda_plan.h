/* A model as a plan for the GPU. */
#ifndef SAP_CUDA_PLAN_H
#define SAP_CUDA_PLAN_H

#include "../nn_internal.h"
#include "cuda_engine.h"

/* The plan and what it points to are made in the arena; layer names are the model's. losses: one for each output; NULL: categorical
 * cross-entropy. state: the optimizer; NULL: for predictions and gradients. A layer that the GPU cannot run is SAP_EUNSUPPORTED and named. */
SAP_MUST_CHECK sap_status sap_cuda_plan_make(const sap_model *model, const sap_loss *losses,
                                             const sap_optimizer_state *state, sap_cuda_precision precision,
                                             sap_arena *arena, sap_cuda_plan *out, sap_error *err);

#endif
