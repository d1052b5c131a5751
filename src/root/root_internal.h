/* The inside of the reader: file and keys, objects of the metadata, streamer info, branches, the read program that a
 * branch is compiled to, and baskets. Section names (§) are those of docs/format/ttree.md. */
#ifndef SAP_ROOT_INTERNAL_H
#define SAP_ROOT_INTERNAL_H

#include "../base/cursor.h"
#include "../column/column_internal.h"
#include <sapwood/access.h>
#include <sapwood/root.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* ---- Codecs (§ Compression) ---------------------------------------------------------------------------- */

/* What decompression needs; one a thread at a time. Zeroed is empty: each library's part is made on first use. */
typedef struct sap_codec {
    void *deflate, *zstd;
    bool verified; /* a checksum of the stored bytes was right: those of their blocks are not looked at */
} sap_codec;

void sap_codec_release(sap_codec *codec);

/* Decompresses a record's payload, blocks one after another, into exactly `size` bytes.
 * where, offset: for messages; the offset is that of `data` in its file. */
SAP_MUST_CHECK sap_status sap_codec_run(sap_codec *codec, const uint8_t *data, size_t length, uint8_t *out, size_t size,
                                        const char *where, uint64_t offset, sap_error *err);
/* Checks that the blocks' headers promise `size` bytes, and not more than their codecs can make of so few: done before memory
 * for them is taken. Above 32 MB promises are not enough, and the blocks are decompressed to see whether they keep them. */
SAP_MUST_CHECK sap_status sap_codec_check(const uint8_t *data, size_t length, size_t size, const char *where,
                                          uint64_t offset, sap_error *err);
/* "zlib", "lzma", … of a payload's first block. Static. */
const char *sap_codec_name(const uint8_t *data, size_t length);

/* ---- Files (§ File, § Key) ------------------------------------------------------------------------------ */

/* The header of a record. */
typedef struct sap_record {
    uint64_t offset;
    uint64_t parent;       /* of the directory that it is in */
    uint32_t bytes;        /* whole record, header and all */
    uint32_t object_bytes; /* uncompressed */
    uint16_t version, header_bytes, cycle;
    const char *class_name, *name, *title; /* in the arena given to the parser; NULL when it was NULL */
} sap_record;

struct sap_class;

struct sap_file {
    sap_source *source;
    const sap_run *opening; /* while it is opened: the run of that call */
    const char *name;
    sap_arena arena;
    uint64_t size;
    int version;
    bool wide; /* 64-bit seeks */
    int32_t compress;
    const char *compression;
    uint64_t begin, end; /* of the records, as its header says */
    const char *note;
    uint64_t info_offset;
    uint32_t info_bytes;
    sap_key *keys;
    size_t key_count, key_capacity;
    uint64_t keys_bytes; /* of the lists of keys read so far */

    struct { /* by any thread */
        atomic_uint_fast64_t baskets, stored_bytes, bytes, nanoseconds;
    } unpacked;

    /* Streamer info, read at the first need. */
    pthread_mutex_t lock;
    bool classes_read;
    sap_arena class_arena;
    struct sap_class *classes;
    size_t class_count, class_capacity;
    uint32_t *class_table; /* open hash by name: index + 1 of the first class of that name, 0: empty */
    size_t class_table_size;
};

/* sap_codec_run for a basket or page, which is counted. */
SAP_MUST_CHECK sap_status sap_file_unpack(const sap_file *file, sap_codec *codec, const uint8_t *data, size_t length,
                                          uint8_t *out, size_t size, const char *where, uint64_t offset,
                                          sap_error *err);
/* Counts one that is not compressed. */
void sap_file_count(const sap_file *file, size_t stored_bytes, size_t bytes);

/* The key "dir/name" or "dir/name;cycle", of the highest cycle when none is given; NULL, with the nearest names in `err`. */
const sap_key *sap_key_find(const sap_file *file, const char *path, sap_error *err);

/* Parses a record's header; `arena` may be NULL when its texts are not wanted. */
void sap_record_parse(sap_cursor *c, sap_arena *arena, sap_record *out);

/* Reads and decompresses the record at `offset`. `*out` is malloc'ed and holds the object without
 * the record's header. where: for messages. */
SAP_MUST_CHECK sap_status sap_record_load(const sap_file *file, uint64_t offset, uint64_t bytes, const char *where,
                                          sap_record *record, uint8_t **out, sap_error *err);

SAP_MUST_CHECK sap_status sap_file_add_key(sap_file *file, const sap_record *record, const char *prefix,
                                           sap_error *err);
/* Fills the keys from the records themselves, and the note. */
SAP_MUST_CHECK sap_status sap_file_recover(sap_file *file, sap_error *err);

/* ---- Objects of the metadata (§ Object) ------------------------------------------------------------------ */

enum { SAP_BYTE_COUNT_BIT = 0x40000000, SAP_MEMBERWISE_BIT = 0x4000 };

/* An object or class that was met before, for references to it. */
typedef struct sap_reference {
    uint64_t position; /* its tag; positions rise */
    const char *class_name;
    void *object; /* NULL for a class, or for an object of no interest */
} sap_reference;

/* Objects one after another, as ROOT streams them. */
typedef struct sap_stream {
    sap_cursor c;
    sap_file *file;
    sap_arena *arena;
    uint64_t origin; /* key length: references count from the start of the key */
    sap_reference *references;
    size_t reference_count, reference_capacity;
    int depth;
    size_t parts; /* objects and items read so far */
    bool (*part)(struct sap_stream *s, const char *class_name,
                 void **object); /* sap_members_read: objects pointed to */
    const char *where;
    char problem[200]; /* what is wrong, when it is not shortness */
} sap_stream;

void sap_stream_release(sap_stream *s);
/* Marks the stream as failed because of something else than shortness. Returns false. */
bool sap_stream_fail(sap_stream *s, const char *format, ...) SAP_PRINTF(2, 3);
/* One more part; false, and failed, when there are more than bytes. */
bool sap_stream_count(sap_stream *s);
SAP_MUST_CHECK sap_status sap_stream_check(const sap_stream *s, const char *what, sap_error *err);

/* Byte count and version before an object. */
typedef struct sap_frame {
    size_t end;       /* position behind the object; SIZE_MAX: not known */
    uint16_t version; /* without the member-wise bit */
    bool memberwise;
    uint32_t checksum; /* when version is 0 */
} sap_frame;

sap_frame sap_frame_read(sap_cursor *c);
/* Goes to the end of the object, when it is known. */
void sap_frame_leave(sap_cursor *c, const sap_frame *frame);

const char *sap_stream_text(sap_stream *s); /* a TString */
uint32_t sap_stream_tobject(sap_cursor *c); /* its unique id */
/* TNamed. name, title: may be NULL. */
void sap_stream_named(sap_stream *s, const char **name, const char **title);

/* A list of objects (TObjArray, TList); items of no interest are NULL. */
typedef struct sap_objects {
    struct sap_object {
        const char *class_name;
        void *object;
        const char *option; /* TList */
    } * items;
    size_t count;
} sap_objects;

/* Reads the inside of an object of that class into arena memory and returns it in `*object`; false: not interested, it is
 * passed over. */
typedef bool (*sap_object_reader)(sap_stream *s, const char *class_name, void **object);

/* A pointer to an object: null, one met before, or a new one. */
void *sap_stream_object(sap_stream *s, sap_object_reader reader, const char **class_name);
void sap_stream_objarray(sap_stream *s, sap_object_reader reader, sap_objects *out);
void sap_stream_list(sap_stream *s, sap_object_reader reader, sap_objects *out);

/* ---- Streamer info (§ Streamer info) ---------------------------------------------------------------------- */

/* fType of elements and branches; arrays add OFFSET_L, pointers with a counter OFFSET_P. */
enum {
    SAP_KIND_BASE = 0,
    SAP_KIND_CHAR = 1,
    SAP_KIND_SHORT = 2,
    SAP_KIND_INT = 3,
    SAP_KIND_LONG = 4,
    SAP_KIND_FLOAT = 5,
    SAP_KIND_COUNTER = 6,
    SAP_KIND_CHARSTAR = 7,
    SAP_KIND_DOUBLE = 8,
    SAP_KIND_DOUBLE32 = 9,
    SAP_KIND_LEGACY_CHAR = 10,
    SAP_KIND_UCHAR = 11,
    SAP_KIND_USHORT = 12,
    SAP_KIND_UINT = 13,
    SAP_KIND_ULONG = 14,
    SAP_KIND_BITS = 15,
    SAP_KIND_LONG64 = 16,
    SAP_KIND_ULONG64 = 17,
    SAP_KIND_BOOL = 18,
    SAP_KIND_FLOAT16 = 19,
    SAP_KIND_OFFSET_L = 20,
    SAP_KIND_OFFSET_P = 40,
    SAP_KIND_OBJECT = 61,        /* a TObject inside */
    SAP_KIND_ANY = 62,           /* another class inside */
    SAP_KIND_OBJECT_INLINE = 63, /* pointer, never null: the object follows */
    SAP_KIND_OBJECT_POINTER = 64,
    SAP_KIND_TSTRING = 65,
    SAP_KIND_TOBJECT = 66,
    SAP_KIND_TNAMED = 67,
    SAP_KIND_ANY_INLINE = 68,
    SAP_KIND_ANY_POINTER = 69,
    SAP_KIND_STL_POINTER = 71,
    SAP_KIND_STL = 300,
    SAP_KIND_STL_STRING = 365,
    SAP_KIND_STREAMER = 500,
    SAP_KIND_STREAM_LOOP = 501
};

/* Bytes of a basic kind as stored, 0 when it is none (Double32_t and Float16_t among them). */
size_t sap_kind_size(int kind);

typedef struct sap_element {
    const char *name, *title, *type_name;
    int kind;       /* fType */
    int32_t length; /* items of a fixed array, 0: no array */
    int32_t dims[5];
    int dim_count;
    const char *count_name; /* counted pointers */
    int base_version;
    uint32_t base_checksum;
} sap_element;

typedef struct sap_class {
    const char *name;
    int version;
    uint32_t checksum;
    sap_element *elements;
    size_t count;
    uint32_t next; /* index + 1 of the next class of that name */
} sap_class;

/* Reads the file's streamer info if that was not done yet. */
SAP_MUST_CHECK sap_status sap_classes_read(sap_file *file, sap_error *err);
/* Adds what a serialised TList of streamer info describes. No other thread may use the file meanwhile. */
SAP_MUST_CHECK sap_status sap_classes_add(sap_file *file, const uint8_t *data, size_t length, const char *where,
                                          sap_error *err);
/* version < 0: the newest. checksum: used when version is 0 or not there. NULL: not described. */
const sap_class *sap_class_find(const sap_file *file, const char *name, int version, uint32_t checksum);
/* One version of a class after another; NULL: no more. after NULL: the first. */
const sap_class *sap_class_version(const sap_file *file, const char *name, const sap_class *after);
bool sap_class_is(const sap_file *file, const char *name, const char *base);
/* The class itself, or the nearest of its bases, that `other` is or derives from; NULL: none. */
const char *sap_class_common(const sap_file *file, const char *name, const char *other);
/* Classes of ROOT's own that files do not always describe; NULL: none of them. */
const sap_class *sap_class_known(const char *name);

/* ---- Members by name -------------------------------------------------------------------------------------------- */

typedef enum sap_member_kind {
    SAP_MEMBER_INT,    /* int64_t */
    SAP_MEMBER_REAL,   /* double */
    SAP_MEMBER_INTS,   /* int64_t * */
    SAP_MEMBER_REALS,  /* double * */
    SAP_MEMBER_TEXT,   /* const char * */
    SAP_MEMBER_LIST,   /* sap_objects: a TObjArray */
    SAP_MEMBER_OBJECT, /* void *: what it points to, or NULL */
    SAP_MEMBER_INSIDE, /* a struct with members of its own: an object of a class */
    SAP_MEMBER_IO      /* int64_t: the byte of a TIOFeatures */
} sap_member_kind;

/* A member that is wanted, and where it goes. */
typedef struct sap_member {
    const char *name; /* NULL: the last; a base that is a TArray is called "fArray" */
    sap_member_kind kind;
    size_t offset, count_offset;     /* of int64_t count_offset: how many, for _INTS and _REALS */
    const char *class_name;          /* _OBJECT: what the name of its class begins with */
    const struct sap_member *inside; /* _INSIDE */
    sap_object_reader reader;        /* _OBJECT: reads it; NULL: s->part */
} sap_member;

/* Rows of such a table: a field of a struct; for numbers with the field that gets their count. */
#define SAP_MEMBER(root_name, its_kind, type, field, ...)                                                              \
    { .name = root_name, .kind = its_kind, .offset = offsetof(type, field), __VA_ARGS__ }
#define SAP_MEMBERS(root_name, its_kind, type, field, count_field)                                                     \
    SAP_MEMBER(root_name, its_kind, type, field, .count_offset = offsetof(type, count_field))

/* Reads an object by its streamer info, down its base classes, and keeps what `table` wants; objects that it points to are read
 * by s->part. Memory comes from the stream's arena. */
bool sap_members_read(sap_stream *s, const char *class_name, const sap_member *table, void *out);

/* ---- Branches (§ Tree) ------------------------------------------------------------------------------------ */

typedef struct sap_basket {
    uint64_t offset; /* in the file; 0: embedded */
    uint32_t bytes;  /* stored */
    int64_t first_entry;
    const struct sap_embedded *embedded;
} sap_basket;

/* A basket inside the record of the tree; always uncompressed. */
typedef struct sap_embedded {
    int32_t entries;
    uint32_t data_bytes;
    const uint8_t *data;    /* of the entries; lives in the tree's record */
    const uint8_t *offsets; /* (entries) big-endian int32, from the start of the key; or NULL */
    uint32_t header_bytes;
    bool generated;
} sap_embedded;

typedef struct sap_leaf {
    const char *class_name, *name, *title;
    int64_t length, bytes; /* fLen, fLenType */
    int64_t is_unsigned;
    int64_t kind; /* TLeafElement: fType */
    struct sap_leaf *counter;
    struct sap_branch_node *branch;
} sap_leaf;

typedef struct sap_branch_node {
    sap_branch public;      /* what sap_tree_branch gives */
    const char *class_name; /* of the branch object: "TBranchElement", … */
    const char *name, *title;
    const char *object_class; /* fClassName: class that holds the element, or class of the whole object */
    const char *parent_class;
    const char *file_name;
    int64_t checksum, class_version, id, type;
    int64_t entries; /* of its own: a damaged tree may have more or fewer */
    int64_t write_basket;
    int64_t total_bytes, zip_bytes;
    int64_t io_bits;
    sap_objects branches, leaves, embedded;
    sap_objects *friends; /* of a tree */
    int64_t *basket_bytes, *basket_entry, *basket_seek;
    int64_t basket_bytes_count, basket_entry_count, basket_seek_count;
    struct sap_branch_node *count_branch, *parent;

    sap_basket *baskets;
    size_t basket_count;
    bool compiled;
    struct sap_program *program;
} sap_branch_node;

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

/* What a TTree or an RNTuple does in its own way. A scan gives columns in batches of entries that rise; it belongs to one
 * reader. */
typedef struct sap_tree_kind {
    void (*close)(sap_tree *tree); /* frees what is the kind's own */
    /* Fills `field` or `reason` of a branch; under the tree's lock, may be called again. */
    sap_status (*compile)(sap_tree *tree, size_t index, sap_error *err);
    void (*clusters)(sap_tree *tree); /* fills clusters, malloc'ed; under the tree's lock */
    /* Codec of the first basket or page of a branch (static), NULL if it has none. May read. */
    const char *(*codec)(sap_tree *tree, size_t index);
    int64_t (*entries)(const sap_branch *branch); /* of its own; NULL: all have the tree's */
    sap_status (*scan_open)(sap_tree *tree, const size_t *branches, size_t count, const sap_run *run, void **scan,
                            sap_error *err);
    void (*scan_close)(void *scan);
    /* An entry in (begin, end] where a batch better ends, such as the end of a cluster; else `end`. */
    int64_t (*scan_boundary)(void *scan, int64_t begin, int64_t end);
    /* Starts the reading of what entries [begin, end) need; scan_read of the same entries then finds it. For remote files,
     * at most two ranges ahead. */
    sap_status (*scan_prefetch)(void *scan, int64_t begin, int64_t end, sap_error *err);
    /* Fills columns (one a branch) for entries [begin, end), inside the storage's memory. */
    sap_status (*scan_read)(void *scan, int64_t begin, int64_t end, struct sap_storage *storage, sap_column *columns,
                            sap_error *err);
} sap_tree_kind;

/* The common part, with which each kind's own begins. */
struct sap_tree {
    const sap_tree_kind *kind;
    sap_file *file;
    sap_arena arena;
    const char *path;
    const char *where; /* "file:path" */
    int64_t entries;
    sap_branch **branches; /* all, in order of the tree of branches; the kind's own of each begins with it */
    size_t branch_count, branch_capacity;
    uint32_t *name_table; /* open hash of their names: index + 1 */
    size_t name_table_size;
    int64_t *clusters; /* first entry of each, at first need */
    size_t cluster_count;
    struct sap_friend *friends;
    size_t friend_count, friend_capacity;
    pthread_mutex_t lock;
};

SAP_MUST_CHECK sap_status sap_tree_init(sap_tree *tree, const sap_tree_kind *kind, sap_file *file, const char *path,
                                        sap_error *err);
/* Makes names unique, once all branches are there with `name` (their own) and `path`: a name that two branches have is no
 * name, both take their paths. Where those are the same too, the later ones are numbered: "x", "x#2". */
SAP_MUST_CHECK sap_status sap_tree_name_branches(sap_tree *tree, sap_error *err);
/* A branch by name, of the tree or of a friend of it. */
SAP_MUST_CHECK sap_status sap_tree_locate(const sap_tree *tree, const char *name, const sap_tree **owner, size_t *index,
                                          sap_error *err);

/* Whether the tree itself has a branch of that name. */
bool sap_tree_has(const sap_tree *tree, const char *name, size_t *index);

/* A tree that is read beside another, entry by entry. */
typedef struct sap_friend {
    const char *alias, *url, *tree_path; /* in the tree's arena; url NULL: in the same file */
    sap_file *file;                      /* its own, or NULL */
    sap_tree *tree;                      /* once it is open */
    bool borrowed;                       /* the caller's */
    bool failed;
} sap_friend;

/* Notes a friend that the tree itself names; it is opened at the first need. */
SAP_MUST_CHECK sap_status sap_friends_note(sap_tree *tree, const char *alias, const char *url, const char *tree_path,
                                           sap_error *err);
/* Whether a friend has that column: "alias.column", or its plain name. */
bool sap_friends_locate(const sap_tree *tree, const char *name, const sap_tree **owner, size_t *index);
void sap_friends_close(sap_tree *tree);

extern const sap_tree_kind sap_ttree_kind;
SAP_MUST_CHECK sap_status sap_ttree_open(sap_file *file, const sap_key *key, sap_tree **out, sap_error *err);
SAP_MUST_CHECK sap_status sap_ntuple_open(sap_file *file, const sap_key *key, sap_tree **out, sap_error *err);

/* ---- Chains ----------------------------------------------------------------------------------------------------- */

/* What a reader over several files is: see sap_reader_open_files. */
typedef struct sap_chain sap_chain;
SAP_MUST_CHECK sap_status sap_chain_open(const char *const *urls, size_t count, const char *path,
                                         const sap_reader_options *options, const sap_run *run, sap_chain **out,
                                         sap_error *err);
void sap_chain_close(sap_chain *chain);
const sap_field *sap_chain_fields(const sap_chain *chain, int32_t *count);
const char *sap_chain_file(const sap_chain *chain, int64_t *first);
SAP_MUST_CHECK sap_status sap_chain_next(sap_chain *chain, sap_batch *out, sap_error *err);

/* ---- TTree ------------------------------------------------------------------------------------------------------ */

typedef struct sap_ttree {
    sap_tree tree;
    uint8_t *record; /* decompressed: embedded baskets point into it */
} sap_ttree;

SAP_MUST_CHECK sap_status sap_ttree_scan_open(sap_tree *tree, const size_t *branches, size_t count, const sap_run *run,
                                              void **scan, sap_error *err);
void sap_ttree_scan_close(void *scan);
int64_t sap_ttree_scan_boundary(void *scan, int64_t begin, int64_t end);
SAP_MUST_CHECK sap_status sap_ttree_scan_prefetch(void *scan, int64_t begin, int64_t end, sap_error *err);
SAP_MUST_CHECK sap_status sap_ttree_scan_read(void *scan, int64_t begin, int64_t end, struct sap_storage *storage,
                                              sap_column *columns, sap_error *err);

/* Index of the basket that holds the entry, 0 when none does. */
static inline size_t sap_basket_of(const sap_branch_node *b, int64_t entry) {
    size_t low = 0, high = b->basket_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (b->baskets[middle].first_entry <= entry)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The node of a public branch. */
static inline sap_branch_node *sap_branch_inside(const sap_branch *branch) {
    return (sap_branch_node *)(uintptr_t)branch;
}

/* ---- Read programs ------------------------------------------------------------------------------------------ */

typedef enum sap_conversion {
    SAP_CONVERT_COPY, /* one byte, or a whole number of them */
    SAP_CONVERT_BOOL,
    SAP_CONVERT_SWAP2,
    SAP_CONVERT_SWAP4,
    SAP_CONVERT_SWAP8,
    SAP_CONVERT_FLOAT_TO_DOUBLE,  /* Double32_t without a range */
    SAP_CONVERT_SCALED_TO_DOUBLE, /* uint32 / factor + minimum */
    SAP_CONVERT_SCALED_TO_FLOAT,
    SAP_CONVERT_SHORT_TO_DOUBLE, /* exponent and mantissa in 3 bytes */
    SAP_CONVERT_SHORT_TO_FLOAT
} sap_conversion;

/* How a stored number becomes a value. */
typedef struct sap_number {
    sap_conversion conversion;
    sap_type type;
    uint8_t stored; /* bytes of one in the file */
    uint8_t size;   /* bytes of one value */
    int bits;
    double factor, minimum;
} sap_number;

/* n numbers from `data` to `out`. */
void sap_number_convert(const sap_number *number, const uint8_t *data, size_t n, void *out);
/* starts: n + 1 places of entries, big-endian uint32, whose items have 1 << shift bytes each. out[i]: base + the items before
 * place i + 1. False when the places do not rise in whole items. */
bool sap_offsets_convert(const uint8_t *starts, int64_t n, int shift, int32_t base, int32_t *out);
/* values: n little-endian uint64. out[i]: the low half of value i less the first. False when they do not rise, or are 2^63 or
 * more. */
bool sap_indices_convert(const uint8_t *values, size_t n, int32_t *out);

typedef enum sap_op {
    SAP_OP_NUMBER,  /* `count` numbers */
    SAP_OP_STRING,  /* length in 1 or 5 bytes, then the bytes */
    SAP_OP_CSTRING, /* length in 4 bytes, then the bytes */
    SAP_OP_LIST,    /* length in 4 bytes, then so many children */
    SAP_OP_COUNTED, /* `count` times: a flag byte (unless `unflagged`), then as many children as the sibling counter says */
    SAP_OP_REST,     /* children up to the end of the entry */
    SAP_OP_ARRAY,    /* `count` children: fixed arrays of what is not a number */
    SAP_OP_RECORD,   /* the children one after another */
    SAP_OP_FBITS,    /* TObject's fBits: 4 bytes, 6 when the object is referenced */
    SAP_OP_REF,      /* TRef: its object's number */
    SAP_OP_PASS,     /* `count` bytes that are passed over */
    SAP_OP_TOBJECT,  /* version, unique id, bits: passed over */
    SAP_OP_ARRAYOBJ, /* TArrayF and the like: length in 4 bytes, then so many numbers */
    SAP_OP_SKIP,     /* a framed object that is passed over */
    SAP_OP_POINTER,  /* null, a new object, or one that was there before; without a child it is passed over */
    SAP_OP_CLONES,   /* TClonesArray */
    SAP_OP_OBJECTS   /* TObjArray, TList, TMap and the like: pointers */
} sap_op;

/* What stands before the pointers of a SAP_OP_OBJECTS. */
typedef enum sap_list_kind { SAP_LIST_ARRAY, SAP_LIST_OPTIONS, SAP_LIST_PLAIN, SAP_LIST_PAIRS } sap_list_kind;

enum { SAP_COUNTED_OUTSIDE = -2 };

/* One step of a read program; it reads one or more values that stand one after another. */
typedef struct sap_step_node {
    sap_op op;
    bool framed;      /* byte count and version stand before each value */
    bool stl;         /* a std::string or collection: member-wise and split data frame all values of a run once */
    bool base;        /* a base class of the record around it: its fields belong to that record */
    bool hidden;      /* gives no column */
    int slot;         /* of its builder */
    const char *name; /* field name */
    const char *class_name;
    const sap_class *info;
    sap_number number; /* SAP_OP_COUNTED: that of the counter */
    int32_t count;     /* items of fixed arrays, 1 otherwise */
    int32_t dims[5];
    int dim_count;
    int counter_slot; /* SAP_OP_COUNTED; SAP_COUNTED_OUTSIDE: in another column */
    bool unflagged;
    bool open;         /* SAP_OP_POINTER: of a class that only the data tell */
    const char *found; /* then, while it is looked for: the class found so far */
    sap_list_kind list;
    struct sap_step_node *children;
    int child_count;
    struct sap_layout *layouts; /* SAP_OP_RECORD: of the other versions of its class that the file describes */
} sap_step_node;

/* How another version of a class becomes the record of this one. */
typedef struct sap_layout {
    const sap_class *info;
    const sap_step_node **steps;  /* (step_count) in the order of the bytes: the record's own, or hidden ones */
    const sap_step_node **absent; /* (absent_count) steps of the record that this version lacks */
    int step_count, absent_count;
    struct sap_layout *next;
} sap_layout;

/* How the entries of a branch become a column. The first three shapes are the fast ones: what a basket gives is known
 * from its header, and it is decoded straight into its place in the batch. */
typedef enum sap_shape {
    SAP_SHAPE_FLAT,   /* `count` numbers an entry */
    SAP_SHAPE_JAGGED, /* a list of (`count` numbers) an entry, after `header` bytes */
    SAP_SHAPE_LEAVES, /* a record of (fixed arrays of) numbers an entry */
    SAP_SHAPE_TREE    /* anything else: the program is interpreted */
} sap_shape;

typedef struct sap_program {
    sap_field field;
    sap_shape shape;
    sap_step_node root;
    sap_step_node bare;       /* the root without its frame */
    int slots;                /* builders */
    uint32_t header;          /* SAP_SHAPE_JAGGED: bytes before the items of an entry */
    uint32_t item;            /* SAP_SHAPE_JAGGED: stored bytes of an item; others: of an entry */
    bool inlined;             /* SAP_SHAPE_TREE: without a frame of its own, its base classes have none either */
    bool named;               /* SAP_SHAPE_TREE: the name of the class stands before each entry (TBranchObject) */
    sap_branch_node *counts;  /* branch whose values are the number of items of each entry, or NULL */
    sap_branch_node *outside; /* SAP_SHAPE_TREE: branch whose values count what SAP_COUNTED_OUTSIDE reads, or NULL */
    const sap_file *file;
} sap_program;

/* Compiles the branch: fills `public.field`, or `public.reason`. Uses the tree's arena. */
SAP_MUST_CHECK sap_status sap_branch_compile(sap_tree *tree, sap_branch_node *branch, sap_error *err);

/* A part of a text. */
typedef struct sap_span {
    const char *text;
    size_t length;
} sap_span;

bool sap_span_among(sap_span span, const char *const *names, size_t count);
#define SAP_AMONG(span, ...)                                                                                           \
    sap_span_among(span, (const char *const[]){__VA_ARGS__},                                                           \
                   sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* What compiling stands on. A compile function returns false when it cannot, with `reason` set. */
typedef struct sap_compiler {
    const sap_file *file;
    sap_arena *arena;
    int slots;
    int depth;
    int steps;
    char reason[300];
    bool out_of_memory;
    bool undescribed;      /* the reason is a class that the file does not describe */
    bool skippable;        /* the reason is that, or a class that holds itself */
    const char *stack[32]; /* classes being compiled: a class that holds itself has no finite type */
    int stack_count;
} sap_compiler;

bool sap_compile_fail(sap_compiler *k, const char *format, ...) SAP_PRINTF(2, 3);
/* A C++ type by name. in_collection: an item of an STL collection, whose own collections have no frame. */
bool sap_compile_type(sap_compiler *k, const char *type_name, bool in_collection, sap_step_node *out);
/* A whole object, as one is written by itself: a class, or a collection. */
bool sap_compile_object(sap_compiler *k, const char *name, int version, uint32_t checksum, sap_step_node *out);
bool sap_compile_class(sap_compiler *k, const char *class_name, int version, uint32_t checksum, sap_step_node *out);
/* Classes whose bytes do not follow streamer info; *special tells whether it is one. */
bool sap_compile_special(sap_compiler *k, sap_span name, sap_step_node *out, bool *special);
bool sap_compile_pointer(sap_compiler *k, const char *class_name, sap_step_node *out);
/* A TObject as a record of its own. */
bool sap_compile_tobject(sap_compiler *k, sap_step_node *out);
/* Compiles what open pointers point to, where that was found. Returns whether there were any. */
bool sap_compile_found(sap_compiler *k, sap_step_node *step);
sap_step_node sap_step_new(sap_compiler *k, sap_op op);
sap_step_node *sap_step_children(sap_compiler *k, sap_step_node *step, int count);
bool sap_compile_kind(sap_compiler *k, int kind, const char *title, sap_step_node *out);
bool sap_compile_memory(sap_compiler *k);
bool sap_compile_element(sap_compiler *k, const sap_element *element, const char *owner, sap_step_node *out);
/* The counter of a SAP_OP_COUNTED among steps that are read before it. */
bool sap_compile_counter(sap_compiler *k, const sap_step_node *const *before, int count, const char *name,
                         sap_step_node *counted);
bool sap_compile_number(sap_compiler *k, int kind, const char *title, sap_number *out);
/* Makes `out` an array of `length` items in these dimensions. */
bool sap_compile_dims(sap_compiler *k, int64_t length, const int32_t *dims, int dim_count, sap_step_node *out);
/* The field of a step and all below it, in the arena; false when memory is out. */
bool sap_compile_field(sap_compiler *k, const sap_step_node *step, sap_field *out);
/* The kind of a fundamental C++ type, -1 when it is none. */
int sap_kind_of_type(const char *type_name);

/* "std::vector<pair<int,float> >": base name "vector", arguments "pair<int,float>", as spans of it. Returns the number of arguments, at most `capacity`. */
int sap_type_split(const char *type_name, sap_span *base, sap_span *arguments, int capacity);

/* ---- Interpreting a program ----------------------------------------------------------------------------------- */

typedef struct sap_buffer {
    uint8_t *data;
    size_t length, capacity;
} sap_buffer;

/* What one step gives: values or bytes of strings, lengths of lists as running ends, number of items. */
typedef struct sap_builder {
    sap_buffer values;
    sap_buffer ends; /* int32: end of each list or string */
    int64_t items;
} sap_builder;

typedef struct sap_interpreter {
    const sap_program *program;
    sap_builder *builders;
    sap_cursor c;
    uint64_t origin;       /* what references count from, against the cursor's beginning */
    size_t again;          /* bytes that references had read again */
    sap_arena *probe;      /* the classes of open pointers are looked for, and their names kept here; or NULL */
    const uint8_t *counts; /* of SAP_COUNTED_OUTSIDE: (counts_left) values of counts_type */
    size_t counts_left;
    sap_type counts_type;
    char problem[300];
    bool out_of_memory;
} sap_interpreter;

/* Reads the one entry that the cursor holds, all of it. */
bool sap_interpret(sap_interpreter *in);
/* Reads n values of the step, one after another. */
bool sap_step_run(sap_interpreter *in, const sap_step_node *step, size_t n);
/* The same in member-wise form: all values of one member stand together. version, checksum: of the items. */
bool sap_step_run_members(sap_interpreter *in, const sap_step_node *step, uint16_t version, uint32_t checksum,
                          size_t n);
/* n values that the file lacks: zeros, empty, null. */
bool sap_step_absent(sap_interpreter *in, const sap_step_node *step, size_t n);
bool sap_step_run_pointers(sap_interpreter *in, const sap_step_node *step, size_t n);
bool sap_step_run_clones(sap_interpreter *in, const sap_step_node *step);
bool sap_step_run_objects(sap_interpreter *in, const sap_step_node *step);
/* The frame of a step's value, if it has one; leaving checks that its bytes were used up. */
bool sap_step_enter(sap_interpreter *in, const sap_step_node *step, sap_frame *frame);
bool sap_step_leave(sap_interpreter *in, const sap_step_node *step, const sap_frame *frame);
bool sap_interpret_fail(sap_interpreter *in, const char *format, ...) SAP_PRINTF(2, 3);
/* Room for so many bytes; NULL, and failed, when memory is out. */
uint8_t *sap_builder_append(sap_interpreter *in, sap_buffer *buffer, size_t bytes);
/* The end of a list or text of so many items behind those before. */
bool sap_builder_end(sap_interpreter *in, sap_builder *builder, size_t items);
void sap_builders_release(sap_builder *builders, int slots);
/* Puts the pieces of one column together: pieces (count) of `slots` builders each. */
SAP_MUST_CHECK sap_status sap_builders_join(const sap_program *program, sap_builder *const *pieces, size_t count,
                                            struct sap_storage *storage, sap_column *out, sap_error *err);

/* ---- Baskets (§ Basket) ------------------------------------------------------------------------------------------ */

/* The header of a basket in the file, inside fKeylen. */
typedef struct sap_basket_header {
    uint32_t stored_bytes, object_bytes, header_bytes;
    uint32_t data_bytes; /* of the entries */
    int32_t entries;
    int64_t entry_bytes; /* fNevBufSize, bytes of an entry when there are no offsets */
    bool generated;      /* no offsets though the entries vary (kGenerateOffsetMap) */
    bool sizes;          /* what stands for offsets is sizes (kGenerateOffsetMap) */
} sap_basket_header;

/* A basket ready to be decoded. */
typedef struct sap_basket_data {
    int32_t entries;
    const uint8_t *data; /* of the entries */
    size_t bytes;
    const uint8_t *offsets; /* (entries) big-endian int32 from the start of the key, or NULL */
    uint32_t header_bytes;
    bool generated;
} sap_basket_data;

enum { SAP_BASKET_HEADER_MOST = 1024 };

/* Parses and checks the header of a file basket from its first bytes. */
SAP_MUST_CHECK sap_status sap_basket_parse(const uint8_t *bytes, size_t length, const sap_basket *basket,
                                           const char *where, sap_basket_header *out, sap_error *err);

/* Memory of one thread that decodes. Zeroed is empty. */
typedef struct sap_scratch {
    sap_codec codec;
    sap_space stored, object, gathered;
} sap_scratch;

void sap_scratch_release(sap_scratch *scratch);
/* The bytes of a basket as stored, `stored` (that many of it were fetched already), mapped, or read into the scratch. */
SAP_MUST_CHECK sap_status sap_basket_bytes(const sap_file *file, const sap_basket *basket, const char *where,
                                           const uint8_t *stored, sap_scratch *scratch, const uint8_t **out,
                                           sap_error *err);
/* Reads the basket; `out` points into the scratch, the tree's record, the mapped file or `stored` (which may be NULL).
 * keep: it must stay valid as long as the scratch, so not point into `stored`. */
SAP_MUST_CHECK sap_status sap_basket_load(const sap_file *file, const sap_branch_node *branch, size_t index,
                                          const char *where, const uint8_t *stored, bool keep, sap_scratch *scratch,
                                          sap_basket_data *out, sap_error *err);
SAP_MUST_CHECK bool sap_buffer_reserve(sap_buffer *buffer, size_t capacity);

/* ---- Decoding ---------------------------------------------------------------------------------------------------- */

/* The part of one basket that goes into a batch. */
typedef struct sap_piece {
    size_t column; /* of the reader */
    size_t basket;
    int32_t begin, end;     /* entries of the basket */
    int64_t row;            /* of the batch, where the first goes */
    int64_t items, item_at; /* SAP_SHAPE_JAGGED: how many, and where the first goes in the batch */
    sap_builder *builders;  /* SAP_SHAPE_TREE */
} sap_piece;

/* What a piece is decoded with. */
typedef struct sap_decoding {
    const sap_program *program;
    const sap_basket_data *basket;
    const int64_t
        *counts;  /* items of each entry of the basket from its first on, when it has no offsets of its own; or NULL */
    int32_t span; /* entries of the basket that belong to the tree */
    const char *where;         /* file, tree and column */
    const sap_column *outside; /* SAP_COUNTED_OUTSIDE: lists of counts, the first for entry piece->begin; or NULL */
    sap_arena *probe;          /* as the interpreter's */
    uint64_t place;            /* of the basket, for messages */
    int64_t first_entry;       /* of the basket, for messages */
} sap_decoding;

/* Items of a jagged piece. */
SAP_MUST_CHECK sap_status sap_piece_count(const sap_decoding *d, sap_piece *piece, sap_error *err);
/* Decodes the piece into its place in `out`, or into its own builders. */
SAP_MUST_CHECK sap_status sap_piece_decode(const sap_decoding *d, sap_piece *piece, sap_column *out,
                                           sap_scratch *scratch, sap_error *err);

#endif
