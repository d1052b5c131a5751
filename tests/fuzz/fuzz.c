/* Shared parts of the fuzz targets: inputs as files in memory, reading everything of a file, the watch over memory. */
#include "fuzz.h"

#include "base/cursor.h"
#include "files.h"
#include "memory_file.h"
#include "memory_watch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    memory_watch(size);
    fuzz_input(data, size);
    return 0;
}

/* ---- Inputs as files ------------------------------------------------------------------------------------- */

const char *fuzz_path_slot(int slot, const uint8_t *data, size_t size) {
    static memory_file files[FUZZ_TEMPLATES + 1];
    return memory_file_store(&files[slot], data, size);
}

const char *fuzz_path(const uint8_t *data, size_t size) {
    return fuzz_path_slot(0, data, size);
}

void fuzz_check_error(const sap_error *error) {
    if (error->status == SAP_OK || !error->message[0]) {
        (void)fprintf(stderr, "fuzz: a failure without a message\n");
        abort();
    }
}

/* ---- Reading everything ------------------------------------------------------------------------------------ */

void fuzz_read_column(sap_tree *tree, const sap_branch *branch) {
    sap_reader *reader;
    sap_error error = {0};
    sap_reader_options options = {.columns = &branch->name, .count = 1};
    if (sap_reader_open(tree, &options, NULL, &reader, &error) != SAP_OK) {
        fuzz_check_error(&error);
        return;
    }
    enum { MOST_BATCHES = 64 }; /* late columns give zeros for entries that cost no bytes, as many as are believed */
    for (int i = 0; i < MOST_BATCHES; i++) {
        sap_batch batch = {0};
        if (sap_reader_next(reader, &batch, &error) != SAP_OK) {
            fuzz_check_error(&error);
            break;
        }
        if (batch.length == 0)
            break;
        sap_batch_release(&batch);
    }
    sap_reader_close(reader);
}

void fuzz_read_tree(sap_tree *tree) {
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *branch = sap_tree_branch(tree, i);
        if (branch->field)
            fuzz_read_column(tree, branch);
    }
}

void fuzz_read_bytes(const uint8_t *data, size_t size) {
    sap_file *file;
    sap_error error = {0};
    if (sap_file_open(fuzz_path(data, size), NULL, &file, &error) != SAP_OK) {
        fuzz_check_error(&error);
        return;
    }
    fuzz_read_file(file);
    sap_file_close(file);
}

void fuzz_read_file(sap_file *file) {
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        char name[5000];
        sap_tree *tree;
        sap_error error = {0};
        if (!sap_key_is_tree(file, key))
            continue;
        (void)snprintf(name, sizeof name, "%s;%d", key->path, key->cycle);
        if (sap_tree_open(file, name, &tree, &error) != SAP_OK) {
            fuzz_check_error(&error);
            continue;
        }
        fuzz_read_tree(tree);
        sap_tree_close(tree);
    }
}

/* ---- Templates ------------------------------------------------------------------------------------------------ */

static_assert(sizeof fuzz_files / sizeof *fuzz_files == FUZZ_TEMPLATES, "the number of files");

enum { KEY_TEXTS = 26 };

static size_t find_tree_key(const uint8_t *data, size_t size) {
    for (size_t at = size; at-- > KEY_TEXTS;)
        if (size - at > 8 && memcmp(data + at, "\x05TTree\x01t", 8) == 0)
            return at - KEY_TEXTS; /* the last: the list of keys stands behind the records */
    abort();
}

const fuzz_template *fuzz_template_get(uint8_t number) {
    static fuzz_template files[FUZZ_TEMPLATES];
    fuzz_template *file = &files[number % FUZZ_TEMPLATES];
    if (file->data)
        return file;
    char path[1000], *bytes;
    sap_error error = {0};
    (void)snprintf(path, sizeof path, "%s/columns/%s", FUZZ_CORPUS, fuzz_files[number % FUZZ_TEMPLATES]);
    if (sap_file_load(path, 1 << 20, &bytes, &file->size, &error) != SAP_OK) {
        (void)fprintf(stderr, "fuzz: %s\n", error.message);
        abort();
    }
    file->number = number % FUZZ_TEMPLATES;
    file->data = (uint8_t *)bytes;
    file->tree_key = find_tree_key(file->data, file->size);
    file->tree = sap_be32(file->data + file->tree_key + FUZZ_SEEK);
    file->streamer = sap_be32(file->data + FUZZ_INFO);
    return file;
}

void fuzz_put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

uint8_t *fuzz_template_extend(const fuzz_template *file, size_t record, const uint8_t *object, size_t size,
                              size_t *length) {
    size_t header =
        sap_be16(file->data + record + FUZZ_HEADER); /* references count from its begin: it must stay as long */
    *length = file->size + header + size;
    uint8_t *data = malloc(*length), *copy = data + file->size;
    if (!data)
        abort();
    memcpy(data, file->data, file->size);
    memcpy(copy, file->data + record, header);
    fuzz_put32(data + FUZZ_FILE_END, (uint32_t)*length);
    fuzz_put32(copy, (uint32_t)(header + size));
    fuzz_put32(copy + FUZZ_OBJECT_BYTES, (uint32_t)size);
    fuzz_put32(copy + FUZZ_SEEK, (uint32_t)file->size);
    if (size)
        memcpy(copy + header, object, size);
    return data;
}
