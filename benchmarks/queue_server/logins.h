/* Generated login events: people and devices recur, and a share is malformed. The seed and a person's
 * number determine everything about the person, so the same seed gives the same people. */
#ifndef LOGINS_H
#define LOGINS_H

#include "buffer.h"
#include "server.h"

typedef struct {
    uint64_t seed;
    uint32_t people;
    double malformed_share;
    uint32_t pad_bytes; /* length of an extra field that makes bodies large */
    /* What to write for a login, or NULL for the login itself: `$` stands for the login, `%` for the
     * login escaped for a JSON string, `@` for the login without its opening brace. */
    const char *template;
    size_t template_len;
} Population;

/* Appends one body as plain text. Returns true if it is malformed: not JSON, not an object, or an
 * event that the built-in mapping rejects. */
bool login_write(const Population *p, Random *r, Buffer *out);

#endif
