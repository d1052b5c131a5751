/* Users' recipes: a C file compiled by the system's C compiler into a shared object, kept by the hash of what went into
 * it: the file, the files that it includes with quotes, Sapwood's headers, the compiler (its name, and size and time of
 * its program), the flags, and the processor, as -march=native makes code for one kind of it and home folders are shared.
 */
#include "recipe_internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { LARGEST_SOURCE = 16 << 20, DEEPEST_INCLUDE = 16, MOST_WORDS = 32 };

/* The last is left out for other machines. */
static const char *const flags[] = {"-O3", "-std=c17", "-shared", "-fPIC", "-fvisibility=hidden", "-march=native"};
enum { FLAGS = sizeof flags / sizeof *flags };

typedef struct compilation {
    const char *path;
    char *compiler;          /* CC's words, cut apart in place */
    char *words[MOST_WORDS]; /* of the compiler, NULL after the last */
    sap_text include;        /* folder of Sapwood's headers */
    sap_text object;         /* where the shared object is kept */
} compilation;

/* ---- What goes in --------------------------------------------------------------------------------------------- */

static void add_file(sap_text *all, const char *path) {
    char *text = NULL;
    size_t length;
    if (sap_file_load(path, LARGEST_SOURCE, &text, &length, NULL) == SAP_OK)
        sap_text_add(all, "%s %016llx\n", path, (unsigned long long)sap_hash(text, length, 0));
    free(text);
}

/* The length of the folder part of a path, with its slash. */
static int folder_length(const char *path) {
    size_t base;
    return (int)(sap_text_base_name(path, &base) - path);
}

/* Adds the file and, as far as they are found beside it, what it includes with quotes. */
static sap_status add_source(sap_text *all, const char *path, int depth, sap_error *err) {
    char *text = NULL, line_of_it[20];
    size_t length;
    SAP_TRY(sap_file_load(path, LARGEST_SOURCE, &text, &length, err));
    (void)snprintf(line_of_it, sizeof line_of_it, "%016llx\n", (unsigned long long)sap_hash(text, length, 0));
    if (all->data && strstr(all->data, line_of_it)) { /* files that include each other are read once */
        free(text);
        return SAP_OK;
    }
    sap_text_add(all, "%s", line_of_it);
    char *state = NULL;
    for (char *line = strtok_r(text, "\n", &state); line && depth < DEEPEST_INCLUDE;
         line = strtok_r(NULL, "\n", &state)) {
        char name[1024];
        if (sscanf(line, " # include \"%1023[^\"]\"", name) != 1)
            continue;
        sap_text beside = {0};
        if (name[0] == '/')
            sap_text_add(&beside, "%s", name);
        else
            sap_text_add(&beside, "%.*s%s", folder_length(path), path, name);
        if (!beside.failed && sap_path_exists(beside.data))
            (void)add_source(all, beside.data, depth + 1, NULL);
        sap_text_release(&beside);
    }
    free(text);
    return SAP_OK;
}

sap_status sap_recipe_source_hash(const char *path, uint64_t *out, sap_error *err) {
    sap_text all = {0};
    sap_status status = add_source(&all, path, 0, err);
    if (status == SAP_OK && all.failed)
        status = sap_error_memory(err, path);
    if (status == SAP_OK)
        *out = sap_hash(all.data, all.length, 0);
    sap_text_release(&all);
    return status;
}

/* The lines of /proc/cpuinfo that say which instructions the first processor has. */
static void add_processor(sap_text *all) {
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t capacity = 0;
    while (file && getline(&line, &capacity, file) > 1)
        if (strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0 || strncmp(line, "model name", 10) == 0)
            sap_text_add(all, "%s", line);
    free(line);
    if (file)
        (void)fclose(file);
}

/* The compiler's program, by its size and time: an update compiles anew. */
static void add_program(sap_text *all, const char *name) {
    const char *path = strchr(name, '/') ? "" : getenv("PATH");
    struct stat info;
    while (path) {
        size_t length = strcspn(path, ":");
        sap_text program = {0};
        sap_text_add(&program, "%.*s%s%s", (int)length, path, length ? "/" : "", name);
        bool found = !program.failed && stat(program.data, &info) == 0 && S_ISREG(info.st_mode);
        if (found)
            sap_text_add(all, "%s %lld %lld\n", program.data, (long long)info.st_size, (long long)info.st_mtime);
        sap_text_release(&program);
        path = found || !path[length] ? NULL : path + length + 1;
    }
}

/* ---- Where things are ------------------------------------------------------------------------------------------ */

static bool has_headers(const sap_text *folder) {
    sap_text header = {0};
    sap_text_add(&header, "%s/sapwood/recipe.h", folder->data ? folder->data : "");
    bool found = !header.failed && sap_path_exists(header.data);
    sap_text_release(&header);
    return found;
}

/* SAPWOOD_INCLUDE, else beside the library as installed, else where this build had them. */
static sap_status find_headers(sap_text *include, sap_error *err) {
    const char *asked = getenv("SAPWOOD_INCLUDE");
    Dl_info own = {0};
    if (!dladdr((void *)(uintptr_t)&sap_recipe_compile, &own) || !own.dli_fname)
        own.dli_fname = "";
    static const char *const beside[] = {"../include", "../../include", "include"};
    if (asked && *asked) {
        sap_text_add(include, "%s", asked);
        if (has_headers(include))
            return SAP_OK;
        return sap_error_set(err, SAP_ENOTFOUND,
                             "%s/sapwood/recipe.h: no such file (SAPWOOD_INCLUDE names that folder)", asked);
    }
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        sap_text_release(include);
        sap_text_add(include, "%.*s%s", folder_length(own.dli_fname), own.dli_fname, beside[i]);
        if (has_headers(include))
            return SAP_OK;
    }
    sap_text_release(include);
    sap_text_add(include, "%s", SAPWOOD_INCLUDE_FOLDER);
    if (has_headers(include))
        return SAP_OK;
    return sap_error_set(
        err, SAP_ENOTFOUND,
        "Sapwood's headers are neither beside %s nor in %s: set SAPWOOD_INCLUDE to the folder that has "
        "sapwood/recipe.h",
        own.dli_fname, SAPWOOD_INCLUDE_FOLDER);
}

static sap_status find_cache(sap_text *folder, sap_error *err) {
    const char *own = getenv("SAPWOOD_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own)
        sap_text_add(folder, "%s/recipes", own);
    else if (xdg && *xdg)
        sap_text_add(folder, "%s/sapwood/recipes", xdg);
    else if (home && *home)
        sap_text_add(folder, "%s/.cache/sapwood/recipes", home);
    else
        return sap_error_set(err, SAP_EARGUMENT, "nowhere to keep compiled recipes: set SAPWOOD_CACHE to a folder");
    if (folder->failed)
        return sap_error_memory(err, "recipe");
    sap_status status = sap_folder_make(folder->data, err);
    if (status != SAP_OK)
        return sap_error_prefix(err, "folder for compiled recipes (SAPWOOD_CACHE)");
    return SAP_OK;
}

static sap_status find_compiler(compilation *c, sap_error *err) {
    const char *name = getenv("CC");
    c->compiler = strdup(name && *name ? name : "cc");
    if (!c->compiler)
        return sap_error_memory(err, c->path);
    size_t count = 0;
    char *state = NULL;
    for (char *word = strtok_r(c->compiler, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        if (count + 1 == MOST_WORDS)
            return sap_error_set(err, SAP_EARGUMENT, "CC has more than %d words", MOST_WORDS - 1);
        c->words[count++] = word;
    }
    return count ? SAP_OK : sap_error_set(err, SAP_EARGUMENT, "CC is set to blanks, expected a C compiler");
}

/* Names the shared object by the hash of everything that goes into it. */
static sap_status name_object(compilation *c, sap_error *err) {
    sap_text all = {0}, folder = {0};
    sap_text_add(&all, "abi %d\n%s\n", SAP_RECIPE_ABI, c->path);
    sap_status status = add_source(&all, c->path, 0, err);
    if (status != SAP_OK)
        goto done;
    static const char *const headers[] = {"base.h", "column.h", "recipe.h"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        sap_text header = {0};
        sap_text_add(&header, "%s/sapwood/%s", c->include.data, headers[i]);
        if (!header.failed)
            add_file(&all, header.data);
        sap_text_release(&header);
    }
    for (size_t i = 0; c->words[i]; i++)
        sap_text_add(&all, "%s ", c->words[i]);
    for (size_t i = 0; i < FLAGS; i++)
        sap_text_add(&all, "%s ", flags[i]);
    add_program(&all, c->words[0]);
    add_processor(&all);
    status = find_cache(&folder, err);
    if (status != SAP_OK)
        goto done;
    size_t length;
    const char *base = sap_text_base_name(c->path, &length);
    if (length > 2)
        length -= 2; /* ".c" */
    if (!all.failed)
        sap_text_add(&c->object, "%s/%.*s-%016llx.so", folder.data, (int)(length < 100 ? length : 100), base,
                     (unsigned long long)sap_hash(all.data, all.length, 0));
    if (all.failed || c->object.failed)
        status = sap_error_memory(err, c->path);
done:
    sap_text_release(&all);
    sap_text_release(&folder);
    return status;
}

/* ---- The compiler ---------------------------------------------------------------------------------------------- */

/* Reads what the compiler says to its end, and keeps the beginning of it. */
static void read_all(int fd, char *said, size_t capacity) {
    size_t used = 0;
    char rest[4096];
    for (;;) {
        bool room = used + 1 < capacity;
        ssize_t got = room ? read(fd, said + used, capacity - 1 - used) : read(fd, rest, sizeof rest);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        if (room)
            used += (size_t)got;
    }
    while (used > 0 && said[used - 1] == '\n')
        used--;
    said[used] = '\0';
}

/* Starts argv with its output and errors into `pipe_out`. Signals that this thread blocks are not blocked in it. */
static int start(char *const *argv, int pipe_out, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed)
        return failed;
    failed = posix_spawnattr_init(&attributes);
    if (!failed) {
        failed = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, pipe_out, STDOUT_FILENO);
        failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, pipe_out, STDERR_FILENO);
        failed = failed ? failed : posix_spawnattr_setsigmask(&attributes, &none);
        failed = failed ? failed : posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        failed = failed ? failed : posix_spawnp(pid, argv[0], &actions, &attributes, argv, environ);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static sap_status run_compiler(const compilation *c, char *const *argv, const char *result, sap_error *err) {
    int ends[2];
    pid_t pid = 0;
    char said[700];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return sap_error_errno(err, c->path);
    int failed = start(argv, ends[1], &pid);
    (void)close(ends[1]);
    if (failed) {
        (void)close(ends[0]);
        return sap_error_set(err, SAP_EARGUMENT, "%s: the C compiler \"%s\" does not start: %s (CC names another)",
                             c->path, argv[0], strerror(failed));
    }
    read_all(ends[0], said, sizeof said);
    (void)close(ends[0]);
    int state = 0;
    pid_t ended;
    while ((ended = waitpid(pid, &state, 0)) < 0 && errno == EINTR) {
    }
    /* A program that ignores SIGCHLD cannot wait: then the result must speak. */
    bool good = ended != pid || (WIFEXITED(state) && WEXITSTATUS(state) == 0);
    if (!good || !sap_path_exists(result))
        return sap_error_set(err, SAP_EARGUMENT, "%s: does not compile: %s", c->path,
                             said[0] ? said : "the compiler made nothing and said nothing");
    return SAP_OK;
}

/* Compiles beside the place where the object is kept, and renames. native: for this processor. */
static sap_status compile(const compilation *c, bool native, sap_error *err) {
    sap_text aside = {0}, include = {0};
    sap_text_add(&aside, "%s.XXXXXX", c->object.data);
    sap_text_add(&include, "-I%s", c->include.data);
    if (aside.failed || include.failed) {
        sap_text_release(&aside);
        sap_text_release(&include);
        return sap_error_memory(err, c->path);
    }
    sap_status status;
    int fd = mkstemp(aside.data);
    if (fd < 0) {
        status = sap_error_errno(err, aside.data);
        goto done;
    }
    (void)close(fd);
    char *argv[MOST_WORDS + FLAGS + 8];
    size_t count = 0;
    for (size_t i = 0; c->words[i]; i++)
        argv[count++] = c->words[i];
    for (size_t i = 0; i < (native ? FLAGS : FLAGS - 1); i++)
        argv[count++] = (char *)(uintptr_t)flags[i];
    argv[count++] = include.data;
    argv[count++] = "-o";
    argv[count++] = aside.data;
    argv[count++] = (char *)(uintptr_t)c->path;
    argv[count++] = "-lm";
    argv[count] = NULL;
    (void)unlink(aside.data); /* so that a compiler that fails leaves no empty file to be taken for its result */
    status = run_compiler(c, argv, aside.data, err);
    if (status == SAP_OK && rename(aside.data, c->object.data) != 0)
        status = sap_error_errno(err, c->object.data);
    if (status != SAP_OK)
        (void)unlink(aside.data);
done:
    sap_text_release(&aside);
    sap_text_release(&include);
    return status;
}

/* ---- The shared object ------------------------------------------------------------------------------------------ */

static sap_status load(const char *object, const char *path, const sap_recipe **out, sap_error *err) {
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL); /* kept open: recipes live as long as the process */
    if (!handle) {
        const char *reason = dlerror();
        return sap_error_set(err, SAP_EARGUMENT, "%s: does not load: %s", path, reason ? reason : object);
    }
    const sap_recipe *(*define)(void) = NULL;
    void *symbol = dlsym(handle, "sap_recipe_define");
    memcpy(&define, &symbol, sizeof define);
    if (!define) {
        (void)dlclose(handle);
        return sap_error_set(err, SAP_EARGUMENT, "%s: does not define sap_recipe_define()", path);
    }
    *out = define();
    return SAP_OK;
}

sap_status sap_recipe_compile(const char *path, const sap_recipe **out, sap_error *err) {
    compilation c = {.path = path};
    sap_status status = find_compiler(&c, err);
    if (status == SAP_OK)
        status = find_headers(&c.include, err);
    if (status == SAP_OK)
        status = name_object(&c, err);
    bool kept = status == SAP_OK && sap_path_exists(c.object.data);
    if (kept && load(c.object.data, path, out, NULL) != SAP_OK)
        kept = false; /* spoilt, or of a system that was since updated: made anew */
    if (status == SAP_OK && !kept) {
        status = compile(&c, true, err);
        if (status == SAP_OK)
            status = load(c.object.data, path, out, err);
    }
    sap_text_release(&c.include);
    sap_text_release(&c.object);
    free(c.compiler);
    return status;
}

sap_status sap_recipe_load(const char *object, const sap_recipe **out, sap_error *err) {
    return load(object, object, out, err);
}

sap_status sap_recipe_build(const char *path, const char *object, sap_error *err) {
    compilation c = {.path = path};
    sap_text_add(&c.object, "%s", object);
    sap_status status = c.object.failed ? sap_error_memory(err, path) : find_compiler(&c, err);
    if (status == SAP_OK)
        status = find_headers(&c.include, err);
    if (status == SAP_OK)
        status = compile(&c, false, err);
    sap_text_release(&c.include);
    sap_text_release(&c.object);
    free(c.compiler);
    return status;
}
