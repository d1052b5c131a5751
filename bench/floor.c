/* The floor of reading: decompression, byte order and offsets of every basket or page of a table, and nothing else. What no
 * reader can be much faster than; prints one JSON line.
 *
 *     floor FILE OBJECT THREADS REPEATS
 *
 * The library is asked where the baskets and pages are; the rest is done here. The file is mapped, and the memory for the
 * values is there before the clock starts. Nothing is checked but the checksums of an RNTuple's pages, which are part of the
 * format: only for files that are known to be whole. */
#include "root/ntuple.h"

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

/* A basket or a page. */
typedef struct unit {
    const uint8_t *stored; /* of a basket: its record, header and all */
    size_t bytes;          /* uncompressed */
    uint8_t *values;
    int size; /* bytes of a number */
    bool jagged;
    const sap_ntuple_column *column; /* NULL: a basket */
    size_t elements, stored_bytes;   /* of a page */
    bool checked;                    /* its checksum follows */
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
    const uint8_t *key = u->stored;
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

/* Bytes of numbers that stand apart: first all lowest bytes, then the next. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define PAIRS(first)                                                                                                   \
    first, first + 1, first + 16, first + 17, first + 2, first + 3, first + 18, first + 19, first + 4, first + 5,      \
        first + 20, first + 21, first + 6, first + 7, first + 22, first + 23

static void join4(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        bytes16 plane[4];
        for (size_t k = 0; k < 4; k++)
            memcpy(&plane[k], in + k * n + i, 16);
        bytes16 low[2] = {__builtin_shufflevector(plane[0], plane[1], LOW),
                          __builtin_shufflevector(plane[0], plane[1], HIGH)};
        bytes16 high[2] = {__builtin_shufflevector(plane[2], plane[3], LOW),
                           __builtin_shufflevector(plane[2], plane[3], HIGH)};
        for (size_t k = 0; k < 2; k++) {
            bytes16 v[2] = {__builtin_shufflevector(low[k], high[k], PAIRS(0)),
                            __builtin_shufflevector(low[k], high[k], PAIRS(8))};
            memcpy(out + 4 * i + 32 * k, v, sizeof v);
        }
    }
    for (; i < n; i++)
        for (size_t k = 0; k < 4; k++)
            out[4 * i + k] = in[k * n + i];
}

VECTOR_CLONES static void join8(const uint8_t *restrict in, size_t n, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0;
        for (size_t k = 0; k < 8; k++)
            v |= (uint64_t)in[k * n + i] << (8 * k);
        memcpy(out + 8 * i, &v, 8);
    }
}

VECTOR_CLONES static void unzigzag4(uint8_t *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, values + 4 * i, 4);
        v = v >> 1 ^ (0 - (v & 1));
        memcpy(values + 4 * i, &v, 4);
    }
}

VECTOR_CLONES static void unzigzag8(uint8_t *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, values + 8 * i, 8);
        v = v >> 1 ^ (0 - (v & 1));
        memcpy(values + 8 * i, &v, 8);
    }
}

/* Indices of 64 bits, of which 32 are kept: differences whose bytes stand apart, or as they are. */
static void offsets_of_indices(const uint8_t *in, size_t n, bool apart, uint8_t *out) {
    if (!apart) {
        for (size_t i = 0; i < n; i++)
            memcpy(out + 4 * i, in + 8 * i, 4);
        return;
    }
    join4(in, n, out); /* the lower halves */
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, out + 4 * i, 4);
        sum += v;
        memcpy(out + 4 * i, &sum, 4);
    }
}

static void read_page(const tools *t, const unit *u) {
    const uint8_t *page = u->stored;
    sap_encoding encoding = sap_column_type_get(u->column->type)->encoding;
    if (u->checked && sap_hash(page, u->stored_bytes, 0) != sap_le64(page + u->stored_bytes))
        die("the checksum of a page differs");
    if (u->stored_bytes < u->bytes) {
        uint8_t *out = encoding == SAP_ENCODING_PLAIN ? u->values : t->scratch;
        if (!decompress(t, page, le24(page + 3), out, u->bytes))
            die("a page cannot be decompressed");
        if (encoding == SAP_ENCODING_PLAIN)
            return;
        page = t->scratch;
    }
    if (encoding == SAP_ENCODING_INDEX || encoding == SAP_ENCODING_DELTA)
        offsets_of_indices(page, u->elements, encoding == SAP_ENCODING_DELTA, u->values);
    else if (encoding == SAP_ENCODING_PLAIN)
        memcpy(u->values, page, u->bytes);
    else if (u->size == 4)
        join4(page, u->elements, u->values);
    else
        join8(page, u->elements, u->values);
    if (encoding == SAP_ENCODING_ZIGZAG && u->size == 4)
        unzigzag4(u->values, u->elements);
    else if (encoding == SAP_ENCODING_ZIGZAG)
        unzigzag8(u->values, u->elements);
}

static void *read_units(void *argument) {
    work *w = argument;
    tools t = {libdeflate_alloc_decompressor(), ZSTD_createDCtx(), malloc(SCRATCH_BYTES)};
    if (!t.deflate || !t.zstd || !t.scratch)
        die("out of memory");
    for (;;) {
        size_t i = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED);
        if (i >= w->count)
            break;
        if (w->units[i].column)
            read_page(&t, &w->units[i]);
        else
            read_basket(&t, &w->units[i]);
    }
    libdeflate_free_decompressor(t.deflate);
    ZSTD_freeDCtx(t.zstd);
    free(t.scratch);
    return NULL;
}

/* ---- All of them ------------------------------------------------------------------------------------------ */

static void add(work *w, unit u) {
    if (!sap_grow((void **)&w->units, &w->capacity, w->count, sizeof *w->units))
        die("out of memory");
    if (u.bytes > SCRATCH_BYTES)
        die("a basket or page of more than 64 MB");
    w->units[w->count++] = u;
}

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
        const uint8_t *record = file + node->baskets[i].offset;
        add(w,
            (unit){.stored = record, .bytes = sap_be32(record + 6), .size = number->number.stored, .jagged = jagged});
    }
}

static void list_pages(work *w, const sap_ntuple *ntuple, const sap_node *node, const uint8_t *file) {
    if (node->kind != SAP_NODE_NUMBER && node->kind != SAP_NODE_LIST)
        die("only numbers and lists of numbers");
    for (size_t k = 0; k < ntuple->cluster_count; k++) {
        const sap_pages *run = &node->series->runs[k];
        for (size_t i = 0; i < run->count; i++) {
            const sap_page *page = &run->pages[i];
            const sap_column_type *type = sap_column_type_get(run->column->type);
            if (type->encoding < SAP_ENCODING_PLAIN || type->encoding > SAP_ENCODING_DELTA ||
                (type->type == SAP_TYPE_NONE && run->column->bits != 64) || (type->size != 4 && type->size != 8))
                die("only numbers of 4 and 8 bytes, and indices of 8");
            add(w, (unit){.stored = file + page->at.offset,
                          .bytes = (size_t)sap_page_bytes(run->column, page->elements),
                          .size = type->size,
                          .column = run->column,
                          .elements = page->elements,
                          .stored_bytes = (size_t)page->at.bytes,
                          .checked = page->checked});
        }
    }
    for (size_t i = 0; i < node->child_count; i++)
        list_pages(w, ntuple, &node->children[i], file);
}

static void list_units(work *w, const sap_tree *tree, const uint8_t *file) {
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *branch = sap_tree_branch(tree, i);
        if (tree->kind == &sap_ttree_kind)
            list_baskets(w, branch, file);
        else if (branch->field)
            list_pages(w, (const sap_ntuple *)tree, &((const sap_ntuple_branch *)branch)->node, file);
        else
            die(branch->reason);
    }
}

static int by_place(const void *a, const void *b) {
    const unit *x = a, *y = b;
    return (x->stored > y->stored) - (x->stored < y->stored);
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
    list_units(w, tree, map); /* the file stays open: pages are described in its memory */
    qsort(w->units, w->count, sizeof *w->units, by_place);
    size_t room = 0;
    for (size_t i = 0; i < w->count; i++) {
        room += (w->units[i].bytes + 63) & ~(size_t)63;
        w->bytes += w->units[i].bytes;
    }
    uint8_t *values = aligned_alloc(64, room);
    if (!values)
        die("out of memory");
    memset(values, 1, room);
    for (size_t i = 0; i < w->count; i++) {
        w->units[i].values = values;
        values += (w->units[i].bytes + 63) & ~(size_t)63;
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
            if (pthread_create(&others[i], NULL, read_units, &w) != 0)
                die("a thread cannot be started");
        read_units(&w);
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
