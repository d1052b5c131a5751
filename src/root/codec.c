/* Compressed records: blocks of zlib, lzma, lz4, zstd and ROOT's old raw deflate. docs/format/tfile.md, § Compression. */
#include "root_internal.h"

#include <libdeflate.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

enum { BLOCK_HEADER = 9, LZ4_CHECKSUM = 8, BLOCK_MOST = (1 << 24) - 1 };
enum {
    LZMA_MEMORY = 48 << 20, /* a dictionary is no larger than the block, when ROOT has written it */
    BELIEVED = 32 << 20,    /* bytes of a record for which memory is taken on its word */
    RECORD_TIMES = 1040     /* larger ones may be so many times what is stored, deflate's most */
};

typedef enum codec_kind { CODEC_NONE, CODEC_ZLIB, CODEC_LZMA, CODEC_LZ4, CODEC_ZSTD, CODEC_OLD_ZLIB } codec_kind;

/* most: how many bytes one stored byte can become, at the very most. */
static const struct {
    char tag[3];
    const char *name;
    size_t most;
} codecs[] = {
    [CODEC_NONE] = {"", "none", 1},   [CODEC_ZLIB] = {"ZL", "zlib", 1040},  [CODEC_LZMA] = {"XZ", "lzma", 16384},
    [CODEC_LZ4] = {"L4", "lz4", 260}, [CODEC_ZSTD] = {"ZS", "zstd", 65536}, [CODEC_OLD_ZLIB] = {"CS", "old-zlib", 1040},
};

typedef struct block {
    codec_kind kind;
    const uint8_t *data;
    size_t stored, size;
} block;

static codec_kind kind_of(const uint8_t *tag) {
    for (int k = CODEC_ZLIB; k <= CODEC_OLD_ZLIB; k++)
        if (tag[0] == (uint8_t)codecs[k].tag[0] && tag[1] == (uint8_t)codecs[k].tag[1])
            return (codec_kind)k;
    return CODEC_NONE;
}

static size_t le24(const uint8_t *p) {
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16;
}

static sap_status next_block(const uint8_t *data, size_t length, size_t *at, block *out, const char *where,
                             uint64_t offset, sap_error *err) {
    unsigned long long place = (unsigned long long)(offset + *at);
    if (length - *at < BLOCK_HEADER)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: a compression block needs 9 bytes, %zu left", where, place,
                             length - *at);
    const uint8_t *p = data + *at;
    *out = (block){.kind = kind_of(p), .data = p + BLOCK_HEADER, .stored = le24(p + 3), .size = le24(p + 6)};
    if (out->kind == CODEC_NONE)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: bytes %02x %02x begin no compression that is known", where,
                             place, p[0], p[1]);
    if (out->stored > length - *at - BLOCK_HEADER)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s block needs %zu bytes, %zu left", where, place,
                             codecs[out->kind].name, out->stored, length - *at - BLOCK_HEADER);
    *at += BLOCK_HEADER + out->stored;
    return SAP_OK;
}

static const char *run_deflate(sap_codec *codec, const block *b, uint8_t *out) {
    if (!codec->deflate)
        codec->deflate = libdeflate_alloc_decompressor();
    if (!codec->deflate)
        return "out of memory";
    size_t got = 0;
    enum libdeflate_result result =
        b->kind == CODEC_ZLIB ? libdeflate_zlib_decompress(codec->deflate, b->data, b->stored, out, b->size, &got)
                              : libdeflate_deflate_decompress(codec->deflate, b->data, b->stored, out, b->size, &got);
    return result == LIBDEFLATE_SUCCESS && got == b->size ? NULL : "the data are damaged";
}

static const char *run_lzma(const block *b, uint8_t *out) {
    uint64_t memory = LZMA_MEMORY;
    size_t in_at = 0, out_at = 0;
    lzma_ret result = lzma_stream_buffer_decode(&memory, 0, NULL, b->data, &in_at, b->stored, out, &out_at, b->size);
    if (result == LZMA_MEMLIMIT_ERROR)
        return "it asks for more than 48 MB of memory";
    return result == LZMA_OK && out_at == b->size ? NULL : "the data are damaged";
}

static const char *run_lz4(const sap_codec *codec, const block *b, uint8_t *out) {
    if (b->stored < LZ4_CHECKSUM)
        return "the checksum is missing";
    const uint8_t *data = b->data + LZ4_CHECKSUM;
    size_t stored = b->stored - LZ4_CHECKSUM;
    if (!codec->verified && XXH64(data, stored, 0) != sap_be64(b->data))
        return "the checksum differs: the data are damaged";
    int got = LZ4_decompress_safe((const char *)data, (char *)out, (int)stored, (int)b->size);
    return got >= 0 && (size_t)got == b->size ? NULL : "the data are damaged";
}

static const char *run_zstd(sap_codec *codec, const block *b, uint8_t *out) {
    if (!codec->zstd)
        codec->zstd = ZSTD_createDCtx();
    if (!codec->zstd)
        return "out of memory";
    size_t got = ZSTD_decompressDCtx(codec->zstd, out, b->size, b->data, b->stored);
    return !ZSTD_isError(got) && got == b->size ? NULL : "the data are damaged";
}

/* What is wrong with the block, or NULL; out: (b->size). */
static const char *run_block(sap_codec *codec, const block *b, uint8_t *out) {
    if (b->kind == CODEC_LZMA)
        return run_lzma(b, out);
    if (b->kind == CODEC_LZ4)
        return run_lz4(codec, b, out);
    return b->kind == CODEC_ZSTD ? run_zstd(codec, b, out) : run_deflate(codec, b, out);
}

static sap_status block_failed(const block *b, const char *problem, const char *where, uint64_t place, sap_error *err) {
    return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s block cannot be decompressed to %zu bytes: %s", where,
                         (unsigned long long)place, codecs[b->kind].name, b->size, problem);
}

/* Decompresses the blocks one after another into the same memory: whether all that is promised is there. */
static sap_status try_blocks(const uint8_t *data, size_t length, size_t size, const char *where, uint64_t offset,
                             sap_error *err) {
    sap_codec codec = {0};
    uint8_t *out = malloc(BLOCK_MOST);
    sap_status status = out ? SAP_OK : sap_error_memory(err, where);
    for (size_t at = 0, done = 0; status == SAP_OK && done < size;) {
        block b = {0};
        size_t begin = at;
        status = next_block(data, length, &at, &b, where, offset, err);
        const char *problem = status == SAP_OK ? run_block(&codec, &b, out) : NULL;
        if (problem)
            status = block_failed(&b, problem, where, offset + begin, err);
        done += b.size;
    }
    free(out);
    sap_codec_release(&codec);
    return status;
}

sap_status sap_codec_check(const uint8_t *data, size_t length, size_t size, const char *where, uint64_t offset,
                           sap_error *err) {
    size_t at = 0, promised = 0;
    while (promised < size) {
        block b = {0};
        SAP_TRY(next_block(data, length, &at, &b, where, offset, err));
        if (b.size > size - promised || b.size > b.stored * codecs[b.kind].most)
            return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %s block of %zu bytes promises %zu, %zu are expected",
                                 where, (unsigned long long)(offset + at), codecs[b.kind].name, b.stored, b.size,
                                 size - promised);
        promised += b.size;
    }
    if (size <= BELIEVED)
        return SAP_OK;
    if (size / RECORD_TIMES > length)
        return sap_error_set(err, SAP_EFORMAT, "%s @0x%llx: %zu bytes that become %zu: more than %d times as many",
                             where, (unsigned long long)offset, length, size, RECORD_TIMES);
    return try_blocks(data, length, size, where, offset, err);
}

sap_status sap_codec_run(sap_codec *codec, const uint8_t *data, size_t length, uint8_t *out, size_t size,
                         const char *where, uint64_t offset, sap_error *err) {
    size_t at = 0, done = 0;
    while (done < size) {
        block b = {0};
        size_t begin = at;
        SAP_TRY(next_block(data, length, &at, &b, where, offset, err));
        const char *problem = b.size > size - done ? "it is larger than its record" : run_block(codec, &b, out + done);
        if (problem)
            return block_failed(&b, problem, where, offset + begin, err);
        done += b.size;
    }
    return SAP_OK;
}

void sap_codec_release(sap_codec *codec) {
    if (codec->deflate)
        libdeflate_free_decompressor(codec->deflate);
    ZSTD_freeDCtx(codec->zstd);
    *codec = (sap_codec){0};
}

const char *sap_codec_name(const uint8_t *data, size_t length) {
    return length >= BLOCK_HEADER ? codecs[kind_of(data)].name : codecs[CODEC_NONE].name;
}
