/* From members of streamer info to steps of read programs, and from those to types of columns.
 * docs/format/ttree.md, § Values. */
#include "../base/numbers.h"
#include "root_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

bool sap_compile_fail(sap_compiler *k, const char *format, ...) {
    if (!k->reason[0]) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(k->reason, sizeof k->reason, format, arguments);
        va_end(arguments);
    }
    return false;
}

bool sap_compile_memory(sap_compiler *k) {
    k->out_of_memory = true;
    return sap_compile_fail(k, "out of memory");
}

/* ---- Steps ------------------------------------------------------------------------------------------------ */

sap_step_node sap_step_new(sap_compiler *k, sap_op op) {
    k->steps++;
    return (sap_step_node){.op = op, .slot = k->slots++, .count = 1, .name = ""};
}

sap_step_node *sap_step_children(sap_compiler *k, sap_step_node *step, int count) {
    step->children = sap_arena_array(k->arena, count > 0 ? (size_t)count : 1, sizeof *step->children);
    step->child_count = count;
    if (!step->children)
        (void)sap_compile_memory(k);
    return step->children;
}

/* ---- Numbers ------------------------------------------------------------------------------------------------ */

/* One bound of a range: a number, or one of the spellings of multiples of pi. */
static double parse_bound(const char *text, size_t length) {
    char buffer[64];
    size_t n = 0;
    for (size_t i = 0; i < length && n + 1 < sizeof buffer; i++)
        if (!isspace((unsigned char)text[i]))
            buffer[n++] = (char)tolower((unsigned char)text[i]);
    buffer[n] = '\0';
    const char *pi = strstr(buffer, "pi");
    if (!pi)
        return sap_real_parse(buffer, NULL);
    double value = 3.14159265358979323846;
    if (strstr(buffer, "twopi") || strstr(buffer, "2*pi") || strstr(buffer, "2pi"))
        value *= 2;
    if (pi[2] == '/')
        value /= sap_real_parse(pi + 3, NULL);
    return buffer[0] == '-' ? -value : value;
}

typedef struct range {
    double minimum, factor;
    int bits; /* of the mantissa when there is no range, 0: none said */
} range;

/* "[min, max, bits]" in a title, behind brackets of dimensions. ROOT's arithmetic: TStreamerElement's GetRange. */
static range parse_range(const char *title) {
    range r = {0};
    const char *left = title ? strchr(title, '[') : NULL, *right = NULL, *comma = NULL;
    while (left) {
        right = strchr(left, ']');
        comma = strchr(left, ',');
        if (!right || (comma && comma < right))
            break;
        left = strchr(right, '[');
    }
    if (!left || !right || !comma)
        return r;
    const char *comma2 = memchr(comma + 1, ',', (size_t)(right - comma - 1));
    int bits = 32;
    if (comma2) {
        bits = atoi(comma2 + 1);
        if (bits < 2 || bits > 32)
            bits = 32;
    }
    double low = parse_bound(left + 1, (size_t)(comma - left - 1));
    double high = parse_bound(comma + 1, (size_t)((comma2 ? comma2 : right) - comma - 1));
    if (low < high) {
        r.minimum = low;
        r.factor = (bits < 32 ? (double)(UINT32_C(1) << bits) : 4294967295.0) / (high - low);
    } else if (bits < 15) {
        r.bits = bits;
    }
    return r;
}

bool sap_compile_number(sap_compiler *k, int kind, const char *title, sap_number *out) {
    static const struct {
        uint8_t kind, type, conversion;
    } plain[] = {
        {SAP_KIND_CHAR, SAP_INT8, SAP_CONVERT_COPY},      {SAP_KIND_LEGACY_CHAR, SAP_INT8, SAP_CONVERT_COPY},
        {SAP_KIND_UCHAR, SAP_UINT8, SAP_CONVERT_COPY},    {SAP_KIND_BOOL, SAP_BOOL, SAP_CONVERT_BOOL},
        {SAP_KIND_SHORT, SAP_INT16, SAP_CONVERT_SWAP2},   {SAP_KIND_USHORT, SAP_UINT16, SAP_CONVERT_SWAP2},
        {SAP_KIND_INT, SAP_INT32, SAP_CONVERT_SWAP4},     {SAP_KIND_COUNTER, SAP_UINT32, SAP_CONVERT_SWAP4},
        {SAP_KIND_UINT, SAP_UINT32, SAP_CONVERT_SWAP4},   {SAP_KIND_BITS, SAP_UINT32, SAP_CONVERT_SWAP4},
        {SAP_KIND_LONG, SAP_INT64, SAP_CONVERT_SWAP8},    {SAP_KIND_LONG64, SAP_INT64, SAP_CONVERT_SWAP8},
        {SAP_KIND_ULONG, SAP_UINT64, SAP_CONVERT_SWAP8},  {SAP_KIND_ULONG64, SAP_UINT64, SAP_CONVERT_SWAP8},
        {SAP_KIND_FLOAT, SAP_FLOAT32, SAP_CONVERT_SWAP4}, {SAP_KIND_DOUBLE, SAP_FLOAT64, SAP_CONVERT_SWAP8},
    };
    *out = (sap_number){0};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (plain[i].kind == kind) {
            out->conversion = (sap_conversion)plain[i].conversion;
            out->type = (sap_type)plain[i].type;
            out->stored = out->size = (uint8_t)sap_type_size(out->type);
            return true;
        }
    }
    if (kind != SAP_KIND_DOUBLE32 && kind != SAP_KIND_FLOAT16)
        return sap_compile_fail(k, "numbers of kind %d", kind);
    bool is_double = kind == SAP_KIND_DOUBLE32;
    range r = parse_range(title);
    out->type = is_double ? SAP_FLOAT64 : SAP_FLOAT32;
    out->size = is_double ? 8 : 4;
    out->factor = r.factor;
    out->minimum = r.minimum;
    if (r.factor != 0) {
        out->stored = 4;
        out->conversion = is_double ? SAP_CONVERT_SCALED_TO_DOUBLE : SAP_CONVERT_SCALED_TO_FLOAT;
    } else if (is_double && r.bits == 0) {
        out->stored = 4;
        out->conversion = SAP_CONVERT_FLOAT_TO_DOUBLE;
    } else {
        out->stored = 3;
        out->bits = r.bits ? r.bits : 12;
        out->conversion = is_double ? SAP_CONVERT_SHORT_TO_DOUBLE : SAP_CONVERT_SHORT_TO_FLOAT;
    }
    return true;
}

bool sap_compile_kind(sap_compiler *k, int kind, const char *title, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_NUMBER);
    return sap_compile_number(k, kind, title, &out->number);
}

bool sap_compile_dims(sap_compiler *k, int64_t length, const int32_t *dims, int dim_count, sap_step_node *out) {
    enum { MOST_ITEMS = 1 << 26 };
    int64_t product = 1;
    for (int i = 0; i < dim_count; i++)
        if (dims[i] <= 0 || (product *= dims[i]) > MOST_ITEMS)
            return sap_compile_fail(k, "an array of %d items in one dimension", dims[i]);
    if (length < 1 || length > MOST_ITEMS)
        return sap_compile_fail(k, "an array of %lld items", (long long)length);
    out->count = (int32_t)length;
    out->dim_count = dim_count;
    memcpy(out->dims, dims, (size_t)dim_count * sizeof *dims);
    if (product != length) { /* the dimensions do not say it all: one dimension does */
        out->dim_count = 1;
        out->dims[0] = (int32_t)length;
    }
    return true;
}

/* `step` becomes `count` of what it was, where that is no number. */
static bool wrap_array(sap_compiler *k, const sap_element *e, sap_step_node *step, bool frame_once) {
    sap_step_node array = sap_step_new(k, SAP_OP_ARRAY);
    if (!sap_step_children(k, &array, 1))
        return false;
    array.children[0] = *step;
    array.hidden = step->hidden;
    if (frame_once) {
        array.framed = step->framed;
        array.children[0].framed = false;
    }
    if (!sap_compile_dims(k, e->length, e->dims, e->dim_count, &array))
        return false;
    array.name = step->name;
    *step = array;
    return true;
}

static bool compile_base(sap_compiler *k, const sap_element *e, sap_step_node *out) {
    if (strcmp(e->name, "TObject") == 0) {
        *out = sap_step_new(k, SAP_OP_TOBJECT);
        out->hidden = true;
        return true;
    }
    sap_span base, none[1];
    (void)sap_type_split(e->name, &base, none, 0);
    if (SAP_AMONG(base, "vector", "map", "set", "list", "deque"))
        return sap_compile_type(k, e->name, false, out);
    bool special, ok = sap_compile_special(k, base, out, &special);
    if (special)
        return ok;
    if (!sap_class_find(k->file, e->name, -1, 0) && !sap_class_known(e->name)) {
        *out = sap_step_new(k, SAP_OP_SKIP);
        out->hidden = true;
        return true;
    }
    if (!sap_compile_class(k, e->name, e->base_version, e->base_checksum, out))
        return false;
    out->base = out->op == SAP_OP_RECORD;
    return true;
}

/* The type of a member without what makes it a pointer; *stars: how often it is one. */
static const char *pointed_type(sap_compiler *k, const sap_element *e, int *stars) {
    size_t n = strlen(e->type_name);
    for (*stars = 0; n && (e->type_name[n - 1] == '*' || e->type_name[n - 1] == ' '); n--)
        *stars += e->type_name[n - 1] == '*';
    const char *type = sap_arena_text(k->arena, e->type_name, n);
    if (!type)
        (void)sap_compile_memory(k);
    return type;
}

/* § Values: `T *x; //[n]` of objects, or of pointers to them. */
static bool compile_loop(sap_compiler *k, const sap_element *e, sap_step_node *out) {
    int stars;
    const char *type = pointed_type(k, e, &stars);
    *out = sap_step_new(k, SAP_OP_COUNTED);
    out->framed = out->stl = out->unflagged = true;
    if (!type || !sap_step_children(k, out, 1))
        return false;
    bool ok = stars > 1 ? sap_compile_pointer(k, type, &out->children[0])
                        : sap_compile_type(k, type, false, &out->children[0]);
    out->hidden = ok && out->children[0].hidden;
    return ok;
}

static bool compile_object(sap_compiler *k, const sap_element *e, int kind, sap_step_node *out) {
    int stars;
    const char *type = pointed_type(k, e, &stars);
    if (!type)
        return false;
    switch (kind) {
    case SAP_KIND_TSTRING:
        *out = sap_step_new(k, SAP_OP_STRING);
        return true;
    case SAP_KIND_CHARSTAR:
        *out = sap_step_new(k, SAP_OP_CSTRING);
        return true;
    case SAP_KIND_TOBJECT:
        *out = sap_step_new(k, SAP_OP_TOBJECT);
        out->hidden = true;
        return true;
    case SAP_KIND_STL:
    case SAP_KIND_STL_POINTER:
    case SAP_KIND_STL_STRING:
    case SAP_KIND_STREAMER:
        if (!sap_compile_type(k, type, false, out))
            return false;
        out->framed = true;
        return true;
    case SAP_KIND_OBJECT:
    case SAP_KIND_ANY:
    case SAP_KIND_TNAMED:
    case SAP_KIND_OBJECT_INLINE:
    case SAP_KIND_ANY_INLINE:
        return sap_compile_type(k, type, false, out);
    case SAP_KIND_OBJECT_POINTER:
    case SAP_KIND_ANY_POINTER:
        return sap_compile_pointer(k, type, out);
    case SAP_KIND_STREAM_LOOP:
        return compile_loop(k, e, out);
    default:
        return sap_compile_fail(k, "a member of kind %d (%.100s %.60s)", kind, e->type_name, e->name);
    }
}

/* Kinds of objects, and of fixed arrays of them. */
static bool compile_objects(sap_compiler *k, const sap_element *e, sap_step_node *out) {
    int kind = e->kind;
    bool array = kind >= SAP_KIND_OBJECT + SAP_KIND_OFFSET_L && kind < SAP_KIND_STL;
    array = array || kind == SAP_KIND_STL + SAP_KIND_OFFSET_L || kind == SAP_KIND_STL_STRING + SAP_KIND_OFFSET_L;
    array = array || kind == SAP_KIND_CHARSTAR + SAP_KIND_OFFSET_L;
    array = array || kind == SAP_KIND_STREAM_LOOP + SAP_KIND_OFFSET_L;
    int inner = array ? kind - SAP_KIND_OFFSET_L : kind;
    if (!compile_object(k, e, inner, out))
        return false;
    if (!array && (e->length <= 0 || e->dim_count <= 0))
        return true;
    return inner == SAP_KIND_STREAM_LOOP ? sap_compile_dims(k, e->length, e->dims, e->dim_count, out)
                                         : wrap_array(k, e, out, inner >= SAP_KIND_STL);
}

bool sap_compile_element(sap_compiler *k, const sap_element *e, const char *owner, sap_step_node *out) {
    int kind = e->kind;
    bool ok;
    if (kind == SAP_KIND_BASE) {
        ok = compile_base(k, e, out);
    } else if (kind == SAP_KIND_BITS) {
        bool fbits = strcmp(e->name, "fBits") == 0 && strcmp(owner, "TObject") == 0;
        ok = sap_compile_kind(k, kind, e->title, out);
        if (fbits)
            out->op = SAP_OP_FBITS;
    } else if (kind < SAP_KIND_OFFSET_L && kind != SAP_KIND_CHARSTAR) {
        ok = sap_compile_kind(k, kind, e->title, out);
    } else if (kind > SAP_KIND_OFFSET_L && kind < SAP_KIND_OFFSET_P && kind != SAP_KIND_OFFSET_L + SAP_KIND_CHARSTAR) {
        ok = sap_compile_kind(k, kind - SAP_KIND_OFFSET_L, e->title, out);
        ok = ok && sap_compile_dims(k, e->length, e->dims, e->dim_count, out);
    } else if (kind > SAP_KIND_OFFSET_P && kind < SAP_KIND_OBJECT && e->count_name) {
        *out = sap_step_new(k, SAP_OP_COUNTED);
        ok = sap_step_children(k, out, 1) && sap_compile_kind(k, kind - SAP_KIND_OFFSET_P, e->title, &out->children[0]);
        if (ok && e->length > 0 && e->dim_count > 0)
            ok = sap_compile_dims(k, e->length, e->dims, e->dim_count, out);
    } else {
        ok = compile_objects(k, e, out);
    }
    out->name = e->name;
    return ok;
}

/* ---- Fields -------------------------------------------------------------------------------------------------------- */

static size_t count_fields(const sap_step_node *record) {
    size_t n = 0;
    for (int i = 0; i < record->child_count; i++) {
        const sap_step_node *child = &record->children[i];
        n += child->hidden ? 0 : child->base ? count_fields(child) : 1;
    }
    return n;
}

static bool add_fields(sap_compiler *k, const sap_step_node *record, sap_field *fields, size_t *at) {
    for (int i = 0; i < record->child_count; i++) {
        const sap_step_node *child = &record->children[i];
        if (child->hidden)
            continue;
        if (child->base ? !add_fields(k, child, fields, at) : !sap_compile_field(k, child, &fields[(*at)++]))
            return false;
    }
    return true;
}

/* Puts fixed lists of the step's dimensions around `inner`. */
static bool wrap_dims(sap_compiler *k, const sap_step_node *step, sap_field *inner) {
    for (int i = step->dim_count - 1; i >= 0; i--) {
        sap_field *child = sap_arena_alloc(k->arena, sizeof *child);
        if (!child)
            return sap_compile_memory(k);
        *child = *inner;
        child->name = "item";
        *inner = (sap_field){
            .name = inner->name, .type = SAP_FIXED_LIST, .size = step->dims[i], .count = 1, .children = child};
    }
    return true;
}

bool sap_compile_field(sap_compiler *k, const sap_step_node *step, sap_field *out) {
    *out = (sap_field){.name = step->name};
    switch (step->op) {
    case SAP_OP_NUMBER:
    case SAP_OP_FBITS:
    case SAP_OP_REF:
        out->type = step->number.type;
        return wrap_dims(k, step, out);
    case SAP_OP_STRING:
    case SAP_OP_CSTRING:
        out->type = SAP_STRING;
        return true;
    case SAP_OP_LIST:
    case SAP_OP_COUNTED:
    case SAP_OP_REST:
    case SAP_OP_CLONES:
    case SAP_OP_OBJECTS:
    case SAP_OP_ARRAYOBJ: {
        sap_field *child = sap_arena_alloc(k->arena, sizeof *child);
        if (!child)
            return sap_compile_memory(k);
        out->type = SAP_LIST;
        out->count = 1;
        out->children = child;
        bool ok = sap_compile_field(k, &step->children[0], child);
        child->name = "item";
        return ok && wrap_dims(k, step, out);
    }
    case SAP_OP_POINTER:
        if (step->hidden)
            return sap_compile_fail(k, "a pointer %s to a class that holds it", step->name);
        if (step->child_count == 0) /* of a class that never came */
            out->type = SAP_RECORD;
        else if (!sap_compile_field(k, &step->children[0], out))
            return false;
        out->name = step->name;
        out->nullable = true;
        return true;
    case SAP_OP_ARRAY:
        if (!sap_compile_field(k, &step->children[0], out))
            return false;
        out->name = step->name;
        return wrap_dims(k, step, out);
    case SAP_OP_RECORD: {
        size_t n = count_fields(step), at = 0;
        sap_field *fields = sap_arena_array(k->arena, n ? n : 1, sizeof *fields);
        if (!fields)
            return sap_compile_memory(k);
        out->type = SAP_RECORD;
        out->count = (int32_t)n;
        out->children = fields;
        return add_fields(k, step, fields, &at);
    }
    default:
        return sap_compile_fail(k, "nothing to show in %s", step->name);
    }
}
