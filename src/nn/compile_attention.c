/* MultiHeadAttention in C source. Keys are kept transposed, so that the scores of a query are made with loops over keys. */
#include "model_compile.h"

#include <math.h>

enum { QUERY, KEY, VALUE, OUTPUT };

typedef struct attention {
    const sap_emission *e;
    bool bias;
    const sap_source_tensor *x[3]; /* of queries, keys and values */
    int64_t heads, key_dim, value_dim;
} attention;

static const sap_layer_weight *weight(const attention *a, int projection, int number) {
    return &a->e->layer->weights[projection * (a->bias ? 2 : 1) + number];
}

/* Loops over the vectors `t` of x and leaves their projection in `sum`; ends with an open brace. */
static void begin_projection(const attention *a, int projection, const char *name, const char *count, const char *x) {
    const sap_emission *e = a->e;
    const float *values = e->source->model->values;
    const sap_layer_weight *kernel = weight(a, projection, 0);
    int64_t in = kernel->shape.dims[0] * (projection == OUTPUT ? kernel->shape.dims[1] : 1);
    int64_t out = sap_shape_values(&kernel->shape) / in, width = sap_source_width(out);
    const char *w =
        sap_source_array(e, sap_source_text(e->source, "%s_kernel", name), in, out, width, values + kernel->offset);
    const char *b = a->bias ? sap_source_array(e, sap_source_text(e->source, "%s_bias", name), 0, out, width,
                                               values + weight(a, projection, 1)->offset)
                            : NULL;
    sap_text *text = &e->source->functions;
    sap_text_add(text, "    for (int32_t t = 0; t < %s; t++) {\n        float sum[%lld]%s;\n", count, (long long)width,
                 b ? "" : " = {0}");
    if (b)
        sap_text_add(text, "        memcpy(sum, %s, sizeof sum);\n", b);
    sap_source_product(e->source, 8, "sum", width, sap_source_text(e->source, "(%s + t * %lld)", x, (long long)in), in,
                       w);
}

/* allowed[j]: whether queries may look at key j. */
static void emit_allowed(const attention *a, const char *keys) {
    sap_text *text = &a->e->source->functions;
    const char *key = a->x[KEY]->mask, *value = a->x[VALUE]->mask;
    sap_text_add(text, "    for (int32_t j = 0; j < %s; j++)\n        allowed[j] = ", keys);
    if (key && value && strcmp(key, value) != 0)
        sap_text_add(text, "%s[j] && %s[j];\n", key, value);
    else
        sap_text_add(text, key || value ? "%s[j];\n" : "1;\n", key ? key : value);
}

/* The context of query t in `sum`: values weighted by the softmax of its scores over the keys that it may look at. A query that may
 * look at none gets the mean of all values, or 0 where the layer has a dropout, as Keras has it. */
static void emit_context(const attention *a, const char *keys) {
    sap_text *text = &a->e->source->functions;
    const char *query = a->x[QUERY]->mask;
    long long key_dim = (long long)a->key_dim, value_dim = (long long)a->value_dim;
    long long value_values = (long long)(a->heads * a->value_dim);
    const char *scale = sap_source_number(a->e->source, (float)(1 / sqrt((double)a->key_dim)));
    sap_source_use(a->e->source, SAP_HELPER_EXP);
    const char *meets = query ? sap_source_text(a->e->source, " && %s[t]", query) : "";
    const char *causal = sap_attention_is_causal(a->e->layer) ? " && j <= t" : "";
    sap_text_add(text,
                 "        for (int32_t h = 0; h < %lld; h++) {\n"
                 "            float most = -3e38F, total = 0;\n"
                 "            for (int32_t j = 0; j < %s; j++)\n"
                 "                score[j] = 0;\n"
                 "            for (int32_t d = h * %lld; d < (h + 1) * %lld; d++)\n"
                 "                for (int32_t j = 0; j < %s; j++)\n"
                 "                    score[j] += sum[d] * k[d][j];\n",
                 (long long)a->heads, keys, key_dim, key_dim, keys);
    sap_text_add(text,
                 "            for (int32_t j = 0; j < %s; j++) {\n"
                 "                score[j] = allowed[j]%s%s ? score[j] * %s : -3e38F;\n"
                 "                most = score[j] > most ? score[j] : most;\n"
                 "            }\n"
                 "            for (int32_t j = 0; j < %s; j++)\n"
                 "                score[j] = score[j] > -3e38F ? exp_of(score[j] - most) : 0;\n"
                 "            for (int32_t j = 0; j < %s; j++)\n"
                 "                total += score[j];\n",
                 keys, meets, causal, scale, keys, keys);
    sap_text_add(text,
                 "            float share = total > 0 ? 1 / total : %s, extra = total > 0 ? 0 : 1;\n"
                 "            float context[%lld] = {0};\n"
                 "            for (int32_t j = 0; j < %s; j++)\n"
                 "                for (int32_t d = 0; d < %lld; d++)\n"
                 "                    context[d] += (score[j] + extra) * v[j][h * %lld + d];\n"
                 "            for (int32_t d = 0; d < %lld; d++)\n"
                 "                q[t * %lld + h * %lld + d] = context[d] * share;\n"
                 "        }\n",
                 a->e->layer->rate > 0 ? "0"
                                       : sap_source_text(a->e->source, "1 / (float)(%s > 0 ? %s : 1)", keys, keys),
                 value_dim, keys, value_dim, value_dim, value_dim, value_values, value_dim);
}

sap_status sap_emit_attention(const sap_emission *e, sap_error *err) {
    (void)err;
    sap_source *source = e->source;
    attention a = {.e = e, .bias = e->layer->weight_count == 8};
    a.x[QUERY] = &e->x[0];
    a.x[KEY] = &e->x[e->input_count == 3 ? 2 : 1];
    a.x[VALUE] = &e->x[1];
    a.heads = weight(&a, QUERY, 0)->shape.dims[1];
    a.key_dim = weight(&a, QUERY, 0)->shape.dims[2];
    a.value_dim = weight(&a, VALUE, 0)->shape.dims[2];
    int64_t key_values = a.heads * a.key_dim, value_values = a.heads * a.value_dim;
    int64_t most_queries = a.x[QUERY]->shape.dims[0], most_keys = a.x[KEY]->shape.dims[0];
    const char *queries = sap_source_steps(source, a.x[QUERY]), *keys = sap_source_steps(source, a.x[KEY]);
    sap_text *text = &source->functions;
    sap_text_add(text, "    float k[%lld][%lld], v[%lld][%lld], q[%lld], score[%lld];\n    uint8_t allowed[%lld];\n",
                 (long long)key_values, (long long)most_keys, (long long)most_keys, (long long)value_values,
                 (long long)(most_queries * value_values), (long long)most_keys, (long long)most_keys);
    sap_source_keep(source, most_keys * (key_values + value_values + 2) + most_queries * value_values);
    emit_allowed(&a, keys);
    begin_projection(&a, KEY, "key", keys, a.x[KEY]->place);
    sap_text_add(text, "        for (int32_t d = 0; d < %lld; d++)\n            k[d][t] = sum[d];\n    }\n",
                 (long long)key_values);
    begin_projection(&a, VALUE, "value", keys, a.x[VALUE]->place);
    sap_text_add(text, "        memcpy(v[t], sum, sizeof v[t]);\n    }\n");
    begin_projection(&a, QUERY, "query", queries, a.x[QUERY]->place);
    emit_context(&a, keys);
    sap_text_add(text, "    }\n");
    begin_projection(&a, OUTPUT, "output", queries, "q");
    int64_t out = sap_shape_step_values(&e->y->shape);
    sap_text_add(text, "        memcpy(y + t * %lld, sum, %lld * sizeof *y);\n    }\n", (long long)out, (long long)out);
    return SAP_OK;
}
