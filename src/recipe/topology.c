/* The topology recipe: an isolated lepton, its event's particles and high-level features. See docs/recipes.md.
 *
 * T. Q. Nguyen et al., Comput. Softw. Big Sci. 3, 12 (2019); M. Migliorini et al., Comput. Softw. Big Sci. 4, 8 (2020).
 */
#include "isolation.h"

#include <sapwood/recipe.h>

#include <stdio.h>
#include <stdlib.h>

#include "recipe_internal.h"

/* ---- Definition --------------------------------------------------------------------------------------------- */

enum {
    TRACK_PT,
    TRACK_ETA,
    TRACK_PHI,
    TRACK_X,
    TRACK_Y,
    TRACK_Z,
    TRACK_CHARGE, /* paper: PID */
    PHOTON_ET,
    PHOTON_ETA,
    PHOTON_PHI,
    NEUTRAL_ET,
    NEUTRAL_ETA,
    NEUTRAL_PHI,
    ELECTRON_PT,
    ELECTRON_ETA,
    ELECTRON_PHI,
    ELECTRON_CHARGE,
    MUON_PT,
    MUON_ETA,
    MUON_PHI,
    MUON_CHARGE,
    JET_PT,
    JET_ETA,
    JET_BTAG,
    MET_MET,
    MET_PHI,
    INPUTS
};

#define INPUTS_WITH(track_charge)                                                                                      \
    {                                                                                                                  \
        [TRACK_PT] = {"EFlowTrack.PT", SAP_FLOAT32, true}, [TRACK_ETA] = {"EFlowTrack.Eta", SAP_FLOAT32, true},        \
        [TRACK_PHI] = {"EFlowTrack.Phi", SAP_FLOAT32, true}, [TRACK_X] = {"EFlowTrack.X", SAP_FLOAT32, true},          \
        [TRACK_Y] = {"EFlowTrack.Y", SAP_FLOAT32, true}, [TRACK_Z] = {"EFlowTrack.Z", SAP_FLOAT32, true},              \
        [TRACK_CHARGE] = {track_charge, SAP_INT32, true}, [PHOTON_ET] = {"EFlowPhoton.ET", SAP_FLOAT32, true},         \
        [PHOTON_ETA] = {"EFlowPhoton.Eta", SAP_FLOAT32, true}, [PHOTON_PHI] = {"EFlowPhoton.Phi", SAP_FLOAT32, true},  \
        [NEUTRAL_ET] = {"EFlowNeutralHadron.ET", SAP_FLOAT32, true},                                                   \
        [NEUTRAL_ETA] = {"EFlowNeutralHadron.Eta", SAP_FLOAT32, true},                                                 \
        [NEUTRAL_PHI] = {"EFlowNeutralHadron.Phi", SAP_FLOAT32, true},                                                 \
        [ELECTRON_PT] = {"Electron.PT", SAP_FLOAT32, true}, [ELECTRON_ETA] = {"Electron.Eta", SAP_FLOAT32, true},      \
        [ELECTRON_PHI] = {"Electron.Phi", SAP_FLOAT32, true},                                                          \
        [ELECTRON_CHARGE] = {"Electron.Charge", SAP_INT32, true}, [MUON_PT] = {"MuonTight.PT", SAP_FLOAT32, true},     \
        [MUON_ETA] = {"MuonTight.Eta", SAP_FLOAT32, true}, [MUON_PHI] = {"MuonTight.Phi", SAP_FLOAT32, true},          \
        [MUON_CHARGE] = {"MuonTight.Charge", SAP_INT32, true}, [JET_PT] = {"Jet.PT", SAP_FLOAT32, true},               \
        [JET_ETA] = {"Jet.Eta", SAP_FLOAT32, true}, [JET_BTAG] = {"Jet.BTag", SAP_UINT32, true},                       \
        [MET_MET] = {"MissingET.MET", SAP_FLOAT32, true}, [MET_PHI] = {"MissingET.Phi", SAP_FLOAT32, true},            \
    }

static const sap_recipe_input corrected_inputs[INPUTS] = INPUTS_WITH("EFlowTrack.Charge");
static const sap_recipe_input paper_inputs[INPUTS] = INPUTS_WITH("EFlowTrack.PID");

/* Columns of one collection: their counts must agree in every event. */
static const struct {
    int first, end;
} collections[] = {{TRACK_PT, PHOTON_ET}, {PHOTON_ET, NEUTRAL_ET}, {NEUTRAL_ET, ELECTRON_PT}, {ELECTRON_PT, MUON_PT},
                   {MUON_PT, JET_PT},     {JET_PT, MET_MET},       {MET_MET, INPUTS}};
enum { COLLECTIONS = sizeof collections / sizeof *collections };

static const char *const hlf_names[] = {"HT",          "MET",       "PhiMET",    "MT",      "nJets",
                                        "nBjets",      "LepPt",     "LepEta",    "LepPhi",  "LepIsoCh",
                                        "LepIsoGamma", "LepIsoNeu", "LepCharge", "LepIsEle"};
enum { HLF_WIDTH = sizeof hlf_names / sizeof *hlf_names };

enum {
    ENERGY,
    PX,
    PY,
    PZ,
    PT,
    ETA,
    PHI,
    VERTEX_X,
    VERTEX_Y,
    VERTEX_Z,
    ISO_CHARGED,
    ISO_PHOTON,
    ISO_NEUTRAL,
    IS_CHARGED_HADRON,
    IS_NEUTRAL_HADRON,
    IS_PHOTON,
    IS_ELECTRON,
    IS_MUON,
    CHARGE,
    ROW_WIDTH
};

static const char *const row_names[ROW_WIDTH] = {
    "Energy",  "Px",         "Py",       "Pz",      "Pt",       "Eta",     "Phi",   "vtxX", "vtxY",  "vtxZ",
    "ChPFIso", "GammaPFIso", "NeuPFIso", "isChHad", "isNeuHad", "isGamma", "isEle", "isMu", "Charge"};

enum { TRACKS = 450, PHOTONS = 150, NEUTRALS = 200, PARTICLES = TRACKS + PHOTONS + NEUTRALS, ROWS = 1 + PARTICLES };

#define FEATURES_WITH(before_split, particle_scaling, pad_first)                                                       \
    {                                                                                                                  \
        {.name = "hlf",                                                                                                \
         .value_names = hlf_names,                                                                                     \
         .width = HLF_WIDTH,                                                                                           \
         .scaling = SAP_SCALING_MINMAX,                                                                                \
         .fit_before_split = before_split},                                                                            \
            {.name = "particles",                                                                                      \
             .value_names = row_names,                                                                                 \
             .width = ROW_WIDTH,                                                                                       \
             .sequence = true,                                                                                         \
             .scaling = particle_scaling,                                                                              \
             .order = SAP_ORDER_FALLING_DELTA_R,                                                                       \
             .eta_index = ETA,                                                                                         \
             .phi_index = PHI,                                                                                         \
             .pad_rows = ROWS,                                                                                         \
             .pad_before_order = pad_first},                                                                           \
    }

static const sap_feature corrected_features[] = FEATURES_WITH(false, SAP_SCALING_STANDARD, false);
static const sap_feature paper_features[] = FEATURES_WITH(true, SAP_SCALING_STANDARD_EVENT, true);

enum { CUT_TRACKS, CUT_PHOTONS, CUT_NEUTRALS, CUT_LEPTON, CUTS };
static const char *const cuts[CUTS] = {"a track with PT > 0.5 GeV", "a photon with ET > 1 GeV",
                                       "a neutral hadron with ET > 1 GeV", "an isolated lepton with PT > 23 GeV"};

static const char *const conventions[] = {"corrected", "paper", NULL};

/* Where the authors' code and what it evidently meant differ; S1 … are the slips as numbered in docs/recipes.md. */
typedef struct convention {
    sap_fold fold;                   /* S1 */
    bool inside[SAP_MAPS][SAP_MAPS]; /* S2: [kind of particle][map]: 1 is subtracted from the isolation */
    bool lepton_by_eta;              /* S3 */
    bool squared_mt;                 /* S4 */
    bool charge_is_pid;              /* S7 */
} convention;

static const convention corrected = {.fold = SAP_FOLD_NEAREST,
                                     .inside = {{true, false, false}, {false, true, false}, {false, false, true}}};
static const convention paper = {.fold = SAP_FOLD_TURN,
                                 .inside = {{true, false, false}, {true, false, false}, {true, false, false}},
                                 .lepton_by_eta = true,
                                 .squared_mt = true,
                                 .charge_is_pid = true};

/* ---- One event ------------------------------------------------------------------------------------------------ */

/* Memory for one call, used for its events in turn. */
typedef struct work {
    void *block; /* of the maps */
    size_t capacity;
    sap_cloud maps[SAP_MAPS];
    sap_isolation_space space;
    /* Particles other than the lepton: all tracks, then photons, then neutral hadrons. */
    double pt[PARTICLES], eta[PARTICLES], phi[PARTICLES];
    double px[PARTICLES], py[PARTICLES], pz[PARTICLES], energy[PARTICLES];
    double sums[SAP_MAPS][PARTICLES];
    int32_t track[TRACKS]; /* which one of the event's */
    int32_t counts[SAP_MAPS];
    float rows[ROWS * ROW_WIDTH];
    float hlf[HLF_WIDTH];
} work;

typedef struct lepton {
    bool found, electron;
    double stored_pt, stored_eta;
    sap_momentum momentum;
    double isolation[SAP_MAPS];
    int32_t charge;
} lepton;

/* A collection's values in one event. */
typedef struct objects {
    int32_t count;
    const float *pt, *eta, *phi;
} objects;

static objects objects_of(const sap_recipe_call *call, int64_t event, int first) {
    objects o;
    o.pt = sap_recipe_floats(&call->columns[first], event, &o.count);
    o.eta = sap_recipe_floats(&call->columns[first + 1], event, &o.count);
    o.phi = sap_recipe_floats(&call->columns[first + 2], event, &o.count);
    return o;
}

static int32_t count_of(const sap_recipe_call *call, int64_t event, int column) {
    const int32_t *offsets = call->columns[column].offsets + event;
    return offsets[1] - offsets[0];
}

/* What must hold in every event of a good file. */
static sap_status check_event(const sap_recipe_call *call, int64_t event, const sap_recipe_input *inputs,
                              sap_error *err) {
    char what[200];
    for (int c = 0; c < COLLECTIONS; c++) {
        int first = collections[c].first;
        int32_t count = count_of(call, event, first);
        for (int column = first + 1; column < collections[c].end; column++) {
            int32_t other = count_of(call, event, column);
            if (other != count) {
                (void)snprintf(what, sizeof what, "%s has %d values, but %s has %d", inputs[first].name, count,
                               inputs[column].name, other);
                return call->fail(call->sink, event, err, what);
            }
        }
    }
    if (count_of(call, event, MET_MET) == 0)
        return call->fail(call->sink, event, err, "MissingET is empty, expected one missing energy");
    return SAP_OK;
}

/* Those with pt above the threshold. */
static void fill_map(sap_cloud *map, const objects *from, float threshold) {
    map->count = 0;
    for (int32_t i = 0; i < from->count; i++) {
        map->pt[map->count] = (double)from->pt[i];
        map->eta[map->count] = (double)from->eta[i];
        map->phi[map->count] = (double)from->phi[i];
        map->count += from->pt[i] > threshold; /* the next overwrites one that is left out */
    }
}

static sap_status fill_maps(work *w, const objects *from, sap_error *err) {
    static const float thresholds[SAP_MAPS] = {0.5f, 1.0f, 1.0f};
    size_t entries = 0;
    for (int m = 0; m < SAP_MAPS; m++)
        entries += (size_t)from[m].count;
    size_t bytes = 3 * entries * sizeof(double);
    if (bytes > w->capacity) {
        free(w->block);
        w->capacity = 0;
        w->block = malloc(2 * bytes);
        if (!w->block)
            return sap_error_set(err, SAP_EMEMORY, "topology: out of memory for %zu particles of one event", entries);
        w->capacity = 2 * bytes;
    }
    double *at = w->block;
    for (int m = 0; m < SAP_MAPS; m++) {
        size_t count = (size_t)from[m].count;
        w->maps[m] = (sap_cloud){.pt = at, .eta = at + count, .phi = at + 2 * count};
        at += 3 * count;
        fill_map(&w->maps[m], &from[m], thresholds[m]);
    }
    return SAP_OK;
}

/* The first isolated one of a collection. */
static lepton first_isolated(const sap_recipe_call *call, int64_t event, int first, const convention *c,
                             const sap_cloud *maps) {
    objects from = objects_of(call, event, first);
    for (int32_t i = 0; i < from.count; i++) {
        if (!(from.pt[i] > 23))
            continue;
        lepton l = {.found = true, .stored_pt = (double)from.pt[i], .stored_eta = (double)from.eta[i]};
        l.momentum = sap_momentum_of(l.stored_pt, l.stored_eta, (double)from.phi[i]);
        for (int m = 0; m < SAP_MAPS; m++) {
            double sum = sap_isolation_sum(&maps[m], l.momentum.eta, l.momentum.phi, c->fold);
            l.isolation[m] = sap_isolation_value(sum, l.momentum.pt, c->inside[SAP_MAP_TRACK][m]);
        }
        if (l.isolation[SAP_MAP_TRACK] + l.isolation[SAP_MAP_NEUTRAL] + l.isolation[SAP_MAP_PHOTON] < 0.45) {
            int32_t count;
            l.electron = first == ELECTRON_PT;
            l.charge = sap_recipe_ints(&call->columns[first + 3], event, &count)[i];
            return l;
        }
    }
    return (lepton){0};
}

static lepton find_lepton(const sap_recipe_call *call, int64_t event, const convention *c, const sap_cloud *maps) {
    lepton electron = first_isolated(call, event, ELECTRON_PT, c, maps);
    lepton muon = first_isolated(call, event, MUON_PT, c, maps);
    if (!electron.found || !muon.found)
        return electron.found ? electron : muon;
    bool larger = c->lepton_by_eta ? electron.stored_eta > muon.stored_eta : electron.stored_pt > muon.stored_pt;
    return larger ? electron : muon;
}

/* Whether a track is the lepton itself: within 0.0001 of it. Only what is near is worth recomputing. */
static bool is_lepton(double pt, double eta, double phi, const sap_momentum *l) {
    if (fabs(eta - l->eta) > 0.0002)
        return false;
    sap_momentum p = sap_momentum_of(pt, eta, phi);
    double delta_eta = p.eta - l->eta, delta_phi = sap_folded(p.phi - l->phi);
    return sqrt(delta_eta * delta_eta + delta_phi * delta_phi) <= 0.0001;
}

/* Tracks in file order, the lepton's left out, then photons and neutral hadrons; each up to its cap. */
static void fill_particles(work *w, const objects *tracks, const lepton *l) {
    int32_t n = 0;
    for (int32_t i = 0; i < tracks->count && n < TRACKS; i++) {
        double pt = (double)tracks->pt[i], eta = (double)tracks->eta[i], phi = (double)tracks->phi[i];
        if (!(pt > 0.5) || is_lepton(pt, eta, phi, &l->momentum))
            continue;
        w->track[n] = i;
        w->pt[n] = pt;
        w->eta[n] = eta;
        w->phi[n] = phi;
        n++;
    }
    w->counts[SAP_MAP_TRACK] = n;
    static const int32_t caps[SAP_MAPS] = {TRACKS, PHOTONS, NEUTRALS};
    for (int m = SAP_MAP_PHOTON; m < SAP_MAPS; m++) {
        const sap_cloud *map = &w->maps[m];
        int32_t count = map->count < caps[m] ? map->count : caps[m];
        size_t bytes = (size_t)count * sizeof(double);
        memcpy(w->pt + n, map->pt, bytes);
        memcpy(w->eta + n, map->eta, bytes);
        memcpy(w->phi + n, map->phi, bytes);
        w->counts[m] = count;
        n += count;
    }
}

static void lepton_row(const lepton *l, float *row) {
    memset(row, 0, ROW_WIDTH * sizeof *row);
    row[ENERGY] = (float)l->momentum.energy;
    row[PX] = (float)l->momentum.px;
    row[PY] = (float)l->momentum.py;
    row[PZ] = (float)l->momentum.pz;
    row[PT] = (float)l->momentum.pt;
    row[ETA] = (float)l->momentum.eta;
    row[PHI] = (float)l->momentum.phi;
    for (int m = 0; m < SAP_MAPS; m++)
        row[ISO_CHARGED + m] = (float)l->isolation[m];
    row[l->electron ? IS_ELECTRON : IS_MUON] = 1;
    row[CHARGE] = (float)l->charge;
}

/* What every particle has; the rest of the row is zero. `inside`: see convention. */
static void particle_row(const work *w, int32_t i, const bool *inside, int flag, float *row) {
    memset(row, 0, ROW_WIDTH * sizeof *row);
    row[ENERGY] = (float)w->energy[i];
    row[PX] = (float)w->px[i];
    row[PY] = (float)w->py[i];
    row[PZ] = (float)w->pz[i];
    row[PT] = (float)w->pt[i];
    row[ETA] = (float)w->eta[i];
    row[PHI] = (float)w->phi[i];
    for (int m = 0; m < SAP_MAPS; m++)
        row[ISO_CHARGED + m] = (float)sap_isolation_value(w->sums[m][i], w->pt[i], inside[m]);
    row[flag] = 1;
}

static int32_t sign_of(int32_t value) {
    return (value > 0) - (value < 0);
}

/* Rows of all particles; returns how many. */
static int32_t fill_rows(work *w, const sap_recipe_call *call, int64_t event, const convention *c, const lepton *l) {
    static const int flags[SAP_MAPS] = {IS_CHARGED_HADRON, IS_PHOTON, IS_NEUTRAL_HADRON};
    int32_t unused, i = 0;
    const float *x = sap_recipe_floats(&call->columns[TRACK_X], event, &unused);
    const float *y = sap_recipe_floats(&call->columns[TRACK_Y], event, &unused);
    const float *z = sap_recipe_floats(&call->columns[TRACK_Z], event, &unused);
    const int32_t *charge = sap_recipe_ints(&call->columns[TRACK_CHARGE], event, &unused);
    lepton_row(l, w->rows);
    float *row = w->rows + ROW_WIDTH;
    for (int kind = 0; kind < SAP_MAPS; kind++) {
        for (int32_t end = i + w->counts[kind]; i < end; i++, row += ROW_WIDTH)
            particle_row(w, i, c->inside[kind], flags[kind], row);
    }
    row = w->rows + ROW_WIDTH;
    for (int32_t t = 0; t < w->counts[SAP_MAP_TRACK]; t++, row += ROW_WIDTH) {
        int32_t from = w->track[t];
        row[VERTEX_X] = x[from];
        row[VERTEX_Y] = y[from];
        row[VERTEX_Z] = z[from];
        row[CHARGE] = (float)(c->charge_is_pid ? sign_of(charge[from]) : charge[from]);
    }
    return i + 1;
}

static void fill_hlf(work *w, const sap_recipe_call *call, int64_t event, const convention *c, const lepton *l) {
    int32_t jets, unused, selected = 0, tagged = 0;
    const float *pt = sap_recipe_floats(&call->columns[JET_PT], event, &jets);
    const float *eta = sap_recipe_floats(&call->columns[JET_ETA], event, &jets);
    const uint32_t *tag = (const uint32_t *)sap_recipe_ints(&call->columns[JET_BTAG], event, &jets);
    double ht = 0;
    for (int32_t i = 0; i < jets; i++) {
        if (pt[i] > 30 && fabs((double)eta[i]) < 2.6) {
            ht += (double)pt[i];
            selected++;
            tagged += tag[i] > 0;
        }
    }
    double met = (double)sap_recipe_floats(&call->columns[MET_MET], event, &unused)[0];
    double met_phi = (double)sap_recipe_floats(&call->columns[MET_PHI], event, &unused)[0];
    double mt = 2 * met * l->momentum.pt * (1 - cos(l->momentum.phi - met_phi));
    const double values[HLF_WIDTH] = {ht,
                                      met,
                                      met_phi,
                                      c->squared_mt ? mt : sqrt(mt),
                                      selected,
                                      tagged,
                                      l->momentum.pt,
                                      l->momentum.eta,
                                      l->momentum.phi,
                                      l->isolation[SAP_MAP_TRACK],
                                      l->isolation[SAP_MAP_PHOTON],
                                      l->isolation[SAP_MAP_NEUTRAL],
                                      l->charge,
                                      l->electron};
    for (int i = 0; i < HLF_WIDTH; i++)
        w->hlf[i] = (float)values[i];
}

static sap_status one_event(work *w, const sap_recipe_call *call, int64_t event, sap_error *err) {
    const convention *c = call->settings;
    SAP_TRY(check_event(call, event, c == &paper ? paper_inputs : corrected_inputs, err));
    const objects from[SAP_MAPS] = {objects_of(call, event, TRACK_PT), objects_of(call, event, PHOTON_ET),
                                    objects_of(call, event, NEUTRAL_ET)};
    SAP_TRY(fill_maps(w, from, err));
    static const int empty[SAP_MAPS] = {CUT_TRACKS, CUT_PHOTONS, CUT_NEUTRALS};
    for (int m = 0; m < SAP_MAPS; m++) {
        if (w->maps[m].count == 0) {
            call->drop(call->sink, event, empty[m]);
            return SAP_OK;
        }
    }
    lepton l = find_lepton(call, event, c, w->maps);
    if (!l.found) {
        call->drop(call->sink, event, CUT_LEPTON);
        return SAP_OK;
    }
    fill_particles(w, &from[SAP_MAP_TRACK], &l);
    sap_cloud particles = {.pt = w->pt, .eta = w->eta, .phi = w->phi};
    for (int m = 0; m < SAP_MAPS; m++)
        particles.count += w->counts[m];
    sap_momenta(particles.count, w->pt, w->eta, w->phi, w->px, w->py, w->pz, w->energy);
    double *const sums[SAP_MAPS] = {w->sums[0], w->sums[1], w->sums[2]};
    SAP_TRY(sap_isolation_sums(w->maps, &particles, c->fold, &w->space, sums, err));
    int64_t rows = fill_rows(w, call, event, c, &l);
    fill_hlf(w, call, event, c, &l);
    const sap_recipe_value values[] = {{w->hlf, HLF_WIDTH}, {w->rows, rows * ROW_WIDTH}};
    return call->keep(call->sink, event, values, err);
}

static sap_status events(const sap_recipe_call *call, sap_error *err) {
    work *w = malloc(sizeof *w);
    if (!w)
        return sap_error_set(err, SAP_EMEMORY, "topology: out of memory");
    w->block = NULL;
    w->capacity = 0;
    w->space = (sap_isolation_space){0};
    sap_status status = SAP_OK;
    for (int64_t event = 0; event < call->count && status == SAP_OK; event++)
        status = one_event(w, call, event, err);
    free(w->block);
    sap_isolation_release(&w->space);
    free(w);
    return status;
}

/* ---- The recipe ------------------------------------------------------------------------------------------------- */

static const sap_recipe *variant(const char *name);

#define RECIPE_WITH(name_of_convention, its_inputs, its_features, its_settings)                                        \
    {                                                                                                                  \
        .abi = SAP_RECIPE_ABI, .name = "topology", .version = "1", .tree = "Delphes", .inputs = its_inputs,            \
        .input_count = INPUTS, .features = its_features, .feature_count = sizeof its_features / sizeof *its_features,  \
        .cuts = cuts, .cut_count = CUTS, .variant = variant, .conventions = conventions,                               \
        .convention = name_of_convention, .settings = its_settings, .events = events,                                  \
    }

static const sap_recipe corrected_recipe = RECIPE_WITH("corrected", corrected_inputs, corrected_features, &corrected);
static const sap_recipe paper_recipe = RECIPE_WITH("paper", paper_inputs, paper_features, &paper);

static const sap_recipe *variant(const char *name) {
    if (!name || strcmp(name, "corrected") == 0)
        return &corrected_recipe;
    return strcmp(name, "paper") == 0 ? &paper_recipe : NULL;
}

const sap_recipe *sap_topology_recipe(void) {
    return &corrected_recipe;
}
