/* The inside of the RNTuple reader: schema, pages, the plan of a branch, and the decoding of pages. Section names (§) are
 * those of docs/format/rntuple.md. */
#ifndef SAP_NTUPLE_H
#define SAP_NTUPLE_H

#include "root_internal.h"

/* ---- Envelopes (§ Anchor, § Envelope) ---------------------------------------------------------------------- */

typedef enum sap_envelope_kind {
    SAP_ENVELOPE_HEADER = 1,
    SAP_ENVELOPE_FOOTER = 2,
    SAP_ENVELOPE_PAGE_LIST = 3
} sap_envelope_kind;

/* Where an envelope or a page is. */
typedef struct sap_locator {
    uint64_t offset, bytes; /* bytes: as stored */
} sap_locator;

/* An envelope in memory. */
typedef struct sap_envelope {
    uint8_t *data; /* malloc'ed */
    size_t length;
    uint64_t checksum;
} sap_envelope;

/* Reads `bytes` at `offset` as stored; what is longer than max_key_bytes (0: no limit) stands in several records. */
SAP_MUST_CHECK sap_status sap_payload_read(const sap_file *file, uint64_t max_key_bytes, sap_locator at, uint8_t *out,
                                           const char *where, sap_error *err);
/* Reads, decompresses and checks an envelope of `length` bytes. */
SAP_MUST_CHECK sap_status sap_envelope_load(const sap_file *file, uint64_t max_key_bytes, sap_envelope_kind kind,
                                            sap_locator at, uint64_t length, const char *where, sap_envelope *out,
                                            sap_error *err);
/* A cursor over the payload: behind the envelope's own header, before its checksum. */
sap_cursor sap_envelope_cursor(const sap_envelope *envelope);

/* § Frame. The cursor passes over the frame; what is returned holds its payload. Another kind of frame: both fail. */
sap_cursor sap_ntuple_record(sap_cursor *c);
sap_cursor sap_ntuple_list(sap_cursor *c, size_t item_least, size_t *count);
/* § Locator */
sap_locator sap_locator_parse(sap_cursor *c);
/* A text of the arena (NULL: not wanted), "" when there is none. */
const char *sap_ntuple_text(sap_cursor *c, sap_arena *arena);
/* § Feature flags: SAP_EUNSUPPORTED when one is set. */
SAP_MUST_CHECK sap_status sap_features_check(sap_cursor *c, const char *where, sap_error *err);

/* ---- Schema (§ Field, § Column) ------------------------------------------------------------------------------ */

typedef enum sap_field_role {
    SAP_ROLE_LEAF = 0,
    SAP_ROLE_COLLECTION = 1,
    SAP_ROLE_RECORD = 2,
    SAP_ROLE_VARIANT = 3,
    SAP_ROLE_STREAMER = 4
} sap_field_role;

enum { SAP_NOWHERE = UINT32_MAX };

/* Fields and columns refer to each other by index, SAP_NOWHERE meaning none. */
typedef struct sap_ntuple_field {
    const char *name, *type_name;
    uint32_t type_version, checksum;
    uint16_t role;
    uint32_t parent; /* itself: a top-level field */
    bool repetitive, projected;
    uint64_t repeats; /* when repetitive */
    uint32_t first_child, last_child, next_sibling;
    uint32_t first_link, last_link;
} sap_ntuple_field;

/* A column of a field: its own, or one that it borrows as a projected field. */
typedef struct sap_ntuple_link {
    uint32_t column, next;
} sap_ntuple_link;

typedef struct sap_ntuple_column {
    uint16_t type, bits, representation;
    bool deferred;
    double minimum, maximum; /* Real32Quant */
} sap_ntuple_column;

typedef struct sap_ntuple_infos {
    const uint8_t *data; /* a TList of TStreamerInfo; in the arena */
    size_t length;
    struct sap_ntuple_infos *next;
} sap_ntuple_infos;

typedef struct sap_ntuple_schema {
    sap_ntuple_field *fields;
    sap_ntuple_column *columns;
    sap_ntuple_link *links;
    size_t field_count, field_capacity, column_count, column_capacity, link_count, link_capacity;
    sap_ntuple_infos *infos; /* serialised streamer info of streamed fields, the last found first */
} sap_ntuple_schema;

/* Adds what the four lists of a schema description hold; those of the footer go on where those of the header end. */
SAP_MUST_CHECK sap_status sap_schema_parse(sap_ntuple_schema *schema, sap_cursor *c, sap_arena *arena,
                                           const char *where, sap_error *err);
void sap_schema_release(sap_ntuple_schema *schema);

/* ---- Columns in memory (§ Column types) ------------------------------------------------------------------------- */

typedef enum sap_encoding {
    SAP_ENCODING_UNKNOWN,
    SAP_ENCODING_BITS,
    SAP_ENCODING_PLAIN,
    SAP_ENCODING_SPLIT,
    SAP_ENCODING_ZIGZAG, /* and split */
    SAP_ENCODING_INDEX,
    SAP_ENCODING_DELTA, /* an index, delta and split */
    SAP_ENCODING_SWITCH,
    SAP_ENCODING_TRUNCATED,
    SAP_ENCODING_QUANTIZED
} sap_encoding;

typedef struct sap_column_type {
    const char *name;
    sap_encoding encoding;
    uint8_t least_bits, most_bits;
    sap_type type; /* of the values; SAP_TYPE_NONE for indices and switches */
    uint8_t size;  /* bytes of a decoded value: indices are 8, switches 12 */
} sap_column_type;

/* NULL: not known. */
const sap_column_type *sap_column_type_get(uint16_t type);

/* Uncompressed bytes of a page. */
static inline uint64_t sap_page_bytes(const sap_ntuple_column *column, uint64_t elements) {
    return (elements * column->bits + 7) / 8;
}

/* The decoded values [begin, begin + n) of a page of `elements` into `out`. Indices stored as differences: begin is 0. */
void sap_page_decode(const sap_ntuple_column *column, const uint8_t *page, size_t elements, size_t begin, size_t n,
                     void *out);
/* A page of n > 0 indices, stored as differences of so many bits. out[i]: index i less the first. False when they do not rise,
 * span 2^31 or more, or reach 2^63, or 2^32 in 32 bits. */
bool sap_deltas_sum(const uint8_t *page, size_t n, size_t bits, uint64_t *first, int32_t *out);
/* n numbers of one floating-point type to a wider one. */
void sap_floats_widen(sap_type from, const void *values, size_t n, sap_type to, void *out);

/* ---- The tree ---------------------------------------------------------------------------------------------------- */

typedef struct sap_page {
    sap_locator at;
    uint64_t first; /* element of the cluster */
    uint32_t elements;
    bool checked; /* a checksum stands behind it */
} sap_page;

/* What one cluster holds of a series. */
typedef struct sap_pages {
    const sap_ntuple_column *column; /* the representation that is used there; NULL: no pages */
    const sap_page *pages;
    size_t count;
    uint64_t elements;
} sap_pages;

/* A column of values, whatever the representations it is stored in. */
typedef struct sap_series {
    uint32_t first_column; /* of the first representation: its identity */
    sap_type type;
    uint8_t size;    /* bytes of a decoded value */
    bool deferred;   /* it was added late: before its first pages all values are 0 */
    sap_pages *runs; /* one a cluster */
} sap_series;

typedef enum sap_node_kind {
    SAP_NODE_NUMBER,
    SAP_NODE_STRING,
    SAP_NODE_LIST,
    SAP_NODE_OPTIONAL,
    SAP_NODE_COUNT, /* items of a list */
    SAP_NODE_RECORD,
    SAP_NODE_ARRAY,
    SAP_NODE_UNION,
    SAP_NODE_STREAMED /* serialised objects */
} sap_node_kind;

/* How a field becomes a column. */
typedef struct sap_node {
    sap_node_kind kind;
    sap_series *series;   /* NULL: records and arrays */
    uint64_t repeats;     /* arrays */
    sap_program *program; /* SAP_NODE_STREAMED */
    sap_field field;
    struct sap_node *children;
    size_t child_count;
} sap_node;

typedef struct sap_ntuple_branch {
    sap_branch public;
    uint32_t id; /* of its field */
    bool compiled;
    sap_node node;
} sap_ntuple_branch;

typedef struct sap_cluster {
    uint64_t first_entry, entries;
    const uint8_t **frames; /* (frame_count) of each column's page list, inside the page list envelope */
    size_t frame_count;
    uint32_t envelope; /* which page list envelope */
} sap_cluster;

typedef struct sap_ntuple {
    sap_tree tree;
    uint64_t max_key_bytes;
    uint64_t header_checksum;
    sap_ntuple_schema schema;
    sap_file described; /* nothing but classes: those of the RNTuple's own streamer info and of the file's */
    bool described_read;
    sap_envelope *page_lists;
    size_t page_list_count, page_list_capacity;
    uint64_t page_list_bytes;
    sap_cluster *clusters;
    size_t cluster_count, cluster_capacity;
} sap_ntuple;

/* More bytes than this for one that is stored make a file doubtful. */
enum { SAP_LIKELY_RATIO = 1024 };

extern const sap_tree_kind sap_ntuple_kind;

/* Makes the node of a field, with the pages of its columns. reason: why it cannot be read, when the node's field has no type. */
SAP_MUST_CHECK sap_status sap_node_make(sap_ntuple *ntuple, uint32_t field, sap_node *out, const char **reason,
                                        sap_error *err);

/* ---- Scans ---------------------------------------------------------------------------------------------------------- */

/* Values [from, to) of a series in one cluster, and the row of the batch where the first goes. */
typedef struct sap_part {
    uint64_t from, to;
    uint64_t total; /* values that the cluster must have in all; SAP_TOTAL_UNKNOWN inside collections */
    int64_t at;
} sap_part;

#define SAP_TOTAL_UNKNOWN UINT64_MAX

/* A page of which a later batch needs the rest. */
typedef struct sap_held_page {
    const sap_page *page;   /* NULL: none */
    uint64_t batch;         /* the last that used it */
    const uint8_t *bytes;   /* uncompressed, in the memory or in the mapped file; of indices: the decoded values … */
    const int32_t *offsets; /* … or, if not NULL, these less the first */
    uint64_t first;
    sap_space memory;
} sap_held_page;

/* A node of a branch that is scanned, with its state in the batch in the making. */
typedef struct sap_scan_node {
    const sap_node *node;
    struct sap_scan_node *children;     /* (node->child_count) */
    struct sap_scan_node *same;         /* another with the same index, whose offsets serve both */
    const struct sap_scan_node *domain; /* the collection that the values are items of; NULL: entries */
    const char *where;
    bool bytes; /* of a string, whose column it fills, or of serialised objects, and then it has none */

    sap_part *parts; /* (clusters of the batch) */
    sap_part *items; /* the same for what a collection holds */
    size_t part_capacity;
    int64_t length;
    sap_column *column;
    void *values;              /* numbers, tags */
    int32_t *offsets;          /* (length + 1); unions: (length) */
    size_t piece, piece_count; /* in the level's table */
    sap_held_page held[2];
} sap_scan_node;

/* Some values of one page, or zeros of a column that was added late. */
typedef struct sap_page_piece {
    sap_scan_node *node;
    const sap_ntuple_column *column;
    const sap_page *page; /* NULL: zeros */
    uint64_t begin, end;  /* of the page's elements */
    size_t part;
    int64_t at; /* index of the first in the node's values or offsets */
    sap_held_page *held;
    const uint8_t *fetched;
    uint64_t first, last; /* of indices: their values; offsets are counted from the first */
    int32_t shift;        /* what is to be added to the offsets */
} sap_page_piece;

/* Puts a piece's values into its node's values or offsets. */
SAP_MUST_CHECK sap_status sap_page_piece_decode(const sap_ntuple *ntuple, sap_page_piece *piece, sap_scratch *scratch,
                                                sap_error *err);

/* Whether the page of the piece is there, whole. */
SAP_MUST_CHECK sap_status sap_page_piece_check(const sap_ntuple *ntuple, const sap_page_piece *piece,
                                               sap_scratch *scratch, sap_error *err);

/* Once the pieces of an index are decoded: what is to be added to their offsets, and the parts of the items. */
SAP_MUST_CHECK sap_status sap_index_finish(sap_scan_node *node, sap_page_piece *pieces, size_t part_count,
                                           sap_error *err);
/* The same for the switch of a union. */
SAP_MUST_CHECK sap_status sap_union_finish(sap_scan_node *node, size_t part_count, sap_error *err);
/* When all below it is there: counts, optional values, serialised objects; children first. */
SAP_MUST_CHECK sap_status sap_scan_node_finish(sap_scan_node *node, struct sap_storage *storage, sap_error *err);

/* ---- Fetching ahead, from remote files ----------------------------------------------------------------------------- */

/* Whether the page, with its checksum, stands in one piece in the file. */
static inline bool sap_page_is_whole(const sap_ntuple *n, const sap_page *page) {
    uint64_t size = n->tree.file->size, length = page->at.bytes + sizeof(uint64_t);
    bool inside = page->at.offset <= size && length <= size - page->at.offset;
    return inside && (!n->max_key_bytes || length <= n->max_key_bytes);
}

/* Pages that are under way, or have arrived. Zeroed is empty. */
typedef struct sap_ahead {
    int64_t begin, end; /* the entries they are for */
    sap_fetch *fetch;
    bool arrived;
    const sap_page **pages; /* (count) by their place in the file; malloc'ed */
    size_t count;
} sap_ahead;

/* Starts the fetch of what entries [begin, end) need but `before`, the fetch for the entries before them (or NULL), has. */
SAP_MUST_CHECK sap_status sap_ahead_start(sap_ahead *ahead, const sap_ntuple *ntuple, const sap_scan_node *tops,
                                          size_t count, int64_t begin, int64_t end, const sap_ahead *before,
                                          sap_error *err);
/* The same for given pages; takes the table of them over in any case. */
SAP_MUST_CHECK sap_status sap_ahead_fetch(sap_ahead *ahead, const sap_ntuple *ntuple, const sap_page **pages,
                                          size_t count, sap_error *err);
SAP_MUST_CHECK sap_status sap_ahead_wait(sap_ahead *ahead, const sap_run *run, sap_error *err);
/* The stored bytes of a page, NULL when they are not here. Borrowed until it is released. */
const uint8_t *sap_ahead_find(const sap_ahead *ahead, const sap_page *page);
void sap_ahead_release(sap_ahead *ahead);

/* ---- Scans, as a whole ------------------------------------------------------------------------------------------------ */

/* Index of the first cluster that ends behind the entry. */
size_t sap_cluster_of(const sap_ntuple *ntuple, uint64_t entry);

/* Room for a batch's parts. */
SAP_MUST_CHECK bool sap_parts_reserve(sap_scan_node *node, size_t part_count);

SAP_MUST_CHECK sap_status sap_ntuple_scan_open(sap_tree *tree, const size_t *branches, size_t count, const sap_run *run,
                                               void **out, sap_error *err);
void sap_ntuple_scan_close(void *context);
int64_t sap_ntuple_scan_boundary(void *context, int64_t begin, int64_t end);
SAP_MUST_CHECK sap_status sap_ntuple_scan_prefetch(void *context, int64_t begin, int64_t end, sap_error *err);
SAP_MUST_CHECK sap_status sap_ntuple_scan_read(void *context, int64_t begin, int64_t end, struct sap_storage *storage,
                                               sap_column *columns, sap_error *err);

#endif
