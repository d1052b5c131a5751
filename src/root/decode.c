/* Baskets to columns: numbers and lists of numbers straight into their place, anything else through the interpreter.
 * docs/format/ttree.md, § Entries. */
#include "root_internal.h"

#include <stdlib.h>

enum { MAP_OFFSET = 2, MOST_EMPTY = 1 << 24 };

static sap_status bad(const sap_decoding *d, int32_t entry, sap_error *err, const char *what) {
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: entry %lld: %s", d->where, (unsigned long long)d->place,
                         (long long)(d->first_entry + entry), what);
}

/* Bytes before entry j of the basket, entries being of the same size when there are no offsets. */
typedef struct starts {
    const uint8_t *offsets; /* big-endian, from the start of the key; or NULL */
    int64_t key_bytes;
    const int64_t *counts; /* or NULL */
    int64_t stride;
    int64_t end; /* of all */
    int32_t entries;
} starts;

static sap_status find_starts(const sap_decoding *d, starts *out, sap_error *err) {
    const sap_basket_data *b = d->basket;
    *out =
        (starts){.offsets = b->offsets, .key_bytes = b->header_bytes, .end = (int64_t)b->bytes, .entries = b->entries};
    if (b->offsets || b->entries == 0)
        return SAP_OK;
    if (d->counts) {
        out->counts = d->counts;
        return SAP_OK;
    }
    if (b->generated)
        return bad(d, 0, err, "the basket has no offsets, and the column that counts its items is not known");
    if (b->bytes % (size_t)b->entries != 0)
        return bad(d, 0, err, "the basket has no offsets, and its entries are not of one size");
    out->stride = (int64_t)b->bytes / b->entries;
    return SAP_OK;
}

/* Start of entry j, j ≤ entries, where offsets or a stride tell it; where counts do, their sum does. */
static int64_t start_at(const starts *s, int32_t j) {
    if (j >= s->entries)
        return s->end;
    if (s->offsets)
        return (int64_t)(int32_t)sap_be32(s->offsets + 4 * (size_t)j) - s->key_bytes;
    return s->stride * j;
}

/* ---- Lists of numbers --------------------------------------------------------------------------------------- */

static int64_t counted_before(const sap_decoding *d, int32_t entry) {
    int64_t sum = 0;
    for (int32_t j = 0; j < entry; j++)
        sum += d->counts[j];
    return sum;
}

sap_status sap_piece_count(const sap_decoding *d, sap_piece *piece, sap_error *err) {
    starts s;
    SAP_TRY(find_starts(d, &s, err));
    if (s.counts) {
        piece->items = counted_before(d, piece->end) - counted_before(d, piece->begin);
        return piece->items >= 0 ? SAP_OK : bad(d, piece->begin, err, "a negative number of items");
    }
    int64_t bytes = start_at(&s, piece->end) - start_at(&s, piece->begin) -
                    (int64_t)(piece->end - piece->begin) * d->program->header;
    if (bytes < 0 || bytes % d->program->item != 0)
        return bad(d, piece->begin, err, "its bytes do not hold a whole number of items");
    piece->items = bytes / d->program->item;
    return SAP_OK;
}

static int shift_of(uint32_t item) {
    for (int shift = 0; shift < 8; shift++)
        if (item == 1u << shift)
            return shift;
    return -1;
}

/* Any size of item, any source of starts; checks every entry. */
static sap_status offsets_by_division(const sap_decoding *d, const sap_piece *piece, const starts *s, int32_t *out,
                                      sap_error *err) {
    int64_t origin = start_at(s, piece->begin), before = origin, header = d->program->header;
    int64_t counted = s->counts ? counted_before(d, piece->begin) : 0, counted_first = counted;
    for (int32_t j = piece->begin; j < piece->end; j++) {
        int64_t items;
        if (s->counts) {
            if (s->counts[j] < 0)
                return bad(d, j, err, "a negative number of items");
            counted += s->counts[j];
            items = counted - counted_first;
        } else {
            int64_t end = start_at(s, j + 1);
            if (end - before < header || (end - before - header) % d->program->item != 0)
                return bad(d, j, err, "its bytes do not hold a whole number of items");
            items = (end - origin - header * (j + 1 - piece->begin)) / d->program->item;
            before = end;
        }
        out[j - piece->begin] = (int32_t)(piece->item_at + items);
    }
    return SAP_OK;
}

/* A framed vector: byte count, version, number of items (§ Collections). */
static bool header_fits(const uint8_t *p, int64_t length, uint32_t header, int64_t items) {
    enum { FRAMED = 10, COUNTED = 4, FLAGGED = 1 };
    if (header == FLAGGED)
        return *p != 0 || items == 0;
    if (header == COUNTED)
        return (int64_t)sap_be32(p) == items;
    return sap_be32(p) == ((uint32_t)(length - 4) | SAP_BYTE_COUNT_BIT) && !(sap_be16(p + 4) & SAP_MEMBERWISE_BIT) &&
           (int64_t)sap_be32(p + 6) == items;
}

static sap_status values_after_headers(const sap_decoding *d, const sap_piece *piece, const starts *s,
                                       const int32_t *offsets, uint8_t *out, sap_error *err) {
    const sap_number *number = &d->program->root.children[0].number;
    size_t count = (size_t)d->program->root.children[0].count;
    int64_t at = s->counts
                     ? counted_before(d, piece->begin) * d->program->item + (int64_t)piece->begin * d->program->header
                     : start_at(s, piece->begin);
    int64_t before = piece->item_at; /* offsets[0] is the piece before's to write, perhaps only now */
    for (int32_t j = piece->begin; j < piece->end; j++) {
        int64_t items = offsets[j - piece->begin + 1] - before;
        before += items;
        int64_t length = items * d->program->item + d->program->header;
        if (at < 0 || at + length > s->end)
            return bad(d, j, err, "it lies outside its basket");
        if (!header_fits(d->basket->data + at, length, d->program->header, items))
            return bad(d, j, err, "the header of its list does not fit its bytes");
        size_t n = (size_t)items * count;
        sap_number_convert(number, d->basket->data + at + d->program->header, n, out);
        out += n * number->size;
        at += length;
    }
    return SAP_OK;
}

static sap_status decode_jagged(const sap_decoding *d, const sap_piece *piece, sap_column *out, sap_error *err) {
    const sap_step_node *item = &d->program->root.children[0];
    int32_t *offsets = (int32_t *)(uintptr_t)out->offsets + piece->row;
    const sap_column *inner = &out->children[0];
    for (int i = 0; i < item->dim_count; i++)
        inner = &inner->children[0];
    size_t item_bytes = (size_t)item->count * item->number.size;
    uint8_t *values = (uint8_t *)(uintptr_t)inner->values + (size_t)piece->item_at * item_bytes;
    int64_t n = piece->end - piece->begin;
    starts s;
    SAP_TRY(find_starts(d, &s, err));
    int shift = s.offsets && d->program->header == 0 ? shift_of(d->program->item) : -1;
    if (shift >= 0) {
        /* the start behind the last entry is not among the offsets: it is the end of the data */
        int64_t listed = piece->end < s.entries ? n : n - 1;
        if (!sap_offsets_convert(s.offsets + 4 * (size_t)piece->begin, listed, shift, (int32_t)piece->item_at,
                                 offsets + 1))
            return bad(d, piece->begin, err, "the offsets of the basket do not rise in whole items");
        if (listed < n)
            offsets[n] = (int32_t)(piece->item_at + piece->items);
        if (offsets[n] != piece->item_at + piece->items || (n > 1 && offsets[n] < offsets[n - 1]))
            return bad(d, piece->begin, err, "the offsets of the basket do not fit its size");
    } else {
        SAP_TRY(offsets_by_division(d, piece, &s, offsets + 1, err));
        if (n > 0 && offsets[n] != piece->item_at + piece->items)
            return bad(d, piece->begin, err, "the offsets of the basket do not fit its size");
    }
    if (d->program->header)
        return values_after_headers(d, piece, &s, offsets, values, err);
    int64_t at = s.counts ? counted_before(d, piece->begin) * d->program->item : start_at(&s, piece->begin);
    if (at < 0 || at + piece->items * d->program->item > s.end)
        return bad(d, piece->begin, err, "it lies outside its basket");
    sap_number_convert(&item->number, d->basket->data + at, (size_t)piece->items * (size_t)item->count, values);
    return SAP_OK;
}

/* ---- Numbers and leaf lists ----------------------------------------------------------------------------------- */

static sap_status check_fixed(const sap_decoding *d, const sap_piece *piece, sap_error *err) {
    if ((uint64_t)piece->end * d->program->item > d->basket->bytes)
        return bad(d, (int32_t)(d->basket->bytes / d->program->item), err, "it lies outside its basket");
    return SAP_OK;
}

static uint8_t *place_of(sap_column *column, const sap_step_node *step, int64_t row) {
    for (int i = 0; i < step->dim_count; i++)
        column = &column->children[0];
    return (uint8_t *)(uintptr_t)column->values + (size_t)row * (size_t)step->count * step->number.size;
}

static sap_status decode_flat(const sap_decoding *d, const sap_piece *piece, sap_column *out, sap_error *err) {
    SAP_TRY(check_fixed(d, piece, err));
    const sap_step_node *step = &d->program->root;
    size_t n = (size_t)(piece->end - piece->begin) * (size_t)step->count;
    sap_number_convert(&step->number, d->basket->data + (size_t)piece->begin * d->program->item, n,
                       place_of(out, step, piece->row));
    return SAP_OK;
}

static sap_status decode_leaves(const sap_decoding *d, const sap_piece *piece, sap_column *out, sap_scratch *scratch,
                                sap_error *err) {
    SAP_TRY(check_fixed(d, piece, err));
    const uint8_t *data = d->basket->data + (size_t)piece->begin * d->program->item;
    size_t n = (size_t)(piece->end - piece->begin);
    for (int i = 0; i < d->program->root.child_count; i++) {
        const sap_step_node *step = &d->program->root.children[i];
        size_t bytes = (size_t)step->count * step->number.stored;
        if (!sap_space_reserve(&scratch->gathered, n * bytes))
            return sap_error_memory(err, d->where);
        for (size_t j = 0; j < n; j++)
            memcpy(scratch->gathered.data + j * bytes, data + j * d->program->item, bytes);
        sap_number_convert(&step->number, scratch->gathered.data, n * (size_t)step->count,
                           place_of(&out->children[i], step, piece->row));
        data += bytes;
    }
    return SAP_OK;
}

/* ---- Anything else --------------------------------------------------------------------------------------------- */

/* The counts for one entry: those of all items of a split collection, or a single one. */
static void find_outside(const sap_column *outside, int64_t row, sap_interpreter *in) {
    const sap_column *values = outside;
    int64_t first = row, count = 1;
    if (outside->type == SAP_LIST) {
        values = &outside->children[0];
        first = outside->offsets[row];
        count = outside->offsets[row + 1] - first;
    }
    in->counts_type = values->type;
    in->counts = (const uint8_t *)values->values + (size_t)first * sap_type_size(values->type);
    in->counts_left = (size_t)count;
}

static int64_t first_count(const sap_interpreter *in) {
    int32_t count = 0;
    if (in->counts_left && sap_type_size(in->counts_type) == sizeof count)
        memcpy(&count, in->counts, sizeof count);
    return count;
}

static sap_status decode_tree(const sap_decoding *d, sap_piece *piece, sap_error *err) {
    starts s;
    SAP_TRY(find_starts(d, &s, err));
    if (s.counts)
        return bad(d, piece->begin, err, "the basket has no offsets, and its items are no numbers");
    if (d->basket->bytes == 0 && piece->end - piece->begin > MOST_EMPTY)
        return bad(d, piece->begin, err, "so many entries have no bytes at all");
    piece->builders = calloc((size_t)d->program->slots, sizeof *piece->builders);
    if (!piece->builders)
        return sap_error_memory(err, d->where);
    sap_interpreter in = {.program = d->program, .builders = piece->builders, .probe = d->probe};
    for (int32_t j = piece->begin; j < piece->end; j++) {
        int64_t begin = start_at(&s, j), end = start_at(&s, j + 1);
        if (d->outside)
            find_outside(d->outside, j - piece->begin, &in);
        if (d->outside && !d->program->outside && first_count(&in) > 0)
            return bad(d, j, err, "its items have no bytes");
        if (begin < 0 || end < begin || end > s.end)
            return bad(d, j, err, "it lies outside its basket");
        in.c = sap_cursor_init(d->basket->data + begin, (size_t)(end - begin), (uint64_t)begin);
        in.origin = (uint64_t)begin + d->basket->header_bytes + MAP_OFFSET;
        if (sap_interpret(&in))
            continue;
        if (in.out_of_memory)
            return sap_error_memory(err, d->where);
        if (in.problem[0])
            return bad(d, j, err, in.problem);
        char text[120];
        (void)snprintf(text, sizeof text, "it needs %zu bytes at byte %zu, %zu are left", in.c.wanted, in.c.failed_at,
                       in.c.length - in.c.failed_at);
        return bad(d, j, err, text);
    }
    return SAP_OK;
}

sap_status sap_piece_decode(const sap_decoding *d, sap_piece *piece, sap_column *out, sap_scratch *scratch,
                            sap_error *err) {
    switch (d->program->shape) {
    case SAP_SHAPE_FLAT:
        return decode_flat(d, piece, out, err);
    case SAP_SHAPE_JAGGED:
        return decode_jagged(d, piece, out, err);
    case SAP_SHAPE_LEAVES:
        return decode_leaves(d, piece, out, scratch, err);
    default:
        return decode_tree(d, piece, err);
    }
}
