/* The endpoints under /_control/, which are not AWS: fill, stats, manifest, faults, wait. */
#ifndef CONTROL_H
#define CONTROL_H

#include "http.h"

extern const Handler control_handler;
void control_round(void);               /* once a round: runs fills, answers waits */
bool control_is_busy(void);             /* a fill has more to do at once */
void control_queue_gone(Queue *q);      /* forgets a queue that is about to be deleted */

#endif
