/* Friends: trees that are read beside another, entry by entry. A tree names its own; callers may add more. */
#include "root_internal.h"

#include <stdlib.h>

sap_status sap_friends_note(sap_tree *tree, const char *alias, const char *url, const char *tree_path, sap_error *err) {
    if (!sap_grow((void **)&tree->friends, &tree->friend_capacity, tree->friend_count, sizeof *tree->friends))
        return sap_error_memory(err, tree->where);
    tree->friends[tree->friend_count++] = (sap_friend){.alias = alias, .url = url, .tree_path = tree_path};
    return SAP_OK;
}

sap_status sap_tree_add_friend(sap_tree *tree, sap_tree *other, const char *alias, sap_error *err) {
    const char *slash = strrchr(other->path, '/');
    const char *name = alias ? alias : slash ? slash + 1 : other->path;
    const char *copy = sap_arena_text(&tree->arena, name, strlen(name));
    if (!copy)
        return sap_error_memory(err, tree->where);
    SAP_TRY(sap_friends_note(tree, copy, NULL, other->path, err));
    sap_friend *f = &tree->friends[tree->friend_count - 1];
    f->tree = other;
    f->borrowed = true;
    return SAP_OK;
}

/* A friend's file stands beside the tree's, unless its name is a full path or URL. */
static char *place_of(const sap_tree *tree, const char *url) {
    sap_text text = {0};
    const char *slash = strrchr(tree->file->name, '/');
    if (url[0] == '/' || strstr(url, "://") || !slash)
        sap_text_add(&text, "%s", url);
    else
        sap_text_add(&text, "%.*s%s", (int)(slash - tree->file->name + 1), tree->file->name, url);
    return text.failed ? NULL : text.data;
}

static sap_status open_friend(const sap_tree *tree, sap_friend *f, sap_error *err) {
    sap_file *file = tree->file;
    if (f->url && f->url[0]) {
        char *place = place_of(tree, f->url);
        sap_status status = place ? sap_file_open(place, NULL, &f->file, err) : sap_error_memory(err, tree->where);
        free(place);
        SAP_TRY(status);
        file = f->file;
    }
    return sap_tree_open(file, f->tree_path, &f->tree, err);
}

bool sap_friends_locate(const sap_tree *tree, const char *name, const sap_tree **owner, size_t *index) {
    sap_tree *inside = (sap_tree *)(uintptr_t)tree;
    bool found = false;
    for (size_t i = 0; i < tree->friend_count && !found; i++) {
        pthread_mutex_lock(&inside->lock);
        sap_friend *f = &inside->friends[i];
        if (!f->tree && !f->failed)
            f->failed = open_friend(tree, f, NULL) != SAP_OK;
        sap_tree *other = f->tree;
        size_t length = strlen(f->alias);
        pthread_mutex_unlock(&inside->lock);
        if (!other || other == tree)
            continue;
        if (strncmp(name, f->alias, length) == 0 && name[length] == '.')
            found = sap_tree_has(other, name + length + 1, index);
        found = found || sap_tree_has(other, name, index);
        *owner = other;
    }
    return found;
}

void sap_friends_close(sap_tree *tree) {
    for (size_t i = 0; i < tree->friend_count; i++) {
        if (!tree->friends[i].borrowed)
            sap_tree_close(tree->friends[i].tree);
        sap_file_close(tree->friends[i].file);
    }
    free(tree->friends);
}
