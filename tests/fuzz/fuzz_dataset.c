/* Input: dataset.json. */
#include "fuzz.h"

#include "dataset/dataset_internal.h"

void fuzz_input(const uint8_t *data, size_t size) {
    sap_info info = {0};
    sap_error error = {0};
    if (sap_info_load(fuzz_path(data, size), &info, &error) != SAP_OK)
        fuzz_check_error(&error);
    sap_info_release(&info);
}
