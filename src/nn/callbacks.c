/* The callbacks: a table of what each does when. Their decisions are those of Keras 3.15. */
#include "callbacks.h"

#include <math.h>
#include <stdlib.h>

enum { CALLBACKS_MOST = 32 };

typedef sap_status callback_step(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err);

typedef struct callback_class {
    const char *name;
    bool monitors, writes;
    double min_delta; /* what 0 stands for */
    callback_step *begin, *epoch_begin, *epoch_end, *finish;
} callback_class;

/* ---- Monitoring ----------------------------------------------------------------------------------------- */

/* NaN: not measured in this epoch. */
static double monitored(const sap_callbacks *all, const sap_callback_state *own) {
    return sap_history_value(all->history, all->history->epochs - 1, own->settings.monitor);
}

static bool is_better(const sap_callback_state *own, double value, double than) {
    double delta = own->settings.min_delta;
    return own->sign > 0 ? value - delta > than : value + delta < than;
}

static bool improves(const sap_callback_state *own, double value) {
    return !own->has_best || is_better(own, value, own->best);
}

static void keep_best(sap_callback_state *own, double value, int64_t epoch) {
    own->has_best = true;
    own->best = value;
    own->best_epoch = epoch;
}

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* ---- Early stopping ------------------------------------------------------------------------------------- */

static sap_status keep_weights(const sap_callbacks *all, sap_callback_state *own, sap_error *err) {
    size_t bytes = (size_t)all->model->value_count * sizeof(float);
    if (!own->settings.restore_best_weights)
        return SAP_OK;
    if (!own->best_weights && !(own->best_weights = malloc(bytes + 1)))
        return sap_error_memory(err, "best weights");
    memcpy(own->best_weights, all->model->values, bytes);
    return SAP_OK;
}

static sap_status stop_early(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    double value = monitored(all, own);
    if (isnan(value) || epoch < own->settings.start_from_epoch)
        return SAP_OK;
    if (own->settings.restore_best_weights && !own->best_weights) {
        SAP_TRY(keep_weights(all, own, err));
        own->best_epoch = epoch;
    }
    own->wait++;
    if (improves(own, value)) {
        keep_best(own, value, epoch);
        if (!own->settings.has_baseline || is_better(own, value, own->settings.baseline))
            own->wait = 0;
        return keep_weights(all, own, err);
    }
    if (own->wait >= own->settings.patience && epoch > 0) {
        all->stop = true;
        (void)snprintf(all->note, sizeof all->note,
                       "early stopping: %s was best in epoch %lld; weights are those of that epoch",
                       own->settings.monitor, (long long)own->best_epoch + 1);
        if (!own->settings.restore_best_weights)
            *strchr(all->note, ';') = '\0';
    }
    return SAP_OK;
}

static sap_status restore_best(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)epoch;
    (void)err;
    if (own->best_weights)
        memcpy(all->model->values, own->best_weights, (size_t)all->model->value_count * sizeof(float));
    return SAP_OK;
}

/* ---- Learning rates ------------------------------------------------------------------------------------- */

static sap_status check_rate(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)epoch;
    if (sap_optimizer_scheduled(all->optimizer))
        return sap_error_set(err, SAP_EARGUMENT, "%s: the optimizer has a schedule, so its learning rate cannot be set",
                             sap_callback_name(own->settings.kind));
    return SAP_OK;
}

static sap_status reduce_rate(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)err;
    const sap_callback *s = &own->settings;
    double value = monitored(all, own);
    if (isnan(value))
        return SAP_OK;
    if (own->cooldown > 0) {
        own->cooldown--;
        own->wait = 0;
    }
    if (improves(own, value)) {
        keep_best(own, value, epoch);
        own->wait = 0;
    } else if (own->cooldown <= 0 && ++own->wait >= s->patience) {
        double rate = all->optimizer->learning_rate;
        if (rate > (double)(float)s->min_learning_rate) {
            all->optimizer->learning_rate = (double)(float)fmax(rate * s->factor, s->min_learning_rate);
            own->cooldown = s->cooldown;
            own->wait = 0;
            (void)snprintf(all->note, sizeof all->note, "learning rate reduced to %g", all->optimizer->learning_rate);
        }
    }
    return SAP_OK;
}

static sap_status schedule_rate(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    double rate = own->settings.rate(own->settings.context, epoch, all->optimizer->learning_rate);
    if (!(rate >= 0 && isfinite(rate)))
        return sap_error_set(err, SAP_EARGUMENT, "a learning rate of %g for epoch %lld", rate, (long long)epoch + 1);
    all->optimizer->learning_rate = (double)(float)rate;
    return SAP_OK;
}

/* ---- Files ---------------------------------------------------------------------------------------------- */

/* Writes one "{name}" or "{name:format}", where format is of digits, a point, and d, f, e or g. */
static sap_status put_field(const sap_callbacks *all, const char *path, const char *field, size_t length, int64_t epoch,
                            sap_text *out, sap_error *err) {
    char name[200], format[32] = "";
    const char *colon = memchr(field, ':', length);
    size_t name_length = colon ? (size_t)(colon - field) : length, format_length = length - name_length;
    if (name_length >= sizeof name || format_length >= sizeof format - 4)
        return sap_error_set(err, SAP_EARGUMENT, "%s: a name in braces is too long", path);
    (void)snprintf(name, sizeof name, "%.*s", (int)name_length, field);
    if (colon)
        (void)snprintf(format, sizeof format, "%.*s", (int)format_length - 1, colon + 1);
    bool is_epoch = strcmp(name, "epoch") == 0;
    if (!is_epoch && sap_history_find(all->history, name) < 0)
        return sap_error_set(err, SAP_EARGUMENT, "%s: the history has no \"%s\"", path, name);
    char *end = format;
    long width = strtol(format, &end, 10), digits = -1;
    bool zeros = format[0] == '0';
    if (*end == '.')
        digits = strtol(end + 1, &end, 10);
    if (width < 0 || width > 64 || digits > 64 || (*end && end[1]) || !strchr(is_epoch ? "d" : "feg", *end))
        return sap_error_set(err, SAP_EARGUMENT, "%s: \"%s\" is no format for \"%s\"", path, format, name);
    double value = is_epoch ? 0 : sap_history_value(all->history, all->history->epochs - 1, name);
    if (is_epoch)
        sap_text_add(out, zeros ? "%0*lld" : "%*lld", (int)width, (long long)epoch + 1);
    else if (*end == 'f')
        sap_text_add(out, zeros ? "%0*.*f" : "%*.*f", (int)width, digits < 0 ? 6 : (int)digits, value);
    else
        sap_text_add(out, *end == 'e' ? "%*.*e" : "%*.*g", (int)width, digits < 0 ? 6 : (int)digits, value);
    return SAP_OK;
}

static sap_status fill_path(const sap_callbacks *all, const char *path, int64_t epoch, sap_text *out, sap_error *err) {
    for (const char *at = path; *at;) {
        const char *open = strchr(at, '{'), *close = open ? strchr(open, '}') : NULL;
        if (!close) {
            sap_text_put(out, at, strlen(at));
            break;
        }
        sap_text_put(out, at, (size_t)(open - at));
        SAP_TRY(put_field(all, path, open + 1, (size_t)(close - open - 1), epoch, out, err));
        at = close + 1;
    }
    return out->failed ? sap_error_memory(err, path) : SAP_OK;
}

static sap_status save_model(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    double value = monitored(all, own);
    if (own->settings.save_best_only && !isnan(value)) {
        if (!improves(own, value))
            return SAP_OK;
        keep_best(own, value, epoch);
    }
    sap_text path = {0};
    sap_status status = fill_path(all, own->settings.path, epoch, &path, err);
    if (status == SAP_OK)
        status = sap_model_store(all->model, path.data, NULL, err);
    sap_text_release(&path);
    return status;
}

static sap_status write_csv(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)epoch;
    return sap_history_csv(all->history, own->settings.path, err);
}

static sap_status begin_events(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)epoch; /* of a training that goes on: without what came behind its checkpoint */
    return all->history->epochs ? sap_history_events(all->history, own->settings.path, false, err) : SAP_OK;
}

static sap_status write_events(sap_callbacks *all, sap_callback_state *own, int64_t epoch, sap_error *err) {
    (void)epoch;
    return sap_history_events(all->history, own->settings.path, all->history->epochs > 1, err);
}

/* ---- The table ------------------------------------------------------------------------------------------ */

static const callback_class classes[] = {
    [SAP_CALLBACK_EARLY_STOPPING] = {"early stopping", .monitors = true, .epoch_end = stop_early,
                                     .finish = restore_best},
    [SAP_CALLBACK_MODEL_CHECKPOINT] = {"model checkpoint", .monitors = true, .writes = true, .epoch_end = save_model},
    [SAP_CALLBACK_REDUCE_ON_PLATEAU] = {"reduction on a plateau", .monitors = true, .min_delta = 1e-4,
                                        .begin = check_rate, .epoch_end = reduce_rate},
    [SAP_CALLBACK_LEARNING_RATE] = {"learning rate", .begin = check_rate, .epoch_begin = schedule_rate},
    [SAP_CALLBACK_CSV] = {"CSV", .writes = true, .epoch_end = write_csv},
    [SAP_CALLBACK_TENSORBOARD] = {"TensorBoard", .writes = true, .begin = begin_events, .epoch_end = write_events},
};

const char *sap_callback_name(sap_callback_kind kind) {
    return classes[kind].name;
}

static sap_status check_monitor(const sap_callbacks *all, sap_callback_state *own, sap_error *err) {
    sap_callback *s = &own->settings;
    const char *name = classes[s->kind].name;
    if (s->kind == SAP_CALLBACK_MODEL_CHECKPOINT && !s->save_best_only)
        return SAP_OK;
    if (sap_history_find(all->history, s->monitor) < 0) {
        sap_text names = {0};
        for (int32_t i = 0; i < all->history->count; i++)
            sap_text_add(&names, "%s%s", i ? ", " : "", all->history->names[i]);
        sap_status status = sap_error_set(err, SAP_EARGUMENT, "%s: nothing is called \"%s\"; measured are %s", name,
                                          s->monitor, names.data ? names.data : "");
        sap_text_release(&names);
        return status;
    }
    bool more = ends_with(s->monitor, "accuracy") || ends_with(s->monitor, "auc");
    if (s->mode == SAP_MONITOR_AUTO && !more && !ends_with(s->monitor, "loss"))
        return sap_error_set(err, SAP_EARGUMENT, "%s: say whether less or more of \"%s\" is better", name, s->monitor);
    own->sign = s->mode == SAP_MONITOR_MAX || (s->mode == SAP_MONITOR_AUTO && more) ? 1 : -1;
    return SAP_OK;
}

static sap_status open_callback(const sap_callbacks *all, const sap_callback *settings, sap_callback_state *own,
                                sap_error *err) {
    if ((unsigned)settings->kind > SAP_CALLBACK_TENSORBOARD)
        return sap_error_set(err, SAP_EARGUMENT, "no such callback: %d", (int)settings->kind);
    const callback_class *class_of = &classes[settings->kind];
    own->settings = *settings;
    sap_callback *s = &own->settings;
    if (!s->monitor)
        s->monitor = "val_loss";
    s->min_delta = s->min_delta == 0 ? class_of->min_delta : fmax(s->min_delta, 0);
    if (s->kind == SAP_CALLBACK_REDUCE_ON_PLATEAU) {
        s->patience = s->patience ? s->patience : 10;
        s->factor = s->factor == 0 ? 0.1 : s->factor;
        if (!(s->factor > 0 && s->factor < 1))
            return sap_error_set(err, SAP_EARGUMENT, "%s: a factor of %g; it is between 0 and 1", class_of->name,
                                 s->factor);
    }
    if (s->patience < 0 || s->cooldown < 0 || isnan(s->min_delta) || isnan(s->baseline))
        return sap_error_set(err, SAP_EARGUMENT, "%s: patience %lld, cooldown %lld, min_delta %g", class_of->name,
                             (long long)s->patience, (long long)s->cooldown, s->min_delta);
    if (class_of->writes && (!s->path || !*s->path))
        return sap_error_set(err, SAP_EARGUMENT, "%s: it needs a path", class_of->name);
    if (s->kind == SAP_CALLBACK_LEARNING_RATE && !s->rate)
        return sap_error_set(err, SAP_EARGUMENT, "%s: it needs a function", class_of->name);
    return class_of->monitors ? check_monitor(all, own, err) : SAP_OK;
}

sap_status sap_callbacks_init(sap_callbacks *callbacks, sap_model *model, const sap_callback *settings, size_t count,
                              const sap_history *history, sap_error *err) {
    *callbacks = (sap_callbacks){
        .model = model, .optimizer = model ? &model->optimizer : NULL, .history = history, .writes = true};
    if (count > CALLBACKS_MOST)
        return sap_error_set(err, SAP_EARGUMENT, "%zu callbacks; there may be %d", count, CALLBACKS_MOST);
    callbacks->items = calloc(count + 1, sizeof *callbacks->items);
    if (!callbacks->items)
        return sap_error_memory(err, "callbacks");
    callbacks->count = count;
    for (size_t i = 0; i < count; i++)
        SAP_TRY(open_callback(callbacks, &settings[i], &callbacks->items[i], err));
    return SAP_OK;
}

void sap_callbacks_release(sap_callbacks *callbacks) {
    for (size_t i = 0; i < callbacks->count; i++)
        free(callbacks->items[i].best_weights);
    free(callbacks->items);
    *callbacks = (sap_callbacks){0};
}

/* Calls one column of the table. */
static sap_status call_all(sap_callbacks *all, size_t offset, int64_t epoch, sap_error *err) {
    for (size_t i = 0; i < all->count; i++) {
        callback_step *step;
        const callback_class *class_of = &classes[all->items[i].settings.kind];
        memcpy(&step, (const char *)class_of + offset, sizeof step);
        if (step && (all->writes || !class_of->writes))
            SAP_TRY(step(all, &all->items[i], epoch, err));
    }
    return SAP_OK;
}

sap_status sap_callbacks_begin(sap_callbacks *callbacks, sap_error *err) {
    return call_all(callbacks, offsetof(callback_class, begin), 0, err);
}

sap_status sap_callbacks_epoch_begin(sap_callbacks *callbacks, int64_t epoch, sap_error *err) {
    return call_all(callbacks, offsetof(callback_class, epoch_begin), epoch, err);
}

sap_status sap_callbacks_epoch_end(sap_callbacks *callbacks, int64_t epoch, sap_error *err) {
    callbacks->note[0] = '\0';
    return call_all(callbacks, offsetof(callback_class, epoch_end), epoch, err);
}

sap_status sap_callbacks_finish(sap_callbacks *callbacks, sap_error *err) {
    return call_all(callbacks, offsetof(callback_class, finish), 0, err);
}
