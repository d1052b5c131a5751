/* `sapwood compile`: a network as one plain C file. */
#include "console.h"

#include <stdio.h>
#include <stdlib.h>

static sap_status compile(const char *model_path, const char *data, const char *output, sap_compile_options *options,
                          sap_error *err) {
    sap_model *model = NULL;
    sap_dataset *dataset = NULL;
    sap_status status = sap_model_open(model_path, 0, &model, err);
    if (status == SAP_OK && data)
        status = sap_dataset_open(data, &dataset, err);
    options->dataset = dataset;
    if (status == SAP_OK)
        status = sap_model_compile(model, options, output, err);
    sap_dataset_close(dataset);
    sap_model_close(model);
    return status;
}

int sap_command_compile(int argc, char **argv) {
    static const char help[] =
        "Usage: sapwood compile MODEL.keras -o MODEL.c [OPTIONS]\n\n"
        "Writes a trained network as one C11 file without dependencies: the weights, and a function that predicts one "
        "event.\n";
    const char *output = NULL, *data = NULL;
    long rows = 0;
    sap_compile_options settings = {0};
    console_texts files = {0};
    const console_option options[] = {
        {"output", "FILE", "what to write (-o FILE)", CONSOLE_TEXT, &output},
        {"name", "NAME", "the function is called NAME_predict; default: the network's name", CONSOLE_TEXT,
         &settings.name},
        {"header", "FILE", "also write a header that declares it", CONSOLE_TEXT, &settings.header},
        {"data", "FOLDER", "take features as computed and scale them inside, as this dataset (or trained model) says",
         CONSOLE_TEXT, &data},
        {"rows", "N", "the most rows of sequences whose length the network leaves open", CONSOLE_NUMBER, &rows},
        {0}};
    sap_error err = {0};
    int exit_status = console_options(argc, argv, options, help, &files);
    if (exit_status == -1 && (files.count != 1 || !output)) {
        (void)fprintf(stderr, "sapwood compile: %s; see `sapwood compile --help`\n",
                      files.count == 1 ? "no output (-o FILE)" : "it takes one network");
        exit_status = EXIT_USAGE;
    }
    if (exit_status == -1) {
        settings.rows = rows;
        exit_status = compile(files.items[0], data, output, &settings, &err) == SAP_OK ? EXIT_OK : console_fail(&err);
    }
    free(files.items);
    return exit_status;
}
