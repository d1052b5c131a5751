/* Runs a fuzz target over the inputs of its corpus, where libFuzzer is not: every file of the folders named. */
#include "fuzz.h"

#include "base/base_internal.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SECONDS_MOST = 60, INPUT_MOST = 1 << 24 };

static char current[2000];

static void too_long(int signal) {
    (void)signal;
    static const char text[] = ": takes too long\n";
    (void)!write(STDERR_FILENO, current, strlen(current));
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

static void replay(const char *path) {
    char *data;
    size_t size;
    sap_error error = {0};
    if (sap_file_load(path, INPUT_MOST, &data, &size, &error) != SAP_OK) {
        (void)fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    (void)alarm(SECONDS_MOST);
    (void)LLVMFuzzerTestOneInput((uint8_t *)data, size);
    (void)alarm(0);
    free(data);
}

int main(int argc, char **argv) {
    size_t count = 0;
    (void)signal(SIGALRM, too_long);
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (!folder) {
            perror(argv[i]);
            return 1;
        }
        for (const struct dirent *entry; (entry = readdir(folder));) {
            if (entry->d_name[0] == '.')
                continue;
            (void)snprintf(current, sizeof current, "%s/%s", argv[i], entry->d_name);
            (void)fprintf(stderr, "%s\n", entry->d_name);
            replay(current);
            count++;
        }
        (void)closedir(folder);
    }
    (void)printf("%zu inputs\n", count);
    return count == 0;
}
