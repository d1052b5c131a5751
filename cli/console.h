/* The terminal: progress, interruption, messages; what all commands share. */
#ifndef SAPWOOD_CONSOLE_H
#define SAPWOOD_CONSOLE_H

#include <sapwood/sapwood.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* A run with a pool of that many threads (0: all cores), progress on stderr unless quiet, and a cancel flag that Ctrl-C sets. One a
 * process; closed by console_close. NULL after printing an error. */
const sap_run *console_open(int threads, bool quiet);
void console_close(void);
/* Whether Ctrl-C or SIGTERM has come since console_open. */
bool console_interrupted(void);

/* Prints the error; returns the exit status for it. */
int console_fail(const sap_error *err);

/* "--threads N" and the like as a whole number; false after printing what is wrong. */
bool console_number(const char *name, const char *text, long smallest, long largest, long *out);

/* Bytes as people write them: "9.6 MB". Returns out. */
char *console_bytes(uint64_t bytes, char *out, size_t capacity);

/* Columns on the terminal that UTF-8 text takes, near enough: one a code point. */
int console_width(const char *text);
/* Prints the text, with blanks behind it up to that width. */
void console_pad(const char *text, int width);

/* Prints a text as JSON; bytes that are not UTF-8 are taken as Latin-1. */
void console_json_text(const char *text);
/* "name":"text", or "name":null. */
void console_json_member(const char *name, const char *text);

/* After --verbose: what reading a remote file has cost, as a line on stderr. */
void console_traffic(const sap_file *file);

/* For commands on files: parses `FILE… [--threads N] [--json] [--verbose] [--help]`, and calls `visit` for every file that the names and
 * patterns stand for; it prints, and returns whether all was well. Returns the exit status. */
int console_visit_files(int argc, char **argv, const char *help,
                        bool (*visit)(const char *url, const sap_run *run, bool json));

/* An option of a command, and the variable that it sets. */
typedef enum console_kind {
    CONSOLE_SWITCH, /* bool */
    CONSOLE_TEXT,   /* const char * */
    CONSOLE_TEXTS,  /* console_texts; may be given again */
    CONSOLE_NUMBER, /* long, not negative */
    CONSOLE_REAL    /* double */
} console_kind;

typedef struct console_option {
    const char *name; /* NULL: the last */
    const char *argument, *help;
    console_kind kind;
    void *out;
} console_option;

typedef struct console_texts {
    const char **items; /* (count) borrowed from argv; the table is freed with free() */
    size_t count;
} console_texts;

/* Options (`--name value`, `--name=value`, `-o` for output) into their variables, all other words into `files`. Returns -1, or the
 * exit status to end with: after --help (`text`, then the options), or a mistake that was printed. */
int console_options(int argc, char **argv, const console_option *options, const char *text, console_texts *files);
/* "FIRST:END"; false after printing what is wrong. end 0: to the last. */
bool console_entries(const char *text, int64_t *begin, int64_t *end);
/* Splits texts such as "Jet.*,!Jet.T" at their commas, inside argv; false: out of memory. */
bool console_split(console_texts *texts);

int sap_command_ls(int argc, char **argv);
int sap_command_show(int argc, char **argv);
int sap_command_export(int argc, char **argv);
int sap_command_compare(int argc, char **argv);
int sap_command_compile(int argc, char **argv);
int sap_command_digest(int argc, char **argv);
int sap_command_stage(int argc, char **argv);
int sap_command_run(int argc, char **argv);

/* Prints what a stage gave (its result as JSON text) for people. */
void stage_print(const char *stage, const char *result);
/* Runs a stage that Python does, as `python -m sapwood._report` or `python -m sapwood._tensorflow` (train), with these arguments. */
sap_status python_run(void *context, const char *stage, const char *const *arguments, size_t count, sap_error *err);

#endif
