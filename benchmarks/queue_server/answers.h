/* Answers to SQS calls in the AWS JSON 1.0 protocol: problems, results, and the lists of a batch. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "http.h"
#include "json.h"

/* A kind of error: its type, and its code in the older protocol. */
typedef struct {
    const char *type, *code;
} Kind;
extern const Kind QUEUE_MISSING;
extern const Kind QUEUE_EXISTS;
extern const Kind EMPTY_BATCH;
extern const Kind TOO_MANY_ENTRIES;
extern const Kind IDS_NOT_DISTINCT;
extern const Kind BAD_ENTRY_ID;
extern const Kind BATCH_TOO_LONG;
extern const Kind BAD_HANDLE;
extern const Kind BAD_CONTENTS;
extern const Kind BAD_ATTRIBUTE_NAME;
extern const Kind BAD_ATTRIBUTE_VALUE;
extern const Kind OVER_LIMIT;
extern const Kind BAD_PARAMETER;
extern const Kind MISSING_PARAMETER;
extern const Kind NOT_JSON;
extern const Kind UNKNOWN_OPERATION;

/* Why a call fails, or one entry of a batch. */
typedef struct {
    const Kind *kind;
    char text[384];
} Problem;

/* Fills in a problem; returns false, so that a check can end with `return fail(...)`. */
bool fail(Problem *p, const Kind *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool fail_missing(Problem *p, const char *name); /* the request lacks a parameter */

void answer_error(Connection *c, int status, const char *type, const char *query_code, const char *message);
void answer_problem(Connection *c, const Problem *p);
void answer_json(Connection *c); /* ends an answer with status 200 */
void answer_empty(Connection *c); /* an empty object */

/* A batch is answered by batch_begin, then one of the next three per entry, then batch_end. */
Buffer *batch_begin(Connection *c);
void batch_succeeded(Buffer *out, const JsonNode *id); /* the caller appends the members and `}` */
void batch_failed(const JsonNode *id, const char *code, const char *message, bool sender);
bool batch_entry_fault(Connection *c, const JsonNode *id); /* fails the entry if a fault is drawn for it */
void batch_end(Connection *c, Buffer *out);

#endif
