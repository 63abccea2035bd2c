/* Generated login events: people and devices recur, a share is malformed. Everything about a
 * person follows from the seed and the person's number, so that one seed gives one population. */
#ifndef LOGINS_H
#define LOGINS_H

#include "buffer.h"
#include "server.h"

typedef struct {
    uint64_t seed;
    uint32_t people;
    double malformed_share;
    uint32_t pad_bytes; /* length of an extra field, to make bodies large */
} Population;

/* Appends one body as plain text; returns true when it is a malformed one: not JSON, not an
 * object, or an event that the built-in mapping refuses. */
bool login_write(const Population *p, Random *r, Buffer *out);

#endif
