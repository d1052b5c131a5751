/* Tables of the sample files: what is wanted comes in the wanted shape, conditions keep the right entries, parts cover everything once. */
#include "test_support.h"

#include "table/table_internal.h"

static char paths[3][600];
static const char *urls[3];

static int find_sample(void **state) {
    (void)state;
    static const char *const names[] = {"qcd", "ttbar", "wjets"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(paths[i], sizeof *paths, "%s/examples/topology/data/%s.root", getenv("SAPWOOD_SOURCE"),
                       names[i]);
        urls[i] = paths[i];
    }
    return 0;
}

/* Jet: list<record{PT, Eta}>, Jet_size, as far as `fields` says. */
static void make_wanted(const sap_field *fields, int32_t count, struct ArrowSchema *out) {
    assert_ok(sap_schema_export(fields, count, out, err));
}

static const sap_field jet_fields[] = {{.name = "PT", .type = SAP_FLOAT32}, {.name = "Eta", .type = SAP_FLOAT64}};
static const sap_field jet = {.name = "item", .type = SAP_RECORD, .count = 2, .children = jet_fields};
static const sap_field jet_and_size[] = {{.name = "Jet", .type = SAP_LIST, .count = 1, .children = &jet},
                                         {.name = "Jet_size", .type = SAP_INT64}};

typedef struct sums {
    int64_t entries, items, sizes;
    double pt, eta;
} sums;

static sums read_all(const sap_table_reader_options *options, sap_table_reader_stats *stats) {
    sap_table_reader *reader;
    struct ArrowArray array;
    sums s = {0};
    assert_ok(sap_table_reader_open(options, NULL, &reader, err));
    for (;;) {
        assert_ok(sap_table_reader_next(reader, &array, err));
        if (!array.release)
            break;
        const struct ArrowArray *list = array.children[0], *item = list->children[0];
        const int32_t *offsets = list->buffers[1];
        assert_int_equal(offsets[0], 0);
        assert_int_equal(offsets[array.length], item->length);
        s.entries += array.length;
        s.items += item->length;
        for (int64_t i = 0; i < array.length; i++) {
            s.sizes += ((const int64_t *)array.children[1]->buffers[1])[i];
            assert_int_equal(offsets[i + 1] - offsets[i], ((const int64_t *)array.children[1]->buffers[1])[i]);
        }
        for (int64_t i = 0; i < item->length; i++) {
            s.pt += (double)((const float *)item->children[0]->buffers[1])[i];
            s.eta += ((const double *)item->children[1]->buffers[1])[i];
        }
        array.release(&array);
    }
    sap_table_reader_stats_get(reader, stats);
    sap_table_reader_close(reader);
    return s;
}

static void test_a_collection_is_a_list_of_records(void **state) {
    (void)state;
    struct ArrowSchema wanted;
    make_wanted(jet_and_size, 2, &wanted);
    sap_table_reader_stats all, some;
    const sums whole = read_all(&(sap_table_reader_options){.url = urls[1], .wanted = &wanted}, &all);
    assert_true(whole.entries > 0 && whole.items == whole.sizes && whole.pt > 0);
    assert_int_equal(all.kept, whole.entries);
    assert_true(all.baskets >= 3 && all.stored_bytes > 0 && all.bytes > all.stored_bytes);
    const char *hints[] = {"Jet_size >= 6", "nowhere > 3"};
    const sums kept = read_all(
        &(sap_table_reader_options){.url = urls[1], .wanted = &wanted, .hints = hints, .hint_count = 2}, &some);
    assert_true(kept.entries > 0 && kept.entries < whole.entries && kept.items >= 6 * kept.entries);
    assert_int_equal(some.kept, kept.entries);
    assert_int_equal(some.read, whole.entries);
    const sums rest =
        read_all(&(sap_table_reader_options){.url = urls[1], .wanted = &wanted, .where = "!(Jet_size >= 6)"}, &some);
    assert_int_equal(kept.entries + rest.entries, whole.entries);
    assert_true(kept.pt + rest.pt > whole.pt * (1 - 1e-9) && kept.pt + rest.pt < whole.pt * (1 + 1e-9));
    wanted.release(&wanted);
}

static void test_what_is_not_there(void **state) {
    (void)state;
    const sap_field fields[] = {{.name = "nowhere", .type = SAP_STRING}};
    struct ArrowSchema wanted;
    struct ArrowArray array;
    sap_table_reader *reader;
    make_wanted(fields, 1, &wanted);
    const sap_table_reader_options strict = {.url = urls[0], .wanted = &wanted},
                                   lenient = {.url = urls[0], .wanted = &wanted, .lenient = true};
    assert_error(SAP_ENOTFOUND, "qcd.root:Delphes: no column \"nowhere\"",
                 sap_table_reader_open(&strict, NULL, &reader, err));
    assert_ok(sap_table_reader_open(&lenient, NULL, &reader, err));
    assert_ok(sap_table_reader_next(reader, &array, err));
    assert_true(array.length > 0 && array.children[0]->null_count == array.length);
    array.release(&array);
    sap_table_reader_close(reader);
    wanted.release(&wanted);
}

static void test_entries_are_numbered(void **state) {
    (void)state;
    const sap_field fields[] = {{.name = "entry", .type = SAP_INT64}, {.name = "file", .type = SAP_STRING}};
    struct ArrowSchema wanted;
    make_wanted(fields, 2, &wanted);
    static const char *const conditions[] = {NULL, "Jet_size >= 6"};
    for (int i = 0; i < 2; i++) {
        const sap_table_reader_options options = {
            .url = urls[1], .begin = 10, .wanted = &wanted, .where = conditions[i], .identity = true};
        sap_table_reader *reader;
        struct ArrowArray array;
        int64_t before = 9, count = 0;
        assert_ok(sap_table_reader_open(&options, NULL, &reader, err));
        for (;;) {
            assert_ok(sap_table_reader_next(reader, &array, err));
            if (!array.release)
                break;
            const int32_t *ends = array.children[1]->buffers[1];
            for (int64_t k = 0; k < array.length; k++, count++) {
                int64_t entry = ((const int64_t *)array.children[0]->buffers[1])[k];
                assert_true(i ? entry > before : entry == before + 1);
                assert_memory_equal((const char *)array.children[1]->buffers[2] + ends[k], "ttbar.root", 10);
                assert_int_equal(ends[k + 1], ends[k] + 10);
                before = entry;
            }
            array.release(&array);
        }
        assert_true(count > 0);
        sap_table_reader_close(reader);
    }
    wanted.release(&wanted);
}

static void test_parts_cover_every_entry_once(void **state) {
    (void)state;
    struct ArrowSchema wanted;
    sap_table *table;
    make_wanted(jet_and_size, 2, &wanted);
    assert_ok(sap_table_open(urls, 3, NULL, NULL, &table, err));
    assert_int_equal(sap_table_file_count(table), 3);
    for (uint64_t bytes = 1000; bytes < 1000000000; bytes *= 1000) {
        sap_table_slice *slices;
        size_t count;
        int64_t covered = 0, all = 0;
        assert_ok(sap_table_plan(table, &wanted, bytes, 1, &slices, &count, err));
        assert_true(count >= 3);
        for (size_t i = 0; i < count; i++) {
            bool goes_on = i > 0 && slices[i].file == slices[i - 1].file;
            assert_int_equal(slices[i].begin, goes_on ? slices[i - 1].end : 0);
            assert_true(i == 0 || slices[i].part == slices[i - 1].part || slices[i].part == slices[i - 1].part + 1);
            covered += slices[i].end - slices[i].begin;
        }
        for (size_t i = 0; i < 3; i++)
            all += sap_table_file_get(table, i)->entries;
        assert_int_equal(covered, all);
        free(slices);
    }
    sap_table_close(table);
    wanted.release(&wanted);
}

static void test_files_that_do_not_open_are_left_out(void **state) {
    (void)state;
    char text[600];
    (void)snprintf(text, sizeof text, "%s/LICENSE", getenv("SAPWOOD_SOURCE"));
    const char *some[] = {urls[0], getenv("SAPWOOD_SOURCE")}, *bad[] = {urls[0], text};
    sap_table *table;
    assert_error(SAP_ENOTFOUND, "*.root", sap_table_open(some, 2, NULL, NULL, &table, err));
    assert_error(SAP_EFORMAT, "LICENSE", sap_table_open(bad, 2, NULL, NULL, &table, err));
    assert_ok(sap_table_open(bad, 2, &(sap_table_options){.skip_bad = true}, NULL, &table, err));
    assert_null(sap_table_file_get(table, 0)->problem);
    assert_non_null(strstr(sap_table_file_get(table, 1)->problem, "LICENSE"));
    sap_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_collection_is_a_list_of_records),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_entries_are_numbered),
        cmocka_unit_test(test_parts_cover_every_entry_once),
        cmocka_unit_test(test_files_that_do_not_open_are_left_out),
    };
    return cmocka_run_group_tests(tests, find_sample, NULL);
}
