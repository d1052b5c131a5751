/* Networks for sapwood.keras: models, feeds of the caller's arrays or of a dataset, one epoch of training at a time. Arrays come and go
 * as addresses; sapwood/keras.py sees to their types and shapes, and that they live long enough. */
#include "_core.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 }; /* inputs, outputs */

static PyTypeObject *model_type, *feed_type;

typedef struct model_object {
    PyObject ob_base;
    sap_model *model;
    sap_pool *pool;
    bool compiled;
    sap_optimizer optimizer; /* as the model was compiled */
    sap_loss losses[MOST];
} model_object;

typedef struct feed_object {
    PyObject ob_base;
    sap_feed *feed;
    PyObject *owner, *arrays; /* the model whose pool it uses, or NULL; what must not go away */
    sap_dataset *dataset;
    sap_pool *pool; /* its own, without a model */
} feed_object;

static void *address(PyObject *number) { /* NULL for 0, and with an exception set */
    return PyLong_AsVoidPtr(number);
}

/* ---- Models ------------------------------------------------------------------------------------------------------ */

static void model_dealloc(PyObject *self) {
    model_object *m = (model_object *)self;
    sap_model_close(m->model);
    sap_pool_close(m->pool);
    core_free_object(self);
}

/* model_open(path, threads, seed = 0) -> Model; seed: of the weights, where the file is JSON */
static PyObject *model_open(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *path;
    int threads;
    unsigned long long seed = 0;
    if (!PyArg_ParseTuple(arguments, "O&i|K", PyUnicode_FSConverter, &path, &threads, &seed))
        return NULL;
    model_object *m = core_new_object(model_type);
    if (!m) {
        Py_DECREF(path);
        return NULL;
    }
    sap_error err = {0};
    sap_status status;
    const char *text = PyBytes_AsString(path);
    Py_BEGIN_ALLOW_THREADS status = sap_model_open(text, seed, &m->model, &err);
    if (status == SAP_OK)
        status = sap_pool_open(threads, &m->pool, &err);
    Py_END_ALLOW_THREADS Py_DECREF(path);
    if (status == SAP_OK && sap_model_output_count(m->model) > MOST)
        status = sap_error_set(&err, SAP_EUNSUPPORTED, "a network with more than %d outputs", MOST);
    if (status != SAP_OK) {
        Py_DECREF(m);
        return core_raise(&err);
    }
    const sap_training_config *config = sap_model_training_config(m->model);
    m->compiled = config && !config->unknown;
    if (m->compiled) {
        m->optimizer = config->optimizer;
        memcpy(m->losses, config->losses, sap_model_output_count(m->model) * sizeof *m->losses);
    }
    return (PyObject *)m;
}

static PyObject *shape_tuple(int32_t rank, const int64_t *shape) {
    PyObject *tuple = PyTuple_New(rank);
    for (int32_t i = 0; tuple && i < rank; i++) {
        PyObject *number = PyLong_FromLongLong(shape[i]);
        if (!number || PyTuple_SetItem(tuple, i, number) != 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static bool append(PyObject *list, PyObject *item) {
    bool done = list && item && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    return done;
}

/* describe() -> {"inputs": [(name, shape)], "outputs": [(name, shape)], "weights": [(path, shape, trainable, address)],
 * "unknown": text or None, "compiled": bool} */
static PyObject *model_describe(PyObject *self, PyObject *unused) {
    (void)unused;
    model_object *m = (model_object *)self;
    PyObject *ends[2] = {PyList_New(0), PyList_New(0)}, *weights = PyList_New(0);
    bool done = true;
    for (int k = 0; k < 2; k++) {
        size_t count = k ? sap_model_output_count(m->model) : sap_model_input_count(m->model);
        for (size_t i = 0; done && i < count; i++) {
            const sap_tensor_info *info = k ? sap_model_output(m->model, i) : sap_model_input(m->model, i);
            done = append(ends[k], Py_BuildValue("(sN)", info->name, shape_tuple(info->rank, info->shape)));
        }
    }
    for (size_t i = 0; done && i < sap_model_weight_count(m->model); i++) {
        const sap_weight *w = sap_model_weight(m->model, i);
        done = append(weights, Py_BuildValue("(sNON)", w->path, shape_tuple(w->rank, w->shape),
                                             w->trainable ? Py_True : Py_False, PyLong_FromVoidPtr(w->data)));
    }
    const sap_training_config *config = sap_model_training_config(m->model);
    PyObject *answer = NULL;
    if (done)
        answer = Py_BuildValue("{s:O,s:O,s:O,s:O&,s:O}", "inputs", ends[0], "outputs", ends[1], "weights", weights,
                               "unknown", core_message, config ? config->unknown : NULL, "compiled",
                               m->compiled ? Py_True : Py_False);
    Py_XDECREF(ends[0]);
    Py_XDECREF(ends[1]);
    Py_XDECREF(weights);
    return answer;
}

static PyObject *model_write(PyObject *self, PyObject *arguments) {
    PyObject *path;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &path))
        return NULL;
    sap_error err = {0};
    sap_status status = sap_model_write(((model_object *)self)->model, PyBytes_AsString(path), &err);
    Py_DECREF(path);
    return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

/* reset(seed): all weights as the layers' initialisers say, the optimizer as new */
static PyObject *model_reset(PyObject *self, PyObject *arguments) {
    unsigned long long seed;
    if (!PyArg_ParseTuple(arguments, "K", &seed))
        return NULL;
    sap_error err = {0};
    return sap_model_reset(((model_object *)self)->model, seed, &err) == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

/* ---- Feeds --------------------------------------------------------------------------------------------------------- */

static void feed_dealloc(PyObject *self) {
    feed_object *f = (feed_object *)self;
    sap_feed_close(f->feed);
    sap_dataset_close(f->dataset);
    sap_pool_close(f->pool);
    Py_XDECREF(f->owner);
    Py_XDECREF(f->arrays);
    core_free_object(self);
}

static feed_object *new_feed(PyObject *owner, PyObject *arrays) {
    feed_object *f = core_new_object(feed_type);
    if (f) {
        f->owner = Py_XNewRef(owner);
        f->arrays = Py_XNewRef(arrays);
    }
    return f;
}

/* Arrays of a call as (address, values a row or step, address of offsets) each. */
typedef struct parts {
    const float *x[MOST], *y[MOST];
    int64_t values[MOST], target_values[MOST];
    const int64_t *offsets[MOST];
    int64_t pad_rows[MOST];
    sap_examples examples;
} parts;

static bool read_parts(PyObject *inputs, PyObject *targets, parts *p) {
    Py_ssize_t count = PyList_Size(inputs), target_count = PyList_Size(targets);
    if (count < 0 || target_count < 0)
        return false;
    if (count > MOST || target_count > MOST) {
        PyErr_SetString(PyExc_ValueError, "too many arrays");
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *data, *offsets;
        long long values, pad_rows = 0;
        if (!PyArg_ParseTuple(PyList_GetItem(inputs, i), "OLO|L", &data, &values, &offsets, &pad_rows))
            return false;
        p->pad_rows[i] = pad_rows;
        p->x[i] = address(data);
        p->values[i] = values;
        p->offsets[i] = address(offsets);
    }
    for (Py_ssize_t i = 0; i < target_count; i++) {
        PyObject *data;
        long long values;
        if (!PyArg_ParseTuple(PyList_GetItem(targets, i), "OL", &data, &values))
            return false;
        p->y[i] = address(data);
        p->target_values[i] = values;
    }
    p->examples.inputs = (int32_t)count;
    p->examples.targets = (int32_t)target_count;
    p->examples.x = p->x;
    p->examples.values = p->values;
    p->examples.offsets = p->offsets;
    p->examples.pad_rows = p->pad_rows;
    p->examples.y = target_count ? p->y : NULL;
    p->examples.target_values = target_count ? p->target_values : NULL;
    return !PyErr_Occurred();
}

/* feed_arrays(rows, [(address, values, offsets or 0)], [(address, values)], weight address or 0, arrays) -> Feed; arrays: kept */
static PyObject *model_feed_arrays(PyObject *self, PyObject *arguments) {
    long long rows;
    PyObject *inputs, *targets, *weight, *arrays;
    if (!PyArg_ParseTuple(arguments, "LOOOO", &rows, &inputs, &targets, &weight, &arrays))
        return NULL;
    parts *p = calloc(1, sizeof *p);
    if (!p)
        return PyErr_NoMemory();
    feed_object *f = NULL;
    sap_error err = {0};
    if (read_parts(inputs, targets, p) && (f = new_feed(self, arrays))) {
        sap_run run = {.pool = ((model_object *)self)->pool};
        p->examples.rows = rows;
        p->examples.weight = address(weight);
        if (sap_feed_open_arrays(&p->examples, &run, &f->feed, &err) != SAP_OK) {
            Py_CLEAR(f);
            (void)core_raise(&err);
        }
    }
    free(p);
    return (PyObject *)f;
}

/* feed_rows(rows, [(address, values, offsets or 0, pad_rows)], label address, identity address, chosen address, count, arrays) ->
 * Feed of the chosen rows; labels are class numbers (int32), identities uint64 */
static PyObject *model_feed_rows(PyObject *self, PyObject *arguments) {
    long long rows, count;
    PyObject *inputs, *label, *identity, *chosen, *arrays;
    if (!PyArg_ParseTuple(arguments, "LOOOOLO", &rows, &inputs, &label, &identity, &chosen, &count, &arrays))
        return NULL;
    parts *p = calloc(1, sizeof *p);
    PyObject *none = PyList_New(0);
    feed_object *f = NULL;
    sap_error err = {0};
    if (p && none && read_parts(inputs, none, p) && (f = new_feed(self, arrays))) {
        sap_run run = {.pool = ((model_object *)self)->pool};
        p->examples.rows = rows;
        p->examples.label = address(label);
        p->examples.identity = address(identity);
        if (sap_feed_open_rows(&p->examples, address(chosen), count, &run, &f->feed, &err) != SAP_OK) {
            Py_CLEAR(f);
            (void)core_raise(&err);
        }
    }
    Py_XDECREF(none);
    free(p);
    return (PyObject *)f;
}

typedef struct dataset_work {
    feed_object *feed;
    const char *folder, *split;
    sap_feed_options options;
} dataset_work;

static sap_status open_dataset(void *context, const sap_run *run, sap_error *err) {
    dataset_work *w = context;
    sap_run lasting = {.pool = run->pool}; /* the feed keeps it, when this job and its cancel flag are gone */
    sap_status status = sap_dataset_open(w->folder, &w->feed->dataset, err);
    if (status == SAP_OK)
        status = sap_feed_open_dataset(w->feed->dataset, w->split, &w->options, &lasting, &w->feed->feed, err);
    return status;
}

/* feed_dataset(folder, split, callback) -> Feed: features called like the network's inputs, labels as class numbers */
static PyObject *model_feed_dataset(PyObject *self, PyObject *arguments) {
    PyObject *folder, *callback;
    const char *split, *names[MOST];
    model_object *m = (model_object *)self;
    if (!PyArg_ParseTuple(arguments, "O&sO", PyUnicode_FSConverter, &folder, &split, &callback))
        return NULL;
    dataset_work w = {.folder = PyBytes_AsString(folder), .split = split};
    w.options.inputs = names;
    w.options.input_count = sap_model_input_count(m->model);
    for (size_t i = 0; i < w.options.input_count && i < MOST; i++)
        names[i] = sap_model_input(m->model, i)->name;
    if (w.options.input_count > MOST)
        PyErr_SetString(PyExc_ValueError, "too many inputs");
    else
        w.feed = new_feed(self, Py_None);
    if (w.feed && core_run_pool(open_dataset, &w, m->pool, callback) != 0)
        Py_CLEAR(w.feed);
    Py_DECREF(folder);
    return (PyObject *)w.feed;
}

/* The names of features in a list of str; false with an exception. Borrowed from the list. */
static bool read_names(PyObject *list, const char **names, size_t *count) {
    Py_ssize_t length = PyList_Size(list);
    if (length < 1 || length > MOST) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "%zd features: there should be 1 to %d", length, (int)MOST);
        return false;
    }
    for (Py_ssize_t i = 0; i < length; i++)
        if (!(names[i] = PyUnicode_AsUTF8AndSize(PyList_GetItem(list, i), NULL)))
            return false;
    *count = (size_t)length;
    return true;
}

/* feed_open(folder, split, [feature], weight or None, dense, first shard, end of shards (0: all), threads, callback) -> Feed, without a
 * model; dense: sequences are padded */
static PyObject *feed_open(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *folder, *list, *callback;
    const char *split, *weight, *names[MOST];
    int dense, from, to, threads;
    if (!PyArg_ParseTuple(arguments, "O&sOzpiiiO", PyUnicode_FSConverter, &folder, &split, &list, &weight, &dense,
                          &from, &to, &threads, &callback))
        return NULL;
    dataset_work w = {.folder = PyBytes_AsString(folder),
                      .split = split,
                      .options = {.inputs = names, .weight = weight, .shard_from = from, .shard_to = to}};
    sap_error err = {0};
    sap_status status = SAP_OK;
    if (read_names(list, names, &w.options.input_count))
        w.feed = new_feed(NULL, NULL);
    if (w.feed)
        status = sap_pool_open(threads, &w.feed->pool, &err);
    if (w.feed && status == SAP_OK && core_run_pool(open_dataset, &w, w.feed->pool, callback) != 0)
        Py_CLEAR(w.feed);
    if (w.feed && status == SAP_OK && dense)
        status = sap_feed_dense(w.feed->feed, &err);
    Py_DECREF(folder);
    if (status != SAP_OK) {
        Py_CLEAR(w.feed);
        return core_raise(&err);
    }
    return (PyObject *)w.feed;
}

/* epoch(seed, epoch): starts it; epoch -1: the rows here in stored order, -2: all */
static PyObject *feed_epoch(PyObject *self, PyObject *arguments) {
    unsigned long long seed;
    long long epoch;
    if (!PyArg_ParseTuple(arguments, "KL", &seed, &epoch))
        return NULL;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_feed_epoch(((feed_object *)self)->feed, seed, epoch, &err);
    Py_END_ALLOW_THREADS return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

static PyObject *feed_skip(PyObject *self, PyObject *arguments) {
    long long rows;
    if (!PyArg_ParseTuple(arguments, "L", &rows))
        return NULL;
    sap_feed_skip(((feed_object *)self)->feed, rows);
    return Py_NewRef(Py_None);
}

/* Makes a bytearray longer; where the new bytes begin, NULL with an exception. */
static char *extend(PyObject *array, size_t bytes) {
    Py_ssize_t before = PyByteArray_Size(array);
    if (PyByteArray_Resize(array, before + (Py_ssize_t)bytes) != 0)
        return NULL;
    return PyByteArray_AsString(array) + before;
}

static bool add(PyObject *array, const void *data, size_t bytes) {
    char *to = extend(array, bytes);
    if (to && bytes > 0)
        memcpy(to, data, bytes);
    return to;
}

static bool add_lengths(PyObject *array, const int64_t *offsets, int64_t rows) {
    char *to = extend(array, (size_t)rows * sizeof *offsets);
    for (int64_t k = 0; to && k < rows; k++) {
        int64_t length = offsets[k + 1] - offsets[k];
        memcpy(to + (size_t)k * sizeof length, &length, sizeof length);
    }
    return to;
}

/* What several batches hold, one after another. */
typedef struct gathered {
    PyObject *rows, *whole;                 /* bytearrays: int64 for each batch */
    PyObject *values[MOST], *lengths[MOST]; /* float32 of all rows or steps; int64 steps of each row */
    PyObject *label, *weight;               /* int32, float32 */
    bool ragged[MOST];
    int64_t width[MOST];
    int32_t inputs;
} gathered;

static bool gather(gathered *g, const sap_examples *e) {
    int64_t whole = e->batch_rows ? e->batch_rows : e->rows;
    bool done = add(g->rows, &e->rows, sizeof e->rows) && add(g->whole, &whole, sizeof whole);
    if (e->rows == 0)
        return done;
    g->inputs = e->inputs;
    for (int32_t i = 0; done && i < e->inputs; i++) {
        const int64_t *offsets = e->offsets ? e->offsets[i] : NULL;
        int64_t steps = offsets ? offsets[e->rows] : e->rows;
        g->ragged[i] = offsets != NULL;
        g->width[i] = e->values[i];
        done = add(g->values[i], e->x[i], (size_t)(steps * e->values[i]) * sizeof(float)) &&
               (!offsets || add_lengths(g->lengths[i], offsets, e->rows));
    }
    if (done && e->label)
        done = add(g->label, e->label, (size_t)e->rows * sizeof *e->label);
    if (done && e->weight)
        done = add(g->weight, e->weight, (size_t)e->rows * sizeof *e->weight);
    return done;
}

/* (rows, whole, [(values, width, lengths or None)], label, weight) */
static PyObject *gathered_tuple(const gathered *g) {
    PyObject *list = PyList_New(0);
    bool done = true;
    for (int32_t i = 0; done && i < g->inputs; i++)
        done = append(
            list, Py_BuildValue("(OLO)", g->values[i], (long long)g->width[i], g->ragged[i] ? g->lengths[i] : Py_None));
    PyObject *answer = done ? Py_BuildValue("(OOOOO)", g->rows, g->whole, list, g->label, g->weight) : NULL;
    Py_XDECREF(list);
    return answer;
}

static bool gathered_init(gathered *g) {
    PyObject **all[] = {&g->rows, &g->whole, &g->label, &g->weight};
    bool done = true;
    for (size_t i = 0; done && i < sizeof all / sizeof *all; i++)
        done = (*all[i] = PyByteArray_FromStringAndSize(NULL, 0));
    for (int i = 0; done && i < MOST; i++) {
        g->values[i] = PyByteArray_FromStringAndSize(NULL, 0);
        g->lengths[i] = PyByteArray_FromStringAndSize(NULL, 0);
        done = g->values[i] && g->lengths[i];
    }
    return done;
}

static void gathered_release(gathered *g) {
    Py_XDECREF(g->rows);
    Py_XDECREF(g->whole);
    Py_XDECREF(g->label);
    Py_XDECREF(g->weight);
    for (int i = 0; i < MOST; i++) {
        Py_XDECREF(g->values[i]);
        Py_XDECREF(g->lengths[i]);
    }
}

/* next(steps, batch) -> (rows, whole, [(float32 values, width, int64 lengths or None)], label, weight): so many batches one after
 * another, fewer at the end, as bytearrays; rows, whole: int64 for each batch, of the events here and of all. */
static PyObject *feed_next(PyObject *self, PyObject *arguments) {
    long long steps, batch;
    if (!PyArg_ParseTuple(arguments, "LL", &steps, &batch))
        return NULL;
    sap_feed *feed = ((feed_object *)self)->feed;
    gathered g = {0};
    PyObject *answer = NULL;
    bool done = gathered_init(&g);
    sap_error err = {0};
    sap_status status = SAP_OK;
    for (long long k = 0; done && k < steps; k++) {
        sap_examples examples;
        Py_BEGIN_ALLOW_THREADS status = sap_feed_next(feed, batch, &examples, &err);
        Py_END_ALLOW_THREADS if (status != SAP_OK || (examples.batch_rows == 0 && examples.rows == 0)) break;
        done = gather(&g, &examples);
    }
    if (status != SAP_OK)
        (void)core_raise(&err);
    else if (done)
        answer = gathered_tuple(&g);
    gathered_release(&g);
    return answer;
}

static PyObject *feed_rows(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromLongLong(sap_feed_rows(((feed_object *)self)->feed));
}

typedef struct label_work {
    sap_feed *feed;
    int32_t *label;
    uint64_t *identity; /* may be NULL */
} label_work;

static sap_status read_labels(void *context, const sap_run *run, sap_error *err) {
    (void)run;
    label_work *w = context;
    sap_status status = sap_feed_epoch(w->feed, 0, -1, err);
    for (int64_t at = 0; status == SAP_OK;) {
        sap_examples examples;
        status = sap_feed_next(w->feed, 4096, &examples, err);
        if (status != SAP_OK || examples.rows == 0)
            break;
        memcpy(w->label + at, examples.label, (size_t)examples.rows * sizeof *w->label);
        if (w->identity)
            memcpy(w->identity + at, examples.identity, (size_t)examples.rows * sizeof *w->identity);
        at += examples.rows;
    }
    return status;
}

/* labels(address of an int32 for each row, and of an uint64 for its identity): those of a dataset, in stored order */
static PyObject *feed_labels(PyObject *self, PyObject *arguments) {
    PyObject *to, *identity = NULL;
    if (!PyArg_ParseTuple(arguments, "O|O", &to, &identity))
        return NULL;
    feed_object *f = (feed_object *)self;
    label_work w = {f->feed, address(to), identity ? address(identity) : NULL};
    sap_pool *pool = f->owner ? ((model_object *)f->owner)->pool : f->pool;
    if (!w.label || core_run_pool(read_labels, &w, pool, Py_None) != 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no place for labels");
    return Py_NewRef(Py_None);
}

typedef struct store_work {
    sap_feed *feed;
    const int64_t *chosen; /* (count) rising */
    int64_t count;
    FILE *files[MOST], *offsets[MOST];
    int64_t steps[MOST], width[MOST];
    bool ragged[MOST];
} store_work;

static bool store_row(store_work *w, const sap_examples *e, int64_t row) {
    bool done = true;
    for (int32_t i = 0; i < e->inputs; i++) {
        const int64_t *offsets = e->offsets ? e->offsets[i] : NULL;
        int64_t first = offsets ? offsets[row] : row, steps = offsets ? offsets[row + 1] - first : 1;
        size_t values = (size_t)(steps * e->values[i]);
        w->steps[i] += steps;
        w->width[i] = e->values[i];
        w->ragged[i] = offsets != NULL;
        done = done && fwrite(e->x[i] + first * e->values[i], sizeof(float), values, w->files[i]) == values &&
               fwrite(&w->steps[i], sizeof *w->steps, 1, w->offsets[i]) == 1;
    }
    return done;
}

static sap_status store_rows(void *context, const sap_run *run, sap_error *err) {
    enum { ROWS = 1024 };
    store_work *w = context;
    int64_t next = 0;
    sap_status status = sap_feed_epoch(w->feed, 0, SAP_EPOCH_OWN, err);
    for (int64_t at = 0; status == SAP_OK && next < w->count; at += ROWS) {
        sap_examples examples;
        status = run->cancel && *run->cancel ? sap_error_set(err, SAP_ECANCELLED, "cancelled")
                                             : sap_feed_next(w->feed, ROWS, &examples, err);
        if (status != SAP_OK || examples.rows == 0)
            break;
        for (; status == SAP_OK && next < w->count && w->chosen[next] < at + examples.rows; next++)
            if (w->chosen[next] < at || !store_row(w, &examples, w->chosen[next] - at))
                status = sap_error_set(err, SAP_EIO, "rows could not be written: %s", strerror(errno));
    }
    return status;
}

/* store(chosen address, count, [(path of values, path of offsets)]) -> [(width, ragged)]: writes the inputs of the chosen rows, whose
 * numbers rise: float32 one after another, and after each row an int64, how many steps there were so far */
static PyObject *feed_store(PyObject *self, PyObject *arguments) {
    PyObject *chosen, *paths;
    feed_object *f = (feed_object *)self;
    store_work w = {.feed = f->feed};
    long long count;
    if (!PyArg_ParseTuple(arguments, "OLO", &chosen, &count, &paths))
        return NULL;
    w.chosen = address(chosen);
    w.count = count;
    Py_ssize_t inputs = PyList_Size(paths);
    bool open = inputs >= 0 && inputs <= MOST;
    for (Py_ssize_t i = 0; open && i < inputs; i++) {
        PyObject *values, *offsets;
        open = PyArg_ParseTuple(PyList_GetItem(paths, i), "O&O&", PyUnicode_FSConverter, &values, PyUnicode_FSConverter,
                                &offsets);
        if (!open)
            break;
        w.files[i] = fopen(PyBytes_AsString(values), "wbe");
        w.offsets[i] = fopen(PyBytes_AsString(offsets), "wbe");
        open = w.files[i] && w.offsets[i];
        if (!open)
            (void)PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(values);
        Py_DECREF(offsets);
    }
    bool done =
        open && core_run_pool(store_rows, &w, f->owner ? ((model_object *)f->owner)->pool : f->pool, Py_None) == 0;
    PyObject *answer = done ? PyList_New(0) : NULL;
    for (Py_ssize_t i = 0; i < inputs && i < MOST; i++) {
        bool closed = (!w.files[i] || fclose(w.files[i]) == 0) & (!w.offsets[i] || fclose(w.offsets[i]) == 0);
        if (done && !closed)
            (void)PyErr_SetFromErrno(PyExc_OSError);
        if (answer && (!closed ||
                       !append(answer, Py_BuildValue("(LO)", (long long)w.width[i], w.ragged[i] ? Py_True : Py_False))))
            Py_CLEAR(answer);
    }
    return answer;
}

/* ---- Training -------------------------------------------------------------------------------------------------------- */

typedef struct train_work {
    sap_model *model;
    sap_feed *train, *validation;
    sap_train_options options;
    sap_history history;
} train_work;

static sap_status train(void *context, const sap_run *run, sap_error *err) {
    train_work *w = context;
    return sap_train(w->model, &w->options, w->train, w->validation, run, &w->history, err);
}

/* The class weights in a malloc'ed array; NULL and *count 0 for None; false with an exception. */
static bool read_class_weights(PyObject *list, double **out, int32_t *count) {
    *out = NULL;
    *count = 0;
    if (list == Py_None)
        return true;
    Py_ssize_t length = PyList_Size(list);
    if (length < 0)
        return false;
    *out = calloc((size_t)length + 1, sizeof **out);
    for (Py_ssize_t i = 0; *out && i < length; i++)
        (*out)[i] = PyFloat_AsDouble(PyList_GetItem(list, i));
    *count = (int32_t)length;
    if (!*out)
        (void)PyErr_NoMemory();
    return *out && !PyErr_Occurred();
}

/* {name: value} of the epoch that there is; those not measured are left out. */
static PyObject *history_dict(const sap_history *history) {
    PyObject *dict = PyDict_New();
    for (int32_t i = 0; dict && history->epochs > 0 && i < history->count; i++) {
        PyObject *value = isnan(history->values[i]) ? NULL : PyFloat_FromDouble(history->values[i]);
        if (value && PyDict_SetItemString(dict, history->names[i], value) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return PyErr_Occurred() ? NULL : dict;
}

/* train(feed, validation feed or None, epoch from 0, batch, steps or 0, seed, in_order, learning_rate or None, auc, class_weights or
 * None, callback) -> {name: value} of one epoch, which goes on with the optimizer's state that the model has. */
static PyObject *model_train(PyObject *self, PyObject *arguments) {
    model_object *m = (model_object *)self;
    feed_object *feed;
    PyObject *validation, *rate, *class_weights, *callback, *answer = NULL;
    long long epoch, batch, steps;
    unsigned long long seed;
    int in_order, auc;
    if (!PyArg_ParseTuple(arguments, "O!OLLLKpOpOO", feed_type, &feed, &validation, &epoch, &batch, &steps, &seed,
                          &in_order, &rate, &auc, &class_weights, &callback))
        return NULL;
    if (!m->compiled)
        return PyErr_Format(PyExc_ValueError, "the network was not compiled");
    sap_loss losses[MOST];
    memcpy(losses, m->losses, sizeof losses);
    double *weights;
    if (read_class_weights(class_weights, &weights, &losses[0].class_count)) {
        losses[0].class_weight = weights;
        train_work w = {
            .model = m->model,
            .train = feed->feed,
            .validation = validation == Py_None ? NULL : ((feed_object *)validation)->feed,
            .options = {.epochs = epoch + 1,
                        .initial_epoch = epoch,
                        .batch = batch,
                        .steps_per_epoch = steps,
                        .seed = seed,
                        .in_order = in_order,
                        .losses = losses,
                        .auc = auc,
                        .optimizer = m->optimizer,
                        .keep_optimizer = true},
        };
        if (rate != Py_None)
            w.options.optimizer.learning_rate = PyFloat_AsDouble(rate);
        if (!PyErr_Occurred() && core_run_pool(train, &w, m->pool, callback) == 0)
            answer = history_dict(&w.history);
        sap_history_release(&w.history);
    }
    free(weights);
    return answer;
}

/* [{name: value}, …] of all epochs; those not measured are left out. */
static PyObject *history_list(const sap_history *history) {
    PyObject *list = PyList_New(0);
    for (int64_t e = 0; list && e < history->epochs; e++) {
        sap_history one = *history;
        one.values = history->values + e * history->count;
        if (!append(list, history_dict(&one)))
            Py_CLEAR(list);
    }
    return list;
}

/* fit(feed, validation feed, first epoch, epochs to go to, batch, seed, auc, callback) -> [{name: value}, …] of these epochs. From
 * epoch 0 on it begins with a new optimizer, else it goes on with the one that the model has. */
static PyObject *model_fit(PyObject *self, PyObject *arguments) {
    model_object *m = (model_object *)self;
    feed_object *feed, *validation;
    PyObject *callback, *answer = NULL;
    long long first, epochs, batch;
    unsigned long long seed;
    int auc;
    if (!PyArg_ParseTuple(arguments, "O!O!LLLKpO", feed_type, &feed, feed_type, &validation, &first, &epochs, &batch,
                          &seed, &auc, &callback))
        return NULL;
    if (!m->compiled)
        return PyErr_Format(PyExc_ValueError, "the network was not compiled");
    train_work w = {
        .model = m->model,
        .train = feed->feed,
        .validation = validation->feed,
        .options = {.epochs = epochs,
                    .initial_epoch = first,
                    .batch = batch,
                    .seed = seed,
                    .losses = m->losses,
                    .auc = auc,
                    .optimizer = m->optimizer,
                    .keep_optimizer = first > 0},
    };
    if (core_run_pool(train, &w, m->pool, callback) == 0)
        answer = history_list(&w.history);
    sap_history_release(&w.history);
    return answer;
}

/* ---- Prediction ------------------------------------------------------------------------------------------------------ */

typedef struct predict_work {
    const sap_model *model;
    sap_feed *feed;
    int64_t batch;
    float *outputs[MOST];
    int64_t values[MOST]; /* numbers a row */
} predict_work;

static sap_status predict(void *context, const sap_run *run, sap_error *err) {
    predict_work *w = context;
    float *to[MOST];
    sap_examples examples;
    int64_t done = 0, total = sap_feed_rows(w->feed);
    sap_status status = sap_feed_epoch(w->feed, 0, -1, err);
    for (;;) {
        if (status == SAP_OK && run->cancel && *run->cancel)
            status = sap_error_set(err, SAP_ECANCELLED, "cancelled");
        if (status == SAP_OK)
            status = sap_feed_next(w->feed, w->batch, &examples, err);
        if (status != SAP_OK || examples.rows == 0)
            return status;
        for (size_t o = 0; o < sap_model_output_count(w->model); o++)
            to[o] = w->outputs[o] + done * w->values[o];
        status = sap_model_predict(w->model, &examples, run, to, err);
        done += examples.rows;
        sap_progress progress = {
            .stage = "predict", .unit = "samples", .done = (uint64_t)done, .total = (uint64_t)total};
        if (status == SAP_OK && run->progress)
            run->progress(run->context, &progress);
    }
}

/* predict(feed, batch, [(address, values a row)], callback) */
static PyObject *model_predict(PyObject *self, PyObject *arguments) {
    model_object *m = (model_object *)self;
    feed_object *feed;
    PyObject *outputs, *callback;
    long long batch;
    if (!PyArg_ParseTuple(arguments, "O!LOO", feed_type, &feed, &batch, &outputs, &callback))
        return NULL;
    predict_work w = {.model = m->model, .feed = feed->feed, .batch = batch};
    Py_ssize_t count = PyList_Size(outputs);
    if (count != (Py_ssize_t)sap_model_output_count(m->model))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "an array for each output");
    for (Py_ssize_t o = 0; o < count; o++) {
        PyObject *data;
        long long values;
        if (!PyArg_ParseTuple(PyList_GetItem(outputs, o), "OL", &data, &values))
            return NULL;
        w.outputs[o] = address(data);
        w.values[o] = values;
    }
    if (PyErr_Occurred() || core_run_pool(predict, &w, m->pool, callback) != 0)
        return NULL;
    return Py_NewRef(Py_None);
}

/* ---- Types ----------------------------------------------------------------------------------------------------------- */

static PyMethodDef model_methods[] = {
    {"describe", model_describe, METH_NOARGS, "Inputs, outputs, weights."},
    {"write", model_write, METH_VARARGS, "write(path)"},
    {"reset", model_reset, METH_VARARGS, "reset(seed)"},
    {"feed_arrays", model_feed_arrays, METH_VARARGS, "feed_arrays(rows, inputs, targets, weight, arrays) -> Feed"},
    {"feed_rows", model_feed_rows, METH_VARARGS,
     "feed_rows(rows, inputs, label, identity, chosen, count, arrays) -> Feed"},
    {"feed_dataset", model_feed_dataset, METH_VARARGS, "feed_dataset(folder, split, callback) -> Feed"},
    {"train", model_train, METH_VARARGS, "Trains for one epoch."},
    {"fit", model_fit, METH_VARARGS, "fit(feed, validation, first, epochs, batch, seed, auc, callback)"},
    {"predict", model_predict, METH_VARARGS, "predict(feed, batch, outputs, callback)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot model_slots[] = {{Py_tp_dealloc, (void *)model_dealloc}, {Py_tp_methods, model_methods}, {0, NULL}};

static PyType_Spec model_spec = {"sapwood._core.Model", sizeof(model_object), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, model_slots};

static PyMethodDef feed_methods[] = {
    {"rows", feed_rows, METH_NOARGS, "How many rows it has."},
    {"labels", feed_labels, METH_VARARGS, "labels(address, identities)"},
    {"store", feed_store, METH_VARARGS, "store(chosen, count, paths) -> [(width, ragged)]"},
    {"epoch", feed_epoch, METH_VARARGS, "epoch(seed, epoch)"},
    {"skip", feed_skip, METH_VARARGS, "skip(rows)"},
    {"next", feed_next, METH_VARARGS, "next(steps, batch) -> (rows, whole, inputs, label, weight)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot feed_slots[] = {{Py_tp_dealloc, (void *)feed_dealloc}, {Py_tp_methods, feed_methods}, {0, NULL}};

static PyType_Spec feed_spec = {"sapwood._core.Feed", sizeof(feed_object), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, feed_slots};

PyMethodDef core_nn_functions[] = {
    {"model_open", model_open, METH_VARARGS, "model_open(path, threads) -> Model"},
    {"feed_open", feed_open, METH_VARARGS,
     "feed_open(folder, split, features, weight, dense, from, to, threads, callback) -> Feed"},
    {NULL, NULL, 0, NULL},
};

bool core_nn_init(void) {
    model_type = (PyTypeObject *)PyType_FromSpec(&model_spec);
    feed_type = (PyTypeObject *)PyType_FromSpec(&feed_spec);
    return model_type && feed_type;
}
