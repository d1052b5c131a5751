/* Input: a whole ROOT file; its header, directories and keys are read, and the records of the keys are loaded. */
#include "fuzz.h"

#include "root/root_internal.h"

#include <stdlib.h>

void fuzz_input(const uint8_t *data, size_t size) {
    sap_file *file;
    sap_error error = {0};
    if (sap_file_open(fuzz_path(data, size), NULL, &file, &error) != SAP_OK) {
        fuzz_check_error(&error);
        return;
    }
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        sap_record record;
        uint8_t *object;
        if (sap_record_load(file, key->offset, key->stored_bytes, file->name, &record, &object, &error) == SAP_OK)
            free(object);
        else
            fuzz_check_error(&error);
    }
    sap_file_close(file);
}
