/* Local files: mapped where the file system is a local one, else read with pread. A file that another process cuts short is an
 * error: with pread always, with a mapping unless it happens between the look at its size and the use of the bytes. */
#include "access_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

typedef struct local_file {
    int descriptor;
    uint64_t size;
    const uint8_t *bytes; /* of the whole file; NULL: not mapped */
    atomic_size_t given;  /* mapped bytes asked for since the last time that they were let go */
} local_file;

/* Network file systems (NFS, AFS, Lustre, FUSE with EOS or CVMFS behind it) turn a lost server into SIGBUS: no mapping there. */
static bool is_local_system(int descriptor) {
    static const unsigned long systems[] = {EXT4_SUPER_MAGIC,     0x58465342 /* xfs */,  BTRFS_SUPER_MAGIC,
                                            TMPFS_MAGIC,          OVERLAYFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
                                            0x2fc12fc1 /* zfs */, SQUASHFS_MAGIC,        RAMFS_MAGIC};
    struct statfs info;
    if (fstatfs(descriptor, &info) != 0)
        return false;
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        if ((unsigned long)info.f_type == systems[i])
            return true;
    }
    return false;
}

static sap_status local_open(const char *path, const sap_access_settings *settings, const sap_run *run, void **state,
                             uint64_t *size, char **version, sap_error *err) {
    (void)run;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would block */
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
    file->size = (uint64_t)info.st_size;
    if (settings->map && file->size > 0 && file->size <= SIZE_MAX / 2 && is_local_system(descriptor)) {
        void *bytes = mmap(NULL, (size_t)file->size, PROT_READ, MAP_SHARED, descriptor, 0);
        file->bytes = bytes != MAP_FAILED ? bytes : NULL; /* else it is read */
    }
    *size = file->size;
    *version = NULL;
    *state = file;
    return SAP_OK;
}

static void local_close(void *state) {
    local_file *file = state;
    if (file->bytes)
        munmap((void *)(uintptr_t)file->bytes, (size_t)file->size);
    close(file->descriptor);
    free(file);
}

/* What was looked at stays in the process's memory, though it is the page cache's, until it is let go: now and then all of it, for
 * what is still in use comes back by itself. */
static void let_go(local_file *file, size_t length) {
    enum { MOST = 64 << 20 };
    if (atomic_fetch_add_explicit(&file->given, length, memory_order_relaxed) + length <= MOST)
        return;
    atomic_store_explicit(&file->given, 0, memory_order_relaxed);
    (void)madvise((void *)(uintptr_t)file->bytes, (size_t)file->size, MADV_DONTNEED);
}

static const uint8_t *local_map(void *state, uint64_t offset, size_t length) {
    local_file *file = state;
    struct stat info;
    if (!file->bytes || fstat(file->descriptor, &info) != 0 || (uint64_t)info.st_size < offset + length)
        return NULL;
    let_go(file, length);
    return file->bytes + offset;
}

static sap_status local_read(void *state, const char *name, const sap_range *ranges, size_t count, sap_error *err) {
    const local_file *file = state;
    for (size_t i = 0; i < count; i++) {
        size_t done = sap_descriptor_read(file->descriptor, ranges[i].data, ranges[i].length, ranges[i].offset);
        if (done < ranges[i].length && errno)
            return sap_error_errno(err, name);
        if (done < ranges[i].length)
            return sap_error_set(err, SAP_EIO, "%s @0x%llx: the file has become shorter while it was read", name,
                                 (unsigned long long)(ranges[i].offset + done));
    }
    return SAP_OK;
}

const sap_transport sap_transport_local = {
    .open = local_open, .close = local_close, .read = local_read, .map = local_map};
