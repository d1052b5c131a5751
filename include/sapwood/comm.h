/* Ranks: processes that work on one thing together, started by mpirun or srun, and what they tell each other.
 *
 * Which MPI is loaded is decided at run time by what the launcher left in the environment; a program that no launcher
 * started loads none and is alone. Every operation but the getters is to be called by all ranks, in the same order. A
 * communicator belongs to one thread at a time. NULL stands for a communicator of one rank wherever one is taken.
 *
 * A rank that dies, hangs or is cut off does not leave the others waiting: after `timeout` seconds without a sign of progress
 * from it an operation of another rank ends with SAP_EIO and a message that names it and its host. See docs/distributed.md.
 */
#ifndef SAPWOOD_COMM_H
#define SAPWOOD_COMM_H

#include <sapwood/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sap_comm sap_comm;

/* Zeroed fields take their defaults. */
typedef struct sap_comm_options {
    const char *kind; /* "none", "mpich" or "openmpi"; NULL: SAPWOOD_COMM, else what the environment tells */
    double timeout;   /* seconds without progress after which a rank counts as lost; 0: SAPWOOD_TIMEOUT, else 60 */
} sap_comm_options;

/* options may be NULL. *out is NULL where this process is alone and no kind was asked for. SAP_EPLUGIN: the MPI that the launcher belongs
 * to is not installed. SAP_EARGUMENT: a launcher that does not say which MPI it starts (srun): SAPWOOD_COMM tells. */
SAP_API SAP_MUST_CHECK sap_status sap_comm_open(const sap_comm_options *options, sap_comm **out, sap_error *err);
/* Waits for the other ranks, unless an operation failed or `failed` says that this rank gives up by itself (not all of them, after
 * sap_comm_agree): the other ranks are then ended when this process ends, by its launcher. Another communicator may be opened afterwards. */
SAP_API void sap_comm_close(sap_comm *comm, bool failed);

SAP_API int sap_comm_rank(const sap_comm *comm);         /* from 0 */
SAP_API int sap_comm_size(const sap_comm *comm);         /* ranks */
SAP_API const char *sap_comm_kind(const sap_comm *comm); /* "none", "mpich", … */
/* "rank 1 on node7". Borrowed until it is closed. */
SAP_API const char *sap_comm_rank_name(const sap_comm *comm, int rank);

typedef enum sap_comm_type { SAP_COMM_FLOAT = 0, SAP_COMM_DOUBLE, SAP_COMM_INT64 } sap_comm_type;

/* Element by element the sum over all ranks takes the place of each rank's data. All ranks get the same bits; which, may depend on their
 * number. Where all ranks but one give zeros the sum is exact. */
SAP_API SAP_MUST_CHECK sap_status sap_comm_sum(sap_comm *comm, sap_comm_type type, void *data, int64_t count,
                                               sap_error *err);
/* Rank 0's data take the place of the others'. */
SAP_API SAP_MUST_CHECK sap_status sap_comm_broadcast(sap_comm *comm, void *data, size_t bytes, sap_error *err);
/* Whether all is well everywhere: SAP_OK where every rank gives SAP_OK. Else the lowest rank that does not returns its own status and
 * message, with its name in front where there are several; the others SAP_EPEER with the same message. */
SAP_API SAP_MUST_CHECK sap_status sap_comm_agree(sap_comm *comm, sap_status status, sap_error *err);

/* Where this rank stands, for the message of those who miss it. */
SAP_API void sap_comm_note(sap_comm *comm, int64_t epoch, int64_t step);
/* Seconds that this rank has spent in operations, waiting for the others included. */
SAP_API double sap_comm_seconds(const sap_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
