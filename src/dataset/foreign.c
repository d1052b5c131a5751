/* Files of others as a dataset: which files there are, which of their columns are meant, and how many rows they hold. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { NUMBERED_SHARDS = 32 }; /* so many part numbers make files shards */

typedef struct listing {
    char **paths; /* in the arena */
    size_t count, capacity;
} listing;

/* A column of numbers, and how many its first row has. */
typedef struct probe {
    const char *name;
    int64_t values;
} probe;

typedef struct opening {
    const char *path;
    const sap_files_options *options;
    sap_info *info;
    bool resolved; /* info's columns are known */
} opening;

/* ---- Files ---------------------------------------------------------------------------------------------------- */

static sap_status add_path(listing *out, sap_arena *arena, const char *path, sap_error *err) {
    char *copy = sap_arena_text(arena, path, strlen(path));
    if (!copy || !sap_grow((void **)&out->paths, &out->capacity, out->count, sizeof *out->paths))
        return sap_error_memory(err, path);
    out->paths[out->count++] = copy;
    return SAP_OK;
}

static int by_name(const void *a, const void *b) {
    return sap_text_natural(*(char *const *)a, *(char *const *)b);
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Entries of a folder whose names begin with `prefix`, but for those that tools leave beside their data. */
static sap_status list_folder(listing *out, sap_arena *arena, const char *folder, const char *prefix, sap_error *err) {
    DIR *stream = opendir(folder);
    if (!stream)
        return sap_error_errno(err, folder);
    sap_status status = SAP_OK;
    for (struct dirent *entry; status == SAP_OK && (entry = readdir(stream));) {
        const char *name = entry->d_name;
        if (*name == '.' || *name == '_' || strcmp(name, SAP_DATASET_JSON) == 0 ||
            strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        char *path = sap_arena_format(arena, "%s/%s", folder, name);
        status = path ? add_path(out, arena, path, err) : sap_error_memory(err, folder);
    }
    closedir(stream);
    if (out->count > 0)
        qsort(out->paths, out->count, sizeof *out->paths, by_name);
    return status;
}

/* The files of a table: itself, or those in it. */
static sap_status list_table(listing *out, sap_arena *arena, const char *path, sap_error *err) {
    if (!is_folder(path))
        return add_path(out, arena, path, err);
    listing all = {0};
    sap_status status = list_folder(&all, arena, path, "", err);
    for (size_t i = 0; i < all.count && status == SAP_OK; i++)
        if (!is_folder(all.paths[i]))
            status = add_path(out, arena, all.paths[i], err);
    free(all.paths);
    return status;
}

/* The files that a path or pattern names. */
static sap_status list_pattern(listing *out, sap_arena *arena, const char *pattern, sap_error *err) {
    if (sap_path_exists(pattern))
        return list_table(out, arena, pattern, err);
    glob_t found;
    int result = glob(pattern, 0, NULL, &found);
    if (result == GLOB_NOSPACE)
        return sap_error_memory(err, pattern);
    if (result != 0)
        return sap_error_set(err, SAP_ENOTFOUND, "%s: there is no such file or folder", pattern);
    sap_status status = SAP_OK;
    for (size_t i = 0; i < found.gl_pathc && status == SAP_OK; i++)
        status = list_table(out, arena, found.gl_pathv[i], err);
    globfree(&found);
    if (out->count > 0)
        qsort(out->paths, out->count, sizeof *out->paths, by_name);
    return status;
}

static sap_status find_format(const char *path, sap_dataset_format *out, sap_error *err) {
    char magic[4] = {0};
    FILE *file = fopen(path, "rbe");
    if (!file)
        return sap_error_errno(err, path);
    size_t got = fread(magic, 1, sizeof magic, file);
    (void)fclose(file);
    *out = got == sizeof magic && memcmp(magic, "PAR1", 4) == 0 ? SAP_DATASET_PARQUET : SAP_DATASET_TFRECORD;
    return SAP_OK;
}

static sap_status parquet_rows(const char *path, struct ArrowSchema *schema, int64_t *rows, sap_error *err) {
    const void *table;
    SAP_TRY(sap_plugin_find("parquet", &table, err));
    return ((const sap_parquet_table *)table)->describe(path, schema, rows, err);
}

static sap_status count_rows(const char *path, sap_dataset_format format, int64_t *rows, sap_error *err) {
    struct ArrowSchema schema;
    if (format == SAP_DATASET_TFRECORD)
        return sap_tfrecord_count(path, rows, err);
    SAP_TRY(parquet_rows(path, &schema, rows, err));
    schema.release(&schema);
    return SAP_OK;
}

/* ---- Columns --------------------------------------------------------------------------------------------------- */

typedef struct probing {
    sap_arena *arena;
    probe *items; /* malloc'ed */
    size_t count, capacity;
} probing;

static sap_status add_probe(void *context, const char *name, size_t length, int64_t values, sap_error *err) {
    probing *p = context;
    char *copy = sap_arena_text(p->arena, name, length);
    if (!copy || !sap_grow((void **)&p->items, &p->capacity, p->count, sizeof *p->items))
        return sap_error_memory(err, "columns");
    p->items[p->count++] = (probe){copy, values};
    return SAP_OK;
}

/* How many numbers the first row has in each column that was found. */
static sap_status measure_columns(probing *p, const char *path, sap_error *err) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT32};
    sap_field *fields = calloc(p->count + 1, sizeof *fields);
    sap_part_reader *reader = NULL;
    sap_batch batch = {0};
    for (size_t i = 0; fields && i < p->count; i++)
        fields[i] = (sap_field){.name = p->items[i].name, .type = SAP_LIST, .count = 1, .children = &item};
    sap_status status = fields ? sap_part_open(path, SAP_DATASET_PARQUET, fields, (int32_t)p->count, 1, &reader, err)
                               : sap_error_memory(err, path);
    if (status == SAP_OK)
        status = sap_part_next(reader, &batch, err);
    for (size_t i = 0; i < p->count && status == SAP_OK; i++)
        p->items[i].values = batch.length > 0 ? batch.columns[i].offsets[1] : 0;
    sap_batch_release(&batch);
    sap_part_close(reader);
    free(fields);
    return status;
}

static sap_status probe_parquet(probing *p, const char *path, sap_error *err) {
    struct ArrowSchema schema;
    int64_t rows;
    SAP_TRY(parquet_rows(path, &schema, &rows, err));
    sap_status status = SAP_OK;
    for (int64_t i = 0; i < schema.n_children && status == SAP_OK; i++)
        if (sap_arrow_has_numbers(schema.children[i]))
            status = add_probe(p, schema.children[i]->name, strlen(schema.children[i]->name), 0, err);
    schema.release(&schema);
    return status == SAP_OK && p->count > 0 ? measure_columns(p, path, err) : status;
}

static const char *probe_name(const void *context, size_t index) {
    return ((const probing *)context)->items[index].name;
}

static const probe *find_probe(const probing *p, const char *name) {
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->items[i].name, name) == 0)
            return &p->items[i];
    return NULL;
}

/* Whether a row of so many numbers can be this input; exactly: padded sequences only. */
static bool fits(const sap_files_input *input, int64_t values, bool exactly) {
    if (input->rows == 0)
        return values == input->width;
    bool whole = values % input->width == 0, known = input->rows > 0;
    return whole && values > 0 &&
           (!known || (exactly ? values == input->rows * input->width : values <= input->rows * input->width));
}

static bool is_network_input(const char *name) {
    size_t length = strlen(name);
    return length > 6 && strcmp(name + length - 6, "_input") == 0;
}

/* The only column that has the input's size; of several, the one called …_input, as the published ones are. */
static const probe *find_by_size(const probing *p, const sap_files_input *input, const char *label,
                                 const char *weight) {
    const probe *found[2] = {NULL, NULL}; /* of any name, of that name */
    int count[2] = {0, 0};
    for (size_t i = 0; i < p->count; i++) {
        const char *name = p->items[i].name;
        if (!fits(input, p->items[i].values, true) || strcmp(name, label) == 0 || (weight && strcmp(name, weight) == 0))
            continue;
        for (int k = 0; k < 1 + is_network_input(name); k++) {
            found[k] = &p->items[i];
            count[k]++;
        }
    }
    return count[0] == 1 ? found[0] : count[1] == 1 ? found[1] : NULL;
}

static sap_status unmatched(const probing *p, const sap_files_input *input, const char *path, sap_error *err) {
    sap_text have = {0};
    for (size_t i = 0; i < p->count; i++)
        sap_text_add(&have, "%s%s of %lld", i ? ", " : "", p->items[i].name, (long long)p->items[i].values);
    char size[60];
    (void)snprintf(size, sizeof size, input->rows > 0 ? "%d x %lld" : "%d", input->width, (long long)input->rows);
    sap_status status = sap_error_set(
        err, SAP_ENOTFOUND,
        "%s: which column is the network's input \"%s\" of %s numbers? There are %s: say so by --inputs %s=COLUMN",
        path, input->name, size, have.data ? have.data : "none", input->name);
    sap_text_release(&have);
    return status;
}

static sap_status match_input(const probing *p, const sap_files_input *input, const char *path, const char *label,
                              const char *weight, const char **out, sap_error *err) {
    const probe *found = input->column ? find_probe(p, input->column) : NULL;
    if (input->column && !found) {
        char nearest[300];
        sap_text_nearest(input->column, p->count, probe_name, p, nearest, sizeof nearest);
        return sap_error_set(err, SAP_ENOTFOUND, "%s: has no column \"%s\" of numbers%s", path, input->column, nearest);
    }
    if (found && !fits(input, found->values, false))
        return sap_error_set(err, SAP_ETYPE,
                             "%s: column \"%s\" has %lld numbers in its first row, the network's input "
                             "\"%s\" takes %s%lld",
                             path, found->name, (long long)found->values, input->name,
                             input->rows ? "a multiple of " : "", (long long)input->width);
    if (!found) {
        found = find_probe(p, input->name);
        if (!found || !fits(input, found->values, false))
            found = find_by_size(p, input, label, weight);
    }
    if (!found)
        return unmatched(p, input, path, err);
    *out = found->name;
    return SAP_OK;
}

/* Looks for all columns in a file that is not empty. */
static sap_status resolve(opening *o, const char *path, sap_dataset_format format, sap_error *err) {
    sap_info *info = o->info;
    const sap_files_options *options = o->options;
    probing p = {.arena = &info->arena};
    sap_status status =
        format == SAP_DATASET_PARQUET ? probe_parquet(&p, path, err) : sap_tfrecord_describe(path, add_probe, &p, err);
    for (size_t i = 0; i < options->input_count && status == SAP_OK; i++) {
        sap_files_input input = options->inputs[i];
        const char *before = o->resolved ? info->columns[i] : NULL;
        input.column = before ? before : input.column;
        status = match_input(&p, &input, path, info->label_column, options->weight, &info->columns[i], err);
        const probe *found = status == SAP_OK ? find_probe(&p, info->columns[i]) : NULL;
        if (found && !before)
            info->features[i].pad_rows = (int32_t)(input.rows > 0   ? input.rows
                                                   : input.rows < 0 ? found->values / input.width
                                                                    : 0);
    }
    const char *needed[2] = {info->label_column, options->weight};
    for (int k = 0; k < 2 && status == SAP_OK; k++) {
        const probe *found = needed[k] ? find_probe(&p, needed[k]) : NULL;
        char nearest[300];
        sap_text_nearest(needed[k] ? needed[k] : "", p.count, probe_name, &p, nearest, sizeof nearest);
        if (needed[k] && !found)
            status = sap_error_set(err, SAP_ENOTFOUND, "%s: has no column \"%s\" for %s%s", path, needed[k],
                                   k ? "weights" : "labels", nearest);
        else if (found && k == 1 && found->values != 1)
            status = sap_error_set(err, SAP_ETYPE, "%s: column \"%s\" cannot weigh events: it has %lld numbers", path,
                                   needed[k], (long long)found->values);
        else if (found && k == 0 && !o->resolved)
            info->label_count = (size_t)(found->values == 1 && options->classes > 1 ? options->classes : found->values);
    }
    o->resolved = o->resolved || status == SAP_OK;
    free(p.items);
    return status;
}

/* ---- Tables ----------------------------------------------------------------------------------------------------------- */

/* "part-00007…" and "part-r-00007…": 7; -1: not numbered so. */
static int64_t part_number(const char *path) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (strncmp(name, "part-", 5) != 0)
        return -1;
    name += strncmp(name + 5, "r-", 2) == 0 || strncmp(name + 5, "m-", 2) == 0 ? 7 : 5;
    return *name >= '0' && *name <= '9' ? (int64_t)(strtoull(name, NULL, 10) % SAP_DATASET_SHARDS) : -1;
}

static int by_shard(const void *a, const void *b) {
    const sap_part *x = a, *y = b;
    return x->shard != y->shard ? (x->shard > y->shard) - (x->shard < y->shard) : sap_text_natural(x->file, y->file);
}

/* Files of numbered parts are shards; others are cut into shards of equal size when they are read. */
static void set_shards(sap_part *parts, size_t count) {
    bool seen[SAP_DATASET_SHARDS] = {0};
    int shards = 0;
    bool numbered = true;
    for (size_t i = 0; i < count; i++) {
        int64_t number = part_number(parts[i].file);
        numbered = numbered && number >= 0;
        parts[i].shard = (int32_t)number;
        if (number >= 0 && !seen[number]) {
            seen[number] = true;
            shards++;
        }
    }
    for (size_t i = 0; i < count; i++)
        if (!numbered || shards < NUMBERED_SHARDS)
            parts[i].shard = -1;
    if (count > 0)
        qsort(parts, count, sizeof *parts, by_shard);
}

/* Makes the files parts of the split. Tables whose columns are not those that are looked for are an error. */
static sap_status add_table(opening *o, const listing *files, const char *split, sap_error *err) {
    sap_info *info = o->info;
    bool looked = false;
    sap_part *parts = sap_arena_array(&info->arena, info->part_count + files->count + 1, sizeof *parts);
    if (!parts)
        return sap_error_memory(err, o->path);
    size_t count = 0;
    sap_part *mine = parts + info->part_count;
    for (size_t i = 0; i < files->count; i++) {
        sap_dataset_format format = SAP_DATASET_TFRECORD;
        struct stat file;
        int64_t rows = 0;
        SAP_TRY(find_format(files->paths[i], &format, err));
        SAP_TRY(count_rows(files->paths[i], format, &rows, err));
        if (stat(files->paths[i], &file) != 0)
            return sap_error_errno(err, files->paths[i]);
        if (rows == 0)
            continue;
        if (o->resolved && format != info->format)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: some of its files are Parquet, others TFRecord", o->path);
        if (!looked)
            SAP_TRY(resolve(o, files->paths[i], format, err));
        looked = true;
        info->format = format;
        mine[count++] = (sap_part){
            .file = files->paths[i], .path = files->paths[i], .split = split, .rows = rows, .bytes = file.st_size};
    }
    set_shards(mine, count);
    if (info->part_count > 0)
        memcpy(parts, info->parts, info->part_count * sizeof *parts);
    info->parts = parts;
    info->part_count += count;
    return SAP_OK;
}

/* Of the tables whose names begin with the split's, the first that has all columns. */
static sap_status add_split(opening *o, const char *split, size_t *found, sap_error *err) {
    listing tables = {0};
    sap_status status = list_folder(&tables, &o->info->arena, o->path, split, err);
    bool added = false;
    *found = tables.count;
    for (size_t i = 0; i < tables.count && !added && (status == SAP_OK || status == SAP_ENOTFOUND); i++) {
        listing files = {0};
        status = list_table(&files, &o->info->arena, tables.paths[i], err);
        if (status == SAP_OK)
            status = add_table(o, &files, split, err);
        added = status == SAP_OK;
        free(files.paths);
    }
    free(tables.paths);
    return status;
}

static sap_status add_files(opening *o, const char *pattern, const char *split, sap_error *err) {
    listing files = {0};
    sap_status status = list_pattern(&files, &o->info->arena, pattern, err);
    size_t before = o->info->part_count;
    if (status == SAP_OK)
        status = add_table(o, &files, split, err);
    if (status == SAP_OK && o->info->part_count == before)
        status = sap_error_set(err, SAP_EDATA,
                               "%s: is no dataset (it has no " SAP_DATASET_JSON
                               "), nor are there Parquet or TFRecord files with rows",
                               pattern);
    free(files.paths);
    return status;
}

static sap_status add_all(opening *o, sap_error *err) {
    size_t train = 0, test = 0;
    if (is_folder(o->path)) {
        SAP_TRY(add_split(o, "train", &train, err));
        if (!o->options->validation)
            SAP_TRY(add_split(o, "test", &test, err));
    }
    if (train + test == 0)
        SAP_TRY(add_files(o, o->path, "all", err));
    return o->options->validation ? add_files(o, o->options->validation, "test", err) : SAP_OK;
}

/* ---- The description ------------------------------------------------------------------------------------------------- */

/* Names of the labels: given, those of a dataset.json in the same folder, or numbers. */
static sap_status name_labels(opening *o, sap_error *err) {
    sap_info *info = o->info, beside = {0};
    const char *const *names = o->options->labels;
    size_t count = o->options->label_count;
    char *path = sap_arena_format(&info->arena, "%s/%s", o->path, SAP_DATASET_JSON);
    if (!names && path && sap_path_exists(path) && sap_info_load(path, &beside, NULL) == SAP_OK &&
        beside.label_count == info->label_count) {
        names = beside.labels;
        count = beside.label_count;
    }
    info->labels = sap_arena_array(&info->arena, info->label_count + 1, sizeof *info->labels);
    sap_status status = info->labels && path ? SAP_OK : sap_error_memory(err, o->path);
    if (status == SAP_OK && names && count != info->label_count)
        status = sap_error_set(err, SAP_ETYPE, "%s: column \"%s\" is of %zu classes, not %zu", o->path,
                               info->label_column, info->label_count, count);
    for (size_t i = 0; i < info->label_count && status == SAP_OK; i++) {
        info->labels[i] =
            names ? sap_arena_text(&info->arena, names[i], strlen(names[i])) : sap_arena_format(&info->arena, "%zu", i);
        if (!info->labels[i])
            status = sap_error_memory(err, o->path);
    }
    sap_info_release(&beside);
    return status;
}

static sap_status describe(sap_info *info, const char *where, sap_error *err) {
    json_t *labels = json_array(), *features = json_array(), *files = json_array();
    for (size_t i = 0; i < info->label_count; i++)
        json_array_append_new(labels, json_string(info->labels[i]));
    for (size_t i = 0; i < info->feature_count; i++) {
        json_t *feature = sap_feature_json(&info->features[i]);
        json_object_set_new(feature, "column", json_string(info->columns[i]));
        json_object_set_new(feature, "constants", json_null());
        json_array_append_new(features, feature);
    }
    for (size_t i = 0; i < info->part_count; i++)
        json_array_append_new(files, json_pack("{s:s, s:s, s:I, s:I}", "file", info->parts[i].file, "split",
                                               info->parts[i].split, "rows", (json_int_t)info->parts[i].rows, "bytes",
                                               (json_int_t)info->parts[i].bytes));
    json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:[]}", "format_version",
                             SAP_DATASET_FORMAT_VERSION, "sapwood_version", sap_version(), "layout",
                             sap_layout_name(SAP_LAYOUT_FILES), "format", sap_format_name(info->format), "label_column",
                             info->label_column, "labels", labels, "features", features, "files", files, "parts");
    info->json = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    return info->json ? SAP_OK : sap_error_memory(err, where);
}

/* The inputs, and the weight, as features of scaled values. */
static sap_status set_features(opening *o, sap_error *err) {
    sap_info *info = o->info;
    const sap_files_options *options = o->options;
    info->layout = SAP_LAYOUT_FILES;
    info->ordered = true;
    info->label_column = sap_arena_format(&info->arena, "%s", options->label ? options->label : "encoded_label");
    info->feature_count = options->input_count + (options->weight != NULL);
    info->features = sap_arena_array(&info->arena, info->feature_count, sizeof *info->features);
    info->constants = sap_arena_array(&info->arena, info->feature_count, sizeof *info->constants);
    info->columns = sap_arena_array(&info->arena, info->feature_count, sizeof *info->columns);
    if (!info->label_column || !info->features || !info->constants || !info->columns)
        return sap_error_memory(err, o->path);
    for (size_t i = 0; i < info->feature_count; i++) {
        sap_feature *feature = &info->features[i];
        sap_files_input weight = {.name = options->weight, .width = 1};
        const sap_files_input *input = i < options->input_count ? &options->inputs[i] : &weight;
        if (input->width < 1 || input->rows > SAP_SEQUENCE_MAX_ROWS ||
            (input->rows != 0 && input->width > SAP_SEQUENCE_MAX_WIDTH))
            return sap_error_set(err, SAP_EUNSUPPORTED, "the network's input \"%s\" is too large", input->name);
        const char **names = sap_arena_array(&info->arena, (size_t)input->width, sizeof *names);
        for (int32_t j = 0; names && j < input->width; j++)
            names[j] = sap_arena_format(&info->arena, "%d", j);
        feature->name = sap_arena_format(&info->arena, "%s", input->name);
        feature->value_names = names;
        feature->width = input->width;
        feature->sequence = input->rows != 0;
        if (!names || !names[input->width - 1] || !feature->name)
            return sap_error_memory(err, o->path);
    }
    if (options->weight)
        info->columns[options->input_count] = info->features[options->input_count].name;
    return SAP_OK;
}

sap_status sap_dataset_open_files(const char *path, const sap_files_options *options, sap_dataset **out,
                                  sap_error *err) {
    if (options->input_count < 1)
        return sap_error_set(err, SAP_EARGUMENT, "%s: no inputs to look for", path);
    sap_dataset *dataset = calloc(1, sizeof *dataset);
    if (!dataset)
        return sap_error_memory(err, path);
    dataset->folder = strdup(path);
    opening o = {.path = path, .options = options, .info = &dataset->info};
    sap_status status = dataset->folder ? set_features(&o, err) : sap_error_memory(err, path);
    if (status == SAP_OK)
        status = add_all(&o, err);
    if (status == SAP_OK && dataset->info.part_count == 0)
        status = sap_error_set(err, SAP_EDATA, "%s: has no rows", path);
    if (status == SAP_OK)
        status = name_labels(&o, err);
    if (status == SAP_OK)
        status = describe(&dataset->info, path, err);
    if (status == SAP_OK)
        *out = dataset;
    else
        sap_dataset_close(dataset);
    return status;
}
