/* Times sap_train on a network and raw arrays, for bench/train.py.
 *
 *     train_driver MODEL X.f32 LABEL.i32 ROWS BATCH EPOCHS THREADS
 *
 * Prints one line an epoch: wall seconds, CPU seconds, loss; then waits for a line on stdin before the next, and
 * ends with it.
 */
#include <sapwood/nn.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "train_driver: %s\n", error.message);
        exit(1);
    }
}

static void *read_all(const char *path, size_t count, size_t size) {
    FILE *file = fopen(path, "rb");
    void *data = malloc(count * size);
    if (!file || !data || fread(data, size, count, file) != count) {
        (void)fprintf(stderr, "train_driver: cannot read %zu numbers from %s\n", count, path);
        exit(1);
    }
    (void)fclose(file);
    return data;
}

static double cpu_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints what the epoch took, and waits to be told to go on: other programs take their turn. */
static void on_epoch(void *context, const sap_epoch *epoch) {
    double *before = context;
    printf("%.6f %.6f %.6f\n", epoch->seconds, cpu_seconds() - *before, epoch->loss);
    (void)fflush(stdout);
    int c;
    while ((c = getchar()) != '\n' && c != EOF)
        ;
    if (c == EOF)
        exit(0);
    *before = cpu_seconds();
}

int main(int argc, char **argv) {
    if (argc != 8) {
        (void)fprintf(stderr, "usage: train_driver MODEL X LABEL ROWS BATCH EPOCHS THREADS\n");
        return 2;
    }
    int64_t rows = strtoll(argv[4], NULL, 10), epochs = strtoll(argv[6], NULL, 10);
    sap_model *model = NULL;
    sap_feed *feed = NULL;
    sap_pool *pool = NULL;
    must(sap_model_open(argv[1], 1, &model, &error));
    int64_t values = sap_model_input(model, 0)->shape[0], count = 0;
    const float *x = read_all(argv[2], (size_t)(rows * values), sizeof(float));
    const int32_t *label = read_all(argv[3], (size_t)rows, sizeof(int32_t));
    sap_examples examples = {.rows = rows, .inputs = 1, .x = &x, .values = &values, .label = label};
    must(sap_feed_open_arrays(&examples, &feed, &error));
    must(sap_pool_open((int)strtol(argv[7], NULL, 10), &pool, &error));
    sap_epoch *history = calloc((size_t)epochs, sizeof *history);
    sap_run run = {.pool = pool};
    double before = cpu_seconds();
    sap_train_options options = {
        .epochs = epochs, .batch = strtoll(argv[5], NULL, 10), .seed = 1, .on_epoch = on_epoch, .context = &before};
    must(sap_train(model, &options, feed, NULL, &run, history, &count, &error));
    free(history);
    sap_pool_close(pool);
    sap_feed_close(feed);
    sap_model_close(model);
    free((void *)(uintptr_t)x);
    free((void *)(uintptr_t)label);
    return 0;
}
