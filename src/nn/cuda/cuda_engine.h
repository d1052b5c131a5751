/* What the CPU side and the CUDA plug-in (libsapwood-cuda.so) say to each other: a network as flat lists, and a table of functions.
 *
 * The plug-in knows nothing of models and layers. A plan names tensors and the operations between them in the order of
 * the forward pass; weights, gradients and the optimizer's state are the model's own flat arrays, copied in and out.
 *
 * A tensor stands on the device row-major: (rows, values), or, where it follows the steps of a ragged input, (steps of all
 * rows one after another, values). So an operation that looks at the last dimension only sees (positions, width) in both cases.
 */
#ifndef SAP_CUDA_ENGINE_H
#define SAP_CUDA_ENGINE_H

#include "../kernels.h"

#include <sapwood/nn.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sap_cuda_kind {
    SAP_CUDA_INPUT = 0,  /* the tensor is filled from the examples */
    SAP_CUDA_DENSE,      /* weights: kernel (width, units), bias or -1 */
    SAP_CUDA_ACTIVATION, /* y = activation(x); softmax along `width` */
    SAP_CUDA_DROPOUT,
    SAP_CUDA_CONCATENATE, /* along the middle of (outer, axis, inner); width: inner, part: axis of each input */
    SAP_CUDA_ADD,
    SAP_CUDA_SUBTRACT,
    SAP_CUDA_MULTIPLY,
    SAP_CUDA_AVERAGE,
    SAP_CUDA_MAXIMUM,
    SAP_CUDA_MINIMUM,
    SAP_CUDA_BATCH_NORMALIZATION, /* weights: gamma, beta, moving mean, moving variance; -1: not there */
    SAP_CUDA_LAYER_NORMALIZATION, /* weights: gamma, beta */
    SAP_CUDA_POOL_AVERAGE,        /* over the steps of each row */
    SAP_CUDA_POOL_MAXIMUM,
    SAP_CUDA_ATTENTION,      /* inputs: queries, keys, values, projected; their dimensions are heads · dim */
    SAP_CUDA_CONVOLUTION,    /* weights: kernel (size, width, units), bias or -1 */
    SAP_CUDA_WINDOW_AVERAGE, /* pooling in windows */
    SAP_CUDA_WINDOW_MAXIMUM,
    SAP_CUDA_MASK,    /* y (steps): 1 where some of the `width` values of a step is not mask_value, else 0 */
    SAP_CUDA_MASKING, /* y = x, 0 in steps that do not count */
    SAP_CUDA_GRU,     /* weights: kernel (width, 3 units), recurrent (units, 3 units), bias (2, 3 units) */
    SAP_CUDA_LSTM     /* weights: kernel (width, 4 units), recurrent (units, 4 units), bias (4 units) */
} sap_cuda_kind;

enum {
    SAP_CUDA_WEIGHTS = 4,
    SAP_CUDA_DEVICES = 64,   /* most GPUs that are looked at */
    SAP_CUDA_OUTPUTS = 16,   /* most outputs of a model */
    SAP_CUDA_GROUPS = 32,    /* most groups of a batch */
    SAP_CUDA_HEAD_MOST = 128 /* values of a head of ATTENTION */
};

typedef struct sap_cuda_tensor {
    int64_t values;     /* numbers a row, or a step where it follows one */
    int32_t sequence;   /* number of the input whose steps it follows; -1: one position a row */
    bool differentiate; /* its gradient is wanted */
} sap_cuda_tensor;

/* Output step t looks at the input steps t · stride - before + k · dilation, 0 <= k < size, of those that are there. */
typedef struct sap_cuda_window {
    int64_t size, stride, dilation, before;
    int64_t outputs; /* steps */
} sap_cuda_window;

typedef struct sap_cuda_op {
    sap_cuda_kind kind;
    const char *where; /* of the layer, for messages */
    int32_t input_count;
    const int32_t *inputs;             /* (input_count) tensors */
    const int64_t *part;               /* (input_count) of CONCATENATE */
    int32_t output;                    /* tensor */
    int64_t width;                     /* last dimension of the input */
    int64_t units;                     /* last dimension of the output */
    int64_t weights[SAP_CUDA_WEIGHTS]; /* places in the values; -1: not there */
    bool trainable;                    /* its weights get gradients */
    sap_activation activation, recurrent_activation;
    bool logits;              /* but in predictions the activation is left to the loss */
    double rate;              /* DROPOUT; ATTENTION: of weights; recurrent: of inputs */
    double recurrent_rate;    /* recurrent: of states */
    uint32_t key;             /* of this use, for random numbers */
    uint32_t cell;            /* recurrent: number of the direction, likewise */
    double epsilon, momentum; /* normalisations */
    int64_t steps;            /* of sequences that are not ragged: their number; 0: ragged */
    const int32_t *masks; /* (input_count) of such sequences: tensors made by MASK, -1: all steps count; NULL: of all */
    float mask_value;     /* MASK */
    bool whole;           /* recurrent: the output has all steps, else the last one */
    bool backwards;       /* recurrent: from the last step to the first */
    bool flipped;         /* recurrent: the output has the steps in the order in which they were taken */
    bool zero_masked;     /* recurrent: the output of a step that does not count is 0, else the one before */
    bool reset_after;     /* GRU */
    int64_t heads, key_steps; /* ATTENTION; key_steps as steps */
    bool causal;              /* ATTENTION: a query meets no key behind it */
    bool means_all;           /* ATTENTION: a query that meets no key gets the mean of all values, else 0 */
    sap_cuda_window window;   /* CONVOLUTION, pooling in windows */
} sap_cuda_op;

typedef struct sap_cuda_input {
    int32_t tensor;
    int64_t values; /* numbers a row, or a step where ragged */
    bool ragged;
} sap_cuda_input;

/* Arrays of an optimizer, in the order of SAP_SLOT_… (optimizer.h). */
enum { SAP_CUDA_SLOT_MOMENTUM, SAP_CUDA_SLOT_VELOCITY, SAP_CUDA_SLOT_LARGEST, SAP_CUDA_SLOT_AVERAGE, SAP_CUDA_SLOTS };

/* A weight array among the trainable parameters. */
typedef struct sap_cuda_stretch {
    int64_t first, count;
    bool decays;
} sap_cuda_stretch;

/* The formulas of sap_update (optimizer.h). */
typedef struct sap_cuda_optimizer {
    bool adam;                  /* Adam and its kin, else SGD */
    bool slots[SAP_CUDA_SLOTS]; /* which arrays it has */
    float one_minus_beta_1, one_minus_beta_2;
    float limit;    /* of each number of a gradient; infinity: none */
    double norm;    /* that a gradient has at most; 0: no limit */
    bool global;    /* the norm is that of all gradients together, else of each weight array */
    bool stretched; /* weight arrays are not all alike: they have norms, or some do not decay */
    float momentum;
    bool nesterov;
} sap_cuda_optimizer;

/* What changes from step to step. */
typedef struct sap_cuda_update {
    float rate, root, epsilon, decay;
    float average;  /* momentum of the average */
    bool overwrite; /* the weights become their average */
} sap_cuda_update;

/* Sums of an output over rows; those of several stand output by output. */
typedef struct sap_cuda_result {
    double loss;
    int64_t places, correct; /* places: of all rows */
    int64_t bad_step;        /* the first step of the call whose loss was not finite, from 1; 0: none */
} sap_cuda_result;

/* The loss of an output, with the formulas of losses_plain.c. */
typedef struct sap_cuda_loss {
    sap_loss_kind kind; /* SAP_LOSS_NONE: the output is not trained */
    bool from_logits;
    float keep, share; /* label smoothing: target · keep + share */
    float delta;       /* Huber */
    float threshold;   /* above it an output of one value means 1 */
    double weight;     /* in the sum over the outputs */
} sap_cuda_loss;

typedef struct sap_cuda_output {
    int32_t tensor;
    int64_t values, places; /* numbers a place; places of a row, each with a loss of its own */
    sap_cuda_loss loss;
} sap_cuda_output;

/* What products take; sums, and all else, are float32. */
typedef enum sap_cuda_precision {
    SAP_CUDA_BF16 = 0, /* bf16 in recurrent layers that have a kernel for tensor cores, else float32 */
    SAP_CUDA_FLOAT32,
    SAP_CUDA_TF32 /* tf32 in dense and recurrent layers (sm_80) */
} sap_cuda_precision;

typedef struct sap_cuda_plan {
    const char *name; /* of the model, for messages */
    int32_t tensor_count, op_count, input_count, output_count;
    const sap_cuda_tensor *tensors;
    const sap_cuda_op *ops; /* in the order of the forward pass */
    const sap_cuda_input *inputs;
    const sap_cuda_output *outputs; /* (output_count) of different tensors */
    int64_t value_count, trainable_count;
    sap_cuda_optimizer optimizer;
    const sap_cuda_stretch *stretches; /* (stretch_count) in the order of the parameters */
    int32_t stretch_count;
    sap_cuda_precision precision;
} sap_cuda_plan;

typedef struct sap_cuda_engine sap_cuda_engine;

/* How ranks share each batch, and in what order its gradients are added. Functions are NULL, where they are of no use. */
typedef struct sap_cuda_share {
    void *context;
    int32_t groups; /* a power of two: each batch falls into so many, whose gradients are added in a binary tree */
    /* The sums over all ranks take the place of each one's numbers; NULL: there is one rank. on_device: they lie there, and the sum is queued on
     * the stream (cudaStream_t); else they lie in the host's memory. */
    bool on_device;
    sap_status (*sum)(void *context, float *numbers, int64_t count, void *stream, sap_error *err);
    /* With on_device. While the host waits for the device: summing: that has come as far as a sum, and may wait for other ranks. */
    sap_status (*look)(void *context, bool summing, sap_error *err);
    /* A sum is over, which took the device so many seconds. */
    void (*note)(void *context, double seconds);
} sap_cuda_share;

/* Rows in the host's memory. */
typedef struct sap_cuda_rows {
    int64_t rows;
    const float *const *x;         /* (inputs) arrays (rows, values), or (offsets[i][rows], values) */
    const int64_t *const *offsets; /* (inputs) NULL, or (rows + 1) from 0 where the plan's input is ragged */
    /* Of outputs with a loss: (rows, target_values) numbers, as many as the output has, or one for each place: class numbers, or where there is one
     * value that itself. NULL: not known. */
    const float *const *target;   /* (outputs) */
    const int64_t *target_values; /* (outputs) */
    const float *const *weight;   /* (outputs) of each row in the loss (rows); NULL: 1 */
    const uint64_t *identity;     /* (rows); NULL: the row's number in its set */
    int64_t batch_rows;           /* of all ranks; 0: these are all */
    const int32_t *order;         /* (rows) with `begin`: numbers of rows, group by group; NULL: as they come */
    const int64_t *begin;         /* (groups + 1) places in `order`; NULL: all rows are of the first group */
} sap_cuda_rows;

/* Steps of a training over rows that the device holds. */
typedef struct sap_cuda_steps {
    const int32_t *order; /* (this rank's rows) numbers of rows, in the order in which sap_cuda_table.keep got them */
    int64_t rows, batch;  /* of all ranks; the last step may be smaller */
    const int64_t *
        begin; /* (steps * groups + 1) places in `order` of each group of each step; NULL: this is the only rank, no groups */
    uint64_t key;                   /* of (seed, epoch), for dropout */
    const sap_cuda_update *updates; /* (steps) NULL: sums only */
} sap_cuda_steps;

typedef struct sap_cuda_table {
    /* A line a device: "0: NVIDIA H100 80GB HBM3, 132 multiprocessors, 79 GiB"; SAP_EPLUGIN when there is none. */
    sap_status (*describe)(char *out, size_t capacity, sap_error *err);
    /* How many there are, and of each what no other GPU in the world has. identities: (SAP_CUDA_DEVICES) */
    sap_status (*devices)(int *count, int64_t *identities, sap_error *err);
    /* Makes a device this thread's. */
    sap_status (*select)(int device, sap_error *err);
    /* On this thread's device. The plan and what it points to stay the caller's and must outlive the engine, as does what `share` points to (NULL:
     * one rank, one group). batch: most rows of a step. */
    sap_status (*open)(const sap_cuda_plan *plan, int64_t batch, const sap_cuda_share *share, sap_cuda_engine **out,
                       sap_error *err);
    void (*close)(sap_cuda_engine *engine);
    /* Weights (value_count) and the optimizer's arrays, (SAP_CUDA_SLOTS) of (trainable_count), NULL where it has none: in
     * and out; slots NULL: weights only. */
    sap_status (*put)(sap_cuda_engine *engine, const float *values, float *const *slots, sap_error *err);
    sap_status (*get)(sap_cuda_engine *engine, float *values, float *const *slots, sap_error *err);
    /* Makes room in set 0 (training) or 1 (validation) for so many rows, and steps of each ragged input, which the device keeps;
     * SAP_EMEMORY: they do not fit, nothing is changed. */
    sap_status (*reserve)(sap_cuda_engine *engine, int set, int64_t rows, const int64_t *steps, sap_error *err);
    /* Appends rows; SAP_EMEMORY: what comes with them does not fit, and the set is empty. */
    sap_status (*keep)(sap_cuda_engine *engine, int set, const sap_cuda_rows *rows, sap_error *err);
    /* Trains or measures on rows of a set; results: (groups, outputs) sums over this rank's rows of each. */
    sap_status (*run)(sap_cuda_engine *engine, int set, const sap_cuda_steps *steps, sap_cuda_result *results,
                      sap_error *err);
    /* One batch from the host's memory: a training step, or, update NULL, sums only. Returns before the device is done; `finish` waits and
     * gives the sums since the last one, likewise. */
    sap_status (*feed)(sap_cuda_engine *engine, const sap_cuda_rows *rows, uint64_t key, const sap_cuda_update *update,
                       sap_error *err);
    sap_status (*finish)(sap_cuda_engine *engine, sap_cuda_result *results, sap_error *err);
    /* outputs: (outputs) arrays (rows, places · values), NULL: not wanted; of at most a batch. */
    sap_status (*predict)(sap_cuda_engine *engine, const sap_cuda_rows *rows, float *const *outputs, sap_error *err);
    /* Gradients (trainable_count) of the loss of a batch, dropout off; results: (outputs). */
    sap_status (*gradient)(sap_cuda_engine *engine, const sap_cuda_rows *rows, float *gradients,
                           sap_cuda_result *results, sap_error *err);
} sap_cuda_table;

#ifdef __cplusplus
}
#endif
#endif
