/* Times sap_train on a network and raw arrays, for bench/train.py.
 *
 *     train_driver MODEL FOLDER ROWS BATCH EPOCHS THREADS [cuda|cuda-float32|cuda-tf32]
 *
 * FOLDER holds label.i32 and for each input of the model NAME.f32 and, for a sequence, NAME.i64 with the first step of each row.
 * Prints one line an epoch: wall seconds, CPU seconds, loss; then waits for a line on stdin before the next, and
 * ends with it.
 */
#include <sapwood/nn.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "train_driver: %s\n", error.message);
        exit(1);
    }
}

/* NULL: no such file. */
static void *find(const char *folder, const char *name, const char *ending, size_t count, size_t size) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s.%s", folder, name, ending);
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    void *data = malloc(count * size + 1);
    if (!data || fread(data, size, count, file) != count) {
        (void)fprintf(stderr, "train_driver: cannot read %zu numbers from %s\n", count, path);
        exit(1);
    }
    (void)fclose(file);
    return data;
}

static void *need(const char *folder, const char *name, const char *ending, size_t count, size_t size) {
    void *data = find(folder, name, ending, count, size);
    if (!data) {
        (void)fprintf(stderr, "train_driver: no %s/%s.%s\n", folder, name, ending);
        exit(1);
    }
    return data;
}

static double cpu_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints what the epoch took, and waits to be told to go on: other programs take their turn. */
static void on_epoch(void *context, const sap_history *history) {
    double *before = context;
    int64_t last = history->epochs - 1;
    printf("%.6f %.6f %.6f\n", history->seconds[last], cpu_seconds() - *before,
           sap_history_value(history, last, "loss"));
    (void)fflush(stdout);
    int c;
    while ((c = getchar()) != '\n' && c != EOF)
        ;
    if (c == EOF)
        exit(0);
    *before = cpu_seconds();
}

enum { INPUTS = 8 };

/* The arrays of the model's inputs. They live as long as the program. */
typedef struct arrays {
    const float *x[INPUTS];
    const int64_t *offsets[INPUTS];
    int64_t values[INPUTS];
} arrays;

static sap_examples read_examples(const sap_model *model, const char *folder, int64_t rows, arrays *a) {
    int32_t inputs = (int32_t)sap_model_input_count(model);
    for (int32_t i = 0; i < inputs && i < INPUTS; i++) {
        const sap_tensor_info *info = sap_model_input(model, (size_t)i);
        a->offsets[i] = find(folder, info->name, "i64", (size_t)rows + 1, sizeof(int64_t));
        a->values[i] = info->shape[info->rank - 1];
        int64_t steps = a->offsets[i] ? a->offsets[i][rows] : rows;
        a->x[i] = need(folder, info->name, "f32", (size_t)(steps * a->values[i]), sizeof(float));
    }
    return (sap_examples){.rows = rows,
                          .inputs = inputs,
                          .x = a->x,
                          .values = a->values,
                          .offsets = a->offsets,
                          .label = need(folder, "label", "i32", (size_t)rows, sizeof(int32_t))};
}

int main(int argc, char **argv) {
    if (argc != 7 && argc != 8) {
        (void)fprintf(stderr,
                      "usage: train_driver MODEL FOLDER ROWS BATCH EPOCHS THREADS [cuda|cuda-float32|cuda-tf32]\n");
        return 2;
    }
    int64_t epochs = strtoll(argv[5], NULL, 10);
    sap_model *model = NULL;
    sap_feed *feed = NULL;
    sap_pool *pool = NULL;
    arrays read = {0};
    must(sap_model_open(argv[1], 1, &model, &error));
    sap_examples examples = read_examples(model, argv[2], strtoll(argv[3], NULL, 10), &read);
    must(sap_pool_open((int)strtol(argv[6], NULL, 10), &pool, &error));
    sap_run run = {.pool = pool};
    must(sap_feed_open_arrays(&examples, &run, &feed, &error));
    sap_history history = {0};
    double before = cpu_seconds();
    sap_train_options options = {
        .epochs = epochs, .batch = strtoll(argv[4], NULL, 10), .seed = 1, .on_epoch = on_epoch, .context = &before};
    if (argc == 8) {
        options.device = SAP_DEVICE_CUDA;
        options.float32 = strcmp(argv[7], "cuda-float32") == 0;
        options.tf32 = strcmp(argv[7], "cuda-tf32") == 0;
    }
    must(sap_train(model, &options, feed, NULL, &run, &history, &error));
    sap_history_release(&history);
    sap_feed_close(feed);
    sap_pool_close(pool);
    sap_model_close(model);
    return 0;
}
