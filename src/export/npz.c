/* Export to a NumPy archive: a zip file of .npy arrays, stored. The arrays of a column:
 *     numbers            NAME, with the dimensions of fixed lists around them
 *     lists, strings     NAME.offsets (int64, one more than lists), then the items, bytes of strings as uint8, under NAME;
 *                        lists in lists NAME.offsets2 and so on
 *     records            those of each field, under NAME.FIELD
 *     what can be null   NAME.valid (bool), in lists NAME.valid2 and so on
 * How long an array becomes is known at the end only: until then values wait in a file beside the output. */
#include "export_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_DIMENSIONS = 8, BLOCK = 1 << 16, NAME_LENGTH_MOST = 65000 };

/* Bytes of an array in the waiting file. */
typedef struct segment {
    uint64_t offset, bytes;
} segment;

typedef struct array {
    const char *name; /* of the zip member, ".npy" and all */
    const char *dtype;
    int32_t dims[MOST_DIMENSIONS]; /* after the first */
    int dim_count;
    int64_t count; /* numbers */
    int64_t items; /* offsets: the last one */
    segment *segments;
    size_t segment_count, segment_capacity;
    uint64_t at, bytes; /* in the zip file: its header, and its data */
    uint32_t crc;
} array;

typedef struct npz {
    sap_arena arena;
    const char *path;
    int out, waiting;
    uint64_t at; /* bytes waiting, then bytes written */
    array *arrays;
    size_t count, capacity;
    uint8_t *block;
} npz;

/* ---- Bytes --------------------------------------------------------------------------------------------------- */

static sap_status write_at(const npz *w, int fd, const void *data, size_t bytes, uint64_t at, sap_error *err) {
    while (bytes > 0) {
        ssize_t put = pwrite(fd, data, bytes, (off_t)at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return sap_error_errno(err, w->path);
        data = (const char *)data + put;
        bytes -= (size_t)put;
        at += (uint64_t)put;
    }
    return SAP_OK;
}

static sap_status read_at(const npz *w, void *data, size_t bytes, uint64_t at, sap_error *err) {
    if (sap_descriptor_read(w->waiting, data, bytes, at) == bytes)
        return SAP_OK;
    return errno ? sap_error_errno(err, w->path) : sap_error_set(err, SAP_EIO, "%s: has become shorter", w->path);
}

/* More of an array's values. */
static sap_status append(npz *w, array *a, const void *data, int64_t count, size_t size, sap_error *err) {
    uint64_t bytes = (uint64_t)count * size;
    if (bytes == 0)
        return SAP_OK;
    segment *last = a->segment_count ? &a->segments[a->segment_count - 1] : NULL;
    if (!last || last->offset + last->bytes != w->at) {
        if (!sap_grow((void **)&a->segments, &a->segment_capacity, a->segment_count, sizeof *a->segments))
            return sap_error_memory(err, w->path);
        last = &a->segments[a->segment_count++];
        *last = (segment){w->at, 0};
    }
    SAP_TRY(write_at(w, w->waiting, data, bytes, w->at, err));
    last->bytes += bytes;
    w->at += bytes;
    a->count += count;
    a->bytes += bytes;
    return SAP_OK;
}

/* ---- Arrays of a column ----------------------------------------------------------------------------------------- */

/* What stands around a node. */
typedef struct around {
    int32_t dims[MOST_DIMENSIONS];
    int dim_count;
    int lists; /* under the same name */
} around;

static sap_status add_array(npz *w, const char *path, const char *suffix, const char *dtype, const around *dims,
                            sap_error *err) {
    if (!sap_grow((void **)&w->arrays, &w->capacity, w->count, sizeof *w->arrays))
        return sap_error_memory(err, w->path);
    array *a = &w->arrays[w->count++];
    *a = (array){.dtype = dtype, .name = sap_arena_format(&w->arena, "%s%s.npy", path, suffix)};
    if (dims) {
        memcpy(a->dims, dims->dims, sizeof a->dims);
        a->dim_count = dims->dim_count;
    }
    if (!a->name)
        return sap_error_memory(err, w->path);
    if (strlen(a->name) > NAME_LENGTH_MOST)
        return sap_error_set(err, SAP_EUNSUPPORTED, "a column's name of %zu bytes", strlen(a->name));
    return SAP_OK;
}

static sap_status add_offsets(npz *w, const char *path, around *at, sap_error *err) {
    char suffix[32] = ".offsets";
    if (++at->lists > 1)
        (void)snprintf(suffix, sizeof suffix, ".offsets%d", at->lists);
    at->dim_count = 0;
    SAP_TRY(add_array(w, path, suffix, "<i8", NULL, err));
    int64_t zero = 0;
    return append(w, &w->arrays[w->count - 1], &zero, 1, sizeof zero, err);
}

static sap_status add_field(npz *w, const sap_field *field, const char *path, around at, sap_error *err) {
    if (field->nullable) {
        char suffix[32] = ".valid";
        if (at.lists > 0)
            (void)snprintf(suffix, sizeof suffix, ".valid%d", at.lists + 1);
        SAP_TRY(add_array(w, path, suffix, "|b1", &at, err));
    }
    switch (field->type) {
    case SAP_UNION:
        return sap_error_set(err, SAP_EUNSUPPORTED, "column \"%s\": npz cannot hold unions", path);
    case SAP_FIXED_LIST:
        if (at.dim_count == MOST_DIMENSIONS)
            return sap_error_set(err, SAP_EUNSUPPORTED, "column \"%s\": more than %d dimensions", path,
                                 MOST_DIMENSIONS);
        at.dims[at.dim_count++] = field->size;
        return add_field(w, &field->children[0], path, at, err);
    case SAP_LIST:
        SAP_TRY(add_offsets(w, path, &at, err));
        return add_field(w, &field->children[0], path, at, err);
    case SAP_STRING:
        SAP_TRY(add_offsets(w, path, &at, err));
        return add_array(w, path, "", "|u1", NULL, err);
    case SAP_RECORD:
        at.lists = 0;
        for (int32_t i = 0; i < field->count; i++) {
            const char *inside = sap_arena_format(&w->arena, "%s.%s", path, field->children[i].name);
            SAP_TRY(inside ? add_field(w, &field->children[i], inside, at, err) : sap_error_memory(err, w->path));
        }
        return SAP_OK;
    default:
        return add_array(w, path, "", sap_type_dtype(field->type), &at, err);
    }
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Column "x.offsets" beside a list "x" would be two arrays of one name. */
static sap_status check_names(npz *w, sap_error *err) {
    const char **names = sap_arena_array(&w->arena, w->count + 1, sizeof *names);
    if (!names)
        return sap_error_memory(err, w->path);
    for (size_t i = 0; i < w->count; i++)
        names[i] = w->arrays[i].name;
    qsort(names, w->count, sizeof *names, compare_names);
    for (size_t i = 1; i < w->count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: two columns would give the array \"%s\"", w->path,
                                 names[i]);
    return SAP_OK;
}

/* ---- Values --------------------------------------------------------------------------------------------------------- */

static sap_status write_offsets(npz *w, array *a, const int32_t *offsets, int64_t begin, int64_t end, sap_error *err) {
    int64_t *values = (int64_t *)(void *)w->block, most = BLOCK / (int64_t)sizeof *values;
    for (int64_t i = begin; i < end;) {
        int64_t n = end - i < most ? end - i : most;
        for (int64_t k = 0; k < n; k++)
            values[k] = a->items + (offsets[i + k + 1] - offsets[begin]);
        SAP_TRY(append(w, a, values, n, sizeof *values, err));
        i += n;
    }
    if (end > begin)
        a->items += offsets[end] - offsets[begin];
    return SAP_OK;
}

/* Entries [begin, end) of a column; `next`: the first of its arrays, and behind the last afterwards. */
static sap_status write_column(npz *w, const sap_column *c, const sap_field *field, int64_t begin, int64_t end,
                               size_t *next, sap_error *err) {
    if (field->nullable) {
        array *valid = &w->arrays[(*next)++];
        memset(w->block, 1, BLOCK);
        for (int64_t i = begin; i < end;) {
            int64_t n = end - i < BLOCK ? end - i : BLOCK;
            SAP_TRY(append(w, valid, c->valid ? c->valid + i : w->block, n, 1, err));
            i += n;
        }
    }
    if (c->type == SAP_LIST || c->type == SAP_STRING) {
        SAP_TRY(write_offsets(w, &w->arrays[(*next)++], c->offsets, begin, end, err));
        int64_t first = end > begin ? c->offsets[begin] : 0, last = end > begin ? c->offsets[end] : 0;
        if (c->type == SAP_LIST)
            return write_column(w, &c->children[0], &field->children[0], first, last, next, err);
        return append(w, &w->arrays[(*next)++], (const char *)c->values + first, last - first, 1, err);
    }
    if (c->type == SAP_FIXED_LIST)
        return write_column(w, &c->children[0], &field->children[0], begin * c->size, end * c->size, next, err);
    if (c->type == SAP_RECORD) {
        for (int32_t i = 0; i < c->count; i++)
            SAP_TRY(write_column(w, &c->children[i], &field->children[i], begin, end, next, err));
        return SAP_OK;
    }
    size_t size = sap_type_size(c->type);
    return append(w, &w->arrays[(*next)++], (const char *)c->values + (size_t)begin * size, end - begin, size, err);
}

typedef struct npz_writer {
    npz npz;
    const sap_field *fields;
} npz_writer;

static sap_status write_batch(void *writer, sap_batch *batch, sap_error *err) {
    npz_writer *w = writer;
    size_t next = 0;
    for (int32_t i = 0; i < batch->count; i++)
        SAP_TRY(write_column(&w->npz, &batch->columns[i], &w->fields[i], 0, batch->length, &next, err));
    return SAP_OK;
}

/* ---- The zip file ----------------------------------------------------------------------------------------------------- */

/* Little-endian numbers, one after another. */
static uint8_t *put(uint8_t *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++, value >>= 8)
        *out++ = (uint8_t)value;
    return out;
}

enum { ZIP64 = 45, UTF8_NAMES = 1 << 11, FIRST_OF_1980 = 0x21, ZIP64_FIELD = 1 };

/* What the local header and the directory have in common. */
static uint8_t *put_member(uint8_t *out, const array *a, size_t extra) {
    out = put(out, ZIP64, 2);
    out = put(out, UTF8_NAMES, 2);
    out = put(out, 0, 2); /* stored */
    out = put(out, 0, 2);
    out = put(out, FIRST_OF_1980, 2);
    out = put(out, a->crc, 4);
    out = put(out, UINT32_MAX, 4); /* sizes are in the ZIP64 field */
    out = put(out, UINT32_MAX, 4);
    out = put(out, strlen(a->name), 2);
    return put(out, extra, 2);
}

/* The name, and the ZIP64 field of so many bytes as far as the two sizes. */
static uint8_t *put_name(uint8_t *out, const array *a, size_t extra) {
    size_t length = strlen(a->name);
    memcpy(out, a->name, length);
    out = put(out + length, ZIP64_FIELD, 2);
    out = put(out, extra - 4, 2);
    out = put(out, a->bytes, 8);
    return put(out, a->bytes, 8);
}

static sap_status write_local(npz *w, const array *a, sap_error *err) {
    enum { EXTRA = 20 };
    uint8_t *out = put(w->block, 0x04034b50, 4);
    out = put_member(out, a, EXTRA);
    out = put_name(out, a, EXTRA);
    return write_at(w, w->out, w->block, (size_t)(out - w->block), a->at, err);
}

/* The header of the .npy file, padded to a multiple of 64 bytes. Returns its length. */
static size_t make_header(const array *a, char *out, size_t capacity) {
    int64_t rows = a->count;
    char shape[200] = "";
    size_t used = 0;
    for (int i = 0; i < a->dim_count; i++) {
        rows = a->dims[i] > 0 ? rows / a->dims[i] : 0;
        used += (size_t)snprintf(shape + used, sizeof shape - used, " %d,", a->dims[i]);
    }
    int length = snprintf(out + 10, capacity - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%lld,%s), }",
                          a->dtype, (long long)rows, shape);
    size_t total = (10 + (size_t)length + 1 + 63) / 64 * 64;
    memset(out + 10 + length, ' ', total - 10 - (size_t)length);
    out[total - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01", 8);
    (void)put((uint8_t *)out + 8, total - 10, 2);
    return total;
}

static sap_status write_member(npz *w, array *a, sap_error *err) {
    enum { LOCAL_HEADER = 30 + 20 };
    char header[1024];
    size_t header_bytes = make_header(a, header, sizeof header);
    a->at = w->at;
    w->at += LOCAL_HEADER + strlen(a->name);
    SAP_TRY(write_at(w, w->out, header, header_bytes, w->at, err));
    a->crc = libdeflate_crc32(0, header, header_bytes);
    w->at += header_bytes;
    a->bytes += header_bytes;
    for (size_t i = 0; i < a->segment_count; i++) {
        segment s = a->segments[i];
        while (s.bytes > 0) {
            size_t n = s.bytes < BLOCK ? (size_t)s.bytes : BLOCK;
            SAP_TRY(read_at(w, w->block, n, s.offset, err));
            SAP_TRY(write_at(w, w->out, w->block, n, w->at, err));
            a->crc = libdeflate_crc32(a->crc, w->block, n);
            w->at += n;
            s.offset += n;
            s.bytes -= n;
        }
    }
    return write_local(w, a, err); /* now that its sum is known */
}

static sap_status write_directory(npz *w, sap_error *err) {
    enum { EXTRA = 28 };
    uint64_t begin = w->at;
    for (size_t i = 0; i < w->count; i++) {
        const array *a = &w->arrays[i];
        uint8_t *out = put(w->block, 0x02014b50, 4);
        out = put(out, ZIP64, 2);
        out = put_member(out, a, EXTRA);
        out = put(out, 0, 2 + 2 + 2 + 4); /* comment, disk, attributes */
        out = put(out, UINT32_MAX, 4);
        out = put_name(out, a, EXTRA);
        out = put(out, a->at, 8);
        SAP_TRY(write_at(w, w->out, w->block, (size_t)(out - w->block), w->at, err));
        w->at += (uint64_t)(out - w->block);
    }
    uint64_t end = w->at;
    uint8_t *out = put(w->block, 0x06064b50, 4); /* ZIP64 end of directory */
    out = put(out, 44, 8);
    out = put(put(out, ZIP64, 2), ZIP64, 2);
    out = put(out, 0, 8); /* disks */
    out = put(put(out, w->count, 8), w->count, 8);
    out = put(put(out, end - begin, 8), begin, 8);
    out = put(out, 0x07064b50, 4); /* where that is */
    out = put(out, 0, 4);
    out = put(put(out, end, 8), 1, 4);
    out = put(out, 0x06054b50, 4); /* end of directory */
    out = put(out, 0, 4);
    out = put(put(out, UINT16_MAX, 2), UINT16_MAX, 2);
    out = put(put(out, UINT32_MAX, 4), UINT32_MAX, 4);
    out = put(out, 0, 2);
    return write_at(w, w->out, w->block, (size_t)(out - w->block), end, err);
}

static void close_writer(void *writer) {
    npz_writer *w = writer;
    for (size_t i = 0; i < w->npz.count; i++)
        free(w->npz.arrays[i].segments);
    free(w->npz.arrays);
    free(w->npz.block);
    if (w->npz.out >= 0)
        (void)close(w->npz.out);
    if (w->npz.waiting >= 0)
        (void)close(w->npz.waiting);
    sap_arena_release(&w->npz.arena);
    free(w);
}

static sap_status open_files(npz *w, const char *path, sap_error *err) {
    w->path = sap_arena_text(&w->arena, path, strlen(path));
    const char *waiting = sap_arena_format(&w->arena, "%s.values", path);
    w->block = malloc(BLOCK + NAME_LENGTH_MOST);
    if (!w->path || !waiting || !w->block)
        return sap_error_memory(err, path);
    w->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    w->waiting = open(waiting, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w->out < 0 || w->waiting < 0)
        return sap_error_errno(err, path);
    return unlink(waiting) == 0 ? SAP_OK : sap_error_errno(err, waiting);
}

static sap_status create(const char *path, const sap_field *fields, int32_t count, void **writer, sap_error *err) {
    npz_writer *w = calloc(1, sizeof *w);
    if (!w)
        return sap_error_memory(err, path);
    w->fields = fields;
    w->npz.out = w->npz.waiting = -1;
    sap_status status = open_files(&w->npz, path, err);
    for (int32_t i = 0; i < count && status == SAP_OK; i++)
        status = add_field(&w->npz, &fields[i], fields[i].name, (around){0}, err);
    if (status == SAP_OK)
        status = check_names(&w->npz, err);
    if (status == SAP_OK)
        *writer = w;
    else
        close_writer(w);
    return status;
}

static sap_status finish(void *writer, sap_error *err) {
    npz_writer *w = writer;
    w->npz.at = 0;
    for (size_t i = 0; i < w->npz.count; i++)
        SAP_TRY(write_member(&w->npz, &w->npz.arrays[i], err));
    SAP_TRY(write_directory(&w->npz, err));
    int failed = close(w->npz.out);
    w->npz.out = -1;
    return failed ? sap_error_errno(err, w->npz.path) : SAP_OK;
}

const sap_format sap_format_npz = {"npz", ".npz", create, write_batch, finish, close_writer};
