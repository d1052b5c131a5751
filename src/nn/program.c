/* Running a model over batches: slices of tiles on threads, and the sum of the gradients.
 *
 * A batch is cut into tiles, and its tiles into slices whose number depends on the batch alone. A slice adds the
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
        status = sap_frame_open(p, &p->slots[p->slot_count].frame, err);
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
    for (int32_t i = 0; program->rows && i < program->model->input_count; i++)
        sap_rows_release(&program->rows[i]);
    free(program->order);
    free(program->slices);
    sap_arena_release(&program->arena);
    free(program);
}

/* ---- A batch -------------------------------------------------------------------------------------------- */

static float *slice_gradients(const sap_program *p, int64_t slice) {
    return slice == 0 ? p->gradients : p->slices + slice * p->slice_stride;
}

static sap_status take_slot(sap_program *p, int index, sap_slot **out, sap_error *err) {
    *out = &p->slots[index];
    SAP_TRY(sap_slot_place(p, *out, err));
    return sap_frame_place(p, &(*out)->frame, err);
}

static sap_status run_slice(void *context, size_t index, int slot_index, sap_error *err) {
    sap_program *p = context;
    sap_slot *s;
    SAP_TRY(take_slot(p, slot_index, &s, err));
    int64_t slice = (int64_t)index;
    sap_batch_result result = {0};
    if (sap_program_differentiates(p)) {
        s->frame.pass.gradients = slice_gradients(p, slice);
        memset(s->frame.pass.gradients, 0, (size_t)p->model->trainable_count * sizeof(float));
    }
    for (int64_t tile = slice * p->tile_count / p->slice_count; tile < (slice + 1) * p->tile_count / p->slice_count;
         tile++) {
        sap_frame_load(p, &s->frame, tile);
        sap_frame_forward(p, &s->frame, s->work, 0, p->call_count);
        if (p->outputs)
            sap_frame_store(p, &s->frame);
        SAP_TRY(sap_frame_loss(p, &s->frame, &result, err));
        if (sap_program_differentiates(p))
            sap_frame_backward(p, &s->frame, s->work, 0, p->call_count);
    }
    p->results[slice] = result;
    return SAP_OK;
}

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
    }
    sap_run run = p->run;
    if (batch_work(p) < PARALLEL_WORK)
        run.pool = NULL;
    if (p->mode == SAP_PREDICT)
        return sap_loop(&run, (size_t)((p->tile_count + tiles_a_step(p) - 1) / tiles_a_step(p)), predict_tiles, p, err);
    SAP_TRY(sap_loop(&run, (size_t)p->slice_count, run_slice, p, err));
    *result = (sap_batch_result){0};
    for (int64_t i = 0; i < p->slice_count; i++)
        for (int32_t o = 0; o < p->model->output_count; o++)
            sap_loss_add(&result->outputs[o], &p->results[i].outputs[o]);
    if (!sap_program_differentiates(p) || p->slice_count < 2)
        return SAP_OK;
    return sap_loop(&run, (size_t)((p->model->trainable_count + TREE_RANGE - 1) / TREE_RANGE), add_range, p, err);
}

sap_activation_kind sap_program_logits(const sap_program *program, int32_t output) {
    return program->endings[output].logits;
}

/* ---- Public forms --------------------------------------------------------------------------------------- */

sap_status sap_model_predict(const sap_model *model, const sap_examples *examples, const sap_run *run,
                             float *const *outputs, sap_error *err) {
    sap_program *program = NULL;
    SAP_TRY(sap_program_open(model, SAP_PREDICT, NULL, NULL, run, &program, err));
    sap_status status = sap_program_run(program, examples, 0, NULL, outputs, NULL, err);
    sap_program_close(program);
    return status;
}

sap_status sap_model_gradient(const sap_model *model, const sap_examples *examples, const sap_loss *losses,
                              const sap_run *run, double *mean_loss, float *gradients, sap_error *err) {
    if (examples->rows < 1)
        return sap_error_set(err, SAP_EDATA, "%s: no examples", model->name);
    sap_program *program = NULL;
    SAP_TRY(sap_program_open(model, SAP_DIFFERENTIATE, losses, NULL, run, &program, err));
    sap_batch_result result;
    sap_status status = sap_program_run(program, examples, 0, gradients, NULL, &result, err);
    *mean_loss = 0;
    for (int32_t o = 0; status == SAP_OK && o < model->output_count; o++)
        *mean_loss += program->endings[o].loss.weight * sap_loss_mean(&result.outputs[o]);
    sap_program_close(program);
    return status;
}
