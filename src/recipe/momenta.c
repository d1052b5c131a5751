/* Massless particles: Cartesian momenta one by one with the C library, and many at a time with vectors.
 *
 * The vector functions are Taylor series after the usual reductions: sine and cosine on [-pi/4, pi/4] after taking off
 * quarter turns, the exponential on [-ln 2/2, ln 2/2] after taking off powers of two; then sinh and cosh from it.
 */
#include "momenta.h"
#include "lanes.h"

sap_momentum sap_momentum_of(double pt, double eta, double phi) {
    sap_momentum p = {.px = pt * cos(phi), .py = pt * sin(phi), .pz = pt * sinh(eta)};
    p.energy = sqrt(p.px * p.px + p.py * p.py + p.pz * p.pz);
    p.pt = sqrt(p.px * p.px + p.py * p.py);
    p.eta = asinh(p.pz / p.pt);
    p.phi = atan2(p.py, p.px);
    return p;
}

/* Adding it leaves the nearest integer in the low bits of the sum. */
#define TO_INTEGER 0x1.8p52

/* Where the series hold; elsewhere the C library is asked. */
#define LARGEST_PHI 4.0
#define LARGEST_ETA 20.0

SAP_INLINE void sine_cosine(sap_lanes phi, sap_lanes *sine, sap_lanes *cosine) {
    sap_lanes shifted = phi * (2 / SAP_PI) + TO_INTEGER;
    sap_mask quarter = (sap_mask)shifted;
    sap_lanes turns = shifted - TO_INTEGER;
    /* pi/2 as two numbers, the first with room for an exact product */
    sap_lanes r = (phi - turns * 0x1.921fb544p+0) - turns * 0x1.0b4611a626331p-34;
    sap_lanes r2 = r * r;
    sap_lanes s =
        r * (1 + r2 * (-1.0 / 6 +
                       r2 * (1.0 / 120 +
                             r2 * (-1.0 / 5040 + r2 * (1.0 / 362880 +
                                                       r2 * (-1.0 / 39916800 + r2 * (1.0 / 6227020800 +
                                                                                     r2 * (-1.0 / 1307674368000))))))));
    sap_lanes c =
        1 + r2 * (-1.0 / 2 +
                  r2 * (1.0 / 24 +
                        r2 * (-1.0 / 720 +
                              r2 * (1.0 / 40320 + r2 * (-1.0 / 3628800 + r2 * (1.0 / 479001600 +
                                                                               r2 * (-1.0 / 87178291200 +
                                                                                     r2 * (1.0 / 20922789888000))))))));
    sap_mask odd = -(quarter & 1);
    sap_mask sine_bits = ((sap_mask)s & ~odd) | ((sap_mask)c & odd);
    sap_mask cosine_bits = ((sap_mask)c & ~odd) | ((sap_mask)s & odd);
    *sine = (sap_lanes)(sine_bits ^ ((quarter & 2) << 62));
    *cosine = (sap_lanes)(cosine_bits ^ (((quarter + 1) & 2) << 62));
}

SAP_INLINE sap_lanes exponential(sap_lanes x) {
    sap_lanes shifted = x * 1.44269504088896340736 + TO_INTEGER;
    sap_lanes powers = shifted - TO_INTEGER;
    /* ln 2 as two numbers */
    sap_lanes r = (x - powers * 0x1.62e42feep-1) - powers * 0x1.a39ef35793c76p-33;
    sap_lanes e =
        1 +
        r * (1 +
             r * (1.0 / 2 +
                  r * (1.0 / 6 +
                       r * (1.0 / 24 +
                            r * (1.0 / 120 +
                                 r * (1.0 / 720 +
                                      r * (1.0 / 5040 +
                                           r * (1.0 / 40320 +
                                                r * (1.0 / 362880 +
                                                     r * (1.0 / 3628800 +
                                                          r * (1.0 / 39916800 + r * (1.0 / 479001600 +
                                                                                     r * (1.0 / 6227020800)))))))))))));
    return (sap_lanes)((sap_mask)e + ((sap_mask)shifted << 52));
}

/* Up to SAP_LANES particles. in: pt, eta, phi; out: px, py, pz, energy, (SAP_LANES) each. */
SAP_INLINE void momenta_of_lanes(const sap_lanes in[3], sap_lanes out[4]) {
    sap_mask inside = (sap_lanes_abs(in[1]) <= LARGEST_ETA) & (sap_lanes_abs(in[2]) <= LARGEST_PHI);
    if (sap_mask_any(~inside)) {
        for (int i = 0; i < SAP_LANES; i++) {
            sap_momentum p = sap_momentum_of(in[0][i], in[1][i], in[2][i]);
            out[0][i] = p.px;
            out[1][i] = p.py;
            out[2][i] = p.pz;
            out[3][i] = p.energy;
        }
        return;
    }
    sap_lanes sine, cosine;
    sine_cosine(in[2], &sine, &cosine);
    sap_lanes up = exponential(in[1]), half_pt = 0.5 * in[0];
    sap_lanes down = 1 / up;
    out[0] = in[0] * cosine;
    out[1] = in[0] * sine;
    out[2] = half_pt * (up - down);
    out[3] = half_pt * (up + down);
}

/* Particles at … at + SAP_LANES - 1, of which the first `count` are there. */
SAP_INLINE void momenta_at(int32_t at, int32_t count, const double *const from[3], double *const to[4]) {
    size_t bytes = (size_t)count * sizeof(double);
    sap_lanes in[3] = {{0}}, out[4];
    for (int i = 0; i < 3; i++)
        memcpy(&in[i], from[i] + at, bytes);
    momenta_of_lanes(in, out);
    for (int i = 0; i < 4; i++)
        memcpy(to[i] + at, &out[i], bytes);
}

SAP_CLONES void sap_momenta(int32_t count, const double *pt, const double *eta, const double *phi, double *px,
                            double *py, double *pz, double *energy) {
    const double *const from[3] = {pt, eta, phi};
    double *const to[4] = {px, py, pz, energy};
    int32_t at = 0;
    for (; count - at >= SAP_LANES; at += SAP_LANES)
        momenta_at(at, SAP_LANES, from, to);
    if (at < count)
        momenta_at(at, count - at, from, to);
}
