/* Recurrent layers on a tile: simple, GRU and LSTM cells taken through all steps of its sequences, and back.
 *
 * With x the input of a step, h the state before it, h' the state after it, σ the recurrent activation (sigmoid), φ
 * the activation (tanh) and ∘ element by element; W, U, b: kernel, recurrent kernel, bias, whose columns are the gates
 * one after another:
 *
 *     SIMPLE       h' = φ(W x + U h + b)
 *     GRU          z = σ(Wz x + bz + Uz h + cz), r = σ(Wr x + br + Ur h + cr), u = Uh h + ch,
 *                  a = φ(Wh x + bh + r ∘ u), h' = z ∘ h + (1 - z) ∘ a           bias: b, then c
 *     GRU_BEFORE   z, r as above without c, u = r ∘ h, a = φ(Wh x + bh + Uh u), h' likewise
 *     LSTM         i = σ(Wi x + Ui h + bi), f = σ(Wf …), a = φ(Wa …), o = σ(Wo …),
 *                  c' = f ∘ c + i ∘ a, h' = o ∘ φ(c')
 *
 * The state is zero at first. A row takes part in step t iff t < length[row]; else it keeps its state.
 */
#ifndef SAP_RECURRENT_H
#define SAP_RECURRENT_H

#include "kernels.h"

typedef enum sap_cell { SAP_CELL_SIMPLE, SAP_CELL_GRU, SAP_CELL_GRU_BEFORE, SAP_CELL_LSTM } sap_cell;

enum {
    SAP_GATES = 4,          /* most gates of a cell */
    SAP_CHUNK_COLUMNS = 512 /* columns of all steps of which gradients go to the weights in one go */
};

typedef struct sap_recurrent {
    sap_cell cell;
    bool reverse; /* from each row's last step to its first */
    int64_t inputs, units;
    sap_activation activation, recurrent_activation;
    const float *kernel, *recurrent_kernel; /* (inputs, gates · units), (units, gates · units) */
    const float *bias;                      /* (gates · units), of GRU twice that; NULL: none */
    const sap_steps *steps;
    const float *x; /* (steps, inputs) as in sap_steps */

    /* Dropout: what inputs and states are multiplied by before they are multiplied by W and U, constant in time:
     * (masks, inputs or units, SAP_TILE), one for all gates or one a gate; NULL: nothing. */
    int32_t x_masks, h_masks;
    const float *x_mask, *h_mask;

    /* The state after step t of row r is value y_first + unit of y, which has y_values values a step; NULL: not
     * wanted. What stands behind the length of a row is finite. */
    float *y;
    int64_t y_values, y_first;
    float *last; /* (units, last_width) the state after all steps of each row, zero where it has none; NULL */
    int last_width;

    float *kept; /* what forward leaves for backward (sap_recurrent_kept); NULL: forward alone */
    float *work; /* sap_recurrent_work floats */

    /* Backward: gradients of y (placed as y is; zero behind the length of a row) and last, each may be NULL. */
    const float *dy, *d_last;
    float *dx; /* as x, or NULL; added to where `add`, else written, with zeros behind the length of a row */
    bool add;
    float *d_kernel, *d_recurrent_kernel, *d_bias; /* added to; d_kernel NULL: none of them is wanted */
} sap_recurrent;

typedef struct sap_recurrent_kernels {
    void (*forward)(const sap_recurrent *r);
    /* After a forward with `kept`, which it leaves as it is. */
    void (*backward)(const sap_recurrent *r);
} sap_recurrent_kernels;

extern const sap_recurrent_kernels sap_recurrent_plain;

/* Gates of the kernels. */
static inline int sap_cell_gates(sap_cell cell) {
    return cell == SAP_CELL_SIMPLE ? 1 : cell == SAP_CELL_LSTM ? 4 : 3;
}

/* Values of each unit that a step keeps. SIMPLE: h'; GRU: z, r, a, u; LSTM: i, f, a, o, φ(c'). */
static inline int sap_cell_values(sap_cell cell) {
    return cell == SAP_CELL_SIMPLE ? 1 : cell == SAP_CELL_LSTM ? 5 : 4;
}

/* Where `kept` holds what; S: sum of the widths of all steps, offsets in floats. */
typedef struct sap_recurrent_layout {
    int64_t gates;  /* (steps, values, units) */
    int64_t inputs; /* the same before the activations, where a derivative needs that; -1: not kept */
    int64_t h;      /* (steps, units) the states before the steps */
    int64_t c;      /* the same of c; LSTM only, else -1 */
    int64_t total;
} sap_recurrent_layout;

sap_recurrent_layout sap_recurrent_lay_out(const sap_recurrent *r, int64_t sum_of_widths);

/* Floats of `kept` and `work` for at most `steps` steps of SAP_TILE columns. */
int64_t sap_recurrent_kept(const sap_recurrent *r, int64_t steps);
int64_t sap_recurrent_work(const sap_recurrent *r, bool backward);

/* Copies (rows, from_width) to (rows, to_width), with zeros in columns that the former has not; not in place. */
void sap_columns_copy(int64_t rows, int from_width, const float *from, int to_width, float *to);

#endif
