/* Which GPU a rank has, how its gradients find those of the others, and which rows of each step are its own. */
#include "cuda_ranks.h"

#include "../../comm/comm_device.h"
#include "../../dataset/feed_places.h"

#include <stdlib.h>

/* ---- GPUs --------------------------------------------------------------------------------------------------- */

static sap_status sum_on_host(void *context, float *numbers, int64_t count, void *stream, sap_error *err) {
    (void)stream;
    const sap_cuda_ranks *ranks = context;
    return sap_comm_sum(ranks->share.comm, SAP_COMM_FLOAT, numbers, count, err);
}

static sap_status sum_on_device(void *context, float *numbers, int64_t count, void *stream, sap_error *err) {
    const sap_cuda_ranks *ranks = context;
    return sap_comm_device_sum(ranks->share.comm, numbers, count, stream, err);
}

static sap_status look(void *context, bool summing, sap_error *err) {
    const sap_cuda_ranks *ranks = context;
    return sap_comm_device_look(ranks->share.comm, summing, err);
}

static void note(void *context, double seconds) {
    const sap_cuda_ranks *ranks = context;
    sap_comm_device_note(ranks->share.comm, seconds);
}

static sap_status choose(const sap_cuda_table *table, sap_comm *comm, int64_t *identity, sap_error *err) {
    int64_t identities[SAP_CUDA_DEVICES];
    int count;
    SAP_TRY(table->devices(&count, identities, err));
    int device = sap_comm_local_rank(comm) % count;
    *identity = identities[device];
    return table->select(device, err);
}

/* Ranks that share a GPU with one before them. */
static sap_status count_doubles(sap_comm *comm, int64_t identity, int *doubles, sap_error *err) {
    int size = sap_comm_size(comm);
    int64_t *all = calloc((size_t)size, sizeof *all);
    if (!all)
        return sap_error_memory(err, "GPUs of the ranks");
    all[sap_comm_rank(comm)] = identity;
    sap_status status = sap_comm_sum(comm, SAP_COMM_INT64, all, size, err);
    *doubles = 0;
    for (int r = 0; r < size; r++) {
        bool seen = false;
        for (int before = 0; before < r; before++)
            seen = seen || all[before] == all[r];
        *doubles += seen;
    }
    free(all);
    return status;
}

/* The way from GPU to GPU; *found false: there is none, `why` in words. */
static sap_status find_way(sap_comm *comm, int64_t identity, bool *found, char *why, size_t capacity, sap_error *err) {
    int doubles = 0;
    *found = false;
    SAP_TRY(count_doubles(comm, identity, &doubles, err));
    if (doubles) {
        (void)snprintf(why, capacity, "%d of %d ranks share a GPU with another", doubles, sap_comm_size(comm));
        return SAP_OK;
    }
    sap_error own = {0};
    *found = sap_comm_device_open(comm, &own) == SAP_OK;
    (void)snprintf(why, capacity, "%.300s", own.message);
    return SAP_OK;
}

sap_status sap_cuda_ranks_open(const sap_share *share, const sap_cuda_table *table, sap_cuda_ranks *out,
                               sap_error *err) {
    sap_comm *comm = share ? share->comm : NULL;
    int64_t identity = 0;
    bool direct;
    char why[320];
    *out = (sap_cuda_ranks){.calls = {.context = out}};
    if (share)
        out->share = *share;
    out->calls.groups = out->share.groups > 0 ? out->share.groups : 1;
    SAP_TRY(sap_comm_agree(comm, choose(table, comm, &identity, err), err));
    if (!comm)
        return SAP_OK;
    SAP_TRY(find_way(comm, identity, &direct, why, sizeof why, err));
    out->calls.sum = direct ? sum_on_device : sum_on_host;
    if (direct) {
        out->calls.on_device = true;
        out->calls.look = look;
        out->calls.note = note;
    }
    (void)snprintf(out->sums, sizeof out->sums, "%d ranks on GPUs, sums from GPU to GPU", sap_comm_size(comm));
    if (!direct)
        (void)snprintf(out->sums, sizeof out->sums, "%d ranks on GPUs, sums through the host: %s", sap_comm_size(comm),
                       why);
    return SAP_OK;
}

void sap_cuda_ranks_close(sap_cuda_ranks *ranks) {
    if (ranks->calls.on_device)
        sap_comm_device_close(ranks->share.comm);
    *ranks = (sap_cuda_ranks){0};
}

bool sap_cuda_ranks_share(const sap_cuda_ranks *ranks) {
    return ranks->share.comm || ranks->share.groups > 0;
}

/* ---- Rows --------------------------------------------------------------------------------------------------- */

/* Sorts count row numbers by group, else as they come: out[begin[g] … begin[g + 1]), begin[0] being set. */
static void sort_groups(int32_t groups, const uint8_t *shards, const int32_t *rows, int64_t count, int32_t *out,
                        int64_t *begin) {
    int64_t next[SAP_SLICES + 1] = {0};
    for (int64_t i = 0; i < count; i++)
        next[shards[i] / (SAP_DATASET_SHARDS / groups) + 1]++;
    for (int32_t g = 0; g < groups; g++) {
        begin[g + 1] = begin[g] + next[g + 1];
        next[g + 1] += next[g];
    }
    for (int64_t i = 0; i < count; i++)
        out[next[shards[i] / (SAP_DATASET_SHARDS / groups)]++] = rows ? rows[i] : (int32_t)i;
}

void sap_cuda_ranks_group(const sap_cuda_ranks *ranks, int64_t rows, int32_t *order, int64_t *begin) {
    begin[0] = 0;
    if (ranks->share.groups > 0) {
        sort_groups(ranks->share.groups, ranks->share.shards, NULL, rows, order, begin);
        return;
    }
    begin[1] = rows;
    for (int64_t i = 0; i < rows; i++)
        order[i] = (int32_t)i;
}

/* One step: rows of the feed's order [from, to). numbers, shards: (to - from) scratch. */
static void cut_step(const sap_cuda_ranks *ranks, const sap_feed *feed, int64_t from, int64_t to, int32_t *numbers,
                     uint8_t *shards, int32_t *out, int64_t *begin) {
    const int64_t *order = sap_feed_order(feed);
    int32_t groups = ranks->share.groups;
    int32_t *rows = groups > 0 ? numbers : out;
    for (int64_t i = from; i < to; i++)
        rows[i - from] = (int32_t)(order ? order[i] : i);
    begin[1] = begin[0] + to - from;
    for (int64_t i = from; groups > 0 && i < to; i++)
        shards[i - from] = (uint8_t)sap_feed_shard_of(feed, rows[i - from]);
    if (groups > 0)
        sort_groups(groups, shards, rows, to - from, out, begin);
}

sap_status sap_cuda_ranks_cut(const sap_cuda_ranks *ranks, const sap_feed *feed, int64_t first, int64_t rows,
                              int64_t batch, int32_t **order, int64_t **begin, sap_error *err) {
    int64_t steps = (rows + batch - 1) / batch, groups = ranks->calls.groups;
    int64_t own = sap_feed_own_before(feed, first), end = sap_feed_own_before(feed, first + rows), base = own;
    int32_t *numbers = malloc((size_t)batch * sizeof *numbers);
    uint8_t *shards = malloc((size_t)batch);
    *order = malloc((size_t)(end - own) * sizeof **order + 1);
    *begin = malloc((size_t)(steps * groups + 1) * sizeof **begin);
    sap_status status =
        numbers && shards && *order && *begin ? SAP_OK : sap_error_memory(err, "rows of the steps of an epoch");
    for (int64_t i = 0; status == SAP_OK && i < steps; i++) {
        int64_t place = (i + 1) * batch < rows ? (i + 1) * batch : rows, to = sap_feed_own_before(feed, first + place);
        (*begin)[i * groups] = own - base;
        cut_step(ranks, feed, own, to, numbers, shards, *order + (own - base), *begin + i * groups);
        own = to;
    }
    free(numbers);
    free(shards);
    if (status != SAP_OK) {
        free(*order);
        free(*begin);
    }
    return status;
}

/* ---- Results ------------------------------------------------------------------------------------------------ */

sap_status sap_cuda_ranks_add(const sap_cuda_ranks *ranks, const sap_cuda_result *results, int32_t outputs,
                              sap_cuda_result *sums, sap_error *err) {
    enum { NUMBERS = 4 };
    int32_t groups = ranks->share.groups, count = groups * outputs;
    double all[SAP_SLICES * SAP_CUDA_OUTPUTS * NUMBERS] = {
        0}; /* counts are exact in double, too; zeros of the other ranks change nothing */
    memcpy(sums, results, (size_t)outputs * sizeof *sums);
    if (groups == 0)
        return SAP_OK;
    for (int32_t i = 0; i < count; i++) {
        const double own[NUMBERS] = {results[i].loss, (double)results[i].places, (double)results[i].correct,
                                     (double)results[i].bad_step};
        memcpy(all + i * NUMBERS, own, sizeof own);
    }
    SAP_TRY(sap_comm_sum(ranks->share.comm, SAP_COMM_DOUBLE, all, (int64_t)count * NUMBERS, err));
    memset(sums, 0, (size_t)outputs * sizeof *sums);
    for (int32_t i = 0; i < count; i++) {
        const double *from = all + i * NUMBERS;
        sap_cuda_result *sum = &sums[i % outputs];
        sum->loss += from[0];
        sum->places += (int64_t)from[1];
        sum->correct += (int64_t)from[2];
        if (from[3] > 0 && (sum->bad_step == 0 || (int64_t)from[3] < sum->bad_step))
            sum->bad_step = (int64_t)from[3];
    }
    return SAP_OK;
}
