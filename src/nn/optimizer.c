/* Adam, AdamW, RAdam and SGD with Keras 3's formulas and defaults, on flat arrays; clipping and schedules. */
#include "optimizer.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

enum { STEP_RANGE = 16384 };          /* parameters that one thread takes at a time */
enum { PARALLEL_COUNT = 16 * 16384 }; /* below it waking threads does not pay */

static const char *const names[] = {"adam", "sgd", "adamw", "radam"};

const char *sap_optimizer_name(sap_optimizer_kind kind) {
    return names[kind];
}

sap_status sap_optimizer_find(const char *name, sap_optimizer_kind *out, sap_error *err) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t k = 0;
        while (name[k] && tolower((unsigned char)name[k]) == names[i][k])
            k++;
        if (name[k] || names[i][k])
            continue;
        *out = (sap_optimizer_kind)i;
        return SAP_OK;
    }
    return sap_error_set(err, SAP_EUNSUPPORTED, "there is no optimizer \"%s\"; there are adam, adamw, radam and sgd",
                         name);
}

static bool is_adam(const sap_optimizer *s) {
    return s->kind != SAP_OPTIMIZER_SGD;
}

/* ---- Settings ------------------------------------------------------------------------------------------- */

static sap_status check_schedule(sap_schedule *s, sap_error *err) {
    if ((unsigned)s->kind > SAP_SCHEDULE_PIECEWISE)
        return sap_error_set(err, SAP_EARGUMENT, "schedule: no such kind: %d", (int)s->kind);
    if (s->kind == SAP_SCHEDULE_POLYNOMIAL) {
        if (s->end_learning_rate == 0)
            s->end_learning_rate = 1e-4;
        if (s->power == 0)
            s->power = 1;
    }
    bool decays = s->kind != SAP_SCHEDULE_CONSTANT && s->kind != SAP_SCHEDULE_PIECEWISE;
    if (decays && !(s->decay_steps > 0 && isfinite(s->decay_steps)))
        return sap_error_set(err, SAP_EARGUMENT, "schedule: %g decay steps", s->decay_steps);
    if (!(s->decay_rate >= 0 && s->end_learning_rate >= 0 && s->power >= 0 && s->alpha >= 0 && s->warmup_steps >= 0 &&
          s->warmup_from >= 0))
        return sap_error_set(err, SAP_EARGUMENT,
                             "schedule: decay rate %g, end %g, power %g, alpha %g, %g warm-up steps from %g; none may "
                             "be below 0",
                             s->decay_rate, s->end_learning_rate, s->power, s->alpha, s->warmup_steps, s->warmup_from);
    for (int32_t i = 1; s->kind == SAP_SCHEDULE_PIECEWISE && i < s->boundary_count; i++)
        if (!(s->boundaries[i - 1] < s->boundaries[i]))
            return sap_error_set(err, SAP_EARGUMENT, "schedule: the boundaries do not rise: %g, %g",
                                 s->boundaries[i - 1], s->boundaries[i]);
    for (int32_t i = 0; s->kind == SAP_SCHEDULE_PIECEWISE && i <= s->boundary_count; i++)
        if (!s->values || !(s->values[i] >= 0 && isfinite(s->values[i])))
            return sap_error_set(err, SAP_EARGUMENT, "schedule: %d boundaries need %d learning rates of 0 or more",
                                 (int)s->boundary_count, (int)s->boundary_count + 1);
    return SAP_OK;
}

static void fill_in(sap_optimizer *s) {
    bool adam = is_adam(s);
    if (s->learning_rate == 0)
        s->learning_rate = adam ? 1e-3 : 1e-2;
    if (adam && s->beta_1 == 0)
        s->beta_1 = 0.9;
    if (adam && s->beta_2 == 0)
        s->beta_2 = 0.999;
    if (adam && s->epsilon == 0)
        s->epsilon = 1e-7;
    if (s->kind == SAP_OPTIMIZER_ADAMW && s->weight_decay == 0)
        s->weight_decay = 0.004;
}

sap_status sap_optimizer_check(const sap_optimizer *settings, sap_optimizer *out, sap_error *err) {
    if ((unsigned)settings->kind > SAP_OPTIMIZER_RADAM)
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: no such kind: %d", (int)settings->kind);
    *out = *settings;
    fill_in(out);
    if (!(out->learning_rate > 0 && out->learning_rate < INFINITY))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: a learning rate of %g", out->learning_rate);
    if (!(out->beta_1 >= 0 && out->beta_1 < 1 && out->beta_2 >= 0 && out->beta_2 < 1 && out->epsilon >= 0))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: beta_1 %g, beta_2 %g, epsilon %g", out->beta_1,
                             out->beta_2, out->epsilon);
    if (!(out->momentum >= 0 && out->momentum <= 1))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: a momentum of %g", out->momentum);
    if (is_adam(out) ? out->momentum != 0 || out->nesterov : out->amsgrad)
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: %s has no %s", names[out->kind],
                             out->amsgrad ? "amsgrad" : "momentum of its own");
    if (!(out->weight_decay >= 0 && isfinite(out->weight_decay)))
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: a weight decay of %g", out->weight_decay);
    if (!(out->clipnorm >= 0 && out->clipvalue >= 0 && out->global_clipnorm >= 0) ||
        (out->clipnorm > 0) + (out->clipvalue > 0) + (out->global_clipnorm > 0) > 1)
        return sap_error_set(
            err, SAP_EARGUMENT,
            "optimizer: clipnorm %g, clipvalue %g, global_clipnorm %g: at most one may be given, above "
            "0",
            out->clipnorm, out->clipvalue, out->global_clipnorm);
    if (!(out->ema_momentum >= 0 && out->ema_momentum <= 1) || out->ema_overwrite_frequency < 0)
        return sap_error_set(err, SAP_EARGUMENT, "optimizer: an average of momentum %g, every %lld steps",
                             out->ema_momentum, (long long)out->ema_overwrite_frequency);
    return check_schedule(&out->schedule, err);
}

double sap_schedule_rate(const sap_schedule *s, double rate, int64_t n) {
    if ((double)n < s->warmup_steps)
        return s->warmup_from + (rate - s->warmup_from) * (double)n / s->warmup_steps;
    double step = (double)n - s->warmup_steps, part = step / s->decay_steps;
    switch (s->kind) {
    case SAP_SCHEDULE_CONSTANT:
        return rate;
    case SAP_SCHEDULE_EXPONENTIAL:
        return rate * pow(s->decay_rate, s->staircase ? floor(part) : part);
    case SAP_SCHEDULE_INVERSE_TIME:
        return rate / (1 + s->decay_rate * (s->staircase ? floor(part) : part));
    case SAP_SCHEDULE_POLYNOMIAL:
        if (s->cycle)
            part = step == 0 ? 0 : part / ceil(part);
        return (rate - s->end_learning_rate) * pow(1 - fmin(part, 1), s->power) + s->end_learning_rate;
    case SAP_SCHEDULE_COSINE:
        return rate * ((1 - s->alpha) * 0.5 * (1 + cos(3.14159265358979324 * fmin(part, 1))) + s->alpha);
    case SAP_SCHEDULE_PIECEWISE:
        break;
    }
    int32_t i = 0;
    while (i < s->boundary_count && step > s->boundaries[i])
        i++;
    return s->values[i];
}

/* ---- State ---------------------------------------------------------------------------------------------- */

static bool has_slot(const sap_optimizer *s, int slot) {
    switch (slot) {
    case SAP_SLOT_MOMENTUM:
        return is_adam(s) || s->momentum != 0;
    case SAP_SLOT_VELOCITY:
        return is_adam(s);
    case SAP_SLOT_LARGEST:
        return s->amsgrad;
    default:
        return s->ema_momentum != 0;
    }
}

sap_status sap_optimizer_init(sap_optimizer_state *state, const sap_optimizer *settings, int64_t count,
                              const sap_stretch *stretches, int32_t stretch_count, sap_error *err) {
    const sap_stretch all = {0, count, true};
    if (!stretches) {
        stretches = &all;
        stretch_count = 1;
    }
    *state = (sap_optimizer_state){.settings = *settings,
                                   .learning_rate = (double)(float)settings->learning_rate,
                                   .count = count,
                                   .stretch_count = stretch_count};
    state->stretches = calloc((size_t)stretch_count + 1, sizeof *stretches);
    bool made = state->stretches != NULL;
    if (made)
        memcpy(state->stretches, stretches, (size_t)stretch_count * sizeof *stretches);
    size_t bytes = ((size_t)count * sizeof(float) + 127) / 64 * 64;
    for (int i = 0; made && i < SAP_SLOTS; i++) {
        if (!has_slot(settings, i))
            continue;
        state->slots[i] = aligned_alloc(64, bytes);
        made = state->slots[i] != NULL;
        if (made)
            memset(state->slots[i], 0, bytes);
    }
    if (made)
        return SAP_OK;
    sap_optimizer_release(state);
    return sap_error_memory(err, "optimizer");
}

void sap_optimizer_release(sap_optimizer_state *state) {
    for (int i = 0; i < SAP_SLOTS; i++)
        free(state->slots[i]);
    free(state->stretches);
    *state = (sap_optimizer_state){0};
}

int32_t sap_optimizer_place(const sap_optimizer_state *state, int32_t weights, int32_t weight, int32_t slot) {
    int32_t first = sap_optimizer_scheduled(state) ? 1 : 2;
    if (slot == SAP_SLOT_AVERAGE)
        return first + weight;
    if (state->slots[SAP_SLOT_AVERAGE])
        first += weights;
    int32_t pair = state->slots[SAP_SLOT_VELOCITY] ? 2 : 1;
    return slot == SAP_SLOT_LARGEST ? first + pair * weights + weight : first + pair * weight + slot;
}

/* ---- A step --------------------------------------------------------------------------------------------- */

bool sap_optimizer_scheduled(const sap_optimizer_state *state) {
    const sap_schedule *s = &state->settings.schedule;
    return s->kind != SAP_SCHEDULE_CONSTANT || s->warmup_steps > 0;
}

double sap_optimizer_rate(const sap_optimizer_state *state) {
    return sap_schedule_rate(&state->settings.schedule, state->learning_rate, state->iteration);
}

/* The numbers of this step; what depends on the stretch is left out. */
sap_update sap_optimizer_update(const sap_optimizer_state *state) {
    const sap_optimizer *s = &state->settings;
    double step = (double)state->iteration + 1, rate = sap_optimizer_rate(state);
    /* Keras' betas are float32: 1 - 0.999 is 0.9999871e-3 there */
    double left_1 = 1 - pow((double)(float)s->beta_1, step), left_2 = 1 - pow((double)(float)s->beta_2, step);
    sap_update u = {
        .scale = 1,
        .limit = s->clipvalue > 0 ? (float)s->clipvalue : INFINITY,
        .decay = (float)(s->weight_decay * rate),
        .rate = (float)(rate * sqrt(left_2) / left_1),
        .one_minus_beta_1 = (float)(1 - s->beta_1),
        .one_minus_beta_2 = (float)(1 - s->beta_2),
        .root = 1,
        .epsilon = (float)s->epsilon,
        .momentum = (float)s->momentum,
        .nesterov = s->nesterov,
    };
    if (s->kind == SAP_OPTIMIZER_SGD)
        u.rate = (float)rate;
    if (s->kind != SAP_OPTIMIZER_RADAM)
        return u;
    /* length of the simple moving average that the variance of 1/sqrt(v) is that of; below 5 v is not to be trusted */
    double most = 2 / (1 - s->beta_2) - 1, length = most - 2 * step * (1 - left_2) / left_2;
    bool rectified = length >= 5;
    double r = sqrt((length - 4) / (most - 4) * ((length - 2) / (most - 2)) * (most / length));
    u.rate = (float)(rectified ? rate * r / left_1 : rate / left_1);
    u.root = rectified ? (float)(1 / sqrt(left_2)) : 0;
    u.epsilon = rectified ? (float)s->epsilon : 1;
    return u;
}

typedef struct step_work {
    const sap_optimizer_state *state;
    const sap_optimizer_kernels *kernels;
    sap_update update;
    const float *gradients;
    float *values, *scales; /* scales: (stretch_count) or NULL */
    float average;          /* momentum of the average */
} step_work;

/* Parameters [first, first + count), which belong to one stretch. */
static void step_piece(const step_work *work, int64_t first, int64_t count, int32_t stretch) {
    const sap_optimizer_state *state = work->state;
    sap_update update = work->update;
    if (work->scales)
        update.scale = work->scales[stretch];
    if (!state->stretches[stretch].decays)
        update.decay = 0;
    float *at[SAP_SLOTS], *w = work->values + first;
    for (int i = 0; i < SAP_SLOTS; i++)
        at[i] = state->slots[i] ? state->slots[i] + first : NULL;
    const float *g = work->gradients + first;
    if (is_adam(&state->settings))
        work->kernels->adam(&update, count, g, at[SAP_SLOT_MOMENTUM], at[SAP_SLOT_VELOCITY], at[SAP_SLOT_LARGEST], w);
    else
        work->kernels->descend(&update, count, g, at[SAP_SLOT_MOMENTUM], w);
    if (at[SAP_SLOT_AVERAGE])
        work->kernels->average(work->average, count, w, at[SAP_SLOT_AVERAGE]);
}

/* Whether all stretches are treated alike, so that they can be taken in one piece. */
static bool is_uniform(const step_work *work) {
    bool uniform = true;
    for (int32_t i = 0; i < work->state->stretch_count; i++)
        uniform = uniform && (work->state->stretches[i].decays || work->update.decay == 0) &&
                  (!work->scales || work->scales[i] == work->scales[0]);
    return uniform;
}

static sap_status step_range(void *context, size_t index, int slot, sap_error *err) {
    (void)slot;
    (void)err;
    const step_work *work = context;
    const sap_optimizer_state *state = work->state;
    int64_t begin = (int64_t)index * STEP_RANGE, end = begin + STEP_RANGE;
    end = end < state->count ? end : state->count;
    for (int32_t i = 0; i < state->stretch_count; i++) {
        const sap_stretch *s = &state->stretches[i];
        int64_t first = s->first > begin ? s->first : begin;
        int64_t last = s->first + s->count < end ? s->first + s->count : end;
        if (first < last)
            step_piece(work, first, last - first, i);
    }
    return SAP_OK;
}

/* What each stretch's gradient is multiplied by. */
static void find_scales(const step_work *work, float *scales) {
    const sap_optimizer *s = &work->state->settings;
    double all = 0, limit = s->clipnorm > 0 ? s->clipnorm : s->global_clipnorm;
    for (int32_t i = 0; i < work->state->stretch_count; i++) {
        const sap_stretch *stretch = &work->state->stretches[i];
        double squares = work->kernels->squares(stretch->count, work->gradients + stretch->first);
        scales[i] = (float)(limit / fmax(sqrt(squares), limit));
        all += squares;
    }
    for (int32_t i = 0; s->global_clipnorm > 0 && i < work->state->stretch_count; i++)
        scales[i] = (float)(limit / fmax(sqrt(all), limit));
}

sap_status sap_optimizer_step(sap_optimizer_state *state, const sap_kernels *kernels, const sap_run *run,
                              const float *gradients, float *values, sap_error *err) {
    const sap_optimizer *s = &state->settings;
    step_work work = {.state = state,
                      .kernels = kernels->optimizers,
                      .update = sap_optimizer_update(state),
                      .gradients = gradients,
                      .values = values};
    work.average = state->iteration == 0 ? 0 : (float)s->ema_momentum;
    sap_status status = SAP_OK;
    if (s->clipnorm > 0 || s->global_clipnorm > 0) {
        work.scales = malloc((size_t)state->stretch_count * sizeof *work.scales + 1);
        if (!work.scales)
            return sap_error_memory(err, "optimizer");
        find_scales(&work, work.scales);
    }
    sap_run whole = {.pool = run ? run->pool : NULL}; /* a step that has begun is not cancelled */
    if (state->count >= PARALLEL_COUNT)
        status = sap_loop(&whole, (size_t)((state->count + STEP_RANGE - 1) / STEP_RANGE), step_range, &work, err);
    else if (is_uniform(&work))
        step_piece(&work, 0, state->count, 0);
    else
        for (int32_t i = 0; i < state->stretch_count; i++)
            step_piece(&work, state->stretches[i].first, state->stretches[i].count, i);
    free(work.scales);
    if (status != SAP_OK)
        return status;
    state->iteration++;
    if (s->ema_overwrite_frequency > 0 && state->iteration % s->ema_overwrite_frequency == 0)
        sap_optimizer_finish(state, values);
    return SAP_OK;
}

void sap_optimizer_finish(const sap_optimizer_state *state, float *values) {
    if (state->slots[SAP_SLOT_AVERAGE] && state->iteration > 0)
        memcpy(values, state->slots[SAP_SLOT_AVERAGE], (size_t)state->count * sizeof *values);
}
