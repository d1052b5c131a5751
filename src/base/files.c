/* Small files and folders: whole or not at all. */
#include "base_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

sap_status sap_file_load(const char *path, size_t limit, char **out, size_t *length, sap_error *err) {
    sap_status status = SAP_OK;
    char *data = NULL;
    size_t used = 0, capacity = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sap_error_errno(err, path);
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = sap_error_errno(err, path);
        goto done;
    }
    if (S_ISDIR(info.st_mode)) {
        status = sap_error_set(err, SAP_EARGUMENT, "%s: is a folder, not a file", path);
        goto done;
    }
    if (info.st_size > 0 && (uint64_t)info.st_size > limit) {
        status = sap_error_set(err, SAP_EFORMAT, "%s: larger than %zu bytes", path, limit);
        goto done;
    }
    for (;;) {
        if (used + 1 >= capacity) { /* always room for the terminating zero */
            capacity = data ? capacity * 2 : (size_t)info.st_size + 2;
            char *grown = realloc(data, capacity);
            if (!grown) {
                status = sap_error_memory(err, path);
                goto done;
            }
            data = grown;
        }
        ssize_t got = read(fd, data + used, capacity - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            status = sap_error_errno(err, path);
            goto done;
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (used > limit) {
            status = sap_error_set(err, SAP_EFORMAT, "%s: larger than %zu bytes", path, limit);
            goto done;
        }
    }
    data[used] = '\0';
    *out = data;
    if (length)
        *length = used;
    data = NULL;
done:
    free(data);
    close(fd);
    return status;
}

size_t sap_descriptor_read(int descriptor, void *data, size_t length, uint64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(descriptor, (char *)data + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = 0;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

bool sap_descriptor_write(int descriptor, const void *data, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t put = write(descriptor, (const char *)data + done, length - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put == 0)
            errno = EIO;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

/* Brings a new name in a folder to disk, where the file system can: else a crash of the machine might take it back. */
static void sync_folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

sap_status sap_file_store(const char *path, const void *data, size_t length, sap_error *err) {
    sap_text aside = {0};
    sap_text_add(&aside, "%s.partial", path);
    if (aside.failed) {
        sap_text_release(&aside);
        return sap_error_memory(err, path);
    }
    sap_status status = SAP_OK;
    int fd = open(aside.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = sap_error_errno(err, aside.data);
    } else {
        status = sap_descriptor_write(fd, data, length) ? SAP_OK : sap_error_errno(err, aside.data);
        if (status == SAP_OK && fsync(fd) != 0 && errno != EINVAL)
            status = sap_error_errno(err, aside.data);
        if (close(fd) != 0 && status == SAP_OK)
            status = sap_error_errno(err, aside.data);
        if (status == SAP_OK && rename(aside.data, path) != 0)
            status = sap_error_errno(err, path);
        if (status != SAP_OK)
            (void)unlink(aside.data);
        if (status == SAP_OK)
            sync_folder_of(path);
    }
    sap_text_release(&aside);
    return status;
}

sap_status sap_folder_make(const char *path, sap_error *err) {
    char *copy = strdup(path);
    if (!copy)
        return sap_error_memory(err, path);
    sap_status status = SAP_OK;
    for (char *p = copy + 1; status == SAP_OK; p++) {
        char here = *p;
        if (here != '/' && here != '\0')
            continue;
        *p = '\0';
        struct stat info;
        if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && stat(copy, &info) == 0 && S_ISDIR(info.st_mode)))
            status = sap_error_errno(err, copy);
        *p = here;
        if (here == '\0')
            break;
    }
    free(copy);
    return status;
}

sap_status sap_folder_remove(const char *path, sap_error *err) {
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? SAP_OK : sap_error_errno(err, path);
    sap_status status = SAP_OK;
    struct dirent *entry;
    while (status == SAP_OK && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        sap_text child = {0};
        sap_text_add(&child, "%s/%s", path, entry->d_name);
        struct stat info;
        if (child.failed)
            status = sap_error_memory(err, path);
        else if (lstat(child.data, &info) == 0 && S_ISDIR(info.st_mode))
            status = sap_folder_remove(child.data, err);
        else if (unlink(child.data) != 0)
            status = sap_error_errno(err, child.data);
        sap_text_release(&child);
    }
    closedir(folder);
    if (status == SAP_OK && rmdir(path) != 0)
        status = sap_error_errno(err, path);
    return status;
}

/* A folder can be synced through a descriptor that was opened for reading, as a file can. */
static sap_status sync_path(const char *path, sap_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sap_error_errno(err, path);
    sap_status status = fsync(fd) != 0 && errno != EINVAL ? sap_error_errno(err, path) : SAP_OK;
    close(fd);
    return status;
}

sap_status sap_folder_sync(const char *path, sap_error *err) {
    DIR *folder = opendir(path);
    if (!folder)
        return sap_error_errno(err, path);
    sap_status status = SAP_OK;
    struct dirent *entry;
    while (status == SAP_OK && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        sap_text child = {0};
        sap_text_add(&child, "%s/%s", path, entry->d_name);
        struct stat info;
        if (child.failed)
            status = sap_error_memory(err, path);
        else if (lstat(child.data, &info) == 0 && S_ISDIR(info.st_mode))
            status = sap_folder_sync(child.data, err);
        else
            status = sync_path(child.data, err);
        sap_text_release(&child);
    }
    closedir(folder);
    return status == SAP_OK ? sync_path(path, err) : status;
}

bool sap_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}
