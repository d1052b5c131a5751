/* Histograms and profiles: their record, read by the file's streamer info, and ROOT's arithmetic for errors.
 * docs/format/histogram.md. */
#include "root_internal.h"

#include <math.h>
#include <stdlib.h>

/* What the file says of an axis, and of a histogram. */
typedef struct axis_record {
    const char *name, *title;
    int64_t bins;
    double low, high;
    double *edges;
    int64_t edge_count;
    sap_objects *labels;
} axis_record;

typedef struct histogram_record {
    const char *name, *title;
    axis_record axes[3];
    double *array, *weights_squared, *entries_of, *bin_weights_squared, *buffer;
    int64_t array_count, weights_squared_count, entries_of_count, bin_weights_squared_count, buffer_count;
    int64_t error_mode;
    double entries, sumw, sumw2, sumwx, sumwx2;
} histogram_record;

/* A bin's label: TObjString, whose unique id is the number of the bin. */
typedef struct label {
    uint32_t bin;
    const char *text;
} label;

static const sap_member axis_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, axis_record, name),
    SAP_MEMBER("fTitle", SAP_MEMBER_TEXT, axis_record, title),
    SAP_MEMBER("fNbins", SAP_MEMBER_INT, axis_record, bins),
    SAP_MEMBER("fXmin", SAP_MEMBER_REAL, axis_record, low),
    SAP_MEMBER("fXmax", SAP_MEMBER_REAL, axis_record, high),
    SAP_MEMBERS("fXbins", SAP_MEMBER_REALS, axis_record, edges, edge_count),
    SAP_MEMBER("fLabels", SAP_MEMBER_OBJECT, axis_record, labels, .class_name = "THashList"),
    {0},
};

static const sap_member histogram_members[] = {
    SAP_MEMBER("fName", SAP_MEMBER_TEXT, histogram_record, name),
    SAP_MEMBER("fTitle", SAP_MEMBER_TEXT, histogram_record, title),
    SAP_MEMBER("fXaxis", SAP_MEMBER_INSIDE, histogram_record, axes[0], .inside = axis_members),
    SAP_MEMBER("fYaxis", SAP_MEMBER_INSIDE, histogram_record, axes[1], .inside = axis_members),
    SAP_MEMBER("fZaxis", SAP_MEMBER_INSIDE, histogram_record, axes[2], .inside = axis_members),
    SAP_MEMBERS("fArray", SAP_MEMBER_REALS, histogram_record, array, array_count),
    SAP_MEMBERS("fSumw2", SAP_MEMBER_REALS, histogram_record, weights_squared, weights_squared_count),
    SAP_MEMBERS("fBinEntries", SAP_MEMBER_REALS, histogram_record, entries_of, entries_of_count),
    SAP_MEMBERS("fBinSumw2", SAP_MEMBER_REALS, histogram_record, bin_weights_squared, bin_weights_squared_count),
    SAP_MEMBERS("fBuffer", SAP_MEMBER_REALS, histogram_record, buffer, buffer_count),
    SAP_MEMBER("fErrorMode", SAP_MEMBER_INT, histogram_record, error_mode),
    SAP_MEMBER("fEntries", SAP_MEMBER_REAL, histogram_record, entries),
    SAP_MEMBER("fTsumw", SAP_MEMBER_REAL, histogram_record, sumw),
    SAP_MEMBER("fTsumw2", SAP_MEMBER_REAL, histogram_record, sumw2),
    SAP_MEMBER("fTsumwx", SAP_MEMBER_REAL, histogram_record, sumwx),
    SAP_MEMBER("fTsumwx2", SAP_MEMBER_REAL, histogram_record, sumwx2),
    {0},
};

/* ---- Reading ------------------------------------------------------------------------------------------------ */

/* Objects that a histogram points to: the labels of an axis. Functions and what else hangs on it are passed over. */
static bool read_part(sap_stream *s, const char *class_name, void **object) {
    if (strcmp(class_name, "THashList") == 0) {
        sap_objects *list = sap_arena_alloc(s->arena, sizeof *list);
        if (!list)
            return sap_stream_fail(s, "out of memory");
        sap_stream_list(s, read_part, list);
        *object = list;
        return !s->c.failed;
    }
    if (strcmp(class_name, "TObjString") == 0) {
        label *l = sap_arena_alloc(s->arena, sizeof *l);
        if (!l)
            return sap_stream_fail(s, "out of memory");
        sap_frame frame = sap_frame_read(&s->c);
        l->bin = sap_stream_tobject(&s->c);
        l->text = sap_stream_text(s);
        sap_frame_leave(&s->c, &frame);
        *object = l;
        return !s->c.failed;
    }
    return false;
}

/* TH2Poly and TProfile2Poly keep their bins otherwise, TH1K computes them. */
static int dimensions_of(const sap_file *file, const char *class_name, bool *profile) {
    static const struct {
        const char *base;
        int dimensions;
    } bases[] = {{"TH2Poly", 0},  {"TH1K", 0}, {"TProfile3D", 3}, {"TProfile2D", 2},
                 {"TProfile", 1}, {"TH3", 3},  {"TH2", 2},        {"TH1", 1}};
    enum { FIRST_PROFILE = 2, LAST_PROFILE = 4 };
    for (int i = 0; i < (int)(sizeof bases / sizeof *bases); i++) {
        if (!sap_class_is(file, class_name, bases[i].base))
            continue;
        *profile = i >= FIRST_PROFILE && i <= LAST_PROFILE;
        return bases[i].dimensions;
    }
    return 0;
}

bool sap_key_is_histogram(const sap_file *file, const sap_key *key) {
    bool profile;
    return sap_classes_read((sap_file *)(uintptr_t)file, NULL) == SAP_OK &&
           dimensions_of(file, key->class_name, &profile) > 0;
}

/* ---- Axes ------------------------------------------------------------------------------------------------------ */

static bool make_labels(sap_arena *arena, const axis_record *from, sap_axis *axis) {
    const char **labels = sap_arena_array(arena, (size_t)axis->bins, sizeof *labels);
    for (size_t i = 0; labels && i < from->labels->count; i++) {
        const struct sap_object *item = &from->labels->items[i];
        const label *l = item->object;
        if (l && strcmp(item->class_name, "TObjString") == 0 && l->bin >= 1 && l->bin <= (uint32_t)axis->bins)
            labels[l->bin - 1] = l->text;
    }
    axis->labels = labels;
    return labels != NULL;
}

/* The number of bins was checked against the number of cells. */
static bool make_axis(sap_arena *arena, const axis_record *from, sap_axis *axis) {
    axis->name = from->name ? from->name : "";
    axis->title = from->title ? from->title : "";
    axis->bins = (int32_t)from->bins;
    axis->regular = from->edge_count != from->bins + 1;
    double *edges = from->edges;
    if (axis->regular) {
        double width = (from->high - from->low) / (double)axis->bins;
        edges = sap_arena_array(arena, (size_t)axis->bins + 1, sizeof *edges);
        for (int32_t i = 0; edges && i <= axis->bins; i++)
            edges[i] = from->low + i * width;
    }
    axis->edges = edges;
    return edges && (!from->labels || from->labels->count == 0 || make_labels(arena, from, axis));
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

/* As TProfileHelper::GetBinError, without its approximation for few entries, which is off by default. */
static double profile_variance(char option, double weights, double effective, double spread) {
    if (weights == 0)
        return 0;
    switch (option) {
    case 'g':
        return 1 / weights;
    case 's':
        return spread;
    case 'i':
        return spread != 0 ? spread / effective : 1 / (12 * effective);
    default:
        return spread / effective;
    }
}

static bool make_profile(sap_arena *arena, const histogram_record *r, sap_histogram *h) {
    size_t n = (size_t)h->cells;
    double *values = sap_arena_array(arena, n, sizeof *values), *variances = sap_arena_array(arena, n, sizeof *values),
           *spreads = sap_arena_array(arena, n, sizeof *values);
    if (!values || !variances || !spreads)
        return false;
    for (size_t i = 0; i < n; i++) {
        double weights = r->entries_of[i], effective = weights;
        if (r->bin_weights_squared_count == h->cells)
            effective = r->bin_weights_squared[i] > 0 ? weights * weights / r->bin_weights_squared[i] : 0;
        if (weights != 0) {
            values[i] = r->array[i] / weights;
            spreads[i] = fabs(r->weights_squared[i] / weights - values[i] * values[i]);
        }
        variances[i] = profile_variance(h->error_option, weights, effective, spreads[i]);
    }
    h->values = values;
    h->variances = variances;
    h->spreads = spreads;
    h->counts = r->entries_of;
    h->weights_squared = r->bin_weights_squared_count == h->cells ? r->bin_weights_squared : NULL;
    return true;
}

static bool make_values(sap_arena *arena, const histogram_record *r, sap_histogram *h) {
    if (h->profile)
        return make_profile(arena, r, h);
    h->values = r->array;
    if (r->weights_squared_count == h->cells) {
        h->weights_squared = h->variances = r->weights_squared;
        return true;
    }
    double *variances = sap_arena_array(arena, (size_t)h->cells, sizeof *variances);
    for (int64_t i = 0; variances && i < h->cells; i++)
        variances[i] = fabs(r->array[i]);
    h->variances = variances;
    return variances != NULL;
}

/* Numbers of bins that fit the arrays. */
static sap_status check_cells(const histogram_record *r, sap_histogram *h, const char *where, sap_error *err) {
    h->cells = 1;
    for (int i = 0; i < h->dimensions; i++) {
        int64_t bins = r->axes[i].bins;
        if (bins < 1 || bins + 2 > r->array_count / h->cells)
            return sap_error_set(err, SAP_EFORMAT, "%s: axis %d has %lld bins, the histogram %lld values", where, i,
                                 (long long)bins, (long long)r->array_count);
        h->cells *= bins + 2;
    }
    if (h->cells != r->array_count ||
        (h->profile && (r->entries_of_count != h->cells || r->weights_squared_count != h->cells)))
        return sap_error_set(err, SAP_EFORMAT, "%s: %lld values, its axes have %lld bins", where,
                             (long long)r->array_count, (long long)h->cells);
    return SAP_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------ */

/* What a histogram owns; the public part comes first. */
typedef struct owned {
    sap_histogram public;
    sap_arena arena;
} owned;

static sap_status make(owned *own, const histogram_record *r, const char *where, sap_error *err) {
    static const char options[] = " sig";
    sap_histogram *h = &own->public;
    h->name = r->name ? r->name : "";
    h->title = r->title ? r->title : "";
    h->error_option = r->error_mode >= 0 && r->error_mode < 4 ? options[r->error_mode] : ' ';
    h->entries = r->entries;
    h->sumw = r->sumw;
    h->sumw2 = r->sumw2;
    h->sumwx = r->sumwx;
    h->sumwx2 = r->sumwx2;
    if (r->buffer_count > 0 && r->buffer[0] > 0)
        return sap_error_set(
            err, SAP_EUNSUPPORTED,
            "%s: %.0f entries stand in its buffer and not in its bins yet; ROOT puts them there when it "
            "reads the histogram",
            where, r->buffer[0]);
    SAP_TRY(check_cells(r, h, where, err));
    bool well = make_values(&own->arena, r, h);
    for (int i = 0; i < h->dimensions && well; i++)
        well = make_axis(&own->arena, &r->axes[i], &h->axes[i]);
    return well ? SAP_OK : sap_error_memory(err, where);
}

static sap_status read_histogram(sap_file *file, const sap_key *key, owned *own, const char *where, sap_error *err) {
    sap_record record;
    uint8_t *data = NULL;
    histogram_record members = {0};
    SAP_TRY(sap_record_load(file, key->offset, key->stored_bytes, where, &record, &data, err));
    sap_stream s = {.c = sap_cursor_init(data, record.object_bytes, 0),
                    .file = file,
                    .arena = &own->arena,
                    .origin = record.header_bytes,
                    .part = read_part,
                    .where = where};
    (void)sap_members_read(&s, key->class_name, histogram_members, &members);
    sap_status status = sap_stream_check(&s, "histogram", err);
    sap_stream_release(&s);
    free(data);
    return status == SAP_OK ? make(own, &members, where, err) : status;
}

sap_status sap_histogram_open(sap_file *file, const char *path, sap_histogram **out, sap_error *err) {
    SAP_TRY(sap_classes_read(file, err));
    sap_error missing = {0};
    const sap_key *key = sap_key_find(file, path, &missing);
    if (!key)
        return sap_error_set(err, missing.status, "%s", missing.message);
    bool profile = false;
    int dimensions = dimensions_of(file, key->class_name, &profile);
    if (dimensions == 0)
        return sap_error_set(err, SAP_ETYPE, "%s:%s is a %s, not a histogram that can be read", file->name, path,
                             key->class_name);
    owned *own = calloc(1, sizeof *own);
    if (!own)
        return sap_error_memory(err, path);
    own->public.dimensions = dimensions;
    own->public.profile = profile;
    own->public.class_name = sap_arena_text(&own->arena, key->class_name, strlen(key->class_name));
    const char *where = sap_arena_format(&own->arena, "%s:%s", file->name, key->path);
    sap_status status =
        where && own->public.class_name ? read_histogram(file, key, own, where, err) : sap_error_memory(err, path);
    if (status == SAP_OK)
        *out = &own->public;
    else
        sap_histogram_close(&own->public);
    return status;
}

void sap_histogram_close(sap_histogram *histogram) {
    if (!histogram)
        return;
    owned *own = (owned *)histogram;
    sap_arena arena = own->arena;
    free(own);
    sap_arena_release(&arena);
}
