/* Datasets written by many processes: the plan goes round as JSON, rows and counts travel as pieces of bytes for a bucket each, and
 * what a bucket's process found out comes back as JSON. Everything else is what one process does. */
#include "dataset_internal.h"

#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum { PACK_BYTES = 32 << 20 }; /* of rows that a packer collects before it hands them out */
enum { PIECE_ROWS = 1, PIECE_COUNTS };

/* Before the rows or counts of a piece. */
typedef struct piece_head {
    uint64_t hash; /* of what follows, keyed by kind and bucket */
    uint32_t kind, bucket;
} piece_head;

/* Of an input, in a piece of counts; (cut_count) dropped follow. */
typedef struct input_counts {
    int64_t input, read, selected;
} input_counts;

static uint64_t piece_hash(const piece_head *head, const void *data, size_t bytes) {
    return sap_hash(data, bytes, (uint64_t)head->kind << 32 | head->bucket);
}

/* ---- The plan ------------------------------------------------------------------------------------------------ */

const char *sap_dataset_plan_json(sap_dataset_writer *writer) {
    if (!writer->plan_text)
        writer->plan_text = json_dumps(writer->plan_json, JSON_COMPACT);
    return writer->plan_text;
}

static const char *text_of(const json_t *json, const char *key) {
    return json_string_value(json_object_get(json, key));
}

/* A plan whose texts are the JSON's and whose features are `info`'s; inputs: (as many as there are). */
static bool read_plan(const json_t *json, const sap_info *info, sap_dataset_input *inputs, sap_dataset_plan *plan) {
    const json_t *list = json_object_get(json, "inputs"), *cuts = json_object_get(json, "cuts");
    const char *format = text_of(json, "format"), *layout = text_of(json, "layout");
    const json_t *seed = json_object_get(json, "seed"), *fraction = json_object_get(json, "test_fraction");
    if (!format || !layout || !text_of(json, "recipe") || !json_is_integer(seed) || !json_is_number(fraction) ||
        !json_is_array(cuts) || (strcmp(layout, "sapwood") != 0 && strcmp(layout, "published") != 0))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *input = json_array_get(list, i);
        inputs[i] = (sap_dataset_input){text_of(input, "sample"), text_of(input, "url")};
        if (!inputs[i].sample || !inputs[i].url)
            return false;
    }
    const char **names = calloc(json_array_size(cuts) + 1, sizeof *names);
    if (!names)
        return false;
    *plan = (sap_dataset_plan){.inputs = inputs,
                               .input_count = json_array_size(list),
                               .features = info->features,
                               .feature_count = info->feature_count,
                               .cuts = names,
                               .cut_count = json_array_size(cuts),
                               .recipe = text_of(json, "recipe"),
                               .recipe_version = text_of(json, "recipe_version"),
                               .convention = text_of(json, "convention"),
                               .format = strcmp(format, "tfrecord") == 0 ? SAP_DATASET_TFRECORD : SAP_DATASET_PARQUET,
                               .layout = strcmp(layout, "published") == 0 ? SAP_LAYOUT_PUBLISHED : SAP_LAYOUT_SAPWOOD,
                               .seed = (uint64_t)json_integer_value(seed),
                               .test_fraction = json_number_value(fraction),
                               .balance = json_is_true(json_object_get(json, "balance"))};
    for (size_t i = 0; i < plan->cut_count; i++) {
        names[i] = json_string_value(json_array_get(cuts, i));
        if (!names[i])
            return false;
    }
    return true;
}

sap_status sap_writer_parse(const char *folder, const char *text, bool look, sap_dataset_writer **out, sap_error *err) {
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);
    if (!json)
        return sap_error_set(err, SAP_EFORMAT, "a dataset's plan: line %d: %s", where.line, where.text);
    sap_info info = {0};
    sap_dataset_plan plan = {0};
    const json_t *features = json_object_get(json, "features");
    for (size_t i = 0; i < json_array_size(features); i++) /* a plan has none yet */
        json_object_set_new(json_array_get(features, i), "constants", json_null());
    sap_dataset_input *inputs = calloc(json_array_size(json_object_get(json, "inputs")) + 1, sizeof *inputs);
    sap_status status = inputs ? sap_info_parse_features(features, "a dataset's plan", &info, err)
                               : sap_error_memory(err, "a dataset's plan");
    if (status == SAP_OK && !read_plan(json, &info, inputs, &plan))
        status = sap_error_set(err, SAP_EFORMAT, "a dataset's plan: something is missing or no text");
    if (status == SAP_OK)
        status = sap_writer_init(folder, &plan, look, out, err);
    free((void *)(uintptr_t)plan.cuts);
    free(inputs);
    sap_info_release(&info);
    json_decref(json);
    return status;
}

/* ---- Packing --------------------------------------------------------------------------------------------------- */

struct sap_dataset_packer {
    sap_dataset_writer *writer;
    sap_segment segment;
    char *sorted;      /* rows being handed out, in bucket order; NULL: none */
    int32_t at;        /* next bucket of these, or of the counts */
    bool counts_given; /* they are the last */
    char *piece;       /* what was handed out last */
    size_t piece_capacity;
};

sap_status sap_dataset_packer_open(const char *plan, sap_dataset_packer **out, sap_error *err) {
    sap_dataset_packer *packer = calloc(1, sizeof *packer);
    if (!packer)
        return sap_error_memory(err, "packing");
    sap_status status = sap_writer_parse("packed", plan, false, &packer->writer, err);
    if (status != SAP_OK) {
        sap_dataset_packer_close(packer);
        return status;
    }
    packer->writer->segment_bytes = SIZE_MAX; /* rows are taken from it before they are many */
    *out = packer;
    return SAP_OK;
}

void sap_dataset_packer_close(sap_dataset_packer *packer) {
    if (!packer)
        return;
    sap_dataset_writer_close(packer->writer);
    free(packer->sorted);
    free(packer->piece);
    free(packer);
}

static sap_status choose_input(sap_dataset_writer *w, size_t index, sap_error *err) {
    if (index >= w->plan.input_count)
        return sap_error_set(err, SAP_EARGUMENT, "the plan has %zu inputs; there is no number %zu", w->plan.input_count,
                             index);
    w->current = index;
    return SAP_OK;
}

sap_status sap_dataset_pack(sap_dataset_packer *packer, size_t index, const sap_batch *batch, sap_error *err) {
    SAP_TRY(choose_input(packer->writer, index, err));
    SAP_TRY(sap_spool_rows(packer->writer, batch, err));
    packer->writer->inputs[index].selected += batch->length;
    return SAP_OK;
}

sap_status sap_dataset_pack_arrow(sap_dataset_packer *packer, size_t index, const struct ArrowSchema *schema,
                                  const struct ArrowArray *array, sap_error *err) {
    const sap_dataset_writer *w = packer->writer;
    size_t features = w->plan.feature_count;
    SAP_TRY(choose_input(packer->writer, index, err));
    sap_field *fields = calloc(features + 1, sizeof *fields);
    if (!fields)
        return sap_error_memory(err, "packing");
    memcpy(fields, w->fields, features * sizeof *fields);
    fields[features] = (sap_field){.name = "entry", .type = SAP_INT64};
    sap_batch batch = {0};
    sap_status status =
        sap_arrow_import(schema, array, w->inputs[index].url, fields, (int32_t)features + 1, &batch, err);
    if (status == SAP_OK)
        status = sap_dataset_pack(packer, index, &batch, err);
    sap_batch_release(&batch);
    free(fields);
    return status;
}

sap_status sap_dataset_pack_counts(sap_dataset_packer *packer, size_t index, int64_t read, const int64_t *dropped,
                                   sap_error *err) {
    SAP_TRY(choose_input(packer->writer, index, err));
    sap_spooled *input = &packer->writer->inputs[index];
    input->read += read;
    for (size_t i = 0; i < packer->writer->plan.cut_count; i++)
        input->dropped[i] += dropped[i];
    return SAP_OK;
}

/* Puts a head and `bytes` of data together as the piece to hand out. */
static sap_status make_piece(sap_dataset_packer *p, uint32_t kind, const void *data, size_t bytes, size_t *size,
                             sap_error *err) {
    piece_head head = {.kind = kind, .bucket = (uint32_t)p->at};
    head.hash = piece_hash(&head, data, bytes);
    *size = sizeof head + bytes;
    if (*size > p->piece_capacity) {
        char *grown = realloc(p->piece, *size + *size / 2);
        if (!grown)
            return sap_error_memory(err, "packing");
        p->piece = grown;
        p->piece_capacity = *size + *size / 2;
    }
    memcpy(p->piece, &head, sizeof head);
    memcpy(p->piece + sizeof head, data, bytes);
    return SAP_OK;
}

static sap_status make_counts(sap_dataset_packer *p, size_t *size, sap_error *err) {
    const sap_dataset_writer *w = p->writer;
    size_t each = sizeof(input_counts) + w->plan.cut_count * sizeof(int64_t), used = 0;
    char *data = malloc(w->plan.input_count * each);
    if (!data)
        return sap_error_memory(err, "packing");
    for (size_t i = 0; i < w->plan.input_count; i++) {
        const sap_spooled *input = &w->inputs[i];
        if (input->read == 0 && input->selected == 0)
            continue;
        input_counts counts = {(int64_t)i, input->read, input->selected};
        memcpy(data + used, &counts, sizeof counts);
        if (w->plan.cut_count > 0)
            memcpy(data + used + sizeof counts, input->dropped, w->plan.cut_count * sizeof(int64_t));
        used += each;
    }
    sap_status status = make_piece(p, PIECE_COUNTS, data, used, size, err);
    free(data);
    return status;
}

sap_status sap_dataset_packer_next(sap_dataset_packer *p, bool last, int32_t *bucket, const void **data, size_t *bytes,
                                   sap_error *err) {
    sap_dataset_writer *w = p->writer;
    *bytes = 0;
    if (!p->sorted && !p->counts_given && (w->pending_bytes >= PACK_BYTES || (last && w->row_count > 0))) {
        p->at = 0;
        SAP_TRY(sap_spool_sort(w, &p->segment, &p->sorted, err));
    }
    for (; p->sorted && *bytes == 0 && p->at < SAP_BUCKETS; p->at++) {
        size_t from = (size_t)p->segment.offset[p->at], to = (size_t)p->segment.offset[p->at + 1];
        if (to > from)
            SAP_TRY(make_piece(p, PIECE_ROWS, p->sorted + from, to - from, bytes, err));
    }
    if (*bytes == 0 && p->sorted) {
        free(p->sorted);
        p->sorted = NULL;
        return sap_dataset_packer_next(p, last, bucket, data, bytes, err);
    }
    if (*bytes == 0 && last) {
        p->at = p->counts_given ? p->at : 0;
        p->counts_given = true;
        if (p->at < SAP_BUCKETS) {
            SAP_TRY(make_counts(p, bytes, err));
            p->at++;
        }
    }
    *bucket = p->at - 1;
    *data = p->piece;
    return SAP_OK;
}

/* ---- One bucket ---------------------------------------------------------------------------------------------------- */

struct sap_dataset_shard {
    sap_dataset_writer *writer;
    int32_t bucket;
    bool write; /* else there are only constants to fit */
    char *data; /* rows */
    size_t bytes, capacity;
};

sap_status sap_dataset_shard_open(const char *folder, const char *plan, int32_t bucket, sap_dataset_shard **out,
                                  sap_error *err) {
    if (bucket < 0 || bucket >= SAP_BUCKETS)
        return sap_error_set(err, SAP_EARGUMENT, "buckets are numbered from 0 to %d, there is no %d", SAP_BUCKETS - 1,
                             (int)bucket);
    sap_dataset_shard *shard = calloc(1, sizeof *shard);
    if (!shard)
        return sap_error_memory(err, "a shard");
    shard->bucket = bucket;
    shard->write = folder != NULL;
    sap_status status = sap_writer_parse(folder ? folder : "constants", plan, false, &shard->writer, err);
    if (status == SAP_OK)
        *out = shard;
    else
        sap_dataset_shard_close(shard);
    return status;
}

void sap_dataset_shard_close(sap_dataset_shard *shard) {
    if (!shard)
        return;
    sap_dataset_writer_close(shard->writer);
    free(shard->data);
    free(shard);
}

static sap_status add_counts(const sap_dataset_writer *w, const char *data, size_t bytes, sap_error *err) {
    size_t each = sizeof(input_counts) + w->plan.cut_count * sizeof(int64_t);
    for (size_t at = 0; at < bytes; at += each) {
        input_counts counts;
        if (bytes - at < each)
            return sap_error_set(err, SAP_EFORMAT, "packed counts are of another plan");
        memcpy(&counts, data + at, sizeof counts);
        if (counts.input < 0 || (uint64_t)counts.input >= w->plan.input_count)
            return sap_error_set(err, SAP_EFORMAT, "packed counts are of another plan");
        sap_spooled *input = &w->inputs[counts.input];
        input->read += counts.read;
        input->selected += counts.selected;
        for (size_t c = 0; c < w->plan.cut_count; c++) {
            int64_t dropped;
            memcpy(&dropped, data + at + sizeof counts + c * sizeof dropped, sizeof dropped);
            input->dropped[c] += dropped;
        }
    }
    return SAP_OK;
}

sap_status sap_dataset_shard_add(sap_dataset_shard *shard, const void *data, size_t bytes, sap_error *err) {
    piece_head head;
    if (bytes < sizeof head)
        return sap_error_set(err, SAP_EFORMAT, "a packed piece has only %zu bytes", bytes);
    memcpy(&head, data, sizeof head);
    const char *rest = (const char *)data + sizeof head;
    bytes -= sizeof head;
    if (head.bucket != (uint32_t)shard->bucket || head.hash != piece_hash(&head, rest, bytes))
        return sap_error_set(err, SAP_EFORMAT, "a packed piece is not of bucket %d, or has changed on its way",
                             (int)shard->bucket);
    if (head.kind == PIECE_COUNTS)
        return add_counts(shard->writer, rest, bytes, err);
    if (shard->bytes + bytes > shard->capacity) {
        size_t capacity = (shard->bytes + bytes) * 2;
        char *grown = realloc(shard->data, capacity);
        if (!grown)
            return sap_error_memory(err, "a shard");
        shard->data = grown;
        shard->capacity = capacity;
    }
    memcpy(shard->data + shard->bytes, rest, bytes);
    shard->bytes += bytes;
    return SAP_OK;
}

static json_t *reals(const double *values, int32_t count) {
    json_t *list = json_array();
    for (int32_t i = 0; i < count; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *describe_moments(const sap_build *build, size_t bucket) {
    const sap_dataset_plan *plan = &build->writer->plan;
    json_t *list = json_array();
    for (size_t f = 0; f < plan->feature_count; f++) {
        const sap_moments *m = &build->moments[bucket * plan->feature_count + f];
        int32_t width = build->constants[f].width;
        json_array_append_new(list, m->rows == 0 ? json_null()
                                                 : json_pack("{s:I, s:o, s:o, s:o, s:o}", "rows", (json_int_t)m->rows,
                                                             "min", reals(m->min, width), "max", reals(m->max, width),
                                                             "mean", reals(m->mean, width), "m2", reals(m->m2, width)));
    }
    return list;
}

static json_t *describe_counts(const sap_dataset_writer *w) {
    json_t *list = json_array();
    for (size_t i = 0; i < w->plan.input_count; i++) {
        json_t *dropped = json_array();
        for (size_t c = 0; c < w->plan.cut_count; c++)
            json_array_append_new(dropped, json_integer(w->inputs[i].dropped[c]));
        json_array_append_new(
            list, json_pack("[I, I, o]", (json_int_t)w->inputs[i].read, (json_int_t)w->inputs[i].selected, dropped));
    }
    return list;
}

/* What the other buckets' processes know too, such as counts, is told by the first alone. */
static char *describe_shard(const sap_build *build, size_t bucket) {
    const sap_dataset_writer *w = build->writer;
    json_t *kept = json_array(), *outputs = json_array();
    for (size_t k = 0; k < w->label_count; k++)
        json_array_append_new(kept, json_integer(build->kept[bucket * w->label_count + k]));
    for (size_t o = 0; o < build->output_count; o++) {
        const sap_pieces *pieces = &build->outputs[o].pieces[bucket];
        json_t *list = json_array();
        for (size_t i = 0; i < pieces->count; i++)
            json_array_append_new(
                list, json_pack("[I, I]", (json_int_t)pieces->items[i].rows, (json_int_t)pieces->items[i].bytes));
        json_array_append_new(outputs, list);
    }
    json_t *json = json_pack("{s:I, s:o, s:o, s:o, s:o}", "bucket", (json_int_t)bucket, "kept", kept, "moments",
                             describe_moments(build, bucket), "outputs", outputs, "inputs",
                             bucket == 0 ? describe_counts(w) : json_null());
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return text;
}

/* Moves the parts from where this attempt wrote them to where they belong; another attempt's are the same. */
static sap_status place_parts(const sap_build *build, size_t bucket, sap_error *err) {
    sap_status status = SAP_OK;
    for (size_t o = 0; o < build->output_count; o++) {
        const sap_output *output = &build->outputs[o];
        const sap_pieces *pieces = &output->pieces[bucket];
        char *stem = sap_writer_path(build->writer, "whole/%s/%s%05d", output->folders[bucket / SAP_DATASET_SHARDS],
                                     output->part, (int)(bucket % SAP_DATASET_SHARDS));
        for (size_t i = 0; i < pieces->count && status == SAP_OK; i++) {
            char *from = sap_piece_path(pieces->stem, pieces->ending, i),
                 *to = stem ? sap_piece_path(stem, pieces->ending, i) : NULL;
            if (!from || !to)
                status = sap_error_memory(err, build->writer->partial);
            else if (rename(from, to) != 0)
                status = sap_error_errno(err, to);
            free(from);
            free(to);
        }
        free(stem);
    }
    return status;
}

/* From the text of a dataset.json. */
static sap_status read_constants(sap_build *build, const char *text, sap_error *err) {
    json_t *json = json_loads(text, 0, NULL);
    sap_info info = {0};
    size_t features = build->writer->plan.feature_count;
    sap_status status = sap_info_parse_features(json_object_get(json, "features"), "constants", &info, err);
    for (size_t f = 0; f < features && status == SAP_OK; f++) {
        sap_constants *to = &build->constants[f], *from = &info.constants[f];
        if (info.feature_count != features || from->width != to->width)
            status = sap_error_set(err, SAP_EFORMAT, "constants are of another plan");
        else if (to->width > 0) {
            memcpy(to->shift, from->shift, (size_t)to->width * sizeof *to->shift);
            memcpy(to->factor, from->factor, (size_t)to->width * sizeof *to->factor);
        }
    }
    sap_info_release(&info);
    json_decref(json);
    return status;
}

sap_status sap_dataset_shard_write(sap_dataset_shard *shard, const char *constants, const sap_run *run, char **report,
                                   sap_error *err) {
    sap_dataset_writer *w = shard->writer;
    uint64_t tag = 0;
    char place[64];
    if (getrandom(&tag, sizeof tag, 0) != (ssize_t)sizeof tag)
        return sap_error_errno(err, w->partial);
    (void)snprintf(place, sizeof place, "attempts/%03d-%016llx", (int)shard->bucket, (unsigned long long)tag);
    sap_build build = {.writer = w, .run = run, .place = place};
    sap_bucket bucket = {.data = shard->data};
    bool write_now = shard->write && (constants || w->plan.layout != SAP_LAYOUT_PUBLISHED);
    sap_status status = sap_build_init(&build, err);
    if (status == SAP_OK && constants)
        status = read_constants(&build, constants, err);
    if (status == SAP_OK && write_now)
        status = sap_build_clear(&build, err);
    if (status == SAP_OK)
        status = sap_bucket_sort(w, shard->bytes, &bucket, err);
    if (status == SAP_OK)
        status = sap_build_bucket(&build, &bucket, shard->bucket, true, write_now, err);
    free(bucket.rows);
    if (status == SAP_OK && write_now)
        status = place_parts(&build, (size_t)shard->bucket, err);
    char *path = write_now ? sap_writer_path(w, "%s", place) : NULL;
    if (path) {
        sap_status removed = sap_folder_remove(path, NULL);
        (void)removed; /* what is left goes with OUT.partial */
        free(path);
    }
    if (status == SAP_OK) {
        *report = describe_shard(&build, (size_t)shard->bucket);
        status = *report ? SAP_OK : sap_error_memory(err, "a shard");
    }
    sap_build_release(&build);
    return status;
}

/* ---- The end ---------------------------------------------------------------------------------------------------------- */

sap_status sap_dataset_begin_shards(sap_dataset_writer *w, sap_error *err) {
    if (w->plan.layout == SAP_LAYOUT_RAW)
        return sap_error_set(err, SAP_EUNSUPPORTED, "a raw dataset has no shards");
    if (w->lock < 0) /* no folder, only constants */
        return SAP_OK;
    sap_build build = {.writer = w, .place = "whole"};
    sap_status status =
        w->plan.layout == SAP_LAYOUT_PUBLISHED ? sap_published_outputs(&build, err) : sap_events_outputs(&build, err);
    if (status == SAP_OK)
        status = sap_build_clear(&build, err);
    char *path = sap_writer_path(w, "attempts");
    if (status == SAP_OK)
        status = path ? sap_folder_remove(path, err) : sap_error_memory(err, w->partial);
    if (status == SAP_OK)
        status = sap_folder_make(path, err);
    free(path);
    sap_build_release(&build);
    return status;
}

static bool take_reals(const json_t *object, const char *key, int32_t width, double *out) {
    const json_t *list = json_object_get(object, key);
    for (int32_t j = 0; j < width; j++)
        out[j] = json_number_value(json_array_get(list, (size_t)j));
    return json_array_size(list) == (size_t)width;
}

static bool take_counts(const sap_dataset_writer *w, const json_t *list) {
    bool good = json_array_size(list) == w->plan.input_count;
    for (size_t i = 0; i < w->plan.input_count && good; i++) {
        const json_t *item = json_array_get(list, i), *dropped = json_array_get(item, 2);
        sap_spooled *input = &w->inputs[i];
        input->read = json_integer_value(json_array_get(item, 0));
        input->selected = json_integer_value(json_array_get(item, 1));
        good = json_array_size(dropped) == w->plan.cut_count;
        for (size_t c = 0; c < w->plan.cut_count && good; c++)
            input->dropped[c] = json_integer_value(json_array_get(dropped, c));
    }
    return good;
}

static bool take_pieces(sap_pieces *pieces, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *piece = json_array_get(list, i);
        if (!sap_grow((void **)&pieces->items, &pieces->capacity, pieces->count, sizeof *pieces->items))
            return false;
        pieces->items[pieces->count++] =
            (sap_piece){json_integer_value(json_array_get(piece, 0)), json_integer_value(json_array_get(piece, 1))};
    }
    return true;
}

static bool take_shard(sap_build *build, size_t bucket, const json_t *report) {
    const sap_dataset_writer *w = build->writer;
    const json_t *kept = json_object_get(report, "kept"), *moments = json_object_get(report, "moments"),
                 *outputs = json_object_get(report, "outputs");
    size_t features = w->plan.feature_count;
    if (json_array_size(kept) != w->label_count || json_array_size(moments) != features ||
        json_array_size(outputs) != build->output_count)
        return false;
    for (size_t k = 0; k < w->label_count; k++)
        build->kept[bucket * w->label_count + k] = json_integer_value(json_array_get(kept, k));
    for (size_t f = 0; f < features; f++) {
        const json_t *item = json_array_get(moments, f);
        sap_moments *m = &build->moments[bucket * features + f];
        int32_t width = build->constants[f].width;
        if (json_is_null(item))
            continue;
        m->rows = json_integer_value(json_object_get(item, "rows"));
        if (!take_reals(item, "min", width, m->min) || !take_reals(item, "max", width, m->max) ||
            !take_reals(item, "mean", width, m->mean) || !take_reals(item, "m2", width, m->m2))
            return false;
    }
    for (size_t o = 0; o < build->output_count; o++)
        if (!take_pieces(&build->outputs[o].pieces[bucket], json_array_get(outputs, o)))
            return false;
    return true;
}

/* Fills a build from the reports (SAP_BUCKETS), in whatever order, and fits the constants. */
static sap_status take_reports(sap_build *build, const char *const *reports, size_t count, sap_error *err) {
    json_t *list[SAP_BUCKETS] = {0};
    sap_status status = SAP_OK;
    bool good = count == SAP_BUCKETS;
    for (size_t i = 0; i < count && good; i++) {
        json_t *json = json_loads(reports[i], 0, NULL);
        const json_t *number = json_object_get(json, "bucket");
        json_int_t bucket = json_is_integer(number) ? json_integer_value(number) : -1;
        good = bucket >= 0 && bucket < SAP_BUCKETS && !list[bucket];
        if (good)
            list[bucket] = json;
        else
            json_decref(json);
    }
    good = good && take_counts(build->writer, json_object_get(list[0], "inputs"));
    if (good)
        status = sap_build_init(build, err);
    for (size_t b = 0; b < SAP_BUCKETS && good && status == SAP_OK; b++)
        good = take_shard(build, b, list[b]);
    for (size_t b = 0; b < SAP_BUCKETS; b++)
        json_decref(list[b]);
    if (!good)
        return sap_error_set(err, SAP_EFORMAT, "%s: %zu shards have reported, expected each of %d once",
                             build->writer->folder, count, (int)SAP_BUCKETS);
    return status == SAP_OK ? sap_build_fit(build, err) : status;
}

sap_status sap_dataset_fit_shards(sap_dataset_writer *w, const char *const *reports, size_t count, char **description,
                                  sap_error *err) {
    sap_build build = {.writer = w, .place = "whole"};
    sap_status status = take_reports(&build, reports, count, err);
    if (status == SAP_OK) {
        *description = sap_dataset_description(&build);
        status = *description ? SAP_OK : sap_error_memory(err, w->folder);
    }
    sap_build_release(&build);
    return status;
}

sap_status sap_dataset_finish_shards(sap_dataset_writer *w, const char *const *reports, size_t count, sap_error *err) {
    if (w->lock < 0)
        return sap_error_set(err, SAP_EARGUMENT, "the plan has no folder, only constants");
    sap_build build = {.writer = w, .place = "whole"};
    sap_status status = take_reports(&build, reports, count, err);
    if (status == SAP_OK)
        status = sap_build_publish(&build, err);
    sap_build_release(&build);
    return status;
}
