/* The memory that recurrent kernels take, and how it is laid out. */
#include "recurrent.h"

#include <string.h>

void sap_columns_copy(int64_t rows, int from_width, const float *from, int to_width, float *to) {
    int both = from_width < to_width ? from_width : to_width;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(to + r * to_width, from + r * from_width, (size_t)both * sizeof *to);
        memset(to + r * to_width + both, 0, (size_t)(to_width - both) * sizeof *to);
    }
}

sap_recurrent_layout sap_recurrent_lay_out(const sap_recurrent *r, int64_t sum_of_widths) {
    bool inputs = sap_activation_needs_input(r->activation.kind) ||
                  (r->cell != SAP_CELL_SIMPLE && sap_activation_needs_input(r->recurrent_activation.kind));
    bool lstm = r->cell == SAP_CELL_LSTM;
    int64_t state = sum_of_widths * r->units, gates = state * sap_cell_values(r->cell);
    sap_recurrent_layout layout = {.gates = 0, .inputs = inputs ? gates : -1, .c = -1};
    layout.h = inputs ? 2 * gates : gates;
    layout.total = layout.h + state;
    if (lstm) {
        layout.c = layout.total;
        layout.total += state;
    }
    return layout;
}

int64_t sap_recurrent_kept(const sap_recurrent *r, int64_t steps) {
    return sap_recurrent_lay_out(r, steps * SAP_TILE).total;
}

/* What the tiles of bf16 take besides (panels_tiles.h): dimensions are filled up to 32, outer products are taken of 80 rows. */
static int64_t tile_work(const sap_recurrent *r, int64_t gates) {
    int64_t inputs = (r->inputs + 31) / 32 * 32, units = (r->units + 31) / 32 * 32;
    int64_t x = r->x_masks > 1 ? r->x_masks : 1, h = r->h_masks > 1 ? r->h_masks : 1;
    return gates * units * (inputs + units) + SAP_TILE / 2 * (x * inputs + (h + SAP_GATES) * units) +
           80 * SAP_CHUNK_COLUMNS;
}

int64_t sap_recurrent_work(const sap_recurrent *r, bool backward) {
    int64_t gates = sap_cell_gates(r->cell), values = sap_cell_values(r->cell);
    int64_t weights = gates * r->units * (r->inputs + r->units);
    int64_t masked = (int64_t)r->x_masks * r->inputs + (int64_t)r->h_masks * r->units;
    int64_t columns = backward ? SAP_CHUNK_COLUMNS : SAP_TILE;
    /* packed weights, biases or their gradients, masked operands, and by column: gates or their gradients, states */
    return weights + 2 * values * r->units + columns * (masked + values * r->units) +
           SAP_TILE * (8 * r->units + r->inputs) + 1024 + tile_work(r, gates);
}
