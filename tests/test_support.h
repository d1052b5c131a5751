/* What all tests use: cmocka with its headers in order, and the sample data when it is there. */
#ifndef SAP_TEST_SUPPORT_H
#define SAP_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sapwood/base.h>

/* Fails with the message of the error. */
#define assert_ok(expression)                                                                                          \
    do {                                                                                                               \
        sap_error err_ = {0};                                                                                          \
        sap_error *err = &err_;                                                                                        \
        sap_status status_ = (expression);                                                                             \
        if (status_ != SAP_OK)                                                                                         \
            fail_msg("%s: %s (%s)", #expression, err_.message, sap_status_name(status_));                              \
    } while (0)

/* The expression must fail with that status, and its message must hold `text`. */
#define assert_error(expected, text, expression)                                                                       \
    do {                                                                                                               \
        sap_error err_ = {0};                                                                                          \
        sap_error *err = &err_;                                                                                        \
        sap_status status_ = (expression);                                                                             \
        if (status_ != (expected) || !strstr(err_.message, text))                                                      \
            fail_msg("%s: got %s: \"%s\", expected %s with \"%s\"", #expression, sap_status_name(status_),             \
                     err_.message, sap_status_name(expected), text);                                                   \
    } while (0)

/* A new empty folder under TMPDIR, removed by nobody. */
static inline const char *new_folder(char *out, size_t capacity) {
    const char *base = getenv("TMPDIR");
    (void)snprintf(out, capacity, "%s/sapwood-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(out);
}

#endif
