/* Export: a selection through a format into a file. The next batch is read while one is written. */
#include "export_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const sap_format *const formats[] = {&sap_format_parquet, &sap_format_arrow, &sap_format_csv, &sap_format_npz};
enum { FORMATS = sizeof formats / sizeof *formats };
enum { BATCH_BYTES = 32 << 20 }; /* what becomes a group of rows: of smaller ones files grow slow */

const char *const *sap_export_formats(void) {
    static const char *const names[] = {"parquet", "arrow", "csv", "npz", NULL};
    return names;
}

static sap_status find_format(const char *path, const char *name, const sap_format **out, sap_error *err) {
    size_t length = strlen(path);
    for (size_t i = 0; i < FORMATS; i++) {
        size_t ending = strlen(formats[i]->ending);
        bool ends = length > ending && strcmp(path + length - ending, formats[i]->ending) == 0;
        if (name ? strcmp(name, formats[i]->name) == 0 : ends) {
            *out = formats[i];
            return SAP_OK;
        }
    }
    return sap_error_set(err, SAP_EARGUMENT, "%s: the formats are parquet, arrow, csv and npz, by name or by ending",
                         name ? name : path);
}

/* A batch on its way into the file, beside the reading of the next. */
typedef struct hand_over {
    const sap_format *format;
    void *writer;
    sap_batch batch;
} hand_over;

static sap_status write_batch(void *context, sap_error *err) {
    hand_over *h = context;
    sap_status status = h->format->write(h->writer, &h->batch, err);
    sap_batch_release(&h->batch);
    return status;
}

/* How many entries there are to read; 0: not known before the last file is open. */
static uint64_t expected(const sap_selection_options *o) {
    int64_t all = o->tree ? sap_tree_entries(o->tree) : 0, end = o->end && (!all || o->end < all) ? o->end : all;
    return end > o->begin ? (uint64_t)(end - o->begin) : 0;
}

static sap_status copy(sap_selection *selection, const sap_selection_options *o, const sap_format *format, void *writer,
                       const sap_run *run, sap_error *err) {
    hand_over turns[2] = {{format, writer, {0}}, {format, writer, {0}}};
    sap_task *writing = NULL;
    sap_status status = SAP_OK;
    for (int turn = 0; status == SAP_OK; turn = !turn) {
        sap_batch *batch = &turns[turn].batch;
        status = sap_run_check(run, err);
        if (status == SAP_OK)
            status = sap_selection_next(selection, batch, err);
        sap_task *before = writing;
        writing = NULL;
        if (status != SAP_OK || batch->length == 0) {
            sap_status last = sap_task_wait(before, status == SAP_OK ? err : NULL);
            status = status == SAP_OK ? last : status;
            break;
        }
        status = sap_task_wait(before, err);
        if (status == SAP_OK)
            status = sap_task_start(run, write_batch, &turns[turn], &writing, err);
        int64_t read, kept;
        sap_selection_counts(selection, &read, &kept);
        sap_run_report(run, "export", "entries", (uint64_t)read, expected(o), NULL);
    }
    if (writing)
        (void)sap_task_wait(writing, NULL);
    for (int turn = 0; turn < 2; turn++)
        sap_batch_release(&turns[turn].batch);
    return status;
}

static sap_status write_file(const sap_selection_options *o, const char *aside, const sap_format *format,
                             const sap_run *run, sap_export_result *out, sap_error *err) {
    sap_selection *selection = NULL;
    void *writer = NULL;
    int32_t count;
    sap_selection_options with = *o;
    if (with.batch_entries == 0 && with.batch_bytes == 0)
        with.batch_bytes = BATCH_BYTES;
    SAP_TRY(sap_selection_open(&with, run, &selection, err));
    const sap_field *fields = sap_selection_fields(selection, &count);
    sap_status status = count ? SAP_OK : sap_error_set(err, SAP_EARGUMENT, "no column can be read");
    if (status == SAP_OK)
        status = format->create(aside, fields, count, &writer, err);
    if (status == SAP_OK)
        status = copy(selection, o, format, writer, run, err);
    if (status == SAP_OK)
        status = format->finish(writer, err);
    if (writer)
        format->close(writer);
    sap_selection_counts(selection, &out->read, &out->written);
    sap_selection_close(selection);
    return status;
}

sap_status sap_export_run(const sap_selection_options *options, const char *path, const char *format, bool replace,
                          const sap_run *run, sap_export_result *out, sap_error *err) {
    const sap_format *chosen = NULL;
    sap_export_result result = {0};
    struct stat info;
    SAP_TRY(find_format(path, format, &chosen, err));
    if (!replace && sap_path_exists(path))
        return sap_error_set(err, SAP_EARGUMENT, "%s: exists already", path);
    sap_text aside = {0};
    sap_text_add(&aside, "%s.partial", path);
    sap_status status =
        aside.failed ? sap_error_memory(err, path) : write_file(options, aside.data, chosen, run, &result, err);
    if (status == SAP_OK && (stat(aside.data, &info) != 0 || rename(aside.data, path) != 0))
        status = sap_error_errno(err, path);
    if (status == SAP_OK) {
        result.bytes = info.st_size;
        if (out)
            *out = result;
    } else if (aside.data) {
        (void)unlink(aside.data);
    }
    sap_text_release(&aside);
    return status;
}
