/* Layers that combine tensors number by number: Subtract, Multiply, Average, Maximum, Minimum. Dimensions of size 1
 * are repeated, as in Keras. */
#include "nn_internal.h"

typedef enum combination { SUBTRACT, MULTIPLY, AVERAGE, MAXIMUM, MINIMUM } combination;

static combination combination_of(const sap_layer *layer) {
    static const char *const names[] = {"Subtract", "Multiply", "Average", "Maximum", "Minimum"};
    int found = 0;
    while (strcmp(names[found], layer->class_of->name) != 0)
        found++;
    return (combination)found;
}

static sap_status build_combination(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                    sap_shape *out, sap_error *err) {
    (void)first;
    *out = inputs[0];
    for (int32_t i = 1; i < count; i++) {
        if (inputs[i].rank != out->rank)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs with %d and %d dimensions", layer->where,
                                 out->rank + 1, inputs[i].rank + 1);
        for (int32_t d = 0; d < out->rank; d++) {
            int64_t a = out->dims[d], b = inputs[i].dims[d];
            if (a != b && a != 1 && b != 1)
                return sap_error_set(err, SAP_EFORMAT, "%s: inputs of sizes %lld and %lld along axis %d", layer->where,
                                     (long long)a, (long long)b, d + 1);
            out->dims[d] = a == 1 ? b : a;
        }
    }
    for (int32_t i = 0; out->rank > 1 && i < count; i++)
        if (inputs[i].dims[0] != out->dims[0])
            layer->padding = SAP_PADDING_ALWAYS; /* a step that is repeated belongs to no sequence */
    return SAP_OK;
}

/* ---- Numbers that meet ---------------------------------------------------------------------------------- */

/* One value of one step of y, with all columns. */
typedef struct row {
    const sap_call *call;
    combination kind;
    sap_block block;
    int64_t value;
} row;

/* Where the numbers of input i stand that meet those of the row. */
static int64_t numbers_at(const row *r, int32_t i) {
    const sap_shape *y = r->call->shape, *x = r->call->x_shape[i];
    int32_t inner = y->rank > 1 ? 1 : 0;
    int64_t place = 0, stride = 1, rest = r->value;
    for (int32_t d = y->rank - 1; d >= inner; d--) {
        place += x->dims[d] == 1 ? 0 : rest % y->dims[d] * stride;
        stride *= x->dims[d];
        rest /= y->dims[d];
    }
    bool repeated = inner && x->dims[0] == 1;
    return (repeated ? 0 : r->block.start) * stride + place * r->block.width;
}

static const uint8_t *mask_of(const row *r, int32_t i) {
    bool masked = r->call->x_mask && r->call->x_mask[i];
    return masked ? r->call->x_mask[i] + r->block.start : NULL;
}

/* The numbers of input i; masked factors are 1. */
static void take(const row *r, int32_t i, float *x) {
    const uint8_t *mask = r->kind == MULTIPLY ? mask_of(r, i) : NULL;
    memcpy(x, r->call->x[i] + numbers_at(r, i), (size_t)r->block.width * sizeof *x);
    for (int t = 0; mask && t < r->block.width; t++)
        x[t] = mask[t] ? x[t] : 1;
}

/* The largest (smallest) numbers and the inputs they are from; masked numbers count only where all before are masked
 * too. The first of equal numbers wins. */
static void choose(const row *r, float *y, int32_t *winner) {
    float x[SAP_TILE], sign = r->kind == MAXIMUM ? 1 : -1;
    bool counts[SAP_TILE], all_masked = mask_of(r, 0);
    take(r, 0, y);
    for (int t = 0; t < r->block.width; t++) {
        winner[t] = 0;
        counts[t] = !all_masked || mask_of(r, 0)[t];
    }
    for (int32_t i = 1; i < r->call->input_count; i++) {
        const uint8_t *mask = mask_of(r, i);
        take(r, i, x);
        all_masked = all_masked && mask;
        for (int t = 0; t < r->block.width; t++) {
            bool there = !mask || mask[t];
            if (there && (!counts[t] || !(sign * y[t] >= sign * x[t]))) {
                y[t] = x[t];
                winner[t] = i;
            }
            counts[t] = !all_masked || counts[t] || there;
        }
    }
}

/* A product is 0 where all its factors are masked. */
static void hide(const row *r, float *y) {
    for (int32_t i = 0; i < r->call->input_count; i++)
        if (!mask_of(r, i))
            return;
    for (int t = 0; t < r->block.width; t++) {
        bool there = false;
        for (int32_t i = 0; i < r->call->input_count; i++)
            there = there || mask_of(r, i)[t];
        y[t] = there ? y[t] : 0;
    }
}

static void combine(const row *r, float *y) {
    float x[SAP_TILE];
    int32_t winner[SAP_TILE], count = r->call->input_count;
    if (r->kind == MAXIMUM || r->kind == MINIMUM) {
        choose(r, y, winner);
        return;
    }
    take(r, 0, y);
    for (int32_t i = 1; i < count; i++) {
        take(r, i, x);
        for (int t = 0; t < r->block.width; t++)
            y[t] = r->kind == MULTIPLY ? y[t] * x[t] : r->kind == SUBTRACT ? y[t] - x[t] : y[t] + x[t];
    }
    for (int t = 0; r->kind == AVERAGE && t < r->block.width; t++)
        y[t] /= (float)count;
    if (r->kind == MULTIPLY)
        hide(r, y);
}

/* Adds the gradient of the numbers of input i; winner: of Maximum and Minimum. */
static void combine_backward(const row *r, int32_t i, const float *dy, const int32_t *winner, float *dx) {
    float d[SAP_TILE], x[SAP_TILE];
    const uint8_t *mask = mask_of(r, i);
    int32_t count = r->call->input_count;
    for (int t = 0; t < r->block.width; t++)
        d[t] = r->kind == AVERAGE ? dy[t] / (float)count : r->kind == SUBTRACT && i > 0 ? -dy[t] : dy[t];
    for (int32_t j = 0; r->kind == MULTIPLY && j < count; j++) {
        take(r, j, x);
        for (int t = 0; j != i && t < r->block.width; t++)
            d[t] *= x[t];
    }
    for (int t = 0; t < r->block.width; t++) {
        bool none =
            r->kind == MULTIPLY ? mask && !mask[t] : (r->kind == MAXIMUM || r->kind == MINIMUM) && winner[t] != i;
        dx[t] += none ? 0 : d[t];
    }
}

/* ---- Passes --------------------------------------------------------------------------------------------- */

static void combination_forward(const sap_call *call) {
    int64_t values = sap_shape_step_values(call->shape);
    row r = {.call = call, .kind = combination_of(call->layer)};
    for (r.block = sap_block_first(call->pass, call->y_steps); r.block.step < r.block.end;
         sap_block_next(call->y_steps, &r.block))
        for (r.value = 0; r.value < values; r.value++)
            combine(&r, call->y + r.block.start * values + r.value * r.block.width);
}

static void combination_backward(const sap_call *call) {
    int64_t values = sap_shape_step_values(call->shape);
    row r = {.call = call, .kind = combination_of(call->layer)};
    for (int32_t i = 0; i < call->input_count; i++) {
        int64_t columns = call->x_steps[i] ? sap_steps_columns(call->x_steps[i]) : call->pass->width;
        if (call->dx[i] && !call->add[i])
            memset(call->dx[i], 0, (size_t)(sap_shape_step_values(call->x_shape[i]) * columns) * sizeof(float));
    }
    for (r.block = sap_block_first(call->pass, call->y_steps); r.block.step < r.block.end;
         sap_block_next(call->y_steps, &r.block))
        for (r.value = 0; r.value < values; r.value++) {
            float y[SAP_TILE];
            int32_t winner[SAP_TILE] = {0};
            if (r.kind == MAXIMUM || r.kind == MINIMUM)
                choose(&r, y, winner);
            const float *dy = call->dy + r.block.start * values + r.value * r.block.width;
            for (int32_t i = 0; i < call->input_count; i++)
                if (call->dx[i])
                    combine_backward(&r, i, dy, winner, call->dx[i] + numbers_at(&r, i));
        }
}

#define COMBINATION(symbol, keras, least, most)                                                                        \
    const sap_layer_class symbol = {                                                                                   \
        .name = keras,                                                                                                 \
        .inputs_least = least,                                                                                         \
        .inputs_most = most,                                                                                           \
        .padding = SAP_PADDING_STEPWISE,                                                                               \
        .mask = SAP_MASK_PASS,                                                                                         \
        .build = build_combination,                                                                                    \
        .forward = combination_forward,                                                                                \
        .backward = combination_backward,                                                                              \
    }

COMBINATION(sap_class_subtract, "Subtract", 2, 2);
COMBINATION(sap_class_multiply, "Multiply", 1, SAP_LAYERS_MOST);
COMBINATION(sap_class_average, "Average", 1, SAP_LAYERS_MOST);
COMBINATION(sap_class_maximum, "Maximum", 1, SAP_LAYERS_MOST);
COMBINATION(sap_class_minimum, "Minimum", 1, SAP_LAYERS_MOST);
