/* The stages and their options: one table for the command line, pipeline files and Python. */
#include "pipeline_internal.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const sap_option prepare_options[] = {
    {.name = "sample",
     .kind = SAP_OPTION_SAMPLE,
     .argument = "NAME=FILE",
     .repeats = true,
     .required = true,
     .help = "files of one class of events; may be given again, FILE may be a pattern; labels follow the order of the "
             "names"},
    {.name = "recipe",
     .kind = SAP_OPTION_RECIPE,
     .argument = "NAME|FILE.c",
     .standard = "topology",
     .help = "event selection and features: a built-in recipe or a C file"},
    {.name = "convention",
     .kind = SAP_OPTION_TEXT,
     .argument = "NAME",
     .help = "variant of the recipe; topology has corrected (default) and paper"},
    {.name = "tree", .kind = SAP_OPTION_TEXT, .argument = "PATH", .help = "tree to read, else the recipe's own"},
    {.name = "out", .kind = SAP_OPTION_OUTPUT, .argument = "DIR", .required = true, .help = "folder of the dataset"},
    {.name = "format",
     .kind = SAP_OPTION_CHOICE,
     .argument = "FORMAT",
     .standard = "parquet",
     .choices = "parquet|tfrecord",
     .help = "file format"},
    {.name = "layout",
     .kind = SAP_OPTION_CHOICE,
     .argument = "LAYOUT",
     .standard = "sapwood",
     .choices = "sapwood|published",
     .help = "published: folders and columns of the notebooks of arXiv:1909.10389"},
    {.name = "raw",
     .kind = SAP_OPTION_SWITCH,
     .standard = "false",
     .help = "features as computed, in file order: no balance, split, order or shuffle"},
    {.name = "seed",
     .kind = SAP_OPTION_COUNT,
     .argument = "N",
     .standard = "1",
     .help = "decides thinning and splitting"},
    {.name = "test-fraction",
     .kind = SAP_OPTION_REAL,
     .argument = "X",
     .standard = "0.2",
     .help = "share of the events that go to the test part"},
    {.name = "balance",
     .kind = SAP_OPTION_CHOICE,
     .argument = "yes|no",
     .standard = "yes",
     .choices = "yes|no",
     .help = "thin the larger classes to the smallest one's size"},
};

static const sap_option train_options[] = {
    {.name = "data", .kind = SAP_OPTION_INPUT, .argument = "DIR", .required = true, .help = "dataset made by prepare"},
    {.name = "model",
     .kind = SAP_OPTION_INPUT,
     .argument = "FILE",
     .required = true,
     .help = "network: a .keras file, or Keras' JSON; its inputs are named as the dataset's features"},
    {.name = "out",
     .kind = SAP_OPTION_OUTPUT,
     .argument = "RUN",
     .required = true,
     .help = "folder for the trained model and its history"},
    {.name = "epochs",
     .kind = SAP_OPTION_COUNT,
     .argument = "N",
     .standard = "10",
     .help = "passes over the training part"},
    {.name = "batch", .kind = SAP_OPTION_COUNT, .argument = "N", .standard = "128", .help = "events a step"},
    {.name = "seed",
     .kind = SAP_OPTION_COUNT,
     .argument = "N",
     .standard = "1",
     .help = "of the first weights (with --fresh or a JSON model), shuffling and dropout"},
    {.name = "fresh",
     .kind = SAP_OPTION_SWITCH,
     .standard = "false",
     .help = "draw the weights anew instead of starting from those in the model file"},
    {.name = "optimizer",
     .kind = SAP_OPTION_CHOICE,
     .argument = "NAME",
     .standard = "adam",
     .choices = "adam|sgd",
     .help = "with Keras' defaults"},
    {.name = "learning-rate", .kind = SAP_OPTION_REAL, .argument = "X", .help = "else the optimizer's default"},
    {.name = "momentum", .kind = SAP_OPTION_REAL, .argument = "X", .standard = "0", .help = "of sgd"},
    {.name = "validation",
     .kind = SAP_OPTION_CHOICE,
     .argument = "yes|no",
     .standard = "yes",
     .choices = "yes|no",
     .help = "loss and accuracy of the test part after each epoch"},
};

static const sap_option evaluate_options[] = {
    {.name = "run", .kind = SAP_OPTION_INPUT, .argument = "RUN", .required = true, .help = "folder made by train"},
    {.name = "data", .kind = SAP_OPTION_INPUT, .argument = "DIR", .required = true, .help = "dataset made by prepare"},
    {.name = "split",
     .kind = SAP_OPTION_CHOICE,
     .argument = "PART",
     .standard = "test",
     .choices = "test|train|all",
     .help = "events to evaluate on; all: of a raw dataset"},
    {.name = "out",
     .kind = SAP_OPTION_OUTPUT,
     .argument = "FILE",
     .help = "where the figures go, else RUN/evaluation.json"},
};

static const sap_option predict_options[] = {
    {.name = "run", .kind = SAP_OPTION_INPUT, .argument = "RUN", .required = true, .help = "folder made by train"},
    {.name = "data", .kind = SAP_OPTION_INPUT, .argument = "DIR", .help = "score the events of a dataset …"},
    {.name = "split",
     .kind = SAP_OPTION_CHOICE,
     .argument = "PART",
     .standard = "test",
     .choices = "test|train|all",
     .help = "… this part of it"},
    {.name = "sample",
     .kind = SAP_OPTION_SAMPLE,
     .argument = "NAME=FILE",
     .repeats = true,
     .help = "or score the selected events of ROOT files, with the recipe that the run's dataset was made with"},
    {.name = "recipe",
     .kind = SAP_OPTION_RECIPE,
     .argument = "NAME|FILE.c",
     .help = "else the recipe named in the run"},
    {.name = "tree", .kind = SAP_OPTION_TEXT, .argument = "PATH", .help = "tree to read, else the recipe's own"},
    {.name = "out",
     .kind = SAP_OPTION_OUTPUT,
     .argument = "FILE",
     .required = true,
     .help = "Parquet file of the scores"},
};

static const sap_option report_options[] = {
    {.name = "run",
     .kind = SAP_OPTION_INPUT,
     .argument = "RUN",
     .required = true,
     .help = "folder made by train, evaluated"},
    {.name = "data", .kind = SAP_OPTION_INPUT, .argument = "DIR", .required = true, .help = "dataset made by prepare"},
    {.name = "out", .kind = SAP_OPTION_OUTPUT, .argument = "FILE", .help = "the page, else RUN/report.html"},
};

#define KIND(word, run_function, text)                                                                                 \
    {                                                                                                                  \
        .name = #word, .help = text, .options = word##_options, .option_count = LENGTH(word##_options),                \
        .run = run_function                                                                                            \
    }

static const sap_stage_kind kinds[] = {
    KIND(prepare, sap_prepare_run, "select events of ROOT files, compute features, make a training set"),
    KIND(train, sap_train_run, "train a network defined with Keras on a training set"),
    KIND(evaluate, sap_evaluate_run, "accuracy, ROC curves, AUC and confusion matrix of a trained network"),
    KIND(predict, sap_predict_run, "scores of a trained network for events of a dataset or of ROOT files"),
    KIND(report, NULL, "one HTML page about a trained network: selection, features, losses, ROC curves, scores"),
};

static const char *const names[LENGTH(kinds) + 1] = {"prepare", "train", "evaluate", "predict", "report"};

const sap_stage_kind *sap_stage_kind_find(const char *name) {
    for (size_t i = 0; i < LENGTH(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

const char *const *sap_stage_names(void) {
    return names;
}

const char *sap_stage_help(const char *name) {
    const sap_stage_kind *kind = sap_stage_kind_find(name);
    return kind ? kind->help : NULL;
}

const sap_option *sap_stage_options(const char *name, size_t *count) {
    const sap_stage_kind *kind = sap_stage_kind_find(name);
    *count = kind ? kind->option_count : 0;
    return kind ? kind->options : NULL;
}
