/* TFile: its header, directories and keys, and the loading of records. docs/format/tfile.md. */
#include "root_internal.h"

#include <stdlib.h>

enum {
    KEY_LEAST = 18,
    HEADER_BYTES = 64,
    WIDE_FILE = 1000000,
    WIDE_KEY = 1000,
    DEEPEST = 64,
    MOST_KEYS = 10000000,
    LONGEST_PATH = 4096
};

/* ---- Records ------------------------------------------------------------------------------------------- */

static const char *record_text(sap_cursor *c, sap_arena *arena) {
    size_t length = sap_cursor_u8(c);
    if (length == 255)
        length = sap_cursor_u32(c);
    const uint8_t *p = sap_cursor_take(c, length);
    const char *text = p && arena ? sap_arena_text(arena, (const char *)p, length) : NULL;
    return text ? text : "";
}

void sap_record_parse(sap_cursor *c, sap_arena *arena, sap_record *out) {
    *out = (sap_record){0};
    out->bytes = sap_cursor_u32(c);
    out->version = sap_cursor_u16(c);
    out->object_bytes = sap_cursor_u32(c);
    sap_cursor_skip(c, 4); /* date */
    out->header_bytes = sap_cursor_u16(c);
    out->cycle = sap_cursor_u16(c);
    if (out->version > WIDE_KEY) {
        out->offset = sap_cursor_u64(c);
        out->parent = sap_cursor_u64(c);
    } else {
        out->offset = sap_cursor_u32(c);
        out->parent = sap_cursor_u32(c);
    }
    out->class_name = record_text(c, arena);
    out->name = record_text(c, arena);
    out->title = record_text(c, arena);
}

static sap_status read_bytes(const sap_file *file, uint64_t offset, size_t length, uint8_t **out, sap_error *err) {
    if (offset > file->size || length > file->size - offset)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: a record needs %zu bytes, the file ends at 0x%llx",
                             file->name, (unsigned long long)offset, length, (unsigned long long)file->size);
    uint8_t *data = malloc(length ? length : 1);
    if (!data)
        return sap_error_memory(err, file->name);
    sap_range range = {offset, length, data};
    sap_status status = sap_source_read(file->source, &range, 1, file->opening, err);
    if (status != SAP_OK) {
        free(data);
        return status;
    }
    *out = data;
    return SAP_OK;
}

sap_status sap_record_load(const sap_file *file, uint64_t offset, uint64_t bytes, const char *where, sap_record *record,
                           uint8_t **out, sap_error *err) {
    uint8_t *stored = NULL, *object = NULL;
    sap_codec codec = {0};
    if (bytes > SIZE_MAX / 2)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: a record of %llu bytes", where, (unsigned long long)offset,
                             (unsigned long long)bytes);
    SAP_TRY(read_bytes(file, offset, (size_t)bytes, &stored, err));
    sap_cursor c = sap_cursor_init(stored, (size_t)bytes, offset);
    sap_record_parse(&c, NULL, record);
    record->offset = offset;
    sap_status status = sap_cursor_check(&c, where, "record header", err);
    if (status == SAP_OK && (record->bytes > bytes || record->header_bytes > record->bytes))
        status =
            sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: record of %u bytes with a header of %u, %llu expected", where,
                          (unsigned long long)offset, record->bytes, record->header_bytes, (unsigned long long)bytes);
    if (status != SAP_OK)
        goto done;
    const uint8_t *payload = stored + record->header_bytes;
    size_t length = record->bytes - record->header_bytes;
    bool compressed = record->object_bytes > length;
    if (compressed)
        status = sap_codec_check(payload, length, record->object_bytes, where, offset + record->header_bytes, err);
    if (status != SAP_OK)
        goto done;
    object = malloc(record->object_bytes ? record->object_bytes : 1);
    if (!object) {
        status = sap_error_memory(err, where);
        goto done;
    }
    if (compressed)
        status = sap_codec_run(&codec, payload, length, object, record->object_bytes, where,
                               offset + record->header_bytes, err);
    else
        memcpy(object, payload, record->object_bytes);
done:
    sap_codec_release(&codec);
    free(stored);
    if (status != SAP_OK)
        free(object);
    else
        *out = object;
    return status;
}

/* ---- Directories --------------------------------------------------------------------------------------- */

/* Where a directory's list of keys is. */
typedef struct directory {
    uint64_t keys_offset;
    uint32_t keys_bytes;
} directory;

static directory parse_directory(sap_cursor *c) {
    directory d;
    uint16_t version = sap_cursor_u16(c);
    sap_cursor_skip(c, 8); /* dates */
    d.keys_bytes = sap_cursor_u32(c);
    sap_cursor_skip(c, 4); /* fNbytesName */
    if (version > WIDE_KEY) {
        sap_cursor_skip(c, 16);
        d.keys_offset = sap_cursor_u64(c);
    } else {
        sap_cursor_skip(c, 8);
        d.keys_offset = sap_cursor_u32(c);
    }
    return d;
}

static sap_status read_directory(sap_file *file, const directory *d, const char *prefix, int depth, sap_error *err);

static bool is_directory(const char *class_name) {
    return strcmp(class_name, "TDirectory") == 0 || strcmp(class_name, "TDirectoryFile") == 0;
}

static sap_status read_subdirectory(sap_file *file, const sap_record *key, const char *path, int depth,
                                    sap_error *err) {
    uint8_t *data;
    size_t length = key->object_bytes < HEADER_BYTES ? key->object_bytes : HEADER_BYTES;
    if (depth > DEEPEST || strlen(path) > LONGEST_PATH) /* the path stands before the name of each key inside */
        return sap_error_set(err, SAP_EFORMAT, "%s:%.200s: directories nested deeper than %d, or a path of %zu bytes",
                             file->name, path, DEEPEST, strlen(path));
    SAP_TRY(read_bytes(file, key->offset + key->header_bytes, length, &data, err));
    sap_cursor c = sap_cursor_init(data, length, key->offset + key->header_bytes);
    directory d = parse_directory(&c);
    sap_status status = sap_cursor_check(&c, file->name, "directory", err);
    free(data);
    return status == SAP_OK && d.keys_offset ? read_directory(file, &d, path, depth, err) : status;
}

sap_status sap_file_add_key(sap_file *file, const sap_record *record, const char *prefix, sap_error *err) {
    if (!sap_grow((void **)&file->keys, &file->key_capacity, file->key_count, sizeof *file->keys))
        return sap_error_memory(err, file->name);
    const char *path = *prefix ? sap_arena_format(&file->arena, "%s/%s", prefix, record->name) : record->name;
    if (!path)
        return sap_error_memory(err, file->name);
    file->keys[file->key_count++] = (sap_key){.path = path,
                                              .class_name = record->class_name,
                                              .title = record->title,
                                              .cycle = record->cycle & 0x7fff,
                                              .offset = record->offset,
                                              .stored_bytes = record->bytes,
                                              .object_bytes = record->object_bytes};
    return SAP_OK;
}

static sap_status read_directory(sap_file *file, const directory *d, const char *prefix, int depth, sap_error *err) {
    uint8_t *data;
    file->keys_bytes += d->keys_bytes; /* of all lists: together more than the file, some are read again and again */
    if (file->keys_bytes > file->size)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: the lists of keys are larger than the file", file->name,
                             (unsigned long long)d->keys_offset);
    SAP_TRY(read_bytes(file, d->keys_offset, d->keys_bytes, &data, err));
    sap_cursor c = sap_cursor_init(data, d->keys_bytes, d->keys_offset);
    sap_record record;
    sap_record_parse(&c, NULL, &record);
    sap_cursor_seek(&c, record.header_bytes);
    size_t count = sap_cursor_count(&c, sap_cursor_u32(&c), KEY_LEAST);
    sap_status status = SAP_OK;
    for (size_t i = 0; i < count && status == SAP_OK && !c.failed; i++) {
        uint64_t place = c.base + c.position;
        sap_record_parse(&c, &file->arena, &record);
        if (c.failed)
            break;
        if (record.offset == d->keys_offset || record.offset >= file->size || file->key_count >= MOST_KEYS)
            status =
                sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: key \"%s\" points to 0x%llx, outside the file's data",
                              file->name, (unsigned long long)place, record.name, (unsigned long long)record.offset);
        else
            status = sap_file_add_key(file, &record, prefix, err);
        if (status == SAP_OK && is_directory(record.class_name))
            status = read_subdirectory(file, &record, file->keys[file->key_count - 1].path, depth + 1, err);
    }
    free(data);
    return status == SAP_OK ? sap_cursor_check(&c, file->name, "list of keys", err) : status;
}

/* ---- The file ------------------------------------------------------------------------------------------- */

static const char *compression_name(sap_arena *arena, int32_t setting) {
    static const char *const names[] = {"zlib", "zlib", "lzma", "old-zlib", "lz4", "zstd"};
    int algorithm = setting / 100, level = setting % 100;
    if (setting <= 0 || level == 0)
        return "none";
    if (algorithm >= (int)(sizeof names / sizeof *names))
        return "unknown";
    return sap_arena_format(arena, "%s-%d", names[algorithm], level);
}

static sap_status read_header(sap_file *file, directory *top, sap_error *err) {
    uint8_t *data;
    size_t length = file->size < 100 ? (size_t)file->size : 100;
    SAP_TRY(read_bytes(file, 0, length, &data, err));
    sap_cursor c = sap_cursor_init(data, length, 0);
    const uint8_t *magic = sap_cursor_take(&c, 4);
    sap_status status = SAP_OK;
    if (!magic || memcmp(magic, "root", 4) != 0)
        status = sap_error_set(err, SAP_EFORMAT, "%s: not a ROOT file (it does not begin with \"root\")", file->name);
    uint32_t version = sap_cursor_u32(&c), begin = sap_cursor_u32(&c), name_bytes;
    uint64_t end;
    file->wide = version >= WIDE_FILE;
    file->version = (int)(version % WIDE_FILE);
    if (file->wide) {
        end = sap_cursor_u64(&c);
        sap_cursor_skip(&c, 16); /* fSeekFree, fNbytesFree, nfree */
    } else {
        end = sap_cursor_u32(&c);
        sap_cursor_skip(&c, 12);
    }
    name_bytes = sap_cursor_u32(&c);
    sap_cursor_skip(&c, 1);
    file->compress = sap_cursor_i32(&c);
    file->info_offset = file->wide ? sap_cursor_u64(&c) : sap_cursor_u32(&c);
    file->info_bytes = sap_cursor_u32(&c);
    if (status == SAP_OK)
        status = sap_cursor_check(&c, file->name, "file header", err);
    free(data);
    SAP_TRY(status);
    file->begin = begin;
    file->end = end;
    file->compression = compression_name(&file->arena, file->compress);
    if (!file->compression)
        return sap_error_memory(err, file->name);

    uint64_t at = (uint64_t)begin + name_bytes;
    if (at >= file->size || name_bytes == 0) { /* not even its top directory was written */
        *top = (directory){0};
        return SAP_OK;
    }
    length = file->size > at ? (size_t)(file->size - at < HEADER_BYTES ? file->size - at : HEADER_BYTES) : 0;
    SAP_TRY(read_bytes(file, at, length, &data, err));
    c = sap_cursor_init(data, length, at);
    *top = parse_directory(&c);
    status = sap_cursor_check(&c, file->name, "top directory", err);
    free(data);
    return status;
}

/* A file that was not closed has no list of keys: what can be found without is better than nothing. Not so one that is cut
 * short, as by a transfer that broke off: the rest of it is elsewhere. */
static sap_status open_directory(sap_file *file, const directory *top, sap_error *err) {
    if (file->end > file->size)
        return sap_error_set(err, SAP_EFORMAT, "%s: the file is cut short: its header says %llu bytes, it has %llu",
                             file->name, (unsigned long long)file->end, (unsigned long long)file->size);
    if (top->keys_offset != 0)
        return read_directory(file, top, "", 0, err);
    SAP_TRY(sap_file_recover(file, err));
    if (file->key_count == 0)
        return sap_error_set(err, SAP_EFORMAT,
                             "%s: the file was not closed by its writer: it has no list of keys, and no whole object",
                             file->name);
    return SAP_OK;
}

sap_status sap_file_open(const char *url, const sap_run *run, sap_file **out, sap_error *err) {
    SAP_TRY(sap_run_check(run, err));
    sap_file *file = calloc(1, sizeof *file);
    if (!file)
        return sap_error_memory(err, url);
    pthread_mutex_init(&file->lock, NULL);
    file->opening = run;
    directory top;
    sap_status status = sap_source_open(url, run, &file->source, err);
    if (status == SAP_OK) {
        file->name = sap_source_name(file->source);
        file->size = sap_source_size(file->source);
        status = read_header(file, &top, err);
    }
    if (status == SAP_OK)
        status = open_directory(file, &top, err);
    if (status != SAP_OK) {
        sap_file_close(file);
        return status;
    }
    file->opening = NULL;
    *out = file;
    return SAP_OK;
}

void sap_file_close(sap_file *file) {
    if (!file)
        return;
    sap_source_close(file->source);
    sap_arena_release(&file->arena);
    sap_arena_release(&file->class_arena);
    free(file->classes);
    free(file->class_table);
    free(file->keys);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

void sap_file_report_note(const sap_file *file, const sap_run *run) {
    sap_text text = {0};
    if (!file->note)
        return;
    sap_text_add(&text, "%s: %s", file->name, file->note);
    sap_run_report(run, "open", "files", 0, 0, text.failed ? file->note : text.data);
    sap_text_release(&text);
}

size_t sap_file_key_count(const sap_file *file) {
    return file->key_count;
}

const sap_key *sap_file_key(const sap_file *file, size_t index) {
    return index < file->key_count ? &file->keys[index] : NULL;
}

const char *sap_file_name(const sap_file *file) {
    return file->name;
}

const sap_source *sap_file_source(const sap_file *file) {
    return file->source;
}

static void count(const sap_file *file, size_t stored_bytes, size_t bytes, uint64_t nanoseconds) {
    sap_file *inside = (sap_file *)(uintptr_t)file;
    atomic_fetch_add_explicit(&inside->unpacked.baskets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&inside->unpacked.stored_bytes, stored_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&inside->unpacked.bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&inside->unpacked.nanoseconds, nanoseconds, memory_order_relaxed);
}

void sap_file_count(const sap_file *file, size_t stored_bytes, size_t bytes) {
    count(file, stored_bytes, bytes, 0);
}

sap_status sap_file_unpack(const sap_file *file, sap_codec *codec, const uint8_t *data, size_t length, uint8_t *out,
                           size_t size, const char *where, uint64_t offset, sap_error *err) {
    int64_t begin = sap_nanoseconds();
    sap_status status = sap_codec_run(codec, data, length, out, size, where, offset, err);
    count(file, length, size, (uint64_t)(sap_nanoseconds() - begin));
    return status;
}

void sap_file_stats_get(const sap_file *file, sap_file_stats *out) {
    out->baskets = atomic_load_explicit(&file->unpacked.baskets, memory_order_relaxed);
    out->stored_bytes = atomic_load_explicit(&file->unpacked.stored_bytes, memory_order_relaxed);
    out->bytes = atomic_load_explicit(&file->unpacked.bytes, memory_order_relaxed);
    out->unpack_seconds = (double)atomic_load_explicit(&file->unpacked.nanoseconds, memory_order_relaxed) * 1e-9;
}

uint64_t sap_file_size(const sap_file *file) {
    return file->size;
}

int sap_file_version(const sap_file *file) {
    return file->version;
}

const char *sap_file_compression(const sap_file *file) {
    return file->compression;
}

const char *sap_file_note(const sap_file *file) {
    return file->note;
}
