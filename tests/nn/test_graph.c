/* Graphs: nested models, several outputs, masks as arguments, operations, wrappers, penalties, and what is refused. */
#include "nn_test.h"

#include <math.h>

static sap_error error;

#define LAYER(class_name, name, settings)                                                                              \
    "{\"module\": \"keras.layers\", \"class_name\": \"" class_name "\", \"config\": {\"name\": \"" name "\"" settings  \
    "}, \"name\": \"" name "\""
#define OPERATION(class_name, name, settings)                                                                          \
    "{\"module\": \"keras.src.ops.numpy\", \"class_name\": \"" class_name "\", \"config\": {\"name\": \"" name         \
    "\"" settings "}, \"name\": \"" name "\""
#define TENSOR(name, use, number)                                                                                      \
    "{\"class_name\": \"__keras_tensor__\", \"config\": {\"keras_history\": [\"" name "\", " #use ", " #number "]}}"
#define NODE(arguments) "{\"args\": [" arguments "], \"kwargs\": {}}"
#define NODES(nodes) ", \"inbound_nodes\": [" nodes "]}"
#define FUNCTIONAL(name, layers, begin, end)                                                                           \
    "{\"module\": \"keras\", \"class_name\": \"Functional\", \"config\": {\"name\": \"" name                           \
    "\", \"layers\": [" layers "], \"input_layers\": " begin ", \"output_layers\": " end "}, \"name\": \"" name "\""
#define IN(name, shape) LAYER("InputLayer", name, ", \"batch_shape\": [null, " shape "]") NODES("")

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 1, &model, &error));
    return model;
}

/* Weights of all kernels 1, 2, 3 … and biases 0, so that scores can be told by hand. */
static void number_weights(sap_model *model) {
    for (size_t i = 0; i < sap_model_weight_count(model); i++) {
        const sap_weight *weight = sap_model_weight(model, i);
        weight->data[0] = (float)(i + 1);
    }
}

#define SCALE(name) LAYER("Dense", name, ", \"units\": 1, \"use_bias\": false")

/* A nested model used twice, with two outputs; the whole ends in a dictionary, whose keys Keras sorts. */
static void test_nested(void **state) {
    (void)state;
    sap_model *model = open_net(FUNCTIONAL(
        "net",
        IN("x", "1") ", " FUNCTIONAL("inner",
                                     IN("i", "1") ", " SCALE("a") NODES(NODE(TENSOR("i", 0, 0))) ", " SCALE("b")
                                         NODES(NODE(TENSOR("i", 0, 0))),
                                     "[\"i\", 0, 0]", "[[\"a\", 0, 0], [\"b\", 0, 0]]")
            NODES(NODE(TENSOR("x", 0, 0)) ", " NODE(TENSOR("inner", 0, 1))) ", " SCALE("c")
                NODES(NODE(TENSOR("inner", 1, 0))),
        "[\"x\", 0, 0]", "{\"z\": [\"c\", 0, 0], \"k\": [\"inner\", 2, 1]}") "}");
    assert_int_equal(sap_model_weight_count(model), 3); /* shared */
    assert_string_equal(sap_model_weight(model, 0)->path, "inner/a/kernel");
    assert_string_equal(sap_model_weight(model, 2)->path, "c/kernel");
    assert_string_equal(model->layers[1]->group, "layers/functional/layers/dense");
    assert_string_equal(model->layers[2]->group, "layers/functional/layers/dense_1");
    assert_string_equal(model->layers[3]->group, "layers/dense");
    assert_int_equal(sap_model_output_count(model), 2);
    assert_string_equal(sap_model_output(model, 0)->name, "inner"); /* "k" before "z" */
    assert_string_equal(sap_model_output(model, 1)->name, "c");
    number_weights(model); /* a: 1, b: 2, c: 3 */
    const float x[1] = {5}, *inputs[] = {x};
    float k, z;
    sap_examples examples = {.rows = 1, .inputs = 1, .x = inputs, .values = (int64_t[]){1}};
    assert_ok(sap_model_predict(model, &examples, NULL, (float *[]){&k, &z}, &error));
    assert_true(k == 5 * 2 * 2 && z == 5 * 2 * 1 * 3);
    sap_model_close(model);
}

static void test_operations(void **state) {
    (void)state;
    sap_model *model =
        open_net(FUNCTIONAL("net",
                            IN("x", "2") ", " LAYER("Dense", "a", ", \"units\": 2")
                                NODES(NODE(TENSOR("x", 0, 0))) ", " OPERATION("Add", "plus", "")
                                    NODES(NODE(TENSOR("a", 0, 0) ", " TENSOR("x", 0, 0))) ", " LAYER("Add", "sum", "")
                                        NODES(NODE("[" TENSOR("plus", 0, 0) ", " TENSOR("x", 0, 0) "]")),
                            "[\"x\", 0, 0]", "[\"sum\", 0, 0]") "}");
    assert_null(model->layers[2]->group); /* the layer is the first of its class in the weights file */
    assert_string_equal(model->layers[3]->group, "layers/add");
    memset(model->values, 0, (size_t)model->value_count * sizeof(float));
    const float x[2] = {1, -3}, *inputs[] = {x};
    float y[2];
    sap_examples examples = {.rows = 1, .inputs = 1, .x = inputs, .values = (int64_t[]){2}};
    assert_ok(sap_model_predict(model, &examples, NULL, (float *[]){y}, &error));
    assert_true(y[0] == 2 && y[1] == -6);
    sap_model_close(model);
}

#define DIFFERS(number)                                                                                                \
    OPERATION("NotEqual", "ne", "") NODES("{\"args\": [" TENSOR("x", 0, 0) ", " number "], \"kwargs\": {}}")
#define SOME(settings) OPERATION("Any", "any", settings) NODES(NODE(TENSOR("ne", 0, 0)))
#define MASKED(differs, some, mask)                                                                                    \
    FUNCTIONAL("net",                                                                                                  \
               IN("x", "4, 3") ", " differs ", " some ", " LAYER("Flatten", "flat", "") NODES(                         \
                   "{\"args\": [" TENSOR("x", 0, 0) "], \"kwargs\": {\"mask\": " mask ", \"training\": false}}"),      \
               "[\"x\", 0, 0]", "[\"flat\", 0, 0]")                                                                    \
    "}"

static void test_masks(void **state) {
    (void)state;
    sap_model *model =
        open_net(MASKED(DIFFERS("-1.5"), SOME(", \"axis\": [-1], \"keepdims\": false"), TENSOR("any", 0, 0)));
    assert_int_equal(model->mask_count, 1);
    assert_true(model->masks[0].node == 0 && model->masks[0].value == -1.5F);
    assert_int_equal(model->node_count, 2);
    assert_non_null(model->nodes[1].masks);
    assert_int_equal(model->nodes[1].masks[0], 0);
    sap_model_close(model);
    model = open_net(MASKED(DIFFERS("0"), SOME(", \"axis\": 2"), "null"));
    assert_null(model->nodes[1].masks);
    sap_model_close(model);
}

/* Weights of wrapped layers stand under the wrapper. */
static void test_time_distributed(void **state) {
    (void)state;
#define WRAPPED(inner) SEQUENTIAL(INPUT("x", "4, 2") ", " LAYER("TimeDistributed", "td", ", \"layer\": " inner) "}")
    sap_model *model = open_net(WRAPPED(DENSE("d", "3", "relu")));
    assert_string_equal(model->layers[1]->group, "layers/time_distributed/layer");
    assert_string_equal(sap_model_weight(model, 0)->path, "td/d/kernel");
    assert_string_equal(sap_model_output(model, 0)->name, "td");
    assert_int_equal(sap_model_output(model, 0)->shape[1], 3);
    sap_model_close(model);
    model = open_net(WRAPPED(SEQUENTIAL(INPUT("i", "2") ", " DENSE("d", "3", "relu") ", " DENSE("e", "1", "tanh"))));
    assert_string_equal(model->layers[2]->group, "layers/time_distributed/layer/layers/dense_1");
    assert_int_equal(sap_model_output(model, 0)->shape[0], 4);
    sap_model_close(model);
    assert_int_equal(open_text(WRAPPED(LAYER("Flatten", "f", "") "}"), 0, &model, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "layer \"td/f\": a Flatten inside TimeDistributed");
}

static void test_frozen(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(
        INPUT("x", "4") ", {\"class_name\": \"Sequential\", \"config\": {\"name\": \"s\", \"trainable\": false, "
                        "\"layers\": [" INPUT("i", "4") ", " DENSE("d", "3", "relu") "]}}, " DENSE("e", "2", "tanh")));
    assert_false(sap_model_weight(model, 0)->trainable);
    assert_true(sap_model_weight(model, 2)->trainable);
    assert_int_equal(model->trainable_count, 8);
    sap_model_close(model);
}

static void test_penalties(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(INPUT(
        "x", "4") ", {\"class_name\": \"Dense\", \"config\": {\"name\": \"h\", \"units\": 3, \"kernel_regularizer\": "
                  "{\"class_name\": \"L1L2\", \"config\": {\"l1\": 0.5, \"l2\": 0.25}}, \"bias_regularizer\": \"l2\", "
                  "\"kernel_constraint\": {\"class_name\": \"MinMaxNorm\", \"config\": {\"min_value\": 0.5, "
                  "\"max_value\": 2, \"rate\": 0.9, \"axis\": [0, 1]}}, \"bias_constraint\": \"NonNeg\"}}"));
    const sap_layer_weight *kernel = model->weight_of[0], *bias = model->weight_of[1];
    assert_true(kernel->l1 == 0.5 && kernel->l2 == 0.25 && bias->l1 == 0 && bias->l2 == 0.01);
    assert_int_equal(kernel->constraint.kind, SAP_CONSTRAINT_MIN_MAX_NORM);
    assert_true(kernel->constraint.least == 0.5 && kernel->constraint.most == 2 && kernel->constraint.rate == 0.9);
    assert_int_equal(kernel->constraint.axes, 3);
    assert_int_equal(bias->constraint.kind, SAP_CONSTRAINT_NON_NEGATIVE);
    assert_null(model->untrainable);
    sap_model_close(model);
}

/* ---- What is refused ------------------------------------------------------------------------------------ */

static void test_refused(void **state) {
    (void)state;
#define DENSE_CALLED(node)                                                                                             \
    FUNCTIONAL("net", IN("x", "2") ", " SCALE("a") NODES(node), "[\"x\", 0, 0]", "[\"a\", 0, 0]") "}"
    static const struct {
        const char *json, *message;
    } cases[] = {
        {MASKED(DIFFERS("0"), SOME(", \"axis\": -1, \"keepdims\": true"), "null"),
         "\"any\" (Any): only along the last"},
        {MASKED(DIFFERS("0"), SOME(", \"axis\": 1"), "null"), "\"any\" (Any): only along the last"},
        {MASKED(DIFFERS("0"), SOME(", \"axis\": -1"), TENSOR("x", 0, 0)),
         "layer \"flat\" (Flatten): is called with \"x\", which is no mask"},
        {MASKED(DIFFERS(TENSOR("x", 0, 0)), SOME(""), "null"), "\"ne\" (NotEqual): compares other things"},
        {FUNCTIONAL("net", IN("x", "4, 3") ", " DIFFERS("0"), "[\"x\", 0, 0]", "[\"ne\", 0, 0]") "}",
         "the model's output \"ne\" is a mask"},
        {FUNCTIONAL("net", IN("x", "2") ", " OPERATION("Exp", "e", "") NODES(NODE(TENSOR("x", 0, 0))), "[\"x\", 0, 0]",
                    "[\"e\", 0, 0]") "}",
         "\"e\" is the operation Exp, which is not supported"},
        {FUNCTIONAL("net", IN("x", "2") ", " OPERATION("Add", "m", "") NODES(NODE(TENSOR("x", 0, 0) ", 2.0")),
                    "[\"x\", 0, 0]", "[\"m\", 0, 0]") "}",
         "layer \"m\" (Add): is called with a number"},
        {DENSE_CALLED("{\"args\": [" TENSOR("x", 0, 0) "], \"kwargs\": {\"initial_state\": " TENSOR("x", 0, 0) "}}"),
         "layer \"a\" (Dense): is called with a tensor as initial_state"},
        {DENSE_CALLED(NODE(TENSOR("x", 0, 0) ", " TENSOR("x", 0, 0))), "layer \"a\" (Dense): is called with 2 tensors"},
        {DENSE_CALLED(NODE(TENSOR("x", 0, 1))), "\"a\" reads output 1 of use 0 of \"x\", which there is not"},
        {SEQUENTIAL(INPUT("x", "4") ", {\"class_name\": \"Sequential\", \"config\": {\"name\": \"s\", \"layers\": "
                                    "[{\"class_name\": \"Lambda\", \"config\": {\"name\": \"l\"}}]}}"),
         "layer \"s/l\" is of the class Lambda, which is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_model *model = NULL;
        assert_int_not_equal(open_text(cases[i].json, 0, &model, &error), SAP_OK);
        assert_contains(error.message, cases[i].message);
    }
}

/* Models in models, each used twice, multiply: the number of calls is bounded. */
static void test_many_calls(void **state) {
    (void)state;
    static const char begin[] =
        "{\"class_name\": \"Functional\", \"name\": \"m\", \"config\": {\"layers\": [" IN("x", "1") ", ";
    static const char end[] = "], \"input_layers\": [\"x\", 0, 0], \"output_layers\": [\"m\", 2, 0]}" NODES(
        NODE(TENSOR("x", 0, 0)) ", " NODE(TENSOR("m", 0, 0)));
    sap_text text = {0};
    enum { DEPTH = 40 };
    for (int i = 0; i < DEPTH; i++)
        sap_text_add(&text, "%s", begin);
    sap_text_add(&text, "%s",
                 FUNCTIONAL("m", IN("x", "1"), "[\"x\", 0, 0]", "[\"x\", 0, 0]")
                     NODES(NODE(TENSOR("x", 0, 0)) ", " NODE(TENSOR("m", 0, 0))));
    for (int i = 0; i < DEPTH; i++)
        sap_text_add(&text, "%s", end);
    sap_model *model = NULL;
    assert_int_equal(open_text(text.data, 0, &model, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "more than 4096 uses of nested models");
    sap_text_release(&text);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested),           cmocka_unit_test(test_operations), cmocka_unit_test(test_masks),
        cmocka_unit_test(test_time_distributed), cmocka_unit_test(test_frozen),     cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_refused),          cmocka_unit_test(test_many_calls),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
