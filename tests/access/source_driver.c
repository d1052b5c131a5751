/* Reads a source whole through sap_fetch, as a reader of files does: batches, the next ones on their way while one is used.
 * Prints "reading" when the first bytes are there, and at the end what it took as one JSON object. For tests and benchmarks of remote files.
 *
 *     source_driver URL [--batch MB] [--ahead N] [--scatter BYTES] [--threads N] [--repeat N] [--pause MS] [--hash]
 *
 * --scatter: batches are many ranges of that length, every second one of the file, instead of one range. */
#include <sapwood/access.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct options {
    const char *url;
    size_t batch, scatter;
    int ahead, threads, repeat, pause_ms;
    bool hash;
} options;

typedef struct reader {
    const options *o;
    sap_source *source;
    sap_status status;
    sap_error error;
    bool announces;
    uint64_t bytes, sum;
} reader;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* FNV-1a over words and the tail: fast enough not to be the bottleneck, and any changed byte changes it. */
static uint64_t add_bytes(uint64_t sum, const uint8_t *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        sum = (sum ^ word) * UINT64_C(0x100000001b3);
        sum ^= sum >> 29;
    }
    for (; length > 0; data++, length--)
        sum = (sum ^ *data) * UINT64_C(0x100000001b3);
    return sum;
}

/* The ranges of a batch, at most `most`. */
static size_t plan_batch(const options *o, uint64_t size, uint64_t begin, sap_range *ranges, size_t most) {
    uint64_t end = begin + o->batch < size ? begin + o->batch : size;
    size_t step = o->scatter ? 2 * o->scatter : o->batch, length = o->scatter ? o->scatter : o->batch, n = 0;
    for (uint64_t at = begin; at < end && n < most; at += step, n++)
        ranges[n] = (sap_range){at, end - at < length ? (size_t)(end - at) : length, NULL};
    return n;
}

static sap_status use_batch(reader *r, sap_fetch *fetch, const sap_range *ranges, size_t count) {
    SAP_TRY(sap_fetch_wait(fetch, NULL, &r->error));
    if (r->announces && r->bytes == 0) {
        (void)puts("reading");
        (void)fflush(stdout);
    }
    for (size_t i = 0; i < count; i++) {
        r->bytes += ranges[i].length;
        if (r->o->hash)
            r->sum = add_bytes(r->sum, sap_fetch_data(fetch, i), ranges[i].length);
    }
    if (r->o->pause_ms)
        usleep((useconds_t)r->o->pause_ms * 1000);
    return SAP_OK;
}

static sap_status read_once(reader *r) {
    const options *o = r->o;
    const uint64_t size = sap_source_size(r->source);
    const size_t most = o->scatter ? o->batch / (2 * o->scatter) + 1 : 1, slots = (size_t)o->ahead + 1;
    const uint64_t batches = (size + o->batch - 1) / o->batch;
    sap_fetch **fetches = calloc(slots, sizeof(sap_fetch *));
    sap_range *ranges = calloc(slots * most, sizeof *ranges);
    size_t *counts = calloc(slots, sizeof *counts);
    sap_status status = fetches && ranges && counts ? SAP_OK : SAP_EMEMORY;
    for (uint64_t next = 0, used = 0; used < batches && status == SAP_OK;) {
        size_t slot = next % slots;
        if (next < batches && next - used < slots) {
            counts[slot] = plan_batch(o, size, next * o->batch, ranges + slot * most, most);
            status = sap_fetch_start(r->source, ranges + slot * most, counts[slot], &fetches[slot], &r->error);
            next++;
            continue;
        }
        slot = used++ % slots;
        status = use_batch(r, fetches[slot], ranges + slot * most, counts[slot]);
        sap_fetch_close(fetches[slot]);
        fetches[slot] = NULL;
    }
    for (size_t i = 0; fetches && i < slots; i++)
        sap_fetch_close(fetches[i]);
    free(counts);
    free(ranges);
    free(fetches);
    return status;
}

static void *run_reader(void *context) {
    reader *r = context;
    for (int i = 0; i < r->o->repeat && r->status == SAP_OK; i++) {
        r->sum = 0;
        r->status = read_once(r);
    }
    return NULL;
}

static bool parse(int argc, char **argv, options *o) {
    *o = (options){.batch = 32000000, .ahead = 2, .threads = 1, .repeat = 1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--hash") == 0) {
            o->hash = true;
        } else if (strncmp(argv[i], "--", 2) != 0) {
            o->url = argv[i];
        } else if (!value) {
            return false;
        } else {
            double number = atof(argv[++i]);
            if (strcmp(argv[i - 1], "--batch") == 0)
                o->batch = (size_t)(number * 1e6);
            else if (strcmp(argv[i - 1], "--scatter") == 0)
                o->scatter = (size_t)number;
            else if (strcmp(argv[i - 1], "--ahead") == 0)
                o->ahead = (int)number;
            else if (strcmp(argv[i - 1], "--threads") == 0)
                o->threads = (int)number;
            else if (strcmp(argv[i - 1], "--repeat") == 0)
                o->repeat = (int)number;
            else if (strcmp(argv[i - 1], "--pause") == 0)
                o->pause_ms = (int)number;
            else
                return false;
        }
    }
    return o->url && o->batch > 0 && o->threads > 0 && o->ahead >= 0;
}

static int report(const reader *readers, int threads, sap_source *source, double opened, double seconds) {
    sap_source_stats stats;
    sap_source_stats_get(source, &stats);
    uint64_t bytes = 0;
    for (int i = 0; i < threads; i++) {
        if (readers[i].status != SAP_OK || readers[i].sum != readers[0].sum) {
            (void)fprintf(stderr, "%s\n",
                          readers[i].status != SAP_OK ? readers[i].error.message : "threads read different bytes");
            return 1;
        }
        bytes += readers[i].bytes;
    }
    printf("{\"size\": %llu, \"bytes\": %llu, \"sum\": \"%016llx\", \"open_seconds\": %.6f, \"seconds\": %.6f, "
           "\"requests\": %llu, \"ranges\": %llu, \"received\": %llu, \"retries\": %llu}\n",
           (unsigned long long)sap_source_size(source), (unsigned long long)bytes, (unsigned long long)readers[0].sum,
           opened, seconds, (unsigned long long)stats.requests, (unsigned long long)stats.ranges,
           (unsigned long long)stats.bytes, (unsigned long long)stats.retries);
    return 0;
}

int main(int argc, char **argv) {
    options o;
    if (!parse(argc, argv, &o)) {
        (void)fprintf(stderr, "usage: source_driver URL [--batch MB] [--ahead N] [--scatter BYTES] [--threads N] "
                              "[--repeat N] [--pause MS] [--hash]\n");
        return 2;
    }
    sap_source *source;
    sap_error error = {0};
    double begin = now();
    if (sap_source_open(o.url, NULL, &source, &error) != SAP_OK) {
        (void)fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    double opened = now();
    reader *readers = calloc((size_t)o.threads, sizeof *readers);
    pthread_t *threads = calloc((size_t)o.threads, sizeof *threads);
    for (int i = 0; i < o.threads; i++) {
        readers[i] = (reader){.o = &o, .source = source, .announces = i == 0};
        if (pthread_create(&threads[i], NULL, run_reader, &readers[i]) != 0)
            return 1;
    }
    for (int i = 0; i < o.threads; i++)
        pthread_join(threads[i], NULL);
    int result = report(readers, o.threads, source, opened - begin, now() - opened);
    sap_source_close(source);
    free(threads);
    free(readers);
    return result;
}
