/* The history of a training: names, values by epoch, and its CSV form. */
#include "history.h"
#include "../base/numbers.h"

#include <math.h>
#include <stdlib.h>

void sap_history_name(const sap_model *model, bool validation, int32_t output, const char *what, char *out,
                      size_t capacity) {
    bool several = output >= 0 && model->output_count > 1;
    (void)snprintf(out, capacity, "%s%s%s%s", validation ? "val_" : "", several ? model->output_info[output].name : "",
                   several ? "_" : "", what);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool put_name(sap_history *history, const char *name) {
    for (int32_t i = 0; i < history->count; i++)
        if (strcmp(history->names[i], name) == 0)
            return true;
    history->names[history->count] = strdup(name);
    return history->names[history->count++] != NULL;
}

sap_status sap_history_init(const sap_model *model, const sap_loss *losses, bool auc, bool validation, sap_history *out,
                            sap_error *err) {
    sap_history_release(out);
    out->names = calloc(2 * (1 + 3 * (size_t)model->output_count) + 1, sizeof *out->names);
    bool made = out->names != NULL;
    for (int val = 0; made && val <= (int)validation; val++) {
        char name[300];
        int32_t first = out->count;
        made = put_name(out, val ? "val_loss" : "loss");
        for (int32_t o = 0; made && o < model->output_count; o++) {
            static const char *const what[] = {"loss", "accuracy", "auc"};
            const bool wanted[] = {true, sap_loss_takes_logits(losses[o].kind), auc};
            for (int k = 0; made && losses[o].kind != SAP_LOSS_NONE && k < 3; k++) {
                sap_history_name(model, val, o, what[k], name, sizeof name);
                made = !wanted[k] || put_name(out, name);
            }
        }
        if (made)
            qsort(out->names + first, (size_t)(out->count - first), sizeof *out->names, by_name);
    }
    if (made)
        made = put_name(out, "learning_rate");
    return made ? SAP_OK : sap_error_memory(err, "history");
}

void sap_history_release(sap_history *history) {
    for (int32_t i = 0; history->names && i < history->count; i++)
        free(history->names[i]);
    free(history->names);
    free(history->values);
    free(history->seconds);
    free(history->ended);
    *history = (sap_history){0};
}

int32_t sap_history_find(const sap_history *history, const char *name) {
    for (int32_t i = 0; i < history->count; i++)
        if (strcmp(history->names[i], name) == 0)
            return i;
    return -1;
}

double sap_history_value(const sap_history *history, int64_t epoch, const char *name) {
    int32_t i = sap_history_find(history, name);
    return i < 0 || epoch < 0 || epoch >= history->epochs ? (double)NAN : history->values[epoch * history->count + i];
}

static bool enlarge(double **array, int64_t count) {
    double *grown = realloc(*array, (size_t)count * sizeof **array);
    if (grown)
        *array = grown;
    return grown != NULL;
}

sap_status sap_history_grow(sap_history *history, sap_error *err) {
    int64_t epochs = history->epochs + 1;
    if (!enlarge(&history->values, epochs * history->count) || !enlarge(&history->seconds, epochs) ||
        !enlarge(&history->ended, epochs))
        return sap_error_memory(err, "history");
    for (int32_t i = 0; i < history->count; i++)
        history->values[history->epochs * history->count + i] = (double)NAN;
    history->seconds[history->epochs] = history->ended[history->epochs] = 0;
    history->epochs = epochs;
    return SAP_OK;
}

void sap_history_set(sap_history *history, const char *name, double value) {
    int32_t i = sap_history_find(history, name);
    if (i >= 0)
        history->values[(history->epochs - 1) * history->count + i] = value;
}

/* ---- CSV ------------------------------------------------------------------------------------------------ */

static void put_number(sap_text *text, double value) {
    char digits[SAP_REAL_TEXT];
    sap_real_shortest(digits, value, false);
    sap_text_add(text, ",%s", digits);
}

sap_status sap_history_csv(const sap_history *history, const char *path, sap_error *err) {
    sap_text text = {0};
    size_t count = (size_t)history->count;
    char **names = calloc(count + 1, sizeof *names);
    if (!names)
        return sap_error_memory(err, path);
    memcpy(names, history->names, count * sizeof *names);
    qsort(names, count, sizeof *names, by_name);
    sap_text_add(&text, "epoch");
    for (size_t i = 0; i < count; i++)
        sap_text_add(&text, ",%s", names[i]);
    for (int64_t e = 0; e < history->epochs; e++) {
        sap_text_add(&text, "\r\n%lld", (long long)(history->first + e)); /* from 0, as Keras counts */
        for (size_t i = 0; i < count; i++) {
            double value = sap_history_value(history, e, names[i]);
            if (isnan(value))
                sap_text_add(&text, ",NA");
            else
                put_number(&text, value);
        }
    }
    sap_text_add(&text, "\r\n");
    sap_status status = text.failed ? sap_error_memory(err, path) : sap_file_store(path, text.data, text.length, err);
    sap_text_release(&text);
    free(names);
    return status;
}
