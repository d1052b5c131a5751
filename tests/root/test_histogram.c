/* Histograms in C: contents, errors and axes of files of the corpus, and what cannot be read. */
#include "data_folder.h"
#include "test_support.h"

#include <math.h>
#include <sapwood/root.h>

static sap_file *open_data(const char *name) {
    char path[1000];
    sap_file *file = NULL;
    if (!data_path(name, path, sizeof path))
        skip();
    assert_ok(sap_file_open(path, NULL, &file, err));
    return file;
}

/* Of a histogram with every weight 1 what lies in the bins is what was filled, and the errors are its square roots. */
static void test_unweighted(void **state) {
    (void)state;
    sap_file *file = open_data("corpus/scikit-hep-testdata/uproot-hepdata-example.root");
    sap_histogram *h = NULL;
    assert_ok(sap_histogram_open(file, "hpx", &h, err));
    sap_file_close(file); /* it lives on */
    assert_string_equal(h->class_name, "TH1F");
    assert_string_equal(h->title, "This is the px distribution");
    assert_int_equal(h->dimensions, 1);
    assert_int_equal(h->axes[0].bins, 100);
    assert_int_equal(h->cells, 102);
    assert_true(h->axes[0].regular && h->axes[0].edges[0] == -4 && h->axes[0].edges[100] == 4);
    assert_true(h->axes[0].labels == NULL && !h->profile && h->counts == NULL);
    double sum = 0;
    for (int64_t i = 0; i < h->cells; i++) {
        sum += h->values[i];
        assert_true(h->variances[i] == h->values[i]);
    }
    assert_true(sum == h->entries && h->entries == 75000);
    assert_true(fabs(h->sumwx / h->sumw) < 0.02 && h->sumw <= h->entries);
    sap_histogram_close(h);
    sap_histogram_close(NULL);
}

static void test_profile_and_two_dimensions(void **state) {
    (void)state;
    sap_file *file = open_data("corpus/scikit-hep-testdata/uproot-hepdata-example.root");
    sap_histogram *h = NULL;
    assert_ok(sap_histogram_open(file, "hprof;1", &h, err));
    assert_true(h->profile && h->error_option == ' ');
    double entries = 0;
    for (int64_t i = 0; i < h->cells; i++) {
        entries += h->counts[i];
        assert_true(h->counts[i] == 0 || fabs(h->variances[i] - h->spreads[i] / h->counts[i]) < 1e-12);
    }
    assert_true(entries == h->entries);
    sap_histogram_close(h);
    assert_ok(sap_histogram_open(file, "hpxpy", &h, err));
    assert_int_equal(h->dimensions, 2);
    assert_int_equal(h->cells, (h->axes[0].bins + 2) * (h->axes[1].bins + 2));
    sap_histogram_close(h);
    sap_file_close(file);
}

static void test_what_is_none(void **state) {
    (void)state;
    sap_file *file = open_data("corpus/scikit-hep-testdata/uproot-hepdata-example.root");
    sap_histogram *h = NULL;
    size_t histograms = 0;
    for (size_t i = 0; i < sap_file_key_count(file); i++)
        histograms += sap_key_is_histogram(file, sap_file_key(file, i));
    assert_int_equal(histograms, 3);
    assert_error(SAP_ENOTFOUND, "nearest: hpx", sap_histogram_open(file, "hpy", &h, err));
    assert_error(SAP_ETYPE, "is a TNtuple", sap_histogram_open(file, "ntuple", &h, err));
    sap_file_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unweighted),
                                       cmocka_unit_test(test_profile_and_two_dimensions),
                                       cmocka_unit_test(test_what_is_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
