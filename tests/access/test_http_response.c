/* Answers of web servers, sound and hostile, in pieces of any length: what arrives is right or missing, never elsewhere. */
#include "test_support.h"

#include "access/http_response.h"

enum { SIZE = 5000 };
static uint8_t file[SIZE];

static int make_file(void **state) {
    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        file[i] = (uint8_t)sap_mix(3, i);
    return 0;
}

/* What is asked for, each range between two guards. */
typedef struct request {
    sap_range ranges[4];
    size_t count;
    uint8_t memory[4][1002];
} request;

static void make_request(request *q, size_t count, uint64_t seed) {
    memset(q, 0xEE, sizeof *q);
    q->count = count;
    uint64_t at = sap_mix(seed, 0) % 300;
    for (size_t i = 0; i < count; i++) {
        size_t length = 1 + sap_mix(seed, 2 * i + 1) % 900;
        q->ranges[i] = (sap_range){at, length, q->memory[i] + 1};
        at += length + 1 + sap_mix(seed, 2 * i + 2) % 300;
    }
}

/* Whatever came: right where it is said to be, and nothing behind it. */
static void check(const request *q, const sap_http_response *r) {
    for (size_t i = 0; i < q->count; i++) {
        assert_true(r->filled[i] <= q->ranges[i].length);
        assert_memory_equal(q->ranges[i].data, file + q->ranges[i].offset, r->filled[i]);
        assert_int_equal(q->memory[i][0], 0xEE);
        for (size_t j = 1 + r->filled[i]; j < sizeof q->memory[i]; j++)
            assert_int_equal(q->memory[i][j], 0xEE);
    }
}

static void header(sap_http_response *r, const char *line) {
    sap_http_response_header(r, line, strlen(line));
}

static bool body(sap_http_response *r, const void *data, size_t length, uint64_t seed) {
    const uint8_t *at = data;
    for (size_t i = 0; length > 0; i++) {
        size_t part = 1 + sap_mix(seed, i) % 40;
        part = part < length ? part : length;
        uint8_t *copy = malloc(part); /* so that reading beyond is seen */
        assert_non_null(copy);
        memcpy(copy, at, part);
        bool well = sap_http_response_body(r, copy, part);
        free(copy);
        if (!well)
            return false;
        at += part;
        length -= part;
    }
    return true;
}

static void add_part(char *out, size_t *used, uint64_t first, uint64_t last, const char *total) {
    *used +=
        (size_t)sprintf(out + *used, "\r\n--a(b)c\r\ncontent-type: x/y\r\nContent-RANGE: bytes %llu-%llu/%s\r\n\r\n",
                        (unsigned long long)first, (unsigned long long)last, total);
    memcpy(out + *used, file + first, last - first + 1);
    *used += last - first + 1;
}

static void test_one_part(void **state) {
    (void)state;
    request q;
    sap_http_response r;
    make_request(&q, 1, 1);
    char line[100];
    assert_true(sap_http_response_init(&r, q.ranges, 1));
    header(&r, "HTTP/1.1 302 Found\r\n");
    header(&r, "ETag: \"old\"\r\n");
    header(&r, "HTTP/2 206 \r\n");
    header(&r, "etag: \"new\"\r\n");
    header(&r, "Last-Modified: today\r\n");
    header(&r, "not a field\r\n");
    (void)snprintf(line, sizeof line, "content-range: bytes %llu-%llu/5000\r\n", (unsigned long long)q.ranges[0].offset,
                   (unsigned long long)(q.ranges[0].offset + q.ranges[0].length - 1));
    header(&r, line);
    assert_int_equal(r.status, 206);
    assert_string_equal(r.etag, "\"new\"");
    assert_string_equal(r.modified, "today");
    assert_int_equal(r.total, 5000);
    assert_true(body(&r, file + q.ranges[0].offset, q.ranges[0].length, 1));
    assert_true(sap_http_response_whole(&r));
    check(&q, &r);
    assert_false(body(&r, file, 10, 1)); /* more than was said */
    check(&q, &r);
    sap_http_response_release(&r);
}

/* order: as asked, backwards, all in one part, each twice. */
static void test_parts(void **state) {
    (void)state;
    static char text[40000];
    for (uint64_t seed = 0; seed < 400; seed++) {
        request q;
        sap_http_response r;
        make_request(&q, 2 + seed % 3, seed);
        size_t used = 0;
        const uint64_t end = q.ranges[q.count - 1].offset + q.ranges[q.count - 1].length;
        for (size_t i = 0; i < q.count && seed % 4 != 2; i++) {
            const sap_range *range = &q.ranges[seed % 4 == 1 ? q.count - 1 - i : i];
            for (uint64_t twice = 0; twice < 1 + (seed % 4 == 3); twice++)
                add_part(text, &used, range->offset, range->offset + range->length - 1, seed % 5 ? "5000" : "*");
        }
        if (seed % 4 == 2)
            add_part(text, &used, q.ranges[0].offset, end - 1, "5000");
        used += (size_t)sprintf(text + used, "\r\n--a(b)c--\r\nepilogue");
        assert_true(sap_http_response_init(&r, q.ranges, q.count));
        header(&r, "HTTP/1.1 206 Partial Content");
        header(&r, seed % 2 ? "Content-Type: multipart/byteranges; boundary=a(b)c"
                            : "content-type: Multipart/ByteRanges; x=y; boundary=\"a(b)c\"");
        assert_true(body(&r, text, used, seed));
        assert_true(sap_http_response_whole(&r));
        check(&q, &r);
        sap_http_response_release(&r);
    }
}

/* Any bits flipped in the headers of parts: never a crash, never bytes outside. Which bytes come may then be wrong, as the
 * server says they are those asked for. */
static void test_hostile(void **state) {
    (void)state;
    static char text[40000];
    for (uint64_t seed = 0; seed < 3000; seed++) {
        request q;
        sap_http_response r;
        make_request(&q, 3, seed);
        size_t used = 0;
        for (size_t i = 0; i < q.count; i++)
            add_part(text, &used, q.ranges[i].offset, q.ranges[i].offset + q.ranges[i].length - 1, "5000");
        for (uint64_t i = 0; i < 1 + seed % 8; i++)
            text[sap_mix(seed, i) % used] ^= (char)(1 << sap_mix(seed, 50 + i) % 8);
        if (seed % 3 == 0)
            used = sap_mix(seed, 99) % used;
        assert_true(sap_http_response_init(&r, q.ranges, q.count));
        header(&r, "HTTP/1.1 206 Partial Content");
        header(&r, "Content-Type: multipart/byteranges; boundary=a(b)c");
        (void)body(&r, text, used, seed);
        for (size_t i = 0; i < q.count; i++) {
            assert_true(r.filled[i] <= q.ranges[i].length);
            assert_int_equal(q.memory[i][0], 0xEE);
            for (size_t j = 1 + r.filled[i]; j < sizeof q.memory[i]; j++)
                assert_int_equal(q.memory[i][j], 0xEE);
        }
        sap_http_response_release(&r);
    }
}

static void test_lies(void **state) {
    (void)state;
    static const char *const lies[] = {"bytes 0-4/5000",
                                       "bytes 18446744073709551615-18446744073709551615/18446744073709551615",
                                       "bytes 9999999999999999999-99999999999999999999/1",
                                       "bytes 100-99/5000",
                                       "bytes -5/5000",
                                       "bytes */5000",
                                       "bytes 0-4",
                                       "furlongs 0-4/5000",
                                       "",
                                       "bytes 0-9223372036854775807/9223372036854775807"};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        request q;
        sap_http_response r;
        char line[200];
        make_request(&q, 1, 7);
        q.ranges[0].offset = 1000;
        assert_true(sap_http_response_init(&r, q.ranges, 1));
        header(&r, "HTTP/1.1 206 Partial Content");
        (void)snprintf(line, sizeof line, "Content-Range: %s", lies[i]);
        header(&r, line);
        (void)sap_http_response_body(&r, file, 900);
        assert_int_equal(r.filled[0], 0);
        assert_false(sap_http_response_whole(&r));
        sap_http_response_release(&r);
    }
    request q;
    sap_http_response r;
    make_request(&q, 2, 7);
    assert_true(sap_http_response_init(&r, q.ranges, 2));
    header(&r, "HTTP/1.1 206 Partial Content");
    header(&r, "Content-Type: multipart/byteranges; boundary=x");
    static uint8_t endless[100000];
    memset(endless, 'a', sizeof endless);
    assert_false(body(&r, endless, sizeof endless, 1)); /* a line without an end */
    sap_http_response_release(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_part), cmocka_unit_test(test_parts),
                                       cmocka_unit_test(test_hostile), cmocka_unit_test(test_lies)};
    return cmocka_run_group_tests(tests, make_file, NULL);
}
