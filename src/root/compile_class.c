/* From C++ types and classes to steps of read programs: collections, pointers, classes in all their versions, and ROOT's own
 * classes that stream themselves. docs/format/ttree.md, § Values. */
#include "root_internal.h"

enum { MOST_STEPS = 20000, DEEPEST = 30 };

bool sap_span_among(sap_span span, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == span.length && memcmp(names[i], span.text, span.length) == 0)
            return true;
    return false;
}

/* Another way was found. */
static void forgive(sap_compiler *k) {
    k->reason[0] = '\0';
    k->undescribed = k->skippable = false;
}

static const sap_class *find_class(const sap_compiler *k, const char *name, int version, uint32_t checksum) {
    const sap_class *info = NULL;
    if (version > 0)
        info = sap_class_find(k->file, name, version, 0);
    if (!info && checksum)
        info = sap_class_find(k->file, name, 0, checksum);
    if (!info)
        info = sap_class_find(k->file, name, -1, 0);
    return info ? info : sap_class_known(name);
}

/* ---- Collections ------------------------------------------------------------------------------------------- */

/* A member whose class holds it again would have no end: those inside are passed over, and so is their list. */
static void hide_with_child(sap_step_node *step) {
    step->hidden = step->children[0].hidden;
}

static bool compile_list(sap_compiler *k, const char *item, bool in_collection, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_LIST);
    out->stl = true;
    out->framed = !in_collection;
    if (!sap_step_children(k, out, 1) || !sap_compile_type(k, item, true, &out->children[0]))
        return false;
    hide_with_child(out);
    return true;
}

/* A map's items are pairs without a frame, whether or not the file describes the class of the pair. */
static bool compile_pair(sap_compiler *k, const char *first, const char *second, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_RECORD);
    out->class_name = "pair";
    if (!sap_step_children(k, out, 2) || !sap_compile_type(k, first, true, &out->children[0]) ||
        !sap_compile_type(k, second, true, &out->children[1]))
        return false;
    out->children[0].name = "first";
    out->children[1].name = "second";
    return true;
}

static bool compile_map(sap_compiler *k, const char *first, const char *second, bool in_collection,
                        sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_LIST);
    out->stl = true;
    out->framed = !in_collection;
    return sap_step_children(k, out, 1) && compile_pair(k, first, second, &out->children[0]);
}

/* ---- Classes that stream themselves ------------------------------------------------------------------------ */

bool sap_compile_tobject(sap_compiler *k, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_RECORD);
    out->class_name = "TObject";
    sap_step_node *parts = sap_step_children(k, out, 3);
    if (!parts || !sap_compile_kind(k, SAP_KIND_UINT, NULL, &parts[1]) ||
        !sap_compile_kind(k, SAP_KIND_UINT, NULL, &parts[2]))
        return false;
    parts[0] = sap_step_new(k, SAP_OP_PASS);
    parts[0].hidden = true;
    parts[0].count = 2; /* version */
    parts[1].name = "fUniqueID";
    parts[2].name = "fBits";
    parts[2].op = SAP_OP_FBITS;
    return true;
}

static bool compile_single(sap_compiler *k, const char *class_name, const char *name, sap_op op, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_RECORD);
    out->class_name = class_name;
    if (!sap_step_children(k, out, 1) || !sap_compile_kind(k, SAP_KIND_UINT, NULL, &out->children[0]))
        return false;
    out->children[0].op = op;
    out->children[0].name = name;
    return true;
}

/* § References: TObject, name, number of references, lower bound and process id, references. */
static bool compile_ref_array(sap_compiler *k, sap_step_node *out) {
    enum { OBJECT, NAME, SIZE, PASSED, REFS, PARTS, PASSED_BYTES = 6 };
    *out = sap_step_new(k, SAP_OP_RECORD);
    out->class_name = "TRefArray";
    out->framed = true;
    sap_step_node *parts = sap_step_children(k, out, PARTS);
    if (!parts)
        return false;
    parts[OBJECT] = sap_step_new(k, SAP_OP_TOBJECT);
    parts[NAME] = sap_step_new(k, SAP_OP_STRING);
    parts[PASSED] = sap_step_new(k, SAP_OP_PASS);
    parts[REFS] = sap_step_new(k, SAP_OP_COUNTED);
    if (!sap_compile_kind(k, SAP_KIND_INT, NULL, &parts[SIZE]) || !sap_step_children(k, &parts[REFS], 1) ||
        !sap_compile_kind(k, SAP_KIND_INT, NULL, &parts[REFS].children[0]))
        return false;
    parts[OBJECT].hidden = parts[PASSED].hidden = true;
    parts[PASSED].count = PASSED_BYTES;
    parts[REFS].counter_slot = parts[SIZE].slot;
    parts[REFS].number = parts[SIZE].number;
    parts[REFS].unflagged = true;
    parts[NAME].name = "fName";
    parts[SIZE].name = "fSize";
    parts[REFS].name = "refs";
    return true;
}

static bool compile_open(sap_compiler *k, const char *class_name, sap_step_node *out) {
    *out = sap_step_new(k, SAP_OP_POINTER);
    out->class_name = class_name;
    out->open = true;
    return true;
}

/* § ROOT's collections: what their items are, only the data tell. */
static bool compile_container(sap_compiler *k, sap_span name, sap_step_node *out, bool *container) {
    *container = true;
    bool array = SAP_AMONG(name, "TObjArray"), options = SAP_AMONG(name, "TList", "THashList", "TSortedList");
    bool pairs = SAP_AMONG(name, "TMap"), clones = SAP_AMONG(name, "TClonesArray");
    *container = array || options || pairs || clones || SAP_AMONG(name, "TOrdCollection", "THashTable");
    if (!*container)
        return false;
    *out = sap_step_new(k, clones ? SAP_OP_CLONES : SAP_OP_OBJECTS);
    out->framed = true;
    out->list = array ? SAP_LIST_ARRAY : options ? SAP_LIST_OPTIONS : pairs ? SAP_LIST_PAIRS : SAP_LIST_PLAIN;
    if (!sap_step_children(k, out, 1))
        return false;
    sap_step_node *item = &out->children[0];
    if (!pairs)
        return compile_open(k, "TObject", item);
    *item = sap_step_new(k, SAP_OP_RECORD);
    if (!sap_step_children(k, item, 2) || !compile_open(k, "TObject", &item->children[0]) ||
        !compile_open(k, "TObject", &item->children[1]))
        return false;
    item->children[0].name = "key";
    item->children[1].name = "value";
    return true;
}

bool sap_compile_special(sap_compiler *k, sap_span name, sap_step_node *out, bool *special) {
    *special = true;
    if (SAP_AMONG(name, "TString")) {
        *out = sap_step_new(k, SAP_OP_STRING);
        return true;
    }
    if (SAP_AMONG(name, "TDatime"))
        return compile_single(k, "TDatime", "fDatime", SAP_OP_NUMBER, out);
    if (SAP_AMONG(name, "TRef"))
        return compile_single(k, "TRef", "ref", SAP_OP_REF, out);
    if (SAP_AMONG(name, "TRefArray"))
        return compile_ref_array(k, out);
    static const struct {
        const char *name;
        int kind;
    } arrays[] = {{"TArrayC", SAP_KIND_CHAR},  {"TArrayS", SAP_KIND_SHORT},    {"TArrayI", SAP_KIND_INT},
                  {"TArrayL", SAP_KIND_LONG},  {"TArrayL64", SAP_KIND_LONG64}, {"TArrayF", SAP_KIND_FLOAT},
                  {"TArrayD", SAP_KIND_DOUBLE}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (SAP_AMONG(name, arrays[i].name)) {
            *out = sap_step_new(k, SAP_OP_ARRAYOBJ);
            return sap_step_children(k, out, 1) && sap_compile_kind(k, arrays[i].kind, NULL, &out->children[0]);
        }
    }
    return compile_container(k, name, out, special);
}

/* ---- Types by name -------------------------------------------------------------------------------------------- */

/* Items of a collection that are of no class which the file describes: of an enumeration, unless their bytes say otherwise. */
static bool compile_unknown(sap_compiler *k, const char *name, bool in_collection, sap_step_node *out) {
    if (!in_collection || !k->undescribed || strchr(name, '<'))
        return false;
    forgive(k);
    *out = sap_step_new(k, SAP_OP_NUMBER);
    out->class_name = name;
    return sap_compile_number(k, SAP_KIND_INT, NULL, &out->number);
}

static bool compile_by_name(sap_compiler *k, const char *name, bool in_collection, sap_step_node *out) {
    sap_span base, arguments[3];
    int n = sap_type_split(name, &base, arguments, 3);
    char *text[3] = {0};
    for (int i = 0; i < n; i++)
        if (!(text[i] = sap_arena_text(k->arena, arguments[i].text, arguments[i].length)))
            return sap_compile_memory(k);
    int kind = sap_kind_of_type(name);
    size_t length = strlen(name);
    if (kind >= 0)
        return sap_compile_kind(k, kind, NULL, out);
    if (n == 0 && SAP_AMONG(base, "string")) {
        *out = sap_step_new(k, SAP_OP_STRING);
        out->stl = true;
        return true;
    }
    if (n == 0 && SAP_AMONG(base, "char*", "const char*")) {
        *out = sap_step_new(k, SAP_OP_CSTRING);
        return true;
    }
    if (length && name[length - 1] == '*') {
        while (length && (name[length - 1] == '*' || name[length - 1] == ' '))
            length--;
        const char *target = sap_arena_text(k->arena, name, length);
        return target ? sap_compile_pointer(k, target, out) : sap_compile_memory(k);
    }
    if (n > 0 && SAP_AMONG(base, "vector", "list", "forward_list", "deque", "set", "multiset", "unordered_set",
                           "unordered_multiset", "ROOT::VecOps::RVec", "ROOT::RVec", "RVec"))
        return compile_list(k, text[0], in_collection, out);
    if (n > 1 && SAP_AMONG(base, "map", "multimap", "unordered_map", "unordered_multimap"))
        return compile_map(k, text[0], text[1], in_collection, out);
    if (n > 0 && SAP_AMONG(base, "bitset"))
        return compile_list(k, "bool", in_collection, out);
    if (n > 1 && SAP_AMONG(base, "pair") && !sap_class_find(k->file, name, -1, 0)) {
        bool ok = compile_pair(k, text[0], text[1], out);
        out->framed = true;
        return ok;
    }
    return sap_compile_class(k, name, -1, 0, out) || compile_unknown(k, name, in_collection, out);
}

bool sap_compile_type(sap_compiler *k, const char *type_name, bool in_collection, sap_step_node *out) {
    if (++k->depth > DEEPEST || k->steps > MOST_STEPS)
        return sap_compile_fail(k, "type %.100s is nested too deep", type_name);
    sap_span base, none[1];
    int n = sap_type_split(type_name, &base, none, 1);
    const char *name = n ? sap_arena_format(k->arena, "%.*s%s", (int)base.length, base.text, base.text + base.length)
                         : sap_arena_text(k->arena, base.text, base.length);
    bool ok = name ? compile_by_name(k, name, in_collection, out) : sap_compile_memory(k);
    k->depth--;
    return ok;
}

/* ---- Pointers ------------------------------------------------------------------------------------------------- */

static bool is_being_compiled(const sap_compiler *k, const char *class_name) {
    for (int i = 0; i < k->stack_count; i++)
        if (strcmp(k->stack[i], class_name) == 0)
            return true;
    return false;
}

/* What a class is that the file does not describe, such as one without members of its own, only the data tell. */
bool sap_compile_pointer(sap_compiler *k, const char *class_name, sap_step_node *out) {
    sap_span base, none[1];
    (void)sap_type_split(class_name, &base, none, 0);
    const char *name = sap_arena_text(k->arena, base.text, strlen(base.text));
    if (!name)
        return sap_compile_memory(k);
    *out = sap_step_new(k, SAP_OP_POINTER);
    out->class_name = name;
    if (is_being_compiled(k, name)) {
        out->hidden = true;
        return true;
    }
    if (strcmp(name, "TObject") == 0)
        return compile_open(k, name, out);
    int depth = k->depth, stack_count = k->stack_count;
    if (!sap_step_children(k, out, 1))
        return false;
    if (sap_compile_type(k, name, false, &out->children[0]))
        return true;
    if (!k->undescribed)
        return false;
    forgive(k);
    k->depth = depth;
    k->stack_count = stack_count;
    return compile_open(k, name, out);
}

bool sap_compile_found(sap_compiler *k, sap_step_node *step) {
    bool any = false;
    if (step->open && step->found) {
        const char *found = step->found;
        step->found = NULL;
        step->open = false;
        if (!sap_step_children(k, step, 1))
            return false;
        bool object = strcmp(found, "TObject") == 0;
        if (!(object ? sap_compile_tobject(k, &step->children[0]) : sap_compile_type(k, found, false, step->children)))
            step->child_count = 0;
        any = true;
    }
    for (int i = 0; i < step->child_count; i++)
        any = sap_compile_found(k, &step->children[i]) || any;
    return any;
}

/* ---- Classes ---------------------------------------------------------------------------------------------------- */

/* A class that is a collection, described by one element "This" that is titled "<type of its items> …". */
static bool compile_itself(sap_compiler *k, const sap_class *info, sap_step_node *out, bool *itself) {
    const sap_element *e = info->elements;
    *itself = info->count == 1 && strcmp(e->name, "This") == 0 && e->title[0] == '<';
    if (!*itself)
        return false;
    sap_span base, arguments[2];
    int n = sap_type_split(info->name, &base, arguments, 2);
    if (n > 1 && SAP_AMONG(base, "map", "multimap", "unordered_map", "unordered_multimap"))
        return sap_compile_type(k, info->name, false, out);
    size_t length = 0;
    int depth = 0;
    for (const char *p = e->title; *p && (length == 0 || depth > 0); p++) {
        depth += *p == '<' ? 1 : *p == '>' ? -1 : 0;
        length = (size_t)(p - e->title);
    }
    const char *item = length > 1 ? sap_arena_text(k->arena, e->title + 1, length - 1) : NULL;
    return item ? compile_list(k, item, false, out) : sap_compile_fail(k, "class %.150s is a collection", info->name);
}

static const sap_step_node *find_counter(const sap_step_node *step, const char *name) {
    if (step->op == SAP_OP_NUMBER && step->count == 1 && strcmp(step->name, name) == 0)
        return step;
    const sap_step_node *found = NULL;
    for (int i = 0; step->base && i < step->child_count && !found; i++)
        found = find_counter(&step->children[i], name);
    return found;
}

bool sap_compile_counter(sap_compiler *k, const sap_step_node *const *before, int count, const char *name,
                         sap_step_node *counted) {
    counted->counter_slot = -1;
    for (int i = 0; i < count; i++) {
        const sap_step_node *counter = find_counter(before[i], name);
        if (counter) {
            counted->counter_slot = counter->slot;
            counted->number = counter->number;
        }
    }
    return counted->counter_slot >= 0 || sap_compile_fail(k, "%s: its counter %s is not a member", counted->name, name);
}

static bool same_element(const sap_element *a, const sap_element *b) {
    return a->kind == b->kind && a->length == b->length && strcmp(a->name, b->name) == 0 &&
           strcmp(a->type_name, b->type_name) == 0 &&
           (a->kind == SAP_KIND_BASE || !a->title[0] || strcmp(a->title, b->title) == 0 || a->title[0] != '[');
}

/* Members of another version: those which the record has too go there, others are passed over. */
static bool compile_layout(sap_compiler *k, const sap_step_node *record, const sap_class *info, sap_layout *out) {
    const sap_class *own = record->info;
    size_t total = info->count + (size_t)record->child_count + 1;
    out->info = info;
    out->steps = sap_arena_array(k->arena, total, sizeof *out->steps);
    out->absent = sap_arena_array(k->arena, total, sizeof *out->absent);
    uint8_t *there = sap_arena_array(k->arena, (size_t)record->child_count + 1, 1);
    if (!out->steps || !out->absent || !there)
        return sap_compile_memory(k);
    for (size_t i = 0; i < info->count; i++) {
        const sap_element *e = &info->elements[i];
        if (e->kind < 0)
            continue;
        int at = -1, same = 0;
        for (size_t j = 0; j < own->count; j++) {
            if (own->elements[j].kind < 0)
                continue;
            if (strcmp(own->elements[j].name, e->name) == 0)
                at = same_element(e, &own->elements[j]) ? same : -2;
            same++;
        }
        if (at == -2)
            return false;
        if (at >= 0) {
            there[at] = 1;
            out->steps[out->step_count++] = &record->children[at];
            continue;
        }
        sap_step_node *extra = sap_arena_alloc(k->arena, sizeof *extra);
        if (!extra || !sap_compile_element(k, e, info->name, extra))
            return false;
        if (extra->op == SAP_OP_COUNTED && !sap_compile_counter(k, out->steps, out->step_count, e->count_name, extra))
            return false;
        extra->hidden = true;
        out->steps[out->step_count++] = extra;
    }
    for (int i = 0; i < record->child_count; i++)
        if (!there[i])
            out->absent[out->absent_count++] = &record->children[i];
    return true;
}

/* A version that cannot be had as this record is left out: its data then end in a message. */
static void compile_layouts(sap_compiler *k, sap_step_node *record) {
    const sap_class *own = record->info;
    if (own->checksum == 0 && own->version == 0)
        return;
    for (const sap_class *info = NULL; (info = sap_class_version(k->file, own->name, info));) {
        if (info == own || (info->version == own->version && info->checksum == own->checksum))
            continue;
        sap_layout *layout = sap_arena_alloc(k->arena, sizeof *layout);
        int depth = k->depth, stack_count = k->stack_count;
        if (layout && compile_layout(k, record, info, layout)) {
            layout->next = record->layouts;
            record->layouts = layout;
        }
        forgive(k);
        k->depth = depth;
        k->stack_count = stack_count;
    }
}

/* A member of a class that the file does not describe, or that is being described, is passed over by its byte count. */
static bool compile_skip(sap_compiler *k, const sap_element *e, sap_step_node *out) {
    bool framed = e->kind == SAP_KIND_OBJECT || e->kind == SAP_KIND_ANY || e->kind == SAP_KIND_STL;
    if (!k->skippable || !framed || e->length > 0)
        return false;
    forgive(k);
    *out = sap_step_new(k, SAP_OP_SKIP);
    out->name = e->name;
    out->hidden = true;
    out->stl = e->kind == SAP_KIND_STL;
    return true;
}

static bool compile_members(sap_compiler *k, const sap_class *info, sap_step_node *out) {
    const sap_step_node **before = sap_arena_array(k->arena, info->count + 1, sizeof *before);
    if (!sap_step_children(k, out, (int)info->count) || !before)
        return sap_compile_memory(k);
    out->child_count = 0;
    for (size_t i = 0; i < info->count; i++) {
        const sap_element *e = &info->elements[i];
        int depth = k->depth, stack_count = k->stack_count;
        if (e->kind < 0) { /* not stored */
            k->steps++;
            continue;
        }
        sap_step_node *child = &out->children[out->child_count];
        if (!sap_compile_element(k, e, info->name, child) && !compile_skip(k, e, child))
            return false;
        k->depth = depth;
        k->stack_count = stack_count;
        if (child->op == SAP_OP_COUNTED && !sap_compile_counter(k, before, out->child_count, e->count_name, child))
            return false;
        before[out->child_count++] = child;
    }
    return true;
}

bool sap_compile_class(sap_compiler *k, const char *class_name, int version, uint32_t checksum, sap_step_node *out) {
    sap_span base, none[1];
    (void)sap_type_split(class_name, &base, none, 0);
    bool special, ok = sap_compile_special(k, base, out, &special);
    if (special)
        return ok;
    const sap_class *info = find_class(k, class_name, version, checksum);
    if (!info) {
        k->undescribed = k->skippable = k->reason[0] == '\0';
        return sap_compile_fail(k, "class %.150s is not described in the file", class_name);
    }
    ok = compile_itself(k, info, out, &special);
    if (special)
        return ok;
    if (is_being_compiled(k, class_name)) {
        k->skippable = k->reason[0] == '\0';
        return sap_compile_fail(k, "class %.150s holds itself", class_name);
    }
    if (k->stack_count >= (int)(sizeof k->stack / sizeof *k->stack) || k->steps > MOST_STEPS)
        return sap_compile_fail(k, "class %.150s is nested too deep", class_name);
    k->stack[k->stack_count++] = class_name;
    *out = sap_step_new(k, SAP_OP_RECORD);
    out->framed = true;
    out->class_name = class_name;
    out->info = info;
    if (!compile_members(k, info, out))
        return false;
    compile_layouts(k, out);
    k->stack_count--;
    return true;
}
