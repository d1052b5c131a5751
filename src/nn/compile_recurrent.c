/* SimpleRNN, GRU, LSTM and Bidirectional in C source: one step after the other, with the formulas of recurrent.h. A masked step is
 * computed as any other, so that it takes the same time, and its state is not taken over. */
#include "model_compile.h"
#include "recurrent_layer.h"

typedef struct cell {
    const sap_emission *e;
    const sap_recurrent_layer *layer;
    int index; /* of the layer's cells */
    int64_t inputs, units, gates, width;
} cell;

static const char *name_of(const cell *c, const char *what) {
    static const char *const sides[] = {"forward", "backward"};
    return c->layer->count == 1 ? what : sap_source_text(c->e->source, "%s_%s", sides[c->index], what);
}

/* "    float z = σ(…);" of unit o. */
static void emit_gate(const cell *c, const char *name, bool recurrent, const char *argument) {
    const sap_activation *f =
        recurrent ? &c->layer->cells[c->index].recurrent_activation : &c->layer->cells[c->index].activation;
    const char *in = sap_source_text(c->e->source, "%s_in", name);
    sap_text_add(&c->e->source->functions,
                 "                float %s = %s;\n"
                 "                float %s = %s;\n",
                 in, argument, name, sap_source_activation(c->e->source, f, in));
}

/* Sums that begin with `values` (count), padded. */
static void emit_start(const cell *c, const char *sum, const char *what, int64_t count, const float *values) {
    sap_text *out = &c->e->source->functions;
    int64_t width = sap_source_width(count);
    if (!values) {
        sap_text_add(out, "            float %s[%lld] = {0};\n", sum, (long long)width);
        return;
    }
    sap_text_add(out, "            float %s[%lld];\n            memcpy(%s, %s, sizeof %s);\n", sum, (long long)width,
                 sum, sap_source_array(c->e, name_of(c, what), 0, count, width, values), sum);
}

static const float *values_of(const cell *c, const sap_layer_weight *weight) {
    return weight ? c->e->source->model->values + weight->offset : NULL;
}

/* Columns [first, first + count) of the recurrent kernel as an array of their own, and their product with `x`. */
static sap_status emit_recurrent(const cell *c, const char *sum, const char *what, int64_t first, int64_t count,
                                 const char *x, sap_error *err) {
    const float *all = values_of(c, c->layer->cells[c->index].recurrent_kernel);
    float *part = sap_arena_array(&c->e->source->arena, (size_t)(c->units * count), sizeof *part);
    if (!part)
        return sap_error_memory(err, c->e->layer->where);
    for (int64_t u = 0; u < c->units; u++)
        memcpy(part + u * count, all + u * c->gates * c->units + first, (size_t)count * sizeof *part);
    int64_t width = sap_source_width(count);
    const char *kernel = sap_source_array(c->e, name_of(c, what), c->units, count, width, part);
    sap_source_product(c->e->source, 12, sum, width, x, c->units, kernel);
    return SAP_OK;
}

static const char *at(const cell *c, const char *sum, int gate) {
    return gate ? sap_source_text(c->e->source, "%s[%lld + o]", sum, (long long)(gate * c->units))
                : sap_source_text(c->e->source, "%s[o]", sum);
}

static void begin_units(const cell *c) {
    sap_text_add(&c->e->source->functions, "            for (int32_t o = 0; o < %lld; o++) {\n", (long long)c->units);
}

/* h of unit o becomes `next`, if the step counts. */
static void end_units(const cell *c, const char *next) {
    sap_text *out = &c->e->source->functions;
    if (!c->e->x[0].mask) {
        sap_text_add(out, "                h[o] = %s;\n            }\n", next);
        return;
    }
    sap_text_add(out, "                next[o] = %s;\n            }\n", next);
    begin_units(c);
    sap_text_add(out, "                h[o] = mask[t] ? next[o] : h[o];\n            }\n");
}

static const char *both(const cell *c, int gate) {
    return sap_source_text(c->e->source, "%s + %s", at(c, "sum", gate), at(c, "more", gate));
}

static sap_status emit_gru(const cell *c, sap_error *err) {
    const float *bias = values_of(c, c->layer->cells[c->index].bias);
    int64_t all = 3 * c->units;
    emit_start(c, "more", "recurrent_bias", all, bias ? bias + all : NULL);
    SAP_TRY(emit_recurrent(c, "more", "recurrent_kernel", 0, all, "h", err));
    begin_units(c);
    emit_gate(c, "z", true, both(c, 0));
    emit_gate(c, "r", true, both(c, 1));
    emit_gate(c, "a", false, sap_source_text(c->e->source, "%s + r * %s", at(c, "sum", 2), at(c, "more", 2)));
    end_units(c, "z * h[o] + (1 - z) * a");
    return SAP_OK;
}

static sap_status emit_gru_before(const cell *c, sap_error *err) {
    sap_text *out = &c->e->source->functions;
    emit_start(c, "more", NULL, 2 * c->units, NULL);
    SAP_TRY(emit_recurrent(c, "more", "recurrent_kernel", 0, 2 * c->units, "h", err));
    sap_text_add(out, "            float zs[%lld], rh[%lld];\n", (long long)c->units, (long long)c->units);
    begin_units(c);
    emit_gate(c, "z", true, both(c, 0));
    emit_gate(c, "r", true, both(c, 1));
    sap_text_add(out, "                zs[o] = z;\n                rh[o] = r * h[o];\n            }\n");
    emit_start(c, "last", NULL, c->units, NULL);
    SAP_TRY(emit_recurrent(c, "last", "reset_kernel", 2 * c->units, c->units, "rh", err));
    begin_units(c);
    emit_gate(c, "a", false, sap_source_text(c->e->source, "%s + last[o]", at(c, "sum", 2)));
    end_units(c, "zs[o] * h[o] + (1 - zs[o]) * a");
    return SAP_OK;
}

static sap_status emit_lstm(const cell *c, sap_error *err) {
    SAP_TRY(emit_recurrent(c, "sum", "recurrent_kernel", 0, 4 * c->units, "h", err));
    begin_units(c);
    emit_gate(c, "i", true, at(c, "sum", 0));
    emit_gate(c, "f", true, at(c, "sum", 1));
    emit_gate(c, "a", false, at(c, "sum", 2));
    emit_gate(c, "out", true, at(c, "sum", 3));
    sap_text_add(&c->e->source->functions, c->e->x[0].mask
                                               ? "                cell[o] = mask[t] ? f * cell[o] + i * a : cell[o];\n"
                                               : "                cell[o] = f * cell[o] + i * a;\n");
    emit_gate(c, "state", false, "cell[o]");
    end_units(c, "out * state");
    return SAP_OK;
}

static sap_status emit_simple(const cell *c, sap_error *err) {
    SAP_TRY(emit_recurrent(c, "sum", "recurrent_kernel", 0, c->units, "h", err));
    begin_units(c);
    emit_gate(c, "a", false, "sum[o]");
    end_units(c, "a");
    return SAP_OK;
}

/* Puts h where the output is: `y` is an expression of its place. */
static void emit_output(const cell *c, int indent, const char *y, const char *counts) {
    sap_text *out = &c->e->source->functions;
    const char *value = counts ? sap_source_text(c->e->source, "(%s ? h[o] : 0)", counts) : "h[o]";
    sap_merge merge = c->index == 1 ? c->layer->merge : SAP_MERGE_CONCAT;
    sap_text_add(out, "%*sfor (int32_t o = 0; o < %lld; o++)\n%*s%s[o] = ", indent, "", (long long)c->units, indent + 4,
                 "", y);
    switch (merge) {
    case SAP_MERGE_CONCAT:
        sap_text_add(out, "%s;\n", value);
        break;
    case SAP_MERGE_SUM:
        sap_text_add(out, "%s[o] + %s;\n", y, value);
        break;
    case SAP_MERGE_MUL:
        sap_text_add(out, "%s[o] * %s;\n", y, value);
        break;
    case SAP_MERGE_AVE:
        sap_text_add(out, "0.5F * (%s[o] + %s);\n", y, value);
        break;
    }
}

static sap_status emit_cell(const cell *c, sap_error *err) {
    sap_source *source = c->e->source;
    sap_text *out = &source->functions;
    const sap_recurrent_layer *layer = c->layer;
    sap_cell kind = layer->cells[c->index].cell;
    long long units = (long long)c->units, all = (long long)(c->gates * c->units);
    const char *steps = sap_source_steps(source, &c->e->x[0]);
    long long place = c->index == 1 && layer->merge == SAP_MERGE_CONCAT ? (long long)layer->cells[0].units : 0;
    sap_text_add(out, "    {\n        float h[%lld] = {0};\n", units);
    if (c->e->x[0].mask)
        sap_text_add(out, "        float next[%lld];\n", units);
    if (kind == SAP_CELL_LSTM)
        sap_text_add(out, "        float cell[%lld] = {0};\n", units);
    sap_text_add(out, "        for (int32_t s = 0; s < %s; s++) {\n            int32_t t = %s;\n", steps,
                 layer->cells[c->index].reverse ? sap_source_text(source, "%s - 1 - s", steps) : "s");
    emit_start(c, "sum", "bias", all, values_of(c, layer->cells[c->index].bias));
    const char *kernel = sap_source_array(c->e, name_of(c, "kernel"), c->inputs, all, c->width,
                                          values_of(c, layer->cells[c->index].kernel));
    sap_source_product(source, 12, "sum", c->width, sap_source_text(source, "(x + t * %lld)", (long long)c->inputs),
                       c->inputs, kernel);
    switch (kind) {
    case SAP_CELL_GRU:
        SAP_TRY(emit_gru(c, err));
        break;
    case SAP_CELL_GRU_BEFORE:
        SAP_TRY(emit_gru_before(c, err));
        break;
    case SAP_CELL_LSTM:
        SAP_TRY(emit_lstm(c, err));
        break;
    case SAP_CELL_SIMPLE:
        SAP_TRY(emit_simple(c, err));
        break;
    }
    if (layer->sequences)
        emit_output(c, 12,
                    sap_source_text(source, "(y + %s * %lld + %lld)", layer->flipped ? "s" : "t",
                                    (long long)sap_shape_last(&c->e->y->shape), place),
                    c->e->x[0].mask && layer->zero_masked ? "mask[t]" : NULL);
    sap_text_add(out, "        }\n");
    if (!layer->sequences)
        emit_output(c, 8, sap_source_text(source, "(y + %lld)", place), NULL);
    sap_text_add(out, "    }\n");
    sap_source_keep(source, 2 * c->width + 4 * c->units);
    return SAP_OK;
}

sap_status sap_emit_recurrent(const sap_emission *e, sap_error *err) {
    sap_recurrent_layer layer = sap_recurrent_describe(e->layer);
    for (int i = 0; i < layer.count; i++) {
        cell c = {.e = e, .layer = &layer, .index = i, .inputs = e->x[0].shape.dims[1], .units = layer.cells[i].units};
        c.gates = sap_cell_gates(layer.cells[i].cell);
        c.width = sap_source_width(c.gates * c.units);
        if (layer.cells[i].activation.kind == SAP_SOFTMAX || layer.cells[i].recurrent_activation.kind == SAP_SOFTMAX)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: a softmax inside of the cell cannot be compiled to C",
                                 e->layer->where);
        SAP_TRY(emit_cell(&c, err));
    }
    return SAP_OK;
}
