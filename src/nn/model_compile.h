/* Models as C source: what the parts of the compiler share.
 *
 * The source works on one event. A tensor is an array of its numbers in Keras' order, that is (steps, values of a step) for a
 * sequence, where only the first `steps` are there. Each node of the model becomes a static function and a line of the
 * predict function that calls it; what classes do stands in compile_layers.c, elementary functions in compile_math.c.
 */
#ifndef SAP_MODEL_COMPILE_H
#define SAP_MODEL_COMPILE_H

#include "nn_internal.h"

enum { SAP_LANES = 8 }; /* rows of kernels are padded to multiples of it */

/* Functions that the source gets when something uses them. */
typedef enum sap_helper {
    SAP_HELPER_NONE = 0,
    SAP_HELPER_ABS,
    SAP_HELPER_SIGN,
    SAP_HELPER_EXP,
    SAP_HELPER_CLAMP,
    SAP_HELPER_SIGMOID,
    SAP_HELPER_EXPM1,
    SAP_HELPER_TANH,
    SAP_HELPER_SOFTPLUS,
    SAP_HELPER_PHI,
    SAP_HELPER_SOFTMAX,
    SAP_HELPER_LOG,
    SAP_HELPER_LOG_SOFTMAX,
    SAP_HELPER_SUM,
    SAP_HELPER_MOST,
    SAP_HELPER_ROWS, /* a number of rows, between 0 and the most there may be */
    SAP_HELPER_PAD,  /* padding behind the numbers of a sequence */
    SAP_HELPER_KEEP, /* a sequence without its masked steps */
    SAP_HELPER_MARK, /* the mask of a sequence */
    SAP_HELPER_ROOT, /* one over the square root of a double */
    SAP_HELPER_COUNT
} sap_helper;

/* A tensor in the source. */
typedef struct sap_source_tensor {
    sap_shape shape;   /* with the most steps there can be */
    const char *place; /* an expression: where its numbers are */
    const char *steps; /* the variable with its number of steps; NULL: always as many as the shape says */
    const char *mask;  /* the variable with its mask, a byte a step: 1 counts; NULL: none, every step counts */
} sap_source_tensor;

typedef struct sap_source {
    const sap_model *model;
    const char *name; /* what everything that the file shows begins with */
    sap_arena arena;
    bool failed;   /* out of memory */
    bool infinite; /* a weight is not finite */
    sap_text weights, functions, body;
    bool helpers[SAP_HELPER_COUNT];
    int64_t local_floats; /* the most that one function keeps for itself */
} sap_source;

/* One node being compiled: its emitter writes the body of a function of its tensors' places, masks and steps, in this order.
 * Inside they are called x, mask, steps for an only input, and x0, mask0, steps0, … for several; masks are given to
 * emitters that ask for them, steps where their number varies. The output is y, with the steps of the first input where
 * its own vary. */
typedef struct sap_emission {
    sap_source *source;
    const sap_layer *layer;
    const char *name; /* what its weights begin with in the source */
    bool first;       /* they are not there yet */
    int32_t input_count;
    const sap_source_tensor *x; /* (input_count) with their names inside */
    const sap_source_tensor *y;
} sap_emission;

/* Writes the body, and the weights that it reads. A use that is not supported is an error. */
typedef sap_status (*sap_emitter)(const sap_emission *emission, sap_error *err);

/* What a class of layers is in C. */
typedef struct sap_emitter_class {
    const char *name;
    sap_emitter emit; /* NULL: the output is the input, as it is when predicting (Dropout, Flatten) */
    bool masks;       /* it looks at the masks of its inputs */
} sap_emitter_class;

/* By the name of the class; NULL: there is none. */
const sap_emitter_class *sap_emitter_find(const char *class_name);

/* An array `NAME_what` (rows, width) of weights (rows, columns) with zeros behind; rows 0: (width). Returns its name. */
const char *sap_source_array(const sap_emission *emission, const char *what, int64_t rows, int64_t columns,
                             int64_t width, const float *values);
/* Emitters that stand in files of their own. */
sap_status sap_emit_attention(const sap_emission *emission, sap_error *err);
sap_status sap_emit_recurrent(const sap_emission *emission, sap_error *err);

/* Notes that the function keeps so many floats on the stack. */
static inline void sap_source_keep(sap_source *source, int64_t floats) {
    source->local_floats = floats > source->local_floats ? floats : source->local_floats;
}
/* How wide rows of so many numbers are made. */
static inline int64_t sap_source_width(int64_t columns) {
    return columns < SAP_LANES ? columns : (columns + SAP_LANES - 1) / SAP_LANES * SAP_LANES;
}
/* Adds the product of a vector `x` (depth) and an array `w` (depth, width): sum[o] += Σ_i x[i] w[i][o]. indent: blanks before. */
void sap_source_product(sap_source *source, int indent, const char *sum, int64_t width, const char *x, int64_t depth,
                        const char *w);
/* The same for numbers in variables; depth is a multiple of 4. */
void sap_source_product_of(sap_source *source, int indent, const char *sum, const char *width, const char *x,
                           const char *depth, const char *w);
/* Text of the number of vectors of `width` numbers in a tensor: "801", "steps", "steps * 3"; of its steps. */
const char *sap_source_count(sap_source *source, const sap_source_tensor *tensor, int64_t width);
const char *sap_source_steps(sap_source *source, const sap_source_tensor *tensor);
/* Notes that something uses a function. */
void sap_source_use(sap_source *source, sap_helper helper);
/* Formatted text that lives as long as the source; "" after memory ran out, which is noted. */
const char *sap_source_text(sap_source *source, const char *format, ...) SAP_PRINTF(2, 3);
/* The text of a number, such as "0.5F". Borrowed from the source. */
const char *sap_source_number(sap_source *source, float value);
/* An expression of the activation of `x`, a simple expression that may be repeated. Not for softmax. */
const char *sap_source_activation(sap_source *source, const sap_activation *activation, const char *x);
/* Writes y = activation(x) for `count` numbers, softmax included. x and y are expressions. */
void sap_source_activate(sap_source *source, int indent, const sap_activation *activation, const char *count,
                         const char *x, const char *y);

/* Text as it may stand in a comment. */
const char *sap_source_remark(sap_source *source, const char *text);

/* Whether scaling a feature takes constants from dataset.json. */
bool sap_scaling_has_constants(const sap_feature *feature);
/* Writes the function scale_NAME from a feature as computed to the form that the network was trained on: (x, y), for a sequence
 * (x, rows, y). shift, factor: (width) constants, or NULL. */
void sap_source_scaling(sap_source *source, const char *name, const sap_feature *feature, const double *shift,
                        const double *factor);

/* The functions that are used, in the order in which they need each other. */
void sap_source_helpers(const sap_source *source, sap_text *out);

#endif
