/* The inside of networks: models, layers and their table of functions, programs, optimizers.
 *
 * A model is layers and nodes. A layer has settings and weights; a node is one use of a layer in the graph, so a
 * shared layer has several nodes. Nodes read and write tensors; nodes that only look at a tensor in another shape
 * (Flatten) have the tensor of their input as their output. A program runs the nodes of a model over tiles
 * (kernels.h) of a batch: forward in topological order, backward in the reverse one. All weights stand in one flat
 * array, the trainable ones first, so that gradients and the optimizer's state are flat arrays too.
 */
#ifndef SAP_NN_INTERNAL_H
#define SAP_NN_INTERNAL_H

#include "../base/base_internal.h"
#include "kernels.h"
#include "losses.h"
#include "optimizer.h"
#include <sapwood/nn.h>

#include <jansson.h>

enum {
    SAP_RANK = 8,                       /* most dimensions of a tensor, the batch dimension left out */
    SAP_LAYERS_MOST = 4096,             /* layers, and uses of layers, of a model */
    SAP_SLICES = 32,                    /* most slices of a batch */
    SAP_OUTPUTS = 16,                   /* most outputs of a model that is trained */
    SAP_CONFIG_BYTES = 64 * 1024 * 1024 /* most bytes of a config.json */
};
#define SAP_TENSOR_MOST (INT64_C(1) << 24)     /* values of an activation, one event */
#define SAP_PARAMETERS_MOST (INT64_C(1) << 30) /* parameters of a model */

/* ---- Shapes and weights --------------------------------------------------------------------------------- */

typedef struct sap_shape {
    int32_t rank; /* without the batch dimension */
    int64_t dims[SAP_RANK];
} sap_shape;

/* Numbers of one event; 1 for rank 0. Not for shapes with a time dimension of unknown length (-1). */
static inline int64_t sap_shape_values(const sap_shape *shape) {
    int64_t values = 1;
    for (int32_t i = 0; i < shape->rank; i++)
        values *= shape->dims[i];
    return values;
}
/* Numbers of one step of a tensor of rank >= 2, whose first dimension is time; of any other, all of them. */
static inline int64_t sap_shape_step_values(const sap_shape *shape) {
    int64_t values = 1;
    for (int32_t i = shape->rank > 1 ? 1 : 0; i < shape->rank; i++)
        values *= shape->dims[i];
    return values;
}
/* The last dimension; 1 for rank 0. */
static inline int64_t sap_shape_last(const sap_shape *shape) {
    return shape->rank ? shape->dims[shape->rank - 1] : 1;
}
/* "(14)", or "(None, 14)" with the batch dimension. */
void sap_shape_text(const sap_shape *shape, bool batch, char *text, size_t capacity);

typedef enum sap_initializer_kind {
    SAP_INIT_CONSTANT = 0,
    SAP_INIT_NORMAL,
    SAP_INIT_TRUNCATED_NORMAL, /* cut at two standard deviations */
    SAP_INIT_UNIFORM,
    SAP_INIT_VARIANCE_SCALING,
    SAP_INIT_ORTHOGONAL,
    SAP_INIT_IDENTITY
} sap_initializer_kind;

typedef struct sap_initializer {
    sap_initializer_kind kind;
    /* constant: a; normal: mean a, deviation b; uniform: [a, b); variance scaling: scale a; orthogonal, identity:
     * gain a */
    double a, b;
    enum { SAP_FAN_IN, SAP_FAN_OUT, SAP_FAN_AVERAGE } mode;
    sap_initializer_kind distribution; /* of variance scaling: normal, truncated normal or uniform */
} sap_initializer;

/* config: what a layer's config says, NULL for `standard` (a Keras name such as "glorot_uniform"). where: for
 * messages. */
SAP_MUST_CHECK sap_status sap_initializer_parse(const json_t *config, const char *standard, const char *where,
                                                sap_initializer *out, sap_error *err);
/* Fills values (of that shape), keyed by `key` alone. */
SAP_MUST_CHECK sap_status sap_initializer_run(const sap_initializer *initializer, int32_t rank, const int64_t *shape,
                                              uint64_t key, float *values, sap_error *err);

/* config: "relu", or {"class_name": …}; NULL or null: linear. */
SAP_MUST_CHECK sap_status sap_activation_parse(const json_t *config, const char *where, sap_activation *out,
                                               sap_error *err);

/* Along `rows` of one tile; z and a may be the same. Rare, so without vector forms. */
void sap_log_softmax(int64_t rows, int width, const float *z, float *a);
/* d becomes the gradient of z. */
void sap_log_softmax_gradient(int64_t rows, int width, const float *a, float *d);

/* ---- Layers --------------------------------------------------------------------------------------------- */

typedef struct sap_layer sap_layer;
typedef struct sap_call sap_call;

typedef enum sap_constraint_kind {
    SAP_CONSTRAINT_NONE = 0,
    SAP_CONSTRAINT_MAX_NORM,     /* norms at most `most` */
    SAP_CONSTRAINT_NON_NEGATIVE, /* weights at least 0 */
    SAP_CONSTRAINT_UNIT_NORM,    /* norms 1 */
    SAP_CONSTRAINT_MIN_MAX_NORM  /* norms drawn towards [least, most] by `rate` */
} sap_constraint_kind;

typedef struct sap_constraint {
    sap_constraint_kind kind;
    double least, most, rate;
    uint32_t axes; /* bit i: the norm is taken along axis i */
} sap_constraint;

typedef struct sap_layer_weight {
    const char *name;  /* "kernel" */
    const char *group; /* inside the layer's group in the weights file: "cell", "forward_layer/cell"; NULL: none */
    sap_shape shape;   /* of the array; rank without exception counts all dimensions */
    sap_initializer initializer;
    int64_t ones_from, ones; /* values [ones_from, ones_from + ones) begin as 1 all the same: an LSTM's forget gate */
    double l1, l2;           /* the loss has l1 Σ|w| + l2 Σw² besides */
    sap_constraint constraint;
    bool trainable;
    int64_t offset; /* into the model's values */
} sap_layer_weight;

enum { SAP_LAYER_WEIGHTS = 16 };

typedef enum sap_mode {
    SAP_PREDICT,       /* forward only; the outputs are the model's outputs */
    SAP_MEASURE,       /* forward and loss */
    SAP_DIFFERENTIATE, /* forward, loss, backward; dropout off */
    SAP_TRAIN          /* the same with dropout on */
} sap_mode;

/* Memory of one use of a layer on a tile, in floats; each part is aligned to 64 bytes. */
typedef struct sap_needs {
    int64_t kept; /* from its forward to its backward pass */
    int64_t work; /* during one call alone */
} sap_needs;

/* Parts of a layer's memory one after the other, each at 64 bytes; with no memory only their size counts. */
typedef struct sap_carving {
    float *memory;
    int64_t used; /* floats */
} sap_carving;

static inline void *sap_carve(sap_carving *c, int64_t floats) {
    void *at = c->memory ? c->memory + c->used : NULL;
    c->used += (floats + 15) / 16 * 16;
    return at;
}

/* How a class looks at padding, the masked steps of its inputs. */
typedef enum sap_padding {
    SAP_PADDING_ALWAYS = 0, /* at its values or its place: Flatten, Conv1D */
    SAP_PADDING_STEPWISE,   /* a step of the output depends on the same step of the inputs alone: Dense, Dropout */
    SAP_PADDING_NEVER       /* leaves masked steps out: GRU, masked pooling */
} sap_padding;

/* What a class does with the mask of its inputs. */
typedef enum sap_mask_use {
    SAP_MASK_STOP = 0, /* its output has none */
    SAP_MASK_PASS,
    SAP_MASK_MAKE /* Masking */
} sap_mask_use;

/* Sums over all rows of a batch that a trainable layer needs in training (SAP_TRAIN): call->sums. They are taken in
 * rounds over all tiles; a round sees the sums of those before. The rounds before the last stand before the forward pass,
 * the last before the backward pass. */
typedef struct sap_whole_batch {
    int64_t (*count)(const sap_layer *layer, const sap_shape *x); /* of sums in all rounds */
    int rounds;
    /* Adds what a tile gives in that round to its own sums, zero before the first. */
    void (*add)(const sap_call *call, int round, double *own);
    /* Changes weights that have no gradients. */
    void (*learn)(const sap_layer *layer, const double *sums, float *values);
} sap_whole_batch;

/* What a class of layers is. */
typedef struct sap_layer_class {
    const char *name;                  /* "Dense" */
    int32_t inputs_least, inputs_most; /* tensors that a node reads */
    bool view;                         /* the output is the input in another shape */
    const sap_whole_batch *whole;      /* what it takes from the whole batch in training; NULL: nothing */
    sap_padding padding;
    sap_mask_use mask;
    /* Reads the settings of a config; NULL: there are none. */
    sap_status (*parse)(sap_layer *layer, const json_t *config, sap_error *err);
    /* The output's shape; on the first use also declares the weights (sap_layer_add_weight). NULL: as the first input. */
    sap_status (*build)(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                        sap_error *err);
    /* Memory for a tile of SAP_TILE columns, for the most steps there may be: shapes with the time dimension filled in.
     * NULL: none. */
    void (*needs)(const sap_layer *layer, const sap_shape *const *x, const sap_shape *y, sap_mode mode, sap_needs *out);
    /* NULL: nothing to do. */
    void (*forward)(const sap_call *call);
    /* Adds to the gradients of the weights and writes or adds to those of the inputs; may overwrite dy. */
    void (*backward)(const sap_call *call);
} sap_layer_class;

/* By class name; NULL: no such class. */
const sap_layer_class *sap_layer_class_find(const char *name);
/* "Dense, Dropout, …" */
void sap_layer_class_names(char *text, size_t capacity);

struct sap_layer {
    const sap_layer_class *class_of;
    const char *name;  /* "dense_1", in a nested model "encoder/dense_1" */
    const char *where; /* "file.keras: layer \"dense_1\" (Dense)" */
    const char *group; /* in the weights file: "layers/dense_1"; NULL: an operation, which has none */
    const char *owner; /* name of the layer of the whole model that it is, or stands in: "encoder" */
    uint32_t key;      /* place in the model, keys random numbers */
    bool trainable;
    sap_padding padding; /* that of its class, if its settings do not say otherwise */
    void *settings;      /* of its class's own type, in the arena; NULL where the fields below are enough */
    sap_arena *arena;    /* the model's */
    int32_t weight_count;
    sap_layer_weight weights[SAP_LAYER_WEIGHTS];

    /* Settings of the first classes; each reads those that it has. */
    int64_t units;
    bool use_bias, scale, center;
    sap_activation activation;
    sap_initializer initializers[SAP_LAYER_WEIGHTS];
    double rate, epsilon, momentum;  /* Dropout; BatchNormalization */
    double activity_l1, activity_l2; /* the loss has l1 Σ|y| + l2 Σy² of its outputs besides, a mean over the rows */
    int64_t axis;
    sap_shape target; /* InputLayer, Reshape */
};

/* The weight that was added, for what else there is to say of it; as many as SAP_LAYER_WEIGHTS. */
sap_layer_weight *sap_layer_add_weight(sap_layer *layer, const char *name, const sap_shape *shape,
                                       const sap_initializer *initializer, bool trainable);

/* Parts of layers' configs. A number or flag that is not there is `standard`. */
SAP_MUST_CHECK sap_status sap_config_integer(const sap_layer *layer, const json_t *config, const char *key,
                                             int64_t least, int64_t most, int64_t *out, sap_error *err);
double sap_config_number(const json_t *config, const char *key, double standard);
bool sap_config_flag(const json_t *config, const char *key, bool standard);
/* A list of dimensions; null and -1 become -1. skip: dimensions to leave out at the front. */
SAP_MUST_CHECK sap_status sap_config_shape(const sap_layer *layer, const json_t *list, size_t skip, sap_shape *out,
                                           sap_error *err);

/* build() of classes whose output has the shape of the first input. */
SAP_MUST_CHECK sap_status sap_build_same(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                         sap_shape *out, sap_error *err);
/* The same for those that work along the last axis (layer->axis). */
SAP_MUST_CHECK sap_status sap_build_last_axis(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first,
                                              sap_shape *out, sap_error *err);

/* ---- Models --------------------------------------------------------------------------------------------- */

/* Which steps of a sequence count: those where some number of a step of the node's output differs from `value`. Made
 * by Masking, or by NotEqual and Any nodes, which are no nodes of the model. */
typedef struct sap_mask {
    int32_t node;
    float value;
    bool made; /* instead, the node makes it from the masks of its inputs */
} sap_mask;

/* Tensors of rank >= 2 whose steps stand at the same places of a tile. */
typedef struct sap_domain {
    int64_t length;  /* of the time dimension; -1: unknown */
    bool begins;     /* at inputs of the model */
    bool ragged;     /* each row has its own number of steps */
    int32_t input;   /* where ragged: number of the model's input that it begins at; else -1 */
    int32_t dropped; /* where ragged: the mask whose masked steps are dropped when rows are loaded; -1: none */
} sap_domain;

typedef struct sap_node {
    sap_layer *layer;
    int32_t use; /* number of the use of its layer */
    int32_t input_count;
    int32_t *inputs; /* (input_count) nodes */
    int32_t
        *masks; /* (input_count) of the model's masks, given as arguments beside the inputs, -1: that which the input
                        itself carries; NULL: all -1 */
    sap_shape shape; /* of the output; -1: a time dimension of unknown length */
    int32_t tensor;
    int32_t domain;     /* -1: rank < 2 */
    int32_t mask;       /* that its output carries: number of the model's masks; -1: none */
    bool view;          /* its tensor is that of its input */
    bool differentiate; /* something trainable stands at or before it */
} sap_node;

struct sap_model {
    sap_arena arena;
    const char *name;  /* file name, for messages */
    const char *title; /* the model's own name */
    const char *config, *metadata;
    size_t config_length;

    sap_layer **layers; /* in the order of the config */
    int32_t layer_count;
    sap_node *nodes; /* in topological order */
    int32_t node_count;
    int32_t tensor_count;
    int64_t *tensor_values; /* (tensor_count) numbers an event */
    sap_mask *masks;
    int32_t mask_count;
    sap_domain *domains;
    int32_t domain_count;
    int32_t *inputs; /* (input_count) nodes */
    int32_t input_count;
    int32_t *outputs; /* (output_count) nodes; one may be there twice */
    int32_t output_count;
    const char **output_names; /* (output_count) of the layers that Keras names the outputs by */
    sap_tensor_info *input_info, *output_info;

    sap_weight *weights; /* in the order of model.weights */
    const sap_layer_weight **weight_of;
    int32_t weight_count;
    float *values; /* all parameters, aligned to 64 bytes; the trainable ones first */
    int64_t value_count, trainable_count;
    char *summary;
    const char *untrainable;       /* why this version cannot train it, or NULL */
    sap_training_config *training; /* of its file; NULL: none */
    sap_optimizer_state optimizer; /* of the last training; zeroed: none */
};

/* Reads Keras 3's config.json into layers and nodes with shapes. */
SAP_MUST_CHECK sap_status sap_graph_parse(sap_model *model, sap_error *err);

/* Finds domains, masks and views of the nodes. */
SAP_MUST_CHECK sap_status sap_sequence_find(sap_model *model, sap_error *err);
/* What steps of an input that the examples do not have are filled with: the value that masks them, if one does. */
float sap_sequence_padding(const sap_model *model, int32_t node);
/* Number of the mask that a use of an input is given; -1: none. */
int32_t sap_sequence_mask(const sap_model *model, const sap_node *node, int32_t input);
/* The mask value of a Masking layer. */
float sap_masking_value(const sap_layer *layer);
/* Whether each query of a MultiHeadAttention looks at no key behind it. */
bool sap_attention_is_causal(const sap_layer *layer);
/* Whether the layer is a MultiHeadAttention whose queries get the mean of all values, masked ones too, where they meet no key. */
bool sap_attention_means_all(const sap_layer *layer);
/* Of Permute, RepeatVector, Cropping1D, ZeroPadding1D: the number of the input that number `value` of the output is; -1: 0. */
int64_t sap_rearranged_from(const sap_layer *layer, const sap_shape *x, const sap_shape *y, int64_t value);

/* Makes the flat arrays and tables of weights after sap_graph_parse. */
SAP_MUST_CHECK sap_status sap_model_allocate(sap_model *model, sap_error *err);

/* A name as Keras makes groups of it: "PReLU" gives "p_re_lu". */
void sap_snake_case(const char *name, char *out, size_t capacity);

/* ---- Model files ---------------------------------------------------------------------------------------- */

typedef struct sap_keras_file sap_keras_file;

/* Writes a `.keras` file; extra: text of a member "sapwood.json", or NULL. */
SAP_MUST_CHECK sap_status sap_model_store(const sap_model *model, const char *path, const char *extra, sap_error *err);
/* Unpacks a `.keras` file into the arena. */
SAP_MUST_CHECK sap_status sap_model_unpack(const char *path, sap_arena *arena, sap_keras_file *out, sap_error *err);
/* Checks that every weight of the model is there with its shape, before memory for the weights is taken. */
SAP_MUST_CHECK sap_status sap_model_check(const sap_model *model, const sap_keras_file *file, sap_error *err);
/* Fills the model's weights from a file that was checked. */
SAP_MUST_CHECK sap_status sap_model_fill(sap_model *model, const sap_keras_file *file, sap_error *err);
/* Fills an optimizer's state likewise. */
SAP_MUST_CHECK sap_status sap_model_fill_optimizer(const sap_model *model, const sap_keras_file *file,
                                                   sap_optimizer_state *state, sap_error *err);

/* ---- Programs: running a model over batches ------------------------------------------------------------- */

/* What one pass over a tile is about; shared by the calls of a slot. */
typedef struct sap_pass {
    const sap_kernels *kernels;
    const float *values; /* the model's */
    float *gradients;    /* of this slice, over the trainable parameters */
    int rows;            /* rows of the tile */
    int width;           /* columns of tensors without time */
    bool training;       /* dropout is on */
    uint64_t event_keys[SAP_TILE];
} sap_pass;

/* One node on one tile: its tensors. x, y and their gradients are feature-major: (values, width), or step after step as
 * their sap_steps say. */
struct sap_call {
    const sap_layer *layer;
    const sap_pass *pass;
    int32_t input_count;
    const float *const *x;
    float *const *dx; /* NULL entries: not wanted */
    const bool *add;  /* dx[i] is added to, else written */
    const sap_shape *const *x_shape;
    const sap_shape *shape;          /* of y */
    const sap_steps *const *x_steps; /* NULL entries: rank < 2 */
    const sap_steps *y_steps;        /* NULL: rank < 2 */
    const uint8_t *const *x_mask;    /* (columns of all steps) 1: counts; NULL entries: no mask */
    uint8_t *y_mask; /* the same; NULL: no mask. Filled, unless the steps of y are not those of x: then by
                                        the class, which passes a mask on */
    float *y, *dy;
    float *kept;              /* as many floats as the class needs from forward to backward */
    float *work;              /* scratch of this call alone */
    const double *sums, *own; /* of the whole batch and of this tile (sap_whole_batch); NULL: not taken */
    bool logits;              /* the last activation is left to the loss: y holds its input */
    uint32_t key;             /* of this use, for random numbers */
};

/* One step of a sequence in a tile. Layers that take each step for itself walk over the blocks of a tensor; one without
 * time is a single block. */
typedef struct sap_block {
    int32_t step, end; /* over when step == end */
    int32_t part;
    int width;
    int64_t start; /* columns of all blocks before: value f of row r is x[start * F + f * width + r] */
} sap_block;

static inline sap_block sap_block_first(const sap_pass *pass, const sap_steps *steps) {
    if (!steps)
        return (sap_block){.end = 1, .width = pass->width};
    return (sap_block){.end = steps->count, .width = steps->part_count ? steps->parts[0].width : 0};
}
static inline void sap_block_next(const sap_steps *steps, sap_block *block) {
    block->start += block->width;
    block->step++;
    if (steps && block->part + 1 < steps->part_count && block->step == steps->parts[block->part + 1].first)
        block->width = steps->parts[++block->part].width;
}

/* Columns of y: its numbers are so many times the values of a step. */
static inline int64_t sap_call_columns(const sap_call *call) {
    return call->y_steps ? sap_steps_columns(call->y_steps) : call->pass->width;
}

/* What several classes do. target (= or +=) source, n numbers: */
void sap_pass_on(const sap_call *call, bool add, const float *source, float *target, int64_t n);
/* The activation of a layer from z to y, which may be the same. */
void sap_activate(const sap_call *call, const float *z, float *y);
/* Turns dy from the gradient of y into that of z. */
void sap_activate_backward(const sap_call *call, const float *z);

typedef struct sap_program sap_program;

/* What a batch gave, by output. */
typedef struct sap_batch_result {
    sap_loss_sums outputs[SAP_OUTPUTS];
    int64_t places[SAP_OUTPUTS]; /* that the mean of each output is taken over: those of the whole batch */
    double activity;             /* what activity regularizers add to the loss */
} sap_batch_result;

/* Memory for running the model. losses: one for each output, NULL: Keras' categorical cross-entropy; kernels NULL: the best
 * ones. The run is copied. */
SAP_MUST_CHECK sap_status sap_program_open(const sap_model *model, sap_mode mode, const sap_loss *losses,
                                           const sap_kernels *kernels, const sap_run *run, sap_program **out,
                                           sap_error *err);
void sap_program_close(sap_program *program);
/* gradients: (trainable_count), overwritten, of the sum of the outputs' mean losses times their weights; NULL in the other
 * modes. outputs: one array (rows, values) for each output of the model, NULL: not wanted, itself but for SAP_PREDICT; with
 * a loss that takes logits they lack their last softmax or sigmoid. key: of (seed, epoch), for dropout. */
SAP_MUST_CHECK sap_status sap_program_run(sap_program *program, const sap_examples *examples, uint64_t key,
                                          float *gradients, float *const *outputs, sap_batch_result *result,
                                          sap_error *err);
/* Checks that examples fit the model's inputs. */
SAP_MUST_CHECK sap_status sap_examples_check(const sap_model *model, const sap_examples *examples, sap_error *err);

/* ---- Batches that ranks share ------------------------------------------------------------------------------ */

enum { SAP_FLAGS = 3 }; /* numbers that go along with the gradients */

/* How a program shares its batches with other ranks. Zeroed: it does not. */
typedef struct sap_share {
    sap_comm *comm;               /* NULL: this is the only rank */
    int32_t groups;               /* of shards whose sums are added in a fixed order; 0: in any order */
    int32_t group_from, group_to; /* this rank's */
    const uint8_t *shards;        /* (rows) with groups: the shard of each row of the batch in hand */
} sap_share;

/* Groups for batches of that size. */
int32_t sap_share_groups(int64_t batch);
/* Of so many groups or shards, those of a rank. */
void sap_share_own(int32_t groups, int rank, int size, int32_t *from, int32_t *to);
/* Before the first batch; the program must be open for training. */
void sap_program_share(sap_program *program, const sap_share *share);
/* After sap_program_run, by all ranks that share: gradients, (trainable_count) with room for SAP_FLAGS more, and flags become the sums
 * over all ranks, the latter rounded to float. With groups, so does the result; without, it stays this rank's own. */
SAP_MUST_CHECK sap_status sap_program_sum(sap_program *program, float *gradients, float *flags,
                                          sap_batch_result *result, sap_error *err);

/* The last activation of an output where the loss is taken from what it would be given, else SAP_LINEAR. */
sap_activation_kind sap_program_logits(const sap_program *program, int32_t output);

/* ---- Penalties and constraints of weights ----------------------------------------------------------------- */

/* Whether no trainable weight has either. */
bool sap_model_is_plain(const sap_model *model);
/* What the trainable weights add to the loss; its gradient is added to `gradients`, if those are wanted. */
double sap_penalty_add(const sap_model *model, float *gradients);
/* Makes the trainable weights obey their constraints. */
SAP_MUST_CHECK sap_status sap_constraint_apply(const sap_model *model, sap_error *err);

/* ---- Evaluation ------------------------------------------------------------------------------------------- */

/* Exact AUC of scores, ties counted half; NaN without positives or negatives. */
SAP_MUST_CHECK sap_status sap_auc_find(const float *score, const uint8_t *positive, int64_t count, double *out,
                                       sap_error *err);

#endif
