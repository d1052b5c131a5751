/* prepare, tune, train, evaluate, predict, report: options from the library's table, results printed for people or as JSON. */
#include "console.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Help ----------------------------------------------------------------------------------------------------- */

static void print_help(const char *name) {
    size_t count;
    const sap_option *options = sap_stage_options(name, &count);
    const char *word = strcmp(name, "tune") == 0 ? " FILE.yaml" : "";
    (void)printf("Usage: sapwood %s%s [OPTIONS]\n\n%s\n\n", name, word, sap_stage_help(name));
    for (size_t i = 0; i < count; i++) {
        const sap_option *o = &options[i];
        char left[80];
        (void)snprintf(left, sizeof left, "--%s %s", o->name, o->argument ? o->argument : "");
        (void)printf("  %-26s %s", left, o->help);
        if (o->choices)
            (void)printf(" (%s)", o->choices);
        if (o->required)
            (void)printf("; required");
        else if (o->standard && o->argument)
            (void)printf("; default %s", o->standard);
        (void)printf("\n");
    }
    (void)printf("  %-26s %s\n  %-26s %s\n  %-26s %s\n", "--threads N", "threads; default: one for each core", "--json",
                 "print the result as JSON", "--quiet", "no progress");
}

/* ---- Results --------------------------------------------------------------------------------------------------- */

/* dataset.json's "selection": for each sample the events left after each step. One line a step, one column a sample. */
static void print_selection(const json_t *result) {
    const json_t *selection = json_object_get(json_object_get(result, "dataset"), "selection");
    const json_t *first = json_object_get(json_array_get(selection, 0), "steps");
    size_t samples = json_array_size(selection), steps = json_array_size(first), width = 10;
    for (size_t i = 0; i < steps; i++) {
        size_t length = json_string_length(json_object_get(json_array_get(first, i), "step"));
        width = length > width ? length : width;
    }
    (void)printf("%-*s", (int)width, "events");
    for (size_t k = 0; k < samples; k++)
        (void)printf(" %12s", json_string_value(json_object_get(json_array_get(selection, k), "sample")));
    (void)printf("\n");
    for (size_t i = 0; i < steps; i++) {
        (void)printf("%-*s", (int)width, json_string_value(json_object_get(json_array_get(first, i), "step")));
        for (size_t k = 0; k < samples; k++) {
            const json_t *all = json_object_get(json_array_get(selection, k), "steps");
            (void)printf(" %12" JSON_INTEGER_FORMAT,
                         json_integer_value(json_object_get(json_array_get(all, i), "events")));
        }
        (void)printf("\n");
    }
    (void)printf("dataset: %s\n", json_string_value(json_object_get(result, "out")));
}

static void print_training(const json_t *result) {
    const json_t *history = json_object_get(result, "history");
    const json_t *last = json_array_get(history, json_array_size(history) - 1);
    (void)printf("%" JSON_INTEGER_FORMAT " parameters, %" JSON_INTEGER_FORMAT
                 " training events, %zu epochs: loss %.4f, accuracy %.4f",
                 json_integer_value(json_object_get(result, "parameters")),
                 json_integer_value(json_object_get(result, "events")), json_array_size(history),
                 json_real_value(json_object_get(last, "loss")), json_real_value(json_object_get(last, "accuracy")));
    if (json_is_real(json_object_get(last, "validation_loss")))
        (void)printf("; validation loss %.4f, accuracy %.4f", json_real_value(json_object_get(last, "validation_loss")),
                     json_real_value(json_object_get(last, "validation_accuracy")));
    (void)printf("\nmodel: %s/model.keras\n", json_string_value(json_object_get(result, "out")));
}

static void print_evaluation(const json_t *result) {
    const json_t *classes = json_object_get(result, "classes"), *confusion = json_object_get(result, "confusion");
    (void)printf(
        "%" JSON_INTEGER_FORMAT " events of \"%s\": accuracy %.4f, loss %.4f\n",
        json_integer_value(json_object_get(result, "events")), json_string_value(json_object_get(result, "split")),
        json_real_value(json_object_get(result, "accuracy")), json_real_value(json_object_get(result, "loss")));
    (void)printf("%-12s %8s   predicted:", "class", "AUC");
    for (size_t k = 0; k < json_array_size(classes); k++)
        (void)printf(" %10s", json_string_value(json_object_get(json_array_get(classes, k), "label")));
    (void)printf("\n");
    for (size_t k = 0; k < json_array_size(classes); k++) {
        const json_t *one = json_array_get(classes, k), *auc = json_object_get(one, "auc");
        (void)printf("%-12s ", json_string_value(json_object_get(one, "label")));
        if (json_is_real(auc))
            (void)printf("%8.4f", json_real_value(auc));
        else
            (void)printf("%8s", "-");
        (void)printf("             ");
        for (size_t j = 0; j < json_array_size(classes); j++)
            (void)printf(" %10" JSON_INTEGER_FORMAT,
                         json_integer_value(json_array_get(json_array_get(confusion, k), j)));
        (void)printf("\n");
    }
    (void)printf("figures: %s\n", json_string_value(json_object_get(result, "out")));
}

static void print_prediction(const json_t *result) {
    (void)printf("scores of %" JSON_INTEGER_FORMAT " events: %s\n",
                 json_integer_value(json_object_get(result, "events")),
                 json_string_value(json_object_get(result, "out")));
}

void stage_print(const char *stage, const char *result) {
    static const struct {
        const char *stage;
        void (*print)(const json_t *result);
    } printers[] = {{"prepare", print_selection},
                    {"train", print_training},
                    {"evaluate", print_evaluation},
                    {"predict", print_prediction}};
    json_t *json = result ? json_loads(result, 0, NULL) : NULL;
    for (size_t i = 0; json && i < sizeof printers / sizeof *printers; i++)
        if (strcmp(printers[i].stage, stage) == 0)
            printers[i].print(json);
    json_decref(json);
}

/* ---- The command ------------------------------------------------------------------------------------------------ */

typedef struct common_options {
    long threads;
    bool json, quiet, help;
} common_options;

static bool is_switch(const char *stage, const char *name, size_t length) {
    size_t count;
    const sap_option *options = sap_stage_options(stage, &count);
    for (size_t i = 0; i < count; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return options[i].kind == SAP_OPTION_SWITCH;
    return false;
}

static sap_status parse(int argc, char **argv, sap_stage *stage, common_options *common, sap_error *err) {
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (strcmp(text, "-h") == 0 || strcmp(text, "--help") == 0) {
            common->help = true;
            return SAP_OK;
        }
        if (strncmp(text, "--", 2) != 0 && strcmp(argv[0], "tune") == 0) {
            SAP_TRY(sap_stage_set(stage, "search", text, err)); /* `sapwood tune search.yaml` */
            continue;
        }
        if (strncmp(text, "--", 2) != 0)
            return sap_error_set(err, SAP_EARGUMENT, "%s: \"%s\" is not an option; options begin with --", argv[0],
                                 text);
        const char *name = text + 2, *equals = strchr(name, '=');
        size_t length = equals ? (size_t)(equals - name) : strlen(name);
        if (strcmp(name, "json") == 0 || strcmp(name, "quiet") == 0) {
            *(name[0] == 'j' ? &common->json : &common->quiet) = true;
            continue;
        }
        char word[64];
        (void)snprintf(word, sizeof word, "%.*s", (int)length, name);
        const char *value = equals ? equals + 1 : NULL;
        if (!value && is_switch(argv[0], name, length))
            value = "true";
        else if (!value && i + 1 < argc)
            value = argv[++i];
        if (!value)
            return sap_error_set(err, SAP_EARGUMENT, "%s: --%s needs a value", argv[0], word);
        if (strcmp(word, "threads") == 0) {
            if (!console_number("--threads", value, 0, 4096, &common->threads))
                return sap_error_set(err, SAP_EARGUMENT, "%s: see `sapwood %s --help`", argv[0], argv[0]);
            continue;
        }
        SAP_TRY(sap_stage_set(stage, word, value, err));
    }
    return SAP_OK;
}

/* The options of a stage that is Python's are handed on as they are. */
static int run_python(int argc, char **argv) {
    sap_error err = {0};
    if (!console_open(1, true))
        return EXIT_FAILED;
    sap_status status = python_run(NULL, argv[0], (const char *const *)(argv + 1), (size_t)(argc - 1), &err);
    console_close();
    return status == SAP_OK ? EXIT_OK : console_fail(&err);
}

int sap_command_stage(int argc, char **argv) {
    sap_error err = {0};
    sap_stage *stage = NULL;
    common_options common = {0};
    int exit_status = EXIT_OK;
    sap_status status = sap_stage_open(argv[0], &stage, &err);
    if (status == SAP_OK)
        status = parse(argc, argv, stage, &common, &err);
    if (status == SAP_OK && common.help) {
        print_help(argv[0]);
    } else if (status == SAP_OK && sap_stage_is_external(stage)) {
        status = sap_stage_check(stage, &err);
        if (status == SAP_OK)
            exit_status = run_python(argc, argv);
    } else if (status == SAP_OK) {
        const sap_run *run = console_open((int)common.threads, common.quiet);
        status = run ? sap_stage_run(stage, run, &err) : SAP_EMEMORY;
        console_close();
        if (status == SAP_OK && common.json && sap_stage_result(stage))
            (void)printf("%s\n", sap_stage_result(stage));
        else if (status == SAP_OK)
            stage_print(argv[0], sap_stage_result(stage));
    }
    if (status != SAP_OK)
        exit_status = console_fail(&err);
    sap_stage_close(stage);
    return exit_status;
}
