/* Model files: reading, writing, and what is wrong with bad ones. */
#include "nn_test.h"

#include "nn/keras_file.h"

#include <math.h>

static sap_error error;

static const char *hlf_path(void) {
    static char path[4096];
    const char *source = getenv("SAPWOOD_SOURCE");
    (void)snprintf(path, sizeof path, "%s/models/hlf.keras", source ? source : ".");
    return path;
}

static sap_model *open_net(const char *json) {
    sap_model *model = NULL;
    assert_ok(open_text(json, 1, &model, &error));
    return model;
}

/* ---- Good ones ------------------------------------------------------------------------------------------ */

static void test_hlf(void **state) {
    (void)state;
    sap_model *model = NULL;
    assert_ok(sap_model_open(hlf_path(), 0, &model, &error));
    assert_int_equal(sap_model_input_count(model), 1);
    assert_string_equal(sap_model_input(model, 0)->name, "hlf");
    assert_int_equal(sap_model_input(model, 0)->shape[0], 14);
    assert_null(sap_model_input(model, 1));
    assert_int_equal(sap_model_output(model, 0)->rank, 1);
    assert_int_equal(sap_model_output(model, 0)->shape[0], 3);
    assert_int_equal(sap_model_parameter_count(model), 2013);
    assert_int_equal(sap_model_weight_count(model), 8);
    const sap_weight *kernel = sap_model_weight(model, 2);
    assert_string_equal(kernel->path, "dense_1/kernel");
    assert_true(kernel->rank == 2 && kernel->shape[0] == 50 && kernel->shape[1] == 20 && kernel->trainable);
    assert_true(kernel->data[0] != 0 && sap_model_weight(model, 3)->data[0] == 0);
    assert_contains(sap_model_summary(model), "2013 parameters");
    assert_contains(sap_model_summary(model), "(None, 50)");
    sap_model_close(model);
    sap_model_close(NULL);
}

static void test_write_and_read(void **state) {
    (void)state;
    sap_model *a = NULL, *b = NULL;
    char first[256], *x = NULL, *y = NULL;
    size_t m, n;
    assert_ok(sap_model_open(hlf_path(), 0, &a, &error));
    assert_ok(sap_model_reset(a, 5, &error));
    (void)snprintf(first, sizeof first, "%s", scratch("a.keras"));
    assert_ok(sap_model_write(a, first, &error));
    assert_ok(sap_model_open(first, 0, &b, &error));
    assert_memory_equal(a->values, b->values, (size_t)a->value_count * sizeof(float));
    assert_int_equal(a->config_length, b->config_length); /* byte for byte */
    assert_memory_equal(a->config, b->config, a->config_length);
    assert_string_equal(a->metadata, b->metadata);
    assert_ok(sap_model_write(b, scratch("b.keras"), &error)); /* equal models give equal files */
    assert_ok(sap_file_load(first, 1 << 20, &x, &m, &error));
    assert_ok(sap_file_load(scratch("b.keras"), 1 << 20, &y, &n, &error));
    assert_int_equal(m, n);
    assert_memory_equal(x, y, m);
    assert_false(sap_path_exists(scratch("b.keras.partial")));
    free(x);
    free(y);
    sap_model_close(a);
    sap_model_close(b);
}

static void test_reset(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(INPUT("x", "4") ", " DENSE("a", "3", "relu")));
    float before[15];
    memcpy(before, model->values, sizeof before);
    assert_ok(sap_model_reset(model, 2, &error));
    assert_true(before[0] != model->values[0] && model->values[12] == 0);
    assert_ok(sap_model_reset(model, 1, &error));
    assert_memory_equal(before, model->values, sizeof before);
    sap_model_close(model);
}

/* Keras 2 JSON: nodes as lists, data types as strings, other keys. */
static void test_old_json(void **state) {
    (void)state;
    sap_model *model = open_net(
        "{\"class_name\": \"Model\", \"keras_version\": \"2.2.4\", \"config\": {\"name\": \"m\", \"layers\": ["
        "{\"name\": \"a\", \"class_name\": \"InputLayer\", \"config\": {\"batch_input_shape\": [null, 4], \"dtype\": "
        "\"float32\", \"name\": \"a\"}, \"inbound_nodes\": []},"
        "{\"name\": \"b\", \"class_name\": \"InputLayer\", \"config\": {\"batch_input_shape\": [null, 2], \"name\": "
        "\"b\"}, \"inbound_nodes\": []},"
        "{\"name\": \"c\", \"class_name\": \"Concatenate\", \"config\": {\"name\": \"c\", \"axis\": -1}, "
        "\"inbound_nodes\": [[[\"b\", 0, 0, {}], [\"a\", 0, 0, {}]]]},"
        "{\"name\": \"d\", \"class_name\": \"Dense\", \"config\": {\"name\": \"d\", \"units\": 2, \"activation\": "
        "\"softmax\", \"kernel_initializer\": {\"class_name\": \"Identity\", \"config\": {\"gain\": 1}}}, "
        "\"inbound_nodes\": [[[\"c\", 0, 0, {}]]]}],"
        "\"input_layers\": [[\"a\", 0, 0], [\"b\", 0, 0]], \"output_layers\": [[\"d\", 0, 0]]}}");
    const float a[4] = {0, 0, 0, 0}, b[2] = {1, 1 + logf(3)};
    const float *x[2] = {a, b};
    const int64_t values[2] = {4, 2};
    sap_examples examples = {.rows = 1, .inputs = 2, .x = x, .values = values};
    float scores[2];
    assert_string_equal(sap_model_input(model, 1)->name, "b");
    assert_ok(sap_model_predict(model, &examples, NULL, &(float *){scores}, &error)); /* b comes first in c */
    assert_true(fabsf(scores[0] - 0.25F) < 1e-6F && fabsf(scores[1] - 0.75F) < 1e-6F);
    sap_model_close(model);
}

static void test_snake_case(void **state) {
    (void)state;
    static const char *const names[][2] = {{"Dense", "dense"},
                                           {"PReLU", "p_re_lu"},
                                           {"ReLU", "re_lu"},
                                           {"LeakyReLU", "leaky_re_lu"},
                                           {"ELU", "elu"},
                                           {"GRU", "gru"},
                                           {"Conv1D", "conv1d"},
                                           {"BatchNormalization", "batch_normalization"},
                                           {"GlobalAveragePooling1D", "global_average_pooling1d"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char out[100];
        sap_snake_case(names[i][0], out, sizeof out);
        assert_string_equal(out, names[i][1]);
    }
}

/* ---- Running -------------------------------------------------------------------------------------------- */

static void test_predict_threads(void **state) {
    (void)state;
    sap_model *model = open_net(DROPOUT_NET);
    random_examples r;
    make_examples(&r, 5003, 14);
    float *one = calloc(5003 * 3, sizeof *one), *three = calloc(5003 * 3, sizeof *three);
    sap_pool *pool = NULL;
    assert_ok(sap_pool_open(3, &pool, &error));
    assert_ok(sap_model_predict(model, &r.examples, NULL, &one, &error));
    assert_ok(sap_model_predict(model, &r.examples, &(sap_run){.pool = pool}, &three, &error));
    assert_memory_equal(one, three, 5003 * 3 * sizeof *one);
    for (int i = 0; i < 5003; i++)
        assert_true(fabsf(one[3 * i] + one[3 * i + 1] + one[3 * i + 2] - 1) < 1e-5F);
    sap_pool_close(pool);
    free(one);
    free(three);
    free_examples(&r);
    sap_model_close(model);
}

/* Several outputs, one of them twice, and one that is an input. */
static void test_outputs(void **state) {
    (void)state;
    sap_model *model = open_net("{\"class_name\": \"Functional\", \"config\": {\"layers\": [" INPUT(
        "x",
        "2") ", "
             "{\"class_name\": \"Dense\", \"config\": {\"name\": \"d\", \"units\": 3, \"bias_initializer\": \"ones\", "
             "\"kernel_initializer\": \"ones\"}, \"inbound_nodes\": [[[\"x\", 0, 0, {}]]]}, "
             "{\"class_name\": \"ReLU\", \"config\": {\"name\": \"r\"}, \"inbound_nodes\": [[[\"x\", 0, 0, {}]]]}], "
             "\"input_layers\": [[\"x\", 0, 0]], "
             "\"output_layers\": [[\"r\", 0, 0], [\"d\", 0, 0], [\"x\", 0, 0], [\"d\", 0, 0]]}}");
    enum { N = 70 };
    random_examples r;
    make_examples(&r, N, 2);
    float relu[N * 2], sum[N * 3], same[N * 2], again[N * 3];
    assert_int_equal(sap_model_output_count(model), 4);
    assert_string_equal(sap_model_output(model, 1)->name, "d");
    assert_null(sap_model_output(model, 4));
    assert_ok(sap_model_predict(model, &r.examples, NULL, (float *[]){relu, sum, same, again}, &error));
    assert_memory_equal(same, r.x, sizeof same);
    assert_memory_equal(sum, again, sizeof sum);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 3; c++) {
            assert_true(fabsf(sum[i * 3 + c] - (1 + r.x[2 * i] + r.x[2 * i + 1])) < 1e-6F);
            assert_true(c > 1 || relu[i * 2 + c] == fmaxf(r.x[i * 2 + c], 0));
        }
    free_examples(&r);
    sap_model_close(model);
}

static double loss_of(const sap_model *model, const sap_examples *examples) {
    double loss = 0;
    float *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    assert_ok(sap_model_gradient(model, examples, NULL, NULL, &loss, gradients, &error));
    free(gradients);
    return loss;
}

/* Each form of the kernels: gradients against differences of losses, and against each other. */
static void test_gradient(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(INPUT("x", "5") ", " DENSE("a", "7", "tanh") ", " DENSE(
        "b", "6", "gelu") ", "
                          "{\"class_name\": \"Softmax\", \"config\": {\"name\": \"s\"}}, " DENSE("c", "3", "softmax")));
    random_examples r;
    make_examples(&r, 150, 5);
    size_t count = (size_t)model->trainable_count;
    float *gradients = calloc(count, sizeof *gradients), *other = calloc(count, sizeof *other);
    double loss;
    assert_ok(sap_model_gradient(model, &r.examples, NULL, NULL, &loss, gradients, &error));
    for (size_t i = 0; i < count; i += 5) {
        float kept = model->values[i];
        model->values[i] = kept + 0.02F;
        double up = loss_of(model, &r.examples);
        model->values[i] = kept - 0.02F;
        double down = loss_of(model, &r.examples);
        model->values[i] = kept;
        assert_true(fabs((up - down) / 0.04 - (double)gradients[i]) < 2e-4);
    }
    for (size_t form = 0; sap_kernels_at(form); form++) {
        sap_program *program = NULL;
        sap_batch_result result;
        assert_ok(sap_program_open(model, SAP_DIFFERENTIATE, NULL, sap_kernels_at(form), NULL, &program, &error));
        assert_ok(sap_program_run(program, &r.examples, 0, other, NULL, &result, &error));
        assert_true(fabs(sap_loss_mean(&result.outputs[0]) - loss) < 1e-6);
        for (size_t i = 0; i < count; i++)
            assert_true(fabsf(other[i] - gradients[i]) < 1e-6F);
        sap_program_close(program);
    }
    free(gradients);
    free(other);
    free_examples(&r);
    sap_model_close(model);
}

static void test_wrong_examples(void **state) {
    (void)state;
    sap_model *model = open_net(DROPOUT_NET);
    random_examples r;
    make_examples(&r, 10, 13);
    float scores[30], *gradients = calloc((size_t)model->trainable_count, sizeof *gradients);
    double loss;
    assert_int_equal(sap_model_predict(model, &r.examples, NULL, &(float *){scores}, &error), SAP_ETYPE);
    assert_contains(error.message, "input \"x\" takes 14 values a row, the examples have 13");
    r.values[0] = 14;
    r.examples.rows = 9;
    r.label[4] = 3;
    assert_int_equal(sap_model_gradient(model, &r.examples, NULL, NULL, &loss, gradients, &error), SAP_EDATA);
    assert_contains(error.message, "row 4 of the batch has the label 3");
    r.examples.inputs = 2;
    assert_int_equal(sap_model_predict(model, &r.examples, NULL, &(float *){scores}, &error), SAP_ETYPE);
    free(gradients);
    free_examples(&r);
    sap_model_close(model);
}

/* ---- Bad ones ------------------------------------------------------------------------------------------- */

static void test_bad_json(void **state) {
    (void)state;
    static const struct {
        const char *json;
        sap_status status;
        const char *message;
    } cases[] = {
        {"{\"class_name\": ", SAP_EFORMAT, "line 1"},
        {"[]", SAP_EFORMAT, "not a Keras model"},
        {"{\"class_name\": \"Sequential\", \"config\": {\"layers\": []}}", SAP_EFORMAT, "0 layers"},
        {"{\"class_name\": \"MyModel\", \"config\": {}}", SAP_EUNSUPPORTED, "MyModel"},
        {SEQUENTIAL(INPUT("x", "4") ", {\"class_name\": \"ConvLSTM1D\", \"config\": {\"name\": \"gru_7\"}}"),
         SAP_EUNSUPPORTED, "model.json: layer \"gru_7\" is of the class ConvLSTM1D, which is not supported"},
        {SEQUENTIAL(INPUT("x", "4") ", " DENSE("a", "3", "rleu")), SAP_EUNSUPPORTED,
         "layer \"a\" (Dense): activation \"rleu\""},
        {SEQUENTIAL(INPUT("x", "4") ", " DENSE("a", "0", "relu")), SAP_EFORMAT, "\"units\" is 0"},
        {SEQUENTIAL(INPUT("x", "4") ", " DENSE("a", "3", "relu") ", " DENSE("a", "3", "relu")), SAP_EFORMAT,
         "two layers are called \"a\""},
        {SEQUENTIAL(INPUT("x", "9000000") ", " DENSE("a", "9000000", "relu")), SAP_EUNSUPPORTED, "parameters"},
        {SEQUENTIAL(INPUT("x", "null") ", " DENSE("a", "3", "relu")), SAP_EUNSUPPORTED, "variable size"},
        {SEQUENTIAL(DENSE("a", "3", "relu")), SAP_EFORMAT, "before the shape of its input was known"},
        {SEQUENTIAL(
             INPUT("x", "4") ", {\"class_name\": \"Reshape\", \"config\": {\"name\": \"r\", \"target_shape\": [3]}}"),
         SAP_EFORMAT, "4 values do not fit"},
        {SEQUENTIAL(INPUT("x", "4") ", {\"class_name\": \"Dropout\", \"config\": {\"name\": \"r\", \"rate\": 2}}"),
         SAP_EFORMAT, "\"rate\""},
        {SEQUENTIAL(
             INPUT("x", "4") ", {\"class_name\": \"Dense\", \"config\": {\"name\": \"h\", \"units\": 2, \"dtype\": "
                             "{\"class_name\": \"DTypePolicy\", \"config\": {\"name\": \"mixed_float16\"}}}}"),
         SAP_EUNSUPPORTED, "mixed_float16"},
        {"{\"class_name\": \"Functional\", \"config\": {\"layers\": [" INPUT(
             "x", "4") ", {\"class_name\": \"Flatten\", "
                       "\"config\": {\"name\": \"f\"}, \"inbound_nodes\": [[[\"y\", 0, 0, {}]]]}], \"input_layers\": "
                       "[[\"x\", 0, 0]], "
                       "\"output_layers\": [[\"f\", 0, 0]]}}",
         SAP_EFORMAT, "\"f\" reads \"y\""},
        {"{\"class_name\": \"Functional\", \"config\": {\"layers\": [" INPUT(
             "x", "4") ", {\"class_name\": \"Flatten\", "
                       "\"config\": {\"name\": \"f\"}, \"inbound_nodes\": [[[\"g\", 0, 0, {}]]]}, {\"class_name\": "
                       "\"Flatten\", "
                       "\"config\": {\"name\": \"g\"}, \"inbound_nodes\": [[[\"f\", 0, 0, {}]]]}], \"input_layers\": "
                       "[[\"x\", 0, 0]], "
                       "\"output_layers\": [[\"f\", 0, 0]]}}",
         SAP_EFORMAT, "\"f\" reads \"g\""},
        {"{\"class_name\": \"Functional\", \"config\": {\"layers\": [" INPUT("x", "4") ", " INPUT(
             "y",
             "4") ", {\"class_name\": \"Add\", \"config\": {\"name\": \"s\"}, \"inbound_nodes\": [[[\"x\", 0, 0, {}], "
                  "[\"y\", 0, 0, {}]]]}], \"input_layers\": [[\"x\", 0, 0], [\"x\", 0, 0]], \"output_layers\": "
                  "[[\"s\", 0, 0]]}}",
         SAP_EFORMAT, "its input \"x\" twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sap_model *model = NULL;
        sap_status status = open_text(cases[i].json, 0, &model, &error);
        if (status != cases[i].status)
            fail_msg("%s: %s, \"%s\"", cases[i].json, sap_status_name(status), error.message);
        bool circle = strstr(error.message, "in a circle") != NULL && strstr(cases[i].json, "\"g\"");
        if (!circle)
            assert_contains(error.message, cases[i].message);
        assert_null(model);
    }
}

static void test_training_refused(void **state) {
    (void)state;
    sap_model *model = open_net(SEQUENTIAL(INPUT(
        "x", "4") ", {\"class_name\": \"Dense\", \"config\": {\"name\": \"h\", \"units\": 3, \"kernel_regularizer\": "
                  "{\"class_name\": \"OrthogonalRegularizer\", \"config\": {\"factor\": 0.01}}}}"));
    random_examples r;
    make_examples(&r, 5, 4);
    float gradients[15], scores[15];
    double loss;
    assert_ok(sap_model_predict(model, &r.examples, NULL, &(float *){scores}, &error));
    assert_int_equal(sap_model_gradient(model, &r.examples, NULL, NULL, &loss, gradients, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "layer \"h\" (Dense): the regularizer \"OrthogonalRegularizer\" is not supported");
    free_examples(&r);
    sap_model_close(model);
}

/* Packs a `.keras` file of the net with one array changed by `change`. */
static void pack_changed(const char *name, void (*change)(sap_keras_file *file)) {
    const void *table = NULL;
    sap_keras_file file;
    sap_arena arena = {0};
    void *bytes = NULL;
    size_t length;
    assert_ok(sap_plugin_find("keras", &table, &error));
    assert_ok(sap_model_unpack(hlf_path(), &arena, &file, &error));
    change(&file);
    assert_ok(((const sap_keras_plugin *)table)->pack(name, &file, &bytes, &length, &error));
    assert_ok(sap_file_store(scratch(name), bytes, length, &error));
    free(bytes);
    sap_arena_release(&arena);
}

static void transpose(sap_keras_file *file) {
    for (size_t i = 0; i < file->array_count; i++)
        if (strcmp(file->arrays[i].path, "layers/dense_1/vars/0") == 0) {
            file->arrays[i].shape[0] = 20;
            file->arrays[i].shape[1] = 50;
        }
}

static void leave_out(sap_keras_file *file) {
    for (size_t i = 0; i < file->array_count; i++)
        if (strcmp(file->arrays[i].path, "layers/dense_2/vars/1") == 0)
            file->arrays[i] = file->arrays[--file->array_count];
}

static void test_bad_weights(void **state) {
    (void)state;
    sap_model *model = NULL;
    pack_changed("shape.keras", transpose);
    assert_int_equal(sap_model_open(scratch("shape.keras"), 0, &model, &error), SAP_ETYPE);
    assert_contains(error.message, "shape.keras: layer \"dense_1\" (Dense): its kernel (layers/dense_1/vars/0) has the "
                                   "shape (20, 50), (50, 20) was expected");
    pack_changed("missing.keras", leave_out);
    assert_int_equal(sap_model_open(scratch("missing.keras"), 0, &model, &error), SAP_EFORMAT);
    assert_contains(error.message, "has no \"layers/dense_2/vars/1\"");
    assert_null(model);
}

static void test_not_there(void **state) {
    (void)state;
    sap_model *model = NULL;
    assert_int_equal(sap_model_open(scratch("nothing.keras"), 0, &model, &error), SAP_ENOTFOUND);
    assert_contains(error.message, "nothing.keras");
    assert_ok(sap_file_store(scratch("old.h5"), "\x89HDF\r\n\x1a\n", 8, &error));
    assert_int_equal(sap_model_open(scratch("old.h5"), 0, &model, &error), SAP_EUNSUPPORTED);
    assert_contains(error.message, "old.h5: is HDF5 in a form that Keras' .h5 files do not have, or damaged");
    assert_ok(sap_file_store(scratch("empty.keras"), "", 0, &error));
    assert_int_equal(sap_model_open(scratch("empty.keras"), 0, &model, &error), SAP_EFORMAT);
    assert_ok(sap_model_open(hlf_path(), 0, &model, &error));
    assert_int_equal(sap_model_write(model, "/nowhere/at/all.keras", &error), SAP_ENOTFOUND);
    assert_contains(error.message, "/nowhere/at/all.keras");
    sap_model_close(model);
}

/* A config is parsed into many times its size; a small zip can hold a large one. */
static void test_large_config(void **state) {
    (void)state;
    sap_model *model = NULL, *again = NULL;
    size_t length = ((size_t)64 << 20) + 1;
    char *spaces = malloc(length + 1);
    assert_non_null(spaces);
    memset(spaces, ' ', length);
    spaces[length] = '\0';
    assert_ok(sap_model_open(hlf_path(), 0, &model, &error));
    model->config = spaces;
    model->config_length = length;
    assert_ok(sap_model_write(model, scratch("large.keras"), &error));
    assert_int_equal(sap_model_open(scratch("large.keras"), 0, &again, &error), SAP_EFORMAT);
    assert_contains(error.message, "config.json: claims 67108865 bytes");
    (void)remove(scratch("large.keras"));
    sap_model_close(model);
    free(spaces);
}

static void test_damage(void **state) {
    (void)state;
    char *bytes = NULL;
    size_t length;
    assert_ok(sap_file_load(hlf_path(), 1 << 20, &bytes, &length, &error));
    for (size_t cut = 0; cut < length; cut += cut < 300 || length - cut < 300 ? 7 : 977) {
        sap_model *model = NULL;
        assert_ok(sap_file_store(scratch("cut.keras"), bytes, cut, &error));
        assert_int_not_equal(sap_model_open(scratch("cut.keras"), 0, &model, &error), SAP_OK);
        assert_contains(error.message, "cut.");
        assert_null(model);
    }
    size_t refused = 0;
    for (uint64_t i = 0; i < 300; i++) {
        sap_model *model = NULL;
        size_t place = sap_mix(1, i) % length;
        char kept = bytes[place];
        bytes[place] = (char)(bytes[place] ^ (1 << (sap_mix(2, i) % 8)));
        assert_ok(sap_file_store(scratch("flip.keras"), bytes, length, &error));
        bytes[place] = kept;
        refused += sap_model_open(scratch("flip.keras"), 0, &model, &error) != SAP_OK;
        sap_model_close(model);
    }
    assert_true(refused > 270); /* the rest hit fields of the zip that nobody needs */
    free(bytes);
}

/* Bytes changed, cut out or doubled in a config: an error or a model, and nothing else. */
static void test_mutated_json(void **state) {
    (void)state;
    sap_model *model = NULL;
    assert_ok(sap_model_open(hlf_path(), 0, &model, &error));
    size_t length = model->config_length, opened = 0;
    char *text = calloc(length + 1000, 1);
    for (uint64_t i = 0; i < 1500; i++) {
        size_t now = length;
        memcpy(text, model->config, length + 1);
        for (uint64_t change = 0; change <= i % 3; change++) {
            uint64_t key = sap_mix(i, change);
            size_t place = sap_mix(key, 1) % now, count = sap_mix(key, 2) % 40 + 1;
            count = count < now - place ? count : now - place;
            if (key % 4 == 0)
                text[place] = (char)(32 + sap_mix(key, 3) % 95);
            else if (key % 4 == 1)
                text[place] = (char)('0' + sap_mix(key, 3) % 10);
            else if (key % 4 == 2) {
                memmove(text + place, text + place + count, now - place - count + 1);
                now -= count;
            } else {
                memmove(text + place + count, text + place, now - place + 1);
                now += count;
            }
        }
        sap_model *other = NULL;
        opened += open_text(text, 0, &other, &error) == SAP_OK;
        sap_model_close(other);
    }
    assert_in_range(opened, 20, 1000); /* changes of names and numbers may be fine */
    free(text);
    sap_model_close(model);
}

static int tear_down(void **state) {
    (void)state;
    remove_scratch();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hlf),          cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_reset),        cmocka_unit_test(test_old_json),
        cmocka_unit_test(test_snake_case),   cmocka_unit_test(test_predict_threads),
        cmocka_unit_test(test_gradient),     cmocka_unit_test(test_wrong_examples),
        cmocka_unit_test(test_bad_json),     cmocka_unit_test(test_training_refused),
        cmocka_unit_test(test_bad_weights),  cmocka_unit_test(test_not_there),
        cmocka_unit_test(test_damage),       cmocka_unit_test(test_mutated_json),
        cmocka_unit_test(test_large_config), cmocka_unit_test(test_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
