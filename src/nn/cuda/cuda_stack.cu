/* Small dense networks: many training steps in one launch.
 *
 * Every block has the weights in shared memory and takes some rows of the batch through the network and back. A step has two waits
 * for the whole grid: each block leaves its gradients in global memory, then sums a share of the parameters over all blocks,
 * in their order, does the optimizer's step on it, and then all read the new weights. The next rows are copied to shared memory meanwhile.
 */
#include "cuda_stack.h"

#include "../activation_formulas.h"

namespace {

/* Shared memory of a block. */
struct tile_space {
    float *weights, *gradients, *tiles, *delta[2], *next;
    float *label[2], *weight[2]; /* class numbers */
    uint64_t *keys[2];
};

/* Places behind each other; returns the bytes. */
__device__ __host__ inline size_t place(const stack &net, int rows, char *at, tile_space *out) {
    size_t used = 0;
    auto take = [&](size_t bytes) {
        char *start = at + used;
        used += (bytes + 15) / 16 * 16;
        return start;
    };
    for (int i = 0; i < 2; i++)
        out->keys[i] = (uint64_t *)take((size_t)rows * sizeof(uint64_t));
    for (int i = 0; i < 2; i++)
        out->label[i] = (float *)take((size_t)rows * sizeof(float));
    for (int i = 0; i < 2; i++)
        out->weight[i] = (float *)take((size_t)rows * sizeof(float));
    out->weights = (float *)take((size_t)net.shared_weights * sizeof(float));
    out->gradients = (float *)take((size_t)net.parameters * sizeof(float));
    out->tiles = (float *)take((size_t)net.tile * rows * sizeof(float));
    for (int i = 0; i < 2; i++)
        out->delta[i] = (float *)take((size_t)net.widest * rows * sizeof(float));
    out->next = (float *)take((size_t)net.layers[0].in * rows * sizeof(float));
    return used;
}

__device__ inline int padded(int out) { /* no two rows of a kernel start at the same bank */
    return out | 1;
}

__device__ void load_weights(const stack_call &p, const tile_space &s) {
    for (int l = 0; l < p.net.layer_count; l++) {
        const stack_layer &f = p.net.layers[l];
        int kernel = f.in * f.out, bias = f.bias < 0 ? 0 : f.out, width = padded(f.out);
        for (int e = (int)threadIdx.x; e < kernel; e += SAP_THREADS)
            s.weights[f.shared + e / f.out * width + e % f.out] = __ldcg(p.values + f.kernel + e);
        for (int e = (int)threadIdx.x; e < f.out; e += SAP_THREADS)
            s.weights[f.shared + f.in * width + e] = bias ? __ldcg(p.values + f.bias + e) : 0;
    }
}

/* Where a tile of rows stands in the epoch. */
struct tile_place {
    int64_t step, first; /* of the epoch's order */
    int rows;            /* 0: behind the last step */
};

__device__ tile_place tile_at(const stack_call &p, int64_t step, int64_t tile) {
    int64_t begin = step * p.batch, size = min(p.batch, p.rows - begin);
    int64_t first = tile * p.tile_rows;
    if (begin >= p.rows || first >= size)
        return {step, begin, 0};
    return {step, begin + first, (int)min((int64_t)p.tile_rows, size - first)};
}

/* Starts copying the rows of a tile; what comes with them goes to one of two places. */
__device__ void fetch(const stack_call &p, const tile_place &at, const tile_space &s, int buffer) {
    int in = p.net.layers[0].in;
    for (int e = (int)threadIdx.x; e < at.rows * in; e += SAP_THREADS)
        copy_async<4>(s.next + e, (const float *)p.set.x[0] + (int64_t)p.order[at.first + e / in] * in + e % in);
    for (int r = (int)threadIdx.x; r < at.rows; r += SAP_THREADS) {
        int32_t row = p.order[at.first + r];
        copy_async<4>(s.label[buffer] + r, p.set.target[0] + row);
        if (p.set.weight[0])
            copy_async<4>(s.weight[buffer] + r, p.set.weight[0] + row);
        else
            s.weight[buffer][r] = 1;
        s.keys[buffer][r] = mix(p.key, p.set.identity ? p.set.identity[row] : (uint64_t)row);
    }
    copy_commit();
}

__device__ inline bool kept(const stack_layer &f, uint64_t row_key, int o) {
    return dropout_bits(mix(row_key, f.key), (uint32_t)o) >= f.threshold;
}

__device__ void forward(const stack &net, const stack_layer &f, const tile_space &s, const uint64_t *keys, int rows,
                        bool last) {
    const float *x = s.tiles + f.x, *w = s.weights + f.shared;
    float *y = s.tiles + (&f)[1].x;
    int width = padded(f.out);
    for (int e = (int)threadIdx.x; e < rows * f.out; e += SAP_THREADS) {
        int r = e / f.out, o = e % f.out;
        float sum = w[f.in * width + o];
        for (int k = 0; k < f.in; k++)
            sum += x[r * f.in + k] * w[k * width + o];
        float a = last ? sum : sap_activation_value(f.activation, sum);
        y[e] = !f.drops ? a : kept(f, keys[r], o) ? a * f.scale : 0;
    }
    (void)net;
}

/* Loss of a row, and its gradient, times scale, in place of the logits; one thread a row. */
__device__ float row_loss(float *y, int classes, int32_t label, float scale, bool *correct) {
    float most = y[0], sum = 0, own = y[label];
    int best = 0;
    for (int c = 1; c < classes; c++) {
        if (y[c] > most) {
            most = y[c];
            best = c;
        }
    }
    for (int c = 0; c < classes; c++)
        sum += expf(y[c] - most);
    for (int c = 0; c < classes; c++)
        y[c] = scale == 0 ? 0 : scale * (expf(y[c] - most) / sum - (c == label ? 1.0F : 0.0F));
    *correct = best == label;
    return logf(sum) + (most - own);
}

/* From d, the gradient of what the layer's product gave: gradients of the weights, and `dx` of the product before. */
__device__ void backward(const stack_layer &f, const stack_layer *before, const tile_space &s, const uint64_t *keys,
                         int rows, const float *d, float *dx) {
    const float *x = s.tiles + f.x, *w = s.weights + f.shared;
    int width = padded(f.out);
    for (int e = (int)threadIdx.x; e < f.in * f.out; e += SAP_THREADS) {
        int i = e / f.out, o = e % f.out;
        float sum = 0;
        for (int r = 0; r < rows; r++)
            sum += x[r * f.in + i] * d[r * f.out + o];
        s.gradients[f.kernel + e] += sum;
    }
    for (int o = (int)threadIdx.x; f.bias >= 0 && o < f.out; o += SAP_THREADS) {
        float sum = 0;
        for (int r = 0; r < rows; r++)
            sum += d[r * f.out + o];
        s.gradients[f.bias + o] += sum;
    }
    for (int e = (int)threadIdx.x; before && e < rows * f.in; e += SAP_THREADS) {
        int r = e / f.in, i = e % f.in;
        float sum = 0, a = x[e];
        for (int o = 0; o < f.out; o++)
            sum += d[r * f.out + o] * w[i * width + o];
        if (before->drops) {
            sum = kept(*before, keys[r], i) ? sum * before->scale : 0;
            a /= before->scale;
        }
        dx[e] = sum * sap_activation_slope(before->activation, 0, a);
    }
}

/* Sums a share of the parameters over the blocks and takes the optimizer's step. */
__device__ void update(const stack_call &p, const sap_cuda_update &step) {
    int64_t count = p.net.parameters;
    int64_t first = count * blockIdx.x / gridDim.x, end = count * (blockIdx.x + 1) / gridDim.x;
    for (int64_t i = first + threadIdx.x; i < end; i += SAP_THREADS) {
        float g = 0;
        for (unsigned b = 0; b < gridDim.x; b++)
            g += __ldcg(p.parts + b * count + i);
        __stcg(p.values + i, optimizer_step(p.of, step, i, g, __ldcg(p.values + i)));
    }
}

/* Forward and backward of the tile that stands in shared memory; x in s.next moves to the first layer's place. */
__device__ void run_tile(const stack_call &p, const tile_space &s, const tile_place &at, int buffer, totals *mine) {
    const stack &net = p.net;
    int layers = net.layer_count, classes = net.layers[layers - 1].out;
    for (int l = 0; l < layers; l++) {
        forward(net, net.layers[l], s, s.keys[buffer], at.rows, l == layers - 1);
        __syncthreads();
    }
    float *d = s.tiles + net.layers[layers].x;
    if ((int)threadIdx.x < at.rows) {
        float weight = s.weight[buffer][threadIdx.x];
        float scale = weight * net.loss_weight / (float)min(p.batch, p.rows - at.step * p.batch);
        bool correct;
        int32_t label = (int32_t)s.label[buffer][threadIdx.x];
        float loss = weight * row_loss(d + threadIdx.x * classes, classes, label, scale, &correct);
        mine->loss += loss;
        mine->correct += correct;
        mine->places++;
        if (!isfinite(loss) && mine->bad_step == 0)
            mine->bad_step = at.step + 1;
    }
    __syncthreads();
    for (int l = layers - 1; l >= 0; l--) {
        float *dx = s.delta[l & 1];
        backward(net.layers[l], l ? &net.layers[l - 1] : nullptr, s, s.keys[buffer], at.rows, d, dx);
        d = dx;
        __syncthreads();
    }
}

__global__ void __launch_bounds__(SAP_THREADS, 1) train(const __grid_constant__ stack_call p) {
    SAP_SHARED(raw);
    tile_space s;
    (void)place(p.net, p.tile_rows, raw, &s);
    totals mine = {};
    unsigned turn = 0;
    int buffer = 0;
    int in = p.net.layers[0].in;
    tile_place at = tile_at(p, 0, blockIdx.x);
    fetch(p, at, s, 0);
    for (int64_t step = 0; step * p.batch < p.rows; step++) {
        load_weights(p, s);
        for (int i = (int)threadIdx.x; i < p.net.parameters; i += SAP_THREADS)
            s.gradients[i] = 0;
        for (int64_t tile = blockIdx.x; at.step == step; tile += gridDim.x) {
            copy_wait<0>();
            __syncthreads();
            for (int e = (int)threadIdx.x; e < at.rows * in; e += SAP_THREADS)
                s.tiles[e] = s.next[e];
            __syncthreads();
            tile_place next = tile_at(p, step, tile + gridDim.x);
            if (next.rows == 0)
                next = tile_at(p, step + 1, blockIdx.x);
            fetch(p, next, s, buffer ^ 1);
            run_tile(p, s, at, buffer, &mine);
            at = next;
            buffer ^= 1;
        }
        for (int i = (int)threadIdx.x; i < p.net.parameters; i += SAP_THREADS)
            __stcg(p.parts + (int64_t)blockIdx.x * p.net.parameters + i, s.gradients[i]);
        wait_for_grid(p.arrived, ++turn);
        update(p, p.updates[step]);
        wait_for_grid(p.arrived, ++turn);
    }
    copy_wait<0>();
    __syncthreads();
    totals *all = (totals *)raw;
    if (threadIdx.x < SAP_STACK_ROWS)
        all[threadIdx.x] = mine;
    __syncthreads();
    for (int i = 0; threadIdx.x == 0 && i < SAP_STACK_ROWS; i++) {
        totals *sum = &p.sums[blockIdx.x];
        sum->loss += all[i].loss;
        sum->correct += all[i].correct;
        sum->places += all[i].places;
        if (all[i].bad_step && (sum->bad_step == 0 || all[i].bad_step < sum->bad_step))
            sum->bad_step = all[i].bad_step;
    }
}

__global__ void add_totals(totals *parts, int count, totals *sum) {
    for (int i = 0; i < count; i++) {
        sum->loss += parts[i].loss;
        sum->correct += parts[i].correct;
        sum->places += parts[i].places;
        if (parts[i].bad_step && (sum->bad_step == 0 || parts[i].bad_step < sum->bad_step))
            sum->bad_step = parts[i].bad_step;
        parts[i] = {};
    }
}

size_t shared_bytes(const stack &net, int rows) {
    tile_space s;
    size_t bytes = place(net, rows, nullptr, &s), least = SAP_STACK_ROWS * sizeof(totals);
    return bytes < least ? least : bytes;
}

bool takes(const sap_activation &f) {
    return f.kind != SAP_SOFTMAX && f.kind != SAP_LOG_SOFTMAX && !sap_activation_needs_input(f.kind);
}

} // namespace

bool stack_plan(const sap_cuda_plan *plan, size_t shared, stack *out) {
    *out = {};
    int32_t at = plan->input_count == 1 && !plan->inputs[0].ragged ? plan->inputs[0].tensor : -1;
    int64_t places = 0;
    for (int32_t i = 0; i < plan->op_count; i++) {
        const sap_cuda_op *op = &plan->ops[i];
        stack_layer *f = &out->layers[out->layer_count];
        if (op->input_count != 1 || op->inputs[0] != at)
            return false;
        if (op->kind == SAP_CUDA_DROPOUT && out->layer_count > 0 && !f[-1].drops && op->rate < 1) {
            f[-1].drops = op->rate > 0;
            f[-1].key = op->key;
            f[-1].threshold = sap_dropout_threshold(op->rate);
            f[-1].scale = (float)(1 / (1 - op->rate));
        } else if (op->kind == SAP_CUDA_DENSE && op->trainable && out->layer_count < SAP_STACK_LAYERS - 1) {
            if (op->width > SAP_STACK_WIDTH || op->units > SAP_STACK_WIDTH || plan->tensors[at].values != op->width ||
                !(op->logits || takes(op->activation)))
                return false;
            f->in = (int32_t)op->width;
            f->out = (int32_t)op->units;
            f->kernel = (int32_t)op->weights[0];
            f->bias = (int32_t)op->weights[1];
            f->activation = op->activation;
            f->shared = out->shared_weights;
            f->x = (int32_t)places;
            places += f->in;
            out->shared_weights += (f->in + 1) * (f->out | 1);
            out->parameters += (f->in + (f->bias >= 0)) * f->out;
            out->widest = f->in > out->widest ? f->in : out->widest;
            out->layer_count++;
        } else {
            return false;
        }
        at = op->output;
    }
    const sap_cuda_output &last = plan->outputs[0];
    bool categorical = plan->output_count == 1 && last.loss.kind <= SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY &&
                       last.loss.from_logits && last.loss.keep == 1 && last.places == 1 && last.values > 1;
    bool norms = plan->optimizer.norm > 0; /* for which all gradients are wanted at once */
    if (out->layer_count == 0 || at != last.tensor || !categorical || norms || out->layers[out->layer_count - 1].drops)
        return false;
    stack_layer *end = &out->layers[out->layer_count]; /* the output's tile */
    end->x = (int32_t)places;
    out->loss_weight = (float)last.loss.weight;
    out->tile = (int32_t)(places + out->layers[out->layer_count - 1].out);
    return out->parameters == plan->trainable_count && shared_bytes(*out, 8) <= shared;
}

unsigned stack_blocks(const stack &net, int64_t batch, int multiprocessors, int32_t *tile_rows) {
    (void)net;
    *tile_rows = 8;
    int64_t blocks = (batch + 7) / 8;
    return (unsigned)(blocks < multiprocessors ? blocks : multiprocessors);
}

cudaError_t launch_stack(cudaStream_t stream, const stack_call &given, unsigned blocks) {
    stack_call p = given;
    for (int l = 0; l <= p.net.layer_count; l++) /* from a row's places to a tile's */
        p.net.layers[l].x *= p.tile_rows;
    size_t shared = shared_bytes(p.net, p.tile_rows);
    cudaError_t error = cudaFuncSetAttribute(train, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(p.arrived, 0, sizeof *p.arrived, stream);
    if (error == cudaSuccess)
        error = SAP_LAUNCH_TOGETHER(train, dim3(blocks), dim3(SAP_THREADS), shared, stream, p);
    return error;
}

void launch_add_totals(cudaStream_t stream, totals *parts, int count, totals *sum) {
    SAP_LAUNCH(add_totals, dim3(1), dim3(1), 0, stream, parts, count, sum);
}
