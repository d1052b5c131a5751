/* TensorBoard's event files: TFRecord framing around Event messages, of which we write two kinds.
 *
 * Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5 }
 * Summary { repeated Value value = 1 }, Value { string tag = 1; float simple_value = 2 }
 *
 * A file is decided by the history alone, so that a training that was interrupted writes it as if it had not been.
 */
#include "history.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types */

static void put_varint(sap_text *out, uint64_t value) {
    char bytes[10];
    size_t n = 0;
    for (; value >= 128; value >>= 7)
        bytes[n++] = (char)(value | 128);
    bytes[n++] = (char)value;
    sap_text_put(out, bytes, n);
}

static void put_little(sap_text *out, uint64_t value, size_t count) {
    char bytes[8];
    for (size_t i = 0; i < count; i++)
        bytes[i] = (char)(value >> 8 * i);
    sap_text_put(out, bytes, count);
}

static void put_key(sap_text *out, unsigned field, unsigned wire) {
    put_varint(out, field << 3 | wire);
}

static void put_bytes(sap_text *out, unsigned field, const char *bytes, size_t length) {
    put_key(out, field, BYTES);
    put_varint(out, length);
    sap_text_put(out, bytes, length);
}

static void put_message(sap_text *out, unsigned field, const sap_text *message) {
    put_bytes(out, field, message->data, message->length);
    out->failed = out->failed || message->failed;
}

static void put_record(sap_text *out, const sap_text *event) {
    size_t start = out->length;
    put_little(out, event->length, 8);
    if (!out->failed)
        put_little(out, sap_crc32c_masked(out->data + start, 8), 4);
    sap_text_put(out, event->data, event->length);
    put_little(out, sap_crc32c_masked(event->data, event->length), 4);
    out->failed = out->failed || event->failed;
}

static void put_time(sap_text *event, double seconds) {
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    put_key(event, 1, FIXED64);
    put_little(event, bits, 8);
}

static void put_version(sap_text *out, double seconds) {
    sap_text event = {0};
    put_time(&event, seconds);
    put_bytes(&event, 3, "brain.Event:2", 13);
    put_record(out, &event);
    sap_text_release(&event);
}

/* The values of one epoch that stand in this file: those with "val_" in front, or the others. */
static void put_epoch(sap_text *out, const sap_history *history, int64_t epoch, bool validation) {
    sap_text event = {0}, summary = {0};
    for (int32_t i = 0; i < history->count; i++) {
        const char *name = history->names[i];
        float value = (float)history->values[epoch * history->count + i];
        if ((strncmp(name, "val_", 4) == 0) != validation || isnan(value))
            continue;
        sap_text one = {0}, tag = {0};
        sap_text_add(&tag, "epoch_%s", validation ? name + 4 : name);
        put_message(&one, 1, &tag);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        put_key(&one, 2, FIXED32);
        put_little(&one, bits, 4);
        put_message(&summary, 1, &one);
        sap_text_release(&tag);
        sap_text_release(&one);
    }
    if (summary.length > 0) {
        put_time(&event, history->ended[epoch]);
        put_key(&event, 2, VARINT);
        put_varint(&event, (uint64_t)(history->first + epoch));
        put_message(&event, 5, &summary);
        put_record(out, &event);
    }
    out->failed = out->failed || summary.failed;
    sap_text_release(&summary);
    sap_text_release(&event);
}

static sap_status append_to(const char *path, const sap_text *bytes, sap_error *err) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return sap_error_errno(err, path);
    sap_status status = sap_descriptor_write(fd, bytes->data, bytes->length) ? SAP_OK : sap_error_errno(err, path);
    if (close(fd) != 0 && status == SAP_OK)
        status = sap_error_errno(err, path);
    return status;
}

static sap_status write_file(const sap_history *history, const char *folder, bool validation, bool append,
                             sap_error *err) {
    sap_text path = {0}, bytes = {0};
    sap_text_add(&path, "%s/%s", folder, validation ? "validation" : "train");
    sap_status status = path.failed ? sap_error_memory(err, folder) : sap_folder_make(path.data, err);
    sap_text_add(&path, "/events.out.tfevents.sapwood");
    if (!append)
        put_version(&bytes, history->ended[0] - history->seconds[0]);
    for (int64_t e = append ? history->epochs - 1 : 0; e < history->epochs; e++)
        put_epoch(&bytes, history, e, validation);
    if (status == SAP_OK && (path.failed || bytes.failed))
        status = sap_error_memory(err, folder);
    if (status == SAP_OK && append)
        status = append_to(path.data, &bytes, err);
    else if (status == SAP_OK)
        status = sap_file_store(path.data, bytes.data, bytes.length, err);
    sap_text_release(&path);
    sap_text_release(&bytes);
    return status;
}

sap_status sap_history_events(const sap_history *history, const char *folder, bool append, sap_error *err) {
    SAP_TRY(write_file(history, folder, false, append, err));
    return sap_history_find(history, "val_loss") < 0 ? SAP_OK : write_file(history, folder, true, append, err);
}
