/* Numbers as text and back, with a decimal point whatever locale the program has set: Python's and the JVM's users do. */
#include "numbers.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static locale_t point;

static void find_point(void) {
    point = newlocale(LC_ALL_MASK, "C", NULL); /* the C library's own, which takes no memory */
}

double sap_real_parse(const char *text, char **end) {
    (void)pthread_once(&once, find_point);
    return strtod_l(text, end, point);
}

void sap_real_print(char text[SAP_REAL_TEXT], double value, int digits) {
    (void)pthread_once(&once, find_point);
    locale_t before = uselocale(point);
    (void)snprintf(text, SAP_REAL_TEXT, "%.*g", digits, value);
    (void)uselocale(before);
}

void sap_real_shortest(char text[SAP_REAL_TEXT], double value, bool single) {
    for (int digits = single ? 6 : 15; digits <= 17; digits++) {
        sap_real_print(text, value, digits);
        if (single ? strtof_l(text, NULL, point) == (float)value : strtod_l(text, NULL, point) == value)
            return;
    }
}
