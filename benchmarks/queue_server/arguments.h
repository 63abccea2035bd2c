/* Arguments of the SQS call being handled: lookups, and checks that several calls share. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "answers.h"
#include "json.h"
#include "queue.h"

enum { BATCH_MAX = 10 };

extern Json request_json; /* the request being handled */

static inline const JsonNode *arg(const JsonNode *object, const char *key) { return json_get(&request_json, object, key); }
static inline const JsonNode *arg_first(const JsonNode *parent) { return json_first(&request_json, parent); }
static inline const JsonNode *arg_next(const JsonNode *node) { return json_next(&request_json, node); }

/* Returns the unescaped text of a string node, stored in scratch; NULL if it is not valid text. */
const char *arg_text(const JsonNode *node, Buffer *scratch, size_t *len);
/* Reads an optional integer and checks its range. */
bool arg_number(const JsonNode *args, const char *name, int64_t least, int64_t most, int64_t *value, Problem *p);
/* Finds the queue that the last part of QueueUrl names; NULL on a problem. */
Queue *arg_queue(const JsonNode *args, Problem *p);
/* Reads the entries of a batch; returns how many, or 0 if a problem fails the whole batch. */
int arg_entries(const JsonNode *args, const JsonNode *entries[BATCH_MAX], const JsonNode *ids[BATCH_MAX], Problem *p);

#endif
