/* MPI as a communicator, compiled once for MPICH and once for Open MPI, whose binary interfaces differ.
 *
 * All operations are non-blocking, so that nothing hangs inside MPI. MPI is initialised on the first opening and finalised when the
 * program ends, since it cannot be started twice; where a rank failed it is aborted instead, which ends the others.
 */
#include "comm_internal.h"

#include <dlfcn.h>
#include <mpi.h>
#include <stdlib.h>
#include <unistd.h>

enum { BEAT_TAG = 1 };

/* There is one MPI a process. */
static struct {
    bool ready, open, failed;
    MPI_Comm work, beats;
    MPI_Request request, beat_request;
    int rank, size, local_rank;
    sap_comm_beat beat; /* on its way */
} mpi;

static sap_status check(int code, const char *what, sap_error *err) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS)
        return SAP_OK;
    (void)MPI_Error_string(code, text, &length);
    return sap_error_set(err, SAP_EIO, "MPI, %s: %s", what, text);
}

static const unsigned ABORT_SECONDS = 5, FINALISE_SECONDS = 60;

typedef struct ending {
    unsigned seconds;
    int status;
} ending;

static void *end_anyway(void *context) {
    const ending *e = context;
    (void)sleep(e->seconds);
    _exit(e->status);
}

/* With the launcher out of reach both ways of ending MPI wait for ever. */
static void end_after(unsigned seconds, int status) {
    static ending e;
    pthread_t thread;
    e = (ending){seconds, status};
    if (pthread_create(&thread, NULL, end_anyway, &e) == 0)
        (void)pthread_detach(thread);
}

/* The program ends. One that did not close its communicator, or failed, must not leave the others waiting. */
static void finish(int status, void *context) {
    (void)context;
    int finalised = 0;
    (void)MPI_Finalized(&finalised);
    if (finalised)
        return;
    if (mpi.open || mpi.failed) {
        end_after(ABORT_SECONDS, status ? status : 1);
        (void)MPI_Abort(MPI_COMM_WORLD, status ? status : 1);
    }
    end_after(FINALISE_SECONDS, status ? status : 1);
    (void)MPI_Finalize();
}

static sap_status start(sap_error *err) {
    int initialised = 0, provided = 0;
    (void)MPI_Initialized(&initialised);
#ifdef OPEN_MPI /* its components look for its symbols among those of the whole program */
    (void)dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    (void)setenv("OMPI_MCA_mpi_yield_when_idle", "0",
                 0); /* who waits here sleeps by itself, which is better (comm.c) */
#endif
    if (!initialised) {
        SAP_TRY(check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided), "start", err));
        if (on_exit(finish, NULL) != 0)
            return sap_error_memory(err, "MPI");
    } else {
        (void)MPI_Query_thread(&provided);
    }
    if (provided < MPI_THREAD_SERIALIZED)
        return sap_error_set(err, SAP_EUNSUPPORTED, "this MPI takes calls from one thread only");
    SAP_TRY(check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "start", err));
    SAP_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &mpi.work), "start", err));
    SAP_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &mpi.beats), "start", err));
    (void)MPI_Comm_set_errhandler(mpi.work, MPI_ERRORS_RETURN);
    (void)MPI_Comm_set_errhandler(mpi.beats, MPI_ERRORS_RETURN);
    (void)MPI_Comm_rank(mpi.work, &mpi.rank);
    (void)MPI_Comm_size(mpi.work, &mpi.size);
    MPI_Comm host = MPI_COMM_NULL;
    SAP_TRY(check(MPI_Comm_split_type(mpi.work, MPI_COMM_TYPE_SHARED, mpi.rank, MPI_INFO_NULL, &host), "start", err));
    (void)MPI_Comm_rank(host, &mpi.local_rank);
    (void)MPI_Comm_free(&host);
    mpi.request = mpi.beat_request = MPI_REQUEST_NULL;
    mpi.ready = true;
    return SAP_OK;
}

static sap_status open_mpi(void **state, int *rank, int *size, sap_error *err) {
    if (mpi.open || mpi.failed)
        return sap_error_set(err, SAP_EARGUMENT, "MPI: this process has a communicator already");
    if (!mpi.ready)
        SAP_TRY(start(err));
    mpi.open = true;
    *state = &mpi;
    *rank = mpi.rank;
    *size = mpi.size;
    return SAP_OK;
}

static void close_mpi(void *state, bool failed) {
    (void)state;
    mpi.open = false;
    mpi.failed = failed;
}

static sap_status start_sum(void *state, sap_comm_type type, void *data, int32_t count, sap_error *err) {
    (void)state;
    MPI_Datatype types[] = {MPI_FLOAT, MPI_DOUBLE, MPI_INT64_T};
    return check(MPI_Iallreduce(MPI_IN_PLACE, data, count, types[type], MPI_SUM, mpi.work, &mpi.request), "sum", err);
}

static sap_status start_broadcast(void *state, void *data, int32_t bytes, sap_error *err) {
    (void)state;
    return check(MPI_Ibcast(data, bytes, MPI_BYTE, 0, mpi.work, &mpi.request), "broadcast", err);
}

static sap_status test(void *state, bool *done, sap_error *err) {
    (void)state;
    int flag = 0;
    SAP_TRY(check(MPI_Test(&mpi.request, &flag, MPI_STATUS_IGNORE), "wait", err));
    *done = flag != 0;
    return SAP_OK;
}

static int local_rank(void *state) {
    (void)state;
    return mpi.local_rank;
}

static void send_beat(void *state, const sap_comm_beat *beat) {
    (void)state;
    int flag = 0;
    if (mpi.beat_request != MPI_REQUEST_NULL &&
        (MPI_Test(&mpi.beat_request, &flag, MPI_STATUS_IGNORE) != MPI_SUCCESS || !flag))
        return;
    mpi.beat = *beat;
    (void)MPI_Isend(&mpi.beat, sizeof mpi.beat, MPI_BYTE, (mpi.rank + 1) % mpi.size, BEAT_TAG, mpi.beats,
                    &mpi.beat_request);
}

static bool receive_beat(void *state, sap_comm_beat *beat) {
    (void)state;
    int flag = 0, from = (mpi.rank + mpi.size - 1) % mpi.size;
    if (MPI_Iprobe(from, BEAT_TAG, mpi.beats, &flag, MPI_STATUS_IGNORE) != MPI_SUCCESS || !flag)
        return false;
    return MPI_Recv(beat, sizeof *beat, MPI_BYTE, from, BEAT_TAG, mpi.beats, MPI_STATUS_IGNORE) == MPI_SUCCESS;
}

#ifdef OPEN_MPI
#define KIND "openmpi"
#define TABLE sap_plugin_openmpi
#else
#define KIND "mpich"
#define TABLE sap_plugin_mpich
#endif
extern const sap_comm_table TABLE;
SAP_API const sap_comm_table TABLE = {
    .name = KIND,
    .open = open_mpi,
    .close = close_mpi,
    .start_sum = start_sum,
    .start_broadcast = start_broadcast,
    .test = test,
    .send_beat = send_beat,
    .receive_beat = receive_beat,
    .local_rank = local_rank,
};
