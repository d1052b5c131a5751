/* Recipes: event selection and features, written in C.
 *
 * A recipe names the columns that it reads, the features that it writes, and the cuts that an event can fail. Its
 * `events` function looks at a range of events and, for each, either counts the cut that dropped it or keeps it
 * with its features. `sapwood prepare --recipe my.c` compiles such a file; it needs this header and nothing to link.
 *
 *     #include <sapwood/recipe.h>
 *     static sap_status events(const sap_recipe_call *call, sap_error *err) { … }
 *     const sap_recipe *sap_recipe_define(void) { static const sap_recipe recipe = {…}; return &recipe; }
 *
 * `events` is called from several threads at once, for different ranges; it must not keep state between calls. Results
 * are put together in entry order, so they do not depend on the number of threads. See examples/ and docs/recipes.md.
 */
#ifndef SAPWOOD_RECIPE_H
#define SAPWOOD_RECIPE_H

#include <sapwood/column.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SAP_RECIPE_ABI 1

/* A column that must exist with exactly this type: `type` itself (jagged false, one value an event), or a list of it. */
typedef struct sap_recipe_input {
    const char *name;
    sap_type type; /* a primitive type */
    bool jagged;
} sap_recipe_input;

/* One feature of one event, as given to `keep`. */
typedef struct sap_recipe_value {
    const float *data; /* (count) */
    int64_t count;     /* feature.width, or for a sequence feature.width · rows */
} sap_recipe_value;

/* One call: events [0, count) of a piece of one file. */
typedef struct sap_recipe_call {
    int64_t count;             /* events */
    int64_t first_entry;       /* entry number of event 0 in its tree */
    const sap_column *columns; /* one an input, in the order of `sap_recipe.inputs` */
    const void *settings;      /* what `configure` made, or NULL */
    void *sink;                /* Sapwood's */

    /* Event `event` was dropped at cut number `cut` (index into `sap_recipe.cuts`). */
    void (*drop)(void *sink, int64_t event, int32_t cut);
    /* Event `event` is kept; values: one a feature, in the order of `sap_recipe.features`, copied. Events come in rising
     * order. */
    SAP_MUST_CHECK sap_status (*keep)(void *sink, int64_t event, const sap_recipe_value *values, sap_error *err);
    /* The file is wrong in event `event`. Returns SAP_EFORMAT for `events` to return; the message gets file, tree and entry. */
    sap_status (*fail)(void *sink, int64_t event, sap_error *err, const char *what);
} sap_recipe_call;

typedef struct sap_recipe {
    uint32_t abi;     /* SAP_RECIPE_ABI */
    const char *name; /* one word */
    const char *version;
    const char *tree; /* tree to read when the user names none; NULL: the only one in the file */
    const sap_recipe_input *inputs;
    size_t input_count;
    const sap_feature *features;
    size_t feature_count;
    const char *const *cuts; /* what an event must pass, in order, in a few words each */
    size_t cut_count;

    /* Optional. Chooses a variant, for instance the topology recipe's conventions "paper" and "corrected"; `convention` is NULL when
     * the user gave none. Returns the recipe of that variant, or NULL when there is no such one. */
    const struct sap_recipe *(*variant)(const char *convention);
    const char *const *conventions; /* names of the variants, the default first, NULL after the last; or NULL */
    const char *convention;         /* which variant this is, or NULL */

    const void *settings; /* passed to `events` */
    SAP_MUST_CHECK sap_status (*events)(const sap_recipe_call *call, sap_error *err);
} sap_recipe;

/* What a recipe file defines. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const sap_recipe *
sap_recipe_define(void);

/* ---- For programs that run recipes (a recipe itself needs nothing below) --------------------------------- */

/* A built-in recipe by name ("topology"), the shared object of one (sap_recipe_build), or a C file by path ("my.c"), which is compiled with the system's C compiler
 * (CC, else cc) into a shared object that is kept under SAPWOOD_CACHE (else ~/.cache/sapwood) by the hash of its contents.
 * convention: a variant, or NULL for the default. `*out` is borrowed for the life of the process.
 * Errors: SAP_ENOTFOUND (the message lists what there is), SAP_EARGUMENT (the compiler's messages, or a definition that
 * makes no sense). */
SAP_API SAP_MUST_CHECK sap_status sap_recipe_find(const char *name_or_path, const char *convention,
                                                  const sap_recipe **out, sap_error *err);

/* Compiles a C file into the shared object `object` (a path that ends with .so) for any machine of this one's architecture, not for this
 * processor alone: for machines without a compiler. sap_recipe_find takes its path. */
SAP_API SAP_MUST_CHECK sap_status sap_recipe_build(const char *path, const char *object, sap_error *err);

/* Checks that `fields` (count) hold what the recipe reads, with its types. where: file and tree, for the message. */
SAP_API SAP_MUST_CHECK sap_status sap_recipe_check(const sap_recipe *recipe, const sap_field *fields, int32_t count,
                                                   const char *where, sap_error *err);

/* Runs the recipe over a batch that holds its inputs (found by name). `out`, which must be empty, gets one column a feature
 * (SAP_FIXED_LIST of float32, or SAP_LIST of float32 for sequences) and the column "entry" (int64), one row a kept event, in
 * entry order whatever the number of threads. dropped: (cut_count) gets added what each cut dropped. */
SAP_API SAP_MUST_CHECK sap_status sap_recipe_run(const sap_recipe *recipe, const sap_batch *batch, const char *where,
                                                 const sap_run *run, sap_batch *out, int64_t *dropped, sap_error *err);

#ifdef __cplusplus
}
#endif

/* Values of a jagged float32 column in one event; `*count` gets their number. */
static inline const float *sap_recipe_floats(const sap_column *column, int64_t event, int32_t *count) {
    int32_t begin = column->offsets[event];
    *count = column->offsets[event + 1] - begin;
    return (const float *)column->children[0].values + begin;
}

/* Values of a jagged int32 column in one event. */
static inline const int32_t *sap_recipe_ints(const sap_column *column, int64_t event, int32_t *count) {
    int32_t begin = column->offsets[event];
    *count = column->offsets[event + 1] - begin;
    return (const int32_t *)column->children[0].values + begin;
}

#endif
