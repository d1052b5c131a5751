/* Selections as Arrow streams in capsules, export and comparison. */
#include "_core.h"

#include <stdlib.h>
#include <string.h>

/* ---- What is selected ------------------------------------------------------------------------------------------- */

/* Borrows from the Python objects that it was made of. */
typedef struct selected {
    sap_selection_options options;
    const char **inputs, **columns;
    PyObject *tree; /* NULL: inputs */
} selected;

static void release_selected(selected *s) {
    free(s->inputs);
    free(s->columns);
}

/* source: a Tree, or a list of bytes; columns: a list of str or None. */
static bool select_from(PyObject *source, PyObject *columns, selected *s) {
    if (PyObject_TypeCheck(source, core_tree_type)) {
        s->tree = source;
        s->options.tree = ((tree_object *)source)->tree;
    } else {
        if (!core_texts(source, true, &s->inputs, &s->options.input_count))
            return false;
        s->options.inputs = s->inputs;
    }
    if (columns != Py_None) {
        if (!core_texts(columns, false, &s->columns, &s->options.column_count))
            return false;
        s->options.columns = s->columns;
    }
    return true;
}

/* ---- Streams ------------------------------------------------------------------------------------------------------ */

/* A stream that keeps its tree (and file) open and has threads of its own. */
typedef struct stream {
    struct ArrowArrayStream inner;
    sap_pool *pool;
    PyObject *tree; /* or NULL */
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

/* Opens the selection as a stream without the interpreter's lock. */
static sap_status open_stream(const selected *what, int threads, stream *s, sap_error *err) {
    sap_selection *selection = NULL;
    SAP_TRY(sap_pool_open(threads, &s->pool, err));
    sap_run run = {.pool = s->pool};
    SAP_TRY(sap_selection_open(&what->options, &run, &selection, err));
    sap_status status = sap_selection_export(selection, &s->inner, err);
    if (status != SAP_OK)
        sap_selection_close(selection);
    return status;
}

/* stream(source, columns, where, begin, end, batch_entries, batch_bytes, threads) -> capsule "arrow_array_stream" */
static PyObject *core_stream(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *source, *columns, *capsule = NULL;
    selected what = {0};
    sap_selection_options *o = &what.options;
    long long begin, end, batch_entries;
    Py_ssize_t batch_bytes;
    int threads;
    if (!PyArg_ParseTuple(arguments, "OOzLLLni", &source, &columns, &o->where, &begin, &end, &batch_entries,
                          &batch_bytes, &threads))
        return NULL;
    o->begin = begin;
    o->end = end;
    o->batch_entries = batch_entries;
    o->batch_bytes = batch_bytes > 0 ? (size_t)batch_bytes : 0;
    stream *s = calloc(1, sizeof *s);
    struct ArrowArrayStream *out = calloc(1, sizeof *out);
    sap_error err = {0};
    sap_status status;
    if (!s || !out)
        (void)PyErr_NoMemory();
    if (!s || !out || !select_from(source, columns, &what))
        goto done;
    Py_BEGIN_ALLOW_THREADS status = open_stream(&what, threads, s, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) {
        sap_pool_close(s->pool);
        (void)core_raise(&err);
        goto done;
    }
    s->tree = what.tree ? Py_NewRef(what.tree) : NULL;
    *out = (struct ArrowArrayStream){stream_schema, stream_next, stream_error, stream_release, s};
    s = NULL;
    capsule = PyCapsule_New(out, "arrow_array_stream", stream_capsule_free);
    if (!capsule)
        out->release(out);
done:
    release_selected(&what);
    free(s);
    if (!capsule)
        free(out);
    return capsule;
}

/* largest_column(tree, columns) -> bytes, unpacked, of the largest of them; 0 where one does not say */
static PyObject *core_largest_column(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *source, *columns;
    selected what = {0};
    sap_reader *reader = NULL;
    sap_error err = {0};
    if (!PyArg_ParseTuple(arguments, "O!O", core_tree_type, &source, &columns))
        return NULL;
    sap_status status = SAP_EARGUMENT;
    uint64_t largest = 0;
    if (select_from(source, columns, &what)) {
        const sap_reader_options options = {.columns = what.columns, .count = what.options.column_count};
        status = sap_reader_open(what.options.tree, &options, NULL, &reader, &err);
        if (status != SAP_OK)
            (void)core_raise(&err);
    }
    int32_t count = 0;
    const sap_field *fields = status == SAP_OK ? sap_reader_fields(reader, &count) : NULL;
    bool known = true;
    for (int32_t i = 0; i < count; i++) {
        const sap_branch *branch;
        known = known && sap_tree_find(what.options.tree, fields[i].name, &branch, &err) == SAP_OK && branch->bytes > 0;
        if (known && branch->bytes > largest)
            largest = branch->bytes;
    }
    sap_reader_close(reader);
    release_selected(&what);
    return status == SAP_OK ? PyLong_FromUnsignedLongLong(known ? largest : 0) : NULL;
}

/* ---- Export --------------------------------------------------------------------------------------------------------- */

typedef struct exporting {
    selected what;
    const char *path, *format;
    bool replace;
    sap_export_result result;
} exporting;

static sap_status run_export(void *context, const sap_run *run, sap_error *err) {
    exporting *e = context;
    return sap_export_run(&e->what.options, e->path, e->format, e->replace, run, &e->result, err);
}

/* export(source, columns, where, begin, end, path, format or None, replace, threads, callback) -> (read, written, bytes) */
static PyObject *core_export(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *source, *columns, *path, *callback, *result = NULL;
    exporting e = {0};
    sap_selection_options *o = &e.what.options;
    long long begin, end;
    int replace, threads;
    if (!PyArg_ParseTuple(arguments, "OOzLLO&zpiO", &source, &columns, &o->where, &begin, &end, PyUnicode_FSConverter,
                          &path, &e.format, &replace, &threads, &callback))
        return NULL;
    o->begin = begin;
    o->end = end;
    e.path = PyBytes_AsString(path);
    e.replace = replace != 0;
    if (select_from(source, columns, &e.what) && core_run(run_export, &e, threads, callback) == 0)
        result =
            Py_BuildValue("(LLL)", (long long)e.result.read, (long long)e.result.written, (long long)e.result.bytes);
    release_selected(&e.what);
    Py_DECREF(path);
    return result;
}

/* ---- Comparison ------------------------------------------------------------------------------------------------------- */

typedef struct difference {
    char *column, *place, *text;
    int64_t entry;
} difference;

typedef struct comparing {
    selected a, b;
    sap_compare_options options;
    sap_compare_result result;
    difference *differences;
    size_t count, capacity;
    bool out_of_memory;
} comparing;

/* Called without the interpreter's lock. */
static void keep_difference(void *context, const sap_difference *d) {
    comparing *c = context;
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        difference *grown = realloc(c->differences, capacity * sizeof *grown);
        if (!grown) {
            c->out_of_memory = true;
            return;
        }
        c->differences = grown;
        c->capacity = capacity;
    }
    difference *kept = &c->differences[c->count++];
    *kept = (difference){d->column ? strdup(d->column) : NULL, strdup(d->place), strdup(d->text), d->entry};
    c->out_of_memory = c->out_of_memory || !kept->text || !kept->place || (d->column && !kept->column);
}

static sap_status run_compare(void *context, const sap_run *run, sap_error *err) {
    comparing *c = context;
    sap_status status = sap_compare_run(&c->a.options, &c->b.options, &c->options, run, &c->result, err);
    return status == SAP_OK && c->out_of_memory ? sap_error_set(err, SAP_EMEMORY, "out of memory") : status;
}

static PyObject *describe_comparison(const comparing *c) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < c->count; i++) {
        const difference *d = &c->differences[i];
        PyObject *entry = d->entry < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(d->entry);
        PyObject *item =
            entry ? Py_BuildValue("(O&NO&O&)", core_name, d->column, entry, core_name, d->place, core_message, d->text)
                  : NULL;
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    if (!list)
        return NULL;
    return Py_BuildValue("{s:O, s:L, s:i, s:i, s:L, s:N}", "same", c->result.same ? Py_True : Py_False, "entries",
                         (long long)c->result.entries, "columns", (int)c->result.columns, "different_columns",
                         (int)c->result.different_columns, "different_entries", (long long)c->result.different_entries,
                         "differences", list);
}

/* compare(a, b, columns, where, begin, end, tolerance, limit, threads, callback) -> dict */
static PyObject *core_compare(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *a, *b, *columns, *callback, *result = NULL;
    comparing c = {.options = {.report = keep_difference}};
    sap_selection_options *o = &c.a.options;
    long long begin, end;
    int limit, threads;
    if (!PyArg_ParseTuple(arguments, "OOOzLLdiiO", &a, &b, &columns, &o->where, &begin, &end, &c.options.tolerance,
                          &limit, &threads, &callback))
        return NULL;
    o->begin = begin;
    o->end = end;
    c.b.options = *o;
    c.options.limit = limit;
    c.options.context = &c;
    if (select_from(a, columns, &c.a) && select_from(b, columns, &c.b) &&
        core_run(run_compare, &c, threads, callback) == 0)
        result = describe_comparison(&c);
    for (size_t i = 0; i < c.count; i++) {
        free(c.differences[i].column);
        free(c.differences[i].place);
        free(c.differences[i].text);
    }
    free(c.differences);
    release_selected(&c.a);
    release_selected(&c.b);
    return result;
}

/* split_input(bytes) -> (bytes, tree or None) */
static PyObject *core_split_input(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *input, *tree;
    size_t length;
    if (!PyArg_ParseTuple(arguments, "y", &input))
        return NULL;
    sap_input_parse(input, &length, &tree);
    return Py_BuildValue("(y#O&)", input, (Py_ssize_t)length, core_name, tree);
}

PyMethodDef core_table_functions[] = {
    {"stream", core_stream, METH_VARARGS,
     "stream(source, columns, where, begin, end, batch_entries, batch_bytes, threads) -> capsule"},
    {"largest_column", core_largest_column, METH_VARARGS, "largest_column(tree, columns) -> bytes, 0: not known"},
    {"export", core_export, METH_VARARGS,
     "export(source, columns, where, begin, end, path, format, replace, threads, callback) -> (read, written, bytes)"},
    {"compare", core_compare, METH_VARARGS,
     "compare(a, b, columns, where, begin, end, tolerance, limit, threads, callback) -> dict"},
    {"split_input", core_split_input, METH_VARARGS, "split_input(bytes) -> (bytes, tree)"},
    {NULL, NULL, 0, NULL},
};
