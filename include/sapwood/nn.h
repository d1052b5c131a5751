/* Networks defined with the Keras API: model files in and out, prediction, gradients, training, evaluation.
 *
 * A model comes from a `.keras` file (Keras 3) or Keras' JSON, and goes back into a `.keras` file that Keras loads with the
 * same predictions. Nothing is lost on the way: config.json is kept as it is, the weights are rewritten.
 */
#ifndef SAPWOOD_NN_H
#define SAPWOOD_NN_H

#include <sapwood/comm.h>
#include <sapwood/dataset.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Models ------------------------------------------------------------------------------------------------ */

typedef struct sap_model sap_model;

/* path: a `.keras` file, or `.json` (weights are then initialised as its layers say, from `seed`). An unknown layer, activation or
 * initialiser is SAP_EUNSUPPORTED and named. */
SAP_API SAP_MUST_CHECK sap_status sap_model_open(const char *path, uint64_t seed, sap_model **out, sap_error *err);
SAP_API void sap_model_close(sap_model *model);
/* Writes a `.keras` file, aside and then renamed. */
SAP_API SAP_MUST_CHECK sap_status sap_model_write(const sap_model *model, const char *path, sap_error *err);

/* Draws all weights anew as the layers' initialisers say. */
SAP_API SAP_MUST_CHECK sap_status sap_model_reset(sap_model *model, uint64_t seed, sap_error *err);

/* An input or an output of a model. Borrowed until it is closed. */
typedef struct sap_tensor_info {
    const char *name;
    int32_t rank;         /* without the batch dimension */
    const int64_t *shape; /* (rank); -1: a time dimension of any length */
    bool sigmoid;         /* its numbers have been through a sigmoid */
} sap_tensor_info;

SAP_API size_t sap_model_input_count(const sap_model *model);
SAP_API const sap_tensor_info *sap_model_input(const sap_model *model, size_t index);
SAP_API size_t sap_model_output_count(const sap_model *model);
SAP_API const sap_tensor_info *sap_model_output(const sap_model *model, size_t index);
SAP_API int64_t sap_model_parameter_count(const sap_model *model);

/* The layers, one line each (name, class, output shape, parameters), as text. Borrowed until the model is closed. */
SAP_API const char *sap_model_summary(const sap_model *model);

/* A weight array, in Keras' own layout and order of `model.weights`. Borrowed; `data` may be written to between calls. */
typedef struct sap_weight {
    const char *path; /* "dense_1/kernel" */
    int32_t rank;
    const int64_t *shape;
    float *data;
    bool trainable;
} sap_weight;

SAP_API size_t sap_model_weight_count(const sap_model *model);
SAP_API const sap_weight *sap_model_weight(sap_model *model, size_t index);

/* The outputs of each row: outputs[o] is an array (rows, values of output o). */
SAP_API SAP_MUST_CHECK sap_status sap_model_predict(const sap_model *model, const sap_examples *examples,
                                                    const sap_run *run, float *const *outputs, sap_error *err);

typedef enum sap_device {
    SAP_DEVICE_CPU = 0,
    SAP_DEVICE_CUDA /* the first NVIDIA GPU (CUDA_VISIBLE_DEVICES says which that is; of several ranks each its own) */
} sap_device;

/* The same, kept ready for one call after another. The model must outlive it and keep its weights (a GPU has a copy of them); one thread at a
 * time. On a GPU: models of at most 16 outputs, in float32; layers that only the CPU has are SAP_EUNSUPPORTED, no GPU is SAP_EPLUGIN. */
typedef struct sap_predictor sap_predictor;
SAP_API SAP_MUST_CHECK sap_status sap_predictor_open(const sap_model *model, sap_device device, const sap_run *run,
                                                     sap_predictor **out, sap_error *err);
SAP_API SAP_MUST_CHECK sap_status sap_predictor_run(sap_predictor *predictor, const sap_examples *examples,
                                                    float *const *outputs, sap_error *err);
SAP_API void sap_predictor_close(sap_predictor *predictor);

/* Losses, with Keras' formulas (3.15 on TensorFlow). */
typedef enum sap_loss_kind {
    SAP_LOSS_CATEGORICAL_CROSSENTROPY = 0,
    SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY, /* targets are class numbers */
    SAP_LOSS_BINARY_CROSSENTROPY,
    SAP_LOSS_MEAN_SQUARED_ERROR,
    SAP_LOSS_MEAN_ABSOLUTE_ERROR,
    SAP_LOSS_HUBER,
    SAP_LOSS_NONE /* the output is not trained */
} sap_loss_kind;

/* The loss of an output: a mean over the rows, and over the steps that count where the output is a sequence. Zeroed fields take Keras'
 * defaults. A cross-entropy of an output that ends in softmax or sigmoid is taken from what that was given, as Keras does.
 * Class numbers stand for ones and zeros where a loss wants one target for each of several values. */
typedef struct sap_loss {
    sap_loss_kind kind;
    bool from_logits;           /* cross-entropies: the output has not been through a softmax or sigmoid */
    double label_smoothing;     /* categorical and binary cross-entropy: from 0 to 1 */
    double delta;               /* Huber; 0: 1 */
    double weight;              /* in the sum over the outputs; 0: 1 */
    const double *class_weight; /* of rows by their class (the largest target) in training; borrowed; NULL: 1 */
    int32_t class_count;        /* how many */
} sap_loss;

/* By Keras' name: "categorical_crossentropy", "mse", "MeanSquaredError", …; unknown names list those there are. */
SAP_API SAP_MUST_CHECK sap_status sap_loss_find(const char *name, sap_loss_kind *out, sap_error *err);

/* Mean loss over the rows (losses: one for each output, NULL: categorical cross-entropy), in training mode off (no dropout), and its gradient for every trainable weight: gradients holds them one after
 * another in the order of sap_model_weight (parameters in all). */
SAP_API SAP_MUST_CHECK sap_status sap_model_gradient(const sap_model *model, const sap_examples *examples,
                                                     const sap_loss *losses, const sap_run *run, double *mean_loss,
                                                     float *gradients, sap_error *err);

/* ---- Compiling ------------------------------------------------------------------------------------------------ */

/* Zeroed: standard. */
typedef struct sap_compile_options {
    const char *name;   /* what the function's name begins with, an identifier; NULL: from the model's name */
    const char *header; /* path of a header to write besides; NULL: none */
    int64_t rows;       /* the most rows of a sequence whose length the model leaves open */
    const sap_dataset
        *dataset; /* inputs are features of it, as computed, and scaled by the function; NULL: they come scaled */
} sap_compile_options;

/* Writes the model as one C11 file without dependencies: static const weights and one function that predicts one event,
 *
 *     void NAME_predict(const float *input…, int32_t input_rows…, float *output…);
 *
 * with a number of rows for each input that is a sequence (rank 2 and more; what lies behind them counts as padding). Its results are those of
 * sap_model_predict but for rounding. It allocates nothing, and takes the same time for the same numbers of rows. Layers that cannot be
 * compiled are SAP_EUNSUPPORTED and named. options may be NULL. */
SAP_API SAP_MUST_CHECK sap_status sap_model_compile(const sap_model *model, const sap_compile_options *options,
                                                    const char *path, sap_error *err);

/* ---- Training ------------------------------------------------------------------------------------------------ */

/* The learning rate by step, with Keras' formulas; r is the optimizer's learning_rate, n the steps done, s = decay_steps. */
typedef enum sap_schedule_kind {
    SAP_SCHEDULE_CONSTANT = 0,
    SAP_SCHEDULE_EXPONENTIAL,  /* r · decay_rate^(n/s) */
    SAP_SCHEDULE_INVERSE_TIME, /* r / (1 + decay_rate n/s) */
    SAP_SCHEDULE_POLYNOMIAL, /* (r - end) (1 - n/s)^power + end, end after s steps; cycle: s is doubled, tripled … instead */
    SAP_SCHEDULE_COSINE,   /* r ((1 - alpha) (1 + cos(π n/s)) / 2 + alpha), r · alpha after s steps */
    SAP_SCHEDULE_PIECEWISE /* values[i], i the number of boundaries below n */
} sap_schedule_kind;

typedef struct sap_schedule {
    sap_schedule_kind kind;
    double decay_steps, decay_rate;
    bool staircase;                    /* exponential, inverse time: n/s is rounded down */
    double end_learning_rate, power;   /* polynomial; 0: 1e-4 and 1 */
    bool cycle;                        /* polynomial */
    double alpha;                      /* cosine */
    const double *boundaries, *values; /* piecewise: (boundary_count), rising, and (boundary_count + 1); borrowed */
    int32_t boundary_count;
    /* Before all that the rate rises in a straight line, from warmup_from to r in warmup_steps; the schedule begins then (Keras'
     * CosineDecay calls r warmup_target, and warmup_from initial_learning_rate). */
    double warmup_steps, warmup_from;
} sap_schedule;

typedef enum sap_optimizer_kind {
    SAP_OPTIMIZER_ADAM = 0,
    SAP_OPTIMIZER_SGD,
    SAP_OPTIMIZER_ADAMW, /* Adam with a weight decay of 0.004 if none is given */
    SAP_OPTIMIZER_RADAM /* Adam with the rectified step of Liu et al., arXiv:1908.03265, as in TensorFlow Addons; Keras has none */
} sap_optimizer_kind;

/* Zeroed fields take Keras' defaults. The order in a step is Keras': gradients are clipped, weights decay, then the update. */
typedef struct sap_optimizer {
    sap_optimizer_kind kind;
    double learning_rate;  /* Adam, AdamW, RAdam 0.001, SGD 0.01 */
    double beta_1, beta_2; /* Adam and its kin 0.9, 0.999 */
    double epsilon;        /* Adam and its kin 1e-7 */
    bool amsgrad;          /* Adam, AdamW */
    double momentum;       /* SGD 0 */
    bool nesterov;
    double weight_decay; /* w -= w · weight_decay · learning rate, apart from the gradient; 0: none but with AdamW */
    const char *const *
        decay_except; /* (decay_except_count) weights with one of these in their own name ("bias") do not decay; borrowed */
    size_t decay_except_count;
    /* At most one of these; 0: none. Of each weight array's gradient, of each of its numbers, and of all together. */
    double clipnorm, clipvalue, global_clipnorm;
    double ema_momentum; /* keeps an average of the weights, which they become at the end; 0: none (Keras: 0.99) */
    int64_t ema_overwrite_frequency; /* … and every so many steps; 0: only at the end */
    sap_schedule schedule;
} sap_optimizer;

/* By Keras' name: "adam", "AdamW", "sgd", …; unknown names list those there are. */
SAP_API SAP_MUST_CHECK sap_status sap_optimizer_find(const char *name, sap_optimizer_kind *out, sap_error *err);

/* What a model's file says of its training: the compile_config of Keras. */
typedef struct sap_training_config {
    sap_optimizer optimizer; /* defaults filled in */
    const sap_loss *losses;  /* one for each output */
    const char
        *unknown; /* what of it this library does not know, and nothing of the above is set; NULL: it knows all */
} sap_training_config;

/* NULL: the model was not compiled. Borrowed until the model is closed or trained. */
SAP_API const sap_training_config *sap_model_training_config(const sap_model *model);

/* What the epochs gave, by Keras' names: "loss", "accuracy" (where the loss is a cross-entropy), "auc" (when asked for), the same of
 * the validation set with "val_" in front, and "learning_rate". With several outputs, "NAME_loss" … of each, "loss" of all. Losses and
 * accuracies are means over rows. Zeroed is empty. */
typedef struct sap_history {
    int32_t count; /* of names */
    char **names;
    int64_t first, epochs; /* epochs done before, and those here */
    double *values;        /* (epochs, count); NaN: not measured in that epoch */
    double *seconds;       /* (epochs) that it took */
    double *ended;         /* (epochs) when, in seconds since 1970 */
} sap_history;

SAP_API void sap_history_release(sap_history *history);
/* epoch: from 0 of those here. NaN: no such name, or not measured. */
SAP_API double sap_history_value(const sap_history *history, int64_t epoch, const char *name);

typedef enum sap_callback_kind {
    SAP_CALLBACK_EARLY_STOPPING = 0,
    SAP_CALLBACK_MODEL_CHECKPOINT, /* writes the model to `path` after each epoch */
    SAP_CALLBACK_REDUCE_ON_PLATEAU,
    SAP_CALLBACK_LEARNING_RATE, /* before each epoch the learning rate becomes rate(context, epoch from 0, what it is) */
    SAP_CALLBACK_CSV,           /* writes the history to `path`, as Keras' CSVLogger does */
    SAP_CALLBACK_TENSORBOARD    /* writes event files to the folders train and validation of `path` */
} sap_callback_kind;

typedef enum sap_monitor_mode { SAP_MONITOR_AUTO = 0, SAP_MONITOR_MIN, SAP_MONITOR_MAX } sap_monitor_mode;

/* Something that is done after epochs, with the meaning of Keras' callbacks. Zeroed fields take Keras' defaults; strings are borrowed. */
typedef struct sap_callback {
    sap_callback_kind kind;
    const char *monitor;   /* name in the history; NULL: "val_loss" */
    sap_monitor_mode mode; /* whether less or more is better; auto: less of a loss, more of accuracy and AUC */
    double min_delta;      /* what counts as better; 0: 0, of REDUCE_ON_PLATEAU 1e-4; below 0: 0 */
    int64_t patience;      /* epochs without anything better; 0: 0, of REDUCE_ON_PLATEAU 10 */
    /* EARLY_STOPPING */
    bool has_baseline;
    double baseline;
    bool restore_best_weights;
    int64_t start_from_epoch;
    /* REDUCE_ON_PLATEAU */
    double factor; /* 0: 0.1 */
    int64_t cooldown;
    double min_learning_rate;
    /* MODEL_CHECKPOINT, CSV, TENSORBOARD. In MODEL_CHECKPOINT's "{epoch}", "{epoch:02d}" (from 1) and "{val_loss:.4f}" are filled in. */
    const char *path;
    bool save_best_only; /* when `monitor` is better than ever before */
    /* LEARNING_RATE */
    double (*rate)(void *context, int64_t epoch, double learning_rate);
    void *context;
} sap_callback;

typedef struct sap_train_options {
    int64_t epochs;          /* to go to, those before initial_epoch included */
    int64_t initial_epoch;   /* from 0 */
    int64_t batch;           /* rows a step */
    int64_t steps_per_epoch; /* at most, of each epoch's own order; 0: the whole training set */
    uint64_t seed;           /* of shuffling and dropout */
    bool in_order;           /* no shuffling */
    int64_t validation_freq; /* every so many epochs; 0: 1 */
    const sap_loss *losses;  /* one for each output; NULL: categorical cross-entropy */
    bool
        auc; /* measure it, as Keras' AUC of all values against their targets, but exactly: the scores of an epoch are kept for it */
    sap_optimizer optimizer;
    bool keep_optimizer; /* go on from the optimizer's state that the model has, if it has one of the same kind */
    const sap_callback *callbacks; /* (callback_count) in the order in which they are called */
    size_t callback_count;
    /* Path of a file rewritten after each epoch, and every so many seconds or steps within (0: not), from which the same call goes on
     * to the same last bit as if it had not been interrupted; NULL: none. It is written aside and renamed: a full disk or
     * a kill leaves the last one whole. A call that is cancelled writes it too. */
    const char *checkpoint;
    double checkpoint_seconds;
    int64_t checkpoint_steps;
    sap_device device;
    /* On a GPU products of some recurrent layers take bf16 and sum in float32, and all else is float32 (docs/gpu.md). float32: those too. tf32:
     * products of dense and recurrent layers take tf32 instead; SAP_EUNSUPPORTED without a GPU that has it, SAP_EARGUMENT with float32. */
    bool float32, tf32;
    bool
        bf16; /* on a CPU with AMX: products of dense and recurrent layers in training take bf16, and sum in float32; without AMX an error */
    /* Ranks that train together, all with the same model, options and data, each with a feed of its own shards; NULL: this one
     * alone. The batch is that of all of them: their number changes nothing but the order of sums, and with `deterministic` not even
     * that. Rank 0 writes the files, and alone reports progress if the others have no progress call-back in their run. */
    sap_comm *comm;
    bool deterministic; /* the same bits for any number of ranks; others than without it, but for a feed of one shard */
    /* Called after each epoch, on rank 0; may be NULL. */
    void (*on_epoch)(void *context, const sap_history *history);
    void *context;
} sap_train_options;

/* The shards that this rank's feeds are to hold, for sap_feed_options. SAP_EARGUMENT: there are not as many as ranks. */
SAP_API SAP_MUST_CHECK sap_status sap_train_shards(const sap_train_options *options, int32_t *from, int32_t *to,
                                                   sap_error *err);
/* Trains. history (released or zeroed before) is filled as far as it got. validation may be NULL. A loss that is not finite is SAP_EDATA.
 * The result does not depend on the number of threads. */
SAP_API SAP_MUST_CHECK sap_status sap_train(sap_model *model, const sap_train_options *options, sap_feed *train,
                                            sap_feed *validation, const sap_run *run, sap_history *history,
                                            sap_error *err);

/* ---- Evaluation ------------------------------------------------------------------------------------------------ */

/* A point of a ROC curve: events with score >= threshold are taken. */
typedef struct sap_roc_point {
    double threshold, false_positive_rate, true_positive_rate;
} sap_roc_point;

typedef struct sap_evaluation {
    int64_t rows;
    int32_t classes;
    double accuracy, loss;
    int64_t *confusion;  /* (classes, classes): [true class][predicted class] */
    double *auc;         /* (classes) one against the rest, ties counted half; NaN when a class is absent */
    sap_roc_point **roc; /* (classes) curves, each thinned to at most 1,000 points and exact at those */
    int64_t *roc_count;  /* (classes) */
} sap_evaluation;

/* scores: (rows, classes); label: (rows). */
SAP_API SAP_MUST_CHECK sap_status sap_evaluation_init(const float *scores, const int32_t *label, int64_t rows,
                                                      int32_t classes, sap_evaluation *out, sap_error *err);
SAP_API void sap_evaluation_release(sap_evaluation *evaluation);

#ifdef __cplusplus
}
#endif
#endif
