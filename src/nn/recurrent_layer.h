/* What a recurrent layer is, for those who run it without its tiles. */
#ifndef SAP_RECURRENT_LAYER_H
#define SAP_RECURRENT_LAYER_H

#include "nn_internal.h"
#include "recurrent.h"

typedef enum sap_merge { SAP_MERGE_CONCAT, SAP_MERGE_SUM, SAP_MERGE_MUL, SAP_MERGE_AVE } sap_merge;

typedef struct sap_recurrent_layer {
    int count; /* of cells: 2 if Bidirectional */
    struct {
        sap_cell cell;
        bool reverse; /* takes the last step first */
        int64_t units;
        double dropout, recurrent_dropout; /* rates */
        sap_activation activation, recurrent_activation;
        const sap_layer_weight *kernel, *recurrent_kernel, *bias; /* bias NULL: none */
    } cells[2];
    bool sequences;   /* all states are given back, else the last one */
    bool zero_masked; /* the output at a masked step is 0, else the one before */
    bool flipped;     /* outputs come in the order in which steps were taken */
    sap_merge merge;
} sap_recurrent_layer;

/* Of a layer of the classes SimpleRNN, GRU, LSTM, Bidirectional. */
sap_recurrent_layer sap_recurrent_describe(const sap_layer *layer);

#endif
