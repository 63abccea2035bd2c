/* Judges a message that has no lines: what is wrong with it, as `mapping/documents.py` and
 * `mapping/transform.py` say, where that is certain. Only bodies of one document in no envelope. */
#ifndef SQS2PG_JUDGE_H
#define SQS2PG_JUDGE_H

#include "plan.h"

/* Set the verdict on the message that `plan_write` has just refused; its values are still there. */
void plan_judge(const struct plan *plan, const char *body, size_t len, struct work *work);

#endif
