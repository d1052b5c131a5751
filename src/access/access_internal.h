/* What a transport is: one table of functions behind `sap_source`. */
#ifndef SAP_ACCESS_INTERNAL_H
#define SAP_ACCESS_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/access.h>

/* The bounds of ranges are checked by sap_source_read, so a transport sees only ranges inside `size`. */
typedef struct sap_transport {
    sap_status (*open)(const char *url, void **state, uint64_t *size, sap_error *err);
    void (*close)(void *state);
    /* Reads every range whole. Called from several threads at once. name: for messages. */
    sap_status (*read)(void *state, const char *name, const sap_range *ranges, size_t count, sap_error *err);
    /* May be NULL: nothing is mapped. */
    const uint8_t *(*map)(void *state, uint64_t offset, size_t length);
} sap_transport;

extern const sap_transport sap_transport_local;

#endif
