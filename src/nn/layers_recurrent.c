/* SimpleRNN, GRU, LSTM, and Bidirectional around them.
 *
 * Kernels take the steps that count, one after another. Where masked steps are still there (a dense mask), they are
 * taken out before and their outputs put back after; so is a sequence given back in reverse order.
 */
#include "nn_internal.h"
#include "recurrent.h"
#include "recurrent_layer.h"

typedef struct cell_settings {
    sap_cell cell;
    bool reverse, use_bias, forget_bias; /* forget_bias: the forget gate's begins as 1 */
    double dropout, recurrent_dropout;
    int64_t units;
    sap_activation activation, recurrent_activation;
    sap_initializer kernel, recurrent_kernel, bias;
    const char *group;
    int32_t weight; /* its first one */
} cell_settings;

typedef enum merge { MERGE_CONCAT, MERGE_SUM, MERGE_MUL, MERGE_AVE } merge;

typedef struct recurrent_settings {
    int count; /* of cells: 2 if Bidirectional */
    cell_settings cells[2];
    bool sequences;   /* all states are given back, else the last one */
    bool zero_masked; /* the output at a masked step is 0, else the one before */
    merge merge;
} recurrent_settings;

/* ---- Settings ------------------------------------------------------------------------------------------- */

static sap_status refuse_flags(const sap_layer *layer, const json_t *config, sap_error *err) {
    static const char *const keys[] = {"return_state", "stateful", "time_major"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (sap_config_flag(config, keys[i], false))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with \"%s\"", layer->where, keys[i]);
    return SAP_OK;
}

static sap_status parse_rate(const sap_layer *layer, const json_t *config, const char *key, double *out,
                             sap_error *err) {
    *out = sap_config_number(config, key, 0);
    if (!(*out >= 0 && *out <= 1))
        return sap_error_set(err, SAP_EFORMAT, "%s: \"%s\" is not between 0 and 1", layer->where, key);
    if (*out == 1)
        *out = 0; /* Keras takes no notice of it */
    return SAP_OK;
}

static sap_status parse_initializers(const sap_layer *layer, const json_t *config, cell_settings *c, sap_error *err) {
    SAP_TRY(sap_initializer_parse(json_object_get(config, "kernel_initializer"), "glorot_uniform", layer->where,
                                  &c->kernel, err));
    SAP_TRY(sap_initializer_parse(json_object_get(config, "recurrent_initializer"), "orthogonal", layer->where,
                                  &c->recurrent_kernel, err));
    c->forget_bias = c->cell == SAP_CELL_LSTM && sap_config_flag(config, "unit_forget_bias", true);
    return sap_initializer_parse(json_object_get(config, "bias_initializer"), "zeros", layer->where, &c->bias, err);
}

static sap_status parse_cell(const sap_layer *layer, const char *class_name, const json_t *config, cell_settings *c,
                             sap_error *err) {
    SAP_TRY(refuse_flags(layer, config, err));
    if (strcmp(class_name, "SimpleRNN") == 0)
        c->cell = SAP_CELL_SIMPLE;
    else if (strcmp(class_name, "LSTM") == 0)
        c->cell = SAP_CELL_LSTM;
    else if (strcmp(class_name, "GRU") == 0)
        c->cell = sap_config_flag(config, "reset_after", true) ? SAP_CELL_GRU : SAP_CELL_GRU_BEFORE;
    else
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: around a %s", layer->where, class_name);
    SAP_TRY(sap_config_integer(layer, config, "units", 1, 65536, &c->units, err));
    c->use_bias = sap_config_flag(config, "use_bias", true);
    c->reverse = sap_config_flag(config, "go_backwards", false);
    SAP_TRY(parse_rate(layer, config, "dropout", &c->dropout, err));
    SAP_TRY(parse_rate(layer, config, "recurrent_dropout", &c->recurrent_dropout, err));
    SAP_TRY(parse_initializers(layer, config, c, err));
    const json_t *activation = json_object_get(config, "activation");
    const json_t *recurrent = json_object_get(config, "recurrent_activation");
    c->activation.kind = SAP_TANH;
    c->recurrent_activation.kind = SAP_SIGMOID;
    if (activation)
        SAP_TRY(sap_activation_parse(activation, layer->where, &c->activation, err));
    if (recurrent)
        SAP_TRY(sap_activation_parse(recurrent, layer->where, &c->recurrent_activation, err));
    if (c->activation.kind == SAP_LOG_SOFTMAX || c->recurrent_activation.kind == SAP_LOG_SOFTMAX)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with the activation log_softmax", layer->where);
    return SAP_OK;
}

static sap_status make_settings(sap_layer *layer, recurrent_settings **out, sap_error *err) {
    *out = sap_arena_array(layer->arena, 1, sizeof **out);
    layer->settings = *out;
    return *out ? SAP_OK : sap_error_memory(err, layer->where);
}

static sap_status parse_recurrent(sap_layer *layer, const json_t *config, sap_error *err) {
    recurrent_settings *s = NULL;
    SAP_TRY(make_settings(layer, &s, err));
    s->count = 1;
    s->cells[0].group = "cell";
    s->sequences = sap_config_flag(config, "return_sequences", false);
    s->zero_masked = sap_config_flag(config, "zero_output_for_mask", false);
    SAP_TRY(parse_cell(layer, layer->class_of->name, config, &s->cells[0], err));
    if (s->cells[0].reverse && s->sequences) /* Keras puts masked steps first then, where they are seen */
        layer->padding = SAP_PADDING_ALWAYS;
    return SAP_OK;
}

static sap_status parse_merge(const sap_layer *layer, const json_t *config, merge *out, sap_error *err) {
    static const char *const names[] = {
        [MERGE_CONCAT] = "concat", [MERGE_SUM] = "sum", [MERGE_MUL] = "mul", [MERGE_AVE] = "ave"};
    const json_t *mode = json_object_get(config, "merge_mode");
    if (!mode) {
        *out = MERGE_CONCAT;
        return SAP_OK;
    }
    for (int i = MERGE_CONCAT; i <= MERGE_AVE; i++)
        if (json_is_string(mode) && strcmp(json_string_value(mode), names[i]) == 0) {
            *out = (merge)i;
            return SAP_OK;
        }
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: \"merge_mode\" other than concat, sum, mul, ave", layer->where);
}

/* The layer inside: {"class_name": "LSTM", "config": …}. */
static sap_status parse_inner(const sap_layer *layer, const json_t *entry, cell_settings *c, bool *sequences,
                              sap_error *err) {
    const json_t *name = json_object_get(entry, "class_name"), *config = json_object_get(entry, "config");
    if (!json_is_string(name) || !json_is_object(config))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a \"layer\"", layer->where);
    *sequences = sap_config_flag(config, "return_sequences", false);
    return parse_cell(layer, json_string_value(name), config, c, err);
}

static sap_status parse_bidirectional(sap_layer *layer, const json_t *config, sap_error *err) {
    recurrent_settings *s = NULL;
    SAP_TRY(make_settings(layer, &s, err));
    bool backward_sequences = false;
    const json_t *forward = json_object_get(config, "layer"), *backward = json_object_get(config, "backward_layer");
    SAP_TRY(parse_merge(layer, config, &s->merge, err));
    SAP_TRY(parse_inner(layer, forward, &s->cells[0], &s->sequences, err));
    bool own = backward && !json_is_null(backward);
    SAP_TRY(parse_inner(layer, own ? backward : forward, &s->cells[1], &backward_sequences, err));
    s->cells[1].reverse = !own || s->cells[1].reverse;
    if (s->cells[0].reverse || !s->cells[1].reverse)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: whose first layer goes backwards, or second forwards",
                             layer->where);
    if (backward_sequences != s->sequences)
        return sap_error_set(err, SAP_EFORMAT, "%s: \"return_sequences\" of its layers differ", layer->where);
    if (s->cells[0].units != s->cells[1].units)
        return sap_error_set(err, SAP_EFORMAT, "%s: its layers have different \"units\"", layer->where);
    s->count = 2;
    s->cells[0].group = "forward_layer/cell";
    s->cells[1].group = "backward_layer/cell";
    s->zero_masked = s->sequences;
    return SAP_OK;
}

static void add_weights(sap_layer *layer, cell_settings *c, int64_t inputs) {
    int64_t all = sap_cell_gates(c->cell) * c->units;
    sap_shape kernel = {2, {inputs, all}}, recurrent_kernel = {2, {c->units, all}}, bias = {1, {all}};
    if (c->cell == SAP_CELL_GRU)
        bias = (sap_shape){2, {2, all}};
    c->weight = layer->weight_count;
    sap_layer_add_weight(layer, "kernel", &kernel, &c->kernel, true)->group = c->group;
    sap_layer_add_weight(layer, "recurrent_kernel", &recurrent_kernel, &c->recurrent_kernel, true)->group = c->group;
    if (!c->use_bias)
        return;
    sap_layer_weight *weight = sap_layer_add_weight(layer, "bias", &bias, &c->bias, true);
    weight->group = c->group;
    weight->ones_from = c->forget_bias ? c->units : 0;
    weight->ones = c->forget_bias ? c->units : 0;
}

/* Numbers of a step of the output. */
static int64_t output_values(const recurrent_settings *s) {
    return s->merge == MERGE_CONCAT ? s->count * s->cells[0].units : s->cells[0].units;
}

static sap_status build_recurrent(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                                  sap_error *err) {
    (void)count;
    recurrent_settings *s = layer->settings;
    if (inputs->rank != 2)
        return sap_error_set(err, SAP_EFORMAT, "%s: its input is not (time, values)", layer->where);
    for (int i = 0; first && i < s->count; i++)
        add_weights(layer, &s->cells[i], inputs->dims[1]);
    if (layer->weights[0].shape.dims[0] != inputs->dims[1])
        return sap_error_set(err, SAP_EFORMAT, "%s: is used on inputs of different widths", layer->where);
    int64_t values = output_values(s);
    *out = s->sequences ? (sap_shape){2, {inputs->dims[0], values}} : (sap_shape){1, {values}};
    return SAP_OK;
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

/* A cell on a tile. Pointers are into `kept` and `work` of the call. */
typedef struct cell_run {
    sap_recurrent r;
    sap_steps steps;  /* of the kernel, where they are not those of x */
    bool indirect;    /* x and y are not the kernel's own */
    int32_t *step_of; /* (steps, SAP_TILE) the step of x that the kernel's is */
    int32_t *from;    /* (steps, SAP_TILE) the kernel's step whose state an output shows; -1: 0 */
    float *x, *y;     /* of the kernel, where indirect */
    float *output;    /* what the cell gives, where that is merged; else NULL */
    float *x_mask, *h_mask;
} cell_run;

/* The part of a kernel's call that hangs on settings alone. training: dropout is on. */
static sap_recurrent describe_cell(const cell_settings *c, int64_t inputs, bool training) {
    int32_t gates = sap_cell_gates(c->cell);
    bool each = training && c->recurrent_dropout > 0; /* Keras: a mask for each gate then, else one for all */
    return (sap_recurrent){
        .cell = c->cell,
        .reverse = c->reverse,
        .inputs = inputs,
        .units = c->units,
        .activation = c->activation,
        .recurrent_activation = c->recurrent_activation,
        .x_masks = training && c->dropout > 0 ? (each ? gates : 1) : 0,
        .h_masks = each ? gates : 0,
    };
}

/* Lays out memory of cell i in `kept`. */
static void place_kept(const recurrent_settings *s, int i, int64_t inputs, int64_t steps, bool training, bool keeps,
                       cell_run *run, sap_carving *kept) {
    const cell_settings *c = &s->cells[i];
    int64_t columns = steps * SAP_TILE;
    run->r = describe_cell(c, inputs, training);
    run->step_of = sap_carve(kept, columns);
    run->from = sap_carve(kept, columns);
    run->x = sap_carve(kept, columns * inputs);
    run->y = sap_carve(kept, columns * c->units);
    if (s->count == 2 && s->merge != MERGE_CONCAT)
        run->output = sap_carve(kept, (s->sequences ? columns : SAP_TILE) * c->units);
    run->x_mask = sap_carve(kept, run->r.x_masks * inputs * SAP_TILE);
    run->h_mask = sap_carve(kept, run->r.h_masks * c->units * SAP_TILE);
    if (keeps)
        run->r.kept = sap_carve(kept, sap_recurrent_kept(&run->r, steps));
}

static void recurrent_needs(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode,
                            sap_needs *out) {
    (void)y;
    const recurrent_settings *s = layer->settings;
    int64_t steps = x[0]->dims[0], inputs = x[0]->dims[1], columns = steps * SAP_TILE;
    bool keeps = mode == SAP_DIFFERENTIATE || mode == SAP_TRAIN;
    sap_carving kept = {0};
    for (int i = 0; i < s->count; i++) {
        cell_run run = {0};
        place_kept(s, i, inputs, steps, mode == SAP_TRAIN, keeps, &run, &kept);
        /* backward besides: gradients of what is merged, and of the kernel's x and y */
        int64_t work = sap_recurrent_work(&run.r, keeps) + (keeps ? columns * (inputs + 2 * s->cells[i].units) : 0);
        out->work = work > out->work ? work : out->work;
    }
    out->kept = kept.used;
}

/* ---- Masks and reversed sequences ----------------------------------------------------------------------- */

static bool counts(const sap_call *call, int32_t t, int row) {
    const uint8_t *mask = call->x_mask ? call->x_mask[0] : NULL;
    sap_step_place p = sap_steps_place(call->x_steps[0], t);
    return !mask || mask[p.start + row];
}

/* Whether outputs come in the order in which steps were taken. */
static bool flips(const recurrent_settings *s) {
    return s->count == 1 && s->sequences && s->cells[0].reverse;
}

/* The steps that count, and which of them is where. */
static void find_steps(const sap_call *call, const recurrent_settings *s, cell_run *run) {
    const sap_steps *x_steps = call->x_steps[0];
    int32_t length[SAP_TILE] = {0};
    for (int row = 0; row < SAP_TILE; row++) {
        int32_t all = x_steps->length[row], last = -1;
        for (int32_t t = 0; t < all; t++)
            if (counts(call, t, row))
                run->step_of[(int64_t)length[row]++ * SAP_TILE + row] = t;
        int32_t j = run->r.reverse ? length[row] : -1;
        for (int32_t i = 0; i < all; i++) {
            int32_t t = run->r.reverse ? all - 1 - i : i, at = flips(s) ? i : t;
            bool here = counts(call, t, row);
            if (here)
                last = run->r.reverse ? --j : ++j;
            run->from[(int64_t)at * SAP_TILE + row] = here || !s->zero_masked ? last : -1;
        }
    }
    memcpy(run->steps.length, length, sizeof length);
    sap_steps_set(&run->steps, call->pass->width);
}

/* x of the kernel from that of the layer; zeros behind the length of a row. */
static void gather(const sap_call *call, const cell_run *run) {
    int64_t inputs = run->r.inputs;
    memset(run->x, 0, (size_t)(sap_steps_columns(&run->steps) * inputs) * sizeof *run->x);
    for (int32_t j = 0; j < run->steps.count; j++) {
        sap_step_place to = sap_steps_place(&run->steps, j);
        for (int row = 0; row < to.width; row++) {
            if (j >= run->steps.length[row])
                continue;
            sap_step_place from = sap_steps_place(call->x_steps[0], run->step_of[(int64_t)j * SAP_TILE + row]);
            for (int64_t v = 0; v < inputs; v++)
                run->x[to.start * inputs + v * to.width + row] = call->x[0][from.start * inputs + v * from.width + row];
        }
    }
}

/* Adds dx of the kernel to that of the layer. */
static void scatter(const sap_call *call, const cell_run *run, const float *dx) {
    int64_t inputs = run->r.inputs;
    for (int32_t j = 0; j < run->steps.count; j++) {
        sap_step_place from = sap_steps_place(&run->steps, j);
        for (int row = 0; row < from.width; row++) {
            if (j >= run->steps.length[row])
                continue;
            sap_step_place to = sap_steps_place(call->x_steps[0], run->step_of[(int64_t)j * SAP_TILE + row]);
            for (int64_t v = 0; v < inputs; v++)
                call->dx[0][to.start * inputs + v * to.width + row] += dx[from.start * inputs + v * from.width + row];
        }
    }
}

/* Where an output of the layer shows a state of the kernel: `values` apart from `first` on in y. */
typedef struct shown {
    int64_t values, first;
    float *y;
} shown;

/* From the kernel's states to outputs, or the other way their gradients, added up in `states`. */
static void spread(const sap_call *call, const cell_run *run, const shown *to, float *states, bool backward) {
    int64_t units = run->r.units;
    const sap_steps *steps = call->y_steps;
    for (int32_t t = 0; t < steps->count; t++) {
        sap_step_place p = sap_steps_place(steps, t);
        for (int row = 0; row < p.width; row++) {
            int32_t j = t < steps->length[row] ? run->from[(int64_t)t * SAP_TILE + row] : -1;
            sap_step_place q = j >= 0 ? sap_steps_place(&run->steps, j) : p;
            for (int64_t u = 0; u < units; u++) {
                float *y = &to->y[p.start * to->values + (to->first + u) * p.width + row];
                float *state = &states[q.start * units + u * q.width + row];
                if (!backward)
                    *y = j >= 0 ? *state : 0;
                else if (j >= 0)
                    *state += *y;
            }
        }
    }
}

/* ---- A cell on a tile ----------------------------------------------------------------------------------- */

/* Random masks of a cell: their numbers depend on seed, epoch, event, layer and place alone. */
static void make_masks(const sap_call *call, const cell_settings *c, int cell, cell_run *run) {
    _Alignas(64) float ones[SAP_TILE];
    uint32_t key_a[SAP_TILE], key_b[SAP_TILE];
    for (int t = 0; t < SAP_TILE; t++) {
        uint64_t key = sap_mix(sap_mix(call->pass->event_keys[t], call->key), (uint64_t)cell);
        key_a[t] = (uint32_t)key;
        key_b[t] = (uint32_t)(key >> 32);
        ones[t] = 1;
    }
    int64_t of_x = run->r.x_masks * run->r.inputs, of_h = run->r.h_masks * run->r.units;
    for (int64_t v = 0; v < of_x + of_h; v++) {
        double rate = v < of_x ? c->dropout : c->recurrent_dropout;
        sap_dropout dropout = {
            .values = 1,
            .width = SAP_TILE,
            .first = (uint32_t)v,
            .threshold = sap_dropout_threshold(rate),
            .scale = (float)(1 / (1 - rate)),
            .key_a = key_a,
            .key_b = key_b,
        };
        float *mask = v < of_x ? run->x_mask + v * SAP_TILE : run->h_mask + (v - of_x) * SAP_TILE;
        call->pass->kernels->dropout(&dropout, ones, mask, false);
    }
    run->r.x_mask = run->x_mask;
    run->r.h_mask = run->h_mask;
}

/* Where the output of cell i stands (or its gradient): in y of the call, or in memory of its own. */
static shown place_output(const recurrent_settings *s, int i, float *y, float *own) {
    if (own)
        return (shown){.values = s->cells[i].units, .y = own};
    return (shown){.values = output_values(s), .first = i ? s->cells[0].units : 0, .y = y};
}

/* Sets up cell i as far as forward and backward have it in common. */
static cell_run begin_cell(const sap_call *call, int i, sap_carving *kept) {
    const recurrent_settings *s = call->layer->settings;
    const cell_settings *c = &s->cells[i];
    const sap_pass *pass = call->pass;
    cell_run run = {0};
    place_kept(s, i, call->x_shape[0]->dims[1], call->x_steps[0]->count, pass->training, call->dy != NULL, &run, kept);
    sap_recurrent *r = &run.r;
    const sap_layer_weight *weights = &call->layer->weights[c->weight];
    r->kernel = pass->values + weights[0].offset;
    r->recurrent_kernel = pass->values + weights[1].offset;
    r->bias = c->use_bias ? pass->values + weights[2].offset : NULL;
    r->x_mask = run.x_mask;
    r->h_mask = run.h_mask;
    r->last_width = pass->width;
    run.indirect = (call->x_mask && call->x_mask[0]) || flips(s);
    r->x = run.indirect ? run.x : call->x[0];
    return run;
}

static void forward_cell(const sap_call *call, int i, cell_run *run) {
    const recurrent_settings *s = call->layer->settings;
    sap_recurrent *r = &run->r;
    shown to = place_output(s, i, call->y, run->output);
    r->steps = run->indirect ? &run->steps : call->x_steps[0];
    r->work = call->work;
    if (call->pass->training)
        make_masks(call, &s->cells[i], i, run);
    if (run->indirect) {
        find_steps(call, s, run);
        gather(call, run);
    }
    if (!s->sequences) {
        r->last = to.y + to.first * r->last_width;
    } else if (run->indirect) {
        r->y = run->y;
        r->y_values = r->units;
    } else {
        r->y = to.y;
        r->y_values = to.values;
        r->y_first = to.first;
    }
    call->pass->kernels->recurrent->forward(r);
    if (s->sequences && run->indirect)
        spread(call, run, &to, run->y, false);
}

/* dy: of the cell's own output where that is merged, else NULL. */
static void backward_cell(const sap_call *call, int i, cell_run *run, float *dy, sap_carving work) {
    const recurrent_settings *s = call->layer->settings;
    const sap_layer_weight *weights = &call->layer->weights[s->cells[i].weight];
    sap_recurrent *r = &run->r;
    shown from = place_output(s, i, call->dy, dy);
    r->steps = run->indirect ? &run->steps : call->x_steps[0];
    if (run->indirect)
        find_steps(call, s, run);
    int64_t columns = sap_steps_columns(r->steps);
    if (!s->sequences) {
        r->d_last = from.y + from.first * r->last_width;
    } else if (run->indirect) {
        float *states = sap_carve(&work, columns * r->units);
        memset(states, 0, (size_t)(columns * r->units) * sizeof *states);
        spread(call, run, &from, states, true);
        r->dy = states;
        r->y_values = r->units;
    } else {
        r->dy = from.y;
        r->y_values = from.values;
        r->y_first = from.first;
    }
    if (call->dx[0]) {
        r->add = !run->indirect && (call->add[0] || i > 0);
        r->dx = run->indirect ? sap_carve(&work, columns * r->inputs) : call->dx[0];
    }
    if (call->layer->trainable) {
        r->d_kernel = call->pass->gradients + weights[0].offset;
        r->d_recurrent_kernel = call->pass->gradients + weights[1].offset;
        r->d_bias = r->bias ? call->pass->gradients + weights[2].offset : NULL;
    }
    r->work = sap_carve(&work, 0);
    call->pass->kernels->recurrent->backward(r);
    if (r->dx && run->indirect) {
        if (!call->add[0] && i == 0)
            memset(call->dx[0], 0, (size_t)(sap_steps_columns(call->x_steps[0]) * r->inputs) * sizeof(float));
        scatter(call, run, r->dx);
    }
}

/* ---- Forward and backward ------------------------------------------------------------------------------- */

static void recurrent_forward(const sap_call *call) {
    const recurrent_settings *s = call->layer->settings;
    sap_carving kept = {.memory = call->kept};
    float *output[2] = {NULL, NULL};
    for (int i = 0; i < s->count; i++) {
        cell_run run = begin_cell(call, i, &kept);
        forward_cell(call, i, &run);
        output[i] = run.output;
    }
    if (!output[0])
        return;
    int64_t n = s->cells[0].units * sap_call_columns(call);
    const float *a = output[0], *b = output[1];
    float factor = s->merge == MERGE_AVE ? 0.5F : 1;
    for (int64_t k = 0; k < n; k++)
        call->y[k] = s->merge == MERGE_MUL ? a[k] * b[k] : (a[k] + b[k]) * factor;
}

static void recurrent_backward(const sap_call *call) {
    const recurrent_settings *s = call->layer->settings;
    sap_carving kept = {.memory = call->kept};
    cell_run runs[2];
    for (int i = 0; i < s->count; i++)
        runs[i] = begin_cell(call, i, &kept);
    int64_t n = s->cells[0].units * sap_call_columns(call);
    for (int i = 0; i < s->count; i++) {
        sap_carving work = {.memory = call->work};
        float *dy = NULL;
        const float *other = s->count == 2 ? runs[1 - i].output : NULL;
        if (other) {
            dy = sap_carve(&work, n);
            for (int64_t k = 0; k < n; k++)
                dy[k] = call->dy[k] * (s->merge == MERGE_MUL ? other[k] : s->merge == MERGE_AVE ? 0.5F : 1);
        }
        backward_cell(call, i, &runs[i], dy, work);
    }
}

#define RECURRENT(title, read)                                                                                         \
    {                                                                                                                  \
        .name = (title), .inputs_least = 1, .inputs_most = 1, .padding = SAP_PADDING_NEVER, .mask = SAP_MASK_PASS,     \
        .parse = (read), .build = build_recurrent, .needs = recurrent_needs, .forward = recurrent_forward,             \
        .backward = recurrent_backward,                                                                                \
    }

const sap_layer_class sap_class_simple_rnn = RECURRENT("SimpleRNN", parse_recurrent);
const sap_layer_class sap_class_gru = RECURRENT("GRU", parse_recurrent);
const sap_layer_class sap_class_lstm = RECURRENT("LSTM", parse_recurrent);
const sap_layer_class sap_class_bidirectional = RECURRENT("Bidirectional", parse_bidirectional);

/* ---- What others are told ------------------------------------------------------------------------------- */

sap_recurrent_layer sap_recurrent_describe(const sap_layer *layer) {
    const recurrent_settings *s = layer->settings;
    sap_recurrent_layer out = {.count = s->count,
                               .sequences = s->sequences,
                               .zero_masked = s->zero_masked,
                               .flipped = flips(s),
                               .merge = (sap_merge)s->merge};
    for (int i = 0; i < s->count; i++) {
        const cell_settings *c = &s->cells[i];
        const sap_layer_weight *weights = &layer->weights[c->weight];
        out.cells[i].cell = c->cell;
        out.cells[i].reverse = c->reverse;
        out.cells[i].units = c->units;
        out.cells[i].dropout = c->dropout;
        out.cells[i].recurrent_dropout = c->recurrent_dropout;
        out.cells[i].activation = c->activation;
        out.cells[i].recurrent_activation = c->recurrent_activation;
        out.cells[i].kernel = &weights[0];
        out.cells[i].recurrent_kernel = &weights[1];
        out.cells[i].bias = c->use_bias ? &weights[2] : NULL;
    }
    return out;
}
