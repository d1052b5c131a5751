/* How good scores are: accuracy, confusion matrix, loss, exact AUC and thinned ROC curves. */
#include "nn_internal.h"

#include <math.h>
#include <stdlib.h>

enum { ROC_POINTS = 1000 };

/* One event as one class sees it. */
typedef struct ranked {
    float score;
    bool positive;
} ranked;

static int by_falling_score(const void *a, const void *b) {
    float x = ((const ranked *)a)->score, y = ((const ranked *)b)->score;
    return (x < y) - (x > y);
}

static sap_status check(const float *scores, const int32_t *label, int64_t rows, int32_t classes, sap_error *err) {
    if (rows < 1 || classes < 1)
        return sap_error_set(err, SAP_EDATA, "evaluation: %lld rows of %d classes", (long long)rows, classes);
    for (int64_t r = 0; r < rows; r++) {
        if (label[r] < 0 || label[r] >= classes)
            return sap_error_set(err, SAP_EDATA, "evaluation: row %lld has the label %d; there are %d classes",
                                 (long long)r, label[r], classes);
        for (int32_t c = 0; c < classes; c++)
            if (isnan(scores[r * classes + c]))
                return sap_error_set(err, SAP_EDATA, "evaluation: the score of class %d in row %lld is NaN", c,
                                     (long long)r);
    }
    return SAP_OK;
}

/* Confusion, accuracy, and the categorical cross-entropy of scores taken as probabilities (normalised, clipped as
 * Keras does). */
static void count_rows(const float *scores, const int32_t *label, sap_evaluation *out) {
    int32_t classes = out->classes;
    int64_t correct = 0;
    double loss = 0;
    for (int64_t r = 0; r < out->rows; r++) {
        const float *row = scores + r * classes;
        int32_t best = 0;
        double sum = 0;
        for (int32_t c = 0; c < classes; c++) {
            sum += (double)row[c];
            best = row[c] > row[best] ? c : best;
        }
        double p = (double)row[label[r]] / sum;
        loss -= log(fmin(fmax(p, 1e-7), 1 - 1e-7));
        correct += best == label[r];
        out->confusion[(int64_t)label[r] * classes + best]++;
    }
    out->accuracy = (double)correct / (double)out->rows;
    out->loss = loss / (double)out->rows;
}

/* Walks down the sorted events, equal scores at once. A point is kept when the curve has gone far enough since the
 * last one: its whole length, |Δx| + |Δy|, is 2. The first and the last point are always there. */
static void walk(const ranked *events, int64_t rows, int64_t positives, double *auc, sap_roc_point *roc,
                 int64_t *roc_count) {
    int64_t negatives = rows - positives, taken_positive = 0, taken_negative = 0, kept = 1;
    /* Twice the number of (positive, negative) pairs in the right order; ties count 1. */
    __extension__ unsigned __int128 twice = 0;
    double p = (double)(positives ? positives : 1), n = (double)(negatives ? negatives : 1);
    roc[0] = (sap_roc_point){(double)INFINITY, 0, 0};
    for (int64_t begin = 0, end; begin < rows; begin = end) {
        int64_t positive = 0;
        for (end = begin; end < rows && !(events[end].score < events[begin].score); end++)
            positive += events[end].positive;
        int64_t negative = end - begin - positive;
        twice += (unsigned __int128)negative * (unsigned __int128)(2 * taken_positive + positive);
        taken_positive += positive;
        taken_negative += negative;
        sap_roc_point point = {(double)events[begin].score, (double)taken_negative / n, (double)taken_positive / p};
        const sap_roc_point *last = &roc[kept - 1];
        double gone =
            point.false_positive_rate - last->false_positive_rate + point.true_positive_rate - last->true_positive_rate;
        if (end == rows || gone > 2.0 / (ROC_POINTS - 3))
            roc[kept++] = point;
    }
    *roc_count = kept;
    *auc = positives && negatives ? (double)twice / 2 / p / n : (double)NAN;
}

sap_status sap_auc_find(const float *score, const uint8_t *positive, int64_t count, double *out, sap_error *err) {
    int64_t positives = 0, points;
    ranked *events = calloc((size_t)count + 1, sizeof *events);
    sap_roc_point *roc = calloc(ROC_POINTS, sizeof *roc);
    sap_status status = events && roc ? SAP_OK : sap_error_memory(err, "AUC");
    for (int64_t i = 0; status == SAP_OK && i < count; i++) {
        events[i] = (ranked){score[i], positive[i] != 0};
        positives += events[i].positive;
        if (isnan(score[i]))
            status = sap_error_set(err, SAP_EDATA, "AUC: a score is NaN");
    }
    if (status == SAP_OK) {
        qsort(events, (size_t)count, sizeof *events, by_falling_score);
        walk(events, count, positives, out, roc, &points);
    }
    free(roc);
    free(events);
    return status;
}

static sap_status evaluate_class(const float *scores, const int32_t *label, int32_t class_number, ranked *events,
                                 sap_evaluation *out, sap_error *err) {
    int64_t positives = 0;
    for (int64_t r = 0; r < out->rows; r++) {
        events[r] = (ranked){scores[r * out->classes + class_number], label[r] == class_number};
        positives += events[r].positive;
    }
    qsort(events, (size_t)out->rows, sizeof *events, by_falling_score);
    out->roc[class_number] = malloc(ROC_POINTS * sizeof(sap_roc_point));
    if (!out->roc[class_number])
        return sap_error_memory(err, "evaluation");
    walk(events, out->rows, positives, &out->auc[class_number], out->roc[class_number], &out->roc_count[class_number]);
    return SAP_OK;
}

sap_status sap_evaluation_init(const float *scores, const int32_t *label, int64_t rows, int32_t classes,
                               sap_evaluation *out, sap_error *err) {
    *out = (sap_evaluation){0};
    SAP_TRY(check(scores, label, rows, classes, err));
    size_t count = (size_t)classes;
    *out = (sap_evaluation){
        .rows = rows,
        .classes = classes,
        .confusion = calloc(count * count, sizeof *out->confusion),
        .auc = calloc(count, sizeof *out->auc),
        .roc = calloc(count, sizeof *out->roc),
        .roc_count = calloc(count, sizeof *out->roc_count),
    };
    ranked *events = calloc((size_t)rows, sizeof *events);
    sap_status status = SAP_OK;
    if (!out->confusion || !out->auc || !out->roc || !out->roc_count || !events) {
        status = sap_error_memory(err, "evaluation");
        goto done;
    }
    count_rows(scores, label, out);
    for (int32_t c = 0; c < classes && status == SAP_OK; c++)
        status = evaluate_class(scores, label, c, events, out, err);
done:
    free(events);
    if (status != SAP_OK)
        sap_evaluation_release(out);
    return status;
}

void sap_evaluation_release(sap_evaluation *evaluation) {
    for (int32_t c = 0; evaluation->roc && c < evaluation->classes; c++)
        free(evaluation->roc[c]);
    free(evaluation->confusion);
    free(evaluation->auc);
    free(evaluation->roc);
    free(evaluation->roc_count);
    *evaluation = (sap_evaluation){0};
}
