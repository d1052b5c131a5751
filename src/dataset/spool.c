/* Events on their way in: checked, and spooled by bucket for the passes of finishing; or, for raw, written out at once.
 *
 * A spool file is a row of segments. A segment holds what fits the memory set aside for it, sorted by bucket (split and
 * shard), so that a pass reads each bucket of each segment with one call. What is where stands in a record beside the
 * file, which appears when the input is whole.
 */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORD_LIMIT = 256 << 20 }; /* bytes of a record that are read */

/* ---- The columns of a batch ---------------------------------------------------------------------------------- */

/* One feature of a batch. */
typedef struct feature_values {
    const float *data;
    const int32_t *offsets; /* sequences */
} feature_values;

static sap_status wrong_column(const char *where, const char *name, const char *wanted, sap_error *err) {
    return sap_error_set(err, SAP_ETYPE, "%s: the features have no column \"%s\" of %s", where, name, wanted);
}

static sap_status find_feature(const sap_batch *batch, const sap_feature *feature, const char *where,
                               feature_values *out, sap_error *err) {
    const sap_column *column = sap_batch_find(batch, feature->name);
    sap_type type = feature->sequence ? SAP_LIST : SAP_FIXED_LIST;
    if (!column || column->type != type || column->children[0].type != SAP_FLOAT32 ||
        (!feature->sequence && column->size != feature->width))
        return wrong_column(where, feature->name, feature->sequence ? "list<float32>" : "fixed lists of float32", err);
    out->data = column->children[0].values;
    out->offsets = feature->sequence ? column->offsets : NULL;
    for (int64_t i = 0; feature->sequence && i < batch->length; i++)
        if ((out->offsets[i + 1] - out->offsets[i]) % feature->width != 0)
            return sap_error_set(err, SAP_EARGUMENT, "%s: feature \"%s\" of event %lld is not a number of rows of %d",
                                 where, feature->name, (long long)i, (int)feature->width);
    return SAP_OK;
}

/* The values of event `row`, and how many. */
static const float *values_of(const sap_feature *feature, const feature_values *values, int64_t row, size_t *count) {
    if (!feature->sequence) {
        *count = (size_t)feature->width;
        return values->data + row * feature->width;
    }
    *count = (size_t)(values->offsets[row + 1] - values->offsets[row]);
    return values->data + values->offsets[row];
}

static bool all_finite(const float *x, size_t count) {
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & UINT32_C(0x7F800000)) == UINT32_C(0x7F800000);
    }
    return bad == 0;
}

static sap_status check_finite(const sap_dataset_writer *w, const feature_values *values, int64_t row, int64_t entry,
                               sap_error *err) {
    for (size_t f = 0; f < w->plan.feature_count; f++) {
        const sap_feature *feature = &w->plan.features[f];
        size_t count, at = 0;
        const float *x = values_of(feature, &values[f], row, &count);
        if (all_finite(x, count))
            continue;
        while (isfinite(x[at]))
            at++;
        size_t width = (size_t)feature->width;
        char place[64] = "";
        if (feature->sequence)
            (void)snprintf(place, sizeof place, " in row %zu", at / width);
        return sap_error_set(err, SAP_EDATA, "%s: entry %lld: value \"%s\" of feature \"%s\"%s is %s",
                             w->inputs[w->current].url, (long long)entry, feature->value_names[at % width],
                             feature->name, place, isnan(x[at]) ? "not a number" : "infinite");
    }
    return SAP_OK;
}

/* ---- Spooling ---------------------------------------------------------------------------------------------------- */

static int32_t bucket_of(const sap_dataset_writer *w, const sap_row *row) {
    bool test = sap_unit(sap_mix(w->split_key, row->identity)) < w->plan.test_fraction;
    return sap_shard_of(row->order) + (test ? SAP_DATASET_SHARDS : 0);
}

static sap_status write_all(const sap_dataset_writer *w, const char *data, size_t length, sap_error *err) {
    while (length > 0) {
        ssize_t put = write(w->fd, data, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return sap_error_errno(err, w->partial);
        data += put;
        length -= (size_t)put;
    }
    return SAP_OK;
}

static size_t row_bytes(const sap_row *row) {
    return sizeof *row + row->bytes;
}

static const sap_row *pending_row(const sap_dataset_writer *w, size_t index) {
    return (const sap_row *)(const void *)(w->pending + w->row_at[index]);
}

sap_status sap_spool_sort(sap_dataset_writer *w, sap_segment *segment, char **out, sap_error *err) {
    char *sorted = malloc(w->pending_bytes + 1);
    if (!sorted)
        return sap_error_memory(err, "a segment of the spool");
    size_t next[SAP_BUCKETS + 1] = {0};
    for (size_t i = 0; i < w->row_count; i++)
        next[bucket_of(w, pending_row(w, i)) + 1] += row_bytes(pending_row(w, i));
    for (int32_t b = 0; b < SAP_BUCKETS; b++)
        next[b + 1] += next[b];
    for (int32_t b = 0; b <= SAP_BUCKETS; b++)
        segment->offset[b] = w->at + next[b];
    for (size_t i = 0; i < w->row_count; i++) {
        const sap_row *row = pending_row(w, i);
        size_t *to = &next[bucket_of(w, row)];
        memcpy(sorted + *to, row, row_bytes(row));
        *to += row_bytes(row);
    }
    for (int32_t b = 0; b < SAP_BUCKETS; b++)
        segment->hash[b] =
            sap_hash(sorted + (segment->offset[b] - w->at), (size_t)(segment->offset[b + 1] - segment->offset[b]), 0);
    w->pending_bytes = w->row_count = 0;
    *out = sorted;
    return SAP_OK;
}

/* Writes the pending rows as one segment. */
static sap_status write_segment(sap_dataset_writer *w, sap_error *err) {
    if (w->row_count == 0)
        return SAP_OK;
    sap_spooled *input = &w->inputs[w->current];
    size_t bytes = w->pending_bytes;
    char *sorted;
    if (!sap_grow((void **)&input->segments, &input->segment_capacity, input->segment_count, sizeof *input->segments))
        return sap_error_memory(err, "a segment of the spool");
    SAP_TRY(sap_spool_sort(w, &input->segments[input->segment_count], &sorted, err));
    sap_status status = write_all(w, sorted, bytes, err);
    free(sorted);
    if (status != SAP_OK)
        return status;
    input->segment_count++;
    w->at += bytes;
    return SAP_OK;
}

static sap_status spool_row(sap_dataset_writer *w, const feature_values *values, int64_t event, int64_t entry,
                            sap_error *err) {
    const sap_spooled *input = &w->inputs[w->current];
    size_t bytes = 0, count;
    for (size_t f = 0; f < w->plan.feature_count; f++) {
        (void)values_of(&w->plan.features[f], &values[f], event, &count);
        bytes += count * sizeof(float) + (w->plan.features[f].sequence ? sizeof(uint32_t) : 0);
    }
    size_t padded = (bytes + 7) & ~(size_t)7, needed = w->pending_bytes + sizeof(sap_row) + padded;
    if (padded > UINT32_MAX)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: entry %lld has more than 4 GB of features", input->url,
                             (long long)entry);
    if (needed > w->pending_capacity) {
        size_t capacity = needed > w->segment_bytes ? needed : needed * 2;
        char *grown = realloc(w->pending, capacity);
        if (!grown)
            return sap_error_memory(err, "the spool");
        w->pending = grown;
        w->pending_capacity = capacity;
    }
    if (!sap_grow((void **)&w->row_at, &w->row_capacity, w->row_count, sizeof *w->row_at))
        return sap_error_memory(err, "the spool");
    uint64_t identity = sap_identity(input->sample, input->file, entry);
    sap_row row = {sap_mix(w->order_key, identity), identity, entry, (uint32_t)w->current, (uint32_t)padded};
    char *to = w->pending + w->pending_bytes;
    w->row_at[w->row_count++] = w->pending_bytes;
    w->pending_bytes = needed;
    memcpy(to, &row, sizeof row);
    to += sizeof row;
    for (size_t f = 0; f < w->plan.feature_count; f++) {
        const sap_feature *feature = &w->plan.features[f];
        const float *x = values_of(feature, &values[f], event, &count);
        if (feature->sequence) {
            uint32_t rows = (uint32_t)(count / (size_t)feature->width);
            memcpy(to, &rows, sizeof rows);
            to += sizeof rows;
        }
        if (count)
            memcpy(to, x, count * sizeof *x);
        to += count * sizeof *x;
    }
    memset(to, 0, padded - bytes);
    return w->pending_bytes >= w->segment_bytes ? write_segment(w, err) : SAP_OK;
}

/* ---- Raw: straight into part files ---------------------------------------------------------------------------------- */

static bool same_text(struct sap_storage *storage, const char *text, int64_t rows, sap_column *out) {
    size_t bytes = strlen(text);
    int32_t *offsets = sap_storage_alloc(storage, (size_t)(rows + 1) * sizeof *offsets);
    char *data = sap_storage_alloc(storage, (size_t)rows * bytes);
    if (!offsets || !data)
        return false;
    for (int64_t i = 0; i < rows; i++) {
        offsets[i] = (int32_t)((size_t)i * bytes);
        memcpy(data + (size_t)i * bytes, text, bytes);
    }
    offsets[rows] = (int32_t)((size_t)rows * bytes);
    out->offsets = offsets;
    out->values = data;
    return true;
}

/* The batch's own features and entries, borrowed, with label, sample and file beside them. */
static sap_status write_raw(sap_dataset_writer *w, const sap_batch *batch, sap_error *err) {
    sap_spooled *input = &w->inputs[w->current];
    int32_t features = (int32_t)w->plan.feature_count;
    sap_batch out;
    SAP_TRY(sap_batch_init(&out, features + SAP_EVENT_COLUMNS, err));
    out.length = batch->length;
    for (int32_t i = 0; i < features; i++)
        out.columns[i] = *sap_batch_find(batch, w->fields[i].name);
    sap_column *rest = out.columns + features;
    for (int32_t i = 0; i < SAP_EVENT_COLUMNS; i++)
        rest[i] = (sap_column){
            .name = w->fields[features + i].name, .type = w->fields[features + i].type, .length = batch->length};
    int32_t *label = sap_storage_alloc(out.storage, (size_t)batch->length * sizeof *label);
    bool room = label && same_text(out.storage, input->sample, batch->length, &rest[1]) &&
                same_text(out.storage, input->file, batch->length, &rest[2]);
    for (int64_t i = 0; room && i < batch->length; i++)
        label[i] = input->label;
    rest[0].values = label;
    rest[3].values = sap_batch_find(batch, "entry")->values;
    if (!room) {
        sap_batch_release(&out);
        return sap_error_memory(err, "a batch of events");
    }
    return sap_pieces_write(&input->pieces, &out, err);
}

sap_status sap_spool_rows(sap_dataset_writer *w, const sap_batch *batch, sap_error *err) {
    const char *where = w->inputs[w->current].url;
    const sap_column *entries = sap_batch_find(batch, "entry");
    if (!entries || entries->type != SAP_INT64)
        return wrong_column(where, "entry", "int64", err);
    const int64_t *entry = entries->values;
    feature_values *values = calloc(w->plan.feature_count, sizeof *values);
    sap_status status = values ? SAP_OK : sap_error_memory(err, where);
    for (size_t f = 0; f < w->plan.feature_count && status == SAP_OK; f++)
        status = find_feature(batch, &w->plan.features[f], where, &values[f], err);
    for (int64_t i = 0; i < batch->length && status == SAP_OK; i++) {
        status = check_finite(w, values, i, entry[i], err);
        if (status == SAP_OK && w->plan.layout != SAP_LAYOUT_RAW)
            status = spool_row(w, values, i, entry[i], err);
    }
    free(values);
    return status;
}

sap_status sap_dataset_write(sap_dataset_writer *w, size_t index, const sap_batch *batch, sap_error *err) {
    SAP_TRY(sap_spool_begin(w, index, err));
    sap_status status = sap_spool_rows(w, batch, err);
    if (status == SAP_OK && w->plan.layout == SAP_LAYOUT_RAW && batch->length > 0)
        status = write_raw(w, batch, err);
    if (status == SAP_OK)
        w->rows += batch->length;
    else
        sap_spool_drop(w); /* some of the batch may be in: the input has to begin again */
    return status;
}

/* ---- Inputs one after another ------------------------------------------------------------------------------------------ */

void sap_spool_drop(sap_dataset_writer *w) {
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    if (w->current != SIZE_MAX)
        sap_pieces_release(&w->inputs[w->current].pieces);
    w->current = SIZE_MAX;
}

sap_status sap_spool_begin(sap_dataset_writer *w, size_t index, sap_error *err) {
    if (w->current == index)
        return SAP_OK;
    if (index >= w->plan.input_count || w->inputs[index].whole || w->current != SIZE_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "%s: input %zu cannot be written now", w->partial, index);
    sap_spooled *input = &w->inputs[index];
    w->rows = 0;
    w->at = 0;
    w->pending_bytes = w->row_count = 0;
    input->segment_count = 0;
    if (w->plan.layout == SAP_LAYOUT_RAW) {
        input->pieces = (sap_pieces){.stem = sap_writer_path(w, "whole/part-%05zu", index),
                                     .format = w->plan.format,
                                     .ending = sap_part_ending(w->plan.format),
                                     .fields = w->fields,
                                     .field_count = (int32_t)w->plan.feature_count + SAP_EVENT_COLUMNS};
        if (!input->pieces.stem)
            return sap_error_memory(err, w->partial);
    } else {
        char *path = sap_writer_path(w, "spool/%05zu.rows", index);
        if (!path)
            return sap_error_memory(err, w->partial);
        w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        sap_status status = w->fd < 0 ? sap_error_errno(err, path) : SAP_OK;
        free(path);
        if (status != SAP_OK)
            return status;
    }
    w->current = index;
    return SAP_OK;
}

static json_t *describe_segment(const sap_segment *segment) {
    json_t *offsets = json_array(), *hashes = json_array();
    for (int32_t b = 0; b <= SAP_BUCKETS; b++)
        json_array_append_new(offsets, json_integer((json_int_t)segment->offset[b]));
    for (int32_t b = 0; b < SAP_BUCKETS; b++)
        json_array_append_new(hashes, json_integer((json_int_t)segment->hash[b]));
    return json_pack("{s:o, s:o}", "offsets", offsets, "hashes", hashes);
}

/* The record of a whole input. */
static json_t *describe_input(const sap_dataset_writer *w, const sap_spooled *input) {
    json_t *dropped = json_array(), *segments = json_array(), *pieces = json_array();
    for (size_t i = 0; i < w->plan.cut_count; i++)
        json_array_append_new(dropped, json_integer(input->dropped[i]));
    for (size_t i = 0; i < input->segment_count; i++)
        json_array_append_new(segments, describe_segment(&input->segments[i]));
    for (size_t i = 0; i < input->pieces.count; i++)
        json_array_append_new(pieces, json_pack("[I, I]", (json_int_t)input->pieces.items[i].rows,
                                                (json_int_t)input->pieces.items[i].bytes));
    return json_pack("{s:I, s:I, s:o, s:o, s:o}", "read", (json_int_t)input->read, "selected",
                     (json_int_t)input->selected, "dropped", dropped, "segments", segments, "pieces", pieces);
}

sap_status sap_spool_end(sap_dataset_writer *w, sap_error *err) {
    sap_spooled *input = &w->inputs[w->current];
    if (w->plan.layout == SAP_LAYOUT_RAW) {
        SAP_TRY(sap_pieces_finish(&input->pieces, err));
    } else {
        SAP_TRY(write_segment(w, err));
        int fd = w->fd;
        w->fd = -1;
        if (close(fd) != 0)
            return sap_error_errno(err, w->partial);
    }
    json_t *record = describe_input(w, input);
    char *text = record ? json_dumps(record, JSON_COMPACT) : NULL;
    char *path = sap_writer_path(w, "spool/%05zu.done", w->current);
    sap_status status =
        text && path ? sap_file_store(path, text, strlen(text), err) : sap_error_memory(err, w->partial);
    json_decref(record);
    free(text);
    free(path);
    if (status != SAP_OK)
        return status;
    input->whole = true;
    w->current = SIZE_MAX;
    return SAP_OK;
}

/* ---- What an earlier call left ------------------------------------------------------------------------------------------- */

static bool read_segment(const json_t *json, sap_segment *out) {
    const json_t *offsets = json_object_get(json, "offsets"), *hashes = json_object_get(json, "hashes");
    if (json_array_size(offsets) != SAP_BUCKETS + 1 || json_array_size(hashes) != SAP_BUCKETS)
        return false;
    for (size_t b = 0; b <= SAP_BUCKETS; b++)
        out->offset[b] = (uint64_t)json_integer_value(json_array_get(offsets, b));
    for (size_t b = 0; b < SAP_BUCKETS; b++) {
        out->hash[b] = (uint64_t)json_integer_value(json_array_get(hashes, b));
        if (out->offset[b] > out->offset[b + 1])
            return false;
    }
    return true;
}

static bool has_size(const char *path, uint64_t bytes) {
    struct stat info;
    return path && stat(path, &info) == 0 && (uint64_t)info.st_size == bytes;
}

/* Takes over a record, if its files are still there. */
static bool take_record(sap_dataset_writer *w, size_t index, const json_t *record) {
    sap_spooled *input = &w->inputs[index];
    const json_t *dropped = json_object_get(record, "dropped"), *segments = json_object_get(record, "segments"),
                 *pieces = json_object_get(record, "pieces");
    if (!json_is_integer(json_object_get(record, "read")) || !json_is_integer(json_object_get(record, "selected")) ||
        json_array_size(dropped) != w->plan.cut_count)
        return false;
    input->read = json_integer_value(json_object_get(record, "read"));
    input->selected = json_integer_value(json_object_get(record, "selected"));
    for (size_t i = 0; i < w->plan.cut_count; i++)
        input->dropped[i] = json_integer_value(json_array_get(dropped, i));
    uint64_t bytes = 0;
    for (size_t i = 0; i < json_array_size(segments); i++) {
        if (!sap_grow((void **)&input->segments, &input->segment_capacity, i, sizeof *input->segments) ||
            !read_segment(json_array_get(segments, i), &input->segments[i]) || input->segments[i].offset[0] != bytes)
            return false;
        bytes = input->segments[i].offset[SAP_BUCKETS];
        input->segment_count = i + 1;
    }
    bool there = true;
    if (w->plan.layout != SAP_LAYOUT_RAW) {
        char *path = sap_writer_path(w, "spool/%05zu.rows", index);
        there = has_size(path, bytes);
        free(path);
    }
    char *stem = sap_writer_path(w, "whole/part-%05zu", index);
    for (size_t i = 0; there && i < json_array_size(pieces); i++) {
        const json_t *piece = json_array_get(pieces, i);
        char *path = stem ? sap_piece_path(stem, sap_part_ending(w->plan.format), i) : NULL;
        sap_piece known = {json_integer_value(json_array_get(piece, 0)), json_integer_value(json_array_get(piece, 1))};
        there = has_size(path, (uint64_t)known.bytes) &&
                sap_grow((void **)&input->pieces.items, &input->pieces.capacity, i, sizeof known);
        free(path);
        if (there)
            input->pieces.items[input->pieces.count++] = known;
    }
    free(stem);
    return there;
}

sap_status sap_spool_find(sap_dataset_writer *w, size_t index, sap_error *err) {
    char *path = sap_writer_path(w, "spool/%05zu.done", index), *text = NULL;
    if (!path)
        return sap_error_memory(err, w->partial);
    sap_status status = SAP_OK;
    if (sap_path_exists(path)) {
        status = sap_file_load(path, RECORD_LIMIT, &text, NULL, err);
        json_t *record = text ? json_loads(text, 0, NULL) : NULL;
        w->inputs[index].whole = record && take_record(w, index, record);
        json_decref(record);
        if (status == SAP_OK && !w->inputs[index].whole) /* it is made again, from nothing */
            sap_pieces_release(&w->inputs[index].pieces);
    }
    free(text);
    free(path);
    return status;
}
