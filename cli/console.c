/* The terminal: a bar on a terminal, plain lines in a log; Ctrl-C sets the cancel flag, a second one ends the process. */
#include "console.h"

#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    sap_run run;
    volatile int cancel;
    bool quiet, verbose, terminal, bar_shown;
    double shown_at; /* seconds */
    char stage[32];
} console;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void on_interrupt(int number) {
    console.cancel = 1;
    signal(number, SIG_DFL); /* the second time it ends the process */
}

static void clear_bar(void) {
    if (console.bar_shown)
        (void)fputs("\r\033[K", stderr);
    console.bar_shown = false;
}

char *console_bytes(uint64_t bytes, char *out, size_t capacity) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(out, capacity, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

int console_width(const char *text) {
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void console_pad(const char *text, int width) {
    (void)fputs(text, stdout);
    for (int n = console_width(text); n < width; n++)
        (void)putchar(' ');
}

/* How many a second since the stage was first heard of; a training that goes on begins in the middle. */
static double rate(const sap_progress *p) {
    static char stage[32];
    static uint64_t first;
    static double since;
    double now = seconds();
    if (strncmp(stage, p->stage, sizeof stage - 1) != 0 || p->done < first) {
        (void)snprintf(stage, sizeof stage, "%s", p->stage);
        first = p->done;
        since = now;
    }
    return now > since + 1 ? (double)(p->done - first) / (now - since) : 0;
}

static void amount(const sap_progress *p, char *out, size_t capacity) {
    char done[32], total[32];
    double a_second = strcmp(p->unit, "samples") == 0 ? rate(p) : 0;
    if (strcmp(p->unit, "bytes") == 0)
        (void)snprintf(out, capacity, "%s of %s", console_bytes(p->done, done, sizeof done),
                       console_bytes(p->total, total, sizeof total));
    else if (p->total)
        (void)snprintf(out, capacity, a_second > 0 ? "%llu of %llu %s, %.3g a second" : "%llu of %llu %s",
                       (unsigned long long)p->done, (unsigned long long)p->total, p->unit, a_second);
    else
        (void)snprintf(out, capacity, "%llu %s", (unsigned long long)p->done, p->unit);
}

static void show_bar(const sap_progress *p, double now) {
    enum { WIDTH = 30 };
    if (now - console.shown_at < 0.1 && p->done != p->total)
        return;
    console.shown_at = now;
    char text[100], bar[WIDTH + 1];
    amount(p, text, sizeof text);
    size_t filled = p->total ? (size_t)((double)p->done / (double)p->total * WIDTH) : 0;
    for (size_t i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = '\0';
    (void)fprintf(stderr, "\r\033[K%-9s [%s] %s", p->stage, bar, text);
    (void)fflush(stderr);
    console.bar_shown = true;
}

/* In a log: a line every ten seconds, so that a long job can be followed. */
static void show_line(const sap_progress *p, double now) {
    enum { SECONDS_BETWEEN = 10 };
    if (strncmp(console.stage, p->stage, sizeof console.stage - 1) != 0) {
        (void)snprintf(console.stage, sizeof console.stage, "%s", p->stage);
        console.shown_at = now;
    }
    if (now - console.shown_at < SECONDS_BETWEEN)
        return;
    console.shown_at = now;
    char text[100];
    amount(p, text, sizeof text);
    (void)fprintf(stderr, "%s: %s\n", p->stage, text);
}

static void on_progress(void *context, const sap_progress *p) {
    (void)context;
    if (p->message) {
        clear_bar();
        (void)fprintf(stderr, "%s\n", p->message);
    } else if (console.terminal) {
        show_bar(p, seconds());
    } else {
        show_line(p, seconds());
    }
}

/* Batches come and go, tens of megabytes at a time. Given back to the system and taken again, their pages would be zeroed anew for
 * each batch, by one thread at a time: that took a third of all time in `prepare`. */
static void keep_freed_memory(void) {
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

const sap_run *console_open(int threads, bool quiet) {
    sap_error err = {0};
    keep_freed_memory();
    console.quiet = quiet;
    console.terminal = isatty(STDERR_FILENO) == 1;
    console.run = (sap_run){.progress = quiet ? NULL : on_progress, .cancel = &console.cancel};
    if (sap_pool_open(threads, &console.run.pool, &err) != SAP_OK) {
        (void)console_fail(&err);
        return NULL;
    }
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, with a message */
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN); /* likewise a file that grows past its limit */
#endif
    return &console.run;
}

bool console_interrupted(void) {
    return console.cancel != 0;
}

void console_close(void) {
    clear_bar();
    sap_pool_close(console.run.pool);
    console.run.pool = NULL;
}

int console_fail(const sap_error *err) {
    clear_bar();
    if (err->status == SAP_EPEER) /* that one says it */
        return EXIT_FAILED;
    (void)fprintf(stderr, "sapwood: %s\n", err->message[0] ? err->message : sap_status_name(err->status));
    if (err->status == SAP_ECANCELLED)
        return EXIT_INTERRUPTED;
    return err->status == SAP_EARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

bool console_number(const char *name, const char *text, long smallest, long largest, long *out) {
    char *end = NULL;
    errno = 0;
    *out = text ? strtol(text, &end, 10) : 0;
    if (text && end != text && !*end && !errno && *out >= smallest && *out <= largest)
        return true;
    (void)fprintf(stderr, "sapwood: %s should be a whole number from %ld to %ld, but is \"%s\"\n", name, smallest,
                  largest, text ? text : "");
    return false;
}

void console_json_text(const char *text) {
    json_t *json = json_string(text);
    if (!json) {
        char *utf8 = calloc(2 * strlen(text) + 1, 1), *out = utf8;
        for (const unsigned char *p = (const unsigned char *)text; utf8 && *p; p++) {
            if (*p >= 0x80)
                *out++ = (char)(0xc0 | *p >> 6);
            *out++ = (char)(*p < 0x80 ? *p : 0x80 | (*p & 0x3f));
        }
        json = json_string(utf8 ? utf8 : "");
        free(utf8);
    }
    (void)json_dumpf(json, stdout, JSON_ENCODE_ANY);
    json_decref(json);
}

void console_json_member(const char *name, const char *text) {
    (void)printf("\"%s\":", name);
    if (text)
        console_json_text(text);
    else
        (void)fputs("null", stdout);
}

void console_traffic(const sap_file *file) {
    const sap_source *source = sap_file_source(file);
    if (!console.verbose || !sap_source_is_remote(source))
        return;
    sap_source_stats stats;
    char bytes[32], cached[32];
    sap_source_stats_get(source, &stats);
    (void)fprintf(stderr, "%s: %llu requests (%llu of them again) for %llu ranges, %s received, %s from the cache\n",
                  sap_file_name(file), (unsigned long long)stats.requests, (unsigned long long)stats.retries,
                  (unsigned long long)stats.ranges, console_bytes(stats.bytes, bytes, sizeof bytes),
                  console_bytes(stats.cached_bytes, cached, sizeof cached));
}

int console_visit_files(int argc, char **argv, const char *help,
                        bool (*visit)(const char *url, const sap_run *run, bool json)) {
    long threads = 0;
    bool json = false, well = true;
    int files = 0; /* moved to the front of argv */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            (void)fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--threads") == 0) {
            if (!console_number("--threads", argv[++i], 0, 4096, &threads)) /* argv ends with NULL */
                return EXIT_USAGE;
        } else if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            console.verbose = true;
        } else if (argv[i][0] == '-') {
            (void)fprintf(stderr, "sapwood %s: unknown option %s\n", argv[0], argv[i]);
            return EXIT_USAGE;
        } else {
            argv[1 + files++] = argv[i];
        }
    }
    if (files == 0) {
        (void)fputs(help, stderr);
        return EXIT_USAGE;
    }
    const sap_run *run = console_open((int)threads, true);
    if (!run)
        return EXIT_FAILED;
    for (int i = 1; i <= files && !console.cancel; i++) {
        char **names = NULL;
        size_t count = 0;
        sap_error err = {0};
        if (sap_source_glob(argv[i], run, &names, &count, &err) != SAP_OK)
            well = console_fail(&err) == EXIT_OK;
        for (size_t j = 0; j < count && !console.cancel; j++)
            well = visit(names[j], run, json) && well;
        free(names);
    }
    console_close();
    return console.cancel ? EXIT_INTERRUPTED : well ? EXIT_OK : EXIT_FAILED;
}
