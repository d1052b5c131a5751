/* Regularisers and constraints of weights: L1, L2, L1L2; MaxNorm, NonNeg, UnitNorm, MinMaxNorm. */
#include "regularizer.h"

/* The name and the settings of {"class_name", "config"}, or of a name alone. */
static const char *name_of(const json_t *config, const json_t **settings) {
    *settings = json_object_get(config, "config");
    return json_string_value(json_is_string(config) ? config : json_object_get(config, "class_name"));
}

static bool is_one_of(const char *name, const char *const *names) {
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

sap_status sap_regularizer_parse(const json_t *config, const char *where, double *l1, double *l2, sap_error *err) {
    static const char *const l1_names[] = {"L1", "l1", NULL}, *const l2_names[] = {"L2", "l2", NULL};
    static const char *const both_names[] = {"L1L2", "l1l2", "l1_l2", NULL};
    const json_t *settings;
    *l1 = *l2 = 0;
    if (!config || json_is_null(config))
        return SAP_OK;
    const char *name = name_of(config, &settings);
    if (!name)
        return sap_error_set(err, SAP_EFORMAT, "%s: a regularizer is neither a name nor an object", where);
    bool both = is_one_of(name, both_names);
    if (!both && !is_one_of(name, l1_names) && !is_one_of(name, l2_names))
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the regularizer \"%.100s\" is not supported", where, name);
    if (both || is_one_of(name, l1_names))
        *l1 = sap_config_number(settings, "l1", both ? 0 : 0.01);
    if (both || is_one_of(name, l2_names))
        *l2 = sap_config_number(settings, "l2", both ? 0 : 0.01);
    if (!(*l1 >= 0 && *l2 >= 0 && *l1 < 1e30 && *l2 < 1e30))
        return sap_error_set(err, SAP_EFORMAT, "%s: the regularizer %s with l1 %g, l2 %g", where, name, *l1, *l2);
    return SAP_OK;
}

/* The axes of a norm: a number or a list, 0 where none is given. */
static sap_status read_axes(const json_t *settings, int32_t rank, const char *where, uint32_t *axes, sap_error *err) {
    const json_t *axis = json_object_get(settings, "axis");
    size_t count = json_is_array(axis) ? json_array_size(axis) : 1;
    *axes = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(axis) ? json_array_get(axis, i) : axis;
        json_int_t at = json_is_integer(one) ? json_integer_value(one) : 0;
        at += at < 0 ? rank : 0;
        if (at < 0 || at >= rank)
            return sap_error_set(err, SAP_EFORMAT, "%s: a constraint along axis %lld of %d", where,
                                 (long long)json_integer_value(one), rank);
        *axes |= UINT32_C(1) << at;
    }
    return SAP_OK;
}

sap_status sap_constraint_parse(const json_t *config, int32_t rank, const char *where, sap_constraint *out,
                                sap_error *err) {
    static const struct {
        const char *name, *alias;
        sap_constraint_kind kind;
        const char *most; /* the setting that holds it */
        double standard;
    } table[] = {{"MaxNorm", "max_norm", SAP_CONSTRAINT_MAX_NORM, "max_value", 2},
                 {"NonNeg", "non_neg", SAP_CONSTRAINT_NON_NEGATIVE, "", 0},
                 {"UnitNorm", "unit_norm", SAP_CONSTRAINT_UNIT_NORM, "", 1},
                 {"MinMaxNorm", "min_max_norm", SAP_CONSTRAINT_MIN_MAX_NORM, "max_value", 1}};
    const json_t *settings;
    *out = (sap_constraint){0};
    if (!config || json_is_null(config))
        return SAP_OK;
    const char *name = name_of(config, &settings);
    if (!name)
        return sap_error_set(err, SAP_EFORMAT, "%s: a constraint is neither a name nor an object", where);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].name, name) != 0 && strcmp(table[i].alias, name) != 0)
            continue;
        out->kind = table[i].kind;
        out->most = sap_config_number(settings, table[i].most, table[i].standard);
        out->least = sap_config_number(settings, "min_value", 0);
        out->rate = sap_config_number(settings, "rate", 1);
        if (!(out->least >= 0 && out->most >= out->least && out->rate >= 0 && out->rate <= 1))
            return sap_error_set(err, SAP_EFORMAT, "%s: the constraint %s with bounds %g and %g, rate %g", where, name,
                                 out->least, out->most, out->rate);
        return read_axes(settings, rank, where, &out->axes, err);
    }
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: the constraint \"%.100s\" is not supported", where, name);
}

/* The config that speaks of a weight: of Bidirectional, that of the inner layer. */
static const json_t *config_of(const sap_layer_weight *weight, const json_t *config) {
    const char *const inner[][2] = {{"forward_layer", "layer"}, {"backward_layer", "backward_layer"}};
    for (int i = 0; weight->group && i < 2; i++) {
        if (strncmp(weight->group, inner[i][0], strlen(inner[i][0])) != 0)
            continue;
        const json_t *layer = json_object_get(config, inner[i][1]);
        if (!layer) /* no layer of its own: as forward */
            layer = json_object_get(config, "layer");
        return json_object_get(layer, "config");
    }
    return config;
}

static const json_t *setting_of(const sap_layer_weight *weight, const json_t *config, const char *what) {
    char key[80];
    bool recurrent = strcmp(weight->name, "recurrent_kernel") == 0;
    (void)snprintf(key, sizeof key, "%s_%s", recurrent ? "recurrent" : weight->name, what);
    return json_object_get(config_of(weight, config), key);
}

/* Keeps the message of what stands in the way of training. */
static sap_status refuse_training(sap_model *model, sap_status status, const char *message, sap_error *err) {
    if (status == SAP_EUNSUPPORTED && !model->untrainable) {
        model->untrainable = sap_arena_format(&model->arena, "%s", message);
        if (!model->untrainable)
            return sap_error_memory(err, model->name);
    }
    return status == SAP_EUNSUPPORTED ? SAP_OK : sap_error_set(err, status, "%s", message);
}

/* Of a layer of one input; padding is among what it looks at. */
static sap_status read_activity(sap_model *model, sap_layer *layer, const json_t *config, sap_error *err) {
    sap_error own = {0};
    const json_t *inner = json_object_get(json_object_get(config, "layer"), "config"), *activity;
    activity = json_object_get(inner, "activity_regularizer");
    bool wrapped = activity && !json_is_null(activity);
    if (!wrapped)
        activity = json_object_get(config, "activity_regularizer");
    if (!activity || json_is_null(activity))
        return SAP_OK;
    if (wrapped || layer->class_of->inputs_most != 1 || layer->class_of->view) {
        (void)sap_error_set(&own, SAP_EUNSUPPORTED, "%s: an \"activity_regularizer\"", layer->where);
        return refuse_training(model, SAP_EUNSUPPORTED, own.message, err);
    }
    sap_status status = sap_regularizer_parse(activity, layer->where, &layer->activity_l1, &layer->activity_l2, &own);
    layer->padding = SAP_PADDING_ALWAYS;
    return status == SAP_OK ? SAP_OK : refuse_training(model, status, own.message, err);
}

sap_status sap_penalties_read(sap_model *model, sap_layer *layer, const json_t *config, sap_error *err) {
    sap_error own = {0};
    for (int32_t i = 0; i < layer->weight_count; i++) {
        sap_layer_weight *weight = &layer->weights[i];
        sap_status status = sap_regularizer_parse(setting_of(weight, config, "regularizer"), layer->where, &weight->l1,
                                                  &weight->l2, &own);
        if (status == SAP_OK)
            status = sap_constraint_parse(setting_of(weight, config, "constraint"), weight->shape.rank, layer->where,
                                          &weight->constraint, &own);
        if (status != SAP_OK)
            SAP_TRY(refuse_training(model, status, own.message, err));
    }
    return read_activity(model, layer, config, err);
}
