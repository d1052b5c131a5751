/* Tables: what TTrees and RNTuples have in common: finding and opening them, the names of their columns, friends. */
#include "root_internal.h"

#include <stdlib.h>

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static uint32_t *name_slot(const sap_tree *tree, const char *name) {
    size_t mask = tree->name_table_size - 1;
    size_t i = (size_t)sap_hash(name, strlen(name), 0) & mask;
    while (tree->name_table[i]) {
        const sap_branch *b = tree->branches[tree->name_table[i] - 1];
        if (strcmp(b->name, name) == 0 || strcmp(b->path, name) == 0)
            break;
        i = (i + 1) & mask;
    }
    return &tree->name_table[i];
}

/* repeats: number given to the last branch of each path. */
static const char *repeated_name(sap_tree *tree, const char *path, int *repeats) {
    uint32_t first = *name_slot(tree, path);
    int none = 0, *n = first ? &repeats[first - 1] : &none; /* from where the last one ended */
    for (*n = *n < 2 ? 2 : *n;; ++*n) {
        const char *name = sap_arena_format(&tree->arena, "%s#%d", path, *n);
        if (!name || !*name_slot(tree, name))
            return name;
    }
}

static sap_status name_with(sap_tree *tree, const char **own, int *repeats, sap_error *err) {
    for (size_t i = 0; i < tree->branch_count; i++) {
        sap_branch *b = tree->branches[i];
        own[i] = b->name;
        uint32_t *slot = name_slot(tree, b->name);
        if (*slot) {
            sap_branch *other = tree->branches[*slot - 1];
            if (strcmp(own[*slot - 1], b->name) == 0)
                other->name = other->path;
            b->name = b->path;
        } else {
            *slot = (uint32_t)i + 1;
        }
    }
    memset(tree->name_table, 0, tree->name_table_size * sizeof *tree->name_table);
    for (size_t i = 0; i < tree->branch_count; i++) {
        sap_branch *b = tree->branches[i];
        if (*name_slot(tree, b->name))
            b->name = repeated_name(tree, b->path, repeats);
        if (!b->name)
            return sap_error_memory(err, tree->where);
        *name_slot(tree, b->name) = (uint32_t)i + 1;
    }
    for (size_t i = 0; i < tree->branch_count; i++) {
        uint32_t *slot = name_slot(tree, tree->branches[i]->path);
        if (!*slot)
            *slot = (uint32_t)i + 1;
    }
    return SAP_OK;
}

sap_status sap_tree_name_branches(sap_tree *tree, sap_error *err) {
    size_t size = 16;
    while (size < 4 * tree->branch_count)
        size *= 2;
    tree->name_table = calloc(size, sizeof *tree->name_table);
    tree->name_table_size = size;
    const char **own = calloc(tree->branch_count + 1, sizeof *own);
    int *repeats = calloc(tree->branch_count + 1, sizeof *repeats);
    sap_status status =
        tree->name_table && own && repeats ? name_with(tree, own, repeats, err) : sap_error_memory(err, tree->where);
    free(own);
    free(repeats);
    return status;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------ */

static bool is_rntuple(const char *class_name) {
    return strcmp(class_name, "ROOT::RNTuple") == 0 || strcmp(class_name, "ROOT::Experimental::RNTuple") == 0;
}

bool sap_key_is_tree(const sap_file *file, const sap_key *key) {
    if (strcmp(key->class_name, "TTree") == 0 || is_rntuple(key->class_name))
        return true;
    static const char *const known[] = {"TNtuple", "TNtupleD", "TChain"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key->class_name, known[i]) == 0)
            return i < 2;
    if (key->class_name[0] == 'T' && key->class_name[1] == 'H') /* histograms are the many */
        return false;
    if (sap_classes_read((sap_file *)(uintptr_t)file, NULL) != SAP_OK)
        return false;
    return sap_class_is(file, key->class_name, "TTree");
}

static const char *key_path_at(const void *context, size_t index) {
    return sap_file_key(context, index)->path;
}

static const sap_key *only_tree(const sap_file *file, sap_error *err) {
    const sap_key *found = NULL;
    sap_text names = {0};
    size_t count = 0;
    for (size_t i = 0; i < file->key_count; i++) {
        const sap_key *key = &file->keys[i];
        if (!sap_key_is_tree(file, key))
            continue;
        if (found && strcmp(found->path, key->path) == 0) {
            if (key->cycle > found->cycle)
                found = key;
            continue;
        }
        sap_text_add(&names, "%s%s", count++ ? ", " : "", key->path);
        found = key;
    }
    if (count == 0)
        (void)sap_error_set(err, SAP_ENOTFOUND, "%s: no tree in this file", file->name);
    else if (count > 1)
        (void)sap_error_set(err, SAP_EARGUMENT, "%s: which tree? There are %s", file->name,
                            names.data ? names.data : "several");
    sap_text_release(&names);
    return count == 1 ? found : NULL;
}

const sap_key *sap_key_find(const sap_file *file, const char *path, sap_error *err) {
    size_t length = strlen(path);
    const char *semicolon = strrchr(path, ';');
    int cycle = semicolon ? atoi(semicolon + 1) : 0;
    if (semicolon)
        length = (size_t)(semicolon - path);
    const sap_key *found = NULL;
    for (size_t i = 0; i < file->key_count; i++) {
        const sap_key *key = &file->keys[i];
        if (strncmp(key->path, path, length) == 0 && key->path[length] == '\0' && (!cycle || key->cycle == cycle) &&
            (!found || key->cycle > found->cycle))
            found = key;
    }
    if (!found) {
        char nearest[500];
        sap_text_nearest(path, file->key_count, key_path_at, file, nearest, sizeof nearest);
        (void)sap_error_set(err, SAP_ENOTFOUND, "%s: no object \"%s\"%s", file->name, path, nearest);
    }
    return found;
}

sap_status sap_tree_init(sap_tree *tree, const sap_tree_kind *kind, sap_file *file, const char *path, sap_error *err) {
    pthread_mutex_init(&tree->lock, NULL);
    tree->kind = kind;
    tree->file = file;
    tree->path = path;
    tree->where = sap_arena_format(&tree->arena, "%s:%s", file->name, path);
    return tree->where ? SAP_OK : sap_error_memory(err, file->name);
}

sap_status sap_tree_open(sap_file *file, const char *path, sap_tree **out, sap_error *err) {
    SAP_TRY(sap_classes_read(file, err));
    const sap_key *key = path ? sap_key_find(file, path, err) : only_tree(file, err);
    if (!key)
        return err && err->status ? err->status : SAP_ENOTFOUND;
    if (!sap_key_is_tree(file, key))
        return sap_error_set(err, SAP_ETYPE, "%s:%s is a %s, not a tree", file->name, key->path, key->class_name);
    return is_rntuple(key->class_name) ? sap_ntuple_open(file, key, out, err) : sap_ttree_open(file, key, out, err);
}

void sap_tree_close(sap_tree *tree) {
    if (!tree)
        return;
    tree->kind->close(tree);
    sap_friends_close(tree);
    sap_arena_release(&tree->arena);
    free(tree->branches);
    free(tree->name_table);
    free(tree->clusters);
    pthread_mutex_destroy(&tree->lock);
    free(tree);
}

/* ---- Looking -------------------------------------------------------------------------------------------------------- */

const char *sap_tree_path(const sap_tree *tree) {
    return tree->path;
}

int64_t sap_tree_entries(const sap_tree *tree) {
    return tree->entries;
}

size_t sap_tree_branch_count(const sap_tree *tree) {
    return tree->branch_count;
}

const int64_t *sap_tree_clusters(const sap_tree *tree, size_t *count) {
    sap_tree *inside = (sap_tree *)(uintptr_t)tree;
    pthread_mutex_lock(&inside->lock);
    if (!inside->clusters)
        inside->kind->clusters(inside);
    *count = inside->clusters ? inside->cluster_count : 0;
    const int64_t *clusters = inside->clusters;
    pthread_mutex_unlock(&inside->lock);
    return clusters;
}

/* Branches are compiled when they are first looked at: a wide tree costs what is used of it. */
static sap_status look_at(const sap_tree *tree, size_t index, sap_error *err) {
    sap_tree *inside = (sap_tree *)(uintptr_t)tree;
    pthread_mutex_lock(&inside->lock);
    sap_status status = inside->kind->compile(inside, index, err);
    pthread_mutex_unlock(&inside->lock);
    return status;
}

const sap_branch *sap_tree_branch(const sap_tree *tree, size_t index) {
    if (index >= tree->branch_count)
        return NULL;
    sap_error error = {0};
    if (look_at(tree, index, &error) != SAP_OK)
        tree->branches[index]->reason = "out of memory";
    return tree->branches[index];
}

static const char *branch_name_at(const void *context, size_t index) {
    return ((const sap_tree *)context)->branches[index]->name;
}

bool sap_tree_has(const sap_tree *tree, const char *name, size_t *index) {
    uint32_t found = *name_slot(tree, name);
    *index = found - 1;
    return found > 0;
}

const char *sap_branch_codec(const sap_tree *tree, size_t index) {
    return tree->kind->codec((sap_tree *)(uintptr_t)tree, index);
}

sap_status sap_tree_locate(const sap_tree *tree, const char *name, const sap_tree **owner, size_t *index,
                           sap_error *err) {
    *owner = tree;
    if (!sap_tree_has(tree, name, index)) {
        if (sap_friends_locate(tree, name, owner, index))
            return look_at(*owner, *index, err);
        char nearest[700];
        sap_text_nearest(name, tree->branch_count, branch_name_at, tree, nearest, sizeof nearest);
        return sap_error_set(err, SAP_ENOTFOUND, "%s: no branch \"%s\"%s", tree->where, name, nearest);
    }
    return look_at(tree, *index, err);
}

sap_status sap_tree_find(const sap_tree *tree, const char *name, const sap_branch **out, sap_error *err) {
    const sap_tree *owner;
    size_t index;
    SAP_TRY(sap_tree_locate(tree, name, &owner, &index, err));
    *out = owner->branches[index];
    return SAP_OK;
}
