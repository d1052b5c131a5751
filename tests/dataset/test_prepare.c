/* Datasets are the same whatever the threads, the order of files and interruptions; and whole or not there at all. */
#include "dataset_folders.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { INPUTS = 4, ENTRIES = 400 };

static const sap_dataset_input inputs[INPUTS] = {
    {"qcd", "here/one.root"}, {"ttbar", "two.root"}, {"qcd", "three.root"}, {"qcd", "there/one.root"}};
static const uint64_t keys[INPUTS] = {11, 22, 33, 44};

static sap_feature features[2];
static bool with_parquet;

/* Where a run is killed, or ends otherwise. */
typedef struct stop {
    int after_inputs;    /* after so many inputs, half of the next one being written; -1: not there */
    uint64_t at_shard;   /* in the first pass that writes; 0: not there */
    volatile int cancel; /* set at `at_shard` instead */
    bool cancels;
} stop;

#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"))) /* the cancel flag is what a signal handler may set */
#endif
static void
on_progress(void *context, const sap_progress *progress) {
    stop *s = context;
    if (s->at_shard == 0 || strcmp(progress->stage, "write") != 0 || progress->done != s->at_shard)
        return;
    if (s->cancels)
        s->cancel = 1;
    else
        _exit(9);
}

static sap_status prepare(const char *out, const sap_dataset_plan *plan, const uint64_t *key, int threads, stop *s,
                          sap_error *error) {
    sap_dataset_writer *writer;
    sap_pool *pool;
    SAP_TRY(sap_dataset_create(out, plan, &writer, error));
    writer->segment_bytes = 1 << 14;       /* several an input */
    writer->memory = threads == 3 ? 1 : 0; /* one shard at a time */
    assert_ok(sap_pool_open(threads, &pool, err));
    sap_run run = {.pool = pool, .progress = on_progress, .context = s, .cancel = &s->cancel};
    sap_status status = SAP_OK;
    for (size_t i = 0; i < plan->input_count && status == SAP_OK; i++) {
        if (s->after_inputs == (int)i) {
            sap_batch batch;
            case_batch(key[i], 0, ENTRIES / 3, &batch);
            assert_ok(sap_dataset_write(writer, i, &batch, err));
            _exit(9);
        }
        if (!sap_dataset_has_input(writer, i))
            status = case_write(writer, i, key[i], ENTRIES, error);
    }
    if (status == SAP_OK)
        status = sap_dataset_finish(writer, &run, error);
    sap_dataset_writer_close(writer);
    sap_pool_close(pool);
    return status;
}

static const stop never = {.after_inputs = -1};

static void prepare_whole(const char *out, const sap_dataset_plan *plan, const uint64_t *key, int threads) {
    stop s = never;
    assert_ok(prepare(out, plan, key, threads, &s, err));
    char *partial = NULL;
    assert_true(asprintf(&partial, "%s.partial", out) > 0);
    assert_false(sap_path_exists(partial));
    free(partial);
}

/* Every layout and format that this build can write. */
typedef struct kind {
    sap_dataset_layout layout;
    sap_dataset_format format;
} kind;
static const kind kinds[6] = {
    {SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD},   {SAP_LAYOUT_RAW, SAP_DATASET_TFRECORD},
    {SAP_LAYOUT_PUBLISHED, SAP_DATASET_TFRECORD}, {SAP_LAYOUT_SAPWOOD, SAP_DATASET_PARQUET},
    {SAP_LAYOUT_RAW, SAP_DATASET_PARQUET},        {SAP_LAYOUT_PUBLISHED, SAP_DATASET_PARQUET}};

static int kind_count(void) {
    return with_parquet ? 6 : 3;
}

static void same_for_any_threads_and_order(void **state) {
    (void)state;
    const sap_dataset_input turned[INPUTS] = {inputs[3], inputs[2], inputs[1], inputs[0]};
    const uint64_t turned_keys[INPUTS] = {44, 33, 22, 11};
    for (int k = 0; k < kind_count(); k++) {
        char *folder = case_folder(), *one = case_path(folder, "one"), *two = case_path(folder, "two"),
             *three = case_path(folder, "three/"), *other = case_path(folder, "other");
        sap_dataset_plan plan = case_plan(inputs, INPUTS, features, kinds[k].layout, kinds[k].format);
        prepare_whole(one, &plan, keys, 1);
        prepare_whole(two, &plan, keys, 2);
        expect_same_folders(one, two, NULL);
        three[strlen(three) - 1] = '\0'; /* a slash at the end is fine where OUT.partial is named */
        prepare_whole(three, &plan, keys, 3);
        expect_same_folders(one, three, NULL);
        if (kinds[k].layout != SAP_LAYOUT_RAW) { /* that one is in file order */
            plan.inputs = turned;
            prepare_whole(other, &plan, turned_keys, 2);
            expect_same_folders(one, other, SAP_DATASET_JSON);
        }
        free(one);
        free(two);
        free(three);
        free(other);
        case_remove(folder);
    }
}

/* Runs `prepare` in a child that is killed on the way. */
static void prepare_killed(const char *out, const sap_dataset_plan *plan, stop s) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sap_error error = {0};
        (void)!prepare(out, plan, keys, 2, &s, &error);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 9);
    assert_false(sap_path_exists(out));
}

static void taken_up_after_a_kill(void **state) {
    (void)state;
    const stop stops[] = {{.after_inputs = 0},
                          {.after_inputs = 2},
                          {.after_inputs = -1, .at_shard = 1},
                          {.after_inputs = -1, .at_shard = 77},
                          {.after_inputs = -1, .at_shard = SAP_BUCKETS}};
    for (int k = 0; k < kind_count(); k++) {
        char *folder = case_folder(), *one = case_path(folder, "one"), *two = case_path(folder, "two");
        sap_dataset_plan plan = case_plan(inputs, INPUTS, features, kinds[k].layout, kinds[k].format);
        prepare_whole(one, &plan, keys, 1);
        for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
            if (stops[i].at_shard && kinds[k].layout == SAP_LAYOUT_RAW)
                continue; /* has no passes */
            if (kinds[k].format == SAP_DATASET_PARQUET && i % 2 == 0)
                continue; /* what differs is how part files are written */
            prepare_killed(two, &plan, stops[i]);
            sap_dataset_writer *writer;
            assert_ok(sap_dataset_create(two, &plan, &writer, err));
            for (int j = 0; j < INPUTS; j++)
                assert_int_equal(sap_dataset_has_input(writer, (size_t)j),
                                 stops[i].after_inputs < 0 || j < stops[i].after_inputs);
            sap_dataset_writer_close(writer);
            prepare_whole(two, &plan, keys, 2);
            expect_same_folders(one, two, NULL);
            assert_ok(sap_folder_remove(two, err));
        }
        free(one);
        free(two);
        case_remove(folder);
    }
}

static void cancelled_and_taken_up(void **state) {
    (void)state;
    char *folder = case_folder(), *one = case_path(folder, "one"), *two = case_path(folder, "two");
    sap_dataset_plan plan = case_plan(inputs, INPUTS, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    prepare_whole(one, &plan, keys, 1);
    stop s = {.after_inputs = -1, .at_shard = 40, .cancels = true};
    assert_error(SAP_ECANCELLED, "interrupted", prepare(two, &plan, keys, 2, &s, err));
    assert_false(sap_path_exists(two));
    sap_dataset *dataset;
    assert_error(SAP_ENOTFOUND, "its preparation was interrupted", sap_dataset_open(two, &dataset, err));
    prepare_whole(two, &plan, keys, 2);
    expect_same_folders(one, two, NULL);
    free(one);
    free(two);
    case_remove(folder);
}

static void limit_file_size(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes == 0 ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A disk that is full, as far as a process can tell: writing past a size fails. */
static void disk_full(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    for (int k = 0; k < kind_count(); k++) {
        char *folder = case_folder(), *one = case_path(folder, "one"), *two = case_path(folder, "two");
        sap_dataset_plan plan = case_plan(inputs, INPUTS, features, kinds[k].layout, kinds[k].format);
        prepare_whole(one, &plan, keys, 1);
        stop s = never;
        limit_file_size(3000); /* while the inputs are written */
        assert_error(SAP_EIO, "File too large", prepare(two, &plan, keys, 2, &s, err));
        limit_file_size(0);
        assert_false(sap_path_exists(two));
        sap_dataset_writer *writer;
        assert_ok(sap_dataset_create(two, &plan, &writer, err));
        for (size_t i = 0; i < INPUTS; i++)
            assert_ok(case_write(writer, i, keys[i], ENTRIES, err));
        limit_file_size(500); /* while the rest is */
        assert_error(SAP_EIO, "File too large", sap_dataset_finish(writer, NULL, err));
        limit_file_size(0);
        assert_false(sap_path_exists(two));
        sap_dataset_writer_close(writer);
        prepare_whole(two, &plan, keys, 1);
        expect_same_folders(one, two, NULL);
        free(one);
        free(two);
        case_remove(folder);
    }
}

static void tables_are_whole_or_not_there(void **state) {
    (void)state;
    if (!with_parquet)
        skip();
    signal(SIGXFSZ, SIG_IGN);
    char *folder = case_folder(), *path = case_path(folder, "scores.parquet"),
         *aside = case_path(folder, "scores.parquet.partial");
    sap_field field = {.name = "score", .type = SAP_FLOAT32};
    for (int round = 0; round < 3; round++) {
        sap_table_writer *table;
        sap_batch batch;
        assert_ok(sap_table_create(path, &field, 1, &table, err));
        assert_ok(sap_batch_init(&batch, 1, err));
        float *values = sap_storage_alloc(batch.storage, 100000 * sizeof *values);
        assert_non_null(values);
        for (uint64_t i = 0; i < 100000; i++)
            values[i] = (float)sap_unit(sap_mix(1, i));
        assert_ok(sap_column_init(batch.storage, &field, &batch.columns[0], err));
        batch.columns[0].values = values;
        batch.columns[0].length = batch.length = 100000;
        assert_ok(sap_table_write(table, &batch, err));
        assert_int_equal(batch.length, 0);
        if (round == 1) {
            limit_file_size(5000);
            assert_error(SAP_EIO, "scores.parquet", sap_table_finish(table, err));
            limit_file_size(0);
        } else if (round == 2) {
            assert_ok(sap_table_finish(table, err));
        }
        sap_table_writer_close(table);
        assert_int_equal(sap_path_exists(path), round == 2);
        assert_false(sap_path_exists(aside));
    }
    sap_part_reader *reader;
    sap_batch batch;
    assert_ok(sap_part_open(path, SAP_DATASET_PARQUET, &field, 1, 0, &reader, err));
    int64_t rows = 0;
    for (;;) {
        assert_ok(sap_part_next(reader, &batch, err));
        if (batch.length == 0)
            break;
        for (int64_t i = 0; i < batch.length; i++)
            assert_true(((const float *)batch.columns[0].values)[i] ==
                        (float)sap_unit(sap_mix(1, (uint64_t)(rows + i))));
        rows += batch.length;
        sap_batch_release(&batch);
    }
    assert_int_equal(rows, 100000);
    sap_part_close(reader);
    free(path);
    free(aside);
    case_remove(folder);
}

static void other_plans_are_refused(void **state) {
    (void)state;
    char *folder = case_folder(), *out = case_path(folder, "out");
    sap_dataset_plan plan = case_plan(inputs, INPUTS, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer, *second;
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    assert_error(SAP_EARGUMENT, "another process is writing", sap_dataset_create(out, &plan, &second, err));
    sap_dataset_writer_close(writer);
    sap_dataset_plan other = plan;
    other.seed = 8;
    assert_error(SAP_EARGUMENT, "seed was 7 and is 8 now", sap_dataset_create(out, &other, &writer, err));
    assert_error(SAP_EARGUMENT, "delete that folder to start over", sap_dataset_create(out, &other, &writer, err));
    other = plan;
    sap_dataset_input elsewhere[INPUTS];
    memcpy(elsewhere, inputs, sizeof inputs);
    elsewhere[2].url = "four.root";
    other.inputs = elsewhere;
    assert_error(SAP_EARGUMENT, "inputs[2].url was \"three.root\" and is \"four.root\" now",
                 sap_dataset_create(out, &other, &writer, err));
    sap_feature wider[2] = {features[0], features[1]};
    wider[1].pad_rows = 13;
    other = plan;
    other.features = wider;
    assert_error(SAP_EARGUMENT, "features[1].pad_rows was 12 and is 13 now",
                 sap_dataset_create(out, &other, &writer, err));
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    sap_dataset_writer_close(writer);
    char *file = case_path(out, "");
    assert_ok(sap_folder_make(file, err));
    assert_error(SAP_EARGUMENT, "exists already", sap_dataset_create(out, &plan, &writer, err));
    free(file);
    free(out);

    out = case_path(folder, "foreign"); /* a folder that is not ours is left alone */
    file = case_path(folder, "foreign.partial/thesis.tex");
    char *partial = case_path(folder, "foreign.partial");
    assert_ok(sap_folder_make(partial, err));
    assert_ok(sap_file_store(file, "x", 1, err));
    assert_error(SAP_EARGUMENT, "holds thesis.tex but no plan.json", sap_dataset_create(out, &plan, &writer, err));
    assert_true(sap_path_exists(file));
    free(file);
    free(partial);
    free(out);
    case_remove(folder);
}

/* An input file that changed in between is another plan too. */
static void changed_inputs_are_noticed(void **state) {
    (void)state;
    char *folder = case_folder(), *out = case_path(folder, "out"), *file = case_path(folder, "a.root");
    assert_ok(sap_file_store(file, "abc", 3, err));
    sap_dataset_input input = {"qcd", file};
    sap_dataset_plan plan = case_plan(&input, 1, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer;
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    sap_dataset_writer_close(writer);
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    sap_dataset_writer_close(writer);
    assert_ok(sap_file_store(file, "abcd", 4, err));
    assert_error(SAP_EARGUMENT, "inputs[0].size was 3 and is 4 now", sap_dataset_create(out, &plan, &writer, err));
    free(file);
    free(out);
    case_remove(folder);
}

/* Files of the spool that were lost or changed are noticed. */
static void spool_is_checked(void **state) {
    (void)state;
    char *folder = case_folder(), *out = case_path(folder, "out"),
         *rows = case_path(folder, "out.partial/spool/00001.rows");
    sap_dataset_plan plan = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer;
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    assert_ok(case_write(writer, 0, 1, ENTRIES, err));
    assert_ok(case_write(writer, 1, 2, ENTRIES, err));
    FILE *file = fopen(rows, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 1000, SEEK_SET), 0);
    assert_int_equal(fwrite("\xff\x00\xff\x00", 1, 4, file), 4);
    assert_int_equal(fclose(file), 0);
    assert_error(SAP_EIO, "00001.rows @0x", sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_int_equal(truncate(rows, 5000), 0);
    assert_ok(sap_dataset_create(out, &plan, &writer, err)); /* too short: written again */
    assert_true(sap_dataset_has_input(writer, 0));
    assert_false(sap_dataset_has_input(writer, 1));
    assert_error(SAP_EARGUMENT, "input 1 (two.root) is not whole yet", sap_dataset_finish(writer, NULL, err));
    assert_ok(case_write(writer, 1, 2, ENTRIES, err));
    assert_ok(sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    free(rows);
    free(out);
    case_remove(folder);
}

static void unusable_data(void **state) {
    (void)state;
    char *folder = case_folder(), *out = case_path(folder, "out");
    sap_dataset_plan plan = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD);
    sap_dataset_writer *writer;
    sap_batch batch;
    for (int layout = 0; layout < 2; layout++) {
        plan.layout = layout ? SAP_LAYOUT_RAW : SAP_LAYOUT_SAPWOOD;
        assert_ok(sap_dataset_create(out, &plan, &writer, err));
        case_batch(1, 0, 100, &batch);
        float *hlf = (float *)(uintptr_t)batch.columns[0].children[0].values,
              *rows = (float *)(uintptr_t)batch.columns[1].children[0].values;
        hlf[7 * CASE_WIDTH + 1] = NAN;
        assert_error(SAP_EDATA, "here/one.root: entry 14: value \"b\" of feature \"hlf\" is not a number",
                     sap_dataset_write(writer, 0, &batch, err));
        hlf[7 * CASE_WIDTH + 1] = 0;
        rows[batch.columns[1].offsets[3] + CASE_ROW * 0 + 2] = -INFINITY;
        assert_error(SAP_EDATA, "entry 6: value \"phi\" of feature \"particles\" in row 0 is infinite",
                     sap_dataset_write(writer, 0, &batch, err));
        sap_dataset_writer_close(writer);
        assert_false(sap_path_exists(out));
        batch.columns[0].name = "hl";
        assert_ok(sap_dataset_create(out, &plan, &writer, err));
        assert_error(SAP_ETYPE, "no column \"hlf\"", sap_dataset_write(writer, 0, &batch, err));
        sap_batch_release(&batch);
        assert_error(SAP_EARGUMENT, "input 9", sap_dataset_end_input(writer, 9, 0, NULL, err));
        assert_error(SAP_EARGUMENT, "10 events were read and 0 given, but the cuts leave 7",
                     sap_dataset_end_input(writer, 0, 10, (const int64_t[]){1, 2}, err));
        sap_dataset_writer_close(writer);
        char *partial = case_path(folder, "out.partial");
        assert_ok(sap_folder_remove(partial, err));
        free(partial);
    }
    plan.layout = SAP_LAYOUT_SAPWOOD;
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    assert_ok(case_write(writer, 0, 1, ENTRIES, err));
    assert_ok(sap_dataset_end_input(writer, 1, 9, (const int64_t[]){5, 4}, err));
    assert_error(SAP_EDATA,
                 "sample \"ttbar\" has no selected events: 9 read, 4 after \"one lepton\", 0 after \"no empty map\"",
                 sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    free(out);

    out = case_path(folder, "none");
    plan.layout = SAP_LAYOUT_RAW;
    assert_ok(sap_dataset_create(out, &plan, &writer, err));
    assert_ok(sap_dataset_end_input(writer, 0, 3, (const int64_t[]){3, 0}, err));
    assert_ok(sap_dataset_end_input(writer, 1, 9, (const int64_t[]){5, 4}, err));
    assert_error(SAP_EDATA, "no event was selected: 12 read, 4 after \"one lepton\"",
                 sap_dataset_finish(writer, NULL, err));
    sap_dataset_writer_close(writer);
    assert_false(sap_path_exists(out));
    free(out);
    case_remove(folder);
}

static void plans_that_make_no_sense(void **state) {
    (void)state;
    sap_dataset_plan good = case_plan(inputs, 2, features, SAP_LAYOUT_SAPWOOD, SAP_DATASET_TFRECORD), plan = good;
    sap_dataset_writer *writer;
    sap_feature other[2] = {features[0], features[1]};
    plan.test_fraction = 1;
    assert_error(SAP_EARGUMENT, "test fraction", sap_dataset_create("x", &plan, &writer, err));
    plan = good;
    plan.input_count = 0;
    assert_error(SAP_EARGUMENT, "at least one input", sap_dataset_create("x", &plan, &writer, err));
    plan = good;
    plan.features = other;
    other[1].name = "hlf";
    assert_error(SAP_EARGUMENT, "two features are called \"hlf\"", sap_dataset_create("x", &plan, &writer, err));
    other[1].name = "label";
    assert_error(SAP_EARGUMENT, "\"label\" has a name", sap_dataset_create("x", &plan, &writer, err));
    other[1] = features[1];
    other[1].phi_index = CASE_ROW;
    assert_error(SAP_EARGUMENT, "delta R", sap_dataset_create("x", &plan, &writer, err));
    other[1] = features[1];
    other[1].scaling = SAP_SCALING_STANDARD_EVENT;
    other[1].pad_rows = 0;
    assert_error(SAP_EARGUMENT, "event by event", sap_dataset_create("x", &plan, &writer, err));
    plan = good;
    plan.layout = SAP_LAYOUT_PUBLISHED;
    plan.feature_count = 1;
    assert_error(SAP_EARGUMENT, "published layout", sap_dataset_create("x", &plan, &writer, err));
    assert_error(SAP_EARGUMENT, "cannot be a dataset's folder", sap_dataset_create("/", &good, &writer, err));
    const void *table;
    assert_error(SAP_EPLUGIN, "no plug-in is called \"parkett\"", sap_plugin_find("parkett", &table, err));
}

static int set_up(void **state) {
    (void)state;
    case_features(false, features);
    with_parquet = case_has_parquet();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_for_any_threads_and_order),
                                       cmocka_unit_test(taken_up_after_a_kill),
                                       cmocka_unit_test(cancelled_and_taken_up),
                                       cmocka_unit_test(disk_full),
                                       cmocka_unit_test(tables_are_whole_or_not_there),
                                       cmocka_unit_test(other_plans_are_refused),
                                       cmocka_unit_test(changed_inputs_are_noticed),
                                       cmocka_unit_test(spool_is_checked),
                                       cmocka_unit_test(unusable_data),
                                       cmocka_unit_test(plans_that_make_no_sense)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
