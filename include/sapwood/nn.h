/* Networks defined with the Keras API: model files in and out, prediction, gradients, training, evaluation.
 *
 * A model comes from a `.keras` file (Keras 3) or Keras' JSON, and goes back into a `.keras` file that Keras loads with the
 * same predictions. Nothing is lost on the way: config.json is kept as it is, the weights are rewritten.
 */
#ifndef SAPWOOD_NN_H
#define SAPWOOD_NN_H

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

typedef enum sap_loss { SAP_LOSS_CATEGORICAL_CROSSENTROPY = 0 } sap_loss;

/* Mean loss over the rows, in training mode off (no dropout), and its gradient for every trainable weight: gradients holds them one after
 * another in the order of sap_model_weight (parameters in all). */
SAP_API SAP_MUST_CHECK sap_status sap_model_gradient(const sap_model *model, const sap_examples *examples,
                                                     sap_loss loss, const sap_run *run, double *mean_loss,
                                                     float *gradients, sap_error *err);

/* ---- Training ------------------------------------------------------------------------------------------------ */

typedef enum sap_optimizer_kind { SAP_OPTIMIZER_ADAM = 0, SAP_OPTIMIZER_SGD } sap_optimizer_kind;

/* Zeroed fields take Keras' defaults. */
typedef struct sap_optimizer {
    sap_optimizer_kind kind;
    double learning_rate;  /* Adam 0.001, SGD 0.01 */
    double beta_1, beta_2; /* Adam 0.9, 0.999 */
    double epsilon;        /* Adam 1e-7 */
    double momentum;       /* SGD 0 */
    bool nesterov;
} sap_optimizer;

/* What an epoch gave. Losses and accuracies are means over rows; validation ones NaN without a validation set. */
typedef struct sap_epoch {
    int64_t epoch; /* from 1 */
    double loss, accuracy;
    double validation_loss, validation_accuracy;
    double seconds;
} sap_epoch;

typedef struct sap_train_options {
    int64_t epochs;
    int64_t batch; /* rows a step */
    uint64_t seed; /* of shuffling and dropout */
    sap_loss loss;
    sap_optimizer optimizer;
    const char *
        checkpoint; /* path of a file rewritten after each epoch (weights, optimizer, history), from which the same call goes
                               on to the same last bit as if it had not been interrupted; NULL: none */
    /* Called after each epoch; may be NULL. */
    void (*on_epoch)(void *context, const sap_epoch *epoch);
    void *context;
} sap_train_options;

/* Trains. history: (epochs) filled as far as it got; `*history_count` how far. validation may be NULL. A loss that is not finite is SAP_EDATA.
 * The result does not depend on the number of threads. */
SAP_API SAP_MUST_CHECK sap_status sap_train(sap_model *model, const sap_train_options *options, sap_feed *train,
                                            sap_feed *validation, const sap_run *run, sap_epoch *history,
                                            int64_t *history_count, sap_error *err);

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
