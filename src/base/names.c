/* Names: patterns, natural order, the nearest ones to a misspelt name, base names of paths and URLs. */
#include "base_internal.h"

#include <ctype.h>
#include <stdlib.h>

bool sap_text_matches(const char *pattern, const char *text) {
    const char *star = NULL, *retry = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            retry = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

int sap_text_natural(const char *a, const char *b) {
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            while (*a == '0')
                a++;
            while (*b == '0')
                b++;
            size_t na = strspn(a, "0123456789"), nb = strspn(b, "0123456789");
            if (na != nb)
                return na < nb ? -1 : 1;
            int order = strncmp(a, b, na);
            if (order)
                return order < 0 ? -1 : 1;
            a += na;
            b += nb;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return *a ? 1 : *b ? -1 : 0;
}

enum { LONGEST_NAME = 200, NEAREST = 5 };

/* Number of single-letter edits between two names, case counting half; large when they are long. */
static unsigned edit_distance(const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b);
    if (na > LONGEST_NAME || nb > LONGEST_NAME)
        return 1000;
    unsigned row[LONGEST_NAME + 1];
    for (size_t j = 0; j <= nb; j++)
        row[j] = 2 * (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned diagonal = row[0];
        row[0] = 2 * (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned above = row[j], left = row[j - 1];
            bool same_letter = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            unsigned change = diagonal + (a[i - 1] == b[j - 1] ? 0 : same_letter ? 1 : 2);
            unsigned best = above < left ? above + 2 : left + 2;
            row[j] = change < best ? change : best;
            diagonal = above;
        }
    }
    unsigned distance = row[nb];
    if (na >= 2 && strstr(b, a)) /* "PT" should find "Jet.PT" */
        distance = distance / 4 + 1;
    return distance;
}

void sap_text_nearest(const char *name, size_t count, const char *(*name_at)(const void *context, size_t index),
                      const void *context, char *out, size_t capacity) {
    const char *best[NEAREST] = {0};
    unsigned best_distance[NEAREST];
    size_t found = 0;
    unsigned limit = (unsigned)strlen(name) + 4;
    for (size_t i = 0; i < count; i++) {
        const char *candidate = name_at(context, i);
        unsigned distance = candidate ? edit_distance(name, candidate) : 1000;
        if (distance > limit)
            continue;
        size_t at = found;
        while (at > 0 && best_distance[at - 1] > distance)
            at--;
        if (at >= NEAREST)
            continue;
        if (found < NEAREST)
            found++;
        for (size_t j = found - 1; j > at; j--) {
            best[j] = best[j - 1];
            best_distance[j] = best_distance[j - 1];
        }
        best[at] = candidate;
        best_distance[at] = distance;
    }
    size_t length = 0;
    if (capacity)
        out[0] = '\0';
    for (size_t i = 0; i < found && length < capacity; i++) {
        int added = snprintf(out + length, capacity - length, "%s%s", i ? ", " : "; nearest: ", best[i]);
        length += added > 0 ? (size_t)added : 0;
    }
}

const char *sap_text_base_name(const char *url, size_t *length) {
    const char *query = strstr(url, "://") ? strchr(url, '?') : NULL;
    const char *end = query ? query : url + strlen(url);
    const char *start = end;
    while (start > url && start[-1] != '/')
        start--;
    *length = (size_t)(end - start);
    return start;
}
