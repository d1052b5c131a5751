/* Streamer info: how the file describes its classes, and the finding of a class by name and version.
 * docs/format/tfile.md, § Streamer info. */
#include "root_internal.h"

#include <stdlib.h>

size_t sap_kind_size(int kind) {
    switch (kind) {
    case SAP_KIND_CHAR:
    case SAP_KIND_UCHAR:
    case SAP_KIND_LEGACY_CHAR:
    case SAP_KIND_BOOL:
        return 1;
    case SAP_KIND_SHORT:
    case SAP_KIND_USHORT:
        return 2;
    case SAP_KIND_INT:
    case SAP_KIND_UINT:
    case SAP_KIND_COUNTER:
    case SAP_KIND_BITS:
    case SAP_KIND_FLOAT:
        return 4;
    case SAP_KIND_LONG:
    case SAP_KIND_ULONG:
    case SAP_KIND_LONG64:
    case SAP_KIND_ULONG64:
    case SAP_KIND_DOUBLE:
        return 8;
    default:
        return 0;
    }
}

/* ---- Reading -------------------------------------------------------------------------------------------- */

/* TStreamerElement, the base of all kinds of elements. */
static void read_element_base(sap_stream *s, sap_element *e) {
    sap_frame frame = sap_frame_read(&s->c);
    size_t named = s->c.position;
    sap_stream_named(s, &e->name, &e->title);
    e->kind = sap_cursor_i32(&s->c);
    sap_cursor_skip(&s->c, 4); /* size in memory */
    e->length = sap_cursor_i32(&s->c);
    int32_t dims = sap_cursor_i32(&s->c);
    e->dim_count = dims < 0 ? 0 : dims > 5 ? 5 : dims;
    if (frame.version == 1) {
        size_t n = sap_cursor_count(&s->c, sap_cursor_u32(&s->c), 4);
        for (size_t i = 0; i < n; i++) {
            int32_t dim = sap_cursor_i32(&s->c);
            if (i < 5)
                e->dims[i] = dim;
        }
    } else {
        /* TStreamerBase keeps the checksum of the base class in fMaxIndex[0] */
        for (int i = 0; i < 5; i++)
            e->dims[i] = sap_cursor_i32(&s->c);
    }
    e->base_checksum = (uint32_t)e->dims[0];
    e->type_name = sap_stream_text(s);
    if (named == s->c.position)
        sap_stream_fail(s, "an empty element");
    sap_frame_leave(&s->c, &frame);
}

static bool read_element(sap_stream *s, const char *class_name, void **object) {
    static const char prefix[] = "TStreamer";
    if (strncmp(class_name, prefix, sizeof prefix - 1) != 0)
        return false;
    sap_element *e = sap_arena_alloc(s->arena, sizeof *e);
    if (!e)
        return sap_stream_fail(s, "out of memory");
    const char *kind = class_name + sizeof prefix - 1;
    sap_frame frame = sap_frame_read(&s->c), inner = {.end = SIZE_MAX};
    if (strcmp(kind, "STLstring") == 0)
        inner = sap_frame_read(&s->c);
    read_element_base(s, e);
    if (strcmp(kind, "Base") == 0) { /* TObject and TNamed have kinds of their own, also as bases */
        e->kind = SAP_KIND_BASE;
        e->base_version = frame.version > 1 ? sap_cursor_i32(&s->c) : 0;
    }
    if (strcmp(kind, "BasicPointer") == 0 || strcmp(kind, "Loop") == 0) {
        sap_cursor_skip(&s->c, 4);
        e->count_name = sap_stream_text(s);
    }
    sap_frame_leave(&s->c, &inner);
    sap_frame_leave(&s->c, &frame);
    *object = e;
    return true;
}

static bool read_element_array(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "TObjArray") != 0)
        return false;
    sap_objects *list = sap_arena_alloc(s->arena, sizeof *list);
    if (!list)
        return sap_stream_fail(s, "out of memory");
    sap_stream_objarray(s, read_element, list);
    *object = list;
    return true;
}

static bool read_info(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "TStreamerInfo") != 0)
        return false;
    if (!sap_grow((void **)&s->file->classes, &s->file->class_capacity, s->file->class_count, sizeof(sap_class)))
        return sap_stream_fail(s, "out of memory");
    sap_class info = {0};
    sap_frame frame = sap_frame_read(&s->c);
    sap_stream_named(s, &info.name, NULL);
    info.checksum = sap_cursor_u32(&s->c);
    info.version = sap_cursor_i32(&s->c);
    const char *list_class;
    sap_objects *list = sap_stream_object(s, read_element_array, &list_class);
    if (list && strcmp(list_class, "TObjArray") != 0)
        return sap_stream_fail(s, "the members of class %s are a %s", info.name, list_class);
    if (list && list->count) {
        info.elements = sap_arena_array(s->arena, list->count, sizeof *info.elements);
        if (!info.elements)
            return sap_stream_fail(s, "out of memory");
        for (size_t i = 0; i < list->count; i++)
            if (list->items[i].object && strncmp(list->items[i].class_name, "TStreamer", 9) == 0)
                info.elements[info.count++] = *(sap_element *)list->items[i].object;
    }
    sap_frame_leave(&s->c, &frame);
    s->file->classes[s->file->class_count++] = info;
    *object = NULL;
    return true;
}

/* ---- Finding --------------------------------------------------------------------------------------------- */

static uint32_t *table_slot(const sap_file *file, const char *name) {
    size_t mask = file->class_table_size - 1;
    size_t i = (size_t)sap_hash(name, strlen(name), 0) & mask;
    while (file->class_table[i] && strcmp(file->classes[file->class_table[i] - 1].name, name) != 0)
        i = (i + 1) & mask;
    return &file->class_table[i];
}

static sap_status index_classes(sap_file *file, sap_error *err) {
    size_t size = 16;
    while (size < 2 * file->class_count)
        size *= 2;
    free(file->class_table);
    file->class_table = calloc(size, sizeof *file->class_table);
    if (!file->class_table)
        return sap_error_memory(err, file->name);
    file->class_table_size = size;
    for (size_t i = 0; i < file->class_count; i++) {
        uint32_t *slot = table_slot(file, file->classes[i].name);
        file->classes[i].next = *slot;
        *slot = (uint32_t)i + 1;
    }
    return SAP_OK;
}

static sap_status read_classes(sap_file *file, sap_error *err) {
    if (file->info_offset == 0 || file->info_bytes == 0)
        return index_classes(file, err);
    char where[512];
    (void)snprintf(where, sizeof where, "%s:StreamerInfo", file->name);
    sap_record record;
    uint8_t *data;
    SAP_TRY(sap_record_load(file, file->info_offset, file->info_bytes, where, &record, &data, err));
    sap_stream s = {.c = sap_cursor_init(data, record.object_bytes, 0),
                    .file = file,
                    .arena = &file->class_arena,
                    .origin = record.header_bytes,
                    .where = where};
    sap_objects list;
    sap_stream_list(&s, read_info, &list);
    sap_status status = sap_stream_check(&s, "streamer info", err);
    sap_stream_release(&s);
    free(data);
    return status == SAP_OK ? index_classes(file, err) : status;
}

sap_status sap_classes_read(sap_file *file, sap_error *err) {
    pthread_mutex_lock(&file->lock);
    sap_status status = file->classes_read ? SAP_OK : read_classes(file, err);
    if (status == SAP_OK)
        file->classes_read = true;
    else
        file->class_count = 0;
    pthread_mutex_unlock(&file->lock);
    return status;
}

static bool read_info_list(sap_stream *s, const char *class_name, void **object) {
    sap_objects list;
    if (strcmp(class_name, "TList") != 0)
        return false;
    sap_stream_list(s, read_info, &list);
    *object = NULL;
    return true;
}

sap_status sap_classes_add(sap_file *file, const uint8_t *data, size_t length, const char *where, sap_error *err) {
    SAP_TRY(sap_classes_read(file, err));
    sap_stream s = {.c = sap_cursor_init(data, length, 0), .file = file, .arena = &file->class_arena, .where = where};
    const char *class_name;
    (void)sap_stream_object(&s, read_info_list, &class_name);
    sap_status status = sap_stream_check(&s, "streamer info", err);
    sap_stream_release(&s);
    return status == SAP_OK ? index_classes(file, err) : status;
}

const sap_class *sap_class_find(const sap_file *file, const char *name, int version, uint32_t checksum) {
    if (!file->class_table)
        return NULL;
    const sap_class *best = NULL;
    for (uint32_t i = *table_slot(file, name); i; i = file->classes[i - 1].next) {
        const sap_class *candidate = &file->classes[i - 1];
        if (checksum && candidate->checksum == checksum)
            return candidate;
        if (version >= 0 && !checksum && candidate->version == version)
            return candidate;
        if (version < 0 && (!best || candidate->version > best->version))
            best = candidate;
    }
    return best;
}

const sap_class *sap_class_version(const sap_file *file, const char *name, const sap_class *after) {
    uint32_t i = after ? after->next : file->class_table ? *table_slot(file, name) : 0;
    return i ? &file->classes[i - 1] : NULL;
}

/* looks: how many classes may be looked at; a damaged description may name a class its own base, many times. */
static bool class_is(const sap_file *file, const char *name, const char *base, int depth, int *looks) {
    if (strcmp(name, base) == 0)
        return true;
    const sap_class *info = depth < 20 && --*looks > 0 ? sap_class_find(file, name, -1, 0) : NULL;
    for (size_t i = 0; info && i < info->count; i++)
        if (info->elements[i].kind == SAP_KIND_BASE && class_is(file, info->elements[i].name, base, depth + 1, looks))
            return true;
    return false;
}

bool sap_class_is(const sap_file *file, const char *name, const char *base) {
    int looks = 1000;
    return class_is(file, name, base, 0, &looks);
}

const char *sap_class_common(const sap_file *file, const char *name, const char *other) {
    for (int depth = 0; name && depth < 20; depth++) {
        if (sap_class_is(file, other, name))
            return name;
        const sap_class *info = sap_class_find(file, name, -1, 0);
        bool derived = info && info->count && info->elements[0].kind == SAP_KIND_BASE;
        name = derived ? info->elements[0].name : NULL;
    }
    return NULL;
}

/* ---- ROOT's own ------------------------------------------------------------------------------------------------ */

#define OBJECT_BASE                                                                                                    \
    { .name = "TObject", .type_name = "BASE", .title = "", .kind = SAP_KIND_BASE }
#define MEMBER(member, of_kind, type)                                                                                  \
    { .name = member, .type_name = type, .title = "", .kind = of_kind }
#define CLASS(class_name, number, ...)                                                                                 \
    {                                                                                                                  \
        .name = class_name, .version = number, .elements = (sap_element[]){__VA_ARGS__},                               \
        .count = sizeof((sap_element[]){__VA_ARGS__}) / sizeof(sap_element)                                            \
    }

static const sap_class known[] = {
    CLASS("TNamed", 1, OBJECT_BASE, MEMBER("fName", SAP_KIND_TSTRING, "TString"),
          MEMBER("fTitle", SAP_KIND_TSTRING, "TString")),
    CLASS("TObjString", 1, OBJECT_BASE, MEMBER("fString", SAP_KIND_TSTRING, "TString")),
    CLASS("TVector2", 3, OBJECT_BASE, MEMBER("fX", SAP_KIND_DOUBLE, "double"), MEMBER("fY", SAP_KIND_DOUBLE, "double")),
    CLASS("TVector3", 3, OBJECT_BASE, MEMBER("fX", SAP_KIND_DOUBLE, "double"), MEMBER("fY", SAP_KIND_DOUBLE, "double"),
          MEMBER("fZ", SAP_KIND_DOUBLE, "double")),
    CLASS("TLorentzVector", 4, OBJECT_BASE, MEMBER("fP", SAP_KIND_OBJECT, "TVector3"),
          MEMBER("fE", SAP_KIND_DOUBLE, "double")),
    CLASS("TBits", 3, OBJECT_BASE, MEMBER("fNbits", SAP_KIND_UINT, "unsigned int"),
          MEMBER("fNbytes", SAP_KIND_COUNTER, "unsigned int"),
          {.name = "fAllBits",
           .type_name = "unsigned char*",
           .title = "[fNbytes]",
           .kind = SAP_KIND_OFFSET_P + SAP_KIND_UCHAR,
           .count_name = "fNbytes"}),
};

const sap_class *sap_class_known(const char *name) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    return NULL;
}
