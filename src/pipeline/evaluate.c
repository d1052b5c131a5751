/* evaluate: scores of a trained network on a part of a dataset, and the figures that they give. */
#include "histograms.h"

#include <stdlib.h>

/* Scores (rows, classes) and labels of a part of a dataset, piece after piece. */
typedef struct scored {
    float *scores;
    int32_t *label;
    int64_t rows;
    sap_histograms features;
} scored;

/* Which class of the run each label of the dataset is. */
static sap_status match_labels(const sap_scoring *scoring, const sap_dataset *dataset, int32_t *map, sap_error *err) {
    size_t classes = sap_dataset_label_count(scoring->dataset);
    for (size_t i = 0; i < sap_dataset_label_count(dataset); i++) {
        map[i] = -1;
        for (size_t k = 0; k < classes; k++)
            if (strcmp(sap_dataset_label(dataset, i), sap_dataset_label(scoring->dataset, k)) == 0)
                map[i] = (int32_t)k;
        if (map[i] < 0)
            return sap_error_set(
                err, SAP_ETYPE, "%s: has a class \"%s\", which the network of %s was not trained to tell",
                sap_dataset_folder(dataset), sap_dataset_label(dataset, i), sap_dataset_folder(scoring->dataset));
    }
    return SAP_OK;
}

static sap_status score_part(const sap_scoring *scoring, const sap_dataset *dataset, const char *split, size_t part,
                             const int32_t *map, const sap_run *run, scored *out, sap_error *err) {
    sap_batch batch = {0};
    SAP_TRY(sap_dataset_read_part(dataset, split, part, run, &batch, err));
    const sap_column *label = sap_batch_find(&batch, "label");
    sap_status status = SAP_OK;
    if (!label || label->type != SAP_INT32)
        status = sap_error_set(err, SAP_EFORMAT, "%s: part %zu of \"%s\" has no column \"label\" of int32",
                               sap_dataset_folder(dataset), part, split);
    if (status == SAP_OK)
        status = sap_scoring_run(scoring, &batch, sap_dataset_is_ordered(dataset), run,
                                 out->scores + out->rows * scoring->classes, err);
    for (int64_t i = 0; i < batch.length && status == SAP_OK; i++) {
        int32_t stored = ((const int32_t *)label->values)[i];
        if (stored < 0 || (size_t)stored >= sap_dataset_label_count(dataset))
            status = sap_error_set(err, SAP_EFORMAT, "%s: part %zu of \"%s\": row %lld has label %d of %zu",
                                   sap_dataset_folder(dataset), part, split, (long long)i, stored,
                                   sap_dataset_label_count(dataset));
        else
            out->label[out->rows + i] = map[stored];
    }
    if (status == SAP_OK)
        sap_histograms_add(&out->features, &batch, out->label + out->rows);
    out->rows += batch.length;
    sap_batch_release(&batch);
    return status;
}

static sap_status score(const sap_scoring *scoring, const sap_dataset *dataset, const char *split, const sap_run *run,
                        scored *out, sap_error *err) {
    int64_t total = sap_dataset_rows(dataset, split);
    if (total < 1)
        return sap_error_set(err, SAP_EDATA, "%s: has no events in its part \"%s\"", sap_dataset_folder(dataset),
                             split);
    int32_t *map = calloc(sap_dataset_label_count(dataset), sizeof *map);
    out->scores = calloc((size_t)total, (size_t)scoring->classes * sizeof *out->scores);
    out->label = calloc((size_t)total, sizeof *out->label);
    sap_status status =
        map && out->scores && out->label ? match_labels(scoring, dataset, map, err) : sap_error_memory(err, "scores");
    if (status == SAP_OK)
        status = sap_histograms_init(scoring->dataset, &out->features, err);
    size_t parts = sap_dataset_part_count(dataset, split);
    for (size_t part = 0; part < parts && status == SAP_OK; part++) {
        status = score_part(scoring, dataset, split, part, map, run, out, err);
        sap_run_report(run, "evaluate", "events", (uint64_t)out->rows, (uint64_t)total, NULL);
    }
    free(map);
    return status;
}

static json_t *describe_class(const sap_dataset *labels, const sap_evaluation *e, int32_t k) {
    json_t *roc = json_array();
    for (int64_t i = 0; i < e->roc_count[k]; i++) {
        const sap_roc_point *point = &e->roc[k][i];
        json_array_append_new(roc, json_pack("[o,o,o]", sap_json_number(point->threshold),
                                             sap_json_number(point->false_positive_rate),
                                             sap_json_number(point->true_positive_rate)));
    }
    return json_pack("{s:s, s:o, s:o}", "label", sap_dataset_label(labels, (size_t)k), "auc",
                     sap_json_number(e->auc[k]), "roc", roc);
}

/* Counts of the scores for each class, by true class: [class scored][true class][bin], 50 bins over [0, 1]. */
static json_t *describe_scores(const float *scores, const int32_t *label, int64_t rows, int32_t classes) {
    enum { BINS = 50 };
    json_t *all = json_array();
    for (int32_t k = 0; k < classes; k++) {
        json_t *by_truth = json_array();
        for (int32_t truth = 0; truth < classes; truth++) {
            json_int_t counts[BINS] = {0};
            for (int64_t i = 0; i < rows; i++) {
                float score = scores[i * classes + k]; /* of any size when the last layer is linear */
                if (label[i] == truth)
                    counts[score > 0 ? score < 1 ? (int)(score * BINS) : BINS - 1 : 0]++;
            }
            json_t *bins = json_array();
            for (int bin = 0; bin < BINS; bin++)
                json_array_append_new(bins, json_integer(counts[bin]));
            json_array_append_new(by_truth, bins);
        }
        json_array_append_new(all, by_truth);
    }
    return all;
}

static json_t *describe(const sap_stage *stage, const sap_dataset *labels, const sap_evaluation *e, const scored *s) {
    json_t *classes = json_array(), *confusion = json_array();
    for (int32_t k = 0; k < e->classes; k++) {
        json_array_append_new(classes, describe_class(labels, e, k));
        json_t *row = json_array();
        for (int32_t j = 0; j < e->classes; j++)
            json_array_append_new(row, json_integer(e->confusion[k * e->classes + j]));
        json_array_append_new(confusion, row);
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "run", sap_stage_text(stage, "run"), "data",
                     sap_stage_text(stage, "data"), "split", sap_stage_text(stage, "split"), "events",
                     (json_int_t)e->rows, "accuracy", sap_json_number(e->accuracy), "loss", sap_json_number(e->loss),
                     "classes", classes, "confusion", confusion, "scores",
                     describe_scores(s->scores, s->label, s->rows, e->classes), "features",
                     sap_histograms_describe(&s->features));
}

sap_status sap_evaluate_run(const sap_stage *stage, const sap_run *run, json_t **result, sap_error *err) {
    sap_scoring scoring = {0};
    sap_dataset *dataset = NULL;
    scored s = {0};
    sap_evaluation evaluation = {0};
    char path[PATH_BYTES];
    sap_status status = sap_scoring_init(sap_stage_text(stage, "run"), sap_stage_device(stage), run, &scoring, err);
    if (status == SAP_OK)
        status = sap_scoring_data(&scoring, stage, &dataset, err);
    const char *split = status == SAP_OK ? sap_data_split(dataset, sap_stage_text(stage, "split")) : NULL;
    if (status == SAP_OK)
        status = score(&scoring, dataset, split, run, &s, err);
    if (status == SAP_OK)
        status = sap_evaluation_init(s.scores, s.label, s.rows, (int32_t)scoring.classes, &evaluation, err);
    if (status != SAP_OK)
        goto done;
    json_t *described = describe(stage, scoring.dataset, &evaluation, &s);
    const char *out = sap_stage_text(stage, "out");
    status = out ? SAP_OK : sap_path_join(sap_stage_text(stage, "run"), SAP_RUN_EVALUATION, path, err);
    if (status == SAP_OK)
        status = sap_json_store(described, out ? out : path, err);
    if (status == SAP_OK) {
        json_object_set_new(described, "out", json_string(out ? out : path));
        *result = json_incref(described);
    }
    json_decref(described);
done:
    sap_evaluation_release(&evaluation);
    sap_histograms_release(&s.features);
    free(s.scores);
    free(s.label);
    sap_dataset_close(dataset);
    sap_scoring_release(&scoring);
    return status;
}
