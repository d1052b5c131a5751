/* Types of columns: names, sizes, text, comparison. */
#include "column_internal.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [SAP_TYPE_NONE] = {"none", 0},   [SAP_BOOL] = {"bool", 1},       [SAP_INT8] = {"int8", 1},
    [SAP_UINT8] = {"uint8", 1},      [SAP_INT16] = {"int16", 2},     [SAP_UINT16] = {"uint16", 2},
    [SAP_INT32] = {"int32", 4},      [SAP_UINT32] = {"uint32", 4},   [SAP_INT64] = {"int64", 8},
    [SAP_UINT64] = {"uint64", 8},    [SAP_FLOAT16] = {"float16", 2}, [SAP_FLOAT32] = {"float32", 4},
    [SAP_FLOAT64] = {"float64", 8},  [SAP_STRING] = {"string", 0},   [SAP_LIST] = {"list", 0},
    [SAP_FIXED_LIST] = {"fixed", 0}, [SAP_RECORD] = {"record", 0},   [SAP_UNION] = {"union", 0},
    [SAP_DECIMAL] = {"decimal", 16},
};

static bool known(sap_type type) {
    return (size_t)type < sizeof types / sizeof *types;
}

const char *sap_type_name(sap_type type) {
    return known(type) ? types[type].name : "unknown";
}

const char *sap_type_dtype(sap_type type) {
    static const char *const names[] = {
        [SAP_BOOL] = "|b1",   [SAP_INT8] = "|i1",    [SAP_UINT8] = "|u1",   [SAP_INT16] = "<i2",
        [SAP_UINT16] = "<u2", [SAP_INT32] = "<i4",   [SAP_UINT32] = "<u4",  [SAP_INT64] = "<i8",
        [SAP_UINT64] = "<u8", [SAP_FLOAT16] = "<f2", [SAP_FLOAT32] = "<f4", [SAP_FLOAT64] = "<f8"};
    return (size_t)type < sizeof names / sizeof *names ? names[type] : NULL;
}

size_t sap_type_size(sap_type type) {
    return known(type) ? types[type].size : 0;
}

/* Where the text goes: it is cut at the capacity, and its whole length counted. */
typedef struct writer {
    char *text;
    size_t capacity, length;
} writer;

static void put(writer *w, const char *text) {
    for (; *text; text++, w->length++)
        if (w->length + 1 < w->capacity)
            w->text[w->length] = *text;
}

static void put_field(writer *w, const sap_field *field) {
    char number[24];
    put(w, sap_type_name(field->type));
    switch (field->type) {
    case SAP_LIST:
    case SAP_FIXED_LIST:
        put(w, "<");
        if (field->count > 0)
            put_field(w, &field->children[0]);
        if (field->type == SAP_FIXED_LIST) {
            (void)snprintf(number, sizeof number, ", %d", field->size);
            put(w, number);
        }
        put(w, ">");
        break;
    case SAP_RECORD:
    case SAP_UNION:
        put(w, "{");
        for (int32_t i = 0; i < field->count; i++) {
            put(w, i ? ", " : "");
            if (field->type == SAP_RECORD) {
                put(w, field->children[i].name);
                put(w, ": ");
            }
            put_field(w, &field->children[i]);
        }
        put(w, "}");
        break;
    default:
        break;
    }
    if (field->nullable)
        put(w, "?");
}

size_t sap_field_text(const sap_field *field, char *text, size_t capacity) {
    writer w = {text, capacity, 0};
    put_field(&w, field);
    if (capacity)
        text[w.length < capacity ? w.length : capacity - 1] = '\0';
    return w.length;
}

bool sap_field_same(const sap_field *a, const sap_field *b) {
    if (a->type != b->type || a->size != b->size || a->count != b->count || a->nullable != b->nullable)
        return false;
    for (int32_t i = 0; i < a->count; i++)
        if (!sap_field_same(&a->children[i], &b->children[i]))
            return false;
    return true;
}
