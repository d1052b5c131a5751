/* Long calls: on a thread of their own, while the caller's looks for signals, so that Ctrl-C ends them. The stages, and pipelines. */
#include "_core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Work that runs on a thread of its own. */
typedef struct job {
    core_work work;
    void *context;
    sap_run run;
    volatile int cancel;
    sap_status status;
    sap_error err;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done, news;
    char stage_name[32], unit[32], message[256];
    bool has_message;
    uint64_t progress, total;
} job;

static void job_progress(void *context, const sap_progress *p) {
    job *j = context;
    pthread_mutex_lock(&j->lock);
    while (j->has_message && p->message &&
           !j->done) /* messages are not to be lost: wait until the last one was taken */
        pthread_cond_wait(&j->changed, &j->lock);
    (void)snprintf(j->stage_name, sizeof j->stage_name, "%s", p->stage);
    (void)snprintf(j->unit, sizeof j->unit, "%s", p->unit);
    if (p->message) {
        (void)snprintf(j->message, sizeof j->message, "%s", p->message);
        j->has_message = true;
    }
    j->progress = p->done;
    j->total = p->total;
    j->news = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

static void *job_thread(void *context) {
    job *j = context;
    j->status = j->work(j->context, &j->run, &j->err);
    pthread_mutex_lock(&j->lock);
    j->done = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* Tells Python's call-back the latest news; -1 when it raised. */
static int tell(job *j, PyObject *callback) {
    char stage_name[32], unit[32], message[256];
    pthread_mutex_lock(&j->lock);
    memcpy(stage_name, j->stage_name, sizeof stage_name);
    memcpy(unit, j->unit, sizeof unit);
    memcpy(message, j->message, sizeof message);
    bool news = j->news, has_message = j->has_message;
    unsigned long long progress = j->progress, total = j->total;
    j->news = j->has_message = false;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    if (!news || callback == Py_None)
        return 0;
    PyObject *answer = PyObject_CallFunction(callback, "ssKKO&", stage_name, unit, progress, total, core_message,
                                             has_message ? message : NULL);
    Py_XDECREF(answer);
    return answer ? 0 : -1;
}

static bool wait_a_little(job *j) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&j->lock);
    if (!j->done && !j->has_message)
        pthread_cond_timedwait(&j->changed, &j->lock, &until);
    bool done = j->done;
    pthread_mutex_unlock(&j->lock);
    return done;
}

int core_run(core_work work, void *context, int threads, PyObject *callback) {
    sap_error err = {0};
    sap_pool *pool = NULL;
    if (sap_pool_open(threads, &pool, &err) != SAP_OK) {
        (void)core_raise(&err);
        return -1;
    }
    int answer = core_run_pool(work, context, pool, callback);
    sap_pool_close(pool);
    return answer;
}

int core_run_pool(core_work work, void *context, sap_pool *pool, PyObject *callback) {
    pthread_t thread;
    job state = {.work = work, .context = context}, *j = &state;
    j->run.pool = pool;
    j->run.progress = job_progress;
    j->run.context = j;
    j->run.cancel = &j->cancel;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    int failed = pthread_create(&thread, NULL, job_thread, j) != 0;
    if (failed) {
        PyErr_SetString(PyExc_RuntimeError, "sapwood: no thread could be started");
    } else {
        bool done = false;
        while (!done) {
            Py_BEGIN_ALLOW_THREADS done = wait_a_little(j);
            Py_END_ALLOW_THREADS if (!failed && (PyErr_CheckSignals() != 0 || tell(j, callback) != 0)) {
                failed = 1; /* Ctrl-C, or the call-back raised: that exception goes on once the thread has ended */
                __atomic_store_n(&j->cancel, 1, __ATOMIC_RELAXED);
            }
            else if (failed) {
                pthread_mutex_lock(&j->lock);
                j->has_message = false;
                pthread_cond_broadcast(&j->changed);
                pthread_mutex_unlock(&j->lock);
            }
        }
        pthread_join(thread, NULL);
    }
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->changed);
    if (!failed && j->status != SAP_OK) {
        (void)core_raise(&j->err);
        return -1;
    }
    return failed ? -1 : 0;
}

/* ---- Stages -------------------------------------------------------------------------------------------------------- */

static sap_status run_stage(void *context, const sap_run *run, sap_error *err) {
    return sap_stage_run(context, run, err);
}

/* Options as (name, value) tuples; values may be file names. */
static bool set_options(sap_stage *stage, PyObject *settings) {
    Py_ssize_t count = PyList_Size(settings);
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *option;
        PyObject *value;
        sap_error err = {0};
        if (!PyArg_ParseTuple(PyList_GetItem(settings, i), "sO&", &option, PyUnicode_FSConverter, &value))
            return false;
        sap_status status = sap_stage_set(stage, option, PyBytes_AsString(value), &err);
        Py_DECREF(value);
        if (status != SAP_OK) {
            (void)core_raise(&err);
            return false;
        }
    }
    return count >= 0;
}

/* run_stage(name, [(option, value), …], threads, callback) -> JSON text */
static PyObject *core_run_stage(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *name;
    PyObject *settings, *callback, *result = NULL;
    int threads;
    if (!PyArg_ParseTuple(arguments, "sOiO", &name, &settings, &threads, &callback))
        return NULL;
    sap_stage *stage = NULL;
    sap_error err = {0};
    if (sap_stage_open(name, &stage, &err) != SAP_OK)
        return core_raise(&err);
    if (set_options(stage, settings) && core_run(run_stage, stage, threads, callback) == 0)
        result = PyUnicode_FromString(sap_stage_result(stage));
    sap_stage_close(stage);
    return result;
}

/* check_stage(name, [(option, value), …]): raises what is wrong with them */
static PyObject *core_check_stage(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *name;
    PyObject *settings, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "sO", &name, &settings))
        return NULL;
    sap_stage *stage = NULL;
    sap_error err = {0};
    if (sap_stage_open(name, &stage, &err) != SAP_OK)
        return core_raise(&err);
    if (set_options(stage, settings))
        result = sap_stage_check(stage, &err) == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
    sap_stage_close(stage);
    return result;
}

/* A stage of a pipeline that is Python's calls back into it. */
static sap_status external_stage(void *context, const char *stage, const char *const *arguments, size_t count,
                                 sap_error *err) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *list = PyList_New(0), *answer = NULL;
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = PyUnicode_FromString(arguments[i]);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    if (list)
        answer = PyObject_CallFunction((PyObject *)context, "sO", stage, list);
    sap_status status = SAP_OK;
    if (!answer) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *text = value ? PyObject_Str(value) : NULL;
        const char *message = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
        status = sap_error_set(err, SAP_EIO, "%s: %s", stage, message ? message : "failed");
        PyErr_Clear(); /* of the text, if it has none */
        Py_XDECREF(text);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }
    Py_XDECREF(list);
    Py_XDECREF(answer);
    PyGILState_Release(state);
    return status;
}

static sap_status run_pipeline(void *context, const sap_run *run, sap_error *err) {
    return sap_pipeline_run(context, run, err);
}

/* run_pipeline(path, folder or None, force, threads, callback, external) */
static PyObject *core_run_pipeline(PyObject *module, PyObject *arguments) {
    (void)module;
    sap_pipeline_options options = {0};
    PyObject *callback, *external;
    int threads, force;
    if (!PyArg_ParseTuple(arguments, "szpiOO", &options.path, &options.folder, &force, &threads, &callback, &external))
        return NULL;
    options.force = force != 0;
    options.external = external_stage;
    options.context = external;
    if (core_run(run_pipeline, &options, threads, callback) != 0)
        return NULL;
    Py_RETURN_NONE;
}

/* stage_options(name) -> [(name, kind is a switch, repeats)] */
static PyObject *core_stage_options(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(arguments, "s", &name))
        return NULL;
    size_t count;
    const sap_option *options = sap_stage_options(name, &count);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = Py_BuildValue("(ssOz)", options[i].name, options[i].help,
                                       options[i].repeats ? Py_True : Py_False, options[i].standard);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

PyMethodDef core_job_functions[] = {
    {"run_stage", core_run_stage, METH_VARARGS, "run_stage(name, settings, threads, callback) -> JSON text"},
    {"check_stage", core_check_stage, METH_VARARGS, "check_stage(name, settings)"},
    {"run_pipeline", core_run_pipeline, METH_VARARGS, "run_pipeline(path, folder, force, threads, callback, external)"},
    {"stage_options", core_stage_options, METH_VARARGS, "stage_options(name) -> [(name, help, repeats, default)]"},
    {NULL, NULL, 0, NULL},
};
