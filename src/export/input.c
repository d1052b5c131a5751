/* Inputs: "FILE" or "FILE:TREE". */
#include "export_internal.h"

/* Behind "root://user@host:1094", or at the beginning. */
static const char *behind_authority(const char *input) {
    const char *scheme = strstr(input, "://");
    if (!scheme)
        return input;
    const char *slash = strchr(scheme + 3, '/');
    return slash ? slash : input + strlen(input);
}

void sap_input_parse(const char *input, size_t *url_length, const char **tree) {
    static const char ending[] = ".root:";
    const char *path = behind_authority(input), *colon = NULL;
    for (const char *p = path; (p = strstr(p, ending)); p++)
        colon = p + strlen(ending) - 1;
    if (!colon)
        colon = strrchr(path, ':');
    if (colon && (!colon[1] || sap_path_exists(input)))
        colon = NULL;
    *url_length = colon ? (size_t)(colon - input) : strlen(input);
    *tree = colon ? colon + 1 : NULL;
}
