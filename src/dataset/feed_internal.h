/* Feeds: rows for a network out of memory or a scratch file, in stored order or shuffled. How sap_feed_open_* fill one in. */
#ifndef SAP_FEED_INTERNAL_H
#define SAP_FEED_INTERNAL_H

#include "dataset_internal.h"
#include "feed_places.h"

/* The steps of one event's sequence. */
typedef struct sap_sequence {
    union {
        const float *data; /* (rows, width) */
        int64_t at;        /* byte in the scratch file */
    };
    int64_t rows;
} sap_sequence;

/* One input of the network, or one target. */
typedef struct sap_feed_input {
    int64_t values;                /* numbers a row; of a sequence in its dense form, 0: it has none */
    int64_t width;                 /* numbers a step of a sequence; 0: a plain one */
    const float *x;                /* plain: (rows, values) ready to hand out; ragged arrays: the steps of all rows */
    const int64_t *offsets;        /* ragged arrays: (rows + 1) */
    const sap_sequence *sequences; /* (rows) of a dataset's sequences; scaled and cut, unless `padded` */
    bool padded; /* has a dense form only, with more than zero rows behind the end: sap_dense makes it batch by batch */
    bool dense;  /* hand the dense form out */
    bool stored; /* in the scratch file: rows of a plain input from `at` on, sequences where they say */
    int64_t at;
    const sap_feature *feature; /* of a dataset's input */
    const sap_constants *constants;
} sap_feed_input;

/* Gathered values of one input for the batches of a window. */
typedef struct sap_window_input {
    sap_space data, offsets, starts;
    const float *x;  /* plain or dense: (rows, values); ragged: the steps of all rows */
    int64_t *offset; /* ragged: (rows + batches) first step of each row in its batch, and the last one's end */
    int64_t *start;  /* ragged: (batches) first step of each batch */
} sap_window_input;

/* Some batches of the epoch, gathered: places [from, to) of the epoch, whole batches but at its end, and of them the rows that the feed
 * holds, rows [first, first + rows) of its own order. */
typedef struct sap_window {
    int64_t from, to, batch;
    int64_t first, rows;
    int64_t *begin; /* (batches + 1) first row of each batch, from 0 */
    sap_space begins;
    sap_window_input *inputs; /* (input_count) */
    sap_window_input *y;      /* (target_count) */
    sap_space labels, identities, weights;
    const int32_t *label;
    const uint64_t *identity;
    const float *weight;
} sap_window;

struct sap_feed {
    sap_run run;
    int64_t rows;      /* that it holds, shards [shard_from, shard_to) of the whole */
    int64_t all_rows;  /* of the whole */
    int64_t own_first; /* in stored order: the first row that it holds, among all */
    int32_t shard_from, shard_to;
    int32_t input_count, target_count;
    sap_feed_input *inputs, *y;
    const int32_t *label;     /* (rows) or NULL */
    const uint64_t *identity; /* (rows) or NULL: the row number */
    const float *weight;      /* (rows) or NULL */
    int32_t shard_count;      /* rows [shard_begin[s], shard_begin[s + 1]) are shard s */
    int64_t *shard_begin;     /* (shard_count + 1); shards that it does not hold have no rows */
    int64_t *all_begin;       /* (shard_count + 1) the same for all rows; the same array where it holds them all */
    int64_t block_rows;       /* rows of a shard that stay close to each other in an epoch */
    int scratch;              /* file, -1: all is in memory */
    int64_t *advised;         /* (shard_count) block of each shard that was asked for last, with a scratch file */
    const char *where;        /* for messages */

    const int64_t *chosen; /* (rows) which rows of the caller's arrays it holds; NULL: all */

    int64_t *order; /* (rows) row numbers of this epoch */
    int64_t *place; /* (rows) where each of them stands in the epoch; NULL: the feed holds all rows */
    bool shuffled;  /* whether these two count */
    bool alone;     /* the epoch is of its own rows */
    int64_t at;     /* rows of the epoch handed out */
    int64_t given;  /* of the feed's order: the first row handed out last, ending where `taken` says */
    int64_t taken;
    sap_window now;  /* what is handed out of */
    sap_window next; /* what `task` gathers */
    sap_task *task;  /* NULL: none under way */

    const float **x, **targets; /* (input_count), (target_count) for sap_examples */
    int64_t *values, *target_values;
    const int64_t **offsets;

    sap_arena arena; /* owns the small arrays above, and what a feed of a dataset holds */
    void **blocks;   /* (block_count) malloc'ed blocks that the feed owns */
    size_t block_count, block_capacity;
};

/* A feed of so many rows, inputs and targets, all of them in the last shard; all pointers to rows still to be set. */
SAP_MUST_CHECK sap_status sap_feed_init(int64_t rows, int32_t inputs, int32_t targets, int32_t shards,
                                        const sap_run *run, sap_feed **out, sap_error *err);
/* Memory that lives as long as the feed, not zeroed; NULL when there is none. */
void *sap_feed_alloc(sap_feed *feed, size_t count, size_t size);

/* Fills order[0 … count) with a permutation of 0 … count-1 that the key fixes. */
void sap_permutation(int64_t *order, int64_t count, uint64_t key);
/* Fills feed->order, and feed->place where it is wanted, for the epoch that the key stands for. */
SAP_MUST_CHECK sap_status sap_feed_shuffle(sap_feed *feed, uint64_t key, sap_error *err);

/* ---- What feeds of features are made of --------------------------------------------------------------------------- */

/* Sets the inputs of a feed of features; index: (inputs) of each input's feature. */
SAP_MUST_CHECK sap_status sap_feed_set_inputs(sap_feed *feed, const sap_dataset *dataset, const char *const *inputs,
                                              size_t *index, sap_error *err);

/* Room for the rows of all inputs, labels, identities and weights; NULL where it is in the scratch file or not wanted. */
typedef struct sap_feed_room {
    float **x;                /* (inputs) of plain features */
    sap_sequence **sequences; /* (inputs) of sequences */
    int32_t *label;
    uint64_t *identity;
    float *weight;
} sap_feed_room;
SAP_MUST_CHECK sap_status sap_feed_make_room(sap_feed *feed, bool weights, sap_feed_room *out, sap_error *err);

/* Events of one input: what a list column holds of it, and how it goes into the feed. */
typedef struct sap_feed_events {
    const sap_feed_input *input;
    const float *values;    /* of the column's child */
    const int32_t *offsets; /* (count + 1) */
    int64_t count;
    bool sort; /* sequences are not in training order yet */
    bool trim; /* zero rows at the end of a sequence are padding */
    const char *where;
} sap_feed_events;

/* Scales rows of a plain feature; out: (count, values). */
void sap_feed_scale(const sap_feed_input *input, const float *values, int64_t count, float *out);
/* Writes the events' sequences into `out`, which has room for all values, one after another as the feed keeps them; sets the
 * rows of `sequences` (count). Returns how many floats that took through `used`. */
SAP_MUST_CHECK sap_status sap_feed_pack(const sap_feed_events *events, float *out, sap_sequence *sequences,
                                        int64_t *used, sap_error *err);

/* Bytes that rows may take in memory: what was asked for, else SAPWOOD_FEED_MEMORY, else half of what is free. */
SAP_MUST_CHECK sap_status sap_feed_limit(uint64_t asked, uint64_t *limit, sap_error *err);
/* A file without a name in `folder` (NULL: the default one). */
SAP_MUST_CHECK sap_status sap_scratch_open(const char *folder, int *out, sap_error *err);
SAP_MUST_CHECK sap_status sap_scratch_write(int scratch, int64_t at, const void *data, size_t bytes, const char *where,
                                            sap_error *err);
/* Asks the system to read ahead what the feed will want after the window. */
void sap_scratch_advise(const sap_feed *feed, const sap_window *window);

/* Rows of this epoch. */
int64_t sap_feed_epoch_rows(const sap_feed *feed);

/* ---- Windows -------------------------------------------------------------------------------------------------------- */

/* Gathers the rows of a window, whose from, to and batch are set. */
SAP_MUST_CHECK sap_status sap_window_fill(const sap_feed *feed, sap_window *window, sap_error *err);
SAP_MUST_CHECK sap_status sap_window_init(const sap_feed *feed, sap_window *window, sap_arena *arena, sap_error *err);
void sap_window_release(const sap_feed *feed, sap_window *window);
/* Batches of `batch` rows that are best gathered at once. */
int64_t sap_window_batches(const sap_feed *feed, int64_t batch);
/* Whether all that a window holds can be pointed at where it is. */
bool sap_feed_is_direct(const sap_feed *feed);

#endif
