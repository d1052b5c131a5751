/* Options of commands that have a few of their own: from a table into variables. */
#include "console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const console_option *find(const console_option *options, const char *name, size_t length) {
    for (; options->name; options++)
        if (strlen(options->name) == length && strncmp(options->name, name, length) == 0)
            return options;
    return NULL;
}

static void help(const console_option *options, const char *text) {
    (void)printf("%s\n", text);
    for (; options->name; options++) {
        char left[80];
        (void)snprintf(left, sizeof left, "--%s %s", options->name, options->argument ? options->argument : "");
        (void)printf("  %-22s %s\n", left, options->help);
    }
}

static bool add_text(console_texts *texts, const char *text) {
    const char **grown = realloc(texts->items, (texts->count + 1) * sizeof *grown);
    if (!grown)
        return false;
    texts->items = grown;
    texts->items[texts->count++] = text;
    return true;
}

/* One option with its value; false after saying what is wrong. */
static bool take(const console_option *o, const char *value) {
    char label[64];
    char *end;
    (void)snprintf(label, sizeof label, "--%s", o->name);
    switch (o->kind) {
    case CONSOLE_SWITCH:
        *(bool *)o->out = true;
        return true;
    case CONSOLE_TEXT:
        *(const char **)o->out = value;
        return true;
    case CONSOLE_TEXTS:
        return add_text(o->out, value);
    case CONSOLE_NUMBER:
        return console_number(label, value, 0, 1000000000, o->out);
    case CONSOLE_REAL:
        *(double *)o->out = strtod(value, &end);
        if (end != value && !*end)
            return true;
        (void)fprintf(stderr, "sapwood: %s should be a number, but is \"%s\"\n", label, value);
        return false;
    }
    return false;
}

int console_options(int argc, char **argv, const console_option *options, const char *text, console_texts *files) {
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            help(options, text);
            return EXIT_OK;
        }
        const console_option *o = NULL;
        const char *value = NULL;
        if (strcmp(word, "-o") == 0) {
            o = find(options, "output", strlen("output"));
        } else if (strncmp(word, "--", 2) == 0 && word[2]) {
            size_t length = strcspn(word + 2, "=");
            o = find(options, word + 2, length);
            value = word[2 + length] ? word + 3 + length : NULL;
        } else if (word[0] != '-') {
            if (!add_text(files, word))
                return EXIT_FAILED;
            continue;
        }
        if (!o) {
            (void)fprintf(stderr, "sapwood %s: unknown option %s\n", argv[0], word);
            return EXIT_USAGE;
        }
        if (o->kind != CONSOLE_SWITCH && !value && ++i < argc)
            value = argv[i];
        if (o->kind == CONSOLE_SWITCH ? value != NULL : value == NULL) {
            (void)fprintf(stderr, "sapwood %s: --%s %s\n", argv[0], o->name,
                          value ? "takes no value" : "needs a value");
            return EXIT_USAGE;
        }
        if (!take(o, value))
            return EXIT_USAGE;
    }
    return -1;
}

bool console_split(console_texts *texts) {
    size_t count = texts->count;
    for (size_t i = 0; i < count; i++) {
        char *at = (char *)(uintptr_t)texts->items[i]; /* of argv, which may be written to */
        while ((at = strchr(at, ','))) {
            *at++ = '\0';
            if (!add_text(texts, at))
                return false;
        }
    }
    return true;
}

bool console_entries(const char *text, int64_t *begin, int64_t *end) {
    const char *colon = strchr(text, ':');
    char *stop = NULL;
    *begin = colon && colon > text ? strtoll(text, &stop, 10) : 0;
    bool well = colon && (colon == text || stop == colon) && *begin >= 0;
    *end = well && colon[1] ? strtoll(colon + 1, &stop, 10) : 0;
    if (well && (!colon[1] || (!*stop && *end > *begin)))
        return true;
    (void)fprintf(stderr, "sapwood: --entries should be FIRST:END, such as 0:1000 or 1000:, but is \"%s\"\n", text);
    return false;
}
