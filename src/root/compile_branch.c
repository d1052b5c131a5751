/* From a branch to the read program of its column. docs/format/ttree.md, § Branches. */
#include "root_internal.h"

#include <ctype.h>
#include <stdlib.h>

enum { CLONES_MASTER = 3, STL_MASTER = 4, CLONES_MEMBER = 31, STL_MEMBER = 41 };
enum { FRAME_BYTES = 6, COUNT_BYTES = 4 };

/* ---- Leaves of plain branches -------------------------------------------------------------------------------- */

/* Dimensions in a leaf's title, "x[n][3]": only those that are numbers. */
static int title_dims(const char *title, int32_t *dims, int capacity) {
    int count = 0;
    for (const char *p = title ? strchr(title, '[') : NULL; p && count < capacity; p = strchr(p + 1, '[')) {
        size_t digits = strspn(p + 1, "0123456789");
        if (digits > 0 && digits < 9 && p[1 + digits] == ']')
            dims[count++] = atoi(p + 1);
    }
    return count;
}

static int leaf_kind(const sap_leaf *leaf) {
    static const struct {
        const char *name;
        int kind, kind_unsigned;
    } kinds[] = {{"TLeafO", SAP_KIND_BOOL, SAP_KIND_BOOL},         {"TLeafB", SAP_KIND_CHAR, SAP_KIND_UCHAR},
                 {"TLeafS", SAP_KIND_SHORT, SAP_KIND_USHORT},      {"TLeafI", SAP_KIND_INT, SAP_KIND_UINT},
                 {"TLeafL", SAP_KIND_LONG64, SAP_KIND_ULONG64},    {"TLeafG", SAP_KIND_LONG64, SAP_KIND_ULONG64},
                 {"TLeafF", SAP_KIND_FLOAT, SAP_KIND_FLOAT},       {"TLeafD", SAP_KIND_DOUBLE, SAP_KIND_DOUBLE},
                 {"TLeafF16", SAP_KIND_FLOAT16, SAP_KIND_FLOAT16}, {"TLeafD32", SAP_KIND_DOUBLE32, SAP_KIND_DOUBLE32}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(leaf->class_name, kinds[i].name) == 0)
            return leaf->is_unsigned ? kinds[i].kind_unsigned : kinds[i].kind;
    return -1;
}

static const char *kind_name(int kind) {
    static const char *const names[] = {
        [SAP_KIND_CHAR] = "Char_t",     [SAP_KIND_SHORT] = "Short_t",       [SAP_KIND_INT] = "Int_t",
        [SAP_KIND_LONG] = "Long_t",     [SAP_KIND_FLOAT] = "Float_t",       [SAP_KIND_COUNTER] = "Int_t",
        [SAP_KIND_DOUBLE] = "Double_t", [SAP_KIND_DOUBLE32] = "Double32_t", [SAP_KIND_UCHAR] = "UChar_t",
        [SAP_KIND_USHORT] = "UShort_t", [SAP_KIND_UINT] = "UInt_t",         [SAP_KIND_ULONG] = "ULong_t",
        [SAP_KIND_BITS] = "UInt_t",     [SAP_KIND_LONG64] = "Long64_t",     [SAP_KIND_ULONG64] = "ULong64_t",
        [SAP_KIND_BOOL] = "Bool_t",     [SAP_KIND_FLOAT16] = "Float16_t",   [SAP_KIND_LEGACY_CHAR] = "Char_t"};
    return kind >= 0 && (size_t)kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "?";
}

/* A leaf as a step: a number with its fixed dimensions, or a string. */
static bool compile_leaf(sap_compiler *k, const sap_leaf *leaf, sap_step_node *out) {
    *out = (sap_step_node){.slot = k->slots++, .count = 1, .name = leaf->name ? leaf->name : ""};
    if (strcmp(leaf->class_name, "TLeafC") == 0) {
        out->op = SAP_OP_STRING;
        return true;
    }
    int kind = leaf_kind(leaf);
    if (kind < 0)
        return sap_compile_fail(k, "a leaf of class %s", leaf->class_name);
    out->op = SAP_OP_NUMBER;
    if (!sap_compile_number(k, kind, leaf->title, &out->number))
        return false;
    int32_t dims[5];
    int count = title_dims(leaf->title, dims, 5);
    if (leaf->length > 1 || count > 0)
        return sap_compile_dims(k, leaf->length, dims, count, out);
    return true;
}

static bool wrap_list(sap_compiler *k, sap_op op, const sap_step_node *item, sap_step_node *out) {
    *out = (sap_step_node){.op = op, .slot = k->slots++, .count = 1, .name = item->name, .child_count = 1};
    out->children = sap_arena_alloc(k->arena, sizeof *out->children);
    if (!out->children)
        return sap_compile_memory(k);
    out->children[0] = *item;
    return true;
}

static uint32_t stored_bytes(const sap_step_node *step) {
    return (uint32_t)step->count * step->number.stored;
}

/* A leaf of several that is counted by one before it. */
static bool compile_counted_leaf(sap_compiler *k, const sap_leaf *leaf, const sap_step_node *const *before, int count,
                                 sap_step_node *out) {
    sap_step_node item;
    if (!compile_leaf(k, leaf, &item) || !wrap_list(k, SAP_OP_COUNTED, &item, out))
        return false;
    out->unflagged = true;
    return sap_compile_counter(k, before, count, leaf->counter->name ? leaf->counter->name : "", out);
}

static bool compile_leaves(sap_compiler *k, const sap_branch_node *b, sap_program *p) {
    size_t n = b->leaves.count;
    bool fixed = true;
    uint64_t item = 0;
    p->root = (sap_step_node){.op = SAP_OP_RECORD, .slot = k->slots++, .count = 1};
    const sap_step_node **before = sap_arena_array(k->arena, n, sizeof *before);
    if (!before || !sap_step_children(k, &p->root, (int)n))
        return sap_compile_memory(k);
    for (size_t i = 0; i < n; i++) {
        const sap_leaf *leaf = b->leaves.items[i].object;
        sap_step_node *step = &p->root.children[i];
        if (!leaf || strncmp(b->leaves.items[i].class_name, "TLeaf", 5) != 0)
            return sap_compile_fail(k, "a leaf that is not there");
        if (leaf->counter && leaf->counter->branch != b)
            return sap_compile_fail(k, "several leaves of which %s is counted by another branch", leaf->name);
        if (!(leaf->counter ? compile_counted_leaf(k, leaf, before, (int)i, step) : compile_leaf(k, leaf, step)))
            return false;
        before[i] = step;
        fixed = fixed && step->op == SAP_OP_NUMBER;
        item += step->op == SAP_OP_NUMBER ? stored_bytes(step) : 0;
        if (item > INT32_MAX)
            return sap_compile_fail(k, "an entry of more than 2^31 bytes");
    }
    p->item = (uint32_t)item;
    p->shape = fixed ? SAP_SHAPE_LEAVES : SAP_SHAPE_TREE;
    return true;
}

static bool compile_plain(sap_compiler *k, sap_branch_node *b, sap_program *p) {
    if (b->leaves.count != 1) {
        b->public.type_name = "record";
        return b->leaves.count ? compile_leaves(k, b, p) : sap_compile_fail(k, "a branch without leaves");
    }
    const sap_leaf *leaf = b->leaves.items[0].object;
    if (!leaf || strncmp(b->leaves.items[0].class_name, "TLeaf", 5) != 0)
        return sap_compile_fail(k, "a leaf that is not there");
    sap_step_node step;
    if (!compile_leaf(k, leaf, &step))
        return false;
    b->public.type_name = step.op == SAP_OP_STRING ? "char*" : kind_name(leaf_kind(leaf));
    if (step.op == SAP_OP_STRING) {
        p->root = step;
        p->shape = SAP_SHAPE_TREE;
        return true;
    }
    p->item = stored_bytes(&step);
    p->root = step;
    if (!leaf->counter)
        return true;
    p->shape = SAP_SHAPE_JAGGED;
    p->counts = leaf->counter->branch;
    return wrap_list(k, SAP_OP_REST, &step, &p->root);
}

/* ---- Branches of objects ----------------------------------------------------------------------------------------- */

/* Last part of a branch's name, without its dimensions: "fP" of "Tracks.fP[5]". */
static bool is_named(const sap_branch_node *b, const char *element) {
    const char *name = b->name, *dot;
    size_t n = strcspn(name, "[");
    while (n && name[n - 1] == '.')
        n--;
    dot = memrchr(name, '.', n);
    if (dot) {
        n -= (size_t)(dot + 1 - name);
        name = dot + 1;
    }
    return strlen(element) == n && memcmp(element, name, n) == 0;
}

static const sap_element *named_element(const sap_class *info, const sap_branch_node *b) {
    for (size_t i = 0; info && i < info->count; i++)
        if (is_named(b, info->elements[i].name))
            return &info->elements[i];
    return NULL;
}

/* The member that the branch holds: number fID of the class and version that the branch names. */
static const sap_element *find_element(sap_compiler *k, const sap_branch_node *b, const sap_class **owner) {
    const char *name = b->object_class ? b->object_class : "";
    const sap_class *info = NULL;
    if (b->class_version > 0)
        info = sap_class_find(k->file, name, (int)b->class_version, 0);
    if (!info && b->checksum)
        info = sap_class_find(k->file, name, 0, (uint32_t)b->checksum);
    if (!info)
        info = sap_class_find(k->file, name, -1, 0);
    *owner = info;
    if (info && b->id >= 0 && (size_t)b->id < info->count && is_named(b, info->elements[b->id].name))
        return &info->elements[b->id];
    const sap_element *e = named_element(info, b);
    if (!e && b->parent_class) {
        *owner = sap_class_find(k->file, b->parent_class, -1, 0);
        e = named_element(*owner, b);
    }
    if (!e)
        (void)sap_compile_fail(k, "class %.150s has no member for it in the file's description", name);
    return e;
}

/* The branch beside it that holds the counter of its arrays. */
static sap_branch_node *find_counter(const sap_branch_node *b, const char *name) {
    const char *dot = strrchr(b->name, '.');
    size_t prefix = dot ? (size_t)(dot + 1 - b->name) : 0;
    const sap_objects *siblings = b->parent ? &b->parent->branches : NULL;
    for (size_t i = 0; name && siblings && i < siblings->count; i++) {
        sap_branch_node *other = siblings->items[i].object;
        if (other && other->public.path && strncmp(other->name, b->name, prefix) == 0 &&
            strcmp(other->name + prefix, name) == 0)
            return other;
    }
    return NULL;
}

/* The branch that counts the items of a split collection: the branch above, where none is named. */
static sap_branch_node *items_branch(const sap_branch_node *b) {
    bool counted = b->parent && (b->parent->type == CLONES_MASTER || b->parent->type == STL_MASTER);
    return b->count_branch ? b->count_branch : counted ? b->parent : NULL;
}

/* Chooses the fast shapes where they fit. `collection`: the entry is all items of a split collection. */
static bool choose_shape(sap_compiler *k, sap_branch_node *b, sap_step_node *step, bool collection, sap_program *p) {
    p->root = *step;
    p->shape = SAP_SHAPE_TREE;
    if (collection) {
        p->counts = items_branch(b);
        if (step->op == SAP_OP_NUMBER) {
            p->shape = SAP_SHAPE_JAGGED;
            p->item = stored_bytes(step);
        }
        bool framed_once = step->framed && step->stl;
        if (framed_once)
            step->framed = false;
        if (step->dim_count > 1) { /* the titles of such leaves do not say the dimensions */
            step->dim_count = 1;
            step->dims[0] = step->count;
        }
        if (!wrap_list(k, SAP_OP_REST, step, &p->root))
            return false;
        p->root.framed = framed_once;
    } else if (step->op == SAP_OP_NUMBER) {
        p->shape = SAP_SHAPE_FLAT;
        p->item = stored_bytes(step);
    } else if ((step->op == SAP_OP_LIST || step->op == SAP_OP_COUNTED) && step->children[0].op == SAP_OP_NUMBER &&
               !step->children[0].class_name && !p->outside) {
        p->shape = SAP_SHAPE_JAGGED;
        p->item = stored_bytes(&step->children[0]);
        p->header = step->op == SAP_OP_LIST ? FRAME_BYTES + COUNT_BYTES : 1;
        if (step->op == SAP_OP_LIST && !step->framed)
            p->header = COUNT_BYTES;
    }
    return true;
}

static bool compile_member(sap_compiler *k, sap_branch_node *b, sap_program *p) {
    const sap_class *owner;
    const sap_element *e = find_element(k, b, &owner);
    if (!e)
        return false;
    b->public.type_name = e->type_name;
    sap_step_node step;
    if (!sap_compile_element(k, e, owner->name, &step))
        return false;
    if (step.op == SAP_OP_TOBJECT && !sap_compile_tobject(k, &step))
        return false;
    if (step.hidden)
        return sap_compile_fail(k, "class %s alone, which the file does not describe", e->name);
    bool collection = b->type == CLONES_MEMBER || b->type == STL_MEMBER;
    if (step.op == SAP_OP_COUNTED && (collection || step.framed || step.count > 1)) {
        step.counter_slot = SAP_COUNTED_OUTSIDE;
        p->outside = find_counter(b, e->count_name);
        if (!p->outside)
            return sap_compile_fail(k, "an array %s whose counter %s is not in the tree", e->name, e->count_name);
    }
    p->inlined = step.base;
    if (!choose_shape(k, b, &step, collection, p))
        return false;
    if (collection && step.base) {
        p->outside = p->counts;
        p->root.counter_slot = SAP_COUNTED_OUTSIDE;
        return p->outside && p->outside->public.path
                   ? true
                   : sap_compile_fail(k, "a base class of items that no column counts");
    }
    return true;
}

bool sap_compile_object(sap_compiler *k, const char *name, int version, uint32_t checksum, sap_step_node *out) {
    sap_span base, arguments[1];
    if (strcmp(name, "TObject") == 0)
        return sap_compile_tobject(k, out);
    if (sap_type_split(name, &base, arguments, 1) == 0 && sap_compile_class(k, name, version, checksum, out))
        return true;
    char first[sizeof k->reason];
    memcpy(first, k->reason, sizeof first);
    k->reason[0] = '\0';
    k->depth = k->stack_count = 0;
    if (sap_compile_type(k, name, false, out))
        return true;
    if (first[0])
        memcpy(k->reason, first, sizeof first);
    return false;
}

/* A whole object or collection, not split. */
static bool compile_whole(sap_compiler *k, sap_branch_node *b, sap_program *p) {
    const char *name = b->object_class ? b->object_class : "";
    b->public.type_name = name;
    sap_step_node step;
    if (!sap_compile_object(k, name, (int)b->class_version, (uint32_t)b->checksum, &step))
        return false;
    if (step.hidden)
        return sap_compile_fail(k, "nothing to show in class %.150s", name);
    return choose_shape(k, b, &step, false, p);
}

static bool compile_element_branch(sap_compiler *k, sap_branch_node *b, sap_program *p) {
    if (b->type == CLONES_MASTER || b->type == STL_MASTER) { /* the number of items */
        b->public.type_name = b->object_class ? b->object_class : "unknown";
        sap_step_node step = {.op = SAP_OP_NUMBER, .slot = k->slots++, .count = 1, .name = ""};
        return sap_compile_number(k, SAP_KIND_INT, NULL, &step.number) && choose_shape(k, b, &step, false, p);
    }
    return b->id >= 0 ? compile_member(k, b, p) : compile_whole(k, b, p);
}

/* ---- All ------------------------------------------------------------------------------------------------------------ */

static bool compile_any(sap_compiler *k, sap_branch_node *b, sap_program *p) {
    bool elsewhere = false;
    for (size_t i = 0; i < b->basket_count; i++)
        elsewhere = elsewhere || !b->baskets[i].embedded;
    if (elsewhere && b->file_name && b->file_name[0])
        return sap_compile_fail(k, "its baskets are in another file, %.150s", b->file_name);
    if (strcmp(b->class_name, "TBranchElement") == 0)
        return compile_element_branch(k, b, p);
    if (strcmp(b->class_name, "TBranchObject") == 0) {
        p->named = true;
        if (!compile_whole(k, b, p))
            return false;
        p->shape = SAP_SHAPE_TREE;
        return true;
    }
    if (strcmp(b->class_name, "TBranch") == 0)
        return compile_plain(k, b, p);
    return sap_compile_fail(k, "a branch of class %s", b->class_name);
}

/* ---- Classes that only the data tell ---------------------------------------------------------------------------------- */

static bool has_open(const sap_step_node *step) {
    bool open = step->open;
    for (int i = 0; i < step->child_count && !open; i++)
        open = has_open(&step->children[i]);
    return open;
}

/* Reads the first baskets for the classes of open pointers. What is wrong with them is for a reader to say. */
static void probe_baskets(sap_tree *tree, sap_branch_node *b, sap_program *p) {
    enum { MOST_BASKETS = 16, MOST_BYTES = 16 << 20 };
    sap_scratch scratch = {0};
    size_t bytes = 0;
    for (size_t i = 0; i < b->basket_count && i < MOST_BASKETS && bytes < MOST_BYTES; i++) {
        sap_basket_data data;
        if (sap_basket_load(tree->file, b, i, tree->where, NULL, false, &scratch, &data, NULL) != SAP_OK)
            break;
        sap_decoding d = {
            .program = p, .basket = &data, .where = tree->where, .probe = &tree->arena, .place = b->baskets[i].offset};
        sap_piece piece = {.basket = i, .end = data.entries};
        if (sap_piece_decode(&d, &piece, NULL, &scratch, NULL) != SAP_OK)
            i = b->basket_count; /* a reader will say so */
        sap_builders_release(piece.builders, p->slots);
        bytes += data.bytes;
    }
    sap_scratch_release(&scratch);
}

/* What is found may have open pointers itself. */
static bool find_open(sap_compiler *k, sap_tree *tree, sap_branch_node *b, sap_program *p) {
    enum { MOST_ROUNDS = 8 };
    for (int round = 0; round < MOST_ROUNDS && p->shape == SAP_SHAPE_TREE && has_open(&p->root); round++) {
        p->slots = k->slots;
        p->bare = p->root;
        p->bare.framed = false;
        probe_baskets(tree, b, p);
        if (!sap_compile_found(k, &p->root))
            break;
    }
    return !k->reason[0];
}

/* A parent that only holds others; masters of split collections have their counts. */
static bool is_container(const sap_branch_node *b) {
    bool master = b->type == CLONES_MASTER || b->type == STL_MASTER;
    return b->branches.count > 0 && strcmp(b->class_name, "TBranch") != 0 && !master;
}

sap_status sap_branch_compile(sap_tree *tree, sap_branch_node *b, sap_error *err) {
    if (b->compiled)
        return SAP_OK;
    sap_compiler k = {.file = tree->file, .arena = &tree->arena};
    b->public.type_name = b->object_class && b->object_class[0] ? b->object_class : "unknown";
    if (is_container(b)) {
        b->public.container = true;
        b->public.reason = "it only holds other branches";
        b->compiled = true;
        return SAP_OK;
    }
    sap_program *p = sap_arena_alloc(&tree->arena, sizeof *p);
    if (p)
        p->file = tree->file;
    if (p && compile_any(&k, b, p) && find_open(&k, tree, b, p) && sap_compile_field(&k, &p->root, &p->field)) {
        p->slots = k.slots;
        p->bare = p->root;
        p->bare.framed = false;
        p->field.name = b->public.name;
        b->program = p;
        b->public.field = &p->field;
    } else if (!p || k.out_of_memory) {
        return sap_error_memory(err, tree->where);
    } else {
        b->public.reason = sap_arena_text(&tree->arena, k.reason, strlen(k.reason));
    }
    b->compiled = true;
    return SAP_OK;
}
