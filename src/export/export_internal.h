/* The inside of export: conditions, and the formats that selections are written in. */
#ifndef SAP_EXPORT_INTERNAL_H
#define SAP_EXPORT_INTERNAL_H

#include "../base/base_internal.h"
#include "../column/column_internal.h"
#include <sapwood/export.h>

/* ---- Conditions ------------------------------------------------------------------------------------------ */

enum { SAP_CONDITION_BLOCK = 1024 }; /* entries that are looked at together */

typedef enum sap_operation {
    SAP_NODE_INT, /* a number without point or exponent */
    SAP_NODE_REAL,
    SAP_NODE_TEXT,
    SAP_NODE_COLUMN, /* one value an entry */
    SAP_NODE_ITEM,   /* NAME[index] */
    SAP_NODE_COUNT,  /* count(NAME) */
    SAP_NODE_NEGATE,
    SAP_NODE_ABS,
    SAP_NODE_ADD,
    SAP_NODE_SUBTRACT,
    SAP_NODE_MULTIPLY,
    SAP_NODE_DIVIDE,
    SAP_NODE_REMAINDER,
    SAP_NODE_LESS,
    SAP_NODE_LESS_EQUAL,
    SAP_NODE_GREATER,
    SAP_NODE_GREATER_EQUAL,
    SAP_NODE_EQUAL,
    SAP_NODE_NOT_EQUAL,
    SAP_NODE_NOT,
    SAP_NODE_AND,
    SAP_NODE_OR
} sap_operation;

/* What a node gives. */
typedef enum sap_value_type {
    SAP_VALUE_TRUTH,
    SAP_VALUE_INT,
    SAP_VALUE_UINT,
    SAP_VALUE_REAL,
    SAP_VALUE_TEXT
} sap_value_type;

typedef struct sap_text_view {
    const char *data;
    size_t length;
} sap_text_view;

typedef struct sap_condition_node {
    sap_operation operation;
    sap_value_type type; /* known once bound */
    struct sap_condition_node *left, *right;
    size_t at;       /* place in the text, for messages */
    size_t column;   /* of the condition's names; of the batch once bound */
    int64_t integer; /* SAP_NODE_INT, or the index of SAP_NODE_ITEM */
    double real;
    sap_text_view text;
    /* (SAP_CONDITION_BLOCK) what it gives for the entries of a block; truths are integers 0 and 1 */
    union {
        int64_t *integers;
        uint64_t *unsigneds;
        double *reals;
        sap_text_view *texts;
    } values;
    bool *present;
} sap_condition_node;

typedef struct sap_condition {
    const char *text;
    sap_condition_node *root;
    const char **names; /* of columns, each once */
    size_t name_count, name_capacity;
    sap_arena arena;
} sap_condition;

SAP_MUST_CHECK sap_status sap_condition_parse(const char *text, sap_condition **out, sap_error *err);
void sap_condition_close(sap_condition *condition);
/* Checks types. columns: (name_count) for each name the index of its column in batches. */
SAP_MUST_CHECK sap_status sap_condition_bind(sap_condition *condition, const sap_field *fields, const size_t *columns,
                                             sap_error *err);
/* keep: (batch->length) 1 where the condition holds, else 0. */
void sap_condition_run(sap_condition *condition, const sap_batch *batch, uint8_t *keep);

/* Value `i` of a column of integers or bools; the bits of one of SAP_UINT64. */
int64_t sap_integer_value(const sap_column *column, int64_t i);
/* An IEEE binary16. */
double sap_half_value(uint16_t bits);

/* ---- Formats ------------------------------------------------------------------------------------------------ */

typedef struct sap_format {
    const char *name, *ending;
    /* path: of the file, made anew. Refuses types that the format cannot hold. */
    sap_status (*create)(const char *path, const sap_field *fields, int32_t count, void **writer, sap_error *err);
    /* May take the batch, or leave it to the caller to release. */
    sap_status (*write)(void *writer, sap_batch *batch, sap_error *err);
    sap_status (*finish)(void *writer, sap_error *err);
    void (*close)(void *writer);
} sap_format;

extern const sap_format sap_format_parquet, sap_format_arrow, sap_format_csv, sap_format_npz;

#endif
