/* Status codes, error messages and the version. */
#include "base_internal.h"

#include <errno.h>

#undef sap_error_set
#undef sap_error_memory

const char *sap_status_name(sap_status status) {
    static const char *const names[] = {"ok",          "bad argument", "not found",     "bad format",
                                        "unsupported", "wrong type",   "input/output",  "out of memory",
                                        "cancelled",   "not built in", "unusable data", "another rank failed"};
    size_t index = (size_t)status;
    return index < sizeof names / sizeof *names ? names[index] : "unknown status";
}

sap_status sap_error_set(sap_error *err, sap_status status, const char *format, ...) {
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        err->status = status;
        (void)vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

sap_status sap_error_prefix(sap_error *err, const char *format, ...) {
    if (!err)
        return SAP_EARGUMENT;
    char before[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(before, sizeof before, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length + 2 < sizeof before) {
        size_t room = sizeof err->message - (size_t)length - 2;
        size_t old = strnlen(err->message, room - 1);
        memmove(err->message + length + 2, err->message, old);
        err->message[(size_t)length + 2 + old] = '\0';
        memcpy(err->message, before, (size_t)length);
        memcpy(err->message + length, ": ", 2);
    }
    return err->status;
}

sap_status sap_error_memory(sap_error *err, const char *what) {
    return sap_error_set(err, SAP_EMEMORY, "%s: out of memory", what);
}

sap_status sap_error_errno(sap_error *err, const char *what) {
    int number = errno;
    sap_status status = number == ENOENT ? SAP_ENOTFOUND : number == ENOMEM ? SAP_EMEMORY : SAP_EIO;
    return sap_error_set(err, status, "%s: %s", what, strerror(number));
}

const char *sap_version(void) {
    return SAPWOOD_VERSION;
}
