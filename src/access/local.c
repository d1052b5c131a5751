/* Local files and folders. Files are mapped where the file system is a local one, else read with pread. A file that another process cuts short is an
 * error: with pread always, with a mapping unless it happens between the look at its size and the use of the bytes. */
#include "access_internal.h"

#include <dirent.h>
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
    char path[];          /* of a file that is made; descriptor: -1 when it has been closed */
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
    if (file->descriptor >= 0)
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

/* ---- Names -------------------------------------------------------------------------------------------------------- */

/* What the system refuses for a reason that lies with the caller. */
static sap_status refuse(sap_error *err, const char *what) {
    switch (errno) {
    case EEXIST:
    case ENOTEMPTY:
    case EISDIR:
    case ENOTDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case EXDEV:
        return sap_error_set(err, SAP_EARGUMENT, "%s: %s", what, strerror(errno));
    default:
        return sap_error_errno(err, what);
    }
}

static sap_file_info info_of(const struct stat *info, const char *name) {
    return (sap_file_info){name, (uint64_t)info->st_size, (int64_t)info->st_mtime, S_ISDIR(info->st_mode)};
}

static sap_status local_stat(const char *path, const sap_access_settings *settings, const sap_run *run,
                             sap_file_info *out, sap_error *err) {
    (void)settings;
    (void)run;
    struct stat info;
    if (stat(path, &info) != 0)
        return refuse(err, path);
    *out = info_of(&info, NULL);
    return SAP_OK;
}

static sap_status local_list(const char *path, const sap_access_settings *settings, const sap_run *run,
                             sap_list_step step, void *context, sap_error *err) {
    (void)settings;
    DIR *folder = opendir(path);
    if (!folder)
        return refuse(err, path);
    sap_status status = SAP_OK;
    struct dirent *entry;
    while (status == SAP_OK && (entry = readdir(folder))) {
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(folder), entry->d_name, &info, 0) != 0) /* a link that leads nowhere, or it has gone */
            continue;
        const sap_file_info found = info_of(&info, entry->d_name);
        status = step(context, &found, err);
        if (status == SAP_OK)
            status = sap_run_check(run, err);
    }
    closedir(folder);
    return status;
}

static sap_status local_rename(const char *from, const char *to, bool replace, const sap_access_settings *settings,
                               const sap_run *run, sap_error *err) {
    (void)settings;
    (void)run;
    int result = renameat2(AT_FDCWD, from, AT_FDCWD, to, replace ? 0 : RENAME_NOREPLACE);
    if (result != 0 && errno == EINVAL && !replace) { /* a file system that cannot look and rename at once */
        struct stat info;
        errno = EEXIST;
        result = lstat(to, &info) == 0 ? -1 : rename(from, to);
    }
    if (result == 0)
        return SAP_OK;
    return refuse(err, errno == EEXIST || errno == ENOTEMPTY || errno == EISDIR ? to : from);
}

static sap_status local_remove(const char *path, bool is_folder, const sap_access_settings *settings,
                               const sap_run *run, sap_error *err) {
    (void)settings;
    (void)run;
    struct stat info; /* of the link, if it is one: what it leads to stays */
    is_folder = is_folder && lstat(path, &info) == 0 && S_ISDIR(info.st_mode);
    return (is_folder ? rmdir(path) : unlink(path)) == 0 ? SAP_OK : refuse(err, path);
}

static sap_status local_remove_tree(const char *path, sap_error *err) {
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISDIR(info.st_mode))
        return unlink(path) == 0 ? SAP_OK : refuse(err, path);
    return sap_folder_remove(path, err);
}

static sap_status local_make_folder(const char *path, const sap_access_settings *settings, const sap_run *run,
                                    sap_error *err) {
    (void)settings;
    (void)run;
    return sap_folder_make(path, err);
}

/* ---- Writing ------------------------------------------------------------------------------------------------------- */

static sap_status local_create(const char *path, const sap_access_settings *settings, const sap_run *run, void **state,
                               sap_error *err) {
    const char *slash = strrchr(path, '/');
    local_file *file = calloc(1, sizeof *file + strlen(path) + 1);
    if (!file)
        return sap_error_memory(err, path);
    memcpy(file->path, path, strlen(path) + 1);
    sap_status status = SAP_OK;
    if (slash && slash > path) {
        file->path[slash - path] = '\0';
        status = local_make_folder(file->path, settings, run, err);
        file->path[slash - path] = '/';
    }
    if (status == SAP_OK) {
        file->descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        status = file->descriptor >= 0 ? SAP_OK : refuse(err, path);
    }
    if (status != SAP_OK)
        free(file);
    else
        *state = file;
    return status;
}

static sap_status local_append(void *state, const char *name, const void *data, size_t length, sap_error *err) {
    const local_file *file = state;
    return sap_descriptor_write(file->descriptor, data, length) ? SAP_OK : sap_error_errno(err, name);
}

static sap_status local_finish(void *state, const char *name, const sap_access_settings *settings, const sap_run *run,
                               sap_error *err) {
    (void)settings;
    local_file *file = state;
    SAP_TRY(sap_run_check(run, err));
    if (fsync(file->descriptor) != 0 && errno != EINVAL)
        return sap_error_errno(err, name);
    int result = close(file->descriptor);
    file->descriptor = -1;
    return result == 0 ? SAP_OK : sap_error_errno(err, name);
}

static void local_discard(void *state) {
    local_file *file = state;
    (void)unlink(file->path);
    local_close(file);
}

const sap_transport sap_transport_local = {.open = local_open,
                                           .close = local_close,
                                           .read = local_read,
                                           .map = local_map,
                                           .list = local_list,
                                           .stat = local_stat,
                                           .rename = local_rename,
                                           .remove = local_remove,
                                           .remove_tree = local_remove_tree,
                                           .make_folder = local_make_folder,
                                           .create = local_create,
                                           .append = local_append,
                                           .finish = local_finish,
                                           .discard = local_discard};
