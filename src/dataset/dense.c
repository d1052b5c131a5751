/* Sequences: their order in a training set, and the dense, scaled form that networks read. */
#include "dataset_internal.h"

#include <math.h>
#include <stdlib.h>

/* Distance in (eta, phi) between two rows, the phi difference folded into [-pi, pi]. */
static double delta_r(double eta_a, double phi_a, double eta_b, double phi_b) {
    double deta = eta_a - eta_b, dphi = fabs(phi_a - phi_b);
    if (dphi > M_PI)
        dphi = remainder(dphi, 2 * M_PI);
    return sqrt(deta * deta + dphi * dphi);
}

/* ---- Order ------------------------------------------------------------------------------------------------- */

typedef struct place {
    double key;
    int64_t row;
} place;

/* Stable merge sort by falling key; returns whichever of the two arrays holds the result. */
static place *sort_falling(place *from, place *to, int64_t count) {
    for (int64_t run = 1; run < count; run *= 2) {
        for (int64_t begin = 0; begin < count; begin += 2 * run) {
            int64_t middle = begin + run < count ? begin + run : count;
            int64_t end = middle + run < count ? middle + run : count;
            int64_t a = begin, b = middle;
            for (int64_t i = begin; i < end; i++)
                to[i] = a < middle && (b >= end || from[a].key >= from[b].key) ? from[a++] : from[b++];
        }
        place *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

bool sap_sequence_sort(const sap_feature *feature, float *rows, int64_t count, sap_sort_space *space) {
    if (feature->order == SAP_ORDER_NONE || count < 2)
        return true;
    size_t width = (size_t)feature->width, n = (size_t)count;
    size_t bytes = n * (2 * sizeof(place) + width * sizeof(float));
    if (bytes > space->bytes) {
        free(space->data);
        space->data = malloc(bytes);
        space->bytes = space->data ? bytes : 0;
    }
    if (!space->data)
        return false;
    place *places = space->data;
    float *copy = (float *)(places + 2 * n);
    double eta = rows[feature->eta_index], phi = rows[feature->phi_index];
    for (size_t i = 0; i < n; i++) {
        const float *row = rows + i * width;
        places[i] = (place){delta_r(row[feature->eta_index], row[feature->phi_index], eta, phi), (int64_t)i};
    }
    const place *sorted = sort_falling(places, places + n, count);
    memcpy(copy, rows, n * width * sizeof *rows);
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * width, copy + (size_t)sorted[i].row * width, width * sizeof *rows);
    return true;
}

/* ---- The dense form ------------------------------------------------------------------------------------------ */

bool sap_feature_needs_constants(const sap_feature *feature) {
    return feature->scaling == SAP_SCALING_MINMAX || feature->scaling == SAP_SCALING_STANDARD;
}

bool sap_feature_is_padded(const sap_feature *feature) {
    return feature->sequence && (feature->scaling == SAP_SCALING_STANDARD_EVENT || feature->pad_before_order);
}

int64_t sap_feature_values(const sap_feature *feature) {
    return feature->sequence ? (int64_t)feature->pad_rows * feature->width : feature->width;
}

/* How many of the rows go before the zero rows. A zero row stands at (0, 0); it was appended, so it follows real rows at
 * the same distance. The last row has the place of row 0 before sorting, or that very place. */
static int64_t rows_before_padding(const sap_feature *feature, const float *rows, int64_t count) {
    if (!feature->pad_before_order || feature->order == SAP_ORDER_NONE || count == 0)
        return count;
    const float *last = rows + (count - 1) * feature->width;
    double eta = last[feature->eta_index], phi = last[feature->phi_index];
    double padding = delta_r(0, 0, eta, phi);
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const float *row = rows + middle * feature->width;
        if (delta_r(row[feature->eta_index], row[feature->phi_index], eta, phi) >= padding)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Shift and factor of each value over all rows of the dense form, whose further rows are zero. */
static void fit_event(const float *rows, int64_t count, int64_t dense_rows, int32_t width, double *shift,
                      double *factor) {
    for (int32_t j = 0; j < width; j++)
        shift[j] = factor[j] = 0;
    for (int64_t i = 0; i < count; i++)
        for (int32_t j = 0; j < width; j++)
            shift[j] += (double)rows[i * width + j];
    for (int32_t j = 0; j < width; j++)
        shift[j] /= (double)dense_rows;
    for (int64_t i = 0; i < count; i++) {
        for (int32_t j = 0; j < width; j++) {
            double d = (double)rows[i * width + j] - shift[j];
            factor[j] += d * d;
        }
    }
    for (int32_t j = 0; j < width; j++) {
        double variance = (factor[j] + (double)(dense_rows - count) * shift[j] * shift[j]) / (double)dense_rows;
        /* what the mean's rounding leaves of a constant value is no deviation */
        factor[j] = variance > shift[j] * shift[j] * 0x1p-80 ? 1 / sqrt(variance) : 1;
    }
}

/* What scales the rows of one event. */
typedef struct scale {
    const double *shift, *factor; /* NULL: as computed */
    bool padding;                 /* zero rows are scaled too */
} scale;

static scale scale_of(const sap_feature *feature, const sap_constants *constants, const float *rows, int64_t count,
                      double *space) {
    switch (feature->scaling) {
    case SAP_SCALING_STANDARD_EVENT:
        fit_event(rows, count, feature->pad_rows, feature->width, space, space + feature->width);
        return (scale){space, space + feature->width, true};
    case SAP_SCALING_MINMAX:
    case SAP_SCALING_STANDARD:
        return (scale){constants->shift, constants->factor, false};
    default:
        return (scale){NULL, NULL, false};
    }
}

/* out: (count, width) */
static void scale_rows(const scale *s, int32_t width, const float *rows, int64_t count, float *out) {
    if (!s->shift) {
        if (count > 0 && out != rows)
            memcpy(out, rows, (size_t)(count * width) * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        for (int32_t j = 0; j < width; j++)
            out[i * width + j] = (float)(((double)rows[i * width + j] - s->shift[j]) * s->factor[j]);
}

static void pad_rows(const scale *s, int32_t width, int64_t count, float *out) {
    if (!s->padding) {
        memset(out, 0, (size_t)(count * width) * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        for (int32_t j = 0; j < width; j++)
            out[i * width + j] = (float)(-s->shift[j] * s->factor[j]);
}

void sap_dense(const sap_feature *feature, const sap_constants *constants, const float *rows, int64_t count,
               float *out) {
    double space[2 * SAP_SEQUENCE_MAX_WIDTH];
    int32_t width = feature->width;
    if (!feature->sequence) {
        scale s = scale_of(feature, constants, rows, 1, space);
        scale_rows(&s, width, rows, 1, out);
        return;
    }
    int64_t before = rows_before_padding(feature, rows, count);
    int64_t padding = feature->pad_rows > count ? feature->pad_rows - count : 0;
    if (count > feature->pad_rows)
        count = feature->pad_rows;
    if (before > count)
        before = count;
    scale s = scale_of(feature, constants, rows, count, space);
    scale_rows(&s, width, rows, before, out);
    pad_rows(&s, width, padding, out + before * width);
    scale_rows(&s, width, rows + before * width, count - before, out + (before + padding) * width);
}

int64_t sap_ragged(const sap_feature *feature, const sap_constants *constants, const float *rows, int64_t count,
                   float *out) {
    if (feature->pad_rows > 0 && count > feature->pad_rows)
        count = feature->pad_rows;
    scale s = scale_of(feature, constants, rows, count, NULL);
    scale_rows(&s, feature->width, rows, count, out);
    return count;
}
