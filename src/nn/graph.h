/* Inside graph.c and graph_config.c: a model as its config.json has it. */
#ifndef SAP_NN_GRAPH_H
#define SAP_NN_GRAPH_H

#include "nn_internal.h"

typedef struct sap_graph sap_graph;

/* What an entry of "layers" is. Operations on masks are no layers. */
typedef enum sap_item_kind {
    SAP_ITEM_INPUT,
    SAP_ITEM_LAYER,
    SAP_ITEM_MODEL, /* a nested one */
    SAP_ITEM_NOT_EQUAL,
    SAP_ITEM_ANY,
    SAP_ITEM_SAME /* LogicalOr, LogicalAnd: of a mask with itself */
} sap_item_kind;

/* A place in a graph where a value comes from: output `number` of use `use` of an item. */
typedef struct sap_place {
    int32_t item, use, number;
} sap_place;

typedef struct sap_argument {
    const char *name; /* NULL: by place */
    bool tensor;
    sap_place from; /* of a tensor */
    double number;  /* of none */
} sap_argument;

typedef struct sap_use {
    sap_argument *arguments;
    int32_t argument_count;
} sap_use;

typedef struct sap_item {
    sap_item_kind kind;
    const char *name;     /* inside its graph */
    const json_t *entry;  /* of the file */
    const json_t *config; /* of the layer itself, which may stand in wrappers */
    sap_layer *layer;
    sap_graph *inner;
    sap_use *uses;
    int32_t use_count;
    int32_t first_end; /* number that its first use has where a model ends: a functional one once had one of its own */
    int32_t output_count; /* of a use */
    int32_t first_value;  /* among the values of a call of the graph: use after use */
} sap_item;

/* A model: the whole, or a nested one. */
struct sap_graph {
    const char *place; /* before names of layers: "", "encoder/" */
    sap_item *items;
    int32_t count;
    sap_place *inputs, *outputs;
    int32_t input_count, output_count;
    int32_t value_count; /* of all uses */
};

/* Where a graph stands. */
typedef struct sap_scope {
    const char *place, *group; /* "encoder/", "layers/sequential" */
    const char *owner;         /* the layer of the whole model that all this stands in; NULL: it is the whole */
    bool trainable;
    bool each_step; /* inside TimeDistributed */
    json_t *made;   /* entries that the file does not have, a list */
} sap_scope;

/* root: {"class_name": "Functional", "config": …}. The layers are appended to model->layers, in Keras' order. */
SAP_MUST_CHECK sap_status sap_graph_read(sap_model *model, const json_t *root, const char *where,
                                         const sap_scope *scope, sap_graph **out, sap_error *err);

#endif
