/* Input: a YAML file. */
#include "fuzz.h"

#include "pipeline/pipeline_internal.h"

void fuzz_input(const uint8_t *data, size_t size) {
    json_t *json = NULL;
    sap_error error = {0};
    if (sap_yaml_load(fuzz_path(data, size), &json, &error) != SAP_OK)
        fuzz_check_error(&error);
    else if (!json)
        __builtin_trap();
    json_decref(json);
}
