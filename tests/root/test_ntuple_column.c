/* Parts of pages: the same values as in the page decoded whole, at every begin and length. */
#include "root/ntuple.h"
#include "test_support.h"

static void parts_are_what_the_whole_has_there(void **state) {
    (void)state;
    enum { MOST = 70, LARGEST = 12 };
    uint8_t page[MOST * LARGEST], whole[MOST * LARGEST], part[MOST * LARGEST];
    size_t compared = 0;
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = (uint8_t)sap_mix(4, i);
    for (uint16_t k = 0; k < 0x40; k++) {
        const sap_column_type *type = sap_column_type_get(k);
        if (!type || type->encoding == SAP_ENCODING_UNKNOWN)
            continue;
        for (uint16_t bits = type->least_bits; bits <= type->most_bits; bits = (uint16_t)(bits + 7)) {
            sap_ntuple_column column = {.type = k, .bits = bits, .minimum = -1, .maximum = 3};
            sap_page_decode(&column, page, MOST, 0, MOST, whole);
            for (size_t begin = 0; begin < MOST; begin++)
                for (size_t n = 0; begin + n <= MOST; n++) {
                    if (type->encoding == SAP_ENCODING_DELTA && begin > 0) /* these are decoded from the first on */
                        break;
                    sap_page_decode(&column, page, MOST, begin, n, part);
                    assert_memory_equal(part, whole + begin * type->size, n * type->size);
                    compared++;
                }
        }
    }
    assert_true(compared > 20000);
}

/* The sums of differences are what a page decoded number by number has, or are refused. */
static void assert_sums(const uint64_t *indices, size_t n, size_t bits, bool expected) {
    enum { LARGEST = 8 };
    uint8_t *page = malloc(n * LARGEST); /* that no byte beyond is read */
    int32_t *out = malloc(n * sizeof *out);
    assert_true(page && out);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < bits / 8; k++)
            page[k * n + i] = (uint8_t)((indices[i] - (i ? indices[i - 1] : 0)) >> (8 * k));
    uint64_t first;
    assert_int_equal(sap_deltas_sum(page, n, bits, &first, out), expected);
    for (size_t i = 0; expected && i < n; i++)
        assert_true(first + (uint32_t)out[i] == indices[i]);
    free(page);
    free(out);
}

static void sums_rise_and_fit(void **state) {
    (void)state;
    enum { MOST = 70 };
    uint64_t indices[MOST];
    for (size_t bits = 32; bits <= 64; bits += 32)
        for (size_t n = 1; n <= MOST; n++) {
            const uint64_t end = UINT64_C(1) << (bits == 64 ? 63 : 32), most = INT32_MAX;
            for (size_t i = 0; i < n; i++)
                indices[i] = end - n + i;
            assert_sums(indices, n, bits, true);
            for (size_t step = 1; step < n; step++) {
                for (size_t i = 0; i < n; i++) /* in one step and in two: as far as can be, and one further */
                    indices[i] = 7 + (i >= step ? most : 0);
                assert_sums(indices, n, bits, true);
                indices[n - 1]++;
                assert_sums(indices, n, bits, false);
                for (size_t i = 0; i < n; i++)
                    indices[i] = 7 + (i >= step ? most / 2 + 1 : 0) + (i >= step / 2 + 1 ? most / 2 : 0);
                assert_sums(indices, n, bits, true);
                indices[n - 1]++;
                assert_sums(indices, n, bits, false);
                for (size_t i = 0; i < n; i++) /* one less */
                    indices[i] = 1000 + i - (i >= step ? 2 : 0);
                assert_sums(indices, n, bits, false);
                for (size_t i = 0; i < n; i++) /* one after which the numbers have no room */
                    indices[i] = end - 5 + (i >= step ? 5 : 0);
                assert_sums(indices, n, bits, false);
                for (size_t k = 31; k < bits; k++) { /* each bit that a difference must not have */
                    for (size_t i = 0; i < n; i++)
                        indices[i] = 1 + (i >= step ? UINT64_C(1) << k : 0);
                    assert_sums(indices, n, bits, false);
                }
            }
        }
    indices[0] = UINT64_MAX; /* the sum is small again */
    indices[1] = 3;
    assert_sums(indices, 2, 64, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_what_the_whole_has_there),
                                       cmocka_unit_test(sums_rise_and_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
