/* Recurrent layers: a general form in float32, and persistent kernels on tensor cores for small layers. */
#ifndef SAP_CUDA_RECURRENT_H
#define SAP_CUDA_RECURRENT_H

#include "cuda_kernels.h"

/* The sequences of a batch: row r has the positions [offsets[r], offsets[r + 1]), or [r · steps, (r + 1) · steps). */
struct sequences {
    const int32_t *rows;    /* how many, on the device */
    const int32_t *offsets; /* NULL: regular */
    int32_t steps;          /* regular */
};

__device__ static inline int64_t first_step(const sequences &s, int64_t row) {
    return s.offsets ? s.offsets[row] : row * s.steps;
}

__device__ static inline int32_t row_steps(const sequences &s, int64_t row) {
    return s.offsets ? s.offsets[row + 1] - s.offsets[row] : s.steps;
}

/* A GRU (reset_after) or LSTM over sequences, with the formulas of recurrent.h. P: all positions. */
struct recurrent {
    bool lstm, backwards;
    int32_t width, units; /* of the input and the state */
    sap_activation activation, recurrent_activation;
    sequences at;
    const float *kernel, *recurrent_kernel; /* (width, gates · units), (units, gates · units) */
    const float *bias;                      /* (gates · units), GRU twice; NULL: none */
    const float *x;                         /* (P, width) */
    float *y;                               /* (P, units), or NULL */
    float *last;                            /* (rows, units), or NULL */
    const float *dy, *d_last;               /* backward; NULL: none */
};

static inline int32_t recurrent_gates(bool lstm) {
    return lstm ? 4 : 3;
}

/* What the general form keeps of each position: z, r, a, u, or i, f, a, o, φ(c'); the states before it; and gradients. */
struct recurrent_kept {
    float *projected;             /* (P, gates · units) x W + b */
    float *values;                /* (P, 4 or 5, units) */
    float *h, *c;                 /* (P, units) before the step; c: LSTM */
    float *d_input, *d_recurrent; /* (P, gates · units): gradients of x W and of h U; the same array for LSTM */
};

/* The chain of steps; `projected` is filled. */
void launch_recurrent(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                      size_t shared_most);
void launch_recurrent_gradient(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                               size_t shared_most);
/* The same with products in tf32 (sm_80), but in float32 where the states of 8 rows have no room in shared memory. */
void launch_recurrent_tf32(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept, int64_t most_rows,
                           size_t shared_most);
void launch_recurrent_tf32_gradient(cudaStream_t stream, const recurrent &p, const recurrent_kept &kept,
                                    int64_t most_rows, size_t shared_most);
#endif
