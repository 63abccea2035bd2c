/* AWS Signature Version 4 of one request, equal to `sqs2pg.sqs.signer.RequestTemplate`. */
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

/* Return an upper bound of the request's length. */
size_t signed_size(const struct request *request);

/* Write the signed request as it goes on the wire; return its length. `to` and `scratch` have
 * signed_size bytes each. */
size_t write_signed(const struct request *request, char *to, char *scratch);

#endif
