/* The masks that are functions of a value: each as its operator in `mask/` makes it, or left to
 * Python. */
#ifndef SQS2PG_MASK_H
#define SQS2PG_MASK_H

#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "sha256.h"
#include "text.h"

enum kind {
    KIND_TEXT,
    KIND_IP,
    KIND_EMAIL,
    KIND_PHONE,
    KIND_UUID,
    KIND_EXACT, /* the value as it is: of a mark */
    KIND_IP_OR_TEXT,
    KIND_COUNT
};

enum operator {
    MASK_NONE,
    MASK_KEEP,        /* the value itself, where it is of its kind */
    MASK_PSEUDONYM,   /* the key's version, and 16 bytes of the HMAC of the canonical form */
    MASK_SHA256,      /* of the value as it is */
    MASK_REDACT,
    MASK_NULLIFY,
    MASK_TRUNCATE_IP, /* the /24 of an IPv4 address */
    MASK_PARTIAL,     /* a few characters of the canonical form */
    MASK_COUNT
};

enum { PREFIX_MAX = 8 };

struct mask {
    enum operator operator;
    enum kind kind;
    char prefix[PREFIX_MAX];
    size_t prefix_len;
    struct hmac_key key;
};

/* Append the cell of a masked value; 0 where it is left to Python. Not for MASK_NONE. */
int write_masked(const struct mask *mask, const struct value *value, struct text *out);

#endif
