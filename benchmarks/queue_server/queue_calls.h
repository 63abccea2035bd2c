/* The calls about queues: create, find, list, delete, purge, and their attributes. */
#ifndef QUEUE_CALLS_H
#define QUEUE_CALLS_H

#include "answers.h"

bool create_queue(Connection *c, const JsonNode *args, Problem *p);
bool get_queue_url(Connection *c, const JsonNode *args, Problem *p);
bool list_queues(Connection *c, const JsonNode *args, Problem *p);
bool delete_queue(Connection *c, const JsonNode *args, Problem *p);
bool purge_queue(Connection *c, const JsonNode *args, Problem *p);
bool set_queue_attributes(Connection *c, const JsonNode *args, Problem *p);
bool get_queue_attributes(Connection *c, const JsonNode *args, Problem *p);

#endif
