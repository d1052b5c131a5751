/* Scaling constants: moments of rows, merged in a fixed order, and the shift and factor that they give. */
#include "dataset_internal.h"

#include <math.h>

sap_status sap_moments_init(sap_moments *moments, int32_t width, sap_arena *arena, sap_error *err) {
    size_t n = (size_t)width;
    double *data = sap_arena_array(arena, 4 * n, sizeof *data);
    if (!data)
        return sap_error_memory(err, "scaling constants");
    *moments = (sap_moments){.min = data, .max = data + n, .mean = data + 2 * n, .m2 = data + 3 * n};
    return SAP_OK;
}

/* The mean first and the squares about it after, so that nothing cancels. */
void sap_moments_fill(sap_moments *moments, int32_t width, const float *const *rows, const int64_t *counts,
                      size_t pieces) {
    for (int32_t j = 0; j < width; j++) {
        moments->min[j] = INFINITY;
        moments->max[j] = -INFINITY;
        moments->mean[j] = moments->m2[j] = 0;
    }
    moments->rows = 0;
    for (size_t p = 0; p < pieces; p++) {
        moments->rows += counts[p];
        for (int64_t i = 0; i < counts[p]; i++) {
            for (int32_t j = 0; j < width; j++) {
                double x = (double)rows[p][i * width + j];
                moments->min[j] = x < moments->min[j] ? x : moments->min[j];
                moments->max[j] = x > moments->max[j] ? x : moments->max[j];
                moments->mean[j] += x;
            }
        }
    }
    if (moments->rows == 0)
        return;
    for (int32_t j = 0; j < width; j++)
        moments->mean[j] /= (double)moments->rows;
    for (size_t p = 0; p < pieces; p++) {
        for (int64_t i = 0; i < counts[p]; i++) {
            for (int32_t j = 0; j < width; j++) {
                double d = (double)rows[p][i * width + j] - moments->mean[j];
                moments->m2[j] += d * d;
            }
        }
    }
}

/* Chan, Golub and LeVeque's update of means and squares. */
void sap_moments_merge(sap_moments *into, const sap_moments *from, int32_t width) {
    if (from->rows == 0)
        return;
    double a = (double)into->rows, b = (double)from->rows, n = a + b;
    for (int32_t j = 0; j < width; j++) {
        if (into->rows == 0) {
            into->min[j] = from->min[j];
            into->max[j] = from->max[j];
            into->mean[j] = from->mean[j];
            into->m2[j] = from->m2[j];
            continue;
        }
        double delta = from->mean[j] - into->mean[j];
        into->min[j] = fmin(into->min[j], from->min[j]);
        into->max[j] = fmax(into->max[j], from->max[j]);
        into->mean[j] += delta * (b / n);
        into->m2[j] += from->m2[j] + delta * delta * (a * b / n);
    }
    into->rows += from->rows;
}

void sap_constants_fit(sap_scaling scaling, const sap_moments *moments, sap_constants *out) {
    for (int32_t j = 0; j < out->width; j++) {
        double shift = 0, factor = 1;
        if (moments->rows > 0 && scaling == SAP_SCALING_MINMAX) {
            double range = moments->max[j] - moments->min[j];
            if (range > 0) {
                shift = moments->min[j];
                factor = 1 / range;
            } else { /* to 0.5, by a step that a double next to the value can hold */
                double step = fmax(0.5, fabs(moments->min[j]) * 0x1p-24);
                shift = moments->min[j] - step;
                factor = 0.5 / step;
            }
        } else if (moments->rows > 0 && scaling == SAP_SCALING_STANDARD) {
            bool constant = !(moments->max[j] > moments->min[j]);
            double deviation = sqrt(moments->m2[j] / (double)moments->rows);
            shift = constant ? moments->min[j] : moments->mean[j];
            factor = constant ? 1 : 1 / deviation;
        }
        out->shift[j] = shift;
        out->factor[j] = factor;
    }
}
