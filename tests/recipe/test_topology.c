/* The topology recipe on events made by hand: what real files hardly ever have. */
#include "delphes_events.h"

#include <sapwood/recipe.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    HT,
    MISSING_ET,
    PHI_MISSING,
    MT,
    JETS,
    BJETS,
    LEP_PT,
    LEP_ETA,
    LEP_PHI,
    ISO_CH,
    ISO_PH,
    ISO_NEU,
    LEP_CHARGE,
    IS_ELE
};
enum {
    ROW_PT = 4,
    ROW_ETA = 5,
    ROW_VERTEX = 7,
    ROW_ISO_CH = 10,
    ROW_ISO_PH,
    ROW_ISO_NEU,
    ROW_CH_HAD,
    ROW_NEU_HAD,
    ROW_GAMMA,
    ROW_CHARGE = 18,
    WIDTH
};

#define PI 3.14159265358979323846

/* What the recipe gave for the events of a test. */
typedef struct outcome {
    sap_status status;
    sap_error error;
    sap_batch features;
    int64_t dropped[4];
    const float *hlf; /* (events, 14) */
    const float *particles;
    int32_t rows; /* of the first kept event */
} outcome;

static outcome run_batch(const sap_batch *batch, const char *convention, const sap_run *run) {
    outcome o = {0};
    const sap_recipe *recipe;
    assert_int_equal(sap_recipe_find("topology", convention, &recipe, &o.error), SAP_OK);
    assert_int_equal(recipe->cut_count, 4);
    o.status = sap_recipe_run(recipe, batch, "made.root:Delphes", run, &o.features, o.dropped, &o.error);
    if (o.status == SAP_OK) {
        const sap_column *particles = sap_batch_find(&o.features, "particles");
        o.hlf = sap_batch_find(&o.features, "hlf")->children[0].values;
        o.particles = particles->children[0].values;
        o.rows = o.features.length ? particles->offsets[1] / WIDTH : 0;
    }
    return o;
}

static outcome run_event(const delphes_event *event, const char *convention) {
    sap_batch batch;
    make_batch(event, 1, &batch);
    outcome o = run_batch(&batch, convention, NULL);
    sap_batch_release(&batch);
    return o;
}

static const float *row_of(const outcome *o, int32_t row) {
    assert_true(row < o->rows);
    return o->particles + (ptrdiff_t)row * WIDTH;
}

/* An event that passes: a muon of 50 GeV at (0, 0), one particle of each kind far from it, missing energy. */
static delphes_event *new_event(void) {
    delphes_event *event = calloc(1, sizeof *event);
    assert_non_null(event);
    add_object(event, TRACK, (object){.pt = 2, .eta = 2, .phi = 2, .charge = 1, .pid = 211});
    add_object(event, PHOTON, (object){.pt = 3, .eta = -2, .phi = 2});
    add_object(event, NEUTRAL, (object){.pt = 4, .eta = -3, .phi = -2});
    add_object(event, MUON, (object){.pt = 50, .charge = -1});
    add_object(event, MET, (object){.pt = 40, .phi = 1});
    return event;
}

static void passes_with_all_features(void **state) {
    (void)state;
    delphes_event *event = new_event();
    add_object(event, TRACK, (object){.pt = 50, .eta = 0, .phi = 0, .charge = -1, .pid = 13}); /* the muon's own */
    add_object(event, JET, (object){.pt = 35, .eta = 1, .btag = 1});
    add_object(event, JET, (object){.pt = 45, .eta = -2.5});
    add_object(event, JET, (object){.pt = 30, .eta = 1, .btag = 1});   /* not above 30 */
    add_object(event, JET, (object){.pt = 99, .eta = 2.7, .btag = 1}); /* too far forward */
    for (int paper = 0; paper < 2; paper++) {
        outcome o = run_event(event, paper ? "paper" : "corrected");
        assert_int_equal(o.status, SAP_OK);
        assert_int_equal(o.features.length, 1);
        double mt2 = 2 * 40 * 50 * (1 - cos(1.0));
        const float expected[] = {80, 40, 1, (float)(paper ? mt2 : sqrt(mt2)), 2, 1, 50, 0, 0, 0, 0, 0, -1, 0};
        for (int i = 0; i < 14; i++)
            assert_float_equal(o.hlf[i], expected[i], 1e-5f * (1 + fabsf(expected[i])));
        assert_int_equal(o.rows, 4); /* the lepton, one of each kind; the muon's own track is left out */
        const float *track = row_of(&o, 1), *photon = row_of(&o, 2), *neutral = row_of(&o, 3);
        assert_float_equal(track[ROW_ISO_CH], 0, 1e-6); /* itself, less 1 */
        assert_float_equal(photon[ROW_ISO_CH], paper ? -1 : 0, 1e-6);
        assert_float_equal(photon[ROW_ISO_PH], paper ? 1 : 0, 1e-6);
        assert_float_equal(neutral[ROW_ISO_CH], paper ? -1 : 0, 1e-6);
        assert_float_equal(neutral[ROW_ISO_NEU], paper ? 1 : 0, 1e-6);
        assert_true(track[ROW_CH_HAD] == 1 && photon[ROW_GAMMA] == 1 && neutral[ROW_NEU_HAD] == 1);
        assert_true(track[ROW_CHARGE] == 1 && photon[ROW_CHARGE] == 0 && neutral[ROW_CHARGE] == 0);
        sap_batch_release(&o.features);
    }
    free(event);
}

static void charge_is_of_pid_in_paper(void **state) {
    (void)state;
    delphes_event *event = new_event();
    event->objects[TRACK][0].pid = 11; /* an electron */
    event->objects[TRACK][0].charge = -1;
    add_object(event, TRACK, (object){.pt = 2, .eta = 1, .phi = 2, .charge = 1, .pid = 0});
    outcome corrected = run_event(event, NULL), paper = run_event(event, "paper");
    assert_true(row_of(&corrected, 1)[ROW_CHARGE] == -1);
    assert_true(row_of(&paper, 1)[ROW_CHARGE] == 1);
    assert_true(row_of(&corrected, 2)[ROW_CHARGE] == 1);
    assert_true(row_of(&paper, 2)[ROW_CHARGE] == 0);
    sap_batch_release(&corrected.features);
    sap_batch_release(&paper.features);
    free(event);
}

static void cone_across_pi(void **state) {
    (void)state;
    delphes_event *event = new_event();
    event->objects[MUON][0].phi = 3.1;
    add_object(event, TRACK, (object){.pt = 50, .phi = 3.1, .charge = -1}); /* the muon's own */
    add_object(event, TRACK, (object){.pt = 10, .phi = -3.1});              /* 0.083 away, the short way round */
    outcome corrected = run_event(event, "corrected"), paper = run_event(event, "paper");
    assert_float_equal(corrected.hlf[ISO_CH], 0.2, 1e-6);
    assert_float_equal(paper.hlf[ISO_CH], 0, 1e-6);
    assert_float_equal(row_of(&corrected, 2)[ROW_ISO_CH], 5, 1e-5);
    assert_float_equal(row_of(&paper, 2)[ROW_ISO_CH], 0, 1e-6);
    sap_batch_release(&corrected.features);
    sap_batch_release(&paper.features);
    free(event);
}

static void leaves_out_the_lepton_across_pi(void **state) {
    (void)state;
    delphes_event *event = new_event();
    event->objects[MUON][0].phi = 3.14157;
    add_object(event, TRACK, (object){.pt = 0.6, .phi = -3.14157}); /* 0.000045 away */
    for (int paper = 0; paper < 2; paper++) {
        outcome o = run_event(event, paper ? "paper" : "corrected");
        assert_int_equal(o.rows, 4); /* folded in both */
        sap_batch_release(&o.features);
    }
    free(event);
}

static void leaves_out_tracks_within_a_ten_thousandth(void **state) {
    (void)state;
    const float edge = 0.0001f; /* as a double 0.0000999999975, inside; the next one is outside */
    const float angles[3] = {0, edge, nextafterf(edge, 1)};
    for (int direction = 0; direction < 2; direction++) {
        for (int i = 0; i < 3; i++) {
            delphes_event *event = new_event();
            double angle = (double)angles[i];
            add_object(event, TRACK, (object){.pt = 1, .eta = direction ? angle : 0, .phi = direction ? 0 : angle});
            outcome o = run_event(event, "paper");
            assert_int_equal(o.rows, i < 2 ? 4 : 5);
            sap_batch_release(&o.features);
            free(event);
        }
    }
}

static void leptons_must_be_hard_and_isolated(void **state) {
    (void)state;
    delphes_event *event = new_event();
    event->objects[MUON][0].pt = 23; /* not above */
    outcome soft = run_event(event, NULL);
    assert_int_equal(soft.features.length, 0);
    assert_int_equal(soft.dropped[3], 1);
    event->objects[MUON][0].pt = 50;
    add_object(event, TRACK, (object){.pt = 50, .charge = -1}); /* the muon's own */
    add_object(event, PHOTON, (object){.pt = 12.5, .eta = 0.1});
    add_object(event, NEUTRAL, (object){.pt = 10, .eta = -0.1}); /* 0.25 + 0.2: not below 0.45 */
    outcome busy = run_event(event, NULL);
    assert_int_equal(busy.features.length, 0);
    assert_int_equal(busy.dropped[3], 1);
    event->objects[NEUTRAL][1].pt = 9.99;
    outcome good = run_event(event, NULL);
    assert_int_equal(good.features.length, 1);
    assert_float_equal(good.hlf[ISO_PH], 0.25, 1e-6);
    assert_float_equal(good.hlf[ISO_NEU], 0.1998, 1e-6);
    add_object(event, MUON, (object){.pt = 80, .eta = 1, .phi = 1, .charge = 1}); /* the first isolated one counts */
    outcome first = run_event(event, NULL);
    assert_float_equal(first.hlf[LEP_PT], 50, 1e-5);
    event->objects[MUON][0].pt = 20;
    outcome second = run_event(event, NULL);
    assert_float_equal(second.hlf[LEP_PT], 80, 1e-5);
    sap_batch_release(&soft.features);
    sap_batch_release(&busy.features);
    sap_batch_release(&good.features);
    sap_batch_release(&first.features);
    sap_batch_release(&second.features);
    free(event);
}

/* Which of an electron and a muon is taken. */
static bool takes_electron(double electron_pt, double electron_eta, double muon_pt, double muon_eta,
                           const char *convention) {
    delphes_event *event = new_event();
    event->objects[MUON][0] = (object){.pt = muon_pt, .eta = muon_eta, .phi = -1, .charge = 1};
    add_object(event, ELECTRON, (object){.pt = electron_pt, .eta = electron_eta, .phi = 0.5, .charge = -1});
    outcome o = run_event(event, convention);
    assert_int_equal(o.status, SAP_OK);
    assert_int_equal(o.features.length, 1);
    bool electron = o.hlf[IS_ELE] == 1;
    assert_float_equal(o.hlf[LEP_CHARGE], electron ? -1 : 1, 0);
    assert_float_equal(row_of(&o, 0)[electron ? 16 : 17], 1, 0);
    assert_float_equal(row_of(&o, 0)[electron ? 17 : 16], 0, 0);
    sap_batch_release(&o.features);
    free(event);
    return electron;
}

static void chooses_between_leptons(void **state) {
    (void)state;
    assert_true(takes_electron(60, -1, 50, 1, "corrected"));
    assert_false(takes_electron(60, -1, 50, 1, "paper"));
    assert_false(takes_electron(40, 1, 50, -1, "corrected"));
    assert_true(takes_electron(40, 1, 50, -1, "paper"));
    /* ties */
    assert_false(takes_electron(50, 1, 50, -1, "corrected"));
    assert_false(takes_electron(60, 0.7, 50, 0.7, "paper"));
    assert_false(takes_electron(50, 0.7, 50, 0.7, NULL));
}

static void caps_particles(void **state) {
    (void)state;
    delphes_event *event = new_event();
    event->counts[TRACK] = event->counts[PHOTON] = event->counts[NEUTRAL] = 0;
    for (int i = 0; i < 500; i++) {
        double pt = i == 10 ? 0.5 : 1 + i; /* one at the threshold does not count */
        add_object(event, TRACK, (object){.pt = pt, .eta = 1 + 0.001 * i, .phi = 2, .x = i});
        if (i == 20)
            add_object(event, TRACK, (object){.pt = 50}); /* nor does the lepton's */
    }
    for (int i = 0; i < 300; i++) {
        add_object(event, PHOTON, (object){.pt = i == 5 ? 1 : 2 + i, .eta = -1, .phi = 2});
        add_object(event, NEUTRAL, (object){.pt = i == 6 ? 1 : 2 + i, .eta = -2, .phi = 2});
    }
    for (int paper = 0; paper < 2; paper++) {
        outcome o = run_event(event, paper ? "paper" : "corrected");
        assert_int_equal(o.rows, 801);
        assert_float_equal(row_of(&o, 450)[ROW_VERTEX], 450, 0); /* of 0 … 450 without 10 */
        assert_float_equal(row_of(&o, 450)[ROW_CH_HAD], 1, 0);
        assert_float_equal(row_of(&o, 451)[ROW_GAMMA], 1, 0);
        assert_float_equal(row_of(&o, 600)[ROW_PT], 152, 0); /* 0 … 150 without 5 */
        assert_float_equal(row_of(&o, 600)[ROW_GAMMA], 1, 0);
        assert_float_equal(row_of(&o, 601)[ROW_NEU_HAD], 1, 0);
        assert_float_equal(row_of(&o, 800)[ROW_PT], 202, 0); /* 0 … 200 without 6 */
        /* the maps have no caps: all photons but itself around the first */
        double others = 0;
        for (int i = 0; i < 300; i++)
            others += i == 5 ? 0 : 2 + i;
        assert_float_equal(row_of(&o, 451)[ROW_ISO_PH], others / 2 - (paper ? 0 : 1), 0.01);
        sap_batch_release(&o.features);
    }
    free(event);
}

static void drops_empty_maps(void **state) {
    (void)state;
    static const double thresholds[] = {0.5, 1, 1};
    for (int map = TRACK; map <= NEUTRAL; map++) {
        for (int some = 0; some < 2; some++) {
            delphes_event *event = new_event();
            event->counts[map] = some; /* none at all, or one at the threshold */
            event->objects[map][0].pt = thresholds[map];
            outcome o = run_event(event, some ? "paper" : "corrected");
            assert_int_equal(o.status, SAP_OK);
            assert_int_equal(o.features.length, 0);
            for (int cut = 0; cut < 4; cut++)
                assert_int_equal(o.dropped[cut], cut == map);
            sap_batch_release(&o.features);
            free(event);
        }
    }
}

static void missing_et_is_missed(void **state) {
    (void)state;
    delphes_event *events = calloc(40, sizeof *events), *good = new_event();
    for (int i = 0; i < 40; i++)
        events[i] = *good;
    events[37].counts[MET] = 0;
    sap_batch batch;
    make_batch(events, 40, &batch);
    batch.first_entry = 100;
    outcome o = run_batch(&batch, NULL, NULL);
    assert_int_equal(o.status, SAP_EFORMAT);
    assert_string_equal(o.error.message,
                        "made.root:Delphes: entry 137: MissingET is empty, expected one missing energy");
    assert_int_equal(o.features.count, 0);
    assert_int_equal(o.dropped[3], 0);
    sap_batch_release(&batch);
    free(events);
    free(good);
}

static void lengths_must_agree(void **state) {
    (void)state;
    static const char *const names[] = {"EFlowTrack.Z", "EFlowTrack.Charge", "EFlowPhoton.Phi", "MuonTight.Charge",
                                        "MissingET.Phi"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        delphes_event *event = new_event();
        sap_batch batch;
        make_batch(event, 1, &batch);
        shorten_column(&batch, names[i], 0);
        outcome o = run_batch(&batch, NULL, NULL);
        assert_int_equal(o.status, SAP_EFORMAT);
        assert_non_null(strstr(o.error.message, names[i]));
        assert_non_null(strstr(o.error.message, "1 values, but"));
        sap_batch_release(&batch);
        free(event);
    }
}

static void takes_no_harm_from_odd_numbers(void **state) {
    (void)state;
    const double odd[] = {NAN, INFINITY, -INFINITY, 1e38, -1e38, 100, 1e-40, 4, -3.15};
    enum { ODD = sizeof odd / sizeof *odd };
    for (int collection = 0; collection < COLLECTIONS; collection++) {
        for (int member = 0; member < 3; member++) {
            for (int i = 0; i < ODD; i++) {
                delphes_event *event = new_event();
                object o = {.pt = 30, .charge = 1};
                *(member == 0 ? &o.pt : member == 1 ? &o.eta : &o.phi) = odd[i];
                add_object(event, collection, o);
                outcome corrected = run_event(event, "corrected"), paper = run_event(event, "paper");
                assert_int_equal(corrected.status, SAP_OK);
                assert_int_equal(paper.status, SAP_OK);
                sap_batch_release(&corrected.features);
                sap_batch_release(&paper.features);
                free(event);
            }
        }
    }
}

/* A phi a little beyond pi, as π rounded to a float is: the particle's recomputed phi is near -π. */
static void rounded_pi(void **state) {
    (void)state;
    delphes_event *event = new_event();
    add_object(event, TRACK, (object){.pt = 2, .eta = 1, .phi = (double)(float)PI});
    add_object(event, TRACK, (object){.pt = 4, .eta = 1, .phi = 3.1});
    add_object(event, TRACK, (object){.pt = 8, .eta = 1, .phi = -3.1});
    outcome corrected = run_event(event, "corrected"), paper = run_event(event, "paper");
    assert_float_equal(row_of(&corrected, 2)[ROW_ISO_CH], 6, 1e-5);
    /* cut at ±π: the third, and itself only if a difference of a turn within rounding counts as more than a turn */
    float own = row_of(&paper, 2)[ROW_ISO_CH];
    assert_true(fabsf(own - 3) < 1e-5f || fabsf(own - 4) < 1e-5f);
    sap_batch_release(&corrected.features);
    sap_batch_release(&paper.features);
    free(event);
}

static bool same_column(const sap_column *a, const sap_column *b) {
    if (a->length != b->length || a->count != b->count)
        return false;
    if (a->offsets && memcmp(a->offsets, b->offsets, (size_t)(a->length + 1) * 4) != 0)
        return false;
    size_t size = sap_type_size(a->type);
    if (size > 0 && memcmp(a->values, b->values, (size_t)a->length * size) != 0)
        return false;
    for (int32_t i = 0; i < a->count; i++)
        if (!same_column(&a->children[i], &b->children[i]))
            return false;
    return true;
}

static void same_for_any_threads_and_batches(void **state) {
    (void)state;
    enum { EVENTS = 150 };
    delphes_event *events = calloc(EVENTS, sizeof *events);
    assert_non_null(events);
    for (uint64_t i = 0; i < EVENTS; i++)
        make_random(&events[i], i);
    sap_batch batch;
    make_batch(events, EVENTS, &batch);
    outcome one = run_batch(&batch, NULL, NULL);
    assert_int_equal(one.status, SAP_OK);
    assert_in_range(one.features.length, 20, EVENTS - 1);
    static const int threads[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        sap_run run = {0};
        assert_int_equal(sap_pool_open(threads[i], &run.pool, NULL), SAP_OK);
        outcome o = run_batch(&batch, NULL, &run);
        assert_int_equal(o.status, SAP_OK);
        assert_memory_equal(o.dropped, one.dropped, sizeof o.dropped);
        for (int32_t c = 0; c < one.features.count; c++)
            assert_true(same_column(&o.features.columns[c], &one.features.columns[c]));
        sap_batch_release(&o.features);
        sap_pool_close(run.pool);
    }
    /* in two parts, joined */
    sap_batch parts[2], given[2] = {{0}}, joined = {0};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sap_batch_view(&batch, i ? 47 : 0, i ? EVENTS : 47, &parts[i], NULL), SAP_OK);
        given[i] = run_batch(&parts[i], NULL, NULL).features;
    }
    assert_int_equal(sap_batch_join(given, 2, &joined, NULL), SAP_OK);
    for (int32_t c = 0; c < one.features.count; c++)
        assert_true(same_column(&joined.columns[c], &one.features.columns[c]));
    sap_batch_release(&joined);
    for (int i = 0; i < 2; i++) {
        sap_batch_release(&given[i]);
        sap_batch_release(&parts[i]);
    }
    sap_batch_release(&one.features);
    sap_batch_release(&batch);
    free(events);
}

static void describes_itself(void **state) {
    (void)state;
    const sap_recipe *corrected, *paper, *other;
    sap_error error = {0};
    assert_int_equal(sap_recipe_find("topology", NULL, &corrected, &error), SAP_OK);
    assert_string_equal(corrected->convention, "corrected");
    assert_string_equal(corrected->tree, "Delphes");
    assert_int_equal(sap_recipe_find("topology", "paper", &paper, &error), SAP_OK);
    assert_string_equal(paper->convention, "paper");
    assert_int_equal(paper->feature_count, 2);
    assert_true(paper->features[0].fit_before_split && !corrected->features[0].fit_before_split);
    assert_int_equal(paper->features[1].scaling, SAP_SCALING_STANDARD_EVENT);
    assert_int_equal(corrected->features[1].scaling, SAP_SCALING_STANDARD);
    assert_string_equal(paper->features[1].value_names[paper->features[1].eta_index], "Eta");
    assert_string_equal(paper->features[1].value_names[paper->features[1].phi_index], "Phi");
    assert_int_equal(paper->features[1].pad_rows, 801);
    assert_int_equal(sap_recipe_find("topology", "papre", &other, &error), SAP_ENOTFOUND);
    assert_non_null(strstr(error.message, "corrected, paper"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_with_all_features),
        cmocka_unit_test(charge_is_of_pid_in_paper),
        cmocka_unit_test(cone_across_pi),
        cmocka_unit_test(leaves_out_the_lepton_across_pi),
        cmocka_unit_test(leaves_out_tracks_within_a_ten_thousandth),
        cmocka_unit_test(leptons_must_be_hard_and_isolated),
        cmocka_unit_test(chooses_between_leptons),
        cmocka_unit_test(caps_particles),
        cmocka_unit_test(drops_empty_maps),
        cmocka_unit_test(missing_et_is_missed),
        cmocka_unit_test(lengths_must_agree),
        cmocka_unit_test(takes_no_harm_from_odd_numbers),
        cmocka_unit_test(rounded_pi),
        cmocka_unit_test(same_for_any_threads_and_batches),
        cmocka_unit_test(describes_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
