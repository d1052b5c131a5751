/* Input: records, each a length in 2 bytes (little-endian) and a tf.train.Example; checksums are made for them. */
#include "fuzz.h"

#include "base/cursor.h"
#include "dataset/dataset_internal.h"

#include <stdlib.h>

static void put_le32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

void fuzz_input(const uint8_t *data, size_t size) {
    static sap_field item = {.name = "item", .type = SAP_FLOAT32};
    static sap_field integer = {.name = "item", .type = SAP_INT64};
    static sap_field pair = {.name = "item", .type = SAP_FLOAT32};
    static const sap_field fields[] = {
        {.name = "list", .type = SAP_LIST, .children = &item, .count = 1},
        {.name = "label", .type = SAP_INT32},
        {.name = "text", .type = SAP_STRING},
        {.name = "numbers", .type = SAP_LIST, .children = &integer, .count = 1},
        {.name = "pair", .type = SAP_FIXED_LIST, .size = 2, .children = &pair, .count = 1}};
    uint8_t *file = calloc(1, size * 9 + 16), *end = file;
    if (!file)
        abort();
    for (size_t at = 0; size - at >= 2;) {
        size_t length = sap_le16(data + at);
        at += 2;
        if (length > size - at)
            length = size - at;
        memcpy(end, &(uint64_t){length}, 8);
        put_le32(end + 8, sap_crc32c_masked(end, 8));
        memcpy(end + 12, data + at, length);
        put_le32(end + 12 + length, sap_crc32c_masked(end + 12, length));
        end += 16 + length;
        at += length;
    }
    sap_tfrecord_reader *reader;
    sap_error error = {0};
    if (sap_tfrecord_open(fuzz_path(file, (size_t)(end - file)), fields, 5, &reader, &error) != SAP_OK)
        abort();
    for (;;) {
        sap_batch batch = {0};
        sap_status status = sap_tfrecord_next(reader, &batch, &error);
        if (status != SAP_OK)
            fuzz_check_error(&error);
        if (status != SAP_OK || batch.length == 0)
            break;
        sap_batch_release(&batch);
    }
    sap_tfrecord_close(reader);
    free(file);
}
