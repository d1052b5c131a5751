/* Input: the size of a record in 4 bytes (little-endian), then its compressed blocks. Checksums of LZ4 blocks are put right. */
#include "fuzz.h"

#include "root/root_internal.h"

#include <stdlib.h>
#include <xxhash.h>

enum { MOST = 256 << 20, BLOCK = 9, CHECKSUM = 8 };

static void right_checksums(uint8_t *data, size_t length) {
    for (size_t at = 0; length - at >= BLOCK + CHECKSUM;) {
        size_t stored = (size_t)data[at + 3] | (size_t)data[at + 4] << 8 | (size_t)data[at + 5] << 16;
        if (stored < CHECKSUM || stored > length - at - BLOCK)
            return;
        if (data[at] == 'L') {
            uint64_t sum = __builtin_bswap64(XXH64(data + at + BLOCK + CHECKSUM, stored - CHECKSUM, 0));
            memcpy(data + at + BLOCK, &sum, sizeof sum);
        }
        at += BLOCK + stored;
    }
}

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 4)
        return;
    uint32_t object = sap_le32(data) % MOST;
    size_t length = size - 4;
    uint8_t *copy = malloc(length + 1);
    if (!copy)
        abort();
    memcpy(copy, data + 4, length);
    right_checksums(copy, length);
    sap_codec codec = {0};
    sap_error error = {0};
    (void)sap_codec_name(copy, length);
    if (sap_codec_check(copy, length, object, "input", 0, &error) == SAP_OK) {
        uint8_t *out = malloc(object ? object : 1);
        if (!out)
            abort();
        if (sap_codec_run(&codec, copy, length, out, object, "input", 0, &error) != SAP_OK)
            fuzz_check_error(&error);
        free(out);
    } else {
        fuzz_check_error(&error);
    }
    sap_codec_release(&codec);
    free(copy);
}
