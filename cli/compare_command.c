/* `sapwood compare`: whether two trees hold the same values. */
#include "console.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_DIFFERENT = 1, EXIT_TROUBLE = 2 };

static void print_difference(void *context, const sap_difference *d) {
    (void)context;
    if (d->column)
        (void)printf("%s%s%s", d->column, d->place[0] == '[' || d->place[0] == '\0' ? "" : " ", d->place);
    if (d->entry >= 0)
        (void)printf(", entry %" PRId64, d->entry);
    (void)printf("%s%s\n", d->column ? ": " : "", d->text);
}

static void print_result(const sap_compare_result *r) {
    if (r->same)
        (void)printf("same: %" PRId64 " entries of %d columns\n", r->entries, r->columns);
    else
        (void)printf("different: %d columns, %" PRId64 " values; %" PRId64 " entries of %d columns were compared\n",
                     r->different_columns, r->different_entries, r->entries, r->columns);
}

int sap_command_compare(int argc, char **argv) {
    static const char help[] =
        "Usage: sapwood compare A[:TREE] B[:TREE] [OPTIONS]\n\n"
        "Compares the columns of two trees by name, and prints the first differences of each. A and B may be patterns "
        "of\n"
        "files. Exit status: 0 same, 1 different, 2 wrong usage or something could not be read.\n";
    const char *entries = ":", *where = NULL;
    sap_compare_options compare = {.report = print_difference};
    bool quiet = false;
    long threads = 0, limit = 0;
    console_texts files = {0}, columns = {0};
    const console_option options[] = {
        {"columns", "NAMES", "names or patterns, with commas; '!NAME' leaves out; default: all", CONSOLE_TEXTS,
         &columns},
        {"tolerance", "X", "how much floating-point numbers may differ, relative; default: not a bit", CONSOLE_REAL,
         &compare.tolerance},
        {"entries", "A:B", "entries to compare", CONSOLE_TEXT, &entries},
        {"where", "CONDITION", "entries to compare, in both", CONSOLE_TEXT, &where},
        {"limit", "N", "differences printed of each column; default: 3", CONSOLE_NUMBER, &limit},
        {"threads", "N", "threads; default: one for each core", CONSOLE_NUMBER, &threads},
        {"quiet", NULL, "no progress, and no differences: the exit status alone", CONSOLE_SWITCH, &quiet},
        {0}};
    sap_error err = {0};
    sap_selection_options a = {0};
    int exit_status = console_options(argc, argv, options, help, &files);
    if (exit_status == -1 && files.count != 2) {
        (void)fprintf(stderr, "sapwood compare: two inputs are needed; see `sapwood compare --help`\n");
        exit_status = EXIT_TROUBLE;
    }
    if (exit_status == -1 && (!console_entries(entries, &a.begin, &a.end) || !console_split(&columns)))
        exit_status = EXIT_TROUBLE;
    if (exit_status == -1) {
        compare.limit = (int32_t)limit;
        if (quiet)
            compare.report = NULL;
        a.input_count = 1;
        a.columns = columns.items;
        a.column_count = columns.count;
        a.where = where;
        sap_selection_options b = a;
        a.inputs = files.items;
        b.inputs = files.items + 1;
        const sap_run *run = console_open((int)threads, quiet);
        sap_compare_result result;
        sap_status status = run ? sap_compare_run(&a, &b, &compare, run, &result, &err) : SAP_EMEMORY;
        console_close();
        if (status == SAP_OK && !quiet)
            print_result(&result);
        if (status == SAP_OK)
            exit_status = result.same ? EXIT_OK : EXIT_DIFFERENT;
        else
            exit_status = run && console_fail(&err) == EXIT_INTERRUPTED ? EXIT_INTERRUPTED : EXIT_TROUBLE;
    }
    free(files.items);
    free(columns.items);
    return exit_status;
}
