/* Many files as one table that is read in parts (sapwood/table.h): what the Python data source for Spark stands on. */
#include "_core.h"

#include <stdlib.h>

static PyTypeObject *table_type, *reader_type;

/* ---- What is asked for ----------------------------------------------------------------------------------------- */

typedef struct asked {
    const char **urls, **columns;
    size_t url_count;
    sap_table_options options;
    struct ArrowSchema *schema; /* what comes out, or: */
    sap_table *table;
} asked;

/* Nothing, or what an object with __arrow_c_schema__ gave. */
static bool schema_of(PyObject *capsule, const struct ArrowSchema **out) {
    *out = capsule == Py_None ? NULL : PyCapsule_GetPointer(capsule, "arrow_schema");
    return capsule == Py_None || *out;
}

static void release_asked(asked *a) {
    free(a->urls);
    free(a->columns);
}

static sap_status read_schema(void *context, const sap_run *run, sap_error *err) {
    asked *a = context;
    return sap_table_schema_read(a->urls, a->url_count, &a->options, run, a->schema, err);
}

/* table_schema([url], tree or None, merge, skip, identity, [column], threads) -> capsule "arrow_schema" */
static PyObject *core_table_schema(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *urls, *columns, *capsule = NULL;
    asked a = {0};
    int merge, skip, identity, threads;
    if (!PyArg_ParseTuple(arguments, "OzpppOi", &urls, &a.options.tree, &merge, &skip, &identity, &columns, &threads))
        return NULL;
    a.options.identity = identity != 0;
    a.options.merge = merge != 0;
    a.options.skip_bad = skip != 0;
    a.schema = calloc(1, sizeof *a.schema);
    if (!a.schema)
        return PyErr_NoMemory();
    if (core_texts(urls, true, &a.urls, &a.url_count) &&
        core_texts(columns, false, &a.columns, &a.options.column_count)) {
        a.options.columns = a.columns;
        if (core_run(read_schema, &a, threads, Py_None) == 0)
            capsule = core_schema_capsule(a.schema);
        else
            free(a.schema);
    } else {
        free(a.schema);
    }
    release_asked(&a);
    return capsule;
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

typedef struct table_object {
    PyObject ob_base;
    sap_table *table;
} table_object;

static void table_dealloc(PyObject *self) {
    sap_table_close(((table_object *)self)->table);
    core_free_object(self);
}

static sap_status open_table(void *context, const sap_run *run, sap_error *err) {
    asked *a = context;
    return sap_table_open(a->urls, a->url_count, &a->options, run, &a->table, err);
}

/* table([url], tree or None, merge, skip, identity, schema or None, threads) -> Table */
static PyObject *core_table(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *urls, *schema;
    asked a = {0};
    int merge, skip, identity, threads;
    if (!PyArg_ParseTuple(arguments, "OzpppOi", &urls, &a.options.tree, &merge, &skip, &identity, &schema, &threads))
        return NULL;
    a.options.identity = identity != 0;
    a.options.merge = merge != 0;
    a.options.skip_bad = skip != 0;
    table_object *self = NULL;
    if (schema_of(schema, &a.options.schema) && core_texts(urls, true, &a.urls, &a.url_count) &&
        core_run(open_table, &a, threads, Py_None) == 0) {
        self = core_new_object(table_type);
        if (self)
            self->table = a.table;
        else
            sap_table_close(a.table);
    }
    release_asked(&a);
    return (PyObject *)self;
}

/* files() -> [(url, why it was left out or None, bytes, entries)] */
static PyObject *table_files(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_table *table = ((table_object *)self)->table;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < sap_table_file_count(table); i++) {
        const sap_table_file *f = sap_table_file_get(table, i);
        PyObject *item = Py_BuildValue("(yO&KL)", f->url, core_message, f->problem, (unsigned long long)f->bytes,
                                       (long long)f->entries);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* plan(wanted, part_bytes, least) -> [(file, begin, end, part)] */
static PyObject *table_plan(PyObject *self, PyObject *arguments) {
    PyObject *capsule;
    unsigned long long part_bytes;
    Py_ssize_t least;
    const struct ArrowSchema *wanted;
    if (!PyArg_ParseTuple(arguments, "OKn", &capsule, &part_bytes, &least) || !schema_of(capsule, &wanted))
        return NULL;
    sap_table_slice *slices = NULL;
    size_t count = 0;
    sap_error err = {0};
    if (sap_table_plan(((table_object *)self)->table, wanted, part_bytes, least > 0 ? (size_t)least : 0, &slices,
                       &count, &err) != SAP_OK)
        return core_raise(&err);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = Py_BuildValue("(nLLn)", (Py_ssize_t)slices[i].file, (long long)slices[i].begin,
                                       (long long)slices[i].end, (Py_ssize_t)slices[i].part);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    free(slices);
    return list;
}

/* ---- Readers ------------------------------------------------------------------------------------------------------- */

typedef struct reader_object {
    PyObject ob_base;
    sap_table_reader *reader;
} reader_object;

static void reader_dealloc(PyObject *self) {
    sap_table_reader_close(((reader_object *)self)->reader);
    core_free_object(self);
}

/* table_reader(url, tree or None, begin, end, wanted, lenient, identity, where or None, [hint], batch_bytes) -> TableReader */
static PyObject *core_table_reader(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *wanted, *hints;
    sap_table_reader_options o = {0};
    long long begin, end, batch_bytes;
    const char **conditions = NULL;
    int lenient, identity;
    if (!PyArg_ParseTuple(arguments, "yzLLOppzOL", &o.url, &o.tree, &begin, &end, &wanted, &lenient, &identity,
                          &o.where, &hints, &batch_bytes))
        return NULL;
    o.begin = begin;
    o.end = end;
    o.lenient = lenient != 0;
    o.identity = identity != 0;
    o.batch_bytes = batch_bytes > 0 ? (size_t)batch_bytes : 0;
    reader_object *self = NULL;
    if (schema_of(wanted, &o.wanted) && core_texts(hints, false, &conditions, &o.hint_count))
        self = core_new_object(reader_type);
    o.hints = conditions;
    sap_error err = {0};
    sap_status status = SAP_OK;
    if (self) {
        Py_BEGIN_ALLOW_THREADS status = sap_table_reader_open(&o, NULL, &self->reader, &err);
        Py_END_ALLOW_THREADS
    }
    free(conditions);
    if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* next() -> capsule "arrow_array" of the wanted schema; None: there is no more */
static PyObject *reader_next(PyObject *self, PyObject *unused) {
    (void)unused;
    sap_table_reader *reader = ((reader_object *)self)->reader;
    struct ArrowArray *array = calloc(1, sizeof *array);
    if (!array)
        return PyErr_NoMemory();
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_table_reader_next(reader, array, &err);
    Py_END_ALLOW_THREADS if (status == SAP_OK && array->release) return core_array_capsule(array);
    free(array);
    return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

/* ---- The types ------------------------------------------------------------------------------------------------------- */

static PyMethodDef table_methods[] = {
    {"files", table_files, METH_NOARGS, "files() -> [(url, problem or None, bytes, entries)]"},
    {"plan", table_plan, METH_VARARGS, "plan(wanted, part_bytes, least) -> [(file, begin, end, part)]"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef reader_methods[] = {
    {"next", reader_next, METH_NOARGS, "next() -> capsule of the next batch, None at the end"},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot table_slots[] = {{Py_tp_dealloc, (void *)table_dealloc}, {Py_tp_methods, table_methods}, {0, NULL}};
static PyType_Slot reader_slots[] = {
    {Py_tp_dealloc, (void *)reader_dealloc}, {Py_tp_methods, reader_methods}, {0, NULL}};
static PyType_Spec table_spec = {"sapwood._core.Table", sizeof(table_object), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, table_slots};
static PyType_Spec reader_spec = {"sapwood._core.TableReader", sizeof(reader_object), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, reader_slots};

bool core_table_reader_init(void) {
    table_type = (PyTypeObject *)PyType_FromSpec(&table_spec);
    reader_type = (PyTypeObject *)PyType_FromSpec(&reader_spec);
    return table_type && reader_type;
}

PyMethodDef core_table_reader_functions[] = {
    {"table_schema", core_table_schema, METH_VARARGS,
     "table_schema(urls, tree, merge, skip, identity, columns, threads) -> capsule"},
    {"table", core_table, METH_VARARGS, "table(urls, tree, merge, skip, identity, schema, threads) -> Table"},
    {"table_reader", core_table_reader, METH_VARARGS,
     "table_reader(url, tree, begin, end, wanted, lenient, identity, where, hints, batch_bytes) -> TableReader"},
    {NULL, NULL, 0, NULL},
};
