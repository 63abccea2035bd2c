/* A message's ledger key, equal to `sqs2pg.mapping.ledger_key.delivery_key` of a UUID of
   version 4. */
#ifndef SQS2PG_KEY_H
#define SQS2PG_KEY_H

#include <stddef.h>
#include <stdint.h>

enum { KEY_CHARS = 36 };

/* Write the 36 characters of the key; 0 if the id is no such UUID, or the time out of range. */
int write_key(const char *message_id, size_t len, int64_t sent_ms, char key[KEY_CHARS]);

#endif
