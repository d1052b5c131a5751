/* Histograms of the features by class. */
#ifndef SAP_HISTOGRAMS_H
#define SAP_HISTOGRAMS_H

#include "pipeline_internal.h"

typedef struct sap_histograms {
    const sap_dataset *dataset; /* features and labels */
    size_t count;               /* features */
    float **values;             /* (count) kept values (rows, width); NULL for sequences */
    int32_t *label;
    int64_t rows;
} sap_histograms;

SAP_MUST_CHECK sap_status sap_histograms_init(const sap_dataset *dataset, sap_histograms *out, sap_error *err);
void sap_histograms_release(sap_histograms *h);
/* Takes up events while there is room. label: (batch->length). */
void sap_histograms_add(sap_histograms *h, const sap_batch *batch, const int32_t *label);
/* A new array, one object a value of each feature of fixed width. */
json_t *sap_histograms_describe(const sap_histograms *h);

#endif
