/* Fills a queue with generated logins inside the server: all at once as a backlog, or at a steady
 * rate. It sends a limited number per round of the event loop. */
#ifndef FILL_H
#define FILL_H

#include "http.h"
#include "json.h"

/* Starts a fill from {"queue": NAME, "count": N, "malformed_share": 0.01, "people": 1000, "seed": 1,
 * "pad_bytes": 0, "groups": N, "rate_per_s": R, "sent_ms_ago": 0, "template": "$",
 * "background": false}. It answers when all are sent, or at once if background is true. Returns NULL, or what is wrong. */
const char *fill_start(Connection *c, const Json *json, const JsonNode *args);
void fills_run(void);
bool fills_are_busy(void);
uint64_t fills_remaining(void);
void fill_abandon(Connection *c);
void fills_queue_gone(Queue *q);

#endif
