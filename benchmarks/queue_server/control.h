/* The endpoints under /_control/, which AWS does not have: fill, stats, manifest, faults, wait. */
#ifndef CONTROL_H
#define CONTROL_H

#include "http.h"

extern const Handler control_handler;
void control_round(void);               /* once per round of the loop: runs fills, answers waits */
bool control_is_busy(void);             /* a fill has more to send right now */
void control_queue_gone(Queue *q);      /* forgets a queue that is about to be deleted */

#endif
