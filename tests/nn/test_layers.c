/* Layers one by one, against their formulas in double precision: regular and ragged tiles, masks, added gradients. */
#include "layer_test.h"

/* Rows of a ragged tile, not sorted; one is empty. */
static int32_t lengths[SAP_TILE];

static const int32_t *ragged(int32_t most) {
    for (int r = 0; r < USE_ROWS; r++)
        lengths[r] = (int32_t)(sap_mix(9, (uint64_t)r) % (uint64_t)(most + 1));
    lengths[4] = 0;
    lengths[2] = most;
    return lengths;
}

static int64_t steps_of(const layer_use *u, int32_t input, int row) {
    return use_length(&u->shape[input], &u->steps[input], row);
}

#define SHAPE(...)                                                                                                     \
    {                                                                                                                  \
        (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {                                               \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }

/* ---- LayerNormalization --------------------------------------------------------------------------------- */

static void layer_normalization(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    int64_t n = sap_shape_last(&u->y_shape);
    int64_t count = steps_of(u, 0, row) * sap_shape_step_values(&u->y_shape) / n;
    for (int64_t place = 0; place < count; place++) {
        const double *from = x[0] + place * n;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < n; i++)
            mean += from[i] / (double)n;
        for (int64_t i = 0; i < n; i++)
            variance += (from[i] - mean) * (from[i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++) {
            double z = (from[i] - mean) / sqrt(variance + (double)(float)u->layer.epsilon);
            double gamma = u->layer.scale ? w[i] : 1, beta = u->layer.center ? w[i + (u->layer.scale ? n : 0)] : 0;
            y[place * n + i] = gamma * z + beta;
        }
    }
}

static void test_layer_normalization(void **state) {
    (void)state;
    const sap_shape vector = SHAPE(7), steps = SHAPE(9, 5), deep = SHAPE(3, 2, 4);
    const int32_t *some[] = {ragged(9)};
    use_check(use_open("LayerNormalization", "{}", 1, &vector, NULL, layer_normalization));
    use_check(use_open("LayerNormalization", "{\"epsilon\": 0.1}", 1, &steps, some, layer_normalization));
    use_check(use_open("LayerNormalization", "{\"scale\": false}", 1, &deep, NULL, layer_normalization));
    use_check(
        use_open("LayerNormalization", "{\"center\": false, \"axis\": [2]}", 1, &steps, NULL, layer_normalization));
}

/* ---- Pooling -------------------------------------------------------------------------------------------- */

static void mean_of_steps(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    int64_t values = sap_shape_last(&u->shape[0]), count = 0;
    (void)w;
    for (int64_t v = 0; v < values; v++)
        y[v] = 0;
    for (int64_t t = 0; t < steps_of(u, 0, row); t++)
        count += use_counts(u, 0, row, t);
    for (int64_t t = 0; t < steps_of(u, 0, row); t++)
        for (int64_t v = 0; v < values; v++)
            y[v] += use_counts(u, 0, row, t) ? x[0][t * values + v] / (double)count : 0;
}

static void largest_of_steps(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    int64_t values = sap_shape_last(&u->shape[0]);
    (void)w;
    for (int64_t v = 0; v < values; v++) {
        y[v] = steps_of(u, 0, row) ? x[0][v] : 0;
        for (int64_t t = 1; t < steps_of(u, 0, row); t++)
            y[v] = fmax(y[v], x[0][t * values + v]);
    }
}

static void test_pooling_over_all_steps(void **state) {
    (void)state;
    const sap_shape steps = SHAPE(9, 5);
    const int32_t *some[] = {ragged(9)};
    use_check(use_open("GlobalAveragePooling1D", "{}", 1, &steps, NULL, mean_of_steps));
    use_check(use_open("GlobalAveragePooling1D", "{\"keepdims\": true}", 1, &steps, some, mean_of_steps));
    layer_use *masked = use_open("GlobalAveragePooling1D", "{}", 1, &steps, NULL, mean_of_steps);
    use_mask(masked, 0, true);
    use_check(masked);
    use_check(use_open("GlobalMaxPooling1D", "{}", 1, &steps, NULL, largest_of_steps));
    use_check(use_open("GlobalMaxPooling1D", "{}", 1, &steps, some, largest_of_steps));
}

/* size, stride, steps before the first, of the layer in hand */
static int64_t window[3];

static void in_windows(const layer_use *u, const double *const *x, double *y, bool largest) {
    int64_t values = sap_shape_last(&u->shape[0]);
    for (int64_t t = 0; t < u->y_shape.dims[0]; t++) {
        for (int64_t v = 0; v < values; v++) {
            double sum = 0, top = -1e9, count = 0;
            for (int64_t s = t * window[1] - window[2]; s < t * window[1] - window[2] + window[0]; s++) {
                if (s < 0 || s >= u->shape[0].dims[0])
                    continue;
                sum += x[0][s * values + v];
                top = fmax(top, x[0][s * values + v]);
                count++;
            }
            y[t * values + v] = largest ? top : sum / count;
        }
    }
}

static void means_in_windows(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    (void)row;
    (void)w;
    in_windows(u, x, y, false);
}

static void largest_in_windows(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    (void)row;
    (void)w;
    in_windows(u, x, y, true);
}

static void check_window(const char *name, const char *config, int64_t size, int64_t stride, int64_t before,
                         int64_t outputs, layer_formula formula) {
    const sap_shape steps = SHAPE(10, 3);
    window[0] = size;
    window[1] = stride;
    window[2] = before;
    layer_use *u = use_open(name, config, 1, &steps, NULL, formula);
    assert_int_equal(u->y_shape.dims[0], outputs);
    use_check(u);
}

static void test_pooling_in_windows(void **state) {
    (void)state;
    check_window("AveragePooling1D", "{\"pool_size\": [3]}", 3, 3, 0, 3, means_in_windows);
    check_window("AveragePooling1D", "{\"pool_size\": 4, \"strides\": 3, \"padding\": \"same\"}", 4, 3, 1, 4,
                 means_in_windows);
    check_window("MaxPooling1D", "{\"pool_size\": 3, \"strides\": [1]}", 3, 1, 0, 8, largest_in_windows);
    check_window("MaxPooling1D", "{\"pool_size\": 2, \"padding\": \"same\"}", 2, 2, 0, 5, largest_in_windows);
}

/* ---- Conv1D --------------------------------------------------------------------------------------------- */

static int64_t dilation;

static void convolution(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    (void)row;
    int64_t in = sap_shape_last(&u->shape[0]), out = sap_shape_last(&u->y_shape);
    for (int64_t t = 0; t < u->y_shape.dims[0]; t++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = u->layer.use_bias ? w[window[0] * in * out + o] : 0;
            for (int64_t k = 0; k < window[0]; k++) {
                int64_t s = t * window[1] - window[2] + k * dilation;
                for (int64_t i = 0; s >= 0 && s < u->shape[0].dims[0] && i < in; i++)
                    sum += x[0][s * in + i] * w[(k * in + i) * out + o];
            }
            y[t * out + o] = tanh(sum);
        }
    }
}

static void check_convolution(const char *config, int64_t size, int64_t stride, int64_t spread, int64_t before,
                              int64_t outputs) {
    dilation = spread;
    check_window("Conv1D", config, size, stride, before, outputs, convolution);
}

#define CONVOLUTION(size, rest) "{\"filters\": 4, \"kernel_size\": [" #size "], \"activation\": \"tanh\", " rest "}"

static void test_convolution(void **state) {
    (void)state;
    check_convolution(CONVOLUTION(3, "\"strides\": [2]"), 3, 2, 1, 0, 4);
    check_convolution(CONVOLUTION(4, "\"padding\": \"same\", \"strides\": 3"), 4, 3, 1, 1, 4);
    check_convolution(CONVOLUTION(3, "\"padding\": \"same\", \"dilation_rate\": 2"), 3, 1, 2, 2, 10);
    check_convolution(CONVOLUTION(2, "\"padding\": \"causal\", \"dilation_rate\": [3], \"use_bias\": false"), 2, 1, 3,
                      3, 10);
    check_convolution(CONVOLUTION(2, "\"padding\": \"same\", \"dilation_rate\": 30"), 2, 1, 30, 15, 10);
}

/* ---- Subtract to Minimum -------------------------------------------------------------------------------- */

static void combination(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    const char *name = u->layer.class_of->name;
    int32_t count = u->call.input_count;
    int64_t values = sap_shape_step_values(&u->y_shape);
    int64_t all = use_length(&u->y_shape, &u->y_steps, row) * values;
    (void)w;
    for (int64_t n = 0; n < all; n++) {
        int64_t t = n / values, v = n % values;
        bool hidden = strcmp(name, "Multiply") == 0;
        for (int32_t i = 0; i < count; i++) {
            int64_t own = sap_shape_step_values(&u->shape[i]);
            bool repeats = u->y_shape.rank > 1 && u->shape[i].dims[0] == 1;
            double value = x[i][(repeats ? 0 : t) * own + (own == 1 ? 0 : v)];
            bool counts = repeats || use_counts(u, i, row, t);
            hidden = hidden && u->mask[i] && !counts;
            if (strcmp(name, "Multiply") == 0 && !counts)
                value = 1;
            if (i == 0)
                y[n] = strcmp(name, "Average") == 0 ? value / count : value;
            else if (strcmp(name, "Subtract") == 0)
                y[n] -= value;
            else if (strcmp(name, "Multiply") == 0)
                y[n] *= value;
            else if (strcmp(name, "Average") == 0)
                y[n] += value / count;
            else if (counts)
                y[n] = strcmp(name, "Maximum") == 0 ? fmax(y[n], value) : fmin(y[n], value);
        }
        y[n] = hidden ? 0 : y[n];
    }
}

static void test_combinations(void **state) {
    (void)state;
    static const char *const names[] = {"Subtract", "Multiply", "Average", "Maximum", "Minimum"};
    const sap_shape vectors[] = {SHAPE(6), SHAPE(6), SHAPE(1)}, same[] = {SHAPE(9, 4), SHAPE(9, 4), SHAPE(9, 1)};
    const sap_shape repeated[] = {SHAPE(9, 4), SHAPE(1, 4), SHAPE(9, 1)};
    const int32_t *some = ragged(9), *all[] = {some, some, some};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        int32_t count = n == 0 ? 2 : 3;
        use_check(use_open(names[n], "{}", count, vectors, NULL, combination));
        use_check(use_open(names[n], "{}", count, same, all, combination));
        use_check(use_open(names[n], "{}", count, repeated, NULL, combination));
        layer_use *masked = use_open(names[n], "{}", 2, same, NULL, combination);
        use_mask(masked, 1, false);
        if (strcmp(names[n], "Multiply") == 0)
            use_mask(masked, 0, false);
        use_check(masked);
    }
}

/* ---- PReLU ---------------------------------------------------------------------------------------------- */

static void slopes(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    int64_t values = sap_shape_step_values(&u->shape[0]), last = sap_shape_last(&u->shape[0]);
    int64_t count = u->value_count;
    for (int64_t n = 0; n < use_length(&u->shape[0], &u->steps[0], row) * values; n++) {
        double slope = w[count == 1 ? 0 : count == last ? n % last : n];
        y[n] = x[0][n] < 0 ? slope * x[0][n] : x[0][n];
    }
}

static void test_prelu(void **state) {
    (void)state;
    const sap_shape vector = SHAPE(6), steps = SHAPE(5, 3);
    const int32_t *some[] = {ragged(5)};
    use_check(use_open("PReLU", "{}", 1, &vector, NULL, slopes));
    use_check(use_open("PReLU", "{}", 1, &steps, NULL, slopes));
    use_check(use_open("PReLU", "{\"shared_axes\": [1]}", 1, &steps, some, slopes));
    use_check(use_open("PReLU", "{\"shared_axes\": [1, 2]}", 1, &steps, some, slopes));
}

/* ---- Permute and its kin -------------------------------------------------------------------------------- */

static void rearranged(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    const char *name = u->layer.class_of->name;
    const int64_t *in = u->shape[0].dims, *out = u->y_shape.dims;
    (void)row;
    (void)w;
    if (strcmp(name, "Permute") == 0) { /* (2, 3, 1) */
        for (int64_t a = 0; a < out[0]; a++)
            for (int64_t b = 0; b < out[1]; b++)
                for (int64_t c = 0; c < out[2]; c++)
                    y[(a * out[1] + b) * out[2] + c] = x[0][(c * in[1] + a) * in[2] + b];
        return;
    }
    int64_t shift = strcmp(name, "Cropping1D") == 0 ? 2 : strcmp(name, "ZeroPadding1D") == 0 ? -1 : 0;
    for (int64_t t = 0; t < out[0]; t++)
        for (int64_t v = 0; v < out[1]; v++) {
            bool repeats = strcmp(name, "RepeatVector") == 0, there = t + shift >= 0 && t + shift < in[0];
            y[t * out[1] + v] = repeats ? x[0][v] : there ? x[0][(t + shift) * out[1] + v] : 0;
        }
}

static void test_rearrangements(void **state) {
    (void)state;
    const sap_shape vector = SHAPE(6), steps = SHAPE(7, 3), deep = SHAPE(4, 3, 5);
    use_check(use_open("Permute", "{\"dims\": [2, 3, 1]}", 1, &deep, NULL, rearranged));
    use_check(use_open("RepeatVector", "{\"n\": 4}", 1, &vector, NULL, rearranged));
    use_check(use_open("Cropping1D", "{\"cropping\": [2, 1]}", 1, &steps, NULL, rearranged));
    use_check(use_open("ZeroPadding1D", "{\"padding\": 1}", 1, &steps, NULL, rearranged));
}

/* ---- Attention ------------------------------------------------------------------------------------------ */

enum { HEADS = 2, KEY_DIM = 3, VALUE_DIM = 4, OUT = 5 };
static bool causal, drops;

/* sum of weights at `at` over the values of a token, plus a bias */
static double projected(const double *x, int64_t in, const double *w, int64_t out, const double *bias, int64_t o) {
    double sum = bias[o];
    for (int64_t i = 0; i < in; i++)
        sum += x[i] * w[i * out + o];
    return sum;
}

static bool sees(const layer_use *u, int row, int64_t i, int64_t j) {
    bool key = u->call.input_count < 3 || use_counts(u, 2, row, j);
    return use_counts(u, 0, row, i) && use_counts(u, 1, row, j) && key && (!causal || j <= i);
}

static void attention(const layer_use *u, int row, const double *const *x, const double *w, double *y) {
    int32_t key_input = u->call.input_count == 3 ? 2 : 1;
    int64_t in[] = {u->shape[0].dims[1], u->shape[key_input].dims[1], u->shape[1].dims[1]};
    const double *wq = w, *bq = wq + in[0] * HEADS * KEY_DIM, *wk = bq + HEADS * KEY_DIM;
    const double *bk = wk + in[1] * HEADS * KEY_DIM, *wv = bk + HEADS * KEY_DIM;
    const double *bv = wv + in[2] * HEADS * VALUE_DIM, *wo = bv + HEADS * VALUE_DIM;
    const double *bo = wo + HEADS * VALUE_DIM * OUT;
    int64_t queries = steps_of(u, 0, row), keys = steps_of(u, 1, row);
    for (int64_t i = 0; i < queries; i++) {
        for (int64_t o = 0; o < OUT; o++)
            y[i * OUT + o] = bo[o];
        bool any = false;
        for (int64_t j = 0; j < keys; j++)
            any = any || sees(u, row, i, j);
        for (int h = 0; h < HEADS; h++) {
            double sum = 0, context[VALUE_DIM] = {0};
            for (int64_t j = 0; j < keys; j++) {
                double score = 0;
                for (int64_t f = h * KEY_DIM; f < (h + 1) * KEY_DIM; f++)
                    score += projected(x[0] + i * in[0], in[0], wq, HEADS * KEY_DIM, bq, f) *
                             projected(x[key_input] + j * in[1], in[1], wk, HEADS * KEY_DIM, bk, f);
                /* a query that sees nothing gets the mean of all, or with dropout nothing */
                double weight = any ? (sees(u, row, i, j) ? exp(score / sqrt(KEY_DIM)) : 0) : drops ? 0 : 1;
                sum += weight;
                for (int64_t e = 0; e < VALUE_DIM; e++)
                    context[e] +=
                        weight * projected(x[1] + j * in[2], in[2], wv, HEADS * VALUE_DIM, bv, h * VALUE_DIM + e);
            }
            for (int64_t e = 0; sum > 0 && e < VALUE_DIM; e++)
                for (int64_t o = 0; o < OUT; o++)
                    y[i * OUT + o] += context[e] / sum * wo[(h * VALUE_DIM + e) * OUT + o];
        }
    }
}

#define ATTENTION(rest)                                                                                                \
    "{\"num_heads\": 2, \"key_dim\": 3, \"value_dim\": 4, \"output_shape\": [5], \"attention_axes\": [1]" rest "}"

static layer_use *open_attention(const char *config, int32_t inputs, const sap_shape *shapes,
                                 const int32_t *const *length) {
    causal = strstr(config, "causal") != NULL;
    drops = strstr(config, "dropout") != NULL;
    return use_open("MultiHeadAttention", config, inputs, shapes, length, attention);
}

static void test_attention(void **state) {
    (void)state;
    const sap_shape shapes[] = {SHAPE(7, 3), SHAPE(9, 4), SHAPE(9, 2)};
    int32_t other[SAP_TILE];
    const int32_t *some[] = {ragged(7), other};
    for (int r = 0; r < USE_ROWS; r++)
        other[r] = 9 - r % 9; /* as many keys as there are, never none */
    use_check(open_attention(ATTENTION(""), 2, shapes, NULL));
    use_check(open_attention(ATTENTION(""), 3, shapes, NULL));
    use_check(open_attention(ATTENTION(""), 2, shapes, some));
    use_check(open_attention(ATTENTION(", \"use_causal_mask\": true"), 2, shapes, NULL));
}

static void test_attention_with_masks(void **state) {
    (void)state;
    const sap_shape shapes[] = {SHAPE(7, 3), SHAPE(9, 4), SHAPE(9, 2)};
    static const char *const configs[] = {ATTENTION(""), ATTENTION(", \"dropout\": 0.3"),
                                          ATTENTION(", \"use_causal_mask\": true")};
    for (int n = 0; n < 3; n++) {
        for (int32_t masks = 1; masks < 8; masks += n ? 3 : 1) {
            layer_use *u = open_attention(configs[n], 3, shapes, NULL);
            for (int32_t i = 0; i < 3; i++)
                if (masks >> i & 1)
                    use_mask(u, i, false);
            use_check(u);
        }
    }
}

/* Equal tokens at the end are taken as one; queries only where their own gradient is not wanted. */
static void test_attention_of_equal_tokens(void **state) {
    (void)state;
    const sap_shape shapes[] = {SHAPE(21, 3), SHAPE(21, 3)};
    for (int wanted = 0; wanted < 2; wanted++) {
        layer_use *u = open_attention(ATTENTION(""), 2, shapes, NULL);
        for (int row = 0; row < USE_ROWS; row++)
            for (int64_t t = row % 21; t < 21; t++)
                for (int64_t v = 0; v < 3; v++)
                    for (int i = 0; i < 2; i++)
                        u->x[i][use_at(&shapes[i], &u->steps[i], row, t, v)] = 0.25F;
        u->unwanted = !wanted;
        use_check(u);
    }
}

/* ---- Noise ---------------------------------------------------------------------------------------------- */

typedef struct moments {
    double mean, deviation;
} moments;

/* Of the outputs for inputs of 1, in training; the gradient must be that of the same random numbers. */
static moments disturbed(const char *name, const char *config, float *y, int64_t *steps_equal) {
    enum { STEPS = 40, VALUES = 30, N = STEPS * VALUES * 32 };
    const sap_shape shape = SHAPE(STEPS, VALUES);
    layer_use *u = use_open(name, config, 1, &shape, NULL, NULL);
    float *dx = use_numbers(N), *dy = use_numbers(N);
    for (int64_t i = 0; i < N; i++)
        u->x[0][i] = dy[i] = 1;
    u->pass = (sap_pass){.kernels = sap_kernels_best(), .rows = 32, .width = 32, .training = true};
    for (uint64_t t = 0; t < 32; t++)
        u->pass.event_keys[t] = sap_mix(t, 1);
    u->dx_[0] = dx;
    u->call.y = y;
    u->call.dy = dy;
    u->layer.class_of->forward(&u->call);
    u->layer.class_of->backward(&u->call);
    double sum = 0, squares = 0, shift = 0;
    *steps_equal = 0;
    for (int64_t i = 0; i < N; i++) {
        sum += (double)y[i] / N;
        squares += (double)y[i] * (double)y[i] / N;
        *steps_equal += i >= VALUES * 32 && y[i] == y[i - VALUES * 32];
        shift = fmax(shift, fabs((double)y[i] - (double)dx[i])); /* y = scale + shift, dx = scale */
    }
    bool shifts = strcmp(name, "GaussianNoise") == 0 || strcmp(name, "AlphaDropout") == 0;
    assert_true(shifts ? shift > 0.01 : shift == 0);
    free(dx);
    free(dy);
    use_close(u);
    return (moments){sum, sqrt(squares - sum * sum)};
}

static void test_noise(void **state) {
    (void)state;
    static float y[40 * 30 * 32] __attribute__((aligned(64))), again[40 * 30 * 32] __attribute__((aligned(64)));
    int64_t equal;
    moments m = disturbed("GaussianNoise", "{\"stddev\": 0.3}", y, &equal);
    assert_true(fabs(m.mean - 1) < 0.01 && fabs(m.deviation - 0.3) < 0.01 && equal < 100);
    (void)disturbed("GaussianNoise", "{\"stddev\": 0.3}", again, &equal);
    assert_memory_equal(y, again, sizeof y);
    m = disturbed("GaussianDropout", "{\"rate\": 0.2}", y, &equal);
    assert_true(fabs(m.mean - 1) < 0.02 && fabs(m.deviation - 0.5) < 0.02 && equal < 100);
    m = disturbed("SpatialDropout1D", "{\"rate\": 0.25}", y, &equal);
    assert_true(fabs(m.mean - 1) < 0.1 && equal == 39 * 30 * 32);
    m = disturbed("AlphaDropout", "{\"rate\": 0.2}", y, &equal);
    double out = -1.6732632423543772 * 1.0507009873554805, a = 1 / sqrt(0.8 * (1 + 0.2 * out * out));
    double high = a * (1 - 0.2 * out), low = a * (out - 0.2 * out);
    for (int i = 0; i < 1000; i++)
        assert_true(fabs((double)y[i] - high) < 1e-5 || fabs((double)y[i] - low) < 1e-5);
    assert_true(fabs(m.mean - (0.8 * high + 0.2 * low)) < 0.02);
}

/* ---- Settings that make no sense ------------------------------------------------------------------------ */

static void assert_refused(const char *name, const char *config, const sap_shape *shape, const char *message) {
    sap_error error;
    sap_arena arena = {0};
    const sap_layer_class *class_of = sap_layer_class_find(name);
    sap_layer layer = {.class_of = class_of, .name = name, .where = name, .trainable = true, .arena = &arena};
    json_t *json = json_loads(config, 0, NULL);
    sap_shape out, shapes[] = {*shape, *shape};
    sap_status status = class_of->parse(&layer, json, &error);
    if (status == SAP_OK)
        status = class_of->build(&layer, shapes, class_of->inputs_least, true, &out, &error);
    assert_int_not_equal(status, SAP_OK);
    assert_contains(error.message, message);
    json_decref(json);
    sap_arena_release(&arena);
}

static void test_refusals(void **state) {
    (void)state;
    const sap_shape vector = SHAPE(6), steps = SHAPE(7, 3), open = SHAPE(-1, 3);
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2}", &steps, "key_dim");
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2, \"key_dim\": 3, \"attention_axes\": [2]}", &steps, "axes");
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2, \"key_dim\": 3, \"sliding_window\": 4}", &steps, "window");
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2, \"key_dim\": 3, \"use_gate\": true}", &steps, "gate");
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2, \"key_dim\": 3}", &vector, "time");
    assert_refused("MultiHeadAttention", "{\"num_heads\": 2, \"key_dim\": 3, \"dropout\": 2}", &steps, "dropout");
    assert_refused("LayerNormalization", "{\"axis\": [1, 2]}", &steps, "several axes");
    assert_refused("LayerNormalization", "{\"axis\": 1}", &steps, "not the last");
    assert_refused("LayerNormalization", "{\"rms_scaling\": true}", &steps, "rms_scaling");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 3}", &open, "unknown length");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 9}", &steps, "does not fit");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 0}", &steps, "kernel_size");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 2, \"groups\": 2}", &steps, "groups");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 2, \"padding\": \"full\"}", &steps, "full");
    assert_refused("Conv1D", "{\"filters\": 4, \"kernel_size\": 2, \"data_format\": \"channels_first\"}", &steps,
                   "channels_first");
    assert_refused("MaxPooling1D", "{\"pool_size\": 8}", &steps, "does not fit");
    assert_refused("GlobalMaxPooling1D", "{}", &vector, "time");
    assert_refused("Permute", "{\"dims\": [1, 1]}", &steps, "no order");
    assert_refused("Permute", "{\"dims\": [2, 1]}", &open, "unknown length");
    assert_refused("RepeatVector", "{\"n\": 3}", &steps, "no vector");
    assert_refused("Cropping1D", "{\"cropping\": [4, 3]}", &steps, "all 7 steps");
    assert_refused("ZeroPadding1D", "{\"padding\": [-1, 3]}", &steps, "padding");
    assert_refused("GaussianDropout", "{\"rate\": 1}", &steps, "infinite");
    assert_refused("AlphaDropout", "{\"rate\": 1.5}", &steps, "rate");
    assert_refused("SpatialDropout1D", "{\"rate\": 0.5}", &vector, "time");
    assert_refused("PReLU", "{\"shared_axes\": [0]}", &steps, "shared_axes");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_normalization),
        cmocka_unit_test(test_pooling_over_all_steps),
        cmocka_unit_test(test_pooling_in_windows),
        cmocka_unit_test(test_convolution),
        cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_prelu),
        cmocka_unit_test(test_rearrangements),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_with_masks),
        cmocka_unit_test(test_attention_of_equal_tokens),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
