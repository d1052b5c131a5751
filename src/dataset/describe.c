/* dataset.json: all that a dataset says about itself, in a fixed order of keys and without a time of its own. */
#include "dataset_internal.h"

#include <stdlib.h>

const char *sap_layout_name(sap_dataset_layout layout) {
    static const char *const names[] = {"sapwood", "raw", "published", "files"};
    return names[layout];
}

const char *sap_format_name(sap_dataset_format format) {
    static const char *const names[] = {"parquet", "tfrecord", "arrow"};
    return names[format];
}

json_t *sap_feature_json(const sap_feature *f) {
    static const char *const scalings[] = {"none", "minmax", "standard", "standard_event"};
    json_t *names = json_array();
    for (int32_t j = 0; j < f->width; j++)
        json_array_append_new(names, json_string(f->value_names[j]));
    return json_pack("{s:s, s:i, s:o, s:b, s:s, s:s, s:s, s:i, s:i, s:i, s:b}", "name", f->name, "width", (int)f->width,
                     "values", names, "sequence", (int)f->sequence, "scaling", scalings[f->scaling], "fit",
                     f->fit_before_split ? "selected" : "train", "order",
                     f->order == SAP_ORDER_NONE ? "none" : "falling_delta_r", "eta_index", (int)f->eta_index,
                     "phi_index", (int)f->phi_index, "pad_rows", (int)f->pad_rows, "pad_before_order",
                     (int)f->pad_before_order);
}

static json_t *describe_constants(const sap_constants *constants, const sap_moments *moments) {
    json_t *shift = json_array(), *factor = json_array();
    for (int32_t j = 0; j < constants->width; j++) {
        json_array_append_new(shift, json_real(constants->shift[j]));
        json_array_append_new(factor, json_real(constants->factor[j]));
    }
    return json_pack("{s:I, s:o, s:o}", "rows", (json_int_t)moments->rows, "shift", shift, "factor", factor);
}

static json_t *describe_features(const sap_build *build) {
    const sap_dataset_plan *plan = &build->writer->plan;
    json_t *features = json_array();
    for (size_t f = 0; f < plan->feature_count; f++) {
        json_t *feature = sap_feature_json(&plan->features[f]);
        bool fitted = build->constants && build->constants[f].width > 0;
        json_object_set_new(feature, "constants",
                            fitted ? describe_constants(&build->constants[f], &build->moments[f]) : json_null());
        json_array_append_new(features, feature);
    }
    return features;
}

static void add_step(json_t *steps, const char *name, int64_t events) {
    json_array_append_new(steps, json_pack("{s:s, s:I}", "step", name, "events", (json_int_t)events));
}

static int64_t kept_in(const sap_build *build, size_t label, size_t begin, size_t end) {
    int64_t rows = 0;
    for (size_t b = begin; b < end; b++)
        rows += build->kept[b * build->writer->label_count + label];
    return rows;
}

/* How many events of a sample are left after each step. */
static json_t *describe_selection(const sap_build *build) {
    const sap_dataset_writer *w = build->writer;
    json_t *selection = json_array();
    for (size_t k = 0; k < w->label_count; k++) {
        json_t *steps = json_array();
        int64_t left = 0;
        for (size_t i = 0; i < w->plan.input_count; i++)
            left += w->inputs[i].label == (int32_t)k ? w->inputs[i].read : 0;
        add_step(steps, "read", left);
        for (size_t c = 0; c < w->plan.cut_count; c++) {
            for (size_t i = 0; i < w->plan.input_count; i++)
                left -= w->inputs[i].label == (int32_t)k ? w->inputs[i].dropped[c] : 0;
            add_step(steps, w->plan.cuts[c], left);
        }
        add_step(steps, "selected", left);
        if (build->kept) {
            add_step(steps, "balanced", kept_in(build, k, 0, SAP_BUCKETS));
            add_step(steps, "train", kept_in(build, k, 0, SAP_DATASET_SHARDS));
            add_step(steps, "test", kept_in(build, k, SAP_DATASET_SHARDS, SAP_BUCKETS));
        }
        json_array_append_new(selection, json_pack("{s:s, s:o}", "sample", w->labels[k], "steps", steps));
    }
    return selection;
}

static json_t *describe_inputs(const sap_dataset_writer *w) {
    json_t *inputs = json_array();
    for (size_t i = 0; i < w->plan.input_count; i++) {
        const sap_spooled *s = &w->inputs[i];
        json_array_append_new(inputs, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "sample", s->sample, "url", s->url,
                                                "size", (json_int_t)s->size, "mtime_ns", (json_int_t)s->mtime_ns,
                                                "read", (json_int_t)s->read, "selected", (json_int_t)s->selected));
    }
    return inputs;
}

/* The files of one part: "train/part-00000.parquet", … */
static void add_pieces(json_t *parts, const char *folder, const char *name, size_t number, const char *ending,
                       const char *split, size_t shard, const sap_pieces *pieces) {
    char stem[256];
    (void)snprintf(stem, sizeof stem, "%s%s%05zu", folder, name, number);
    for (size_t i = 0; i < pieces->count; i++) {
        char *path = sap_piece_path(stem, ending, i);
        json_array_append_new(parts, json_pack("{s:s, s:s, s:I, s:I, s:I}", "file", path ? path : "", "split", split,
                                               "shard", (json_int_t)shard, "rows", (json_int_t)pieces->items[i].rows,
                                               "bytes", (json_int_t)pieces->items[i].bytes));
        free(path);
    }
}

static json_t *describe_parts(const sap_build *build) {
    const sap_dataset_writer *w = build->writer;
    json_t *parts = json_array();
    if (w->plan.layout == SAP_LAYOUT_RAW)
        for (size_t i = 0; i < w->plan.input_count; i++)
            add_pieces(parts, "", "part-", i, sap_part_ending(w->plan.format), "all", 0, &w->inputs[i].pieces);
    for (size_t o = 0; o < build->output_count; o++) {
        const sap_output *output = &build->outputs[o];
        for (size_t b = 0; b < SAP_BUCKETS; b++) {
            char folder[256];
            (void)snprintf(folder, sizeof folder, "%s/", output->folders[b / SAP_DATASET_SHARDS]);
            add_pieces(parts, folder, output->part, b % SAP_DATASET_SHARDS, output->ending,
                       b < SAP_DATASET_SHARDS ? "train" : "test", b % SAP_DATASET_SHARDS, &output->pieces[b]);
        }
    }
    return parts;
}

char *sap_dataset_description(const sap_build *build) {
    const sap_dataset_writer *w = build->writer;
    const sap_dataset_plan *plan = &w->plan;
    json_t *labels = json_array();
    for (size_t k = 0; k < w->label_count; k++)
        json_array_append_new(labels, json_string(w->labels[k]));
    json_t *json =
        json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s?, s:I, s:f, s:b, s:o, s:o, s:o, s:o, s:o}", "format_version",
                  SAP_DATASET_FORMAT_VERSION, "sapwood_version", sap_version(), "layout", sap_layout_name(plan->layout),
                  "format", sap_format_name(plan->format), "recipe", plan->recipe, "recipe_version",
                  plan->recipe_version, "convention", plan->convention, "seed", (json_int_t)plan->seed, "test_fraction",
                  plan->test_fraction, "balance", plan->balance, "labels", labels, "features", describe_features(build),
                  "selection", describe_selection(build), "inputs", describe_inputs(w), "parts", describe_parts(build));
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    return text;
}

sap_status sap_dataset_describe(const sap_build *build, const char *path, sap_error *err) {
    char *text = sap_dataset_description(build);
    sap_status status = text ? sap_file_store(path, text, strlen(text), err) : sap_error_memory(err, path);
    free(text);
    return status;
}
