/* What --data names: a dataset, or files of others that are read by the columns that a network's inputs need. */
#include "pipeline_internal.h"

#include <stdlib.h>

/* Whether the folder describes itself well enough to be read so. `*out` is it then. */
static sap_status open_described(const char *path, sap_dataset **out, bool *described, sap_error *err) {
    char json[PATH_BYTES];
    *described = false;
    SAP_TRY(sap_path_join(path, SAP_RUN_SCALER, json, err));
    if (!sap_path_exists(json))
        return SAP_OK;
    SAP_TRY(sap_dataset_open(path, out, err));
    *described = sap_dataset_get_layout(*out) != SAP_LAYOUT_PUBLISHED;
    if (!*described) {
        sap_dataset_close(*out);
        *out = NULL;
    }
    return SAP_OK;
}

/* A folder that is not there, or whose preparation was interrupted, is better explained as a dataset. */
static bool is_no_data(const char *path) {
    char partial[PATH_BYTES];
    (void)snprintf(partial, sizeof partial, "%s.partial", path);
    return !sap_path_exists(path) && (sap_path_exists(partial) || !strpbrk(path, "*?["));
}

/* "INPUT=COLUMN" of the option "inputs": the column of this input, or NULL. Borrowed. */
static const char *given_column(const sap_stage *stage, const char *input) {
    const char *column = NULL;
    size_t length = strlen(input);
    for (size_t i = 0; i < stage->count; i++) {
        const char *value = stage->settings[i].value;
        if (strcmp(stage->settings[i].option->name, "inputs") == 0 && strncmp(value, input, length) == 0 &&
            value[length] == '=')
            column = value + length + 1;
    }
    return column;
}

static sap_status check_given(const sap_stage *stage, const sap_model *model, sap_error *err) {
    for (size_t i = 0; i < stage->count; i++) {
        const char *value = stage->settings[i].value;
        if (strcmp(stage->settings[i].option->name, "inputs") != 0)
            continue;
        bool known = false;
        for (size_t k = 0; k < sap_model_input_count(model); k++) {
            const char *name = sap_model_input(model, k)->name;
            known = known || (strncmp(value, name, strlen(name)) == 0 && value[strlen(name)] == '=');
        }
        if (!known)
            return sap_error_set(err, SAP_EARGUMENT,
                                 "--inputs %s: expected INPUT=COLUMN with one of the network's inputs (the first is "
                                 "\"%s\")",
                                 value, sap_model_input(model, 0)->name);
    }
    return SAP_OK;
}

static sap_status describe_input(const sap_tensor_info *input, sap_files_input *out, sap_error *err) {
    int64_t width = input->rank > 0 ? input->shape[input->rank - 1] : 0;
    if (input->rank < 1 || input->rank > 2 || width < 1 || width > INT32_MAX)
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "the network's input \"%s\" is neither a list of numbers nor a sequence of such lists",
                             input->name);
    *out =
        (sap_files_input){.name = input->name, .width = (int32_t)width, .rows = input->rank == 2 ? input->shape[0] : 0};
    return SAP_OK;
}

/* columns: a run's dataset.json, whose columns are taken where none are given; may be NULL. */
static sap_status open_files(const sap_stage *stage, const sap_model *model, const json_t *columns,
                             sap_files_options *options, sap_dataset **out, sap_error *err) {
    size_t count = sap_model_input_count(model);
    sap_files_input *inputs = calloc(count + 1, sizeof *inputs);
    sap_status status = inputs ? check_given(stage, model, err) : sap_error_memory(err, "inputs");
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        status = describe_input(sap_model_input(model, i), &inputs[i], err);
        if (status != SAP_OK)
            break;
        size_t k;
        const json_t *feature;
        json_array_foreach(json_object_get(columns, "features"), k, feature) {
            const char *name = json_string_value(json_object_get(feature, "name"));
            if (name && strcmp(name, inputs[i].name) == 0)
                inputs[i].column = json_string_value(json_object_get(feature, "column"));
        }
        const char *given = given_column(stage, inputs[i].name);
        inputs[i].column = given ? given : inputs[i].column;
    }
    const sap_tensor_info *output = sap_model_output(model, 0);
    options->classes = output->rank != 1 ? 0 : output->shape[0] == 1 && output->sigmoid ? 2 : output->shape[0];
    options->inputs = inputs;
    options->input_count = count;
    if (status == SAP_OK)
        status = sap_dataset_open_files(sap_stage_text(stage, "data"), options, out, err);
    free(inputs);
    return status;
}

sap_status sap_data_open(const sap_stage *stage, const sap_model *model, sap_dataset **out, sap_error *err) {
    const char *path = sap_stage_text(stage, "data");
    sap_files_options options = {.label = sap_stage_text(stage, "label-column"),
                                 .weight = sap_stage_text(stage, "weight"),
                                 .validation = sap_stage_text(stage, "validation-data")};
    bool described;
    if (is_no_data(path))
        return sap_dataset_open(path, out, err);
    SAP_TRY(open_described(path, out, &described, err));
    if (!described)
        return open_files(stage, model, NULL, &options, out, err);
    if (!options.validation && !options.label)
        return SAP_OK;
    sap_dataset_close(*out);
    *out = NULL;
    return sap_error_set(err, SAP_EARGUMENT,
                         "%s: its dataset.json says what its labels and its test part are: leave %s out", path,
                         options.label ? "--label-column" : "--validation-data");
}

const char *sap_data_split(const sap_dataset *dataset, const char *wanted) {
    bool whole = sap_dataset_get_layout(dataset) == SAP_LAYOUT_FILES && sap_dataset_rows(dataset, wanted) < 0;
    return whole ? "all" : wanted;
}

/* Features of the same names may come from other recipes, or from another convention, and then mean something else. */
static sap_status check_recipe(const sap_dataset *trained, const sap_dataset *given, const char *path, sap_error *err) {
    static const char *const keys[] = {"recipe", "convention"};
    json_t *a = json_loads(sap_dataset_json(trained), 0, NULL), *b = json_loads(sap_dataset_json(given), 0, NULL);
    sap_status status = a && b ? SAP_OK : sap_error_memory(err, path);
    for (size_t i = 0; status == SAP_OK && i < sizeof keys / sizeof *keys; i++) {
        const char *x = json_string_value(json_object_get(a, keys[i]));
        const char *y = json_string_value(json_object_get(b, keys[i]));
        if (strcmp(x ? x : "", y ? y : "") != 0)
            status =
                sap_error_set(err, SAP_ETYPE, "%s: was made with the %s \"%s\", but the network was trained on \"%s\"",
                              path, keys[i], y ? y : "", x ? x : "");
    }
    json_decref(a);
    json_decref(b);
    return status;
}

sap_status sap_scoring_data(sap_scoring *scoring, const sap_stage *stage, sap_dataset **out, sap_error *err) {
    const char *path = sap_stage_text(stage, "data");
    bool described;
    if (is_no_data(path))
        return sap_dataset_open(path, out, err);
    SAP_TRY(open_described(path, out, &described, err));
    if (described) {
        sap_status status = SAP_OK;
        if (sap_dataset_get_layout(scoring->dataset) == SAP_LAYOUT_FILES)
            status = sap_error_set(err, SAP_EUNSUPPORTED,
                                   "%s: the network was trained on files of scaled values, so nothing is known of how "
                                   "to scale this dataset for it",
                                   path);
        else
            status = check_recipe(scoring->dataset, *out, path, err);
        if (status != SAP_OK) {
            sap_dataset_close(*out);
            *out = NULL;
        }
        return status;
    }
    json_t *columns = json_loads(sap_dataset_json(scoring->dataset), 0, NULL);
    size_t count = sap_dataset_label_count(scoring->dataset);
    const char **labels = calloc(count + 1, sizeof(const char *));
    for (size_t i = 0; labels && i < count; i++)
        labels[i] = sap_dataset_label(scoring->dataset, i);
    sap_files_options options = {
        .label = json_string_value(json_object_get(columns, "label_column")), .labels = labels, .label_count = count};
    sap_status status = columns && labels ? open_files(stage, scoring->model, columns, &options, out, err)
                                          : sap_error_memory(err, path);
    if (status == SAP_OK)
        scoring->scaling = *out;
    json_decref(columns);
    free(labels);
    return status;
}
