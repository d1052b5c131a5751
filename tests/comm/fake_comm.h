/* Ranks as threads of one process: a communicator for tests of what ranks do together, and of what they do when one is lost. */
#ifndef FAKE_COMM_H
#define FAKE_COMM_H

#include "comm/comm_internal.h"

enum { FAKE_RANKS = 8 };

typedef struct fake_world fake_world;

typedef struct fake_job {
    fake_world *world;
    int rank;
    sap_comm *comm;
    void *context;
    sap_status status;
    sap_error error;
} fake_job;

/* Runs work(job) in a thread for each rank, each with a communicator, which is closed behind it as failed where the status is none of
 * SAP_OK. A device communicator sums what an emulated device has at once, or, on the stream fake_nowhere, never. jobs: (size). */
void fake_run(int size, double timeout, void (*work)(fake_job *job), void *context, fake_job *jobs);

extern char fake_nowhere[1];

/* From now on nothing that this rank sends arrives, signs of life included. */
void fake_cut(fake_job *job);
/* Device communicators of all ranks that were given up so far. */
int fake_given_up(fake_job *job);
/* The same as fake_cut for all but signs of life. */
void fake_hang(fake_job *job);

#endif
