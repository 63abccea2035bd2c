/* SipHash-1-3 (Aumasson and Bernstein, https://www.aumasson.jp/siphash/siphash.pdf): whoever does not
 * know the key cannot make two inputs collide. */
#ifndef SQS2PG_SIPHASH_H
#define SQS2PG_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

enum { SIPHASH_KEY_BYTES = 16 };

uint64_t siphash(const uint8_t key[SIPHASH_KEY_BYTES], const char *bytes, size_t len);

#endif
