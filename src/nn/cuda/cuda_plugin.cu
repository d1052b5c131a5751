/* The engine: memory, rows, steps; and the table of functions by which the plug-in is found. */
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

sap_status reserve_fixed(sap_cuda_engine *e, sap_error *err) {
    const sap_cuda_plan *plan = e->plan;
    size_t batch = (size_t)e->batch, inputs = (size_t)plan->input_count;
    SAP_TRY(e->values.reserve((size_t)plan->value_count * sizeof(float), err));
    SAP_TRY(e->gradients.reserve((size_t)plan->trainable_count * sizeof(float), err));
    SAP_TRY(reserve_optimizer(e, err));
    SAP_TRY(e->counts.reserve((inputs + 1) * sizeof(int32_t), err));
    SAP_TRY(e->batch_key.reserve(batch * sizeof(uint64_t), err));
    SAP_TRY(e->row_loss.reserve(batch * sizeof(float), err));
    SAP_TRY(e->row_correct.reserve(batch * sizeof(int32_t), err));
    size_t sums = (size_t)e->share.groups * sizeof(totals);
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
    bool fits = e->y[(size_t)plan->output].data != nullptr;
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
    written[(size_t)plan->output] = true;
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
    for (const operation &o : e->operations) {
        e->sorts = e->sorts || o.tiled;
        for (int32_t i = 0; i < e->plan->input_count; i++)
            for (int32_t k = 0; k < o.op->input_count; k++)
                if (e->plan->inputs[i].tensor == o.op->inputs[k] && !(o.tiled && e->plan->inputs[i].ragged))
                    e->loose_input[(size_t)i] = false;
    }
}

void init_rows(const sap_cuda_engine *e, kept_rows *rows) {
    size_t inputs = (size_t)e->plan->input_count;
    rows->x.resize(inputs);
    rows->offsets.resize(inputs);
    rows->steps.assign(inputs, {0});
    rows->longest.assign(inputs, 0);
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

/* ---- Rows --------------------------------------------------------------------------------------------------- */

bool halved(const sap_cuda_engine *e, size_t input) {
    return e->plan->inputs[input].ragged && e->plan->precision == SAP_CUDA_BF16;
}

size_t number_bytes(const sap_cuda_engine *e, size_t input) {
    return halved(e, input) ? sizeof(uint16_t) : sizeof(float);
}

sap_status reserve_rows(sap_cuda_engine *e, kept_rows *set, int64_t rows, const int64_t *steps, sap_error *err) {
    for (size_t i = 0; i < set->x.size(); i++) {
        int64_t places = e->plan->inputs[i].ragged ? steps[i] : rows;
        SAP_TRY(set->x[i].reserve((size_t)(places * e->plan->inputs[i].values) * number_bytes(e, i), err));
        if (e->plan->inputs[i].ragged)
            SAP_TRY(set->offsets[i].reserve((size_t)(rows + 1) * sizeof(int64_t), err));
        set->steps[i].assign(1, 0);
        set->longest[i] = 0;
    }
    SAP_TRY(set->label.reserve((size_t)rows * sizeof(int32_t), err));
    SAP_TRY(set->identity.reserve((size_t)rows * sizeof(uint64_t), err));
    set->rows = 0;
    set->capacity = rows;
    return SAP_OK;
}

sap_status drop_rows(sap_cuda_engine *e, int set, sap_status status) {
    e->sets[set] = kept_rows();
    init_rows(e, &e->sets[set]);
    return status;
}

sap_status reserve(sap_cuda_engine *e, int set, int64_t rows, const int64_t *steps, sap_error *err) {
    sap_status status = rows > INT32_MAX ? sap_error_set(err, SAP_EMEMORY, "%s: %lld rows are too many for a GPU",
                                                         e->plan->name, (long long)rows)
                                         : reserve_rows(e, &e->sets[set], rows, steps, err);
    return status == SAP_OK ? SAP_OK : drop_rows(e, set, status);
}

/* Copies n numbers to place `at` of an input. */
sap_status append_numbers(sap_cuda_engine *e, kept_rows *set, size_t input, int64_t at, const float *x, int64_t n,
                          cudaStream_t stream, sap_error *err) {
    char *to = set->x[input].as<char>() + (size_t)at * number_bytes(e, input);
    void *direct = to;
    if (halved(e, input)) {
        SAP_TRY(e->loose.reserve((size_t)n * sizeof(float), err));
        direct = e->loose.data;
    }
    CUDA_TRY(cudaMemcpyAsync(direct, x, (size_t)n * sizeof(float), cudaMemcpyHostToDevice, stream), e->plan->name);
    if (halved(e, input) && n > 0)
        launch_halve(stream, n, (const float *)direct, (uint16_t *)to);
    CUDA_TRY(cudaGetLastError(), e->plan->name);
    return SAP_OK;
}

/* Copies rows behind those of a set that has room for them. What `rows` points to must live until the stream is through. */
sap_status append(sap_cuda_engine *e, kept_rows *set, const sap_cuda_rows *rows, cudaStream_t stream, sap_error *err) {
    const char *name = e->plan->name;
    for (size_t i = 0; i < set->x.size(); i++) {
        int64_t values = e->plan->inputs[i].values, first = set->rows, count = rows->rows;
        if (e->plan->inputs[i].ragged) {
            std::vector<int64_t> &steps = set->steps[i];
            first = steps.back();
            count = rows->offsets[i][rows->rows];
            for (int64_t r = 0; r < rows->rows; r++)
                set->longest[i] = std::max(set->longest[i], rows->offsets[i][r + 1] - rows->offsets[i][r]);
            for (int64_t r = 1; r <= rows->rows; r++)
                steps.push_back(first + rows->offsets[i][r]);
            CUDA_TRY(cudaMemcpyAsync(set->offsets[i].as<int64_t>() + set->rows, steps.data() + set->rows,
                                     (size_t)(rows->rows + 1) * sizeof(int64_t), cudaMemcpyHostToDevice, stream),
                     name);
        }
        SAP_TRY(append_numbers(e, set, i, first * values, rows->x[i], count * values, stream, err));
    }
    if (rows->label)
        CUDA_TRY(cudaMemcpyAsync(set->label.as<int32_t>() + set->rows, rows->label,
                                 (size_t)rows->rows * sizeof(int32_t), cudaMemcpyHostToDevice, stream),
                 name);
    if (rows->weight) {
        SAP_TRY(set->weight.reserve((size_t)set->capacity * sizeof(float), err));
        CUDA_TRY(cudaMemcpyAsync(set->weight.as<float>() + set->rows, rows->weight, (size_t)rows->rows * sizeof(float),
                                 cudaMemcpyHostToDevice, stream),
                 name);
    }
    if (rows->identity)
        CUDA_TRY(cudaMemcpyAsync(set->identity.as<uint64_t>() + set->rows, rows->identity,
                                 (size_t)rows->rows * sizeof(uint64_t), cudaMemcpyHostToDevice, stream),
                 name);
    set->labelled = rows->label != nullptr;
    set->weighted = rows->weight != nullptr;
    set->identified = rows->identity != nullptr;
    set->rows += rows->rows;
    return SAP_OK;
}

sap_status keep(sap_cuda_engine *e, int set, const sap_cuda_rows *rows, sap_error *err) {
    sap_status status = append(e, &e->sets[set], rows, e->stream, err);
    if (status != SAP_OK) {
        (void)cudaStreamSynchronize(e->stream);
        return drop_rows(e, set, status);
    }
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name); /* the rows are the caller's again */
    return SAP_OK;
}

row_set view(const sap_cuda_engine *e, const kept_rows *set) {
    row_set out = {};
    for (size_t i = 0; i < set->x.size(); i++) {
        out.x[i] = set->x[i].data;
        out.half[i] = halved(e, i);
        out.offsets[i] = e->plan->inputs[i].ragged ? set->offsets[i].as<int64_t>() : nullptr;
    }
    out.label = set->labelled ? set->label.as<int32_t>() : nullptr;
    out.weight = set->weighted ? set->weight.as<float>() : nullptr;
    out.identity = set->identified ? set->identity.as<uint64_t>() : nullptr;
    return out;
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
    step_now now = {view(e, s->set), s->order, s->update, s->batch_rows, e->step, e->sums.as<totals>() + s->group};
    launch_begin(e->stream, now, (int32_t)s->rows, plan->input_count, s->key, e->space, e->now.as<step_now>());
    CUDA_TRY(cudaGetLastError(), plan->name);
    return SAP_OK;
}

void launch_update(sap_cuda_engine *e) {
    launch_optimizer(e->stream, {e->plan->trainable_count, optimizer_of(e), &e->now.as<step_now>()->update,
                                 e->gradients.as<float>(), e->values.as<float>()});
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
    loss_call loss = {plan->classes,
                      plan->loss,
                      e->y[(size_t)plan->output].as<float>(),
                      differentiate ? e->dy[(size_t)plan->output].as<float>() : nullptr,
                      e->row_loss.as<float>(),
                      e->row_correct.as<int32_t>(),
                      e->now.as<step_now>()};
    launch_loss(e->stream, e->space.counts, e->batch, loss);
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

/* Waits; the sums of each group since the last time. */
sap_status finish(sap_cuda_engine *e, sap_cuda_result *results, sap_error *err) {
    totals sums[SAP_CUDA_GROUPS];
    size_t groups = (size_t)e->share.groups;
    SAP_TRY(settle(e, err));
    if (e->stacked)
        launch_add_totals(e->stream, e->block_sums.as<totals>(), e->multiprocessors, e->sums.as<totals>());
    CUDA_TRY(cudaMemcpyAsync(sums, e->sums.data, groups * sizeof *sums, cudaMemcpyDeviceToHost, e->stream),
             e->plan->name);
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    CUDA_TRY(cudaMemsetAsync(e->sums.data, 0, groups * sizeof *sums, e->stream), e->plan->name);
    for (size_t g = 0; g < groups; g++)
        results[g] = {sums[g].loss, sums[g].rows, sums[g].correct, sums[g].bad_step};
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

/* Puts the longest rows of a batch first, equal ones in the order in which they came. */
void sort_rows(const sap_cuda_engine *e, const kept_rows *set, int32_t *order, int64_t rows) {
    if (!e->sorts)
        return;
    auto length = [&](int32_t row) {
        int64_t sum = 0;
        for (size_t i = 0; i < set->steps.size(); i++)
            if (e->plan->inputs[i].ragged)
                sum += set->steps[i][(size_t)row + 1] - set->steps[i][(size_t)row];
        return sum;
    };
    std::stable_sort(order, order + rows, [&](int32_t a, int32_t b) { return length(a) > length(b); });
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
    if (e->stacked && steps->updates) {
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

/* A place in pinned memory, filled with what is there. */
struct packer {
    char *at;
    size_t used;
    const void *put(const void *data, size_t bytes) {
        if (!data)
            return nullptr;
        void *to = at + used;
        if (at)
            memcpy(to, data, bytes);
        used += (bytes + 63) / 64 * 64;
        return to;
    }
};

/* Puts rows behind each other; at NULL: only counts the bytes. */
size_t pack(const sap_cuda_engine *e, const sap_cuda_rows *rows, char *at, std::vector<const float *> *x,
            sap_cuda_rows *out) {
    packer p = {at, 0};
    *out = *rows;
    for (size_t i = 0; i < x->size(); i++) {
        int64_t places = e->plan->inputs[i].ragged ? rows->offsets[i][rows->rows] : rows->rows;
        (*x)[i] = (const float *)p.put(rows->x[i], (size_t)(places * e->plan->inputs[i].values) * sizeof(float));
    }
    out->x = x->data();
    out->label = (const int32_t *)p.put(rows->label, (size_t)rows->rows * sizeof(int32_t));
    out->weight = (const float *)p.put(rows->weight, (size_t)rows->rows * sizeof(float));
    out->identity = (const uint64_t *)p.put(rows->identity, (size_t)rows->rows * sizeof(uint64_t));
    return p.used;
}

/* Packs rows into pinned memory and starts their way to the device, beside what it computes. */
sap_status send(sap_cuda_engine *e, const sap_cuda_rows *rows, const int64_t *begin, stage **out, sap_error *err) {
    const char *name = e->plan->name;
    stage *s = &e->stages[e->turn ^= 1];
    std::vector<const float *> x((size_t)e->plan->input_count);
    std::vector<int64_t> steps(x.size(), 0);
    for (size_t i = 0; i < steps.size(); i++)
        steps[i] = e->plan->inputs[i].ragged ? rows->offsets[i][rows->rows] : 0;
    sap_cuda_rows packed;
    size_t bytes = pack(e, rows, nullptr, &x, &packed);
    if (s->busy)
        SAP_TRY(wait_for_event(e, s->used, err)); /* its memory may be written to, or grow */
    SAP_TRY(s->pinned.reserve(bytes, err));
    (void)pack(e, rows, s->pinned.as<char>(), &x, &packed);
    SAP_TRY(reserve_rows(e, &s->rows, rows->rows, steps.data(), err));
    SAP_TRY(append(e, &s->rows, &packed, e->copies, err));
    s->sorted.resize((size_t)rows->rows);
    for (size_t i = 0; i < s->sorted.size(); i++)
        s->sorted[i] = rows->order ? rows->order[i] : (int32_t)i;
    for (int64_t g = 0; g < e->share.groups; g++)
        sort_rows(e, &s->rows, s->sorted.data() + begin[g], begin[g + 1] - begin[g]);
    SAP_TRY(s->order.reserve(s->sorted.size() * sizeof(int32_t), err));
    CUDA_TRY(cudaMemcpyAsync(s->order.data, s->sorted.data(), s->sorted.size() * sizeof(int32_t),
                             cudaMemcpyHostToDevice, e->copies),
             name);
    CUDA_TRY(cudaEventRecord(s->copied, e->copies), name);
    CUDA_TRY(cudaStreamWaitEvent(e->stream, s->copied, 0), name);
    s->busy = true;
    *out = s;
    return SAP_OK;
}

sap_status run_sent(sap_cuda_engine *e, const sap_cuda_rows *rows, uint64_t key, run_mode mode,
                    const sap_cuda_update *update, const stage **out, sap_error *err) {
    if (rows->rows > e->batch)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a batch of %lld rows, the engine is for %lld", e->plan->name,
                             (long long)rows->rows, (long long)e->batch);
    stage *sent = nullptr;
    std::vector<int64_t> whole(SAP_CUDA_GROUPS + 1, rows->rows);
    whole[0] = 0;
    const int64_t *begin = rows->begin ? rows->begin : whole.data();
    SAP_TRY(send(e, rows, begin, &sent, err));
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

sap_status predict(sap_cuda_engine *e, const sap_cuda_rows *rows, float *outputs, sap_error *err) {
    const stage *sent = nullptr;
    SAP_TRY(run_sent(e, rows, 0, RUN_PREDICT, nullptr, &sent, err));
    size_t classes = (size_t)e->plan->classes, count = (size_t)rows->rows * classes;
    std::vector<float> sorted(count);
    CUDA_TRY(cudaMemcpyAsync(sorted.data(), e->y[(size_t)e->plan->output].data, count * sizeof(float),
                             cudaMemcpyDeviceToHost, e->stream),
             e->plan->name);
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    for (size_t r = 0; r < sent->sorted.size(); r++) /* back to the caller's order */
        memcpy(outputs + (size_t)sent->sorted[r] * classes, sorted.data() + r * classes, classes * sizeof(float));
    return SAP_OK;
}

sap_status gradient(sap_cuda_engine *e, const sap_cuda_rows *rows, float *gradients, sap_cuda_result *result,
                    sap_error *err) {
    const stage *sent;
    SAP_TRY(run_sent(e, rows, 0, RUN_DIFFERENTIATE, nullptr, &sent, err));
    SAP_TRY(move(e, e->gradients, gradients, (size_t)e->plan->trainable_count, false, err));
    sap_cuda_result results[SAP_CUDA_GROUPS];
    SAP_TRY(finish(e, results, err));
    *result = results[0];
    return SAP_OK;
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
const sap_cuda_table sap_plugin_cuda = {describe, devices, select, open, close_engine, put,     get,
                                        reserve,  keep,    run,    feed, finish,       predict, gradient};
