/* Files as engines such as Spark see them: one table, its columns of the types that SQL has, cut into parts that are read apart from each other.
 *
 * Columns of a split collection or object stand together, whatever branches hold them: `Jet.PT`, `Jet.Eta` of a TClonesArray or vector are
 * the column `Jet`: list<record{PT, Eta}>, `event.run` of a split object is `event`: record{run}. A field that nobody wants is not read. Types
 * that SQL does not have become those that hold all their values:
 *
 *     uint8, uint16, uint32 → int16, int32, int64      uint64 → decimal of 20 digits      float16 → float32
 *     fixed<T, n> → list<T>      union{A, B} → record{0: A?, 1: B?}, in which all but one are null
 *
 * Fields are matched by name. One that a file lacks is null there if the schema was merged or given; else it is an error, once it is asked
 * for. Of a merged schema, numbers have the smallest type that holds all that the files have: int16 and int32 int32, float32 and
 * float64 float64, an integer and a floating-point number float64 when that holds the integer, other types must be the same.
 */
#ifndef SAPWOOD_TABLE_H
#define SAPWOOD_TABLE_H

#include <sapwood/root.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Files ------------------------------------------------------------------------------------------------- */

typedef struct sap_table_options {
    const char *tree; /* path of the tree in each file; NULL: the only one */
    bool merge;       /* the schema is that of all files together; else the first one's */
    bool skip_bad;    /* files that cannot be opened are left out, not an error */
    bool identity;    /* two columns more, behind the others: `file` (its base name) and `entry` (number in its tree) */
    const struct ArrowSchema
        *schema;                /* the schema, when it is known; NULL: read from the files. Borrowed for the call */
    const char *const *columns; /* (column_count) of sap_table_schema_read: these columns and fields, by their
                                   paths ("Jet", "Jet.PT"); one that is not there is an error */
    size_t column_count;        /* 0: all */
} sap_table_options;

/* What is known of a file. Borrowed from the table. */
typedef struct sap_table_file {
    const char *url;
    const char *problem; /* why it was left out; NULL: it was not */
    uint64_t bytes;      /* of the file */
    int64_t entries;
    const int64_t *clusters; /* (cluster_count) first entries, rising */
    size_t cluster_count;
} sap_table_file;

typedef struct sap_table sap_table;

/* The columns of the table alone: the first file that opens is looked at, with `merge` all of them. urls: names, patterns
 * (sap_source_glob) and folders, of which all files NAME.root are taken. The caller releases `out`. */
SAP_API SAP_MUST_CHECK sap_status sap_table_schema_read(const char *const *urls, size_t count,
                                                        const sap_table_options *options, const sap_run *run,
                                                        struct ArrowSchema *out, sap_error *err);

/* Opens every file, as many at once as the run has threads, and closes it again: entries, clusters, and whether it fits the schema. Everything is
 * copied. Immutable once open. */
SAP_API SAP_MUST_CHECK sap_status sap_table_open(const char *const *urls, size_t count,
                                                 const sap_table_options *options, const sap_run *run, sap_table **out,
                                                 sap_error *err);
SAP_API void sap_table_close(sap_table *table);
SAP_API size_t sap_table_file_count(const sap_table *table);
SAP_API const sap_table_file *sap_table_file_get(const sap_table *table, size_t index);
/* Its columns. Borrowed until the table is closed. */
SAP_API const sap_field *sap_table_fields(const sap_table *table, int32_t *count);

/* ---- Parts ------------------------------------------------------------------------------------------------- */

/* Entries [begin, end) of a file. Slices with the same part are read one after another by whoever reads that part. */
typedef struct sap_table_slice {
    size_t file;
    int64_t begin, end;
    size_t part; /* rising from 0 */
} sap_table_slice;

/* Cuts the table where clusters begin, into parts of about `part_bytes` stored bytes of the wanted columns (0: 128 MB), but into `least` parts
 * where there are clusters enough; small files share a part. wanted: as for sap_table_reader_open. `*out` is freed with free(). An
 * error when a file lacks a wanted column and the schema was neither merged nor given. */
SAP_API SAP_MUST_CHECK sap_status sap_table_plan(const sap_table *table, const struct ArrowSchema *wanted,
                                                 uint64_t part_bytes, size_t least, sap_table_slice **out,
                                                 size_t *count, sap_error *err);

/* ---- Reading ----------------------------------------------------------------------------------------------- */

typedef struct sap_table_reader sap_table_reader;

typedef struct sap_table_reader_options {
    const char *url, *tree;
    int64_t begin, end; /* entries [begin, end); end 0: to the last */
    const struct ArrowSchema
        *wanted;              /* a struct of the columns wanted, by their names and of their types or wider ones, with
                                         those of their fields that are wanted. Borrowed for the call */
    bool lenient;             /* what the file lacks is null; else an error */
    bool identity;            /* as of the table: `file` and `entry` are columns */
    const char *where;        /* entries to keep, see export.h; columns are named as in the tree, or by their
                                         paths in the table ("event.run"). NULL: all */
    const char *const *hints; /* (hint_count) entries for which one of these does not hold may be left out too; one
                                         of a column that the file lacks counts for nothing */
    size_t hint_count;
    size_t batch_bytes; /* 0: 4 MB or more, by the number of columns; 32 MB of a remote file */
} sap_table_reader_options;

SAP_API SAP_MUST_CHECK sap_status sap_table_reader_open(const sap_table_reader_options *options, const sap_run *run,
                                                        sap_table_reader **out, sap_error *err);
SAP_API void sap_table_reader_close(sap_table_reader *reader);
/* The next batch, a struct array of exactly the type `wanted`; after the last `out->release` is NULL. Values are not copied unless their type
 * has to change. The caller releases it; it may outlive the reader. */
SAP_API SAP_MUST_CHECK sap_status sap_table_reader_next(sap_table_reader *reader, struct ArrowArray *out,
                                                        sap_error *err);

/* What a reader has cost so far. */
typedef struct sap_table_reader_stats {
    int64_t read, kept;      /* entries looked at, and those that the condition kept */
    uint64_t stored_bytes;   /* of baskets and pages, as they are in the file */
    uint64_t bytes;          /* the same, decompressed */
    uint64_t received_bytes; /* that came from a server */
    uint64_t baskets;        /* or pages */
    double unpack_seconds;   /* spent decompressing */
} sap_table_reader_stats;
SAP_API void sap_table_reader_stats_get(const sap_table_reader *reader, sap_table_reader_stats *out);

#ifdef __cplusplus
}
#endif
#endif
