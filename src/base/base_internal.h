/* What every module shares: memory, text, files, hashing, plug-ins, and the running of loops on a pool. */
#ifndef SAP_BASE_INTERNAL_H
#define SAP_BASE_INTERNAL_H

#include <sapwood/base.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- Errors ------------------------------------------------------------------------------------------- */

/* "out of memory" while making `what`. */
sap_status sap_error_memory(sap_error *err, const char *what);
#ifdef __clang_analyzer__
#define sap_error_memory(err, what) ((void)(sap_error_memory)(err, what), SAP_EMEMORY)
#endif
/* `what`: strerror(errno). `what` is a file name, mostly. */
sap_status sap_error_errno(sap_error *err, const char *what);

/* ---- Memory ------------------------------------------------------------------------------------------- */

/* Memory that is freed all at once. Zero-initialised is empty. Not for use from several threads at a time. */
typedef struct sap_arena {
    struct sap_arena_block *block;
    size_t used;
} sap_arena;

/* Zeroed memory, aligned to 16 bytes; NULL when there is none. */
void *sap_arena_alloc(sap_arena *arena, size_t bytes);
/* The same for count items; NULL also when the product overflows. */
void *sap_arena_array(sap_arena *arena, size_t count, size_t size);
char *sap_arena_text(sap_arena *arena, const char *text, size_t length);
char *sap_arena_format(sap_arena *arena, const char *format, ...) SAP_PRINTF(2, 3);
void sap_arena_release(sap_arena *arena);

/* A large block, in huge pages where the system has them: page by page, the first touch of so much memory costs as much as
 * decompressing into it. Blocks that were given back are kept, a bounded number of bytes of them, and given out again.
 * *capacity: what it holds, at least `bytes`. Aligned to 64 bytes at least, not zeroed; NULL when there is none. */
void *sap_block_take(size_t bytes, size_t *capacity);
/* NULL is fine. May be called from any thread, as sap_block_take. */
void sap_block_give(void *block, size_t capacity);
enum { SAP_BLOCK_LEAST = 1 << 20 }; /* what is smaller is better taken from malloc */

/* Scratch memory, a block when it is large. Zeroed is empty. */
typedef struct sap_space {
    uint8_t *data;
    size_t capacity;
} sap_space;

/* Room for so many bytes; what was there is lost. */
SAP_MUST_CHECK bool sap_space_reserve(sap_space *space, size_t bytes);
void sap_space_release(sap_space *space);

/* Makes room for one more item in a malloc'ed array that doubles. */
SAP_MUST_CHECK bool sap_grow(void **array, size_t *capacity, size_t count, size_t item_size);

/* Text that grows. Zero-initialised is empty; `failed` sticks when memory runs out. */
typedef struct sap_text {
    char *data; /* terminated; NULL while empty */
    size_t length, capacity;
    bool failed;
} sap_text;

void sap_text_add(sap_text *text, const char *format, ...) SAP_PRINTF(2, 3);
void sap_text_put(sap_text *text, const char *bytes, size_t length);
void sap_text_release(sap_text *text);

/* ---- Names -------------------------------------------------------------------------------------------- */

/* Whether `text` matches `pattern`, in which * stands for any characters and ? for one. */
bool sap_text_matches(const char *pattern, const char *text);
/* -1, 0, 1 with runs of digits compared as numbers: "run2" before "run10". */
int sap_text_natural(const char *a, const char *b);
/* Writes `; nearest: a, b, c` (or nothing) for a name that was not found; name_at(context, i) gives the candidates. */
void sap_text_nearest(const char *name, size_t count, const char *(*name_at)(const void *context, size_t index),
                      const void *context, char *out, size_t capacity);
/* Base name of a path or URL, without its query. Points into `url`; `*length` its length. */
const char *sap_text_base_name(const char *url, size_t *length);

/* ---- Files -------------------------------------------------------------------------------------------- */

/* Read and write all bytes, going on after short counts and signals. Reading, at an offset, returns how many there were: fewer
 * than asked for at the end (errno is 0 then) or after an error (errno). Writing goes on where the descriptor stands; false: errno. */
size_t sap_descriptor_read(int descriptor, void *data, size_t length, uint64_t offset);
SAP_MUST_CHECK bool sap_descriptor_write(int descriptor, const void *data, size_t length);

/* Whole text file, terminated; the caller frees. limit: more bytes are refused. */
SAP_MUST_CHECK sap_status sap_file_load(const char *path, size_t limit, char **out, size_t *length, sap_error *err);
/* Writes `path` aside and renames it when it is whole and on disk. */
SAP_MUST_CHECK sap_status sap_file_store(const char *path, const void *data, size_t length, sap_error *err);
/* mkdir -p. */
SAP_MUST_CHECK sap_status sap_folder_make(const char *path, sap_error *err);
/* rm -r; a missing folder is fine. */
SAP_MUST_CHECK sap_status sap_folder_remove(const char *path, sap_error *err);
/* Waits until all files in the folder, and their names, are on disk. */
SAP_MUST_CHECK sap_status sap_folder_sync(const char *path, sap_error *err);
bool sap_path_exists(const char *path);

/* ---- Hashes and random numbers ------------------------------------------------------------------------- */

/* XXH3 of the bytes. */
uint64_t sap_hash(const void *data, size_t length, uint64_t seed);
uint64_t sap_hash_avx2(const void *data, size_t length, uint64_t seed); /* where there is AVX2 */
/* CRC-32C (Castagnoli) of the bytes, continued from `crc` (0 at first). */
uint32_t sap_crc32c(uint32_t crc, const void *data, size_t length);
/* The same without vector instructions. */
uint32_t sap_crc32c_plain(uint32_t crc, const void *data, size_t length);
/* Masked, as TFRecord files hold it. */
uint32_t sap_crc32c_masked(const void *data, size_t length);
/* A counter-based random number: a good mix of (key, counter), the same everywhere. */
static inline uint64_t sap_mix(uint64_t key, uint64_t counter) {
    uint64_t x = key + counter * UINT64_C(0x9E3779B97F4A7C15) + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}
/* The top 53 bits as a double in [0, 1). */
static inline double sap_unit(uint64_t bits) {
    return (double)(bits >> 11) * 0x1.0p-53;
}

/* ---- Running ------------------------------------------------------------------------------------------- */

/* One step of a loop; slot: which of at most sap_pool_threads() participants runs it, for scratch memory. */
typedef sap_status (*sap_step)(void *context, size_t index, int slot, sap_error *err);

/* Runs step(0 … count-1) on the pool, the caller helping; run may be NULL. Returns the error of the lowest failing index among those
 * run; later indices may not have run. Obeys run->cancel. Calls may be nested. */
SAP_MUST_CHECK sap_status sap_loop(const sap_run *run, size_t count, sap_step step, void *context, sap_error *err);

/* Something that runs beside the caller: started now if a thread of the pool is free, at the latest in sap_task_wait. */
typedef struct sap_task sap_task;
SAP_MUST_CHECK sap_status sap_task_start(const sap_run *run, sap_status (*work)(void *context, sap_error *err),
                                         void *context, sap_task **out, sap_error *err);
/* Waits, frees the task, and returns what the work returned. NULL is fine. */
sap_status sap_task_wait(sap_task *task, sap_error *err);

int sap_run_threads(const sap_run *run);
/* SAP_ECANCELLED when the cancel flag is set. */
SAP_MUST_CHECK sap_status sap_run_check(const sap_run *run, sap_error *err);
void sap_run_report(const sap_run *run, const char *stage, const char *unit, uint64_t done, uint64_t total,
                    const char *message);

/* ---- Time and threads ---------------------------------------------------------------------------------- */

/* Of a clock that only goes forward. */
static inline int64_t sap_nanoseconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double sap_seconds(void) {
    return (double)sap_nanoseconds() * 1e-9;
}

/* A condition for sap_condition_wait. */
void sap_condition_init(pthread_cond_t *condition);
/* Waits, with the lock, at most so many seconds of that clock. */
void sap_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, double seconds);

/* A thread that takes no signals: they are the program's. False: there is none to be had. */
bool sap_thread_start(pthread_t *thread, void *(*work)(void *context), void *context);

/* ---- Plug-ins ------------------------------------------------------------------------------------------- */

/* The table that plug-in `name` ("parquet") exports as `sap_plugin_<name>`, opened once and kept. Plug-ins are looked for in
 * SAPWOOD_PLUGINS, beside libsapwood.so, and where this build put them; those that were built with another interface than this library
 * are passed over. Missing: SAP_EPLUGIN, saying what would provide it, and what was found instead. */
SAP_MUST_CHECK sap_status sap_plugin_find(const char *name, const void **table, sap_error *err);

/* Called before and after loading a plug-in whose library has threads and handlers for fork() of its own: ours must enclose
 * those. The library's threads are to be started by a thread of the name SAP_PLUGIN_THREAD. */
void sap_fork_enclose(bool loaded);
#define SAP_PLUGIN_THREAD "sapwood-plugin"

#endif
