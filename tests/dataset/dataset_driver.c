/* Datasets made and fed from features in plain files, for test_training_sets.py.
 *
 *     dataset_driver write OUT LAYOUT FORMAT CONVENTION SEED TEST_FRACTION BALANCE THREADS SAMPLE=NAME:FEATURES...
 *     dataset_driver feed DIR SPLIT SEED EPOCH BATCH THREADS OUT INPUT...
 *
 * FEATURES: int64 events, read, values; int64 entry[events]; float32 hlf[events * 14]; int32 offsets[events + 1];
 * float32 particles[values]. NAME stands in for the ROOT file. OUT of feed: int64 rows, then int32 label[rows], uint64
 * identity[rows], and float32 x[rows * values] for each input.
 */
#include "column/column_internal.h"
#include "dataset/dataset_internal.h"

#include <sapwood/recipe.h>
#include <stdlib.h>

enum { EVENTS_AT_ONCE = 100 };

static void stop_on(sap_status status, const sap_error *err) {
    if (status == SAP_OK)
        return;
    (void)fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static void *take(FILE *file, struct sap_storage *storage, size_t count, size_t size) {
    void *data = sap_storage_alloc(storage, count * size);
    if (!data || fread(data, size, count, file) != count) {
        (void)fprintf(stderr, "features cut short\n");
        exit(1);
    }
    return data;
}

/* The features of a file as the recipe would have made them; returns how many events were read for them. */
static int64_t load(const char *path, const sap_recipe *recipe, sap_batch *out) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT32};
    sap_error err = {0};
    int64_t head[3];
    FILE *file = fopen(path, "rb");
    if (!file || fread(head, sizeof *head, 3, file) != 3) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    int32_t width = recipe->features[0].width;
    const sap_field fields[3] = {
        {.name = recipe->features[0].name, .type = SAP_FIXED_LIST, .size = width, .count = 1, .children = &item},
        {.name = recipe->features[1].name, .type = SAP_LIST, .count = 1, .children = &item},
        {.name = "entry", .type = SAP_INT64}};
    stop_on(sap_batch_init(out, 3, &err), &err);
    out->length = head[0];
    for (int i = 0; i < 3; i++) {
        stop_on(sap_column_init(out->storage, &fields[i], &out->columns[i], &err), &err);
        out->columns[i].length = head[0];
    }
    size_t events = (size_t)head[0];
    out->columns[2].values = take(file, out->storage, events, sizeof(int64_t));
    out->columns[0].children[0].values = take(file, out->storage, events * (size_t)width, sizeof(float));
    out->columns[0].children[0].length = head[0] * width;
    out->columns[1].offsets = take(file, out->storage, events + 1, sizeof(int32_t));
    out->columns[1].children[0].values = take(file, out->storage, (size_t)head[2], sizeof(float));
    out->columns[1].children[0].length = head[2];
    (void)fclose(file);
    return head[1];
}

static int write_dataset(int count, char **arguments) {
    sap_error err = {0};
    const sap_recipe *recipe;
    stop_on(sap_recipe_find("topology", arguments[3], &recipe, &err), &err);
    size_t inputs = (size_t)count - 8;
    sap_dataset_input *input = calloc(inputs, sizeof *input);
    char **features = calloc(inputs, sizeof *features);
    for (size_t i = 0; input && features && i < inputs; i++) {
        input[i].sample = strtok(arguments[8 + i], "=");
        input[i].url = strtok(NULL, ":");
        features[i] = strtok(NULL, "");
    }
    sap_dataset_plan plan = {.inputs = input,
                             .input_count = inputs,
                             .features = recipe->features,
                             .feature_count = recipe->feature_count,
                             .cuts = (const char *const[]){"selection"},
                             .cut_count = 1,
                             .recipe = recipe->name,
                             .recipe_version = recipe->version,
                             .convention = recipe->convention,
                             .seed = strtoull(arguments[4], NULL, 10),
                             .test_fraction = atof(arguments[5]),
                             .balance = atoi(arguments[6]) != 0};
    plan.layout = arguments[1][0] == 'r'   ? SAP_LAYOUT_RAW
                  : arguments[1][0] == 'p' ? SAP_LAYOUT_PUBLISHED
                                           : SAP_LAYOUT_SAPWOOD;
    plan.format = arguments[2][0] == 't' ? SAP_DATASET_TFRECORD : SAP_DATASET_PARQUET;
    sap_pool *pool;
    sap_dataset_writer *writer;
    stop_on(sap_pool_open(atoi(arguments[7]), &pool, &err), &err);
    stop_on(sap_dataset_create(arguments[0], &plan, &writer, &err), &err);
    for (size_t i = 0; i < inputs; i++) {
        sap_batch batch;
        int64_t read = load(features[i], recipe, &batch), dropped = read - batch.length;
        for (int64_t begin = 0, end; begin < batch.length; begin = end) {
            sap_batch view;
            end = begin + EVENTS_AT_ONCE < batch.length ? begin + EVENTS_AT_ONCE : batch.length;
            stop_on(sap_batch_view(&batch, begin, end, &view, &err), &err);
            stop_on(sap_dataset_write(writer, i, &view, &err), &err);
            sap_batch_release(&view);
        }
        stop_on(sap_dataset_end_input(writer, i, read, &dropped, &err), &err);
        sap_batch_release(&batch);
    }
    stop_on(sap_dataset_finish(writer, &(sap_run){.pool = pool}, &err), &err);
    sap_dataset_writer_close(writer);
    sap_pool_close(pool);
    free(input);
    free(features);
    return 0;
}

static int feed_dataset(int count, char **arguments) {
    sap_error err = {0};
    sap_dataset *dataset;
    sap_pool *pool;
    sap_feed *feed;
    size_t inputs = (size_t)count - 7;
    stop_on(sap_pool_open(atoi(arguments[5]), &pool, &err), &err);
    stop_on(sap_dataset_open(arguments[0], &dataset, &err), &err);
    sap_feed_options options = {.inputs = (const char *const *)(arguments + 7), .input_count = inputs};
    stop_on(sap_feed_open_dataset(dataset, arguments[1], &options, &(sap_run){.pool = pool}, &feed, &err), &err);
    stop_on(sap_feed_dense(feed, &err), &err);
    stop_on(sap_feed_epoch(feed, strtoull(arguments[2], NULL, 10), atoll(arguments[3]), &err), &err);
    size_t rows = (size_t)sap_feed_rows(feed), at = 0;
    int64_t batch = atoll(arguments[4]);
    int32_t *label = calloc(rows, sizeof *label);
    uint64_t *identity = calloc(rows, sizeof *identity);
    float **x = calloc(inputs, sizeof *x);
    size_t values[16] = {0};
    while (label && identity && x) {
        sap_examples examples;
        stop_on(sap_feed_next(feed, batch, &examples, &err), &err);
        if (examples.rows == 0)
            break;
        for (size_t i = 0; i < inputs; i++) {
            values[i] = (size_t)examples.values[i];
            if (!x[i])
                x[i] = calloc(rows * values[i], sizeof(float));
            if (x[i])
                memcpy(x[i] + at * values[i], examples.x[i], (size_t)examples.rows * values[i] * sizeof(float));
        }
        memcpy(label + at, examples.label, (size_t)examples.rows * sizeof *label);
        memcpy(identity + at, examples.identity, (size_t)examples.rows * sizeof *identity);
        at += (size_t)examples.rows;
    }
    FILE *file = fopen(arguments[6], "wb");
    if (!file)
        return 1;
    int64_t total = (int64_t)rows;
    (void)fwrite(&total, sizeof total, 1, file);
    (void)fwrite(label, sizeof *label, rows, file);
    (void)fwrite(identity, sizeof *identity, rows, file);
    for (size_t i = 0; i < inputs; i++) {
        (void)fwrite(x[i], sizeof(float), rows * values[i], file);
        free(x[i]);
    }
    free(x);
    free(label);
    free(identity);
    sap_feed_close(feed);
    sap_dataset_close(dataset);
    sap_pool_close(pool);
    return fclose(file) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc > 10 && strcmp(argv[1], "write") == 0)
        return write_dataset(argc - 2, argv + 2);
    if (argc > 9 && strcmp(argv[1], "feed") == 0)
        return feed_dataset(argc - 2, argv + 2);
    (void)fprintf(stderr, "dataset_driver write|feed …: see the source\n");
    return 2;
}
