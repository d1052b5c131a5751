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
    const float
        *h_masks; /* mask of gate g for state k of row r at r · mask_row + g · units + k (cell_dropout); NULL: none */
    int64_t mask_row;
    const float
        *counts; /* (P) 0: the step is left out, and its output is the one before, or zero_masked 0; NULL: none is */
    bool zero_masked;
    bool flipped; /* y has the steps in the order in which they were taken */
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
    float *masks;                 /* of cell_dropout */
    int32_t *row_of;              /* (P) */
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

/* ---- Dropout inside a layer ---------------------------------------------------------------------------------- */

/* What inputs and states are multiplied by before they are multiplied by kernels, the same in all steps of a row: one mask for all gates, or one a
 * gate, or none. Of each row (x_masks · width + h_masks · units). */
struct cell_dropout {
    const int32_t *rows; /* how many, on the device */
    const uint64_t *row_keys;
    uint32_t key, cell; /* of the use of the layer; of its direction */
    int32_t x_masks, h_masks, width, units;
    uint32_t x_threshold, h_threshold; /* dropped below */
    float x_scale, h_scale;            /* of the others */
};
void launch_cell_masks(cudaStream_t stream, const cell_dropout &p, int64_t most_rows, float *masks);
/* row_of (P): the row of each position */
void launch_row_numbers(cudaStream_t stream, const sequences &at, int64_t most_rows, int32_t *row_of);

/* x (P, width), masked, times w (width, all): the columns fall into mask_count equal parts, each with a mask of its own. */
struct masked_product {
    extent n; /* P */
    int64_t most;
    const int32_t *row_of; /* (P) */
    const float *masks;    /* number k of mask m of row r at r · mask_row + m · width + k */
    int64_t mask_row;
    int32_t mask_count;
    int64_t width, all;
    const float *x, *w;
};
/* y (P, all); bias NULL: none */
void launch_masked(cudaStream_t stream, const masked_product &p, const float *bias, float *y);
/* dx (P, width) (= or +=) the gradient from d (P, all) */
void launch_masked_input(cudaStream_t stream, const masked_product &p, const float *d, bool add, float *dx);
/* gw (width, all) and gb (all), NULL: not wanted, += the gradients; work: dense_work floats */
void launch_masked_weights(cudaStream_t stream, const masked_product &p, const float *d, float *work, float *gw,
                           float *gb);
#endif
