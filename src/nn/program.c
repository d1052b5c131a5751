/* Running a model over batches: slices of tiles on threads, and the sum of the gradients.
 *
 * A batch is cut into tiles, and its tiles into slices whose number depends on the model and the batch alone. A slice adds the
 * gradients of its tiles in order; the slices are added pairwise in a fixed tree. So the sums are the same bits whichever
 * thread did which slice.
 */
#include "program.h"

#include <stdlib.h>

enum { PREDICT_TILES = 8 };  /* a step of a prediction without sequences */
#define PARALLEL_WORK 4e6    /* multiplications below which waking threads does not pay */
enum { TREE_RANGE = 16384 }; /* parameters that one step adds over all slices */

/* ---- Opening -------------------------------------------------------------------------------------------- */

static sap_status check_mode(const sap_model *model, sap_mode mode, sap_error *err) {
    if (mode != SAP_PREDICT && model->output_count > SAP_OUTPUTS)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the model has %d outputs; at most %d can be trained",
                             model->name, model->output_count, SAP_OUTPUTS);
    if ((mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE) && model->untrainable)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s cannot be trained with in this version", model->untrainable);
    if ((mode == SAP_TRAIN || mode == SAP_DIFFERENTIATE) && model->trainable_count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: the model has no trainable parameters", model->name);
    return SAP_OK;
}

static sap_status open_slot(sap_program *p, sap_slot *s, sap_error *err) {
    s->longest = sap_arena_array(&p->arena, (size_t)p->model->domain_count + 1, sizeof *s->longest);
    return s->longest ? sap_frame_open(p, &s->frame, err) : sap_error_memory(err, p->model->name);
}

sap_status sap_program_open(const sap_model *model, sap_mode mode, const sap_loss *losses, const sap_kernels *kernels,
                            const sap_run *run, sap_program **out, sap_error *err) {
    SAP_TRY(check_mode(model, mode, err));
    sap_program *p = calloc(1, sizeof *p);
    if (!p)
        return sap_error_memory(err, model->name);
    p->model = model;
    p->mode = mode;
    p->kernels = kernels ? kernels : sap_kernels_best();
    p->run = run ? *run : (sap_run){0};
    p->slice_stride = (model->trainable_count + 15) / 16 * 16;
    sap_status status = sap_program_plan(p, losses, err);
    if (status == SAP_OK && sap_program_differentiates(p)) {
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
        sap_program_close(p);
        return status;
    }
    *out = p;
    return SAP_OK;
}

void sap_program_close(sap_program *program) {
    if (!program)
        return;
    for (int i = 0; i < program->slot_count; i++) {
        free(program->slots[i].frame.memory);
        free(program->slots[i].work);
    }
    for (int64_t i = 0; i < program->frame_count; i++)
        free(program->frames[i]->memory);
    for (int32_t i = 0; program->rows && i < program->model->input_count; i++)
        sap_rows_release(&program->rows[i]);
    free(program->order);
    free(program->tile_first);
    free(program->slices);
    free(program->exchange);
    sap_arena_release(&program->arena);
    free(program);
}

/* ---- A batch -------------------------------------------------------------------------------------------- */

static float *slice_gradients(const sap_program *p, int64_t slice) {
    return slice == 0 ? p->gradients : p->slices + slice * p->slice_stride;
}

static bool has_stages(const sap_program *p) {
    return p->barrier_count > 0 || p->masked;
}

static sap_status take_slot(sap_program *p, int index, sap_slot **out, sap_error *err) {
    *out = &p->slots[index];
    SAP_TRY(sap_slot_place(p, *out, err));
    return has_stages(p) ? SAP_OK : sap_frame_place(p, &(*out)->frame, err);
}

/* What the stage in hand does with a tile. */
static sap_status run_tile(sap_program *p, sap_frame *f, float *work, int64_t tile, sap_batch_result *result,
                           int64_t *marks, sap_error *err) {
    const sap_stage *stage = &p->stage;
    if (stage->load)
        sap_frame_load(p, f, tile);
    sap_frame_forward(p, f, work, stage->forward_from, stage->forward_to);
    if (stage->marks)
        sap_frame_mark(p, f, marks);
    if (stage->loss) {
        if (p->outputs)
            sap_frame_store(p, f);
        SAP_TRY(sap_frame_loss(p, f, result, err));
    }
    sap_frame_backward(p, f, work, stage->backward_from, stage->backward_to);
    if (stage->barrier) {
        sap_call *call = &f->calls[stage->barrier->call];
        call->work = work;
        stage->barrier->whole->add(call, stage->round, stage->barrier->own + tile * stage->barrier->count);
    }
    return SAP_OK;
}

static sap_status run_slice(void *context, size_t index, int slot_index, sap_error *err) {
    sap_program *p = context;
    sap_slot *s;
    SAP_TRY(take_slot(p, slot_index, &s, err));
    int64_t slice = (int64_t)index;
    sap_batch_result result = {0};
    if (sap_program_differentiates(p) && p->stage.load)
        memset(slice_gradients(p, slice), 0, (size_t)p->model->trainable_count * sizeof(float));
    for (int64_t tile = p->slice_tiles[slice]; tile < p->slice_tiles[slice + 1]; tile++) {
        sap_frame *f = has_stages(p) ? p->frames[tile] : &s->frame;
        f->pass.gradients = slice_gradients(p, slice);
        SAP_TRY(run_tile(p, f, s->work, tile, &result, p->marks[slice], err));
    }
    if (p->stage.loss)
        p->results[slice] = result;
    return SAP_OK;
}

/* ---- Stages: what needs the whole batch at once ----------------------------------------------------------- */

/* Memory for all tiles of the batch in hand. */
static sap_status place_frames(sap_program *p, sap_error *err) {
    int64_t tiles = p->tile_count > 0 ? p->tile_count : 1; /* all rows may be other ranks' */
    if (tiles > p->frame_count) {
        sap_frame **grown = sap_arena_array(&p->arena, (size_t)tiles, sizeof(sap_frame *));
        if (!grown)
            return sap_error_memory(err, p->model->name);
        if (p->frame_count)
            memcpy(grown, p->frames, (size_t)p->frame_count * sizeof(sap_frame *));
        p->frames = grown;
        while (p->frame_count < tiles) {
            sap_frame *frame = sap_arena_alloc(&p->arena, sizeof *frame);
            if (!frame)
                return sap_error_memory(err, p->model->name);
            *frame = (sap_frame){0};
            p->frames[p->frame_count++] = frame;
            SAP_TRY(sap_frame_open(p, frame, err));
        }
        for (int32_t b = 0; b < p->barrier_count; b++) {
            p->barriers[b].own = sap_arena_array(&p->arena, (size_t)(tiles * p->barriers[b].count), sizeof(double));
            if (!p->barriers[b].own)
                return sap_error_memory(err, p->model->name);
        }
    }
    for (int64_t tile = 0; tile < p->tile_count; tile++) {
        SAP_TRY(sap_frame_place(p, p->frames[tile], err));
        for (int32_t b = 0; b < p->barrier_count; b++) {
            sap_call *call = &p->frames[tile]->calls[p->barriers[b].call];
            call->sums = p->barriers[b].sums;
            call->own = p->barriers[b].own + tile * p->barriers[b].count;
        }
    }
    return SAP_OK;
}

/* Does it with all tiles, and adds what they gave to the barrier, in their order. */
static sap_status run_stage(sap_program *p, const sap_run *run, sap_stage stage, sap_error *err) {
    p->stage = stage;
    SAP_TRY(sap_loop(run, (size_t)p->slice_count, run_slice, p, err));
    return stage.barrier ? sap_share_barrier(p, stage.barrier, err) : SAP_OK;
}

/* Forward to each barrier and through its rounds, to the end; back to each barrier, through its last round, to the
 * beginning. */
static sap_status run_stages(sap_program *p, const sap_run *run, sap_error *err) {
    sap_stage stage = {.load = true};
    SAP_TRY(place_frames(p, err));
    for (int32_t b = 0; b < p->barrier_count; b++) {
        stage.barrier = &p->barriers[b];
        stage.forward_to = stage.barrier->call;
        memset(stage.barrier->own, 0, (size_t)(p->tile_count * stage.barrier->count) * sizeof(double));
        for (stage.round = 0; stage.round < stage.barrier->whole->rounds - 1; stage.round++) {
            SAP_TRY(run_stage(p, run, stage, err));
            stage.load = false;
            stage.forward_from = stage.forward_to;
        }
    }
    stage.barrier = NULL;
    stage.forward_to = p->call_count;
    if (p->masked) {
        stage.marks = true;
        memset(p->marks, 0, sizeof p->marks);
        SAP_TRY(run_stage(p, run, stage, err));
        stage = (sap_stage){.forward_from = p->call_count, .forward_to = p->call_count};
        int64_t marks[SAP_OUTPUTS] = {0};
        for (int64_t slice = 0; slice < p->slice_count; slice++)
            for (int32_t o = 0; o < p->model->output_count; o++)
                marks[o] += p->marks[slice][o];
        SAP_TRY(sap_comm_sum(p->share.comm, SAP_COMM_INT64, marks, p->model->output_count, err));
        for (int32_t o = 0; o < p->model->output_count; o++)
            p->places[o] = p->model->nodes[p->endings[o].node].mask >= 0 ? marks[o] : p->places[o];
    }
    stage.loss = true;
    stage.backward_to = p->call_count;
    for (int32_t b = p->barrier_count; b >= 0; b--) {
        stage.barrier = b > 0 && p->barriers[b - 1].backward ? &p->barriers[b - 1] : NULL;
        stage.backward_from = b > 0 ? p->barriers[b - 1].call + 1 : 0;
        stage.round = stage.barrier ? stage.barrier->whole->rounds - 1 : 0;
        SAP_TRY(run_stage(p, run, stage, err));
        stage = (sap_stage){.backward_to = stage.backward_from};
    }
    for (int32_t b = 0; b < p->barrier_count; b++)
        p->barriers[b].whole->learn(p->model->nodes[p->call_nodes[p->barriers[b].call]].layer, p->barriers[b].sums,
                                    p->model->values);
    return SAP_OK;
}

/* ---- The whole -------------------------------------------------------------------------------------------- */

/* Tiles that a step of a prediction takes. */
static int64_t tiles_a_step(const sap_program *p) {
    return p->model->domain_count ? 1 : PREDICT_TILES;
}

static sap_status predict_tiles(void *context, size_t index, int slot_index, sap_error *err) {
    sap_program *p = context;
    sap_slot *s;
    SAP_TRY(take_slot(p, slot_index, &s, err));
    int64_t tile = (int64_t)index * tiles_a_step(p), end = tile + tiles_a_step(p);
    for (; tile < end && tile < p->tile_count; tile++) {
        sap_frame_load(p, &s->frame, tile);
        sap_frame_forward(p, &s->frame, s->work, 0, p->call_count);
        sap_frame_store(p, &s->frame);
    }
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

/* Little: nothing is worth sharing between threads, and nothing is to be added up. */
static void cut_slices(sap_program *p, bool little) {
    int64_t slices = p->tile_count < SAP_SLICES ? p->tile_count : SAP_SLICES;
    p->slice_count = little ? p->tile_count > 0 : slices;
    for (int64_t s = 0; s <= p->slice_count; s++)
        p->slice_tiles[s] = p->slice_count ? s * p->tile_count / p->slice_count : 0;
}

/* Multiplications of the batch in hand, about. */
static double batch_work(const sap_program *p) {
    double work = p->work;
    for (int32_t d = 0; d < p->model->domain_count; d++)
        work += p->step_work[d] * (double)p->longest[d];
    return work * (double)p->examples->rows;
}

sap_status sap_program_run(sap_program *p, const sap_examples *examples, uint64_t key, float *gradients,
                           float *const *outputs, sap_batch_result *result, sap_error *err) {
    SAP_TRY(sap_examples_check(p->model, examples, err));
    p->examples = examples;
    p->key = key;
    p->gradients = gradients;
    p->outputs = outputs;
    SAP_TRY(sap_program_take(p, err));
    for (int32_t o = 0; p->mode != SAP_PREDICT && o < p->model->output_count; o++) {
        const sap_ending *e = &p->endings[o];
        SAP_TRY(sap_loss_examples(&e->loss, examples, o, e->values, sap_ending_places(p, e), p->model->name, err));
        p->places[o] = sap_program_batch(p) * sap_ending_places(p, e);
    }
    sap_run run = p->run;
    bool little = batch_work(p) < PARALLEL_WORK;
    if (little)
        run.pool = NULL;
    if (!p->share.groups)
        cut_slices(p, little);
    if (p->mode == SAP_PREDICT)
        return sap_loop(&run, (size_t)((p->tile_count + tiles_a_step(p) - 1) / tiles_a_step(p)), predict_tiles, p, err);
    if (has_stages(p))
        SAP_TRY(run_stages(p, &run, err));
    else
        SAP_TRY(run_stage(p, &run,
                          (sap_stage){.load = true,
                                      .loss = true,
                                      .forward_to = p->call_count,
                                      .backward_to = sap_program_differentiates(p) ? p->call_count : 0},
                          err));
    *result = (sap_batch_result){0};
    memcpy(result->places, p->places, sizeof p->places);
    for (int64_t i = 0; i < p->slice_count; i++) {
        for (int32_t o = 0; o < p->model->output_count; o++)
            sap_loss_add(&result->outputs[o], &p->results[i].outputs[o]);
        result->activity += p->results[i].activity;
    }
    if (sap_program_differentiates(p) && p->slice_count == 0) /* all rows are other ranks' */
        memset(gradients, 0, (size_t)p->model->trainable_count * sizeof *gradients);
    if (!sap_program_differentiates(p) || p->slice_count < 2 || p->share.groups)
        return SAP_OK;
    return sap_loop(&run, (size_t)((p->model->trainable_count + TREE_RANGE - 1) / TREE_RANGE), add_range, p, err);
}

void sap_program_share(sap_program *program, const sap_share *share) {
    program->share = *share;
}

sap_activation_kind sap_program_logits(const sap_program *program, int32_t output) {
    return program->endings[output].logits;
}

/* ---- The public form --------------------------------------------------------------------------------------- */

sap_status sap_model_gradient(const sap_model *model, const sap_examples *examples, const sap_loss *losses,
                              const sap_run *run, double *mean_loss, float *gradients, sap_error *err) {
    if (examples->rows < 1)
        return sap_error_set(err, SAP_EDATA, "%s: no examples", model->name);
    sap_program *program = NULL;
    SAP_TRY(sap_program_open(model, SAP_DIFFERENTIATE, losses, NULL, run, &program, err));
    sap_batch_result result;
    sap_status status = sap_program_run(program, examples, 0, gradients, NULL, &result, err);
    *mean_loss = status == SAP_OK ? result.activity : 0;
    for (int32_t o = 0; status == SAP_OK && o < model->output_count; o++)
        *mean_loss += program->endings[o].loss.weight * sap_loss_mean(&result.outputs[o]);
    sap_program_close(program);
    return status;
}
