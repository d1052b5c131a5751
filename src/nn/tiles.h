/* The tile instructions of AMX (Intel SDM, chapter "Intel AMX"), or what they do in plain C where SAP_TILES_EMULATED is defined.
 *
 * Eight tiles of 16 rows of 64 bytes. tile_dot(c, a, b): c[m][n] += Σ_k a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1], a and b bf16, c
 * float32. As the processor does, sums of even and of odd elements are taken apart, each by fused multiply-adds, then added to each other
 * and to c; numbers too small for a normal float count as zero and become zero. Tile numbers are constants.
 */
#ifndef SAP_TILES_H
#define SAP_TILES_H

#include <stdint.h>
#include <string.h>

enum { TILE_ROWS = 16, TILE_DEPTH = 32 /* bf16 a row */, TILE_PAIRS = TILE_DEPTH / 2 };

#ifndef SAP_TILES_EMULATED

#include <immintrin.h>

#define tile_zero(c) _tile_zero(c)
#define tile_load(t, from, stride) _tile_loadd(t, from, (long long)(stride))
#define tile_store(t, to, stride) _tile_stored(t, to, (long long)(stride))
#define tile_dot(c, a, b) _tile_dpbf16ps(c, a, b)

/* Before the first tile instruction of a thread, and after the last. */
static inline void tiles_begin(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = 2 * TILE_DEPTH;
        config.rows[t] = TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

static inline void tiles_end(void) {
    _tile_release();
}

#else

#include <math.h>

typedef struct sap_tiles {
    int set; /* configured; all else is undefined before that, as in the processor */
    uint32_t t[8][TILE_ROWS][TILE_PAIRS];
} sap_tiles;

static _Thread_local sap_tiles sap_own_tiles;

static inline void tiles_begin(void) {
    memset(&sap_own_tiles, 0, sizeof sap_own_tiles);
    sap_own_tiles.set = 1;
}

static inline void tiles_end(void) {
    memset(&sap_own_tiles, 0xFF, sizeof sap_own_tiles); /* NaN */
    sap_own_tiles.set = 0;
}

static inline void tile_zero(int c) {
    memset(sap_own_tiles.t[c], sap_own_tiles.set ? 0 : 0xFF, sizeof sap_own_tiles.t[c]);
}

static inline void tile_load(int t, const void *from, int64_t stride) {
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy(sap_own_tiles.t[t][r], (const char *)from + r * stride, sizeof sap_own_tiles.t[t][r]);
}

static inline void tile_store(int t, void *to, int64_t stride) {
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy((char *)to + r * stride, sap_own_tiles.t[t][r], sizeof sap_own_tiles.t[t][r]);
}

static inline float tile_flush(float value) { /* what is no normal number, to zero with its sign */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= bits & 0x7F800000U ? 0xFFFFFFFFU : 0x80000000U;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float tile_number(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return tile_flush(value);
}

static inline void tile_dot(int c, int a, int b) {
    const sap_tiles *s = &sap_own_tiles;
    for (int m = 0; m < TILE_ROWS; m++) {
        float even[TILE_PAIRS] = {0}, odd[TILE_PAIRS] = {0};
        for (int k = 0; k < TILE_PAIRS; k++) {
            float x = tile_number(s->t[a][m][k] << 16), y = tile_number(s->t[a][m][k] & 0xFFFF0000U);
            for (int n = 0; n < TILE_PAIRS; n++) {
                uint32_t pair = s->t[b][k][n];
                even[n] = tile_flush(fmaf(x, tile_number(pair << 16), even[n]));
                odd[n] = tile_flush(fmaf(y, tile_number(pair & 0xFFFF0000U), odd[n]));
            }
        }
        for (int n = 0; n < TILE_PAIRS; n++) {
            float sum = tile_flush(tile_number(s->t[c][m][n]) + tile_flush(even[n] + odd[n]));
            memcpy(&sap_own_tiles.t[c][m][n], &sum, sizeof sum);
        }
    }
}

#endif
#endif
