/* Time of the topology recipe alone, from columns in memory, on one core, and what takes which share of it.
 *
 *     features CONVENTION ROUNDS FILE.root…
 *
 * The least of ROUNDS rounds counts. Stages are timed by themselves on what the kept events have, so their sum is near the whole.
 */
#include "column/column_internal.h"
#include "recipe/isolation.h"

#include <sapwood/recipe.h>
#include <sapwood/root.h>

#include <stdlib.h>
#include <time.h>

enum { MOST_BATCHES = 1000, ROW = 19, ROW_PT = 4, ROW_ETA = 5, ROW_PHI = 6, ROW_TRACK = 13, ROW_NEUTRAL, ROW_PHOTON };

static sap_batch batches[MOST_BATCHES];
static size_t batch_count;

static double seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static sap_status load(const char *path, const sap_recipe *recipe, sap_error *err) {
    sap_file *file = NULL;
    sap_tree *tree = NULL;
    sap_reader *reader = NULL;
    const char *columns[64];
    for (size_t i = 0; i < recipe->input_count; i++)
        columns[i] = recipe->inputs[i].name;
    const sap_reader_options options = {.columns = columns, .count = recipe->input_count};
    sap_status status = sap_file_open(path, NULL, &file, err);
    if (status == SAP_OK)
        status = sap_tree_open(file, recipe->tree, &tree, err);
    if (status == SAP_OK)
        status = sap_reader_open(tree, &options, NULL, &reader, err);
    while (status == SAP_OK && batch_count < MOST_BATCHES) {
        status = sap_reader_next(reader, &batches[batch_count], err);
        if (status != SAP_OK || batches[batch_count].length == 0)
            break;
        batch_count++;
    }
    sap_reader_close(reader);
    sap_tree_close(tree);
    sap_file_close(file);
    return status;
}

/* ---- The stages by themselves ----------------------------------------------------------------------------- */

/* Particles of one kept event, by map, and all of them. */
typedef struct kept {
    sap_cloud maps[SAP_MAPS], particles;
    double *values; /* what the clouds point to */
} kept;

typedef struct sink {
    kept *events; /* NULL: only counted */
    size_t count;
    int64_t rows;
} sink;

static void drop(void *context, int64_t event, int32_t cut) {
    (void)context;
    (void)event;
    (void)cut;
}

static void add(sap_cloud *cloud, const float *row) {
    cloud->pt[cloud->count] = (double)row[ROW_PT];
    cloud->eta[cloud->count] = (double)row[ROW_ETA];
    cloud->phi[cloud->count] = (double)row[ROW_PHI];
    cloud->count++;
}

static sap_status keep(void *context, int64_t event, const sap_recipe_value *values, sap_error *err) {
    (void)event;
    sink *s = context;
    int64_t rows = values[1].count / ROW;
    if (s->events) {
        static const int flags[SAP_MAPS] = {ROW_TRACK, ROW_PHOTON, ROW_NEUTRAL};
        kept *k = &s->events[s->count];
        size_t n = (size_t)rows;
        k->values = calloc(12 * n, sizeof *k->values);
        if (!k->values)
            return sap_error_set(err, SAP_EMEMORY, "out of memory");
        for (size_t c = 0; c < 4; c++)
            *(c < SAP_MAPS ? &k->maps[c] : &k->particles) = (sap_cloud){
                .pt = k->values + 3 * c * n, .eta = k->values + (3 * c + 1) * n, .phi = k->values + (3 * c + 2) * n};
        for (int64_t r = 1; r < rows; r++) {
            const float *row = values[1].data + r * ROW;
            add(&k->particles, row);
            for (int m = 0; m < SAP_MAPS; m++)
                if (row[flags[m]] > 0)
                    add(&k->maps[m], row);
        }
    }
    s->count++;
    s->rows += rows;
    return SAP_OK;
}

/* The recipe's function over everything, what it gives not put together. */
static sap_status call_events(const sap_recipe *recipe, sink *s, sap_error *err) {
    for (size_t b = 0; b < batch_count; b++) {
        sap_column columns[64];
        for (size_t i = 0; i < recipe->input_count; i++)
            columns[i] = *sap_batch_find(&batches[b], recipe->inputs[i].name);
        const sap_recipe_call call = {.count = batches[b].length,
                                      .columns = columns,
                                      .settings = recipe->settings,
                                      .sink = s,
                                      .drop = drop,
                                      .keep = keep};
        SAP_TRY(recipe->events(&call, err));
    }
    return SAP_OK;
}

static double output[7][801];

static sap_status sum_all(const sink *s, sap_fold fold, sap_error *err) {
    sap_isolation_space space = {0};
    double *const sums[SAP_MAPS] = {output[0], output[1], output[2]};
    sap_status status = SAP_OK;
    for (size_t i = 0; i < s->count && status == SAP_OK; i++)
        status = sap_isolation_sums(s->events[i].maps, &s->events[i].particles, fold, &space, sums, err);
    sap_isolation_release(&space);
    return status;
}

static void convert_all(const sink *s) {
    for (size_t i = 0; i < s->count; i++) {
        const sap_cloud *p = &s->events[i].particles;
        sap_momenta(p->count, p->pt, p->eta, p->phi, output[3], output[4], output[5], output[6]);
    }
}

/* ---- The whole ------------------------------------------------------------------------------------------------ */

static sap_status run_all(const sap_recipe *recipe, sap_error *err) {
    for (size_t b = 0; b < batch_count; b++) {
        int64_t dropped[16] = {0};
        sap_batch out = {0};
        SAP_TRY(sap_recipe_run(recipe, &batches[b], "bench", NULL, &out, dropped, err));
        sap_batch_release(&out);
    }
    return SAP_OK;
}

typedef struct timing {
    double whole, events, sums, momenta; /* seconds, the least of all rounds */
} timing;

static void least(double *of, double start) {
    double took = seconds() - start;
    if (*of == 0 || took < *of)
        *of = took;
}

static sap_status time_rounds(const sap_recipe *recipe, const sink *stored, int rounds, timing *t, sap_error *err) {
    sap_fold fold = strcmp(recipe->convention, "paper") == 0 ? SAP_FOLD_TURN : SAP_FOLD_NEAREST;
    for (int i = 0; i < rounds; i++) {
        sink counted = {0};
        double start = seconds();
        SAP_TRY(run_all(recipe, err));
        least(&t->whole, start);
        start = seconds();
        SAP_TRY(call_events(recipe, &counted, err));
        least(&t->events, start);
        start = seconds();
        SAP_TRY(sum_all(stored, fold, err));
        least(&t->sums, start);
        start = seconds();
        convert_all(stored);
        least(&t->momenta, start);
    }
    return SAP_OK;
}

static void print(const timing *t, int64_t events, const sink *stored) {
    const struct {
        const char *what;
        double time;
    } shares[] = {{"isolation sums", t->sums},
                  {"cartesian momenta", t->momenta},
                  {"selection, rows, high-level features", t->events - t->sums - t->momenta},
                  {"putting events together", t->whole - t->events}};
    (void)printf("%lld events, %zu kept with %.0f particles each\n", (long long)events, stored->count,
                 (double)stored->rows / (double)stored->count);
    (void)printf("%.0f events/s, %.1f us an event\n", (double)events / t->whole, 1e6 * t->whole / (double)events);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        (void)printf("  %-38s %5.1f us an event  %4.1f %%\n", shares[i].what, 1e6 * shares[i].time / (double)events,
                     100 * shares[i].time / t->whole);
}

int main(int count, char **arguments) {
    const sap_recipe *recipe;
    sap_error error = {0};
    timing t = {0};
    if (count < 4) {
        (void)fprintf(stderr, "usage: features CONVENTION ROUNDS FILE.root...\n");
        return 2;
    }
    sap_status status = sap_recipe_find("topology", arguments[1], &recipe, &error);
    for (int i = 3; i < count && status == SAP_OK; i++)
        status = load(arguments[i], recipe, &error);
    int64_t events = 0;
    for (size_t b = 0; b < batch_count; b++)
        events += batches[b].length;
    sink stored = {.events = calloc((size_t)events + 1, sizeof *stored.events)};
    if (status == SAP_OK && stored.events)
        status = call_events(recipe, &stored, &error);
    if (status == SAP_OK)
        status = time_rounds(recipe, &stored, atoi(arguments[2]), &t, &error);
    if (status == SAP_OK)
        print(&t, events, &stored);
    else
        (void)fprintf(stderr, "%s\n", error.message);
    for (size_t i = 0; stored.events && i < stored.count; i++)
        free(stored.events[i].values);
    free(stored.events);
    for (size_t b = 0; b < batch_count; b++)
        sap_batch_release(&batches[b]);
    return status == SAP_OK ? 0 : 1;
}
