/* Pipelines: the stages that a YAML file names, in order; a stage is skipped while nothing that decides its output has
 * changed. What each stage was last made from stands in FOLDER/.stages.json. */
#include "../recipe/recipe_internal.h"
#include "pipeline_internal.h"

#include <stdlib.h>
#include <sys/stat.h>

typedef struct plan {
    const sap_pipeline_options *options;
    const sap_run *run;
    const char *file;            /* the YAML file */
    char base[PATH_BYTES];       /* folder that it is in */
    char folder[PATH_BYTES];     /* where outputs go */
    char state_path[PATH_BYTES]; /* FOLDER/.stages.json */
    char dataset[PATH_BYTES], tuned[PATH_BYTES],
        trained[PATH_BYTES]; /* outputs of prepare, tune and train, for the stages after them */
    bool trains;             /* there is a stage "train" */
    json_t *state;
} plan;

/* ---- Options of a stage, from YAML --------------------------------------------------------------------------- */

static sap_status resolve(const char *base, const char *path, char *out, sap_error *err) {
    bool absolute = path[0] == '/' || strstr(path, "://");
    int length = absolute ? snprintf(out, PATH_BYTES, "%s", path) : snprintf(out, PATH_BYTES, "%s/%s", base, path);
    if (length < 0 || length >= PATH_BYTES)
        return sap_error_set(err, SAP_EARGUMENT, "%s: path is longer than %d bytes", path, PATH_BYTES - 1);
    return SAP_OK;
}

/* A path in the YAML file is relative to it; one that is written, to the folder of the outputs. */
static sap_status set_option(const plan *p, sap_stage *stage, const char *name, const char *value, sap_error *err) {
    sap_option_kind kind = SAP_OPTION_TEXT;
    for (size_t i = 0; i < stage->kind->option_count; i++)
        if (strcmp(stage->kind->options[i].name, name) == 0)
            kind = stage->kind->options[i].kind;
    char path[PATH_BYTES], sample[2 * PATH_BYTES];
    size_t length = strlen(value);
    const char *equals = strchr(value, '=');
    if (kind == SAP_OPTION_INPUT ||
        (kind == SAP_OPTION_RECIPE && length > 2 && strcmp(value + length - 2, ".c") == 0)) {
        SAP_TRY(resolve(p->base, value, path, err));
        value = path;
    } else if (kind == SAP_OPTION_OUTPUT) {
        SAP_TRY(resolve(p->folder, value, path, err));
        value = path;
    } else if (kind == SAP_OPTION_SAMPLE && equals) {
        SAP_TRY(resolve(p->base, equals + 1, path, err));
        (void)snprintf(sample, sizeof sample, "%.*s=%s", (int)(equals - value), value, path);
        value = sample;
    }
    if (sap_stage_set(stage, name, value, err) != SAP_OK)
        return sap_error_prefix(err, "%s", p->file);
    return SAP_OK;
}

/* `sample: {qcd: FILE, ttbar: [FILE, FILE]}`, or any option's value or list of values. */
static sap_status set_from_yaml(const plan *p, sap_stage *stage, const char *name, const json_t *value,
                                sap_error *err) {
    if (json_is_string(value))
        return set_option(p, stage, name, json_string_value(value), err);
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            SAP_TRY(set_from_yaml(p, stage, name, json_array_get(value, i), err));
        return SAP_OK;
    }
    if (strcmp(name, "sample") != 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: %s: %s should be a value or a list", p->file, stage->kind->name,
                             name);
    const char *sample;
    json_t *files;
    json_object_foreach((json_t *)(uintptr_t)value, sample, files) {
        size_t count = json_is_array(files) ? json_array_size(files) : 1;
        for (size_t i = 0; i < count; i++) {
            const char *file = json_string_value(json_is_array(files) ? json_array_get(files, i) : files);
            if (!file)
                return sap_error_set(err, SAP_EARGUMENT, "%s: prepare: sample: %s should be a file or a list of files",
                                     p->file, sample);
            sap_text text = {0};
            sap_text_add(&text, "%s=%s", sample, file);
            sap_status status = text.failed ? sap_error_memory(err, file) : set_option(p, stage, name, text.data, err);
            sap_text_release(&text);
            SAP_TRY(status);
        }
    }
    return SAP_OK;
}

static bool has_option(const sap_stage *stage, const char *name) {
    for (size_t i = 0; i < stage->kind->option_count; i++)
        if (strcmp(stage->kind->options[i].name, name) == 0)
            return true;
    return false;
}

static bool is_given(const sap_stage *stage, const char *name) {
    for (size_t i = 0; i < stage->count; i++)
        if (strcmp(stage->settings[i].option->name, name) == 0)
            return true;
    return false;
}

/* What a stage reads and writes when the file does not say. */
static sap_status set_defaults(const plan *p, sap_stage *stage, sap_error *err) {
    const char *name = stage->kind->name;
    const char *out = strcmp(name, "prepare") == 0   ? "dataset"
                      : strcmp(name, "tune") == 0    ? "tuned"
                      : strcmp(name, "train") == 0   ? "run"
                      : strcmp(name, "predict") == 0 ? "scores.parquet"
                      : strcmp(name, "report") == 0  ? "report.html"
                                                     : NULL;
    if (out && !sap_stage_text(stage, "out"))
        SAP_TRY(set_option(p, stage, "out", out, err));
    if (has_option(stage, "data") && !sap_stage_text(stage, "data") && !sap_stage_text(stage, "sample") && *p->dataset)
        SAP_TRY(sap_stage_set(stage, "data", p->dataset, err));
    if (strcmp(name, "tune") == 0 && p->trains && !is_given(stage, "final"))
        SAP_TRY(sap_stage_set(stage, "final", "no", err)); /* that is what "train" does */
    if (has_option(stage, "run") && !sap_stage_text(stage, "run") && *p->trained)
        SAP_TRY(sap_stage_set(stage, "run", p->trained, err));
    return SAP_OK;
}

static sap_status open_stage(plan *p, const char *name, const json_t *given, sap_stage **out, sap_error *err) {
    sap_stage *stage;
    SAP_TRY(sap_stage_open(name, &stage, err));
    sap_status status = SAP_OK;
    bool nothing = json_is_string(given) && !*json_string_value(given);
    if (!nothing && !json_is_object(given))
        status = sap_error_set(err, SAP_EARGUMENT, "%s: %s should be a mapping of options", p->file, name);
    const char *option;
    json_t *value;
    if (status == SAP_OK)
        json_object_foreach((json_t *)(uintptr_t)given, option, value) if (status == SAP_OK) status =
            set_from_yaml(p, stage, option, value, err);
    if (status == SAP_OK)
        status = set_defaults(p, stage, err);
    if (status != SAP_OK) {
        sap_stage_close(stage);
        return status;
    }
    if (strcmp(name, "prepare") == 0)
        (void)snprintf(p->dataset, sizeof p->dataset, "%s", sap_stage_text(stage, "out"));
    if (strcmp(name, "tune") == 0)
        (void)snprintf(p->tuned, sizeof p->tuned, "%s", sap_stage_text(stage, "out"));
    if (strcmp(name, "train") == 0)
        (void)snprintf(p->trained, sizeof p->trained, "%s", sap_stage_text(stage, "out"));
    *out = stage;
    return SAP_OK;
}

/* After a search, "train" takes what the file does not say from the best trial: its network, compiled with its settings, batch and
 * epochs. */
static sap_status take_best(const plan *p, sap_stage *stage, sap_error *err) {
    static const char *const names[] = {"batch", "epochs"};
    char path[PATH_BYTES];
    json_t *outcome = NULL;
    if (is_given(stage, "model"))
        return SAP_OK;
    SAP_TRY(sap_path_join(p->tuned, "best.json", path, err));
    SAP_TRY(sap_stage_set(stage, "model", path, err));
    SAP_TRY(sap_path_join(p->tuned, "search.json", path, err));
    SAP_TRY(sap_json_load(path, &outcome, err));
    const json_t *train = json_object_get(json_object_get(outcome, "best"), "train");
    sap_status status = SAP_OK;
    for (size_t i = 0; status == SAP_OK && i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(train, names[i]);
        char text[32];
        (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        if (!json_is_integer(value))
            status = sap_error_set(err, SAP_EFORMAT, "%s: best: train: no %s", path, names[i]);
        else if (!is_given(stage, names[i]))
            status = sap_stage_set(stage, names[i], text, err);
    }
    json_decref(outcome);
    return status;
}

/* ---- What decides a stage's output ----------------------------------------------------------------------------- */

/* Size and time of a large file; a hash of a small one's bytes. */
static void add_file(json_t *into, const char *path, bool by_content) {
    struct stat info;
    char text[64] = "missing";
    char *bytes;
    size_t length;
    if (by_content && sap_file_load(path, (size_t)1 << 30, &bytes, &length, NULL) == SAP_OK) {
        (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)sap_hash(bytes, length, 0));
        free(bytes);
    } else if (stat(path, &info) == 0) {
        (void)snprintf(text, sizeof text, "%lld bytes, %lld.%09ld", (long long)info.st_size,
                       (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    }
    json_object_set_new(into, path, json_string(text));
}

static void add_folder(json_t *into, const char *folder, bool evaluated) {
    static const char *const names[] = {SAP_RUN_SCALER, SAP_RUN_MODEL, SAP_RUN_HISTORY, SAP_RUN_EVALUATION};
    for (size_t i = 0; i < sizeof names / sizeof *names - !evaluated; i++) {
        char path[PATH_BYTES];
        if (sap_path_join(folder, names[i], path, NULL) == SAP_OK && sap_path_exists(path))
            add_file(into, path, true);
    }
}

/* A recipe's file and what it includes. */
static void add_recipe(json_t *into, const char *path) {
    uint64_t hash;
    char text[20] = "missing";
    if (sap_recipe_source_hash(path, &hash, NULL) == SAP_OK)
        (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    json_object_set_new(into, path, json_string(text));
}

/* The network that a search's file names: FILE.keras, or FILE.py:FUNCTION. What is wrong with the file, the stage itself says. */
static void add_searched(json_t *into, const char *search) {
    json_t *yaml = NULL;
    char base[PATH_BYTES], path[PATH_BYTES];
    size_t length;
    const char *name = sap_text_base_name(search, &length);
    (void)snprintf(base, sizeof base, "%.*s", (int)(name > search ? name - search - 1 : 0), search);
    if (sap_yaml_load(search, &yaml, NULL) != SAP_OK)
        return;
    const char *model = json_string_value(json_object_get(yaml, "model"));
    if (model && resolve(*base ? base : ".", model, path, NULL) == SAP_OK) {
        char *function = strstr(path, ".py:");
        if (function)
            function[3] = '\0';
        add_file(into, path, true);
    }
    json_decref(yaml);
}

static sap_status fingerprint(const sap_stage *stage, json_t **out, sap_error *err) {
    json_t *options = json_array(), *files = json_object();
    sap_inputs inputs = {0};
    sap_status status = sap_inputs_init(stage, &inputs, err);
    for (size_t i = 0; i < inputs.count; i++)
        add_file(files, inputs.items[i].url, false);
    sap_inputs_release(&inputs);
    for (size_t i = 0; i < stage->count; i++) {
        const sap_setting *setting = &stage->settings[i];
        struct stat info;
        json_array_append_new(options, json_pack("[s,s]", setting->option->name, setting->value));
        if (strcmp(setting->option->name, "search") == 0)
            add_searched(files, setting->value);
        if (setting->option->kind != SAP_OPTION_INPUT && setting->option->kind != SAP_OPTION_RECIPE)
            continue;
        if (stat(setting->value, &info) != 0)
            continue; /* a built-in recipe; a missing input is the stage's error to report */
        if (setting->option->kind == SAP_OPTION_RECIPE && S_ISREG(info.st_mode))
            add_recipe(files, setting->value);
        else if (S_ISDIR(info.st_mode))
            add_folder(files, setting->value, strcmp(stage->kind->name, "report") == 0);
        else
            add_file(files, setting->value, true);
    }
    *out = json_pack("{s:s, s:o, s:o}", "version", sap_version(), "options", options, "files", files);
    return status;
}

/* The file or folder that a stage makes. */
static sap_status output_of(const sap_stage *stage, char *out, sap_error *err) {
    const char *given = sap_stage_text(stage, "out");
    if (!given)
        return sap_path_join(sap_stage_text(stage, "run"), SAP_RUN_EVALUATION, out, err);
    if (snprintf(out, PATH_BYTES, "%s", given) >= PATH_BYTES)
        return sap_error_set(err, SAP_EARGUMENT, "%s: path is longer than %d bytes", given, PATH_BYTES - 1);
    return SAP_OK;
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

static sap_status run_external(const plan *p, const sap_stage *stage, sap_error *err) {
    if (!p->options->external)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: the stage \"%s\" is done by Python, which this program does not call", p->file,
                             stage->kind->name);
    SAP_TRY(sap_stage_check(stage, err));
    const char **arguments = calloc(2 * stage->count + 1, sizeof(const char *));
    sap_arena arena = {0};
    sap_status status = arguments ? SAP_OK : sap_error_memory(err, stage->kind->name);
    for (size_t i = 0; i < stage->count && status == SAP_OK; i++) {
        arguments[2 * i] = sap_arena_format(&arena, "--%s", stage->settings[i].option->name);
        arguments[2 * i + 1] = stage->settings[i].value;
        if (!arguments[2 * i])
            status = sap_error_memory(err, stage->kind->name);
    }
    if (status == SAP_OK)
        status = p->options->external(p->options->context, stage->kind->name, arguments, 2 * stage->count, err);
    sap_arena_release(&arena);
    free(arguments);
    return status;
}

/* A folder that an earlier run made steps aside while it is made anew, and comes back when that fails. */
static sap_status run_stage(const plan *p, sap_stage *stage, const char *out, bool ours, sap_error *err) {
    struct stat info;
    char previous[PATH_BYTES + 16];
    (void)snprintf(previous, sizeof previous, "%s.previous", out);
    bool aside = ours && stat(out, &info) == 0 && S_ISDIR(info.st_mode);
    if (aside) {
        SAP_TRY(sap_folder_remove(previous, err));
        if (rename(out, previous) != 0)
            return sap_error_errno(err, out);
    }
    sap_status status = sap_stage_is_external(stage) ? run_external(p, stage, err) : sap_stage_run(stage, p->run, err);
    if (aside && status == SAP_OK)
        return sap_folder_remove(previous, err);
    if (aside && rename(previous, out) != 0 && status == SAP_OK)
        return sap_error_errno(err, previous);
    return status;
}

static void announce(const plan *p, const char *stage, bool started, bool skipped, const char *result) {
    if (p->options->on_event)
        p->options->on_event(p->options->context, &(sap_pipeline_event){stage, started, skipped, result});
}

/* While a stage of ours is made anew its record names no inputs, so that what a kill leaves is not taken for the old output. */
static sap_status begin_record(const plan *p, const char *name, const char *out, bool ours, sap_error *err) {
    if (!ours)
        return SAP_OK;
    json_object_set_new(p->state, name, json_pack("{s:s}", "out", out));
    return sap_json_store(p->state, p->state_path, err);
}

/* The stage failed, its old output is back: so is its record. */
static void restore_record(const plan *p, const char *name, json_t *before) {
    if (!before)
        return;
    json_object_set(p->state, name, before);
    sap_status stored = sap_json_store(p->state, p->state_path, NULL);
    (void)stored; /* else the stage is run again */
}

static sap_status consider_stage(plan *p, sap_stage *stage, sap_error *err) {
    const char *name = stage->kind->name;
    char out[PATH_BYTES];
    json_t *now = NULL;
    SAP_TRY(output_of(stage, out, err));
    sap_status status = fingerprint(stage, &now, err);
    json_t *before = json_incref(json_object_get(p->state, name));
    bool ours = before && strcmp(json_string_value(json_object_get(before, "out"))
                                     ? json_string_value(json_object_get(before, "out"))
                                     : "",
                                 out) == 0;
    bool same = ours && json_equal(json_object_get(before, "made_from"), now) && sap_path_exists(out);
    if (status == SAP_OK && same && !p->options->force) {
        announce(p, name, false, true, json_string_value(json_object_get(before, "result")));
        goto done;
    }
    if (status != SAP_OK)
        goto done;
    announce(p, name, true, false, NULL);
    status = begin_record(p, name, out, ours, err);
    if (status != SAP_OK)
        goto done;
    status = run_stage(p, stage, out, ours, err);
    if (status != SAP_OK) {
        restore_record(p, name, before);
        goto done;
    }
    const char *result = sap_stage_result(stage);
    json_object_set_new(p->state, name,
                        json_pack("{s:s, s:O, s:s}", "out", out, "made_from", now, "result", result ? result : "{}"));
    status = sap_json_store(p->state, p->state_path, err);
    if (status == SAP_OK)
        announce(p, name, false, false, result);
done:
    json_decref(before);
    json_decref(now);
    return status;
}

static sap_status check_keys(const plan *p, const json_t *yaml, sap_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(yaml))
        return sap_error_set(err, SAP_EARGUMENT, "%s: should be a mapping of stages", p->file);
    json_object_foreach((json_t *)(uintptr_t)yaml, key, value) {
        if (strcmp(key, "folder") != 0 && strcmp(key, "threads") != 0 && !sap_stage_kind_find(key))
            return sap_error_set(
                err, SAP_EARGUMENT,
                "%s: \"%s\" is no stage; there are prepare, tune, train, evaluate, predict, report, and folder and "
                "threads",
                p->file, key);
    }
    const json_t *folder = json_object_get(yaml, "folder");
    if (folder && (!json_is_string(folder) || !*json_string_value(folder)))
        return sap_error_set(err, SAP_EARGUMENT, "%s: folder should be a path", p->file);
    return SAP_OK;
}

/* Where things are: the YAML file's own folder, the outputs' folder, the state of earlier runs. */
static sap_status place(plan *p, const json_t *yaml, sap_error *err) {
    size_t length;
    const char *name = sap_text_base_name(p->file, &length);
    (void)snprintf(p->base, sizeof p->base, "%.*s", (int)(name > p->file ? name - p->file - 1 : 0), p->file);
    if (!*p->base)
        (void)snprintf(p->base, sizeof p->base, "%s", name > p->file ? "/" : ".");
    const char *folder = p->options->folder;
    if (!folder) {
        const char *given = json_string_value(json_object_get(yaml, "folder"));
        SAP_TRY(resolve(p->base, given ? given : "out", p->folder, err));
    } else if (snprintf(p->folder, sizeof p->folder, "%s", folder) >= PATH_BYTES) {
        return sap_error_set(err, SAP_EARGUMENT, "%s: path is longer than %d bytes", folder, PATH_BYTES - 1);
    }
    SAP_TRY(sap_folder_make(p->folder, err));
    SAP_TRY(sap_path_join(p->folder, ".stages.json", p->state_path, err));
    if (!sap_path_exists(p->state_path)) {
        p->state = json_object();
        return SAP_OK;
    }
    SAP_TRY(sap_json_load(p->state_path, &p->state, err));
    return json_is_object(p->state) ? SAP_OK : sap_error_set(err, SAP_EFORMAT, "%s: holds no object", p->state_path);
}

sap_status sap_pipeline_run(const sap_pipeline_options *options, const sap_run *run, sap_error *err) {
    plan p = {.options = options, .run = run, .file = options->path};
    json_t *yaml = NULL;
    sap_stage *stages[16] = {0};
    size_t count = 0;
    sap_status status = sap_yaml_load(options->path, &yaml, err);
    if (status == SAP_OK)
        status = check_keys(&p, yaml, err);
    if (status == SAP_OK)
        status = place(&p, yaml, err);
    p.trains = json_object_get(yaml, "train") != NULL;
    /* all options are checked before the first stage runs */
    for (const char *const *name = sap_stage_names(); *name && status == SAP_OK; name++) {
        const json_t *given = json_object_get(yaml, *name);
        if (given)
            status = open_stage(&p, *name, given, &stages[count], err);
        if (given && status == SAP_OK)
            count++;
    }
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        if (*p.tuned && strcmp(stages[i]->kind->name, "train") == 0)
            status = take_best(&p, stages[i], err);
        if (status == SAP_OK)
            status = consider_stage(&p, stages[i], err);
    }
    for (size_t i = 0; i < count; i++)
        sap_stage_close(stages[i]);
    json_decref(p.state);
    json_decref(yaml);
    return status;
}
