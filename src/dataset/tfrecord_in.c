/* Reading TFRecord files of tf.train.Example messages into columns. See tfrecord.c for their format. */
#include "../base/cursor.h"
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { ROWS_AT_ONCE = 256, HEADER_BYTES = 12, FOOTER_BYTES = 4 };

/* Values of one column of the batch that is being read. */
typedef struct gathered {
    uint8_t *data;
    size_t length, capacity; /* bytes */
    int32_t *ends;           /* (ROWS_AT_ONCE) items up to the end of each row */
    int64_t last_row;        /* of the record that had this column, -1: none */
    bool overflow;           /* a number did not fit */
} gathered;

struct sap_tfrecord_reader {
    FILE *file;
    char *path;
    uint64_t size, at; /* bytes of the file, and read */
    int64_t record;    /* its number, for messages */
    const sap_field *fields;
    int32_t count;
    gathered *columns; /* (count) */
    uint8_t *message;
    size_t capacity;
};

void sap_tfrecord_close(sap_tfrecord_reader *reader) {
    if (!reader)
        return;
    if (reader->file)
        (void)fclose(reader->file);
    for (int32_t i = 0; reader->columns && i < reader->count; i++) {
        free(reader->columns[i].data);
        free(reader->columns[i].ends);
    }
    free(reader->columns);
    free(reader->message);
    free(reader->path);
    free(reader);
}

static sap_status open_file(sap_tfrecord_reader *reader, sap_error *err) {
    struct stat info;
    reader->file = fopen(reader->path, "rbe");
    if (!reader->file || fstat(fileno(reader->file), &info) != 0)
        return sap_error_errno(err, reader->path);
    reader->size = (uint64_t)info.st_size;
    reader->columns = calloc((size_t)reader->count, sizeof *reader->columns);
    if (!reader->columns)
        return sap_error_memory(err, reader->path);
    for (int32_t i = 0; i < reader->count; i++) {
        reader->columns[i].ends = calloc(ROWS_AT_ONCE, sizeof(int32_t));
        if (!reader->columns[i].ends)
            return sap_error_memory(err, reader->path);
    }
    return SAP_OK;
}

sap_status sap_tfrecord_open(const char *path, const sap_field *fields, int32_t count, sap_tfrecord_reader **out,
                             sap_error *err) {
    sap_tfrecord_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return sap_error_memory(err, path);
    *reader = (sap_tfrecord_reader){.path = strdup(path), .fields = fields, .count = count};
    sap_status status = reader->path ? open_file(reader, err) : sap_error_memory(err, path);
    if (status == SAP_OK)
        *out = reader;
    else
        sap_tfrecord_close(reader);
    return status;
}

uint64_t sap_tfrecord_bytes(const sap_tfrecord_reader *reader) {
    return reader->size;
}

/* ---- Protocol buffers ------------------------------------------------------------------------------------------ */

static uint64_t get_varint(sap_cursor *c) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t byte = sap_cursor_u8(c);
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return value;
    }
    sap_cursor_fail(c, SIZE_MAX); /* more than ten bytes */
    return 0;
}

/* The next field of a message, of any wire type. */
typedef struct field {
    unsigned number, wire;
    sap_cursor body; /* wire type 2: the bytes; 5: four of them */
    uint64_t value;  /* wire type 0 */
} field;

static bool next_field(sap_cursor *c, field *out) {
    if (sap_cursor_left(c) == 0)
        return false;
    uint64_t tag = get_varint(c);
    *out = (field){.number = (unsigned)(tag >> 3 & 0x1FFFFFFF), .wire = tag & 7};
    switch (out->wire) {
    case 0:
        out->value = get_varint(c);
        break;
    case 1:
        out->body = sap_cursor_sub(c, 8);
        break;
    case 2: {
        uint64_t length = get_varint(c);
        out->body = sap_cursor_sub(c, length > sap_cursor_left(c) ? SIZE_MAX / 2 : (size_t)length);
        break;
    }
    case 5:
        out->body = sap_cursor_sub(c, 4);
        break;
    default:
        sap_cursor_fail(c, 1);
    }
    return !c->failed;
}

/* ---- Examples ---------------------------------------------------------------------------------------------------- */

static bool append(gathered *to, const void *data, size_t bytes) {
    if (bytes > to->capacity - to->length) {
        size_t capacity = (to->length + bytes) * 2 + 64;
        uint8_t *grown = realloc(to->data, capacity);
        if (!grown)
            return false;
        to->data = grown;
        to->capacity = capacity;
    }
    if (bytes)
        memcpy(to->data + to->length, data, bytes);
    to->length += bytes;
    return true;
}

static sap_type item_type(const sap_field *wanted) {
    return wanted->count == 1 ? wanted->children[0].type : wanted->type;
}

static bool append_integer(gathered *to, sap_type type, uint64_t value) {
    int32_t narrow = (int32_t)(uint32_t)value;
    to->overflow |= type == SAP_INT32 && (int64_t)value != narrow;
    return type == SAP_INT32 ? append(to, &narrow, 4) : append(to, &value, 8);
}

/* The values of a list message, packed or one by one. False: out of memory. */
static bool gather_values(sap_cursor *list, unsigned kind, sap_type type, gathered *to) {
    field f;
    while (next_field(list, &f)) {
        if (f.number != 1)
            continue;
        if (kind == 3) {
            if (f.wire == 0) {
                if (!append_integer(to, type, f.value))
                    return false;
                continue;
            }
            while (sap_cursor_left(&f.body) > 0) {
                uint64_t value = get_varint(&f.body);
                if (!f.body.failed && !append_integer(to, type, value))
                    return false;
            }
            list->failed |= f.body.failed;
        } else {
            size_t bytes = sap_cursor_left(&f.body);
            if (bytes > 0 && !append(to, sap_cursor_take(&f.body, bytes), bytes))
                return false;
        }
    }
    return true;
}

static sap_status damaged(const sap_tfrecord_reader *reader, const char *what, sap_error *err) {
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: record %lld: %s", reader->path, (unsigned long long)reader->at,
                         (long long)reader->record, what);
}

static sap_status gather_feature(sap_tfrecord_reader *reader, sap_cursor *feature, int32_t column, int64_t row,
                                 sap_error *err) {
    const sap_field *wanted = &reader->fields[column];
    gathered *to = &reader->columns[column];
    sap_type type = item_type(wanted);
    unsigned kind = type == SAP_STRING ? 1 : type == SAP_FLOAT32 ? 2 : 3;
    size_t item = type == SAP_STRING ? 1 : sap_type_size(type), before = to->length;
    field f;
    while (next_field(feature, &f)) {
        if (f.wire != 2 || f.number != kind)
            return sap_error_set(err, SAP_ETYPE, "%s: record %lld: feature \"%s\" is of kind %u, expected %u (%s)",
                                 reader->path, (long long)reader->record, wanted->name, f.number, kind,
                                 sap_type_name(type));
        if (!gather_values(&f.body, kind, type, to))
            return sap_error_memory(err, reader->path);
        feature->failed |= f.body.failed;
    }
    if (to->overflow) {
        to->overflow = false;
        return sap_error_set(err, SAP_EDATA, "%s: record %lld: feature \"%s\" holds a number that is no 32-bit integer",
                             reader->path, (long long)reader->record, wanted->name);
    }
    size_t count = (to->length - before) / item;
    size_t fixed = wanted->type == SAP_FIXED_LIST ? (size_t)wanted->size : 1;
    if ((to->length - before) % item != 0 || to->length / item > INT32_MAX)
        return damaged(reader, "a list that does not hold whole values, or too many", err);
    if (wanted->type != SAP_LIST && wanted->type != SAP_STRING && count != fixed)
        return sap_error_set(err, SAP_ETYPE, "%s: record %lld: feature \"%s\" has %zu values, expected %zu",
                             reader->path, (long long)reader->record, wanted->name, count, fixed);
    to->ends[row] = (int32_t)(to->length / item);
    to->last_row = reader->record;
    return SAP_OK;
}

/* A map entry: name and Feature, in either order. */
static sap_status gather_entry(sap_tfrecord_reader *reader, sap_cursor *entry, int64_t row, sap_error *err) {
    sap_cursor name = {0}, feature = {0};
    field f;
    while (next_field(entry, &f)) {
        if (f.wire == 2 && f.number == 1)
            name = f.body;
        else if (f.wire == 2 && f.number == 2)
            feature = f.body;
    }
    for (int32_t i = 0; i < reader->count && !entry->failed; i++) {
        const char *wanted = reader->fields[i].name;
        if (name.length == strlen(wanted) && memcmp(name.data, wanted, name.length) == 0) {
            if (reader->columns[i].last_row == reader->record)
                return damaged(reader, "a feature that occurs twice", err);
            SAP_TRY(gather_feature(reader, &feature, i, row, err));
            entry->failed |= feature.failed;
        }
    }
    return SAP_OK;
}

static sap_status gather_example(sap_tfrecord_reader *reader, size_t bytes, int64_t row, sap_error *err) {
    sap_cursor message = sap_cursor_init(reader->message, bytes, reader->at);
    field features, entry;
    while (next_field(&message, &features)) {
        if (features.number != 1 || features.wire != 2)
            continue;
        while (next_field(&features.body, &entry)) {
            if (entry.number != 1 || entry.wire != 2)
                continue;
            SAP_TRY(gather_entry(reader, &entry.body, row, err));
            features.body.failed |= entry.body.failed;
        }
        message.failed |= features.body.failed;
    }
    if (message.failed)
        return damaged(reader, "is not a tf.train.Example", err);
    for (int32_t i = 0; i < reader->count; i++)
        if (reader->columns[i].last_row != reader->record)
            return sap_error_set(err, SAP_ENOTFOUND, "%s: record %lld: has no feature \"%s\"", reader->path,
                                 (long long)reader->record, reader->fields[i].name);
    return SAP_OK;
}

/* ---- Records -------------------------------------------------------------------------------------------------------- */

/* The next message; `*bytes` SIZE_MAX after the last. */
static sap_status read_record(sap_tfrecord_reader *reader, size_t *bytes, sap_error *err) {
    uint8_t header[HEADER_BYTES];
    size_t got = fread(header, 1, sizeof header, reader->file);
    if (got == 0 && feof(reader->file)) {
        *bytes = SIZE_MAX;
        return SAP_OK;
    }
    if (ferror(reader->file))
        return sap_error_errno(err, reader->path);
    if (got < sizeof header)
        return damaged(reader, "its header is cut short", err);
    uint64_t length = sap_le64(header);
    if (sap_le32(header + 8) != sap_crc32c_masked(header, 8))
        return damaged(reader, "the checksum of its length is wrong", err);
    uint64_t left = reader->size - reader->at;
    if (left < HEADER_BYTES + FOOTER_BYTES || length > left - HEADER_BYTES - FOOTER_BYTES)
        return damaged(reader, "is longer than what is left of the file", err);
    size_t needed = (size_t)length + FOOTER_BYTES;
    if (needed > reader->capacity) {
        uint8_t *grown = realloc(reader->message, needed + needed / 2);
        if (!grown)
            return sap_error_memory(err, reader->path);
        reader->message = grown;
        reader->capacity = needed + needed / 2;
    }
    if (fread(reader->message, 1, needed, reader->file) < needed)
        return ferror(reader->file) ? sap_error_errno(err, reader->path) : damaged(reader, "is cut short", err);
    if (sap_le32(reader->message + length) != sap_crc32c_masked(reader->message, (size_t)length))
        return damaged(reader, "its checksum is wrong", err);
    *bytes = (size_t)length;
    return SAP_OK;
}

/* ---- What a file has ------------------------------------------------------------------------------------------------- */

sap_status sap_tfrecord_count(const char *path, int64_t *rows, sap_error *err) {
    sap_tfrecord_reader *reader;
    SAP_TRY(sap_tfrecord_open(path, NULL, 0, &reader, err));
    sap_status status = SAP_OK;
    *rows = 0;
    while (status == SAP_OK && reader->at < reader->size) {
        uint8_t header[HEADER_BYTES];
        size_t got = sap_descriptor_read(fileno(reader->file), header, sizeof header, reader->at);
        uint64_t left = reader->size - reader->at, length = sap_le64(header);
        if (got < sizeof header)
            status = errno ? sap_error_errno(err, path) : damaged(reader, "its header is cut short", err);
        else if (sap_le32(header + 8) != sap_crc32c_masked(header, 8))
            status = damaged(reader, "the checksum of its length is wrong", err);
        else if (left < HEADER_BYTES + FOOTER_BYTES || length > left - HEADER_BYTES - FOOTER_BYTES)
            status = damaged(reader, "is longer than what is left of the file", err);
        reader->at += HEADER_BYTES + length + FOOTER_BYTES;
        *rows = ++reader->record;
    }
    sap_tfrecord_close(reader);
    return status;
}

/* How many floats a Feature holds, -1 when it holds none. */
static int64_t count_floats(sap_cursor *feature) {
    field list, values;
    int64_t bytes = -1;
    while (next_field(feature, &list)) {
        if (list.number != 2 || list.wire != 2)
            return -1;
        while (next_field(&list.body, &values))
            if (values.number == 1)
                bytes += (bytes < 0) + (int64_t)sap_cursor_left(&values.body);
    }
    return bytes < 0 ? -1 : bytes / (int64_t)sizeof(float);
}

sap_status sap_tfrecord_describe(const char *path,
                                 sap_status (*found)(void *context, const char *name, size_t length, int64_t values,
                                                     sap_error *err),
                                 void *context, sap_error *err) {
    sap_tfrecord_reader *reader;
    SAP_TRY(sap_tfrecord_open(path, NULL, 0, &reader, err));
    size_t bytes = SIZE_MAX;
    sap_status status = read_record(reader, &bytes, err);
    sap_cursor message = sap_cursor_init(reader->message, bytes == SIZE_MAX ? 0 : bytes, 0);
    field features, entry, part;
    while (status == SAP_OK && next_field(&message, &features)) {
        while (status == SAP_OK && features.wire == 2 && next_field(&features.body, &entry)) {
            sap_cursor name = {0}, feature = {0};
            while (entry.wire == 2 && next_field(&entry.body, &part)) {
                name = part.wire == 2 && part.number == 1 ? part.body : name;
                feature = part.wire == 2 && part.number == 2 ? part.body : feature;
            }
            int64_t values = count_floats(&feature);
            if (values >= 0 && name.length > 0)
                status = found(context, (const char *)name.data, name.length, values, err);
        }
    }
    sap_tfrecord_close(reader);
    return status;
}

/* ---- Batches ----------------------------------------------------------------------------------------------------------- */

/* Moves what was gathered into a column. */
static sap_status give_column(gathered *from, const sap_field *wanted, int64_t rows, struct sap_storage *storage,
                              sap_column *out, sap_error *err) {
    SAP_TRY(sap_column_init(storage, wanted, out, err));
    out->length = rows;
    void *data = from->data ? from->data : malloc(1);
    if (!data || !sap_storage_adopt(storage, data)) {
        if (data != from->data)
            free(data);
        return sap_error_memory(err, wanted->name);
    }
    from->data = NULL;
    from->length = from->capacity = 0;
    sap_column *items = wanted->count == 1 ? &out->children[0] : out;
    items->values = data;
    if (wanted->count == 1)
        items->length = rows > 0 ? from->ends[rows - 1] : 0;
    if (wanted->type == SAP_LIST || wanted->type == SAP_STRING) {
        int32_t *offsets = sap_storage_alloc(storage, (size_t)(rows + 1) * sizeof *offsets);
        if (!offsets)
            return sap_error_memory(err, wanted->name);
        offsets[0] = 0;
        memcpy(offsets + 1, from->ends, (size_t)rows * sizeof *offsets);
        out->offsets = offsets;
    }
    return SAP_OK;
}

sap_status sap_tfrecord_next(sap_tfrecord_reader *reader, sap_batch *out, sap_error *err) {
    int64_t rows = 0;
    *out = (sap_batch){0};
    for (int32_t i = 0; i < reader->count; i++) {
        reader->columns[i].length = 0;
        reader->columns[i].last_row = -1;
    }
    while (rows < ROWS_AT_ONCE) {
        size_t bytes = SIZE_MAX;
        SAP_TRY(read_record(reader, &bytes, err));
        if (bytes == SIZE_MAX)
            break;
        SAP_TRY(gather_example(reader, bytes, rows, err));
        reader->at += HEADER_BYTES + bytes + FOOTER_BYTES;
        reader->record++;
        rows++;
    }
    if (rows == 0)
        return SAP_OK;
    SAP_TRY(sap_batch_init(out, reader->count, err));
    out->length = rows;
    for (int32_t i = 0; i < reader->count; i++) {
        sap_status status =
            give_column(&reader->columns[i], &reader->fields[i], rows, out->storage, &out->columns[i], err);
        if (status != SAP_OK) {
            sap_batch_release(out);
            return status;
        }
    }
    return SAP_OK;
}
