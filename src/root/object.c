/* Objects as ROOT streams them: frames, texts, pointers with class tags and back-references, lists.
 * docs/format/tfile.md, § Object. */
#include "root_internal.h"

#include <stdlib.h>

enum { NEW_CLASS = -1, MAP_OFFSET = 2, DEEPEST = 200, FEW_ITEMS = 16 };
static const uint32_t class_bit = 0x80000000u;

void sap_stream_release(sap_stream *s) {
    free(s->references);
    s->references = NULL;
    s->reference_count = s->reference_capacity = 0;
}

bool sap_stream_fail(sap_stream *s, const char *format, ...) {
    if (!s->c.failed) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(s->problem, sizeof s->problem, format, arguments);
        va_end(arguments);
        sap_cursor_fail(&s->c, 0);
    }
    return false;
}

/* Frames of old files end before what they hold, so bytes may be read again; without a bound, damaged ones that are nested
 * would be read without end. */
bool sap_stream_count(sap_stream *s) {
    return ++s->parts <= s->c.length || sap_stream_fail(s, "more parts than bytes");
}

sap_status sap_stream_check(const sap_stream *s, const char *what, sap_error *err) {
    if (s->c.failed && s->problem[0])
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s: %s", s->where,
                             (unsigned long long)(s->c.base + s->c.failed_at), what, s->problem);
    return sap_cursor_check(&s->c, s->where, what, err);
}

/* ---- Frames --------------------------------------------------------------------------------------------- */

sap_frame sap_frame_read(sap_cursor *c) {
    sap_frame frame = {.end = SIZE_MAX};
    size_t begin = c->position;
    uint32_t count = sap_cursor_u32(c);
    if (count & SAP_BYTE_COUNT_BIT) {
        count &= ~(uint32_t)SAP_BYTE_COUNT_BIT;
        frame.end = begin + 4 + count;
        if (!c->failed && (count < 2 || frame.end > c->length)) {
            c->position = begin + 4;
            sap_cursor_fail(c, count);
        }
        frame.version = sap_cursor_u16(c);
    } else if (!c->failed) { /* before byte counts: two bytes of version only */
        c->position = begin;
        frame.version = sap_cursor_u16(c);
    }
    frame.memberwise = frame.end != SIZE_MAX && (frame.version & SAP_MEMBERWISE_BIT) != 0;
    if (frame.memberwise)
        frame.version &= (uint16_t)~SAP_MEMBERWISE_BIT;
    if (frame.version == 0 && frame.end != SIZE_MAX && frame.end - c->position >= 4 && !frame.memberwise)
        frame.checksum = sap_cursor_u32(c);
    return frame;
}

void sap_frame_leave(sap_cursor *c, const sap_frame *frame) {
    if (frame->end != SIZE_MAX)
        sap_cursor_seek(c, frame->end);
}

/* ---- Texts and simple bases ------------------------------------------------------------------------------- */

const char *sap_stream_text(sap_stream *s) {
    size_t length = sap_cursor_u8(&s->c);
    if (length == 255)
        length = sap_cursor_u32(&s->c);
    const uint8_t *p = sap_cursor_take(&s->c, length);
    const char *text = p ? sap_arena_text(s->arena, (const char *)p, length) : "";
    if (!text) {
        sap_stream_fail(s, "out of memory");
        return "";
    }
    return text;
}

uint32_t sap_stream_tobject(sap_cursor *c) {
    enum { IS_REFERENCED = 1 << 4 };
    uint16_t version = sap_cursor_u16(c);
    if (version & (SAP_BYTE_COUNT_BIT >> 16)) /* a byte count, for a class that derives from TObject by hand */
        sap_cursor_skip(c, 4);
    uint32_t id = sap_cursor_u32(c);
    if (sap_cursor_u32(c) & IS_REFERENCED)
        sap_cursor_skip(c, 2);
    return id;
}

void sap_stream_named(sap_stream *s, const char **name, const char **title) {
    sap_frame frame = sap_frame_read(&s->c);
    (void)sap_stream_tobject(&s->c);
    const char *n = sap_stream_text(s), *t = sap_stream_text(s);
    if (name)
        *name = n;
    if (title)
        *title = t;
    sap_frame_leave(&s->c, &frame);
}

/* ---- Pointers --------------------------------------------------------------------------------------------- */

static const sap_reference *find_reference(const sap_stream *s, uint64_t position) {
    size_t low = 0, high = s->reference_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->references[middle].position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->reference_count && s->references[low].position == position ? &s->references[low] : NULL;
}

/* Returns its index, SIZE_MAX when memory is out. Objects are entered before their insides are read, so positions rise. */
static size_t add_reference(sap_stream *s, uint64_t position, const char *class_name) {
    if (s->reference_count && s->references[s->reference_count - 1].position >= position) {
        sap_stream_fail(s, "objects overlap");
        return SIZE_MAX;
    }
    if (!sap_grow((void **)&s->references, &s->reference_capacity, s->reference_count, sizeof *s->references)) {
        sap_stream_fail(s, "out of memory");
        return SIZE_MAX;
    }
    s->references[s->reference_count] = (sap_reference){.position = position, .class_name = class_name};
    return s->reference_count++;
}

/* Class name that stands as terminated text. */
static const char *class_text(sap_stream *s) {
    size_t left = sap_cursor_left(&s->c);
    const uint8_t *p = s->c.data + s->c.position, *end = left ? memchr(p, 0, left) : NULL;
    if (!end) {
        sap_stream_fail(s, "a class name has no end");
        return "";
    }
    const char *text = sap_arena_text(s->arena, (const char *)p, (size_t)(end - p));
    sap_cursor_skip(&s->c, (size_t)(end - p) + 1);
    return text ? text : "";
}

void *sap_stream_object(sap_stream *s, sap_object_reader reader, const char **class_name) {
    *class_name = NULL;
    uint64_t begin = s->origin + s->c.position;
    uint32_t count = sap_cursor_u32(&s->c), tag = count;
    size_t end = SIZE_MAX;
    bool positions = (count & SAP_BYTE_COUNT_BIT) && count != UINT32_MAX; /* else the map counts objects from 1 */
    if (positions) {
        end = s->c.position + (count & ~(uint32_t)SAP_BYTE_COUNT_BIT);
        tag = sap_cursor_u32(&s->c);
        if (end > s->c.length)
            sap_cursor_fail(&s->c, end - s->c.position);
    }
    if (s->c.failed || tag == 0)
        return NULL;
    if (!(tag & class_bit)) {
        const sap_reference *r = find_reference(s, tag);
        if (end != SIZE_MAX)
            sap_cursor_seek(&s->c, end);
        if (r)
            *class_name = r->class_name;
        return r ? r->object : NULL;
    }
    if (tag == UINT32_MAX) {
        uint64_t at = positions ? s->origin + s->c.position - 4 + MAP_OFFSET : s->reference_count + 1;
        *class_name = class_text(s);
        /* the object's own place lies before that of its class: it is entered first to keep the order */
        if (positions) {
            size_t self = add_reference(s, begin + MAP_OFFSET, *class_name);
            if (self == SIZE_MAX || add_reference(s, at, *class_name) == SIZE_MAX)
                return NULL;
        } else if (add_reference(s, at, *class_name) == SIZE_MAX) {
            return NULL;
        }
    } else {
        const sap_reference *r = find_reference(s, tag & ~class_bit);
        if (!r) {
            sap_stream_fail(s, "reference to a class at %u which is not there", tag & ~class_bit);
            return NULL;
        }
        *class_name = r->class_name;
        if (positions && add_reference(s, begin + MAP_OFFSET, *class_name) == SIZE_MAX)
            return NULL;
    }
    if (!positions && add_reference(s, s->reference_count + 1, *class_name) == SIZE_MAX)
        return NULL;
    uint64_t self = positions ? begin + MAP_OFFSET : s->reference_count;
    if (++s->depth > DEEPEST)
        sap_stream_fail(s, "objects nested deeper than %d", DEEPEST);
    void *object = NULL;
    if (!s->c.failed && !reader(s, *class_name, &object) && end == SIZE_MAX)
        sap_stream_fail(s, "an object of class %s without a byte count", *class_name);
    s->depth--;
    if (s->c.failed)
        return NULL;
    if (end != SIZE_MAX)
        sap_cursor_seek(&s->c, end);
    sap_reference *r = (sap_reference *)(uintptr_t)find_reference(s, self);
    if (r)
        r->object = object;
    return object;
}

/* ---- Lists ------------------------------------------------------------------------------------------------- */

static void read_items(sap_stream *s, sap_object_reader reader, bool options, uint32_t count, sap_objects *out) {
    size_t n = sap_cursor_count(&s->c, count, 4), capacity = 0;
    for (out->count = 0; out->count < n && !s->c.failed && sap_stream_count(s); out->count++) {
        if (out->count == capacity) { /* as items come: a list in a list may promise the same bytes again */
            capacity = n < FEW_ITEMS ? n : capacity ? capacity * 2 : FEW_ITEMS;
            struct sap_object *items = sap_arena_array(s->arena, capacity, sizeof *items);
            if (!items) {
                sap_stream_fail(s, "out of memory");
                return;
            }
            if (out->count)
                memcpy(items, out->items, out->count * sizeof *items);
            out->items = items;
        }
        struct sap_object *item = &out->items[out->count];
        item->object = sap_stream_object(s, reader, &item->class_name);
        if (options)
            item->option = sap_stream_text(s);
    }
}

void sap_stream_objarray(sap_stream *s, sap_object_reader reader, sap_objects *out) {
    *out = (sap_objects){0};
    sap_frame frame = sap_frame_read(&s->c);
    if (frame.version > 2)
        (void)sap_stream_tobject(&s->c);
    if (frame.version > 1)
        (void)sap_stream_text(s);
    uint32_t count = sap_cursor_u32(&s->c);
    sap_cursor_skip(&s->c, 4); /* lower bound */
    read_items(s, reader, false, count, out);
    sap_frame_leave(&s->c, &frame);
}

void sap_stream_list(sap_stream *s, sap_object_reader reader, sap_objects *out) {
    *out = (sap_objects){0};
    sap_frame frame = sap_frame_read(&s->c);
    if (frame.version > 3) {
        (void)sap_stream_tobject(&s->c);
        (void)sap_stream_text(s);
    }
    uint32_t count = sap_cursor_u32(&s->c);
    read_items(s, reader, frame.version > 3, count, out);
    sap_frame_leave(&s->c, &frame);
}
