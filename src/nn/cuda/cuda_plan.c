/* A model as flat lists of tensors and operations: what each class of layers is on the GPU. */
#include "cuda_plan.h"

#include "../program.h"
#include "../recurrent_layer.h"
#include "../window.h"

#include <math.h>

/* ---- Classes ------------------------------------------------------------------------------------------------ */

/* A node in hand. */
typedef struct use {
    const sap_model *model;
    const sap_node *node;
    const sap_layer *layer;
    sap_arena *arena;
    const int32_t *masks; /* (mask_count) tensors of the model's masks; -1: it cannot be made */
} use;

static const sap_shape *input_shape(const use *u, int32_t index) {
    return &u->model->nodes[u->node->inputs[index]].shape;
}

static bool is_ragged(const use *u, const sap_node *node) {
    return node->domain >= 0 && u->model->domains[node->domain].ragged;
}

/* Whether masked steps of an input are there. */
static bool has_mask(const use *u, int32_t input) {
    const sap_node *node = &u->model->nodes[u->node->inputs[input]];
    return node->domain >= 0 && !is_ragged(u, node) && sap_sequence_mask(u->model, u->node, input) >= 0;
}

/* The tensor that says which steps of an input count; -1: all that are there. */
static sap_status find_mask(const use *u, int32_t input, int32_t *out, sap_error *err) {
    *out = -1;
    if (!has_mask(u, input))
        return SAP_OK;
    const sap_node *node = &u->model->nodes[u->node->inputs[input]];
    int32_t mask = sap_sequence_mask(u->model, u->node, input);
    if (u->masks[mask] < 0)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a mask of sequences one after the other, on the GPU",
                             u->layer->where);
    if (u->model->nodes[u->model->masks[mask].node].shape.dims[0] != node->shape.dims[0])
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with a mask of other steps, on the GPU", u->layer->where);
    *out = u->masks[mask];
    return SAP_OK;
}

/* Steps of an input that is a sequence, 0: ragged. */
static int64_t steps_of(const use *u, int32_t input) {
    const sap_node *node = &u->model->nodes[u->node->inputs[input]];
    return is_ragged(u, node) ? 0 : node->shape.dims[0];
}

/* Steps and mask of an operation whose input is that of the node. */
static sap_status take_sequence(const use *u, sap_cuda_op *op, sap_error *err) {
    int32_t *mask = sap_arena_array(u->arena, 1, sizeof *mask);
    if (!mask)
        return sap_error_memory(err, u->model->name);
    SAP_TRY(find_mask(u, 0, mask, err));
    op->steps = steps_of(u, 0);
    op->masks = *mask >= 0 ? mask : NULL;
    return SAP_OK;
}

static sap_status make_dense(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)err;
    op->kind = SAP_CUDA_DENSE;
    op->weights[0] = u->layer->weights[0].offset;
    op->weights[1] = u->layer->use_bias ? u->layer->weights[1].offset : -1;
    return SAP_OK;
}

static sap_status make_activation(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)u;
    (void)err;
    op->kind = SAP_CUDA_ACTIVATION;
    return SAP_OK;
}

static sap_status make_dropout(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)err;
    op->kind = SAP_CUDA_DROPOUT;
    op->rate = u->layer->rate;
    return SAP_OK;
}

static sap_status make_concatenate(const use *u, sap_cuda_op *op, sap_error *err) {
    int32_t rank = u->node->shape.rank;
    int64_t axis = u->layer->axis < 0 ? u->layer->axis + rank : u->layer->axis - 1;
    int64_t *part = sap_arena_array(u->arena, (size_t)u->node->input_count, sizeof *part);
    if (!part)
        return sap_error_memory(err, u->model->name);
    for (int32_t i = 0; i < u->node->input_count; i++)
        part[i] = input_shape(u, i)->dims[axis];
    op->kind = SAP_CUDA_CONCATENATE;
    op->part = part;
    op->width = 1;
    for (int64_t d = axis + 1; d < rank; d++)
        op->width *= u->node->shape.dims[d];
    return SAP_OK;
}

static sap_status make_merge(const use *u, sap_cuda_op *op, sap_error *err) {
    static const struct {
        const char *name;
        sap_cuda_kind kind;
    } kinds[] = {{"Add", SAP_CUDA_ADD},         {"Subtract", SAP_CUDA_SUBTRACT}, {"Multiply", SAP_CUDA_MULTIPLY},
                 {"Average", SAP_CUDA_AVERAGE}, {"Maximum", SAP_CUDA_MAXIMUM},   {"Minimum", SAP_CUDA_MINIMUM}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, u->layer->class_of->name) == 0)
            op->kind = kinds[i].kind;
    bool looks = op->kind == SAP_CUDA_MULTIPLY || op->kind == SAP_CUDA_MAXIMUM || op->kind == SAP_CUDA_MINIMUM;
    for (int32_t i = 0; i < u->node->input_count; i++) { /* one may be stretched */
        if (sap_shape_values(input_shape(u, i)) != sap_shape_values(&u->node->shape))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs of different shapes, on the GPU", u->layer->where);
        if (looks && has_mask(u, i))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: of masked sequences whose padding is there, on the GPU",
                                 u->layer->where);
    }
    return SAP_OK;
}

static sap_status make_normalization(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)err;
    op->kind = SAP_CUDA_LAYER_NORMALIZATION;
    op->epsilon = u->layer->epsilon;
    op->weights[0] = u->layer->scale ? u->layer->weights[0].offset : -1;
    op->weights[1] = u->layer->center ? u->layer->weights[u->layer->scale].offset : -1;
    return SAP_OK;
}

/* Of regular sequences: nobody else has places of steps. */
static void take_window(const use *u, sap_cuda_op *op) {
    const sap_window *w = u->layer->settings; /* the first of its settings */
    int64_t steps = input_shape(u, 0)->dims[0], outputs = u->node->shape.dims[0];
    op->steps = steps;
    op->window = (sap_cuda_window){w->size, w->stride, w->dilation, sap_window_before(w, steps, outputs), outputs};
}

static sap_status make_convolution(const use *u, sap_cuda_op *op, sap_error *err) {
    SAP_TRY(make_dense(u, op, err));
    op->kind = SAP_CUDA_CONVOLUTION;
    take_window(u, op);
    return SAP_OK;
}

static sap_status make_window_pooling(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)err;
    op->kind =
        strcmp(u->layer->class_of->name, "MaxPooling1D") == 0 ? SAP_CUDA_WINDOW_MAXIMUM : SAP_CUDA_WINDOW_AVERAGE;
    take_window(u, op);
    return SAP_OK;
}

/* Where masked steps are there; else it is a view. */
static sap_status make_masking(const use *u, sap_cuda_op *op, sap_error *err) {
    (void)err;
    op->kind = SAP_CUDA_MASKING;
    op->steps = steps_of(u, 0);
    op->masks = &u->masks[u->node->mask];
    return SAP_OK;
}

static sap_status make_pooling(const use *u, sap_cuda_op *op, sap_error *err) {
    op->kind =
        strcmp(u->layer->class_of->name, "GlobalMaxPooling1D") == 0 ? SAP_CUDA_POOL_MAXIMUM : SAP_CUDA_POOL_AVERAGE;
    return take_sequence(u, op, err);
}

/* With the statistics of the batch where it is trained, else with those that moved along. */
static sap_status make_batch_normalization(const use *u, sap_cuda_op *op, sap_error *err) {
    const sap_layer *layer = u->layer;
    if (u->model->nodes[u->node->inputs[0]].domain >= 0)
        SAP_TRY(take_sequence(u, op, err));
    const sap_layer_weight *weight = layer->weights;
    op->kind = SAP_CUDA_BATCH_NORMALIZATION;
    op->epsilon = layer->epsilon;
    op->momentum = layer->momentum;
    op->weights[0] = layer->scale ? weight++->offset : -1;
    op->weights[1] = layer->center ? weight++->offset : -1;
    op->weights[2] = weight[0].offset;
    op->weights[3] = weight[1].offset;
    return SAP_OK;
}

static bool runs_in_cell(const sap_activation *f) {
    return f->kind != SAP_SOFTMAX && !sap_activation_needs_input(f->kind);
}

static const char *recurrent_obstacle(const sap_recurrent_layer *layer) {
    for (int i = 0; i < layer->count; i++) {
        if (layer->cells[i].cell != SAP_CELL_GRU && layer->cells[i].cell != SAP_CELL_LSTM)
            return "this kind of cell";
        if (!runs_in_cell(&layer->cells[i].activation) || !runs_in_cell(&layer->cells[i].recurrent_activation))
            return "these activations";
    }
    return NULL;
}

/* One direction. */
static sap_status make_direction(const use *u, const sap_recurrent_layer *layer, int number, sap_cuda_op *op,
                                 sap_error *err) {
    const char *what = recurrent_obstacle(layer);
    if (what)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with %s, on the GPU", u->layer->where, what);
    SAP_TRY(take_sequence(u, op, err));
    op->kind = layer->cells[number].cell == SAP_CELL_LSTM ? SAP_CUDA_LSTM : SAP_CUDA_GRU;
    op->weights[0] = layer->cells[number].kernel->offset;
    op->weights[1] = layer->cells[number].recurrent_kernel->offset;
    op->weights[2] = layer->cells[number].bias ? layer->cells[number].bias->offset : -1;
    op->units = layer->cells[number].units;
    op->activation = layer->cells[number].activation;
    op->recurrent_activation = layer->cells[number].recurrent_activation;
    op->whole = layer->sequences;
    op->rate = layer->cells[number].dropout;
    op->recurrent_rate = layer->cells[number].recurrent_dropout;
    op->cell = (uint32_t)number;
    op->backwards = layer->cells[number].reverse;
    op->flipped = layer->flipped;
    op->zero_masked = layer->zero_masked;
    op->reset_after = true;
    return SAP_OK;
}

static sap_status make_recurrent(const use *u, sap_cuda_op *op, sap_error *err) {
    sap_recurrent_layer layer = sap_recurrent_describe(u->layer);
    return make_direction(u, &layer, 0, op, err);
}

static const struct {
    const char *name;
    sap_status (*make)(const use *u, sap_cuda_op *op, sap_error *err);
} classes[] = {
    {"Dense", make_dense},
    {"Activation", make_activation},
    {"ReLU", make_activation},
    {"ELU", make_activation},
    {"LeakyReLU", make_activation},
    {"Softmax", make_activation},
    {"Dropout", make_dropout},
    {"Concatenate", make_concatenate},
    {"Add", make_merge},
    {"Subtract", make_merge},
    {"Multiply", make_merge},
    {"Average", make_merge},
    {"Maximum", make_merge},
    {"Minimum", make_merge},
    {"GRU", make_recurrent},
    {"LSTM", make_recurrent},
    {"Conv1D", make_convolution},
    {"AveragePooling1D", make_window_pooling},
    {"MaxPooling1D", make_window_pooling},
    {"Masking", make_masking},
    {"LayerNormalization", make_normalization},
    {"BatchNormalization", make_batch_normalization},
    {"GlobalAveragePooling1D", make_pooling},
    {"GlobalMaxPooling1D", make_pooling},
};
enum { CLASS_COUNT = sizeof classes / sizeof *classes };

/* ---- The plan ----------------------------------------------------------------------------------------------- */

static sap_status start_op(const use *u, sap_cuda_op *op, sap_error *err) {
    const sap_node *node = u->node;
    int32_t *inputs = sap_arena_array(u->arena, (size_t)node->input_count, sizeof *inputs);
    if (!inputs)
        return sap_error_memory(err, u->model->name);
    for (int32_t i = 0; i < node->input_count; i++)
        inputs[i] = u->model->nodes[node->inputs[i]].tensor;
    *op = (sap_cuda_op){
        .where = u->layer->where,
        .input_count = node->input_count,
        .inputs = inputs,
        .output = node->tensor,
        .width = sap_shape_last(input_shape(u, 0)),
        .units = sap_shape_last(&node->shape),
        .weights = {-1, -1, -1, -1},
        .trainable = u->layer->trainable,
        .activation = u->layer->activation,
        .key = u->layer->key * (uint32_t)SAP_LAYERS_MOST + (uint32_t)node->use,
    };
    return SAP_OK;
}

static sap_status make_op(const use *u, bool logits, sap_cuda_op *op, sap_error *err) {
    SAP_TRY(start_op(u, op, err));
    op->logits = logits;
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i].name, u->layer->class_of->name) == 0)
            return classes[i].make(u, op, err);
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the GPU cannot run this class of layers in this version",
                         u->layer->where);
}

/* ---- Bidirectional: two recurrent layers, and what their outputs become ---------------------------------------- */

enum { DIRECTIONS = 2 };

static sap_status make_bidirectional(const use *u, sap_cuda_plan *plan, sap_cuda_tensor *tensors, sap_cuda_op *ops,
                                     sap_error *err) {
    static const sap_cuda_kind kinds[] = {[SAP_MERGE_CONCAT] = SAP_CUDA_CONCATENATE,
                                          [SAP_MERGE_SUM] = SAP_CUDA_ADD,
                                          [SAP_MERGE_MUL] = SAP_CUDA_MULTIPLY,
                                          [SAP_MERGE_AVE] = SAP_CUDA_AVERAGE};
    sap_recurrent_layer layer = sap_recurrent_describe(u->layer);
    int32_t *made = sap_arena_array(u->arena, DIRECTIONS, sizeof *made);
    int64_t *part = sap_arena_array(u->arena, DIRECTIONS, sizeof *part), last = sap_shape_last(&u->node->shape);
    if (!made || !part)
        return sap_error_memory(err, u->model->name);
    for (int i = 0; i < DIRECTIONS; i++) {
        SAP_TRY(start_op(u, &ops[i], err));
        SAP_TRY(make_direction(u, &layer, i, &ops[i], err));
        part[i] = ops[i].units;
        made[i] = ops[i].output = plan->tensor_count++;
        tensors[made[i]] = tensors[u->node->tensor];
        tensors[made[i]].values = tensors[u->node->tensor].values / last * part[i];
        tensors[made[i]].differentiate = u->node->differentiate;
    }
    SAP_TRY(start_op(u, &ops[DIRECTIONS], err));
    ops[DIRECTIONS].kind = kinds[layer.merge];
    ops[DIRECTIONS].input_count = DIRECTIONS;
    ops[DIRECTIONS].inputs = made;
    ops[DIRECTIONS].part = part;
    ops[DIRECTIONS].width = 1;
    ops[DIRECTIONS].activation = (sap_activation){.kind = SAP_LINEAR};
    plan->op_count += DIRECTIONS + 1;
    return SAP_OK;
}

/* ---- Attention: four dense layers, and what lies between them ------------------------------------------------ */

enum { ATTENTION_OPS = 5, ATTENTION_TENSORS = 4 };

/* A dense layer of one of its kernels, (width, …) or (…, units). */
static sap_cuda_op projection(const use *u, int number, int32_t input, int32_t output, int64_t width, int64_t units) {
    bool bias = u->layer->weight_count == 2 * ATTENTION_TENSORS;
    int32_t *inputs = sap_arena_array(u->arena, 1, sizeof *inputs);
    if (inputs)
        *inputs = input;
    const sap_layer_weight *weights = &u->layer->weights[number * (bias ? 2 : 1)];
    return (sap_cuda_op){
        .kind = SAP_CUDA_DENSE,
        .where = u->layer->where,
        .input_count = 1,
        .inputs = inputs,
        .output = output,
        .width = width,
        .units = units,
        .weights = {weights[0].offset, bias ? weights[1].offset : -1, -1, -1},
        .trainable = u->layer->trainable,
    };
}

/* Of queries, keys and values; a key is met where its value counts too. *out NULL: all count. */
static sap_status find_attention_masks(const use *u, int32_t key, int32_t **out, sap_error *err) {
    int32_t *masks = sap_arena_array(u->arena, 3, sizeof *masks);
    if (!masks)
        return sap_error_memory(err, u->model->name);
    SAP_TRY(find_mask(u, 0, &masks[0], err));
    SAP_TRY(find_mask(u, key, &masks[1], err));
    SAP_TRY(find_mask(u, 1, &masks[2], err));
    if (masks[1] >= 0 && masks[2] >= 0 && masks[1] != masks[2])
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with keys and values of different masks, on the GPU",
                             u->layer->where);
    masks[1] = masks[1] >= 0 ? masks[1] : masks[2];
    *out = masks[0] >= 0 || masks[1] >= 0 ? masks : NULL;
    return SAP_OK;
}

static sap_status make_attention(const use *u, sap_cuda_plan *plan, sap_cuda_tensor *tensors, sap_cuda_op *ops,
                                 sap_error *err) {
    const sap_layer *layer = u->layer;
    const sap_node *node = u->node;
    int stride = layer->weight_count == 2 * ATTENTION_TENSORS ? 2 : 1;
    const int64_t *query_kernel = layer->weights[0].shape.dims, *value_kernel = layer->weights[2 * stride].shape.dims;
    int64_t heads = query_kernel[1];
    if (query_kernel[2] > SAP_CUDA_HEAD_MOST || value_kernel[2] > SAP_CUDA_HEAD_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with heads this wide, on the GPU", layer->where);
    int32_t key = node->input_count == 3 ? 2 : 1, from[3] = {node->inputs[0], node->inputs[key], node->inputs[1]};
    int32_t *made = sap_arena_array(u->arena, ATTENTION_TENSORS, sizeof *made), *masks = NULL;
    if (!made)
        return sap_error_memory(err, u->model->name);
    SAP_TRY(find_attention_masks(u, key, &masks, err));
    for (int i = 0; i < ATTENTION_TENSORS; i++) { /* queries, keys, values, context */
        const sap_node *input = &u->model->nodes[from[i % 3]];
        int64_t width = sap_shape_last(&input->shape), units = heads * (i < 2 ? query_kernel[2] : value_kernel[2]);
        made[i] = plan->tensor_count++;
        tensors[made[i]] = tensors[input->tensor];
        tensors[made[i]].values = tensors[input->tensor].values / width * units;
        tensors[made[i]].differentiate = node->differentiate;
        if (i < 3)
            ops[i] = projection(u, i, input->tensor, made[i], width, units);
    }
    ops[3] = (sap_cuda_op){
        .kind = SAP_CUDA_ATTENTION,
        .where = layer->where,
        .input_count = 3,
        .inputs = made,
        .output = made[3],
        .width = heads * query_kernel[2],
        .units = heads * value_kernel[2],
        .weights = {-1, -1, -1, -1},
        .rate = layer->rate,
        .key = layer->key * (uint32_t)SAP_LAYERS_MOST + (uint32_t)node->use,
        .steps = steps_of(u, 0),
        .masks = masks,
        .heads = heads,
        .key_steps = steps_of(u, 1),
        .causal = sap_attention_is_causal(layer),
        .means_all = sap_attention_means_all(layer),
    };
    ops[4] = projection(u, 3, made[3], node->tensor, heads * value_kernel[2], sap_shape_step_values(&node->shape));
    plan->op_count += ATTENTION_OPS;
    return ops[0].inputs && ops[1].inputs && ops[2].inputs && ops[4].inputs ? SAP_OK
                                                                            : sap_error_memory(err, u->model->name);
}

static sap_status make_tensors(const sap_model *model, sap_arena *arena, sap_cuda_plan *out, sap_cuda_tensor **made,
                               sap_error *err) {
    size_t most =
        (size_t)model->tensor_count + ATTENTION_TENSORS * (size_t)model->node_count + (size_t)model->mask_count;
    sap_cuda_tensor *tensors = sap_arena_array(arena, most, sizeof *tensors);
    sap_cuda_input *inputs = sap_arena_array(arena, (size_t)model->input_count, sizeof *inputs);
    if (!tensors || !inputs)
        return sap_error_memory(err, model->name);
    for (int32_t n = 0; n < model->node_count; n++) {
        const sap_node *node = &model->nodes[n];
        sap_cuda_tensor *tensor = &tensors[node->tensor];
        bool ragged = node->domain >= 0 && model->domains[node->domain].ragged;
        if (!ragged && node->shape.rank > 0 && node->shape.dims[0] < 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: a sequence of any length that is not ragged, on the GPU",
                                 node->layer->where);
        tensor->values = ragged ? sap_shape_step_values(&node->shape) : sap_shape_values(&node->shape);
        tensor->sequence = ragged ? model->domains[node->domain].input : -1;
        tensor->differentiate = tensor->differentiate || node->differentiate;
    }
    for (int32_t i = 0; i < model->input_count; i++) {
        int32_t tensor = model->nodes[model->inputs[i]].tensor;
        inputs[i] = (sap_cuda_input){tensor, tensors[tensor].values, tensors[tensor].sequence >= 0};
    }
    out->tensor_count = model->tensor_count;
    out->tensors = *made = tensors;
    out->input_count = model->input_count;
    out->inputs = inputs;
    return SAP_OK;
}

/* Masks of the node's inputs, of which one that it merges is made: a step counts that counts in one. *out NULL: there is none to have. */
static sap_status find_merged(const use *u, int32_t **out, sap_error *err) {
    *out = NULL;
    int32_t *inputs = sap_arena_array(u->arena, (size_t)u->node->input_count, sizeof *inputs);
    if (!inputs)
        return sap_error_memory(err, u->model->name);
    for (int32_t i = 0; i < u->node->input_count; i++) {
        int32_t mask = sap_sequence_mask(u->model, u->node, i);
        inputs[i] = mask >= 0 ? u->masks[mask] : -1;
        if (inputs[i] < 0 || u->layer->padding != SAP_PADDING_STEPWISE)
            return SAP_OK;
    }
    *out = inputs;
    return SAP_OK;
}

/* The masks that are taken from what node n gives, or that it makes, where masked steps are there. */
static sap_status make_masks(const use *u, int32_t n, sap_cuda_plan *plan, sap_cuda_tensor *tensors, sap_cuda_op *ops,
                             int32_t *masks, sap_error *err) {
    const sap_shape *shape = &u->node->shape;
    for (int32_t m = 0; m < u->model->mask_count; m++) {
        const sap_mask *mask = &u->model->masks[m];
        if (mask->node != n)
            continue;
        masks[m] = -1;
        if (u->node->domain < 0 || is_ragged(u, u->node))
            continue;
        int32_t *inputs = &u->model->nodes[n].tensor;
        if (mask->made)
            SAP_TRY(find_merged(u, &inputs, err));
        if (!inputs)
            continue;
        masks[m] = plan->tensor_count++;
        tensors[masks[m]] = (sap_cuda_tensor){.values = shape->dims[0], .sequence = -1};
        ops[plan->op_count++] = (sap_cuda_op){
            .kind = mask->made ? SAP_CUDA_MAXIMUM : SAP_CUDA_MASK,
            .where = u->layer->where,
            .input_count = mask->made ? u->node->input_count : 1,
            .inputs = inputs,
            .output = masks[m],
            .width = sap_shape_step_values(shape),
            .units = 1,
            .weights = {-1, -1, -1, -1},
            .mask_value = mask->value,
        };
    }
    return SAP_OK;
}

_Static_assert((int)SAP_CUDA_SLOTS == SAP_SLOTS && (int)SAP_CUDA_SLOT_MOMENTUM == SAP_SLOT_MOMENTUM &&
                   (int)SAP_CUDA_SLOT_VELOCITY == SAP_SLOT_VELOCITY && (int)SAP_CUDA_SLOT_LARGEST == SAP_SLOT_LARGEST &&
                   (int)SAP_CUDA_SLOT_AVERAGE == SAP_SLOT_AVERAGE,
               "slots are numbered as the CPU's");

static sap_status set_optimizer(const sap_optimizer_state *state, sap_arena *arena, sap_cuda_plan *out,
                                sap_error *err) {
    const sap_optimizer *s = &state->settings;
    sap_cuda_stretch *stretches = sap_arena_array(arena, (size_t)state->stretch_count, sizeof *stretches);
    if (!stretches)
        return sap_error_memory(err, out->name);
    out->optimizer = (sap_cuda_optimizer){
        .adam = s->kind != SAP_OPTIMIZER_SGD,
        .one_minus_beta_1 = (float)(1 - s->beta_1),
        .one_minus_beta_2 = (float)(1 - s->beta_2),
        .limit = s->clipvalue > 0 ? (float)s->clipvalue : INFINITY,
        .norm = s->clipnorm > 0 ? s->clipnorm : s->global_clipnorm,
        .global = s->global_clipnorm > 0,
        .stretched = s->clipnorm > 0 || s->global_clipnorm > 0,
        .momentum = (float)s->momentum,
        .nesterov = s->nesterov,
    };
    for (int i = 0; i < SAP_SLOTS; i++)
        out->optimizer.slots[i] = state->slots[i] != NULL;
    for (int32_t i = 0; i < state->stretch_count; i++) {
        stretches[i] =
            (sap_cuda_stretch){state->stretches[i].first, state->stretches[i].count, state->stretches[i].decays};
        out->optimizer.stretched = out->optimizer.stretched || (!stretches[i].decays && s->weight_decay > 0);
    }
    out->stretches = stretches;
    out->stretch_count = state->stretch_count;
    return SAP_OK;
}

/* left: the activation that is left to the loss. */
static sap_cuda_loss plan_loss(const sap_loss *loss, sap_activation_kind left, int64_t values) {
    bool categorical = loss->kind == SAP_LOSS_CATEGORICAL_CROSSENTROPY;
    return (sap_cuda_loss){
        .kind = loss->kind,
        .from_logits = left != SAP_LINEAR || loss->from_logits,
        .keep = (float)(1 - loss->label_smoothing),
        .share = (float)(loss->label_smoothing / (categorical ? (double)values : 2)),
        .delta = (float)loss->delta,
        .threshold = left == SAP_SIGMOID   ? 0
                     : left == SAP_SOFTMAX ? -INFINITY /* the softmax of a single value is 1 */
                                           : 0.5F,
        .weight = loss->weight,
    };
}

/* logits: (nodes) set where the activation is left to the loss. */
static sap_status make_outputs(const sap_model *model, const sap_loss *losses, sap_arena *arena, bool *logits,
                               sap_cuda_plan *out, sap_error *err) {
    sap_cuda_output *outputs = sap_arena_array(arena, (size_t)model->output_count, sizeof *outputs);
    if (!outputs)
        return sap_error_memory(err, model->name);
    out->outputs = outputs;
    for (int32_t o = 0; o < model->output_count; o++) {
        const sap_node *node = &model->nodes[model->outputs[o]];
        sap_loss loss;
        SAP_TRY(sap_loss_check(losses ? &losses[o] : &(sap_loss){0}, &loss, err));
        bool twice = false, masked = losses && node->mask >= 0 && loss.kind != SAP_LOSS_NONE;
        for (int32_t before = 0; before < o; before++)
            twice = twice || outputs[before].tensor == node->tensor;
        if (twice || masked)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an output %s, on the GPU", node->layer->where,
                                 twice ? "that is there twice" : "with masked steps");
        sap_activation_kind left = sap_plan_logits(model, model->outputs[o], loss.kind);
        logits[model->outputs[o]] = left != SAP_LINEAR;
        int64_t values = sap_shape_last(&node->shape);
        outputs[o] = (sap_cuda_output){node->tensor, values, sap_shape_values(&node->shape) / values,
                                       plan_loss(&loss, left, values)};
        out->output_count++;
    }
    return SAP_OK;
}

/* Regularisers and constraints are the CPU's alone. */
static sap_status check_weights(const sap_model *model, sap_error *err) {
    for (int32_t i = 0; i < model->layer_count; i++) {
        if (model->layers[i]->activity_l1 != 0 || model->layers[i]->activity_l2 != 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: training with an \"activity_regularizer\", on the GPU",
                                 model->layers[i]->where);
        for (int32_t w = 0; w < model->layers[i]->weight_count; w++) {
            const sap_layer_weight *weight = &model->layers[i]->weights[w];
            if (weight->l1 != 0 || weight->l2 != 0 || weight->constraint.kind != SAP_CONSTRAINT_NONE)
                return sap_error_set(err, SAP_EUNSUPPORTED,
                                     "%s: training with a regulariser or a constraint, on the GPU",
                                     model->layers[i]->where);
        }
    }
    return SAP_OK;
}

sap_status sap_cuda_plan_make(const sap_model *model, const sap_loss *losses, const sap_optimizer_state *state,
                              sap_cuda_precision precision, sap_arena *arena, sap_cuda_plan *out, sap_error *err) {
    *out = (sap_cuda_plan){
        .name = model->name,
        .value_count = model->value_count,
        .trainable_count = model->trainable_count,
        .precision = precision,
    };
    sap_cuda_tensor *tensors = NULL;
    SAP_TRY(make_tensors(model, arena, out, &tensors, err));
    bool *needed = sap_arena_array(arena, (size_t)model->node_count, sizeof *needed);
    size_t most_ops = ATTENTION_OPS * (size_t)model->node_count + (size_t)model->mask_count;
    sap_cuda_op *ops = sap_arena_array(arena, most_ops, sizeof *ops);
    int32_t *masks = sap_arena_array(arena, (size_t)model->mask_count, sizeof *masks);
    bool *logits = sap_arena_array(arena, (size_t)model->node_count, sizeof *logits);
    if (!needed || !ops || !logits || (!masks && model->mask_count > 0))
        return sap_error_memory(err, model->name);
    sap_plan_mark_needed(model, needed);
    SAP_TRY(make_outputs(model, losses, arena, logits, out, err));
    out->ops = ops;
    for (int32_t n = 0; n < model->node_count; n++) {
        use u = {model, &model->nodes[n], model->nodes[n].layer, arena, masks};
        if (needed[n] && strcmp(u.layer->class_of->name, "MultiHeadAttention") == 0)
            SAP_TRY(make_attention(&u, out, tensors, &ops[out->op_count], err));
        else if (needed[n] && strcmp(u.layer->class_of->name, "Bidirectional") == 0)
            SAP_TRY(make_bidirectional(&u, out, tensors, &ops[out->op_count], err));
        else if (needed[n] && !u.node->view && u.node->input_count > 0)
            SAP_TRY(make_op(&u, logits[n], &ops[out->op_count++], err));
        if (needed[n])
            SAP_TRY(make_masks(&u, n, out, tensors, ops, masks, err));
    }
    if (!state)
        return SAP_OK;
    SAP_TRY(check_weights(model, err));
    return set_optimizer(state, arena, out, err);
}
