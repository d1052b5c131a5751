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
#include <sapwood/nn.h>

#include <jansson.h>

enum {
    SAP_RANK = 8,                       /* most dimensions of a tensor, the batch dimension left out */
    SAP_LAYERS_MOST = 4096,             /* layers, and uses of layers, of a model */
    SAP_SLICES = 32,                    /* most slices of a batch */
    SAP_CONFIG_BYTES = 64 * 1024 * 1024 /* most bytes of a config.json */
};
#define SAP_TENSOR_MOST (INT64_C(1) << 24)     /* values of an activation, one event */
#define SAP_PARAMETERS_MOST (INT64_C(1) << 30) /* parameters of a model */

/* ---- Shapes and weights --------------------------------------------------------------------------------- */

typedef struct sap_shape {
    int32_t rank; /* without the batch dimension */
    int64_t dims[SAP_RANK];
} sap_shape;

/* Numbers of one event; 1 for rank 0. */
static inline int64_t sap_shape_values(const sap_shape *shape) {
    int64_t values = 1;
    for (int32_t i = 0; i < shape->rank; i++)
        values *= shape->dims[i];
    return values;
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

/* ---- Layers --------------------------------------------------------------------------------------------- */

typedef struct sap_layer sap_layer;
typedef struct sap_call sap_call;

typedef struct sap_layer_weight {
    const char *name; /* "kernel" */
    sap_shape shape;  /* of the array; rank without exception counts all dimensions */
    sap_initializer initializer;
    bool trainable;
    int64_t offset; /* into the model's values */
} sap_layer_weight;

enum { SAP_LAYER_WEIGHTS = 4 };

/* What a class of layers is. */
typedef struct sap_layer_class {
    const char *name;                  /* "Dense" */
    int32_t inputs_least, inputs_most; /* tensors that a node reads */
    bool view;                         /* the output is the input in another shape */
    bool whole_batch; /* in training it needs the whole batch at once: this version cannot train through it */
    /* Reads the settings of a config. */
    sap_status (*parse)(sap_layer *layer, const json_t *config, sap_error *err);
    /* The output's shape; on the first use also declares the weights (sap_layer_add_weight). */
    sap_status (*build)(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                        sap_error *err);
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
    const char *name;  /* "dense_1" */
    const char *where; /* "file.keras: layer \"dense_1\" (Dense)" */
    const char *group; /* in the weights file: "layers/dense_1" */
    uint32_t key;      /* place in the model, keys random numbers */
    bool trainable;
    sap_arena *arena; /* the model's */
    int32_t weight_count;
    sap_layer_weight weights[SAP_LAYER_WEIGHTS];

    /* Settings; each class reads those that it has. */
    int64_t units;
    bool use_bias, scale, center;
    sap_activation activation;
    sap_initializer initializers[SAP_LAYER_WEIGHTS];
    double rate, epsilon; /* Dropout, BatchNormalization */
    int64_t axis;
    sap_shape target; /* InputLayer, Reshape */
};

void sap_layer_add_weight(sap_layer *layer, const char *name, const sap_shape *shape,
                          const sap_initializer *initializer, bool trainable);

/* ---- Models --------------------------------------------------------------------------------------------- */

typedef struct sap_node {
    sap_layer *layer;
    int32_t use; /* number of the use of its layer */
    int32_t input_count;
    int32_t *inputs; /* (input_count) nodes */
    sap_shape shape; /* of the output */
    int32_t tensor;
    bool differentiate; /* something trainable stands at or before it */
} sap_node;

/* State of an optimizer, as flat arrays over the trainable parameters. */
typedef struct sap_optimizer_state {
    sap_optimizer settings; /* defaults filled in */
    int64_t iteration;      /* steps done */
    int32_t slot_count;     /* Adam: m, v; SGD with momentum: m; SGD: none */
    float *slots[2];
} sap_optimizer_state;

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
    int32_t *inputs;        /* (input_count) nodes */
    int32_t input_count;
    int32_t output; /* node */
    sap_tensor_info *input_info, output_info;

    sap_weight *weights; /* in the order of model.weights */
    const sap_layer_weight **weight_of;
    int32_t weight_count;
    float *values; /* all parameters, aligned to 64 bytes; the trainable ones first */
    int64_t value_count, trainable_count;
    char *summary;
    const char *untrainable;       /* why this version cannot train it, or NULL */
    sap_optimizer_state optimizer; /* of the last training; slot_count 0 and iteration 0: none */
};

/* Reads a config.json (Keras 3, or Keras 2 model JSON) into layers and nodes with shapes. */
SAP_MUST_CHECK sap_status sap_graph_parse(sap_model *model, sap_error *err);

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
/* Fills the model's weights from an unpacked file, in which every array must be there with its shape. */
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
    int rows;            /* columns of the tile in use */
    bool training;       /* dropout is on */
    uint64_t event_keys[SAP_TILE];
} sap_pass;

/* One node on one tile: its tensors. x, y and their gradients are feature-major tiles (values, SAP_TILE). */
struct sap_call {
    const sap_layer *layer;
    const sap_pass *pass;
    int32_t input_count;
    const float *const *x;
    float *const *dx; /* NULL entries: not wanted */
    const bool *add;  /* dx[i] is added to, else written */
    const sap_shape *const *x_shape;
    const sap_shape *shape; /* of y */
    float *y, *dy;
    float *z;     /* what the activation took, where its derivative needs it */
    bool logits;  /* the last activation is left to the loss: y holds its input */
    uint32_t key; /* of this use, for random numbers */
};

typedef struct sap_program sap_program;

typedef enum sap_mode {
    SAP_PREDICT,       /* forward only; the output is the model's output */
    SAP_MEASURE,       /* forward and loss */
    SAP_DIFFERENTIATE, /* forward, loss, backward; dropout off */
    SAP_TRAIN          /* the same with dropout on */
} sap_mode;

/* What a batch gave: sums over its rows. */
typedef struct sap_batch_result {
    double loss;
    int64_t correct;
} sap_batch_result;

/* Memory for running the model; kernels NULL: the best ones. The run is copied. */
SAP_MUST_CHECK sap_status sap_program_open(const sap_model *model, sap_mode mode, const sap_kernels *kernels,
                                           const sap_run *run, sap_program **out, sap_error *err);
void sap_program_close(sap_program *program);
/* Mean loss over the batch is divided by `rows`; gradients: (trainable_count), overwritten, of the mean loss; NULL
 * in the other modes. scores: (rows, outputs), for SAP_PREDICT. key: of (seed, epoch), for dropout. */
SAP_MUST_CHECK sap_status sap_program_run(sap_program *program, const sap_examples *examples, uint64_t key,
                                          float *gradients, float *scores, sap_batch_result *result, sap_error *err);
/* Checks that examples fit the model's inputs; labels: those are needed too. */
SAP_MUST_CHECK sap_status sap_examples_check(const sap_model *model, const sap_examples *examples, bool labels,
                                             sap_error *err);

/* ---- Optimizers ----------------------------------------------------------------------------------------- */

/* Fills in defaults and checks. */
SAP_MUST_CHECK sap_status sap_optimizer_check(const sap_optimizer *settings, sap_optimizer *out, sap_error *err);
/* state is zeroed before; slots are made for `count` parameters. */
SAP_MUST_CHECK sap_status sap_optimizer_init(sap_optimizer_state *state, const sap_optimizer *settings, int64_t count,
                                             sap_error *err);
void sap_optimizer_release(sap_optimizer_state *state);
/* One step: `values` changes by `gradients`. */
void sap_optimizer_step(sap_optimizer_state *state, const sap_kernels *kernels, int64_t count, const float *gradients,
                        float *values);

#endif
