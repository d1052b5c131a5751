/* Input: a whole ROOT file; all columns of all its trees are read. */
#include "fuzz.h"

void fuzz_input(const uint8_t *data, size_t size) {
    sap_file *file;
    sap_error error = {0};
    if (sap_file_open(fuzz_path(data, size), NULL, &file, &error) != SAP_OK) {
        fuzz_check_error(&error);
        return;
    }
    fuzz_read_file(file);
    sap_file_close(file);
}
