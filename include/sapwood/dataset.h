/* Training sets: a folder of Parquet or TFRecord files and one `dataset.json` that says all about it.
 *
 * Features are stored as computed (float32). What a training set needs besides (scaling constants, labels, the
 * recipe, the seed, the counts of the selection) stands in dataset.json and is applied when the set is read; only the
 * "published" layout stores scaled values. Everything random is decided by hashes of the seed and of an event's identity, which is
 * (sample, base name of its file, entry): never by order, path, threads or machines. See docs/datasets.md.
 */
#ifndef SAPWOOD_DATASET_H
#define SAPWOOD_DATASET_H

#include <sapwood/column.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SAP_DATASET_SHARDS 64 /* virtual shards that a split is cut into */

/* ---- Writing --------------------------------------------------------------------------------------------- */

typedef enum sap_dataset_format {
    SAP_DATASET_PARQUET = 0,
    SAP_DATASET_TFRECORD,
    SAP_DATASET_ARROW /* Arrow's IPC files, uncompressed: what is read once, such as rows on their way to a rank */
} sap_dataset_format;

typedef enum sap_dataset_layout {
    SAP_LAYOUT_SAPWOOD = 0, /* train/ and test/ of part files, and dataset.json */
    SAP_LAYOUT_RAW,         /* features as computed, in file order: no scaling, padding, balance or split */
    SAP_LAYOUT_PUBLISHED,   /* the folders and columns that the notebooks of arXiv:1909.10389 read; values scaled */
    SAP_LAYOUT_FILES        /* files of others, read by their columns: see sap_dataset_open_files; not written */
} sap_dataset_layout;

/* An input file of a sample. */
typedef struct sap_dataset_input {
    const char *sample; /* "qcd"; labels are the samples in the order in which they first occur */
    const char *url;
} sap_dataset_input;

/* Everything that decides what a dataset holds. All borrowed during sap_dataset_create. */
typedef struct sap_dataset_plan {
    const sap_dataset_input *inputs; /* a file may occur more than once */
    size_t input_count;
    const sap_feature *features;
    size_t feature_count;
    const char *const *cuts; /* names of the steps of the selection, after "read" */
    size_t cut_count;
    const char *recipe, *recipe_version, *convention; /* for dataset.json; convention may be NULL */
    sap_dataset_format format;
    sap_dataset_layout layout;
    uint64_t seed;
    double test_fraction; /* 0.2 */
    bool balance;         /* thin the larger classes to the smallest one's size */
} sap_dataset_plan;

typedef struct sap_dataset_writer sap_dataset_writer;

/* Starts `folder`.partial/, or takes up what an interrupted call with an equal plan left there (the plan includes the inputs'
 * sizes and times; another plan is refused). An existing `folder` is an error. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_create(const char *folder, const sap_dataset_plan *plan,
                                                     sap_dataset_writer **out, sap_error *err);
/* Leaves `folder`.partial/ as it is, to be taken up again, unless finished. */
SAP_API void sap_dataset_writer_close(sap_dataset_writer *writer);

/* Whether input number `index` is whole already, from an earlier call. */
SAP_API bool sap_dataset_has_input(const sap_dataset_writer *writer, size_t index);

/* Features of input `index`, in entry order: columns named as the features, and "entry" (int64), as sap_recipe_run makes them.
 * Inputs are given one after another. NaN or infinity in a feature is SAP_EDATA, with file, entry and feature. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_write(sap_dataset_writer *writer, size_t index, const sap_batch *batch,
                                                    sap_error *err);
/* Input `index` is whole. read: entries read; dropped: (cut_count). */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_end_input(sap_dataset_writer *writer, size_t index, int64_t read,
                                                        const int64_t *dropped, sap_error *err);

/* Thins, splits, fits the constants, shuffles, writes the part files and dataset.json, and renames the folder. A sample
 * without events is SAP_EDATA (not for raw). */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_finish(sap_dataset_writer *writer, const sap_run *run, sap_error *err);

/* ---- Writing by many processes ------------------------------------------------------------------------------
 *
 * The same work in pieces, for Spark and whatever else spreads it. One process creates the writer and hands its plan round. Any
 * number of others pack features of any parts of inputs into pieces of bytes, each for one of SAP_DATASET_BUCKETS; one process a
 * bucket gets all pieces for it and writes its part files into the same folder; the first one ends the dataset with what those
 * report. Part files and dataset.json are, byte for byte, what one process makes, whoever did what. Not for raw datasets. */

#define SAP_DATASET_BUCKETS (2 * SAP_DATASET_SHARDS) /* the shards of the training part, then those of the test part */

/* As sap_dataset_create, with a plan as JSON: "recipe", "recipe_version", "convention", "features" and "cuts" as sap_recipe_json gives
 * them, "inputs" ("sample", "url"), "format", "layout", "seed", "test_fraction", "balance". folder NULL: nothing will be written, only
 * constants are wanted. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_create_json(const char *folder, const char *plan,
                                                          sap_dataset_writer **out, sap_error *err);
/* The writer's plan as JSON. Borrowed until it is closed; NULL: out of memory. */
SAP_API const char *sap_dataset_plan_json(sap_dataset_writer *writer);

typedef struct sap_dataset_packer sap_dataset_packer;
SAP_API SAP_MUST_CHECK sap_status sap_dataset_packer_open(const char *plan, sap_dataset_packer **out, sap_error *err);
SAP_API void sap_dataset_packer_close(sap_dataset_packer *packer);
/* As sap_dataset_write, inputs in any order. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_pack(sap_dataset_packer *packer, size_t index, const sap_batch *batch,
                                                   sap_error *err);
/* The same with a struct array that has a column of float32 lists for each feature, and "entry"; it stays the caller's. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_pack_arrow(sap_dataset_packer *packer, size_t index,
                                                         const struct ArrowSchema *schema,
                                                         const struct ArrowArray *array, sap_error *err);
/* Adds to what was read of input `index` and what each cut dropped (cut_count). */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_pack_counts(sap_dataset_packer *packer, size_t index, int64_t read,
                                                          const int64_t *dropped, sap_error *err);
/* Takes out a piece for `*bucket`: `*data` (bytes) is borrowed until the next call on the packer; `*bytes` 0: there is none now. Call
 * until then after each batch: pieces come once there are 32 MB of rows; and with `last` at the end, when every bucket gets one
 * more, with the counts. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_packer_next(sap_dataset_packer *packer, bool last, int32_t *bucket,
                                                          const void **data, size_t *bytes, sap_error *err);

/* One bucket. folder: of the dataset, as this process sees it; NULL: it is only reported. */
typedef struct sap_dataset_shard sap_dataset_shard;
SAP_API SAP_MUST_CHECK sap_status sap_dataset_shard_open(const char *folder, const char *plan, int32_t bucket,
                                                         sap_dataset_shard **out, sap_error *err);
SAP_API void sap_dataset_shard_close(sap_dataset_shard *shard);
/* Copies a piece, in any order. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_shard_add(sap_dataset_shard *shard, const void *data, size_t bytes,
                                                        sap_error *err);
/* Once, when all packers' pieces are in. It may run more than once for a bucket, even at the same time. `*report` is JSON, which the
 * caller frees. constants: NULL; for the published layout, which needs them before it can write, the first call only reports and
 * a second one, of another sap_dataset_shard, gets what sap_dataset_fit_shards gave. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_shard_write(sap_dataset_shard *shard, const char *constants,
                                                          const sap_run *run, char **report, sap_error *err);

/* Makes the folders that shards write to, before any does. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_begin_shards(sap_dataset_writer *writer, sap_error *err);
/* What dataset.json will say, with the constants, from the reports of all buckets; the caller frees it. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_fit_shards(sap_dataset_writer *writer, const char *const *reports,
                                                         size_t count, char **description, sap_error *err);
/* Takes the place of sap_dataset_finish. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_finish_shards(sap_dataset_writer *writer, const char *const *reports,
                                                            size_t count, sap_error *err);

/* ---- Reading --------------------------------------------------------------------------------------------- */

typedef struct sap_dataset sap_dataset;

/* Reads the folder's dataset.json; part files are opened when they are read, so that a folder with nothing but a copy of
 * dataset.json (a trained model's) can be opened for its features, labels and constants. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_open(const char *folder, sap_dataset **out, sap_error *err);
SAP_API void sap_dataset_close(sap_dataset *dataset);

/* A network's input, to be found among the columns of files that have no dataset.json. */
typedef struct sap_files_input {
    const char *name;   /* the feature's, in the dataset that is opened */
    const char *column; /* NULL: the column of that name, else the only one that has as many numbers a row */
    int64_t rows;       /* of a sequence, padded with zero rows; -1: not known; 0: a plain feature */
    int32_t width;      /* numbers; of a sequence, in a row */
} sap_files_input;

/* Zeroed fields take their defaults. */
typedef struct sap_files_options {
    const sap_files_input *inputs; /* (input_count) */
    size_t input_count;
    const char *label;  /* column of one-hot labels, or of class numbers from 0; NULL: "encoded_label" */
    int64_t classes;    /* that class numbers are of; 0: labels are one-hot */
    const char *weight; /* column of one number, which becomes a feature for sap_feed_options.weight; NULL: none */
    const char *const
        *labels; /* (label_count) names of the classes; NULL: those of a dataset.json in the folder, else numbers */
    size_t label_count;
    const char *validation; /* file, folder or pattern of the part "test"; NULL: see below */
} sap_files_options;

/* Opens Parquet or TFRecord files as they are: columns of numbers, lists (flat or nested) or Spark's vectors, values scaled already
 * and labels one-hot. path: a file, a folder of files, or a pattern, all of which become the part "all"; or a folder of tables called
 * train… and test…, which become these parts (of several, the first that has all columns). Zero rows at the end of a sequence are
 * padding and are dropped. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_open_files(const char *path, const sap_files_options *options,
                                                         sap_dataset **out, sap_error *err);

/* All borrowed until the dataset is closed. */
SAP_API const char *sap_dataset_folder(const sap_dataset *dataset);
SAP_API sap_dataset_layout sap_dataset_get_layout(const sap_dataset *dataset);
SAP_API size_t sap_dataset_feature_count(const sap_dataset *dataset);
SAP_API const sap_feature *sap_dataset_feature(const sap_dataset *dataset, size_t index);
SAP_API size_t sap_dataset_label_count(const sap_dataset *dataset);
SAP_API const char *sap_dataset_label(const sap_dataset *dataset, size_t index);
/* split: "train", "test", or "all" for a raw one. -1: no such split. */
SAP_API int64_t sap_dataset_rows(const sap_dataset *dataset, const char *split);
/* Text of dataset.json. */
SAP_API const char *sap_dataset_json(const sap_dataset *dataset);

/* Whether rows of sequences are stored in training order (not in a raw dataset). */
SAP_API bool sap_dataset_is_ordered(const sap_dataset *dataset);

/* Stored events, part file by part file in stored order: all features as computed, unscaled, and the columns "label" (int32),
 * "sample", "file" (strings) and "entry" (int64). `out` must be empty; the caller releases it. */
SAP_API size_t sap_dataset_part_count(const sap_dataset *dataset, const char *split);
SAP_API SAP_MUST_CHECK sap_status sap_dataset_read_part(const sap_dataset *dataset, const char *split, size_t part,
                                                        const sap_run *run, sap_batch *out, sap_error *err);

/* Features as a network sees them, with the constants of `dataset`: a struct array that has those called `names` (count) as lists of
 * float32, as computed, or (ordered) sequences in training order. `out`, which must be empty, gets a list of float32 for each: scaled,
 * in training order, only real rows, but the dense form where padding is more than zero rows at the end. Names are borrowed for as
 * long as `out`. */
SAP_API SAP_MUST_CHECK sap_status sap_dataset_scale(const sap_dataset *dataset, const struct ArrowSchema *schema,
                                                    const struct ArrowArray *array, bool ordered,
                                                    const char *const *names, size_t count, const sap_run *run,
                                                    sap_batch *out, sap_error *err);

/* ---- Events that others hold -------------------------------------------------------------------------------
 *
 * For those who keep rows elsewhere, such as Spark, and put them where a dataset would. */

/* Names and numbers of events, as Arrow has them: text i is bytes [offsets[i], offsets[i + 1]). */
typedef struct sap_event_names {
    int64_t count;
    const int64_t *sample_offsets, *file_offsets; /* (count + 1) */
    const char *samples, *files;                  /* files: a path's or URL's base name counts */
    const int64_t *entry;                         /* (count) */
} sap_event_names;

/* Where each event stands: in the test part or not, in shard order[i] >> 58, by rising order[i]. order, test: (count). */
SAP_API SAP_MUST_CHECK sap_status sap_event_places(const sap_event_names *names, uint64_t seed, double test_fraction,
                                                   uint64_t *order, bool *test, sap_error *err);

/* What constants are made of, for `rows` of `width` values, in order: out (4, width) gets minimum, maximum, mean and sum of squared
 * differences from it. */
SAP_API SAP_MUST_CHECK sap_status sap_event_moments(const float *values, int64_t rows, int32_t width, double *out,
                                                    sap_error *err);
/* The constants of a feature from the moments of its rows, (count, 4, width), merged in the order given: that of the shards makes them those
 * of `prepare`. rows: (count); shift, factor: (width). */
SAP_API SAP_MUST_CHECK sap_status sap_event_constants(sap_scaling scaling, const int64_t *rows, const double *moments,
                                                      size_t count, int32_t width, double *shift, double *factor,
                                                      sap_error *err);

/* ---- Feeding: rows for a network, scaled ------------------------------------------------------------------ */

/* Rows of examples for a network. From a feed all arrays are borrowed until the next call on it. */
typedef struct sap_examples {
    int64_t rows;
    int32_t inputs;
    const float *const *x; /* (inputs) arrays (rows, values[i]); ragged: (offsets[i][rows], values[i]), the steps of all
                              rows one after another */
    const int64_t *values; /* (inputs) numbers a row, or a step where ragged */
    const int64_t *const *offsets; /* (inputs) NULL or (rows + 1) first step of each row, offsets[i][0] = 0; `offsets`
                                      itself may be NULL: nothing is ragged */
    const int64_t *pad_rows;       /* (inputs) steps of a ragged input's dense form, 0: it has none; NULL: all 0 */
    const int32_t *label;          /* (rows) class number of a model with one output, -1: not known; NULL: see y */
    const uint64_t *identity;      /* (rows) hash of the event's identity: keys random numbers; NULL: the row number */
    int32_t targets;               /* outputs that y is for; 0: `label` */
    const float *const *y; /* (targets) arrays (rows, target_values[o]): probabilities, values, or class numbers for
                                 sparse losses */
    const int64_t *target_values; /* (targets) */
    const float *weight;          /* (rows) of each row in the loss; NULL: 1 */
    int64_t batch_rows;           /* rows of the whole batch, which these are a share of; 0: they are all of it */
} sap_examples;

/* Where rows for a network come from: in stored order or shuffled, batch after batch. Belongs to one thread; the threads of the
 * run that it was opened with gather the next batches while the caller works on one. */
typedef struct sap_feed sap_feed;

/* Examples from arrays of the caller's, borrowed until the feed is closed. run may be NULL; its pool is borrowed as long. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_open_arrays(const sap_examples *examples, const sap_run *run, sap_feed **out,
                                                       sap_error *err);

/* Examples from some rows of such arrays, which are chosen: (count) their numbers, borrowed as well. A fold of a cross-validation,
 * say: many feeds stand on the same arrays. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_open_rows(const sap_examples *examples, const int64_t *chosen, int64_t count,
                                                     const sap_run *run, sap_feed **out, sap_error *err);

/* What a feed of a dataset hands out. Zeroed fields take their defaults. */
typedef struct sap_feed_options {
    const char *const *inputs; /* (input_count) names of features, in the order of the network's inputs */
    size_t input_count;
    const char *weight; /* a plain feature of one number: as stored, the weight of each event in the loss; NULL: 1 */
    uint64_t memory;    /* bytes that rows may take in memory; 0: SAPWOOD_FEED_MEMORY ("4G"), else half of what is free.
                            More rows are kept, scaled, in a file without a name in `scratch`, which takes as much disk */
    const char *scratch;          /* folder; NULL: SAPWOOD_SCRATCH, else TMPDIR, else /var/tmp */
    int32_t shard_from, shard_to; /* holds these shards alone, [from, to), and reads no other part files; both 0: all */
} sap_feed_options;

/* Examples of a split, features scaled. Rows come in the same order from memory and from a scratch file. A feed of some shards
 * hands out its share of every batch, so that feeds of all shards together hand out what one feed of the whole split does. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_open_dataset(const sap_dataset *dataset, const char *split,
                                                        const sap_feed_options *options, const sap_run *run,
                                                        sap_feed **out, sap_error *err);
/* Examples from features that sap_recipe_run made (ordered false: sequences are ordered here) or that
 * sap_dataset_read_part gave (ordered true for an ordered dataset), with the constants of `dataset`: a folder's own, or
 * those of the copy of dataset.json that `train` keeps beside a model. The batch is borrowed until the feed is closed. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_open_batch(const sap_dataset *dataset, const sap_batch *batch, bool ordered,
                                                      const char *const *inputs, size_t count, const sap_run *run,
                                                      sap_feed **out, sap_error *err);
SAP_API void sap_feed_close(sap_feed *feed);
/* Rows of an epoch, and those of them that the feed itself holds. */
SAP_API int64_t sap_feed_rows(const sap_feed *feed);
SAP_API int64_t sap_feed_own_rows(const sap_feed *feed);
/* Virtual shards of the whole: 1, or SAP_DATASET_SHARDS. begin: (shards + 1) in stored order, of the rows that the feed holds, may be
 * NULL; borrowed until it is closed. */
SAP_API int32_t sap_feed_shards(const sap_feed *feed, const int64_t **begin);

/* Hands out sequences in their dense form (pad_rows, width) instead of ragged, from the next epoch on. Sequences whose padding is
 * not zero rows at the end (scaled with the padding, or ordered with it) always are dense. Ragged arrays without pad_rows have no
 * dense form: SAP_EARGUMENT. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_dense(sap_feed *feed, sap_error *err);

#define SAP_EPOCH_OWN (-1)    /* the rows that the feed holds, in stored order, as if there were no others */
#define SAP_EPOCH_STORED (-2) /* all rows in stored order */
/* Starts an epoch in the order that (seed, epoch) fix, the same for any number of threads, or one of the two above. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_epoch(sap_feed *feed, uint64_t seed, int64_t epoch, sap_error *err);
/* Rows (all that the feed holds) in the order in which this epoch hands them out, numbered in stored order, for those who hold the rows
 * themselves; NULL: stored order. Borrowed until the next epoch. */
SAP_API const int64_t *sap_feed_order(const sap_feed *feed);
/* Leaves out the next `rows` rows of the epoch without reading them. */
SAP_API void sap_feed_skip(sap_feed *feed, int64_t rows);
/* The next `rows` rows of the epoch, fewer at the end: of them those that the feed holds, and in batch_rows how many they are in all, 0 after
 * the end. After an error the same examples are tried again. */
SAP_API SAP_MUST_CHECK sap_status sap_feed_next(sap_feed *feed, int64_t rows, sap_examples *out, sap_error *err);

/* The shard of each of the rows handed out last. out: (rows). */
SAP_API void sap_feed_last_shards(const sap_feed *feed, uint8_t *out);

/* ---- Tables ------------------------------------------------------------------------------------------------ */

/* A Parquet file, written aside and renamed when whole. Columns may be primitive, strings, lists and fixed-size lists. */
typedef struct sap_table_writer sap_table_writer;
SAP_API SAP_MUST_CHECK sap_status sap_table_create(const char *path, const sap_field *fields, int32_t count,
                                                   sap_table_writer **out, sap_error *err);
/* Appends a batch, which becomes empty. */
SAP_API SAP_MUST_CHECK sap_status sap_table_write(sap_table_writer *writer, sap_batch *batch, sap_error *err);
SAP_API SAP_MUST_CHECK sap_status sap_table_finish(sap_table_writer *writer, sap_error *err);
/* Deletes what was written, unless finished. */
SAP_API void sap_table_writer_close(sap_table_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
