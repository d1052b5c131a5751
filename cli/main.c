/* sapwood: one command a stage, and one for all. */
#include "console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The Spark connector lies beside this command, in the build folder and in the Python package. */
static void show_spark(void) {
    static const char name[] = "/../spark/sapwood-spark.jar";
    char path[4096];
    const char *named = getenv("SAPWOOD_SPARK_JAR");
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof name);
    path[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        memcpy(slash, name, sizeof name);
    const char *jar = named ? named : path;
    if (access(jar, R_OK) == 0)
        (void)printf("  %-10s yes: ROOT files in Spark (%s)\n", "spark", jar);
    else
        (void)printf("  %-10s no: this installation cannot do ROOT files in Spark (a JDK and Maven): there is no %s\n",
                     "spark", jar);
}

static int command_version(int argc, char **argv) {
    (void)argc;
    (void)argv;
    (void)printf("sapwood %s\n", sap_version());
    const char *line = sap_version_parts();
    while (*line) {
        size_t name = strcspn(line, "\t"), rest = strcspn(line, "\n");
        (void)printf("  %-10.*s %.*s\n", (int)name, line, (int)(rest - name - 1), line + name + 1);
        line += rest + (line[rest] == '\n');
    }
    show_spark();
    return EXIT_OK;
}

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"ls", "what ROOT files hold: objects, branches, types, entries, sizes, codecs", sap_command_ls},
    {"show", "the schema of trees: columns with C++ and Arrow types, sizes, entries a cluster", sap_command_show},
    {"export", "columns as Parquet, Arrow, CSV or NumPy files, for the entries that a condition keeps",
     sap_command_export},
    {"compare", "whether two trees hold the same values", sap_command_compare},
    {"prepare", NULL, sap_command_stage},
    {"tune", NULL, sap_command_stage},
    {"train", NULL, sap_command_stage},
    {"evaluate", NULL, sap_command_stage},
    {"predict", NULL, sap_command_stage},
    {"report", NULL, sap_command_stage},
    {"compile", "a trained network as one plain C file", sap_command_compile},
    {"run", "all stages that a pipeline file names; those whose inputs did not change are skipped", sap_command_run},
    {"digest", "a checksum of the values of every column", sap_command_digest},
    {"version", "version, and the optional parts that are installed", command_version},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *to) {
    (void)fputs("Usage: sapwood COMMAND [OPTIONS]\n\nFrom ROOT files to trained networks.\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        (void)fprintf(to, "  %-10s %s\n", commands[i].name,
                      commands[i].help ? commands[i].help : sap_stage_help(commands[i].name));
    (void)fputs("\n`sapwood COMMAND --help` lists a command's options. Exit status: 0 done, 1 failed, 2 wrong usage, "
                "130 interrupted.\n",
                to);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return EXIT_OK;
    }
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        int status = commands[i].run(argc - 1, argv + 1);
        if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_OK) {
            perror("sapwood: standard output");
            status = EXIT_FAILED;
        }
        return status;
    }
    (void)fprintf(stderr, "sapwood: no command is called \"%s\"; `sapwood --help` lists them\n", argv[1]);
    return EXIT_USAGE;
}
