/* Massless particles: from (pt, eta, phi) to Cartesian momenta and back, in double precision. */
#ifndef SAP_MOMENTA_H
#define SAP_MOMENTA_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define SAP_PI 3.14159265358979323846
#define SAP_TURN (2 * SAP_PI)

typedef struct sap_momentum {
    double px, py, pz, energy; /* GeV */
    double pt, eta, phi;       /* recomputed from the three */
} sap_momentum;

/* One particle, by the C library: px = pt cos phi, py = pt sin phi, pz = pt sinh eta, and pt, eta, phi from those. */
sap_momentum sap_momentum_of(double pt, double eta, double phi);

/* px, py, pz and energy of `count` particles: as above within 1e-14 of the energy. All arrays: (count). */
void sap_momenta(int32_t count, const double *pt, const double *eta, const double *phi, double *px, double *py,
                 double *pz, double *energy);

/* An angle brought into [-pi, pi]. Within one turn the subtraction is exact, as remainder() is, which it is faster than. */
static inline double sap_folded(double angle) {
    double size = fabs(angle);
    if (size <= SAP_PI)
        return angle;
    return size <= SAP_TURN ? angle - copysign(SAP_TURN, angle) : remainder(angle, SAP_TURN);
}

#endif
