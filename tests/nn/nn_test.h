/* What the tests of networks share: networks as JSON text, random examples, temporary files. */
#ifndef NN_TEST_H
#define NN_TEST_H

#include "nn/nn_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* Fails the test with the message of the error. */
#define assert_ok(status)                                                                                              \
    do {                                                                                                               \
        if ((status) != SAP_OK)                                                                                        \
            fail_msg("%s", error.message);                                                                             \
    } while (0)

#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        if (!strstr(text, part))                                                                                       \
            fail_msg("\"%s\" is not in \"%s\"", part, text);                                                           \
    } while (0)

/* A path of the test's own; static, so one name at a time. */
static inline const char *scratch(const char *name) {
    static char folder[64], path[256];
    if (!folder[0]) {
        (void)snprintf(folder, sizeof folder, "/tmp/sapwood-nn-XXXXXX");
        if (!mkdtemp(folder))
            fail_msg("no temporary folder");
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline void remove_scratch(void) {
    char folder[256];
    (void)snprintf(folder, sizeof folder, "%s", scratch(""));
    folder[strlen(folder) - 1] = '\0';
    assert_int_equal(sap_folder_remove(folder, NULL), SAP_OK);
}

static inline sap_status open_text(const char *json, uint64_t seed, sap_model **out, sap_error *err) {
    const char *path = scratch("model.json");
    sap_status status = sap_file_store(path, json, strlen(json), err);
    return status == SAP_OK ? sap_model_open(path, seed, out, err) : status;
}

#define INPUT(name, width)                                                                                             \
    "{\"class_name\": \"InputLayer\", \"config\": {\"name\": \"" name "\", \"batch_shape\": [null, " width             \
    "]}, \"inbound_nodes\": []}"
#define DENSE(name, units, activation)                                                                                 \
    "{\"class_name\": \"Dense\", \"config\": {\"name\": \"" name "\", \"units\": " units                               \
    ", \"activation\": \"" activation "\"}}"
#define SEQUENTIAL(layers) "{\"class_name\": \"Sequential\", \"config\": {\"name\": \"net\", \"layers\": [" layers "]}}"

/* 14 – 50 – dropout – 20 – 3 */
#define DROPOUT_NET                                                                                                    \
    SEQUENTIAL(INPUT("x", "14") ", " DENSE(                                                                            \
        "a", "50", "relu") ", "                                                                                        \
                           "{\"class_name\": \"Dropout\", \"config\": {\"name\": \"drop\", \"rate\": 0.3}}, " DENSE(   \
                               "b", "20", "tanh") ", " DENSE("c", "3", "softmax"))

#define DENSE_OF(name, units, activation, from)                                                                        \
    "{\"class_name\": \"Dense\", \"name\": \"" name "\", \"config\": {\"name\": \"" name "\", \"units\": " units       \
    ", \"activation\": \"" activation "\"}, \"inbound_nodes\": [{\"args\": [{\"class_name\": \"__keras_tensor__\", "   \
    "\"config\": {\"keras_history\": [\"" from "\", 0, 0]}}], \"kwargs\": {}}]}"
/* 14 – 20 – a class of three ("kind"), and a number ("sum") that stands on layer `from`: "a", or "kind" */
#define TWO_ENDS(from)                                                                                                 \
    "{\"class_name\": \"Functional\", \"config\": {\"name\": \"net\", \"layers\": [{\"class_name\": \"InputLayer\", "  \
    "\"name\": \"x\", \"config\": {\"name\": \"x\", \"batch_shape\": [null, 14]}, \"inbound_nodes\": []}, " DENSE_OF(  \
        "a", "20", "relu",                                                                                             \
        "x") ", " DENSE_OF("kind", "3", "softmax",                                                                     \
                           "a") ", " DENSE_OF("sum", "1", "linear",                                                    \
                                              from) "], \"input_layers\": [[\"x\", 0, 0]], \"output_layers\": "        \
                                                    "[[\"kind\", 0, 0], [\"sum\", 0, 0]]}}"

typedef struct random_examples {
    sap_examples examples;
    float *x;
    int32_t *label;
    uint64_t *identity;
    const float *inputs[1];
    int64_t values[1];
} random_examples;

/* Rows whose label can be learnt: the largest of the first three numbers. */
static inline void make_examples(random_examples *r, int64_t rows, int64_t width) {
    *r = (random_examples){
        .x = calloc((size_t)(rows * width) + 3, sizeof(float)), /* the last row may be narrower than 3 */
        .label = calloc((size_t)rows, sizeof(int32_t)),
        .identity = calloc((size_t)rows, sizeof(uint64_t))};
    for (int64_t i = 0; i < rows * width; i++)
        r->x[i] = (float)(2 * sap_unit(sap_mix(99, (uint64_t)i)) - 1);
    for (int64_t i = 0; i < rows; i++) {
        const float *x = r->x + i * width;
        r->label[i] = x[0] > x[1] ? (x[0] > x[2] ? 0 : 2) : (x[1] > x[2] ? 1 : 2);
        r->identity[i] = sap_mix(5, (uint64_t)i);
    }
    r->inputs[0] = r->x;
    r->values[0] = width;
    r->examples = (sap_examples){
        .rows = rows, .inputs = 1, .x = r->inputs, .values = r->values, .label = r->label, .identity = r->identity};
}

static inline void free_examples(random_examples *r) {
    free(r->x);
    free(r->label);
    free(r->identity);
}

#endif
