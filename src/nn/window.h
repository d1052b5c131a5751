/* Windows that slide along the steps of a sequence: what convolution and pooling share. */
#ifndef SAP_WINDOW_H
#define SAP_WINDOW_H

#include "nn_internal.h"

typedef enum sap_window_padding { SAP_WINDOW_VALID = 0, SAP_WINDOW_SAME, SAP_WINDOW_CAUSAL } sap_window_padding;

/* Output step t looks at the input steps t · stride - before + k · dilation, 0 <= k < size, of those that are there. */
typedef struct sap_window {
    int64_t size, stride, dilation;
    sap_window_padding padding;
} sap_window;

/* Reads `size_key`, "strides" (standard: 0 for the size), "dilation_rate", "padding" and "data_format". */
SAP_MUST_CHECK sap_status sap_window_parse(const sap_layer *layer, const json_t *config, const char *size_key,
                                           int64_t stride, sap_window *out, sap_error *err);
/* Steps of the output for so many of the input; an error for none, and for a number that is not known. */
SAP_MUST_CHECK sap_status sap_window_count(const sap_layer *layer, const sap_window *window, int64_t steps,
                                           int64_t *out, sap_error *err);

/* Steps that are missing before the first. */
static inline int64_t sap_window_before(const sap_window *w, int64_t steps, int64_t outputs) {
    int64_t span = (w->size - 1) * w->dilation + 1, missing = (outputs - 1) * w->stride + span - steps;
    if (w->padding == SAP_WINDOW_CAUSAL)
        return span - 1;
    return w->padding == SAP_WINDOW_SAME && missing > 0 ? missing / 2 : 0;
}

#endif
