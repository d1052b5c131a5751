/* The thread pool: loops whose steps are handed out one by one, and single tasks.
 *
 * A job is a loop in flight. Its caller takes steps of its own job only, pool threads take steps of the oldest job
 * that has some left; so a nested loop can always go on by itself and nothing waits for a thread that waits.
 */
#include "base_internal.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct sap_job {
    struct sap_job *next;
    const sap_run *run;
    sap_step step;
    void *context;
    size_t count;
    size_t begun;  /* steps handed out */
    size_t active; /* participants inside */
    int slots;     /* participants so far */
    bool queued;
    size_t failed_index; /* lowest failing step, SIZE_MAX: none */
    sap_error error;
} sap_job;

struct sap_pool {
    int threads; /* with the caller */
    pthread_t *workers;
    int worker_count;
    pid_t pid;
    pthread_mutex_t lock;
    pthread_cond_t work; /* a job was queued, or the pool closes */
    pthread_cond_t done; /* a participant left a job */
    sap_job *first;
    bool closing;
};

static bool cancelled(const sap_run *run) {
    return run && run->cancel && __atomic_load_n(run->cancel, __ATOMIC_RELAXED);
}

/* Takes the job out of the queue. Called with the lock. */
static void unqueue(sap_pool *pool, sap_job *job) {
    if (!job->queued)
        return;
    sap_job **at = &pool->first;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    job->queued = false;
}

/* Runs steps of `job` until none is left. Called with the lock, which is released meanwhile. */
static void participate(sap_pool *pool, sap_job *job) {
    int slot = job->slots++;
    job->active++;
    while (job->begun < job->count) {
        size_t index = job->begun++;
        if (job->begun == job->count)
            unqueue(pool, job);
        pthread_mutex_unlock(&pool->lock);
        sap_error error = {0};
        sap_status status = sap_run_check(job->run, &error);
        if (status == SAP_OK)
            status = job->step(job->context, index, slot, &error);
        pthread_mutex_lock(&pool->lock);
        if (status != SAP_OK) {
            if (index < job->failed_index) {
                job->failed_index = index;
                job->error = error;
                job->error.status = status;
            }
            unqueue(pool, job);
            job->begun = job->count; /* no more steps */
        }
    }
    job->active--;
    pthread_cond_broadcast(&pool->done);
}

static void *worker(void *argument) {
    sap_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        sap_job *job = pool->first;
        while (job && job->slots >= pool->threads) /* cannot happen twice for one thread, but slots are a promise */
            job = job->next;
        if (job)
            participate(pool, job);
        else if (pool->closing)
            break;
        else
            pthread_cond_wait(&pool->work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int available_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

static void start_workers(sap_pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->first = NULL;
    pool->pid = getpid();
    pool->worker_count = 0;
    while (pool->worker_count < pool->threads - 1 && sap_thread_start(&pool->workers[pool->worker_count], worker, pool))
        pool->worker_count++; /* fewer threads than asked for are slower, not wrong */
}

sap_status sap_pool_open(int threads, sap_pool **out, sap_error *err) {
    if (threads < 0 || threads > 4096)
        return sap_error_set(err, SAP_EARGUMENT, "threads: %d is not between 0 and 4096", threads);
    sap_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return sap_error_memory(err, "thread pool");
    pool->threads = threads ? threads : available_cores();
    pool->workers = calloc((size_t)pool->threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return sap_error_memory(err, "thread pool");
    }
    start_workers(pool);
    *out = pool;
    return SAP_OK;
}

void sap_pool_close(sap_pool *pool) {
    if (!pool)
        return;
    if (pool->pid == getpid()) {
        pthread_mutex_lock(&pool->lock);
        pool->closing = true;
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 0; i < pool->worker_count; i++)
            pthread_join(pool->workers[i], NULL);
        pthread_mutex_destroy(&pool->lock);
        pthread_cond_destroy(&pool->work);
        pthread_cond_destroy(&pool->done);
    }
    free(pool->workers);
    free(pool);
}

int sap_pool_threads(const sap_pool *pool) {
    return pool ? pool->threads : 1;
}

static void lock_pool(sap_pool *pool) {
    if (pool->pid != getpid()) /* in a child after fork(): the threads stayed behind */
        start_workers(pool);
    pthread_mutex_lock(&pool->lock);
}

/* Queues the job behind the others. Called with the lock. */
static void queue(sap_pool *pool, sap_job *job) {
    sap_job **last = &pool->first;
    while (*last)
        last = &(*last)->next;
    *last = job;
    job->next = NULL;
    job->queued = true;
    if (job->count > 1)
        pthread_cond_broadcast(&pool->work);
    else
        pthread_cond_signal(&pool->work);
}

static sap_status loop_alone(const sap_run *run, size_t count, sap_step step, void *context, sap_error *err) {
    for (size_t i = 0; i < count; i++) {
        SAP_TRY(sap_run_check(run, err));
        SAP_TRY(step(context, i, 0, err));
    }
    return SAP_OK;
}

sap_status sap_loop(const sap_run *run, size_t count, sap_step step, void *context, sap_error *err) {
    sap_pool *pool = run ? run->pool : NULL;
    if (!pool || pool->threads == 1 || count < 2)
        return loop_alone(run, count, step, context, err);
    sap_job job = {.run = run, .step = step, .context = context, .count = count, .failed_index = SIZE_MAX};
    lock_pool(pool);
    queue(pool, &job);
    participate(pool, &job);
    while (job.active > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    if (job.failed_index == SIZE_MAX)
        return SAP_OK;
    if (err)
        *err = job.error;
    return job.error.status;
}

struct sap_task {
    sap_job job;
    sap_pool *pool;
    sap_status (*work)(void *context, sap_error *err);
    void *context;
};

static sap_status task_step(void *context, size_t index, int slot, sap_error *err) {
    (void)index;
    (void)slot;
    sap_task *task = context;
    return task->work(task->context, err);
}

sap_status sap_task_start(const sap_run *run, sap_status (*work)(void *context, sap_error *err), void *context,
                          sap_task **out, sap_error *err) {
    sap_task *task = calloc(1, sizeof *task);
    if (!task)
        return sap_error_memory(err, "task");
    task->pool = run && run->pool && run->pool->threads > 1 ? run->pool : NULL;
    task->work = work;
    task->context = context;
    task->job = (sap_job){.run = run, .step = task_step, .context = task, .count = 1, .failed_index = SIZE_MAX};
    if (task->pool) {
        lock_pool(task->pool);
        queue(task->pool, &task->job);
        pthread_mutex_unlock(&task->pool->lock);
    }
    *out = task;
    return SAP_OK;
}

sap_status sap_task_wait(sap_task *task, sap_error *err) {
    if (!task)
        return SAP_OK;
    sap_job *job = &task->job;
    if (task->pool) {
        lock_pool(task->pool);
        participate(task->pool, job); /* runs it here when no thread has taken it yet */
        while (job->active > 0)
            pthread_cond_wait(&task->pool->done, &task->pool->lock);
        pthread_mutex_unlock(&task->pool->lock);
    } else {
        job->error.status = loop_alone(job->run, 1, task_step, task, &job->error);
        job->failed_index = job->error.status == SAP_OK ? SIZE_MAX : 0;
    }
    sap_status status = job->failed_index == SIZE_MAX ? SAP_OK : job->error.status;
    if (status != SAP_OK && err)
        *err = job->error;
    free(task);
    return status;
}

int sap_run_threads(const sap_run *run) {
    return run ? sap_pool_threads(run->pool) : 1;
}

sap_status sap_run_check(const sap_run *run, sap_error *err) {
    return cancelled(run) ? sap_error_set(err, SAP_ECANCELLED, "interrupted") : SAP_OK;
}

void sap_run_report(const sap_run *run, const char *stage, const char *unit, uint64_t done, uint64_t total,
                    const char *message) {
    if (run && run->progress)
        run->progress(run->context, &(sap_progress){stage, unit, done, total, message});
}
