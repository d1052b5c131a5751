/* Input: a whole ROOT file; all columns of all its trees are read. */
#include "fuzz.h"

void fuzz_input(const uint8_t *data, size_t size) {
    fuzz_read_bytes(data, size);
}
