/* The interpreter of read programs: entry bytes to builders. docs/format/ttree.md, § Values. */
#include "root_internal.h"

#include <stdlib.h>

/* ---- Builders --------------------------------------------------------------------------------------------- */

bool sap_interpret_fail(sap_interpreter *in, const char *format, ...) {
    if (!in->problem[0]) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(in->problem, sizeof in->problem, format, arguments);
        va_end(arguments);
    }
    sap_cursor_fail(&in->c, 0);
    return false;
}

static bool no_memory(sap_interpreter *in) {
    in->out_of_memory = true;
    return sap_interpret_fail(in, "out of memory");
}

uint8_t *sap_builder_append(sap_interpreter *in, sap_buffer *buffer, size_t bytes) {
    if (bytes > buffer->capacity - buffer->length) {
        size_t wanted = buffer->length + bytes, doubled = buffer->capacity * 2;
        if (!sap_buffer_reserve(buffer, wanted > doubled ? wanted : doubled)) {
            (void)no_memory(in);
            return NULL;
        }
    }
    uint8_t *p = buffer->data + buffer->length;
    buffer->length += bytes;
    return p;
}

bool sap_builder_end(sap_interpreter *in, sap_builder *builder, size_t items) {
    int64_t before = 0;
    if (builder->ends.length) {
        int32_t last;
        memcpy(&last, builder->ends.data + builder->ends.length - 4, 4);
        before = last;
    }
    int64_t sum = before + (int64_t)items;
    if (sum > INT32_MAX)
        return sap_interpret_fail(in, "more than 2^31 items in one basket");
    int32_t end = (int32_t)sum;
    uint8_t *p = sap_builder_append(in, &builder->ends, 4);
    if (p)
        memcpy(p, &end, 4);
    builder->items++;
    return p != NULL;
}

void sap_builders_release(sap_builder *builders, int slots) {
    for (int i = 0; builders && i < slots; i++) {
        free(builders[i].values.data);
        free(builders[i].ends.data);
    }
    free(builders);
}

/* ---- Reading ------------------------------------------------------------------------------------------------ */

bool sap_step_enter(sap_interpreter *in, const sap_step_node *step, sap_frame *frame) {
    *frame = (sap_frame){.end = SIZE_MAX};
    if (!step->framed)
        return true;
    *frame = sap_frame_read(&in->c);
    return !in->c.failed;
}

/* A frame's bytes must be used up: if they are not, the program does not fit the data. */
bool sap_step_leave(sap_interpreter *in, const sap_step_node *step, const sap_frame *frame) {
    if (in->c.failed)
        return false;
    if (frame->end == SIZE_MAX || in->c.position == frame->end)
        return true;
    const sap_step_node *item = step->child_count == 1 ? step->children : NULL;
    if (item && item->op == SAP_OP_NUMBER && item->class_name)
        return sap_interpret_fail(in, "class %s is not described in the file, and is no enumeration", item->class_name);
    return sap_interpret_fail(in, "%s %s: %zu bytes are said to hold what took %s",
                              step->class_name ? "class" : "member", step->class_name ? step->class_name : step->name,
                              frame->end, in->c.position < frame->end ? "fewer" : "more");
}

/* The steps of a record, in the order of the bytes of the class version that was written. */
typedef struct sequence {
    const sap_step_node *record;
    const sap_layout *layout; /* NULL: the record's own */
    int count;
} sequence;

static bool is_version(const sap_class *info, uint16_t version, uint32_t checksum) {
    return info->version == version || (version == 0 && (checksum == 0 || checksum == info->checksum));
}

static bool find_sequence(const sap_step_node *step, uint16_t version, uint32_t checksum, sequence *out) {
    *out = (sequence){.record = step, .count = step->child_count};
    if (!step->info || is_version(step->info, version, checksum))
        return true;
    for (const sap_layout *layout = step->layouts; layout; layout = layout->next) {
        if (is_version(layout->info, version, checksum)) {
            *out = (sequence){step, layout, layout->step_count};
            return true;
        }
    }
    return false;
}

static const sap_step_node *sequence_step(const sequence *s, int i) {
    return s->layout ? s->layout->steps[i] : &s->record->children[i];
}

static bool choose_sequence(sap_interpreter *in, const sap_step_node *step, uint16_t version, uint32_t checksum,
                            sequence *out) {
    return find_sequence(step, version, checksum, out) ||
           sap_interpret_fail(in, "class %s was written in version %u, the column is of version %d", step->class_name,
                              version, step->info->version);
}

static bool fill_absent(sap_interpreter *in, const sequence *s, size_t n) {
    for (int i = 0; s->layout && i < s->layout->absent_count; i++)
        if (!sap_step_absent(in, s->layout->absent[i], n))
            return false;
    return true;
}

static bool run_number(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_builder *builder = &in->builders[step->slot];
    size_t numbers = n * (size_t)step->count;
    if (numbers == 0) /* no bytes, and perhaps no buffer yet */
        return true;
    const uint8_t *data = sap_cursor_take(&in->c, numbers * step->number.stored);
    uint8_t *out = data ? sap_builder_append(in, &builder->values, numbers * step->number.size) : NULL;
    if (!out)
        return false;
    sap_number_convert(&step->number, data, numbers, out);
    builder->items += (int64_t)n;
    return true;
}

static bool run_strings(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_builder *builder = &in->builders[step->slot];
    for (size_t i = 0; i < n; i++) {
        sap_frame frame;
        if (!sap_step_enter(in, step, &frame))
            return false;
        size_t length;
        if (step->op == SAP_OP_CSTRING) {
            length = sap_cursor_u32(&in->c);
        } else {
            length = sap_cursor_u8(&in->c);
            if (length == 255)
                length = sap_cursor_u32(&in->c);
        }
        const uint8_t *data = sap_cursor_take(&in->c, length);
        uint8_t *out = data && length ? sap_builder_append(in, &builder->values, length) : NULL;
        if (out)
            memcpy(out, data, length);
        else if (!data || length)
            return false;
        if (!sap_builder_end(in, builder, length) || !sap_step_leave(in, step, &frame))
            return false;
    }
    return true;
}

/* Whether a value may have no bytes at all, such as an object of a class without members. */
static bool may_be_empty(const sap_step_node *step) {
    bool empty = step->op == SAP_OP_RECORD || step->op == SAP_OP_TOBJECT;
    for (int i = 0; i < step->child_count && empty; i++)
        empty = may_be_empty(&step->children[i]);
    return empty;
}

/* Checks a number of items against the bytes that are left. */
static size_t check_items(sap_interpreter *in, uint64_t count, const sap_step_node *item) {
    enum { MOST_EMPTY = 65536 };
    size_t least = item->op == SAP_OP_NUMBER ? (size_t)item->count * item->number.stored : 1;
    if (count <= MOST_EMPTY && may_be_empty(item))
        return (size_t)count;
    return sap_cursor_count(&in->c, count, least);
}

/* Member-wise lists begin with the version of their items' class. */
static void read_item_version(sap_interpreter *in, uint16_t *version, uint32_t *checksum) {
    *version = sap_cursor_u16(&in->c);
    *checksum = *version == 0 ? sap_cursor_u32(&in->c) : 0;
}

static bool run_items(sap_interpreter *in, const sap_step_node *step, bool memberwise, uint16_t version,
                      uint32_t checksum) {
    const sap_step_node *item = &step->children[0];
    size_t count = check_items(in, sap_cursor_u32(&in->c), item);
    if (in->c.failed || !sap_builder_end(in, &in->builders[step->slot], count))
        return false;
    if (count == 0)
        return true;
    return memberwise ? sap_step_run_members(in, item, version, checksum, count) : sap_step_run(in, item, count);
}

/* n values of an STL type behind one frame. */
static bool run_framed_once(sap_interpreter *in, const sap_step_node *step, size_t n) {
    if (step->op == SAP_OP_SKIP)
        return sap_step_run(in, step, 1);
    sap_step_node bare = *step, frame_step = *step;
    bare.framed = false;
    frame_step.framed = true;
    sap_frame frame;
    if (!sap_step_enter(in, &frame_step, &frame))
        return false;
    if (frame.memberwise) {
        uint16_t version;
        uint32_t checksum;
        read_item_version(in, &version, &checksum);
        for (size_t i = 0; i < n; i++)
            if (step->op != SAP_OP_LIST || !run_items(in, step, true, version, checksum))
                return sap_interpret_fail(in, "member-wise data of what is no list");
    } else if (!sap_step_run(in, &bare, n)) {
        return false;
    }
    return sap_step_leave(in, &frame_step, &frame);
}

/* § Member-wise: all values of one member stand together; base classes have no frame then. */
bool sap_step_run_members(sap_interpreter *in, const sap_step_node *record, uint16_t version, uint32_t checksum,
                          size_t n) {
    sequence s;
    if (record->op != SAP_OP_RECORD)
        return sap_interpret_fail(in, "member-wise data of what is no class");
    if (in->c.failed || !choose_sequence(in, record, version, checksum, &s))
        return false;
    in->builders[record->slot].items += (int64_t)n;
    for (int i = 0; i < s.count; i++) {
        const sap_step_node *child = sequence_step(&s, i);
        bool ok = child->base  ? sap_step_run_members(in, child, 0, 0, n)
                  : child->stl ? run_framed_once(in, child, n)
                               : sap_step_run(in, child, n);
        if (!ok)
            return false;
    }
    return fill_absent(in, &s, n);
}

static bool run_list(sap_interpreter *in, const sap_step_node *step) {
    sap_frame frame;
    uint16_t version = 0;
    uint32_t checksum = 0;
    if (!sap_step_enter(in, step, &frame))
        return false;
    if (frame.memberwise)
        read_item_version(in, &version, &checksum);
    return run_items(in, step, frame.memberwise, version, checksum) && sap_step_leave(in, step, &frame);
}

static int64_t counter_value(const sap_number *number, const uint8_t *p) {
    int64_t v = 0;
    int32_t v4;
    int16_t v2;
    switch (number->size) {
    case 8:
        memcpy(&v, p, 8);
        return v;
    case 4:
        memcpy(&v4, p, 4);
        return v4;
    case 2:
        memcpy(&v2, p, 2);
        return number->type == SAP_UINT16 ? (uint16_t)v2 : v2;
    default:
        return number->type == SAP_INT8 ? (int8_t)*p : *p;
    }
}

/* The counter of object i of n, which was read just before them, or stands in another column. */
static bool find_count(sap_interpreter *in, const sap_step_node *step, size_t i, size_t n, int64_t *out) {
    if (step->counter_slot == SAP_COUNTED_OUTSIDE) {
        sap_number number = {.type = in->counts_type, .size = (uint8_t)sap_type_size(in->counts_type)};
        if (in->counts_left == 0)
            return sap_interpret_fail(in, "member %s: more arrays than its counter counts", step->name);
        *out = counter_value(&number, in->counts);
        in->counts += number.size;
        in->counts_left--;
        return true;
    }
    const sap_buffer *counters = &in->builders[step->counter_slot].values;
    size_t size = step->number.size, at = (n - i) * size;
    if (at > counters->length)
        return sap_interpret_fail(in, "member %s: its counter was not read", step->name);
    *out = counter_value(&step->number, counters->data + counters->length - at);
    return true;
}

/* Arrays of n objects. */
static bool run_counted(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_frame frame;
    if (n == 0 || !sap_step_enter(in, step, &frame))
        return n == 0;
    for (size_t i = 0; i < n; i++) {
        int64_t wanted = 0;
        if (!find_count(in, step, i, n, &wanted))
            return false;
        for (int32_t j = 0; j < step->count; j++) {
            size_t count = 0;
            if (step->unflagged || sap_cursor_u8(&in->c) != 0)
                count = check_items(in, wanted < 0 ? UINT64_MAX : (uint64_t)wanted, step->children);
            if (in->c.failed || !sap_builder_end(in, &in->builders[step->slot], count) ||
                !sap_step_run(in, step->children, count))
                return false;
        }
    }
    return sap_step_leave(in, step, &frame);
}

/* The base class of all items of a split collection, which another column counts: member-wise, without frames. */
static bool run_bases(sap_interpreter *in, const sap_step_node *step) {
    int64_t wanted = 0;
    if (sap_cursor_left(&in->c) > 0 && !find_count(in, step, 0, 1, &wanted))
        return false;
    size_t count = check_items(in, wanted < 0 ? UINT64_MAX : (uint64_t)wanted, step->children);
    return !in->c.failed && sap_builder_end(in, &in->builders[step->slot], count) &&
           (count == 0 || sap_step_run_members(in, step->children, 0, 0, count));
}

/* Items up to the end of the entry. */
static bool run_rest(sap_interpreter *in, const sap_step_node *step) {
    if (step->counter_slot == SAP_COUNTED_OUTSIDE)
        return run_bases(in, step);
    sap_frame frame = {.end = SIZE_MAX};
    const sap_step_node *item = &step->children[0];
    size_t count = 0;
    if (sap_cursor_left(&in->c) > 0 && !sap_step_enter(in, step, &frame))
        return false;
    uint16_t version = 0;
    uint32_t checksum = 0;
    if (frame.memberwise)
        read_item_version(in, &version, &checksum);
    if (frame.memberwise && item->op != SAP_OP_LIST)
        return sap_interpret_fail(in, "member-wise data of what is no list");
    while (sap_cursor_left(&in->c) > 0) {
        size_t before = in->c.position;
        if (frame.memberwise ? !run_items(in, item, true, version, checksum) : !sap_step_run(in, item, 1))
            return false;
        if (in->c.position == before)
            return sap_interpret_fail(in, "items without bytes");
        count++;
    }
    return !in->c.failed && sap_builder_end(in, &in->builders[step->slot], count) && sap_step_leave(in, step, &frame);
}

static bool run_record(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sap_frame frame;
        sequence s = {.record = step, .count = step->child_count};
        if (!sap_step_enter(in, step, &frame))
            return false;
        if (step->framed && !choose_sequence(in, step, frame.version, frame.checksum, &s))
            return false;
        in->builders[step->slot].items++;
        for (int j = 0; j < s.count; j++)
            if (!sap_step_run(in, sequence_step(&s, j), 1))
                return false;
        if (!fill_absent(in, &s, 1) || !sap_step_leave(in, step, &frame))
            return false;
    }
    return true;
}

static bool run_array(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sap_frame frame;
        if (!sap_step_enter(in, step, &frame))
            return false;
        size_t count = check_items(in, (uint64_t)step->count, step->children);
        if (in->c.failed || !sap_step_run(in, step->children, count) || !sap_step_leave(in, step, &frame))
            return false;
    }
    in->builders[step->slot].items += (int64_t)n;
    return true;
}

static bool run_bits(sap_interpreter *in, const sap_step_node *step, size_t n) {
    enum { IS_REFERENCED = 1 << 4 };
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = sap_cursor_u32(&in->c);
        if (bits & IS_REFERENCED)
            sap_cursor_skip(&in->c, 2);
        uint8_t *out = in->c.failed ? NULL : sap_builder_append(in, &in->builders[step->slot].values, 4);
        if (!out)
            return false;
        memcpy(out, &bits, 4);
        in->builders[step->slot].items++;
    }
    return true;
}

/* § References. */
static bool run_refs(sap_interpreter *in, const sap_step_node *step, size_t n) {
    enum { IS_REFERENCED = 1 << 4, HAS_UUID = 1 << 5, BYTE_COUNTED = 0x4000 };
    for (size_t i = 0; i < n; i++) {
        if (sap_cursor_u16(&in->c) & BYTE_COUNTED)
            sap_cursor_skip(&in->c, 4);
        uint32_t number = sap_cursor_u32(&in->c), bits = sap_cursor_u32(&in->c);
        if (bits & IS_REFERENCED)
            sap_cursor_skip(&in->c, 2);
        sap_cursor_skip(&in->c, bits & HAS_UUID ? sap_cursor_u8(&in->c) : 2);
        uint8_t *out = in->c.failed ? NULL : sap_builder_append(in, &in->builders[step->slot].values, 4);
        if (!out)
            return false;
        memcpy(out, &number, 4);
        in->builders[step->slot].items++;
    }
    return true;
}

static bool run_skip(sap_interpreter *in, size_t n) {
    for (size_t i = 0; i < n && !in->c.failed; i++) {
        sap_frame frame = sap_frame_read(&in->c);
        if (frame.end == SIZE_MAX)
            return sap_interpret_fail(in, "an object that cannot be passed over");
        sap_frame_leave(&in->c, &frame);
    }
    return !in->c.failed;
}

bool sap_step_run(sap_interpreter *in, const sap_step_node *step, size_t n) {
    switch (step->op) {
    case SAP_OP_NUMBER:
        return run_number(in, step, n);
    case SAP_OP_STRING:
    case SAP_OP_CSTRING:
        return run_strings(in, step, n);
    case SAP_OP_LIST:
    case SAP_OP_ARRAYOBJ:
        for (size_t i = 0; i < n; i++)
            if (!run_list(in, step))
                return false;
        return true;
    case SAP_OP_COUNTED:
        return run_counted(in, step, n);
    case SAP_OP_REST:
        return run_rest(in, step);
    case SAP_OP_ARRAY:
        return run_array(in, step, n);
    case SAP_OP_RECORD:
        return run_record(in, step, n);
    case SAP_OP_FBITS:
        return run_bits(in, step, n);
    case SAP_OP_REF:
        return run_refs(in, step, n);
    case SAP_OP_PASS:
        sap_cursor_skip(&in->c, n * (size_t)step->count);
        return !in->c.failed;
    case SAP_OP_TOBJECT: /* a class may leave it out; where nothing follows, that shows */
        for (size_t i = 0; i < n && sap_cursor_left(&in->c) > 0; i++)
            sap_stream_tobject(&in->c);
        return !in->c.failed;
    case SAP_OP_SKIP:
        return run_skip(in, n);
    case SAP_OP_POINTER:
        return sap_step_run_pointers(in, step, n);
    case SAP_OP_CLONES:
    case SAP_OP_OBJECTS:
        for (size_t i = 0; i < n; i++)
            if (!(step->op == SAP_OP_CLONES ? sap_step_run_clones(in, step) : sap_step_run_objects(in, step)))
                return false;
        return true;
    }
    return sap_interpret_fail(in, "unknown step");
}

static bool zeros(sap_interpreter *in, sap_builder *builder, size_t items, size_t bytes) {
    uint8_t *out = sap_builder_append(in, &builder->values, bytes);
    if (out)
        memset(out, 0, bytes);
    builder->items += (int64_t)items;
    return out != NULL;
}

bool sap_step_absent(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_builder *builder = &in->builders[step->slot];
    if (step->hidden || n == 0)
        return true;
    switch (step->op) {
    case SAP_OP_NUMBER:
    case SAP_OP_FBITS:
    case SAP_OP_REF:
        return zeros(in, builder, n, n * (size_t)step->count * step->number.size);
    case SAP_OP_POINTER:
        return zeros(in, builder, n, n) && (step->child_count == 0 || sap_step_absent(in, step->children, n));
    case SAP_OP_ARRAY:
        builder->items += (int64_t)n;
        return sap_step_absent(in, step->children, n * (size_t)step->count);
    case SAP_OP_RECORD:
        builder->items += (int64_t)n;
        for (int i = 0; i < step->child_count; i++)
            if (!sap_step_absent(in, &step->children[i], n))
                return false;
        return true;
    default: /* lists and texts: empty */
        for (size_t i = 0; i < n * (size_t)step->count; i++)
            if (!sap_builder_end(in, builder, 0))
                return false;
        return true;
    }
}

/* A class without ClassDef has no frame when it is the whole entry. A frame that is there spans the entry, and is of the
 * class: what spans it otherwise is the frame of its only base or member. */
static bool is_framed(const sap_interpreter *in) {
    const sap_step_node *root = &in->program->root;
    if (root->op != SAP_OP_RECORD || !root->framed)
        return true;
    size_t left = sap_cursor_left(&in->c);
    const uint8_t *p = in->c.data + in->c.position;
    if (left < 6 || sap_be32(p) != ((uint32_t)(left - 4) | SAP_BYTE_COUNT_BIT))
        return false;
    sequence ignored;
    sap_cursor c = in->c;
    sap_frame frame = sap_frame_read(&c);
    bool only = root->child_count == 1 && root->children[0].framed;
    return !only || find_sequence(root, frame.version, frame.checksum, &ignored);
}

bool sap_interpret(sap_interpreter *in) {
    if (in->program->named) {
        sap_cursor_skip(&in->c, (size_t)sap_cursor_u8(&in->c) + 1);
        if (in->c.failed)
            return false;
    }
    if (in->c.length == 0 &&
        in->program->root.op == SAP_OP_STRING) /* TLeafC leaves out the length of an empty string */
        return sap_builder_end(in, &in->builders[in->program->root.slot], 0);
    bool framed = is_framed(in);
    if (!framed && in->program->inlined ? !sap_step_run_members(in, &in->program->root, 0, 0, 1)
                                        : !sap_step_run(in, framed ? &in->program->root : &in->program->bare, 1))
        return false;
    if (sap_cursor_left(&in->c) > 0)
        return sap_interpret_fail(in, "%zu of its %zu bytes are left over", sap_cursor_left(&in->c), in->c.length);
    return true;
}
