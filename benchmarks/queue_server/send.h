/* SendMessage and SendMessageBatch: checks messages and sends them. */
#ifndef SEND_H
#define SEND_H

#include "answers.h"

bool send_message(Connection *c, const JsonNode *args, Problem *p);
bool send_message_batch(Connection *c, const JsonNode *args, Problem *p);

#endif
