/* Reading ROOT files: keys, trees and their columns.
 *
 *     sap_file *file;  sap_tree *tree;  sap_reader *reader;  sap_batch batch = {0};
 *     sap_file_open("events.root", NULL, &file, &err);
 *     sap_tree_open(file, "Delphes", &tree, &err);
 *     sap_reader_open(tree, &(sap_reader_options){.columns = names, .count = 2}, &run, &reader, &err);
 *     while (sap_reader_next(reader, &batch, &err) == SAP_OK && batch.length > 0) { …; sap_batch_release(&batch); }
 *
 * Files and trees are immutable once open and may be shared between threads; a reader belongs to one thread. A tree
 * lives no longer than its file, a reader no longer than its tree; batches are independent of all three.
 * Everything that a file says is checked: bad bytes end in SAP_EFORMAT with file, object, position and what was
 * expected, such as `events.root:Delphes/Jet.PT @0x1a2f0: basket needs 4096 bytes, 311 left`.
 */
#ifndef SAPWOOD_ROOT_H
#define SAPWOOD_ROOT_H

#include <sapwood/access.h>
#include <sapwood/column.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Files and keys -------------------------------------------------------------------------------------- */

typedef struct sap_file sap_file;

/* Opens a file and reads its directories. url: see access.h. run: its cancel flag is obeyed; may be NULL. */
SAP_API SAP_MUST_CHECK sap_status sap_file_open(const char *url, const sap_run *run, sap_file **out, sap_error *err);
SAP_API void sap_file_close(sap_file *file);

/* An object of the file. Sub-directories are walked: `path` is "dir/name". Borrowed until the file is closed. */
typedef struct sap_key {
    const char *path;
    const char *class_name;
    const char *title;
    int cycle;
    uint64_t offset;       /* of the record in the file */
    uint64_t stored_bytes; /* with its header, as stored */
    uint64_t object_bytes; /* uncompressed */
} sap_key;

SAP_API size_t sap_file_key_count(const sap_file *file);
SAP_API const sap_key *sap_file_key(const sap_file *file, size_t index);
SAP_API const char *sap_file_name(const sap_file *file);
SAP_API uint64_t sap_file_size(const sap_file *file);
/* Where its bytes come from, for sap_source_stats_get. Borrowed until the file is closed. */
SAP_API const sap_source *sap_file_source(const sap_file *file);
/* What reading columns has cost so far: baskets of TTrees and pages of RNTuples. */
typedef struct sap_file_stats {
    uint64_t baskets;
    uint64_t stored_bytes; /* as they are in the file */
    uint64_t bytes;        /* decompressed */
    double unpack_seconds; /* summed over threads */
} sap_file_stats;
SAP_API void sap_file_stats_get(const sap_file *file, sap_file_stats *out);
SAP_API int sap_file_version(const sap_file *file);             /* of ROOT that wrote it, as 63400 */
SAP_API const char *sap_file_compression(const sap_file *file); /* the file's default, for instance "zstd-5" */
/* What was not as it should be with the file, in words: a file that was not closed properly is opened all the same, with the
 * objects that its records show. NULL: nothing. Borrowed until the file is closed. */
SAP_API const char *sap_file_note(const sap_file *file);
/* Hands the note, if there is one, to the run's progress as a message "FILE: note". */
SAP_API void sap_file_report_note(const sap_file *file, const sap_run *run);
/* Whether objects of this class are tables that sap_tree_open opens, by class or base class. */
SAP_API bool sap_key_is_tree(const sap_file *file, const sap_key *key);

/* ---- Trees: TTrees and RNTuples ----------------------------------------------------------------------------- */

typedef struct sap_tree sap_tree;

/* path: "dir/name", or "dir/name;cycle"; the highest cycle when none is given. NULL: the only tree of the file, an error that
 * lists them when there are several. */
SAP_API SAP_MUST_CHECK sap_status sap_tree_open(sap_file *file, const char *path, sap_tree **out, sap_error *err);
SAP_API void sap_tree_close(sap_tree *tree);
SAP_API const char *sap_tree_path(const sap_tree *tree);
SAP_API int64_t sap_tree_entries(const sap_tree *tree);

/* A column of a tree: a branch, or one leaf of it. Borrowed until the tree is closed. */
typedef struct sap_branch {
    const char *name;       /* full name, as uproot spells it: "Jet.PT", "Jet/Jet.PT" only where names collide */
    const char *path;       /* with all branches above it: "Jet/Jet.PT"; sap_tree_find takes it too */
    const char *type_name;  /* C++ type as ROOT spells it */
    const sap_field *field; /* type of the column; NULL when this version cannot read it */
    const char *reason;     /* then, why */
    bool container;         /* a split parent that only holds other branches: no column of its own */
    int depth;              /* in the tree of branches, 0 at the top: for listings */
    int64_t baskets;
    uint64_t stored_bytes;
    uint64_t bytes; /* uncompressed */
} sap_branch;

SAP_API size_t sap_tree_branch_count(const sap_tree *tree);
SAP_API const sap_branch *sap_tree_branch(const sap_tree *tree, size_t index);
/* Codec of a column's first basket or page, which is read for it: "zlib", "lzma", "lz4", "zstd", "old-zlib", "none"; NULL: it
 * has none. Static. */
SAP_API const char *sap_branch_codec(const sap_tree *tree, size_t index);
/* First entries of the clusters in which the tree was written, rising. Borrowed until the tree is closed; NULL when out of
 * memory. */
SAP_API const int64_t *sap_tree_clusters(const sap_tree *tree, size_t *count);

/* Reads `other` beside the tree, entry by entry: its columns are then found by their names, and as "alias.name". It must have
 * at least as many entries, and live as long. alias NULL: the last part of its path. Friends that the tree itself names (TFriendElement)
 * are found without; their files are looked for beside the tree's. Not while the tree is used by other threads. */
SAP_API SAP_MUST_CHECK sap_status sap_tree_add_friend(sap_tree *tree, sap_tree *other, const char *alias,
                                                      sap_error *err);

/* By exact name. Not found: SAP_ENOTFOUND, with the nearest names in the message. */
SAP_API SAP_MUST_CHECK sap_status sap_tree_find(const sap_tree *tree, const char *name, const sap_branch **out,
                                                sap_error *err);

/* ---- Reading --------------------------------------------------------------------------------------------- */

typedef struct sap_reader sap_reader;

typedef struct sap_reader_options {
    const char *const
        *columns; /* (count) exact names or patterns with * and ?; a name that begins with '!' leaves out what
                                   it matches. NULL: every readable column */
    size_t count;
    int64_t begin, end;    /* entries [begin, end); end 0: to the last */
    int64_t batch_entries; /* at most so many entries a batch; 0: chosen so that a batch holds about batch_bytes */
    size_t batch_bytes;    /* 0: 4 to 32 MB, by columns and threads; 32 MB of a remote file */
} sap_reader_options;

/* The batch_entries that a reader chooses for `columns` columns which take `entry_bytes` an entry together: for those who read the
 * same entries by several readers. */
SAP_API int64_t sap_reader_batch_entries(const sap_tree *tree, const sap_run *run, size_t columns, double entry_bytes,
                                         size_t batch_bytes);

/* Plans the reading; no basket is read yet. The run is copied: its pool decodes baskets in parallel. */
SAP_API SAP_MUST_CHECK sap_status sap_reader_open(sap_tree *tree, const sap_reader_options *options, const sap_run *run,
                                                  sap_reader **out, sap_error *err);
/* Several files as one table: entries of the first, then of the second, … ; begin, end and first_entry count through all. urls:
 * names and patterns (sap_source_glob). path: of the tree in each of them, NULL: the only one. Columns are chosen in the first file;
 * the others must have them, of the same types. No batch holds entries of two files. */
SAP_API SAP_MUST_CHECK sap_status sap_reader_open_files(const char *const *urls, size_t count, const char *path,
                                                        const sap_reader_options *options, const sap_run *run,
                                                        sap_reader **out, sap_error *err);
SAP_API void sap_reader_close(sap_reader *reader);
/* The file that the last batch came from, and the number (among all) of its first entry. Borrowed until the next batch. */
SAP_API const char *sap_reader_file(const sap_reader *reader, int64_t *first);

/* The columns that batches will have, in order. Borrowed until the reader is closed. */
SAP_API const sap_field *sap_reader_fields(const sap_reader *reader, int32_t *count);

/* The next batch, empty (length 0) after the last. `out` must be empty; the caller releases it. After an error the
 * reader gives no more. */
SAP_API SAP_MUST_CHECK sap_status sap_reader_next(sap_reader *reader, sap_batch *out, sap_error *err);

/* The next batch begins with entry `begin`, and after entry `end` - 1 there is none; backwards too. Not of several files. */
SAP_API SAP_MUST_CHECK sap_status sap_reader_seek(sap_reader *reader, int64_t begin, int64_t end, sap_error *err);

/* Moves the reader into an Arrow stream: closing the stream closes the reader. Tree and file must live as long. */
SAP_API SAP_MUST_CHECK sap_status sap_reader_export(sap_reader *reader, struct ArrowArrayStream *out, sap_error *err);

/* ---- Histograms -------------------------------------------------------------------------------------------- */

/* One axis. Bin 0 is the underflow, bins 1 to `bins` lie between the edges, bin `bins` + 1 is the overflow. */
typedef struct sap_axis {
    const char *name, *title; /* ROOT's name of the axis: "xaxis" */
    int32_t bins;
    bool regular;              /* bins of equal width */
    const double *edges;       /* (bins + 1) */
    const char *const *labels; /* (bins) NULL for a bin without; NULL: no bin has one */
} sap_axis;

/* A TH1, TH2, TH3 of any number type, or a TProfile of one to three dimensions. Arrays have a value for each cell, x running
 * fastest, under- and overflow among them: cell (i, j) of two dimensions is i + (axes[0].bins + 2) * j. */
typedef struct sap_histogram {
    const char *name, *title, *class_name;
    int32_t dimensions;
    sap_axis axes[3];
    bool profile;
    int64_t cells;
    const double *values;    /* contents; of a profile the means */
    const double *variances; /* squares of the errors as ROOT gives them */
    const double
        *weights_squared;  /* sum of squared weights; NULL: ROOT did not keep it, and every weight counts as 1 */
    const double *counts;  /* profile: sum of weights; else NULL */
    const double *spreads; /* profile: variance of what was averaged; else NULL */
    char error_option; /* profile: ' ' error of the mean, 's' spread, 'i' for integers, 'g' 1 / sqrt(sum of weights) */
    double entries;    /* number of calls of Fill */
    double sumw, sumw2, sumwx, sumwx2; /* of fills within the range */
} sap_histogram;

/* Whether sap_histogram_open reads objects of this class. */
SAP_API bool sap_key_is_histogram(const sap_file *file, const sap_key *key);
/* path: as for sap_tree_open, not NULL. What it gives lives until it is closed, independent of the file. */
SAP_API SAP_MUST_CHECK sap_status sap_histogram_open(sap_file *file, const char *path, sap_histogram **out,
                                                     sap_error *err);
SAP_API void sap_histogram_close(sap_histogram *histogram);

#ifdef __cplusplus
}
#endif
#endif
