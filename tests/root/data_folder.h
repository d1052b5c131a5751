/* Where the data for tests are: SAPWOOD_DATA, else beside the source folder. Tests skip what is not there. */
#ifndef SAP_TEST_DATA_FOLDER_H
#define SAP_TEST_DATA_FOLDER_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Path of a file of the data folder, or NULL after saying that it is missing. */
static inline const char *data_path(const char *name, char *out, size_t capacity) {
    const char *folder = getenv("SAPWOOD_DATA"), *source = getenv("SAPWOOD_SOURCE");
    if (folder)
        (void)snprintf(out, capacity, "%s/%s", folder, name);
    else
        (void)snprintf(out, capacity, "%s/../shared/data/%s", source ? source : ".", name);
    if (access(out, R_OK) == 0)
        return out;
    (void)fprintf(stderr, "skipped: no %s\n", out);
    return NULL;
}

#endif
