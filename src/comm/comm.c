/* Communicators: which kind it is, and operations that wait for the other ranks with an eye on the watchdog. */
#include "../base/numbers.h"
#include "comm_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    COUNT_MOST = 1 << 26, /* elements of one operation of a table: MPI counts in int, and in bytes in places */
    MESSAGE = 1104        /* bytes of a message, a name in front */
};

/* ---- Waiting ------------------------------------------------------------------------------------------------ */

/* Ranks share cores with others: after a short while of asking again and again they sleep. They do not yield: on a busy host that gives
 * the core to everybody else first, for milliseconds each, while one that sleeps is soon woken. */
void sap_comm_pause(double waited) {
    static const double busy = 100e-6, shortest = 5e-6, longest = 500e-6;
    if (waited < busy)
        return;
    double sleep = waited / 8 < shortest ? shortest : waited / 8 < longest ? waited / 8 : longest;
    (void)nanosleep(&(struct timespec){0, (long)(sleep * 1e9)}, NULL);
}

static sap_status fail(sap_comm *comm, sap_status status) {
    comm->broken = true;
    return status;
}

static sap_status wait_for(sap_comm *comm, double begun, sap_error *err) {
    for (;;) {
        bool done = false;
        pthread_mutex_lock(&comm->lock);
        sap_status status = comm->table->test(comm->state, &done, err);
        pthread_mutex_unlock(&comm->lock);
        if (status != SAP_OK || done)
            return status;
        if (atomic_load(&comm->lost)) {
            pthread_mutex_lock(&comm->lock);
            status = sap_error_set(err, SAP_EIO, "%s", comm->failure);
            pthread_mutex_unlock(&comm->lock);
            return status;
        }
        sap_comm_pause(sap_seconds() - begun);
    }
}

typedef struct operation {
    bool broadcast;
    sap_comm_type type;
    void *data;
    int32_t count;
} operation;

static sap_status run(sap_comm *comm, const operation *o, sap_error *err) {
    double begun = sap_seconds();
    comm->agreed = false;
    if (comm->broken)
        return sap_error_set(err, SAP_EIO, "%s: the ranks are no longer together",
                             sap_comm_rank_name(comm, comm->rank));
    atomic_store(&comm->waiting, true);
    pthread_mutex_lock(&comm->lock);
    sap_status status = o->broadcast ? comm->table->start_broadcast(comm->state, o->data, o->count, err)
                                     : comm->table->start_sum(comm->state, o->type, o->data, o->count, err);
    pthread_mutex_unlock(&comm->lock);
    if (status == SAP_OK)
        status = wait_for(comm, begun, err);
    atomic_fetch_add(&comm->work, 1);
    atomic_store(&comm->waiting, false);
    comm->seconds += sap_seconds() - begun;
    return status == SAP_OK ? SAP_OK : fail(comm, status);
}

sap_status sap_comm_sum(sap_comm *comm, sap_comm_type type, void *data, int64_t count, sap_error *err) {
    int64_t size = type == SAP_COMM_FLOAT ? 4 : 8;
    for (int64_t done = 0; sap_comm_size(comm) > 1 && done < count; done += COUNT_MOST) {
        int64_t left = count - done;
        operation o = {false, type, (char *)data + done * size, (int32_t)(left < COUNT_MOST ? left : COUNT_MOST)};
        SAP_TRY(run(comm, &o, err));
    }
    return SAP_OK;
}

sap_status sap_comm_broadcast(sap_comm *comm, void *data, size_t bytes, sap_error *err) {
    for (size_t done = 0; sap_comm_size(comm) > 1 && done < bytes; done += COUNT_MOST) {
        size_t left = bytes - done;
        operation o = {true, SAP_COMM_FLOAT, (char *)data + done, (int32_t)(left < COUNT_MOST ? left : COUNT_MOST)};
        SAP_TRY(run(comm, &o, err));
    }
    return SAP_OK;
}

/* One number of each rank, in order. out: (size). */
static sap_status gather(sap_comm *comm, int64_t value, int64_t *out, sap_error *err) {
    memset(out, 0, (size_t)comm->size * sizeof *out);
    out[comm->rank] = value;
    return sap_comm_sum(comm, SAP_COMM_INT64, out, comm->size, err);
}

sap_status sap_comm_agree(sap_comm *comm, sap_status status, sap_error *err) {
    if (sap_comm_size(comm) == 1)
        return status;
    if (comm->broken)
        return status == SAP_OK ? SAP_EIO : status;
    sap_error own = {0};
    int64_t *all = malloc((size_t)comm->size * sizeof *all);
    if (!all)
        return fail(comm, sap_error_memory(err, "status of the ranks"));
    sap_status exchanged = gather(comm, status, all, &own);
    int speaker = 0;
    while (exchanged == SAP_OK && speaker < comm->size && all[speaker] == SAP_OK)
        speaker++;
    free(all);
    if (exchanged == SAP_OK && speaker == comm->size)
        return SAP_OK;
    int64_t words[MESSAGE / 8] = {0};
    char *message = (char *)words;
    if (exchanged == SAP_OK && comm->rank == speaker)
        (void)snprintf(message, sizeof words, "%s: %s", comm->names[speaker], err ? err->message : "it failed");
    if (exchanged == SAP_OK) /* only one rank's bytes are not 0: their sum is a broadcast from it */
        exchanged = sap_comm_sum(comm, SAP_COMM_INT64, words, MESSAGE / 8, &own);
    if (exchanged != SAP_OK) /* what this rank has to say itself counts more than that others are gone */
        return status != SAP_OK ? status : sap_error_set(err, exchanged, "%s", own.message);
    comm->agreed = true;
    return sap_error_set(err, comm->rank == speaker ? status : SAP_EPEER, "%s", message);
}

/* ---- Opening ------------------------------------------------------------------------------------------------ */

/* Names all ranks, and tells the witness of those on this host. */
static sap_status exchange_names(sap_comm *comm, sap_error *err) {
    char host[SAP_COMM_NAME / 2] = "";
    (void)gethostname(host, sizeof host - 1);
    size_t bytes = (size_t)comm->size * SAP_COMM_NAME;
    int64_t *pids = calloc((size_t)comm->size, sizeof *pids);
    pid_t *neighbours = calloc((size_t)comm->size, sizeof *neighbours);
    sap_status status = pids && neighbours ? SAP_OK : sap_error_memory(err, "names of the ranks");
    (void)snprintf(comm->names[comm->rank], SAP_COMM_NAME, "rank %d on %s", comm->rank, host);
    if (status == SAP_OK)
        status = sap_comm_sum(comm, SAP_COMM_INT64, comm->names, (int64_t)(bytes / 8), err);
    if (status == SAP_OK)
        status = gather(comm, getpid(), pids, err);
    int count = 0;
    for (int r = 0; status == SAP_OK && r < comm->size; r++) {
        const char *other = strstr(comm->names[r], " on ");
        if (r != comm->rank && other && strcmp(other + 4, host) == 0)
            neighbours[count++] = (pid_t)pids[r];
    }
    if (status == SAP_OK && comm->witness)
        sap_witness_tell(comm->witness, comm->names[comm->rank], neighbours, count);
    free(pids);
    free(neighbours);
    return status;
}

static sap_status open_state(sap_comm *comm, sap_error *err) {
    (void)prctl(PR_SET_TIMERSLACK, 1000UL); /* nanoseconds: this thread's naps are short, and 50 µs are the standard */
    SAP_TRY(comm->table->open(&comm->state, &comm->rank, &comm->size, err));
    comm->names = calloc((size_t)comm->size, sizeof *comm->names);
    if (!comm->names)
        return sap_error_memory(err, "names of the ranks");
    if (comm->size > 1)
        SAP_TRY(sap_watchdog_start(comm, err));
    return exchange_names(comm, err);
}

static sap_status make(const sap_comm_table *table, double timeout, sap_witness *witness, sap_comm **out,
                       sap_error *err) {
    sap_comm *comm = calloc(1, sizeof *comm);
    if (!comm)
        return sap_error_memory(err, table->name);
    comm->table = table;
    comm->timeout = timeout;
    comm->witness = witness;
    pthread_mutex_init(&comm->lock, NULL);
    sap_status status = open_state(comm, err);
    if (status == SAP_OK)
        *out = comm;
    else
        sap_comm_close(comm, true);
    return status;
}

sap_status sap_comm_make(const sap_comm_table *table, double timeout, sap_comm **out, sap_error *err) {
    return make(table, timeout, NULL, out, err);
}

static bool is_set(const char *name) {
    const char *value = getenv(name);
    return value && *value;
}

/* The kind that the launcher wants; NULL: there was none. */
static sap_status find_kind(const char **out, sap_error *err) {
    const char *named = getenv("SAPWOOD_COMM"), *tasks = getenv("SLURM_STEP_NUM_TASKS");
    *out = NULL;
    if (named && *named)
        *out = named;
    else if (is_set("OMPI_COMM_WORLD_SIZE"))
        *out = "openmpi";
    else if (is_set("PMI_RANK") && (is_set("MPI_LOCALNRANKS") || is_set("HYDI_CONTROL_FD")))
        *out = "mpich";
    else if (is_set("PMI_RANK") || is_set("PMIX_RANK") || (tasks && atoi(tasks) > 1))
        return sap_error_set(err, SAP_EARGUMENT,
                             "this launcher does not say which MPI it starts programs of: set SAPWOOD_COMM to mpich or "
                             "openmpi, or to none for processes that have nothing to do with each other");
    return SAP_OK;
}

static sap_status find_timeout(double asked, double *out, sap_error *err) {
    const char *text = getenv("SAPWOOD_TIMEOUT");
    char *end = NULL;
    *out = asked > 0 ? asked : 60;
    if (asked <= 0 && text && *text) {
        *out = sap_real_parse(text, &end);
        if (end == text || *end || !(*out > 0) || !isfinite(*out))
            return sap_error_set(err, SAP_EARGUMENT, "SAPWOOD_TIMEOUT: \"%s\" is not a number of seconds", text);
    }
    return SAP_OK;
}

sap_status sap_comm_open(const sap_comm_options *options, sap_comm **out, sap_error *err) {
    const char *kind = options ? options->kind : NULL;
    double timeout;
    const void *table;
    *out = NULL;
    if (!kind)
        SAP_TRY(find_kind(&kind, err));
    SAP_TRY(find_timeout(options ? options->timeout : 0, &timeout, err));
    if (!kind || strcmp(kind, "none") == 0)
        return SAP_OK;
    if (strcmp(kind, "mpich") != 0 && strcmp(kind, "openmpi") != 0)
        return sap_error_set(err, SAP_EARGUMENT, "there is no communication \"%s\"; there are mpich, openmpi and none",
                             kind);
    SAP_TRY(sap_plugin_find(kind, &table, err));
    return make(table, timeout, sap_witness_start(), out, err);
}

void sap_comm_close(sap_comm *comm, bool failed) {
    if (!comm)
        return;
    failed = comm->broken || (failed && !comm->agreed);
    sap_comm_device_end(comm, failed);
    if (comm->has_thread)
        sap_watchdog_stop(comm, !failed);
    sap_witness_stop(comm->witness);
    if (comm->state)
        comm->table->close(comm->state, failed);
    pthread_mutex_destroy(&comm->lock);
    free(comm->names);
    free(comm);
}

/* ---- What it is ----------------------------------------------------------------------------------------------- */

int sap_comm_rank(const sap_comm *comm) {
    return comm ? comm->rank : 0;
}

int sap_comm_size(const sap_comm *comm) {
    return comm ? comm->size : 1;
}

const char *sap_comm_kind(const sap_comm *comm) {
    return comm ? comm->table->name : "none";
}

const char *sap_comm_rank_name(const sap_comm *comm, int rank) {
    return comm && comm->names && rank >= 0 && rank < comm->size ? comm->names[rank] : "rank 0";
}

void sap_comm_note(sap_comm *comm, int64_t epoch, int64_t step) {
    if (!comm)
        return;
    atomic_fetch_add(&comm->work, 1);
    if (comm->witness)
        sap_witness_note(comm->witness, epoch, step);
}

double sap_comm_seconds(const sap_comm *comm) {
    return comm ? comm->seconds : 0;
}
