/* TTree: its record, branches, leaves and baskets, read by the file's own streamer info.
 * docs/format/ttree.md. */
#include "root_internal.h"

#include <stddef.h>
#include <stdlib.h>

enum { DEEPEST = 64, LONGEST_PATH = 4096 };

/* ---- Members by name -------------------------------------------------------------------------------------- */

typedef enum member_kind { MEMBER_INT, MEMBER_INTS, MEMBER_TEXT, MEMBER_LIST, MEMBER_OBJECT, MEMBER_IO } member_kind;

/* A member that is wanted, and where it goes: int64_t; int64_t * with their count at `count_offset`; const char *; sap_objects;
 * void *. */
typedef struct member {
    const char *name;
    member_kind kind;
    size_t offset, count_offset;
} member;

static const member tree_members[] = {
    {"fName", MEMBER_TEXT, offsetof(sap_branch_node, name), 0},
    {"fEntries", MEMBER_INT, offsetof(sap_branch_node, entries), 0},
    {"fBranches", MEMBER_LIST, offsetof(sap_branch_node, branches), 0},
    {0},
};

static const member branch_members[] = {
    {"fName", MEMBER_TEXT, offsetof(sap_branch_node, name), 0},
    {"fTitle", MEMBER_TEXT, offsetof(sap_branch_node, title), 0},
    {"fWriteBasket", MEMBER_INT, offsetof(sap_branch_node, write_basket), 0},
    {"fIOFeatures", MEMBER_IO, offsetof(sap_branch_node, io_bits), 0},
    {"fEntries", MEMBER_INT, offsetof(sap_branch_node, entries), 0},
    {"fTotBytes", MEMBER_INT, offsetof(sap_branch_node, total_bytes), 0},
    {"fZipBytes", MEMBER_INT, offsetof(sap_branch_node, zip_bytes), 0},
    {"fBranches", MEMBER_LIST, offsetof(sap_branch_node, branches), 0},
    {"fLeaves", MEMBER_LIST, offsetof(sap_branch_node, leaves), 0},
    {"fBaskets", MEMBER_LIST, offsetof(sap_branch_node, embedded), 0},
    {"fBasketBytes", MEMBER_INTS, offsetof(sap_branch_node, basket_bytes),
     offsetof(sap_branch_node, basket_bytes_count)},
    {"fBasketEntry", MEMBER_INTS, offsetof(sap_branch_node, basket_entry),
     offsetof(sap_branch_node, basket_entry_count)},
    {"fBasketSeek", MEMBER_INTS, offsetof(sap_branch_node, basket_seek), offsetof(sap_branch_node, basket_seek_count)},
    {"fFileName", MEMBER_TEXT, offsetof(sap_branch_node, file_name), 0},
    {"fClassName", MEMBER_TEXT, offsetof(sap_branch_node, object_class), 0},
    {"fParentName", MEMBER_TEXT, offsetof(sap_branch_node, parent_class), 0},
    {"fCheckSum", MEMBER_INT, offsetof(sap_branch_node, checksum), 0},
    {"fClassVersion", MEMBER_INT, offsetof(sap_branch_node, class_version), 0},
    {"fID", MEMBER_INT, offsetof(sap_branch_node, id), 0},
    {"fType", MEMBER_INT, offsetof(sap_branch_node, type), 0},
    {"fBranchCount", MEMBER_OBJECT, offsetof(sap_branch_node, count_branch), 0},
    {0},
};

static const member leaf_members[] = {
    {"fName", MEMBER_TEXT, offsetof(sap_leaf, name), 0},
    {"fTitle", MEMBER_TEXT, offsetof(sap_leaf, title), 0},
    {"fLen", MEMBER_INT, offsetof(sap_leaf, length), 0},
    {"fLenType", MEMBER_INT, offsetof(sap_leaf, bytes), 0},
    {"fIsUnsigned", MEMBER_INT, offsetof(sap_leaf, is_unsigned), 0},
    {"fLeafCount", MEMBER_OBJECT, offsetof(sap_leaf, counter), 0},
    {"fType", MEMBER_INT, offsetof(sap_leaf, kind), 0},
    {0},
};

static const member *find_member(const member *table, const char *name) {
    while (table->name && strcmp(table->name, name) != 0)
        table++;
    return table->name ? table : NULL;
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
    case SAP_KIND_LONG:
    case SAP_KIND_ULONG:
    case SAP_KIND_LONG64:
    case SAP_KIND_ULONG64:
        return sap_cursor_i64(c);
    case SAP_KIND_FLOAT16:
        sap_cursor_skip(c, 3);
        return 0;
    default: {
        double value =
            kind == SAP_KIND_FLOAT || kind == SAP_KIND_DOUBLE32 ? (double)sap_cursor_f32(c) : sap_cursor_f64(c);
        return value > -9e18 && value < 9e18 ? (int64_t)value : 0; /* counts were doubles once */
    }
    }
}

static bool read_part(sap_stream *s, const char *class_name, void **object);
static bool read_members(sap_stream *s, const char *class_name, const member *table, void *out);

/* A pointer to numbers with a counter: a flag, then the numbers. Flag 2 means 64-bit seeks in old branches. */
static void read_integers(sap_stream *s, int kind, int64_t n, const member *m, void *out) {
    uint8_t flag = sap_cursor_u8(&s->c);
    if (flag == 0)
        return;
    if (flag == 2)
        kind = SAP_KIND_LONG64;
    size_t size = sap_kind_size(kind);
    size_t count = sap_cursor_count(&s->c, n < 0 ? UINT64_MAX : (uint64_t)n, size);
    if (!m || m->kind != MEMBER_INTS) {
        sap_cursor_skip(&s->c, count * size);
        return;
    }
    int64_t *values = sap_arena_array(s->arena, count, sizeof *values);
    if (count && !values) {
        sap_stream_fail(s, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++)
        values[i] = read_integer(&s->c, kind);
    memcpy((char *)out + m->offset, &values, sizeof values);
    int64_t stored = (int64_t)count;
    memcpy((char *)out + m->count_offset, &stored, sizeof stored);
}

/* An object inside another: wanted lists and texts are read, the rest is passed over. */
static void read_inside(sap_stream *s, const sap_element *e, const member *m, void *out) {
    const char *type = e->type_name;
    if (strcmp(type, "TString") == 0) {
        const char *text = sap_stream_text(s);
        if (m && m->kind == MEMBER_TEXT)
            memcpy((char *)out + m->offset, &text, sizeof text);
    } else if (strcmp(type, "TObjArray") == 0) {
        sap_objects list;
        sap_stream_objarray(s, read_part, &list);
        if (m && m->kind == MEMBER_LIST)
            memcpy((char *)out + m->offset, &list, sizeof list);
    } else if (strncmp(type, "TArray", 6) == 0 && type[6] && !type[7]) {
        static const char kinds[] = "CSILFD";
        static const uint8_t sizes[] = {1, 2, 4, 8, 4, 8};
        const char *at = strchr(kinds, type[6]);
        size_t size = at ? sizes[at - kinds] : 1;
        sap_cursor_skip(&s->c, sap_cursor_count(&s->c, sap_cursor_u32(&s->c), size) * size);
    } else {
        sap_frame frame = sap_frame_read(&s->c);
        if (m && m->kind == MEMBER_IO) {
            int64_t bits = sap_cursor_u8(&s->c);
            memcpy((char *)out + m->offset, &bits, sizeof bits);
        }
        if (frame.end == SIZE_MAX)
            sap_stream_fail(s, "member %s of type %s has no byte count", e->name, type);
        sap_frame_leave(&s->c, &frame);
    }
}

static bool read_base(sap_stream *s, const sap_element *e, const member *table, void *out) {
    if (strcmp(e->name, "TObject") == 0) {
        sap_stream_tobject(&s->c);
    } else if (strcmp(e->name, "TNamed") == 0) {
        const char *name, *title;
        sap_stream_named(s, &name, &title);
        const member *m = find_member(table, "fName");
        if (m)
            memcpy((char *)out + m->offset, &name, sizeof name);
        m = find_member(table, "fTitle");
        if (m)
            memcpy((char *)out + m->offset, &title, sizeof title);
    } else {
        return read_members(s, e->name, table, out);
    }
    return !s->c.failed;
}

static void read_element_value(sap_stream *s, const sap_class *info, size_t index, int64_t *numbers,
                               const member *table, void *out) {
    const sap_element *e = &info->elements[index];
    const member *m = find_member(table, e->name);
    int kind = e->kind;
    if (sap_kind_size(kind) || kind == SAP_KIND_DOUBLE32 || kind == SAP_KIND_FLOAT16) {
        int64_t value = read_integer(&s->c, kind);
        if (index < 64)
            numbers[index] = value;
        if (m && m->kind == MEMBER_INT)
            memcpy((char *)out + m->offset, &value, sizeof value);
    } else if (kind > SAP_KIND_OFFSET_P && kind < SAP_KIND_OBJECT && sap_kind_size(kind - SAP_KIND_OFFSET_P)) {
        int64_t n = -1;
        for (size_t i = 0; i < index && i < 64; i++)
            if (e->count_name && strcmp(info->elements[i].name, e->count_name) == 0)
                n = numbers[i];
        read_integers(s, kind - SAP_KIND_OFFSET_P, n, m, out);
    } else if (kind > SAP_KIND_OFFSET_L && kind < SAP_KIND_OFFSET_P && sap_kind_size(kind - SAP_KIND_OFFSET_L)) {
        sap_cursor_skip(&s->c, sap_kind_size(kind - SAP_KIND_OFFSET_L) * (size_t)(e->length > 0 ? e->length : 0));
    } else if (kind == SAP_KIND_OBJECT_POINTER || kind == SAP_KIND_ANY_POINTER) {
        const char *class_name;
        void *object = sap_stream_object(s, read_part, &class_name);
        /* a leaf counts for a leaf, a branch for a branch */
        const char *wanted = table == leaf_members ? "TLeaf" : "TBranch";
        if (m && m->kind == MEMBER_OBJECT && object && strncmp(class_name, wanted, strlen(wanted)) == 0)
            memcpy((char *)out + m->offset, &object, sizeof object);
    } else if (kind == SAP_KIND_OBJECT || kind == SAP_KIND_ANY || kind == SAP_KIND_OBJECT_INLINE ||
               kind == SAP_KIND_ANY_INLINE || kind == SAP_KIND_TSTRING) {
        read_inside(s, e, m, out);
    } else {
        sap_stream_fail(s, "member %s::%s of kind %d", info->name, e->name, kind);
    }
}

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

/* Reads an object by its streamer info, down its base classes, and keeps what `table` wants. */
static bool read_members(sap_stream *s, const char *class_name, const member *table, void *out) {
    sap_frame frame = sap_frame_read(&s->c);
    const sap_class *info = sap_class_find(s->file, class_name, frame.version, frame.checksum);
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
            (void)read_members(s, "TLeaf", table, out);
        if (frame.end == SIZE_MAX || (!leaf && strncmp(class_name, "TAtt", 4) != 0))
            return sap_stream_fail(s, "the file does not describe version %u of class %s", frame.version, class_name);
    } else {
        int64_t numbers[64] = {0};
        for (size_t i = 0; i < info->count && !s->c.failed; i++) {
            if (info->elements[i].kind == SAP_KIND_BASE)
                (void)read_base(s, &info->elements[i], table, out);
            else
                read_element_value(s, info, i, numbers, table, out);
        }
    }
    s->depth--;
    sap_frame_leave(&s->c, &frame);
    return !s->c.failed;
}

/* ---- Baskets inside the tree's record ------------------------------------------------------------------------ */

/* § Embedded baskets: the header of a basket, its offsets, then fLast bytes of which the first fKeylen are reserved. */
static bool read_embedded(sap_stream *s, sap_embedded *out) {
    sap_record key;
    sap_record_parse(&s->c, NULL, &key);
    uint16_t version = sap_cursor_u16(&s->c);
    sap_cursor_skip(&s->c, 4);
    int32_t entry_bytes = sap_cursor_i32(&s->c);
    if (entry_bytes < 0)
        sap_cursor_skip(&s->c, 1);
    int32_t entries = sap_cursor_i32(&s->c), last = sap_cursor_i32(&s->c);
    uint8_t flag = sap_cursor_u8(&s->c);
    out->generated = flag >= 80;
    if (out->generated)
        flag = (uint8_t)(flag - 80);
    if (entries < 0 || last < 0)
        return sap_stream_fail(s, "a basket of %d entries and %d bytes", entries, last);
    if (!out->generated && flag && flag % 10 != 2 && entries > 0) {
        size_t n = sap_cursor_count(&s->c, sap_cursor_u32(&s->c), 4);
        out->offsets = sap_cursor_take(&s->c, n * 4);
        if (n < (size_t)entries)
            return sap_stream_fail(s, "a basket of %d entries has %zu offsets", entries, n);
        if (flag > 40) {
            n = sap_cursor_count(&s->c, sap_cursor_u32(&s->c), 4);
            sap_cursor_skip(&s->c, n * 4);
        }
    }
    out->entries = entries;
    out->header_bytes = key.header_bytes;
    if (flag == 1 || flag > 10) {
        size_t bytes = version > 1 ? (size_t)last : sap_cursor_u32(&s->c);
        const uint8_t *data = sap_cursor_take(&s->c, bytes);
        if (data && bytes < key.header_bytes)
            return sap_stream_fail(s, "a basket of %zu bytes with a header of %u", bytes, key.header_bytes);
        out->data = data ? data + key.header_bytes : NULL;
        out->data_bytes = data ? (uint32_t)(bytes - key.header_bytes) : 0;
    }
    return !s->c.failed;
}

/* The objects that a tree is made of. */
static bool read_part(sap_stream *s, const char *class_name, void **object) {
    if (strncmp(class_name, "TLeaf", 5) == 0) {
        sap_leaf *leaf = sap_arena_alloc(s->arena, sizeof *leaf);
        if (!leaf)
            return sap_stream_fail(s, "out of memory");
        leaf->class_name = class_name;
        leaf->kind = -1;
        *object = leaf;
        return read_members(s, class_name, leaf_members, leaf);
    }
    if (strncmp(class_name, "TBranch", 7) == 0) {
        sap_branch_node *branch = sap_arena_alloc(s->arena, sizeof *branch);
        if (!branch)
            return sap_stream_fail(s, "out of memory");
        branch->class_name = class_name;
        branch->id = -1;
        *object = branch;
        return read_members(s, class_name, branch_members, branch);
    }
    if (strcmp(class_name, "TBasket") == 0) {
        sap_embedded *basket = sap_arena_alloc(s->arena, sizeof *basket);
        if (!basket)
            return sap_stream_fail(s, "out of memory");
        *object = basket;
        return read_embedded(s, basket);
    }
    return false;
}

/* ---- From parts to a tree -------------------------------------------------------------------------------------- */

static sap_status list_baskets(sap_tree *tree, sap_branch_node *b, sap_error *err) {
    size_t n = b->write_basket >= 0 ? (size_t)b->write_basket + 1 : 0;
    if (n > (size_t)b->basket_seek_count && n > b->embedded.count)
        n = (size_t)b->basket_seek_count > b->embedded.count ? (size_t)b->basket_seek_count : b->embedded.count;
    b->baskets = n ? sap_arena_array(&tree->arena, n, sizeof *b->baskets) : NULL;
    if (n && !b->baskets)
        return sap_error_memory(err, tree->where);
    for (size_t i = 0; i < n; i++) {
        sap_basket basket = {0};
        if (i < (size_t)b->basket_seek_count && b->basket_seek[i] > 0 && i < (size_t)b->basket_bytes_count &&
            b->basket_bytes[i] > 0) {
            basket.offset = (uint64_t)b->basket_seek[i];
            basket.bytes = (uint32_t)b->basket_bytes[i];
        } else if (i < b->embedded.count && b->embedded.items[i].object &&
                   strcmp(b->embedded.items[i].class_name, "TBasket") == 0) {
            basket.embedded = b->embedded.items[i].object;
            if (!basket.embedded->data || basket.embedded->entries == 0)
                continue;
        } else {
            continue;
        }
        basket.first_entry = i < (size_t)b->basket_entry_count ? b->basket_entry[i] : 0;
        int64_t before = b->basket_count ? b->baskets[b->basket_count - 1].first_entry : 0;
        if (basket.first_entry < before)
            return sap_error_set(err, SAP_EFORMAT,
                                 "%s: branch %s: basket %zu begins with entry %lld, the one before with %lld",
                                 tree->where, b->name, i, (long long)basket.first_entry, (long long)before);
        b->baskets[b->basket_count++] = basket;
    }
    b->public.baskets = (int64_t)b->basket_count;
    return SAP_OK;
}

static sap_status add_branches(sap_tree *tree, sap_branch_node *parent, const sap_objects *list, int depth,
                               sap_error *err) {
    if (depth > DEEPEST)
        return sap_error_set(err, SAP_EFORMAT, "%s: branches nested deeper than %d", tree->where, DEEPEST);
    if (parent && list->count > 0 && strlen(parent->public.path) > LONGEST_PATH) /* it stands before each name inside */
        return sap_error_set(err, SAP_EFORMAT, "%s: the path of branch %.100s has %zu bytes", tree->where, parent->name,
                             strlen(parent->public.path));
    for (size_t i = 0; i < list->count; i++) {
        sap_branch_node *b = list->items[i].object;
        if (!b || strncmp(list->items[i].class_name, "TBranch", 7) != 0)
            continue;
        if (b->public.path)
            return sap_error_set(err, SAP_EFORMAT, "%s: branch %s stands twice in the tree", tree->where, b->name);
        b->parent = parent;
        if (!b->name)
            b->name = "";
        b->public.path = parent ? sap_arena_format(&tree->arena, "%s/%s", parent->public.path, b->name) : b->name;
        if (!b->public.path ||
            !sap_grow((void **)&tree->branches, &tree->branch_capacity, tree->branch_count, sizeof(sap_branch *)))
            return sap_error_memory(err, tree->where);
        b->public.depth = depth;
        b->public.name = b->name;
        b->public.stored_bytes = (uint64_t)b->zip_bytes;
        b->public.bytes = (uint64_t)b->total_bytes;
        tree->branches[tree->branch_count++] = &b->public;
        for (size_t j = 0; j < b->leaves.count; j++) {
            sap_leaf *leaf = b->leaves.items[j].object;
            if (leaf && strncmp(b->leaves.items[j].class_name, "TLeaf", 5) == 0)
                leaf->branch = b;
        }
        SAP_TRY(list_baskets(tree, b, err));
        SAP_TRY(add_branches(tree, b, &b->branches, depth + 1, err));
    }
    return SAP_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------ */

static sap_status read_tree(sap_ttree *ttree, const sap_key *key, sap_error *err) {
    sap_tree *tree = &ttree->tree;
    sap_record record;
    SAP_TRY(sap_record_load(tree->file, key->offset, key->stored_bytes, tree->where, &record, &ttree->record, err));
    sap_stream s = {.c = sap_cursor_init(ttree->record, record.object_bytes, 0),
                    .file = tree->file,
                    .arena = &tree->arena,
                    .origin = record.header_bytes,
                    .where = tree->where};
    sap_branch_node top = {0};
    (void)read_members(&s, key->class_name, tree_members, &top);
    sap_status status = sap_stream_check(&s, "tree", err);
    sap_stream_release(&s);
    SAP_TRY(status);
    if (top.entries < 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: the tree has %lld entries", tree->where, (long long)top.entries);
    tree->entries = top.entries;
    SAP_TRY(add_branches(tree, NULL, &top.branches, 0, err));
    return sap_tree_name_branches(tree, err);
}

sap_status sap_ttree_open(sap_file *file, const sap_key *key, sap_tree **out, sap_error *err) {
    sap_ttree *ttree = calloc(1, sizeof *ttree);
    if (!ttree)
        return sap_error_memory(err, file->name);
    sap_status status = sap_tree_init(&ttree->tree, &sap_ttree_kind, file, key->path, err);
    if (status == SAP_OK)
        status = read_tree(ttree, key, err);
    if (status != SAP_OK) {
        sap_tree_close(&ttree->tree);
        return status;
    }
    *out = &ttree->tree;
    return SAP_OK;
}

static void close_ttree(sap_tree *tree) {
    free(((sap_ttree *)tree)->record);
}

static sap_status compile_branch(sap_tree *tree, size_t index, sap_error *err) {
    return sap_branch_compile(tree, sap_branch_inside(tree->branches[index]), err);
}

/* The codec of the first basket is in its first block. */
static const char *first_codec(sap_tree *tree, size_t index) {
    const sap_branch_node *b = sap_branch_inside(tree->branches[index]);
    if (b->basket_count == 0)
        return NULL;
    if (b->baskets[0].embedded)
        return "none";
    uint8_t bytes[SAP_BASKET_HEADER_MOST];
    size_t length = b->baskets[0].bytes < sizeof bytes ? b->baskets[0].bytes : sizeof bytes;
    sap_range range = {b->baskets[0].offset, length, bytes};
    sap_basket_header header;
    if (sap_source_read(tree->file->source, &range, 1, NULL) != SAP_OK ||
        sap_basket_parse(bytes, length, &b->baskets[0], tree->where, &header, NULL) != SAP_OK)
        return "unknown";
    if (header.object_bytes <= header.stored_bytes - header.header_bytes)
        return "none";
    return header.header_bytes < length ? sap_codec_name(bytes + header.header_bytes, length - header.header_bytes)
                                        : "unknown";
}

static int64_t own_entries(const sap_branch *branch) {
    return sap_branch_inside(branch)->entries;
}

/* Clusters are not recorded as such: one begins where baskets of all branches do. */
static void find_clusters(sap_tree *tree) {
    const sap_branch_node *fewest = NULL;
    for (size_t i = 0; i < tree->branch_count; i++) {
        const sap_branch_node *b = sap_branch_inside(tree->branches[i]);
        if (b->basket_count > 0 && (!fewest || b->basket_count < fewest->basket_count))
            fewest = b;
    }
    tree->clusters = calloc((fewest ? fewest->basket_count : 0) + 1, sizeof *tree->clusters);
    for (size_t k = 0; tree->clusters && fewest && k < fewest->basket_count; k++) {
        int64_t entry = fewest->baskets[k].first_entry;
        bool all = tree->cluster_count == 0 || entry > tree->clusters[tree->cluster_count - 1];
        for (size_t i = 0; i < tree->branch_count && all; i++) {
            const sap_branch_node *b = sap_branch_inside(tree->branches[i]);
            size_t at = sap_basket_of(b, entry);
            all = b->basket_count == 0 || b->baskets[at].first_entry == entry;
        }
        if (all)
            tree->clusters[tree->cluster_count++] = entry;
    }
}

const sap_tree_kind sap_ttree_kind = {
    .close = close_ttree,
    .compile = compile_branch,
    .clusters = find_clusters,
    .codec = first_codec,
    .entries = own_entries,
    .scan_open = sap_ttree_scan_open,
    .scan_close = sap_ttree_scan_close,
    .scan_boundary = sap_ttree_scan_boundary,
    .scan_prefetch = sap_ttree_scan_prefetch,
    .scan_read = sap_ttree_scan_read,
};
