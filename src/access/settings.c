/* The one table of times and limits of access, and their reading from the environment. docs/access.md shows the table. */
#include "../base/numbers.h"
#include "access_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

typedef enum kind { SECONDS, BYTES, COUNT, SWITCH, TEXT } kind;

typedef struct setting {
    sap_setting shown;
    kind kind;
    size_t place; /* in sap_access_settings */
} setting;

#define PLACE(field) offsetof(sap_access_settings, field)

static const setting table[] = {
    {{"SAPWOOD_CONNECT_SECONDS", "30", "seconds", "to open, list, rename or remove a remote file, tries again and all",
      0.01, 86400},
     SECONDS,
     PLACE(connect_seconds)},
    {{"SAPWOOD_STALL_SECONDS", "15", "seconds",
      "without an answer, until a connection is dropped and its requests are sent again", 0.01, 86400},
     SECONDS,
     PLACE(stall_seconds)},
    {{"SAPWOOD_DEADLINE_SECONDS", "120", "seconds", "of waiting, in which no request is answered, until a read fails",
      0.01, 86400},
     SECONDS,
     PLACE(deadline_seconds)},
    {{"SAPWOOD_REQUEST_BYTES", "8 MB", "bytes", "of one request at most", 4096, 1e9}, BYTES, PLACE(request_bytes)},
    {{"SAPWOOD_GAP_BYTES", "64 kB", "bytes", "nobody asked for, read to make one request of two", 0, 1e9},
     BYTES,
     PLACE(gap_bytes)},
    {{"SAPWOOD_IN_FLIGHT", "8", "requests", "of one file under way at once, at most", 1, 1000},
     COUNT,
     PLACE(in_flight)},
    {{"SAPWOOD_MMAP", "yes", "yes or no", "local files are mapped into memory, where their file system is a local one",
      0, 0},
     SWITCH,
     PLACE(map)},
    {{"SAPWOOD_WRITE_ASIDE", "yes", "yes or no",
      "files are written under another name until they are whole; no: for servers that cannot rename", 0, 0},
     SWITCH,
     PLACE(write_aside)},
    {{"SAPWOOD_CACHE", "", "folder", "where what was read from remote files is kept; not set: nowhere", 0, 0},
     TEXT,
     PLACE(cache)},
    {{"SAPWOOD_CACHE_BYTES", "10 GB", "bytes", "in the cache at most; what was not used for longest goes first", 1e6,
      1e15},
     BYTES,
     PLACE(cache_bytes)},
};
enum { SETTING_COUNT = sizeof table / sizeof *table };

const sap_setting *sap_settings_at(size_t index) {
    return index < SETTING_COUNT ? &table[index].shown : NULL;
}

/* "250", "1.5", "64 kB", "8MB": powers of a thousand. */
static bool parse_number(const char *text, bool bytes, double *out) {
    char *end;
    *out = sap_real_parse(text, &end);
    if (end == text)
        return false;
    while (isspace((unsigned char)*end))
        end++;
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double factor = 1;
    for (size_t i = 0; bytes && *end && i < sizeof units / sizeof *units; i++, factor *= 1000) {
        if (strcasecmp(end, units[i]) == 0) {
            *out *= factor;
            return true;
        }
    }
    return *end == '\0';
}

static bool parse_switch(const char *text, bool *out) {
    bool yes = strcasecmp(text, "yes") == 0 || strcmp(text, "1") == 0;
    *out = yes;
    return yes || strcasecmp(text, "no") == 0 || strcmp(text, "0") == 0;
}

static sap_status take(const setting *s, const char *text, sap_access_settings *out, sap_error *err) {
    void *place = (char *)out + s->place;
    double number = 0;
    if (s->kind == TEXT) {
        char *copy = *text ? strdup(text) : NULL;
        if (*text && !copy)
            return sap_error_memory(err, s->shown.name);
        *(char **)place = copy;
        return SAP_OK;
    }
    if (s->kind == SWITCH)
        return parse_switch(text, place)
                   ? SAP_OK
                   : sap_error_set(err, SAP_EARGUMENT, "%s: \"%.50s\" is neither yes nor no", s->shown.name, text);
    if (!parse_number(text, s->kind == BYTES, &number) || !(number >= s->shown.least && number <= s->shown.most))
        return sap_error_set(err, SAP_EARGUMENT, "%s: \"%.50s\" is not a number of %s from %g to %g", s->shown.name,
                             text, s->shown.unit, s->shown.least, s->shown.most);
    if (s->kind == SECONDS)
        *(double *)place = number;
    else if (s->kind == COUNT)
        *(int *)place = (int)number;
    else
        *(uint64_t *)place = (uint64_t)number;
    return SAP_OK;
}

sap_status sap_settings_init(sap_access_settings *out, sap_error *err) {
    *out = (sap_access_settings){0};
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const char *text = getenv(table[i].shown.name);
        sap_status status = take(&table[i], text && *text ? text : table[i].shown.standard, out, err);
        if (status != SAP_OK) {
            sap_settings_release(out);
            return status;
        }
    }
    return SAP_OK;
}

void sap_settings_release(sap_access_settings *settings) {
    free(settings->cache);
    settings->cache = NULL;
}
