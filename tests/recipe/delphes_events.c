/* Events with Delphes' columns, made by hand for the tests. */
#include "delphes_events.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

void add_object(delphes_event *event, int collection, object o) {
    if (event->counts[collection] == MOST_OBJECTS)
        abort();
    event->objects[collection][event->counts[collection]++] = o;
}

static const struct {
    const char *name;
    int collection;
    sap_type type;
    size_t member; /* offset in `object` */
} columns[] = {
    {"EFlowTrack.PT", TRACK, SAP_FLOAT32, offsetof(object, pt)},
    {"EFlowTrack.Eta", TRACK, SAP_FLOAT32, offsetof(object, eta)},
    {"EFlowTrack.Phi", TRACK, SAP_FLOAT32, offsetof(object, phi)},
    {"EFlowTrack.X", TRACK, SAP_FLOAT32, offsetof(object, x)},
    {"EFlowTrack.Y", TRACK, SAP_FLOAT32, offsetof(object, y)},
    {"EFlowTrack.Z", TRACK, SAP_FLOAT32, offsetof(object, z)},
    {"EFlowTrack.PID", TRACK, SAP_INT32, offsetof(object, pid)},
    {"EFlowTrack.Charge", TRACK, SAP_INT32, offsetof(object, charge)},
    {"EFlowPhoton.ET", PHOTON, SAP_FLOAT32, offsetof(object, pt)},
    {"EFlowPhoton.Eta", PHOTON, SAP_FLOAT32, offsetof(object, eta)},
    {"EFlowPhoton.Phi", PHOTON, SAP_FLOAT32, offsetof(object, phi)},
    {"EFlowNeutralHadron.ET", NEUTRAL, SAP_FLOAT32, offsetof(object, pt)},
    {"EFlowNeutralHadron.Eta", NEUTRAL, SAP_FLOAT32, offsetof(object, eta)},
    {"EFlowNeutralHadron.Phi", NEUTRAL, SAP_FLOAT32, offsetof(object, phi)},
    {"Electron.PT", ELECTRON, SAP_FLOAT32, offsetof(object, pt)},
    {"Electron.Eta", ELECTRON, SAP_FLOAT32, offsetof(object, eta)},
    {"Electron.Phi", ELECTRON, SAP_FLOAT32, offsetof(object, phi)},
    {"Electron.Charge", ELECTRON, SAP_INT32, offsetof(object, charge)},
    {"MuonTight.PT", MUON, SAP_FLOAT32, offsetof(object, pt)},
    {"MuonTight.Eta", MUON, SAP_FLOAT32, offsetof(object, eta)},
    {"MuonTight.Phi", MUON, SAP_FLOAT32, offsetof(object, phi)},
    {"MuonTight.Charge", MUON, SAP_INT32, offsetof(object, charge)},
    {"Jet.PT", JET, SAP_FLOAT32, offsetof(object, pt)},
    {"Jet.Eta", JET, SAP_FLOAT32, offsetof(object, eta)},
    {"Jet.BTag", JET, SAP_UINT32, offsetof(object, btag)},
    {"MissingET.MET", MET, SAP_FLOAT32, offsetof(object, pt)},
    {"MissingET.Phi", MET, SAP_FLOAT32, offsetof(object, phi)},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void *must(void *memory) {
    if (!memory)
        abort();
    return memory;
}

void make_batch(const delphes_event *events, int64_t count, sap_batch *out) {
    if (sap_batch_init(out, COLUMNS, NULL) != SAP_OK)
        abort();
    out->length = count;
    for (int c = 0; c < COLUMNS; c++) {
        int collection = columns[c].collection;
        sap_field item = {.name = "item", .type = columns[c].type};
        sap_field field = {.name = columns[c].name, .type = SAP_LIST, .count = 1, .children = &item};
        if (sap_column_init(out->storage, &field, &out->columns[c], NULL) != SAP_OK)
            abort();
        int32_t *offsets = must(sap_storage_alloc(out->storage, (size_t)(count + 1) * sizeof *offsets));
        offsets[0] = 0;
        for (int64_t e = 0; e < count; e++)
            offsets[e + 1] = offsets[e] + events[e].counts[collection];
        char *values = must(sap_storage_alloc(out->storage, (size_t)offsets[count] * 4 + 1));
        char *to = values;
        for (int64_t e = 0; e < count; e++) {
            for (int32_t i = 0; i < events[e].counts[collection]; i++, to += 4) {
                const char *from = (const char *)&events[e].objects[collection][i] + columns[c].member;
                if (columns[c].type == SAP_FLOAT32) {
                    double value;
                    memcpy(&value, from, sizeof value);
                    float narrow = (float)value;
                    memcpy(to, &narrow, 4);
                } else {
                    memcpy(to, from, 4);
                }
            }
        }
        out->columns[c].length = count;
        out->columns[c].offsets = offsets;
        out->columns[c].children[0].length = offsets[count];
        out->columns[c].children[0].values = values;
    }
}

void shorten_column(sap_batch *batch, const char *name, int64_t event) {
    for (int32_t c = 0; c < batch->count; c++) {
        sap_column *column = &batch->columns[c];
        if (strcmp(column->name, name) != 0)
            continue;
        size_t bytes = (size_t)(column->length + 1) * sizeof(int32_t);
        int32_t *offsets = must(sap_storage_alloc(batch->storage, bytes));
        memcpy(offsets, column->offsets, bytes);
        for (int64_t e = event + 1; e <= column->length; e++)
            offsets[e]--;
        column->offsets = offsets;
    }
}

void make_random(delphes_event *event, uint64_t seed) {
    static const int32_t most[COLLECTIONS] = {500, 200, 250, 3, 3, 6, 1};
    uint64_t n = 0;
    memset(event, 0, sizeof *event);
    for (int c = 0; c < COLLECTIONS; c++) {
        int32_t count = c == MET ? 1 : (int32_t)(sap_unit(sap_mix(seed, n++)) * most[c]) + (c <= NEUTRAL);
        for (int32_t i = 0; i < count; i++) {
            object o = {.charge = 1, .pid = 211};
            o.pt = c <= NEUTRAL ? 0.3 + 3 * sap_unit(sap_mix(seed, n++)) : 60 * sap_unit(sap_mix(seed, n++));
            o.eta = (c == TRACK ? 5 : 10) * (sap_unit(sap_mix(seed, n++)) - 0.5);
            o.phi = (double)(float)(6.28318 * (sap_unit(sap_mix(seed, n++)) - 0.5));
            o.x = sap_unit(sap_mix(seed, n++));
            o.btag = sap_mix(seed, n++) & 1;
            if (sap_mix(seed, n++) & 1)
                o.charge = o.pid = -1;
            add_object(event, c, o);
        }
    }
}
