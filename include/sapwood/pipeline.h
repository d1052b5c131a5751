/* The stages as the command line, pipeline files and Python know them: options by name, a result as JSON.
 *
 * One table of options serves the three surfaces:
 *
 *     sap_stage *stage;
 *     sap_stage_open("prepare", &stage, &err);
 *     sap_stage_set(stage, "sample", "qcd=qcd.root", &err);   (may be given again)
 *     sap_stage_set(stage, "out", "data", &err);
 *     sap_stage_run(stage, &run, &err);
 *     puts(sap_stage_result(stage));
 *     sap_stage_close(stage);
 */
#ifndef SAPWOOD_PIPELINE_H
#define SAPWOOD_PIPELINE_H

#include <sapwood/recipe.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sap_stage sap_stage;

typedef enum sap_option_kind {
    SAP_OPTION_TEXT,
    SAP_OPTION_INPUT,  /* a path that is read */
    SAP_OPTION_OUTPUT, /* a path that is written */
    SAP_OPTION_SAMPLE, /* NAME=FILE: patterns allowed */
    SAP_OPTION_RECIPE, /* a built-in recipe's name, or the path of a C file */
    SAP_OPTION_COUNT,  /* a whole number >= 0 */
    SAP_OPTION_REAL,   /* a number >= 0 */
    SAP_OPTION_CHOICE, /* one of `choices` */
    SAP_OPTION_SWITCH  /* "true" or "false" */
} sap_option_kind;

typedef struct sap_option {
    const char *name; /* "sample", used as --sample and as a key in pipeline files */
    sap_option_kind kind;
    const char *argument; /* "NAME=FILE" for help; NULL: a switch */
    const char *help;
    const char *standard; /* default, as text, or NULL */
    const char *choices;  /* "a|b|c", or NULL */
    bool repeats;
    bool required;
} sap_option;

/* "prepare", "train", "evaluate", "predict". NULL after the last. Static. */
SAP_API const char *const *sap_stage_names(void);
/* One line on what a stage does. Static; NULL: no such stage. */
SAP_API const char *sap_stage_help(const char *name);
/* Its options. Static. */
SAP_API const sap_option *sap_stage_options(const char *name, size_t *count);

SAP_API SAP_MUST_CHECK sap_status sap_stage_open(const char *name, sap_stage **out, sap_error *err);
SAP_API void sap_stage_close(sap_stage *stage);

/* Gives an option. Unknown names list the nearest ones; values are checked here as far as they can be. */
SAP_API SAP_MUST_CHECK sap_status sap_stage_set(sap_stage *stage, const char *name, const char *value, sap_error *err);
/* Whether all options that are required were given. */
SAP_API SAP_MUST_CHECK sap_status sap_stage_check(const sap_stage *stage, sap_error *err);
/* Whether Python does it, with these options: report, and train where the engine is TensorFlow. */
SAP_API bool sap_stage_is_external(const sap_stage *stage);
SAP_API SAP_MUST_CHECK sap_status sap_stage_run(sap_stage *stage, const sap_run *run, sap_error *err);

/* JSON text of what the run gave: counts, paths, figures. Borrowed until the stage is closed; NULL before it ran. */
SAP_API const char *sap_stage_result(const sap_stage *stage);

/* ---- Features, for programs that spread the work themselves --------------------------------------------------- */

/* Features of a ROOT file, batch by batch. Belongs to one thread. */
typedef struct sap_features sap_features;

typedef struct sap_features_options {
    const sap_recipe *recipe;
    const char *url;
    const char *tree;      /* NULL: the recipe's */
    int64_t piece, pieces; /* only the clusters of piece number `piece` of so many about equal ones; 0: all */
} sap_features_options;

/* run: its cancel flag is obeyed and its pool computes; it is copied. Options are borrowed during the call, the recipe for as long
 * as the features are. */
SAP_API SAP_MUST_CHECK sap_status sap_features_open(const sap_features_options *options, const sap_run *run,
                                                    sap_features **out, sap_error *err);
SAP_API void sap_features_close(sap_features *features);
/* The next batch as sap_recipe_run makes them, with at least one event; empty (length 0) at the end. `out` must be empty. */
SAP_API SAP_MUST_CHECK sap_status sap_features_next(sap_features *features, sap_batch *out, sap_error *err);
/* Entries read so far; what each of the recipe's cuts dropped of them (cut_count), borrowed until it is closed. */
SAP_API int64_t sap_features_read_entries(const sap_features *features, const int64_t **dropped);

/* The recipe on events that came from elsewhere: a struct array whose columns are named as the recipe's inputs. Integers may be of
 * any width as long as the values fit; nulls are errors. The array stays the caller's. Entries are numbered from 0. */
SAP_API SAP_MUST_CHECK sap_status sap_features_compute(const sap_recipe *recipe, const struct ArrowSchema *schema,
                                                       const struct ArrowArray *array, const char *where,
                                                       const sap_run *run, sap_batch *out, int64_t *dropped,
                                                       sap_error *err);

/* A recipe as JSON, which the caller frees: "recipe", "recipe_version" (of a C file with the hash of its text: "1 (0123456789abcdef)"),
 * "convention", "features", "cuts" as in dataset.json, and "tree", "inputs" ("name", "type", "jagged"). */
SAP_API SAP_MUST_CHECK sap_status sap_recipe_json(const char *name_or_path, const sap_recipe *recipe, char **out,
                                                  sap_error *err);

/* ---- Scoring ------------------------------------------------------------------------------------------------- */

/* A trained network and the constants of its inputs, from the folder that `train` wrote (model.keras, dataset.json). Belongs to
 * one thread. run: its pool computes, borrowed until the scorer is closed; may be NULL. */
typedef struct sap_scorer sap_scorer;
SAP_API SAP_MUST_CHECK sap_status sap_scorer_open(const char *folder, const sap_run *run, sap_scorer **out,
                                                  sap_error *err);
SAP_API void sap_scorer_close(sap_scorer *scorer);
SAP_API int64_t sap_scorer_classes(const sap_scorer *scorer);
/* Names of the features that it reads. Borrowed. */
SAP_API const char *const *sap_scorer_inputs(const sap_scorer *scorer, size_t *count);
/* A struct array with these features as lists of float32, as computed, or (ordered) sequences in training order. scores: (rows,
 * classes). */
SAP_API SAP_MUST_CHECK sap_status sap_scorer_run(sap_scorer *scorer, const struct ArrowSchema *schema,
                                                 const struct ArrowArray *array, bool ordered, float *scores,
                                                 sap_error *err);

/* ---- Whole pipelines --------------------------------------------------------------------------------------- */

/* Called before a stage runs and after it ended or was skipped (its inputs, options and Sapwood's version did not change). */
typedef struct sap_pipeline_event {
    const char *stage;
    bool started, skipped;
    const char *result; /* JSON after its end, else NULL */
} sap_pipeline_event;

typedef struct sap_pipeline_options {
    const char *path;   /* the YAML file; relative paths in it are relative to its folder, outputs to `folder` */
    const char *folder; /* where outputs go; NULL: the file's own key "folder", else "out" beside it */
    bool force;         /* run every stage */
    /* Runs a stage that Python does (sap_stage_is_external). arguments: (count) "--name", "value", …; may be
     * NULL: such a stage is then an error. */
    sap_status (*external)(void *context, const char *stage, const char *const *arguments, size_t count,
                           sap_error *err);
    void (*on_event)(void *context, const sap_pipeline_event *event); /* may be NULL */
    void *context;
} sap_pipeline_options;

SAP_API SAP_MUST_CHECK sap_status sap_pipeline_run(const sap_pipeline_options *options, const sap_run *run,
                                                   sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
