/* What all fuzz targets share. A target is one file that defines fuzz_input; libFuzzer feeds it under clang, replay.c under
 * gcc. Any input must end in values or in an error, in bounded time, and in no more memory than memory_watch.h allows. */
#ifndef SAP_FUZZ_H
#define SAP_FUZZ_H

#include <sapwood/root.h>

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The target. */
void fuzz_input(const uint8_t *data, size_t size);

/* A file that holds these bytes until the next call, kept in memory; returns its path. */
const char *fuzz_path(const uint8_t *data, size_t size);
/* The same for one of several files; slot: 1 … FUZZ_TEMPLATES. */
const char *fuzz_path_slot(int slot, const uint8_t *data, size_t size);

/* Ends the program unless the error says something. */
void fuzz_check_error(const sap_error *error);

/* Reads all columns of all trees of a file that holds these bytes, of an open one, or just all of one tree. */
void fuzz_read_bytes(const uint8_t *data, size_t size);
void fuzz_read_file(sap_file *file);
void fuzz_read_tree(sap_tree *tree);
void fuzz_read_column(sap_tree *tree, const sap_branch *branch);

/* A file of corpus/columns, and where its parts are. Numbers beyond the last begin anew. Borrowed. */
enum { FUZZ_TEMPLATES = 10 };
typedef struct fuzz_template {
    int number;
    const uint8_t *data;
    size_t size;
    size_t tree_key;       /* the tree's key in the list of keys */
    size_t tree, streamer; /* records */
} fuzz_template;
const fuzz_template *fuzz_template_get(uint8_t number);

/* The template with a copy of the record at `record` behind its end, which holds `object` (size) instead of its own;
 * `*length` bytes, freed by the caller. The copy begins at the template's size. */
uint8_t *fuzz_template_extend(const fuzz_template *file, size_t record, const uint8_t *object, size_t size,
                              size_t *length);
/* Places in the header of a small file, and in a record's header and its key. */
enum {
    FUZZ_FILE_END = 12,
    FUZZ_INFO = 37,
    FUZZ_INFO_BYTES = 41,
    FUZZ_OBJECT_BYTES = 6,
    FUZZ_HEADER = 14,
    FUZZ_SEEK = 18
};
void fuzz_put32(uint8_t *at, uint32_t value);

#endif
