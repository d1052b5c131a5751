/* One launch function an operation. Every matrix is row-major and on the device; a stream's launches run one after another.
 *
 * How many positions (rows, or steps of all rows) a batch has may be known to the device only: an extent is a number there times a
 * factor. Sums are taken in an order that depends on the extent and on the launch alone, never by atomics, so a run repeats to
 * the last bit on the same kind of device.
 */
#ifndef SAP_CUDA_KERNELS_H
#define SAP_CUDA_KERNELS_H

#include "cuda_device.h"
#include "cuda_engine.h"

/* factor · *count */
struct extent {
    const int32_t *count;
    int64_t factor;
};

__device__ static inline int64_t extent_of(extent e) {
    return *e.count * e.factor;
}

/* Blocks for a loop over at most `most` things, `each` of them a block. */
static inline unsigned blocks_for(int64_t most, int64_t each) {
    int64_t blocks = (most + each - 1) / each;
    return (unsigned)(blocks < 1 ? 1 : blocks > 4096 ? 4096 : blocks);
}

enum { SAP_THREADS = 256 };

/* Threads of a launch share indices [0, n). */
#define FOR_EACH(i, n)                                                                                                 \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

/* The sum over the block's threads, in a fixed order; only thread 0 gets it. shared: [SAP_THREADS] */
template <class T> __device__ inline T block_sum(T *shared, T own) {
    int thread = (int)threadIdx.x;
    shared[thread] = own;
    for (int half = SAP_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half)
            shared[thread] += shared[thread + half];
    }
    return shared[thread];
}

/* ---- Batches ------------------------------------------------------------------------------------------------ */

enum { SAP_CUDA_INPUTS = 16 };

/* Rows that the device holds. */
struct row_set {
    const void *x[SAP_CUDA_INPUTS];          /* (rows, values), or (steps, values) */
    bool half[SAP_CUDA_INPUTS];              /* x is bf16, else float32 */
    const int64_t *offsets[SAP_CUDA_INPUTS]; /* (rows + 1), or NULL: not ragged */
    const float *target[SAP_CUDA_OUTPUTS];   /* (rows, target_values) */
    int64_t target_values[SAP_CUDA_OUTPUTS]; /* numbers, or, as many as places, class numbers */
    const float *weight[SAP_CUDA_OUTPUTS];   /* (rows) of each in the loss; NULL: 1 */
    const uint64_t *identity;
};

/* A batch in the making. */
struct batch_space {
    int32_t *counts;                   /* [0]: rows; [1 + i]: steps of input i */
    int32_t *offsets[SAP_CUDA_INPUTS]; /* (batch + 1) first step of each row; NULL: not ragged */
    uint64_t *key;                     /* (batch) of each event, for random numbers */
};

/* What differs from step to step but for the batch itself. It stands on the device, so that what is launched for a step is the same for
 * every step. */
struct step_now {
    row_set set;
    const int32_t *order; /* (rows in hand) numbers of rows of the set */
    sap_cuda_update update;
    int64_t batch_rows;  /* of the whole batch, over which the loss is a mean */
    int64_t step;        /* its number, if its loss is not finite */
    struct totals *sums; /* (outputs) added to */
};

/* Takes rows now.order[0 … rows) of the set: counts, offsets, keys; *kept = now */
void launch_begin(cudaStream_t stream, const step_now &now, int32_t rows, int32_t inputs, uint64_t key,
                  const batch_space &batch, step_now *kept);
/* y (positions, values): the rows, or steps, of one input; half: the set has it as bf16. */
void launch_gather(cudaStream_t stream, const step_now *now, const batch_space &batch, int64_t most_rows, int input,
                   bool half, int64_t values, float *y);
/* y: bf16 of x, n numbers */
void launch_halve(cudaStream_t stream, int64_t n, const float *x, uint16_t *y);

/* ---- Dense layers ------------------------------------------------------------------------------------------- */

/* tf32: the products take tf32 on tensor cores (sm_80), and sum in float32; else they stay float32. */
/* y (n, units) = x (n, width) w (width, units) + bias; bias may be NULL */
void launch_dense(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                  const float *w, const float *bias, float *y, bool tf32 = false);
/* dx (n, width) (= or +=) d (n, units) w^T */
void launch_dense_input(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *d,
                        const float *w, bool add, float *dx, bool tf32 = false);
/* gw (width, units) += x^T d; gb (units) += the sum of d, NULL: not wanted. work: dense_work floats. */
void launch_dense_weights(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                          const float *d, float *work, float *gw, float *gb, bool tf32 = false);
int64_t dense_work(int64_t most, int64_t width, int64_t units);
/* Parts that a sum over at most so many positions is taken in. */
unsigned sum_parts(int64_t most);

/* ---- Number by number --------------------------------------------------------------------------------------- */

/* n: numbers; not for softmax */
void launch_activation(cudaStream_t stream, extent n, int64_t most, const sap_activation &activation, const float *z,
                       float *a);
/* d *= da/dz */
void launch_activation_gradient(cudaStream_t stream, extent n, int64_t most, const sap_activation &activation,
                                const float *z, const float *a, float *d);
/* n: rows of `width` numbers; log: its logarithm */
void launch_softmax(cudaStream_t stream, extent n, int64_t most, int64_t width, bool log, const float *z, float *a);
void launch_softmax_gradient(cudaStream_t stream, extent n, int64_t most, int64_t width, bool log, const float *a,
                             float *d);

/* The same random numbers as the CPU's: value v of a row counts step by step. y (= or +=) x, kept and scaled or dropped. */
struct dropout {
    uint32_t key, threshold;
    float scale;
    int64_t values;         /* a position */
    const uint64_t *keys;   /* of each row */
    const int32_t *offsets; /* NULL: one position a row */
};
void launch_dropout(cudaStream_t stream, extent rows, int64_t most, const dropout &p, const float *x, bool add,
                    float *y);

/* y (= or +=) x */
void launch_copy(cudaStream_t stream, extent n, int64_t most, const float *x, bool add, float *y);
/* Part [at, at + part) of the middle of (n, axis, inner), to or from (n, part, inner). */
struct slice {
    int64_t axis, part, at, inner;
};
void launch_slice_in(cudaStream_t stream, extent n, int64_t most, const slice &s, const float *x, float *y);
void launch_slice_out(cudaStream_t stream, extent n, int64_t most, const slice &s, const float *y, bool add, float *x);
/* y = y and x combined, `kind` an elementwise sap_cuda_kind; the last: of `count` inputs (AVERAGE divides then). */
void launch_merge(cudaStream_t stream, extent n, int64_t most, sap_cuda_kind kind, int count, bool last, const float *x,
                  float *y);
/* dx (= or +=) the part of dy that input `index` of `count` gets; xs: all inputs, y: the output */
struct merge_inputs {
    const float *x[SAP_CUDA_INPUTS];
};
void launch_merge_gradient(cudaStream_t stream, extent n, int64_t most, sap_cuda_kind kind, int count, int index,
                           const merge_inputs &inputs, const float *y, const float *dy, bool add, float *dx);

/* counts (n) = 1 for steps of which some of the `width` numbers is not `value`, else 0 */
void launch_find_mask(cudaStream_t stream, extent n, int64_t most, int64_t width, float value, const float *x,
                      float *counts);
/* y (= or +=) x (n, width), but 0 in steps that do not count */
void launch_hide(cudaStream_t stream, extent n, int64_t most, int64_t width, const float *counts, const float *x,
                 bool add, float *y);

/* ---- Loss and optimizer ------------------------------------------------------------------------------------- */

/* Sums of all steps since they were zeroed, of an output. */
struct totals {
    double loss;
    int64_t places, correct, bad_step;
};

struct loss_call {
    int32_t number; /* of the output */
    sap_cuda_output output;
    const float *y;         /* (rows, places, values) */
    float *dy;              /* NULL: not wanted */
    float *place_loss;      /* (rows, places); scratch */
    int32_t *place_correct; /* (rows, places); scratch */
    const step_now *now;    /* which has targets and weights */
};
void launch_loss(cudaStream_t stream, const int32_t *rows, int64_t most, const loss_call &p);

/* An optimizer: the parts of sap_cuda_plan that it needs, and its arrays. */
struct optimizer {
    sap_cuda_optimizer settings;
    float *slots[SAP_CUDA_SLOTS];      /* (parameters) or NULL */
    const sap_cuda_stretch *stretches; /* (stretch_count); NULL: all are alike */
    int32_t stretch_count;
    float *scales;   /* (stretch_count) what gradients are multiplied by; NULL: no limit of norms */
    double *squares; /* (stretch_count, parts) scratch for them */
    int32_t parts;   /* in which squares are added */
};
struct optimizer_call {
    int64_t count;
    optimizer of;
    const sap_cuda_update *update; /* on the device */
    const float *gradients;
    float *values;
};
/* With the norms of the gradients, if those are limited. */
void launch_optimizer(cudaStream_t stream, const optimizer_call &p);
/* Parts for stretches of at most so many numbers. */
int32_t square_parts(int64_t most);

/* sum (count) = the sum of (groups, count), in a binary tree. groups: a power of two, at most SAP_CUDA_GROUPS. */
void launch_add_groups(cudaStream_t stream, int64_t count, int groups, const float *gradients, float *sum);

/* Number of the stretch that parameter i is in. */
__device__ static inline int32_t stretch_of(const optimizer &o, int64_t i) {
    int32_t first = 0;
    for (int32_t count = o.stretch_count; count > 1;) {
        int32_t half = count / 2;
        bool behind = o.stretches[first + half].first <= i;
        first += behind ? half : 0;
        count = behind ? count - half : half;
    }
    return first;
}

/* What weight i becomes, from w by its gradient g. */
__device__ static inline float optimizer_step(const optimizer &o, const sap_cuda_update &u, int64_t i, float g,
                                              float w) {
    const sap_cuda_optimizer &s = o.settings;
    float decay = u.decay;
    if (o.stretches) {
        int32_t stretch = stretch_of(o, i);
        g *= o.scales ? o.scales[stretch] : 1;
        decay = o.stretches[stretch].decays ? decay : 0;
    }
    g = g > s.limit ? s.limit : g < -s.limit ? -s.limit : g;
    w -= w * decay;
    if (s.adam) {
        float &m = o.slots[SAP_CUDA_SLOT_MOMENTUM][i], &v = o.slots[SAP_CUDA_SLOT_VELOCITY][i];
        m += (g - m) * s.one_minus_beta_1;
        v += (g * g - v) * s.one_minus_beta_2;
        float square = v;
        if (float *largest = o.slots[SAP_CUDA_SLOT_LARGEST])
            square = largest[i] = largest[i] > v ? largest[i] : v;
        w -= m * u.rate / (u.root * sqrtf(square) + u.epsilon);
    } else if (o.slots[SAP_CUDA_SLOT_MOMENTUM]) {
        float &m = o.slots[SAP_CUDA_SLOT_MOMENTUM][i];
        m = m * s.momentum - g * u.rate;
        w += s.nesterov ? m * s.momentum - g * u.rate : m;
    } else {
        w -= g * u.rate;
    }
    if (o.slots[SAP_CUDA_SLOT_AVERAGE]) {
        float &average = o.slots[SAP_CUDA_SLOT_AVERAGE][i];
        average = u.average * average + (1 - u.average) * w;
        w = u.overwrite ? average : w;
    }
    return w;
}

__device__ static inline uint64_t mix(uint64_t key, uint64_t counter) { /* sap_mix */
    uint64_t x = key + counter * UINT64_C(0x9E3779B97F4A7C15) + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

__device__ static inline uint32_t dropout_bits(uint64_t key, uint32_t v) { /* sap_dropout_bits */
    uint32_t x = v * UINT32_C(0x9E3779B9) + (uint32_t)key;
    x ^= x >> 16;
    x *= UINT32_C(0x7FEB352D);
    x ^= x >> 15;
    x += (uint32_t)(key >> 32);
    x *= UINT32_C(0x846CA68B);
    return x ^ x >> 16;
}

#endif
