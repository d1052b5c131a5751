/* Files in memory that are opened by a path, as cheap as a file can be. */
#ifndef SAP_TEST_MEMORY_FILE_H
#define SAP_TEST_MEMORY_FILE_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Zeroed is none yet. */
typedef struct memory_file {
    int descriptor;
    char path[40];
} memory_file;

/* The file holds these bytes and no others; returns its path. */
static inline const char *memory_file_store(memory_file *file, const void *data, size_t size) {
    if (!file->path[0]) {
        file->descriptor = memfd_create("input", MFD_CLOEXEC);
        (void)snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->descriptor);
    }
    int failed = ftruncate(file->descriptor, (off_t)size);
    for (size_t done = 0; !failed && done < size;) {
        ssize_t n = pwrite(file->descriptor, (const char *)data + done, size - done, (off_t)done);
        failed = n <= 0;
        done += failed ? 0 : (size_t)n;
    }
    if (failed) {
        perror("memory file");
        abort();
    }
    return file->path;
}

#endif
