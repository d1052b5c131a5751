/* Codecs: every algorithm, several blocks, damage, and promises that cannot be kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "root/root_internal.h"

#include <libdeflate.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

enum { SIZE = 5000, CAPACITY = 20000 };

static uint8_t original[SIZE];

static void fill(void) {
    for (size_t i = 0; i < SIZE; i++)
        original[i] = (uint8_t)(sap_mix(7, i / 3) & 0x1f);
}

/* Bytes of a stored block without its header. */
static size_t compress(const char *tag, const uint8_t *data, size_t size, uint8_t *out) {
    size_t n = 0;
    if (strcmp(tag, "ZS") == 0) {
        n = ZSTD_compress(out, CAPACITY, data, size, 3);
        assert_false(ZSTD_isError(n));
    } else if (strcmp(tag, "L4") == 0) {
        n = (size_t)LZ4_compress_default((const char *)data, (char *)out + 8, (int)size, CAPACITY - 8);
        uint64_t sum = __builtin_bswap64(XXH64(out + 8, n, 0));
        memcpy(out, &sum, 8);
        n += 8;
    } else if (strcmp(tag, "XZ") == 0) {
        assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, data, size, out, &n, CAPACITY), LZMA_OK);
    } else {
        struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
        n = strcmp(tag, "ZL") == 0 ? libdeflate_zlib_compress(c, data, size, out, CAPACITY)
                                   : libdeflate_deflate_compress(c, data, size, out, CAPACITY);
        libdeflate_free_compressor(c);
    }
    assert_true(n > 0);
    return n;
}

static size_t add_block(const char *tag, const uint8_t *data, size_t size, uint8_t *out) {
    size_t n = compress(tag, data, size, out + 9);
    const uint8_t header[9] = {(uint8_t)tag[0], (uint8_t)tag[1],      8,
                               (uint8_t)n,      (uint8_t)(n >> 8),    (uint8_t)(n >> 16),
                               (uint8_t)size,   (uint8_t)(size >> 8), (uint8_t)(size >> 16)};
    memcpy(out, header, 9);
    return n + 9;
}

static const char *const tags[] = {"ZL", "XZ", "L4", "ZS", "CS"};
static const char *const names[] = {"zlib", "lzma", "lz4", "zstd", "old-zlib"};

static void test_blocks(void **state) {
    (void)state;
    sap_codec codec = {0};
    sap_error error = {0};
    static uint8_t stored[2 * CAPACITY], out[SIZE];
    for (size_t i = 0; i < 5; i++) {
        size_t n = add_block(tags[i], original, 3000, stored);
        n += add_block(tags[i], original + 3000, SIZE - 3000, stored + n);
        memset(out, 0, SIZE);
        assert_int_equal(sap_codec_check(stored, n, SIZE, "x", 0, &error), SAP_OK);
        assert_int_equal(sap_codec_run(&codec, stored, n, out, SIZE, "x", 0, &error), SAP_OK);
        assert_memory_equal(out, original, SIZE);
        assert_string_equal(sap_codec_name(stored, n), names[i]);
    }
    sap_codec_release(&codec);
    sap_codec_release(&codec);
}

/* Every flipped bit of the LZ4 block is seen by its checksum; of the others at least no crash, and the sizes hold. */
static void test_damage(void **state) {
    (void)state;
    sap_codec codec = {0};
    sap_error error = {0};
    static uint8_t stored[CAPACITY], damaged[CAPACITY], out[SIZE];
    for (size_t i = 0; i < 5; i++) {
        size_t n = add_block(tags[i], original, SIZE, stored);
        for (size_t at = 9; at < n; at += 7) {
            memcpy(damaged, stored, n);
            damaged[at] ^= 0x10;
            sap_status status = sap_codec_run(&codec, damaged, n, out, SIZE, "x", 0, &error);
            assert_true(status == SAP_OK || status == SAP_EFORMAT);
            if (strcmp(tags[i], "L4") == 0)
                assert_int_equal(status, SAP_EFORMAT);
        }
        for (size_t length = 0; length < n; length += 13)
            assert_int_equal(sap_codec_run(&codec, stored, length, out, SIZE, "x", 0, &error), SAP_EFORMAT);
    }
    sap_codec_release(&codec);
}

static void test_promises(void **state) {
    (void)state;
    sap_error error = {0};
    static uint8_t stored[CAPACITY];
    size_t n = add_block("ZS", original, SIZE, stored);
    assert_int_equal(sap_codec_check(stored, n, SIZE - 1, "x", 0, &error), SAP_EFORMAT); /* more than is expected */
    assert_int_equal(sap_codec_check(stored, n, SIZE + 1, "x", 0, &error), SAP_EFORMAT); /* less */
    const uint8_t bomb[20] = {'Z', 'L', 8, 11, 0, 0, 0xff, 0xff, 0xff};
    assert_int_equal(sap_codec_check(bomb, sizeof bomb, 0xffffff, "x", 0, &error), SAP_EFORMAT);
    const uint8_t unknown[20] = {'Q', 'Q'};
    assert_int_equal(sap_codec_check(unknown, sizeof unknown, 5, "file:tree", 0x100, &error), SAP_EFORMAT);
    assert_non_null(strstr(error.message, "file:tree @0x100"));
}

/* Some 30 kB of zstd that would become 512 MB of zeros are refused; 80 MB of zlib blocks are believed when they hold
 * what they promise, and only then. */
static void test_bombs(void **state) {
    (void)state;
    enum { BLOCK = 1 << 23, BLOCKS = 64 };
    sap_error error = {0};
    uint8_t *zeros = calloc(1, BLOCK), *stored = malloc(BLOCKS * CAPACITY);
    assert_true(zeros && stored);
    size_t n = 0;
    for (int i = 0; i < BLOCKS; i++)
        n += add_block("ZS", zeros, BLOCK, stored + n);
    assert_int_equal(sap_codec_check(stored, n, (size_t)BLOCK * BLOCKS, "x", 0, &error), SAP_EFORMAT);
    assert_non_null(strstr(error.message, "times as many"));
    assert_int_equal(sap_codec_check(stored, n, 4 * (size_t)BLOCK, "x", 0, &error), SAP_OK); /* 32 MB */
    n = 0;
    for (int i = 0; i < 10; i++)
        n += add_block("ZL", zeros, BLOCK, stored + n);
    assert_int_equal(sap_codec_check(stored, n, 10 * (size_t)BLOCK, "x", 0, &error), SAP_OK);
    stored[n - 5000] ^= 0x55;
    assert_int_equal(sap_codec_check(stored, n, 10 * (size_t)BLOCK, "x", 0, &error), SAP_EFORMAT);
    assert_non_null(strstr(error.message, "damaged"));
    free(zeros);
    free(stored);
}

int main(void) {
    fill();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks), cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_promises), cmocka_unit_test(test_bombs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
