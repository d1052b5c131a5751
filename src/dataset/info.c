/* Reading a dataset: dataset.json, and the stored events part by part. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { JSON_LIMIT = 1 << 30 }; /* bytes of dataset.json that are read */

/* ---- dataset.json ------------------------------------------------------------------------------------------- */

/* Reading one file: what is wrong first sticks. */
typedef struct parser {
    const char *path;
    sap_info *info;
    sap_error *err;
    sap_status status;
} parser;

static void wrong(parser *p, const char *where, const char *key, const char *expected) {
    if (p->status == SAP_OK)
        p->status = sap_error_set(p->err, SAP_EFORMAT, "%s: %s%s\"%s\" should be %s", p->path, where,
                                  *where ? ": " : "", key, expected);
}

static const char *get_text(parser *p, const json_t *object, const char *where, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        wrong(p, where, key, "a text");
    char *copy = text ? sap_arena_text(&p->info->arena, text, strlen(text)) : NULL;
    if (text && !copy && p->status == SAP_OK)
        p->status = sap_error_memory(p->err, p->path);
    return copy ? copy : "";
}

static int64_t get_integer(parser *p, const json_t *object, const char *where, const char *key, int64_t low,
                           int64_t high) {
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high)
        return json_integer_value(value);
    char expected[80];
    (void)snprintf(expected, sizeof expected, "an integer between %lld and %lld", (long long)low, (long long)high);
    wrong(p, where, key, expected);
    return low;
}

static bool get_bool(parser *p, const json_t *object, const char *where, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value))
        wrong(p, where, key, "true or false");
    return json_is_true(value);
}

/* Index of the text among `words` (count). */
static int get_word(parser *p, const json_t *object, const char *where, const char *key, const char *const *words,
                    int count) {
    const char *text = json_string_value(json_object_get(object, key));
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    char expected[200] = "one of";
    for (int i = 0; i < count; i++) {
        size_t used = strlen(expected);
        (void)snprintf(expected + used, sizeof expected - used, "%s %s", i ? "," : "", words[i]);
    }
    wrong(p, where, key, expected);
    return 0;
}

static const json_t *get_array(parser *p, const json_t *object, const char *where, const char *key, size_t *count) {
    const json_t *array = json_object_get(object, key);
    if (!json_is_array(array))
        wrong(p, where, key, "a list");
    *count = json_array_size(array);
    return array;
}

static void *allocate(parser *p, size_t count, size_t size) {
    void *data = sap_arena_array(&p->info->arena, count + 1, size);
    if (!data && p->status == SAP_OK)
        p->status = sap_error_memory(p->err, p->path);
    return data;
}

static double *get_reals(parser *p, const json_t *object, const char *where, const char *key, size_t width) {
    size_t count;
    const json_t *array = get_array(p, object, where, key, &count);
    double *out = allocate(p, width, sizeof *out);
    if (count != width)
        wrong(p, where, key, "one number for each value of the feature");
    for (size_t i = 0; out && i < width && i < count; i++) {
        const json_t *value = json_array_get(array, i);
        out[i] = json_number_value(value);
        if (!json_is_number(value) || !isfinite(out[i]))
            wrong(p, where, key, "finite numbers");
    }
    return out;
}

static void parse_feature(parser *p, const json_t *json, sap_feature *out, sap_constants *constants) {
    static const char *const scalings[] = {"none", "minmax", "standard", "standard_event"};
    static const char *const orders[] = {"none", "falling_delta_r"};
    static const char *const fits[] = {"train", "selected"};
    out->name = get_text(p, json, "features", "name");
    char where[200];
    (void)snprintf(where, sizeof where, "feature \"%.150s\"", out->name);
    out->sequence = get_bool(p, json, where, "sequence");
    out->width = (int32_t)get_integer(p, json, where, "width", 1, out->sequence ? SAP_SEQUENCE_MAX_WIDTH : INT32_MAX);
    out->scaling = (sap_scaling)get_word(p, json, where, "scaling", scalings, 4);
    out->fit_before_split = get_word(p, json, where, "fit", fits, 2) == 1;
    out->order = (sap_order)get_word(p, json, where, "order", orders, 2);
    out->eta_index = (int32_t)get_integer(p, json, where, "eta_index", 0, out->width - 1);
    out->phi_index = (int32_t)get_integer(p, json, where, "phi_index", 0, out->width - 1);
    out->pad_rows = (int32_t)get_integer(p, json, where, "pad_rows", 0, SAP_SEQUENCE_MAX_ROWS);
    out->pad_before_order = get_bool(p, json, where, "pad_before_order");
    size_t count;
    const json_t *names = get_array(p, json, where, "values", &count);
    if (count != (size_t)out->width)
        wrong(p, where, "values", "one name for each value");
    const char **value_names = p->status == SAP_OK ? allocate(p, count, sizeof *value_names) : NULL;
    for (size_t i = 0; value_names && i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        value_names[i] = name ? sap_arena_text(&p->info->arena, name, strlen(name)) : NULL;
        if (!value_names[i])
            wrong(p, where, "values", "a list of texts");
    }
    out->value_names = value_names;
    const json_t *fitted = json_object_get(json, "constants");
    if (!fitted)
        wrong(p, where, "constants", "there, if only as null");
    if (p->status == SAP_OK && json_is_object(fitted)) {
        constants->shift = get_reals(p, fitted, where, "shift", (size_t)out->width);
        constants->factor = get_reals(p, fitted, where, "factor", (size_t)out->width);
        constants->width = out->width;
    }
    if (out->pad_rows > 0 && !out->sequence)
        wrong(p, where, "pad_rows", "0 for a feature that is no sequence");
    if (out->scaling == SAP_SCALING_STANDARD_EVENT && out->pad_rows == 0)
        wrong(p, where, "pad_rows", "above 0 for this scaling");
}

static void parse_part(parser *p, const json_t *json, int64_t most_rows, sap_part *out) {
    out->file = get_text(p, json, "parts", "file");
    if (out->file[0] == '/' || strstr(out->file, ".."))
        wrong(p, "parts", "file", "a path inside the dataset's folder");
    out->split = get_text(p, json, "parts", "split");
    out->shard = (int32_t)get_integer(p, json, "parts", "shard", 0, SAP_DATASET_SHARDS - 1);
    out->rows = get_integer(p, json, "parts", "rows", 1, most_rows);
    out->bytes = get_integer(p, json, "parts", "bytes", 0, INT64_MAX);
}

static void parse_info(parser *p, const json_t *json) {
    static const char *const layouts[] = {"sapwood", "raw", "published", "files"};
    static const char *const formats[] = {"parquet", "tfrecord", "arrow"};
    sap_info *info = p->info;
    int64_t version = get_integer(p, json, "", "format_version", 1, INT32_MAX);
    if (p->status == SAP_OK && version != SAP_DATASET_FORMAT_VERSION) {
        p->status = sap_error_set(p->err, SAP_EUNSUPPORTED,
                                  "%s: is of format version %lld; this version of Sapwood reads version %d", p->path,
                                  (long long)version, SAP_DATASET_FORMAT_VERSION);
        return;
    }
    info->layout = (sap_dataset_layout)get_word(p, json, "", "layout", layouts, 4);
    info->format = (sap_dataset_format)get_word(p, json, "", "format", formats, 3);
    info->ordered = info->layout != SAP_LAYOUT_RAW && !json_is_false(json_object_get(json, "ordered"));
    const json_t *labels = get_array(p, json, "", "labels", &info->label_count);
    const json_t *features = get_array(p, json, "", "features", &info->feature_count);
    const json_t *parts = get_array(p, json, "", "parts", &info->part_count);
    info->labels = allocate(p, info->label_count, sizeof *info->labels);
    info->features = allocate(p, info->feature_count, sizeof *info->features);
    info->constants = allocate(p, info->feature_count, sizeof *info->constants);
    info->parts = allocate(p, info->part_count, sizeof *info->parts);
    for (size_t i = 0; i < info->label_count && p->status == SAP_OK; i++) {
        const char *label = json_string_value(json_array_get(labels, i));
        if (label)
            info->labels[i] = sap_arena_text(&info->arena, label, strlen(label));
        if (!info->labels[i])
            wrong(p, "", "labels", "a list of texts");
    }
    for (size_t i = 0; i < info->feature_count && p->status == SAP_OK; i++)
        parse_feature(p, json_array_get(features, i), &info->features[i], &info->constants[i]);
    int64_t most_rows = INT64_MAX / 4096; /* of all parts together */
    for (size_t i = 0; i < info->part_count && p->status == SAP_OK; i++) {
        parse_part(p, json_array_get(parts, i), most_rows, &info->parts[i]);
        most_rows -= info->parts[i].rows;
    }
}

sap_status sap_info_parse_features(const json_t *list, const char *where, sap_info *info, sap_error *err) {
    parser p = {.path = where, .info = info, .err = err};
    info->feature_count = json_array_size(list);
    info->features = allocate(&p, info->feature_count, sizeof *info->features);
    info->constants = allocate(&p, info->feature_count, sizeof *info->constants);
    for (size_t i = 0; i < info->feature_count && p.status == SAP_OK; i++)
        parse_feature(&p, json_array_get(list, i), &info->features[i], &info->constants[i]);
    return p.status;
}

sap_status sap_info_load(const char *path, sap_info *out, sap_error *err) {
    *out = (sap_info){0};
    SAP_TRY(sap_file_load(path, JSON_LIMIT, &out->json, NULL, err));
    json_error_t where;
    json_t *json = json_loads(out->json, 0, &where);
    parser p = {.path = path, .info = out, .err = err};
    if (!json)
        p.status =
            sap_error_set(err, SAP_EFORMAT, "%s: line %d, column %d: %s", path, where.line, where.column, where.text);
    else if (!json_is_object(json))
        p.status = sap_error_set(err, SAP_EFORMAT, "%s: holds no object", path);
    else
        parse_info(&p, json);
    json_decref(json);
    if (p.status != SAP_OK)
        sap_info_release(out);
    return p.status;
}

void sap_info_release(sap_info *info) {
    free(info->json);
    sap_arena_release(&info->arena);
    *info = (sap_info){0};
}

static const char *feature_name(const void *context, size_t index) {
    return ((const sap_info *)context)->features[index].name;
}

sap_status sap_info_find(const sap_info *info, const char *name, const char *where, size_t *index, sap_error *err) {
    for (size_t i = 0; i < info->feature_count; i++) {
        if (strcmp(info->features[i].name, name) == 0) {
            *index = i;
            return SAP_OK;
        }
    }
    char nearest[300];
    sap_text_nearest(name, info->feature_count, feature_name, info, nearest, sizeof nearest);
    return sap_error_set(err, SAP_ENOTFOUND, "%s: has no feature \"%s\"%s", where, name, nearest);
}

/* ---- Datasets --------------------------------------------------------------------------------------------------- */

sap_status sap_dataset_open(const char *folder, sap_dataset **out, sap_error *err) {
    sap_dataset *dataset = calloc(1, sizeof *dataset);
    sap_text path = {0};
    sap_text_add(&path, "%s/%s", folder, SAP_DATASET_JSON);
    if (dataset)
        dataset->folder = strdup(folder);
    sap_status status = dataset && dataset->folder && !path.failed ? SAP_OK : sap_error_memory(err, folder);
    struct stat info;
    if (status == SAP_OK && stat(path.data, &info) != 0) {
        char *partial = NULL;
        bool begun = asprintf(&partial, "%s.partial", folder) > 0 && sap_path_exists(partial);
        status = sap_error_set(err, SAP_ENOTFOUND, "%s: is not a dataset: it has no %s%s", folder, SAP_DATASET_JSON,
                               begun ? " (its preparation was interrupted: run it again to go on)" : "");
        free(partial);
    }
    if (status == SAP_OK)
        status = sap_info_load(path.data, &dataset->info, err);
    for (size_t i = 0; i < dataset->info.part_count && status == SAP_OK; i++) {
        sap_part *part = &dataset->info.parts[i];
        part->path = sap_arena_format(&dataset->info.arena, "%s/%s", folder, part->file);
        if (!part->path)
            status = sap_error_memory(err, folder);
    }
    sap_text_release(&path);
    if (status == SAP_OK)
        *out = dataset;
    else
        sap_dataset_close(dataset);
    return status;
}

void sap_dataset_close(sap_dataset *dataset) {
    if (!dataset)
        return;
    sap_info_release(&dataset->info);
    free(dataset->folder);
    free(dataset);
}

const char *sap_dataset_folder(const sap_dataset *dataset) {
    return dataset->folder;
}

sap_dataset_layout sap_dataset_get_layout(const sap_dataset *dataset) {
    return dataset->info.layout;
}

size_t sap_dataset_feature_count(const sap_dataset *dataset) {
    return dataset->info.feature_count;
}

const sap_feature *sap_dataset_feature(const sap_dataset *dataset, size_t index) {
    return index < dataset->info.feature_count ? &dataset->info.features[index] : NULL;
}

size_t sap_dataset_label_count(const sap_dataset *dataset) {
    return dataset->info.label_count;
}

const char *sap_dataset_label(const sap_dataset *dataset, size_t index) {
    return index < dataset->info.label_count ? dataset->info.labels[index] : NULL;
}

const char *sap_dataset_json(const sap_dataset *dataset) {
    return dataset->info.json;
}

bool sap_dataset_is_ordered(const sap_dataset *dataset) {
    return dataset->info.ordered;
}

/* Whether the dataset's layout has that split at all. */
/* Files of others have what they were given as. */
static bool any_part(const sap_dataset *dataset, const char *split) {
    size_t i = 0;
    while (i < dataset->info.part_count && strcmp(dataset->info.parts[i].split, split) != 0)
        i++;
    return i < dataset->info.part_count;
}

static bool has_split(const sap_dataset *dataset, const char *split) {
    if (dataset->info.layout == SAP_LAYOUT_FILES)
        return any_part(dataset, split);
    return dataset->info.layout == SAP_LAYOUT_RAW ? strcmp(split, "all") == 0
                                                  : strcmp(split, "train") == 0 || strcmp(split, "test") == 0;
}

/* Whether a part holds events of the split (the published layout has each event twice). */
static bool in_split(const sap_dataset *dataset, const sap_part *part, const char *split) {
    return strcmp(part->split, split) == 0 &&
           (dataset->info.layout != SAP_LAYOUT_PUBLISHED || strstr(part->file, "HLF_features") != NULL);
}

int64_t sap_dataset_rows(const sap_dataset *dataset, const char *split) {
    if (!has_split(dataset, split))
        return -1;
    int64_t rows = 0;
    for (size_t i = 0; i < dataset->info.part_count; i++)
        rows += in_split(dataset, &dataset->info.parts[i], split) ? dataset->info.parts[i].rows : 0;
    return rows;
}

size_t sap_dataset_part_count(const sap_dataset *dataset, const char *split) {
    size_t count = 0;
    for (size_t i = 0; i < dataset->info.part_count; i++)
        count += in_split(dataset, &dataset->info.parts[i], split);
    return count;
}

sap_status sap_dataset_find_part(const sap_dataset *dataset, const char *split, size_t index, const sap_part **out,
                                 sap_error *err) {
    if (dataset->info.layout == SAP_LAYOUT_PUBLISHED)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: has the published layout: its files are read by their columns, as others' are",
                             dataset->folder);
    if (!has_split(dataset, split)) {
        bool whole = dataset->info.layout == SAP_LAYOUT_RAW || any_part(dataset, "all");
        return sap_error_set(err, SAP_ENOTFOUND, "%s: has no part \"%s\"; it has %s", dataset->folder, split,
                             whole ? "\"all\"" : "\"train\" and \"test\"");
    }
    for (size_t i = 0; i < dataset->info.part_count; i++) {
        *out = &dataset->info.parts[i];
        if (in_split(dataset, *out, split) && index-- == 0)
            return SAP_OK;
    }
    return sap_error_set(err, SAP_EARGUMENT, "%s: \"%s\" has fewer part files", dataset->folder, split);
}

sap_status sap_dataset_open_part(const sap_dataset *dataset, const sap_part *part, const sap_field *fields,
                                 int32_t count, sap_part_reader **out, sap_error *err) {
    struct stat info;
    if (stat(part->path, &info) != 0)
        return sap_error_errno(err, part->path);
    bool foreign = dataset->info.layout == SAP_LAYOUT_FILES;
    if (info.st_size != part->bytes)
        return sap_error_set(err, SAP_EFORMAT, "%s: has %lld bytes, %s %lld", part->path, (long long)info.st_size,
                             foreign ? "a moment ago it had" : SAP_DATASET_JSON " says", (long long)part->bytes);
    return foreign ? sap_part_open_foreign(&dataset->info, part, fields, count, out, err)
                   : sap_part_open(part->path, dataset->info.format, fields, count, 0, out, err);
}

sap_status sap_dataset_read_part(const sap_dataset *dataset, const char *split, size_t index, const sap_run *run,
                                 sap_batch *out, sap_error *err) {
    const sap_part *part;
    SAP_TRY(sap_dataset_find_part(dataset, split, index, &part, err));
    sap_arena arena = {0};
    sap_batch *batches = NULL;
    size_t count = 0, capacity = 0;
    sap_part_reader *reader = NULL;
    int64_t rows = 0;
    const sap_info *info = &dataset->info;
    sap_field *fields = sap_event_fields(info->features, info->feature_count, &arena);
    sap_status status = fields ? sap_dataset_open_part(dataset, part, fields,
                                                       (int32_t)info->feature_count + SAP_EVENT_COLUMNS, &reader, err)
                               : sap_error_memory(err, dataset->folder);
    while (status == SAP_OK) {
        status = sap_run_check(run, err);
        if (status == SAP_OK && !sap_grow((void **)&batches, &capacity, count, sizeof *batches))
            status = sap_error_memory(err, dataset->folder);
        if (status == SAP_OK)
            status = sap_part_next(reader, &batches[count], err);
        if (status != SAP_OK || batches[count].length == 0)
            break;
        rows += batches[count++].length;
    }
    if (status == SAP_OK && rows != part->rows)
        status = sap_error_set(err, SAP_EFORMAT, "%s: has %lld events, %s says %lld", part->path, (long long)rows,
                               SAP_DATASET_JSON, (long long)part->rows);
    if (status == SAP_OK)
        status = sap_batch_join(batches, count, out, err);
    for (size_t i = 0; i < count; i++)
        sap_batch_release(&batches[i]);
    free(batches);
    sap_part_close(reader);
    sap_arena_release(&arena);
    return status;
}
