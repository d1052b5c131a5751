/* Input: the number of a file, then the streamer infos (a TList, uncompressed) that it gets in place of its own; what its
 * tree's columns are is compiled from them, and they are read. */
#include "fuzz.h"

#include <stdlib.h>

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 1)
        return;
    const fuzz_template *base = fuzz_template_get(data[0]);
    size_t length;
    uint8_t *bytes = fuzz_template_extend(base, base->streamer, data + 1, size - 1, &length);
    fuzz_put32(bytes + FUZZ_INFO, (uint32_t)base->size);
    fuzz_put32(bytes + FUZZ_INFO_BYTES, (uint32_t)(length - base->size));
    fuzz_read_bytes(bytes, length);
    free(bytes);
}
