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

/* low[j]: what is added to the score of key j, 0 or so much that nothing is left of it. */
static void emit_low(const attention *a, const char *keys) {
    sap_text *text = &a->e->source->functions;
    const char *key = a->x[KEY]->mask, *value = a->x[VALUE]->mask;
    sap_text_add(text, "    for (int32_t j = 0; j < padded; j++)\n        low[j] = j >= %s ? -2e30F", keys);
    if (key)
        sap_text_add(text, " : !%s[j] ? -1e30F", key);
    if (value && (!key || strcmp(key, value) != 0))
        sap_text_add(text, " : !%s[j] ? -1e30F", value);
    sap_text_add(text, " : 0;\n");
}

/* The context of query t, whose projection is `sum`: values weighted by the softmax of its scores. A query that may look at no key
 * has equal scores for all of them, and gets the mean of all values; or 0 where the layer has a dropout. Both as in Keras. */
static void emit_context(const attention *a, long long most) {
    sap_source *source = a->e->source;
    sap_text *text = &source->functions;
    const char *query = a->x[QUERY]->mask, *low = "low[j]";
    long long value_dim = (long long)a->value_dim, value_width = (long long)sap_source_width(a->value_dim);
    const char *scale = sap_source_number(source, (float)(1 / sqrt((double)a->key_dim)));
    sap_source_use(source, SAP_HELPER_EXP);
    sap_source_use(source, SAP_HELPER_SUM);
    sap_source_use(source, SAP_HELPER_MOST);
    bool causal = sap_attention_is_causal(a->e->layer);
    if (causal || query) { /* keys that are not there stay lowest */
        low = "own[j]";
        sap_text_add(text,
                     "        float own[%lld];\n"
                     "        for (int32_t j = 0; j < padded; j++)\n"
                     "            own[j] = (%s%s%s) && low[j] > -1e30F ? -1e30F : low[j];\n",
                     most, causal ? "j > t" : "", causal && query ? " || " : "",
                     query ? sap_source_text(source, "!%s[t]", query) : "");
        sap_source_keep(source, most);
    }
    sap_text_add(text,
                 "        for (int32_t h = 0; h < %lld; h++) {\n"
                 "            const float *query = sum + h * %lld;\n"
                 "            for (int32_t j = 0; j < padded; j++)\n"
                 "                score[j] = 0;\n",
                 (long long)a->heads, (long long)a->key_dim);
    if (a->key_dim / 4)
        sap_source_product_of(source, 12, "score", "padded", "query",
                              sap_source_text(source, "%lld", (long long)(a->key_dim / 4 * 4)), "k[h]");
    if (a->key_dim % 4)
        sap_text_add(text,
                     "            for (int32_t i = %lld; i < %lld; i++)\n"
                     "                for (int32_t j = 0; j < padded; j++)\n"
                     "                    score[j] += query[i] * k[h][i][j];\n",
                     (long long)(a->key_dim / 4 * 4), (long long)a->key_dim);
    sap_text_add(text,
                 "            for (int32_t j = 0; j < padded; j++)\n"
                 "                score[j] = score[j] * %s + %s;\n"
                 "            float most = most_of(score, padded);\n"
                 "            for (int32_t j = 0; j < padded; j++)\n"
                 "                score[j] = exp_of(score[j] - most);\n"
                 "            float share = 1 / sum_of(score, padded), context[%lld] = {0};\n",
                 scale, low, value_width);
    if (a->e->layer->rate > 0)
        sap_text_add(text, "            share = most > -1e29F ? share : 0;\n");
    sap_source_product_of(source, 12, "context", sap_source_text(source, "%lld", value_width), "score", "padded",
                          "v[h]");
    sap_text_add(text,
                 "            for (int32_t d = 0; d < %lld; d++)\n"
                 "                q[t * %lld + h * %lld + d] = context[d] * share;\n"
                 "        }\n",
                 value_dim, (long long)(a->heads * a->value_dim), value_dim);
}

static int64_t keys_room(int64_t keys) {
    return (keys + SAP_LANES - 1) / SAP_LANES * SAP_LANES;
}

/* k[h][d][j], v[h][j][d] with zeros behind the last key, and room for the contexts. */
static void emit_memory(const attention *a, int64_t queries, int64_t keys) {
    long long heads = (long long)a->heads, most = (long long)keys_room(keys);
    long long value_width = (long long)sap_source_width(a->value_dim), contexts = queries * a->heads * a->value_dim;
    sap_text_add(&a->e->source->functions,
                 "    float k[%lld][%lld][%lld], v[%lld][%lld][%lld] = {0}, q[%lld], score[%lld], low[%lld];\n", heads,
                 (long long)a->key_dim, most, heads, most, value_width, contexts, most, most);
    sap_source_keep(a->e->source, heads * most * (a->key_dim + value_width) + contexts + 2 * most);
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
    long long key_dim = (long long)a.key_dim, value_dim = (long long)a.value_dim, heads = (long long)a.heads;
    const char *queries = sap_source_steps(source, a.x[QUERY]), *keys = sap_source_steps(source, a.x[KEY]);
    sap_text *text = &source->functions;
    emit_memory(&a, a.x[QUERY]->shape.dims[0], a.x[KEY]->shape.dims[0]);
    sap_text_add(text, "    int32_t padded = (%s + 7) / 8 * 8;\n    padded = padded ? padded : 8;\n", keys);
    emit_low(&a, keys);
    begin_projection(&a, KEY, "key", keys, a.x[KEY]->place);
    sap_text_add(text,
                 "        for (int32_t h = 0; h < %lld; h++)\n"
                 "            for (int32_t d = 0; d < %lld; d++)\n"
                 "                k[h][d][t] = sum[h * %lld + d];\n"
                 "    }\n"
                 "    for (int32_t h = 0; h < %lld; h++)\n"
                 "        for (int32_t d = 0; d < %lld; d++)\n"
                 "            for (int32_t j = %s; j < padded; j++)\n"
                 "                k[h][d][j] = 0;\n",
                 heads, key_dim, key_dim, heads, key_dim, keys);
    begin_projection(&a, VALUE, "value", keys, a.x[VALUE]->place);
    sap_text_add(text,
                 "        for (int32_t h = 0; h < %lld; h++)\n"
                 "            for (int32_t d = 0; d < %lld; d++)\n"
                 "                v[h][t][d] = sum[h * %lld + d];\n"
                 "    }\n",
                 heads, value_dim, value_dim);
    begin_projection(&a, QUERY, "query", queries, a.x[QUERY]->place);
    emit_context(&a, (long long)keys_room(a.x[KEY]->shape.dims[0]));
    sap_text_add(text, "    }\n");
    begin_projection(&a, OUTPUT, "output", queries, "q");
    int64_t out = sap_shape_step_values(&e->y->shape);
    sap_text_add(text, "        memcpy(y + t * %lld, sum, %lld * sizeof *y);\n    }\n", (long long)out, (long long)out);
    return SAP_OK;
}
