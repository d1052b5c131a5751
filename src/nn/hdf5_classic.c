/* HDF5 files as h5py writes them, read without the HDF5 library, which is not safe from bytes that mean harm: superblocks 0 and 1,
 * groups as B-trees of symbols, object headers of version 1, contiguous and compact data sets, attributes of text.
 *
 * Source: the HDF5 File Format Specification, version 3.0 (its section numbers stand below). Numbers are little-endian,
 * addresses and lengths take 8 bytes.
 */
#include "keras_hdf5.h"

#include "../base/cursor.h"

#include <stdlib.h>

enum {
    DEPTH_MOST = 24,      /* of groups and of their trees */
    OBJECTS_MOST = 65536, /* entries and nodes of all trees */
    MESSAGES_MOST = 4096, /* of an object */
    PARTS_MOST = 256,     /* that a long list of names is cut into */
    PATH_MOST = 1024
};
#define UNDEFINED UINT64_MAX

enum { SPACE = 1, TYPE = 3, LAYOUT = 8, ATTRIBUTE = 12, CONTINUATION = 16, TABLE = 17 }; /* messages: IV.A.2 */

typedef struct reader {
    const char *name;
    const uint8_t *data;
    size_t length;
    bool named; /* groups list the names of their weights */
    sap_arena *arena;
    sap_keras_file *out;
    size_t array_capacity, list_capacity;
    size_t objects;                /* visited */
    size_t values_left, text_left; /* bytes that arrays and texts may still take: no more than the file justifies */
    sap_error *err;
} reader;

typedef struct datatype {
    int class_of;  /* 0: integer, 1: float, 3: text, 9: of variable length */
    uint32_t size; /* bytes of a value */
    bool plain;    /* little-endian, and an IEEE float of its size */
    bool text;
} datatype;

typedef struct dataspace {
    int32_t rank;
    int64_t shape[SAP_KERAS_RANK];
    size_t count;
    bool known; /* not null, and of at most SAP_KERAS_RANK dimensions */
} dataspace;

/* What an object header holds of interest. */
typedef struct object {
    bool group, has_space, has_type, has_layout;
    uint64_t tree, heap;
    dataspace space;
    datatype type;
    sap_cursor values; /* bytes of a data set */
} object;

static sap_status bad(const reader *r, uint64_t address, const char *what) {
    return sap_error_set(r->err, SAP_EFORMAT, "%s @0x%llx: %s", r->name, (unsigned long long)address, what);
}

static sap_status unsupported(const reader *r, const char *path, const char *what) {
    return sap_error_set(r->err, SAP_EUNSUPPORTED, "%s:%s: %s, which is not supported", r->name, path, what);
}

/* The bytes from an address on; none when it is behind the end. */
static sap_cursor bytes_at(const reader *r, uint64_t address) {
    bool inside = address < r->length;
    sap_cursor c = sap_cursor_init(r->data + (inside ? address : 0), inside ? r->length - (size_t)address : 0, address);
    if (!inside)
        sap_cursor_fail(&c, 1);
    return c;
}

static bool begins_with(sap_cursor *c, const char *signature) {
    const uint8_t *p = sap_cursor_take(c, 4);
    return p && memcmp(p, signature, 4) == 0;
}

/* ---- Messages ------------------------------------------------------------------------------------------- */

/* IV.A.2.b */
static dataspace read_space(sap_cursor *c) {
    dataspace space = {.count = 1, .known = true};
    uint8_t version = sap_cursor_u8(c);
    space.rank = sap_cursor_u8(c);
    sap_cursor_skip(c, 1); /* flags: largest sizes follow */
    uint8_t kind = sap_cursor_u8(c);
    if (version == 1)
        sap_cursor_skip(c, 4);
    space.known = (version == 1 || (version == 2 && kind <= 1)) && space.rank <= SAP_KERAS_RANK;
    for (int32_t i = 0; space.known && i < space.rank; i++) {
        uint64_t size = sap_cursor_le64(c);
        if (size > INT32_MAX || __builtin_mul_overflow(space.count, (size_t)size, &space.count))
            space.known = false;
        space.shape[i] = (int64_t)size;
    }
    return space;
}

/* IV.A.2.d */
static datatype read_type(sap_cursor *c) {
    uint8_t first = sap_cursor_u8(c), bits = sap_cursor_u8(c);
    sap_cursor_skip(c, 2);
    datatype type = {.class_of = first & 15, .size = sap_cursor_le32(c)};
    if (type.class_of == 0)
        type.plain = !(bits & 1) && (type.size == 4 || type.size == 8);
    type.text = type.class_of == 3 || (type.class_of == 9 && (bits & 15) == 1);
    if (type.class_of == 1) {
        const uint8_t *p = sap_cursor_take(c, 8); /* offset, precision, places of exponent and mantissa */
        static const uint8_t single[8] = {0, 0, 32, 0, 23, 8, 0, 23}, twice[8] = {0, 0, 64, 0, 52, 11, 0, 52};
        type.plain = p && !(bits & 0x41) && memcmp(p, type.size == 4 ? single : twice, 8) == 0 &&
                     (type.size == 4 || type.size == 8);
    }
    return type;
}

/* IV.A.2.i */
static sap_status read_layout(const reader *r, sap_cursor *c, const char *path, object *o) {
    uint8_t version = sap_cursor_u8(c), kind = sap_cursor_u8(c);
    if (version != 3 || kind > 1)
        return unsupported(r, path, version == 3 && kind == 2 ? "a data set in chunks" : "the layout of a data set");
    if (kind == 0) {
        o->values = sap_cursor_sub(c, sap_cursor_le16(c));
        return SAP_OK;
    }
    uint64_t address = sap_cursor_le64(c), size = sap_cursor_le64(c);
    if (address == UNDEFINED || size == 0) { /* nothing is stored */
        o->values = sap_cursor_init(r->data, 0, 0);
        return SAP_OK;
    }
    sap_cursor all = bytes_at(r, address);
    if (size > sap_cursor_left(&all))
        return bad(r, address, "a data set reaches behind the end");
    o->values = sap_cursor_sub(&all, (size_t)size);
    return SAP_OK;
}

/* An attribute: its name, and cursors over the rest. IV.A.2.m */
typedef struct attribute {
    const char *name; /* of name_length bytes, terminated if the file is good */
    size_t name_length;
    datatype type;
    dataspace space;
    sap_cursor values;
} attribute;

static attribute read_attribute(sap_cursor *c) {
    attribute a = {0};
    uint8_t version = sap_cursor_u8(c), flags = sap_cursor_u8(c);
    size_t name = sap_cursor_le16(c), type = sap_cursor_le16(c), space = sap_cursor_le16(c);
    if (version == 3)
        sap_cursor_skip(c, 1);         /* of the character set */
    size_t pad = version == 1 ? 7 : 0; /* parts are filled up to multiples of 8 */
    sap_cursor names = sap_cursor_sub(c, (name + pad) & ~pad), types = sap_cursor_sub(c, (type + pad) & ~pad);
    sap_cursor spaces = sap_cursor_sub(c, (space + pad) & ~pad);
    if (version < 1 || version > 3 || (version > 1 && flags != 0)) /* a shared type: not Keras' */
        sap_cursor_fail(c, 0);
    a.name = (const char *)sap_cursor_take(&names, name);
    a.name_length = a.name ? strnlen(a.name, name) : 0;
    a.type = read_type(&types);
    a.space = read_space(&spaces);
    a.values = sap_cursor_sub(c, sap_cursor_left(c));
    if (types.failed || spaces.failed)
        sap_cursor_fail(c, 0);
    return a;
}

/* ---- Object headers ------------------------------------------------------------------------------------- */

typedef sap_status visit_message(void *context, int kind, sap_cursor *message);

/* Calls visit with every message of the object header at that address. IV.A.1.a */
static sap_status visit_messages(const reader *r, uint64_t address, visit_message *visit, void *context) {
    sap_cursor block = bytes_at(r, address);
    uint8_t version = sap_cursor_u8(&block);
    sap_cursor_skip(&block, 1);
    int left = sap_cursor_le16(&block);
    sap_cursor_skip(&block, 4); /* reference count */
    uint32_t size = sap_cursor_le32(&block);
    sap_cursor_skip(&block, 4);
    block = sap_cursor_sub(&block, size);
    if (block.failed || version != 1)
        return bad(r, address, "no object header of version 1");
    if (left > MESSAGES_MOST)
        return bad(r, address, "an object header with too many messages");
    uint64_t next[PARTS_MOST][2]; /* further blocks: address, length */
    int blocks = 0, done = 0;
    for (; left > 0; left--) {
        while (sap_cursor_left(&block) < 8 && done < blocks) {
            sap_cursor all = bytes_at(r, next[done][0]);
            block = sap_cursor_sub(&all, next[done][1] < r->length ? (size_t)next[done][1] : r->length);
            done++;
        }
        int kind = sap_cursor_le16(&block), bytes = sap_cursor_le16(&block), flags = sap_cursor_u8(&block);
        sap_cursor_skip(&block, 3);
        sap_cursor message = sap_cursor_sub(&block, (size_t)bytes);
        if (block.failed)
            return bad(r, address, "an object header ends within a message");
        if (kind == CONTINUATION) {
            if (blocks == PARTS_MOST)
                return bad(r, address, "an object header in too many pieces");
            next[blocks][0] = sap_cursor_le64(&message);
            next[blocks++][1] = sap_cursor_le64(&message);
        } else if (!(flags & 2)) { /* the message itself, not a reference to one */
            SAP_TRY(visit(context, kind, &message));
        }
    }
    return SAP_OK;
}

typedef struct object_context {
    const reader *reader;
    const char *path;
    object *object;
} object_context;

static sap_status note_message(void *context, int kind, sap_cursor *message) {
    const object_context *at = context;
    object *o = at->object;
    sap_status status = SAP_OK;
    if (kind == SPACE) {
        o->space = read_space(message);
        o->has_space = true;
    } else if (kind == TYPE) {
        o->type = read_type(message);
        o->has_type = true;
    } else if (kind == LAYOUT) {
        status = read_layout(at->reader, message, at->path, o);
        o->has_layout = true;
    } else if (kind == TABLE) {
        o->tree = sap_cursor_le64(message);
        o->heap = sap_cursor_le64(message);
        o->group = true;
    }
    return status == SAP_OK && message->failed ? bad(at->reader, message->base, "a message is cut short") : status;
}

/* ---- Texts ---------------------------------------------------------------------------------------------- */

/* The text of an object in a global heap, III.E; NULL: there is none. */
static const char *heap_text(reader *r, uint64_t address, uint32_t index, size_t length) {
    sap_cursor c = bytes_at(r, address);
    if (!begins_with(&c, "GCOL"))
        return NULL;
    sap_cursor_skip(&c, 4);
    uint64_t size = sap_cursor_le64(&c);
    sap_cursor heap = sap_cursor_sub(&c, size >= 16 && size - 16 <= sap_cursor_left(&c) ? (size_t)size - 16 : 0);
    while (sap_cursor_left(&heap) >= 16) {
        uint16_t number = sap_cursor_le16(&heap);
        sap_cursor_skip(&heap, 6);
        uint64_t bytes = sap_cursor_le64(&heap);
        if (number == 0 || bytes > sap_cursor_left(&heap))
            return NULL;
        if (number == index)
            return length <= bytes ? (const char *)sap_cursor_take(&heap, length) : NULL;
        sap_cursor_skip(&heap, ((size_t)bytes + 7) & ~(size_t)7);
    }
    return NULL;
}

/* Copies the texts of an attribute; *count 0 where it has none (Keras stores an empty list as an array of numbers). */
static sap_status copy_texts(reader *r, attribute *a, const char ***out, size_t *count) {
    *count = 0;
    if (!a->type.text || !a->space.known || a->space.count == 0)
        return SAP_OK;
    bool variable = a->type.class_of == 9;
    size_t size = variable ? 16 : a->type.size; /* length, address and number of each */
    size_t values = sap_cursor_count(&a->values, a->space.count, size);
    if (size == 0 || values == 0 || values > OBJECTS_MOST)
        return bad(r, a->values.base, "an attribute claims more texts than it holds");
    *out = sap_arena_array(r->arena, values, sizeof **out);
    if (!*out)
        return sap_error_memory(r->err, r->name);
    for (size_t i = 0; i < values; i++) {
        const char *text;
        size_t length = size;
        if (variable) {
            length = sap_cursor_le32(&a->values);
            uint64_t address = sap_cursor_le64(&a->values);
            text = heap_text(r, address, sap_cursor_le32(&a->values), length);
        } else {
            text = (const char *)sap_cursor_take(&a->values, size);
        }
        if (!text)
            return bad(r, a->values.base, "a text is not where an attribute says");
        length = strnlen(text, length);
        if (length >= r->text_left)
            return bad(r, a->values.base, "the texts are longer than the file");
        r->text_left -= length + 1;
        (*out)[i] = sap_arena_text(r->arena, text, length);
        if (!(*out)[i])
            return sap_error_memory(r->err, r->name);
    }
    *count = values;
    return SAP_OK;
}

typedef struct text_context {
    reader *reader;
    const char *name; /* wanted */
    const char **texts;
    size_t count;
} text_context;

static sap_status note_text(void *context, int kind, sap_cursor *message) {
    text_context *at = context;
    if (kind != ATTRIBUTE || at->count)
        return SAP_OK;
    attribute a = read_attribute(message);
    if (message->failed || a.name_length != strlen(at->name) || memcmp(a.name, at->name, a.name_length) != 0)
        return SAP_OK;
    return copy_texts(at->reader, &a, &at->texts, &at->count);
}

/* The texts of the attribute of that name of the object at `address`. */
static sap_status find_texts(reader *r, uint64_t address, const char *name, const char ***out, size_t *count) {
    text_context context = {.reader = r, .name = name};
    SAP_TRY(visit_messages(r, address, note_text, &context));
    *out = context.texts;
    *count = context.count;
    return SAP_OK;
}

static sap_status add_names(reader *r, const char *path, const char **names, size_t count) {
    sap_keras_file *out = r->out;
    if (out->list_count == r->list_capacity) {
        size_t capacity = r->list_capacity ? r->list_capacity * 2 : 32;
        sap_keras_names *lists = sap_arena_array(r->arena, capacity, sizeof *lists);
        if (!lists)
            return sap_error_memory(r->err, r->name);
        if (out->list_count)
            memcpy(lists, out->lists, out->list_count * sizeof *lists);
        out->lists = lists;
        r->list_capacity = capacity;
    }
    path = sap_arena_text(r->arena, path, strlen(path));
    out->lists[out->list_count++] = (sap_keras_names){path, names, count};
    return path ? SAP_OK : sap_error_memory(r->err, r->name);
}

/* The attribute weight_names of a group, whole, or in parts weight_names0, weight_names1, … where it was too long. */
static sap_status read_names(reader *r, uint64_t address, const char *path) {
    const char **names, **more;
    size_t count, further;
    SAP_TRY(find_texts(r, address, "weight_names", &names, &count));
    for (int part = 0; part < PARTS_MOST; part++) {
        char name[40];
        (void)snprintf(name, sizeof name, "weight_names%d", part);
        SAP_TRY(find_texts(r, address, name, &more, &further));
        if (further == 0)
            break;
        const char **both = sap_arena_array(r->arena, count + further, sizeof *both);
        if (!both)
            return sap_error_memory(r->err, r->name);
        if (count)
            memcpy(both, names, count * sizeof *both);
        memcpy(both + count, more, further * sizeof *both);
        names = both;
        count += further;
    }
    return count ? add_names(r, path, names, count) : SAP_OK;
}

/* ---- Data sets ------------------------------------------------------------------------------------------ */

static sap_status read_values(reader *r, object *o, const char *path, sap_keras_array *out) {
    size_t size = o->type.size, count;
    out->rank = o->space.rank;
    memcpy(out->shape, o->space.shape, sizeof out->shape);
    if (!o->type.plain || o->type.class_of > 1)
        return SAP_OK; /* not a weight: left out, and missed only if a layer needs it */
    if (o->space.count > sap_cursor_left(&o->values) / size || o->space.count > r->values_left / size)
        return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: claims %zu values of %zu bytes, which the file does not hold",
                             r->name, path, o->space.count, size);
    count = o->space.count;
    r->values_left -= count * size;
    if (o->type.class_of == 0) {
        if (out->rank == 0)
            out->integer = size == 8 ? (int64_t)sap_cursor_le64(&o->values) : (int32_t)sap_cursor_le32(&o->values);
        return SAP_OK;
    }
    out->values = sap_arena_array(r->arena, count + 1, sizeof(float));
    if (!out->values)
        return sap_error_memory(r->err, r->name);
    if (size == sizeof(float) && count)
        memcpy(out->values, sap_cursor_take(&o->values, count * size), count * size);
    for (size_t i = 0; size != sizeof(float) && i < count; i++)
        out->values[i] = (float)sap_cursor_lef64(&o->values);
    return SAP_OK;
}

static sap_status add_array(reader *r, object *o, const char *path) {
    sap_keras_file *out = r->out;
    sap_keras_array array = {.path = sap_arena_text(r->arena, path, strlen(path))};
    if (!array.path)
        return sap_error_memory(r->err, r->name);
    if (!o->has_space || !o->has_type || !o->has_layout || !o->space.known)
        return sap_error_set(r->err, SAP_EFORMAT, "%s:%s: is no data set of at most %d dimensions", r->name, path,
                             SAP_KERAS_RANK);
    SAP_TRY(read_values(r, o, path, &array));
    if (out->array_count == r->array_capacity) {
        size_t capacity = r->array_capacity ? r->array_capacity * 2 : 32;
        sap_keras_array *arrays = sap_arena_array(r->arena, capacity, sizeof *arrays);
        if (!arrays)
            return sap_error_memory(r->err, r->name);
        if (out->array_count)
            memcpy(arrays, out->arrays, out->array_count * sizeof *arrays);
        out->arrays = arrays;
        r->array_capacity = capacity;
    }
    out->arrays[out->array_count++] = array;
    return SAP_OK;
}

/* ---- Groups --------------------------------------------------------------------------------------------- */

static sap_status read_object(reader *r, uint64_t address, const char *path, int depth);

/* The entries of a symbol table node, III.B and III.C. names: of the group's local heap. */
static sap_status read_symbols(reader *r, uint64_t address, const sap_cursor *names, const char *path, int depth) {
    sap_cursor c = bytes_at(r, address);
    bool good = begins_with(&c, "SNOD");
    sap_cursor_skip(&c, 2);
    size_t count = sap_cursor_count(&c, sap_cursor_le16(&c), 40);
    if (!good || c.failed)
        return bad(r, address, "no symbol table node");
    for (size_t i = 0; i < count; i++) {
        uint64_t name = sap_cursor_le64(&c), header = sap_cursor_le64(&c);
        uint32_t cache = sap_cursor_le32(&c);
        sap_cursor_skip(&c, 20);
        if (cache == 2) /* a soft link leads elsewhere; Keras makes none */
            continue;
        size_t room = name < names->length ? names->length - (size_t)name : 0;
        const char *text = room ? (const char *)names->data + name : "";
        if (room == 0 || strnlen(text, room) == room)
            return bad(r, address, "the name of an object is not in its group's heap");
        char inner[PATH_MOST];
        int length = snprintf(inner, sizeof inner, "%s%s%s", path, path[0] ? "/" : "", text);
        if (length < 0 || length >= PATH_MOST || ++r->objects > OBJECTS_MOST)
            return bad(r, address, "too many objects, or too long a name");
        SAP_TRY(read_object(r, header, inner, depth + 1));
    }
    return SAP_OK;
}

/* A node of a group's B-tree, III.A.1. */
static sap_status read_tree(reader *r, uint64_t address, const sap_cursor *names, const char *path, int depth,
                            int level_most) {
    sap_cursor c = bytes_at(r, address);
    bool good = begins_with(&c, "TREE");
    uint8_t kind = sap_cursor_u8(&c), level = sap_cursor_u8(&c);
    size_t count = sap_cursor_le16(&c);
    sap_cursor_skip(&c, 24); /* siblings, and the first key */
    count = sap_cursor_count(&c, count, 16);
    if (!good || c.failed || kind != 0 || level >= level_most || ++r->objects > OBJECTS_MOST)
        return bad(r, address, "no node of a group's tree");
    for (size_t i = 0; i < count; i++) {
        uint64_t child = sap_cursor_le64(&c);
        sap_cursor_skip(&c, 8);
        SAP_TRY(level ? read_tree(r, child, names, path, depth, level) : read_symbols(r, child, names, path, depth));
    }
    return SAP_OK;
}

static sap_status read_group(reader *r, const object *o, const char *path, int depth) {
    sap_cursor c = bytes_at(r, o->heap); /* III.D */
    bool good = begins_with(&c, "HEAP");
    sap_cursor_skip(&c, 4);
    uint64_t size = sap_cursor_le64(&c);
    sap_cursor_skip(&c, 8);
    sap_cursor all = bytes_at(r, sap_cursor_le64(&c));
    if (!good || c.failed || size > sap_cursor_left(&all))
        return bad(r, o->heap, "no heap of a group's names");
    sap_cursor names = sap_cursor_sub(&all, (size_t)size);
    return read_tree(r, o->tree, &names, path, depth, DEPTH_MOST);
}

static sap_status read_object(reader *r, uint64_t address, const char *path, int depth) {
    object o = {0};
    object_context context = {r, path, &o};
    if (depth > DEPTH_MOST)
        return bad(r, address, "too deeply nested groups");
    SAP_TRY(visit_messages(r, address, note_message, &context));
    if (!o.group)
        return add_array(r, &o, path);
    if (r->named)
        SAP_TRY(read_names(r, address, path));
    return read_group(r, &o, path, depth);
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

bool sap_hdf5_is_classic(const void *data, size_t length) {
    const uint8_t *p = data;
    return length > 96 && memcmp(p, "\x89HDF\r\n\x1a\n", 8) == 0 && p[8] <= 1 && p[13] == 8 && p[14] == 8;
}

/* Address of the root group's header: II.A. */
static uint64_t root_address(const uint8_t *data) {
    return sap_le64(data + (data[8] == 1 ? 24 + 4 : 24) + 32 + 8);
}

static reader start(const char *name, const void *data, size_t length, sap_arena *arena, sap_keras_file *out,
                    sap_error *err) {
    return (reader){.name = name,
                    .data = data,
                    .length = length,
                    .arena = arena,
                    .out = out,
                    .values_left = length,
                    .text_left = 2 * length,
                    .err = err};
}

sap_status sap_hdf5_read_classic(const char *name, const void *data, size_t length, sap_arena *arena,
                                 sap_keras_file *out, sap_error *err) {
    reader r = start(name, data, length, arena, out, err);
    return read_object(&r, root_address(data), "", 0);
}

sap_status sap_hdf5_read_model(const char *name, const void *data, size_t length, sap_arena *arena, sap_keras_file *out,
                               sap_error *err) {
    *out = (sap_keras_file){.whole = true};
    if (!sap_hdf5_is_classic(data, length))
        return sap_error_set(err, SAP_EUNSUPPORTED,
                             "%s: is HDF5 in a form that Keras' .h5 files do not have, or damaged; save it as .keras",
                             name);
    reader r = start(name, data, length, arena, out, err);
    r.named = true;
    struct {
        const char *attribute, **out;
    } const wanted[] = {
        {"model_config", &out->config}, {"training_config", &out->training}, {"keras_version", &out->version}};
    uint64_t root = root_address(data);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char **texts;
        size_t count;
        SAP_TRY(find_texts(&r, root, wanted[i].attribute, &texts, &count));
        *wanted[i].out = count == 1 ? texts[0] : NULL;
        if (count == 1 && strlen(texts[0]) > SAP_KERAS_CONFIG_MOST)
            return bad(&r, root, "a config of too many bytes");
    }
    if (!out->config)
        return sap_error_set(err, SAP_EFORMAT,
                             "%s: has no \"model_config\": it holds weights alone, or is no Keras file", name);
    out->config_length = strlen(out->config);
    return read_object(&r, root, "", 0);
}
