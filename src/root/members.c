/* Objects of the metadata read by the file's own streamer info: the members that a table names, all others passed over. */
#include "root_internal.h"

enum { DEEPEST = 64, MOST_COUNTERS = 64 };

static const sap_member *find_member(const sap_member *table, const char *name) {
    while (table->name && strcmp(table->name, name) != 0)
        table++;
    return table->name ? table : NULL;
}

static void store(void *out, size_t offset, const void *value, size_t size) {
    memcpy((char *)out + offset, value, size);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------ */

static bool is_real(int kind) {
    return kind == SAP_KIND_FLOAT || kind == SAP_KIND_DOUBLE || kind == SAP_KIND_DOUBLE32;
}

static double read_real(sap_cursor *c, int kind) {
    return kind == SAP_KIND_DOUBLE ? sap_cursor_f64(c) : (double)sap_cursor_f32(c);
}

static int64_t read_integer(sap_cursor *c, int kind) {
    switch (kind) {
    case SAP_KIND_CHAR:
    case SAP_KIND_LEGACY_CHAR:
        return sap_cursor_i8(c);
    case SAP_KIND_UCHAR:
    case SAP_KIND_BOOL:
        return sap_cursor_u8(c);
    case SAP_KIND_SHORT:
        return sap_cursor_i16(c);
    case SAP_KIND_USHORT:
        return sap_cursor_u16(c);
    case SAP_KIND_INT:
    case SAP_KIND_COUNTER:
        return sap_cursor_i32(c);
    case SAP_KIND_UINT:
    case SAP_KIND_BITS:
        return sap_cursor_u32(c);
    case SAP_KIND_FLOAT16:
        sap_cursor_skip(c, 3);
        return 0;
    default:
        return sap_cursor_i64(c);
    }
}

/* A number, as an integer too: counts were doubles once. */
static int64_t read_number(sap_cursor *c, int kind, double *real) {
    if (is_real(kind)) {
        *real = read_real(c, kind);
        return *real > -9e18 && *real < 9e18 ? (int64_t)*real : 0;
    }
    int64_t value = read_integer(c, kind);
    *real = (double)value;
    return value;
}

/* `n` numbers one after another, kept when the member wants them. */
static void read_numbers(sap_stream *s, int kind, uint64_t n, const sap_member *m, void *out) {
    size_t size = sap_kind_size(kind);
    size_t count = sap_cursor_count(&s->c, n, size);
    if (!m || (m->kind != SAP_MEMBER_INTS && m->kind != SAP_MEMBER_REALS)) {
        sap_cursor_skip(&s->c, count * size);
        return;
    }
    union {
        int64_t *integers;
        double *reals;
    } values = {.integers = sap_arena_array(s->arena, count, sizeof(int64_t))};
    if (count && !values.integers) {
        sap_stream_fail(s, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        double real;
        int64_t integer = read_number(&s->c, kind, &real);
        if (m->kind == SAP_MEMBER_INTS)
            values.integers[i] = integer;
        else
            values.reals[i] = real;
    }
    int64_t stored = (int64_t)count;
    store(out, m->offset, &values, sizeof values);
    store(out, m->count_offset, &stored, sizeof stored);
}

/* A pointer to numbers with a counter: a flag, then the numbers. Flag 2 means 64-bit seeks in old branches. */
static void read_counted(sap_stream *s, int kind, int64_t n, const sap_member *m, void *out) {
    uint8_t flag = sap_cursor_u8(&s->c);
    if (flag)
        read_numbers(s, flag == 2 ? SAP_KIND_LONG64 : kind, n < 0 ? UINT64_MAX : (uint64_t)n, m, out);
}

/* The kind of the numbers in "TArrayD" and the like, -1 for other classes. */
static int array_kind(const char *type) {
    static const struct {
        const char *letter;
        int kind;
    } arrays[] = {{"C", SAP_KIND_CHAR},     {"S", SAP_KIND_SHORT}, {"I", SAP_KIND_INT},   {"L", SAP_KIND_LONG},
                  {"L64", SAP_KIND_LONG64}, {"F", SAP_KIND_FLOAT}, {"D", SAP_KIND_DOUBLE}};
    for (size_t i = 0; strncmp(type, "TArray", 6) == 0 && i < sizeof arrays / sizeof *arrays; i++)
        if (strcmp(type + 6, arrays[i].letter) == 0)
            return arrays[i].kind;
    return -1;
}

/* ---- Members ------------------------------------------------------------------------------------------------- */

/* An object inside another: wanted ones are read, the rest is passed over. */
static void read_inside(sap_stream *s, const sap_element *e, const sap_member *m, void *out) {
    const char *type = e->type_name;
    int array = array_kind(type);
    if (strcmp(type, "TString") == 0) {
        const char *text = sap_stream_text(s);
        if (m && m->kind == SAP_MEMBER_TEXT)
            store(out, m->offset, &text, sizeof text);
    } else if (strcmp(type, "TObjArray") == 0) {
        sap_objects list;
        sap_stream_objarray(s, s->part, &list);
        if (m && m->kind == SAP_MEMBER_LIST)
            store(out, m->offset, &list, sizeof list);
    } else if (array >= 0) {
        read_numbers(s, array, sap_cursor_u32(&s->c), m, out);
    } else if (m && m->kind == SAP_MEMBER_INSIDE) {
        (void)sap_members_read(s, type, m->inside, (char *)out + m->offset);
    } else {
        sap_frame frame = sap_frame_read(&s->c);
        if (m && m->kind == SAP_MEMBER_IO) {
            int64_t bits = sap_cursor_u8(&s->c);
            store(out, m->offset, &bits, sizeof bits);
        }
        if (frame.end == SIZE_MAX)
            sap_stream_fail(s, "member %s of type %s has no byte count", e->name, type);
        sap_frame_leave(&s->c, &frame);
    }
}

static bool read_base(sap_stream *s, const sap_element *e, const sap_member *table, void *out) {
    int array = array_kind(e->name);
    if (strcmp(e->name, "TObject") == 0) {
        (void)sap_stream_tobject(&s->c);
    } else if (strcmp(e->name, "TNamed") == 0) {
        const char *name, *title;
        sap_stream_named(s, &name, &title);
        const sap_member *m = find_member(table, "fName");
        if (m)
            store(out, m->offset, &name, sizeof name);
        m = find_member(table, "fTitle");
        if (m)
            store(out, m->offset, &title, sizeof title);
    } else if (array >= 0) {
        read_numbers(s, array, sap_cursor_u32(&s->c), find_member(table, "fArray"), out);
    } else {
        return sap_members_read(s, e->name, table, out);
    }
    return !s->c.failed;
}

static void read_pointer(sap_stream *s, const sap_member *m, void *out) {
    const char *class_name;
    void *object = sap_stream_object(s, m && m->reader ? m->reader : s->part, &class_name);
    if (m && m->kind == SAP_MEMBER_OBJECT && object && strncmp(class_name, m->class_name, strlen(m->class_name)) == 0)
        store(out, m->offset, &object, sizeof object);
}

/* numbers: values of the elements before this one, for counts. */
static void read_element(sap_stream *s, const sap_class *info, size_t index, int64_t *numbers, const sap_member *table,
                         void *out) {
    const sap_element *e = &info->elements[index];
    const sap_member *m = find_member(table, e->name);
    int kind = e->kind;
    if (sap_kind_size(kind) || kind == SAP_KIND_DOUBLE32 || kind == SAP_KIND_FLOAT16) {
        double real;
        int64_t value = read_number(&s->c, kind, &real);
        if (index < MOST_COUNTERS)
            numbers[index] = value;
        if (m && m->kind == SAP_MEMBER_INT)
            store(out, m->offset, &value, sizeof value);
        else if (m && m->kind == SAP_MEMBER_REAL)
            store(out, m->offset, &real, sizeof real);
    } else if (kind > SAP_KIND_OFFSET_P && kind < SAP_KIND_OBJECT && sap_kind_size(kind - SAP_KIND_OFFSET_P)) {
        int64_t n = -1;
        for (size_t i = 0; i < index && i < MOST_COUNTERS; i++)
            if (e->count_name && strcmp(info->elements[i].name, e->count_name) == 0)
                n = numbers[i];
        read_counted(s, kind - SAP_KIND_OFFSET_P, n, m, out);
    } else if (kind > SAP_KIND_OFFSET_L && kind < SAP_KIND_OFFSET_P && sap_kind_size(kind - SAP_KIND_OFFSET_L)) {
        sap_cursor_skip(&s->c, sap_kind_size(kind - SAP_KIND_OFFSET_L) * (size_t)(e->length > 0 ? e->length : 0));
    } else if (kind == SAP_KIND_OBJECT_POINTER || kind == SAP_KIND_ANY_POINTER) {
        read_pointer(s, m, out);
    } else if (kind == SAP_KIND_OBJECT || kind == SAP_KIND_ANY || kind == SAP_KIND_OBJECT_INLINE ||
               kind == SAP_KIND_ANY_INLINE || kind == SAP_KIND_TSTRING) {
        read_inside(s, e, m, out);
    } else {
        sap_stream_fail(s, "member %s::%s of kind %d", info->name, e->name, kind);
    }
}

/* ---- Objects ---------------------------------------------------------------------------------------------------- */

/* TLeaf, which some writers do not describe. */
static const sap_class leaf_class = {
    .name = "TLeaf",
    .version = 2,
    .elements = (sap_element[]){{.name = "TNamed", .kind = SAP_KIND_BASE},
                                {.name = "fLen", .kind = SAP_KIND_INT},
                                {.name = "fLenType", .kind = SAP_KIND_INT},
                                {.name = "fOffset", .kind = SAP_KIND_INT},
                                {.name = "fIsRange", .kind = SAP_KIND_BOOL},
                                {.name = "fIsUnsigned", .kind = SAP_KIND_BOOL},
                                {.name = "fLeafCount", .kind = SAP_KIND_OBJECT_POINTER}},
    .count = 7,
};

bool sap_members_read(sap_stream *s, const char *class_name, const sap_member *table, void *out) {
    sap_frame frame = sap_frame_read(&s->c);
    const sap_class *info = sap_class_find(s->file, class_name, frame.version, frame.checksum);
    if (!info && frame.checksum) { /* a class whose version is 0 has no checksum behind it */
        const sap_class *newest = sap_class_find(s->file, class_name, -1, 0);
        if (newest && newest->version == 0) {
            info = newest;
            sap_cursor_seek(&s->c, s->c.position - sizeof frame.checksum);
        }
    }
    if (!info && strcmp(class_name, "TLeaf") == 0 && frame.version == leaf_class.version)
        info = &leaf_class;
    if (++s->depth > DEEPEST)
        return sap_stream_fail(s, "classes nested deeper than %d", DEEPEST);
    if (!sap_stream_count(s))
        return false;
    if (!info) {
        /* some writers describe no leaves but TLeaf, or none of the drawing attributes */
        bool leaf = strncmp(class_name, "TLeaf", 5) == 0 && class_name[5];
        if (leaf)
            (void)sap_members_read(s, "TLeaf", table, out);
        if (frame.end == SIZE_MAX || (!leaf && strncmp(class_name, "TAtt", 4) != 0))
            return sap_stream_fail(s, "the file does not describe version %u of class %s", frame.version, class_name);
    } else {
        int64_t numbers[MOST_COUNTERS] = {0};
        for (size_t i = 0; i < info->count && !s->c.failed; i++) {
            if (info->elements[i].kind == SAP_KIND_BASE)
                (void)read_base(s, &info->elements[i], table, out);
            else
                read_element(s, info, i, numbers, table, out);
        }
    }
    s->depth--;
    sap_frame_leave(&s->c, &frame);
    return !s->c.failed;
}
