/* Device communicators: brought together over the ranks' communicator, looked after by the watchdog.
 *
 * A sum on the device waits for the other ranks there, where nobody can look. So while the host waits for the device it keeps asking
 * whether all is well; and the watchdog ends what the device waits for once a rank is lost, whatever the host is doing.
 */
#include "comm_device.h"

#include "comm_internal.h"

#include <stdlib.h>

struct sap_comm_device {
    const sap_comm_device_table *table;
    pthread_mutex_t lock; /* of `state`, between the rank and its watchdog; taken after that of the communicator */
    void *state;          /* NULL: given up */
    double looked;        /* when the host began to wait; 0: it does not */
};

int sap_comm_local_rank(const sap_comm *comm) {
    return !comm ? 0 : comm->table->local_rank ? comm->table->local_rank(comm->state) : comm->rank;
}

/* ---- What the watchdog does ------------------------------------------------------------------------------------- */

static void give_up(sap_comm_device *device) {
    if (device->state)
        device->table->close(device->state, true);
    device->state = NULL;
}

void sap_comm_device_watch(sap_comm *comm) {
    sap_comm_device *device = comm->device;
    bool done;
    sap_error error = {0};
    if (!device || pthread_mutex_trylock(&device->lock) != 0) /* else the rank is in a call: next time */
        return;
    if (device->state && !atomic_load(&comm->lost) && device->table->test(device->state, &done, &error) != SAP_OK) {
        (void)snprintf(comm->failure, sizeof comm->failure, "%.290s", error.message);
        atomic_store(&comm->lost, true);
    }
    if (atomic_load(&comm->lost))
        give_up(device);
    pthread_mutex_unlock(&device->lock);
}

/* ---- What the rank does -------------------------------------------------------------------------------------------- */

static sap_status fail_lost(sap_comm *comm, sap_error *err) {
    pthread_mutex_lock(&comm->lock);
    sap_comm_device_watch(comm);
    sap_status status = sap_error_set(err, SAP_EIO, "%s", comm->failure);
    comm->broken = true;
    pthread_mutex_unlock(&comm->lock);
    return status;
}

/* Whether the host's part of what was begun is done. */
static sap_status test(sap_comm_device *device, bool *done, sap_error *err) {
    pthread_mutex_lock(&device->lock);
    *done = true;
    sap_status status = device->state ? device->table->test(device->state, done, err) : SAP_OK;
    pthread_mutex_unlock(&device->lock);
    return status;
}

static sap_status wait_until_begun(sap_comm *comm, sap_error *err) {
    double begun = sap_seconds();
    atomic_store(&comm->waiting, true);
    for (bool done = false;;) {
        sap_status status = atomic_load(&comm->lost) ? fail_lost(comm, err) : test(comm->device, &done, err);
        if (status != SAP_OK || done) {
            atomic_fetch_add(&comm->work, 1);
            atomic_store(&comm->waiting, false);
            return status;
        }
        sap_comm_pause(sap_seconds() - begun);
    }
}

sap_status sap_comm_device_sum(sap_comm *comm, float *data, int64_t count, void *stream, sap_error *err) {
    sap_comm_device *device = comm->device;
    pthread_mutex_lock(&device->lock);
    sap_status status = device->state ? device->table->start_sum(device->state, data, count, stream, err) : SAP_EIO;
    bool gone = !device->state;
    pthread_mutex_unlock(&device->lock);
    if (gone)
        return fail_lost(comm, err);
    return status == SAP_OK ? wait_until_begun(comm, err) : status;
}

sap_status sap_comm_device_look(sap_comm *comm, bool summing, sap_error *err) {
    sap_comm_device *device = comm->device;
    double now = sap_seconds();
    device->looked = device->looked > 0 ? device->looked : now;
    atomic_store(&comm->waiting, summing);
    if (atomic_load(&comm->lost))
        return fail_lost(comm, err);
    sap_comm_pause(now - device->looked);
    return SAP_OK;
}

void sap_comm_device_note(sap_comm *comm, double seconds) {
    comm->device->looked = 0;
    comm->seconds += seconds;
    atomic_fetch_add(&comm->work, 1);
    atomic_store(&comm->waiting, false);
}

/* ---- Opening and closing --------------------------------------------------------------------------------------------- */

static sap_status find_table(const sap_comm *comm, const sap_comm_device_table **out, sap_error *err) {
    const void *table = comm->table->device;
    if (!table)
        SAP_TRY(sap_plugin_find("nccl", &table, err));
    *out = table;
    return SAP_OK;
}

static sap_status bring_together(sap_comm *comm, sap_comm_device *device, sap_error *err) {
    char id[SAP_COMM_ID] = {0};
    SAP_TRY(sap_comm_agree(comm, find_table(comm, &device->table, err), err));
    SAP_TRY(sap_comm_agree(comm, comm->rank == 0 ? device->table->make_id(id, err) : SAP_OK, err));
    SAP_TRY(sap_comm_broadcast(comm, id, sizeof id, err));
    sap_status status = device->table->open(&device->state, id, comm->rank, comm->size, err);
    if (status == SAP_OK)
        status = wait_until_begun(comm, err);
    return sap_comm_agree(comm, status, err);
}

sap_status sap_comm_device_open(sap_comm *comm, sap_error *err) {
    sap_comm_device *device = calloc(1, sizeof *device);
    if (!device)
        return sap_error_memory(err, "GPU communicator");
    pthread_mutex_init(&device->lock, NULL);
    pthread_mutex_lock(&comm->lock);
    comm->device = device;
    pthread_mutex_unlock(&comm->lock);
    sap_status status = bring_together(comm, device, err);
    if (status != SAP_OK)
        sap_comm_device_end(comm, true);
    return status;
}

void sap_comm_device_end(sap_comm *comm, bool failed) {
    pthread_mutex_lock(&comm->lock);
    sap_comm_device *device = comm->device;
    comm->device = NULL; /* the watchdog does not see it any more */
    pthread_mutex_unlock(&comm->lock);
    if (!device)
        return;
    if (device->state)
        device->table->close(device->state, failed);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

void sap_comm_device_close(sap_comm *comm) {
    sap_comm_device_end(comm, comm->broken);
}
