/* `sapwood digest`: a checksum of the values of every column, for comparing readers. A column's digest is SHA-256 over
 * one line `kind dtype count sha256` for each of its buffers, depth first, whatever the batches it was read in. */
#include "console.h"
#include "sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Digests ------------------------------------------------------------------------------------------------ */

/* What has been seen of one column of the tree of columns. */
typedef struct hasher {
    sha256 values, offsets, valid;
    int64_t length;  /* entries */
    int64_t present; /* those of them that are not null */
    int64_t items;   /* of lists and strings */
    bool optional;
    struct hasher *children;
} hasher;

/* The alternatives of a union that can be nothing at all count as optional, as they do in awkward arrays. */
static bool are_optional(const sap_field *field) {
    bool any = false;
    for (int32_t i = 0; field->type == SAP_UNION && i < field->count; i++)
        any = any || field->children[i].nullable;
    return any;
}

static bool hasher_init(hasher *h, const sap_field *field, bool optional) {
    int64_t zero = 0;
    *h = (hasher){.optional = field->nullable || (optional && field->type != SAP_UNION)};
    sha256_init(&h->values);
    sha256_init(&h->offsets);
    sha256_init(&h->valid);
    sha256_add(&h->offsets, &zero, sizeof zero);
    if (field->count == 0)
        return true;
    h->children = calloc((size_t)field->count, sizeof *h->children);
    for (int32_t i = 0; h->children && i < field->count; i++)
        if (!hasher_init(&h->children[i], &field->children[i], are_optional(field)))
            return false;
    return h->children != NULL;
}

static void hasher_release(hasher *h, const sap_field *field) {
    for (int32_t i = 0; h->children && i < field->count; i++)
        hasher_release(&h->children[i], &field->children[i]);
    free(h->children);
    h->children = NULL;
}

static void hasher_add(hasher *h, const sap_column *c, int64_t begin, int64_t end);

/* The values of entries [begin, end), none of which is null. */
static void add_present(hasher *h, const sap_column *c, int64_t begin, int64_t end) {
    int64_t from = begin, to = end, step = 1;
    h->present += end - begin;
    if (c->type == SAP_LIST || c->type == SAP_STRING) {
        if (end == begin)
            return;
        from = c->offsets[begin];
        to = c->offsets[end];
        for (int64_t i = begin + 1; i <= end; i++) {
            int64_t offset = h->items + c->offsets[i] - from;
            sha256_add(&h->offsets, &offset, sizeof offset);
        }
        h->items += to - from;
    }
    if (c->type == SAP_FIXED_LIST)
        step = c->size;
    size_t size = c->type == SAP_STRING || c->type == SAP_UNION ? 1 : sap_type_size(c->type);
    if (size && to > from)
        sha256_add(&h->values, (const char *)c->values + (size_t)from * size, (size_t)(to - from) * size);
    if (c->type == SAP_UNION) {
        for (int64_t i = from; i < to; i++) {
            int tag = ((const int8_t *)c->values)[i];
            hasher_add(&h->children[tag], &c->children[tag], c->offsets[i], c->offsets[i] + 1);
        }
        return;
    }
    for (int32_t i = 0; i < c->count; i++)
        hasher_add(&h->children[i], &c->children[i], from * step, to * step);
}

/* Entries [begin, end) of the column. */
static void hasher_add(hasher *h, const sap_column *c, int64_t begin, int64_t end) {
    static const uint8_t ones[256] = {[0 ... 255] = 1}, zeros[256];
    h->length += end - begin;
    if (!h->optional) {
        add_present(h, c, begin, end);
        return;
    }
    while (begin < end) { /* what is null and what is not, in turn */
        bool null = c->type == SAP_TYPE_NONE || (c->valid && !c->valid[begin]);
        int64_t next = begin + 1;
        while (next < end && next - begin < 256 && (c->type == SAP_TYPE_NONE || (c->valid && !c->valid[next])) == null)
            next++;
        sha256_add(&h->valid, null ? zeros : ones, (size_t)(next - begin));
        if (!null)
            add_present(h, c, begin, next);
        begin = next;
    }
}

static void add_line(sha256 *out, const char *kind, const char *dtype, int64_t count, sha256 *buffer) {
    char text[65], line[160];
    sha256_text(buffer, text);
    int n = snprintf(line, sizeof line, "%s %s %lld %s\n", kind, dtype, (long long)count, text);
    sha256_add(out, line, (size_t)n);
}

static void hasher_finish(hasher *h, const sap_field *field, sha256 *out) {
    char kind[32];
    if (h->optional)
        add_line(out, "valid", "|u1", h->length, &h->valid);
    switch (field->type) {
    case SAP_TYPE_NONE:
        add_line(out, "empty", "-", 0, &h->values);
        break;
    case SAP_UNION:
        add_line(out, "tags", "|i1", h->present, &h->values);
        break;
    case SAP_LIST:
    case SAP_STRING:
        add_line(out, "offsets", "<i8", h->present + 1, &h->offsets);
        if (field->type == SAP_STRING)
            add_line(out, "data", "|u1", h->items, &h->values);
        break;
    case SAP_FIXED_LIST:
        (void)snprintf(kind, sizeof kind, "fixed%d", field->size);
        add_line(out, kind, "-", 0, &h->values);
        break;
    case SAP_RECORD:
        if (field->count == 0)
            add_line(out, "norec", "-", h->present, &h->values);
        break;
    default:
        add_line(out, "data", sap_type_dtype(field->type), h->present, &h->values);
        break;
    }
    for (int32_t i = 0; i < field->count; i++)
        hasher_finish(&h->children[i], &field->children[i], out);
}

static sap_status digest_column(sap_tree *tree, const sap_branch *branch, const sap_run *run, char text[65],
                                sap_error *err) {
    const char *name = branch->name;
    sap_reader *reader = NULL;
    hasher h = {0};
    SAP_TRY(sap_reader_open(tree, &(sap_reader_options){.columns = &name, .count = 1}, run, &reader, err));
    int32_t count;
    const sap_field *field = sap_reader_fields(reader, &count);
    sap_status status = hasher_init(&h, field, false) ? SAP_OK : sap_error_set(err, SAP_EMEMORY, "out of memory");
    while (status == SAP_OK) {
        sap_batch batch = {0};
        status = sap_reader_next(reader, &batch, err);
        if (status != SAP_OK || batch.length == 0)
            break;
        hasher_add(&h, &batch.columns[0], 0, batch.length);
        sap_batch_release(&batch);
    }
    if (status == SAP_OK) {
        sha256 all;
        sha256_init(&all);
        hasher_finish(&h, field, &all);
        sha256_text(&all, text);
    }
    hasher_release(&h, field);
    sap_reader_close(reader);
    return status;
}

/* ---- Lines of JSON ---------------------------------------------------------------------------------------------- */

static void print_branch(sap_tree *tree, const sap_branch *branch, const sap_run *run, bool first, bool *all) {
    char digest[65];
    sap_error error = {0};
    (void)printf(first ? "{" : ",{");
    console_json_member("name", branch->path);
    (void)putchar(',');
    console_json_member("type", branch->type_name);
    if (!branch->field)
        (void)sap_error_set(&error, SAP_EUNSUPPORTED, "%s", branch->reason ? branch->reason : "cannot be read");
    else
        (void)digest_column(tree, branch, run, digest, &error);
    if (error.status == SAP_OK) {
        (void)putchar(',');
        console_json_member("digest", digest);
    } else {
        (void)printf(",\"digest\":null,");
        console_json_member("error", error.message);
        *all = false;
    }
    (void)putchar('}');
}

/* Returns whether every column could be read. */
static bool print_object(sap_file *file, const sap_key *key, const char *url, const sap_run *run) {
    char object[2000];
    sap_error error = {0};
    sap_tree *tree = NULL;
    bool all = true, first = true;
    (void)snprintf(object, sizeof object, "%s;%d", key->path, key->cycle);
    (void)putchar('{');
    console_json_member("object", object);
    (void)putchar(',');
    console_json_member("cls", key->class_name);
    if (sap_tree_open(file, object, &tree, &error) != SAP_OK) {
        (void)printf(",\"status\":\"object_error\",");
        console_json_member("error", error.message);
        (void)putchar(',');
        console_json_member("file", url);
        (void)printf(",\"branches\":[]}\n");
        return false;
    }
    (void)printf(",\"entries\":%lld,\"branches\":[", (long long)sap_tree_entries(tree));
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *branch = sap_tree_branch(tree, i);
        if (branch->container)
            continue;
        print_branch(tree, branch, run, first, &all);
        first = false;
    }
    (void)printf("],\"status\":\"%s\",", all ? "ok" : "partial");
    console_json_member("file", url);
    (void)printf("}\n");
    sap_tree_close(tree);
    return all;
}

static bool is_newest(const sap_file *file, const sap_key *key) {
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *other = sap_file_key(file, i);
        if (other->cycle > key->cycle && strcmp(other->path, key->path) == 0)
            return false;
    }
    return true;
}

static bool print_file(const char *url, const sap_run *run, bool json) {
    (void)json; /* it prints nothing else */
    sap_error error = {0};
    sap_file *file = NULL;
    bool all = true;
    size_t trees = 0;
    if (sap_file_open(url, run, &file, &error) != SAP_OK) {
        (void)printf("{\"status\":\"open_error\",");
        console_json_member("error", error.message);
        (void)putchar(',');
        console_json_member("file", url);
        (void)printf(",\"branches\":[]}\n");
        return false;
    }
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        if (!sap_key_is_tree(file, key) || !is_newest(file, key))
            continue;
        trees++;
        all = print_object(file, key, url, run) && all;
    }
    if (trees == 0) {
        (void)printf("{\"status\":\"no_tree\",");
        console_json_member("file", url);
        (void)printf(",\"branches\":[]}\n");
    }
    console_traffic(file);
    sap_file_close(file);
    return all;
}

int sap_command_digest(int argc, char **argv) {
    static const char help[] =
        "Usage: sapwood digest FILE… [--threads N] [--verbose]\n\n"
        "Prints one line of JSON for each tree of the files: its columns, each with the SHA-256 of its values, or "
        "with\n"
        "the error that kept it from being read. Exit status: 0 all were read, 1 some were not, 2 wrong usage.\n"
        "--verbose: what reading remote files has cost, on standard error.\n";
    return console_visit_files(argc, argv, help, print_file);
}
