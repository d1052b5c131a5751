/* Elementary functions of compiled models: what their C source gets instead of the mathematical library, so that its results are
 * those of our kernels (kernels_vector.h has the same formulas) and no argument takes longer than another. */
#include "model_compile.h"

static const struct {
    const char *text;
    int needs; /* another one, or -1 */
} helpers[SAP_HELPER_COUNT] = {
    [SAP_HELPER_EXP] =
        {"/* e^x = 2^n e^r with |r| <= ln 2 / 2. */\n"
         "static inline float exp_of(float x) {\n"
         "    x = x > 89.0F ? 89.0F : x;\n"
         "    x = x < -100.0F ? -100.0F : x;\n"
         "    float shifted = x * 1.44269504F + 12582912.0F; /* the low bits now hold n */\n"
         "    float n = shifted - 12582912.0F;\n"
         "    float r = x - n * 0.693359375F + n * 2.12194440e-4F;\n"
         "    float p = 1.9875691500e-4F;\n"
         "    p = p * r + 1.3981999507e-3F;\n"
         "    p = p * r + 8.3334519073e-3F;\n"
         "    p = p * r + 4.1665795894e-2F;\n"
         "    p = p * r + 1.6666665459e-1F;\n"
         "    p = p * r + 5.0000001201e-1F;\n"
         "    p = p * r * r + r + 1.0F;\n"
         "    uint32_t bits;\n"
         "    memcpy(&bits, &shifted, sizeof bits);\n"
         "    /* 2^n in two factors, since n may be 128 or below the least exponent */\n"
         "    int32_t exponent = (int32_t)(bits - UINT32_C(0x4B400000)), half = exponent >> 1;\n"
         "    uint32_t a = ((uint32_t)half + 127) << 23, b = ((uint32_t)(exponent - half) + 127) << 23;\n"
         "    float two_a, two_b;\n"
         "    memcpy(&two_a, &a, sizeof two_a);\n"
         "    memcpy(&two_b, &b, sizeof two_b);\n"
         "    return p * two_a * two_b;\n"
         "}\n",
         -1},
    [SAP_HELPER_SIGMOID] = {"static inline float sigmoid_of(float x) {\n"
                            "    float e = exp_of(x < 0 ? x : -x), s = 1.0F / (1.0F + e);\n"
                            "    return x < 0 ? e * s : s;\n"
                            "}\n",
                            SAP_HELPER_EXP},
    [SAP_HELPER_TANH] = {"static inline float tanh_of(float x) {\n"
                         "    float size = x < 0 ? -x : x, square = x * x;\n"
                         "    float p = -5.70498872745e-3F;\n"
                         "    p = p * square + 2.06390887954e-2F;\n"
                         "    p = p * square - 5.37397155531e-2F;\n"
                         "    p = p * square + 1.33314422036e-1F;\n"
                         "    p = p * square - 3.33332819422e-1F;\n"
                         "    float small = x + x * square * p;\n"
                         "    float large = 1.0F - 2.0F / (exp_of(2.0F * size) + 1.0F);\n"
                         "    large = x < 0 ? -large : large;\n"
                         "    return size < 0.625F ? small : large;\n"
                         "}\n",
                         SAP_HELPER_EXP},
    [SAP_HELPER_EXPM1] = {"/* e^x - 1 for x <= 0. */\n"
                          "static inline float expm1_of(float x) {\n"
                          "    float p = 1.9875691500e-4F;\n"
                          "    p = p * x + 1.3981999507e-3F;\n"
                          "    p = p * x + 8.3334519073e-3F;\n"
                          "    p = p * x + 4.1665795894e-2F;\n"
                          "    p = p * x + 1.6666665459e-1F;\n"
                          "    p = p * x + 5.0000001201e-1F;\n"
                          "    float small = p * x * x + x, large = exp_of(x) - 1.0F;\n"
                          "    return x > -0.35F ? small : large;\n"
                          "}\n",
                          SAP_HELPER_EXP},
    [SAP_HELPER_SOFTPLUS] = {"/* log(1 + e^x) = max(x, 0) + 2 artanh(e / (2 + e)) with e = e^-|x|. */\n"
                             "static inline float softplus_of(float x) {\n"
                             "    float e = exp_of(x < 0 ? x : -x), s = e / (2.0F + e), square = s * s;\n"
                             "    float p = 0.115181613F;\n"
                             "    p = p * square + 0.108712137F;\n"
                             "    p = p * square + 0.142951554F;\n"
                             "    p = p * square + 0.199998704F;\n"
                             "    p = p * square + 0.333333336F;\n"
                             "    return (x > 0 ? x : 0) + 2.0F * (s + s * square * p);\n"
                             "}\n",
                             SAP_HELPER_EXP},
    [SAP_HELPER_PHI] =
        {"/* The normal distribution function: e^(-x²/2) t p(t) / 2 below 0, with t = 1 / (1 + |x| / sqrt(8)). */\n"
         "static inline float phi_of(float x) {\n"
         "    float size = (x < 0 ? -x : x) * 0.707106781F, t = 1.0F / (1.0F + 0.5F * size);\n"
         "    float p = -0.0624753447F;\n"
         "    p = p * t + 0.299871917F;\n"
         "    p = p * t - 0.516148653F;\n"
         "    p = p * t + 0.308104615F;\n"
         "    p = p * t - 0.0452392444F;\n"
         "    p = p * t + 0.209711295F;\n"
         "    p = p * t + 0.241533412F;\n"
         "    p = p * t + 0.282564837F;\n"
         "    p = p * t + 0.282076981F;\n"
         "    float tail = 0.5F * exp_of(-size * size) * t * p;\n"
         "    return x < 0 ? tail : 1.0F - tail;\n"
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
    [SAP_HELPER_ROWS] = {"static inline int32_t rows_of(int32_t rows, int32_t most) {\n"
                         "    return rows < 0 ? 0 : rows > most ? most : rows;\n"
                         "}\n",
                         -1},
    [SAP_HELPER_PAD] =
        {"static void pad(const float *restrict x, int32_t n, int32_t most, float with, float *restrict y) {\n"
         "    for (int32_t i = 0; i < n; i++)\n"
         "        y[i] = x[i];\n"
         "    for (int32_t i = n; i < most; i++)\n"
         "        y[i] = with;\n"
         "}\n",
         -1},
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
         -1},
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
         -1},
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
                         -1},
};

void sap_source_use(sap_source *source, sap_helper helper) {
    source->helpers[helper] = true;
    if (helpers[helper].needs >= 0)
        source->helpers[helpers[helper].needs] = true;
}

void sap_source_helpers(const sap_source *source, sap_text *out) {
    for (int i = 0; i < SAP_HELPER_COUNT; i++)
        if (source->helpers[i])
            sap_text_add(out, "%s\n", helpers[i].text);
}

const char *sap_source_number(sap_source *source, float value) {
    char text[40];
    (void)snprintf(text, sizeof text, "%.9g", (double)value);
    return sap_source_text(source, "%s%sF", text, strpbrk(text, ".e") ? "" : ".0");
}

static const char *relu_text(sap_source *source, const sap_activation *f, const char *x) {
    const char *slope = sap_source_number(source, f->alpha), *threshold = sap_source_number(source, f->threshold);
    const char *below = f->alpha == 0       ? "0"
                        : f->threshold == 0 ? sap_source_text(source, "%s * %s", slope, x)
                                            : sap_source_text(source, "%s * (%s - %s)", slope, x, threshold);
    if (f->limit > 3.4e38F)
        return sap_source_text(source, "%s < %s ? %s : %s", x, threshold, below, x);
    const char *limit = sap_source_number(source, f->limit);
    return sap_source_text(source, "%s < %s ? %s : %s > %s ? %s : %s", x, threshold, below, x, limit, limit, x);
}

const char *sap_source_activation(sap_source *source, const sap_activation *activation, const char *x) {
    static const struct {
        int helper;       /* what it uses, -1: nothing */
        const char *text; /* $: the argument */
    } table[] = {
        [SAP_LINEAR] = {-1, "$"},
        [SAP_RELU] = {-1, "$ < 0 ? 0 : $"},
        [SAP_SELU] = {SAP_HELPER_EXPM1, "1.05070099F * ($ < 0 ? 1.67326324F * expm1_of($) : $)"},
        [SAP_SIGMOID] = {SAP_HELPER_SIGMOID, "sigmoid_of($)"},
        [SAP_HARD_SIGMOID] = {-1, "$ < -3 ? 0 : $ > 3 ? 1 : $ * (1.0F / 6) + 0.5F"},
        [SAP_TANH] = {SAP_HELPER_TANH, "tanh_of($)"},
        [SAP_SOFTPLUS] = {SAP_HELPER_SOFTPLUS, "softplus_of($)"},
        [SAP_SOFTSIGN] = {-1, "$ / (1 + ($ < 0 ? -$ : $))"},
        [SAP_EXPONENTIAL] = {SAP_HELPER_EXP, "exp_of($)"},
        [SAP_SILU] = {SAP_HELPER_SIGMOID, "$ * sigmoid_of($)"},
        [SAP_GELU] = {SAP_HELPER_PHI, "$ * phi_of($)"},
        [SAP_GELU_TANH] = {SAP_HELPER_TANH, "0.5F * $ * (1 + tanh_of(0.797884561F * ($ + 0.044715F * $ * $ * $)))"},
    };
    if (activation->kind == SAP_RELU_GENERAL)
        return relu_text(source, activation, x);
    if (activation->kind == SAP_ELU) {
        sap_source_use(source, SAP_HELPER_EXPM1);
        return sap_source_text(source, "%s < 0 ? %s * expm1_of(%s) : %s", x,
                               sap_source_number(source, activation->alpha), x, x);
    }
    if (table[activation->kind].helper >= 0)
        sap_source_use(source, (sap_helper)table[activation->kind].helper);
    sap_text text = {0};
    for (const char *at = table[activation->kind].text; *at; at++)
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
    if (activation->kind == SAP_SOFTMAX) {
        sap_source_use(source, SAP_HELPER_SOFTMAX);
        sap_text_add(out, "%*ssoftmax(%s, %s, %s);\n", indent, "", count, x, y);
        return;
    }
    const char *value = sap_source_text(source, "%s[i]", x);
    sap_text_add(out, "%*sfor (int32_t i = 0; i < %s; i++)\n%*s%s[i] = %s;\n", indent, "", count, indent + 4, "", y,
                 sap_source_activation(source, activation, value));
}
