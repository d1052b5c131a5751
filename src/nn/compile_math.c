/* Elementary functions of compiled models: what their C source gets instead of the mathematical library, so that its results are
 * those of our kernels (kernels_vector.h has the same formulas) and no argument takes longer than another. */
#include "../base/numbers.h"
#include "model_compile.h"

static const struct {
    const char *text;
    int needs; /* another one, or 0 */
} helpers[SAP_HELPER_COUNT] = {
    [SAP_HELPER_ABS] = {"static inline float abs_of(float x) {\n"
                        "    uint32_t bits;\n"
                        "    memcpy(&bits, &x, sizeof bits);\n"
                        "    bits &= UINT32_C(0x7FFFFFFF);\n"
                        "    memcpy(&x, &bits, sizeof x);\n"
                        "    return x;\n"
                        "}\n",
                        0},
    [SAP_HELPER_SIGN] = {"/* size >= 0 with the sign of x. */\n"
                         "static inline float with_sign(float size, float x) {\n"
                         "    uint32_t bits, sign;\n"
                         "    memcpy(&bits, &size, sizeof bits);\n"
                         "    memcpy(&sign, &x, sizeof sign);\n"
                         "    bits |= sign & UINT32_C(0x80000000);\n"
                         "    memcpy(&size, &bits, sizeof size);\n"
                         "    return size;\n"
                         "}\n",
                         0},
    [SAP_HELPER_EXP] =
        {"/* e^x = 2^n e^r with |r| <= ln 2 / 2, for x from -88 to 88 and as there beyond. Limits are taken of bits, "
         "and\n"
         " * x - x brings back what is not finite: with choices between floats there would be no vector code. */\n"
         "static inline float exp_of(float x) {\n"
         "    uint32_t bits, sign, size;\n"
         "    memcpy(&bits, &x, sizeof bits);\n"
         "    sign = bits & UINT32_C(0x80000000);\n"
         "    size = bits & UINT32_C(0x7FFFFFFF);\n"
         "    size = size < UINT32_C(0x42B00000) ? size : UINT32_C(0x42B00000);\n"
         "    bits = size | sign;\n"
         "    float near, lost = x - x;\n"
         "    memcpy(&near, &bits, sizeof near);\n"
         "    float shifted = near * 1.44269504F + 12582912.0F; /* the low bits now hold n */\n"
         "    float n = shifted - 12582912.0F;\n"
         "    float r = near - n * 0.693359375F + n * 2.12194440e-4F;\n"
         "    float p = 1.9875691500e-4F;\n"
         "    p = p * r + 1.3981999507e-3F;\n"
         "    p = p * r + 8.3334519073e-3F;\n"
         "    p = p * r + 4.1665795894e-2F;\n"
         "    p = p * r + 1.6666665459e-1F;\n"
         "    p = p * r + 5.0000001201e-1F;\n"
         "    p = p * r * r + r + 1.0F;\n"
         "    memcpy(&bits, &shifted, sizeof bits);\n"
         "    bits = (bits - UINT32_C(0x4B400000) + 127) << 23;\n"
         "    float two; /* 2^n */\n"
         "    memcpy(&two, &bits, sizeof two);\n"
         "    return p * two + lost;\n"
         "}\n",
         0},
    [SAP_HELPER_CLAMP] = {"static inline float clamp(float x, float least, float most) {\n"
                          "    x = x < least ? least : x;\n"
                          "    return x > most ? most : x;\n"
                          "}\n",
                          0},
    [SAP_HELPER_SIGMOID] = {"static inline float sigmoid_of(float x) {\n"
                            "    return 1.0F / (1.0F + exp_of(-x));\n"
                            "}\n",
                            SAP_HELPER_EXP},
    [SAP_HELPER_EXPM1] = {"/* e^x - 1 for x <= 0: 2^n (e^r - 1) + 2^n - 1. */\n"
                          "static inline float expm1_of(float x) {\n"
                          "    uint32_t bits;\n"
                          "    memcpy(&bits, &x, sizeof bits);\n"
                          "    bits &= UINT32_C(0x7FFFFFFF);\n"
                          "    bits = bits < UINT32_C(0x42700000) ? bits : UINT32_C(0x42700000); /* 60 */\n"
                          "    float near, lost = x - x;\n"
                          "    memcpy(&near, &bits, sizeof near);\n"
                          "    float shifted = 12582912.0F - near * 1.44269504F;\n"
                          "    float n = shifted - 12582912.0F;\n"
                          "    float r = n * 2.12194440e-4F - n * 0.693359375F - near;\n"
                          "    float p = 1.9875691500e-4F;\n"
                          "    p = p * r + 1.3981999507e-3F;\n"
                          "    p = p * r + 8.3334519073e-3F;\n"
                          "    p = p * r + 4.1665795894e-2F;\n"
                          "    p = p * r + 1.6666665459e-1F;\n"
                          "    p = p * r + 5.0000001201e-1F;\n"
                          "    p = p * r * r + r;\n"
                          "    memcpy(&bits, &shifted, sizeof bits);\n"
                          "    bits = (bits - UINT32_C(0x4B400000) + 127) << 23;\n"
                          "    float two;\n"
                          "    memcpy(&two, &bits, sizeof two);\n"
                          "    return two * p + (two - 1.0F) + lost;\n"
                          "}\n",
                          0},
    [SAP_HELPER_TANH] = {"static inline float tanh_of(float x) {\n"
                         "    float e = expm1_of(-2.0F * abs_of(x));\n"
                         "    return with_sign(-e / (2.0F + e), x);\n"
                         "}\n",
                         SAP_HELPER_EXPM1},
    [SAP_HELPER_SOFTPLUS] = {"/* log(1 + e^x) = max(x, 0) + 2 artanh(e / (2 + e)) with e = e^-|x|. */\n"
                             "static inline float softplus_of(float x) {\n"
                             "    float e = exp_of(-abs_of(x)), s = e / (2.0F + e), square = s * s;\n"
                             "    float p = 0.115181613F;\n"
                             "    p = p * square + 0.108712137F;\n"
                             "    p = p * square + 0.142951554F;\n"
                             "    p = p * square + 0.199998704F;\n"
                             "    p = p * square + 0.333333336F;\n"
                             "    return 0.5F * (x + abs_of(x)) + 2.0F * (s + s * square * p);\n"
                             "}\n",
                             SAP_HELPER_EXP},
    [SAP_HELPER_PHI] =
        {"/* The normal distribution function: e^(-x²/2) t p(t) / 2 below 0, with t = 1 / (1 + |x| / sqrt(8)). */\n"
         "static inline float phi_of(float x) {\n"
         "    float size = abs_of(x) * 0.707106781F, t = 1.0F / (1.0F + 0.5F * size);\n"
         "    float p = -0.0624753447F;\n"
         "    p = p * t + 0.299871917F;\n"
         "    p = p * t - 0.516148653F;\n"
         "    p = p * t + 0.308104615F;\n"
         "    p = p * t - 0.0452392444F;\n"
         "    p = p * t + 0.209711295F;\n"
         "    p = p * t + 0.241533412F;\n"
         "    p = p * t + 0.282564837F;\n"
         "    p = p * t + 0.282076981F;\n"
         "    return 0.5F + with_sign(abs_of(0.5F - 0.5F * exp_of(-size * size) * t * p), x);\n"
         "}\n",
         SAP_HELPER_EXP},
    [SAP_HELPER_SOFTMAX] = {"static void softmax(int32_t n, const float *x, float *y) {\n"
                            "    float most = x[0], sum = 0;\n"
                            "    for (int32_t i = 1; i < n; i++)\n"
                            "        most = x[i] > most ? x[i] : most;\n"
                            "    for (int32_t i = 0; i < n; i++)\n"
                            "        y[i] = exp_of(x[i] - most);\n"
                            "    for (int32_t i = 0; i < n; i++)\n"
                            "        sum += y[i];\n"
                            "    for (int32_t i = 0; i < n; i++)\n"
                            "        y[i] /= sum;\n"
                            "}\n",
                            SAP_HELPER_EXP},
    [SAP_HELPER_LOG] = {"/* ln x for normal x > 0. */\n"
                        "static inline float log_of(float x) {\n"
                        "    uint32_t bits;\n"
                        "    memcpy(&bits, &x, sizeof bits);\n"
                        "    int32_t exponent = (int32_t)(bits - UINT32_C(0x3F3504F3)) >> 23;\n"
                        "    bits -= (uint32_t)exponent << 23;\n"
                        "    float m, n = (float)exponent;\n"
                        "    memcpy(&m, &bits, sizeof m);\n"
                        "    m -= 1.0F;\n"
                        "    float p = 7.0376836292e-2F;\n"
                        "    p = p * m - 1.1514610310e-1F;\n"
                        "    p = p * m + 1.1676998740e-1F;\n"
                        "    p = p * m - 1.2420140846e-1F;\n"
                        "    p = p * m + 1.4249322787e-1F;\n"
                        "    p = p * m - 1.6668057665e-1F;\n"
                        "    p = p * m + 2.0000714765e-1F;\n"
                        "    p = p * m - 2.4999993993e-1F;\n"
                        "    p = p * m + 3.3333331174e-1F;\n"
                        "    float square = m * m;\n"
                        "    return m + (p * m * square - n * 2.12194440e-4F - 0.5F * square) + n * 0.693359375F;\n"
                        "}\n",
                        0},
    [SAP_HELPER_LOG_SOFTMAX] = {"static void log_softmax(int32_t n, const float *x, float *y) {\n"
                                "    float most = x[0], sum = 0;\n"
                                "    for (int32_t i = 1; i < n; i++)\n"
                                "        most = x[i] > most ? x[i] : most;\n"
                                "    for (int32_t i = 0; i < n; i++)\n"
                                "        sum += exp_of(x[i] - most);\n"
                                "    for (int32_t i = 0; i < n; i++)\n"
                                "        y[i] = x[i] - most - log_of(sum);\n"
                                "}\n",
                                SAP_HELPER_EXP},
    [SAP_HELPER_SUM] =
        {"/* Eight sums beside each other. */\n"
         "static inline float sum_of(const float *x, int32_t n) {\n"
         "    float part[8] = {0};\n"
         "    int32_t i = 0;\n"
         "    for (; i + 8 <= n; i += 8)\n"
         "        for (int32_t l = 0; l < 8; l++)\n"
         "            part[l] += x[i + l];\n"
         "    for (; i < n; i++)\n"
         "        part[0] += x[i];\n"
         "    return part[0] + part[1] + (part[2] + part[3]) + (part[4] + part[5] + (part[6] + part[7]));\n"
         "}\n",
         0},
    [SAP_HELPER_MOST] = {"/* The largest of n numbers, n a multiple of 8. */\n"
                         "static inline float most_of(const float *x, int32_t n) {\n"
                         "    float part[8], most;\n"
                         "    memcpy(part, x, sizeof part);\n"
                         "    for (int32_t i = 8; i < n; i += 8)\n"
                         "        for (int32_t l = 0; l < 8; l++)\n"
                         "            part[l] = x[i + l] > part[l] ? x[i + l] : part[l];\n"
                         "    most = part[0];\n"
                         "    for (int32_t l = 1; l < 8; l++)\n"
                         "        most = part[l] > most ? part[l] : most;\n"
                         "    return most;\n"
                         "}\n",
                         0},
    [SAP_HELPER_ROWS] = {"static inline int32_t rows_of(int32_t rows, int32_t most) {\n"
                         "    return rows < 0 ? 0 : rows > most ? most : rows;\n"
                         "}\n",
                         0},
    [SAP_HELPER_PAD] =
        {"static void pad(const float *restrict x, int32_t n, int32_t most, float with, float *restrict y) {\n"
         "    for (int32_t i = 0; i < n; i++)\n"
         "        y[i] = x[i];\n"
         "    for (int32_t i = n; i < most; i++)\n"
         "        y[i] = with;\n"
         "}\n",
         0},
    [SAP_HELPER_KEEP] =
        {"/* Leaves out steps in which all numbers are `masked`; returns how many are left. x may be y. */\n"
         "static int32_t keep(const float *x, int32_t steps, int32_t width, float masked, float *y) {\n"
         "    int32_t kept = 0;\n"
         "    for (int32_t t = 0; t < steps; t++) {\n"
         "        int32_t counts = 0;\n"
         "        for (int32_t i = 0; i < width; i++)\n"
         "            counts |= x[t * width + i] != masked;\n"
         "        for (int32_t i = 0; i < width; i++)\n"
         "            y[kept * width + i] = x[t * width + i];\n"
         "        kept += counts;\n"
         "    }\n"
         "    return kept;\n"
         "}\n",
         0},
    [SAP_HELPER_MARK] =
        {"/* Which steps count: those in which some number is not `masked`. */\n"
         "static void mark(const float *restrict x, int32_t steps, int32_t width, float masked, uint8_t "
         "*restrict mask) {\n"
         "    for (int32_t t = 0; t < steps; t++) {\n"
         "        int32_t counts = 0;\n"
         "        for (int32_t i = 0; i < width; i++)\n"
         "            counts |= x[t * width + i] != masked;\n"
         "        mask[t] = (uint8_t)counts;\n"
         "    }\n"
         "}\n",
         0},
    [SAP_HELPER_ROOT] = {"/* 1 / sqrt(x) for x > 0, by Newton's method. */\n"
                         "static inline double inverse_root_of(double x) {\n"
                         "    uint64_t bits;\n"
                         "    memcpy(&bits, &x, sizeof bits);\n"
                         "    bits = UINT64_C(0x5FE6EB50C7B537A9) - (bits >> 1);\n"
                         "    double y;\n"
                         "    memcpy(&y, &bits, sizeof y);\n"
                         "    for (int i = 0; i < 5; i++)\n"
                         "        y *= 1.5 - 0.5 * x * y * y;\n"
                         "    return y;\n"
                         "}\n",
                         0},
};

void sap_source_use(sap_source *source, sap_helper helper) {
    source->helpers[helper] = true;
    if (helpers[helper].needs)
        source->helpers[helpers[helper].needs] = true;
    bool signs = helper == SAP_HELPER_TANH || helper == SAP_HELPER_PHI;
    source->helpers[SAP_HELPER_SIGN] = source->helpers[SAP_HELPER_SIGN] || signs;
    if (signs || helper == SAP_HELPER_SOFTPLUS)
        source->helpers[SAP_HELPER_ABS] = true;
}

void sap_source_helpers(const sap_source *source, sap_text *out) {
    for (int i = 0; i < SAP_HELPER_COUNT; i++)
        if (source->helpers[i])
            sap_text_add(out, "%s\n", helpers[i].text);
}

const char *sap_source_number(sap_source *source, float value) {
    char text[SAP_REAL_TEXT];
    sap_real_print(text, (double)value, 9);
    return sap_source_text(source, "%s%sF", text, strpbrk(text, ".e") ? "" : ".0");
}

/* Slope below the threshold, nothing above the limit. */
static const char *relu_text(sap_source *source, const sap_activation *f, const char *x) {
    const char *slope = sap_source_number(source, f->alpha), *threshold = sap_source_number(source, f->threshold);
    const char *limit = sap_source_number(source, f->limit);
    const char *above = f->limit > 3.4e38F ? sap_source_text(source, "(%s < %s ? 0 : %s)", x, threshold, x)
                                           : sap_source_text(source, "(%s < %s ? 0 : %s > %s ? %s : %s)", x, threshold,
                                                             x, limit, limit, x);
    if (f->alpha == 0)
        return above;
    return sap_source_text(source, "%s * ((%s < %s ? %s : %s) - %s) + %s", slope, x, threshold, x, threshold, threshold,
                           above);
}

#define POSITIVE "0.5F * ($ + abs_of($))" /* exact */
#define NEGATIVE "0.5F * ($ - abs_of($))"

const char *sap_source_activation(sap_source *source, const sap_activation *activation, const char *x) {
    static const struct {
        int needs[2];     /* what it uses, 0: nothing */
        const char *text; /* $: the argument */
    } table[] = {
        [SAP_LINEAR] = {{0}, "$"},
        [SAP_RELU] = {{0}, "($ < 0 ? 0 : $)"},
        [SAP_SELU] = {{SAP_HELPER_EXPM1, SAP_HELPER_ABS},
                      "1.05070099F * (" POSITIVE " + 1.67326324F * expm1_of(" NEGATIVE "))"},
        [SAP_SIGMOID] = {{SAP_HELPER_SIGMOID}, "sigmoid_of($)"},
        [SAP_HARD_SIGMOID] = {{SAP_HELPER_CLAMP}, "clamp($ * (1.0F / 6) + 0.5F, 0, 1)"},
        [SAP_TANH] = {{SAP_HELPER_TANH}, "tanh_of($)"},
        [SAP_SOFTPLUS] = {{SAP_HELPER_SOFTPLUS}, "softplus_of($)"},
        [SAP_SOFTSIGN] = {{SAP_HELPER_ABS}, "$ / (1 + abs_of($))"},
        [SAP_EXPONENTIAL] = {{SAP_HELPER_EXP}, "exp_of($)"},
        [SAP_SILU] = {{SAP_HELPER_SIGMOID}, "$ * sigmoid_of($)"},
        [SAP_GELU] = {{SAP_HELPER_PHI}, "$ * phi_of($)"},
        [SAP_GELU_TANH] = {{SAP_HELPER_SIGMOID}, "$ * sigmoid_of(1.59576912F * ($ + 0.044715F * $ * $ * $))"},
        [SAP_HARD_SILU] = {{SAP_HELPER_CLAMP}, "$ * clamp($ * (1.0F / 6) + 0.5F, 0, 1)"},
        [SAP_MISH] = {{SAP_HELPER_SOFTPLUS, SAP_HELPER_TANH}, "$ * tanh_of(softplus_of($))"},
        [SAP_LOG_SIGMOID] = {{SAP_HELPER_SOFTPLUS}, "-softplus_of(-$)"},
        [SAP_SQUAREPLUS] = {{SAP_HELPER_ROOT},
                            "(float)(0.5 * ((double)$ + 1 / inverse_root_of((double)$ * (double)$ + 4)))"},
        [SAP_SPARSE_PLUS] = {{SAP_HELPER_CLAMP},
                             "($ > 1 ? $ : 1) - 1 + 0.25F * (clamp($, -1, 1) + 1) * (clamp($, -1, 1) + 1)"},
        [SAP_SPARSE_SIGMOID] = {{SAP_HELPER_CLAMP}, "clamp(($ + 1) * 0.5F, 0, 1)"},
        [SAP_HARD_TANH] = {{SAP_HELPER_CLAMP}, "clamp($, -1, 1)"},
        [SAP_TANH_SHRINK] = {{SAP_HELPER_TANH}, "$ - tanh_of($)"},
        [SAP_SOFT_SHRINK] = {{SAP_HELPER_CLAMP}, "$ - clamp($, -0.5F, 0.5F)"},
        [SAP_HARD_SHRINK] = {{0}, "($ > 0.5F ? $ : $ < -0.5F ? $ : 0)"},
    };
    if (activation->kind == SAP_RELU_GENERAL)
        return relu_text(source, activation, x);
    const char *form = activation->kind == SAP_ELU ? sap_source_text(source, POSITIVE " + %s * expm1_of(" NEGATIVE ")",
                                                                     sap_source_number(source, activation->alpha))
                                                   : table[activation->kind].text;
    if (activation->kind == SAP_ELU) {
        sap_source_use(source, SAP_HELPER_EXPM1);
        sap_source_use(source, SAP_HELPER_ABS);
    }
    for (int i = 0; activation->kind != SAP_ELU && i < 2; i++)
        if (table[activation->kind].needs[i])
            sap_source_use(source, (sap_helper)table[activation->kind].needs[i]);
    sap_text text = {0};
    for (const char *at = form; *at; at++)
        if (*at == '$')
            sap_text_add(&text, "%s", x);
        else
            sap_text_put(&text, at, 1);
    const char *out = sap_source_text(source, "%s", text.failed ? "" : text.data);
    source->failed = source->failed || text.failed;
    sap_text_release(&text);
    return out;
}

void sap_source_activate(sap_source *source, int indent, const sap_activation *activation, const char *count,
                         const char *x, const char *y) {
    sap_text *out = &source->functions;
    if (activation->kind == SAP_SOFTMAX || activation->kind == SAP_LOG_SOFTMAX) {
        bool log = activation->kind == SAP_LOG_SOFTMAX;
        sap_source_use(source, log ? SAP_HELPER_LOG_SOFTMAX : SAP_HELPER_SOFTMAX);
        if (log)
            sap_source_use(source, SAP_HELPER_LOG);
        sap_text_add(out, "%*s%s(%s, %s, %s);\n", indent, "", log ? "log_softmax" : "softmax", count, x, y);
        return;
    }
    const char *value = sap_source_text(source, "%s[i]", x);
    sap_text_add(out, "%*sfor (int32_t i = 0; i < %s; i++)\n%*s%s[i] = %s;\n", indent, "", count, indent + 4, "", y,
                 sap_source_activation(source, activation, value));
}
