/* Finds the body of the usual HTTP/1.1 reply, complete in one piece. RFC 9112.
 *
 * Like line.h, it reports no faults. Another status, a header that affects the connection, a part
 * of a reply and more than one reply are left to the full parser. */
#ifndef SQS2PG_HTTP_H
#define SQS2PG_HTTP_H

#include <stddef.h>

/* Return where the body of a plain 200 begins; it ends with the given bytes. 0: not plain. */
size_t plain_body(const char *reply, size_t len);

#endif
