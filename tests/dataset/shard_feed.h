/* A feed of some shards of rows in memory. */
#ifndef SHARD_FEED_H
#define SHARD_FEED_H

#include <sapwood/dataset.h>

/* examples: all rows, in as many equal shards as a dataset has, with labels, identities and one input; borrowed until the feed is closed.
 * NULL: out of memory. */
sap_feed *shard_feed_open(const sap_examples *examples, int32_t from, int32_t to);

#endif
