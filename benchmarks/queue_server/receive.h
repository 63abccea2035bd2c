/* ReceiveMessage: receives that find no message wait on their queue. */
#ifndef RECEIVE_H
#define RECEIVE_H

#include "answers.h"

bool receive_message(Connection *c, const JsonNode *args, Problem *p);
void receive_timeout(Connection *c); /* the wait time is over: an empty answer */
void receive_abandon(Connection *c); /* a waiting connection was closed */
/* Answers waiting receives with the messages that became visible since the last round. */
void receives_serve(void);
/* Answers all waiting receives of a queue with a problem; returns their connections, linked by next,
 * for connections_resume. */
Connection *receives_refuse(Queue *q, const Problem *p);

#endif
