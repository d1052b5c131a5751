/* Input: the JSON that describes a network; its graph is made, without weights (how many it has is its own to say). */
#include "fuzz.h"

#include "nn/nn_internal.h"

#include <stdlib.h>

void fuzz_input(const uint8_t *data, size_t size) {
    sap_model *model = calloc(1, sizeof *model);
    sap_error error = {0};
    if (!model)
        abort();
    model->name = "input";
    model->config = sap_arena_text(&model->arena, (const char *)data, size);
    model->config_length = size;
    if (!model->config)
        abort();
    if (sap_graph_parse(model, &error) != SAP_OK)
        fuzz_check_error(&error);
    sap_model_close(model);
}
