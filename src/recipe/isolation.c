/* Isolation sums: the reference entry by entry, and the same by vectors over entries sorted in eta. */
#include "isolation.h"
#include "lanes.h"

#include <stdlib.h>

double sap_isolation_sum(const sap_cloud *map, double eta, double phi, sap_fold fold) {
    double sum = 0;
    for (int32_t i = 0; i < map->count; i++) {
        double delta_eta = map->eta[i] - eta;
        double delta_phi = map->phi[i] - phi;
        if (fold == SAP_FOLD_NEAREST)
            delta_phi = sap_folded(delta_phi);
        else if (delta_phi > SAP_TURN)
            delta_phi -= SAP_TURN;
        else if (delta_phi < -SAP_TURN)
            delta_phi += SAP_TURN;
        if (delta_eta * delta_eta + delta_phi * delta_phi < SAP_CONE * SAP_CONE)
            sum += map->pt[i];
    }
    return sum;
}

/* ---- Sorting by bins of eta ------------------------------------------------------------------------------- */

/* What the vector form takes: beyond, the stored angles are not the recomputed ones. */
#define LARGEST_ETA 20.0

/* A bin is a little wider than a quarter of the cone's radius, so that whatever is in the cone of a particle in bin b
 * is in the bins b - REACH … b + REACH. The outermost bins hold everything beyond them too. */
#define BINS_PER_ETA (3.99 / SAP_CONE)
enum { REACH = 4 };

static bool is_plain(const sap_cloud *cloud) {
    bool plain = true;
    for (int32_t i = 0; i < cloud->count; i++)
        plain &= fabs(cloud->eta[i]) <= LARGEST_ETA && fabs(cloud->phi[i]) <= SAP_PI;
    return plain;
}

static void sort_by_bin(const sap_cloud *cloud, sap_sorted *sorted) {
    int32_t count[SAP_ETA_BINS] = {0};
    for (int32_t i = 0; i < cloud->count; i++) {
        double bin = cloud->eta[i] * BINS_PER_ETA + SAP_ETA_BINS / 2;
        bin = bin > 0 ? bin : 0;
        sorted->bin[i] = (uint8_t)(bin < SAP_ETA_BINS - 1 ? bin : SAP_ETA_BINS - 1);
        count[sorted->bin[i]]++;
    }
    sorted->begin[0] = 0;
    for (int b = 0; b < SAP_ETA_BINS; b++) {
        sorted->begin[b + 1] = sorted->begin[b] + count[b];
        count[b] = sorted->begin[b];
    }
    sorted->cloud.count = cloud->count;
    for (int32_t i = 0; i < cloud->count; i++) {
        int32_t to = count[sorted->bin[i]]++;
        sorted->order[to] = i;
        sorted->cloud.pt[to] = cloud->pt[i];
        sorted->cloud.eta[to] = cloud->eta[i];
        sorted->cloud.phi[to] = cloud->phi[i];
    }
}

/* ---- Sums ------------------------------------------------------------------------------------------------- */

/* Particles looked at together: two vectors, whose additions overlap. */
enum { GROUP = 2 * SAP_LANES };

/* Squared distances so near the cone's edge that recomputing eta and phi could change the decision. */
#define DOUBT 1e-10

typedef struct group {
    sap_lanes eta[2], phi[2];
    sap_lanes sum[2];
    sap_mask doubt[2];
} group;

/* Adds the entries [begin, end) of the map. A difference of phi is folded as half - |abs(difference) - half|: with half
 * = pi that is the nearer way round; with a half beyond any difference it changes nothing but rounding. */
SAP_INLINE void add_entries(group *g, const sap_cloud *map, int32_t begin, int32_t end, double half) {
    sap_lanes eta0 = g->eta[0], eta1 = g->eta[1], phi0 = g->phi[0], phi1 = g->phi[1];
    sap_lanes sum0 = {0}, sum1 = {0};
    sap_mask doubt0 = {0}, doubt1 = {0};
    for (int32_t i = begin; i < end; i++) {
        sap_lanes eta = sap_lanes_all(map->eta[i]), phi = sap_lanes_all(map->phi[i]), pt = sap_lanes_all(map->pt[i]);
        sap_lanes de0 = eta - eta0, de1 = eta - eta1;
        sap_lanes dp0 = half - sap_lanes_abs(sap_lanes_abs(phi - phi0) - half);
        sap_lanes dp1 = half - sap_lanes_abs(sap_lanes_abs(phi - phi1) - half);
        sap_lanes distance0 = de0 * de0 + dp0 * dp0, distance1 = de1 * de1 + dp1 * dp1;
        sap_mask in0 = distance0 < SAP_CONE * SAP_CONE - DOUBT, in1 = distance1 < SAP_CONE * SAP_CONE - DOUBT;
        sum0 += sap_lanes_where(in0, pt);
        sum1 += sap_lanes_where(in1, pt);
        doubt0 |= in0 ^ (distance0 < SAP_CONE * SAP_CONE + DOUBT);
        doubt1 |= in1 ^ (distance1 < SAP_CONE * SAP_CONE + DOUBT);
    }
    g->sum[0] = sum0;
    g->sum[1] = sum1;
    g->doubt[0] = doubt0;
    g->doubt[1] = doubt1;
}

/* sums, doubt: (particles, rounded up to whole groups), in sorted order, as are the particles. */
SAP_CLONES static void sum_groups(const sap_sorted *map, const sap_sorted *particles, double half, double *sums,
                                  int64_t *doubt) {
    for (int32_t at = 0; at < particles->cloud.count; at += GROUP) {
        group g;
        memcpy(g.eta, particles->cloud.eta + at, sizeof g.eta);
        memcpy(g.phi, particles->cloud.phi + at, sizeof g.phi);
        int32_t last = at + GROUP <= particles->cloud.count ? at + GROUP - 1 : particles->cloud.count - 1;
        int32_t low = particles->bin[particles->order[at]] - REACH;
        int32_t high = particles->bin[particles->order[last]] + REACH;
        low = low > 0 ? low : 0;
        high = high < SAP_ETA_BINS - 1 ? high : SAP_ETA_BINS - 1;
        add_entries(&g, &map->cloud, map->begin[low], map->begin[high + 1], half);
        memcpy(sums + at, g.sum, sizeof g.sum);
        memcpy(doubt + at, g.doubt, sizeof g.doubt);
    }
}

static void sum_plainly(const sap_cloud *maps, const sap_cloud *particles, int32_t i, sap_fold fold,
                        double *const *sums) {
    sap_momentum p = sap_momentum_of(particles->pt[i], particles->eta[i], particles->phi[i]);
    for (int m = 0; m < SAP_MAPS; m++)
        sums[m][i] = sap_isolation_sum(&maps[m], p.eta, p.phi, fold);
}

/* ---- Memory ------------------------------------------------------------------------------------------------ */

static size_t whole_groups(int32_t count) {
    return ((size_t)count + GROUP - 1) / GROUP * GROUP;
}

/* Takes the arrays of one sorted cloud off the block. */
static char *carve(sap_sorted *sorted, int32_t count, char *at) {
    size_t n = whole_groups(count);
    sorted->cloud.pt = (double *)(void *)at;
    sorted->cloud.eta = sorted->cloud.pt + n;
    sorted->cloud.phi = sorted->cloud.eta + n;
    sorted->order = (int32_t *)(void *)(sorted->cloud.phi + n);
    sorted->bin = (uint8_t *)(sorted->order + n);
    return (char *)(sorted->bin + n);
}

enum { BYTES_AN_ENTRY = 3 * sizeof(double) + sizeof(int32_t) + 1, BYTES_A_SUM = sizeof(double) + sizeof(int64_t) };

static bool reserve(sap_isolation_space *space, const sap_cloud *maps, const sap_cloud *particles) {
    size_t bytes = whole_groups(particles->count) * (BYTES_AN_ENTRY + BYTES_A_SUM);
    for (int m = 0; m < SAP_MAPS; m++)
        bytes += whole_groups(maps[m].count) * BYTES_AN_ENTRY;
    if (bytes > space->capacity) {
        sap_isolation_release(space);
        space->block = malloc(2 * bytes);
        if (!space->block)
            return false;
        space->capacity = 2 * bytes;
    }
    return true;
}

void sap_isolation_release(sap_isolation_space *space) {
    free(space->block);
    *space = (sap_isolation_space){0};
}

sap_status sap_isolation_sums(const sap_cloud *maps, const sap_cloud *particles, sap_fold fold,
                              sap_isolation_space *space, double *const *sums, sap_error *err) {
    if (!(is_plain(&maps[0]) && is_plain(&maps[1]) && is_plain(&maps[2]) && is_plain(particles))) {
        for (int32_t i = 0; i < particles->count; i++)
            sum_plainly(maps, particles, i, fold, sums);
        return SAP_OK;
    }
    if (!reserve(space, maps, particles))
        return sap_error_set(err, SAP_EMEMORY, "isolation: out of memory");
    char *at = carve(&space->particles, particles->count, space->block);
    double *sorted_sums = (double *)(void *)at;
    size_t n = whole_groups(particles->count);
    int64_t *doubt = (int64_t *)(void *)(sorted_sums + n);
    at = (char *)(doubt + n);
    for (int m = 0; m < SAP_MAPS; m++)
        at = carve(&space->maps[m], maps[m].count, at);

    sort_by_bin(particles, &space->particles);
    for (size_t i = (size_t)particles->count; i < n; i++) /* what fills the last group is computed and not used */
        space->particles.cloud.eta[i] = space->particles.cloud.phi[i] = 0;
    for (int m = 0; m < SAP_MAPS; m++) {
        sort_by_bin(&maps[m], &space->maps[m]);
        sum_groups(&space->maps[m], &space->particles, fold == SAP_FOLD_NEAREST ? SAP_PI : 64, sorted_sums, doubt);
        for (int32_t i = 0; i < particles->count; i++) {
            int32_t to = space->particles.order[i];
            sums[m][to] = sorted_sums[i];
            if (doubt[i]) {
                sap_momentum p = sap_momentum_of(particles->pt[to], particles->eta[to], particles->phi[to]);
                sums[m][to] = sap_isolation_sum(&maps[m], p.eta, p.phi, fold);
            }
        }
    }
    return SAP_OK;
}
