/* Batches that several ranks share: what is summed over all of them, in an order that nobody minds or in a fixed one.
 *
 * In the fixed order a batch falls into groups by the shards of its rows, a power of two of them whose number depends on the batch size
 * alone. Gradients are added within each group, and then the groups pairwise in a tree; a rank owns whole groups, adds those that stand
 * together in the tree, and the roots of what each rank has added are exchanged. So the sums are the same bits for any number of ranks.
 */
#include "program.h"

#include <stdlib.h>

enum { GROUP_ROWS = 16, GROUPS_LEAST = 8 }; /* rows of a group that fill vectors well enough */

int32_t sap_share_groups(int64_t batch) {
    int32_t groups = GROUPS_LEAST;
    while (groups < SAP_SLICES && batch / (2 * groups) >= GROUP_ROWS)
        groups *= 2;
    return groups;
}

void sap_share_own(int32_t groups, int rank, int size, int32_t *from, int32_t *to) {
    *from = (int32_t)((int64_t)groups * rank / size);
    *to = (int32_t)((int64_t)groups * (rank + 1) / size);
}

static int32_t group_count(const sap_program *p) {
    return p->share.groups;
}

/* ---- Sums in the middle of a batch ---------------------------------------------------------------------------- */

/* Sums of each group (own: of each tile) are brought together and added in order. */
static sap_status sum_groups(sap_program *p, sap_barrier *barrier, sap_error *err) {
    int64_t count = barrier->count, groups = group_count(p);
    double *all = calloc((size_t)(groups * count) + 1, sizeof *all);
    if (!all)
        return sap_error_memory(err, p->model->name);
    for (int64_t slice = 0; slice < p->slice_count; slice++) {
        double *to = all + (p->share.group_from + slice) * count;
        for (int64_t tile = p->slice_tiles[slice]; tile < p->slice_tiles[slice + 1]; tile++)
            for (int64_t i = 0; i < count; i++)
                to[i] += barrier->own[tile * count + i];
    }
    sap_status status = sap_comm_sum(p->share.comm, SAP_COMM_DOUBLE, all, groups * count, err);
    for (int64_t i = 0; i < count; i++) {
        barrier->sums[i] = 0;
        for (int64_t g = 0; g < groups; g++)
            barrier->sums[i] += all[g * count + i];
    }
    free(all);
    return status;
}

sap_status sap_share_barrier(sap_program *p, sap_barrier *barrier, sap_error *err) {
    if (group_count(p))
        return sum_groups(p, barrier, err);
    for (int64_t i = 0; i < barrier->count; i++) {
        barrier->sums[i] = 0;
        for (int64_t tile = 0; tile < p->tile_count; tile++)
            barrier->sums[i] += barrier->own[tile * barrier->count + i];
    }
    return sap_comm_sum(p->share.comm, SAP_COMM_DOUBLE, barrier->sums, barrier->count, err);
}

/* The longest sequence of the whole batch decides how far shorter ones are padded where the model leaves the length open. */
sap_status sap_share_longest(sap_program *p, sap_error *err) {
    int32_t domains = p->model->domain_count;
    int size = sap_comm_size(p->share.comm);
    bool open = false;
    for (int32_t d = 0; d < domains; d++)
        open = open || (!p->model->domains[d].ragged && p->model->domains[d].length < 0);
    if (!open || size == 1)
        return SAP_OK;
    int64_t *all = calloc((size_t)(size * domains), sizeof *all);
    if (!all)
        return sap_error_memory(err, p->model->name);
    memcpy(all + sap_comm_rank(p->share.comm) * domains, p->longest, (size_t)domains * sizeof *all);
    sap_status status = sap_comm_sum(p->share.comm, SAP_COMM_INT64, all, (int64_t)size * domains, err);
    for (int64_t i = 0; i < (int64_t)size * domains; i++)
        if (!p->model->domains[i % domains].ragged && all[i] > p->longest[i % domains])
            p->longest[i % domains] = all[i];
    free(all);
    return status;
}

/* ---- Gradients ---------------------------------------------------------------------------------------------------- */

/* A node of the tree that a rank has added up: groups [first, first + span). */
typedef struct root {
    int32_t first, span;
} root;

/* The largest nodes inside [from, to). */
static int32_t find_roots(int32_t from, int32_t to, root *out) {
    int32_t count = 0;
    while (from < to) {
        int32_t span = 1;
        while (from % (2 * span) == 0 && from + 2 * span <= to)
            span *= 2;
        out[count++] = (root){from, span};
        from += span;
    }
    return count;
}

static float *group_gradients(const sap_program *p, int32_t group) {
    int32_t slice = group - p->share.group_from;
    return slice == 0 ? p->gradients : p->slices + slice * p->slice_stride;
}

/* Adds the groups of one node; the sum takes the place of its first group. */
static void add_node(const sap_program *p, root node) {
    for (int32_t step = 1; step < node.span; step *= 2)
        for (int32_t g = node.first; g < node.first + node.span; g += 2 * step)
            p->kernels->add(p->model->trainable_count, group_gradients(p, g + step), group_gradients(p, g));
}

/* Finishes the tree over the roots of all ranks, which stand one after another in `at`. */
static const float *add_roots(const sap_program *p, const root *roots, int32_t count, float *at, int64_t stride) {
    int32_t left[SAP_SLICES], span[SAP_SLICES]; /* nodes that are left, in order */
    for (int32_t i = 0; i < count; i++) {
        left[i] = i;
        span[i] = roots[i].span;
    }
    for (int32_t step = 1; step < group_count(p); step *= 2) {
        int32_t kept = 0;
        for (int32_t i = 0; i < count; i++, kept++) {
            left[kept] = left[i];
            span[kept] = span[i];
            if (span[i] != step) /* at this size nodes stand in pairs */
                continue;
            p->kernels->add(p->model->trainable_count, at + left[i + 1] * stride, at + left[i] * stride);
            span[kept] = 2 * step;
            i++;
        }
        count = kept;
    }
    return at;
}

static sap_status exchange_roots(sap_program *p, const root *own, int32_t own_count, float *gradients, sap_error *err) {
    root roots[SAP_SLICES];
    int32_t count = 0, mine = 0;
    int size = sap_comm_size(p->share.comm), rank = sap_comm_rank(p->share.comm);
    for (int r = 0; r < size; r++) {
        int32_t from, to;
        sap_share_own(group_count(p), r, size, &from, &to);
        mine = r == rank ? count : mine;
        count += find_roots(from, to, roots + count);
    }
    int64_t stride = p->slice_stride;
    if (!p->exchange)
        p->exchange = aligned_alloc(64, (size_t)(count * stride) * sizeof(float));
    if (!p->exchange)
        return sap_error_memory(err, p->model->name);
    memset(p->exchange, 0, (size_t)(count * stride) * sizeof(float));
    for (int32_t i = 0; i < own_count; i++)
        memcpy(p->exchange + (mine + i) * stride, group_gradients(p, own[i].first),
               (size_t)p->model->trainable_count * sizeof(float));
    SAP_TRY(sap_comm_sum(p->share.comm, SAP_COMM_FLOAT, p->exchange, count * stride, err));
    const float *sum = add_roots(p, roots, count, p->exchange, stride);
    memcpy(gradients, sum, (size_t)p->model->trainable_count * sizeof(float));
    return SAP_OK;
}

/* What each group gave, and the flags: exactly the sums of zeros and one number. */
static sap_status exchange_results(sap_program *p, float *flags, sap_batch_result *result, sap_error *err) {
    enum { NUMBERS = 2 + 3 * SAP_OUTPUTS };
    double all[SAP_SLICES * NUMBERS + SAP_FLAGS] = {0}, *last = all + group_count(p) * NUMBERS;
    int32_t outputs = p->model->output_count;
    for (int64_t slice = 0; slice < p->slice_count; slice++) {
        double *to = all + (p->share.group_from + slice) * NUMBERS;
        to[0] = p->results[slice].activity;
        for (int32_t o = 0; o < outputs; o++) {
            const sap_loss_sums *sums = &p->results[slice].outputs[o];
            to[1 + 3 * o] = sums->loss;
            to[2 + 3 * o] = (double)sums->count;
            to[3 + 3 * o] = (double)sums->correct;
        }
    }
    for (int i = 0; i < SAP_FLAGS; i++)
        last[i] = (double)flags[i];
    SAP_TRY(sap_comm_sum(p->share.comm, SAP_COMM_DOUBLE, all, group_count(p) * NUMBERS + SAP_FLAGS, err));
    for (int i = 0; i < SAP_FLAGS; i++)
        flags[i] = (float)last[i];
    sap_batch_result sum = {0};
    for (int32_t g = 0; g < group_count(p); g++) {
        const double *from = all + g * NUMBERS;
        sum.activity += from[0];
        for (int32_t o = 0; o < outputs; o++) {
            sum.outputs[o].loss += from[1 + 3 * o];
            sum.outputs[o].count += (int64_t)from[2 + 3 * o];
            sum.outputs[o].correct += (int64_t)from[3 + 3 * o];
        }
    }
    memcpy(sum.places, result->places, sizeof sum.places);
    *result = sum;
    return SAP_OK;
}

sap_status sap_program_sum(sap_program *p, float *gradients, float *flags, sap_batch_result *result, sap_error *err) {
    int64_t count = p->model->trainable_count;
    if (!group_count(p)) { /* one buffer, one operation */
        memcpy(gradients + count, flags, SAP_FLAGS * sizeof *flags);
        SAP_TRY(sap_comm_sum(p->share.comm, SAP_COMM_FLOAT, gradients, count + SAP_FLAGS, err));
        memcpy(flags, gradients + count, SAP_FLAGS * sizeof *flags);
        return SAP_OK;
    }
    root own[SAP_SLICES];
    int32_t roots = find_roots(p->share.group_from, p->share.group_to, own);
    for (int32_t i = 0; i < roots; i++)
        add_node(p, own[i]);
    if (sap_comm_size(p->share.comm) > 1)
        SAP_TRY(exchange_roots(p, own, roots, gradients, err));
    for (int64_t i = 0; i < count; i++)
        gradients[i] += 0.0F; /* -0 becomes 0, as it may have on its way between ranks */
    return exchange_results(p, flags, result, err);
}
