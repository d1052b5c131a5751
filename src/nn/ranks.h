/* Training with several ranks: what they bring together besides gradients. All functions do nothing for a single rank. */
#ifndef SAP_RANKS_H
#define SAP_RANKS_H

#include "checkpoint.h"

/* Checks that all ranks are about to do the same training, and which share of the rows each holds. *shared: of the validation set, each its
 * own; else each all of them. validation may be NULL. */
SAP_MUST_CHECK sap_status sap_ranks_check(const sap_training *training, const sap_feed *train,
                                          const sap_feed *validation, bool *shared, sap_error *err);
/* The sums of all ranks take the place of each rank's. */
SAP_MUST_CHECK sap_status sap_ranks_sum_tally(sap_comm *comm, sap_tally *tally, sap_error *err);
/* Rank 0 gets a copy of all scores, rank by rank, the others an empty one. out: zeroed. */
SAP_MUST_CHECK sap_status sap_ranks_gather_scores(sap_comm *comm, const sap_scores *own, sap_scores *out,
                                                  sap_error *err);
/* Everybody gets rank 0's weights and optimizer state if they differ anywhere, as they do by rounding when the ranks run on different
 * kinds of processors. */
SAP_MUST_CHECK sap_status sap_ranks_align(sap_comm *comm, sap_model *model, sap_error *err);

#endif
