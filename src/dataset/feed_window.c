/* Windows: the rows of some batches of an epoch, gathered from memory or from the scratch file. */
#include "feed_internal.h"

#include <errno.h>

enum {
    LOOK_AHEAD = 16,          /* rows whose memory is asked for before it is copied */
    WINDOW_BYTES = 512 << 10, /* smaller batches are gathered several at once: waking a thread costs too */
    WINDOW_BATCHES = 64,
    STEP_BYTES = 64 << 10 /* that one step of a loop gathers, about */
};

sap_status sap_window_init(const sap_feed *feed, sap_window *window, sap_arena *arena, sap_error *err) {
    window->inputs = sap_arena_array(arena, (size_t)feed->input_count, sizeof *window->inputs);
    window->y = sap_arena_array(arena, (size_t)feed->target_count + 1, sizeof *window->y);
    return window->inputs && window->y ? SAP_OK : sap_error_memory(err, "feed");
}

static void release_input(sap_window_input *input) {
    sap_space_release(&input->data);
    sap_space_release(&input->offsets);
    sap_space_release(&input->starts);
}

void sap_window_release(const sap_feed *feed, sap_window *window) {
    for (int32_t i = 0; window->inputs && i < feed->input_count; i++)
        release_input(&window->inputs[i]);
    for (int32_t i = 0; window->y && i < feed->target_count; i++)
        release_input(&window->y[i]);
    sap_space_release(&window->begins);
    sap_space_release(&window->labels);
    sap_space_release(&window->identities);
    sap_space_release(&window->weights);
}

static bool is_ragged(const sap_feed_input *input) {
    return input->width > 0 && !input->dense;
}

/* Whether it can be pointed at where it is, in stored order. */
static bool is_in_place(const sap_feed_input *input) {
    return !input->stored && !input->sequences && !input->dense;
}

/* Whether rows have to be picked; else they are handed out one after another as they are stored. */
static bool picks(const sap_feed *feed) {
    return feed->shuffled || feed->chosen;
}

bool sap_feed_is_direct(const sap_feed *feed) {
    bool direct = !picks(feed);
    for (int32_t i = 0; i < feed->input_count; i++)
        direct = direct && is_in_place(&feed->inputs[i]);
    return direct;
}

/* Numbers of a row of a ragged array, about. */
static int64_t mean_values(const sap_feed *feed, const sap_feed_input *input) {
    int64_t rows = feed->chosen && feed->rows ? feed->chosen[feed->rows - 1] + 1 : feed->rows;
    return input->offsets[rows] * input->width / (rows ? rows : 1);
}

/* Bytes of a row, about. */
static int64_t row_bytes(const sap_feed *feed) {
    int64_t values = 4;
    for (int32_t i = 0; i < feed->input_count; i++) {
        const sap_feed_input *input = &feed->inputs[i];
        values += !is_ragged(input) ? input->values : input->offsets ? mean_values(feed, input) : input->values / 2;
    }
    for (int32_t i = 0; i < feed->target_count; i++)
        values += feed->y[i].values;
    return values * (int64_t)sizeof(float);
}

int64_t sap_window_batches(const sap_feed *feed, int64_t batch) {
    if (sap_run_threads(&feed->run) < 2 || sap_feed_is_direct(feed))
        return 1;
    int64_t share = feed->alone ? batch : batch * feed->rows / feed->all_rows;
    int64_t batches = WINDOW_BYTES / row_bytes(feed) / (share ? share : 1);
    return batches < 1 ? 1 : batches < WINDOW_BATCHES ? batches : WINDOW_BATCHES;
}

/* ---- Where everything goes ------------------------------------------------------------------------------------ */

/* Row `i` of the window, as a number in the order in which it is stored. */
static int64_t row_at(const sap_feed *feed, const sap_window *w, int64_t i) {
    int64_t row = feed->shuffled ? feed->order[w->first + i] : w->first + i;
    return feed->chosen ? feed->chosen[row] : row;
}

static int64_t steps_of(const sap_feed_input *input, int64_t row) {
    return input->offsets ? input->offsets[row + 1] - input->offsets[row] : input->sequences[row].rows;
}

static sap_status no_room(const sap_window *w, sap_error *err) {
    return sap_error_set(err, SAP_EMEMORY, "a batch of %lld rows does not fit in memory", (long long)w->batch);
}

static bool reserve(sap_space *space, int64_t count, int64_t size) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)size, &bytes))
        return false;
    if (bytes <= space->capacity && bytes > 0)
        return true;
    return sap_space_reserve(space, bytes + bytes / 8 + 1); /* the next window may need a little more */
}

static int64_t batch_count(const sap_window *w) {
    return (w->to - w->from + w->batch - 1) / w->batch;
}

/* The rows of each batch that the feed holds. */
static sap_status lay_out_batches(const sap_feed *feed, sap_window *w, sap_error *err) {
    int64_t batches = batch_count(w);
    if (!reserve(&w->begins, batches + 1, sizeof *w->begin))
        return no_room(w, err);
    w->begin = (int64_t *)(void *)w->begins.data;
    w->first = sap_feed_own_before(feed, w->from);
    for (int64_t b = 0; b <= batches; b++) {
        int64_t place = w->from + b * w->batch;
        w->begin[b] = sap_feed_own_before(feed, place < w->to ? place : w->to) - w->first;
    }
    w->rows = w->begin[batches];
    return SAP_OK;
}

/* Offsets of ragged rows, and room for their steps unless they are in place. */
static sap_status lay_out_ragged(const sap_feed *feed, const sap_window *w, const sap_feed_input *input,
                                 sap_window_input *out, sap_error *err) {
    int64_t batches = batch_count(w), total = 0;
    if (!reserve(&out->offsets, w->rows + batches, sizeof *out->offset) ||
        !reserve(&out->starts, batches, sizeof *out->start))
        return no_room(w, err);
    out->offset = (int64_t *)(void *)out->offsets.data;
    out->start = (int64_t *)(void *)out->starts.data;
    for (int64_t b = 0; b < batches; b++) {
        int64_t first = w->begin[b], rows = w->begin[b + 1] - first, *offset = out->offset + first + b;
        out->start[b] = total;
        offset[0] = 0;
        for (int64_t i = 0; i < rows; i++)
            offset[i + 1] = offset[i] + steps_of(input, row_at(feed, w, first + i));
        total += offset[rows];
    }
    if (!picks(feed) && input->offsets) {
        out->x = input->x + input->offsets[w->first] * input->width;
        return SAP_OK;
    }
    if (!reserve(&out->data, total, input->width * (int64_t)sizeof *out->x))
        return no_room(w, err);
    out->x = (const float *)(const void *)out->data.data;
    return SAP_OK;
}

static sap_status lay_out(const sap_feed *feed, const sap_window *w, const sap_feed_input *input, sap_window_input *out,
                          sap_error *err) {
    if (is_ragged(input))
        return lay_out_ragged(feed, w, input, out, err);
    if (!picks(feed) && is_in_place(input)) {
        out->x = input->x + w->first * input->values;
        return SAP_OK;
    }
    if (!reserve(&out->data, w->rows, input->values * (int64_t)sizeof *out->x))
        return no_room(w, err);
    out->x = (const float *)(const void *)out->data.data;
    return SAP_OK;
}

static sap_status lay_out_rows(const sap_feed *feed, sap_window *w, sap_error *err) {
    bool copies = picks(feed);
    w->label = copies || !feed->label ? NULL : feed->label + w->first;
    w->weight = copies || !feed->weight ? NULL : feed->weight + w->first;
    w->identity = copies || !feed->identity ? NULL : feed->identity + w->first;
    if ((!w->identity && !reserve(&w->identities, w->rows, sizeof *w->identity)) ||
        (copies && feed->label && !reserve(&w->labels, w->rows, sizeof *w->label)) ||
        (copies && feed->weight && !reserve(&w->weights, w->rows, sizeof *w->weight)))
        return no_room(w, err);
    for (int32_t i = 0; i < feed->input_count; i++)
        SAP_TRY(lay_out(feed, w, &feed->inputs[i], &w->inputs[i], err));
    for (int32_t i = 0; i < feed->target_count; i++)
        SAP_TRY(lay_out(feed, w, &feed->y[i], &w->y[i], err));
    if (copies && feed->label)
        w->label = (const int32_t *)(const void *)w->labels.data;
    if (copies && feed->weight)
        w->weight = (const float *)(const void *)w->weights.data;
    return SAP_OK;
}

/* ---- Copying ---------------------------------------------------------------------------------------------------- */

typedef struct gathering {
    const sap_feed *feed;
    sap_window *window;
    int64_t step_rows;
} gathering;

static sap_status read_scratch(const sap_feed *feed, int64_t at, int64_t values, float *out, sap_error *err) {
    size_t bytes = (size_t)values * sizeof *out;
    if (sap_descriptor_read(feed->scratch, out, bytes, (uint64_t)at) == bytes)
        return SAP_OK;
    return errno ? sap_error_errno(err, feed->where)
                 : sap_error_set(err, SAP_EIO, "%s: the scratch file has become shorter", feed->where);
}

/* Rows [begin, end) of the window; out: (rows, values) of the whole window. */
static sap_status copy_plain(const gathering *g, const sap_feed_input *input, int64_t begin, int64_t end, float *out,
                             sap_error *err) {
    const sap_feed *feed = g->feed;
    int64_t values = input->values, bytes = values * (int64_t)sizeof *out;
    if (input->stored && !picks(feed))
        return read_scratch(feed, input->at + (g->window->first + begin) * bytes, (end - begin) * values,
                            out + begin * values, err);
    int64_t known = feed->rows - g->window->first; /* rows that the order goes on for */
    for (int64_t i = begin; i < end; i++) {
        int64_t row = row_at(feed, g->window, i);
        if (input->stored) {
            SAP_TRY(read_scratch(feed, input->at + row * bytes, values, out + i * values, err));
            continue;
        }
        if (i + LOOK_AHEAD < known) {
            const char *ahead = (const char *)(input->x + row_at(feed, g->window, i + LOOK_AHEAD) * values);
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead + (bytes < 64 ? bytes - 1 : 64)); /* the hardware goes on from there */
        }
        memcpy(out + i * values, input->x + row * values, (size_t)bytes);
    }
    return SAP_OK;
}

static sap_status copy_sequence(const sap_feed *feed, const sap_feed_input *input, int64_t row, float *out,
                                sap_error *err) {
    int64_t values = steps_of(input, row) * input->width;
    if (values == 0)
        return SAP_OK;
    if (input->stored)
        return read_scratch(feed, input->sequences[row].at, values, out, err);
    const float *data = input->offsets ? input->x + input->offsets[row] * input->width : input->sequences[row].data;
    memcpy(out, data, (size_t)values * sizeof *out);
    return SAP_OK;
}

static sap_status copy_dense(const gathering *g, const sap_feed_input *input, int64_t begin, int64_t end, float *out,
                             sap_error *err) {
    for (int64_t i = begin; i < end; i++) {
        int64_t row = row_at(g->feed, g->window, i);
        float *to = out + i * input->values;
        if (input->padded) {
            const sap_sequence *sequence = &input->sequences[row];
            sap_dense(input->feature, input->constants, sequence->data, sequence->rows, to);
            continue;
        }
        int64_t values = steps_of(input, row) * input->width;
        SAP_TRY(copy_sequence(g->feed, input, row, to, err));
        memset(to + values, 0, (size_t)(input->values - values) * sizeof *to);
    }
    return SAP_OK;
}

static sap_status copy_input(const gathering *g, const sap_feed_input *input, sap_window_input *into, int64_t begin,
                             int64_t end, sap_error *err) {
    float *out = (float *)(void *)into->data.data;
    if (into->x != out) /* in place */
        return SAP_OK;
    if (input->dense)
        return copy_dense(g, input, begin, end, out, err);
    if (input->width == 0)
        return copy_plain(g, input, begin, end, out, err);
    const int64_t *first = g->window->begin;
    int64_t batch = 0;
    for (int64_t i = begin; i < end; i++) {
        while (i >= first[batch + 1])
            batch++;
        int64_t step = into->start[batch] + into->offset[i + batch];
        SAP_TRY(copy_sequence(g->feed, input, row_at(g->feed, g->window, i), out + step * input->width, err));
    }
    return SAP_OK;
}

static void copy_rows(const gathering *g, int64_t begin, int64_t end) {
    const sap_feed *feed = g->feed;
    sap_window *w = g->window;
    uint64_t *identity = (uint64_t *)(void *)w->identities.data;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = row_at(feed, w, i);
        if (picks(feed) && w->first + i + LOOK_AHEAD < feed->rows) {
            int64_t ahead = row_at(feed, w, i + LOOK_AHEAD);
            if (feed->label)
                __builtin_prefetch(feed->label + ahead);
            if (feed->identity)
                __builtin_prefetch(feed->identity + ahead);
        }
        if (picks(feed) && feed->label)
            ((int32_t *)(void *)w->labels.data)[i] = feed->label[row];
        if (picks(feed) && feed->weight)
            ((float *)(void *)w->weights.data)[i] = feed->weight[row];
        if (picks(feed) || !feed->identity)
            identity[i] = feed->identity ? feed->identity[row] : (uint64_t)(feed->own_first + row);
    }
}

static sap_status gather_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    const gathering *g = context;
    int64_t begin = (int64_t)index * g->step_rows, left = g->window->rows - begin;
    int64_t end = begin + (left < g->step_rows ? left : g->step_rows);
    copy_rows(g, begin, end);
    for (int32_t i = 0; i < g->feed->input_count; i++)
        SAP_TRY(copy_input(g, &g->feed->inputs[i], &g->window->inputs[i], begin, end, err));
    for (int32_t i = 0; i < g->feed->target_count; i++)
        SAP_TRY(copy_input(g, &g->feed->y[i], &g->window->y[i], begin, end, err));
    return SAP_OK;
}

sap_status sap_window_fill(const sap_feed *feed, sap_window *window, sap_error *err) {
    SAP_TRY(lay_out_batches(feed, window, err));
    SAP_TRY(lay_out_rows(feed, window, err));
    gathering g = {.feed = feed, .window = window, .step_rows = STEP_BYTES / row_bytes(feed)};
    if (g.step_rows < 1)
        g.step_rows = 1;
    if (!window->identity)
        window->identity = (const uint64_t *)(const void *)window->identities.data;
    if (feed->scratch >= 0 && feed->shuffled)
        sap_scratch_advise(feed, window);
    return sap_loop(&feed->run, (size_t)((window->rows + g.step_rows - 1) / g.step_rows), gather_step, &g, err);
}
