/* Recipes batch by batch, and datasets that many processes write together: what the Spark surface stands on. */
#include "_core.h"

#include <stdlib.h>
#include <string.h>

static PyTypeObject *recipe_type, *features_type, *packer_type, *shard_type, *writer_type, *scaler_type, *scorer_type;

/* ---- Arrow's capsules ------------------------------------------------------------------------------------------- */

/* Columns as a pair of capsules: the batch becomes empty. */
static PyObject *give_columns(const sap_field *fields, size_t count, sap_batch *batch) {
    sap_error err = {0};
    struct ArrowSchema *schema = calloc(1, sizeof *schema);
    struct ArrowArray *array = calloc(1, sizeof *array);
    sap_status status = schema && array ? SAP_OK : sap_error_set(&err, SAP_EMEMORY, "features");
    if (status == SAP_OK)
        status = sap_schema_export(fields, (int32_t)count, schema, &err);
    if (status == SAP_OK)
        status = sap_batch_export(batch, array, &err);
    if (status != SAP_OK) {
        if (schema && schema->release)
            schema->release(schema);
        free(schema);
        free(array);
        return core_raise(&err);
    }
    PyObject *first = core_schema_capsule(schema), *second = core_array_capsule(array);
    PyObject *pair = first && second ? PyTuple_Pack(2, first, second) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return pair;
}

/* Features and entries, as the recipe makes them. */
static PyObject *give_features(const sap_recipe *recipe, sap_batch *batch) {
    size_t count = recipe->feature_count;
    sap_field number = {.name = "item", .type = SAP_FLOAT32}, *fields = calloc(count + 1, sizeof *fields);
    if (!fields)
        return PyErr_NoMemory();
    for (size_t i = 0; i < count; i++) {
        const sap_feature *f = &recipe->features[i];
        fields[i] = (sap_field){.name = f->name,
                                .type = f->sequence ? SAP_LIST : SAP_FIXED_LIST,
                                .size = f->sequence ? 0 : f->width,
                                .count = 1,
                                .children = &number};
    }
    fields[count] = (sap_field){.name = "entry", .type = SAP_INT64};
    PyObject *pair = give_columns(fields, count + 1, batch);
    free(fields);
    return pair;
}

/* A converter: a path as bytes, or None. */
static int folder_or_none(PyObject *object, void *out) {
    if (object != Py_None)
        return PyUnicode_FSConverter(object, out);
    *(PyObject **)out = Py_NewRef(Py_None);
    return 1;
}

static const char *folder_text(PyObject *folder) {
    return folder == Py_None ? NULL : PyBytes_AsString(folder);
}

/* ---- Recipes and features ------------------------------------------------------------------------------------------ */

typedef struct recipe_object {
    PyObject ob_base;
    PyObject *name; /* bytes */
    const sap_recipe *recipe;
} recipe_object;

typedef struct features_object {
    PyObject ob_base;
    sap_features *features;
    const sap_recipe *recipe;
} features_object;

static void recipe_dealloc(PyObject *self) {
    Py_XDECREF(((recipe_object *)self)->name);
    core_free_object(self);
}

static void features_dealloc(PyObject *self) {
    sap_features_close(((features_object *)self)->features);
    core_free_object(self);
}

/* recipe(name or path, convention or None) -> Recipe */
static PyObject *core_recipe(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *name;
    const char *convention;
    if (!PyArg_ParseTuple(arguments, "O&z", PyUnicode_FSConverter, &name, &convention))
        return NULL;
    recipe_object *self = core_new_object(recipe_type);
    if (!self) {
        Py_DECREF(name);
        return NULL;
    }
    self->name = name;
    sap_error err = {0};
    sap_status status;
    const char *text = PyBytes_AsString(name);
    Py_BEGIN_ALLOW_THREADS status = sap_recipe_find(text, convention, &self->recipe, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* recipe_build(path, object) */
static PyObject *core_recipe_build(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *path, *object;
    if (!PyArg_ParseTuple(arguments, "O&O&", PyUnicode_FSConverter, &path, PyUnicode_FSConverter, &object))
        return NULL;
    sap_error err = {0};
    sap_status status;
    const char *from = PyBytes_AsString(path), *to = PyBytes_AsString(object);
    Py_BEGIN_ALLOW_THREADS status = sap_recipe_build(from, to, &err);
    Py_END_ALLOW_THREADS Py_DECREF(path);
    Py_DECREF(object);
    if (status != SAP_OK)
        return core_raise(&err);
    Py_RETURN_NONE;
}

static PyObject *recipe_json(PyObject *self, PyObject *unused) {
    (void)unused;
    const recipe_object *r = (recipe_object *)self;
    sap_error err = {0};
    char *text = NULL;
    if (sap_recipe_json(PyBytes_AsString(r->name), r->recipe, &text, &err) != SAP_OK)
        return core_raise(&err);
    PyObject *result = PyUnicode_FromString(text);
    free(text);
    return result;
}

/* open(url, tree or None, piece, pieces) -> Features */
static PyObject *recipe_open(PyObject *self, PyObject *arguments) {
    sap_features_options options = {.recipe = ((recipe_object *)self)->recipe};
    PyObject *url;
    long long piece, pieces;
    if (!PyArg_ParseTuple(arguments, "O&zLL", PyUnicode_FSConverter, &url, &options.tree, &piece, &pieces))
        return NULL;
    options.url = PyBytes_AsString(url);
    options.piece = piece;
    options.pieces = pieces;
    features_object *object = core_new_object(features_type);
    sap_error err = {0};
    sap_status status = SAP_OK;
    if (object) {
        object->recipe = options.recipe;
        Py_BEGIN_ALLOW_THREADS status = sap_features_open(&options, NULL, &object->features, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(url);
    if (object && status != SAP_OK) {
        Py_DECREF(object);
        return core_raise(&err);
    }
    return (PyObject *)object;
}

/* compute(schema, array, where) -> (schema, array, dropped) */
static PyObject *recipe_compute(PyObject *self, PyObject *arguments) {
    const sap_recipe *recipe = ((recipe_object *)self)->recipe;
    PyObject *schemas, *arrays;
    const char *where;
    if (!PyArg_ParseTuple(arguments, "OOs", &schemas, &arrays, &where))
        return NULL;
    const struct ArrowSchema *schema = PyCapsule_GetPointer(schemas, "arrow_schema");
    const struct ArrowArray *array = schema ? PyCapsule_GetPointer(arrays, "arrow_array") : NULL;
    int64_t *dropped = array ? calloc(recipe->cut_count + 1, sizeof *dropped) : NULL;
    if (!dropped)
        return array ? PyErr_NoMemory() : NULL;
    sap_batch batch = {0};
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_features_compute(recipe, schema, array, where, NULL, &batch, dropped, &err);
    Py_END_ALLOW_THREADS PyObject *pair = status == SAP_OK ? give_features(recipe, &batch) : core_raise(&err);
    PyObject *counts = pair ? core_numbers(dropped, recipe->cut_count) : NULL;
    PyObject *result = counts ? PyTuple_Pack(2, pair, counts) : NULL;
    Py_XDECREF(pair);
    Py_XDECREF(counts);
    sap_batch_release(&batch);
    free(dropped);
    return result;
}

/* next() -> (schema, array), or None at the end */
static PyObject *features_next(PyObject *self, PyObject *unused) {
    (void)unused;
    features_object *f = (features_object *)self;
    sap_batch batch = {0};
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_features_next(f->features, &batch, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    if (batch.length == 0) {
        sap_batch_release(&batch);
        Py_RETURN_NONE;
    }
    PyObject *pair = give_features(f->recipe, &batch);
    sap_batch_release(&batch);
    return pair;
}

/* counts() -> (read, dropped) */
static PyObject *features_counts(PyObject *self, PyObject *unused) {
    (void)unused;
    const features_object *f = (features_object *)self;
    const int64_t *dropped;
    int64_t read = sap_features_read_entries(f->features, &dropped);
    PyObject *list = core_numbers(dropped, f->recipe->cut_count);
    return list ? Py_BuildValue("(LN)", (long long)read, list) : NULL;
}

/* ---- Packing ---------------------------------------------------------------------------------------------------------- */

typedef struct packer_object {
    PyObject ob_base;
    sap_dataset_packer *packer;
} packer_object;

static void packer_dealloc(PyObject *self) {
    sap_dataset_packer_close(((packer_object *)self)->packer);
    core_free_object(self);
}

/* packer(plan) -> Packer */
static PyObject *core_packer(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *plan;
    if (!PyArg_ParseTuple(arguments, "s", &plan))
        return NULL;
    packer_object *self = core_new_object(packer_type);
    sap_error err = {0};
    if (self && sap_dataset_packer_open(plan, &self->packer, &err) != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* The next batch; *more false: there was none, and the counts are in. */
static sap_status take_batch(sap_dataset_packer *packer, size_t index, sap_features *features, bool *more,
                             sap_error *err) {
    sap_batch batch = {0};
    const int64_t *dropped;
    SAP_TRY(sap_features_next(features, &batch, err));
    *more = batch.length > 0;
    sap_status status = SAP_OK;
    if (*more) {
        status = sap_dataset_pack(packer, index, &batch, err);
    } else {
        int64_t read = sap_features_read_entries(features, &dropped);
        status = sap_dataset_pack_counts(packer, index, read, dropped, err);
    }
    sap_batch_release(&batch);
    return status;
}

/* take(index, features) -> whether there was one more batch to pack */
static PyObject *packer_take(PyObject *self, PyObject *arguments) {
    Py_ssize_t index;
    PyObject *from;
    if (!PyArg_ParseTuple(arguments, "nO!", &index, features_type, &from))
        return NULL;
    sap_dataset_packer *packer = ((packer_object *)self)->packer;
    sap_features *features = ((features_object *)from)->features;
    sap_error err = {0};
    sap_status status;
    bool more = false;
    Py_BEGIN_ALLOW_THREADS status = take_batch(packer, (size_t)index, features, &more, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    return PyBool_FromLong(more);
}

/* add(index, schema, array) */
static PyObject *packer_add(PyObject *self, PyObject *arguments) {
    Py_ssize_t index;
    PyObject *schemas, *arrays;
    if (!PyArg_ParseTuple(arguments, "nOO", &index, &schemas, &arrays))
        return NULL;
    const struct ArrowSchema *schema = PyCapsule_GetPointer(schemas, "arrow_schema");
    const struct ArrowArray *array = schema ? PyCapsule_GetPointer(arrays, "arrow_array") : NULL;
    if (!array)
        return NULL;
    sap_dataset_packer *packer = ((packer_object *)self)->packer;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_dataset_pack_arrow(packer, (size_t)index, schema, array, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    Py_RETURN_NONE;
}

/* count(index, read, dropped) */
static PyObject *packer_count(PyObject *self, PyObject *arguments) {
    Py_ssize_t index;
    long long read;
    PyObject *list;
    if (!PyArg_ParseTuple(arguments, "nLO", &index, &read, &list))
        return NULL;
    Py_ssize_t count = PyList_Size(list);
    int64_t *dropped = count < 0 ? NULL : calloc((size_t)count + 1, sizeof *dropped);
    if (!dropped)
        return count < 0 ? NULL : PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++)
        dropped[i] = PyLong_AsLongLong(PyList_GetItem(list, i));
    sap_error err = {0};
    sap_status status =
        PyErr_Occurred() ? SAP_OK
                         : sap_dataset_pack_counts(((packer_object *)self)->packer, (size_t)index, read, dropped, &err);
    free(dropped);
    if (PyErr_Occurred())
        return NULL;
    if (status != SAP_OK)
        return core_raise(&err);
    Py_RETURN_NONE;
}

/* pieces(last) -> [(bucket, bytes)] */
static PyObject *packer_pieces(PyObject *self, PyObject *arguments) {
    int last;
    if (!PyArg_ParseTuple(arguments, "p", &last))
        return NULL;
    sap_dataset_packer *packer = ((packer_object *)self)->packer;
    PyObject *list = PyList_New(0);
    while (list) {
        int32_t bucket;
        const void *data;
        size_t bytes;
        sap_error err = {0};
        if (sap_dataset_packer_next(packer, last != 0, &bucket, &data, &bytes, &err) != SAP_OK) {
            Py_DECREF(list);
            return core_raise(&err);
        }
        if (bytes == 0)
            break;
        PyObject *item = Py_BuildValue("(iy#)", (int)bucket, (const char *)data, (Py_ssize_t)bytes);
        if (!item || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* ---- One bucket ---------------------------------------------------------------------------------------------------------- */

typedef struct shard_object {
    PyObject ob_base;
    sap_dataset_shard *shard;
} shard_object;

static void shard_dealloc(PyObject *self) {
    sap_dataset_shard_close(((shard_object *)self)->shard);
    core_free_object(self);
}

/* shard(folder or None, plan, bucket) -> Shard */
static PyObject *core_shard(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *folder;
    const char *plan;
    int bucket;
    if (!PyArg_ParseTuple(arguments, "O&si", folder_or_none, &folder, &plan, &bucket))
        return NULL;
    shard_object *self = core_new_object(shard_type);
    sap_error err = {0};
    sap_status status = self ? sap_dataset_shard_open(folder_text(folder), plan, bucket, &self->shard, &err) : SAP_OK;
    Py_DECREF(folder);
    if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* add(address, bytes) */
static PyObject *shard_add(PyObject *self, PyObject *arguments) {
    PyObject *address;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(arguments, "On", &address, &bytes))
        return NULL;
    const void *data = PyLong_AsVoidPtr(address);
    sap_error err = {0};
    if (PyErr_Occurred())
        return NULL;
    if (sap_dataset_shard_add(((shard_object *)self)->shard, data, (size_t)bytes, &err) != SAP_OK)
        return core_raise(&err);
    Py_RETURN_NONE;
}

/* write(constants or None) -> report */
static PyObject *shard_write(PyObject *self, PyObject *arguments) {
    const char *constants;
    if (!PyArg_ParseTuple(arguments, "z", &constants))
        return NULL;
    sap_dataset_shard *shard = ((shard_object *)self)->shard;
    char *report = NULL;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_dataset_shard_write(shard, constants, NULL, &report, &err);
    Py_END_ALLOW_THREADS if (status != SAP_OK) return core_raise(&err);
    PyObject *text = PyUnicode_FromString(report);
    free(report);
    return text;
}

/* ---- The writer ----------------------------------------------------------------------------------------------------------- */

typedef struct writer_object {
    PyObject ob_base;
    sap_dataset_writer *writer; /* NULL: closed */
} writer_object;

static void writer_dealloc(PyObject *self) {
    sap_dataset_writer_close(((writer_object *)self)->writer);
    core_free_object(self);
}

/* dataset_writer(folder or None, plan) -> DatasetWriter */
static PyObject *core_dataset_writer(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *folder;
    const char *plan;
    if (!PyArg_ParseTuple(arguments, "O&s", folder_or_none, &folder, &plan))
        return NULL;
    writer_object *self = core_new_object(writer_type);
    const char *path = folder_text(folder);
    sap_error err = {0};
    sap_status status = SAP_OK;
    if (self) {
        Py_BEGIN_ALLOW_THREADS status = sap_dataset_create_json(path, plan, &self->writer, &err);
        if (status == SAP_OK)
            status = sap_dataset_begin_shards(self->writer, &err);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(folder);
    if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

static sap_dataset_writer *open_writer(PyObject *self) {
    sap_dataset_writer *writer = ((writer_object *)self)->writer;
    if (!writer)
        PyErr_SetString(PyExc_ValueError, "the writer is closed");
    return writer;
}

static PyObject *writer_plan(PyObject *self, PyObject *unused) {
    (void)unused;
    sap_dataset_writer *writer = open_writer(self);
    if (!writer)
        return NULL;
    const char *plan = sap_dataset_plan_json(writer);
    return plan ? PyUnicode_FromString(plan) : PyErr_NoMemory();
}

static PyObject *writer_close(PyObject *self, PyObject *unused) {
    (void)unused;
    sap_dataset_writer_close(((writer_object *)self)->writer);
    ((writer_object *)self)->writer = NULL;
    Py_RETURN_NONE;
}

/* fit(reports) -> constants */
static PyObject *writer_fit(PyObject *self, PyObject *reports) {
    sap_dataset_writer *writer = open_writer(self);
    const char **texts = NULL;
    size_t count = 0;
    if (!writer || !core_texts(reports, false, &texts, &count)) {
        free(texts);
        return NULL;
    }
    char *constants = NULL;
    sap_error err = {0};
    sap_status status = sap_dataset_fit_shards(writer, texts, count, &constants, &err);
    free(texts);
    if (status != SAP_OK)
        return core_raise(&err);
    PyObject *result = PyUnicode_FromString(constants);
    free(constants);
    return result;
}

/* finish(reports) */
static PyObject *writer_finish(PyObject *self, PyObject *reports) {
    sap_dataset_writer *writer = open_writer(self);
    const char **texts = NULL;
    size_t count = 0;
    if (!writer || !core_texts(reports, false, &texts, &count)) {
        free(texts);
        return NULL;
    }
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_dataset_finish_shards(writer, texts, count, &err);
    Py_END_ALLOW_THREADS free(texts);
    if (status != SAP_OK)
        return core_raise(&err);
    Py_RETURN_NONE;
}

/* ---- Scaling and scoring ---------------------------------------------------------------------------------------------------- */

typedef struct scaler_object {
    PyObject ob_base;
    sap_dataset *dataset;
} scaler_object;

typedef struct scorer_object {
    PyObject ob_base;
    sap_scorer *scorer;
} scorer_object;

static void scaler_dealloc(PyObject *self) {
    sap_dataset_close(((scaler_object *)self)->dataset);
    core_free_object(self);
}

static void scorer_dealloc(PyObject *self) {
    sap_scorer_close(((scorer_object *)self)->scorer);
    core_free_object(self);
}

/* scaler(folder that has dataset.json) -> Scaler */
static PyObject *core_scaler(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *folder;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &folder))
        return NULL;
    scaler_object *self = core_new_object(scaler_type);
    sap_error err = {0};
    sap_status status = self ? sap_dataset_open(PyBytes_AsString(folder), &self->dataset, &err) : SAP_OK;
    Py_DECREF(folder);
    if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* scorer(folder of a trained network) -> Scorer */
static PyObject *core_scorer(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *folder;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &folder))
        return NULL;
    scorer_object *self = core_new_object(scorer_type);
    sap_error err = {0};
    sap_status status = self ? sap_scorer_open(PyBytes_AsString(folder), NULL, &self->scorer, &err) : SAP_OK;
    Py_DECREF(folder);
    if (status != SAP_OK) {
        Py_DECREF(self);
        return core_raise(&err);
    }
    return (PyObject *)self;
}

/* scale(schema, array, names, ordered) -> (schema, array), lists of float32 */
static PyObject *scaler_scale(PyObject *self, PyObject *arguments) {
    PyObject *schemas, *arrays, *names, *pair = NULL;
    int ordered;
    if (!PyArg_ParseTuple(arguments, "OOOp", &schemas, &arrays, &names, &ordered))
        return NULL;
    const struct ArrowSchema *schema = PyCapsule_GetPointer(schemas, "arrow_schema");
    const struct ArrowArray *array = schema ? PyCapsule_GetPointer(arrays, "arrow_array") : NULL;
    const char **texts = NULL;
    size_t count = 0;
    if (!array || !core_texts(names, false, &texts, &count)) {
        free(texts);
        return NULL;
    }
    const sap_dataset *dataset = ((scaler_object *)self)->dataset;
    sap_field number = {.name = "item", .type = SAP_FLOAT32}, *fields = calloc(count + 1, sizeof *fields);
    sap_batch batch = {0};
    sap_error err = {0};
    sap_status status = fields ? SAP_OK : sap_error_set(&err, SAP_EMEMORY, "features");
    for (size_t i = 0; i < count && status == SAP_OK; i++)
        fields[i] = (sap_field){.name = texts[i], .type = SAP_LIST, .count = 1, .children = &number};
    if (status == SAP_OK) {
        Py_BEGIN_ALLOW_THREADS status =
            sap_dataset_scale(dataset, schema, array, ordered != 0, texts, count, NULL, &batch, &err);
        Py_END_ALLOW_THREADS
    }
    pair = status == SAP_OK ? give_columns(fields, count, &batch) : core_raise(&err);
    sap_batch_release(&batch);
    free(fields);
    free(texts);
    return pair;
}

/* inputs() -> names of the features that it reads */
static PyObject *scorer_inputs(PyObject *self, PyObject *unused) {
    (void)unused;
    size_t count;
    const char *const *names = sap_scorer_inputs(((scorer_object *)self)->scorer, &count);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(list, name) != 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

/* score(schema, array, ordered) -> bytes of float32 (rows, classes) */
static PyObject *scorer_score(PyObject *self, PyObject *arguments) {
    PyObject *schemas, *arrays;
    int ordered;
    if (!PyArg_ParseTuple(arguments, "OOp", &schemas, &arrays, &ordered))
        return NULL;
    const struct ArrowSchema *schema = PyCapsule_GetPointer(schemas, "arrow_schema");
    const struct ArrowArray *array = schema ? PyCapsule_GetPointer(arrays, "arrow_array") : NULL;
    if (!array)
        return NULL;
    sap_scorer *scorer = ((scorer_object *)self)->scorer;
    size_t count = (size_t)array->length * (size_t)sap_scorer_classes(scorer);
    float *scores = calloc(count + 1, sizeof *scores);
    if (!scores)
        return PyErr_NoMemory();
    sap_error err = {0};
    /* With Python's lock held: a scorer belongs to one thread at a time. */
    sap_status status = sap_scorer_run(scorer, schema, array, ordered != 0, scores, &err);
    PyObject *result = status == SAP_OK
                           ? PyBytes_FromStringAndSize((const char *)scores, (Py_ssize_t)(count * sizeof *scores))
                           : core_raise(&err);
    free(scores);
    return result;
}

/* ---- Files ------------------------------------------------------------------------------------------------------------------ */

/* glob(pattern) -> [bytes] */
static PyObject *core_glob(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *pattern;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &pattern))
        return NULL;
    const char *text = PyBytes_AsString(pattern);
    char **names = NULL;
    size_t count = 0;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_source_glob(text, NULL, &names, &count, &err);
    Py_END_ALLOW_THREADS Py_DECREF(pattern);
    if (status != SAP_OK)
        return core_raise(&err);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *name = PyBytes_FromString(names[i]);
        if (!name || PyList_Append(list, name) != 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    free(names);
    return list;
}

/* file_size(url) -> bytes */
static PyObject *core_file_size(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *url;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &url))
        return NULL;
    const char *text = PyBytes_AsString(url);
    sap_source *source = NULL;
    uint64_t size = 0;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_source_open(text, NULL, &source, &err);
    if (status == SAP_OK)
        size = sap_source_size(source);
    sap_source_close(source);
    Py_END_ALLOW_THREADS Py_DECREF(url);
    return status == SAP_OK ? PyLong_FromUnsignedLongLong(size) : core_raise(&err);
}

/* file_name(url) -> the name in events' identities, bytes */
static PyObject *core_file_name(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *url;
    if (!PyArg_ParseTuple(arguments, "O&", PyUnicode_FSConverter, &url))
        return NULL;
    size_t length;
    const char *name = sap_url_name(PyBytes_AsString(url), &length);
    PyObject *result = PyBytes_FromStringAndSize(name, (Py_ssize_t)length);
    Py_DECREF(url);
    return result;
}

/* ---- The types -------------------------------------------------------------------------------------------------------------- */

static PyMethodDef recipe_methods[] = {
    {"json", recipe_json, METH_NOARGS, "What it reads and makes, as JSON."},
    {"open", recipe_open, METH_VARARGS, "open(url, tree or None, piece, pieces) -> Features"},
    {"compute", recipe_compute, METH_VARARGS, "compute(schema, array, where) -> ((schema, array), dropped)"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef features_methods[] = {
    {"next", features_next, METH_NOARGS, "The next batch as (schema, array) capsules, None at the end."},
    {"counts", features_counts, METH_NOARGS, "(read, dropped)"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef packer_methods[] = {
    {"take", packer_take, METH_VARARGS, "take(index, features) -> whether there was a batch; else the counts are in"},
    {"add", packer_add, METH_VARARGS, "add(index, schema, array)"},
    {"count", packer_count, METH_VARARGS, "count(index, read, dropped)"},
    {"pieces", packer_pieces, METH_VARARGS, "pieces(last) -> [(bucket, bytes)]"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef shard_methods[] = {
    {"add", shard_add, METH_VARARGS, "add(address, bytes)"},
    {"write", shard_write, METH_VARARGS, "write(constants or None) -> report"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef writer_methods[] = {
    {"plan", writer_plan, METH_NOARGS, "The plan as JSON."},
    {"fit", writer_fit, METH_O, "fit(reports) -> constants as JSON"},
    {"finish", writer_finish, METH_O, "finish(reports)"},
    {"close", writer_close, METH_NOARGS, "Lets go of the folder."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef scaler_methods[] = {
    {"scale", scaler_scale, METH_VARARGS, "scale(schema, array, names, ordered) -> (schema, array)"},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef scorer_methods[] = {
    {"inputs", scorer_inputs, METH_NOARGS, "Names of the features that it reads."},
    {"score", scorer_score, METH_VARARGS, "score(schema, array, ordered) -> bytes of float32 (rows, classes)"},
    {NULL, NULL, 0, NULL},
};

#define SPREAD_TYPE(prefix, name)                                                                                      \
    static PyType_Slot prefix##_slots[] = {                                                                            \
        {Py_tp_dealloc, (void *)prefix##_dealloc}, {Py_tp_methods, prefix##_methods}, {0, NULL}};                      \
    static PyType_Spec prefix##_spec = {"sapwood._core." name, sizeof(prefix##_object), 0,                             \
                                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, prefix##_slots}

SPREAD_TYPE(recipe, "Recipe");
SPREAD_TYPE(features, "Features");
SPREAD_TYPE(packer, "Packer");
SPREAD_TYPE(shard, "Shard");
SPREAD_TYPE(writer, "DatasetWriter");
SPREAD_TYPE(scaler, "Scaler");
SPREAD_TYPE(scorer, "Scorer");

bool core_spread_init(void) {
    recipe_type = (PyTypeObject *)PyType_FromSpec(&recipe_spec);
    features_type = (PyTypeObject *)PyType_FromSpec(&features_spec);
    packer_type = (PyTypeObject *)PyType_FromSpec(&packer_spec);
    shard_type = (PyTypeObject *)PyType_FromSpec(&shard_spec);
    writer_type = (PyTypeObject *)PyType_FromSpec(&writer_spec);
    scaler_type = (PyTypeObject *)PyType_FromSpec(&scaler_spec);
    scorer_type = (PyTypeObject *)PyType_FromSpec(&scorer_spec);
    return recipe_type && features_type && packer_type && shard_type && writer_type && scaler_type && scorer_type;
}

PyMethodDef core_spread_functions[] = {
    {"recipe", core_recipe, METH_VARARGS, "recipe(name or path, convention or None) -> Recipe"},
    {"recipe_build", core_recipe_build, METH_VARARGS, "recipe_build(path of a C file, path of the shared object)"},
    {"glob", core_glob, METH_VARARGS, "glob(pattern) -> [bytes]"},
    {"file_size", core_file_size, METH_VARARGS, "file_size(url) -> bytes"},
    {"file_name", core_file_name, METH_VARARGS, "file_name(url) -> bytes"},
    {"packer", core_packer, METH_VARARGS, "packer(plan) -> Packer"},
    {"shard", core_shard, METH_VARARGS, "shard(folder, plan, bucket) -> Shard"},
    {"scaler", core_scaler, METH_VARARGS, "scaler(folder) -> Scaler"},
    {"scorer", core_scorer, METH_VARARGS, "scorer(folder) -> Scorer"},
    {"dataset_writer", core_dataset_writer, METH_VARARGS, "dataset_writer(folder, plan) -> DatasetWriter"},
    {NULL, NULL, 0, NULL},
};
