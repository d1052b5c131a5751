/* MultiHeadAttention. Events are taken out of the tile one by one: the columns of the tiles here are the tokens of one
 * event (attention.h), so that projections are the same products as those of a dense layer. */
#include "attention.h"
#include "nn_internal.h"

#include <math.h>

typedef struct attention_settings {
    int64_t heads, key_dim, value_dim;
    sap_shape output; /* of a token; rank 0: as many numbers as the query has */
    bool use_bias, causal;
    sap_initializer kernel, bias;
} attention_settings;

enum { QUERY, KEY, VALUE, OUTPUT }; /* the projections, in the order of their weights */

/* ---- Settings, shapes, weights -------------------------------------------------------------------------- */

bool sap_attention_is_causal(const sap_layer *layer) {
    return ((const attention_settings *)layer->settings)->causal;
}

/* Attention along the only axis there is, which may be named or not. */
static bool is_first_axis(const json_t *axes) {
    if (json_is_array(axes) && json_array_size(axes) == 1)
        axes = json_array_get(axes, 0);
    return !axes || json_is_null(axes) || (json_is_integer(axes) && json_integer_value(axes) == 1);
}

static sap_status check_attention(const sap_layer *layer, const json_t *config, sap_error *err) {
    if (!is_first_axis(json_object_get(config, "attention_axes")))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"attention_axes\" other than the time", layer->where);
    if (sap_config_flag(config, "use_gate", false))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with \"use_gate\"", layer->where);
    const json_t *window = json_object_get(config, "sliding_window");
    if (window && !json_is_null(window))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a \"sliding_window\"", layer->where);
    return SAP_OK;
}

static sap_status parse_attention(sap_layer *layer, const json_t *config, sap_error *err) {
    attention_settings *s = sap_arena_array(layer->arena, 1, sizeof *s);
    if (!s)
        return sap_error_memory(err, layer->where);
    layer->settings = s;
    SAP_TRY(check_attention(layer, config, err));
    SAP_TRY(sap_config_integer(layer, config, "num_heads", 1, 65536, &s->heads, err));
    SAP_TRY(sap_config_integer(layer, config, "key_dim", 1, 65536, &s->key_dim, err));
    s->value_dim = s->key_dim;
    const json_t *value_dim = json_object_get(config, "value_dim");
    if (value_dim && !json_is_null(value_dim))
        SAP_TRY(sap_config_integer(layer, config, "value_dim", 1, 65536, &s->value_dim, err));
    s->use_bias = sap_config_flag(config, "use_bias", true);
    s->causal = sap_config_flag(config, "use_causal_mask", false); /* an argument of the call, put among the settings */
    layer->rate = sap_config_number(config, "dropout", 0);
    if (!(layer->rate >= 0 && layer->rate <= 1))
        return sap_error_set(err, SAP_EFORMAT, "%s: \"dropout\" is not between 0 and 1", layer->where);
    const json_t *output = json_object_get(config, "output_shape");
    if (json_is_integer(output))
        s->output = (sap_shape){1, {json_integer_value(output)}};
    else if (output && !json_is_null(output))
        SAP_TRY(sap_config_shape(layer, output, 0, &s->output, err));
    for (int32_t i = 0; i < s->output.rank; i++)
        if (s->output.dims[i] < 1 || s->output.rank > SAP_RANK - 2)
            return sap_error_set(err, SAP_EFORMAT, "%s: \"output_shape\" makes no sense", layer->where);
    SAP_TRY(sap_initializer_parse(json_object_get(config, "kernel_initializer"), "glorot_uniform", layer->where,
                                  &s->kernel, err));
    return sap_initializer_parse(json_object_get(config, "bias_initializer"), "zeros", layer->where, &s->bias, err);
}

static void add_projection(sap_layer *layer, const char *group, const sap_shape *kernel, int32_t bias_rank) {
    const attention_settings *s = layer->settings;
    sap_layer_add_weight(layer, "kernel", kernel, &s->kernel, true)->group = group;
    sap_shape bias = {.rank = bias_rank};
    memcpy(bias.dims, kernel->dims + kernel->rank - bias_rank, (size_t)bias_rank * sizeof *bias.dims);
    if (s->use_bias)
        sap_layer_add_weight(layer, "bias", &bias, &s->bias, true)->group = group;
}

static const sap_layer_weight *kernel_of(const sap_layer *layer, int projection) {
    const attention_settings *s = layer->settings;
    return &layer->weights[s->use_bias ? 2 * projection : projection];
}

static sap_status build_attention(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                  sap_error *err) {
    const attention_settings *s = layer->settings;
    const sap_shape *query = &inputs[0], *value = &inputs[1], *key = &inputs[count == 3 ? 2 : 1];
    if (query->rank != 2 || value->rank != 2 || key->rank != 2)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs that are not (time, values)", layer->where);
    if (key->dims[0] != value->dims[0])
        return sap_error_set(err, SAP_EFORMAT, "%s: %lld keys and %lld values", layer->where, (long long)key->dims[0],
                             (long long)value->dims[0]);
    /* where places count, padding may not be taken out of each sequence for itself */
    if (count == 3 || s->causal)
        layer->padding = SAP_PADDING_ALWAYS;
    sap_shape output = s->output.rank ? s->output : (sap_shape){1, {query->dims[1]}};
    sap_shape kernel = {2 + output.rank, {s->heads, s->value_dim}};
    memcpy(kernel.dims + 2, output.dims, (size_t)output.rank * sizeof *output.dims);
    if (first) {
        add_projection(layer, "query_dense", &(sap_shape){3, {query->dims[1], s->heads, s->key_dim}}, 2);
        add_projection(layer, "key_dense", &(sap_shape){3, {key->dims[1], s->heads, s->key_dim}}, 2);
        add_projection(layer, "value_dense", &(sap_shape){3, {value->dims[1], s->heads, s->value_dim}}, 2);
        add_projection(layer, "output_dense", &kernel, output.rank);
    }
    const int64_t widths[] = {query->dims[1], key->dims[1], value->dims[1]};
    for (int i = QUERY; i <= VALUE; i++)
        if (kernel_of(layer, i)->shape.dims[0] != widths[i])
            return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different widths", layer->where);
    if (memcmp(kernel_of(layer, OUTPUT)->shape.dims, kernel.dims, (size_t)kernel.rank * sizeof *kernel.dims) != 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on queries of different widths", layer->where);
    *out = (sap_shape){1 + output.rank, {query->dims[0]}};
    memcpy(out->dims + 1, output.dims, (size_t)output.rank * sizeof *output.dims);
    return SAP_OK;
}

/* ---- The tokens of an event ----------------------------------------------------------------------------- */

/* A step in a tile. */
typedef struct place {
    int64_t start; /* columns before */
    int32_t width, step;
} place;

/* Tokens of one event in one tensor: `all` steps, of which the last `repeat` may be one token, so that there are `count`
 * different ones. */
typedef struct sequence {
    int row;
    int64_t values; /* a step */
    place *places;  /* (all) */
    int64_t all, count, repeat;
} sequence;

static int64_t tile_width(int64_t tokens, int64_t first) {
    return sap_tokens_room(tokens - first < SAP_TILE ? tokens - first : SAP_TILE);
}

/* Value 0 of token i in tiles of tokens; the next values stand *width apart. */
static int64_t token_at(const sequence *s, int64_t i, int64_t *width) {
    int64_t first = i - i % SAP_TILE;
    *width = tile_width(s->count, first);
    return first * s->values + i % SAP_TILE;
}

static int64_t place_at(const sequence *s, int64_t i) {
    return s->places[i].start * s->values + s->row;
}

/* Copies the tokens out of a tensor; columns behind the last one become 0. */
static void gather(const sequence *s, const float *x, float *to) {
    int64_t last = s->count - s->count % SAP_TILE, width = sap_tokens_room(s->count - last);
    memset(to + last * s->values, 0, (size_t)(width * s->values) * sizeof *to);
    for (int64_t i = 0; i < s->count; i++) {
        const float *from = x + place_at(s, i);
        float *token = to + token_at(s, i, &width);
        for (int64_t f = 0; f < s->values; f++)
            token[f * width] = from[f * s->places[i].width];
    }
}

/* The same for gradients: those of equal tokens are summed. */
static void collect(const sequence *s, const float *dy, float *to) {
    gather(s, dy, to);
    int64_t width;
    float *token = to + token_at(s, s->count - 1, &width);
    for (int64_t i = s->count; i < s->all; i++)
        for (int64_t f = 0; f < s->values; f++)
            token[f * width] += dy[place_at(s, i) + f * s->places[i].width];
}

/* Copies tokens back into a tensor. */
static void spread(const sequence *s, const float *from, float *y) {
    for (int64_t i = 0; i < s->all; i++) {
        int64_t width, at = token_at(s, i < s->count ? i : s->count - 1, &width);
        for (int64_t f = 0; f < s->values; f++)
            y[place_at(s, i) + f * s->places[i].width] = from[at + f * width];
    }
}

/* Adds gradients to those of a tensor: equal tokens share theirs. */
static void share(const sequence *s, const float *from, float *dx) {
    for (int64_t i = 0; i < s->all; i++) {
        int64_t width, at = token_at(s, i < s->count ? i : s->count - 1, &width);
        float part = i < s->count - 1 ? 1 : 1 / (float)s->repeat;
        for (int64_t f = 0; f < s->values; f++)
            dx[place_at(s, i) + f * s->places[i].width] += part * from[at + f * width];
    }
}

/* All steps of a row. */
static void list_steps(const sap_steps *steps, const sap_pass *pass, int row, int64_t values, sequence *s) {
    s->row = row;
    s->values = values;
    s->all = steps->length[row];
    for (sap_block b = sap_block_first(pass, steps); b.step < s->all; sap_block_next(steps, &b))
        s->places[b.step] = (place){b.start, b.width, b.step};
    s->count = s->all;
    s->repeat = 1;
}

/* How many of the last steps are the same in x. */
static int64_t equal_tail(const sequence *s, const float *x) {
    int64_t same = 1;
    for (; same < s->all; same++) {
        const float *a = x + place_at(s, s->all - same), *b = x + place_at(s, s->all - same - 1);
        int64_t f = 0, a_step = s->places[s->all - same].width, b_step = s->places[s->all - same - 1].width;
        while (f < s->values && a[f * a_step] == b[f * b_step])
            f++;
        if (f < s->values)
            break;
    }
    return same;
}

static void collapse(sequence *s, int64_t repeat) {
    s->repeat = repeat;
    s->count = s->all - repeat + 1;
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

/* What one event takes, in the work of a call; places of tokens besides. */
typedef struct buffers {
    float *xq, *xk, *xv, *q, *k, *v, *context, *statistic, *y; /* tiles of tokens */
    float *dy, *dcontext, *dq, *dk, *dv, *dxq, *dxk, *dxv;     /* backward */
    float *blank_x, *blank_v, *blank_y, *blank_dv;             /* tiles of one token: what masked queries get */
    float *kernel;
    int32_t *limit;
    place *queries, *keys, *values, *blank; /* places */
} buffers;

/* For `queries` and `keys` steps; x, y: shapes of the call. Returns how many floats there are. */
static int64_t lay_out(const sap_layer *layer, const sap_shape *y, int64_t queries, int64_t keys, float *memory,
                       buffers *b) {
    const attention_settings *s = layer->settings;
    int64_t in[3], out = sap_shape_step_values(y);
    for (int i = QUERY; i <= VALUE; i++)
        in[i] = kernel_of(layer, i)->shape.dims[0];
    int64_t key_values = s->heads * s->key_dim, value_values = s->heads * s->value_dim;
    int64_t q = sap_tokens_room(queries), k = sap_tokens_room(keys), place_floats = sizeof(place) / sizeof(float);
    sap_carving p = {.memory = memory};
    b->xq = sap_carve(&p, q * in[QUERY]);
    b->xk = sap_carve(&p, k * in[KEY]);
    b->xv = sap_carve(&p, k * in[VALUE]);
    b->q = sap_carve(&p, q * key_values);
    b->k = sap_carve(&p, k * key_values);
    b->v = sap_carve(&p, k * value_values);
    b->context = sap_carve(&p, q * value_values);
    b->statistic = sap_carve(&p, q * s->heads);
    b->y = sap_carve(&p, q * out);
    b->dy = sap_carve(&p, q * out);
    b->dcontext = sap_carve(&p, q * value_values);
    b->dq = sap_carve(&p, q * key_values);
    b->dk = sap_carve(&p, k * key_values);
    b->dv = sap_carve(&p, k * value_values);
    b->dxq = sap_carve(&p, q * in[QUERY]);
    b->dxk = sap_carve(&p, k * in[KEY]);
    b->dxv = sap_carve(&p, k * in[VALUE]);
    b->blank_x = sap_carve(&p, SAP_COLUMNS * in[VALUE]);
    b->blank_v = sap_carve(&p, SAP_COLUMNS * value_values);
    b->blank_y = sap_carve(&p, SAP_COLUMNS * out);
    b->blank_dv = sap_carve(&p, SAP_COLUMNS * value_values);
    b->kernel = sap_carve(&p, sap_attention_work(s->key_dim));
    b->limit = sap_carve(&p, q);
    b->queries = sap_carve(&p, queries * place_floats);
    b->blank = sap_carve(&p, queries * place_floats);
    b->keys = sap_carve(&p, keys * place_floats);
    b->values = sap_carve(&p, keys * place_floats);
    return p.used;
}

/* Floats that an event keeps for its backward pass: context and statistic. */
static int64_t kept_by_event(const sap_layer *layer, int64_t queries) {
    const attention_settings *s = layer->settings;
    return sap_tokens_room(queries) * s->heads * (s->value_dim + 1);
}

static void attention_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode,
                            sap_needs *out) {
    buffers b;
    out->work = lay_out(layer, y, x[0]->dims[0], x[1]->dims[0], NULL, &b);
    if (mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE)
        out->kept = SAP_TILE * kept_by_event(layer, x[0]->dims[0]);
}

/* ---- An event ------------------------------------------------------------------------------------------- */

typedef struct event {
    const sap_call *call;
    const attention_settings *settings;
    buffers b;
    int32_t key_input;             /* its number among the inputs */
    sequence query, key, value;    /* tokens that meet */
    sequence blank;                /* queries that may look at no key */
    sequence output, blank_output; /* the same tokens as query and blank in y */
    bool limited;                  /* b.limit holds */
} event;

static bool counts(const sap_call *call, int32_t input, const sequence *s, int64_t i) {
    const uint8_t *mask = call->x_mask ? call->x_mask[input] : NULL;
    return !mask || mask[s->places[i].start + s->row];
}

/* Leaves out keys whose key or value is masked. */
static void choose_keys(event *e) {
    int64_t kept = 0, steps = e->key.all < e->value.all ? e->key.all : e->value.all;
    for (int64_t i = 0; i < steps; i++) {
        if (!counts(e->call, e->key_input, &e->key, i) || !counts(e->call, 1, &e->value, i))
            continue;
        e->key.places[kept] = e->key.places[i];
        e->value.places[kept++] = e->value.places[i];
    }
    e->key.all = e->key.count = e->value.all = e->value.count = kept;
}

/* Parts the queries into those that meet keys and those that meet none. */
static void choose_queries(event *e) {
    int64_t kept = 0, blank = 0, keys = 0;
    for (int64_t i = 0; i < e->query.all; i++) {
        place at = e->query.places[i];
        bool meets = e->key.all > 0 && counts(e->call, 0, &e->query, i);
        if (meets && e->settings->causal) {
            while (keys < e->key.all && e->key.places[keys].step <= at.step)
                keys++;
            meets = keys > 0;
            e->b.limit[kept] = (int32_t)keys;
        }
        if (meets)
            e->query.places[kept++] = at;
        else
            e->blank.places[blank++] = at;
    }
    e->query.all = e->query.count = kept;
    e->blank.all = blank;
    e->blank.count = blank ? 1 : 0;
    e->blank.repeat = blank;
    e->limited = e->settings->causal;
}

static bool drops(const event *e) {
    return e->call->pass->training && e->call->layer->rate > 0;
}

/* Which tokens the row has. Equal ones at its end (padding that no mask hides) are taken as one. A query whose gradient
 * is wanted for itself stands alone. */
static void find_tokens(event *e, int row) {
    const sap_call *call = e->call;
    e->query.places = e->b.queries;
    e->key.places = e->b.keys;
    e->value.places = e->b.values;
    list_steps(call->x_steps[0], call->pass, row, call->x_shape[0]->dims[1], &e->query);
    list_steps(call->x_steps[e->key_input], call->pass, row, call->x_shape[e->key_input]->dims[1], &e->key);
    list_steps(call->x_steps[1], call->pass, row, call->x_shape[1]->dims[1], &e->value);
    e->blank = e->query;
    e->blank.places = e->b.blank;
    choose_keys(e);
    choose_queries(e);
    if (!drops(e) && !e->limited && e->key.all > 0) {
        int64_t keys = equal_tail(&e->key, call->x[e->key_input]), values = equal_tail(&e->value, call->x[1]);
        collapse(&e->key, keys < values ? keys : values);
        collapse(&e->value, e->key.repeat);
        if (e->query.all > 0 && !call->dx[0])
            collapse(&e->query, equal_tail(&e->query, call->x[0]));
    }
    e->output = e->query;
    e->blank_output = e->blank;
    e->output.values = e->blank_output.values = sap_shape_step_values(call->shape);
}

/* Sets up the memory for one row. */
static void start_event(event *e, const sap_call *call, int row) {
    *e = (event){.call = call, .settings = call->layer->settings, .key_input = call->input_count == 3 ? 2 : 1};
    int64_t queries = call->x_steps[0]->count, keys = call->x_steps[1]->count;
    if (call->x_steps[e->key_input]->count > keys)
        keys = call->x_steps[e->key_input]->count;
    (void)lay_out(call->layer, call->shape, queries, keys, call->work, &e->b);
    if (call->kept) {
        e->b.context = call->kept + row * kept_by_event(call->layer, queries);
        e->b.statistic = e->b.context + sap_tokens_room(queries) * e->settings->heads * e->settings->value_dim;
    }
    find_tokens(e, row);
}

/* One projection of tokens, (in) to (out) numbers each, or back. */
static void project(const event *e, int projection, bool back, int64_t tokens, const float *x, float *y, bool add) {
    const sap_layer_weight *weight = kernel_of(e->call->layer, projection);
    const float *values = e->call->pass->values;
    int64_t in = weight->shape.dims[0] * (projection == OUTPUT ? weight->shape.dims[1] : 1);
    int64_t out = sap_shape_values(&weight->shape) / in, rows = back ? in : out, depth = back ? out : in;
    for (int64_t first = 0; first < tokens; first += SAP_TILE)
        e->call->pass->kernels->product(&(sap_product){
            .rows = rows,
            .depth = depth,
            .w = values + weight->offset,
            .row_step = back ? out : 1,
            .depth_step = back ? 1 : out,
            .width = (int)tile_width(tokens, first),
            .x = x + first * depth,
            .y = y + first * rows,
            .bias = e->settings->use_bias && !back ? values + weight[1].offset : NULL,
            .add = add,
        });
}

/* Adds to the gradients of a projection's weights. */
static void project_gradient(const event *e, int projection, int64_t tokens, const float *x, const float *d) {
    const sap_layer_weight *weight = kernel_of(e->call->layer, projection);
    float *gradients = e->call->pass->gradients;
    int64_t in = weight->shape.dims[0] * (projection == OUTPUT ? weight->shape.dims[1] : 1);
    int64_t out = sap_shape_values(&weight->shape) / in;
    for (int64_t first = 0; e->call->layer->trainable && first < tokens; first += SAP_TILE)
        e->call->pass->kernels->outer(in, out, (int)tile_width(tokens, first), x + first * in, d + first * out,
                                      gradients + weight->offset,
                                      e->settings->use_bias ? gradients + weight[1].offset : NULL);
}

static sap_attention attention_of(const event *e) {
    const attention_settings *s = e->settings;
    const sap_call *call = e->call;
    const buffers *b = &e->b;
    uint64_t key = sap_mix(call->pass->event_keys[e->query.row], call->key);
    double rate = call->layer->rate;
    return (sap_attention){
        .heads = s->heads,
        .key_dim = s->key_dim,
        .value_dim = s->value_dim,
        .queries = e->query.count,
        .keys = e->key.count,
        .scale = (float)(1 / sqrt((double)s->key_dim)),
        .repeat = (float)e->key.repeat,
        .limit = e->limited ? b->limit : NULL,
        .drop = drops(e),
        .threshold = sap_dropout_threshold(rate),
        .key_a = (uint32_t)key,
        .key_b = (uint32_t)(key >> 32),
        .kept = rate < 1 ? (float)(1 / (1 - rate)) : 0,
        .q = b->q,
        .k = b->k,
        .v = b->v,
        .y = b->context,
        .statistic = b->statistic,
        .dy = b->dcontext,
        .dq = b->dq,
        .dk = b->dk,
        .dv = b->dv,
        .work = b->kernel,
    };
}

/* Keys and values come from one tensor. */
static bool shares_keys(const event *e) {
    return e->key_input == 1 || e->call->x[1] == e->call->x[e->key_input];
}

/* Queries, keys and values; forward, and again backward. */
static void project_tokens(event *e) {
    const sap_call *call = e->call;
    gather(&e->query, call->x[0], e->b.xq);
    gather(&e->value, call->x[1], e->b.xv);
    if (shares_keys(e))
        e->b.xk = e->b.xv;
    else
        gather(&e->key, call->x[e->key_input], e->b.xk);
    project(e, QUERY, false, e->query.count, e->b.xq, e->b.q, false);
    project(e, KEY, false, e->key.count, e->b.xk, e->b.k, false);
    project(e, VALUE, false, e->value.count, e->b.xv, e->b.v, false);
}

/* ---- Queries that meet no key --------------------------------------------------------------------------- */

/* As Keras has it: without dropout in the settings such a query gets the mean of all values, masked or not, since all
 * scores are the same large negative number; with dropout it gets 0. */
static void find_blank_value(const event *e) {
    const sap_call *call = e->call;
    const sap_steps *steps = call->x_steps[1];
    int64_t values = call->x_shape[1]->dims[1], count = steps->length[e->blank.row];
    memset(e->b.blank_x, 0, (size_t)(SAP_COLUMNS * values) * sizeof(float));
    if (call->layer->rate > 0 || count == 0) {
        memset(e->b.blank_v, 0, (size_t)(SAP_COLUMNS * e->settings->heads * e->settings->value_dim) * sizeof(float));
        return;
    }
    for (sap_block b = sap_block_first(call->pass, steps); b.step < count; sap_block_next(steps, &b))
        for (int64_t f = 0; f < values; f++)
            e->b.blank_x[f * SAP_COLUMNS] += call->x[1][b.start * values + f * b.width + e->blank.row] / (float)count;
    project(e, VALUE, false, 1, e->b.blank_x, e->b.blank_v, false);
}

static void blank_forward(const event *e) {
    find_blank_value(e);
    project(e, OUTPUT, false, 1, e->b.blank_v, e->b.blank_y, false);
    spread(&e->blank_output, e->b.blank_y, e->call->y);
}

static void blank_backward(const event *e) {
    const sap_call *call = e->call;
    const sap_steps *steps = call->x_steps[1];
    int64_t values = call->x_shape[1]->dims[1], count = steps->length[e->blank.row];
    find_blank_value(e);
    collect(&e->blank_output, call->dy, e->b.blank_y);
    project_gradient(e, OUTPUT, 1, e->b.blank_v, e->b.blank_y);
    if (call->layer->rate > 0 || count == 0)
        return;
    project(e, OUTPUT, true, 1, e->b.blank_y, e->b.blank_dv, false);
    project_gradient(e, VALUE, 1, e->b.blank_x, e->b.blank_dv);
    if (!call->dx[1])
        return;
    project(e, VALUE, true, 1, e->b.blank_dv, e->b.blank_x, false);
    for (sap_block b = sap_block_first(call->pass, steps); b.step < count; sap_block_next(steps, &b))
        for (int64_t f = 0; f < values; f++)
            call->dx[1][b.start * values + f * b.width + e->blank.row] += e->b.blank_x[f * SAP_COLUMNS] / (float)count;
}

/* ---- Forward and backward ------------------------------------------------------------------------------- */

static void attention_forward(const sap_call *call) {
    memset(call->y, 0, (size_t)(sap_shape_step_values(call->shape) * sap_call_columns(call)) * sizeof *call->y);
    for (int row = 0; row < call->pass->rows; row++) {
        event e;
        start_event(&e, call, row);
        if (e.query.count > 0) {
            project_tokens(&e);
            sap_attention attention = attention_of(&e);
            call->pass->kernels->attention->forward(&attention);
            project(&e, OUTPUT, false, e.query.count, e.b.context, e.b.y, false);
            spread(&e.output, e.b.y, call->y);
        }
        if (e.blank.count > 0)
            blank_forward(&e);
    }
}

/* Gradients of the inputs, from those of queries, keys and values. */
static void pass_back(const event *e) {
    const sap_call *call = e->call;
    const buffers *b = &e->b;
    bool one = shares_keys(e);
    if (call->dx[0]) {
        project(e, QUERY, true, e->query.count, b->dq, b->dxq, false);
        share(&e->query, b->dxq, call->dx[0]);
    }
    if (call->dx[1]) {
        project(e, VALUE, true, e->value.count, b->dv, b->dxv, false);
        if (one)
            project(e, KEY, true, e->key.count, b->dk, b->dxv, true);
        share(&e->value, b->dxv, call->dx[1]);
    }
    if (!one && call->dx[e->key_input]) {
        project(e, KEY, true, e->key.count, b->dk, b->dxk, false);
        share(&e->key, b->dxk, call->dx[e->key_input]);
    }
}

static void attention_backward(const sap_call *call) {
    for (int32_t i = 0; i < call->input_count; i++)
        if (call->dx[i] && !call->add[i])
            memset(call->dx[i], 0,
                   (size_t)(call->x_shape[i]->dims[1] * sap_steps_columns(call->x_steps[i])) * sizeof(float));
    for (int row = 0; row < call->pass->rows; row++) {
        event e;
        start_event(&e, call, row);
        if (e.query.count > 0) {
            project_tokens(&e);
            collect(&e.output, call->dy, e.b.dy);
            project_gradient(&e, OUTPUT, e.query.count, e.b.context, e.b.dy);
            project(&e, OUTPUT, true, e.query.count, e.b.dy, e.b.dcontext, false);
            sap_attention attention = attention_of(&e);
            call->pass->kernels->attention->backward(&attention);
            project_gradient(&e, QUERY, e.query.count, e.b.xq, e.b.dq);
            project_gradient(&e, KEY, e.key.count, e.b.xk, e.b.dk);
            project_gradient(&e, VALUE, e.value.count, e.b.xv, e.b.dv);
            pass_back(&e);
        }
        if (e.blank.count > 0)
            blank_backward(&e);
    }
}

const sap_layer_class sap_class_multi_head_attention = {
    .name = "MultiHeadAttention",
    .inputs_least = 2,
    .inputs_most = 3,
    .padding = SAP_PADDING_NEVER,
    .mask = SAP_MASK_PASS,
    .parse = parse_attention,
    .build = build_attention,
    .needs = attention_needs,
    .forward = attention_forward,
    .backward = attention_backward,
};

bool sap_attention_means_all(const sap_layer *layer) {
    return layer->class_of == &sap_class_multi_head_attention && layer->rate == 0;
}
