/* The Python binding: files, trees and streams of columns, and the stages. A thin layer over the public C API.
 *
 * Columns leave as Arrow C streams in capsules; nothing here needs pyarrow. Errors become sapwood.Error. Long calls run on
 * a thread of their own while the caller's looks for signals, so that Ctrl-C ends them.
 */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <sapwood/sapwood.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static PyObject *error_type; /* sapwood._core.Error */

/* Converters for "O&". Names in a file that are not UTF-8 are Latin-1, as on the command line. */
static PyObject *name_object(void *text) {
    if (!text)
        return Py_NewRef(Py_None);
    PyObject *object = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), NULL);
    if (object || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        return object;
    PyErr_Clear();
    return PyUnicode_DecodeLatin1(text, (Py_ssize_t)strlen(text), NULL);
}

/* A message may quote such names, and may be cut off inside a character. */
static PyObject *message_object(void *text) {
    return text ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : Py_NewRef(Py_None);
}

/* Raises what `err` says, with the attribute `status`. */
static PyObject *raise_error(const sap_error *err) {
    if (err->status == SAP_EMEMORY)
        return PyErr_NoMemory();
    PyObject *value = PyObject_CallFunction(error_type, "O&", message_object, err->message);
    if (value) {
        PyObject *status = PyUnicode_FromString(sap_status_name(err->status));
        if (status && PyObject_SetAttrString(value, "status", status) == 0)
            PyErr_SetObject(error_type, value);
        Py_XDECREF(status);
        Py_DECREF(value);
    }
    return NULL;
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

typedef struct file_object {
    PyObject ob_base;
    sap_file *file;
} file_object;

typedef struct tree_object {
    PyObject ob_base;
    PyObject *file; /* keeps it open */
    sap_tree *tree;
} tree_object;

static PyTypeObject *file_type, *tree_type;

/* Frees the object's memory and its hold on its (heap) type. */
static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static void *new_object(PyTypeObject *type) {
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

static void file_dealloc(PyObject *self) {
    sap_file_close(((file_object *)self)->file);
    free_object(self);
}

static PyObject *core_open(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *url;
    if (!PyArg_ParseTuple(arguments, "s", &url))
        return NULL;
    sap_error err = {0};
    sap_file *file = NULL;
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_file_open(url, NULL, &file, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return raise_error(&err);
    file_object *self = new_object(file_type);
    if (!self) {
        sap_file_close(file);
        return NULL;
    }
    self->file = file;
    return (PyObject *)self;
}

static PyObject *file_keys(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_file *file = ((file_object *)self)->file;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        PyObject *item =
            Py_BuildValue("{s:O&, s:i, s:O&, s:O&, s:O, s:K, s:K}", "path", name_object, key->path, "cycle", key->cycle,
                          "class_name", name_object, key->class_name, "title", name_object, key->title, "is_tree",
                          sap_key_is_tree(file, key) ? Py_True : Py_False, "stored_bytes",
                          (unsigned long long)key->stored_bytes, "bytes", (unsigned long long)key->object_bytes);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *file_tree(PyObject *self, PyObject *arguments) {
    const char *path;
    if (!PyArg_ParseTuple(arguments, "z", &path))
        return NULL;
    sap_error err = {0};
    sap_tree *tree = NULL;
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_tree_open(((file_object *)self)->file, path, &tree, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return raise_error(&err);
    tree_object *object = new_object(tree_type);
    if (!object) {
        sap_tree_close(tree);
        return NULL;
    }
    object->tree = tree;
    Py_INCREF(self);
    object->file = self;
    return (PyObject *)object;
}

static PyObject *file_info(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_file *file = ((file_object *)self)->file;
    return Py_BuildValue("{s:O&, s:K, s:i, s:s}", "name", name_object, sap_file_name(file), "bytes",
                         (unsigned long long)sap_file_size(file), "version", sap_file_version(file), "compression",
                         sap_file_compression(file));
}

/* ---- Trees ------------------------------------------------------------------------------------------------------- */

static void tree_dealloc(PyObject *self) {
    tree_object *object = (tree_object *)self;
    sap_tree_close(object->tree);
    Py_XDECREF(object->file);
    free_object(self);
}

static PyObject *tree_info(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_tree *tree = ((tree_object *)self)->tree;
    return Py_BuildValue("{s:O&, s:L}", "path", name_object, sap_tree_path(tree), "entries",
                         (long long)sap_tree_entries(tree));
}

static PyObject *describe_branch(const sap_branch *branch) {
    char small[256], *text = small;
    size_t length = branch->field ? sap_field_text(branch->field, small, sizeof small) : 0;
    if (length >= sizeof small) {
        text = malloc(length + 1);
        if (!text)
            return PyErr_NoMemory();
        (void)sap_field_text(branch->field, text, length + 1);
    }
    PyObject *item = Py_BuildValue(
        "{s:O&, s:O&, s:O&, s:O&, s:O&, s:O, s:i, s:L, s:K, s:K}", "name", name_object, branch->name, "path",
        name_object, branch->path, "type_name", name_object, branch->type_name, "type", name_object,
        branch->field ? text : NULL, "reason", name_object, branch->field ? NULL : branch->reason, "container",
        branch->container ? Py_True : Py_False, "depth", branch->depth, "baskets", (long long)branch->baskets,
        "stored_bytes", (unsigned long long)branch->stored_bytes, "bytes", (unsigned long long)branch->bytes);
    if (text != small)
        free(text);
    return item;
}

static PyObject *tree_branches(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_tree *tree = ((tree_object *)self)->tree;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < sap_tree_branch_count(tree); i++) {
        PyObject *item = describe_branch(sap_tree_branch(tree, i));
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* A stream that keeps its tree (and file) open and has threads of its own. */
typedef struct stream {
    struct ArrowArrayStream inner;
    sap_pool *pool;
    PyObject *tree;
} stream;

static int stream_schema(struct ArrowArrayStream *self, struct ArrowSchema *out) {
    stream *s = self->private_data;
    return s->inner.get_schema(&s->inner, out);
}

static int stream_next(struct ArrowArrayStream *self, struct ArrowArray *out) {
    stream *s = self->private_data;
    return s->inner.get_next(&s->inner, out);
}

static const char *stream_error(struct ArrowArrayStream *self) {
    stream *s = self->private_data;
    return s->inner.get_last_error(&s->inner);
}

static void stream_release(struct ArrowArrayStream *self) {
    stream *s = self->private_data;
    if (s->inner.release)
        s->inner.release(&s->inner);
    sap_pool_close(s->pool);
    if (s->tree && Py_IsInitialized()) { /* consumers may release it from any thread */
        PyGILState_STATE state = PyGILState_Ensure();
        Py_DECREF(s->tree);
        PyGILState_Release(state);
    }
    free(s);
    self->release = NULL;
}

static void stream_capsule_free(PyObject *capsule) {
    struct ArrowArrayStream *out = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (out && out->release)
        out->release(out);
    free(out);
}

/* Column names from a Python list of str; the strings stay the list's. NULL with an exception set, or for None. */
static const char **column_names(PyObject *list, Py_ssize_t *count) {
    *count = 0;
    if (list == Py_None)
        return NULL;
    Py_ssize_t n = PyList_Size(list);
    const char **names = n < 0 ? NULL : calloc((size_t)n + 1, sizeof(const char *));
    if (!names)
        return n < 0 ? NULL : (const char **)(void *)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n; i++) {
        names[i] = PyUnicode_AsUTF8AndSize(PyList_GetItem(list, i), NULL);
        if (!names[i]) {
            free(names);
            return NULL;
        }
    }
    *count = n;
    return names;
}

/* stream(columns, begin, end, batch_entries, batch_bytes, threads) -> capsule "arrow_array_stream" */
static PyObject *tree_stream(PyObject *self, PyObject *arguments) {
    PyObject *list;
    long long begin, end, batch_entries;
    Py_ssize_t batch_bytes, count;
    int threads;
    if (!PyArg_ParseTuple(arguments, "OLLLni", &list, &begin, &end, &batch_entries, &batch_bytes, &threads))
        return NULL;
    const char **names = column_names(list, &count);
    if (PyErr_Occurred())
        return NULL;
    sap_error err = {0};
    sap_reader *reader = NULL;
    stream *s = calloc(1, sizeof *s);
    struct ArrowArrayStream *out = calloc(1, sizeof *out);
    sap_status status = s && out && batch_bytes >= 0 ? SAP_OK : sap_error_set(&err, SAP_EMEMORY, "stream");
    if (status == SAP_OK)
        status = sap_pool_open(threads, &s->pool, &err);
    if (status == SAP_OK) {
        sap_run run = {.pool = s->pool};
        sap_reader_options options = {names, (size_t)count, begin, end, batch_entries, (size_t)batch_bytes};
        status = sap_reader_open(((tree_object *)self)->tree, &options, &run, &reader, &err);
    }
    if (status == SAP_OK)
        status = sap_reader_export(reader, &s->inner, &err);
    free(names);
    if (status != SAP_OK) {
        sap_reader_close(reader);
        if (s)
            sap_pool_close(s->pool);
        free(s);
        free(out);
        return raise_error(&err);
    }
    Py_INCREF(self);
    s->tree = self;
    *out = (struct ArrowArrayStream){stream_schema, stream_next, stream_error, stream_release, s};
    PyObject *capsule = PyCapsule_New(out, "arrow_array_stream", stream_capsule_free);
    if (!capsule) {
        out->release(out);
        free(out);
    }
    return capsule;
}

/* ---- Stages -------------------------------------------------------------------------------------------------------- */

/* A stage, or a whole pipeline, that runs on a thread of its own. */
typedef struct job {
    sap_stage *stage; /* NULL: the pipeline */
    const sap_pipeline_options *pipeline;
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
    j->status = j->stage ? sap_stage_run(j->stage, &j->run, &j->err) : sap_pipeline_run(j->pipeline, &j->run, &j->err);
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
    PyObject *answer = PyObject_CallFunction(callback, "ssKKO&", stage_name, unit, progress, total, message_object,
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

/* Runs the job to its end; 0, or -1 with an exception set. */
static int run_job(job *j, int threads, PyObject *callback) {
    pthread_t thread;
    if (sap_pool_open(threads, &j->run.pool, &j->err) != SAP_OK) {
        (void)raise_error(&j->err);
        return -1;
    }
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
    sap_pool_close(j->run.pool);
    if (!failed && j->status != SAP_OK) {
        (void)raise_error(&j->err);
        return -1;
    }
    return failed ? -1 : 0;
}

/* run_stage(name, [(option, value), …], threads, callback) -> JSON text */
static PyObject *core_run_stage(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *name;
    PyObject *settings, *callback, *result = NULL;
    int threads;
    if (!PyArg_ParseTuple(arguments, "sOiO", &name, &settings, &threads, &callback))
        return NULL;
    job j = {0};
    if (sap_stage_open(name, &j.stage, &j.err) != SAP_OK)
        return raise_error(&j.err);
    Py_ssize_t count = PyList_Size(settings);
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *option, *value;
        if (!PyArg_ParseTuple(PyList_GetItem(settings, i), "ss", &option, &value))
            goto done;
        if (sap_stage_set(j.stage, option, value, &j.err) != SAP_OK) {
            (void)raise_error(&j.err);
            goto done;
        }
    }
    if (count >= 0 && run_job(&j, threads, callback) == 0)
        result = PyUnicode_FromString(sap_stage_result(j.stage));
done:
    sap_stage_close(j.stage);
    return result;
}

/* The report stage of a pipeline calls back into Python. */
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
    job j = {.pipeline = &options};
    if (run_job(&j, threads, callback) != 0)
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

static PyObject *core_version(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyUnicode_FromString(sap_version());
}

static PyObject *core_parts(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyUnicode_FromString(sap_version_parts());
}

/* ---- The module -------------------------------------------------------------------------------------------------------- */

static PyMethodDef file_methods[] = {
    {"keys", file_keys, METH_NOARGS, "Objects of the file, a dict each."},
    {"tree", file_tree, METH_VARARGS, "tree(path or None) -> Tree"},
    {"info", file_info, METH_NOARGS, "Name, size, ROOT version, compression."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot file_slots[] = {
    {Py_tp_dealloc, (void *)file_dealloc},
    {Py_tp_methods, file_methods},
    {0, NULL},
};

static PyType_Spec file_spec = {"sapwood._core.File", sizeof(file_object), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, file_slots};

static PyMethodDef tree_methods[] = {
    {"info", tree_info, METH_NOARGS, "Path and entries."},
    {"branches", tree_branches, METH_NOARGS, "Branches, a dict each."},
    {"stream", tree_stream, METH_VARARGS,
     "stream(columns, begin, end, batch_entries, batch_bytes, threads) -> capsule"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tree_slots[] = {
    {Py_tp_dealloc, (void *)tree_dealloc},
    {Py_tp_methods, tree_methods},
    {0, NULL},
};

static PyType_Spec tree_spec = {"sapwood._core.Tree", sizeof(tree_object), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, tree_slots};

static PyMethodDef functions[] = {
    {"open", core_open, METH_VARARGS, "open(url) -> File"},
    {"run_stage", core_run_stage, METH_VARARGS, "run_stage(name, settings, threads, callback) -> JSON text"},
    {"run_pipeline", core_run_pipeline, METH_VARARGS, "run_pipeline(path, folder, force, threads, callback, external)"},
    {"stage_options", core_stage_options, METH_VARARGS, "stage_options(name) -> [(name, help, repeats, default)]"},
    {"version", core_version, METH_NOARGS, "The version."},
    {"parts", core_parts, METH_NOARGS, "Plug-ins, one a line; each is opened to see whether it works."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "sapwood._core", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__core(void); /* no header declares it */

PyMODINIT_FUNC PyInit__core(void) {
    PyObject *module = PyModule_Create(&definition);
    file_type = (PyTypeObject *)PyType_FromSpec(&file_spec);
    tree_type = (PyTypeObject *)PyType_FromSpec(&tree_spec);
    error_type = PyErr_NewExceptionWithDoc("sapwood.Error", "What Sapwood could not do, and why; `status` is the kind.",
                                           PyExc_RuntimeError, NULL);
    if (!module || !file_type || !tree_type || !error_type || PyModule_AddObject(module, "Error", error_type) != 0) {
        Py_XDECREF(module);
        return NULL;
    }
    Py_INCREF(error_type);
    return module;
}
