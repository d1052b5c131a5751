/* What weights add to the loss (l1, l2), and the constraints that they obey after each step. Formulas are Keras 3.15's. */
#include "nn_internal.h"

#include <math.h>
#include <stdlib.h>

double sap_penalty_add(const sap_model *model, float *gradients) {
    double penalty = 0;
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_layer_weight *weight = model->weight_of[i];
        if (!model->weights[i].trainable || (weight->l1 == 0 && weight->l2 == 0))
            continue;
        const float *w = model->values + weight->offset;
        float *g = gradients ? gradients + weight->offset : NULL;
        double absolute = 0, squares = 0;
        for (int64_t k = 0; k < sap_shape_values(&weight->shape); k++) {
            double value = (double)w[k];
            absolute += fabs(value);
            squares += value * value;
            if (g)
                g[k] += (float)(weight->l1 * (value > 0 ? 1 : value < 0 ? -1 : 0) + 2 * weight->l2 * value);
        }
        penalty += weight->l1 * absolute + weight->l2 * squares;
    }
    return penalty;
}

/* ---- Constraints ---------------------------------------------------------------------------------------- */

/* What a weight array of that norm is multiplied by. */
static double factor_of(const sap_constraint *c, double norm) {
    const double epsilon = 1e-7;
    double wanted = 1;
    if (c->kind == SAP_CONSTRAINT_MAX_NORM)
        wanted = fmin(norm, c->most);
    else if (c->kind == SAP_CONSTRAINT_MIN_MAX_NORM)
        wanted = c->rate * fmin(fmax(norm, c->least), c->most) + (1 - c->rate) * norm;
    return wanted / (epsilon + norm);
}

/* Number of the norm that element k of the array belongs to: its place among the axes that norms are not taken along. */
static int64_t norm_of(const sap_shape *shape, uint32_t axes, int64_t k) {
    int64_t place = 0, step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        int64_t at = k % shape->dims[d];
        k /= shape->dims[d];
        if (axes >> d & 1)
            continue;
        place += at * step;
        step *= shape->dims[d];
    }
    return place;
}

static void constrain_norms(const sap_constraint *c, const sap_shape *shape, float *w, double *norms) {
    int64_t count = sap_shape_values(shape);
    memset(norms, 0, (size_t)count * sizeof *norms);
    for (int64_t k = 0; k < count; k++)
        norms[norm_of(shape, c->axes, k)] += (double)w[k] * (double)w[k];
    for (int64_t k = 0; k < count; k++)
        w[k] *= (float)factor_of(c, sqrt(norms[norm_of(shape, c->axes, k)]));
}

sap_status sap_constraint_apply(const sap_model *model, sap_error *err) {
    sap_space norms = {0};
    sap_status status = SAP_OK;
    for (int32_t i = 0; status == SAP_OK && i < model->weight_count; i++) {
        const sap_layer_weight *weight = model->weight_of[i];
        const sap_constraint *c = &weight->constraint;
        float *w = model->values + weight->offset;
        int64_t count = sap_shape_values(&weight->shape);
        if (c->kind == SAP_CONSTRAINT_NONE || !model->weights[i].trainable)
            continue;
        if (c->kind == SAP_CONSTRAINT_NON_NEGATIVE) {
            for (int64_t k = 0; k < count; k++)
                w[k] = w[k] < 0 ? 0 : w[k];
        } else if (sap_space_reserve(&norms, (size_t)count * sizeof(double))) {
            constrain_norms(c, &weight->shape, w, (double *)(void *)norms.data);
        } else {
            status = sap_error_memory(err, model->name);
        }
    }
    sap_space_release(&norms);
    return status;
}

bool sap_model_is_plain(const sap_model *model) {
    bool plain = true;
    for (int32_t i = 0; i < model->weight_count; i++) {
        const sap_layer_weight *weight = model->weight_of[i];
        plain = plain && (!model->weights[i].trainable ||
                          (weight->l1 == 0 && weight->l2 == 0 && weight->constraint.kind == SAP_CONSTRAINT_NONE));
    }
    return plain;
}
