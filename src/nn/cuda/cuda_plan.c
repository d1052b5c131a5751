/* A model as flat lists of tensors and operations: what each class of layers is on the GPU. */
#include "cuda_plan.h"

#include <math.h>

/* ---- Classes ------------------------------------------------------------------------------------------------ */

/* A node in hand. */
typedef struct use {
    const sap_model *model;
    const sap_node *node;
    const sap_layer *layer;
    sap_arena *arena;
} use;

static const sap_shape *input_shape(const use *u, int32_t index) {
    return &u->model->nodes[u->node->inputs[index]].shape;
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
    for (int32_t i = 1; i < u->node->input_count; i++) /* one may be stretched */
        if (sap_shape_values(input_shape(u, i)) != sap_shape_values(input_shape(u, 0)))
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: inputs of different shapes, on the GPU", u->layer->where);
    return SAP_OK;
}

static const char *recurrent_obstacle(const use *u, const sap_recurrent_use *cell, bool known, bool ragged) {
    if (!known)
        return "this kind of cell";
    if (cell->dropout > 0)
        return "dropout in its cell";
    if (sap_activation_needs_input(cell->activation.kind) ||
        sap_activation_needs_input(cell->recurrent_activation.kind))
        return "these activations";
    if (!ragged && (u->model->nodes[u->node->inputs[0]].mask >= 0 || u->node->masks))
        return "masked sequences whose padding is looked at";
    return NULL;
}

static sap_status make_recurrent(const use *u, sap_cuda_op *op, sap_error *err) {
    const sap_node *input = &u->model->nodes[u->node->inputs[0]];
    bool ragged = u->model->domains[input->domain].ragged;
    sap_recurrent_use cell;
    const char *what = recurrent_obstacle(u, &cell, sap_recurrent_use_of(u->layer, &cell), ragged);
    if (what)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: with %s, on the GPU", u->layer->where, what);
    op->kind = cell.lstm ? SAP_CUDA_LSTM : SAP_CUDA_GRU;
    for (int32_t w = 0; w < u->layer->weight_count; w++)
        op->weights[w] = u->layer->weights[w].offset;
    op->units = cell.units;
    op->activation = cell.activation;
    op->recurrent_activation = cell.recurrent_activation;
    op->steps = ragged ? 0 : input->shape.dims[0];
    op->whole = cell.sequences;
    op->backwards = cell.reverse;
    op->reset_after = true;
    return SAP_OK;
}

static const struct {
    const char *name;
    sap_status (*make)(const use *u, sap_cuda_op *op, sap_error *err);
} classes[] = {
    {"Dense", make_dense},     {"Activation", make_activation},   {"ReLU", make_activation},
    {"ELU", make_activation},  {"LeakyReLU", make_activation},    {"Softmax", make_activation},
    {"Dropout", make_dropout}, {"Concatenate", make_concatenate}, {"Add", make_merge},
    {"Subtract", make_merge},  {"Multiply", make_merge},          {"Average", make_merge},
    {"Maximum", make_merge},   {"Minimum", make_merge},           {"GRU", make_recurrent},
    {"LSTM", make_recurrent},
};
enum { CLASS_COUNT = sizeof classes / sizeof *classes };

/* ---- The plan ----------------------------------------------------------------------------------------------- */

static sap_status make_op(const use *u, bool logits, sap_cuda_op *op, sap_error *err) {
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
        .logits = logits,
        .key = u->layer->key * (uint32_t)SAP_LAYERS_MOST + (uint32_t)node->use,
    };
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i].name, u->layer->class_of->name) == 0)
            return classes[i].make(u, op, err);
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the GPU cannot run this class of layers in this version",
                         u->layer->where);
}

static sap_status make_tensors(const sap_model *model, sap_arena *arena, sap_cuda_plan *out, sap_error *err) {
    sap_cuda_tensor *tensors = sap_arena_array(arena, (size_t)model->tensor_count, sizeof *tensors);
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
    out->tensors = tensors;
    out->input_count = model->input_count;
    out->inputs = inputs;
    return SAP_OK;
}

/* Nodes that the output depends on. */
static bool *find_needed(const sap_model *model, sap_arena *arena) {
    bool *needed = sap_arena_array(arena, (size_t)model->node_count, sizeof *needed);
    for (int32_t o = 0; needed && o < model->output_count; o++)
        needed[model->outputs[o]] = true;
    for (int32_t n = model->node_count - 1; needed && n >= 0; n--)
        for (int32_t i = 0; needed[n] && i < model->nodes[n].input_count; i++)
            needed[model->nodes[n].inputs[i]] = true;
    return needed;
}

static sap_status set_optimizer(const sap_model *model, const sap_optimizer *s, sap_cuda_optimizer *out,
                                sap_error *err) {
    const char *what = s->amsgrad               ? "amsgrad"
                       : s->clipnorm > 0        ? "clipnorm"
                       : s->global_clipnorm > 0 ? "global_clipnorm"
                       : s->ema_momentum > 0    ? "an average of the weights"
                       : s->decay_except_count  ? "weights that do not decay"
                                                : NULL;
    if (what)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: an optimizer with %s, on the GPU", model->name, what);
    *out = (sap_cuda_optimizer){
        .slot_count = s->kind != SAP_OPTIMIZER_SGD ? 2
                      : s->momentum != 0           ? 1
                                                   : 0,
        .one_minus_beta_1 = (float)(1 - s->beta_1),
        .one_minus_beta_2 = (float)(1 - s->beta_2),
        .limit = s->clipvalue > 0 ? (float)s->clipvalue : INFINITY,
        .momentum = (float)s->momentum,
        .nesterov = s->nesterov,
    };
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

sap_status sap_cuda_plan_make(const sap_model *model, const sap_optimizer *optimizer, bool exact, sap_arena *arena,
                              sap_cuda_plan *out, sap_error *err) {
    *out = (sap_cuda_plan){
        .name = model->name,
        .value_count = model->value_count,
        .trainable_count = model->trainable_count,
        .exact = exact,
    };
    if (model->output_count != 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: %d outputs; the GPU takes models with one", model->name,
                             model->output_count);
    SAP_TRY(make_tensors(model, arena, out, err));
    const bool *needed = find_needed(model, arena);
    sap_cuda_op *ops = sap_arena_array(arena, (size_t)model->node_count, sizeof *ops);
    if (!needed || !ops)
        return sap_error_memory(err, model->name);
    const sap_node *last = &model->nodes[model->outputs[0]];
    sap_activation_kind ending = last->layer->activation.kind;
    out->logits = ending == SAP_SOFTMAX || ending == SAP_SIGMOID; /* as on the CPU: program.c */
    out->output = last->tensor;
    out->classes = sap_shape_values(&last->shape);
    out->ops = ops;
    for (int32_t n = 0; n < model->node_count; n++) {
        use u = {model, &model->nodes[n], model->nodes[n].layer, arena};
        if (needed[n] && !u.node->view && u.node->input_count > 0)
            SAP_TRY(make_op(&u, out->logits && n == model->outputs[0], &ops[out->op_count++], err));
    }
    if (!optimizer)
        return SAP_OK;
    SAP_TRY(check_weights(model, err));
    return set_optimizer(model, optimizer, &out->optimizer, err);
}
