/* Input: the number of a file, then the record of a tree (uncompressed) that it gets in place of its own; the tree is opened
 * and all its columns are read. */
#include "fuzz.h"

#include <stdlib.h>

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 1)
        return;
    const fuzz_template *base = fuzz_template_get(data[0]);
    size_t length;
    uint8_t *bytes = fuzz_template_extend(base, base->tree, data + 1, size - 1, &length);
    uint8_t *key = bytes + base->tree_key;
    fuzz_put32(key, (uint32_t)(length - base->size));
    fuzz_put32(key + FUZZ_OBJECT_BYTES, (uint32_t)(size - 1));
    fuzz_put32(key + FUZZ_SEEK, (uint32_t)base->size);
    fuzz_read_bytes(bytes, length);
    free(bytes);
}
