/* TFRecord files of tf.train.Example messages: the framing with its masked CRC-32C, and the little of protocol buffers that they need.
 *
 * Record: length (u64), masked CRC of the length (u32), the message, masked CRC of the message (u32); little-endian.
 * Example { Features features = 1 }, Features { map<string, Feature> feature = 1 },
 * Feature { BytesList bytes_list = 1 | FloatList float_list = 2 | Int64List int64_list = 3 }, each list { repeated value = 1 }.
 */
#include "../base/cursor.h"
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Writing --------------------------------------------------------------------------------------------------- */

enum { BUFFER_BYTES = 1 << 20, HEADER_BYTES = 12, FOOTER_BYTES = 4 };

struct sap_tfrecord_writer {
    int fd;
    char *path;
    uint8_t *data; /* records not yet written */
    size_t length, capacity;
};

sap_status sap_tfrecord_create(const char *path, sap_tfrecord_writer **out, sap_error *err) {
    sap_tfrecord_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return sap_error_memory(err, path);
    writer->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (writer->fd < 0) {
        free(writer);
        return sap_error_errno(err, path);
    }
    writer->path = strdup(path);
    if (!writer->path) {
        sap_tfrecord_writer_close(writer);
        return sap_error_memory(err, path);
    }
    *out = writer;
    return SAP_OK;
}

void sap_tfrecord_writer_close(sap_tfrecord_writer *writer) {
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->path);
    free(writer->data);
    free(writer);
}

static sap_status flush(sap_tfrecord_writer *writer, sap_error *err) {
    if (!sap_descriptor_write(writer->fd, writer->data, writer->length))
        return sap_error_errno(err, writer->path);
    writer->length = 0;
    return SAP_OK;
}

static bool reserve(sap_tfrecord_writer *writer, size_t bytes) {
    size_t needed = writer->length + bytes;
    if (needed <= writer->capacity)
        return true;
    size_t capacity = needed > BUFFER_BYTES ? needed + needed / 2 : 2 * BUFFER_BYTES;
    uint8_t *grown = realloc(writer->data, capacity);
    if (!grown)
        return false;
    writer->data = grown;
    writer->capacity = capacity;
    return true;
}

static size_t varint_bytes(uint64_t value) {
    size_t bytes = 1;
    while (value >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *put_varint(uint8_t *p, uint64_t value) {
    for (; value >= 128; value >>= 7)
        *p++ = (uint8_t)(value | 128);
    *p++ = (uint8_t)value;
    return p;
}

/* A field of bytes: its tag (number, wire type 2) and length. */
static uint8_t *put_head(uint8_t *p, unsigned number, size_t length) {
    *p++ = (uint8_t)(number << 3 | 2);
    return put_varint(p, length);
}

static size_t field_bytes(size_t length) {
    return 1 + varint_bytes(length) + length;
}

enum { BYTES_LIST = 1, FLOAT_LIST = 2, INT64_LIST = 3 };

/* One value of a row: what goes into a Feature. */
typedef struct cell {
    unsigned list; /* which kind */
    sap_type type;
    const void *values;
    size_t count, packed; /* values; bytes of them as encoded */
} cell;

static void size_cell(cell *c) {
    c->packed = c->count * 4;
    if (c->list == BYTES_LIST)
        c->packed = c->count;
    if (c->list != INT64_LIST)
        return;
    c->packed = 0;
    for (size_t i = 0; i < c->count; i++)
        c->packed += varint_bytes(c->type == SAP_INT32 ? (uint64_t)(int64_t)((const int32_t *)c->values)[i]
                                                       : (uint64_t)((const int64_t *)c->values)[i]);
}

static sap_status find_cell(const sap_column *column, int64_t row, cell *out, sap_error *err) {
    const sap_column *items = column;
    int64_t begin = row, count = 1;
    if (column->type == SAP_LIST || column->type == SAP_FIXED_LIST) {
        items = &column->children[0];
        begin = column->type == SAP_LIST ? column->offsets[row] : row * column->size;
        count = column->type == SAP_LIST ? column->offsets[row + 1] - begin : column->size;
    }
    *out = (cell){.type = items->type, .count = (size_t)count};
    if (column->type == SAP_STRING) {
        out->list = BYTES_LIST;
        out->count = (size_t)(column->offsets[row + 1] - column->offsets[row]);
        out->values = (const char *)column->values + column->offsets[row];
    } else if (items->type == SAP_FLOAT32 || items->type == SAP_FLOAT64) {
        out->list = FLOAT_LIST;
    } else if (items->type == SAP_INT32 || items->type == SAP_INT64) {
        out->list = INT64_LIST;
    } else {
        return sap_error_set(err, SAP_ETYPE, "column \"%s\": a TFRecord cannot hold %s", column->name,
                             sap_type_name(items->type));
    }
    if (column->type != SAP_STRING)
        out->values = (const char *)items->values + (size_t)begin * sap_type_size(items->type);
    size_cell(out);
    return SAP_OK;
}

static uint8_t *put_values(uint8_t *p, const cell *c) {
    if (c->list == BYTES_LIST || c->type == SAP_FLOAT32) {
        if (c->packed)
            memcpy(p, c->values, c->packed);
        return p + c->packed;
    }
    for (size_t i = 0; i < c->count; i++) {
        if (c->type == SAP_FLOAT64) {
            float value = (float)((const double *)c->values)[i];
            memcpy(p, &value, 4);
            p += 4;
        } else if (c->type == SAP_INT32) {
            p = put_varint(p, (uint64_t)(int64_t)((const int32_t *)c->values)[i]);
        } else {
            p = put_varint(p, (uint64_t)((const int64_t *)c->values)[i]);
        }
    }
    return p;
}

/* Bytes of a map entry: key, Feature. */
static size_t entry_bytes(const char *name, const cell *c) {
    return field_bytes(strlen(name)) + field_bytes(field_bytes(field_bytes(c->packed)));
}

static uint8_t *put_entry(uint8_t *p, const char *name, const cell *c) {
    size_t list = field_bytes(c->packed), key = strlen(name);
    p = put_head(p, 1, key);
    memcpy(p, name, key);
    p = put_head(p + key, 2, field_bytes(list));
    p = put_head(p, c->list, list);
    p = put_head(p, 1, c->packed);
    return put_values(p, c);
}

static void put_le(uint8_t *p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static sap_status write_row(sap_tfrecord_writer *writer, const sap_batch *batch, int64_t row, cell *cells,
                            sap_error *err) {
    size_t features = 0;
    for (int32_t i = 0; i < batch->count; i++) {
        SAP_TRY(find_cell(&batch->columns[i], row, &cells[i], err));
        features += field_bytes(entry_bytes(batch->columns[i].name, &cells[i]));
    }
    size_t message = field_bytes(features);
    if (!reserve(writer, HEADER_BYTES + message + FOOTER_BYTES))
        return sap_error_memory(err, writer->path);
    uint8_t *head = writer->data + writer->length, *body = head + HEADER_BYTES;
    put_le(head, message, 8);
    put_le(head + 8, sap_crc32c_masked(head, 8), 4);
    uint8_t *p = put_head(body, 1, features);
    for (int32_t i = 0; i < batch->count; i++) {
        const char *name = batch->columns[i].name;
        p = put_head(p, 1, entry_bytes(name, &cells[i]));
        p = put_entry(p, name, &cells[i]);
    }
    put_le(p, sap_crc32c_masked(body, message), 4);
    writer->length += HEADER_BYTES + message + FOOTER_BYTES;
    return writer->length >= BUFFER_BYTES ? flush(writer, err) : SAP_OK;
}

sap_status sap_tfrecord_write(sap_tfrecord_writer *writer, const sap_batch *batch, sap_error *err) {
    cell *cells = calloc((size_t)batch->count + 1, sizeof *cells);
    sap_status status = cells ? SAP_OK : sap_error_memory(err, writer->path);
    for (int64_t row = 0; row < batch->length && status == SAP_OK; row++)
        status = write_row(writer, batch, row, cells, err);
    free(cells);
    return status;
}

sap_status sap_tfrecord_finish(sap_tfrecord_writer *writer, sap_error *err) {
    SAP_TRY(flush(writer, err));
    int fd = writer->fd;
    writer->fd = -1;
    return close(fd) == 0 ? SAP_OK : sap_error_errno(err, writer->path);
}
