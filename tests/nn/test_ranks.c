/* Training with several ranks, as threads: the same as with one, but for rounding, or to the last bit; checkpoints are taken up by
 * another number of them; and all of them fail together. */
#include "nn_test.h"

#include "../comm/fake_comm.h"
#include "../dataset/shard_feed.h"

#include <math.h>

static sap_error error;
enum { ROWS = 1500, CHECK_ROWS = 700, WIDTH = 14, STEPS = 6 };

/* Rows that have a sequence, too: (steps, 3) numbers, ragged. */
typedef struct rows {
    random_examples plain;
    int64_t *offsets;
    float *steps;
    float *weight;
} rows;

static rows train_rows, check_rows;

static void make_rows(rows *r, int64_t count) {
    make_examples(&r->plain, count, WIDTH);
    r->offsets = calloc((size_t)count + 1, sizeof *r->offsets);
    for (int64_t i = 0; i < count; i++)
        r->offsets[i + 1] = r->offsets[i] + 1 + (int64_t)(sap_mix(3, (uint64_t)i) % STEPS);
    r->steps = calloc((size_t)(r->offsets[count] * 3), sizeof *r->steps);
    for (int64_t i = 0; i < r->offsets[count] * 3; i++)
        r->steps[i] = (float)(2 * sap_unit(sap_mix(98, (uint64_t)i)) - 1);
    r->weight = calloc((size_t)count, sizeof *r->weight);
    for (int64_t i = 0; i < count; i++)
        r->weight[i] = (float)sap_unit(sap_mix(97, (uint64_t)i)) + 0.5F;
}

static void free_rows(rows *r) {
    free_examples(&r->plain);
    free(r->offsets);
    free(r->steps);
    free(r->weight);
}

/* What to train. */
typedef struct task {
    const char *net;
    bool sequences, weights;
    sap_train_options options;
    const volatile int *cancel; /* of rank 1 */
    const int32_t *labels;      /* NULL: the right ones */
    float *values[FAKE_RANKS];  /* out: the weights */
    int64_t value_count;
    sap_history history[FAKE_RANKS];
} task;

static sap_feed *open_share(const task *t, const rows *r, bool training, int32_t from, int32_t to) {
    sap_examples e = r->plain.examples;
    const float *steps = r->steps;
    const int64_t *offsets = r->offsets, width = 3;
    if (t->sequences) {
        e.x = &steps;
        e.values = &width;
        e.offsets = &offsets;
    }
    e.label = training && t->labels ? t->labels : e.label;
    e.weight = training && t->weights ? r->weight : NULL;
    return shard_feed_open(&e, from, to);
}

static void train_rank(fake_job *job) {
    task *t = job->context;
    sap_model *model = NULL;
    sap_feed *feed = NULL, *check = NULL;
    sap_train_options options = t->options;
    sap_run run = {.cancel = job->rank == 1 ? t->cancel : NULL};
    int32_t from, to;
    options.comm = job->comm;
    job->status = sap_model_open(t->net, 1, &model, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_train_shards(&options, &from, &to, &job->error);
    if (job->status == SAP_OK) {
        feed = open_share(t, &train_rows, true, from, to);
        check = open_share(t, &check_rows, false, from, to);
        job->status = sap_train(model, &options, feed, check, &run, &t->history[job->rank], &job->error);
        if (job->rank == 0)
            t->value_count = model->value_count;
        t->values[job->rank] = malloc((size_t)model->value_count * sizeof(float));
        memcpy(t->values[job->rank], model->values, (size_t)model->value_count * sizeof(float));
    }
    sap_feed_close(feed);
    sap_feed_close(check);
    sap_model_close(model);
}

static void drop(task *t) {
    for (int r = 0; r < FAKE_RANKS; r++) {
        free(t->values[r]);
        t->values[r] = NULL;
        sap_history_release(&t->history[r]);
    }
}

/* Trains on so many ranks; all must come out well, and alike. */
static task train(const task *what, int ranks) {
    task t = *what;
    fake_job jobs[FAKE_RANKS];
    fake_run(ranks, 30, train_rank, &t, jobs);
    for (int r = 0; r < ranks; r++) {
        if (jobs[r].status != SAP_OK)
            fail_msg("rank %d of %d: %s", r, ranks, jobs[r].error.message);
        assert_memory_equal(t.values[r], t.values[0], (size_t)t.value_count * sizeof(float));
        assert_int_equal(t.history[r].epochs, t.history[0].epochs);
        assert_memory_equal(t.history[r].values, t.history[0].values,
                            (size_t)(t.history[0].epochs * t.history[0].count) * sizeof(double));
    }
    return t;
}

static void expect_close(const task *a, const task *b) {
    assert_int_equal(a->history[0].epochs, b->history[0].epochs);
    for (int64_t i = 0; i < a->history[0].epochs * a->history[0].count; i++) {
        double x = a->history[0].values[i], y = b->history[0].values[i];
        if (!(fabs(x - y) < 1e-5))
            fail_msg("%s of epoch %d: %.9g and %.9g", a->history[0].names[i % a->history[0].count],
                     (int)(i / a->history[0].count), x, y);
    }
}

static void expect_same(const task *a, const task *b) {
    assert_int_equal(a->history[0].epochs, b->history[0].epochs);
    assert_memory_equal(a->history[0].values, b->history[0].values,
                        (size_t)(a->history[0].epochs * a->history[0].count) * sizeof(double));
    assert_memory_equal(a->values[0], b->values[0], (size_t)a->value_count * sizeof(float));
}

#define NORMALIZED_NET                                                                                                 \
    SEQUENTIAL(INPUT("x", "14") ", " DENSE("a", "20", "relu") ", {\"class_name\": \"BatchNormalization\", "            \
                                                              "\"config\": {\"name\": \"norm\"}}, " DENSE("c", "3",    \
                                                                                                          "softmax"))
#define GRU_NET                                                                                                        \
    SEQUENTIAL("{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"s\", \"batch_shape\": [null, null, 3]}, "    \
               "\"inbound_nodes\": []}, {\"class_name\": \"Masking\", \"config\": {\"name\": \"m\", \"mask_value\": "  \
               "0.0}}, {\"class_name\": \"GRU\", \"config\": {\"name\": \"g\", \"units\": 6, \"return_sequences\": "   \
               "false, \"reset_after\": true}}, " DENSE("c", "3", "softmax"))

static const double class_weights[3] = {0.5, 2, 1};
static const sap_loss weighted = {.class_weight = class_weights, .class_count = 3, .label_smoothing = 0.1};
static const sap_callback stop = {.kind = SAP_CALLBACK_EARLY_STOPPING, .patience = 1, .restore_best_weights = true};

static const char *net_file(const char *text, const char *name) {
    const char *path = scratch(name);
    assert_ok(sap_file_store(path, text, strlen(text), &error));
    return strdup(path);
}

static task tasks[3];
enum { TASKS = 3 };

/* Dropout, weights, clipping, AUC and early stopping; BatchNormalization; a recurrent network on rows of different lengths. */
static void set_tasks(void) {
    tasks[0] = (task){.net = net_file(DROPOUT_NET, "dropout.json"), .weights = true};
    tasks[0].options = (sap_train_options){.epochs = 4,
                                           .batch = 100,
                                           .seed = 3,
                                           .auc = true,
                                           .losses = &weighted,
                                           .callbacks = &stop,
                                           .callback_count = 1};
    tasks[0].options.optimizer = (sap_optimizer){.learning_rate = 0.01, .global_clipnorm = 0.5};
    tasks[1] = (task){.net = net_file(NORMALIZED_NET, "normalized.json")};
    tasks[1].options = (sap_train_options){.epochs = 2, .batch = 128, .seed = 4, .in_order = true};
    tasks[2] = (task){.net = net_file(GRU_NET, "gru.json"), .sequences = true};
    tasks[2].options = (sap_train_options){.epochs = 2, .batch = 300, .seed = 5, .steps_per_epoch = 4};
}

static void ranks_change_roundings_only(void **state) {
    (void)state;
    for (int k = 0; k < TASKS; k++) {
        task one = train(&tasks[k], 1);
        static const int ranks[] = {2, 5};
        for (int i = 0; i < 2; i++) {
            task more = train(&tasks[k], ranks[i]);
            expect_close(&one, &more);
            drop(&more);
        }
        drop(&one);
    }
}

static void a_fixed_order_changes_nothing(void **state) {
    (void)state;
    for (int k = 0; k < TASKS; k++) {
        task deterministic = tasks[k];
        deterministic.options.deterministic = true;
        task free_order = train(&tasks[k], 1), one = train(&deterministic, 1);
        expect_close(&free_order, &one);
        static const int ranks[] = {2, 3, 8};
        for (int i = 0; i < 3; i++) {
            task more = train(&deterministic, ranks[i]);
            expect_same(&one, &more);
            drop(&more);
        }
        drop(&one);
        drop(&free_order);
    }
}

/* Interrupted on rank 1 alone, in mid-epoch, and taken up by fewer and by more: as if never interrupted. */
static void another_number_of_ranks_goes_on(void **state) {
    (void)state;
    static const int ranks[] = {3, 1, 4};
    task what = tasks[0], whole;
    char *checkpoint = strdup(scratch("checkpoint"));
    volatile int cancel = 1;
    what.options.deterministic = true;
    whole = train(&what, 2);
    what.options.checkpoint = checkpoint;
    for (int i = 0; i < 2; i++) {
        task part = what;
        fake_job jobs[FAKE_RANKS];
        part.cancel = &cancel; /* after each step */
        fake_run(ranks[0], 30, train_rank, &part, jobs);
        for (int r = 0; r < ranks[0]; r++)
            assert_int_equal(jobs[r].status, r == 0 ? SAP_ECANCELLED : SAP_EPEER);
        drop(&part);
    }
    task rest = what;
    rest.options.epochs = 2; /* one rank goes on from step 2, to the end of this epoch */
    task two = train(&rest, ranks[1]);
    drop(&two);
    rest.options.epochs = what.options.epochs;
    task last = train(&rest, ranks[2]);
    expect_same(&whole, &last);
    drop(&last);
    drop(&whole);
    free(checkpoint);
}

static void all_ranks_fail_together(void **state) {
    (void)state;
    task what = tasks[0];
    fake_job jobs[FAKE_RANKS];
    float weight = train_rows.weight[ROWS - 1];
    train_rows.weight[ROWS - 1] = INFINITY; /* one rank's rows spoil the loss of all */
    fake_run(3, 30, train_rank, &what, jobs);
    train_rows.weight[ROWS - 1] = weight;
    assert_int_equal(jobs[0].status, SAP_EDATA);
    assert_contains(jobs[0].error.message, "not a finite number");
    for (int r = 1; r < 3; r++) {
        assert_int_equal(jobs[r].status, SAP_EPEER);
        assert_string_equal(jobs[r].error.message, jobs[0].error.message);
    }
    drop(&what);
    int32_t labels[ROWS];
    memcpy(labels, train_rows.plain.label, sizeof labels);
    labels[ROWS - 1] = 99;
    what = tasks[0]; /* what happens to one ends the others, who miss it */
    what.labels = labels;
    fake_run(2, 0.3, train_rank, &what, jobs);
    assert_int_equal(jobs[1].status, SAP_EDATA);
    assert_contains(jobs[1].error.message, "has the label 99");
    assert_int_equal(jobs[0].status, SAP_EIO);
    assert_contains(jobs[0].error.message, "rank 1 on ");
    drop(&what);
}

static void ranks_must_share_the_rows(void **state) {
    (void)state;
    sap_train_options options = {.batch = 100, .deterministic = true};
    int32_t from, to;
    assert_ok(sap_train_shards(&options, &from, &to, &error));
    assert_int_equal(from, 0);
    assert_int_equal(to, SAP_DATASET_SHARDS);
    int32_t end = 0;
    for (int r = 0; r < 5; r++) {
        sap_share_own(sap_share_groups(1 << 20), r, 5, &from, &to);
        assert_int_equal(from, end);
        end = to;
    }
    assert_int_equal(end, SAP_SLICES);
}

static int set_up(void **state) {
    (void)state;
    make_rows(&train_rows, ROWS);
    make_rows(&check_rows, CHECK_ROWS);
    set_tasks();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int k = 0; k < TASKS; k++)
        free((char *)(uintptr_t)tasks[k].net);
    free_rows(&train_rows);
    free_rows(&check_rows);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_change_roundings_only),     cmocka_unit_test(a_fixed_order_changes_nothing),
        cmocka_unit_test(another_number_of_ranks_goes_on), cmocka_unit_test(all_ranks_fail_together),
        cmocka_unit_test(ranks_must_share_the_rows),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
