/* A unit's ledger key, as sqs2pg.mapping.ledger_key makes it. */
#ifndef SQS2PG_KEY_H
#define SQS2PG_KEY_H

#include <stddef.h>
#include <stdint.h>

enum { KEY_CHARS = 36 };

/* KEY_DATED: of a message of a standard queue, by id and time. KEY_UNDATED: of a FIFO queue, by id.
 * KEY_OF_LINE: of an archive's line, whose id is a UUID of version 8 and keeps its tail. */
enum keying { KEY_DATED, KEY_UNDATED, KEY_OF_LINE, KEYING_COUNT };

/* Write the 36 characters of the key; 0 where Python must make it: the id is no UUID of version 4
 * (of 8 for a line), or the time is out of range. */
int write_key(const char *id, size_t len, int64_t sent_ms, enum keying keying, char key[KEY_CHARS]);

/* Write the key of an event; `mark`: the HMAC-SHA256 of its name. */
void write_event_key(const uint8_t *mark, char key[KEY_CHARS]);

#endif
