/* The pool: every step once, the lowest error, nesting, cancelling, tasks, fork. */
#include "base/base_internal.h"
#include "test_support.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 1000 };

typedef struct counts {
    atomic_int of[STEPS];
    atomic_int highest_slot;
    const sap_run *run;
} counts;

static sap_status count_step(void *context, size_t index, int slot, sap_error *err) {
    (void)err;
    counts *c = context;
    atomic_fetch_add(&c->of[index], 1);
    int highest = atomic_load(&c->highest_slot);
    while (slot > highest && !atomic_compare_exchange_weak(&c->highest_slot, &highest, slot)) {
    }
    return SAP_OK;
}

static void every_step_runs_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        sap_pool *pool;
        assert_ok(sap_pool_open(threads, &pool, err));
        assert_int_equal(sap_pool_threads(pool), threads);
        sap_run run = {.pool = pool};
        counts c = {0};
        assert_ok(sap_loop(&run, STEPS, count_step, &c, err));
        for (int i = 0; i < STEPS; i++)
            assert_int_equal(c.of[i], 1);
        assert_true(c.highest_slot < threads);
        sap_pool_close(pool);
    }
}

static sap_status failing_step(void *context, size_t index, int slot, sap_error *err) {
    (void)context;
    (void)slot;
    if (index == 17 || index == 400)
        return sap_error_set(err, SAP_EFORMAT, "step %zu", index);
    return SAP_OK;
}

static void the_lowest_error_is_returned(void **state) {
    (void)state;
    sap_pool *pool;
    assert_ok(sap_pool_open(1, &pool, err));
    assert_error(SAP_EFORMAT, "step 17", sap_loop(&(sap_run){.pool = pool}, STEPS, failing_step, NULL, err));
    sap_pool_close(pool);
    assert_ok(sap_pool_open(4, &pool, err));
    assert_error(SAP_EFORMAT, "step 17", sap_loop(&(sap_run){.pool = pool}, STEPS, failing_step, NULL, err));
    sap_pool_close(pool);
}

static sap_status nested_step(void *context, size_t index, int slot, sap_error *err) {
    (void)index;
    (void)slot;
    counts *c = context;
    return sap_loop(c->run, STEPS, count_step, c, err);
}

static void loops_nest(void **state) {
    (void)state;
    sap_pool *pool;
    assert_ok(sap_pool_open(3, &pool, err));
    sap_run run = {.pool = pool};
    counts c = {.run = &run};
    assert_ok(sap_loop(&run, 20, nested_step, &c, err));
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(c.of[i], 20);
    sap_pool_close(pool);
}

static volatile int cancel;

static sap_status cancelling_step(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    (void)err;
    atomic_fetch_add((atomic_int *)context, 1);
    if (index == 3)
        __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
    while (index > 3 && !__atomic_load_n(&cancel, __ATOMIC_RELAXED)) /* the others do not outrun it */
        usleep(100);
    return SAP_OK;
}

static void cancelling_ends_a_loop(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        sap_pool *pool;
        assert_ok(sap_pool_open(threads, &pool, err));
        sap_run run = {.pool = pool, .cancel = &cancel};
        atomic_int ran = 0;
        __atomic_store_n(&cancel, 0, __ATOMIC_RELAXED);
        assert_error(SAP_ECANCELLED, "interrupted", sap_loop(&run, STEPS, cancelling_step, &ran, err));
        assert_true(ran >= 1 && ran <= 4 + threads); /* a step handed out but not begun is not run either */
        sap_pool_close(pool);
    }
}

static sap_status work(void *context, sap_error *err) {
    atomic_int *value = context;
    if (atomic_fetch_add(value, 1) >= 10)
        return sap_error_set(err, SAP_EDATA, "ten is enough");
    return SAP_OK;
}

static void tasks_run_once_and_give_their_error(void **state) {
    (void)state;
    for (int threads = 0; threads <= 2; threads++) { /* 0: without a pool */
        sap_pool *pool = NULL;
        if (threads)
            assert_ok(sap_pool_open(threads, &pool, err));
        sap_run run = {.pool = pool};
        atomic_int value = 0;
        for (int i = 0; i < 10; i++) {
            sap_task *task = NULL;
            assert_ok(sap_task_start(&run, work, &value, &task, err));
            assert_ok(sap_task_wait(task, err));
            assert_int_equal(value, i + 1);
        }
        sap_task *task = NULL;
        assert_ok(sap_task_start(&run, work, &value, &task, err));
        assert_error(SAP_EDATA, "ten is enough", sap_task_wait(task, err));
        sap_pool_close(pool);
    }
}

static void a_pool_works_after_fork(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the thread sanitizer does not allow threads in a forked child */
#endif
    sap_pool *pool;
    assert_ok(sap_pool_open(3, &pool, err));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sap_run run = {.pool = pool};
        counts c = {0};
        sap_status status = sap_loop(&run, STEPS, count_step, &c, NULL);
        bool whole = status == SAP_OK;
        for (int i = 0; i < STEPS; i++)
            whole = whole && c.of[i] == 1;
        sap_pool_close(pool);
        _exit(whole ? 0 : 1);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    sap_pool_close(pool);
}

static void thread_numbers_are_checked(void **state) {
    (void)state;
    sap_pool *pool;
    assert_error(SAP_EARGUMENT, "threads", sap_pool_open(-1, &pool, err));
    assert_error(SAP_EARGUMENT, "threads", sap_pool_open(5000, &pool, err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_runs_once),
        cmocka_unit_test(the_lowest_error_is_returned),
        cmocka_unit_test(loops_nest),
        cmocka_unit_test(cancelling_ends_a_loop),
        cmocka_unit_test(a_pool_works_after_fork),
        cmocka_unit_test(tasks_run_once_and_give_their_error),
        cmocka_unit_test(thread_numbers_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
