/* `sapwood ls`: what ROOT files hold: objects with their classes, cycles and sizes; trees with their columns, types, codecs and
 * ratios. */
#include "console.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: sapwood ls [--json] FILE…\n\n"
    "Lists the objects of ROOT files with class, cycle and sizes, and the columns of their trees with Arrow type, "
    "codec,\n"
    "baskets, sizes and compression ratio. Columns that this version cannot read are listed with the reason.\n\n"
    "  --json       one line of JSON a file\n"
    "  --threads N  threads; default: one for each core\n"
    "  --verbose    what reading remote files has cost, on standard error\n\n"
    "Exit status: 0 listed, 1 a file could not be read, 2 wrong usage.\n";

/* ---- Text --------------------------------------------------------------------------------------------------- */

static char *field_text(const sap_field *field) {
    size_t length = sap_field_text(field, NULL, 0);
    char *text = malloc(length + 1);
    if (text)
        (void)sap_field_text(field, text, length + 1);
    return text;
}

static void print_branch(const sap_branch *b, const char *codec, int name_width, int type_width) {
    char stored[32], name[600], ratio[32] = "";
    (void)snprintf(name, sizeof name, "%*s%s", 2 * b->depth, "", b->name);
    (void)fputs("    ", stdout);
    console_pad(name, name_width);
    (void)fputs("  ", stdout);
    if (b->container) {
        (void)printf("(holds the columns below)\n");
        return;
    }
    char *type = b->field ? field_text(b->field) : NULL;
    console_pad(type ? type : "-", type_width);
    if (b->bytes && b->stored_bytes)
        (void)snprintf(ratio, sizeof ratio, "%.2f", (double)b->bytes / (double)b->stored_bytes);
    (void)printf("  %-8s %7" PRId64 " %9s  %6s", codec ? codec : "-", b->baskets,
                 console_bytes(b->stored_bytes, stored, sizeof stored), ratio);
    if (!b->field)
        (void)printf("  cannot be read: %s", b->reason ? b->reason : "unknown");
    (void)putchar('\n');
    free(type);
}

static bool print_tree(sap_file *file, const char *object) {
    enum { WIDEST_NAME = 48, WIDEST_TYPE = 40 };
    sap_error error = {0};
    sap_tree *tree = NULL;
    int name_width = 6, type_width = 4;
    if (sap_tree_open(file, object, &tree, &error) != SAP_OK) {
        (void)printf("    %s\n", error.message);
        return error.status == SAP_EUNSUPPORTED;
    }
    size_t count = sap_tree_branch_count(tree);
    for (size_t i = 0; i < count; i++) {
        const sap_branch *b = sap_tree_branch(tree, i);
        char *type = b->field ? field_text(b->field) : NULL;
        int name = console_width(b->name) + 2 * b->depth, wide = type ? console_width(type) : 1;
        name_width = name > name_width ? name : name_width;
        type_width = wide > type_width ? wide : type_width;
        free(type);
    }
    name_width = name_width > WIDEST_NAME ? WIDEST_NAME : name_width;
    type_width = type_width > WIDEST_TYPE ? WIDEST_TYPE : type_width;
    (void)printf("    %" PRId64 " entries, %zu branches\n\n    ", sap_tree_entries(tree), count);
    console_pad("column", name_width);
    (void)fputs("  ", stdout);
    console_pad("type", type_width);
    (void)printf("  %-8s %7s %9s  %6s\n", "codec", "baskets", "stored", "ratio");
    for (size_t i = 0; i < count; i++)
        print_branch(sap_tree_branch(tree, i), sap_branch_codec(tree, i), name_width, type_width);
    (void)putchar('\n');
    sap_tree_close(tree);
    return true;
}

static bool print_file(sap_file *file) {
    char size[32], stored[32], object[32];
    int version = sap_file_version(file), widest = 4;
    bool ok = true;
    size_t count = sap_file_key_count(file);
    (void)printf("%s: %s, ROOT %d.%02d/%02d, %s\n", sap_file_name(file),
                 console_bytes(sap_file_size(file), size, sizeof size), version / 10000, version / 100 % 100,
                 version % 100, sap_file_compression(file));
    if (sap_file_note(file))
        (void)printf("  note: %s\n", sap_file_note(file));
    for (size_t i = 0; i < count; i++) {
        int width = console_width(sap_file_key(file, i)->path) + 4;
        widest = width > widest ? width : widest;
    }
    for (size_t i = 0; i < count; i++) {
        const sap_key *key = sap_file_key(file, i);
        char name[1200];
        (void)snprintf(name, sizeof name, "%s;%d", key->path, key->cycle);
        (void)fputs("  ", stdout);
        console_pad(name, widest);
        (void)printf("  %-20s %9s of %9s  %s\n", key->class_name,
                     console_bytes(key->stored_bytes, stored, sizeof stored),
                     console_bytes(key->object_bytes, object, sizeof object), key->title);
        if (sap_key_is_tree(file, key))
            ok = print_tree(file, name) && ok;
    }
    return ok;
}

/* ---- JSON --------------------------------------------------------------------------------------------------- */

/* With a comma before. */
static void put_member(const char *name, const char *text) {
    (void)putchar(',');
    console_json_member(name, text);
}

static void put_branch(const sap_branch *b, const char *codec) {
    char *type = b->field ? field_text(b->field) : NULL;
    (void)fputs("{\"name\":", stdout);
    console_json_text(b->name);
    put_member("path", b->path);
    put_member("type_name", b->type_name);
    put_member("type", type);
    if (!b->field)
        put_member("reason", b->reason);
    put_member("codec", codec);
    (void)printf(",\"container\":%s,\"depth\":%d,\"baskets\":%" PRId64 ",\"stored_bytes\":%" PRIu64
                 ",\"bytes\":%" PRIu64 "}",
                 b->container ? "true" : "false", b->depth, b->baskets, b->stored_bytes, b->bytes);
    free(type);
}

static bool put_tree(sap_file *file, const char *object) {
    sap_error error = {0};
    sap_tree *tree = NULL;
    if (sap_tree_open(file, object, &tree, &error) != SAP_OK) {
        put_member("error", error.message);
        return error.status == SAP_EUNSUPPORTED;
    }
    (void)printf(",\"entries\":%" PRId64 ",\"branches\":[", sap_tree_entries(tree));
    for (size_t i = 0; i < sap_tree_branch_count(tree); i++) {
        (void)fputs(i ? "," : "", stdout);
        put_branch(sap_tree_branch(tree, i), sap_branch_codec(tree, i));
    }
    (void)putchar(']');
    sap_tree_close(tree);
    return true;
}

static bool put_file(sap_file *file) {
    bool ok = true;
    (void)fputs("{\"file\":", stdout);
    console_json_text(sap_file_name(file));
    put_member("compression", sap_file_compression(file));
    if (sap_file_note(file))
        put_member("note", sap_file_note(file));
    (void)printf(",\"bytes\":%" PRIu64 ",\"root_version\":%d,\"objects\":[", sap_file_size(file),
                 sap_file_version(file));
    for (size_t i = 0; i < sap_file_key_count(file); i++) {
        const sap_key *key = sap_file_key(file, i);
        char name[1200];
        (void)snprintf(name, sizeof name, "%s;%d", key->path, key->cycle);
        (void)fputs(i ? ",{\"path\":" : "{\"path\":", stdout);
        console_json_text(key->path);
        put_member("class", key->class_name);
        put_member("title", key->title);
        (void)printf(",\"cycle\":%d,\"stored_bytes\":%" PRIu64 ",\"object_bytes\":%" PRIu64, key->cycle,
                     key->stored_bytes, key->object_bytes);
        if (sap_key_is_tree(file, key))
            ok = put_tree(file, name) && ok;
        (void)putchar('}');
    }
    (void)fputs("]}\n", stdout);
    return ok;
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

static bool list(const char *url, const sap_run *run, bool json) {
    sap_error error = {0};
    sap_file *file = NULL;
    if (sap_file_open(url, run, &file, &error) != SAP_OK)
        return console_fail(&error) == EXIT_OK;
    bool ok = json ? put_file(file) : print_file(file);
    console_traffic(file);
    sap_file_close(file);
    return ok;
}

int sap_command_ls(int argc, char **argv) {
    return console_visit_files(argc, argv, help, list);
}
