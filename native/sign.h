/* AWS Signature Version 4 of one request, as `sqs2pg.source.signer.RequestTemplate` makes it. */
#ifndef SQS2PG_SIGN_H
#define SQS2PG_SIGN_H

#include <stddef.h>

struct span {
    const char *at;
    size_t len;
};

struct request {
    struct span before_date, after_date; /* of the canonical request, up to the body's hash */
    struct span scope;
    struct span head;          /* of the request, up to the date's value */
    struct span authorization; /* that header, up to the signature */
    struct span key;           /* the signing key of the day, 32 bytes */
    struct span timestamp;     /* 20150830T123600Z */
    struct span body;
};

/* How long the request is at the most. */
size_t signed_size(const struct request *request);

/* Write the request as it goes on the wire, signed; `scratch` is as large as `to`, signed_size.
 * Returns its length. */
size_t write_signed(const struct request *request, char *to, char *scratch);

#endif
