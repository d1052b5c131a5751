/* Ranks that train on GPUs together: which GPU is whose, how gradients become sums, and which rows of each step are whose. */
#ifndef SAP_CUDA_RANKS_H
#define SAP_CUDA_RANKS_H

#include "../nn_internal.h"
#include "cuda_engine.h"

typedef struct sap_cuda_ranks {
    sap_share share;
    sap_cuda_share calls; /* for the engine */
    char sums[400];       /* how they are taken, in words */
} sap_cuda_ranks;

/* Chooses this rank's GPU, which becomes the thread's: of those that the process sees, by the rank's number on its host. Sums go from GPU
 * to GPU, or through the hosts where NCCL is missing or ranks have to share a GPU. Stays where it is while the engine is open. */
SAP_MUST_CHECK sap_status sap_cuda_ranks_open(const sap_share *share, const sap_cuda_table *table, sap_cuda_ranks *out,
                                              sap_error *err);
void sap_cuda_ranks_close(sap_cuda_ranks *ranks);

/* Whether each step has parts: others' rows, or groups. */
bool sap_cuda_ranks_share(const sap_cuda_ranks *ranks);

/* Cuts rows [first, first + rows) of the feed's epoch into steps of `batch` rows and those into groups. order: (this rank's rows), begin:
 * (steps * groups + 1), both of malloc. */
SAP_MUST_CHECK sap_status sap_cuda_ranks_cut(const sap_cuda_ranks *ranks, const sap_feed *feed, int64_t first,
                                             int64_t rows, int64_t batch, int32_t **order, int64_t **begin,
                                             sap_error *err);
/* Puts rows in hand, whose shards stand in the share, into groups. order: (rows), begin: (groups + 1). */
void sap_cuda_ranks_group(const sap_cuda_ranks *ranks, int64_t rows, int32_t *order, int64_t *begin);
/* What the groups gave, (groups, outputs): with groups of all ranks, added in order; without, this rank's own. sums: (outputs) */
SAP_MUST_CHECK sap_status sap_cuda_ranks_add(const sap_cuda_ranks *ranks, const sap_cuda_result *results,
                                             int32_t outputs, sap_cuda_result *sums, sap_error *err);

#endif
