/* Ranges on their way: what the cache does not hold is planned and sent; local files are read when they are waited for. */
#include "access_internal.h"

#include <stdlib.h>

struct sap_fetch {
    sap_source *source;
    sap_range *ranges; /* as they were asked for; data: where they are, once they were waited for */
    size_t count;
    sap_range *held; /* blocks from the cache, rising; their memory is the fetch's */
    size_t held_count, held_capacity;
    sap_plan plan;        /* the rest */
    sap_channel *channel; /* NULL: local */
    sap_flight *flight;
    sap_space local;  /* memory of a local source's pieces */
    uint8_t **joined; /* memory of ranges that lie across pieces */
    size_t joined_count, joined_capacity;
    bool ready;
};

/* ---- Starting -------------------------------------------------------------------------------------------------- */

/* Takes from the cache what it has; *missing: the blocks that it has not. */
static sap_status take_cached(sap_fetch *f, sap_plan *missing, sap_error *err) {
    sap_cache *cache = sap_source_cache(f->source);
    const sap_plan_limits one_block_each = {.size = sap_source_size(f->source),
                                            .align = SAP_CACHE_BLOCK,
                                            .piece_bytes = SAP_CACHE_BLOCK,
                                            .request = {.ranges = 1}};
    SAP_TRY(sap_plan_init(missing, f->ranges, f->count, &one_block_each, err));
    uint64_t cached = 0;
    size_t kept = 0;
    sap_status status = SAP_OK;
    for (size_t i = 0; i < missing->piece_count && status == SAP_OK; i++) {
        sap_range block = missing->pieces[i];
        block.data = malloc(block.length);
        if (!block.data || !sap_grow((void **)&f->held, &f->held_capacity, f->held_count, sizeof *f->held)) {
            status = sap_error_memory(err, sap_source_name(f->source));
        } else if (sap_cache_read(cache, block.offset / SAP_CACHE_BLOCK, block.data, block.length)) {
            f->held[f->held_count++] = block;
            cached += block.length;
            continue;
        }
        free(block.data);
        missing->pieces[kept++] = missing->pieces[i];
    }
    missing->piece_count = kept;
    sap_channel_count(f->channel, 0, cached);
    return status;
}

static sap_status start_remote(sap_fetch *f, sap_error *err) {
    const sap_access_settings *settings = sap_source_settings(f->source);
    const bool cached = sap_source_cache(f->source) != NULL;
    sap_plan_limits limits = {
        .size = sap_source_size(f->source), .align = cached ? SAP_CACHE_BLOCK : 1, .gap = settings->gap_bytes};
    sap_channel_limits(f->channel, &limits.request);
    limits.piece_bytes =
        settings->request_bytes < limits.request.bytes ? settings->request_bytes : limits.request.bytes;
    limits.piece_bytes -= limits.piece_bytes > limits.align ? limits.piece_bytes % limits.align : 0;
    sap_channel_count(f->channel, f->count, 0);
    sap_plan missing = {0};
    sap_status status = cached ? take_cached(f, &missing, err) : SAP_OK;
    if (status == SAP_OK)
        status = sap_plan_init(&f->plan, cached ? missing.pieces : f->ranges, cached ? missing.piece_count : f->count,
                               &limits, err);
    if (status == SAP_OK)
        status = sap_flight_start(f->channel, &f->plan, &f->flight, err);
    sap_plan_release(&missing);
    return status;
}

static sap_status start_local(sap_fetch *f, sap_error *err) {
    const size_t longest = (size_t)1 << 30;
    sap_plan_limits limits = {.size = sap_source_size(f->source),
                              .align = 1,
                              .gap = 0,
                              .piece_bytes = longest,
                              .request = {.ranges = 1, .range_bytes = longest, .bytes = longest}};
    bool mapped = true;
    for (size_t i = 0; i < f->count && mapped; i++) {
        f->ranges[i].data = (void *)(uintptr_t)sap_source_map(f->source, f->ranges[i].offset, f->ranges[i].length);
        mapped = f->ranges[i].data || f->ranges[i].length == 0;
    }
    f->ready = mapped;
    return mapped ? SAP_OK : sap_plan_init(&f->plan, f->ranges, f->count, &limits, err);
}

sap_status sap_fetch_start(sap_source *source, const sap_range *ranges, size_t count, sap_fetch **out, sap_error *err) {
    SAP_TRY(sap_source_check(source, ranges, count, err));
    sap_channel *channel;
    SAP_TRY(sap_source_channel(source, NULL, &channel, err));
    sap_fetch *f = calloc(1, sizeof *f);
    if (f)
        f->ranges = calloc(count ? count : 1, sizeof *ranges);
    if (!f || !f->ranges) {
        free(f);
        return sap_error_memory(err, sap_source_name(source));
    }
    for (size_t i = 0; i < count; i++)
        f->ranges[i] = (sap_range){ranges[i].offset, ranges[i].length, NULL};
    f->count = count;
    f->source = source;
    f->channel = channel;
    sap_status status = channel ? start_remote(f, err) : start_local(f, err);
    if (status != SAP_OK)
        sap_fetch_close(f);
    else
        *out = f;
    return status;
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

static sap_status read_local(sap_fetch *f, sap_error *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < f->plan.piece_count; i++)
        bytes += f->plan.pieces[i].length; /* apart from each other, so no more than the file */
    if (!sap_space_reserve(&f->local, bytes ? bytes : 1))
        return sap_error_memory(err, sap_source_name(f->source));
    uint8_t *data = f->local.data;
    for (size_t i = 0; i < f->plan.piece_count; data += f->plan.pieces[i++].length)
        f->plan.pieces[i].data = data;
    return sap_source_read_local(f->source, f->plan.pieces, f->plan.piece_count, err);
}

/* The piece that holds the byte at `offset`, or NULL. */
static const sap_range *find_piece(const sap_range *pieces, size_t count, uint64_t offset) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pieces[middle].offset + pieces[middle].length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && pieces[low].offset <= offset ? &pieces[low] : NULL;
}

static const sap_range *find_bytes(const sap_fetch *f, uint64_t offset) {
    const sap_range *piece = find_piece(f->plan.pieces, f->plan.piece_count, offset);
    return piece ? piece : find_piece(f->held, f->held_count, offset);
}

static sap_status join(sap_fetch *f, sap_range *range, sap_error *err) {
    if (!sap_grow((void **)&f->joined, &f->joined_capacity, f->joined_count, sizeof *f->joined))
        return sap_error_memory(err, sap_source_name(f->source));
    uint8_t *data = malloc(range->length);
    if (!data)
        return sap_error_memory(err, sap_source_name(f->source));
    f->joined[f->joined_count++] = data;
    range->data = data;
    for (size_t done = 0; done < range->length;) {
        const sap_range *piece = find_bytes(f, range->offset + done);
        size_t skip = (size_t)(range->offset + done - piece->offset), part = piece->length - skip;
        part = part < range->length - done ? part : range->length - done;
        memcpy(data + done, (const uint8_t *)piece->data + skip, part);
        done += part;
    }
    return SAP_OK;
}

/* Where every range is; those that lie across pieces are put together. */
static sap_status place_ranges(sap_fetch *f, sap_error *err) {
    uint64_t joined = 0;
    for (size_t i = 0; i < f->count; i++) {
        sap_range *range = &f->ranges[i];
        if (range->length == 0)
            continue;
        const sap_range *piece = find_bytes(f, range->offset);
        uint64_t skip = range->offset - piece->offset;
        if (range->length <= piece->length - skip) {
            range->data = (uint8_t *)piece->data + skip;
            continue;
        }
        joined += range->length;
        if (joined > sap_source_size(f->source)) /* each byte once is all that sound metadata ask for */
            return sap_error_set(err, SAP_EFORMAT,
                                 "%s @0x%llx: ranges that overlap are wanted, together longer than the file",
                                 sap_source_name(f->source), (unsigned long long)range->offset);
        SAP_TRY(join(f, range, err));
    }
    return SAP_OK;
}

static void keep_in_cache(const sap_fetch *f) {
    sap_cache *cache = sap_source_cache(f->source);
    for (size_t i = 0; cache && i < f->plan.piece_count; i++) {
        const sap_range *piece = &f->plan.pieces[i];
        for (size_t at = 0; at < piece->length; at += SAP_CACHE_BLOCK) {
            size_t left = piece->length - at;
            sap_cache_write(cache, (piece->offset + at) / SAP_CACHE_BLOCK, (const uint8_t *)piece->data + at,
                            left < SAP_CACHE_BLOCK ? left : SAP_CACHE_BLOCK);
        }
    }
}

static sap_status wait_remote(sap_fetch *f, const sap_run *run, sap_error *err) {
    if (!sap_channel_is_ours(f->channel)) { /* started before fork(): once more, on the child's own connection */
        sap_flight_close(f->flight);
        f->flight = NULL;
        SAP_TRY(sap_source_channel(f->source, run, &f->channel, err));
        SAP_TRY(sap_flight_start(f->channel, &f->plan, &f->flight, err));
    }
    SAP_TRY(sap_flight_wait(f->flight, run, err));
    keep_in_cache(f);
    return SAP_OK;
}

sap_status sap_fetch_wait(sap_fetch *f, const sap_run *run, sap_error *err) {
    if (f->ready)
        return SAP_OK;
    SAP_TRY(sap_run_check(run, err));
    SAP_TRY(f->channel ? wait_remote(f, run, err) : read_local(f, err));
    SAP_TRY(place_ranges(f, err));
    f->ready = true;
    return SAP_OK;
}

const uint8_t *sap_fetch_data(const sap_fetch *f, size_t index) {
    static const uint8_t nothing[1];
    return !f->ready || index >= f->count ? NULL : f->ranges[index].length ? f->ranges[index].data : nothing;
}

void sap_fetch_close(sap_fetch *f) {
    if (!f)
        return;
    sap_flight_close(f->flight);
    sap_plan_release(&f->plan);
    for (size_t i = 0; i < f->held_count; i++)
        free(f->held[i].data);
    for (size_t i = 0; i < f->joined_count; i++)
        free(f->joined[i]);
    free(f->held);
    free(f->joined);
    sap_space_release(&f->local);
    free(f->ranges);
    free(f);
}
