/* Between models and the GPU's plug-in: rows packed for it, updates planned for it, its numbers brought back. */
#include "cuda_run.h"

#include "../program.h"
#include "cuda_plan.h"
#include "cuda_ranks.h"

#include <stdlib.h>

enum { KEEP_ROWS = 4096 }; /* rows that go to the GPU at a time */

struct sap_cuda {
    const sap_model *model;
    const sap_cuda_table *table;
    sap_arena arena;
    sap_cuda_plan plan;
    sap_cuda_engine *engine;
    sap_cuda_ranks ranks;
    int64_t batch;
    sap_loss *losses;     /* (outputs) defaults filled in */
    sap_program *program; /* finds where rows begin and end, and which of their steps are masked */
    int64_t kept[2];      /* rows of the sets */

    /* Rows in hand */
    const float **taken; /* (inputs) */
    float **x;           /* (inputs) */
    size_t *capacity;    /* (inputs) numbers */
    int64_t **offsets;   /* (inputs) */
    size_t *offset_capacity;
    int32_t *order;                 /* (batch) of training steps, by group */
    const float **target, **weight; /* (outputs) as sap_cuda_rows has them */
    int64_t *target_values;
    float **weights; /* (outputs) of all rows, in the loss */
    size_t *weight_capacity;
    bool weighted;
    float *labels; /* of all rows */
    size_t label_capacity;
    float *goal; /* of a row */
};

/* ---- Opening ------------------------------------------------------------------------------------------------ */

static sap_status check_losses(const sap_cuda *c, sap_error *err) {
    for (int32_t o = 0; o < c->model->output_count; o++)
        if (c->losses[o].kind != SAP_LOSS_NONE)
            return SAP_OK;
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: training without a loss, on the GPU", c->model->name);
}

/* Statistics of a batch that lies on several GPUs, or is taken group by group, are not put together there. */
static sap_status check_share(const sap_cuda_plan *plan, const sap_share *share, sap_error *err) {
    for (int32_t i = 0; share && (share->comm || share->groups > 0) && i < plan->op_count; i++)
        if (plan->ops[i].kind == SAP_CUDA_BATCH_NORMALIZATION)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: training of BatchNormalization %s, on the GPU", plan->name,
                                 share->comm ? "by several ranks" : "in a fixed order of sums");
    return SAP_OK;
}

/* Room for what rows come with. */
static sap_status open_outputs(sap_cuda *c, const sap_loss *losses, sap_error *err) {
    size_t outputs = (size_t)c->model->output_count;
    int64_t most = 0;
    c->losses = sap_arena_array(&c->arena, outputs, sizeof *c->losses);
    c->target = sap_arena_array(&c->arena, outputs, sizeof *c->target);
    c->target_values = sap_arena_array(&c->arena, outputs, sizeof *c->target_values);
    c->weight = sap_arena_array(&c->arena, outputs, sizeof *c->weight);
    c->weights = sap_arena_array(&c->arena, outputs, sizeof *c->weights);
    c->weight_capacity = sap_arena_array(&c->arena, outputs, sizeof *c->weight_capacity);
    for (int32_t o = 0; o < c->plan.output_count; o++)
        most = c->plan.outputs[o].places * c->plan.outputs[o].values > most
                   ? c->plan.outputs[o].places * c->plan.outputs[o].values
                   : most;
    c->goal = sap_arena_array(&c->arena, (size_t)most, sizeof *c->goal);
    if (!c->losses || !c->target || !c->target_values || !c->weight || !c->weights || !c->weight_capacity || !c->goal)
        return sap_error_memory(err, c->model->name);
    for (int32_t o = 0; o < c->model->output_count; o++)
        SAP_TRY(sap_loss_check(losses ? &losses[o] : &(sap_loss){0}, &c->losses[o], err));
    return check_losses(c, err);
}

static sap_status open_inputs(sap_cuda *c, sap_error *err) {
    size_t inputs = (size_t)c->model->input_count;
    c->taken = sap_arena_array(&c->arena, inputs, sizeof *c->taken);
    c->x = sap_arena_array(&c->arena, inputs, sizeof *c->x);
    c->capacity = sap_arena_array(&c->arena, inputs, sizeof *c->capacity);
    c->offsets = sap_arena_array(&c->arena, inputs, sizeof *c->offsets);
    c->offset_capacity = sap_arena_array(&c->arena, inputs, sizeof *c->offset_capacity);
    c->order = sap_arena_array(&c->arena, (size_t)c->batch, sizeof *c->order);
    return c->taken && c->x && c->capacity && c->order && c->offsets && c->offset_capacity
               ? SAP_OK
               : sap_error_memory(err, c->model->name);
}

static sap_status open_engine(sap_cuda *c, const sap_loss *losses, const sap_optimizer_state *state,
                              sap_cuda_precision precision, const sap_share *share, sap_error *err) {
    const void *table;
    SAP_TRY(sap_plugin_find("cuda", &table, err));
    c->table = table;
    SAP_TRY(open_inputs(c, err));
    SAP_TRY(sap_cuda_plan_make(c->model, losses, state, precision, &c->arena, &c->plan, err));
    SAP_TRY(open_outputs(c, losses, err));
    if (state)
        SAP_TRY(check_share(&c->plan, share, err));
    SAP_TRY(sap_program_open(c->model, SAP_PREDICT, NULL, NULL, NULL, &c->program, err));
    SAP_TRY(sap_cuda_ranks_open(share, c->table, &c->ranks, err));
    SAP_TRY(c->table->open(&c->plan, c->batch, &c->ranks.calls, &c->engine, err));
    return c->table->put(c->engine, c->model->values, state ? state->slots : NULL, err);
}

sap_status sap_cuda_open(const sap_model *model, const sap_loss *losses, const sap_optimizer_state *state,
                         int64_t batch, sap_cuda_precision precision, const sap_share *share, sap_cuda **out,
                         sap_error *err) {
    sap_cuda *c = calloc(1, sizeof *c);
    if (!c)
        return sap_error_memory(err, model->name);
    c->model = model;
    c->batch = batch;
    sap_status status = open_engine(c, losses, state, precision, share, err);
    if (status != SAP_OK) {
        sap_cuda_close(c);
        return status;
    }
    *out = c;
    return SAP_OK;
}

void sap_cuda_close(sap_cuda *c) {
    if (!c)
        return;
    if (c->engine)
        c->table->close(c->engine);
    sap_cuda_ranks_close(&c->ranks);
    sap_program_close(c->program);
    for (int32_t i = 0; c->offset_capacity && i < c->model->input_count; i++) {
        free(c->x[i]);
        free(c->offsets[i]);
    }
    for (int32_t o = 0; c->weights && o < c->model->output_count; o++)
        free(c->weights[o]);
    free(c->labels);
    sap_arena_release(&c->arena);
    free(c);
}

const char *sap_cuda_sums(const sap_cuda *c) {
    return c->ranks.sums;
}

sap_status sap_cuda_put(sap_cuda *c, const sap_model *model, const sap_optimizer_state *state, sap_error *err) {
    return c->table->put(c->engine, model->values, state ? state->slots : NULL, err);
}

sap_status sap_cuda_get(sap_cuda *c, sap_model *model, sap_optimizer_state *state, sap_error *err) {
    return c->table->get(c->engine, model->values, state ? state->slots : NULL, err);
}

/* ---- Rows --------------------------------------------------------------------------------------------------- */

/* Room for n items; what was there is lost. */
static bool make_room(void *at, size_t *capacity, size_t n, size_t size) {
    void **block = at;
    if (n <= *capacity && *block)
        return true;
    free(*block);
    *block = malloc(n * size + 1);
    *capacity = *block ? n : 0;
    return *block != NULL;
}

/* Packs rows [first, first + rows) of an input that is a sequence: ragged, or all steps with padding behind the end of short rows. */
static sap_status pack_sequence(sap_cuda *c, int32_t i, int64_t first, int64_t rows, sap_error *err) {
    const sap_rows *from = &c->program->rows[i];
    const sap_node *node = &c->model->nodes[c->model->inputs[i]];
    int64_t values = sap_shape_step_values(&node->shape), total = 0;
    bool ragged = c->plan.inputs[i].ragged;
    int64_t steps = ragged ? 0 : node->shape.dims[0];
    float padding = sap_sequence_padding(c->model, c->model->inputs[i]);
    if (!make_room(&c->offsets[i], &c->offset_capacity[i], (size_t)rows + 1, sizeof(int64_t)))
        return sap_error_memory(err, c->model->name);
    for (int64_t r = 0; r < rows; r++) {
        c->offsets[i][r] = total;
        total += ragged ? from->length[first + r] : steps;
    }
    c->offsets[i][rows] = total;
    if (!make_room(&c->x[i], &c->capacity[i], (size_t)(total * values), sizeof(float)))
        return sap_error_memory(err, c->model->name);
    for (int64_t r = 0; r < rows; r++) {
        float *to = c->x[i] + c->offsets[i][r] * values;
        int64_t here = from->length[first + r], all = c->offsets[i][r + 1] - c->offsets[i][r];
        memcpy(to, from->data[first + r], (size_t)(here * values) * sizeof *to);
        for (int64_t v = here * values; v < all * values; v++)
            to[v] = padding;
    }
    return SAP_OK;
}

/* What examples are for. */
typedef enum purpose { PREDICTING, MEASURING, TRAINING } purpose;

/* Checks the targets of an output as the CPU does, and finds the weights of rows; those of classes are for training alone. */
static sap_status take_output(sap_cuda *c, const sap_examples *e, int32_t o, bool training, sap_error *err) {
    const sap_cuda_output *output = &c->plan.outputs[o];
    sap_loss loss = c->losses[o];
    if (!training)
        loss.class_weight = NULL;
    SAP_TRY(sap_loss_examples(&loss, e, o, output->values, output->places, c->model->name, err));
    if (!make_room(&c->weights[o], &c->weight_capacity[o], (size_t)e->rows, sizeof **c->weights))
        return sap_error_memory(err, c->model->name);
    sap_loss_call call = {
        .loss = &loss, .values = output->values, .steps = output->places, .width = 1, .rows = 1, .target = c->goal};
    for (int64_t r = 0; r < e->rows; r++) {
        call.weight = &c->weights[o][r];
        SAP_TRY(sap_loss_load(&call, e, o, &r, err));
    }
    c->weighted = c->weighted || loss.class_weight;
    return SAP_OK;
}

static sap_status take_targets(sap_cuda *c, const sap_examples *e, bool training, sap_error *err) {
    c->weighted = e->weight;
    for (int32_t o = 0; o < c->plan.output_count; o++)
        if (c->losses[o].kind != SAP_LOSS_NONE)
            SAP_TRY(take_output(c, e, o, training, err));
    if (e->targets)
        return SAP_OK;
    if (!make_room(&c->labels, &c->label_capacity, (size_t)e->rows, sizeof *c->labels))
        return sap_error_memory(err, c->model->name);
    for (int64_t r = 0; r < e->rows; r++)
        c->labels[r] = (float)e->label[r];
    return SAP_OK;
}

/* The examples become those in hand. */
static sap_status take(sap_cuda *c, const sap_examples *e, purpose what, sap_error *err) {
    SAP_TRY(sap_examples_check(c->model, e, err));
    if (what != PREDICTING)
        SAP_TRY(take_targets(c, e, what == TRAINING, err));
    c->program->examples = e;
    return sap_program_take(c->program, err);
}

/* Rows [first, first + rows) of the examples in hand. */
static sap_status pack(sap_cuda *c, int64_t first, int64_t rows, bool targets, sap_cuda_rows *out, sap_error *err) {
    const sap_examples *e = c->program->examples;
    for (int32_t i = 0; i < c->model->input_count; i++) {
        if (c->model->nodes[c->model->inputs[i]].domain < 0) {
            c->taken[i] = e->x[i] + first * e->values[i];
            continue;
        }
        SAP_TRY(pack_sequence(c, i, first, rows, err));
        c->taken[i] = c->x[i];
    }
    for (int32_t o = 0; targets && o < c->plan.output_count; o++) {
        if (c->losses[o].kind == SAP_LOSS_NONE)
            continue;
        c->target_values[o] = e->targets ? e->target_values[o] : 1;
        c->target[o] = (e->targets ? e->y[o] : c->labels) + first * c->target_values[o];
        c->weight[o] = c->weights[o] + first;
    }
    *out = (sap_cuda_rows){.rows = rows,
                           .x = c->taken,
                           .offsets = (const int64_t *const *)c->offsets,
                           .target = targets ? c->target : NULL,
                           .target_values = c->target_values,
                           .weight = targets && c->weighted ? c->weight : NULL,
                           .identity = e->identity ? e->identity + first : NULL};
    return SAP_OK;
}

/* Steps of each ragged input of a feed. */
static sap_status count_steps(sap_cuda *c, sap_feed *feed, int64_t *steps, sap_error *err) {
    sap_examples e;
    bool any = false;
    for (int32_t i = 0; i < c->model->input_count; i++)
        any = any || c->plan.inputs[i].ragged;
    if (!any)
        return SAP_OK;
    SAP_TRY(sap_feed_epoch(feed, 0, SAP_EPOCH_OWN, err));
    for (;;) {
        SAP_TRY(sap_feed_next(feed, KEEP_ROWS, &e, err));
        if (e.rows == 0)
            return SAP_OK;
        SAP_TRY(take(c, &e, PREDICTING, err));
        for (int32_t i = 0; i < c->model->input_count; i++)
            for (int64_t r = 0; c->plan.inputs[i].ragged && r < e.rows; r++)
                steps[i] += c->program->rows[i].length[r];
    }
}

sap_status sap_cuda_keep(sap_cuda *c, int set, sap_feed *feed, bool *kept, sap_error *err) {
    int64_t count = 0;
    int64_t *steps = sap_arena_array(&c->arena, (size_t)c->model->input_count, sizeof *steps);
    if (!steps)
        return sap_error_memory(err, c->model->name);
    *kept = false;
    c->kept[set] = 0;
    SAP_TRY(count_steps(c, feed, steps, err));
    sap_status status = c->table->reserve(c->engine, set, sap_feed_own_rows(feed), steps, err);
    if (status == SAP_EMEMORY)
        return SAP_OK; /* batches are sent one by one then */
    SAP_TRY(status);
    SAP_TRY(sap_feed_epoch(feed, 0, SAP_EPOCH_OWN, err));
    for (;;) {
        sap_examples e;
        sap_cuda_rows rows;
        SAP_TRY(sap_feed_next(feed, KEEP_ROWS, &e, err));
        if (e.rows == 0)
            break;
        SAP_TRY(take(c, &e, set == 0 ? TRAINING : MEASURING, err));
        SAP_TRY(pack(c, 0, e.rows, true, &rows, err));
        status = c->table->keep(c->engine, set, &rows, err);
        if (status == SAP_EMEMORY)
            return SAP_OK;
        SAP_TRY(status);
        count += e.rows;
    }
    c->kept[set] = count;
    *kept = true;
    return SAP_OK;
}

/* ---- Steps -------------------------------------------------------------------------------------------------- */

static sap_cuda_update next_update(sap_optimizer_state *state) {
    const sap_optimizer *s = &state->settings;
    sap_update u = sap_optimizer_update(state);
    float average = state->iteration == 0 ? 0 : (float)s->ema_momentum;
    state->iteration++;
    bool overwrite = s->ema_overwrite_frequency > 0 && state->iteration % s->ema_overwrite_frequency == 0;
    return (sap_cuda_update){u.rate, u.root, u.epsilon, u.decay, average, overwrite};
}

/* results, sums: (outputs) */
static sap_status give_own(const sap_cuda *c, const sap_cuda_result *results, sap_loss_sums *sums, sap_error *err) {
    int64_t bad_step = 0;
    for (int32_t o = 0; o < c->plan.output_count; o++) {
        sums[o] = (sap_loss_sums){results[o].loss, results[o].places, results[o].correct};
        if (results[o].bad_step && (bad_step == 0 || results[o].bad_step < bad_step))
            bad_step = results[o].bad_step;
    }
    if (bad_step)
        return sap_error_set(err, SAP_EDATA, "the loss is not a finite number in step %lld", (long long)bad_step);
    return SAP_OK;
}

static sap_status give_sums(const sap_cuda *c, const sap_cuda_result *results, sap_loss_sums *sums, sap_error *err) {
    sap_cuda_result all[SAP_CUDA_OUTPUTS];
    SAP_TRY(sap_cuda_ranks_add(&c->ranks, results, c->plan.output_count, all, err));
    return give_own(c, all, sums, err);
}

/* Plans the updates, runs the steps, gives the sums. steps: all but the updates is set. */
static sap_status run_steps(sap_cuda *c, int set, sap_cuda_steps *steps, sap_optimizer_state *state,
                            sap_cuda_result *results, sap_error *err) {
    int64_t count = (steps->rows + steps->batch - 1) / steps->batch;
    sap_cuda_update *updates = malloc((size_t)count * sizeof *updates + 1);
    if (!updates)
        return sap_error_memory(err, c->model->name);
    for (int64_t i = 0; state && i < count; i++)
        updates[i] = next_update(state);
    steps->updates = state ? updates : NULL;
    sap_status status = c->table->run(c->engine, set, steps, results, err);
    free(updates);
    return status;
}

/* The same for any steps of a set; what is measured is this rank's own, and has no groups. */
sap_status sap_cuda_steps_run(sap_cuda *c, int set, const int64_t *order, int64_t first, int64_t rows, int64_t batch,
                              uint64_t key, sap_optimizer_state *state, sap_loss_sums *sums, sap_error *err) {
    int32_t *numbers = malloc((size_t)rows * sizeof *numbers + 1);
    sap_status status = numbers ? SAP_OK : sap_error_memory(err, c->model->name);
    for (int64_t r = 0; status == SAP_OK && r < rows; r++) {
        numbers[r] = (int32_t)(order ? order[first + r] : first + r);
        if (numbers[r] < 0 || numbers[r] >= c->kept[set])
            status = sap_error_set(err, SAP_EARGUMENT, "%s: row %d of %lld on the GPU", c->model->name, numbers[r],
                                   (long long)c->kept[set]);
    }
    sap_cuda_steps steps = {numbers, rows, batch, NULL, key, NULL};
    sap_cuda_result results[SAP_CUDA_GROUPS * SAP_CUDA_OUTPUTS];
    if (status == SAP_OK)
        status = run_steps(c, set, &steps, state, results, err);
    free(numbers);
    return status == SAP_OK ? give_own(c, results, sums, err) : status;
}

sap_status sap_cuda_shared_run(sap_cuda *c, const sap_feed *feed, int64_t first, int64_t rows, int64_t batch,
                               uint64_t key, sap_optimizer_state *state, sap_loss_sums *sums, sap_error *err) {
    int32_t *order;
    int64_t *begin;
    SAP_TRY(sap_cuda_ranks_cut(&c->ranks, feed, first, rows, batch, &order, &begin, err));
    sap_cuda_steps steps = {order, rows, batch, begin, key, NULL};
    sap_cuda_result results[SAP_CUDA_GROUPS * SAP_CUDA_OUTPUTS];
    sap_status status = run_steps(c, 0, &steps, state, results, err);
    free(order);
    free(begin);
    return status == SAP_OK ? give_sums(c, results, sums, err) : status;
}

sap_status sap_cuda_step(sap_cuda *c, const sap_examples *examples, uint64_t key, sap_optimizer_state *state,
                         sap_error *err) {
    sap_cuda_rows rows;
    int64_t begin[SAP_CUDA_GROUPS + 1];
    SAP_TRY(take(c, examples, state ? TRAINING : MEASURING, err));
    SAP_TRY(pack(c, 0, examples->rows, true, &rows, err));
    if (state && sap_cuda_ranks_share(&c->ranks)) {
        sap_cuda_ranks_group(&c->ranks, rows.rows, c->order, begin);
        rows.batch_rows = examples->batch_rows;
        rows.order = c->order;
        rows.begin = begin;
    }
    sap_cuda_update update = {0};
    if (state)
        update = next_update(state);
    return c->table->feed(c->engine, &rows, key, state ? &update : NULL, err);
}

sap_status sap_cuda_finish(sap_cuda *c, bool own, sap_loss_sums *sums, sap_error *err) {
    sap_cuda_result results[SAP_CUDA_GROUPS * SAP_CUDA_OUTPUTS];
    SAP_TRY(c->table->finish(c->engine, results, err));
    return own ? give_own(c, results, sums, err) : give_sums(c, results, sums, err);
}

sap_status sap_cuda_predict(sap_cuda *c, const sap_examples *examples, float *const *outputs, sap_error *err) {
    float *here[SAP_CUDA_OUTPUTS];
    SAP_TRY(take(c, examples, PREDICTING, err));
    for (int64_t first = 0; first < examples->rows; first += c->batch) {
        sap_cuda_rows rows;
        int64_t left = examples->rows - first;
        SAP_TRY(pack(c, first, left < c->batch ? left : c->batch, false, &rows, err));
        for (int32_t o = 0; o < c->plan.output_count; o++)
            here[o] = outputs[o] ? outputs[o] + first * c->plan.outputs[o].places * c->plan.outputs[o].values : NULL;
        SAP_TRY(c->table->predict(c->engine, &rows, here, err));
    }
    return SAP_OK;
}

sap_status sap_cuda_gradient(sap_cuda *c, const sap_examples *examples, float *gradients, sap_loss_sums *sums,
                             sap_error *err) {
    sap_cuda_rows rows;
    sap_cuda_result results[SAP_CUDA_OUTPUTS];
    SAP_TRY(take(c, examples, TRAINING, err));
    SAP_TRY(pack(c, 0, examples->rows, true, &rows, err));
    SAP_TRY(c->table->gradient(c->engine, &rows, gradients, results, err));
    return give_own(c, results, sums, err);
}
