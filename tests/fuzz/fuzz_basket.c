/* Input: the numbers of a file and of a branch, then a basket with its header; it takes the place of the branch's first one,
 * and the column is read. The header's sizes are put right, so that bytes may come and go. */
#include "fuzz.h"

#include "root/root_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEADER_LEAST = 30, ROOM = 1 << 16 };

/* The file with room behind its end, opened once. */
typedef struct opened {
    uint8_t *data;
    size_t size;
    sap_file *file;
    sap_tree *tree;
} opened;

static opened *open_template(const fuzz_template *base) {
    static opened all[FUZZ_TEMPLATES];
    opened *o = &all[base->number];
    if (o->tree)
        return o;
    sap_error error = {0};
    o->size = base->size + ROOM;
    o->data = calloc(1, o->size);
    if (!o->data)
        abort();
    memcpy(o->data, base->data, base->size);
    if (sap_file_open(fuzz_path_slot(1 + base->number, o->data, o->size), NULL, &o->file, &error) != SAP_OK ||
        sap_tree_open(o->file, "t", &o->tree, &error) != SAP_OK) {
        (void)fprintf(stderr, "fuzz: %s\n", error.message);
        abort();
    }
    return o;
}

void fuzz_input(const uint8_t *data, size_t size) {
    if (size < 2 + HEADER_LEAST || size > ROOM)
        return;
    const fuzz_template *base = fuzz_template_get(data[0]);
    opened *o = open_template(base);
    uint8_t *record = o->data + base->size;
    uint32_t length = (uint32_t)(size - 2);
    memcpy(record, data + 2, length);
    uint16_t header = sap_be16(record + FUZZ_HEADER);
    fuzz_put32(record, length);
    if (header < length && !(record[FUZZ_HEADER + 2] & 0x80)) /* a bit of the cycle: the object's size is to stay */
        fuzz_put32(record + FUZZ_OBJECT_BYTES, length - header);
    (void)fuzz_path_slot(1 + base->number, o->data, o->size);
    const sap_branch *branch = sap_tree_branch(o->tree, data[1] % sap_tree_branch_count(o->tree));
    sap_branch_node *node = sap_branch_inside(branch);
    if (!branch->field || node->basket_count == 0)
        return;
    sap_basket was = node->baskets[0];
    node->baskets[0] = (sap_basket){.offset = base->size, .bytes = length, .first_entry = was.first_entry};
    fuzz_read_column(o->tree, branch);
    node->baskets[0] = was;
}
