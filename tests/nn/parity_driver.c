/* What test_keras_parity.py compares with Keras: runs a model on raw arrays and writes what it gives.
 *
 *     parity_driver MODEL.keras FOLDER ROWS BATCH STEPS adam|sgd|nesterov
 *
 * Reads FOLDER/x0.f32, x1.f32, … (ROWS rows each) and label.i32. Writes outputs.f32 of all rows, gradients.f32 of
 * the mean loss of the first BATCH rows, losses.f64 of STEPS steps over consecutive batches, the weights in
 * between them as saved.keras (after the steps) and same.keras (before), and evaluation.f64: accuracy, loss and
 * the AUC of each class.
 */
#include "nn/nn_internal.h"

#include <stdlib.h>

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "parity_driver: %s\n", error.message);
        exit(1);
    }
}

static void *read_all(const char *folder, const char *name, size_t bytes) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    char *data = NULL;
    size_t length = 0;
    must(sap_file_load(path, (size_t)1 << 30, &data, &length, &error));
    if (length != bytes)
        must(sap_error_set(&error, SAP_EDATA, "%s: %zu bytes, %zu expected", path, length, bytes));
    return data;
}

static void write_all(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    must(sap_file_store(path, data, bytes, &error));
}

static void save(const sap_model *model, const char *folder, const char *name) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    must(sap_model_write(model, path, &error));
}

/* Rows [first, first + count) of the examples. */
static sap_examples part(const sap_examples *all, int64_t first, int64_t count, const float **x) {
    sap_examples out = *all;
    for (int32_t i = 0; i < all->inputs; i++)
        x[i] = all->x[i] + first * all->values[i];
    out.rows = count;
    out.x = x;
    out.label = all->label + first;
    return out;
}

static void train(sap_model *model, const sap_examples *all, int64_t batch, int64_t steps, const char *kind,
                  const char *folder) {
    sap_optimizer settings = {.kind = SAP_OPTIMIZER_ADAM, .learning_rate = 0.01};
    if (strcmp(kind, "adam") != 0)
        settings = (sap_optimizer){.kind = SAP_OPTIMIZER_SGD, .learning_rate = 0.05, .momentum = 0.9};
    settings.nesterov = strcmp(kind, "nesterov") == 0;
    must(sap_optimizer_check(&settings, &settings, &error));
    must(sap_optimizer_init(&model->optimizer, &settings, model->trainable_count, &error));
    sap_program *program = NULL;
    must(sap_program_open(model, SAP_DIFFERENTIATE, NULL, NULL, &program, &error));
    float *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    double *losses = calloc((size_t)steps, sizeof *losses);
    for (int64_t step = 0; step < steps; step++) {
        const float *x[16];
        sap_examples examples = part(all, step * batch, batch, x);
        sap_batch_result result;
        must(sap_program_run(program, &examples, 0, gradients, NULL, &result, &error));
        losses[step] = result.loss / (double)batch;
        sap_optimizer_step(&model->optimizer, sap_kernels_best(), model->trainable_count, gradients, model->values);
    }
    write_all(folder, "losses.f64", losses, (size_t)steps * sizeof *losses);
    free(losses);
    free(gradients);
    sap_program_close(program);
}

static void evaluate(const float *scores, const sap_examples *all, int32_t classes, const char *folder) {
    sap_evaluation evaluation;
    must(sap_evaluation_init(scores, all->label, all->rows, classes, &evaluation, &error));
    double *figures = calloc((size_t)classes + 2, sizeof *figures);
    figures[0] = evaluation.accuracy;
    figures[1] = evaluation.loss;
    memcpy(figures + 2, evaluation.auc, (size_t)classes * sizeof *figures);
    write_all(folder, "evaluation.f64", figures, ((size_t)classes + 2) * sizeof *figures);
    free(figures);
    sap_evaluation_release(&evaluation);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        (void)fprintf(stderr, "usage: parity_driver MODEL FOLDER ROWS BATCH STEPS OPTIMIZER\n");
        return 2;
    }
    const char *folder = argv[2];
    int64_t rows = strtoll(argv[3], NULL, 10), batch = strtoll(argv[4], NULL, 10), steps = strtoll(argv[5], NULL, 10);
    sap_model *model = NULL;
    must(sap_model_open(argv[1], 0, &model, &error));
    const float *x[16];
    int64_t values[16];
    int32_t inputs = (int32_t)sap_model_input_count(model);
    if (inputs > 16 || steps * batch > rows)
        return 2;
    for (int32_t i = 0; i < inputs; i++) {
        const sap_tensor_info *info = sap_model_input(model, (size_t)i);
        char name[20];
        values[i] = 1;
        for (int32_t d = 0; d < info->rank; d++)
            values[i] *= info->shape[d];
        (void)snprintf(name, sizeof name, "x%d.f32", i);
        x[i] = read_all(folder, name, (size_t)(rows * values[i]) * sizeof(float));
    }
    int32_t *label = read_all(folder, "label.i32", (size_t)rows * sizeof *label);
    sap_examples all = {.rows = rows, .inputs = inputs, .x = x, .values = values, .label = label};

    int64_t classes = sap_model_output(model, 0)->shape[0];
    float *scores = calloc((size_t)(rows * classes), sizeof *scores);
    must(sap_model_predict(model, &all, NULL, &scores, &error));
    write_all(folder, "outputs.f32", scores, (size_t)(rows * classes) * sizeof *scores);
    evaluate(scores, &all, (int32_t)classes, folder);
    save(model, folder, "same.keras");

    float *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    double loss = 0;
    const float *first[16];
    sap_examples head = part(&all, 0, batch, first);
    must(sap_model_gradient(model, &head, SAP_LOSS_CATEGORICAL_CROSSENTROPY, NULL, &loss, gradients, &error));
    write_all(folder, "gradients.f32", gradients, (size_t)model->trainable_count * sizeof *gradients);

    train(model, &all, batch, steps, argv[6], folder);
    save(model, folder, "saved.keras");
    must(sap_model_predict(model, &all, NULL, &scores, &error));
    write_all(folder, "trained.f32", scores, (size_t)(rows * classes) * sizeof *scores);

    for (int32_t i = 0; i < inputs; i++)
        free((void *)(uintptr_t)x[i]);
    free(label);
    free(scores);
    free(gradients);
    sap_model_close(model);
    return 0;
}
