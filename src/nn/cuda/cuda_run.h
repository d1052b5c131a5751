/* A model on one GPU, as the training loop and predictions use it. */
#ifndef SAP_CUDA_RUN_H
#define SAP_CUDA_RUN_H

#include "../nn_internal.h"
#include "cuda_engine.h"

typedef struct sap_cuda sap_cuda;

/* share: with other ranks, all of which open theirs at once, and in what order gradients are added; NULL: neither. Else this thread's GPU is
 * the first. losses: one for each output; NULL: categorical cross-entropy. state: the optimizer, NULL: no training. batch:
 * most rows of a step. The weights of the model and the state's slots are copied to the GPU. SAP_EPLUGIN: no GPU; SAP_EUNSUPPORTED: something that
 * only the CPU can do, named. */
SAP_MUST_CHECK sap_status sap_cuda_open(const sap_model *model, const sap_loss *losses,
                                        const sap_optimizer_state *state, int64_t batch, sap_cuda_precision precision,
                                        const sap_share *share, sap_cuda **out, sap_error *err);
void sap_cuda_close(sap_cuda *cuda);
/* How gradients become sums over the ranks, in words; "" for one rank. */
const char *sap_cuda_sums(const sap_cuda *cuda);
/* Copies the weights, and the state's slots, to the GPU again, and back. */
SAP_MUST_CHECK sap_status sap_cuda_put(sap_cuda *cuda, const sap_model *model, const sap_optimizer_state *state,
                                       sap_error *err);
SAP_MUST_CHECK sap_status sap_cuda_get(sap_cuda *cuda, sap_model *model, sap_optimizer_state *state, sap_error *err);

/* Copies all rows of a feed to the GPU: set 0 is for training, with the weights of its classes, 1 for validation, without. *kept false: they do
 * not fit. */
SAP_MUST_CHECK sap_status sap_cuda_keep(sap_cuda *cuda, int set, sap_feed *feed, bool *kept, sap_error *err);
/* Steps on rows order[first … first + rows) of a set (NULL: those numbers themselves), of `batch` rows but for the last: training steps
 * that count up the state's iteration, or, state NULL, sums only. sums, here and below: (outputs). A loss that is not finite is SAP_EDATA, with
 * the step's number, from 1. */
SAP_MUST_CHECK sap_status sap_cuda_steps_run(sap_cuda *cuda, int set, const int64_t *order, int64_t first, int64_t rows,
                                             int64_t batch, uint64_t key, sap_optimizer_state *state,
                                             sap_loss_sums *sums, sap_error *err);
/* The same for training with others: rows [first, first + rows) of all ranks in the feed's epoch, of which set 0 has this rank's own. sums:
 * of this rank's rows, or of all of them where the order of sums is fixed. */
SAP_MUST_CHECK sap_status sap_cuda_shared_run(sap_cuda *cuda, const sap_feed *feed, int64_t first, int64_t rows,
                                              int64_t batch, uint64_t key, sap_optimizer_state *state,
                                              sap_loss_sums *sums, sap_error *err);
/* One step on examples in memory, likewise. With others: a step that all of them do, on the examples of each. Returns early:
 * sap_cuda_finish waits, and gives the sums of all steps since the last time; own: of this rank alone, as after measuring. */
SAP_MUST_CHECK sap_status sap_cuda_step(sap_cuda *cuda, const sap_examples *examples, uint64_t key,
                                        sap_optimizer_state *state, sap_error *err);
SAP_MUST_CHECK sap_status sap_cuda_finish(sap_cuda *cuda, bool own, sap_loss_sums *sums, sap_error *err);

/* outputs: one array (rows, values) for each output, NULL: not wanted; of any number of rows. */
SAP_MUST_CHECK sap_status sap_cuda_predict(sap_cuda *cuda, const sap_examples *examples, float *const *outputs,
                                           sap_error *err);
/* gradients: (trainable_count) of the loss of at most a batch, dropout off. */
SAP_MUST_CHECK sap_status sap_cuda_gradient(sap_cuda *cuda, const sap_examples *examples, float *gradients,
                                            sap_loss_sums *sums, sap_error *err);

#endif
