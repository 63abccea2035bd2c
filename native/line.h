/* A message's body -> its line of the target, for the bodies that nothing is odd about.
 *
 * It only ever accepts: whatever it is not sure of (an escape, a character outside printable
 * ASCII, a number where text belongs, a value too long, a field that is missing) it leaves to the
 * Python code, which alone decides what is a fault and what the line is then. So there is one
 * meaning of a mapping, and this is a shortcut to its most common answers. No Python here. */
#ifndef SQS2PG_LINE_H
#define SQS2PG_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

enum { SOURCES_MAX = 64, COLUMNS_MAX = 128, PREFIX_MAX = 8 };

enum operation {
    OP_TEXT,       /* as it is */
    OP_VERSION,    /* 2.3.1 -> 2003001 */
    OP_DATE,       /* YYYY-MM-DD; missing: the day the message was sent, where `dated` */
    OP_TOKEN_IP,   /* the pseudonym of a dotted IPv4 address */
    OP_TOKEN_TEXT, /* the pseudonym of a text */
    OP_COUNT
};

struct source { /* a field of the JSON object */
    const char *name;
    size_t len;
    int required; /* there, text, and not empty */
};

struct column {
    int source;
    enum operation op;
    int dated;          /* OP_DATE: missing is the day of SentTimestamp */
    int nullable;       /* missing is \N; else it is left to Python */
    size_t length_max;  /* characters of a text; SIZE_MAX: any */
    char prefix[PREFIX_MAX];
    size_t prefix_len;
    struct hmac_key key;
};

struct plan {
    size_t sources, columns;
    int forbid_unknown; /* a field that is not named is left to Python */
    struct source source[SOURCES_MAX];
    struct column column[COLUMNS_MAX];
};

struct text { /* grows; `failed` where memory did not */
    char *at;
    size_t len, size;
    int failed;
};

/* Append the line, newline included, to `out`; 0 and nothing appended where it is left to Python. */
int write_line(const struct plan *plan, const char *body, size_t len, int64_t sent_ms,
               struct text *out);

#endif
