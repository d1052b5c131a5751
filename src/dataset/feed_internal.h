/* Feeds: rows for a network out of memory, in stored order or shuffled. How sap_feed_open_* fill one in. */
#ifndef SAP_FEED_INTERNAL_H
#define SAP_FEED_INTERNAL_H

#include "dataset_internal.h"

/* The rows of one event's sequence, in training order, as computed. */
typedef struct sap_sequence {
    const float *data; /* (rows, width) */
    int64_t rows;
} sap_sequence;

/* One input of the network. */
typedef struct sap_feed_input {
    int64_t values;                /* numbers a row of what is handed out */
    const float *x;                /* (rows, values), ready to hand out; NULL: `sequences` */
    const sap_sequence *sequences; /* (rows) brought into dense form batch by batch */
    const sap_feature *feature;    /* of sequences */
    const sap_constants *constants;
    float *buffer; /* (capacity, values) */
} sap_feed_input;

struct sap_feed {
    sap_run run;
    int64_t rows;
    int32_t input_count;
    sap_feed_input *inputs;
    const int32_t *label;     /* (rows) or NULL */
    const uint64_t *identity; /* (rows) or NULL: the row number */
    int32_t shard_count;      /* rows [shard_begin[s], shard_begin[s + 1]) are shard s */
    int64_t *shard_begin;     /* (shard_count + 1) */

    int64_t *order;   /* (rows) row numbers of this epoch */
    bool shuffled;    /* whether `order` counts */
    int64_t at;       /* rows handed out */
    int64_t capacity; /* rows that the buffers below hold */
    int32_t *label_buffer;
    uint64_t *identity_buffer;
    const float **x; /* (input_count) for sap_examples */
    int64_t *values; /* (input_count) */

    sap_arena arena; /* owns the small arrays above, and what a feed of a dataset holds */
    void **blocks;   /* (block_count) malloc'ed blocks that the feed owns */
    size_t block_count, block_capacity;
};

/* A feed of so many rows and inputs in one shard, all pointers to rows still to be set. */
SAP_MUST_CHECK sap_status sap_feed_init(int64_t rows, int32_t inputs, int32_t shards, const sap_run *run,
                                        sap_feed **out, sap_error *err);
/* Memory that lives as long as the feed, not zeroed; NULL when there is none. */
void *sap_feed_alloc(sap_feed *feed, size_t count, size_t size);

/* SAP_EMEMORY when so many bytes are too many for what is available (UINT64_MAX: not known). */
SAP_MUST_CHECK sap_status sap_feed_memory(const char *folder, const char *split, uint64_t needed, uint64_t available,
                                          sap_error *err);

/* Fills order[0 … count) with a permutation of 0 … count-1 that the key fixes. */
void sap_permutation(int64_t *order, int64_t count, uint64_t key);

#endif
