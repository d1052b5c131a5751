/* Folders compared byte by byte, for tests of datasets. */
#ifndef DATASET_FOLDERS_H
#define DATASET_FOLDERS_H

#include "dataset_cases.h"

#include <dirent.h>

/* All files below a folder as "path: hash" lines in natural order, without those whose name is `except` (may be NULL). */
static inline void list_files(const char *root, const char *below, const char *except, sap_text *out) {
    sap_text path = {0};
    struct dirent **entries;
    sap_text_add(&path, "%s/%s", root, below);
    int count = scandir(path.data, &entries, NULL, alphasort);
    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        sap_text child = {0};
        sap_text_add(&child, "%s%s%s", below, *below ? "/" : "", name);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && (!except || strcmp(name, except) != 0)) {
            if (entries[i]->d_type == DT_DIR) {
                list_files(root, child.data, except, out);
            } else {
                char *full = case_path(root, child.data), *data;
                size_t length;
                assert_ok(sap_file_load(full, 1 << 30, &data, &length, err));
                sap_text_add(out, "%s: %016llx\n", child.data, (unsigned long long)sap_hash(data, length, 0));
                free(data);
                free(full);
            }
        }
        sap_text_release(&child);
        free(entries[i]);
    }
    free(entries);
    sap_text_release(&path);
}

static inline void expect_same_folders(const char *a, const char *b, const char *except) {
    sap_text of_a = {0}, of_b = {0};
    list_files(a, "", except, &of_a);
    list_files(b, "", except, &of_b);
    assert_non_null(of_a.data);
    assert_string_equal(of_a.data, of_b.data);
    sap_text_release(&of_a);
    sap_text_release(&of_b);
}

#endif
