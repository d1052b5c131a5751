/* What the files of the binding share. */
#ifndef SAP_PYTHON_CORE_H
#define SAP_PYTHON_CORE_H

#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sapwood/sapwood.h>

/* Converters for "O&". Names in a file that are not UTF-8 are Latin-1, as on the command line; a message may quote such names, and
 * may be cut off inside a character. */
PyObject *core_name(void *text);
PyObject *core_message(void *text);

/* A list of numbers; NULL with an exception set. */
PyObject *core_numbers(const int64_t *numbers, size_t count);
/* A table of the texts of a list of str, or of bytes; the strings stay the list's. The caller frees `*out`, after a failure too; false
 * with an exception set. */
bool core_texts(PyObject *list, bool bytes, const char ***out, size_t *count);

/* Capsules "arrow_schema", "arrow_array" of what was malloc'ed, which becomes theirs, also when NULL is returned with an exception set. */
PyObject *core_schema_capsule(struct ArrowSchema *schema);
PyObject *core_array_capsule(struct ArrowArray *array);

/* Raises what `err` says, with the attribute `status`. Returns NULL. */
PyObject *core_raise(const sap_error *err);

/* sapwood._core.Tree; its file and its friends are kept open by it. */
typedef struct tree_object {
    PyObject ob_base;
    PyObject *file;
    PyObject *friends; /* a list, or NULL */
    sap_tree *tree;
} tree_object;
extern PyTypeObject *core_tree_type;

/* ---- Long calls (_jobs.c) -------------------------------------------------------------------------------------- */

typedef sap_status (*core_work)(void *context, const sap_run *run, sap_error *err);

/* Runs work(context) on a thread of its own, with a pool of so many threads, while this one looks for signals and tells `callback`
 * (or None) how far it is. 0, or -1 with an exception set. */
int core_run(core_work work, void *context, int threads, PyObject *callback);
/* The same with a pool that there is. */
int core_run_pool(core_work work, void *context, sap_pool *pool, PyObject *callback);

extern PyMethodDef core_job_functions[];

/* ---- Selections, export, comparison (_tables.c) ------------------------------------------------------------------ */

extern PyMethodDef core_table_functions[];

/* ---- Events that Python holds (_events.c) ------------------------------------------------------------------------ */

extern PyMethodDef core_event_functions[];

/* ---- Networks (_nn.c) ---------------------------------------------------------------------------------------------- */

extern PyMethodDef core_nn_functions[];
/* Makes the types; false with an exception set. */
bool core_nn_init(void);

/* ---- Features and datasets by many processes (_spread.c) ---------------------------------------------------------- */

extern PyMethodDef core_spread_functions[];
bool core_spread_init(void);

/* ---- Tables of many files, in parts (_table_reader.c) ------------------------------------------------------------- */

extern PyMethodDef core_table_reader_functions[];
bool core_table_reader_init(void);

/* For objects of heap types: memory for one, and giving it back with the hold on the type. */
void *core_new_object(PyTypeObject *type);
void core_free_object(PyObject *self);

#endif
