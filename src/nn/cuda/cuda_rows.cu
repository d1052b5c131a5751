/* Rows on the device: those that it keeps, and batches on their way from the host. */
#include "cuda_state.h"

#include <algorithm>
#include <string.h>

void init_rows(const sap_cuda_engine *e, kept_rows *rows) {
    size_t inputs = (size_t)e->plan->input_count, outputs = (size_t)e->plan->output_count;
    rows->x.resize(inputs);
    rows->offsets.resize(inputs);
    rows->steps.assign(inputs, {0});
    rows->longest.assign(inputs, 0);
    rows->target.resize(outputs);
    rows->weight.resize(outputs);
    rows->target_values.assign(outputs, 0);
}

bool halved(const sap_cuda_engine *e, size_t input) {
    return e->plan->inputs[input].ragged && e->plan->precision == SAP_CUDA_BF16;
}

namespace {

size_t number_bytes(const sap_cuda_engine *e, size_t input) {
    return halved(e, input) ? sizeof(uint16_t) : sizeof(float);
}

sap_status reserve_room(sap_cuda_engine *e, kept_rows *set, int64_t rows, const int64_t *steps, sap_error *err) {
    for (size_t i = 0; i < set->x.size(); i++) {
        int64_t places = e->plan->inputs[i].ragged ? steps[i] : rows;
        SAP_TRY(set->x[i].reserve((size_t)(places * e->plan->inputs[i].values) * number_bytes(e, i), err));
        if (e->plan->inputs[i].ragged)
            SAP_TRY(set->offsets[i].reserve((size_t)(rows + 1) * sizeof(int64_t), err));
        set->steps[i].assign(1, 0);
        set->longest[i] = 0;
    }
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

/* The same for `values` numbers a row of what comes with the rows. */
sap_status append_beside(const sap_cuda_engine *e, const kept_rows *set, device_memory *to, const float *from,
                         int64_t rows, int64_t values, cudaStream_t stream, sap_error *err) {
    SAP_TRY(to->reserve((size_t)(set->capacity * values) * sizeof(float), err));
    CUDA_TRY(cudaMemcpyAsync(to->as<float>() + set->rows * values, from, (size_t)(rows * values) * sizeof(float),
                             cudaMemcpyHostToDevice, stream),
             e->plan->name);
    return SAP_OK;
}

sap_status append_targets(const sap_cuda_engine *e, kept_rows *set, const sap_cuda_rows *rows, cudaStream_t stream,
                          sap_error *err) {
    set->weighted = rows->weight != nullptr;
    for (size_t o = 0; rows->target && o < set->target.size(); o++) {
        if (e->plan->outputs[o].loss.kind == SAP_LOSS_NONE)
            continue;
        set->target_values[o] = rows->target_values[o];
        SAP_TRY(
            append_beside(e, set, &set->target[o], rows->target[o], rows->rows, set->target_values[o], stream, err));
        if (rows->weight)
            SAP_TRY(append_beside(e, set, &set->weight[o], rows->weight[o], rows->rows, 1, stream, err));
    }
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
    SAP_TRY(append_targets(e, set, rows, stream, err));
    if (rows->identity)
        CUDA_TRY(cudaMemcpyAsync(set->identity.as<uint64_t>() + set->rows, rows->identity,
                                 (size_t)rows->rows * sizeof(uint64_t), cudaMemcpyHostToDevice, stream),
                 name);
    set->identified = rows->identity != nullptr;
    set->rows += rows->rows;
    return SAP_OK;
}

} // namespace

sap_status reserve_rows(sap_cuda_engine *e, int set, int64_t rows, const int64_t *steps, sap_error *err) {
    sap_status status = rows > INT32_MAX ? sap_error_set(err, SAP_EMEMORY, "%s: %lld rows are too many for a GPU",
                                                         e->plan->name, (long long)rows)
                                         : reserve_room(e, &e->sets[set], rows, steps, err);
    return status == SAP_OK ? SAP_OK : drop_rows(e, set, status);
}

sap_status keep_rows(sap_cuda_engine *e, int set, const sap_cuda_rows *rows, sap_error *err) {
    sap_status status = append(e, &e->sets[set], rows, e->stream, err);
    cudaError_t error = cudaStreamSynchronize(e->stream); /* the rows are the caller's again */
    if (status != SAP_OK)
        return drop_rows(e, set, status);
    CUDA_TRY(error, e->plan->name);
    return SAP_OK;
}

row_set view(const sap_cuda_engine *e, const kept_rows *set) {
    row_set out = {};
    for (size_t i = 0; i < set->x.size(); i++) {
        out.x[i] = set->x[i].data;
        out.half[i] = halved(e, i);
        out.offsets[i] = e->plan->inputs[i].ragged ? set->offsets[i].as<int64_t>() : nullptr;
    }
    for (size_t o = 0; o < set->target.size(); o++) {
        out.target[o] = set->target[o].as<float>();
        out.target_values[o] = set->target_values[o];
        out.weight[o] = set->weighted ? set->weight[o].as<float>() : nullptr;
    }
    out.identity = set->identified ? set->identity.as<uint64_t>() : nullptr;
    return out;
}

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

/* ---- Batches from the host ---------------------------------------------------------------------------------- */

namespace {

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
    const float *put_numbers(const float *data, int64_t count) {
        return (const float *)put(data, (size_t)count * sizeof(float));
    }
};

/* The same rows in pinned memory. */
struct packed_rows {
    sap_cuda_rows rows;
    std::vector<const float *> x, target, weight;
};

/* Puts rows behind each other; at NULL: only counts the bytes. */
size_t pack(const sap_cuda_engine *e, const sap_cuda_rows *rows, char *at, packed_rows *out) {
    const sap_cuda_plan *plan = e->plan;
    packer p = {at, 0};
    out->rows = *rows;
    out->x.assign((size_t)plan->input_count, nullptr);
    out->target.assign((size_t)plan->output_count, nullptr);
    out->weight.assign((size_t)plan->output_count, nullptr);
    for (size_t i = 0; i < out->x.size(); i++) {
        int64_t places = plan->inputs[i].ragged ? rows->offsets[i][rows->rows] : rows->rows;
        out->x[i] = p.put_numbers(rows->x[i], places * plan->inputs[i].values);
    }
    for (size_t o = 0; rows->target && o < out->target.size(); o++) {
        if (plan->outputs[o].loss.kind == SAP_LOSS_NONE)
            continue;
        out->target[o] = p.put_numbers(rows->target[o], rows->rows * rows->target_values[o]);
        out->weight[o] = rows->weight ? p.put_numbers(rows->weight[o], rows->rows) : nullptr;
    }
    out->rows.x = out->x.data();
    out->rows.target = rows->target ? out->target.data() : nullptr;
    out->rows.weight = rows->weight ? out->weight.data() : nullptr;
    out->rows.identity = (const uint64_t *)p.put(rows->identity, (size_t)rows->rows * sizeof(uint64_t));
    return p.used;
}

} // namespace

sap_status send_rows(sap_cuda_engine *e, const sap_cuda_rows *rows, const int64_t *begin, stage **out, sap_error *err) {
    const char *name = e->plan->name;
    stage *s = &e->stages[e->turn ^= 1];
    std::vector<int64_t> steps((size_t)e->plan->input_count, 0);
    for (size_t i = 0; i < steps.size(); i++)
        steps[i] = e->plan->inputs[i].ragged ? rows->offsets[i][rows->rows] : 0;
    packed_rows packed;
    size_t bytes = pack(e, rows, nullptr, &packed);
    if (s->busy)
        SAP_TRY(wait_for_event(e, s->used, err)); /* its memory may be written to, or grow */
    SAP_TRY(s->pinned.reserve(bytes, err));
    (void)pack(e, rows, s->pinned.as<char>(), &packed);
    SAP_TRY(reserve_room(e, &s->rows, rows->rows, steps.data(), err));
    SAP_TRY(append(e, &s->rows, &packed.rows, e->copies, err));
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
