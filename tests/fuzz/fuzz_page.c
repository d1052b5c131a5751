/* Input: the numbers of an RNTuple file and of a page, then bytes that stand in it instead of its own, from its begin on. Its
 * checksum is put right, and the branch that it belongs to is read. */
#include "fuzz_ntuple.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAGES_MOST = 256 };

typedef struct opened {
    fuzz_ntuple file;
    sap_file *root;
    sap_tree *tree;
    struct {
        const sap_page *page;
        const sap_branch *branch;
    } pages[PAGES_MOST];
    size_t count;
} opened;

static void add_pages(opened *o, const sap_branch *branch, const sap_node *node) {
    size_t clusters = ((const sap_ntuple *)o->tree)->cluster_count;
    for (size_t i = 0; node->series && i < clusters; i++)
        for (size_t j = 0; j < node->series->runs[i].count && o->count < PAGES_MOST; j++) {
            o->pages[o->count].page = &node->series->runs[i].pages[j];
            o->pages[o->count++].branch = branch;
        }
    for (size_t i = 0; i < node->child_count; i++)
        add_pages(o, branch, &node->children[i]);
}

static opened *open_template(uint8_t number) {
    static opened all[FUZZ_NTUPLES];
    opened *o = &all[number % FUZZ_NTUPLES];
    if (o->tree)
        return o;
    sap_error error = {0};
    o->file = fuzz_ntuple_copy(number);
    if (sap_file_open(fuzz_path_slot(1 + o->file.number, o->file.data, o->file.size), NULL, &o->root, &error) !=
            SAP_OK ||
        sap_tree_open(o->root, "n", &o->tree, &error) != SAP_OK) {
        (void)fprintf(stderr, "fuzz: %s\n", error.message);
        abort();
    }
    for (size_t i = 0; i < sap_tree_branch_count(o->tree); i++) {
        const sap_branch *branch = sap_tree_branch(o->tree, i);
        if (branch->field)
            add_pages(o, branch, &((const sap_ntuple_branch *)branch)->node);
    }
    return o;
}

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 2)
        return;
    opened *o = open_template(data[0]);
    size_t at = data[1] % o->count;
    const sap_page *page = o->pages[at].page;
    uint8_t was[1 << 12], *bytes = o->file.data + page->at.offset;
    size_t length = (size_t)page->at.bytes, all = length + (page->checked ? 8 : 0);
    if (all > sizeof was)
        return;
    memcpy(was, bytes, all);
    memcpy(bytes, data + 2, size - 2 < length ? size - 2 : length);
    if (page->checked)
        fuzz_put_le64(bytes + length, sap_hash(bytes, length, 0));
    (void)fuzz_path_slot(1 + o->file.number, o->file.data, o->file.size);
    fuzz_read_column(o->tree, o->pages[at].branch);
    memcpy(bytes, was, all);
}
