/* Isolation: for every particle, the pt around it in each of the three maps of an event (topology recipe, step 2).
 *
 * Which entries are in a particle's cone is decided by double arithmetic on the particle's recomputed eta and phi:
 * delta_eta² + delta_phi² < 0.3². sap_isolation_sum says this entry by entry and is the reference. sap_isolation_sums
 * finds the same sums for many particles with vectors, looking only at entries of nearby eta. It works with the eta and
 * phi as stored, which differ from the recomputed ones by rounding, and leaves to the reference what is so near a
 * cone's edge that this could matter; so both have the same entries in every cone, only added in another order.
 */
#ifndef SAP_ISOLATION_H
#define SAP_ISOLATION_H

#include "momenta.h"

#include <sapwood/base.h>

#define SAP_CONE 0.3

/* How the difference in phi is treated. */
typedef enum sap_fold {
    SAP_FOLD_NEAREST, /* brought into [-pi, pi] */
    SAP_FOLD_TURN     /* only |difference| > 2 pi is, by one turn: cones are cut at phi = ±pi */
} sap_fold;

/* Entries of a map, or particles, in file order: (count) values each. */
typedef struct sap_cloud {
    int32_t count;
    double *pt, *eta, *phi;
} sap_cloud;

enum { SAP_MAP_TRACK, SAP_MAP_PHOTON, SAP_MAP_NEUTRAL, SAP_MAPS };

enum { SAP_ETA_BINS = 128 };

/* The entries by rising bin of eta, and in file order within a bin. */
typedef struct sap_sorted {
    sap_cloud cloud;
    int32_t *order;                  /* (count) place in file order */
    uint8_t *bin;                    /* (count) of each entry in file order */
    int32_t begin[SAP_ETA_BINS + 1]; /* of each bin */
} sap_sorted;

/* Memory for one event; zeroed is empty. */
typedef struct sap_isolation_space {
    void *block;
    size_t capacity;
    sap_sorted maps[SAP_MAPS];
    sap_sorted particles;
} sap_isolation_space;

/* pt of the map's entries in the cone around (eta, phi). */
double sap_isolation_sum(const sap_cloud *map, double eta, double phi, sap_fold fold);

/* sums[m][i]: pt of the entries of map m (of SAP_MAPS) in the cone around particle i, which is given as stored. */
SAP_MUST_CHECK sap_status sap_isolation_sums(const sap_cloud *maps, const sap_cloud *particles, sap_fold fold,
                                             sap_isolation_space *space, double *const *sums, sap_error *err);

void sap_isolation_release(sap_isolation_space *space);

/* Relative isolation. inside: the particle itself is taken to be in the map. */
static inline double sap_isolation_value(double sum, double pt, bool inside) {
    if (pt <= 0)
        return 0;
    return inside ? sum / pt - 1 : sum / pt;
}

#endif
