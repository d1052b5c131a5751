/* What is kept of a table's files. */
#ifndef SAP_TABLE_SURVEY_H
#define SAP_TABLE_SURVEY_H

#include "table_internal.h"

typedef struct sap_surveyed {
    sap_table_file shown;
    sap_arena arena;
    const sap_field *schema;    /* NULL: that of the first file */
    const sap_outline *outline; /* of the first file; its branches are gone */
} sap_surveyed;

struct sap_table {
    sap_arena arena;
    const char *tree;
    bool merge, skip_bad, identity, given;
    sap_surveyed *files;
    size_t file_count, file_capacity;
    const sap_surveyed *reference; /* the first file that opened */
    sap_field schema;
};

#endif
