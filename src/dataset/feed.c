/* Feeds: the order of an epoch, and rows gathered into batches. */
#include "feed_internal.h"

#include <stdlib.h>

enum { LOOK_AHEAD = 16 }; /* rows whose memory is asked for before it is copied */

sap_status sap_feed_init(int64_t rows, int32_t inputs, int32_t shards, const sap_run *run, sap_feed **out,
                         sap_error *err) {
    sap_feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return sap_error_memory(err, "feed");
    if (run)
        feed->run = *run;
    feed->rows = rows;
    feed->input_count = inputs;
    feed->shard_count = shards;
    size_t count = (size_t)inputs;
    feed->inputs = sap_arena_array(&feed->arena, count, sizeof *feed->inputs);
    feed->x = sap_arena_array(&feed->arena, count, sizeof *feed->x);
    feed->values = sap_arena_array(&feed->arena, count, sizeof *feed->values);
    feed->shard_begin = sap_arena_array(&feed->arena, (size_t)shards + 1, sizeof *feed->shard_begin);
    if (!feed->inputs || !feed->x || !feed->values || !feed->shard_begin) {
        sap_feed_close(feed);
        return sap_error_memory(err, "feed");
    }
    feed->shard_begin[shards] = rows;
    *out = feed;
    return SAP_OK;
}

void *sap_feed_alloc(sap_feed *feed, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) ||
        !sap_grow((void **)&feed->blocks, &feed->block_capacity, feed->block_count, sizeof *feed->blocks))
        return NULL;
    void *block = malloc(bytes ? bytes : 1);
    if (block)
        feed->blocks[feed->block_count++] = block;
    return block;
}

void sap_feed_close(sap_feed *feed) {
    if (!feed)
        return;
    for (size_t i = 0; i < feed->block_count; i++)
        free(feed->blocks[i]);
    free(feed->blocks);
    for (int32_t i = 0; feed->inputs && i < feed->input_count; i++)
        free(feed->inputs[i].buffer);
    free(feed->label_buffer);
    free(feed->identity_buffer);
    free(feed->order);
    sap_arena_release(&feed->arena);
    free(feed);
}

sap_status sap_feed_open_arrays(const sap_examples *examples, sap_feed **out, sap_error *err) {
    if (examples->rows < 0 || examples->inputs < 1 || !examples->x || !examples->values)
        return sap_error_set(err, SAP_EARGUMENT, "examples: %lld rows of %d inputs cannot be fed",
                             (long long)examples->rows, (int)examples->inputs);
    for (int32_t i = 0; i < examples->inputs; i++)
        if (examples->values[i] < 1 || (!examples->x[i] && examples->rows > 0))
            return sap_error_set(err, SAP_EARGUMENT, "examples: input %d has no values", (int)i);
    sap_feed *feed;
    SAP_TRY(sap_feed_init(examples->rows, examples->inputs, 1, NULL, &feed, err));
    for (int32_t i = 0; i < examples->inputs; i++) {
        feed->inputs[i].values = examples->values[i];
        feed->inputs[i].x = examples->x[i];
    }
    feed->label = examples->label;
    feed->identity = examples->identity;
    *out = feed;
    return SAP_OK;
}

int64_t sap_feed_rows(const sap_feed *feed) {
    return feed->rows;
}

/* ---- The order of an epoch -------------------------------------------------------------------------------- */

/* A number in [0, bound); its bias is below bound / 2^64. */
static int64_t draw(uint64_t key, int64_t counter, int64_t bound) {
    return (int64_t)(((unsigned __int128)sap_mix(key, (uint64_t)counter) * (uint64_t)bound) >> 64);
}

void sap_permutation(int64_t *order, int64_t count, uint64_t key) {
    for (int64_t i = 0; i < count; i++) { /* Fisher-Yates, inside out */
        int64_t j = draw(key, i, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* The shard that each row of the epoch comes from: a permutation of as many copies of s as shard s has rows. */
static void draw_shards(const sap_feed *feed, uint8_t *turns, uint64_t key) {
    for (int32_t s = 0; s < feed->shard_count; s++)
        memset(turns + feed->shard_begin[s], s, (size_t)(feed->shard_begin[s + 1] - feed->shard_begin[s]));
    for (int64_t i = feed->rows - 1; i > 0; i--) {
        int64_t j = draw(key, i, i + 1);
        uint8_t turn = turns[i];
        turns[i] = turns[j];
        turns[j] = turn;
    }
}

/* Every shard in an order of its own, taken in turns: together a permutation of all rows, each as likely as any other,
 * and whoever owns some of the shards can tell which rows of every batch are its own from the shards' sizes alone. */
static sap_status shuffle(sap_feed *feed, uint64_t key, sap_error *err) {
    if (feed->shard_count == 1) {
        sap_permutation(feed->order, feed->rows, sap_mix(key, 0));
        return SAP_OK;
    }
    int64_t *within = malloc((size_t)feed->rows * sizeof *within);
    uint8_t *turns = malloc((size_t)feed->rows);
    int64_t next[SAP_DATASET_SHARDS];
    if (!within || !turns) {
        free(within);
        free(turns);
        return sap_error_memory(err, "order of an epoch");
    }
    for (int32_t s = 0; s < feed->shard_count; s++) {
        int64_t begin = feed->shard_begin[s];
        sap_permutation(within + begin, feed->shard_begin[s + 1] - begin, sap_mix(key, (uint64_t)s));
        next[s] = begin;
    }
    draw_shards(feed, turns, sap_mix(key, SAP_DATASET_SHARDS));
    for (int64_t i = 0; i < feed->rows; i++) {
        int32_t s = turns[i];
        feed->order[i] = feed->shard_begin[s] + within[next[s]++];
    }
    free(within);
    free(turns);
    return SAP_OK;
}

sap_status sap_feed_epoch(sap_feed *feed, uint64_t seed, int64_t epoch, sap_error *err) {
    feed->at = 0;
    feed->shuffled = false;
    if (epoch < 0 || feed->rows == 0)
        return SAP_OK;
    if (!feed->order)
        feed->order = malloc((size_t)feed->rows * sizeof *feed->order);
    if (!feed->order)
        return sap_error_memory(err, "order of an epoch");
    SAP_TRY(shuffle(feed, sap_mix(sap_mix(seed, SAP_SALT_EPOCH), (uint64_t)epoch), err));
    feed->shuffled = true;
    return SAP_OK;
}

/* ---- Batches ------------------------------------------------------------------------------------------------ */

static bool resize(void *at, int64_t rows, size_t row_bytes) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)rows, row_bytes, &bytes))
        return false;
    void **block = at;
    void *grown = realloc(*block, bytes);
    if (grown)
        *block = grown;
    return grown != NULL;
}

static sap_status make_room(sap_feed *feed, int64_t rows, sap_error *err) {
    if (rows <= feed->capacity)
        return SAP_OK;
    bool made = resize(&feed->label_buffer, rows, sizeof *feed->label_buffer) &&
                resize(&feed->identity_buffer, rows, sizeof *feed->identity_buffer);
    for (int32_t i = 0; made && i < feed->input_count; i++)
        made = resize(&feed->inputs[i].buffer, rows, (size_t)feed->inputs[i].values * sizeof(float));
    if (!made)
        return sap_error_set(err, SAP_EMEMORY, "a batch of %lld rows does not fit in memory", (long long)rows);
    feed->capacity = rows;
    return SAP_OK;
}

/* out: (count, values), rows order[0 … count) of x. Further rows up to `left` come in the next batches. */
static void gather(const float *x, int64_t values, const int64_t *order, int64_t count, int64_t left, float *out) {
    size_t bytes = (size_t)values * sizeof *x;
    for (int64_t i = 0; i < count; i++) {
        if (i + LOOK_AHEAD < left) {
            const char *ahead = (const char *)(x + order[i + LOOK_AHEAD] * values);
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead + (bytes < 64 ? bytes - 1 : 64)); /* the hardware goes on from there */
        }
        memcpy(out + i * values, x + order[i] * values, bytes);
    }
}

/* Labels and identities of the next rows. */
static void gather_labels(sap_feed *feed, const int64_t *order, int64_t count, int64_t left) {
    for (int64_t i = 0; i < count; i++) {
        if (order && i + LOOK_AHEAD < left) {
            int64_t ahead = order[i + LOOK_AHEAD];
            if (feed->label)
                __builtin_prefetch(feed->label + ahead);
            if (feed->identity)
                __builtin_prefetch(feed->identity + ahead);
        }
        int64_t row = order ? order[i] : feed->at + i;
        feed->label_buffer[i] = feed->label ? feed->label[row] : -1;
        feed->identity_buffer[i] = feed->identity ? feed->identity[row] : (uint64_t)row;
    }
}

typedef struct dense_work {
    const sap_feed *feed;
    const sap_feed_input *input;
    int64_t count;
} dense_work;

enum { DENSE_ROWS = 16 }; /* events a step */

static sap_status dense_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    (void)err;
    const dense_work *work = context;
    const sap_feed *feed = work->feed;
    int64_t begin = (int64_t)index * DENSE_ROWS;
    int64_t end = begin + DENSE_ROWS < work->count ? begin + DENSE_ROWS : work->count;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = feed->shuffled ? feed->order[feed->at + i] : feed->at + i;
        const sap_sequence *sequence = &work->input->sequences[row];
        sap_dense(work->input->feature, work->input->constants, sequence->data, sequence->rows,
                  work->input->buffer + i * work->input->values);
    }
    return SAP_OK;
}

sap_status sap_feed_next(sap_feed *feed, int64_t rows, sap_examples *out, sap_error *err) {
    int64_t left = feed->rows - feed->at;
    int64_t count = rows < left ? rows : left;
    if (rows < 1)
        return sap_error_set(err, SAP_EARGUMENT, "a batch of %lld rows", (long long)rows);
    SAP_TRY(make_room(feed, count, err));
    const int64_t *order = feed->shuffled ? feed->order + feed->at : NULL;
    for (int32_t i = 0; i < feed->input_count; i++) {
        sap_feed_input *input = &feed->inputs[i];
        feed->values[i] = input->values;
        feed->x[i] = input->buffer;
        if (input->sequences) {
            dense_work work = {feed, input, count};
            SAP_TRY(sap_loop(&feed->run, (size_t)((count + DENSE_ROWS - 1) / DENSE_ROWS), dense_step, &work, err));
        } else if (order) {
            gather(input->x, input->values, order, count, left, input->buffer);
        } else if (input->x) {
            feed->x[i] = input->x + feed->at * input->values;
        }
    }
    gather_labels(feed, order, count, left);
    feed->at += count;
    *out = (sap_examples){.rows = count,
                          .inputs = feed->input_count,
                          .x = feed->x,
                          .values = feed->values,
                          .label = feed->label_buffer,
                          .identity = feed->identity_buffer};
    return SAP_OK;
}
