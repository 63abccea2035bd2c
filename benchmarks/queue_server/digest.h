/* MD5 (RFC 1321), which SQS gives for every body, and SHA-256 (FIPS 180-4), which is the
 * deduplication id of a body on FIFO queues. Neither protects anything here. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>
#include <stdint.h>

void md5(const void *data, size_t len, uint8_t out[16]);
void sha256(const void *data, size_t len, uint8_t out[32]);

#endif
