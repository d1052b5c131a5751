/* Columns out of ROOT files: some of them, for the entries that a condition keeps, from one file or many; written in other
 * formats, or compared.
 *
 * An input is "FILE" or "FILE:TREE", where FILE is a path or URL (see access.h) in which shell patterns are expanded. Without
 * a tree it is the only one of the file. Several inputs are one table (see sap_reader_open_files), of the
 * tree of that name in each.
 *
 * A condition is what C would write: comparisons (< <= > >= == !=), && || !, + - * / %, parentheses, numbers, 'texts',
 * true and false. Columns are named as they are, or in `backquotes` where a name holds more than letters, digits, "_" and ".".
 * Columns with one value an entry can be compared; of a list, NAME[2] is an item (NAME[-1] the last), count(NAME) the number
 * of items. abs(x) is there too. Integers are compared exactly, all other numbers as double. A comparison with what is not
 * there (a null, an item past the end) is false.
 */
#ifndef SAPWOOD_EXPORT_H
#define SAPWOOD_EXPORT_H

#include <sapwood/root.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the tree is named in an input: `*url_length` gets the length of FILE, `*tree` what follows the colon, or NULL. A colon
 * that belongs to a URL (behind the scheme, before a port) or to the name of an existing file does not count. */
SAP_API void sap_input_parse(const char *input, size_t *url_length, const char **tree);

/* ---- Selections ------------------------------------------------------------------------------------------ */

typedef struct sap_selection sap_selection;

typedef struct sap_selection_options {
    sap_tree *tree;            /* borrowed; or NULL, and inputs */
    const char *const *inputs; /* (input_count) */
    size_t input_count;
    const char *const *columns; /* (column_count) as for a reader; NULL: every readable column */
    size_t column_count;
    const char *where;  /* NULL: every entry */
    int64_t begin, end; /* entries [begin, end) of all inputs; end 0: to the last */
    int64_t batch_entries;
    size_t batch_bytes;
} sap_selection_options;

/* Opens the first input, so that the columns are known. Everything is copied but the tree. */
SAP_API SAP_MUST_CHECK sap_status sap_selection_open(const sap_selection_options *options, const sap_run *run,
                                                     sap_selection **out, sap_error *err);
SAP_API void sap_selection_close(sap_selection *selection);
/* The columns that batches have. Borrowed until the selection is closed. */
SAP_API const sap_field *sap_selection_fields(const sap_selection *selection, int32_t *count);
/* The next batch that is not empty, length 0 after the last; `first_entry` is that of the entries that it was made of.
 * `out` must be empty; the caller releases it. After an error there are no more. */
SAP_API SAP_MUST_CHECK sap_status sap_selection_next(sap_selection *selection, sap_batch *out, sap_error *err);
/* Entries looked at so far, and those that were kept. */
SAP_API void sap_selection_counts(const sap_selection *selection, int64_t *read, int64_t *kept);
/* Moves it into an Arrow stream: closing the stream closes it. */
SAP_API SAP_MUST_CHECK sap_status sap_selection_export(sap_selection *selection, struct ArrowArrayStream *out,
                                                       sap_error *err);

/* ---- Export ------------------------------------------------------------------------------------------------ */

/* Names of the formats, "parquet", "arrow" (the IPC file format), "csv", "npz", ended by NULL. docs/export.md says how nested columns
 * are written in each. */
SAP_API const char *const *sap_export_formats(void);

typedef struct sap_export_result {
    int64_t read, written; /* entries */
    int64_t bytes;         /* of the file */
} sap_export_result;

/* Writes the selection to `path`, aside and then renamed. format: NULL: by the ending of the name. Memory is bounded by
 * the size of batches. An existing file is replaced only when `replace` is set. */
SAP_API SAP_MUST_CHECK sap_status sap_export_run(const sap_selection_options *options, const char *path,
                                                 const char *format, bool replace, const sap_run *run,
                                                 sap_export_result *out, sap_error *err);

/* ---- Comparison ---------------------------------------------------------------------------------------------- */

/* Something that differs. Texts are borrowed for the time of the call-back. */
typedef struct sap_difference {
    const char *column; /* NULL: the tables as a whole */
    int64_t entry;      /* -1: the column as a whole */
    const char *place;  /* in the entry: "", "[3].pt" */
    const char *text;   /* "41.5, 42", "int32, float64", "only in the first" */
} sap_difference;

typedef struct sap_compare_options {
    double tolerance; /* floating-point numbers may differ by so much, relative to the larger; 0: every bit must be the
                         same */
    int32_t limit;    /* differences reported for each column; 0: 3 */
    void (*report)(void *context, const sap_difference *difference); /* called from one thread; may be NULL */
    void *context;
} sap_compare_options;

typedef struct sap_compare_result {
    int64_t entries;           /* compared */
    int32_t columns;           /* compared */
    int32_t different_columns; /* those that differ, or are in one table only */
    int64_t different_entries; /* summed over the columns */
    bool same;
} sap_compare_result;

/* Compares two tables column by column, by name. With a tolerance NaN equals NaN, and 0 equals -0. */
SAP_API SAP_MUST_CHECK sap_status sap_compare_run(const sap_selection_options *a, const sap_selection_options *b,
                                                  const sap_compare_options *options, const sap_run *run,
                                                  sap_compare_result *out, sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
