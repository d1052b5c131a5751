/* Which rows of an epoch a feed holds, for those who keep the rows themselves. */
#ifndef SAP_FEED_PLACES_H
#define SAP_FEED_PLACES_H

#include <sapwood/dataset.h>

/* Of the rows before a place in this epoch those that the feed holds. */
int64_t sap_feed_own_before(const sap_feed *feed, int64_t place);
/* The shard that a row, by its number in stored order, is in. */
int32_t sap_feed_shard_of(const sap_feed *feed, int64_t row);

#endif
