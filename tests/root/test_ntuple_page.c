/* Pages of indices: whatever they are stored as, whole and batch by batch, the offsets are those of the numbers written; and
 * what is wrong with a page concerns the batches that need it. */
#include "root/ntuple.h"
#include "test_support.h"

enum { MOST = 100, INDEX_BYTES = 8 };

typedef struct stored_page {
    sap_ntuple_column column;
    sap_page page;
    uint64_t indices[MOST];
    uint8_t bytes[MOST * INDEX_BYTES];
} stored_page;

static void store(stored_page *s) {
    const sap_column_type *type = sap_column_type_get(s->column.type);
    size_t n = s->page.elements, size = s->column.bits / 8;
    bool delta = type->encoding == SAP_ENCODING_DELTA;
    for (size_t i = 0; i < n; i++) {
        uint64_t v = s->indices[i] - (delta && i ? s->indices[i - 1] : 0);
        for (size_t k = 0; k < size; k++)
            s->bytes[delta ? k * n + i : i * size + k] = (uint8_t)(v >> (8 * k));
    }
    s->page.at.bytes = n * size;
}

/* A reader of one column, whose pages have arrived. */
typedef struct reader {
    sap_file file; /* which counts what is decoded */
    sap_ntuple ntuple;
    sap_series series;
    sap_node described;
    sap_scan_node node;
    sap_scratch scratch;
    int32_t offsets[MOST];
} reader;

static void open_reader(reader *r) {
    *r = (reader){.series.type = SAP_TYPE_NONE};
    r->ntuple.tree.file = &r->file;
    r->described = (sap_node){.kind = SAP_NODE_LIST, .series = &r->series};
    r->node = (sap_scan_node){.node = &r->described, .where = "here", .offsets = r->offsets};
}

static void close_reader(reader *r) {
    sap_space_release(&r->node.held[0].memory);
    sap_scratch_release(&r->scratch);
}

static sap_status decode(reader *r, const stored_page *s, size_t begin, size_t end, sap_page_piece *out,
                         sap_error *err) {
    bool whole = begin == 0 && end == s->page.elements;
    *out = (sap_page_piece){.node = &r->node,
                            .column = &s->column,
                            .page = &s->page,
                            .begin = begin,
                            .end = end,
                            .held = whole ? NULL : &r->node.held[0],
                            .fetched = s->bytes};
    memset(r->offsets, 0x55, sizeof r->offsets);
    return sap_page_piece_decode(&r->ntuple, out, &r->scratch, err);
}

static void assert_decodes(reader *r, const stored_page *s, size_t begin, size_t end) {
    sap_page_piece piece;
    assert_ok(decode(r, s, begin, end, &piece, err));
    assert_true(piece.first == s->indices[begin] && piece.last == s->indices[end - 1]);
    for (size_t i = begin; i < end; i++)
        assert_true((uint32_t)r->offsets[i - begin] == s->indices[i] - s->indices[begin]);
}

static void parts_are_those_of_the_numbers_written(void **state) {
    (void)state;
    const uint16_t types[] = {0x0E, 0x0F, 0x1A, 0x1B};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (uint32_t n = 1; n <= MOST; n++)
            for (size_t step = 1; step <= n; step += 6) {
                uint16_t bits = sap_column_type_get(types[t])->least_bits;
                stored_page s = {.column = {.type = types[t], .bits = bits}, .page.elements = n};
                s.indices[0] = bits == 64 ? UINT64_C(5000000000) : UINT64_C(4000000000);
                for (size_t i = 1; i < n; i++)
                    s.indices[i] = s.indices[i - 1] + sap_mix(n, i) % 1000000;
                store(&s);
                reader r;
                open_reader(&r);
                assert_decodes(&r, &s, 0, n);
                for (size_t begin = 0; begin < n; begin += step) {
                    assert_decodes(&r, &s, begin, begin + step < n ? begin + step : n);
                    if (step < n) /* it is held */
                        memset(s.bytes, 0xAA, sizeof s.bytes);
                }
                close_reader(&r);
            }
}

/* Between index wrong − 1 and index wrong is a step that no batch may hold: other batches do not mind. */
static void check_step(uint16_t type, uint64_t first, uint64_t step, sap_status expected, const char *text) {
    stored_page fine = {.column = {.type = type, .bits = sap_column_type_get(type)->least_bits},
                        .page.elements = 4,
                        .indices = {1, 2, 4, 8}};
    store(&fine);
    for (uint32_t n = 2; n <= MOST; n += 7)
        for (size_t wrong = 1; wrong < n; wrong++) {
            stored_page s = {.column = {.type = type, .bits = sap_column_type_get(type)->least_bits},
                             .page.elements = n};
            for (size_t i = 0; i < n; i++)
                s.indices[i] = first + i + (i >= wrong ? step : 0);
            store(&s);
            reader r;
            open_reader(&r);
            sap_page_piece piece;
            assert_error(expected, text, decode(&r, &s, 0, n, &piece, err));
            assert_decodes(&r, &fine, 1, 3); /* held before it */
            if (n > 2)
                assert_error(expected, text, decode(&r, &s, wrong - 1, wrong + 1, &piece, err));
            assert_decodes(&r, &s, 0, wrong);
            assert_decodes(&r, &s, wrong, n);
            close_reader(&r);
        }
}

static void wrong_steps_concern_their_batches(void **state) {
    (void)state;
    const char *falls = "an index is less than the one before", *many = "more than 2^31 items in one batch";
    const uint64_t billions = UINT64_C(5000000000), half = UINT64_C(1) << 31;
    check_step(0x1B, billions, 0 - UINT64_C(1000), SAP_EFORMAT, falls);
    check_step(0x0F, billions, 0 - UINT64_C(1000), SAP_EFORMAT, falls);
    check_step(0x1A, 5000, 0 - UINT64_C(1000), SAP_EFORMAT, falls);
    check_step(0x1A, UINT32_MAX - MOST, 0 - half, SAP_EFORMAT, falls);
    check_step(0x1B, billions, half, SAP_EMEMORY, many);
    check_step(0x1B, billions, half << 1, SAP_EMEMORY, many);
    check_step(0x1B, billions, half << 20, SAP_EMEMORY, many);
    check_step(0x0F, billions, half, SAP_EMEMORY, many);
    check_step(0x1A, 5, half, SAP_EMEMORY, many);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_those_of_the_numbers_written),
                                       cmocka_unit_test(wrong_steps_concern_their_batches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
