/* From C++ types and streamer info to read programs. docs/format/ttree.md, § Values. */
#include "root_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

enum { MOST_STEPS = 20000, DEEPEST = 30 };

bool sap_compile_fail(sap_compiler *k, const char *format, ...) {
    if (!k->reason[0]) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(k->reason, sizeof k->reason, format, arguments);
        va_end(arguments);
    }
    return false;
}

static bool no_memory(sap_compiler *k) {
    k->out_of_memory = true;
    return sap_compile_fail(k, "out of memory");
}

/* ---- Steps ------------------------------------------------------------------------------------------------ */

static sap_step_node new_step(sap_compiler *k, sap_op op) {
    k->steps++;
    return (sap_step_node){.op = op, .slot = k->slots++, .count = 1, .name = ""};
}

static sap_step_node *new_children(sap_compiler *k, sap_step_node *step, size_t count) {
    step->children = sap_arena_array(k->arena, count ? count : 1, sizeof *step->children);
    if (!step->children)
        (void)no_memory(k);
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
        return strtod(buffer, NULL);
    double value = 3.14159265358979323846;
    if (strstr(buffer, "twopi") || strstr(buffer, "2*pi") || strstr(buffer, "2pi"))
        value *= 2;
    if (pi[2] == '/')
        value /= strtod(pi + 3, NULL);
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

static bool compile_kind(sap_compiler *k, int kind, const char *title, sap_step_node *out) {
    *out = new_step(k, SAP_OP_NUMBER);
    return sap_compile_number(k, kind, title, &out->number);
}

/* ---- Types by name -------------------------------------------------------------------------------------------- */

static bool is_one_of(sap_span s, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == s.length && memcmp(names[i], s.text, s.length) == 0)
            return true;
    return false;
}

#define IS_ONE_OF(span, ...)                                                                                           \
    is_one_of(span, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static bool compile_list(sap_compiler *k, const char *item, bool in_collection, sap_step_node *out) {
    *out = new_step(k, SAP_OP_LIST);
    out->stl = true;
    out->framed = !in_collection;
    if (!new_children(k, out, 1))
        return false;
    out->child_count = 1;
    return sap_compile_type(k, item, true, &out->children[0]);
}

/* A map's items are pairs without a frame, whether or not the file describes the class of the pair. */
static bool compile_pair(sap_compiler *k, const char *first, const char *second, sap_step_node *out) {
    *out = new_step(k, SAP_OP_RECORD);
    out->class_name = "pair";
    if (!new_children(k, out, 2))
        return false;
    out->child_count = 2;
    if (!sap_compile_type(k, first, true, &out->children[0]) || !sap_compile_type(k, second, true, &out->children[1]))
        return false;
    out->children[0].name = "first";
    out->children[1].name = "second";
    return true;
}

static bool compile_map(sap_compiler *k, const char *first, const char *second, bool in_collection,
                        sap_step_node *out) {
    *out = new_step(k, SAP_OP_LIST);
    out->stl = true;
    out->framed = !in_collection;
    if (!new_children(k, out, 1))
        return false;
    out->child_count = 1;
    return compile_pair(k, first, second, &out->children[0]);
}

static bool compile_text(sap_compiler *k, sap_op op, sap_step_node *out) {
    *out = new_step(k, op);
    return true;
}

static bool compile_ref(sap_compiler *k, sap_step_node *out) {
    *out = new_step(k, SAP_OP_RECORD);
    out->class_name = "TRef";
    if (!new_children(k, out, 1))
        return false;
    out->child_count = 1;
    if (!compile_kind(k, SAP_KIND_UINT, NULL, &out->children[0]))
        return false;
    out->children[0].op = SAP_OP_REF;
    out->children[0].name = "ref";
    return true;
}

/* § References: TObject, name, number of references, lower bound and process id, references. */
static bool compile_ref_array(sap_compiler *k, sap_step_node *out) {
    enum { OBJECT, NAME, SIZE, PASSED, REFS, PARTS, PASSED_BYTES = 6 };
    *out = new_step(k, SAP_OP_RECORD);
    out->class_name = "TRefArray";
    out->framed = true;
    sap_step_node *parts = new_children(k, out, PARTS);
    if (!parts)
        return false;
    out->child_count = PARTS;
    parts[OBJECT] = new_step(k, SAP_OP_TOBJECT);
    parts[NAME] = new_step(k, SAP_OP_STRING);
    parts[PASSED] = new_step(k, SAP_OP_PASS);
    parts[REFS] = new_step(k, SAP_OP_COUNTED);
    if (!compile_kind(k, SAP_KIND_INT, NULL, &parts[SIZE]) || !new_children(k, &parts[REFS], 1) ||
        !compile_kind(k, SAP_KIND_INT, NULL, &parts[REFS].children[0]))
        return false;
    parts[OBJECT].hidden = parts[PASSED].hidden = true;
    parts[PASSED].count = PASSED_BYTES;
    parts[REFS].child_count = 1;
    parts[REFS].counter_slot = parts[SIZE].slot;
    parts[REFS].number = parts[SIZE].number;
    parts[REFS].unflagged = true;
    parts[NAME].name = "fName";
    parts[SIZE].name = "fSize";
    parts[REFS].name = "refs";
    return true;
}

/* Classes whose bytes do not follow streamer info. */
static bool compile_special(sap_compiler *k, sap_span name, sap_step_node *out, bool *special) {
    *special = true;
    if (IS_ONE_OF(name, "TString"))
        return compile_text(k, SAP_OP_STRING, out);
    if (IS_ONE_OF(name, "TDatime")) {
        *out = new_step(k, SAP_OP_RECORD);
        if (!new_children(k, out, 1))
            return false;
        out->child_count = 1;
        bool ok = compile_kind(k, SAP_KIND_UINT, NULL, &out->children[0]);
        out->children[0].name = "fDatime";
        return ok;
    }
    static const struct {
        const char *name;
        int kind;
    } arrays[] = {{"TArrayC", SAP_KIND_CHAR},  {"TArrayS", SAP_KIND_SHORT},    {"TArrayI", SAP_KIND_INT},
                  {"TArrayL", SAP_KIND_LONG},  {"TArrayL64", SAP_KIND_LONG64}, {"TArrayF", SAP_KIND_FLOAT},
                  {"TArrayD", SAP_KIND_DOUBLE}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (IS_ONE_OF(name, arrays[i].name)) {
            *out = new_step(k, SAP_OP_ARRAYOBJ);
            if (!new_children(k, out, 1))
                return false;
            out->child_count = 1;
            return compile_kind(k, arrays[i].kind, NULL, &out->children[0]);
        }
    }
    if (IS_ONE_OF(name, "TRef"))
        return compile_ref(k, out);
    if (IS_ONE_OF(name, "TRefArray"))
        return compile_ref_array(k, out);
    if (IS_ONE_OF(name, "TObjArray", "TList", "THashList", "TClonesArray", "TMap", "TUUID", "TCollection",
                  "TSeqCollection", "TProcessID"))
        return sap_compile_fail(k, "class %.*s inside an object", (int)name.length, name.text);
    *special = false;
    return false;
}

bool sap_compile_type(sap_compiler *k, const char *type_name, bool in_collection, sap_step_node *out) {
    sap_span base, arguments[3];
    int n = sap_type_split(type_name, &base, arguments, 3);
    if (++k->depth > DEEPEST || k->steps > MOST_STEPS)
        return sap_compile_fail(k, "type %.100s is nested too deep", type_name);
    char *text[3] = {0};
    for (int i = 0; i < n; i++)
        if (!(text[i] = sap_arena_text(k->arena, arguments[i].text, arguments[i].length)))
            return no_memory(k);
    const char *name = n ? sap_arena_format(k->arena, "%.*s%s", (int)base.length, base.text, base.text + base.length)
                         : sap_arena_text(k->arena, base.text, base.length);
    if (!name)
        return no_memory(k);
    bool ok, special;
    int kind = sap_kind_of_type(name);
    if (kind >= 0)
        ok = compile_kind(k, kind, NULL, out);
    else if (n == 0 && IS_ONE_OF(base, "string"))
        ok = out->stl = compile_text(k, SAP_OP_STRING, out);
    else if (n == 0 && IS_ONE_OF(base, "char*", "const char*"))
        ok = compile_text(k, SAP_OP_CSTRING, out);
    else if (n > 0 && IS_ONE_OF(base, "vector", "list", "forward_list", "deque", "set", "multiset", "unordered_set",
                                "unordered_multiset", "ROOT::VecOps::RVec", "ROOT::RVec", "RVec"))
        ok = compile_list(k, text[0], in_collection, out);
    else if (n > 1 && IS_ONE_OF(base, "map", "multimap", "unordered_map", "unordered_multimap"))
        ok = compile_map(k, text[0], text[1], in_collection, out);
    else if (n > 0 && IS_ONE_OF(base, "bitset"))
        ok = compile_list(k, "bool", in_collection, out);
    else if (base.length && name[strlen(name) - 1] == '*')
        ok = sap_compile_fail(k, "pointers (%.100s)", type_name);
    else if ((ok = compile_special(k, base, out, &special)) || special)
        ok = ok && !k->reason[0];
    else if (n > 1 && IS_ONE_OF(base, "pair") && !sap_class_find(k->file, name, -1, 0)) {
        ok = compile_pair(k, text[0], text[1], out);
        out->framed = true;
    } else
        ok = sap_compile_class(k, name, -1, 0, out);
    k->depth--;
    return ok;
}

/* ---- Classes ---------------------------------------------------------------------------------------------------- */

bool sap_compile_class(sap_compiler *k, const char *class_name, int version, uint32_t checksum, sap_step_node *out) {
    sap_span base, none[1];
    (void)sap_type_split(class_name, &base, none, 0);
    bool special, ok = compile_special(k, base, out, &special);
    if (special)
        return ok;
    const sap_class *info = NULL;
    if (version > 0)
        info = sap_class_find(k->file, class_name, version, 0);
    if (!info && checksum)
        info = sap_class_find(k->file, class_name, 0, checksum);
    if (!info)
        info = sap_class_find(k->file, class_name, -1, 0);
    if (!info)
        return sap_compile_fail(k, "class %.150s is not described in the file", class_name);
    for (int i = 0; i < k->stack_count; i++)
        if (strcmp(k->stack[i], class_name) == 0)
            return sap_compile_fail(k, "class %.150s holds itself", class_name);
    if (k->stack_count >= (int)(sizeof k->stack / sizeof *k->stack) || k->steps > MOST_STEPS)
        return sap_compile_fail(k, "class %.150s is nested too deep", class_name);
    k->stack[k->stack_count++] = class_name;
    *out = new_step(k, SAP_OP_RECORD);
    out->framed = true;
    out->class_name = class_name;
    out->info = info;
    if (!new_children(k, out, info->count))
        return false;
    for (size_t i = 0; i < info->count; i++) {
        const sap_element *e = &info->elements[i];
        if (e->kind < 0) { /* not stored */
            k->steps++;
            continue;
        }
        sap_step_node *child = &out->children[out->child_count];
        if (!sap_compile_element(k, e, class_name, child))
            return false;
        if (child->op == SAP_OP_COUNTED) {
            child->counter_slot = -1;
            for (int j = 0; j < out->child_count; j++)
                if (out->children[j].op == SAP_OP_NUMBER && strcmp(out->children[j].name, e->count_name) == 0) {
                    child->counter_slot = out->children[j].slot;
                    child->number = out->children[j].number;
                }
            if (child->counter_slot < 0)
                return sap_compile_fail(k, "%s::%s: its counter %s is not a member", class_name, e->name,
                                        e->count_name);
        }
        out->child_count++;
    }
    k->stack_count--;
    return true;
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
    sap_step_node array = new_step(k, SAP_OP_ARRAY);
    if (!new_children(k, &array, 1))
        return false;
    array.children[0] = *step;
    array.child_count = 1;
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
        *out = new_step(k, SAP_OP_TOBJECT);
        out->hidden = true;
        return true;
    }
    sap_span base, none[1];
    (void)sap_type_split(e->name, &base, none, 0);
    if (IS_ONE_OF(base, "vector", "map", "set", "list", "deque"))
        return sap_compile_type(k, e->name, false, out);
    if (!sap_class_find(k->file, e->name, -1, 0) && strcmp(e->name, "TString") != 0) {
        *out = new_step(k, SAP_OP_SKIP);
        out->hidden = true;
        return true;
    }
    if (!sap_compile_class(k, e->name, e->base_version, e->base_checksum, out))
        return false;
    out->base = out->op == SAP_OP_RECORD;
    return true;
}

static bool compile_object(sap_compiler *k, const sap_element *e, int kind, sap_step_node *out) {
    switch (kind) {
    case SAP_KIND_TSTRING:
        return compile_text(k, SAP_OP_STRING, out);
    case SAP_KIND_CHARSTAR:
        return compile_text(k, SAP_OP_CSTRING, out);
    case SAP_KIND_TOBJECT:
        *out = new_step(k, SAP_OP_TOBJECT);
        out->hidden = true;
        return true;
    case SAP_KIND_STL:
    case SAP_KIND_STL_POINTER:
    case SAP_KIND_STL_STRING:
    case SAP_KIND_STREAMER: {
        char type[500];
        (void)snprintf(type, sizeof type, "%s", e->type_name);
        size_t n = strlen(type);
        if (n && type[n - 1] == '*')
            type[n - 1] = '\0';
        if (!sap_compile_type(k, type, false, out))
            return false;
        out->framed = true;
        return true;
    }
    case SAP_KIND_OBJECT:
    case SAP_KIND_ANY:
    case SAP_KIND_TNAMED:
    case SAP_KIND_OBJECT_INLINE:
    case SAP_KIND_ANY_INLINE: {
        char type[500];
        (void)snprintf(type, sizeof type, "%s", e->type_name);
        size_t n = strlen(type);
        while (n && (type[n - 1] == '*' || type[n - 1] == ' '))
            type[--n] = '\0';
        const char *name = sap_arena_text(k->arena, type, n);
        return name ? sap_compile_type(k, name, false, out) : no_memory(k);
    }
    case SAP_KIND_OBJECT_POINTER:
    case SAP_KIND_ANY_POINTER:
        return sap_compile_fail(k, "a pointer to an object (%.100s %.60s)", e->type_name, e->name);
    default:
        return sap_compile_fail(k, "a member of kind %d (%.100s %.60s)", kind, e->type_name, e->name);
    }
}

bool sap_compile_element(sap_compiler *k, const sap_element *e, const char *owner, sap_step_node *out) {
    int kind = e->kind;
    bool ok;
    if (kind == SAP_KIND_BASE) {
        ok = compile_base(k, e, out);
    } else if (kind == SAP_KIND_BITS) {
        bool fbits = strcmp(e->name, "fBits") == 0 && strcmp(owner, "TObject") == 0;
        ok = compile_kind(k, kind, e->title, out);
        if (fbits)
            out->op = SAP_OP_FBITS;
    } else if (kind < SAP_KIND_OFFSET_L && kind != SAP_KIND_CHARSTAR) {
        ok = compile_kind(k, kind, e->title, out);
    } else if (kind > SAP_KIND_OFFSET_L && kind < SAP_KIND_OFFSET_P && kind != SAP_KIND_OFFSET_L + SAP_KIND_CHARSTAR) {
        ok = compile_kind(k, kind - SAP_KIND_OFFSET_L, e->title, out);
        ok = ok && sap_compile_dims(k, e->length, e->dims, e->dim_count, out);
    } else if (kind > SAP_KIND_OFFSET_P && kind < SAP_KIND_OBJECT && e->count_name) {
        *out = new_step(k, SAP_OP_COUNTED);
        ok = new_children(k, out, 1) != NULL;
        out->child_count = 1;
        ok = ok && compile_kind(k, kind - SAP_KIND_OFFSET_P, e->title, &out->children[0]);
    } else {
        bool array = kind >= SAP_KIND_OBJECT + SAP_KIND_OFFSET_L && kind < SAP_KIND_STL;
        array = array || kind == SAP_KIND_STL + SAP_KIND_OFFSET_L || kind == SAP_KIND_STL_STRING + SAP_KIND_OFFSET_L;
        array = array || kind == SAP_KIND_CHARSTAR + SAP_KIND_OFFSET_L;
        int inner = array ? kind - SAP_KIND_OFFSET_L : kind;
        ok = compile_object(k, e, inner, out);
        if (ok && (array || (e->length > 0 && e->dim_count > 0)))
            ok = wrap_array(k, e, out, inner >= SAP_KIND_STL);
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
            return no_memory(k);
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
    case SAP_OP_ARRAYOBJ: {
        sap_field *child = sap_arena_alloc(k->arena, sizeof *child);
        if (!child)
            return no_memory(k);
        out->type = SAP_LIST;
        out->count = 1;
        out->children = child;
        bool ok = sap_compile_field(k, &step->children[0], child);
        child->name = "item";
        return ok;
    }
    case SAP_OP_ARRAY:
        if (!sap_compile_field(k, &step->children[0], out))
            return false;
        out->name = step->name;
        return wrap_dims(k, step, out);
    case SAP_OP_RECORD: {
        size_t n = count_fields(step), at = 0;
        sap_field *fields = sap_arena_array(k->arena, n ? n : 1, sizeof *fields);
        if (!fields)
            return no_memory(k);
        out->type = SAP_RECORD;
        out->count = (int32_t)n;
        out->children = fields;
        return add_fields(k, step, fields, &at);
    }
    default:
        return sap_compile_fail(k, "nothing to show in %s", step->name);
    }
}
