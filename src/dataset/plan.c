/* Datasets being written: the plan, OUT.partial/ with what an earlier call left there, and the inputs one after another. */
#include "dataset_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PLAN_LIMIT = 256 << 20,  /* bytes of plan.json that are read */
    SEGMENT_BYTES = 64 << 20 /* of the spool */
};

uint64_t sap_identity(const char *sample, const char *file, int64_t entry) {
    char text[4096];
    size_t length = (size_t)snprintf(text, sizeof text - 8, "%s%c%s%c", sample, 0, file, 0);
    if (length > sizeof text - 9) /* names beyond any file system's limits */
        length = sizeof text - 9;
    for (int i = 0; i < 8; i++)
        text[length++] = (char)((uint64_t)entry >> (8 * i));
    return sap_hash(text, length, 0);
}

char *sap_writer_path(const sap_dataset_writer *writer, const char *format, ...) {
    sap_text path = {0};
    va_list arguments;
    va_start(arguments, format);
    char name[256];
    (void)vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    sap_text_add(&path, "%s%s%s", writer->partial, *name ? "/" : "", name);
    if (path.failed)
        sap_text_release(&path);
    return path.data;
}

/* ---- The plan: checked, copied, described ------------------------------------------------------------------- */

static sap_status check_feature(const sap_feature *f, sap_error *err) {
    const char *wrong = NULL;
    if (!f->name || !*f->name)
        return sap_error_set(err, SAP_EARGUMENT, "a feature has no name");
    if (f->width < 1 || (f->sequence && f->width > SAP_SEQUENCE_MAX_WIDTH))
        wrong = "has a width that cannot be";
    else if (f->pad_rows < 0 || f->pad_rows > SAP_SEQUENCE_MAX_ROWS || (f->pad_rows > 0 && !f->sequence))
        wrong = "has pad_rows that make no sense";
    else if (f->scaling == SAP_SCALING_STANDARD_EVENT && f->pad_rows == 0)
        wrong = "is scaled event by event, which takes a sequence with pad_rows";
    else if (f->order != SAP_ORDER_NONE && (!f->sequence || f->eta_index < 0 || f->eta_index >= f->width ||
                                            f->phi_index < 0 || f->phi_index >= f->width))
        wrong = "is ordered by delta R, which takes a sequence with eta and phi";
    for (size_t i = 0; i < SAP_EVENT_COLUMNS && !wrong; i++)
        if (strcmp(f->name, (const char *const[]){"label", "sample", "file", "entry"}[i]) == 0)
            wrong = "has a name that datasets use themselves";
    return wrong ? sap_error_set(err, SAP_EARGUMENT, "feature \"%s\" %s", f->name, wrong) : SAP_OK;
}

static sap_status check_published(const sap_dataset_plan *plan, sap_error *err) {
    size_t plain = 0, sequences = 0;
    for (size_t i = 0; i < plan->feature_count; i++) {
        if (sap_feature_values(&plan->features[i]) > INT32_MAX)
            return sap_error_set(err, SAP_EARGUMENT, "feature \"%s\" has too many values for the published layout",
                                 plan->features[i].name);
        plain += !plan->features[i].sequence;
        sequences += plan->features[i].sequence && plan->features[i].pad_rows > 0;
    }
    if (plain == 1 && sequences == 1 && plan->feature_count == 2)
        return SAP_OK;
    return sap_error_set(
        err, SAP_EARGUMENT,
        "the published layout takes a recipe with one plain feature and one sequence with a dense form, "
        "as \"topology\" has; \"%s\" has others",
        plan->recipe ? plan->recipe : "?");
}

static sap_status check_plan(const sap_dataset_plan *plan, sap_error *err) {
    if (plan->input_count == 0 || plan->feature_count == 0)
        return sap_error_set(err, SAP_EARGUMENT, "a dataset needs at least one input file and one feature");
    if (plan->input_count > 99999)
        return sap_error_set(err, SAP_EARGUMENT, "%zu input files; at most 99999 fit", plan->input_count);
    if (!(plan->test_fraction >= 0 && plan->test_fraction < 1))
        return sap_error_set(err, SAP_EARGUMENT, "the test fraction should be at least 0 and below 1, but is %g",
                             plan->test_fraction);
    if (plan->seed > INT64_MAX)
        return sap_error_set(err, SAP_EARGUMENT, "the seed should be below 2^63");
    for (size_t i = 0; i < plan->feature_count; i++) {
        SAP_TRY(check_feature(&plan->features[i], err));
        for (size_t j = 0; j < i; j++)
            if (strcmp(plan->features[i].name, plan->features[j].name) == 0)
                return sap_error_set(err, SAP_EARGUMENT, "two features are called \"%s\"", plan->features[i].name);
    }
    return plan->layout == SAP_LAYOUT_PUBLISHED ? check_published(plan, err) : SAP_OK;
}

static char *copy_text(sap_arena *arena, const char *text) {
    return text ? sap_arena_text(arena, text, strlen(text)) : NULL;
}

/* Size and time of a local file; -1 for what is not known. */
static void look_at(const char *url, int64_t *size, int64_t *mtime_ns) {
    struct stat info;
    const char *path = strncmp(url, "file:", 5) == 0 ? url + 5 : url;
    if (path != url && strncmp(path, "//", 2) == 0) /* the host: none, or this one */
        path += 2 + strcspn(path + 2, "/");
    *size = *mtime_ns = -1;
    if (stat(path, &info) == 0) {
        *size = info.st_size;
        *mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    }
}

static bool copy_input(sap_dataset_writer *w, size_t index, const sap_dataset_input *input, bool look) {
    sap_spooled *s = &w->inputs[index];
    size_t length;
    const char *base = sap_text_base_name(input->url, &length);
    s->sample = copy_text(&w->arena, input->sample);
    s->url = copy_text(&w->arena, input->url);
    s->file = sap_arena_text(&w->arena, base, length);
    s->dropped = sap_arena_array(&w->arena, w->plan.cut_count + 1, sizeof *s->dropped);
    if (!s->sample || !s->url || !s->file || !s->dropped)
        return false;
    s->size = s->mtime_ns = -1;
    if (look)
        look_at(input->url, &s->size, &s->mtime_ns);
    size_t label = 0;
    while (label < w->label_count && strcmp(w->labels[label], s->sample) != 0)
        label++;
    if (label == w->label_count)
        w->labels[w->label_count++] = s->sample;
    s->label = (int32_t)label;
    return true;
}

static bool copy_features(sap_dataset_writer *w, const sap_dataset_plan *plan) {
    sap_feature *features = sap_arena_array(&w->arena, plan->feature_count, sizeof *features);
    for (size_t i = 0; features && i < plan->feature_count; i++) {
        const sap_feature *from = &plan->features[i];
        size_t width = (size_t)from->width;
        const char **names = sap_arena_array(&w->arena, width, sizeof *names);
        features[i] = *from;
        features[i].name = copy_text(&w->arena, from->name);
        features[i].value_names = names;
        if (!features[i].name || !names)
            return false;
        for (size_t j = 0; j < width; j++) {
            names[j] =
                from->value_names ? copy_text(&w->arena, from->value_names[j]) : sap_arena_format(&w->arena, "%zu", j);
            if (!names[j])
                return false;
        }
    }
    w->plan.features = features;
    return features != NULL;
}

static bool copy_plan(sap_dataset_writer *w, const sap_dataset_plan *plan, bool look) {
    w->plan = *plan;
    w->plan.inputs = NULL;
    w->plan.recipe = copy_text(&w->arena, plan->recipe ? plan->recipe : "");
    w->plan.recipe_version = copy_text(&w->arena, plan->recipe_version ? plan->recipe_version : "");
    w->plan.convention = copy_text(&w->arena, plan->convention);
    const char **cuts = sap_arena_array(&w->arena, plan->cut_count + 1, sizeof *cuts);
    w->plan.cuts = cuts;
    w->labels = sap_arena_array(&w->arena, plan->input_count, sizeof *w->labels);
    w->inputs = sap_arena_array(&w->arena, plan->input_count, sizeof *w->inputs);
    if (!w->plan.recipe || !w->plan.recipe_version || (plan->convention && !w->plan.convention) || !cuts ||
        !w->labels || !w->inputs || !copy_features(w, plan))
        return false;
    for (size_t i = 0; i < plan->cut_count; i++) {
        cuts[i] = copy_text(&w->arena, plan->cuts[i]);
        if (!cuts[i])
            return false;
    }
    for (size_t i = 0; i < plan->input_count; i++)
        if (!copy_input(w, i, &plan->inputs[i], look))
            return false;
    w->fields = sap_event_fields(w->plan.features, plan->feature_count, &w->arena);
    w->thin_key = sap_mix(plan->seed, SAP_SALT_THIN);
    w->split_key = sap_mix(plan->seed, SAP_SALT_SPLIT);
    w->order_key = sap_mix(plan->seed, SAP_SALT_ORDER);
    return w->fields != NULL;
}

/* The plan as JSON: equal plans make equal datasets. */
static sap_status describe_plan(sap_dataset_writer *w, sap_error *err) {
    const sap_dataset_plan *plan = &w->plan;
    json_t *features = json_array(), *cuts = json_array(), *inputs = json_array();
    for (size_t i = 0; i < plan->feature_count; i++)
        json_array_append_new(features, sap_feature_json(&plan->features[i]));
    for (size_t i = 0; i < plan->cut_count; i++)
        json_array_append_new(cuts, json_string(plan->cuts[i]));
    for (size_t i = 0; i < plan->input_count; i++) {
        const sap_spooled *s = &w->inputs[i];
        json_array_append_new(inputs, json_pack("{s:s, s:s, s:I, s:I}", "sample", s->sample, "url", s->url, "size",
                                                (json_int_t)s->size, "mtime_ns", (json_int_t)s->mtime_ns));
    }
    w->plan_json =
        json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s?, s:I, s:f, s:b, s:o, s:o, s:o}", "format_version",
                  SAP_DATASET_FORMAT_VERSION, "sapwood_version", sap_version(), "layout", sap_layout_name(plan->layout),
                  "format", sap_format_name(plan->format), "recipe", plan->recipe, "recipe_version",
                  plan->recipe_version, "convention", plan->convention, "seed", (json_int_t)plan->seed, "test_fraction",
                  plan->test_fraction, "balance", plan->balance, "features", features, "cuts", cuts, "inputs", inputs);
    return w->plan_json ? SAP_OK
                        : sap_error_set(err, SAP_EARGUMENT, "%s: the plan has a name that is not UTF-8", w->folder);
}

/* ---- OUT.partial/ --------------------------------------------------------------------------------------------------- */

/* Where two JSON values differ first: a path such as "inputs[2].size" and both values. False: nowhere. */
static bool find_difference(const json_t *old, const json_t *now, sap_text *path, sap_text *what) {
    if (json_equal(old, now))
        return false;
    size_t length = path->length;
    if (json_is_object(old) && json_is_object(now)) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)now, key, value) {
            sap_text_add(path, "%s%s", length ? "." : "", key);
            if (find_difference(json_object_get(old, key), value, path, what))
                return true;
            path->length = length;
        }
    }
    size_t count = json_array_size(now);
    for (size_t i = 0; json_is_array(old) && json_is_array(now) && json_array_size(old) == count && i < count; i++) {
        sap_text_add(path, "[%zu]", i);
        if (find_difference(json_array_get(old, i), json_array_get(now, i), path, what))
            return true;
        path->length = length;
    }
    char *a = json_dumps(old, JSON_ENCODE_ANY | JSON_COMPACT), *b = json_dumps(now, JSON_ENCODE_ANY | JSON_COMPACT);
    sap_text_add(what, "was %.200s and is %.200s now", a ? a : "missing", b ? b : "missing");
    free(a);
    free(b);
    return true;
}

static sap_status compare_plan(const sap_dataset_writer *w, const char *path, sap_error *err) {
    json_error_t where;
    char *text;
    SAP_TRY(sap_file_load(path, PLAN_LIMIT, &text, NULL, err));
    json_t *old = json_loads(text, 0, &where);
    free(text);
    if (!old)
        return sap_error_set(err, SAP_EFORMAT, "%s: line %d: %s; delete the folder %s to start over", path, where.line,
                             where.text, w->partial);
    sap_text at = {0}, what = {0};
    sap_status status = SAP_OK;
    if (find_difference(old, w->plan_json, &at, &what))
        status =
            sap_error_set(err, SAP_EARGUMENT,
                          "%s holds an interrupted run of another plan: %s %s; give the same arguments to go on, or "
                          "delete that folder to start over",
                          w->partial, at.data ? at.data : "the plan", what.data ? what.data : "differs");
    sap_text_release(&at);
    sap_text_release(&what);
    json_decref(old);
    return status;
}

/* A folder of that name which has no plan is only ours when it is empty but for what a kill may have left. */
static sap_status check_foreign(const sap_dataset_writer *w, sap_error *err) {
    DIR *folder = opendir(w->partial);
    if (!folder)
        return sap_error_errno(err, w->partial);
    sap_status status = SAP_OK;
    const struct dirent *entry;
    while (status == SAP_OK && (entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && strcmp(entry->d_name, "lock") != 0 &&
            strcmp(entry->d_name, "plan.json.partial") != 0)
            status =
                sap_error_set(err, SAP_EARGUMENT,
                              "%s exists and holds %s but no plan.json: not an interrupted run; delete or rename it",
                              w->partial, entry->d_name);
    closedir(folder);
    return status;
}

static sap_status make_folder(const sap_dataset_writer *w, const char *name, sap_error *err) {
    char *path = sap_writer_path(w, "%s", name);
    sap_status status = path ? sap_folder_make(path, err) : sap_error_memory(err, w->partial);
    free(path);
    return status;
}

/* Two processes that write the same dataset would spoil each other's files. */
static sap_status lock_folder(sap_dataset_writer *w, sap_error *err) {
    char *path = sap_writer_path(w, "lock");
    if (!path)
        return sap_error_memory(err, w->partial);
    w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    sap_status status = w->lock < 0 ? sap_error_errno(err, path) : SAP_OK;
    free(path);
    if (status == SAP_OK && flock(w->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        status = sap_error_set(err, SAP_EARGUMENT, "%s: another process is writing this dataset", w->partial);
    return status;
}

static sap_status open_partial(sap_dataset_writer *w, sap_error *err) {
    SAP_TRY(make_folder(w, "", err));
    SAP_TRY(lock_folder(w, err));
    char *path = sap_writer_path(w, "plan.json");
    if (!path)
        return sap_error_memory(err, w->partial);
    sap_status status;
    if (sap_path_exists(path)) {
        status = compare_plan(w, path, err);
        for (size_t i = 0; i < w->plan.input_count && status == SAP_OK; i++)
            status = sap_spool_find(w, i, err);
    } else {
        status = check_foreign(w, err);
        char *text = status == SAP_OK ? json_dumps(w->plan_json, JSON_INDENT(1)) : NULL;
        if (status == SAP_OK)
            status = text ? sap_file_store(path, text, strlen(text), err) : sap_error_memory(err, path);
        free(text);
    }
    free(path);
    if (status == SAP_OK)
        status = make_folder(w, "spool", err);
    if (status == SAP_OK)
        status = make_folder(w, "whole", err);
    return status;
}

/* ---- The writer -------------------------------------------------------------------------------------------------------- */

sap_status sap_writer_init(const char *folder, const sap_dataset_plan *plan, bool look, sap_dataset_writer **out,
                           sap_error *err) {
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    if (length == 0 || (length == 1 && folder[0] == '/'))
        return sap_error_set(err, SAP_EARGUMENT, "\"%s\" cannot be a dataset's folder", folder);
    SAP_TRY(check_plan(plan, err));
    sap_dataset_writer *w = calloc(1, sizeof *w);
    if (!w)
        return sap_error_memory(err, folder);
    w->lock = w->fd = -1;
    w->current = SIZE_MAX;
    w->segment_bytes = SEGMENT_BYTES;
    w->folder = sap_arena_text(&w->arena, folder, length);
    w->partial = sap_arena_format(&w->arena, "%.*s.partial", (int)length, folder);
    if (w->folder && w->partial && copy_plan(w, plan, look)) {
        *out = w;
        return SAP_OK;
    }
    sap_dataset_writer_close(w);
    return sap_error_memory(err, folder);
}

/* Makes the writer that of OUT.partial/; it is closed on failure. */
static sap_status claim_folder(sap_dataset_writer *w, sap_dataset_writer **out, sap_error *err) {
    sap_status status = SAP_OK;
    if (sap_path_exists(w->folder))
        status = sap_error_set(err, SAP_EARGUMENT, "%s exists already; choose another folder or delete it", w->folder);
    if (status == SAP_OK)
        status = describe_plan(w, err);
    if (status == SAP_OK)
        status = open_partial(w, err);
    if (status == SAP_OK)
        *out = w;
    else
        sap_dataset_writer_close(w);
    return status;
}

sap_status sap_dataset_create(const char *folder, const sap_dataset_plan *plan, sap_dataset_writer **out,
                              sap_error *err) {
    sap_dataset_writer *w;
    SAP_TRY(sap_writer_init(folder, plan, true, &w, err));
    return claim_folder(w, out, err);
}

sap_status sap_dataset_create_json(const char *folder, const char *plan, sap_dataset_writer **out, sap_error *err) {
    sap_dataset_writer *w;
    SAP_TRY(sap_writer_parse(folder ? folder : "constants", plan, true, &w, err));
    if (folder)
        return claim_folder(w, out, err);
    sap_status status = describe_plan(w, err);
    if (status == SAP_OK)
        *out = w;
    else
        sap_dataset_writer_close(w);
    return status;
}

void sap_dataset_writer_close(sap_dataset_writer *w) {
    if (!w)
        return;
    sap_spool_drop(w);
    for (size_t i = 0; w->inputs && i < w->plan.input_count; i++) {
        free(w->inputs[i].segments);
        sap_pieces_release(&w->inputs[i].pieces);
    }
    if (w->lock >= 0)
        close(w->lock);
    free(w->pending);
    free(w->row_at);
    json_decref(w->plan_json);
    free(w->plan_text);
    sap_arena_release(&w->arena);
    free(w);
}

bool sap_dataset_has_input(const sap_dataset_writer *writer, size_t index) {
    return index < writer->plan.input_count && writer->inputs[index].whole;
}

sap_status sap_dataset_end_input(sap_dataset_writer *w, size_t index, int64_t read, const int64_t *dropped,
                                 sap_error *err) {
    SAP_TRY(sap_spool_begin(w, index, err)); /* an input without a selected event has not begun yet */
    sap_spooled *input = &w->inputs[index];
    input->read = read;
    input->selected = w->rows;
    int64_t left = read;
    for (size_t i = 0; i < w->plan.cut_count; i++) {
        input->dropped[i] = dropped[i];
        left -= dropped[i];
    }
    if (left != w->rows)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %lld events were read and %lld given, but the cuts leave %lld",
                             input->url, (long long)read, (long long)w->rows, (long long)left);
    return sap_spool_end(w, err);
}
