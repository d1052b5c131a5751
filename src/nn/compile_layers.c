/* What each class of layers is in C source: the body of its function, and its weights. */
#include "model_compile.h"
#include "window.h"

#include <math.h>

static const float *weight_of(const sap_emission *e, int index) {
    return e->source->model->values + e->layer->weights[index].offset;
}

/* Begins a loop over `count` vectors, or a block for a single one. */
static void begin_loop(const sap_emission *e, const char *count) {
    if (strcmp(count, "1") != 0)
        sap_text_add(&e->source->functions, "    for (int32_t t = 0; t < %s; t++) {\n", count);
}

static void end_loop(const sap_emission *e, const char *count) {
    if (strcmp(count, "1") != 0)
        sap_text_add(&e->source->functions, "    }\n");
}

/* "x", or "x + t * width" inside of a loop. */
static const char *vector(const sap_emission *e, const char *count, const char *name, int64_t width) {
    return strcmp(count, "1") == 0 ? name : sap_source_text(e->source, "(%s + t * %lld)", name, (long long)width);
}

/* Sums that begin with the bias, or with 0. */
static void begin_sum(const sap_emission *e, int indent, int64_t width, const char *bias) {
    sap_text *out = &e->source->functions;
    if (bias)
        sap_text_add(out, "%*sfloat sum[%lld];\n%*smemcpy(sum, %s, sizeof sum);\n", indent, "", (long long)width,
                     indent, "", bias);
    else
        sap_text_add(out, "%*sfloat sum[%lld] = {0};\n", indent, "", (long long)width);
    sap_source_keep(e->source, width);
}

/* ---- Dense ---------------------------------------------------------------------------------------------- */

static sap_status emit_dense(const sap_emission *e, sap_error *err) {
    (void)err;
    sap_source *source = e->source;
    int64_t depth = e->layer->weights[0].shape.dims[0], units = e->layer->units, width = sap_source_width(units);
    const char *kernel = sap_source_array(e, "kernel", depth, units, width, weight_of(e, 0));
    const char *bias = e->layer->use_bias ? sap_source_array(e, "bias", 0, units, width, weight_of(e, 1)) : NULL;
    const char *count = sap_source_count(source, e->y, units);
    int indent = strcmp(count, "1") == 0 ? 4 : 8;
    begin_loop(e, count);
    begin_sum(e, indent, width, bias);
    sap_source_product(source, indent, "sum", width, vector(e, count, "x", depth), depth, kernel);
    sap_source_activate(source, indent, &e->layer->activation, sap_source_text(source, "%lld", (long long)units), "sum",
                        vector(e, count, "y", units));
    end_loop(e, count);
    return SAP_OK;
}

/* ---- Activations ---------------------------------------------------------------------------------------- */

static sap_status emit_activation(const sap_emission *e, sap_error *err) {
    (void)err;
    const sap_activation *activation = &e->layer->activation;
    if (activation->kind != SAP_SOFTMAX) {
        sap_source_activate(e->source, 4, activation, sap_source_count(e->source, e->y, 1), "x", "y");
        return SAP_OK;
    }
    int64_t width = e->y->shape.dims[e->y->shape.rank - 1];
    const char *count = sap_source_count(e->source, e->y, width);
    begin_loop(e, count);
    sap_source_activate(e->source, strcmp(count, "1") == 0 ? 4 : 8, activation,
                        sap_source_text(e->source, "%lld", (long long)width), vector(e, count, "x", width),
                        vector(e, count, "y", width));
    end_loop(e, count);
    return SAP_OK;
}

/* ---- Concatenate, Add ----------------------------------------------------------------------------------- */

static sap_status emit_concatenate(const sap_emission *e, sap_error *err) {
    const sap_shape *shape = &e->y->shape;
    int64_t axis = e->layer->axis < 0 ? e->layer->axis + shape->rank : e->layer->axis - 1;
    if (axis == 0 && e->y->steps)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: joins sequences of variable length along time",
                             e->layer->where);
    int64_t whole = 1, place = 0;
    for (int64_t i = axis; i < shape->rank; i++)
        whole *= shape->dims[i];
    const char *count = sap_source_count(e->source, e->y, whole);
    begin_loop(e, count);
    for (int32_t i = 0; i < e->input_count; i++) {
        int64_t run = 1;
        for (int64_t k = axis; k < shape->rank; k++)
            run *= e->x[i].shape.dims[k];
        sap_text_add(&e->source->functions, "%*smemcpy(%s + %lld, %s, %lld * sizeof *y);\n",
                     strcmp(count, "1") == 0 ? 4 : 8, "", vector(e, count, "y", whole), (long long)place,
                     vector(e, count, e->x[i].place, run), (long long)run);
        place += run;
    }
    end_loop(e, count);
    return SAP_OK;
}

static sap_status emit_add(const sap_emission *e, sap_error *err) {
    (void)err;
    sap_text *out = &e->source->functions;
    sap_text_add(out, "    for (int32_t i = 0; i < %s; i++)\n        y[i] = ", sap_source_count(e->source, e->y, 1));
    for (int32_t i = 0; i < e->input_count; i++)
        sap_text_add(out, "%s%s[i]", i ? " + " : "", e->x[i].place);
    sap_text_add(out, ";\n");
    return SAP_OK;
}

/* ---- Subtract to Minimum, PReLU: numbers that meet, dimensions of size 1 repeated ----------------------- */

/* Begins loops d0, d1, … over the dimensions of y; returns how deep they are. */
static int begin_dimensions(const sap_emission *e) {
    const sap_shape *shape = &e->y->shape;
    for (int32_t d = 0; d < shape->rank; d++)
        sap_text_add(&e->source->functions, "%*sfor (int32_t d%d = 0; d%d < %s; d%d++)\n", 4 * (d + 1), "", d, d,
                     d == 0 ? sap_source_steps(e->source, e->y)
                            : sap_source_text(e->source, "%lld", (long long)shape->dims[d]),
                     d);
    return 4 * (shape->rank + 1);
}

/* NAME[…]: the number of an array of that shape at d0, d1, …. */
static const char *number_at(const sap_emission *e, const char *name, const sap_shape *shape) {
    const char *place = "0";
    for (int32_t d = 0; d < shape->rank; d++)
        place = sap_source_text(e->source, d ? "(%s) * %lld + %s" : "%s * %lld + %s", place, (long long)shape->dims[d],
                                shape->dims[d] == 1 ? "0" : sap_source_text(e->source, "d%d", d));
    return sap_source_text(e->source, "%s[%s]", name, place);
}

static sap_status emit_combination(const sap_emission *e, const char *join, sap_error *err) {
    sap_text *out = &e->source->functions;
    for (int32_t i = 0; i < e->input_count; i++)
        if (e->x[i].mask)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: masks that differ cannot be compiled to C",
                                 e->layer->where);
    sap_text_add(out, "%*s%s = ", begin_dimensions(e), "", number_at(e, "y", &e->y->shape));
    for (int32_t i = 0; i < e->input_count; i++)
        sap_text_add(out, "%s%s", i ? join : "", number_at(e, e->x[i].place, &e->x[i].shape));
    if (strcmp(e->layer->class_of->name, "Average") == 0)
        sap_text_add(out, ";\n    for (int32_t i = 0; i < %s; i++)\n        y[i] /= %d",
                     sap_source_count(e->source, e->y, 1), e->input_count);
    sap_text_add(out, ";\n");
    return SAP_OK;
}

static sap_status emit_subtract(const sap_emission *e, sap_error *err) {
    return emit_combination(e, " - ", err);
}

static sap_status emit_multiply(const sap_emission *e, sap_error *err) {
    return emit_combination(e, " * ", err);
}

static sap_status emit_average(const sap_emission *e, sap_error *err) {
    return emit_combination(e, " + ", err);
}

/* One input after the other. */
static sap_status emit_extreme(const sap_emission *e, sap_error *err) {
    sap_text *out = &e->source->functions;
    const char *y = number_at(e, "y", &e->y->shape);
    bool most = strcmp(e->layer->class_of->name, "Maximum") == 0;
    for (int32_t i = 0; i < e->input_count; i++) {
        const char *x = number_at(e, e->x[i].place, &e->x[i].shape);
        if (e->x[i].mask)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: masked sequences cannot be compiled to C",
                                 e->layer->where);
        int indent = begin_dimensions(e);
        if (i == 0)
            sap_text_add(out, "%*s%s = %s;\n", indent, "", y, x);
        else
            sap_text_add(out, "%*s%s = %s %c %s ? %s : %s;\n", indent, "", y, x, most ? '>' : '<', y, x, y);
    }
    return SAP_OK;
}

static sap_status emit_prelu(const sap_emission *e, sap_error *err) {
    (void)err;
    const sap_layer_weight *alpha = &e->layer->weights[0];
    int64_t values = sap_shape_values(&alpha->shape);
    const char *name = sap_source_array(e, "alpha", 0, values, values, weight_of(e, 0));
    const char *x = number_at(e, "x", &e->y->shape), *y = number_at(e, "y", &e->y->shape);
    int indent = begin_dimensions(e);
    sap_text_add(&e->source->functions, "%*s%s = (%s < 0 ? 0 : %s) + %s * (%s < 0 ? %s : 0);\n", indent, "", y, x, x,
                 number_at(e, name, &alpha->shape), x, x);
    return SAP_OK;
}

/* ---- Permute, RepeatVector, Cropping1D, ZeroPadding1D: numbers elsewhere -------------------------------- */

static sap_status emit_rearrangement(const sap_emission *e, sap_error *err) {
    (void)err;
    sap_text *out = &e->source->functions;
    int64_t values = sap_shape_values(&e->y->shape);
    sap_text_add(out, "    static const int32_t from[%lld] = { /* -1: a zero */", (long long)values);
    for (int64_t v = 0; v < values; v++)
        sap_text_add(out, "%s%s%lld", v ? "," : "", v % 16 ? " " : "\n        ",
                     (long long)sap_rearranged_from(e->layer, &e->x[0].shape, &e->y->shape, v));
    sap_text_add(out,
                 "};\n"
                 "    for (int32_t i = 0; i < %lld; i++)\n"
                 "        y[i] = from[i] < 0 ? 0 : x[from[i]];\n",
                 (long long)values);
    return SAP_OK;
}

/* ---- BatchNormalization, with its moving statistics ----------------------------------------------------- */

static sap_status emit_batch_normalization(const sap_emission *e, sap_error *err) {
    const sap_layer *layer = e->layer;
    int64_t width = e->y->shape.dims[e->y->shape.rank - 1];
    int next = 0;
    const float *gamma = layer->scale ? weight_of(e, next++) : NULL,
                *beta = layer->center ? weight_of(e, next++) : NULL;
    const float *mean = weight_of(e, next), *variance = weight_of(e, next + 1);
    float *scale = sap_arena_array(&e->source->arena, (size_t)width, 2 * sizeof *scale), *shift = scale + width;
    if (!scale)
        return sap_error_memory(err, layer->where);
    for (int64_t i = 0; i < width; i++) {
        scale[i] = (gamma ? gamma[i] : 1) / sqrtf(variance[i] + (float)layer->epsilon);
        shift[i] = (beta ? beta[i] : 0) - mean[i] * scale[i];
    }
    const char *scales = sap_source_array(e, "scale", 0, width, width, scale);
    const char *shifts = sap_source_array(e, "shift", 0, width, width, shift);
    const char *count = sap_source_count(e->source, e->y, width);
    begin_loop(e, count);
    sap_text_add(&e->source->functions, "%*sfor (int32_t i = 0; i < %lld; i++)\n%*s%s[i] = %s[i] * %s[i] + %s[i];\n",
                 strcmp(count, "1") == 0 ? 4 : 8, "", (long long)width, strcmp(count, "1") == 0 ? 8 : 12, "",
                 vector(e, count, "y", width), vector(e, count, "x", width), scales, shifts);
    end_loop(e, count);
    return SAP_OK;
}

/* ---- LayerNormalization --------------------------------------------------------------------------------- */

static sap_status emit_layer_normalization(const sap_emission *e, sap_error *err) {
    (void)err;
    const sap_layer *layer = e->layer;
    int64_t width = sap_shape_last(&e->y->shape);
    const char *gamma = layer->scale ? sap_source_array(e, "gamma", 0, width, width, weight_of(e, 0)) : NULL;
    const char *beta = layer->center ? sap_source_array(e, "beta", 0, width, width, weight_of(e, layer->scale)) : NULL;
    const char *count = sap_source_count(e->source, e->y, width);
    const char *x = vector(e, count, "x", width), *y = vector(e, count, "y", width);
    int indent = strcmp(count, "1") == 0 ? 4 : 8;
    long long n = (long long)width;
    sap_text *out = &e->source->functions;
    sap_source_use(e->source, SAP_HELPER_ROOT);
    sap_source_use(e->source, SAP_HELPER_SUM);
    sap_source_keep(e->source, width);
    begin_loop(e, count);
    sap_text_add(out, "%*sfloat mean = sum_of(%s, %lld) / %lld, square[%lld];\n", indent, "", x, n, n, n);
    sap_text_add(out, "%*sfor (int32_t i = 0; i < %lld; i++)\n%*ssquare[i] = (%s[i] - mean) * (%s[i] - mean);\n",
                 indent, "", n, indent + 4, "", x, x);
    sap_text_add(out, "%*sfloat scale = (float)inverse_root_of((double)(sum_of(square, %lld) / %lld + %s));\n", indent,
                 "", n, n, sap_source_number(e->source, (float)layer->epsilon));
    sap_text_add(out, "%*sfor (int32_t i = 0; i < %lld; i++)\n%*s%s[i] = (%s[i] - mean) * scale%s%s%s%s;\n", indent, "",
                 n, indent + 4, "", y, x, gamma ? " * " : "", gamma ? gamma : "", gamma ? "[i]" : "",
                 beta ? sap_source_text(e->source, " + %s[i]", beta) : "");
    end_loop(e, count);
    return SAP_OK;
}

/* ---- Masking, where masked steps are there -------------------------------------------------------------- */

static sap_status emit_masking(const sap_emission *e, sap_error *err) {
    (void)err;
    sap_text_add(&e->source->functions,
                 "    for (int32_t t = 0; t < %s; t++)\n"
                 "        for (int32_t i = 0; i < %lld; i++)\n"
                 "            y[t * %lld + i] = mask[t] ? x[t * %lld + i] : 0;\n",
                 sap_source_steps(e->source, e->y), (long long)sap_shape_step_values(&e->y->shape),
                 (long long)sap_shape_step_values(&e->y->shape), (long long)sap_shape_step_values(&e->y->shape));
    return SAP_OK;
}

/* ---- Pooling -------------------------------------------------------------------------------------------- */

static sap_status emit_global_average(const sap_emission *e, sap_error *err) {
    (void)err;
    long long width = (long long)sap_shape_last(&e->y->shape);
    const char *mask = e->x[0].mask;
    sap_text_add(&e->source->functions,
                 "    float count = 0;\n"
                 "    for (int32_t i = 0; i < %lld; i++)\n"
                 "        y[i] = 0;\n"
                 "    for (int32_t t = 0; t < %s; t++) {\n"
                 "        float counts = %s;\n"
                 "        count += counts;\n"
                 "        for (int32_t i = 0; i < %lld; i++)\n"
                 "            y[i] += x[t * %lld + i] * counts;\n"
                 "    }\n"
                 "    float share = count > 0 ? 1 / count : 0;\n"
                 "    for (int32_t i = 0; i < %lld; i++)\n"
                 "        y[i] *= share;\n",
                 width, sap_source_steps(e->source, &e->x[0]), mask ? "mask[t]" : "1", width, width, width);
    return SAP_OK;
}

static sap_status emit_global_max(const sap_emission *e, sap_error *err) {
    (void)err;
    long long width = (long long)sap_shape_last(&e->y->shape);
    const char *steps = sap_source_steps(e->source, &e->x[0]);
    sap_text_add(&e->source->functions,
                 "    for (int32_t i = 0; i < %lld; i++)\n"
                 "        y[i] = %s > 0 ? x[i] : 0;\n"
                 "    for (int32_t t = 1; t < %s; t++)\n"
                 "        for (int32_t i = 0; i < %lld; i++)\n"
                 "            y[i] = x[t * %lld + i] > y[i] ? x[t * %lld + i] : y[i];\n",
                 width, steps, steps, width, width, width);
    return SAP_OK;
}

/* Begins a loop over output steps t of a window: input steps first + k · dilation. */
static void begin_windows(const sap_emission *e) {
    const sap_window *w = e->layer->settings;
    int64_t outputs = e->y->shape.dims[0];
    sap_text_add(&e->source->functions,
                 "    for (int32_t t = 0; t < %lld; t++) {\n"
                 "        int32_t first = t * %lld - %lld;\n",
                 (long long)outputs, (long long)w->stride,
                 (long long)sap_window_before(w, e->x[0].shape.dims[0], outputs));
}

static sap_status emit_windows(const sap_emission *e, bool average) {
    const sap_window *w = e->layer->settings;
    long long steps = (long long)e->x[0].shape.dims[0], width = (long long)e->y->shape.dims[1];
    begin_windows(e);
    sap_text_add(&e->source->functions,
                 "        int32_t from = first > 0 ? first : 0, end = first + %lld < %lld ? first + %lld : %lld;\n"
                 "        for (int32_t i = 0; i < %lld; i++)\n"
                 "            y[t * %lld + i] = x[from * %lld + i];\n"
                 "        for (int32_t s = from + 1; s < end; s++)\n"
                 "            for (int32_t i = 0; i < %lld; i++)\n",
                 (long long)w->size, steps, (long long)w->size, steps, width, width, width, width);
    if (average)
        sap_text_add(&e->source->functions,
                     "                y[t * %lld + i] += x[s * %lld + i];\n"
                     "        for (int32_t i = 0; i < %lld; i++)\n"
                     "            y[t * %lld + i] *= 1 / (float)(end - from);\n"
                     "    }\n",
                     width, width, width, width);
    else
        sap_text_add(&e->source->functions,
                     "                y[t * %lld + i] = x[s * %lld + i] > y[t * %lld + i] ? x[s * %lld + i] : y[t * "
                     "%lld + i];\n"
                     "    }\n",
                     width, width, width, width, width);
    return SAP_OK;
}

static sap_status emit_average_windows(const sap_emission *e, sap_error *err) {
    (void)err;
    return emit_windows(e, true);
}

static sap_status emit_max_windows(const sap_emission *e, sap_error *err) {
    (void)err;
    return emit_windows(e, false);
}

/* ---- Conv1D --------------------------------------------------------------------------------------------- */

static sap_status emit_convolution(const sap_emission *e, sap_error *err) {
    (void)err;
    const sap_layer *layer = e->layer;
    const sap_window *w = layer->settings; /* the first of its settings */
    sap_source *source = e->source;
    int64_t in = e->x[0].shape.dims[1], filters = e->y->shape.dims[1], width = sap_source_width(filters);
    const char *kernel = sap_source_array(e, "kernel", w->size * in, filters, width, weight_of(e, 0));
    const char *bias = layer->use_bias ? sap_source_array(e, "bias", 0, filters, width, weight_of(e, 1)) : NULL;
    begin_windows(e);
    begin_sum(e, 8, width, bias);
    sap_text_add(&source->functions,
                 "        for (int32_t k = 0; k < %lld; k++) {\n"
                 "            int32_t s = first + k * %lld;\n"
                 "            if (s < 0 || s >= %lld)\n"
                 "                continue;\n",
                 (long long)w->size, (long long)w->dilation, (long long)e->x[0].shape.dims[0]);
    sap_source_product(source, 12, "sum", width, sap_source_text(source, "(x + s * %lld)", (long long)in), in,
                       sap_source_text(source, "(%s + k * %lld)", kernel, (long long)in));
    sap_text_add(&source->functions, "        }\n");
    sap_source_activate(source, 8, &layer->activation, sap_source_text(source, "%lld", (long long)filters), "sum",
                        sap_source_text(source, "(y + t * %lld)", (long long)filters));
    sap_text_add(&source->functions, "    }\n");
    return SAP_OK;
}

/* ---- The table ------------------------------------------------------------------------------------------ */

static const sap_emitter_class emitters[] = {
    {"InputLayer", NULL, false},
    {"Dropout", NULL, false},
    {"GaussianNoise", NULL, false},
    {"GaussianDropout", NULL, false},
    {"AlphaDropout", NULL, false},
    {"SpatialDropout1D", NULL, false},
    {"Flatten", NULL, false},
    {"Reshape", NULL, false},
    {"Dense", emit_dense, false},
    {"Activation", emit_activation, false},
    {"ReLU", emit_activation, false},
    {"LeakyReLU", emit_activation, false},
    {"ELU", emit_activation, false},
    {"Softmax", emit_activation, false},
    {"Concatenate", emit_concatenate, false},
    {"Add", emit_add, false},
    {"Subtract", emit_subtract, false},
    {"Multiply", emit_multiply, true},
    {"Average", emit_average, false},
    {"Maximum", emit_extreme, true},
    {"Minimum", emit_extreme, true},
    {"PReLU", emit_prelu, false},
    {"Permute", emit_rearrangement, false},
    {"RepeatVector", emit_rearrangement, false},
    {"Cropping1D", emit_rearrangement, false},
    {"ZeroPadding1D", emit_rearrangement, false},
    {"BatchNormalization", emit_batch_normalization, false},
    {"LayerNormalization", emit_layer_normalization, false},
    {"Masking", emit_masking, true},
    {"GlobalAveragePooling1D", emit_global_average, true},
    {"GlobalMaxPooling1D", emit_global_max, false},
    {"AveragePooling1D", emit_average_windows, false},
    {"MaxPooling1D", emit_max_windows, false},
    {"Conv1D", emit_convolution, false},
    {"MultiHeadAttention", sap_emit_attention, true},
    {"SimpleRNN", sap_emit_recurrent, true},
    {"GRU", sap_emit_recurrent, true},
    {"LSTM", sap_emit_recurrent, true},
    {"Bidirectional", sap_emit_recurrent, true},
};

const sap_emitter_class *sap_emitter_find(const char *name) {
    for (size_t i = 0; i < sizeof emitters / sizeof *emitters; i++)
        if (strcmp(emitters[i].name, name) == 0)
            return &emitters[i];
    return NULL;
}
