/* A trigger decision with a compiled network: reads events of 14 numbers from standard input, and keeps those that are likely top pairs.
 *
 *     sapwood compile run/model.keras -o hlf.c --header hlf.h --name hlf --data run
 *     cc -std=c11 -O3 -march=native trigger.c hlf.c -o trigger
 *     ./trigger 0.9 <events.txt
 */
#include "hlf.h"

#include <stdio.h>
#include <stdlib.h>

enum { FEATURES = 14, CLASSES = 3, TOP_PAIR = 1 }; /* the header says which label is which output */

static int read_event(float event[FEATURES]) {
    for (int i = 0; i < FEATURES; i++)
        if (scanf("%f", &event[i]) != 1)
            return 0;
    return 1;
}

int main(int argc, char **argv) {
    float event[FEATURES], score[CLASSES];
    double threshold = argc > 1 ? atof(argv[1]) : 0.5;
    for (long number = 0; read_event(event); number++) {
        hlf_predict(event, score);
        if ((double)score[TOP_PAIR] >= threshold)
            (void)printf("event %ld: %.6f\n", number, (double)score[TOP_PAIR]);
    }
    return 0;
}
