/* Where the steps of a ragged tile stand. */
#include "kernels.h"

void sap_steps_set(sap_steps *steps, int width) {
    int32_t alive[SAP_PARTS + 1] = {0}; /* steps for which columns from 16 g on are in use */
    for (int g = width / SAP_COLUMNS - 1; g >= 0; g--) {
        alive[g] = alive[g + 1];
        for (int t = g * SAP_COLUMNS; t < (g + 1) * SAP_COLUMNS; t++)
            alive[g] = steps->length[t] > alive[g] ? steps->length[t] : alive[g];
    }
    steps->count = alive[0];
    steps->part_count = 0;
    int64_t start = 0;
    for (int g = SAP_PARTS - 1; g >= 0; g--) {
        sap_part part = {alive[g + 1], alive[g] - alive[g + 1], (g + 1) * SAP_COLUMNS, start};
        if (part.count > 0)
            steps->parts[steps->part_count++] = part;
        start += (int64_t)part.count * part.width;
    }
}

sap_step_place sap_steps_place(const sap_steps *steps, int32_t t) {
    const sap_part *p = steps->parts;
    while (t >= p->first + p->count)
        p++;
    return (sap_step_place){
        .start = p->start + (int64_t)(t - p->first) * p->width,
        .width = p->width,
        .first = p->first,
        .end = p->first + p->count,
    };
}
