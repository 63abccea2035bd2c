/* SHA-256 (FIPS 180-4), and HMAC with keys that are absorbed once: for pseudonyms. */
#ifndef SQS2PG_SHA256_H
#define SQS2PG_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_BLOCK = 64 };

/* The two states of HMAC-SHA256 (RFC 2104) with the padded key absorbed. */
struct hmac_key {
    uint32_t inner[8], outer[8];
};

/* Choose the fastest compression this processor has; one that does not give the known answer is
 * not chosen. Returns its name. Call once, before anything else here. */
const char *sha256_choose(void);

/* `key` of at most SHA256_BLOCK bytes. */
void hmac_key_set(struct hmac_key *into, const uint8_t *key, size_t len);

void hmac_sha256(const struct hmac_key *key, const uint8_t *message, size_t len,
                 uint8_t out[SHA256_BYTES]);

void sha256(const uint8_t *message, size_t len, uint8_t out[SHA256_BYTES]);

/* Write the first `len` bytes of a digest as 2 * len hexadecimal digits; return the end. */
char *write_hex(char *to, const uint8_t *digest, size_t len);

/* Overwrite memory in a way that no optimizer removes. */
void wipe(void *memory, size_t len);

#endif
