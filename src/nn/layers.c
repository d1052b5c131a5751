/* The table of the classes of layers, and what several of them do. */
#include "nn_internal.h"

/* ---- Settings ------------------------------------------------------------------------------------------- */

sap_status sap_config_integer(const sap_layer *layer, const json_t *config, const char *key, int64_t least,
                              int64_t most, int64_t *out, sap_error *err) {
    const json_t *value = json_object_get(config, key);
    if (!json_is_integer(value))
        return sap_error_set(err, SAP_EFORMAT, "%s: needs an integer \"%s\"", layer->where, key);
    *out = json_integer_value(value);
    if (*out < least || *out > most)
        return sap_error_set(err, SAP_EFORMAT, "%s: \"%s\" is %lld, not between %lld and %lld", layer->where, key,
                             (long long)*out, (long long)least, (long long)most);
    return SAP_OK;
}

double sap_config_number(const json_t *config, const char *key, double standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_number(value) ? json_number_value(value) : standard;
}

bool sap_config_flag(const json_t *config, const char *key, bool standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : standard;
}

/* A list of dimensions; null and -1 become -1. skip: dimensions to leave out at the front. */
sap_status sap_config_shape(const sap_layer *layer, const json_t *list, size_t skip, sap_shape *out, sap_error *err) {
    if (!json_is_array(list) || json_array_size(list) < skip || json_array_size(list) - skip > SAP_RANK)
        return sap_error_set(err, SAP_EFORMAT, "%s: needs a shape of at most %d dimensions", layer->where, SAP_RANK);
    out->rank = (int32_t)(json_array_size(list) - skip);
    for (int32_t i = 0; i < out->rank; i++) {
        const json_t *item = json_array_get(list, (size_t)i + skip);
        out->dims[i] = json_is_integer(item) ? json_integer_value(item) : -1;
        if (out->dims[i] < -1 || out->dims[i] > SAP_TENSOR_MOST || (!json_is_integer(item) && !json_is_null(item)))
            return sap_error_set(err, SAP_EFORMAT, "%s: dimension %d of its shape makes no sense", layer->where, i);
    }
    return SAP_OK;
}

sap_status sap_build_same(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                          sap_error *err) {
    (void)layer;
    (void)count;
    (void)first;
    (void)err;
    *out = inputs[0];
    return SAP_OK;
}

/* For classes that work along the last axis. */
sap_status sap_build_last_axis(sap_layer *layer, const sap_shape *inputs, int32_t count, bool first, sap_shape *out,
                               sap_error *err) {
    if (layer->axis != -1 && layer->axis != inputs->rank)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: along axis %lld, which is not the last", layer->where,
                             (long long)layer->axis);
    return sap_build_same(layer, inputs, count, first, out, err);
}

/* ---- What several classes do ---------------------------------------------------------------------------- */

void sap_pass_on(const sap_call *call, bool add, const float *source, float *target, int64_t n) {
    if (add)
        call->pass->kernels->add(n, source, target);
    else
        memcpy(target, source, (size_t)n * sizeof *target);
}

void sap_activate(const sap_call *call, const float *z, float *y) {
    const sap_kernels *kernels = call->pass->kernels;
    const sap_activation *activation = &call->layer->activation;
    int64_t values = sap_shape_step_values(call->shape), last = sap_shape_last(call->shape);
    int64_t numbers = values * sap_call_columns(call);
    if (activation->kind == SAP_LINEAR || call->logits) {
        if (z != y)
            memcpy(y, z, (size_t)numbers * sizeof *y);
    } else if (activation->kind == SAP_SOFTMAX || activation->kind == SAP_LOG_SOFTMAX) {
        void (*along)(int64_t rows, int width, const float *z, float *a) =
            activation->kind == SAP_SOFTMAX ? kernels->softmax : sap_log_softmax;
        for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end;
             sap_block_next(call->y_steps, &b))
            for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += last * b.width)
                along(last, b.width, z + at, y + at);
    } else {
        kernels->activate(activation, z, y, numbers);
    }
}

void sap_activate_backward(const sap_call *call, const float *z) {
    const sap_kernels *kernels = call->pass->kernels;
    const sap_activation *activation = &call->layer->activation;
    int64_t values = sap_shape_step_values(call->shape), last = sap_shape_last(call->shape);
    if (activation->kind == SAP_LINEAR || call->logits)
        return;
    void (*along)(int64_t rows, int width, const float *a, float *d) =
        activation->kind == SAP_SOFTMAX ? kernels->softmax_gradient : sap_log_softmax_gradient;
    if (activation->kind == SAP_SOFTMAX || activation->kind == SAP_LOG_SOFTMAX)
        for (sap_block b = sap_block_first(call->pass, call->y_steps); b.step < b.end;
             sap_block_next(call->y_steps, &b))
            for (int64_t at = b.start * values, end = at + values * b.width; at < end; at += last * b.width)
                along(last, b.width, call->y + at, call->dy + at);
    else
        kernels->activate_gradient(activation, z, call->y, call->dy, values * sap_call_columns(call));
}

/* ---- The table ------------------------------------------------------------------------------------------ */

/* Each family of classes stands in a file of its own. */
/* clang-format off */
extern const sap_layer_class
    /* layers_dense.c */
    sap_class_input, sap_class_dense, sap_class_activation, sap_class_relu, sap_class_leaky_relu, sap_class_elu,
    sap_class_softmax, sap_class_dropout,
    /* layers_merge.c */
    sap_class_concatenate, sap_class_add,
    /* layers_shape.c */
    sap_class_flatten, sap_class_reshape, sap_class_masking,
    /* layers_recurrent.c */
    sap_class_simple_rnn, sap_class_gru, sap_class_lstm, sap_class_bidirectional,
    /* layers_normalization.c */
    sap_class_batch_normalization,
    /* layers_attention.c */
    sap_class_multi_head_attention,
    /* layers_layer_normalization.c */
    sap_class_layer_normalization,
    /* layers_convolution.c */
    sap_class_conv1d,
    /* layers_pooling.c */
    sap_class_global_average_pooling_1d, sap_class_global_max_pooling_1d, sap_class_average_pooling_1d,
    sap_class_max_pooling_1d,
    /* layers_combine.c */
    sap_class_subtract, sap_class_multiply, sap_class_average, sap_class_maximum, sap_class_minimum,
    /* layers_noise.c */
    sap_class_gaussian_noise, sap_class_gaussian_dropout, sap_class_alpha_dropout, sap_class_spatial_dropout_1d,
    /* layers_rearrange.c */
    sap_class_permute, sap_class_repeat_vector, sap_class_cropping_1d, sap_class_zero_padding_1d,
    /* layers_slope.c */
    sap_class_prelu;

static const sap_layer_class *const classes[] = {
    &sap_class_input,
    &sap_class_dense,
    &sap_class_activation,
    &sap_class_relu,
    &sap_class_leaky_relu,
    &sap_class_elu,
    &sap_class_softmax,
    &sap_class_dropout,
    &sap_class_concatenate,
    &sap_class_add,
    &sap_class_flatten,
    &sap_class_reshape,
    &sap_class_masking,
    &sap_class_simple_rnn,
    &sap_class_gru,
    &sap_class_lstm,
    &sap_class_bidirectional,
    &sap_class_batch_normalization,
    &sap_class_multi_head_attention,
    &sap_class_layer_normalization,
    &sap_class_conv1d,
    &sap_class_global_average_pooling_1d,
    &sap_class_global_max_pooling_1d,
    &sap_class_average_pooling_1d,
    &sap_class_max_pooling_1d,
    &sap_class_subtract,
    &sap_class_multiply,
    &sap_class_average,
    &sap_class_maximum,
    &sap_class_minimum,
    &sap_class_gaussian_noise,
    &sap_class_gaussian_dropout,
    &sap_class_alpha_dropout,
    &sap_class_spatial_dropout_1d,
    &sap_class_permute,
    &sap_class_repeat_vector,
    &sap_class_cropping_1d,
    &sap_class_zero_padding_1d,
    &sap_class_prelu,
};
/* clang-format on */
enum { CLASS_COUNT = sizeof classes / sizeof *classes };

const sap_layer_class *sap_layer_class_find(const char *name) {
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i]->name, name) == 0)
            return classes[i];
    return NULL;
}

void sap_layer_class_names(char *text, size_t capacity) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < CLASS_COUNT && used < capacity; i++)
        used += (size_t)snprintf(text + used, capacity - used, "%s%s", i ? ", " : "", classes[i]->name);
}

sap_layer_weight *sap_layer_add_weight(sap_layer *layer, const char *name, const sap_shape *shape,
                                       const sap_initializer *initializer, bool trainable) {
    sap_layer_weight *weight = &layer->weights[layer->weight_count++];
    *weight = (sap_layer_weight){
        .name = name,
        .shape = *shape,
        .initializer = *initializer,
        .trainable = trainable && layer->trainable,
    };
    return weight;
}
