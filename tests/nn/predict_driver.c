/* What test_compile.py compares compiled networks with: predictions of raw arrays by the library.
 *
 *     predict_driver MODEL FOLDER ROWS
 *
 * Reads FOLDER/x0.f32, x1.f32, … (ROWS rows each; the steps of all rows where there is an x0.i64, the first step of
 * each row and their number) and writes y0.f32, ….
 */
#include "nn/nn_internal.h"

#include <stdlib.h>

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "predict_driver: %s\n", error.message);
        exit(1);
    }
}

static void *read_all(const char *folder, const char *format, int32_t index, size_t *length) {
    char path[4096];
    int used = snprintf(path, sizeof path, "%s/", folder);
    (void)snprintf(path + used, sizeof path - (size_t)used, format, index);
    if (!sap_path_exists(path))
        return NULL;
    char *data = NULL;
    must(sap_file_load(path, (size_t)1 << 30, &data, length, &error));
    return data;
}

/* Numbers of all dimensions from `first`. */
static int64_t values_of(const sap_tensor_info *info, int32_t first) {
    int64_t values = 1;
    for (int32_t i = first; i < info->rank; i++)
        values *= info->shape[i];
    return values;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        (void)fprintf(stderr, "usage: predict_driver MODEL FOLDER ROWS\n");
        return 2;
    }
    enum { MOST = 16 };
    const float *x[MOST];
    float *y[MOST];
    const int64_t *offsets[MOST];
    int64_t values[MOST];
    sap_model *model = NULL;
    must(sap_model_open(argv[1], 0, &model, &error));
    sap_examples examples = {.rows = strtoll(argv[3], NULL, 10), .x = x, .values = values, .offsets = offsets};
    examples.inputs = (int32_t)sap_model_input_count(model);
    size_t outputs = sap_model_output_count(model), length = 0;
    if (examples.inputs > MOST || outputs > MOST)
        return 2;
    for (int32_t i = 0; i < examples.inputs; i++) {
        offsets[i] = read_all(argv[2], "x%d.i64", i, &length);
        values[i] = values_of(sap_model_input(model, (size_t)i), offsets[i] ? 1 : 0);
        x[i] = read_all(argv[2], "x%d.f32", i, &length);
        int64_t steps = offsets[i] ? offsets[i][examples.rows] : examples.rows;
        if (length != (size_t)(steps * values[i]) * sizeof(float))
            must(sap_error_set(&error, SAP_EDATA, "x%d.f32: %zu bytes", i, length));
    }
    for (size_t o = 0; o < outputs; o++)
        y[o] = malloc((size_t)(examples.rows * values_of(sap_model_output(model, o), 0)) * sizeof(float));
    must(sap_model_predict(model, &examples, NULL, y, &error));
    for (size_t o = 0; o < outputs; o++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/y%zu.f32", argv[2], o);
        must(sap_file_store(
            path, y[o], (size_t)(examples.rows * values_of(sap_model_output(model, o), 0)) * sizeof(float), &error));
        free(y[o]);
    }
    for (int32_t i = 0; i < examples.inputs; i++) {
        free((void *)(uintptr_t)x[i]);
        free((void *)(uintptr_t)offsets[i]);
    }
    sap_model_close(model);
    return 0;
}
