/* Files that their writers did not close: no list of keys was written, so the records are gone through one after another.
 * docs/format/tfile.md, § Recovery. */
#include "root_internal.h"

#include <stdlib.h>

enum { RECORD_LEAST = 26, LIKELY = 256, DIRECTORY_BYTES = 64, MOST_RECORDS = 20000000 };

/* A sub-directory that was met: keys name their directory by its place. */
typedef struct folder {
    uint64_t offset;
    const char *path;
} folder;

typedef struct recovery {
    sap_file *file;
    folder *folders;
    size_t folder_count, folder_capacity;
    size_t keys, baskets; /* baskets: behind the last tree, which does not know them */
    uint64_t basket_bytes;
} recovery;

static const char *folder_path(const recovery *r, uint64_t offset) {
    for (size_t i = r->folder_count; i > 0; i--)
        if (r->folders[i - 1].offset == offset)
            return r->folders[i - 1].path;
    return "";
}

/* Whether the record's object is a directory itself, and not the list of its keys: it says where it is. */
static bool is_folder(const recovery *r, const sap_record *record) {
    uint8_t bytes[DIRECTORY_BYTES];
    uint64_t at = record->offset + record->header_bytes;
    size_t length = record->object_bytes < sizeof bytes ? record->object_bytes : sizeof bytes;
    if (at > r->file->size || length > r->file->size - at ||
        sap_source_read(r->file->source, &(sap_range){at, length, bytes}, 1, r->file->opening, NULL) != SAP_OK)
        return false;
    sap_cursor c = sap_cursor_init(bytes, length, at);
    bool wide = sap_cursor_u16(&c) > 1000;
    sap_cursor_skip(&c, 16); /* dates, sizes of the list and of the name */
    return (wide ? sap_cursor_u64(&c) : sap_cursor_u32(&c)) == record->offset && !c.failed;
}

static bool is_one_of(const char *text, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return true;
    return false;
}

static sap_status take_record(recovery *r, const sap_record *record, sap_error *err) {
    static const char *const parts[] = {"TFile", "TBasket", "RBlob", ""};
    static const char *const trees[] = {"TTree", "TNtuple", "TNtupleD"};
    static const char *const directories[] = {"TDirectory", "TDirectoryFile"};
    sap_file *file = r->file;
    if (strcmp(record->class_name, "TBasket") == 0) {
        r->baskets++;
        r->basket_bytes += record->bytes;
    }
    if (is_one_of(record->class_name, parts, sizeof parts / sizeof *parts))
        return SAP_OK;
    if (strcmp(record->name, "StreamerInfo") == 0 && strcmp(record->class_name, "TList") == 0) {
        file->info_offset = record->offset;
        file->info_bytes = record->bytes;
        return SAP_OK;
    }
    bool directory = is_one_of(record->class_name, directories, sizeof directories / sizeof *directories);
    if (directory && !is_folder(r, record))
        return SAP_OK;
    SAP_TRY(sap_file_add_key(file, record, folder_path(r, record->parent), err));
    const sap_key *key = &file->keys[file->key_count - 1];
    r->keys++;
    if (is_one_of(record->class_name, trees, sizeof trees / sizeof *trees)) {
        r->baskets = 0;
        r->basket_bytes = 0;
    }
    if (!directory)
        return SAP_OK;
    if (!sap_grow((void **)&r->folders, &r->folder_capacity, r->folder_count, sizeof *r->folders))
        return sap_error_memory(err, file->name);
    r->folders[r->folder_count++] = (folder){record->offset, key->path};
    return SAP_OK;
}

/* What stands at a place where a record should begin. */
typedef struct found {
    bool record; /* one that fits its place */
    bool gap;    /* one that was deleted */
    uint64_t bytes;
} found;

/* Bytes that cannot be read end the recovery with an error; bytes that make no sense are the end of the records. */
static sap_status read_record(const sap_file *file, uint64_t at, sap_record *record, found *out, sap_error *err) {
    uint8_t memory[SAP_BASKET_HEADER_MOST];
    size_t most = file->size - at < sizeof memory ? (size_t)(file->size - at) : sizeof memory,
           length = most < LIKELY ? most : LIKELY;
    *out = (found){0};
    if (length < 4)
        return SAP_OK;
    SAP_TRY(sap_source_read(file->source, &(sap_range){at, length, memory}, 1, file->opening, err));
    int32_t size = (int32_t)sap_be32(memory);
    out->gap = size < 0;
    out->bytes = (uint64_t)(size < 0 ? -(int64_t)size : size);
    if (out->gap || out->bytes < RECORD_LEAST || out->bytes > file->size - at)
        return SAP_OK;
    if (length >= 16 && sap_be16(memory + 14) > length && length < most) { /* long names */
        length = most;
        SAP_TRY(sap_source_read(file->source, &(sap_range){at, length, memory}, 1, file->opening, err));
    }
    sap_cursor c = sap_cursor_init(memory, length, at);
    sap_record_parse(&c, (sap_arena *)(uintptr_t)&file->arena, record);
    out->record = !c.failed && record->offset == at && record->header_bytes <= record->bytes;
    record->offset = at;
    return SAP_OK;
}

static sap_status describe(recovery *r, uint64_t end, sap_error *err) {
    sap_text text = {0};
    sap_text_add(&text, "not closed properly: %zu objects recovered by going through its records", r->keys);
    if (r->baskets)
        sap_text_add(&text, "; %zu baskets (%llu bytes) behind the last tree belong to no saved tree and are lost",
                     r->baskets, (unsigned long long)r->basket_bytes);
    if (end < r->file->size)
        sap_text_add(&text, "; nothing to be read in its last %llu bytes", (unsigned long long)(r->file->size - end));
    r->file->note = text.failed ? NULL : sap_arena_text(&r->file->arena, text.data, strlen(text.data));
    sap_text_release(&text);
    return r->file->note ? SAP_OK : sap_error_memory(err, r->file->name);
}

sap_status sap_file_recover(sap_file *file, sap_error *err) {
    recovery r = {.file = file};
    sap_status status = SAP_OK;
    uint64_t at = file->begin;
    file->key_count = 0;
    file->info_offset = 0;
    for (size_t i = 0; i < MOST_RECORDS && at < file->size && status == SAP_OK; i++) {
        sap_record record;
        found next;
        status = read_record(file, at, &record, &next, err);
        if (status == SAP_OK && next.record)
            status = take_record(&r, &record, err);
        if ((!next.record && !next.gap) || next.bytes == 0)
            break;
        at += next.bytes;
    }
    if (status == SAP_OK)
        status = describe(&r, at < file->size ? at : file->size, err);
    free(r.folders);
    return status;
}
