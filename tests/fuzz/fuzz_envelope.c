/* Input: the number of an RNTuple file, which envelope (header, footer, page list), then what that envelope holds instead of
 * its own. Checksums and locators are put right, and all columns are read. */
#include "fuzz_ntuple.h"

#include <stdlib.h>

enum { PREAMBLE = 8, CHECKSUM = 8 };

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 2 || size + PREAMBLE + CHECKSUM > FUZZ_ROOM)
        return;
    fuzz_ntuple file = fuzz_ntuple_copy(data[0]);
    int kind = 1 + data[1] % 3;
    sap_locator at = {file.file_size, size - 2 + PREAMBLE + CHECKSUM};
    uint8_t *envelope = file.data + at.offset;
    fuzz_put_le64(envelope, (uint64_t)kind | at.bytes << 16);
    memcpy(envelope + PREAMBLE, data + 2, size - 2);
    if (kind == SAP_ENVELOPE_HEADER) {
        file.header = at;
    } else if (kind == SAP_ENVELOPE_FOOTER) {
        file.footer = at;
    } else {
        uint8_t *link = file.data + file.footer.offset + file.page_list_link;
        uint32_t bytes = (uint32_t)at.bytes;
        file.page_list = at;
        fuzz_put_le64(link, at.bytes);
        memcpy(link + 8, &bytes, sizeof bytes);
        fuzz_put_le64(link + 12, at.offset);
    }
    fuzz_ntuple_seal(&file);
    sap_file *opened;
    sap_error error = {0};
    if (sap_file_open(fuzz_path(file.data, (size_t)(at.offset + at.bytes)), NULL, &opened, &error) != SAP_OK)
        abort(); /* the file is a good one */
    fuzz_read_file(opened);
    sap_file_close(opened);
    free(file.data);
}
