/* Columns in a plain file, to hand them to C programs without a ROOT reader: a header line, then one line and the raw
 * values for each column, as tests/recipe/dump.py writes them. */
#ifndef SAP_DUMP_H
#define SAP_DUMP_H

#include "column/column_internal.h"

/* Reads the file into a batch, which the caller releases. false: with a message on stderr. */
bool dump_read(const char *path, sap_batch *out);

#endif
