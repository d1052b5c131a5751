/* The float32 peak of a core: as many independent multiply-adds as it does on vectors in registers. */
#ifndef PEAK_H
#define PEAK_H

/* CPU time of this process. */
double cpu_seconds(void);
/* GFLOP/s of the widest vectors that this processor has, the best of several short runs by CPU time. */
double measure_peak(void);

#endif
