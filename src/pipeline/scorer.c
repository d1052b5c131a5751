/* A trained network that scores features which come as columns of Arrow. */
#include "../dataset/dataset_internal.h"
#include "pipeline_internal.h"

#include <stdlib.h>

struct sap_scorer {
    sap_scoring scoring;
    const sap_run *run;
};

sap_status sap_scorer_open(const char *folder, const sap_run *run, sap_scorer **out, sap_error *err) {
    sap_scorer *scorer = calloc(1, sizeof *scorer);
    if (!scorer)
        return sap_error_memory(err, folder);
    sap_status status = sap_scoring_init(folder, SAP_DEVICE_CPU, run, &scorer->scoring, err);
    scorer->run = run;
    if (status == SAP_OK)
        *out = scorer;
    else
        free(scorer);
    return status;
}

void sap_scorer_close(sap_scorer *scorer) {
    if (!scorer)
        return;
    sap_scoring_release(&scorer->scoring);
    free(scorer);
}

int64_t sap_scorer_classes(const sap_scorer *scorer) {
    return scorer->scoring.classes;
}

const char *const *sap_scorer_inputs(const sap_scorer *scorer, size_t *count) {
    *count = sap_model_input_count(scorer->scoring.model);
    return scorer->scoring.inputs;
}

sap_status sap_scorer_run(sap_scorer *scorer, const struct ArrowSchema *schema, const struct ArrowArray *array,
                          bool ordered, float *scores, sap_error *err) {
    const sap_scoring *s = &scorer->scoring;
    sap_batch batch = {0};
    SAP_TRY(sap_features_import(s->dataset, schema, array, s->inputs, sap_model_input_count(s->model), &batch, err));
    sap_status status = batch.length > 0 ? sap_scoring_run(s, &batch, ordered, scorer->run, scores, err) : SAP_OK;
    sap_batch_release(&batch);
    return status;
}
