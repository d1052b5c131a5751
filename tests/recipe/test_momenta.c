/* Cartesian momenta: the vector functions against the C library. */
#include "recipe/momenta.h"

#include "base/base_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { COUNT = 4003 };

static double pt[COUNT], eta[COUNT], phi[COUNT], px[COUNT], py[COUNT], pz[COUNT], energy[COUNT];

static bool near(double x, double expected, double scale) {
    return x == expected || (isnan(x) && isnan(expected)) || fabs(x - expected) <= 1e-14 * scale;
}

static void compare(int32_t count) {
    sap_momenta(count, pt, eta, phi, px, py, pz, energy);
    for (int32_t i = 0; i < count; i++) {
        sap_momentum p = sap_momentum_of(pt[i], eta[i], phi[i]);
        assert_true(near(px[i], p.px, p.pt) && near(py[i], p.py, p.pt));
        assert_true(near(pz[i], p.pz, p.energy) && near(energy[i], p.energy, p.energy));
    }
}

static void same_as_the_library(void **state) {
    (void)state;
    static const double widest[] = {0.001, 0.5, 5, 19.9, 300};
    for (uint64_t seed = 0; seed < 5; seed++) {
        for (uint64_t i = 0; i < COUNT; i++) {
            pt[i] = 100 * sap_unit(sap_mix(seed, 3 * i));
            eta[i] = 2 * widest[seed] * (sap_unit(sap_mix(seed, 3 * i + 1)) - 0.5);
            phi[i] = 8 * (sap_unit(sap_mix(seed, 3 * i + 2)) - 0.5);
        }
        compare(COUNT);
        for (int32_t count = 0; count < 10; count++)
            compare(count);
    }
}

static void odd_values(void **state) {
    (void)state;
    const double odd[] = {0,      -0.0, SAP_PI, -SAP_PI, SAP_PI / 2, -SAP_PI / 4, 3 * SAP_PI / 4,
                          1e-300, 1e9,  NAN,    INFINITY};
    enum { ODD = sizeof odd / sizeof *odd };
    for (int32_t i = 0; i < ODD * ODD; i++) {
        pt[i] = 2;
        eta[i] = odd[i % ODD];
        phi[i] = odd[i / ODD];
    }
    compare(ODD * ODD);
}

static void writes_no_further(void **state) {
    (void)state;
    for (int32_t count = 0; count < 9; count++) {
        px[count] = py[count] = pz[count] = energy[count] = -7;
        sap_momenta(count, pt, eta, phi, px, py, pz, energy);
        assert_true(px[count] == -7 && py[count] == -7 && pz[count] == -7 && energy[count] == -7);
    }
}

static void folds_angles(void **state) {
    (void)state;
    assert_true(sap_folded(3) == 3 && sap_folded(-SAP_PI) == -SAP_PI);
    for (double angle = -30; angle < 30; angle += 0.01)
        assert_true(fabs(sap_folded(angle) - remainder(angle, SAP_TURN)) < 1e-15);
    assert_true(isnan(sap_folded(INFINITY)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_the_library),
        cmocka_unit_test(odd_values),
        cmocka_unit_test(writes_no_further),
        cmocka_unit_test(folds_angles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
