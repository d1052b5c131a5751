/* What test_training_parity.py compares with Keras: losses, optimizers, schedules and callbacks, each on numbers of its own.
 *
 *     training_driver loss KIND LOGITS SMOOTHING DELTA VALUES ROWS FOLDER     y, target, weight.f32 -> gradient.f32, mean loss
 *     training_driver optimizer FOLDER COUNT STEPS KEY=VALUE …                w, g.f32 -> w after each step as steps.f32
 *     training_driver schedule STEPS KEY=VALUE …                              the learning rate of each step
 *     training_driver callbacks FOLDER EPOCHS KEY=VALUE …                     val_loss of each epoch on stdin; a line for each epoch
 */
#include "nn/callbacks.h"

#include <math.h>
#include <stdlib.h>

static sap_error error;

static void must(sap_status status) {
    if (status != SAP_OK) {
        (void)fprintf(stderr, "training_driver: %s\n", error.message);
        exit(1);
    }
}

static float *read_floats(const char *folder, const char *name, int64_t count) {
    char path[4096], *data = NULL;
    size_t length = 0;
    (void)snprintf(path, sizeof path, "%s/%s.f32", folder, name);
    must(sap_file_load(path, (size_t)1 << 30, &data, &length, &error));
    if (length != (size_t)count * sizeof(float))
        must(sap_error_set(&error, SAP_EDATA, "%s: %zu bytes", path, length));
    return (float *)(void *)data;
}

static void write_floats(const char *folder, const char *name, const float *values, int64_t count) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s.f32", folder, name);
    must(sap_file_store(path, values, (size_t)count * sizeof *values, &error));
}

/* The value of KEY=VALUE among the arguments, or `standard`. */
static double setting(char **arguments, const char *key, double standard) {
    size_t length = strlen(key);
    for (; *arguments; arguments++)
        if (strncmp(*arguments, key, length) == 0 && (*arguments)[length] == '=')
            return strtod(*arguments + length + 1, NULL);
    return standard;
}

/* ---- Losses ----------------------------------------------------------------------------------------------------- */

static int run_loss(char **a) {
    sap_loss wanted = {.from_logits = a[1][0] == '1',
                       .label_smoothing = strtod(a[2], NULL),
                       .delta = strtod(a[3], NULL)},
             loss;
    must(sap_loss_find(a[0], &wanted.kind, &error));
    must(sap_loss_check(&wanted, &loss, &error));
    int64_t values = strtoll(a[4], NULL, 10), rows = strtoll(a[5], NULL, 10);
    bool numbers = loss.kind == SAP_LOSS_SPARSE_CATEGORICAL_CROSSENTROPY;
    int64_t target_values = numbers ? 1 : values;
    float *y = read_floats(a[6], "y", rows * values), *weight = read_floats(a[6], "weight", rows);
    const float *target = read_floats(a[6], "target", rows * target_values);
    sap_examples examples = {
        .rows = rows, .targets = 1, .y = &target, .target_values = &target_values, .weight = weight};
    float *tile = aligned_alloc(64, (size_t)values * SAP_TILE * 3 * sizeof(float)), own[SAP_TILE];
    float *dy = tile + values * SAP_TILE, *gradients = calloc((size_t)(rows * values), sizeof *gradients);
    double sum = 0;
    must(sap_loss_examples(&loss, &examples, 0, values, 1, "output", &error));
    for (int64_t first = 0; first < rows; first += SAP_TILE) {
        int here = rows - first < SAP_TILE ? (int)(rows - first) : SAP_TILE;
        int64_t row[SAP_TILE];
        sap_loss_call call = {.kernels = sap_kernels_best(),
                              .loss = &loss,
                              .values = values,
                              .steps = 1,
                              .width = SAP_TILE,
                              .rows = here,
                              .y = tile,
                              .dy = dy,
                              .target = tile + 2 * values * SAP_TILE,
                              .weight = own,
                              .scale = 1 / (double)rows};
        for (int t = 0; t < SAP_TILE; t++) {
            row[t] = first + t;
            for (int64_t v = 0; v < values; v++)
                tile[v * SAP_TILE + t] = t < here ? y[(first + t) * values + v] : 0.5F;
        }
        must(sap_loss_load(&call, &examples, 0, row, &error));
        sap_loss_run(&call);
        sum += call.sums.loss;
        for (int t = 0; t < here; t++)
            for (int64_t v = 0; v < values; v++)
                gradients[(first + t) * values + v] = dy[v * SAP_TILE + t];
    }
    write_floats(a[6], "gradient", gradients, rows * values);
    printf("%.9g\n", sum / (double)rows);
    return 0;
}

/* ---- Optimizers and schedules ----------------------------------------------------------------------------------- */

static sap_optimizer read_optimizer(char **a) {
    static const double boundaries[] = {10, 20}, values[] = {0.3, 0.2, 0.1};
    return (sap_optimizer){
        .kind = (sap_optimizer_kind)setting(a, "kind", 0),
        .learning_rate = setting(a, "learning_rate", 0),
        .amsgrad = setting(a, "amsgrad", 0) != 0,
        .momentum = setting(a, "momentum", 0),
        .nesterov = setting(a, "nesterov", 0) != 0,
        .weight_decay = setting(a, "weight_decay", 0),
        .clipnorm = setting(a, "clipnorm", 0),
        .clipvalue = setting(a, "clipvalue", 0),
        .global_clipnorm = setting(a, "global_clipnorm", 0),
        .ema_momentum = setting(a, "ema_momentum", 0),
        .ema_overwrite_frequency = (int64_t)setting(a, "ema_overwrite_frequency", 0),
        .schedule = {.kind = (sap_schedule_kind)setting(a, "schedule", 0),
                     .decay_steps = setting(a, "decay_steps", 0),
                     .decay_rate = setting(a, "decay_rate", 0),
                     .staircase = setting(a, "staircase", 0) != 0,
                     .end_learning_rate = setting(a, "end_learning_rate", 0),
                     .power = setting(a, "power", 0),
                     .cycle = setting(a, "cycle", 0) != 0,
                     .alpha = setting(a, "alpha", 0),
                     .boundaries = boundaries,
                     .values = values,
                     .boundary_count = 2,
                     .warmup_steps = setting(a, "warmup_steps", 0),
                     .warmup_from = setting(a, "warmup_from", 0)},
    };
}

/* Two weight arrays: the first third, and the rest. */
static int run_optimizer(char **a) {
    int64_t count = strtoll(a[1], NULL, 10), steps = strtoll(a[2], NULL, 10);
    sap_optimizer settings = read_optimizer(a + 3);
    sap_optimizer_state state = {0};
    const sap_stretch stretches[2] = {{0, count / 3, true}, {count / 3, count - count / 3, true}};
    float *w = read_floats(a[0], "w", count), *g = read_floats(a[0], "g", count * steps);
    float *out = calloc((size_t)(count * steps), sizeof *out);
    must(sap_optimizer_check(&settings, &settings, &error));
    must(sap_optimizer_init(&state, &settings, count, stretches, 2, &error));
    for (int64_t s = 0; s < steps; s++) {
        must(sap_optimizer_step(&state, sap_kernels_best(), NULL, g + s * count, w, &error));
        memcpy(out + s * count, w, (size_t)count * sizeof *w);
    }
    sap_optimizer_finish(&state, out + (steps - 1) * count);
    write_floats(a[0], "steps", out, count * steps);
    return 0;
}

static int run_schedule(char **a) {
    sap_optimizer settings = read_optimizer(a + 1);
    must(sap_optimizer_check(&settings, &settings, &error));
    for (int64_t n = 0; n < strtoll(a[0], NULL, 10); n++)
        printf("%.9g\n", sap_schedule_rate(&settings.schedule, settings.learning_rate, n));
    return 0;
}

/* ---- Callbacks -------------------------------------------------------------------------------------------------- */

static double halve_every_third(void *context, int64_t epoch, double rate) {
    (void)context;
    return epoch > 0 && epoch % 3 == 0 ? rate / 2 : rate;
}

static int run_callbacks(char **a) {
    static sap_model model; /* of one weight, which is the number of the epoch */
    static sap_loss loss;
    static sap_tensor_info output = {.name = "out"};
    float weight[16] = {0};
    char csv[4096], events[4096], best[4096];
    (void)snprintf(csv, sizeof csv, "%s/log.csv", a[0]);
    (void)snprintf(events, sizeof events, "%s/events", a[0]);
    (void)snprintf(best, sizeof best, "%s/{epoch:02d}-{val_loss:.2f}.keras", a[0]);
    model = (sap_model){.name = "test", .values = weight, .value_count = 1, .output_count = 1, .output_info = &output};
    model.optimizer.learning_rate = (double)0.01F;
    sap_callback_kind on_rate =
        setting(a + 2, "scheduler", 0) != 0 ? SAP_CALLBACK_LEARNING_RATE : SAP_CALLBACK_REDUCE_ON_PLATEAU;
    sap_callback list[] = {
        {.kind = on_rate,
         .patience = (int64_t)setting(a + 2, "reduce_patience", 0),
         .rate = halve_every_third,
         .factor = setting(a + 2, "factor", 0),
         .cooldown = (int64_t)setting(a + 2, "cooldown", 0),
         .min_delta = setting(a + 2, "reduce_delta", 0),
         .min_learning_rate = setting(a + 2, "min_lr", 0),
         .mode = (sap_monitor_mode)setting(a + 2, "mode", 0)},
        {.kind = SAP_CALLBACK_EARLY_STOPPING,
         .patience = (int64_t)setting(a + 2, "patience", 0),
         .min_delta = setting(a + 2, "min_delta", 0),
         .has_baseline = setting(a + 2, "baseline", -1) >= 0,
         .baseline = setting(a + 2, "baseline", 0),
         .restore_best_weights = true,
         .start_from_epoch = (int64_t)setting(a + 2, "start_from_epoch", 0),
         .mode = (sap_monitor_mode)setting(a + 2, "mode", 0)},
        {.kind = SAP_CALLBACK_CSV, .path = csv},
        {.kind = SAP_CALLBACK_TENSORBOARD, .path = events},
    };
    sap_history history = {0};
    sap_callbacks callbacks;
    must(sap_history_init(&model, &loss, false, true, &history, &error));
    must(sap_callbacks_init(&callbacks, &model, list, 4, &history, &error));
    must(sap_callbacks_begin(&callbacks, &error));
    for (int64_t epoch = 0; epoch < strtoll(a[1], NULL, 10) && !callbacks.stop; epoch++) {
        double value;
        if (scanf("%lf", &value) != 1)
            return 1;
        must(sap_callbacks_epoch_begin(&callbacks, epoch, &error));
        weight[0] = (float)epoch;
        must(sap_history_grow(&history, &error));
        sap_history_set(&history, "val_loss", value);
        sap_history_set(&history, "loss", value / 3);
        sap_history_set(&history, "learning_rate", model.optimizer.learning_rate);
        history.seconds[epoch] = 1;
        history.ended[epoch] = 1e9 + (double)epoch;
        must(sap_callbacks_epoch_end(&callbacks, epoch, &error));
        printf("%lld %d %.9g\n", (long long)epoch, (int)callbacks.stop, model.optimizer.learning_rate);
    }
    must(sap_callbacks_finish(&callbacks, &error));
    printf("%g\n", (double)weight[0]);
    sap_callbacks_release(&callbacks);
    sap_history_release(&history);
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int least;
        int (*run)(char **);
    } commands[] = {{"loss", 9, run_loss},
                    {"optimizer", 5, run_optimizer},
                    {"schedule", 3, run_schedule},
                    {"callbacks", 4, run_callbacks}};
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc >= commands[i].least)
            return commands[i].run(argv + 2);
    (void)fprintf(stderr, "usage: see the top of training_driver.c\n");
    return 2;
}
