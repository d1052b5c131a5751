/* What the files of the dataset module share: identities, dataset.json, the spool, part files, the dense form. */
#ifndef SAP_DATASET_INTERNAL_H
#define SAP_DATASET_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/dataset.h>

#include <jansson.h>

/* ---- Identities: what every random choice hangs on ---------------------------------------------------------- */

/* Hash of (sample, base name of the file, entry). */
uint64_t sap_identity(const char *sample, const char *file, int64_t entry);

/* Each choice mixes the identity with a key of its own, sap_mix(seed, salt). */
enum { SAP_SALT_THIN = 1, SAP_SALT_SPLIT, SAP_SALT_ORDER, SAP_SALT_EPOCH };

enum { SAP_BUCKETS = SAP_DATASET_BUCKETS };

static inline int32_t sap_shard_of(uint64_t order) {
    return (int32_t)(order >> 58);
}

/* Bytes that this process can have: what the machine has left, and what its control group leaves of that; UINT64_MAX: not
 * known. */
uint64_t sap_memory_available(void);

/* ---- Constants ------------------------------------------------------------------------------------------------ */

/* How one feature's values are scaled: x' = (x - shift[i]) * factor[i] for value i of its width; both (width). */
typedef struct sap_constants {
    int32_t width; /* 0: none */
    double *shift, *factor;
} sap_constants;

/* What constants are made of, value by value of a feature's width, over some rows. Merging is associative but for rounding, so
 * partial ones are merged in a fixed order. */
typedef struct sap_moments {
    int64_t rows;
    double *min, *max, *mean;
    double *m2; /* sum of squared differences from the mean */
} sap_moments;

SAP_MUST_CHECK sap_status sap_moments_init(sap_moments *moments, int32_t width, sap_arena *arena, sap_error *err);
/* Rows in pieces: piece i has counts[i] rows at rows[i]. `moments` must be fresh. */
void sap_moments_fill(sap_moments *moments, int32_t width, const float *const *rows, const int64_t *counts,
                      size_t pieces);
void sap_moments_merge(sap_moments *into, const sap_moments *from, int32_t width);
/* out: shift and factor are (width) and already there. */
void sap_constants_fit(sap_scaling scaling, const sap_moments *moments, sap_constants *out);

/* ---- Sequences --------------------------------------------------------------------------------------------------- */

enum { SAP_SEQUENCE_MAX_WIDTH = 1024, SAP_SEQUENCE_MAX_ROWS = 1 << 24 }; /* of a dense form */

/* Scratch memory for sap_sequence_sort. Zeroed is empty. */
typedef struct sap_sort_space {
    void *data;
    size_t bytes;
} sap_sort_space;

/* Puts rows (count, width) into the feature's training order; only real rows take part. False: out of memory. */
SAP_MUST_CHECK bool sap_sequence_sort(const sap_feature *feature, float *rows, int64_t count, sap_sort_space *space);

/* The dense form of rows in training order: out is (pad_rows, width), scaled, or (width) scaled for a feature that is no
 * sequence (count is then 1). constants may be NULL where the scaling needs none. */
void sap_dense(const sap_feature *feature, const sap_constants *constants, const float *rows, int64_t count,
               float *out);
/* Scales rows in training order, as sap_dense does, without padding: out is (the returned number of rows, at most pad_rows, width).
 * `out` may be `rows`. For features whose padding is zero rows at the end. */
int64_t sap_ragged(const sap_feature *feature, const sap_constants *constants, const float *rows, int64_t count,
                   float *out);
/* Whether the dense form is more than the rows and zero rows behind them. */
bool sap_feature_is_padded(const sap_feature *feature);
/* Whether scaling it takes constants. */
bool sap_feature_needs_constants(const sap_feature *feature);
/* Numbers a row of the form that networks see. */
int64_t sap_feature_values(const sap_feature *feature);

/* ---- dataset.json ------------------------------------------------------------------------------------------------- */

#define SAP_DATASET_JSON "dataset.json"
#define SAP_DATASET_FORMAT_VERSION 1

typedef struct sap_part {
    const char *file;  /* relative to the dataset's folder */
    const char *path;  /* with it */
    const char *split; /* "train", "test", "all" */
    int32_t shard;     /* 0 for a raw dataset; -1: shards are equal parts of all rows */
    int64_t rows, bytes;
} sap_part;

/* What dataset.json says, as far as reading needs it. */
typedef struct sap_info {
    char *json; /* its text */
    sap_dataset_format format;
    sap_dataset_layout layout;
    bool ordered; /* rows of sequences are in training order */
    sap_feature *features;
    sap_constants *constants; /* (feature_count); width 0: has none */
    size_t feature_count;
    const char **labels;
    size_t label_count;
    sap_part *parts;
    size_t part_count;
    const char **columns;     /* (feature_count) of files of others: where the features are */
    const char *label_column; /* of these */
    sap_arena arena;
} sap_info;

SAP_MUST_CHECK sap_status sap_info_load(const char *path, sap_info *out, sap_error *err);
void sap_info_release(sap_info *info);
/* Reads a list of features as it stands in dataset.json into info->features. where: for messages. */
SAP_MUST_CHECK sap_status sap_info_parse_features(const json_t *list, const char *where, sap_info *info,
                                                  sap_error *err);
/* Index of the feature, or SAP_ENOTFOUND with the nearest names. where: for the message. */
SAP_MUST_CHECK sap_status sap_info_find(const sap_info *info, const char *name, const char *where, size_t *index,
                                        sap_error *err);

const char *sap_layout_name(sap_dataset_layout layout);
const char *sap_format_name(sap_dataset_format format);
json_t *sap_feature_json(const sap_feature *feature);

struct sap_dataset {
    char *folder;
    sap_info info;
};

/* ---- Part files ------------------------------------------------------------------------------------------------------ */

typedef struct sap_part_writer sap_part_writer;

/* ".parquet", ".tfrecord", ".arrow". */
const char *sap_part_ending(sap_dataset_format format);
/* Writes aside (PATH.partial), renames at the end. fields: (count). */
SAP_MUST_CHECK sap_status sap_part_create(const char *path, sap_dataset_format format, const sap_field *fields,
                                          int32_t count, sap_part_writer **out, sap_error *err);
/* Takes the batch, whose columns are the fields. */
SAP_MUST_CHECK sap_status sap_part_write(sap_part_writer *writer, sap_batch *batch, sap_error *err);
/* bytes: of the file; may be NULL. */
SAP_MUST_CHECK sap_status sap_part_finish(sap_part_writer *writer, int64_t *bytes, sap_error *err);
/* Deletes what was written, unless finished. */
void sap_part_writer_close(sap_part_writer *writer);

typedef struct sap_part_reader sap_part_reader;
/* Reads the columns `fields` (count), converted to exactly these types (primitive, string, list or fixed list of float32).
 * rows_at_once: of a batch, at most; 0: as is best. */
SAP_MUST_CHECK sap_status sap_part_open(const char *path, sap_dataset_format format, const sap_field *fields,
                                        int32_t count, int64_t rows_at_once, sap_part_reader **out, sap_error *err);
/* Reads a part of a file of others, fields being those of stored events. */
typedef struct sap_foreign sap_foreign;
SAP_MUST_CHECK sap_status sap_part_open_foreign(const sap_info *info, const sap_part *part, const sap_field *fields,
                                                int32_t count, sap_part_reader **out, sap_error *err);
SAP_MUST_CHECK sap_status sap_foreign_open(const sap_info *info, const sap_part *part, const sap_field *fields,
                                           int32_t count, sap_foreign **out, sap_error *err);
/* The columns to read for it. Borrowed. */
const sap_field *sap_foreign_columns(const sap_foreign *foreign, int32_t *count);
/* Turns a batch of these columns into the fields. */
SAP_MUST_CHECK sap_status sap_foreign_turn(sap_foreign *foreign, sap_batch *batch, sap_error *err);
void sap_foreign_close(sap_foreign *foreign);
/* The next rows, none (length 0) after the last. */
SAP_MUST_CHECK sap_status sap_part_next(sap_part_reader *reader, sap_batch *out, sap_error *err);
void sap_part_close(sap_part_reader *reader);
/* Bytes that the columns take in memory, about. */
uint64_t sap_part_bytes(const sap_part_reader *reader);

/* Copies the features called `names` (count) of a struct array into a batch; the names are borrowed. */
SAP_MUST_CHECK sap_status sap_features_import(const sap_dataset *dataset, const struct ArrowSchema *schema,
                                              const struct ArrowArray *array, const char *const *names, size_t count,
                                              sap_batch *out, sap_error *err);
/* Copies an Arrow struct array into a batch with the columns `fields`, found by name; nulls are refused. */
SAP_MUST_CHECK sap_status sap_arrow_import(const struct ArrowSchema *schema, const struct ArrowArray *array,
                                           const char *where, const sap_field *fields, int32_t count, sap_batch *out,
                                           sap_error *err);

/* A column of numbers in any form (single, lists, lists of lists, Spark's vectors) into a list of float32. */
SAP_MUST_CHECK sap_status sap_arrow_numbers(const struct ArrowSchema *schema, const struct ArrowArray *array,
                                            const char *where, struct sap_storage *storage, sap_column *out,
                                            sap_error *err);
/* Whether it is one of these. */
bool sap_arrow_has_numbers(const struct ArrowSchema *schema);

/* A part in one file or, when it is large, several: STEM.parquet, STEM_001.parquet, … */
typedef struct sap_piece {
    int64_t rows, bytes;
} sap_piece;

typedef struct sap_pieces {
    char *stem; /* path without the ending */
    sap_dataset_format format;
    const char *ending;
    const sap_field *fields;
    int32_t field_count;
    int64_t limit;         /* bytes of values in one file; 0: 256 MB */
    sap_part_writer *part; /* the one being written */
    int64_t part_rows, part_bytes;
    sap_piece *items; /* those that are whole */
    size_t count, capacity;
} sap_pieces;

/* Takes the batch. */
SAP_MUST_CHECK sap_status sap_pieces_write(sap_pieces *pieces, sap_batch *batch, sap_error *err);
SAP_MUST_CHECK sap_status sap_pieces_finish(sap_pieces *pieces, sap_error *err);
void sap_pieces_release(sap_pieces *pieces);
/* Path of piece `index` for a stem. Malloc'ed; NULL: out of memory. */
char *sap_piece_path(const char *stem, const char *ending, size_t index);

/* The columns of stored events: the features, then label, sample, file and entry. Allocated in the arena; NULL: no memory. */
enum { SAP_EVENT_COLUMNS = 4 }; /* besides the features */
sap_field *sap_event_fields(const sap_feature *features, size_t count, sap_arena *arena);

/* ---- Rows on their way in: the spool ---------------------------------------------------------------------------- */

/* A selected event. In a spool file it is followed by its features, one after another: width floats, or for a sequence a
 * 32-bit number of rows and as many times width floats; then zeros up to a multiple of 8 bytes. */
typedef struct sap_row {
    uint64_t order; /* hash: shard, and place in it */
    uint64_t identity;
    int64_t entry;
    uint32_t input;
    uint32_t bytes; /* of the features, with the zeros */
} sap_row;

/* A piece of a spool file: rows by bucket. Bucket b is bytes [offset[b], offset[b + 1]). */
typedef struct sap_segment {
    uint64_t offset[SAP_BUCKETS + 1];
    uint64_t hash[SAP_BUCKETS];
} sap_segment;

/* An input, and what is known of it once it is whole. */
typedef struct sap_spooled {
    const char *sample, *url, *file; /* file: base name */
    int32_t label;
    int64_t size, mtime_ns; /* -1: not known */
    bool whole;
    int64_t read, selected;
    int64_t *dropped;      /* (cut_count) */
    sap_segment *segments; /* malloc'ed */
    size_t segment_count, segment_capacity;
    sap_pieces pieces; /* raw: its part files */
} sap_spooled;

struct sap_dataset_writer {
    char *folder;          /* OUT */
    char *partial;         /* OUT.partial */
    int lock;              /* of OUT.partial/lock, held */
    sap_dataset_plan plan; /* every pointer into `arena` */
    const char **labels;
    size_t label_count;
    sap_spooled *inputs; /* (plan.input_count) */
    sap_field *fields;   /* of stored events */
    uint64_t split_key, order_key, thin_key;
    json_t *plan_json;
    char *plan_text; /* the same, once it was asked for */
    sap_arena arena;

    size_t current;       /* the input being written, SIZE_MAX: none */
    int fd;               /* of its spool file, -1: none */
    uint64_t at;          /* bytes in it */
    int64_t rows;         /* of the input so far */
    size_t segment_bytes; /* a segment is written when it has so many */
    uint64_t memory;      /* bytes that the passes of finishing may hold; 0: half of what is available */
    char *pending;        /* rows that make the next segment */
    size_t pending_bytes, pending_capacity;
    size_t *row_at; /* where in `pending` they begin */
    size_t row_count, row_capacity;
};

/* "OUT.partial/…" in a malloc'ed string; NULL: out of memory. */
char *sap_writer_path(const sap_dataset_writer *writer, const char *format, ...) SAP_PRINTF(2, 3);

/* A writer of a plan, with everything but a folder to write in; look: at the inputs' sizes and times. On failure it is closed. */
SAP_MUST_CHECK sap_status sap_writer_init(const char *folder, const sap_dataset_plan *plan, bool look,
                                          sap_dataset_writer **out, sap_error *err);
/* The same from the plan's JSON. */
SAP_MUST_CHECK sap_status sap_writer_parse(const char *folder, const char *plan, bool look, sap_dataset_writer **out,
                                           sap_error *err);

/* Checks the rows of a batch of input `current` and makes them pending (a raw dataset's are only checked). */
SAP_MUST_CHECK sap_status sap_spool_rows(sap_dataset_writer *writer, const sap_batch *batch, sap_error *err);
/* The pending rows in bucket order, as a segment that begins at writer->at; the caller frees `*out`. */
SAP_MUST_CHECK sap_status sap_spool_sort(sap_dataset_writer *writer, sap_segment *segment, char **out, sap_error *err);

/* Begins, goes on with and ends the spooling (or, for raw, the part files) of input `current`. */
SAP_MUST_CHECK sap_status sap_spool_begin(sap_dataset_writer *writer, size_t index, sap_error *err);
SAP_MUST_CHECK sap_status sap_spool_end(sap_dataset_writer *writer, sap_error *err);
/* Drops what is half done. */
void sap_spool_drop(sap_dataset_writer *writer);
/* Whether an earlier call left input `index` whole; then its record is filled in. */
SAP_MUST_CHECK sap_status sap_spool_find(sap_dataset_writer *writer, size_t index, sap_error *err);

/* The rows of one bucket, in memory. */
typedef struct sap_bucket {
    char *data;
    sap_row **rows; /* in shard order; each followed by its features */
    size_t count;
} sap_bucket;
/* Bytes that it takes. */
uint64_t sap_bucket_bytes(const sap_dataset_writer *writer, int32_t bucket);
SAP_MUST_CHECK sap_status sap_bucket_load(const sap_dataset_writer *writer, int32_t bucket, sap_bucket *out,
                                          sap_error *err);
/* Finds the rows in `out->data` (bytes) and puts them into shard order. */
SAP_MUST_CHECK sap_status sap_bucket_sort(const sap_dataset_writer *writer, size_t bytes, sap_bucket *out,
                                          sap_error *err);
void sap_bucket_release(sap_bucket *bucket);
/* Feature `index` of a row: `*rows` (1 unless a sequence) times width floats. */
float *sap_row_feature(const sap_dataset_plan *plan, const sap_row *row, size_t index, int64_t *rows);

/* ---- Finishing -------------------------------------------------------------------------------------------------------- */

struct sap_build;

/* A table that finishing writes, a part for each bucket. */
typedef struct sap_output {
    const char *folders[2]; /* of the training and the test part, in OUT */
    const char *part;       /* "part-" */
    const char *ending;
    const sap_field *fields;
    int32_t field_count;
    size_t row_bytes; /* of a row as written, where that may be more than in the spool; else 0 */
    /* Makes columns of rows, whose sequences are in training order. */
    sap_status (*fill)(const struct sap_build *build, const struct sap_output *output, sap_row *const *rows,
                       size_t count, sap_batch *out, sap_error *err);
    sap_pieces pieces[SAP_BUCKETS];
} sap_output;

/* What the passes over the buckets find out, and write. */
typedef struct sap_build {
    sap_dataset_writer *writer;
    const sap_run *run;
    const char *place;        /* folder in OUT.partial that parts are written to: "whole" */
    uint64_t *keep;           /* (label_count) a row whose thinning hash is above is left out */
    int64_t *kept;            /* (SAP_BUCKETS, label_count) rows */
    sap_moments *moments;     /* (SAP_BUCKETS, feature_count) */
    sap_constants *constants; /* (feature_count); width 0: none needed */
    sap_output *outputs;
    size_t output_count;
    sap_arena arena;
} sap_build;

/* What takes the place of sap_dataset_finish where each bucket is worked on by a process of its own, in this order. */
SAP_MUST_CHECK sap_status sap_build_init(sap_build *build, sap_error *err); /* once all inputs' counts are known */
SAP_MUST_CHECK sap_status sap_build_clear(const sap_build *build, sap_error *err); /* makes `place`, empty */
SAP_MUST_CHECK sap_status sap_build_bucket(sap_build *build, sap_bucket *bucket, int32_t index, bool fit, bool write,
                                           sap_error *err);
SAP_MUST_CHECK sap_status sap_build_fit(sap_build *build, sap_error *err); /* once all buckets' moments are known */
SAP_MUST_CHECK sap_status sap_build_publish(const sap_build *build, sap_error *err);
void sap_build_release(sap_build *build);

/* The outputs of a layout. */
SAP_MUST_CHECK sap_status sap_events_outputs(sap_build *build, sap_error *err);
SAP_MUST_CHECK sap_status sap_published_outputs(sap_build *build, sap_error *err);

/* The text of dataset.json, malloc'ed; NULL: out of memory. */
char *sap_dataset_description(const sap_build *build);
/* dataset.json of a build, or of a raw dataset (whose build has no passes behind it). */
SAP_MUST_CHECK sap_status sap_dataset_describe(const sap_build *build, const char *path, sap_error *err);

/* ---- Reading part files of a dataset ------------------------------------------------------------------------------------ */

/* Part `index` of a split. Borrowed. */
SAP_MUST_CHECK sap_status sap_dataset_find_part(const sap_dataset *dataset, const char *split, size_t index,
                                                const sap_part **out, sap_error *err);
/* Checks that the part is what dataset.json says, as far as its size tells. */
SAP_MUST_CHECK sap_status sap_dataset_open_part(const sap_dataset *dataset, const sap_part *part,
                                                const sap_field *fields, int32_t count, sap_part_reader **out,
                                                sap_error *err);

/* ---- TFRecord -------------------------------------------------------------------------------------------------------- */

typedef struct sap_tfrecord_writer sap_tfrecord_writer;
/* Writes `path` itself. */
SAP_MUST_CHECK sap_status sap_tfrecord_create(const char *path, sap_tfrecord_writer **out, sap_error *err);
/* A tf.train.Example a row: floats as float_list, integers as int64_list, strings as bytes_list. */
SAP_MUST_CHECK sap_status sap_tfrecord_write(sap_tfrecord_writer *writer, const sap_batch *batch, sap_error *err);
SAP_MUST_CHECK sap_status sap_tfrecord_finish(sap_tfrecord_writer *writer, sap_error *err);
void sap_tfrecord_writer_close(sap_tfrecord_writer *writer);

typedef struct sap_tfrecord_reader sap_tfrecord_reader;
SAP_MUST_CHECK sap_status sap_tfrecord_open(const char *path, const sap_field *fields, int32_t count,
                                            sap_tfrecord_reader **out, sap_error *err);
SAP_MUST_CHECK sap_status sap_tfrecord_next(sap_tfrecord_reader *reader, sap_batch *out, sap_error *err);
void sap_tfrecord_close(sap_tfrecord_reader *reader);
uint64_t sap_tfrecord_bytes(const sap_tfrecord_reader *reader);
/* How many records a file has, by their lengths. */
SAP_MUST_CHECK sap_status sap_tfrecord_count(const char *path, int64_t *rows, sap_error *err);
/* Calls `found` for every feature of the first record that is a list of floats; none when the file is empty. */
SAP_MUST_CHECK sap_status sap_tfrecord_describe(const char *path,
                                                sap_status (*found)(void *context, const char *name, size_t length,
                                                                    int64_t values, sap_error *err),
                                                void *context, sap_error *err);

/* ---- The Parquet plug-in ------------------------------------------------------------------------------------------------ */

/* Exported by libsapwood-parquet.so as `sap_plugin_parquet`. Schemas and arrays are moved in and out as Arrow C Data. */
typedef enum sap_arrow_form {
    SAP_PARQUET_FEATURES, /* numbers that hardly repeat, read as a whole */
    SAP_PARQUET_TABLE,    /* any columns, for any reader */
    SAP_ARROW_FILE        /* Arrow's IPC file format, uncompressed: it can be mapped */
} sap_arrow_form;

typedef struct sap_parquet_table {
    sap_status (*create)(const char *path, sap_arrow_form form, struct ArrowSchema *schema, void **writer,
                         sap_error *err);
    sap_status (*write)(void *writer, struct ArrowArray *array, sap_error *err);
    sap_status (*finish)(void *writer, sap_error *err);
    void (*writer_close)(void *writer);
    /* Parquet or Arrow files. Columns by name; rows_at_once: at most so many a batch, of Parquet. */
    sap_status (*open)(const char *path, const char *const *columns, int32_t count, int64_t rows_at_once, void **reader,
                       sap_error *err);
    /* The next batch; array->release is NULL after the last. */
    sap_status (*next)(void *reader, struct ArrowSchema *schema, struct ArrowArray *array, sap_error *err);
    uint64_t (*bytes)(const void *reader); /* uncompressed, of the columns */
    /* The types of all columns of a file, and how many rows it has. */
    sap_status (*describe)(const char *path, struct ArrowSchema *schema, int64_t *rows, sap_error *err);
    void (*reader_close)(void *reader);
} sap_parquet_table;

#endif
