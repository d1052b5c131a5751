/* Damaged files: whatever is cut off or flipped, reading everything ends in values or in an error that names the file, and
 * takes no more memory than the file's size justifies. Meant to be run under sanitizers too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_folder.h"
#include "memory_file.h"
#include "memory_watch.h"
#include "root/root_internal.h"

#include <assert.h>
#include <sys/stat.h>

#define SCIKIT "corpus/scikit-hep-testdata/"
#define GROOT "corpus/go-hep_hep/groot/testdata/"
#define UNROOT "corpus/JuliaHEP_UnROOT.jl/test/samples/"
#define ROOTTEST "corpus/root-project_roottest/root/"

/* Small files of other people's test suites, of every kind: of the developers' data. */
static const char *const others[] = {
    SCIKIT "uproot-small-flat-tree.root",
    SCIKIT "uproot-small-evnt-tree-nosplit.root",
    SCIKIT "issue367b.root",
    SCIKIT "uproot-issue38a.root",
    SCIKIT "uproot-issue-40.root",
    SCIKIT "uproot-issue-407.root",
    SCIKIT "uproot-histograms.root",
    SCIKIT "test_int_vfloat_tlv_vtlv_rntuple_v1-0-0-0.root",
    SCIKIT "test_multiple_representations_rntuple_v1-0-0-0.root",
    SCIKIT "test_emptystruct_invalidvar_rntuple_v1-0-0-0.root",
    SCIKIT "test_float_types_rntuple_v1-0-0-0.root",
    SCIKIT "test_multiple_cluster_groups_rntuple_v1-0-0-0.root",
    GROOT "small-flat-tree.root",
    GROOT "tlv-split00.root",
    GROOT "tlv-split99.root",
    GROOT "ndim-slice.root",
    GROOT "tdatime.root",
    GROOT "streamers.root",
    GROOT "stdvec-bool-fullsplit-6.10.08.root",
    UNROOT "tree_with_vector_string.root",
    UNROOT "Jagged_TLorentzVector.root",
    UNROOT "tree_with_custom_struct.root",
    UNROOT "RNTuple/test_stl_containers_rntuple_v1-0-0-0.root",
    UNROOT "tdir_complicated.root",
    UNROOT "histograms1d2d.root",
    ROOTTEST "tree/selectorreader/trees/TreeVectorClass0.root",
    ROOTTEST "tree/selectorreader/trees/TreeNestedVector.root",
    ROOTTEST "tree/selectorreader/trees/TreeTObjArray.root",
    ROOTTEST "io/vararyobj/varyingArray_51508.root",
    ROOTTEST "io/evolution/versions/file7500.root",
    ROOTTEST "meta/evolution/foreignVec.root",
    ROOTTEST "io/recover/crashed.root",
    ROOTTEST "tree/chain/st-empty.root",
};
/* Start corpus of the fuzz targets. */
static const char *const ours[] = {
    "clones.root", "clones_whole.root", "collections.root", "directories.root", "flat.root",
    "lz4.root",    "lzma.root",         "sizes.root",       "split.root",       "track.root",
    "vector.root", "vector_whole.root", "whole.root",       "zlib.root",        "zstd.root",
};
enum { OTHERS = sizeof others / sizeof *others, OURS = sizeof ours / sizeof *ours, CUTS = 4096, PLACES = 300 };
static_assert(OTHERS + OURS >= 40, "the number of files");

static uint64_t places = PLACES;
static memory_file scratch;

static void check_error(const sap_error *error) {
    assert_int_not_equal(error->status, SAP_OK);
    if (!strstr(error->message, scratch.path))
        fail_msg("this message names no file: %s", error->message);
}

static void read_column(sap_tree *tree, const sap_branch *branch) {
    sap_reader *reader;
    sap_error error = {0};
    if (sap_reader_open(tree, &(sap_reader_options){.columns = &branch->name, .count = 1, .batch_entries = 1 << 20},
                        NULL, &reader, &error) != SAP_OK) {
        check_error(&error);
        return;
    }
    for (;;) {
        sap_batch batch = {0};
        if (sap_reader_next(reader, &batch, &error) != SAP_OK) {
            check_error(&error);
            break;
        }
        if (batch.length == 0)
            break;
        sap_batch_release(&batch);
    }
    sap_reader_close(reader);
}

static void read_histogram(sap_file *file, const char *name) {
    sap_histogram *histogram;
    sap_error error = {0};
    if (sap_histogram_open(file, name, &histogram, &error) != SAP_OK) {
        check_error(&error);
        return;
    }
    double sum = 0; /* touches everything */
    for (int64_t i = 0; i < histogram->cells; i++)
        sum += histogram->values[i] + histogram->variances[i];
    for (int32_t a = 0; a < histogram->dimensions; a++)
        sum += histogram->axes[a].edges[0] + histogram->axes[a].edges[histogram->axes[a].bins];
    volatile double kept = sum;
    (void)kept;
    sap_histogram_close(histogram);
}

/* Returns whether the file could be opened as if nothing was the matter. */
static bool read_all(void) {
    sap_file *file;
    sap_error error = {0};
    if (sap_file_open(scratch.path, NULL, &file, &error) != SAP_OK) {
        check_error(&error);
        return false;
    }
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        sap_tree *tree;
        char name[300];
        (void)snprintf(name, sizeof name, "%s;%d", key->path, key->cycle);
        if (sap_key_is_histogram(file, key))
            read_histogram(file, name);
        if (!sap_key_is_tree(file, key))
            continue;
        if (sap_tree_open(file, name, &tree, &error) != SAP_OK) {
            check_error(&error);
            continue;
        }
        for (size_t j = 0; j < sap_tree_branch_count(tree); j++) {
            const sap_branch *branch = sap_tree_branch(tree, j);
            if (branch->field)
                read_column(tree, branch);
        }
        sap_tree_close(tree);
    }
    bool whole = sap_file_note(file) == NULL;
    sap_file_close(file);
    return whole;
}

static void store(const uint8_t *data, size_t length) {
    (void)memory_file_store(&scratch, data, length);
    memory_watch(length);
}

static uint8_t *load(const char *path, size_t *length) {
    struct stat info;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &info), 0);
    *length = (size_t)info.st_size;
    uint8_t *data = malloc(*length);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *length, f), *length);
    assert_int_equal(fclose(f), 0);
    return data;
}

/* The header of a small file says where the file ends; a cut is told at once unless that is put right too. */
static void cut(const uint8_t *data, size_t at, uint8_t *copy) {
    memcpy(copy, data, at);
    store(copy, at);
    assert_false(read_all());
    if (at >= 20) {
        for (int i = 0; i < 4; i++)
            copy[12 + i] = (uint8_t)(at >> (24 - 8 * i));
        store(copy, at);
        (void)read_all();
    }
}

static void damage(const char *path, uint64_t seed) {
    size_t length;
    uint8_t *data = load(path, &length), *copy = malloc(length);
    assert_non_null(copy);
    store(data, length);
    (void)read_all();
    for (size_t at = 0; at < CUTS && at < length; at++)
        cut(data, at, copy);
    for (uint64_t i = 0; i < places; i++) {
        cut(data, (size_t)(sap_mix(seed, i) % length), copy);
        memcpy(copy, data, length);
        for (uint64_t flips = 0; flips <= i % 3; flips++) {
            uint64_t bit = sap_mix(1000 + seed, 3 * i + flips) % (8 * length);
            copy[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        store(copy, length);
        (void)read_all();
    }
    free(copy);
    free(data);
}

static void test_ours(void **state) {
    (void)state;
    char path[1000];
    const char *source = getenv("SAPWOOD_SOURCE");
    for (size_t i = 0; i < OURS; i++) {
        (void)snprintf(path, sizeof path, "%s/tests/fuzz/corpus/columns/%s", source ? source : ".", ours[i]);
        damage(path, i);
    }
}

static void test_others(void **state) {
    (void)state;
    char path[1000];
    for (size_t i = 0; i < OTHERS; i++) {
        if (!data_path(others[i], path, sizeof path))
            skip();
        damage(path, 100 + i);
    }
}

/* test_damage PLACES FILE…: damages these files, at so many places each; for long runs. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ours), cmocka_unit_test(test_others)};
    if (argc < 3)
        return cmocka_run_group_tests(tests, NULL, NULL);
    places = strtoull(argv[1], NULL, 10);
    for (int i = 2; i < argc; i++)
        damage(argv[i], 1000 + (uint64_t)i);
    return 0;
}
