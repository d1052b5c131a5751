/* Input: a `.keras` file (a zip of JSON and HDF5), or a whole HDF5 file, opened as a model. The checksums of stored members are put right, but for
 * that of the HDF5 file, which the HDF5 library may be given to parse: not the aim here. Whole HDF5 files are never given to it. */
#include "fuzz.h"

#include "base/cursor.h"
#include <sapwood/nn.h>

#include <libdeflate.h>
#include <stdlib.h>

enum { LOCAL = 30, CENTRAL = 46 };

/* On some damaged files libhdf5 loses a few hundred bytes of its own, with every handle closed. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

static void right_checksum(uint8_t *zip, size_t size, uint8_t *entry) {
    size_t at = sap_le32(entry + 42), stored = sap_le32(entry + 20);
    if (sap_le16(entry + 10) != 0 || at >= size || size - at < LOCAL)
        return;
    uint8_t *local = zip + at;
    size_t name = sap_le16(local + 26), header = LOCAL + name + sap_le16(local + 28);
    if (header > size - at || stored > size - at - header ||
        (name > 3 && memcmp(local + LOCAL + name - 3, ".h5", 3) == 0))
        return;
    uint32_t sum = libdeflate_crc32(0, local + header, stored);
    memcpy(entry + 16, &sum, sizeof sum);
    memcpy(local + 14, &sum, sizeof sum);
}

void fuzz_input(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    for (size_t at = 0; size - at >= CENTRAL; at++)
        if (memcmp(copy + at, "PK\1\2", 4) == 0)
            right_checksum(copy, size, copy + at);
    sap_model *model;
    sap_error error = {0};
    const char *path = fuzz_path(copy, size);
    bool packed = size >= 2 && memcmp(copy, "PK", 2) == 0, hdf5 = size >= 4 && memcmp(copy, "\x89HDF", 4) == 0;
    if (!packed && !hdf5) { /* JSON alone: target `model` */
        free(copy);
        return;
    }
    if (sap_model_open(path, 1, &model, &error) == SAP_OK)
        sap_model_close(model);
    else
        fuzz_check_error(&error);
    free(copy);
}
