/* Reading what is pointed to, and ROOT's own collections, whose items the data name. docs/format/ttree.md, § Pointers. */
#include "root_internal.h"

enum { MOST_AGAIN = 16 << 20, DEEPEST = 40 };
static const uint32_t class_bit = 0x80000000u;

/* ---- Objects by their class ----------------------------------------------------------------------------------- */

static bool skip_base(sap_interpreter *in, const char *name) {
    if (strcmp(name, "TObject") == 0) {
        sap_stream_tobject(&in->c);
        return !in->c.failed;
    }
    sap_frame frame = sap_frame_read(&in->c);
    if (frame.end == SIZE_MAX)
        return sap_interpret_fail(in, "a base class %s without a byte count", name);
    sap_frame_leave(&in->c, &frame);
    return !in->c.failed;
}

/* An object of class `name`, which derives from the step's: of its members those of that class are read. */
static bool run_derived(sap_interpreter *in, const sap_step_node *step, const char *name, int depth) {
    const sap_file *file = in->program->file;
    if (strcmp(name, step->info->name) == 0)
        return sap_step_run(in, step, 1);
    sap_frame frame = sap_frame_read(&in->c);
    if (in->c.failed || frame.end == SIZE_MAX || depth > DEEPEST)
        return sap_interpret_fail(in, "an object of class %s without a byte count", name);
    const sap_class *info = sap_class_find(file, name, frame.version, frame.checksum);
    for (size_t i = 0; info && i < info->count && info->elements[i].kind == SAP_KIND_BASE; i++) {
        const char *base = info->elements[i].name;
        if (!sap_class_is(file, base, step->info->name)) {
            if (!skip_base(in, base))
                return false;
            continue;
        }
        if (!run_derived(in, step, base, depth + 1))
            return false;
        sap_frame_leave(&in->c, &frame);
        return !in->c.failed;
    }
    return sap_interpret_fail(in, "an object of class %s stands where class %s is expected", name, step->info->name);
}

/* The TObject inside an object of class `name`, as a record of its own. */
static bool run_as_tobject(sap_interpreter *in, const sap_step_node *step, const char *name, int depth) {
    if (strcmp(name, "TObject") == 0)
        return sap_step_run(in, step, 1);
    sap_frame frame = sap_frame_read(&in->c);
    if (in->c.failed || frame.end == SIZE_MAX || depth > DEEPEST)
        return sap_interpret_fail(in, "an object of class %s without a byte count", name);
    const sap_class *info = sap_class_find(in->program->file, name, frame.version, frame.checksum);
    const char *base = info && info->count && info->elements[0].kind == SAP_KIND_BASE ? info->elements[0].name : NULL;
    /* ROOT's own collections put their TObject first, whatever their description says */
    bool based = base && strcmp(base, "TCollection") != 0 && strcmp(base, "TSeqCollection") != 0;
    if (!run_as_tobject(in, step, based ? base : "TObject", depth + 1))
        return false;
    sap_frame_leave(&in->c, &frame);
    return !in->c.failed;
}

static bool is_base_of(const sap_step_node *step, const char *name) {
    sap_span base, none[1];
    (void)sap_type_split(name, &base, none, 0);
    return !step->class_name || strcmp(step->class_name, base.text) == 0;
}

/* An object of class `name` as what the pointer shows of it. */
static bool run_object(sap_interpreter *in, const sap_step_node *pointer, const char *name) {
    const sap_step_node *target = pointer->children;
    if (target->op == SAP_OP_RECORD && target->info)
        return run_derived(in, target, name, 0);
    if (target->class_name && strcmp(target->class_name, "TObject") == 0)
        return run_as_tobject(in, target, name, 0);
    if (target->op != SAP_OP_OBJECTS && !is_base_of(pointer, name) && !is_base_of(target, name))
        return sap_interpret_fail(in, "an object of class %s stands where class %s is expected", name,
                                  pointer->class_name);
    return sap_step_run(in, target, 1);
}

/* Remembers the class of an object that an open pointer points to: the common base of all. */
static bool note_class(sap_interpreter *in, const sap_step_node *pointer, const char *name) {
    sap_step_node *open = (sap_step_node *)(uintptr_t)pointer;
    const char *common = open->found ? sap_class_common(in->program->file, open->found, name) : name;
    open->found = sap_arena_text(in->probe, common ? common : "TObject", strlen(common ? common : "TObject"));
    in->out_of_memory = !open->found;
    return open->found || sap_interpret_fail(in, "out of memory");
}

/* ---- Pointers --------------------------------------------------------------------------------------------------- */

/* What stands at a pointer: where the object is, how far it goes, and its class. */
typedef struct target {
    const char *class_name; /* NULL: null */
    size_t end;             /* SIZE_MAX: not known */
} target;

static const char *name_at(sap_interpreter *in, size_t position) {
    const uint8_t *p = in->c.data + position;
    return position < in->c.length && memchr(p, 0, in->c.length - position) ? (const char *)p : NULL;
}

/* The class that a reference names: where it stood first, 0xFFFFFFFF and its name. */
static const char *referred_class(sap_interpreter *in, uint32_t tag) {
    uint64_t place = (uint64_t)(tag & ~class_bit) - in->origin;
    if (place + 4 > in->c.length || place > in->c.length || sap_be32(in->c.data + place) != UINT32_MAX)
        return NULL;
    return name_at(in, (size_t)place + 4);
}

/* Reads the head of a pointer. A reference to an object leads to where that was read first; *back is then where to go on. */
static bool read_target(sap_interpreter *in, const sap_step_node *step, target *out, size_t *back) {
    *out = (target){.end = SIZE_MAX};
    for (*back = SIZE_MAX;;) {
        uint32_t count = sap_cursor_u32(&in->c), tag = count;
        if ((count & SAP_BYTE_COUNT_BIT) && count != UINT32_MAX) {
            out->end = in->c.position + (count & ~(uint32_t)SAP_BYTE_COUNT_BIT);
            tag = sap_cursor_u32(&in->c);
        }
        if (in->c.failed || tag == 0)
            return !in->c.failed;
        if (tag != count && !(tag & class_bit)) { /* the object itself, as old files have it */
            out->class_name = step->class_name;
            sap_cursor_seek(&in->c, in->c.position - 8);
            return true;
        }
        if (tag & class_bit) {
            out->class_name = tag == UINT32_MAX ? name_at(in, in->c.position) : referred_class(in, tag);
            if (!out->class_name || (out->end != SIZE_MAX && out->end > in->c.length))
                return sap_interpret_fail(in, "a pointer to an object of a class that is not named");
            if (tag == UINT32_MAX)
                sap_cursor_skip(&in->c, strlen(out->class_name) + 1);
            return true;
        }
        uint64_t place = (uint64_t)tag - in->origin;
        if (*back != SIZE_MAX || place >= in->c.position)
            return sap_interpret_fail(in, "a reference to an object that is not there");
        *back = out->end != SIZE_MAX ? out->end : in->c.position;
        sap_cursor_seek(&in->c, (size_t)place);
    }
}

static bool run_pointer(sap_interpreter *in, const sap_step_node *step) {
    target t;
    size_t back;
    if (!read_target(in, step, &t, &back))
        return false;
    bool shown = t.class_name && step->child_count > 0;
    uint8_t *valid = sap_builder_append(in, &in->builders[step->slot].values, 1);
    if (!valid)
        return false;
    *valid = t.class_name != NULL;
    in->builders[step->slot].items++;
    size_t begin = in->c.position;
    if (t.class_name && !shown) {
        if (step->open && !in->probe && !step->hidden)
            return sap_interpret_fail(in, "an object of class %s, after entries in which there was none", t.class_name);
        if (t.end == SIZE_MAX)
            return sap_interpret_fail(in, "an object of class %s without a byte count", t.class_name);
        if (step->open && in->probe && !note_class(in, step, t.class_name))
            return false;
    }
    if (shown ? !run_object(in, step, t.class_name) : step->child_count > 0 && !sap_step_absent(in, step->children, 1))
        return false;
    if (shown && t.end != SIZE_MAX && in->c.position != t.end)
        return sap_interpret_fail(in, "class %s: its byte count does not fit its bytes", t.class_name);
    if (t.end != SIZE_MAX)
        sap_cursor_seek(&in->c, t.end);
    if (back != SIZE_MAX) {
        in->again += in->c.failed ? 0 : in->c.position - begin;
        if (in->again > MOST_AGAIN)
            return sap_interpret_fail(in, "references make more than %d MB of its bytes", MOST_AGAIN >> 20);
        sap_cursor_seek(&in->c, back);
    }
    return !in->c.failed;
}

bool sap_step_run_pointers(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!run_pointer(in, step))
            return false;
    return true;
}

/* ---- ROOT's collections ------------------------------------------------------------------------------------------ */

static size_t read_text(sap_interpreter *in, const uint8_t **text) {
    size_t length = sap_cursor_u8(&in->c);
    if (length == 255)
        length = sap_cursor_u32(&in->c);
    *text = sap_cursor_take(&in->c, length);
    return length;
}

static bool pass_text(sap_interpreter *in) {
    const uint8_t *text;
    (void)read_text(in, &text);
    return !in->c.failed;
}

/* The bits of the TObject that every collection is. */
static uint32_t read_bits(sap_interpreter *in) {
    sap_cursor c = in->c;
    sap_stream_tobject(&in->c);
    if (sap_cursor_u16(&c) & (SAP_BYTE_COUNT_BIT >> 16))
        sap_cursor_skip(&c, 4);
    sap_cursor_skip(&c, 4);
    return sap_cursor_u32(&c);
}

static bool run_options(sap_interpreter *in) {
    size_t length = sap_cursor_u8(&in->c);
    if (length == 255)
        length = sap_cursor_u32(&in->c);
    sap_cursor_skip(&in->c, length);
    return !in->c.failed;
}

bool sap_step_run_objects(sap_interpreter *in, const sap_step_node *step) {
    enum { TAG_BYTES = 4 };
    sap_frame frame;
    if (!sap_step_enter(in, step, &frame))
        return false;
    bool list = step->list == SAP_LIST_OPTIONS, named = frame.version > (list ? 3 : 1);
    if (frame.version > (list ? 3 : 2))
        (void)read_bits(in);
    if (named && !pass_text(in))
        return false;
    size_t count = sap_cursor_count(&in->c, sap_cursor_u32(&in->c), TAG_BYTES);
    if (step->list == SAP_LIST_ARRAY)
        sap_cursor_skip(&in->c, 4); /* lower bound */
    if (in->c.failed || !sap_builder_end(in, &in->builders[step->slot], count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!sap_step_run(in, step->children, 1) || (list && frame.version > 3 && !run_options(in)))
            return false;
    return sap_step_leave(in, step, &frame);
}

/* "Class;version" */
static const char *clones_class(sap_interpreter *in, uint16_t *version, char *name, size_t capacity) {
    const uint8_t *text;
    size_t length = read_text(in, &text);
    const uint8_t *semicolon = text ? memchr(text, ';', length) : NULL;
    size_t n = semicolon ? (size_t)(semicolon - text) : length;
    if (in->c.failed || n == 0 || n >= capacity) {
        (void)sap_interpret_fail(in, "a TClonesArray of a class of %zu letters", n);
        return NULL;
    }
    memcpy(name, text, n);
    name[n] = '\0';
    *version = 0;
    for (size_t i = n + 1; semicolon && i < length && text[i] >= '0' && text[i] <= '9'; i++)
        *version = (uint16_t)(*version * 10 + (text[i] - '0'));
    return name;
}

/* Items that are all there, member by member, or one after another with a byte that says whether each is there. */
static bool run_clones_items(sap_interpreter *in, const sap_step_node *slot, const char *name, uint16_t version,
                             size_t count, bool memberwise) {
    sap_builder *builder = &in->builders[slot->slot];
    for (size_t i = 0; i < count; i++) {
        bool there = memberwise || sap_cursor_u8(&in->c) != 0;
        uint8_t *valid = in->c.failed ? NULL : sap_builder_append(in, &builder->values, 1);
        if (!valid)
            return false;
        *valid = there;
        builder->items++;
        if (!memberwise && !(there ? run_object(in, slot, name) : sap_step_absent(in, slot->children, 1)))
            return false;
    }
    return !memberwise || sap_step_run_members(in, slot->children, version, 0, count);
}

bool sap_step_run_clones(sap_interpreter *in, const sap_step_node *step) {
    enum { BYPASS = 1 << 12, OLD_BYPASS = 1 << 14, NAME_MOST = 500 };
    const sap_step_node *slot = &step->children[0];
    sap_frame frame;
    char name[NAME_MOST];
    uint16_t version;
    if (!sap_step_enter(in, step, &frame))
        return false;
    uint32_t bits = frame.version > 2 ? read_bits(in) : BYPASS;
    if (frame.version > 1 && !pass_text(in))
        return false;
    if (!clones_class(in, &version, name, sizeof name))
        return false;
    int32_t number = sap_cursor_i32(&in->c);
    uint64_t wanted = number < 0 ? (uint64_t) - (int64_t)number : (uint64_t)number;
    bool memberwise = (bits & (frame.version == 3 ? OLD_BYPASS : BYPASS)) != 0;
    sap_cursor_skip(&in->c, 4); /* lower bound */
    /* items may have no bytes, but not more of them than the whole record has */
    size_t count = in->c.failed ? 0 : wanted <= in->c.length ? (size_t)wanted : SIZE_MAX;
    if (count == SIZE_MAX)
        return sap_interpret_fail(in, "a TClonesArray of %d items", number);
    if (in->c.failed || !sap_builder_end(in, &in->builders[step->slot], count))
        return false;
    if (slot->child_count == 0) {
        if (count == 0)
            return sap_step_leave(in, step, &frame);
        if (!in->probe || frame.end == SIZE_MAX)
            return sap_interpret_fail(in, "a TClonesArray of class %s, after entries in which there was none", name);
        if (!note_class(in, slot, name))
            return false;
        sap_frame_leave(&in->c, &frame);
        return !in->c.failed;
    }
    if (count == 0)
        return sap_step_leave(in, step, &frame);
    return run_clones_items(in, slot, name, version, count, memberwise) && sap_step_leave(in, step, &frame);
}
