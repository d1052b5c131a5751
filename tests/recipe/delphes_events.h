/* Events with Delphes' columns, made by hand for the tests. */
#ifndef SAP_DELPHES_EVENTS_H
#define SAP_DELPHES_EVENTS_H

#include "column/column_internal.h"

/* One object of any collection; what the collection does not have is not used. */
typedef struct object {
    double pt, eta, phi; /* pt: also ET, MET */
    double x, y, z;
    int32_t charge, pid;
    uint32_t btag;
} object;

enum { TRACK, PHOTON, NEUTRAL, ELECTRON, MUON, JET, MET, COLLECTIONS };
enum { MOST_OBJECTS = 700 };

typedef struct delphes_event {
    int32_t counts[COLLECTIONS];
    object objects[COLLECTIONS][MOST_OBJECTS];
} delphes_event;

void add_object(delphes_event *event, int collection, object o);

/* A batch with all columns that the topology recipe reads in either convention. */
void make_batch(const delphes_event *events, int64_t count, sap_batch *out);

/* The column's length in one event becomes one less than that of the others of its collection. */
void shorten_column(sap_batch *batch, const char *name, int64_t event);

/* A random event: particles in [-5, 5] in eta, some leptons and jets. */
void make_random(delphes_event *event, uint64_t seed);

#endif
