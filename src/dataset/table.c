/* One Parquet file as a table, such as the scores of a prediction. */
#include "dataset_internal.h"

#include <stdlib.h>

struct sap_table_writer {
    sap_part_writer *part;
};

sap_status sap_table_create(const char *path, const sap_field *fields, int32_t count, sap_table_writer **out,
                            sap_error *err) {
    if (count < 1)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a table needs at least one column", path);
    sap_table_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return sap_error_memory(err, path);
    sap_status status = sap_part_create(path, SAP_DATASET_PARQUET, fields, count, &writer->part, err);
    if (status == SAP_OK)
        *out = writer;
    else
        free(writer);
    return status;
}

sap_status sap_table_write(sap_table_writer *writer, sap_batch *batch, sap_error *err) {
    return sap_part_write(writer->part, batch, err);
}

sap_status sap_table_finish(sap_table_writer *writer, sap_error *err) {
    return sap_part_finish(writer->part, NULL, err);
}

void sap_table_writer_close(sap_table_writer *writer) {
    if (!writer)
        return;
    sap_part_writer_close(writer->part);
    free(writer);
}
