/* Export to Parquet and to Arrow's IPC file format, through the plug-in over Arrow's own library. */
#include "../dataset/dataset_internal.h"
#include "export_internal.h"

#include <stdlib.h>

typedef struct arrow_out {
    const sap_parquet_table *table;
    void *writer;
} arrow_out;

/* What Parquet has no type for is refused before anything is written, by the name of its column. */
static sap_status check_parquet(const char *column, const sap_field *field, sap_error *err) {
    if (field->type == SAP_UNION || (field->type == SAP_RECORD && field->count == 0))
        return sap_error_set(
            err, SAP_EUNSUPPORTED,
            "column \"%s\": Parquet cannot hold %s; leave it out with --columns '!%s', or write .arrow", column,
            field->type == SAP_UNION ? "unions" : "records without fields", column);
    for (int32_t i = 0; i < field->count; i++)
        SAP_TRY(check_parquet(column, &field->children[i], err));
    return SAP_OK;
}

static sap_status create(const char *path, sap_arrow_form form, const sap_field *fields, int32_t count, void **writer,
                         sap_error *err) {
    const void *table;
    struct ArrowSchema schema;
    SAP_TRY(sap_plugin_find("parquet", &table, err));
    arrow_out *out = calloc(1, sizeof *out);
    if (!out)
        return sap_error_memory(err, path);
    out->table = table;
    sap_status status = sap_schema_export(fields, count, &schema, err);
    if (status == SAP_OK)
        status = out->table->create(path, form, &schema, &out->writer, err);
    if (status == SAP_OK)
        *writer = out;
    else
        free(out);
    return status;
}

static sap_status create_parquet(const char *path, const sap_field *fields, int32_t count, void **writer,
                                 sap_error *err) {
    for (int32_t i = 0; i < count; i++)
        SAP_TRY(check_parquet(fields[i].name, &fields[i], err));
    return create(path, SAP_PARQUET_TABLE, fields, count, writer, err);
}

static sap_status create_arrow(const char *path, const sap_field *fields, int32_t count, void **writer,
                               sap_error *err) {
    return create(path, SAP_ARROW_FILE, fields, count, writer, err);
}

static sap_status write_batch(void *writer, sap_batch *batch, sap_error *err) {
    arrow_out *out = writer;
    struct ArrowArray array;
    SAP_TRY(sap_batch_export(batch, &array, err));
    return out->table->write(out->writer, &array, err);
}

static sap_status finish(void *writer, sap_error *err) {
    arrow_out *out = writer;
    return out->table->finish(out->writer, err);
}

static void close_writer(void *writer) {
    arrow_out *out = writer;
    out->table->writer_close(out->writer);
    free(out);
}

const sap_format sap_format_parquet = {"parquet", ".parquet", create_parquet, write_batch, finish, close_writer};
const sap_format sap_format_arrow = {"arrow", ".arrow", create_arrow, write_batch, finish, close_writer};
