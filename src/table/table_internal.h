/* The inside of tables: how the columns of a tree make those of a table, schemas, and the fitting of what was read to what is wanted. */
#ifndef SAP_TABLE_INTERNAL_H
#define SAP_TABLE_INTERNAL_H

#include "../base/base_internal.h"
#include "../column/column_internal.h"
#include "../export/export_internal.h"
#include <sapwood/table.h>

/* ---- Outlines: a tree as a table --------------------------------------------------------------------------- */

typedef enum sap_outline_kind {
    SAP_OUTLINE_COLUMN,     /* a branch with values */
    SAP_OUTLINE_RECORD,     /* a split object */
    SAP_OUTLINE_COLLECTION, /* a split collection: the columns below are lists of the same lengths */
    SAP_OUTLINE_FILE,       /* the file's base name */
    SAP_OUTLINE_ENTRY       /* the entry's number */
} sap_outline_kind;

typedef struct sap_outline {
    sap_outline_kind kind;
    sap_field field;          /* as the table has it; of a collection the list */
    const sap_branch *branch; /* of a collection the one that counts */
    const sap_field *stored;  /* SAP_OUTLINE_COLUMN: what the branch holds; below a collection, what one item is */
    uint64_t stored_bytes;    /* of the branch; of others, of all below */
    struct sap_outline *children;
    int32_t count;
} sap_outline;

/* The whole tree as a record; with its entries' identity, if that is wanted. All memory is the arena's; the tree must live as long. */
SAP_MUST_CHECK sap_status sap_outline_make(sap_tree *tree, bool identity, sap_arena *arena, sap_outline *out,
                                           sap_error *err);
/* The child of that name, or NULL. */
const sap_outline *sap_outline_child(const sap_outline *outline, const char *name);
/* What stands at "a.b.c"; NULL: nothing. */
const sap_outline *sap_outline_find(const sap_outline *outline, const char *path);

/* ---- Schemas ----------------------------------------------------------------------------------------------- */

/* A copy, in the arena; false when memory is out. */
SAP_MUST_CHECK bool sap_field_copy(sap_arena *arena, const sap_field *field, sap_field *out);
/* What an Arrow schema of a struct says, in the arena. */
SAP_MUST_CHECK sap_status sap_schema_import(const struct ArrowSchema *schema, sap_arena *arena, sap_field *out,
                                            sap_error *err);
/* Whether values of type `from` can be had as `to`, and if not, where: the path of the field, for messages. Fields that `from` lacks are
 * well if `lenient`. */
SAP_MUST_CHECK bool sap_field_fits(const sap_field *from, const sap_field *to, bool lenient, sap_text *path);
/* Makes of `into` the smallest type that holds both. false: there is none, and `path` says where. */
SAP_MUST_CHECK bool sap_field_merge(sap_arena *arena, sap_field *into, const sap_field *other, sap_text *path,
                                    bool *out_of_memory);
/* The child of that name, or NULL. */
const sap_field *sap_field_child(const sap_field *field, const char *name);

/* The part of a record that the paths lead to, in its own order; one that leads nowhere is an error. Names and types stay those of `schema`. */
SAP_MUST_CHECK sap_status sap_schema_choose(sap_arena *arena, const sap_field *schema, const char *const *paths,
                                            size_t count, const char *where, sap_field *out, sap_error *err);

/* ---- Fitting: what was read, as it is wanted ----------------------------------------------------------------- */

/* A column or field that is wanted, and where it comes from. */
typedef struct sap_fit {
    const sap_field *wanted;
    enum {
        SAP_FIT_NULL,       /* the file lacks it */
        SAP_FIT_VALUES,     /* of a column that was read, or of a part of one */
        SAP_FIT_RECORD,     /* a split object: its fields come from columns of their own */
        SAP_FIT_COLLECTION, /* a split collection: one child, the record of an item */
        SAP_FIT_FILE,
        SAP_FIT_ENTRY
    } kind;
    const sap_outline *outline;
    int32_t
        column; /* SAP_FIT_VALUES: of those that are read; SAP_FIT_COLLECTION: the counter, when nothing else tells, else -1 */
    bool item; /* SAP_FIT_VALUES: the items of that column's lists */
    struct sap_fit *children;
    int32_t count;
} sap_fit;

/* The branches that are to be read. */
typedef struct sap_fit_columns {
    const sap_branch **branches;
    size_t count, capacity;
} sap_fit_columns;

/* Finds for `wanted`, a record, everything in the outline of a tree. columns->branches is malloc'ed. where: for messages. */
SAP_MUST_CHECK sap_status sap_fit_make(const sap_outline *outline, const sap_field *wanted, bool lenient,
                                       const char *where, sap_arena *arena, sap_fit *out, sap_fit_columns *columns,
                                       sap_error *err);
/* What was read of some entries. */
typedef struct sap_fit_input {
    const sap_column *const
        *columns; /* (columns->count) their memory must live as long as the storage, where what is made lies */
    int64_t length;
    const char *file; /* its base name: (file_length) bytes */
    size_t file_length;
    const int64_t *entries; /* (length) their numbers; NULL where no SAP_FIT_ENTRY is */
} sap_fit_input;

/* The wanted columns of a batch. */
SAP_MUST_CHECK sap_status sap_fit_run(const sap_fit *fit, const sap_fit_input *input, const char *where,
                                      struct sap_storage *storage, sap_column *out, sap_error *err);
/* One text over and over. */
SAP_MUST_CHECK sap_status sap_values_repeat(const sap_field *wanted, const char *text, size_t bytes, int64_t length,
                                            struct sap_storage *storage, sap_column *out, sap_error *err);
/* Values as another type that holds them. `out` has a name. */
SAP_MUST_CHECK sap_status sap_values_fit(const sap_column *from, const sap_field *wanted, const char *where,
                                         struct sap_storage *storage, sap_column *out, sap_error *err);
/* Alternative `tag` of a union: its value where it is the one, null elsewhere. */
SAP_MUST_CHECK sap_status sap_union_spread(const sap_column *from, int32_t tag, struct sap_storage *storage,
                                           sap_column *out, sap_error *err);
/* So many nulls. */
SAP_MUST_CHECK sap_status sap_values_null(const sap_field *wanted, int64_t length, struct sap_storage *storage,
                                          sap_column *out, sap_error *err);

#endif
