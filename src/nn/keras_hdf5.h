/* Inside the plug-in "keras": HDF5 files in memory. One call at a time: HDF5 is not safe for threads. */
#ifndef SAP_KERAS_HDF5_H
#define SAP_KERAS_HDF5_H

#include "keras_file.h"

#define SAP_KERAS_CONFIG_MOST (UINT64_C(64) << 20) /* bytes of JSON */

/* The arrays of a model.weights.h5. data: may be written to. */
SAP_MUST_CHECK sap_status sap_hdf5_read_weights(const char *name, char *data, size_t length, sap_arena *arena,
                                                sap_keras_file *out, sap_error *err);
/* Groups and arrays as a model.weights.h5; *image is freed by the caller with free(). */
SAP_MUST_CHECK sap_status sap_hdf5_write_weights(const char *name, const sap_keras_file *file, void **image,
                                                 size_t *length, sap_error *err);

/* Without the library (hdf5_classic.c). Whether data is HDF5 in the form that h5py writes: */
bool sap_hdf5_is_classic(const void *data, size_t length);
/* Its arrays. */
SAP_MUST_CHECK sap_status sap_hdf5_read_classic(const char *name, const void *data, size_t length, sap_arena *arena,
                                                sap_keras_file *out, sap_error *err);
/* A whole model of Keras 1 or 2 (or of Keras 3 in that format). */
SAP_MUST_CHECK sap_status sap_hdf5_read_model(const char *name, const void *data, size_t length, sap_arena *arena,
                                              sap_keras_file *out, sap_error *err);

#endif
