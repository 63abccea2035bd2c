/* The hash that PostgreSQL gives texts and UUIDs: hashtextextended and uuid_hash_extended, as a server
 * on a little-endian machine computes them. It is Bob Jenkins's lookup3
 * (https://burtleburtle.net/bob/c/lookup3.c) with a seed of 64 bits. */
#ifndef SQS2PG_SERVER_HASH_H
#define SQS2PG_SERVER_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t server_hash(const void *bytes, size_t len, uint64_t seed);

#endif
