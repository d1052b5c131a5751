/* run: all the stages of a pipeline file. */
#include "console.h"

#include <stdio.h>
#include <string.h>

static void on_event(void *context, const sap_pipeline_event *event) {
    (void)context;
    if (event->started)
        (void)printf("== %s\n", event->stage);
    else if (event->skipped)
        (void)printf("== %s: nothing changed, kept\n", event->stage);
    if (!event->started)
        stage_print(event->stage, event->result);
    (void)fflush(stdout);
}

static const char help[] =
    "Usage: sapwood run PIPELINE.yaml [OPTIONS]\n\n"
    "Runs the stages that the file names, in order: prepare, tune, train, evaluate, predict, report. A stage is\n"
    "skipped when neither its inputs nor its options nor Sapwood's version changed.\n\n"
    "  --out DIR                  folder for everything that is made; default: what the file says\n"
    "  --force                    run every stage\n"
    "  --threads N                threads; default: one for each core\n"
    "  --quiet                    no progress\n";

int sap_command_run(int argc, char **argv) {
    sap_pipeline_options options = {.external = python_run, .on_event = on_event};
    long threads = 0;
    bool quiet = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            (void)fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--force") == 0) {
            options.force = true;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            quiet = true;
        } else if (strcmp(argv[i], "--out") == 0 && i + 1 < argc) {
            options.folder = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            if (!console_number("--threads", argv[++i], 0, 4096, &threads))
                return EXIT_USAGE;
        } else if (argv[i][0] != '-' && !options.path) {
            options.path = argv[i];
        } else {
            (void)fprintf(stderr, "sapwood: run: \"%s\" is not expected here; see `sapwood run --help`\n", argv[i]);
            return EXIT_USAGE;
        }
    }
    if (!options.path) {
        (void)fputs(help, stderr);
        return EXIT_USAGE;
    }
    const sap_run *run = console_open((int)threads, quiet);
    if (!run)
        return EXIT_FAILED;
    sap_error err = {0};
    sap_status status = sap_pipeline_run(&options, run, &err);
    console_close();
    return status == SAP_OK ? EXIT_OK : console_fail(&err);
}
