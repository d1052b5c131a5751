/* Windows that slide along the steps of regular sequences, on the device: convolution and pooling. */
#ifndef SAP_CUDA_WINDOW_H
#define SAP_CUDA_WINDOW_H

#include "cuda_kernels.h"

/* x (rows, steps, width). Output step t looks at the input steps t · stride - before + k · dilation, 0 <= k < size, of those that are there. */
struct windows {
    const int32_t *rows; /* how many, on the device */
    int32_t steps, outputs, width, size, stride;
    int64_t dilation, before;
};

/* z (rows, outputs, units) = windows of x times kernel (size, width, units) + bias. */
struct convolution {
    windows at;
    int64_t rows_most;
    int32_t units;
    const float *kernel, *bias; /* bias NULL: none */
    const float *x;
    float *z;
    const float *dz; /* backward */
    float *work;     /* convolution_work floats */
    float *gw, *gb;  /* added to; gb NULL: not wanted */
    float *dx;
    bool add; /* to dx */
};
void launch_convolution(cudaStream_t stream, const convolution &p);
void launch_convolution_weights(cudaStream_t stream, const convolution &p);
void launch_convolution_input(cudaStream_t stream, const convolution &p);
int64_t convolution_work(int64_t rows_most, int64_t outputs, int64_t depth, int64_t units);

/* y (rows, outputs, width): the mean, or the largest, of each window; dilation is 1. */
struct window_pooling {
    windows at;
    int64_t rows_most;
    bool largest;
    const float *x;
    float *y;
    const float *dy;
    float *dx;
    bool add;
};
void launch_window_pooling(cudaStream_t stream, const window_pooling &p);
void launch_window_pooling_gradient(cudaStream_t stream, const window_pooling &p);

#endif
