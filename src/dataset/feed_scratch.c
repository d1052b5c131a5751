/* What of a feed does not fit in memory: how much does, and the scratch file for the rest. */
#include "feed_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* "4G" and the like. False: not a size. */
static bool parse_size(const char *text, uint64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end & ~32) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (end == text || errno || *text == '-' || (*end && (!unit || end[1])) || number > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)number << shift;
    return true;
}

sap_status sap_feed_limit(uint64_t asked, uint64_t *limit, sap_error *err) {
    const char *text = getenv("SAPWOOD_FEED_MEMORY");
    *limit = asked;
    if (asked > 0)
        return SAP_OK;
    if (text && *text)
        return parse_size(text, limit) ? SAP_OK
                                       : sap_error_set(err, SAP_EARGUMENT,
                                                       "SAPWOOD_FEED_MEMORY: \"%s\" is not a number of bytes, such as "
                                                       "2000000000 or 2G",
                                                       text);
    uint64_t available = sap_memory_available();
    *limit = available == UINT64_MAX ? available : available / 2;
    return SAP_OK;
}

sap_status sap_scratch_open(const char *folder, int *out, sap_error *err) {
    const char *candidates[] = {folder, getenv("SAPWOOD_SCRATCH"), getenv("TMPDIR"), "/var/tmp"};
    for (size_t i = 0; !folder || !*folder; i++)
        folder = candidates[i];
    int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) { /* some file systems have no files without a name */
        sap_text path = {0};
        sap_text_add(&path, "%s/sapwood-XXXXXX", folder);
        file = path.failed ? -1 : mkostemp(path.data, O_CLOEXEC);
        if (file >= 0)
            (void)unlink(path.data);
        sap_text_release(&path);
    }
    if (file < 0)
        return sap_error_set(err, SAP_EIO, "%s: %s: no scratch file for rows that do not fit in memory", folder,
                             strerror(errno));
    *out = file;
    return SAP_OK;
}

sap_status sap_scratch_write(int scratch, int64_t at, const void *data, size_t bytes, const char *where,
                             sap_error *err) {
    for (size_t done = 0; done < bytes;) {
        ssize_t wrote = pwrite(scratch, (const char *)data + done, bytes - done, at + (off_t)done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return sap_error_set(err, SAP_EIO,
                                 "%s: %s: the scratch file for its rows, which do not fit in memory, cannot be written "
                                 "(SAPWOOD_SCRATCH chooses its folder)",
                                 where, wrote < 0 ? strerror(errno) : "no space");
        done += (size_t)wrote;
    }
    return SAP_OK;
}

/* ---- Reading ahead --------------------------------------------------------------------------------------------- */

static void advise(const sap_feed *feed, int64_t begin, int64_t end) {
    if (end > begin)
        (void)posix_fadvise(feed->scratch, begin, end - begin, POSIX_FADV_WILLNEED);
}

/* Rows [first, end) of an input. Sequences follow each other, but where one part file's batch ended. */
static void advise_input(const sap_feed *feed, const sap_feed_input *input, int64_t first, int64_t end) {
    int64_t bytes = input->values * (int64_t)sizeof(float), begin = 0, stop = 0;
    if (input->width == 0) {
        advise(feed, input->at + first * bytes, input->at + end * bytes);
        return;
    }
    for (int64_t row = first; row < end; row++) {
        const sap_sequence *sequence = &input->sequences[row];
        if (sequence->at != stop) {
            advise(feed, begin, stop);
            begin = sequence->at;
        }
        stop = sequence->at + sequence->rows * input->width * (int64_t)sizeof(float);
    }
    advise(feed, begin, stop);
}

int32_t sap_feed_shard_of(const sap_feed *feed, int64_t row) {
    int32_t low = 0, high = feed->shard_count - 1;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (row < feed->shard_begin[middle + 1])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void sap_scratch_advise(const sap_feed *feed, const sap_window *window) {
    int64_t begin = window->first == 0 ? 0 : window->first + window->rows, end = window->first + 2 * window->rows;
    for (int64_t i = begin; i < end && i < feed->rows; i++) {
        int32_t s = sap_feed_shard_of(feed, feed->order[i]);
        int64_t first = feed->shard_begin[s], last = feed->shard_begin[s + 1];
        int64_t block = (feed->order[i] - first) / feed->block_rows;
        if (block == feed->advised[s])
            continue;
        feed->advised[s] = block;
        first += block * feed->block_rows;
        if (last - first > feed->block_rows)
            last = first + feed->block_rows;
        for (int32_t k = 0; k < feed->input_count; k++)
            if (feed->inputs[k].stored)
                advise_input(feed, &feed->inputs[k], first, last);
    }
}
