/* Model JSON of Keras 1 and 2: what becomes of it, and what is refused. */
#include "nn_test.h"

#include "nn/training_config.h"

#include <math.h>

static sap_error error;

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 1, &model, &error));
    return model;
}

/* The config of a layer of the model's config.json, which is Keras 3's now. The root is to be given back. */
static const json_t *config_of(const sap_model *model, const char *name, json_t **root, const json_t **entry) {
    *root = json_loadb(model->config, model->config_length, 0, NULL);
    assert_non_null(*root);
    assert_true(json_is_string(json_object_get(*root, "module")));
    size_t i;
    json_array_foreach(json_object_get(json_object_get(*root, "config"), "layers"), i, *entry) {
        if (strcmp(json_string_value(json_object_get(json_object_get(*entry, "config"), "name")), name) == 0)
            return json_object_get(*entry, "config");
    }
    fail_msg("no layer %s", name);
    return NULL;
}

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

/* A Sequential model is a list, its first layer says the shape; other names for everything. */
static void test_keras_1(void **state) {
    (void)state;
    sap_model *model = open_net(
        "{\"class_name\": \"Sequential\", \"keras_version\": \"1.2.2\", \"config\": [{\"class_name\": \"Dense\", "
        "\"config\": {\"name\": \"d\", \"output_dim\": 3, \"init\": \"he_normal\", \"bias\": true, \"activation\": "
        "\"relu\", \"batch_input_shape\": [null, 4], \"input_dim\": 4, \"W_regularizer\": {\"name\": "
        "\"WeightRegularizer\", \"l1\": 0.0, \"l2\": 0.5}, \"W_constraint\": {\"name\": \"MaxNorm\", \"m\": 3, "
        "\"axis\": 0}}}, {\"class_name\": \"Dropout\", \"config\": {\"name\": \"p\", \"p\": 0.25}}]}");
    assert_int_equal(model->layer_count, 3);
    assert_int_equal(sap_model_input(model, 0)->shape[0], 4);
    assert_int_equal(sap_model_output(model, 0)->shape[0], 3);
    assert_true(model->weight_of[0]->l2 == 0.5 && model->weight_of[0]->constraint.most == 3);
    assert_true(model->layers[2]->rate == 0.25);
    json_t *root;
    const json_t *entry, *dense = config_of(model, "d", &root, &entry);
    assert_string_equal(text(dense, "kernel_initializer"), "he_normal");
    assert_null(json_object_get(dense, "input_dim"));
    assert_string_equal(text(json_object_get(dense, "kernel_regularizer"), "class_name"), "L1L2");
    assert_string_equal(text(json_object_get(dense, "kernel_constraint"), "module"), "keras.constraints");
    json_decref(root);
    sap_model_close(model);
}

#define OLD_GRU(settings)                                                                                              \
    "{\"class_name\": \"Sequential\", \"keras_version\": \"2.1.6\", \"config\": [{\"class_name\": \"GRU\", "           \
    "\"config\": {"                                                                                                    \
    "\"name\": \"g\", \"units\": 2, \"batch_input_shape\": [null, 5, 3], \"implementation\": 1, "                      \
    "\"recurrent_activation\": "                                                                                       \
    "\"sigmoid\", \"recurrent_initializer\": {\"class_name\": \"VarianceScaling\", \"config\": {\"distribution\": "    \
    "\"normal\", \"dtype\": \"float32\"}}" settings "}}]}"

static void test_gru(void **state) {
    (void)state;
    sap_model *model = open_net(OLD_GRU(", \"time_major\": false"));
    assert_int_equal(sap_model_weight(model, 2)->rank, 1); /* reset_after was false where nothing is said */
    json_t *root;
    const json_t *entry, *gru = config_of(model, "g", &root, &entry);
    assert_true(json_is_false(json_object_get(gru, "reset_after")));
    assert_null(json_object_get(gru, "implementation"));
    assert_null(json_object_get(gru, "time_major"));
    const json_t *drawn = json_object_get(json_object_get(gru, "recurrent_initializer"), "config");
    assert_string_equal(text(drawn, "distribution"), "truncated_normal");
    assert_null(json_object_get(drawn, "dtype"));
    json_decref(root);
    sap_model_close(model);
    model = open_net(OLD_GRU(", \"reset_after\": true"));
    assert_int_equal(sap_model_weight(model, 2)->rank, 2);
    sap_model_close(model);
}

/* Keras 2 gives nested models a use of their own before the first; that of Keras 3 is no longer counted. */
static void test_nested(void **state) {
    (void)state;
#define OLD_INPUT(name)                                                                                                \
    "{\"name\": \"" name                                                                                               \
    "\", \"class_name\": \"InputLayer\", \"config\": {\"batch_input_shape\": [null, 1], \"name\": \"" name             \
    "\"}, \"inbound_nodes\": []}"
#define OLD_DENSE(name, nodes)                                                                                         \
    "{\"name\": \"" name "\", \"class_name\": \"Dense\", \"config\": {\"name\": \"" name                               \
    "\", \"units\": 1, \"use_bias\": false}, \"inbound_nodes\": [" nodes "]}"
    sap_model *model = open_net(
        "{\"class_name\": \"Model\", \"keras_version\": \"2.4.0\", \"config\": {\"name\": \"m\", \"layers\": "
        "[" OLD_INPUT(
            "x") ", {\"name\": \"f\", \"class_name\": \"Functional\", \"config\": {\"name\": \"f\", \"layers\": "
                 "[" OLD_INPUT("i") ", " OLD_DENSE(
                     "a", "[[\"i\", 0, 0, {}]]") "], \"input_layers\": [[\"i\", 0, 0]], "
                                                 "\"output_layers\": [[\"a\", 0, 0]]}, \"inbound_nodes\": [[[\"x\", 0, "
                                                 "0, {}]], [[\"f\", 1, 0, {}]]]}, "
                                                 "{\"name\": \"s\", \"class_name\": \"Sequential\", \"config\": "
                                                 "{\"name\": \"s\", \"layers\": "
                                                 "[" OLD_INPUT("j") ", " OLD_DENSE(
                                                     "b", "") "]}, \"inbound_nodes\": [[[\"f\", 2, 0, {}]]]}], "
                                                              "\"input_layers\": [[\"x\", 0, 0]], \"output_layers\": "
                                                              "[[\"s\", 1, 0], [\"f\", 1, 0]]}}");
    model->values[0] = 2;
    model->values[1] = 5;
    const float x[1] = {3}, *inputs[] = {x};
    float all, once;
    sap_examples examples = {.rows = 1, .inputs = 1, .x = inputs, .values = (int64_t[]){1}};
    assert_ok(sap_model_predict(model, &examples, NULL, (float *[]){&all, &once}, &error));
    assert_true(all == 3 * 2 * 2 * 5 && once == 3 * 2);
    sap_model_close(model);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {OLD_GRU(", \"time_major\": true"), "layer \"g\" (GRU): \"time_major\", which Keras 3 does not have"},
        {"{\"class_name\": \"Sequential\", \"keras_version\": \"2.1.6\", \"config\": [{\"class_name\": \"Activation\", "
         "\"config\": {\"name\": \"h\", \"activation\": \"hard_sigmoid\", \"batch_input_shape\": [null, 3]}}]}",
         "layer \"h\" (Activation): \"hard_sigmoid\" of Keras 2 is 0.2 x + 0.5"},
        {"{\"class_name\": \"Sequential\", \"config\": [{\"class_name\": \"Merge\", \"config\": {\"name\": \"m\", "
         "\"mode\": \"cos\"}}]}",
         "layer \"m\" (Merge) with mode \"cos\""},
        {"{\"class_name\": \"Model\", \"config\": {\"layers\": [{\"class_name\": \"Dense\", \"name\": \"d\", "
         "\"config\": {}, \"inbound_nodes\": [[[\"x\", \"y\"]]]}]}}",
         "layer \"d\": an input is not [name, node, tensor]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_model *model = NULL;
        assert_int_not_equal(open_text(cases[i].json, 0, &model, &error), SAP_OK);
        assert_contains(error.message, cases[i].message);
    }
}

/* ---- compile_config --------------------------------------------------------------------------------------- */

#define COMPILED(compiled)                                                                                             \
    "{\"module\": \"keras\", \"class_name\": \"Sequential\", \"config\": {\"name\": \"net\", \"layers\": [" INPUT(     \
        "x", "4") ", " DENSE("d", "3", "softmax") "]}, \"compile_config\": " compiled "}"

static void test_compile_config(void **state) {
    (void)state;
    sap_model *model = open_net(
        COMPILED("{\"optimizer\": {\"class_name\": \"SGD\", \"config\": {\"momentum\": 0.5, \"nesterov\": true, "
                 "\"clipnorm\": 2.0, \"learning_rate\": {\"class_name\": \"CosineDecay\", \"config\": "
                 "{\"initial_learning_rate\": 0.0, \"decay_steps\": 100, \"alpha\": 0.1, \"warmup_target\": 0.2, "
                 "\"warmup_steps\": 10}}}}, \"loss\": {\"class_name\": \"function\", \"config\": "
                 "\"categorical_crossentropy\"}, \"loss_weights\": [0.5]}"));
    const sap_training_config *config = sap_model_training_config(model);
    assert_non_null(config);
    assert_null(config->unknown);
    const sap_optimizer *o = &config->optimizer;
    assert_int_equal(o->kind, SAP_OPTIMIZER_SGD);
    assert_true(o->learning_rate == 0.2 && o->momentum == 0.5 && o->nesterov && o->clipnorm == 2);
    assert_int_equal(o->schedule.kind, SAP_SCHEDULE_COSINE);
    assert_true(o->schedule.warmup_steps == 10 && o->schedule.warmup_from == 0 && o->schedule.alpha == 0.1);
    assert_int_equal(config->losses[0].kind, SAP_LOSS_CATEGORICAL_CROSSENTROPY);
    assert_true(config->losses[0].weight == 0.5);
    const char *before = model->config;
    sap_optimizer same = *o;
    assert_ok(sap_training_config_set(model, &same, config->losses, &error));
    assert_ptr_equal(model->config, before); /* nothing new */
    sap_optimizer other = {.kind = SAP_OPTIMIZER_ADAMW, .learning_rate = 0.25};
    sap_loss loss = {.kind = SAP_LOSS_HUBER, .delta = 2, .weight = 1};
    assert_ok(sap_optimizer_check(&other, &other, &error));
    assert_ok(sap_training_config_set(model, &other, &loss, &error));
    config = sap_model_training_config(model); /* as read from what was written */
    assert_null(config->unknown);
    assert_int_equal(config->optimizer.kind, SAP_OPTIMIZER_ADAMW);
    assert_true(config->optimizer.learning_rate == 0.25 && config->optimizer.weight_decay == 0.004);
    assert_int_equal(config->optimizer.schedule.kind, SAP_SCHEDULE_CONSTANT);
    assert_int_equal(config->losses[0].kind, SAP_LOSS_HUBER);
    assert_true(config->losses[0].delta == 2);
    sap_model_close(model);
}

static void test_unknown_compile_config(void **state) {
    (void)state;
    sap_model *model = open_net(COMPILED("{\"optimizer\": \"ftrl\", \"loss\": \"mse\"}"));
    assert_contains(sap_model_training_config(model)->unknown, "there is no optimizer \"ftrl\"");
    sap_model_close(model);
    model = open_net(COMPILED("{\"optimizer\": \"adam\", \"loss\": \"dice\"}"));
    assert_contains(sap_model_training_config(model)->unknown, "compile_config: there is no loss \"dice\"");
    sap_model_close(model);
    model = open_net(COMPILED("null"));
    assert_null(sap_model_training_config(model));
    sap_model_close(model);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keras_1),        cmocka_unit_test(test_gru),
        cmocka_unit_test(test_nested),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_compile_config), cmocka_unit_test(test_unknown_compile_config),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
