/* Queue attributes: their names, ranges (AWS SQS API reference, SetQueueAttributes) and values. */
#ifndef ATTRIBUTES_H
#define ATTRIBUTES_H

#include "buffer.h"
#include "queue.h"

typedef enum { SET_OK, SET_UNKNOWN, SET_INVALID } SetResult;

/* Sets one attribute from its text; if apply is false, only checks the text. */
SetResult attribute_set(Queue *q, const char *name, const char *value, bool apply);
/* Appends an attribute's value as plain text; returns false if the queue has no such attribute. */
bool attribute_get(const Queue *q, const char *name, Buffer *out);
extern const char *const ATTRIBUTE_NAMES[]; /* every name that attribute_get knows, then NULL */

#endif
