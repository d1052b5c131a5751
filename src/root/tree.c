/* TTree: its record, branches, leaves and baskets, read by the file's own streamer info.
 * docs/format/ttree.md. */
#include "root_internal.h"

#include <stddef.h>
#include <stdlib.h>

enum { DEEPEST = 64, LONGEST_PATH = 4096 };

/* ---- Members --------------------------------------------------------------------------------------------------- */

static bool read_friend_list(sap_stream *s, const char *class_name, void **object);

static const sap_member tree_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, sap_branch_node, name),
    SAP_MEMBER("fEntries", SAP_MEMBER_INT, sap_branch_node, entries),
    SAP_MEMBER("fBranches", SAP_MEMBER_LIST, sap_branch_node, branches),
    SAP_MEMBER("fFriends", SAP_MEMBER_OBJECT, sap_branch_node, friends, .class_name = "TList",
               .reader = read_friend_list),
    {0},
};

/* TFriendElement */
typedef struct friend_element {
    const char *alias, *file, *tree;
} friend_element;

static const sap_member friend_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, friend_element, alias),
    SAP_MEMBER("fTitle", SAP_MEMBER_TEXT, friend_element, file),
    SAP_MEMBER("fTreeName", SAP_MEMBER_TEXT, friend_element, tree),
    {0},
};

static const sap_member branch_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, sap_branch_node, name),
    SAP_MEMBER("fTitle", SAP_MEMBER_TEXT, sap_branch_node, title),
    SAP_MEMBER("fWriteBasket", SAP_MEMBER_INT, sap_branch_node, write_basket),
    SAP_MEMBER("fIOFeatures", SAP_MEMBER_IO, sap_branch_node, io_bits),
    SAP_MEMBER("fEntries", SAP_MEMBER_INT, sap_branch_node, entries),
    SAP_MEMBER("fTotBytes", SAP_MEMBER_INT, sap_branch_node, total_bytes),
    SAP_MEMBER("fZipBytes", SAP_MEMBER_INT, sap_branch_node, zip_bytes),
    SAP_MEMBER("fBranches", SAP_MEMBER_LIST, sap_branch_node, branches),
    SAP_MEMBER("fLeaves", SAP_MEMBER_LIST, sap_branch_node, leaves),
    SAP_MEMBER("fBaskets", SAP_MEMBER_LIST, sap_branch_node, embedded),
    SAP_MEMBERS("fBasketBytes", SAP_MEMBER_INTS, sap_branch_node, basket_bytes, basket_bytes_count),
    SAP_MEMBERS("fBasketEntry", SAP_MEMBER_INTS, sap_branch_node, basket_entry, basket_entry_count),
    SAP_MEMBERS("fBasketSeek", SAP_MEMBER_INTS, sap_branch_node, basket_seek, basket_seek_count),
    SAP_MEMBER("fFileName", SAP_MEMBER_TEXT, sap_branch_node, file_name),
    SAP_MEMBER("fClassName", SAP_MEMBER_TEXT, sap_branch_node, object_class),
    SAP_MEMBER("fParentName", SAP_MEMBER_TEXT, sap_branch_node, parent_class),
    SAP_MEMBER("fCheckSum", SAP_MEMBER_INT, sap_branch_node, checksum),
    SAP_MEMBER("fClassVersion", SAP_MEMBER_INT, sap_branch_node, class_version),
    SAP_MEMBER("fID", SAP_MEMBER_INT, sap_branch_node, id),
    SAP_MEMBER("fType", SAP_MEMBER_INT, sap_branch_node, type),
    SAP_MEMBER("fBranchCount", SAP_MEMBER_OBJECT, sap_branch_node, count_branch, .class_name = "TBranch"),
    {0},
};

static const sap_member leaf_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, sap_leaf, name),
    SAP_MEMBER("fTitle", SAP_MEMBER_TEXT, sap_leaf, title),
    SAP_MEMBER("fLen", SAP_MEMBER_INT, sap_leaf, length),
    SAP_MEMBER("fLenType", SAP_MEMBER_INT, sap_leaf, bytes),
    SAP_MEMBER("fIsUnsigned", SAP_MEMBER_INT, sap_leaf, is_unsigned),
    SAP_MEMBER("fLeafCount", SAP_MEMBER_OBJECT, sap_leaf, counter, .class_name = "TLeaf"),
    SAP_MEMBER("fType", SAP_MEMBER_INT, sap_leaf, kind),
    {0},
};

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
        return sap_members_read(s, class_name, leaf_members, leaf);
    }
    if (strncmp(class_name, "TBranch", 7) == 0) {
        sap_branch_node *branch = sap_arena_alloc(s->arena, sizeof *branch);
        if (!branch)
            return sap_stream_fail(s, "out of memory");
        branch->class_name = class_name;
        branch->id = -1;
        *object = branch;
        return sap_members_read(s, class_name, branch_members, branch);
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

static bool read_friend(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "TFriendElement") != 0 || !sap_class_find(s->file, class_name, -1, 0))
        return false;
    friend_element *element = sap_arena_alloc(s->arena, sizeof *element);
    if (!element)
        return sap_stream_fail(s, "out of memory");
    *object = element;
    return sap_members_read(s, class_name, friend_members, element);
}

static bool read_friend_list(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "TList") != 0)
        return false;
    sap_objects *list = sap_arena_alloc(s->arena, sizeof *list);
    if (!list)
        return sap_stream_fail(s, "out of memory");
    sap_stream_list(s, read_friend, list);
    *object = list;
    return true;
}

static sap_status note_friends(sap_tree *tree, const sap_objects *list, sap_error *err) {
    for (size_t i = 0; list && i < list->count; i++) {
        const friend_element *e = list->items[i].object;
        if (!e || strcmp(list->items[i].class_name, "TFriendElement") != 0)
            continue;
        const char *path = e->tree && e->tree[0] ? e->tree : e->alias;
        SAP_TRY(sap_friends_note(tree, e->alias ? e->alias : "", e->file && e->file[0] ? e->file : NULL,
                                 path ? path : "", err));
    }
    return SAP_OK;
}

/* ---- From parts to a tree -------------------------------------------------------------------------------------- */

/* What a branch says of its size serves to choose batches: it is believed as far as its baskets can bear it out. */
static void limit_bytes(const sap_tree *tree, sap_branch_node *b) {
    enum { MOST_LIKELY = 1040 }; /* of deflate */
    uint64_t stored = 0, most = tree->file->size;
    for (size_t i = 0; i < b->basket_count && stored < most; i++)
        stored += b->baskets[i].embedded ? b->baskets[i].embedded->data_bytes : b->baskets[i].bytes;
    most = (stored < most ? stored : most) * MOST_LIKELY;
    if (b->total_bytes < 0 || b->public.bytes > most)
        b->public.bytes = most;
    if (b->zip_bytes < 0 || b->public.stored_bytes > tree->file->size)
        b->public.stored_bytes = stored;
}

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
            if (b->basket_bytes[i] > UINT32_MAX)
                return sap_error_set(err, SAP_EFORMAT, "%s: branch %s: basket %zu of %lld bytes", tree->where, b->name,
                                     i, (long long)b->basket_bytes[i]);
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
    limit_bytes(tree, b);
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
                    .part = read_part,
                    .where = tree->where};
    sap_branch_node top = {0};
    (void)sap_members_read(&s, key->class_name, tree_members, &top);
    sap_status status = sap_stream_check(&s, "tree", err);
    sap_stream_release(&s);
    SAP_TRY(status);
    if (top.entries < 0)
        return sap_error_set(err, SAP_EFORMAT, "%s: the tree has %lld entries", tree->where, (long long)top.entries);
    tree->entries = top.entries;
    SAP_TRY(note_friends(tree, top.friends, err));
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
    if (sap_source_read(tree->file->source, &range, 1, NULL, NULL) != SAP_OK ||
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
