/* Files and folders by name, and writing, from the command line; for tests and benchmarks of remote files.
 *
 *     store_driver put FILE URL [--piece BYTES] [--pause MS] [--abandon]      a copy, in such pieces
 *     store_driver list | stat | make URL      store_driver remove URL [--recursive]      store_driver rename FROM TO [--replace]
 *
 * What is found is printed, one JSON object a line; "writing" is printed when the first piece has been taken. */
#include <sapwood/access.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct options {
    const char *words[3]; /* the command and what it is given */
    int words_count;
    size_t piece;
    int pause_ms;
    bool abandon, recursive, replace;
} options;

static void print_file(const char *name, const sap_file_info *info) {
    printf("{\"name\": \"%s\", \"size\": %llu, \"modified\": %lld, \"folder\": %s}\n", name,
           (unsigned long long)info->size, (long long)info->modified, info->is_folder ? "true" : "false");
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static sap_status write_pieces(const options *o, FILE *from, sap_sink *sink, uint8_t *data, sap_error *err) {
    bool announced = false;
    for (size_t length; (length = fread(data, 1, o->piece, from)) > 0;) {
        SAP_TRY(sap_sink_write(sink, data, length, NULL, err));
        if (!announced) {
            (void)puts("writing");
            (void)fflush(stdout);
        }
        announced = true;
        if (o->pause_ms)
            usleep((useconds_t)o->pause_ms * 1000);
    }
    return o->abandon ? SAP_OK : sap_sink_commit(sink, NULL, err);
}

static sap_status put(const options *o, sap_error *err) {
    FILE *from = fopen(o->words[1], "rb");
    uint8_t *data = malloc(o->piece);
    if (!from || !data)
        exit(2);
    sap_sink *sink = NULL;
    double begin = now();
    sap_status status = sap_sink_open(o->words[2], NULL, &sink, err);
    if (status == SAP_OK)
        status = write_pieces(o, from, sink, data, err);
    double end = now();
    sap_sink_close(sink);
    if (status == SAP_OK)
        printf("{\"seconds\": %.6f, \"close_seconds\": %.6f}\n", end - begin, now() - end);
    if (o->abandon)
        usleep(500000); /* the file is removed meanwhile */
    free(data);
    (void)fclose(from);
    return status;
}

static sap_status list(const char *url, sap_error *err) {
    sap_file_info *files;
    size_t count;
    SAP_TRY(sap_store_list(url, NULL, &files, &count, err));
    for (size_t i = 0; i < count; i++)
        print_file(files[i].name, &files[i]);
    free(files);
    return SAP_OK;
}

static sap_status look(const char *url, sap_error *err) {
    sap_file_info info;
    SAP_TRY(sap_store_stat(url, NULL, &info, err));
    print_file(url, &info);
    return SAP_OK;
}

static sap_status run(const options *o, sap_error *err) {
    const char *command = o->words[0];
    if (strcmp(command, "list") == 0)
        return list(o->words[1], err);
    if (strcmp(command, "stat") == 0)
        return look(o->words[1], err);
    if (strcmp(command, "make") == 0)
        return sap_store_make_folder(o->words[1], NULL, err);
    if (strcmp(command, "remove") == 0)
        return sap_store_remove(o->words[1], o->recursive, NULL, err);
    if (o->words_count == 3 && strcmp(command, "rename") == 0)
        return sap_store_rename(o->words[1], o->words[2], o->replace, NULL, err);
    if (o->words_count == 3 && strcmp(command, "put") == 0)
        return put(o, err);
    return sap_error_set(err, SAP_EARGUMENT, "no such command: %s", command);
}

int main(int argc, char **argv) {
    options o = {.piece = 1000000};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--piece") == 0 && i + 1 < argc)
            o.piece = (size_t)atof(argv[++i]);
        else if (strcmp(argv[i], "--pause") == 0 && i + 1 < argc)
            o.pause_ms = atoi(argv[++i]);
        else if (strcmp(argv[i], "--abandon") == 0)
            o.abandon = true;
        else if (strcmp(argv[i], "--recursive") == 0)
            o.recursive = true;
        else if (strcmp(argv[i], "--replace") == 0)
            o.replace = true;
        else if (o.words_count < 3)
            o.words[o.words_count++] = argv[i];
    }
    sap_error error = {0};
    if (o.words_count < 2 || o.piece == 0)
        return 2;
    sap_status status = run(&o, &error);
    if (status != SAP_OK)
        (void)fprintf(stderr, "%s: %s\n", sap_status_name(status), error.message);
    return status == SAP_OK ? 0 : 1;
}
