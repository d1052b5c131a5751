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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_what_the_whole_has_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
