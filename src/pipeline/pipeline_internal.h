/* Stages: their options as given, and the functions that run them. */
#ifndef SAP_PIPELINE_INTERNAL_H
#define SAP_PIPELINE_INTERNAL_H

#include "../column/column_internal.h"
#include <jansson.h>
#include <sapwood/dataset.h>
#include <sapwood/nn.h>
#include <sapwood/pipeline.h>
#include <sapwood/recipe.h>

/* A kind of stage. */
typedef struct sap_stage_kind {
    const char *name, *help;
    const sap_option *options;
    size_t option_count;
    /* Runs it; `*result` is a new JSON object. NULL: not the library's, see sap_pipeline_options.external. */
    sap_status (*run)(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err);
} sap_stage_kind;

/* Borrowed; NULL: no such stage. */
const sap_stage_kind *sap_stage_kind_find(const char *name);

typedef struct sap_setting {
    const sap_option *option;
    char *value;
} sap_setting;

struct sap_stage {
    const sap_stage_kind *kind;
    sap_setting *settings; /* in the order given */
    size_t count, capacity;
    char *result;
};

/* The last value given, else the default, else NULL. Borrowed. */
const char *sap_stage_text(const sap_stage *stage, const char *name);
uint64_t sap_stage_count(const sap_stage *stage, const char *name);
double sap_stage_real(const sap_stage *stage, const char *name);
bool sap_stage_switch(const sap_stage *stage, const char *name);

/* Input files of the "sample" options, patterns expanded. Release with sap_inputs_release. */
typedef struct sap_inputs {
    sap_dataset_input *items;
    size_t count, capacity;
    sap_arena arena; /* owns the texts */
} sap_inputs;
SAP_MUST_CHECK sap_status sap_inputs_init(const sap_stage *stage, sap_inputs *out, sap_error *err);
void sap_inputs_release(sap_inputs *inputs);

sap_status sap_prepare_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err);
sap_status sap_train_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err);
sap_status sap_evaluate_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err);
sap_status sap_predict_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err);

/* The version that datasets name: the recipe's own, or, for a C file, with the hash of its text. */
SAP_MUST_CHECK sap_status sap_recipe_version(const char *name_or_path, const sap_recipe *recipe, char *out,
                                             size_t capacity, sap_error *err);

/* What a recipe made of one file, batch after batch. */
typedef struct sap_features_of {
    const sap_recipe *recipe;
    const char *tree; /* NULL: the recipe's */
    const sap_run *run;
    sap_status (*write)(void *context, sap_batch *features, sap_error *err); /* may take the batch */
    void (*advance)(void *context, int64_t done, int64_t entries);           /* entries read so far; may be NULL */
    void *context;
} sap_features_of;
/* Reads `url`, computes features, hands them on in order. read, dropped (cut_count): added to. */
SAP_MUST_CHECK sap_status sap_features_read(const sap_features_of *job, const char *url, int64_t *read,
                                            int64_t *dropped, sap_error *err);

/* A trained model's folder. Everything of it is found by name: */
#define SAP_RUN_MODEL "model.keras"
#define SAP_RUN_SCALER "dataset.json"
#define SAP_RUN_HISTORY "history.json"
#define SAP_RUN_OPTIONS "options.json"
#define SAP_RUN_EVALUATION "evaluation.json"

/* "folder/name" in `out` (capacity PATH_BYTES). */
enum { PATH_BYTES = 4096 };
SAP_MUST_CHECK sap_status sap_path_join(const char *folder, const char *name, char *out, sap_error *err);

/* Names of a model's inputs, which must be features of the dataset with its widths, as feeds want them. names:
 * (sap_model_input_count), borrowed from the model. where: for messages. */
SAP_MUST_CHECK sap_status sap_model_features(const sap_model *model, const sap_dataset *dataset, const char *where,
                                             const char **names, sap_error *err);

/* Opens what "data" names for a model: a dataset, or files of others, whose columns are looked for by the model's inputs. */
SAP_MUST_CHECK sap_status sap_data_open(const sap_stage *stage, const sap_model *model, sap_dataset **out,
                                        sap_error *err);
/* The split of that name, else "all" of files of others that are not split. */
const char *sap_data_split(const sap_dataset *dataset, const char *wanted);

/* Whether the network tells the dataset's two classes apart by the probability of the second alone: a single sigmoid. */
bool sap_model_is_binary(const sap_model *model, const sap_dataset *dataset);

/* What the option "device" says. */
sap_device sap_stage_device(const sap_stage *stage);

/* A run folder, open to score events. Zeroed is empty. */
typedef struct sap_scoring {
    sap_model *model;
    sap_predictor *predictor;
    sap_dataset *dataset;       /* the run's dataset.json: constants, labels, recipe */
    const sap_dataset *scaling; /* what scales events: that, or files whose values are scaled already. Borrowed */
    const char **inputs;        /* (sap_model_input_count) */
    int64_t classes;
    bool binary; /* sap_model_is_binary */
} sap_scoring;
/* Of the run in a folder, on a device. run: borrowed until it is released. */
SAP_MUST_CHECK sap_status sap_scoring_init(const char *folder, sap_device device, const sap_run *run, sap_scoring *out,
                                           sap_error *err);
void sap_scoring_release(sap_scoring *scoring);
/* Opens what "data" names to be scored: as sap_data_open, with the columns and labels of the run. */
SAP_MUST_CHECK sap_status sap_scoring_data(sap_scoring *scoring, const sap_stage *stage, sap_dataset **out,
                                           sap_error *err);
/* scores: (batch->length, classes), for features as sap_recipe_run makes them, or in training order (ordered). */
SAP_MUST_CHECK sap_status sap_scoring_run(const sap_scoring *scoring, const sap_batch *batch, bool ordered,
                                          const sap_run *run, float *scores, sap_error *err);

SAP_MUST_CHECK sap_status sap_json_store(const json_t *json, const char *path, sap_error *err);
SAP_MUST_CHECK sap_status sap_json_load(const char *path, json_t **out, sap_error *err);
/* A number, or null for NaN. */
json_t *sap_json_number(double value);

/* A YAML file as JSON: mappings, sequences, and scalars as strings. Errors name file, line and column. */
SAP_MUST_CHECK sap_status sap_yaml_load(const char *path, json_t **out, sap_error *err);

#endif
