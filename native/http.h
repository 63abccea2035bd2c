/* The usual HTTP/1.1 reply, whole in one piece: where its body is. RFC 9112.
 *
 * It only ever accepts, as line.h does: another status, a header that means something for the
 * connection, a part of a reply or more than one are left to the parser that knows them all. */
#ifndef SQS2PG_HTTP_H
#define SQS2PG_HTTP_H

#include <stddef.h>

/* Where the body of a plain 200 begins, which ends with the bytes given; 0: it is none. */
size_t plain_body(const char *reply, size_t len);

#endif
