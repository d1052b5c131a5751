/* Numbers as text and back, with a decimal point in every locale: what is read from files, options and conditions, and what is written to be
 * read again. */
#ifndef SAP_NUMBERS_H
#define SAP_NUMBERS_H

#include <stdbool.h>

enum { SAP_REAL_TEXT = 40 };

double sap_real_parse(const char *text, char **end);                     /* as strtod */
void sap_real_print(char text[SAP_REAL_TEXT], double value, int digits); /* as %.*g */
/* The shortest that reads back as the same number, as Python prints it; single: as the same float. */
void sap_real_shortest(char text[SAP_REAL_TEXT], double value, bool single);

#endif
