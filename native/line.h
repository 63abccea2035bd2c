/* A message's body -> its line of the target, for ordinary bodies.
 *
 * It reports no faults. Whatever is not certain (an escape, a character outside printable ASCII, a
 * number instead of text, a value too long, a missing field) it leaves to the Python code, which
 * alone decides what is a fault and what the line is. So Python alone defines what a mapping means,
 * and this code makes the most common lines faster. No Python here. */
#ifndef SQS2PG_LINE_H
#define SQS2PG_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

enum { SOURCES_MAX = 64, COLUMNS_MAX = 128, PREFIX_MAX = 8 };

enum operation {
    OP_TEXT,       /* unchanged */
    OP_VERSION,    /* 2.3.1 -> 2003001 */
    OP_DATE,       /* YYYY-MM-DD; if missing and `dated`, the day the message was sent */
    OP_TOKEN_IP,   /* the pseudonym of a dotted IPv4 address */
    OP_TOKEN_TEXT, /* the pseudonym of a text */
    OP_COUNT
};

struct source { /* a field of the JSON object */
    const char *name;
    size_t len;
    int required; /* must be present, a string, and not empty */
};

struct column {
    int source;
    enum operation op;
    int dated;          /* OP_DATE: a missing value is the day of SentTimestamp */
    int nullable;       /* a missing value is \N; otherwise it is left to Python */
    size_t length_max;  /* characters of a text; SIZE_MAX: no limit */
    char prefix[PREFIX_MAX];
    size_t prefix_len;
    struct hmac_key key;
};

struct plan {
    size_t sources, columns;
    int forbid_unknown; /* a body with a field that the plan does not name is left to Python */
    struct source source[SOURCES_MAX];
    struct column column[COLUMNS_MAX];
};

struct text { /* grows; `failed` if memory ran out */
    char *at;
    size_t len, size;
    int failed;
};

/* Append the line, newline included, to `out`. 0, and nothing appended: it is left to Python. */
int write_line(const struct plan *plan, const char *body, size_t len, int64_t sent_ms,
               struct text *out);

#endif
