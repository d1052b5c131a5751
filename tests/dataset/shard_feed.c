#include "shard_feed.h"

#include "dataset/feed_internal.h"

sap_feed *shard_feed_open(const sap_examples *e, int32_t from, int32_t to) {
    sap_feed *feed = NULL;
    if (sap_feed_init(e->rows, 1, e->targets, SAP_DATASET_SHARDS, NULL, &feed, NULL) != SAP_OK)
        return NULL;
    feed->all_begin = sap_arena_array(&feed->arena, SAP_DATASET_SHARDS + 1, sizeof *feed->all_begin);
    for (int64_t s = 0; s <= SAP_DATASET_SHARDS; s++)
        feed->all_begin[s] = s * e->rows / SAP_DATASET_SHARDS;
    int64_t first = feed->all_begin[from], end = feed->all_begin[to];
    for (int32_t s = 0; s <= SAP_DATASET_SHARDS; s++) {
        int64_t begin = feed->all_begin[s];
        feed->shard_begin[s] = (begin < first ? first : begin < end ? begin : end) - first;
    }
    feed->rows = end - first;
    feed->own_first = first;
    feed->shard_from = from;
    feed->shard_to = to;
    feed->inputs[0] = (sap_feed_input){.values = e->values[0], .x = e->x[0] + first * e->values[0]};
    if (e->offsets) {
        int64_t *offsets = sap_feed_alloc(feed, (size_t)feed->rows + 1, sizeof *offsets);
        for (int64_t i = 0; i <= feed->rows; i++)
            offsets[i] = e->offsets[0][first + i] - e->offsets[0][first];
        feed->inputs[0] = (sap_feed_input){
            .width = e->values[0], .x = e->x[0] + e->offsets[0][first] * e->values[0], .offsets = offsets};
    }
    for (int32_t i = 0; i < e->targets; i++)
        feed->y[i] = (sap_feed_input){.values = e->target_values[i], .x = e->y[i] + first * e->target_values[i]};
    feed->label = e->label + first;
    feed->identity = e->identity + first;
    feed->weight = e->weight ? e->weight + first : NULL;
    return feed;
}
