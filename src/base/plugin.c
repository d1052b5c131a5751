/* Optional parts as shared objects, opened on first use and kept; and the list of them. */
#include "base_internal.h"
#include <plugin_abi.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

typedef struct part {
    const char *name;
    const char *provides; /* what it does, and what it needs to be built */
    bool has_threads;     /* its library's own */
    bool is_quiet;        /* only looked for when parts are listed: opening it starts things */
    const void *table;
    void (*state)(char *out, size_t capacity); /* optional: what it finds on this machine, in a line */
} part;

static part parts[] = {
    {.name = "parquet",
     .provides = "Parquet files (Apache Arrow's C++ library, for instance in the Python package pyarrow)"},
    {.name = "http", .provides = "files on web servers and S3 (libcurl)"},
    {.name = "cuda", .provides = "training and prediction on NVIDIA GPUs (the CUDA compiler)", .has_threads = true},
    {.name = "keras", .provides = "Keras model files (libhdf5 and libzip)"},
    {.name = "xrootd", .provides = "XRootD, root:// and roots:// (the client library libXrdCl)", .has_threads = true},
    {.name = "nccl", .provides = "sums between GPUs (NCCL)"},
    {.name = "mpich", .provides = "training with many processes (MPICH and its kin)", .is_quiet = true},
    {.name = "openmpi", .provides = "training with many processes (Open MPI)", .is_quiet = true},
};
enum { PART_COUNT = sizeof parts / sizeof *parts };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Folder of the library or program that this code is in, with a slash. */
static void own_folder(char *out, size_t capacity) {
    Dl_info info;
    out[0] = '\0';
    if (dladdr((void *)(uintptr_t)&sap_plugin_find, &info) && info.dli_fname) {
        const char *slash = strrchr(info.dli_fname, '/');
        if (slash)
            (void)snprintf(out, capacity, "%.*s", (int)(slash - info.dli_fname + 1), info.dli_fname);
    }
}

static void *open_in(const char *folder, const char *name, const char *separator, sap_text *tried) {
    if (!folder || !*folder)
        return NULL;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s%slibsapwood-%s.so", folder, separator, name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *reason = dlerror();
        sap_text_add(tried, "%s%s", tried->length ? "; " : "", reason ? reason : path);
        return NULL;
    }
    const char *abi = dlsym(handle, "sap_plugin_abi");
    if (abi && strcmp(abi, SAP_PLUGIN_ABI) == 0)
        return handle;
    sap_text_add(tried, "%s%s is of another build of Sapwood: its interface is %s, the library's " SAP_PLUGIN_ABI,
                 tried->length ? "; " : "", path, abi ? abi : "older");
    return NULL; /* left open: not every library survives being closed */
}

static sap_status find_locked(part *wanted, const void **table, sap_error *err) {
    if (!wanted->table) {
        char own[4096];
        own_folder(own, sizeof own);
        sap_text tried = {0};
        if (wanted->has_threads)
            sap_fork_enclose(false);
        void *handle = open_in(getenv("SAPWOOD_PLUGINS"), wanted->name, "/", &tried);
        if (!handle)
            handle = open_in(own, wanted->name, "", &tried);
        if (!handle)
            handle = open_in(SAPWOOD_PLUGIN_FOLDER, wanted->name, "/", &tried);
        if (wanted->has_threads)
            sap_fork_enclose(true);
        char symbol[64];
        (void)snprintf(symbol, sizeof symbol, "sap_plugin_%s", wanted->name);
        wanted->table = handle ? dlsym(handle, symbol) : NULL;
        (void)snprintf(symbol, sizeof symbol, "sap_plugin_%s_state", wanted->name);
        void *state = handle ? dlsym(handle, symbol) : NULL;
        memcpy(&wanted->state, &state, sizeof state);
        if (!wanted->table) {
            sap_status status =
                sap_error_set(err, SAP_EPLUGIN, "this installation cannot do %s: libsapwood-%s.so does not open (%s)",
                              wanted->provides, wanted->name, tried.data ? tried.data : "it has no table");
            sap_text_release(&tried);
            return status;
        }
        sap_text_release(&tried);
    }
    *table = wanted->table;
    return SAP_OK;
}

sap_status sap_plugin_find(const char *name, const void **table, sap_error *err) {
    for (size_t i = 0; i < PART_COUNT; i++) {
        if (strcmp(parts[i].name, name) == 0) {
            pthread_mutex_lock(&lock);
            sap_status status = find_locked(&parts[i], table, err);
            pthread_mutex_unlock(&lock);
            return status;
        }
    }
    return sap_error_set(err, SAP_EPLUGIN, "no plug-in is called \"%s\"", name);
}

/* Whether the plug-in's file is there. */
static sap_status look_for(const part *wanted, sap_error *err) {
    char own[4096], path[4096 + 100];
    own_folder(own, sizeof own);
    const char *folders[] = {getenv("SAPWOOD_PLUGINS"), own, SAPWOOD_PLUGIN_FOLDER};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        (void)snprintf(path, sizeof path, "%s/libsapwood-%s.so", folders[i] ? folders[i] : "", wanted->name);
        if (folders[i] && sap_path_exists(path))
            return SAP_OK;
    }
    return sap_error_set(err, SAP_EPLUGIN, "this installation cannot do %s: there is no libsapwood-%s.so",
                         wanted->provides, wanted->name);
}

const char *sap_version_parts(void) {
    static char text[4096];
    static bool made = false;
    const void *table;
    sap_error error = {0};
    sap_status found[PART_COUNT];
    char message[PART_COUNT][300];
    for (size_t i = 0; i < PART_COUNT; i++) {
        found[i] = parts[i].is_quiet ? look_for(&parts[i], &error) : sap_plugin_find(parts[i].name, &table, &error);
        (void)snprintf(message[i], sizeof message[i], "%.290s", found[i] == SAP_OK ? parts[i].provides : error.message);
        size_t length = strlen(message[i]);
        if (found[i] == SAP_OK && parts[i].state && length + 4 < sizeof message[i]) {
            memcpy(message[i] + length, "; ", 3);
            parts[i].state(message[i] + length + 2, sizeof message[i] - length - 2);
        }
    }
    pthread_mutex_lock(&lock);
    if (!made) {
        size_t used = 0;
        for (size_t i = 0; i < PART_COUNT; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s\t%s: %s\n", parts[i].name,
                                     found[i] == SAP_OK ? "yes" : "no", message[i]);
        made = true;
    }
    pthread_mutex_unlock(&lock);
    return text;
}
