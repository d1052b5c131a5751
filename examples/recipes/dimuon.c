/* A recipe of one's own: pairs of muons from jagged columns as in CMS NanoAOD, for instance to find Z bosons.
 *
 *     sapwood prepare --recipe dimuon.c --sample data=events.root --out pairs
 *
 * Keeps events whose two hardest muons have opposite charges, and gives five numbers for each.
 */
#include <sapwood/recipe.h>

#include <math.h>

enum { PT, ETA, PHI, MASS, CHARGE, INPUTS };

static const sap_recipe_input inputs[INPUTS] = {
    [PT] = {"Muon_pt", SAP_FLOAT32, true},       [ETA] = {"Muon_eta", SAP_FLOAT32, true},
    [PHI] = {"Muon_phi", SAP_FLOAT32, true},     [MASS] = {"Muon_mass", SAP_FLOAT32, true},
    [CHARGE] = {"Muon_charge", SAP_INT32, true},
};

static const char *const value_names[] = {"mass", "pt", "rapidity", "pt1", "pt2"}; /* GeV, but for the rapidity */
enum { WIDTH = sizeof value_names / sizeof *value_names };

static const sap_feature features[] = {
    {.name = "dimuon", .value_names = value_names, .width = WIDTH, .scaling = SAP_SCALING_STANDARD},
};

enum { CUT_TWO, CUT_CHARGES, CUTS };
static const char *const cuts[CUTS] = {"two muons", "opposite charges"};

typedef struct momentum {
    double px, py, pz, energy;
} momentum;

static momentum momentum_of(double pt, double eta, double phi, double mass) {
    momentum p = {.px = pt * cos(phi), .py = pt * sin(phi), .pz = pt * sinh(eta)};
    p.energy = sqrt(p.px * p.px + p.py * p.py + p.pz * p.pz + mass * mass);
    return p;
}

/* Places of the two largest, larger first; on a tie the earlier one. */
static void find_hardest(const float *pt, int32_t count, int32_t place[2]) {
    place[0] = pt[1] > pt[0];
    place[1] = !place[0];
    for (int32_t i = 2; i < count; i++) {
        if (pt[i] > pt[place[0]]) {
            place[1] = place[0];
            place[0] = i;
        } else if (pt[i] > pt[place[1]]) {
            place[1] = i;
        }
    }
}

static sap_status events(const sap_recipe_call *call, sap_error *err) {
    for (int64_t event = 0; event < call->count; event++) {
        const float *of[CHARGE]; /* pt, eta, phi, mass */
        int32_t count, others;
        const int32_t *charge = sap_recipe_ints(&call->columns[CHARGE], event, &count);
        for (int c = 0; c < CHARGE; c++) {
            of[c] = sap_recipe_floats(&call->columns[c], event, &others);
            if (others != count)
                return call->fail(call->sink, event, err, "the columns of Muon have different lengths");
        }
        if (count < 2) {
            call->drop(call->sink, event, CUT_TWO);
            continue;
        }
        int32_t place[2];
        find_hardest(of[PT], count, place);
        if ((int64_t)charge[place[0]] * charge[place[1]] >= 0) {
            call->drop(call->sink, event, CUT_CHARGES);
            continue;
        }
        momentum sum = {0};
        for (int m = 0; m < 2; m++) {
            int32_t i = place[m];
            momentum p = momentum_of((double)of[PT][i], (double)of[ETA][i], (double)of[PHI][i], (double)of[MASS][i]);
            sum.px += p.px;
            sum.py += p.py;
            sum.pz += p.pz;
            sum.energy += p.energy;
        }
        double pt2 = sum.px * sum.px + sum.py * sum.py;
        double mass2 = sum.energy * sum.energy - pt2 - sum.pz * sum.pz;
        const float values[WIDTH] = {(float)sqrt(mass2 > 0 ? mass2 : 0), (float)sqrt(pt2),
                                     (float)atanh(sum.pz / sum.energy), of[PT][place[0]], of[PT][place[1]]};
        const sap_recipe_value value = {values, WIDTH};
        sap_status status = call->keep(call->sink, event, &value, err);
        if (status != SAP_OK)
            return status;
    }
    return SAP_OK;
}

const sap_recipe *sap_recipe_define(void) {
    static const sap_recipe recipe = {
        .abi = SAP_RECIPE_ABI,
        .name = "dimuon",
        .version = "1",
        .tree = "Events",
        .inputs = inputs,
        .input_count = INPUTS,
        .features = features,
        .feature_count = sizeof features / sizeof *features,
        .cuts = cuts,
        .cut_count = CUTS,
        .events = events,
    };
    return &recipe;
}
