/* The Python binding: files, trees and histograms. A thin layer over the public C API; nothing in it needs pyarrow or NumPy. */
#include "_core.h"

#include <stdlib.h>
#include <string.h>

static PyObject *error_type, *missing_type; /* sapwood.Error, sapwood.NotFoundError */

PyObject *core_name(void *text) {
    if (!text)
        return Py_NewRef(Py_None);
    PyObject *object = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), NULL);
    if (object || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        return object;
    PyErr_Clear();
    return PyUnicode_DecodeLatin1(text, (Py_ssize_t)strlen(text), NULL);
}

PyObject *core_message(void *text) {
    return text ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : Py_NewRef(Py_None);
}

PyObject *core_numbers(const int64_t *numbers, size_t count) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(numbers[i]);
        if (!number || PyList_Append(list, number) != 0)
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    return list;
}

bool core_texts(PyObject *list, bool bytes, const char ***out, size_t *count) {
    Py_ssize_t n = PyList_Size(list);
    const char **texts = n < 0 ? NULL : calloc((size_t)n + 1, sizeof(const char *));
    if (!texts) {
        if (n >= 0)
            (void)PyErr_NoMemory();
        return false;
    }
    *out = texts;
    *count = (size_t)n;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GetItem(list, i);
        texts[i] = bytes ? PyBytes_AsString(item) : PyUnicode_AsUTF8AndSize(item, NULL);
        if (!texts[i])
            return false;
    }
    return true;
}

static void free_schema(PyObject *capsule) {
    struct ArrowSchema *schema = PyCapsule_GetPointer(capsule, "arrow_schema");
    if (schema && schema->release)
        schema->release(schema);
    free(schema);
}

PyObject *core_schema_capsule(struct ArrowSchema *schema) {
    PyObject *capsule = PyCapsule_New(schema, "arrow_schema", free_schema);
    if (!capsule) {
        schema->release(schema);
        free(schema);
    }
    return capsule;
}

static void free_array(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array && array->release)
        array->release(array);
    free(array);
}

PyObject *core_array_capsule(struct ArrowArray *array) {
    PyObject *capsule = PyCapsule_New(array, "arrow_array", free_array);
    if (!capsule) {
        array->release(array);
        free(array);
    }
    return capsule;
}

PyObject *core_raise(const sap_error *err) {
    if (err->status == SAP_EMEMORY)
        return PyErr_NoMemory();
    PyObject *type = err->status == SAP_ENOTFOUND ? missing_type : error_type;
    PyObject *value = PyObject_CallFunction(type, "O&", core_message, err->message);
    if (value) {
        PyObject *status = PyUnicode_FromString(sap_status_name(err->status));
        if (status && PyObject_SetAttrString(value, "status", status) == 0)
            PyErr_SetObject(type, value);
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

static PyTypeObject *file_type;
PyTypeObject *core_tree_type;

void core_free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

void *core_new_object(PyTypeObject *type) {
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

static void file_dealloc(PyObject *self) {
    sap_file_close(((file_object *)self)->file);
    core_free_object(self);
}

static PyObject *core_open(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *url;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &url))
        return NULL;
    sap_error err = {0};
    sap_file *file = NULL;
    sap_status status;
    const char *text = PyBytes_AsString(url);
    Py_BEGIN_ALLOW_THREADS status = sap_file_open(text, NULL, &file, &err);
    Py_END_ALLOW_THREADS Py_DECREF(url);
    if (status != SAP_OK)
        return core_raise(&err);
    file_object *self = core_new_object(file_type);
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
            Py_BuildValue("{s:O&, s:i, s:O&, s:O&, s:O, s:O, s:K, s:K}", "path", core_name, key->path, "cycle",
                          key->cycle, "class_name", core_name, key->class_name, "title", core_name, key->title,
                          "is_tree", sap_key_is_tree(file, key) ? Py_True : Py_False, "is_histogram",
                          sap_key_is_histogram(file, key) ? Py_True : Py_False, "stored_bytes",
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
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    tree_object *object = core_new_object(core_tree_type);
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
    return Py_BuildValue("{s:O&, s:K, s:i, s:s, s:O&}", "name", core_name, sap_file_name(file), "bytes",
                         (unsigned long long)sap_file_size(file), "version", sap_file_version(file), "compression",
                         sap_file_compression(file), "note", core_message, sap_file_note(file));
}

/* ---- Trees ------------------------------------------------------------------------------------------------------- */

static void tree_dealloc(PyObject *self) {
    tree_object *object = (tree_object *)self;
    sap_tree_close(object->tree);
    Py_XDECREF(object->file);
    Py_XDECREF(object->friends);
    core_free_object(self);
}

static PyObject *tree_info(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_tree *tree = ((tree_object *)self)->tree;
    return Py_BuildValue("{s:O&, s:L}", "path", core_name, sap_tree_path(tree), "entries",
                         (long long)sap_tree_entries(tree));
}

static PyObject *tree_clusters(PyObject *self, PyObject *unused) {
    (void)unused;
    const sap_tree *tree = ((tree_object *)self)->tree;
    size_t count = 0;
    const int64_t *clusters = sap_tree_clusters(tree, &count);
    return clusters ? core_numbers(clusters, count) : PyErr_NoMemory();
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
        "{s:O&, s:O&, s:O&, s:O&, s:O&, s:O, s:i, s:L, s:K, s:K}", "name", core_name, branch->name, "path", core_name,
        branch->path, "type_name", core_name, branch->type_name, "type", core_name, branch->field ? text : NULL,
        "reason", core_name, branch->field ? NULL : branch->reason, "container", branch->container ? Py_True : Py_False,
        "depth", branch->depth, "baskets", (long long)branch->baskets, "stored_bytes",
        (unsigned long long)branch->stored_bytes, "bytes", (unsigned long long)branch->bytes);
    if (text != small)
        free(text);
    return item;
}

static PyObject *tree_add_friend(PyObject *self, PyObject *arguments) {
    tree_object *object = (tree_object *)self;
    PyObject *other;
    const char *alias;
    sap_error err = {0};
    if (!PyArg_ParseTuple(arguments, "O!z", core_tree_type, &other, &alias))
        return NULL;
    if (!object->friends && !(object->friends = PyList_New(0)))
        return NULL;
    if (PyList_Append(object->friends, other) != 0) /* it must live as long */
        return NULL;
    if (sap_tree_add_friend(object->tree, ((tree_object *)other)->tree, alias, &err) != SAP_OK)
        return core_raise(&err);
    Py_RETURN_NONE;
}

static PyObject *tree_find(PyObject *self, PyObject *arguments) {
    const char *name;
    const sap_branch *branch;
    sap_error err = {0};
    if (!PyArg_ParseTuple(arguments, "s", &name))
        return NULL;
    if (sap_tree_find(((tree_object *)self)->tree, name, &branch, &err) != SAP_OK)
        return core_raise(&err);
    return describe_branch(branch);
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

/* ---- Histograms ---------------------------------------------------------------------------------------------------- */

static PyObject *doubles(const double *values, int64_t count) {
    return values ? PyBytes_FromStringAndSize((const char *)values, (Py_ssize_t)count * 8) : Py_NewRef(Py_None);
}

static PyObject *describe_axis(const sap_axis *axis) {
    PyObject *labels = axis->labels ? PyList_New(0) : Py_NewRef(Py_None), *edges = doubles(axis->edges, axis->bins + 1);
    for (int32_t i = 0; labels && axis->labels && i < axis->bins; i++) {
        PyObject *text = core_name((void *)(uintptr_t)axis->labels[i]);
        if (!text || PyList_Append(labels, text) != 0)
            Py_CLEAR(labels);
        Py_XDECREF(text);
    }
    if (!labels || !edges) {
        Py_XDECREF(labels);
        Py_XDECREF(edges);
        return NULL;
    }
    return Py_BuildValue("{s:O&, s:O&, s:i, s:O, s:N, s:N}", "name", core_name, axis->name, "title", core_name,
                         axis->title, "bins", (int)axis->bins, "regular", axis->regular ? Py_True : Py_False, "edges",
                         edges, "labels", labels);
}

static PyObject *describe_histogram(const sap_histogram *h) {
    PyObject *axes = PyList_New(0);
    for (int32_t i = 0; axes && i < h->dimensions; i++) {
        PyObject *axis = describe_axis(&h->axes[i]);
        if (!axis || PyList_Append(axes, axis) != 0)
            Py_CLEAR(axes);
        Py_XDECREF(axis);
    }
    PyObject *arrays[] = {doubles(h->values, h->cells), doubles(h->variances, h->cells),
                          doubles(h->weights_squared, h->cells), doubles(h->counts, h->cells),
                          doubles(h->spreads, h->cells)};
    bool well = axes != NULL;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        well = well && arrays[i];
    if (!well) {
        Py_XDECREF(axes);
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            Py_XDECREF(arrays[i]);
        return NULL;
    }
    const char option[2] = {h->error_option, '\0'};
    return Py_BuildValue("{s:O&, s:O&, s:O&, s:O, s:N, s:N, s:N, s:N, s:N, s:N, s:s, s:d, s:{s:d, s:d, s:d, s:d}}",
                         "name", core_name, h->name, "title", core_name, h->title, "class_name", core_name,
                         h->class_name, "profile", h->profile ? Py_True : Py_False, "axes", axes, "values", arrays[0],
                         "variances", arrays[1], "weights_squared", arrays[2], "counts", arrays[3], "spreads",
                         arrays[4], "error_option", option, "entries", h->entries, "statistics", "sumw", h->sumw,
                         "sumw2", h->sumw2, "sumwx", h->sumwx, "sumwx2", h->sumwx2);
}

static PyObject *file_histogram(PyObject *self, PyObject *arguments) {
    const char *path;
    if (!PyArg_ParseTuple(arguments, "s", &path))
        return NULL;
    sap_error err = {0};
    sap_histogram *histogram = NULL;
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_histogram_open(((file_object *)self)->file, path, &histogram, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    PyObject *result = describe_histogram(histogram);
    sap_histogram_close(histogram);
    return result;
}

/* ---- The module -------------------------------------------------------------------------------------------------------- */

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

static PyMethodDef file_methods[] = {
    {"keys", file_keys, METH_NOARGS, "Objects of the file, a dict each."},
    {"tree", file_tree, METH_VARARGS, "tree(path or None) -> Tree"},
    {"histogram", file_histogram, METH_VARARGS, "histogram(path) -> dict, its arrays as bytes of doubles"},
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
    {"clusters", tree_clusters, METH_NOARGS, "First entries of the clusters."},
    {"add_friend", tree_add_friend, METH_VARARGS, "add_friend(tree, alias or None)"},
    {"find", tree_find, METH_VARARGS, "find(name) -> a branch as a dict"},
    {"branches", tree_branches, METH_NOARGS, "Branches, a dict each."},
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
    {"version", core_version, METH_NOARGS, "The version."},
    {"parts", core_parts, METH_NOARGS, "Plug-ins, one a line; each is opened to see whether it works."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "sapwood._core", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__core(void); /* no header declares it */

/* An error about something that is not there is found by `except KeyError` and `except FileNotFoundError` too. */
static PyObject *make_missing_type(void) {
    PyObject *print = PyObject_GetAttrString(PyExc_BaseException, "__str__"); /* KeyError would print quotes */
    PyObject *bases = PyTuple_Pack(3, error_type, PyExc_KeyError, PyExc_FileNotFoundError);
    PyObject *inside = print ? Py_BuildValue("{s:O}", "__str__", print) : NULL, *type = NULL;
    if (bases && inside)
        type = PyErr_NewExceptionWithDoc("sapwood.NotFoundError", "No such file, object or column.", bases, inside);
    Py_XDECREF(print);
    Py_XDECREF(bases);
    Py_XDECREF(inside);
    return type;
}

PyMODINIT_FUNC PyInit__core(void) {
    PyObject *module = PyModule_Create(&definition);
    file_type = (PyTypeObject *)PyType_FromSpec(&file_spec);
    core_tree_type = (PyTypeObject *)PyType_FromSpec(&tree_spec);
    error_type = PyErr_NewExceptionWithDoc("sapwood.Error", "What Sapwood could not do, and why; `status` is the kind.",
                                           PyExc_RuntimeError, NULL);
    missing_type = error_type ? make_missing_type() : NULL;
    if (!module || !file_type || !core_tree_type || !missing_type ||
        PyModule_AddFunctions(module, core_job_functions) != 0 ||
        PyModule_AddFunctions(module, core_table_functions) != 0 ||
        PyModule_AddFunctions(module, core_event_functions) != 0 || !core_nn_init() ||
        PyModule_AddFunctions(module, core_nn_functions) != 0 || !core_spread_init() ||
        PyModule_AddFunctions(module, core_spread_functions) != 0 || !core_table_reader_init() ||
        PyModule_AddFunctions(module, core_table_reader_functions) != 0 ||
        PyModule_AddIntConstant(module, "SHARDS", SAP_DATASET_SHARDS) != 0 ||
        PyModule_AddObjectRef(module, "Error", error_type) != 0 ||
        PyModule_AddObjectRef(module, "NotFoundError", missing_type) != 0)
        Py_CLEAR(module);
    return module;
}
