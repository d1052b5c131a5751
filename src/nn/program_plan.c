/* The plan of a program: which nodes are called, and where tensors, gradients and scratch stand in memory. */
#include "program.h"

#include <stdlib.h>

/* ---- Calls ---------------------------------------------------------------------------------------------- */

/* Multiplications with weights, of each step for a sequence. */
static double work_of(const sap_node *node) {
    double places = (double)sap_shape_step_values(&node->shape) / (double)sap_shape_last(&node->shape), work = 0;
    for (int32_t w = 0; w < node->layer->weight_count; w++)
        work += places * (double)sap_shape_values(&node->layer->weights[w].shape);
    return work;
}

void sap_plan_mark_needed(const sap_model *model, bool *needed) {
    for (int32_t o = 0; o < model->output_count; o++)
        needed[model->outputs[o]] = true;
    for (int32_t n = model->node_count - 1; n >= 0; n--) {
        const sap_node *node = &model->nodes[n];
        for (int32_t i = 0; needed[n] && i < node->input_count; i++) {
            needed[node->inputs[i]] = true;
            if (node->masks && node->masks[i] >= 0)
                needed[model->masks[node->masks[i]].node] = true;
        }
    }
}

/* Whether other nodes look at what a node gives. */
static bool is_used(const sap_model *model, int32_t node) {
    for (int32_t n = 0; n < model->node_count; n++)
        for (int32_t i = 0; i < model->nodes[n].input_count; i++)
            if (model->nodes[n].inputs[i] == node)
                return true;
    return false;
}

sap_activation_kind sap_plan_logits(const sap_model *model, int32_t node, sap_loss_kind loss) {
    sap_activation_kind last = model->nodes[node].layer->activation.kind;
    bool left = (last == SAP_SOFTMAX || last == SAP_SIGMOID) && sap_loss_takes_logits(loss);
    return left && !is_used(model, node) ? last : SAP_LINEAR;
}

static sap_status find_endings(sap_program *p, const sap_loss *losses, sap_error *err) {
    const sap_model *model = p->model;
    for (int32_t o = 0; o < model->output_count; o++) {
        sap_ending *e = &p->endings[o];
        SAP_TRY(sap_loss_check(losses ? &losses[o] : &(sap_loss){0}, &e->loss, err));
        e->node = model->outputs[o];
        const sap_node *node = &model->nodes[e->node];
        e->values = sap_shape_last(&node->shape);
        for (int32_t before = 0; before < o; before++)
            if (model->nodes[p->endings[before].node].tensor == node->tensor)
                return sap_error_set(err, SAP_EUNSUPPORTED, "%s: is an output twice; a loss is taken from it once",
                                     node->layer->where);
        e->logits = sap_plan_logits(model, e->node, e->loss.kind);
        if (e->logits != SAP_LINEAR && (node->layer->activity_l1 != 0 || node->layer->activity_l2 != 0))
            return sap_error_set(err, SAP_EUNSUPPORTED,
                                 "%s: an \"activity_regularizer\" of what the loss is taken from", node->layer->where);
    }
    return SAP_OK;
}

static const sap_ending *ending_of(const sap_program *p, int32_t node) {
    for (int32_t o = 0; p->mode != SAP_PREDICT && o < p->model->output_count; o++)
        if (p->endings[o].node == node)
            return &p->endings[o];
    return NULL;
}

int64_t sap_ending_places(const sap_program *p, const sap_ending *e) {
    const sap_node *node = &p->model->nodes[e->node];
    return sap_shape_step_values(&node->shape) / e->values * (node->domain >= 0 ? p->longest[node->domain] : 1);
}

/* Calls that need the whole batch at once, and losses that do. */
static sap_status find_barriers(sap_program *p, sap_error *err) {
    const sap_model *model = p->model;
    p->barriers = sap_arena_array(&p->arena, (size_t)p->call_count, sizeof *p->barriers);
    if (!p->barriers)
        return sap_error_memory(err, model->name);
    for (int32_t c = 0; p->mode == SAP_TRAIN && c < p->call_count; c++) {
        const sap_node *node = &model->nodes[p->call_nodes[c]];
        const sap_whole_batch *whole = node->layer->class_of->whole;
        if (!whole || !node->layer->trainable)
            continue;
        int64_t count = whole->count(node->layer, &model->nodes[node->inputs[0]].shape);
        p->barriers[p->barrier_count++] =
            (sap_barrier){.call = c,
                          .whole = whole,
                          .count = count,
                          .sums = sap_arena_array(&p->arena, (size_t)count, sizeof(double)),
                          .backward = node->differentiate};
        if (!p->barriers[p->barrier_count - 1].sums)
            return sap_error_memory(err, model->name);
    }
    for (int32_t o = 0; sap_program_differentiates(p) && o < model->output_count; o++)
        p->masked = p->masked || model->nodes[model->outputs[o]].mask >= 0;
    return SAP_OK;
}

sap_status sap_program_plan(sap_program *p, const sap_loss *losses, sap_error *err) {
    const sap_model *model = p->model;
    size_t nodes = (size_t)model->node_count, domains = (size_t)model->domain_count + 1;
    bool *needed = sap_arena_array(&p->arena, nodes, sizeof *needed);
    p->call_nodes = sap_arena_array(&p->arena, nodes, sizeof *p->call_nodes);
    p->call_of = sap_arena_array(&p->arena, nodes, sizeof *p->call_of);
    p->step_work = sap_arena_array(&p->arena, domains, sizeof *p->step_work);
    p->longest = sap_arena_array(&p->arena, domains, sizeof *p->longest);
    p->rows = sap_arena_array(&p->arena, (size_t)model->input_count, sizeof *p->rows);
    if (!needed || !p->call_nodes || !p->call_of || !p->step_work || !p->longest || !p->rows)
        return sap_error_memory(err, model->name);
    sap_plan_mark_needed(model, needed);
    double factor = sap_program_differentiates(p) ? 3 : 1;
    for (int32_t n = 0; n < model->node_count; n++) {
        if (!needed[n])
            continue;
        const sap_node *node = &model->nodes[n];
        p->call_of[n] = p->call_count;
        p->call_nodes[p->call_count++] = n;
        /* a recurrent layer that gives its last state alone works at every step all the same */
        const sap_node *steps = node->domain < 0 && node->input_count ? &model->nodes[node->inputs[0]] : node;
        *(steps->domain < 0 ? &p->work : &p->step_work[steps->domain]) += factor * work_of(node);
    }
    for (int32_t d = 0; d < model->domain_count; d++)
        p->ragged = p->ragged || model->domains[d].ragged;
    SAP_TRY(find_barriers(p, err));
    return p->mode == SAP_PREDICT ? SAP_OK : find_endings(p, losses, err);
}

/* Pointers that a call has for each of its inputs. */
typedef struct inputs {
    const float **x;
    float **dx;
    bool *add;
    const sap_shape **shapes;
    const sap_steps **steps;
    const uint8_t **masks;
} inputs;

static sap_status make_inputs(sap_program *p, const sap_node *node, inputs *out, sap_error *err) {
    size_t count = (size_t)node->input_count + 1;
    *out = (inputs){
        .x = sap_arena_array(&p->arena, count, sizeof *out->x),
        .dx = sap_arena_array(&p->arena, count, sizeof *out->dx),
        .add = sap_arena_array(&p->arena, count, sizeof *out->add),
        .shapes = sap_arena_array(&p->arena, count, sizeof *out->shapes),
        .steps = sap_arena_array(&p->arena, count, sizeof *out->steps),
        .masks = sap_arena_array(&p->arena, count, sizeof *out->masks),
    };
    bool made = out->x && out->dx && out->add && out->shapes && out->steps && out->masks;
    return made ? SAP_OK : sap_error_memory(err, p->model->name);
}

sap_status sap_frame_open(sap_program *p, sap_frame *f, sap_error *err) {
    const sap_model *model = p->model;
    size_t tensors = (size_t)model->tensor_count, domains = (size_t)model->domain_count + 1;
    f->tensors = sap_arena_array(&p->arena, tensors, sizeof *f->tensors);
    f->deltas = sap_arena_array(&p->arena, tensors, sizeof *f->deltas);
    f->masks = sap_arena_array(&p->arena, (size_t)model->mask_count + 1, sizeof *f->masks);
    f->steps = sap_arena_array(&p->arena, domains, sizeof *f->steps);
    f->longest = sap_arena_array(&p->arena, domains, sizeof *f->longest);
    f->calls = sap_arena_array(&p->arena, (size_t)p->call_count, sizeof *f->calls);
    if (!f->tensors || !f->deltas || !f->masks || !f->steps || !f->longest || !f->calls)
        return sap_error_memory(err, model->name);
    f->pass.kernels = p->kernels;
    f->pass.values = model->values;
    f->pass.training = p->mode == SAP_TRAIN;
    for (int32_t c = 0; c < p->call_count; c++) {
        const sap_node *node = &model->nodes[p->call_nodes[c]];
        const sap_ending *ending = ending_of(p, p->call_nodes[c]);
        inputs in;
        SAP_TRY(make_inputs(p, node, &in, err));
        for (int32_t i = 0; i < node->input_count; i++) {
            const sap_node *input = &model->nodes[node->inputs[i]];
            in.shapes[i] = &input->shape;
            in.steps[i] = input->domain >= 0 ? &f->steps[input->domain] : NULL;
        }
        f->calls[c] = (sap_call){
            .layer = node->layer,
            .pass = &f->pass,
            .input_count = node->input_count,
            .x = in.x,
            .dx = in.dx,
            .add = in.add,
            .x_shape = in.shapes,
            .x_steps = in.steps,
            .x_mask = in.masks,
            .shape = &node->shape,
            .y_steps = node->domain >= 0 ? &f->steps[node->domain] : NULL,
            .logits = ending && ending->logits != SAP_LINEAR,
            .key = node->layer->key * (uint32_t)SAP_LAYERS_MOST + (uint32_t)node->use,
        };
    }
    return SAP_OK;
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

static int64_t round_up(int64_t numbers) { /* to 64 bytes */
    return (numbers + 15) / 16 * 16;
}

/* A node's shape with the time dimension filled in. */
static sap_shape filled(const sap_node *node, const int64_t *longest) {
    sap_shape shape = node->shape;
    if (node->domain >= 0)
        shape.dims[0] = longest[node->domain] > 0 ? longest[node->domain] : 1;
    return shape;
}

/* What the use of a layer needs. */
static sap_status needs_of(const sap_program *p, const sap_node *node, const int64_t *longest, sap_needs *out,
                           sap_error *err) {
    *out = (sap_needs){0};
    if (!node->layer->class_of->needs)
        return SAP_OK;
    size_t count = (size_t)node->input_count + 1;
    sap_shape *shapes = malloc(count * sizeof *shapes), y = filled(node, longest);
    const sap_shape **pointers = malloc(count * sizeof(sap_shape *));
    if (!shapes || !pointers) {
        free(shapes);
        free(pointers);
        return sap_error_memory(err, p->model->name);
    }
    for (int32_t i = 0; i < node->input_count; i++) {
        shapes[i] = filled(&p->model->nodes[node->inputs[i]], longest);
        pointers[i] = &shapes[i];
    }
    node->layer->class_of->needs(node->layer, pointers, &y, p->mode, out);
    free(shapes);
    free(pointers);
    return SAP_OK;
}

/* Gives everything of a frame its place in `memory`, and says how many numbers that takes; memory NULL: only that. */
static sap_status place(const sap_program *p, sap_frame *f, const int64_t *longest, float *memory, int64_t *size,
                        sap_error *err) {
    const sap_model *model = p->model;
    int64_t used = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t c = 0; c < p->call_count; c++) {
            const sap_node *node = &model->nodes[p->call_nodes[c]];
            if (node->view || (pass == 1 && !(sap_program_differentiates(p) && node->differentiate)))
                continue;
            sap_shape shape = filled(node, longest);
            if (memory)
                (pass ? f->deltas : f->tensors)[node->tensor] = memory + used;
            used += round_up(sap_shape_values(&shape) * SAP_TILE);
        }
    }
    for (int32_t c = 0; c < p->call_count; c++) {
        sap_needs needs;
        SAP_TRY(needs_of(p, &model->nodes[p->call_nodes[c]], longest, &needs, err));
        if (memory && needs.kept)
            f->calls[c].kept = memory + used;
        used += round_up(needs.kept);
    }
    for (int32_t m = 0; m < model->mask_count; m++) {
        const sap_node *node = &model->nodes[model->masks[m].node];
        if (node->domain < 0 || model->domains[node->domain].ragged)
            continue;
        if (memory)
            f->masks[m] = (uint8_t *)(memory + used);
        used += round_up((longest[node->domain] * SAP_TILE + 3) / 4);
    }
    int64_t target = 0;
    for (int32_t o = 0; p->mode != SAP_PREDICT && o < model->output_count; o++) {
        sap_shape shape = filled(&model->nodes[p->endings[o].node], longest);
        int64_t values = sap_shape_values(&shape);
        target = target > values ? target : values;
    }
    f->target = memory ? memory + used : NULL;
    *size = used + target * SAP_TILE;
    return SAP_OK;
}

/* Points the calls of a frame at what was placed. */
static void point(const sap_program *p, sap_frame *f, bool *written) {
    const sap_model *model = p->model;
    memset(written, 0, (size_t)model->tensor_count * sizeof *written);
    for (int32_t o = 0; o < model->output_count; o++)
        written[model->nodes[model->outputs[o]].tensor] = true; /* by the loss */
    for (int32_t c = p->call_count - 1; c >= 0; c--) {
        const sap_node *node = &model->nodes[p->call_nodes[c]];
        sap_call *call = &f->calls[c];
        const float **x = (const float **)(uintptr_t)call->x;
        float **dx = (float **)(uintptr_t)call->dx;
        bool *add = (bool *)(uintptr_t)call->add;
        const uint8_t **masks = (const uint8_t **)(uintptr_t)call->x_mask;
        for (int32_t i = 0; i < node->input_count; i++) {
            const sap_node *input = &model->nodes[node->inputs[i]];
            int32_t mask = sap_sequence_mask(model, node, i);
            x[i] = f->tensors[input->tensor];
            masks[i] = mask >= 0 ? f->masks[mask] : NULL;
            if (node->view || !input->differentiate)
                continue;
            dx[i] = f->deltas[input->tensor];
            add[i] = written[input->tensor];
            written[input->tensor] = true;
        }
        call->y = f->tensors[node->tensor];
        call->dy = f->deltas[node->tensor];
        call->y_mask = node->mask >= 0 ? f->masks[node->mask] : NULL;
    }
}

static bool fits(const sap_program *p, const int64_t *longest) {
    for (int32_t d = 0; d < p->model->domain_count; d++)
        if (p->longest[d] > longest[d])
            return false;
    return true;
}

/* Enough for the batch in hand, with some room to grow. */
static void make_longer(const sap_program *p, int64_t *longest) {
    for (int32_t d = 0; d < p->model->domain_count; d++) {
        int64_t length = p->model->domains[d].length, room = p->longest[d] + p->longest[d] / 4;
        room = length >= 0 && room > length ? length : room;
        longest[d] = room > longest[d] ? room : longest[d];
    }
}

static sap_status allocate(const sap_program *p, int64_t size, float **memory, sap_error *err) {
    size_t bytes;
    free(*memory);
    *memory = NULL;
    if (!__builtin_mul_overflow((size_t)round_up(size + 1), sizeof(float), &bytes))
        *memory = aligned_alloc(64, bytes);
    return *memory ? SAP_OK
                   : sap_error_set(err, SAP_EMEMORY, "%s: a tile of a batch takes %.1f GB", p->model->name,
                                   (double)size * 4e-9);
}

sap_status sap_frame_place(const sap_program *p, sap_frame *f, sap_error *err) {
    const sap_model *model = p->model;
    if (f->memory && fits(p, f->longest))
        return SAP_OK;
    make_longer(p, f->longest);
    int64_t size;
    bool *written = malloc((size_t)model->tensor_count * sizeof *written);
    sap_status status = written ? place(p, f, f->longest, NULL, &size, err) : sap_error_memory(err, model->name);
    if (status == SAP_OK)
        status = allocate(p, size, &f->memory, err);
    if (status == SAP_OK)
        status = place(p, f, f->longest, f->memory, &size, err);
    if (status == SAP_OK)
        point(p, f, written);
    free(written);
    return status;
}

sap_status sap_slot_place(const sap_program *p, sap_slot *s, sap_error *err) {
    if (s->work && fits(p, s->longest))
        return SAP_OK;
    int64_t size = 0;
    make_longer(p, s->longest);
    for (int32_t c = 0; c < p->call_count; c++) {
        sap_needs needs;
        SAP_TRY(needs_of(p, &p->model->nodes[p->call_nodes[c]], s->longest, &needs, err));
        size = needs.work > size ? needs.work : size;
    }
    return allocate(p, size, &s->work, err);
}
