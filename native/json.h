/* Reads JSON (RFC 8259) without building a tree. It accepts only what msgspec accepts, too, and less:
 * lone surrogates and NULs are left to Python. */
#ifndef SQS2PG_JSON_H
#define SQS2PG_JSON_H

#include <stddef.h>

#include "text.h"

enum {
    DEPTH_MAX = 256, /* objects and arrays inside each other; as in mapping/json_slices.py */
    WHOLE_DIGITS_MAX = 18
};

/* WRONG: of another kind than the mapping wants; only where a document is judged. */
enum shape { ABSENT, NUL, STRING, NUMBER, TRUE, FALSE, CONTAINER, WRONG };

struct value {
    const char *at; /* a string's characters, escapes decoded; else as in the JSON */
    size_t len;
    const char *raw; /* the JSON itself, a string's quotes included */
    size_t raw_len;
    unsigned char is;      /* enum shape */
    unsigned char ascii;   /* a string of ASCII only */
    unsigned char escaped; /* a string that had escapes: it may need COPY's, too */
};

struct reader {
    const char *at, *end;
    struct text *arena; /* where decoded strings go; it is never grown, so that they stay put */
    int unsure; /* what was refused may be JSON all the same: that is Python's to say */
};

static inline void json_space(struct reader *in)
{
    while (in->at < in->end &&
           (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t'))
        in->at++;
}

/* Take one character, after any space; 0 where another stands there. */
static inline int json_take(struct reader *in, char wanted)
{
    json_space(in);
    if (in->at == in->end || *in->at != wanted)
        return 0;
    in->at++;
    return 1;
}

/* Whether only space is left. */
int json_ended(struct reader *in);

/* Read a string that begins here. */
int json_string(struct reader *in, struct value *value);

/* Read a string, a number, a boolean or null that begins here; or skip over a container. `depth`: how
 * many it is in. */
int json_value(struct reader *in, struct value *value, int depth);

/* Read `null`. */
int json_null(struct reader *in);

/* Whether a number is whole, of at most WHOLE_DIGITS_MAX digits, and not -0. */
int json_is_whole(const char *at, size_t len);

#endif
