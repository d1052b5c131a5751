/* Where events stand that others hold, and constants of their features: by the same hashes and sums as in sap_dataset_finish. */
#include "dataset_internal.h"

#include <stdlib.h>

static sap_status copy_name(const char *from, int64_t length, const char *what, char *to, size_t capacity,
                            sap_error *err) {
    if (length < 0 || (size_t)length >= capacity)
        return sap_error_set(err, SAP_EDATA, "an event's %s has %lld bytes; at most %zu fit", what, (long long)length,
                             capacity - 1);
    memcpy(to, from, (size_t)length);
    to[length] = '\0';
    return SAP_OK;
}

sap_status sap_event_places(const sap_event_names *names, uint64_t seed, double test_fraction, uint64_t *order,
                            bool *test, sap_error *err) {
    uint64_t split_key = sap_mix(seed, SAP_SALT_SPLIT), order_key = sap_mix(seed, SAP_SALT_ORDER);
    char sample[1024], url[4096], file[1024];
    for (int64_t i = 0; i < names->count; i++) {
        const int64_t *s = &names->sample_offsets[i], *f = &names->file_offsets[i];
        SAP_TRY(copy_name(names->samples + s[0], s[1] - s[0], "sample", sample, sizeof sample, err));
        SAP_TRY(copy_name(names->files + f[0], f[1] - f[0], "file", url, sizeof url, err));
        size_t length;
        const char *base = sap_text_base_name(url, &length);
        SAP_TRY(copy_name(base, (int64_t)length, "file", file, sizeof file, err));
        uint64_t identity = sap_identity(sample, file, names->entry[i]);
        order[i] = sap_mix(order_key, identity);
        test[i] = sap_unit(sap_mix(split_key, identity)) < test_fraction;
    }
    return SAP_OK;
}

static void point(sap_moments *moments, int64_t rows, double *data, int32_t width) {
    size_t n = (size_t)width;
    *moments = (sap_moments){rows, data, data + n, data + 2 * n, data + 3 * n};
}

sap_status sap_event_moments(const float *values, int64_t rows, int32_t width, double *out, sap_error *err) {
    if (width < 1 || rows < 0)
        return sap_error_set(err, SAP_EARGUMENT, "moments of %lld rows of %d values", (long long)rows, (int)width);
    sap_moments moments;
    point(&moments, rows, out, width);
    sap_moments_fill(&moments, width, &values, &rows, 1);
    return SAP_OK;
}

sap_status sap_event_constants(sap_scaling scaling, const int64_t *rows, const double *moments, size_t count,
                               int32_t width, double *shift, double *factor, sap_error *err) {
    sap_arena arena = {0};
    sap_moments all = {0}, one;
    sap_status status = width > 0 ? sap_moments_init(&all, width, &arena, err)
                                  : sap_error_set(err, SAP_EARGUMENT, "constants of %d values", (int)width);
    for (size_t i = 0; i < count && status == SAP_OK; i++) {
        point(&one, rows[i], (double *)(uintptr_t)moments + i * 4 * (size_t)width, width);
        sap_moments_merge(&all, &one, width);
    }
    if (status == SAP_OK)
        sap_constants_fit(scaling, &all, &(sap_constants){width, shift, factor});
    sap_arena_release(&arena);
    return status;
}
