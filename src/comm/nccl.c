/* NCCL as a device communicator, in its non-blocking form, so that nothing hangs inside it. */
#include "comm_internal.h"

#include <nccl.h>
#include <time.h>

_Static_assert(sizeof(ncclUniqueId) == SAP_COMM_ID, "ncclUniqueId");

static sap_status check(ncclResult_t result, const char *what, ncclComm_t comm, sap_error *err) {
    if (result == ncclSuccess || result == ncclInProgress)
        return SAP_OK;
    const char *more = ncclGetLastError(comm);
    return sap_error_set(err, SAP_EIO, "NCCL, %s: %s%s%s", what, ncclGetErrorString(result), more && *more ? ": " : "",
                         more ? more : "");
}

static sap_status make_id(void *id, sap_error *err) {
    return check(ncclGetUniqueId(id), "start", NULL, err);
}

static sap_status open_nccl(void **state, const void *id, int rank, int size, sap_error *err) {
    ncclComm_t comm = NULL;
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    sap_status status = check(ncclCommInitRankConfig(&comm, size, unique, rank, &config), "start", comm, err);
    if (status != SAP_OK && comm)
        (void)ncclCommAbort(comm);
    if (status == SAP_OK)
        *state = comm;
    return status;
}

static sap_status test(void *state, bool *done, sap_error *err) {
    ncclResult_t result = ncclSuccess;
    SAP_TRY(check(ncclCommGetAsyncError(state, &result), "wait", state, err));
    *done = result != ncclInProgress;
    return check(result, "sum", state, err);
}

static sap_status start_sum(void *state, float *data, int64_t count, void *stream, sap_error *err) {
    return check(ncclAllReduce(data, data, (size_t)count, ncclFloat32, ncclSum, state, stream), "sum", state, err);
}

/* Waits for what is under way, a while. */
static bool finalise(ncclComm_t comm) {
    static const double patience = 10;
    ncclResult_t result = ncclCommFinalize(comm);
    double begun = sap_seconds();
    while (result == ncclInProgress && sap_seconds() - begun < patience) {
        (void)nanosleep(&(struct timespec){0, 1000000}, NULL);
        if (ncclCommGetAsyncError(comm, &result) != ncclSuccess)
            return false;
    }
    return result == ncclSuccess;
}

static void close_nccl(void *state, bool failed) {
    if (!failed && finalise(state))
        (void)ncclCommDestroy(state);
    else
        (void)ncclCommAbort(state);
}

extern const sap_comm_device_table sap_plugin_nccl;
SAP_API const sap_comm_device_table sap_plugin_nccl = {
    .name = "nccl",
    .make_id = make_id,
    .open = open_nccl,
    .test = test,
    .start_sum = start_sum,
    .close = close_nccl,
};

/* For `sapwood version`. */
extern void sap_plugin_nccl_state(char *out, size_t capacity);
SAP_API void sap_plugin_nccl_state(char *out, size_t capacity) {
    int version = 0;
    (void)ncclGetVersion(&version);
    (void)snprintf(out, capacity, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}
