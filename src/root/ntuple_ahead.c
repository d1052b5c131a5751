/* Pages of an RNTuple in a remote file, fetched before they are needed: exactly those of the entries, and of the items of
 * collections those that are likely to be. docs/format/rntuple.md, § Reading. */
#include "ntuple.h"

#include <stdlib.h>

enum { CHECKSUM = 8 };

/* Pages while they are chosen. */
typedef struct choice {
    const sap_ntuple *ntuple;
    const sap_ahead *before;
    const sap_page **pages;
    size_t count, capacity;
} choice;

static size_t stored_length(const sap_page *page) {
    return (size_t)page->at.bytes + (page->checked ? CHECKSUM : 0);
}

static const uint8_t *find(const sap_ahead *a, const sap_page *page, bool *listed) {
    size_t low = 0, high = a->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const sap_page *candidate = a->pages[middle];
        if (candidate->at.offset == page->at.offset) {
            *listed = stored_length(candidate) >= stored_length(page);
            return *listed && a->arrived ? sap_fetch_data(a->fetch, middle) : NULL;
        }
        if (candidate->at.offset < page->at.offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const uint8_t *sap_ahead_find(const sap_ahead *a, const sap_page *page) {
    bool listed = false;
    return find(a, page, &listed);
}

static bool is_needed(const choice *c, const sap_scan_node *node, const sap_page *page) {
    bool listed = node->held[0].page == page || node->held[1].page == page;
    if (!listed && c->before)
        (void)find(c->before, page, &listed);
    return !listed && sap_page_is_whole(c->ntuple, page);
}

/* Adds the pages that hold values [from, to). */
static bool choose_pages(choice *c, const sap_scan_node *node, const sap_pages *run, double from, double to) {
    for (size_t i = 0; i < run->count; i++) {
        const sap_page *page = &run->pages[i];
        if ((double)(page->first + page->elements) <= from || (double)page->first >= to || !is_needed(c, node, page))
            continue;
        if (!sap_grow((void **)&c->pages, &c->capacity, c->count, sizeof(sap_page *)))
            return false;
        c->pages[c->count++] = page;
    }
    return true;
}

/* Entries [begin, end) of a cluster. repeats: values an entry has; 0: not known, inside collections. */
static bool choose(choice *c, const sap_scan_node *node, size_t k, uint64_t begin, uint64_t end, double repeats) {
    const sap_node *n = node->node;
    const sap_cluster *cluster = &c->ntuple->clusters[k];
    if (n->series && !node->same) {
        const sap_pages *run = &n->series->runs[k];
        double entries = (double)cluster->entries, elements = (double)run->elements;
        double each = repeats > 0 ? repeats : elements / entries;
        double missing = repeats > 0 && n->series->deferred ? entries * repeats - elements : 0;
        double from = (double)begin * each - missing, to = (double)end * each - missing;
        double margin = repeats > 0 ? 1 : (to - from) / 8 + 1; /* an index needs the one before */
        if (!choose_pages(c, node, run, begin == 0 ? 0 : from - margin,
                          end == cluster->entries ? elements : to + margin))
            return false;
    }
    if (n->kind != SAP_NODE_RECORD)
        repeats = n->kind == SAP_NODE_ARRAY ? repeats * (double)n->repeats : 0;
    for (size_t i = 0; i < n->child_count; i++)
        if (!choose(c, &node->children[i], k, begin, end, repeats))
            return false;
    return true;
}

static int by_place(const void *a, const void *b) {
    const sap_page *x = *(const sap_page *const *)a, *y = *(const sap_page *const *)b;
    if (x->at.offset != y->at.offset)
        return x->at.offset < y->at.offset ? -1 : 1;
    return (x->at.bytes < y->at.bytes) - (x->at.bytes > y->at.bytes);
}

sap_status sap_ahead_fetch(sap_ahead *a, const sap_ntuple *ntuple, const sap_page **pages, size_t count,
                           sap_error *err) {
    if (count > 1)
        qsort(pages, count, sizeof(sap_page *), by_place);
    a->pages = pages;
    a->count = 0;
    for (size_t i = 0; i < count; i++)
        if (a->count == 0 || pages[a->count - 1]->at.offset != pages[i]->at.offset)
            pages[a->count++] = pages[i];
    sap_range *ranges = calloc(a->count + 1, sizeof *ranges);
    if (!ranges)
        return sap_error_memory(err, ntuple->tree.where);
    for (size_t i = 0; i < a->count; i++)
        ranges[i] = (sap_range){.offset = pages[i]->at.offset, .length = stored_length(pages[i])};
    sap_status status = sap_fetch_start(ntuple->tree.file->source, ranges, a->count, &a->fetch, err);
    free(ranges);
    return status;
}

sap_status sap_ahead_start(sap_ahead *a, const sap_ntuple *ntuple, const sap_scan_node *tops, size_t count,
                           int64_t begin, int64_t end, const sap_ahead *before, sap_error *err) {
    choice c = {.ntuple = ntuple, .before = before};
    bool fine = true;
    *a = (sap_ahead){.begin = begin, .end = end};
    for (size_t k = sap_cluster_of(ntuple, (uint64_t)begin); fine && k < ntuple->cluster_count; k++) {
        const sap_cluster *cluster = &ntuple->clusters[k];
        if (cluster->first_entry >= (uint64_t)end)
            break;
        uint64_t from = cluster->first_entry < (uint64_t)begin ? (uint64_t)begin - cluster->first_entry : 0;
        uint64_t to = (uint64_t)end - cluster->first_entry < cluster->entries ? (uint64_t)end - cluster->first_entry
                                                                              : cluster->entries;
        for (size_t i = 0; i < count && fine && from < to; i++)
            fine = choose(&c, &tops[i], k, from, to, 1);
    }
    if (!fine) {
        free(c.pages);
        return sap_error_memory(err, ntuple->tree.where);
    }
    sap_status status = sap_ahead_fetch(a, ntuple, c.pages, c.count, err);
    if (status != SAP_OK)
        sap_ahead_release(a);
    return status;
}

sap_status sap_ahead_wait(sap_ahead *a, const sap_run *run, sap_error *err) {
    if (!a->arrived && a->fetch)
        SAP_TRY(sap_fetch_wait(a->fetch, run, err));
    a->arrived = true;
    return SAP_OK;
}

void sap_ahead_release(sap_ahead *a) {
    sap_fetch_close(a->fetch);
    free(a->pages);
    *a = (sap_ahead){0};
}
