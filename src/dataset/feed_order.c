/* The order of an epoch: a permutation of all rows that (seed, epoch) fix.
 *
 * Every shard is put into an order of its own, and rows are drawn from the shards in turns by a random sequence of shard
 * numbers. So whoever owns some of the shards can tell which rows of every batch are its own from the sizes of all shards alone.
 * A shard of more than block_rows rows is shuffled block by block: blocks in random order, then the rows inside each. So
 * what is read from a file comes from as many places as there are shards, whatever the file's size.
 */
#include "feed_internal.h"

#include <stdlib.h>

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

typedef struct shuffling {
    const sap_feed *feed;
    uint64_t key;
    int64_t *within; /* (rows) rows of each shard in its own order, from its first row */
    uint8_t *turns;  /* (all_rows) the shard that each row of the epoch comes from */
} shuffling;

/* out: (count) a shard's rows in order, from `first`. */
static sap_status shuffle_shard(int64_t *out, int64_t first, int64_t count, int64_t block_rows, uint64_t key,
                                sap_error *err) {
    int64_t blocks = (count + block_rows - 1) / block_rows, at = 0;
    int64_t *turn = malloc((size_t)(blocks + 1) * sizeof *turn);
    if (!turn)
        return sap_error_memory(err, "order of an epoch");
    sap_permutation(turn, blocks, sap_mix(key, 0));
    for (int64_t b = 0; b < blocks; b++) {
        int64_t begin = turn[b] * block_rows, rows = count - begin < block_rows ? count - begin : block_rows;
        sap_permutation(out + at, rows, blocks == 1 ? key : sap_mix(key, (uint64_t)turn[b] + 1));
        for (int64_t i = at; i < at + rows; i++)
            out[i] += first + begin;
        at += rows;
    }
    free(turn);
    return SAP_OK;
}

static sap_status shuffle_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    const shuffling *s = context;
    const sap_feed *feed = s->feed;
    int64_t begin = feed->shard_begin[index], count = feed->shard_begin[index + 1] - begin;
    return shuffle_shard(s->within + begin, begin, count, feed->block_rows, sap_mix(s->key, index), err);
}

/* A permutation of as many copies of s as shard s has rows. */
static void draw_shards(const sap_feed *feed, uint8_t *turns, uint64_t key) {
    for (int32_t s = 0; s < feed->shard_count; s++)
        memset(turns + feed->all_begin[s], s, (size_t)(feed->all_begin[s + 1] - feed->all_begin[s]));
    for (int64_t i = feed->all_rows - 1; i > 0; i--) {
        int64_t j = draw(key, i, i + 1);
        uint8_t turn = turns[i];
        turns[i] = turns[j];
        turns[j] = turn;
    }
}

sap_status sap_feed_shuffle(sap_feed *feed, uint64_t key, sap_error *err) {
    shuffling s = {.feed = feed, .key = key, .within = feed->order};
    if (feed->shard_count == 1)
        return shuffle_step(&s, 0, 0, err);
    s.within = malloc((size_t)feed->rows * sizeof *s.within);
    s.turns = malloc((size_t)feed->all_rows);
    sap_status status = s.within && s.turns ? sap_loop(&feed->run, (size_t)feed->shard_count, shuffle_step, &s, err)
                                            : sap_error_memory(err, "order of an epoch");
    if (status == SAP_OK) {
        int64_t next[SAP_DATASET_SHARDS], own = 0;
        memcpy(next, feed->shard_begin, (size_t)feed->shard_count * sizeof *next);
        draw_shards(feed, s.turns, sap_mix(key, SAP_DATASET_SHARDS));
        for (int64_t i = 0; i < feed->all_rows; i++) {
            if (s.turns[i] < feed->shard_from || s.turns[i] >= feed->shard_to)
                continue;
            if (feed->place)
                feed->place[own] = i;
            feed->order[own++] = s.within[next[s.turns[i]]++];
        }
    }
    free(s.within);
    free(s.turns);
    return status;
}
