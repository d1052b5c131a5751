/* What test_keras_parity.py compares with Keras: runs a model on raw arrays and writes what it gives.
 *
 *     parity_driver FOLDER MODEL ROWS BATCH STEPS train|test
 *
 * Reads FOLDER/MODEL.keras, which says optimizer and losses, the inputs x0.f32, x1.f32, … (ROWS rows each), where
 * there is x0.offsets also x0.ragged (the same steps without padding), and the targets y0.f32, …
 * Writes, each beginning with MODEL and a dot: outputs0.f32, … of all rows and ragged0.f32, … from the ragged inputs;
 * gradients.f32 of the loss of the first BATCH rows; losses.f64 of STEPS steps over consecutive batches, begun anew where
 * the rows end; trained0.f32, … after those; the model as same.keras before and saved.keras after them.
 * train: layers run as in training, but a dropout of 0 is the model's own business.
 */
#include "nn/nn_internal.h"

#include <stdlib.h>

enum { ENDS = 16 };

static sap_error error;
static const char *folder, *name;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "parity_driver: %s\n", error.message);
        exit(1);
    }
}

static char *path_of(const char *before, const char *what, int32_t number, const char *end) {
    static char path[4096];
    if (number < 0)
        (void)snprintf(path, sizeof path, "%s/%s%s%s", folder, before, what, end);
    else
        (void)snprintf(path, sizeof path, "%s/%s%s%d%s", folder, before, what, number, end);
    return path;
}

static const char *own(void) {
    static char before[200];
    (void)snprintf(before, sizeof before, "%s.", name);
    return before;
}

static void *read_all(const char *what, int32_t number, const char *end, size_t *bytes) {
    char *data = NULL;
    must(sap_file_load(path_of("", what, number, end), (size_t)1 << 30, &data, bytes, &error));
    return data;
}

static void write_all(const char *what, int32_t number, const char *end, const void *data, size_t bytes) {
    must(sap_file_store(path_of(own(), what, number, end), data, bytes, &error));
}

/* ---- Examples ------------------------------------------------------------------------------------------- */

/* Arrays of all rows, as files have them. */
typedef struct arrays {
    int64_t rows;
    int32_t inputs, targets;
    float *x[ENDS], *ragged[ENDS], *y[ENDS];
    int64_t *offsets[ENDS], values[ENDS], step_values[ENDS], target_values[ENDS];
    bool any_ragged;
} arrays;

static void read_arrays(arrays *a, const sap_model *model, int64_t rows) {
    *a = (arrays){.rows = rows,
                  .inputs = (int32_t)sap_model_input_count(model),
                  .targets = (int32_t)sap_model_output_count(model)};
    size_t bytes;
    for (int32_t i = 0; i < a->inputs; i++) {
        const sap_tensor_info *info = sap_model_input(model, (size_t)i);
        a->x[i] = read_all("x", i, ".f32", &bytes);
        a->values[i] = (int64_t)(bytes / sizeof(float)) / rows;
        a->step_values[i] = info->shape[info->rank - 1];
        if (!sap_path_exists(path_of("", "x", i, ".offsets")))
            continue;
        a->offsets[i] = read_all("x", i, ".offsets", &bytes);
        a->ragged[i] = read_all("x", i, ".ragged", &bytes);
        a->any_ragged = true;
    }
    for (int32_t o = 0; o < a->targets; o++) {
        a->y[o] = read_all("y", o, ".f32", &bytes);
        a->target_values[o] = (int64_t)(bytes / sizeof(float)) / rows;
    }
}

static void free_arrays(arrays *a) {
    for (int i = 0; i < ENDS; i++) {
        free(a->x[i]);
        free(a->ragged[i]);
        free(a->y[i]);
        free(a->offsets[i]);
    }
}

/* Rows [first, first + count) of the arrays, and the lists that stand behind `examples`. */
typedef struct rows_of {
    sap_examples examples;
    const float *x[ENDS], *y[ENDS];
    const int64_t *offsets[ENDS];
    int64_t *own[ENDS], values[ENDS];
} rows_of;

static void take_rows(rows_of *r, const arrays *a, int64_t first, int64_t count, bool ragged) {
    *r = (rows_of){.examples = {.rows = count, .inputs = a->inputs, .targets = a->targets}};
    for (int32_t i = 0; i < a->inputs; i++) {
        r->x[i] = a->x[i] + first * a->values[i];
        r->values[i] = a->values[i];
        if (!ragged || !a->offsets[i])
            continue;
        r->own[i] = calloc((size_t)count + 1, sizeof *r->own[i]);
        for (int64_t k = 0; k <= count; k++)
            r->own[i][k] = a->offsets[i][first + k] - a->offsets[i][first];
        r->offsets[i] = r->own[i];
        r->x[i] = a->ragged[i] + a->offsets[i][first] * a->step_values[i];
        r->values[i] = a->step_values[i];
    }
    for (int32_t o = 0; o < a->targets; o++)
        r->y[o] = a->y[o] + first * a->target_values[o];
    r->examples.x = r->x;
    r->examples.values = r->values;
    r->examples.offsets = ragged && a->any_ragged ? r->offsets : NULL;
    r->examples.y = r->y;
    r->examples.target_values = a->target_values;
}

static void free_rows(rows_of *r) {
    for (int i = 0; i < ENDS; i++)
        free(r->own[i]);
}

/* ---- Running -------------------------------------------------------------------------------------------- */

static void predict(const sap_model *model, const arrays *a, bool ragged, const char *what) {
    float *outputs[ENDS] = {0};
    int64_t values[ENDS];
    rows_of r;
    take_rows(&r, a, 0, a->rows, ragged);
    for (int32_t o = 0; o < a->targets; o++) {
        const sap_tensor_info *info = sap_model_output(model, (size_t)o);
        values[o] = a->rows;
        for (int32_t d = 0; d < info->rank; d++)
            values[o] *= info->shape[d];
        outputs[o] = calloc((size_t)values[o], sizeof(float));
    }
    must(sap_model_predict(model, &r.examples, NULL, outputs, &error));
    for (int32_t o = 0; o < a->targets; o++) {
        write_all(what, o, ".f32", outputs[o], (size_t)values[o] * sizeof(float));
        free(outputs[o]);
    }
    free_rows(&r);
}

static void train(sap_model *model, const arrays *a, int64_t batch, int64_t steps, sap_mode mode) {
    const sap_training_config *config = sap_model_training_config(model);
    if (!config || config->unknown)
        must(sap_error_set(&error, SAP_EARGUMENT, "%s", config ? config->unknown : "the model is not compiled"));
    if (model->optimizer.iteration == 0) {
        sap_optimizer_release(&model->optimizer);
        must(sap_optimizer_init(&model->optimizer, &config->optimizer, model->trainable_count, NULL, 0, &error));
    }
    sap_program *program = NULL;
    must(sap_program_open(model, mode, config->losses, NULL, NULL, &program, &error));
    float *gradients = calloc((size_t)model->trainable_count + 1, sizeof *gradients);
    double *losses = calloc((size_t)steps, sizeof *losses);
    for (int64_t step = 0; step < steps; step++) {
        rows_of r;
        sap_batch_result result;
        take_rows(&r, a, step * batch % a->rows, batch, true);
        must(sap_program_run(program, &r.examples, 0, gradients, NULL, &result, &error));
        for (int32_t o = 0; o < a->targets; o++)
            losses[step] += config->losses[o].weight * sap_loss_mean(&result.outputs[o]);
        losses[step] += sap_penalty_add(model, gradients) + result.activity;
        if (step == 0)
            write_all("gradients", -1, ".f32", gradients, (size_t)model->trainable_count * sizeof *gradients);
        must(sap_optimizer_step(&model->optimizer, sap_kernels_best(), NULL, gradients, model->values, &error));
        must(sap_constraint_apply(model, &error));
        free_rows(&r);
    }
    write_all("losses", -1, ".f64", losses, (size_t)steps * sizeof *losses);
    free(losses);
    free(gradients);
    sap_program_close(program);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        (void)fprintf(stderr, "usage: parity_driver FOLDER MODEL ROWS BATCH STEPS train|test\n");
        return 2;
    }
    folder = argv[1];
    name = argv[2];
    int64_t rows = strtoll(argv[3], NULL, 10), batch = strtoll(argv[4], NULL, 10), steps = strtoll(argv[5], NULL, 10);
    sap_model *model = NULL;
    must(sap_model_open(path_of(name, "", -1, ".keras"), 0, &model, &error));
    if (sap_model_input_count(model) > ENDS || sap_model_output_count(model) > ENDS || rows % batch != 0)
        return 2;
    arrays a;
    read_arrays(&a, model, rows);
    predict(model, &a, false, "outputs");
    if (a.any_ragged)
        predict(model, &a, true, "ragged");
    must(sap_model_write(model, path_of(own(), "same", -1, ".keras"), &error));
    if (steps > 0) {
        train(model, &a, batch, steps, strcmp(argv[6], "train") == 0 ? SAP_TRAIN : SAP_DIFFERENTIATE);
        must(sap_model_write(model, path_of(own(), "saved", -1, ".keras"), &error));
        predict(model, &a, false, "trained");
    }
    free_arrays(&a);
    sap_model_close(model);
    return 0;
}
