/* Initial weights as Keras' initialisers describe them, from counter-based random numbers.
 *
 * The distributions are Keras'; the numbers are our own, the same on every machine for the same seed.
 */
#include "nn_internal.h"

#include <math.h>
#include <stdlib.h>

/* ---- Reading -------------------------------------------------------------------------------------------- */

static const struct {
    const char *class_name, *alias;
    sap_initializer initializer;
} table[] = {
    {"Zeros", "zeros", {SAP_INIT_CONSTANT, 0, 0, 0, 0}},
    {"Ones", "ones", {SAP_INIT_CONSTANT, 1, 0, 0, 0}},
    {"Constant", "constant", {SAP_INIT_CONSTANT, 0, 0, 0, 0}},
    {"RandomNormal", "random_normal", {SAP_INIT_NORMAL, 0, 0.05, 0, 0}},
    {"RandomUniform", "random_uniform", {SAP_INIT_UNIFORM, -0.05, 0.05, 0, 0}},
    {"TruncatedNormal", "truncated_normal", {SAP_INIT_TRUNCATED_NORMAL, 0, 0.05, 0, 0}},
    {"VarianceScaling", "variance_scaling", {SAP_INIT_VARIANCE_SCALING, 1, 0, SAP_FAN_IN, SAP_INIT_TRUNCATED_NORMAL}},
    {"GlorotUniform", "glorot_uniform", {SAP_INIT_VARIANCE_SCALING, 1, 0, SAP_FAN_AVERAGE, SAP_INIT_UNIFORM}},
    {"GlorotNormal", "glorot_normal", {SAP_INIT_VARIANCE_SCALING, 1, 0, SAP_FAN_AVERAGE, SAP_INIT_TRUNCATED_NORMAL}},
    {"HeUniform", "he_uniform", {SAP_INIT_VARIANCE_SCALING, 2, 0, SAP_FAN_IN, SAP_INIT_UNIFORM}},
    {"HeNormal", "he_normal", {SAP_INIT_VARIANCE_SCALING, 2, 0, SAP_FAN_IN, SAP_INIT_TRUNCATED_NORMAL}},
    {"LecunUniform", "lecun_uniform", {SAP_INIT_VARIANCE_SCALING, 1, 0, SAP_FAN_IN, SAP_INIT_UNIFORM}},
    {"LecunNormal", "lecun_normal", {SAP_INIT_VARIANCE_SCALING, 1, 0, SAP_FAN_IN, SAP_INIT_TRUNCATED_NORMAL}},
    {"Orthogonal", "orthogonal", {SAP_INIT_ORTHOGONAL, 1, 0, 0, 0}},
    {"OrthogonalInitializer", "orthogonal_initializer", {SAP_INIT_ORTHOGONAL, 1, 0, 0, 0}},
    {"Identity", "identity", {SAP_INIT_IDENTITY, 1, 0, 0, 0}},
    {"IdentityInitializer", "identity_initializer", {SAP_INIT_IDENTITY, 1, 0, 0, 0}},
};
enum { COUNT = sizeof table / sizeof *table };

static const char *name_at(const void *context, size_t index) {
    (void)context;
    return table[index].class_name;
}

/* Overwrites *value with the number under `key`, when there is one. */
static void read_number(const json_t *settings, const char *key, double *value) {
    const json_t *number = json_object_get(settings, key);
    if (json_is_number(number))
        *value = json_number_value(number);
}

static sap_status read_scaling(const json_t *settings, const char *where, sap_initializer *out, sap_error *err) {
    read_number(settings, "scale", &out->a);
    const char *mode = json_string_value(json_object_get(settings, "mode"));
    const char *distribution = json_string_value(json_object_get(settings, "distribution"));
    if (mode) {
        if (strcmp(mode, "fan_in") == 0)
            out->mode = SAP_FAN_IN;
        else if (strcmp(mode, "fan_out") == 0)
            out->mode = SAP_FAN_OUT;
        else if (strcmp(mode, "fan_avg") == 0)
            out->mode = SAP_FAN_AVERAGE;
        else
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: VarianceScaling with mode \"%.50s\"", where, mode);
    }
    if (distribution) {
        if (strcmp(distribution, "uniform") == 0)
            out->distribution = SAP_INIT_UNIFORM;
        else if (strcmp(distribution, "untruncated_normal") == 0)
            out->distribution = SAP_INIT_NORMAL;
        else if (strcmp(distribution, "truncated_normal") == 0 || strcmp(distribution, "normal") == 0)
            out->distribution = SAP_INIT_TRUNCATED_NORMAL;
        else
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: VarianceScaling with distribution \"%.50s\"", where,
                                 distribution);
    }
    if (!(out->a > 0))
        return sap_error_set(err, SAP_EFORMAT, "%s: VarianceScaling with scale %g", where, out->a);
    return SAP_OK;
}

static sap_status read_settings(const json_t *settings, const char *where, sap_initializer *out, sap_error *err) {
    switch (out->kind) {
    case SAP_INIT_CONSTANT:
        read_number(settings, "value", &out->a);
        break;
    case SAP_INIT_NORMAL:
    case SAP_INIT_TRUNCATED_NORMAL:
        read_number(settings, "mean", &out->a);
        read_number(settings, "stddev", &out->b);
        break;
    case SAP_INIT_UNIFORM:
        read_number(settings, "minval", &out->a);
        read_number(settings, "maxval", &out->b);
        break;
    case SAP_INIT_VARIANCE_SCALING:
        return read_scaling(settings, where, out, err);
    case SAP_INIT_ORTHOGONAL:
    case SAP_INIT_IDENTITY:
        read_number(settings, "gain", &out->a);
        break;
    }
    return SAP_OK;
}

sap_status sap_initializer_parse(const json_t *config, const char *standard, const char *where, sap_initializer *out,
                                 sap_error *err) {
    const char *name = standard;
    const json_t *settings = NULL;
    if (json_is_string(config)) {
        name = json_string_value(config);
    } else if (config && !json_is_null(config)) {
        name = json_string_value(json_object_get(config, "class_name"));
        settings = json_object_get(config, "config");
        if (!name)
            return sap_error_set(err, SAP_EFORMAT, "%s: initializer is neither a name nor an object", where);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(table[i].class_name, name) == 0 || strcmp(table[i].alias, name) == 0) {
            *out = table[i].initializer;
            return read_settings(settings, where, out, err);
        }
    }
    char nearest[300];
    sap_text_nearest(name, COUNT, name_at, NULL, nearest, sizeof nearest);
    return sap_error_set(err, SAP_EUNSUPPORTED, "%s: initializer \"%.100s\" is not supported%s", where, name, nearest);
}

/* ---- Drawing -------------------------------------------------------------------------------------------- */

/* Number `index` of the normal distribution (Box and Muller's method). */
static double normal(uint64_t key, uint64_t index) {
    double u = 1 - sap_unit(sap_mix(key, 2 * index)), phase = sap_unit(sap_mix(key, 2 * index + 1));
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * phase);
}

static double draw(sap_initializer_kind kind, double a, double b, uint64_t key, uint64_t index) {
    if (kind == SAP_INIT_UNIFORM)
        return a + (b - a) * sap_unit(sap_mix(key, index));
    if (kind == SAP_INIT_NORMAL)
        return a + b * normal(key, index);
    uint64_t own = sap_mix(key, index), attempt = 0;
    double x = normal(own, attempt++);
    while (fabs(x) > 2)
        x = normal(own, attempt++);
    return a + b * x;
}

static void fill(sap_initializer_kind kind, double a, double b, uint64_t key, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)draw(kind, a, b, key, (uint64_t)i);
}

static void fill_scaled(const sap_initializer *p, int32_t rank, const int64_t *shape, uint64_t key, int64_t count,
                        float *values) {
    double field = 1; /* of a convolution */
    for (int32_t i = 0; i + 2 < rank; i++)
        field *= (double)shape[i];
    double in = rank >= 2 ? field * (double)shape[rank - 2] : rank == 1 ? (double)shape[0] : 1;
    double out = rank >= 2 ? field * (double)shape[rank - 1] : in;
    double fan = p->mode == SAP_FAN_IN ? in : p->mode == SAP_FAN_OUT ? out : (in + out) / 2;
    double variance = p->a / fmax(1, fan);
    if (p->distribution == SAP_INIT_UNIFORM)
        fill(SAP_INIT_UNIFORM, -sqrt(3 * variance), sqrt(3 * variance), key, count, values);
    else /* 0.8796…: deviation of a normal distribution cut at two of its deviations */
        fill(p->distribution, 0, sqrt(variance) / (p->distribution == SAP_INIT_NORMAL ? 1 : 0.87962566103423978), key,
             count, values);
}

/* A random matrix with orthonormal columns (or rows, when there are fewer of those): Gram and Schmidt's method,
 * twice, on normal vectors, which is QR with a positive diagonal. */
static sap_status fill_orthogonal(double gain, int64_t rows, int64_t columns, uint64_t key, float *values,
                                  sap_error *err) {
    int64_t length = rows > columns ? rows : columns, count = rows > columns ? columns : rows;
    double *q = malloc((size_t)(length * count) * sizeof *q);
    if (!q)
        return sap_error_memory(err, "orthogonal initializer");
    for (int64_t i = 0; i < length * count; i++)
        q[i] = normal(key, (uint64_t)i);
    for (int64_t i = 0; i < count; i++) {
        double *own = q + i * length, square = 0;
        for (int64_t j = 0; j < 2 * i; j++) { /* once more for the rounding of the first time */
            const double *other = q + (j % i) * length;
            double dot = 0;
            for (int64_t k = 0; k < length; k++)
                dot += own[k] * other[k];
            for (int64_t k = 0; k < length; k++)
                own[k] -= dot * other[k];
        }
        for (int64_t k = 0; k < length; k++)
            square += own[k] * own[k];
        double factor = 1 / sqrt(square);
        for (int64_t k = 0; k < length; k++)
            own[k] *= factor;
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            values[r * columns + c] = (float)(gain * (rows > columns ? q[c * length + r] : q[r * length + c]));
    free(q);
    return SAP_OK;
}

sap_status sap_initializer_run(const sap_initializer *p, int32_t rank, const int64_t *shape, uint64_t key,
                               float *values, sap_error *err) {
    int64_t count = 1;
    for (int32_t i = 0; i < rank; i++)
        count *= shape[i];
    int64_t columns = rank ? shape[rank - 1] : 1;
    switch (p->kind) {
    case SAP_INIT_CONSTANT:
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)p->a;
        break;
    case SAP_INIT_NORMAL:
    case SAP_INIT_TRUNCATED_NORMAL:
    case SAP_INIT_UNIFORM:
        fill(p->kind, p->a, p->b, key, count, values);
        break;
    case SAP_INIT_VARIANCE_SCALING:
        fill_scaled(p, rank, shape, key, count, values);
        break;
    case SAP_INIT_ORTHOGONAL:
        if (rank < 2)
            return sap_error_set(err, SAP_EARGUMENT, "the initializer Orthogonal needs at least two dimensions");
        return count ? fill_orthogonal(p->a, count / columns, columns, key, values, err) : SAP_OK;
    case SAP_INIT_IDENTITY:
        if (rank != 2)
            return sap_error_set(err, SAP_EARGUMENT, "the initializer Identity needs two dimensions");
        for (int64_t i = 0; i < count; i++)
            values[i] = i / columns == i % columns ? (float)p->a : 0;
        break;
    }
    return SAP_OK;
}
