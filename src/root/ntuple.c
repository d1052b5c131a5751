/* RNTuple. */
#include "root_internal.h"

sap_status sap_ntuple_open(sap_file *file, const sap_key *key, sap_tree **out, sap_error *err) {
    (void)out;
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s:%s is an RNTuple; this version reads TTrees only", file->name,
                         key->path);
}
