/* The losses by name, their targets, and an output's loss on a tile. Formulas and conventions are Keras 3.15's on TensorFlow. */
#include "nn_internal.h"

#include <ctype.h>
#include <math.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

typedef void loss_kernel(const sap_loss_tile *tile);
typedef enum smoothed { SMOOTHS_NOTHING, SMOOTHS_CLASSES, SMOOTHS_TO_HALF } smoothed;

typedef struct loss_kind {
    const char *name, *alias;
    bool crossentropy;
    smoothed smoothed;
    size_t kernel; /* its place in sap_loss_kernels */
} loss_kind;

#define KERNEL(name) offsetof(sap_loss_kernels, name)

static const loss_kind kinds[] = {
    [SAP_LOSS_CATEGORICAL_CROSSENTROPY] = {"categorical_crossentropy", "cce", true, SMOOTHS_CLASSES,
                                           KERNEL(categorical)},
    [SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY] = {"sparse_categorical_crossentropy", "scce", true, SMOOTHS_NOTHING,
                                                  KERNEL(sparse)},
    [SAP_LOSS_BINARY_CROSSENTROPY] = {"binary_crossentropy", "bce", true, SMOOTHS_TO_HALF, KERNEL(binary)},
    [SAP_LOSS_MEAN_SQUARED_ERROR] = {"mean_squared_error", "mse", false, SMOOTHS_NOTHING, KERNEL(squared)},
    [SAP_LOSS_MEAN_ABSOLUTE_ERROR] = {"mean_absolute_error", "mae", false, SMOOTHS_NOTHING, KERNEL(absolute)},
    [SAP_LOSS_HUBER] = {"huber", "huber_loss", false, SMOOTHS_NOTHING, KERNEL(huber)},
};

const char *sap_loss_name(sap_loss_kind kind) {
    return kind == SAP_LOSS_NONE ? "none" : kinds[kind].name;
}

bool sap_loss_takes_logits(sap_loss_kind kind) {
    return kind < SAP_LOSS_NONE && kinds[kind].crossentropy;
}

/* "CategoricalCrossentropy" and "categorical_crossentropy" are the same name. */
static bool same_name(const char *a, const char *b) {
    for (;; a++, b++) {
        a += *a == '_';
        b += *b == '_';
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
        if (!*a)
            return true;
    }
}

sap_status sap_loss_find(const char *name, sap_loss_kind *out, sap_error *err) {
    for (size_t i = 0; i < LENGTH(kinds); i++) {
        if (same_name(name, kinds[i].name) || same_name(name, kinds[i].alias)) {
            *out = (sap_loss_kind)i;
            return SAP_OK;
        }
    }
    return sap_error_set(
        err, SAP_EUNSUPPORTED,
        "there is no loss \"%s\"; there are categorical_crossentropy, sparse_categorical_crossentropy, "
        "binary_crossentropy, mean_squared_error, mean_absolute_error and huber",
        name);
}

sap_status sap_loss_check(const sap_loss *loss, sap_loss *out, sap_error *err) {
    if ((unsigned)loss->kind > SAP_LOSS_NONE)
        return sap_error_set(err, SAP_EARGUMENT, "no such loss: %d", (int)loss->kind);
    *out = *loss;
    if (out->delta == 0)
        out->delta = 1;
    if (out->weight == 0)
        out->weight = 1;
    if (loss->kind == SAP_LOSS_NONE)
        return SAP_OK;
    const char *name = kinds[loss->kind].name;
    if (!(out->label_smoothing >= 0 && out->label_smoothing <= 1))
        return sap_error_set(err, SAP_EARGUMENT, "%s: a label smoothing of %g; it goes from 0 to 1", name,
                             out->label_smoothing);
    if (out->label_smoothing != 0 && kinds[loss->kind].smoothed == SMOOTHS_NOTHING)
        return sap_error_set(err, SAP_EARGUMENT, "%s has no label smoothing", name);
    if (out->from_logits && !kinds[loss->kind].crossentropy)
        return sap_error_set(err, SAP_EARGUMENT, "%s is not taken from logits", name);
    if (!(out->delta > 0 && isfinite(out->delta) && isfinite(out->weight)))
        return sap_error_set(err, SAP_EARGUMENT, "%s: delta %g, weight %g", name, out->delta, out->weight);
    for (int32_t i = 0; out->class_weight && i < out->class_count; i++)
        if (!(out->class_weight[i] >= 0 && isfinite(out->class_weight[i])))
            return sap_error_set(err, SAP_EARGUMENT, "the weight of class %d is %g", (int)i, out->class_weight[i]);
    return SAP_OK;
}

sap_status sap_loss_examples(const sap_loss *loss, const sap_examples *examples, int32_t output, int64_t values,
                             int64_t steps, const char *where, sap_error *err) {
    if (loss->kind == SAP_LOSS_NONE)
        return SAP_OK;
    if (loss->class_weight && steps > 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: class weights are for an output without time steps", where);
    if (examples->targets == 0) {
        if (!examples->label)
            return sap_error_set(err, SAP_EDATA, "%s: the examples have neither labels nor targets", where);
        if (output > 0 || steps > 1)
            return sap_error_set(err, SAP_EDATA, "%s: labels are for one output without time steps; it needs targets",
                                 where);
        return SAP_OK;
    }
    if (output >= examples->targets)
        return sap_error_set(err, SAP_EDATA, "%s: the examples have targets for %d outputs", where,
                             (int)examples->targets);
    int64_t found = examples->target_values[output];
    bool numbers = loss->kind == SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY;
    if (found != steps * (numbers ? 1 : values) && !(kinds[loss->kind].crossentropy && found == steps))
        return sap_error_set(err, SAP_ETYPE, "%s: %s takes %lld targets a row, the examples have %lld", where,
                             kinds[loss->kind].name, (long long)(steps * (numbers ? 1 : values)), (long long)found);
    return SAP_OK;
}

/* ---- Targets -------------------------------------------------------------------------------------------- */

/* Writes the target of one step: a number, or ones and zeros for a class number. */
static sap_status load_class(const sap_loss_call *call, double number, int64_t row, float *to, sap_error *err) {
    if (call->values == 1 && call->loss->kind != SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY) {
        *to = (float)number;
        return SAP_OK;
    }
    if (!(number >= 0 && number < (double)call->values && number == floor(number)))
        return sap_error_set(err, SAP_EDATA, "row %lld of the batch has the label %g; the model has %lld outputs",
                             (long long)row, number, (long long)call->values);
    for (int64_t v = 0; v < call->values; v++)
        to[v * call->width] = (double)v == number ? 1.0F : 0.0F;
    return SAP_OK;
}

/* Of a column that is zero. */
static sap_status load_label(const sap_loss_call *call, int32_t label, int64_t row, float *to, sap_error *err) {
    if (label < 0)
        return sap_error_set(err, SAP_EDATA, "row %lld of the batch has the label %d", (long long)row, (int)label);
    if (call->values == 1 || label >= call->values)
        return load_class(call, label, row, to, err);
    to[label * call->width] = 1;
    return SAP_OK;
}

static sap_status load_targets(const sap_loss_call *call, const sap_examples *examples, int32_t output, int64_t row,
                               float *to, sap_error *err) {
    if (examples->targets == 0)
        return load_label(call, examples->label[row], row, to, err);
    int64_t count = examples->target_values[output], all = call->steps * call->values;
    const float *from = examples->y[output] + row * count;
    if (count == all && call->loss->kind != SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY) {
        for (int64_t v = 0; v < all; v++)
            to[v * call->width] = from[v];
        return SAP_OK;
    }
    for (int64_t s = 0; s < call->steps; s++)
        SAP_TRY(load_class(call, (double)from[s], row, to + s * call->values * call->width, err));
    return SAP_OK;
}

static sap_status class_weight(const sap_loss_call *call, int column, double *out, sap_error *err) {
    const float *target = call->target + column;
    int64_t width = call->width, best = 0;
    for (int64_t v = 1; v < call->values; v++)
        best = target[v * width] > target[best * width] ? v : best;
    if (call->values == 1)
        best = target[0] > 0 ? (int64_t)target[0] : 0;
    if (best >= call->loss->class_count)
        return sap_error_set(err, SAP_EARGUMENT, "class %lld has no class weight; there are %d", (long long)best,
                             (int)call->loss->class_count);
    *out = call->loss->class_weight[best];
    return SAP_OK;
}

sap_status sap_loss_load(const sap_loss_call *call, const sap_examples *examples, int32_t output, const int64_t *row,
                         sap_error *err) {
    if (call->loss->kind == SAP_LOSS_NONE)
        return SAP_OK;
    memset(call->target, 0, (size_t)(call->steps * call->values * call->width) * sizeof *call->target);
    memset(call->weight, 0, (size_t)call->width * sizeof *call->weight);
    for (int t = 0; t < call->rows; t++) {
        SAP_TRY(load_targets(call, examples, output, row[t], call->target + t, err));
        double weight = examples->weight ? (double)examples->weight[row[t]] : 1, factor = 1;
        if (call->loss->class_weight)
            SAP_TRY(class_weight(call, t, &factor, err));
        call->weight[t] = (float)(weight * factor);
    }
    return SAP_OK;
}

/* ---- A tile --------------------------------------------------------------------------------------------- */

/* Keras' "accuracy": binary for one value, else whether output and target are largest at the same place. */
static void find_correct(const sap_loss_call *call, const float *y, const float *target, bool *correct) {
    int32_t found[SAP_TILE], wanted[SAP_TILE];
    if (call->values > 1) {
        call->kernels->losses->largest(call->values, call->width, y, found);
        call->kernels->losses->largest(call->values, call->width, target, wanted);
        for (int t = 0; t < call->rows; t++)
            correct[t] = found[t] == wanted[t];
        return;
    }
    float threshold = call->logits == SAP_SIGMOID ? 0 : 0.5F;
    for (int t = 0; t < call->rows; t++) /* the softmax of a single value is 1 */
        correct[t] = (call->logits == SAP_SOFTMAX || y[t] > threshold ? 1.0F : 0.0F) == target[t];
}

/* How much of the target is kept and what every value gets. */
static void smooth(const sap_loss_call *call, sap_loss_tile *tile) {
    double smoothing = call->loss->label_smoothing;
    double parts = kinds[call->loss->kind].smoothed == SMOOTHS_CLASSES ? (double)call->values : 2;
    tile->keep = (float)(1 - smoothing);
    tile->share = (float)(smoothing / parts);
}

static loss_kernel *kernel_of(const sap_loss_call *call) {
    loss_kernel *kernel;
    memcpy(&kernel, (const char *)call->kernels->losses + kinds[call->loss->kind].kernel, sizeof kernel);
    return kernel;
}

void sap_loss_run(sap_loss_call *call) {
    int64_t step_values = call->values * call->width;
    call->sums = (sap_loss_sums){0};
    if (call->loss->kind == SAP_LOSS_NONE) {
        if (call->dy)
            memset(call->dy, 0, (size_t)(call->steps * step_values) * sizeof *call->dy);
        return;
    }
    loss_kernel *kernel = kernel_of(call);
    float factor[SAP_TILE], loss[SAP_TILE];
    bool correct[SAP_TILE];
    float scale = (float)(call->scale * call->loss->weight);
    sap_loss_tile tile = {
        .values = call->values,
        .width = call->width,
        .from_logits = call->logits != SAP_LINEAR || call->loss->from_logits,
        .delta = (float)call->loss->delta,
        .factor = factor,
        .loss = loss,
    };
    smooth(call, &tile);
    for (int64_t s = 0; s < call->steps; s++) {
        const uint8_t *mask = call->mask ? call->mask + s * call->width : NULL;
        for (int t = 0; t < call->width; t++)
            factor[t] = mask && !mask[t] ? 0 : call->weight[t] * scale;
        tile.y = call->y + s * step_values;
        tile.target = call->target + s * step_values;
        tile.dy = call->dy ? call->dy + s * step_values : NULL;
        kernel(&tile);
        find_correct(call, tile.y, tile.target, correct);
        for (int t = 0; t < call->rows; t++) {
            if (mask && !mask[t])
                continue;
            call->sums.loss += (double)call->weight[t] * (double)loss[t];
            call->sums.count++;
            call->sums.correct += correct[t];
        }
    }
}
