/* Isolation sums: the vector form against the plain one, above all at the edge of the cone. */
#include "recipe/isolation.h"

#include "base/base_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 1000 };

typedef struct numbers {
    double pt[MOST], eta[MOST], phi[MOST];
} numbers;

typedef struct fixture {
    numbers in[SAP_MAPS], of_particles;
    double sums[SAP_MAPS][MOST];
    sap_isolation_space space;
} fixture;

static sap_cloud cloud_of(numbers *n, int32_t count) {
    return (sap_cloud){.count = count, .pt = n->pt, .eta = n->eta, .phi = n->phi};
}

/* Floats, as files have them, widened. */
static void fill(numbers *n, int32_t count, uint64_t seed, double widest_eta) {
    for (int32_t i = 0; i < count; i++) {
        uint64_t at = 3 * (uint64_t)i;
        n->pt[i] = (double)(float)(0.5 + 10 * sap_unit(sap_mix(seed, at)));
        n->eta[i] = (double)(float)(2 * widest_eta * (sap_unit(sap_mix(seed, at + 1)) - 0.5));
        n->phi[i] = (double)(float)(6.28318 * (sap_unit(sap_mix(seed, at + 2)) - 0.5));
    }
}

/* Compares the vector form with the plain one, particle by particle. Returns how often one has others around. */
static int compare(fixture *f, const int32_t counts[SAP_MAPS], int32_t particles, sap_fold fold) {
    sap_cloud maps[SAP_MAPS], cloud = cloud_of(&f->of_particles, particles);
    for (int m = 0; m < SAP_MAPS; m++)
        maps[m] = cloud_of(&f->in[m], counts[m]);
    double *const sums[SAP_MAPS] = {f->sums[0], f->sums[1], f->sums[2]};
    assert_int_equal(sap_isolation_sums(maps, &cloud, fold, &f->space, sums, NULL), SAP_OK);
    int busy = 0;
    for (int32_t i = 0; i < particles; i++) {
        sap_momentum p = sap_momentum_of(cloud.pt[i], cloud.eta[i], cloud.phi[i]);
        for (int m = 0; m < SAP_MAPS; m++) {
            double sum = sap_isolation_sum(&maps[m], p.eta, p.phi, fold);
            assert_true(fabs(sums[m][i] - sum) <= 1e-12 * sum);
            busy += sum > cloud.pt[i];
        }
    }
    return busy;
}

static void same_as_plain(void **state) {
    fixture *f = *state;
    static const int32_t counts[][4] = {{300, 150, 130, 580}, {1, 1, 1, 3},    {7, 9, 8, 8}, {1000, 0, 3, 1000},
                                        {450, 200, 250, 799}, {64, 64, 64, 0}, {2, 3, 4, 1}};
    static const double eta[] = {5, 2.5, 0.3, 15};
    for (uint64_t round = 0; round < 40; round++) {
        const int32_t *n = counts[round % 7];
        for (uint64_t m = 0; m < SAP_MAPS; m++)
            fill(&f->in[m], n[m], 100 * round + m, eta[round % 4]);
        fill(&f->of_particles, n[3], 100 * round + (round & 1 ? 0 : 3), eta[round % 4]);
        int busy = compare(f, n, n[3], round & 2 ? SAP_FOLD_NEAREST : SAP_FOLD_TURN);
        if (n[3] > 100)
            assert_true(busy > 0);
    }
}

/* Entries put at the cone's radius from particles, a few rounding errors to either side. */
static void same_at_the_edge(void **state) {
    fixture *f = *state;
    int inside = 0, outside = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        enum { COUNT = 300 };
        fill(&f->of_particles, COUNT, seed, 5);
        for (int32_t i = 0; i < COUNT; i++) {
            sap_momentum p = sap_momentum_of(f->of_particles.pt[i], f->of_particles.eta[i], f->of_particles.phi[i]);
            double angle = 6.28 * sap_unit(sap_mix(seed + 1000, (uint64_t)i));
            double radius = SAP_CONE * (1 + 1e-16 * (double)(i % 9 - 4));
            f->in[0].pt[i] = 1;
            f->in[0].eta[i] = p.eta + radius * cos(angle);
            f->in[0].phi[i] = fmin(fmax(p.phi + radius * sin(angle), -SAP_PI), SAP_PI);
            sap_cloud one = {.count = 1, .pt = &f->in[0].pt[i], .eta = &f->in[0].eta[i], .phi = &f->in[0].phi[i]};
            bool in = sap_isolation_sum(&one, p.eta, p.phi, SAP_FOLD_NEAREST) > 0;
            inside += in;
            outside += !in;
        }
        const int32_t counts[SAP_MAPS] = {COUNT, 0, 0};
        (void)compare(f, counts, COUNT, seed & 1 ? SAP_FOLD_NEAREST : SAP_FOLD_TURN);
    }
    assert_true(inside > 1000 && outside > 1000);
}

/* What the vector form does not take goes to the plain one: phi beyond ±π, and what is no number. */
static void odd_values(void **state) {
    fixture *f = *state;
    const double odd[] = {
        (double)3.14159274f, -(double)3.14159274f, 7, -100, NAN, INFINITY, -INFINITY, 25, -700, 1e300};
    enum { COUNT = 50 };
    for (size_t i = 0; i < 2 * sizeof odd / sizeof *odd; i++) {
        const int32_t counts[SAP_MAPS] = {COUNT, COUNT, COUNT};
        for (uint64_t m = 0; m < SAP_MAPS; m++)
            fill(&f->in[m], COUNT, m, 1);
        fill(&f->of_particles, COUNT, 0, 1);
        double value = odd[i / 2];
        f->in[1].eta[3] = i & 1 ? value : f->in[1].eta[3];
        f->in[2].phi[4] = i & 1 ? f->in[2].phi[4] : value;
        (void)compare(f, counts, COUNT, SAP_FOLD_NEAREST);
        (void)compare(f, counts, COUNT, SAP_FOLD_TURN);
    }
}

static void cone_by_hand(void **state) {
    (void)state;
    double pt[] = {1, 2, 4, 8, 16}, eta[] = {0, 0.29, 0.31, 0, 0}, phi[] = {3, 3, 3, -3.1, 2.5};
    sap_cloud map = {.count = 5, .pt = pt, .eta = eta, .phi = phi};
    assert_true(sap_isolation_sum(&map, 0, 3, SAP_FOLD_NEAREST) == 11);
    assert_true(sap_isolation_sum(&map, 0, 3, SAP_FOLD_TURN) == 3);
    phi[3] = 3 - SAP_TURN - 0.1; /* more than a turn away */
    assert_true(sap_isolation_sum(&map, 0, 3, SAP_FOLD_TURN) == 11);
    assert_true(sap_isolation_sum(&map, 0, 3, SAP_FOLD_NEAREST) == 11);
    pt[0] = 0;
    assert_true(sap_isolation_value(3, 0, true) == 0);
    assert_true(sap_isolation_value(3, -1, false) == 0);
    assert_true(sap_isolation_value(3, 2, true) == 0.5);
    assert_true(sap_isolation_value(3, 2, false) == 1.5);
}

static int make(void **state) {
    *state = calloc(1, sizeof(fixture));
    return *state ? 0 : -1;
}

static int drop(void **state) {
    fixture *f = *state;
    sap_isolation_release(&f->space);
    free(f);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(same_as_plain, make, drop),
        cmocka_unit_test_setup_teardown(same_at_the_edge, make, drop),
        cmocka_unit_test_setup_teardown(odd_values, make, drop),
        cmocka_unit_test(cone_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
