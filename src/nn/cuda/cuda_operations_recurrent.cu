/* What GRU and LSTM launch, forward and backward: persistent kernels on tensor cores, or the general form. */
#include "cuda_cell.h"
#include "cuda_operation.h"

namespace {

bool drops_inside(const sap_cuda_op *op) {
    return op->rate > 0 || op->recurrent_rate > 0;
}

/* As Keras has it: with recurrent dropout inputs too have a mask for each gate, else one for all. Without masks but in training. */
cell_dropout dropout_of(const sap_cuda_engine *e, const sap_cuda_op *op, run_mode mode) {
    int32_t gates = recurrent_gates(op->kind == SAP_CUDA_LSTM), each = op->recurrent_rate > 0 ? gates : 0;
    cell_dropout p = {};
    p.rows = e->space.counts;
    p.row_keys = e->space.key;
    p.key = op->key;
    p.cell = op->cell;
    p.width = (int32_t)op->width;
    p.units = (int32_t)op->units;
    p.x_masks = mode != RUN_TRAIN || op->rate == 0 ? 0 : each ? each : 1;
    p.h_masks = mode != RUN_TRAIN ? 0 : each;
    p.x_threshold = sap_dropout_threshold(op->rate);
    p.h_threshold = sap_dropout_threshold(op->recurrent_rate);
    p.x_scale = (float)(1 / (1 - op->rate));
    p.h_scale = (float)(1 / (1 - op->recurrent_rate));
    return p;
}

int64_t masks_of_row(const cell_dropout &p) {
    return (int64_t)p.x_masks * p.width + (int64_t)p.h_masks * p.units;
}

/* Places what the layer keeps in its memory; at NULL: gives the floats that it takes. */
int64_t place_recurrent(const sap_cuda_engine *e, const sap_cuda_op *op, float *at, recurrent_kept *out) {
    int64_t n = step_places_most(e, op->inputs[0], op->steps), units = op->units, used = 0;
    bool lstm = op->kind == SAP_CUDA_LSTM;
    auto take = [&](int64_t values) {
        float *start = at + used;
        used += (n * values + 31) / 32 * 32;
        return start;
    };
    int64_t masks = masks_of_row(dropout_of(e, op, RUN_TRAIN));
    int64_t gates = recurrent_gates(lstm) * units;
    out->projected = take(gates);
    out->values = take((lstm ? 5 : 4) * units);
    out->h = take(units);
    out->c = take(lstm ? units : 0);
    out->d_input = take(gates);
    out->d_recurrent = lstm ? out->d_input : take(gates);
    out->row_of = (int32_t *)take(masks > 0);
    out->masks = at + used;
    return used + e->batch * masks;
}

recurrent recurrent_of(const call &c) {
    const sap_cuda_op *op = c.op;
    recurrent p = {};
    p.lstm = op->kind == SAP_CUDA_LSTM;
    p.backwards = op->backwards;
    p.width = (int32_t)op->width;
    p.units = (int32_t)op->units;
    p.activation = op->activation;
    p.recurrent_activation = op->recurrent_activation;
    p.at = steps_at(c.e, op->inputs[0], op->steps);
    p.kernel = value_at(c.e, op->weights[0]);
    p.recurrent_kernel = value_at(c.e, op->weights[1]);
    p.bias = value_at(c.e, op->weights[2]);
    p.x = c.x;
    p.counts = counts_of(c, 0);
    p.zero_masked = op->zero_masked;
    p.flipped = op->flipped;
    (op->whole ? p.y : p.last) = c.y;
    (op->whole ? p.dy : p.d_last) = c.dy;
    return p;
}

/* ---- on tensor cores ---- */

int64_t tile_steps_most(const sap_cuda_engine *e, const sap_cuda_op *op) {
    int32_t sequence = e->plan->tensors[op->inputs[0]].sequence;
    return sequence < 0 ? (e->batch + SAP_CELL_TILE - 1) / SAP_CELL_TILE * op->steps
                        : e->tile_capacity[(size_t)sequence];
}

/* Places tiles, states and parts behind each other; at NULL: gives the bytes. */
size_t place_tiles(const sap_cuda_engine *e, const sap_cuda_op *op, char *at, cell_call *out) {
    int64_t tiles = (e->batch + SAP_CELL_TILE - 1) / SAP_CELL_TILE, steps = tile_steps_most(e, op);
    size_t used = 0;
    out->lstm = op->kind == SAP_CUDA_LSTM;
    out->width = (int32_t)op->width;
    out->units = (int32_t)op->units;
    auto take = [&](int64_t bytes) {
        char *start = at + used;
        used += (size_t)(bytes + 255) / 256 * 256;
        return start;
    };
    out->tile_first = (int32_t *)take((tiles + 1) * 4);
    out->tiles = (uint16_t *)take(steps * padded_rows(out->width) * SAP_CELL_TILE * 2);
    out->states = (uint16_t *)take((steps + tiles) * cell_state_rows(*out) * SAP_CELL_TILE * 2);
    out->parts = (float *)take(e->multiprocessors * cell_parameters(*out) * 4);
    return used;
}

device_limits limits_of(const sap_cuda_engine *e) {
    return {e->multiprocessors, e->shared_most};
}

cell_call cell_of(const call &c) {
    const sap_cuda_op *op = c.op;
    int32_t sequence = c.e->plan->tensors[op->inputs[0]].sequence;
    cell_call p = {};
    (void)place_tiles(c.e, op, c.o->z.as<char>(), &p);
    p.backwards = op->backwards;
    p.at = steps_at(c.e, op->inputs[0], op->steps);
    p.kernel = value_at(c.e, op->weights[0]);
    p.recurrent_kernel = value_at(c.e, op->weights[1]);
    p.bias = value_at(c.e, op->weights[2]);
    p.x = c.x;
    if (sequence >= 0 && c.e->plan->inputs[sequence].tensor == op->inputs[0]) { /* as the device keeps it */
        p.x = nullptr;
        p.now = c.e->now.as<step_now>();
        p.input = sequence;
    }
    p.last = c.y;
    p.d_last = c.dy;
    return p;
}

void cell_forward(const call &c) {
    cell_call p = cell_of(c);
    int32_t sequence = c.e->plan->tensors[c.op->inputs[0]].sequence;
    launch_cell_tiles(c.stream, p, c.e->batch, sequence < 0 ? c.op->steps : c.e->longest[(size_t)sequence]);
    (void)launch_cell_forward(c.stream, p, c.mode >= RUN_DIFFERENTIATE, c.e->batch, limits_of(c.e));
}

void cell_backward(const call &c) {
    cell_call p = cell_of(c);
    if (!c.op->trainable)
        return;
    (void)launch_cell_backward(c.stream, p, c.e->batch, limits_of(c.e));
    launch_cell_sum(c.stream, p, c.e->batch, limits_of(c.e), gradient_at(c.e, c.op->weights[0]),
                    gradient_at(c.e, c.op->weights[1]), gradient_at(c.e, c.op->weights[2]));
}

/* ---- in float32, or with products in tf32 ---- */

/* The layer with what it keeps, and its two products: of the inputs, and of the states before the steps. */
struct masked_recurrent {
    recurrent p;
    recurrent_kept kept;
    cell_dropout dropout;
    masked_product x, h;
    bool tf32; /* the chain of steps too: that knows neither masks nor another order */
};

masked_recurrent masked_recurrent_of(const call &c) {
    masked_recurrent r = {recurrent_of(c), {}, dropout_of(c.e, c.op, c.mode), {}, {}, false};
    (void)place_recurrent(c.e, c.op, c.o->z.as<float>(), &r.kept);
    const cell_dropout &d = r.dropout;
    const float *h_masks = r.kept.masks + (int64_t)d.x_masks * d.width;
    int64_t each = c.op->steps > 0 ? c.op->steps : 1; /* positions of regular sequences are rows */
    int64_t most = positions_launched(c.e, c.op->inputs[0]) * each, row = masks_of_row(d),
            gates = recurrent_gates(r.p.lstm) * r.p.units;
    extent n = positions(c.e, c.op->inputs[0], each);
    r.x = {n, most, r.kept.row_of, r.kept.masks, row, d.x_masks, r.p.width, gates, r.p.x, r.p.kernel};
    r.h = {n, most, r.kept.row_of, h_masks, row, d.h_masks, r.p.units, gates, r.kept.h, r.p.recurrent_kernel};
    r.p.h_masks = d.h_masks > 0 ? h_masks : nullptr;
    r.p.mask_row = row;
    r.tf32 = takes_tf32(c.e) && !r.p.h_masks && !r.p.counts && !r.p.flipped;
    return r;
}

/* Gradients of the weights that x is multiplied by, of which d is that of the product. */
void product_weights(const call &c, const masked_product &x, const float *d, float *gw, float *gb) {
    float *work = c.o->work.as<float>();
    if (x.mask_count > 0)
        launch_masked_weights(c.stream, x, d, work, gw, gb);
    else
        launch_dense_weights(c.stream, x.n, x.most, x.width, x.all, x.x, d, work, gw, gb, takes_tf32(c.e));
}

} // namespace

bool is_recurrent(sap_cuda_kind kind) {
    return kind == SAP_CUDA_GRU || kind == SAP_CUDA_LSTM;
}

void choose_form(const sap_cuda_engine *e, operation *o) {
    const sap_cuda_op *op = o->op;
    bool lstm = op->kind == SAP_CUDA_LSTM;
    o->tiled = is_recurrent(op->kind) && e->plan->precision == SAP_CUDA_BF16 && e->capability >= 80 &&
               cell_shared_bytes(lstm) <= e->shared_most && (lstm || op->reset_after) && !op->whole && !op->masks &&
               !drops_inside(op) && op->units <= SAP_CELL_UNITS && op->width <= SAP_CELL_WIDTH &&
               op->activation.kind == SAP_TANH && op->recurrent_activation.kind == SAP_SIGMOID &&
               !e->plan->tensors[op->inputs[0]].differentiate;
}

void recurrent_forward(const call &c) {
    if (c.o->tiled) {
        cell_forward(c);
        return;
    }
    masked_recurrent r = masked_recurrent_of(c);
    const recurrent &p = r.p;
    if (masks_of_row(r.dropout) > 0) {
        launch_cell_masks(c.stream, r.dropout, c.e->batch, r.kept.masks);
        launch_row_numbers(c.stream, p.at, c.e->batch, r.kept.row_of);
    }
    if (r.x.mask_count > 0)
        launch_masked(c.stream, r.x, p.bias, r.kept.projected);
    else
        launch_dense(c.stream, r.x.n, r.x.most, p.width, r.x.all, p.x, p.kernel, p.bias, r.kept.projected,
                     takes_tf32(c.e));
    auto launch = r.tf32 ? launch_recurrent_tf32 : launch_recurrent;
    launch(c.stream, p, r.kept, c.e->batch, c.e->shared_most);
}

void recurrent_backward(const call &c) {
    if (c.o->tiled) {
        cell_backward(c);
        return;
    }
    masked_recurrent r = masked_recurrent_of(c);
    const recurrent &p = r.p;
    auto launch = r.tf32 ? launch_recurrent_tf32_gradient : launch_recurrent_gradient;
    launch(c.stream, p, r.kept, c.e->batch, c.e->shared_most);
    if (c.op->trainable) {
        float *bias = gradient_at(c.e, c.op->weights[2]);
        product_weights(c, r.x, r.kept.d_input, gradient_at(c.e, c.op->weights[0]), bias);
        product_weights(c, r.h, r.kept.d_recurrent, gradient_at(c.e, c.op->weights[1]),
                        bias && !p.lstm ? bias + r.h.all : nullptr);
    }
    if (c.dx && r.x.mask_count > 0)
        launch_masked_input(c.stream, r.x, r.kept.d_input, c.o->add[0], c.dx);
    else if (c.dx)
        launch_dense_input(c.stream, r.x.n, r.x.most, p.width, r.x.all, r.kept.d_input, p.kernel, c.o->add[0], c.dx,
                           takes_tf32(c.e));
}

sap_status reserve_recurrent(sap_cuda_engine *e, operation *o, sap_error *err) {
    const sap_cuda_op *op = o->op;
    cell_call tiles;
    if (o->tiled)
        return o->z.reserve(place_tiles(e, op, nullptr, &tiles), err);
    recurrent_kept kept;
    int64_t gates = recurrent_gates(op->kind == SAP_CUDA_LSTM) * op->units;
    int64_t width = op->width > op->units ? op->width : op->units;
    SAP_TRY(o->z.reserve((size_t)place_recurrent(e, op, nullptr, &kept) * sizeof(float), err));
    return o->work.reserve(
        (size_t)dense_work(step_places_most(e, op->inputs[0], op->steps), width, gates) * sizeof(float), err);
}
