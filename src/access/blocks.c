/* Small reads of a remote file, as opening one makes: they come from blocks in memory, so that a few requests bring them all.
 * The first read fetches the beginning of the file and its end together, where ROOT keeps the list of keys, the streamer
 * info and the last written tree. */
#include "access_internal.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    BLOCK = 1 << 16,
    BLOCKS = 128,      /* held at most */
    SMALL = 2 * BLOCK, /* longer reads are not rounded to blocks, but still served from them */
    TAIL = 8 * BLOCK,
    NEAR = 4,     /* blocks: a read so far behind one that is held goes on from there */
    LONGEST = 16, /* blocks read for one small read that goes on */
    KEPT = TAIL + SMALL > LONGEST *BLOCK ? TAIL + SMALL : LONGEST *BLOCK /* of longer ones nothing is held */
};

typedef struct block {
    uint64_t index;
    uint64_t used; /* when; 0: empty */
    uint8_t *data;
} block;

struct sap_blocks {
    pthread_mutex_t lock;
    uint64_t clock;
    uint64_t ahead; /* blocks read at the last miss: doubled as long as reads go on, since they will again */
    block blocks[BLOCKS];
};

sap_blocks *sap_blocks_open(void) {
    sap_blocks *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    pthread_mutex_init(&b->lock, NULL);
    b->ahead = 1;
    return b;
}

void sap_blocks_close(sap_blocks *b) {
    if (!b)
        return;
    for (size_t i = 0; i < BLOCKS; i++)
        free(b->blocks[i].data);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static block *find_block(sap_blocks *b, uint64_t index) {
    for (size_t i = 0; i < BLOCKS; i++) {
        if (b->blocks[i].used > 0 && b->blocks[i].index == index)
            return &b->blocks[i];
    }
    return NULL;
}

/* Whether all blocks of the range are here; then it is copied out of them. Called with the lock. */
static bool copy_out(sap_blocks *b, const sap_range *range) {
    uint64_t end = range->offset + range->length;
    if (range->length > (size_t)BLOCKS * BLOCK)
        return false;
    for (uint64_t i = range->offset / BLOCK; i * BLOCK < end; i++) {
        if (!find_block(b, i))
            return false;
    }
    for (size_t done = 0; done < range->length;) {
        uint64_t at = range->offset + done;
        block *from = find_block(b, at / BLOCK);
        size_t skip = at % BLOCK, part = BLOCK - skip;
        part = part < range->length - done ? part : range->length - done;
        memcpy((char *)range->data + done, from->data + skip, part);
        from->used = ++b->clock;
        done += part;
    }
    return true;
}

/* Keeps a copy in place of the block not used for longest; nothing when memory is short. Called with the lock. */
static void copy_in(sap_blocks *b, uint64_t index, const uint8_t *data, size_t length) {
    block *place = find_block(b, index);
    if (place)
        return;
    place = &b->blocks[0];
    for (size_t i = 1; i < BLOCKS; i++) {
        if (b->blocks[i].used < place->used)
            place = &b->blocks[i];
    }
    if (!place->data)
        place->data = malloc(BLOCK);
    if (!place->data)
        return;
    memcpy(place->data, data, length);
    place->index = index;
    place->used = ++b->clock;
}

static sap_range to_blocks(uint64_t size, uint64_t offset, uint64_t length) {
    uint64_t begin = offset - offset % BLOCK, end = offset + length;
    end += (BLOCK - end % BLOCK) % BLOCK;
    return (sap_range){begin, (size_t)((end < size ? end : size) - begin), NULL};
}

/* How many blocks a small read that misses brings. Called with the lock. */
static uint64_t look_ahead(sap_blocks *b, uint64_t offset) {
    bool goes_on = false;
    for (uint64_t i = 1; i <= NEAR && i <= offset / BLOCK; i++)
        goes_on = goes_on || find_block(b, offset / BLOCK - i);
    b->ahead = !goes_on ? 1 : b->ahead < LONGEST ? 2 * b->ahead : LONGEST;
    return b->ahead;
}

/* wanted: what is not here, whole blocks for the small ones, and behind them what the first read takes along. */
static size_t list_wanted(const sap_range *ranges, size_t count, uint64_t size, uint64_t ahead, bool first,
                          sap_range *wanted) {
    for (size_t i = 0; i < count; i++) {
        uint64_t length = ranges[i].length, left = size - ranges[i].offset;
        length = length < ahead * BLOCK ? ahead * BLOCK : length;
        wanted[i] =
            ranges[i].length <= SMALL ? to_blocks(size, ranges[i].offset, length < left ? length : left) : ranges[i];
    }
    if (!first)
        return count;
    uint64_t tail = size < TAIL ? size : TAIL;
    wanted[count] = to_blocks(size, 0, size < BLOCK ? size : BLOCK);
    wanted[count + 1] = to_blocks(size, size - tail, tail);
    return count + 2;
}

/* Keeps the whole blocks of what was fetched; the last of the file is whole though shorter. */
static void keep_blocks(sap_blocks *b, uint64_t size, const sap_fetch *fetch, const sap_range *wanted, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t end = wanted[i].offset + wanted[i].length;
        if (wanted[i].length > KEPT) /* data rather than description: it would drive the rest out */
            continue;
        for (uint64_t at = (wanted[i].offset + BLOCK - 1) / BLOCK * BLOCK; at < end; at += BLOCK) {
            uint64_t length = size - at < BLOCK ? size - at : BLOCK;
            if (length <= end - at)
                copy_in(b, at / BLOCK, sap_fetch_data(fetch, i) + (at - wanted[i].offset), (size_t)length);
        }
    }
}

static sap_status fetch_missing(sap_blocks *b, sap_source *source, const sap_range *missing, size_t count,
                                uint64_t ahead, bool first, const sap_run *run, sap_error *err) {
    sap_fetch *fetch = NULL;
    sap_range *wanted = malloc((count + 2) * sizeof *wanted);
    if (!wanted)
        return sap_error_memory(err, sap_source_name(source));
    size_t wanted_count = list_wanted(missing, count, sap_source_size(source), ahead, first, wanted);
    sap_status status = sap_fetch_start(source, wanted, wanted_count, &fetch, err);
    if (status == SAP_OK)
        status = sap_fetch_wait(fetch, run, err);
    if (status == SAP_OK) {
        for (size_t i = 0; i < count; i++)
            memcpy(missing[i].data, sap_fetch_data(fetch, i) + (missing[i].offset - wanted[i].offset),
                   missing[i].length);
        pthread_mutex_lock(&b->lock);
        keep_blocks(b, sap_source_size(source), fetch, wanted, wanted_count);
        pthread_mutex_unlock(&b->lock);
    }
    sap_fetch_close(fetch);
    free(wanted);
    return status;
}

sap_status sap_blocks_read(sap_blocks *b, sap_source *source, const sap_range *ranges, size_t count, const sap_run *run,
                           sap_error *err) {
    sap_range *missing = malloc((count ? count : 1) * sizeof *missing);
    if (!missing)
        return sap_error_memory(err, sap_source_name(source));
    size_t n = 0;
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].length > 0 && !copy_out(b, &ranges[i]))
            missing[n++] = ranges[i];
    }
    bool first = b->clock == 0 && n > 0 && missing[0].length <= SMALL;
    uint64_t ahead = n == 1 && !first ? look_ahead(b, missing[0].offset) : 1;
    pthread_mutex_unlock(&b->lock);
    sap_status status = n > 0 ? fetch_missing(b, source, missing, n, ahead, first, run, err) : SAP_OK;
    free(missing);
    return status;
}
