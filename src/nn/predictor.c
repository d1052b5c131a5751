/* Predictions one call after another, on the CPU or on a GPU. */
#include "cuda/cuda_run.h"
#include "nn_internal.h"

#include <stdlib.h>

enum { GPU_ROWS = 512 }; /* rows that a GPU takes at a time */

struct sap_predictor {
    sap_program *program; /* or: */
    sap_cuda *cuda;
};

sap_status sap_predictor_open(const sap_model *model, sap_device device, const sap_run *run, sap_predictor **out,
                              sap_error *err) {
    sap_predictor *p = calloc(1, sizeof *p);
    if (!p)
        return sap_error_memory(err, model->name);
    sap_status status = device == SAP_DEVICE_CUDA
                            ? sap_cuda_open(model, NULL, NULL, GPU_ROWS, SAP_CUDA_FLOAT32, NULL, &p->cuda, err)
                            : sap_program_open(model, SAP_PREDICT, NULL, NULL, run, &p->program, err);
    if (status != SAP_OK) {
        free(p);
        return status;
    }
    *out = p;
    return SAP_OK;
}

void sap_predictor_close(sap_predictor *predictor) {
    if (!predictor)
        return;
    sap_program_close(predictor->program);
    sap_cuda_close(predictor->cuda);
    free(predictor);
}

sap_status sap_predictor_run(sap_predictor *p, const sap_examples *examples, float *const *outputs, sap_error *err) {
    return p->cuda ? sap_cuda_predict(p->cuda, examples, outputs, err)
                   : sap_program_run(p->program, examples, 0, NULL, outputs, NULL, err);
}

sap_status sap_model_predict(const sap_model *model, const sap_examples *examples, const sap_run *run,
                             float *const *outputs, sap_error *err) {
    sap_predictor *predictor = NULL;
    SAP_TRY(sap_predictor_open(model, SAP_DEVICE_CPU, run, &predictor, err));
    sap_status status = sap_predictor_run(predictor, examples, outputs, err);
    sap_predictor_close(predictor);
    return status;
}
