/* Histograms of the features by class, for the report: over at most KEPT_ROWS events, which are a random sample because
 * stored events are in the order of a hash. */
#include "histograms.h"

#include <math.h>
#include <stdlib.h>

enum { KEPT_ROWS = 100000, BINS = 40, FEWEST_BINS = 10, FEWEST_PER_SIDE = 200 };

void sap_histograms_release(sap_histograms *h) {
    for (size_t i = 0; h->values && i < h->count; i++)
        free(h->values[i]);
    free(h->values);
    free(h->label);
    *h = (sap_histograms){0};
}

sap_status sap_histograms_init(const sap_dataset *dataset, sap_histograms *out, sap_error *err) {
    *out = (sap_histograms){.dataset = dataset, .count = sap_dataset_feature_count(dataset)};
    out->values = calloc(out->count ? out->count : 1, sizeof *out->values);
    out->label = calloc(KEPT_ROWS, sizeof *out->label);
    bool room = out->values && out->label;
    for (size_t i = 0; i < out->count && room; i++) {
        const sap_feature *feature = sap_dataset_feature(dataset, i);
        if (!feature->sequence) {
            out->values[i] = calloc((size_t)KEPT_ROWS * (size_t)feature->width, sizeof **out->values);
            room = out->values[i] != NULL;
        }
    }
    if (!room) {
        sap_histograms_release(out);
        return sap_error_memory(err, "histograms");
    }
    return SAP_OK;
}

/* The numbers of a feature of fixed width, from its first entry; NULL when the column is something else. */
static const float *fixed_values(const sap_batch *batch, const sap_feature *feature) {
    const sap_column *column = sap_batch_find(batch, feature->name);
    if (!column || column->count != 1 || column->children[0].type != SAP_FLOAT32)
        return NULL;
    const float *values = column->children[0].values;
    if (column->type == SAP_LIST)
        return column->offsets[column->length] - column->offsets[0] == column->length * feature->width
                   ? values + column->offsets[0]
                   : NULL;
    return column->type == SAP_FIXED_LIST && column->size == feature->width ? values : NULL;
}

void sap_histograms_add(sap_histograms *h, const sap_batch *batch, const int32_t *label) {
    int64_t room = KEPT_ROWS - h->rows, rows = batch->length < room ? batch->length : room;
    for (size_t i = 0; i < h->count; i++) {
        const sap_feature *feature = sap_dataset_feature(h->dataset, i);
        const float *values = feature->sequence ? NULL : fixed_values(batch, feature);
        size_t width = (size_t)feature->width;
        if (values)
            memcpy(h->values[i] + (size_t)h->rows * width, values, (size_t)rows * width * sizeof *values);
    }
    memcpy(h->label + h->rows, label, (size_t)rows * sizeof *label);
    h->rows += rows;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Where the bins lie: all but the outermost half per cent of the values; one bin a value for small whole numbers. Values
 * that are not finite, which files from elsewhere may hold, do not count. */
static int choose_bins(const float *values, int64_t all, int32_t width, float *sorted, double *low, double *high) {
    bool whole = true;
    int64_t rows = 0;
    for (int64_t i = 0; i < all; i++) {
        if (!isfinite(values[i * width]))
            continue;
        sorted[rows] = values[i * width];
        whole = whole && sorted[rows] == rintf(sorted[rows]);
        rows++;
    }
    if (rows == 0)
        sorted[rows++] = 0;
    qsort(sorted, (size_t)rows, sizeof *sorted, by_value);
    int64_t cut = rows / FEWEST_PER_SIDE;
    *low = sorted[cut];
    *high = sorted[rows - 1 - cut];
    if (whole && *high - *low < BINS) {
        *low -= 0.5;
        *high += 0.5;
        return (int)(*high - *low);
    }
    if (!(*high > *low))
        *high = *low + 1;
    int bins = (int)(2 * cbrt((double)rows)); /* Rice's rule: few events give few bins */
    return bins < FEWEST_BINS ? FEWEST_BINS : bins > BINS ? BINS : bins;
}

/* {"name", "feature", "low", "high", "counts": [class][bin]}; values outside are counted in the outermost bins. */
static json_t *describe_value(const sap_histograms *h, size_t feature_index, int32_t value, float *sorted) {
    const sap_feature *feature = sap_dataset_feature(h->dataset, feature_index);
    const float *values = h->values[feature_index] + value;
    size_t classes = sap_dataset_label_count(h->dataset);
    double low, high;
    int bins = choose_bins(values, h->rows, feature->width, sorted, &low, &high);
    json_t *all = json_array();
    for (size_t k = 0; k < classes; k++) {
        json_int_t counts[BINS + 1] = {0};
        for (int64_t i = 0; i < h->rows; i++) {
            double at = (values[i * feature->width] - low) / (high - low) * bins;
            int bin = at >= bins ? bins - 1 : at > 0 ? (int)at : 0;
            counts[bin] += isfinite(at) && h->label[i] == (int32_t)k;
        }
        json_t *row = json_array();
        for (int bin = 0; bin < bins; bin++)
            json_array_append_new(row, json_integer(counts[bin]));
        json_array_append_new(all, row);
    }
    return json_pack("{s:s, s:s, s:f, s:f, s:o}", "name", feature->value_names[value], "feature", feature->name, "low",
                     low, "high", high, "counts", all);
}

json_t *sap_histograms_describe(const sap_histograms *h) {
    json_t *all = json_array();
    float *sorted = calloc((size_t)h->rows + 1, sizeof *sorted);
    for (size_t i = 0; i < h->count && sorted && h->rows > 0; i++) {
        const sap_feature *feature = sap_dataset_feature(h->dataset, i);
        for (int32_t v = 0; v < feature->width && !feature->sequence; v++)
            json_array_append_new(all, describe_value(h, i, v, sorted));
    }
    free(sorted);
    return all;
}
