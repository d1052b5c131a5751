/* Bringing together what the ranks of a training have: sums of an epoch, scores, weights. */
#include "ranks.h"

#include <stdlib.h>

/* Zero-filled sums carry what one rank has to all, in stretches of so many numbers. */
enum { STRETCH = 1 << 20 };

/* ---- The same training ---------------------------------------------------------------------------------------------- */

static sap_status check_same(sap_comm *comm, uint64_t own, const char *what, sap_error *err) {
    uint64_t first = own;
    SAP_TRY(sap_comm_broadcast(comm, &first, sizeof first, err));
    sap_status status = SAP_OK;
    if (first != own)
        status = sap_error_set(err, SAP_EARGUMENT, "this rank was given %s than rank 0", what);
    return sap_comm_agree(comm, status, err);
}

/* Rows that all ranks hold together, as a number of whole sets; -1: of neither kind. */
static sap_status count_sets(sap_comm *comm, const sap_feed *feed, const char *what, int64_t *sets, sap_error *err) {
    int64_t rows = sap_feed_own_rows(feed), all = sap_feed_rows(feed);
    SAP_TRY(sap_comm_sum(comm, SAP_COMM_INT64, &rows, 1, err));
    *sets = rows == all ? 1 : rows == sap_comm_size(comm) * all ? sap_comm_size(comm) : -1;
    if (*sets > 0)
        return SAP_OK;
    return sap_error_set(err, SAP_EARGUMENT, "the ranks hold %lld rows of the %s set, which has %lld", (long long)rows,
                         what, (long long)all);
}

sap_status sap_ranks_check(const sap_training *training, const sap_feed *train, const sap_feed *validation,
                           bool *shared, sap_error *err) {
    sap_comm *comm = training->options->comm;
    const sap_model *model = training->model;
    int64_t sets;
    *shared = false;
    if (sap_comm_size(comm) == 1)
        return SAP_OK;
    SAP_TRY(check_same(comm, sap_training_hash(training), "another network, other data or other options", err));
    SAP_TRY(count_sets(comm, train, "training", &sets, err));
    if (sets != 1)
        return sap_error_set(err, SAP_EARGUMENT, "%s: each of the %d ranks holds the whole training set", model->name,
                             sap_comm_size(comm));
    if (!validation)
        return SAP_OK;
    SAP_TRY(count_sets(comm, validation, "validation", &sets, err));
    *shared = sets == 1;
    for (int32_t o = 0; *shared && o < model->output_count; o++)
        if (model->nodes[model->outputs[o]].shape.rank > 1)
            return sap_error_set(
                err, SAP_EUNSUPPORTED,
                "%s: means over time steps, in batches of a validation set that ranks share: give each "
                "rank all of it",
                model->name);
    return SAP_OK;
}

/* ---- Sums of an epoch ------------------------------------------------------------------------------------------------ */

sap_status sap_ranks_sum_tally(sap_comm *comm, sap_tally *t, sap_error *err) {
    double all[2 + 3 * SAP_OUTPUTS] = {t->loss, t->rows}; /* counts are exact in double, too */
    for (int32_t o = 0; o < SAP_OUTPUTS; o++) {
        all[2 + 3 * o] = t->output[o];
        all[3 + 3 * o] = (double)t->correct[o];
        all[4 + 3 * o] = (double)t->count[o];
    }
    SAP_TRY(sap_comm_sum(comm, SAP_COMM_DOUBLE, all, sizeof all / sizeof *all, err));
    t->loss = all[0];
    t->rows = all[1];
    for (int32_t o = 0; o < SAP_OUTPUTS; o++) {
        t->output[o] = all[2 + 3 * o];
        t->correct[o] = (int64_t)all[3 + 3 * o];
        t->count[o] = (int64_t)all[4 + 3 * o];
    }
    return SAP_OK;
}

/* Numbers [from, to) of all scores, of which this rank's stand at `first`. */
static sap_status gather_stretch(sap_comm *comm, const sap_scores *own, int64_t first, int64_t from, int64_t to,
                                 float *buffer, sap_scores *out, sap_error *err) {
    int64_t count = to - from, begin = first > from ? first : from;
    int64_t end = first + own->count < to ? first + own->count : to;
    memset(buffer, 0, (size_t)(2 * count) * sizeof *buffer);
    for (int64_t i = begin; i < end; i++) {
        buffer[i - from] = own->score[i - first];
        buffer[count + i - from] = own->positive[i - first];
    }
    SAP_TRY(sap_comm_sum(comm, SAP_COMM_FLOAT, buffer, 2 * count, err));
    for (int64_t i = 0; sap_comm_rank(comm) == 0 && i < count; i++) {
        out->score[from + i] = buffer[i];
        out->positive[from + i] = buffer[count + i] > 0;
    }
    return SAP_OK;
}

sap_status sap_ranks_gather_scores(sap_comm *comm, const sap_scores *own, sap_scores *out, sap_error *err) {
    int size = sap_comm_size(comm), rank = sap_comm_rank(comm);
    int64_t *counts = calloc((size_t)size, sizeof *counts), first = 0, all = 0;
    float *buffer = malloc(2 * STRETCH * sizeof *buffer);
    sap_status status = counts && buffer ? SAP_OK : sap_error_memory(err, "scores of all ranks");
    if (status == SAP_OK) {
        counts[rank] = own->count;
        status = sap_comm_sum(comm, SAP_COMM_INT64, counts, size, err);
    }
    for (int r = 0; status == SAP_OK && r < size; r++) {
        first += r < rank ? counts[r] : 0;
        all += counts[r];
    }
    if (status == SAP_OK && rank == 0 && all > 0)
        status = sap_scores_reserve(out, all, err);
    for (int64_t from = 0; status == SAP_OK && from < all; from += STRETCH)
        status = gather_stretch(comm, own, first, from, from + STRETCH < all ? from + STRETCH : all, buffer, out, err);
    if (status == SAP_OK && rank == 0)
        out->count = all;
    free(counts);
    free(buffer);
    return status;
}

/* ---- Weights ------------------------------------------------------------------------------------------------------- */

sap_status sap_ranks_align(sap_comm *comm, sap_model *model, sap_error *err) {
    size_t bytes = (size_t)model->value_count * sizeof(float);
    uint64_t own = sap_hash(model->values, bytes, 0), first = own;
    if (sap_comm_size(comm) == 1)
        return SAP_OK;
    SAP_TRY(sap_comm_broadcast(comm, &first, sizeof first, err));
    int64_t differs = first != own;
    SAP_TRY(sap_comm_sum(comm, SAP_COMM_INT64, &differs, 1, err));
    if (!differs)
        return SAP_OK;
    sap_optimizer_state *state = &model->optimizer;
    SAP_TRY(sap_comm_broadcast(comm, model->values, bytes, err));
    for (int i = 0; i < SAP_SLOTS; i++)
        if (state->slots[i])
            SAP_TRY(sap_comm_broadcast(comm, state->slots[i], (size_t)state->count * sizeof(float), err));
    SAP_TRY(sap_comm_broadcast(comm, &state->iteration, sizeof state->iteration, err));
    return sap_comm_broadcast(comm, &state->learning_rate, sizeof state->learning_rate, err);
}
