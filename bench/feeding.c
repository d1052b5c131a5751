/* What feeding costs, without any training: CPU time a row, and how much of it the calling thread pays.
 *
 *     feeding [SECONDS [DATASET]]
 *
 * From arrays: the HLF network's rows (14 numbers), and the inclusive networks' (those, and sequences of 19 numbers a step, 430
 * steps on average), shuffled anew each epoch. A second thread gathers ahead where there are two. From the training part of a dataset: all features, from
 * memory and streamed.
 */
#include <sapwood/dataset.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PLAIN = 14, WIDTH = 19, SHORTEST = 60, LONGEST = 801 };

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "feeding: %s\n", error.message);
        exit(1);
    }
}

static void *take(size_t count, size_t size) {
    void *data = calloc(count, size);
    if (!data) {
        (void)fprintf(stderr, "feeding: out of memory\n");
        exit(1);
    }
    return data;
}

static double seconds(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Returns how many rows the epoch fed. */
static int64_t run_epoch(sap_feed *feed, int64_t epoch, int64_t batch) {
    sap_examples rows;
    int64_t fed = 0;
    must(sap_feed_epoch(feed, 1, epoch, &error));
    do {
        must(sap_feed_next(feed, batch, &rows, &error));
        fed += rows.rows;
    } while (rows.rows > 0);
    return fed;
}

/* Epochs for at least so many CPU seconds, after one that touches all memory for the first time. */
static void measure(const char *name, sap_feed *feed, int64_t batch, int threads, double least) {
    int64_t fed = run_epoch(feed, 0, batch) - sap_feed_rows(feed);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), own = seconds(CLOCK_THREAD_CPUTIME_ID), all = 0;
    for (int64_t epoch = 1; all < least; epoch++) {
        fed += run_epoch(feed, epoch, batch);
        all = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    }
    own = seconds(CLOCK_THREAD_CPUTIME_ID) - own;
    printf("%-18s batch %4lld, %d thread%s %8.1f ns of CPU a row, the caller's %8.1f\n", name, (long long)batch,
           threads, threads == 1 ? ": " : "s:", 1e9 * all / (double)fed, 1e9 * own / (double)fed);
    sap_feed_close(feed);
}

static void measure_arrays(const char *name, const sap_examples *examples, int64_t batch, const sap_run *run,
                           double least) {
    sap_feed *feed;
    must(sap_feed_open_arrays(examples, run, &feed, &error));
    measure(name, feed, batch, sap_pool_threads(run->pool), least);
}

static void measure_dataset(const char *folder, const sap_run *run, double least) {
    sap_dataset *dataset;
    sap_feed *feed;
    must(sap_dataset_open(folder, &dataset, &error));
    size_t count = sap_dataset_feature_count(dataset);
    const char **names = take(count, sizeof(const char *));
    for (size_t i = 0; i < count; i++)
        names[i] = sap_dataset_feature(dataset, i)->name;
    for (uint64_t memory = 0; memory < 2; memory++) {
        sap_feed_options options = {.inputs = names, .input_count = count, .memory = memory};
        must(sap_feed_open_dataset(dataset, "train", &options, run, &feed, &error));
        measure(memory ? "dataset, streamed" : "dataset, in memory", feed, 128, sap_pool_threads(run->pool), least);
    }
    free(names);
    sap_dataset_close(dataset);
}

int main(int argc, char **argv) {
    double least = argc > 1 ? strtod(argv[1], NULL) : 0.5;
    enum { ROWS = 204800, FEW = 8192 };
    float *plain = take((size_t)ROWS * PLAIN, sizeof *plain);
    int32_t *label = take(ROWS, sizeof *label);
    int64_t *offsets = take(FEW + 1, sizeof *offsets);
    for (int64_t i = 0; i < FEW; i++)
        offsets[i + 1] = offsets[i] + SHORTEST + i * 7919 % (LONGEST - SHORTEST);
    float *steps = take((size_t)(offsets[FEW] * WIDTH), sizeof *steps);
    for (int64_t i = 0; i < offsets[FEW] * WIDTH; i++)
        steps[i] = (float)i; /* so that the pages are there */
    for (int64_t i = 0; i < (int64_t)ROWS * PLAIN; i++)
        plain[i] = (float)i;
    const int64_t widths[2] = {PLAIN, WIDTH};
    const sap_examples hlf = {
        .rows = ROWS, .inputs = 1, .x = (const float *const[]){plain}, .values = widths, .label = label};
    const sap_examples inclusive = {.rows = FEW,
                                    .inputs = 2,
                                    .x = (const float *const[]){plain, steps},
                                    .values = widths,
                                    .offsets = (const int64_t *const[]){NULL, offsets},
                                    .label = label};
    for (int threads = 1; threads <= 2; threads++) {
        sap_pool *pool;
        must(sap_pool_open(threads, &pool, &error));
        sap_run run = {.pool = pool};
        for (int64_t batch = 128; batch <= 4096; batch *= 32) {
            measure_arrays("HLF", &hlf, batch, &run, least);
            measure_arrays("inclusive, ragged", &inclusive, batch, &run, least);
        }
        if (argc > 2)
            measure_dataset(argv[2], &run, least);
        sap_pool_close(pool);
    }
    free(plain);
    free(label);
    free(offsets);
    free(steps);
    return 0;
}
