/* Sums of what ranks have on their GPUs, queued on a stream of the CUDA runtime: by NCCL, whose ranks find each other through the
 * communicator. All functions are for the thread that the communicator belongs to. */
#ifndef SAP_COMM_DEVICE_H
#define SAP_COMM_DEVICE_H

#include <sapwood/comm.h>

/* This rank's number among those of its host. */
int sap_comm_local_rank(const sap_comm *comm);

/* By all ranks, each with a GPU of its own that is its thread's current one. Fails for all alike: SAP_EPLUGIN where there is no NCCL. It ends
 * with the communicator, or with sap_comm_device_close. */
SAP_MUST_CHECK sap_status sap_comm_device_open(sap_comm *comm, sap_error *err);
void sap_comm_device_close(sap_comm *comm);
/* Queues the sum over all ranks of numbers on the device, in place; returns before it is done. Ranks get the same bits. */
SAP_MUST_CHECK sap_status sap_comm_device_sum(sap_comm *comm, float *data, int64_t count, void *stream, sap_error *err);
/* To be called again and again while the host waits for the device; sleeps a little. summing: the device has come as far as a sum, and
 * may be waiting for other ranks. An error if they will not come, or the sum has failed: nothing on the device waits for them then. */
SAP_MUST_CHECK sap_status sap_comm_device_look(sap_comm *comm, bool summing, sap_error *err);
/* A sum is over, which took the device so many seconds. */
void sap_comm_device_note(sap_comm *comm, double seconds);

#endif
