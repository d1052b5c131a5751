/* A small stack of dense layers trained by one launch that does many steps. */
#ifndef SAP_CUDA_STACK_H
#define SAP_CUDA_STACK_H

#include "cuda_kernels.h"

enum { SAP_STACK_LAYERS = 12, SAP_STACK_WIDTH = 512, SAP_STACK_ROWS = 32 };

struct stack_layer {
    int32_t in, out;
    int32_t kernel, bias; /* places in the values; -1: no bias */
    int32_t shared;       /* place of the kernel in shared memory, rows of out | 1 */
    int32_t x;            /* place of the input's tile, (rows, in); the output's is the next layer's */
    sap_activation activation;
    bool drops; /* the output is dropped with these */
    uint32_t key, threshold;
    float scale;
};

struct stack {
    int32_t layer_count;
    stack_layer layers[SAP_STACK_LAYERS];
    int32_t parameters, shared_weights; /* numbers; with their padding */
    int32_t tile, widest;               /* numbers a row of all tiles; of the widest one */
    float loss_weight;                  /* of the output's loss in the sum */
};

struct stack_call {
    stack net;
    row_set set;
    const int32_t *order;
    int64_t rows, batch;
    uint64_t key;
    const sap_cuda_update *updates; /* (steps) on the device */
    optimizer of;
    float *values;
    float *parts;      /* (blocks, parameters) */
    unsigned *arrived; /* 0 at the start */
    totals *sums;      /* (blocks), added to */
    int32_t tile_rows; /* rows that a block takes at a time */
};

/* Whether the operations of a plan can be layers of a stack, whose targets are class numbers; fills in `out`. shared: bytes a block may have. */
bool stack_plan(const sap_cuda_plan *plan, size_t shared, stack *out);
/* Blocks for a batch, of which each takes tile_rows rows at a time. */
unsigned stack_blocks(const stack &net, int64_t batch, int multiprocessors, int32_t *tile_rows);
cudaError_t launch_stack(cudaStream_t stream, const stack_call &p, unsigned blocks);
/* sum += each of parts[0 … count), which become zero */
void launch_add_totals(cudaStream_t stream, totals *parts, int count, totals *sum);

#endif
