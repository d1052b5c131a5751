/* The engine: memory and steps; and the table of functions by which the plug-in is found. */
#include "cuda_state.h"

#include <algorithm>
#include <new>
#include <stdio.h>
#include <string.h>

sap_status cuda_failed(sap_error *err, const char *what, cudaError_t error) {
    (void)cudaGetLastError(); /* it would stick */
    if (error == cudaErrorMemoryAllocation)
        return sap_error_set(err, SAP_EMEMORY, "%s: out of GPU memory", what);
    return sap_error_set(err, SAP_EIO, "%s: CUDA: %s", what, cudaGetErrorString(error));
}

/* ---- Memory ------------------------------------------------------------------------------------------------- */

void device_memory::release() {
    if (data)
        (void)(pinned ? cudaFreeHost(data) : cudaFree(data));
    data = nullptr;
    bytes = 0;
}

sap_status device_memory::reserve(size_t wanted, sap_error *err) {
    if (wanted <= bytes && data)
        return SAP_OK;
    release();
    wanted = wanted ? wanted : 1;
    CUDA_TRY(pinned ? cudaMallocHost(&data, wanted) : cudaMalloc(&data, wanted), "GPU");
    bytes = wanted;
    return SAP_OK;
}

namespace {

/* ---- Devices ------------------------------------------------------------------------------------------------ */

sap_status count_devices(int *count, sap_error *err) {
    cudaError_t error = cudaGetDeviceCount(count);
    if (error != cudaSuccess || *count == 0)
        return sap_error_set(err, SAP_EPLUGIN, "no GPU is to be had: %s",
                             error == cudaSuccess ? "none is there" : cudaGetErrorString(error));
    return SAP_OK;
}

sap_status describe(char *out, size_t capacity, sap_error *err) {
    int count;
    SAP_TRY(count_devices(&count, err));
    size_t used = 0;
    for (int i = 0; i < count && used < capacity; i++) {
        cudaDeviceProp p;
        CUDA_TRY(cudaGetDeviceProperties(&p, i), "GPU");
        int length = snprintf(out + used, capacity - used, "%d: %s, %d multiprocessors, %.0f GiB\n", i, p.name,
                              p.multiProcessorCount, (double)p.totalGlobalMem / 0x1p30);
        used += length > 0 ? (size_t)length : 0;
    }
    return SAP_OK;
}

sap_status devices(int *count, int64_t *identities, sap_error *err) {
    SAP_TRY(count_devices(count, err));
    *count = std::min(*count, (int)SAP_CUDA_DEVICES);
    for (int i = 0; i < *count; i++) {
        cudaDeviceProp p;
        CUDA_TRY(cudaGetDeviceProperties(&p, i), "GPU");
        memcpy(&identities[i], p.uuid.bytes, sizeof *identities); /* half of it is random enough */
    }
    return SAP_OK;
}

sap_status select(int device, sap_error *err) {
    CUDA_TRY(cudaSetDevice(device), "GPU");
    return SAP_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------------------ */

int32_t parts_of_squares(const sap_cuda_plan *plan) {
    int64_t most = 0;
    for (int32_t i = 0; i < plan->stretch_count; i++)
        most = std::max(most, plan->stretches[i].count);
    return square_parts(most);
}

sap_status reserve_optimizer(sap_cuda_engine *e, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    size_t count = (size_t)plan->stretch_count;
    for (int i = 0; i < SAP_CUDA_SLOTS; i++)
        if (plan->optimizer.slots[i])
            SAP_TRY(e->slots[i].reserve((size_t)plan->trainable_count * sizeof(float), err));
    if (!plan->optimizer.stretched)
        return SAP_OK;
    SAP_TRY(e->stretches.reserve(count * sizeof(sap_cuda_stretch), err));
    SAP_TRY(e->scales.reserve(count * sizeof(float), err));
    SAP_TRY(e->squares.reserve(count * (size_t)parts_of_squares(plan) * sizeof(double), err));
    CUDA_TRY(cudaMemcpyAsync(e->stretches.data, plan->stretches, count * sizeof(sap_cuda_stretch),
                             cudaMemcpyHostToDevice, e->stream),
             plan->name);
    return SAP_OK;
}

optimizer optimizer_of(const sap_cuda_engine *e) {
    const sap_cuda_plan *plan = e->plan;
    optimizer o = {};
    o.settings = plan->optimizer;
    for (int i = 0; i < SAP_CUDA_SLOTS; i++)
        o.slots[i] = plan->optimizer.slots[i] ? e->slots[i].as<float>() : nullptr;
    if (!plan->optimizer.stretched)
        return o;
    o.stretches = e->stretches.as<sap_cuda_stretch>();
    o.stretch_count = plan->stretch_count;
    o.scales = plan->optimizer.norm > 0 ? e->scales.as<float>() : nullptr;
    o.squares = e->squares.as<double>();
    o.parts = parts_of_squares(plan);
    return o;
}

/* Of groups and outputs. */
size_t total_count(const sap_cuda_engine *e) {
    return (size_t)e->share.groups * (size_t)e->plan->output_count;
}

sap_status reserve_fixed(sap_cuda_engine *e, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    size_t batch = (size_t)e->batch, inputs = (size_t)plan->input_count;
    SAP_TRY(e->values.reserve((size_t)plan->value_count * sizeof(float), err));
    SAP_TRY(e->gradients.reserve((size_t)plan->trainable_count * sizeof(float), err));
    SAP_TRY(reserve_optimizer(e, err));
    SAP_TRY(e->counts.reserve((inputs + 1) * sizeof(int32_t), err));
    SAP_TRY(e->batch_key.reserve(batch * sizeof(uint64_t), err));
    int64_t places = 1;
    for (int32_t o = 0; o < plan->output_count; o++)
        places = std::max(places, plan->outputs[o].places);
    SAP_TRY(e->place_loss.reserve(batch * (size_t)places * sizeof(float), err));
    SAP_TRY(e->place_correct.reserve(batch * (size_t)places * sizeof(int32_t), err));
    size_t sums = total_count(e) * sizeof(totals);
    SAP_TRY(e->sums.reserve(sums, err));
    SAP_TRY(e->now.reserve(sizeof(step_now), err));
    e->batch_offsets.resize(inputs);
    e->space = {e->counts.as<int32_t>(), {}, e->batch_key.as<uint64_t>()};
    for (size_t i = 0; i < inputs; i++) {
        if (!plan->inputs[i].ragged)
            continue;
        SAP_TRY(e->batch_offsets[i].reserve((batch + 1) * sizeof(int32_t), err));
        e->space.offsets[i] = e->batch_offsets[i].as<int32_t>();
    }
    CUDA_TRY(cudaMemsetAsync(e->sums.data, 0, sums, e->stream), plan->name);
    CUDA_TRY(cudaStreamSynchronize(e->stream), plan->name);
    return SAP_OK;
}

/* Steps that a batch has of a ragged input, and its tiles of 8 rows, each as long as its longest row. */
struct step_counts {
    int64_t rows, tiles;
};

/* The tensors move: what was captured is no longer theirs. */
sap_status drop_graphs(sap_cuda_engine *e, sap_error *err) {
    SAP_TRY(settle(e, err));
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    for (step_graph &g : e->graphs) {
        if (g.ready)
            CUDA_TRY(cudaGraphExecDestroy(g.ready), e->plan->name);
        g.ready = nullptr;
    }
    return SAP_OK;
}

bool grow(int64_t wanted, int64_t *capacity) {
    if (wanted <= *capacity)
        return false;
    *capacity = wanted + wanted / 8;
    return true;
}

/* Room for the tensors of a batch with so many steps of each ragged input, none of its rows longer than `longest` says. */
sap_status reserve_tensors(sap_cuda_engine *e, const std::vector<step_counts> &steps,
                           const std::vector<int64_t> &longest, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    bool fits = e->y[(size_t)plan->outputs[0].tensor].data != nullptr;
    for (size_t i = 0; i < steps.size(); i++) {
        bool grown = grow(steps[i].rows, &e->step_capacity[i]), tiled = grow(steps[i].tiles, &e->tile_capacity[i]);
        fits = fits && !grown && !tiled && longest[i] <= e->longest[i];
        e->longest[i] = std::max(e->longest[i], longest[i]);
    }
    if (fits)
        return SAP_OK;
    SAP_TRY(drop_graphs(e, err));
    for (int32_t t = 0; t < plan->tensor_count; t++) {
        bool loose = false;
        for (int32_t i = 0; i < plan->input_count; i++)
            loose = loose || (plan->inputs[i].tensor == t && e->loose_input[(size_t)i]);
        if (loose)
            continue;
        size_t bytes = (size_t)(positions_most(e, t) * plan->tensors[t].values) * sizeof(float);
        SAP_TRY(e->y[(size_t)t].reserve(bytes, err));
        if (plan->tensors[t].differentiate)
            SAP_TRY(e->dy[(size_t)t].reserve(bytes, err));
    }
    for (operation &o : e->operations)
        SAP_TRY(reserve_operation(e, &o, err));
    return SAP_OK;
}

/* Operations, and who writes a gradient first on the way back. */
void plan_operations(sap_cuda_engine *e) {
    const sap_cuda_plan *plan = e->plan;
    std::vector<bool> written((size_t)plan->tensor_count);
    for (int32_t o = 0; o < plan->output_count; o++)
        written[(size_t)plan->outputs[o].tensor] = true;
    e->operations.resize((size_t)plan->op_count);
    for (int32_t i = plan->op_count - 1; i >= 0; i--) {
        operation *o = &e->operations[(size_t)i];
        o->op = &plan->ops[i];
        choose_form(e, o);
        for (int32_t k = 0; k < o->op->input_count; k++) {
            size_t tensor = (size_t)o->op->inputs[k];
            o->add.push_back(written[tensor]);
            written[tensor] = written[tensor] || plan->tensors[tensor].differentiate;
        }
    }
}

/* Inputs that are only taken in tiles need no copy of their rows. */
void plan_inputs(sap_cuda_engine *e) {
    e->loose_input.assign((size_t)e->plan->input_count, true);
    for (int32_t i = 0; i < e->plan->input_count; i++)
        for (int32_t o = 0; o < e->plan->output_count; o++)
            if (e->plan->inputs[i].tensor == e->plan->outputs[o].tensor)
                e->loose_input[(size_t)i] = false;
    for (const operation &o : e->operations) {
        e->sorts = e->sorts || o.tiled;
        for (int32_t i = 0; i < e->plan->input_count; i++)
            for (int32_t k = 0; k < o.op->input_count; k++)
                if (e->plan->inputs[i].tensor == o.op->inputs[k] && !(o.tiled && e->plan->inputs[i].ragged))
                    e->loose_input[(size_t)i] = false;
    }
}

sap_status open_stack(sap_cuda_engine *e, sap_error *err) {
    e->stacked = !shares(e) && stack_plan(e->plan, e->shared_most, &e->net);
    if (!e->stacked)
        return SAP_OK;
    size_t blocks = (size_t)e->multiprocessors;
    SAP_TRY(e->parts.reserve(blocks * (size_t)e->net.parameters * sizeof(float), err));
    SAP_TRY(e->arrived.reserve(sizeof(unsigned), err));
    SAP_TRY(e->block_sums.reserve(blocks * sizeof(totals), err));
    CUDA_TRY(cudaMemsetAsync(e->block_sums.data, 0, blocks * sizeof(totals), e->stream), e->plan->name);
    return SAP_OK;
}

sap_status open_engine(sap_cuda_engine *e, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    int count, device;
    SAP_TRY(count_devices(&count, err));
    if (plan->input_count > SAP_CUDA_INPUTS)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: %d inputs; on a GPU at most %d", plan->name, plan->input_count,
                             SAP_CUDA_INPUTS);
    if (plan->output_count > SAP_CUDA_OUTPUTS)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: %d outputs; on a GPU at most %d", plan->name,
                             plan->output_count, SAP_CUDA_OUTPUTS);
    CUDA_TRY(cudaGetDevice(&device), plan->name);
    cudaDeviceProp p;
    CUDA_TRY(cudaGetDeviceProperties(&p, device), plan->name);
    e->multiprocessors = p.multiProcessorCount;
    e->capability = p.major * 10 + p.minor;
    e->shared_most = p.sharedMemPerBlockOptin;
    if (plan->precision == SAP_CUDA_TF32 && e->capability < 80)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: tf32 on a GPU of compute capability %d.%d; it came with 8.0",
                             plan->name, p.major, p.minor);
    CUDA_TRY(cudaStreamCreate(&e->stream), plan->name);
    CUDA_TRY(cudaStreamCreate(&e->copies), plan->name);
    e->host_order.pinned = true;
    for (stage &s : e->stages) {
        s.pinned.pinned = true;
        CUDA_TRY(cudaEventCreateWithFlags(&s.copied, cudaEventDisableTiming), plan->name);
        CUDA_TRY(cudaEventCreateWithFlags(&s.used, cudaEventDisableTiming), plan->name);
        init_rows(e, &s.rows);
    }
    for (kept_rows &set : e->sets)
        init_rows(e, &set);
    e->y.resize((size_t)plan->tensor_count);
    e->dy.resize((size_t)plan->tensor_count);
    e->step_capacity.assign((size_t)plan->input_count, 0);
    e->tile_capacity.assign((size_t)plan->input_count, 0);
    e->longest.assign((size_t)plan->input_count, 0);
    e->steps.assign((size_t)plan->input_count, 0);
    plan_operations(e);
    plan_inputs(e);
    SAP_TRY(reserve_fixed(e, err));
    SAP_TRY(open_sums(e, err));
    return open_stack(e, err);
}

void close_engine(sap_cuda_engine *e) {
    if (!e)
        return;
    if (e->stream)
        (void)cudaStreamSynchronize(e->stream);
    if (e->copies)
        (void)cudaStreamSynchronize(e->copies);
    for (const step_graph &g : e->graphs)
        if (g.ready)
            (void)cudaGraphExecDestroy(g.ready);
    close_sums(e);
    for (stage &s : e->stages) {
        if (s.copied)
            (void)cudaEventDestroy(s.copied);
        if (s.used)
            (void)cudaEventDestroy(s.used);
    }
    if (e->stream)
        (void)cudaStreamDestroy(e->stream);
    if (e->copies)
        (void)cudaStreamDestroy(e->copies);
    delete e;
}

sap_status open(const sap_cuda_plan *plan, int64_t batch, const sap_cuda_share *share, sap_cuda_engine **out,
                sap_error *err) {
    sap_cuda_engine *e = new (std::nothrow) sap_cuda_engine();
    if (!e)
        return sap_error_set(err, SAP_EMEMORY, "%s: out of memory", plan->name);
    e->plan = plan;
    e->batch = batch;
    e->share.groups = 1;
    if (share)
        e->share = *share;
    sap_status status = open_engine(e, err);
    if (status == SAP_OK)
        *out = e;
    else
        close_engine(e);
    return status;
}

/* ---- Weights ------------------------------------------------------------------------------------------------ */

sap_status move(sap_cuda_engine *e, const device_memory &device, void *host, size_t count, bool in, sap_error *err) {
    size_t bytes = count * sizeof(float);
    CUDA_TRY(in ? cudaMemcpyAsync(device.data, host, bytes, cudaMemcpyHostToDevice, e->stream)
                : cudaMemcpyAsync(host, device.data, bytes, cudaMemcpyDeviceToHost, e->stream),
             e->plan->name);
    return SAP_OK;
}

sap_status move_state(sap_cuda_engine *e, float *values, float *const *slots, bool in, sap_error *err) {
    SAP_TRY(settle(e, err));
    SAP_TRY(move(e, e->values, values, (size_t)e->plan->value_count, in, err));
    for (int i = 0; slots && i < SAP_CUDA_SLOTS; i++)
        if (e->plan->optimizer.slots[i])
            SAP_TRY(move(e, e->slots[i], slots[i], (size_t)e->plan->trainable_count, in, err));
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    return SAP_OK;
}

sap_status put(sap_cuda_engine *e, const float *values, float *const *slots, sap_error *err) {
    return move_state(e, (float *)values, slots, true, err);
}

sap_status get(sap_cuda_engine *e, float *values, float *const *slots, sap_error *err) {
    return move_state(e, values, slots, false, err);
}

/* ---- A step ------------------------------------------------------------------------------------------------- */

/* Rows that are on the device and go through the network together: a group of a batch, or all of it. host_order: the same order on the
 * host, NULL: 0, 1, 2 … */
struct step {
    const kept_rows *set;
    const int32_t *order, *host_order;
    int64_t rows, batch_rows; /* in hand; of the batch, of all ranks */
    uint64_t key;
    run_mode mode;
    sap_cuda_update update; /* RUN_TRAIN */
    int32_t group;
};

step_counts count_steps(const step *s, size_t input) {
    const std::vector<int64_t> &steps = s->set->steps[input];
    step_counts sum = {0, 0};
    int64_t tile = 0;
    for (int64_t r = 0; r < s->rows; r++) {
        size_t row = (size_t)(s->host_order ? s->host_order[r] : r);
        int64_t length = steps[row + 1] - steps[row];
        tile = r % 8 == 0 || length > tile ? length : tile;
        sum.rows += length;
        sum.tiles += r % 8 == 7 || r == s->rows - 1 ? tile : 0;
    }
    return sum;
}

/* Makes room for the batch, and tells the device which it is. */
sap_status begin_step(sap_cuda_engine *e, const step *s, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    std::vector<step_counts> steps((size_t)plan->input_count, {0, 0});
    for (size_t i = 0; i < steps.size(); i++)
        if (plan->inputs[i].ragged)
            steps[i] = count_steps(s, i);
    for (size_t i = 0; i < steps.size(); i++)
        e->steps[i] = steps[i].rows;
    SAP_TRY(reserve_tensors(e, steps, s->set->longest, err));
    step_now now = {view(e, s->set), s->order, s->update,
                    s->batch_rows,   e->step,  e->sums.as<totals>() + s->group * plan->output_count};
    launch_begin(e->stream, now, (int32_t)s->rows, plan->input_count, s->key, e->space, e->now.as<step_now>());
    CUDA_TRY(cudaGetLastError(), plan->name);
    return SAP_OK;
}

void launch_update(sap_cuda_engine *e) {
    launch_optimizer(e->stream, {e->plan->trainable_count, optimizer_of(e), &e->now.as<step_now>()->update,
                                 e->gradients.as<float>(), e->values.as<float>()});
}

/* The losses of all outputs, and their gradients. */
sap_status launch_losses(sap_cuda_engine *e, bool differentiate, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    for (int32_t o = 0; o < plan->output_count; o++) {
        const sap_cuda_output &output = plan->outputs[o];
        const device_memory &dy = e->dy[(size_t)output.tensor];
        if (output.loss.kind != SAP_LOSS_NONE)
            launch_loss(e->stream, e->space.counts, e->batch,
                        {o, output, e->y[(size_t)output.tensor].as<float>(), differentiate ? dy.as<float>() : nullptr,
                         e->place_loss.as<float>(), e->place_correct.as<int32_t>(), e->now.as<step_now>()});
        else if (differentiate && dy.data)
            CUDA_TRY(cudaMemsetAsync(dy.data, 0, dy.bytes, e->stream), plan->name);
    }
    return SAP_OK;
}

/* Launches all of a step behind its beginning, but for what is shared: nothing here may depend on the batch. */
sap_status launch_step(sap_cuda_engine *e, run_mode mode, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    bool differentiate = mode == RUN_TRAIN || mode == RUN_DIFFERENTIATE;
    for (int32_t i = 0; i < plan->input_count; i++)
        if (!e->loose_input[(size_t)i])
            launch_gather(e->stream, e->now.as<step_now>(), e->space, e->batch, i, halved(e, (size_t)i),
                          plan->inputs[i].values, e->y[(size_t)plan->inputs[i].tensor].as<float>());
    for (operation &o : e->operations)
        SAP_TRY(forward_operation(e, &o, mode, err));
    if (mode == RUN_PREDICT)
        return SAP_OK;
    SAP_TRY(launch_losses(e, differentiate, err));
    if (differentiate) {
        CUDA_TRY(cudaMemsetAsync(e->gradients.data, 0, (size_t)plan->trainable_count * sizeof(float), e->stream),
                 plan->name);
        for (size_t i = e->operations.size(); i-- > 0;)
            if (plan->tensors[e->operations[i].op->output].differentiate)
                SAP_TRY(backward_operation(e, &e->operations[i], mode, err));
    }
    if (mode == RUN_TRAIN && !shares(e))
        launch_update(e);
    CUDA_TRY(cudaGetLastError(), plan->name);
    return SAP_OK;
}

sap_status capture_step(sap_cuda_engine *e, run_mode mode, cudaGraphExec_t *out, sap_error *err) {
    cudaGraph_t graph = nullptr;
    CUDA_TRY(cudaStreamBeginCapture(e->stream, cudaStreamCaptureModeThreadLocal), e->plan->name);
    sap_status status = launch_step(e, mode, err);
    cudaError_t error = cudaStreamEndCapture(e->stream, &graph);
    if (status == SAP_OK && error == cudaSuccess)
        error = cudaGraphInstantiate(out, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (status == SAP_OK)
        CUDA_TRY(error, e->plan->name);
    return status;
}

sap_status run_step(sap_cuda_engine *e, const step *s, sap_error *err) {
    SAP_TRY(begin_step(e, s, err));
    step_graph *graph = &e->graphs[s->mode];
    bool repeats = (s->mode == RUN_TRAIN || s->mode == RUN_MEASURE) && e->share.groups == 1; /* else launches vary */
    if (!repeats || !graph->loaded) {
        graph->loaded = true;
        return launch_step(e, s->mode, err);
    }
    if (!graph->ready)
        SAP_TRY(capture_step(e, s->mode, &graph->ready, err));
    CUDA_TRY(cudaGraphLaunch(graph->ready, e->stream), e->plan->name);
    return SAP_OK;
}

/* Runs the groups of a shared step, which stand at begin[0 … groups], and leaves the gradients of each, or zeros. */
sap_status run_groups(sap_cuda_engine *e, const step *whole, const int64_t *begin, sap_error *err) {
    const char *name = e->plan->name;
    size_t bytes = (size_t)e->plan->trainable_count * sizeof(float);
    int32_t groups = e->share.groups;
    bool any = false;
    if (groups > 1)
        CUDA_TRY(cudaMemsetAsync(e->group_gradients.data, 0, (size_t)groups * bytes, e->stream), name);
    for (int32_t g = 0; g < groups; g++) {
        step s = *whole;
        s.order += begin[g];
        s.host_order += begin[g];
        s.rows = begin[g + 1] - begin[g];
        s.group = g;
        if (s.rows == 0)
            continue;
        any = true;
        SAP_TRY(run_step(e, &s, err));
        if (groups > 1)
            CUDA_TRY(cudaMemcpyAsync(e->group_gradients.as<char>() + (size_t)g * bytes, e->gradients.data, bytes,
                                     cudaMemcpyDeviceToDevice, e->stream),
                     name);
    }
    if (any)
        return SAP_OK;
    CUDA_TRY(cudaMemsetAsync(e->gradients.data, 0, bytes, e->stream), name);
    return begin_step(e, whole, err); /* the update */
}

/* One step. whole: of all its rows, but for their number, in the order in which groups stand at begin[0 … groups], each of them sorted. */
sap_status run_batch(sap_cuda_engine *e, const step *whole, const int64_t *begin, sap_error *err) {
    e->step++;
    if (whole->mode == RUN_TRAIN && shares(e)) {
        SAP_TRY(run_groups(e, whole, begin, err));
        SAP_TRY(sum_gradients(e, err));
        launch_update(e);
        CUDA_TRY(cudaGetLastError(), e->plan->name);
        return SAP_OK;
    }
    step s = *whole;
    s.order += begin[0];
    s.host_order += begin[0];
    s.rows = begin[e->share.groups] - begin[0];
    return run_step(e, &s, err);
}

/* Waits; the sums of each output of each group since the last time. */
sap_status finish(sap_cuda_engine *e, sap_cuda_result *results, sap_error *err) {
    size_t count = total_count(e);
    std::vector<totals> sums(count);
    SAP_TRY(settle(e, err));
    if (e->stacked)
        launch_add_totals(e->stream, e->block_sums.as<totals>(), e->multiprocessors, e->sums.as<totals>());
    CUDA_TRY(cudaMemcpyAsync(sums.data(), e->sums.data, count * sizeof(totals), cudaMemcpyDeviceToHost, e->stream),
             e->plan->name);
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    CUDA_TRY(cudaMemsetAsync(e->sums.data, 0, count * sizeof(totals), e->stream), e->plan->name);
    for (size_t i = 0; i < count; i++)
        results[i] = {sums[i].loss, sums[i].places, sums[i].correct, sums[i].bad_step};
    e->step = 0;
    return SAP_OK;
}

sap_status run_stack(sap_cuda_engine *e, const kept_rows *set, const sap_cuda_steps *steps, sap_error *err) {
    size_t count = (size_t)((steps->rows + steps->batch - 1) / steps->batch);
    SAP_TRY(e->updates.reserve(count * sizeof(sap_cuda_update), err));
    CUDA_TRY(cudaMemcpyAsync(e->updates.data, steps->updates, count * sizeof(sap_cuda_update), cudaMemcpyHostToDevice,
                             e->stream),
             e->plan->name);
    stack_call call = {};
    call.net = e->net;
    call.set = view(e, set);
    call.order = e->order.as<int32_t>();
    call.rows = steps->rows;
    call.batch = steps->batch;
    call.key = steps->key;
    call.updates = e->updates.as<sap_cuda_update>();
    call.of = optimizer_of(e);
    call.values = e->values.as<float>();
    call.parts = e->parts.as<float>();
    call.arrived = e->arrived.as<unsigned>();
    call.sums = e->block_sums.as<totals>();
    unsigned blocks = stack_blocks(e->net, steps->batch, e->multiprocessors, &call.tile_rows);
    CUDA_TRY(launch_stack(e->stream, call, blocks), e->plan->name);
    return SAP_OK;
}

sap_status run(sap_cuda_engine *e, int which, const sap_cuda_steps *steps, sap_cuda_result *results, sap_error *err) {
    const kept_rows *set = &e->sets[which];
    const char *name = e->plan->name;
    int64_t groups = e->share.groups, count = (steps->rows + steps->batch - 1) / steps->batch;
    size_t own = (size_t)(steps->begin ? steps->begin[count * groups] : steps->rows);
    SAP_TRY(settle(e, err));
    SAP_TRY(e->order.reserve(own * sizeof(int32_t), err));
    SAP_TRY(e->host_order.reserve(own * sizeof(int32_t), err));
    int32_t *order = e->host_order.as<int32_t>(), *there = e->order.as<int32_t>();
    memcpy(order, steps->order, own * sizeof(int32_t));
    bool class_numbers = set->target_values[0] == 1;
    if (e->stacked && class_numbers && steps->updates) {
        CUDA_TRY(cudaMemcpyAsync(there, order, own * sizeof(int32_t), cudaMemcpyHostToDevice, e->stream), name);
        SAP_TRY(run_stack(e, set, steps, err));
        return finish(e, results, err);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t first = i * steps->batch, rows = std::min(steps->batch, steps->rows - first);
        std::vector<int64_t> whole(SAP_CUDA_GROUPS + 1, first + rows);
        whole[0] = first;
        const int64_t *begin = steps->begin ? steps->begin + i * groups : whole.data();
        for (int64_t g = 0; g < groups; g++) /* while the device works on the steps before */
            sort_rows(e, set, order + begin[g], begin[g + 1] - begin[g]);
        CUDA_TRY(cudaMemcpyAsync(there + begin[0], order + begin[0],
                                 (size_t)(begin[groups] - begin[0]) * sizeof(int32_t), cudaMemcpyHostToDevice,
                                 e->stream),
                 name);
        step s = {set,
                  there,
                  order,
                  0,
                  rows,
                  steps->key,
                  steps->updates ? RUN_TRAIN : RUN_MEASURE,
                  steps->updates ? steps->updates[i] : sap_cuda_update(),
                  0};
        SAP_TRY(run_batch(e, &s, begin, err));
    }
    return finish(e, results, err);
}

/* ---- Batches from the host ---------------------------------------------------------------------------------- */

sap_status run_sent(sap_cuda_engine *e, const sap_cuda_rows *rows, uint64_t key, run_mode mode,
                    const sap_cuda_update *update, const stage **out, sap_error *err) {
    if (rows->rows > e->batch)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a batch of %lld rows, the engine is for %lld", e->plan->name,
                             (long long)rows->rows, (long long)e->batch);
    stage *sent = nullptr;
    std::vector<int64_t> whole(SAP_CUDA_GROUPS + 1, rows->rows);
    whole[0] = 0;
    const int64_t *begin = rows->begin ? rows->begin : whole.data();
    SAP_TRY(send_rows(e, rows, begin, &sent, err));
    step s = {&sent->rows,
              sent->order.as<int32_t>(),
              sent->sorted.data(),
              0,
              rows->batch_rows > 0 ? rows->batch_rows : rows->rows,
              key,
              mode,
              update ? *update : sap_cuda_update(),
              0};
    SAP_TRY(run_batch(e, &s, begin, err));
    CUDA_TRY(cudaEventRecord(sent->used, e->stream), e->plan->name);
    *out = sent;
    return SAP_OK;
}

sap_status feed(sap_cuda_engine *e, const sap_cuda_rows *rows, uint64_t key, const sap_cuda_update *update,
                sap_error *err) {
    const stage *sent;
    return run_sent(e, rows, key, update ? RUN_TRAIN : RUN_MEASURE, update, &sent, err);
}

sap_status predict(sap_cuda_engine *e, const sap_cuda_rows *rows, float *const *outputs, sap_error *err) {
    const stage *sent = nullptr;
    SAP_TRY(run_sent(e, rows, 0, RUN_PREDICT, nullptr, &sent, err));
    for (int32_t o = 0; o < e->plan->output_count; o++) {
        const sap_cuda_output &output = e->plan->outputs[o];
        size_t values = (size_t)(output.places * output.values);
        if (!outputs[o])
            continue;
        std::vector<float> sorted((size_t)rows->rows * values);
        CUDA_TRY(cudaMemcpyAsync(sorted.data(), e->y[(size_t)output.tensor].data, sorted.size() * sizeof(float),
                                 cudaMemcpyDeviceToHost, e->stream),
                 e->plan->name);
        CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
        for (size_t r = 0; r < sent->sorted.size(); r++) /* back to the caller's order */
            memcpy(outputs[o] + (size_t)sent->sorted[r] * values, sorted.data() + r * values, values * sizeof(float));
    }
    return SAP_OK;
}

sap_status gradient(sap_cuda_engine *e, const sap_cuda_rows *rows, float *gradients, sap_cuda_result *results,
                    sap_error *err) {
    const stage *sent;
    SAP_TRY(run_sent(e, rows, 0, RUN_DIFFERENTIATE, nullptr, &sent, err));
    SAP_TRY(move(e, e->gradients, gradients, (size_t)e->plan->trainable_count, false, err));
    return finish(e, results, err);
}

} // namespace

/* For `sapwood version`: the devices, or that there is none, in a line. */
extern "C" __attribute__((visibility("default"))) void sap_plugin_cuda_state(char *out, size_t capacity) {
    sap_error error = {};
    char text[1000] = "";
    bool found = describe(text, sizeof text, &error) == SAP_OK;
    for (char *c = text; *c; c++)
        *c = *c != '\n' ? *c : c[1] ? ';' : '\0';
    (void)snprintf(out, capacity, "%s", found ? text : error.message);
}

extern "C" __attribute__((visibility("default"))) const sap_cuda_table sap_plugin_cuda;
const sap_cuda_table sap_plugin_cuda = {describe,     devices,   select, open, close_engine, put,     get,
                                        reserve_rows, keep_rows, run,    feed, finish,       predict, gradient};
