/* Local files, read with pread: a file that another process cuts short is an error, where a mapping would raise SIGBUS. */
#include "access_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct local_file {
    int descriptor;
} local_file;

static sap_status local_open(const char *path, const sap_access_settings *settings, void **state, uint64_t *size,
                             char **version, sap_error *err) {
    (void)settings;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return sap_error_errno(err, path);
    struct stat info;
    if (fstat(descriptor, &info) != 0) {
        sap_status status = sap_error_errno(err, path);
        close(descriptor);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(descriptor);
        return sap_error_set(err, SAP_EARGUMENT, "%s: %s", path,
                             S_ISDIR(info.st_mode) ? "is a folder" : "is not a regular file");
    }
    local_file *file = calloc(1, sizeof *file);
    if (!file) {
        close(descriptor);
        return sap_error_memory(err, path);
    }
    file->descriptor = descriptor;
    *size = (uint64_t)info.st_size;
    *version = NULL;
    *state = file;
    return SAP_OK;
}

static void local_close(void *state) {
    local_file *file = state;
    close(file->descriptor);
    free(file);
}

static sap_status local_read(void *state, const char *name, const sap_range *ranges, size_t count, sap_error *err) {
    const local_file *file = state;
    for (size_t i = 0; i < count; i++) {
        size_t done = 0;
        while (done < ranges[i].length) {
            ssize_t n = pread(file->descriptor, (char *)ranges[i].data + done, ranges[i].length - done,
                              (off_t)(ranges[i].offset + done));
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return sap_error_errno(err, name);
            if (n == 0)
                return sap_error_set(err, SAP_EIO, "%s @0x%llx: the file has become shorter while it was read", name,
                                     (unsigned long long)(ranges[i].offset + done));
            done += (size_t)n;
        }
    }
    return SAP_OK;
}

const sap_transport sap_transport_local = {.open = local_open, .close = local_close, .read = local_read};
