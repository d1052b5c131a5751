/* Activations by their Keras names. */
#include "nn_internal.h"

#include <math.h>

static const struct {
    const char *name;
    sap_activation activation;
} table[] = {
    {"linear", {SAP_LINEAR, 0, 0, 0}},
    {"relu", {SAP_RELU, 0, 0, 0}},
    {"relu6", {SAP_RELU_GENERAL, 0, 0, 6}},
    {"leaky_relu", {SAP_RELU_GENERAL, 0.2F, 0, INFINITY}},
    {"elu", {SAP_ELU, 1, 0, 0}},
    {"selu", {SAP_SELU, 0, 0, 0}},
    {"sigmoid", {SAP_SIGMOID, 0, 0, 0}},
    {"hard_sigmoid", {SAP_HARD_SIGMOID, 0, 0, 0}},
    {"tanh", {SAP_TANH, 0, 0, 0}},
    {"softplus", {SAP_SOFTPLUS, 0, 0, 0}},
    {"softsign", {SAP_SOFTSIGN, 0, 0, 0}},
    {"exponential", {SAP_EXPONENTIAL, 0, 0, 0}},
    {"silu", {SAP_SILU, 0, 0, 0}},
    {"swish", {SAP_SILU, 0, 0, 0}},
    {"gelu", {SAP_GELU, 0, 0, 0}},
    {"celu", {SAP_ELU, 1, 0, 0}},
    {"hard_silu", {SAP_HARD_SILU, 0, 0, 0}},
    {"hard_swish", {SAP_HARD_SILU, 0, 0, 0}},
    {"mish", {SAP_MISH, 0, 0, 0}},
    {"log_sigmoid", {SAP_LOG_SIGMOID, 0, 0, 0}},
    {"squareplus", {SAP_SQUAREPLUS, 0, 0, 0}},
    {"sparse_plus", {SAP_SPARSE_PLUS, 0, 0, 0}},
    {"sparse_sigmoid", {SAP_SPARSE_SIGMOID, 0, 0, 0}},
    {"hard_tanh", {SAP_HARD_TANH, 0, 0, 0}},
    {"tanh_shrink", {SAP_TANH_SHRINK, 0, 0, 0}},
    {"soft_shrink", {SAP_SOFT_SHRINK, 0, 0, 0}},
    {"hard_shrink", {SAP_HARD_SHRINK, 0, 0, 0}},
    {"softmax", {SAP_SOFTMAX, 0, 0, 0}},
    {"log_softmax", {SAP_LOG_SOFTMAX, 0, 0, 0}},
};
enum { COUNT = sizeof table / sizeof *table };

static const char *name_at(const void *context, size_t index) {
    (void)context;
    return table[index].name;
}

void sap_log_softmax(int64_t rows, int width, const float *z, float *a) {
    for (int t = 0; t < width; t++) {
        float max = z[t], sum = 0;
        for (int64_t r = 1; r < rows; r++)
            max = z[r * width + t] > max ? z[r * width + t] : max;
        for (int64_t r = 0; r < rows; r++)
            sum += expf(z[r * width + t] - max);
        for (int64_t r = 0; r < rows; r++)
            a[r * width + t] = z[r * width + t] - max - logf(sum);
    }
}

void sap_log_softmax_gradient(int64_t rows, int width, const float *a, float *d) {
    for (int t = 0; t < width; t++) {
        float sum = 0;
        for (int64_t r = 0; r < rows; r++)
            sum += d[r * width + t];
        for (int64_t r = 0; r < rows; r++)
            d[r * width + t] -= expf(a[r * width + t]) * sum;
    }
}

sap_status sap_activation_parse(const json_t *config, const char *where, sap_activation *out, sap_error *err) {
    if (!config || json_is_null(config)) {
        *out = (sap_activation){.kind = SAP_LINEAR};
        return SAP_OK;
    }
    /* Keras writes functions as names, or as {"class_name": "function", "config": "relu"} */
    const char *name = json_string_value(config);
    if (!name)
        name = json_string_value(json_object_get(config, "config"));
    if (!name)
        name = json_string_value(json_object_get(config, "class_name"));
    if (!name)
        return sap_error_set(err, SAP_EFORMAT, "%s: activation is neither a name nor an object", where);
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(table[i].name, name) == 0) {
            *out = table[i].activation;
            return SAP_OK;
        }
    }
    char nearest[300];
    sap_text_nearest(name, COUNT, name_at, NULL, nearest, sizeof nearest);
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: activation \"%.100s\" is not supported%s", where, name, nearest);
}
