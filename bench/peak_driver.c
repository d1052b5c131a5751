/* The float32 peak of a core, measured anew at every turn, for bench/train.py.
 *
 * Says "ready"; then, for every line on stdin, prints wall seconds, CPU seconds, GFLOP/s.
 */
#include "peak.h"

#include <stdio.h>
#include <time.h>

static double wall_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(void) {
    printf("ready\n");
    (void)fflush(stdout);
    for (int c = getchar(); c != EOF; c = getchar()) {
        if (c != '\n')
            continue;
        double wall = wall_seconds(), cpu = cpu_seconds(), peak = measure_peak();
        printf("%.6f %.6f %.3f\n", wall_seconds() - wall, cpu_seconds() - cpu, peak);
        (void)fflush(stdout);
    }
    return 0;
}
