/* `sapwood show`: the schema of trees, drawn as one: columns and the fields inside them, with C++ and Arrow types and sizes. */
#include "console.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line of the drawing. */
typedef struct row {
    int depth;
    char *name, *arrow; /* malloc'ed */
    const char *cpp;
    const sap_branch *branch; /* NULL: a field inside a column */
} row;

typedef struct rows {
    row *items;
    size_t count, capacity;
    bool failed;
} rows;

/* ---- Types -------------------------------------------------------------------------------------------------- */

/* The type without the fields of records, which have lines of their own: "list<record>". */
static void short_type(const sap_field *field, FILE *out) {
    bool list = field->type == SAP_LIST || field->type == SAP_FIXED_LIST;
    (void)fprintf(out, "%s%s", sap_type_name(field->type), list ? "<" : "");
    if (list)
        short_type(&field->children[0], out);
    if (field->type == SAP_FIXED_LIST)
        (void)fprintf(out, ", %d", field->size);
    (void)fprintf(out, "%s%s", list ? ">" : "", field->nullable ? "?" : "");
}

static char *type_text(const sap_field *field) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    short_type(field, out);
    return fclose(out) == 0 ? text : NULL;
}

/* ---- Rows --------------------------------------------------------------------------------------------------- */

static void add_row(rows *all, int depth, const char *name, const char *cpp, const sap_field *field,
                    const sap_branch *branch) {
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? 2 * all->capacity : 64;
        row *grown = realloc(all->items, capacity * sizeof *grown);
        if (!grown) {
            all->failed = true;
            return;
        }
        all->items = grown;
        all->capacity = capacity;
    }
    row *r = &all->items[all->count++];
    *r = (row){depth, strdup(name), field ? type_text(field) : strdup("-"), cpp, branch};
    all->failed = all->failed || !r->name || !r->arrow;
}

/* Fields of the records inside a column. */
static void add_fields(rows *all, const sap_field *field, int depth) {
    bool list = field->type == SAP_LIST || field->type == SAP_FIXED_LIST;
    for (int32_t i = 0; i < field->count; i++) {
        const sap_field *child = &field->children[i];
        char number[32];
        (void)snprintf(number, sizeof number, "(%d)", i);
        if (!list)
            add_row(all, depth, field->type == SAP_UNION ? number : child->name, "", child, NULL);
        add_fields(all, child, list ? depth : depth + 1);
    }
}

static void release_rows(rows *all) {
    for (size_t i = 0; i < all->count; i++) {
        free(all->items[i].name);
        free(all->items[i].arrow);
    }
    free(all->items);
}

/* ---- Drawing -------------------------------------------------------------------------------------------------- */

/* Whether another row of the same parent follows at that depth. */
static bool goes_on(const rows *all, size_t index, int depth) {
    for (size_t i = index + 1; i < all->count && all->items[i].depth >= depth; i++)
        if (all->items[i].depth == depth)
            return true;
    return false;
}

static void print_guides(const rows *all, size_t index) {
    int depth = all->items[index].depth;
    for (int d = 0; d < depth; d++)
        (void)fputs(goes_on(all, index, d) ? "│  " : "   ", stdout);
    (void)fputs(goes_on(all, index, depth) ? "├─ " : "└─ ", stdout);
}

static void print_row(const rows *all, size_t index, int name_width, int cpp_width, int arrow_width) {
    const row *r = &all->items[index];
    const sap_branch *b = r->branch;
    char stored[32], ratio[32] = "";
    (void)fputs("  ", stdout);
    print_guides(all, index);
    console_pad(r->name, name_width - 3 * (r->depth + 1));
    (void)fputs("  ", stdout);
    console_pad(r->cpp, cpp_width);
    (void)fputs("  ", stdout);
    if (!b || b->container) {
        (void)printf("%s\n", b ? "" : r->arrow);
        return;
    }
    console_pad(r->arrow, arrow_width);
    if (b->bytes && b->stored_bytes)
        (void)snprintf(ratio, sizeof ratio, "%.2f", (double)b->bytes / (double)b->stored_bytes);
    (void)printf("  %9s  %6s", console_bytes(b->stored_bytes, stored, sizeof stored), ratio);
    if (!b->field)
        (void)printf("  cannot be read: %s", b->reason ? b->reason : "unknown");
    (void)putchar('\n');
}

static void print_rows(const rows *all) {
    enum { WIDEST_NAME = 50, WIDEST_TYPE = 36 };
    int name = 6, cpp = 8, arrow = 10;
    for (size_t i = 0; i < all->count; i++) {
        const row *r = &all->items[i];
        int wide = console_width(r->name) + 3 * (r->depth + 1);
        name = wide > name ? wide : name;
        cpp = console_width(r->cpp) > cpp ? console_width(r->cpp) : cpp;
        arrow = console_width(r->arrow) > arrow ? console_width(r->arrow) : arrow;
    }
    name = name > WIDEST_NAME ? WIDEST_NAME : name;
    cpp = cpp > WIDEST_TYPE ? WIDEST_TYPE : cpp;
    arrow = arrow > WIDEST_TYPE ? WIDEST_TYPE : arrow;
    (void)fputs("  ", stdout);
    console_pad("column", name);
    (void)fputs("  ", stdout);
    console_pad("C++ type", cpp);
    (void)fputs("  ", stdout);
    console_pad("Arrow type", arrow);
    (void)printf("  %9s  %6s\n", "stored", "ratio");
    for (size_t i = 0; i < all->count; i++)
        print_row(all, i, name, cpp, arrow);
    (void)putchar('\n');
}

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

/* "3 clusters of 100 to 350 entries" */
static void print_clusters(const sap_tree *tree) {
    size_t count = 0;
    const int64_t *first = sap_tree_clusters(tree, &count);
    int64_t entries = sap_tree_entries(tree), smallest = entries, largest = 0;
    for (size_t i = 0; first && i < count; i++) {
        int64_t length = (i + 1 < count ? first[i + 1] : entries) - first[i];
        smallest = length < smallest ? length : smallest;
        largest = length > largest ? length : largest;
    }
    if (!first || count == 0)
        return;
    (void)printf(", %zu cluster%s of %" PRId64, count, count > 1 ? "s" : "", smallest);
    if (largest > smallest)
        (void)printf(" to %" PRId64, largest);
    (void)printf(" entries");
}

static void print_text(const sap_file *file, const sap_tree *tree) {
    rows all = {0};
    char stored_text[32], text[32];
    uint64_t stored = 0, bytes = 0;
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *b = sap_tree_branch(tree, i);
        add_row(&all, b->depth, b->name, b->type_name ? b->type_name : "", b->field, b);
        if (b->field)
            add_fields(&all, b->field, b->depth + 1);
        stored += b->stored_bytes;
        bytes += b->bytes;
    }
    (void)printf("%s:%s: %" PRId64 " entries, %zu branches, %s stored, %s unpacked", sap_file_name(file),
                 sap_tree_path(tree), sap_tree_entries(tree), sap_tree_branch_count(tree),
                 console_bytes(stored, stored_text, sizeof stored_text), console_bytes(bytes, text, sizeof text));
    print_clusters(tree);
    (void)putchar('\n');
    if (!all.failed)
        print_rows(&all);
    release_rows(&all);
}

static void print_json(const sap_file *file, const sap_tree *tree) {
    (void)putchar('{');
    console_json_member("file", sap_file_name(file));
    (void)putchar(',');
    console_json_member("tree", sap_tree_path(tree));
    size_t clusters = 0;
    const int64_t *first = sap_tree_clusters(tree, &clusters);
    (void)printf(",\"entries\":%" PRId64 ",\"clusters\":[", sap_tree_entries(tree));
    for (size_t i = 0; first && i < clusters; i++)
        (void)printf(i ? ",%" PRId64 : "%" PRId64, first[i]);
    (void)printf("],\"columns\":[");
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        const sap_branch *b = sap_tree_branch(tree, i);
        size_t length = b->field ? sap_field_text(b->field, NULL, 0) : 0;
        char *type = b->field ? malloc(length + 1) : NULL;
        if (type)
            (void)sap_field_text(b->field, type, length + 1);
        (void)fputs(i ? ",{" : "{", stdout);
        console_json_member("name", b->name);
        (void)putchar(',');
        console_json_member("path", b->path);
        (void)putchar(',');
        console_json_member("cpp_type", b->type_name);
        (void)putchar(',');
        console_json_member("type", type);
        if (!b->field && !b->container) {
            (void)putchar(',');
            console_json_member("reason", b->reason);
        }
        (void)printf(",\"depth\":%d,\"baskets\":%" PRId64 ",\"stored_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                     b->depth, b->baskets, b->stored_bytes, b->bytes);
        free(type);
    }
    (void)printf("]}\n");
}

static sap_status show_tree(sap_file *file, const char *path, bool json, sap_error *err) {
    sap_tree *tree = NULL;
    SAP_TRY(sap_tree_open(file, path, &tree, err));
    (json ? print_json : print_text)(file, tree);
    sap_tree_close(tree);
    return SAP_OK;
}

/* Each tree of the file once, in its highest cycle. */
static sap_status show_trees(sap_file *file, bool json, sap_error *err) {
    size_t count = sap_file_key_count(file), shown = 0;
    for (size_t i = 0; i < count; i++) {
        const sap_key *key = sap_file_key(file, i);
        bool again = false;
        for (size_t j = 0; j < i && !again; j++)
            again = strcmp(sap_file_key(file, j)->path, key->path) == 0;
        if (again || !sap_key_is_tree(file, key))
            continue;
        SAP_TRY(show_tree(file, key->path, json, err));
        shown++;
    }
    return shown ? SAP_OK : sap_error_set(err, SAP_ENOTFOUND, "%s: no tree in this file", sap_file_name(file));
}

static sap_status show_input(const char *input, const sap_run *run, bool json, sap_error *err) {
    size_t length, count = 0;
    const char *tree;
    char **urls = NULL;
    sap_input_parse(input, &length, &tree);
    char *pattern = strndup(input, length);
    sap_status status =
        pattern ? sap_source_glob(pattern, run, &urls, &count, err) : sap_error_set(err, SAP_EMEMORY, "out of memory");
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        sap_file *file = NULL;
        status = sap_file_open(urls[i], run, &file, err);
        if (status == SAP_OK)
            status = tree ? show_tree(file, tree, json, err) : show_trees(file, json, err);
        sap_file_close(file);
    }
    free(urls);
    free(pattern);
    return status;
}

int sap_command_show(int argc, char **argv) {
    static const char help[] =
        "Usage: sapwood show FILE[:TREE]… [--json]\n\n"
        "Draws the schema of trees: columns and the fields inside them, with C++ and Arrow types, "
        "and sizes.\n";
    bool json = false;
    console_texts files = {0};
    const console_option options[] = {{"json", NULL, "one line of JSON a tree", CONSOLE_SWITCH, &json}, {0}};
    int exit_status = console_options(argc, argv, options, help, &files);
    if (exit_status == -1 && files.count == 0) {
        (void)fprintf(stderr, "sapwood show: no file; see `sapwood show --help`\n");
        exit_status = EXIT_USAGE;
    }
    const sap_run *run = exit_status == -1 ? console_open(1, true) : NULL;
    if (exit_status == -1)
        exit_status = run ? EXIT_OK : EXIT_FAILED;
    for (size_t i = 0; run && i < files.count; i++) {
        sap_error err = {0};
        if (show_input(files.items[i], run, json, &err) != SAP_OK)
            exit_status = console_fail(&err);
    }
    console_close();
    free(files.items);
    return exit_status;
}
