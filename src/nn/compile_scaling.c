/* Features as a recipe computes them, in C source, become what the network was trained on: the arithmetic of the dataset module's
 * dense form. */
#include "../base/numbers.h"
#include "model_compile.h"

bool sap_scaling_has_constants(const sap_feature *feature) {
    return feature->scaling == SAP_SCALING_MINMAX || feature->scaling == SAP_SCALING_STANDARD;
}

static void emit_doubles(sap_text *out, const char *name, const double *values, int32_t count) {
    sap_text_add(out, "    static const double %s[%d] = {", name, count);
    for (int32_t i = 0; i < count; i++) {
        char text[SAP_REAL_TEXT];
        sap_real_print(text, values[i], 17);
        sap_text_add(out, "%s%s", i ? ", " : "", text);
    }
    sap_text_add(out, "};\n");
}

/* How many rows stand before the zero rows, which stand where (0, 0) belongs in the order. */
static void emit_rows_before(sap_text *out, const sap_feature *feature) {
    sap_text_add(out,
                 "    int32_t before = 0;\n"
                 "    const float *last = x + (all ? all - 1 : 0) * %d;\n"
                 "    for (int32_t i = 0; i < all; i++) {\n"
                 "        double a[2] = {(double)x[i * %d + %d] - (double)last[%d], (double)x[i * %d + %d] - "
                 "(double)last[%d]};\n"
                 "        double b[2] = {(double)last[%d], (double)last[%d]};\n"
                 "        a[1] += a[1] > 3.141592653589793 ? -6.283185307179586 : a[1] < -3.141592653589793 ? "
                 "6.283185307179586 : 0;\n"
                 "        before += a[0] * a[0] + a[1] * a[1] >= b[0] * b[0] + b[1] * b[1];\n"
                 "    }\n"
                 "    before = before > rows ? rows : before;\n",
                 feature->width, feature->width, feature->eta_index, feature->eta_index, feature->width,
                 feature->phi_index, feature->phi_index, feature->eta_index, feature->phi_index);
}

/* Shift and factor of each value over all rows of the dense form. */
static void emit_fit(sap_source *source, sap_text *out, const sap_feature *feature) {
    sap_source_use(source, SAP_HELPER_ROOT);
    sap_text_add(out,
                 "    double shift[%d] = {0}, factor[%d] = {0};\n"
                 "    for (int32_t i = 0; i < rows; i++)\n"
                 "        for (int32_t j = 0; j < %d; j++)\n"
                 "            shift[j] += (double)x[i * %d + j];\n"
                 "    for (int32_t j = 0; j < %d; j++)\n"
                 "        shift[j] /= %d;\n"
                 "    for (int32_t i = 0; i < rows; i++)\n"
                 "        for (int32_t j = 0; j < %d; j++) {\n"
                 "            double d = (double)x[i * %d + j] - shift[j];\n"
                 "            factor[j] += d * d;\n"
                 "        }\n"
                 "    for (int32_t j = 0; j < %d; j++) {\n"
                 "        double variance = (factor[j] + (%d - rows) * shift[j] * shift[j]) / %d;\n"
                 "        factor[j] = variance > shift[j] * shift[j] * 0x1p-80 ? inverse_root_of(variance) : 1;\n"
                 "    }\n",
                 feature->width, feature->width, feature->width, feature->width, feature->width, feature->pad_rows,
                 feature->width, feature->width, feature->width, feature->pad_rows, feature->pad_rows);
}

void sap_source_scaling(sap_source *source, const char *name, const sap_feature *feature, const double *shift,
                        const double *factor) {
    sap_text *out = &source->functions;
    bool each = feature->scaling == SAP_SCALING_STANDARD_EVENT;
    bool scaled = each || sap_scaling_has_constants(feature);
    const char *value = scaled ? "(float)(((double)x[k] - shift[j]) * factor[j])" : "x[k]";
    sap_text_add(out, "/* Feature \"%s\" as computed%s: scaled%s. */\nstatic void scale_%s(const float *restrict x, ",
                 sap_source_remark(source, feature->name), feature->sequence ? ", in training order" : "",
                 feature->sequence ? " and padded to its dense form" : "", name);
    sap_text_add(out, "%sfloat *restrict y) {\n", feature->sequence ? "int32_t all, " : "");
    if (sap_scaling_has_constants(feature)) {
        emit_doubles(out, "shift", shift, feature->width);
        emit_doubles(out, "factor", factor, feature->width);
    }
    if (!feature->sequence) {
        sap_text_add(out, "    for (int32_t j = 0, k = 0; j < %d; j++, k++)\n        y[k] = %s;\n}\n\n", feature->width,
                     value);
        return;
    }
    sap_source_use(source, SAP_HELPER_ROWS);
    sap_text_add(out, "    int32_t rows = rows_of(all, %d);\n", feature->pad_rows);
    bool before = feature->pad_before_order && feature->order != SAP_ORDER_NONE;
    if (before)
        emit_rows_before(out, feature);
    if (each)
        emit_fit(source, out, feature);
    sap_text_add(out,
                 "    for (int32_t i = 0; i < %d; i++)\n"
                 "        for (int32_t j = 0; j < %d; j++) {\n",
                 feature->pad_rows, feature->width);
    if (before)
        sap_text_add(out,
                     "            int32_t row = i < before ? i : i - (%d - rows), k = row * %d + j;\n"
                     "            y[i * %d + j] = i < before || row >= before ? %s : %s;\n",
                     feature->pad_rows, feature->width, feature->width, value,
                     each ? "(float)(-shift[j] * factor[j])" : "0");
    else
        sap_text_add(out,
                     "            int32_t k = i * %d + j;\n"
                     "            y[k] = i < rows ? %s : %s;\n",
                     feature->width, value, each ? "(float)(-shift[j] * factor[j])" : "0");
    sap_text_add(out, "        }\n}\n\n");
}
