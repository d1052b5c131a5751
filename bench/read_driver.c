/* Streams the columns of a tree, as a user's program would: prints one JSON line.
 *
 *     read_driver FILE OBJECT THREADS REPEATS [--sum] [COLUMN…]
 *
 * Everything from opening the file to closing it counts, REPEATS times in one process; medians. --sum also adds up the
 * numbers of every column, one by one. */
#include <sapwood/sapwood.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct totals {
    const char *path, *object;
    const char *const *columns;
    size_t column_count;
    bool sum;
    double sums[64];
    long long entries;
    size_t bytes; /* of values and offsets */
    sap_source_stats stats;
} totals;

static double sum_of(const sap_column *column) {
    double sum = 0;
    if (column->type == SAP_FLOAT32)
        for (int64_t i = 0; i < column->length; i++)
            sum += (double)((const float *)column->values)[i];
    else if (column->type == SAP_INT32)
        for (int64_t i = 0; i < column->length; i++)
            sum += ((const int32_t *)column->values)[i];
    else if (column->type == SAP_INT64)
        for (int64_t i = 0; i < column->length; i++)
            sum += (double)((const int64_t *)column->values)[i];
    return sum;
}

static void take(totals *t, const sap_batch *batch) {
    t->entries += batch->length;
    for (int32_t i = 0; i < batch->count; i++) {
        const sap_column *column = &batch->columns[i];
        if (column->type == SAP_LIST) {
            t->bytes += (size_t)column->length * sizeof *column->offsets;
            column = &column->children[0];
        }
        t->bytes += (size_t)column->length * sap_type_size(column->type);
        if (t->sum && i < 64)
            t->sums[i] += sum_of(column);
    }
}

static sap_status stream(totals *t, const sap_run *run, sap_error *err) {
    sap_file *file = NULL;
    sap_tree *tree = NULL;
    sap_reader *reader = NULL;
    t->entries = 0;
    t->bytes = 0;
    sap_reader_options options = {.columns = t->column_count ? t->columns : NULL, .count = t->column_count};
    sap_status status = sap_file_open(t->path, run, &file, err);
    if (status == SAP_OK)
        status = sap_tree_open(file, t->object, &tree, err);
    if (status == SAP_OK)
        status = sap_reader_open(tree, &options, run, &reader, err);
    while (status == SAP_OK) {
        sap_batch batch = {0};
        status = sap_reader_next(reader, &batch, err);
        if (status != SAP_OK || batch.length == 0)
            break;
        take(t, &batch);
        sap_batch_release(&batch);
    }
    sap_reader_close(reader);
    sap_tree_close(tree);
    if (file)
        sap_source_stats_get(sap_file_source(file), &t->stats);
    sap_file_close(file);
    return status;
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    int threads = argc > 4 ? atoi(argv[3]) : 0, repeats = argc > 4 ? atoi(argv[4]) : 0;
    double wall[MOST], cpu[MOST];
    if (threads < 1 || repeats < 1 || repeats > MOST) {
        (void)fprintf(stderr, "Usage: read_driver FILE OBJECT THREADS REPEATS [--sum] [COLUMN…]\n");
        return 2;
    }
    bool sum = argc > 5 && strcmp(argv[5], "--sum") == 0;
    int named = sum ? 6 : 5;
    totals t = {.path = argv[1],
                .object = argv[2],
                .columns = (const char *const *)argv + named,
                .column_count = (size_t)(argc - named),
                .sum = sum};
    sap_error err = {0};
    sap_run run = {0};
    sap_status status = sap_pool_open(threads, &run.pool, &err);
    for (int r = 0; r < repeats && status == SAP_OK; r++) {
        wall[r] = seconds(CLOCK_MONOTONIC);
        cpu[r] = seconds(CLOCK_PROCESS_CPUTIME_ID);
        status = stream(&t, &run, &err);
        wall[r] = seconds(CLOCK_MONOTONIC) - wall[r];
        cpu[r] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu[r];
    }
    sap_pool_close(run.pool);
    if (status != SAP_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(wall, (size_t)repeats, sizeof *wall, by_value);
    qsort(cpu, (size_t)repeats, sizeof *cpu, by_value);
    double sums = 0; /* printed, so that they cannot be left out */
    for (int i = 0; i < 64; i++)
        sums += t.sums[i];
    (void)printf("{\"entries\": %lld, \"bytes\": %zu, \"wall\": %.6f, \"cpu\": %.6f, \"peak_mb\": %.1f, \"sum\": %.9g, "
                 "\"requests\": %llu}\n",
                 t.entries, t.bytes, wall[repeats / 2], cpu[repeats / 2], (double)usage.ru_maxrss / 1024, sums,
                 (unsigned long long)t.stats.requests);
    return 0;
}
