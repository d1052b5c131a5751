/* Small recipes and events for tests of datasets: a plain feature of three values and a sequence of rows of four. */
#ifndef DATASET_CASES_H
#define DATASET_CASES_H

#include "column/column_internal.h"
#include "dataset/dataset_internal.h"

#include "test_support.h"

#include <math.h>
#include <unistd.h>

enum { CASE_WIDTH = 3, CASE_ROW = 4, CASE_PAD = 12 };

static const char *const case_names[CASE_WIDTH] = {"a", "b", "c"};
static const char *const case_row_names[CASE_ROW] = {"pt", "eta", "phi", "q"};

/* Like the topology recipe's features in the convention "corrected", or in "paper". */
static inline void case_features(bool paper, sap_feature out[2]) {
    out[0] = (sap_feature){.name = "hlf",
                           .value_names = case_names,
                           .width = CASE_WIDTH,
                           .scaling = SAP_SCALING_MINMAX,
                           .fit_before_split = paper};
    out[1] = (sap_feature){.name = "particles",
                           .value_names = case_row_names,
                           .width = CASE_ROW,
                           .sequence = true,
                           .scaling = paper ? SAP_SCALING_STANDARD_EVENT : SAP_SCALING_STANDARD,
                           .order = SAP_ORDER_FALLING_DELTA_R,
                           .eta_index = 1,
                           .phi_index = 2,
                           .pad_rows = CASE_PAD,
                           .pad_before_order = paper};
}

static const char *const case_cuts[2] = {"one lepton", "no empty map"};

static inline sap_dataset_plan case_plan(const sap_dataset_input *inputs, size_t count, const sap_feature *features,
                                         sap_dataset_layout layout, sap_dataset_format format) {
    return (sap_dataset_plan){.inputs = inputs,
                              .input_count = count,
                              .features = features,
                              .feature_count = 2,
                              .cuts = case_cuts,
                              .cut_count = 2,
                              .recipe = "case",
                              .recipe_version = "1",
                              .convention = "corrected",
                              .format = format,
                              .layout = layout,
                              .seed = 7,
                              .test_fraction = 0.25,
                              .balance = true};
}

/* Number in [-1, 1) that the arguments fix. */
static inline float case_number(uint64_t input, int64_t entry, uint64_t index) {
    return (float)(2 * sap_unit(sap_mix(sap_mix(input, (uint64_t)entry), index)) - 1);
}

static inline int64_t case_rows(uint64_t input, int64_t entry) {
    return 1 + (int64_t)(sap_mix(input + 99, (uint64_t)entry) % (CASE_PAD - 1));
}

/* Events of an input, entries [begin, end), of which only even ones are selected. */
static inline void case_batch(uint64_t input, int64_t begin, int64_t end, sap_batch *out) {
    static const sap_field item = {.name = "element", .type = SAP_FLOAT32};
    const sap_field fields[3] = {
        {.name = "hlf", .type = SAP_FIXED_LIST, .size = CASE_WIDTH, .count = 1, .children = &item},
        {.name = "particles", .type = SAP_LIST, .count = 1, .children = &item},
        {.name = "entry", .type = SAP_INT64}};
    assert_ok(sap_batch_init(out, 3, err));
    size_t n = 0, room = (size_t)(end - begin) / 2 + 1;
    float *hlf = sap_storage_alloc(out->storage, room * CASE_WIDTH * sizeof *hlf);
    float *rows = sap_storage_alloc(out->storage, room * CASE_PAD * CASE_ROW * sizeof *rows);
    int32_t *offsets = sap_storage_alloc(out->storage, (room + 1) * sizeof *offsets);
    int64_t *entries = sap_storage_alloc(out->storage, room * sizeof *entries);
    assert_true(hlf && rows && offsets && entries);
    offsets[0] = 0;
    for (int64_t e = begin + begin % 2; e < end; e += 2) {
        int64_t values = case_rows(input, e) * CASE_ROW;
        for (uint64_t j = 0; j < CASE_WIDTH; j++)
            hlf[n * CASE_WIDTH + j] = j == 2 ? 5 : 10 * case_number(input, e, j);
        for (int64_t j = 0; j < values; j++)
            rows[offsets[n] + j] = 3 * case_number(input, e, (uint64_t)(100 + j));
        offsets[n + 1] = offsets[n] + (int32_t)values;
        entries[n++] = e;
    }
    for (int i = 0; i < 3; i++) {
        assert_ok(sap_column_init(out->storage, &fields[i], &out->columns[i], err));
        out->columns[i].length = (int64_t)n;
    }
    out->length = (int64_t)n;
    out->columns[0].children[0].values = hlf;
    out->columns[0].children[0].length = (int64_t)n * CASE_WIDTH;
    out->columns[1].offsets = offsets;
    out->columns[1].children[0].values = rows;
    out->columns[1].children[0].length = offsets[n];
    out->columns[2].values = entries;
}

/* Writes entries [0, entries) of input `index` in two batches and ends it. key: fixes the values. */
static inline sap_status case_write(sap_dataset_writer *writer, size_t index, uint64_t key, int64_t entries,
                                    sap_error *err) {
    for (int half = 0; half < 2; half++) {
        sap_batch batch;
        case_batch(key, half * (entries / 2), half ? entries : entries / 2, &batch);
        sap_status status = sap_dataset_write(writer, index, &batch, err);
        sap_batch_release(&batch);
        if (status != SAP_OK)
            return status;
    }
    int64_t dropped[2] = {entries / 2, 0};
    return sap_dataset_end_input(writer, index, entries, dropped, err);
}

/* A fresh folder; remove it with case_remove. */
static inline char *case_folder(void) {
    char path[4096];
    return strdup(new_folder(path, sizeof path));
}

static inline void case_remove(char *folder) {
    assert_ok(sap_folder_remove(folder, err));
    free(folder);
}

static inline char *case_path(const char *folder, const char *name) {
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
    return path;
}

/* Whether Parquet can be tested: not where it is not built in, nor by the thread sanitizer, which cannot look into Arrow. */
static inline bool case_has_parquet(void) {
    const void *table;
#if defined(__SANITIZE_THREAD__)
    bool has = false;
#else
    bool has = true;
#endif
    has = has && sap_plugin_find("parquet", &table, NULL) == SAP_OK;
    if (!has)
        print_message("no Parquet here: only TFRecord is tested\n");
    return has;
}

#define assert_near(value, expected, tolerance)                                                                        \
    do {                                                                                                               \
        double case_value_ = (value), case_expected_ = (expected);                                                     \
        if (!(fabs(case_value_ - case_expected_) <= (tolerance)))                                                      \
            fail_msg("%s is %.17g, expected %.17g", #value, case_value_, case_expected_);                              \
    } while (0)

#endif
