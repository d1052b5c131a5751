/* The inside of communicators: the table of functions that a kind is, the watchdog and the witness.
 *
 * A kind only starts operations and tells whether they are done. Waiting, with a deadline, is done once for all of them, in
 * comm.c; watchdog.c notices ranks that are silent or stand still, witness.c tells of this rank's sudden end.
 */
#ifndef SAP_COMM_INTERNAL_H
#define SAP_COMM_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/comm.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* A sign of life, sent every so often by each rank to the next one. */
typedef struct sap_comm_beat {
    int64_t work;    /* grows while the rank gets on */
    int64_t waiting; /* 1: in an operation, for the others */
    int64_t last;    /* 1: no more will come */
} sap_comm_beat;

enum { SAP_COMM_ID = 128 }; /* bytes by which the ranks of a device communicator find each other */

/* Sums over ranks that each have a GPU of their own, of what lies on the GPUs. Functions are called by one thread at a time; none waits. */
typedef struct sap_comm_device_table {
    const char *name;
    /* At rank 0; id: (SAP_COMM_ID). */
    sap_status (*make_id)(void *id, sap_error *err);
    /* Begins to bring the ranks together, for the device that is this thread's. */
    sap_status (*open)(void **state, const void *id, int rank, int size, sap_error *err);
    /* Whether what was begun on the host has been done; an error also for what went wrong on the device. */
    sap_status (*test)(void *state, bool *done, sap_error *err);
    /* Queues the sum, in place, on a stream (cudaStream_t). */
    sap_status (*start_sum)(void *state, float *data, int64_t count, void *stream, sap_error *err);
    /* failed: gives up what is under way, so that nothing on the device waits for other ranks any more. */
    void (*close)(void *state, bool failed);
} sap_comm_device_table;

/* A kind of communicator. One operation is under way at a time. Functions are called by one thread at a time. */
typedef struct sap_comm_table {
    const char *name;
    sap_status (*open)(void **state, int *rank, int *size, sap_error *err);
    void (*close)(void *state, bool failed);
    sap_status (*start_sum)(void *state, sap_comm_type type, void *data, int32_t count, sap_error *err);
    sap_status (*start_broadcast)(void *state, void *data, int32_t bytes, sap_error *err);
    sap_status (*test)(void *state, bool *done, sap_error *err);
    /* To the next rank; may be left out while the last one is on its way. */
    void (*send_beat)(void *state, const sap_comm_beat *beat);
    /* From the rank before; false: nothing has come. */
    bool (*receive_beat)(void *state, sap_comm_beat *beat);
    int64_t (*processor_time)(void); /* that this rank has used, in any unit; NULL: its process' own */
    /* This rank's number among those of its host; NULL: they are all on one. */
    int (*local_rank)(void *state);
    const sap_comm_device_table *device; /* NULL: NCCL */
} sap_comm_table;

enum { SAP_COMM_NAME = 96 };

typedef struct sap_witness sap_witness;
typedef struct sap_comm_device sap_comm_device;

struct sap_comm {
    const sap_comm_table *table;
    void *state;
    int rank, size;
    double timeout, seconds;
    char (*names)[SAP_COMM_NAME]; /* (size) */
    pthread_mutex_t lock;         /* of the table's functions, `failure` and `closing` */
    bool broken;                  /* an operation failed */
    bool agreed;                  /* the last thing was that all ranks know of a failure */
    sap_witness *witness;         /* NULL: none */

    /* Watchdog */
    pthread_t thread;
    bool has_thread, closing;
    pthread_cond_t wake;
    atomic_int_fast64_t work; /* what this rank has done, in any unit */
    atomic_bool waiting, lost;
    char failure[300]; /* that the watchdog found, if `lost` */
    bool last_received;

    sap_comm_device *device; /* NULL: none open */
};

/* A communicator over a table, for sap_comm_open and tests. */
SAP_MUST_CHECK sap_status sap_comm_make(const sap_comm_table *table, double timeout, sap_comm **out, sap_error *err);

/* Waits a little before asking again; waited: seconds so far. */
void sap_comm_pause(double waited);

/* For the watchdog, which has the lock: looks after the device communicator, and gives it up when a rank is lost. */
void sap_comm_device_watch(sap_comm *comm);
void sap_comm_device_end(sap_comm *comm, bool failed);

SAP_MUST_CHECK sap_status sap_watchdog_start(sap_comm *comm, sap_error *err);
/* healthy: waits until the rank before has stopped too, so that no sign of life is left on its way. */
void sap_watchdog_stop(sap_comm *comm, bool healthy);

/* Starts a small process that outlives this one for a moment, and says on standard error that this rank ended without a word if it
 * does so while other ranks of this host are alive: launchers tell of that in a confusing way, or not at all. NULL: none could be started.
 * Before MPI is initialised, so that nothing of it is inherited. */
sap_witness *sap_witness_start(void);
/* name: of this rank; pids: (count) of the other ranks on this host. */
void sap_witness_tell(sap_witness *witness, const char *name, const pid_t *pids, int count);
void sap_witness_note(sap_witness *witness, int64_t epoch, int64_t step);
/* What comes now this rank tells itself. */
void sap_witness_stop(sap_witness *witness);

#endif
