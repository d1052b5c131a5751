/* Where events stand that Python holds, and constants of their features (sapwood/dataset.h). Arrays come as addresses; the caller
 * sees to their types and lengths. */
#include "_core.h"

#include <string.h>

static void *address(unsigned long long number) {
    return (void *)(uintptr_t)number;
}

/* event_places(count, samples' offsets and bytes, files' offsets and bytes, entries, seed, test_fraction, order, test); offsets and entries
 * are int64, order is uint64, test is bool */
static PyObject *event_places(PyObject *module, PyObject *arguments) {
    (void)module;
    long long count;
    unsigned long long at[5], seed, order, test;
    double fraction;
    if (!PyArg_ParseTuple(arguments, "LKKKKKKdKK", &count, &at[0], &at[1], &at[2], &at[3], &at[4], &seed, &fraction,
                          &order, &test))
        return NULL;
    sap_event_names names = {.count = count,
                             .sample_offsets = address(at[0]),
                             .samples = address(at[1]),
                             .file_offsets = address(at[2]),
                             .files = address(at[3]),
                             .entry = address(at[4])};
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_event_places(&names, seed, fraction, address(order), address(test), &err);
    Py_END_ALLOW_THREADS return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

/* event_moments(values, rows, width, out): float32 (rows, width), float64 (4, width) */
static PyObject *event_moments(PyObject *module, PyObject *arguments) {
    (void)module;
    unsigned long long values, out;
    long long rows;
    int width;
    if (!PyArg_ParseTuple(arguments, "KLiK", &values, &rows, &width, &out))
        return NULL;
    sap_error err = {0};
    sap_status status;
    Py_BEGIN_ALLOW_THREADS status = sap_event_moments(address(values), rows, width, address(out), &err);
    Py_END_ALLOW_THREADS return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

/* event_constants(scaling, rows, moments, count, width, shift, factor): int64 (count), float64 (count, 4, width), (width), (width) */
static PyObject *event_constants(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *scaling;
    unsigned long long rows, moments, shift, factor;
    long long count;
    int width;
    if (!PyArg_ParseTuple(arguments, "sKKLiKK", &scaling, &rows, &moments, &count, &width, &shift, &factor))
        return NULL;
    sap_scaling kind = strcmp(scaling, "minmax") == 0     ? SAP_SCALING_MINMAX
                       : strcmp(scaling, "standard") == 0 ? SAP_SCALING_STANDARD
                                                          : SAP_SCALING_NONE;
    sap_error err = {0};
    sap_status status = sap_event_constants(kind, address(rows), address(moments), (size_t)count, width, address(shift),
                                            address(factor), &err);
    return status == SAP_OK ? Py_NewRef(Py_None) : core_raise(&err);
}

PyMethodDef core_event_functions[] = {
    {"event_places", event_places, METH_VARARGS, "Order hashes, and who is in the test part."},
    {"event_moments", event_moments, METH_VARARGS, "Minimum, maximum, mean, squares."},
    {"event_constants", event_constants, METH_VARARGS, "Shift and factor from moments."},
    {NULL, NULL, 0, NULL},
};
