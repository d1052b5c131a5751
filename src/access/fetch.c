/* Fetches: ranges of a source that are read together. */
#include "access_internal.h"

#include <stdlib.h>

struct sap_fetch {
    sap_source *source;
    size_t count;
    sap_range *ranges;
    uint8_t *data;
};

sap_status sap_fetch_start(sap_source *source, const sap_range *ranges, size_t count, sap_fetch **out, sap_error *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += ranges[i].length;
    sap_fetch *f = calloc(1, sizeof *f);
    if (f) {
        *f = (sap_fetch){source, count, calloc(count + 1, sizeof *ranges), malloc(bytes + 1)};
        bytes = 0;
    }
    if (!f || !f->ranges || !f->data) {
        sap_fetch_close(f);
        return sap_error_memory(err, sap_source_name(source));
    }
    for (size_t i = 0; i < count; i++) {
        f->ranges[i] = (sap_range){ranges[i].offset, ranges[i].length, f->data + bytes};
        bytes += ranges[i].length;
    }
    *out = f;
    return SAP_OK;
}

sap_status sap_fetch_wait(sap_fetch *fetch, const sap_run *run, sap_error *err) {
    SAP_TRY(sap_run_check(run, err));
    return sap_source_read(fetch->source, fetch->ranges, fetch->count, err);
}

const uint8_t *sap_fetch_data(const sap_fetch *fetch, size_t index) {
    return fetch->ranges[index].data;
}

void sap_fetch_close(sap_fetch *fetch) {
    if (!fetch)
        return;
    free(fetch->ranges);
    free(fetch->data);
    free(fetch);
}
