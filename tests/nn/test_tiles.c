/* Tiles of bf16: what the emulated instruction does, and the products of dense layers made of it. */
#define SAP_TILES_EMULATED
#include "nn/tiles.h"
#include "nn_test.h"

#include <math.h>

extern const sap_kernels sap_kernels_amx_emulated;

static uint64_t counter;

static float uniform(float low, float high) {
    return low + (high - low) * (float)sap_unit(sap_mix(31, counter++));
}

static uint16_t bf16(float exact) {
    uint32_t bits;
    memcpy(&bits, &exact, sizeof bits);
    assert_int_equal(bits & 0xFFFF, 0);
    return (uint16_t)(bits >> 16);
}

/* c += a b with b two rows in one, sums of even and odd elements apart, and nothing below the normal floats. */
static void test_dot(void **state) {
    (void)state;
    uint16_t a[TILE_ROWS][TILE_DEPTH], b[TILE_PAIRS][TILE_DEPTH];
    float c[TILE_ROWS][TILE_PAIRS], wanted[TILE_ROWS][TILE_PAIRS];
    for (int m = 0; m < TILE_ROWS; m++)
        for (int k = 0; k < TILE_DEPTH; k++)
            a[m][k] = bf16((float)((m * 7 + k * 5) % 23 - 11));
    for (int k = 0; k < TILE_PAIRS; k++)
        for (int n = 0; n < TILE_DEPTH; n++)
            b[k][n] = bf16((float)((k * 3 + n * 11) % 19 - 9));
    for (int m = 0; m < TILE_ROWS; m++) {
        for (int n = 0; n < TILE_PAIRS; n++) {
            c[m][n] = (float)(m - n);
            wanted[m][n] = c[m][n];
            for (int k = 0; k < TILE_DEPTH; k++)
                wanted[m][n] += (float)(((m * 7 + k * 5) % 23 - 11) * ((k / 2 * 3 + (2 * n + k % 2) * 11) % 19 - 9));
        }
    }
    tiles_begin();
    tile_load(0, c, sizeof *c);
    tile_load(4, a, sizeof *a);
    tile_load(5, b, sizeof *b);
    tile_dot(0, 4, 5);
    tile_store(0, c, sizeof *c);
    assert_memory_equal(c, wanted, sizeof c);
    /* 2^-100 · 2^-100 is no normal float; 2^100 · 2^100 is infinite; 2^-140, not normal itself, is 0 */
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    memset(c, 0, sizeof c);
    a[0][0] = b[0][0] = bf16(0x1p-100F);
    a[1][1] = b[0][3] = bf16(0x1p100F);
    c[2][2] = 0x1p-140F;
    tile_load(0, c, sizeof *c);
    tile_load(4, a, sizeof *a);
    tile_load(5, b, sizeof *b);
    tile_dot(0, 4, 5);
    tile_store(0, c, sizeof *c);
    assert_true(c[0][0] == 0 && isinf(c[1][1]) && c[2][2] == 0);
    tiles_end();
}

enum { MOST = 600 };

static float *numbers(int64_t count, bool whole) {
    float *p = aligned_alloc(64, ((size_t)count * sizeof *p + 127) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < count; i++)
        p[i] = whole ? roundf(uniform(-9, 9)) : uniform(-1, 1);
    return p;
}

static void assert_near(const float *a, const float *b, int64_t count, double tolerance) {
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance))
            fail_msg("number %lld is %.9g, plain %.9g", (long long)i, (double)a[i], (double)b[i]);
}

/* Whole numbers are exact in bf16, and so are their sums: the same bits. Others are within the rounding of their factors. */
static void check_product(const sap_kernels *k, int width, int64_t rows, int64_t depth, int kind, bool whole) {
    float *w = numbers(rows * depth, whole), *x = numbers(depth * width, whole), *bias = numbers(rows, whole);
    float *y = numbers(rows * width, whole), *wanted = numbers(rows * width, whole);
    memcpy(wanted, y, (size_t)(rows * width) * sizeof *y);
    bool transposed = kind & 1, add = kind & 2;
    sap_product p = {.rows = rows,
                     .depth = depth,
                     .w = w,
                     .row_step = transposed ? depth : 1,
                     .depth_step = transposed ? 1 : rows,
                     .width = width,
                     .x = x,
                     .y = y,
                     .bias = kind & 4 && !add ? bias : NULL,
                     .add = add,
                     .relu = kind & 4};
    k->product(&p);
    p.y = wanted;
    sap_kernels_at(0)->product(&p);
    assert_near(y, wanted, rows * width, whole ? 0 : 0x1p-8 * sqrt((double)depth));
    free(w);
    free(x);
    free(bias);
    free(y);
    free(wanted);
}

static void check_outer(const sap_kernels *k, int width, int64_t in, int64_t out, bool bias, bool whole) {
    float *x = numbers(in * width, whole), *d = numbers(out * width, whole), *g = numbers(in * out, whole);
    float *b = numbers(out, whole), *g_wanted = numbers(in * out, whole), *b_wanted = numbers(out, whole);
    memcpy(g_wanted, g, (size_t)(in * out) * sizeof *g);
    memcpy(b_wanted, b, (size_t)out * sizeof *b);
    k->outer(in, out, width, x, d, g, bias ? b : NULL);
    sap_kernels_at(0)->outer(in, out, width, x, d, g_wanted, bias ? b_wanted : NULL);
    assert_near(g, g_wanted, in * out, whole ? 0 : 0x1p-8 * sqrt((double)width));
    assert_near(b, b_wanted, out, 1e-4);
    free(x);
    free(d);
    free(g);
    free(b);
    free(g_wanted);
    free(b_wanted);
}

static void check_dense(const sap_kernels *k) {
    static const int64_t sizes[] = {1, 15, 16, 17, 33, 70};
    for (int i = 0; i < 6; i++) {
        for (int width = 16; width <= 64; width += 16) {
            check_product(k, width, sizes[i], sizes[(i * 5 + width / 16) % 6], (i + width) % 8, true);
            check_outer(k, width, sizes[i], sizes[(i + 2 + width / 16) % 6], i % 2, true);
        }
        check_product(k, 64, sizes[i], 31, i, false);
        check_outer(k, 48, sizes[i], 21, true, false);
    }
    check_product(k, 32, 20, MOST, 0, true); /* more than is taken at once */
    check_product(k, 32, 20, MOST, 2, false);
    check_product(k, 16, 3, MOST, 5, true);
}

static void test_dense(void **state) {
    (void)state;
    check_dense(&sap_kernels_amx_emulated);
    if (sap_kernels_bf16())
        check_dense(sap_kernels_bf16());
    else
        print_message("this processor has no AMX: its instructions were emulated only\n");
}

/* A network's gradients in bf16 beside those in float32. */
static void test_network(void **state) {
    (void)state;
    sap_error error = {0};
    sap_model *model = NULL;
    random_examples r;
    make_examples(&r, 130, 14);
    assert_ok(open_text(DROPOUT_NET, 1, &model, &error));
    float *gradients[2];
    sap_kernels emulated = sap_kernels_with_tiles(sap_kernels_best(), &sap_kernels_amx_emulated);
    const sap_kernels *kernels[2] = {&emulated, NULL};
    double loss[2], norm = 0, off = 0;
    for (int i = 0; i < 2; i++) {
        sap_program *program = NULL;
        sap_batch_result result;
        gradients[i] = aligned_alloc(64, ((size_t)model->trainable_count * sizeof(float) + 127) / 64 * 64);
        assert_ok(sap_program_open(model, SAP_TRAIN, NULL, kernels[i], NULL, &program, &error));
        assert_ok(sap_program_run(program, &r.examples, 1, gradients[i], NULL, &result, &error));
        loss[i] = sap_loss_mean(&result.outputs[0]);
        sap_program_close(program);
    }
    for (int64_t i = 0; i < model->trainable_count; i++) {
        norm += pow((double)gradients[1][i], 2);
        off += pow((double)gradients[0][i] - (double)gradients[1][i], 2);
    }
    print_message("loss %.6f, %.6f in bf16; gradient off by %.4f\n", loss[1], loss[0], sqrt(off / norm));
    assert_true(fabs(loss[0] - loss[1]) < 0.003 * loss[1] && sqrt(off / norm) < 0.02 && off > 0);
    free(gradients[0]);
    free(gradients[1]);
    free_examples(&r);
    sap_model_close(model);
    remove_scratch();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dot), cmocka_unit_test(test_dense),
                                       cmocka_unit_test(test_network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
