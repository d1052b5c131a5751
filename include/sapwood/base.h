/* Status codes, error messages, the thread pool and the `sap_run` that every long call takes.
 *
 * Errors. A function that can fail returns `sap_status`, is marked SAP_MUST_CHECK and takes a `sap_error *`
 * last. The error is stored by the caller, may be NULL, and holds one message that says where and what.
 * The library never prints and never exits. There is no thread-local or global error state.
 *
 * Ownership. Opaque handles are opened and closed (`sap_x_open`, `sap_x_close`); values stored by the caller
 * are zeroed or initialised and then released (`sap_x_release`): a zeroed value is empty, and releasing it
 * twice is fine. `**out` is owned by the caller; a returned pointer is borrowed and its comment says until when.
 */
#ifndef SAPWOOD_BASE_H
#define SAPWOOD_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SAP_API __attribute__((visibility("default")))
#define SAP_MUST_CHECK __attribute__((warn_unused_result))
#define SAP_PRINTF(format_index, first_index) __attribute__((format(printf, format_index, first_index)))
#else
#define SAP_API
#define SAP_MUST_CHECK
#define SAP_PRINTF(format_index, first_index)
#endif

typedef enum sap_status {
    SAP_OK = 0,
    SAP_EARGUMENT,    /* the caller asked for something that makes no sense */
    SAP_ENOTFOUND,    /* no such file, object, column, layer */
    SAP_EFORMAT,      /* bytes that do not follow their format */
    SAP_EUNSUPPORTED, /* valid, but this version cannot do it */
    SAP_ETYPE,        /* exists, but has another type or shape than asked for */
    SAP_EIO,          /* the operating system or a server failed: disk full, connection lost */
    SAP_EMEMORY,      /* out of memory, or a limit on memory reached */
    SAP_ECANCELLED,   /* the caller's cancel flag was set */
    SAP_EPLUGIN,      /* an optional part of Sapwood is not installed */
    SAP_EDATA,        /* the data cannot be used: no events selected, a class without events, NaN */
    SAP_EPEER         /* another rank of the same job failed, and says why itself */
} sap_status;

/* A word for a status, such as "not found". Static. */
SAP_API const char *sap_status_name(sap_status status);

/* A message for people. Zero-initialise it: `sap_error error = {0};` */
typedef struct sap_error {
    sap_status status;
    char message[1000];
} sap_error;

/* Writes the message (`err` may be NULL) and returns `status`, so that one can `return sap_error_set(...)`. */
SAP_API sap_status sap_error_set(sap_error *err, sap_status status, const char *format, ...) SAP_PRINTF(3, 4);

#ifdef __clang_analyzer__ /* so that it knows the value */
#define sap_error_set(err, status, ...) ((void)(sap_error_set)(err, status, __VA_ARGS__), (status))
#endif

/* Puts "context: " before the message that `err` holds. Returns the status that it holds. */
SAP_API sap_status sap_error_prefix(sap_error *err, const char *format, ...) SAP_PRINTF(2, 3);

/* Returns from the calling function, which owns nothing yet, when `expression` fails. */
#define SAP_TRY(expression)                                                                                            \
    do {                                                                                                               \
        sap_status sap_try_status_ = (expression);                                                                     \
        if (sap_try_status_ != SAP_OK)                                                                                 \
            return sap_try_status_;                                                                                    \
    } while (0)

/* Threads that decode, compute and train. One pool may serve any number of calls from any number of threads.
 * Its threads block all signals, sleep when idle, and start again by themselves in the child after fork(). */
typedef struct sap_pool sap_pool;

/* threads: how many run at once, the calling thread among them; 0: one for each core that this process may use. */
SAP_API SAP_MUST_CHECK sap_status sap_pool_open(int threads, sap_pool **out, sap_error *err);
SAP_API void sap_pool_close(sap_pool *pool);
SAP_API int sap_pool_threads(const sap_pool *pool); /* 1 for NULL */

/* How far a long call has come. Strings are borrowed for the time of the call-back. */
typedef struct sap_progress {
    const char *stage; /* "prepare", "train", … */
    const char *unit;  /* what is counted: "events", "samples", … */
    uint64_t done;
    uint64_t total;      /* 0: not known */
    const char *message; /* a line for the log such as an epoch's losses, or NULL */
} sap_progress;

/* What a long call runs with. Zeroed, or a NULL pointer in its place: one thread, silent, not cancellable. */
typedef struct sap_run {
    sap_pool *pool;                                                /* borrowed; NULL: the calling thread only */
    void (*progress)(void *context, const sap_progress *progress); /* called from one thread at a time */
    void *context;
    const volatile int *cancel; /* when it becomes non-zero the call ends with SAP_ECANCELLED; a signal handler may
                                   set it, or another thread (atomically) */
} sap_run;

/* "0.1.0" of the library that is running, and its plug-ins as one line each of `name<TAB>state`, where state begins
 * with "yes" or "no". Static. */
SAP_API const char *sap_version(void);
SAP_API const char *sap_version_parts(void);

#ifdef __cplusplus
}
#endif
#endif
