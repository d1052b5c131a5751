/* One tile through a model: loading its rows, the forward and backward passes, loss, storing its outputs. */
#include "program.h"

#include <math.h>

/* ---- Steps ---------------------------------------------------------------------------------------------- */

static void set_steps(const sap_program *p, sap_frame *f, int32_t d) {
    const sap_domain *domain = &p->model->domains[d];
    sap_steps *steps = &f->steps[d];
    for (int t = 0; t < SAP_TILE; t++) {
        steps->length[t] = 0;
        if (t < f->pass.rows)
            steps->length[t] = domain->ragged ? p->rows[domain->input].length[sap_program_row(p, f->first + t)]
                                              : (int32_t)p->longest[d];
    }
    if (domain->ragged) {
        sap_steps_set(steps, f->pass.width);
        return;
    }
    steps->count = (int32_t)p->longest[d];
    steps->part_count = 1;
    steps->parts[0] = (sap_part){.count = steps->count, .width = f->pass.width};
}

/* ---- Loading -------------------------------------------------------------------------------------------- */

/* Steps behind the end of each row of a tensor that is not ragged. */
static void pad(const sap_steps *steps, const int32_t *length, int rows, int64_t values, float padding, float *x) {
    int width = steps->parts[0].width;
    for (int t = 0; t < rows; t++)
        for (int64_t v = length[t] * values; v < steps->count * values; v++)
            x[v * width + t] = padding;
}

/* Loads stretches of steps in which no row ends. */
static void load_sequence(const sap_program *p, const sap_frame *f, int32_t input, float *x) {
    int32_t node = p->model->inputs[input], length[SAP_TILE] = {0};
    const sap_steps *steps = &f->steps[p->model->nodes[node].domain];
    const float *data[SAP_TILE] = {0};
    int64_t values = sap_shape_step_values(&p->model->nodes[node].shape);
    for (int t = 0; t < f->pass.rows; t++) {
        int64_t row = sap_program_row(p, f->first + t);
        data[t] = p->rows[input].data[row];
        length[t] = p->rows[input].length[row];
    }
    for (int32_t i = 0; i < steps->part_count; i++) {
        const sap_part *part = &steps->parts[i];
        for (int32_t begin = part->first, end; begin < part->first + part->count; begin = end) {
            const float *rows[SAP_TILE];
            end = part->first + part->count;
            for (int t = 0; t < part->width; t++) {
                rows[t] = length[t] > begin ? data[t] + begin * values : NULL;
                end = length[t] > begin && length[t] < end ? length[t] : end;
            }
            p->kernels->load(rows, (end - begin) * values, part->width,
                             x + (part->start + (int64_t)(begin - part->first) * part->width) * values);
        }
    }
    float padding = sap_sequence_padding(p->model, node);
    if (!p->model->domains[p->model->nodes[node].domain].ragged && padding != 0)
        pad(steps, length, f->pass.rows, values, padding, x);
}

static void load_plain(const sap_program *p, const sap_frame *f, int32_t input, float *x) {
    int64_t values = p->examples->values[input];
    const float *rows[SAP_TILE] = {0};
    for (int t = 0; t < f->pass.rows; t++)
        rows[t] = p->examples->x[input] + sap_program_row(p, f->first + t) * values;
    p->kernels->load(rows, values, f->pass.width, x);
}

static void load_keys(const sap_program *p, sap_frame *f) {
    for (int t = 0; t < SAP_TILE; t++) {
        int64_t row = sap_program_row(p, f->first + (t < f->pass.rows ? t : 0));
        f->pass.event_keys[t] = sap_mix(p->key, p->examples->identity ? p->examples->identity[row] : (uint64_t)row);
    }
}

void sap_frame_load(const sap_program *p, sap_frame *f, int64_t tile) {
    const sap_model *model = p->model;
    f->first = p->tile_first ? p->tile_first[tile] : tile * p->tile;
    int64_t left = (p->tile_first ? p->tile_first[tile + 1] : p->examples->rows) - f->first;
    f->pass.rows = left < p->tile ? (int)left : p->tile;
    f->pass.width = (f->pass.rows + SAP_COLUMNS - 1) / SAP_COLUMNS * SAP_COLUMNS;
    for (int32_t d = 0; d < model->domain_count; d++)
        set_steps(p, f, d);
    for (int32_t i = 0; i < model->input_count; i++) {
        const sap_node *node = &model->nodes[model->inputs[i]];
        float *x = f->tensors[node->tensor];
        if (x && node->domain >= 0) /* the outputs may not depend on it */
            load_sequence(p, f, i, x);
        else if (x)
            load_plain(p, f, i, x);
    }
    if (f->pass.training)
        load_keys(p, f);
}

/* ---- Forward and backward ------------------------------------------------------------------------------- */

/* Fills the masks that are taken from the output of node n, which has just been computed. */
static void find_masks(const sap_program *p, sap_frame *f, int32_t n) {
    const sap_node *node = &p->model->nodes[n];
    for (int32_t m = 0; m < p->model->mask_count; m++) {
        const sap_mask *mask = &p->model->masks[m];
        uint8_t *to = f->masks[m];
        if (mask->node != n || mask->made || !to)
            continue;
        const sap_steps *steps = &f->steps[node->domain];
        int64_t values = sap_shape_step_values(&node->shape);
        const float *x = f->tensors[node->tensor];
        for (sap_block b = sap_block_first(&f->pass, steps); b.step < b.end; sap_block_next(steps, &b)) {
            for (int t = 0; t < b.width; t++)
                to[b.start + t] = 0;
            for (int64_t v = 0; v < values; v++)
                for (int t = 0; t < b.width; t++)
                    to[b.start + t] |= x[b.start * values + v * b.width + t] != mask->value;
        }
    }
}

/* The mask of a node that merges tensors of the same steps and different masks: a step counts that counts in one. */
static void merge_masks(const sap_program *p, const sap_call *call, int32_t n) {
    const sap_node *node = &p->model->nodes[n];
    bool merges = node->mask >= 0 && p->model->masks[node->mask].made && p->model->masks[node->mask].node == n;
    if (!merges || !call->y_mask || node->layer->padding != SAP_PADDING_STEPWISE)
        return;
    int64_t columns = sap_steps_columns(call->y_steps);
    memset(call->y_mask, 0, (size_t)columns);
    for (int32_t i = 0; i < call->input_count; i++)
        for (int64_t c = 0; c < columns; c++)
            call->y_mask[c] |= call->x_mask[i][c];
}

void sap_frame_forward(const sap_program *p, sap_frame *f, float *work, int32_t from, int32_t to) {
    for (int32_t c = from; c < to; c++) {
        sap_call *call = &f->calls[c];
        int32_t n = p->call_nodes[c];
        call->work = work;
        if (p->model->mask_count)
            merge_masks(p, call, n);
        if (call->layer->class_of->forward && !p->model->nodes[n].view)
            call->layer->class_of->forward(call);
        if (p->model->mask_count)
            find_masks(p, f, n);
    }
}

static bool has_activity(const sap_layer *layer) {
    return layer->activity_l1 != 0 || layer->activity_l2 != 0;
}

/* What the outputs of a call add to the loss; its gradient is added to dy, if that is wanted. */
static double add_activity(const sap_program *p, const sap_call *call, bool gradient) {
    double l1 = call->layer->activity_l1, l2 = call->layer->activity_l2, scale = 1 / (double)sap_program_batch(p),
           sum = 0;
    int64_t values = sap_shape_step_values(call->shape);
    for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end; sap_block_next(call->y_steps, &b)) {
        for (int64_t v = 0; v < values; v++) {
            for (int r = 0; r < call->pass->rows; r++) {
                int64_t at = b.start * values + v * b.width + r;
                double y = (double)call->y[at];
                sum += l1 * fabs(y) + l2 * y * y;
                if (gradient)
                    call->dy[at] += (float)(scale * (l1 * (y > 0 ? 1 : y < 0 ? -1 : 0) + 2 * l2 * y));
            }
        }
    }
    return sum * scale;
}

void sap_frame_backward(const sap_program *p, sap_frame *f, float *work, int32_t from, int32_t to) {
    for (int32_t c = to - 1; c >= from; c--) {
        sap_call *call = &f->calls[c];
        const sap_node *node = &p->model->nodes[p->call_nodes[c]];
        call->work = work;
        if (node->differentiate && has_activity(call->layer))
            (void)add_activity(p, call, true);
        if (node->differentiate && call->layer->class_of->backward && !node->view)
            call->layer->class_of->backward(call);
    }
}

/* ---- Ends ----------------------------------------------------------------------------------------------- */

/* The mask of an output; NULL: all its steps count. */
static const uint8_t *mask_of(const sap_program *p, const sap_frame *f, const sap_ending *e) {
    int32_t mask = p->model->nodes[e->node].mask;
    return mask >= 0 ? f->masks[mask] : NULL;
}

void sap_frame_mark(const sap_program *p, const sap_frame *f, int64_t *marks) {
    for (int32_t o = 0; o < p->model->output_count; o++) {
        const uint8_t *mask = mask_of(p, f, &p->endings[o]);
        const sap_node *node = &p->model->nodes[p->endings[o].node];
        for (int64_t t = 0; mask && t < p->longest[node->domain]; t++)
            for (int r = 0; r < f->pass.rows; r++)
                marks[o] += mask[t * f->pass.width + r];
    }
}

sap_status sap_frame_loss(const sap_program *p, sap_frame *f, sap_batch_result *result, sap_error *err) {
    int64_t rows[SAP_TILE];
    for (int t = 0; t < f->pass.rows; t++)
        rows[t] = sap_program_row(p, f->first + t);
    for (int32_t o = 0; o < p->model->output_count; o++) {
        const sap_ending *e = &p->endings[o];
        const sap_call *output = &f->calls[p->call_of[e->node]];
        int64_t places = sap_ending_places(p, e);
        sap_loss_call call = {
            .kernels = p->kernels,
            .loss = &e->loss,
            .values = e->values,
            .steps = places,
            .width = f->pass.width,
            .rows = f->pass.rows,
            .logits = e->logits,
            .y = output->y,
            .dy = output->dy,
            .mask = mask_of(p, f, e),
            .target = f->target,
            .weight = f->weight,
            .scale = p->places[o] > 0 ? 1 / (double)p->places[o] : 0,
        };
        SAP_TRY(sap_loss_load(&call, p->examples, o, rows, err));
        sap_loss_run(&call);
        sap_loss_add(&result->outputs[o], &call.sums);
    }
    for (int32_t c = 0; c < p->call_count; c++)
        if (has_activity(f->calls[c].layer))
            result->activity += add_activity(p, &f->calls[c], false);
    return SAP_OK;
}

void sap_frame_store(const sap_program *p, const sap_frame *f) {
    for (int32_t o = 0; o < p->model->output_count; o++) {
        if (!p->outputs[o])
            continue;
        const sap_node *node = &p->model->nodes[p->model->outputs[o]];
        int64_t values = sap_shape_step_values(&node->shape) * (node->domain >= 0 ? p->longest[node->domain] : 1);
        const float *y = f->tensors[node->tensor];
        for (int t = 0; t < f->pass.rows; t++) {
            float *to = p->outputs[o] + sap_program_row(p, f->first + t) * values;
            for (int64_t v = 0; v < values; v++)
                to[v] = y[v * f->pass.width + t];
        }
    }
}
