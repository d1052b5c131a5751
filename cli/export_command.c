/* `sapwood export`: columns of ROOT files in other formats. */
#include "console.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int sap_command_export(int argc, char **argv) {
    static const char help[] = "Usage: sapwood export FILE[:TREE]… -o OUT.{parquet,arrow,csv,npz} [OPTIONS]\n\n"
                               "Writes columns of ROOT files as Parquet, as an Arrow IPC file, as CSV or as a NumPy "
                               "archive. Several files, or a\n"
                               "pattern, are one table.\n";
    const char *output = NULL, *format = NULL, *entries = ":";
    bool force = false, quiet = false;
    long threads = 0, batch = 0;
    console_texts files = {0}, columns = {0};
    sap_selection_options selection = {0};
    const char *where = NULL;
    const console_option options[] = {
        {"output", "FILE", "what to write (-o FILE)", CONSOLE_TEXT, &output},
        {"columns", "NAMES", "names or patterns, with commas; '!NAME' leaves out; default: all", CONSOLE_TEXTS,
         &columns},
        {"where", "CONDITION", "entries to keep, such as \"nMuon >= 2 && MET_pt > 30\"", CONSOLE_TEXT, &where},
        {"entries", "A:B", "entries to look at, of all files together", CONSOLE_TEXT, &entries},
        {"format", "NAME", "parquet, arrow, csv or npz; default: by the ending of the file", CONSOLE_TEXT, &format},
        {"batch", "N", "entries read at a time; default: 4 to 32 MB of them", CONSOLE_NUMBER, &batch},
        {"force", NULL, "replace a file that exists", CONSOLE_SWITCH, &force},
        {"threads", "N", "threads; default: one for each core", CONSOLE_NUMBER, &threads},
        {"quiet", NULL, "no progress", CONSOLE_SWITCH, &quiet},
        {0}};
    sap_error err = {0};
    int exit_status = console_options(argc, argv, options, help, &files);
    if (exit_status == -1 && (files.count == 0 || !output)) {
        (void)fprintf(stderr, "sapwood export: %s; see `sapwood export --help`\n",
                      output ? "no input" : "no output (-o FILE)");
        exit_status = EXIT_USAGE;
    }
    if (exit_status == -1 && !console_entries(entries, &selection.begin, &selection.end))
        exit_status = EXIT_USAGE;
    if (exit_status == -1 && !console_split(&columns))
        exit_status = EXIT_FAILED;
    if (exit_status == -1) {
        selection.inputs = files.items;
        selection.input_count = files.count;
        selection.columns = columns.items;
        selection.column_count = columns.count;
        selection.where = where;
        selection.batch_entries = batch;
        const sap_run *run = console_open((int)threads, quiet);
        sap_export_result result;
        sap_status status = run ? sap_export_run(&selection, output, format, force, run, &result, &err) : SAP_EMEMORY;
        console_close();
        exit_status = status == SAP_OK ? EXIT_OK : run ? console_fail(&err) : EXIT_FAILED;
        char size[32];
        if (status == SAP_OK)
            (void)printf("%s: %" PRId64 " of %" PRId64 " entries, %s\n", output, result.written, result.read,
                         console_bytes((uint64_t)result.bytes, size, sizeof size));
    }
    free(files.items);
    free(columns.items);
    return exit_status;
}
