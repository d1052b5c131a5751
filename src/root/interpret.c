/* The interpreter of read programs: entry bytes to builders, and builders to columns. docs/format/ttree.md, § Values. */
#include "root_internal.h"

#include <stdlib.h>

/* ---- Builders --------------------------------------------------------------------------------------------- */

static bool fail(sap_interpreter *in, const char *format, ...) SAP_PRINTF(2, 3);

static bool fail(sap_interpreter *in, const char *format, ...) {
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
    return fail(in, "out of memory");
}

static uint8_t *append(sap_interpreter *in, sap_buffer *buffer, size_t bytes) {
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

static bool append_end(sap_interpreter *in, sap_builder *builder, size_t items) {
    int64_t before = 0;
    if (builder->ends.length) {
        int32_t last;
        memcpy(&last, builder->ends.data + builder->ends.length - 4, 4);
        before = last;
    }
    int64_t sum = before + (int64_t)items;
    if (sum > INT32_MAX)
        return fail(in, "more than 2^31 items in one basket");
    int32_t end = (int32_t)sum;
    uint8_t *p = append(in, &builder->ends, 4);
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

static bool run(sap_interpreter *in, const sap_step_node *step, size_t n);

static bool enter(sap_interpreter *in, const sap_step_node *step, sap_frame *frame) {
    *frame = (sap_frame){.end = SIZE_MAX};
    if (!step->framed)
        return true;
    *frame = sap_frame_read(&in->c);
    return !in->c.failed;
}

/* A frame's bytes must be used up: if they are not, the program does not fit the data. */
static bool leave(sap_interpreter *in, const sap_step_node *step, const sap_frame *frame) {
    if (in->c.failed)
        return false;
    if (frame->end != SIZE_MAX && in->c.position != frame->end)
        return fail(in, "%s %s: %zu bytes are said to hold what took %s", step->class_name ? "class" : "member",
                    step->class_name ? step->class_name : step->name, frame->end,
                    in->c.position < frame->end ? "fewer" : "more");
    return true;
}

/* The bytes must be of the class version that the program was made for, or one of the same members. */
static bool check_version(sap_interpreter *in, const sap_step_node *step, uint16_t version, uint32_t checksum) {
    const sap_class *info = step->info;
    if (!info || info->version == version || (version == 0 && checksum == info->checksum))
        return true;
    if (version == 0 && checksum == 0)
        return true;
    return fail(in, "class %s was written in version %u, the column is of version %d", step->class_name, version,
                info->version);
}

static bool run_number(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_builder *builder = &in->builders[step->slot];
    size_t numbers = n * (size_t)step->count;
    if (numbers == 0) /* no bytes, and perhaps no buffer yet */
        return true;
    const uint8_t *data = sap_cursor_take(&in->c, numbers * step->number.stored);
    uint8_t *out = data ? append(in, &builder->values, numbers * step->number.size) : NULL;
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
        if (!enter(in, step, &frame))
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
        uint8_t *out = data && length ? append(in, &builder->values, length) : NULL;
        if (out)
            memcpy(out, data, length);
        else if (!data || length)
            return false;
        if (!append_end(in, builder, length) || !leave(in, step, &frame))
            return false;
    }
    return true;
}

static size_t least_bytes(const sap_step_node *item) {
    return item->op == SAP_OP_NUMBER ? (size_t)item->count * item->number.stored : 1;
}

/* n values of an STL type behind one frame. */
static bool run_framed_once(sap_interpreter *in, const sap_step_node *step, size_t n) {
    sap_step_node bare = *step, frame_step = *step;
    bare.framed = false;
    frame_step.framed = true;
    sap_frame frame;
    return enter(in, &frame_step, &frame) && run(in, &bare, n) && leave(in, &frame_step, &frame);
}

/* § Member-wise: all values of one member stand together; base classes have no frame then. */
static bool run_members(sap_interpreter *in, const sap_step_node *record, size_t n) {
    in->builders[record->slot].items += (int64_t)n;
    for (int i = 0; i < record->child_count; i++) {
        const sap_step_node *child = &record->children[i];
        if (child->base ? !run_members(in, child, n) : child->stl ? !run_framed_once(in, child, n) : !run(in, child, n))
            return false;
    }
    return true;
}

static bool run_list(sap_interpreter *in, const sap_step_node *step) {
    const sap_step_node *item = &step->children[0];
    sap_frame frame;
    if (!enter(in, step, &frame))
        return false;
    if (frame.memberwise) {
        uint16_t version = sap_cursor_u16(&in->c);
        uint32_t checksum = version == 0 ? sap_cursor_u32(&in->c) : 0;
        if (item->op != SAP_OP_RECORD)
            return fail(in, "member-wise data of what is no class");
        if (!in->c.failed && !check_version(in, item, version, checksum))
            return false;
    }
    size_t count = sap_cursor_count(&in->c, sap_cursor_u32(&in->c), least_bytes(item));
    if (in->c.failed || !append_end(in, &in->builders[step->slot], count))
        return false;
    bool ok = count == 0 || (frame.memberwise ? run_members(in, item, count) : run(in, item, count));
    return ok && leave(in, step, &frame);
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

/* Arrays of n objects, whose counters were read just before. */
static bool run_counted(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const sap_buffer *counters = &in->builders[step->counter_slot].values;
        size_t size = step->number.size, at = (n - i) * size;
        if (at > counters->length)
            return fail(in, "member %s: its counter was not read", step->name);
        int64_t wanted = counter_value(&step->number, counters->data + counters->length - at);
        size_t count = 0;
        if (step->unflagged || sap_cursor_u8(&in->c) != 0)
            count = sap_cursor_count(&in->c, wanted < 0 ? UINT64_MAX : (uint64_t)wanted, least_bytes(step->children));
        if (in->c.failed || !append_end(in, &in->builders[step->slot], count) || !run(in, step->children, count))
            return false;
    }
    return true;
}

/* Items up to the end of the entry. */
static bool run_rest(sap_interpreter *in, const sap_step_node *step) {
    sap_frame frame = {.end = SIZE_MAX};
    const sap_step_node *item = &step->children[0];
    size_t count = 0;
    if (sap_cursor_left(&in->c) > 0 && !enter(in, step, &frame))
        return false;
    while (sap_cursor_left(&in->c) > 0) {
        size_t before = in->c.position;
        if (!run(in, item, 1))
            return false;
        if (in->c.position == before)
            return fail(in, "items without bytes");
        count++;
    }
    return !in->c.failed && append_end(in, &in->builders[step->slot], count) && leave(in, step, &frame);
}

static bool run_record(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sap_frame frame;
        if (!enter(in, step, &frame))
            return false;
        if (frame.end != SIZE_MAX && !check_version(in, step, frame.version, frame.checksum))
            return false;
        in->builders[step->slot].items++;
        for (int j = 0; j < step->child_count; j++)
            if (!run(in, &step->children[j], 1))
                return false;
        if (!leave(in, step, &frame))
            return false;
    }
    return true;
}

static bool run_array(sap_interpreter *in, const sap_step_node *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sap_frame frame;
        if (!enter(in, step, &frame))
            return false;
        size_t count = sap_cursor_count(&in->c, (uint64_t)step->count, least_bytes(step->children));
        if (in->c.failed || !run(in, step->children, count) || !leave(in, step, &frame))
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
        uint8_t *out = in->c.failed ? NULL : append(in, &in->builders[step->slot].values, 4);
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
        uint8_t *out = in->c.failed ? NULL : append(in, &in->builders[step->slot].values, 4);
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
            return fail(in, "an object that cannot be passed over");
        sap_frame_leave(&in->c, &frame);
    }
    return !in->c.failed;
}

/* Reads n values of the step, one after another. */
static bool run(sap_interpreter *in, const sap_step_node *step, size_t n) {
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
    case SAP_OP_TOBJECT:
        for (size_t i = 0; i < n; i++)
            sap_stream_tobject(&in->c);
        return !in->c.failed;
    case SAP_OP_SKIP:
        return run_skip(in, n);
    }
    return fail(in, "unknown step");
}

/* A class without ClassDef has no frame when it is the whole entry. A frame that is there spans the entry. */
static bool is_framed(const sap_interpreter *in) {
    const sap_step_node *root = &in->program->root;
    if (root->op != SAP_OP_RECORD || !root->framed)
        return true;
    size_t left = sap_cursor_left(&in->c);
    const uint8_t *p = in->c.data + in->c.position;
    return left >= 6 && sap_be32(p) == ((uint32_t)(left - 4) | SAP_BYTE_COUNT_BIT);
}

bool sap_interpret(sap_interpreter *in) {
    if (in->program->named) {
        sap_cursor_skip(&in->c, (size_t)sap_cursor_u8(&in->c) + 1);
        if (in->c.failed)
            return false;
    }
    if (in->c.length == 0 &&
        in->program->root.op == SAP_OP_STRING) /* TLeafC leaves out the length of an empty string */
        return append_end(in, &in->builders[in->program->root.slot], 0);
    if (!run(in, is_framed(in) ? &in->program->root : &in->program->bare, 1))
        return false;
    if (sap_cursor_left(&in->c) > 0)
        return fail(in, "%zu of its %zu bytes are left over", sap_cursor_left(&in->c), in->c.length);
    return true;
}

/* ---- Columns ----------------------------------------------------------------------------------------------------- */

typedef struct joiner {
    sap_builder *const *pieces;
    size_t count;
    struct sap_storage *storage;
    sap_error *err;
} joiner;

static sap_status join_values(const joiner *j, int slot, sap_column *out) {
    size_t total = 0, at = 0;
    for (size_t i = 0; i < j->count; i++)
        total += j->pieces[i][slot].values.length;
    uint8_t *data = sap_storage_alloc(j->storage, total);
    if (!data)
        return sap_error_memory(j->err, out->name);
    for (size_t i = 0; i < j->count; i++) {
        const sap_buffer *from = &j->pieces[i][slot].values;
        if (from->length)
            memcpy(data + at, from->data, from->length);
        at += from->length;
    }
    out->values = data;
    return SAP_OK;
}

static sap_status join_ends(const joiner *j, int slot, sap_column *out) {
    int32_t *offsets = sap_storage_alloc(j->storage, ((size_t)out->length + 1) * sizeof *offsets);
    if (!offsets)
        return sap_error_memory(j->err, out->name);
    int64_t base = 0;
    size_t row = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < j->count; i++) {
        const sap_builder *piece = &j->pieces[i][slot];
        int32_t end = 0;
        for (int64_t e = 0; e < piece->items; e++) {
            memcpy(&end, piece->ends.data + 4 * (size_t)e, 4);
            offsets[++row] = (int32_t)(base + end);
        }
        base += end;
        if (base > INT32_MAX)
            return sap_error_set(j->err, SAP_EMEMORY,
                                 "column \"%s\": more than 2^31 items in one batch; ask for smaller batches",
                                 out->name);
    }
    out->offsets = offsets;
    return SAP_OK;
}

static int64_t count_items(const joiner *j, int slot) {
    int64_t items = 0;
    for (size_t i = 0; i < j->count; i++)
        items += j->pieces[i][slot].items;
    return items;
}

/* Descends through the fixed lists of the step's dimensions, setting lengths; returns the column inside. */
static sap_column *inside_dims(const sap_step_node *step, sap_column *column, int64_t items) {
    for (int i = 0; i < step->dim_count; i++) {
        column->length = items;
        items *= step->dims[i];
        column = &column->children[0];
    }
    column->length = items;
    return column;
}

static sap_status fill(const joiner *j, const sap_step_node *step, sap_column *out);

static sap_status fill_fields(const joiner *j, const sap_step_node *record, sap_column *columns, int32_t *at) {
    for (int i = 0; i < record->child_count; i++) {
        const sap_step_node *child = &record->children[i];
        if (child->hidden)
            continue;
        SAP_TRY(child->base ? fill_fields(j, child, columns, at) : fill(j, child, &columns[(*at)++]));
    }
    return SAP_OK;
}

static sap_status fill(const joiner *j, const sap_step_node *step, sap_column *out) {
    int64_t items = count_items(j, step->slot);
    int32_t at = 0;
    switch (step->op) {
    case SAP_OP_NUMBER:
    case SAP_OP_FBITS:
    case SAP_OP_REF:
        return join_values(j, step->slot, inside_dims(step, out, items));
    case SAP_OP_STRING:
    case SAP_OP_CSTRING:
        out->length = items;
        SAP_TRY(join_values(j, step->slot, out));
        return join_ends(j, step->slot, out);
    case SAP_OP_ARRAY:
        return fill(j, &step->children[0], inside_dims(step, out, items));
    case SAP_OP_RECORD:
        out->length = items;
        return fill_fields(j, step, out->children, &at);
    default:
        out->length = items;
        SAP_TRY(join_ends(j, step->slot, out));
        return fill(j, &step->children[0], &out->children[0]);
    }
}

sap_status sap_builders_join(const sap_program *program, sap_builder *const *pieces, size_t count,
                             struct sap_storage *storage, sap_column *out, sap_error *err) {
    joiner j = {pieces, count, storage, err};
    return fill(&j, &program->root, out);
}
