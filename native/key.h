/* A message's ledger key, as `sqs2pg.ledger.delivery_key` makes it of a MessageId that is a UUID. */
#ifndef SQS2PG_KEY_H
#define SQS2PG_KEY_H

#include <stddef.h>
#include <stdint.h>

enum { KEY_CHARS = 36 };

/* Write the 36 characters of the key; 0 where the id or the time is not as usual. */
int write_key(const char *message_id, size_t len, int64_t sent_ms, char key[KEY_CHARS]);

#endif
