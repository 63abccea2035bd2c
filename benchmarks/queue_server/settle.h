/* DeleteMessage, ChangeMessageVisibility and their batches: what happens to a received message. */
#ifndef SETTLE_H
#define SETTLE_H

#include "answers.h"

bool delete_message(Connection *c, const JsonNode *args, Problem *p);
bool delete_message_batch(Connection *c, const JsonNode *args, Problem *p);
bool change_visibility(Connection *c, const JsonNode *args, Problem *p);
bool change_visibility_batch(Connection *c, const JsonNode *args, Problem *p);

#endif
