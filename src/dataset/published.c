/* The layout that the notebooks of arXiv:1909.10389 read: two tables, for the HLF and the inclusive classifier, of scaled values. */
#include "../column/column_internal.h"
#include "dataset_internal.h"

#include <stdlib.h>

enum { HLF_INPUT, ENCODED_LABEL, GRU_INPUT, COLUMNS };

/* The feature that is a sequence, or the one that is not. */
static size_t feature_of(const sap_dataset_plan *plan, bool sequence) {
    size_t index = 0;
    while (plan->features[index].sequence != sequence)
        index++;
    return index;
}

/* A list column: `each` doubles a row; values to be filled in. */
static double *make_lists(struct sap_storage *storage, const sap_field *field, size_t rows, size_t each,
                          sap_column *out, sap_error *err) {
    if (sap_column_init(storage, field, out, err) != SAP_OK)
        return NULL;
    int32_t *offsets = sap_storage_alloc(storage, (rows + 1) * sizeof *offsets);
    double *values = sap_storage_alloc(storage, rows * each * sizeof *values);
    if (!offsets || !values) {
        (void)sap_error_memory(err, field->name);
        return NULL;
    }
    for (size_t i = 0; i <= rows; i++)
        offsets[i] = (int32_t)(i * each);
    out->length = (int64_t)rows;
    out->offsets = offsets;
    out->children[0].values = values;
    out->children[0].length = (int64_t)(rows * each);
    return values;
}

static sap_status fill_dense(const sap_build *build, bool sequence, sap_row *const *rows, size_t count,
                             struct sap_storage *storage, const sap_field *field, sap_column *out, sap_error *err) {
    const sap_dataset_plan *plan = &build->writer->plan;
    size_t index = feature_of(plan, sequence), each = (size_t)sap_feature_values(&plan->features[index]);
    float *dense = malloc(each * sizeof *dense);
    double *values = dense ? make_lists(storage, field, count, each, out, err) : NULL;
    for (size_t i = 0; values && i < count; i++) {
        int64_t length;
        const float *data = sap_row_feature(plan, rows[i], index, &length);
        sap_dense(&plan->features[index], &build->constants[index], data, length, dense);
        for (size_t j = 0; j < each; j++)
            values[i * each + j] = (double)dense[j];
    }
    free(dense);
    return values ? SAP_OK : sap_error_memory(err, field->name);
}

static sap_status fill_labels(const sap_build *build, sap_row *const *rows, size_t count, struct sap_storage *storage,
                              const sap_field *field, sap_column *out, sap_error *err) {
    size_t labels = build->writer->label_count;
    double *values = make_lists(storage, field, count, labels, out, err);
    if (!values)
        return sap_error_memory(err, field->name);
    memset(values, 0, count * labels * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i * labels + (size_t)build->writer->inputs[rows[i]->input].label] = 1;
    return SAP_OK;
}

static sap_status fill_published(const sap_build *build, const sap_output *output, sap_row *const *rows, size_t count,
                                 sap_batch *out, sap_error *err) {
    SAP_TRY(sap_batch_init(out, output->field_count, err));
    out->length = (int64_t)count;
    const sap_field *fields = output->fields;
    sap_status status =
        fill_dense(build, false, rows, count, out->storage, &fields[HLF_INPUT], &out->columns[HLF_INPUT], err);
    if (status == SAP_OK)
        status =
            fill_labels(build, rows, count, out->storage, &fields[ENCODED_LABEL], &out->columns[ENCODED_LABEL], err);
    if (status == SAP_OK && output->field_count > GRU_INPUT)
        status = fill_dense(build, true, rows, count, out->storage, &fields[GRU_INPUT], &out->columns[GRU_INPUT], err);
    if (status != SAP_OK)
        sap_batch_release(out);
    return status;
}

sap_status sap_published_outputs(sap_build *build, sap_error *err) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT64};
    static const sap_field fields[COLUMNS] = {
        [HLF_INPUT] = {.name = "HLF_input", .type = SAP_LIST, .count = 1, .children = &item},
        [ENCODED_LABEL] = {.name = "encoded_label", .type = SAP_LIST, .count = 1, .children = &item},
        [GRU_INPUT] = {.name = "GRU_input", .type = SAP_LIST, .count = 1, .children = &item}};
    static const char *const names[2] = {"HLF_features", "InclusiveClassifier"};
    const sap_dataset_plan *plan = &build->writer->plan;
    bool parquet = plan->format == SAP_DATASET_PARQUET;
    int64_t values = (int64_t)build->writer->label_count;
    for (size_t f = 0; f < plan->feature_count; f++)
        values += sap_feature_values(&plan->features[f]);
    build->outputs = sap_arena_array(&build->arena, 2, sizeof *build->outputs);
    if (!build->outputs)
        return sap_error_memory(err, "dataset");
    build->output_count = 2;
    for (size_t o = 0; o < 2; o++) {
        sap_output *output = &build->outputs[o];
        *output = (sap_output){.part = parquet ? "part-" : "part-r-",
                               .ending = parquet ? ".parquet" : "",
                               .fields = fields,
                               .field_count = o == 0 ? GRU_INPUT : COLUMNS,
                               .row_bytes = (size_t)values * sizeof(double),
                               .fill = fill_published};
        for (size_t split = 0; split < 2; split++) {
            output->folders[split] = sap_arena_format(&build->arena, "%sUndersampled_%s%s", split ? "test" : "train",
                                                      names[o], sap_part_ending(build->writer->plan.format));
            if (!output->folders[split])
                return sap_error_memory(err, "dataset");
        }
    }
    return SAP_OK;
}
