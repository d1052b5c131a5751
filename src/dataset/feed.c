/* Feeds: opening and closing them, and handing batches out of windows, the next of which is gathered meanwhile. */
#include "feed_internal.h"

#include <stdlib.h>
#include <unistd.h>

sap_status sap_feed_init(int64_t rows, int32_t inputs, int32_t targets, int32_t shards, const sap_run *run,
                         sap_feed **out, sap_error *err) {
    sap_feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return sap_error_memory(err, "feed");
    if (run)
        feed->run = (sap_run){.pool = run->pool, .cancel = run->cancel}; /* progress is the caller's to report */
    feed->rows = feed->all_rows = rows;
    feed->shard_to = shards;
    feed->input_count = inputs;
    feed->target_count = targets;
    feed->shard_count = shards;
    feed->block_rows = INT64_MAX / 2;
    feed->scratch = -1;
    feed->where = "feed";
    size_t x = (size_t)inputs, y = (size_t)targets + 1;
    sap_arena *arena = &feed->arena;
    feed->inputs = sap_arena_array(arena, x, sizeof *feed->inputs);
    feed->y = sap_arena_array(arena, y, sizeof *feed->y);
    feed->x = sap_arena_array(arena, x, sizeof *feed->x);
    feed->values = sap_arena_array(arena, x, sizeof *feed->values);
    feed->offsets = sap_arena_array(arena, x, sizeof *feed->offsets);
    feed->targets = sap_arena_array(arena, y, sizeof *feed->targets);
    feed->target_values = sap_arena_array(arena, y, sizeof *feed->target_values);
    feed->shard_begin = sap_arena_array(arena, (size_t)shards + 1, sizeof *feed->shard_begin);
    feed->all_begin = feed->shard_begin;
    sap_status status = feed->inputs && feed->y && feed->x && feed->values && feed->offsets && feed->targets &&
                                feed->target_values && feed->shard_begin
                            ? SAP_OK
                            : sap_error_memory(err, "feed");
    if (status == SAP_OK)
        status = sap_window_init(feed, &feed->now, arena, err);
    if (status == SAP_OK)
        status = sap_window_init(feed, &feed->next, arena, err);
    if (status != SAP_OK) {
        sap_feed_close(feed);
        return status;
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

/* Ends what is gathered ahead; its window then holds nothing. */
static void drop_windows(sap_feed *feed) {
    sap_status ignored = sap_task_wait(feed->task, NULL);
    (void)ignored;
    feed->task = NULL;
    feed->now.to = feed->now.from;
    feed->next.to = feed->next.from;
}

void sap_feed_close(sap_feed *feed) {
    if (!feed)
        return;
    drop_windows(feed);
    sap_window_release(feed, &feed->now);
    sap_window_release(feed, &feed->next);
    for (size_t i = 0; i < feed->block_count; i++)
        free(feed->blocks[i]);
    free(feed->blocks);
    free(feed->order);
    free(feed->place);
    if (feed->scratch >= 0)
        close(feed->scratch);
    sap_arena_release(&feed->arena);
    free(feed);
}

/* ---- Arrays ------------------------------------------------------------------------------------------------- */

/* pad_rows: the most steps that a row may have; 0: any. */
static sap_status check_offsets(const int64_t *offsets, int64_t rows, int64_t pad_rows, int32_t input, sap_error *err) {
    bool right = offsets[0] == 0;
    for (int64_t i = 0; i < rows && right; i++) {
        right = offsets[i + 1] >= offsets[i];
        if (right && pad_rows > 0 && offsets[i + 1] - offsets[i] > pad_rows)
            return sap_error_set(err, SAP_EARGUMENT, "examples: row %lld of input %d has %lld steps, more than %lld",
                                 (long long)i, (int)input, (long long)(offsets[i + 1] - offsets[i]),
                                 (long long)pad_rows);
    }
    return right
               ? SAP_OK
               : sap_error_set(err, SAP_EARGUMENT, "examples: the offsets of input %d do not rise from 0", (int)input);
}

/* Steps of the dense form of a ragged input; 0: it has none. */
static int64_t padding_of(const sap_examples *e, int32_t input) {
    return e->offsets && e->offsets[input] && e->pad_rows ? e->pad_rows[input] : 0;
}

static sap_status check_arrays(const sap_examples *e, sap_error *err) {
    if (e->rows < 0 || e->inputs < 1 || !e->x || !e->values)
        return sap_error_set(err, SAP_EARGUMENT, "examples: %lld rows of %d inputs cannot be fed", (long long)e->rows,
                             (int)e->inputs);
    for (int32_t i = 0; i < e->inputs; i++) {
        const int64_t *offsets = e->offsets ? e->offsets[i] : NULL;
        if (e->values[i] < 1 || (!e->x[i] && (offsets ? offsets[e->rows] : e->rows) > 0))
            return sap_error_set(err, SAP_EARGUMENT, "examples: input %d has no values", (int)i);
        if (padding_of(e, i) < 0 || padding_of(e, i) > INT32_MAX)
            return sap_error_set(err, SAP_EARGUMENT, "examples: input %d is padded to %lld steps", (int)i,
                                 (long long)padding_of(e, i));
        if (offsets)
            SAP_TRY(check_offsets(offsets, e->rows, padding_of(e, i), i, err));
    }
    if (e->targets < 0 || (e->targets > 0 && (!e->y || !e->target_values)))
        return sap_error_set(err, SAP_EARGUMENT, "examples: %d targets cannot be fed", (int)e->targets);
    for (int32_t i = 0; i < e->targets; i++)
        if (e->target_values[i] < 1 || (!e->y[i] && e->rows > 0))
            return sap_error_set(err, SAP_EARGUMENT, "examples: target %d has no values", (int)i);
    return SAP_OK;
}

/* A feed of `rows` rows of the arrays, which ones is still to be said. */
static sap_status open_arrays(const sap_examples *examples, int64_t rows, const sap_run *run, sap_feed **out,
                              sap_error *err) {
    SAP_TRY(check_arrays(examples, err));
    sap_feed *feed;
    SAP_TRY(sap_feed_init(rows, examples->inputs, examples->targets, 1, run, &feed, err));
    for (int32_t i = 0; i < examples->inputs; i++) {
        const int64_t *offsets = examples->offsets ? examples->offsets[i] : NULL;
        feed->inputs[i] = (sap_feed_input){.values = examples->values[i] * (offsets ? padding_of(examples, i) : 1),
                                           .width = offsets ? examples->values[i] : 0,
                                           .x = examples->x[i],
                                           .offsets = offsets};
    }
    for (int32_t i = 0; i < examples->targets; i++)
        feed->y[i] = (sap_feed_input){.values = examples->target_values[i], .x = examples->y[i]};
    feed->label = examples->label;
    feed->identity = examples->identity;
    feed->weight = examples->weight;
    *out = feed;
    return SAP_OK;
}

sap_status sap_feed_open_arrays(const sap_examples *examples, const sap_run *run, sap_feed **out, sap_error *err) {
    return open_arrays(examples, examples->rows, run, out, err);
}

sap_status sap_feed_open_rows(const sap_examples *examples, const int64_t *chosen, int64_t count, const sap_run *run,
                              sap_feed **out, sap_error *err) {
    bool right = count >= 0 && (chosen || count == 0);
    for (int64_t i = 0; right && i < count; i++)
        right = chosen[i] >= 0 && chosen[i] < examples->rows;
    if (!right)
        return sap_error_set(err, SAP_EARGUMENT, "examples: rows are chosen that the %lld are not among",
                             (long long)examples->rows);
    SAP_TRY(open_arrays(examples, count, run, out, err));
    (*out)->chosen = chosen;
    return SAP_OK;
}

int64_t sap_feed_rows(const sap_feed *feed) {
    return feed->all_rows;
}

int64_t sap_feed_own_rows(const sap_feed *feed) {
    return feed->rows;
}

int32_t sap_feed_shards(const sap_feed *feed, const int64_t **begin) {
    if (begin)
        *begin = feed->shard_begin;
    return feed->shard_count;
}

sap_status sap_feed_dense(sap_feed *feed, sap_error *err) {
    for (int32_t i = 0; i < feed->input_count; i++)
        if (feed->inputs[i].width > 0 && feed->inputs[i].values == 0)
            return sap_error_set(err, SAP_EARGUMENT, "%s: input %d is ragged and has no dense form", feed->where,
                                 (int)i);
    drop_windows(feed);
    for (int32_t i = 0; i < feed->input_count; i++)
        feed->inputs[i].dense = feed->inputs[i].width > 0;
    return SAP_OK;
}

/* ---- Epochs and batches --------------------------------------------------------------------------------------- */

sap_status sap_feed_epoch(sap_feed *feed, uint64_t seed, int64_t epoch, sap_error *err) {
    drop_windows(feed);
    bool shares = feed->rows < feed->all_rows;
    feed->at = feed->given = feed->taken = 0;
    feed->shuffled = false;
    feed->alone = epoch == SAP_EPOCH_OWN;
    if (epoch < 0 || feed->rows == 0)
        return SAP_OK;
    if (!feed->order)
        feed->order = malloc((size_t)feed->rows * sizeof *feed->order);
    if (shares && !feed->place)
        feed->place = malloc((size_t)feed->rows * sizeof *feed->place);
    if (!feed->order || (shares && !feed->place))
        return sap_error_memory(err, "order of an epoch");
    for (int32_t s = 0; feed->advised && s < feed->shard_count; s++)
        feed->advised[s] = -1;
    SAP_TRY(sap_feed_shuffle(feed, sap_mix(sap_mix(seed, SAP_SALT_EPOCH), (uint64_t)epoch), err));
    feed->shuffled = true;
    return SAP_OK;
}

const int64_t *sap_feed_order(const sap_feed *feed) {
    return feed->shuffled ? feed->order : NULL;
}

int64_t sap_feed_epoch_rows(const sap_feed *feed) {
    return feed->alone ? feed->rows : feed->all_rows;
}

int64_t sap_feed_own_before(const sap_feed *feed, int64_t place) {
    if (feed->alone || feed->rows == feed->all_rows)
        return place;
    if (!feed->shuffled) {
        int64_t rows = place - feed->own_first;
        return rows < 0 ? 0 : rows < feed->rows ? rows : feed->rows;
    }
    int64_t low = 0, high = feed->rows;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (feed->place[middle] < place)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void sap_feed_skip(sap_feed *feed, int64_t rows) {
    int64_t left = sap_feed_epoch_rows(feed) - feed->at;
    feed->at += rows < 0 ? 0 : rows < left ? rows : left;
}

/* Whether the window holds whole batches from place `at` of the epoch on. */
static bool holds(const sap_window *window, int64_t at, int64_t batch) {
    return window->batch == batch && at >= window->from && at < window->to && (at - window->from) % batch == 0;
}

/* Sets what the window will hold. */
static void aim(const sap_feed *feed, sap_window *window, int64_t from, int64_t batch) {
    int64_t batches = sap_window_batches(feed, batch), left = sap_feed_epoch_rows(feed) - from;
    *window = (sap_window){.from = from,
                           .to = from + (batches > left / batch ? left : batches * batch),
                           .batch = batch,
                           .begins = window->begins,
                           .inputs = window->inputs,
                           .y = window->y,
                           .labels = window->labels,
                           .identities = window->identities,
                           .weights = window->weights};
}

static sap_status fill_next(void *context, sap_error *err) {
    sap_feed *feed = context;
    return sap_window_fill(feed, &feed->next, err);
}

/* Makes `now` the window that holds row `at`, gathered ahead or gathered here. */
static sap_status advance(sap_feed *feed, int64_t batch, sap_error *err) {
    if (feed->task) {
        sap_status status = sap_task_wait(feed->task, err);
        feed->task = NULL;
        bool wanted = holds(&feed->next, feed->at, batch);
        if (status != SAP_OK || !wanted)
            feed->next.to = feed->next.from;
        if (status != SAP_OK && wanted)
            return status;
        sap_window swap = feed->now;
        feed->now = feed->next;
        feed->next = swap;
    }
    if (!holds(&feed->now, feed->at, batch)) {
        aim(feed, &feed->now, feed->at, batch);
        sap_status status = sap_window_fill(feed, &feed->now, err);
        if (status != SAP_OK) {
            feed->now.to = feed->now.from;
            return status;
        }
    }
    int64_t end = feed->now.to;
    if (end == sap_feed_epoch_rows(feed) || sap_run_threads(&feed->run) < 2 || sap_feed_is_direct(feed))
        return SAP_OK;
    aim(feed, &feed->next, end, batch);
    sap_status status = sap_task_start(&feed->run, fill_next, feed, &feed->task, err);
    if (status != SAP_OK)
        feed->next.to = feed->next.from;
    return status;
}

static void point_at_targets(const sap_feed *feed, int64_t skip) {
    for (int32_t i = 0; i < feed->target_count; i++) {
        feed->target_values[i] = feed->y[i].values;
        feed->targets[i] = feed->now.y[i].x + skip * feed->y[i].values;
    }
}

/* Points at a batch of the window. Returns whether anything of it is ragged. */
static bool point_at_inputs(const sap_feed *feed, int64_t batch) {
    const sap_window *window = &feed->now;
    int64_t skip = window->begin[batch];
    bool ragged = false;
    for (int32_t i = 0; i < feed->input_count; i++) {
        const sap_feed_input *input = &feed->inputs[i];
        const sap_window_input *from = &window->inputs[i];
        if (input->width > 0 && !input->dense) {
            feed->values[i] = input->width;
            feed->offsets[i] = from->offset + skip + batch;
            feed->x[i] = from->x + from->start[batch] * input->width;
            ragged = true;
        } else {
            feed->values[i] = input->values;
            feed->offsets[i] = NULL;
            feed->x[i] = from->x + skip * input->values;
        }
    }
    return ragged;
}

sap_status sap_feed_next(sap_feed *feed, int64_t rows, sap_examples *out, sap_error *err) {
    if (rows < 1)
        return sap_error_set(err, SAP_EARGUMENT, "a batch of %lld rows", (long long)rows);
    int64_t all = sap_feed_epoch_rows(feed), left = all - feed->at, count = rows < left ? rows : left;
    *out = (sap_examples){.inputs = feed->input_count, .targets = feed->target_count, .batch_rows = count};
    out->x = feed->x;
    out->values = feed->values;
    if (count == 0)
        return SAP_OK;
    if (rows > all)
        rows = all;
    if (!holds(&feed->now, feed->at, rows))
        SAP_TRY(advance(feed, rows, err));
    int64_t batch = (feed->at - feed->now.from) / rows, skip = feed->now.begin[batch];
    out->rows = feed->now.begin[batch + 1] - skip;
    feed->given = feed->now.first + skip;
    feed->taken = feed->given + out->rows;
    if (point_at_inputs(feed, batch))
        out->offsets = feed->offsets;
    point_at_targets(feed, skip);
    out->label = feed->now.label ? feed->now.label + skip : NULL;
    out->identity = feed->now.identity + skip;
    out->weight = feed->now.weight ? feed->now.weight + skip : NULL;
    if (feed->target_count > 0) {
        out->y = feed->targets;
        out->target_values = feed->target_values;
    }
    feed->at += count;
    return SAP_OK;
}

void sap_feed_last_shards(const sap_feed *feed, uint8_t *out) {
    for (int64_t i = feed->given; i < feed->taken; i++)
        out[i - feed->given] = (uint8_t)sap_feed_shard_of(feed, feed->shuffled ? feed->order[i] : i);
}
