/* SHA-256 (FIPS 180-4), for digests of columns. */
#ifndef SAPWOOD_SHA256_H
#define SAPWOOD_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
} sha256;

void sha256_init(sha256 *s);
void sha256_add(sha256 *s, const void *data, size_t length);
/* Lower-case hexadecimal, terminated. The state is used up. */
void sha256_text(sha256 *s, char text[65]);

#endif
