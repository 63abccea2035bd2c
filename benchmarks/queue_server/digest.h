/* MD5 (RFC 1321), which SQS returns for every body, and SHA-256 (FIPS 180-4), which FIFO queues use
 * as the deduplication id of a body. Neither is used for security here. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>
#include <stdint.h>

void md5(const void *data, size_t len, uint8_t out[16]);
void sha256(const void *data, size_t len, uint8_t out[32]);

#endif
