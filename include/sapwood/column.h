/* Columns of values in Apache Arrow's layout, and Arrow's C Data and C Stream interfaces.
 *
 * A column is a tree: a list has one child column that holds the items of all its lists one after another, a
 * record has one child a field, all of the same length. Offsets are 32-bit and need not start at 0, so that a
 * view of some entries (`sap_batch_view`) shares every buffer with the batch that it looks into.
 *
 * Source: Arrow columnar format 1.x, "The Arrow C data interface" and "The Arrow C stream interface".
 */
#ifndef SAPWOOD_COLUMN_H
#define SAPWOOD_COLUMN_H

#include <sapwood/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Types ------------------------------------------------------------------------------------------- */

typedef enum sap_type {
    SAP_TYPE_NONE = 0, /* no values: every entry is null, as in Arrow's null type; an alternative of unions */
    SAP_BOOL,          /* one byte a value here, 0 or 1; packed into bits when exported to Arrow */
    SAP_INT8,
    SAP_UINT8,
    SAP_INT16,
    SAP_UINT16,
    SAP_INT32,
    SAP_UINT32,
    SAP_INT64,
    SAP_UINT64,
    SAP_FLOAT16, /* IEEE binary16 */
    SAP_FLOAT32,
    SAP_FLOAT64,
    SAP_STRING,     /* bytes, UTF-8 by custom */
    SAP_LIST,       /* a variable number of items */
    SAP_FIXED_LIST, /* `size` items an entry */
    SAP_RECORD,     /* named fields */
    SAP_UNION,      /* one of several alternatives an entry (dense union) */
    SAP_DECIMAL     /* whole numbers of up to `size` digits, 128 bits each: of tables (table.h), never of a file */
} sap_type;

/* "float32", "list", …; static. */
SAP_API const char *sap_type_name(sap_type type);
/* The same in numpy's words, for primitive types: "<f4", "|b1", …; NULL for the others. Static. */
SAP_API const char *sap_type_dtype(sap_type type);
/* Bytes of one value of a primitive type, 0 for the nested ones and strings. */
SAP_API size_t sap_type_size(sap_type type);

/* The type of a column, as a tree. Borrowed from whoever gives it. */
typedef struct sap_field {
    const char *name;
    sap_type type;
    bool nullable;
    int32_t size;  /* SAP_FIXED_LIST: items an entry; SAP_DECIMAL: digits */
    int32_t count; /* children: 1 for lists, the number of fields of a record or alternatives of a union */
    const struct sap_field *children;
} sap_field;

/* Writes the type as text, for instance "list<float32>" or "record{x: float64, y: list<int32>}"; always terminated.
 * Returns the length that the whole text needs. */
SAP_API size_t sap_field_text(const sap_field *field, char *text, size_t capacity);

/* ---- Columns and batches ------------------------------------------------------------------------------- */

typedef struct sap_column {
    const char *name;
    sap_type type;
    int32_t size;           /* SAP_FIXED_LIST: items an entry; SAP_DECIMAL: digits */
    int64_t length;         /* entries */
    const uint8_t *valid;   /* (length) one byte an entry, 0: null; NULL: all are valid */
    const int32_t *offsets; /* SAP_LIST, SAP_STRING: (length + 1), rising, offsets[0] >= 0; SAP_UNION: (length) */
    const void *values;     /* primitive: (length) values; SAP_STRING: the bytes; SAP_UNION: (length) int8 tags */
    int32_t count;          /* children */
    struct sap_column *children;
} sap_column;

/* Columns over the same entries. A zeroed batch is empty. */
typedef struct sap_batch {
    int64_t length;      /* entries */
    int64_t first_entry; /* entry number, in its tree, of the first */
    int32_t count;       /* columns */
    sap_column *columns;
    struct sap_storage *storage; /* owns everything that the columns point to; NULL in a view */
} sap_batch;

SAP_API void sap_batch_release(sap_batch *batch);

/* The column of that name, or NULL. Borrowed from the batch. */
SAP_API const sap_column *sap_batch_find(const sap_batch *batch, const char *name);

/* `out` becomes a view of entries [begin, end) of `batch`: it shares all buffers, so it must not outlive `batch`. Release
 * it too (its table of columns is its own). */
SAP_API SAP_MUST_CHECK sap_status sap_batch_view(const sap_batch *batch, int64_t begin, int64_t end, sap_batch *out,
                                                 sap_error *err);

/* ---- Features: columns that a network reads -------------------------------------------------------------- */

typedef enum sap_scaling {
    SAP_SCALING_NONE = 0,
    SAP_SCALING_MINMAX,        /* each value to [0, 1] by its minimum and maximum; a constant one becomes 0.5 */
    SAP_SCALING_STANDARD,      /* minus the mean, over the population standard deviation (0 counts as 1) */
    SAP_SCALING_STANDARD_EVENT /* the same, but each event by itself, over all `pad_rows` rows */
} sap_scaling;

typedef enum sap_order {
    SAP_ORDER_NONE = 0,       /* as computed */
    SAP_ORDER_FALLING_DELTA_R /* stable, by falling distance in (eta, phi) to row 0, whose phi difference is folded
                                 into [-π, π]; so row 0 becomes the last */
} sap_order;

/* One output of a recipe, one input of a network: always float32. */
typedef struct sap_feature {
    const char *name;               /* column name, for instance "hlf" */
    const char *const *value_names; /* (width) */
    int32_t width;                  /* numbers an event; for a sequence, numbers a row */
    bool sequence;                  /* a variable number of rows an event, stored as a flat list of width · rows */
    sap_scaling scaling;            /* how a training set is scaled */
    bool fit_before_split;          /* constants come from all selected events, not from the training part alone */
    sap_order order;                /* sequences: order of the rows in a training set */
    int32_t eta_index, phi_index;   /* which of the width are eta and phi, for `order` */
    int32_t pad_rows;               /* sequences: rows of the dense form, the rest being zero rows; 0: no dense form */
    bool pad_before_order;          /* the zero rows take part in the ordering */
} sap_feature;

/* ---- Arrow's C interfaces -------------------------------------------------------------------------------- */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif

/* The schema of a table with these columns (a struct, as Arrow has it). The caller releases `out`. */
SAP_API SAP_MUST_CHECK sap_status sap_schema_export(const sap_field *fields, int32_t count, struct ArrowSchema *out,
                                                    sap_error *err);

/* Moves the batch into an Arrow struct array: `batch` is empty afterwards, and its memory lives until `out` is
 * released. No value is copied but bools (packed) and validity. The batch must own its storage (not be a view). */
SAP_API SAP_MUST_CHECK sap_status sap_batch_export(sap_batch *batch, struct ArrowArray *out, sap_error *err);

#ifdef __cplusplus
}
#endif
#endif
