/* Receipt handles: each stands for one receive of one message. */
#ifndef HANDLES_H
#define HANDLES_H

#include "queue.h"

typedef enum { HANDLE_MALFORMED, HANDLE_GONE, HANDLE_STALE, HANDLE_CURRENT } HandleState;
/* HANDLE_GONE: valid, but the message was deleted or moved. HANDLE_STALE: received again since. */
HandleState handle_read(const Queue *q, const char *text, size_t len, Message **message);
void handle_write(const Message *m, char *text); /* options.handle_chars characters */

#endif
