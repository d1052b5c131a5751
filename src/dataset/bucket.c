/* One bucket of the spool (a shard of the training or of the test part), read from all inputs and put into shard order. */
#include "dataset_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static sap_status read_all(int fd, const char *path, char *to, size_t bytes, uint64_t offset, sap_error *err) {
    if (sap_descriptor_read(fd, to, bytes, offset) == bytes)
        return SAP_OK;
    return errno ? sap_error_errno(err, path) : sap_error_set(err, SAP_EIO, "%s: has become shorter", path);
}

/* Appends the bucket's part of one spool file at `to`. */
static sap_status read_input(const sap_dataset_writer *w, size_t index, int32_t bucket, char *to, sap_error *err) {
    const sap_spooled *input = &w->inputs[index];
    char *path = sap_writer_path(w, "spool/%05zu.rows", index);
    if (!path)
        return sap_error_memory(err, w->partial);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    sap_status status = fd < 0 ? sap_error_errno(err, path) : SAP_OK;
    for (size_t s = 0; s < input->segment_count && status == SAP_OK; s++) {
        const sap_segment *segment = &input->segments[s];
        size_t bytes = (size_t)(segment->offset[bucket + 1] - segment->offset[bucket]);
        status = read_all(fd, path, to, bytes, segment->offset[bucket], err);
        if (status == SAP_OK && sap_hash(to, bytes, 0) != segment->hash[bucket])
            status = sap_error_set(err, SAP_EIO,
                                   "%s @0x%llx: has changed since it was written; delete the folder %s to "
                                   "start over",
                                   path, (unsigned long long)segment->offset[bucket], w->partial);
        to += bytes;
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return status;
}

/* Rises with the hash; equal hashes are told apart by everything that does not hang on the order of the inputs, so that
 * rows which compare equal are equal. */
static int compare_rows(const void *left, const void *right, void *context) {
    const sap_row *a = *(const sap_row *const *)left, *b = *(const sap_row *const *)right;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    const sap_dataset_writer *w = context;
    int by_sample = strcmp(w->inputs[a->input].sample, w->inputs[b->input].sample);
    int by_file = strcmp(w->inputs[a->input].file, w->inputs[b->input].file);
    if (by_sample || by_file)
        return by_sample ? by_sample : by_file;
    if (a->entry != b->entry)
        return a->entry < b->entry ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return memcmp(a + 1, b + 1, a->bytes);
}

static sap_status find_rows(const sap_dataset_writer *w, size_t bytes, sap_bucket *out, sap_error *err) {
    size_t capacity = 0;
    for (size_t at = 0; at < bytes;) {
        sap_row *row = (sap_row *)(void *)(out->data + at);
        if (bytes - at < sizeof *row || bytes - at - sizeof *row < row->bytes || row->bytes % 8 != 0 ||
            row->input >= w->plan.input_count)
            return sap_error_set(err, SAP_EFORMAT, "%s: a row of the spool makes no sense", w->partial);
        if (!sap_grow((void **)&out->rows, &capacity, out->count, sizeof *out->rows))
            return sap_error_memory(err, "a shard");
        out->rows[out->count++] = row;
        at += sizeof *row + row->bytes;
    }
    return SAP_OK;
}

uint64_t sap_bucket_bytes(const sap_dataset_writer *w, int32_t bucket) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->plan.input_count; i++)
        for (size_t s = 0; s < w->inputs[i].segment_count; s++)
            bytes += w->inputs[i].segments[s].offset[bucket + 1] - w->inputs[i].segments[s].offset[bucket];
    return bytes;
}

sap_status sap_bucket_load(const sap_dataset_writer *w, int32_t bucket, sap_bucket *out, sap_error *err) {
    *out = (sap_bucket){0};
    size_t bytes = (size_t)sap_bucket_bytes(w, bucket);
    if (bytes == 0)
        return SAP_OK;
    out->data = malloc(bytes);
    sap_status status = SAP_OK;
    if (!out->data)
        status = sap_error_set(err, SAP_EMEMORY, "a shard of %.1f GB does not fit in memory", (double)bytes / 1e9);
    size_t at = 0;
    for (size_t i = 0; i < w->plan.input_count && status == SAP_OK; i++) {
        status = read_input(w, i, bucket, out->data + at, err);
        for (size_t s = 0; s < w->inputs[i].segment_count; s++)
            at += (size_t)(w->inputs[i].segments[s].offset[bucket + 1] - w->inputs[i].segments[s].offset[bucket]);
    }
    if (status == SAP_OK)
        status = sap_bucket_sort(w, bytes, out, err);
    if (status != SAP_OK)
        sap_bucket_release(out);
    return status;
}

sap_status sap_bucket_sort(const sap_dataset_writer *w, size_t bytes, sap_bucket *out, sap_error *err) {
    SAP_TRY(find_rows(w, bytes, out, err));
    if (out->count > 0)
        qsort_r(out->rows, out->count, sizeof *out->rows, compare_rows, (void *)(uintptr_t)w);
    return SAP_OK;
}

void sap_bucket_release(sap_bucket *bucket) {
    free(bucket->data);
    free(bucket->rows);
    *bucket = (sap_bucket){0};
}

float *sap_row_feature(const sap_dataset_plan *plan, const sap_row *row, size_t index, int64_t *rows) {
    char *at = (char *)(uintptr_t)(row + 1);
    for (size_t f = 0;; f++) {
        uint32_t count = 1;
        if (plan->features[f].sequence) {
            memcpy(&count, at, sizeof count);
            at += sizeof count;
        }
        if (f == index) {
            *rows = count;
            return (float *)(void *)at;
        }
        at += (size_t)count * (size_t)plan->features[f].width * sizeof(float);
    }
}
