/* Reads one JSON document: the values that the plan's paths lead to. */
#ifndef SQS2PG_DOCUMENT_H
#define SQS2PG_DOCUMENT_H

#include "json.h"
#include "plan.h"

/* Read an object into the values of `work`; 0 where it is left to Python. `depth`: how many arrays it
 * is in. */
int document_read(const struct plan *plan, struct reader *in, struct work *work, int depth);

/* The same of an object that is JSON, not in any array: a value of another kind than its path wants is
 * WRONG. 0 where that is Python's to say. For plans without groups that take unknown names. */
int document_judge(const struct plan *plan, struct reader *in, struct work *work);

#endif
