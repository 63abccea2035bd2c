/* The endpoints under /_control/, which are not AWS: fill, stats, manifest, faults, wait. */
#ifndef CONTROL_H
#define CONTROL_H

#include "http.h"

void control_handle(Connection *c, const Request *r);
void control_round(void);               /* once a round: runs fills, answers waits */
bool control_is_busy(void);             /* a fill has more to do at once */
void control_stream(Connection *c);     /* appends the next piece of a manifest */
void control_timer(Connection *c);      /* a wait's time is up */
void control_abandon(Connection *c);    /* a waiting connection went away */
void control_queue_gone(Queue *q);

#endif
