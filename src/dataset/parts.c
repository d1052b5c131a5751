/* Part files: Parquet and Arrow through the plug-in, or TFRecord; and parts that go on in a second file when they are large. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS_AT_ONCE = 1024 };                          /* of a reader's batch */
static const int64_t piece_bytes = INT64_C(256) << 20; /* of values: a piece is read as one batch */

/* ---- Writing --------------------------------------------------------------------------------------------- */

struct sap_part_writer {
    char *path, *aside;
    const sap_parquet_table *parquet; /* NULL: TFRecord */
    void *parquet_writer;
    sap_tfrecord_writer *tfrecord;
};

const char *sap_part_ending(sap_dataset_format format) {
    static const char *const endings[] = {".parquet", ".tfrecord", ".arrow"};
    return endings[format];
}

void sap_part_writer_close(sap_part_writer *writer) {
    if (!writer)
        return;
    if (writer->parquet_writer)
        writer->parquet->writer_close(writer->parquet_writer);
    sap_tfrecord_writer_close(writer->tfrecord);
    if (writer->aside)
        (void)unlink(writer->aside);
    free(writer->aside);
    free(writer->path);
    free(writer);
}

static sap_status find_parquet(const sap_parquet_table **out, sap_error *err) {
    const void *table;
    SAP_TRY(sap_plugin_find("parquet", &table, err));
    *out = table;
    return SAP_OK;
}

sap_status sap_part_create(const char *path, sap_dataset_format format, const sap_field *fields, int32_t count,
                           sap_part_writer **out, sap_error *err) {
    sap_part_writer *writer = calloc(1, sizeof *writer);
    sap_text aside = {0};
    sap_text_add(&aside, "%s.partial", path);
    if (writer) {
        writer->path = strdup(path);
        writer->aside = aside.data;
    }
    sap_status status = writer && writer->path && !aside.failed ? SAP_OK : sap_error_memory(err, path);
    if (!writer)
        sap_text_release(&aside);
    if (status == SAP_OK && format == SAP_DATASET_TFRECORD)
        status = sap_tfrecord_create(writer->aside, &writer->tfrecord, err);
    if (status == SAP_OK && format != SAP_DATASET_TFRECORD) {
        sap_arrow_form form = format == SAP_DATASET_ARROW ? SAP_ARROW_FILE : SAP_PARQUET_FEATURES;
        struct ArrowSchema schema;
        status = find_parquet(&writer->parquet, err);
        if (status == SAP_OK)
            status = sap_schema_export(fields, count, &schema, err);
        if (status == SAP_OK)
            status = writer->parquet->create(writer->aside, form, &schema, &writer->parquet_writer, err);
    }
    if (status == SAP_OK)
        *out = writer;
    else
        sap_part_writer_close(writer);
    return status;
}

sap_status sap_part_write(sap_part_writer *writer, sap_batch *batch, sap_error *err) {
    sap_status status;
    if (writer->tfrecord) {
        status = sap_tfrecord_write(writer->tfrecord, batch, err);
    } else {
        struct ArrowArray array;
        status = sap_batch_export(batch, &array, err);
        if (status == SAP_OK)
            status = writer->parquet->write(writer->parquet_writer, &array, err);
    }
    sap_batch_release(batch);
    return status;
}

sap_status sap_part_finish(sap_part_writer *writer, int64_t *bytes, sap_error *err) {
    SAP_TRY(writer->tfrecord ? sap_tfrecord_finish(writer->tfrecord, err)
                             : writer->parquet->finish(writer->parquet_writer, err));
    struct stat info;
    if (stat(writer->aside, &info) != 0)
        return sap_error_errno(err, writer->aside);
    if (rename(writer->aside, writer->path) != 0)
        return sap_error_errno(err, writer->path);
    free(writer->aside);
    writer->aside = NULL;
    if (bytes)
        *bytes = info.st_size;
    return SAP_OK;
}

/* ---- Parts in pieces ---------------------------------------------------------------------------------------- */

char *sap_piece_path(const char *stem, const char *ending, size_t index) {
    sap_text path = {0};
    if (index == 0)
        sap_text_add(&path, "%s%s", stem, ending);
    else
        sap_text_add(&path, "%s_%03zu%s", stem, index, ending);
    if (path.failed)
        sap_text_release(&path);
    return path.data;
}

/* Bytes of the values that a column refers to; in a view that is not all that its children hold. */
static int64_t column_bytes(const sap_column *column, int64_t length) {
    int64_t bytes = length * (int64_t)sap_type_size(column->type);
    if (column->type == SAP_LIST || column->type == SAP_FIXED_LIST) {
        int64_t items = column->type == SAP_LIST ? column->offsets[length] - column->offsets[0] : length * column->size;
        bytes += column_bytes(&column->children[0], items);
    }
    return bytes;
}

static sap_status finish_piece(sap_pieces *pieces, sap_error *err) {
    if (!sap_grow((void **)&pieces->items, &pieces->capacity, pieces->count, sizeof *pieces->items))
        return sap_error_memory(err, pieces->stem);
    sap_piece *piece = &pieces->items[pieces->count];
    piece->rows = pieces->part_rows;
    SAP_TRY(sap_part_finish(pieces->part, &piece->bytes, err));
    pieces->count++;
    sap_part_writer_close(pieces->part);
    pieces->part = NULL;
    pieces->part_rows = pieces->part_bytes = 0;
    return SAP_OK;
}

sap_status sap_pieces_write(sap_pieces *pieces, sap_batch *batch, sap_error *err) {
    sap_status status = SAP_OK;
    if (batch->length == 0)
        goto done;
    int64_t bytes = 0;
    for (int32_t i = 0; i < batch->count; i++)
        bytes += column_bytes(&batch->columns[i], batch->length);
    if (pieces->part && pieces->part_bytes + bytes > (pieces->limit ? pieces->limit : piece_bytes))
        status = finish_piece(pieces, err);
    if (status == SAP_OK && !pieces->part) {
        char *path = sap_piece_path(pieces->stem, pieces->ending, pieces->count);
        status = path ? sap_part_create(path, pieces->format, pieces->fields, pieces->field_count, &pieces->part, err)
                      : sap_error_memory(err, pieces->stem);
        free(path);
    }
    if (status != SAP_OK)
        goto done;
    pieces->part_rows += batch->length;
    pieces->part_bytes += bytes;
    status = sap_part_write(pieces->part, batch, err);
done:
    sap_batch_release(batch);
    return status;
}

sap_status sap_pieces_finish(sap_pieces *pieces, sap_error *err) {
    return pieces->part ? finish_piece(pieces, err) : SAP_OK;
}

void sap_pieces_release(sap_pieces *pieces) {
    sap_part_writer_close(pieces->part);
    free(pieces->stem);
    free(pieces->items);
    *pieces = (sap_pieces){0};
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

struct sap_part_reader {
    char *path;
    sap_foreign *foreign; /* NULL: columns are as they are stored */
    const sap_field *fields;
    int32_t count;
    const sap_parquet_table *parquet; /* NULL: TFRecord */
    void *parquet_reader;
    sap_tfrecord_reader *tfrecord;
};

void sap_part_close(sap_part_reader *reader) {
    if (!reader)
        return;
    if (reader->parquet_reader)
        reader->parquet->reader_close(reader->parquet_reader);
    sap_tfrecord_close(reader->tfrecord);
    sap_foreign_close(reader->foreign);
    free(reader->path);
    free(reader);
}

static sap_status open_parquet(sap_part_reader *reader, int64_t rows_at_once, sap_error *err) {
    SAP_TRY(find_parquet(&reader->parquet, err));
    const char **names = calloc((size_t)reader->count, sizeof *names);
    if (!names)
        return sap_error_memory(err, reader->path);
    for (int32_t i = 0; i < reader->count; i++)
        names[i] = reader->fields[i].name;
    sap_status status =
        reader->parquet->open(reader->path, names, reader->count, rows_at_once, &reader->parquet_reader, err);
    free(names);
    return status;
}

sap_status sap_part_open(const char *path, sap_dataset_format format, const sap_field *fields, int32_t count,
                         int64_t rows_at_once, sap_part_reader **out, sap_error *err) {
    sap_part_reader *reader = calloc(1, sizeof *reader);
    if (reader)
        *reader = (sap_part_reader){.path = strdup(path), .fields = fields, .count = count};
    sap_status status = reader && reader->path ? SAP_OK : sap_error_memory(err, path);
    if (status == SAP_OK && format == SAP_DATASET_TFRECORD)
        status = sap_tfrecord_open(path, fields, count, &reader->tfrecord, err);
    else if (status == SAP_OK)
        status = open_parquet(reader, rows_at_once ? rows_at_once : ROWS_AT_ONCE, err);
    if (status == SAP_OK)
        *out = reader;
    else
        sap_part_close(reader);
    return status;
}

sap_status sap_part_open_foreign(const sap_info *info, const sap_part *part, const sap_field *fields, int32_t count,
                                 sap_part_reader **out, sap_error *err) {
    sap_foreign *foreign;
    SAP_TRY(sap_foreign_open(info, part, fields, count, &foreign, err));
    int32_t columns;
    const sap_field *wanted = sap_foreign_columns(foreign, &columns);
    sap_status status = sap_part_open(part->path, info->format, wanted, columns, 0, out, err);
    if (status == SAP_OK)
        (*out)->foreign = foreign;
    else
        sap_foreign_close(foreign);
    return status;
}

static sap_status read_batch(sap_part_reader *reader, sap_batch *out, sap_error *err) {
    if (reader->tfrecord)
        return sap_tfrecord_next(reader->tfrecord, out, err);
    struct ArrowSchema schema;
    struct ArrowArray array;
    SAP_TRY(reader->parquet->next(reader->parquet_reader, &schema, &array, err));
    *out = (sap_batch){0};
    if (!array.release)
        return SAP_OK;
    sap_status status = sap_arrow_import(&schema, &array, reader->path, reader->fields, reader->count, out, err);
    array.release(&array);
    schema.release(&schema);
    return status;
}

sap_status sap_part_next(sap_part_reader *reader, sap_batch *out, sap_error *err) {
    SAP_TRY(read_batch(reader, out, err));
    return reader->foreign && out->length > 0 ? sap_foreign_turn(reader->foreign, out, err) : SAP_OK;
}

uint64_t sap_part_bytes(const sap_part_reader *reader) {
    return reader->tfrecord ? sap_tfrecord_bytes(reader->tfrecord) : reader->parquet->bytes(reader->parquet_reader);
}

/* ---- The columns of stored events --------------------------------------------------------------------------------- */

sap_field *sap_event_fields(const sap_feature *features, size_t count, sap_arena *arena) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT32};
    sap_field *fields = sap_arena_array(arena, count + SAP_EVENT_COLUMNS, sizeof *fields);
    if (!fields)
        return NULL;
    for (size_t i = 0; i < count; i++)
        fields[i] = (sap_field){.name = features[i].name,
                                .type = features[i].sequence ? SAP_LIST : SAP_FIXED_LIST,
                                .size = features[i].sequence ? 0 : features[i].width,
                                .count = 1,
                                .children = &item};
    sap_field *rest = fields + count;
    rest[0] = (sap_field){.name = "label", .type = SAP_INT32};
    rest[1] = (sap_field){.name = "sample", .type = SAP_STRING};
    rest[2] = (sap_field){.name = "file", .type = SAP_STRING};
    rest[3] = (sap_field){.name = "entry", .type = SAP_INT64};
    return fields;
}
