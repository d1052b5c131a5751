/* The cache of remote files on disk: FOLDER/<hash of URL, size and version>/<number of the block>, each file a header of 16
 * bytes and the block. A block is written aside and renamed; what is not sound when it is read is removed and fetched again. */
#include "access_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TOUCH_SECONDS = 3600, PATH_BYTES = 4096 };

typedef struct header {
    uint64_t length; /* in this machine's byte order: a cache of another one does not fit, and is fetched again */
    uint64_t hash;   /* of the block, with the file's key and the block's number as seed */
} header;

struct sap_cache {
    char *folder; /* of this file */
    char *root;   /* of all */
    uint64_t limit;
    uint64_t key;
};

sap_status sap_cache_open(const sap_access_settings *settings, const char *name, uint64_t size, const char *version,
                          sap_cache **out, sap_error *err) {
    if (!version) /* how would one know that the file has changed? */
        return SAP_OK;
    sap_cache *cache = calloc(1, sizeof *cache);
    sap_text identity = {0}, folder = {0};
    sap_text_add(&identity, "%s\n%llu\n%s", name, (unsigned long long)size, version);
    if (!cache || identity.failed) {
        free(cache);
        sap_text_release(&identity);
        return sap_error_memory(err, name);
    }
    cache->key = sap_hash(identity.data, identity.length, 0);
    sap_text_add(&folder, "%s/%016llx%016llx", settings->cache, (unsigned long long)cache->key,
                 (unsigned long long)sap_hash(identity.data, identity.length, 1));
    sap_text_release(&identity);
    cache->folder = folder.data;
    cache->root = strdup(settings->cache);
    cache->limit = settings->cache_bytes;
    sap_status status =
        folder.failed || !cache->root ? sap_error_memory(err, name) : sap_folder_make(cache->folder, err);
    if (status == SAP_OK) {
        *out = cache;
        return SAP_OK;
    }
    sap_cache_close(cache);
    return sap_error_prefix(err, "SAPWOOD_CACHE");
}

void sap_cache_close(sap_cache *cache) {
    if (!cache)
        return;
    free(cache->folder);
    free(cache->root);
    free(cache);
}

static void block_path(const sap_cache *cache, uint64_t index, char *out) {
    (void)snprintf(out, PATH_BYTES, "%s/%llx", cache->folder, (unsigned long long)index);
}

static uint64_t block_hash(const sap_cache *cache, uint64_t index, const void *data, size_t length) {
    return sap_hash(data, length, sap_mix(cache->key, index));
}

/* ---- Reading and writing ------------------------------------------------------------------------------------------- */

bool sap_cache_read(const sap_cache *cache, uint64_t index, void *data, size_t length) {
    char path[PATH_BYTES];
    struct stat info;
    header head;
    block_path(cache, index, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool sound = fstat(fd, &info) == 0 && info.st_size == (off_t)(sizeof head + length) &&
                 sap_descriptor_read(fd, &head, sizeof head, 0) == sizeof head && head.length == length &&
                 sap_descriptor_read(fd, data, length, sizeof head) == length &&
                 head.hash == block_hash(cache, index, data, length);
    if (!sound)
        (void)unlink(path);
    else if (info.st_mtime + TOUCH_SECONDS < time(NULL)) /* used: not the first to go */
        (void)futimens(fd, NULL);
    close(fd);
    return sound;
}

static void make_room(const sap_cache *cache, uint64_t written);

void sap_cache_write(sap_cache *cache, uint64_t index, const void *data, size_t length) {
    static unsigned counter;
    char path[PATH_BYTES], aside[PATH_BYTES + 64];
    header head = {length, block_hash(cache, index, data, length)};
    block_path(cache, index, path);
    (void)snprintf(aside, sizeof aside, "%s.%ld.%u", path, (long)getpid(),
                   __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
    int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT && sap_folder_make(cache->folder, NULL) == SAP_OK) /* somebody tidied up */
        fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    bool well = sap_descriptor_write(fd, &head, sizeof head) && sap_descriptor_write(fd, data, length);
    well = close(fd) == 0 && well;
    if (!well || rename(aside, path) != 0)
        (void)unlink(aside);
    else
        make_room(cache, sizeof head + length);
}

/* ---- Making room ----------------------------------------------------------------------------------------------------- */

typedef struct entry {
    struct timespec used;
    uint64_t bytes;
    char path[96]; /* below the root: 32 + 1 + a block's name, or that of one being written */
} entry;

typedef struct entries {
    entry *items;
    size_t count, capacity;
    uint64_t bytes;
} entries;

static void list_folder(const char *root, const char *name, entries *out) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        struct stat info;
        if (fstatat(dirfd(folder), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode) ||
            strlen(e->d_name) > 60 || !sap_grow((void **)&out->items, &out->capacity, out->count, sizeof *out->items))
            continue;
        entry *item = &out->items[out->count++];
        *item = (entry){info.st_mtim, (uint64_t)info.st_size, ""};
        (void)snprintf(item->path, sizeof item->path, "%.32s/%.60s", name, e->d_name);
        out->bytes += item->bytes;
    }
    if (folder)
        closedir(folder);
}

/* Only what looks like ours: the folder may hold other things. */
static bool is_ours(const char *name) {
    return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
}

static int oldest_first(const void *a, const void *b) {
    const struct timespec x = ((const entry *)a)->used, y = ((const entry *)b)->used;
    return x.tv_sec != y.tv_sec ? (x.tv_sec > y.tv_sec) - (x.tv_sec < y.tv_sec)
                                : (x.tv_nsec > y.tv_nsec) - (x.tv_nsec < y.tv_nsec);
}

/* Removes the blocks not used for longest until nine tenths of the limit are left. */
static void tidy(const char *root, uint64_t limit) {
    entries all = {0};
    DIR *folder = opendir(root);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        if (is_ours(e->d_name))
            list_folder(root, e->d_name, &all);
    }
    if (folder)
        closedir(folder);
    if (all.bytes > limit) {
        qsort(all.items, all.count, sizeof *all.items, oldest_first);
        for (size_t i = 0; i < all.count && all.bytes > limit / 10 * 9; i++) {
            char path[PATH_BYTES];
            (void)snprintf(path, sizeof path, "%s/%s", root, all.items[i].path);
            all.bytes -= unlink(path) == 0 ? all.items[i].bytes : 0;
            *strrchr(path, '/') = '\0';
            (void)rmdir(path); /* when it was the last */
        }
    }
    free(all.items);
}

/* Looks at the whole cache at the first writing of the process, and whenever it has written a sixteenth of the limit. */
static void make_room(const sap_cache *cache, uint64_t written) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t since = UINT64_MAX;    /* written since the last look */
    if (pthread_mutex_trylock(&lock) != 0) /* another thread looks, or did when the process forked */
        return;
    since = since < UINT64_MAX - written ? since + written : UINT64_MAX;
    if (since > cache->limit / 16) {
        tidy(cache->root, cache->limit);
        since = 0;
    }
    pthread_mutex_unlock(&lock);
}
