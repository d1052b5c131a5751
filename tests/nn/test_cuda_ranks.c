/* Ranks, as threads, that train on emulated GPUs: the same as on the CPU with as many ranks, whether sums go from GPU to GPU or through
 * the host; in the fixed order the same bits for any number of ranks; checkpoints, and failures of one rank. */
#include "nn_test.h"

#include "../comm/fake_comm.h"
#include "../dataset/shard_feed.h"
#include "nn/cuda/cuda_run.h"

#include <math.h>
#include <stdlib.h>

static sap_error error;
enum { ROWS = 170, CHECK_ROWS = 70, WIDTH = 14, STEPS = 3, BATCH = 96 };

#define GRU_NET                                                                                                        \
    SEQUENTIAL("{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"s\", \"batch_shape\": [null, null, 3]}, "    \
               "\"inbound_nodes\": []}, {\"class_name\": \"Masking\", \"config\": {\"name\": \"m\", \"mask_value\": "  \
               "0.0}}, {\"class_name\": \"GRU\", \"config\": {\"name\": \"g\", \"units\": 6, \"return_sequences\": "   \
               "false, \"reset_after\": true}}, " DENSE("c", "3", "softmax"))

static random_examples train_rows, check_rows;
static int64_t offsets[ROWS + 1];
static float steps[ROWS * STEPS * 3];
static float kinds[ROWS], numbers[ROWS], weights[ROWS];

typedef struct task {
    const char *net;
    bool sequences, ends, interrupted;
    sap_train_options options;
    volatile int cancel; /* of rank 1; set after the first epoch of this run, if it is to be interrupted */
    float *values[FAKE_RANKS];
    int64_t value_count;
    sap_history history[FAKE_RANKS];
} task;

static sap_feed *open_share(const task *t, const random_examples *r, int32_t from, int32_t to) {
    static const int64_t width = 3;
    static const float *const x = steps;
    static const int64_t *const begin = offsets;
    sap_examples e = r->examples;
    if (t->sequences) {
        e.x = &x;
        e.values = &width;
        e.offsets = &begin;
    }
    if (t->ends) {
        static const int64_t one[] = {1, 1};
        static const float *const y[] = {kinds, numbers};
        e.targets = 2;
        e.y = y;
        e.target_values = one;
        e.weight = weights;
    }
    return shard_feed_open(&e, from, to);
}

static void interrupt(void *context, const sap_history *history) {
    (void)history;
    task *t = context;
    t->cancel = t->interrupted;
}

static void train_rank(fake_job *job) {
    task *t = job->context;
    sap_model *model = NULL;
    sap_feed *feed = NULL, *check = NULL;
    sap_train_options options = t->options;
    sap_run run = {.cancel = job->rank == 1 ? &t->cancel : NULL};
    int32_t from, to;
    options.comm = job->comm;
    options.on_epoch = interrupt;
    options.context = t;
    job->status = sap_model_open(t->net, 1, &model, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_train_shards(&options, &from, &to, &job->error);
    if (job->status == SAP_OK) {
        feed = open_share(t, &train_rows, from, to);
        check = open_share(t, &check_rows, from, to);
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

static void emulate_devices(int count) {
    assert_int_equal(setenv("CUDA_VISIBLE_DEVICES", count == 3 ? "4,5,6" : "4,5", 1), 0);
}

/* Trains on so many ranks, which end alike. */
static task train(const task *what, sap_device device, bool deterministic, int ranks) {
    task t = *what;
    fake_job jobs[FAKE_RANKS];
    t.options.device = device;
    t.options.deterministic = deterministic;
    fake_run(ranks, 60, train_rank, &t, jobs);
    for (int r = 0; r < ranks; r++) {
        if (jobs[r].status != SAP_OK)
            fail_msg("rank %d of %d: %s", r, ranks, jobs[r].error.message);
        assert_memory_equal(t.values[r], t.values[0], (size_t)t.value_count * sizeof(float));
        assert_memory_equal(t.history[r].values, t.history[0].values,
                            (size_t)(t.history[0].epochs * t.history[0].count) * sizeof(double));
    }
    return t;
}

static void expect_close(const task *a, const task *b) {
    assert_int_equal(a->history[0].epochs, b->history[0].epochs);
    for (int64_t i = 0; i < a->history[0].epochs * a->history[0].count; i++) {
        double x = a->history[0].values[i], y = b->history[0].values[i];
        if (isnan(x) && isnan(y))
            continue; /* no validation in this epoch */
        if (!(fabs(x - y) < 2e-5))
            fail_msg("%s of epoch %d: %.9g and %.9g", a->history[0].names[i % a->history[0].count],
                     (int)(i / a->history[0].count), x, y);
    }
    for (int64_t i = 0; i < a->value_count; i++)
        if (!(fabsf(a->values[0][i] - b->values[0][i]) < 2e-4F))
            fail_msg("weight %d: %.9g and %.9g", (int)i, (double)a->values[0][i], (double)b->values[0][i]);
}

static void expect_same(const task *a, const task *b) {
    assert_int_equal(a->history[0].epochs, b->history[0].epochs);
    assert_memory_equal(a->history[0].values, b->history[0].values,
                        (size_t)(a->history[0].epochs * a->history[0].count) * sizeof(double));
    assert_memory_equal(a->values[0], b->values[0], (size_t)a->value_count * sizeof(float));
}

static const char *net_file(const char *text, const char *name) {
    const char *path = scratch(name);
    assert_ok(sap_file_store(path, text, strlen(text), &error));
    return strdup(path);
}

static task tasks[3];

static void ranks_on_gpus_are_ranks_on_cpus(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        task cpu = train(&tasks[k], SAP_DEVICE_CPU, false, 3);
        emulate_devices(3);
        task direct = train(&tasks[k], SAP_DEVICE_CUDA, false, 3);
        expect_close(&cpu, &direct);
        emulate_devices(2); /* two of three ranks share one */
        task through_host = train(&tasks[k], SAP_DEVICE_CUDA, false, 3);
        expect_same(&direct, &through_host); /* the sums of these tests are taken in the order of the ranks */
        drop(&cpu);
        drop(&direct);
        drop(&through_host);
    }
}

static void a_fixed_order_changes_nothing(void **state) {
    (void)state;
    emulate_devices(3);
    for (int k = 0; k < 3; k++) {
        task cpu = train(&tasks[k], SAP_DEVICE_CPU, true, 1), one = train(&tasks[k], SAP_DEVICE_CUDA, true, 1);
        task three = train(&tasks[k], SAP_DEVICE_CUDA, true, 3);
        expect_close(&cpu, &one);
        expect_same(&one, &three);
        drop(&cpu);
        drop(&one);
        drop(&three);
    }
}

/* Interrupted on rank 1 after an epoch, and taken up by one rank, and by more. */
static void another_number_of_ranks_goes_on(void **state) {
    (void)state;
    task part = tasks[0];
    part.options.validation_freq = 9; /* none */
    task whole = train(&part, SAP_DEVICE_CUDA, true, 1);
    fake_job jobs[FAKE_RANKS];
    char *checkpoint = strdup(scratch("checkpoint"));
    part.options.device = SAP_DEVICE_CUDA;
    part.options.deterministic = true;
    part.options.checkpoint = checkpoint;
    part.options.checkpoint_steps = 1;
    part.interrupted = true;
    emulate_devices(2);
    fake_run(2, 60, train_rank, &part, jobs);
    assert_int_equal(jobs[0].status, SAP_ECANCELLED);
    assert_int_equal(jobs[1].status, SAP_EPEER);
    drop(&part);
    part.interrupted = false;
    part.cancel = 0;
    task rest = train(&part, SAP_DEVICE_CUDA, true, 3);
    expect_same(&whole, &rest);
    drop(&rest);
    drop(&whole);
    free(checkpoint);
}

static void all_ranks_fail_together(void **state) {
    (void)state;
    fake_job jobs[FAKE_RANKS];
    float *spoilt = &train_rows.x[(ROWS - 1) * WIDTH], before = *spoilt;
    *spoilt = NAN;
    emulate_devices(2);
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        task t = tasks[0];
        t.options.device = SAP_DEVICE_CUDA;
        t.options.deterministic = deterministic;
        fake_run(2, 60, train_rank, &t, jobs);
        for (int r = 0; r < 2; r++) {
            assert_true(jobs[r].status == SAP_EDATA || jobs[r].status == SAP_EPEER);
            assert_contains(jobs[r].error.message, "not a finite number");
            assert_string_equal(jobs[r].error.message, jobs[0].error.message);
        }
        drop(&t);
    }
    *spoilt = before;
}

/* ---- Batches on their way ------------------------------------------------------------------------------------------- */

typedef struct stream {
    const task *task;
    bool keep;
    int32_t groups;
    float *values; /* out, of rank 0 */
    int64_t count;
} stream;

static sap_status run_epoch(const stream *s, sap_cuda *cuda, sap_feed *feed, uint8_t *shards,
                            sap_optimizer_state *state, sap_error *err) {
    sap_loss_sums sums;
    sap_examples e;
    bool kept = false;
    if (s->keep)
        SAP_TRY(sap_cuda_keep(cuda, 0, feed, &kept, err));
    SAP_TRY(sap_feed_epoch(feed, 9, 1, err));
    if (kept)
        return sap_cuda_shared_run(cuda, feed, 0, ROWS, BATCH, 5, state, &sums, err);
    for (;;) {
        SAP_TRY(sap_feed_next(feed, BATCH, &e, err));
        if (e.batch_rows == 0)
            return sap_cuda_finish(cuda, false, &sums, err);
        sap_feed_last_shards(feed, shards);
        SAP_TRY(sap_cuda_step(cuda, &e, 5, state, err));
    }
}

static void stream_rank(fake_job *job) {
    stream *s = job->context;
    sap_model *model = NULL;
    sap_cuda *cuda = NULL;
    sap_optimizer full;
    sap_optimizer_state state = {0};
    uint8_t shards[BATCH];
    sap_share share = {.comm = job->comm, .groups = s->groups, .shards = shards};
    int32_t from, to;
    sap_train_options options = {.batch = BATCH, .comm = job->comm, .deterministic = s->groups > 0};
    job->status = sap_train_shards(&options, &from, &to, &job->error);
    sap_feed *feed = open_share(s->task, &train_rows, from, to);
    if (job->status == SAP_OK)
        job->status = sap_model_open(s->task->net, 1, &model, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_optimizer_check(&s->task->options.optimizer, &full, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_optimizer_init(&state, &full, model->trainable_count, NULL, 0, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_cuda_open(model, NULL, &state, BATCH, SAP_CUDA_FLOAT32, &share, &cuda, &job->error);
    if (job->status == SAP_OK)
        job->status = run_epoch(s, cuda, feed, shards, &state, &job->error);
    if (job->status == SAP_OK)
        job->status = sap_cuda_get(cuda, model, &state, &job->error);
    if (job->status == SAP_OK && job->rank == 0) {
        s->count = model->value_count;
        s->values = malloc((size_t)model->value_count * sizeof(float));
        memcpy(s->values, model->values, (size_t)model->value_count * sizeof(float));
    }
    sap_cuda_close(cuda);
    sap_feed_close(feed);
    sap_optimizer_release(&state);
    sap_model_close(model);
}

static void batches_on_their_way_are_rows_kept(void **state) {
    (void)state;
    emulate_devices(3);
    for (int32_t groups = 0; groups <= 8; groups += 8) {
        stream s[2] = {{&tasks[1], true, groups, NULL, 0}, {&tasks[1], false, groups, NULL, 0}};
        fake_job jobs[FAKE_RANKS];
        for (int i = 0; i < 2; i++) {
            fake_run(3, 60, stream_rank, &s[i], jobs);
            for (int r = 0; r < 3; r++)
                if (jobs[r].status != SAP_OK)
                    fail_msg("rank %d: %s", r, jobs[r].error.message);
        }
        assert_memory_equal(s[0].values, s[1].values, (size_t)s[0].count * sizeof(float));
        free(s[0].values);
        free(s[1].values);
    }
}

static int set_up(void **state) {
    (void)state;
    make_examples(&train_rows, ROWS, WIDTH);
    make_examples(&check_rows, CHECK_ROWS, WIDTH);
    for (int64_t i = 0; i < ROWS; i++)
        offsets[i + 1] = offsets[i] + 1 + (int64_t)(sap_mix(3, (uint64_t)i) % STEPS);
    for (int64_t i = 0; i < offsets[ROWS] * 3; i++)
        steps[i] = (float)(2 * sap_unit(sap_mix(98, (uint64_t)i)) - 1);
    sap_train_options options = {.epochs = 2, .batch = BATCH, .seed = 3, .float32 = true};
    options.optimizer.learning_rate = 0.01;
    options.validation_freq = 2;
    tasks[0] = (task){.net = net_file(DROPOUT_NET, "dropout.json"), .options = options};
    options.epochs = 1;
    options.validation_freq = 1;
    tasks[1] = (task){.net = net_file(GRU_NET, "gru.json"), .sequences = true, .options = options};
    for (int i = 0; i < ROWS; i++) {
        kinds[i] = (float)train_rows.label[i];
        numbers[i] = train_rows.x[14 * i] + train_rows.x[14 * i + 5];
        weights[i] = 0.5F * (float)(i % 4);
    }
    static const sap_loss losses[] = {{.kind = SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY, .weight = 0.5},
                                      {.kind = SAP_LOSS_MEAN_SQUARED_ERROR, .weight = 2}};
    options.losses = losses;
    tasks[2] = (task){.net = net_file(TWO_ENDS("a"), "ends.json"), .ends = true, .options = options};
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++)
        free((char *)(uintptr_t)tasks[k].net);
    free_examples(&train_rows);
    free_examples(&check_rows);
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_on_gpus_are_ranks_on_cpus),    cmocka_unit_test(a_fixed_order_changes_nothing),
        cmocka_unit_test(another_number_of_ranks_goes_on),    cmocka_unit_test(all_ranks_fail_together),
        cmocka_unit_test(batches_on_their_way_are_rows_kept),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
