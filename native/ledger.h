/* The ledger's COPY in PostgreSQL's binary format, of its lines as text. */
#ifndef SQS2PG_LEDGER_H
#define SQS2PG_LEDGER_H

#include <stddef.h>

struct ledger_end { /* of a line, after key and id: as text, and as its last fields */
    const char *text, *fields;
    size_t text_len, fields_len;
};

/* Beside the lines, each of which is shorter in the binary format: header and trailer. */
enum { LEDGER_BINARY_MORE = 21 };

/* How much longer the fields of an end may be than its text. */
enum { LEDGER_END_MORE = 11 };

/* Write the whole, header and trailer included; `to` has room for `len` and LEDGER_BINARY_MORE bytes,
 * `columns` is the number of a row's. Return how many bytes it has; 0 where some line is no key, id and
 * one of the ends, or an id is not of plain ASCII. */
size_t ledger_write_binary(const char *at, size_t len, const struct ledger_end *ends, size_t count,
                           unsigned columns, char *to);

#endif
