/* From the ranges that are wanted to the requests that bring them: sorted, merged where they are close, cut where they are
 * long, and gathered into vector reads where the transport has them. */
#include "access_internal.h"

#include <stdlib.h>

static int by_offset(const void *a, const void *b) {
    const sap_range *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

typedef struct stretch {
    uint64_t begin, end;
} stretch;

static stretch widen(const sap_range *range, const sap_plan_limits *limits) {
    uint64_t end = range->offset + range->length, over = end % limits->align;
    if (over != 0)
        end = limits->size - end > limits->align - over ? end + (limits->align - over) : limits->size;
    return (stretch){range->offset - range->offset % limits->align, end};
}

static bool add_pieces(sap_plan *plan, size_t *capacity, stretch s, uint64_t longest) {
    while (s.begin < s.end) {
        if (!sap_grow((void **)&plan->pieces, capacity, plan->piece_count, sizeof *plan->pieces))
            return false;
        uint64_t length = s.end - s.begin < longest ? s.end - s.begin : longest;
        plan->pieces[plan->piece_count++] = (sap_range){s.begin, (size_t)length, NULL};
        s.begin += length;
    }
    return true;
}

/* Ranges that overlap or touch, or are close, become one; a close one that would make it too long begins the next. */
static bool make_pieces(sap_plan *plan, const sap_range *sorted, size_t count, const sap_plan_limits *limits) {
    size_t capacity = 0;
    stretch current = {0, 0};
    for (size_t i = 0; i < count; i++) {
        if (sorted[i].length == 0)
            continue;
        stretch next = widen(&sorted[i], limits);
        bool close = next.begin <= current.end || next.begin - current.end <= limits->gap;
        bool fits = next.end <= current.end || next.end - current.begin <= limits->piece_bytes;
        if (current.end > 0 && (next.begin < current.end || (close && fits))) {
            current.end = next.end > current.end ? next.end : current.end;
            continue;
        }
        if (!add_pieces(plan, &capacity, current, limits->piece_bytes))
            return false;
        current = next;
    }
    return add_pieces(plan, &capacity, current, limits->piece_bytes);
}

static bool make_requests(sap_plan *plan, const sap_plan_limits *limits) {
    size_t capacity = 0;
    sap_plan_request *last = NULL;
    for (size_t i = 0; i < plan->piece_count; i++) {
        size_t length = plan->pieces[i].length;
        bool joins = last && last->count < limits->request.ranges && length <= limits->request.range_bytes &&
                     plan->pieces[last->first].length <= limits->request.range_bytes &&
                     last->bytes + length <= limits->piece_bytes;
        if (!joins) {
            if (!sap_grow((void **)&plan->requests, &capacity, plan->request_count, sizeof *plan->requests))
                return false;
            last = &plan->requests[plan->request_count++];
            *last = (sap_plan_request){.first = i};
        }
        last->count++;
        last->bytes += length;
    }
    return true;
}

sap_status sap_plan_init(sap_plan *plan, const sap_range *ranges, size_t count, const sap_plan_limits *limits,
                         sap_error *err) {
    *plan = (sap_plan){0};
    sap_range *sorted = malloc((count ? count : 1) * sizeof *sorted);
    bool well = sorted != NULL;
    if (well) {
        if (count > 0)
            memcpy(sorted, ranges, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, by_offset);
        well = make_pieces(plan, sorted, count, limits) && make_requests(plan, limits);
    }
    free(sorted);
    if (well)
        return SAP_OK;
    sap_plan_release(plan);
    return sap_error_memory(err, "plan of requests");
}

void sap_plan_release(sap_plan *plan) {
    free(plan->pieces);
    free(plan->requests);
    *plan = (sap_plan){0};
}
