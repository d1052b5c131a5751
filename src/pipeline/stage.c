/* A stage with the options that it was given; what all stages share. */
#include "../base/numbers.h"
#include "pipeline_internal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <sapwood/access.h>
#include <stdlib.h>

sap_status sap_stage_open(const char *name, sap_stage **out, sap_error *err) {
    const sap_stage_kind *kind = sap_stage_kind_find(name);
    if (!kind)
        return sap_error_set(err, SAP_ENOTFOUND,
                             "no stage is called \"%s\"; there are prepare, tune, train, evaluate, predict, report",
                             name);
    sap_stage *stage = calloc(1, sizeof *stage);
    if (!stage)
        return sap_error_memory(err, name);
    stage->kind = kind;
    *out = stage;
    return SAP_OK;
}

void sap_stage_close(sap_stage *stage) {
    if (!stage)
        return;
    for (size_t i = 0; i < stage->count; i++)
        free(stage->settings[i].value);
    free(stage->settings);
    free(stage->result);
    free(stage);
}

static const char *option_name_at(const void *context, size_t index) {
    return ((const sap_stage_kind *)context)->options[index].name;
}

static bool is_choice(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (length > 0 && strncmp(at, value, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return true;
    return false;
}

static sap_status check_value(const sap_stage *stage, const sap_option *option, const char *value, sap_error *err) {
    const char *stage_name = stage->kind->name, *name = option->name, *expected = NULL;
    char *end;
    errno = 0;
    switch (option->kind) {
    case SAP_OPTION_COUNT:
        (void)strtoull(value, &end, 10);
        if (!isdigit((unsigned char)*value) || *end || errno)
            expected = "a whole number >= 0";
        break;
    case SAP_OPTION_REAL: {
        double number = sap_real_parse(value, &end);
        if (end == value || *end || errno || !isfinite(number) || number < 0)
            expected = "a number >= 0";
        break;
    }
    case SAP_OPTION_CHOICE:
        if (!is_choice(option->choices, value))
            expected = option->choices;
        break;
    case SAP_OPTION_SWITCH:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            expected = "true or false";
        break;
    case SAP_OPTION_SAMPLE: {
        const char *equals = strchr(value, '=');
        if (!equals || equals == value || !equals[1])
            expected = "NAME=FILE";
        break;
    }
    default:
        if (!*value)
            expected = "not nothing";
        break;
    }
    if (expected)
        return sap_error_set(err, SAP_EARGUMENT, "%s: --%s should be %s, but is \"%s\"", stage_name, name, expected,
                             value);
    return SAP_OK;
}

sap_status sap_stage_set(sap_stage *stage, const char *name, const char *value, sap_error *err) {
    const sap_option *option = NULL;
    for (size_t i = 0; i < stage->kind->option_count; i++)
        if (strcmp(stage->kind->options[i].name, name) == 0)
            option = &stage->kind->options[i];
    if (!option) {
        char nearest[300];
        sap_text_nearest(name, stage->kind->option_count, option_name_at, stage->kind, nearest, sizeof nearest);
        return sap_error_set(err, SAP_EARGUMENT, "%s has no option \"%s\"%s", stage->kind->name, name, nearest);
    }
    SAP_TRY(check_value(stage, option, value, err));
    for (size_t i = 0; i < stage->count && !option->repeats; i++)
        if (stage->settings[i].option == option)
            return sap_error_set(err, SAP_EARGUMENT, "%s: --%s is given twice", stage->kind->name, name);
    char *copy = strdup(value);
    if (!copy || !sap_grow((void **)&stage->settings, &stage->capacity, stage->count, sizeof *stage->settings)) {
        free(copy);
        return sap_error_memory(err, name);
    }
    size_t length = strlen(copy); /* "run/" is "run": what is written aside stands beside it, not in it */
    while (option->kind == SAP_OPTION_OUTPUT && length > 1 && copy[length - 1] == '/')
        copy[--length] = '\0';
    stage->settings[stage->count++] = (sap_setting){option, copy};
    return SAP_OK;
}

const char *sap_stage_text(const sap_stage *stage, const char *name) {
    for (size_t i = stage->count; i-- > 0;)
        if (strcmp(stage->settings[i].option->name, name) == 0)
            return stage->settings[i].value;
    for (size_t i = 0; i < stage->kind->option_count; i++)
        if (strcmp(stage->kind->options[i].name, name) == 0)
            return stage->kind->options[i].standard;
    return NULL;
}

uint64_t sap_stage_count(const sap_stage *stage, const char *name) {
    const char *text = sap_stage_text(stage, name);
    return text ? strtoull(text, NULL, 10) : 0;
}

double sap_stage_real(const sap_stage *stage, const char *name) {
    const char *text = sap_stage_text(stage, name);
    return text ? sap_real_parse(text, NULL) : 0;
}

bool sap_stage_switch(const sap_stage *stage, const char *name) {
    const char *text = sap_stage_text(stage, name);
    return text && (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0);
}

bool sap_stage_is_external(const sap_stage *stage) {
    const char *engine = sap_stage_text(stage, "engine");
    return !stage->kind->run || (engine && strcmp(engine, "tensorflow") == 0);
}

sap_status sap_stage_check(const sap_stage *stage, sap_error *err) {
    for (size_t i = 0; i < stage->kind->option_count; i++) {
        const sap_option *option = &stage->kind->options[i];
        if (option->required && !sap_stage_text(stage, option->name))
            return sap_error_set(err, SAP_EARGUMENT, "%s needs --%s %s: %s", stage->kind->name, option->name,
                                 option->argument ? option->argument : "", option->help);
    }
    return SAP_OK;
}

sap_status sap_stage_run(sap_stage *stage, const sap_run *run, sap_error *err) {
    SAP_TRY(sap_stage_check(stage, err));
    if (sap_stage_is_external(stage))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s is done by Python: use the command line or sapwood.%s",
                             stage->kind->name, stage->kind->name);
    json_t *result = NULL;
    SAP_TRY(stage->kind->run(stage, run, &result, err));
    free(stage->result);
    stage->result = NULL;
    if (!result) /* another process of the same job has it */
        return SAP_OK;
    stage->result = json_dumps(result, JSON_INDENT(2));
    json_decref(result);
    return stage->result ? SAP_OK : sap_error_memory(err, stage->kind->name);
}

const char *sap_stage_result(const sap_stage *stage) {
    return stage->result;
}

/* ---- Shared by the stages ---------------------------------------------------------------------------------- */

static sap_status add_input(sap_inputs *inputs, const char *sample, const char *url, sap_error *err) {
    char *copy = sap_arena_text(&inputs->arena, url, strlen(url));
    if (!copy || !sap_grow((void **)&inputs->items, &inputs->capacity, inputs->count, sizeof *inputs->items))
        return sap_error_memory(err, url);
    inputs->items[inputs->count++] = (sap_dataset_input){sample, copy};
    return SAP_OK;
}

sap_status sap_inputs_init(const sap_stage *stage, sap_inputs *out, sap_error *err) {
    *out = (sap_inputs){0};
    for (size_t i = 0; i < stage->count; i++) {
        if (stage->settings[i].option->kind != SAP_OPTION_SAMPLE)
            continue;
        const char *value = stage->settings[i].value, *pattern = strchr(value, '=') + 1;
        char *sample = sap_arena_text(&out->arena, value, (size_t)(pattern - 1 - value));
        char **urls = NULL;
        size_t count = 0;
        sap_status status = sample ? sap_source_glob(pattern, NULL, &urls, &count, err) : sap_error_memory(err, value);
        for (size_t j = 0; j < count && status == SAP_OK; j++)
            status = add_input(out, sample, urls[j], err);
        free(urls);
        if (status != SAP_OK) {
            sap_inputs_release(out);
            return status;
        }
    }
    return SAP_OK;
}

void sap_inputs_release(sap_inputs *inputs) {
    free(inputs->items);
    sap_arena_release(&inputs->arena);
    *inputs = (sap_inputs){0};
}

sap_status sap_path_join(const char *folder, const char *name, char *out, sap_error *err) {
    int length = snprintf(out, PATH_BYTES, "%s/%s", folder, name);
    if (length < 0 || length >= PATH_BYTES)
        return sap_error_set(err, SAP_EARGUMENT, "%s/%s: path is longer than %d bytes", folder, name, PATH_BYTES - 1);
    return SAP_OK;
}

sap_status sap_model_features(const sap_model *model, const sap_dataset *dataset, const char *where, const char **names,
                              sap_error *err) {
    for (size_t i = 0; i < sap_model_input_count(model); i++) {
        const sap_tensor_info *input = sap_model_input(model, i);
        const sap_feature *match = NULL;
        sap_text have = {0};
        for (size_t j = 0; j < sap_dataset_feature_count(dataset); j++) {
            const sap_feature *feature = sap_dataset_feature(dataset, j);
            if (strcmp(feature->name, input->name) == 0)
                match = feature;
            sap_text_add(&have, "%s%s", j ? ", " : "", feature->name);
        }
        sap_status status = SAP_OK;
        if (!match)
            status = sap_error_set(err, SAP_ENOTFOUND,
                                   "%s: the network's input \"%s\" is not among the dataset's features (%s)", where,
                                   input->name, have.data ? have.data : "none");
        sap_text_release(&have);
        SAP_TRY(status);
        int32_t rank = match->sequence ? 2 : 1;
        bool fits = input->rank == rank && input->shape[rank - 1] == match->width &&
                    (rank == 1 || input->shape[0] == -1 || input->shape[0] == match->pad_rows);
        if (!fits) {
            char shape[100] = "";
            size_t used = 0;
            for (int32_t d = 0; d < input->rank && used < sizeof shape; d++)
                used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", d ? ", " : "",
                                         (long long)input->shape[d]);
            return sap_error_set(err, SAP_ETYPE,
                                 "%s: the network's input \"%s\" has shape (%s), the dataset's feature %s%d numbers%s",
                                 where, input->name, shape, match->sequence ? "rows of " : "", match->width,
                                 match->sequence ? " each" : "");
        }
        names[i] = input->name;
    }
    return SAP_OK;
}

sap_status sap_json_store(const json_t *json, const char *path, sap_error *err) {
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (!text)
        return sap_error_memory(err, path);
    sap_status status = sap_file_store(path, text, strlen(text), err);
    free(text);
    return status;
}

sap_status sap_json_load(const char *path, json_t **out, sap_error *err) {
    char *text;
    size_t length;
    SAP_TRY(sap_file_load(path, (size_t)64 << 20, &text, &length, err));
    json_error_t where;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (!*out)
        return sap_error_set(err, SAP_EFORMAT, "%s:%d:%d: %s", path, where.line, where.column, where.text);
    return SAP_OK;
}

json_t *sap_json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}
