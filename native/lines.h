/* Usual lines of an archive: objects, one on each. */
#ifndef SQS2PG_LINES_H
#define SQS2PG_LINES_H

#include <stddef.h>

/* How many lines the text has, each of which begins an object, holds no other one after it, and is no
 * batch of a subscription; 0 where some line is of another form, or there is none. */
size_t count_usual_lines(const char *at, size_t len);

/* How many lines of any form the text has; the last one may lack its feed. */
size_t count_lines_of(const char *at, size_t len);

/* Find the line at `at`, without its feed; return where the next one begins, at most `end`. */
const char *next_line(const char *at, const char *end, const char **line, size_t *len);

/* Merge two texts of sorted lines, each ended by its feed, into one at `to`, which has room for both. */
void merge_lines(const char *at, size_t len, const char *other, size_t other_len, char *to);

#endif
