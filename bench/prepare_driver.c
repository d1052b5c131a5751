/* Times the reading of a recipe's columns, and its selection and features, over files: prints one JSON line.
 *
 *     prepare_driver THREADS REPEATS FILE…
 *
 * The files are read REPEATS times in one process; opening them is part of the reading. Nothing is written. */
#include <malloc.h>
#include <sapwood/sapwood.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct spent {
    double wall, cpu;
} spent;

static spent now(void) {
    return (spent){seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static void add(spent *to, spent from) {
    spent end = now();
    to->wall += end.wall - from.wall;
    to->cpu += end.cpu - from.cpu;
}

typedef struct totals {
    spent reading, features;
    long long events, selected;
} totals;

static sap_status measure(const char *path, const sap_recipe *recipe, const sap_run *run, totals *t, sap_error *err) {
    sap_file *file = NULL;
    sap_tree *tree = NULL;
    sap_reader *reader = NULL;
    const char *columns[64];
    int64_t dropped[16] = {0};
    for (size_t i = 0; i < recipe->input_count && i < 64; i++)
        columns[i] = recipe->inputs[i].name;
    spent start = now();
    sap_status status = sap_file_open(path, run, &file, err);
    if (status == SAP_OK)
        status = sap_tree_open(file, recipe->tree, &tree, err);
    sap_reader_options options = {.columns = columns, .count = recipe->input_count, .batch_bytes = (size_t)8 << 20};
    if (status == SAP_OK)
        status = sap_reader_open(tree, &options, run, &reader, err);
    while (status == SAP_OK) {
        sap_batch batch = {0}, features = {0};
        status = sap_reader_next(reader, &batch, err);
        add(&t->reading, start);
        if (status != SAP_OK || batch.length == 0)
            break;
        start = now();
        status = sap_recipe_run(recipe, &batch, path, run, &features, dropped, err);
        add(&t->features, start);
        t->events += batch.length;
        t->selected += features.length;
        start = now();
        sap_batch_release(&features);
        sap_batch_release(&batch);
    }
    sap_reader_close(reader);
    sap_tree_close(tree);
    sap_file_close(file);
    return status;
}

int main(int argc, char **argv) {
    sap_error err = {0};
    sap_run run = {0};
    const sap_recipe *recipe;
    totals t = {0};
    if (argc < 4)
        return 2;
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20); /* as the command does */
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    sap_status status = sap_pool_open(atoi(argv[1]), &run.pool, &err);
    if (status == SAP_OK)
        status = sap_recipe_find("topology", NULL, &recipe, &err);
    for (int repeat = 0; repeat < atoi(argv[2]) && status == SAP_OK; repeat++)
        for (int i = 3; i < argc && status == SAP_OK; i++)
            status = measure(argv[i], recipe, &run, &t, &err);
    sap_pool_close(run.pool);
    if (status != SAP_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    (void)printf(
        "{\"events\": %lld, \"selected\": %lld, \"read_wall\": %.6f, \"read_cpu\": %.6f, \"features_wall\": %.6f, "
        "\"features_cpu\": %.6f, \"peak_mb\": %.1f}\n",
        t.events, t.selected, t.reading.wall, t.reading.cpu, t.features.wall, t.features.cpu,
        (double)usage.ru_maxrss / 1024);
    return 0;
}
