/* Takes off what a message is wrapped in, as `mapping/envelope/` does, or leaves it to Python. */
#ifndef SQS2PG_ENVELOPE_H
#define SQS2PG_ENVELOPE_H

#include "json.h"
#include "plan.h"

/* From the body to what is inside of all of the plan's layers; what they say goes to `slots`. */
int open_layers(const struct plan *plan, struct reader *in, struct value *slots);

#endif
