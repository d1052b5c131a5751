/* How much memory there is to be had. */
#include "dataset_internal.h"

#include <stdlib.h>

/* The number that stands behind `after`; UINT64_MAX: there is none, such as "max" where no limit is set. */
static uint64_t number_in(const char *path, const char *after) {
    char *text;
    if (sap_file_load(path, 1 << 20, &text, NULL, NULL) != SAP_OK)
        return UINT64_MAX;
    const char *at = strstr(text, after);
    char *end = NULL;
    unsigned long long value = at ? strtoull(at + strlen(after), &end, 10) : 0;
    bool found = at && end != at + strlen(after);
    free(text);
    return found ? value : UINT64_MAX;
}

uint64_t sap_memory_available(void) {
    uint64_t machine = number_in("/proc/meminfo", "MemAvailable:");
    uint64_t limit = number_in("/sys/fs/cgroup/memory.max", ""), used = number_in("/sys/fs/cgroup/memory.current", "");
    machine = machine == UINT64_MAX ? machine : machine * 1024;
    uint64_t group = limit == UINT64_MAX || used == UINT64_MAX ? UINT64_MAX : limit > used ? limit - used : 0;
    return machine < group ? machine : group;
}
