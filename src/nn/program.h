/* Inside programs: frames (tiles in memory), the rows of a batch, and what the files of a program do for each other.
 *
 * program_plan.c gives everything its place, program_rows.c brings the rows of a batch into order, program_tile.c takes
 * one tile through the model and back, program.c a whole batch.
 */
#ifndef SAP_PROGRAM_H
#define SAP_PROGRAM_H

#include "losses.h"
#include "nn_internal.h"

/* A tile in memory: its tensors, their gradients, what layers keep. */
typedef struct sap_frame {
    sap_pass pass;
    int64_t first;    /* of its rows among those of the batch, in the order of the program */
    float *memory;    /* everything of this tile */
    int64_t *longest; /* (domain_count) steps that there is memory for */
    float **tensors;  /* (tensor_count) */
    float **deltas;   /* (tensor_count) gradients; NULL entries: not wanted */
    uint8_t **masks;  /* (mask_count) of dense domains; NULL entries: not there */
    sap_steps *steps; /* (domain_count) */
    sap_call *calls;  /* (call_count) */
    float *target;    /* of the output whose loss is taken */
    float weight[SAP_TILE];
} sap_frame;

/* An output and its loss. */
typedef struct sap_ending {
    sap_loss loss; /* defaults filled in */
    int32_t node;
    int64_t values;             /* numbers a place: the last dimension */
    sap_activation_kind logits; /* the last activation where it is left to the loss, else SAP_LINEAR */
} sap_ending;

/* What one participant of a loop works with. */
typedef struct sap_slot {
    sap_frame frame;
    float *work;      /* scratch of one call */
    int64_t *longest; /* (domain_count) steps that it is enough for */
} sap_slot;

/* The rows of an input of rank >= 2. */
typedef struct sap_rows {
    const float **data; /* (rows) first step of each */
    int32_t *length;    /* (rows) steps; masked ones left out where the domain is ragged */
    float *packed;      /* rows whose masked steps stand between others, without those */
    int64_t capacity, packed_capacity;
} sap_rows;

/* A call that needs sums over the whole batch. */
typedef struct sap_barrier {
    int32_t call;
    const sap_whole_batch *whole;
    int64_t count; /* of sums */
    double *sums;  /* (count) over the batch */
    double *own;   /* (tile_count, count) of each tile */
    bool backward; /* its last round is wanted */
} sap_barrier;

/* What is done with each tile between two barriers, in this order. */
typedef struct sap_stage {
    bool load, loss;
    int32_t forward_from, forward_to;   /* calls */
    int32_t backward_from, backward_to; /* calls, from the last to the first */
    sap_barrier *barrier;               /* NULL: none */
    int round;
    bool marks; /* counts the places of masked outputs */
} sap_stage;

struct sap_program {
    const sap_model *model;
    sap_mode mode;
    const sap_kernels *kernels;
    sap_run run;
    sap_arena arena;
    sap_slot *slots;
    int slot_count;
    int32_t *call_nodes; /* (call_count) nodes that the outputs depend on, in topological order */
    int32_t *call_of;    /* (node_count) the other way round */
    int32_t call_count;
    sap_ending endings[SAP_OUTPUTS]; /* not for SAP_PREDICT */
    sap_barrier *barriers;           /* (barrier_count) in the order of their calls */
    int32_t barrier_count;
    bool masked;       /* the loss is taken from an output with a mask, so that its steps must be counted first */
    bool ragged;       /* some domain is */
    double work;       /* multiplications a row, without time */
    double *step_work; /* (domain_count) multiplications a step */
    float *slices;     /* (SAP_SLICES, slice_stride) gradients; slice 0 is the caller's array */
    int64_t slice_stride;
    sap_share share;
    float *exchange; /* (roots of all ranks, slice_stride), once it was needed */

    /* The batch in hand */
    const sap_examples *examples;
    uint64_t key;
    float *gradients, *const *outputs;
    sap_rows *rows;   /* (input_count) */
    int64_t *longest; /* (domain_count) */
    int64_t *order;   /* (rows) by group, the longest first; of no use without groups where nothing is ragged */
    int64_t order_capacity;
    int tile; /* rows of a tile */
    int64_t tile_count, slice_count;
    int64_t *tile_first; /* (tile_count + 1) place of the first row of each; NULL without groups: tiles are full */
    int64_t tile_capacity;
    int64_t slice_tiles[SAP_SLICES + 1]; /* first tile of each slice */
    sap_batch_result results[SAP_SLICES];
    sap_stage stage;
    sap_frame **frames; /* (tile_count) where there are barriers: all tiles stay in memory */
    int64_t frame_count;
    int64_t marks[SAP_SLICES][SAP_OUTPUTS]; /* places of masked outputs that count, by slice */
    int64_t places[SAP_OUTPUTS];            /* of each output, in the whole batch */
};

static inline bool sap_program_differentiates(const sap_program *p) {
    return p->mode == SAP_DIFFERENTIATE || p->mode == SAP_TRAIN;
}
/* The row of the examples that stands at a place of the program's order. */
static inline int64_t sap_program_row(const sap_program *p, int64_t place) {
    return p->ragged || p->share.groups ? p->order[place] : place;
}
/* Rows of the whole batch, of which those in hand are a share. */
static inline int64_t sap_program_batch(const sap_program *p) {
    return p->examples->batch_rows > 0 ? p->examples->batch_rows : p->examples->rows;
}

/* needed (nodes), all false: set where the outputs depend on the node. */
void sap_plan_mark_needed(const sap_model *model, bool *needed);
/* The last softmax or sigmoid of an output that is left out of it, since the loss is taken from what it was given; else SAP_LINEAR. */
sap_activation_kind sap_plan_logits(const sap_model *model, int32_t node, sap_loss_kind loss);
/* Nodes to call, what they cost, and what losses are taken from. */
SAP_MUST_CHECK sap_status sap_program_plan(sap_program *p, const sap_loss *losses, sap_error *err);
/* Places of an output of the batch in hand, each with a loss of its own: all its dimensions but the last. */
int64_t sap_ending_places(const sap_program *p, const sap_ending *ending);
/* Sets up a frame or slot, which has no memory yet. */
SAP_MUST_CHECK sap_status sap_frame_open(sap_program *p, sap_frame *frame, sap_error *err);
/* Makes sure that there is memory for the batch in hand. */
SAP_MUST_CHECK sap_status sap_frame_place(const sap_program *p, sap_frame *frame, sap_error *err);
SAP_MUST_CHECK sap_status sap_slot_place(const sap_program *p, sap_slot *slot, sap_error *err);

/* Checks the examples in hand, finds lengths and order of their rows, and cuts them into tiles. */
SAP_MUST_CHECK sap_status sap_program_take(sap_program *p, sap_error *err);
void sap_rows_release(sap_rows *rows);

/* The barrier's sums, of all tiles of all ranks. */
SAP_MUST_CHECK sap_status sap_share_barrier(sap_program *p, sap_barrier *barrier, sap_error *err);
/* Makes `longest` that of the whole batch where it matters. */
SAP_MUST_CHECK sap_status sap_share_longest(sap_program *p, sap_error *err);

/* Loads rows [first, …) into the frame. */
void sap_frame_load(const sap_program *p, sap_frame *frame, int64_t tile);
void sap_frame_forward(const sap_program *p, sap_frame *frame, float *work, int32_t from, int32_t to);
void sap_frame_backward(const sap_program *p, sap_frame *frame, float *work, int32_t from, int32_t to);
/* Adds the places of masked outputs that count. */
void sap_frame_mark(const sap_program *p, const sap_frame *frame, int64_t *marks);
/* The losses of the outputs, and their gradients. */
SAP_MUST_CHECK sap_status sap_frame_loss(const sap_program *p, sap_frame *frame, sap_batch_result *result,
                                         sap_error *err);
void sap_frame_store(const sap_program *p, const sap_frame *frame);

#endif
