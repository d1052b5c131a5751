/* The floor of reading: decompression, byte swap and offsets of every basket of a tree, and nothing else. What no reader
 * can be much faster than; prints one JSON line.
 *
 *     floor FILE OBJECT THREADS REPEATS
 *
 * The library is asked where the baskets are; the rest is done here. The file is mapped, and the memory for the values is
 * there before the clock starts. Nothing is checked: only for files that are known to be whole. */
#include "root/root_internal.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VECTOR_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define VECTOR_CLONES
#endif

typedef struct unit {
    const uint8_t *record; /* of the basket */
    uint8_t *values;
    int size; /* bytes of a number */
    bool jagged;
} unit;

typedef struct work {
    unit *units;
    size_t count, capacity;
    size_t next; /* taken by the threads one by one */
    size_t bytes;
} work;

static _Noreturn void die(const char *what) {
    (void)fprintf(stderr, "floor: %s\n", what);
    exit(1);
}

/* ---- One basket ------------------------------------------------------------------------------------------- */

typedef struct tools {
    struct libdeflate_decompressor *deflate;
    ZSTD_DCtx *zstd;
    uint8_t *scratch;
} tools;

enum { SCRATCH_BYTES = 64 << 20 };

static size_t le24(const uint8_t *p) {
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16;
}

static bool decompress(const tools *t, const uint8_t *block, size_t stored, uint8_t *out, size_t size) {
    switch (block[0]) {
    case 'Z':
        if (block[1] == 'L')
            return libdeflate_zlib_decompress(t->deflate, block + 9, stored, out, size, NULL) == LIBDEFLATE_SUCCESS;
        return ZSTD_decompressDCtx(t->zstd, out, size, block + 9, stored) == size;
    case 'L': /* the checksum before the data is not looked at */
        return LZ4_decompress_safe((const char *)block + 17, (char *)out, (int)stored - 8, (int)size) == (int)size;
    case 'X': {
        uint64_t memory = 256 << 20;
        size_t in_at = 0, out_at = 0;
        return lzma_stream_buffer_decode(&memory, 0, NULL, block + 9, &in_at, stored, out, &out_at, size) == LZMA_OK;
    }
    default:
        return false;
    }
}

VECTOR_CLONES static void swap4(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, in + 4 * i, 4);
        v = __builtin_bswap32(v);
        memcpy(out + 4 * i, &v, 4);
    }
}

VECTOR_CLONES static void swap8(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, in + 8 * i, 8);
        v = __builtin_bswap64(v);
        memcpy(out + 8 * i, &v, 8);
    }
}

VECTOR_CLONES static void offsets_to_items(const uint8_t *restrict in, size_t n, uint32_t origin, int shift,
                                           uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, in + 4 * i, 4);
        v = (__builtin_bswap32(v) - origin) >> shift;
        memcpy(out + 4 * i, &v, 4);
    }
}

static void swap(const uint8_t *in, size_t bytes, int size, uint8_t *out) {
    if (size == 8)
        swap8(in, bytes / 8, out);
    else if (size == 4)
        swap4(in, bytes / 4, out);
    else
        memcpy(out, in, bytes);
}

static void read_basket(const tools *t, const unit *u) {
    const uint8_t *key = u->record;
    uint32_t record_bytes = sap_be32(key), object_bytes = sap_be32(key + 6), key_bytes = sap_be16(key + 14);
    const uint8_t *header = key + key_bytes - 19; /* version 2, buffer 4, entry size 4, entries 4, last 4, flag 1 */
    uint32_t entries = sap_be32(header + 10), data_bytes = sap_be32(header + 14) - key_bytes;
    const uint8_t *object = key + key_bytes;
    if (object_bytes > record_bytes - key_bytes) {
        uint8_t *out = t->scratch;
        for (const uint8_t *p = object, *end = key + record_bytes; p < end;) {
            size_t stored = le24(p + 3), size = le24(p + 6);
            if (!decompress(t, p, stored, out, size))
                die("a block cannot be decompressed");
            out += size;
            p += 9 + stored;
        }
        object = t->scratch;
    }
    swap(object, data_bytes, u->size, u->values);
    if (u->jagged) /* behind the data: a count, then where each entry begins */
        offsets_to_items(object + data_bytes + 4, entries, key_bytes, u->size == 8 ? 3 : 2, u->values + data_bytes);
}

static void *read_baskets(void *argument) {
    work *w = argument;
    tools t = {libdeflate_alloc_decompressor(), ZSTD_createDCtx(), malloc(SCRATCH_BYTES)};
    if (!t.deflate || !t.zstd || !t.scratch)
        die("out of memory");
    for (;;) {
        size_t i = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED);
        if (i >= w->count)
            break;
        read_basket(&t, &w->units[i]);
    }
    libdeflate_free_decompressor(t.deflate);
    ZSTD_freeDCtx(t.zstd);
    free(t.scratch);
    return NULL;
}

/* ---- All of them ------------------------------------------------------------------------------------------ */

static void list_baskets(work *w, const sap_branch *branch, const uint8_t *file) {
    const sap_branch_node *node = sap_branch_inside(branch);
    if (!branch->field || (node->program->shape != SAP_SHAPE_FLAT && node->program->shape != SAP_SHAPE_JAGGED) ||
        node->program->header)
        die("only numbers and lists of numbers with a counter");
    bool jagged = node->program->shape == SAP_SHAPE_JAGGED;
    const sap_step_node *number = jagged ? &node->program->root.children[0] : &node->program->root;
    for (size_t i = 0; i < node->basket_count; i++) {
        if (!node->baskets[i].offset)
            die("baskets inside the tree's record");
        if (!sap_grow((void **)&w->units, &w->capacity, w->count, sizeof *w->units))
            die("out of memory");
        const uint8_t *record = file + node->baskets[i].offset;
        if (sap_be32(record + 6) > SCRATCH_BYTES)
            die("a basket of more than 64 MB");
        w->units[w->count++] = (unit){.record = record, .size = number->number.stored, .jagged = jagged};
    }
}

static int by_place(const void *a, const void *b) {
    const unit *x = a, *y = b;
    return (x->record > y->record) - (x->record < y->record);
}

static void prepare(work *w, const char *path, const char *object) {
    sap_error err = {0};
    sap_file *file;
    sap_tree *tree;
    if (sap_file_open(path, NULL, &file, &err) != SAP_OK || sap_tree_open(file, object, &tree, &err) != SAP_OK)
        die(err.message);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (descriptor < 0 || fstat(descriptor, &info) != 0)
        die("the file cannot be opened");
    const uint8_t *map =
        mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, descriptor, 0); /* never unmapped */
    if (map == MAP_FAILED)
        die("the file cannot be mapped");
    close(descriptor);
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++)
        list_baskets(w, sap_tree_branch(tree, i), map);
    sap_tree_close(tree);
    sap_file_close(file);
    qsort(w->units, w->count, sizeof *w->units, by_place);
    for (size_t i = 0; i < w->count; i++)
        w->bytes += (sap_be32(w->units[i].record + 6) + 63) & ~(size_t)63;
    uint8_t *values = aligned_alloc(64, w->bytes);
    if (!values)
        die("out of memory");
    memset(values, 1, w->bytes);
    w->bytes = 0;
    for (size_t i = 0; i < w->count; i++) {
        size_t bytes = sap_be32(w->units[i].record + 6);
        w->units[i].values = values;
        values += (bytes + 63) & ~(size_t)63;
        w->bytes += bytes;
    }
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    int threads = argc == 5 ? atoi(argv[3]) : 0, repeats = argc == 5 ? atoi(argv[4]) : 0;
    double wall[MOST], cpu[MOST];
    if (threads < 1 || threads > MOST || repeats < 1 || repeats > MOST) {
        (void)fprintf(stderr, "Usage: floor FILE OBJECT THREADS REPEATS (at most %d of each)\n", MOST);
        return 2;
    }
    work w = {0};
    prepare(&w, argv[1], argv[2]);
    for (int r = 0; r < repeats; r++) {
        pthread_t others[MOST];
        wall[r] = seconds(CLOCK_MONOTONIC);
        cpu[r] = seconds(CLOCK_PROCESS_CPUTIME_ID);
        w.next = 0;
        for (int i = 1; i < threads; i++)
            if (pthread_create(&others[i], NULL, read_baskets, &w) != 0)
                die("a thread cannot be started");
        read_baskets(&w);
        for (int i = 1; i < threads; i++)
            pthread_join(others[i], NULL);
        wall[r] = seconds(CLOCK_MONOTONIC) - wall[r];
        cpu[r] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu[r];
    }
    qsort(wall, (size_t)repeats, sizeof *wall, by_value);
    qsort(cpu, (size_t)repeats, sizeof *cpu, by_value);
    (void)printf("{\"bytes\": %zu, \"wall\": %.6f, \"cpu\": %.6f}\n", w.bytes, wall[repeats / 2], cpu[repeats / 2]);
    return 0;
}
