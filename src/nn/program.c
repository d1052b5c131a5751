/* Running a model over batches: slices, tiles, the forward and backward passes, and the sum of the gradients.
 *
 * A batch is cut into tiles, and its tiles into slices whose number depends on the number of rows alone. A slice
 * adds the gradients of its tiles in order; the slices are added pairwise in a fixed tree. So the sums are the
 * same bits whichever thread did which slice.
 */
#include "nn_internal.h"

#include <stdlib.h>

enum { PREDICT_TILES = 8 };  /* a step of a prediction */
#define PARALLEL_WORK 4e6    /* multiplications below which waking threads does not pay */
enum { TREE_RANGE = 16384 }; /* parameters that one step adds over all slices */

/* What one participant of a loop works with. */
typedef struct slot {
    sap_pass pass;
    float *memory;    /* all tiles of the slot */
    float **tensors;  /* (tensor_count) */
    float **deltas;   /* (tensor_count) gradients; NULL entries: not wanted */
    sap_call *calls;  /* (call_count) */
    sap_steps *steps; /* (node_count) of tensors of rank >= 2 */
    int32_t label[SAP_TILE];
} slot;

struct sap_program {
    const sap_model *model;
    sap_mode mode;
    const sap_kernels *kernels;
    sap_run run;
    sap_arena arena;
    slot *slots;
    int slot_count;
    int32_t *call_nodes; /* (call_count) nodes that the outputs depend on, in topological order */
    int32_t *call_of;    /* (node_count) the other way round */
    int32_t call_count;
    bool drops;    /* some layer needs the keys of the events */
    bool logits;   /* the last activation is left to the loss */
    double work;   /* multiplications a row */
    float *slices; /* (SAP_SLICES, slice_stride) gradients; slice 0 is the caller's array */
    int64_t slice_stride;

    /* The batch in hand */
    const sap_examples *examples;
    uint64_t key;
    float *gradients, *const *outputs;
    int64_t tile_count, slice_count;
    sap_batch_result results[SAP_SLICES];
};

static bool differentiates(const sap_program *p) {
    return p->mode == SAP_DIFFERENTIATE || p->mode == SAP_TRAIN;
}

/* ---- Plan ----------------------------------------------------------------------------------------------- */

/* Lists the nodes that the outputs depend on. */
static sap_status find_calls(sap_program *p, sap_error *err) {
    const sap_model *model = p->model;
    bool *needed = sap_arena_array(&p->arena, (size_t)model->node_count, sizeof *needed);
    p->call_nodes = sap_arena_array(&p->arena, (size_t)model->node_count, sizeof *p->call_nodes);
    p->call_of = sap_arena_array(&p->arena, (size_t)model->node_count, sizeof *p->call_of);
    if (!needed || !p->call_nodes || !p->call_of)
        return sap_error_memory(err, model->name);
    for (int32_t o = 0; o < model->output_count; o++)
        needed[model->outputs[o]] = true;
    for (int32_t n = model->node_count - 1; n >= 0; n--)
        for (int32_t i = 0; needed[n] && i < model->nodes[n].input_count; i++)
            needed[model->nodes[n].inputs[i]] = true;
    for (int32_t n = 0; n < model->node_count; n++) {
        if (!needed[n])
            continue;
        const sap_node *node = &model->nodes[n];
        p->call_of[n] = p->call_count;
        p->call_nodes[p->call_count++] = n;
        p->drops = p->drops || (p->mode == SAP_TRAIN && node->layer->rate > 0);
        int64_t places = node->shape.rank ? sap_shape_values(&node->shape) / node->shape.dims[node->shape.rank - 1] : 1;
        for (int32_t w = 0; w < node->layer->weight_count; w++)
            p->work += (double)(places * sap_shape_values(&node->layer->weights[w].shape));
    }
    p->work *= differentiates(p) ? 3 : 1;
    /* Keras on TensorFlow takes the cross-entropy from what a last softmax was given, not from what it gave; and
     * does so for a sigmoid too, as if that were a softmax. */
    sap_activation_kind last = model->nodes[model->outputs[0]].layer->activation.kind;
    p->logits = p->mode != SAP_PREDICT && (last == SAP_SOFTMAX || last == SAP_SIGMOID);
    return SAP_OK;
}

static int64_t round_up(int64_t numbers) { /* to 64 bytes */
    return (numbers + 15) / 16 * 16;
}

/* What the use of a layer needs. */
static sap_needs needs_of(const sap_program *p, const sap_node *node) {
    sap_needs needs = {0};
    if (node->layer->class_of->needs) {
        const sap_shape *shapes[SAP_LAYERS_MOST];
        for (int32_t i = 0; i < node->input_count; i++)
            shapes[i] = &p->model->nodes[node->inputs[i]].shape;
        node->layer->class_of->needs(node->layer, shapes, &node->shape, p->mode, &needs);
    }
    return needs;
}

/* Gives each tile of a slot its place: tensors, gradients, what calls keep, and scratch that they share. Returns how many numbers they take;
 * s NULL: only that. */
static int64_t place_tiles(const sap_program *p, slot *s) {
    const sap_model *model = p->model;
    int64_t used = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t c = 0; c < p->call_count; c++) {
            const sap_node *node = &model->nodes[p->call_nodes[c]];
            if (node->layer->class_of->view || (pass == 1 && !(differentiates(p) && node->differentiate)))
                continue;
            if (s)
                (pass ? s->deltas : s->tensors)[node->tensor] = s->memory + used;
            used += model->tensor_values[node->tensor] * SAP_TILE;
        }
    }
    int64_t work = 0;
    for (int32_t c = 0; c < p->call_count; c++) {
        sap_needs needs = needs_of(p, &model->nodes[p->call_nodes[c]]);
        if (s && needs.kept)
            s->calls[c].kept = s->memory + used;
        used += round_up(needs.kept);
        work = work > needs.work ? work : needs.work;
    }
    for (int32_t c = 0; s && c < p->call_count; c++)
        s->calls[c].work = s->memory + used;
    return used + round_up(work);
}

/* Sets up the calls of a slot, whose tiles are placed. */
static sap_status plan_calls(sap_program *p, slot *s, sap_error *err) {
    const sap_model *model = p->model;
    bool *written = sap_arena_array(&p->arena, (size_t)model->tensor_count, sizeof *written);
    if (!written)
        return sap_error_memory(err, model->name);
    written[model->nodes[model->outputs[0]].tensor] = true; /* by the loss */
    for (int32_t c = p->call_count - 1; c >= 0; c--) {
        const sap_node *node = &model->nodes[p->call_nodes[c]];
        size_t count = (size_t)node->input_count;
        const float **x = sap_arena_array(&p->arena, count + 1, sizeof *x);
        float **dx = sap_arena_array(&p->arena, count + 1, sizeof *dx);
        bool *add = sap_arena_array(&p->arena, count + 1, sizeof *add);
        const sap_shape **shapes = sap_arena_array(&p->arena, count + 1, sizeof *shapes);
        const sap_steps **steps = sap_arena_array(&p->arena, count + 1, sizeof *steps);
        const uint8_t **masks = sap_arena_array(&p->arena, count + 1, sizeof *masks);
        if (!x || !dx || !add || !shapes || !steps || !masks)
            return sap_error_memory(err, model->name);
        for (size_t i = 0; i < count; i++) {
            const sap_node *input = &model->nodes[node->inputs[i]];
            x[i] = s->tensors[input->tensor];
            shapes[i] = &input->shape;
            steps[i] = input->shape.rank > 1 ? &s->steps[node->inputs[i]] : NULL;
            if (node->layer->class_of->view || !input->differentiate)
                continue;
            dx[i] = s->deltas[input->tensor];
            add[i] = written[input->tensor];
            written[input->tensor] = true;
        }
        sap_call *call = &s->calls[c];
        call->layer = node->layer;
        call->pass = &s->pass;
        call->input_count = node->input_count;
        call->x = x;
        call->dx = dx;
        call->add = add;
        call->x_shape = shapes;
        call->x_steps = steps;
        call->y_steps = node->shape.rank > 1 ? &s->steps[p->call_nodes[c]] : NULL;
        call->x_mask = masks;
        call->shape = &node->shape;
        call->y = s->tensors[node->tensor];
        call->dy = s->deltas[node->tensor];
        call->logits = p->logits && p->call_nodes[c] == model->outputs[0];
        call->key = node->layer->key * (uint32_t)SAP_LAYERS_MOST + (uint32_t)node->use;
    }
    return SAP_OK;
}

static sap_status open_slot(sap_program *p, slot *s, sap_error *err) {
    const sap_model *model = p->model;
    s->tensors = sap_arena_array(&p->arena, (size_t)model->tensor_count, sizeof *s->tensors);
    s->deltas = sap_arena_array(&p->arena, (size_t)model->tensor_count, sizeof *s->deltas);
    s->calls = sap_arena_array(&p->arena, (size_t)p->call_count, sizeof *s->calls);
    s->steps = sap_arena_array(&p->arena, (size_t)model->node_count, sizeof *s->steps);
    s->memory = aligned_alloc(64, (size_t)place_tiles(p, NULL) * sizeof(float));
    if (!s->tensors || !s->deltas || !s->calls || !s->steps || !s->memory)
        return sap_error_memory(err, model->name);
    (void)place_tiles(p, s);
    s->pass.kernels = p->kernels;
    s->pass.values = model->values;
    s->pass.training = p->mode == SAP_TRAIN;
    return plan_calls(p, s, err);
}

static sap_status check_mode(const sap_model *model, sap_mode mode, sap_error *err) {
    const sap_node *output = &model->nodes[model->outputs[0]];
    if (mode != SAP_PREDICT && model->output_count > 1)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model has %d outputs; the loss is taken from one",
                             model->name, model->output_count);
    if (mode != SAP_PREDICT && output->shape.rank != 1)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: the loss needs one row of class scores an event, the output has %d dimensions",
                             output->layer->where, output->shape.rank);
    if ((mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE) && model->untrainable)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s cannot be trained with in this version", model->untrainable);
    if ((mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE) && model->trainable_count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: the model has no trainable parameters", model->name);
    return SAP_OK;
}

sap_status sap_program_open(const sap_model *model, sap_mode mode, const sap_kernels *kernels, const sap_run *run,
                            sap_program **out, sap_error *err) {
    SAP_TRY(check_mode(model, mode, err));
    sap_program *p = calloc(1, sizeof *p);
    if (!p)
        return sap_error_memory(err, model->name);
    p->model = model;
    p->mode = mode;
    p->kernels = kernels ? kernels : sap_kernels_best();
    p->run = run ? *run : (sap_run){0};
    p->slice_stride = (model->trainable_count + 15) / 16 * 16;
    sap_status status = find_calls(p, err);
    if (status == SAP_OK && differentiates(p)) {
        p->slices = aligned_alloc(64, (size_t)p->slice_stride * SAP_SLICES * sizeof(float));
        status = p->slices ? SAP_OK : sap_error_memory(err, model->name);
    }
    int threads = sap_run_threads(run);
    p->slots = sap_arena_array(&p->arena, (size_t)threads, sizeof *p->slots);
    if (status == SAP_OK && !p->slots)
        status = sap_error_memory(err, model->name);
    for (; status == SAP_OK && p->slot_count < threads; p->slot_count++)
        status = open_slot(p, &p->slots[p->slot_count], err);
    if (status != SAP_OK) {
        p->slot_count = p->slots ? threads : 0; /* the one that failed may have memory too */
        sap_program_close(p);
        return status;
    }
    *out = p;
    return SAP_OK;
}

void sap_program_close(sap_program *program) {
    if (!program)
        return;
    for (int i = 0; i < program->slot_count; i++)
        free(program->slots[i].memory);
    free(program->slices);
    sap_arena_release(&program->arena);
    free(program);
}

/* ---- A tile --------------------------------------------------------------------------------------------- */

static sap_status load_labels(const sap_program *p, slot *s, int64_t first, int rows, sap_error *err) {
    int64_t classes = p->model->output_info[0].shape[0];
    for (int t = 0; t < SAP_TILE; t++) {
        s->label[t] = t < rows ? p->examples->label[first + t] : -1;
        if (t < rows && (s->label[t] < 0 || s->label[t] >= classes))
            return sap_error_set(err, SAP_EDATA, "row %lld of the batch has the label %d; the model has %lld outputs",
                                 (long long)(first + t), s->label[t], (long long)classes);
    }
    return SAP_OK;
}

static void load_keys(const sap_program *p, slot *s, int64_t first, int rows) {
    for (int t = 0; t < SAP_TILE; t++) {
        int64_t row = first + (t < rows ? t : 0);
        s->pass.event_keys[t] = sap_mix(p->key, p->examples->identity ? p->examples->identity[row] : (uint64_t)row);
    }
}

static void store_outputs(const sap_program *p, const slot *s, int64_t first, int rows) {
    for (int32_t o = 0; o < p->model->output_count; o++) {
        const sap_node *node = &p->model->nodes[p->model->outputs[o]];
        int64_t values = sap_shape_values(&node->shape);
        const float *y = s->tensors[node->tensor];
        for (int t = 0; t < rows; t++)
            for (int64_t v = 0; v < values; v++)
                p->outputs[o][(first + t) * values + v] = y[v * s->pass.width + t];
    }
}

/* The steps of a tensor that is not ragged: all of them in each row. */
static void set_steps(const sap_pass *pass, const sap_shape *shape, sap_steps *steps) {
    int32_t count = (int32_t)shape->dims[0];
    steps->count = count;
    steps->part_count = 1;
    steps->parts[0] = (sap_part){.count = count, .width = pass->width};
    for (int t = 0; t < SAP_TILE; t++)
        steps->length[t] = t < pass->rows ? count : 0;
}

static void load_inputs(const sap_program *p, slot *s, int64_t first) {
    const sap_model *model = p->model;
    for (int32_t i = 0; i < model->input_count; i++) {
        float *input = s->tensors[model->nodes[model->inputs[i]].tensor];
        const float *rows[SAP_TILE] = {0};
        for (int t = 0; t < s->pass.rows; t++)
            rows[t] = p->examples->x[i] + (first + t) * p->examples->values[i];
        if (input) /* the outputs may not depend on it */
            p->kernels->load(rows, p->examples->values[i], s->pass.width, input);
    }
    for (int32_t c = 0; c < p->call_count; c++) {
        const sap_node *node = &model->nodes[p->call_nodes[c]];
        if (node->shape.rank > 1)
            set_steps(&s->pass, &node->shape, &s->steps[p->call_nodes[c]]);
    }
}

/* Loss and its gradient. */
static sap_status take_loss(const sap_program *p, slot *s, int64_t first, sap_batch_result *result, sap_error *err) {
    const sap_call *output = &s->calls[p->call_of[p->model->outputs[0]]];
    SAP_TRY(load_labels(p, s, first, s->pass.rows, err));
    sap_crossentropy loss = {
        .classes = output->shape->dims[0],
        .width = s->pass.width,
        .from_logits = p->logits,
        .y = output->y,
        .label = s->label,
        .scale = (float)(1.0 / (double)p->examples->rows),
        .dy = output->dy,
    };
    p->kernels->crossentropy(&loss);
    result->loss += loss.loss;
    result->correct += loss.correct;
    return SAP_OK;
}

static sap_status run_tile(sap_program *p, slot *s, int64_t tile, sap_batch_result *result, sap_error *err) {
    const sap_model *model = p->model;
    const sap_examples *examples = p->examples;
    int64_t first = tile * SAP_TILE;
    s->pass.rows = examples->rows - first < SAP_TILE ? (int)(examples->rows - first) : SAP_TILE;
    s->pass.width = SAP_TILE;
    load_inputs(p, s, first);
    if (p->drops)
        load_keys(p, s, first, s->pass.rows);
    for (int32_t c = 0; c < p->call_count; c++)
        if (s->calls[c].layer->class_of->forward)
            s->calls[c].layer->class_of->forward(&s->calls[c]);
    if (p->mode == SAP_PREDICT) {
        store_outputs(p, s, first, s->pass.rows);
        return SAP_OK;
    }
    SAP_TRY(take_loss(p, s, first, result, err));
    for (int32_t c = p->call_count - 1; differentiates(p) && c >= 0; c--)
        if (model->nodes[p->call_nodes[c]].differentiate && s->calls[c].layer->class_of->backward)
            s->calls[c].layer->class_of->backward(&s->calls[c]);
    return SAP_OK;
}

/* ---- A batch -------------------------------------------------------------------------------------------- */

static float *slice_gradients(const sap_program *p, int64_t slice) {
    return slice == 0 ? p->gradients : p->slices + slice * p->slice_stride;
}

static sap_status run_slice(void *context, size_t index, int slot_index, sap_error *err) {
    sap_program *p = context;
    slot *s = &p->slots[slot_index];
    int64_t slice = (int64_t)index;
    sap_batch_result result = {0};
    if (differentiates(p)) {
        s->pass.gradients = slice_gradients(p, slice);
        memset(s->pass.gradients, 0, (size_t)p->model->trainable_count * sizeof(float));
    }
    for (int64_t tile = slice * p->tile_count / p->slice_count; tile < (slice + 1) * p->tile_count / p->slice_count;
         tile++)
        SAP_TRY(run_tile(p, s, tile, &result, err));
    p->results[slice] = result;
    return SAP_OK;
}

static sap_status predict_tiles(void *context, size_t index, int slot_index, sap_error *err) {
    sap_program *p = context;
    int64_t tile = (int64_t)index * PREDICT_TILES, end = tile + PREDICT_TILES;
    for (; tile < end && tile < p->tile_count; tile++)
        SAP_TRY(run_tile(p, &p->slots[slot_index], tile, NULL, err));
    return SAP_OK;
}

/* Adds the gradients of all slices over a range of parameters, pairwise. */
static sap_status add_range(void *context, size_t index, int slot_index, sap_error *err) {
    (void)slot_index;
    (void)err;
    sap_program *p = context;
    int64_t first = (int64_t)index * TREE_RANGE, count = p->model->trainable_count - first;
    count = count < TREE_RANGE ? count : TREE_RANGE;
    for (int64_t step = 1; step < p->slice_count; step *= 2)
        for (int64_t i = 0; i + step < p->slice_count; i += 2 * step)
            p->kernels->add(count, slice_gradients(p, i + step) + first, slice_gradients(p, i) + first);
    return SAP_OK;
}

sap_status sap_examples_check(const sap_model *model, const sap_examples *examples, bool labels, sap_error *err) {
    if (examples->rows < 0 || examples->inputs != model->input_count)
        return sap_error_set(err, SAP_ETYPE, "%s: the model has %d inputs, the examples %d", model->name,
                             model->input_count, examples->inputs);
    for (int32_t i = 0; i < model->input_count; i++) {
        int64_t values = sap_shape_values(&model->nodes[model->inputs[i]].shape);
        if (examples->values[i] != values)
            return sap_error_set(err, SAP_ETYPE, "%s: input \"%s\" takes %lld values a row, the examples have %lld",
                                 model->name, model->input_info[i].name, (long long)values,
                                 (long long)examples->values[i]);
    }
    if (labels && !examples->label)
        return sap_error_set(err, SAP_EDATA, "%s: the examples have no labels", model->name);
    return SAP_OK;
}

sap_status sap_program_run(sap_program *p, const sap_examples *examples, uint64_t key, float *gradients,
                           float *const *outputs, sap_batch_result *result, sap_error *err) {
    SAP_TRY(sap_examples_check(p->model, examples, p->mode != SAP_PREDICT, err));
    p->examples = examples;
    p->key = key;
    p->gradients = gradients;
    p->outputs = outputs;
    p->tile_count = (examples->rows + SAP_TILE - 1) / SAP_TILE;
    p->slice_count = p->tile_count < SAP_SLICES ? p->tile_count : SAP_SLICES;
    sap_run run = p->run;
    if (p->work * (double)examples->rows < PARALLEL_WORK)
        run.pool = NULL;
    if (p->mode == SAP_PREDICT)
        return sap_loop(&run, (size_t)((p->tile_count + PREDICT_TILES - 1) / PREDICT_TILES), predict_tiles, p, err);
    SAP_TRY(sap_loop(&run, (size_t)p->slice_count, run_slice, p, err));
    *result = (sap_batch_result){0};
    for (int64_t i = 0; i < p->slice_count; i++) {
        result->loss += p->results[i].loss;
        result->correct += p->results[i].correct;
    }
    if (!differentiates(p) || p->slice_count < 2)
        return SAP_OK;
    return sap_loop(&run, (size_t)((p->model->trainable_count + TREE_RANGE - 1) / TREE_RANGE), add_range, p, err);
}

/* ---- Public forms --------------------------------------------------------------------------------------- */

sap_status sap_model_predict(const sap_model *model, const sap_examples *examples, const sap_run *run,
                             float *const *outputs, sap_error *err) {
    sap_program *program = NULL;
    SAP_TRY(sap_program_open(model, SAP_PREDICT, NULL, run, &program, err));
    sap_status status = sap_program_run(program, examples, 0, NULL, outputs, NULL, err);
    sap_program_close(program);
    return status;
}

sap_status sap_model_gradient(const sap_model *model, const sap_examples *examples, sap_loss loss, const sap_run *run,
                              double *mean_loss, float *gradients, sap_error *err) {
    if (loss != SAP_LOSS_CATEGORICAL_CROSSENTROPY)
        return sap_error_set(err, SAP_EARGUMENT, "no such loss: %d", (int)loss);
    if (examples->rows < 1)
        return sap_error_set(err, SAP_EDATA, "%s: no examples", model->name);
    sap_program *program = NULL;
    SAP_TRY(sap_program_open(model, SAP_DIFFERENTIATE, NULL, run, &program, err));
    sap_batch_result result;
    sap_status status = sap_program_run(program, examples, 0, gradients, NULL, &result, err);
    if (status == SAP_OK)
        *mean_loss = result.loss / (double)examples->rows;
    sap_program_close(program);
    return status;
}
