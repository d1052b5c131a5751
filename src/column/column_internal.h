/* Building batches: the storage that owns their buffers. */
#ifndef SAP_COLUMN_INTERNAL_H
#define SAP_COLUMN_INTERNAL_H

#include "../base/base_internal.h"
#include <sapwood/column.h>

/* An empty batch that owns storage and has `count` zeroed columns. */
SAP_MUST_CHECK sap_status sap_batch_init(sap_batch *batch, int32_t count, sap_error *err);

/* Memory of the batch's storage: aligned to 64 bytes, not zeroed, freed with the batch. NULL when there is none. May be
 * called from several threads at once. */
void *sap_storage_alloc(struct sap_storage *storage, size_t bytes);
/* Gives a malloc'ed block to the storage, which frees it with the batch; false (and not taken) when memory runs out. */
bool sap_storage_adopt(struct sap_storage *storage, void *block);
char *sap_storage_text(struct sap_storage *storage, const char *text);

/* The memory of many columns as one block. What they need is asked for twice in the same order: before the slab is open it is
 * counted, and NULL returned; then it is handed out, aligned to 64 bytes. Zeroed is empty. */
typedef struct sap_slab {
    uint8_t *data;
    size_t used, size;
} sap_slab;

void *sap_slab_take(sap_slab *slab, size_t bytes);
/* Takes what was counted from the storage; false when memory is out. */
SAP_MUST_CHECK bool sap_slab_open(sap_slab *slab, struct sap_storage *storage);

/* Makes a column, with its children, of the type of `field`: names, types and sizes set, buffers empty, lengths 0. */
SAP_MUST_CHECK sap_status sap_column_init(struct sap_storage *storage, const sap_field *field, sap_column *out,
                                          sap_error *err);

/* `out` becomes a view of entries [begin, begin + length) of a column: buffers are shared, and what children it needs of its own are
 * the storage's. */
SAP_MUST_CHECK sap_status sap_column_view(const sap_column *column, int64_t begin, int64_t length,
                                          struct sap_storage *storage, sap_column *out, sap_error *err);
/* Moves all memory of a batch, which is empty afterwards, into the storage: what pointed to it still does. */
void sap_storage_absorb(struct sap_storage *storage, sap_batch *batch);

/* `out` gets the concatenation of the batches (same columns, by position); their values are copied, offsets start at 0. */
SAP_MUST_CHECK sap_status sap_batch_join(const sap_batch *batches, size_t count, sap_batch *out, sap_error *err);

/* `out` gets the entries of the first `columns` columns for which keep[entry] is not 0, copied. */
SAP_MUST_CHECK sap_status sap_batch_take(const sap_batch *batch, int32_t columns, const uint8_t *keep, sap_batch *out,
                                         sap_error *err);

/* Something that gives batches until one is empty. */
typedef struct sap_batches {
    void *context;
    const sap_field *fields; /* (count); must live as long as the context */
    int32_t count;
    sap_status (*next)(void *context, sap_batch *out, sap_error *err);
    void (*close)(void *context);
} sap_batches;

/* Makes an Arrow stream of them, which closes the context when it is closed. */
SAP_MUST_CHECK sap_status sap_batches_export(const sap_batches *batches, struct ArrowArrayStream *out, sap_error *err);

/* Whether two types are the same, names apart. */
bool sap_field_same(const sap_field *a, const sap_field *b);

#endif
