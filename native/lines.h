/* Usual lines of an archive: objects, one on each. */
#ifndef SQS2PG_LINES_H
#define SQS2PG_LINES_H

#include <stddef.h>

/* How many lines the text has, each of which begins an object, holds no other one after it, and is no
 * batch of a subscription; 0 where some line is of another form, or there is none. */
size_t count_usual_lines(const char *at, size_t len);

#endif
